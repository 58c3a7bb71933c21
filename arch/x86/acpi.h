/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ACPI tables of the x86 boards: a board describes itself in a struct acpi_config; RSDP, XSDT,
 * FADT, FACS, MADT, MCFG, SRAT, SLIT and DSDT are made from it. What they say of a released board version
 * never changes, so what is added here later must be off in a zeroed field.
 */
#ifndef ARCH_X86_ACPI_H
#define ARCH_X86_ACPI_H

#include "boot.h"

struct numa;

/* [base, base + size); size 0: none */
struct acpi_window {
	uint64_t base, size;
};

/* One virtio-mmio device; its GSI is level triggered, active high. */
struct acpi_mmio {
	uint64_t base;
	uint32_t size, gsi;
};

/* A serial port; port 0: there is none. */
struct acpi_com {
	uint16_t port;
	uint8_t irq;
};

struct acpi_config {
	const char *oem_table_id; /* names the board: up to 8 characters */

	const uint32_t *apic_id; /* of each vCPU */
	uint32_t ncpus;
	uint32_t lapic_base, ioapic_base;
	bool has_pic;	   /* two 8259s are there besides the APICs */
	bool has_pit;	   /* ISA IRQ 0 goes to GSI 2 */
	uint8_t sci;	   /* GSI, level triggered, active high; 0: none (hardware-reduced) */
	bool hw_reduced;   /* no PM1 and PM timer ports; sleep registers instead */
	bool power_button; /* in the PM1 ports or, hardware-reduced, as a device behind the GED */

	/* Ports; 0: none. PM1 event block is 4 bytes, control block 2, timer 4 (24 bits count). */
	uint16_t pm1_evt, pm1_cnt, pm_timer;
	uint16_t gpe0;
	uint8_t gpe0_len;

	/* Hardware-reduced: physical addresses of byte-wide registers, and the GED (0: none). */
	uint64_t sleep_control, sleep_status;
	uint64_t ged_base; /* a 32-bit selector register; reading clears it; bit 1: power button */
	uint32_t ged_gsi;  /* edge triggered */

	uint8_t s5_type;     /* SLP_TYP that powers off */
	uint16_t reset_port; /* or: */
	uint64_t reset_address;
	uint8_t reset_value;

	/* PCI, if ecam.size is not 0: bus 0 to 255, 1 MiB of configuration space each */
	struct acpi_window ecam;
	struct acpi_window pci_io[2], pci_mem32, pci_mem64;
	/* GSI of pin 0..3 (INTA..INTD) of a slot on bus 0 */
	uint32_t (*intx_gsi)(const struct acpi_config *config, uint8_t slot, uint8_t pin);
	void *opaque; /* for intx_gsi */

	const struct acpi_mmio *mmio; /* virtio-mmio */
	uint32_t nmmio;

	struct acpi_com com[4]; /* COM1 to COM4 */
	bool has_rtc, has_i8042;
	uint16_t fw_cfg_port, pvpanic_port; /* 0: none */

	const struct numa *numa; /* NULL: neither SRAT nor SLIT */
	uint64_t low_ram;	 /* with numa: bytes from address 0; the rest is from 4 GiB on */
};

struct acpi_tables {
	uint8_t rsdp[36];
	uint8_t *data; /* the tables, one after the other */
	size_t len;
};

/** Make tables that will lie at @gpa (64-byte aligned). The caller frees them. -EINVAL, -ENOMEM */
int acpi_build(const struct acpi_config *config, uint64_t gpa, struct acpi_tables *tables,
	       struct hako_error *err);
void acpi_free(struct acpi_tables *tables);

/**
 * Make the tables and put them into guest RAM: RSDP at BOOT_RSDP_GPA (returned in *@rsdp), the
 * others behind it or, when there are too many vCPUs for that, at the end of RAM below 4 GiB,
 * where @map then gets a range for them. Before boot_install(); again after each reset.
 */
int acpi_install(const struct acpi_config *config, struct memory *mem, struct e820 *map,
		 uint64_t *rsdp, struct hako_error *err);

/* acpi_dsdt.c: append the DSDT's AML, without its header. */
struct aml;
void acpi_dsdt(struct aml *a, const struct acpi_config *config);

#endif
