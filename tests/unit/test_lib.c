/* SPDX-License-Identifier: GPL-2.0-only */
/* hako.h: configuring, events, consoles, memory, devices of the program's. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>

#include "lib_test.h"
#include "suite.h"

static const char *const machines[] = {"micro", "q35"};

/* --- configuring ------------------------------------------------------------------------------- */

START_TEST(options_in_words)
{
	struct hako_vm *vm;

	ok(hako_vm_new(&vm, &err));
	ok(hako_vm_configure(vm, "", &err));
	ok(hako_vm_configure(vm, " --machine=micro\n\t--no-reboot --append \"a 'b' \\\"c\" ",
			     &err));
	ok(hako_vm_configure(vm, "--name 'x y'z\\ w", &err));
	fails(hako_vm_configure(vm, "--name 'x", &err), -EINVAL, "quote");
	fails(hako_vm_configure(vm, "--nam x", &err), -EINVAL, "did you mean --name");
	fails(hako_vm_configure(vm, "--name", &err), -EINVAL, "a value is missing");
	fails(hako_vm_configure(vm, "-m 64", &err), -EINVAL, "two dashes");
	fails(hako_vm_configure(vm, "--loop x", &err), -EINVAL, "--loop");
	/* A bare word is a disk. */
	ok(hako_vm_configure(vm, "/no/such.img", &err));
	ok(hako_vm_set(vm, "kernel", talk_guest, &err));
	fails(hako_vm_create(vm, &err), -ENOENT, "--disk /no/such.img");
	fails(hako_vm_configure(vm, "--name x", &err), -EBUSY, "created already");
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(options_in_json)
{
	struct hako_console *c;
	struct hako_vm *vm;

	ok(hako_vm_new(&vm, &err));
	if (hako_vm_configure(vm, "{}", &err) == -EOPNOTSUPP) {
		hako_vm_destroy(vm);
		return; /* built without json-c */
	}
	fails(hako_vm_configure(vm, "{\"machine\": ", &err), -EINVAL, "bad JSON");
	fails(hako_vm_configure(vm, "{\"colour\": 1}", &err), -EINVAL, "colour");
	ok(hako_vm_configure(
		vm,
		" {\"machine\": \"micro\", \"memory\": 64, \"no-reboot\": true, \"append\": \"test=talk con=serial\","
		"\"console\": [\"program\"], \"device\": [{\"driver\": \"virtio-rng\"},"
		" \"isa-debug-exit,iobase=0xf4,iosize=4\"], \"name\": null}",
		&err));
	ok(hako_vm_set(vm, "kernel", talk_guest, &err));
	c = talk_start(vm);
	tell(c, "break", "status 43");
	hako_vm_destroy(vm);
}
END_TEST

/* --- events ------------------------------------------------------------------------------------ */

struct events {
	pthread_mutex_t lock;
	unsigned int count[8];
	char last[8][256];
};

static void count_event(void *opaque, enum hako_event event, const char *message)
{
	struct events *e = opaque;

	pthread_mutex_lock(&e->lock);
	e->count[event]++;
	snprintf(e->last[event], sizeof(e->last[event]), "%s", message);
	pthread_mutex_unlock(&e->lock);
}

/* The next event that is not of the console's. */
static enum hako_event next_event(struct hako_vm *vm, char *message, size_t size)
{
	struct pollfd p = {.fd = hako_vm_event_fd(vm, &err), .events = POLLIN};
	enum hako_event event;

	for (;;) {
		ck_assert_int_eq(poll(&p, 1, WAIT), 1);
		ok(hako_vm_next_event(vm, &event, message, size));
		if (event != HAKO_EVENT_CONSOLE)
			return event;
		ck_assert_str_eq(message, "console0");
	}
}

START_TEST(events_come)
{
	struct events e = {.lock = PTHREAD_MUTEX_INITIALIZER};
	struct hako_exit_info info;
	struct hako_console *c;
	struct hako_vm *vm;
	enum hako_event event;
	struct pollfd p;
	char message[256];

	vm = talk_new(
		machines[_i],
		"--device virtio-rng --device pvpanic --panic=pause --device isa-debug-exit,iobase=0xf4,iosize=4");
	ck_assert_int_eq(hako_vm_next_event(vm, &event, message, sizeof(message)), -EAGAIN);
	hako_vm_set_event(vm, count_event, &e);
	p = (struct pollfd){.fd = hako_vm_event_fd(vm, &err), .events = POLLIN};
	ok(p.fd);
	ck_assert_int_eq(hako_vm_event_fd(vm, &err), p.fd);
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	c = talk_start(vm);
	tell(c, "break", "status 43");
	ck_assert_int_eq(next_event(vm, message, sizeof(message)), HAKO_EVENT_GUEST_ERROR);
	ck_assert_ptr_nonnull(strstr(message, "DRIVER_OK without FEATURES_OK"));
	say(c, "panic");
	ck_assert_int_eq(next_event(vm, message, 4), HAKO_EVENT_PANIC);
	ck_assert_str_eq(message, "the");
	for (int i = 0; i < WAIT && strcmp(hako_vm_get(vm, "status"), "paused"); i++)
		usleep(1000);
	ok(hako_vm_start(vm, &err));
	hear(c, "done");
	/* By a triple fault. */
	say(c, "reset");
	ck_assert_int_eq(next_event(vm, message, sizeof(message)), HAKO_EVENT_GUEST_ERROR);
	ck_assert_ptr_nonnull(strstr(message, "triple fault"));
	ck_assert_int_eq(next_event(vm, message, sizeof(message)), HAKO_EVENT_RESET);
	ok(hako_console_expect(c, "ready\r\n> ", 0, WAIT, NULL, NULL, &err));
	ok(hako_vm_reset(vm, &err));
	ck_assert_int_eq(next_event(vm, message, sizeof(message)), HAKO_EVENT_RESET);
	ok(hako_console_expect(c, "ready\r\n> ", 0, WAIT, NULL, NULL, &err));
	say(c, "exit 5");
	ck_assert_int_eq(next_event(vm, message, sizeof(message)), HAKO_EVENT_SHUTDOWN);
	ok(hako_vm_wait(vm, 0, &info, &err));
	ck_assert_int_eq(info.reason, HAKO_EXIT_DEBUG);
	ck_assert_int_eq(info.status, 11);
	ck_assert_int_eq(poll(&p, 1, 0), 0);
	ck_assert_int_eq(hako_vm_next_event(vm, &event, message, 0), -EAGAIN);
	hako_vm_destroy(vm);
	ck_assert_uint_eq(e.count[HAKO_EVENT_SHUTDOWN], 1);
	ck_assert_uint_eq(e.count[HAKO_EVENT_RESET], 2);
	ck_assert_uint_eq(e.count[HAKO_EVENT_PANIC], 1);
	ck_assert_uint_eq(e.count[HAKO_EVENT_GUEST_ERROR], 2);
	ck_assert_uint_gt(e.count[HAKO_EVENT_CONSOLE], 0);
}
END_TEST

/* However many there are, the end is heard of. */
START_TEST(events_are_bounded)
{
	struct hako_vm *vm = talk_new("micro", "--device virtio-rng");
	char message[256], last[300] = "";
	unsigned int n = 0, errors = 0;
	enum hako_event event;
	struct hako_console *c;

	ok(hako_vm_event_fd(vm, &err));
	c = talk_start(vm);
	for (int i = 0; i < 100; i++)
		tell(c, "break", "status 43");
	ok(hako_vm_stop(vm, &err));
	while (!hako_vm_next_event(vm, &event, message, sizeof(message))) {
		n++;
		errors += event == HAKO_EVENT_GUEST_ERROR;
		snprintf(last, sizeof(last), "%d %s", event, message);
	}
	ck_assert_uint_eq(n, 64);
	ck_assert_uint_ge(errors, 60);
	snprintf(message, sizeof(message), "%d stopped", HAKO_EVENT_SHUTDOWN);
	ck_assert_str_eq(last, message);
	hako_vm_destroy(vm);
}
END_TEST

/* --- consoles ---------------------------------------------------------------------------------- */

START_TEST(expect_strings)
{
	struct hako_vm *vm = talk_new(machines[_i], NULL);
	char *before, *match, *text;
	struct hako_console *c;
	char buf[16];
	size_t len;

	ok(hako_vm_create(vm, &err));
	fails(hako_vm_console(vm, "console1", &c, &err), -ENODEV, "console1");
	ok(hako_vm_console(vm, "console0", &c, &err));
	fails(hako_console_expect(c, "x", 0, 0, &before, &match, &err), -ETIMEDOUT, "\"x\"");
	ck_assert_str_eq(before, "");
	ck_assert_ptr_null(match);
	free(before);
	ok(hako_vm_start(vm, &err));
	ok(hako_console_expect(c, "ready\r\n> ", 0, WAIT, NULL, NULL, &err));
	tell(c, "echo one two three", "one two three");
	say(c, "echo one two three");
	ok(hako_console_expect(c, "two", 0, WAIT, &before, &match, &err));
	ck_assert_str_eq(before, "one ");
	ck_assert_str_eq(match, "two");
	free(before);
	free(match);
	/* What has been read is not found again; what was not found has not been read. */
	fails(hako_console_expect(c, "two", 0, 50, &before, NULL, &err), -ETIMEDOUT,
	      "\"two\" has not come in time; the last line is \"> \"");
	ck_assert_str_eq(before, " three\r\n> ");
	free(before);
	fails(hako_console_expect(c, "", 0, 0, NULL, NULL, &err), -EINVAL, "empty");
	fails(hako_console_expect(c, "x", 2, 0, NULL, NULL, &err), -EINVAL, "flags");
	ck_assert_int_eq(hako_console_read(c, buf, 3, 0, &err), 3);
	ck_assert(!memcmp(buf, " th", 3));
	ck_assert_int_eq(hako_console_read(c, buf, sizeof(buf), WAIT, &err), 7);
	fails(hako_console_read(c, buf, sizeof(buf), 10, &err), -ETIMEDOUT, "says nothing");
	text = hako_console_transcript(c, &len);
	ck_assert_uint_eq(strlen(text), len);
	ck_assert_str_eq(text, "ready\r\n> one two three\r\n> one two three\r\n> ");
	free(text);
	/* The end of the VM is the end of waiting. */
	ok(hako_vm_stop(vm, &err));
	fails(hako_console_expect(c, "two", 0, -1, NULL, NULL, &err), -ESHUTDOWN,
	      "the VM has ended");
	ck_assert_int_eq(hako_console_read(c, buf, sizeof(buf), -1, &err), 0);
	fails(hako_console_write(c, "x", 1, -1, &err), -ESHUTDOWN, "the VM has ended");
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(expect_regexes)
{
	struct hako_vm *vm = talk_new("micro", NULL);
	struct hako_console *c = talk_start(vm);
	char *before, *match;
	const unsigned int regex = HAKO_EXPECT_REGEX;

	say(c, "echo alpha=17 beta=23");
	ok(hako_console_expect(c, "[a-z]+=2[0-9]$", regex, WAIT, &before, &match, &err));
	ck_assert_str_eq(before, "alpha=17 ");
	ck_assert_str_eq(match, "beta=23");
	free(before);
	free(match);
	/* In the middle of a line is no beginning; a prompt is no end of a line. */
	ok(hako_console_expect(c, "^> ", regex, WAIT, NULL, NULL, &err));
	say(c, "echo x");
	fails(hako_console_expect(c, "^x", regex, 50, NULL, NULL, &err), -ETIMEDOUT, "^x");
	fails(hako_console_expect(c, "> $", regex, 50, NULL, NULL, &err), -ETIMEDOUT, "> $");
	ok(hako_console_expect(c, "x|never", regex, WAIT, NULL, NULL, &err));
	fails(hako_console_expect(c, "[", regex, 0, NULL, NULL, &err), -EINVAL, "[");
	/* Several lines. */
	say(c, "help");
	ok(hako_console_expect(c, "^(reset|poweroff)$", regex, WAIT, &before, &match, &err));
	ck_assert_str_eq(match, "reset");
	ck_assert_ptr_nonnull(strstr(before, "> help\r\necho TEXT\r\n"));
	free(before);
	free(match);
	hako_vm_destroy(vm);
}
END_TEST

static void *say_later(void *opaque)
{
	usleep(50000);
	say(opaque, "echo later");
	return NULL;
}

START_TEST(waiting_is_woken)
{
	struct hako_vm *vm = talk_new("micro", NULL);
	struct hako_console *c = talk_start(vm);
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, say_later, c), 0);
	hear(c, "later");
	pthread_join(thread, NULL);
	hako_vm_destroy(vm);
}
END_TEST

/* The newest text is kept, and what was lost unread is not found. */
START_TEST(transcript_is_bounded)
{
	struct hako_vm *vm = talk_new("micro", "--console program,limit=65536");
	struct hako_console *c = talk_start(vm);
	char *text, *all;
	size_t len;

	for (int i = 0; i < 400; i++)
		say(c, "help");
	say(c, "echo the end");
	do {
		usleep(10000);
		text = hako_console_transcript(c, &len);
		ck_assert_uint_le(len, 65536);
		all = strstr(text, "> the end\r\n> ");
		free(text);
	} while (!all);
	ck_assert_uint_gt(len, 65536 * 3 / 4 - 4096);
	ok(hako_console_expect(c, "the end\r\n> ", 0, 0, &text, NULL, &err));
	ck_assert_uint_eq(strlen(text), len - strlen("the end\r\n> "));
	free(text);
	hako_vm_destroy(vm);
}
END_TEST

/* A virtio console and a port beside the serial line, and nobody takes the other's words. */
START_TEST(several_ports)
{
	struct hako_console *serial, *hvc, *port;
	struct hako_vm *vm;

	ok(hako_vm_new(&vm, &err));
	ok(hako_vm_set(vm, "kernel", talk_guest, &err));
	ok(hako_vm_configure(
		vm,
		"--machine q35 --memory 64M --append 'test=console con=serial multiport=1 input=1 irq=1' "
		"--console program --chardev program,id=hvc --chardev program,id=port --chardev null,id=n "
		"--device virtio-serial --device virtconsole,chardev=hvc "
		"--device virtserialport,chardev=port,name=p",
		&err));
	ok(hako_vm_create(vm, &err));
	ok(hako_vm_console(vm, "console0", &serial, &err));
	ok(hako_vm_console(vm, "hvc", &hvc, &err));
	ok(hako_vm_console(vm, "port", &port, &err));
	fails(hako_vm_console(vm, "n", &port, &err), -EINVAL, "null");
	ok(hako_vm_start(vm, &err));
	ok(hako_console_expect(hvc, "type\n", 0, WAIT, NULL, NULL, &err));
	ok(hako_console_write(hvc, "some words\n", 11, WAIT, &err));
	ok(hako_console_expect(hvc, "SOME WORDS\n", 0, WAIT, NULL, NULL, &err));
	ok(hako_console_write(hvc, "\n", 1, WAIT, &err));
	ok(hako_console_expect(serial, "PASS console", 0, WAIT, NULL, NULL, &err));
	ck_assert_int_eq(hako_console_read(port, (char[8]){0}, 8, 0, &err), -ETIMEDOUT);
	hako_vm_destroy(vm);
}
END_TEST

/* --- memory, devices --------------------------------------------------------------------------- */

START_TEST(guest_memory)
{
	struct hako_vm *vm = talk_new(machines[_i], NULL);
	struct hako_console *c;
	uint32_t word = 0;

	fails(hako_vm_read_memory(vm, 0, &word, 4, &err), -EINVAL, "created");
	fails(hako_vm_write_memory(vm, 0, &word, 4, &err), -EINVAL, "created");
	fails(hako_vm_send_msi(vm, 0xfee00000, 0x40, &err), -EINVAL, "created");
	c = talk_start(vm);
	word = 0xcafe;
	ok(hako_vm_write_memory(vm, 0x3000000, &word, 4, &err));
	tell(c, "read 3000000", "cafe");
	tell(c, "write 3000004 beef", "done");
	ok(hako_vm_read_memory(vm, 0x3000004, &word, 4, &err));
	ck_assert_uint_eq(word, 0xbeef);
	fails(hako_vm_read_memory(vm, 0x3fffffe, &word, 4, &err), -EFAULT, "0x3fffffe, 4 bytes");
	fails(hako_vm_write_memory(vm, UINT64_MAX, &word, 4, &err), -EFAULT,
	      "not all of it is RAM");
	hako_vm_destroy(vm);
}
END_TEST

struct device {
	struct hako_vm *vm;
	uint64_t last_offset, last_value;
	unsigned int last_bytes;
};

static uint64_t device_read(void *opaque, uint64_t offset, unsigned int bytes)
{
	struct device *d = opaque;
	uint32_t word;

	/* A callback may look into memory. */
	ck_assert_int_eq(hako_vm_read_memory(d->vm, 0x3000000, &word, 4, NULL), 0);
	return word + offset * 0x100 + bytes;
}

static void device_write(void *opaque, uint64_t offset, uint64_t value, unsigned int bytes)
{
	struct device *d = opaque;

	d->last_offset = offset;
	d->last_value = value;
	d->last_bytes = bytes;
}

START_TEST(regions)
{
	struct hako_vm *vm = talk_new(machines[_i], NULL);
	struct device d = {.vm = vm};
	struct hako_region r = {
		.size = sizeof(r),
		.space = HAKO_PORTS,
		.base = 0x5000,
		.length = 8,
		.read = device_read,
		.write = device_write,
		.opaque = &d,
	};
	struct hako_region bad;
	struct hako_console *c;

	fails(hako_vm_add_region(vm, &r, &err), -EINVAL, "created");
	c = talk_start(vm);
	ok(hako_vm_add_region(vm, &r, &err));
	fails(hako_vm_add_region(vm, &r, &err), -EEXIST, "overlaps");
	r.space = HAKO_MMIO;
	r.base = 0xd1000000;
	ok(hako_vm_add_region(vm, &r, &err));
	bad = r;
	bad.base = 0x1000;
	fails(hako_vm_add_region(vm, &bad, &err), -EEXIST, "RAM");
	bad.base = UINT64_MAX - 3;
	fails(hako_vm_add_region(vm, &bad, &err), -EINVAL, "too long");
	bad = r;
	bad.length = 0;
	fails(hako_vm_add_region(vm, &bad, &err), -EINVAL, "empty");
	bad = r;
	bad.space = HAKO_PORTS;
	fails(hako_vm_add_region(vm, &bad, &err), -EINVAL, "too long");
	bad.base = 0x3f8;
	fails(hako_vm_add_region(vm, &bad, &err), -EEXIST, "overlaps");
	bad.size = 4;
	fails(hako_vm_add_region(vm, &bad, &err), -EINVAL, "size");
	/* One that does nothing. */
	r.base = 0xd2000000;
	r.read = NULL;
	r.write = NULL;
	ok(hako_vm_add_region(vm, &r, &err));
	tell(c, "in 5003 1", "1"); /* cut to its size */
	tell(c, "in 5002 2", "202");
	tell(c, "in 5004 4", "404");
	tell(c, "out 5001 ab 1", "done");
	ck_assert_uint_eq(d.last_offset, 1);
	ck_assert_uint_eq(d.last_value, 0xab);
	ck_assert_uint_eq(d.last_bytes, 1);
	tell(c, "write 3000000 70000", "done");
	tell(c, "read d1000004", "70404");
	tell(c, "write d1000000 12345678", "done");
	ck_assert_uint_eq(d.last_offset, 0);
	ck_assert_uint_eq(d.last_value, 0x12345678);
	ck_assert_uint_eq(d.last_bytes, 4);
	tell(c, "read d2000000", "ffffffff");
	tell(c, "write d2000000 1", "done");
	ck_assert_uint_eq(d.last_value, 0x12345678);
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(messages)
{
	struct hako_vm *vm = talk_new(machines[_i], NULL);
	struct hako_console *c = talk_start(vm);
	unsigned int address, data;
	char *text;

	say(c, "msi");
	ok(hako_console_expect(c, "address .*$", HAKO_EXPECT_REGEX, WAIT, NULL, &text, &err));
	ck_assert_int_eq(sscanf(text, "address %x data %x", &address, &data), 2);
	free(text);
	/* No local APIC has that ID. */
	fails(hako_vm_send_msi(vm, address | 0x7f000, data, &err), -ENODEV, "no local APIC");
	ok(hako_vm_send_msi(vm, address, data, &err));
	ok(hako_console_expect(c, "interrupt\r\n> ", 0, WAIT, NULL, NULL, &err));
	hako_vm_destroy(vm);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib");
	TCase *tc = tcase_create("calls");

	if (!lib_test_possible("lib"))
		return 0;
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, options_in_words);
	tcase_add_test(tc, options_in_json);
	tcase_add_loop_test(tc, events_come, 0, 2);
	tcase_add_test(tc, events_are_bounded);
	tcase_add_loop_test(tc, expect_strings, 0, 2);
	tcase_add_test(tc, expect_regexes);
	tcase_add_test(tc, waiting_is_woken);
	tcase_add_test(tc, transcript_is_bounded);
	tcase_add_test(tc, several_ports);
	tcase_add_loop_test(tc, guest_memory, 0, 2);
	tcase_add_loop_test(tc, regions, 0, 2);
	tcase_add_loop_test(tc, messages, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
