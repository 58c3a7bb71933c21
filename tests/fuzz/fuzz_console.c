/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any keys on standard input, with the escape key on, while the guest takes them as it likes; what arrives, and what the escape key asked for, is compared with a
 * model. And any text on a guest's console, as `hako test` reads it.
 *
 * The input is a list of steps: a byte below 0x80 is that many bytes of keys, which follow; from there on, room for so many (less 0x80) at the guest.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "devices/char/char.h"
#include "vmm/vm.h"

/* It belongs to the program, not to the library. */
#include "vmm/cli/test_words.c"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define HELD	256 /* devices/char/stdio.c: what is kept while the guest takes none */
#define MAX_KEY 8192

static struct vm *vm;
static struct chardev *chr;
static int keys;

/* What the guest has got. Used in the loop, or while it is idle. */
static uint8_t got[2 * MAX_KEY], expected[2 * MAX_KEY], held[HELD];
static size_t ngot, room, nexpected, expected_room, nheld;
static bool escaped;
static int expected_request;

static void check(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "console: %s\n", what);
		abort();
	}
}

static size_t can_receive(void *client)
{
	return room;
}

static void receive(void *client, const uint8_t *buf, size_t len)
{
	check(len <= room && ngot + len <= sizeof(got), "more than there is room for");
	memcpy(got + ngot, buf, len);
	ngot += len;
	room -= len;
}

static void writable(void *client)
{
}

static const struct chardev_client_ops ops = {
	.can_receive = can_receive, .receive = receive, .writable = writable};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct class *cls = class_find(CLASS_CHARDEV, "stdio");
	struct keyvals kv = {0};
	struct hako_error err;
	struct object *obj;
	int in[2], out = dup(1), null = open("/dev/null", O_RDWR | O_CLOEXEC);

	check(!pipe2(in, O_CLOEXEC) && null >= 0 && out >= 0, "pipe");
	dup2(in[0], 0);
	dup2(null, 1);
	keys = in[1];
	check(!vm_new_plain(&vm, 0, &err), err.message);
	check(!keyvals_add(&kv, "id", "c") && !keyvals_add(&kv, "escape", "on"), "memory");
	check(!object_new(vm, cls, &kv, &obj, &err), err.message);
	keyvals_free(&kv);
	check(!chardev_take(vm, "c", &ops, NULL, &chr, &err), err.message);
	dup2(out, 1);
	return 0;
}

static void accept_more(void *arg)
{
	room = *(size_t *)arg;
	chr->ops->accept_input(chr);
}

static void settle(void *arg)
{
}

/* Until the loop has read all, and done with it. */
static void type(const uint8_t *data, size_t size)
{
	int left = 1;

	check(write(keys, data, size) == (ssize_t)size, "write");
	while (left) {
		check(!ioctl(keys, FIONREAD, &left), "pipe");
		loop_call(vm->io_loop, settle, NULL);
	}
	/* It may have been read just before this call came. */
	loop_call(vm->io_loop, settle, NULL);
}

/* --- the model ---------------------------------------------------------------------------------- */

static void expect_delivery(void)
{
	size_t n = MIN(expected_room, nheld);

	memcpy(expected + nexpected, held, n);
	memmove(held, held + n, nheld - n);
	nexpected += n;
	nheld -= n;
	expected_room -= n;
}

static void expect_key(uint8_t c)
{
	bool after = escaped;

	escaped = !after && c == 1;
	if (escaped)
		return;
	if (after && c == 'x')
		expected_request = VM_REQUEST_STOP;
	if (after && c == 'c' && !expected_request)
		expected_request = VM_REQUEST_CONTINUE;
	if (after && c != 1 && c != 'a')
		return;
	if (nheld < HELD)
		held[nheld++] = after ? 1 : c;
}

/* --- both ---------------------------------------------------------------------------------------- */

static void reset(void)
{
	size_t all = HELD;

	loop_call(vm->io_loop, accept_more, &all);
	if (escaped)
		type((const uint8_t *)"?", 1);
	ngot = nexpected = nheld = room = expected_room = 0;
	escaped = false;
	vm->request = expected_request = 0;
}

static void read_words(const uint8_t *data, size_t size)
{
	struct test_words words = {0};
	char why[100];
	enum test_outcome outcome;

	for (size_t at = 0, n; at < size; at += n) {
		n = MIN((size_t)data[at] + 1, size - at);
		test_words_add(&words, (const char *)data + at, n);
		check(words.len <= sizeof(words.line), "line");
	}
	outcome = test_words_judge(&words, why, sizeof(why));
	check(outcome != TEST_FAILED || (*why && memchr(why, 0, sizeof(why))),
	      "a failure without a reason");
	check(outcome != TEST_PASSED || words.passed, "passed without a result");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *p = data, *end = data + size;

	if (size > MAX_KEY)
		return 0;
	read_words(data, size);
	reset();
	while (p < end) {
		size_t n = *p++;

		if (n >= 0x80) {
			expected_room = n - 0x80;
			expect_delivery();
			n -= 0x80;
			loop_call(vm->io_loop, accept_more, &n);
			continue;
		}
		n = MIN(n, (size_t)(end - p));
		if (!n)
			continue;
		expect_delivery();
		for (size_t i = 0; i < n; i++)
			expect_key(p[i]);
		expect_delivery();
		type(p, n);
		p += n;
	}
	check(ngot == nexpected && !memcmp(got, expected, ngot), "other keys arrived");
	check(vm->request == expected_request, "another request");
	return 0;
}
