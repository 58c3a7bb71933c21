/* SPDX-License-Identifier: GPL-2.0-only */
/* CPUID: KVM's word for what the host and KVM can do, ours for the topology (SDM volume 2A, CPUID; APM volume 3, appendix E). */
#include <cpuid.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "cpu.h"

#define DEFAULT_ADDRESS_BITS 36 /* of CPUs without leaf 0x80000008 */

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

struct kvm_cpuid_entry2 *cpuid_find_or_add(struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
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
		struct kvm_cpuid_entry2 *e = cpuid_find_or_add(c, leaf, 0);

		if (!e || e->eax || e->ebx || e->ecx || e->edx)
			continue;
		e->flags = 0;
		__cpuid(leaf, e->eax, e->ebx, e->ecx, e->edx);
	}
}

int cpuid_supported(int kvm_fd, struct kvm_cpuid2 *c, struct hako_error *err)
{
	c->nent = CPUID_MAX_ENTRIES;
	if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, c) < 0)
		return error_errno(err, -errno, "KVM: CPUID");
	add_description(c);
	return 0;
}

static bool is_amd(const struct kvm_cpuid_entry2 *base)
{
	return base->ebx == 0x68747541 || base->ebx == 0x6f677948; /* Auth, Hygo */
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

struct apic_bits cpuid_apic_bits(const struct config_topology *t)
{
	struct apic_bits b = {.thread = log2_up(t->threads)};

	b.core = b.thread + log2_up(t->cores);
	b.die = b.core + log2_up(t->dies);
	return b;
}

static void leaf_1(struct kvm_cpuid_entry2 *e, uint32_t apic_id, const struct cpuid_config *config)
{
	uint32_t ids = 1u << cpuid_apic_bits(&config->topology).die;

	set_field(&e->ebx, 24, 8, apic_id & 255);
	set_field(&e->ebx, 16, 8, ids > 1 ? MIN(ids, 255u) : 0);
	set_field(&e->edx, 28, 1, ids > 1); /* HTT: EBX[23:16] is valid */
}

/* Caches: the first two levels are a core's own, the last one the die's. Counts are of IDs, with those that nobody has. */
static void leaf_caches(struct kvm_cpuid2 *c, uint32_t function, const struct apic_bits *bits)
{
	for (uint32_t i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];
		uint32_t level = (e->eax >> 5) & 7;

		if (e->function != function || !(e->eax & 31))
			continue;
		set_field(&e->eax, 14, 12, (1u << (level < 3 ? bits->thread : bits->core)) - 1);
		if (function == 4)
			set_field(&e->eax, 26, 6, MIN((1u << (bits->die - bits->thread)) - 1, 63u));
	}
}

/* Leaves 0xb and 0x1f: levels from the inmost to the socket, and an end. Only 0x1f knows dies. */
static void leaf_topology(struct kvm_cpuid2 *c, uint32_t function, uint32_t apic_id,
			  const struct config_topology *t)
{
	const struct apic_bits bits = cpuid_apic_bits(t);
	bool has_dies = function == 0x1f && t->dies > 1;
	const struct {
		uint32_t type, shift, cpus;
	} level[] = {
		{1, bits.thread, t->threads},
		{2, has_dies ? bits.core : bits.die,
		 t->threads * t->cores * (has_dies ? 1 : t->dies)},
		{has_dies ? 5 : 0, has_dies ? bits.die : 0,
		 has_dies ? t->threads * t->cores * t->dies : 0},
		{0},
	};

	for (uint32_t i = 0; i < ARRAY_SIZE(level) && (i < 3 || has_dies); i++) {
		struct kvm_cpuid_entry2 *e = cpuid_find_or_add(c, function, i);

		if (!e)
			return;
		e->flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		e->eax = level[i].shift;
		e->ebx = level[i].cpus;
		e->ecx = i | level[i].type << 8;
		e->edx = apic_id;
	}
}

/* Without TOPOEXT Linux takes threads for cores; it promises nothing but leaves of CPUID. */
static void add_topoext(struct kvm_cpuid2 *c)
{
	struct kvm_cpuid_entry2 *e = find(c, 0x80000001, 0), *max = find(c, 0x80000000, 0);
	struct kvm_cpuid_entry2 *leaf = find(c, 0x8000001e, 0)
						?: cpuid_find_or_add(c, 0x8000001e, 0);

	if (!e || !max || !leaf)
		return;
	leaf->flags = 0;
	set_field(&e->ecx, 22, 1, 1);
	max->eax = MAX(max->eax, 0x8000001eu);
}

/* What AMD's have besides; Linux takes dies for nodes of a socket. */
static void leaves_amd(struct kvm_cpuid2 *c, uint32_t apic_id, const struct cpuid_config *config)
{
	const struct config_topology *t = &config->topology;
	const struct apic_bits bits = cpuid_apic_bits(t);
	uint32_t n = t->threads * t->cores * t->dies;
	struct kvm_cpuid_entry2 *e;

	e = find(c, 0x80000008, 0);
	if (e)
		e->ecx = n > 1 ? (bits.die << 12) | MIN(n - 1, 255u) : 0;
	e = find(c, 0x80000001, 0);
	if (e)
		set_field(&e->ecx, 1, 1, n > 1); /* CmpLegacy */
	if (config->extended && (t->threads > 1 || t->dies > 1))
		add_topoext(c);
	e = find(c, 0x8000001e, 0);
	if (e) {
		uint32_t core = (apic_id & ((1u << bits.core) - 1)) >> bits.thread;

		e->eax = apic_id;
		e->ebx = (core & 0xff) | (t->threads - 1) << 8;
		e->ecx = ((apic_id >> bits.core) & 0xff) | (t->dies - 1) << 8;
	}
}

void cpuid_for_vcpu(struct kvm_cpuid2 *c, uint32_t apic_id, const struct cpuid_config *config)
{
	const struct config_topology *t = &config->topology;
	const struct apic_bits bits = cpuid_apic_bits(t);
	struct kvm_cpuid_entry2 *e, *base = find(c, 0, 0);

	e = find(c, 1, 0);
	if (e)
		leaf_1(e, apic_id, config);
	leaf_caches(c, 4, &bits);
	leaf_caches(c, 0x8000001d, &bits);
	if (base && base->eax < 0xb && config->extended)
		base->eax = 0xb;
	if (base && base->eax >= 0xb && !config->no_leaf_0xb)
		leaf_topology(c, 0xb, apic_id, t);
	if (base && base->eax < 0x1f && t->dies > 1 && !is_amd(base))
		base->eax = 0x1f;
	if (base && base->eax >= 0x1f && (t->dies > 1 || find(c, 0x1f, 0)))
		leaf_topology(c, 0x1f, apic_id, t);
	if (base && is_amd(base))
		leaves_amd(c, apic_id, config);
}
