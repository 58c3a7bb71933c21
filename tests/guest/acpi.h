/* SPDX-License-Identifier: GPL-2.0-only */
/* ACPI tables as the guest finds them in memory. */
#ifndef ACPI_H
#define ACPI_H

#include "guest.h"

/* The first RSDP in 0xe0000-0xfffff or the first KiB of the EBDA, or as PVH told; NULL if there is none. */
u8 *acpi_rsdp(void);
/* A table listed in the XSDT or RSDT, or the DSDT; NULL if it is not there. Not checked. */
u8 *acpi_table(const char signature[4]);
/* Sum of the bytes, 0 in a good table. */
u8 acpi_sum(const u8 *p, u32 n);
/* What _CRS in the DSDT says of the device with registers at base: its GSI, and whether it is level; -1. */
s64 acpi_mmio_irq(u32 base, bool *level);
/* SLP_TYPa of \_S5, -1 if there is none. */
int acpi_s5(void);
extern u64 acpi_rsdp_hint;

#endif
