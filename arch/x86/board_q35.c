/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Board "q35": PCI Express behind Intel's MCH and ICH9, as firmware and guests know it from QEMU.
 *
 *   0           RAM, up to 2.75 GiB, or 2 GiB if there is more, so that the rest is aligned to 1 GiB
 *   0xb0000000  PCI Express configuration space (ECAM), 256 MiB
 *   0xc0000000  PCI memory window, up to the IOAPIC
 *   0xfec00000  IOAPIC
 *   4 GiB       the rest of RAM, and behind it the 64-bit PCI window
 */
#include "board.h"

#include "devices/pci/pci.h"
#include "devices/platform/acpi_pm.h"
#include "devices/platform/lpc.h"
#include "devices/platform/rtc.h"
#include "vmm/config.h"

#define Q35_LOW_MAX	0xb0000000ull
#define Q35_LOW_CUT	(2 * GiB)
#define Q35_ECAM	0xb0000000ull
#define Q35_ECAM_SIZE	(256 * MiB)
#define Q35_MMIO32	0xc0000000ull
#define Q35_IO		0x1000ull
#define Q35_MMIO64_SIZE (64 * GiB)

static int q35_init(struct vm *vm, uint64_t ram_size, struct hako_error *err)
{
	struct board *b = board_of(vm);
	struct pci_bus *root;
	int r;

	r = board_init(vm, ram_size, ram_size > Q35_LOW_MAX ? Q35_LOW_CUT : Q35_LOW_MAX, err);
	if (!r)
		r = pci_root_new(vm, 0, &root, err);
	if (r)
		return r;
	root->intx_gsi = lpc_intx_gsi;
	root->io_base = Q35_IO;
	root->io_size = 0x10000 - Q35_IO;
	root->mmio32_base = Q35_MMIO32;
	root->mmio32_size = BOARD_IOAPIC_BASE - Q35_MMIO32;
	root->mmio64_base = ALIGN_UP(BOARD_HIGH_RAM + b->high_ram, GiB);
	if (root->mmio64_base < b->address_limit)
		root->mmio64_size = MIN(b->address_limit - root->mmio64_base, Q35_MMIO64_SIZE);
	return 0;
}

/* --rtc has QEMU's names of old; the device's are those of QEMU's device. */
static int make_rtc(struct vm *vm, struct hako_error *err)
{
	const struct config_rtc *o = &vm->config->rtc_options;
	struct keyvals kv = {0};
	int r = 0;

	if (o->base)
		r = keyvals_add(&kv, "base", o->base);
	if (!r && o->clock)
		r = keyvals_add(&kv, "clock", o->clock);
	if (!r && o->driftfix && strcmp(o->driftfix, "none") != 0)
		r = strcmp(o->driftfix, "slew") == 0
			    ? keyvals_add(&kv, "lost_tick_policy", "slew")
			    : error_set(err, -EINVAL, "driftfix=%s: none or slew expected",
					o->driftfix);
	if (!r)
		r = object_new(vm, class_find(CLASS_DEVICE, "mc146818rtc"), &kv, NULL, err);
	keyvals_free(&kv);
	if (r)
		error_prefix(err, "--rtc %s", vm->config->rtc);
	return r;
}

static int q35_devices(struct vm *vm, struct hako_error *err)
{
	static const char *const devices[] = {
		"mch,x-ecam=0xb0000000",
		"ICH9-LPC,x-pmbase=0x600,x-acpi-mode=on",
		"i8042",
		"port92",
		"fw_cfg_io",
		NULL,
	};
	struct board *b = board_of(vm);
	int r = make_rtc(vm, err) ?: board_make_devices(vm, devices, err);

	if (!r)
		rtc_set_memory(board_find_device(vm, "mc146818rtc"), b->low_ram, b->high_ram);
	return r;
}

static int q35_powerdown(struct vm *vm)
{
	lpc_power_button(board_find_device(vm, "ICH9-LPC"));
	return 0;
}

static uint32_t intx_gsi(const struct acpi_config *config, uint8_t slot, uint8_t pin)
{
	return lpc_intx_gsi(config->opaque, slot, pin);
}

void q35_describe(struct acpi_config *acpi, struct pci_bus *root, bool has_pic, bool has_pit)
{
	*acpi = (struct acpi_config){
		.oem_table_id = "HAKOQ35",
		.has_pic = has_pic,
		.has_pit = has_pit,
		.sci = LPC_SCI_GSI,
		.power_button = true,
		.pm1_evt = LPC_PMBASE + ACPI_PM1_EVT,
		.pm1_cnt = LPC_PMBASE + ACPI_PM1_CNT,
		.pm_timer = LPC_PMBASE + ACPI_PM_TMR,
		.gpe0 = LPC_PMBASE + ACPI_PM_GPE0,
		.gpe0_len = ACPI_PM_GPE0_LEN,
		.s5_type = ACPI_PM_SLP_TYP_S5,
		.reset_port = LPC_RESET_PORT,
		.reset_value = LPC_RESET_VALUE,
		/*
		 * Of the buses only those that are there: Linux looks for peers of the root bus
		 * by 32 accesses to every other bus that MCFG says there may be.
		 */
		.ecam = {Q35_ECAM, MIN(pci_bus_count(root) * MiB, Q35_ECAM_SIZE)},
		.pci_io = {{0, 0xcf8}, {0xd00, 0xf300}},
		.pci_mem32 = {root->mmio32_base, root->mmio32_size},
		.pci_mem64 = {root->mmio64_base, root->mmio64_size},
		.intx_gsi = intx_gsi,
		.opaque = root,
		.has_rtc = true,
		.has_i8042 = true,
		.fw_cfg_port = FW_CFG_PORT,
	};
}

static int q35_boot(struct vm *vm, bool fresh, struct hako_error *err)
{
	struct board *b = board_of(vm);
	struct acpi_config acpi;
	struct e820 map = {0};
	uint64_t rsdp;
	int r;

	q35_describe(&acpi, vm->pci, b->irqchip == BOARD_IRQCHIP_KVM, b->has_pit);
	r = pci_assign(vm->pci, err);
	if (!r)
		r = board_e820(vm, &map, err);
	if (!r && e820_add(&map, Q35_ECAM, Q35_ECAM_SIZE, 2))
		r = error_set(err, -ENOSPC, "memory map");
	if (!r)
		r = board_acpi(vm, &acpi, &map, &rsdp, err);
	return r ?: board_boot(vm, &map, rsdp, fresh, err);
}

static void q35_destroy(struct object *obj)
{
	if (obj->vm->pci)
		pci_root_free(obj->vm->pci);
	obj->vm->pci = NULL;
	board_destroy(obj);
}

static const struct machine_ops q35_ops = {
	.init = q35_init,
	.devices = q35_devices,
	.boot = q35_boot,
	.reset = board_reset,
	.powerdown = q35_powerdown,
};

static const char *const irqchip_names[] = {
	[BOARD_IRQCHIP_KVM] = "on",
	[BOARD_IRQCHIP_SPLIT] = "split",
	NULL,
};

static const struct option q35_options[] = {
	OPT_ENUM("kernel-irqchip", struct board, irqchip, "on", irqchip_names,
		 "interrupt controllers in KVM: all, or local APICs only, without PIC and PIT"),
	OPT_END,
};

static const struct class q35_class = {
	.name = "q35-1.0",
	.alias = "q35",
	.help = "PCI Express, ACPI, the chipset that firmware and guests know (default)",
	.kind = CLASS_MACHINE,
	.size = sizeof(struct board),
	.options = q35_options,
	.ops = &q35_ops,
	.destroy = q35_destroy,
};
HAKO_CLASS(q35_class);
