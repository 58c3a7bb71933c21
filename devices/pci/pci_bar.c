/* SPDX-License-Identifier: GPL-2.0-only */
/* BARs: declaring them, and mapping them to where the guest says (PCI 3.0, 6.2.5). */
#include "pci_internal.h"

#include "vmm/vm.h"

static int check_bar(const struct pci_device *pdev, unsigned int index, uint64_t size, bool io,
		     bool is64)
{
	unsigned int n = pci_nbars(pdev);

	if (index >= n || (is64 && (io || index + 1 >= n)) || !IS_POWER_OF_2(size))
		return -EINVAL;
	if (pdev->bar[index].size || (index && pdev->bar[index - 1].is64) ||
	    (is64 && pdev->bar[index + 1].size))
		return -EBUSY;
	if (io ? size < 4 || size > 256 : size < 16 || (!is64 && size > BIT64(31)))
		return -EINVAL;
	return 0;
}

int pci_add_bar(struct pci_device *pdev, unsigned int index, uint64_t size, bool io, bool is64,
		bool prefetch, const struct io_region *region)
{
	struct pci_bar *bar = &pdev->bar[index];
	uint8_t *reg = pdev->config + pci_bar_offset(index);
	uint8_t *wmask = pdev->wmask + pci_bar_offset(index);
	int r = check_bar(pdev, index, size, io, is64);

	if (r)
		return r;
	bar->size = size;
	bar->io = io;
	bar->is64 = is64;
	bar->prefetch = prefetch;
	bar->addr = PCI_BAR_UNMAPPED;
	bar->region = *region;
	bar->region.size = size;
	put_le32(reg, io ? PCI_BASE_ADDRESS_SPACE_IO
			 : (is64 ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) |
				      (prefetch ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0));
	put_le32(wmask, ~(size - 1));
	if (is64)
		put_le32(wmask + 4, ~(size - 1) >> 32);
	return 0;
}

/* --- windows of bridges ---------------------------------------------------------------------- */

struct pci_window pci_bridge_window(const struct pci_device *bridge, enum pci_window_kind kind)
{
	const uint8_t *c = bridge->config;
	struct pci_window w;

	switch (kind) {
	case PCI_WINDOW_IO:
		w.base = (uint64_t)(c[PCI_IO_BASE] & 0xf0) << 8;
		w.limit = (uint64_t)(c[PCI_IO_LIMIT] & 0xf0) << 8 | 0xfff;
		break;
	case PCI_WINDOW_MEM:
		w.base = (uint64_t)(get_le16(c + PCI_MEMORY_BASE) & 0xfff0) << 16;
		w.limit = (uint64_t)(get_le16(c + PCI_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff;
		break;
	default:
		w.base = (uint64_t)(get_le16(c + PCI_PREF_MEMORY_BASE) & 0xfff0) << 16 |
			 (uint64_t)get_le32(c + PCI_PREF_BASE_UPPER32) << 32;
		w.limit = (uint64_t)(get_le16(c + PCI_PREF_MEMORY_LIMIT) & 0xfff0) << 16 | 0xfffff |
			  (uint64_t)get_le32(c + PCI_PREF_LIMIT_UPPER32) << 32;
	}
	return w;
}

void pci_bridge_set_window(struct pci_device *bridge, enum pci_window_kind kind,
			   struct pci_window w)
{
	uint8_t *c = bridge->config;

	switch (kind) {
	case PCI_WINDOW_IO:
		c[PCI_IO_BASE] = w.base >> 8 & 0xf0;
		c[PCI_IO_LIMIT] = w.limit >> 8 & 0xf0;
		break;
	case PCI_WINDOW_MEM:
		put_le16(c + PCI_MEMORY_BASE, w.base >> 16 & 0xfff0);
		put_le16(c + PCI_MEMORY_LIMIT, w.limit >> 16 & 0xfff0);
		break;
	default:
		put_le16(c + PCI_PREF_MEMORY_BASE,
			 (w.base >> 16 & 0xfff0) | PCI_PREF_RANGE_TYPE_64);
		put_le16(c + PCI_PREF_MEMORY_LIMIT,
			 (w.limit >> 16 & 0xfff0) | PCI_PREF_RANGE_TYPE_64);
		put_le32(c + PCI_PREF_BASE_UPPER32, w.base >> 32);
		put_le32(c + PCI_PREF_LIMIT_UPPER32, w.limit >> 32);
	}
}

static bool in_window(const struct pci_device *bridge, enum pci_window_kind kind, uint64_t addr,
		      uint64_t last)
{
	struct pci_window w = pci_bridge_window(bridge, kind);

	return addr >= w.base && last <= w.limit;
}

/* Do all bridges above @pdev forward [addr, last]? */
static bool forwarded(const struct pci_device *pdev, bool io, uint64_t addr, uint64_t last)
{
	for (const struct pci_device *b = pdev->bus->bridge; b; b = b->bus->bridge) {
		uint16_t command = get_le16(b->config + PCI_COMMAND);

		if (!(command & (io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
			return false;
		if (io ? !in_window(b, PCI_WINDOW_IO, addr, last)
		       : !in_window(b, PCI_WINDOW_MEM, addr, last) &&
				    !in_window(b, PCI_WINDOW_PREFETCH, addr, last))
			return false;
	}
	return true;
}

/* --- mapping --------------------------------------------------------------------------------- */

/*
 * Where the registers want the BAR. Address 0 and the top of the 32-bit space are what BARs hold after reset and while they are
 * sized: nothing is mapped there.
 */
static uint64_t wanted_address(const struct pci_device *pdev, unsigned int index)
{
	const struct pci_bar *bar = &pdev->bar[index];
	const uint8_t *reg = pdev->config + pci_bar_offset(index);
	uint16_t command = get_le16(pdev->config + PCI_COMMAND);
	uint64_t addr = get_le32(reg), last;

	if (!(command & (bar->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return PCI_BAR_UNMAPPED;
	if (bar->is64)
		addr |= (uint64_t)get_le32(reg + 4) << 32;
	addr &= ~(bar->size - 1);
	last = addr + bar->size - 1;
	if (!addr || last < addr || last == UINT32_MAX || last == UINT64_MAX)
		return PCI_BAR_UNMAPPED;
	if (bar->io && last > UINT16_MAX)
		return PCI_BAR_UNMAPPED;
	return forwarded(pdev, bar->io, addr, last) ? addr : PCI_BAR_UNMAPPED;
}

static void map_bar(struct pci_device *pdev, struct pci_bar *bar, uint64_t addr)
{
	struct vm *vm = pdev->bus->vm;
	struct bus *bus = bar->io ? &vm->pio : &vm->mmio;
	struct hako_error err;
	int r = 0;

	bar->region.base = addr;
	if (addr == PCI_BAR_UNMAPPED)
		bus_remove(bus, bar->addr, bar->region.opaque);
	else if (bar->addr == PCI_BAR_UNMAPPED)
		r = bus_add(bus, &bar->region, &err);
	else
		r = bus_move(bus, bar->addr, &bar->region, &err);
	if (r && bar->addr != PCI_BAR_UNMAPPED)
		bus_remove(bus, bar->addr, bar->region.opaque);
	if (r && !bar->refused)
		vm_log(vm, "PCI function %02x.%x: BAR %u not mapped: %s", PCI_SLOT_OF(pdev->devfn),
		       PCI_FUNC_OF(pdev->devfn), (unsigned int)(bar - pdev->bar), err.message);
	bar->refused = r;
	bar->addr = r ? PCI_BAR_UNMAPPED : addr;
}

/* True if some address became free. */
static bool update_device(struct pci_device *pdev, bool unmap)
{
	bool freed = false, changed = false;

	for (unsigned int i = 0; i < PCI_MAX_BARS; i++) {
		struct pci_bar *bar = &pdev->bar[i];
		uint64_t old = bar->addr, addr;

		if (!bar->size)
			continue;
		addr = unmap ? PCI_BAR_UNMAPPED : wanted_address(pdev, i);
		if (addr == PCI_BAR_UNMAPPED)
			bar->refused = false;
		if (addr == old)
			continue;
		map_bar(pdev, bar, addr);
		changed |= bar->addr != old;
		freed |= old != PCI_BAR_UNMAPPED;
	}
	if (changed && pdev->bars_moved)
		pdev->bars_moved(pdev);
	return freed;
}

/* The depth is that of the tree of bridges that the user plugged: the guest has no say in it. */
static bool update_tree(struct pci_device *pdev, bool unmap)
{
	bool freed = update_device(pdev, unmap);
	struct pci_device *child;

	if (pdev->secondary)
		list_for_each(child, &pdev->secondary->devices, link)
			freed |= update_tree(child, unmap);
	return freed;
}

static void retry_refused(struct pci_bus *bus)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		for (unsigned int i = 0; i < PCI_MAX_BARS; i++) {
			if (pdev->bar[i].refused) {
				update_device(pdev, false);
				break;
			}
		}
		if (pdev->secondary)
			retry_refused(pdev->secondary);
	}
}

void pci_update_bars(struct pci_device *pdev)
{
	if (update_tree(pdev, false))
		retry_refused(pdev->bus->root);
}

void pci_unmap_bars(struct pci_device *pdev)
{
	update_device(pdev, true);
}
