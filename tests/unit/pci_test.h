/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of PCI share: a VM with a root bus, a device that only remembers, and accesses as a vCPU makes them. */
#ifndef TESTS_UNIT_PCI_TEST_H
#define TESTS_UNIT_PCI_TEST_H

#include <check.h>
#include <stdlib.h>

#include "devices/pci/pci.h"
#include "vmm/vm_internal.h"

#define ECAM 0xb0000000ull

/* --- a device that only remembers -------------------------------------------------------------- */

struct toy {
	struct pci_device pdev;
	uint64_t last_offset, last_value;
	unsigned int writes, moves, resets;
	uint8_t id;
};

static inline uint64_t toy_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct toy *toy = opaque;

	return toy->id * 0x0101010101010101ull + offset;
}

static inline void toy_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct toy *toy = opaque;

	toy->last_offset = offset;
	toy->last_value = value;
	toy->writes++;
}

static const struct io_ops toy_ops = {toy_read, toy_write};

static inline void toy_moved(struct pci_device *pdev)
{
	((struct toy *)pdev)->moves++;
}

static inline void toy_hot_reset(struct pci_device *pdev)
{
	((struct toy *)pdev)->resets++;
	pci_device_reset(pdev);
}

static const struct class toy_class = {.name = "toy", .kind = CLASS_DEVICE, .bus = BUS_PCI};

/* --- fixture ----------------------------------------------------------------------------------- */

static struct vm *vm;
static struct pci_bus *root;
static struct bus_reader pio, mmio;
static struct hako_error err;
static struct toy *toys[8];
static unsigned int ntoys;

static inline uint32_t toy_gsi(struct pci_bus *bus, uint8_t slot, uint8_t pin)
{
	return 16 + ((slot + pin) & 7);
}

static inline void setup(void)
{
	ck_assert_int_eq(vm_new_plain(&vm, 0, &err), 0);
	ck_assert_int_eq(pci_root_new(vm, ECAM, &root, &err), 0);
	root->intx_gsi = toy_gsi;
	root->io_base = 0xc000;
	root->io_size = 0x4000;
	root->mmio32_base = 0xc0000000;
	root->mmio32_size = 0x10000000;
	root->mmio64_base = 1ull << 40;
	root->mmio64_size = 1ull << 39;
	bus_reader_init(&pio, &vm->pio);
	bus_reader_init(&mmio, &vm->mmio);
	ntoys = 0;
}

static inline void teardown(void)
{
	while (ntoys) {
		struct toy *toy = toys[--ntoys];

		pci_device_free(&toy->pdev);
		free(toy);
	}
	bus_reader_free(&pio);
	bus_reader_free(&mmio);
	vm_destroy_objects(vm);
	pci_root_free(root);
	vm_free_plain(vm);
}

static inline struct toy *toy_new(struct pci_bus *bus, int devfn)
{
	struct toy *toy = calloc(1, sizeof(*toy));

	toy->pdev.obj.class = &toy_class;
	toy->pdev.obj.vm = vm;
	toy->pdev.bars_moved = toy_moved;
	toy->pdev.hot_reset = toy_hot_reset;
	toy->id = ntoys + 1;
	ck_assert_int_eq(pci_device_init(&toy->pdev, bus, devfn, 0x1234, 0x5678, 0x010802, 3, &err),
			 0);
	toys[ntoys++] = toy;
	return toy;
}

static inline void toy_bar(struct toy *toy, unsigned int index, uint64_t size, bool io, bool is64)
{
	const struct io_region region = {.name = "toy", .ops = &toy_ops, .opaque = toy};

	ck_assert_int_eq(pci_add_bar(&toy->pdev, index, size, io, is64, is64, &region), 0);
}

static inline uint32_t inp(uint16_t port, unsigned int size)
{
	uint64_t v;

	bus_read(&pio, port, &v, size);
	return v;
}

static inline void outp(uint16_t port, uint32_t value, unsigned int size)
{
	bus_write(&pio, port, value, size);
}

static inline uint64_t rd(uint64_t addr, unsigned int size)
{
	uint64_t v;

	bus_read(&mmio, addr, &v, size);
	return v;
}

static inline void wr(uint64_t addr, uint64_t value, unsigned int size)
{
	bus_write(&mmio, addr, value, size);
}

static inline uint64_t ecam(const struct toy *toy, unsigned int reg)
{
	return ECAM + ((uint64_t)toy->pdev.devfn << 12) + reg;
}

static inline uint32_t cfg(const struct toy *toy, unsigned int reg, unsigned int size)
{
	return rd(ecam(toy, reg), size);
}

static inline void cfg_set(const struct toy *toy, unsigned int reg, uint32_t value,
			   unsigned int size)
{
	wr(ecam(toy, reg), value, size);
}

static inline struct pci_device *port_new(const char *options)
{
	struct keyvals kv = {0};
	struct object *obj;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_int_eq(
		object_new(vm, class_find(CLASS_DEVICE, "pcie-root-port"), &kv, &obj, &err), 0);
	keyvals_free(&kv);
	return (struct pci_device *)obj;
}

static inline struct toy *toy_behind(const char *bus, unsigned int func)
{
	struct pci_bus *where;
	int devfn;

	ck_assert_int_eq(pci_parse_addr(vm, bus, NULL, &where, &devfn, &err), 0);
	return toy_new(where, func ? (int)func : devfn);
}

static inline uint32_t bus_cfg(uint8_t bus, uint8_t devfn, unsigned int reg, unsigned int size)
{
	return rd(ECAM + ((uint64_t)bus << 20) + ((uint64_t)devfn << 12) + reg, size);
}

static inline void bus_cfg_set(uint8_t bus, uint8_t devfn, unsigned int reg, uint32_t v,
			       unsigned int size)
{
	wr(ECAM + ((uint64_t)bus << 20) + ((uint64_t)devfn << 12) + reg, v, size);
}

#endif
