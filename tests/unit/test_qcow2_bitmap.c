/* SPDX-License-Identifier: GPL-2.0-only */
/* Persistent bitmaps: made and changed here and by QEMU, each judging the other. */
#include "tests/unit/manage_test.h"
#include "tests/unit/suite.h"

static struct block_node *node;
static struct hako_error err;

static void open_rw(void)
{
	node = must_open("i", "qcow2", "", OPEN_RW);
}

#define OK(CALL) ck_assert_msg((CALL) == 0, #CALL ": %s", err.message)

static void check_clean(void)
{
	struct qcow2_check c = {.fix = 0};
	struct block_node *file = must_open("i", "file", "", 0);

	OK(qcow2_check(file, &c, &err));
	close_node(file);
	ck_assert_uint_eq(c.corruptions + c.leaks + c.check_errors, 0);
	must_sh("qemu-img check -q i");
}

/* The ranges of bitmap @name that are set, as QEMU sees them: an image mapped through x-dirty-bitmap, over NBD. */
static void ranges(const char *name, const char *expected)
{
	must_sh("rm -f s; qemu-nbd -r -k $PWD/s -B %s -f qcow2 i & "
		"for j in $(seq 100); do test -S s && break; sleep 0.05; done; "
		"qemu-img map --output=json --image-opts "
		"driver=nbd,export=,server.type=unix,server.path=s,x-dirty-bitmap=qemu:dirty-bitmap:%s "
		"| sed -n 's/.*start\": \\([0-9]*\\), \"length\": \\([0-9]*\\).*data\": false.*/\\1+\\2/p' | tr '\\n' ' '; wait",
		name, name);
	ck_assert_msg(!strcmp(sh_output(), expected), "%s: \"%s\", not \"%s\"", name, sh_output(),
		      expected);
}

static const struct qcow2_bitmap_entry *find(const struct qcow2_bitmap_entry *list, uint32_t n,
					     const char *name)
{
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(list[i].name, name))
			return &list[i];
	ck_abort_msg("no bitmap %s", name);
}

static uint32_t flags_of(const char *name)
{
	struct block_node *ro = must_open("i", "qcow2", "force-share=on", 0);
	struct qcow2_bitmap_entry *list;
	uint32_t n, flags;

	OK(qcow2_bitmap_list(ro, &list, &n, &err));
	flags = find(list, n, name)->flags;
	qcow2_bitmaps_list_free(list, n);
	close_node(ro);
	return flags;
}

static void write_at(uint64_t offset, size_t bytes)
{
	void *buf = calloc(1, bytes);

	memset(buf, 7, bytes);
	ck_assert_int_eq(block_pwrite(node, offset, buf, bytes, 0), 0);
	free(buf);
}

START_TEST(test_add)
{
	must_sh("qemu-img create -f qcow2 i 64M");
	open_rw();
	OK(qcow2_bitmap_add(node, "a", 0, &err));
	OK(qcow2_bitmap_add(node, "b", 1 * MiB, &err));
	ck_assert_int_eq(qcow2_bitmap_add(node, "a", 0, &err), -EEXIST);
	ck_assert_int_eq(qcow2_bitmap_add(node, "c", 100, &err), -EINVAL);
	ck_assert_int_eq(qcow2_bitmap_add(node, "", 0, &err), -EINVAL);
	close_node(node);
	check_clean();
	must_sh("qemu-img info i | grep -A3 'name: a' | grep -q 'granularity: 65536'");
	must_sh("qemu-img info i | grep -q 'granularity: 1048576'");
	ranges("a", "");
	/* QEMU's writes are followed, and ours. */
	must_sh("qemu-io -c 'write 1M 64k' i");
	ranges("a", "1048576+65536 ");
	open_rw();
	ck_assert_uint_eq(flags_of("a"), QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
	write_at(3 * MiB + 100 * KiB, 4096);
	ck_assert_int_eq(block_pzero(node, 40 * MiB, 128 * KiB, 0), 0);
	close_node(node);
	ck_assert_uint_eq(flags_of("a"), QCOW2_BITMAP_AUTO);
	check_clean();
	ranges("a", "1048576+65536 3211264+65536 41943040+131072 ");
	ranges("b", "1048576+1048576 3145728+1048576 41943040+1048576 ");
}
END_TEST

START_TEST(test_ops)
{
	must_sh("qemu-img create -f qcow2 i 64M; for b in a b c d; do qemu-img bitmap --add -g 64k i $b; done; "
		"qemu-io -c 'write 1M 64k' -c 'write 63M 1M' i");
	open_rw();
	OK(qcow2_bitmap_remove(node, "b", &err));
	ck_assert_int_eq(qcow2_bitmap_remove(node, "b", &err), -ENOENT);
	OK(qcow2_bitmap_clear(node, "c", &err));
	OK(qcow2_bitmap_enable(node, "d", false, &err));
	write_at(8 * MiB, 65536);
	OK(qcow2_bitmap_merge(node, "c", node, "d", &err));
	close_node(node);
	check_clean();
	ck_assert_int_ne(sh("qemu-img info i | grep 'name: b'"), 0);
	ck_assert_uint_eq(flags_of("d"), 0);
	ranges("a", "1048576+65536 8388608+65536 66060288+1048576 ");
	ranges("c", "1048576+65536 8388608+65536 66060288+1048576 ");
	ranges("d", "1048576+65536 66060288+1048576 ");
	must_sh("qemu-img bitmap --enable i d; qemu-img bitmap --remove i a; qemu-img bitmap --merge c i d");
	check_clean();
	ranges("d", "1048576+65536 8388608+65536 66060288+1048576 ");
	open_rw();
	OK(qcow2_bitmap_remove(node, "c", &err));
	OK(qcow2_bitmap_remove(node, "d", &err));
	close_node(node);
	check_clean();
	ck_assert_int_ne(sh("qemu-img info i | grep bitmaps"), 0);
}
END_TEST

START_TEST(test_merge_granularity)
{
	struct block_node *other;

	must_sh("qemu-img create -f qcow2 i 64M; qemu-img bitmap --add -g 4k i fine; qemu-img bitmap --add -g 1M i coarse; "
		"cp i o; qemu-io -c 'write 1M 4k' -c 'write 5M 8k' i; qemu-io -c 'write 20M 1M' o");
	open_rw();
	other = must_open("o", "qcow2", "", 0);
	OK(qcow2_bitmap_add(node, "x", 64 * KiB, &err));
	OK(qcow2_bitmap_add(node, "y", 4 * KiB, &err));
	OK(qcow2_bitmap_merge(node, "x", node, "fine", &err));
	OK(qcow2_bitmap_merge(node, "y", node, "coarse", &err));
	OK(qcow2_bitmap_merge(node, "x", other, "fine", &err));
	ck_assert_int_eq(qcow2_bitmap_merge(node, "x", other, "none", &err), -ENOENT);
	close_node(other);
	close_node(node);
	check_clean();
	ranges("x", "1048576+65536 5242880+65536 20971520+1048576 ");
	ranges("y", "1048576+1048576 5242880+1048576 ");
}
END_TEST

START_TEST(test_large)
{
	/* More than a cluster of bits, and some all ones. */
	must_sh("qemu-img create -f qcow2 -o cluster_size=4k i 1G");
	open_rw();
	OK(qcow2_bitmap_add(node, "a", 4096, &err));
	for (uint64_t i = 0; i < 300; i++)
		write_at(i * MiB, MiB);
	write_at(900 * MiB, 4096);
	close_node(node);
	check_clean();
	ranges("a", "0+314572800 943718400+4096 ");
	open_rw();
	OK(qcow2_bitmap_clear(node, "a", &err));
	close_node(node);
	check_clean();
	ranges("a", "");
}
END_TEST

START_TEST(test_resize)
{
	must_sh("qemu-img create -f qcow2 i 10M; qemu-img bitmap --add i a; qemu-img bitmap --add i off; "
		"qemu-io -c 'write 9M 1M' i; qemu-img bitmap --disable i off");
	open_rw();
	OK(qcow2_resize(node, 10 * GiB, BLOCK_PREALLOC_OFF, &err));
	write_at(9 * GiB, 65536);
	close_node(node);
	check_clean();
	ranges("a", "9437184+1048576 9663676416+65536 ");
	ranges("off", "9437184+1048576 ");
	open_rw();
	OK(qcow2_resize(node, 9 * MiB + 512 * KiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	ranges("a", "9437184+524288 ");
	open_rw();
	OK(qcow2_resize(node, 20 * MiB, BLOCK_PREALLOC_OFF, &err));
	close_node(node);
	check_clean();
	ranges("a", "9437184+524288 ");
}
END_TEST

START_TEST(test_snapshot)
{
	must_sh("qemu-img create -f qcow2 i 1M; qemu-img snapshot -c s i; qemu-img bitmap --add i a");
	open_rw();
	OK(qcow2_snapshot_apply(node, "s", &err));
	close_node(node);
	check_clean();
	ranges("a", "0+1048576 ");
}
END_TEST

/* A program that was killed leaves them in use: such are kept, can not be used, and can be removed. */
START_TEST(test_in_use)
{
	must_sh("qemu-img create -f qcow2 i 10M; qemu-img bitmap --add i a; qemu-img bitmap --add i b");
	open_rw();
	must_sh("cp i killed");
	close_node(node);
	must_sh("mv killed i; qemu-img info i | grep -q in-use");
	open_rw();
	ck_assert_int_eq(qcow2_bitmap_clear(node, "a", &err), -EINVAL);
	ck_assert_int_eq(qcow2_resize(node, 20 * MiB, BLOCK_PREALLOC_OFF, &err), -ENOTSUP);
	write_at(0, 4096);
	OK(qcow2_bitmap_remove(node, "a", &err));
	close_node(node);
	ck_assert_uint_eq(flags_of("b"), QCOW2_BITMAP_AUTO | QCOW2_BITMAP_IN_USE);
	check_clean();
}
END_TEST

/* Flags and extra data that nobody knows are kept. */
START_TEST(test_unknown)
{
	uint64_t dir;

	must_sh("qemu-img create -f qcow2 i 10M; qemu-img bitmap --add i aaaaaaaa");
	must_sh("xxd -p i | tr -d '\\n' | grep -bo 23852875 | head -1 | cut -d: -f1");
	dir = peek("i", strtoull(sh_output(), NULL, 10) / 2 + 8 + 16, 8);
	poke("i", dir + 12, 0x80 | QCOW2_BITMAP_AUTO, 4);
	open_rw();
	write_at(0, 4096);
	ck_assert_int_eq(qcow2_bitmap_clear(node, "aaaaaaaa", &err), -EINVAL);
	OK(qcow2_bitmap_add(node, "new", 0, &err));
	close_node(node);
	ck_assert_uint_eq(flags_of("aaaaaaaa"), 0x80 | QCOW2_BITMAP_AUTO);
	must_sh("qemu-img check i; true"); /* refuses to load them */
}
END_TEST

START_TEST(test_refused)
{
	must_sh("qemu-img create -f qcow2 -o compat=0.10 i 10M");
	open_rw();
	ck_assert_int_eq(qcow2_bitmap_add(node, "a", 0, &err), -ENOTSUP);
	close_node(node);
	must_sh("qemu-img create -f raw i 10M");
	node = must_open("i", "raw", "", OPEN_RW);
	ck_assert_int_eq(qcow2_bitmap_add(node, "a", 0, &err), -ENOTSUP);
	close_node(node);
	must_sh("qemu-img create -f qcow2 i 10M");
	node = must_open("i", "qcow2", "", 0);
	ck_assert_int_eq(qcow2_bitmap_add(node, "a", 0, &err), -EROFS);
	close_node(node);
}
END_TEST

START_TEST(test_measure)
{
	uint64_t bytes;

	must_sh("qemu-img create -f qcow2 i 10G; qemu-img bitmap --add -g 4k i a; qemu-img bitmap --add i b");
	node = must_open("i", "qcow2", "", 0);
	OK(qcow2_bitmap_measure(node, 65536, &bytes, &err));
	close_node(node);
	must_sh("qemu-img measure -O qcow2 i | sed -n 's/bitmaps size: //p'");
	ck_assert_uint_eq(bytes, strtoull(sh_output(), NULL, 10));
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("qcow2 bitmaps");
	TCase *tc = tcase_create("bitmaps");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_test(tc, test_add);
	tcase_add_test(tc, test_ops);
	tcase_add_test(tc, test_merge_granularity);
	tcase_add_test(tc, test_large);
	tcase_add_test(tc, test_resize);
	tcase_add_test(tc, test_snapshot);
	tcase_add_test(tc, test_in_use);
	tcase_add_test(tc, test_unknown);
	tcase_add_test(tc, test_refused);
	tcase_add_test(tc, test_measure);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
