/* SPDX-License-Identifier: GPL-2.0-only */
/* The 16550A: registers, FIFO, loopback, interrupts. */
#include "guest.h"
#include "tests.h"

enum {
	RBR = 0,
	THR = 0,
	DLL = 0,
	IER = 1,
	DLM = 1,
	IIR = 2,
	FCR = 2,
	LCR,
	MCR,
	LSR,
	MSR,
	SCR
};

static void test_registers(u16 p)
{
	for (u32 v = 1; v < 0x100; v <<= 1) {
		outb(p + SCR, v);
		check_eq(inb(p + SCR), v);
	}
	outb(p + IER, 0xff);
	check_eq(inb(p + IER), 0x0f);
	outb(p + IER, 0);
	outb(p + LCR, 0x83);
	outb(p + DLL, 0x34);
	outb(p + DLM, 0x12);
	check_eq(inb(p + DLL), 0x34);
	check_eq(inb(p + DLM), 0x12);
	outb(p + DLL, 1);
	outb(p + DLM, 0);
	outb(p + LCR, 0x03);
	check_eq(inb(p + IER), 0);
	check_eq(inb(p + LCR), 0x03);
	/* Enabled FIFOs show in IIR. */
	outb(p + FCR, 0x01);
	check_eq(inb(p + IIR) & 0xc0, 0xc0);
	outb(p + FCR, 0x00);
	check_eq(inb(p + IIR) & 0xc0, 0);
	check_eq(inb(p + LSR) & 0x61, 0x60);
}

/* In loopback the modem outputs are the modem inputs: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
static void test_modem(u16 p)
{
	static const u8 in[4] = {0x20, 0x10, 0x40, 0x80};

	for (u32 v = 0; v < 16; v++) {
		u8 want = 0;

		for (u32 i = 0; i < 4; i++)
			want |= v >> i & 1 ? in[i] : 0;
		outb(p + MCR, 0x10 | v);
		check_eq(inb(p + MSR) & 0xf0, want);
	}
	/* Changes set the deltas, and reading clears them; QEMU has them on a real line only. */
	if (!param_u64("strict", 0))
		return;
	outb(p + MCR, 0x10);
	inb(p + MSR);
	outb(p + MCR, 0x11);
	check_eq(inb(p + MSR), 0x22);
	check_eq(inb(p + MSR), 0x20);
	outb(p + MCR, 0x10);
	inb(p + MSR);
}

static bool data_ready(u16 p)
{
	for (u32 i = 0; i < 2000; i++)
		if (inb(p + LSR) & 1)
			return true;
	return false;
}

static void test_loopback(u16 p)
{
	u8 lsr;

	outb(p + MCR, 0x10);
	outb(p + FCR, 0x00);
	outb(p + THR, 0x5a);
	check(data_ready(p), "port %#x: nothing comes back", p);
	check_eq(inb(p + RBR), 0x5a);
	check_eq(inb(p + LSR) & 1, 0);
	/* FIFO of 16; the 17th is an overrun and does not disturb the others. */
	outb(p + FCR, 0x07);
	for (u32 i = 0; i < 17; i++) {
		outb(p + THR, 0x30 + i);
		delay_us(200); /* at 115200 baud a byte is 87 us under way */
	}
	lsr = inb(p + LSR);
	check(lsr & 1, "port %#x: nothing comes back", p);
	check(lsr & 2, "port %#x: no overrun, LSR %#x", p, lsr);
	check_eq(inb(p + LSR) & 2, 0);
	for (u32 i = 0; i < 16; i++)
		check_eq(inb(p + RBR), 0x30 + i);
	check_eq(inb(p + LSR) & 1, 0);
	outb(p + THR, 1);
	data_ready(p);
	outb(p + FCR, 0x03); /* clears the receiver's FIFO */
	check_eq(inb(p + LSR) & 1, 0);
	outb(p + FCR, 0x00);
}

/* What IIR says, in order of priority. */
static void test_iir(u16 p)
{
	outb(p + MCR, 0x10);
	outb(p + IER, 0);
	check_eq(inb(p + IIR), 0x01);
	outb(p + IER, 0x02);
	check_eq(inb(p + IIR), 0x02); /* transmitter empty; reading it clears it */
	check_eq(inb(p + IIR), 0x01);
	outb(p + IER, 0x00);
	outb(p + THR, 'x');
	data_ready(p);
	outb(p + IER, 0x03);
	check_eq(inb(p + IIR), 0x04); /* data first */
	check_eq(inb(p + RBR), 'x');
	check_eq(inb(p + IIR), 0x02);
	check_eq(inb(p + IIR), 0x01);
	if (param_u64("strict", 0)) {
		outb(p + IER, 0x08);
		inb(p + MSR);
		outb(p + MCR, 0x12);
		check_eq(inb(p + IIR), 0x00); /* modem status */
		inb(p + MSR);
		check_eq(inb(p + IIR), 0x01);
	}
	outb(p + IER, 0);
	outb(p + MCR, 0);
}

static void test_interrupt(u16 p, u32 gsi)
{
	u32 v = vector_alloc(), seen;

	if (!ioapic_route(gsi, v, 0))
		return;
	outb(p + MCR, 0x0b); /* OUT2 lets the interrupt through */
	inb(p + IIR);
	seen = irqs(v);
	outb(p + IER, 0x02);
	check(irq_wait_ms(v, seen, 1000), "port %#x: no interrupt at GSI %u", p, gsi);
	inb(p + IIR);
	outb(p + IER, 0x00);
	outb(p + MCR, 0);
	ioapic_route(gsi, v, IOAPIC_MASKED);
}

void test_uart(void)
{
	static const struct {
		u16 port;
		u32 gsi;
	} com[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};
	u32 n = param_u64("uarts", 1), found = 0;

	tsc_calibrate();
	for (u32 i = 0; i < ARRAY_SIZE(com); i++) {
		u16 p = com[i].port;
		u8 lcr, ier, mcr;

		outb(p + SCR, 0x5a);
		if (inb(p + SCR) != 0x5a)
			continue;
		found++;
		lcr = inb(p + LCR);
		ier = inb(p + IER);
		mcr = inb(p + MCR);
		test_registers(p);
		test_modem(p);
		test_loopback(p);
		test_iir(p);
		test_interrupt(p, com[i].gsi);
		outb(p + LCR, lcr);
		outb(p + IER, ier);
		outb(p + MCR, mcr);
	}
	check_eq(found, n);
}
