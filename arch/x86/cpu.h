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
struct kvm_cpuid_entry2;

/**
 * Make of --cpu and of what KVM supports what all vCPUs have in common: kvm->cpu. Once, before the interrupt controllers are made.
 * @ext_dest: messages will reach APIC IDs of 15 bits. @address_limit: the end of what the guest can address.
 */
int cpu_setup(struct vm *vm, bool ext_dest, uint64_t *address_limit, struct hako_error *err);
/** The VM's part of it, before the vCPUs: what KVM shall not do. */
int cpu_setup_vm(struct vm *vm, struct hako_error *err);

/** After KVM_CREATE_VCPU, in the vCPU's thread: time-stamp counter, CPUID, MSRs; remembers the power-on state in vcpu->power_on. */
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

#define CPUID_MAX_ENTRIES 256
#define CPUID_BYTES \
	(sizeof(struct kvm_cpuid2) + CPUID_MAX_ENTRIES * sizeof(struct kvm_cpuid_entry2))

struct cpuid_config {
	struct config_topology topology;
	bool extended;	  /* raise the last leaf and flags, so that topology can be told in full */
	bool no_leaf_0xb; /* leave that one out */
};

/* How many bits of an APIC ID are of the thread, of what is below the die, below the socket. */
struct apic_bits {
	uint32_t thread, core, die;
};
struct apic_bits cpuid_apic_bits(const struct config_topology *t);

/** Ask KVM what it supports: into @c, which has room for CPUID_MAX_ENTRIES. */
int cpuid_supported(int kvm_fd, struct kvm_cpuid2 *c, struct hako_error *err);

/** The entry, a new one of zeroes if there is none; NULL if there is no room. */
struct kvm_cpuid_entry2 *cpuid_find_or_add(struct kvm_cpuid2 *c, uint32_t function, uint32_t index);

/** The end of what a guest can address. */
uint64_t cpuid_address_limit(const struct kvm_cpuid2 *cpuid);

/** Fill in what differs between vCPUs: APIC ID, topology leaves. */
void cpuid_for_vcpu(struct kvm_cpuid2 *cpuid, uint32_t apic_id, const struct cpuid_config *config);

#endif
