/* SPDX-License-Identifier: GPL-2.0-only */
/* Split virtqueues and the device's life, as virtio 1.2 (2.1, 2.2, 2.7, 3.1) has them; and drivers that break every rule. */
#include "virtq_driver.h"

#define RAM	  (16 * MiB)
#define QSIZE	  16
#define EVENT_IDX BIT64(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  BIT64(VIRTIO_RING_F_INDIRECT_DESC)

/* --- a device that returns what it is given, upside down ----------------------------------------- */

struct toy {
	struct virtio_device vdev;
	bool hold;  /* keep requests until toy_release() */
	bool idle;  /* take requests only to have buffers, and give them back at a drain */
	bool flood; /* the driver makes every chain available again at once */
	struct virtq_chain held[QSIZE];
	unsigned int nheld, starts, stops, handled;
};

static void toy_answer(struct virtqueue *vq, const struct virtq_chain *chain, struct iovec *iov)
{
	uint8_t buf[256];
	size_t n = iov_read(iov, chain->nout, 0, buf, sizeof(buf));

	for (size_t i = 0; i < n / 2; i++) {
		uint8_t t = buf[i];

		buf[i] = buf[n - 1 - i];
		buf[n - 1 - i] = t;
	}
	n = iov_write(iov + chain->nout, chain->nin, 0, buf, n);
	virtq_push(vq, chain->head, n);
}

static void toy_handle(struct virtqueue *vq)
{
	struct toy *toy = container_of(vq->vdev, struct toy, vdev);
	struct iovec iov[64];
	struct virtq_chain chain;

	while (virtq_pop(vq, &chain, iov, ARRAY_SIZE(iov)) == 1) {
		toy->handled++;
		if (toy->hold || toy->idle) {
			ck_assert_uint_lt(toy->nheld, QSIZE);
			toy->held[toy->nheld++] = chain;
			continue;
		}
		toy_answer(vq, &chain, iov);
		if (toy->flood)
			vq->avail->idx++;
	}
}

static void toy_complete(void *arg)
{
	struct toy *toy = arg;

	while (toy->nheld)
		virtq_push(&toy->vdev.vq[0], toy->held[--toy->nheld].head, 0);
}

static void toy_complete_one(void *arg)
{
	struct toy *toy = arg;

	virtq_push(&toy->vdev.vq[0], toy->held[--toy->nheld].head, 0);
}

static void toy_drain(struct virtqueue *vq)
{
	struct toy *toy = container_of(vq->vdev, struct toy, vdev);

	while (toy->idle && toy->nheld)
		virtq_unpop(vq, &toy->held[--toy->nheld]);
	virtq_stopped(vq);
}

static int toy_start(struct virtio_device *vdev)
{
	container_of(vdev, struct toy, vdev)->starts++;
	return 0;
}

static void toy_stop(struct virtio_device *vdev)
{
	struct toy *toy = container_of(vdev, struct toy, vdev);

	for (uint32_t i = 0; i < vdev->nqueues; i++) {
		ck_assert(!vdev->vq[i].running);
		ck_assert_uint_eq(vdev->vq[i].inflight, 0);
	}
	toy->stops++;
}

static uint64_t toy_features(struct virtio_device *vdev)
{
	return BIT64(0) | BIT64(33 + 8);
}

static bool toy_accept(struct virtio_device *vdev, uint64_t features)
{
	return !(features & BIT64(33 + 8)); /* offers it, but does not want it */
}

static const struct virtio_ops toy_ops = {
	.name = "toy",
	.device_id = 63,
	.features = toy_features,
	.accept_features = toy_accept,
	.start = toy_start,
	.stop = toy_stop,
	.handle = toy_handle,
};

static const struct virtio_ops toy_idle_ops = {
	.name = "toy-idle",
	.device_id = 63,
	.handle = toy_handle,
	.drain = toy_drain,
};

static int toy_create(struct object *obj, struct hako_error *err)
{
	struct toy *toy = container_of(obj, struct toy, vdev.obj);
	int r = virtio_device_init(&toy->vdev, toy->idle ? &toy_idle_ops : &toy_ops, 2, QSIZE, err);

	return r ?: virtio_device_attach(&toy->vdev, err);
}

static void toy_destroy(struct object *obj)
{
	virtio_device_free((struct virtio_device *)obj);
}

static const struct option toy_options[] = {
	OPT_BOOL("hold", struct toy, hold, "off", "keep requests"),
	OPT_BOOL("idle", struct toy, idle, "off", "keep buffers"),
	OPT_BOOL("flood", struct toy, flood, "off", "feed yourself"),
	OPT_END,
};

static const struct state_field toy_fields[] = {
	STATE_FIELD_STRUCT(struct toy, vdev, &virtio_device_state),
	STATE_END,
};

static const struct state_table toy_state = {"toy", 1, 1, toy_fields, NULL, NULL};

VIRTIO_CLASS(toy, "toy", "for tests", struct toy, toy_options, &toy_state, toy_create, toy_destroy);

/* --- fixture ----------------------------------------------------------------------------------- */

static struct vdrv drv;
static struct vdrv_queue q;
static struct toy *toy;

static void open_toy(const char *options)
{
	vdrv_open(&drv, RAM, "toy-device", options);
	toy = (struct toy *)drv.obj;
}

static void ready(uint64_t features)
{
	drv.heap = VDRV_HEAP;
	ck_assert(vdrv_negotiate(&drv, features));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
}

static void setup(void)
{
	open_toy(NULL);
	ready(EVENT_IDX | INDIRECT);
}

static void teardown(void)
{
	vdrv_close(&drv);
}

/* Send "abc" and get "cba": the device works. */
static void check_works(void)
{
	struct vdrv_buf out = vdrv_buf(&drv, 3), in = vdrv_buf(&drv, 8);
	uint32_t id, len;
	uint16_t head;

	memcpy(vdrv_ptr(&drv, out.gpa, 3), "abc", 3);
	head = vdrv_add(&q, &out, 1, &in, 1);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_uint_eq(id, head);
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(vdrv_ptr(&drv, in.gpa, 3), "cba", 3);
}

/* --- good drivers ------------------------------------------------------------------------------ */

START_TEST(test_direct)
{
	struct vdrv_buf out[2] = {vdrv_buf(&drv, 2), vdrv_buf(&drv, 3)};
	struct vdrv_buf in[2] = {vdrv_buf(&drv, 1), vdrv_buf(&drv, 100)};
	uint32_t id, len;

	memcpy(vdrv_ptr(&drv, out[0].gpa, 2), "he", 2);
	memcpy(vdrv_ptr(&drv, out[1].gpa, 3), "llo", 3);
	vdrv_add(&q, out, 2, in, 2);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_uint_eq(len, 5);
	ck_assert_mem_eq(vdrv_ptr(&drv, in[0].gpa, 1), "o", 1);
	ck_assert_mem_eq(vdrv_ptr(&drv, in[1].gpa, 5), "lleh\0", 5);
	check_works();
	vdrv_settle(&drv);
	ck_assert_uint_eq(toy->vdev.vq[0].inflight, 0);
}
END_TEST

/* More chains than a 16-bit index counts, in batches that fill the ring. */
START_TEST(test_wrap)
{
	struct vdrv_buf out = vdrv_buf(&drv, 1), in = vdrv_buf(&drv, 1);
	uint32_t total = 0;

	while (total < 70000) {
		for (int i = 0; i < QSIZE / 2; i++)
			vdrv_add(&q, &out, 1, &in, 1);
		vdrv_kick(&q);
		for (int i = 0; i < QSIZE / 2; i++, total++)
			ck_assert(vdrv_wait(&q, NULL, NULL));
	}
	ck_assert_uint_eq(toy->handled, total);
	ck_assert_uint_eq(vdrv_used_idx(&q), total & 0xffff);
	ck_assert(!vdrv_needs_reset(&drv));
}
END_TEST

static void indirect(struct vdrv_buf table, unsigned int i, struct vdrv_buf buf, uint16_t flags,
		     uint16_t next)
{
	struct vring_desc *d = vdrv_ptr(&drv, table.gpa, table.len);

	d[i] = (struct vring_desc){buf.gpa, buf.len, flags, next};
}

/* A table reached by a chain with a direct descriptor in front, out of order, its own WRITE flag to be ignored (2.7.5.3.2). */
START_TEST(test_indirect)
{
	struct vdrv_buf out = vdrv_buf(&drv, 1), more = vdrv_buf(&drv, 2), in = vdrv_buf(&drv, 4);
	struct vdrv_buf table = vdrv_buf(&drv, 5 * 16);
	uint32_t id, len;

	memcpy(vdrv_ptr(&drv, out.gpa, 1), "1", 1);
	memcpy(vdrv_ptr(&drv, more.gpa, 2), "23", 2);
	indirect(table, 0, more, VRING_DESC_F_NEXT, 4);
	indirect(table, 4, in, VRING_DESC_F_WRITE, 0);
	vdrv_desc(&q, 3, out.gpa, 1, VRING_DESC_F_NEXT, 7);
	vdrv_desc(&q, 7, table.gpa, table.len, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	vdrv_post(&q, 3);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_uint_eq(id, 3);
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(vdrv_ptr(&drv, in.gpa, 4), "321\0", 4);
}
END_TEST

/* A table need not be aligned. */
START_TEST(test_indirect_unaligned)
{
	struct vdrv_buf in = vdrv_buf(&drv, 4), room = vdrv_buf(&drv, 64);
	struct vring_desc d = {in.gpa, in.len, VRING_DESC_F_WRITE, 0};
	uint32_t len;

	memcpy((char *)vdrv_ptr(&drv, room.gpa, 64) + 3, &d, sizeof(d));
	vdrv_desc(&q, 0, room.gpa + 3, 16, VRING_DESC_F_INDIRECT, 0);
	vdrv_post(&q, 0);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 0);
}
END_TEST

/* --- notifications ----------------------------------------------------------------------------- */

static uint32_t take_isr(void)
{
	uint32_t isr;

	vdrv_settle(&drv);
	isr = vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS);
	vdrv_write(&drv, VIRTIO_MMIO_INTERRUPT_ACK, isr);
	return isr;
}

static uint16_t *used_event(void)
{
	return &q.avail->ring[QSIZE];
}

static uint16_t *avail_event(void)
{
	return (uint16_t *)&q.used->ring[QSIZE];
}

/* 2.7.7.2: one interrupt, when used_idx passes used_event. */
START_TEST(test_interrupt_event_idx)
{
	*used_event() = 0;
	check_works();
	ck_assert_uint_eq(take_isr(), 1);
	check_works(); /* the event has passed */
	ck_assert_uint_eq(take_isr(), 0);
	*used_event() = 3;
	check_works();
	ck_assert_uint_eq(take_isr(), 0);
	check_works();
	ck_assert_uint_eq(take_isr(), 1);
}
END_TEST

/* 2.7.7.1 */
START_TEST(test_interrupt_flag)
{
	ready(0);
	check_works();
	ck_assert_uint_eq(take_isr(), 1);
	q.avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	check_works();
	ck_assert_uint_eq(take_isr(), 0);
	q.avail->flags = 0;
	check_works();
	ck_assert_uint_eq(take_isr(), 1);
}
END_TEST

/* 2.7.10: once the ring is empty the device asks to be told of the next chain. */
START_TEST(test_doorbell_event_idx)
{
	for (uint16_t i = 0; i < 5; i++) {
		vdrv_settle(&drv);
		ck_assert_uint_eq(READ_ONCE(*avail_event()), i);
		check_works();
	}
}
END_TEST

static void disable_kick(void *vq)
{
	virtq_disable_kick(vq);
}

struct enable {
	struct virtqueue *vq;
	bool more;
};

static void enable_kick(void *arg)
{
	struct enable *e = arg;

	e->more = virtq_enable_kick(e->vq);
}

START_TEST(test_doorbell_flag)
{
	struct enable e = {.vq = &toy->vdev.vq[0]};
	struct vdrv_buf in = vdrv_buf(&drv, 1);

	ready(0);
	ck_assert_uint_eq(q.used->flags, 0);
	loop_call(drv.vm->io_loop, disable_kick, e.vq);
	ck_assert_uint_eq(q.used->flags, VRING_USED_F_NO_NOTIFY);
	vdrv_add(&q, NULL, 0, &in, 1);
	loop_call(drv.vm->io_loop, enable_kick, &e);
	ck_assert_uint_eq(q.used->flags, 0);
	ck_assert(e.more);
}
END_TEST

/* --- bad drivers ------------------------------------------------------------------------------- */

static struct vdrv_buf buf, table;

static void bad_head(void)
{
	vdrv_desc(&q, QSIZE, buf.gpa, 8, 0, 0);
	vdrv_post(&q, QSIZE);
}

static void bad_outside(void)
{
	vdrv_desc(&q, 0, RAM, 16, 0, 0);
	vdrv_post(&q, 0);
}

static void bad_across_end(void)
{
	vdrv_desc(&q, 0, RAM - 8, 16, VRING_DESC_F_WRITE, 0);
	vdrv_post(&q, 0);
}

static void bad_wraps(void)
{
	vdrv_desc(&q, 0, UINT64_MAX - 7, 16, VRING_DESC_F_WRITE, 0);
	vdrv_post(&q, 0);
}

static void bad_huge(void)
{
	vdrv_desc(&q, 0, 0, UINT32_MAX, VRING_DESC_F_WRITE, 0);
	vdrv_post(&q, 0);
}

static void bad_loop(void)
{
	vdrv_desc(&q, 0, buf.gpa, 8, VRING_DESC_F_NEXT, 1);
	vdrv_desc(&q, 1, buf.gpa, 8, VRING_DESC_F_NEXT, 0);
	vdrv_post(&q, 0);
}

static void bad_self(void)
{
	vdrv_desc(&q, 0, buf.gpa, 8, VRING_DESC_F_NEXT, 0);
	vdrv_post(&q, 0);
}

static void bad_next(void)
{
	vdrv_desc(&q, 0, buf.gpa, 8, VRING_DESC_F_NEXT, QSIZE);
	vdrv_desc(&q, QSIZE, buf.gpa, 8, 0, 0);
	vdrv_post(&q, 0);
}

static void bad_order(void)
{
	vdrv_desc(&q, 0, buf.gpa, 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1);
	vdrv_desc(&q, 1, buf.gpa, 8, 0, 0);
	vdrv_post(&q, 0);
}

static void bad_empty(void)
{
	vdrv_desc(&q, 0, buf.gpa, 0, VRING_DESC_F_WRITE, 0);
	vdrv_post(&q, 0);
}

static void bad_jump(void)
{
	vdrv_desc(&q, 0, buf.gpa, 8, 0, 0);
	q.avail->idx += QSIZE + 1;
}

static void bad_back(void)
{
	q.avail->idx -= 1;
}

static void post_indirect(uint32_t len, uint16_t flags)
{
	vdrv_desc(&q, 0, table.gpa, len, VRING_DESC_F_INDIRECT | flags, 1);
	vdrv_desc(&q, 1, buf.gpa, 8, 0, 0);
	vdrv_post(&q, 0);
}

static void bad_indirect_len(void)
{
	indirect(table, 0, buf, 0, 0);
	post_indirect(24, 0);
}

static void bad_indirect_empty(void)
{
	post_indirect(0, 0);
}

static void bad_indirect_next(void)
{
	indirect(table, 0, buf, 0, 0);
	post_indirect(16, VRING_DESC_F_NEXT);
}

static void bad_indirect_nested(void)
{
	indirect(table, 0, table, VRING_DESC_F_INDIRECT, 0);
	post_indirect(16, 0);
}

static void bad_indirect_loop(void)
{
	indirect(table, 0, buf, VRING_DESC_F_NEXT, 1);
	indirect(table, 1, buf, VRING_DESC_F_NEXT, 0);
	post_indirect(32, 0);
}

static void bad_indirect_index(void)
{
	indirect(table, 0, buf, VRING_DESC_F_NEXT, 2);
	indirect(table, 2, buf, 0, 0); /* good, but behind the end */
	post_indirect(32, 0);
}

static void bad_indirect_outside(void)
{
	vdrv_desc(&q, 0, RAM - 16, 32, VRING_DESC_F_INDIRECT, 0);
	vdrv_post(&q, 0);
}

static void bad_indirect_gap(void)
{
	vdrv_desc(&q, 0, 1ull << 40, 0xfffffff0, VRING_DESC_F_INDIRECT, 0);
	vdrv_post(&q, 0);
}

/* The device type has room for 64 buffers. */
static void bad_many(void)
{
	for (uint16_t i = 0; i < 80; i++)
		indirect(table, i, buf, VRING_DESC_F_NEXT, i + 1);
	indirect(table, 80, buf, 0, 0);
	post_indirect(81 * 16, 0);
}

static void (*const bad[])(void) = {
	bad_head,
	bad_outside,
	bad_across_end,
	bad_wraps,
	bad_huge,
	bad_loop,
	bad_self,
	bad_next,
	bad_order,
	bad_empty,
	bad_jump,
	bad_back,
	bad_indirect_len,
	bad_indirect_empty,
	bad_indirect_next,
	bad_indirect_nested,
	bad_indirect_loop,
	bad_indirect_index,
	bad_indirect_outside,
	bad_indirect_gap,
	bad_many,
};

/* The device says NEEDS_RESET with a configuration interrupt, leaves the rings alone, and is as new after a reset. */
START_TEST(test_bad)
{
	buf = vdrv_buf(&drv, 64);
	table = vdrv_buf(&drv, 4096);
	check_works();
	take_isr();
	bad[_i]();
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	ck_assert_uint_eq(take_isr() & 2, 2);
	ck_assert_uint_eq(vdrv_used_idx(&q), 1);
	vdrv_kick(&q);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&q), 1);
	ready(EVENT_IDX | INDIRECT);
	ck_assert(!vdrv_needs_reset(&drv));
	check_works();
}
END_TEST

/* Bytes beyond what a 32-bit count holds, though each buffer is in RAM. */
START_TEST(test_total)
{
	teardown();
	vdrv_open(&drv, 128 * MiB, "toy-device", NULL);
	ready(INDIRECT);
	table = vdrv_buf(&drv, 4096);
	buf = (struct vdrv_buf){0, 128 * MiB};
	for (uint16_t i = 0; i < 31; i++) /* 4 GiB less one buffer: allowed */
		indirect(table, i, buf, VRING_DESC_F_WRITE | (i < 30 ? VRING_DESC_F_NEXT : 0),
			 i + 1);
	post_indirect(31 * 16, 0);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, NULL));
	indirect(table, 30, buf, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 31);
	indirect(table, 31, buf, VRING_DESC_F_WRITE, 0);
	post_indirect(32 * 16, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
}
END_TEST

/* Without negotiation an indirect descriptor is none (2.7.5.3.1). */
START_TEST(test_indirect_not_negotiated)
{
	ready(0);
	table = vdrv_buf(&drv, 16);
	buf = vdrv_buf(&drv, 16);
	indirect(table, 0, buf, 0, 0);
	post_indirect(16, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
}
END_TEST

/* The same head again and again without waiting for it: never more in flight than the queue has. */
START_TEST(test_more_than_queue)
{
	teardown();
	open_toy("hold=on");
	ready(0);
	buf = vdrv_buf(&drv, 8);
	vdrv_desc(&q, 0, buf.gpa, 8, 0, 0);
	for (int i = 0; i < QSIZE; i++)
		vdrv_post(&q, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == QSIZE);
	ck_assert(!vdrv_needs_reset(&drv));
	vdrv_post(&q, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	ck_assert_uint_eq(toy->nheld, QSIZE);
	loop_call(drv.vm->io_loop, toy_complete, toy);
}
END_TEST

/* A driver that is never done feeding a queue does not keep its loop for itself, and can be stopped. */
START_TEST(test_flood)
{
	teardown();
	open_toy("flood=on");
	ready(EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	for (uint16_t i = 0; i < QSIZE; i++)
		vdrv_desc(&q, i, buf.gpa, 8, 0, 0);
	for (uint16_t i = 0; i < QSIZE; i++)
		q.avail->ring[i] = i;
	vdrv_post(&q, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->handled) > 1000);
	vdrv_settle(&drv);
	virtio_device_pause(drv.obj);
	ck_assert_uint_eq(toy->vdev.vq[0].inflight, 0);
	virtio_device_resume(drv.obj);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 0);
}
END_TEST

/* --- rings that can not be --------------------------------------------------------------------- */

static const struct {
	uint64_t desc, avail, used;
	uint32_t size;
	bool good;
} rings[] = {
	{0x1000, 0x2000, 0x3000, 16, true},
	{RAM - 256, 0x2000, 0x3000, 16, true},
	{RAM - 240, 0x2000, 0x3000, 16, false},
	{0x1000, RAM - 38, 0x3000, 16, true},
	{0x1000, RAM - 36, 0x3000, 16, false},
	{0x1000, 0x2000, RAM - 136, 16, true},
	{0x1000, 0x2000, RAM - 132, 16, false},
	{0x1008, 0x2000, 0x3000, 16, false},
	{0x1000, 0x2001, 0x3000, 16, false},
	{0x1000, 0x2000, 0x3002, 16, false},
	{0x1000, 0x2000, 0x3000, 0, false},
	{0x1000, 0x2000, 0x3000, 12, false},
	{0x1000, 0x2000, 0x3000, 32, false},
	{0x1000, 0x2000, 0x3000, 0x10010, false},
	{0x1000, 0x2000, 0x3000, 1, true},
	{1ull << 63, 0x2000, 0x3000, 16, false},
	{UINT64_MAX - 15, 0x2000, 0x3000, 16, false},
	{0x1000, UINT64_MAX - 1, 0x3000, 16, false},
};

START_TEST(test_rings)
{
	ck_assert(vdrv_negotiate(&drv, 0));
	q = (struct vdrv_queue){
		.drv = &drv,
		.desc_gpa = rings[_i].desc,
		.avail_gpa = rings[_i].avail,
		.used_gpa = rings[_i].used,
	};
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	q.size = rings[_i].size;
	if (rings[_i].size > UINT16_MAX) { /* must not be cut to something valid */
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_NUM, rings[_i].size);
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_DESC_LOW, q.desc_gpa);
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q.avail_gpa);
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_USED_LOW, q.used_gpa);
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_READY, 1);
		ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_READY), 0);
	} else {
		ck_assert_int_eq(vdrv_queue_enable(&q), rings[_i].good);
	}
	ck_assert_int_eq(vdrv_needs_reset(&drv), !rings[_i].good);
	vdrv_go(&drv);
	vdrv_settle(&drv);
	ck_assert_int_eq(toy->vdev.vq[0].running, rings[_i].good);
}
END_TEST

/* --- status and features ------------------------------------------------------------------------- */

START_TEST(test_features)
{
	/* What is offered: the device type's, and what rings can do. */
	ck_assert_uint_eq(vdrv_features(&drv),
			  BIT64(0) | BIT64(41) | BIT64(32) | EVENT_IDX | INDIRECT);
	/* What was not offered, or is refused by the device type */
	ck_assert(!vdrv_negotiate(&drv, BIT64(1)));
	ck_assert(!vdrv_negotiate(&drv, BIT64(41)));
	ck_assert(vdrv_negotiate(&drv, BIT64(0)));
	ck_assert_uint_eq(toy->vdev.guest_features, BIT64(0) | BIT64(32));
	/* Frozen by FEATURES_OK */
	vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES, 0xffffffff);
	ck_assert_uint_eq(toy->vdev.guest_features, BIT64(0) | BIT64(32));
	/* A legacy driver does not know VERSION_1. */
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(toy->vdev.guest_features, 0);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 3);
	vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES, 1);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 11);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 3);
}
END_TEST

START_TEST(test_features_off)
{
	teardown();
	open_toy("event_idx=off,indirect_desc=off");
	ck_assert_uint_eq(vdrv_features(&drv), BIT64(0) | BIT64(41) | BIT64(32));
}
END_TEST

START_TEST(test_status)
{
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(toy->starts, 1);
	/* No bit is cleared but by a reset, and NEEDS_RESET is not the driver's. */
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 1);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 15);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 15 | 0x40);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 15);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 15 | 0x80);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 0x8f);
	ck_assert_uint_eq(toy->starts, 1);
	check_works();
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(toy->stops, 1);
	ck_assert(!toy->vdev.vq[0].enabled);
	/* DRIVER_OK out of the blue */
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 7);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 0x43);
	ck_assert_uint_eq(toy->starts, 1);
}
END_TEST

START_TEST(test_queue_ready_off)
{
	struct vdrv_queue second;

	check_works();
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_READY, 0);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert(!toy->vdev.vq[0].running);
	vdrv_queue(&drv, &second, 1, 4); /* late, but why not */
	q = second;
	check_works();
}
END_TEST

/* --- pause, reset, save ------------------------------------------------------------------------ */

static void *pause_thread(void *arg)
{
	virtio_device_pause(drv.obj);
	*(bool *)arg = true;
	return NULL;
}

/* Pausing waits for what is in flight, takes nothing new, and resuming finds what has come. */
START_TEST(test_pause)
{
	pthread_t thread;
	bool paused = false;

	teardown();
	open_toy("hold=on");
	ready(EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	vdrv_add(&q, &buf, 1, NULL, 0);
	vdrv_add(&q, &buf, 1, NULL, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 2);
	pthread_create(&thread, NULL, pause_thread, &paused);
	VDRV_UNTIL(READ_ONCE(toy->vdev.vq[0].draining));
	vdrv_add(&q, &buf, 1, NULL, 0);
	usleep(10000);
	ck_assert(!READ_ONCE(paused));
	ck_assert_uint_eq(vdrv_used_idx(&q), 0);
	loop_call(drv.vm->io_loop, toy_complete_one, toy);
	vdrv_settle(&drv);
	usleep(10000);
	ck_assert(!READ_ONCE(paused));
	ck_assert_uint_eq(vdrv_used_idx(&q), 1);
	loop_call(drv.vm->io_loop, toy_complete, toy);
	pthread_join(thread, NULL);
	ck_assert(paused);
	ck_assert_uint_eq(vdrv_used_idx(&q), 2);
	ck_assert_uint_eq(toy->vdev.isr, 1); /* raised by then */
	ck_assert_uint_eq(toy->vdev.vq[0].inflight, 0);
	vdrv_settle(&drv);
	ck_assert_uint_eq(toy->nheld, 0);
	toy->hold = false;
	virtio_device_resume(drv.obj);
	VDRV_UNTIL(vdrv_used_idx(&q) == 3);
	ck_assert_uint_eq(toy->starts, 1);
	ck_assert_uint_eq(toy->stops, 0);
	vdrv_kick(&q);
	q.last_used = 3;
	check_works();
}
END_TEST

/* Buffers that only lie there are given back, and taken again. */
START_TEST(test_idle_buffers)
{
	teardown();
	open_toy("idle=on");
	ready(EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	for (int i = 0; i < 5; i++)
		vdrv_add(&q, NULL, 0, &buf, 1);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 5);
	virtio_device_pause(drv.obj);
	ck_assert_uint_eq(toy->vdev.vq[0].inflight, 0);
	ck_assert_uint_eq(toy->vdev.vq[0].last_avail, 0);
	ck_assert_uint_eq(vdrv_used_idx(&q), 0);
	virtio_device_resume(drv.obj);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 5);
	vdrv_settle(&drv);
	ck_assert_uint_eq(toy->held[0].head, 0);
	ck_assert_uint_eq(toy->held[4].head, 4);
}
END_TEST

static void *reset_thread(void *arg)
{
	struct bus_reader mmio;

	bus_reader_init(&mmio, &drv.vm->mmio);
	bus_write(&mmio, drv.base + VIRTIO_MMIO_STATUS, 0, 4);
	bus_reader_free(&mmio);
	*(bool *)arg = true;
	return NULL;
}

START_TEST(test_reset_in_flight)
{
	pthread_t thread;
	bool done = false;

	teardown();
	open_toy("hold=on");
	ready(EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	vdrv_add(&q, &buf, 1, NULL, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 1);
	pthread_create(&thread, NULL, reset_thread, &done);
	VDRV_UNTIL(READ_ONCE(toy->vdev.vq[0].draining));
	usleep(10000);
	ck_assert(!READ_ONCE(done));
	loop_call(drv.vm->io_loop, toy_complete, toy);
	pthread_join(thread, NULL);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 0);
	ck_assert_uint_eq(toy->stops, 1);
	ck_assert_uint_eq(toy->vdev.isr, 0);
	toy->hold = false;
	ready(EVENT_IDX);
	check_works();
}
END_TEST

/* Save one device, load it into another that lies over the same memory contents. */
START_TEST(test_save_load)
{
	struct state_buf state = {0};
	struct hako_error err;
	struct vdrv old;
	size_t len;

	for (int i = 0; i < 5; i++)
		check_works();
	buf = vdrv_buf(&drv, 8);
	virtio_device_pause(drv.obj);
	vdrv_add(&q, &buf, 1, NULL, 0); /* waits in the ring */
	ck_assert_int_eq(state_save(&state, &toy_state, toy, &err), 0);
	old = drv;
	open_toy(NULL);
	memcpy(vdrv_ptr(&drv, 0, RAM), memory_ptr(&old.vm->mem, 0, RAM), RAM);
	drv.heap = old.heap;
	vdrv_close(&old);
	len = state.len;
	state = (struct state_buf){.data = state.data, .len = len};
	ck_assert_msg(state_load(&state, &toy_state, toy, &err) == 0, "%s", err.message);
	q.drv = &drv;
	q.desc = vdrv_ptr(&drv, q.desc_gpa, 16 * QSIZE);
	q.avail = vdrv_ptr(&drv, q.avail_gpa, 6 + 2 * QSIZE);
	q.used = vdrv_ptr(&drv, q.used_gpa, 6 + 8 * QSIZE);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(toy->starts, 0);
	ck_assert(toy->vdev.paused);
	virtio_device_resume(drv.obj);
	ck_assert_uint_eq(toy->starts, 1);
	ck_assert(vdrv_wait(&q, NULL, NULL));
	ck_assert_uint_eq(toy->handled, 1);
	check_works();
	free(state.data);
}
END_TEST

/* A stream with a byte changed is refused or harmless. */
START_TEST(test_load_hostile)
{
	struct state_buf state = {0}, load;
	struct hako_error err;
	unsigned int refused = 0;

	check_works();
	virtio_device_pause(drv.obj);
	ck_assert_int_eq(state_save(&state, &toy_state, toy, &err), 0);
	for (size_t i = 0; i < state.len; i++) {
		uint8_t was = state.data[i];

		state.data[i] ^= 1 << (i % 8);
		load = (struct state_buf){.data = state.data, .len = state.len};
		virtio_device_reset(drv.obj);
		if (state_load(&load, &toy_state, toy, &err))
			refused++;
		else
			virtio_device_resume(drv.obj);
		virtio_device_pause(drv.obj);
		state.data[i] = was;
	}
	ck_assert_uint_gt(refused, state.len / 2);
	virtio_device_reset(drv.obj);
	virtio_device_resume(drv.obj);
	ready(0);
	check_works();
	state_buf_free(&state);
}
END_TEST

/* --- buffers ----------------------------------------------------------------------------------- */

START_TEST(test_iov)
{
	char a[4] = "abcd", b[1] = "e", c[5] = "fghij", out[16] = {0};
	struct iovec iov[] = {{a, 4}, {b, 1}, {c, 5}}, *p = iov;

	ck_assert_uint_eq(iov_read(iov, 3, 0, out, 16), 10);
	ck_assert_mem_eq(out, "abcdefghij", 10);
	ck_assert_uint_eq(iov_read(iov, 3, 3, out, 4), 4);
	ck_assert_mem_eq(out, "defg", 4);
	ck_assert_uint_eq(iov_read(iov, 3, 10, out, 4), 0);
	ck_assert_uint_eq(iov_read(iov, 3, SIZE_MAX, out, 4), 0);
	ck_assert_uint_eq(iov_write(iov, 3, 9, "XYZ", 3), 1);
	ck_assert_int_eq(c[4], 'X');
	ck_assert_uint_eq(iov_skip(&p, 3, 4), 2);
	ck_assert_ptr_eq(p->iov_base, b);
	ck_assert_uint_eq(iov_skip(&p, 2, 3), 1);
	ck_assert_ptr_eq(p->iov_base, c + 2);
	ck_assert_uint_eq(p->iov_len, 3);
	ck_assert_uint_eq(iov_skip(&p, 1, 99), 0);
}
END_TEST

/* --- fuzz -------------------------------------------------------------------------------------- */

static uint64_t seed;

static uint32_t rnd(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed >> 16;
}

/* Mostly plausible, sometimes not. */
static void scribble(void)
{
	uint16_t i = rnd() % QSIZE;

	switch (rnd() % 8) {
	case 0:
		q.avail->idx = rnd();
		break;
	case 1:
		q.avail->ring[i] = rnd() % (QSIZE + 1);
		break;
	case 2:
		q.desc[i].addr = (uint64_t)rnd() << (rnd() % 33);
		break;
	case 3:
		q.desc[i].len = rnd() >> (rnd() % 32);
		break;
	case 4:
		q.desc[i].flags = rnd() % 8;
		break;
	case 5:
		q.desc[i].next = rnd() % (QSIZE + 1);
		break;
	default: /* a chain that is good */
		vdrv_desc(&q, i, VDRV_HEAP * 4, 1 + rnd() % 64, rnd() % 2 ? VRING_DESC_F_WRITE : 0,
			  0);
		q.avail->ring[q.avail->idx % QSIZE] = i;
		q.avail->idx++;
	}
}

/* The rings change while the device reads them; the sanitizers watch. */
START_TEST(test_fuzz_rings)
{
	seed = 0x9e3779b97f4a7c15 + _i;
	for (int round = 0; round < 40; round++) {
		ready(rnd() % 2 ? EVENT_IDX | INDIRECT : 0);
		for (int i = 0; i < 400; i++) {
			scribble();
			if (rnd() % 4 == 0)
				vdrv_kick(&q);
		}
		if (rnd() % 4 == 0) {
			virtio_device_pause(drv.obj);
			virtio_device_resume(drv.obj);
		}
	}
	ready(0);
	check_works();
}
END_TEST

static void setup_threads(void)
{
	vdrv_engine = LOOP_THREADS;
	setup();
}

static TCase *make_case(const char *name, void (*fixture)(void))
{
	TCase *tc = tcase_create(name);

	tcase_add_checked_fixture(tc, fixture, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_direct);
	tcase_add_test(tc, test_wrap);
	tcase_add_test(tc, test_indirect);
	tcase_add_test(tc, test_indirect_unaligned);
	tcase_add_test(tc, test_interrupt_event_idx);
	tcase_add_test(tc, test_interrupt_flag);
	tcase_add_test(tc, test_doorbell_event_idx);
	tcase_add_test(tc, test_doorbell_flag);
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, test_total);
	tcase_add_test(tc, test_indirect_not_negotiated);
	tcase_add_test(tc, test_more_than_queue);
	tcase_add_test(tc, test_flood);
	tcase_add_loop_test(tc, test_rings, 0, ARRAY_SIZE(rings));
	tcase_add_test(tc, test_features);
	tcase_add_test(tc, test_features_off);
	tcase_add_test(tc, test_status);
	tcase_add_test(tc, test_queue_ready_off);
	tcase_add_test(tc, test_pause);
	tcase_add_test(tc, test_idle_buffers);
	tcase_add_test(tc, test_reset_in_flight);
	tcase_add_test(tc, test_save_load);
	tcase_add_test(tc, test_load_hostile);
	tcase_add_test(tc, test_iov);
	tcase_add_loop_test(tc, test_fuzz_rings, 0, 4);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("virtq");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, make_case("all", setup));
	suite_add_tcase(s, make_case("without io_uring", setup_threads));
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
