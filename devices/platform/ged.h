/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ACPI Generic Event Device with the sleep and reset registers of hardware-reduced ACPI (ACPI 6.4, 4.8.3.6, 4.8.3.7 and 5.6.9), at the
 * addresses of QEMU's microvm board. Class acpi-ged, made by micro boards.
 */
#ifndef DEVICES_PLATFORM_GED_H
#define DEVICES_PLATFORM_GED_H

#include "vmm/object.h"

#define GED_BASE	0xfea00000ull
#define GED_EVENT_SEL	(GED_BASE + 0x000) /* 4 bytes; reading clears it */
#define GED_SLEEP_CTL	(GED_BASE + 0x200) /* the FADT's SLEEP_CONTROL_REG, one byte */
#define GED_SLEEP_STS	(GED_BASE + 0x201) /* SLEEP_STATUS_REG */
#define GED_RESET	(GED_BASE + 0x202) /* RESET_REG */
#define GED_RESET_VALUE 0x42
#define GED_SLP_TYP_S5	5
#define GED_GSI		9 /* edge-triggered */
#define GED_EVENT_POWER \
	0x02 /* bit of GED_EVENT_SEL: power button; _EVT notifies \_SB.PWRB with 0x80 */

/** Press the power button of the board whose GED is @obj. Any thread. */
void ged_power_button(struct object *obj);

#endif
