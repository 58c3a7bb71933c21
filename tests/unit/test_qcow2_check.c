/* SPDX-License-Identifier: GPL-2.0-only */
/* Checking and repairing qcow2 images, compared with what qemu-img says of the same ones. */
#include "tests/unit/manage_test.h"
#include "tests/unit/suite.h"

static int lines;

static void report(void *opaque, const char *line)
{
	lines++;
	if (getenv("VERBOSE"))
		fprintf(stderr, "%s\n", line);
}

static int check(const char *filename, unsigned int fix, struct qcow2_check *c,
		 struct hako_error *err)
{
	struct block_node *file = must_open(filename, "file", "", fix ? OPEN_RW : 0);
	int ret;

	*c = (struct qcow2_check){.fix = fix, .report = report};
	lines = 0;
	ret = qcow2_check(file, c, err);
	close_node(file);
	return ret;
}

static void must_check(const char *filename, unsigned int fix, struct qcow2_check *c)
{
	struct hako_error err;

	ck_assert_msg(check(filename, fix, c, &err) == 0, "%s", err.message);
}

/* A number in qemu-img's JSON; 0 if it is not there. */
static uint64_t json_number(const char *json, const char *key)
{
	char quoted[60];
	const char *p;

	snprintf(quoted, sizeof(quoted), "\"%s\": ", key);
	p = strstr(json, quoted);
	return p ? strtoull(p + strlen(quoted), NULL, 10) : 0;
}

static void compare_with_qemu(const char *filename)
{
	struct qcow2_check c;
	const char *json;

	sh("qemu-img check --output=json %s 2>/dev/null", filename);
	json = sh_output();
	ck_assert_msg(strstr(json, "image-end-offset") != NULL, "%s", json);
	must_check(filename, 0, &c);
#define SAME(FIELD, KEY)                                                             \
	ck_assert_msg(c.FIELD == json_number(json, KEY), KEY " %llu, qemu-img %llu", \
		      (unsigned long long)c.FIELD, (unsigned long long)json_number(json, KEY))
	SAME(corruptions, "corruptions");
	SAME(leaks, "leaks");
	SAME(check_errors, "check-errors");
	SAME(image_end_offset, "image-end-offset");
	SAME(total_clusters, "total-clusters");
	SAME(allocated_clusters, "allocated-clusters");
	SAME(fragmented_clusters, "fragmented-clusters");
	SAME(compressed_clusters, "compressed-clusters");
}

/* --- valid images -------------------------------------------------------------------------------- */

static const char *const good[] = {
	"qemu-img create -f qcow2 i 10M",
	"qemu-img create -f qcow2 i 0",
	"qemu-img create -f qcow2 -o preallocation=metadata i 10M",
	"qemu-img create -f qcow2 -o compat=0.10 i 10M; qemu-io -c 'write 0 3M' -c 'write 8M 100k' i",
	"qemu-img create -f qcow2 -o cluster_size=512 i 10M; qemu-io -c 'write 0 3M' -c 'write 8M 100k' -c 'write -z 1M 1M' i",
	"qemu-img create -f qcow2 -o refcount_bits=1 i 10M; qemu-io -c 'write 1M 3M' -c 'write 0 1M' i",
	"qemu-img create -f qcow2 -o refcount_bits=2,cluster_size=512 i 10M; qemu-io -c 'write 1M 3M' i; qemu-img snapshot -c a i; qemu-io -c 'write 2M 3M' i",
	"qemu-img create -f qcow2 -o refcount_bits=4,cluster_size=512 i 10M; qemu-io -c 'write 1M 3M' i; qemu-img snapshot -c a i; qemu-io -c 'write 2M 3M' i",
	"qemu-img create -f qcow2 -o refcount_bits=8,cluster_size=1k i 10M; qemu-io -c 'write 1M 3M' i; qemu-img snapshot -c a i; qemu-io -c 'write 2M 3M' i",
	"qemu-img create -f qcow2 -o refcount_bits=32,cluster_size=1k i 10M; qemu-io -c 'write 1M 3M' i; qemu-img snapshot -c a i; qemu-io -c 'write 2M 3M' i",
	"qemu-img create -f qcow2 -o refcount_bits=64,cluster_size=1k i 10M; qemu-io -c 'write 1M 3M' i; qemu-img snapshot -c a i; qemu-io -c 'write 2M 3M' i",
	"qemu-img create -f qcow2 i 100M; qemu-io -c 'write 0 9M' i; for i in a b c d; do qemu-img snapshot -c $i i; qemu-io -c 'write 3M 1M' i; done; qemu-img snapshot -d b i; qemu-img snapshot -a c i",
	"qemu-img create -f qcow2 -o extended_l2=on i 10M; qemu-io -c 'write 0 3M' -c 'write 8M 10k' -c 'write -z 1M 1M' -c 'write -z 8M 3k' i",
	"qemu-img create -f qcow2 -o extended_l2=on,preallocation=metadata i 10M; qemu-io -c 'write 0 3M' i",
	"qemu-img create -f qcow2 -o data_file=d i 10M; qemu-io -c 'write 0 3M' -c 'write -z 1M 1M' i",
	"qemu-img create -f qcow2 -o data_file=d,data_file_raw=on i 10M; qemu-io -c 'write 0 3M' i",
	"seq 400000 >r; qemu-img convert -c -O qcow2 r i; qemu-io -c 'write 1M 300k' i; qemu-img snapshot -c a i",
	"seq 400000 >r; qemu-img convert -c -O qcow2 -o cluster_size=4k,compression_type=zstd r i; qemu-io -c 'write 1M 300k' i",
	"qemu-img create -f qcow2 i 10M; qemu-img bitmap --add i one; qemu-img bitmap --add -g 64k i two; qemu-io -c 'write 0 3M' i; qemu-img bitmap --disable i one",
	"qemu-img create -f qcow2 i 10M; qemu-io -c 'write 0 10M' -c 'discard 1M 3M' -c 'write 0 64k' i",
	"qemu-img create -f qcow2 -o lazy_refcounts=on i 10M; qemu-io -c 'write 0 1M' i",
};

START_TEST(test_good)
{
	struct qcow2_check c;

	must_sh("%s", good[_i]);
	compare_with_qemu("i");
	must_check("i", 0, &c);
	ck_assert_int_eq(lines, 0);
	ck_assert_uint_eq(c.corruptions + c.leaks + c.check_errors, 0);
	must_sh("md5sum i >sum");
	must_check("i", QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c);
	must_sh("md5sum -c sum"); /* there was nothing to repair */
}
END_TEST

/* --- damage -------------------------------------------------------------------------------------- */

/* An image whose clusters are known: header, refcount table, block, L1, L2, data from cluster 5 on; a snapshot of it, and then more. */
static void make_victim(void)
{
	must_sh("qemu-img create -f qcow2 i 100M; qemu-io -c 'write -P 1 0 1M' i; "
		"qemu-img snapshot -c a i; qemu-io -c 'write -P 2 512k 1M' -c 'write -z 3M 64k' i; "
		"cp i before");
}

enum {
	REFTABLE = 0x10000,
	REFBLOCK = 0x20000,
	L1 = 0x30000,
	L2 = 0x40000
};

static uint64_t active_l2(void)
{
	return peek("i", L1, 8) & QCOW2_L1_OFFSET;
}

static void damage_leak(void)
{
	poke("i", REFBLOCK + 2 * 100, 1, 2);
	poke("i", REFBLOCK + 2 * 7, 9, 2);
	must_sh("truncate -s 8M i");
}

static void damage_refcount_zero(void)
{
	poke("i", REFBLOCK + 2 * 6, 0, 2);
}

static void damage_refcount_low(void)
{
	poke("i", REFBLOCK + 2 * 6, 1, 2);
}

static void damage_no_block(void)
{
	poke("i", REFTABLE, 0, 8);
}

static void damage_block_unaligned(void)
{
	poke("i", REFTABLE, REFBLOCK + 512, 8);
}

static void damage_block_reserved(void)
{
	poke("i", REFTABLE, REFBLOCK + 1, 8);
}

static void damage_block_twice(void)
{
	poke("i", REFTABLE + 8, REFBLOCK, 8);
}

static void damage_block_is_l2(void)
{
	poke("i", REFTABLE, active_l2(), 8);
}

static void damage_l1_copied(void)
{
	poke("i", L1, active_l2(), 8);
}

static void damage_l1_reserved(void)
{
	poke("i", L1, peek("i", L1, 8) | 4, 8);
}

static void damage_l2_copied(void)
{
	uint64_t l2 = active_l2();

	poke("i", l2, peek("i", l2, 8) | QCOW2_COPIED, 8);
	poke("i", l2 + 8 * 10, peek("i", l2 + 8 * 10, 8) & ~QCOW2_COPIED, 8);
}

static void damage_l2_unaligned(void)
{
	uint64_t l2 = active_l2();

	poke("i", l2 + 8 * 10, peek("i", l2 + 8 * 10, 8) + 512, 8);
}

static void damage_l2_unaligned_zero(void)
{
	uint64_t l2 = active_l2();

	poke("i", l2 + 8 * 10, (peek("i", l2 + 8 * 10, 8) + 512) | QCOW2_ZERO, 8);
}

static void damage_l2_beyond(void)
{
	poke("i", active_l2() + 8 * 30, QCOW2_COPIED | 1ull << 40, 8);
}

static void damage_l2_reserved(void)
{
	uint64_t l2 = active_l2();

	poke("i", l2 + 8 * 10, peek("i", l2 + 8 * 10, 8) | 1ull << 58, 8);
}

static void damage_l2_header(void)
{
	poke("i", active_l2() + 8 * 30, QCOW2_COPIED | 1, 8);
	poke("i", active_l2() + 8 * 31, QCOW2_COPIED | L1, 8);
}

static void damage_l2_twice(void)
{
	uint64_t l2 = active_l2();

	poke("i", l2 + 8 * 10, peek("i", l2 + 8 * 11, 8), 8);
}

static void damage_table_shared(void)
{
	poke("i", L1 + 8, peek("i", L1, 8), 8);
}

static void damage_packed(void)
{
	poke("i", active_l2() + 8 * 10, QCOW2_COMPRESSED | QCOW2_COPIED | 0x60123, 8);
}

static void damage_snapshot_l1(void)
{
	uint64_t table = peek("i", 64, 8);

	poke("i", table, peek("i", table, 8) + 512, 8);
}

static void damage_dirty(void)
{
	poke("i", 72, QCOW2_INCOMPAT_DIRTY, 8);
	poke("i", REFBLOCK + 2 * 6, 1, 2);
}

static void damage_corrupt_mark(void)
{
	poke("i", 72, QCOW2_INCOMPAT_CORRUPT, 8);
}

static const struct {
	void (*damage)(void);
	bool same;	 /* as qemu-img counts */
	bool repairable; /* nothing remains, and the contents are as before */
} damages[] = {
	{damage_leak, true, true},
	{damage_refcount_zero, true, true},
	{damage_refcount_low, true, true},
	{damage_no_block, true, true},
	{damage_block_unaligned, false, true},
	{damage_block_reserved, false, true},
	{damage_block_twice, true, true},
	{damage_block_is_l2, false, true},
	{damage_l1_copied, true, true},
	{damage_l1_reserved, true, false},
	{damage_l2_copied, true, true},
	{damage_l2_unaligned, true, false},
	{damage_l2_unaligned_zero, true, false},
	{damage_l2_beyond, true, false},
	{damage_l2_reserved, true, false},
	{damage_l2_header, true, false},
	{damage_l2_twice, true, false},
	{damage_table_shared, true, false},
	{damage_packed, true, false},
	{damage_snapshot_l1, true, false},
	{damage_dirty, true, true},
	{damage_corrupt_mark, true, true},
};

START_TEST(test_damage)
{
	struct qcow2_check c, after;
	struct hako_error err;
	int ret;

	make_victim();
	damages[_i].damage();
	must_sh("cp i damaged");
	if (damages[_i].same)
		compare_with_qemu("i");
	ret = check("i", QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c, &err);
	ck_assert_msg(ret == 0, "%s", err.message);
	must_check("i", 0, &after);
	ck_assert_uint_eq(after.corruptions, c.corruptions);
	ck_assert_uint_eq(after.leaks, c.leaks);
	ck_assert_uint_eq(after.leaks, 0);
	if (damages[_i].repairable) {
		ck_assert_uint_eq(after.corruptions, 0);
		must_sh("qemu-img check i && qemu-img compare i before");
		must_sh("qemu-img snapshot -a a i && qemu-img snapshot -a a before && qemu-img compare i before");
		must_sh("qemu-io -c 'write -P 5 0 20M' -c 'read -P 5 0 20M' i && qemu-img check i");
	}
}
END_TEST

/* Without -r all only what loses nothing is done. */
START_TEST(test_fix_leaks_only)
{
	struct qcow2_check c;

	make_victim();
	damage_leak();
	damage_refcount_low();
	must_check("i", QCOW2_FIX_LEAKS, &c);
	ck_assert_uint_eq(c.leaks_fixed, 2);
	ck_assert_uint_eq(c.leaks, 0);
	ck_assert_uint_eq(c.corruptions, 2); /* and the flag that goes with it */
	ck_assert_uint_eq(c.corruptions_fixed, 0);
	must_sh("qemu-img check i; test $? = 2");
	must_check("i", QCOW2_FIX_ERRORS, &c);
	ck_assert_uint_eq(c.corruptions, 0);
	must_sh("qemu-img check i && qemu-img compare i before");
}
END_TEST

/* --- hostile images: quickly done, and without much memory --------------------------------------- */

static void hostile_l1_alias(void)
{
	/* All of a large L1 table names one L2 table, all of which names one cluster. */
	must_sh("qemu-img create -f qcow2 -o cluster_size=64k i 256T; qemu-io -c 'write 0 64k' i");
	for (int i = 0; i < 8192; i++)
		poke("i", L2 + 8 * i, QCOW2_COPIED | 0x50000, 8);
	must_sh("for i in $(seq 19); do n=$((8 << (i - 1))); dd if=i of=i conv=notrunc bs=8 count=$((n / 8)) "
		"skip=$((%u / 8)) seek=$(((%u + n) / 8)); done",
		(unsigned int)peek("i", 40, 8), (unsigned int)peek("i", 40, 8));
}

static void hostile_snapshots(void)
{
	must_sh("qemu-img create -f qcow2 i 1T; qemu-io -c 'write 0 64k' i; qemu-img snapshot -c a i");
	poke("i", 60, 65536, 4);
	must_sh("truncate -s 15T i");
}

static void hostile_long_file(void)
{
	must_sh("qemu-img create -f qcow2 i 1T; truncate -s 15T i");
	for (int i = 0; i < 8192; i++)
		poke("i", REFTABLE + 8 * i, (i + 3ull) << 21, 8);
}

static void hostile_no_blocks_long_file(void)
{
	hostile_long_file();
	poke("i", REFTABLE, 0, 8);
}

static void (*const hostile[])(void) = {
	hostile_l1_alias,
	hostile_snapshots,
	hostile_long_file,
	hostile_no_blocks_long_file,
};

START_TEST(test_hostile)
{
	struct qcow2_check c;
	struct hako_error err;

	hostile[_i]();
	check("i", 0, &c, &err);
	ck_assert_uint_gt(c.corruptions + c.check_errors, 0);
	check("i", QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c, &err);
}
END_TEST

/* --- what can not be checked --------------------------------------------------------------------- */

START_TEST(test_bad_header)
{
	static const struct {
		uint64_t offset, value;
		unsigned int size;
	} pokes[] = {
		{0, 0, 4},	   {4, 4, 4},
		{20, 8, 4},	   {20, 200, 4},
		{20, 22, 4},	   {32, 2, 4},
		{36, 5 << 20, 4},  {40, 0x30001, 8},
		{48, 0x10200, 8},  {56, 1000000, 4},
		{72, 1 << 10, 8},  {96, 7, 4},
		{100, 1 << 20, 4}, {112, 0x1ull << 63, 8},
		{116, 0x10000, 4},
	};
	struct qcow2_check c;
	struct hako_error err;

	for (unsigned int i = 0; i < ARRAY_SIZE(pokes); i++) {
		must_sh("qemu-img create -f qcow2 i 100M");
		poke("i", pokes[i].offset, pokes[i].value, pokes[i].size);
		ck_assert_msg(check("i", 0, &c, &err) < 0 || i == 13, "%u", i);
		ck_assert_msg(sh("qemu-img check -f qcow2 i") != 0 || i == 13, "%u", i);
	}
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("qcow2 check");
	TCase *tc = tcase_create("check");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, test_good, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(tc, test_damage, 0, ARRAY_SIZE(damages));
	tcase_add_test(tc, test_fix_leaks_only);
	tcase_add_loop_test(tc, test_hostile, 0, ARRAY_SIZE(hostile));
	tcase_add_test(tc, test_bad_header);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
