/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ELF kernels, and the PVH protocol (Xen's docs/misc/pvh.pandoc), which finds its entry point in
 * an ELF note.
 */
#include <elf.h>

#include "boot_internal.h"

#define NOTES_MAX	      65536u /* bytes of a note segment that are searched */
#define NOTE_XEN_PHYS32_ENTRY 18     /* XEN_ELFNOTE_PHYS32_ENTRY */
#define HVM_START_MAGIC	      0x336ec578
#define NOTE_ALIGN(x, a)      ALIGN_UP((uint64_t)(x), (uint64_t)(a))

bool boot_elf_is(const uint8_t *head, size_t len)
{
	return len >= EI_NIDENT && !memcmp(head, ELFMAG, SELFMAG);
}

static const char *machine_name(unsigned int machine)
{
	switch (machine) {
	case EM_ARM:
		return "32-bit ARM";
	case EM_AARCH64:
		return "aarch64";
	case EM_RISCV:
		return "RISC-V";
	case EM_PPC64:
		return "PowerPC";
	case EM_S390:
		return "s390";
	case EM_MIPS:
		return "MIPS";
	case EM_IA_64:
		return "Itanium";
	default:
		return NULL;
	}
}

/* The fields of the header that matter, of either class. */
struct header {
	uint16_t type, machine, phentsize, phnum;
	uint64_t entry, phoff;
};

static int read_header(const struct boot_image *img, struct boot_elf *elf, struct header *h,
		       struct hako_error *err)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf32_Ehdr e32;
		Elf64_Ehdr e64;
	} u;
	int ret;

	memset(&u, 0, sizeof(u));
	ret = boot_image_read(img, 0, &u, MIN(img->size, sizeof(u)), err);
	if (ret)
		return ret;
	if (u.ident[EI_DATA] != ELFDATA2LSB ||
	    (u.ident[EI_CLASS] != ELFCLASS32 && u.ident[EI_CLASS] != ELFCLASS64))
		return error_set(err, -ENOEXEC, "%s: is an ELF file, but not for x86", img->path);
	elf->is_64bit = u.ident[EI_CLASS] == ELFCLASS64;
	if (img->size < (elf->is_64bit ? sizeof(u.e64) : sizeof(u.e32)))
		return error_set(err, -ENODATA, "%s: is truncated within its ELF header",
				 img->path);
	if (elf->is_64bit)
		*h = (struct header){u.e64.e_type,  u.e64.e_machine, u.e64.e_phentsize,
				     u.e64.e_phnum, u.e64.e_entry,   u.e64.e_phoff};
	else
		*h = (struct header){u.e32.e_type,  u.e32.e_machine, u.e32.e_phentsize,
				     u.e32.e_phnum, u.e32.e_entry,   u.e32.e_phoff};
	return 0;
}

static int check_header(const struct boot_image *img, const struct boot_elf *elf,
			const struct header *h, struct hako_error *err)
{
	const char *name = machine_name(h->machine);

	if (name)
		return error_set(err, -ENOEXEC, "%s: is an ELF file for %s, not for x86", img->path,
				 name);
	if (h->machine != EM_X86_64 && h->machine != EM_386)
		return error_set(err, -ENOEXEC, "%s: is an ELF file for machine %u, not for x86",
				 img->path, h->machine);
	if (h->type == ET_REL || h->type == ET_CORE)
		return error_set(err, -ENOEXEC, "%s: is an ELF %s, not a kernel", img->path,
				 h->type == ET_REL ? "object file" : "core dump");
	if (!h->phnum || h->phnum > BOOT_ELF_MAX_PHDRS ||
	    h->phentsize != (elf->is_64bit ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return error_set(err, -ENOEXEC,
				 "%s: is an ELF file with %u program headers of %u bytes, "
				 "which no kernel has",
				 img->path, h->phnum, h->phentsize);
	return 0;
}

static Elf64_Phdr widen(const Elf32_Phdr *p)
{
	return (Elf64_Phdr){
		.p_type = p->p_type,
		.p_flags = p->p_flags,
		.p_offset = p->p_offset,
		.p_vaddr = p->p_vaddr,
		.p_paddr = p->p_paddr,
		.p_filesz = p->p_filesz,
		.p_memsz = p->p_memsz,
		.p_align = p->p_align,
	};
}

/* Find the PVH entry point among the notes. Notes that make no sense end the search. */
static int read_notes(const struct boot_image *img, struct boot_elf *elf, const Elf64_Phdr *p,
		      struct hako_error *err)
{
	uint64_t len = MIN(p->p_filesz, NOTES_MAX), align = p->p_align == 8 ? 8 : 4;
	uint64_t pos = 0;

	while (pos + sizeof(Elf64_Nhdr) <= len) {
		Elf64_Nhdr n;
		uint64_t desc, end;
		char name[4];
		uint8_t value[4];
		int ret = boot_image_read(img, p->p_offset + pos, &n, sizeof(n), err);

		if (ret)
			return ret;
		desc = NOTE_ALIGN(pos + sizeof(n) + n.n_namesz, align);
		end = NOTE_ALIGN(desc + n.n_descsz, align);
		if (desc + n.n_descsz > len)
			return 0;
		if (n.n_type == NOTE_XEN_PHYS32_ENTRY && n.n_namesz == 4 &&
		    (n.n_descsz == 4 || n.n_descsz == 8)) {
			ret = boot_image_read(img, p->p_offset + pos + sizeof(n), name, 4, err);
			if (!ret)
				ret = boot_image_read(img, p->p_offset + desc, value, 4, err);
			if (ret)
				return ret;
			if (!memcmp(name, "Xen", 4)) {
				elf->has_pvh = true;
				elf->pvh_entry = get_le32(value);
				return 0;
			}
		}
		pos = end;
	}
	return 0;
}

static int add_segment(const struct boot_image *img, struct boot_elf *elf, const Elf64_Phdr *p,
		       struct hako_error *err)
{
	struct boot_segment s = {p->p_offset, p->p_filesz, p->p_paddr, p->p_vaddr, p->p_memsz};

	if (!s.memsz)
		return 0;
	if (s.filesz > s.memsz || s.paddr > UINT64_MAX - s.memsz)
		return error_set(err, -ENOEXEC, "%s: has a bad ELF segment at 0x%llx", img->path,
				 (unsigned long long)s.paddr);
	if (s.offset > img->size || s.filesz > img->size - s.offset)
		return error_set(err, -ENODATA,
				 "%s: is truncated: a segment of %llu bytes starts at offset %llu, "
				 "the file has %llu bytes",
				 img->path, (unsigned long long)s.filesz,
				 (unsigned long long)s.offset, (unsigned long long)img->size);
	if (elf->nsegments == BOOT_ELF_MAX_SEGMENTS)
		return error_set(err, -ENOEXEC, "%s: has more than %u ELF segments", img->path,
				 BOOT_ELF_MAX_SEGMENTS);
	for (unsigned int i = 0; i < elf->nsegments; i++) {
		const struct boot_segment *t = &elf->segment[i];

		if (s.paddr < t->paddr + t->memsz && t->paddr < s.paddr + s.memsz)
			return error_set(err, -ENOEXEC,
					 "%s: ELF segments at 0x%llx and 0x%llx overlap", img->path,
					 (unsigned long long)t->paddr, (unsigned long long)s.paddr);
	}
	elf->segment[elf->nsegments++] = s;
	return 0;
}

static bool within(const struct boot_elf *elf, uint64_t gpa)
{
	for (unsigned int i = 0; i < elf->nsegments; i++) {
		if (gpa - elf->segment[i].paddr < elf->segment[i].memsz)
			return true;
	}
	return false;
}

/* The entry may be a physical address, as in vmlinux, or a virtual one. */
static int resolve_entry(const struct boot_image *img, struct boot_elf *elf, uint64_t entry,
			 struct hako_error *err)
{
	elf->entry = entry;
	if (within(elf, entry))
		return 0;
	for (unsigned int i = 0; i < elf->nsegments; i++) {
		const struct boot_segment *s = &elf->segment[i];

		if (entry - s->vaddr < s->memsz) {
			elf->entry = s->paddr + (entry - s->vaddr);
			return 0;
		}
	}
	return error_set(err, -ENOEXEC, "%s: its entry point 0x%llx is in none of its segments",
			 img->path, (unsigned long long)entry);
}

static int read_phdr(const struct boot_image *img, struct boot_elf *elf, const struct header *h,
		     unsigned int i, struct hako_error *err)
{
	union {
		Elf32_Phdr p32;
		Elf64_Phdr p64;
	} u;
	uint64_t off = h->phoff + (uint64_t)i * h->phentsize;
	Elf64_Phdr p;
	int ret;

	if (h->phoff > img->size)
		return error_set(err, -ENODATA,
				 "%s: is truncated: it has %llu bytes, its ELF "
				 "program headers are at offset %llu",
				 img->path, (unsigned long long)img->size,
				 (unsigned long long)h->phoff);
	ret = boot_image_read(img, off, &u, h->phentsize, err);
	if (ret)
		return ret;
	p = elf->is_64bit ? u.p64 : widen(&u.p32);
	switch (p.p_type) {
	case PT_LOAD:
		return add_segment(img, elf, &p, err);
	case PT_NOTE:
		if (!elf->has_pvh && p.p_offset < img->size)
			return read_notes(img, elf, &p, err);
		return 0;
	case PT_INTERP:
		return error_set(err, -ENOEXEC, "%s: is a program, not a kernel", img->path);
	default:
		return 0;
	}
}

int boot_elf_parse(const struct boot_image *img, struct boot_elf *elf, struct hako_error *err)
{
	struct header h = {0};
	int ret;

	memset(elf, 0, sizeof(*elf));
	ret = read_header(img, elf, &h, err);
	if (!ret)
		ret = check_header(img, elf, &h, err);
	for (unsigned int i = 0; !ret && i < h.phnum; i++)
		ret = read_phdr(img, elf, &h, i, err);
	if (ret)
		return ret;
	if (!elf->nsegments)
		return error_set(err, -ENOEXEC, "%s: is an ELF file with nothing to load",
				 img->path);
	ret = resolve_entry(img, elf, h.entry, elf->has_pvh ? NULL : err);
	if (!elf->has_pvh)
		return ret;
	if (!within(elf, elf->pvh_entry))
		return error_set(err, -ENOEXEC,
				 "%s: its PVH entry point 0x%x is in none of its segments",
				 img->path, elf->pvh_entry);
	return 0;
}

int boot_elf_check(struct boot_install *in, const struct boot_image *img,
		   const struct boot_elf *elf, struct hako_error *err)
{
	for (unsigned int i = 0; i < elf->nsegments; i++) {
		const struct boot_segment *s = &elf->segment[i];
		uint64_t end = s->paddr + s->memsz;

		if (s->paddr < BOOT_KERNEL_MIN)
			return error_set(err, -ENOEXEC, "%s: has a segment at 0x%llx, below 1 MiB",
					 img->path, (unsigned long long)s->paddr);
		if (!boot_kernel_ptr(in, s->paddr, s->memsz))
			return error_set(err, -ENOMEM,
					 "%s: loads to 0x%llx-0x%llx, where the guest's %llu MiB "
					 "of memory do not reach",
					 img->path, (unsigned long long)s->paddr,
					 (unsigned long long)end - 1,
					 (unsigned long long)(in->mem->ram_size / MiB));
		in->kernel_end = MAX(in->kernel_end, end);
	}
	return 0;
}

int boot_elf_load(struct boot_install *in, const struct boot_image *img, const struct boot_elf *elf,
		  struct hako_error *err)
{
	int ret = boot_elf_check(in, img, elf, err);

	for (unsigned int i = 0; !ret && i < elf->nsegments; i++) {
		const struct boot_segment *s = &elf->segment[i];
		uint8_t *p = boot_kernel_ptr(in, s->paddr, s->memsz);

		ret = boot_image_read(img, s->offset, p, s->filesz, err);
		memset(p + s->filesz, 0, s->memsz - s->filesz);
	}
	return ret;
}

/* --- PVH -------------------------------------------------------------------------------------- */

/* xen/include/public/arch-x86/hvm/start_info.h, version 1 */
struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct hvm_modlist_entry {
	uint64_t paddr, size, cmdline_paddr, reserved;
};

struct hvm_memmap_table_entry {
	uint64_t addr, size;
	uint32_t type, reserved; /* types are E820's */
};

struct pvh_page {
	struct hvm_start_info info;
	struct hvm_modlist_entry module;
	struct hvm_memmap_table_entry memmap[E820_MAX];
};

int boot_pvh_info(struct boot_install *in, const struct boot_elf *elf, struct hako_error *err)
{
	struct pvh_page page = {
		.info =
			{
				.magic = HVM_START_MAGIC,
				.version = 1,
				.cmdline_paddr = BOOT_CMDLINE_GPA,
				.rsdp_paddr = in->rsdp,
				.memmap_paddr = BOOT_INFO_GPA + offsetof(struct pvh_page, memmap),
				.memmap_entries = in->map->n,
			},
	};

	_Static_assert(sizeof(page) <= PAGE_SIZE, "PVH tables fit their page");
	if (in->initrd_size) {
		page.info.nr_modules = 1;
		page.info.modlist_paddr = BOOT_INFO_GPA + offsetof(struct pvh_page, module);
		page.module.paddr = in->initrd_gpa;
		page.module.size = in->initrd_size;
	}
	for (unsigned int i = 0; i < in->map->n; i++) {
		page.memmap[i].addr = in->map->entry[i].addr;
		page.memmap[i].size = in->map->entry[i].size;
		page.memmap[i].type = in->map->entry[i].type;
	}
	if (memory_write(in->mem, BOOT_INFO_GPA, &page, sizeof(page)))
		return error_set(err, -ENOMEM, "no memory for the PVH start info");
	in->entry->mode = BOOT_MODE_PROTECTED;
	in->entry->rip = elf->pvh_entry;
	in->entry->rbx = BOOT_INFO_GPA;
	return 0;
}
