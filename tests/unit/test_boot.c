/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Direct boot of small kernels that are made here, and of files that are none. What ends up in
 * guest RAM is compared with the structures of <asm/bootparam.h>, the PVH and the Multiboot
 * specification.
 */
#include <asm/bootparam.h>
#include <check.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86/boot.h"

#define RAM_SIZE (64 * MiB)
#define HOLE	 (32 * MiB) /* a reserved MiB in the midst of RAM */
#define CANARY	 0xc5

static struct memory mem;
static struct e820 map;
static struct boot_entry entry;
static struct hako_error err;

/* --- files ------------------------------------------------------------------------------------ */

struct file {
	int fd;
	char path[32];
};

static struct file make_file(const void *data, size_t len)
{
	struct file f = {.fd = memfd_create("kernel", 0)};

	ck_assert_int_ge(f.fd, 0);
	ck_assert_int_eq(write(f.fd, data, len), len);
	snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
	return f;
}

/* Open and install; 0 or what went wrong first, with the text in err. */
static int boot(const void *data, size_t len, const struct boot_config *base)
{
	struct boot_config config = base ? *base : (struct boot_config){.append = "a=b"};
	struct file f = make_file(data, len);
	struct boot_source *src;
	int ret;

	config.kernel = f.path;
	ret = boot_open(&config, &src, &err);
	if (!ret) {
		ret = boot_install(src, &mem, &map, 0xe0000, &entry, &err);
		boot_close(src);
	}
	close(f.fd);
	return ret;
}

#define ASSERT_BOOTS(DATA, LEN, CONFIG)                                \
	do {                                                           \
		int ret_ = boot(DATA, LEN, CONFIG);                    \
		ck_assert_msg(ret_ == 0, "%d: %s", ret_, err.message); \
	} while (0)

#define ASSERT_FAILS(DATA, LEN, CONFIG, CODE, TEXT)                                  \
	do {                                                                         \
		ck_assert_int_eq(boot(DATA, LEN, CONFIG), CODE);                     \
		ck_assert_msg(strstr(err.message, TEXT) != NULL, "%s", err.message); \
		ck_assert_ptr_null(strchr(err.message, '\n'));                       \
	} while (0)

static const uint8_t *ram(uint64_t gpa, uint64_t len)
{
	const uint8_t *p = memory_ptr(&mem, gpa, len);

	ck_assert_ptr_nonnull(p);
	return p;
}

static void setup(void)
{
	ck_assert_int_eq(memory_init_plain(&mem, RAM_SIZE, &err), 0);
	ck_assert_int_eq(e820_add(&map, 0, RAM_SIZE, 1), 0);
	ck_assert_int_eq(e820_add(&map, 0x9fc00, 0x60400, 2), 0);
	ck_assert_int_eq(e820_add(&map, HOLE, MiB, 2), 0);
	/* Memory is not fresh after a reset. */
	memset(memory_ptr(&mem, 0, RAM_SIZE), CANARY, RAM_SIZE);
}

static void teardown(void)
{
	memory_free(&mem);
	map.n = 0;
}

/* @len bytes at @gpa are all @byte, and the one behind them is not. */
static void check_fill(uint64_t gpa, uint64_t len, uint8_t byte)
{
	const uint8_t *p = ram(gpa, len + 1);

	ck_assert_uint_eq(p[0], byte);
	ck_assert(!memcmp(p, p + 1, len - 1));
	ck_assert_uint_ne(p[len], byte);
}

/* Nothing is written to what E820 reserves. */
static void check_reserved(void)
{
	const uint8_t *low = ram(0x9fc00, 0x60400), *hole = ram(HOLE, MiB);

	ck_assert_uint_eq(low[0], CANARY);
	ck_assert(!memcmp(low, low + 1, 0x60400 - 32 - 1)); /* but for the reset vector */
	ck_assert_uint_eq(hole[0], CANARY);
	ck_assert(!memcmp(hole, hole + 1, MiB - 1));
}

/* --- ELF -------------------------------------------------------------------------------------- */

#define ELF_SIZE 0x3000
#define TEXT_GPA 0x200000
#define DATA_GPA 0x300000
#define BSS_SIZE 0x5000
#define NOTE_OFF 0x2800

/*
 * A kernel of two segments of 0x1000 bytes, 0x11 and 0x22, the second with BSS behind it; a PVH
 * note if asked for.
 */
static void make_elf64(uint8_t *f, bool pvh)
{
	Elf64_Ehdr *e = (Elf64_Ehdr *)f;
	Elf64_Phdr *p = (Elf64_Phdr *)(f + sizeof(*e));

	memset(f, 0, ELF_SIZE);
	memcpy(e->e_ident,
	       "\x7f"
	       "ELF\2\1\1",
	       7);
	e->e_type = ET_EXEC;
	e->e_machine = EM_X86_64;
	e->e_version = 1;
	e->e_entry = TEXT_GPA + 0x10;
	e->e_phoff = sizeof(*e);
	e->e_ehsize = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = 3;
	p[0] = (Elf64_Phdr){PT_LOAD, 5, 0x1000, 0xffffffff80200000, TEXT_GPA, 0x1000, 0x1000, 4096};
	p[1] = (Elf64_Phdr){PT_LOAD,  6,     0x2000,	       0xffffffff80300000,
			    DATA_GPA, 0x800, 0x800 + BSS_SIZE, 4096};
	p[2] = (Elf64_Phdr){pvh ? PT_NOTE : PT_NULL, 4, NOTE_OFF, 0, 0, 60, 60, 4};
	memset(f + 0x1000, 0x11, 0x1000);
	memset(f + 0x2000, 0x22, 0x800);
	/* Another one's note first, then Xen's 18. */
	memcpy(f + NOTE_OFF, "\4\0\0\0\5\0\0\0\22\0\0\0GNU\0abcde\0\0\0", 24);
	memcpy(f + NOTE_OFF + 24, "\4\0\0\0\10\0\0\0\22\0\0\0Xen\0\40\0\40\0\0\0\0\0", 24);
}

static void make_elf32(uint8_t *f, bool pvh)
{
	Elf32_Ehdr *e = (Elf32_Ehdr *)f;
	Elf32_Phdr *p = (Elf32_Phdr *)(f + sizeof(*e));

	make_elf64(f, pvh);
	memset(f, 0, 0x1000);
	memcpy(e->e_ident,
	       "\x7f"
	       "ELF\1\1\1",
	       7);
	e->e_type = ET_EXEC;
	e->e_machine = EM_386;
	e->e_version = 1;
	e->e_entry = TEXT_GPA + 0x10;
	e->e_phoff = sizeof(*e);
	e->e_ehsize = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = 3;
	p[0] = (Elf32_Phdr){PT_LOAD, 0x1000, TEXT_GPA, TEXT_GPA, 0x1000, 0x1000, 5, 4096};
	p[1] = (Elf32_Phdr){PT_LOAD, 0x2000, DATA_GPA, DATA_GPA, 0x800, 0x800 + BSS_SIZE, 6, 4096};
	p[2] = (Elf32_Phdr){pvh ? PT_NOTE : PT_NULL, NOTE_OFF, 0, 0, 60, 60, 4, 4};
}

static void check_segments(void)
{
	check_fill(TEXT_GPA, 0x1000, 0x11);
	check_fill(DATA_GPA, 0x800, 0x22);
	check_fill(DATA_GPA + 0x800, BSS_SIZE, 0);
	ck_assert_str_eq((const char *)ram(BOOT_CMDLINE_GPA, 4), "a=b");
	check_reserved();
}

static void check_gdt(bool is_64bit)
{
	const uint8_t *gdt = ram(BOOT_GDT_GPA, 0x28);

	/* SDM 3.4.5: present, ring 0, code (readable) and data (writable), both accessed. */
	ck_assert_uint_eq(gdt[0x10 + 5], 0x9b);
	ck_assert_uint_eq(gdt[0x10 + 6] >> 4, is_64bit ? 0xa : 0xc);
	ck_assert_uint_eq(gdt[0x18 + 5], 0x93);
	ck_assert_uint_eq(gdt[0x18 + 6] >> 4, 0xc);
	ck_assert_uint_eq(gdt[0x20 + 5], 0x8b);
}

/* Walk the tables as the CPU does: all of 4 GiB maps to itself. */
static void check_identity_map(void)
{
	for (uint64_t va = 0; va < 4 * GiB; va += 2 * MiB) {
		uint64_t e = get_le64(ram(BOOT_PAGE_TABLES + (va >> 39 & 511) * 8, 8));

		ck_assert_uint_eq(e & 0x83, 3);
		e = get_le64(ram((e & ~0xfffull) + (va >> 30 & 511) * 8, 8));
		ck_assert_uint_eq(e & 0x83, 3);
		e = get_le64(ram((e & ~0xfffull) + (va >> 21 & 511) * 8, 8));
		ck_assert_uint_eq(e, va | 0x83);
	}
}

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

static void put_multiboot(uint8_t *at, uint32_t flags)
{
	put_le32(at, 0x1badb002);
	put_le32(at + 4, flags);
	put_le32(at + 8, -(0x1badb002 + flags));
}

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

/* --- bzImage ---------------------------------------------------------------------------------- */

#define BZ_SETUP   ((4 + 1) * 512)
#define BZ_PAYLOAD 0x400
#define BZ_PREF	   0x1000000
#define BZ_INIT	   0x800000
#define BZ_MAX	   0x40000

static uint8_t bz[BZ_MAX];
static size_t bz_len;

static struct setup_header *bz_header(void)
{
	return (struct setup_header *)(bz + 0x1f1);
}

/* @len bytes of payload, of which @payload has the first @given. */
static void make_bzimage(const void *payload, size_t given, size_t len)
{
	struct setup_header *h = bz_header();

	memset(bz, 0, sizeof(bz));
	bz_len = ALIGN_UP(BZ_SETUP + BZ_PAYLOAD + len, 16);
	ck_assert_uint_le(bz_len, BZ_MAX);
	bz[0x200] = 0xeb;
	bz[0x201] = 0x6a;
	bz[0x1ef] = 0xff; /* the sentinel, which is not to be copied */
	h->setup_sects = 4;
	h->syssize = (bz_len - BZ_SETUP) / 16;
	h->boot_flag = 0xaa55;
	h->header = 0x53726448;
	h->version = 0x20f;
	h->loadflags = LOADED_HIGH;
	h->initrd_addr_max = 0x7fffffff;
	h->kernel_alignment = 0x200000;
	h->relocatable_kernel = 1;
	h->xloadflags = XLF_KERNEL_64;
	h->cmdline_size = 2047;
	h->payload_offset = BZ_PAYLOAD;
	h->payload_length = len;
	h->pref_address = BZ_PREF;
	h->init_size = BZ_INIT;
	memset(bz + BZ_SETUP, 0x44, BZ_PAYLOAD);
	memcpy(bz + BZ_SETUP + BZ_PAYLOAD, payload, given);
}

/*
 * As linkers lay out vmlinux: the first segment at 2 MiB of the file, the second elsewhere
 * relative to it.
 */
#define VM_SIZE (0x200000 + 0x30000)

/* Every 32 bytes differ, yet it packs. */
static void fill_segment(uint8_t *p, uint32_t len, uint32_t which)
{
	for (uint32_t i = 0; i < len; i += 4)
		put_le32(p + i, (i >> 5) * 8 + which);
}

static uint8_t *make_vmlinux(uint64_t first, uint64_t second)
{
	uint8_t *f = calloc(1, VM_SIZE);
	Elf64_Phdr *p = (Elf64_Phdr *)(f + sizeof(Elf64_Ehdr));

	ck_assert_ptr_nonnull(f);
	make_elf64(f, false);
	memset(f + 0x1000, 0, ELF_SIZE - 0x1000);
	((Elf64_Ehdr *)f)->e_entry = first + 0x10;
	p[0].p_offset = 0x200000;
	p[0].p_paddr = first;
	p[0].p_filesz = p[0].p_memsz = 0x18000;
	p[1].p_offset = 0x220000;
	p[1].p_paddr = second;
	p[1].p_filesz = p[1].p_memsz = 0x10000;
	fill_segment(f + 0x200000, 0x18000, 1);
	fill_segment(f + 0x220000, 0x10000, 2);
	return f;
}

static void check_vmlinux(uint64_t first, uint64_t second)
{
	static uint8_t want[0x18000];

	fill_segment(want, 0x18000, 1);
	ck_assert(!memcmp(ram(first, 0x18000), want, 0x18000));
	fill_segment(want, 0x10000, 2);
	ck_assert(!memcmp(ram(second, 0x10000), want, 0x10000));
}

static const char *const packers[] = {"gzip -1 -n", "xz --check=crc32 --x86 --lzma2=preset=1",
				      "lz4 -l -1", "zstd -q -3"};

/* @data packed by @command with the size behind it; 0 if that is not installed. */
static size_t pack(const char *command, const void *data, size_t len, uint8_t *out, size_t room)
{
	struct file in = make_file(data, len), packed = make_file("", 0);
	char line[256];
	ssize_t n;

	snprintf(line, sizeof(line), "command -v %.4s >/dev/null", command);
	if (strncmp(command, "xz", 2) == 0)
		snprintf(line, sizeof(line), "command -v xz >/dev/null");
	if (system(line)) {
		fprintf(stderr, "skipped: not installed: %s\n", command);
		return 0;
	}
	lseek(in.fd, 0, SEEK_SET);
	snprintf(line, sizeof(line), "%s -c <&%d >&%d", command, in.fd, packed.fd);
	ck_assert_int_eq(system(line), 0);
	n = pread(packed.fd, out, room - 4, 0);
	ck_assert_int_gt(n, 0);
	ck_assert_int_lt(n, room - 4);
	put_le32(out + n, len);
	close(in.fd);
	close(packed.fd);
	return n + 4;
}

/*
 * Where the second segment goes: near, where the first one's file content is moved over it, and
 * far.
 */
static const uint64_t second_at[] = {BZ_PREF + 0x18000, BZ_PREF + 0x20000, BZ_PREF + 0x28000,
				     BZ_PREF + 0x100000, BZ_PREF - 0x100000};

START_TEST(test_bzimage)
{
	static uint8_t packed[BZ_MAX / 2];
	static const struct boot_config host = {.append = "a=b",
						.decompress = BOOT_DECOMPRESS_HOST};

	for (size_t i = 0; i < ARRAY_SIZE(second_at); i++) {
		uint8_t *vmlinux = make_vmlinux(BZ_PREF, second_at[i]);
		size_t len = pack(packers[_i], vmlinux, VM_SIZE, packed, sizeof(packed));
		const struct boot_params *bp;
		int ret;

		free(vmlinux);
		if (!len)
			return;
		make_bzimage(packed, len, len);
		ret = boot(bz, bz_len, &host);
		if (ret == -EOPNOTSUPP && strstr(err.message, "built without")) {
			fprintf(stderr, "skipped: %s\n", err.message);
			return;
		}
		ck_assert_msg(ret == 0, "%s", err.message);
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
	}
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
	size_t len = pack(packers[0], vmlinux, VM_SIZE, packed, sizeof(packed));

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

START_TEST(test_bzimage_bad)
{
	struct setup_header *h = bz_header();
	char text[64];

	make_bzimage("\x1f\x8b\x08 what", 8, 4096);
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

/* vmlinux.gz and the like; what is inside is checked as any kernel. */
START_TEST(test_packed_elf)
{
	static uint8_t packed[ELF_SIZE], twice[ELF_SIZE];
	uint8_t f[ELF_SIZE];
	size_t len;

	make_elf64(f, true);
	len = pack(packers[_i], f, sizeof(f), packed, sizeof(packed));
	if (!len)
		return;
	if (boot(packed, len, NULL) == -EOPNOTSUPP) {
		fprintf(stderr, "skipped: %s\n", err.message);
		return;
	}
	ASSERT_BOOTS(packed, len, NULL);
	check_segments();
	check_pvh();
	ASSERT_FAILS(packed, len / 2, NULL, -EBADMSG, "damaged or truncated");
	len = pack(packers[_i], packed, len, twice, sizeof(twice));
	ASSERT_FAILS(twice, len, NULL, -ENOEXEC, "compressed twice");
	((Elf64_Ehdr *)f)->e_machine = EM_AARCH64;
	len = pack(packers[_i], f, sizeof(f), packed, sizeof(packed));
	ASSERT_FAILS(packed, len, NULL, -ENOEXEC, "aarch64");
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
	size_t len = pack("lz4 -l -1", vmlinux, VM_SIZE, packed, sizeof(packed));
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
			len = pack("lz4 -l -1", vmlinux, VM_SIZE, packed, sizeof(packed));
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
	ck_assert_uint_gt(booted, 0);
	ck_assert_uint_lt(booted, 150);
	free(vmlinux);
	close(initrd.fd);
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
	tcase_add_loop_test(tc, test_bzimage, 0, ARRAY_SIZE(packers));
	tcase_add_test(tc, test_bzimage_swapped);
	tcase_add_test(tc, test_bzimage_guest);
	tcase_add_test(tc, test_bzimage_bad);
	tcase_add_test(tc, test_initrd);
	tcase_add_test(tc, test_cmdline);
	tcase_add_test(tc, test_files);
	tcase_add_test(tc, test_foreign);
	tcase_add_test(tc, test_elf_bad);
	tcase_add_loop_test(tc, test_packed_elf, 0, ARRAY_SIZE(packers));
	tcase_add_loop_test(tc, test_mutations, 0, 4);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
