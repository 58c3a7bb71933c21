/* SPDX-License-Identifier: GPL-2.0-only */
/* Configuration space: both ways in agree, BARs, capabilities, what is not there. */
#include "pci.h"
#include "tests.h"

void test_lspci(void)
{
	pci_init();
	for (u32 i = 0; i < pci_count; i++) {
		struct pci_dev *d = &pci_devs[i];

		print("%02x:%02x.%x %04x:%04x class %06x header %x msix %u\n", d->bdf >> 8,
		      d->bdf >> 3 & 31, d->bdf & 7, d->vendor, d->device, d->class, d->header,
		      d->msix_vectors);
		for (u32 j = 0; j < 6; j++)
			if (d->bar[j].size)
				print("  bar %u %s %#lx size %#lx\n", j,
				      d->bar[j].io ? "io" : "mem", d->bar[j].addr, d->bar[j].size);
	}
}

static void test_both_ways(struct pci_dev *d, u64 ecam)
{
	u64 e = ecam + ((u64)d->bdf << 12);

	for (u32 r = 0; r < 256; r += 4) {
		u32 v = pci_cf8_read(d->bdf, r, 4);

		check(mmio_r32(e + r) == v, "%04x register %#x: %#x, by ECAM %#x", d->bdf, r, v,
		      mmio_r32(e + r));
		if (r > 0x40)
			continue;
		for (u32 i = 0; i < 4; i++) {
			check_eq(pci_cf8_read(d->bdf, r + i, 1), v >> 8 * i & 0xff);
			check_eq(mmio_r8(e + r + i), v >> 8 * i & 0xff);
		}
		for (u32 i = 0; i < 4; i += 2) {
			check_eq(pci_cf8_read(d->bdf, r + i, 2), v >> 8 * i & 0xffff);
			check_eq(mmio_r16(e + r + i), v >> 8 * i & 0xffff);
		}
	}
}

static void test_caps(struct pci_dev *d)
{
	u8 seen[256] = {0};
	u32 n = 0;

	if (!(pci_read(d, 6, 2) & 0x10))
		return;
	for (u32 p = pci_read(d, 0x34, 1); p; p = pci_read(d, p + 1, 1)) {
		if (!check(p >= 0x40 && !(p & 3) && !seen[p], "%04x: capability at %#x", d->bdf, p))
			return;
		seen[p] = 1;
		n++;
	}
	check(n, "%04x: an empty list of capabilities", d->bdf);
}

/* Extended capabilities: ID 15:0, version 19:16, next 31:20. */
static void test_ext_caps(struct pci_dev *d, u64 ecam)
{
	u64 e = ecam + ((u64)d->bdf << 12);
	u32 p = 0x100;

	for (u32 i = 0; p && i < 64; i++) {
		u32 v = mmio_r32(e + p);

		if (i == 0 && (!v || v == 0xffffffff))
			return;
		p = v >> 20;
		check(!p || (p >= 0x100 && !(p & 3)), "%04x: next at %#x", d->bdf, p);
	}
	check_eq(p, 0);
}

static void test_bars(struct pci_dev *d)
{
	for (u32 i = 0; i < 6; i++) {
		struct pci_bar *b = &d->bar[i];

		if (!b->size)
			continue;
		check(!(b->size & (b->size - 1)), "%04x BAR %u: size %#lx", d->bdf, i, b->size);
		check(b->size >= (b->io ? 4 : 16), "%04x BAR %u: size %#lx", d->bdf, i, b->size);
		check(b->addr && !(b->addr & (b->size - 1)), "%04x BAR %u: at %#lx", d->bdf, i,
		      b->addr);
		for (u32 k = 0; k < pci_count; k++)
			for (u32 j = 0; j < 6; j++) {
				struct pci_bar *o = &pci_devs[k].bar[j];

				check(o == b || !o->size || o->io != b->io ||
					      o->addr + o->size <= b->addr ||
					      b->addr + b->size <= o->addr,
				      "%04x BAR %u and %04x BAR %u overlap", d->bdf, i,
				      pci_devs[k].bdf, j);
			}
	}
	if (d->msix_cap)
		check(d->msix_vectors <= 2048 && d->msix_table != d->msix_pba, "%04x: MSI-X",
		      d->bdf);
}

static void test_function(struct pci_dev *d)
{
	u32 id = pci_read(d, 0, 4);

	/* Read-only. */
	pci_write(d, 0, 4, ~id);
	check_eq(pci_read(d, 0, 4), id);
	pci_write(d, 8, 4, 0);
	check_eq(pci_read(d, 8, 4) >> 8, d->class);
	if (d->header == 1) {
		check_eq(d->class >> 8, 0x0604);
		check(pci_read(d, 0x19, 1) > d->bdf >> 8, "%04x: secondary bus", d->bdf);
		check(pci_read(d, 0x1a, 1) >= pci_read(d, 0x19, 1), "%04x: subordinate", d->bdf);
	}
	test_bars(d);
	test_caps(d);
}

void test_pci(void)
{
	u64 ecam = pci_ecam();

	pci_init();
	if (!pci_count) {
		absent("PCI");
		return;
	}
	if (param_is("board", "q35"))
		check(ecam, "no MCFG");
	check_eq(pci_devs[0].bdf, 0);
	check_eq(pci_devs[0].class >> 8, 0x0600);
	for (u32 i = 0; i < pci_count; i++) {
		test_function(&pci_devs[i]);
		if (ecam) {
			test_both_ways(&pci_devs[i], ecam);
			test_ext_caps(&pci_devs[i], ecam);
		}
	}
	/* Nothing there: all ones; writes go nowhere. */
	check_eq(pci_cf8_read(0xf0 << 8, 0, 4), 0xffffffff);
	pci_cf8_write(0xf0 << 8, 4, 4, 0x1234);
	if (ecam)
		check_eq(mmio_r32(ecam + (0xf0ul << 20)), 0xffffffff);
	/* Without the enable bit there is no configuration access. */
	outl(0xcf8, 0);
	check(inl(0xcfc) != pci_cf8_read(0, 0, 4), "CONFIG_ADDRESS without its enable bit");
}

void test_pvpanic(void)
{
	u8 events = inb(0x505);

	if (events == 0xff) {
		absent("pvpanic");
		return;
	}
	check_eq(events & 1, 1);
}
