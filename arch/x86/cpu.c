/* SPDX-License-Identifier: GPL-2.0-only */
#include "cpu.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "boot.h"
#include "cpu_model.h"
#include "cpu_setup.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define CR0_PE		BIT(0)
#define CR0_ET		BIT(4)
#define CR0_NE		BIT(5)
#define CR0_PG		BIT(31)
#define CR4_PAE		BIT(5)
#define EFER_LME	BIT(8)
#define EFER_LMA	BIT(10)
#define MSR_MISC_ENABLE 0x1a0
#define MSR_TSC		0x10
#define APIC_BASE_X2	BIT(10)
#define MSR_FEAT_CTL	0x3a
#define MSR_MTRR_BASE0	0x200 /* and mask, eight pairs */
#define MSR_MTRR_TYPE	0x2ff
#define MTRR_ENABLE	BIT(11)
#define MTRR_WRITE_BACK 6
#define MTRRS		28
#define MSR_MAX		512

/*
 * The power-on state is what KVM gave a fresh vCPU: it knows best. A reset puts it back; the time-stamp counter alone goes on, since
 * setting it on several vCPUs one after the other would tear them apart.
 */
struct cpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp_state;
	struct kvm_lapic_state lapic;
	struct kvm_debugregs debugregs;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	uint32_t nmsrs;
	struct kvm_msr_entry msr[];
};

uint32_t cpu_apic_id(const struct config_topology *t, uint32_t index)
{
	struct apic_bits bits = cpuid_apic_bits(t);
	uint32_t thread = index % t->threads, core = index / t->threads % t->cores;
	uint32_t die = index / t->threads / t->cores % t->dies;
	uint32_t socket = index / t->threads / t->cores / t->dies;

	return thread | core << bits.thread | die << bits.core | socket << bits.die;
}

bool cpu_has_long_ids(const struct vm *vm)
{
	const struct vm_config *c = vm->config;

	return cpu_apic_id(&c->topology, c->ncpus - 1) >= APIC_8BIT_IDS;
}

static int vcpu_ioctl(struct vcpu *v, unsigned long request, void *arg, const char *what,
		      struct hako_error *err)
{
	if (ioctl(v->fd, request, arg) < 0)
		return error_errno(err, -errno, "KVM: vCPU %u: %s", v->index, what);
	return 0;
}

/* The frequency in kHz; what KVM says when the host cannot be other than it is. */
static int set_tsc(struct vcpu *v, uint32_t *khz, struct hako_error *err)
{
	const struct cpu_setup *setup = v->vm->kvm->cpu;
	int is;

	if (setup->tsc_khz && ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)setup->tsc_khz) < 0)
		return error_errno(err, -errno, "--cpu %s: tsc-frequency", v->vm->config->cpu);
	if (!setup->tsc_khz && !setup->tsc_leaf)
		return 0;
	is = ioctl(v->fd, KVM_GET_TSC_KHZ, 0);
	if (setup->tsc_khz && is != (int)setup->tsc_khz)
		return error_set(
			err, -ENOTSUP,
			"--cpu %s: tsc-frequency: this host's CPU has %d kHz, and does not "
			"scale them",
			v->vm->config->cpu, is);
	*khz = MAX(is, 0);
	return 0;
}

static int enforce_pv(struct vcpu *v, struct hako_error *err)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
		.args = {1},
	};

	return vcpu_ioctl(v, KVM_ENABLE_CAP, &cap, "kvm-pv-enforce-cpuid", err);
}

static int set_cpuid(struct vcpu *v, struct hako_error *err)
{
	const struct cpu_setup *setup = v->vm->kvm->cpu;
	const struct cpuid_config config = {
		.topology = v->vm->config->topology,
		.extended = setup->extended_topology,
		.no_leaf_0xb = setup->no_leaf_0xb,
	};
	struct kvm_cpuid2 *cpuid = malloc(CPUID_BYTES);
	uint32_t khz = 0;
	int r;

	if (!cpuid)
		return error_errno(err, -ENOMEM, "CPUID");
	memcpy(cpuid, &setup->cpuid,
	       sizeof(setup->cpuid) + setup->cpuid.nent * sizeof(setup->cpuid.entries[0]));
	cpuid_for_vcpu(cpuid, cpu_apic_id(&config.topology, v->index), &config);
	r = set_tsc(v, &khz, err);
	if (!r && khz && setup->tsc_leaf)
		cpuid_add_tsc(cpuid, khz);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_CPUID2, cpuid, "CPUID", err);
	if (!r && setup->enforce_pv)
		r = enforce_pv(v, err);
	free(cpuid);
	return r;
}

struct msr_buf {
	struct kvm_msrs head;
	struct kvm_msr_entry entry[MSR_MAX + MTRRS];
};

/* KVM's list leaves these out. */
static uint32_t add_mtrrs(struct kvm_msr_entry *entry)
{
	static const uint32_t fixed[] = {0x250, 0x258, 0x259, 0x268, 0x269, 0x26a,
					 0x26b, 0x26c, 0x26d, 0x26e, 0x26f};
	uint32_t n = 0;

	for (uint32_t i = 0; i < 16; i++)
		entry[n++].index = MSR_MTRR_BASE0 + i;
	for (uint32_t i = 0; i < ARRAY_SIZE(fixed); i++)
		entry[n++].index = fixed[i];
	entry[n++].index = MSR_MTRR_TYPE;
	return n;
}

/* The MSRs that KVM would save, and a few more. It stops at the first that it cannot read: leave that one out and try again. */
static struct cpu_state *read_msrs(struct vcpu *v)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[MSR_MAX];
	} list = {.head.nmsrs = MSR_MAX};
	struct msr_buf *msrs = calloc(1, sizeof(*msrs));
	struct cpu_state *s = NULL;
	uint32_t n = 0;

	if (!msrs || ioctl(v->vm->kvm->fd, KVM_GET_MSR_INDEX_LIST, &list) < 0)
		goto out;
	for (uint32_t i = 0; i < list.head.nmsrs; i++)
		if (list.index[i] != MSR_TSC)
			msrs->entry[n++].index = list.index[i];
	n += add_mtrrs(&msrs->entry[n]);
	while (n) {
		int got;

		msrs->head.nmsrs = n;
		got = ioctl(v->fd, KVM_GET_MSRS, msrs);
		if (got < 0 || got == (int)n)
			break;
		n--;
		memmove(&msrs->entry[got], &msrs->entry[got + 1],
			(n - got) * sizeof(msrs->entry[0]));
	}
	s = calloc(1, sizeof(*s) + n * sizeof(s->msr[0]));
	if (s) {
		s->nmsrs = n;
		memcpy(s->msr, msrs->entry, n * sizeof(s->msr[0]));
	}
out:
	free(msrs);
	return s;
}

static int set_msrs(struct vcpu *v, const struct kvm_msr_entry *entry, uint32_t n)
{
	struct kvm_msrs *msrs = calloc(1, sizeof(*msrs) + n * sizeof(*entry));
	uint32_t at = 0;

	if (!msrs)
		return -ENOMEM;
	while (at < n) {
		int done;

		msrs->nmsrs = n - at;
		memcpy(msrs->entries, entry + at, (n - at) * sizeof(*entry));
		done = ioctl(v->fd, KVM_SET_MSRS, msrs);
		if (done < 0)
			break;
		at += done + 1; /* read-only ones are passed over */
	}
	free(msrs);
	return 0;
}

static int save_power_on(struct vcpu *v, struct hako_error *err)
{
	struct kvm *kvm = v->vm->kvm;
	struct cpu_state *s = read_msrs(v);
	int r;

	if (!s)
		return error_errno(err, -ENOMEM, "vCPU %u", v->index);
	v->power_on = s;
	r = vcpu_ioctl(v, KVM_GET_REGS, &s->regs, "registers", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_GET_SREGS, &s->sregs, "system registers", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_GET_VCPU_EVENTS, &s->events, "events", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_GET_MP_STATE, &s->mp_state, "run state", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_GET_LAPIC, &s->lapic, "local APIC", err);
	if (!r && kvm->cap[KVM_HAS_DEBUGREGS])
		r = vcpu_ioctl(v, KVM_GET_DEBUGREGS, &s->debugregs, "debug registers", err);
	if (!r && kvm->cap[KVM_HAS_XCRS])
		r = vcpu_ioctl(v, KVM_GET_XCRS, &s->xcrs, "XCR0", err);
	if (!r && kvm->cap[KVM_HAS_XSAVE])
		r = vcpu_ioctl(v, KVM_GET_XSAVE, &s->xsave, "extended registers", err);
	return r;
}

int cpu_init(struct vcpu *v, struct hako_error *err)
{
	/* As every firmware leaves them: fast string operations; memory is write-back, and Linux may use its PAT. */
	static const struct kvm_msr_entry firmware[] = {
		{.index = MSR_MISC_ENABLE, .data = 1},
		{.index = MSR_MTRR_TYPE, .data = MTRR_ENABLE | MTRR_WRITE_BACK},
	};
	int r;

	r = set_cpuid(v, err);
	if (!r)
		r = set_msrs(v, firmware, ARRAY_SIZE(firmware));
	if (!r)
		r = set_msrs(v, v->vm->kvm->cpu->msr, v->vm->kvm->cpu->nmsrs);
	if (!r)
		r = save_power_on(v, err);
	return r;
}

/* --- the state a kernel is entered in -------------------------------------------------------- */

/* Selectors 0x10 and 0x18, as Linux's boot protocol asks for; boot.c puts the same into the GDT. */
static void flat_segments(struct kvm_sregs *sregs, bool long_mode)
{
	struct kvm_segment code = {
		.selector = 0x10,
		.limit = 0xffffffff,
		.type = 11, /* code, readable, accessed */
		.present = 1,
		.s = 1,
		.g = 1,
		.l = long_mode,
		.db = !long_mode,
	};
	struct kvm_segment data = code;

	data.selector = 0x18;
	data.type = 3; /* data, writable, accessed */
	data.l = 0;
	data.db = 1;
	sregs->cs = code;
	sregs->ds = sregs->es = sregs->fs = sregs->gs = sregs->ss = data;
	sregs->tr = (struct kvm_segment){.limit = 0xffff, .type = 11, .present = 1};
	sregs->ldt = (struct kvm_segment){.unusable = 1};
	sregs->gdt = (struct kvm_dtable){.base = BOOT_GDT_GPA, .limit = 4 * 8 - 1};
	sregs->idt = (struct kvm_dtable){.limit = 0};
}

static void enter_kernel(const struct boot_entry *entry, struct kvm_regs *regs,
			 struct kvm_sregs *sregs)
{
	*regs = (struct kvm_regs){
		.rip = entry->rip,
		.rsp = entry->rsp,
		.rsi = entry->rsi,
		.rbx = entry->rbx,
		.rax = entry->rax,
		.rflags = 2,
	};
	switch (entry->mode) {
	case BOOT_MODE_REAL:
		sregs->cs.selector = entry->cs;
		sregs->cs.base = (uint64_t)entry->cs << 4;
		break;
	case BOOT_MODE_PROTECTED:
		flat_segments(sregs, false);
		sregs->cr0 = CR0_PE | CR0_ET;
		break;
	case BOOT_MODE_LONG:
		flat_segments(sregs, true);
		sregs->cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
		sregs->cr3 = BOOT_PAGE_TABLES;
		sregs->cr4 = CR4_PAE;
		sregs->efer = EFER_LME | EFER_LMA;
		break;
	}
}

/* Back to power-on. Order matters: the APIC's mode (in sregs) before its registers. */
static int restore_power_on(struct vcpu *v, const struct kvm_regs *regs,
			    const struct kvm_sregs *sregs, struct hako_error *err)
{
	/*
	 * After a triple fault AMD's KVM starts from an empty VMCB and forgets the TSC's offset, while its timers
	 * still reckon with it. Writing 0 makes it find the offset again that all vCPUs share.
	 */
	static const struct kvm_msr_entry tsc = {.index = MSR_TSC};
	/*
	 * A guest that was a hypervisor itself may be in VMX operation still, where KVM refuses a CR4 without VMXE.
	 * Host writes of 0 to this MSR end that.
	 */
	static const struct kvm_msr_entry feat_ctl = {.index = MSR_FEAT_CTL};
	struct kvm *kvm = v->vm->kvm;
	struct cpu_state *s = v->power_on;
	int r;

	r = set_msrs(v, &feat_ctl, 1);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_MP_STATE, &s->mp_state, "run state", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_VCPU_EVENTS, &s->events, "events", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_SREGS, (void *)sregs, "system registers", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_REGS, (void *)regs, "registers", err);
	if (!r)
		r = set_msrs(v, s->msr, s->nmsrs) ?: set_msrs(v, &tsc, 1);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_LAPIC, &s->lapic, "local APIC", err);
	if (!r && kvm->cap[KVM_HAS_DEBUGREGS])
		r = vcpu_ioctl(v, KVM_SET_DEBUGREGS, &s->debugregs, "debug registers", err);
	if (!r && kvm->cap[KVM_HAS_XCRS])
		r = vcpu_ioctl(v, KVM_SET_XCRS, &s->xcrs, "XCR0", err);
	if (!r && kvm->cap[KVM_HAS_XSAVE])
		r = vcpu_ioctl(v, KVM_SET_XSAVE, &s->xsave, "extended registers", err);
	return r;
}

int cpu_reset(struct vcpu *v, const struct boot_entry *entry, bool fresh, struct hako_error *err)
{
	struct kvm_regs regs = v->power_on->regs;
	struct kvm_sregs sregs = v->power_on->sregs;
	int r;

	if (entry)
		enter_kernel(entry, &regs, &sregs);
	/* As firmware leaves it if there are IDs for it: Linux overlooks the MADT's x2APIC entries otherwise. */
	if (entry && cpu_has_long_ids(v->vm))
		sregs.apic_base |= APIC_BASE_X2;
	if (!fresh)
		return restore_power_on(v, &regs, &sregs, err);
	if (!entry)
		return 0;
	r = vcpu_ioctl(v, KVM_SET_SREGS, &sregs, "system registers", err);
	if (!r)
		r = vcpu_ioctl(v, KVM_SET_REGS, &regs, "registers", err);
	return r;
}
