/* SPDX-License-Identifier: GPL-2.0-only */
/* CPUID: KVM's word for what the host and KVM can do, ours for the topology (SDM volume 2A, CPUID; APM volume 3, appendix E). */
#include <cpuid.h>
#include <asm/kvm_para.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "cpu.h"
#include "vmm/kvm.h"

#define CPUID_MAX_ENTRIES 256
#define CPUID_BYTES \
	(sizeof(struct kvm_cpuid2) + CPUID_MAX_ENTRIES * sizeof(struct kvm_cpuid_entry2))

#define DEFAULT_ADDRESS_BITS 36 /* of CPUs without leaf 0x80000008 */

struct kvm_cpuid2 *cpuid_copy(const struct kvm *kvm)
{
	struct kvm_cpuid2 *c = malloc(CPUID_BYTES);

	if (c)
		memcpy(c, kvm->cpuid, CPUID_BYTES);
	return c;
}

static struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return (struct kvm_cpuid_entry2 *)&c->entries[i];
	return NULL;
}

/* EAX[23:16] is there if the page tables that KVM uses reach less far than the CPU's addresses (APM volume 3, E.4.7). */
uint64_t cpuid_address_limit(const struct kvm_cpuid2 *c)
{
	const struct kvm_cpuid_entry2 *e = find(c, 0x80000008, 0);
	uint32_t bits = e ? e->eax & 0xff : 0, guest_bits = e ? e->eax >> 16 & 0xff : 0;

	if (guest_bits && guest_bits < bits)
		bits = guest_bits;
	return 1ull << (bits >= 32 && bits <= 52 ? bits : DEFAULT_ADDRESS_BITS);
}

static struct kvm_cpuid_entry2 *find_or_add(struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
	struct kvm_cpuid_entry2 *e = find(c, function, index);

	if (e || c->nent == CPUID_MAX_ENTRIES)
		return e;
	e = &c->entries[c->nent++];
	*e = (struct kvm_cpuid_entry2){
		.function = function,
		.index = index,
		.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
	};
	return e;
}

/* The CPU's name and the first caches and TLBs (AMD): KVM leaves them empty, since they promise nothing. */
static void add_description(struct kvm_cpuid2 *c)
{
	uint32_t last = __get_cpuid_max(0x80000000, NULL);
	const struct kvm_cpuid_entry2 *max = find(c, 0x80000000, 0);

	for (uint32_t leaf = 0x80000002; max && leaf <= MIN(0x80000005, MIN(last, max->eax));
	     leaf++) {
		struct kvm_cpuid_entry2 *e = find_or_add(c, leaf, 0);

		if (!e || e->eax || e->ebx || e->ecx || e->edx)
			continue;
		e->flags = 0;
		__cpuid(leaf, e->eax, e->ebx, e->ecx, e->edx);
	}
}

int cpuid_supported(struct kvm *kvm, struct hako_error *err)
{
	struct kvm_cpuid2 *c = calloc(1, CPUID_BYTES);
	int r;

	if (!c)
		return error_errno(err, -ENOMEM, "CPUID");
	c->nent = CPUID_MAX_ENTRIES;
	if (ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, c) < 0) {
		r = error_errno(err, -errno, "KVM: CPUID");
		free(c);
		return r;
	}
	add_description(c);
	free(kvm->cpuid);
	kvm->cpuid = c;
	return 0;
}

static uint32_t log2_up(uint32_t n)
{
	return n <= 1 ? 0 : 32 - __builtin_clz(n - 1);
}

static void set_field(uint32_t *reg, unsigned int shift, unsigned int bits, uint32_t value)
{
	uint32_t mask = ((bits == 32 ? 0 : BIT(bits)) - 1) << shift;

	*reg = (*reg & ~mask) | ((value << shift) & mask);
}

static void leaf_1(struct kvm_cpuid_entry2 *e, uint32_t apic_id, uint32_t vcpus, bool tsc_deadline)
{
	set_field(&e->ebx, 24, 8, apic_id & 255);
	set_field(&e->ebx, 16, 8, MIN(1u << log2_up(vcpus), 255u));
	set_field(&e->edx, 28, 1, vcpus > 1); /* HTT: EBX[23:16] is valid */
	set_field(&e->ecx, 31, 1, 1);	      /* a hypervisor */
	set_field(&e->ecx, 21, 1, 1); /* x2APIC: in KVM's local APIC, whatever the host has */
	set_field(&e->ecx, 24, 1, tsc_deadline);
}

/* Caches: the first two levels are a core's own, the last one the socket's. */
static void leaf_caches(struct kvm_cpuid2 *c, uint32_t function, uint32_t vcpus)
{
	for (uint32_t i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];
		uint32_t level = (e->eax >> 5) & 7;

		if (e->function != function || !(e->eax & 31))
			continue;
		set_field(&e->eax, 14, 12, level < 3 ? 0 : vcpus - 1);
		if (function == 4)
			set_field(&e->eax, 26, 6, MIN((1u << log2_up(vcpus)) - 1, 63u));
	}
}

/* Leaves 0xb and 0x1f: a level of threads, a level of cores, an end. */
static void leaf_topology(struct kvm_cpuid2 *c, uint32_t function, uint32_t apic_id, uint32_t vcpus)
{
	for (uint32_t level = 0; level < 3; level++) {
		struct kvm_cpuid_entry2 *e = find_or_add(c, function, level);

		if (!e)
			return;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->eax = level == 1 ? log2_up(vcpus) : 0;
		e->ebx = level == 0 ? 1 : level == 1 ? vcpus : 0;
		e->ecx = level | (level < 2 ? (level + 1) << 8 : 0);
		e->edx = apic_id;
	}
}

void cpuid_for_vcpu(struct kvm_cpuid2 *c, uint32_t apic_id, const struct cpu_topology *topology,
		    bool tsc_deadline)
{
	uint32_t n = topology->vcpus;
	struct kvm_cpuid_entry2 *e, *base = find(c, 0, 0);
	bool amd = base && (base->ebx == 0x68747541 || base->ebx == 0x6f677948); /* Auth, Hygo */

	e = find(c, 0x40000001, 0);
	if (e)
		set_field(&e->eax, KVM_FEATURE_MSI_EXT_DEST_ID, 1, topology->msi_ext_dest);
	e = find(c, 1, 0);
	if (e)
		leaf_1(e, apic_id, n, tsc_deadline);
	leaf_caches(c, 4, n);
	if (base && base->eax < 0xb)
		base->eax = 0xb;
	leaf_topology(c, 0xb, apic_id, n);
	if (find(c, 0x1f, 0))
		leaf_topology(c, 0x1f, apic_id, n);
	if (!amd)
		return;
	leaf_caches(c, 0x8000001d, n);
	e = find(c, 0x80000008, 0);
	if (e)
		e->ecx = n > 1 ? (log2_up(n) << 12) | MIN(n - 1, 255u) : 0;
	e = find(c, 0x80000001, 0);
	if (e)
		set_field(&e->ecx, 1, 1, n > 1); /* CmpLegacy: cores, not threads */
	e = find(c, 0x8000001e, 0);
	if (e) {
		e->eax = apic_id;
		e->ebx = apic_id & 0xff; /* core ID, one thread each */
		e->ecx = 0;		 /* one node */
	}
}
