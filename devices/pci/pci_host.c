/* SPDX-License-Identifier: GPL-2.0-only */
/* The root bus and the ways from the CPU to configuration space: ports 0xcf8/0xcfc, and ECAM. */
#include "pci_internal.h"

#include <stdlib.h>

#include "vmm/vm.h"

#define CONFIG_ENABLE BIT(31)

#define ECAM_PRIORITY 1 /* above BARs */

/* --- finding functions ----------------------------------------------------------------------- */

static struct pci_bus *find_bus(struct pci_bus *from, uint8_t nr)
{
	struct pci_device *pdev;

	list_for_each(pdev, &from->devices, link) {
		const uint8_t *c = pdev->config;

		/* A secondary bus of 0 is one that nobody has numbered. */
		if (!pdev->secondary || !c[PCI_SECONDARY_BUS] || nr < c[PCI_SECONDARY_BUS] ||
		    nr > c[PCI_SUBORDINATE_BUS])
			continue;
		if (nr == c[PCI_SECONDARY_BUS])
			return pdev->secondary;
		return find_bus(pdev->secondary, nr);
	}
	return NULL;
}

struct pci_device *pci_find(struct pci_bus *root, uint8_t nr, uint8_t devfn)
{
	struct pci_bus *bus = nr ? find_bus(root, nr) : root;
	struct pci_device *pdev;

	if (bus)
		list_for_each(pdev, &bus->devices, link)
			if (pdev->devfn == devfn)
				return pdev;
	return NULL;
}

struct pci_bus *pci_bus_find(struct pci_bus *from, const char *id)
{
	struct pci_bus *found = NULL;
	struct pci_device *pdev;

	list_for_each(pdev, &from->devices, link) {
		if (!pdev->secondary)
			continue;
		if (pdev->obj.id && !strcmp(pdev->obj.id, id))
			return pdev->secondary;
		found = pci_bus_find(pdev->secondary, id);
		if (found)
			break;
	}
	return found;
}

static unsigned int count_buses(const struct pci_bus *from)
{
	const struct pci_device *pdev;
	unsigned int n = 1;

	list_for_each(pdev, &from->devices, link)
		if (pdev->secondary)
			n += count_buses(pdev->secondary);
	return n;
}

unsigned int pci_bus_count(struct pci_bus *root)
{
	unsigned int n;

	pci_lock(root);
	n = count_buses(root);
	pci_unlock(root);
	return n;
}

/* --- ports ----------------------------------------------------------------------------------- */

static bool is_data_access(uint64_t offset, unsigned int size)
{
	return offset >= 4 && size <= 4 && offset + size <= 8;
}

static uint32_t config_address(struct pci_bus *root)
{
	return __atomic_load_n(&root->config_address, __ATOMIC_RELAXED);
}

static uint64_t ports_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_bus *root = opaque;
	uint32_t addr = config_address(root);

	if (offset == 0 && size == 4)
		return addr;
	if (offset == 1 && size == 1 && root->reset_port)
		return root->reset_port->read(root->reset_port_opaque, 0, 1);
	if (!is_data_access(offset, size) || !(addr & CONFIG_ENABLE))
		return UINT64_MAX;
	return pci_config_read(root, addr >> 16, addr >> 8, (addr & 0xfc) + (offset & 3), size);
}

static void ports_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pci_bus *root = opaque;
	uint32_t addr = config_address(root);

	if (offset == 0 && size == 4)
		__atomic_store_n(&root->config_address, value & PCI_CONFIG_ADDRESS_BITS,
				 __ATOMIC_RELAXED);
	else if (offset == 1 && size == 1 && root->reset_port)
		root->reset_port->write(root->reset_port_opaque, 0, value, 1);
	else if (is_data_access(offset, size) && (addr & CONFIG_ENABLE))
		pci_config_write(root, addr >> 16, addr >> 8, (addr & 0xfc) + (offset & 3), value,
				 size);
}

static const struct io_ops ports_ops = {ports_read, ports_write};

/* --- ECAM (PCI Express Base 4.0, 7.2.2) ------------------------------------------------------ */

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_bus *root = opaque;
	uint16_t reg = offset & 0xfff;
	uint64_t value, high = UINT32_MAX;

	value = pci_config_read(root, offset >> 20, offset >> 12, reg, MIN(size, 4u));
	if (size <= 4)
		return value;
	if (reg + 4 < PCI_CONFIG_SIZE)
		high = pci_config_read(root, offset >> 20, offset >> 12, reg + 4, 4);
	return value | high << 32;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pci_bus *root = opaque;
	uint16_t reg = offset & 0xfff;

	pci_config_write(root, offset >> 20, offset >> 12, reg, value, MIN(size, 4u));
	if (size > 4 && reg + 4 < PCI_CONFIG_SIZE)
		pci_config_write(root, offset >> 20, offset >> 12, reg + 4, value >> 32, 4);
}

static const struct io_ops ecam_ops = {ecam_read, ecam_write};

int pci_root_set_ecam(struct pci_bus *root, uint64_t base, uint64_t size, struct hako_error *err)
{
	struct io_region region = {
		.name = "PCI ECAM",
		.base = base,
		.size = size,
		.ops = &ecam_ops,
		.opaque = root,
		.priority = ECAM_PRIORITY,
	};
	int r = 0;

	pci_lock(root);
	if (size && root->ecam_size)
		r = bus_move(&root->vm->mmio, root->ecam_base, &region, err);
	else if (size)
		r = bus_add(&root->vm->mmio, &region, err);
	else if (root->ecam_size)
		bus_remove(&root->vm->mmio, root->ecam_base, root);
	if (!r) {
		root->ecam_base = base;
		root->ecam_size = size;
	}
	pci_unlock(root);
	return r;
}

/* --- life ------------------------------------------------------------------------------------ */

static void lock_init(pthread_mutex_t *lock)
{
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &attr);
	pthread_mutexattr_destroy(&attr);
}

int pci_root_new(struct vm *vm, uint64_t ecam_base, struct pci_bus **out, struct hako_error *err)
{
	struct pci_bus *root = calloc(1, sizeof(*root));
	struct io_region ports = {
		.name = "PCI configuration ports",
		.base = PCI_ROOT_ADDRESS_PORT,
		.size = 8,
		.ops = &ports_ops,
		.opaque = root,
	};
	int r;

	if (!root)
		return error_errno(err, -ENOMEM, "PCI bus");
	root->vm = vm;
	root->root = root;
	list_init(&root->devices);
	lock_init(&root->lock);
	r = bus_add(&vm->pio, &ports, err);
	if (!r && ecam_base) {
		r = pci_root_set_ecam(root, ecam_base, 256 * MiB, err);
		if (r)
			bus_remove(&vm->pio, PCI_ROOT_ADDRESS_PORT, root);
	}
	if (r) {
		pthread_mutex_destroy(&root->lock);
		free(root);
		return r;
	}
	vm->pci = root;
	*out = root;
	return 0;
}

void pci_root_free(struct pci_bus *root)
{
	if (!root)
		return;
	pci_root_set_ecam(root, 0, 0, NULL);
	bus_remove(&root->vm->pio, PCI_ROOT_ADDRESS_PORT, root);
	if (root->vm->pci == root)
		root->vm->pci = NULL;
	pthread_mutex_destroy(&root->lock);
	free(root);
}
