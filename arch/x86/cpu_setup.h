/* SPDX-License-Identifier: GPL-2.0-only */
/* What all vCPUs of a VM have in common: kvm->cpu, one allocation. */
#ifndef ARCH_X86_CPU_SETUP_H
#define ARCH_X86_CPU_SETUP_H

#include <linux/kvm.h>

#include "vmm/util.h"

struct cpu_setup {
	uint32_t tsc_khz;	/* to be set; 0: the host's */
	bool tsc_leaf;		/* tell the guest */
	bool extended_topology; /* struct cpuid_config's */
	bool no_leaf_0xb;
	bool enforce_pv;
	bool no_pmu; /* none in KVM either */
	uint32_t nmsrs;
	struct kvm_msr_entry msr[3]; /* flags that are in MSRs */
	struct kvm_cpuid2 cpuid;     /* with CPUID_MAX_ENTRIES behind it */
};

#endif
