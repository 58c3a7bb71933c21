/* SPDX-License-Identifier: GPL-2.0-only */
/* What the x86 boards share: interrupt controllers, the RAM layout, direct boot. */
#ifndef ARCH_X86_BOARD_H
#define ARCH_X86_BOARD_H

#include <linux/kvm.h>

#include "acpi.h"
#include "boot.h"
#include "ioapic.h"
#include "vmm/machine.h"
#include "vmm/vm.h"

#define BOARD_IOAPIC_BASE 0xfec00000ull
#define BOARD_LAPIC_BASE  0xfee00000ull
#define FW_CFG_PORT	  0x510
#define BOARD_HIGH_RAM	  0x100000000ull

/* Where the interrupt controllers are; the local APICs are always KVM's. Also the type of QEMU's machine option kernel-irqchip. */
enum board_irqchip {
	BOARD_IRQCHIP_KVM,   /* PICs and IOAPIC too, and the PIT where the board has one */
	BOARD_IRQCHIP_SPLIT, /* IOAPIC in this program; no PICs, no PIT */
};

struct board {
	struct machine machine;
	struct boot_source *boot;
	uint64_t low_ram, high_ram; /* bytes below the hole, bytes from 4 GiB on */
	uint64_t address_limit;	    /* end of what the guest can address */
	enum board_irqchip irqchip;
	bool has_pit;
	/* KVM's, at power-on: both PICs, IOAPIC; PIT. */
	struct kvm_irqchip chip[3];
	struct kvm_pit_state2 pit;
	struct ioapic ioapic; /* ours, under irq->lock */
};

static inline struct board *board_of(struct vm *vm)
{
	return container_of(vm->machine, struct board, machine);
}

/** Open the kernel; RAM up to @low_max below the hole and the rest from 4 GiB on; interrupt controllers as board->irqchip says. */
int board_init(struct vm *vm, uint64_t ram_size, uint64_t low_max, struct hako_error *err);
/** Make the board's own devices, each given as "CLASS,option=…" (NULL-terminated), in order. */
int board_make_devices(struct vm *vm, const char *const *devices, struct hako_error *err);
/** The first device of that class, or NULL. */
struct object *board_find_device(struct vm *vm, const char *class);
/** Complete @config with what all boards have in common, and write the tables into guest RAM. */
int board_acpi(struct vm *vm, struct acpi_config *config, struct e820 *map, uint64_t *rsdp,
	       struct hako_error *err);
/** Load the kernel with @rsdp and @map, and set all vCPUs to where they start. */
int board_boot(struct vm *vm, const struct e820 *map, uint64_t rsdp, bool fresh,
	       struct hako_error *err);
/** RAM and what every board reserves, for the E820 map. */
int board_e820(struct vm *vm, struct e820 *map, struct hako_error *err);
/** Interrupt controllers back to power-on: struct machine_ops's reset. */
int board_reset(struct vm *vm, struct hako_error *err);
/** class.destroy of boards. */
void board_destroy(struct object *obj);

/*
 * What a board's ACPI tables say of itself; vCPUs and what the user added come from board_acpi(). Apart
 * so that tests can hold them to what they were.
 */
struct pci_bus;
void q35_describe(struct acpi_config *acpi, struct pci_bus *root, bool has_pic, bool has_pit);
/** @mmio: room for @slots virtio windows. */
void micro_describe(struct acpi_config *acpi, struct acpi_mmio *mmio, uint32_t slots);

#endif
