/* SPDX-License-Identifier: GPL-2.0-only */
/* test=evil-transport dev=...: registers, queue addresses and sizes, status and features that lie. */
#include "blk.h"
#include "evil.h"
#include "tests.h"

static struct evil e;

static const u64 odd_address[] = {
	0,
	1,
	7,
	0x1001,
	0xfffffffffffffff0,
	~0ull,
	1ull << 52,
	0x8000000000000000,
	0xfee00000,
	0xfec00000,
	0xfeb00000,
	0xb0000000,
	0xd0000000,
	0xffffffff,
	0xfffff000,
};

/* Each of the three rings in turn where there is no RAM, or not enough, or not aligned. */
static void queue_addresses(u32 variant)
{
	u32 which = variant % 3, i = variant / 3;
	u64 a[3] = {(u64)e.desc, (u64)e.avail, (u64)e.used}, bad;
	u16 head = 0;

	bad = i < ARRAY_SIZE(odd_address) ? odd_address[i]
					  : ram_end - (i - ARRAY_SIZE(odd_address)) * 8;
	virtio_begin(&e.dev, VIRTIO_F_EVENT_IDX);
	a[which] = bad;
	virtio_queue_set(&e.dev, e.queue, e.size, a[0], a[1], a[2], 0xffff, true);
	virtio_driver_ok(&e.dev);
	evil_desc(&e, 0, (u64)e.data, 64, DESC_F_NEXT, 1);
	evil_desc(&e, 1, (u64)e.data + 64, 64, DESC_F_WRITE, 0);
	evil_offer(&e, &head, 1);
	evil_wait(&e);
}

/* All three in one place, and the used ring over what the guest has offered. */
static void queue_overlaps(u32 variant)
{
	u64 d = (u64)e.desc, u = variant & 1 ? d : (u64)e.avail, head = 0;

	virtio_begin(&e.dev, 0);
	virtio_queue_set(&e.dev, e.queue, e.size, d, variant & 2 ? d : (u64)e.avail, u, 0xffff,
			 true);
	virtio_driver_ok(&e.dev);
	evil_desc(&e, 0, d, 16, DESC_F_NEXT, 1);
	evil_desc(&e, 1, d, 16 * e.size, DESC_F_WRITE | (variant & 4 ? DESC_F_NEXT : 0), 2);
	evil_desc(&e, 2, d + 8, 1, DESC_F_WRITE, 0);
	evil_offer(&e, (u16 *)&head, 1);
	evil_wait(&e);
}

static void queue_sizes(u32 variant)
{
	static const u16 size[] = {0, 1, 3, 5, 0xffff, 0x8000, 0x8001, 1024, 32, 4096};
	u16 head = 0;

	virtio_begin(&e.dev, 0);
	virtio_queue_set(&e.dev, e.queue, size[variant], (u64)e.desc, (u64)e.avail, (u64)e.used,
			 0xffff, true);
	virtio_driver_ok(&e.dev);
	evil_desc(&e, 0, (u64)e.data, 64, DESC_F_WRITE, 0);
	evil_offer(&e, &head, 1);
	evil_wait(&e);
}

/* Queues that do not exist, and changes to one that runs. */
static void queue_select(u32 variant)
{
	static const u16 index[] = {64, 255, 256, 0x7fff, 0x8000, 0xffff};
	u16 i = index[variant % 6], head = 0;

	if (variant < 6) {
		check_eq(virtio_queue_max(&e.dev, i), 0);
		virtio_queue_set(&e.dev, i, 8, (u64)e.desc, (u64)e.avail, (u64)e.used, 0, true);
		virtio_notify(&e.dev, i);
		check_eq(virtio_queue_max(&e.dev, i), 0);
	} else {
		virtio_queue_set(&e.dev, e.queue, 1 << (variant - 6), (u64)e.data, ~0ull, 0, 7,
				 true);
		evil_offer(&e, &head, 1);
	}
	evil_wait(&e);
}

static void notify_early(u32 variant)
{
	static const u8 status[] = {0, 1, 3, 11, 128, 4, 8, 12};

	virtio_reset(&e.dev);
	virtio_notify(&e.dev, e.queue);
	virtio_set_status(&e.dev, status[variant]);
	virtio_notify(&e.dev, e.queue);
	virtio_queue_set(&e.dev, e.queue, e.size, (u64)e.desc, (u64)e.avail, (u64)e.used, 0xffff,
			 true);
	e.avail->idx = 1;
	for (u32 i = 0; i < 8; i++)
		virtio_notify(&e.dev, i);
	if (e.dev.mmio) {
		mmio_w32(e.dev.mmio + MMIO_QUEUE_NOTIFY, 0xffffffff);
		mmio_w32(e.dev.mmio + MMIO_QUEUE_NOTIFY, 0x10000 | e.queue);
		mmio_w16(e.dev.mmio + MMIO_QUEUE_NOTIFY, 0);
		mmio_w8(e.dev.mmio + MMIO_QUEUE_NOTIFY + 1, 0);
	} else {
		for (u32 i = 0; i < 4096; i += 252)
			mmio_w16(e.dev.notify + i, i);
		mmio_w32(e.dev.notify, 0xffffffff);
		mmio_w8(e.dev.notify + 1, 0);
	}
	evil_wait(&e);
}

static void status_nonsense(u32 variant)
{
	rnd_seed(variant + 9);
	for (u32 i = 0; i < 40; i++) {
		virtio_set_status(&e.dev, rnd());
		if (i % 4 == 0)
			virtio_set_features(&e.dev, (u64)rnd() << 32 | rnd());
		if (i % 5 == 0)
			virtio_notify(&e.dev, e.queue);
	}
}

/* What was not offered is not accepted (3.1.1), and cannot be changed afterwards. */
static void features(u32 variant)
{
	u64 offered, f;

	virtio_reset(&e.dev);
	virtio_set_status(&e.dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	offered = virtio_offered(&e.dev);
	f = variant < 64 ? offered | 1ull << variant : ~0ull;
	virtio_set_features(&e.dev, f);
	virtio_set_status(&e.dev, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	if (f != offered)
		check(!(virtio_status(&e.dev) & STATUS_FEATURES_OK), "%#lx accepted of %#lx", f,
		      offered);
	virtio_set_features(&e.dev, ~f);
	virtio_driver_ok(&e.dev);
	virtio_notify(&e.dev, e.queue);
}

/* Requests in flight; once the reset is over nothing is written to memory any more. */
static void reset_in_flight(u32 variant)
{
	u16 heads[EVIL_QUEUE_SIZE];
	u32 n = e.size / 3, bad = 0;

	memset(e.data, 0, EVIL_DATA);
	for (u32 i = 0; i < n; i++) {
		u64 hdr = (u64)e.data + 16 * i;

		*(u64 *)(hdr + 8) = i * 8;
		evil_desc(&e, 3 * i, hdr, 16, DESC_F_NEXT, 3 * i + 1);
		evil_desc(&e, 3 * i + 1, (u64)e.data + 4096 + (i % 15) * 4096, 4096,
			  DESC_F_NEXT | DESC_F_WRITE, 3 * i + 2);
		evil_desc(&e, 3 * i + 2, (u64)e.data + 2048 + i, 1, DESC_F_WRITE, 0);
		heads[i] = 3 * i;
	}
	evil_offer(&e, heads, n);
	delay_us(variant * 15);
	virtio_reset(&e.dev);
	memset(e.data, 0xc5, EVIL_DATA);
	memset(e.used, 0xc5, 1024);
	delay_us(5000);
	for (u32 i = 0; i < EVIL_DATA; i += 8)
		bad += *(u64 *)(e.data + i) != 0xc5c5c5c5c5c5c5c5;
	for (u32 i = 0; i < 1024; i += 8)
		bad += *(u64 *)((u8 *)e.used + i) != 0xc5c5c5c5c5c5c5c5;
	check(!bad, "%s: %u words written after the reset", e.name, bad);
}

/* Every offset by every size: reads, or writes of random values. */
static void sweep(u64 base, u32 len, bool write)
{
	for (u32 off = 0; off < len; off++) {
		for (u32 size = 1; size <= 8; size *= 2) {
			u64 a = base + off, v = (u64)rnd() << 32 | rnd();

			if (size > 1 && off % size && off % 16 > 4)
				continue;
			if (!write && size == 1)
				mmio_r8(a);
			else if (!write && size == 2)
				mmio_r16(a);
			else if (!write && size == 4)
				mmio_r32(a);
			else if (!write)
				mmio_r64(a);
			else if (size == 1)
				mmio_w8(a, v);
			else if (size == 2)
				mmio_w16(a, v);
			else if (size == 4)
				mmio_w32(a, v);
			else
				mmio_w64(a, v);
		}
	}
}

static void registers(u32 variant)
{
	struct virtio_dev *d = &e.dev;
	bool write = variant & 1;

	rnd_seed(variant + 3);
	if (d->mmio) {
		sweep(d->mmio, MMIO_STRIDE, write);
		return;
	}
	sweep(d->common, 0x48, write);
	sweep(d->isr, 8, write);
	sweep(d->notify, 64, write);
	if (d->config)
		sweep(d->config, MIN(d->config_len + 16, 256), write);
}

/* The window of VIRTIO_PCI_CAP_PCI_CFG (4.1.4.9): any BAR, any offset, any length. */
static void pci_window(u32 variant)
{
	struct pci_dev *p = e.dev.pci;
	u32 c = 0, i;

	if (!p)
		return;
	while ((c = pci_cap(p, 9, c)) && pci_read(p, c + 3, 1) != 5)
		;
	if (!c)
		return;
	rnd_seed(variant);
	for (i = 0; i < 100; i++) {
		pci_write(p, c + 4, 1, i & 1 ? rnd() : e.dev.pci->bar[4].size ? 4 : 0);
		pci_write(p, c + 8, 4, i & 2 ? rnd() : rnd() % 0x5000);
		pci_write(p, c + 12, 4, i & 4 ? rnd() : 1 << rnd() % 4);
		if (i & 8)
			pci_write(p, c + 16, 1 << rnd() % 3, rnd());
		else
			pci_read(p, c + 16, 1 << rnd() % 3);
	}
}

/* MSI-X: tables of nonsense, vectors that do not exist. */
static void msix(u32 variant)
{
	struct pci_dev *p = e.dev.pci;
	u16 control;

	if (!p || !p->msix_cap)
		return;
	rnd_seed(variant + 31);
	control = pci_read(p, p->msix_cap + 2, 2);
	mmio_w16(e.dev.common + COMMON_QUEUE_SELECT, e.queue);
	for (u32 i = 0; i < 6; i++) {
		static const u16 v[] = {0xfffe, 0x8000, 2048, 0x7ff, 0, 1};

		mmio_w16(e.dev.common + COMMON_QUEUE_MSIX, v[i]);
		check_eq(mmio_r16(e.dev.common + COMMON_QUEUE_MSIX),
			 v[i] < p->msix_vectors ? v[i] : 0xffff);
		mmio_w16(e.dev.common + COMMON_MSIX_CONFIG, v[i]);
		check_eq(mmio_r16(e.dev.common + COMMON_MSIX_CONFIG),
			 v[i] < p->msix_vectors ? v[i] : 0xffff);
	}
	pci_write(p, p->msix_cap + 2, 2, 0x8000);
	for (u32 i = 0; i < 200; i++) {
		u64 a = p->msix_table + rnd() % (16 * p->msix_vectors);
		/* Addresses that would interrupt this CPU stay out: 0xfee in the upper bits. */
		u32 value = rnd() & 0x7fffffff;

		if (i & 1)
			mmio_w32(a & ~3ull, value);
		else if (i & 2)
			mmio_w16(a & ~1ull, value);
		else
			mmio_w64(a & ~7ull, value);
		mmio_w32(p->msix_pba + (rnd() & 4), value);
		if (i % 20 == 0)
			virtio_notify(&e.dev, e.queue);
		if (i % 30 == 0)
			pci_write(p, p->msix_cap + 2, 2, rnd() & 0xc000);
	}
	sweep(p->msix_table + 16 * p->msix_vectors - 8, 16, false);
	sweep(p->msix_pba, 16, false);
	for (u32 i = 0; i < p->msix_vectors; i++) {
		for (u32 j = 0; j < 12; j += 4)
			mmio_w32(p->msix_table + 16 * i + j, 0);
		mmio_w32(p->msix_table + 16 * i + 12, 1);
	}
	pci_write(p, p->msix_cap + 2, 2, control);
}

static const struct {
	const char *name;
	void (*attack)(u32 variant);
	u32 variants;
} attacks[] = {
	{"queue addresses", queue_addresses, (ARRAY_SIZE(odd_address) + 8) * 3},
	{"queue overlaps", queue_overlaps, 8},
	{"queue sizes", queue_sizes, 10},
	{"queue select", queue_select, 16},
	{"notify early", notify_early, 8},
	{"status", status_nonsense, 8},
	{"features", features, 65},
	{"reset in flight", reset_in_flight, 40},
	{"registers", registers, 6},
	{"PCI window", pci_window, 4},
	{"MSI-X", msix, 8},
};

void test_evil_transport(void)
{
	char name[64];

	if (!evil_init(&e))
		return;
	e.name = name;
	for (u32 a = 0; a < ARRAY_SIZE(attacks); a++) {
		for (u32 v = 0; v < attacks[a].variants; v++) {
			u64 mark = alloc_mark();

			format(name, sizeof(name), "%s %u", attacks[a].name, v);
			/* Of a network card, what the guest sends; else the first. */
			e.queue = e.type == VIRTIO_NET || e.type == VIRTIO_CONSOLE ? v & 1 : 0;
			if (!evil_start(&e, VIRTIO_F_EVENT_IDX))
				return;
			attacks[a].attack(v);
			if (!evil_survived(&e))
				return;
			alloc_release(mark);
		}
	}
	evil_done(&e);
}
