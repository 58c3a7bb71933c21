/* SPDX-License-Identifier: GPL-2.0-only */
/* hako test: one guest, from its start to a verdict. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test.h"

#define SKIP_CODE 77 /* kvm-unit-tests', and automake's */

struct run {
	struct test_guest *g;
	const struct test_config *config;
	struct hako_vm *vm;
	int console, far_end; /* ours, and the VM's: a number that may mean something else later, */
	ino_t far_inode;      /* hence this */
	bool triple_fault;
};

static void __attribute__((format(printf, 2, 3))) fail(struct test_guest *g, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(g->why, sizeof(g->why), fmt, ap);
	va_end(ap);
	g->outcome = TEST_FAILED;
}

/* From one of the VM's threads; it is read when they have ended. */
static void log_line(void *opaque, const char *line)
{
	struct run *run = opaque;

	if (strstr(line, "triple fault"))
		__atomic_store_n(&run->triple_fault, true, __ATOMIC_RELAXED);
}

/* The serial line comes to us by a socket. */
static int add_console(struct run *run, struct hako_error *err)
{
	struct stat st;
	char text[64];
	int fds[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return error_errno(err, -errno, "sockets");
	run->console = fds[0];
	run->far_end = fds[1];
	run->far_inode = fstat(fds[1], &st) ? 0 : st.st_ino;
	snprintf(text, sizeof(text), "socket,id=hako-console,fd=%d", fds[1]);
	r = hako_vm_set(run->vm, "chardev", text, err);
	return r ?: hako_vm_set(run->vm, "device", "isa-serial,chardev=hako-console", err);
}

static int make(struct run *run, struct hako_error *err)
{
	const struct test_config *c = run->config;
	int r = hako_vm_new(&run->vm, err);

	if (!r)
		r = hako_vm_set(run->vm, "kernel", run->g->file, err);
	if (!r)
		r = add_console(run, err);
	if (!r && !c->have_exit)
		r = hako_vm_set(run->vm, "device", "isa-debug-exit,iobase=0xf4,iosize=4", err);
	if (!r)
		r = hako_vm_set(run->vm, "no-reboot", "on", err);
	for (size_t i = 0; i < c->noptions && !r; i++)
		r = hako_vm_set(run->vm, c->option[i].name, c->option[i].value, err);
	if (r)
		return r;
	hako_vm_set_log(run->vm, log_line, run);
	return hako_vm_create(run->vm, err) ?: hako_vm_start(run->vm, err);
}

/* What there is on the console: how much, 0 at its end, or less if there is nothing now. */
static ssize_t read_console(struct run *run)
{
	struct test_guest *g = run->g;
	char buf[4096];
	ssize_t n = recv(run->console, buf, sizeof(buf), 0);
	size_t drop;

	if (n <= 0)
		return n;
	test_words_add(&g->words, buf, n);
	drop = g->tail_len + n > TEST_TAIL ? g->tail_len + n - TEST_TAIL : 0;
	memmove(g->tail, g->tail + drop, g->tail_len - drop);
	memcpy(g->tail + g->tail_len - drop, buf, n);
	g->tail_len += n - drop;
	return n;
}

/* Until the guest's end; false: that of its time has come first. */
static bool watch(struct run *run)
{
	uint64_t deadline = clock_now() + run->config->timeout * NSEC_PER_SEC, now;
	struct pollfd p[2] = {
		{.fd = hako_vm_end_fd(run->vm), .events = POLLIN},
		{.fd = run->console, .events = POLLIN},
	};

	while ((now = clock_now()) < deadline) {
		uint64_t ms = (deadline - now) / 1000000 + 1;

		if (poll(p, 2, MIN(ms, 3600000)) <= 0)
			continue;
		if (p[1].revents && read_console(run) == 0)
			p[1].fd = -1;
		if (p[0].revents)
			return true;
	}
	return false;
}

static void judge_code(struct run *run, int status)
{
	uint32_t code = status >> 1;

	if (code == run->config->success)
		run->g->outcome = TEST_PASSED;
	else if (code == SKIP_CODE)
		run->g->outcome = TEST_SKIPPED;
	else
		fail(run->g, "it wrote %u to isa-debug-exit", code);
}

static void judge(struct run *run, const struct hako_exit_info *info)
{
	struct test_guest *g = run->g;

	switch (info->reason) {
	case HAKO_EXIT_DEBUG:
		judge_code(run, info->status);
		break;
	case HAKO_EXIT_POWEROFF:
	case HAKO_EXIT_RESET:
		if (run->triple_fault)
			fail(g, "triple fault");
		else
			g->outcome = test_words_judge(&g->words, g->why, sizeof(g->why));
		break;
	default:
		fail(g, "%s", info->message);
	}
}

/* The VM has closed its end, if it came so far as to have it. */
static void close_console(struct run *run)
{
	struct stat st;

	if (run->console < 0)
		return;
	while (read_console(run) > 0)
		;
	close(run->console);
	if (fstat(run->far_end, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_ino == run->far_inode)
		close(run->far_end);
}

void test_guest_run(struct test_guest *g, const struct test_config *config)
{
	struct run run = {.g = g, .config = config, .console = -1, .far_end = -1};
	struct hako_exit_info info;
	struct hako_error err;
	bool ended = false;
	int r = make(&run, &err);

	if (!r)
		ended = watch(&run);
	if (ended)
		r = hako_vm_wait(run.vm, 0, &info, &err);
	/* The last words come with the end of the VM, and then the end of the console. */
	hako_vm_destroy(run.vm);
	close_console(&run);
	if (r)
		fail(g, "%s", err.message);
	else if (!ended)
		fail(g, "timed out after %u s", config->timeout);
	else
		judge(&run, &info);
}
