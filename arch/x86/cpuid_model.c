/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CPUID of a CPU model, leaf by leaf: of "host" as KVM has it, with what was changed; of a named model as QEMU composes it (SDM volume 2A, CPUID;
 * APM volume 3, appendix E).
 */
#include <cpuid.h>
#include <linux/kvm.h>

#include "cpu.h"
#include "cpu_model.h"

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid2 *c, uint32_t function, uint32_t index)
{
	/* KVM fills less than half of the table. */
	return cpuid_find_or_add(c, function, index) ?: &c->entries[CPUID_MAX_ENTRIES - 1];
}

static void set(struct kvm_cpuid2 *c, uint32_t function, uint32_t index, uint32_t eax, uint32_t ebx,
		uint32_t ecx, uint32_t edx)
{
	struct kvm_cpuid_entry2 *e = leaf(c, function, index);

	e->eax = eax;
	e->ebx = ebx;
	e->ecx = ecx;
	e->edx = edx;
}

static void set_reg(struct kvm_cpuid_entry2 *e, enum cpu_reg reg, uint32_t value)
{
	uint32_t *const regs[] = {&e->eax, &e->ebx, &e->ecx, &e->edx};

	*regs[reg] = value;
}

/* Leaves with sub-leaves. */
static bool is_indexed(uint32_t function)
{
	static const uint32_t functions[] = {4, 7, 0xb, 0xd, 0x14, 0x1f, 0x8000001d};

	for (size_t i = 0; i < ARRAY_SIZE(functions); i++)
		if (functions[i] == function)
			return true;
	return false;
}

static bool is_amd(const struct cpu_model *m)
{
	return !strcmp(m->vendor, "AuthenticAMD");
}

static void put_vendor(struct kvm_cpuid2 *c, uint32_t function, uint32_t last, const char *vendor)
{
	struct kvm_cpuid_entry2 *e = leaf(c, function, 0);

	e->eax = last;
	memcpy(&e->ebx, vendor, 4);
	memcpy(&e->edx, vendor + 4, 4);
	memcpy(&e->ecx, vendor + 8, 4);
}

static uint32_t version(const struct cpu_model *m)
{
	uint32_t family = m->family > 15 ? 15 << 8 | (m->family - 15) << 20 : m->family << 8;

	return family | (m->model & 15) << 4 | (m->model >> 4) << 16 | m->stepping;
}

static void put_identity(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	char name[48] = "";

	memcpy(name, m->model_id, strlen(m->model_id));
	put_vendor(c, 0, m->level, m->vendor);
	put_vendor(c, 0x80000000, m->xlevel, m->vendor);
	leaf(c, 1, 0)->eax = version(m);
	if (m->xlevel >= 0x80000001)
		leaf(c, 0x80000001, 0)->eax = version(m);
	for (uint32_t i = 0; i < 3 && m->xlevel >= 0x80000004; i++)
		memcpy(&leaf(c, 0x80000002 + i, 0)->eax, name + 16 * i, 16);
}

/* The flags, in the leaves there are. */
static void put_words(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	for (int w = 0; w < CPU_WORDS; w++) {
		const struct cpu_word_info *info = &cpu_words[w];
		uint32_t f = info->function, value = m->word[w];

		if (f == 7 && info->index > m->func7_level)
			continue;
		if (info->msr || f == 0x40000001 || (f == 0xc0000001 && !value))
			continue;
		if (f < 0x40000000 ? f > m->level : f < 0xc0000000 && f > m->xlevel)
			continue;
		if (w == CPU_8000_0001_EDX && is_amd(m))
			value = (value & ~CPU_FLAGS_AMD_ALIASES) |
				(m->word[CPU_1_EDX] & CPU_FLAGS_AMD_ALIASES);
		if (f == 0xc0000001) {
			set(c, 0xc0000000, 0, 0xc0000001, 0, 0, 0);
			leaf(c, f, 0)->eax = version(m);
		}
		set_reg(leaf(c, f, info->index), info->reg, value);
	}
	if (m->level >= 7)
		leaf(c, 7, 0)->eax = m->func7_level;
}

/* --- caches ------------------------------------------------------------------------------------ */

static uint32_t sets(const struct cpu_cache *c)
{
	return c->size / c->line / c->ways;
}

/* Of leaves 4 and 0x8000001d; cpuid_for_vcpu() says who shares it. */
static void put_cache(struct kvm_cpuid2 *c, uint32_t function, uint32_t index, uint32_t type,
		      uint32_t level, const struct cpu_cache *cache)
{
	set(c, function, index, type | level << 5 | cache->self_init << 8,
	    (cache->line - 1) | (cache->ways - 1) << 22, sets(cache) - 1, cache->edx);
}

static void put_cache_leaf(struct kvm_cpuid2 *c, uint32_t function, const struct cpu_caches *k,
			   bool l3)
{
	put_cache(c, function, 0, 1, 1, &k->l1d);
	put_cache(c, function, 1, 2, 1, &k->l1i);
	put_cache(c, function, 2, 3, 2, &k->l2);
	if (l3)
		put_cache(c, function, 3, 3, 3, &k->l3);
	set(c, function, 3 + l3, 0, 0, 0, 0);
}

/* APM volume 3, E.4.5: associativity. */
static uint32_t ways_code(uint32_t ways)
{
	static const struct {
		uint8_t ways, code;
	} codes[] = {{1, 1}, {2, 2}, {4, 4}, {8, 6}, {16, 8}, {32, 10}, {48, 11}, {64, 12}};

	for (size_t i = 0; i < ARRAY_SIZE(codes); i++)
		if (codes[i].ways == ways)
			return codes[i].code;
	return 0;
}

static uint32_t amd_l1(const struct cpu_cache *c)
{
	return c->size / KiB << 24 | c->ways << 16 | 1 << 8 | c->line;
}

/* QEMU's two sets, Intel's leaves and AMD's, are of different caches where the model has none of its own. */
static void put_caches(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	bool own = m->caches && m->legacy_cache != ONOFFAUTO_ON;
	const struct cpu_caches *intel = own ? m->caches : &cpu_caches_intel;
	const struct cpu_caches *amd = own ? m->caches : &cpu_caches_amd;

	if (!is_amd(m)) {
		set(c, 2, 0, 1, 0, m->l3_cache ? intel->l3.descriptor : 0,
		    intel->l1d.descriptor << 16 | intel->l1i.descriptor << 8 |
			    intel->l2.descriptor);
		if (m->level >= 4)
			put_cache_leaf(c, 4, intel, m->l3_cache);
	}
	if (m->xlevel < 0x80000006)
		return;
	/* TLBs: 255 entries, direct mapped; of the second level 512, 4-way, for small pages only. */
	set(c, 0x80000005, 0, 0x01ff01ff, 0x01ff01ff, amd_l1(&amd->l1d), amd_l1(&amd->l1i));
	set(c, 0x80000006, 0, 0, 0x42004200,
	    amd->l2.size / KiB << 16 | ways_code(amd->l2.ways) << 12 | 1 << 8 | amd->l2.line,
	    m->l3_cache ? amd->l3.size / (512 * KiB) << 18 | ways_code(amd->l3.ways) << 12 |
				  1 << 8 | amd->l3.line
			: 0);
	if (m->xlevel >= 0x8000001d)
		put_cache_leaf(c, 0x8000001d, amd, true);
}

/* --- extended state ---------------------------------------------------------------------------- */

/* What of it the flags need; sizes and places are the host's. */
static uint32_t needed_state(const struct cpu_model *m)
{
	uint32_t s = 3;

	if (!(m->word[CPU_1_ECX] & CPU_FLAG_XSAVE))
		return 0;
	if (m->word[CPU_1_ECX] & BIT64(28)) /* avx */
		s |= 1 << 2;
	if (m->word[CPU_7_0_EBX] & BIT64(14)) /* mpx */
		s |= 3 << 3;
	if (m->word[CPU_7_0_EBX] & BIT64(16)) /* avx512f */
		s |= 7 << 5;
	if (m->word[CPU_7_0_ECX] & BIT64(3)) /* pku */
		s |= 1 << 9;
	if (m->word[CPU_7_0_EDX] & BIT64(24)) /* amx-tile */
		s |= 3 << 17;
	return s;
}

static void put_xsave(struct kvm_cpuid2 *c, const struct cpu_model *m, const struct cpu_host *host)
{
	const struct kvm_cpuid2 *h = host->cpuid;
	uint32_t state = 0, size = 0x240, compact = 0x240, xss = 0;

	if (m->level < 0xd)
		return;
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == 0xd)
			c->entries[i--] = c->entries[--c->nent];
	for (uint32_t i = 0; i < h->nent; i++)
		if (h->entries[i].function == 0xd && !h->entries[i].index)
			state = needed_state(m) & h->entries[i].eax;
		else if (h->entries[i].function == 0xd && h->entries[i].index == 1 && m->host &&
			 !m->migratable)
			xss = h->entries[i].ecx;
	for (uint32_t i = 2; i < 32; i++) {
		for (uint32_t k = 0; k < h->nent; k++) {
			const struct kvm_cpuid_entry2 *e = &h->entries[k];

			if (e->function != 0xd || e->index != i || !((state | xss) & 1u << i))
				continue;
			set(c, 0xd, i, e->eax, e->ebx, e->ecx, 0);
			if (state & 1u << i)
				size = MAX(size, e->eax + e->ebx);
			compact = (e->ecx & 2 ? ALIGN_UP(compact, 64) : compact) + e->eax;
		}
	}
	if (!state)
		return set(c, 0xd, 0, 0, 0, 0, 0);
	set(c, 0xd, 0, state, size, size, 0);
	set(c, 0xd, 1, m->word[CPU_D_1_EAX], m->word[CPU_D_1_EAX] & 0xa ? compact : 0, xss, 0);
}

/* --- KVM --------------------------------------------------------------------------------------- */

static void put_kvm(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function >> 16 == 0x4000)
			c->entries[i--] = c->entries[--c->nent];
	if (!m->kvm)
		return;
	set(c, 0x40000000, 0, 0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d); /* KVMKVMKVM */
	set(c, 0x40000001, 0, m->word[CPU_KVM], 0, 0, m->word[CPU_KVM_HINTS]);
}

void cpuid_add_tsc(struct kvm_cpuid2 *c, uint32_t tsc_khz)
{
	leaf(c, 0x40000000, 0)->eax = 0x40000010;
	set(c, 0x40000010, 0, tsc_khz, 1000000, 0, 0); /* and the APIC bus's, in kHz */
}

/* --- all of it --------------------------------------------------------------------------------- */

static void named_leaves(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	uint32_t bits = m->phys_bits;

	leaf(c, 1, 0)->ebx = 8 << 8; /* CLFLUSH: 64 bytes */
	if (m->level >= 5)
		set(c, 5, 0, 0, 0, 3, 0); /* MWAIT's extensions, and that interrupts end it */
	if (m->word[CPU_8000_0001_EDX] & CPU_FLAG_LM)
		bits |= (m->word[CPU_7_0_ECX] & CPU_FLAG_LA57 ? 57 : 48) << 8;
	if (m->xlevel >= 0x80000008)
		leaf(c, 0x80000008, 0)->eax = bits;
	if (m->xlevel >= 0x8000000a && m->word[CPU_8000_0001_ECX] & CPU_FLAG_SVM) {
		leaf(c, 0x8000000a, 0)->eax = 1;    /* revision */
		leaf(c, 0x8000000a, 0)->ebx = 0x10; /* ASIDs */
	}
	if (m->xlevel >= 0x8000001e)
		set(c, 0x8000001e, 0, 0, 0, 0, 0);
}

/* Leaves behind the last one would be found there all the same. */
static void cut_off(struct kvm_cpuid2 *c, const struct cpu_model *m)
{
	for (uint32_t i = 0; i < c->nent; i++) {
		uint32_t f = c->entries[i].function;

		if (f < 0x40000000 ? f > m->level
				   : f >= 0x80000000 && f < 0xc0000000 && f > m->xlevel)
			c->entries[i--] = c->entries[--c->nent];
	}
}

void cpuid_of_model(struct kvm_cpuid2 *c, const struct cpu_model *m, const struct cpu_host *host)
{
	struct kvm_cpuid_entry2 *e;
	bool host_caches = m->host_cache_info == ONOFFAUTO_ON ||
			   (m->host_cache_info == ONOFFAUTO_AUTO && m->host);

	c->nent = 0;
	if (m->host)
		memcpy(c, host->cpuid, sizeof(*c) + host->cpuid->nent * sizeof(c->entries[0]));
	for (uint32_t i = 0; i < host->cpuid->nent; i++) {
		const struct kvm_cpuid_entry2 *h = &host->cpuid->entries[i];
		uint32_t f = h->function;
		bool caches = f == 2 || f == 4 || f == 0x80000005 || f == 0x80000006 ||
			      f == 0x8000001d;

		if (!m->host && ((caches && host_caches) || (f == 0xa && m->pmu)))
			*leaf(c, f, h->index) = *h;
	}
	put_identity(c, m);
	if (!m->host)
		named_leaves(c, m);
	put_words(c, m);
	if (!host_caches)
		put_caches(c, m);
	put_xsave(c, m, host);
	put_kvm(c, m);
	e = leaf(c, 0x80000008, 0);
	/* Guest page tables reach no further than the CPU. */
	if (m->host && m->phys_bits != (e->eax & 0xff))
		e->eax = (e->eax & 0xff00) | m->phys_bits;
	/* How MWAIT saves power is the host's affair; that an interrupt ends it, KVM's. */
	if (host->dedicated && m->host && m->level >= 5) {
		e = leaf(c, 5, 0);
		__cpuid(5, e->eax, e->ebx, e->ecx, e->edx);
		e->ecx |= 3;
	}
	if (!m->pmu) {
		set(c, 0xa, 0, 0, 0, 0, 0);
		set(c, 0x80000022, 0, 0, 0, 0, 0);
	}
	cut_off(c, m);
	for (uint32_t i = 0; i < c->nent; i++)
		c->entries[i].flags = is_indexed(c->entries[i].function)
					      ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX
				      : m->host ? c->entries[i].flags
						: 0;
}
