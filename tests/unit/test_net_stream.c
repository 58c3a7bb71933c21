/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "stream": framing, hostile peers, peers that vanish. */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake_card.h"
#include "suite.h"

static const enum loop_engine engines[] = {LOOP_AUTO, LOOP_THREADS};

/* --- a peer ------------------------------------------------------------------------------------ */

/* A card whose connection is a socket pair: the other end. */
static int pair(struct card *c)
{
	char options[64];
	int fds[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	snprintf(options, sizeof(options), "addr.type=fd,addr.str=%d", fds[0]);
	card_open(c, "stream", options);
	return fds[1];
}

static void send_all(int fd, const void *data, size_t len)
{
	ck_assert_int_eq(send(fd, data, len, MSG_NOSIGNAL), len);
}

/* Exactly @len bytes, or less at the end of the connection. */
static size_t recv_all(int fd, void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		ck_assert_int_eq(poll(&p, 1, 5000), 1);
		n = recv(fd, (char *)data + done, len - done, 0);
		if (n <= 0)
			break;
		done += n;
	}
	return done;
}

static size_t put_frame(uint8_t *to, uint32_t len, uint8_t fill)
{
	uint32_t be = htonl(len);

	memcpy(to, &be, 4);
	memset(to + 4, fill, len);
	return 4 + len;
}

static void expect_from_card(int fd, size_t len, uint8_t fill)
{
	static uint8_t buf[70000];
	uint32_t be;

	ck_assert_uint_eq(recv_all(fd, &be, 4), 4);
	ck_assert_uint_eq(ntohl(be), len);
	ck_assert_uint_eq(recv_all(fd, buf, len), len);
	ck_assert(all_are(buf, len, fill));
}

static void card_sends(struct card *c, size_t len, uint8_t fill)
{
	static uint8_t buf[70000];

	memset(buf, fill, len);
	ck_assert_int_eq(card_send(c, buf, len), len + CARD_HDR);
}

/* The card's end is closed. */
static void expect_end(int fd)
{
	char c;

	ck_assert_uint_eq(recv_all(fd, &c, 1), 0);
	close(fd);
}

/* --- framing ----------------------------------------------------------------------------------- */

START_TEST(both_ways)
{
	static const size_t sizes[] = {14, 60, 1514, 9014, 65550, 69632};
	static uint8_t buf[6 * 70000];
	struct card c = {.engine = engines[_i]};
	int fd = pair(&c);

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		send_all(fd, buf, put_frame(buf, sizes[i], i));
		expect_frame(&c, sizes[i], i);
		card_sends(&c, sizes[i], 0x80 + i);
		expect_from_card(fd, sizes[i], 0x80 + i);
	}
	close(fd);
	card_close(&c);
}
END_TEST

/* Reads that end anywhere: in the length, in the frame, between. */
START_TEST(pieces)
{
	struct card c = {.engine = engines[_i]};
	uint8_t buf[4000];
	int fd = pair(&c);
	size_t len = 0;

	for (int i = 0; i < 20; i++)
		len += put_frame(buf + len, 14 + 7 * i, i);
	for (size_t piece = 1, at = 0; at < len; piece = piece % 5 + 1) {
		size_t n = MIN(piece, len - at);

		send_all(fd, buf + at, n);
		at += n;
		if (at % 3 == 0)
			usleep(200);
	}
	for (int i = 0; i < 20; i++)
		expect_frame(&c, 14 + 7 * i, i);
	close(fd);
	card_close(&c);
}
END_TEST

/* Less than an Ethernet header is no frame; what follows is read all the same. */
START_TEST(runts)
{
	struct card c = {.engine = engines[_i]};
	int fd = pair(&c);
	uint8_t buf[1000];
	size_t len = 0;

	for (uint32_t i = 0; i < 14; i++)
		len += put_frame(buf + len, i, 1);
	len += put_frame(buf + len, 14, 2);
	send_all(fd, buf, len);
	expect_frame(&c, 14, 2);
	ck_assert_ptr_null(card_next(&c, 50));
	close(fd);
	card_close(&c);
}
END_TEST

START_TEST(hostile_lengths)
{
	static const uint32_t lengths[] = {69633, 0x00ffffff, 0x7fffffff, 0x80000000, 0xffffffff};
	uint8_t buf[100];

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		struct card c = {.engine = engines[_i]};
		uint32_t be = htonl(lengths[i]);
		int fd = pair(&c);

		send_all(fd, buf, put_frame(buf, 20, 5));
		send_all(fd, &be, 4);
		expect_frame(&c, 20, 5);
		expect_end(fd);
		ck_assert_int_eq(card_send(&c, buf, 60), -ENOTCONN);
		card_close(&c);
	}
}
END_TEST

START_TEST(odd_sends)
{
	struct card c = {.engine = engines[_i]};
	static uint8_t big[70000];
	int fd = pair(&c);

	ck_assert_int_eq(card_send(&c, big, 0), -EINVAL);
	ck_assert_int_eq(card_send(&c, big, 69633), -EMSGSIZE);
	card_sends(&c, 60, 1);
	expect_from_card(fd, 60, 1);
	close(fd);
	card_close(&c);
}
END_TEST

/* --- back pressure ----------------------------------------------------------------------------- */

/* A peer that does not read: the card has to wait, and nothing is lost or cut. */
START_TEST(slow_reader)
{
	struct card c = {.engine = engines[_i]};
	unsigned int sent = 0, read = 0, writables;
	static uint8_t buf[1500];
	int fd = pair(&c);

	while (sent < 10000) {
		memset(buf, sent, sizeof(buf));
		if (card_send(&c, buf, sizeof(buf)) != sizeof(buf) + CARD_HDR)
			break;
		sent++;
	}
	ck_assert_uint_gt(sent, 50);
	ck_assert_uint_lt(sent, 10000);
	ck_assert_int_eq(card_send(&c, buf, sizeof(buf)), -EAGAIN);
	writables = __atomic_load_n(&c.writables, __ATOMIC_RELAXED);
	for (; read < sent; read++)
		expect_from_card(fd, sizeof(buf), read);
	for (int i = 0; i < 5000 && __atomic_load_n(&c.writables, __ATOMIC_RELAXED) == writables;
	     i++)
		usleep(1000);
	ck_assert_uint_eq(__atomic_load_n(&c.writables, __ATOMIC_RELAXED), writables + 1);
	card_sends(&c, 100, 9);
	expect_from_card(fd, 100, 9);
	close(fd);
	card_close(&c);
}
END_TEST

/* A card without buffers: the peer has to wait. */
START_TEST(slow_card)
{
	struct card c = {.engine = engines[_i], .stalled = true};
	static uint8_t buf[1504];
	int fd = pair(&c);
	unsigned int n;
	ssize_t ret = 0;
	size_t part = 0;

	for (n = 0; n < 100000; n++) {
		put_frame(buf, 1500, n);
		ret = send(fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (ret != sizeof(buf))
			break;
	}
	ck_assert_uint_lt(n, 10000);
	if (ret > 0)
		part = ret;
	card_go(&c);
	for (unsigned int i = 0; i < n; i++)
		expect_frame(&c, 1500, i);
	if (part) {
		send_all(fd, buf + part, sizeof(buf) - part);
		expect_frame(&c, 1500, n);
	}
	close(fd);
	card_close(&c);
}
END_TEST

/* The driver resets the card in the middle of frames. */
START_TEST(restart)
{
	struct card c = {.engine = engines[_i]};
	int fd = pair(&c);
	uint8_t buf[200];

	for (int i = 0; i < 20; i++) {
		size_t len = put_frame(buf, 100, i);

		send_all(fd, buf, 1 + 5 * i);
		usleep(1000);
		loop_call(c.loop, card_stop_in_loop, &c);
		loop_call(c.loop, card_start_in_loop, &c);
		send_all(fd, buf + 1 + 5 * i, len - 1 - 5 * i);
		expect_frame(&c, 100, i);
		card_sends(&c, 70, i);
		expect_from_card(fd, 70, i);
	}
	close(fd);
	card_close(&c);
}
END_TEST

/* --- connections ------------------------------------------------------------------------------- */

static void socket_path(char path[64])
{
	static int n;

	snprintf(path, 64, "/tmp/hako-test-stream.%d.%d", getpid(), n++);
}

static struct sockaddr_un unix_address(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	strcpy(sun.sun_path, path);
	return sun;
}

static int dial(const char *path)
{
	struct sockaddr_un sun = unix_address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	return fd;
}

static int listen_unix(const char *path)
{
	struct sockaddr_un sun = unix_address(path);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	ck_assert_int_eq(listen(fd, 1), 0);
	return fd;
}

/* Peers come and go, some in the middle of a frame, some with frames they did not read. */
START_TEST(server)
{
	struct card c = {.engine = engines[_i]};
	char path[64], options[128];
	uint8_t buf[3000];

	socket_path(path);
	snprintf(options, sizeof(options), "server=on,addr.type=unix,addr.path=%s", path);
	card_open(&c, "stream", options);
	ck_assert_int_eq(card_send(&c, buf, 60), -ENOTCONN);
	for (int i = 0; i < 10; i++) {
		int fd = dial(path);

		send_all(fd, buf, put_frame(buf, 60, i));
		expect_frame(&c, 60, i);
		card_sends(&c, 80, i);
		expect_from_card(fd, 80, i);
		if (i % 3 == 1)
			send_all(fd, buf, 30); /* the beginning of a frame */
		if (i % 3 == 2)
			card_sends(&c, 2000, 1);
		close(fd);
	}
	card_close(&c);
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

/* A second peer waits until the first has gone. */
START_TEST(one_at_a_time)
{
	struct card c = {.engine = engines[_i]};
	char path[64], options[128];
	uint8_t buf[100];
	int a, b;

	socket_path(path);
	snprintf(options, sizeof(options), "server=on,addr.type=unix,addr.path=%s", path);
	card_open(&c, "stream", options);
	a = dial(path);
	send_all(a, buf, put_frame(buf, 60, 1));
	expect_frame(&c, 60, 1);
	b = dial(path);
	send_all(b, buf, put_frame(buf, 60, 2));
	ck_assert_ptr_null(card_next(&c, 50));
	close(a);
	expect_frame(&c, 60, 2);
	close(b);
	card_close(&c);
}
END_TEST

/* The server is not there at first, goes in the middle of a frame that the card sends, and comes again. */
START_TEST(reconnect)
{
	struct card c = {.engine = engines[_i]};
	static uint8_t buf[60000];
	char path[64], options[128];

	socket_path(path);
	snprintf(options, sizeof(options), "addr.type=unix,addr.path=%s,reconnect=1", path);
	card_open(&c, "stream", options);
	ck_assert_int_eq(card_send(&c, buf, 60), -ENOTCONN);
	for (int i = 0; i < 2; i++) {
		int l = listen_unix(path), fd = accept(l, NULL, NULL);

		send_all(fd, buf, put_frame(buf, 60, i));
		expect_frame(&c, 60, i);
		for (int k = 0; k < 100 && card_send(&c, buf, sizeof(buf)) != -EAGAIN; k++)
			;
		close(fd);
		close(l);
		unlink(path);
		for (int k = 0; k < 5000 && card_send(&c, buf, 60) != -ENOTCONN; k++)
			usleep(1000);
		ck_assert_int_eq(card_send(&c, buf, 60), -ENOTCONN);
	}
	card_close(&c);
}
END_TEST

/* Two cards, a Unix and a TCP socket between them. */
START_TEST(two_cards)
{
	static const char *const addresses[] = {
		"addr.type=unix,addr.path=%s", "addr.type=unix,addr.abstract=on,addr.path=%s",
		"addr.type=inet,addr.host=127.0.0.1,addr.port=%u",
		"addr.type=inet,addr.host=::1,addr.ipv6=on,addr.port=%u"};
	struct card a = {.engine = LOOP_AUTO}, b = {.engine = LOOP_THREADS};
	char path[64], address[100], options[128];

	socket_path(path);
	if (_i < 2)
		snprintf(address, sizeof(address), addresses[_i], path);
	else
		snprintf(address, sizeof(address), addresses[_i], 20000 + getpid() % 20000);
	snprintf(options, sizeof(options), "server=on,%s", address);
	card_open(&a, "stream", options);
	card_open(&b, "stream", address);
	for (int i = 0; i < 200; i++) {
		card_sends(&b, 14 + 90 * i, i);
		expect_frame(&a, 14 + 90 * i, i);
		card_sends(&a, 14 + 50 * i, i);
		expect_frame(&b, 14 + 50 * i, i);
	}
	card_close(&a);
	card_close(&b);
}
END_TEST

/* --- errors ------------------------------------------------------------------------------------ */

static const struct {
	const char *options, *says;
} bad[] = {
	{"server=on", "addr.type is missing"},
	{"addr.type=tcp", "addr.type=tcp"},
	{"addr.type=unix", "addr.path is missing"},
	{"addr.type=unix,addr.path=", "addr.path="},
	{"addr.type=unix,addr.path=/nonexistent/socket", "addr.path=/nonexistent/socket: No such"},
	{"server=on,addr.type=unix,addr.path=/nonexistent/socket", "addr.path=/nonexistent/socket"},
	{"addr.type=unix,addr.path=/tmp/x,addr.port=1", "addr.port=1 is for addr.type=inet"},
	{"addr.type=inet,addr.host=127.0.0.1", "addr.port is missing"},
	{"addr.type=inet,addr.host=127.0.0.1,addr.port=1", "addr.port=1: Connection refused"},
	{"addr.type=inet,addr.host=127.0.0.1,addr.port=nonsense", "addr.port=nonsense"},
	{"addr.type=inet,addr.host=not-a-number,addr.port=1,addr.numeric=on",
	 "addr.host=not-a-number"},
	{"addr.type=inet,addr.port=1,addr.ipv4=off,addr.ipv6=off", "addr.ipv4=off"},
	{"server=on,addr.type=inet,addr.host=192.0.2.1,addr.port=0", "addr.host=192.0.2.1"},
	{"addr.type=fd", "addr.str is missing"},
	{"addr.type=fd,addr.str=x", "addr.str=x"},
	{"addr.type=fd,addr.str=999", "addr.str=999: not an open"},
	{"addr.type=fd,addr.str=0", "addr.str=0: not a stream socket"},
	{"addr.type=fd,addr.str=0,reconnect=1", "reconnect=1"},
	{"server=on,reconnect=1,addr.type=inet,addr.port=0", "reconnect=1"},
	{"addr.type=unix,addr.path=/tmp/x,reconnect=99999", "reconnect"},
	{"addr.type=unix,addr.pth=/tmp/x", "addr.pth"},
};

START_TEST(bad_options)
{
	struct hako_error err = {0};
	struct object *obj;
	struct vm *vm;

	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, &err), 0);
	ck_assert_int_lt(card_netdev(vm, "stream", bad[_i].options, &obj, &err), 0);
	ck_assert_msg(strstr(err.message, bad[_i].says), "%s: \"%s\"", bad[_i].options,
		      err.message);
	ck_assert_ptr_null(strchr(err.message, '\n'));
	vm_free_plain(vm);
}
END_TEST

/* A path where somebody listens is taken; one that is left over is not. */
START_TEST(path_in_use)
{
	struct hako_error err = {0};
	char path[64], options[128];
	struct object *obj;
	struct vm *vm;
	int l;

	socket_path(path);
	snprintf(options, sizeof(options), "server=on,addr.type=unix,addr.path=%s", path);
	l = listen_unix(path);
	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, &err), 0);
	ck_assert_int_eq(card_netdev(vm, "stream", options, &obj, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.message, path));
	close(l);
	ck_assert_msg(!card_netdev(vm, "stream", options, &obj, &err), "%s", err.message);
	vm_free_plain(vm);
	ck_assert_int_ne(access(path, F_OK), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("net_stream");
	TCase *t = tcase_create("frames"), *e = tcase_create("errors");
	const int n = ARRAY_SIZE(engines);

	tcase_add_loop_test(t, both_ways, 0, n);
	tcase_add_loop_test(t, pieces, 0, n);
	tcase_add_loop_test(t, runts, 0, n);
	tcase_add_loop_test(t, hostile_lengths, 0, n);
	tcase_add_loop_test(t, odd_sends, 0, n);
	tcase_add_loop_test(t, slow_reader, 0, n);
	tcase_add_loop_test(t, slow_card, 0, n);
	tcase_add_loop_test(t, restart, 0, n);
	tcase_add_loop_test(t, server, 0, n);
	tcase_add_loop_test(t, one_at_a_time, 0, n);
	tcase_add_loop_test(t, reconnect, 0, n);
	tcase_add_loop_test(t, two_cards, 0, 4);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(e, bad_options, 0, ARRAY_SIZE(bad));
	tcase_add_test(e, path_in_use);
	suite_add_tcase(s, t);
	suite_add_tcase(s, e);
	return run_suite(s);
}
