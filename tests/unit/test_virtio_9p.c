/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-9p: the order of answers, pausing, and drivers that break the rules. */
#include "virtq_driver.h"

#include "tests/unit/p9_test.h"

#define QSIZE 16

static struct vdrv drv;
static struct vdrv_queue q;

static void open_device(void)
{
	struct hako_error e;
	char text[512];

	make_base();
	vdrv_new(&drv, 16 * MiB);
	vm = drv.vm;
	snprintf(text, sizeof(text), "id=fs,path=%s/share", base);
	fs = (struct fsdev *)make(CLASS_FSDEV, "local", text);
	ck_assert_msg(vdrv_device(&drv, "virtio-9p-device", "fsdev=fs,mount_tag=tag", &e) == 0,
		      "%s", e.message);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_DEVICE_ID), 9);
	ck_assert(vdrv_features(&drv) & 1);
	ck_assert(vdrv_negotiate(&drv, 1));
	ck_assert_uint_eq(vdrv_config(&drv, 0, 2), 3);
	ck_assert_uint_eq(vdrv_config(&drv, 2, 2), 't' | 'a' << 8);
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
}

static void close_device(void)
{
	vdrv_close(&drv);
	remove_base();
}

/* Make a message available; where its answer comes. */
static uint8_t *post(uint8_t type, uint16_t tag, const char *fmt, ...)
{
	static struct p9_msg m;
	struct vdrv_buf out, in = vdrv_buf(&drv, 8192);
	va_list ap;

	va_start(ap, fmt);
	p9_vbuild(&m, type, tag, fmt, ap);
	va_end(ap);
	out = vdrv_buf(&drv, m.len);
	memcpy(vdrv_ptr(&drv, out.gpa, out.len), m.data, m.len);
	vdrv_add(&q, &out, 1, &in, 1);
	return vdrv_ptr(&drv, in.gpa, in.len);
}

/* The next answer's length; its tag. */
static uint32_t expect(const uint8_t *answer, uint8_t type)
{
	uint32_t id, len;

	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_uint_eq(get_le32(answer), len);
	ck_assert_uint_eq(answer[4], type);
	return len;
}

static void begin_session(void)
{
	uint8_t *a = post(P9_TVERSION, 0xffff, "ds", 8192, "9P2000.L");

	vdrv_kick(&q);
	expect(a, P9_TVERSION + 1);
	a = post(P9_TATTACH, 1, "ddssd", 0, NOFID, "", "", 0);
	vdrv_kick(&q);
	expect(a, P9_TATTACH + 1);
}

/* The head of the chain that is made available next. */
static uint16_t next_head(void)
{
	return q.next_desc % QSIZE;
}

START_TEST(flush_comes_behind)
{
	open_device();
	begin_session();
	for (int round = 0; round < 200; round++) {
		uint64_t heap = drv.heap;
		int place[4] = {0};
		uint16_t heads[4];
		uint8_t *a[4];

		/* A request, one that flushes it, one that flushes the flush, one that flushes nothing. */
		heads[0] = next_head();
		a[0] = post(P9_TGETATTR, 5, "dq", 0, 0ull);
		heads[1] = next_head();
		a[1] = post(P9_TFLUSH, 6, "w", 5);
		heads[2] = next_head();
		a[2] = post(P9_TFLUSH, 7, "w", 6);
		heads[3] = next_head();
		a[3] = post(P9_TFLUSH, 8, "w", 99);
		vdrv_kick(&q);
		for (int i = 1; i <= 4; i++) {
			uint32_t id, len;

			ck_assert(vdrv_wait(&q, &id, &len));
			for (int k = 0; k < 4; k++)
				place[k] = heads[k] == id ? i : place[k];
		}
		ck_assert(place[0] && place[0] < place[1] && place[1] < place[2] && place[3]);
		ck_assert_uint_eq(a[0][4], P9_TGETATTR + 1);
		for (int k = 1; k < 4; k++)
			ck_assert_uint_eq(a[k][4], P9_TFLUSH + 1);
		drv.heap = heap;
	}
	close_device();
}
END_TEST

START_TEST(version_is_served_alone)
{
	uint32_t id, len;
	uint8_t *a[6];

	open_device();
	begin_session();
	for (int i = 0; i < 4; i++)
		a[i] = post(P9_TWALK, i, "ddw", 0, 10 + i, 0);
	a[4] = post(P9_TVERSION, 0xffff, "ds", 8192, "9P2000.L");
	a[5] = post(P9_TGETATTR, 9, "dq", 10, 0ull);
	vdrv_kick(&q);
	for (int i = 0; i < 6; i++)
		ck_assert(vdrv_wait(&q, &id, &len));
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(a[i][4], P9_TWALK + 1);
	ck_assert_uint_eq(a[4][4], P9_TVERSION + 1);
	ck_assert_uint_eq(a[5][4], P9_RLERROR); /* the fids have gone */
	ck_assert_uint_eq(fs->nfds, 0);
	close_device();
}
END_TEST

START_TEST(pause_and_reset)
{
	struct state_buf buf = {};
	struct hako_error e;
	uint8_t *a;

	open_device();
	begin_session();
	for (int i = 0; i < 7; i++)
		post(P9_TWALK, i, "ddw", 0, 10 + i, 0);
	vdrv_kick(&q);
	drv.obj->class->pause(drv.obj);
	/* Nothing is in flight, and what was taken has been answered. */
	ck_assert_uint_eq(drv.vdev->vq[0].inflight, 0);
	ck_assert_int_eq(state_save(&buf, drv.obj->class->state, drv.obj, &e), -EBUSY);
	state_buf_free(&buf);
	drv.obj->class->resume(drv.obj);
	for (int i = 0; i < 7; i++) {
		uint32_t id, len;

		ck_assert(vdrv_wait(&q, &id, &len));
	}
	a = post(P9_TGETATTR, 9, "dq", 16, 0ull);
	vdrv_kick(&q);
	expect(a, P9_TGETATTR + 1);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(fs->nfds, 0);
	ck_assert_int_eq(state_save(&buf, drv.obj->class->state, drv.obj, &e), 0);
	state_buf_free(&buf);
	close_device();
}
END_TEST

/* A message and the room for its answer in a table of their own, as Linux has them: one descriptor of the ring. */
static void post_indirect(uint16_t tag)
{
	static struct p9_msg m;
	struct vring_desc *table;
	struct vdrv_buf out, in = vdrv_buf(&drv, 256), t = vdrv_buf(&drv, 2 * sizeof(*table));
	uint16_t head = next_head();

	p9_build(&m, P9_TGETATTR, tag, "dq", 0, 0ull);
	out = vdrv_buf(&drv, m.len);
	memcpy(vdrv_ptr(&drv, out.gpa, out.len), m.data, m.len);
	table = vdrv_ptr(&drv, t.gpa, t.len);
	table[0] = (struct vring_desc){out.gpa, out.len, VRING_DESC_F_NEXT, 1};
	table[1] = (struct vring_desc){in.gpa, in.len, VRING_DESC_F_WRITE, 0};
	vdrv_desc(&q, head, t.gpa, t.len, VRING_DESC_F_INDIRECT, 0);
	q.next_desc++;
	vdrv_post(&q, head);
}

/* The doorbell, if the device has asked for one (2.7.13.4.1). */
static void kick_if_wanted(uint16_t old)
{
	const void *event = &q.used->ring[q.size];

	if (vring_need_event(READ_ONCE(*(const uint16_t *)event), q.avail_idx, old))
		vdrv_kick(&q);
}

/* As many requests as the ring has, all in hand; and then one more. */
START_TEST(full_ring)
{
	uint16_t size, old;
	uint32_t id, len;

	open_device();
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert(vdrv_negotiate(&drv, 1 | BIT64(VIRTIO_RING_F_EVENT_IDX) |
					       BIT64(VIRTIO_RING_F_INDIRECT_DESC)));
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	size = vdrv_read(&drv, VIRTIO_MMIO_QUEUE_NUM_MAX);
	vdrv_queue(&drv, &q, 0, size);
	vdrv_go(&drv);
	begin_session();
	for (int round = 0; round < 5; round++) {
		old = q.avail_idx;
		for (uint16_t i = 0; i < size; i++)
			post_indirect(i);
		kick_if_wanted(old);
		for (uint16_t i = 0; i < size; i++)
			ck_assert_msg(vdrv_wait(&q, &id, &len), "round %d: %u of %u", round, i,
				      size);
	}
	close_device();
}
END_TEST

START_TEST(broken_driver)
{
	struct vdrv_buf out, in;

	open_device();
	begin_session();
	out = vdrv_buf(&drv, 16);
	in = vdrv_buf(&drv, 64);
	vdrv_add(&q, &out, 1, &in, 1); /* of size 0 */
	vdrv_kick(&q);
	for (int i = 0; i < 5000 && !vdrv_needs_reset(&drv); i++)
		usleep(1000);
	ck_assert(vdrv_needs_reset(&drv));
	/* And again from the beginning. */
	ck_assert(vdrv_negotiate(&drv, 1));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
	begin_session();
	close_device();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio-9p");
	TCase *tc = tcase_create("device");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, flush_comes_behind);
	tcase_add_test(tc, version_is_served_alone);
	tcase_add_test(tc, pause_and_reset);
	tcase_add_test(tc, full_ring);
	tcase_add_test(tc, broken_driver);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
