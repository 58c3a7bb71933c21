/* SPDX-License-Identifier: GPL-2.0-only */
/* Local APIC: interrupts to oneself, the timer in its modes; I/O APIC: its registers. CPUID. */
#include "guest.h"
#include "tests.h"

#define LVT_TIMER     0x320
#define TIMER_INITIAL 0x380
#define TIMER_CURRENT 0x390
#define TIMER_DIVIDE  0x3e0
#define MSR_DEADLINE  0x6e0

static u32 pending(u32 base, u32 v)
{
	return lapic_read(base + (v / 32) * 0x10) >> (v % 32) & 1;
}

static void test_self_ipi(void)
{
	u32 v = vector_alloc(), seen = irqs(v);

	lapic_ipi(lapic_id(), 0x4000 | v);
	check(irq_wait_ms(v, seen, 1000), "no interrupt from oneself");
	check_eq(pending(0x100, v), 0); /* in service */
	check_eq(pending(0x200, v), 0); /* requested */
	/* Held back while interrupts are off, taken when they are on. */
	at_cpl0(k_irq_off, 0, 0);
	seen = irqs(v);
	lapic_ipi(lapic_id(), 0x4000 | v);
	delay_us(1000);
	check_eq(irqs(v), seen);
	check_eq(pending(0x200, v), 1);
	at_cpl0(k_irq_on, 0, 0);
	check(irq_wait_ms(v, seen, 1000), "an interrupt that waited is lost");
	/* Below the task priority. */
	lapic_write(0x80, 0xf0);
	seen = irqs(v);
	lapic_ipi(lapic_id(), 0x4000 | v);
	delay_us(1000);
	check_eq(irqs(v), seen);
	lapic_write(0x80, 0);
	check(irq_wait_ms(v, seen, 1000), "an interrupt of low priority is lost");
	/* Out of a sleep. */
	seen = irqs(v);
	lapic_ipi(lapic_id(), 0x4000 | v);
	irq_wait(v, seen);
}

static void test_timer(void)
{
	u32 v = vector_alloc(), seen = irqs(v), r[4], n;
	u64 t;

	lapic_write(TIMER_DIVIDE, 0x0b); /* by 1 */
	lapic_write(LVT_TIMER, v);
	lapic_write(TIMER_INITIAL, 10000000); /* KVM's counts nanoseconds */
	n = lapic_read(TIMER_CURRENT);
	check(n && n <= 10000000, "timer at %u", n);
	t = rdtsc();
	irq_wait(v, seen);
	print("apic: 10000000 ticks of the timer in %lu us\n", us_since(t));
	check_eq(irqs(v), seen + 1);
	check_eq(lapic_read(TIMER_CURRENT), 0);
	/* Periodic, until stopped. */
	seen = irqs(v);
	lapic_write(LVT_TIMER, v | 1 << 17);
	lapic_write(TIMER_INITIAL, 5000000);
	for (n = 0; n < 4; n++)
		irq_wait(v, seen + n);
	lapic_write(TIMER_INITIAL, 0);
	delay_us(1000);
	seen = irqs(v);
	delay_us(20000);
	check_eq(irqs(v), seen);
	/* At a time of the TSC. */
	cpuid(1, 0, r);
	if (!(r[2] >> 24 & 1)) {
		check(!param_u64("strict", 0), "no TSC deadline timer");
		return;
	}
	lapic_write(LVT_TIMER, v | 2 << 17);
	mfence();
	seen = irqs(v);
	t = rdtsc();
	wrmsr(MSR_DEADLINE, t + tsc_hz / 50);
	irq_wait(v, seen);
	check(us_since(t) >= 19990 && us_since(t) < 500000, "a deadline of 20000 us came after %lu",
	      us_since(t));
	check_eq(rdmsr(MSR_DEADLINE), 0);
	lapic_write(LVT_TIMER, 0x10000);
}

static void test_ioapic_registers(void)
{
	u32 version = ioapic_read(IOAPIC_BASE, 1), v;

	check_eq(version >> 16 & 0xff, 23);
	check((version & 0xff) >= 0x11, "version %#x", version);
	for (u32 pin = 0; pin < 24; pin++) {
		/* Masked; all bits that can be written but delivery status and remote IRR. */
		ioapic_write(IOAPIC_BASE, 0x10 + 2 * pin, 0x1a5d0);
		ioapic_write(IOAPIC_BASE, 0x11 + 2 * pin, 0x5a000000);
		v = ioapic_read(IOAPIC_BASE, 0x10 + 2 * pin);
		check((v & ~0x5000) == (0x1a5d0 & ~0x5000), "pin %u: %#x", pin, v);
		check_eq(ioapic_read(IOAPIC_BASE, 0x11 + 2 * pin) & 0xff000000, 0x5a000000);
		ioapic_write(IOAPIC_BASE, 0x10 + 2 * pin, IOAPIC_MASKED);
	}
}

static void test_cpuid(void)
{
	char vendor[13] = {0};
	u32 r[4];

	cpuid(1, 0, r);
	check(r[2] >> 31, "no hypervisor bit");
	cpuid(0x40000000, 0, r);
	memcpy(vendor, &r[1], 12);
	check(r[0] >= 0x40000001 && !strncmp(vendor, "KVMKVMKVM", 9), "hypervisor \"%s\"", vendor);
}

void test_apic(void)
{
	tsc_calibrate();
	print("apic: %s, ID %u, version %#x, base %#lx\n", apic_x2 ? "x2APIC" : "xAPIC", lapic_id(),
	      lapic_read(0x30), rdmsr(0x1b));
	check(rdmsr(0x1b) & 0x100, "this is not the bootstrap processor");
	test_self_ipi();
	test_timer();
	test_ioapic_registers();
	test_cpuid();
}
