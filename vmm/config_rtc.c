/* SPDX-License-Identifier: GPL-2.0-only */
/* --rtc: the guest's clocks. */
#include "config.h"

static const char *const kvmclock_names[] = {
	[RTC_CLOCK_HOST] = "host",
	[RTC_CLOCK_VM] = "vm",
	NULL,
};

#define T struct config_rtc
static const struct option rtc_options[] = {
	OPT_STRING("base", T, base, NULL, "the real-time clock's time at the start"),
	OPT_STRING("clock", T, clock, NULL, "what it counts"),
	OPT_STRING("driftfix", T, driftfix, NULL, "what becomes of its interrupts that are late"),
	OPT_ENUM("kvmclock", T, kvmclock, "vm", kvmclock_names,
		 "the paravirtual clock, while the VM is paused: goes on, or stands still"),
	OPT_END,
};
#undef T

int config_parse_rtc(const char *text, struct config_rtc *rtc, struct hako_error *err)
{
	struct keyvals kv = {0};
	int r = keyvals_parse(&kv, text, NULL, err);

	if (!r)
		r = options_defaults(rtc_options, rtc, err);
	if (!r)
		r = options_apply(rtc_options, rtc, &kv, true, err);
	keyvals_free(&kv);
	return r ? error_prefix(err, "--rtc %s", text), r : 0;
}

void config_free_rtc(struct config_rtc *rtc)
{
	options_free(rtc_options, rtc);
}
