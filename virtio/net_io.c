/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtio network card's packets. They go from the driver's buffers to the backend and back without a copy; the card pulls, so that a
 * driver without buffers leaves packets in the backend's queue. All of it runs in the loop of the queue pair.
 */
#include <linux/virtio_net.h>
#include <stdlib.h>

#include "virtio/net.h"

#define RX_BATCH   256 /* packets in one turn */
/* Show the driver so many packets at a time, so that it works on them while we go on. */
#define PUBLISH	   16
#define TX_BYTES   (64 * KiB) /* to be sent together: the driver shall not wait long for the first */
#define SPILL_SIZE (NET_HDR_LEN + NET_FRAME_MAX)

/* --- transmit ---------------------------------------------------------------------------------- */

/* The backend knows nothing of the hash in the driver's header. There is room for one more element in front of @iov. */
static unsigned int tx_shorten(struct net_pair *p, struct iovec **iov, unsigned int n, uint8_t *hdr)
{
	iov_read(*iov, n, 0, hdr, NET_HDR_LEN);
	n = iov_skip(iov, n, p->net->hdr_len);
	*--*iov = (struct iovec){hdr, NET_HDR_LEN};
	return n + 1;
}

/* Take packets from the ring to be sent together: how many. What no network carries is lost. */
static unsigned int tx_take(struct net_pair *p)
{
	const uint32_t hdr_len = p->net->hdr_len;
	struct net_tx *b = p->tx_batch;
	unsigned int n = 0, at = 0;
	uint32_t bytes = 0;

	while (n < NET_TX_BATCH && at < VIRTIO_MAX_SEGMENTS && bytes < TX_BYTES) {
		struct virtq_chain *c = &b->chain[n];
		struct iovec *iov = b->iov + at + 1;
		unsigned int niov;

		if (virtq_pop(p->tx, c, iov, VIRTIO_MAX_SEGMENTS) <= 0)
			break;
		if (unlikely(p->discard || c->out_len <= hdr_len ||
			     c->out_len > hdr_len + NET_FRAME_MAX)) {
			/* Those before it come first. */
			if (n || c->out_len < hdr_len)
				virtq_unpop(p->tx, c);
			if (n)
				break;
			if (c->out_len < hdr_len) {
				virtio_broken(p->tx->vdev,
					      "packet of %u bytes, less than its header",
					      c->out_len);
				break;
			}
			virtq_push(p->tx, c->head, 0);
			continue;
		}
		niov = c->nout;
		at += 1 + niov;
		bytes += c->out_len;
		if (unlikely(hdr_len > NET_HDR_LEN))
			niov = tx_shorten(p, &iov, niov, b->hdr[n]);
		/* Small ones are in another CPU's cache: have them come while more are taken. */
		__builtin_prefetch(iov->iov_base);
		__builtin_prefetch((uint8_t *)iov->iov_base + 64);
		b->packet[n++] = (struct loop_packet){.iov = iov, .niov = niov};
	}
	return n;
}

/* Send them. How many are done with: those behind have to wait for the backend. What it can not send is lost. */
static unsigned int tx_send(struct net_pair *p, unsigned int n)
{
	struct loop_packet *packet = p->tx_batch->packet;
	struct netdev *be = p->net->backend;
	unsigned int i;

	if (be->ops->send_packets) {
		be->ops->send_packets(be, p->index, packet, n);
		/* One that could not be sent before one that could is lost, so that none overtakes another. */
		while (n && packet[n - 1].res == -EAGAIN)
			n--;
		return n;
	}
	for (i = 0; i < n; i++) {
		if (be->ops->send(be, p->index, packet[i].iov, packet[i].niov) == -EAGAIN)
			break;
	}
	return i;
}

/* Doorbells are asked for when there is nothing more: each takes the guest's time, and the ring is looked at again after each batch. */
void net_tx(struct net_pair *p)
{
	unsigned int n, done, unpublished = 0;
	struct virtqueue *vq = p->tx;

	if (p->tx_blocked || !(p->started || p->discard))
		return;
	virtq_disable_kick(vq);
	for (;;) {
		n = tx_take(p);
		if (!n) {
			if (!virtq_enable_kick(vq))
				return;
			n = tx_take(p);
			if (!n)
				return;
			virtq_disable_kick(vq);
		}
		done = tx_send(p, n);
		for (unsigned int i = 0; i < done; i++)
			virtq_push(vq, p->tx_batch->chain[i].head, 0);
		unpublished += done;
		if (unpublished >= PUBLISH) {
			virtq_flush(vq);
			unpublished = 0;
		}
		if (done == n)
			continue;
		while (n-- > done)
			virtq_unpop(vq, &p->tx_batch->chain[n]);
		p->tx_blocked = true;
		return;
	}
}

void net_writable(void *client, unsigned int queue)
{
	struct virtio_net *net = client;
	struct net_pair *p = &net->pair[queue];

	if (!p->tx_blocked)
		return;
	p->tx_blocked = false;
	if (!p->tx->running)
		return;
	virtq_enable_kick(p->tx);
	net_tx(p);
}

/* --- receive: the buffers in hand -------------------------------------------------------------- */

static void rx_compact(struct net_rx *rx)
{
	if (rx->head) {
		memmove(rx->chain, rx->chain + rx->head, rx->count * sizeof(*rx->chain));
		rx->head = 0;
	}
	if (rx->iov_head) {
		memmove(rx->iov, rx->iov + rx->iov_head, rx->niov * sizeof(*rx->iov));
		rx->iov_head = 0;
	}
}

/* Is there enough in hand for any packet, or no more to be had? */
static bool rx_satisfied(const struct virtio_net *net, const struct net_rx *rx)
{
	if (!net->mrg)
		return rx->count > 0;
	return rx->room >= MAX(rx->want, rx->pending) || rx->niov >= VIRTIO_MAX_SEGMENTS;
}

/* Take buffers from the ring until there are enough. 0, or -EPROTO if the device is broken. */
static int rx_pop(struct virtio_net *net, struct net_rx *rx)
{
	while (!rx_satisfied(net, rx)) {
		struct virtq_chain *c;
		int ret;

		if (rx->count == rx->vq->size)
			return 0;
		if (rx->iov_head + rx->niov > NET_RX_IOV - VIRTIO_MAX_SEGMENTS ||
		    rx->head + rx->count == rx->vq->size)
			rx_compact(rx);
		c = &rx->chain[rx->head + rx->count];
		ret = virtq_pop(rx->vq, c, rx->iov + rx->iov_head + rx->niov, VIRTIO_MAX_SEGMENTS);
		if (ret <= 0)
			return ret;
		if (c->nout || c->in_len < (net->mrg ? 1 : net->hdr_len)) {
			virtq_unpop(rx->vq, c);
			virtio_broken(&net->vdev,
				      "receive buffer of %u bytes, %u of them read-only",
				      c->in_len + c->out_len, c->out_len);
			return -EPROTO;
		}
		rx->count++;
		rx->niov += c->nin;
		rx->room += c->in_len;
	}
	return 0;
}

/*
 * As rx_pop(), and have a doorbell rung for more only if there are not enough. That the driver adds to a ring that holds
 * enough is nothing to know about.
 */
static int rx_fill(struct virtio_net *net, struct net_rx *rx)
{
	int ret;

	if (rx_satisfied(net, rx))
		return 0;
	ret = rx_pop(net, rx);
	if (!ret && !rx_satisfied(net, rx) && virtq_enable_kick(rx->vq))
		ret = rx_pop(net, rx);
	if (!ret && rx_satisfied(net, rx))
		virtq_disable_kick(rx->vq);
	return ret;
}

/* Give the first chain back to the driver with @len bytes in it. */
static void rx_push_first(struct net_rx *rx, uint32_t len)
{
	const struct virtq_chain *c = &rx->chain[rx->head];

	virtq_push(rx->vq, c->head, len);
	rx->head++;
	rx->count--;
	rx->iov_head += c->nin;
	rx->niov -= c->nin;
	rx->room -= c->in_len;
	if (!rx->count)
		rx->head = rx->iov_head = 0;
}

/* Put all buffers back into the ring. */
void net_rx_release(struct net_rx *rx)
{
	while (rx->count)
		virtq_unpop(rx->vq, &rx->chain[rx->head + --rx->count]);
	rx->head = rx->iov_head = rx->niov = 0;
	rx->room = 0;
	rx->pending = 0;
}

/* --- receive ----------------------------------------------------------------------------------- */

static bool rx_wanted(struct virtio_net *net, const struct net_rx *rx, uint32_t len)
{
	uint8_t start[18];
	size_t n;

	if (net->filter.promisc && !virtio_has_feature(&net->vdev, VIRTIO_NET_F_CTRL_VLAN))
		return true;
	n = iov_read(rx->iov + rx->iov_head, rx->niov, net->hdr_len, start,
		     MIN(sizeof(start), len - net->hdr_len));
	return net_filter_accepts(net, start, n);
}

/* A packet of @len bytes lies in the first buffers: hand them over. */
static void rx_deliver(struct virtio_net *net, struct net_rx *rx, uint32_t len)
{
	uint32_t left = len, n = 0;
	uint8_t le[2];

	while (left) {
		left -= MIN(left, rx->chain[rx->head + n].in_len);
		n++;
	}
	/* The kernel's taps leave num_buffers as it was. */
	put_le16(le, n);
	iov_write(rx->iov + rx->iov_head, rx->niov, offsetof(struct virtio_net_hdr_v1, num_buffers),
		  le, 2);
	for (left = len; n; n--) {
		uint32_t used = MIN(left, rx->chain[rx->head].in_len);

		left -= used;
		rx_push_first(rx, used);
	}
}

/* The driver has given more buffers: is it enough for the packet that waits? */
static bool rx_finish_pending(struct virtio_net *net, struct net_rx *rx)
{
	if (rx->room < rx->pending) {
		/* When the whole ring is in hand there is no more to come, and the packet is lost. */
		if (rx->count < rx->vq->size && rx->niov < rx->vq->size &&
		    rx->niov < VIRTIO_MAX_SEGMENTS)
			return false;
		rx->pending = 0;
		return true;
	}
	iov_write(rx->iov + rx->iov_head, rx->niov, rx->spilled_at, rx->spill,
		  rx->pending - rx->spilled_at);
	if (rx_wanted(net, rx, rx->pending))
		rx_deliver(net, rx, rx->pending);
	rx->pending = 0;
	return true;
}

/* With a hash report the driver's header is longer than the backend's, which is read apart. */
static ssize_t rx_recv_apart(struct net_pair *p)
{
	struct virtio_net *net = p->net;
	struct net_rx *rx = &p->rx;
	unsigned int n = MIN(rx->niov, VIRTIO_MAX_SEGMENTS - 1);
	struct iovec *iov = rx->apart + 1;
	ssize_t len;

	memcpy(iov, rx->iov + rx->iov_head, n * sizeof(*iov));
	n = iov_skip(&iov, n, net->hdr_len);
	*--iov = (struct iovec){rx->hdr, NET_HDR_LEN};
	iov[++n] = (struct iovec){rx->spill, SPILL_SIZE};
	len = net->backend->ops->recv(net->backend, p->index, iov, n + 1);
	if (len <= NET_HDR_LEN)
		return len;
	iov_write(rx->iov + rx->iov_head, rx->niov, 0, rx->hdr, NET_HDR_LEN);
	return len + NET_HASH_LEN;
}

/*
 * Read one packet into the buffers in hand, and what is beyond them into the spill. The element behind the last one in
 * hand is free: rx_pop() keeps room there.
 */
static ssize_t rx_recv(struct net_pair *p)
{
	struct netdev *be = p->net->backend;
	struct net_rx *rx = &p->rx;
	unsigned int niov = rx->niov;
	struct iovec *iov;

	if (unlikely(p->net->hdr_len > NET_HDR_LEN))
		return rx_recv_apart(p);
	if (rx->iov_head + niov >= NET_RX_IOV)
		rx_compact(rx);
	iov = rx->iov + rx->iov_head;
	/* So many segments hold the longest packet, or it is cut. */
	if (niov < VIRTIO_MAX_SEGMENTS) {
		iov[niov].iov_base = rx->spill;
		iov[niov++].iov_len = SPILL_SIZE;
	}
	return be->ops->recv(be, p->index, iov, niov);
}

/* Hash the packet in hand, and tell the driver. The pair whose queue it belongs into. */
static struct net_pair *rx_hash(struct net_pair *p, uint32_t len)
{
	struct virtio_net *net = p->net;
	const struct iovec *iov = p->rx.iov + p->rx.iov_head;
	uint8_t start[128], le[NET_HASH_LEN] = {0};
	uint16_t report;
	uint32_t hash;
	size_t n;

	n = iov_read(iov, p->rx.niov, net->hdr_len, start, MIN(sizeof(start), len - net->hdr_len));
	report = net_rss_hash(&net->rss, start, n, &hash);
	if (net->hdr_len > NET_HDR_LEN) {
		put_le32(le, hash);
		put_le16(le + 4, report);
		iov_write(iov, p->rx.niov, NET_HDR_LEN, le, sizeof(le));
	}
	return net->rss.on ? &net->pair[net_rss_queue(&net->rss, report, hash)] : p;
}

/* The network has chosen another queue than the driver wants. All of them are in one loop. */
static void rx_forward(struct net_pair *from, struct net_pair *to, uint32_t len)
{
	struct net_rx *rx = &to->rx;
	uint8_t part[4096];
	size_t n;

	if (!to->started || !rx->vq->running || rx_fill(to->net, rx) || rx->pending ||
	    rx->room < len)
		return; /* lost */
	for (size_t at = 0; at < len; at += n) {
		n = MIN(sizeof(part), len - at);
		iov_read(from->rx.iov + from->rx.iov_head, from->rx.niov, at, part, n);
		iov_write(rx->iov + rx->iov_head, rx->niov, at, part, n);
	}
	rx_deliver(to->net, rx, len);
}

/* One packet: 1, 0 if there is none or no room, or -EPROTO. */
static int rx_packet(struct net_pair *p)
{
	struct virtio_net *net = p->net;
	struct net_rx *rx = &p->rx;
	struct net_pair *to = p;
	ssize_t len;
	int ret = rx_fill(net, rx);

	if (ret)
		return ret;
	if (rx->pending)
		return rx_finish_pending(net, rx);
	if (!rx->count || rx->room < net->hdr_len)
		return 0;
	len = rx_recv(p);
	if (len == -EAGAIN)
		return 0;
	/* Cut off, or the interface is down: lost. */
	if (len <= net->hdr_len)
		return len == -EMSGSIZE || len >= 0;
	if (unlikely(net->rss.on || net->hdr_len > NET_HDR_LEN))
		to = rx_hash(p, len);
	if ((uint64_t)len > rx->room) {
		if (net->mrg && to == p && (uint64_t)len <= rx->room + SPILL_SIZE) {
			rx->pending = len;
			rx->spilled_at = rx->room;
		}
		return 1;
	}
	if (rx_wanted(net, rx, len)) {
		if (likely(to == p))
			rx_deliver(net, rx, len);
		else
			rx_forward(p, to, len);
	}
	return 1;
}

void net_rx(struct net_pair *p)
{
	struct netdev *be = p->net->backend;
	struct net_rx *rx = &p->rx;
	bool enable;
	int ret;

	if (!p->started || !rx->vq->running || READ_ONCE(p->net->vdev.broken))
		return;
	for (int i = 0; i < RX_BATCH; i++) {
		ret = rx_packet(p);
		if (ret > 0) {
			if (!((i + 1) % PUBLISH))
				virtq_flush(rx->vq);
			continue;
		}
		/* Without buffers packets stay where they are. */
		enable = !ret && rx->count && !rx->pending;
		if (enable != rx->enabled)
			be->ops->recv_enable(be, p->index, enable);
		rx->enabled = enable;
		return;
	}
	loop_post(p->loop, &p->again);
}

void net_rx_again(struct loop_msg *msg)
{
	net_rx(container_of(msg, struct net_pair, again));
}

void net_readable(void *client, unsigned int queue)
{
	struct virtio_net *net = client;

	net_rx(&net->pair[queue]);
}

/* --- memory -------------------------------------------------------------------------------------- */

void net_pair_free(struct net_pair *p)
{
	free(p->rx.chain);
	free(p->rx.iov);
	free(p->rx.spill);
	free(p->rx.apart);
	p->rx.apart = NULL;
	free(p->tx_batch);
	p->tx_batch = NULL;
	p->rx.chain = NULL;
	p->rx.iov = NULL;
	p->rx.spill = NULL;
}

int net_pair_alloc(struct net_pair *p)
{
	const uint64_t gso = 1ull << VIRTIO_NET_F_GUEST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO6 |
			     1ull << VIRTIO_NET_F_GUEST_UFO | 1ull << VIRTIO_NET_F_GUEST_USO4 |
			     1ull << VIRTIO_NET_F_GUEST_USO6;

	/* The larger ones are touched only as far as they are used. */
	p->rx.chain = calloc(VIRTIO_QUEUE_MAX_SIZE, sizeof(*p->rx.chain));
	p->rx.iov = calloc(NET_RX_IOV, sizeof(*p->rx.iov));
	p->rx.spill = malloc(SPILL_SIZE);
	p->tx_batch = calloc(1, sizeof(*p->tx_batch));
	p->rx.want = p->net->hdr_len + MAX(p->net->host_mtu, 1500) + 18;
	if (p->net->vdev.guest_features & gso)
		p->rx.want = p->net->hdr_len + NET_FRAME_MAX;
	if (p->net->hdr_len > NET_HDR_LEN) {
		p->rx.apart = calloc(VIRTIO_MAX_SEGMENTS + 2, sizeof(*p->rx.apart));
		if (!p->rx.apart)
			return -ENOMEM;
	}
	return p->rx.chain && p->rx.iov && p->rx.spill && p->tx_batch ? 0 : -ENOMEM;
}
