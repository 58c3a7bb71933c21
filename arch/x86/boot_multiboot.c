/* SPDX-License-Identifier: GPL-2.0-only */
/* Multiboot 1 (specification 0.6.96): small kernels, ELF or with the addresses in the header. */
#include "boot_internal.h"

#define HEADER_MAGIC 0x1badb002u
#define LOADER_MAGIC 0x2badb002u

/* Header flags: bits 0 to 15 a loader must understand or refuse, 3.1.2. */
#define HEADER_KNOWN   0x0007u /* page-aligned modules, memory information, video mode */
#define HEADER_ADDRESS BIT(16)

#define INFO_MEMORY  BIT(0)
#define INFO_CMDLINE BIT(2)
#define INFO_MODS    BIT(3)
#define INFO_MMAP    BIT(6)
#define INFO_LOADER  BIT(9)

/* 3.3, Boot information format */
struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
	uint32_t mmap_length, mmap_addr, drives_length, drives_addr, config_table;
	uint32_t boot_loader_name;
};

struct multiboot_module {
	uint32_t mod_start, mod_end, string, reserved;
};

struct multiboot_mmap {
	uint32_t size; /* of the rest */
	uint64_t addr, len;
	uint32_t type;
} __attribute__((packed));

struct multiboot_page {
	struct multiboot_info info;
	struct multiboot_module module;
	char loader[8], empty[8];
	struct multiboot_mmap mmap[E820_MAX];
};

bool boot_multiboot_find(struct boot_kernel *k, const uint8_t *head, size_t len)
{
	for (uint32_t off = 0; off + 12 <= len; off += 4) {
		uint32_t magic = get_le32(head + off), flags = get_le32(head + off + 4);
		uint8_t raw[sizeof(k->mb)] = {0};

		if (magic != HEADER_MAGIC || magic + flags + get_le32(head + off + 8))
			continue;
		memcpy(raw, head + off, MIN(sizeof(raw), len - off));
		k->mb = (struct multiboot_header){
			.magic = magic,
			.flags = flags,
			.checksum = get_le32(raw + 8),
			.header_addr = get_le32(raw + 12),
			.load_addr = get_le32(raw + 16),
			.load_end_addr = get_le32(raw + 20),
			.bss_end_addr = get_le32(raw + 24),
			.entry_addr = get_le32(raw + 28),
		};
		k->mb_offset = off;
		return true;
	}
	return false;
}

/* Where the header's addresses say that the file goes, 3.1.3. */
static int address_segment(const struct boot_kernel *k, struct boot_segment *s,
			   struct hako_error *err)
{
	const struct multiboot_header *mb = &k->mb;
	uint64_t load_end, before = (uint64_t)mb->header_addr - mb->load_addr;

	if (mb->load_addr > mb->header_addr || before > k->mb_offset)
		goto bad;
	s->offset = k->mb_offset - before;
	s->paddr = s->vaddr = mb->load_addr;
	load_end = mb->load_end_addr ? mb->load_end_addr : s->paddr + k->img.size - s->offset;
	if (load_end <= s->paddr)
		goto bad;
	s->filesz = load_end - s->paddr;
	s->memsz = MAX(load_end, mb->bss_end_addr) - s->paddr;
	if (s->filesz > k->img.size - s->offset)
		return error_set(err, -ENODATA,
				 "%s: is truncated: its Multiboot header loads %llu bytes from "
				 "offset %llu, the file has %llu",
				 k->img.path, (unsigned long long)s->filesz,
				 (unsigned long long)s->offset, (unsigned long long)k->img.size);
	if (mb->entry_addr - s->paddr >= s->memsz)
		goto bad;
	return 0;
bad:
	return error_set(err, -ENOEXEC, "%s: the addresses in its Multiboot header make no sense",
			 k->img.path);
}

int boot_multiboot_check(struct boot_kernel *k, struct hako_error *err)
{
	struct boot_segment s;

	if (k->mb.flags & 0xffff & ~HEADER_KNOWN)
		return error_set(err, -ENOEXEC,
				 "%s: its Multiboot header asks for features 0x%x, which hako does "
				 "not have",
				 k->img.path, k->mb.flags & 0xffff & ~HEADER_KNOWN);
	if (k->mb.flags & HEADER_ADDRESS)
		return address_segment(k, &s, err);
	if (k->format != BOOT_FORMAT_ELF_MULTIBOOT)
		return error_set(err, -ENOEXEC,
				 "%s: has a Multiboot header without addresses, and is no ELF file",
				 k->img.path);
	if (k->elf.entry > UINT32_MAX)
		return error_set(err, -ENOEXEC, "%s: its entry point 0x%llx is above 4 GiB",
				 k->img.path, (unsigned long long)k->elf.entry);
	return 0;
}

/* The addresses in the header take precedence over the ELF header, 3.1.2. */
int boot_multiboot_load(struct boot_install *in, const struct boot_kernel *k,
			struct hako_error *err)
{
	struct boot_elf elf = {.nsegments = 1};
	int ret;

	if (!(k->mb.flags & HEADER_ADDRESS))
		return boot_elf_load(in, &k->img, &k->elf, err);
	ret = address_segment(k, &elf.segment[0], err);
	return ret ? ret : boot_elf_load(in, &k->img, &elf, err);
}

/*
 * KiB of RAM that begin at @addr: the part of them that a 32-bit number of KiB can say, below 4
 * GiB.
 */
static uint32_t memory_kib(const struct e820 *map, uint64_t addr)
{
	for (unsigned int i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];

		if (e->type == 1 && e->addr <= addr && addr - e->addr < e->size)
			return MIN(e->addr + e->size - addr, 4 * GiB - addr) / KiB;
	}
	return 0;
}

int boot_multiboot_info(struct boot_install *in, const struct boot_kernel *k,
			struct hako_error *err)
{
	struct multiboot_page page = {
		.info =
			{
				.flags = INFO_MEMORY | INFO_CMDLINE | INFO_MODS | INFO_MMAP |
					 INFO_LOADER,
				.mem_lower = memory_kib(in->map, 0),
				.mem_upper = memory_kib(in->map, MiB),
				.cmdline = BOOT_CMDLINE_GPA,
				.mods_addr = BOOT_INFO_GPA +
					     offsetof(struct multiboot_page, module),
				.mmap_length = in->map->n * sizeof(struct multiboot_mmap),
				.mmap_addr = BOOT_INFO_GPA + offsetof(struct multiboot_page, mmap),
				.boot_loader_name = BOOT_INFO_GPA +
						    offsetof(struct multiboot_page, loader),
			},
		.loader = "hako",
	};

	_Static_assert(sizeof(page) <= PAGE_SIZE, "Multiboot information fits its page");
	if (in->initrd_size) {
		page.info.mods_count = 1;
		page.module.mod_start = in->initrd_gpa;
		page.module.mod_end = in->initrd_gpa + in->initrd_size;
		page.module.string = BOOT_INFO_GPA + offsetof(struct multiboot_page, empty);
	}
	for (unsigned int i = 0; i < in->map->n; i++) {
		page.mmap[i].size = sizeof(page.mmap[i]) - sizeof(page.mmap[i].size);
		page.mmap[i].addr = in->map->entry[i].addr;
		page.mmap[i].len = in->map->entry[i].size;
		page.mmap[i].type = in->map->entry[i].type;
	}
	if (memory_write(in->mem, BOOT_INFO_GPA, &page, sizeof(page)))
		return error_set(err, -ENOMEM, "no memory for the Multiboot information");
	in->entry->mode = BOOT_MODE_PROTECTED;
	in->entry->rip = k->mb.flags & HEADER_ADDRESS ? k->mb.entry_addr : k->elf.entry;
	in->entry->rax = LOADER_MAGIC;
	in->entry->rbx = BOOT_INFO_GPA;
	return 0;
}
