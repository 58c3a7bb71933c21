/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * CPU models: --cpu MODEL,+flag,-flag,option=…, by QEMU's names. A model is a set of flags, in words as CPUID or an MSR has them, and
 * what else CPUID says of a CPU. It is made once for a VM; cpuid_for_vcpu() adds what differs between vCPUs.
 */
#ifndef ARCH_X86_CPU_MODEL_H
#define ARCH_X86_CPU_MODEL_H

#include "vmm/option.h"

struct kvm;
struct kvm_cpuid2;

/* --- cpu_flags.c: names ------------------------------------------------------------------------ */

enum cpu_reg {
	CPU_EAX,
	CPU_EBX,
	CPU_ECX,
	CPU_EDX
};

/* The registers that flags are in. */
enum cpu_word {
	CPU_1_EDX,
	CPU_1_ECX,
	CPU_6_EAX,
	CPU_7_0_EBX,
	CPU_7_0_ECX,
	CPU_7_0_EDX,
	CPU_7_1_EAX,
	CPU_7_1_EDX,
	CPU_7_2_EDX,
	CPU_D_1_EAX,
	CPU_8000_0001_EDX,
	CPU_8000_0001_ECX,
	CPU_8000_0007_EBX,
	CPU_8000_0007_EDX,
	CPU_8000_0008_EBX,
	CPU_8000_000A_EDX,
	CPU_8000_0021_EAX,
	CPU_8000_0022_EAX,
	CPU_C000_0001_EDX,
	CPU_KVM,
	CPU_KVM_HINTS,
	CPU_ARCH_CAPABILITIES,
	CPU_CORE_CAPABILITIES,
	CPU_PERF_CAPABILITIES,
	CPU_WORDS
};

struct cpu_word_info {
	uint32_t msr;		  /* the word is this MSR; 0: it is in CPUID */
	uint32_t function, index; /* CPUID's leaf and sub-leaf */
	enum cpu_reg reg;
	const char *names; /* of its bits from 0 on, with blanks between; "-": none */
};
extern const struct cpu_word_info cpu_words[CPU_WORDS];

/** The bits that @name stands for ("kvmclock" is two of them), or 0. '_' is as good as '-'. */
uint64_t cpu_flag_find(const char *name, enum cpu_word *word);
/** The name of a bit, as @buf; NULL if it has none. */
const char *cpu_flag_name(enum cpu_word word, unsigned int bit, char buf[32]);
/** All bits of a word that have names. */
uint64_t cpu_word_named(enum cpu_word word);
/** The flag or, among @others (NULL-terminated), option that is spelled most like @name; NULL. */
const char *cpu_flag_nearest(const char *name, const char *const *others, char buf[32]);

/* One of the bits of a word by its mask. */
#define CPU_FLAG_MONITOR	   BIT64(3)		   /* 1_ECX */
#define CPU_FLAG_PDCM		   BIT64(15)		   /* 1_ECX */
#define CPU_FLAG_X2APIC		   BIT64(21)		   /* 1_ECX */
#define CPU_FLAG_TSC_DEADLINE	   BIT64(24)		   /* 1_ECX */
#define CPU_FLAG_XSAVE		   BIT64(26)		   /* 1_ECX */
#define CPU_FLAG_HYPERVISOR	   BIT64(31)		   /* 1_ECX */
#define CPU_FLAG_ACPI		   BIT64(22)		   /* 1_EDX */
#define CPU_FLAG_HT		   BIT64(28)		   /* 1_EDX */
#define CPU_FLAG_ARAT		   BIT64(2)		   /* 6_EAX */
#define CPU_FLAG_ARCH_CAPABILITIES BIT64(29)		   /* 7_0_EDX */
#define CPU_FLAG_CORE_CAPABILITY   BIT64(30)		   /* 7_0_EDX */
#define CPU_FLAG_LA57		   BIT64(16)		   /* 7_0_ECX */
#define CPU_FLAG_CMP_LEGACY	   BIT64(1)		   /* 8000_0001_ECX */
#define CPU_FLAG_SVM		   BIT64(2)		   /* 8000_0001_ECX */
#define CPU_FLAG_TOPOEXT	   BIT64(22)		   /* 8000_0001_ECX */
#define CPU_FLAGS_PERFCTR	   (BIT64(23) | BIT64(24)) /* 8000_0001_ECX */
#define CPU_FLAG_LM		   BIT64(29)		   /* 8000_0001_EDX */
#define CPU_FLAG_INVTSC		   BIT64(8)		   /* 8000_0007_EDX */
/* 8000_0001_EDX has these of 1_EDX once more on AMD's CPUs. */
#define CPU_FLAGS_AMD_ALIASES	   0x0183f3ffull

/* --- cpu_models.c: the table ------------------------------------------------------------------- */

struct cpu_cache {
	uint32_t size, line, ways; /* bytes */
	uint8_t descriptor;	   /* in leaf 2; 0xff: see leaf 4 */
	uint8_t edx; /* of leaf 4: WBINVD reaches this one only, inclusive, complex indexing */
	bool self_init;
};

struct cpu_caches {
	struct cpu_cache l1d, l1i, l2, l3;
};

struct cpu_model_def {
	const char *name;  /* with its version */
	const char *alias; /* QEMU's other name, or NULL */
	const char *
		from; /* the model that it is a variant of, or NULL; what is 0 or NULL below is as there */
	const char *flags; /* names; with '-' in front those that it lacks */
	const char *vendor, *model_id;
	uint16_t family, model;
	int8_t stepping; /* -1: as @from's */
	uint8_t level;	 /* last basic leaf */
	uint8_t xlevel;	 /* last extended leaf, without 0x80000000 */
	const struct cpu_caches *caches;
};

extern const struct cpu_model_def cpu_model_defs[]; /* ends with a NULL name */
extern const struct cpu_caches cpu_caches_intel,
	cpu_caches_amd; /* of models that have none of their own */

/** By name, alias, or name without version, which is version 1; NULL. */
const struct cpu_model_def *cpu_model_find(const char *name);

/* --- cpu_model.c ------------------------------------------------------------------------------- */

/* What the host's KVM can do. */
struct cpu_host {
	const struct kvm_cpuid2 *cpuid; /* KVM_GET_SUPPORTED_CPUID's, and the CPU's name */
	uint64_t word[CPU_WORDS];
	bool has_pmu, has_mwait;
	bool dedicated; /* vCPUs keep their CPUs: "host" tells the guest, and lets it use MWAIT if it can */
};

struct cpu_model {
	/* Options, in QEMU's words. */
	char *vendor, *model_id;
	uint32_t family, model, stepping;
	uint32_t level, xlevel, min_level, min_xlevel;
	uint32_t phys_bits, host_phys_bits_limit;
	int host_phys_bits, host_cache_info, legacy_cache; /* enum option_onoffauto */
	bool migratable, kvm, pmu, l3_cache, leaf_0xb, check, enforce, auto_level, tsc_leaf,
		pv_enforce;
	uint64_t tsc_hz; /* 0: the host's */
	/* What comes of it all. */
	bool host; /* or max: all that KVM has */
	uint32_t func7_level;
	uint64_t word[CPU_WORDS];
	uint64_t explicit[CPU_WORDS]; /* named by the user */
	const struct cpu_caches *caches;
};

/* In the options, a number that is not given. */
#define CPU_UNSET UINT32_MAX

extern const struct option cpu_model_options[];

/**
 * Read --cpu's @text into @m: the definition and what the user says about it, not yet what the host has to say. Errors without "--cpu". Free @m with
 * cpu_model_clear() in any case.
 */
int cpu_model_parse(struct cpu_model *m, const char *text, struct hako_error *err);
/**
 * Fill in what depends on the host, and take away what it lacks. @ext_dest: messages reach long APIC IDs. If something is lacking: with
 * enforce an error that names it, with check the same words in @warning (empty otherwise).
 */
int cpu_model_resolve(struct cpu_model *m, const struct cpu_host *host, bool ext_dest,
		      struct hako_error *warning, struct hako_error *err);
void cpu_model_clear(struct cpu_model *m);
/** A named model as it is defined, whatever the host: for help. cpu_model_clear() in any case. */
int cpu_model_define(struct cpu_model *m, const char *name, struct hako_error *err);

/** What KVM_GET_SUPPORTED_CPUID and the feature MSRs say, in words. @cpuid stays the caller's. */
void cpu_host_init(struct cpu_host *host, const struct kvm *kvm, const struct kvm_cpuid2 *cpuid);

/* --- cpuid_model.c ----------------------------------------------------------------------------- */

/** Write into @c, which has room for CPUID_MAX_ENTRIES, CPUID of a vCPU without what depends on its number. */
void cpuid_of_model(struct kvm_cpuid2 *c, const struct cpu_model *m, const struct cpu_host *host);
/** Add the leaf that tells the frequency of the time-stamp counter. */
void cpuid_add_tsc(struct kvm_cpuid2 *c, uint32_t tsc_khz);

#endif
