/* SPDX-License-Identifier: GPL-2.0-only */
/* What vm.c, control.c and vm_plain.c share. */
#ifndef VMM_VM_INTERNAL_H
#define VMM_VM_INTERNAL_H

#include "vm.h"

/* Everything but KVM, the loop and memory; vm is zeroed. After a failure vm_free_common() is called. */
int vm_init_common(struct vm *vm, struct hako_error *err);
void vm_free_common(struct vm *vm);
/** Devices first, then what they used, each kind in reverse order of creation. */
void vm_destroy_objects(struct vm *vm);

/* --- control.c --------------------------------------------------------------------------------- */

struct vm_control;

int vm_control_new(struct vm *vm, struct hako_error *err);
/** Ends the thread. Not from itself. */
void vm_control_free(struct vm *vm);
/** Wait for the end; -ETIMEDOUT. */
int vm_control_wait(struct vm *vm, int timeout_ms, struct hako_exit_info *info);
/** Has something been asked for that has not been carried out? */
bool vm_control_pending(struct vm *vm);

/* --- vm.c, under vm->lock ---------------------------------------------------------------------- */

void vm_pause_locked(struct vm *vm);
void vm_resume_locked(struct vm *vm);
int vm_reset_locked(struct vm *vm, struct hako_error *err);
bool vm_no_reboot(const struct vm *vm);
bool vm_panic_exits(const struct vm *vm);

#endif
