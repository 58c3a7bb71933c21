/* SPDX-License-Identifier: GPL-2.0-only */
/* Changes of what was chosen when a qcow2 image was made, judged by qemu-img and qemu-io. */
#include "tests/unit/manage_test.h"
#include "tests/unit/suite.h"

static struct hako_error err;

#define OK(CALL) ck_assert_msg((CALL) == 0, #CALL ": %s", err.message)

static int amend(const char *options)
{
	struct block_node *file = must_open("i", "file", "", OPEN_RW);
	struct qcow2_amend o = {0};
	struct keyvals kv = {0};
	int ret;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_int_eq(options_defaults(qcow2_amend_options, &o, &err), 0);
	ret = options_apply(qcow2_amend_options, &o, &kv, true, &err);
	if (ret == 0)
		ret = qcow2_amend(file, &o, &err);
	options_free(qcow2_amend_options, &o);
	keyvals_free(&kv);
	close_node(file);
	return ret;
}

static void check_clean(void)
{
	struct block_node *file = must_open("i", "file", "", 0);
	struct qcow2_check c = {.fix = 0};

	OK(qcow2_check(file, &c, &err));
	close_node(file);
	ck_assert_uint_eq(c.corruptions + c.leaks + c.check_errors, 0);
	must_sh("qemu-img check -q i");
}

/* With data, zeroes, a snapshot of other data, and compressed clusters. */
static void make(const char *options)
{
	must_sh("qemu-img create -q -f qcow2 %s i 20M && qemu-io -c 'write -P 1 0 3M' -c 'write -z 1M 1M' i && "
		"qemu-img snapshot -c a i && qemu-io -c 'write -P 2 2M 3M' -c 'write -z 4M 64k' -c 'write -z 9M 64k' -c 'write -c -P 3 10M 64k' i && cp i before",
		options);
}

static void same_contents(void)
{
	check_clean();
	must_sh("qemu-img compare i before");
	must_sh("qemu-img convert -l a -O raw i x && qemu-img convert -l a -O raw before y && cmp x y");
	must_sh("qemu-io -c 'write -P 5 0 20M' i");
	check_clean();
}

START_TEST(test_refcount_bits)
{
	static const unsigned int widths[] = {1, 2, 4, 8, 32, 64};
	char options[50];

	make(_i & 1 ? "-o cluster_size=4k" : "");
	snprintf(options, sizeof(options), "refcount_bits=%u", widths[_i / 2]);
	/* Of 4 KiB, 16 compressed clusters are in one. */
	if (widths[_i / 2] == 1 || (_i & 1 && widths[_i / 2] <= 4)) {
		ck_assert_int_eq(amend(options), -ERANGE);
		same_contents();
		return;
	}
	OK(amend(options));
	must_sh("qemu-img info i | grep -q 'refcount bits: %u$'", widths[_i / 2]);
	OK(amend("refcount_bits=16"));
	same_contents();
}
END_TEST

START_TEST(test_compat)
{
	make("-o lazy_refcounts=on");
	OK(amend("compat=0.10"));
	must_sh("qemu-img info i | grep -q 'compat: 0.10'");
	same_contents();
	must_sh("cp i before");
	OK(amend("compat=1.1,lazy_refcounts=on,refcount_bits=8"));
	must_sh("qemu-img info i >info; grep -q 'compat: 1.1' info && grep -q 'lazy refcounts: true' info && grep -q 'refcount bits: 8' info");
	OK(amend("lazy_refcounts=off"));
	must_sh("qemu-img info i | grep -q 'lazy refcounts: false'");
	same_contents();
}
END_TEST

/* Zeroes hide what the backing file has, in version 2 too. */
START_TEST(test_compat_backing)
{
	must_sh("qemu-img create -q -f raw b 20M && qemu-io -f raw -c 'write -P 9 0 20M' b");
	make("-b b -F raw");
	OK(amend("compat=v2"));
	must_sh("! qemu-io -c 'read -P 0 1M 1M' -c 'read -P 2 2M 2M' -c 'read -P 0 4M 64k' -c 'read -P 0 9M 64k' -c 'read -P 9 11M 9M' i | grep failed");
	same_contents();
}
END_TEST

START_TEST(test_backing)
{
	struct block_node *node;

	must_sh("qemu-img create -q -f raw b 20M && qemu-img create -q -f qcow2 c 20M");
	make("");
	OK(amend("backing_file=b,backing_fmt=raw"));
	must_sh("qemu-img info i >info; grep -q 'backing file: b' info && grep -q 'backing file format: raw' info");
	node = must_open("i", "qcow2", "", OPEN_RW);
	OK(qcow2_change_backing(node, "c", "qcow2", &err));
	close_node(node);
	must_sh("qemu-img info i >info; grep -q 'backing file: c' info && grep -q 'backing file format: qcow2' info");
	OK(amend("backing_file="));
	ck_assert_int_ne(sh("qemu-img info i | grep backing"), 0);
	same_contents();
}
END_TEST

START_TEST(test_refused)
{
	make("");
	ck_assert_int_eq(amend("refcount_bits=3"), -EINVAL);
	ck_assert_int_eq(amend("cluster_size=4k"), -EINVAL);
	ck_assert_int_eq(amend("data_file=x"), -EINVAL);
	ck_assert_int_eq(amend("compat=v2,lazy_refcounts=on"), -EINVAL);
	ck_assert_int_eq(amend("compat=v2,refcount_bits=8"), -EINVAL);
	ck_assert_int_eq(amend("backing_fmt=raw"), -EINVAL);
	same_contents();
	make("-o extended_l2=on");
	ck_assert_int_eq(amend("compat=v2"), -ENOTSUP);
	same_contents();
	make("-o compression_type=zstd");
	ck_assert_int_eq(amend("compat=v2"), -ENOTSUP);
	must_sh("qemu-img bitmap --add i b");
	ck_assert_int_eq(amend("compat=v2"), -ENOTSUP);
	same_contents();
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("qcow2 amend");
	TCase *tc = tcase_create("amend");

	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, set_up, tear_down);
	tcase_add_loop_test(tc, test_refcount_bits, 0, 12);
	tcase_add_test(tc, test_compat);
	tcase_add_test(tc, test_compat_backing);
	tcase_add_test(tc, test_backing);
	tcase_add_test(tc, test_refused);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
