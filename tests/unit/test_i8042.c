/* SPDX-License-Identifier: GPL-2.0-only */
/* The keyboard controller as the IBM PC/AT's manual describes it and drivers probe it; and port 0x92. */
#include "device_test.h"

#define IRQ 1

static struct object *kbc, *p92;

static void setup(void)
{
	setup_vm();
	kbc = make(CLASS_DEVICE, "i8042", "");
	p92 = make(CLASS_DEVICE, "port92", "");
}

/* What comes next, which must be there. */
static uint8_t next(void)
{
	ck_assert_uint_eq(inb(0x64) & 0x01, 0x01);
	return inb(0x60);
}

static void expect_empty(void)
{
	ck_assert_uint_eq(inb(0x64) & 0x01, 0);
	ck_assert(!irq_high(IRQ));
}

static void write_ctr(uint8_t value)
{
	outb(0x64, 0x60);
	outb(0x60, value);
}

static uint8_t read_ctr(void)
{
	outb(0x64, 0x20);
	return next();
}

START_TEST(controller)
{
	ck_assert_uint_eq(inb(0x64) & 0xe3, 0); /* empty, ready, no errors */
	ck_assert_uint_eq(inb(0x64) & 0x10, 0x10);
	outb(0x64, 0xaa);
	ck_assert_uint_eq(next(), 0x55);
	ck_assert_uint_eq(inb(0x64) & 0x04, 0x04); /* system flag */
	outb(0x64, 0xab);
	ck_assert_uint_eq(next(), 0x00);
	expect_empty();
	write_ctr(0x34);
	ck_assert_uint_eq(read_ctr(), 0x34);
	outb(0x64, 0xae);
	ck_assert_uint_eq(read_ctr(), 0x24);
	outb(0x64, 0xad);
	ck_assert_uint_eq(read_ctr(), 0x34);
	outb(0x64, 0xa8);
	ck_assert_uint_eq(read_ctr(), 0x14);
	outb(0x64, 0xa7);
	ck_assert_uint_eq(read_ctr(), 0x34);
	/* Status bit 3: the last write was a command, or data. */
	ck_assert_uint_eq(inb(0x64) & 0x08, 0x08);
	write_ctr(0x34);
	ck_assert_uint_eq(inb(0x64) & 0x08, 0);
}
END_TEST

/* A mouse would echo with status bit 5, and pass its line test with 0. */
START_TEST(no_mouse)
{
	outb(0x64, 0xd3);
	outb(0x60, 0x5a);
	ck_assert_uint_eq(inb(0x64) & 0x21, 0x01);
	inb(0x60);
	outb(0x64, 0xa9);
	ck_assert_uint_ne(next(), 0x00);
	outb(0x64, 0xd4);
	outb(0x60, 0xf2);
	expect_empty();
}
END_TEST

START_TEST(keyboard)
{
	write_ctr(0x00);
	outb(0x60, 0xff);
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert_uint_eq(next(), 0xaa);
	expect_empty();
	outb(0x60, 0xf2);
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert_uint_eq(next(), 0xab);
	ck_assert_uint_eq(next(), 0x83);
	outb(0x60, 0xed); /* with a parameter */
	ck_assert_uint_eq(next(), 0xfa);
	outb(0x60, 0x02);
	ck_assert_uint_eq(next(), 0xfa);
	outb(0x60, 0xf3);
	ck_assert_uint_eq(next(), 0xfa);
	outb(0x60, 0xff); /* a parameter too, not a reset */
	ck_assert_uint_eq(next(), 0xfa);
	expect_empty();
	outb(0x60, 0xf0);
	ck_assert_uint_eq(next(), 0xfa);
	outb(0x60, 0x00); /* which scan code set? */
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert_uint_eq(next(), 0x02);
	outb(0x60, 0xee);
	ck_assert_uint_eq(next(), 0xee);
	outb(0x60, 0x12); /* no such command */
	ck_assert_uint_eq(next(), 0xfe);
	for (const uint8_t *c = (const uint8_t *)"\xf4\xf5\xf6"; *c; c++) {
		outb(0x60, *c);
		ck_assert_uint_eq(next(), 0xfa);
	}
	expect_empty();
	/* Translated to set 1 by the controller. */
	write_ctr(0x40);
	outb(0x60, 0xf2);
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert_uint_eq(next(), 0xab);
	ck_assert_uint_eq(next(), 0x41);
}
END_TEST

/* Each byte is an interrupt of its own, and an edge of its own. */
START_TEST(interrupt)
{
	write_ctr(0x01);
	outb(0x60, 0xff);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(next(), 0xaa);
	ck_assert(!irq_high(IRQ));
	write_ctr(0x00);
	outb(0x60, 0xee);
	ck_assert(!irq_high(IRQ));
	ck_assert_uint_eq(next(), 0xee);
}
END_TEST

START_TEST(disabled_keyboard_waits)
{
	outb(0x60, 0xf2);
	outb(0x64, 0xad);
	ck_assert_uint_eq(next(), 0xfa); /* was in the buffer already */
	expect_empty();
	outb(0x64, 0xae);
	ck_assert_uint_eq(next(), 0xab);
}
END_TEST

static bool asked_for_reset(void)
{
	bool asked = vm->request == VM_REQUEST_RESET;

	vm->request = 0;
	return asked;
}

START_TEST(resets)
{
	outb(0x64, 0xff); /* pulse nothing */
	ck_assert(!asked_for_reset());
	outb(0x64, 0xfe);
	ck_assert(asked_for_reset());
	outb(0x64, 0xd0);
	ck_assert_uint_eq(next() & 0x03, 0x03);
	outb(0x64, 0xd1);
	outb(0x60, 0xdf);
	ck_assert(!asked_for_reset());
	outb(0x64, 0xd1);
	outb(0x60, 0xde);
	ck_assert(asked_for_reset());
	ck_assert_uint_eq(inb(0x92), 0x02);
	outb(0x92, 0x00);
	ck_assert(!asked_for_reset());
	outb(0x92, 0x03);
	ck_assert(asked_for_reset());
	outb(0x92, 0x03); /* the bit has to rise */
	ck_assert(!asked_for_reset());
	p92->class->reset(p92);
	ck_assert_uint_eq(inb(0x92), 0x02);
}
END_TEST

START_TEST(state)
{
	write_ctr(0x45);
	outb(0x60, 0xf2);
	state_round_trip(kbc);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(next(), 0xfa);
	ck_assert_uint_eq(next(), 0xab);
	ck_assert_uint_eq(next(), 0x41);
	ck_assert_uint_eq(read_ctr(), 0x45);
	kbc->class->reset(kbc);
	expect_empty();
	state_round_trip(p92);
}
END_TEST

static void poke(void)
{
	outb(0x64, 0xae);
	outb(0x60, 0xff);
	for (int i = 0; i < 20; i++)
		inb(0x60);
}

START_TEST(bad_states)
{
	outb(0x60, 0xff);
	state_mutations(kbc, 3, 3000, poke);
}
END_TEST

START_TEST(random_accesses)
{
	static const uint16_t ports[] = {0x60, 0x64, 0x92};
	unsigned int seed = 8042;

	for (int i = 0; i < 300000; i++) {
		uint16_t port = ports[rand_r(&seed) % 3];

		if (rand_r(&seed) % 2)
			outb(port, rand_r(&seed));
		else
			inb(port);
	}
	outb(0x64, 0xaa);
	ck_assert_uint_eq(next(), 0x55);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		controller, no_mouse, keyboard,	  interrupt,	   disabled_keyboard_waits,
		resets,	    state,    bad_states, random_accesses,
	};

	return run_suite("i8042", setup, teardown_vm, tests, ARRAY_SIZE(tests)) != 0;
}
