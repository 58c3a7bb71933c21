/* SPDX-License-Identifier: GPL-2.0-only */
#include "calendar.h"

/* Years begin in March here, so that the leap day is the last. */
int64_t days_of_date(int64_t year, unsigned int month, unsigned int day)
{
	unsigned int m = (month + 9) % 12;
	int64_t y = year - (month <= 2);

	return y * 365 + floor_div(y, 4) - floor_div(y, 100) + floor_div(y, 400) +
	       (m * 153 + 2) / 5 + day - 1 - 719468;
}

void date_of_days(int64_t days, int64_t *year, unsigned int *month, unsigned int *day)
{
	int64_t d = days + 719468, era = floor_div(d, 146097);
	unsigned int doe = d - era * 146097; /* day of 400 years */
	unsigned int yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	unsigned int doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	unsigned int m = (5 * doy + 2) / 153;

	*day = doy - (153 * m + 2) / 5 + 1;
	*month = m < 10 ? m + 3 : m - 9;
	*year = yoe + era * 400 + (*month <= 2);
}
