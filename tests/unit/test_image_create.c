/* SPDX-License-Identifier: GPL-2.0-only */
/* New images, as qemu-img sees them. */
#include "tests/unit/image_test.h"
#include "tests/unit/suite.h"

/* --- qcow2 ------------------------------------------------------------------------------------- */

static const char *const good[] = {
	"size=1G",
	"size=1",
	"size=0",
	"size=1000000",
	"size=10M,compat=0.10",
	"size=10M,compat=v2,backing_file=base.raw,backing_fmt=raw",
	"size=64T,cluster_size=2M",
	"size=16M,cluster_size=512",
	"size=10M,cluster_size=512,preallocation=metadata",
	"size=10M,cluster_size=4k,preallocation=falloc",
	"size=10M,preallocation=full",
	"size=10M,refcount_bits=1,preallocation=metadata",
	"size=10M,refcount_bits=2,preallocation=metadata,cluster_size=512",
	"size=10M,refcount_bits=4,preallocation=metadata,cluster_size=512",
	"size=10M,refcount_bits=8,preallocation=metadata,cluster_size=512",
	"size=10M,refcount_bits=32,preallocation=metadata,cluster_size=512",
	"size=10M,refcount_bits=64,preallocation=metadata,cluster_size=512",
	"size=10M,compat=0.10,preallocation=metadata",
	"size=10M,lazy_refcounts=on",
	"size=10M,compression_type=zstd",
	"size=10M,extended_l2=on",
	"size=10M,extended_l2=on,cluster_size=16k,preallocation=metadata",
	"size=4M,extended_l2=on,preallocation=metadata,backing_file=base.raw,backing_fmt=raw",
	"size=10M,data_file=data.raw",
	"size=10M,data_file=data.raw,data_file_raw=on",
	"size=10M,data_file=data.raw,preallocation=falloc,extended_l2=on,cluster_size=32k",
	"size=10M,nocow=on",
};

/* qemu-img finds nothing wrong, shows the same as for its own, and reads the same. */
START_TEST(test_good)
{
	const char *o = good[_i];

	must_sh("head -c 3M /dev/urandom >base.raw");
	must_create("qcow2", "ours", o);
	must_sh("qemu-img check -q ours");
	must_sh("qemu-img info -U ours | grep -Ev '^image|^disk size|^file' >ours.info; mv ours x.ours; rm -f data.raw");
	must_sh("qemu-img create -q -u -f qcow2 -o %s theirs", o);
	must_sh("qemu-img info -U theirs | grep -Ev '^image|^disk size|^file' >theirs.info");
	must_sh("diff theirs.info ours.info");
	must_sh("mv x.ours ours; qemu-img compare -q ours theirs");
	/* And it takes all that can be written. */
	if (!strstr(o, "64T") && !strstr(o, "size=0") && !strstr(o, "size=1,") && _i != 1) {
		must_sh("qemu-io -c 'write -P 3 0 900k' -c 'write -z 300k 100k' -c 'read -P 3 0 300k' ours");
		must_sh("qemu-img check -q ours");
	}
}
END_TEST

/* The same file lengths as those of qemu-img, to the cluster. */
START_TEST(test_length)
{
	const char *o = good[_i];
	struct stat a, b;

	if (strstr(o, "falloc") && strstr(o, "data_file"))
		return;
	must_sh("head -c 3M /dev/urandom >base.raw");
	must_create("qcow2", "ours", o);
	must_sh("qemu-img create -q -u -f qcow2 -o %s theirs", o);
	ck_assert_int_eq(stat("ours", &a), 0);
	ck_assert_int_eq(stat("theirs", &b), 0);
	ck_assert_msg(a.st_size <= b.st_size + 2 * MiB, "%s: %jd, qemu-img %jd", o,
		      (intmax_t)a.st_size, (intmax_t)b.st_size);
}
END_TEST

static const struct {
	const char *options, *message;
} bad[] = {
	{"cluster_size=64k", "size"},
	{"size=1M,foo=1", "foo"},
	{"size=1M,cluster_size=1000", "cluster_size"},
	{"size=1M,cluster_size=4M", "cluster_size"},
	{"size=1M,cluster_size=256", "cluster_size"},
	{"size=1M,refcount_bits=3", "refcount_bits"},
	{"size=1M,refcount_bits=0", "refcount_bits"},
	{"size=1M,refcount_bits=128", "refcount_bits"},
	{"size=1M,compat=0.10,refcount_bits=8", "refcount_bits"},
	{"size=1M,compat=0.10,lazy_refcounts=on", "lazy_refcounts"},
	{"size=1M,compat=v2,extended_l2=on", "extended_l2"},
	{"size=1M,compat=v2,compression_type=zstd", "compression_type"},
	{"size=1M,compat=v2,data_file=data.raw", "data_file"},
	{"size=1M,compat=v4", "compat"},
	{"size=1M,compression_type=lzo", "compression_type"},
	{"size=1M,extended_l2=on,cluster_size=8k", "extended_l2"},
	{"size=1M,extended_l2=maybe", "extended_l2"},
	{"size=1M,backing_fmt=raw", "backing_file"},
	{"size=1M,data_file_raw=on", "data_file"},
	{"size=1M,data_file=d,data_file_raw=on,backing_file=b,backing_fmt=raw", "backing_file"},
	{"size=1M,preallocation=metadata,backing_file=b,backing_fmt=raw", "extended_l2"},
	{"size=1M,preallocation=some", "preallocation"},
	{"size=1M,encryption=on", "encryption is not supported"},
	{"size=1M,encrypt.format=luks", "encryption is not supported"},
	{"size=129G,cluster_size=512", "size"},
	{"size=7E,cluster_size=64k", "size"},
	{"size=1M,data_file=ours", "ours"},
};

/* Each is refused, by qemu-img too, and the message names the option; a file that is there is left alone. */
START_TEST(test_bad)
{
	struct hako_error err;

	must_sh("echo precious >ours");
	ck_assert_int_lt(create("qcow2", "ours", bad[_i].options, &err), 0);
	ck_assert_msg(strstr(err.message, bad[_i].message) != NULL, "%s: %s", bad[_i].options,
		      err.message);
	if (!strstr(bad[_i].options, "data_file=ours"))
		must_sh("test $(cat ours) = precious");
	if (!strstr(bad[_i].options, "data_file=ours"))
		ck_assert_int_ne(sh("qemu-img create -q -u -f qcow2 -o %s theirs", bad[_i].options),
				 0);
}
END_TEST

START_TEST(test_names_too_long)
{
	char options[3000], name[1100];
	struct hako_error err;

	memset(name, 'x', sizeof(name));
	name[sizeof(name) - 1] = 0;
	snprintf(options, sizeof(options), "size=1M,backing_file=%s", name);
	ck_assert_int_eq(create("qcow2", "ours", options, &err), -EINVAL);
	name[1023] = 0;
	snprintf(options, sizeof(options), "size=1M,backing_file=%s", name);
	must_create("qcow2", "ours", options);
	must_sh("qemu-img info -U ours | grep -q %s", name);
	/* A small cluster has no room for it. */
	snprintf(options, sizeof(options), "size=1M,cluster_size=512,backing_file=%s", name);
	ck_assert_int_eq(create("qcow2", "ours2", options, &err), -EINVAL);
}
END_TEST

/* --- measure ----------------------------------------------------------------------------------- */

START_TEST(test_measure)
{
	static const char *const options[] = {
		"size=1G",
		"size=10M,cluster_size=512",
		"size=1T,cluster_size=2M",
		"size=100M,refcount_bits=1",
		"size=100M,refcount_bits=64,cluster_size=4k",
		"size=100M,extended_l2=on",
		"size=12345678",
		"size=1G,preallocation=full",
		"size=1G,preallocation=falloc",
		"size=1G,preallocation=metadata",
	};
	const struct image_format *fmt = image_format_find("qcow2");

	for (unsigned int i = 0; i < ARRAY_SIZE(options); i++) {
		struct keyvals kv = {0};
		struct hako_error err;
		struct image_measure m;
		char expected[200];
		void *o;

		ck_assert_int_eq(keyvals_parse(&kv, options[i], NULL, &err), 0);
		ck_assert_int_eq(image_options_new(fmt, &kv, &o, &err), 0);
		ck_assert_msg(fmt->measure(o, 0, &m, &err) == 0, "%s", err.message);
		image_options_free(fmt, o);
		keyvals_free(&kv);
		must_sh("o=%s,; s=${o%%%%,*}; o=${o#$s,}; qemu-img measure -O qcow2 ${o:+-o ${o%%,}} --size ${s#size=}",
			options[i]);
		snprintf(expected, sizeof(expected),
			 "required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
			 m.required, m.fully_allocated);
		ck_assert_msg(!strcmp(sh_output(), expected), "%s: %s instead of %s", options[i],
			      expected, sh_output());
	}
}
END_TEST

/* --- raw --------------------------------------------------------------------------------------- */

START_TEST(test_raw)
{
	struct hako_error err;
	struct stat st;

	must_create("raw", "sparse", "size=1000000");
	ck_assert_int_eq(stat("sparse", &st), 0);
	ck_assert_int_eq(st.st_size, 1000448); /* whole sectors */
	ck_assert_int_eq(st.st_blocks, 0);
	must_create("raw", "full", "size=1M,preallocation=full");
	ck_assert_int_eq(stat("full", &st), 0);
	ck_assert_int_ge(st.st_blocks, 2048);
	must_create("raw", "falloc", "size=1M,preallocation=falloc");
	ck_assert_int_eq(stat("falloc", &st), 0);
	ck_assert_int_ge(st.st_blocks, 2048);
	ck_assert_int_eq(create("raw", "x", "size=1M,preallocation=metadata", &err), -EINVAL);
	ck_assert_int_eq(create("raw", "x", "size=1M,cluster_size=64k", &err), -EINVAL);
	ck_assert_int_eq(create("raw", "no/dir", "size=1M", &err), -ENOENT);
	ck_assert_int_eq(create("raw", "/dev/null", "size=1M", &err), -EINVAL);
	ck_assert_int_eq(create("raw", "x", "size=16E", &err), -ERANGE);
	ck_assert_int_eq(create("raw", "x", "size=9223372036854775807", &err), -EFBIG);
}
END_TEST

/* An image that somebody has open is not overwritten. */
START_TEST(test_locked)
{
	struct hako_error err;

	must_create("raw", "image", "size=1M");
	must_sh("qemu-io -f raw -c 'write -P 7 0 1M' image");
	must_sh("{ qemu-io -f raw -c 'sleep 100000' image & echo $! >pid; } ; for i in $(seq 100); do "
		"qemu-img info -f raw image || break; sleep 0.05; done");
	ck_assert_int_eq(create("raw", "image", "size=2M", &err), -EBUSY);
	ck_assert_int_eq(create("qcow2", "image", "size=2M", &err), -EBUSY);
	must_sh("kill $(cat pid)");
	must_sh("sleep 0.2; qemu-io -f raw -r -c 'read -P 7 0 1M' image | grep -v failed");
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("image creation");
	TCase *tc = tcase_create("create");

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, enter_image_dir, leave_image_dir);
	tcase_add_loop_test(tc, test_good, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(tc, test_length, 0, ARRAY_SIZE(good));
	tcase_add_loop_test(tc, test_bad, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, test_names_too_long);
	tcase_add_test(tc, test_measure);
	tcase_add_test(tc, test_raw);
	tcase_add_test(tc, test_locked);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
