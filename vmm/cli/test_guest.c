/* SPDX-License-Identifier: GPL-2.0-only */
/* hako test: one guest, from its start to a verdict. */
#include <stdarg.h>
#include <stdio.h>

#include "test.h"

#define SKIP_CODE 77 /* kvm-unit-tests', and automake's */

struct run {
	const char *file;
	struct test_report *report;
	struct test_words words;
	const struct test_config *config;
	struct hako_vm *vm;
	struct hako_console *console;
	bool triple_fault;
};

static void __attribute__((format(printf, 2, 3))) fail(struct test_report *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r->why, sizeof(r->why), fmt, ap);
	va_end(ap);
	r->outcome = TEST_FAILED;
}

/* From one of the VM's threads; it is read when they have ended. */
static void log_line(void *opaque, const char *line)
{
	struct run *run = opaque;

	if (strstr(line, "triple fault"))
		__atomic_store_n(&run->triple_fault, true, __ATOMIC_RELAXED);
}

static int make(struct run *run, struct hako_error *err)
{
	const struct test_config *c = run->config;
	int r = hako_vm_new(&run->vm, err);

	if (!r)
		r = hako_vm_set(run->vm, "kernel", run->file, err);
	if (!r)
		r = hako_vm_set(run->vm, "chardev", "program,id=hako-console", err);
	if (!r)
		r = hako_vm_set(run->vm, "device", "isa-serial,chardev=hako-console", err);
	if (!r && !c->have_exit)
		r = hako_vm_set(run->vm, "device", "isa-debug-exit,iobase=0xf4,iosize=4", err);
	if (!r)
		r = hako_vm_set(run->vm, "no-reboot", "on", err);
	for (size_t i = 0; i < c->noptions && !r; i++)
		r = hako_vm_set(run->vm, c->option[i].name, c->option[i].value, err);
	if (r)
		return r;
	hako_vm_set_log(run->vm, log_line, run);
	r = hako_vm_create(run->vm, err);
	if (!r)
		r = hako_vm_console(run->vm, "hako-console", &run->console, err);
	if (!r)
		r = cli_confine(run->vm, c->sandbox, 0, NULL, err);
	return r ?: hako_vm_start(run->vm, err);
}

static void add_words(struct run *run, const char *buf, size_t n)
{
	struct test_report *r = run->report;
	size_t drop = r->tail_len + n > TEST_TAIL ? r->tail_len + n - TEST_TAIL : 0;

	test_words_add(&run->words, buf, n);
	memmove(r->tail, r->tail + drop, r->tail_len - drop);
	memcpy(r->tail + r->tail_len - drop, buf, n);
	r->tail_len += n - drop;
}

/* Until the guest's end and its last words; false: that of its time has come first. */
static bool watch(struct run *run)
{
	uint64_t deadline = clock_now() + run->config->timeout * NSEC_PER_SEC, now;
	char buf[4096];
	ssize_t n = 1;

	while (n && (now = clock_now()) < deadline) {
		uint64_t ms = (deadline - now) / 1000000 + 1;

		n = hako_console_read(run->console, buf, sizeof(buf), MIN(ms, 3600000), NULL);
		if (n > 0)
			add_words(run, buf, n);
	}
	return !n;
}

static void judge_code(struct run *run, int status)
{
	uint32_t code = status >> 1;

	if (code == run->config->success)
		run->report->outcome = TEST_PASSED;
	else if (code == SKIP_CODE)
		run->report->outcome = TEST_SKIPPED;
	else
		fail(run->report, "it wrote %u to isa-debug-exit", code);
}

static void judge(struct run *run, const struct hako_exit_info *info)
{
	struct test_report *r = run->report;

	switch (info->reason) {
	case HAKO_EXIT_DEBUG:
		judge_code(run, info->status);
		break;
	case HAKO_EXIT_POWEROFF:
	case HAKO_EXIT_RESET:
		if (run->triple_fault)
			fail(r, "triple fault");
		else
			r->outcome = test_words_judge(&run->words, r->why, sizeof(r->why));
		break;
	default:
		fail(r, "%s", info->message);
	}
}

void test_guest_run(const char *file, const struct test_config *config, struct test_report *report)
{
	struct run run = {.file = file, .report = report, .config = config};
	struct hako_exit_info info;
	struct hako_error err;
	bool ended = false;
	int r;

	if (config->sandbox == SANDBOX_STRICT)
		sandbox_namespaces();
	r = make(&run, &err);
	if (!r)
		ended = watch(&run);
	if (ended)
		r = hako_vm_wait(run.vm, 0, &info, &err);
	hako_vm_destroy(run.vm);
	if (r)
		fail(report, "%s", err.message);
	else if (!ended)
		fail(report, "timed out after %u s", config->timeout);
	else
		judge(&run, &info);
}
