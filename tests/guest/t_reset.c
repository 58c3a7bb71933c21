/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test=reset how=cf9|i8042|triple|acpi: resets twice, and counts in memory that outlives it: the RTC's
 * RAM, or guest RAM on a board without an RTC. test=poweroff: S5, by what ACPI says.
 */
#include "acpi.h"
#include "tests.h"

#define RESETS	  2
#define CMOS_AT	  0x6c
#define RAM_AT	  0x2000000ul
#define RAM_MAGIC 0x68616b6f00000000

static u8 cmos(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static bool has_rtc(void)
{
	return cmos(0x0d) != 0xff;
}

static u32 get_count(void)
{
	u64 v = *(volatile u64 *)RAM_AT;

	if (has_rtc())
		return cmos(CMOS_AT) == 'h' && cmos(CMOS_AT + 1) == 'k' ? cmos(CMOS_AT + 2) : 0;
	return (v & 0xffffffff00000000) == RAM_MAGIC ? v : 0;
}

static void set_count(u32 n)
{
	u8 v[3] = {'h', 'k', n};

	if (!has_rtc()) {
		*(volatile u64 *)RAM_AT = RAM_MAGIC | n;
		return;
	}
	for (u32 i = 0; i < 3; i++) {
		outb(0x70, CMOS_AT + i);
		outb(0x71, v[i]);
	}
}

/* Write to where a Generic Address Structure (5.2.3.2) says: memory or I/O space. */
static bool gas_write(const u8 *gas, u8 v)
{
	u64 a = *(u64 *)(gas + 4);

	if (!a || gas[0] > 1)
		return false;
	if (gas[0] == 1)
		outb(a, v);
	else
		mmio_w8(a, v);
	return true;
}

static bool acpi_reset(void)
{
	u8 *fadt = acpi_table("FACP");

	if (!fadt || *(u32 *)(fadt + 4) < 129 || !(*(u32 *)(fadt + 112) >> 10 & 1))
		return false;
	return gas_write(fadt + 116, fadt[128]);
}

static bool do_reset(void)
{
	if (param_is("how", "cf9")) {
		outb(0xcf9, 0x02);
		outb(0xcf9, 0x06);
	} else if (param_is("how", "i8042")) {
		outb(0x64, 0xfe);
	} else if (param_is("how", "triple")) {
		at_cpl0(k_lidt0, 0, 0);
	} else {
		return acpi_reset();
	}
	return true;
}

void test_reset(void)
{
	u32 n = get_count();

	tsc_calibrate();
	print("reset: %u of %u\n", n, RESETS);
	if (n >= RESETS) {
		set_count(0);
		return;
	}
	set_count(n + 1);
	if (!do_reset()) {
		set_count(0);
		absent("reset register");
		return;
	}
	delay_us(3000000);
	check(false, "the reset does not come");
}

void test_poweroff(void)
{
	u8 *fadt = acpi_table("FACP");
	int type = acpi_s5();
	u32 cnt;

	tsc_calibrate();
	if (!check(fadt && type >= 0, "no FADT or no _S5"))
		return;
	print("poweroff: type %u\n", type);
	if (*(u32 *)(fadt + 112) >> 20 & 1) {
		/* Hardware-reduced: SLEEP_CONTROL_REG (4.8.3.7): SLP_TYP in 4:2, SLP_EN in 5. */
		check(gas_write(fadt + 244, type << 2 | 0x20), "no sleep control register");
	} else {
		cnt = *(u32 *)(fadt + 64);
		outw(cnt, (inw(cnt) & 0xe3ff) | type << 10 | 1 << 13);
	}
	delay_us(3000000);
	check(false, "still on");
}
