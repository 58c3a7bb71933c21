/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card's control queue (virtio 1.2, section 5.1.6.5), and the filter that it sets. */
#include <linux/virtio_net.h>

#include "virtio/net.h"

#define NET_CTRL_IOV 64

/* --- filter ------------------------------------------------------------------------------------ */

void net_filter_reset(struct virtio_net *net)
{
	memset(&net->filter, 0, sizeof(net->filter));
	net->filter.promisc = true;
}

static bool mac_listed(const struct net_filter *f, uint32_t from, uint32_t to, const uint8_t *mac)
{
	for (uint32_t i = from; i < to; i++) {
		if (!memcmp(f->macs + i * 6, mac, 6))
			return true;
	}
	return false;
}

static bool is_broadcast(const uint8_t *mac)
{
	static const uint8_t ones[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	return !memcmp(mac, ones, 6);
}

bool net_filter_accepts(struct virtio_net *net, const uint8_t *frame, size_t len)
{
	const struct net_filter *f = &net->filter;
	uint64_t mac;

	if (len < 14)
		return true;
	if (virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VLAN) && len >= 18 &&
	    frame[12] == 0x81 && frame[13] == 0x00) {
		uint16_t vid = (frame[14] & 0x0f) << 8 | frame[15];

		if (!(f->vlans[vid / 32] & BIT(vid % 32)))
			return false;
	}
	if (f->promisc)
		return true;
	if (is_broadcast(frame))
		return !f->nobcast;
	if (frame[0] & 1) {
		if (f->nomulti)
			return false;
		return f->allmulti || f->multi_overflow ||
		       mac_listed(f, f->first_multi, f->nmacs, frame);
	}
	if (f->nouni)
		return false;
	mac = __atomic_load_n(&net->mac, __ATOMIC_RELAXED);
	return f->alluni || f->uni_overflow || !memcmp(&mac, frame, 6) ||
	       mac_listed(f, 0, f->first_multi, frame);
}

static int filter_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	const struct net_filter *f = obj;

	if (f->first_multi > f->nmacs || f->nmacs > NET_MAC_TABLE)
		return error_set(err, -EINVAL, "filter of %u addresses", f->nmacs);
	return 0;
}

static const struct state_field filter_fields[] = {
	STATE_FIELD_UINT(struct net_filter, promisc),
	STATE_FIELD_UINT(struct net_filter, allmulti),
	STATE_FIELD_UINT(struct net_filter, alluni),
	STATE_FIELD_UINT(struct net_filter, nomulti),
	STATE_FIELD_UINT(struct net_filter, nouni),
	STATE_FIELD_UINT(struct net_filter, nobcast),
	STATE_FIELD_UINT(struct net_filter, uni_overflow),
	STATE_FIELD_UINT(struct net_filter, multi_overflow),
	STATE_FIELD_UINT(struct net_filter, first_multi),
	STATE_FIELD_UINT(struct net_filter, nmacs),
	STATE_FIELD_BYTES(struct net_filter, macs),
	STATE_FIELD_ARRAY(struct net_filter, vlans),
	STATE_END,
};

const struct state_table net_filter_state = {
	.name = "virtio-net-filter",
	.version = 1,
	.min_version = 1,
	.fields = filter_fields,
	.post_load = filter_post_load,
};

/* --- commands ---------------------------------------------------------------------------------- */

/* A command's data: behind class and command, out of the buffers that the driver may read. */
struct ctrl_data {
	const struct iovec *iov;
	unsigned int n;
	size_t pos, end;
};

static bool ctrl_get(struct ctrl_data *d, void *buf, size_t len)
{
	if (len > d->end - d->pos)
		return false;
	iov_read(d->iov, d->n, d->pos, buf, len);
	d->pos += len;
	return true;
}

static bool ctrl_rx(struct virtio_net *net, uint8_t cmd, struct ctrl_data *d)
{
	struct net_filter *f = &net->filter;
	uint8_t on;

	if (!virtio_has_feature(&net->vdev, cmd <= VIRTIO_NET_CTRL_RX_ALLMULTI
						    ? VIRTIO_NET_F_CTRL_RX
						    : VIRTIO_NET_F_CTRL_RX_EXTRA) ||
	    !ctrl_get(d, &on, 1))
		return false;
	switch (cmd) {
	case VIRTIO_NET_CTRL_RX_PROMISC:
		f->promisc = on;
		return true;
	case VIRTIO_NET_CTRL_RX_ALLMULTI:
		f->allmulti = on;
		return true;
	case VIRTIO_NET_CTRL_RX_ALLUNI:
		f->alluni = on;
		return true;
	case VIRTIO_NET_CTRL_RX_NOMULTI:
		f->nomulti = on;
		return true;
	case VIRTIO_NET_CTRL_RX_NOUNI:
		f->nouni = on;
		return true;
	case VIRTIO_NET_CTRL_RX_NOBCAST:
		f->nobcast = on;
		return true;
	default:
		return false;
	}
}

/* One of the two tables of struct virtio_net_ctrl_mac: those that fit go behind what @macs holds already. */
static bool ctrl_mac_table(struct ctrl_data *d, uint8_t *macs, uint32_t *nmacs, uint8_t *overflow)
{
	uint8_t le[4];
	uint32_t n;

	if (!ctrl_get(d, le, 4))
		return false;
	n = get_le32(le);
	if (n > (d->end - d->pos) / 6)
		return false;
	*overflow = n > NET_MAC_TABLE - *nmacs;
	if (*overflow) {
		d->pos += (size_t)n * 6;
		return true;
	}
	ctrl_get(d, macs + *nmacs * 6, (size_t)n * 6);
	*nmacs += n;
	return true;
}

static bool ctrl_mac(struct virtio_net *net, uint8_t cmd, struct ctrl_data *d)
{
	struct net_filter *f = &net->filter, new = *f;
	uint8_t mac[6];

	switch (cmd) {
	case VIRTIO_NET_CTRL_MAC_TABLE_SET:
		new.nmacs = 0;
		if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_RX) ||
		    !ctrl_mac_table(d, new.macs, &new.nmacs, &new.uni_overflow))
			return false;
		new.first_multi = new.nmacs;
		if (!ctrl_mac_table(d, new.macs, &new.nmacs, &new.multi_overflow))
			return false;
		*f = new;
		return true;
	case VIRTIO_NET_CTRL_MAC_ADDR_SET:
		if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_MAC_ADDR) ||
		    d->end - d->pos != 6 || !ctrl_get(d, mac, 6))
			return false;
		net_set_mac(net, mac);
		return true;
	default:
		return false;
	}
}

static bool ctrl_vlan(struct virtio_net *net, uint8_t cmd, struct ctrl_data *d)
{
	uint8_t le[2];
	uint16_t vid;

	if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VLAN) || !ctrl_get(d, le, 2))
		return false;
	vid = get_le16(le);
	if (vid >= 4096)
		return false;
	switch (cmd) {
	case VIRTIO_NET_CTRL_VLAN_ADD:
		net->filter.vlans[vid / 32] |= BIT(vid % 32);
		return true;
	case VIRTIO_NET_CTRL_VLAN_DEL:
		net->filter.vlans[vid / 32] &= ~BIT(vid % 32);
		return true;
	default:
		return false;
	}
}

static bool ctrl_announce(struct virtio_net *net, uint8_t cmd)
{
	if (cmd != VIRTIO_NET_CTRL_ANNOUNCE_ACK ||
	    !virtio_has_feature(&net->vdev, VIRTIO_NET_F_GUEST_ANNOUNCE))
		return false;
	__atomic_and_fetch(&net->link, ~VIRTIO_NET_S_ANNOUNCE, __ATOMIC_RELAXED);
	return true;
}

static bool ctrl_offloads(struct virtio_net *net, uint8_t cmd, struct ctrl_data *d)
{
	uint8_t le[8];
	uint64_t bits;

	if (cmd != VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
	    !virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) ||
	    !ctrl_get(d, le, 8))
		return false;
	bits = get_le64(le);
	if (bits & ~(net->vdev.guest_features & NET_GUEST_OFFLOADS))
		return false;
	return !net_set_offloads(net, bits);
}

/* Both configurations end in a key, of which bytes that are not given are zero. */
static bool ctrl_rss_key(struct net_rss *rss, struct ctrl_data *d)
{
	uint8_t len;

	memset(rss->key, 0, sizeof(rss->key));
	return ctrl_get(d, &len, 1) && len <= sizeof(rss->key) && ctrl_get(d, rss->key, len);
}

/* 5.1.6.5.6.4 */
static bool ctrl_hash(struct virtio_net *net, struct ctrl_data *d)
{
	struct net_rss rss = {0};
	uint8_t le[12];

	if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_HASH_REPORT) || !ctrl_get(d, le, 12) ||
	    !ctrl_rss_key(&rss, d))
		return false;
	rss.types = get_le32(le);
	if (rss.types & ~NET_RSS_TYPES)
		return false;
	net->rss = rss;
	return true;
}

/* 5.1.6.5.7.1: sets the number of pairs as well, which is that of the highest one that is named. */
static bool ctrl_rss(struct virtio_net *net, struct ctrl_data *d, uint16_t *pairs)
{
	struct net_rss rss = {.on = true};
	uint8_t le[8];
	uint16_t n;

	if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_RSS) || !ctrl_get(d, le, 8))
		return false;
	rss.types = get_le32(le);
	rss.mask = get_le16(le + 4);
	rss.unclassified = get_le16(le + 6);
	n = rss.unclassified;
	if (rss.mask >= NET_RSS_TABLE)
		return false;
	for (uint32_t i = 0; i <= rss.mask; i++) {
		if (!ctrl_get(d, le, 2))
			return false;
		rss.table[i] = get_le16(le);
		n = MAX(n, rss.table[i]);
	}
	if (!net_rss_valid(&rss, net->max_pairs) || !ctrl_get(d, le, 2) || !ctrl_rss_key(&rss, d))
		return false;
	*pairs = MAX(n + 1, get_le16(le));
	if (*pairs > net->max_pairs)
		return false;
	net->rss = rss;
	return true;
}

/* 5.1.6.5.5. The answer waits for the pairs. */
static bool ctrl_mq(struct virtio_net *net, uint8_t cmd, struct ctrl_data *d)
{
	uint8_t le[2];
	uint16_t n;

	switch (cmd) {
	case VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
		if (!virtio_has_feature(&net->vdev, VIRTIO_NET_F_MQ) || !ctrl_get(d, le, 2))
			return false;
		n = get_le16(le);
		if (!n || n > net->max_pairs)
			return false;
		net->rss.on = false;
		break;
	case VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
		if (!ctrl_rss(net, d, &n))
			return false;
		break;
	case VIRTIO_NET_CTRL_MQ_HASH_CONFIG:
		return ctrl_hash(net, d);
	default:
		return false;
	}
	net->wait.busy = !net_set_pairs(net, n);
	return true;
}

static bool ctrl_command(struct virtio_net *net, struct ctrl_data *d)
{
	uint8_t hdr[2] = {0}; /* struct virtio_net_ctrl_hdr */

	if (!ctrl_get(d, hdr, 2))
		return false;
	switch (hdr[0]) {
	case VIRTIO_NET_CTRL_RX:
		return ctrl_rx(net, hdr[1], d);
	case VIRTIO_NET_CTRL_MAC:
		return ctrl_mac(net, hdr[1], d);
	case VIRTIO_NET_CTRL_VLAN:
		return ctrl_vlan(net, hdr[1], d);
	case VIRTIO_NET_CTRL_ANNOUNCE:
		return ctrl_announce(net, hdr[1]);
	case VIRTIO_NET_CTRL_GUEST_OFFLOADS:
		return ctrl_offloads(net, hdr[1], d);
	case VIRTIO_NET_CTRL_MQ:
		return ctrl_mq(net, hdr[1], d);
	default:
		return false;
	}
}

void net_ctrl_handle(struct virtqueue *vq)
{
	struct virtio_net *net = container_of(vq->vdev, struct virtio_net, vdev);
	struct iovec iov[NET_CTRL_IOV];
	struct virtq_chain chain;

	while (!net->wait.busy && virtq_pop(vq, &chain, iov, NET_CTRL_IOV) > 0) {
		struct ctrl_data data = {.iov = iov, .n = chain.nout, .end = chain.out_len};
		uint8_t ack;

		if (!chain.in_len || chain.out_len < 2) {
			virtq_unpop(vq, &chain);
			virtio_broken(vq->vdev, "control command of %u bytes with room for %u",
				      chain.out_len, chain.in_len);
			return;
		}
		ack = ctrl_command(net, &data) ? VIRTIO_NET_OK : VIRTIO_NET_ERR;
		if (net->wait.busy) {
			net->wait.head = chain.head;
			net->wait.ack = iov[chain.nout].iov_base;
			return;
		}
		iov_write(iov + chain.nout, chain.nin, 0, &ack, 1);
		virtq_push(vq, chain.head, 1);
	}
}

void net_ctrl_done(struct loop_msg *msg)
{
	struct virtio_net *net = container_of(msg, struct virtio_net, wait.done);
	struct virtqueue *vq = net->ctrl;

	*net->wait.ack = READ_ONCE(net->wait.failed) ? VIRTIO_NET_ERR : VIRTIO_NET_OK;
	net->wait.busy = false;
	virtq_push(vq, net->wait.head, 1);
	if (vq->draining)
		virtq_stopped(vq);
	else
		net_ctrl_handle(vq);
}
