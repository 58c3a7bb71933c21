/* SPDX-License-Identifier: GPL-2.0-only */
/* Constants that the assembly and the C code share. */
#ifndef LAYOUT_H
#define LAYOUT_H

#define MAX_CPUS	  320
#define STACK_SHIFT	  13
#define STACK_SIZE	  (1 << STACK_SHIFT)
#define USER_STACK_OFFSET (MAX_CPUS * STACK_SIZE)
#define TSS_SIZE	  104

#define SEL_CODE32 0x08
#define SEL_DATA   0x10
#define SEL_KCODE  0x18
#define SEL_UDATA  0x2b
#define SEL_UCODE  0x33
#define SEL_TSS	   0x40
#define GDT_SIZE   (SEL_TSS + MAX_CPUS * 16)

#define CR4_BITS  0x620 /* PAE, OSFXSR, OSXMMEXCPT */
#define PTE_USER  0x7
#define PTE_LARGE 0x80
#define PTE_UC	  0x18
#define RAM_LIMIT 0x80000000

#define AP_START 0x8000

/*
 * The way from CPL 3 to CPL 0 is an undefined instruction: an exception is delivered everywhere, while
 * `int n` and `syscall` are not where CPL 0 is emulated.
 */
#define GATE	    ud2
#define GATE_LENGTH 2
#define GATE_VECTOR 6

#endif
