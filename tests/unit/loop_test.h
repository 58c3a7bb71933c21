/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of the event loop have in common. Every test runs on both engines: _i is the index. */
#ifndef TESTS_UNIT_LOOP_TEST_H
#define TESTS_UNIT_LOOP_TEST_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/loop.h"

static const enum loop_engine engines[] = {LOOP_IO_URING, LOOP_THREADS};
static struct loop *loop __attribute__((unused));

static inline struct loop *new_loop(int i)
{
	struct hako_error err;
	struct loop *l;

	ck_assert_msg(loop_new(&l, "test-loop", engines[i], &err) == 0, "%s", err.message);
	ck_assert_int_eq(loop_engine(l), engines[i]);
	return l;
}

/* Wait until *@value is @want, ten seconds at most. */
static inline bool wait_for(const int *value, int want)
{
	for (int i = 0; i < 10000; i++) {
		if (__atomic_load_n(value, __ATOMIC_ACQUIRE) == want)
			return true;
		usleep(1000);
	}
	return false;
}

static inline void bump(int *value)
{
	__atomic_add_fetch(value, 1, __ATOMIC_ACQ_REL);
}

static inline int temp_file(void)
{
	const char *dir = getenv("TMPDIR");
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/hako-test-XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	unlink(path);
	return fd;
}

/* All of @tests, on both engines. The exit status of main(). */
static inline int run_tests(const char *name, const TTest *const *tests, size_t n, TCase *more)
{
	Suite *s = suite_create(name);
	TCase *tc = tcase_create("both engines");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_set_timeout(tc, 30);
	for (size_t i = 0; i < n; i++)
		tcase_add_loop_test(tc, tests[i], 0, ARRAY_SIZE(engines));
	suite_add_tcase(s, tc);
	if (more)
		suite_add_tcase(s, more);
	srunner_set_fork_status(sr, CK_FORK);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}

#endif
