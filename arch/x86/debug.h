/* SPDX-License-Identifier: GPL-2.0-only */
/* What a debugger needs of an x86 vCPU: registers as GDB numbers them, addresses, breakpoints. */
#ifndef ARCH_X86_DEBUG_H
#define ARCH_X86_DEBUG_H

#include "vmm/error.h"
#include "vmm/util.h"

struct vm;
struct vcpu;

/* --- breakpoints, of the VM: vm->debug. Changed while all vCPUs are held ----------------------------- */

/* The numbers are those of GDB's Z packets. */
enum debug_kind {
	DEBUG_SOFTWARE = 0,
	DEBUG_HARDWARE = 1,
	DEBUG_WRITE = 2,
	DEBUG_ACCESS = 4, /* 3, reads alone, is nothing that x86 has */
};

#define DEBUG_REGISTERS	   4
#define DEBUG_MAX_SOFTWARE 512

struct debug_point {
	uint64_t addr;
	uint64_t gpa;  /* software: where the byte is */
	uint8_t saved; /* software: what was there */
	uint8_t len;
	enum debug_kind kind;
};

struct debug_points {
	struct debug_point hard[DEBUG_REGISTERS], soft[DEBUG_MAX_SOFTWARE];
	unsigned int nhard, nsoft;
	bool block_irqs; /* KVM keeps interrupts away from single steps */
};

/** For vm->debug, to be freed with free(); NULL: no memory. */
struct debug_points *debug_new(struct vm *vm);
/**
 * Add or remove; adding twice is fine. @v's page tables are in effect. -EINVAL for an address or length that can not be, -ENOSPC, -EFAULT
 * (no RAM there); -ENOENT.
 */
int debug_add(struct vcpu *v, enum debug_kind kind, uint64_t addr, uint64_t len);
int debug_remove(struct vcpu *v, enum debug_kind kind, uint64_t addr, uint64_t len);
void debug_remove_all(struct vm *vm);
/** Before @v runs again: tell KVM of the breakpoints and of v->debug.step. */
int debug_arm(struct vcpu *v);

/** KVM_EXIT_DEBUG, in the vCPU's thread: a stop of the debugger's, or the guest's own exception. */
void debug_exit(struct vcpu *v);

/* --- memory -------------------------------------------------------------------------------------------- */

/** The physical address of the linear one @addr. -EFAULT: it is not mapped. */
int debug_translate(struct vcpu *v, uint64_t addr, uint64_t *gpa);

/* --- registers, while all vCPUs are held ------------------------------------------------------------- */

#define DEBUG_REGS_BYTES 1024 /* all of them fit */

/** The target's description for GDB, as XML; malloc()ed, NULL: no memory. */
char *debug_target_xml(void);
/** All registers into or from @buf, one after the other. */
int debug_read_regs(struct vcpu *v, uint8_t buf[DEBUG_REGS_BYTES]);
int debug_write_regs(struct vcpu *v, const uint8_t buf[DEBUG_REGS_BYTES]);
/** Where register @n is there, and its length; false if there is none. */
bool debug_reg_place(unsigned int n, unsigned int *offset, unsigned int *len);
/** The length of all. */
unsigned int debug_regs_len(void);
/** What the vCPU is about, for people. */
const char *debug_describe(struct vcpu *v);

#endif
