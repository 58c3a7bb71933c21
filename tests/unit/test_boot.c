/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Direct boot of small kernels that are made here. What ends up in guest RAM is compared with the
 * structures of <asm/bootparam.h>, the PVH and the Multiboot specification.
 */
#include "boot_test.h"

/* --- PVH -------------------------------------------------------------------------------------- */

static void check_pvh(void)
{
	const uint8_t *info = ram(entry.rbx, 56), *mm;

	ck_assert_int_eq(entry.mode, BOOT_MODE_PROTECTED);
	ck_assert_uint_eq(entry.rip, TEXT_GPA + 0x20 - 0x200000 + 0x200000);
	ck_assert_uint_eq(get_le32(info), 0x336ec578);
	ck_assert_uint_eq(get_le32(info + 4), 1);
	ck_assert_uint_eq(get_le64(info + 24), BOOT_CMDLINE_GPA);
	ck_assert_uint_eq(get_le64(info + 32), 0xe0000);
	ck_assert_uint_eq(get_le32(info + 48), map.n);
	mm = ram(get_le64(info + 40), map.n * 24);
	for (unsigned int i = 0; i < map.n; i++, mm += 24) {
		ck_assert_uint_eq(get_le64(mm), map.entry[i].addr);
		ck_assert_uint_eq(get_le64(mm + 8), map.entry[i].size);
		ck_assert_uint_eq(get_le32(mm + 16), map.entry[i].type);
	}
	check_gdt(false);
}

START_TEST(test_pvh)
{
	uint8_t f[ELF_SIZE];

	if (_i)
		make_elf32(f, true);
	else
		make_elf64(f, true);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	check_segments();
	check_pvh();
	ck_assert_uint_eq(get_le32(ram(entry.rbx, 56) + 12), 0);
}
END_TEST

START_TEST(test_pvh_initrd)
{
	struct file initrd = make_file("initrd", 6);
	struct boot_config c = {.initrd = initrd.path, .append = "a=b"};
	uint8_t f[ELF_SIZE];
	const uint8_t *info, *mod;

	make_elf64(f, true);
	ASSERT_BOOTS(f, sizeof(f), &c);
	check_pvh();
	info = ram(entry.rbx, 56);
	ck_assert_uint_eq(get_le32(info + 12), 1);
	mod = ram(get_le64(info + 16), 32);
	ck_assert_uint_eq(get_le64(mod), RAM_SIZE - 4096);
	ck_assert_uint_eq(get_le64(mod + 8), 6);
	ck_assert_mem_eq(ram(get_le64(mod), 6), "initrd", 6);
	close(initrd.fd);
}
END_TEST

/* --- vmlinux ---------------------------------------------------------------------------------- */

static void check_params(const struct boot_params *bp, const char *cmdline)
{
	ck_assert_uint_eq(bp->hdr.boot_flag, 0xaa55);
	ck_assert_uint_eq(bp->hdr.header, 0x53726448);
	ck_assert_uint_eq(bp->hdr.type_of_loader, 0xff);
	ck_assert_uint_eq(bp->sentinel, 0);
	ck_assert_uint_eq(bp->acpi_rsdp_addr, 0xe0000);
	ck_assert_str_eq((const char *)ram(bp->hdr.cmd_line_ptr, 4), cmdline);
	ck_assert_uint_eq(bp->e820_entries, map.n);
	for (unsigned int i = 0; i < map.n; i++) {
		ck_assert(bp->e820_table[i].addr == map.entry[i].addr);
		ck_assert(bp->e820_table[i].size == map.entry[i].size);
		ck_assert(bp->e820_table[i].type == map.entry[i].type);
	}
}

START_TEST(test_vmlinux)
{
	uint8_t f[ELF_SIZE];
	const struct boot_params *bp;

	make_elf64(f, false);
	if (_i) /* the entry as a virtual address */
		((Elf64_Ehdr *)f)->e_entry = 0xffffffff80200010;
	ASSERT_BOOTS(f, sizeof(f), NULL);
	check_segments();
	check_gdt(true);
	check_identity_map();
	ck_assert_int_eq(entry.mode, BOOT_MODE_LONG);
	ck_assert_uint_eq(entry.rip, TEXT_GPA + 0x10);
	bp = (const void *)ram(entry.rsi, sizeof(*bp));
	check_params(bp, "a=b");
	ck_assert_uint_eq(bp->hdr.ramdisk_size, 0);
	ck_assert(bp->hdr.loadflags & KASLR_FLAG);
}
END_TEST

/* The CPU's way from ffff:0000: a far jump to code that pulses the reset line. */
START_TEST(test_reset_vector)
{
	const uint8_t *p = memory_ptr(&mem, 0xffff0, 16);
	uint8_t f[ELF_SIZE];

	make_elf64(f, true);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	ck_assert_uint_eq(p[0], 0xea);
	p = ram(get_le16(p + 3) * 16 + get_le16(p + 1), 4);
	ck_assert_mem_eq(p, "\xb0\xfe\xe6\x64", 4);
}
END_TEST

/* Two kernels of one machine get different seeds. */
START_TEST(test_seed)
{
	const struct boot_params *bp;
	const struct setup_data *data;
	uint8_t f[ELF_SIZE], seed[32];

	make_elf64(f, false);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	bp = (const void *)ram(entry.rsi, sizeof(*bp));
	data = (const void *)ram(bp->hdr.setup_data, sizeof(*data) + 32);
	ck_assert_uint_eq(data->type, SETUP_RNG_SEED);
	ck_assert_uint_eq(data->len, 32);
	ck_assert_uint_eq(data->next, 0);
	memcpy(seed, data->data, 32);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	ck_assert_mem_ne(seed, data->data, 32);
}
END_TEST

START_TEST(test_nokaslr)
{
	static const struct boot_config off = {.append = "x nokaslr"},
					on = {.append = "xnokaslr nokaslr=1"};
	const struct boot_params *bp = memory_ptr(&mem, BOOT_ZERO_PAGE_GPA, sizeof(*bp));
	uint8_t f[ELF_SIZE];

	make_elf64(f, false);
	ASSERT_BOOTS(f, sizeof(f), &off);
	ck_assert(!(bp->hdr.loadflags & KASLR_FLAG));
	ASSERT_BOOTS(f, sizeof(f), &on);
	ck_assert(bp->hdr.loadflags & KASLR_FLAG);
}
END_TEST

/* --- Multiboot -------------------------------------------------------------------------------- */

static void check_multiboot_info(unsigned int mods)
{
	const uint8_t *info = ram(entry.rbx, 116), *mm, *mod;

	ck_assert_int_eq(entry.mode, BOOT_MODE_PROTECTED);
	ck_assert_uint_eq(entry.rax, 0x2badb002);
	ck_assert_uint_eq(get_le32(info) & 0x4d, 0x4d);
	ck_assert_uint_eq(get_le32(info + 4), 639);		   /* mem_lower */
	ck_assert_uint_eq(get_le32(info + 8), (HOLE - MiB) / KiB); /* mem_upper */
	ck_assert_uint_eq(get_le32(info + 16), BOOT_CMDLINE_GPA);
	ck_assert_uint_eq(get_le32(info + 20), mods);
	if (mods) {
		mod = ram(get_le32(info + 24), 16);
		ck_assert_uint_eq(get_le32(mod) % 4096, 0);
		ck_assert_uint_eq(get_le32(mod + 4) - get_le32(mod), 6);
		ck_assert_mem_eq(ram(get_le32(mod), 6), "initrd", 6);
	}
	ck_assert_uint_eq(get_le32(info + 44), map.n * 24);
	mm = ram(get_le32(info + 48), map.n * 24);
	for (unsigned int i = 0; i < map.n; i++, mm += 24) {
		ck_assert_uint_eq(get_le32(mm), 20);
		ck_assert_uint_eq(get_le64(mm + 4), map.entry[i].addr);
		ck_assert_uint_eq(get_le64(mm + 12), map.entry[i].size);
		ck_assert_uint_eq(get_le32(mm + 20), map.entry[i].type);
	}
	check_gdt(false);
}

START_TEST(test_multiboot_elf)
{
	struct file initrd = make_file("initrd", 6);
	struct boot_config c = {.initrd = initrd.path, .append = "a=b"};
	uint8_t f[ELF_SIZE];

	make_elf32(f, false);
	put_multiboot(f + 0x800, 3);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	check_segments();
	check_multiboot_info(0);
	ck_assert_uint_eq(entry.rip, TEXT_GPA + 0x10);
	ASSERT_BOOTS(f, sizeof(f), &c);
	check_multiboot_info(1);
	/* Bits 3 to 15 are features that a loader must know. */
	put_multiboot(f + 0x800, 3 | 0x100);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "0x100");
	close(initrd.fd);
}
END_TEST

/* The addresses in the header: the file from 0x40 on goes to 2 MiB, and has some BSS. */
START_TEST(test_multiboot_addresses)
{
	uint8_t f[0x1000];

	memset(f, 0x33, sizeof(f));
	put_multiboot(f + 0x100, 0x10003);
	put_le32(f + 0x10c, TEXT_GPA + 0xc0); /* header_addr */
	put_le32(f + 0x110, TEXT_GPA);
	put_le32(f + 0x114, TEXT_GPA + 0x800); /* load_end_addr */
	put_le32(f + 0x118, TEXT_GPA + 0x900); /* bss_end_addr */
	put_le32(f + 0x11c, TEXT_GPA + 0x20);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	check_multiboot_info(0);
	ck_assert_uint_eq(entry.rip, TEXT_GPA + 0x20);
	ck_assert_mem_eq(ram(TEXT_GPA, 0x800), f + 0x40, 0x800);
	check_fill(TEXT_GPA + 0x800, 0x100, 0);
	/* All of the file, no BSS */
	put_le32(f + 0x114, 0);
	put_le32(f + 0x118, 0);
	ASSERT_BOOTS(f, sizeof(f), NULL);
	ck_assert_mem_eq(ram(TEXT_GPA, 0xfc0), f + 0x40, 0xfc0);
	put_le32(f + 0x114, TEXT_GPA + 0x2000);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENODATA, "8192 bytes from offset 64, the file has 4096");
	put_le32(f + 0x114, 0);
	put_le32(f + 0x11c, TEXT_GPA - 1);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "make no sense");
	put_le32(f + 0x110, TEXT_GPA + 0xc4);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "make no sense");
}
END_TEST

START_TEST(test_bzimage)
{
	static uint8_t packed[BZ_MAX / 2];
	static const struct boot_config host = {.append = "a=b",
						.decompress = BOOT_DECOMPRESS_HOST};

	for (size_t i = 0; i < ARRAY_SIZE(second_at); i++) {
		uint8_t *vmlinux = make_vmlinux(BZ_PREF, second_at[i]);
		size_t len = pack(_i, vmlinux, VM_SIZE, packed, sizeof(packed));
		const struct boot_params *bp;

		free(vmlinux);
		if (!len)
			return;
		make_bzimage(packed, len, len);
		ASSERT_BOOTS(bz, bz_len, &host);
		check_vmlinux(BZ_PREF, second_at[i]);
		ck_assert_int_eq(entry.mode, BOOT_MODE_LONG);
		ck_assert_uint_eq(entry.rip, BZ_PREF + 0x10);
		bp = (const void *)ram(entry.rsi, sizeof(*bp));
		check_params(bp, "a=b");
		ck_assert_uint_eq(bp->hdr.kernel_alignment, 0x200000);
		ck_assert_uint_eq(bp->hdr.init_size, BZ_INIT);
		check_gdt(true);
		check_identity_map();
		check_reserved();
		/* A 64th of RAM and 8 MiB at its top, 22 MiB behind the kernel. */
		ck_assert_uint_eq(entry.soon[0].gpa, 54 * MiB);
		ck_assert_uint_eq(entry.soon[0].len, 10 * MiB);
		ck_assert_uint_eq(entry.soon[1].gpa, BZ_PREF + BZ_INIT);
		ck_assert_uint_eq(entry.soon[1].len, 22 * MiB);
	}
}
END_TEST

/* The memory that Linux will touch first ends below an initrd; none is told where it would not fit above the kernel. */
START_TEST(test_soon)
{
	struct file initrd = make_file("initrd", 6);
	struct boot_config c = {.initrd = initrd.path, .append = "a=b"};

	make_bzimage("BZh91AY&SY", 10, 64);
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(entry.soon[0].gpa, 52 * MiB);
	ck_assert_uint_eq(entry.soon[0].len, 12 * MiB - PAGE_SIZE);
	bz_header()->init_size = 32 * MiB;
	map.n = 0;
	ck_assert_int_eq(e820_add(&map, 0, RAM_SIZE, 1), 0);
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(entry.soon[0].len, 0);
	ck_assert_uint_eq(entry.soon[1].len, 0);
	close(initrd.fd);
}
END_TEST

/*
 * A first segment that is not where it is unpacked to: what is moved must not overwrite what is
 * to be moved.
 */
START_TEST(test_bzimage_swapped)
{
	static uint8_t packed[BZ_MAX / 2];
	uint8_t *vmlinux = make_vmlinux(BZ_PREF + 0x20000, BZ_PREF);
	size_t len = pack(GZIP, vmlinux, VM_SIZE, packed, sizeof(packed));

	free(vmlinux);
	if (!len)
		return;
	make_bzimage(packed, len, len);
	ASSERT_BOOTS(bz, bz_len, NULL);
	check_vmlinux(BZ_PREF + 0x20000, BZ_PREF);
}
END_TEST

static void check_packed(uint64_t at, enum boot_mode mode)
{
	const struct boot_params *bp = (const void *)ram(entry.rsi, sizeof(*bp));

	ck_assert_int_eq(entry.mode, mode);
	ck_assert_uint_eq(entry.rip, at + (mode == BOOT_MODE_LONG ? 0x200 : 0));
	ck_assert_mem_eq(ram(at, bz_len - BZ_SETUP), bz + BZ_SETUP, bz_len - BZ_SETUP);
	check_params(bp, "a=b");
	ck_assert_uint_eq(bp->hdr.code32_start, at);
	check_gdt(mode == BOOT_MODE_LONG);
	check_reserved();
}

START_TEST(test_bzimage_guest)
{
	static const struct boot_config guest = {.append = "a=b",
						 .decompress = BOOT_DECOMPRESS_GUEST},
					host = {.append = "a=b",
						.decompress = BOOT_DECOMPRESS_HOST};

	/* Asked for, or packed in a way that is not known here. */
	make_bzimage("\x1f\x8b\x08 what", 8, 64);
	ASSERT_BOOTS(bz, bz_len, &guest);
	check_packed(BZ_PREF, BOOT_MODE_LONG);
	make_bzimage("BZh91AY&SY", 10, 64);
	ASSERT_BOOTS(bz, bz_len, NULL);
	check_packed(BZ_PREF, BOOT_MODE_LONG);
	ASSERT_FAILS(bz, bz_len, &host, -EOPNOTSUPP, "not compressed in a way");
	/* A 32-bit kernel, relocatable or not */
	bz_header()->xloadflags = 0;
	ASSERT_BOOTS(bz, bz_len, NULL);
	check_packed(BZ_PREF, BOOT_MODE_PROTECTED);
	ASSERT_FAILS(bz, bz_len, &host, -EOPNOTSUPP, "no payload");
	bz_header()->relocatable_kernel = 0;
	ASSERT_BOOTS(bz, bz_len, NULL);
	check_packed(0x100000, BOOT_MODE_PROTECTED);
	/* An old protocol: later fields hold anything. */
	bz_header()->version = 0x206;
	bz_header()->init_size = bz_header()->payload_offset = 0xffffffff;
	bz_header()->xloadflags = 0xffff;
	ASSERT_BOOTS(bz, bz_len, NULL);
	check_packed(0x100000, BOOT_MODE_PROTECTED);
}
END_TEST

/* vmlinux.gz and the like; what is inside is checked as any kernel. */
START_TEST(test_packed_elf)
{
	static uint8_t packed[ELF_SIZE], twice[ELF_SIZE];
	uint8_t f[ELF_SIZE];
	size_t len;

	make_elf64(f, true);
	len = pack(_i, f, sizeof(f), packed, sizeof(packed));
	if (!len)
		return;
	ASSERT_BOOTS(packed, len, NULL);
	check_segments();
	check_pvh();
	ASSERT_FAILS(packed, len / 2, NULL, -EBADMSG, "damaged or truncated");
	len = pack(_i, packed, len, twice, sizeof(twice));
	ASSERT_FAILS(twice, len, NULL, -ENOEXEC, "compressed twice");
	((Elf64_Ehdr *)f)->e_machine = EM_AARCH64;
	len = pack(_i, f, sizeof(f), packed, sizeof(packed));
	ASSERT_FAILS(packed, len, NULL, -ENOEXEC, "aarch64");
}
END_TEST

/* --- initrd and command line ------------------------------------------------------------------ */

START_TEST(test_initrd)
{
	static uint8_t data[3 * MiB + 5];
	struct file initrd;
	struct boot_config c = {.append = "a=b", .decompress = BOOT_DECOMPRESS_GUEST};
	const struct boot_params *bp = memory_ptr(&mem, BOOT_ZERO_PAGE_GPA, sizeof(*bp));

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = i * 7 >> 3;
	initrd = make_file(data, sizeof(data));
	c.initrd = initrd.path;
	make_bzimage("BZh", 3, 64);
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(bp->hdr.ramdisk_size, sizeof(data));
	ck_assert_uint_eq(bp->hdr.ramdisk_image, RAM_SIZE - ALIGN_UP(sizeof(data), 4096));
	ck_assert_mem_eq(ram(bp->hdr.ramdisk_image, sizeof(data)), data, sizeof(data));
	/* Below what the kernel allows, and below what is reserved */
	bz_header()->initrd_addr_max = HOLE + 0x10000;
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(bp->hdr.ramdisk_image, HOLE - ALIGN_UP(sizeof(data), 4096));
	bz_header()->initrd_addr_max = 0x1bfffff;
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(bp->hdr.ramdisk_image, 0x1c00000 - ALIGN_UP(sizeof(data), 4096));
	check_reserved();
	/* The kernel needs up to 0x1800000. */
	bz_header()->initrd_addr_max = 0x18fffff;
	ASSERT_FAILS(
		bz, bz_len, &c, -E2BIG,
		"an initrd of 3073 KiB does not fit: the guest has 64 MiB of memory, 1024 KiB");
	/* Unless it says that all of 4 GiB will do */
	bz_header()->xloadflags |= XLF_CAN_BE_LOADED_ABOVE_4G;
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_uint_eq(bp->hdr.ramdisk_image, RAM_SIZE - ALIGN_UP(sizeof(data), 4096));
	ck_assert_int_eq(ftruncate(initrd.fd, 65 * MiB), 0);
	ASSERT_FAILS(bz, bz_len, &c, -E2BIG, "an initrd of 66560 KiB does not fit");
	close(initrd.fd);
}
END_TEST

START_TEST(test_cmdline)
{
	static char text[BOOT_CMDLINE_MAX + 1];
	struct boot_config c = {.append = text};
	uint8_t f[ELF_SIZE];

	memset(text, 'x', 2047);
	make_bzimage("BZh", 3, 64);
	ASSERT_BOOTS(bz, bz_len, &c);
	ck_assert_str_eq((const char *)ram(BOOT_CMDLINE_GPA, 2048), text);
	text[2047] = 'x';
	ASSERT_FAILS(bz, bz_len, &c, -E2BIG, "2048 bytes");
	make_elf64(f, true);
	ASSERT_BOOTS(f, sizeof(f), &c);
	memset(text, 'x', BOOT_CMDLINE_MAX);
	ASSERT_FAILS(f, sizeof(f), &c, -E2BIG, "65536 bytes");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("boot");
	TCase *tc = tcase_create("formats");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_loop_test(tc, test_pvh, 0, 2);
	tcase_add_test(tc, test_pvh_initrd);
	tcase_add_loop_test(tc, test_vmlinux, 0, 2);
	tcase_add_test(tc, test_reset_vector);
	tcase_add_test(tc, test_seed);
	tcase_add_test(tc, test_nokaslr);
	tcase_add_test(tc, test_multiboot_elf);
	tcase_add_test(tc, test_multiboot_addresses);
	tcase_add_loop_test(tc, test_bzimage, 0, NPACKERS);
	tcase_add_test(tc, test_soon);
	tcase_add_test(tc, test_bzimage_swapped);
	tcase_add_test(tc, test_bzimage_guest);
	tcase_add_test(tc, test_initrd);
	tcase_add_test(tc, test_cmdline);
	tcase_add_loop_test(tc, test_packed_elf, 0, NPACKERS);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
