/* SPDX-License-Identifier: GPL-2.0-only */
/* The host's KVM: what it can do, and what hako needs of it. */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include "error.h"
#include "util.h"

/* Used if there; each has its line in kvm.c's table. */
enum kvm_cap {
	KVM_HAS_SPLIT_IRQCHIP,
	KVM_HAS_X2APIC_API,
	KVM_HAS_TSC_DEADLINE,
	KVM_HAS_PIT2,
	KVM_HAS_XSAVE,
	KVM_HAS_XCRS,
	KVM_HAS_DEBUGREGS,
	KVM_HAS_TSS_ADDR,
	KVM_HAS_IDENTITY_MAP,
	KVM_HAS_TRIPLE_FAULT_EVENT,
	KVM_HAS_PMU_CAPABILITY,
	KVM_HAS_TSC_KHZ,
	KVM_HAS_ENFORCE_PV,
	KVM_HAS_DISABLE_EXITS,
	KVM_HAS_HALT_POLL,
	KVM_HAS_ADJUST_CLOCK,
	KVM_HAS_CAPS,
};

struct cpu_setup;

struct kvm {
	int fd;
	uint32_t run_size; /* of each vCPU's struct kvm_run mapping */
	uint32_t max_vcpus, recommended_vcpus;
	int cap[KVM_HAS_CAPS]; /* KVM_CHECK_EXTENSION's answers */
	struct cpu_setup *cpu; /* x86: cpu_setup()'s; constant once vCPUs are made */
};

/** Open @path (/dev/kvm) and check what is required. Messages say what to do. */
int kvm_open(struct kvm **kvm, const char *path, struct hako_error *err);
void kvm_close(struct kvm *kvm);

/* For `hako doctor`: one line per capability, required ones first. */
struct kvm_cap_info {
	const char *name, *purpose;
	int capability; /* KVM_CAP_* */
	bool required;
	int id; /* enum kvm_cap, for the optional ones */
};
extern const struct kvm_cap_info kvm_cap_table[]; /* ends with a NULL name */

#endif
