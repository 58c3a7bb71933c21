/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loaded into a VMM (LD_PRELOAD), it makes KVM a host that has every flag there is, writes the CPUID that the VMM gives its first
 * vCPU to the file SHIM_OUT, and ends the process. So what two VMMs make of a model can be compared, whatever this host has.
 */
#include <cpuid.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int ioctl(int fd, unsigned long request, ...);

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *c, unsigned int f, unsigned int i)
{
	for (unsigned int k = 0; k < c->nent; k++)
		if (c->entries[k].function == f && c->entries[k].index == i)
			return &c->entries[k];
	c->entries[c->nent] = (struct kvm_cpuid_entry2){f, i, f == 7 || f == 0xd};
	return &c->entries[c->nent++];
}

#define XCR0 0x2ffu /* but for AMX, for which a process has to ask the kernel */

/* Sizes and places of XSAVE's parts: this CPU's, as QEMU asks the CPU and not KVM. */
static void xsave_parts(struct kvm_cpuid2 *c)
{
	static const unsigned int sizes[10] = {[3] = 0x40, [4] = 0x40, [9] = 8}; /* if it has not */
	struct kvm_cpuid_entry2 *e = leaf(c, 0xd, 0);

	e->eax = XCR0;
	leaf(c, 0xd, 1)->eax = 0xf;
	for (unsigned int i = 2; i < 10; i++) {
		e = leaf(c, 0xd, i);
		__cpuid_count(0xd, i, e->eax, e->ebx, e->ecx, e->edx);
		e->eax = e->eax ? e->eax : sizes[i];
	}
}

static void all_flags(struct kvm_cpuid2 *c, unsigned int room)
{
	struct kvm_cpuid_entry2 *e;

	if (room < c->nent + 20)
		return;
	leaf(c, 0, 0)->eax = 0x24;
	leaf(c, 0x80000000, 0)->eax = 0x80000022;
	e = leaf(c, 1, 0);
	e->ecx = e->edx = ~0u;
	leaf(c, 6, 0)->eax = 4;
	e = leaf(c, 7, 0);
	e->eax = 2;
	e->ebx = e->ecx = e->edx = ~0u;
	e = leaf(c, 7, 1);
	e->eax = e->edx = ~0u;
	leaf(c, 7, 2)->edx = ~0u;
	xsave_parts(c);
	e = leaf(c, 0x80000001, 0);
	e->ecx = e->edx = ~0u;
	e = leaf(c, 0x80000007, 0);
	e->ebx = 3;
	e->edx = 0x100;
	e = leaf(c, 0x80000008, 0);
	e->eax = 0x3030;
	e->ebx = ~0u;
	leaf(c, 0x8000000a, 0)->edx = ~0u;
	leaf(c, 0x80000021, 0)->eax = ~0u;
	leaf(c, 0x40000001, 0)->eax |= 0x0100ffff;
}

static void write_out(const struct kvm_cpuid2 *c)
{
	FILE *f = fopen(getenv("SHIM_OUT"), "w");

	for (unsigned int i = 0; f && i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		fprintf(f, "%08x.%x %08x %08x %08x %08x\n", e->function,
			e->flags & 1 ? e->index : 0, e->eax, e->ebx, e->ecx, e->edx);
	}
	if (f)
		fclose(f);
	_exit(0);
}

int ioctl(int fd, unsigned long request, ...)
{
	struct kvm_cpuid2 *c;
	struct kvm_msrs *msrs;
	struct kvm_device_attr *attr;
	unsigned int room = 0;
	va_list ap;
	void *arg;
	int r;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	request = (unsigned int)request; /* QEMU has it in an int */
	c = arg;
	msrs = arg;
	attr = arg;
	if (request == KVM_SET_CPUID2) {
		if (!(leaf(c, 1, 0)->ebx >> 24))
			write_out(c);
		return 0; /* not the first one */
	}
	if (request == KVM_GET_SUPPORTED_CPUID)
		room = c->nent;
	r = syscall(SYS_ioctl, fd, request, arg);
	if (r >= 0 && request == KVM_GET_SUPPORTED_CPUID)
		all_flags(c, room);
	if (request == KVM_GET_MSRS && msrs->nmsrs == 1 &&
	    (msrs->entries[0].index == 0x10a || msrs->entries[0].index == 0xcf)) {
		msrs->entries[0].data = ~0ull;
		r = 1;
	}
	if (!r && request == KVM_GET_DEVICE_ATTR && !attr->group &&
	    attr->attr == KVM_X86_XCOMP_GUEST_SUPP)
		*(unsigned long long *)attr->addr = XCR0;
	return r;
}
