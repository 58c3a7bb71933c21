/* SPDX-License-Identifier: GPL-2.0-only */
/* The ACPI power management registers of an ICH9 (its datasheet, 13.8.3; ACPI 6.4, section 4.8). Part of the LPC bridge. */
#ifndef DEVICES_PLATFORM_ACPI_PM_H
#define DEVICES_PLATFORM_ACPI_PM_H

#include <pthread.h>

#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/loop.h"
#include "vmm/state.h"

/* Offsets from PMBASE, for the FADT. */
#define ACPI_PM1_EVT	   0x00 /* 4 bytes: status, enable */
#define ACPI_PM1_CNT	   0x04 /* 2 bytes */
#define ACPI_PM_TMR	   0x08
#define ACPI_PM_GPE0	   0x20 /* 16 bytes: status, enable */
#define ACPI_PM_GPE0_LEN   16
#define ACPI_PM_SMI_EN	   0x30
#define ACPI_PM_SIZE	   128
#define ACPI_PM_TMR_HZ	   3579545
#define ACPI_PM_SLP_TYP_S5 0 /* for \_S5: QEMU's value. The chip's own, 7, powers off as well. */

struct acpi_pm {
	struct vm *vm;
	pthread_mutex_t lock; /* register lock */
	struct irq_line sci;

	uint16_t pm1_sts, pm1_en, pm1_cnt;
	uint64_t gpe_sts, gpe_en;
	uint32_t smi_en;
	uint64_t ticks; /* of the PM timer at @epoch */

	bool sci_en_fixed; /* there is no SMI_CMD: ACPI mode always */
	bool tmr32;	   /* the timer has 32 bits instead of 24 */
	bool stopped;	   /* the timer, while the VM is paused */
	uint64_t epoch;	   /* clock_now() */
	uint64_t carry;	   /* ticks up to which TMR_STS has been seen to */
	bool timer_used;   /* the loop knows of it */
	struct loop_timer overflow;
	struct loop_msg rearm;
};

extern const struct io_ops
	acpi_pm_ops; /* for a region of ACPI_PM_SIZE, opaque the struct acpi_pm, under its lock */

void acpi_pm_init(struct acpi_pm *pm, struct vm *vm, uint32_t sci_gsi);
/** While the loops run. */
void acpi_pm_free(struct acpi_pm *pm);
void acpi_pm_reset(struct acpi_pm *pm);
/** The timer stands still in between. Not from a loop. */
void acpi_pm_pause(struct acpi_pm *pm);
void acpi_pm_resume(struct acpi_pm *pm);
/** Wire SCI to another pin. */
void acpi_pm_set_sci(struct acpi_pm *pm, uint32_t gsi);
/** What SMI_CMD does: switch ACPI mode on or off. */
void acpi_pm_enable(struct acpi_pm *pm, bool on);
/** Press the power button. Any thread. */
void acpi_pm_power_button(struct acpi_pm *pm);
/** Set the status bit of general-purpose event @gpe, 0 to 63. Any thread. */
void acpi_pm_gpe(struct acpi_pm *pm, unsigned int gpe);

extern const struct state_table acpi_pm_state;

#endif
