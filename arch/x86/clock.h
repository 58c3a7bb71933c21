/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kvmclock while no vCPU runs: it stands still, unless --rtc kvmclock=host. The TSC runs on, which a guest sees that takes its time from
 * the TSC alone.
 */
#ifndef ARCH_X86_CLOCK_H
#define ARCH_X86_CLOCK_H

struct vm;

/** All vCPUs are parked: note the time, unless it has been. Under the vCPUs' lock. */
void clock_stop(struct vm *vm);
/** They are about to run: go on from there, and have the guest's watchdogs forgive. Without a clock_stop() before, nothing. */
void clock_go_on(struct vm *vm);

#endif
