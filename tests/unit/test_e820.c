/* SPDX-License-Identifier: GPL-2.0-only */
#include <check.h>
#include <stdlib.h>

#include "arch/x86/boot.h"

#define RAM	 1
#define RESERVED 2
#define ACPI	 3

static void expect(const struct e820 *map, const struct e820_entry *want, unsigned int n)
{
	ck_assert_uint_eq(map->n, n);
	for (unsigned int i = 0; i < n; i++) {
		ck_assert_uint_eq(map->entry[i].addr, want[i].addr);
		ck_assert_uint_eq(map->entry[i].size, want[i].size);
		ck_assert_uint_eq(map->entry[i].type, want[i].type);
	}
}

#define EXPECT(MAP, ...)                                           \
	do {                                                       \
		const struct e820_entry want[] = {__VA_ARGS__};    \
		expect(MAP, want, sizeof(want) / sizeof(want[0])); \
	} while (0)

START_TEST(test_order)
{
	struct e820 map = {0};

	ck_assert_int_eq(e820_add(&map, 4 * GiB, GiB, RAM), 0);
	ck_assert_int_eq(e820_add(&map, 0, 640 * KiB, RAM), 0);
	ck_assert_int_eq(e820_add(&map, MiB, GiB, RAM), 0);
	EXPECT(&map, {0, 640 * KiB, RAM}, {MiB, GiB, RAM}, {4 * GiB, GiB, RAM});
}
END_TEST

START_TEST(test_reserved_cuts_ram)
{
	struct e820 map = {0};

	ck_assert_int_eq(e820_add(&map, 0, 128 * MiB, RAM), 0);
	ck_assert_int_eq(e820_add(&map, 0x9fc00, 0x60400, RESERVED), 0);
	EXPECT(&map, {0, 0x9fc00, RAM}, {0x9fc00, 0x60400, RESERVED}, {MiB, 127 * MiB, RAM});
	/* at its end, at its start, all of it */
	ck_assert_int_eq(e820_add(&map, 127 * MiB, 2 * MiB, ACPI), 0);
	ck_assert_int_eq(e820_add(&map, 0, 0x1000, RESERVED), 0);
	EXPECT(&map, {0, 0x1000, RESERVED}, {0x1000, 0x9ec00, RAM}, {0x9fc00, 0x60400, RESERVED},
	       {MiB, 126 * MiB, RAM}, {127 * MiB, 2 * MiB, ACPI});
	ck_assert_int_eq(e820_add(&map, 0x1000, 0x9ec00, RESERVED), 0);
	EXPECT(&map, {0, MiB, RESERVED}, {MiB, 126 * MiB, RAM}, {127 * MiB, 2 * MiB, ACPI});
}
END_TEST

START_TEST(test_ram_flows_around)
{
	struct e820 map = {0};

	ck_assert_int_eq(e820_add(&map, 0x9fc00, 0x60400, RESERVED), 0);
	ck_assert_int_eq(e820_add(&map, 3 * GiB, GiB, RESERVED), 0);
	ck_assert_int_eq(e820_add(&map, 0, 8 * GiB, RAM), 0);
	EXPECT(&map, {0, 0x9fc00, RAM}, {0x9fc00, 0x60400, RESERVED}, {MiB, 3 * GiB - MiB, RAM},
	       {3 * GiB, GiB, RESERVED}, {4 * GiB, 4 * GiB, RAM});
	/* RAM within something reserved is not RAM. */
	ck_assert_int_eq(e820_add(&map, 3 * GiB + MiB, MiB, RAM), 0);
	ck_assert_uint_eq(map.n, 5);
}
END_TEST

START_TEST(test_join)
{
	struct e820 map = {0};

	ck_assert_int_eq(e820_add(&map, 0, MiB, RAM), 0);
	ck_assert_int_eq(e820_add(&map, 2 * MiB, MiB, RAM), 0);
	ck_assert_int_eq(e820_add(&map, MiB, MiB, RAM), 0);
	EXPECT(&map, {0, 3 * MiB, RAM});
	ck_assert_int_eq(e820_add(&map, MiB, MiB, RAM), 0);
	EXPECT(&map, {0, 3 * MiB, RAM});
	ck_assert_int_eq(e820_add(&map, 3 * MiB, MiB, RESERVED), 0);
	EXPECT(&map, {0, 3 * MiB, RAM}, {3 * MiB, MiB, RESERVED});
}
END_TEST

START_TEST(test_bad)
{
	struct e820 map = {0};

	ck_assert_int_eq(e820_add(&map, 0, MiB, ACPI), 0);
	ck_assert_int_eq(e820_add(&map, 0, 0, RAM), -EINVAL);
	ck_assert_int_eq(e820_add(&map, 0, MiB, 0), -EINVAL);
	ck_assert_int_eq(e820_add(&map, UINT64_MAX - 10, 11, RAM), -EINVAL);
	ck_assert_int_eq(e820_add(&map, 1, UINT64_MAX, RAM), -EINVAL);
	ck_assert_int_eq(e820_add(&map, 4096, 4096, RESERVED), -EINVAL);
	EXPECT(&map, {0, MiB, ACPI});
}
END_TEST

START_TEST(test_full)
{
	struct e820 map = {0}, before;

	for (unsigned int i = 0; i < E820_MAX; i++)
		ck_assert_int_eq(e820_add(&map, i * 2 * MiB, MiB, RAM), 0);
	before = map;
	ck_assert_int_eq(e820_add(&map, 1000 * MiB, MiB, RAM), -ENOSPC);
	ck_assert_int_eq(e820_add(&map, 4096, 4096, RESERVED), -ENOSPC);
	ck_assert_mem_eq(&map, &before, sizeof(map));
	/* What joins two makes room. */
	ck_assert_int_eq(e820_add(&map, MiB, MiB, RAM), 0);
	ck_assert_uint_eq(map.n, E820_MAX - 1);
}
END_TEST

/* Against a map with an entry for each page. */
START_TEST(test_random)
{
	enum {
		PAGES = 64
	};
	uint32_t type[PAGES] = {0};
	struct e820 map = {0};

	srand(_i);
	for (int step = 0; step < 12; step++) {
		unsigned int start = rand() % PAGES, len = 1 + rand() % (PAGES - start);
		uint32_t t = 1 + rand() % 3;
		bool clash = false;

		for (unsigned int i = start; i < start + len; i++)
			clash |= t > RAM && type[i] > RAM && type[i] != t;
		ck_assert_int_eq(e820_add(&map, start * 4096, len * 4096, t), clash ? -EINVAL : 0);
		for (unsigned int i = start; i < start + len && !clash; i++) {
			if (type[i] <= RAM)
				type[i] = t;
		}
	}
	for (unsigned int i = 0, e = 0; i < PAGES;) {
		unsigned int end = i;

		while (end < PAGES && type[end] == type[i])
			end++;
		if (type[i]) {
			ck_assert_uint_lt(e, map.n);
			ck_assert_uint_eq(map.entry[e].addr, i * 4096);
			ck_assert_uint_eq(map.entry[e].size, (end - i) * 4096);
			ck_assert_uint_eq(map.entry[e++].type, type[i]);
		}
		i = end;
		if (i == PAGES)
			ck_assert_uint_eq(e, map.n);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("e820");
	TCase *tc = tcase_create("map");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_test(tc, test_order);
	tcase_add_test(tc, test_reserved_cuts_ram);
	tcase_add_test(tc, test_ram_flows_around);
	tcase_add_test(tc, test_join);
	tcase_add_test(tc, test_bad);
	tcase_add_test(tc, test_full);
	tcase_add_loop_test(tc, test_random, 0, 100);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
