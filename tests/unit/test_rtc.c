/* SPDX-License-Identifier: GPL-2.0-only */
/* The clock against the MC146818 data sheet, and its calendar against the C library's. */
#include <time.h>

#include "device_test.h"
#include "devices/platform/rtc.h"

#define IRQ 8

static struct object *rtc;

static void setup(void)
{
	setup_vm();
	rtc = make(CLASS_DEVICE, "mc146818rtc", "");
}

static uint8_t get(uint8_t reg)
{
	outb(0x70, reg);
	return inb(0x71);
}

static void set(uint8_t reg, uint8_t value)
{
	outb(0x70, reg);
	outb(0x71, value);
}

static unsigned int bcd(uint8_t v)
{
	ck_assert_uint_le(v & 0x0f, 9);
	ck_assert_uint_le(v >> 4, 9);
	return (v >> 4) * 10 + (v & 0x0f);
}

/* The time as BCD and 24 hours, read as the data sheet says: again if an update came in between. */
static time_t read_time(struct tm *tm)
{
	uint8_t sec;

	do {
		while (get(0x0a) & 0x80)
			;
		sec = get(0);
		memset(tm, 0, sizeof(*tm));
		tm->tm_sec = bcd(sec);
		tm->tm_min = bcd(get(2));
		tm->tm_hour = bcd(get(4));
		tm->tm_wday = bcd(get(6)) - 1;
		tm->tm_mday = bcd(get(7));
		tm->tm_mon = bcd(get(8)) - 1;
		tm->tm_year = bcd(get(0x32)) * 100 + bcd(get(9)) - 1900;
	} while (get(0) != sec);
	return timegm(&(struct tm){.tm_sec = tm->tm_sec,
				   .tm_min = tm->tm_min,
				   .tm_hour = tm->tm_hour,
				   .tm_mday = tm->tm_mday,
				   .tm_mon = tm->tm_mon,
				   .tm_year = tm->tm_year});
}

static uint8_t to_bcd(int v)
{
	return v / 10 << 4 | v % 10;
}

/* Write date and time with the clock stopped by SET; it stays stopped. */
static void stop_at(time_t t)
{
	struct tm tm;

	gmtime_r(&t, &tm);
	set(0x0b, 0x82);
	set(0, to_bcd(tm.tm_sec));
	set(2, to_bcd(tm.tm_min));
	set(4, to_bcd(tm.tm_hour));
	set(7, to_bcd(tm.tm_mday));
	set(8, to_bcd(tm.tm_mon + 1));
	set(9, to_bcd((tm.tm_year + 1900) % 100));
	set(0x32, to_bcd((tm.tm_year + 1900) / 100));
}

/* The next update comes half a second after the divider was let go. */
static void start(void)
{
	set(0x0a, 0x66);
	set(0x0b, 0x02);
	set(0x0a, 0x26);
}

START_TEST(initial_time)
{
	time_t before = time(NULL), t, after;
	struct tm tm;

	t = read_time(&tm);
	after = time(NULL);
	ck_assert_int_ge(t, before);
	ck_assert_int_le(t, after);
	ck_assert_uint_eq(get(0x0d), 0x80);
	ck_assert_uint_eq(get(0x0a) & 0x7f, 0x26);
	ck_assert_uint_eq(get(0x0b), 0x02);
}
END_TEST

START_TEST(base)
{
	struct tm tm;
	time_t t, now;

	object_destroy(rtc);
	rtc = make(CLASS_DEVICE, "mc146818rtc", "base=2006-06-17T16:01:21");
	t = read_time(&tm);
	ck_assert_int_ge(t, 1150560081); /* date -u -d 2006-06-17T16:01:21 +%s */
	ck_assert_int_le(t, 1150560083);
	ck_assert_int_eq(tm.tm_wday, 6);
	object_destroy(rtc);
	rtc = make(CLASS_DEVICE, "mc146818rtc", "base=1999-12-31");
	t = read_time(&tm);
	ck_assert_int_ge(t, 946598400);
	ck_assert_int_le(t, 946598402);
	object_destroy(rtc);
	setenv("TZ", "XYZ-5:30", 1);
	tzset();
	rtc = make(CLASS_DEVICE, "mc146818rtc", "base=localtime");
	now = time(NULL);
	t = read_time(&tm);
	ck_assert_int_ge(t - now, 19800 - 1);
	ck_assert_int_le(t - now, 19800 + 1);
	object_destroy(rtc);
	static const char *const bad[] = {
		"base=now",	  "base=2006-13-01",	      "base=2006-06-",	 "base=2006-06-17T",
		"base=2006-1-1x", "base=2006-06-17T25:00:00", "base=-999-01-01", "base=2006--1-01",
		"clock=guest",	  "lost_tick_policy=delay"};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(make_fails(CLASS_DEVICE, "mc146818rtc", bad[i]), -EINVAL);
}
END_TEST

/* Every kind of roll-over, and the days of the week, against the C library. */
START_TEST(calendar)
{
	static const char *const moments[] = {
		"1999-12-31 23:59:59", "2000-02-28 23:59:59", "2000-02-29 23:59:59",
		"1900-02-28 23:59:59", "2100-02-28 23:59:59", "2024-02-28 23:59:59",
		"2023-02-28 23:59:59", "2038-01-19 03:14:07", "1970-01-01 00:00:00",
		"1969-12-31 23:59:59", "2262-04-11 23:47:16", "9999-12-30 23:59:59",
		"2026-04-30 11:59:59", "2001-09-09 01:46:39",
	};

	for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
		struct tm want = {}, have;
		time_t t;

		ck_assert_ptr_nonnull(strptime(moments[i], "%Y-%m-%d %H:%M:%S", &want));
		t = timegm(&want);
		stop_at(t);
		start();
		ck_assert_int_eq(read_time(&have), t);
		ck_assert_int_eq(have.tm_wday, want.tm_wday);
		/* Let it roll over. */
		while (read_time(&have) == t)
			usleep(20000);
		t++;
		gmtime_r(&t, &want);
		ck_assert_int_eq(read_time(&have), t);
		ck_assert_int_eq(have.tm_wday, want.tm_wday);
	}
}
END_TEST

/* Many dates, without waiting. */
START_TEST(calendar_many)
{
	unsigned int seed = 146818;

	for (int i = 0; i < 3000; i++) {
		/* From the year 1 to 9999. */
		time_t t = -62135596800ll + (time_t)((double)rand_r(&seed) / RAND_MAX * 3.155e11);
		struct tm want, have;

		gmtime_r(&t, &want);
		stop_at(t);
		start();
		ck_assert_int_eq(read_time(&have), t);
		ck_assert_int_eq(have.tm_wday, want.tm_wday);
	}
}
END_TEST

START_TEST(set_stops_the_clock)
{
	struct tm tm;

	stop_at(1000000000);
	set(0x0c, 0);
	get(0x0c);
	usleep(1100000);
	ck_assert_int_eq(read_time(&tm), 1000000000);
	ck_assert_uint_eq(get(0x0a) & 0x80, 0);
	ck_assert_uint_eq(get(0x0c) & 0x10, 0); /* no update has ended */
}
END_TEST

/* Binary and BCD, 12 and 24 hours: the hours of a day in all four. */
START_TEST(formats)
{
	for (int hour = 0; hour < 24; hour++) {
		int h12 = hour % 12 ? hour % 12 : 12, pm = hour >= 12 ? 0x80 : 0;

		stop_at(1000000000 - 1000000000 % 86400 + hour * 3600 + 45 * 60 + 37);
		start();
		ck_assert_uint_eq(get(4), to_bcd(hour));
		set(0x0b, 0x00);
		ck_assert_uint_eq(get(4), to_bcd(h12) | pm);
		ck_assert_uint_eq(get(2), 0x45);
		set(0x0b, 0x04);
		ck_assert_uint_eq(get(4), h12 | pm);
		ck_assert_uint_eq(get(2), 45);
		set(0x0b, 0x06);
		ck_assert_uint_eq(get(4), hour);
		/* Set in 12-hour binary. */
		set(0x0b, 0x84);
		set(4, h12 | pm);
		set(0x0b, 0x04);
		set(0x0b, 0x02);
		ck_assert_uint_eq(get(4), to_bcd(hour));
	}
}
END_TEST

/* Update-ended: once a second, whether the interrupt is enabled or not. */
START_TEST(update_interrupt)
{
	uint64_t begin;

	stop_at(1000000000);
	start();
	get(0x0c);
	ck_assert_uint_eq(get(0x0c), 0);
	usleep(700000);
	ck_assert_uint_eq(get(0x0c) & 0xb0, 0x10); /* polled: no IRQF */
	ck_assert(!irq_high(IRQ));
	begin = clock_now();
	set(0x0b, 0x12);
	WAIT_FOR(irq_high(IRQ));
	ck_assert_uint_le(clock_now() - begin, 1200000000);
	ck_assert_uint_eq(get(0x0c) & 0xb0, 0x90);
	ck_assert(!irq_high(IRQ));
	begin = clock_now();
	WAIT_FOR(irq_high(IRQ));
	ck_assert_uint_ge(clock_now() - begin, 900000000);
	/* SET clears the enable bit, and with it the line. */
	set(0x0b, 0x92);
	ck_assert_uint_eq(get(0x0b), 0x82);
	ck_assert(!irq_high(IRQ));
}
END_TEST

START_TEST(alarm_interrupt)
{
	stop_at(1000000000); /* 01:46:40 */
	set(1, 0x41);
	set(3, 0x46);
	set(5, 0x01);
	start();
	get(0x0c);
	set(0x0b, 0x22);
	WAIT_FOR(irq_high(IRQ));
	ck_assert_uint_eq(get(0), 0x41);
	ck_assert_uint_eq(get(0x0c) & 0xa0, 0xa0);
	ck_assert(!irq_high(IRQ));
	/* "Don't care" in all three: every second. */
	set(1, 0xc0);
	set(3, 0xff);
	set(5, 0xd0);
	WAIT_FOR(irq_high(IRQ));
	ck_assert_uint_eq(get(0x0c) & 0x20, 0x20);
	/* A time that there is not: never. */
	set(1, 0x99);
	get(0x0c);
	usleep(1200000);
	ck_assert_uint_eq(get(0x0c) & 0x20, 0);
	ck_assert(!irq_high(IRQ));
}
END_TEST

/* The alarm an hour's step away, at midnight, in 12-hour form. */
START_TEST(alarm_rolls_over)
{
	struct tm tm;

	stop_at(1000079999); /* 23:59:59 */
	start();
	set(0x0b, 0x00);
	set(1, 0x00);
	set(3, 0x00);
	set(5, 0x12); /* 12 AM */
	get(0x0c);
	set(0x0b, 0x20);
	WAIT_FOR(irq_high(IRQ));
	set(0x0b, 0x02);
	ck_assert_int_eq(read_time(&tm), 1000080000);
}
END_TEST

/* Rate 6 is 1024 Hz, 15 is 2 Hz, 1 and 2 are 256 and 128 Hz, 0 is none (data sheet, table 5). */
START_TEST(periodic_rates)
{
	static const struct {
		uint8_t rate;
		int hz;
	} rates[] = {{1, 256}, {2, 128}, {6, 1024}, {8, 256}, {10, 64}, {15, 2}};

	get(0x0c);
	set(0x0a, 0x20);
	set(0x0b, 0x42);
	usleep(50000);
	ck_assert_uint_eq(get(0x0c) & 0x40, 0);
	set(0x0b, 0x02);
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		uint64_t end;
		int n = 0;

		set(0x0a, 0x20 | rates[i].rate);
		get(0x0c);
		end = clock_now() + NSEC_PER_SEC;
		/* Polled, so that a slow machine loses few. */
		while (clock_now() < end) {
			n += get(0x0c) >> 6 & 1;
			usleep(100);
		}
		ck_assert_int_le(n, rates[i].hz + 1);
		ck_assert_int_ge(n, rates[i].hz / 2);
	}
}
END_TEST

START_TEST(periodic_interrupt)
{
	int n = 0;
	uint64_t end = clock_now() + NSEC_PER_SEC;

	set(0x0a, 0x2a); /* 64 Hz */
	get(0x0c);
	set(0x0b, 0x42);
	while (clock_now() < end) {
		if (irq_high(IRQ)) {
			ck_assert_uint_eq(get(0x0c) & 0xc0, 0xc0);
			ck_assert(!irq_high(IRQ));
			n++;
		}
		usleep(200);
	}
	ck_assert_int_ge(n, 32);
	ck_assert_int_le(n, 65);
}
END_TEST

START_TEST(memory)
{
	for (int i = 0x0e; i < 128; i++)
		if (i != 0x32)
			set(i, i ^ 0x5a);
	for (int i = 0x0e; i < 128; i++)
		if (i != 0x32)
			ck_assert_uint_eq(get(i | 0x80), i ^ 0x5a); /* bit 7 is not the index's */
	rtc_set_cmos(rtc, 0x38, 0x77);
	rtc_set_cmos(rtc, 0x0b, 0xff); /* no memory: left alone */
	rtc_set_cmos(rtc, 0xff, 0xff);
	ck_assert_uint_eq(get(0x38), 0x77);
	ck_assert_uint_eq(get(0x0b), 0x02);
}
END_TEST

static unsigned int get16(uint8_t reg)
{
	return get(reg) | get(reg + 1) << 8;
}

START_TEST(memory_sizes)
{
	rtc_set_memory(rtc, 3 * GiB, 5 * GiB);
	ck_assert_uint_eq(get16(0x15), 640);
	ck_assert_uint_eq(get16(0x17), 65535);
	ck_assert_uint_eq(get16(0x30), 65535);
	ck_assert_uint_eq(get16(0x34), (3 * 1024 - 16) * 16);
	ck_assert_uint_eq(get16(0x5b) | get(0x5d) << 16, 5 * 1024 * 16);
	rtc_set_memory(rtc, 16 * MiB, 0);
	ck_assert_uint_eq(get16(0x30), 15 * 1024);
	ck_assert_uint_eq(get16(0x34), 0);
	ck_assert_uint_eq(get16(0x5b) | get(0x5d) << 16, 0);
}
END_TEST

START_TEST(reset)
{
	struct tm tm;

	stop_at(1000000000);
	start();
	set(0x50, 0x12);
	set(0x0b, 0x7a);
	usleep(600000);
	rtc->class->reset(rtc);
	/* PIE, AIE, UIE, SQWE and the flags are cleared; time and memory stay. */
	ck_assert_uint_eq(get(0x0b), 0x02);
	ck_assert(!irq_high(IRQ));
	ck_assert_uint_eq(get(0x50), 0x12);
	ck_assert_int_le(read_time(&tm) - 1000000000, 2);
}
END_TEST

START_TEST(state)
{
	struct tm tm;
	time_t t;

	stop_at(1500000000);
	start();
	set(0x70, 0x31);
	set(1, 0xff);
	set(3, 0xff);
	set(5, 0xff);
	set(0x0b, 0x22);
	state_round_trip(rtc);
	ck_assert_uint_eq(get(0x70), 0x31);
	ck_assert_uint_eq(get(0x0b), 0x22);
	t = read_time(&tm);
	ck_assert_int_ge(t, 1500000000);
	ck_assert_int_le(t, 1500000002);
	WAIT_FOR(irq_high(IRQ));
}
END_TEST

START_TEST(paused)
{
	set(0x0a, 0x26);
	set(0x0b, 0x42);
	WAIT_FOR(irq_high(IRQ));
	rtc->class->pause(rtc);
	get(0x0c);
	ck_assert(!irq_high(IRQ));
	usleep(50000);
	ck_assert(!irq_high(IRQ)); /* nothing happens while the VM is paused */
	rtc->class->resume(rtc);
	WAIT_FOR(irq_high(IRQ));
}
END_TEST

static void make_anew(const char *options)
{
	object_destroy(rtc);
	rtc = make(CLASS_DEVICE, "mc146818rtc", options);
}

/* Until a second begins, and which. */
static time_t next_second(void)
{
	uint64_t begin = clock_now();
	struct tm tm;
	time_t sec = read_time(&tm), now;

	while ((now = read_time(&tm)) == sec)
		ck_assert_uint_le(clock_now() - begin, 3 * NSEC_PER_SEC);
	return now;
}

#define DATE "2006-06-17T16:01:21"
#define SEC  1150560081

/* A pause of 1.6 s, which only clock=vm does not count; what goes by before the start is no time of the VM's either. */
START_TEST(source_in_a_pause)
{
	static const char *const sources[] = {"host", "rt", "vm"};
	char options[64];

	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		uint64_t at[5]; /* made, resumed, paused, resumed, the end */
		int64_t chip, expected;

		snprintf(options, sizeof(options), "base=" DATE ",clock=%s", sources[i]);
		at[0] = clock_now();
		make_anew(options);
		usleep(400000);
		at[1] = clock_now();
		rtc->class->resume(rtc);
		usleep(300000);
		at[2] = clock_now();
		rtc->class->pause(rtc);
		usleep(1600000);
		at[3] = clock_now();
		rtc->class->resume(rtc);
		chip = (next_second() - SEC) * NSEC_PER_SEC;
		at[4] = clock_now();
		expected = strcmp(sources[i], "vm") == 0 ? at[2] - at[1] + at[4] - at[3]
							 : at[4] - at[0];
		ck_assert_int_ge(chip, expected - 200000000);
		ck_assert_int_le(chip, expected + 200000000);
	}
}
END_TEST

/* What is saved with a clock that is not the host's is the time. */
START_TEST(state_of_sources)
{
	const struct state_table *table = rtc->class->state;
	struct state_buf vm_time = {}, host_time = {}, load;
	struct tm tm;
	uint64_t at;

	ck_assert_int_eq(state_save(&host_time, table, rtc, &err), 0);
	make_anew("base=" DATE ",clock=vm");
	state_round_trip(rtc);
	rtc->class->pause(rtc);
	ck_assert_int_eq(state_save(&vm_time, table, rtc, &err), 0);
	load = (struct state_buf){.data = host_time.data, .len = host_time.len};
	ck_assert_int_eq(state_load(&load, table, rtc, &err), -EINVAL);
	make_anew("clock=vm");
	usleep(1200000);
	load = (struct state_buf){.data = vm_time.data, .len = vm_time.len};
	ck_assert_int_eq(state_load(&load, table, rtc, &err), 0);
	ck_assert_int_eq(read_time(&tm), SEC);
	rtc->class->resume(rtc);
	at = clock_now();
	ck_assert_int_eq(next_second(), SEC + 1);
	ck_assert_uint_le(clock_now() - at, 1500000000);
	state_buf_free(&vm_time);
	state_buf_free(&host_time);
}
END_TEST

/* How many periodic interrupts there are at @hz since @begin. */
static int ticks_since(uint64_t begin, int hz)
{
	return (clock_now() - begin) * hz / NSEC_PER_SEC;
}

/* Ticks of 64 Hz that a guest takes which does not look for 400 ms, and then for 800 ms, or until it has them all. */
static int ticks_of_late_guest(const char *options, bool save, int *all)
{
	uint64_t begin;
	int n = 0;

	make_anew(options);
	set(0x0a, 0x2a);
	get(0x0c);
	begin = clock_now();
	set(0x0b, 0x42);
	usleep(400000);
	if (save)
		state_round_trip(rtc);
	do {
		if (irq_high(IRQ)) {
			ck_assert_uint_eq(get(0x0c) & 0xc0, 0xc0);
			ck_assert(!irq_high(IRQ));
			n++;
		}
		usleep(200);
		*all = ticks_since(begin, 64);
		ck_assert_int_le(n, *all + 1);
	} while (*all < 77 || (n < *all - 2 && *all < 200));
	return n;
}

START_TEST(late_ticks)
{
	uint64_t begin;
	int n, all;

	n = ticks_of_late_guest("lost_tick_policy=discard", false, &all);
	ck_assert_int_ge(n, 20);
	ck_assert_int_le(n, all - 23);
	n = ticks_of_late_guest("lost_tick_policy=slew", false, &all);
	ck_assert_int_ge(n, all - 2);
	n = ticks_of_late_guest("lost_tick_policy=slew", true, &all);
	ck_assert_int_ge(n, all - 2);
	/* They are owed as long as the guest wants such interrupts, */
	make_anew("lost_tick_policy=slew");
	set(0x0a, 0x2a);
	set(0x0b, 0x42);
	usleep(500000);
	set(0x0b, 0x02);
	begin = clock_now();
	set(0x0b, 0x42);
	get(0x0c);
	for (n = 0; (all = ticks_since(begin, 64)) < 32; usleep(200)) {
		n += get(0x0c) >> 6 & 1;
		ck_assert_int_le(n, all + 2);
	}
	/* and as many as the time that was lost has at the new rate: 500 ms are 4 of 8 Hz, one in 62 ms. */
	set(0x0a, 0x2a);
	get(0x0c);
	begin = clock_now();
	usleep(500000);
	set(0x0a, 0x2d);
	get(0x0c);
	for (n = 0; (all = ticks_since(begin, 8)) < 12 || (n < all - 2 && all < 80); usleep(200))
		n += get(0x0c) >> 6 & 1;
	ck_assert_int_ge(n, all - 2);
	ck_assert_int_le(n, all + 1);
}
END_TEST

static void poke(void)
{
	for (int i = 0; i < 0x33; i++)
		get(i);
	set(0x0b, 0x02);
	set(0x0a, 0x26);
	set(0, 0x30);
}

START_TEST(bad_states)
{
	state_mutations(rtc, 2, 3000, poke);
}
END_TEST

START_TEST(random_accesses)
{
	unsigned int seed = 8;
	struct tm tm;

	for (int i = 0; i < 100000; i++) {
		uint16_t port = 0x70 + rand_r(&seed) % 2;
		unsigned int size = port == 0x70 ? 1 + rand_r(&seed) % 2 : 1;

		/* Mostly the registers, since the memory has nothing to break. */
		if (rand_r(&seed) % 2)
			out(port, rand_r(&seed) % 3 ? rand_r(&seed) % 16 : rand_r(&seed), size);
		else
			in(port, size);
	}
	stop_at(1234567890);
	start();
	ck_assert_int_eq(read_time(&tm), 1234567890);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		initial_time,
		base,
		calendar,
		calendar_many,
		set_stops_the_clock,
		formats,
		update_interrupt,
		alarm_interrupt,
		alarm_rolls_over,
		periodic_rates,
		periodic_interrupt,
		memory,
		memory_sizes,
		reset,
		state,
		paused,
		source_in_a_pause,
		state_of_sources,
		late_ticks,
		bad_states,
		random_accesses,
	};

	return run_suite("rtc", setup, teardown_vm, tests, ARRAY_SIZE(tests)) != 0;
}
