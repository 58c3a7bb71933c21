/* SPDX-License-Identifier: GPL-2.0-only */
#include "vcpu.h"

#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "arch/x86/clock.h"
#include "arch/x86/cpu.h"
#include "arch/x86/debug.h"
#include "kvm.h"
#include "sandbox.h"
#include "vm.h"

#define KICK_SIGNAL (SIGRTMIN + 1)

struct vcpus {
	pthread_mutex_t lock;
	pthread_cond_t changed; /* of any field below, or vcpu->parked */
	uint32_t n, created;
	bool failed, running, ending;
	struct hako_error err;	 /* of the first that failed */
	int kick_fd;		 /* signalfd: a thread that reads it takes its own kicks */
	struct sandbox *confine; /* to be entered by each thread, or NULL */
	uint32_t confined;
	/* the debugger's */
	uint32_t parked;
	bool holding, held_told;
	void (*held)(void *opaque);
	void *held_opaque;
};

/* --- exits ----------------------------------------------------------------------------------- */

static uint64_t load_bytes(const uint8_t *p, unsigned int size)
{
	uint64_t v = 0;

	memcpy(&v, p, MIN(size, 8u));
	return v;
}

static void handle_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned int size = run->io.size;

	for (uint32_t i = 0; i < run->io.count; i++, data += size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			bus_write(&v->pio, run->io.port, load_bytes(data, size), size);
		} else {
			uint64_t value;

			bus_read(&v->pio, run->io.port, &value, size);
			memcpy(data, &value, size);
		}
	}
}

/* KVM hands over up to 8 bytes, of any length; devices are promised powers of two. */
static void handle_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint64_t addr = run->mmio.phys_addr;
	unsigned int done = 0, len = MIN(run->mmio.len, 8u);

	while (done < len) {
		unsigned int size = 8;
		uint64_t value;

		while (size > len - done)
			size /= 2;
		if (run->mmio.is_write) {
			bus_write(&v->mmio, addr + done, load_bytes(run->mmio.data + done, size),
				  size);
		} else {
			bus_read(&v->mmio, addr + done, &value, size);
			memcpy(run->mmio.data + done, &value, size);
		}
		done += size;
	}
}

static void handle_system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vm_request(v->vm, VM_REQUEST_POWEROFF, 0);
		break;
	case KVM_SYSTEM_EVENT_RESET:
		vm_request(v->vm, VM_REQUEST_RESET, 0);
		break;
	default:
		vm_request(v->vm, VM_REQUEST_PANIC, 1);
	}
}

static void fail_internal(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct kvm_regs regs = {0};
	char bytes[64] = "";

	ioctl(v->fd, KVM_GET_REGS, &regs);
	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION && run->internal.ndata >= 3) {
		const uint8_t *insn = run->emulation_failure.insn_bytes;

		if (run->emulation_failure.flags &
		    KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
			for (int i = 0; i < MIN(run->emulation_failure.insn_size, 15); i++)
				snprintf(bytes + 3 * i, sizeof(bytes) - 3 * i, " %02x", insn[i]);
		vm_fail(v->vm, "vCPU %u: KVM could not emulate the instruction at 0x%llx:%s",
			v->index, (unsigned long long)regs.rip, *bytes ? bytes : " bytes unknown");
		return;
	}
	vm_fail(v->vm, "vCPU %u: KVM internal error %u at 0x%llx", v->index, run->internal.suberror,
		(unsigned long long)regs.rip);
}

static void handle_exit(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	v->needs_completion = run->exit_reason == KVM_EXIT_IO || run->exit_reason == KVM_EXIT_MMIO;
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(v);
		break;
	case KVM_EXIT_MMIO:
		handle_mmio(v);
		break;
	case KVM_EXIT_DEBUG:
		debug_exit(v);
		break;
	case KVM_EXIT_IOAPIC_EOI:
		irq_eoi(v->vm, run->eoi.vector);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_HLT:
		break;
	case KVM_EXIT_SHUTDOWN:
		vm_guest_error(v->vm, "vCPU %u: triple fault", v->index);
		vm_request(v->vm, VM_REQUEST_RESET, 0);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		handle_system_event(v);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		vm_fail(v->vm, "vCPU %u: the CPU refused to enter the guest, reason 0x%llx",
			v->index,
			(unsigned long long)run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		fail_internal(v);
		break;
	default:
		vm_fail(v->vm, "vCPU %u: unexpected KVM exit %u", v->index, run->exit_reason);
	}
}

/* --- the thread ------------------------------------------------------------------------------ */

static void drain_kicks(const struct vcpu *v)
{
	struct signalfd_siginfo info;

	while (read(v->vm->vcpus->kick_fd, &info, sizeof(info)) > 0)
		;
}

static int make_kick_fd(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KICK_SIGNAL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Let KVM take over the result of the last exit, without running the guest. */
static void complete_io(struct vcpu *v)
{
	v->run->immediate_exit = 1;
	while (v->needs_completion) {
		v->needs_completion = false;
		if (ioctl(v->fd, KVM_RUN, 0) == 0)
			handle_exit(v); /* the next piece of one access */
	}
	v->run->immediate_exit = 0;
}

/* A request that waits to be carried out holds the vCPU even if somebody resumes the VM meanwhile. */
static bool must_stop(struct vcpu *v)
{
	return __atomic_load_n(&v->must_stop, __ATOMIC_ACQUIRE) ||
	       __atomic_load_n(&v->held, __ATOMIC_ACQUIRE) ||
	       __atomic_load_n(&v->vm->request, __ATOMIC_ACQUIRE);
}

/* Under all->lock. */
static void tell_held(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	if (!all->holding || all->held_told || all->parked < all->n || !all->held)
		return;
	clock_stop(vm);
	all->held_told = true;
	all->held(all->held_opaque);
}

/* Under all->lock. */
static void confine(struct vcpu *v)
{
	struct vcpus *all = v->vm->vcpus;
	struct hako_error err;
	int r;

	pthread_mutex_unlock(&all->lock);
	r = sandbox_enter(all->confine, SANDBOX_VCPU, &err);
	pthread_mutex_lock(&all->lock);
	v->confined = true;
	all->confined++;
	if (r && !all->failed) {
		all->failed = true;
		all->err = err;
	}
	pthread_cond_broadcast(&all->changed);
}

/* Sleep until the VM runs. False: the thread is to end. */
static bool park(struct vcpu *v)
{
	struct vcpus *all = v->vm->vcpus;
	bool go_on;

	complete_io(v);
	drain_kicks(v);
	pthread_mutex_lock(&all->lock);
	v->parked = true;
	all->parked++;
	tell_held(v->vm);
	pthread_cond_broadcast(&all->changed);
	while ((!all->running || must_stop(v)) && !all->ending) {
		if (all->confine && !v->confined)
			confine(v);
		else
			pthread_cond_wait(&all->changed, &all->lock);
	}
	v->parked = false;
	all->parked--;
	go_on = !all->ending;
	pthread_mutex_unlock(&all->lock);
	return go_on;
}

static void run_guest(struct vcpu *v)
{
	while (park(v)) {
		while (!must_stop(v)) {
			int r = ioctl(v->fd, KVM_RUN, 0);

			v->exits++;
			if (r == 0) {
				handle_exit(v);
			} else {
				v->needs_completion = false;
				if (errno == EINTR)
					drain_kicks(v);
				else if (errno != EAGAIN)
					vm_fail(v->vm, "vCPU %u: KVM_RUN: %s", v->index,
						strerrordesc_np(errno));
			}
		}
	}
}

static int set_signal_mask(struct vcpu *v)
{
	struct {
		struct kvm_signal_mask head;
		uint8_t set[8];
	} arg = {.head.len = 8};
	/* From 32 to SIGRTMIN they are the C library's, which waits for every thread to take them: setuid() is one. */
	uint64_t library = BIT64(SIGRTMIN - 1) - BIT64(32 - 1);
	uint64_t mask = ~(BIT64(KICK_SIGNAL - 1) | library);

	memcpy(arg.set, &mask, 8);
	return ioctl(v->fd, KVM_SET_SIGNAL_MASK, &arg) < 0 ? -errno : 0;
}

static int vcpu_create(struct vcpu *v, struct hako_error *err)
{
	struct vm *vm = v->vm;
	int r;

	v->fd = ioctl(vm->fd, KVM_CREATE_VCPU,
		      (unsigned long)cpu_apic_id(&vm->config->topology, v->index));
	if (v->fd < 0)
		return error_errno(err, -errno, "KVM: vCPU %u", v->index);
	v->run = mmap(NULL, vm->kvm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return error_errno(err, -errno, "KVM: vCPU %u", v->index);
	}
	r = set_signal_mask(v);
	if (r)
		return error_errno(err, r, "KVM: vCPU %u: signal mask", v->index);
	return cpu_init(v, err);
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct vcpus *all = v->vm->vcpus;
	struct hako_error err;
	char name[16];
	int r;

	snprintf(name, sizeof(name), "hako-vcpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	r = vcpu_create(v, &err);

	pthread_mutex_lock(&all->lock);
	all->created++;
	if (r && !all->failed) {
		all->failed = true;
		all->err = err;
	}
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	if (!r)
		run_guest(v);
	return NULL;
}

/* --- all of them ----------------------------------------------------------------------------- */

static int start_threads(struct vm *vm, struct hako_error *err)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int r = 0;

	/* A new thread inherits the mask: every signal is blocked in it from its first instruction on. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * KiB);
	for (uint32_t i = 0; i < vm->nvcpus && !r; i++) {
		struct vcpu *v = &vm->vcpu[i];

		r = pthread_create(&v->thread, &attr, vcpu_thread, v);
		v->thread_started = !r;
		if (r)
			error_errno(err, -r, "thread of vCPU %u", i);
	}
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -r;
}

int vcpus_new(struct vm *vm, uint32_t n, struct hako_error *err)
{
	struct vcpus *all = calloc(1, sizeof(*all));

	vm->vcpu = calloc(n, sizeof(*vm->vcpu));
	if (!all || !vm->vcpu) {
		free(all);
		free(vm->vcpu);
		vm->vcpu = NULL;
		return error_errno(err, -ENOMEM, "%u vCPUs", n);
	}
	vm->vcpus = all;
	vm->nvcpus = n;
	all->n = n;
	pthread_mutex_init(&all->lock, NULL);
	pthread_cond_init(&all->changed, NULL);
	for (uint32_t i = 0; i < n; i++) {
		struct vcpu *v = &vm->vcpu[i];

		v->vm = vm;
		v->index = i;
		v->fd = -1;
		v->must_stop = true;
		bus_reader_init(&v->pio, &vm->pio);
		bus_reader_init(&v->mmio, &vm->mmio);
	}
	all->kick_fd = make_kick_fd();
	if (all->kick_fd < 0)
		return error_errno(err, -errno, "signalfd");
	return start_threads(vm, err);
}

/* Until @count has come to all. */
static int wait_for_all(struct vcpus *all, const uint32_t *count, struct hako_error *err)
{
	int r = 0;

	pthread_mutex_lock(&all->lock);
	while (*count < all->n)
		pthread_cond_wait(&all->changed, &all->lock);
	if (all->failed) {
		r = all->err.code;
		if (err)
			*err = all->err;
	}
	pthread_mutex_unlock(&all->lock);
	return r;
}

int vcpus_ready(struct vm *vm, struct hako_error *err)
{
	return wait_for_all(vm->vcpus, &vm->vcpus->created, err);
}

void vcpus_confine(struct vm *vm, struct sandbox *sb)
{
	struct vcpus *all = vm->vcpus;

	pthread_mutex_lock(&all->lock);
	all->confine = sb;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
}

int vcpus_confined(struct vm *vm, struct hako_error *err)
{
	struct vcpus *all = vm->vcpus;
	int r = wait_for_all(all, &all->confined, err);

	all->confine = NULL;
	return r;
}

void vcpus_kick(struct vm *vm)
{
	for (uint32_t i = 0; i < vm->nvcpus; i++) {
		struct vcpu *v = &vm->vcpu[i];

		if (!__atomic_exchange_n(&v->must_stop, true, __ATOMIC_SEQ_CST) &&
		    !pthread_equal(v->thread, pthread_self()))
			pthread_kill(v->thread, KICK_SIGNAL);
	}
}

void vcpus_pause(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	vcpus_kick(vm);
	pthread_mutex_lock(&all->lock);
	all->running = false;
	for (uint32_t i = 0; i < vm->nvcpus; i++)
		while (!vm->vcpu[i].parked)
			pthread_cond_wait(&all->changed, &all->lock);
	clock_stop(vm);
	pthread_mutex_unlock(&all->lock);
}

void vcpus_resume(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	pthread_mutex_lock(&all->lock);
	if (!all->holding)
		clock_go_on(vm);
	for (uint32_t i = 0; i < vm->nvcpus; i++)
		__atomic_store_n(&vm->vcpu[i].must_stop, false, __ATOMIC_SEQ_CST);
	all->running = true;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
}

void vcpus_on_hold(struct vm *vm, void (*held)(void *opaque), void *opaque)
{
	struct vcpus *all = vm->vcpus;

	pthread_mutex_lock(&all->lock);
	all->held = held;
	all->held_opaque = opaque;
	tell_held(vm);
	pthread_mutex_unlock(&all->lock);
}

void vcpus_hold(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	if (!all->holding) {
		all->holding = true;
		all->held_told = false;
		for (uint32_t i = 0; i < vm->nvcpus; i++) {
			struct vcpu *v = &vm->vcpu[i];

			__atomic_store_n(&v->held, true, __ATOMIC_SEQ_CST);
			if (!v->parked && !pthread_equal(v->thread, pthread_self()))
				pthread_kill(v->thread, KICK_SIGNAL);
		}
	}
	tell_held(vm);
	pthread_mutex_unlock(&all->lock);
}

void vcpus_release(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->holding = false;
	if (all->running)
		clock_go_on(vm);
	for (uint32_t i = 0; i < vm->nvcpus; i++)
		__atomic_store_n(&vm->vcpu[i].held, !vm->vcpu[i].debug.run, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
}

bool vcpus_holding(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;
	bool holding;

	pthread_mutex_lock(&all->lock);
	holding = all->holding;
	pthread_mutex_unlock(&all->lock);
	return holding;
}

void vcpus_free(struct vm *vm)
{
	struct vcpus *all = vm->vcpus;

	if (!all)
		return;
	pthread_mutex_lock(&all->lock);
	all->ending = true;
	pthread_cond_broadcast(&all->changed);
	pthread_mutex_unlock(&all->lock);
	vcpus_kick(vm);
	for (uint32_t i = 0; i < vm->nvcpus; i++) {
		struct vcpu *v = &vm->vcpu[i];

		if (v->thread_started)
			pthread_join(v->thread, NULL);
		if (v->run)
			munmap(v->run, vm->kvm->run_size);
		if (v->fd >= 0)
			close(v->fd);
		bus_reader_free(&v->pio);
		bus_reader_free(&v->mmio);
		free(v->power_on);
	}
	pthread_mutex_destroy(&all->lock);
	pthread_cond_destroy(&all->changed);
	if (all->kick_fd >= 0)
		close(all->kick_fd);
	free(vm->vcpu);
	free(all);
	vm->vcpu = NULL;
	vm->vcpus = NULL;
	vm->nvcpus = 0;
}
