/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * An I/O APIC: Intel 82093AA with 24 pins, and the EOI register of its successors (version 0x20). The chip alone: it knows neither
 * KVM nor the buses. Where KVM has the local APICs only (KVM_CAP_SPLIT_IRQCHIP) a board connects it between the pins and these.
 *
 * Nothing here takes a lock: all calls for one chip are serialised by its owner.
 */
#ifndef ARCH_X86_IOAPIC_H
#define ARCH_X86_IOAPIC_H

#include "vmm/bus.h"
#include "vmm/state.h"

#define IOAPIC_PINS 24
#define IOAPIC_SIZE 0x1000 /* of its window */

struct ioapic_ops {
	/* Send this interrupt message. True if a local APIC took it. */
	bool (*send)(void *opaque, uint64_t address, uint32_t data);
	/*
	 * From now on, the end of an interrupt that this message brought is to be told with ioapic_eoi(): the pin is level-triggered.
	 * One message for each pin, the last counts.
	 */
	void (*watch)(void *opaque, uint32_t pin, uint64_t address, uint32_t data);
	/* The pin's needs not be told any more. */
	void (*unwatch)(void *opaque, uint32_t pin);
};

struct ioapic {
	const struct ioapic_ops *ops;
	void *opaque;
	uint32_t level;	  /* bit n: pin n is high */
	uint32_t watched; /* bit n: of pin n */
	uint32_t missed;  /* bit n: pin n, edge-triggered, rose while it was masked */
	uint8_t select, id;
	uint64_t redirection[IOAPIC_PINS];
};

/** In the state after power-on, all pins low. */
void ioapic_init(struct ioapic *io, const struct ioapic_ops *ops, void *opaque);
/** All entries masked; the pins stay what they are. */
void ioapic_reset(struct ioapic *io);
void ioapic_set_pin(struct ioapic *io, uint32_t pin, bool level);
/** A local APIC has ended an interrupt of this vector, and told all I/O APICs. */
void ioapic_eoi(struct ioapic *io, uint8_t vector);

/** The window; opaque is the struct ioapic. */
extern const struct io_ops ioapic_io_ops;

/** Loading sends what level-triggered pins that are high have to say: load it after the devices, whose pins they are. */
extern const struct state_table ioapic_state;

#endif
