/* SPDX-License-Identifier: GPL-2.0-only */
/* --cpu: a model, what the user changes in it, what the host has of it. */
#include "cpu_model.h"

#include <asm/kvm_para.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vmm/kvm.h"

#define T struct cpu_model
const struct option cpu_model_options[] = {
	OPT_BOOL("check", T, check, "on", "warn of flags that this host lacks"),
	OPT_BOOL("enforce", T, enforce, "off",
		 "refuse to start without flags that this host lacks"),
	OPT_BOOL("migratable", T, migratable, "on",
		 "host: without what ties a guest to its host (invtsc, flags without a name)"),
	OPT_BOOL("kvm", T, kvm, "on", "tell the guest of KVM"),
	OPT_BOOL("pmu", T, pmu, "off", "lend the CPU's performance counters to the guest"),
	OPT_STRING("vendor", T, vendor, NULL, "12 letters (default the host's)"),
	OPT_STRING("model-id", T, model_id, NULL, "the CPU's name, up to 48 letters"),
	OPT_UINT("family", T, family, "0xffffffff", 0, 0, "(default the model's)"),
	OPT_UINT("model", T, model, "0xffffffff", 0, 0, "(default the model's)"),
	OPT_UINT("stepping", T, stepping, "0xffffffff", 0, 0, "(default the model's)"),
	OPT_UINT("level", T, level, "0xffffffff", 0, 0,
		 "last basic leaf of CPUID (default the model's)"),
	OPT_UINT("xlevel", T, xlevel, "0xffffffff", 0, 0,
		 "last extended leaf of CPUID (default the model's)"),
	OPT_UINT("min-level", T, min_level, NULL, 0, 0, "the least that the last basic leaf is"),
	OPT_UINT("min-xlevel", T, min_xlevel, NULL, 0, 0,
		 "the least that the last extended leaf is"),
	OPT_BOOL("full-cpuid-auto-level", T, auto_level, "on",
		 "raise the last leaves to those that flags are in"),
	OPT_UINT(
		"phys-bits", T, phys_bits, "0", 0, 52,
		"bits of physical addresses; 0: the host's for host, else 40 or the host's if less (default)"),
	OPT_ONOFFAUTO("host-phys-bits", T, host_phys_bits, "auto",
		      "as many physical address bits as the host (default: for host)"),
	OPT_UINT("host-phys-bits-limit", T, host_phys_bits_limit, "0", 0, 52,
		 "at most so many of them; 0: no limit (default)"),
	OPT_BOOL("l3-cache", T, l3_cache, "on", "show a level 3 cache"),
	OPT_ONOFFAUTO("host-cache-info", T, host_cache_info, "auto",
		      "show the host's caches (default: for host)"),
	OPT_ONOFFAUTO(
		"legacy-cache", T, legacy_cache, "auto",
		"show the caches that QEMU has always shown (default: where the model has none)"),
	OPT_BOOL("cpuid-0xb", T, leaf_0xb, "on", "tell of threads and cores in leaf 0xb"),
	OPT_UINT("tsc-frequency", T, tsc_hz, "0", 0, 0,
		 "of the time-stamp counter, in Hz; 0: the host's (default)"),
	OPT_BOOL("vmware-cpuid-freq", T, tsc_leaf, "on",
		 "tell the TSC's frequency in leaf 0x40000010 if it never changes"),
	OPT_BOOL("kvm-pv-enforce-cpuid", T, pv_enforce, "off",
		 "have KVM refuse paravirtual features that the guest was not told of"),
	OPT_END,
};
#undef T

/* --- the host ---------------------------------------------------------------------------------- */

static const struct kvm_cpuid_entry2 *find(const struct kvm_cpuid2 *c, uint32_t function,
					   uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

static uint32_t get_reg(const struct kvm_cpuid_entry2 *e, enum cpu_reg reg)
{
	const uint32_t value[] = {e->eax, e->ebx, e->ecx, e->edx};

	return value[reg];
}

/* Flags that are of no use without a part of XSAVE's state. */
static const struct {
	enum cpu_word word;
	uint64_t bits;
	uint32_t state;
} states[] = {
	{CPU_1_ECX, BIT64(28), 1 << 2},			   /* avx */
	{CPU_7_0_EBX, BIT64(14), 3 << 3},		   /* mpx */
	{CPU_7_0_EBX, BIT64(16), 7 << 5},		   /* avx512f */
	{CPU_7_0_ECX, BIT64(3), 1 << 9},		   /* pku */
	{CPU_7_0_EDX, BIT64(22) | 3 * BIT64(24), 3 << 17}, /* amx-bf16, amx-tile, amx-int8 */
};

static uint64_t read_feature_msr(const struct kvm *kvm, uint32_t index)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {.head.nmsrs = 1, .entry.index = index};

	return kvm->fd >= 0 && ioctl(kvm->fd, KVM_GET_MSRS, &msrs) == 1 ? msrs.entry.data : 0;
}

void cpu_host_init(struct cpu_host *host, const struct kvm *kvm, const struct kvm_cpuid2 *cpuid)
{
	const struct kvm_cpuid_entry2 *xsave = find(cpuid, 0xd, 0);

	*host = (struct cpu_host){.cpuid = cpuid};
	for (int w = 0; w < CPU_WORDS; w++) {
		const struct cpu_word_info *info = &cpu_words[w];
		const struct kvm_cpuid_entry2 *e = find(cpuid, info->function, info->index);

		if (info->msr)
			host->word[w] = read_feature_msr(kvm, info->msr);
		else if (e)
			host->word[w] = get_reg(e, info->reg);
	}
	/* KVM's local APIC has these, whatever the host's; a missing timer is a matter of KVM, not of CPUID. */
	host->word[CPU_1_ECX] |= CPU_FLAG_HYPERVISOR | CPU_FLAG_X2APIC;
	host->word[CPU_6_EAX] |= CPU_FLAG_ARAT;
	host->word[CPU_1_ECX] &= ~CPU_FLAG_TSC_DEADLINE;
	if (kvm->cap[KVM_HAS_TSC_DEADLINE])
		host->word[CPU_1_ECX] |= CPU_FLAG_TSC_DEADLINE;
	/* Leaves of CPUID only. */
	host->word[CPU_1_EDX] |= CPU_FLAG_HT;
	host->word[CPU_8000_0001_ECX] |= CPU_FLAG_TOPOEXT | CPU_FLAG_CMP_LEGACY;
	host->word[CPU_8000_0001_EDX] |= host->word[CPU_1_EDX] & CPU_FLAGS_AMD_ALIASES;
	host->word[CPU_KVM_HINTS] |= 1;
	if (!host->word[CPU_ARCH_CAPABILITIES])
		host->word[CPU_7_0_EDX] &= ~CPU_FLAG_ARCH_CAPABILITIES;
	if (!host->word[CPU_CORE_CAPABILITIES])
		host->word[CPU_7_0_EDX] &= ~CPU_FLAG_CORE_CAPABILITY;
	/* They need more than flags: memory for enclaves, and leaves for processor trace. */
	host->word[CPU_7_0_EBX] &= ~(BIT64(2) | BIT64(25));
	host->word[CPU_7_0_ECX] &= ~BIT64(30);
	for (size_t i = 0; i < ARRAY_SIZE(states); i++)
		if (!xsave || (xsave->eax & states[i].state) != states[i].state)
			host->word[states[i].word] &= ~states[i].bits;
	host->has_mwait = kvm->cap[KVM_HAS_DISABLE_EXITS] & KVM_X86_DISABLE_EXITS_MWAIT;
	host->has_pmu = kvm->cap[KVM_HAS_PMU_CAPABILITY];
}

/* --- the definition ---------------------------------------------------------------------------- */

/* A list of names, those with '-' in front taken away. */
static void apply_flags(struct cpu_model *m, const char *flags)
{
	char name[32];

	for (size_t len; (len = strcspn(flags, " ")); flags += len + strspn(flags + len, " ")) {
		bool off = *flags == '-';
		enum cpu_word word;
		uint64_t bits;

		memcpy(name, flags + off, len - off);
		name[len - off] = 0;
		bits = cpu_flag_find(name, &word);
		if (off)
			m->word[word] &= ~bits;
		else
			m->word[word] |= bits;
	}
}

/* Options' values so far are what the user said: they stay. */
static int load_definition(struct cpu_model *m, const struct cpu_model_def *def, uint32_t *level,
			   uint32_t *xlevel)
{
	if (def->from && load_definition(m, cpu_model_find(def->from), level, xlevel))
		return -ENOMEM;
	if (def->family) {
		m->family = def->family;
		m->model = def->model;
	} else if (def->model) {
		m->model = def->model;
	}
	if (def->stepping >= 0)
		m->stepping = def->stepping;
	if (def->level) {
		*level = def->level;
		*xlevel = 0x80000000 + def->xlevel;
	}
	if (def->caches)
		m->caches = def->caches;
	if (def->vendor)
		free(m->vendor), m->vendor = strdup(def->vendor);
	if (def->model_id)
		free(m->model_id), m->model_id = strdup(def->model_id);
	if (def->flags)
		apply_flags(m, def->flags);
	return m->vendor && m->model_id ? 0 : -ENOMEM;
}

static int unknown_model(const char *name, struct hako_error *err)
{
	const char *names[256] = {"host", "max"};
	char versionless[128][24];
	const char *nearest;
	size_t n = 2, v = 0;

	for (const struct cpu_model_def *d = cpu_model_defs; d->name && n < 250; d++) {
		size_t len = strlen(d->name);

		names[n++] = d->name;
		if (d->alias)
			names[n++] = d->alias;
		if (!strcmp(d->name + len - 3, "-v1") && v < ARRAY_SIZE(versionless)) {
			snprintf(versionless[v], sizeof(versionless[v]), "%.*s",
				 (int)MIN(len - 3, sizeof(versionless[v]) - 1), d->name);
			names[n++] = versionless[v++];
		}
	}
	nearest = str_nearest(name, names);
	if (nearest)
		return error_set(err, -EINVAL, "%s: no such model (did you mean %s?)", name,
				 nearest);
	return error_set(err, -EINVAL, "%s: no such model (see \"hako help cpu\")", name);
}

/* --- what the user says ------------------------------------------------------------------------ */

static int unknown_flag(const char *name, struct hako_error *err)
{
	const char *options[32] = {NULL};
	const char *nearest;
	char buf[32];
	size_t n = 0;

	for (const struct option *o = cpu_model_options; o->name && n + 1 < ARRAY_SIZE(options);
	     o++)
		options[n++] = o->name;
	nearest = cpu_flag_nearest(name, options, buf);
	if (nearest)
		return error_set(err, -EINVAL, "%s: no such flag or option (did you mean %s?)",
				 name, nearest);
	return error_set(err, -EINVAL, "%s: no such flag or option (see \"hako help cpu\")", name);
}

static int set_flag(struct cpu_model *m, const char *name, bool on, struct hako_error *err)
{
	enum cpu_word word;
	uint64_t bits = cpu_flag_find(name, &word);

	if (!bits)
		return unknown_flag(name, err);
	m->explicit[word] |= bits;
	if (on)
		m->word[word] |= bits;
	else
		m->word[word] &= ~bits;
	return 0;
}

/* First flag=…, then, as QEMU has it, +flag, and last of all -flag. */
static int apply_user(struct cpu_model *m, struct keyvals *kv, struct hako_error *err)
{
	int r = 0;

	for (int pass = 0; pass < 3 && !r; pass++)
		for (size_t i = 0; i < kv->n && !r; i++) {
			const struct keyval *v = &kv->v[i];
			int kind = *v->key == '+' ? 1 : *v->key == '-' ? 2 : 0;
			const struct option flag = {.name = v->key, .type = OPTION_BOOL, .size = 1};
			bool on = kind == 1;

			if (v->used || kind != pass)
				continue;
			if (!kind) {
				enum cpu_word word;

				if (!cpu_flag_find(v->key, &word))
					return unknown_flag(v->key, err);
				r = option_set(&flag, &on, v->value, err);
			}
			if (!r)
				r = set_flag(m, v->key + (kind != 0), on, err);
		}
	return r;
}

static int check_options(const struct cpu_model *m, struct hako_error *err)
{
	if (m->vendor && strlen(m->vendor) != 12)
		return error_set(err, -EINVAL, "vendor=%s: not 12 letters", m->vendor);
	if (m->model_id && strlen(m->model_id) > 48)
		return error_set(err, -EINVAL, "model-id=%s: longer than 48 letters", m->model_id);
	if (m->family != CPU_UNSET && m->family > 0xff + 0xf)
		return error_set(err, -ERANGE, "family=%u: more than %u", m->family, 0xff + 0xf);
	if (m->model != CPU_UNSET && m->model > 0xff)
		return error_set(err, -ERANGE, "model=%u: more than 255", m->model);
	if (m->stepping != CPU_UNSET && m->stepping > 0xf)
		return error_set(err, -ERANGE, "stepping=%u: more than 15", m->stepping);
	if (m->phys_bits && m->phys_bits < 32)
		return error_set(err, -ERANGE, "phys-bits=%u: less than 32", m->phys_bits);
	if (m->level != CPU_UNSET && m->level > 0xff)
		return error_set(err, -ERANGE, "level=%u: more than 255", m->level);
	if (m->xlevel != CPU_UNSET && m->xlevel - 0x80000000u > 0xff)
		return error_set(err, -ERANGE, "xlevel=%u: not from 0x80000000 to 0x800000ff",
				 m->xlevel);
	return 0;
}

/* The definition, and over it what the options say. */
static int load(struct cpu_model *m, const struct cpu_model_def *def, struct hako_error *err)
{
	struct cpu_model user = *m;
	uint32_t level = 0, xlevel = 0;

	m->vendor = m->model_id = NULL;
	if (load_definition(m, def, &level, &xlevel)) {
		free(user.vendor);
		free(user.model_id);
		return error_errno(err, -ENOMEM, "%s", def->name);
	}
	/* With KVM the vendor is the host's, as instructions of the other would be an exception. */
	free(m->vendor);
	m->vendor = user.vendor;
	if (user.model_id) {
		free(m->model_id);
		m->model_id = user.model_id;
	}
	m->family = user.family == CPU_UNSET ? m->family : user.family;
	m->model = user.model == CPU_UNSET ? m->model : user.model;
	m->stepping = user.stepping == CPU_UNSET ? m->stepping : user.stepping;
	m->min_level = MAX(m->min_level, level);
	m->min_xlevel = MAX(m->min_xlevel, xlevel);
	/* What QEMU changes in every model for KVM. */
	m->word[CPU_1_EDX] &= ~CPU_FLAG_ACPI;
	m->word[CPU_1_ECX] &= ~CPU_FLAG_MONITOR;
	m->word[CPU_1_ECX] |= CPU_FLAG_X2APIC | CPU_FLAG_HYPERVISOR;
	m->word[CPU_8000_0001_ECX] &= ~CPU_FLAG_SVM;
	return 0;
}

int cpu_model_parse(struct cpu_model *m, const char *text, struct hako_error *err)
{
	const struct cpu_model_def *def = NULL;
	struct keyvals kv = {0};
	const char *name;
	int r;

	*m = (struct cpu_model){0};
	r = keyvals_parse(&kv, text, "type", err);
	name = r ? NULL : keyvals_take(&kv, "type");
	if (!r && (!name || !*name))
		r = error_set(err, -EINVAL, "which model? (see \"hako help cpu\")");
	if (!r) {
		m->host = !strcmp(name, "host") || !strcmp(name, "max");
		def = m->host ? NULL : cpu_model_find(name);
		if (!m->host && !def)
			r = unknown_model(name, err);
	}
	if (!r)
		r = options_defaults(cpu_model_options, m, err);
	if (!r)
		r = options_apply(cpu_model_options, m, &kv, false, err);
	if (!r)
		r = check_options(m, err);
	if (!r && def)
		r = load(m, def, err);
	if (!r)
		r = apply_user(m, &kv, err);
	keyvals_free(&kv);
	return r;
}

void cpu_model_clear(struct cpu_model *m)
{
	options_free(cpu_model_options, m);
}

/* --- model and host ---------------------------------------------------------------------------- */

/* Bits of @to mean nothing without bit @from. */
static const struct {
	enum cpu_word from;
	uint64_t from_bits;
	enum cpu_word to;
} dependencies[] = {
	{CPU_7_0_EDX, CPU_FLAG_ARCH_CAPABILITIES, CPU_ARCH_CAPABILITIES},
	{CPU_7_0_EDX, CPU_FLAG_CORE_CAPABILITY, CPU_CORE_CAPABILITIES},
	{CPU_1_ECX, CPU_FLAG_PDCM, CPU_PERF_CAPABILITIES},
	{CPU_8000_0001_ECX, CPU_FLAG_SVM, CPU_8000_000A_EDX},
};

/* All that KVM has, but for what the user named. */
static void take_host(struct cpu_model *m, const struct cpu_host *host)
{
	for (int w = 0; w < CPU_WORDS; w++) {
		uint64_t bits = host->word[w];

		if (w == CPU_KVM_HINTS && !host->dedicated)
			continue;
		if (m->migratable && !cpu_words[w].msr)
			bits &= cpu_word_named(w);
		m->word[w] |= bits & ~m->explicit[w];
	}
	if (m->migratable && !(m->explicit[CPU_8000_0007_EDX] & CPU_FLAG_INVTSC))
		m->word[CPU_8000_0007_EDX] &= ~CPU_FLAG_INVTSC;
	/* As the host itself has them. */
	for (int i = 0; i < 2; i++) {
		const uint64_t bits = i ? CPU_FLAG_CMP_LEGACY | CPU_FLAG_TOPOEXT : CPU_FLAG_HT;
		enum cpu_word w = i ? CPU_8000_0001_ECX : CPU_1_EDX;
		const struct kvm_cpuid_entry2 *e = find(host->cpuid, cpu_words[w].function, 0);

		if (!e || !(get_reg(e, cpu_words[w].reg) & bits))
			m->word[w] &= ~(bits & ~m->explicit[w]);
	}
	if (!m->pmu)
		m->word[CPU_8000_0001_ECX] &= ~(CPU_FLAGS_PERFCTR &
						~m->explicit[CPU_8000_0001_ECX]);
}

/* What QEMU gives every model of KVM's. */
static void take_kvm_defaults(struct cpu_model *m, const struct cpu_host *host, bool ext_dest)
{
	/* kvmclock, kvm-nopiodelay, kvm-asyncpf, kvm-steal-time, kvm-pv-eoi, kvmclock-stable-bit, kvm-msi-ext-dest-id */
	uint64_t bits = BIT64(0) | BIT64(3) | BIT64(1) | BIT64(4) | BIT64(5) | BIT64(6) |
			BIT64(24) | (ext_dest ? BIT64(KVM_FEATURE_MSI_EXT_DEST_ID) : 0);

	m->word[CPU_KVM] |= bits & host->word[CPU_KVM] & ~m->explicit[CPU_KVM];
}

static void raise_levels(struct cpu_model *m)
{
	for (int w = 0; w < CPU_WORDS; w++) {
		uint32_t f = cpu_words[w].function;

		if (cpu_words[w].msr || !m->word[w] || f == 0x40000001 || f == 0xc0000001)
			continue;
		if (w != CPU_7_0_EBX && !m->auto_level)
			continue;
		if (f & 0x80000000)
			m->min_xlevel = MAX(m->min_xlevel, f);
		else
			m->min_level = MAX(m->min_level, f);
		if (f == 7)
			m->func7_level = MAX(m->func7_level, cpu_words[w].index);
	}
	if (m->word[CPU_8000_0001_ECX] & CPU_FLAG_SVM && m->auto_level)
		m->min_xlevel = MAX(m->min_xlevel, 0x8000000au);
	m->level = m->level == CPU_UNSET ? m->min_level : m->level;
	m->xlevel = m->xlevel == CPU_UNSET ? m->min_xlevel : m->xlevel;
}

int cpu_model_define(struct cpu_model *m, const char *name, struct hako_error *err)
{
	const struct cpu_model_def *def = cpu_model_find(name);

	*m = (struct cpu_model){.level = CPU_UNSET, .xlevel = CPU_UNSET, .auto_level = true};
	if (!def)
		return unknown_model(name, err);
	if (load_definition(m, def, &m->min_level, &m->min_xlevel))
		return error_errno(err, -ENOMEM, "%s", name);
	raise_levels(m);
	return 0;
}

/* Take away what is lacking; its names, with commas, in @names. */
static void filter(struct cpu_model *m, const uint64_t lacking[CPU_WORDS], char *names, size_t size)
{
	size_t len = 0;

	*names = 0;
	for (int w = 0; w < CPU_WORDS; w++) {
		for (unsigned int bit = 0; bit < 64; bit++) {
			char buf[32];
			const char *name = cpu_flag_name(w, bit, buf);

			if (!(lacking[w] & BIT64(bit)) || !name || (w == CPU_KVM && bit == 3))
				continue;
			if (len + strlen(name) + 8 < size)
				len += snprintf(names + len, size - len, "%s%s", len ? ", " : "",
						name);
			else if (names[len - 1] != '.')
				len += snprintf(names + len, size - len, " ...");
		}
		m->word[w] &= ~lacking[w];
	}
}

static int check_lacking(struct cpu_model *m, const struct cpu_host *host,
			 uint64_t lacking[CPU_WORDS], struct hako_error *warning,
			 struct hako_error *err)
{
	char names[900];
	int r = 0;

	for (int w = 0; w < CPU_WORDS; w++)
		lacking[w] |= m->word[w] & ~host->word[w];
	lacking[CPU_KVM] &= m->kvm ? ~0ull : 0;
	filter(m, lacking, names, sizeof(names));
	if (*names && m->enforce)
		r = error_set(err, -ENOTSUP, "this host lacks %s", names);
	else if (*names && m->check)
		error_set(warning, 0, "the guest does without what this host lacks: %s", names);
	return r;
}

static void set_phys_bits(struct cpu_model *m, const struct cpu_host *host)
{
	const struct kvm_cpuid_entry2 *e = find(host->cpuid, 0x80000008, 0);
	uint32_t bits = e && (e->eax & 0xff) ? e->eax & 0xff : 36;
	bool hosts = m->host_phys_bits == ONOFFAUTO_ON ||
		     (m->host_phys_bits == ONOFFAUTO_AUTO && m->host && !m->phys_bits);

	if (!(m->word[CPU_8000_0001_EDX] & CPU_FLAG_LM))
		m->phys_bits = 36;
	else if (hosts)
		m->phys_bits = m->host_phys_bits_limit ? MIN(bits, m->host_phys_bits_limit) : bits;
	else if (!m->phys_bits)
		m->phys_bits = MIN(bits, 40u);
}

static int set_identity(struct cpu_model *m, const struct cpu_host *host)
{
	const struct kvm_cpuid_entry2 *base = find(host->cpuid, 0, 0),
				      *one = find(host->cpuid, 1, 0);
	const struct kvm_cpuid_entry2 *ext = find(host->cpuid, 0x80000000, 0);
	uint32_t version = one ? one->eax : 0, family = version >> 8 & 15;
	char vendor[13] = "", name[49] = "";

	if (base) {
		memcpy(vendor, &base->ebx, 4);
		memcpy(vendor + 4, &base->edx, 4);
		memcpy(vendor + 8, &base->ecx, 4);
	}
	for (uint32_t i = 0; i < 3; i++) {
		const struct kvm_cpuid_entry2 *e = find(host->cpuid, 0x80000002 + i, 0);

		if (e)
			memcpy(name + 16 * i, &e->eax, 16);
	}
	if (!m->vendor && (m->vendor = calloc(1, sizeof(vendor))))
		memcpy(m->vendor, vendor,
		       sizeof(vendor)); /* 12 letters are read, also of a host that has none */
	m->model_id = m->model_id ?: strdup(name);
	if (m->family == CPU_UNSET)
		m->family = family + (family == 15 ? version >> 20 & 0xff : 0);
	if (m->model == CPU_UNSET)
		m->model = (version >> 4 & 15) | (version >> 12 & 0xf0);
	if (m->stepping == CPU_UNSET)
		m->stepping = version & 15;
	if (m->host) {
		m->min_level = MAX(m->min_level, base ? base->eax : 0);
		m->min_xlevel = MAX(m->min_xlevel, ext ? ext->eax : 0);
	}
	return m->vendor && m->model_id ? 0 : -ENOMEM;
}

int cpu_model_resolve(struct cpu_model *m, const struct cpu_host *host, bool ext_dest,
		      struct hako_error *warning, struct hako_error *err)
{
	uint64_t lacking[CPU_WORDS] = {0};
	struct cpu_host can = *host;
	int r;

	*warning = (struct hako_error){0};
	if (m->pmu && !host->has_pmu)
		return error_set(err, -ENOTSUP, "pmu=on: this host's KVM has no counters to lend");
	if (ext_dest)
		can.word[CPU_KVM] |= BIT64(KVM_FEATURE_MSI_EXT_DEST_ID);
	else
		can.word[CPU_KVM] &= ~BIT64(KVM_FEATURE_MSI_EXT_DEST_ID);
	if (can.dedicated && can.has_mwait)
		can.word[CPU_1_ECX] |= CPU_FLAG_MONITOR;
	if (!m->pmu) {
		can.word[CPU_1_ECX] &= ~CPU_FLAG_PDCM;
		can.word[CPU_8000_0022_EAX] = 0;
	}
	if (m->host)
		take_host(m, &can);
	else
		take_kvm_defaults(m, &can, ext_dest);
	for (size_t i = 0; i < ARRAY_SIZE(dependencies); i++) {
		enum cpu_word to = dependencies[i].to;

		if (m->word[dependencies[i].from] & dependencies[i].from_bits)
			continue;
		lacking[to] |= m->word[to] & m->explicit[to];
		m->word[to] = 0;
	}
	if (!m->kvm)
		m->word[CPU_KVM] = m->word[CPU_KVM_HINTS] = 0;
	if (set_identity(m, host))
		return error_errno(err, -ENOMEM, "CPU");
	raise_levels(m);
	set_phys_bits(m, host);
	r = check_lacking(m, &can, lacking, warning, err);
	/* Once more: what has been taken away may have been needed. */
	for (size_t i = 0; i < ARRAY_SIZE(dependencies) && !r; i++)
		if (!(m->word[dependencies[i].from] & dependencies[i].from_bits))
			m->word[dependencies[i].to] = 0;
	return r;
}
