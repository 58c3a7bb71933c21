/* SPDX-License-Identifier: GPL-2.0-only */
/* Virtqueues and the device's life, as virtio 1.2 (2.1, 2.2, 2.7, 3.1) has them; packed ones (2.8) also in test_virtq_packed.c. */
#include "virtio_toy.h"

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

/* --- status and features ------------------------------------------------------------------------- */

START_TEST(test_features)
{
	/* What is offered: the device type's, and what rings can do. */
	ck_assert_uint_eq(vdrv_features(&drv),
			  BIT64(0) | BIT64(41) | BIT64(32) | BIT64(40) | EVENT_IDX | INDIRECT);
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
	open_toy("event_idx=off,indirect_desc=off,queue_reset=off");
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

/* 2.6.1: one queue is as new, with a ring of another size, and the other one has seen nothing. */
START_TEST(test_queue_reset)
{
	unsigned int stops = toy->stops + 1;
	struct vdrv_queue second;

	ck_assert(vdrv_negotiate(&drv, EVENT_IDX | BIT64(VIRTIO_F_RING_RESET)));
	vdrv_queue(&drv, &second, 1, QSIZE);
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
	for (int i = 0; i < 5; i++)
		check_works();
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	vdrv_write(&drv, 0xc0, 2);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_READY), 1);
	vdrv_write(&drv, 0xc0, 1);
	ck_assert_uint_eq(vdrv_read(&drv, 0xc0), 0);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_READY), 0);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_STATUS), 15);
	ck_assert_uint_eq(toy->vdev.vq[0].size, QSIZE);
	ck_assert(!toy->vdev.vq[0].running);
	ck_assert_uint_eq(toy->resets, 1);
	vdrv_queue(&drv, &q, 0, QSIZE / 2);
	for (int i = 0; i < 20; i++)
		check_works();
	q = second;
	check_works();
	ck_assert_uint_eq(toy->stops, stops);
}
END_TEST

/* The reset waits for what is in flight. */
START_TEST(test_queue_reset_in_flight)
{
	teardown();
	open_toy("hold=on");
	ready(BIT64(VIRTIO_F_RING_RESET));
	buf = vdrv_buf(&drv, 8);
	vdrv_add(&q, &buf, 1, NULL, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 1);
	loop_post(drv.vm->io_loop, &toy->release_late);
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	vdrv_write(&drv, 0xc0, 1);
	ck_assert_uint_eq(toy->nheld, 0);
	ck_assert_uint_eq(toy->vdev.vq[0].inflight, 0);
	toy->hold = false;
	vdrv_queue(&drv, &q, 0, QSIZE);
	check_works();
}
END_TEST

/* Not negotiated: the register is not there. */
START_TEST(test_queue_reset_off)
{
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 0);
	vdrv_write(&drv, 0xc0, 1);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_READY), 1);
	check_works();
	ck_assert_uint_eq(toy->resets, 0);
}
END_TEST

/* --- pause, reset, save ------------------------------------------------------------------------ */

static void toy_complete_one(void *arg)
{
	virtq_push(&toy->vdev.vq[0], toy->held[--toy->nheld].head, 0);
}

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
	for (int i = 0; i < 3; i++)
		ck_assert(vdrv_take(&q, NULL, NULL));
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
	ck_assert_uint_eq(toy->vdev.vq[0].last_avail, vdrv_packed ? 0x8000 : 0);
	ck_assert_uint_eq(vdrv_used_idx(&q), 0);
	virtio_device_resume(drv.obj);
	VDRV_UNTIL(READ_ONCE(toy->nheld) == 5);
	vdrv_settle(&drv);
	ck_assert_uint_eq(toy->held[0].head.id, 0);
	ck_assert_uint_eq(toy->held[4].head.id, 4);
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
	vdrv_rings_at(&drv, &q);
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

/* What the layout of the rings makes no difference to. */
static void add_both(TCase *tc)
{
	tcase_add_test(tc, test_direct);
	tcase_add_test(tc, test_wrap);
	tcase_add_test(tc, test_status);
	tcase_add_test(tc, test_queue_ready_off);
	tcase_add_test(tc, test_queue_reset);
	tcase_add_test(tc, test_queue_reset_in_flight);
	tcase_add_test(tc, test_queue_reset_off);
	tcase_add_test(tc, test_pause);
	tcase_add_test(tc, test_idle_buffers);
	tcase_add_test(tc, test_reset_in_flight);
	tcase_add_test(tc, test_save_load);
	tcase_add_test(tc, test_load_hostile);
}

static void add(TCase *tc)
{
	add_both(tc);
	tcase_add_test(tc, test_indirect);
	tcase_add_test(tc, test_indirect_unaligned);
	tcase_add_test(tc, test_interrupt_event_idx);
	tcase_add_test(tc, test_interrupt_flag);
	tcase_add_test(tc, test_doorbell_event_idx);
	tcase_add_test(tc, test_doorbell_flag);
	tcase_add_test(tc, test_features);
	tcase_add_test(tc, test_features_off);
	tcase_add_test(tc, test_iov);
}

int main(void)
{
	return toy_main("virtq", add, add_both);
}
