/* SPDX-License-Identifier: GPL-2.0-only */
/* ACPI tables' form, and the fixed hardware that they tell of. */
#include "acpi.h"
#include "pci.h"
#include "tests.h"

static u32 cpus_in_madt;

static void test_madt(const u8 *t, u32 len)
{
	u32 ioapics = 0;

	check_eq(*(u32 *)(t + 36), 0xfee00000);
	for (u32 at = 44; at < len;) {
		const u8 *p = t + at;

		if (!check(p[1] >= 2 && at + p[1] <= len, "MADT entry at %u", at))
			return;
		if (p[0] == 0 && *(u32 *)(p + 4) & 1)
			cpus_in_madt++;
		if (p[0] == 9 && *(u32 *)(p + 8) & 1)
			cpus_in_madt++;
		ioapics += p[0] == 1;
		at += p[1];
	}
	check_eq(cpus_in_madt, param_u64("cpus", 1));
	check(ioapics, "no I/O APIC");
}

static void test_table(const u8 *t)
{
	u32 len = *(u32 *)(t + 4);

	print("%c%c%c%c at %#lx, %u bytes, revision %u\n", t[0], t[1], t[2], t[3], (u64)t, len,
	      t[8]);
	if (!check(len >= 36 && len < 1 << 20 && (u64)t + len <= RAM_LIMIT, "length %u", len))
		return;
	check_eq(acpi_sum(t, len), 0);
	if (!memcmp(t, "APIC", 4))
		test_madt(t, len);
}

static void test_tables(const u8 *rsdp)
{
	const u8 *root = NULL, *dsdt;
	u32 entry = 4;

	check_eq(acpi_sum(rsdp, 20), 0);
	if (rsdp[15] >= 2) {
		check_eq(*(u32 *)(rsdp + 20), 36);
		check_eq(acpi_sum(rsdp, 36), 0);
		root = (u8 *)*(u64 *)(rsdp + 24);
		entry = 8;
	}
	if (!root) {
		root = (u8 *)(u64) * (u32 *)(rsdp + 16);
		entry = 4;
	}
	test_table(root);
	for (u32 at = 36; at < *(u32 *)(root + 4) && at < 36 + 64 * entry; at += entry)
		test_table((u8 *)(entry == 8 ? *(u64 *)(root + at) : *(u32 *)(root + at)));
	dsdt = acpi_table("DSDT");
	if (check(dsdt, "no DSDT"))
		test_table(dsdt);
	check(acpi_table("FACP") && acpi_table("APIC"), "no FADT or no MADT");
	check(acpi_s5() >= 0, "no _S5");
}

/* 3.579545 MHz, 24 or 32 bits; the flag TMR_VAL_EXT says which. */
static void test_pm_timer(u16 port, bool wide)
{
	u32 mask = wide ? 0xffffffff : 0xffffff, a, n, last, back = 0;
	u64 t;

	a = inl(port);
	t = rdtsc();
	delay_us(200000);
	n = (inl(port) - a) & mask;
	t = us_since(t);
	/* Expected in that time, and 1%. */
	a = t * 3579545 / 1000000;
	check(n > a - a / 100 && n < a + a / 100, "%u ticks in %lu us, expected %u", n, t, a);
	print("pm: timer %u ticks in %lu us\n", n, t);
	last = inl(port);
	for (u32 i = 0; i < 1000; i++) {
		a = inl(port);
		back += ((a - last) & mask) > mask / 2;
		last = a;
	}
	check_eq(back, 0);
}

static void test_pm1(const u8 *fadt)
{
	u32 evt = *(u32 *)(fadt + 56), cnt = *(u32 *)(fadt + 64), half = fadt[88] / 2;
	u32 smi = *(u32 *)(fadt + 48), en = evt + half;
	u64 t = rdtsc();

	check_eq(fadt[88], 4);
	check_eq(fadt[89], 2);
	if (!(inw(cnt) & 1) && smi) {
		outb(smi, fadt[52]); /* ACPI_ENABLE */
		while (!(inw(cnt) & 1) && us_since(t) < 1000000)
			;
	}
	check_eq(inw(cnt) & 1, 1);
	outw(evt, 0xffff); /* write 1 to clear */
	check_eq(inw(evt) & 0x0721, 0);
	outw(en, 0x0120); /* power button, global lock */
	check_eq(inw(en) & 0x0120, 0x0120);
	outw(en, 0);
	check_eq(inw(en) & 0x0721, 0);
}

static void test_ich9(const u8 *fadt)
{
	struct pci_dev *lpc;
	u32 pmbase;

	pci_init();
	lpc = pci_find(0x8086, 0x2918, 0);
	if (!lpc) {
		check(!param_is("board", "q35"), "no ICH9 LPC");
		return;
	}
	check_eq(lpc->bdf, 0x1f << 3);
	check_eq(lpc->class, 0x060100);
	pmbase = pci_read(lpc, 0x40, 4);
	check_eq(pmbase & 1, 1);
	pmbase &= 0xff80;
	check_eq(pci_read(lpc, 0x44, 1) & 0x80, 0x80); /* ACPI_EN */
	check_eq(*(u32 *)(fadt + 56), pmbase);
	check_eq(*(u32 *)(fadt + 64), pmbase + 4);
	check_eq(*(u32 *)(fadt + 76), pmbase + 8);
}

void test_acpi(void)
{
	const u8 *rsdp = acpi_rsdp(), *fadt;
	u32 flags;

	if (!rsdp) {
		absent("ACPI");
		return;
	}
	tsc_calibrate();
	test_tables(rsdp);
	fadt = acpi_table("FACP");
	if (!fadt)
		return;
	flags = *(u32 *)(fadt + 112);
	if (flags >> 20 & 1) {
		print("hardware-reduced\n");
		check(fadt[244 + 0] <= 1, "sleep control register"); /* memory or I/O space */
		return;
	}
	test_ich9(fadt);
	test_pm1(fadt);
	if (*(u32 *)(fadt + 76))
		test_pm_timer(*(u32 *)(fadt + 76), flags >> 8 & 1);
	check(*(u16 *)(fadt + 46) < 24, "SCI is GSI %u", *(u16 *)(fadt + 46));
}
