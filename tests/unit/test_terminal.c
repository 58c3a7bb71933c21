/* SPDX-License-Identifier: GPL-2.0-only */
/* The program's terminal is what it was, however the program ends. A child has a pseudo-terminal of its own as its controlling one. */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* It belongs to the program, not to the library. */
#include "vmm/cli/terminal.c"

static int master, slave;

static void setup(void)
{
	master = posix_openpt(O_RDWR | O_NOCTTY);
	ck_assert_int_ge(master, 0);
	ck_assert_int_eq(grantpt(master), 0);
	ck_assert_int_eq(unlockpt(master), 0);
	slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	ck_assert_int_ge(slave, 0);
}

static void teardown(void)
{
	close(slave);
	close(master);
}

/* In a session of its own, whose terminal the slave is, run @fn. */
static pid_t run(void (*fn)(void))
{
	const struct rlimit none = {0, 0};
	pid_t pid = fork();
	char ready;

	if (pid) {
		/* The child says so on the terminal when it is raw. */
		ck_assert_int_eq(read(master, &ready, 1), 1);
		return pid;
	}
	setsid();
	ioctl(slave, TIOCSCTTY, 0);
	dup2(slave, 0);
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	for (int sig = 1; sig < 32; sig++)
		signal(sig, SIG_DFL);
	if (terminal_raw(false, NULL))
		_exit(99);
	if (write(slave, "r", 1) != 1)
		_exit(98);
	fn();
	exit(7);
}

static bool is_raw(void)
{
	struct termios tio;

	ck_assert_int_eq(tcgetattr(slave, &tio), 0);
	return !(tio.c_lflag & (ECHO | ICANON | ISIG)) && !(tio.c_iflag & (ICRNL | IXON));
}

static void expect_restored(const struct termios *was)
{
	struct termios tio;

	ck_assert_int_eq(tcgetattr(slave, &tio), 0);
	ck_assert_uint_eq(tio.c_iflag, was->c_iflag);
	ck_assert_uint_eq(tio.c_oflag, was->c_oflag);
	ck_assert_uint_eq(tio.c_cflag, was->c_cflag);
	ck_assert_uint_eq(tio.c_lflag, was->c_lflag);
	ck_assert_mem_eq(tio.c_cc, was->c_cc, sizeof(tio.c_cc));
}

static void wait_forever(void)
{
	for (;;)
		pause();
}

static void just_return(void)
{
	/* Until the parent has seen the raw mode. */
	usleep(300000);
}

START_TEST(after_exit)
{
	struct termios was;
	int status;
	pid_t pid;

	tcgetattr(slave, &was);
	ck_assert(!is_raw());
	pid = run(just_return);
	ck_assert(is_raw());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	expect_restored(&was);
}
END_TEST

static const int deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV,
			     SIGBUS, SIGILL, SIGFPE,  SIGPIPE, SIGALRM};

START_TEST(after_signal)
{
	int sig = deadly[_i], status;
	struct termios was;
	pid_t pid;

	tcgetattr(slave, &was);
	pid = run(wait_forever);
	ck_assert(is_raw());
	ck_assert_int_eq(kill(pid, sig), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	/* It has died of the very signal. */
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == sig);
	expect_restored(&was);
}
END_TEST

static void expect_raw_soon(bool want)
{
	for (int i = 0; i < 5000 && is_raw() != want; i++)
		usleep(1000);
	ck_assert(is_raw() == want);
}

START_TEST(while_stopped)
{
	struct termios was;
	int status;
	pid_t pid;

	tcgetattr(slave, &was);
	pid = run(wait_forever);
	kill(pid, SIGTSTP);
	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	ck_assert(WIFSTOPPED(status));
	expect_restored(&was);
	kill(pid, SIGCONT);
	expect_raw_soon(true);
	/* Somebody stops it the hard way and uses the terminal himself. */
	kill(pid, SIGSTOP);
	ck_assert_int_eq(waitpid(pid, &status, WUNTRACED), pid);
	tcsetattr(slave, TCSANOW, &was);
	kill(pid, SIGCONT);
	expect_raw_soon(true);
	kill(pid, SIGTERM);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	expect_restored(&was);
}
END_TEST

START_TEST(no_terminal)
{
	struct hako_error err;
	int fd = open("/dev/null", O_RDWR), old = dup(0);

	dup2(fd, 0);
	ck_assert_int_eq(terminal_raw(false, &err), 0);
	terminal_restore();
	dup2(old, 0);
	close(fd);
	close(old);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("terminal");
	TCase *tc = tcase_create("terminal");
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_set_timeout(tc, 30);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, after_exit);
	tcase_add_loop_test(tc, after_signal, 0, ARRAY_SIZE(deadly));
	tcase_add_test(tc, while_stopped);
	tcase_add_test(tc, no_terminal);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
