/* SPDX-License-Identifier: GPL-2.0-only */
/* What the files of the direct boot share: boot.c and, one file per protocol, boot_*.c. */
#ifndef ARCH_X86_BOOT_INTERNAL_H
#define ARCH_X86_BOOT_INTERNAL_H

#include <asm/bootparam.h>

#include "boot.h"

/* A kernel below this would overlap the tables that boot.h places there. */
#define BOOT_KERNEL_MIN 0x100000ull

/*
 * Of a kernel file this much is looked at to tell its format; a Multiboot 1 header lies in the
 * first 8 KiB.
 */
#define BOOT_HEAD_SIZE 8192u

/* --- files ------------------------------------------------------------------------------------ */

/* A file, or what was unpacked from one. */
struct boot_image {
	const char *path; /* for messages */
	int fd;		  /* if @data is NULL */
	const uint8_t *data;
	uint64_t size;
	struct boot_ahead
		*ahead; /* a thread reads all of the file for boot_image_copy(), or NULL */
};

/** Copy @len bytes at @off. -ENODATA with a message that names sizes if the image ends before. */
int boot_image_read(const struct boot_image *img, uint64_t off, void *buf, uint64_t len,
		    struct hako_error *err);

/**
 * All of a file in fresh memory, which the caller gives back with munmap(). Not a mapping of the file: that raises SIGBUS if
 * somebody shortens it.
 */
int boot_image_copy(struct boot_image *img, uint8_t **copy, struct hako_error *err);

/* --- kernels ---------------------------------------------------------------------------------- */

enum boot_format {
	BOOT_FORMAT_BZIMAGE,
	BOOT_FORMAT_ELF_PVH,
	BOOT_FORMAT_ELF_LINUX, /* 64-bit protocol */
	BOOT_FORMAT_ELF_MULTIBOOT,
	BOOT_FORMAT_MULTIBOOT, /* no ELF: addresses in the Multiboot header */
	BOOT_FORMAT_PACKED,    /* compressed whole: what is inside shows at installation */
};

struct boot_segment {
	uint64_t offset, filesz;
	uint64_t paddr, vaddr, memsz;
};

#define BOOT_ELF_MAX_PHDRS    128
#define BOOT_ELF_MAX_SEGMENTS 64

struct boot_elf {
	bool is_64bit;
	uint64_t entry; /* physical */
	unsigned int nsegments;
	struct boot_segment segment[BOOT_ELF_MAX_SEGMENTS];
	bool has_pvh;
	uint32_t pvh_entry;
};

/* Multiboot specification 0.6.96, 3.1.1 to 3.1.3 */
struct multiboot_header {
	uint32_t magic, flags, checksum;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

struct boot_bzimage {
	struct setup_header hdr;
	uint64_t pm_offset, pm_size; /* the protected-mode kernel in the file */
};

struct boot_kernel {
	struct boot_image img;
	enum boot_format format;
	enum unpack_format packed;
	struct boot_elf elf;
	struct multiboot_header mb;
	uint32_t mb_offset;
	struct boot_bzimage bz;
};

/* One installation. */
struct boot_install {
	struct memory *mem;
	const struct e820 *map;
	uint64_t rsdp;
	enum boot_decompress decompress;
	const char *cmdline; /* never NULL */
	uint64_t kernel_end; /* first address behind the kernel, set by the loaders */
	uint64_t initrd_gpa, initrd_size;
	struct boot_entry *entry;
};

/**
 * The @len bytes at @gpa if they are RAM, in the memory and in the E820 map, and not below
 * BOOT_KERNEL_MIN.
 */
void *boot_kernel_ptr(const struct boot_install *in, uint64_t gpa, uint64_t len);

/** Tell the format and check the headers; @k->img is set by the caller. */
int boot_identify(struct boot_kernel *k, struct hako_error *err);

/** Say what the file is that is no kernel for this machine; always a negative errno. */
int boot_foreign(const struct boot_kernel *k, const uint8_t *head, size_t len,
		 struct hako_error *err);

/* ELF: boot_elf.c */
bool boot_elf_is(const uint8_t *head, size_t len);
/** Read and check the headers of @img into @elf; what fits RAM is for boot_elf_load() to check. */
int boot_elf_parse(const struct boot_image *img, struct boot_elf *elf, struct hako_error *err);
/** Copy all segments to where they belong and zero the rest of them. Sets in->kernel_end. */
int boot_elf_load(struct boot_install *in, const struct boot_image *img, const struct boot_elf *elf,
		  struct hako_error *err);
/** Check all segments against RAM without touching it. Sets in->kernel_end. */
int boot_elf_check(struct boot_install *in, const struct boot_image *img,
		   const struct boot_elf *elf, struct hako_error *err);
/** Fill the PVH start info and *in->entry. */
int boot_pvh_info(struct boot_install *in, const struct boot_elf *elf, struct hako_error *err);

/* Multiboot: boot_multiboot.c */
bool boot_multiboot_find(struct boot_kernel *k, const uint8_t *head, size_t len);
int boot_multiboot_check(struct boot_kernel *k, struct hako_error *err);
int boot_multiboot_load(struct boot_install *in, const struct boot_kernel *k,
			struct hako_error *err);
int boot_multiboot_info(struct boot_install *in, const struct boot_kernel *k,
			struct hako_error *err);

/* Linux: boot_linux.c */
bool boot_bzimage_is(const uint8_t *head, size_t len);
int boot_bzimage_parse(struct boot_kernel *k, const uint8_t *head, size_t len,
		       struct hako_error *err);
int boot_bzimage_load(struct boot_install *in, struct boot_kernel *k, struct hako_error *err);
/** Fill boot_params from the setup header @hdr, NULL for an ELF that has none. */
int boot_linux_params(struct boot_install *in, const struct setup_header *hdr,
		      struct hako_error *err);

#endif
