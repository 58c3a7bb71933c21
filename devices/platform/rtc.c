/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Real-time clock: Motorola MC146818 with 128 bytes of memory, on ports 0x70 and 0x71, interrupt 8.
 *
 * The time is that of a clock of the host's plus an offset, computed when it is read. Flags are brought up to date when somebody looks
 * at them; a timer runs only for interrupts that are enabled.
 */
#include "devices/platform/rtc.h"

#include <stdio.h>
#include <time.h>

#include "calendar.h"
#include "vmm/vm.h"

#define PORT_INDEX	 0x70
#define IRQ_RTC		 8
#define TICKS_PER_SEC	 32768 /* of the divider's input */
#define DAY		 86400
#define NEVER		 INT64_MAX
/* An update cycle is announced so long before it happens (data sheet, "UIP"). */
#define UIP_NS		 244000
/* The first update comes half a second after the divider was released (data sheet, "divider control"). */
#define DIVIDER_START_NS 500000000u
/* Registers hold years 0 to 9999: no offset of a clock that was set is larger. */
#define OFFSET_MAX	 (10100ll * 366 * DAY)
/* Periodic interrupts that are made up for at most: an hour's at 1024 Hz. More is a host's clock that was set. */
#define LOST_MAX	 (3600 * 1024)

enum {
	REG_SEC,
	REG_SEC_ALARM,
	REG_MIN,
	REG_MIN_ALARM,
	REG_HOUR,
	REG_HOUR_ALARM,
	REG_WEEKDAY,
	REG_DAY,
	REG_MONTH,
	REG_YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	REG_MEMORY,
	REG_CENTURY = 0x32,
};

#define A_UIP	  0x80
#define A_DIVIDER 0x70
#define A_RATE	  0x0f
#define A_DEFAULT 0x26 /* 32768 Hz crystal, 1024 Hz periodic rate */

#define B_SET  0x80
#define B_PIE  0x40
#define B_AIE  0x20
#define B_UIE  0x10
#define B_SQWE 0x08
#define B_DM   0x04 /* binary, not BCD */
#define B_24H  0x02

#define C_IRQF 0x80
#define C_PF   0x40 /* the bits that enable them have the same places in B */
#define C_AF   0x20
#define C_UF   0x10

#define D_VRT 0x80 /* the battery is good */

/* What it counts: QEMU's -rtc clock=. */
enum rtc_source {
	SOURCE_HOST, /* the host's time of day */
	SOURCE_RT,   /* the host's monotonic clock, which nobody sets */
	SOURCE_VM,   /* the same without the time in which the VM was paused */
};

/* What becomes of periodic interrupts that the guest is too late for. */
enum rtc_policy {
	POLICY_DISCARD,
	POLICY_SLEW, /* they are given later, between the others */
};

struct moment {
	int64_t sec;
	uint32_t nsec;
};

struct rtc {
	struct object obj;
	char *base;	    /* options */
	int source, policy; /* enum rtc_source, rtc_policy */
	pthread_mutex_t lock;
	struct irq_line irq;
	struct loop_timer timer;
	struct loop_msg timer_msg;
	bool paused;	       /* no timer. Loop thread */
	struct moment ahead;   /* how much the clock is ahead of its source */
	bool stopped;	       /* clock=vm: since stopped_at */
	uint64_t stopped_at;   /* ns of clock_now() */
	uint64_t stopped_time; /* ns in all, before that */
	int64_t last_sec;      /* flags tell of all up to this second, */
	int64_t last_tick;     /* and this tick */
	/* State. */
	uint8_t index;
	uint8_t cmos[RTC_CMOS_SIZE]; /* time registers: valid while the clock stands still */
	uint8_t saved_source;
	int64_t offset_sec; /* clock=host: how much it is ahead of the host's; else the time itself */
	uint32_t offset_nsec;
	uint32_t lost; /* periodic interrupts that are to be made up for */
};

static struct rtc *to_rtc(struct object *obj)
{
	return container_of(obj, struct rtc, obj);
}

/* --- time and its registers -------------------------------------------------------------------- */

static struct moment host_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (struct moment){ts.tv_sec, ts.tv_nsec};
}

static struct moment source_now(const struct rtc *rtc)
{
	uint64_t ns;

	if (rtc->source == SOURCE_HOST)
		return host_now();
	ns = (rtc->stopped ? rtc->stopped_at : clock_now()) - rtc->stopped_time;
	return (struct moment){ns / NSEC_PER_SEC, ns % NSEC_PER_SEC};
}

static struct moment rtc_now(const struct rtc *rtc)
{
	struct moment t = source_now(rtc);

	t.sec += rtc->ahead.sec;
	t.nsec += rtc->ahead.nsec;
	if (t.nsec >= NSEC_PER_SEC) {
		t.nsec -= NSEC_PER_SEC;
		t.sec++;
	}
	return t;
}

static void set_now(struct rtc *rtc, struct moment t)
{
	struct moment source = source_now(rtc);

	rtc->ahead.sec = t.sec - source.sec;
	rtc->ahead.nsec = t.nsec - source.nsec;
	if (t.nsec < source.nsec) {
		rtc->ahead.nsec += NSEC_PER_SEC;
		rtc->ahead.sec--;
	}
	rtc->last_sec = t.sec;
}

static int64_t ticks(struct moment t)
{
	return t.sec * TICKS_PER_SEC + (uint64_t)t.nsec * TICKS_PER_SEC / NSEC_PER_SEC;
}

static bool divider_runs(const struct rtc *rtc)
{
	return (rtc->cmos[REG_A] & A_DIVIDER) <= 0x20;
}

static bool runs(const struct rtc *rtc)
{
	return divider_runs(rtc) && !(rtc->cmos[REG_B] & B_SET);
}

static uint8_t encode(const struct rtc *rtc, unsigned int v)
{
	return rtc->cmos[REG_B] & B_DM ? v : v / 10 << 4 | v % 10;
}

static unsigned int decode(const struct rtc *rtc, uint8_t v)
{
	return rtc->cmos[REG_B] & B_DM ? v : (v >> 4) * 10 + (v & 0x0f);
}

static uint8_t encode_hour(const struct rtc *rtc, unsigned int h)
{
	if (rtc->cmos[REG_B] & B_24H)
		return encode(rtc, h);
	return encode(rtc, h % 12 ?: 12) | (h >= 12 ? 0x80 : 0);
}

static unsigned int decode_hour(const struct rtc *rtc, uint8_t v)
{
	if (rtc->cmos[REG_B] & B_24H)
		return decode(rtc, v);
	return decode(rtc, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

static void put_time(struct rtc *rtc, int64_t sec)
{
	int64_t days = floor_div(sec, DAY), year;
	unsigned int second = sec - days * DAY, month, day;
	uint8_t *r = rtc->cmos;

	date_of_days(days, &year, &month, &day);
	r[REG_SEC] = encode(rtc, second % 60);
	r[REG_MIN] = encode(rtc, second / 60 % 60);
	r[REG_HOUR] = encode_hour(rtc, second / 3600);
	/* 1 is Sunday; 1970-01-01 was a Thursday. */
	r[REG_WEEKDAY] = encode(rtc, days + 4 - floor_div(days + 4, 7) * 7 + 1);
	r[REG_DAY] = encode(rtc, day);
	r[REG_MONTH] = encode(rtc, month);
	year -= floor_div(year, 10000) * 10000;
	r[REG_YEAR] = encode(rtc, year % 100);
	r[REG_CENTURY] = encode(rtc, year / 100);
}

/* Whatever the registers hold is some time: what is out of range carries over. */
static int64_t get_time(const struct rtc *rtc)
{
	const uint8_t *r = rtc->cmos;
	unsigned int month = decode(rtc, r[REG_MONTH]);
	int64_t year = decode(rtc, r[REG_CENTURY]) % 100 * 100 + decode(rtc, r[REG_YEAR]) % 100;

	month = month ? (month - 1) % 12 + 1 : 1;
	return days_of_date(year, month, decode(rtc, r[REG_DAY])) * DAY +
	       decode_hour(rtc, r[REG_HOUR]) * 3600 + decode(rtc, r[REG_MIN]) * 60 +
	       decode(rtc, r[REG_SEC]);
}

static bool is_time(uint8_t index)
{
	return index == REG_CENTURY || (index <= REG_YEAR && index != REG_SEC_ALARM &&
					index != REG_MIN_ALARM && index != REG_HOUR_ALARM);
}

/* --- flags and interrupts ---------------------------------------------------------------------- */

static bool dont_care(uint8_t alarm)
{
	return (alarm & 0xc0) == 0xc0;
}

/* The first second after @after at which the alarm goes off. */
static int64_t next_alarm(const struct rtc *rtc, int64_t after)
{
	const uint8_t *r = rtc->cmos;
	unsigned int sec = decode(rtc, r[REG_SEC_ALARM]);
	unsigned int min = decode(rtc, r[REG_MIN_ALARM]);
	unsigned int hour = decode_hour(rtc, r[REG_HOUR_ALARM]);
	int64_t t = after + 1;

	/* At most 24 + 60 + 60 steps and what it takes to get there; an impossible time is never found. */
	for (int i = 0; i < 256; i++) {
		unsigned int s = t - floor_div(t, DAY) * DAY;

		if (!dont_care(r[REG_HOUR_ALARM]) && s / 3600 != hour)
			t += 3600 - s % 3600;
		else if (!dont_care(r[REG_MIN_ALARM]) && s / 60 % 60 != min)
			t += 60 - s % 60;
		else if (!dont_care(r[REG_SEC_ALARM]) && s % 60 != sec)
			t++;
		else
			return t;
	}
	return NEVER;
}

/* Ticks between periodic interrupts; 0: there are none. */
static int64_t period(const struct rtc *rtc)
{
	unsigned int rate = rtc->cmos[REG_A] & A_RATE;

	if (!rate || !divider_runs(rtc))
		return 0;
	/* Rates 1 and 2 are 256 and 128 Hz, as are 8 and 9. */
	return 1ll << ((rate <= 2 ? rate + 7 : rate) - 1);
}

static void update_irq(struct rtc *rtc)
{
	uint8_t *c = &rtc->cmos[REG_C];
	bool level = *c & rtc->cmos[REG_B] & (C_PF | C_AF | C_UF);

	*c = (*c & ~C_IRQF) | (level ? C_IRQF : 0);
	irq_line_set(&rtc->irq, level);
}

/* Does the guest have an interrupt to come that it missed, and has it taken the last one? */
static bool owes(const struct rtc *rtc)
{
	return rtc->lost && !(rtc->cmos[REG_C] & C_PF);
}

/* Periods up to @tick. A tick that comes before the guest has read the flag of the one before it is lost. */
static void catch_up_periods(struct rtc *rtc, int64_t tick)
{
	int64_t every = period(rtc), n;
	uint8_t *c = &rtc->cmos[REG_C];

	if (!every)
		return;
	n = floor_div(tick, every) - floor_div(rtc->last_tick, every);
	if (n > 0) {
		if (rtc->policy == POLICY_SLEW && (rtc->cmos[REG_B] & B_PIE)) {
			n += rtc->lost;
			n -= !(*c & C_PF);
			rtc->lost = MIN(n, LOST_MAX);
		}
		*c |= C_PF;
	} else if (owes(rtc) && floor_div(tick, every / 2) > floor_div(rtc->last_tick, every / 2)) {
		*c |= C_PF;
		rtc->lost--;
	}
}

/* Set the flags of what has happened since the last time. The host's clock may jump; going back is no event. */
static void catch_up(struct rtc *rtc)
{
	struct moment now = rtc_now(rtc);

	if (runs(rtc) && now.sec > rtc->last_sec) {
		rtc->cmos[REG_C] |= C_UF;
		if (next_alarm(rtc, rtc->last_sec) <= now.sec)
			rtc->cmos[REG_C] |= C_AF;
	}
	rtc->last_sec = now.sec;
	catch_up_periods(rtc, ticks(now));
	rtc->last_tick = ticks(now);
	update_irq(rtc);
}

/* Nanoseconds from now until the next interrupt that is enabled. */
static int64_t next_event(const struct rtc *rtc)
{
	struct moment now = rtc_now(rtc);
	int64_t every = period(rtc), left = NEVER;
	uint8_t b = rtc->cmos[REG_B];

	if ((b & B_PIE) && every) {
		int64_t step = owes(rtc) ? every / 2 : every;
		int64_t next = (floor_div(ticks(now), step) + 1) * step;
		int64_t in_sec = next - now.sec * TICKS_PER_SEC;

		/* Rounded up, so that the tick has come when the timer does. */
		left = (in_sec * (int64_t)NSEC_PER_SEC + TICKS_PER_SEC - 1) / TICKS_PER_SEC -
		       now.nsec;
	}
	if ((b & B_UIE) && runs(rtc))
		left = MIN(left, (int64_t)(NSEC_PER_SEC - now.nsec));
	if ((b & B_AIE) && runs(rtc)) {
		int64_t at = next_alarm(rtc, rtc->last_sec);

		if (at != NEVER)
			left = MIN(left, (at - now.sec) * (int64_t)NSEC_PER_SEC - now.nsec);
	}
	return left;
}

static void run_timer(struct rtc *rtc)
{
	int64_t left;

	if (rtc->paused)
		return;
	pthread_mutex_lock(&rtc->lock);
	catch_up(rtc);
	left = next_event(rtc);
	pthread_mutex_unlock(&rtc->lock);
	if (left == NEVER)
		loop_timer_cancel(&rtc->timer);
	else
		loop_timer_set(rtc->obj.vm->io_loop, &rtc->timer, clock_now() + MAX(left, 0));
}

static void timer_fn(struct loop_timer *timer)
{
	run_timer(container_of(timer, struct rtc, timer));
}

static void timer_msg_fn(struct loop_msg *msg)
{
	run_timer(container_of(msg, struct rtc, timer_msg));
}

/* What the timer waits for may have changed. */
static void rearm(struct rtc *rtc)
{
	loop_post(rtc->obj.vm->io_loop, &rtc->timer_msg);
}

/* --- registers --------------------------------------------------------------------------------- */

/* Change A or B, which may stop the clock or let it run again. */
static void write_control(struct rtc *rtc, uint8_t index, uint8_t value)
{
	bool ran = runs(rtc), divider_ran = divider_runs(rtc);
	int64_t was = period(rtc), every;
	struct moment now;

	catch_up(rtc);
	now = rtc_now(rtc);
	if (ran)
		put_time(rtc, now.sec);
	if (index == REG_A)
		value &= ~A_UIP;
	else if (value & B_SET)
		value &= ~B_UIE; /* data sheet: SET clears UIE */
	rtc->cmos[index] = value;
	if (!ran && runs(rtc)) {
		now.sec = get_time(rtc);
		if (!divider_ran)
			now.nsec = DIVIDER_START_NS;
		set_now(rtc, now);
	}
	/* Periodic interrupts start anew, but for the time that is still owed. */
	every = rtc->cmos[REG_B] & B_PIE ? period(rtc) : 0;
	rtc->lost = every ? MIN(rtc->lost * was / every, LOST_MAX) : 0;
	rtc->last_tick = ticks(rtc_now(rtc));
	update_irq(rtc);
	rearm(rtc);
}

static void write_time(struct rtc *rtc, uint8_t index, uint8_t value)
{
	struct moment now;

	if (!runs(rtc)) {
		rtc->cmos[index] = value;
		return;
	}
	catch_up(rtc);
	now = rtc_now(rtc);
	put_time(rtc, now.sec);
	rtc->cmos[index] = value;
	now.sec = get_time(rtc);
	set_now(rtc, now);
	rtc->last_tick = ticks(now);
	rearm(rtc);
}

static void write_reg(struct rtc *rtc, uint8_t index, uint8_t value)
{
	switch (index) {
	case REG_A:
	case REG_B:
		write_control(rtc, index, value);
		break;
	case REG_C:
	case REG_D:
		break;
	case REG_SEC_ALARM:
	case REG_MIN_ALARM:
	case REG_HOUR_ALARM:
		catch_up(rtc);
		rtc->cmos[index] = value;
		rearm(rtc);
		break;
	default:
		if (is_time(index))
			write_time(rtc, index, value);
		else
			rtc->cmos[index] = value;
		break;
	}
}

static uint8_t read_reg(struct rtc *rtc, uint8_t index)
{
	struct moment now = rtc_now(rtc);
	uint8_t value;

	switch (index) {
	case REG_A:
		value = rtc->cmos[REG_A];
		if (runs(rtc) && now.nsec >= NSEC_PER_SEC - UIP_NS)
			value |= A_UIP;
		return value;
	case REG_C:
		catch_up(rtc);
		value = rtc->cmos[REG_C];
		rtc->cmos[REG_C] = 0;
		update_irq(rtc);
		if (rtc->lost)
			rearm(rtc);
		return value;
	case REG_D:
		return D_VRT;
	default:
		if (is_time(index) && runs(rtc))
			put_time(rtc, now.sec);
		return rtc->cmos[index];
	}
}

static uint64_t rtc_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct rtc *rtc = opaque;

	/* The index can not be read back. */
	return offset == 1 && size == 1 ? read_reg(rtc, rtc->index) : 0xff;
}

static void rtc_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct rtc *rtc = opaque;

	/* Bit 7 of the index masks NMIs, of which there are none. */
	if (offset == 0)
		rtc->index = value & 0x7f;
	if (offset == 0 && size == 2)
		write_reg(rtc, rtc->index, value >> 8);
	else if (offset == 1)
		write_reg(rtc, rtc->index, value);
}

static const struct io_ops rtc_ops = {
	.read = rtc_read,
	.write = rtc_write,
};

/* --- for boards -------------------------------------------------------------------------------- */

void rtc_set_cmos(struct object *obj, uint8_t index, uint8_t value)
{
	struct rtc *rtc = to_rtc(obj);

	if (index < REG_MEMORY || index >= RTC_CMOS_SIZE || index == REG_CENTURY)
		return;
	pthread_mutex_lock(&rtc->lock);
	rtc->cmos[index] = value;
	pthread_mutex_unlock(&rtc->lock);
}

static void set_cmos16(struct object *rtc, uint8_t index, uint64_t value)
{
	value = MIN(value, 0xffff);
	rtc_set_cmos(rtc, index, value);
	rtc_set_cmos(rtc, index + 1, value >> 8);
}

void rtc_set_memory(struct object *rtc, uint64_t below_4g, uint64_t above_4g)
{
	uint64_t above_1m = below_4g > MiB ? below_4g - MiB : 0;
	uint64_t above_16m = below_4g > 16 * MiB ? below_4g - 16 * MiB : 0;
	uint64_t high = above_4g / (64 * KiB);

	set_cmos16(rtc, 0x15, MIN(below_4g / KiB, 640));
	set_cmos16(rtc, 0x17, above_1m / KiB);
	set_cmos16(rtc, 0x30, above_1m / KiB);
	set_cmos16(rtc, 0x34, above_16m / (64 * KiB));
	high = MIN(high, 0xffffff);
	rtc_set_cmos(rtc, 0x5b, high);
	rtc_set_cmos(rtc, 0x5c, high >> 8);
	rtc_set_cmos(rtc, 0x5d, high >> 16);
}

/* --- the object -------------------------------------------------------------------------------- */

/* The option "base": utc, localtime, or a date. */
static int set_base(struct rtc *rtc, struct hako_error *err)
{
	unsigned int year, month, day, hour = 0, min = 0, sec = 0;
	struct moment now = host_now();
	time_t host = now.sec;
	struct tm tm;
	int end = 0, n;

	if (!strcmp(rtc->base, "utc"))
		goto out;
	if (!strcmp(rtc->base, "localtime")) {
		if (localtime_r(&host, &tm))
			now.sec += tm.tm_gmtoff;
		goto out;
	}
	n = sscanf(rtc->base, "%4u-%2u-%2u%nT%2u:%2u:%2u%n", &year, &month, &day, &end, &hour, &min,
		   &sec, &end);
	if ((n != 3 && n != 6) || rtc->base[end] || year > 9999 || month < 1 || month > 12 ||
	    day < 1 || day > 31 || hour > 23 || min > 59 || sec > 59)
		return error_set(err, -EINVAL,
				 "base=%s: utc, localtime or a date such as 2006-06-17T16:01:21 "
				 "expected",
				 rtc->base);
	now.sec = days_of_date(year, month, day) * DAY + hour * 3600 + min * 60 + sec;
	now.nsec = 0;
out:
	set_now(rtc, now);
	rtc->last_tick = ticks(now);
	return 0;
}

static int rtc_create(struct object *obj, struct hako_error *err)
{
	struct rtc *rtc = to_rtc(obj);
	struct io_region region = {
		.name = "mc146818rtc",
		.base = PORT_INDEX,
		.size = 2,
		.ops = &rtc_ops,
		.opaque = rtc,
		.lock = &rtc->lock,
	};
	int ret;

	/* A VM's time begins when it is started. */
	rtc->stopped = rtc->source == SOURCE_VM;
	rtc->stopped_at = clock_now();
	ret = set_base(rtc, err);
	if (ret)
		return ret;
	pthread_mutex_init(&rtc->lock, NULL);
	irq_line_init(&rtc->irq, obj->vm, IRQ_RTC);
	rtc->timer.fn = timer_fn;
	rtc->timer_msg.fn = timer_msg_fn;
	rtc->cmos[REG_A] = A_DEFAULT;
	rtc->cmos[REG_B] = B_24H;
	ret = bus_add(&obj->vm->pio, &region, err);
	if (ret)
		pthread_mutex_destroy(&rtc->lock);
	return ret;
}

static void stop_timer(void *arg)
{
	struct rtc *rtc = arg;

	rtc->paused = true;
	loop_timer_cancel(&rtc->timer);
	pthread_mutex_lock(&rtc->lock);
	if (rtc->source == SOURCE_VM && !rtc->stopped) {
		rtc->stopped_at = clock_now();
		rtc->stopped = true;
	}
	pthread_mutex_unlock(&rtc->lock);
}

static void start_timer(void *arg)
{
	struct rtc *rtc = arg;

	rtc->paused = false;
	pthread_mutex_lock(&rtc->lock);
	if (rtc->stopped)
		rtc->stopped_time += clock_now() - rtc->stopped_at;
	rtc->stopped = false;
	pthread_mutex_unlock(&rtc->lock);
	run_timer(rtc);
}

static void rtc_pause(struct object *obj)
{
	loop_call(obj->vm->io_loop, stop_timer, to_rtc(obj));
}

static void rtc_resume(struct object *obj)
{
	loop_call(obj->vm->io_loop, start_timer, to_rtc(obj));
}

static void rtc_destroy(struct object *obj)
{
	struct rtc *rtc = to_rtc(obj);

	bus_remove(&obj->vm->pio, PORT_INDEX, rtc);
	/* Messages that were posted before have run then. */
	rtc_pause(obj);
	irq_line_set(&rtc->irq, false);
	pthread_mutex_destroy(&rtc->lock);
}

/* The RESET pin: the battery keeps time and memory. */
static void rtc_reset(struct object *obj)
{
	struct rtc *rtc = to_rtc(obj);

	pthread_mutex_lock(&rtc->lock);
	rtc->cmos[REG_B] &= ~(B_PIE | B_AIE | B_UIE | B_SQWE);
	rtc->cmos[REG_C] = 0;
	rtc->lost = 0;
	rtc->index = 0;
	update_irq(rtc);
	rearm(rtc);
	pthread_mutex_unlock(&rtc->lock);
}

static int rtc_pre_save(void *obj, struct hako_error *err)
{
	struct rtc *rtc = obj;
	struct moment saved;

	catch_up(rtc);
	/* Where it goes on, a monotonic clock is another one: the time itself counts. */
	saved = rtc->source == SOURCE_HOST ? rtc->ahead : rtc_now(rtc);
	rtc->saved_source = rtc->source;
	rtc->offset_sec = saved.sec;
	rtc->offset_nsec = saved.nsec;
	return 0;
}

static int rtc_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct rtc *rtc = obj;
	struct moment saved = {rtc->offset_sec, rtc->offset_nsec}, now;

	rtc->index &= 0x7f;
	rtc->cmos[REG_A] &= ~A_UIP;
	rtc->cmos[REG_C] &= C_PF | C_AF | C_UF;
	if (rtc->policy == POLICY_DISCARD || !period(rtc))
		rtc->lost = 0;
	rtc->lost = MIN(rtc->lost, LOST_MAX);
	if (rtc->saved_source != rtc->source)
		return error_set(err, -EINVAL, "mc146818rtc: saved with another clock=");
	if (saved.sec < -OFFSET_MAX || saved.sec > OFFSET_MAX || saved.nsec >= NSEC_PER_SEC)
		return error_set(err, -EINVAL, "mc146818rtc: impossible time");
	if (rtc->source == SOURCE_HOST)
		rtc->ahead = saved;
	else
		set_now(rtc, saved);
	/* What went by while the VM did not exist is no event. */
	now = rtc_now(rtc);
	rtc->last_sec = now.sec;
	rtc->last_tick = ticks(now);
	update_irq(rtc);
	rearm(rtc);
	return 0;
}

static const struct state_field rtc_fields[] = {
	STATE_FIELD_UINT(struct rtc, index),
	STATE_FIELD_BYTES(struct rtc, cmos),
	STATE_FIELD_UINT(struct rtc, offset_sec),
	STATE_FIELD_UINT(struct rtc, offset_nsec),
	STATE_FIELD_UINT(struct rtc, saved_source),
	STATE_FIELD_UINT(struct rtc, lost),
	STATE_END,
};

static const struct state_table rtc_state = {
	.name = "mc146818rtc",
	.version = 2,
	.min_version = 2,
	.fields = rtc_fields,
	.pre_save = rtc_pre_save,
	.post_load = rtc_post_load,
};

static const char *const source_names[] = {"host", "rt", "vm", NULL};
static const char *const policy_names[] = {"discard", "slew", NULL};

static const struct option rtc_options[] = {
	OPT_STRING("base", struct rtc, base, "utc",
		   "time at the start: utc, localtime, or a date such as 2006-06-17T16:01:21"),
	OPT_ENUM(
		"clock", struct rtc, source, "host", source_names,
		"what it counts: the host's time of day, its monotonic clock, or that while the VM runs"),
	OPT_ENUM("lost_tick_policy", struct rtc, policy, "discard", policy_names,
		 "periodic interrupts that the guest was too late for: gone, or given later"),
	OPT_END,
};

static const struct class rtc_class = {
	.name = "mc146818rtc",
	.help = "real-time clock",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct rtc),
	.internal = true,
	.options = rtc_options,
	.state = &rtc_state,
	.create = rtc_create,
	.destroy = rtc_destroy,
	.reset = rtc_reset,
	.pause = rtc_pause,
	.resume = rtc_resume,
};
HAKO_CLASS(rtc_class);
