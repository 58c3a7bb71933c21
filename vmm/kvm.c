/* SPDX-License-Identifier: GPL-2.0-only */
#include "kvm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define REQUIRED(C, WHY)            \
	{                           \
#C, WHY, C, true, 0 \
	}
#define OPTIONAL(C, ID, WHY)          \
	{                             \
#C, WHY, C, false, ID \
	}

const struct kvm_cap_info kvm_cap_table[] = {
	REQUIRED(KVM_CAP_USER_MEMORY, "guest memory"),
	REQUIRED(KVM_CAP_IRQCHIP, "interrupt controllers in the kernel"),
	REQUIRED(KVM_CAP_IRQ_ROUTING, "interrupt routes"),
	REQUIRED(KVM_CAP_IRQFD, "interrupts by eventfd"),
	REQUIRED(KVM_CAP_IOEVENTFD, "doorbells by eventfd"),
	REQUIRED(KVM_CAP_SIGNAL_MSI, "message-signalled interrupts"),
	REQUIRED(KVM_CAP_MP_STATE, "starting and resetting vCPUs"),
	REQUIRED(KVM_CAP_VCPU_EVENTS, "resetting vCPUs"),
	REQUIRED(KVM_CAP_EXT_CPUID, "CPUID"),
	REQUIRED(KVM_CAP_IMMEDIATE_EXIT, "exact pauses"),
	REQUIRED(KVM_CAP_CHECK_EXTENSION_VM, "capabilities of a VM"),
	OPTIONAL(KVM_CAP_SPLIT_IRQCHIP, KVM_HAS_SPLIT_IRQCHIP, "board micro"),
	OPTIONAL(KVM_CAP_X2APIC_API, KVM_HAS_X2APIC_API, "more than 254 vCPUs"),
	OPTIONAL(KVM_CAP_TSC_DEADLINE_TIMER, KVM_HAS_TSC_DEADLINE, "the TSC deadline timer"),
	OPTIONAL(KVM_CAP_PIT2, KVM_HAS_PIT2, "the PIT of board q35"),
	OPTIONAL(KVM_CAP_XSAVE, KVM_HAS_XSAVE, "extended registers"),
	OPTIONAL(KVM_CAP_XCRS, KVM_HAS_XCRS, "extended control registers"),
	OPTIONAL(KVM_CAP_DEBUGREGS, KVM_HAS_DEBUGREGS, "debug registers"),
	OPTIONAL(KVM_CAP_SET_TSS_ADDR, KVM_HAS_TSS_ADDR, "real mode on older Intel CPUs"),
	OPTIONAL(KVM_CAP_SET_IDENTITY_MAP_ADDR, KVM_HAS_IDENTITY_MAP,
		 "real mode on older Intel CPUs"),
	OPTIONAL(KVM_CAP_X86_TRIPLE_FAULT_EVENT, KVM_HAS_TRIPLE_FAULT_EVENT,
		 "resets that forget a triple fault"),
	OPTIONAL(KVM_CAP_PMU_CAPABILITY, KVM_HAS_PMU_CAPABILITY,
		 "performance counters (--cpu pmu=)"),
	OPTIONAL(KVM_CAP_GET_TSC_KHZ, KVM_HAS_TSC_KHZ, "--cpu tsc-frequency="),
	OPTIONAL(KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_HAS_ENFORCE_PV,
		 "--cpu kvm-pv-enforce-cpuid="),
	OPTIONAL(KVM_CAP_X86_DISABLE_EXITS, KVM_HAS_DISABLE_EXITS, "--overcommit cpu-pm=on"),
	OPTIONAL(KVM_CAP_HALT_POLL, KVM_HAS_HALT_POLL, "--overcommit halt-poll="),
	OPTIONAL(KVM_CAP_ADJUST_CLOCK, KVM_HAS_ADJUST_CLOCK,
		 "a guest's clock that stands still in a pause"),
	{NULL},
};

static int open_error(const char *path, int code, struct hako_error *err)
{
	error_errno(err, code, "%s", path);
	switch (code) {
	case -ENOENT:
	case -ENODEV:
	case -ENXIO:
		error_hint(err, "load kvm_intel or kvm_amd, or enable virtualization in the "
				"firmware; \"hako doctor\" tells more");
		break;
	case -EACCES:
	case -EPERM:
		error_hint(err, "add your user to the group of %s, or run as root", path);
		break;
	case -EBUSY:
		error_hint(err, "another hypervisor has the CPU's virtualization");
		break;
	}
	return code;
}

static int check(struct kvm *kvm, const char *path, struct hako_error *err)
{
	int version = ioctl(kvm->fd, KVM_GET_API_VERSION, 0);

	if (version < 0)
		return error_set(err, -ENODEV, "%s: not a KVM device", path);
	if (version != KVM_API_VERSION)
		return error_set(err, -ENOTSUP, "%s: API version %d, hako needs %d", path, version,
				 KVM_API_VERSION);
	for (const struct kvm_cap_info *c = kvm_cap_table; c->name; c++) {
		int value = ioctl(kvm->fd, KVM_CHECK_EXTENSION, c->capability);

		if (c->required && value <= 0)
			return error_set(err, -ENOTSUP,
					 "%s: this kernel's KVM lacks %s, which hako needs for %s",
					 path, c->name, c->purpose);
		if (!c->required)
			kvm->cap[c->id] = MAX(value, 0);
	}
	kvm->run_size = ioctl(kvm->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	kvm->max_vcpus = MAX(ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS), 4);
	kvm->recommended_vcpus = MAX(ioctl(kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_VCPUS), 4);
	return 0;
}

int kvm_open(struct kvm **out, const char *path, struct hako_error *err)
{
	struct kvm *kvm = calloc(1, sizeof(*kvm));
	int r;

	if (!kvm)
		return error_errno(err, -ENOMEM, "%s", path);
	kvm->fd = open(path, O_RDWR | O_CLOEXEC);
	r = kvm->fd < 0 ? open_error(path, -errno, err) : check(kvm, path, err);
	if (r) {
		kvm_close(kvm);
		return r;
	}
	*out = kvm;
	return 0;
}

void kvm_close(struct kvm *kvm)
{
	if (!kvm)
		return;
	if (kvm->fd >= 0)
		close(kvm->fd);
	free(kvm->cpu);
	free(kvm);
}
