/* SPDX-License-Identifier: GPL-2.0-only */
/* Direct boot of files that are no kernels, or damaged ones: each is refused in one line. */
#include "boot_test.h"

START_TEST(test_bzimage_bad)
{
	struct setup_header *h = bz_header();
	char text[64];

	make_bzimage("\x1f\x8b\x08 what", 8, 4096);
	if (HAVE_ZLIB)
		ASSERT_FAILS(bz, bz_len, NULL, -EBADMSG, "gzip data is damaged");
	snprintf(text, sizeof(text), "header says %zu bytes, the file has %zu", bz_len, bz_len / 2);
	ASSERT_FAILS(bz, bz_len / 2, NULL, -ENODATA, text);
	h->payload_length = bz_len;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOEXEC, "payload");
	h->payload_offset = 0xfffffff0;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOEXEC, "payload");
	make_bzimage("BZh", 3, 64);
	h->init_size = 0x7fffffff;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOMEM, "64 MiB do not reach");
	make_bzimage("\x1f\x8b\x08", 3, 64);
	h->pref_address = 0xfffffffffffff000;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOMEM, "64 MiB do not reach");
	make_bzimage("BZh", 3, 64);
	h->version = 0x205;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOEXEC, "boot protocol 2.05");
	make_bzimage("BZh", 3, 64);
	h->loadflags = 0;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOEXEC, "zImage");
	make_bzimage("BZh", 3, 64);
	h->syssize = 0;
	ASSERT_FAILS(bz, bz_len, NULL, -ENOEXEC, "empty");
}
END_TEST

/* --- what is not a kernel --------------------------------------------------------------------- */

static void expect_open(const char *kernel, const char *initrd, int code, const char *text)
{
	struct boot_config c = {.kernel = kernel, .initrd = initrd};
	struct boot_source *src;

	ck_assert_int_eq(boot_open(&c, &src, &err), code);
	ck_assert_ptr_null(src);
	ck_assert_msg(strstr(err.message, text) != NULL, "%s", err.message);
}

START_TEST(test_files)
{
	struct file empty = make_file("", 0), kernel;
	uint8_t f[ELF_SIZE];

	make_elf64(f, true);
	kernel = make_file(f, sizeof(f));
	expect_open("/", NULL, -EISDIR, "/: is a directory");
	expect_open("/dev/null", NULL, -EINVAL, "not a regular file");
	expect_open("/no/such/kernel", NULL, -ENOENT, "/no/such/kernel: No such file");
	expect_open(empty.path, NULL, -EINVAL, "is empty");
	expect_open(kernel.path, "/", -EISDIR, "/: is a directory");
	expect_open(kernel.path, "/no/initrd", -ENOENT, "/no/initrd: No such file");
	expect_open(kernel.path, empty.path, -EINVAL, "is empty");
	close(empty.fd);
	close(kernel.fd);
}
END_TEST

static const struct {
	unsigned int offset, len;
	const char *data, *text;
} foreign[] = {
	{0x38, 4, "ARMd", "aarch64"},
	{0x38, 4, "RSC\5", "RISC-V"},
	{0, 4, "\x27\x05\x19\x56", "U-Boot"},
	{0, 4, "QFI\xfb", "qcow2"},
	{0, 6, "070701", "cpio"},
	{0, 10, "#!/bin/sh\n", "script"},
	{0x1fe, 2, "\x55\xaa", "boot sector"},
	{0, 3, "BZh", "bzip2"},
	{0, 5, "hello", "is not a kernel"},
};

START_TEST(test_foreign)
{
	uint8_t f[1024];

	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		memset(f, 0, sizeof(f));
		memcpy(f + foreign[i].offset, foreign[i].data, foreign[i].len);
		ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, foreign[i].text);
	}
	ASSERT_FAILS("M", 1, NULL, -ENOEXEC, "is not a kernel");
	memset(f, 0, sizeof(f));
	memcpy(f, "MZ", 2);
	f[0x3c] = 0x80;
	memcpy(f + 0x80, "PE\0\0", 4);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "EFI program");
}
END_TEST

START_TEST(test_elf_bad)
{
	uint8_t f[ELF_SIZE];
	Elf64_Ehdr *e = (Elf64_Ehdr *)f;
	Elf64_Phdr *p = (Elf64_Phdr *)(f + sizeof(*e));

#define BAD(CHANGE, CODE, TEXT)                               \
	do {                                                  \
		make_elf64(f, false);                         \
		CHANGE;                                       \
		ASSERT_FAILS(f, sizeof(f), NULL, CODE, TEXT); \
	} while (0)
	BAD(e->e_machine = EM_AARCH64, -ENOEXEC, "ELF file for aarch64");
	BAD(e->e_ident[EI_DATA] = ELFDATA2MSB, -ENOEXEC, "not for x86");
	BAD(e->e_type = ET_REL, -ENOEXEC, "object file");
	BAD(e->e_phnum = 0, -ENOEXEC, "0 program headers");
	BAD(e->e_phnum = 0xffff, -ENOEXEC, "65535 program headers");
	BAD(e->e_phentsize = 8, -ENOEXEC, "of 8 bytes");
	BAD(e->e_phoff = UINT64_MAX, -ENODATA, "truncated");
	BAD(e->e_phoff = ELF_SIZE - 10, -ENODATA, "truncated");
	BAD(e->e_entry = 0x100, -ENOEXEC, "entry point 0x100");
	BAD(p[2].p_type = PT_INTERP, -ENOEXEC, "is a program");
	BAD(p[1].p_offset = 0x2900, -ENODATA, "the file has 12288 bytes");
	BAD(p[1].p_offset = UINT64_MAX - 10, -ENODATA, "the file has 12288 bytes");
	BAD(p[1].p_filesz = 0x800 + BSS_SIZE + 1, -ENOEXEC, "bad ELF segment");
	BAD(p[1].p_memsz = UINT64_MAX, -ENOEXEC, "bad ELF segment");
	BAD(p[1].p_paddr = TEXT_GPA + 0xfff, -ENOEXEC, "overlap");
	BAD(p[1].p_paddr = 0x9000, -ENOEXEC, "below 1 MiB");
	BAD(p[1].p_paddr = HOLE - 0x1000, -ENOMEM, "64 MiB of memory do not reach");
	BAD(p[1].p_paddr = RAM_SIZE - 0x1000, -ENOMEM, "64 MiB of memory do not reach");
	BAD(p[1].p_paddr = 1ull << 40, -ENOMEM, "64 MiB of memory do not reach");
	BAD(p[0].p_type = p[1].p_type = PT_NULL, -ENOEXEC, "nothing to load");
	make_elf32(f, false);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "without a PVH note or a Multiboot header");
	make_elf64(f, true);
	put_le32(f + NOTE_OFF + 24 + 16, 0x1000);
	ASSERT_FAILS(f, sizeof(f), NULL, -ENOEXEC, "PVH entry point 0x1000");
}
END_TEST

/* --- random damage ---------------------------------------------------------------------------- */

/* Values that are apt to break arithmetic. */
static const uint64_t nasty[] = {
	0,	    1,		 0xff,	     0x7fffffff, 0x80000000,
	0xffffffff, 0x100000000, 1ull << 63, UINT64_MAX, UINT64_MAX - 4095};

static void mutate(uint8_t *f, size_t len, size_t header)
{
	for (int n = 1 + rand() % 3; n; n--) {
		size_t size = 1u << rand() % 4, off = rand() % (header - 8);
		uint64_t v = rand() & 1 ? nasty[rand() % ARRAY_SIZE(nasty)] : (uint64_t)rand();

		if (rand() & 1)
			off = ALIGN_DOWN(off, size);
		memcpy(f + off, &v, size);
	}
}

/*
 * Whatever a header says: loaded or refused in one line, and nothing outside RAM and in reserved
 * ranges is touched.
 */
START_TEST(test_mutations)
{
	static uint8_t packed[BZ_MAX / 2];
	struct file initrd = make_file("initrd", 6);
	struct boot_config c = {.initrd = initrd.path, .append = "a=b"};
	uint8_t f[ELF_SIZE], *vmlinux = make_vmlinux(BZ_PREF, second_at[1]);
	size_t len = pack(LZ4, vmlinux, VM_SIZE, packed, sizeof(packed));
	unsigned int booted = 0;

	for (int seed = 0; seed < 150; seed++) {
		srand(_i * 1000 + seed);
		err.message[0] = 0;
		switch (_i) {
		case 0:
			make_elf64(f, seed & 1);
			mutate(f, sizeof(f), 64 + 3 * 56);
			if (seed & 1)
				mutate(f + NOTE_OFF, 60, 60);
			booted += !boot(f, sizeof(f), &c);
			break;
		case 1:
			make_elf32(f, false);
			put_multiboot(f + 0x200, seed & 1 ? 3 : 0x10003);
			for (int i = 0; i < 5; i++)
				put_le32(f + 0x20c + 4 * i, TEXT_GPA + 0x200);
			mutate(f, sizeof(f), 52 + 3 * 32);
			mutate(f + 0x20c, 28, 28);
			booted += !boot(f, sizeof(f), &c);
			break;
		case 2:
			if (len)
				make_bzimage(packed, len, len);
			else
				make_bzimage("BZh", 3, 64);
			mutate(bz + 0x1f1, 128, 0x7b);
			booted += !boot(bz, bz_len, &c);
			break;
		case 3:
			/* damage to the vmlinux within */
			memcpy(bz, vmlinux, 4096);
			mutate(vmlinux, VM_SIZE, 64 + 2 * 56);
			len = pack(LZ4, vmlinux, VM_SIZE, packed, sizeof(packed));
			memcpy(vmlinux, bz, 4096);
			if (!len)
				break;
			make_bzimage(packed, len, len);
			booted += !boot(bz, bz_len, &c);
			break;
		}
		ck_assert_ptr_null(strchr(err.message, '\n'));
		check_reserved();
	}
	/* Some damage does no harm; without it this would test little. */
	if (_i < 3 || len) {
		ck_assert_uint_gt(booted, 0);
		ck_assert_uint_lt(booted, 150);
	}
	free(vmlinux);
	close(initrd.fd);
}
END_TEST

/* Somebody writes the kernel's file anew after it was opened: found out when the guest starts again. */
START_TEST(test_shortened)
{
	static uint8_t packed[BZ_MAX / 2];
	struct boot_config c = {.decompress = BOOT_DECOMPRESS_HOST};
	uint8_t *vmlinux = make_vmlinux(BZ_PREF, second_at[0]);
	size_t len = pack(GZIP, vmlinux, VM_SIZE, packed, sizeof(packed));
	struct boot_source *src;
	struct file f;

	free(vmlinux);
	if (!len)
		return;
	make_bzimage(packed, len, len);
	f = _i ? make_file(packed, len) : make_file(bz, bz_len);
	c.kernel = f.path;
	ck_assert_int_eq(boot_open(&c, &src, &err), 0);
	ck_assert_int_eq(boot_install(src, &mem, &map, 0xe0000, &entry, &err), 0);
	ck_assert_int_eq(ftruncate(f.fd, _i ? 0 : 4096), 0);
	ck_assert_int_eq(boot_install(src, &mem, &map, 0xe0000, &entry, &err), -ENODATA);
	ck_assert_ptr_nonnull(strstr(err.message, "has become shorter"));
	boot_close(src);
	close(f.fd);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("boot_bad");
	TCase *tc = tcase_create("formats");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_set_timeout(tc, 120);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, test_bzimage_bad);
	tcase_add_test(tc, test_files);
	tcase_add_test(tc, test_foreign);
	tcase_add_test(tc, test_elf_bad);
	tcase_add_loop_test(tc, test_mutations, 0, 4);
	tcase_add_loop_test(tc, test_shortened, 0, 2);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
