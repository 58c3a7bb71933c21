/* SPDX-License-Identifier: GPL-2.0-only */
/* For tests of the virtio network card: a network that the test holds in its hand, and a driver for its side of the card. */
#ifndef TESTS_UNIT_VIRTIO_NET_RIG_H
#define TESTS_UNIT_VIRTIO_NET_RIG_H

#include <linux/virtio_net.h>
#include <pthread.h>

#include "devices/net/net.h"
#include "virtq_driver.h"

#define HDR    12
#define F(BIT) (1ull << VIRTIO_NET_F_##BIT)
#define RAM    (4 * MiB)

#define NET_PAIRS 4 /* at most */

enum {
	RX,
	TX,
	CTRL,
	QUEUES,
	MAX_QUEUES = 2 * NET_PAIRS + 1
};

/* --- a network --------------------------------------------------------------------------------- */

struct packet {
	struct packet *next;
	size_t len;
	uint8_t data[];
};

struct packets {
	struct packet *first, **tail;
	unsigned int n;
};

/* Behaves as a tap does: what does not fit is cut off in silence, and num_buffers is left alone. */
struct test_net {
	struct netdev netdev;
	bool offload_able, together;
	pthread_mutex_t lock;
	struct packets in[NET_PAIRS], out; /* to the card, from the card */
	struct loop *loop[NET_PAIRS];	   /* while started */
	unsigned int sent_on;		   /* queue pair of what was sent last */
	bool recv_on, block;		   /* of the first pair; of all */
	bool fail;			   /* the next start */
	bool no_carrier;
	unsigned int reads, calls; /* of recv(); of send_packets() */
	unsigned int room;	   /* if limited: for so many packets */
	bool limited, refuse;	   /* once, the second of those given together */
	struct net_offloads set;
};

static inline void packets_add(struct packets *q, struct packet *p)
{
	p->next = NULL;
	*(q->first ? q->tail : &q->first) = p;
	q->tail = &p->next;
	q->n++;
}

static inline struct packet *packets_take(struct packets *q)
{
	struct packet *p = q->first;

	if (p) {
		q->first = p->next;
		q->n--;
	}
	return p;
}

static inline int test_start(struct netdev *net, unsigned int queue, struct loop *loop,
			     struct hako_error *err)
{
	struct test_net *t = (struct test_net *)net;

	ck_assert_ptr_null(t->loop[queue]);
	ck_assert(loop_is_current(loop));
	if (t->fail)
		return error_set(err, -EIO, "as the test wants it");
	__atomic_store_n(&t->loop[queue], loop, __ATOMIC_RELEASE);
	return 0;
}

static inline void test_stop(struct netdev *net, unsigned int queue)
{
	struct test_net *t = (struct test_net *)net;

	ck_assert(loop_is_current(t->loop[queue]));
	__atomic_store_n(&t->loop[queue], NULL, __ATOMIC_RELEASE);
	if (!queue)
		t->recv_on = false;
}

static inline void test_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	if (!queue)
		((struct test_net *)net)->recv_on = on;
}

static inline ssize_t test_recv(struct netdev *net, unsigned int queue, const struct iovec *iov,
				int niov)
{
	struct test_net *t = (struct test_net *)net;
	struct packet *p;
	size_t done = 0;

	ck_assert_ptr_nonnull(t->loop[queue]);
	pthread_mutex_lock(&t->lock);
	t->reads++;
	p = packets_take(&t->in[queue]);
	pthread_mutex_unlock(&t->lock);
	if (!p)
		return -EAGAIN;
	for (int i = 0; i < niov && done < p->len; i++) {
		size_t n = MIN(iov[i].iov_len, p->len - done);

		memcpy(iov[i].iov_base, p->data + done, n);
		done += n;
	}
	free(p);
	return done;
}

static inline ssize_t test_send(struct netdev *net, unsigned int queue, const struct iovec *iov,
				int niov)
{
	struct test_net *t = (struct test_net *)net;
	struct packet *p;
	size_t len = 0;

	ck_assert_ptr_nonnull(t->loop[queue]);
	if (t->block || (t->limited && !t->room))
		return -EAGAIN;
	t->room -= t->limited;
	for (int i = 0; i < niov; i++)
		len += iov[i].iov_len;
	p = malloc(sizeof(*p) + len);
	p->len = 0;
	for (int i = 0; i < niov; i++) {
		memcpy(p->data + p->len, iov[i].iov_base, iov[i].iov_len);
		p->len += iov[i].iov_len;
	}
	pthread_mutex_lock(&t->lock);
	packets_add(&t->out, p);
	t->sent_on = queue;
	pthread_mutex_unlock(&t->lock);
	return len;
}

static inline void test_send_packets(struct netdev *net, unsigned int queue,
				     struct loop_packet *packet, unsigned int n)
{
	struct test_net *t = (struct test_net *)net;

	t->calls++;
	for (unsigned int i = 0; i < n; i++) {
		packet[i].res = -EAGAIN;
		if (i == 1 && t->refuse)
			t->refuse = false;
		else
			packet[i].res = test_send(net, queue, packet[i].iov, packet[i].niov);
	}
}

static inline int test_set_offloads(struct netdev *net, const struct net_offloads *o)
{
	((struct test_net *)net)->set = *o;
	return 0;
}

static inline void test_set_link(struct netdev *net, bool up)
{
	((struct test_net *)net)->no_carrier = !up;
}

static const struct netdev_ops test_ops = {
	.start = test_start,
	.stop = test_stop,
	.recv_enable = test_recv_enable,
	.recv = test_recv,
	.send = test_send,
	.set_offloads = test_set_offloads,
	.set_link = test_set_link,
};

static const struct netdev_ops test_ops_together = {
	.start = test_start,
	.stop = test_stop,
	.recv_enable = test_recv_enable,
	.recv = test_recv,
	.send = test_send,
	.send_packets = test_send_packets,
	.set_offloads = test_set_offloads,
	.set_link = test_set_link,
};

static inline int test_create(struct object *obj, struct hako_error *err)
{
	struct test_net *t = (struct test_net *)obj;

	pthread_mutex_init(&t->lock, NULL);
	t->netdev.ops = t->together ? &test_ops_together : &test_ops;
	t->netdev.vnet_hdr = t->offload_able;
	if (t->offload_able)
		t->netdev.offloads = (struct net_offloads){true, true, true, true, true, true};
	return 0;
}

static inline void test_destroy(struct object *obj)
{
	struct test_net *t = (struct test_net *)obj;
	struct packet *p;

	for (int i = 0; i < NET_PAIRS; i++)
		while ((p = packets_take(&t->in[i])))
			free(p);
	while ((p = packets_take(&t->out)))
		free(p);
}

static const struct option test_options[] = {
	OPT_UINT("queues", struct test_net, netdev.queues, "1", 1, NET_PAIRS, "queue pairs"),
	OPT_BOOL("together", struct test_net, together, "off", "sends several packets at a time"),
	OPT_BOOL("offloads", struct test_net, offload_able, "on", "can do them"),
	OPT_END,
};

static const struct class test_net_class = {
	.name = "test-net",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct test_net),
	.options = test_options,
	.create = test_create,
	.destroy = test_destroy,
};
HAKO_CLASS(test_net_class);

/* --- a driver ---------------------------------------------------------------------------------- */

struct rig {
	struct vdrv drv;
	struct vdrv_queue q[MAX_QUEUES];
	struct object *card;
	struct test_net *net;
};

static inline struct test_net *make_net(struct vm *vm, const char *text)
{
	struct hako_error err = {0};
	struct keyvals kv = {0};
	struct object *obj = NULL;

	ck_assert_int_eq(keyvals_parse(&kv, text, NULL, &err), 0);
	ck_assert_msg(!object_new(vm, &test_net_class, &kv, &obj, &err), "%s: %s", text,
		      err.message);
	keyvals_free(&kv);
	return (struct test_net *)obj;
}

static inline uint8_t *ram(struct rig *r, uint64_t gpa)
{
	return vdrv_ptr(&r->drv, gpa, 1);
}

static inline uint8_t config8(struct rig *r, uint32_t offset)
{
	return vdrv_config(&r->drv, offset, 1);
}

static inline void bring_up_queues(struct rig *r, uint64_t features, uint16_t size, unsigned int n)
{
	r->drv.heap = VDRV_HEAP;
	ck_assert(vdrv_negotiate(&r->drv, features));
	for (unsigned int i = 0; i < n; i++)
		vdrv_queue(&r->drv, &r->q[i], i, size);
	vdrv_go(&r->drv);
	ck_assert(!vdrv_needs_reset(&r->drv));
}

static inline void bring_up(struct rig *r, uint64_t features, uint16_t size)
{
	bring_up_queues(r, features, size, QUEUES);
}

static inline void rig_open(struct rig *r, const char *net, const char *card)
{
	struct hako_error err = {0};

	memset(r, 0, sizeof(*r));
	vdrv_new(&r->drv, RAM);
	r->net = make_net(r->drv.vm, net);
	ck_assert_msg(!vdrv_device(&r->drv, "virtio-net-device", card, &err), "%s", err.message);
	r->card = r->drv.obj;
	ck_assert_uint_eq(vdrv_read(&r->drv, VIRTIO_MMIO_DEVICE_ID), 1);
}

static inline void rig_close(struct rig *r)
{
	vdrv_close(&r->drv);
}

struct buf {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

/* Make one chain available, readable buffers first. */
static inline void add(struct rig *r, unsigned int i, const struct buf *b, unsigned int n)
{
	struct vdrv_buf v[4] = {{0}};
	unsigned int out = 0;

	for (unsigned int k = 0; k < n; k++) {
		v[k] = (struct vdrv_buf){b[k].gpa, b[k].len};
		out += !b[k].write;
	}
	vdrv_add(&r->q[i], v, out, v + out, n - out);
}

static inline void kick(struct rig *r, unsigned int i)
{
	vdrv_kick(&r->q[i]);
}

/* Wait for the next used entry; false after @ms. */
static inline bool used(struct rig *r, unsigned int i, uint32_t *head, uint32_t *len,
			unsigned int ms)
{
	uint64_t end = clock_now() + ms * 1000000ull;

	while (!vdrv_take(&r->q[i], head, len)) {
		if (clock_now() > end)
			return false;
		usleep(100);
	}
	return true;
}

static inline bool broken(struct rig *r)
{
	VDRV_UNTIL(vdrv_needs_reset(&r->drv));
	return true;
}

static inline struct packet *sent(struct rig *r)
{
	struct packet *p = NULL;

	for (int i = 0; i < 5000 && !p; i++) {
		pthread_mutex_lock(&r->net->lock);
		p = packets_take(&r->net->out);
		pthread_mutex_unlock(&r->net->lock);
		if (!p)
			usleep(1000);
	}
	return p;
}

static inline void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (seed + i) * 2654435761u >> 24;
}

struct call {
	struct rig *r;
	struct packet *p;
	unsigned int queue;
};

static inline void inject_in_loop(void *arg)
{
	struct call *c = arg;
	struct test_net *t = c->r->net;

	pthread_mutex_lock(&t->lock);
	packets_add(&t->in[c->queue], c->p);
	pthread_mutex_unlock(&t->lock);
	if (c->queue || t->recv_on)
		t->netdev.client_ops->readable(t->netdev.client, c->queue);
}

/* A packet from the network: header of @gso type, destination @dst, @len bytes in all behind the header. */
static inline void inject_to(struct rig *r, unsigned int queue, const uint8_t dst[6], size_t len,
			     uint32_t seed)
{
	struct call c = {r, malloc(sizeof(struct packet) + HDR + len), queue};
	struct loop *loop = r->net->loop[queue] ?: r->drv.vm->io_loop;

	c.p->len = HDR + len;
	memset(c.p->data, 0, 10);
	c.p->data[10] = c.p->data[11] = 0xee; /* num_buffers, as a tap leaves it */
	fill(c.p->data + HDR, len, seed);
	if (dst)
		memcpy(c.p->data + HDR, dst, MIN(len, 6));
	loop_call(loop, inject_in_loop, &c);
}

static inline void inject(struct rig *r, const uint8_t dst[6], size_t len, uint32_t seed)
{
	inject_to(r, 0, dst, len, seed);
}

static inline void writable_in_loop(void *arg)
{
	struct test_net *t = arg;

	t->block = false;
	t->netdev.client_ops->writable(t->netdev.client, 0);
}

static inline void add_rx_to(struct rig *r, unsigned int queue, unsigned int n, uint32_t size)
{
	for (unsigned int i = 0; i < n; i++) {
		struct buf b = {vdrv_alloc(&r->drv, size), size, true};

		add(r, 2 * queue, &b, 1);
	}
	kick(r, 2 * queue);
}

static inline void add_rx(struct rig *r, unsigned int n, uint32_t size)
{
	add_rx_to(r, 0, n, size);
}

/* Expect the packet that inject() sent, over as many buffers as the first one says. */
static inline void expect(struct rig *r, const uint8_t dst[6], size_t len, uint32_t seed,
			  unsigned int nbufs)
{
	uint8_t *got = malloc(HDR + len + 1), *want = malloc(len + 1);
	unsigned int n = 1;
	size_t have = 0;
	uint32_t head;
	uint32_t part;

	for (unsigned int i = 0; i < n; i++) {
		const struct vdrv_buf *d;

		ck_assert_msg(used(r, RX, &head, &part, 5000), "buffer %u of %u", i, n);
		d = &r->q[RX].first[head];
		ck_assert_uint_le(part, d->len);
		ck_assert_uint_le(have + part, HDR + len);
		memcpy(got + have, ram(r, d->gpa), part);
		have += part;
		if (!i)
			n = get_le16(got + 10);
	}
	ck_assert_uint_eq(n, nbufs);
	ck_assert_uint_eq(have, HDR + len);
	fill(want, len, seed);
	if (dst)
		memcpy(want, dst, 6);
	ck_assert(!memcmp(got + HDR, want, len));
	free(got);
	free(want);
}

/* Send one command; the answer. */
static inline int command_on(struct rig *r, unsigned int queue, uint8_t class, uint8_t cmd,
			     const void *data, size_t len)
{
	static unsigned int n;
	uint64_t gpa = 3 * MiB + n++ % 16 * 4096;
	struct buf b[3] = {{gpa, 2, false}, {gpa + 2, len, false}, {gpa + 4000, 1, true}};
	uint32_t head;
	uint32_t used_len;

	ram(r, gpa)[0] = class;
	ram(r, gpa)[1] = cmd;
	ram(r, gpa)[4000] = 0x55;
	if (len)
		memcpy(ram(r, gpa + 2), data, len);
	else
		b[1] = b[2];
	add(r, queue, b, len ? 3 : 2);
	kick(r, queue);
	ck_assert(used(r, queue, &head, &used_len, 5000));
	ck_assert_uint_eq(used_len, 1);
	return ram(r, gpa)[4000];
}

static inline int command(struct rig *r, uint8_t class, uint8_t cmd, const void *data, size_t len)
{
	return command_on(r, CTRL, class, cmd, data, len);
}

#endif
