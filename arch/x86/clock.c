/* SPDX-License-Identifier: GPL-2.0-only */
#include "clock.h"

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "vmm/config.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

void clock_stop(struct vm *vm)
{
	struct kvm_clock_data data = {0};

	if (vm->clock_stopped || vm->fd < 0 || vm->config->rtc_options.kvmclock == RTC_CLOCK_HOST ||
	    !vm->kvm->cap[KVM_HAS_ADJUST_CLOCK])
		return;
	if (ioctl(vm->fd, KVM_GET_CLOCK, &data) < 0) {
		vm_log(vm, "the guest's clock runs on: KVM: %s", strerrordesc_np(errno));
		return;
	}
	vm->clock = data.clock;
	vm->clock_stopped = true;
}

void clock_go_on(struct vm *vm)
{
	/* Without KVM_CLOCK_REALTIME: that would add what has gone by. */
	struct kvm_clock_data data = {.clock = vm->clock};

	if (!vm->clock_stopped)
		return;
	vm->clock_stopped = false;
	if (ioctl(vm->fd, KVM_SET_CLOCK, &data) < 0) {
		vm_log(vm, "the guest's clock has run on: KVM: %s", strerrordesc_np(errno));
		return;
	}
	/* PVCLOCK_GUEST_STOPPED in its page. EINVAL is a vCPU that has no kvmclock, at least not yet. */
	for (uint32_t i = 0; i < vm->nvcpus; i++)
		if (ioctl(vm->vcpu[i].fd, KVM_KVMCLOCK_CTRL) < 0 && errno != EINVAL)
			vm_log(vm, "vCPU %u: KVM_KVMCLOCK_CTRL: %s", i, strerrordesc_np(errno));
}
