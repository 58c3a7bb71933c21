/* SPDX-License-Identifier: GPL-2.0-only */
/* A device type for tests of queues, and the fixture around it: a driver, one queue, and the way back. */
#ifndef TESTS_UNIT_VIRTIO_TOY_H
#define TESTS_UNIT_VIRTIO_TOY_H

#include "virtq_driver.h"

#define RAM	  (16 * MiB)
#define QSIZE	  16
#define PACKED	  VDRV_PACKED
#define EVENT_IDX BIT64(VIRTIO_RING_F_EVENT_IDX)
#define INDIRECT  BIT64(VIRTIO_RING_F_INDIRECT_DESC)

/* --- a device that returns what it is given, upside down ----------------------------------------- */

struct toy {
	struct virtio_device vdev;
	bool hold;  /* keep requests until toy_release() */
	bool idle;  /* take requests only to have buffers, and give them back at a drain */
	bool flood; /* the driver makes every chain available again at once */
	struct virtq_chain held[QSIZE];
	unsigned int nheld, starts, stops, handled, resets;
	struct loop_msg release_late; /* once a drain has begun */
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

/* The driver makes the next chain available before this one has been used. */
static void toy_flood(struct virtqueue *vq)
{
	struct vring_packed_desc *d = &vq->packed_desc[vq->last_avail & 0x7fff];

	if (!vq->packed) {
		vq->avail->idx++;
		return;
	}
	virtq_flush(vq);
	d->len = 8;
	d->flags = 1 << (vq->last_avail & 0x8000 ? 7 : 15);
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
			toy_flood(vq);
	}
}

static void toy_complete(void *arg)
{
	struct toy *toy = arg;

	while (toy->nheld)
		virtq_push(&toy->vdev.vq[0], toy->held[--toy->nheld].head, 0);
}

static void toy_release_late(struct loop_msg *msg)
{
	struct toy *toy = container_of(msg, struct toy, release_late);

	if (toy->vdev.vq[0].draining)
		toy_complete(toy);
	else
		loop_post(toy->vdev.vq[0].loop, msg);
}

static void toy_queue_reset(struct virtqueue *vq)
{
	ck_assert(!vq->running);
	container_of(vq->vdev, struct toy, vdev)->resets++;
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
	.queue_reset = toy_queue_reset,
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
	int r;

	toy->release_late.fn = toy_release_late;
	r = virtio_device_init(&toy->vdev, toy->idle ? &toy_idle_ops : &toy_ops, 2, QSIZE, err);

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
static struct vdrv_buf buf; /* each test's own */
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

/* What the device has raised since the last time. */
static uint32_t take_isr(void)
{
	uint32_t isr;

	vdrv_settle(&drv);
	isr = vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS);
	vdrv_write(&drv, VIRTIO_MMIO_INTERRUPT_ACK, isr);
	return isr;
}

/* Entry @i of an indirect table. */
static inline void indirect(struct vdrv_buf table, unsigned int i, struct vdrv_buf b,
			    uint16_t flags, uint16_t next)
{
	struct vring_desc *d = vdrv_ptr(&drv, table.gpa, table.len);

	d[i] = (struct vring_desc){b.gpa, b.len, flags, next};
}

static void setup_packed(void)
{
	vdrv_packed = true;
	setup();
}

static void setup_threads(void)
{
	vdrv_engine = LOOP_THREADS;
	setup();
}

/* Run the tests that @add adds on both engines of the loop, and those of @add_packed with packed rings; main()'s result. */
static int toy_main(const char *name, void (*add)(TCase *tc), void (*add_packed)(TCase *tc))
{
	Suite *s = suite_create(name);
	TCase *tc = tcase_create("all"), *threads = tcase_create("without io_uring");
	TCase *packed = tcase_create("packed");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_checked_fixture(threads, setup_threads, teardown);
	tcase_set_timeout(tc, 60);
	tcase_set_timeout(threads, 60);
	tcase_add_checked_fixture(packed, setup_packed, teardown);
	tcase_set_timeout(packed, 60);
	add(tc);
	add(threads);
	if (add_packed)
		add_packed(packed);
	suite_add_tcase(s, tc);
	suite_add_tcase(s, packed);
	suite_add_tcase(s, threads);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

#endif
