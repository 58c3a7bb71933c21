/* SPDX-License-Identifier: GPL-2.0-only */
/* What boards tell the guest's firmware through the clock chip's battery-backed memory. Before the guest runs. */
#ifndef DEVICES_PLATFORM_RTC_H
#define DEVICES_PLATFORM_RTC_H

#include "vmm/object.h"

#define RTC_CMOS_SIZE 128

/** Set byte @index of the memory behind the clock's registers (0x0e and up, not the century); others are left alone. */
void rtc_set_cmos(struct object *rtc, uint8_t index, uint8_t value);

/**
 * The memory sizes, where SeaBIOS reads them: conventional memory (0x15), extended up to 64 MiB (0x17, 0x30), above 16 MiB up to the hole
 * (0x34), above 4 GiB (0x5b). @below_4g counts from address 0.
 */
void rtc_set_memory(struct object *rtc, uint64_t below_4g, uint64_t above_4g);

#endif
