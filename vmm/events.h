/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a VM tells the program that holds it, and how that program waits for it: one lock and one condition for all that it can wait for
 * (consoles, networks), so that the VM's end wakes everybody.
 */
#ifndef VMM_EVENTS_H
#define VMM_EVENTS_H

#include "error.h"
#include "util.h"

struct vm;
struct vm_events;

int vm_events_new(struct vm *vm, struct hako_error *err);
void vm_events_free(struct vm *vm);

/** Tell the user. Any thread, which does not hold the events' lock. Nothing happens in a VM without events (vm_new_plain()). */
void vm_event(struct vm *vm, enum hako_event event, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/** The VM has ended: HAKO_EVENT_SHUTDOWN, once, and nobody waits any longer. */
void vm_events_end(struct vm *vm, const char *message);
void vm_events_set_callback(struct vm *vm,
			    void (*event)(void *opaque, enum hako_event event, const char *message),
			    void *opaque);

/* --- waiting for what changes under the lock, a leaf -------------------------------------------- */

void events_lock(struct vm *vm);
void events_unlock(struct vm *vm);
/** Something has changed: wake all who wait. Under the lock. */
void events_wake(struct vm *vm);
/** Sleep until something has, or @deadline: false then. UINT64_MAX: never. Under the lock, which is not held meanwhile. */
bool events_wait(struct vm *vm, uint64_t deadline);
/** Nothing will change any more. Under the lock. */
bool events_ended(const struct vm *vm);

/** clock_now()'s time when that many milliseconds will have passed; UINT64_MAX for less than 0. */
uint64_t deadline_in(int timeout_ms);

#endif
