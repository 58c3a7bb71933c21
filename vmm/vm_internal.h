/* SPDX-License-Identifier: GPL-2.0-only */
/* What vm.c, control.c and vm_plain.c share. */
#ifndef VMM_VM_INTERNAL_H
#define VMM_VM_INTERNAL_H

#include "vm.h"

struct sandbox;

/* Everything but KVM, the loop and memory; vm is zeroed. After a failure vm_free_common() is called. */
int vm_init_common(struct vm *vm, struct hako_error *err);
void vm_free_common(struct vm *vm);
/** End all loops. The objects that used them are gone; vCPUs are still there, since a loop's last callbacks may kick them. */
void vm_free_loops(struct vm *vm);
/** The loop of that iothread, if there is one; NULL. */
struct loop *vm_find_iothread(struct vm *vm, const char *id);
/** loop_confine() for each. */
int vm_confine_loops(struct vm *vm, struct sandbox *sb, struct hako_error *err);
/** Devices first, then what they used, each kind in reverse order of creation. */
void vm_destroy_objects(struct vm *vm);

/** Of CLASS_OBJECT "gdb" (vmm/gdb/): make it of --gdb's text. */
int vm_gdb(struct vm *vm, const char *text, struct hako_error *err);

/** Forget hako_vm_add_disk()'s disks; their nodes are gone. */
void vm_free_program_disks(struct vm *vm);

/* --- control.c --------------------------------------------------------------------------------- */

struct vm_control;

int vm_control_new(struct vm *vm, struct hako_error *err);
/** Start the thread. */
int vm_control_start(struct vm *vm, struct hako_error *err);
/** End the thread. Not from itself. */
void vm_control_stop(struct vm *vm);
void vm_control_free(struct vm *vm);
/** Keep how the VM ended, and tell those who wait. Under vm->lock; nothing runs any more. */
void vm_control_end(struct vm *vm, enum hako_exit reason, int status, const char *message);
/** Wait for the VM's end; -ETIMEDOUT. Without vm->lock. */
int vm_control_wait(struct vm *vm, int timeout_ms, struct hako_exit_info *info);
int vm_control_end_fd(struct vm *vm);
void vm_control_set_log(struct vm *vm, void (*log)(void *, const char *), void *opaque);
/** The VM goes on: errors before that no longer count. Under vm->lock. */
void vm_control_forget_error(struct vm *vm);
/** The vCPUs run: do what vm_touch_soon() has asked for. Not earlier, since each step keeps others from changing the memory map. */
void vm_control_touch(struct vm *vm);
/** Carry out what has been asked for, if anything has. Under vm->lock. */
void vm_control_take(struct vm *vm);
/** Confine the thread; when it is. Under vm->lock. */
int vm_control_confine(struct vm *vm, struct sandbox *sb, struct hako_error *err);

/* --- vm.c, under vm->lock ---------------------------------------------------------------------- */

void vm_pause_locked(struct vm *vm);
void vm_resume_locked(struct vm *vm);
int vm_reset_locked(struct vm *vm, struct hako_error *err);

#endif
