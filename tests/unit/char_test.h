/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of character backends have in common: a client that remembers, and a fixture for both engines of the loop. */
#ifndef TESTS_UNIT_CHAR_TEST_H
#define TESTS_UNIT_CHAR_TEST_H

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>

#include "device_test.h"
#include "devices/char/char.h"

/* --- a client that remembers ------------------------------------------------------------------- */

struct client {
	struct chardev *chr;
	pthread_mutex_t lock;
	uint8_t got[65536];
	size_t ngot, room;
	size_t piece; /* takes so much at once, at most; 0: any number */
	int writable, connects, disconnects;
};

static struct client client;
static char dir[64];

static inline size_t client_can_receive(void *opaque)
{
	size_t room;

	pthread_mutex_lock(&client.lock);
	room = client.piece ? MIN(client.room, client.piece) : client.room;
	pthread_mutex_unlock(&client.lock);
	return room;
}

static inline void client_receive(void *opaque, const uint8_t *buf, size_t len)
{
	pthread_mutex_lock(&client.lock);
	ck_assert_uint_le(len, client.room);
	memcpy(client.got + client.ngot, buf, len);
	client.ngot += len;
	client.room -= len;
	pthread_mutex_unlock(&client.lock);
}

static inline void client_writable(void *opaque)
{
	__atomic_add_fetch(&client.writable, 1, __ATOMIC_SEQ_CST);
}

static inline void client_connected(void *opaque, bool open)
{
	__atomic_add_fetch(open ? &client.connects : &client.disconnects, 1, __ATOMIC_SEQ_CST);
}

static const struct chardev_client_ops client_ops = {
	.can_receive = client_can_receive,
	.receive = client_receive,
	.writable = client_writable,
	.connected = client_connected,
};

static inline size_t got(void)
{
	size_t n;

	pthread_mutex_lock(&client.lock);
	n = client.ngot;
	pthread_mutex_unlock(&client.lock);
	return n;
}

static inline void accept_call(void *arg)
{
	client.chr->ops->accept_input(client.chr);
}

static inline void give_room(size_t room)
{
	pthread_mutex_lock(&client.lock);
	client.room = room;
	pthread_mutex_unlock(&client.lock);
	loop_call(vm->io_loop, accept_call, NULL);
}

static inline void take_chardev(const char *id, size_t room)
{
	client.room = room;
	ck_assert_msg(chardev_take(vm, id, &client_ops, NULL, &client.chr, &err) == 0, "%s",
		      err.message);
}

struct write_call {
	const void *buf;
	size_t len, done;
};

static inline void write_call(void *arg)
{
	struct write_call *w = arg;

	w->done = client.chr->ops->write(client.chr, w->buf, w->len);
}

static inline size_t chr_write(const void *buf, size_t len)
{
	struct write_call w = {buf, len, 0};

	loop_call(vm->io_loop, write_call, &w);
	return w.done;
}

/* --- fixture: every test runs on both engines of the loop -------------------------------------- */

static enum loop_engine engine;

static inline void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	setup_vm();
	loop_free(vm->io_loop);
	ck_assert_int_eq(loop_new(&vm->io_loop, "test-io", engine, &err), 0);
	memset(&client, 0, sizeof(client));
	pthread_mutex_init(&client.lock, NULL);
	snprintf(dir, sizeof(dir), "%s/hako-char-XXXXXX", tmp ? tmp : "/var/tmp");
	ck_assert_ptr_nonnull(mkdtemp(dir));
}

static inline void teardown(void)
{
	char command[128];

	if (client.chr)
		chardev_release(client.chr);
	teardown_vm();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static inline const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static inline struct object *make_with(const char *class, const char *fmt, const char *arg)
{
	char options[512];

	snprintf(options, sizeof(options), fmt, arg);
	return make(CLASS_CHARDEV, class, options);
}

/* Read exactly @len bytes, waiting up to ten seconds for each. */
static inline void expect(int fd, const char *text, size_t len)
{
	char buf[1024];
	size_t n = 0;

	while (n < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t r;

		ck_assert_int_eq(poll(&p, 1, 10000), 1);
		r = read(fd, buf + n, MIN(sizeof(buf) - n, len - n));
		ck_assert_int_gt(r, 0);
		n += r;
	}
	ck_assert_mem_eq(buf, text, len);
}

static inline void expect_got(const char *text)
{
	WAIT_FOR(got() >= strlen(text));
	ck_assert_uint_eq(got(), strlen(text));
	ck_assert_mem_eq(client.got, text, strlen(text));
}

static inline void put(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
}

static inline double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_utime.tv_sec + ru.ru_stime.tv_sec +
	       (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* Nothing may spin while nothing happens. */
static inline void expect_idle(void)
{
	double before = cpu_seconds();

	usleep(300000);
	ck_assert_msg(cpu_seconds() - before < 0.1, "busy while idle: %f s of CPU time",
		      cpu_seconds() - before);
}

/* A pipe that nobody reads: write() takes what fits, never blocks, and writable() tells when there is room. */
static inline void pipe_full(int out, int drain)
{
	char buf[65536];
	size_t total = 0, n;
	int before;

	memset(buf, 'f', sizeof(buf));
	do {
		n = chr_write(buf, sizeof(buf));
		total += n;
		ck_assert_uint_lt(total, 4 << 20);
	} while (n == sizeof(buf));
	expect_idle();
	before = __atomic_load_n(&client.writable, __ATOMIC_SEQ_CST);
	while (total > 0) {
		ssize_t r = read(drain, buf, sizeof(buf));

		ck_assert_int_gt(r, 0);
		total -= r;
	}
	WAIT_FOR(__atomic_load_n(&client.writable, __ATOMIC_SEQ_CST) > before);
	ck_assert_uint_eq(chr_write("x", 1), 1);
	expect(drain, "x", 1);
}

static inline int unix_socket(const char *path, bool server)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), ret;

	strcpy(sun.sun_path, path);
	if (!server)
		return connect(fd, (struct sockaddr *)&sun, sizeof(sun)) ? (close(fd), -1) : fd;
	ret = bind(fd, (struct sockaddr *)&sun, sizeof(sun));
	ck_assert_int_eq(ret, 0);
	ck_assert_int_eq(listen(fd, 5), 0);
	return fd;
}

/* All of @tests on both engines. The exit status of main(). */
static inline int run_on_both(const char *name, const TTest *const *tests, size_t n)
{
	char threads[64];
	int failures = 0;

	snprintf(threads, sizeof(threads), "%s, threads", name);
	engine = LOOP_THREADS;
	failures += run_suite(threads, setup, teardown, tests, n);
	engine = LOOP_AUTO;
	failures += run_suite(name, setup, teardown, tests, n);
	return failures != 0;
}

#endif
