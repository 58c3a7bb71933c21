/* SPDX-License-Identifier: GPL-2.0-only */
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
