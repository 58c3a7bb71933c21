/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Direct boot: load a kernel, initrd and command line into guest RAM and say in which state the
 * first vCPU starts. Knows of the VM only its memory, so that it can be tested without KVM.
 */
#ifndef ARCH_X86_BOOT_H
#define ARCH_X86_BOOT_H

#include "vmm/memory.h"

/*
 * What boot_open() and boot_install() fill of the memory below 1 MiB and where boards put their
 * tables.
 */
#define BOOT_GDT_GPA 0x500ull
#define BOOT_INFO_GPA \
	0x6000ull /* PVH hvm_start_info and its tables, Multiboot information: one page */
#define BOOT_ZERO_PAGE_GPA  0x7000ull  /* struct boot_params */
#define BOOT_PAGE_TABLES    0x9000ull  /* 6 pages: identity map of the first 4 GiB, 2 MiB pages */
#define BOOT_SETUP_DATA_GPA 0x10000ull /* struct setup_data: seed for Linux's random numbers */
#define BOOT_CMDLINE_GPA    0x20000ull /* up to BOOT_CMDLINE_MAX bytes */
#define BOOT_CMDLINE_MAX    0x10000u
#define BOOT_EBDA_GPA	    0x9fc00ull /* end of conventional RAM in the E820 map */
#define BOOT_RSDP_GPA	    0xe0000ull /* RSDP; the board's tables follow it, below 1 MiB */
#define BOOT_RESET_VECTOR_GPA \
	0xfffe0ull /* 32 bytes: code that resets, for guests that jump to the BIOS */

enum boot_decompress {
	BOOT_DECOMPRESS_AUTO,
	BOOT_DECOMPRESS_HOST,
	BOOT_DECOMPRESS_GUEST
};

struct boot_config {
	const char *kernel, *initrd, *append; /* initrd and append may be NULL */
	enum boot_decompress decompress;
};

struct e820_entry {
	uint64_t addr, size;
	uint32_t type; /* E820_TYPE_* of <asm/bootparam.h>: 1 RAM, 2 reserved, 3 ACPI … */
};

#define E820_MAX 32
struct e820 {
	struct e820_entry entry[E820_MAX];
	unsigned int n;
};

/**
 * Add a range; ranges may be given in any order and are kept sorted; a reserved one cuts a hole into
 * RAM. -ENOSPC; -EINVAL if it is empty, wraps around or overlaps one reserved for something else.
 */
int e820_add(struct e820 *map, uint64_t addr, uint64_t size, uint32_t type);

/*
 * How the boot processor starts. In the first two modes its GDT is at BOOT_GDT_GPA: CS is 0x10 (a 64-bit
 * or a flat 32-bit code segment), DS, ES, FS, GS and SS are 0x18, TR is 0x20; there is no IDT.
 */
enum boot_mode {
	/* 64-bit, paging by BOOT_PAGE_TABLES: Linux's 64-bit protocol */
	BOOT_MODE_LONG,
	/* 32-bit flat, no paging: PVH, Multiboot, Linux's 32-bit protocol */
	BOOT_MODE_PROTECTED,
	/* 16-bit, at cs:ip: firmware */
	BOOT_MODE_REAL,
};

struct boot_entry {
	enum boot_mode mode;
	uint64_t rip, rsp, rsi, rbx, rax;
	uint16_t cs; /* BOOT_MODE_REAL: segment */
	/* Where the kernel will need fresh memory first; 0 bytes: not known. */
	struct {
		uint64_t gpa, len;
	} soon[2];
};

struct boot_source; /* opened and checked files */

/**
 * Open the files, tell the kernel's format, check headers. Errors name the file and say what it
 * is if it is no kernel ("is a directory", "is an aarch64 kernel", "is truncated: header says
 * …").
 */
int boot_open(const struct boot_config *config, struct boot_source **src, struct hako_error *err);
void boot_close(struct boot_source *src);

/**
 * Put all of it into guest RAM; again after each reset. @rsdp: address of the board's ACPI RSDP,
 * 0: none. The files are read anew, so that no second copy of a kernel is kept.
 */
int boot_install(struct boot_source *src, struct memory *mem, const struct e820 *map, uint64_t rsdp,
		 struct boot_entry *entry, struct hako_error *err);

/* --- decompression, arch/x86/unpack.c --------------------------------------------------------- */

enum unpack_format {
	UNPACK_NONE,
	UNPACK_GZIP,
	UNPACK_XZ,
	UNPACK_LZ4,
	UNPACK_ZSTD,
	UNPACK_UNKNOWN
};

/** By the magic number. */
enum unpack_format unpack_detect(const void *data, size_t len);
/**
 * Unpack @in into @out, which has room for @out_len bytes. *@got: bytes written. -EBADMSG if the
 * data is bad or would not fit. -EOPNOTSUPP if hako was built without the library, or it is not
 * installed.
 */
int unpack(enum unpack_format format, const void *in, size_t in_len, void *out, size_t out_len,
	   size_t *got, struct hako_error *err);

#endif
