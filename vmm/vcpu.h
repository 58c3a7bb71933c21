/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vCPU threads. Each makes its vCPU, then sleeps until the VM runs; it leaves the guest for good or for a while when it is kicked.
 * Kicks are a signal that these threads block, and that KVM_RUN lets through (KVM_SET_SIGNAL_MASK): it needs no handler.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include <pthread.h>

#include "bus.h"
#include "error.h"

struct vm;
struct kvm_run;
struct cpu_state;
struct sandbox;

/* Why a vCPU has stopped for the debugger. */
enum vcpu_stop {
	VCPU_STOP_NONE,
	VCPU_STOP_STEP,
	VCPU_STOP_SOFTWARE, /* a breakpoint in memory; the instruction has not been executed */
	VCPU_STOP_HARDWARE, /* the same by debug register */
	VCPU_STOP_WATCH,    /* after a write, or an access, to debug.addr */
	VCPU_STOP_ACCESS,
};

/* The debugger's, while all vCPUs are held; else the vCPU's. */
struct vcpu_debug {
	bool run;	     /* vcpus_release() lets it run */
	bool step;	     /* one instruction only */
	bool on;	     /* KVM debugs the guest */
	enum vcpu_stop stop; /* not yet reported */
	uint64_t addr;
};

struct vcpu {
	struct vm *vm;
	uint32_t index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	bool thread_started;
	struct bus_reader pio, mmio;
	struct cpu_state *power_on; /* registers after power-on, for resets */
	bool must_stop;		    /* atomic: park before the next entry */
	bool held;		    /* atomic: a debugger keeps it parked */
	bool needs_completion;	    /* the last exit's I/O is not yet in the registers */
	bool parked;		    /* under vcpus->lock */
	bool confined;		    /* under vcpus->lock */
	uint64_t exits;		    /* KVM_RUN's returns; this thread's */
	struct vcpu_debug debug;
};

struct vcpus; /* what the vCPUs of one VM share: vm->vcpus */

/** Start the threads of @n vCPUs, which create them in parallel. vcpus_ready() waits for the outcome. */
int vcpus_new(struct vm *vm, uint32_t n, struct hako_error *err);
int vcpus_ready(struct vm *vm, struct hako_error *err);
/** Have each thread confine itself; vcpus_confined() waits for the outcome. They have never run. */
void vcpus_confine(struct vm *vm, struct sandbox *sb);
int vcpus_confined(struct vm *vm, struct hako_error *err);
/** End the threads and free. */
void vcpus_free(struct vm *vm);
/** Let them run the guest. */
void vcpus_resume(struct vm *vm);
/** Returns when none runs the guest and none is in a handler; registers are up to date. Not from a vCPU's thread. */
void vcpus_pause(struct vm *vm);
/** Have all of them leave the guest soon and park, without waiting. Any thread. */
void vcpus_kick(struct vm *vm);

/*
 * Holding is for debuggers, and independent of pausing: a vCPU runs if it is neither held nor paused. Devices go on. There is one debugger.
 * vCPUs without threads (fuzzers) are never said to be held.
 */

/** @held is called each time all vCPUs are parked after vcpus_hold(): from any thread, under a lock, so it may only post a message. */
void vcpus_on_hold(struct vm *vm, void (*held)(void *opaque), void *opaque);
/** Hold all. Registers are up to date when @held comes, and stay so until vcpus_release(). Any thread, a vCPU's too. */
void vcpus_hold(struct vm *vm);
/** Let those run that have debug.run set; all were held. */
void vcpus_release(struct vm *vm);
/** Are vCPUs held, or about to be? Any thread. */
bool vcpus_holding(struct vm *vm);

#endif
