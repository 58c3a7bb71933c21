/* SPDX-License-Identifier: GPL-2.0-only */
/* Names of CPU flags, as QEMU spells them (SDM volume 2A, CPUID; APM volume 3, appendix E; Linux' Documentation/virt/kvm/x86/cpuid.rst). */
#include <stdlib.h>

#include "cpu_model.h"

#define WORD(F, I, R) .function = F, .index = I, .reg = R, .names
#define MSR(M)	      .msr = M, .names

/* clang-format off */
const struct cpu_word_info cpu_words[CPU_WORDS] = {
	[CPU_1_EDX] = {WORD(1, 0, CPU_EDX) =
		"fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov "
		"pat pse36 pn clflush - ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe"},
	[CPU_1_ECX] = {WORD(1, 0, CPU_ECX) =
		"pni pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid - fma cx16 xtpr pdcm "
		"- pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave - avx f16c rdrand hypervisor"},
	[CPU_6_EAX] = {WORD(6, 0, CPU_EAX) = "- - arat"},
	[CPU_7_0_EBX] = {WORD(7, 0, CPU_EBX) =
		"fsgsbase tsc-adjust sgx bmi1 hle avx2 fdp-excptn-only smep "
		"bmi2 erms invpcid rtm - zero-fcs-fds mpx - "
		"avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt "
		"clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl"},
	[CPU_7_0_ECX] = {WORD(7, 0, CPU_ECX) =
		"- avx512vbmi umip pku - waitpkg avx512vbmi2 - gfni vaes vpclmulqdq avx512vnni avx512bitalg - "
		"avx512-vpopcntdq - la57 - - - - - rdpid - bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks"},
	[CPU_7_0_EDX] = {WORD(7, 0, CPU_EDX) =
		"- - avx512-4vnniw avx512-4fmaps fsrm - - - avx512-vp2intersect - md-clear - - - serialize - "
		"tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16 "
		"amx-tile amx-int8 spec-ctrl stibp flush-l1d arch-capabilities core-capability ssbd"},
	[CPU_7_1_EAX] = {WORD(7, 1, CPU_EAX) =
		"sha512 sm3 sm4 - avx-vnni avx512-bf16 - cmpccxadd - - fzrm fsrs fsrc - - - "
		"- fred lkgs wrmsrns - amx-fp16 - avx-ifma - - lam"},
	[CPU_7_1_EDX] = {WORD(7, 1, CPU_EDX) =
		"- - - - avx-vnni-int8 avx-ne-convert - - amx-complex - avx-vnni-int16 - - - prefetchiti"},
	[CPU_7_2_EDX] = {WORD(7, 2, CPU_EDX) =
		"intel-psfd ipred-ctrl rrsba-ctrl ddpd-u bhi-ctrl mcdt-no"},
	[CPU_D_1_EAX] = {WORD(0xd, 1, CPU_EAX) = "xsaveopt xsavec xgetbv1 xsaves xfd"},
	[CPU_8000_0001_EDX] = {WORD(0x80000001, 0, CPU_EDX) =
		"- - - - - - - - - - - syscall - - - - - - - - nx - mmxext - - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow"},
	[CPU_8000_0001_ECX] = {WORD(0x80000001, 0, CPU_ECX) =
		"lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs xop skinit wdt - lwp "
		"fma4 tce - nodeid-msr - tbm topoext perfctr-core perfctr-nb"},
	[CPU_8000_0007_EBX] = {WORD(0x80000007, 0, CPU_EBX) = "overflow-recov succor"},
	[CPU_8000_0007_EDX] = {WORD(0x80000007, 0, CPU_EDX) = "- - - - - - - - invtsc"},
	[CPU_8000_0008_EBX] = {WORD(0x80000008, 0, CPU_EBX) =
		"clzero - xsaveerptr - - - - - - wbnoinvd - - ibpb - ibrs amd-stibp "
		"- stibp-always-on - - - - - - amd-ssbd virt-ssbd amd-no-ssb - amd-psfd"},
	[CPU_8000_000A_EDX] = {WORD(0x8000000a, 0, CPU_EDX) =
		"npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists - - pause-filter - "
		"pfthreshold avic - v-vmsave-vmload vgif - - - - - - - - vnmi - - svme-addr-chk"},
	[CPU_8000_0021_EAX] = {WORD(0x80000021, 0, CPU_EAX) =
		"no-nested-data-bp - lfence-always-serializing - - - null-sel-clr-base - auto-ibrs - - - - - - - "
		"- - - - - - - - eraps - - sbpb ibpb-brtype srso-no srso-user-kernel-no"},
	[CPU_8000_0022_EAX] = {WORD(0x80000022, 0, CPU_EAX) = "perfmon-v2"},
	[CPU_C000_0001_EDX] = {WORD(0xc0000001, 0, CPU_EDX) =
		"- - xstore xstore-en - - xcrypt xcrypt-en ace2 ace2-en phe phe-en pmm pmm-en"},
	[CPU_KVM] = {WORD(0x40000001, 0, CPU_EAX) =
		"kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi kvm-pv-unhalt "
		"- kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-asyncpf-int "
		"kvm-msi-ext-dest-id - - - - - - - - kvmclock-stable-bit"},
	[CPU_KVM_HINTS] = {WORD(0x40000001, 0, CPU_EDX) = "kvm-hint-dedicated"},
	[CPU_ARCH_CAPABILITIES] = {MSR(0x10a) =
		"rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl taa-no - - - "
		"- sbdr-ssdp-no fbsdp-no psdp-no - fb-clear - - bhi-no - - - pbrsb-no - gds-no rfds-no rfds-clear"},
	[CPU_CORE_CAPABILITIES] = {MSR(0xcf) = "- - - - - split-lock-detect"},
	[CPU_PERF_CAPABILITIES] = {MSR(0x345) = "- - - - - - - - - - - - - full-width-write"},
};
/* clang-format on */

/* Other spellings that QEMU takes. */
static const struct {
	const char *name, *flag;
} spellings[] = {
	{"sse3", "pni"}, {"pclmuldq", "pclmulqdq"}, {"sse4-1", "sse4.1"}, {"sse4-2", "sse4.2"},
	{"xd", "nx"},	 {"ffxsr", "fxsr-opt"},	    {"i64", "lm"},
};

static bool next_name(const char **at, size_t *len)
{
	*at += strspn(*at, " ");
	*len = strcspn(*at, " ");
	return *len;
}

static bool same(const char *flag, size_t len, const char *name)
{
	for (size_t i = 0; i < len; i++)
		if (flag[i] != (name[i] == '_' ? '-' : name[i]))
			return false;
	return !name[len];
}

uint64_t cpu_flag_find(const char *name, enum cpu_word *word)
{
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++)
		if (same(spellings[i].name, strlen(spellings[i].name), name))
			name = spellings[i].flag;
	for (int w = 0; w < CPU_WORDS; w++) {
		const char *at = cpu_words[w].names;
		uint64_t bits = 0;
		size_t len;

		for (unsigned int bit = 0; next_name(&at, &len); at += len, bit++)
			if (same(at, len, name) && *at != '-')
				bits |= BIT64(bit);
		if (bits) {
			*word = w;
			return bits;
		}
	}
	return 0;
}

const char *cpu_flag_name(enum cpu_word word, unsigned int bit, char buf[32])
{
	const char *at = cpu_words[word].names;
	size_t len;

	for (; next_name(&at, &len); at += len) {
		if (bit--)
			continue;
		if (*at == '-')
			return NULL;
		memcpy(buf, at, len);
		buf[len] = 0;
		return buf;
	}
	return NULL;
}

uint64_t cpu_word_named(enum cpu_word word)
{
	const char *at = cpu_words[word].names;
	uint64_t bits = 0;
	size_t len;

	for (unsigned int bit = 0; next_name(&at, &len); at += len, bit++)
		if (*at != '-')
			bits |= BIT64(bit);
	return bits;
}

const char *cpu_flag_nearest(const char *name, const char *const *others, char buf[32])
{
	enum {
		MAX_NAMES = CPU_WORDS * 64
	};
	const char **names = calloc(MAX_NAMES + 1, sizeof(*names));
	char(*text)[32] = calloc(MAX_NAMES, sizeof(*text));
	const char *found = NULL;
	size_t n = 0;

	for (int w = 0; w < CPU_WORDS && names && text; w++)
		for (unsigned int bit = 0; bit < 64; bit++)
			if (cpu_flag_name(w, bit, text[n])) {
				names[n] = text[n];
				n++;
			}
	for (; names && *others && n < MAX_NAMES; others++)
		names[n++] = *others;
	if (names && text)
		found = str_nearest(name, names);
	if (found)
		found = strncpy(buf, found, 31);
	buf[31] = 0;
	free(names);
	free(text);
	return found;
}
