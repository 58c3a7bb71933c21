/* SPDX-License-Identifier: GPL-2.0-only */
/* Nonsense for everything that is not virtio: PCI configuration space, ports, MMIO, fw_cfg. */
#include "acpi.h"
#include "evil.h"
#include "fwcfg.h"
#include "tests.h"

static struct evil e;

/* --- PCI ------------------------------------------------------------------------------------------ */

/* What a function had before it was attacked: command, BARs, bus numbers and windows. */
static u32 saved[64];

static void save(struct pci_dev *d)
{
	for (u32 i = 0; i < 64; i++)
		saved[i] = pci_read(d, i * 4, 4);
}

static void restore(struct pci_dev *d)
{
	pci_write(d, 0x04, 2, 0);
	/* Capabilities first, then addresses, decoding last. */
	for (u32 i = 63; i > 0; i--)
		if (i != 1)
			pci_write(d, i * 4, 4, saved[i]);
	pci_write(d, 0x04, 2, saved[1]);
}

static const u64 odd_bar[] = {
	0,	    0x100000,	0x1000,	    0xa0000,	0xfee00000,
	0xfec00000, 0xb0000000, 0xfeb00000, 0xffff0000, 0xfffffff0,
	0x80000000, 1ull << 32, 1ull << 45, 1ull << 51, 0x8000000000000000,
	~0ull << 4, 0x7ffff000, 0x12345670,
};

/* BARs of the target over RAM, over other devices, far away; its doorbell is rung at each place. */
static void bars_move(struct pci_dev *d)
{
	for (u32 i = 0; i < 6; i++) {
		struct pci_bar *b = &d->bar[i];

		for (u32 k = 0; b->size && k < ARRAY_SIZE(odd_bar); k++) {
			u64 a = odd_bar[k];

			pci_write(d, 0x10 + 4 * i, 4, a);
			if (b->is64)
				pci_write(d, 0x14 + 4 * i, 4, a >> 32);
			pci_read(d, 0x10 + 4 * i, 4);
			/* Change it while it decodes, and while it does not. */
			pci_write(d, 0x04, 2, k & 1 ? 7 : 0);
			if (k % 3 == 0)
				evil_witness(&e);
		}
		/* Onto another function's BAR, exactly. */
		for (u32 k = 0; b->size && k < pci_count; k++)
			for (u32 j = 0; j < 6; j++) {
				struct pci_bar *o = &pci_devs[k].bar[j];

				if (&pci_devs[k] == d || !o->size || o->io != b->io ||
				    o->addr >> 32)
					continue;
				pci_write(d, 0x10 + 4 * i, 4, o->addr);
				if (b->is64)
					pci_write(d, 0x14 + 4 * i, 4, 0);
				pci_write(d, 0x04, 2, 7);
				pci_write(d, 0x04, 2, 0);
			}
	}
}

static void random_writes(struct pci_dev *d, u32 n)
{
	while (n--) {
		u32 size = 1 << rnd() % 3, reg = rnd() & 0xff & ~(size - 1);

		/* The host bridge and the LPC bridge: not the windows that the guest itself stands on. */
		if ((d->bdf >> 3) == 0x1f || !d->bdf)
			if (reg >= 0x40)
				continue;
		pci_write(d, reg, size, rnd());
		pci_read(d, reg, size);
	}
}

static void ecam_odd(struct pci_dev *d, u64 ecam)
{
	u64 base = ecam + ((u64)d->bdf << 12);

	for (u32 i = 0; i < 200; i++) {
		u32 off = rnd() & 0xfff;

		mmio_r32(base + off);
		mmio_r16(base + off);
		mmio_r64(base + (off & ~7u));
		if (off >= 0x100) {
			mmio_w32(base + off, rnd());
			mmio_w64(base + off, rnd());
		}
	}
	/* Buses and functions that are not there. */
	for (u32 i = 0; i < 100; i++) {
		mmio_w32(ecam + (rnd() & 0xff00000) + 0x0f00000 + (rnd() & 0xffc), rnd());
		mmio_r32(ecam + (rnd() & 0xffffffc));
	}
}

static void cf8_odd(void)
{
	for (u32 i = 0; i < 300; i++) {
		/* Bus 0x80 and up has nothing that could be hurt. */
		outl(0xcf8, rnd() | 0x800000);
		if (i & 1) {
			inl(0xcfc + rnd() % 4);
			inw(0xcfc + rnd() % 4);
			inb(0xcfc + rnd() % 4);
		} else {
			outl(0xcfc, rnd());
			outw(0xcfc + rnd() % 3, rnd());
			outb(0xcfc + rnd() % 4, rnd());
		}
	}
}

static void attack_function(struct pci_dev *d, u32 round, u64 ecam)
{
	save(d);
	bars_move(d);
	restore(d);
	random_writes(d, 200);
	restore(d);
	if (d->header == 1)
		for (u32 i = 0; i < 20; i++) {
			pci_write(d, 0x18, 4, rnd());
			pci_write(d, 0x20, 4, rnd());
			pci_read(d, 0, 4);
		}
	restore(d);
	if (ecam)
		ecam_odd(d, ecam);
}

void test_evil_pci(void)
{
	u64 ecam;

	if (!evil_init(&e))
		return;
	pci_init();
	if (!pci_count) {
		absent("PCI");
		return;
	}
	ecam = pci_ecam();
	for (u32 round = 0; round < 3; round++) {
		rnd_seed(round + 1);
		for (u32 i = 0; i < pci_count; i++) {
			struct pci_dev *d = &pci_devs[i];
			char name[32];

			format(name, sizeof(name), "PCI %04x, round %u", d->bdf, round);
			e.name = name;
			/* The witness keeps its address. */
			if (d->vendor == 0x1af4 && d != e.dev.pci)
				continue;
			attack_function(d, round, ecam);
			if (!evil_survived(&e))
				return;
		}
		cf8_odd();
	}
	evil_done(&e);
}

/* --- ports ---------------------------------------------------------------------------------------- */

/* What ends or restarts the machine, or belongs to this test's own tools. */
static bool port_excluded(u32 port, u32 size)
{
	static const struct {
		u16 first, last;
	} no[] = {
		{0x60, 0x60}, /* i8042: data of a command that pulls the reset line */
		{0x64, 0x64},	  {0x92, 0x92}, /* fast reset */
		{0xb2, 0xb3},			/* SMI */
		{0xe9, 0xe9},			/* text */
		{0xf4, 0xf7},			/* exit */
		{0x402, 0x402},			/* SeaBIOS' text */
		{0x505, 0x508},			/* pvpanic */
		{0xcc0, 0xcff},			/* hot-unplug, PCI configuration, reset control */
		{0xae00, 0xafff},		/* hot-unplug */
	};
	u8 *fadt = acpi_table("FACP");
	u32 cnt = fadt ? *(u32 *)(fadt + 64) : 0;

	for (u32 i = 0; i < ARRAY_SIZE(no); i++)
		if (port <= no[i].last && port + size > no[i].first)
			return true;
	return cnt && port < cnt + 2 && port + size > cnt;
}

static void sweep_ports(u32 size, bool write)
{
	/* Everything where devices are, a sample elsewhere. */
	for (u32 port = 0; port < 0x10000; port += port < 0x1000 ? 1 : 1 + rnd() % 64) {
		if (port_excluded(port, size))
			continue;
		if (size == 1)
			write ? outb(port, rnd()) : (void)inb(port);
		else if (size == 2)
			write ? outw(port, rnd()) : (void)inw(port);
		else
			write ? outl(port, rnd()) : (void)inl(port);
	}
}

void test_evil_ports(void)
{
	char name[32];

	if (!evil_init(&e))
		return;
	/* What the interrupt controllers are told here is not to reach this CPU. */
	lapic_write(0x350, 0x10000);
	lapic_write(0x360, 0x10000);
	for (u32 round = 0; round < 2; round++) {
		for (u32 i = 0; i < 6; i++) {
			rnd_seed(round * 6 + i + 1);
			format(name, sizeof(name), "ports, round %u, pass %u", round, i);
			e.name = name;
			sweep_ports(1 << i / 2, i & 1);
			if (!evil_survived(&e))
				return;
		}
	}
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/* --- MMIO ----------------------------------------------------------------------------------------- */

static void mmio_odd(u64 base, u32 len, bool write)
{
	for (u32 i = 0; i < 20; i++) {
		u64 a = base + rnd() % len;

		mmio_r8(a);
		mmio_r16(a);
		mmio_r32(a);
		mmio_r64(a);
		if (!write)
			continue;
		mmio_w8(a, rnd());
		mmio_w16(a, rnd());
		mmio_w32(a, rnd());
		mmio_w64(a, rnd());
	}
}

void test_evil_mmio(void)
{
	char name[32];

	if (!evil_init(&e))
		return;
	e.name = name;
	rnd_seed(4711);
	for (u32 round = 0; round < 2; round++) {
		/* Transports without a device, the I/O APIC, what is nobody's. */
		for (u32 i = 0; i < 32; i++) {
			u64 base = MMIO_BASE + i * MMIO_STRIDE;

			format(name, sizeof(name), "MMIO %#lx", base);
			if (mmio_r32(base) != 0x74726976 || !mmio_r32(base + MMIO_DEVICE_ID))
				mmio_odd(base, MMIO_STRIDE - 8, true);
		}
		format(name, sizeof(name), "I/O APIC");
		for (u32 i = 0; i < 0x10000; i += 0x333)
			mmio_odd(IOAPIC_BASE + 0x14 + (i & 0x7f0), 16, false);
		for (u32 i = 0; i < 256; i++) {
			/* Masked, whatever else. */
			ioapic_write(IOAPIC_BASE, rnd(), rnd() | IOAPIC_MASKED);
			ioapic_read(IOAPIC_BASE, rnd());
		}
		format(name, sizeof(name), "holes");
		mmio_odd(0xfed00000, 0x100000, true);
		mmio_odd(0xfec80000, 0x80000, true);
		mmio_odd(0xffe00000, 0x1ffff8, true);
		mmio_odd(0xa0000, 0x20000, true);
		mmio_odd(0x90000000, 0x10000000, true);
		if (!evil_survived(&e))
			return;
	}
	for (u32 i = 0; i < 24; i++)
		ioapic_write(IOAPIC_BASE, 0x10 + 2 * i, IOAPIC_MASKED);
}

/* --- fw_cfg --------------------------------------------------------------------------------------- */

static bool fwcfg_works(void)
{
	u32 id = 0;
	char s[4];

	return fwcfg_present() && !fwcfg_dma(FWCFG_SELECT | FWCFG_READ, s, 4) &&
	       !memcmp(s, "QEMU", 4) && !fwcfg_dma(1 << 16 | FWCFG_SELECT | FWCFG_READ, &id, 4) &&
	       (id & 1);
}

void test_evil_fwcfg(void)
{
	static const u64 nowhere[] = {
		0,	    1ull << 40, ~0ull,	    ~0ull - 15, 0x8000000000000000,
		0xfee00000, 0xb0000000, 0xffffffff, 0xfffffff8, 0xd0000001,
		0xa0000,
	};
	static const u32 len[] = {0, 1, 0xffffffff, 0x80000000, 0x7fffffff, 1 << 20};
	volatile struct fwcfg_dma *d = alloc(4096, 16);
	u8 *mem = alloc(4096, 4096);

	if (!fwcfg_present()) {
		absent("fw_cfg");
		return;
	}
	if (!evil_init(&e))
		return;
	e.name = "fw_cfg";
	/* The command itself is nowhere, or half of it, or unaligned. */
	for (u32 i = 0; i < ARRAY_SIZE(nowhere); i++) {
		fwcfg_dma_raw(nowhere[i]);
		fwcfg_dma_raw(nowhere[i] + 3);
	}
	for (u32 i = 0; i < 16; i++)
		fwcfg_dma_raw(ram_end - i);
	check(fwcfg_works(), "fw_cfg does not work after commands from nowhere");
	/* Its data is. */
	for (u32 i = 0; i < ARRAY_SIZE(nowhere) * ARRAY_SIZE(len) * 4; i++) {
		static const u32 op[] = {FWCFG_READ, FWCFG_WRITE, FWCFG_SKIP,
					 FWCFG_READ | FWCFG_WRITE};
		u32 control = op[i % 4] | FWCFG_SELECT | (i & 16 ? 0x19 << 16 : 0);
		u64 t = rdtsc();

		d->control = __builtin_bswap32(control);
		d->length = __builtin_bswap32(len[i / 4 % ARRAY_SIZE(len)]);
		d->address = __builtin_bswap64(nowhere[i / 4 / ARRAY_SIZE(len)]);
		/* What begins in RAM is written up to where RAM ends: that is no attack but a wish. */
		if (__builtin_bswap64(d->address) < ram_end && __builtin_bswap32(d->length) > 1)
			continue;
		fwcfg_dma_raw((u64)d);
		check(us_since(t) < 2000000, "a command takes %lu us", us_since(t));
		if (i % 32 == 0)
			check(fwcfg_works(), "fw_cfg does not work after %u commands", i);
	}
	/* Over its own command, and control bits that mean nothing. */
	for (u32 i = 0; i < 32; i++) {
		d->control = __builtin_bswap32(1u << i | FWCFG_SELECT | FWCFG_READ);
		d->length = __builtin_bswap32(16);
		d->address = __builtin_bswap64((u64)d);
		fwcfg_dma_raw((u64)d);
	}
	/* Keys that do not exist, beyond the end, writes to what is read-only. */
	for (u32 key = 0; key < 0x10000; key += 0x3f1) {
		fwcfg_dma(key << 16 | FWCFG_SELECT | FWCFG_SKIP, NULL, 0xfffffff0);
		fwcfg_dma(FWCFG_READ, mem, 4096);
		fwcfg_dma(key << 16 | FWCFG_SELECT | FWCFG_WRITE, mem, 64);
		outw(0x510, key);
		outb(0x511, key);
		inb(0x511);
		inw(0x510);
		outl(0x510, key);
	}
	check(fwcfg_works(), "fw_cfg does not work any more");
	evil_survived(&e);
}
