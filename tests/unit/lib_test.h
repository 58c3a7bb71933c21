/* SPDX-License-Identifier: GPL-2.0-only */
/* Programs that hold VMs by hako.h and nothing else, and a guest that does what it is told (tests/guest/t_talk.c). */
#ifndef TESTS_UNIT_LIB_TEST_H
#define TESTS_UNIT_LIB_TEST_H

#include <check.h>
#include <hako.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT 20000 /* ms: other tests may have the CPUs */

static char talk_guest[4096];
static _Thread_local struct hako_error err;

#define ok(call)                                                       \
	do {                                                           \
		long ok_ = (call);                                     \
		ck_assert_msg(ok_ >= 0, "%s: %s", #call, err.message); \
	} while (0)

#define fails(call, code, word)                                                      \
	do {                                                                         \
		err.message[0] = 0;                                                  \
		ck_assert_int_eq(call, code);                                        \
		ck_assert_msg(strstr(err.message, word) != NULL, "%s", err.message); \
		ck_assert_ptr_null(strchr(err.message, '\n'));                       \
	} while (0)

/* The guests are built beside this program. False, and a line: it can not be run here. */
static inline bool lib_test_possible(const char *name)
{
	ssize_t n = readlink("/proc/self/exe", talk_guest, sizeof(talk_guest) - 32);

	talk_guest[n < 0 ? 0 : n] = 0;
	*strrchr(talk_guest, '/') = 0;
	strcpy(strrchr(talk_guest, '/'), "/guest/guest.elf");
	if (access("/dev/kvm", R_OK | W_OK) || access(talk_guest, R_OK)) {
		printf("skip unit/%s no access to %s\n100%%: Checks: 0\n", name,
		       access("/dev/kvm", R_OK | W_OK) ? "/dev/kvm" : talk_guest);
		return false;
	}
	return true;
}

/* To be created; @options, if not NULL, may have another console. */
static inline struct hako_vm *talk_new(const char *machine, const char *options)
{
	struct hako_vm *vm;

	ok(hako_vm_new(&vm, &err));
	ok(hako_vm_set(vm, "machine", machine, &err));
	ok(hako_vm_set(vm, "kernel", talk_guest, &err));
	ok(hako_vm_configure(vm, "--memory 64M --append 'test=talk con=serial'", &err));
	if (getenv("HAKO_TEST_LOOP"))
		ok(hako_vm_set(vm, "loop", getenv("HAKO_TEST_LOOP"), &err));
	if (!options || !strstr(options, "--console"))
		ok(hako_vm_set(vm, "console", "program", &err));
	if (options)
		ok(hako_vm_configure(vm, options, &err));
	return vm;
}

static inline struct hako_console *talk_start(struct hako_vm *vm)
{
	struct hako_console *c;

	ok(hako_vm_create(vm, &err));
	ok(hako_vm_console(vm, "console0", &c, &err));
	ok(hako_vm_start(vm, &err));
	ok(hako_console_expect(c, "ready\r\n> ", 0, WAIT, NULL, NULL, &err));
	return c;
}

static inline void say(struct hako_console *c, const char *line)
{
	ok(hako_console_write(c, line, strlen(line), WAIT, &err));
	ok(hako_console_write(c, "\n", 1, WAIT, &err));
}

static inline void hear(struct hako_console *c, const char *want)
{
	char *answer;

	ok(hako_console_expect(c, "\r\n> ", 0, WAIT, &answer, NULL, &err));
	ck_assert_str_eq(answer, want);
	free(answer);
}

static inline void tell(struct hako_console *c, const char *line, const char *want)
{
	say(c, line);
	hear(c, want);
}

#endif
