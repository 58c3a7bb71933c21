/* SPDX-License-Identifier: GPL-2.0-only */
/* An x86 vCPU's registers: CPUID, power-on state, reset, the state a kernel is entered in. */
#ifndef ARCH_X86_CPU_H
#define ARCH_X86_CPU_H

#include "vmm/config.h"
#include "vmm/error.h"
#include "vmm/util.h"

struct kvm;
struct vm;
struct vcpu;
struct boot_entry;
struct kvm_cpuid2;

/** After KVM_CREATE_VCPU, in the vCPU's thread: CPUID, MSRs; remembers the power-on state in vcpu->power_on. */
int cpu_init(struct vcpu *vcpu, struct hako_error *err);

/**
 * To the state after power-on: the first vCPU ready to run, the others waiting for INIT and SIPI. @entry (first vCPU only) starts it where
 * a kernel wants to be entered instead of at the reset vector; @fresh: nothing has run since cpu_init(). vCPUs are parked.
 */
int cpu_reset(struct vcpu *vcpu, const struct boot_entry *entry, bool fresh,
	      struct hako_error *err);

/** The APIC ID of vCPU @index: thread, core, die and socket, each in as many bits as it needs. KVM's vCPU ID, too. */
uint32_t cpu_apic_id(const struct config_topology *t, uint32_t index);
/** Has one of the VM's vCPUs an APIC ID that needs more than 8 bits? */
bool cpu_has_long_ids(const struct vm *vm);

/* --- cpuid.c ------------------------------------------------------------------------------------- */

#define APIC_8BIT_IDS 255u /* below the broadcast's */

struct cpuid_config {
	struct config_topology topology;
	bool msi_ext_dest; /* messages reach APIC IDs of 15 bits */
	bool tsc_deadline; /* KVM's local APIC has that timer */
};

/* How many bits of an APIC ID are of the thread, of what is below the die, below the socket. */
struct apic_bits {
	uint32_t thread, core, die;
};
struct apic_bits cpuid_apic_bits(const struct config_topology *t);

/** Ask KVM, once for all vCPUs, what it supports: kvm->cpuid. */
int cpuid_supported(struct kvm *kvm, struct hako_error *err);

/** A copy of it for a vCPU, with room for what cpuid_for_vcpu() adds; the caller frees it. NULL: no memory. */
struct kvm_cpuid2 *cpuid_copy(const struct kvm *kvm);

/** The end of what a guest can address. */
uint64_t cpuid_address_limit(const struct kvm_cpuid2 *cpuid);

/** Fill in what differs between vCPUs or depends on the VM: APIC ID, topology leaves, bits that KVM leaves to us. */
void cpuid_for_vcpu(struct kvm_cpuid2 *cpuid, uint32_t apic_id, const struct cpuid_config *config);

#endif
