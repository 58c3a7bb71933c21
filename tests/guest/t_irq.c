/* SPDX-License-Identifier: GPL-2.0-only */
/* Local APIC: an IPI to oneself, the timer; I/O APIC: a pin. */
#include "guest.h"
#include "tests.h"

void test_apic(void)
{
	u32 v = vector_alloc(), seen;

	tsc_calibrate();
	print("apic %s id %u version %#x base %#lx\n", apic_x2 ? "x2APIC" : "xAPIC", lapic_id(),
	      lapic_read(0x30), rdmsr(0x1b));
	seen = irqs(v);
	lapic_ipi(lapic_id(), 0x4000 | v);
	print("irr %x\n", lapic_read(0x200 + (v / 32) * 0x10));
	check(irq_wait_ms(v, seen, 100), "no IPI to oneself by sti");
	print("irr %x isr %x\n", lapic_read(0x200 + (v / 32) * 0x10),
	      lapic_read(0x100 + (v / 32) * 0x10));
	seen = irqs(v);
	lapic_ipi(lapic_id(), 0x4000 | v);
	irq_wait(v, seen);
	print("hlt ok %u\n", irqs(v));
}
