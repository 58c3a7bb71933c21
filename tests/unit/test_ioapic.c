/* SPDX-License-Identifier: GPL-2.0-only */
/* The IOAPIC as Intel's data sheet (290566-001) describes it, and as drivers use it. */
#include <check.h>
#include <stdlib.h>

#include "arch/x86/ioapic.h"

#define EDGE   0
#define LEVEL  0x8000u
#define MASKED 0x10000u
#define RIRR   0x4000u

/* What the chip asked for. */
static struct {
	unsigned int sent;
	uint64_t address;
	uint32_t data;
	bool taken; /* a local APIC takes what is sent */
	struct {
		bool on;
		unsigned int changes;
		uint64_t address;
		uint32_t data;
	} watch[IOAPIC_PINS];
} bus;

static struct ioapic io;
static struct hako_error err;

static bool send(void *opaque, uint64_t address, uint32_t data)
{
	ck_assert_ptr_eq(opaque, &bus);
	bus.sent++;
	bus.address = address;
	bus.data = data;
	return bus.taken;
}

static void watch(void *opaque, uint32_t pin, uint64_t address, uint32_t data)
{
	bus.watch[pin].on = true;
	bus.watch[pin].changes++;
	bus.watch[pin].address = address;
	bus.watch[pin].data = data;
}

static void unwatch(void *opaque, uint32_t pin)
{
	ck_assert(bus.watch[pin].on);
	bus.watch[pin].on = false;
}

static const struct ioapic_ops ops = {send, watch, unwatch};

static void setup(void)
{
	memset(&bus, 0, sizeof(bus));
	bus.taken = true;
	ioapic_init(&io, &ops, &bus);
}

static uint32_t window_get(uint64_t offset)
{
	return ioapic_io_ops.read(&io, offset, 4);
}

static void window_set(uint64_t offset, uint32_t value)
{
	ioapic_io_ops.write(&io, offset, value, 4);
}

static uint32_t get(uint8_t reg)
{
	window_set(0, reg);
	return window_get(0x10);
}

static void set(uint8_t reg, uint32_t value)
{
	window_set(0, reg);
	window_set(0x10, value);
}

static uint32_t low(uint32_t pin)
{
	return get(0x10 + 2 * pin);
}

/* As drivers do: the upper half while the lower one is masked. */
static void route(uint32_t pin, uint8_t dest, uint32_t value)
{
	set(0x10 + 2 * pin, MASKED);
	set(0x11 + 2 * pin, (uint32_t)dest << 24);
	set(0x10 + 2 * pin, value);
}

static unsigned int sent(void)
{
	unsigned int n = bus.sent;

	bus.sent = 0;
	return n;
}

START_TEST(registers)
{
	ck_assert_uint_eq(get(1), 0x170020);
	ck_assert_uint_eq(get(0), 0);
	set(0, 0xffffffff);
	ck_assert_uint_eq(get(0), 0x0f000000);
	ck_assert_uint_eq(get(2), 0x0f000000);
	set(1, 0);
	set(2, 0);
	ck_assert_uint_eq(get(1), 0x170020);
	ck_assert_uint_eq(get(2), 0x0f000000);
	ck_assert_uint_eq(window_get(0), 2);
	for (uint32_t pin = 0; pin < 24; pin++) {
		ck_assert_uint_eq(get(0x10 + 2 * pin), MASKED);
		ck_assert_uint_eq(get(0x11 + 2 * pin), 0);
		/* All that can be written, which delivery status and remote IRR are not. */
		set(0x10 + 2 * pin, 0xffffffff);
		set(0x11 + 2 * pin, 0xffffffff);
		ck_assert_uint_eq(get(0x10 + 2 * pin), 0x1afff);
		ck_assert_uint_eq(get(0x11 + 2 * pin), 0xfffe0000);
	}
	/* What is not there. */
	for (unsigned int reg = 3; reg < 256; reg++) {
		if (reg >= 0x10 && reg < 0x40)
			continue;
		set(reg, 0xffffffff);
		ck_assert_uint_eq(get(reg), 0);
	}
	for (uint64_t offset = 0; offset < IOAPIC_SIZE; offset++) {
		for (unsigned int size = 1; size <= 8; size *= 2) {
			if ((offset & ~0x50ull) == 0 && size == 4)
				continue;
			ioapic_io_ops.write(&io, offset, UINT64_MAX, size);
			ck_assert_uint_eq(ioapic_io_ops.read(&io, offset, size), 0);
		}
	}
	ck_assert_uint_eq(get(0x10), 0x1afff);
	ck_assert_uint_eq(sent(), 0);
	ioapic_reset(&io);
	ck_assert_uint_eq(get(0x10), MASKED);
	ck_assert_uint_eq(get(0x11), 0);
	ck_assert_uint_eq(get(0), 0);
}
END_TEST

/* SDM volume 3, "Message Address Register Format" and "Message Data Register Format". */
START_TEST(messages)
{
	static const struct {
		uint32_t entry, dest, address, data;
	} cases[] = {
		{0x0041, 0x00, 0xfee00000, 0x4041}, /* fixed, physical */
		{0x0041, 0xa5, 0xfeea5000, 0x4041},
		{0x08fe, 0x03, 0xfee03004, 0x40fe}, /* logical */
		{0x0930, 0xff, 0xfeeff004, 0x4130}, /* lowest priority */
		{0x2041, 0x01, 0xfee01000, 0x4041}, /* active low: nothing to a message */
		{0x0400, 0x01, 0xfee01000, 0x4400}, /* NMI */
		{0x8400, 0x01, 0xfee01000, 0x4400}, /* edge-triggered nevertheless */
		{0x0500, 0x01, 0xfee01000, 0x4500}, /* INIT */
		{0x0700, 0x00, 0xfee00000, 0x4700}, /* ExtINT */
		{0x8041, 0x07, 0xfee07000, 0xc041},
		{0x8930, 0x07, 0xfee07004, 0xc130},
	};

	/* KVM_FEATURE_MSI_EXT_DEST_ID: CPU 0x7f34, in two places here and there. */
	set(0x11 + 2 * 20, 0x34fe0000);
	set(0x10 + 2 * 20, 0x41);
	ioapic_set_pin(&io, 20, true);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(bus.address, 0xfee34fe0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		route(i, cases[i].dest, cases[i].entry);
		ck_assert_uint_eq(sent(), 0);
		ioapic_set_pin(&io, i, true);
		ck_assert_uint_eq(sent(), 1);
		ck_assert_uint_eq(bus.address, cases[i].address);
		ck_assert_uint_eq(bus.data, cases[i].data);
		ck_assert_int_eq(bus.watch[i].on, cases[i].data >> 15 & 1);
		ck_assert_uint_eq(low(i), cases[i].entry | (cases[i].data & LEVEL ? RIRR : 0));
	}
}
END_TEST

START_TEST(edge)
{
	route(4, 0, EDGE | 0x44);
	for (int i = 0; i < 3; i++) {
		ioapic_set_pin(&io, 4, true);
		ck_assert_uint_eq(sent(), 1);
		ioapic_set_pin(&io, 4, true); /* is high already */
		ioapic_eoi(&io, 0x44);
		ioapic_set_pin(&io, 4, false);
		ck_assert_uint_eq(sent(), 0);
	}
	/* Edges while masked come as one, when it is unmasked. */
	set(0x18, MASKED | EDGE | 0x44);
	for (int i = 0; i < 3; i++) {
		ioapic_set_pin(&io, 4, false);
		ioapic_set_pin(&io, 4, true);
	}
	ck_assert_uint_eq(sent(), 0);
	set(0x18, EDGE | 0x44);
	ck_assert_uint_eq(sent(), 1);
	set(0x18, MASKED | EDGE | 0x44);
	set(0x18, EDGE | 0x44);
	ck_assert_uint_eq(sent(), 0);
	/* Not those of a pin that has become level-triggered. */
	set(0x18, MASKED | EDGE | 0x44);
	ioapic_set_pin(&io, 4, false);
	ioapic_set_pin(&io, 4, true);
	ioapic_set_pin(&io, 4, false);
	set(0x18, MASKED | LEVEL | 0x44);
	set(0x18, EDGE | 0x44);
	ck_assert_uint_eq(sent(), 0);
	ioapic_set_pin(&io, 4, true);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(4), 0x44);
	ck_assert_uint_eq(bus.watch[4].changes, 0);
}
END_TEST

START_TEST(level)
{
	route(16, 1, LEVEL | 0x50);
	ck_assert(bus.watch[16].on);
	ck_assert_uint_eq(bus.watch[16].address, 0xfee01000);
	ck_assert_uint_eq(bus.watch[16].data, 0xc050);
	ioapic_set_pin(&io, 16, true);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(16), LEVEL | RIRR | 0x50);
	/* Once until its end, whatever the pin does. */
	ioapic_set_pin(&io, 16, false);
	ioapic_set_pin(&io, 16, true);
	ioapic_eoi(&io, 0x51);
	ck_assert_uint_eq(sent(), 0);
	/* Still high: again. */
	ioapic_eoi(&io, 0x50);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(16), LEVEL | RIRR | 0x50);
	ioapic_set_pin(&io, 16, false);
	ioapic_eoi(&io, 0x50);
	ck_assert_uint_eq(sent(), 0);
	ck_assert_uint_eq(low(16), LEVEL | 0x50);
	/* By the register of one's own. */
	ioapic_set_pin(&io, 16, true);
	ck_assert_uint_eq(sent(), 1);
	window_set(0x40, 0x50);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(16), LEVEL | RIRR | 0x50);
}
END_TEST

START_TEST(level_masked)
{
	route(17, 0, MASKED | LEVEL | 0x51);
	ck_assert(!bus.watch[17].on);
	ioapic_set_pin(&io, 17, true);
	ck_assert_uint_eq(sent(), 0);
	set(0x32, LEVEL | 0x51); /* a level waits */
	ck_assert_uint_eq(sent(), 1);
	/* Masked between interrupt and end: the end is noticed, the next waits for the unmasking. */
	set(0x32, MASKED | LEVEL | 0x51);
	ck_assert_uint_eq(low(17), MASKED | LEVEL | RIRR | 0x51);
	ck_assert(bus.watch[17].on);
	ioapic_eoi(&io, 0x51);
	ck_assert_uint_eq(low(17), MASKED | LEVEL | 0x51);
	ck_assert_uint_eq(sent(), 0);
	set(0x32, LEVEL | 0x51);
	ck_assert_uint_eq(sent(), 1);
	/* How drivers end it without the EOI register: edge-triggered for a moment. */
	set(0x32, MASKED | 0x51);
	ck_assert_uint_eq(low(17), MASKED | 0x51);
	ck_assert(!bus.watch[17].on);
	ck_assert_uint_eq(sent(), 0);
	set(0x32, MASKED | LEVEL | 0x51);
	set(0x32, LEVEL | 0x51);
	ck_assert_uint_eq(sent(), 1);
	ck_assert(bus.watch[17].on);
	ioapic_reset(&io);
	ck_assert(!bus.watch[17].on);
	ck_assert_uint_eq(sent(), 0);
	ck_assert_uint_eq(low(17), MASKED);
	/* The pin is high all the while. */
	route(17, 0, LEVEL | 0x52);
	ck_assert_uint_eq(sent(), 1);
}
END_TEST

/* Nobody takes it, such as a local APIC that is off: then there will be no end either. */
START_TEST(refused)
{
	route(9, 0, LEVEL | 0x39);
	bus.taken = false;
	ioapic_set_pin(&io, 9, true);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(9), LEVEL | 0x39);
	bus.taken = true;
	set(0x10 + 18, LEVEL | 0x39);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(low(9), LEVEL | RIRR | 0x39);
}
END_TEST

/* Pins may share a vector: an end is the end of all. */
START_TEST(shared_vector)
{
	for (uint32_t pin = 20; pin < 23; pin++) {
		route(pin, 0, LEVEL | 0x60);
		ioapic_set_pin(&io, pin, true);
	}
	ck_assert_uint_eq(sent(), 3);
	ioapic_set_pin(&io, 21, false);
	ioapic_eoi(&io, 0x60);
	ck_assert_uint_eq(sent(), 2);
	ck_assert_uint_eq(low(20), LEVEL | RIRR | 0x60);
	ck_assert_uint_eq(low(21), LEVEL | 0x60);
	/* Moved to another vector while one is in service: the old one's end is not its. */
	set(0x10 + 2 * 20, LEVEL | 0x61);
	ck_assert_uint_eq(sent(), 0);
	ck_assert_uint_eq(bus.watch[20].data, 0xc061);
	ioapic_eoi(&io, 0x60);
	ck_assert_uint_eq(low(20), LEVEL | RIRR | 0x61);
	ioapic_eoi(&io, 0x61);
	ck_assert_uint_eq(low(20), LEVEL | RIRR | 0x61);
	ck_assert_uint_eq(sent(), 2); /* pin 22 by the first end, 20 by the second */
}
END_TEST

START_TEST(state)
{
	struct state_buf buf = {};
	uint64_t saved[IOAPIC_PINS];

	set(0, 5 << 24);
	route(4, 2, EDGE | 0x44);
	route(16, 3, LEVEL | 0x50);
	route(17, 0, LEVEL | MASKED | 0x51);
	ioapic_set_pin(&io, 4, true);
	ioapic_set_pin(&io, 16, true);
	ioapic_set_pin(&io, 17, true);
	ck_assert_uint_eq(sent(), 2);
	memcpy(saved, io.redirection, sizeof(saved));
	ck_assert_int_eq(state_save(&buf, &ioapic_state, &io, &err), 0);

	/* Into another one, whose pins the devices have set already: what is level-triggered is sent once more. */
	setup();
	ioapic_set_pin(&io, 4, true);
	ioapic_set_pin(&io, 16, true);
	ioapic_set_pin(&io, 17, true);
	ck_assert_int_eq(state_load(&buf, &ioapic_state, &io, &err), 0);
	ck_assert_uint_eq(sent(), 1);
	ck_assert_uint_eq(bus.data, 0xc050);
	ck_assert_uint_eq(bus.address, 0xfee03000);
	ck_assert(bus.watch[16].on);
	ck_assert_mem_eq(saved, io.redirection, sizeof(saved));
	ck_assert_uint_eq(get(0), 5 << 24);
	state_buf_free(&buf);
}
END_TEST

/* What no IOAPIC ever saved. */
START_TEST(hostile_state)
{
	struct state_buf buf = {};

	io.id = 0xff;
	io.select = 0xff;
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		io.redirection[pin] = ~0ull ^ (uint64_t)pin << 8 ^ (pin & 1 ? MASKED : 0);
	ck_assert_int_eq(state_save(&buf, &ioapic_state, &io, &err), 0);
	setup();
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		ioapic_set_pin(&io, pin, true);
	ck_assert_int_eq(state_load(&buf, &ioapic_state, &io, &err), 0);
	ck_assert_uint_eq(io.id, 15);
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
		ck_assert_uint_eq(io.redirection[pin] & 0x0001fffffffe5000,
				  bus.watch[pin].on ? RIRR : 0);
	for (unsigned int v = 0; v < 256; v++)
		ioapic_eoi(&io, v);
	state_buf_free(&buf);
}
END_TEST

/* Any values at any register, any pins, any ends: nothing is sent but messages to local APICs, and no more than one each. */
START_TEST(random_values)
{
	srandom(1);
	for (int i = 0; i < 20000; i++) {
		uint32_t value = (uint32_t)random() << 1 ^ random();
		unsigned int before = bus.sent;

		switch (random() % 4) {
		case 0:
			ioapic_set_pin(&io, random() % IOAPIC_PINS, random() & 1);
			ck_assert_uint_le(bus.sent - before, 1);
			break;
		case 1:
			ioapic_eoi(&io, value);
			break;
		case 2:
			set(value >> 8 & 63, value);
			ck_assert_uint_le(bus.sent - before, 1);
			break;
		case 3:
			ioapic_io_ops.write(&io, value % 128, (uint64_t)value * 0x10001,
					    1 << random() % 4);
			break;
		}
		ck_assert_uint_le(bus.sent - before, IOAPIC_PINS);
		if (bus.sent != before)
			ck_assert_uint_eq(bus.address >> 20, 0xfee);
		for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++)
			if ((io.redirection[pin] & RIRR) &&
			    (io.redirection[pin] & (LEVEL | 0x600)) != LEVEL)
				ck_abort_msg("pin %u: %#lx", pin,
					     (unsigned long)io.redirection[pin]);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("ioapic");
	TCase *tc = tcase_create("ioapic");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, registers);
	tcase_add_test(tc, messages);
	tcase_add_test(tc, edge);
	tcase_add_test(tc, level);
	tcase_add_test(tc, level_masked);
	tcase_add_test(tc, refused);
	tcase_add_test(tc, shared_vector);
	tcase_add_test(tc, state);
	tcase_add_test(tc, hostile_state);
	tcase_add_test(tc, random_values);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
