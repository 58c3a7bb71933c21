/* SPDX-License-Identifier: GPL-2.0-only */
/* Between virtio.c and the transports. Device types use virtio.h. */
#ifndef VIRTIO_TRANSPORT_H
#define VIRTIO_TRANSPORT_H

#include "devices/pci/pci.h"
#include "virtio.h"

struct virtio_mmio {
	struct virtio_device *vdev;
	uint64_t base;
	uint64_t
		doorbells_set; /* bit n: queue n's doorbell is registered. Under the register lock. */
	/* A leaf: the interrupt status and the line that follows it change together. */
	pthread_mutex_t irq_lock;
	struct irq_line irq;
	/* Registers, under the register lock. Saved. */
	uint32_t device_features_sel, driver_features_sel, queue_sel;
};

extern const struct state_table virtio_mmio_state;

struct virtio_pci {
	struct pci_device pci;
	struct virtio_device *vdev;
	/*
	 * A leaf: what decides where interrupts go (MSI-X on or off, the vectors, the queues' notify_fd), the interrupt status and INTx.
	 * Taken under the register lock or under the root bus's.
	 */
	pthread_mutex_t irq_lock;
	bool msix_on;
	/* A leaf too: which queues' doorbells are to be registered, which are, and where the BAR is. */
	pthread_mutex_t doorbell_lock;
	uint64_t doorbells_wanted, doorbells_set; /* bit n: queue n */
	uint64_t bar_addr;			  /* PCI_BAR_UNMAPPED: nowhere */
	uint16_t cfg_cap; /* offset of the capability for access by configuration space */
	/* Registers, under the register lock. Saved. */
	uint32_t device_feature_select, driver_feature_select;
	uint16_t queue_select, config_msix_vector;
};

extern const struct state_table virtio_pci_state;

/** The machine is reset: the PCI function too. Not under the register lock. */
void virtio_pci_reset_function(struct virtio_device *vdev);

/* What the queues' registers of both transports have in common. */

/* The selected queue, or NULL. */
static inline struct virtqueue *virtio_queue_at(struct virtio_device *vdev, uint32_t index)
{
	return index < vdev->nqueues ? &vdev->vq[index] : NULL;
}

/* A ring's address comes in two halves. */
static inline void virtio_set_half(uint64_t *gpa, bool high, uint32_t value)
{
	*gpa = high ? (uint32_t)*gpa | (uint64_t)value << 32 : (*gpa >> 32) << 32 | value;
}

#endif
