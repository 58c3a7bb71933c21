/* SPDX-License-Identifier: GPL-2.0-only */
/* The serial port against the NS16550A data sheet: registers, FIFOs, interrupts, loopback. */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

#include "device_test.h"

#define BASE 0x3f8
#define THR  (BASE + 0)
#define RBR  (BASE + 0)
#define IER  (BASE + 1)
#define IIR  (BASE + 2)
#define FCR  (BASE + 2)
#define LCR  (BASE + 3)
#define MCR  (BASE + 4)
#define LSR  (BASE + 5)
#define MSR  (BASE + 6)
#define SCR  (BASE + 7)
#define IRQ  4

static struct object *uart;
static char out_path[64], in_path[64];
static int out_fd, in_fd; /* our ends of two FIFOs */

static void setup(void)
{
	char options[256];

	setup_vm();
	snprintf(out_path, sizeof(out_path), "/var/tmp/hako-serial-out-%d", getpid());
	snprintf(in_path, sizeof(in_path), "/var/tmp/hako-serial-in-%d", getpid());
	ck_assert_int_eq(mkfifo(out_path, 0600), 0);
	ck_assert_int_eq(mkfifo(in_path, 0600), 0);
	out_fd = open(out_path, O_RDONLY | O_NONBLOCK);
	in_fd = open(in_path, O_RDWR);
	snprintf(options, sizeof(options), "id=c0,path=%s,input-path=%s", out_path, in_path);
	make(CLASS_CHARDEV, "file", options);
	unlink(out_path);
	unlink(in_path);
	uart = make(CLASS_DEVICE, "isa-serial", "chardev=c0");
}

static void teardown(void)
{
	teardown_vm();
	close(in_fd);
	close(out_fd);
}

/* Read what the guest has sent, @len bytes. */
static void expect_out(const char *text, size_t len)
{
	char buf[8192];
	size_t n = 0;

	while (n < len) {
		struct pollfd p = {.fd = out_fd, .events = POLLIN};

		ck_assert_int_eq(poll(&p, 1, 10000), 1);
		n += read(out_fd, buf + n, sizeof(buf) - n);
	}
	ck_assert_uint_eq(n, len);
	ck_assert_mem_eq(buf, text, len);
}

static void type(const char *text)
{
	ck_assert_int_eq(write(in_fd, text, strlen(text)), strlen(text));
}

/* Table II, "Reset": what master reset leaves in the registers. */
START_TEST(reset_values)
{
	ck_assert_uint_eq(inb(IER), 0);
	ck_assert_uint_eq(inb(IIR), 0x01);
	ck_assert_uint_eq(inb(LCR), 0);
	ck_assert_uint_eq(inb(MCR), 0);
	ck_assert_uint_eq(inb(LSR), 0x60);
	ck_assert_uint_eq(inb(MSR) & 0x0f, 0);
	ck_assert(!irq_high(IRQ));
}
END_TEST

START_TEST(registers_keep_values)
{
	for (int i = 0; i < 256; i++) {
		outb(SCR, i);
		ck_assert_uint_eq(inb(SCR), i);
		outb(LCR, i);
		ck_assert_uint_eq(inb(LCR), i);
	}
	outb(LCR, 0);
	/* Bits 4 to 7 of IER and 5 to 7 of MCR are always 0. */
	outb(IER, 0xff);
	ck_assert_uint_eq(inb(IER), 0x0f);
	outb(MCR, 0xff);
	ck_assert_uint_eq(inb(MCR), 0x1f);
}
END_TEST

START_TEST(divisor_latch)
{
	outb(IER, 0x05);
	outb(LCR, 0x80);
	outb(BASE, 0x34);
	outb(BASE + 1, 0x12);
	ck_assert_uint_eq(inb(BASE), 0x34);
	ck_assert_uint_eq(inb(BASE + 1), 0x12);
	ck_assert_uint_eq(in(BASE, 2), 0x1234);
	outb(LCR, 0x03);
	ck_assert_uint_eq(inb(IER), 0x05);
}
END_TEST

/* How drivers tell the 16550A from its forebears: IIR bits 6 and 7 say that there are FIFOs. */
START_TEST(fifo_identification)
{
	ck_assert_uint_eq(inb(IIR) & 0xc0, 0);
	outb(FCR, 0x01);
	ck_assert_uint_eq(inb(IIR) & 0xc0, 0xc0);
	outb(FCR, 0xc0); /* without bit 0 the others can not be programmed */
	ck_assert_uint_eq(inb(IIR) & 0xc0, 0);
}
END_TEST

START_TEST(output)
{
	static const char text[] = "hello, world\r\n";

	for (const char *p = text; *p; p++) {
		ck_assert_uint_eq(inb(LSR) & 0x60, 0x60);
		outb(THR, *p);
	}
	expect_out(text, strlen(text));
}
END_TEST

/* A reader that does not read: the guest sees a transmitter that is busy, and goes on when it is not. */
START_TEST(output_backpressure)
{
	size_t sent = 0, got = 0;
	uint8_t buf[4096];

	outb(IER, 0x02);
	inb(IIR);
	for (;;) {
		if (!(inb(LSR) & 0x20)) {
			usleep(20000); /* the loop may be about to take some */
			if (!(inb(LSR) & 0x20))
				break;
		}
		outb(THR, sent++ & 0xff);
		ck_assert_uint_lt(sent, 1 << 20);
	}
	/* At least a pipe full, and not much more. */
	ck_assert_uint_ge(sent, 65536);
	ck_assert_uint_le(sent, 65536 + 16384);
	ck_assert_uint_eq(inb(IIR), 0x01);
	ck_assert(!irq_high(IRQ));
	while (got < sent) {
		struct pollfd p = {.fd = out_fd, .events = POLLIN};
		ssize_t n;

		ck_assert_int_eq(poll(&p, 1, 10000), 1);
		n = read(out_fd, buf, sizeof(buf));
		ck_assert_int_gt(n, 0);
		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq(buf[i], got++ & 0xff);
	}
	WAIT_FOR(inb(LSR) & 0x20);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(inb(IIR), 0x02);
}
END_TEST

START_TEST(input_without_fifo)
{
	outb(IER, 0x01);
	type("ab");
	WAIT_FOR(irq_high(IRQ));
	ck_assert_uint_eq(inb(IIR), 0x04);
	ck_assert_uint_eq(inb(LSR) & 0x01, 0x01);
	ck_assert_uint_eq(inb(RBR), 'a');
	WAIT_FOR(inb(LSR) & 0x01);
	ck_assert_uint_eq(inb(RBR), 'b');
	ck_assert_uint_eq(inb(LSR) & 0x01, 0);
	ck_assert_uint_eq(inb(IIR), 0x01);
	ck_assert(!irq_high(IRQ));
}
END_TEST

/* Trigger level 8: from eight characters on it is "data available", below it is the time-out. */
START_TEST(input_trigger_level)
{
	outb(FCR, 0x81);
	outb(IER, 0x01);
	type("12345678");
	WAIT_FOR(inb(IIR) == 0xc4);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(inb(RBR), '1');
	ck_assert_uint_eq(inb(IIR), 0xcc);
	ck_assert(irq_high(IRQ));
	for (int i = '2'; i <= '8'; i++)
		ck_assert_uint_eq(inb(RBR), i);
	ck_assert_uint_eq(inb(IIR), 0xc1);
	ck_assert(!irq_high(IRQ));
}
END_TEST

/* More than any buffer holds: nothing is lost, nothing overruns. */
START_TEST(input_backpressure)
{
	enum {
		TOTAL = 40000
	};
	size_t sent = 0, got = 0;
	char piece[1000];

	outb(FCR, 0x01);
	fcntl(in_fd, F_SETFL, O_NONBLOCK);
	while (got < TOTAL) {
		uint8_t lsr;

		if (sent < TOTAL) {
			for (size_t i = 0; i < sizeof(piece); i++)
				piece[i] = (sent + i) % 251;
			if (write(in_fd, piece, sizeof(piece)) > 0)
				sent += sizeof(piece);
		}
		lsr = inb(LSR);
		ck_assert_uint_eq(lsr & 0x9e, 0);
		if (lsr & 0x01)
			ck_assert_uint_eq(inb(RBR), got++ % 251);
	}
}
END_TEST

START_TEST(fifo_clear)
{
	outb(FCR, 0x01);
	outb(MCR, 0x10);
	for (int i = 0; i < 5; i++)
		outb(THR, i);
	ck_assert_uint_eq(inb(LSR) & 0x01, 0x01);
	outb(FCR, 0x03);
	ck_assert_uint_eq(inb(LSR) & 0x01, 0);
	outb(THR, 9);
	outb(FCR, 0x00); /* switching FIFOs off empties them too */
	ck_assert_uint_eq(inb(LSR) & 0x01, 0);
}
END_TEST

START_TEST(thre_interrupt)
{
	/* Enabling it while the transmitter is empty raises it at once. */
	outb(IER, 0x02);
	ck_assert(irq_high(IRQ));
	/* Reading IIR, if it is the source, resets it. */
	ck_assert_uint_eq(inb(IIR), 0x02);
	ck_assert(!irq_high(IRQ));
	ck_assert_uint_eq(inb(IIR), 0x01);
	/* A character gone raises it anew. */
	outb(THR, 'x');
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(inb(IIR), 0x02);
	outb(IER, 0x00);
	outb(IER, 0x02);
	ck_assert_uint_eq(inb(IIR), 0x02);
	expect_out("x", 1);
}
END_TEST

/* Receiver line status, received data, transmitter empty, modem status: in that order. */
START_TEST(interrupt_priorities)
{
	outb(IER, 0x0f);
	outb(MCR, 0x10); /* CTS, DSR, DCD drop: modem status */
	outb(THR, 1);
	outb(THR, 2); /* overrun: line status, data, transmitter */
	ck_assert_uint_eq(inb(IIR), 0x06);
	ck_assert_uint_eq(inb(LSR) & 0x02, 0x02);
	ck_assert_uint_eq(inb(IIR), 0x04);
	ck_assert_uint_eq(inb(RBR), 2); /* without FIFO the new one has replaced the old one */
	ck_assert_uint_eq(inb(IIR), 0x02);
	ck_assert_uint_eq(inb(IIR), 0x00);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_ne(inb(MSR) & 0x0f, 0);
	ck_assert_uint_eq(inb(IIR), 0x01);
	ck_assert(!irq_high(IRQ));
}
END_TEST

START_TEST(loopback_data_and_overrun)
{
	outb(FCR, 0x01);
	outb(MCR, 0x10);
	for (int i = 0; i < 16; i++)
		outb(THR, 0x40 + i);
	ck_assert_uint_eq(inb(LSR), 0x61);
	outb(THR, 0xff);
	ck_assert_uint_eq(inb(LSR), 0x63);
	ck_assert_uint_eq(inb(LSR), 0x61); /* reading has cleared it */
	for (int i = 0; i < 16; i++)
		ck_assert_uint_eq(inb(RBR), 0x40 + i);
	ck_assert_uint_eq(inb(LSR), 0x60);
}
END_TEST

/* DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD; with deltas, RI's at its trailing edge only. */
START_TEST(loopback_modem)
{
	outb(MCR, 0x10);
	inb(MSR);
	outb(MCR, 0x11);
	ck_assert_uint_eq(inb(MSR), 0x22);
	outb(MCR, 0x12);
	ck_assert_uint_eq(inb(MSR), 0x13);
	outb(MCR, 0x14);
	ck_assert_uint_eq(inb(MSR), 0x41);
	outb(MCR, 0x18);
	ck_assert_uint_eq(inb(MSR), 0x8c);
	outb(MCR, 0x18);
	ck_assert_uint_eq(inb(MSR), 0x80);
}
END_TEST

START_TEST(loopback_break)
{
	outb(FCR, 0x01);
	outb(MCR, 0x10);
	outb(THR, 'a');
	outb(LCR, 0x43);
	/* The error shows when its character is the next one; bit 7 says that there is one in the FIFO. */
	ck_assert_uint_eq(inb(LSR), 0xe1);
	ck_assert_uint_eq(inb(RBR), 'a');
	ck_assert_uint_eq(inb(LSR) & 0x1f, 0x11);
	ck_assert_uint_eq(inb(RBR), 0);
	ck_assert_uint_eq(inb(LSR), 0x60);
}
END_TEST

/* In loopback nothing goes out and nothing comes in; what waits outside comes afterwards. */
START_TEST(loopback_is_closed)
{
	outb(FCR, 0x01);
	outb(MCR, 0x10);
	type("z");
	usleep(20000);
	ck_assert_uint_eq(inb(LSR) & 0x01, 0);
	outb(THR, 'q');
	ck_assert_uint_eq(inb(RBR), 'q');
	outb(MCR, 0x00);
	WAIT_FOR(inb(LSR) & 0x01);
	ck_assert_uint_eq(inb(RBR), 'z');
	outb(THR, 'w');
	expect_out("w", 1);
}
END_TEST

START_TEST(state)
{
	outb(FCR, 0x41);
	outb(LCR, 0x1b);
	outb(SCR, 0x77);
	outb(IER, 0x01);
	outb(MCR, 0x0b);
	type("snapshot");
	WAIT_FOR(irq_high(IRQ));
	state_round_trip(uart);
	ck_assert(irq_high(IRQ));
	ck_assert_uint_eq(inb(IIR), 0xc4);
	ck_assert_uint_eq(inb(LCR), 0x1b);
	ck_assert_uint_eq(inb(SCR), 0x77);
	ck_assert_uint_eq(inb(MCR), 0x0b);
	for (const char *p = "snapshot"; *p; p++) {
		WAIT_FOR(inb(LSR) & 0x01);
		ck_assert_uint_eq(inb(RBR), *p);
	}
}
END_TEST

/* Paused means that nothing moves, and what came in the meantime comes afterwards. */
START_TEST(pausing)
{
	outb(FCR, 0x01);
	outb(THR, 'p');
	uart->class->pause(uart);
	expect_out("p", 1); /* has been written out by the pause */
	type("late");
	usleep(20000);
	ck_assert_uint_eq(inb(LSR) & 0x01, 0);
	uart->class->resume(uart);
	for (const char *p = "late"; *p; p++) {
		WAIT_FOR(inb(LSR) & 0x01);
		ck_assert_uint_eq(inb(RBR), *p);
	}
}
END_TEST

static void poke(void)
{
	for (int i = 0; i < 8; i++)
		inb(BASE + i);
	outb(THR, 'x');
}

START_TEST(bad_states)
{
	type("abcdef");
	poke();
	uart->class->pause(uart);
	state_mutations(uart, 1, 3000, poke);
	uart->class->resume(uart);
}
END_TEST

START_TEST(random_accesses)
{
	unsigned int seed = 16550;

	fcntl(in_fd, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 200000; i++) {
		uint16_t port = BASE + rand_r(&seed) % 8;
		unsigned int size = 1u << rand_r(&seed) % 3;

		if (rand_r(&seed) % 2)
			out(port, rand_r(&seed), size);
		else
			in(port, size);
		if (i % 100 == 0) {
			char buf[4096];

			if (read(out_fd, buf, sizeof(buf)) < 0 || write(in_fd, buf, 16) < 0)
				continue;
		}
	}
	/* It works as before. */
	outb(LCR, 0x03);
	outb(MCR, 0x10);
	outb(FCR, 0x07);
	inb(LSR);
	outb(THR, 0x5a);
	ck_assert_uint_eq(inb(RBR), 0x5a);
}
END_TEST

/* COM1 to COM4 at their places; a fifth needs one of its own. */
START_TEST(four_ports)
{
	static const uint16_t base[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};

	for (int i = 1; i < 4; i++)
		make(CLASS_DEVICE, "isa-serial", "");
	for (int i = 0; i < 4; i++) {
		outb(base[i] + 7, 0x10 + i);
		outb(base[i] + 1, 0x02);
	}
	for (int i = 0; i < 4; i++)
		ck_assert_uint_eq(inb(base[i] + 7), 0x10 + i);
	/* COM1 and COM3 share a line: it is high until both have been served. */
	ck_assert(irq_high(4));
	inb(base[0] + 2);
	ck_assert(irq_high(4));
	inb(base[2] + 2);
	ck_assert(!irq_high(4));
	ck_assert(irq_high(3));
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "isa-serial", ""), -EINVAL);
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "isa-serial", "index=1"), -EEXIST);
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "isa-serial", "index=1,iobase=0x1000"), -EEXIST);
}
END_TEST

START_TEST(chardev_errors)
{
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "isa-serial", "chardev=nope"), -ENODEV);
	ck_assert_int_eq(make_fails(CLASS_DEVICE, "isa-serial", "chardev=c0"), -EBUSY);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		reset_values,
		registers_keep_values,
		divisor_latch,
		fifo_identification,
		output,
		output_backpressure,
		input_without_fifo,
		input_trigger_level,
		input_backpressure,
		fifo_clear,
		thre_interrupt,
		interrupt_priorities,
		loopback_data_and_overrun,
		loopback_modem,
		loopback_break,
		loopback_is_closed,
		state,
		pausing,
		bad_states,
		random_accesses,
		four_ports,
		chardev_errors,
	};

	return run_suite("serial", setup, teardown, tests, ARRAY_SIZE(tests)) != 0;
}
