/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card (virtio 1.2, section 5.1): features, configuration space, its life. net_io.c moves the packets. */
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>

#include "virtio/net.h"
#include "vmm/vm.h"

/* --- features ---------------------------------------------------------------------------------- */

/* Properties, their bits, and what of the backend they need. */
struct net_feature {
	uint8_t bit;
	uint8_t needs;	 /* a bit that the driver has to accept as well; the bit itself: none */
	uint16_t on;	 /* offset of the switch in struct net_switches */
	int16_t offload; /* offset in struct net_offloads, or -1 */
};

#define FEATURE(BIT, NEEDS, ON)                                                                 \
	{                                                                                       \
		VIRTIO_NET_F_##BIT, VIRTIO_NET_F_##NEEDS, offsetof(struct net_switches, ON), -1 \
	}
#define OFFLOAD(BIT, NEEDS, ON, O)                                                           \
	{                                                                                    \
		VIRTIO_NET_F_##BIT, VIRTIO_NET_F_##NEEDS, offsetof(struct net_switches, ON), \
			offsetof(struct net_offloads, O)                                     \
	}

static const struct net_feature features[] = {
	OFFLOAD(CSUM, CSUM, csum, csum),
	OFFLOAD(GUEST_CSUM, GUEST_CSUM, guest_csum, csum),
	OFFLOAD(GUEST_TSO4, GUEST_CSUM, guest_tso4, tso4),
	OFFLOAD(GUEST_TSO6, GUEST_CSUM, guest_tso6, tso6),
	OFFLOAD(GUEST_ECN, GUEST_CSUM, guest_ecn, ecn),
	OFFLOAD(GUEST_UFO, GUEST_CSUM, guest_ufo, ufo),
	OFFLOAD(GUEST_USO4, GUEST_CSUM, guest_uso4, uso),
	OFFLOAD(GUEST_USO6, GUEST_CSUM, guest_uso6, uso),
	OFFLOAD(HOST_TSO4, CSUM, host_tso4, tso4),
	OFFLOAD(HOST_TSO6, CSUM, host_tso6, tso6),
	OFFLOAD(HOST_ECN, CSUM, host_ecn, ecn),
	OFFLOAD(HOST_UFO, CSUM, host_ufo, ufo),
	OFFLOAD(HOST_USO, CSUM, host_uso, uso),
	FEATURE(MRG_RXBUF, MRG_RXBUF, mrg_rxbuf),
	FEATURE(STATUS, STATUS, status),
	FEATURE(CTRL_VQ, CTRL_VQ, ctrl_vq),
	FEATURE(CTRL_RX, CTRL_VQ, ctrl_rx),
	FEATURE(CTRL_VLAN, CTRL_VQ, ctrl_vlan),
	FEATURE(CTRL_RX_EXTRA, CTRL_VQ, ctrl_rx_extra),
	FEATURE(CTRL_MAC_ADDR, CTRL_VQ, ctrl_mac_addr),
	FEATURE(GUEST_ANNOUNCE, CTRL_VQ, guest_announce),
	FEATURE(CTRL_GUEST_OFFLOADS, CTRL_VQ, ctrl_guest_offloads),
	FEATURE(MQ, CTRL_VQ, mq),
	FEATURE(RSS, CTRL_VQ, rss),
	FEATURE(HASH_REPORT, CTRL_VQ, hash),
};

#define NET_HOST_GSO                                                       \
	(1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_HOST_TSO6 | \
	 1ull << VIRTIO_NET_F_HOST_ECN | 1ull << VIRTIO_NET_F_HOST_UFO |   \
	 1ull << VIRTIO_NET_F_HOST_USO)

/* Features that are between card and driver, whatever a vhost-user back end says. It would not learn of offloads that change. */
#define NET_CARDS_OWN                                                                            \
	(1ull << VIRTIO_NET_F_MAC | 1ull << VIRTIO_NET_F_STATUS | 1ull << VIRTIO_NET_F_CTRL_VQ | \
	 1ull << VIRTIO_NET_F_CTRL_RX | 1ull << VIRTIO_NET_F_CTRL_VLAN |                         \
	 1ull << VIRTIO_NET_F_CTRL_RX_EXTRA | 1ull << VIRTIO_NET_F_CTRL_MAC_ADDR |               \
	 1ull << VIRTIO_NET_F_GUEST_ANNOUNCE | 1ull << VIRTIO_NET_F_MQ |                         \
	 1ull << VIRTIO_NET_F_MTU | 1ull << VIRTIO_NET_F_SPEED_DUPLEX)

/* Features that come with more than one queue pair. */
#define NET_SEVERAL (1ull << VIRTIO_NET_F_MQ | 1ull << VIRTIO_NET_F_RSS)

static uint64_t net_features(struct virtio_device *vdev)
{
	struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
	const struct netdev *be = net->backend;
	uint64_t f = 1ull << VIRTIO_NET_F_MAC;

	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		const struct net_feature *p = &features[i];
		const bool *on = (const bool *)((const char *)&net->on + p->on);

		if (!*on)
			continue;
		if (p->offload >= 0 &&
		    !(be->vnet_hdr && *(const bool *)((const char *)&be->offloads + p->offload)))
			continue;
		f |= 1ull << p->bit;
	}
	if (!net->on.gso)
		f &= ~NET_HOST_GSO;
	/* What one of these switches leaves out takes with it what needs it. */
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if (!(f & 1ull << features[i].needs))
			f &= ~(1ull << features[i].bit);
	}
	if (net->max_pairs == 1)
		f &= ~NET_SEVERAL;
	if (!(f & NET_GUEST_OFFLOADS) || be->vhost_user)
		f &= ~(1ull << VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
	if (net->host_mtu)
		f |= 1ull << VIRTIO_NET_F_MTU;
	if (net->speed || net->duplex)
		f |= 1ull << VIRTIO_NET_F_SPEED_DUPLEX;
	if (be->vhost_user)
		f &= be->vhost_features | NET_CARDS_OWN;
	return f;
}

/* 5.1.2: a driver that knows nothing of several pairs finds the control queue behind the first one. */
static void net_place_queues(struct virtio_net *net, bool mq)
{
	uint32_t ctrl = mq ? 2 * net->max_pairs : 2;

	net->ctrl = NULL;
	for (uint32_t i = 0; i < net->vdev.nqueues; i++) {
		struct virtqueue *vq = &net->vdev.vq[i];
		struct net_pair *p = i < 2 * net->max_pairs ? &net->pair[i / 2] : NULL;

		if (i == ctrl) {
			net->ctrl = vq;
			p = NULL;
		}
		vq->opaque = p;
		vq->loop = p ? p->loop : net->pair[0].loop;
	}
}

static bool net_accept_features(struct virtio_device *vdev, uint64_t f)
{
	struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);

	/* Section 5.1.3.1, feature bit requirements. */
	for (size_t i = 0; i < ARRAY_SIZE(features); i++) {
		if ((f & 1ull << features[i].bit) && !(f & 1ull << features[i].needs))
			return false;
	}
	net->offloads = f & NET_GUEST_OFFLOADS;
	net_place_queues(net, f & NET_SEVERAL);
	WRITE_ONCE(net->pairs, 1);
	net->rss = (struct net_rss){0};
	net->hdr_len = NET_HDR_LEN;
	if (f & 1ull << VIRTIO_NET_F_HASH_REPORT)
		net->hdr_len += NET_HASH_LEN;
	return true;
}

int net_set_offloads(struct virtio_net *net, uint64_t bits)
{
	/* Linux's tap does both or none. */
	const uint64_t uso = 1ull << VIRTIO_NET_F_GUEST_USO4 | 1ull << VIRTIO_NET_F_GUEST_USO6;
	const struct net_offloads o = {
		.csum = bits & 1ull << VIRTIO_NET_F_GUEST_CSUM,
		.tso4 = bits & 1ull << VIRTIO_NET_F_GUEST_TSO4,
		.tso6 = bits & 1ull << VIRTIO_NET_F_GUEST_TSO6,
		.ecn = bits & 1ull << VIRTIO_NET_F_GUEST_ECN,
		.ufo = bits & 1ull << VIRTIO_NET_F_GUEST_UFO,
		.uso = (bits & uso) == uso,
	};
	int ret = net->backend->ops->set_offloads(net->backend, &o);

	if (!ret)
		net->offloads = bits;
	return ret;
}

/* --- configuration space ----------------------------------------------------------------------- */

void net_set_mac(struct virtio_net *net, const uint8_t mac[6])
{
	uint64_t v = 0;

	memcpy(&v, mac, 6);
	__atomic_store_n(&net->mac, v, __ATOMIC_RELAXED);
}

static void net_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
	struct virtio_net_config c = {
		.max_virtqueue_pairs = htole16(net->max_pairs),
		.mtu = htole16(net->host_mtu),
		.speed = htole32(net->speed ? net->speed : UINT32_MAX),
		.duplex = net->duplex ? net->duplex - 1 : 0xff,
		.rss_max_key_size = net->on.rss || net->on.hash ? NET_RSS_KEY : 0,
		.rss_max_indirection_table_length = htole16(net->on.rss ? NET_RSS_TABLE : 0),
		.supported_hash_types = htole32(net->on.rss || net->on.hash ? NET_RSS_TYPES : 0),
	};
	uint64_t mac = __atomic_load_n(&net->mac, __ATOMIC_RELAXED);

	memcpy(c.mac, &mac, 6);
	c.status = htole16(__atomic_load_n(&net->link, __ATOMIC_RELAXED));
	memcpy(buf, (const char *)&c + offset, len);
}

static void net_link(void *client, bool up)
{
	struct virtio_net *net = client;

	if (up)
		__atomic_or_fetch(&net->link, VIRTIO_NET_S_LINK_UP, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(&net->link, ~VIRTIO_NET_S_LINK_UP, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < net->max_pairs; i++)
		loop_post(net->pair[i].loop, &net->pair[i].relink);
	virtio_config_changed(&net->vdev);
}

static const struct net_client_ops net_client = {
	.readable = net_readable,
	.writable = net_writable,
	.link = net_link,
};

/* --- queues ------------------------------------------------------------------------------------ */

static void net_handle(struct virtqueue *vq)
{
	struct net_pair *p = vq->opaque;

	if (p && vq == p->tx)
		net_tx(p);
	else if (p)
		net_rx(p);
	else if (vq == container_of(vq->vdev, struct virtio_net, vdev)->ctrl)
		net_ctrl_handle(vq);
}

static void net_drain(struct virtqueue *vq)
{
	struct virtio_net *net = container_of(vq->vdev, struct virtio_net, vdev);
	struct net_pair *p = vq->opaque;

	if (p && vq == p->rx.vq) {
		if (p->started && p->rx.enabled)
			net->backend->ops->recv_enable(net->backend, p->index, false);
		p->rx.enabled = false;
		net_rx_release(&p->rx);
	}
	/* A command that waits for the pairs still has to be answered. */
	if (vq != net->ctrl || !net->wait.busy)
		virtq_stopped(vq);
}

static int net_pair_begin(struct net_pair *p, struct hako_error *err)
{
	struct netdev *be = p->net->backend;
	int fd, ret;

	if (p->vhost && !p->no_vhost) {
		fd = be->ops->start_vhost(be, p->index, err);
		if (fd < 0)
			return fd;
		p->by_vhost = true;
		vhost_net_start(p->vhost, fd);
		return 0;
	}
	ret = be->ops->start(be, p->index, p->loop, err);
	p->started = !ret;
	return ret;
}

static void net_pair_end(struct net_pair *p)
{
	struct netdev *be = p->net->backend;

	if (p->by_vhost)
		vhost_net_stop(p->vhost);
	if (p->by_vhost || p->started)
		be->ops->stop(be, p->index);
	p->by_vhost = p->started = false;
	p->tx_blocked = false;
	p->rx.enabled = false;
	net_rx_release(&p->rx);
}

/* Have the pair served, or not, as the driver wants it. In its loop. */
static int net_pair_update(struct net_pair *p)
{
	bool up = READ_ONCE(p->net->link) & VIRTIO_NET_S_LINK_UP;
	bool used = p->live && p->index < READ_ONCE(p->net->pairs), want = used && up;
	struct hako_error err = {0};
	int ret = 0;

	p->discard = used && !up;
	if (want == (p->started || p->by_vhost))
		return 0;
	if (!want) {
		net_pair_end(p);
		return 0;
	}
	ret = net_pair_begin(p, &err);
	if (ret)
		vm_log(p->net->vdev.obj.vm, "%s: queue pair %u: %s", p->net->backend->obj.id,
		       p->index, err.message);
	return ret;
}

/* It has just begun: what is in the rings may be there for long. */
static void net_pair_go(struct net_pair *p)
{
	if ((p->started || p->discard) && p->tx->running && !p->tx_blocked) {
		virtq_enable_kick(p->tx);
		net_tx(p);
	}
	net_rx(p);
}

static void net_pair_relink(struct loop_msg *msg)
{
	struct net_pair *p = container_of(msg, struct net_pair, relink);

	net_pair_update(p);
	net_pair_go(p);
}

static void net_vhost_failed(struct loop_msg *msg)
{
	struct net_pair *p = container_of(msg, struct net_pair, failed);

	if (!p->by_vhost)
		return;
	p->no_vhost = true;
	net_pair_end(p);
	net_pair_update(p);
	net_pair_go(p);
}

struct net_call {
	struct net_pair *pair;
	int ret;
};

static void net_pair_start(void *arg)
{
	struct net_call *call = arg;

	call->pair->live = true;
	call->ret = net_pair_update(call->pair);
}

static void net_pair_stop(void *arg)
{
	struct net_pair *p = arg;

	p->live = p->no_vhost = false;
	net_pair_update(p);
}

static void net_pair_change(struct loop_msg *msg)
{
	struct net_pair *p = container_of(msg, struct net_pair, change);
	struct virtio_net *net = p->net;

	if (net_pair_update(p))
		WRITE_ONCE(net->wait.failed, true);
	net_pair_go(p);
	if (!__atomic_sub_fetch(&net->wait.left, 1, __ATOMIC_ACQ_REL))
		loop_post(net->ctrl->loop, &net->wait.done);
}

/* The pairs' loops are asked and not waited for: two loops that waited for each other would do so for ever. */
bool net_set_pairs(struct virtio_net *net, uint16_t n)
{
	uint16_t old = net->pairs, from = MIN(old, n), to = MAX(old, n);

	if (from == to)
		return true;
	WRITE_ONCE(net->pairs, n);
	net->wait.left = to - from;
	net->wait.failed = false;
	for (uint16_t i = from; i < to; i++)
		loop_post(net->pair[i].loop, &net->pair[i].change);
	return false;
}

static void net_stop(struct virtio_device *vdev)
{
	struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);

	for (unsigned int i = 0; i < net->max_pairs; i++) {
		loop_call(net->pair[i].loop, net_pair_stop, &net->pair[i]);
		net_pair_free(&net->pair[i]);
	}
	if (net->backend->ops->reset)
		net->backend->ops->reset(net->backend);
	WRITE_ONCE(net->pairs, 1);
	net->rss = (struct net_rss){0};
	net_filter_reset(net);
	net_set_mac(net, net->mac_opt);
	__atomic_and_fetch(&net->link, ~VIRTIO_NET_S_ANNOUNCE, __ATOMIC_RELAXED);
}

static int net_start(struct virtio_device *vdev)
{
	struct virtio_net *net = container_of(vdev, struct virtio_net, vdev);
	unsigned int n = vdev->guest_features & NET_SEVERAL ? net->max_pairs : 1;
	int ret = net_set_offloads(net, net->offloads);

	net->mrg = virtio_has_feature(vdev, VIRTIO_NET_F_MRG_RXBUF);
	for (unsigned int i = 0; i < n && !ret; i++) {
		struct net_call call = {.pair = &net->pair[i]};

		ret = net_pair_alloc(&net->pair[i]);
		if (!ret) {
			loop_call(net->pair[i].loop, net_pair_start, &call);
			ret = call.ret;
		}
	}
	if (ret) {
		net_stop(vdev);
		return ret;
	}
	if (net->announce && virtio_has_feature(vdev, VIRTIO_NET_F_GUEST_ANNOUNCE)) {
		__atomic_or_fetch(&net->link, VIRTIO_NET_S_ANNOUNCE, __ATOMIC_RELAXED);
		virtio_config_changed(vdev);
	}
	net->announce = false;
	return 0;
}

static const struct virtio_ops net_ops = {
	.name = "virtio-net",
	.device_id = VIRTIO_ID_NET,
	.pci_class = 0x020000,
	.config_size = sizeof(struct virtio_net_config),
	.features = net_features,
	.accept_features = net_accept_features,
	.config_read = net_config_read,
	.start = net_start,
	.stop = net_stop,
	.handle = net_handle,
	.drain = net_drain,
};

/* --- state ------------------------------------------------------------------------------------- */

/* A snapshot may have been made with the link down. */
static void net_follow_link(struct virtio_net *net)
{
	struct netdev *be = net->backend;
	bool up = net->link & VIRTIO_NET_S_LINK_UP;

	if (be->link_down == up && be->ops->set_link)
		be->ops->set_link(be, up);
	be->link_down = !up;
}

static int net_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtio_net *net = obj;

	if (net->offloads & ~(net->vdev.guest_features & NET_GUEST_OFFLOADS))
		return error_set(err, -EINVAL, "offloads 0x%llx that the driver has not accepted",
				 (unsigned long long)net->offloads);
	if (!net->pairs || net->pairs > net->max_pairs ||
	    (net->pairs > 1 && !(net->vdev.guest_features & NET_SEVERAL)))
		return error_set(err, -EINVAL, "%u queue pairs in use", net->pairs);
	if (!net_rss_valid(&net->rss, net->pairs) ||
	    (net->rss.on && !virtio_has_feature(&net->vdev, VIRTIO_NET_F_RSS)))
		return error_set(err, -EINVAL, "bad RSS configuration");
	net->link &= VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE;
	net_follow_link(net);
	/* The host may be another one: have the driver tell the network where it is now. */
	net->announce = true;
	return 0;
}

static const struct state_field net_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_net, vdev, &virtio_device_state),
	STATE_FIELD_UINT(struct virtio_net, mac),
	STATE_FIELD_UINT(struct virtio_net, link),
	STATE_FIELD_UINT(struct virtio_net, offloads),
	STATE_FIELD_UINT(struct virtio_net, pairs),
	STATE_FIELD_STRUCT(struct virtio_net, filter, &net_filter_state),
	STATE_FIELD_STRUCT(struct virtio_net, rss, &net_rss_state),
	STATE_END,
};

static const struct state_table net_state = {
	.name = "virtio-net",
	.version = 1,
	.min_version = 1,
	.fields = net_fields,
	.post_load = net_post_load,
};

/* --- class ------------------------------------------------------------------------------------- */

static const char *const duplex_names[] = {"unknown", "half", "full", NULL};

#define SWITCH(N, F, HELP) OPT_BOOL(N, struct virtio_net, on.F, "on", HELP)

static const struct option net_options[] = {
	OPT_STRING_REQUIRED("netdev", struct virtio_net, netdev_id, "id of the host side"),
	OPT_MAC("mac", struct virtio_net, mac_opt,
		"address (default: 52:54:00:12:34:56, counting up for further cards)"),
	OPT_STRING("iothread", struct virtio_net, iothread, NULL,
		   "thread that serves the card; or several, separated by colons: pair by pair"),
	OPT_UINT("rx_queue_size", struct virtio_net, rx_queue_size, "256", 64,
		 VIRTIO_QUEUE_MAX_SIZE, "receive buffers, a power of 2"),
	OPT_UINT("tx_queue_size", struct virtio_net, tx_queue_size, "256", 64,
		 VIRTIO_QUEUE_MAX_SIZE, "transmit buffers, a power of 2"),
	OPT_UINT("host_mtu", struct virtio_net, host_mtu, "0", 0, 65535,
		 "MTU that the guest is told; 0: none"),
	OPT_UINT("speed", struct virtio_net, speed, "0", 0, INT32_MAX,
		 "Mbit/s that the guest is told; 0: none"),
	OPT_ENUM("duplex", struct virtio_net, duplex, "unknown", duplex_names,
		 "that the guest is told"),
	SWITCH("csum", csum, "the host completes checksums for the guest"),
	SWITCH("guest_csum", guest_csum, "packets to the guest may lack checksums"),
	SWITCH("gso", gso, "the host segments packets for the guest"),
	SWITCH("host_tso4", host_tso4, "of these TCP over IPv4"),
	SWITCH("host_tso6", host_tso6, "of these TCP over IPv6"),
	SWITCH("host_ecn", host_ecn, "of these TCP with ECN"),
	SWITCH("host_ufo", host_ufo, "of these UDP"),
	SWITCH("guest_tso4", guest_tso4, "large packets to the guest: TCP over IPv4"),
	SWITCH("guest_tso6", guest_tso6, "large packets to the guest: TCP over IPv6"),
	SWITCH("guest_ecn", guest_ecn, "large packets to the guest: TCP with ECN"),
	SWITCH("guest_ufo", guest_ufo, "large packets to the guest: UDP"),
	SWITCH("host_uso", host_uso, "of these UDP, datagram by datagram"),
	SWITCH("guest_uso4", guest_uso4, "large packets to the guest: datagrams over IPv4"),
	SWITCH("guest_uso6", guest_uso6, "large packets to the guest: datagrams over IPv6"),
	SWITCH("mrg_rxbuf", mrg_rxbuf, "packets to the guest may use several buffers"),
	SWITCH("status", status, "link status"),
	SWITCH("ctrl_vq", ctrl_vq, "control queue"),
	SWITCH("ctrl_rx", ctrl_rx, "filter by address (with vhost all frames pass)"),
	SWITCH("ctrl_rx_extra", ctrl_rx_extra, "further receive modes"),
	SWITCH("ctrl_vlan", ctrl_vlan, "filter by VLAN (with vhost all frames pass)"),
	SWITCH("ctrl_mac_addr", ctrl_mac_addr, "the guest may change the address"),
	SWITCH("ctrl_guest_offloads", ctrl_guest_offloads, "the guest may change offloads"),
	SWITCH("mq", mq, "as many queue pairs as the network has"),
	OPT_BOOL("rss", struct virtio_net, on.rss, "off",
		 "the guest says how packets are dealt out to several queue pairs (without vhost)"),
	OPT_BOOL("hash", struct virtio_net, on.hash, "off",
		 "packets to the guest carry their hash (without vhost)"),
	SWITCH("guest_announce", guest_announce, "the guest tells the network when it has moved"),
	OPT_END,
};

static int net_create(struct object *obj, struct hako_error *err);

/* The first address from 52:54:00:12:34:56 on that no other card has. */
static void net_default_mac(struct virtio_net *net)
{
	uint8_t mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
	struct object *o;
	bool taken;

	do {
		taken = false;
		list_for_each(o, &net->vdev.obj.vm->objects[CLASS_DEVICE], link) {
			const struct virtio_net *other = (const struct virtio_net *)o;

			if (o->class->create == net_create && other != net)
				taken |= !memcmp(other->mac_opt, mac, 6);
		}
		if (taken)
			mac[5]++;
	} while (taken && mac[5] != 0x55);
	memcpy(net->mac_opt, mac, 6);
}

static int net_check_options(struct virtio_net *net, struct hako_error *err)
{
	static const uint8_t none[6];
	struct vm *vm = net->vdev.obj.vm;

	if (!IS_POWER_OF_2(net->rx_queue_size) || !IS_POWER_OF_2(net->tx_queue_size))
		return error_set(err, -EINVAL, "rx_queue_size and tx_queue_size: powers of 2");
	if (net->host_mtu && net->host_mtu < 68)
		return error_set(err, -EINVAL, "host_mtu=%u: the smallest is 68", net->host_mtu);
	if (net->mac_opt[0] & 1)
		return error_set(err, -EINVAL, "mac: a multicast address");
	if (!memcmp(net->mac_opt, none, 6))
		net_default_mac(net);
	net->backend = (struct netdev *)object_find(vm, CLASS_NETDEV, net->netdev_id);
	if (!net->backend)
		return error_set(err, -ENOENT, "netdev=%s: there is no network of that id",
				 net->netdev_id);
	if (net->backend->client)
		return error_set(err, -EBUSY, "netdev=%s: another card uses it", net->netdev_id);
	return 0;
}

/* Which loops: iothread=A:B gives the pairs to A and B in turn. */
static int net_choose_loops(struct virtio_net *net, struct hako_error *err)
{
	char *names = strdup(net->iothread ?: ""), *save = NULL, *name;
	struct loop *loop[NETDEV_MAX_QUEUES] = {NULL};
	unsigned int n = 0;
	int ret = names ? 0 : error_errno(err, -ENOMEM, "iothread");

	if (!ret && net->iothread && net->backend->loop)
		ret = error_set(err, -EINVAL,
				"iothread=%s: this network's queues are served elsewhere",
				net->iothread);

	name = names ? strtok_r(names, ":", &save) : NULL;
	do {
		if (!ret)
			ret = vm_iothread(net->vdev.obj.vm, name, &loop[n++], err);
		name = name ? strtok_r(NULL, ":", &save) : NULL;
	} while (!ret && name && n < NETDEV_MAX_QUEUES);
	if (!ret && (net->on.rss || net->on.hash) && n > 1)
		ret = error_set(err, -EINVAL, "iothread=%s: %s=on needs all queues in one thread",
				net->iothread, net->on.rss ? "rss" : "hash");
	for (unsigned int i = 0; i < net->max_pairs && !ret; i++)
		net->pair[i].loop = net->backend->loop ?: loop[i % n];
	free(names);
	return ret;
}

static int net_create_queues(struct virtio_net *net, struct hako_error *err)
{
	struct virtio_device *vdev = &net->vdev;
	int ret;

	net->max_pairs = net->on.mq && net->on.ctrl_vq ? net->backend->queues : 1;
	net->pair = calloc(net->max_pairs, sizeof(*net->pair));
	ret = net->pair ? net_choose_loops(net, err) : error_errno(err, -ENOMEM, "queue pairs");
	if (!ret)
		ret = virtio_device_init(vdev, &net_ops, 2 * net->max_pairs + net->on.ctrl_vq, 64,
					 err);
	if (ret) {
		free(net->pair);
		return ret;
	}
	for (unsigned int i = 0; i < net->max_pairs; i++) {
		struct net_pair *p = &net->pair[i];

		p->net = net;
		p->index = i;
		p->again.fn = net_rx_again;
		p->change.fn = net_pair_change;
		p->failed.fn = net_vhost_failed;
		p->relink.fn = net_pair_relink;
		p->rx.vq = &vdev->vq[2 * i];
		p->tx = &vdev->vq[2 * i + 1];
		p->rx.vq->max_size = p->rx.vq->size = net->rx_queue_size;
		p->tx->max_size = p->tx->size = net->tx_queue_size;
	}
	net->pairs = 1;
	net->hdr_len = NET_HDR_LEN;
	net->wait.done.fn = net_ctrl_done;
	net_place_queues(net, true);
	return 0;
}

static void net_free_vhost(struct virtio_net *net)
{
	for (unsigned int i = 0; i < net->max_pairs; i++) {
		vhost_net_free(net->pair[i].vhost);
		net->pair[i].vhost = NULL;
	}
}

/* Rings that a vhost-user back end knows. */
static int net_fit_rings(struct virtio_net *net, struct hako_error *err)
{
	uint64_t f = net->backend->vhost_features;
	struct virtio_device *vdev = &net->vdev;

	if (vdev->opt.packed && !(f & 1ull << VIRTIO_F_RING_PACKED))
		return error_set(err, -EOPNOTSUPP, "packed=on: the back end knows no packed rings");
	vdev->opt.event_idx &= !!(f & 1ull << VIRTIO_RING_F_EVENT_IDX);
	vdev->opt.indirect_desc &= !!(f & 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	return 0;
}

/* All pairs or none: what the kernel can not do, the program does, unless the user insists. */
static int net_open_vhost(struct virtio_net *net, struct hako_error *err)
{
	struct netdev *be = net->backend;
	struct hako_error why = {0};
	int ret = 0;

	/* This kernel interface knows no hashes. */
	if ((be->vhost_fd || be->vhost_user) && (net->on.rss || net->on.hash))
		ret = error_set(&why, -EOPNOTSUPP, "%s=on does not go with vhost",
				net->on.rss ? "rss" : "hash");
	if (be->vhost_user && !ret)
		ret = net_fit_rings(net, &why);
	for (unsigned int i = 0; i < net->max_pairs && (be->vhost_fd || be->vhost_user) && !ret;
	     i++) {
		struct net_pair *p = &net->pair[i];

		ret = vhost_net_new(&p->vhost, be, i, p->rx.vq, p->tx, &p->failed, &why);
		if (!ret)
			p->vhost->mtu = net->host_mtu;
	}
	if (!ret)
		return 0;
	net_free_vhost(net);
	if (be->vhost_required)
		return error_set(err, ret, "netdev=%s: %s", net->netdev_id, why.message);
	vm_log(be->obj.vm, "%s: %s", be->obj.id, why.message);
	return 0;
}

static void net_destroy(struct object *obj)
{
	struct virtio_net *net = (struct virtio_net *)obj;

	/* A loop of the backend's own does not end with our queues. */
	if (net->backend->loop)
		netdev_detach(net->backend);
	virtio_device_free(&net->vdev);
	net_free_vhost(net);
	free(net->pair);
	netdev_detach(net->backend);
}

static int net_create(struct object *obj, struct hako_error *err)
{
	struct virtio_net *net = (struct virtio_net *)obj;
	int ret = net_check_options(net, err);

	if (ret)
		return ret;
	net->link = net->backend->link_down ? 0 : VIRTIO_NET_S_LINK_UP;
	net->host_mtu = net->host_mtu ?: net->backend->mtu;
	net_set_mac(net, net->mac_opt);
	net_filter_reset(net);
	ret = net_create_queues(net, err);
	if (ret)
		return ret;
	netdev_attach(net->backend, obj, &net_client, net);
	ret = net_open_vhost(net, err) ?: virtio_device_attach(&net->vdev, err);
	if (ret)
		net_destroy(obj);
	return ret;
}

VIRTIO_CLASS(virtio_net, "virtio-net", "network card", struct virtio_net, net_options, &net_state,
	     net_create, net_destroy);
