/* SPDX-License-Identifier: GPL-2.0-only */
/* From --cpu and KVM to what all vCPUs have in common. */
#include "cpu_setup.h"

#include <stdlib.h>
#include <sys/ioctl.h>

#include "cpu.h"
#include "cpu_model.h"
#include "vmm/kvm.h"
#include "vmm/vm.h"

/* Of "host" only what the user named: KVM has set the rest. */
static void take_msrs(struct cpu_setup *s, const struct cpu_model *m)
{
	static const struct {
		enum cpu_word word, flag_word;
		uint64_t flag;
	} msrs[] = {
		{CPU_ARCH_CAPABILITIES, CPU_7_0_EDX, CPU_FLAG_ARCH_CAPABILITIES},
		{CPU_CORE_CAPABILITIES, CPU_7_0_EDX, CPU_FLAG_CORE_CAPABILITY},
		{CPU_PERF_CAPABILITIES, CPU_1_ECX, CPU_FLAG_PDCM},
	};

	for (size_t i = 0; i < ARRAY_SIZE(msrs); i++)
		if (m->word[msrs[i].flag_word] & msrs[i].flag &&
		    (!m->host || m->explicit[msrs[i].word]))
			s->msr[s->nmsrs++] = (struct kvm_msr_entry){
				.index = cpu_words[msrs[i].word].msr,
				.data = m->word[msrs[i].word],
			};
}

static int check_vm(const struct vm *vm, const struct cpu_model *m, struct hako_error *err)
{
	const int *cap = vm->kvm->cap;

	if (cpu_has_long_ids(vm) && !(m->word[CPU_1_ECX] & CPU_FLAG_X2APIC))
		return error_set(err, -EINVAL, "x2apic=off: --cpus %s needs it", vm->config->cpus);
	if (m->tsc_hz && !cap[KVM_HAS_TSC_KHZ])
		return error_set(err, -ENOTSUP, "tsc-frequency: this kernel's KVM lacks it");
	if (m->tsc_hz && (m->tsc_hz < 1000000 || m->tsc_hz / 1000 > INT32_MAX))
		return error_set(err, -ERANGE, "tsc-frequency=%llu: not a frequency in Hz",
				 (unsigned long long)m->tsc_hz);
	if (m->pv_enforce && !cap[KVM_HAS_ENFORCE_PV])
		return error_set(err, -ENOTSUP,
				 "kvm-pv-enforce-cpuid: this kernel's KVM lacks it (Linux 5.10)");
	return 0;
}

/* @supported: for a while. */
static int make(struct vm *vm, struct cpu_setup *s, struct kvm_cpuid2 *supported, bool ext_dest,
		struct hako_error *err)
{
	struct cpu_model m;
	struct cpu_host host;
	struct hako_error warning;
	int r = cpu_model_parse(&m, vm->config->cpu, err);

	if (!r)
		r = cpuid_supported(vm->kvm->fd, supported, err);
	if (!r) {
		cpu_host_init(&host, vm->kvm, supported);
		host.dedicated = vm->config->oc.cpu_pm;
		r = cpu_model_resolve(&m, &host, ext_dest, &warning, err);
	}
	if (!r)
		r = check_vm(vm, &m, err);
	if (r) {
		error_prefix(err, "--cpu %s", vm->config->cpu);
		cpu_model_clear(&m);
		return r;
	}
	if (*warning.message)
		vm_warn(vm, "--cpu %s: %s", vm->config->cpu, warning.message);
	cpuid_of_model(&s->cpuid, &m, &host);
	take_msrs(s, &m);
	s->tsc_khz = m.tsc_hz / 1000;
	s->tsc_leaf = m.kvm && m.tsc_leaf && vm->kvm->cap[KVM_HAS_TSC_KHZ] &&
		      (m.tsc_hz || m.word[CPU_8000_0007_EDX] & CPU_FLAG_INVTSC);
	s->extended_topology = m.host || cpu_has_long_ids(vm);
	s->no_leaf_0xb = !m.leaf_0xb;
	s->enforce_pv = m.pv_enforce;
	/* A model of AMD's may have the flag without the counters, as in QEMU. */
	s->no_pmu = !m.pmu && !(m.word[CPU_8000_0001_ECX] & CPU_FLAGS_PERFCTR);
	cpu_model_clear(&m);
	return 0;
}

int cpu_setup(struct vm *vm, bool ext_dest, uint64_t *address_limit, struct hako_error *err)
{
	struct cpu_setup *s = calloc(1, sizeof(*s) + CPUID_BYTES);
	struct kvm_cpuid2 *supported = calloc(1, CPUID_BYTES);
	int r;

	r = s && supported ? make(vm, s, supported, ext_dest, err)
			   : error_errno(err, -ENOMEM, "--cpu");
	free(supported);
	if (r) {
		free(s);
		return r;
	}
	*address_limit = cpuid_address_limit(&s->cpuid);
	vm->kvm->cpu = s;
	return 0;
}

static int enable_cap(struct vm *vm, uint32_t number, uint64_t arg, const char *what,
		      struct hako_error *err)
{
	struct kvm_enable_cap cap = {.cap = number, .args = {arg}};

	return ioctl(vm->fd, KVM_ENABLE_CAP, &cap) < 0 ? error_errno(err, -errno, "KVM: %s", what)
						       : 0;
}

#define DISABLE_EXITS                                                                            \
	(KVM_X86_DISABLE_EXITS_MWAIT | KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | \
	 KVM_X86_DISABLE_EXITS_CSTATE)

int cpu_setup_vm(struct vm *vm, struct hako_error *err)
{
	const struct config_overcommit *oc = &vm->config->oc;
	const int *cap = vm->kvm->cap;
	int r = 0;

	if (vm->kvm->cpu->no_pmu && cap[KVM_HAS_PMU_CAPABILITY] & KVM_PMU_CAP_DISABLE)
		r = enable_cap(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE,
			       "performance counters", err);
	if (!r && oc->cpu_pm && !(cap[KVM_HAS_DISABLE_EXITS] & KVM_X86_DISABLE_EXITS_HLT))
		return error_set(err, -ENOTSUP,
				 "--overcommit cpu-pm=on: this host's KVM does not let idle vCPUs "
				 "keep their CPU (KVM_CAP_X86_DISABLE_EXITS)");
	if (!r && oc->cpu_pm)
		r = enable_cap(vm, KVM_CAP_X86_DISABLE_EXITS,
			       cap[KVM_HAS_DISABLE_EXITS] & DISABLE_EXITS, "cpu-pm=on", err);
	if (r || oc->halt_poll == CONFIG_HALT_POLL_HOST)
		return r;
	if (!cap[KVM_HAS_HALT_POLL])
		return error_set(
			err, -ENOTSUP,
			"--overcommit halt-poll=%u: this kernel's KVM lacks it (Linux 5.10)",
			oc->halt_poll);
	return enable_cap(vm, KVM_CAP_HALT_POLL, oc->halt_poll, "halt-poll", err);
}
