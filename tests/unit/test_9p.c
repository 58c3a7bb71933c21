/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L: what each request does. */
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "tests/unit/p9_test.h"

static void setup(void)
{
	umask(027);
	setup_vm();
	make_base();
	p9_begin("");
}

static void teardown(void)
{
	p9_end();
	teardown_vm();
	remove_base();
}

START_TEST(versions)
{
	ck_assert_int_eq(p9(P9_TVERSION, "ds", 4095, "9P2000.L"), EINVAL);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", 1u << 31, "9P2000.L"), 0);
	ck_assert_uint_eq(get_le32(BODY), P9_MSIZE_MAX);
	/* It has forgotten the fids. */
	ck_assert_int_eq(p9(P9_TGETATTR, "dq", 0, 0ull), EBADF);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", 8192, "9P2000"), 0);
	ck_assert_mem_eq(BODY + 4, "\7\0unknown", 9);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "", 0), EPROTO);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", 8192, "9P2000.L"), 0);
	ck_assert_int_eq(p9(P9_TAUTH, "dssd", 5, "", "", 0), EOPNOTSUPP);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, 5, "", "", 0), EINVAL);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "sub", 0), ENOENT);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "/", 0), 0);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "", 0), EINVAL);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", NOFID, NOFID, "", "", 0), EINVAL);
	ck_assert_int_eq(p9(200, ""), EOPNOTSUPP);
	ck_assert_int_eq(p9(P9_TWRITE, "dqdS", 0, 0ull, 9000, base, 200), EINVAL);
}
END_TEST

START_TEST(walks)
{
	struct stat st;

	mkdir(at("share/a"), 0755);
	mkdir(at("share/a/b"), 0755);
	put_file("share/a/b/f", "text");
	lstat(at("share/a/b/f"), &st);
	ck_assert_int_eq(p9(P9_TWALK, "ddwsss", 0, 1, 3, "a", "b", "f"), 0);
	ck_assert_uint_eq(get_le16(BODY), 3);
	ck_assert_uint_eq(BODY[2], 0x80);
	ck_assert_uint_eq(BODY[2 + 26], 0);
	ck_assert_uint_eq(get_le64(BODY + 2 + 26 + 5), st.st_ino);
	/* A part of it: told, but there is no new fid. */
	ck_assert_int_eq(p9(P9_TWALK, "ddwsss", 0, 2, 3, "a", "x", "f"), 0);
	ck_assert_uint_eq(get_le16(BODY), 1);
	ck_assert_int_eq(p9_clunk(2), EBADF);
	ck_assert_int_eq(p9_walk(0, 2, "x"), ENOENT);
	ck_assert_int_eq(p9_walk(1, 2, "x"), ENOTDIR);
	/* A number in use, the same number, a clone. */
	ck_assert_int_eq(p9_walk(0, 1, "a"), EINVAL);
	ck_assert_int_eq(p9(P9_TWALK, "ddw", 1, 2, 0), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddws", 2, 2, 1, ".."), ENOTDIR);
	ck_assert_int_eq(p9_clunk(2), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddwss", 0, 2, 2, "a", "b"), 0);
	ck_assert_int_eq(p9_walk(2, 2, "f"), 0);
	ck_assert_int_eq(p9(P9_TGETATTR, "dq", 2, ~0ull), 0);
	ck_assert_uint_eq(get_le64(BODY + 8 + 5), st.st_ino);
	ck_assert_uint_eq(get_le64(BODY + 8 + 13 + 12 + 16), 4);
	ck_assert_int_eq(p9_clunk(2), 0);
	ck_assert_int_eq(p9_clunk(2), EBADF);
}
END_TEST

START_TEST(data)
{
	char text[100];

	ck_assert_int_eq(p9_create(1, "f", O_RDWR | O_EXCL, 04755), 0);
	ck_assert_int_eq(p9_create(2, "f", O_RDWR | O_EXCL, 0644), EEXIST);
	ck_assert_int_eq(p9_write_text(1, 3, "hello"), 0);
	ck_assert_uint_eq(get_le32(BODY), 5);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 1, 1ull, 100), 0);
	ck_assert_uint_eq(get_le32(BODY), 7);
	ck_assert_mem_eq(BODY + 4, "\0\0hello", 7);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 1, 9ull, 100), 0);
	ck_assert_uint_eq(get_le32(BODY), 0);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 1, ~0ull, 100), EINVAL);
	/* What is asked for in vain: more than a message holds. */
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 1, 0ull, ~0u), 0);
	ck_assert_int_eq(p9(P9_TFSYNC, "dd", 1, 0), 0);
	ck_assert_int_eq(p9(P9_TFSYNC, "dd", 1, 1), 0);
	ck_assert_int_eq(p9(P9_TLOPEN, "dd", 1, O_RDWR), EINVAL);
	/* Another way to it, and it stays when the name has gone. */
	ck_assert_int_eq(p9_open(2, "f", O_RDONLY), 0);
	ck_assert_int_eq(p9_write_text(2, 0, "x"), EBADF);
	ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, "f", 0), 0);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 2, 3ull, 5), 0);
	ck_assert_mem_eq(BODY + 4, "hello", 5);
	ck_assert_int_eq(p9(P9_TGETATTR, "dq", 2, ~0ull), 0);
	ck_assert_uint_eq(get_le32(BODY + 8 + 13), S_IFREG | 04755); /* umask has no say */
	ck_assert_uint_eq(get_le64(BODY + 8 + 13 + 12), 0);	     /* links */
	/* Not opened, opened as another thing. */
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 0, 0ull, 5), EISDIR);
	ck_assert_int_eq(p9_open(3, "f", O_RDONLY), ENOENT);
	put_file("share/g", "0123456789");
	ck_assert_int_eq(p9_create(3, "g", O_WRONLY | O_TRUNC, 0600), 0);
	ck_assert_str_eq(file_text("share/g"), "");
	ck_assert_int_eq(p9_open(4, "g", 3), EINVAL);
	snprintf(text, sizeof(text), "%090d", 7);
	ck_assert_int_eq(p9_write_text(3, 0, text), 0);
	ck_assert_str_eq(file_text("share/g"), text);
	ck_assert_int_eq(p9(P9_TLOCK, "dbdqqds", 3, 1, 0, 0ull, 0ull, 7, "guest"), 0);
	ck_assert_uint_eq(BODY[0], 0);
	ck_assert_int_eq(p9(P9_TGETLOCK, "dbqqds", 3, 1, 5ull, 6ull, 7, "guest"), 0);
	ck_assert_uint_eq(BODY[0], F_UNLCK);
}
END_TEST

#define FILES 500

/* The names that a listing has, by pieces of @count bytes: each file once. */
static void list_all(uint32_t count)
{
	uint8_t seen[FILES] = {0};
	unsigned int dots = 0, n, k;
	uint64_t offset = 0;

	ck_assert_int_eq(p9_open(1, "d", O_RDONLY), 0);
	for (;;) {
		ck_assert_int_eq(p9(P9_TREADDIR, "dqd", 1, offset, count), 0);
		n = get_le32(BODY);
		ck_assert_uint_le(n, count);
		if (!n)
			break;
		for (uint8_t *p = BODY + 4, *end = p + n; p < end;) {
			unsigned int len = get_le16(p + 22);

			offset = get_le64(p + 13);
			if (p[24] == '.') {
				dots++;
				ck_assert_uint_eq(p[0], 0x80);
			} else {
				ck_assert_int_eq(sscanf((char *)p + 24, "file%3u", &k), 1);
				ck_assert_uint_lt(k, FILES);
				ck_assert_uint_eq(seen[k]++, 0);
				ck_assert_uint_eq(p[21], 8); /* DT_REG */
			}
			p += 24 + len;
			ck_assert(p <= end);
		}
	}
	for (k = 0; k < FILES; k++)
		ck_assert_uint_eq(seen[k], 1);
	ck_assert_uint_eq(dots, 2);
	ck_assert_int_eq(p9_clunk(1), 0);
}

START_TEST(directories)
{
	char name[64];

	ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 0, "d", 01777, getegid()), 0);
	ck_assert_uint_eq(BODY[0], 0x80);
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "share/d/file%03d%.*s", i, i % 20,
			 "longer and longer...");
		put_file(name, "");
	}
	list_all(60000);
	list_all(4000);
	list_all(64);
	ck_assert_int_eq(p9_open(1, "d", O_RDONLY), 0);
	ck_assert_int_eq(p9(P9_TREADDIR, "dqd", 1, 0ull, 10), 0);
	ck_assert_int_eq(p9(P9_TREADDIR, "dqd", 1, 0ull, 25), 0);
	ck_assert_int_eq(p9(P9_TREADDIR, "dqd", 0, 0ull, 25), EBADF);
	ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, "d", 0x200), ENOTEMPTY);
	ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, "d", 0), EISDIR);
	ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, "d", 1), EINVAL);
}
END_TEST

START_TEST(names)
{
	char target[4000];
	struct stat st;

	put_file("share/f", "f");
	ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 0, "d", 0755, getegid()), 0);
	ck_assert_int_eq(p9_walk(0, 1, "d"), 0);
	ck_assert_int_eq(p9_walk(0, 2, "f"), 0);
	ck_assert_int_eq(p9(P9_TLINK, "dds", 1, 2, "g"), 0);
	ck_assert_str_eq(file_text("share/d/g"), "f");
	ck_assert_int_eq(p9(P9_TRENAMEAT, "dsds", 1, "g", 0, "h"), 0);
	ck_assert(exists("share/h") && !exists("share/d/g"));
	ck_assert_int_eq(p9(P9_TRENAME, "dds", 2, 0, "x"), EOPNOTSUPP);
	ck_assert_int_eq(p9(P9_TREMOVE, "d", 2), EOPNOTSUPP);
	ck_assert_int_eq(p9_clunk(2), EBADF); /* as a failed Tremove has it */
	ck_assert_int_eq(p9(P9_TSYMLINK, "dssd", 0, "l", "../secret", getegid()), 0);
	ck_assert_uint_eq(BODY[0], 0x02);
	ck_assert_int_eq(p9_walk(0, 2, "l"), 0);
	ck_assert_int_eq(p9(P9_TREADLINK, "d", 2), 0);
	ck_assert_mem_eq(BODY, "\11\0../secret", 11);
	ck_assert_int_eq(p9(P9_TREADLINK, "d", 1), EINVAL);
	/* A link to a link is the link's second name. */
	ck_assert_int_eq(p9(P9_TLINK, "dds", 0, 2, "m"), 0);
	ck_assert_int_eq(lstat(at("share/m"), &st), 0);
	ck_assert(S_ISLNK(st.st_mode) && st.st_nlink == 2);
	memset(target, 't', sizeof(target));
	target[sizeof(target) - 1] = 0;
	ck_assert_int_eq(p9(P9_TSYMLINK, "dssd", 0, "long", target, getegid()), 0);
	ck_assert_int_eq(p9_walk(0, 3, "long"), 0);
	ck_assert_int_eq(p9(P9_TREADLINK, "d", 3), 0);
	ck_assert_uint_eq(get_le16(BODY), 3999);
	ck_assert_int_eq(p9(P9_TMKNOD, "dsdddd", 0, "pipe", S_IFIFO | 0622, 0, 0, getegid()), 0);
	ck_assert_int_eq(lstat(at("share/pipe"), &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFIFO | 0622);
	ck_assert_int_eq(p9(P9_TMKNOD, "dsdddd", 0, "null", S_IFCHR | 0666, 1, 3, getegid()),
			 EPERM);
	ck_assert_int_eq(p9(P9_TMKNOD, "dsdddd", 0, "disk", S_IFBLK | 0666, 8, 0, getegid()),
			 EPERM);
}
END_TEST

static int setattr(uint32_t fid, uint32_t valid, uint32_t mode, uint64_t size, uint64_t sec)
{
	return p9(P9_TSETATTR,
		  "ddddd"
		  "q"
		  "qqqq",
		  fid, valid, mode, geteuid(), getegid(), size, sec, 5ull, sec, 6ull);
}

START_TEST(attributes)
{
	struct stat st;

	put_file("share/f", "0123456789");
	ck_assert_int_eq(p9_walk(0, 1, "f"), 0);
	ck_assert_int_eq(setattr(1, 1 | 2 | 4, 06711, 0, 0), 0);
	ck_assert_int_eq(setattr(1, 8, 0, 4, 0), 0);
	ck_assert_str_eq(file_text("share/f"), "0123");
	ck_assert_int_eq(setattr(1, 0x1b0, 0, 0, 1000000000), 0);
	ck_assert_int_eq(lstat(at("share/f"), &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1000000000);
	ck_assert_int_eq(st.st_mtim.tv_nsec, 6);
	ck_assert_int_eq(st.st_atim.tv_nsec, 5);
	ck_assert_int_eq(setattr(1, 0x20, 0, 0, 0), 0); /* now */
	ck_assert_int_eq(lstat(at("share/f"), &st), 0);
	ck_assert_int_gt(st.st_mtim.tv_sec, 1000000000);
	ck_assert_int_eq(setattr(1, 8, 0, ~0ull, 0), EFBIG);
	ck_assert_int_eq(setattr(0, 8, 0, 0, 0), EISDIR);
	ck_assert_int_eq(setattr(0, 1, 0700, 0, 0), 0);
	ck_assert_int_eq(symlink("f", at("share/l")), 0);
	ck_assert_int_eq(p9_walk(0, 2, "l"), 0);
	ck_assert_int_eq(setattr(2, 1, 0700, 0, 0), EOPNOTSUPP);
	ck_assert_int_eq(setattr(2, 0x1b0, 0, 0, 1000000000), 0);
	ck_assert_int_eq(lstat(at("share/l"), &st), 0);
	ck_assert_int_eq(st.st_mtim.tv_sec, 1000000000);
	ck_assert_int_eq(p9(P9_TSTATFS, "d", 1), 0);
	ck_assert_uint_eq(get_le32(BODY), 0x01021997);
	ck_assert_uint_eq(get_le32(BODY + 56), 255);
}
END_TEST

START_TEST(extended_attributes)
{
	char value[16];

	put_file("share/f", "");
	if (setxattr(at("share/f"), "user.a", "1", 1, 0) < 0) {
		printf("skip unit/9p/extended_attributes %s has none\n", base);
		return;
	}
	ck_assert_int_eq(p9_walk(0, 1, "f"), 0);
	ck_assert_int_eq(p9(P9_TXATTRCREATE, "dsqd", 1, "user.b", 5ull, 0), 0);
	ck_assert_int_eq(p9_write_text(1, 1, "x"), ENOSPC);
	ck_assert_int_eq(p9_write_text(1, 0, "abc"), 0);
	ck_assert_int_eq(p9_write_text(1, 3, "def"), ENOSPC);
	ck_assert_int_eq(p9_write_text(1, 3, "de"), 0);
	ck_assert_int_eq(p9_clunk(1), 0);
	ck_assert_int_eq(getxattr(at("share/f"), "user.b", value, sizeof(value)), 5);
	ck_assert_mem_eq(value, "abcde", 5);
	ck_assert_int_eq(p9_walk(0, 1, "f"), 0);
	ck_assert_int_eq(p9(P9_TXATTRWALK, "dds", 1, 2, "user.b"), 0);
	ck_assert_uint_eq(get_le64(BODY), 5);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 2, 1ull, 100), 0);
	ck_assert_uint_eq(get_le32(BODY), 4);
	ck_assert_mem_eq(BODY + 4, "bcde", 4);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 2, 99ull, 100), 0);
	ck_assert_uint_eq(get_le32(BODY), 0);
	ck_assert_int_eq(p9(P9_TXATTRWALK, "dds", 1, 3, ""), 0);
	ck_assert_int_eq(p9(P9_TREAD, "dqd", 3, 0ull, 100), 0);
	ck_assert_uint_eq(get_le32(BODY), get_le32(reply.data) - 11);
	ck_assert_int_eq(p9(P9_TXATTRWALK, "dds", 1, 4, "user.x"), ENODATA);
	ck_assert_int_eq(p9_clunk(4), EBADF);
	/* Without a value it is removed; not all of a value is an error. */
	ck_assert_int_eq(p9(P9_TWALK, "ddw", 1, 4, 0), 0);
	ck_assert_int_eq(p9(P9_TXATTRCREATE, "dsqd", 4, "user.a", 0ull, 0), 0);
	ck_assert_int_eq(p9_write_text(4, 0, ""), 0);
	ck_assert_int_eq(p9_write_text(4, 1, ""), ENOSPC);
	ck_assert_int_eq(p9_write_text(4, 0, "x"), ENOSPC);
	ck_assert_int_eq(p9_clunk(4), 0);
	ck_assert_int_lt(getxattr(at("share/f"), "user.a", value, sizeof(value)), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddw", 1, 4, 0), 0);
	ck_assert_int_eq(p9(P9_TXATTRCREATE, "dsqd", 4, "user.a", 65537ull, 0), E2BIG);
	ck_assert_int_eq(p9(P9_TXATTRCREATE, "dsqd", 4, "user.a", 5ull, 0), 0);
	ck_assert_int_eq(p9_clunk(4), EINVAL);
	for (uint32_t i = 0; i < 255; i++)
		ck_assert_int_eq(p9(P9_TXATTRWALK, "dds", 1, 10 + i, "user.b"),
				 i < 254 ? 0 : EMFILE);
}
END_TEST

START_TEST(read_only)
{
	put_file("share/f", "f");
	p9_end();
	p9_begin(",readonly=on");
	ck_assert_int_eq(p9_open(1, "f", O_RDWR), EROFS);
	ck_assert_int_eq(p9_open(1, "f", O_RDONLY | O_TRUNC), EROFS);
	ck_assert_int_eq(p9_open(1, "f", O_RDONLY), 0);
	ck_assert_int_eq(p9_write_text(1, 0, "x"), EROFS);
	ck_assert_int_eq(p9_create(2, "g", O_RDWR, 0644), EROFS);
	ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 0, "g", 0755, 0), EROFS);
	ck_assert_int_eq(p9(P9_TSYMLINK, "dssd", 0, "g", "f", 0), EROFS);
	ck_assert_int_eq(p9(P9_TMKNOD, "dsdddd", 0, "g", S_IFIFO, 0, 0, 0), EROFS);
	ck_assert_int_eq(p9(P9_TLINK, "dds", 0, 1, "g"), EROFS);
	ck_assert_int_eq(p9(P9_TRENAMEAT, "dsds", 0, "f", 0, "g"), EROFS);
	ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, "f", 0), EROFS);
	ck_assert_int_eq(p9(P9_TXATTRCREATE, "dsqd", 1, "user.a", 0ull, 0), EROFS);
	ck_assert_int_eq(setattr(1, 1, 0, 0, 0), EROFS);
	ck_assert_str_eq(file_text("share/f"), "f");
	ck_assert(!exists("share/g"));
}
END_TEST

START_TEST(options)
{
	char text[512];

	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", "id=x"), -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", "path=/nowhere/at/all"), -ENOENT);
	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", "path=/proc"), -EOPNOTSUPP);
	snprintf(text, sizeof(text), "path=%s", at("secret"));
	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", text), -ENOTDIR);
	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", "path=/,security_model=mapped-xattr"),
			 -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_FSDEV, "local", "path=/,multidevs=warn"), -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "virtio-9p-device", "fsdev=x,mount_tag=a"),
			 -ENODEV);
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "virtio-9p-device", "fsdev=fs,mount_tag="),
			 -EINVAL);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("9p");
	TCase *tc = tcase_create("requests");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, versions);
	tcase_add_test(tc, walks);
	tcase_add_test(tc, data);
	tcase_add_test(tc, directories);
	tcase_add_test(tc, names);
	tcase_add_test(tc, attributes);
	tcase_add_test(tc, extended_attributes);
	tcase_add_test(tc, read_only);
	tcase_add_test(tc, options);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
