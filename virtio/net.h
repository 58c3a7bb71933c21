/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card (virtio 1.2, section 5.1): what its two files share. */
#ifndef VIRTIO_NET_H
#define VIRTIO_NET_H

#include "devices/net/net.h"
#include "virtio/vhost_net.h"
#include "virtio/virtio.h"

#ifndef VIRTIO_NET_F_HOST_USO /* virtio 1.3 */
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO	56
#endif

#define NET_HASH_LEN 8 /* with a hash report: struct virtio_net_hdr_v1_hash */
#define NET_RSS_TYPES \
	0x3f /* VIRTIO_NET_RSS_HASH_TYPE_*: IPv4 and IPv6, without and with TCP, UDP */
#define NET_RSS_KEY   40
#define NET_RSS_TABLE 128
#define NET_FRAME_MAX (65535 + 18) /* the largest IP packet, with Ethernet header and VLAN tag */
#define NET_MAC_TABLE 64
#define NET_TX_BATCH  32
#define NET_RX_IOV    (2 * VIRTIO_MAX_SEGMENTS)

/* Which frames the driver wants to see (section 5.1.6.5). The control queue's loop. */
struct net_filter {
	/* Booleans, but loaded ones may hold anything. */
	uint8_t promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint8_t uni_overflow, multi_overflow; /* the driver named more than fit: all pass */
	uint32_t first_multi, nmacs;	      /* in macs: unicast addresses come first */
	uint8_t macs[NET_MAC_TABLE * 6];
	uint32_t vlans[4096 / 32];
};

/* What the driver has set of RSS and hash report (sections 5.1.6.5.6 and 5.1.6.5.7). The loop of all queues, which is one then. */
struct net_rss {
	uint8_t on;					   /* the hash chooses the queue */
	uint32_t types;					   /* that are hashed */
	uint16_t mask, unclassified, table[NET_RSS_TABLE]; /* queue pairs */
	uint8_t key[NET_RSS_KEY];
};

/*
 * The guest's empty buffers, taken off the ring in advance: a packet's length is known only once it has been read, hence
 * as many as the longest needs are offered to the backend at once.
 */
struct net_rx {
	struct virtqueue *vq;
	struct virtq_chain *chain; /* [head, head + count) are in hand */
	unsigned int head, count;
	struct iovec *iov; /* [iov_head, iov_head + niov) are their buffers */
	unsigned int iov_head, niov;
	uint64_t room; /* bytes of all of them */
	uint32_t want; /* bytes that the longest packet needs */
	/* What does not fit into the buffers in hand ends here; it waits for the driver to give more. */
	uint8_t *spill;
	uint32_t pending;    /* bytes of the packet that waits, with header; 0: none */
	uint32_t spilled_at; /* how many of them are in the buffers */
	struct iovec *apart; /* with a hash report: the buffers behind the header */
	uint8_t hdr[NET_HDR_LEN];
	bool enabled; /* recv_enable() */
};

/* Packets that are given to the backend together. */
struct net_tx {
	struct virtq_chain chain[NET_TX_BATCH];
	struct loop_packet packet[NET_TX_BATCH];
	uint8_t hdr[NET_TX_BATCH][NET_HDR_LEN]; /* with a hash report: without it */
	struct iovec iov[2 * VIRTIO_MAX_SEGMENTS];
};

struct net_pair {
	struct virtio_net *net;
	unsigned int index;
	struct loop *loop;
	struct loop_msg again;	/* go on receiving */
	struct loop_msg change; /* the driver uses more or fewer pairs */
	struct loop_msg failed; /* vhost could not be started */
	struct loop_msg relink; /* the link went up or down */
	struct net_rx rx;
	struct virtqueue *tx;
	struct net_tx *tx_batch;
	bool tx_blocked;	 /* until the backend's writable() */
	bool discard;		 /* the link is down: what the driver sends is lost */
	bool live;		 /* between net_start() and net_stop() */
	bool started;		 /* the backend serves it */
	struct vhost_net *vhost; /* or NULL */
	bool by_vhost;		 /* vhost serves it */
	bool no_vhost;		 /* until net_stop(): it has failed */
};

/* A command that is answered when all queue pairs have done their part of it. The control queue's loop. */
struct net_ctrl_wait {
	bool busy;
	struct virtq_head head;
	uint8_t *ack;
	unsigned int left; /* atomic: pairs that have not done it yet */
	bool failed;	   /* atomic */
	struct loop_msg done;
};

/* What QEMU's properties switch on and off; the table of features in net.c knows their bits. */
struct net_switches {
	bool csum, guest_csum, gso, guest_tso4, guest_tso6, guest_ecn, guest_ufo, guest_announce;
	bool guest_uso4, guest_uso6, host_uso;
	bool host_tso4, host_tso6, host_ecn, host_ufo, mrg_rxbuf, status, ctrl_vq, ctrl_rx;
	bool ctrl_vlan, ctrl_rx_extra, ctrl_mac_addr, ctrl_guest_offloads, mq, rss, hash;
};

struct virtio_net {
	struct virtio_device vdev;
	/* Options. */
	char *netdev_id, *iothread;
	uint8_t mac_opt[6];
	uint16_t host_mtu, rx_queue_size, tx_queue_size;
	uint32_t speed;
	int duplex;
	struct net_switches on;

	struct netdev *backend;
	uint64_t mac;	   /* atomic; six bytes in the order of the wire */
	uint16_t link;	   /* atomic; VIRTIO_NET_S_* */
	uint64_t offloads; /* of VIRTIO_NET_F_GUEST_*, in force */
	bool announce;	   /* when the queues start: a snapshot has been loaded */
	bool mrg;
	uint32_t hdr_len; /* of the driver's headers */
	struct net_rss rss;
	struct net_filter filter;
	struct net_pair *pair; /* array */
	uint16_t max_pairs;
	uint16_t pairs;		/* atomic: the driver uses so many, the first ones */
	struct virtqueue *ctrl; /* or NULL */
	struct net_ctrl_wait wait;
};

#define NET_GUEST_OFFLOADS                                                   \
	(1ull << VIRTIO_NET_F_GUEST_CSUM | 1ull << VIRTIO_NET_F_GUEST_TSO4 | \
	 1ull << VIRTIO_NET_F_GUEST_TSO6 | 1ull << VIRTIO_NET_F_GUEST_ECN |  \
	 1ull << VIRTIO_NET_F_GUEST_UFO | 1ull << VIRTIO_NET_F_GUEST_USO4 |  \
	 1ull << VIRTIO_NET_F_GUEST_USO6)

/**
 * The driver uses @n pairs from now on: true if that is so at once, else net->wait.done comes when it is. In the control queue's loop.
 */
bool net_set_pairs(struct virtio_net *net, uint16_t n);
/** Tell the backend what the driver takes: @bits of NET_GUEST_OFFLOADS. */
int net_set_offloads(struct virtio_net *net, uint64_t bits);
void net_set_mac(struct virtio_net *net, const uint8_t mac[6]);

/* --- net_io.c, in the pair's loop ---------------------------------------------------------------- */

/** Send what the driver gives; take what the backend has, as far as there are buffers. */
void net_tx(struct net_pair *p);
void net_rx(struct net_pair *p);
void net_rx_again(struct loop_msg *msg);
/** Put all buffers in hand back into the ring. */
void net_rx_release(struct net_rx *rx);
/* Of struct net_client_ops. */
void net_readable(void *client, unsigned int queue);
void net_writable(void *client, unsigned int queue);
/** Memory that a pair needs to run. Freeing twice does no harm. Any thread, while it does not run. */
int net_pair_alloc(struct net_pair *p);
void net_pair_free(struct net_pair *p);

/* --- net_rss.c ----------------------------------------------------------------------------------- */

/** The hash of a frame of which @len bytes are at hand: its VIRTIO_NET_HASH_REPORT_*, 0 (NONE) if it has none. */
uint16_t net_rss_hash(const struct net_rss *rss, const uint8_t *frame, size_t len, uint32_t *hash);
/** The queue pair for that. */
uint16_t net_rss_queue(const struct net_rss *rss, uint16_t report, uint32_t hash);
/** Does it name nothing that is not there, if there are @pairs? */
bool net_rss_valid(const struct net_rss *rss, uint16_t pairs);
extern const struct state_table net_rss_state;

/* --- net_ctrl.c ---------------------------------------------------------------------------------- */

/** As after reset: all frames pass. */
void net_filter_reset(struct virtio_net *net);
/** Does the driver want the frame that begins with these @len bytes (up to 18)? */
bool net_filter_accepts(struct virtio_net *net, const uint8_t *frame, size_t len);
/** The control queue has commands. */
void net_ctrl_handle(struct virtqueue *vq);
/** net->wait.done: answer the command that waited. */
void net_ctrl_done(struct loop_msg *msg);
extern const struct state_table net_filter_state;

#endif
