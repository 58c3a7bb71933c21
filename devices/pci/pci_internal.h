/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of devices/pci share. All of it under the root bus's lock, but for msix_*() and pci_update_intx(). */
#ifndef DEVICES_PCI_INTERNAL_H
#define DEVICES_PCI_INTERNAL_H

#include "pci.h"

static inline void pci_lock(struct pci_bus *bus)
{
	pthread_mutex_lock(&bus->root->lock);
}

static inline void pci_unlock(struct pci_bus *bus)
{
	pthread_mutex_unlock(&bus->root->lock);
}

static inline bool pci_is_bridge(const struct pci_device *pdev)
{
	return pdev->secondary;
}

static inline unsigned int pci_bar_offset(unsigned int index)
{
	return PCI_BASE_ADDRESS_0 + 4 * index;
}

static inline unsigned int pci_nbars(const struct pci_device *pdev)
{
	return pci_is_bridge(pdev) ? 2 : PCI_MAX_BARS;
}

/* An address window of a bridge; base > limit: closed. */
struct pci_window {
	uint64_t base, limit; /* inclusive */
};

enum pci_window_kind {
	PCI_WINDOW_IO,
	PCI_WINDOW_MEM,
	PCI_WINDOW_PREFETCH,
	PCI_WINDOW_KINDS
};

struct pci_window pci_bridge_window(const struct pci_device *bridge, enum pci_window_kind kind);
void pci_bridge_set_window(struct pci_device *bridge, enum pci_window_kind kind,
			   struct pci_window window);

/** Map the BARs of @pdev, and of all behind it, to where its registers and the bridges above say. */
void pci_update_bars(struct pci_device *pdev);
/** Unmap the BARs, whatever the registers say. */
void pci_unmap_bars(struct pci_device *pdev);

/** The function at that address as the guest sees it, or NULL. */
struct pci_device *pci_find(struct pci_bus *root, uint8_t bus, uint8_t devfn);

/** The bus behind the root port of that id, or NULL. */
struct pci_bus *pci_bus_find(struct pci_bus *from, const char *id);

/** Recompute the INTx pin's line. Takes pdev->lock. */
void pci_update_intx(struct pci_device *pdev);

/* pci_msix.c */
void msix_config_written(struct pci_device *pdev);
void msix_reset(struct pci_device *pdev);
void msix_free(struct pci_device *pdev);
void msix_save(struct pci_device *pdev);
void msix_load(struct pci_device *pdev);
extern const struct state_table msix_entry_state;

#endif
