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

#define Q35_LOW_MAX 0xb0000000ull
#define Q35_LOW_CUT (2 * GiB)

static int q35_init(struct vm *vm, uint64_t ram_size, struct hako_error *err)
{
	return board_init(vm, ram_size, ram_size > Q35_LOW_MAX ? Q35_LOW_CUT : Q35_LOW_MAX, true,
			  err);
}

static int q35_devices(struct vm *vm, struct hako_error *err)
{
	static const char *const names[] = {NULL};

	return board_make_devices(vm, names, err);
}

static int q35_boot(struct vm *vm, bool fresh, struct hako_error *err)
{
	struct e820 map = {0};
	int r;

	r = board_e820(vm, &map, err);
	return r ?: board_boot(vm, &map, 0, fresh, err);
}

static const struct machine_ops q35_ops = {
	.init = q35_init,
	.devices = q35_devices,
	.boot = q35_boot,
	.reset = board_reset,
};

static const struct class q35_class = {
	.name = "q35-1.0",
	.alias = "q35",
	.help = "PCI Express, ACPI, the chipset that firmware and guests know (default)",
	.kind = CLASS_MACHINE,
	.size = sizeof(struct board),
	.ops = &q35_ops,
	.create = board_create,
	.destroy = board_destroy,
};
HAKO_CLASS(q35_class);
