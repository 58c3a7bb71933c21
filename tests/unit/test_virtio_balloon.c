/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-balloon (virtio 1.2, 5.5): what becomes of pages, of those that are none, and the statistics. Numbers below are the specification's. */
#include <sys/mman.h>

#include "suite.h"
#include "virtq_driver.h"
#include "vmm/balloon.h"

#define RAM	  (32 * MiB)
#define QSIZE	  64
#define STATS_VQ  BIT64(1)
#define HINT	  BIT64(3)
#define POISON	  BIT64(4)
#define REPORTING BIT64(5)
#define PAGES	  0x800000ull /* where the pages are that are given back */

static struct vdrv drv;
static struct vdrv_queue q[5];
static struct hako_error err;
static bool shared;

static void start(uint64_t features)
{
	drv.heap = VDRV_HEAP;
	ck_assert(vdrv_negotiate(&drv, features));
	for (int i = 0; i < 5; i++)
		vdrv_queue(&drv, &q[i], i, QSIZE);
	vdrv_go(&drv);
}

static void open_balloon(const char *options, uint64_t features)
{
	vdrv_new(&drv, RAM);
	if (shared)
		ck_assert_msg(memory_share(drv.vm, &err) == 0, "%s", err.message);
	ck_assert_msg(vdrv_device(&drv, "virtio-balloon-device", options, &err) == 0, "%s",
		      err.message);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_DEVICE_ID), 5);
	start(features);
}

static void setup_shared(void)
{
	shared = true;
}

static void teardown(void)
{
	vdrv_close(&drv);
}

static void fill(uint64_t gpa, uint64_t pages)
{
	for (uint64_t i = 0; i < pages; i++)
		memset(vdrv_ptr(&drv, gpa + i * 4096, 4096), 0x5a, 4096);
}

/* Has the page been given back? Not by looking into it, which would bring a new one. */
static bool gone(uint64_t gpa)
{
	uint8_t *p = vdrv_ptr(&drv, gpa, 4096);
	unsigned char in;

	ck_assert_int_eq(mincore(p, 4096, &in), 0);
	if (!(in & 1))
		return true;
	ck_assert_uint_eq(*p, 0x5a);
	return false;
}

static unsigned int count_gone(uint64_t gpa, uint64_t pages)
{
	unsigned int n = 0;

	for (uint64_t i = 0; i < pages; i++)
		n += gone(gpa + i * 4096);
	return n;
}

static void add_pfns(struct vdrv_queue *queue, const uint32_t *pfn, size_t n)
{
	struct vdrv_buf out = vdrv_buf(&drv, n * 4);

	memcpy(vdrv_ptr(&drv, out.gpa, out.len), pfn, n * 4);
	vdrv_add(queue, &out, 1, NULL, 0);
	vdrv_kick(queue);
}

static void inflate(const uint32_t *pfn, size_t n)
{
	uint32_t len;

	add_pfns(&q[0], pfn, n);
	ck_assert(vdrv_wait(&q[0], NULL, &len));
	ck_assert_uint_eq(len, 0);
}

static void report(struct vdrv_queue *queue, const struct vdrv_buf *in, unsigned int n)
{
	vdrv_add(queue, NULL, 0, in, n);
	vdrv_kick(queue);
	ck_assert(vdrv_wait(queue, NULL, NULL));
}

static struct hako_balloon_info info(void)
{
	struct hako_balloon_info i = {0};

	drv.vm->balloon->ops->query(drv.vm->balloon, &i);
	return i;
}

/* --- inflating and deflating --------------------------------------------------------------------- */

START_TEST(inflates)
{
	uint32_t pfn[64];

	open_balloon(NULL, 0);
	fill(PAGES, 256);
	/* Backwards, and in two parts. */
	for (uint32_t i = 0; i < 64; i++)
		pfn[i] = (PAGES >> 12) + (i < 32 ? 40 - i : 100 + i);
	inflate(pfn, 64);
	for (uint32_t i = 0; i < 256; i++)
		ck_assert_int_eq(gone(PAGES + i * 4096ull),
				 (i >= 9 && i <= 40) || (i >= 132 && i <= 163));
	/* Touched again, it is there again, and empty. */
	ck_assert_uint_eq(*(uint8_t *)vdrv_ptr(&drv, PAGES + 9 * 4096, 1), 0);
	add_pfns(&q[1], pfn, 64);
	ck_assert(vdrv_wait(&q[1], NULL, NULL));
}
END_TEST

START_TEST(numbers_that_are_no_pages)
{
	const uint32_t first = PAGES >> 12,
		       pfn[] = {
			       first,	  first,	   first,	   UINT32_MAX,
			       RAM >> 12, (RAM >> 12) + 1, 0x80000000,	   first + 2,
			       first,	  0xfec00,	   UINT32_MAX - 1,
		       };
	struct vdrv_buf out;

	open_balloon(NULL, 0);
	fill(PAGES, 8);
	inflate(pfn, ARRAY_SIZE(pfn));
	ck_assert(gone(PAGES) && gone(PAGES + 0x2000));
	ck_assert_uint_eq(count_gone(PAGES, 8), 2);
	/* The last one ends in RAM, but has no number's length. */
	out = vdrv_buf(&drv, 8);
	((uint32_t *)vdrv_ptr(&drv, out.gpa, 8))[0] = first + 4;
	((uint32_t *)vdrv_ptr(&drv, out.gpa, 8))[1] = first + 5;
	out.len = 7;
	vdrv_add(&q[0], &out, 1, NULL, 0);
	/* And writable buffers hold no numbers. */
	out = vdrv_buf(&drv, 4);
	*(uint32_t *)vdrv_ptr(&drv, out.gpa, 4) = first + 6;
	vdrv_add(&q[0], NULL, 0, &out, 1);
	vdrv_kick(&q[0]);
	ck_assert(vdrv_wait(&q[0], NULL, NULL));
	ck_assert(vdrv_wait(&q[0], NULL, NULL));
	ck_assert(gone(PAGES + 0x4000));
	ck_assert_uint_eq(count_gone(PAGES, 8), 3);
	ck_assert(!vdrv_needs_reset(&drv));
}
END_TEST

/* Two million numbers in a request: the loop serves others meanwhile, and a pause does not wait for the end. */
START_TEST(much_at_once)
{
	struct vdrv_buf out;
	uint64_t before;

	open_balloon(NULL, STATS_VQ);
	out = vdrv_buf(&drv, 8 * MiB - 64 * KiB);
	for (uint32_t i = 0; i < out.len / 4; i++)
		((uint32_t *)vdrv_ptr(&drv, out.gpa, out.len))[i] = 0x10000 + i * 2;
	vdrv_add(&q[0], &out, 1, NULL, 0);
	vdrv_kick(&q[0]);
	VDRV_UNTIL(drv.vdev->vq[0].inflight);
	for (int i = 0; i < 20; i++) {
		before = clock_now();
		loop_call(drv.vm->io_loop, NULL, NULL);
		ck_assert_uint_lt(clock_now() - before, 1000000000);
	}
	ck_assert_uint_eq(vdrv_used_idx(&q[0]), 0);
	before = clock_now();
	virtio_device_pause(drv.obj);
	ck_assert_uint_lt(clock_now() - before, 1000000000);
	ck_assert_uint_eq(vdrv_used_idx(&q[0]), 0);
	virtio_device_resume(drv.obj);
	for (int i = 0; i < 20 && !vdrv_take(&q[0], NULL, NULL); i++)
		usleep(500000);
	ck_assert_uint_eq(q[0].last_used, 1);
}
END_TEST

/* The driver resets the device in the middle, and the VM ends in the middle. */
START_TEST(ends_in_the_middle)
{
	struct vdrv_buf out;

	open_balloon(NULL, 0);
	for (int i = 0; i < 2; i++) {
		out = vdrv_buf(&drv, 8 * MiB - 128 * KiB);
		vdrv_add(&q[0], &out, 1, NULL, 0);
		vdrv_kick(&q[0]);
		VDRV_UNTIL(drv.vdev->vq[0].inflight);
		if (i == 0)
			start(0);
	}
	/* Nothing looks at it afterwards. */
	object_destroy(drv.obj);
	vdrv_settle(&drv);
}
END_TEST

/* What is promised to the VM for its life stays, whatever the guest says. */
START_TEST(reserved_memory_stays)
{
	const uint32_t first = PAGES >> 12, pfn[] = {first, first + 1};
	struct vdrv_buf in = {PAGES + 0x4000, 0x2000};

	open_balloon("free-page-reporting=on", REPORTING);
	fill(PAGES, 8);
	drv.vm->mem.options.lock = true;
	inflate(pfn, 2);
	report(&q[4], &in, 1);
	drv.vm->mem.options.lock = false;
	drv.vm->mem.options.huge = 2 * MiB;
	inflate(pfn, 2);
	report(&q[4], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 8), 0);
	drv.vm->mem.options.huge = 0;
	inflate(pfn, 2);
	report(&q[4], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 8), 4);
}
END_TEST

/* --- free pages ---------------------------------------------------------------------------------- */

/* By the specification's numbers, and by those of Linux before 6.11, which knows no queue that it does not use. */
START_TEST(reports)
{
	struct vdrv_buf in[3] = {
		{PAGES, 0x4000}, {PAGES + 0x6000, 0x1000}, {PAGES + 0x8800, 0x2000}};

	open_balloon("free-page-reporting=on", REPORTING);
	fill(PAGES, 16);
	report(&q[_i ? 3 : 4], in, 3);
	/* Of the third, one whole page. */
	for (uint32_t i = 0; i < 16; i++)
		ck_assert_int_eq(gone(PAGES + i * 4096ull), i < 4 || i == 6 || i == 9);
	ck_assert_uint_eq(info().reported, 0x7000);
}
END_TEST

START_TEST(reports_of_much)
{
	struct vdrv_buf in[8];

	open_balloon("free-page-reporting=on", REPORTING);
	fill(PAGES, 4096);
	for (unsigned int i = 0; i < 8; i++)
		in[i] = (struct vdrv_buf){PAGES, 16 * MiB};
	report(&q[4], in, 8);
	ck_assert_uint_eq(count_gone(PAGES, 4096), 4096);
	ck_assert_uint_eq(info().reported, 128 * MiB);
}
END_TEST

/* Free pages that hold a pattern keep it; what was not negotiated is not done; hints are not looked at. */
START_TEST(keeps_what_is_not_to_go)
{
	struct vdrv_buf in = {PAGES, 0x4000};

	open_balloon("free-page-reporting=on,free-page-hint=on", REPORTING | POISON | HINT);
	fill(PAGES, 4);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 12, 0xaaaaaaaa);
	report(&q[4], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 4), 0);
	start(REPORTING | HINT);
	report(&q[3], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 4), 0);
	start(HINT);
	report(&q[4], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 4), 0);
	start(REPORTING | POISON | HINT);
	report(&q[4], &in, 1);
	ck_assert_uint_eq(count_gone(PAGES, 4), 4);
}
END_TEST

/* --- configuration ------------------------------------------------------------------------------- */

START_TEST(configuration)
{
	uint32_t generation;

	open_balloon("deflate-on-oom=on,size=24M", BIT64(2));
	ck_assert_uint_eq(vdrv_features(&drv) & 0xffffff, 0x16);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 4), 8 * MiB >> 12);
	ck_assert_uint_eq(vdrv_config(&drv, 8, 4), 0);
	ck_assert_uint_eq(info().target, 24 * MiB);
	ck_assert_uint_eq(info().actual, RAM);
	generation = vdrv_read(&drv, VIRTIO_MMIO_CONFIG_GENERATION);
	drv.vm->balloon->ops->set(drv.vm->balloon, 20 * MiB + 1);
	ck_assert_uint_ne(vdrv_read(&drv, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 4), (12 * MiB >> 12) - 1);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 2);
	/* The driver's field, also byte by byte; the others are not the driver's. */
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 4, 0x400);
	ck_assert_uint_eq(info().actual, RAM - 4 * MiB);
	ck_assert(bus_write(&drv.mmio, drv.base + VIRTIO_MMIO_CONFIG + 5, 8, 1));
	ck_assert_uint_eq(info().actual, RAM - 8 * MiB);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG, 1);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 8, 1);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 16, 1);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 4), (12 * MiB >> 12) - 1);
	ck_assert_uint_eq(vdrv_config(&drv, 8, 8), 0);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 4, UINT32_MAX);
	ck_assert_uint_eq(info().actual, 0);
	/* A reset empties it, but what is wanted stays. */
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(info().actual, RAM);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 4), (12 * MiB >> 12) - 1);
}
END_TEST

START_TEST(one_that_fits)
{
	vdrv_new(&drv, RAM);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-balloon-device", "size=33M", &err), -ERANGE);
	ck_assert_ptr_null(drv.vm->balloon);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-balloon-device", NULL, &err), 0);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-balloon-device", NULL, &err), -EEXIST);
	ck_assert_ptr_nonnull(drv.vm->balloon);
	drv.obj = NULL;
}
END_TEST

/* --- statistics ---------------------------------------------------------------------------------- */

struct stat_record {
	uint16_t tag;
	uint64_t value;
} __attribute__((packed));

static uint16_t add_stats(const struct stat_record *s, unsigned int n, uint32_t len)
{
	struct vdrv_buf out = vdrv_buf(&drv, sizeof(*s) * n);
	uint16_t head;

	memcpy(vdrv_ptr(&drv, out.gpa, out.len), s, out.len);
	out.len = len ?: out.len;
	head = vdrv_add(&q[2], &out, 1, NULL, 0);
	vdrv_kick(&q[2]);
	return head;
}

START_TEST(statistics)
{
	static const struct stat_record s[] = {{4, 111}, {5, 222}, {9, 333}, {0x7777, 1}, {0, 444}};
	static const struct stat_record t[] = {{6, 555}, {7, 666}};
	uint32_t id;
	uint16_t head;

	open_balloon("guest-stats-polling-interval=1", STATS_VQ);
	ck_assert_int_eq(info().stats_age_ms, -1);
	ck_assert_uint_eq(info().free_memory, UINT64_MAX);
	head = add_stats(s, 5, 0);
	VDRV_UNTIL(info().stats_age_ms >= 0);
	ck_assert_uint_eq(info().free_memory, 111);
	ck_assert_uint_eq(info().total_memory, 222);
	ck_assert_uint_eq(info().hugetlb_failures, 333);
	ck_assert_uint_eq(info().swap_in, 444);
	ck_assert_uint_eq(info().available_memory, UINT64_MAX);
	/* It comes back when new ones are wanted, not before. */
	vdrv_settle(&drv);
	ck_assert(!vdrv_take(&q[2], NULL, NULL));
	ck_assert(vdrv_wait(&q[2], &id, NULL));
	ck_assert_uint_eq(id, head);
	/* Cut off in the middle of a number. */
	add_stats(t, 2, 19);
	VDRV_UNTIL(info().available_memory == 555);
	ck_assert_uint_eq(info().disk_caches, UINT64_MAX);
	ck_assert_uint_eq(info().free_memory, UINT64_MAX);
	/* A second one is one too many: the first comes back at once. */
	ck_assert(!vdrv_take(&q[2], NULL, NULL));
	add_stats(s, 5, 0);
	VDRV_UNTIL(info().free_memory == 111);
	ck_assert(vdrv_wait(&q[2], NULL, NULL));
	/* Over a pause, too, the buffer is the device's. */
	virtio_device_pause(drv.obj);
	virtio_device_resume(drv.obj);
	ck_assert_uint_eq(info().free_memory, 111);
	ck_assert(vdrv_wait(&q[2], NULL, NULL));
	start(STATS_VQ);
	ck_assert_int_eq(info().stats_age_ms, -1);
}
END_TEST

/* --- state --------------------------------------------------------------------------------------- */

START_TEST(state)
{
	const struct state_table *table;
	static const struct stat_record s[] = {{4, 111}};
	struct state_buf saved = {0}, load;
	const uint32_t pfn = PAGES >> 12;

	open_balloon("free-page-reporting=on", STATS_VQ | REPORTING | POISON);
	table = drv.obj->class->state;
	add_stats(s, 1, 0);
	VDRV_UNTIL(info().free_memory == 111);
	drv.vm->balloon->ops->set(drv.vm->balloon, 16 * MiB);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 4, 0x800);
	vdrv_write(&drv, VIRTIO_MMIO_CONFIG + 12, 0xaa);
	virtio_device_pause(drv.obj);
	ck_assert_int_eq(state_save(&saved, table, drv.obj, &err), 0);
	drv.vm->balloon->ops->set(drv.vm->balloon, RAM);
	drv.obj->class->reset(drv.obj);
	ck_assert_uint_eq(info().actual, RAM);
	load = (struct state_buf){.data = saved.data, .len = saved.len};
	ck_assert_msg(state_load(&load, table, drv.obj, &err) == 0, "%s", err.message);
	virtio_device_resume(drv.obj);
	ck_assert_uint_eq(info().target, 16 * MiB);
	ck_assert_uint_eq(info().actual, RAM - 8 * MiB);
	ck_assert_uint_eq(vdrv_config(&drv, 12, 4), 0xaa);
	VDRV_UNTIL(info().free_memory == 111);
	fill(PAGES, 1);
	inflate(&pfn, 1);
	ck_assert(gone(PAGES));
	state_buf_free(&saved);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, inflates);
	tcase_add_test(tc, numbers_that_are_no_pages);
	tcase_add_test(tc, much_at_once);
	tcase_add_test(tc, ends_in_the_middle);
	tcase_add_test(tc, reserved_memory_stays);
	tcase_add_loop_test(tc, reports, 0, 2);
	tcase_add_test(tc, reports_of_much);
	tcase_add_test(tc, keeps_what_is_not_to_go);
	tcase_add_test(tc, configuration);
	tcase_add_test(tc, one_that_fits);
	tcase_add_test(tc, statistics);
	tcase_add_test(tc, state);
}

int main(void)
{
	Suite *s = suite_create("virtio-balloon");
	TCase *tc = tcase_create("shared memory");

	vdrv_cases(s, add, NULL, teardown);
	tcase_add_checked_fixture(tc, setup_shared, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, inflates);
	tcase_add_test(tc, reports_of_much);
	tcase_add_test(tc, reserved_memory_stays);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
