/* SPDX-License-Identifier: GPL-2.0-only */
/* The DSDT: devices that nothing else announces. */
#include <stdio.h>

#include "acpi.h"
#include "aml.h"

#define STA_PRESENT_NOT_SHOWN 0x0b
#define STA_PRESENT	      0x0f

#define PCI_SLOTS 32
#define PCI_PINS  4

/*
 * Of _OSC's control field (PCI Firmware Specification 3.2, 4.5.1) the guest may have: native hotplug,
 * PME, AER, the capability structure.
 */
#define OSC_GRANTED 0x1d
#define OSC_UUID    "33db4d5b-1ff7-401c-9657-7441c03dd766"

#define GED_POWER_BUTTON 0x02

/* --- ISA devices ----------------------------------------------------------------------------- */

static void serial(struct aml *a, unsigned int n, const struct acpi_com *com)
{
	char name[] = "COM1";

	name[3] += n;
	aml_open_device(a, name);
	aml_name_eisaid(a, "_HID", "PNP0501");
	aml_name_integer(a, "_UID", n + 1);
	aml_name_integer(a, "_STA", STA_PRESENT);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_io(a, com->port, 8, 8);
	aml_res_isa_irq(a, com->irq);
	aml_close(a);
	aml_close(a);
}

static void rtc(struct aml *a)
{
	aml_open_device(a, "RTC");
	aml_name_eisaid(a, "_HID", "PNP0B00");
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_io(a, 0x70, 1, 2);
	aml_res_isa_irq(a, 8);
	aml_close(a);
	aml_close(a);
}

static void keyboard(struct aml *a)
{
	aml_open_device(a, "KBD");
	aml_name_eisaid(a, "_HID", "PNP0303");
	aml_name_integer(a, "_STA", STA_PRESENT);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_io(a, 0x60, 1, 1);
	aml_res_io(a, 0x64, 1, 1);
	aml_res_isa_irq(a, 1);
	aml_close(a);
	aml_close(a);
}

/* The controller's second port, on which nothing is plugged in: Linux warns where it is not mentioned. */
static void mouse_port(struct aml *a)
{
	aml_open_device(a, "MOU");
	aml_name_eisaid(a, "_HID", "PNP0F13");
	aml_name_integer(a, "_STA", STA_PRESENT);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_isa_irq(a, 12);
	aml_close(a);
	aml_close(a);
}

/* A paravirtual device that is nothing but ports. */
static void ports(struct aml *a, const char *name, const char *hid, unsigned int sta, uint16_t port,
		  uint8_t len)
{
	aml_open_device(a, name);
	aml_name_string(a, "_HID", hid);
	aml_name_integer(a, "_STA", sta);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_io(a, port, 1, len);
	aml_close(a);
	aml_close(a);
}

static void isa_devices(struct aml *a, const struct acpi_config *c)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(c->com); i++) {
		if (c->com[i].port)
			serial(a, i, &c->com[i]);
	}
	if (c->has_rtc)
		rtc(a);
	if (c->has_i8042) {
		keyboard(a);
		mouse_port(a);
	}
	if (c->pvpanic_port)
		ports(a, "PEVT", "QEMU0001", STA_PRESENT, c->pvpanic_port, 1);
}

/* --- PCI ------------------------------------------------------------------------------------- */

static void host_bridge_resources(struct aml *a, const struct acpi_config *c)
{
	uint64_t buses = MIN(c->ecam.size / MiB, 256);

	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_bus_window(a, 0, buses - 1);
	aml_res_io(a, 0xcf8, 1, 8);
	for (unsigned int i = 0; i < ARRAY_SIZE(c->pci_io); i++) {
		const struct acpi_window *w = &c->pci_io[i];

		if (w->size)
			aml_res_io_window(a, w->base, w->base + w->size - 1);
	}
	if (c->pci_mem32.size)
		aml_res_memory32_window(a, c->pci_mem32.base,
					c->pci_mem32.base + c->pci_mem32.size - 1);
	if (c->pci_mem64.size)
		aml_res_memory64_window(a, c->pci_mem64.base,
					c->pci_mem64.base + c->pci_mem64.size - 1, true);
	aml_close(a);
}

/* _PRT, ACPI 6.5, 6.2.13: address with any function, pin, no link device, GSI. */
static void interrupt_routing(struct aml *a, const struct acpi_config *c)
{
	aml_name(a, "_PRT");
	aml_open_package(a, PCI_SLOTS * PCI_PINS);
	for (unsigned int slot = 0; slot < PCI_SLOTS; slot++) {
		for (unsigned int pin = 0; pin < PCI_PINS; pin++) {
			aml_open_package(a, 4);
			aml_integer(a, slot << 16 | 0xffff);
			aml_integer(a, pin);
			aml_integer(a, 0);
			aml_integer(a, c->intx_gsi(c, slot, pin));
			aml_close(a);
		}
	}
	aml_close(a);
}

/* CDW1 |= @bits */
static void osc_error(struct aml *a, unsigned int bits)
{
	aml_op(a, AML_OR);
	aml_path(a, "CDW1");
	aml_integer(a, bits);
	aml_path(a, "CDW1");
}

/* If (Not (@a == @b)): the caller writes both, and what is to be done. */
static void open_if_not_equal(struct aml *a)
{
	aml_open_if(a);
	aml_op(a, AML_LNOT);
	aml_op(a, AML_LEQUAL);
}

/* _OSC, 6.2.11: Arg0 UUID, Arg1 revision, Arg2 count, Arg3 the double words. */
static void operating_system_capabilities(struct aml *a)
{
	aml_open_method(a, "_OSC", 4, true);
	aml_dword_field_of_arg(a, 3, 0, "CDW1");

	aml_open_if(a);
	aml_op(a, AML_LEQUAL);
	aml_arg(a, 0);
	aml_uuid(a, OSC_UUID);
	aml_dword_field_of_arg(a, 3, 8, "CDW3");
	aml_op(a, AML_AND);
	aml_path(a, "CDW3");
	aml_integer(a, OSC_GRANTED);
	aml_local(a, 0);
	open_if_not_equal(a);
	aml_arg(a, 1);
	aml_op(a, AML_ONE);
	osc_error(a, 0x08); /* unknown revision */
	aml_close(a);
	open_if_not_equal(a);
	aml_path(a, "CDW3");
	aml_local(a, 0);
	osc_error(a, 0x10); /* capabilities masked */
	aml_close(a);
	aml_op(a, AML_STORE);
	aml_local(a, 0);
	aml_path(a, "CDW3");
	aml_close(a);

	aml_open_else(a);
	osc_error(a, 0x04); /* unknown UUID */
	aml_close(a);

	aml_op(a, AML_RETURN);
	aml_arg(a, 3);
	aml_close(a);
}

static void pci_host(struct aml *a, const struct acpi_config *c)
{
	aml_open_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_integer(a, "_SEG", 0);
	aml_name_integer(a, "_BBN", 0);
	aml_name_integer(a, "_UID", 0);
	host_bridge_resources(a, c);
	interrupt_routing(a, c);
	operating_system_capabilities(a);

	/* The LPC bridge, 00:1f.0. */
	aml_open_device(a, "LPC");
	aml_name_integer(a, "_ADR", 0x1f0000);
	isa_devices(a, c);
	aml_close(a);
	aml_close(a);

	/*
	 * The PCI Firmware Specification, 4.1.2, wants the ECAM among the motherboard's
	 * resources.
	 */
	aml_open_device(a, "ECAM");
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_integer(a, "_UID", 1);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_memory64(a, c->ecam.base, c->ecam.size);
	aml_close(a);
	aml_close(a);
}

/* --- without PCI ----------------------------------------------------------------------------- */

static void virtio_mmio(struct aml *a, const struct acpi_mmio *mmio, unsigned int n)
{
	char name[16];

	snprintf(name, sizeof(name), "VR%02X", n & 0xff);
	aml_open_device(a, name);
	aml_name_string(a, "_HID", "LNRO0005");
	aml_name_integer(a, "_UID", n);
	aml_name_integer(a, "_CCA", 1);
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_memory32(a, mmio->base, mmio->size);
	aml_res_interrupt(a, mmio->gsi, true);
	aml_close(a);
	aml_close(a);
}

/*
 * The Generic Event Device, ACPI 6.5, 5.6.9.2: its interrupt runs _EVT, which asks the selector
 * what happened.
 */
static void event_device(struct aml *a, const struct acpi_config *c)
{
	aml_open_device(a, "GED");
	aml_name_string(a, "_HID", "ACPI0013");
	aml_name_string(a, "_UID", "GED");
	aml_name(a, "_CRS");
	aml_open_resources(a);
	aml_res_interrupt(a, c->ged_gsi, true);
	aml_close(a);
	aml_region(a, "EREG", AML_SYSTEM_MEMORY, c->ged_base, 4);
	aml_open_field(a, "EREG", AML_DWORD_ACCESS, AML_WRITE_ZEROS);
	aml_field(a, "ESEL", 32);
	aml_close(a);
	aml_open_method(a, "_EVT", 1, true);
	aml_op(a, AML_STORE);
	aml_path(a, "ESEL");
	aml_local(a, 0);
	if (c->power_button) {
		aml_open_if(a);
		aml_op(a, AML_AND);
		aml_local(a, 0);
		aml_integer(a, GED_POWER_BUTTON);
		aml_integer(a, 0); /* no target */
		aml_op(a, AML_NOTIFY);
		aml_path(a, "PWRB");
		aml_integer(a, 0x80);
		aml_close(a);
	}
	aml_close(a);
	aml_close(a);
}

static void power_button(struct aml *a)
{
	aml_open_device(a, "PWRB");
	aml_name_eisaid(a, "_HID", "PNP0C0C");
	aml_name_integer(a, "_UID", 0);
	aml_close(a);
}

void acpi_dsdt(struct aml *a, const struct acpi_config *c)
{
	aml_open_scope(a, "\\_SB");
	if (c->ecam.size)
		pci_host(a, c);
	else
		isa_devices(a, c);
	if (c->fw_cfg_port)
		ports(a, "FWCF", "QEMU0002", STA_PRESENT_NOT_SHOWN, c->fw_cfg_port, 12);
	/* Before the GED, whose method names it. */
	if (c->hw_reduced && c->power_button && c->ged_base)
		power_button(a);
	if (c->hw_reduced && c->ged_base)
		event_device(a, c);
	for (uint32_t i = 0; i < c->nmmio; i++)
		virtio_mmio(a, &c->mmio[i], i);
	aml_close(a);

	aml_name(a, "\\_S5");
	aml_open_package(a, 4);
	aml_integer(a, c->s5_type);
	aml_integer(a, c->s5_type);
	aml_integer(a, 0);
	aml_integer(a, 0);
	aml_close(a);
}
