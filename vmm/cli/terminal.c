/* SPDX-License-Identifier: GPL-2.0-only */
#include "vmm/cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/util.h"

/* What handlers need. Written before they are installed. */
static struct termios before, raw;
static volatile sig_atomic_t wanted; /* raw mode, as soon as the terminal is ours */

/* A process in the background must not touch the terminal: it would be stopped (SIGTTOU). */
static bool foreground(void)
{
	return tcgetpgrp(STDIN_FILENO) == getpgrp();
}

static void enter(void)
{
	if (wanted && foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, &raw);
}

static void leave(void)
{
	/* Not waiting for output to drain, which may never happen. */
	if (foreground())
		tcsetattr(STDIN_FILENO, TCSANOW, &before);
}

void terminal_restore(void)
{
	if (!wanted)
		return;
	wanted = 0;
	leave();
}

/* The handler is gone already (SA_RESETHAND): the signal does what it does. */
static void on_death(int sig)
{
	terminal_restore();
	raise(sig);
}

static void on_stop(int sig)
{
	int code = errno;

	leave();
	raise(SIGSTOP);
	errno = code;
}

static void on_continue(int sig)
{
	int code = errno;

	enter();
	errno = code;
}

/* Leave alone what somebody has handled or ignored on purpose. */
static void handle(int sig, void (*fn)(int sig), int flags)
{
	struct sigaction sa = {.sa_handler = fn, .sa_flags = flags}, old;

	if (sigaction(sig, NULL, &old) == 0 && old.sa_handler == SIG_DFL)
		sigaction(sig, &sa, NULL);
}

static void install_handlers(void)
{
	static const int deadly[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGABRT, SIGSEGV, SIGBUS,
				     SIGILL, SIGFPE, SIGPIPE, SIGALRM, SIGXCPU, SIGXFSZ, SIGSYS};

	for (size_t i = 0; i < ARRAY_SIZE(deadly); i++)
		handle(deadly[i], on_death, SA_RESETHAND | SA_NODEFER);
	handle(SIGTSTP, on_stop, SA_RESTART);
	handle(SIGCONT, on_continue, SA_RESTART);
	atexit(terminal_restore);
}

int terminal_raw(bool signals, struct hako_error *err)
{
	static bool installed;

	if (!isatty(STDIN_FILENO))
		return 0;
	if (!wanted && tcgetattr(STDIN_FILENO, &before) < 0)
		return error_errno(err, -errno, "terminal");
	raw = before;
	raw.c_iflag &= ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_lflag &= ~(ECHO | ECHONL | ICANON | IEXTEN | (signals ? 0 : ISIG));
	raw.c_cflag &= ~(CSIZE | PARENB);
	raw.c_cflag |= CS8;
	/* Output stays cooked: what the program itself says ends its lines as ever, and a guest's \r\n does no harm. */
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	wanted = 1;
	if (!installed)
		install_handlers();
	installed = true;
	enter();
	return 0;
}
