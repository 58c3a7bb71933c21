/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What firmware does on a PC before it boots: bus numbers, addresses of BARs and bridge windows, interrupt lines, decode bits. Each bus is
 * laid out twice: first from address 0, to learn how large the window of the bridge above must be, then where it goes.
 */
#include "pci_internal.h"

#include <stdlib.h>

#include "vmm/vm.h"

#define IO_WINDOW_ALIGN	 4096ull
#define MEM_WINDOW_ALIGN (1 * MiB)

struct resource {
	struct pci_device *pdev;
	int bar; /* -1: window of a bridge */
	uint64_t size, align;
};

struct layout {
	struct pci_bus *bus;
	enum pci_window_kind kind;
	uint64_t next[2], end[2]; /* where there is room: the second place if the first is full */
	unsigned int nplaces;
	bool dry; /* only measure */
	uint64_t align;
};

static int layout_bus(struct layout *l, struct hako_error *err);

/* --- bus numbers ----------------------------------------------------------------------------- */

static int number_buses(struct pci_bus *bus, unsigned int nr, unsigned int *last,
			struct hako_error *err)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		unsigned int secondary;
		int r;

		if (!pdev->secondary)
			continue;
		if (*last == 255)
			return error_set(err, -ENOSPC, "more than 256 PCI buses");
		secondary = ++*last;
		r = number_buses(pdev->secondary, secondary, last, err);
		if (r)
			return r;
		pdev->config[PCI_PRIMARY_BUS] = nr;
		pdev->config[PCI_SECONDARY_BUS] = secondary;
		pdev->config[PCI_SUBORDINATE_BUS] = *last;
	}
	return 0;
}

/* --- addresses ------------------------------------------------------------------------------- */

/* Behind a bridge only its prefetchable window reaches above 4 GiB; on the root bus any 64-bit BAR does. */
static enum pci_window_kind kind_of(const struct pci_device *pdev, const struct pci_bar *bar)
{
	if (bar->io)
		return PCI_WINDOW_IO;
	if (bar->is64 && (bar->prefetch || !pdev->bus->bridge))
		return PCI_WINDOW_PREFETCH;
	return PCI_WINDOW_MEM;
}

static int add_window(struct resource *res, struct pci_device *bridge, enum pci_window_kind kind,
		      struct hako_error *err)
{
	uint64_t align = kind == PCI_WINDOW_IO ? IO_WINDOW_ALIGN : MEM_WINDOW_ALIGN;
	struct layout l = {
		.bus = bridge->secondary,
		.kind = kind,
		.end = {UINT64_MAX},
		.nplaces = 1,
		.dry = true,
	};
	int r = layout_bus(&l, err);

	*res = (struct resource){
		.pdev = bridge,
		.bar = -1,
		.size = ALIGN_UP(l.next[0], align),
		.align = MAX(align, l.align),
	};
	return r;
}

static int by_align(const void *a, const void *b)
{
	const struct resource *x = a, *y = b;

	if (x->align != y->align)
		return x->align > y->align ? -1 : 1;
	if (x->pdev->devfn != y->pdev->devfn)
		return x->pdev->devfn - y->pdev->devfn;
	return x->bar - y->bar;
}

/* All that wants an address of @l->kind on this bus, the largest alignment first. */
static int collect(struct layout *l, struct resource **out, size_t *n, struct hako_error *err)
{
	struct resource *res;
	struct pci_device *pdev;
	size_t count = 0;
	int r = 0;

	*n = 0;
	list_for_each(pdev, &l->bus->devices, link)
		count += PCI_MAX_BARS + 1;
	res = calloc(count + 1, sizeof(*res));
	if (!res)
		return error_errno(err, -ENOMEM, "PCI resources");
	list_for_each(pdev, &l->bus->devices, link) {
		for (int i = 0; i < PCI_MAX_BARS; i++) {
			const struct pci_bar *bar = &pdev->bar[i];

			if (bar->size && kind_of(pdev, bar) == l->kind)
				res[(*n)++] = (struct resource){
					pdev, i, bar->size,
					bar->io ? bar->size : MAX(bar->size, PAGE_SIZE)};
		}
		if (!r && pdev->secondary) {
			r = add_window(&res[*n], pdev, l->kind, err);
			*n += res[*n].size != 0;
		}
	}
	qsort(res, *n, sizeof(*res), by_align);
	*out = res;
	return r;
}

static int place(struct layout *l, uint64_t size, uint64_t align, uint64_t *addr)
{
	for (unsigned int i = 0; i < l->nplaces; i++) {
		uint64_t at = ALIGN_UP(l->next[i], align);

		if (at < l->next[i] || at > l->end[i] || size > l->end[i] - at)
			continue;
		l->next[i] = at + size;
		*addr = at;
		return 0;
	}
	return -ENOSPC;
}

static int set_resource(const struct layout *l, const struct resource *res, uint64_t addr,
			struct hako_error *err)
{
	uint8_t *reg;
	struct layout inner = {
		.bus = res->pdev->secondary,
		.kind = l->kind,
		.next = {addr},
		.end = {addr + res->size},
		.nplaces = 1,
	};

	if (res->bar < 0) {
		pci_bridge_set_window(res->pdev, l->kind,
				      (struct pci_window){addr, addr + res->size - 1});
		return layout_bus(&inner, err);
	}
	reg = res->pdev->config + pci_bar_offset(res->bar);
	put_le32(reg, addr | (get_le32(reg) & 0xf));
	if (res->pdev->bar[res->bar].is64)
		put_le32(reg + 4, addr >> 32);
	return 0;
}

static const char *kind_name(enum pci_window_kind kind)
{
	return kind == PCI_WINDOW_IO ? "ports" : "memory";
}

static int layout_bus(struct layout *l, struct hako_error *err)
{
	struct resource *res = NULL;
	size_t n;
	int r = collect(l, &res, &n, err);

	for (size_t i = 0; !r && i < n; i++) {
		const struct pci_device *pdev = res[i].pdev;
		uint64_t addr;

		l->align = MAX(l->align, res[i].align);
		r = place(l, res[i].size, res[i].align, &addr);
		if (r)
			error_set(err, r, "%s at PCI %02x.%x: no room for 0x%llx bytes of PCI %s",
				  pdev->obj.id ?: pdev->obj.class->name, PCI_SLOT_OF(pdev->devfn),
				  PCI_FUNC_OF(pdev->devfn), (unsigned long long)res[i].size,
				  kind_name(l->kind));
		else if (!l->dry)
			r = set_resource(l, &res[i], addr, err);
	}
	free(res);
	return r;
}

/* 32-bit BARs first, as they have no other place; then the 64-bit ones, below 4 GiB too if there is room. */
static int assign_addresses(struct pci_bus *root, struct hako_error *err)
{
	struct layout io = {
		.bus = root,
		.kind = PCI_WINDOW_IO,
		.next = {root->io_base},
		.end = {root->io_base + root->io_size},
		.nplaces = 1,
	};
	struct layout mem = {
		.bus = root,
		.kind = PCI_WINDOW_MEM,
		.next = {root->mmio32_base, root->mmio64_base},
		.end = {root->mmio32_base + root->mmio32_size,
			root->mmio64_base + root->mmio64_size},
		.nplaces = 1,
	};
	int r = layout_bus(&io, err) ?: layout_bus(&mem, err);

	if (r)
		return r;
	mem.kind = PCI_WINDOW_PREFETCH;
	mem.nplaces = 2;
	return layout_bus(&mem, err);
}

/* --- everything ------------------------------------------------------------------------------ */

static void close_windows(struct pci_device *bridge)
{
	static const struct pci_window closed[PCI_WINDOW_KINDS] = {
		[PCI_WINDOW_IO] = {0xf000, 0xfff},
		[PCI_WINDOW_MEM] = {0xfff00000, 0xfffff},
		[PCI_WINDOW_PREFETCH] = {0xfff00000, 0xfffff},
	};

	for (int kind = 0; kind < PCI_WINDOW_KINDS; kind++)
		pci_bridge_set_window(bridge, kind, closed[kind]);
}

static void disable_all(struct pci_bus *bus)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		put_le16(pdev->config + PCI_COMMAND,
			 get_le16(pdev->config + PCI_COMMAND) &
				 ~(PCI_COMMAND_IO | PCI_COMMAND_MEMORY));
		pci_update_bars(pdev);
		if (pdev->secondary) {
			close_windows(pdev);
			disable_all(pdev->secondary);
		}
	}
}

static void enable_all(struct pci_bus *bus)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		uint16_t command = get_le16(pdev->config + PCI_COMMAND);
		uint32_t gsi = pci_intx_gsi(pdev);

		for (unsigned int i = 0; i < PCI_MAX_BARS; i++)
			if (pdev->bar[i].size)
				command |= pdev->bar[i].io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
		if (pdev->secondary)
			command |= PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
		put_le16(pdev->config + PCI_COMMAND, command);
		if (pdev->config[PCI_INTERRUPT_PIN] && gsi < IRQ_PINS)
			pdev->config[PCI_INTERRUPT_LINE] = gsi;
		pci_update_bars(pdev);
		if (pdev->secondary)
			enable_all(pdev->secondary);
	}
}

int pci_assign(struct pci_bus *root, struct hako_error *err)
{
	unsigned int last = 0;
	int r;

	pci_lock(root);
	disable_all(root);
	r = number_buses(root, 0, &last, err) ?: assign_addresses(root, err);
	if (!r)
		enable_all(root);
	pci_unlock(root);
	return r;
}
