/* SPDX-License-Identifier: GPL-2.0-only */
/* Character backends, seen from outside: files, pipes, terminals, sockets of the test's own. */
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
	int writable, connects, disconnects;
};

static struct client client;
static char dir[64];

static size_t client_can_receive(void *opaque)
{
	size_t room;

	pthread_mutex_lock(&client.lock);
	room = client.room;
	pthread_mutex_unlock(&client.lock);
	return room;
}

static void client_receive(void *opaque, const uint8_t *buf, size_t len)
{
	pthread_mutex_lock(&client.lock);
	ck_assert_uint_le(len, client.room);
	memcpy(client.got + client.ngot, buf, len);
	client.ngot += len;
	client.room -= len;
	pthread_mutex_unlock(&client.lock);
}

static void client_writable(void *opaque)
{
	__atomic_add_fetch(&client.writable, 1, __ATOMIC_SEQ_CST);
}

static void client_connected(void *opaque, bool open)
{
	__atomic_add_fetch(open ? &client.connects : &client.disconnects, 1, __ATOMIC_SEQ_CST);
}

static const struct chardev_client_ops client_ops = {
	.can_receive = client_can_receive,
	.receive = client_receive,
	.writable = client_writable,
	.connected = client_connected,
};

static size_t got(void)
{
	size_t n;

	pthread_mutex_lock(&client.lock);
	n = client.ngot;
	pthread_mutex_unlock(&client.lock);
	return n;
}

static void accept_call(void *arg)
{
	client.chr->ops->accept_input(client.chr);
}

static void give_room(size_t room)
{
	pthread_mutex_lock(&client.lock);
	client.room = room;
	pthread_mutex_unlock(&client.lock);
	loop_call(vm->io_loop, accept_call, NULL);
}

static void take_chardev(const char *id, size_t room)
{
	client.room = room;
	ck_assert_msg(chardev_take(vm, id, &client_ops, NULL, &client.chr, &err) == 0, "%s",
		      err.message);
}

struct write_call {
	const void *buf;
	size_t len, done;
};

static void write_call(void *arg)
{
	struct write_call *w = arg;

	w->done = client.chr->ops->write(client.chr, w->buf, w->len);
}

static size_t chr_write(const void *buf, size_t len)
{
	struct write_call w = {buf, len, 0};

	loop_call(vm->io_loop, write_call, &w);
	return w.done;
}

/* --- fixture: every test runs on both engines of the loop -------------------------------------- */

static enum loop_engine engine;

static void setup(void)
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

static void teardown(void)
{
	char command[128];

	if (client.chr)
		chardev_release(client.chr);
	teardown_vm();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	ck_assert_int_eq(system(command), 0);
}

static const char *path_of(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static struct object *make_with(const char *class, const char *fmt, const char *arg)
{
	char options[512];

	snprintf(options, sizeof(options), fmt, arg);
	return make(CLASS_CHARDEV, class, options);
}

/* Read exactly @len bytes, waiting up to ten seconds for each. */
static void expect(int fd, const char *text, size_t len)
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

static void expect_got(const char *text)
{
	WAIT_FOR(got() >= strlen(text));
	ck_assert_uint_eq(got(), strlen(text));
	ck_assert_mem_eq(client.got, text, strlen(text));
}

static void put(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
}

static double cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_utime.tv_sec + ru.ru_stime.tv_sec +
	       (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* Nothing may spin while nothing happens. */
static void expect_idle(void)
{
	double before = cpu_seconds();

	usleep(300000);
	ck_assert_msg(cpu_seconds() - before < 0.1, "busy while idle: %f s of CPU time",
		      cpu_seconds() - before);
}

/* --- standard input and output ----------------------------------------------------------------- */

static int saved[2];

/* Put @in and @out in the place of descriptors 0 and 1, and make the backend. */
static struct object *make_stdio(int in, int out, const char *options)
{
	struct object *obj;

	saved[0] = dup(0);
	saved[1] = dup(1);
	if (in >= 0)
		dup2(in, 0);
	if (out >= 0)
		dup2(out, 1);
	obj = make(CLASS_CHARDEV, "stdio", options);
	return obj;
}

static void restore_stdio(void)
{
	dup2(saved[0], 0);
	dup2(saved[1], 1);
	close(saved[0]);
	close(saved[1]);
}

START_TEST(stdio_pipes)
{
	int in[2], out[2];

	ck_assert_int_eq(pipe(in), 0);
	ck_assert_int_eq(pipe(out), 0);
	make_stdio(in[0], out[1], "id=c");
	take_chardev("c", 1000);
	ck_assert_uint_eq(chr_write("to you", 6), 6);
	expect(out[0], "to you", 6);
	put(in[1], "\x01x to me"); /* no terminal: Ctrl-a is data */
	expect_got("\x01x to me");
	/* Shared descriptors stay as they were. */
	ck_assert_int_eq(fcntl(0, F_GETFL) & O_NONBLOCK, 0);
	ck_assert_int_eq(fcntl(1, F_GETFL) & O_NONBLOCK, 0);
	/* The end of input is no reason to spin, nor to stop output. */
	close(in[1]);
	restore_stdio();
	expect_idle();
	ck_assert_uint_eq(chr_write("more", 4), 4);
	expect(out[0], "more", 4);
}
END_TEST

/* A client that takes nothing: input waits in the pipe. */
START_TEST(stdio_backpressure)
{
	int in[2];

	ck_assert_int_eq(pipe(in), 0);
	make_stdio(in[0], -1, "id=c");
	take_chardev("c", 0);
	put(in[1], "abcdef");
	expect_idle();
	ck_assert_uint_eq(got(), 0);
	give_room(2);
	expect_got("ab");
	expect_idle();
	give_room(100);
	expect_got("abcdef");
	restore_stdio();
}
END_TEST

/* A pipe that nobody reads: write() takes what fits, never blocks, and writable() tells when there is room. */
static void pipe_full(int out, int drain)
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

START_TEST(stdio_full_pipe)
{
	int out[2];

	ck_assert_int_eq(pipe(out), 0);
	make_stdio(-1, out[1], "id=c");
	restore_stdio();
	take_chardev("c", 0);
	pipe_full(out[1], out[0]);
}
END_TEST

START_TEST(stdio_full_socket)
{
	int sv[2];

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	make_stdio(sv[0], sv[0], "id=c");
	restore_stdio();
	take_chardev("c", 100);
	put(sv[1], "hello");
	expect_got("hello");
	pipe_full(sv[0], sv[1]);
}
END_TEST

/* Nobody will ever read: output is lost, and the process lives (SIGPIPE). */
START_TEST(stdio_broken_pipe)
{
	int out[2];

	ck_assert_int_eq(pipe(out), 0);
	make_stdio(-1, out[1], "id=c");
	restore_stdio();
	take_chardev("c", 0);
	close(out[0]);
	close(out[1]);
	for (int i = 0; i < 3; i++)
		ck_assert_uint_eq(chr_write("lost", 4), 4);
	expect_idle();
}
END_TEST

/* Output to a log that others append to: nothing of it is overwritten. */
START_TEST(stdio_regular_files)
{
	char buf[64] = {};
	int in, out;

	out = open(path_of("log"), O_RDWR | O_CREAT, 0600);
	put(out, "before ");
	in = open(path_of("input"), O_RDWR | O_CREAT, 0600);
	put(in, "some input");
	lseek(in, 0, SEEK_SET);
	make_stdio(in, out, "id=c");
	restore_stdio();
	take_chardev("c", 4);
	expect_got("some");
	give_room(100);
	expect_got("some input");
	expect_idle();
	ck_assert_uint_eq(chr_write("between ", 8), 8);
	put(out, "after");
	ck_assert_int_eq(pread(out, buf, sizeof(buf), 0), 20);
	ck_assert_str_eq(buf, "before between after");
}
END_TEST

START_TEST(stdio_dev_null)
{
	int fd = open("/dev/null", O_RDWR);

	make_stdio(fd, fd, "id=c");
	restore_stdio();
	take_chardev("c", 10);
	ck_assert_uint_eq(chr_write("gone", 4), 4);
	expect_idle();
	ck_assert_uint_eq(got(), 0);
}
END_TEST

static int open_terminal(int *slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY);
	struct termios tio;

	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(grantpt(master), 0);
	ck_assert_int_eq(unlockpt(master), 0);
	*slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(*slave, 0);
	tcgetattr(*slave, &tio);
	cfmakeraw(&tio);
	tcsetattr(*slave, TCSANOW, &tio);
	return master;
}

START_TEST(stdio_escape)
{
	int slave, master = open_terminal(&slave);
	char buf[512];
	ssize_t n;

	make_stdio(slave, slave, "id=c");
	take_chardev("c", 100);
	put(master, "a\x01\x01"
		    "b");
	expect_got("a\x01"
		   "b");
	put(master, "\x01"); /* in two pieces */
	usleep(10000);
	put(master, "h");
	usleep(100000);
	n = read(master, buf, sizeof(buf) - 1);
	ck_assert_int_gt(n, 0);
	buf[n] = '\0';
	ck_assert_ptr_nonnull(strstr(buf, "Ctrl-a x"));
	put(master, "\x01zc"); /* what is no command is dropped */
	WAIT_FOR(got() == 4);
	ck_assert_uint_eq(client.got[3], 'c');
	put(master, "\x01"
		    "a");
	WAIT_FOR(got() == 5);
	ck_assert_uint_eq(client.got[4], 1);
	ck_assert_int_eq(vm->request, 0);
	put(master, "\x01x");
	WAIT_FOR(__atomic_load_n(&vm->request, __ATOMIC_SEQ_CST) == VM_REQUEST_STOP);
	restore_stdio();
	close(master);
	usleep(50000);
	expect_idle(); /* the terminal has gone */
}
END_TEST

/* The program sets the terminal's modes when the backend waits for keys already: a wake-up for nothing. */
START_TEST(stdio_terminal_modes)
{
	int slave, master = open_terminal(&slave);
	struct termios raw, cooked;

	tcgetattr(slave, &raw);
	cooked = raw;
	cooked.c_lflag |= ICANON;
	tcsetattr(slave, TCSANOW, &cooked);
	make_stdio(slave, slave, "id=c");
	take_chardev("c", 100);
	for (int i = 0; i < 5; i++) {
		tcsetattr(slave, TCSANOW, &raw);
		usleep(20000);
		tcsetattr(slave, TCSANOW, &cooked);
		usleep(20000);
	}
	tcsetattr(slave, TCSANOW, &raw);
	usleep(20000);
	put(master, "keys");
	expect_got("keys");
	restore_stdio();
	close(master);
}
END_TEST

/* The guest hangs and takes no keys: the escape key works all the same. */
START_TEST(stdio_escape_while_stuck)
{
	int slave, master = open_terminal(&slave);
	char keys[3000];

	make_stdio(slave, slave, "id=c");
	take_chardev("c", 0);
	memset(keys, 'k', sizeof(keys));
	ck_assert_int_eq(write(master, keys, sizeof(keys)), sizeof(keys));
	put(master, "\x01x");
	WAIT_FOR(__atomic_load_n(&vm->request, __ATOMIC_SEQ_CST) == VM_REQUEST_STOP);
	/* What was typed first is there when the guest asks for it. */
	give_room(10);
	expect_got("kkkkkkkkkk");
	restore_stdio();
}
END_TEST

/* --- file -------------------------------------------------------------------------------------- */

static void expect_file(const char *name, const char *text)
{
	char buf[256] = {};
	int fd = open(path_of(name), O_RDONLY);

	ck_assert_int_ge(read(fd, buf, sizeof(buf) - 1), 0);
	ck_assert_str_eq(buf, text);
	close(fd);
}

START_TEST(file_truncate_and_append)
{
	struct object *obj;

	obj = make_with("file", "id=c,path=%s", path_of("f"));
	take_chardev("c", 0);
	ck_assert_uint_eq(chr_write("first", 5), 5);
	chardev_release(client.chr);
	object_destroy(obj);
	expect_file("f", "first");
	obj = make_with("file", "id=c,append=on,path=%s", path_of("f"));
	take_chardev("c", 0);
	ck_assert_uint_eq(chr_write(" second", 7), 7);
	chardev_release(client.chr);
	object_destroy(obj);
	expect_file("f", "first second");
	make_with("file", "id=c,path=%s", path_of("f"));
	expect_file("f", "");
	client.chr = NULL;
}
END_TEST

START_TEST(file_input)
{
	int fd = open(path_of("in"), O_WRONLY | O_CREAT, 0600);
	char options[512], expected[9001];

	for (int i = 0; i < 9000; i++)
		expected[i] = 'a' + i % 23;
	expected[9000] = '\0';
	put(fd, expected);
	close(fd);
	snprintf(options, sizeof(options), "id=c,path=%s/out,input-path=%s/in", dir, dir);
	make(CLASS_CHARDEV, "file", options);
	take_chardev("c", 20000);
	expect_got(expected);
	expect_idle();
}
END_TEST

START_TEST(file_errors)
{
	char options[256];

	snprintf(options, sizeof(options), "path=%s", dir);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "file", options), -EISDIR);
	ck_assert_ptr_nonnull(strstr(err.message, dir));
	snprintf(options, sizeof(options), "path=%s/no/such", dir);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "file", options), -ENOENT);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "file", ""), -EINVAL);
	mkfifo(path_of("fifo"), 0600);
	snprintf(options, sizeof(options), "path=%s/fifo", dir);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "file", options), -ENXIO);
	snprintf(options, sizeof(options), "path=%s/x,input-path=%s/none", dir, dir);
	ck_assert_int_eq(make_fails(CLASS_CHARDEV, "file", options), -ENOENT);
}
END_TEST

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

/* --- socket ------------------------------------------------------------------------------------ */

static int unix_socket(const char *path, bool server)
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

START_TEST(socket_tcp)
{
	struct object *obj = make(CLASS_CHARDEV, "socket",
				  "id=c,server=on,wait=off,host=127.0.0.1,port=0");
	struct sockaddr_in sin = {.sin_family = AF_INET};
	char *port = NULL;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	for (const struct option *o = obj->class->options; o->name; o++)
		if (!strcmp(o->name, "port"))
			port = option_get(o, obj);
	ck_assert_int_gt(atoi(port), 0);
	sin.sin_port = htons(atoi(port));
	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	take_chardev("c", 100);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	socket_conversation(fd, 0);
	free(port);
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

/* --- who uses what; the short forms ------------------------------------------------------------ */

START_TEST(take_and_release)
{
	struct chardev *other;

	make(CLASS_CHARDEV, "null", "id=n");
	ck_assert_int_eq(chardev_take(vm, "m", &client_ops, NULL, &other, &err), -ENODEV);
	take_chardev("n", 10);
	ck_assert_int_eq(client.connects, 1);
	ck_assert_int_eq(chardev_take(vm, "n", &client_ops, NULL, &other, &err), -EBUSY);
	chardev_release(client.chr);
	take_chardev("n", 10);
	ck_assert_uint_eq(chr_write("x", 1), 1);
}
END_TEST

START_TEST(short_forms)
{
	struct object *obj;
	char text[256];
	int n = 0, fd;

	ck_assert_int_eq(chardev_new_from_text(vm, "a", "null", &err), 0);
	ck_assert_int_eq(chardev_new_from_text(vm, "b", "none", &err), 0);
	ck_assert_int_eq(chardev_new_from_text(vm, "c", "pty", &err), 0);
	/* A file's name is all that follows, a socket's ends at a comma that is not doubled. */
	snprintf(text, sizeof(text), "file:%s/a,b=c", dir);
	ck_assert_int_eq(chardev_new_from_text(vm, "d", text, &err), 0);
	ck_assert_int_eq(access(path_of("a,b=c"), F_OK), 0);
	snprintf(text, sizeof(text), "unix:%s/s,,1,server=on,wait=off", dir);
	ck_assert_msg(chardev_new_from_text(vm, "e", text, &err) == 0, "%s", err.message);
	fd = unix_socket(path_of("s,1"), false);
	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(
		chardev_new_from_text(vm, "f", "tcp:[::1]:0,server=on,wait=off", &err) &&
			chardev_new_from_text(vm, "f", "tcp:127.0.0.1:0,server=on,wait=off", &err),
		0);
	ck_assert_int_eq(chardev_new_from_text(vm, "a", "null", &err), -EEXIST);
	/* The short form of stdio is for a console: all keys are the guest's. */
	ck_assert_int_eq(chardev_new_from_text(vm, "g", "stdio", &err), 0);
	ck_assert_int_eq(((struct chardev *)object_find(vm, CLASS_CHARDEV, "g"))->terminal,
			 CHARDEV_TERMINAL_RAW);
	ck_assert_int_eq(chardev_new_from_text(vm, "h", "stdio", &err), -EBUSY);
	object_destroy(object_find(vm, CLASS_CHARDEV, "g"));
	ck_assert_int_eq(chardev_new_from_text(vm, "h", "stdio,signal=on", &err), 0);
	ck_assert_int_eq(((struct chardev *)object_find(vm, CLASS_CHARDEV, "h"))->terminal,
			 CHARDEV_TERMINAL_SIGNALS);
	ck_assert_int_eq(chardev_new_from_text(vm, "x", "serial", &err), -EINVAL);
	ck_assert_int_eq(chardev_new_from_text(vm, "x", "stdiox", &err), -EINVAL);
	ck_assert_int_eq(chardev_new_from_text(vm, "x", "tcp:host", &err), -EINVAL);
	ck_assert_int_eq(chardev_new_from_text(vm, "x", "unix:", &err), -EINVAL);
	ck_assert_int_eq(chardev_new_from_text(vm, "x", "pty,foo=1", &err), -EINVAL);
	list_for_each(obj, &vm->objects[CLASS_CHARDEV], link)
		n++;
	ck_assert_int_eq(n, 7);
	obj = object_find(vm, CLASS_CHARDEV, "b");
	ck_assert_str_eq(obj->class->name, "null");
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		stdio_pipes,
		stdio_backpressure,
		stdio_full_pipe,
		stdio_full_socket,
		stdio_broken_pipe,
		stdio_regular_files,
		stdio_dev_null,
		stdio_escape,
		stdio_escape_while_stuck,
		stdio_terminal_modes,
		file_truncate_and_append,
		file_input,
		file_errors,
		pty,
		pty_full,
		socket_server,
		socket_queue,
		socket_stale_and_taken,
		socket_wait,
		socket_client,
		socket_client_early,
		socket_tcp,
		socket_errors,
		socket_by_descriptor,
		take_and_release,
		short_forms,
	};
	int failures = 0;

	engine = LOOP_THREADS;
	failures += run_suite("char, threads", setup, teardown, tests, ARRAY_SIZE(tests));
	engine = LOOP_AUTO;
	failures += run_suite("char", setup, teardown, tests, ARRAY_SIZE(tests));
	return failures != 0;
}
