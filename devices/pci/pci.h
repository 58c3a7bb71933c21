/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * PCI and PCI Express: buses, functions, configuration space, BARs, MSI-X, INTx. (PCI Local Bus 3.0, PCI Express Base 4.0.)
 *
 * All configuration accesses of a VM are serialised by the root bus's lock (recursive, as callbacks under it may access configuration
 * space again). Lock order: root bus, then a device's register lock, then pdev->lock, which is a leaf. Whoever holds a register lock
 * may raise interrupts, but not access configuration space. BAR accesses take the region's lock, if any.
 */
#ifndef DEVICES_PCI_PCI_H
#define DEVICES_PCI_PCI_H

#include <linux/pci_regs.h>
#include <pthread.h>

#include "vmm/bus.h"
#include "vmm/irq.h"
#include "vmm/object.h"

#define PCI_CONFIG_SIZE	 4096
#define PCI_DEVFN(d, f)	 (((d) << 3) | (f))
#define PCI_SLOT_OF(fn)	 (((fn) >> 3) & 0x1f)
#define PCI_FUNC_OF(fn)	 ((fn)&7)
#define PCI_MAX_BARS	 6
#define PCI_BAR_UNMAPPED UINT64_MAX

#define PCI_HEADER_MULTIFUNCTION 0x80

#define PCI_VENDOR_INTEL  0x8086
#define PCI_VENDOR_REDHAT 0x1b36

/* Class, subclass, interface. */
#define PCI_CLASS_HOST_BRIDGE 0x060000
#define PCI_CLASS_ISA_BRIDGE  0x060100
#define PCI_CLASS_PCI_BRIDGE  0x060400

#define PCI_ROOT_ADDRESS_PORT 0xcf8
#define PCI_ROOT_DATA_PORT    0xcfc
#define PCI_RESET_PORT	      0xcf9

/* Of port 0xcf8; the others are reserved, read-only zeros. */
#define PCI_CONFIG_ADDRESS_BITS 0x80fffffcu

struct pci_device;

struct pci_bar {
	uint64_t size; /* power of two, 0: none */
	bool io, is64, prefetch;
	bool refused;		 /* overlaps another region; tried again when something moves */
	uint64_t addr;		 /* where it is mapped now; PCI_BAR_UNMAPPED: not mapped */
	struct io_region region; /* base and size are the bar's business */
};

/* A table entry as the guest sees it (PCI 3.0, 6.8.2), and its pending bit at the time of saving. */
struct msix_entry {
	uint32_t word[4];
	uint8_t pending;
};

/* Under pdev->lock. */
struct msix {
	uint32_t nvectors; /* 0: none */
	uint16_t cap;	   /* offset of the capability */
	uint8_t bar;
	uint32_t pba_offset;
	bool enabled, masked;	  /* MSI-X Enable, Function Mask */
	struct msix_entry *entry; /* one for each. Saved. */
	struct msi *msi;	  /* one for each; the eventfd is made when it is first asked for */
};

/* First member of every PCI function. */
struct pci_device {
	struct object obj;
	struct pci_bus *bus;
	int16_t devfn; /* -1 before pci_device_init: choose one */
	bool express;
	uint8_t config[PCI_CONFIG_SIZE];	       /* as the guest reads it. Saved. */
	uint8_t wmask[PCI_CONFIG_SIZE];		       /* bits that the guest can write */
	uint8_t w1cmask[PCI_CONFIG_SIZE];	       /* bits that writing 1 clears */
	uint8_t saved_config[PCI_CONFIG_SIZE];	       /* config in state tables */
	uint16_t cap_next, ext_cap_next, ext_cap_last; /* where the next capability goes */
	struct pci_bar bar[PCI_MAX_BARS];
	struct msix msix;
	pthread_mutex_t lock; /* leaf: MSI-X and INTx */
	struct irq_line intx;
	uint8_t intx_level; /* what the device wants; atomic. Saved. */
	bool intx_disabled; /* Interrupt Disable */
	struct list link;   /* in bus->devices */
	/* After the guest wrote [offset, offset+len) of config; called under the root bus's lock. Or NULL. */
	void (*config_written)(struct pci_device *pdev, uint32_t offset, uint32_t len);
	/* Before the guest reads; or NULL. */
	void (*config_reading)(struct pci_device *pdev, uint32_t offset, uint32_t len);
	/*
	 * BARs were mapped, moved or unmapped, for whatever reason: bar[].addr is new (the place to move doorbells). Under the root
	 * bus's lock. Or NULL.
	 */
	void (*bars_moved)(struct pci_device *pdev);
	/*
	 * The bridge above resets its bus: the function goes to the state after power-on, as class.reset does, but while vCPUs run. Under the
	 * root bus's lock. NULL: pci_device_reset() is all there is to it.
	 */
	void (*hot_reset)(struct pci_device *pdev);
	/* Of a bridge or root port: the bus behind it, and a call when something is plugged there or unplugged. */
	struct pci_bus *secondary;
	void (*link_changed)(struct pci_device *pdev);
};

struct pci_bus {
	struct vm *vm;
	struct pci_device *bridge; /* NULL: root */
	struct pci_bus *root;
	struct list devices;
	pthread_mutex_t lock; /* of the root only */
	/* root only: CF8, the ECAM window's base (0: off), the windows that pci_assign() fills */
	uint32_t config_address;
	uint64_t ecam_base, ecam_size;
	/* Byte accesses to port 0xcf9, which lies within 0xcf8's doubleword; NULL: nothing there */
	const struct io_ops *reset_port;
	void *reset_port_opaque;
	uint64_t io_base, io_size, mmio32_base, mmio32_size, mmio64_base, mmio64_size;
	/* GSI of INTA..INTD (0..3) of a slot on the root bus; swizzled through bridges */
	uint32_t (*intx_gsi)(struct pci_bus *root, uint8_t slot, uint8_t pin);
};

/** The root bus: ports 0xcf8/0xcfc, and ECAM at @ecam_base (256 MiB for 256 buses) unless it is 0. */
int pci_root_new(struct vm *vm, uint64_t ecam_base, struct pci_bus **bus, struct hako_error *err);
void pci_root_free(struct pci_bus *bus);
/** Move ECAM: @size 256, 128 or 64 MiB; 0: off. Where it overlaps other regions it wins. */
int pci_root_set_ecam(struct pci_bus *root, uint64_t base, uint64_t size, struct hako_error *err);

/**
 * Set up @pdev (zeroed but for obj) as a type 0 function on @bus. @devfn -1: the first free slot; -EBUSY if it is taken, -ENOSPC if all are.
 */
int pci_device_init(struct pci_device *pdev, struct pci_bus *bus, int devfn, uint16_t vendor,
		    uint16_t device, uint32_t class_code, uint8_t revision, struct hako_error *err);
/** Parse "addr" ("05", "05.1") and "bus" (id of a root port, "pcie.0") options into where to plug. */
int pci_parse_addr(struct vm *vm, const char *bus, const char *addr, struct pci_bus **where,
		   int *devfn, struct hako_error *err);
void pci_device_free(struct pci_device *pdev);

/** Declare a BAR; @region says name, ops, opaque, lock. */
int pci_add_bar(struct pci_device *pdev, unsigned int index, uint64_t size, bool io, bool is64,
		bool prefetch, const struct io_region *region);
/** Add a capability of @len bytes (header included) and return its offset; the guest can write nothing of it until wmask says so. */
int pci_add_capability(struct pci_device *pdev, uint8_t id, uint8_t len);
int pci_add_ext_capability(struct pci_device *pdev, uint16_t id, uint8_t version, uint16_t len);
/** A PCI Express capability: @type is PCI_EXP_TYPE_*. */
int pci_add_express(struct pci_device *pdev, uint8_t type);

/** MSI-X with @nvectors, table and PBA in a memory BAR of their own. */
int pci_add_msix(struct pci_device *pdev, unsigned int bar, uint16_t nvectors,
		 struct hako_error *err);
bool msix_enabled(const struct pci_device *pdev);
/** The eventfd to write to; -1 if there is no such vector or no descriptor to be had. Any thread. Constant for the device's life. */
int msix_fd(struct pci_device *pdev, uint16_t vector);
/** Raise from any thread; no such vector: nothing. */
void msix_raise(struct pci_device *pdev, uint16_t vector);

/** Level of the INTx pin; Interrupt Disable and Interrupt Status are seen to. Any thread. */
void pci_set_intx(struct pci_device *pdev, bool level);
/** The GSI that the INTx pin of @pdev is wired to (INTA if it has none), or UINT32_MAX. */
uint32_t pci_intx_gsi(const struct pci_device *pdev);

/** Values after reset, all that the guest can write is 0: command register, BARs, what the guest had written. Unmaps the BARs. */
void pci_device_reset(struct pci_device *pdev);
extern const struct state_table
	pci_device_state; /* for STATE_FIELD_STRUCT; restores mappings and vectors */

/** Configuration access by bus, device, function: also for the board and for tests. Takes the lock. */
uint32_t pci_config_read(struct pci_bus *root, uint8_t bus, uint8_t devfn, uint16_t offset,
			 unsigned int size);
void pci_config_write(struct pci_bus *root, uint8_t bus, uint8_t devfn, uint16_t offset,
		      uint32_t value, unsigned int size);

/**
 * What firmware would do: number the buses, give every BAR and bridge window its address out of the root's windows, set Interrupt Line and
 * the command registers' decode bits. For direct boot, after every reset.
 */
int pci_assign(struct pci_bus *root, struct hako_error *err);

/** How many buses there are, the root bus included: pci_assign() numbers them from 0. */
unsigned int pci_bus_count(struct pci_bus *root);

#endif
