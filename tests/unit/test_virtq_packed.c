/* SPDX-License-Identifier: GPL-2.0-only */
/* Packed virtqueues (virtio 1.2, 2.8): their layout, notifications, and drivers that break the rules. */
#include "virtio_toy.h"

#define ENABLE	VRING_PACKED_EVENT_FLAG_ENABLE
#define DISABLE VRING_PACKED_EVENT_FLAG_DISABLE
#define DESC	VRING_PACKED_EVENT_FLAG_DESC
#define WRAP	0x8000
#define AVAIL	(1 << VRING_PACKED_DESC_F_AVAIL)
#define USED	(1 << VRING_PACKED_DESC_F_USED)

static void open_packed(const char *options, uint64_t features)
{
	teardown();
	open_toy(options);
	ready(features);
}

/* --- the ring ------------------------------------------------------------------------------------ */

/* Bit by bit: chains of 2 and 1 descriptors, twice around a ring of 3. */
START_TEST(test_layout)
{
	struct vdrv_buf out = vdrv_buf(&drv, 4), in = vdrv_buf(&drv, 4);

	ready(0);
	ck_assert(vdrv_negotiate(&drv, 0));
	vdrv_queue(&drv, &q, 0, 3);
	vdrv_go(&drv);
	for (int lap = 0; lap < 4; lap++) {
		uint16_t avail = lap & 1 ? USED : AVAIL, used = lap & 1 ? 0 : AVAIL | USED;

		q.ring[0] = (struct vring_packed_desc){out.gpa, 4, 7, 0};
		q.ring[1] = (struct vring_packed_desc){in.gpa, 4, 0xfffe,
						       VRING_DESC_F_WRITE | avail};
		__atomic_store_n(&q.ring[0].flags, VRING_DESC_F_NEXT | avail, __ATOMIC_RELEASE);
		vdrv_kick(&q);
		VDRV_UNTIL(READ_ONCE(q.ring[0].flags) == (VRING_DESC_F_WRITE | used));
		ck_assert_uint_eq(q.ring[0].id, 0xfffe); /* any 16 bits, from the last descriptor */
		ck_assert_uint_eq(q.ring[0].len, 4);
		ck_assert_uint_eq(q.ring[1].flags, VRING_DESC_F_WRITE | avail);
		q.ring[2] = (struct vring_packed_desc){out.gpa, 4, 5, lap & 1 ? 0 : 0};
		__atomic_store_n(&q.ring[2].flags, avail, __ATOMIC_RELEASE);
		vdrv_kick(&q);
		VDRV_UNTIL(READ_ONCE(q.ring[2].flags) == used); /* nothing written */
		ck_assert_uint_eq(q.ring[2].id, 5);
	}
	ck_assert_uint_eq(toy->handled, 8);
}
END_TEST

static void complete(void *arg)
{
	const unsigned int *which = arg;

	virtq_push(&toy->vdev.vq[0], toy->held[*which].head, 0);
}

/* Used in another order than made available, with chains of several lengths. */
START_TEST(test_order)
{
	static const unsigned int order[] = {2, 0, 3, 1};
	struct vdrv_buf b[4];
	uint32_t id;

	open_packed("hold=on", EVENT_IDX);
	for (int i = 0; i < 4; i++)
		b[i] = vdrv_buf(&drv, 8);
	for (int round = 0; round < 40; round++) {
		uint16_t ids[4];

		for (int i = 0; i < 4; i++)
			ids[i] = vdrv_add(&q, b, 1 + i, NULL, 0);
		vdrv_kick(&q);
		VDRV_UNTIL(READ_ONCE(toy->nheld) == 4);
		for (int i = 0; i < 4; i++) {
			unsigned int which = order[i];

			loop_call(drv.vm->io_loop, complete, &which);
			ck_assert(vdrv_wait(&q, &id, NULL));
			ck_assert_uint_eq(id, ids[which]);
		}
		vdrv_settle(&drv);
		toy->nheld = 0;
	}
}
END_TEST

static void push_three(void *arg)
{
	struct virtqueue *vq = &toy->vdev.vq[0];
	bool *seen = arg;

	for (int i = 0; i < 3; i++)
		virtq_push(vq, toy->held[i].head, 0);
	seen[0] = vdrv_used_idx(&q) != q.last_used;
	virtq_flush(vq);
	seen[1] = vdrv_used_idx(&q) == (uint16_t)(q.last_used + 3);
	toy->nheld = 0;
}

/* 2.8.9: of what is used together the driver sees all or nothing. */
START_TEST(test_batch)
{
	bool seen[2];

	open_packed("hold=on", EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 3; i++)
			vdrv_add(&q, &buf, 1, NULL, 0);
		vdrv_kick(&q);
		VDRV_UNTIL(READ_ONCE(toy->nheld) == 3);
		loop_call(drv.vm->io_loop, push_three, seen);
		ck_assert(!seen[0]);
		ck_assert(seen[1]);
		while (vdrv_take(&q, NULL, NULL))
			;
		ck_assert_uint_eq(q.last_used, 3 * round + 3);
	}
}
END_TEST

/* One descriptor for the table; in it no flag counts but WRITE, and no id (2.8.7). */
static void post_indirect(uint64_t gpa, uint32_t len, uint16_t flags)
{
	uint16_t id = vdrv_packed_id(&q, 1), at = q.next;

	flags = vdrv_packed_desc(&q, gpa, len, id, VRING_DESC_F_INDIRECT | flags, true);
	vdrv_packed_post(&q, at, flags);
	vdrv_kick(&q);
}

static void table_entry(struct vdrv_buf table, unsigned int i, struct vdrv_buf b, uint16_t flags)
{
	struct vring_packed_desc d = {b.gpa, b.len, 0x4321, flags};

	/* Not aligned, perhaps. */
	memcpy((char *)vdrv_ptr(&drv, table.gpa, table.len) + 16 * i, &d, 16);
}

START_TEST(test_indirect)
{
	struct vdrv_buf out = vdrv_buf(&drv, 1), more = vdrv_buf(&drv, 2), in = vdrv_buf(&drv, 4);
	struct vdrv_buf room = vdrv_buf(&drv, 64), table = {room.gpa + 3, 3 * 16};
	uint32_t len;

	memcpy(vdrv_ptr(&drv, out.gpa, 1), "1", 1);
	memcpy(vdrv_ptr(&drv, more.gpa, 2), "23", 2);
	table_entry(table, 0, out, 0);
	table_entry(table, 1, more, VRING_DESC_F_INDIRECT | AVAIL);
	table_entry(table, 2, in, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT | USED);
	post_indirect(table.gpa, table.len, VRING_DESC_F_WRITE);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 3);
	ck_assert_mem_eq(vdrv_ptr(&drv, in.gpa, 4), "321\0", 4);
	check_works();
}
END_TEST

/* --- notifications ------------------------------------------------------------------------------- */

static void wish(uint16_t flags, uint16_t place)
{
	*q.driver_event = (struct vring_packed_desc_event){place, flags};
}

static bool interrupted(void)
{
	check_works();
	return take_isr();
}

/* Each check_works() takes two descriptors of a ring of 16: eight to a lap. */
START_TEST(test_interrupt_event)
{
	unsigned int n = 0;

	wish(DESC, 0 | WRAP);
	ck_assert(interrupted());
	ck_assert(!interrupted()); /* 2.8.10: that place has passed */
	wish(DESC, 6 | WRAP);
	ck_assert(!interrupted()); /* 4 */
	ck_assert(interrupted());  /* 6 */
	wish(DESC, 9 | WRAP);	   /* within the chain that is used at 8 */
	ck_assert(interrupted());
	wish(DESC, 2); /* in the lap that comes */
	for (int i = 10; i < 16; i += 2)
		ck_assert(!interrupted());
	ck_assert(!interrupted()); /* 0 */
	ck_assert(interrupted());  /* 2 */
	wish(DESC, 4 | WRAP);	   /* of the lap that was */
	ck_assert(!interrupted());
	for (int i = 0; i < 64; i++) {
		wish(DESC, toy->vdev.vq[0].used_idx);
		n += interrupted();
	}
	ck_assert_uint_eq(n, 64);
}
END_TEST

START_TEST(test_interrupt_flags)
{
	for (int event_idx = 0; event_idx < 2; event_idx++) {
		ready(event_idx ? EVENT_IDX : 0);
		check_works();
		take_isr();
		wish(ENABLE, 0);
		ck_assert(interrupted());
		wish(DISABLE, 0);
		ck_assert(!interrupted());
		wish(3, 0); /* reserved: better too many than too few */
		ck_assert(interrupted());
		wish(DESC, 0 | WRAP); /* has passed, but means nothing without EVENT_IDX */
		ck_assert_int_eq(interrupted(), !event_idx);
	}
}
END_TEST

/* Once the ring is empty the device asks to be told of the next chain. */
START_TEST(test_doorbell_event)
{
	for (unsigned int i = 0; i < 20; i++) {
		vdrv_settle(&drv);
		ck_assert_uint_eq(READ_ONCE(q.device_event->flags), DESC);
		ck_assert_uint_eq(READ_ONCE(q.device_event->off_wrap),
				  2 * i % 16 | (2 * i / 16 % 2 ? 0 : WRAP));
		check_works();
	}
}
END_TEST

static void switch_kick(void *arg)
{
	bool *on = arg;

	if (*on)
		*on = virtq_enable_kick(&toy->vdev.vq[0]);
	else
		virtq_disable_kick(&toy->vdev.vq[0]);
}

START_TEST(test_doorbell_flags)
{
	struct vdrv_buf in = vdrv_buf(&drv, 1);
	bool on = false;

	ready(_i ? EVENT_IDX : 0);
	ck_assert_uint_eq(READ_ONCE(q.device_event->flags), _i ? DESC : ENABLE);
	loop_call(drv.vm->io_loop, switch_kick, &on);
	ck_assert_uint_eq(READ_ONCE(q.device_event->flags), DISABLE);
	vdrv_add(&q, NULL, 0, &in, 1);
	on = true;
	loop_call(drv.vm->io_loop, switch_kick, &on);
	ck_assert_uint_eq(READ_ONCE(q.device_event->flags), _i ? DESC : ENABLE);
	ck_assert(on);
}
END_TEST

/* --- rings that can and can not be --------------------------------------------------------------- */

/* The size need not be a power of 2. */
START_TEST(test_sizes)
{
	static const uint16_t sizes[] = {2, 3, 5, 7, 12, 15, 16};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		drv.heap = VDRV_HEAP;
		ck_assert(vdrv_negotiate(&drv, EVENT_IDX));
		vdrv_queue(&drv, &q, 0, sizes[i]);
		vdrv_go(&drv);
		for (int n = 0; n < 50; n++)
			check_works();
	}
	ck_assert(!vdrv_needs_reset(&drv));
}
END_TEST

static const struct {
	uint64_t desc, driver, device;
	uint16_t size;
	bool good;
} rings[] = {
	{0x1000, 0x2000, 0x3000, 16, true},
	{0x1000, 0x2004, 0x3004, 13, true},
	{0x1000, 0x2000, 0x3000, 1, true},
	{RAM - 256, 0x2000, 0x3000, 16, true},
	{RAM - 240, 0x2000, 0x3000, 16, false},
	{0x1000, RAM - 4, 0x3000, 16, true},
	{0x1000, RAM, 0x3000, 16, false},
	{0x1000, 0x2000, RAM - 4, 16, true},
	{0x1000, 0x2000, RAM, 16, false},
	{0x1008, 0x2000, 0x3000, 16, false},
	{0x1000, 0x2002, 0x3000, 16, false},
	{0x1000, 0x2000, 0x3002, 16, false},
	{0x1000, 0x2000, 0x3000, 0, false},
	{0x1000, 0x2000, 0x3000, 17, false},
	{0x1000, 0x2000, 0x3000, 0x8000, false},
	{UINT64_MAX - 15, 0x2000, 0x3000, 16, false},
	{0x1000, UINT64_MAX - 3, 0x3000, 16, false},
};

START_TEST(test_rings)
{
	ck_assert(vdrv_negotiate(&drv, 0));
	q = (struct vdrv_queue){
		.drv = &drv,
		.size = rings[_i].size,
		.desc_gpa = rings[_i].desc,
		.avail_gpa = rings[_i].driver,
		.used_gpa = rings[_i].device,
	};
	ck_assert_int_eq(vdrv_queue_enable(&q), rings[_i].good);
	ck_assert_int_eq(vdrv_needs_reset(&drv), !rings[_i].good);
	vdrv_go(&drv);
	vdrv_settle(&drv);
	ck_assert_int_eq(toy->vdev.vq[0].running, rings[_i].good);
}
END_TEST

/* A saved place that is not in the ring. */
START_TEST(test_load_place)
{
	struct state_buf state = {0}, load;
	struct hako_error err;

	virtio_device_pause(drv.obj);
	if (_i)
		toy->vdev.vq[0].used_idx = QSIZE;
	else
		toy->vdev.vq[0].last_avail = WRAP | QSIZE;
	ck_assert_int_eq(state_save(&state, &toy_state, toy, &err), 0);
	virtio_device_reset(drv.obj);
	load = (struct state_buf){.data = state.data, .len = state.len};
	ck_assert_int_eq(state_load(&load, &toy_state, toy, &err), -EBADMSG);
	virtio_device_reset(drv.obj);
	state_buf_free(&state);
}
END_TEST

/* --- bad drivers --------------------------------------------------------------------------------- */

static struct vdrv_buf table;

/* A descriptor that is available, whatever comes behind it. */
static void put(uint16_t i, uint64_t addr, uint32_t len, uint16_t flags)
{
	uint16_t at = (q.next + i) % QSIZE;

	q.ring[at] = (struct vring_packed_desc){addr, len, i, flags | vdrv_avail_flags(&q)};
}

static void bad_outside(void)
{
	put(0, RAM, 16, 0);
}

static void bad_across_end(void)
{
	put(0, RAM - 8, 16, VRING_DESC_F_WRITE);
}

static void bad_wraps(void)
{
	put(0, UINT64_MAX - 7, 16, VRING_DESC_F_WRITE);
}

static void bad_huge(void)
{
	put(0, 0, UINT32_MAX, VRING_DESC_F_WRITE);
}

static void bad_empty(void)
{
	put(0, buf.gpa, 0, 0);
}

static void bad_order(void)
{
	put(1, buf.gpa, 8, 0);
	put(0, buf.gpa, 8, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT);
}

/* Round and round. */
static void bad_endless(void)
{
	for (int i = QSIZE - 1; i >= 0; i--)
		put(i, buf.gpa, 8, VRING_DESC_F_NEXT);
}

static void bad_indirect_len(void)
{
	put(0, table.gpa, 24, VRING_DESC_F_INDIRECT);
}

static void bad_indirect_empty(void)
{
	put(0, table.gpa, 0, VRING_DESC_F_INDIRECT);
}

static void bad_indirect_next(void)
{
	table_entry(table, 0, buf, 0);
	put(1, buf.gpa, 8, 0);
	put(0, table.gpa, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT);
}

static void bad_indirect_last(void)
{
	table_entry(table, 0, buf, 0);
	put(1, table.gpa, 16, VRING_DESC_F_INDIRECT);
	put(0, buf.gpa, 8, VRING_DESC_F_NEXT);
}

static void bad_indirect_outside(void)
{
	put(0, RAM - 16, 32, VRING_DESC_F_INDIRECT);
}

static void bad_indirect_gap(void)
{
	put(0, 1ull << 40, 0xfffffff0, VRING_DESC_F_INDIRECT);
}

static void bad_indirect_entry(void)
{
	table_entry(table, 0, buf, 0);
	table_entry(table, 1, (struct vdrv_buf){RAM, 1}, 0);
	put(0, table.gpa, 32, VRING_DESC_F_INDIRECT);
}

/* The device type has room for 64 buffers. */
static void bad_many(void)
{
	for (uint16_t i = 0; i < 80; i++)
		table_entry(table, i, buf, 0);
	put(0, table.gpa, 80 * 16, VRING_DESC_F_INDIRECT);
}

static void (*const bad[])(void) = {
	bad_outside,	    bad_across_end,	bad_wraps,	   bad_huge,
	bad_empty,	    bad_order,		bad_endless,	   bad_indirect_len,
	bad_indirect_empty, bad_indirect_next,	bad_indirect_last, bad_indirect_outside,
	bad_indirect_gap,   bad_indirect_entry, bad_many,
};

START_TEST(test_bad)
{
	buf = vdrv_buf(&drv, 64);
	table = vdrv_buf(&drv, 4096);
	for (int i = 0; i < 7; i++) /* the ring's end is near */
		check_works();
	take_isr();
	bad[_i]();
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	ck_assert_uint_eq(take_isr() & 2, 2);
	ck_assert_uint_eq(vdrv_used_idx(&q), 7);
	vdrv_kick(&q);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&q), 7);
	ready(EVENT_IDX | INDIRECT);
	ck_assert(!vdrv_needs_reset(&drv));
	check_works();
}
END_TEST

START_TEST(test_indirect_not_negotiated)
{
	ready(0);
	table = vdrv_buf(&drv, 16);
	table_entry(table, 0, table, 0);
	post_indirect(table.gpa, 16, 0);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
}
END_TEST

/* Available once more before it has been used: never more in flight than the queue has. */
START_TEST(test_more_than_queue)
{
	open_packed("hold=on", 0);
	buf = vdrv_buf(&drv, 8);
	for (int i = 0; i < QSIZE; i++)
		vdrv_add(&q, &buf, 1, NULL, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == QSIZE);
	ck_assert(!vdrv_needs_reset(&drv));
	put(0, buf.gpa, 8, 0); /* q.wrap has changed */
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	ck_assert_uint_eq(toy->nheld, QSIZE);
	loop_call(drv.vm->io_loop, toy_complete, toy);
}
END_TEST

START_TEST(test_flood)
{
	open_packed("flood=on", EVENT_IDX);
	buf = vdrv_buf(&drv, 8);
	for (uint16_t i = 0; i < QSIZE; i++)
		q.ring[i] = (struct vring_packed_desc){buf.gpa, 8, i, 0};
	put(0, buf.gpa, 8, 0);
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

/* Features that change between a queue's enabling and FEATURES_OK: the driver's loss. */
START_TEST(test_late_features)
{
	for (int i = 0; i < 2; i++) {
		uint64_t first = i ? 0 : PACKED, then = i ? PACKED : 0;

		vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
		vdrv_write(&drv, VIRTIO_MMIO_STATUS, 3);
		vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
		vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES, (first | BIT64(32)) >> 32);
		vdrv_queue(&drv, &q, 0, QSIZE);
		buf = vdrv_buf(&drv, 8);
		for (uint16_t n = 0; n < QSIZE; n++)
			put(n, buf.gpa, 8, 0);
		vdrv_write(&drv, VIRTIO_MMIO_DRIVER_FEATURES, (then | BIT64(32)) >> 32);
		vdrv_write(&drv, VIRTIO_MMIO_STATUS, 11);
		vdrv_go(&drv);
		vdrv_kick(&q);
		vdrv_settle(&drv);
		ready(0);
		check_works();
	}
}
END_TEST

/* --- fuzz ---------------------------------------------------------------------------------------- */

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
	struct vring_packed_desc *d = &q.ring[rnd() % QSIZE];
	uint16_t place = toy->vdev.vq[0].last_avail;

	switch (rnd() % 8) {
	case 0:
		d->addr = (uint64_t)rnd() << (rnd() % 33);
		break;
	case 1:
		d->len = rnd() >> (rnd() % 32);
		break;
	case 2:
		d->flags = rnd();
		break;
	case 3:
		*q.driver_event = (struct vring_packed_desc_event){rnd(), rnd() % 4};
		break;
	default: /* a chain that is good, where the device looks */
		d = &q.ring[(place & 0x7fff) % QSIZE];
		d->addr = VDRV_HEAP * 4;
		d->len = 1 + rnd() % 64;
		d->id = rnd();
		WRITE_ONCE(d->flags, (place & WRAP ? AVAIL : USED) |
					     (rnd() % 2 ? VRING_DESC_F_WRITE : 0) |
					     (rnd() % 8 ? 0 : VRING_DESC_F_NEXT));
	}
}

/* The ring changes while the device reads it; the sanitizers watch. */
START_TEST(test_fuzz_ring)
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
	tcase_add_test(tc, test_layout);
	tcase_add_test(tc, test_order);
	tcase_add_test(tc, test_batch);
	tcase_add_test(tc, test_indirect);
	tcase_add_test(tc, test_interrupt_event);
	tcase_add_test(tc, test_interrupt_flags);
	tcase_add_test(tc, test_doorbell_event);
	tcase_add_loop_test(tc, test_doorbell_flags, 0, 2);
	tcase_add_test(tc, test_sizes);
	tcase_add_loop_test(tc, test_rings, 0, ARRAY_SIZE(rings));
	tcase_add_loop_test(tc, test_load_place, 0, 2);
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, test_indirect_not_negotiated);
	tcase_add_test(tc, test_more_than_queue);
	tcase_add_test(tc, test_flood);
	tcase_add_test(tc, test_late_features);
	tcase_add_loop_test(tc, test_fuzz_ring, 0, 4);
}

int main(void)
{
	vdrv_packed = true;
	return toy_main("virtq-packed", add, NULL);
}
