/* SPDX-License-Identifier: GPL-2.0-only */
/* The backends whose other end comes and goes: pseudo-terminals and sockets. */
#include "char_test.h"

/* --- pty --------------------------------------------------------------------------------------- */

static const char *pty_path(struct object *obj)
{
	return container_of(obj, struct chardev, obj)->path;
}

START_TEST(pty)
{
	struct object *obj = make(CLASS_CHARDEV, "pty", "id=c");
	const char *path = pty_path(obj);
	struct termios tio;
	int fd;

	ck_assert_ptr_nonnull(path);
	take_chardev("c", 100);
	ck_assert_int_eq(client.connects, 0);
	ck_assert_uint_eq(chr_write("nobody listens", 14), 14);
	expect_idle();
	for (int round = 0; round < 2; round++) {
		fd = open(path, O_RDWR | O_NOCTTY);
		ck_assert_int_ge(fd, 0);
		WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == round + 1);
		tcgetattr(fd, &tio);
		ck_assert_uint_eq(tio.c_lflag & (ECHO | ICANON | ISIG), 0);
		ck_assert_uint_eq(chr_write("out\n", 4), 4);
		expect(fd, "out\n", 4);
		pthread_mutex_lock(&client.lock);
		client.ngot = 0;
		pthread_mutex_unlock(&client.lock);
		put(fd, "in\x03\r\x01x");
		expect_got("in\x03\r\x01x");
		close(fd);
		WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == round + 1);
	}
	ck_assert_uint_eq(chr_write("nobody listens", 14), 14);
	expect_idle();
}
END_TEST

/* Open, but not read: it fills up; gone: all is taken and lost, and nothing spins. */
START_TEST(pty_full)
{
	struct object *obj = make(CLASS_CHARDEV, "pty", "id=c");
	const char *path = pty_path(obj);
	char buf[4096] = {};
	int fd = open(path, O_RDWR | O_NOCTTY), i;

	take_chardev("c", 0);
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 1);
	for (i = 0; i < 1000 && chr_write(buf, sizeof(buf)) == sizeof(buf); i++)
		;
	ck_assert_int_lt(i, 1000);
	expect_idle();
	close(fd);
	WAIT_FOR(chr_write(buf, sizeof(buf)) == sizeof(buf));
	expect_idle();
}
END_TEST

/* Gone while nothing is read; but what has been typed is not lost. */
START_TEST(pty_gone_unread)
{
	const char *path = pty_path(make(CLASS_CHARDEV, "pty", "id=c"));

	take_chardev("c", 0);
	for (int round = 0; round < 2; round++) {
		int fd = open(path, O_RDWR | O_NOCTTY);

		WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == round + 1);
		usleep(10000); /* time to give up input, until the guest takes some */
		if (round)
			put(fd, "farewell");
		close(fd);
		if (!round)
			WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == 1);
	}
	expect_idle();
	give_room(100);
	expect_got("farewell");
	WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == 2);
}
END_TEST

/* Open and closed between two looks: "echo text > /dev/pts/N". */
START_TEST(pty_visit)
{
	const char *path = pty_path(make(CLASS_CHARDEV, "pty", "id=c"));
	int fd;

	take_chardev("c", 100);
	expect_idle();
	fd = open(path, O_RDWR | O_NOCTTY);
	put(fd, "text");
	close(fd);
	expect_got("text");
	WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == 1);
	expect_idle();
}
END_TEST

/* --- socket ------------------------------------------------------------------------------------ */

static void socket_conversation(int fd, int round)
{
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == round + 1);
	pthread_mutex_lock(&client.lock);
	client.ngot = 0;
	pthread_mutex_unlock(&client.lock);
	ck_assert_uint_eq(chr_write("out", 3), 3);
	expect(fd, "out", 3);
	put(fd, "in");
	expect_got("in");
	close(fd);
	WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == round + 1);
	ck_assert_uint_eq(chr_write("lost", 4), 4);
}

START_TEST(socket_server)
{
	struct object *obj = make_with("socket", "id=c,server=on,wait=off,path=%s", path_of("s"));
	int fd;

	take_chardev("c", 100);
	ck_assert_uint_eq(chr_write("lost", 4), 4);
	for (int round = 0; round < 3; round++) {
		fd = unix_socket(path_of("s"), false);
		ck_assert_int_ge(fd, 0);
		socket_conversation(fd, round);
	}
	expect_idle();
	fd = unix_socket(path_of("s"), false);
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 4);
	pipe_full(-1, fd);
	close(fd);
	chardev_release(client.chr);
	client.chr = NULL;
	object_destroy(obj);
	ck_assert_int_lt(access(path_of("s"), F_OK), 0);
}
END_TEST

/* One connection at a time; the second has its turn when the first is over. */
START_TEST(socket_queue)
{
	int a, b;

	make_with("socket", "id=c,server=on,wait=off,path=%s", path_of("s"));
	take_chardev("c", 100);
	a = unix_socket(path_of("s"), false);
	b = unix_socket(path_of("s"), false);
	ck_assert_int_ge(b, 0);
	put(b, "second");
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 1);
	put(a, "first ");
	expect_got("first ");
	usleep(50000);
	close(a);
	expect_got("first second");
	close(b);
}
END_TEST

START_TEST(socket_stale_and_taken)
{
	char options[256];
	int fd = unix_socket(path_of("s"), true);

	snprintf(options, sizeof(options), "server=on,wait=off,path=%s", path_of("s"));
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", options), -EADDRINUSE);
	ck_assert_int_eq(access(path_of("s"), F_OK), 0);
	close(fd);
	make_with("socket", "id=c,server=on,wait=off,path=%s", path_of("s"));
	/* What is no socket is left alone. */
	fd = open(path_of("f"), O_WRONLY | O_CREAT, 0600);
	close(fd);
	snprintf(options, sizeof(options), "server=on,wait=off,path=%s", path_of("f"));
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", options), -EADDRINUSE);
	ck_assert_int_eq(access(path_of("f"), F_OK), 0);
}
END_TEST

static void *connect_later(void *arg)
{
	int fd = -1;

	for (int i = 0; i < 1000 && fd < 0; i++) {
		usleep(10000);
		fd = unix_socket(arg, false);
	}
	return (void *)(intptr_t)fd;
}

START_TEST(socket_wait)
{
	pthread_t thread;
	void *ret;

	pthread_create(&thread, NULL, connect_later, (void *)path_of("s"));
	make_with("socket", "id=c,server=on,path=%s", path_of("s"));
	pthread_join(thread, &ret);
	take_chardev("c", 100);
	ck_assert_int_eq(client.connects, 1);
	socket_conversation((intptr_t)ret, 0);
}
END_TEST

START_TEST(socket_client)
{
	int listener = unix_socket(path_of("s"), true);

	make_with("socket", "id=c,reconnect=1,path=%s", path_of("s"));
	take_chardev("c", 100);
	for (int round = 0; round < 2; round++)
		socket_conversation(accept(listener, NULL, NULL), round);
	close(listener);
}
END_TEST

/* The server comes after the client. */
START_TEST(socket_client_early)
{
	int listener;

	make_with("socket", "id=c,reconnect=1,path=%s", path_of("s"));
	take_chardev("c", 100);
	ck_assert_int_eq(client.connects, 0);
	listener = unix_socket(path_of("s"), true);
	socket_conversation(accept(listener, NULL, NULL), 0);
	close(listener);
}
END_TEST

static int tcp_port;

/* A server at whatever port is free. */
static void listen_tcp(void)
{
	struct object *obj = make(CLASS_CHARDEV, "socket",
				  "id=c,server=on,wait=off,host=127.0.0.1,port=0");
	char *port = NULL;

	for (const struct option *o = obj->class->options; o->name; o++)
		if (!strcmp(o->name, "port"))
			port = option_get(o, obj);
	tcp_port = atoi(port);
	ck_assert_int_gt(tcp_port, 0);
	free(port);
}

static int dial_tcp(void)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(tcp_port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	return fd;
}

START_TEST(socket_tcp)
{
	listen_tcp();
	take_chardev("c", 100);
	socket_conversation(dial_tcp(), 0);
}
END_TEST

/* Who goes away while nothing is read is missed all the same; what he said is not lost. */
static void gone_unread(int (*dial)(void))
{
	int fd = dial();

	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 1);
	usleep(10000); /* time to give up input, until the guest takes some */
	close(fd);
	WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == 1);
	fd = dial();
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 2);
	put(fd, "farewell");
	close(fd);
	fd = dial();
	expect_idle();
	ck_assert_int_eq(client.connects, 2);
	give_room(100);
	expect_got("farewell");
	WAIT_FOR(__atomic_load_n(&client.connects, __ATOMIC_SEQ_CST) == 3);
	ck_assert_int_eq(client.disconnects, 2);
	close(fd);
	WAIT_FOR(__atomic_load_n(&client.disconnects, __ATOMIC_SEQ_CST) == 3);
}

static int dial_unix(void)
{
	return unix_socket(path_of("s"), false);
}

START_TEST(socket_gone_unread)
{
	make_with("socket", "id=c,server=on,wait=off,path=%s", path_of("s"));
	take_chardev("c", 0);
	gone_unread(dial_unix);
}
END_TEST

START_TEST(tcp_gone_unread)
{
	listen_tcp();
	take_chardev("c", 0);
	gone_unread(dial_tcp);
}
END_TEST

START_TEST(socket_errors)
{
	char options[512], longer[200];

	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", ""), -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", "host=localhost"), -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", "path=a,port=1"), -EINVAL);
	snprintf(options, sizeof(options), "path=%s/none", dir);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", options), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, options));
	memset(longer, 'x', sizeof(longer));
	longer[sizeof(longer) - 1] = '\0';
	snprintf(options, sizeof(options), "server=on,wait=off,path=/%s", longer);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", options), -ENAMETOOLONG);
	ck_assert_int_lt(make_fails(CLASS_CHARDEV, "socket", "fd=9999"), 0);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "socket", "fd=x"), -EINVAL);
}
END_TEST

START_TEST(socket_by_descriptor)
{
	int sv[2];
	char number[16];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	snprintf(number, sizeof(number), "%d", sv[0]);
	make_with("socket", "id=c,fd=%s", number);
	take_chardev("c", 100);
	socket_conversation(sv[1], 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		pty,
		pty_full,
		pty_gone_unread,
		pty_visit,
		socket_server,
		socket_queue,
		socket_stale_and_taken,
		socket_wait,
		socket_client,
		socket_client_early,
		socket_tcp,
		socket_gone_unread,
		tcp_gone_unread,
		socket_errors,
		socket_by_descriptor,
	};

	return run_on_both("char socket", tests, ARRAY_SIZE(tests));
}
