/* SPDX-License-Identifier: GPL-2.0-only */
/* Character backends, seen from outside: standard input and output, files, and who uses what. */
#include <signal.h>
#include <sys/wait.h>

#include "char_test.h"

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
	put(master, "\x01"
		    "c");
	WAIT_FOR(__atomic_load_n(&vm->request, __ATOMIC_SEQ_CST) == VM_REQUEST_CONTINUE);
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

/* Several keys at once, for a guest with many small buffers. */
START_TEST(stdio_small_pieces)
{
	int slave, master = open_terminal(&slave);

	make_stdio(slave, slave, "id=c");
	client.piece = 1;
	take_chardev("c", 100);
	put(master, "keys");
	expect_got("keys");
	restore_stdio();
	close(master);
}
END_TEST

static int wait_for(pid_t pid)
{
	int status;

	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

/* A job in the background, to which keys do not belong; then in the foreground. */
static void background_job(int slave, int master)
{
	setpgid(0, 0);
	setup();
	make_stdio(slave, slave, "id=c");
	take_chardev("c", 100);
	put(master, "not yet");
	expect_idle();
	ck_assert_uint_eq(got(), 0);
	signal(SIGTTOU, SIG_IGN);
	ck_assert_int_eq(tcsetpgrp(slave, getpgrp()), 0);
	expect_got("not yet");
	put(master, ", now");
	expect_got("not yet, now");
	restore_stdio();
	teardown();
	_exit(0);
}

START_TEST(stdio_background)
{
	int slave, master = open_terminal(&slave);
	pid_t shell = fork(), job;

	if (!shell) {
		setsid();
		ck_assert_int_eq(ioctl(slave, TIOCSCTTY, 0), 0);
		job = fork();
		if (!job)
			background_job(slave, master);
		signal(SIGHUP, SIG_IGN);
		_exit(wait_for(job));
	}
	ck_assert_int_eq(wait_for(shell), 0);
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
		stdio_terminal_modes,
		stdio_escape_while_stuck,
		stdio_small_pieces,
		stdio_background,
		file_truncate_and_append,
		file_input,
		file_errors,
		take_and_release,
		short_forms,
	};

	return run_on_both("char", tests, ARRAY_SIZE(tests));
}
