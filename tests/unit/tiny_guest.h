/* SPDX-License-Identifier: GPL-2.0-only */
/* A guest of three instructions that counts. */
#ifndef TESTS_UNIT_TINY_GUEST_H
#define TESTS_UNIT_TINY_GUEST_H

#include <elf.h>
#include <stdint.h>

#define COUNTER 0x200000 /* counts up for ever */
#define BOOTS	0x200004 /* counts starts */

/* An ELF32 file with a PVH note; entered in 32-bit protected mode without paging. */
static const struct {
	Elf32_Ehdr e;
	Elf32_Phdr p[2];
	struct {
		uint32_t namesz, descsz, type;
		char name[4];
		uint32_t entry;
	} note;
	uint8_t code[16];
} guest = {
	.e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
	      .e_type = ET_EXEC,
	      .e_machine = EM_386,
	      .e_version = EV_CURRENT,
	      .e_entry = 0x100000,
	      .e_phoff = sizeof(Elf32_Ehdr),
	      .e_ehsize = sizeof(Elf32_Ehdr),
	      .e_phentsize = sizeof(Elf32_Phdr),
	      .e_phnum = 2},
	.p = {{.p_type = PT_LOAD,
	       .p_offset = 136,
	       .p_vaddr = 0x100000,
	       .p_paddr = 0x100000,
	       .p_filesz = 16,
	       .p_memsz = 16,
	       .p_flags = 7,
	       .p_align = 1},
	      {.p_type = PT_NOTE, .p_offset = 116, .p_filesz = 20, .p_memsz = 20, .p_align = 4}},
	.note = {4, 4, 18, "Xen", 0x100000},
	.code = {0xff, 0x05, 0x04, 0x00, 0x20, 0x00, /* incl BOOTS */
		 0xff, 0x05, 0x00, 0x00, 0x20, 0x00, /* 1: incl COUNTER */
		 0xeb, 0xf8},			     /* jmp 1b */
};

#endif
