/* SPDX-License-Identifier: GPL-2.0-only */
/* Virtio over MMIO by virtio 1.2, section 4.2: offsets and values below are the specification's. And virtio-rng on top. */
#include "virtq_driver.h"
#include "virtio_echo.h"

#define RAM (16 * MiB)

static struct vdrv drv;
static struct vdrv_queue q;
static struct echo *echo;

static void setup(void)
{
	vdrv_open(&drv, RAM, "echo-device", NULL);
	echo = (struct echo *)drv.obj;
}

static void teardown(void)
{
	vdrv_close(&drv);
}

static uint32_t rd(uint32_t reg)
{
	return vdrv_read(&drv, reg);
}

static void wr(uint32_t reg, uint32_t value)
{
	vdrv_write(&drv, reg, value);
}

static void ready(uint64_t features)
{
	drv.heap = VDRV_HEAP;
	ck_assert(vdrv_negotiate(&drv, features));
	vdrv_queue(&drv, &q, 0, 8);
	vdrv_go(&drv);
}

static void check_works(struct vdrv_queue *queue)
{
	struct vdrv_buf out = vdrv_buf(&drv, 4), in = vdrv_buf(&drv, 4);
	uint32_t len;

	memcpy(vdrv_ptr(&drv, out.gpa, 4), "echo", 4);
	vdrv_add(queue, &out, 1, &in, 1);
	vdrv_kick(queue);
	ck_assert(vdrv_wait(queue, NULL, &len));
	ck_assert_uint_eq(len, 4);
	ck_assert_mem_eq(vdrv_ptr(&drv, in.gpa, 4), "echo", 4);
}

static unsigned int line(void)
{
	return drv.vm->irq.asserted[5];
}

/* Table 4.1 */
START_TEST(test_identity)
{
	ck_assert_uint_eq(rd(0x000), 0x74726976);
	ck_assert_uint_eq(rd(0x004), 2);
	ck_assert_uint_eq(rd(0x008), ECHO_ID);
	ck_assert_uint_eq(rd(0x070), 0);
	wr(0x014, 1);
	ck_assert_uint_eq(rd(0x010), 1 | BIT(40 - 32)); /* VERSION_1, RING_RESET */
	wr(0x014, 0);
	ck_assert_uint_eq(rd(0x010), BIT(ECHO_FEATURE) | BIT(28) | BIT(29));
	wr(0x014, 2);
	ck_assert_uint_eq(rd(0x010), 0);
	/* No shared memory regions: length and base all ones */
	wr(0x0ac, 0);
	ck_assert_uint_eq(rd(0x0b0), 0xffffffff);
	ck_assert_uint_eq(rd(0x0b4), 0xffffffff);
	ck_assert_uint_eq(rd(0x0b8), 0xffffffff);
	ck_assert_uint_eq(rd(0x0bc), 0xffffffff);
}
END_TEST

START_TEST(test_queue_registers)
{
	wr(0x030, 1);
	ck_assert_uint_eq(rd(0x034), ECHO_QSIZE);
	ck_assert_uint_eq(rd(0x044), 0);
	wr(0x030, 2); /* there is none */
	ck_assert_uint_eq(rd(0x034), 0);
	wr(0x044, 1);
	ck_assert_uint_eq(rd(0x044), 0);
	wr(0x030, 0xffffffff);
	ck_assert_uint_eq(rd(0x034), 0);
	ready(0);
	/* What is ready does not change. */
	wr(0x030, 0);
	ck_assert_uint_eq(rd(0x044), 1);
	wr(0x080, 0xdead0000);
	wr(0x038, 2);
	ck_assert_uint_eq(echo->vdev.vq[0].desc_gpa, q.desc_gpa);
	ck_assert_uint_eq(echo->vdev.vq[0].size, 8);
	/* A queue that does not exist is rung in vain. */
	wr(0x050, 1);
	wr(0x050, 2);
	wr(0x050, 0x10000);
	wr(0x050, 0xffffffff);
	check_works(&q);
	wr(0x070, 0);
	ck_assert_uint_eq(rd(0x044), 0);
}
END_TEST

/* 4.2.2.2: 32 bits, aligned. Other accesses to registers do nothing. */
START_TEST(test_widths)
{
	static const unsigned int sizes[] = {1, 2, 8};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		ck_assert(bus_read(&drv.mmio, drv.base, &v, sizes[i]));
		ck_assert_uint_eq(v, 0);
		ck_assert(bus_write(&drv.mmio, drv.base + 0x70, 1, sizes[i]));
		ck_assert_uint_eq(rd(0x070), 0);
	}
	ck_assert(bus_read(&drv.mmio, drv.base + 2, &v, 4));
	ck_assert_uint_eq(v, 0);
	ck_assert(bus_write(&drv.mmio, drv.base + 0x6e, 0x10000, 4));
	ck_assert_uint_eq(rd(0x070), 0);
}
END_TEST

/* Configuration space takes any width (2.5). */
START_TEST(test_config)
{
	uint64_t v;

	ck_assert_uint_eq(vdrv_config(&drv, 0, 1), 0x10);
	ck_assert_uint_eq(vdrv_config(&drv, 3, 1), 0x13);
	ck_assert_uint_eq(vdrv_config(&drv, 2, 2), 0x1312);
	ck_assert_uint_eq(vdrv_config(&drv, 4, 4), 0x17161514);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 8), 0x1716151413121110);
	ck_assert_uint_eq(vdrv_config(&drv, 8, 8), 0x1b1a1918); /* what is not there is 0 */
	ck_assert_uint_eq(vdrv_config(&drv, 12, 4), 0);
	ck_assert_uint_eq(vdrv_config(&drv, 0xfc, 4), 0);
	bus_write(&drv.mmio, drv.base + 0x108, 0xaabb, 2);
	bus_write(&drv.mmio, drv.base + 0x100, 0, 4); /* read-only */
	bus_write(&drv.mmio, drv.base + 0x108, 0, 8); /* reaches beyond the end */
	bus_write(&drv.mmio, drv.base + 0x1fc, 0, 4);
	ck_assert_uint_eq(vdrv_config(&drv, 8, 4), 0x1b1aaabb);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 4), 0x13121110);
	ck_assert(!bus_read(&drv.mmio, drv.base + 0x200, &v, 4));
}
END_TEST

/* 4.2.2: the generation changes with the configuration, and the driver hears of it once it is there. */
START_TEST(test_config_change)
{
	uint32_t generation = rd(0x0fc);

	virtio_config_changed(&echo->vdev);
	ck_assert_uint_ne(rd(0x0fc), generation);
	ck_assert_uint_eq(rd(0x060), 0);
	ck_assert_uint_eq(line(), 0);
	ready(0);
	generation = rd(0x0fc);
	virtio_config_changed(&echo->vdev);
	ck_assert_uint_ne(rd(0x0fc), generation);
	ck_assert_uint_eq(rd(0x060), 2);
	ck_assert_uint_eq(line(), 1);
	check_works(&q);
	VDRV_UNTIL(rd(0x060) == 3);
	wr(0x064, 1);
	ck_assert_uint_eq(rd(0x060), 2);
	ck_assert_uint_eq(line(), 1);
	wr(0x064, 2);
	ck_assert_uint_eq(rd(0x060), 0);
	ck_assert_uint_eq(line(), 0);
	/* A reset lowers the line. */
	check_works(&q);
	VDRV_UNTIL(line() == 1);
	wr(0x070, 0);
	ck_assert_uint_eq(rd(0x060), 0);
	ck_assert_uint_eq(line(), 0);
}
END_TEST

static void count_edges(void *opaque, uint32_t pin, bool level)
{
	if (level)
		++*(unsigned int *)opaque;
}

/* The pin is edge-triggered: a bit that comes while another waits must not go unnoticed. */
START_TEST(test_edges)
{
	static const struct irq_chip chip = {.set_pin = count_edges};
	unsigned int edges = 0;

	ready(0);
	irq_use_chip(drv.vm, &chip, &edges);
	check_works(&q);
	VDRV_UNTIL(rd(0x060) == 1);
	ck_assert_uint_eq(edges, 1);
	check_works(&q); /* the driver has not yet looked */
	vdrv_settle(&drv);
	ck_assert_uint_eq(edges, 1);
	virtio_config_changed(&echo->vdev);
	ck_assert_uint_eq(edges, 2);
	/* It saw the first bit only. */
	wr(0x064, 1);
	ck_assert_uint_eq(edges, 2);
	check_works(&q);
	VDRV_UNTIL(rd(0x060) == 3);
	ck_assert_uint_eq(edges, 3);
	wr(0x064, 3);
	ck_assert_uint_eq(edges, 3);
	ck_assert_uint_eq(line(), 0);
	irq_use_chip(drv.vm, NULL, NULL);
}
END_TEST

/* Each queue in its own thread. */
START_TEST(test_two_loops)
{
	struct vdrv_queue second;

	ck_assert_ptr_ne(echo->vdev.vq[0].loop, echo->vdev.vq[1].loop);
	ck_assert(vdrv_negotiate(&drv, BIT64(29)));
	vdrv_queue(&drv, &q, 0, 8);
	vdrv_queue(&drv, &second, 1, 64);
	vdrv_go(&drv);
	for (int i = 0; i < 100; i++) {
		check_works(&q);
		check_works(&second);
		if (i % 10 == 0) {
			virtio_device_pause(drv.obj);
			ck_assert(!echo->vdev.vq[0].running && !echo->vdev.vq[1].running);
			virtio_device_resume(drv.obj);
		}
	}
	ck_assert(echo->on_its_loop);
}
END_TEST

/* KVM is told of the doorbells when the driver starts the device, no sooner, and until it is reset. */
START_TEST(test_doorbells)
{
	const uint64_t zero = 0, one = 1;

	if (!vdrv_kvm(&drv))
		return;
	ck_assert(vdrv_negotiate(&drv, 0));
	vdrv_queue(&drv, &q, 0, 8);
	ck_assert(!vdrv_doorbell(&drv, drv.base + 0x50, 4, &zero));
	ck_assert_int_eq(echo->vdev.vq[0].kick_fd, -1);
	vdrv_go(&drv);
	ck_assert(vdrv_doorbell(&drv, drv.base + 0x50, 4, &zero));
	ck_assert(!vdrv_doorbell(&drv, drv.base + 0x50, 4, &one)); /* not enabled */
	virtio_device_pause(drv.obj);
	virtio_device_resume(drv.obj);
	ck_assert(vdrv_doorbell(&drv, drv.base + 0x50, 4, &zero));
	check_works(&q); /* also if it comes as a write */
	wr(0x070, 0);
	ck_assert(!vdrv_doorbell(&drv, drv.base + 0x50, 4, &zero));
}
END_TEST

START_TEST(test_options)
{
	struct hako_error err;

	ck_assert_int_eq(vdrv_device(&drv, "echo-device", "iommu_platform=on", &err), -EINVAL);
	ck_assert_int_eq(vdrv_device(&drv, "echo-device", "addr=5", &err), -EINVAL);
	drv.vm->machine = NULL;
	ck_assert_int_eq(vdrv_device(&drv, "echo-device", NULL, &err), -ENODEV);
}
END_TEST

/* Every register with every value, the rings' memory too: nothing but the device itself may suffer. */
START_TEST(test_fuzz)
{
	static const unsigned int sizes[] = {4, 4, 4, 4, 1, 2, 8};
	uint64_t seed = 0x2545f4914f6cdd1d + _i, v;
	uint8_t *ram = vdrv_ptr(&drv, 0, RAM);

	for (int i = 0; i < 30000; i++) {
		uint32_t r = echo_random(&seed);
		uint64_t offset = r % 512;
		unsigned int size = sizes[r / 512 % ARRAY_SIZE(sizes)];
		uint32_t value = echo_random(&seed) >> (echo_random(&seed) % 32);

		if (r % 3)
			offset &= ~3ull;
		if (offset + size > 512)
			continue;
		switch (echo_random(&seed) % 8) {
		case 0:
			bus_read(&drv.mmio, drv.base + offset, &v, size);
			break;
		case 1:
			ready(value % 2 ? BIT64(28) | BIT64(29) : 0);
			check_works(&q);
			break;
		case 2:
			wr(0x070, value & 0xff);
			break;
		case 3:
			wr(0x050, value % 3);
			break;
		case 4:
			ram[VDRV_HEAP + echo_random(&seed) % 1024] = value;
			break;
		default:
			bus_write(&drv.mmio, drv.base + offset, value, size);
		}
	}
	ready(0);
	check_works(&q);
	wr(0x070, 0);
	ck_assert_uint_eq(line(), 0);
	ck_assert(echo->on_its_loop);
}
END_TEST

/* --- virtio-rng, 5.4 ------------------------------------------------------------------------------ */

static void open_rng(const char *options)
{
	vdrv_close(&drv);
	vdrv_open(&drv, RAM, "virtio-rng-device", options);
	ck_assert_uint_eq(rd(0x008), 4);
	ready(BIT64(28) | BIT64(29));
}

static bool all_zero(const uint8_t *p, size_t n)
{
	while (n && !*p)
		p++, n--;
	return !n;
}

START_TEST(test_rng)
{
	struct vdrv_buf a[2], b = vdrv_buf(&drv, 64);
	uint32_t len;

	open_rng(NULL);
	a[0] = vdrv_buf(&drv, 10);
	a[1] = vdrv_buf(&drv, 54);
	b = vdrv_buf(&drv, 64);
	vdrv_add(&q, NULL, 0, a, 2);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 64);
	ck_assert(!all_zero(vdrv_ptr(&drv, a[0].gpa, 10), 10));
	ck_assert(!all_zero(vdrv_ptr(&drv, a[1].gpa, 54), 54));
	vdrv_add(&q, NULL, 0, &b, 1);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_mem_ne(vdrv_ptr(&drv, b.gpa, 54), vdrv_ptr(&drv, a[1].gpa, 54), 54);
}
END_TEST

/* One or more bytes, but never megabytes at once, and never outside of what is writable (5.4.6). */
START_TEST(test_rng_bounds)
{
	struct vdrv_buf out, in;
	uint32_t len;

	open_rng(NULL);
	in = (struct vdrv_buf){8 * MiB, 4 * MiB};
	vdrv_add(&q, NULL, 0, &in, 1);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_ge(len, 1);
	ck_assert_uint_le(len, 64 * KiB);
	ck_assert(all_zero(vdrv_ptr(&drv, 8 * MiB + len, 4 * MiB), 4 * MiB - len));
	out = vdrv_buf(&drv, 16);
	in = vdrv_buf(&drv, 16);
	vdrv_add(&q, &out, 1, &in, 1);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 16);
	ck_assert(all_zero(vdrv_ptr(&drv, out.gpa, 16), 16));
}
END_TEST

/* 100 bytes in each 200 ms: 250 bytes take two more periods. */
START_TEST(test_rng_quota)
{
	uint64_t before = clock_now(), ms;
	struct vdrv_buf in;
	uint32_t len, sum = 0;

	open_rng("max-bytes=100,period=200");
	in = vdrv_buf(&drv, 250);
	while (sum < 250) {
		struct vdrv_buf part = {in.gpa, 250 - sum};

		vdrv_add(&q, NULL, 0, &part, 1);
		vdrv_kick(&q);
		ck_assert(vdrv_wait(&q, NULL, &len));
		ck_assert_uint_ge(len, 1);
		ck_assert_uint_le(len, 100);
		sum += len;
	}
	ms = (clock_now() - before) / 1000000;
	ck_assert_uint_ge(ms, 390);
	ck_assert_uint_lt(ms, 3000);
	/* Pausing does not wait for the period. */
	vdrv_add(&q, NULL, 0, &in, 1);
	vdrv_add(&q, NULL, 0, &in, 1);
	vdrv_kick(&q);
	virtio_device_pause(drv.obj);
	virtio_device_resume(drv.obj);
	ck_assert(vdrv_wait(&q, NULL, &len));
}
END_TEST

/* What has been drawn counts until the period is over, whatever the driver does in between. */
START_TEST(test_rng_quota_resets)
{
	struct vdrv_buf in;
	uint32_t len;

	open_rng("max-bytes=100,period=1000000");
	in = vdrv_buf(&drv, 60);
	for (unsigned int i = 0; i < 3; i++) {
		vdrv_add(&q, NULL, 0, &in, 1);
		vdrv_kick(&q);
		if (i == 2)
			break;
		ck_assert(vdrv_wait(&q, NULL, &len));
		ck_assert_uint_eq(len, i ? 40 : 60);
		if (_i == 0)
			ready(0);
	}
	vdrv_settle(&drv);
	for (unsigned int i = 0; i < 3; i++) {
		ck_assert_uint_eq(vdrv_used_idx(&q), q.last_used);
		if (i == 0) {
			virtio_device_pause(drv.obj);
			virtio_device_resume(drv.obj);
		} else {
			ready(0);
			vdrv_add(&q, NULL, 0, &in, 1);
			vdrv_kick(&q);
		}
		vdrv_settle(&drv);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio-mmio");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_identity);
	tcase_add_test(tc, test_queue_registers);
	tcase_add_test(tc, test_widths);
	tcase_add_test(tc, test_config);
	tcase_add_test(tc, test_config_change);
	tcase_add_test(tc, test_edges);
	tcase_add_test(tc, test_two_loops);
	tcase_add_test(tc, test_doorbells);
	tcase_add_test(tc, test_options);
	tcase_add_loop_test(tc, test_fuzz, 0, 3);
	tcase_add_test(tc, test_rng);
	tcase_add_test(tc, test_rng_bounds);
	tcase_add_test(tc, test_rng_quota);
	tcase_add_loop_test(tc, test_rng_quota_resets, 0, 2);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
