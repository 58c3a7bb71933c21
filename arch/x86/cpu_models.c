/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The CPU models, by QEMU's names and with QEMU's contents (QEMU 7.2's, and 10's for newer ones), so that a pool of hosts may have both;
 * x86-64-v1 to -v4 are the levels of the System V ABI. Each says in what it differs from another.
 */
#include "cpu_model.h"

#define AMD   "AuthenticAMD"
#define INTEL "GenuineIntel"
#define HYGON "HygonGenuine"

#define MODEL(NAME, FROM, VENDOR, FAMILY, NUMBER, STEPPING, LEVEL, XLEVEL, CACHES, ID, FLAGS)    \
	{                                                                                        \
		.name = NAME, .from = FROM, .vendor = VENDOR, .family = FAMILY, .model = NUMBER, \
		.stepping = STEPPING, .level = LEVEL, .xlevel = XLEVEL, .caches = CACHES,        \
		.model_id = ID, .flags = FLAGS                                                   \
	}
#define VARIANT(NAME, ALIAS, FROM, FLAGS, STEPPING, ...)                                          \
	{                                                                                         \
		.name = NAME, .alias = ALIAS, .from = FROM, .flags = FLAGS, .stepping = STEPPING, \
		##__VA_ARGS__                                                                     \
	}

/* clang-format off */
#define WBINVD_OWN 1 /* WBINVD reaches the caches of this one's threads only */
#define INCLUSIVE  2
#define COMPLEX    4 /* indexing */

#define L1(KIB, WAYS, DESCRIPTOR) {KIB * KiB, 64, WAYS, DESCRIPTOR, WBINVD_OWN, true}

const struct cpu_caches cpu_caches_intel = {
	L1(32, 8, 0x2c), L1(32, 8, 0x30),
	{4 * MiB, 64, 16, 0x7d, WBINVD_OWN, true},
	{16 * MiB, 64, 16, 0x4d, INCLUSIVE | COMPLEX, true},
};
const struct cpu_caches cpu_caches_amd = {
	L1(64, 2, 0xff), L1(64, 2, 0xff),
	{512 * KiB, 64, 16, 0xff, 0, false},
	{16 * MiB, 64, 16, 0x4d, INCLUSIVE | COMPLEX, true},
};

#define EPYC(NAME, L1I_KIB, L1I_WAYS, L1I_DESCRIPTOR, L2_KIB, L2_DESCRIPTOR, L3_MIB, L3_DESCRIPTOR, INDEXING) \
	static const struct cpu_caches NAME = {                                                               \
		L1(32, 8, 0x2c), L1(L1I_KIB, L1I_WAYS, L1I_DESCRIPTOR),                                       \
		{L2_KIB * KiB, 64, 8, L2_DESCRIPTOR, 0, false},                                               \
		{L3_MIB * MiB, 64, 16, L3_DESCRIPTOR, INCLUSIVE | INDEXING, true},                            \
	}
EPYC(caches_epyc, 64, 4, 0xff, 512, 0x80, 8, 0x4b, COMPLEX);
EPYC(caches_epyc_v4, 64, 4, 0xff, 512, 0x80, 8, 0x4b, 0);
EPYC(caches_epyc_rome, 32, 8, 0x30, 512, 0x80, 16, 0x4d, COMPLEX);
EPYC(caches_epyc_rome_v3, 32, 8, 0x30, 512, 0x80, 16, 0x4d, 0);
EPYC(caches_epyc_milan, 32, 8, 0x30, 512, 0x80, 32, 0xff, COMPLEX);
EPYC(caches_epyc_milan_v2, 32, 8, 0x30, 512, 0x80, 32, 0xff, 0);
EPYC(caches_epyc_genoa, 32, 8, 0x30, 1024, 0xff, 32, 0xff, 0);

const struct cpu_model_def cpu_model_defs[] = {
	MODEL("qemu64-v1", NULL, AMD, 15, 107, 1, 0xd, 0xa, NULL,
		"QEMU Virtual CPU version 2.5+",
		"fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 pni cx16 "
		"syscall nx lm lahf-lm svm"),
	MODEL("kvm64-v1", "qemu64-v1", INTEL, 15, 6, 1, 0xd, 0x8, NULL,
		"Common KVM processor",
		"vme -lahf-lm -svm"),
	MODEL("x86-64-v1", "qemu64-v1", AMD, 15, 107, 1, 0xd, 0x8, NULL,
		"x86-64-v1 (baseline)",
		"-pni -cx16 -lahf-lm -svm"),
	MODEL("x86-64-v2", "x86-64-v1", AMD, 15, 107, 1, 0xd, 0x8, NULL,
		"x86-64-v2 (to SSE4.2)",
		"pni ssse3 cx16 sse4.1 sse4.2 popcnt lahf-lm"),
	MODEL("x86-64-v3", "x86-64-v2", AMD, 15, 107, 1, 0xd, 0x8, NULL,
		"x86-64-v3 (to AVX2)",
		"fma movbe xsave avx f16c bmi1 avx2 bmi2 abm"),
	MODEL("x86-64-v4", "x86-64-v3", AMD, 15, 107, 1, 0xd, 0x8, NULL,
		"x86-64-v4 (to AVX-512)",
		"avx512f avx512dq avx512cd avx512bw avx512vl"),
	MODEL("core2duo-v1", "kvm64-v1", INTEL, 6, 15, 11, 0xa, 0x8, NULL,
		"Intel(R) Core(TM)2 Duo CPU     T7700  @ 2.40GHz",
		"acpi ss monitor ssse3 lahf-lm"),
	MODEL("phenom-v1", "qemu64-v1", AMD, 16, 2, 3, 0x5, 0x1a, NULL,
		"AMD Phenom(tm) 9550 Quad-Core Processor",
		"vme monitor popcnt mmxext fxsr-opt pdpe1gb rdtscp 3dnowext 3dnow abm sse4a npt"),
	MODEL("Conroe-v1", "kvm64-v1", INTEL, 6, 15, 3, 0xa, 0x8, NULL,
		"Intel Celeron_4x0 (Conroe/Merom Class Core 2)",
		"ssse3 lahf-lm -cx16"),
	MODEL("Penryn-v1", "Conroe-v1", INTEL, 6, 23, 3, 0xa, 0x8, NULL,
		"Intel Core 2 Duo P9xxx (Penryn Class Core 2)",
		"cx16 sse4.1"),
	MODEL("Nehalem-v1", "Penryn-v1", INTEL, 6, 26, 3, 0xb, 0x8, NULL,
		"Intel Core i7 9xx (Nehalem Class Core i7)",
		"sse4.2 popcnt"),
	VARIANT("Nehalem-v2", "Nehalem-IBRS", "Nehalem-v1", "spec-ctrl", -1,
		.model_id = "Intel Core i7 9xx (Nehalem Core i7, IBRS update)"),
	MODEL("Westmere-v1", "Nehalem-v1", INTEL, 6, 44, 1, 0xb, 0x8, NULL,
		"Westmere E56xx/L56xx/X56xx (Nehalem-C)",
		"pclmulqdq aes arat"),
	VARIANT("Westmere-v2", "Westmere-IBRS", "Westmere-v1", "spec-ctrl", -1,
		.model_id = "Westmere E56xx/L56xx/X56xx (IBRS update)"),
	MODEL("SandyBridge-v1", "Westmere-v1", INTEL, 6, 42, 1, 0xd, 0x8, NULL,
		"Intel Xeon E312xx (Sandy Bridge)",
		"x2apic tsc-deadline xsave avx xsaveopt rdtscp"),
	VARIANT("SandyBridge-v2", "SandyBridge-IBRS", "SandyBridge-v1", "spec-ctrl", -1,
		.model_id = "Intel Xeon E312xx (Sandy Bridge, IBRS update)"),
	MODEL("IvyBridge-v1", "SandyBridge-v1", INTEL, 6, 58, 9, 0xd, 0x8, NULL,
		"Intel Xeon E3-12xx v2 (Ivy Bridge)",
		"f16c rdrand fsgsbase smep erms"),
	VARIANT("IvyBridge-v2", "IvyBridge-IBRS", "IvyBridge-v1", "spec-ctrl", -1,
		.model_id = "Intel Xeon E3-12xx v2 (Ivy Bridge, IBRS)"),
	MODEL("Haswell-v1", "IvyBridge-v1", INTEL, 6, 60, 4, 0xd, 0x8, NULL,
		"Intel Core Processor (Haswell)",
		"fma pcid movbe bmi1 hle avx2 bmi2 invpcid rtm abm"),
	VARIANT("Haswell-v2", "Haswell-noTSX", "Haswell-v1", "-hle -rtm", 1,
		.model_id = "Intel Core Processor (Haswell, no TSX)"),
	VARIANT("Haswell-v3", "Haswell-IBRS", "Haswell-v2", "hle rtm spec-ctrl", 4,
		.model_id = "Intel Core Processor (Haswell, IBRS)"),
	VARIANT("Haswell-v4", "Haswell-noTSX-IBRS", "Haswell-v3", "-hle -rtm", 1,
		.model_id = "Intel Core Processor (Haswell, no TSX, IBRS)"),
	MODEL("Broadwell-v1", "Haswell-v1", INTEL, 6, 61, 2, 0xd, 0x8, NULL,
		"Intel Core Processor (Broadwell)",
		"rdseed adx smap 3dnowprefetch"),
	VARIANT("Broadwell-v2", "Broadwell-noTSX", "Broadwell-v1", "-hle -rtm", -1,
		.model_id = "Intel Core Processor (Broadwell, no TSX)"),
	VARIANT("Broadwell-v3", "Broadwell-IBRS", "Broadwell-v2", "hle rtm spec-ctrl", -1,
		.model_id = "Intel Core Processor (Broadwell, IBRS)"),
	VARIANT("Broadwell-v4", "Broadwell-noTSX-IBRS", "Broadwell-v3", "-hle -rtm", -1,
		.model_id = "Intel Core Processor (Broadwell, no TSX, IBRS)"),
	MODEL("Skylake-Client-v1", "Broadwell-v1", INTEL, 6, 94, 3, 0xd, 0x8, NULL,
		"Intel Core Processor (Skylake)",
		"xsavec xgetbv1"),
	VARIANT("Skylake-Client-v2", "Skylake-Client-IBRS", "Skylake-Client-v1", "spec-ctrl", -1,
		.model_id = "Intel Core Processor (Skylake, IBRS)"),
	VARIANT("Skylake-Client-v3", "Skylake-Client-noTSX-IBRS", "Skylake-Client-v2", "-hle -rtm", -1,
		.model_id = "Intel Core Processor (Skylake, IBRS, no TSX)"),
	VARIANT("Skylake-Client-v4", NULL, "Skylake-Client-v3", "xsaves", -1),
	MODEL("Skylake-Server-v1", "Skylake-Client-v1", INTEL, 6, 85, 4, 0xd, 0x8, NULL,
		"Intel Xeon Processor (Skylake)",
		"avx512f avx512dq clflushopt clwb avx512cd avx512bw avx512vl pku pdpe1gb"),
	VARIANT("Skylake-Server-v2", "Skylake-Server-IBRS", "Skylake-Server-v1", "spec-ctrl -clflushopt", -1,
		.model_id = "Intel Xeon Processor (Skylake, IBRS)"),
	VARIANT("Skylake-Server-v3", "Skylake-Server-noTSX-IBRS", "Skylake-Server-v2", "-hle -rtm", -1,
		.model_id = "Intel Xeon Processor (Skylake, IBRS, no TSX)"),
	VARIANT("Skylake-Server-v4", NULL, "Skylake-Server-v3", "", -1),
	VARIANT("Skylake-Server-v5", NULL, "Skylake-Server-v4", "xsaves", -1),
	MODEL("Cascadelake-Server-v1", "Skylake-Server-v1", INTEL, 6, 85, 6, 0xd, 0x8, NULL,
		"Intel Xeon Processor (Cascadelake)",
		"avx512vnni spec-ctrl ssbd"),
	VARIANT("Cascadelake-Server-v2", NULL, "Cascadelake-Server-v1", "arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no", -1),
	VARIANT("Cascadelake-Server-v3", "Cascadelake-Server-noTSX", "Cascadelake-Server-v2", "-hle -rtm", -1),
	VARIANT("Cascadelake-Server-v4", NULL, "Cascadelake-Server-v3", "", -1),
	VARIANT("Cascadelake-Server-v5", NULL, "Cascadelake-Server-v4", "xsaves", -1),
	MODEL("Cooperlake-v1", "Cascadelake-Server-v1", INTEL, 6, 85, 10, 0xd, 0x8, NULL,
		"Intel Xeon Processor (Cooperlake)",
		"stibp arch-capabilities avx512-bf16 rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no"),
	VARIANT("Cooperlake-v2", NULL, "Cooperlake-v1", "xsaves", -1),
	MODEL("Icelake-Server-v1", "Cascadelake-Server-v1", INTEL, 6, 134, 0, 0xd, 0x8, NULL,
		"Intel Xeon Processor (Icelake)",
		"avx512vbmi umip avx512vbmi2 gfni vaes vpclmulqdq avx512bitalg avx512-vpopcntdq la57 wbnoinvd"),
	VARIANT("Icelake-Server-v2", "Icelake-Server-noTSX", "Icelake-Server-v1", "-hle -rtm", -1),
	VARIANT("Icelake-Server-v3", NULL, "Icelake-Server-v2", "arch-capabilities rdctl-no ibrs-all skip-l1dfl-vmentry mds-no pschange-mc-no taa-no", -1),
	VARIANT("Icelake-Server-v4", NULL, "Icelake-Server-v3", "avx512ifma sha-ni rdpid fsrm", -1, .model = 106),
	VARIANT("Icelake-Server-v5", NULL, "Icelake-Server-v4", "xsaves", -1),
	VARIANT("Icelake-Server-v6", NULL, "Icelake-Server-v5", "", -1),
	VARIANT("Icelake-Server-v7", NULL, "Icelake-Server-v6", "hle rtm", -1),
	MODEL("SapphireRapids-v1", "Icelake-Server-v5", INTEL, 6, 143, 4, 0x20, 8, NULL,
		"Intel Xeon Processor (SapphireRapids)",
		"hle rtm bus-lock-detect serialize tsx-ldtrk amx-bf16 avx512-fp16 amx-tile amx-int8 avx-vnni avx512-bf16 "
		"fzrm fsrs fsrc xfd"),
	VARIANT("SapphireRapids-v2", NULL, "SapphireRapids-v1", "sbdr-ssdp-no fbsdp-no psdp-no", -1),
	VARIANT("SapphireRapids-v3", NULL, "SapphireRapids-v2", "ss tsc-adjust cldemote movdiri movdir64b", -1),
	MODEL("GraniteRapids-v1", "SapphireRapids-v2", INTEL, 6, 173, 0, 0x20, 8, NULL,
		"Intel Xeon Processor (GraniteRapids)",
		"amx-fp16 prefetchiti mcdt-no pbrsb-no"),
	MODEL("SierraForest-v1", "GraniteRapids-v1", INTEL, 6, 175, 0, 0x23, 8, NULL,
		"Intel Xeon Processor (SierraForest)",
		"cmpccxadd avx-ifma avx-vnni-int8 avx-ne-convert -hle -rtm -avx512f -avx512dq -avx512ifma -avx512cd -avx512bw "
		"-avx512vl -avx512vbmi -avx512vbmi2 -avx512vnni -avx512bitalg -avx512-vpopcntdq -la57 -tsx-ldtrk -amx-bf16 "
		"-avx512-fp16 -amx-tile -amx-int8 -avx512-bf16 -fzrm -fsrc -amx-fp16 -prefetchiti -xfd -taa-no"),
	MODEL("Denverton-v1", "IvyBridge-v1", INTEL, 6, 95, 1, 0x15, 0x8, NULL,
		"Intel Atom Processor (Denverton)",
		"monitor movbe mpx rdseed smap clflushopt sha-ni spec-ctrl arch-capabilities ssbd xsavec xgetbv1 "
		"pdpe1gb 3dnowprefetch rdctl-no skip-l1dfl-vmentry -avx -f16c"),
	VARIANT("Denverton-v2", NULL, "Denverton-v1", "-monitor -mpx", -1),
	VARIANT("Denverton-v3", NULL, "Denverton-v2", "xsaves", -1),
	MODEL("Snowridge-v1", "IvyBridge-v1", INTEL, 6, 134, 1, 0x1b, 0x8, NULL,
		"Intel Atom Processor (SnowRidge)",
		"monitor movbe mpx rdseed smap clflushopt clwb sha-ni umip gfni cldemote movdiri movdir64b spec-ctrl "
		"arch-capabilities core-capability ssbd xsavec xgetbv1 pdpe1gb 3dnowprefetch split-lock-detect -avx "
		"-f16c"),
	VARIANT("Snowridge-v2", NULL, "Snowridge-v1", "-mpx", -1,
		.model_id = "Intel Atom Processor (Snowridge, no MPX)"),
	VARIANT("Snowridge-v3", NULL, "Snowridge-v2", "xsaves", -1),
	VARIANT("Snowridge-v4", NULL, "Snowridge-v3", "-core-capability -split-lock-detect", -1),
	MODEL("Opteron_G1-v1", "qemu64-v1", AMD, 15, 6, 1, 0x5, 0x8, NULL,
		"AMD Opteron 240 (Gen 1 Class Opteron)",
		"vme -cx16 -lahf-lm -svm"),
	MODEL("Opteron_G2-v1", "qemu64-v1", AMD, 15, 6, 1, 0x5, 0x8, NULL,
		"AMD Opteron 22xx (Gen 2 Class Opteron)",
		"vme"),
	MODEL("Opteron_G3-v1", "Opteron_G2-v1", AMD, 16, 2, 3, 0x5, 0x8, NULL,
		"AMD Opteron 23xx (Gen 3 Class Opteron)",
		"monitor popcnt rdtscp abm sse4a misalignsse"),
	MODEL("Opteron_G4-v1", "Opteron_G3-v1", AMD, 21, 1, 2, 0xd, 0x1a, NULL,
		"AMD Opteron 62xx class CPU",
		"pclmulqdq ssse3 sse4.1 sse4.2 aes xsave avx pdpe1gb 3dnowprefetch xop fma4 npt nrip-save -monitor"),
	MODEL("Opteron_G5-v1", "Opteron_G4-v1", AMD, 21, 2, 0, 0xd, 0x1a, NULL,
		"AMD Opteron 63xx class CPU",
		"fma f16c tbm"),
	MODEL("EPYC-v1", "Skylake-Client-v1", AMD, 23, 1, 2, 0xd, 0x1e, &caches_epyc,
		"AMD EPYC Processor",
		"monitor clflushopt sha-ni mmxext fxsr-opt pdpe1gb svm cr8legacy sse4a misalignsse osvw topoext npt "
		"nrip-save -pcid -x2apic -tsc-deadline -hle -erms -invpcid -rtm"),
	VARIANT("EPYC-v2", "EPYC-IBPB", "EPYC-v1", "ibpb", -1, .model_id = "AMD EPYC Processor (with IBPB)"),
	VARIANT("EPYC-v3", NULL, "EPYC-v2", "xsaves perfctr-core clzero xsaveerptr", -1,
		.model_id = "AMD EPYC Processor"),
	VARIANT("EPYC-v4", NULL, "EPYC-v3", NULL, -1, .model_id = "AMD EPYC-v4 Processor", .caches = &caches_epyc_v4),
	MODEL("Dhyana-v1", "EPYC-v1", HYGON, 24, 0, 1, 0xd, 0x1e, NULL,
		"Hygon Dhyana Processor",
		"ibpb -pclmulqdq -aes -sha-ni"),
	VARIANT("Dhyana-v2", NULL, "Dhyana-v1", "xsaves", -1),
	MODEL("EPYC-Rome-v1", "EPYC-v1", AMD, 23, 49, 0, 0xd, 0x1e, &caches_epyc_rome,
		"AMD EPYC-Rome Processor",
		"clwb umip rdpid xsaves perfctr-core clzero xsaveerptr wbnoinvd ibpb amd-stibp"),
	VARIANT("EPYC-Rome-v2", NULL, "EPYC-Rome-v1", "ibrs amd-ssbd", -1),
	VARIANT("EPYC-Rome-v3", NULL, "EPYC-Rome-v2", NULL, -1, .model_id = "AMD EPYC-Rome-v3 Processor",
		.caches = &caches_epyc_rome_v3),
	VARIANT("EPYC-Rome-v4", NULL, "EPYC-Rome-v3", "-xsaves", -1,
		.model_id = "AMD EPYC-Rome-v4 Processor (no XSAVES)"),
	MODEL("EPYC-Milan-v1", "EPYC-Rome-v1", AMD, 25, 1, 1, 0xd, 0x1e, &caches_epyc_milan,
		"AMD EPYC-Milan Processor",
		"pcid erms invpcid pku fsrm ibrs amd-ssbd svme-addr-chk"),
	VARIANT("EPYC-Milan-v2", NULL, "EPYC-Milan-v1",
		"vaes vpclmulqdq stibp-always-on amd-psfd no-nested-data-bp lfence-always-serializing null-sel-clr-base", -1,
		.model_id = "AMD EPYC-Milan-v2 Processor", .caches = &caches_epyc_milan_v2),
	MODEL("EPYC-Genoa-v1", "EPYC-Milan-v2", AMD, 25, 17, 0, 0xd, 0x22, &caches_epyc_genoa,
		"AMD EPYC-Genoa Processor",
		"avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512vbmi avx512vbmi2 gfni avx512vnni avx512bitalg "
		"avx512-vpopcntdq la57 avx512-bf16 auto-ibrs vnmi"),
	{NULL},
};
/* clang-format on */

const struct cpu_model_def *cpu_model_find(const char *name)
{
	const struct cpu_model_def *first = NULL;

	for (const struct cpu_model_def *d = cpu_model_defs; d->name; d++) {
		size_t len = strlen(d->name);

		if (!strcmp(d->name, name) || (d->alias && !strcmp(d->alias, name)))
			return d;
		if (!strcmp(d->name + len - 3, "-v1") && len - 3 == strlen(name) &&
		    !strncmp(d->name, name, len - 3))
			first = d;
	}
	return first;
}
