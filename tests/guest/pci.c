/* SPDX-License-Identifier: GPL-2.0-only */
#include "pci.h"
#include "acpi.h"

#define PCI_COMMAND 0x04
#define MEM_BASE    0xd0000000u
#define IO_BASE	    0xc000

struct pci_dev pci_devs[PCI_MAX_DEVS];
u32 pci_count;
static bool no_cf8;
static u32 next_mem = MEM_BASE, next_io = IO_BASE, next_bus = 1;

u32 pci_cf8_read(u16 bdf, u32 reg, u32 size)
{
	outl(0xcf8, 1u << 31 | bdf << 8 | (reg & 0xfc));
	switch (size) {
	case 1:
		return inb(0xcfc + (reg & 3));
	case 2:
		return inw(0xcfc + (reg & 2));
	default:
		return inl(0xcfc);
	}
}

void pci_cf8_write(u16 bdf, u32 reg, u32 size, u32 v)
{
	outl(0xcf8, 1u << 31 | bdf << 8 | (reg & 0xfc));
	switch (size) {
	case 1:
		outb(0xcfc + (reg & 3), v);
		break;
	case 2:
		outw(0xcfc + (reg & 2), v);
		break;
	default:
		outl(0xcfc, v);
	}
}

/* MCFG (PCI Firmware Specification, 4.1.2): allocations of 16 bytes from offset 44. */
u64 pci_ecam(void)
{
	static u64 base;
	u8 *t;

	if (base)
		return base;
	t = acpi_table("MCFG");
	if (t && *(u32 *)(t + 4) >= 60) {
		base = *(u64 *)(t + 44);
		if (base >> 32)
			map_mmio(base, 256 << 20);
	}
	return base;
}

static u32 cfg_read(u16 bdf, u32 reg, u32 size)
{
	u64 a;

	if (!no_cf8)
		return pci_cf8_read(bdf, reg, size);
	a = pci_ecam() + ((u64)bdf << 12) + reg;
	return size == 1 ? mmio_r8(a) : size == 2 ? mmio_r16(a) : mmio_r32(a);
}

static void cfg_write(u16 bdf, u32 reg, u32 size, u32 v)
{
	u64 a;

	if (!no_cf8) {
		pci_cf8_write(bdf, reg, size, v);
		return;
	}
	a = pci_ecam() + ((u64)bdf << 12) + reg;
	if (size == 1)
		mmio_w8(a, v);
	else if (size == 2)
		mmio_w16(a, v);
	else
		mmio_w32(a, v);
}

u32 pci_read(const struct pci_dev *d, u32 reg, u32 size)
{
	return cfg_read(d->bdf, reg, size);
}

void pci_write(const struct pci_dev *d, u32 reg, u32 size, u32 v)
{
	cfg_write(d->bdf, reg, size, v);
}

u32 pci_cap(const struct pci_dev *d, u8 id, u32 after)
{
	u32 p;

	if (!(pci_read(d, 0x06, 2) & 0x10))
		return 0;
	p = pci_read(d, after ? after + 1 : 0x34, 1);
	for (u32 i = 0; p >= 0x40 && i < 48; i++, p = pci_read(d, p + 1, 1))
		if (pci_read(d, p, 1) == id)
			return p;
	return 0;
}

/* Size the BAR at `i`; one without an address gets one. Returns how many registers it takes. */
static u32 bar_init(struct pci_dev *d, u32 i)
{
	struct pci_bar *b = &d->bar[i];
	u32 reg = 0x10 + 4 * i, lo = pci_read(d, reg, 4), hi = 0, mlo, mhi = 0;
	u64 mask;

	pci_write(d, reg, 4, 0xffffffff);
	mlo = pci_read(d, reg, 4);
	pci_write(d, reg, 4, lo);
	if (!mlo)
		return 1;
	b->io = mlo & 1;
	b->is64 = !b->io && (mlo & 6) == 4;
	if (b->is64) {
		hi = pci_read(d, reg + 4, 4);
		pci_write(d, reg + 4, 4, 0xffffffff);
		mhi = pci_read(d, reg + 4, 4);
		pci_write(d, reg + 4, 4, hi);
	}
	mask = (u64)(b->is64 ? mhi : 0xffffffff) << 32 | (mlo & (b->io ? ~3u : ~15u));
	if (b->io)
		mask |= 0xffffffffffff0000;
	b->size = -mask;
	b->addr = (u64)hi << 32 | (lo & (b->io ? ~3u : ~15u));
	if (!b->addr && b->io) {
		b->addr = next_io = (next_io + b->size - 1) & ~(b->size - 1);
		next_io += b->size;
		pci_write(d, reg, 4, b->addr);
	} else if (!b->addr && b->size < 0x10000000) {
		b->addr = next_mem = (next_mem + b->size - 1) & ~(b->size - 1);
		next_mem += b->size;
		pci_write(d, reg, 4, b->addr);
		if (b->is64)
			pci_write(d, reg + 4, 4, 0);
	}
	if (!b->io && b->addr >> 32)
		map_mmio(b->addr, b->size);
	return b->is64 ? 2 : 1;
}

static void msix_init(struct pci_dev *d)
{
	u32 cap = pci_cap(d, 0x11, 0), t, p;

	if (!cap)
		return;
	t = pci_read(d, cap + 4, 4);
	p = pci_read(d, cap + 8, 4);
	if ((t & 7) > 5 || (p & 7) > 5)
		return;
	d->msix_cap = cap;
	d->msix_vectors = (pci_read(d, cap + 2, 2) & 0x7ff) + 1;
	d->msix_table = d->bar[t & 7].addr + (t & ~7u);
	d->msix_pba = d->bar[p & 7].addr + (p & ~7u);
}

static void bus_scan(u32 bus);

/* A bridge without a secondary bus gets one, and a window of memory for what is behind it. */
static void bridge_init(struct pci_dev *d)
{
	u32 bus = pci_read(d, 0x19, 1), mem;

	if (bus) {
		bus_scan(bus);
		return;
	}
	bus = next_bus++;
	pci_write(d, 0x18, 4, (d->bdf >> 8) | bus << 8 | 0xff << 16);
	mem = next_mem = (next_mem + 0xfffff) & ~0xfffffu;
	pci_write(d, 0x20, 4, (mem >> 16) | 0xfff00000);
	bus_scan(bus);
	pci_write(d, 0x1a, 1, next_bus - 1);
	next_mem = (next_mem + 0xfffff) & ~0xfffffu;
	if (next_mem == mem)
		next_mem += 0x100000;
	pci_write(d, 0x20, 4, (mem >> 16) | ((next_mem - 1) & 0xfff00000));
	pci_write(d, PCI_COMMAND, 2, pci_read(d, PCI_COMMAND, 2) | 6);
}

static void function_init(u16 bdf, u32 id)
{
	struct pci_dev *d;
	u32 command;

	if (pci_count == PCI_MAX_DEVS)
		return;
	d = &pci_devs[pci_count++];
	d->bdf = bdf;
	d->vendor = id;
	d->device = id >> 16;
	d->class = pci_read(d, 0x08, 4) >> 8;
	d->header = pci_read(d, 0x0e, 1) & 0x7f;
	command = pci_read(d, PCI_COMMAND, 2);
	pci_write(d, PCI_COMMAND, 2, command & ~3);
	for (u32 i = 0; i < (d->header == 1 ? 2 : d->header ? 0 : 6);)
		i += bar_init(d, i);
	pci_write(d, PCI_COMMAND, 2, command);
	msix_init(d);
	if (d->header == 1)
		bridge_init(d);
}

static void bus_scan(u32 bus)
{
	for (u32 devfn = 0; devfn < 256; devfn++) {
		u16 bdf = bus << 8 | devfn;
		u32 id;

		if ((devfn & 7) && !(cfg_read(bdf & ~7, 0x0e, 1) & 0x80)) {
			devfn |= 7;
			continue;
		}
		id = cfg_read(bdf, 0, 4);
		if ((id & 0xffff) != 0xffff)
			function_init(bdf, id);
		else if (!(devfn & 7))
			devfn |= 7;
	}
}

void pci_init(void)
{
	if (pci_count)
		return;
	outl(0xcf8, 0x80000000);
	no_cf8 = inl(0xcf8) != 0x80000000;
	if (no_cf8 && !pci_ecam())
		return;
	bus_scan(0);
}

struct pci_dev *pci_find(u16 vendor, u16 device, u32 nth)
{
	for (u32 i = 0; i < pci_count; i++)
		if (pci_devs[i].vendor == vendor && pci_devs[i].device == device && !nth--)
			return &pci_devs[i];
	return NULL;
}

void pci_msix_route(const struct pci_dev *d, u32 n, u32 vector)
{
	u64 e = d->msix_table + 16 * n;

	pci_write(d, d->msix_cap + 2, 2, pci_read(d, d->msix_cap + 2, 2) | 0x8000);
	mmio_w32(e, 0xfee00000 | lapic_id() << 12);
	mmio_w32(e + 4, 0);
	mmio_w32(e + 8, vector);
	mmio_w32(e + 12, 0);
}
