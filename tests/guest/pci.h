/* SPDX-License-Identifier: GPL-2.0-only */
/* PCI configuration space, the devices found there, their BARs and MSI-X. */
#ifndef PCI_H
#define PCI_H

#include "guest.h"

#define PCI_MAX_DEVS 64

struct pci_bar {
	u64 addr, size;
	bool io, is64;
};

struct pci_dev {
	u16 bdf; /* bus << 8 | device << 3 | function */
	u16 vendor, device;
	u32 class; /* class, subclass, programming interface */
	u8 header;
	struct pci_bar bar[6];
	/* MSI-X: 0 vectors if there is none. */
	u16 msix_cap, msix_vectors;
	u64 msix_table, msix_pba;
};

extern struct pci_dev pci_devs[PCI_MAX_DEVS];
extern u32 pci_count;

/* Finds all devices once; gives bus numbers and addresses to those that have none. */
void pci_init(void);
struct pci_dev *pci_find(u16 vendor, u16 device, u32 nth);
/* By ports 0xcf8 and 0xcfc; size 1, 2 or 4. */
u32 pci_cf8_read(u16 bdf, u32 reg, u32 size);
void pci_cf8_write(u16 bdf, u32 reg, u32 size, u32 v);
/* By ports where they are there, else by ECAM. */
u32 pci_read(const struct pci_dev *d, u32 reg, u32 size);
void pci_write(const struct pci_dev *d, u32 reg, u32 size, u32 v);
/* Offset of the capability after `after` (0: the first) with that ID; 0 if there is none. */
u32 pci_cap(const struct pci_dev *d, u8 id, u32 after);
/* Entry `n` of the table sends `vector` to this CPU; the function's MSI-X is switched on. */
void pci_msix_route(const struct pci_dev *d, u32 n, u32 vector);
/* Base of ECAM by the ACPI table MCFG, 0 if there is none. */
u64 pci_ecam(void);

#endif
