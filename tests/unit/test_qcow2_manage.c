/* SPDX-License-Identifier: GPL-2.0-only */
/* Snapshots and sizes of qcow2 images: done here, judged by qemu-img and qemu-io, and the other way round. */
#include "tests/unit/manage_test.h"
#include "tests/unit/suite.h"

static struct block_node *node;
static struct hako_error err;

static void open_rw(void)
{
	node = must_open("i", "qcow2", "", OPEN_RW);
}

#define OK(CALL) ck_assert_msg((CALL) == 0, #CALL ": %s", err.message)

/* What all images here are tried with. */
static const char *const kinds[] = {
	"",
	"-o compat=0.10",
	"-o cluster_size=512",
	"-o cluster_size=2M",
	"-o refcount_bits=8,cluster_size=4k",
	"-o extended_l2=on",
	"-o lazy_refcounts=on",
	"-o preallocation=metadata",
};

static void make(const char *kind, const char *size)
{
	must_sh("qemu-img create -q -f qcow2 %s i %s", kind, size);
}

static void check_clean(void)
{
	struct qcow2_check c = {.fix = 0};
	struct block_node *file = must_open("i", "file", "", 0);

	OK(qcow2_check(file, &c, &err));
	close_node(file);
	ck_assert_uint_eq(c.corruptions + c.leaks + c.check_errors, 0);
	must_sh("qemu-img check -q i");
}

/* --- snapshots ----------------------------------------------------------------------------------- */

START_TEST(test_snapshots)
{
	make(kinds[_i], "20M");
	must_sh("qemu-io -c 'write -P 1 0 3M' -c 'write -P 9 10M 100k' i");
	open_rw();
	OK(qcow2_snapshot_create(node, "one", &err));
	close_node(node);
	check_clean();
	must_sh("qemu-img snapshot -l i | grep -q one");
	must_sh("qemu-io -c 'read -P 1 0 3M' -c 'write -P 2 1M 4M' i | grep -v failed");
	check_clean();
	open_rw();
	OK(qcow2_snapshot_create(node, "two", &err));
	close_node(node);
	must_sh("qemu-io -c 'write -P 3 2M 1M' -c 'write -z 4M 1M' -c 'discard 10M 1M' i");
	check_clean();
	/* Back and forth. */
	open_rw();
	OK(qcow2_snapshot_apply(node, "one", &err));
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 3M' -c 'read -P 0 3M 7M' -c 'read -P 9 10M 100k' i | grep failed");
	open_rw();
	OK(qcow2_snapshot_apply(node, "2", &err));
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 1M' -c 'read -P 2 1M 4M' -c 'read -P 9 10M 100k' i | grep failed");
	/* Delete in qemu, delete here. */
	must_sh("qemu-img snapshot -d one i");
	check_clean();
	open_rw();
	OK(qcow2_snapshot_delete(node, "two", &err));
	ck_assert_int_eq(qcow2_snapshot_delete(node, "two", &err), -ENOENT);
	ck_assert_int_eq(qcow2_snapshot_apply(node, "none", &err), -ENOENT);
	close_node(node);
	check_clean();
	must_sh("test -z \"$(qemu-img snapshot -l i)\"");
	must_sh("! qemu-io -c 'read -P 1 0 1M' -c 'read -P 2 1M 4M' -c 'write 0 20M' i | grep failed");
	check_clean();
}
END_TEST

/* Compressed clusters have no place of their own. */
START_TEST(test_snapshots_compressed)
{
	must_sh("seq 500000 >r; qemu-img convert -c -O qcow2 r i; cp i before");
	open_rw();
	OK(qcow2_snapshot_create(node, "a", &err));
	close_node(node);
	check_clean();
	must_sh("qemu-io -c 'write -P 2 0 2M' i");
	check_clean();
	open_rw();
	OK(qcow2_snapshot_apply(node, "a", &err));
	OK(qcow2_snapshot_delete(node, "a", &err));
	close_node(node);
	check_clean();
	must_sh("qemu-img compare i before");
}
END_TEST

START_TEST(test_snapshot_list)
{
	struct qcow2_snapshot *list;
	uint32_t n;

	make("", "10M");
	for (int i = 0; i < 30; i++)
		must_sh("qemu-img snapshot -c snap%d i", i);
	open_rw();
	OK(qcow2_snapshot_create(node, "ours", &err));
	OK(qcow2_snapshot_list(node, &list, &n, &err));
	ck_assert_uint_eq(n, 31);
	ck_assert_int_eq(qcow2_snapshot_find(list, n, "snap7"), 7);
	ck_assert_int_eq(qcow2_snapshot_find(list, n, "ours"), 30);
	ck_assert_str_eq(list[30].id, "31");
	ck_assert_uint_eq(list[30].disk_size, 10 * MiB);
	qcow2_snapshots_free(list, n);
	for (int i = 0; i < 30; i += 3) {
		char name[20];

		snprintf(name, sizeof(name), "snap%d", i);
		OK(qcow2_snapshot_delete(node, name, &err));
	}
	close_node(node);
	check_clean();
	must_sh("test $(qemu-img snapshot -l i | grep -c snap) = 20");
	must_sh("qemu-img snapshot -l i | grep -q ours");
}
END_TEST

/* The disk had another size then. */
START_TEST(test_snapshot_size)
{
	make("", "10M");
	must_sh("qemu-io -c 'write -P 1 9M 1M' i; qemu-img snapshot -c small i; qemu-img resize i 3G; "
		"qemu-io -c 'write -P 2 2G 1M' i; qemu-img snapshot -c large i");
	open_rw();
	OK(qcow2_snapshot_apply(node, "small", &err));
	ck_assert_uint_eq(node->length, 10 * MiB);
	close_node(node);
	check_clean();
	must_sh("qemu-img info i | grep -q '10 MiB'; ! qemu-io -c 'read -P 1 9M 1M' i | grep failed");
	open_rw();
	OK(qcow2_snapshot_apply(node, "large", &err));
	close_node(node);
	check_clean();
	must_sh("qemu-img info i | grep -q '3 GiB'; ! qemu-io -c 'read -P 2 2G 1M' i | grep failed");
}
END_TEST

START_TEST(test_snapshot_refused)
{
	must_sh("qemu-img create -f qcow2 -o refcount_bits=1 i 10M; qemu-io -c 'write 0 1M' i");
	open_rw();
	ck_assert_int_eq(qcow2_snapshot_create(node, "a", &err), -ERANGE);
	close_node(node);
	check_clean();
	must_sh("qemu-img create -f qcow2 -o refcount_bits=2 i 10M; qemu-io -c 'write 0 1M' i");
	open_rw();
	OK(qcow2_snapshot_create(node, "a", &err));
	OK(qcow2_snapshot_create(node, "b", &err));
	ck_assert_int_eq(qcow2_snapshot_create(node, "c", &err), -ERANGE);
	close_node(node);
	check_clean();
	must_sh("qemu-img create -f qcow2 -o data_file=d i 10M");
	open_rw();
	ck_assert_int_eq(qcow2_snapshot_create(node, "a", &err), -ENOTSUP);
	close_node(node);
	must_sh("qemu-img create -f raw i 10M");
	node = must_open("i", "raw", "", OPEN_RW);
	ck_assert_int_eq(qcow2_snapshot_create(node, "a", &err), -ENOTSUP);
	close_node(node);
}
END_TEST

/* --- images that were not closed ------------------------------------------------------------------ */

/* Lazy refcounts of a program that was killed: whoever opens the image for writing repairs it. */
START_TEST(test_dirty)
{
	make("-o lazy_refcounts=on,cluster_size=4k", "20M");
	sh("qemu-io -c 'write -P 1 0 3M' -c flush -c abort i");
	ck_assert_uint_eq(peek("i", 72, 8) & QCOW2_INCOMPAT_DIRTY, QCOW2_INCOMPAT_DIRTY);
	node = must_open("i", "qcow2", "", 0);
	close_node(node);
	ck_assert_uint_eq(peek("i", 72, 8) & QCOW2_INCOMPAT_DIRTY, QCOW2_INCOMPAT_DIRTY);
	open_rw();
	OK(qcow2_snapshot_create(node, "a", &err));
	close_node(node);
	ck_assert_uint_eq(peek("i", 72, 8) & QCOW2_INCOMPAT_DIRTY, 0);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 3M' -c 'write 0 20M' i | grep failed");
	check_clean();
	/* What can not be repaired stays as it is. */
	poke("i", 72, QCOW2_INCOMPAT_DIRTY, 8);
	poke("i", peek("i", 40, 8) + 8, 0x123400 | 1ull << 63, 8);
	ck_assert_int_lt(open_node("i", "qcow2", "", OPEN_RW, &node, &err), 0);
}
END_TEST

/* --- sizes --------------------------------------------------------------------------------------- */

START_TEST(test_grow)
{
	make(kinds[_i], "3M");
	must_sh("qemu-io -c 'write -P 1 0 3M' i");
	open_rw();
	OK(qcow2_resize(node, 20 * GiB, BLOCK_PREALLOC_OFF, &err));
	ck_assert_uint_eq(node->length, 20 * GiB);
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 3M' -c 'read -P 0 3M 1G' -c 'write -P 2 19G 2M' i | grep failed");
	check_clean();
	/* And back. */
	open_rw();
	OK(qcow2_resize(node, 2 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 2M' i | grep failed; test $(stat -c %%s i) -lt 9M || test $(stat -c %%s i) -le 16777216");
	open_rw();
	OK(qcow2_resize(node, 6 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 2M' -c 'read -P 0 2M 4M' i | grep failed");
}
END_TEST

START_TEST(test_grow_prealloc)
{
	static const enum block_prealloc how[] = {BLOCK_PREALLOC_METADATA, BLOCK_PREALLOC_FALLOC,
						  BLOCK_PREALLOC_FULL};
	struct stat st;

	make(kinds[_i], "1M");
	must_sh("qemu-io -c 'write -P 1 0 1M' i");
	for (unsigned int i = 0; i < ARRAY_SIZE(how); i++) {
		open_rw();
		OK(qcow2_resize(node, node->length + 5 * MiB, how[i], &err));
		close_node(node);
		check_clean();
		ck_assert_int_eq(stat("i", &st), 0);
		if (how[i] == BLOCK_PREALLOC_FULL)
			ck_assert_int_ge(st.st_blocks, 5 * MiB / 512);
	}
	must_sh("! qemu-io -c 'read -P 1 0 1M' -c 'read -P 0 1M 15M' -c 'write -P 5 3M 12M' -c 'read -P 5 3M 12M' i | grep failed");
	check_clean();
}
END_TEST

/* What the backing file has beyond the old end does not show up. */
START_TEST(test_grow_backing)
{
	must_sh("qemu-img create -f raw b 8M; qemu-io -f raw -c 'write -P 7 0 8M' b; "
		"qemu-img create -f qcow2 -b b -F raw i 2000k");
	open_rw();
	OK(qcow2_resize(node, 10 * MiB, BLOCK_PREALLOC_OFF, &err));
	ck_assert_int_eq(qcow2_resize(node, 20 * MiB, BLOCK_PREALLOC_METADATA, &err), -ENOTSUP);
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 7 0 2000k' -c 'read -P 0 2000k 8000k' i | grep failed");
}
END_TEST

START_TEST(test_resize_data_file)
{
	must_sh("qemu-img create -f qcow2 -o data_file=d,data_file_raw=on i 3M; qemu-io -c 'write -P 1 0 3M' i");
	open_rw();
	OK(qcow2_resize(node, 6 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	must_sh("test $(stat -c %%s d) = 6291456; ! qemu-io -c 'write -P 2 4M 1M' -c 'read -P 1 0 3M' i | grep failed; "
		"qemu-img compare -f qcow2 -F raw i d");
	open_rw();
	OK(qcow2_resize(node, 2 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	must_sh("test $(stat -c %%s d) = 2097152; qemu-img compare -f qcow2 -F raw i d");
}
END_TEST

START_TEST(test_resize_refused)
{
	make("-o compat=0.10", "3M");
	must_sh("qemu-img snapshot -c a i");
	open_rw();
	ck_assert_int_eq(qcow2_resize(node, 6 * MiB, BLOCK_PREALLOC_OFF, &err), -ENOTSUP);
	close_node(node);
	make("-o cluster_size=512", "3M");
	open_rw();
	ck_assert_int_eq(qcow2_resize(node, 6 * MiB + 1, BLOCK_PREALLOC_OFF, &err), -EINVAL);
	ck_assert_int_eq(qcow2_resize(node, 200 * GiB, BLOCK_PREALLOC_OFF, &err), -EFBIG);
	ck_assert_int_eq(qcow2_resize(node, 1 * MiB, BLOCK_PREALLOC_FULL, &err), -EINVAL);
	close_node(node);
	check_clean();
}
END_TEST

/* Snapshots keep what a smaller disk has lost. */
START_TEST(test_shrink_with_snapshot)
{
	make("", "1G");
	must_sh("qemu-io -c 'write -P 1 0 3M' -c 'write -P 2 700M 3M' i; qemu-img snapshot -c a i");
	open_rw();
	OK(qcow2_resize(node, 1 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	open_rw();
	OK(qcow2_snapshot_apply(node, "a", &err));
	close_node(node);
	check_clean();
	must_sh("! qemu-io -c 'read -P 1 0 3M' -c 'read -P 2 700M 3M' i | grep failed");
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("qcow2 management");
	TCase *tc = tcase_create("snapshots");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, test_snapshots, 0, ARRAY_SIZE(kinds));
	tcase_add_test(tc, test_snapshots_compressed);
	tcase_add_test(tc, test_snapshot_list);
	tcase_add_test(tc, test_snapshot_size);
	tcase_add_test(tc, test_snapshot_refused);
	tcase_add_test(tc, test_dirty);
	suite_add_tcase(s, tc);
	tc = tcase_create("sizes");
	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, test_grow, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(tc, test_grow_prealloc, 0, ARRAY_SIZE(kinds));
	tcase_add_test(tc, test_grow_backing);
	tcase_add_test(tc, test_resize_data_file);
	tcase_add_test(tc, test_resize_refused);
	tcase_add_test(tc, test_shrink_with_snapshot);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
