/* SPDX-License-Identifier: GPL-2.0-only */
/* The ICH9's LPC bridge at 0:1f.0 (class ICH9-LPC): ACPI registers, reset port, interrupt routes. Made by q35 boards. */
#ifndef DEVICES_PLATFORM_LPC_H
#define DEVICES_PLATFORM_LPC_H

#include "devices/pci/pci.h"
#include "vmm/object.h"

#define LPC_PMBASE \
	0x600 /* where firmware and, for direct boot, option x-pmbase put the ACPI registers */
#define LPC_SCI_GSI	9
#define LPC_APM_CNT	0xb2 /* the FADT's SMI_CMD, where there is one */
#define LPC_APM_ENABLE	2    /* the FADT's ACPI_ENABLE and ACPI_DISABLE */
#define LPC_APM_DISABLE 3
#define LPC_RESET_PORT	0xcf9 /* the FADT's RESET_REG */
#define LPC_RESET_VALUE 0x0e  /* RESET_VALUE: full reset */

/** Press the power button of the board whose LPC bridge is @obj. Any thread. */
void lpc_power_button(struct object *obj);

/**
 * struct pci_bus.intx_gsi, and what the DSDT's _PRT says (@pin 0: INTA): GSI 20 to 23 in turn for slots up to 24 and slot 30, GSI 16 to
 * 19 by the pin for the other slots.
 */
uint32_t lpc_intx_gsi(struct pci_bus *root, uint8_t slot, uint8_t pin);

#endif
