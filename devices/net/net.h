/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Host sides of network cards. The card pulls: it offers its buffers to recv() when the backend says that there is something,
 * so that packets land in the guest's memory without a copy. Every packet starts with a struct virtio_net_hdr_v1 (12 bytes);
 * a backend without such headers strips it (send) and fills in zeroes with num_buffers 1 (recv).
 *
 * A queue pair lives in the loop it was started in; all its calls and callbacks are made there.
 */
#ifndef DEVICES_NET_NET_H
#define DEVICES_NET_NET_H

#include <sys/uio.h>

#include "vmm/loop.h"
#include "vmm/object.h"

#define NET_HDR_LEN 12 /* struct virtio_net_hdr_v1, before each frame */
#define ETH_HDR	    14

#define NETDEV_MAX_QUEUES 31 /* queue pairs; with a control queue they are VIRTIO_MAX_QUEUES */

struct netdev;
struct vhost_user;
struct net_dump;

/* What a backend can do, or a guest accepts; offloads as in VIRTIO_NET_F_* and TUN_F_*. */
struct net_offloads {
	bool csum, tso4, tso6, ecn, ufo, uso;
};

/* Callbacks into the card. */
struct net_client_ops {
	/* recv() may have something now; may be called when it has not. */
	void (*readable)(void *client, unsigned int queue);
	/* send() takes packets again after -EAGAIN. */
	void (*writable)(void *client, unsigned int queue);
	/* The link went up or down. Any thread. */
	void (*link)(void *client, bool up);
};

struct netdev_ops {
	/* Serve queue pair @queue in @loop from now on; nothing is delivered until recv_enable(). In @loop. */
	int (*start)(struct netdev *net, unsigned int queue, struct loop *loop,
		     struct hako_error *err);
	/*
	 * As start(), but the packets of the pair are moved by vhost, and nothing is called but stop(): the descriptor that vhost-net takes as
	 * its backend; 0 with vhost_user. NULL if both are.
	 */
	int (*start_vhost)(struct netdev *net, unsigned int queue, struct hako_error *err);
	/* No callbacks any more after this. In the loop. */
	void (*stop)(struct netdev *net, unsigned int queue);
	/* The card wants readable() calls, or has no buffers. In the loop. */
	void (*recv_enable)(struct netdev *net, unsigned int queue, bool on);
	/*
	 * One packet into @iov: its bytes with the header; -EAGAIN: none; -EMSGSIZE: it did not fit and is lost. Not every backend notices
	 * that, so offer a byte more than you want. num_buffers may be left as it was. After readable() call it until there are none.
	 */
	ssize_t (*recv)(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov);
	/* One packet, header first: bytes taken; -EAGAIN: call again after writable(); other errors: the packet is lost. */
	ssize_t (*send)(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov);
	/*
	 * As send(), of @n packets, each with its own result. After one that gives -EAGAIN a later one may be sent nevertheless; if the last does
	 * not give it, writable() is not called. NULL: one by one is as good.
	 */
	void (*send_packets)(struct netdev *net, unsigned int queue, struct loop_packet *packet,
			     unsigned int n);
	/* The driver has reset the card, whose pairs are stopped. Any thread that is not a loop. May be NULL. */
	void (*reset)(struct netdev *net);
	/* The driver has accepted these. Any thread. */
	int (*set_offloads)(struct netdev *net, const struct net_offloads *offloads);
	/* Show the network that the card's link is up or down; NULL: it can not see it. Any thread. */
	void (*set_link)(struct netdev *net, bool up);
};

/** set_offloads of a network that has none: -EOPNOTSUPP if one is wanted. */
int netdev_no_offloads(struct netdev *net, const struct net_offloads *o);

/* First member of every backend. */
struct netdev {
	struct object obj;
	const struct netdev_ops *ops;
	unsigned int queues;
	bool vnet_hdr;		       /* offloads are possible */
	struct net_offloads offloads;  /* that it can do */
	int *vhost_fd;		       /* one vhost-net device for each pair; NULL: none */
	bool vhost_required;	       /* a card that can not use them is an error */
	struct vhost_user *vhost_user; /* who serves all queues, in @loop; or NULL */
	uint64_t vhost_features;       /* of vhost_user, when it came first */
	uint16_t mtu;	       /* that vhost_user wants the guest to be told; 0: it does not care */
	struct loop *loop;     /* that the card's queues have to be in; NULL: any */
	bool away;	       /* the other end is not there, so the card has no link. In @loop */
	bool link_down;	       /* see netdev_set_link() */
	struct net_dump *dump; /* the filter-dump that is in ops; or NULL */
	/* Set by the card that uses it; one card only. */
	struct object *card;
	const struct net_client_ops *client_ops;
	void *client;
};

/** The card, which has set client and client_ops here before anything can call them; and: nothing calls them any more. */
void netdev_attach(struct netdev *net, struct object *card, const struct net_client_ops *ops,
		   void *client);
void netdev_detach(struct netdev *net);
/** Backends with @loop, in it: @away has changed. */
void netdev_tell_link(struct netdev *net);
/**
 * Pull the cable out, or put it in again: of the network named @id, or of the card named so. The guest sees its link go down, and
 * nothing passes either way; what it sends meanwhile is lost. -ENODEV. Under vm->lock.
 */
int netdev_set_link(struct vm *vm, const char *id, bool up, struct hako_error *err);

#endif
