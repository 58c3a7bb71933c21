/* SPDX-License-Identifier: GPL-2.0-only */
/* Object "filter-dump": what it writes, and what it refuses. */
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_card.h"
#include "suite.h"

struct record {
	uint32_t sec, usec, stored, len;
};

static int new_dump(struct vm *vm, const char *options, struct object **obj, struct hako_error *err)
{
	struct keyvals kv = {0};
	int ret = keyvals_parse(&kv, options, NULL, err);

	if (!ret)
		ret = object_new(vm, class_find(CLASS_OBJECT, "filter-dump"), &kv, obj, err);
	keyvals_free(&kv);
	return ret;
}

/* A card on a socket pair whose frames are dumped: the other end. */
static int open_dumped(struct card *c, const char *path, const char *more)
{
	struct hako_error err;
	char options[200];
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	snprintf(options, sizeof(options), "id=n0,local.type=fd,local.str=%d", fds[0]);
	card_open(c, "dgram", options);
	snprintf(options, sizeof(options), "netdev=n0,file=%s%s", path, more);
	ck_assert_msg(!new_dump(c->vm, options, NULL, &err), "%s", err.message);
	return fds[1];
}

static void file_name(char name[64])
{
	snprintf(name, 64, "/tmp/hako-test-dump.%d", getpid());
}

/* The next record, whose bytes are all @fill. */
static void expect_record(FILE *f, uint32_t stored, uint32_t len, int fill)
{
	struct record r;

	ck_assert_uint_eq(fread(&r, 1, sizeof(r), f), sizeof(r));
	ck_assert_uint_eq(r.stored, stored);
	ck_assert_uint_eq(r.len, len);
	ck_assert_uint_lt(r.usec, 1000000);
	ck_assert_int_le(labs((long)r.sec - (long)time(NULL)), 60);
	for (uint32_t i = 0, bad = 0; i < stored; i++) {
		bad += fgetc(f) != fill;
		if (i + 1 == stored)
			ck_assert_uint_eq(bad, 0);
	}
}

static FILE *open_file(const char *path, uint32_t maxlen)
{
	const uint32_t expected[6] = {0xa1b2c3d4, 2 | 4 << 16, 0, 0, maxlen, 1};
	FILE *f = fopen(path, "rb");
	uint32_t header[6];

	ck_assert_ptr_nonnull(f);
	ck_assert_uint_eq(fread(header, 1, sizeof(header), f), sizeof(header));
	ck_assert_mem_eq(header, expected, sizeof(header));
	return f;
}

static const struct {
	const char *more;
	bool from_guest, to_guest;
	uint32_t maxlen;
} kinds[] = {
	{"", true, true, 65536},
	{",queue=rx", true, false, 65536},
	{",queue=tx", false, true, 65536},
	{",maxlen=100", true, true, 100},
};

START_TEST(records)
{
	static uint8_t buf[9000];
	struct card c = {.engine = LOOP_AUTO};
	uint32_t max = kinds[_i].maxlen;
	char path[64];
	FILE *f;
	int fd;

	file_name(path);
	fd = open_dumped(&c, path, kinds[_i].more);
	for (uint32_t i = 1; i <= 20; i++) {
		memset(buf, i, sizeof(buf));
		ck_assert_int_eq(card_send(&c, buf, 60 * i), 60 * i + CARD_HDR);
		memset(buf, i + 100, sizeof(buf));
		ck_assert_int_eq(send(fd, buf, 70 * i, 0), 70 * i);
		free(card_next(&c, 5000));
	}
	close(fd);
	card_close(&c);
	f = open_file(path, max);
	for (uint32_t i = 1; i <= 20; i++) {
		if (kinds[_i].from_guest)
			expect_record(f, MIN(60 * i, max), 60 * i, i);
		if (kinds[_i].to_guest)
			expect_record(f, MIN(70 * i, max), 70 * i, i + 100);
	}
	ck_assert_int_eq(fgetc(f), EOF);
	fclose(f);
	unlink(path);
}
END_TEST

/* A frame that the network does not take now is written once, when it does. */
START_TEST(sent_again)
{
	struct card c = {.engine = LOOP_AUTO};
	static uint8_t buf[60];
	unsigned int sent = 0;
	struct stat st;
	char path[64];
	int fd;

	file_name(path);
	fd = open_dumped(&c, path, "");
	while (card_send(&c, buf, sizeof(buf)) != -EAGAIN)
		sent++;
	ck_assert_int_eq(card_send(&c, buf, sizeof(buf)), -EAGAIN);
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_uint_eq(st.st_size, 24 + sent * (16 + sizeof(buf)));
	close(fd);
	card_close(&c);
	unlink(path);
}
END_TEST

static const struct {
	const char *options, *says;
} bad[] = {
	{"file=/tmp/x", "netdev"},
	{"netdev=n0", "file"},
	{"netdev=n1,file=/tmp/x", "netdev=n1"},
	{"netdev=n0,file=/nonexistent/x", "file=/nonexistent/x: No such"},
	{"netdev=n0,file=/dev/full", "file=/dev/full: No space"},
	{"netdev=n0,file=/tmp/x,maxlen=0", "maxlen=0"},
	{"netdev=n0,file=/tmp/x,queue=both", "queue=both"},
	{"netdev=n0,file=/tmp/x,snaplen=9", "snaplen"},
};

START_TEST(bad_options)
{
	struct card c = {.engine = LOOP_AUTO};
	struct hako_error err = {0};
	char path[64];

	file_name(path);
	close(open_dumped(&c, path, ",id=first"));
	ck_assert_int_eq(new_dump(c.vm, "netdev=n0,file=/tmp/x", NULL, &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.message, "first"));
	object_destroy(object_find(c.vm, CLASS_OBJECT, "first"));
	ck_assert_int_lt(new_dump(c.vm, bad[_i].options, NULL, &err), 0);
	ck_assert_msg(strstr(err.message, bad[_i].says), "%s: \"%s\"", bad[_i].options,
		      err.message);
	ck_assert_ptr_null(strchr(err.message, '\n'));
	card_close(&c);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("net_dump");
	TCase *t = tcase_create("dump");

	tcase_add_loop_test(t, records, 0, ARRAY_SIZE(kinds));
	tcase_add_test(t, sent_again);
	tcase_add_loop_test(t, bad_options, 0, ARRAY_SIZE(bad));
	suite_add_tcase(s, t);
	return run_suite(s);
}
