/* SPDX-License-Identifier: GPL-2.0-only */
/* The proleptic Gregorian calendar, in days since 1970-01-01. */
#ifndef DEVICES_PLATFORM_CALENDAR_H
#define DEVICES_PLATFORM_CALENDAR_H

#include <stdint.h>

/** @a / @b for a positive @b, rounded down. */
static inline int64_t floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/** The day of a date; @month is 1 to 12, and days beyond the month's carry over. */
int64_t days_of_date(int64_t year, unsigned int month, unsigned int day);
void date_of_days(int64_t days, int64_t *year, unsigned int *month, unsigned int *day);

#endif
