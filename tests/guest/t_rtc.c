/* SPDX-License-Identifier: GPL-2.0-only */
/* The MC146818: time runs at its pace and is the host's, flags, interrupts, RAM. */
#include "guest.h"
#include "tests.h"

static u8 cmos_read(u8 reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void cmos_write(u8 reg, u8 v)
{
	outb(0x70, reg);
	outb(0x71, v);
}

/* In BCD unless register B says binary. */
static u32 field(u8 reg)
{
	u8 v = cmos_read(reg);

	return cmos_read(0x0b) & 4 ? v : (v >> 4) * 10 + (v & 15);
}

/* Until the seconds change; false after 3 s. */
static bool next_second(void)
{
	u64 t = rdtsc();
	u8 s = cmos_read(0);

	while (cmos_read(0) == s)
		if (us_since(t) > 3000000)
			return check(false, "seconds stand still");
	return true;
}

/* Seconds since 1970 of a date in the proleptic Gregorian calendar. */
static u64 epoch(u32 y, u32 m, u32 d, u32 h, u32 min, u32 s)
{
	u32 shifted = m > 2 ? m - 3 : m + 9;
	u64 days;

	y -= m <= 2;
	days = 365ull * y + y / 4 - y / 100 + y / 400 + (shifted * 153 + 2) / 5 + d - 1 - 719468;
	return ((days * 24 + h) * 60 + min) * 60 + s;
}

static void test_time(void)
{
	u64 t, us = 0, now;

	/* The host may take the CPU away around a change: one of three seconds has to be good. */
	for (u32 i = 0; i < 3 && (us < 950000 || us > 1050000); i++) {
		if (!next_second())
			return;
		t = rdtsc();
		next_second();
		us = us_since(t);
	}
	check(us > 950000 && us < 1050000, "a second takes %lu us", us);
	now = epoch(field(0x32) * 100 + field(9), field(8), field(7), field(4), field(2), field(0));
	print("rtc: %lu, a second is %lu us\n", now, us);
	if (param("now")) {
		s64 off = now - param_u64("now", 0);

		check(off >= -2 && off < 60, "%ld s ahead of the host", off);
	}
	check(cmos_read(0x0b) & 2, "not in 24 hour mode");
	check_eq(cmos_read(0x0d) & 0x80, 0x80);
	check_eq(cmos_read(0x0a) & 0x70, 0x20);
}

/* Flags of register C: set by what happens, cleared by reading. */
static void test_flags(void)
{
	bool uip = false, ended = false;
	u8 b = cmos_read(0x0b), c;
	u64 t = rdtsc();

	cmos_read(0x0c);
	check_eq(cmos_read(0x0c) & 0x10, 0);
	/* The bit is up for a quarter of a millisecond: a busy host may let us look away just then, but not every time. */
	while (!(uip && ended) && us_since(t) < 12000000) {
		uip |= cmos_read(0x0a) >> 7;
		ended |= cmos_read(0x0c) >> 4 & 1;
	}
	check(ended, "no update-ended flag");
	check(uip, "update-in-progress was never seen");
	/* SET stops the updates, and the time can be written. */
	cmos_write(0x0b, b | 0x80);
	c = cmos_read(0);
	delay_us(1200000);
	check_eq(cmos_read(0), c);
	cmos_write(0x0b, b);
}

/* 64 Hz for half a second. A tick is lost if nobody looks before the next one, which is the host's affair: so many may be missing. */
static void test_periodic(u8 a, u8 b)
{
	u64 begin, now = 0, last;
	u32 n = 0, unseen = 0, all;

	cmos_write(0x0a, (a & 0x70) | 10);
	cmos_read(0x0c);
	cmos_write(0x0b, b | 0x40);
	begin = rdtsc();
	do {
		n += cmos_read(0x0c) >> 6 & 1;
		last = now;
		now = us_since(begin);
		unseen += (now - last) * 64 / 1000000;
	} while (now < 500000);
	all = now * 64 / 1000000;
	check(n + unseen + 2 >= all && n <= all + 2,
	      "%u periodic interrupts of %u, and nobody looked for %u", n, all, unseen);
}

static void test_interrupts(void)
{
	u8 b = cmos_read(0x0b), a = cmos_read(0x0a), sec;
	u32 v = vector_alloc(), seen;
	u64 t;

	if (!ioapic_route(8, v, 0))
		return;
	/* Update-ended: one a second. */
	cmos_read(0x0c);
	seen = irqs(v);
	cmos_write(0x0b, b | 0x10);
	check(irq_wait_ms(v, seen, 1500), "no update interrupt");
	check_eq(cmos_read(0x0c) & 0x90, 0x90);
	cmos_write(0x0b, b);
	/* Alarm in 2 s; 0xc0 and above match everything. */
	next_second();
	sec = (field(0) + 2) % 60;
	cmos_write(1, b & 4 ? sec : sec / 10 << 4 | sec % 10);
	cmos_write(3, 0xff);
	cmos_write(5, 0xff);
	cmos_read(0x0c);
	seen = irqs(v);
	t = rdtsc();
	cmos_write(0x0b, b | 0x20);
	check(irq_wait_ms(v, seen, 4000), "no alarm");
	check_eq(cmos_read(0x0c) & 0xa0, 0xa0);
	check(us_since(t) > 1000000 && us_since(t) < 2500000, "alarm after %lu us", us_since(t));
	cmos_write(0x0b, b);
	test_periodic(a, b);
	cmos_write(0x0b, b);
	cmos_write(0x0a, a);
	cmos_read(0x0c);
	ioapic_route(8, v, IOAPIC_MASKED);
}

/* driftfix=slew: what a guest misses that does not look for 0.4 s comes later, so that 64 Hz are 64 Hz in the end, and at no time more. */
static void test_slew(void)
{
	u8 b = cmos_read(0x0b), a = cmos_read(0x0a);
	u32 n = 0, all;
	u64 t;

	cmos_write(0x0a, (a & 0x70) | 10);
	cmos_read(0x0c);
	cmos_write(0x0b, b | 0x40);
	t = rdtsc();
	delay_us(400000);
	do {
		n += cmos_read(0x0c) >> 6 & 1;
		all = us_since(t) * 64 / 1000000;
	} while (n <= all + 1 && (all < 100 || (n + 1 < all && all < 640)));
	check(n + 1 >= all && n <= all + 1, "%u periodic interrupts of %u", n, all);
	print("rtc: all of %u periodic interrupts\n", n);
	cmos_write(0x0b, b);
	cmos_write(0x0a, a);
	cmos_read(0x0c);
}

void test_rtc(void)
{
	tsc_calibrate();
	if (cmos_read(0x0d) == 0xff && cmos_read(0x0a) == 0xff) {
		absent("RTC");
		return;
	}
	for (u32 i = 0x60; i < 0x70; i++)
		cmos_write(i, i * 5);
	for (u32 i = 0x60; i < 0x70; i++)
		check_eq(cmos_read(i), (u8)(i * 5));
	test_time();
	test_flags();
	test_interrupts();
	if (param_u64("slew", 0))
		test_slew();
}
