/* SPDX-License-Identifier: GPL-2.0-only */
/* Interrupt tables, local APIC, I/O APIC, time. */
#include "acpi.h"

#define MSR_APIC_BASE 0x1b
#define LAPIC_BASE    0xfee00000ul

struct idt_gate {
	u16 offset0, selector, flags, offset1;
	u32 offset2, reserved;
} __attribute__((packed));

extern struct idt_gate idt[256];
extern char idt_stubs[], gate_entry[];
extern u64 pml4[512], pdpt[512];

u32 irq_count[256], irq_ack[256], irq_stay[256], apic_x2;
u16 irq_port[256], irq_cpu[256];
u64 tsc_hz = 1000000000, apic_base0;
const char *tsc_source = "none";
static u32 next_vector = 0x40;

void fault(u64 vector, u64 error, u64 rip, u64 cr2);

/* At CPL 0. */
void fault(u64 vector, u64 error, u64 rip, u64 cr2)
{
	print("FAIL exception %lu, error %#lx, rip %#lx, cr2 %#lx\n", vector, error, rip, cr2);
	leave(3);
}

static void idt_set(u32 vector, u64 entry)
{
	idt[vector] = (struct idt_gate){
		.offset0 = entry,
		.selector = SEL_KCODE,
		.flags = 0x8e00,
		.offset1 = entry >> 16,
		.offset2 = entry >> 32,
	};
}

u32 lapic_read(u32 reg)
{
	return apic_x2 ? rdmsr(0x800 + (reg >> 4)) : mmio_r32(LAPIC_BASE + reg);
}

void lapic_write(u32 reg, u32 v)
{
	if (apic_x2)
		wrmsr(0x800 + (reg >> 4), v);
	else
		mmio_w32(LAPIC_BASE + reg, v);
}

u32 lapic_id(void)
{
	return apic_x2 ? lapic_read(0x20) : lapic_read(0x20) >> 24;
}

void lapic_ipi(u32 apic_id, u32 low)
{
	if (apic_x2) {
		wrmsr(0x830, (u64)apic_id << 32 | low);
		return;
	}
	mmio_w32(LAPIC_BASE + 0x310, apic_id << 24);
	mmio_w32(LAPIC_BASE + 0x300, low);
	while (mmio_r32(LAPIC_BASE + 0x300) & 0x1000)
		pause();
}

/* The caller's local APIC on, in x2APIC mode if there is one; CPU 0 fills the IDT first. */
void cpu_init(u32 cpu)
{
	u32 r[4];

	if (!cpu) {
		/* Firmware may have left the 8259s' interrupts on, at exceptions' vectors. */
		outb(0x21, 0xff);
		outb(0xa1, 0xff);
		for (u32 i = 0; i < 256; i++)
			idt_set(i, (u64)idt_stubs + 16 * i);
		idt_set(GATE_VECTOR, (u64)gate_entry);
		apic_base0 = rdmsr(MSR_APIC_BASE);
		cpuid(1, 0, r);
		apic_x2 = (r[2] >> 21 & 1) && !param_is("apic", "xapic");
	}
	if (apic_x2)
		wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0xc00);
	lapic_write(0xf0, 0x1ff); /* software enable, spurious vector 0xff */
	at_cpl0(k_irq_on, 0, 0);
}

u32 vector_alloc(void)
{
	return next_vector < 0xf0 ? next_vector++ : 0xef;
}

bool irq_wait_ms(u32 vector, u32 seen, u32 ms)
{
	u64 t = rdtsc();

	while (irqs(vector) == seen) {
		if (us_since(t) > ms * 1000ull)
			return false;
		pause();
	}
	return true;
}

u32 ioapic_read(u64 base, u32 reg)
{
	mmio_w32(base, reg);
	return mmio_r32(base + 0x10);
}

void ioapic_write(u64 base, u32 reg, u32 v)
{
	mmio_w32(base, reg);
	mmio_w32(base + 0x10, v);
}

/* The I/O APIC that has a GSI, by the MADT (type 1: ID, reserved, address, GSI base). */
static u64 ioapic_of(u32 *gsi)
{
	u8 *madt = acpi_table("APIC"), *p, *end;

	if (!madt)
		return *gsi < 24 ? IOAPIC_BASE : 0;
	end = madt + *(u32 *)(madt + 4);
	for (p = madt + 44; p + 12 <= end && p[1] >= 2; p += p[1]) {
		u64 base = *(u32 *)(p + 4);
		u32 first = *(u32 *)(p + 8);

		if (p[0] != 1 || *gsi < first || *gsi - first > (ioapic_read(base, 1) >> 16 & 0xff))
			continue;
		*gsi -= first;
		return base;
	}
	return 0;
}

bool ioapic_route(u32 gsi, u32 vector, u32 flags)
{
	u32 pin = gsi;
	u64 base = ioapic_of(&pin);

	if (!check(base, "no I/O APIC for GSI %u", gsi))
		return false;
	ioapic_write(base, 0x10 + 2 * pin, IOAPIC_MASKED);
	ioapic_write(base, 0x11 + 2 * pin, lapic_id() << 24);
	ioapic_write(base, 0x10 + 2 * pin, vector | flags);
	return true;
}

/*
 * The frequency of the TSC: told on the command line, by CPUID (0x15, or 0x40000010 as hypervisors
 * have it), by kvmclock's scale, else measured with channel 2 of the PIT.
 */
static u64 tsc_by_kvmclock(void)
{
	struct {
		u32 version, pad;
		u64 tsc, ns;
		u32 mul;
		int8_t shift;
		u8 flags, pad2[2];
	} volatile *time;
	u64 hz;
	u32 r[4];

	cpuid(0x40000000, 0, r);
	if (r[1] != 0x4b4d564b) /* KVMK */
		return 0;
	cpuid(0x40000001, 0, r);
	if (!(r[0] & 8)) /* KVM_FEATURE_CLOCKSOURCE2 */
		return 0;
	time = alloc(64, 64);
	wrmsr(0x4b564d01, (u64)time | 1);
	at_cpl0(k_nop, 0, 0); /* written at the next entry */
	/* ns = (tsc << shift) * mul >> 32 */
	hz = time->mul ? (1000000000ull << 32) / time->mul : 0;
	hz = time->shift < 0 ? hz << -time->shift : hz >> time->shift;
	wrmsr(0x4b564d01, 0);
	return hz;
}

static u64 tsc_by_pit(void)
{
	u64 t;
	u32 n = 0;

	outb(0x61, (inb(0x61) & ~2) | 1);
	outb(0x43, 0xb0); /* channel 2, both bytes, mode 0 */
	outb(0x42, 59659 & 0xff);
	outb(0x42, 59659 >> 8); /* 50 ms */
	t = rdtsc();
	if (inb(0x61) & 0x20)
		return 0;
	while (!(inb(0x61) & 0x20))
		if (++n > 100000)
			return 0;
	return (rdtsc() - t) * 20;
}

void tsc_calibrate(void)
{
	u32 r[4];
	u64 hz = param_u64("tsc_khz", 0) * 1000;

	tsc_source = "command line";
	if (!hz) {
		cpuid(0x40000000, 0, r);
		if (r[0] >= 0x40000010 && r[0] < 0x40010000) {
			cpuid(0x40000010, 0, r);
			hz = r[0] * 1000ull;
			tsc_source = "CPUID 0x40000010";
		}
	}
	if (!hz) {
		cpuid(0, 0, r);
		if (r[0] >= 0x15) {
			cpuid(0x15, 0, r);
			if (r[0] && r[1] && r[2])
				hz = (u64)r[2] * r[1] / r[0];
			tsc_source = "CPUID 0x15";
		}
	}
	if (!hz) {
		hz = tsc_by_kvmclock();
		tsc_source = "kvmclock";
	}
	if (!hz) {
		hz = tsc_by_pit();
		tsc_source = "PIT";
	}
	if (hz > 1000000)
		tsc_hz = hz;
	else
		tsc_source = "none: 1 GHz assumed";
}

void delay_us(u64 us)
{
	u64 t = rdtsc();

	while (us_since(t) < us)
		pause();
}

void map_mmio(u64 addr, u64 size)
{
	for (u64 a = addr & ~0x1ffffful; a < addr + size; a += 0x200000) {
		u64 *table = pml4, *next;

		for (u32 shift = 39; shift > 21; shift -= 9, table = next) {
			u64 *e = &table[a >> shift & 511];

			next = *e ? (u64 *)(*e & ~0xffful) : alloc(4096, 4096);
			if (!*e)
				*e = (u64)next | PTE_USER;
		}
		if (!table[a >> 21 & 511])
			table[a >> 21 & 511] = a | PTE_USER | PTE_LARGE | PTE_UC;
	}
}
