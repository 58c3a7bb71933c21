/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "dgram": between two addresses, over a socket that is there, by multicast. */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake_card.h"
#include "suite.h"

static const enum loop_engine engines[] = {LOOP_AUTO, LOOP_THREADS};

static void card_sends(struct card *c, size_t len, uint8_t fill)
{
	static uint8_t buf[70000];
	ssize_t n;

	memset(buf, fill, len);
	do {
		n = card_send(c, buf, len);
	} while (n == -EAGAIN);
	ck_assert_int_eq(n, len + CARD_HDR);
}

static void talk(struct card *a, struct card *b)
{
	for (int i = 0; i < 100; i++) {
		card_sends(a, 14 + 90 * i, i);
		expect_frame(b, 14 + 90 * i, i);
		card_sends(b, 14 + 50 * i, i);
		expect_frame(a, 14 + 50 * i, i);
	}
}

static int pair(struct card *c)
{
	char options[64];
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds), 0);
	snprintf(options, sizeof(options), "local.type=fd,local.str=%d", fds[0]);
	card_open(c, "dgram", options);
	return fds[1];
}

START_TEST(inet)
{
	struct card a = {.engine = engines[_i]}, b = {.engine = engines[_i]};
	const char *form = "local.type=inet,local.host=127.0.0.1,local.port=%u,"
			   "remote.type=inet,remote.host=127.0.0.1,remote.port=%u";
	unsigned int port = 20000 + getpid() % 20000;
	char options[160];

	snprintf(options, sizeof(options), form, port, port + 1);
	card_open(&a, "dgram", options);
	/* Nobody is there yet: what is sent is lost, and nothing else happens. */
	for (int i = 0; i < 10; i++)
		card_send(&a, options, 60);
	snprintf(options, sizeof(options), form, port + 1, port);
	card_open(&b, "dgram", options);
	talk(&a, &b);
	card_close(&a);
	card_close(&b);
}
END_TEST

START_TEST(unix_sockets)
{
	struct card a = {.engine = engines[_i]}, b = {.engine = engines[_i]};
	const char *form = "local.type=unix,local.path=/tmp/hako-test-dgram.%d.%d,"
			   "remote.type=unix,remote.path=/tmp/hako-test-dgram.%d.%d";
	char options[160];

	snprintf(options, sizeof(options), form, getpid(), 0, getpid(), 1);
	card_open(&a, "dgram", options);
	ck_assert_int_lt(card_send(&a, options, 60), 0);
	snprintf(options, sizeof(options), form, getpid(), 1, getpid(), 0);
	card_open(&b, "dgram", options);
	talk(&a, &b);
	/* It goes, and comes again. */
	card_close(&b);
	ck_assert_int_lt(card_send(&a, options, 60), 0);
	b = (struct card){.engine = engines[_i]};
	card_open(&b, "dgram", options);
	talk(&a, &b);
	card_close(&a);
	card_close(&b);
	snprintf(options, sizeof(options), "/tmp/hako-test-dgram.%d.0", getpid());
	ck_assert_int_ne(access(options, F_OK), 0);
}
END_TEST

/* A peer that does not take its frames: the card waits, without working, and nothing is lost. */
START_TEST(slow_peer)
{
	struct card a = {.engine = engines[_i]}, b = {.engine = engines[_i], .stalled = true};
	const char *form = "local.type=unix,local.path=/tmp/hako-test-dgram.%d.%d,"
			   "remote.type=unix,remote.path=/tmp/hako-test-dgram.%d.%d";
	char options[160];
	uint8_t buf[100];
	unsigned int n;

	snprintf(options, sizeof(options), form, getpid(), 0, getpid(), 1);
	card_open(&a, "dgram", options);
	snprintf(options, sizeof(options), form, getpid(), 1, getpid(), 0);
	card_open(&b, "dgram", options);
	for (n = 0; n < 10000; n++) {
		memset(buf, n, sizeof(buf));
		if (card_send(&a, buf, sizeof(buf)) == -EAGAIN)
			break;
	}
	ck_assert_uint_lt(n, 10000);
	for (int i = 0; i < 5000 && !__atomic_load_n(&a.writables, __ATOMIC_RELAXED); i++)
		usleep(1000);
	ck_assert_uint_eq(__atomic_load_n(&a.writables, __ATOMIC_RELAXED), 1);
	card_go(&b);
	for (unsigned int i = 0; i < n; i++)
		expect_frame(&b, sizeof(buf), i);
	talk(&a, &b);
	card_close(&a);
	card_close(&b);
}
END_TEST

/* Three on one wire: each hears the others. */
START_TEST(multicast)
{
	struct card c[3] = {{.engine = LOOP_AUTO}, {.engine = LOOP_THREADS}, {.engine = LOOP_AUTO}};
	struct object *obj;
	struct hako_error err;
	char options[160];
	struct vm *vm;
	int ret;

	snprintf(options, sizeof(options),
		 "remote.type=inet,remote.host=239.192.77.%d,remote.port=%d,"
		 "local.type=inet,local.host=127.0.0.1",
		 1 + getpid() % 250, 20000 + getpid() % 20000);
	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, &err), 0);
	ret = card_netdev(vm, "dgram", options, &obj, &err);
	vm_free_plain(vm);
	ck_assert_msg(!ret, "%s", err.message);
	for (int i = 0; i < 3; i++)
		card_open(&c[i], "dgram", options);
	for (int i = 0; i < 30; i++) {
		card_sends(&c[i % 3], 60 + i, i);
		for (int k = 0; k < 3; k++) /* the sender, too, as in QEMU */
			expect_frame(&c[k], 60 + i, i);
	}
	for (int i = 0; i < 3; i++)
		card_close(&c[i]);
}
END_TEST

/* Datagrams that are too short, too long, too many. */
START_TEST(hostile)
{
	struct card c = {.engine = engines[_i]};
	static uint8_t buf[100000];
	int fd = pair(&c), size = 1 << 20;

	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	for (size_t len = 0; len < 14; len++)
		ck_assert_int_eq(send(fd, buf, len, 0), len);
	ck_assert_int_eq(send(fd, buf, sizeof(buf), 0), sizeof(buf));
	memset(buf, 7, 60);
	ck_assert_int_eq(send(fd, buf, 60, 0), 60);
	expect_frame(&c, 60, 7);
	close(fd);
	/* and the peer has gone */
	ck_assert_int_lt(card_send(&c, buf, 60), 0);
	ck_assert_int_eq(card_send(&c, buf, 0), -EINVAL);
	card_close(&c);
}
END_TEST

static const struct {
	const char *options, *says;
} bad[] = {
	{"", "local.type is missing"},
	{"local.type=inet,local.port=0", "remote.type is missing"},
	{"local.type=unix,local.path=/tmp/hako-x", "remote.type is missing"},
	{"remote.type=inet,remote.host=127.0.0.1,remote.port=1", "local.type is missing"},
	{"remote.type=inet,remote.host=239.1.1.1", "remote.port is missing"},
	{"remote.type=fd,remote.str=1", "remote.type=fd"},
	{"local.type=fd,local.str=0", "local.str=0"},
	{"local.type=fd,local.str=0,remote.type=unix,remote.path=/tmp/x", "remote.type=unix"},
	{"local.type=unix,local.path=/tmp/x,remote.type=inet,remote.host=127.0.0.1,remote.port=1",
	 "remote.type=inet"},
	{"local.type=unix,local.path=/nonexistent/x,remote.type=unix,remote.path=/tmp/y",
	 "local.path=/nonexistent/x"},
	{"local.type=unix,remote.type=unix,remote.path=/tmp/y", "local.path is missing"},
	{"local.type=inet,local.host=192.0.2.1,local.port=0,remote.type=inet,remote.host=127.0.0.1,"
	 "remote.port=1",
	 "local.host=192.0.2.1"},
	{"remote.type=inet,remote.host=239.1.1.1,remote.port=9999,local.type=inet,"
	 "local.host=192.0.2.1",
	 "remote.host=239.1.1.1"},
	{"remote.type=inet,remote.host=239.1.1.1,remote.port=9999,local.type=unix,local.path=/tmp/x",
	 "local.type=unix"},
	{"local.type=unix,local.path=/tmp/x,remote.typ=unix", "remote.typ"},
};

START_TEST(bad_options)
{
	struct hako_error err = {0};
	struct object *obj;
	struct vm *vm;

	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, &err), 0);
	ck_assert_int_lt(card_netdev(vm, "dgram", bad[_i].options, &obj, &err), 0);
	ck_assert_msg(strstr(err.message, bad[_i].says), "%s: \"%s\"", bad[_i].options,
		      err.message);
	ck_assert_ptr_null(strchr(err.message, '\n'));
	vm_free_plain(vm);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("net_dgram");
	TCase *t = tcase_create("frames"), *e = tcase_create("errors");
	const int n = ARRAY_SIZE(engines);

	tcase_add_loop_test(t, inet, 0, n);
	tcase_add_loop_test(t, unix_sockets, 0, n);
	tcase_add_loop_test(t, slow_peer, 0, n);
	tcase_add_loop_test(t, hostile, 0, n);
	tcase_add_test(t, multicast);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(e, bad_options, 0, ARRAY_SIZE(bad));
	suite_add_tcase(s, t);
	suite_add_tcase(s, e);
	return run_suite(s);
}
