/* SPDX-License-Identifier: GPL-2.0-only */
/* The other CPUs by INIT and SIPI, and an interrupt from each to each. */
#include "acpi.h"
#include "tests.h"

#define MAX 8 /* pairs have to have vectors of their own */

extern char ap_start[], ap_start_end[];
extern u32 ap_next;
void ap_main(u32 cpu);

static u32 apic_id[MAX_CPUS], count;
static volatile u32 bad_id[MAX_CPUS]; /* what CPUID says instead, + 1 */
static volatile u32 up[MAX_CPUS];
static volatile s64 order[MAX]; /* vector << 32 | APIC ID to send to; 0: none */

#define WAKE		      0xd0 /* + CPU */
#define TO_ANY		      0xe1 /* whom it reaches, irq_cpu[] tells */
#define PAIR_VECTOR(from, to) (0x40 + (from)*MAX + (to))

static void read_madt(void)
{
	u8 *t = acpi_table("APIC"), *p;

	if (!t) {
		for (count = 0; count < MIN(param_u64("cpus", 1), MAX_CPUS); count++)
			apic_id[count] = count;
		return;
	}
	for (p = t + 44; p < t + *(u32 *)(t + 4) && p[1] >= 2; p += p[1]) {
		if (count == MAX_CPUS)
			return;
		if (p[0] == 0 && *(u32 *)(p + 4) & 1)
			apic_id[count++] = p[3];
		if (p[0] == 9 && *(u32 *)(p + 8) & 1)
			apic_id[count++] = *(u32 *)(p + 4);
	}
}

/* The APIC ID in CPUID: 8 bits in leaf 1, all of it in leaf 0xb, if that is there. */
static void test_cpuid(u32 cpu)
{
	u32 id = lapic_id(), r[4];

	cpuid(1, 0, r);
	if (r[1] >> 24 != (id & 0xff))
		bad_id[cpu] = (r[1] >> 24) + 1;
	cpuid(0, 0, r);
	if (r[0] < 0xb)
		return;
	cpuid(0xb, 0, r);
	if (r[1] && r[3] != id)
		bad_id[cpu] = r[3] + 1;
}

/* A CPU that was started: say so, then send what one is told to. */
void ap_main(u32 cpu)
{
	u32 seen = 0;
	s64 o;

	cpu_init(cpu);
	test_cpuid(cpu);
	up[cpu] = lapic_id() + 1;
	if (cpu >= MAX)
		for (;;)
			irq_wait(0, irqs(0)); /* for ever */
	for (;;) {
		irq_wait(WAKE + cpu, seen);
		seen = irqs(WAKE + cpu);
		o = order[cpu];
		/* The next order may come as soon as this one is seen to be done. */
		order[cpu] = 0;
		if (o)
			lapic_ipi(o & 0xffffffff, 0x4000 | o >> 32);
	}
}

/* Index of the CPU with that APIC ID, by what it said itself; CPUs come up in any order. */
static u32 cpu_of(u32 id)
{
	for (u32 i = 0; i < MAX_CPUS; i++)
		if (up[i] == id + 1)
			return i;
	return MAX_CPUS;
}

static bool start(u32 id)
{
	u64 t;

	lapic_ipi(id, 0x4500);
	delay_us(1000);
	for (u32 try = 0; try < 2; try++) {
		lapic_ipi(id, 0x4600 | AP_START >> 12);
		for (t = rdtsc(); us_since(t) < (try ? 2000000 : 10000);)
			if (cpu_of(id) < MAX_CPUS)
				return true;
	}
	return check(false, "CPU with APIC ID %u does not start", id);
}

static void send_pair(u32 from, u32 to)
{
	u32 v = PAIR_VECTOR(from, to), seen = irqs(v);
	u32 f = cpu_of(apic_id[from]), t = cpu_of(apic_id[to]);

	if (!f) {
		lapic_ipi(apic_id[to], 0x4000 | v);
	} else {
		order[f] = (s64)v << 32 | apic_id[to];
		lapic_ipi(apic_id[from], 0x4000 | (WAKE + f));
	}
	if (check(irq_wait_ms(v, seen, 2000), "no interrupt from CPU %u to %u", from, to))
		check(irq_cpu[v] == t, "interrupt from CPU %u to %u was taken by %u", from, to,
		      irq_cpu[v]);
}

/* Interrupts of COM1's pin to a CPU: KVM_FEATURE_MSI_EXT_DEST_ID says where the upper bits of its ID go. */
static void pin_to(u32 id)
{
	u32 seen = irqs(TO_ANY);

	ioapic_write(IOAPIC_BASE, 0x10 + 2 * 4, IOAPIC_MASKED);
	ioapic_write(IOAPIC_BASE, 0x11 + 2 * 4, (id & 0xff) << 24 | (id >> 8) << 17);
	ioapic_write(IOAPIC_BASE, 0x10 + 2 * 4, TO_ANY);
	outb(0x3fc, 0x0b);
	outb(0x3f9, 0x02);
	if (check(irq_wait_ms(TO_ANY, seen, 5000), "no interrupt by pin 4 to APIC ID %u", id))
		check_eq(irq_cpu[TO_ANY], cpu_of(id));
	inb(0x3fa);
	outb(0x3f9, 0x00);
}

/* CPUs with IDs that need more than 8 bits: by interrupts of other CPUs, and by those of the I/O APIC. */
static void test_many(void)
{
	u32 r[4];

	check_eq(apic_base0 & 0xd00, 0xd00); /* in x2APIC mode, the first CPU */
	cpuid(0x40000001, 0, r);
	if (!check(r[0] >> 15 & 1, "no KVM_FEATURE_MSI_EXT_DEST_ID"))
		return;
	for (u32 i = MAX; i < count; i += i < 250 ? 50 : 1) {
		u32 seen = irqs(TO_ANY);

		lapic_ipi(apic_id[i], 0x4000 | TO_ANY);
		if (check(irq_wait_ms(TO_ANY, seen, 5000), "no interrupt to APIC ID %u",
			  apic_id[i]))
			check_eq(irq_cpu[TO_ANY], cpu_of(apic_id[i]));
		pin_to(apic_id[i]);
	}
}

void test_smp(void)
{
	u32 v = vector_alloc(), seen;

	tsc_calibrate();
	read_madt();
	check_eq(count, param_u64("cpus", 1));
	up[0] = lapic_id() + 1;
	if (!check(count && apic_id[0] == lapic_id(), "this is not the first CPU of the MADT"))
		return;
	memcpy((void *)AP_START, ap_start, ap_start_end - ap_start);
	for (u32 i = 1; i < count; i++)
		if (!start(apic_id[i]))
			return;
	print("smp: %u CPUs are up\n", count);
	test_cpuid(0);
	for (u32 i = 0; i < count; i++)
		check(!bad_id[i], "CPUID of the CPU with APIC ID %u says %u", up[i] - 1,
		      bad_id[i] - 1);
	for (u32 from = 0; from < MIN(count, MAX); from++)
		for (u32 to = 0; to < MIN(count, MAX); to++)
			send_pair(from, to);
	if (count > 255)
		test_many();
	/* All but oneself. */
	v = 0xe0;
	seen = irqs(v);
	lapic_ipi(0, 0xc4000 | v);
	for (u64 t = rdtsc(); irqs(v) != seen + count - 1 && us_since(t) < 2000000;)
		pause();
	check_eq(irqs(v), seen + count - 1);
}
