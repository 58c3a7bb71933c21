/* SPDX-License-Identifier: GPL-2.0-only */
/* Overlays: on another backing file, and written into the one they have. */
#include "devices/block/rebase.h"
#include "tests/unit/manage_test.h"
#include "tests/unit/suite.h"

static struct hako_error err;

#define OK(CALL) ck_assert_msg((CALL) == 0, #CALL ": %s", err.message)

static const char *const formats[] = {"raw", "qcow2"};

/* An overlay i on a, and another base b, partly the same; each of another size. */
static void make(const char *format)
{
	must_sh("qemu-img create -q -f %s a 8M; qemu-io -f %s -c 'write -P 1 0 4M' -c 'write -P 2 5M 1M' a; "
		"qemu-img create -q -f %s b 5M; qemu-io -f %s -c 'write -P 1 0 2M' -c 'write -P 3 4500k 100k' b; "
		"qemu-img create -q -f qcow2 -b a -F %s i 10M; qemu-io -c 'write -P 9 1M 100k' -c 'write -z 3M 64k' -c 'write -P 9 9M 1M' i; "
		"qemu-img convert -O raw i before",
		format, format, format, format, format);
}

START_TEST(test_rebase)
{
	struct block_node *top, *new;
	const char *format = formats[_i];

	make(format);
	top = must_open("i", "qcow2", "", OPEN_RW);
	new = must_open("b", format, "", 0);
	OK(block_rebase(top, top->backing, new, NULL, &err));
	OK(qcow2_change_backing(top, "b", format, &err));
	close_node(new);
	close_node(top);
	must_sh("rm a; qemu-img check i && qemu-img compare -F raw i before");
	/* What is alike was not copied. */
	must_sh("qemu-img map --output=json i | grep '\"start\": 65536,' && exit 1; qemu-img map i | grep -q ' b$'");
	top = must_open("i", "qcow2", "", OPEN_RW);
	OK(block_rebase(top, top->backing, NULL, NULL, &err));
	OK(qcow2_change_backing(top, NULL, NULL, &err));
	close_node(top);
	must_sh("rm b; qemu-img check i && qemu-img compare -F raw i before");
}
END_TEST

static void count(void *opaque, uint64_t done, uint64_t total)
{
	ck_assert_uint_le(done, total);
	++*(int *)opaque;
}

START_TEST(test_commit)
{
	const char *format = formats[_i];
	struct block_node *top;
	int calls = 0;
	struct block_job job = {count, &calls};

	make(format);
	top = must_open("i", "qcow2", "", OPEN_RW);
	OK(block_reopen(top->backing, false, &err));
	OK(block_use_node(top->backing, top, OPEN_RW, &err));
	OK(block_commit(top, top->backing, &job, &err));
	ck_assert_int_gt(calls, 0);
	OK(block_use_node(top->backing, top, 0, &err));
	OK(qcow2_make_empty(top, &err));
	close_node(top);
	must_sh("qemu-img compare -f %s -F raw a before && qemu-img check i && qemu-img compare -F raw i before",
		format);
	must_sh("test $(stat -c %%s i) -le 400000");
}
END_TEST

/* Through an image between. */
START_TEST(test_commit_deep)
{
	struct block_node *top, *base;

	make("qcow2");
	must_sh("qemu-img create -q -f qcow2 -b i -F qcow2 j && qemu-io -c 'write -P 7 6M 1M' j && qemu-img convert -O raw j before");
	top = must_open("j", "qcow2", "", OPEN_RW);
	base = top->backing->backing;
	OK(block_reopen(base, false, &err));
	OK(block_use_node(base, top->backing, OPEN_RW, &err));
	OK(block_commit(top, base, NULL, &err));
	OK(block_use_node(base, top->backing, 0, &err));
	close_node(top);
	must_sh("qemu-img check a && qemu-img compare -f qcow2 -F raw a before");
}
END_TEST

/* Emptying leaves snapshots alone. */
START_TEST(test_empty)
{
	struct block_node *top;

	make("raw");
	must_sh("qemu-img snapshot -c s i");
	top = must_open("i", "qcow2", "", OPEN_RW);
	OK(qcow2_make_empty(top, &err));
	close_node(top);
	must_sh("qemu-img check i && qemu-img compare -F raw i a; qemu-img snapshot -a s i && qemu-img check i && qemu-img compare -F raw i before");
	must_sh("! qemu-io -c 'write -P 4 0 10M' -c 'read -P 4 0 10M' i | grep failed; qemu-img check i");
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("rebase");
	TCase *tc = tcase_create("overlays");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, test_rebase, 0, 2);
	tcase_add_loop_test(tc, test_commit, 0, 2);
	tcase_add_test(tc, test_commit_deep);
	tcase_add_test(tc, test_empty);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
