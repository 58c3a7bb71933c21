/* SPDX-License-Identifier: GPL-2.0-only */
/* --cpu: names, models, what the host lacks. That models are as QEMU's, tests/cpu/run shows. */
#include <check.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86/cpu.h"
#include "arch/x86/cpu_model.h"
#include "suite.h"
#include "vmm/kvm.h"

static struct hako_error err, warning;
static struct cpu_model m;

/* A host with all flags but those of @lacks. */
static struct kvm_cpuid2 *make_host(struct cpu_host *host, const char *lacks)
{
	static const char vendor[] = "GenuineIntel";
	struct kvm_cpuid2 *c = calloc(1, CPUID_BYTES);
	struct kvm kvm = {.fd = -1};
	struct kvm_cpuid_entry2 *e = cpuid_find_or_add(c, 0, 0);
	enum cpu_word w;
	uint64_t bits;

	kvm.cap[KVM_HAS_TSC_DEADLINE] = 1;
	e->eax = 0x20;
	memcpy(&e->ebx, vendor, 4);
	memcpy(&e->edx, vendor + 4, 4);
	memcpy(&e->ecx, vendor + 8, 4);
	cpuid_find_or_add(c, 1, 0)->eax = 0x806f8;
	cpuid_find_or_add(c, 0x80000000, 0)->eax = 0x80000021;
	cpuid_find_or_add(c, 0x80000008, 0)->eax = 0x392e;
	cpuid_find_or_add(c, 0xd, 0)->eax = 0x2e7;
	cpuid_find_or_add(c, 0xd, 1)->eax = 0xf;
	e = cpuid_find_or_add(c, 0xd, 2);
	e->eax = 0x100;
	e->ebx = 0x240;
	e = cpuid_find_or_add(c, 0xd, 9);
	e->eax = 8;
	e->ebx = 0xa80;
	for (int i = 0; i < CPU_WORDS; i++) {
		const struct cpu_word_info *info = &cpu_words[i];
		uint32_t *r = info->msr ? NULL
					: &cpuid_find_or_add(c, info->function, info->index)->eax;

		if (r)
			r[info->reg] = cpu_word_named(i) | BIT(11);
	}
	cpuid_find_or_add(c, 0xa, 0)->eax = 0x8300805;
	bits = *lacks ? cpu_flag_find(lacks, &w) : 0;
	if (bits)
		(&cpuid_find_or_add(c, cpu_words[w].function, cpu_words[w].index)
			  ->eax)[cpu_words[w].reg] &= ~bits;
	cpu_host_init(host, &kvm, c);
	return c;
}

static int make(const char *text, const char *lacks, struct kvm_cpuid2 **cpuid)
{
	struct kvm_cpuid2 *supported, *c = calloc(1, CPUID_BYTES);
	struct cpu_host host;
	int r;

	supported = make_host(&host, lacks);
	r = cpu_model_parse(&m, text, &err);
	if (!r)
		r = cpu_model_resolve(&m, &host, false, &warning, &err);
	if (!r)
		cpuid_of_model(c, &m, &host);
	cpu_model_clear(&m);
	free(supported);
	if (cpuid)
		*cpuid = c;
	else
		free(c);
	return r;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t f, uint32_t i)
{
	static const struct kvm_cpuid_entry2 none;

	for (uint32_t k = 0; k < c->nent; k++)
		if (c->entries[k].function == f && c->entries[k].index == i)
			return &c->entries[k];
	return &none;
}

START_TEST(names)
{
	enum cpu_word w;
	char buf[32];

	ck_assert_uint_eq(cpu_flag_find("fpu", &w), BIT64(0));
	ck_assert_int_eq(w, CPU_1_EDX);
	ck_assert_uint_eq(cpu_flag_find("avx512vl", &w), BIT64(31));
	ck_assert_int_eq(w, CPU_7_0_EBX);
	ck_assert_uint_eq(cpu_flag_find("sse4_1", &w), BIT64(19));
	ck_assert_uint_eq(cpu_flag_find("xd", &w), BIT64(20));
	ck_assert_uint_eq(cpu_flag_find("kvmclock", &w), BIT64(0) | BIT64(3));
	ck_assert_uint_eq(cpu_flag_find("kvmclock-stable-bit", &w), BIT64(24));
	ck_assert_uint_eq(cpu_flag_find("-", &w), 0);
	ck_assert_uint_eq(cpu_flag_find("", &w), 0);
	ck_assert_uint_eq(cpu_flag_find("fp", &w), 0);
	/* Each name finds itself, and no bit is beyond its register. */
	for (int i = 0; i < CPU_WORDS; i++) {
		ck_assert(cpu_words[i].msr || cpu_word_named(i) <= UINT32_MAX);
		for (unsigned int bit = 0; bit < 64; bit++)
			if (cpu_flag_name(i, bit, buf)) {
				ck_assert(cpu_flag_find(buf, &w) & BIT64(bit));
				ck_assert_int_eq(w, i);
			}
	}
}
END_TEST

START_TEST(definitions)
{
	for (const struct cpu_model_def *d = cpu_model_defs; d->name; d++) {
		const char *flag = d->flags;
		enum cpu_word w;
		char name[32];

		ck_assert_ptr_eq(cpu_model_find(d->name), d);
		if (d->from)
			ck_assert_ptr_nonnull(cpu_model_find(d->from));
		for (size_t len; flag && (len = strcspn(flag, " ")); flag += len + !!flag[len]) {
			snprintf(name, sizeof(name), "%.*s", (int)len, flag);
			ck_assert_msg(cpu_flag_find(name + (*name == '-'), &w), "%s: %s", d->name,
				      name);
		}
		ck_assert_int_eq(cpu_model_define(&m, d->name, &err), 0);
		ck_assert_uint_eq(strlen(m.vendor), 12);
		ck_assert_uint_le(strlen(m.model_id), 48);
		ck_assert(m.family && m.level && m.xlevel);
		cpu_model_clear(&m);
	}
	ck_assert_str_eq(cpu_model_find("Haswell-noTSX")->name, "Haswell-v2");
	ck_assert_str_eq(cpu_model_find("EPYC")->name, "EPYC-v1");
	ck_assert_ptr_null(cpu_model_find("EPY"));
}
END_TEST

static const struct {
	const char *text, *message;
} bad[] = {
	{"", "which model?"},
	{"+avx", "+avx: no such model"},
	{"Hasswell", "did you mean Haswell?"},
	{"EPYC-v11", "did you mean EPYC-v1?"},
	{"no such thing at all", "no such model (see"},
	{"host,+avx22", "avx22: no such flag or option (did you mean avx2?)"},
	{"host,-sse9", "sse9: no such flag"},
	{"host,vendr=x", "vendr: no such flag or option (did you mean vendor?)"},
	{"host,avx=maybe", "avx"},
	{"host,+", "no such flag"},
	{"host,vendor=Intel", "vendor=Intel: not 12 letters"},
	{"host,model-id=0123456789012345678901234567890123456789012345678", "longer than 48"},
	{"host,family=300", "family=300: more than 270"},
	{"host,model=256", "model=256"},
	{"host,stepping=16", "stepping=16"},
	{"host,stepping=-1", "stepping"},
	{"host,phys-bits=53", "phys-bits"},
	{"host,phys-bits=8", "phys-bits=8: less than 32"},
	{"host,xlevel=7", "xlevel=7"},
	{"host,pmu=on", "pmu=on: this host's KVM has no counters"},
};

START_TEST(refused)
{
	ck_assert_int_lt(make(bad[_i].text, "", NULL), 0);
	ck_assert_msg(strstr(err.message, bad[_i].message), "%s: %s", bad[_i].text, err.message);
}
END_TEST

START_TEST(lacking)
{
	struct kvm_cpuid2 *c;

	ck_assert_int_eq(make("Haswell", "", NULL), 0);
	ck_assert_str_eq(warning.message, "");
	ck_assert_int_eq(make("Haswell", "avx2", &c), 0);
	ck_assert_str_eq(warning.message, "the guest does without what this host lacks: avx2");
	ck_assert(!(leaf(c, 7, 0)->ebx & BIT(5)));
	ck_assert(leaf(c, 7, 0)->ebx & BIT(3));
	free(c);
	ck_assert_int_eq(make("Haswell,check=off", "avx2", NULL), 0);
	ck_assert_str_eq(warning.message, "");
	ck_assert_int_eq(make("Haswell,enforce", "avx2", NULL), -ENOTSUP);
	ck_assert_str_eq(err.message, "this host lacks avx2");
	ck_assert_int_eq(make("Haswell,-avx2,enforce", "avx2", NULL), 0);
	/* What depends on another flag, but is named. */
	ck_assert_int_eq(make("Haswell,+npt,enforce", "", NULL), -ENOTSUP);
	ck_assert_str_eq(err.message, "this host lacks npt");
	/* Flags that are of no use without their part of XSAVE's state. */
	ck_assert_int_eq(make("Haswell,enforce,+amx-tile", "", NULL), -ENOTSUP);
	ck_assert_int_eq(make("host,enforce", "avx2", NULL), 0);
	/* A flag of KVM's that nobody has named is not missed. */
	ck_assert_int_eq(make("Haswell,enforce", "kvm-steal-time", NULL), 0);
	ck_assert_int_eq(make("Haswell,enforce,+kvm-steal-time", "kvm-steal-time", NULL), -ENOTSUP);
	ck_assert_int_eq(make("Haswell,enforce,kvm=off,+kvm-steal-time", "kvm-steal-time", NULL),
			 0);
	ck_assert_int_eq(make("host,enforce,+kvm-msi-ext-dest-id", "", NULL), -ENOTSUP);
}
END_TEST

START_TEST(order)
{
	struct kvm_cpuid2 *c;

	/* flag=…, then +flag, then -flag, in whatever order they stand. */
	ck_assert_int_eq(
		make("Haswell,-avx2,+avx2,avx2=on,+rtm,rtm=off,f16c=off,sse4_2=off", "", &c), 0);
	ck_assert(!(leaf(c, 7, 0)->ebx & BIT(5)));
	ck_assert(leaf(c, 7, 0)->ebx & BIT(11));
	ck_assert(!(leaf(c, 1, 0)->ecx & BIT(29)));
	ck_assert(!(leaf(c, 1, 0)->ecx & BIT(20)));
	free(c);
}
END_TEST

START_TEST(host)
{
	struct kvm_cpuid2 *c;

	ck_assert_int_eq(make("host", "", &c), 0);
	ck_assert_uint_eq(leaf(c, 0, 0)->eax, 0x20);
	ck_assert_uint_eq(leaf(c, 1, 0)->eax, 0x806f8);
	ck_assert(!(leaf(c, 0x80000007, 0)->edx & BIT(8))); /* invtsc */
	ck_assert(!(leaf(c, 1, 0)->ecx & BIT(11)));	    /* has no name */
	ck_assert(!(leaf(c, 1, 0)->ecx & BIT(15)));	    /* pdcm: a matter of the PMU */
	ck_assert_uint_eq(leaf(c, 0xa, 0)->eax, 0);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->eax, 0x392e);
	ck_assert_uint_eq(leaf(c, 0x40000000, 0)->eax, 0x40000001);
	ck_assert(!(leaf(c, 0x40000001, 0)->eax & BIT(15)));
	ck_assert_uint_eq(leaf(c, 0x40000001, 0)->edx, 0); /* hints: only if asked for */
	free(c);
	ck_assert_int_eq(make("host,migratable=off,-kvm-pv-eoi,kvm-hint-dedicated", "", &c), 0);
	ck_assert(leaf(c, 0x80000007, 0)->edx & BIT(8));
	ck_assert(leaf(c, 1, 0)->ecx & BIT(11));
	ck_assert(!(leaf(c, 0x40000001, 0)->eax & BIT(6)));
	ck_assert_uint_eq(leaf(c, 0x40000001, 0)->edx, 1);
	free(c);
	ck_assert_int_eq(make("host,-avx,-pku,level=0xd,xlevel=0x80000004,phys-bits=40", "", &c),
			 0);
	ck_assert_uint_eq(leaf(c, 0, 0)->eax, 0xd);
	ck_assert_uint_eq(leaf(c, 0xd, 0)->eax, 0xe3); /* no AVX state, no PKRU */
	ck_assert_uint_eq(leaf(c, 0xd, 2)->eax, 0);
	ck_assert_uint_eq(leaf(c, 0xd, 9)->eax, 0);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->eax, 0);
	free(c);
	ck_assert_int_eq(
		make("host,kvm=off,family=6,model=1,stepping=2,vendor=AuthenticAMD,model-id=x", "",
		     &c),
		0);
	ck_assert_uint_eq(leaf(c, 0x40000000, 0)->ebx, 0);
	ck_assert_uint_eq(leaf(c, 1, 0)->eax, 0x612);
	ck_assert_uint_eq(leaf(c, 0, 0)->ebx, 0x68747541);
	ck_assert_uint_eq(leaf(c, 0x80000002, 0)->eax, 'x');
	free(c);
}
END_TEST

START_TEST(named)
{
	struct kvm_cpuid2 *c;

	ck_assert_int_eq(make("EPYC-Genoa", "", &c), 0);
	ck_assert_uint_eq(leaf(c, 1, 0)->eax, 0xa10f10);
	ck_assert_uint_eq(leaf(c, 0, 0)->ebx, 0x756e6547); /* the host's vendor */
	ck_assert_uint_eq(leaf(c, 0x80000021, 0)->eax, 0x145);
	ck_assert_uint_eq(leaf(c, 0xd, 0)->eax, 0x2e7);
	ck_assert_uint_eq(leaf(c, 0xd, 0)->ecx, 0xa88);
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->eax, 0x3928);
	free(c);
	ck_assert_int_eq(make("kvm64,vendor=AuthenticAMD", "", &c), 0);
	ck_assert_uint_eq(leaf(c, 4, 0)->eax, 0);
	ck_assert_uint_eq(leaf(c, 0x80000001, 0)->edx & 0xffff, 0xfbff); /* as in leaf 1 */
	ck_assert_uint_eq(leaf(c, 0x80000006, 0)->ecx, 0x02008140);
	ck_assert_uint_eq(leaf(c, 0xd, 0)->eax, 0);
	free(c);
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("cpu_model");
	TCase *t = tcase_create("cpu_model");

	tcase_add_test(t, names);
	tcase_add_test(t, definitions);
	tcase_add_loop_test(t, refused, 0, ARRAY_SIZE(bad));
	tcase_add_test(t, lacking);
	tcase_add_test(t, order);
	tcase_add_test(t, host);
	tcase_add_test(t, named);
	suite_add_tcase(s, t);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
