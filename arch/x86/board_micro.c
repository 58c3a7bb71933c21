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

#include "devices/platform/ged.h"
#include "vmm/config.h"

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
	board_of(vm)->irqchip = BOARD_IRQCHIP_SPLIT;
	return board_init(vm, ram_size, MICRO_LOW_MAX, err);
}

static int micro_devices(struct vm *vm, struct hako_error *err)
{
	/* The keyboard controller is there for its reset line alone; ACPI does not show it. */
	static const char *const devices[] = {"acpi-ged", "i8042", "fw_cfg_io", NULL};
	const struct config_rtc *rtc = &vm->config->rtc_options;

	if (rtc->base || rtc->clock || rtc->driftfix)
		return error_set(err, -EINVAL,
				 "--rtc %s: board micro has no real-time clock, only kvmclock",
				 vm->config->rtc);
	return board_make_devices(vm, devices, err);
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

static int micro_powerdown(struct vm *vm)
{
	ged_power_button(board_find_device(vm, "acpi-ged"));
	return 0;
}

void micro_describe(struct acpi_config *acpi, struct acpi_mmio *mmio, uint32_t slots)
{
	*acpi = (struct acpi_config){
		.oem_table_id = "HAKOMICR",
		.hw_reduced = true,
		.power_button = true,
		.sleep_control = GED_SLEEP_CTL,
		.sleep_status = GED_SLEEP_STS,
		.ged_base = GED_EVENT_SEL,
		.ged_gsi = GED_GSI,
		.s5_type = GED_SLP_TYP_S5,
		.reset_address = GED_RESET,
		.reset_value = GED_RESET_VALUE,
		.fw_cfg_port = FW_CFG_PORT,
		.mmio = mmio,
		.nmmio = slots,
	};
	for (uint32_t i = 0; i < slots; i++)
		mmio[i] = (struct acpi_mmio){
			.base = MICRO_VIRTIO_BASE + i * MICRO_VIRTIO_SIZE,
			.size = MICRO_VIRTIO_SIZE,
			.gsi = virtio_gsi[i],
		};
}

static int micro_boot(struct vm *vm, bool fresh, struct hako_error *err)
{
	struct board_micro *b = container_of(board_of(vm), struct board_micro, board);
	struct acpi_mmio mmio[ARRAY_SIZE(virtio_gsi)];
	struct acpi_config acpi;
	struct e820 map = {0};
	uint64_t rsdp;
	int r;

	micro_describe(&acpi, mmio, b->virtio_slots);
	r = board_e820(vm, &map, err);
	if (!r)
		r = board_acpi(vm, &acpi, &map, &rsdp, err);
	return r ?: board_boot(vm, &map, rsdp, fresh, err);
}

static const struct machine_ops micro_ops = {
	.init = micro_init,
	.devices = micro_devices,
	.boot = micro_boot,
	.reset = board_reset,
	.mmio_slot = micro_mmio_slot,
	.powerdown = micro_powerdown,
};

static const struct state_field micro_fields[] = {
	STATE_FIELD_STRUCT(struct board, ioapic, &ioapic_state),
	STATE_END,
};

static const struct state_table micro_state = {
	.name = "micro",
	.version = 1,
	.min_version = 1,
	.fields = micro_fields,
};

static const struct class micro_class = {
	.name = "micro-1.0",
	.alias = "micro",
	.help = "virtio over MMIO, hardware-reduced ACPI, no PCI: the fastest start",
	.kind = CLASS_MACHINE,
	.size = sizeof(struct board_micro),
	.ops = &micro_ops,
	.state = &micro_state,
	.destroy = board_destroy,
};
HAKO_CLASS(micro_class);
