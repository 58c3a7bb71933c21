/* SPDX-License-Identifier: GPL-2.0-only */
/* Drivers that break the rules of split virtqueues (virtio 1.2, 2.7): the device says NEEDS_RESET, and nothing else happens. */
#include "virtio_toy.h"

/* --- bad drivers ------------------------------------------------------------------------------- */

static struct vdrv_buf table;

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

static void add(TCase *tc)
{
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, test_total);
	tcase_add_test(tc, test_indirect_not_negotiated);
	tcase_add_test(tc, test_more_than_queue);
	tcase_add_test(tc, test_flood);
	tcase_add_loop_test(tc, test_rings, 0, ARRAY_SIZE(rings));
	tcase_add_loop_test(tc, test_fuzz_rings, 0, 4);
}

int main(void)
{
	return toy_main("virtq-bad", add, NULL);
}
