/* SPDX-License-Identifier: GPL-2.0-only */
/* Interrupts: pins of the interrupt controllers, KVM's or the board's, and message-signalled interrupts through eventfds (KVM_IRQFD). */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include <pthread.h>

#include "error.h"
#include "util.h"

struct vm;

#define IRQ_PINS    24	 /* of the IOAPIC; GSI n is pin n, ISA IRQ 0 goes to pin 2 */
#define IRQ_GSI_MAX 4096 /* KVM_MAX_IRQ_ROUTES */

/* An interrupt controller of the board, in the place of KVM's. All calls are under irq->lock. */
struct irq_chip {
	void (*set_pin)(void *opaque, uint32_t pin, bool level);
	/* An interrupt of this vector has ended whose pin was told to irq_watch_pin(). */
	void (*eoi)(void *opaque, uint8_t vector);
};

struct irq {
	struct vm *vm;
	pthread_mutex_t lock;	     /* a leaf: nothing else is taken under it */
	const struct irq_chip *chip; /* NULL: the pins are KVM's */
	void *chip_opaque;
	uint16_t asserted[IRQ_PINS]; /* lines that hold the pin high */
	/*
	 * Messages go to more than 255 local APICs: bits 11:5 of their address are bits 14:8 of the destination
	 * (KVM_FEATURE_MSI_EXT_DEST_ID). Set by the board, before there are vCPUs.
	 */
	bool ext_dest;
	struct kvm_irq_routing *routing;
	unsigned int msi_used; /* GSIs IRQ_PINS … in the bitmap */
	uint64_t msi_map[IRQ_GSI_MAX / 64];
};

int irq_init(struct vm *vm, struct hako_error *err);
void irq_free(struct vm *vm);
/**
 * The pins are those of KVM's PICs and IOAPIC. KVM has routes for them from the beginning, which are the same but for the PIT's: with @pit it is
 * told, others save the milliseconds that it may take.
 */
int irq_use_kvm(struct vm *vm, bool pit, struct hako_error *err);
/** The pins are those of the board's @chip, and KVM has local APICs only (KVM_CAP_SPLIT_IRQCHIP). NULL: no more. */
void irq_use_chip(struct vm *vm, const struct irq_chip *chip, void *opaque);
/** Send a message for @chip. True if a local APIC took it. Under irq->lock. */
bool irq_send(struct vm *vm, uint64_t address, uint32_t data);
/**
 * Have KVM leave the guest when an interrupt ends that this message to a level-triggered pin has brought: then irq_eoi() is called. Costs some
 * time if the message is another than before. Under irq->lock.
 */
int irq_watch_pin(struct vm *vm, uint32_t pin, uint64_t address, uint32_t data);
void irq_unwatch_pin(struct vm *vm, uint32_t pin);
/** KVM_EXIT_IOAPIC_EOI. vCPU threads. */
void irq_eoi(struct vm *vm, uint8_t vector);

/* One source of a level-triggered interrupt, active high. Several may share a pin: it is high as long as one of them is. */
struct irq_line {
	struct vm *vm; /* NULL: connected to nothing */
	uint32_t gsi;
	bool level;
};

void irq_line_init(struct irq_line *line, struct vm *vm, uint32_t gsi);
/** Any thread. */
void irq_line_set(struct irq_line *line, bool level);
/** A short pulse, for edge-triggered ISA interrupts. Any thread. */
void irq_line_pulse(struct irq_line *line);

/*
 * One MSI or MSI-X vector, raised by writing 1 to @fd: by a loop (loop_signal), by vhost, by anybody.
 * While the vector is masked, events stay in the eventfd's counter and are delivered at the unmasking.
 */
struct msi {
	struct vm *vm;
	int fd;	      /* eventfd, non-blocking; -1 before msi_init */
	uint32_t gsi; /* 0: none yet */
	uint64_t address;
	uint32_t data;
	bool armed; /* irqfd assigned */
};

int msi_init(struct msi *msi, struct vm *vm, struct hako_error *err);
void msi_free(struct msi *msi);
/** Set where the message goes. A GSI and its route are made at the first unmasking. vCPU threads under the device's lock. */
int msi_update(struct msi *msi, uint64_t address, uint32_t data, bool masked,
	       struct hako_error *err);
/** Raised while masked? */
bool msi_pending(const struct msi *msi);
/** Raise now. Any thread. */
void msi_raise(struct msi *msi);
/** Forget what was raised while masked (device reset). */
void msi_clear(struct msi *msi);

#endif
