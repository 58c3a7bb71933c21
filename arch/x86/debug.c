/* SPDX-License-Identifier: GPL-2.0-only */
/* Breakpoints by KVM_SET_GUEST_DEBUG; SDM volume 3, chapter 18, "Debug registers". */
#include "debug.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define VECTOR_DB    1
#define VECTOR_BP    3
#define DR6_BS	     BIT(14) /* a single step */
#define DR7_FIXED    BIT(10)
#define DR7_EXACT    BIT(9) /* GE */
#define DR7_ENABLE   2u	    /* G0 */
#define DR7_RW_WRITE 1u
#define DR7_RW_ANY   3u
#define INT3	     0xcc

struct debug_points *debug_new(struct vm *vm)
{
	struct debug_points *points = calloc(1, sizeof(*points));

#ifdef KVM_GUESTDBG_BLOCKIRQ
	if (points && vm->fd >= 0)
		points->block_irqs = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_SET_GUEST_DEBUG2) &
				     KVM_GUESTDBG_BLOCKIRQ;
#endif
	return points;
}

static bool same(const struct debug_point *p, enum debug_kind kind, uint64_t addr, uint64_t len)
{
	return p->kind == kind && p->addr == addr && p->len == len;
}

static struct debug_point *find(struct debug_point *p, unsigned int n, enum debug_kind kind,
				uint64_t addr, uint64_t len)
{
	for (unsigned int i = 0; i < n; i++)
		if (same(&p[i], kind, addr, len))
			return &p[i];
	return NULL;
}

static int add_software(struct vcpu *v, uint64_t addr, uint64_t len)
{
	struct debug_points *d = v->vm->debug;
	struct debug_point *p = &d->soft[d->nsoft];
	static const uint8_t int3 = INT3;
	int r;

	if (len != 1)
		return -EINVAL;
	if (find(d->soft, d->nsoft, DEBUG_SOFTWARE, addr, 1))
		return 0;
	if (d->nsoft == DEBUG_MAX_SOFTWARE)
		return -ENOSPC;
	*p = (struct debug_point){.kind = DEBUG_SOFTWARE, .addr = addr, .len = 1};
	r = debug_translate(v, addr, &p->gpa);
	if (!r)
		r = memory_read(&v->vm->mem, p->gpa, &p->saved, 1);
	if (!r)
		r = memory_write(&v->vm->mem, p->gpa, &int3, 1);
	if (!r)
		d->nsoft++;
	return r;
}

static int add_hardware(struct debug_points *d, enum debug_kind kind, uint64_t addr, uint64_t len)
{
	/* Other lengths, and places that are not aligned, would take several registers. */
	if (kind == DEBUG_HARDWARE ? len != 1
				   : !IS_POWER_OF_2(len) || len > 8 || (addr & (len - 1)))
		return -EINVAL;
	if (find(d->hard, d->nhard, kind, addr, len))
		return 0;
	if (d->nhard == DEBUG_REGISTERS)
		return -ENOSPC;
	d->hard[d->nhard++] = (struct debug_point){.kind = kind, .addr = addr, .len = len};
	return 0;
}

int debug_add(struct vcpu *v, enum debug_kind kind, uint64_t addr, uint64_t len)
{
	return kind == DEBUG_SOFTWARE ? add_software(v, addr, len)
				      : add_hardware(v->vm->debug, kind, addr, len);
}

/* The guest may have written something else there since, or a reset the kernel. */
static void restore(struct vm *vm, const struct debug_point *p)
{
	uint8_t now;

	if (!memory_read(&vm->mem, p->gpa, &now, 1) && now == INT3)
		memory_write(&vm->mem, p->gpa, &p->saved, 1);
}

int debug_remove(struct vcpu *v, enum debug_kind kind, uint64_t addr, uint64_t len)
{
	struct debug_points *d = v->vm->debug;
	bool soft = kind == DEBUG_SOFTWARE;
	struct debug_point *all = soft ? d->soft : d->hard;
	unsigned int *n = soft ? &d->nsoft : &d->nhard;
	struct debug_point *p = find(all, *n, kind, addr, len);

	if (!p)
		return -ENOENT;
	if (soft)
		restore(v->vm, p);
	*p = all[--*n];
	return 0;
}

void debug_remove_all(struct vm *vm)
{
	struct debug_points *d = vm->debug;

	while (d->nsoft)
		restore(vm, &d->soft[--d->nsoft]);
	d->nhard = 0;
}

/* Each has its two bits of enable, and four of type and length. */
static uint64_t dr7(const struct debug_points *d)
{
	static const uint8_t len_bits[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2};
	uint64_t value = DR7_FIXED | DR7_EXACT;

	for (unsigned int i = 0; i < d->nhard; i++) {
		const struct debug_point *p = &d->hard[i];
		uint64_t rw = p->kind == DEBUG_WRITE	? DR7_RW_WRITE
			      : p->kind == DEBUG_ACCESS ? DR7_RW_ANY
							: 0;

		value |= DR7_ENABLE << 2 * i | (rw | len_bits[p->len] << 2) << (16 + 4 * i);
	}
	return value;
}

static int arm(struct vcpu *v, uint32_t more)
{
	const struct debug_points *d = v->vm->debug;
	struct kvm_guest_debug arg = {.control = more};

	if (v->debug.step)
		arg.control |= KVM_GUESTDBG_SINGLESTEP;
#ifdef KVM_GUESTDBG_BLOCKIRQ
	if (v->debug.step && d->block_irqs)
		arg.control |= KVM_GUESTDBG_BLOCKIRQ;
#endif
	if (d->nsoft)
		arg.control |= KVM_GUESTDBG_USE_SW_BP;
	if (d->nhard) {
		arg.control |= KVM_GUESTDBG_USE_HW_BP;
		for (unsigned int i = 0; i < d->nhard; i++)
			arg.arch.debugreg[i] = d->hard[i].addr;
		arg.arch.debugreg[7] = dr7(d);
	}
	if (arg.control)
		arg.control |= KVM_GUESTDBG_ENABLE;
	if (!arg.control && !v->debug.on)
		return 0;
	v->debug.on = arg.control;
	return ioctl(v->fd, KVM_SET_GUEST_DEBUG, &arg) < 0 ? -errno : 0;
}

int debug_arm(struct vcpu *v)
{
	return arm(v, 0);
}

static void stop(struct vcpu *v, enum vcpu_stop why, uint64_t addr)
{
	v->debug.stop = why;
	v->debug.addr = addr;
	vcpus_hold(v->vm);
}

/* The exception is the guest's: as it would have had it without us. */
static void give_back(struct vcpu *v, uint32_t vector, uint64_t dr6)
{
	struct kvm_debugregs regs;

	if (vector == VECTOR_DB && !ioctl(v->fd, KVM_GET_DEBUGREGS, &regs)) {
		regs.dr6 = dr6;
		ioctl(v->fd, KVM_SET_DEBUGREGS, &regs);
	}
	arm(v, vector == VECTOR_DB ? KVM_GUESTDBG_INJECT_DB : KVM_GUESTDBG_INJECT_BP);
}

void debug_exit(struct vcpu *v)
{
	const struct kvm_debug_exit_arch *arch = &v->run->debug.arch;
	struct debug_points *d = v->vm->debug;

	if (!d)
		return;
	if (arch->exception == VECTOR_BP) {
		if (find(d->soft, d->nsoft, DEBUG_SOFTWARE, arch->pc, 1))
			return stop(v, VCPU_STOP_SOFTWARE, arch->pc);
		return give_back(v, VECTOR_BP, 0);
	}
	for (unsigned int i = 0; i < d->nhard; i++) {
		const struct debug_point *p = &d->hard[i];

		if (arch->dr6 & BIT(i))
			return stop(v,
				    p->kind == DEBUG_HARDWARE ? VCPU_STOP_HARDWARE
				    : p->kind == DEBUG_WRITE  ? VCPU_STOP_WATCH
							      : VCPU_STOP_ACCESS,
				    p->addr);
	}
	if (v->debug.step)
		return stop(v, VCPU_STOP_STEP, arch->pc);
	give_back(v, VECTOR_DB, arch->dr6);
}

int debug_translate(struct vcpu *v, uint64_t addr, uint64_t *gpa)
{
	struct kvm_translation t = {.linear_address = addr};

	if (ioctl(v->fd, KVM_TRANSLATE, &t) < 0)
		return -errno;
	if (!t.valid)
		return -EFAULT;
	*gpa = t.physical_address;
	return 0;
}
