/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libhako: virtual machines that a program can hold.
 *
 * Every call returns 0 or a negative errno and, if @err is not NULL, says there in one line what went
 * wrong. The library prints nothing, never exits, installs no signal handler and keeps no process-wide
 * state: any number of VMs live side by side. A VM's calls may come from any thread.
 */
#ifndef HAKO_H
#define HAKO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HAKO_API __attribute__((visibility("default")))

/** What went wrong. Filled by the call that failed, owned by the caller; need not be initialised. */
struct hako_error {
	int code;	    /* negative errno, the call's return value */
	char message[1020]; /* one line, no newline, starts with the option or object it is about */
};

/** A virtual machine. */
struct hako_vm;

/** Why a VM stopped running, hako_vm_wait()'s answer. */
enum hako_exit {
	HAKO_EXIT_POWEROFF, /* the guest powered itself off */
	HAKO_EXIT_RESET,    /* the guest reset itself and "no-reboot" is set */
	HAKO_EXIT_DEBUG, /* the guest wrote to isa-debug-exit: status holds the process's status */
	HAKO_EXIT_PANIC, /* the guest told pvpanic of a panic and "panic=exit" is set */
	HAKO_EXIT_STOPPED, /* hako_vm_stop() was called */
	HAKO_EXIT_ERROR,   /* KVM or a device could not go on: the message says why */
};

struct hako_exit_info {
	enum hako_exit reason;
	int status; /* what a process that runs this VM should exit with */
	char message[1020];
};

/**
 * Make an empty VM. Nothing of the host is opened yet.
 * The caller owns *@vm and ends it with hako_vm_destroy().
 */
HAKO_API int hako_vm_new(struct hako_vm **vm, struct hako_error *err);

/**
 * Set one option, as on the command line without its dashes: ("memory", "512M"), ("disk",
 * "root.img,read-only=on"), ("device", "virtio-rng"). Options that add things may be set again and
 * again. -EINVAL if there is no such option or no such value; -EBUSY once the VM is created.
 */
HAKO_API int hako_vm_set(struct hako_vm *vm, const char *option, const char *value,
			 struct hako_error *err);

/**
 * Open what the options name and build the VM: guest memory, vCPUs, devices; load the kernel.
 * The guest does not run yet. After a failure the VM has ended, with HAKO_EXIT_ERROR: only hako_vm_destroy() is of use.
 */
HAKO_API int hako_vm_create(struct hako_vm *vm, struct hako_error *err);

/**
 * Have lines about what the guest does wrong, and the like, given to @log: from any of the VM's threads, one at a time, at most a hundred
 * a second. Before hako_vm_create(). @log must not call the VM.
 */
HAKO_API void hako_vm_set_log(struct hako_vm *vm, void (*log)(void *opaque, const char *line),
			      void *opaque);

/**
 * Confine the VM's threads, and the calling one, to what they need from now on: system calls, files, privileges. Between hako_vm_create() and
 * hako_vm_start(); it can not be undone. @mode: "on", or "strict", in which a system call that is not allowed ends the process. All calls of this VM
 * come from this thread from then on. Other threads of the process, and what it has opened, are not concerned. Layers that the kernel lacks are left out;
 * the log (hako_vm_set_log()) has a line for each. After a failure only hako_vm_destroy() is of use.
 */
HAKO_API int hako_vm_confine(struct hako_vm *vm, const char *mode, struct hako_error *err);

/** What can happen to a VM while it runs. */
enum hako_event {
	HAKO_EVENT_IO_ERROR, /* a disk can not go on (its werror= or rerror=): paused, until hako_vm_start() has it try again */
};

/**
 * Have @event called when something happens to the VM; @message says what. From one of the VM's threads. Before hako_vm_create().
 * @event must not call the VM.
 */
HAKO_API void hako_vm_set_event(struct hako_vm *vm,
				void (*event)(void *opaque, enum hako_event event,
					      const char *message),
				void *opaque);

/** Let the guest run, for the first time, after hako_vm_pause(), or after HAKO_EVENT_IO_ERROR. */
HAKO_API int hako_vm_start(struct hako_vm *vm, struct hako_error *err);

/** Stop vCPUs and I/O; when this returns nothing of the VM is in flight. */
HAKO_API int hako_vm_pause(struct hako_vm *vm, struct hako_error *err);

/** Press the reset button. */
HAKO_API int hako_vm_reset(struct hako_vm *vm, struct hako_error *err);

/** Press the power button: the guest is asked by ACPI to shut down. */
HAKO_API int hako_vm_powerdown(struct hako_vm *vm, struct hako_error *err);

/** Pull the plug: the VM ends now, with HAKO_EXIT_STOPPED. */
HAKO_API int hako_vm_stop(struct hako_vm *vm, struct hako_error *err);

/**
 * Wait until the VM has ended. @timeout_ms < 0 waits for ever; -ETIMEDOUT if it still runs then.
 */
HAKO_API int hako_vm_wait(struct hako_vm *vm, int timeout_ms, struct hako_exit_info *info,
			  struct hako_error *err);

/** A descriptor that polls readable once the VM has ended; the VM's, not to be read or closed. -1 before hako_vm_create(). */
HAKO_API int hako_vm_end_fd(struct hako_vm *vm);

/**
 * A property of the VM as it runs, for the user: "status" (QEMU's words: "prelaunch", "running", "paused", "io-error", "shutdown"); "console" (such as "/dev/pts/3" of --console pty); "terminal" ("raw" or
 * "signals": what a console on standard input wants the terminal to be). NULL if it has none. The VM's.
 */
HAKO_API const char *hako_vm_get(struct hako_vm *vm, const char *property);

/** End the VM if it still runs, and free all it has. NULL is allowed. */
HAKO_API void hako_vm_destroy(struct hako_vm *vm);

/** The library's version, such as "0.1.0". */
HAKO_API const char *hako_version(void);

#ifdef __cplusplus
}
#endif

#endif
