/* SPDX-License-Identifier: GPL-2.0-only */
/* fw_cfg: signature, directory, the same bytes by the data port and by DMA. */
#include "guest.h"
#include "fwcfg.h"
#include "tests.h"

static u16 be16(u16 v)
{
	return __builtin_bswap16(v);
}

void fwcfg_dma_raw(u64 addr)
{
	outl(0x514, __builtin_bswap32(addr >> 32));
	outl(0x518, __builtin_bswap32(addr));
}

u32 fwcfg_dma(u32 control, void *p, u32 len)
{
	volatile struct fwcfg_dma d = {
		.control = __builtin_bswap32(control),
		.length = __builtin_bswap32(len),
		.address = __builtin_bswap64((u64)p),
	};
	u64 t = rdtsc();

	fwcfg_dma_raw((u64)&d);
	while (__builtin_bswap32(d.control) & ~FWCFG_ERROR)
		if (us_since(t) > 1000000)
			break;
	return __builtin_bswap32(d.control);
}

void fwcfg_read(u16 key, void *p, u32 len)
{
	u8 *b = p;

	outw(0x510, key);
	for (u32 i = 0; i < len; i++)
		b[i] = inb(0x511);
}

bool fwcfg_present(void)
{
	char s[4];

	fwcfg_read(0, s, 4);
	return !memcmp(s, "QEMU", 4);
}

static void test_file(const struct fwcfg_file *f)
{
	u32 len = MIN(__builtin_bswap32(f->size), 2048);
	u8 *a = alloc(4096, 16), *b = alloc(4096, 16);
	u16 key = be16(f->select);

	fwcfg_read(key, a, len);
	check_eq(fwcfg_dma(key << 16 | FWCFG_SELECT | FWCFG_READ, b, len), 0);
	check(!memcmp(a, b, len), "%s differs by DMA", f->name);
	/* Skip half, read the rest. */
	check_eq(fwcfg_dma(key << 16 | FWCFG_SELECT | FWCFG_SKIP, NULL, len / 2), 0);
	check_eq(fwcfg_dma(FWCFG_READ, b, len - len / 2), 0);
	check(!memcmp(a + len / 2, b, len - len / 2), "%s differs after a skip", f->name);
	/* Beyond the end there are zeroes. */
	if (__builtin_bswap32(f->size) == len) {
		memset(b, 0xee, 4096);
		check_eq(fwcfg_dma(key << 16 | FWCFG_SELECT | FWCFG_READ, b, len + 16), 0);
		for (u32 i = len; i < len + 16; i++)
			check_eq(b[i], 0);
	}
}

void test_fwcfg(void)
{
	struct fwcfg_file *dir = alloc(64 * sizeof(*dir), 16);
	u32 id, n;
	u16 cpus;

	if (!fwcfg_present()) {
		absent("fw_cfg");
		return;
	}
	tsc_calibrate();
	fwcfg_read(1, &id, 4);
	check_eq(id & 3, 3);				     /* traditional interface and DMA */
	check_eq(__builtin_bswap32(inl(0x514)), 0x51454d55); /* "QEMU CFG" */
	check_eq(__builtin_bswap32(inl(0x518)), 0x20434647);
	fwcfg_read(5, &cpus, 2);
	check_eq(cpus, param_u64("cpus", 1));
	fwcfg_read(0x19, &n, 4);
	n = __builtin_bswap32(n);
	if (!check(n < 64, "%u files", n))
		return;
	check_eq(fwcfg_dma(0x19 << 16 | FWCFG_SELECT | FWCFG_SKIP, NULL, 4), 0);
	check_eq(fwcfg_dma(FWCFG_READ, dir, n * sizeof(*dir)), 0);
	for (u32 i = 0; i < n; i++) {
		print("%4x %8u %s\n", be16(dir[i].select), __builtin_bswap32(dir[i].size),
		      dir[i].name);
		check(be16(dir[i].select) >= 0x20 && !dir[i].name[55], "file %u is odd", i);
		for (u32 j = 0; j < i; j++)
			check(strcmp(dir[i].name, dir[j].name), "%s twice", dir[i].name);
		test_file(&dir[i]);
	}
	/* An item that does not exist reads as zeroes. */
	fwcfg_read(0x3eee, &id, 4);
	check_eq(id, 0);
}
