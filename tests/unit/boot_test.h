/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of direct boot have in common: RAM, small kernels of every format, looks into
 * RAM.
 */
#ifndef TESTS_UNIT_BOOT_TEST_H
#define TESTS_UNIT_BOOT_TEST_H

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

static inline struct file make_file(const void *data, size_t len)
{
	struct file f = {.fd = memfd_create("kernel", 0)};

	ck_assert_int_ge(f.fd, 0);
	ck_assert_int_eq(write(f.fd, data, len), len);
	snprintf(f.path, sizeof(f.path), "/proc/self/fd/%d", f.fd);
	return f;
}

/* Open and install; 0 or what went wrong first, with the text in err. */
static inline int boot(const void *data, size_t len, const struct boot_config *base)
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

static inline const uint8_t *ram(uint64_t gpa, uint64_t len)
{
	const uint8_t *p = memory_ptr(&mem, gpa, len);

	ck_assert_ptr_nonnull(p);
	return p;
}

static inline void setup(void)
{
	ck_assert_int_eq(memory_init_plain(&mem, RAM_SIZE, &err), 0);
	ck_assert_int_eq(e820_add(&map, 0, RAM_SIZE, 1), 0);
	ck_assert_int_eq(e820_add(&map, 0x9fc00, 0x60400, 2), 0);
	ck_assert_int_eq(e820_add(&map, HOLE, MiB, 2), 0);
	/* Memory is not fresh after a reset. */
	memset(memory_ptr(&mem, 0, RAM_SIZE), CANARY, RAM_SIZE);
}

static inline void teardown(void)
{
	memory_free(&mem);
	map.n = 0;
}

/* @len bytes at @gpa are all @byte, and the one behind them is not. */
static inline void check_fill(uint64_t gpa, uint64_t len, uint8_t byte)
{
	const uint8_t *p = ram(gpa, len + 1);

	ck_assert_uint_eq(p[0], byte);
	ck_assert(!memcmp(p, p + 1, len - 1));
	ck_assert_uint_ne(p[len], byte);
}

/* Nothing is written to what E820 reserves. */
static inline void check_reserved(void)
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
static inline void make_elf64(uint8_t *f, bool pvh)
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

static inline void make_elf32(uint8_t *f, bool pvh)
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

static inline void check_segments(void)
{
	check_fill(TEXT_GPA, 0x1000, 0x11);
	check_fill(DATA_GPA, 0x800, 0x22);
	check_fill(DATA_GPA + 0x800, BSS_SIZE, 0);
	ck_assert_str_eq((const char *)ram(BOOT_CMDLINE_GPA, 4), "a=b");
	check_reserved();
}

static inline void check_gdt(bool is_64bit)
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
static inline void check_identity_map(void)
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

static inline void put_multiboot(uint8_t *at, uint32_t flags)
{
	put_le32(at, 0x1badb002);
	put_le32(at + 4, flags);
	put_le32(at + 8, -(0x1badb002 + flags));
}

/* --- bzImage ---------------------------------------------------------------------------------- */

#define BZ_SETUP   ((4 + 1) * 512)
#define BZ_PAYLOAD 0x400
#define BZ_PREF	   0x1000000
#define BZ_INIT	   0x800000
#define BZ_MAX	   0x40000

static uint8_t bz[BZ_MAX];
static size_t bz_len;

static inline struct setup_header *bz_header(void)
{
	return (struct setup_header *)(bz + 0x1f1);
}

/* @len bytes of payload, of which @payload has the first @given. */
static inline void make_bzimage(const void *payload, size_t given, size_t len)
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
static inline void fill_segment(uint8_t *p, uint32_t len, uint32_t which)
{
	for (uint32_t i = 0; i < len; i += 4)
		put_le32(p + i, (i >> 5) * 8 + which);
}

static inline uint8_t *make_vmlinux(uint64_t first, uint64_t second)
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

static inline void check_vmlinux(uint64_t first, uint64_t second)
{
	static uint8_t want[0x18000];

	fill_segment(want, 0x18000, 1);
	ck_assert(!memcmp(ram(first, 0x18000), want, 0x18000));
	fill_segment(want, 0x10000, 2);
	ck_assert(!memcmp(ram(second, 0x10000), want, 0x10000));
}

#ifdef WITH_ZLIB
#define HAVE_ZLIB true
#else
#define HAVE_ZLIB false
#endif
#ifdef WITH_LZMA
#define HAVE_LZMA true
#else
#define HAVE_LZMA false
#endif
#ifdef WITH_LZ4
#define HAVE_LZ4 true
#else
#define HAVE_LZ4 false
#endif
#ifdef WITH_ZSTD
#define HAVE_ZSTD true
#else
#define HAVE_ZSTD false
#endif

enum {
	GZIP,
	XZ,
	LZ4,
	ZSTD,
	NPACKERS
};

static const struct {
	const char *tool, *options;
	bool built;
} packers[NPACKERS] = {
	[GZIP] = {"gzip", "-1 -n", HAVE_ZLIB},
	[XZ] = {"xz", "--check=crc32 --x86 --lzma2=preset=1", HAVE_LZMA},
	[LZ4] = {"lz4", "-l -1", HAVE_LZ4},
	[ZSTD] = {"zstd", "-q -3", HAVE_ZSTD},
};

/* @data packed, with the size behind it; 0 if this cannot be tested, with a reason. */
static inline size_t pack(int packer, const void *data, size_t len, uint8_t *out, size_t room)
{
	struct file in = make_file(data, len), packed = make_file("", 0);
	const char *tool = packers[packer].tool;
	char line[256];
	ssize_t n;

	snprintf(line, sizeof(line), "command -v %s >/dev/null", tool);
	if (!packers[packer].built || system(line)) {
		fprintf(stderr, "skipped: %s is %s\n", tool,
			packers[packer].built ? "not installed" : "left out of this build");
		close(in.fd);
		close(packed.fd);
		return 0;
	}
	lseek(in.fd, 0, SEEK_SET);
	snprintf(line, sizeof(line), "%s %s -c <&%d >&%d", tool, packers[packer].options, in.fd,
		 packed.fd);
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

#endif
