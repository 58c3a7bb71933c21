/* SPDX-License-Identifier: GPL-2.0-only */
/* Running a suite: main() of a test program is "return run_suite(create_suite());". */
#ifndef TESTS_UNIT_SUITE_H
#define TESTS_UNIT_SUITE_H

#include <check.h>

/* How much is printed is the environment's choice (CK_VERBOSITY): tests/check counts the lines. The exit status. */
static inline int run_suite(Suite *suite)
{
	SRunner *sr = srunner_create(suite);
	int failed;

	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}

#endif
