/* SPDX-License-Identifier: GPL-2.0-only */
/* The tests, by the names that `test=` selects them with. */
#ifndef TESTS_H
#define TESTS_H

void test_hello(void);

#endif
