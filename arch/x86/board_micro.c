/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Board "micro": no PCI, no legacy timer; virtio over MMIO described in hardware-reduced ACPI. For the fastest start.
 *
 *   0                     RAM, up to 3 GiB
 *   0xfea00000            Generic Event Device, sleep and reset registers
 *   0xfeb00000 + n*0x200  virtio-mmio windows
 *   0xfec00000            IOAPIC
 *   4 GiB                 the rest of RAM
 */
#include "board.h"

#define MICRO_LOW_MAX	  (3 * GiB)
#define MICRO_VIRTIO_BASE 0xfeb00000ull
#define MICRO_VIRTIO_SIZE 0x200ull

/* IOAPIC pins that nothing else has: the upper eight first, then what ISA devices leave. */
static const uint8_t virtio_gsi[] = {16, 17, 18, 19, 20, 21, 22, 23, 5, 6, 7, 10, 11, 12, 14, 15};

struct board_micro {
	struct board board;
	uint32_t virtio_slots; /* in use */
};

static int micro_init(struct vm *vm, uint64_t ram_size, struct hako_error *err)
{
	return board_init(vm, ram_size, MICRO_LOW_MAX, false, err);
}

static int micro_devices(struct vm *vm, struct hako_error *err)
{
	static const char *const names[] = {NULL};

	return board_make_devices(vm, names, err);
}

static int micro_mmio_slot(struct vm *vm, uint64_t *base, uint32_t *gsi, struct hako_error *err)
{
	struct board_micro *b = container_of(board_of(vm), struct board_micro, board);

	if (b->virtio_slots == ARRAY_SIZE(virtio_gsi))
		return error_set(err, -ENOSPC, "board micro has room for %zu virtio devices",
				 ARRAY_SIZE(virtio_gsi));
	*base = MICRO_VIRTIO_BASE + b->virtio_slots * MICRO_VIRTIO_SIZE;
	*gsi = virtio_gsi[b->virtio_slots++];
	return 0;
}

static int micro_boot(struct vm *vm, bool fresh, struct hako_error *err)
{
	struct e820 map = {0};
	int r;

	r = board_e820(vm, &map, err);
	return r ?: board_boot(vm, &map, 0, fresh, err);
}

static const struct machine_ops micro_ops = {
	.init = micro_init,
	.devices = micro_devices,
	.boot = micro_boot,
	.reset = board_reset,
	.mmio_slot = micro_mmio_slot,
};

static const struct class micro_class = {
	.name = "micro-1.0",
	.alias = "micro",
	.help = "virtio over MMIO, hardware-reduced ACPI, no PCI: the fastest start",
	.kind = CLASS_MACHINE,
	.size = sizeof(struct board_micro),
	.ops = &micro_ops,
	.create = board_create,
	.destroy = board_destroy,
};
HAKO_CLASS(micro_class);
