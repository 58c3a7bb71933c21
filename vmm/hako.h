/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libhako: virtual machines that a program can hold.
 *
 * Calls return 0 (or what they say) or a negative errno and, if @err is not NULL, say there in one line what went
 * wrong. The library prints nothing, never exits, installs no signal handler and keeps no process-wide
 * state: any number of VMs live side by side. A VM's calls may come from any thread, and from several at once; only
 * hako_vm_destroy() must be the last.
 *
 * Functions that the library calls (events, requests of disks, registers of devices) run in the VM's own threads, which wait for
 * them. They may call what is marked "From callbacks too", and nothing else.
 *
 * Times to wait are in milliseconds; less than 0 is for ever, 0 is not at all. Structs that may grow start with their size.
 */
#ifndef HAKO_H
#define HAKO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

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
 * Set any number of options: in the words of the command line ("--machine micro --memory=64M 'my disk.img'", with quotes as a shell's),
 * or as a JSON object of them ({"machine": "micro", "device": ["virtio-rng", {"driver": "virtio-blk", "drive": "d"}]}). Errors are
 * hako_vm_set()'s; what comes before a wrong option has been set.
 */
HAKO_API int hako_vm_configure(struct hako_vm *vm, const char *text, struct hako_error *err);

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

/* --- events ---------------------------------------------------------------------------------- */

/** What can happen to a VM, each with a line of text. */
enum hako_event {
	HAKO_EVENT_IO_ERROR, /* a disk can not go on (its werror= or rerror=): paused, until hako_vm_start() has it try again */
	HAKO_EVENT_RESET,    /* the guest starts anew, because it or hako_vm_reset() wanted it so */
	HAKO_EVENT_SHUTDOWN, /* the VM has ended: hako_vm_wait() says why. The last one */
	HAKO_EVENT_PANIC,    /* the guest has told pvpanic of a panic */
	HAKO_EVENT_CONSOLE, /* a console that was read to its end has new text; the message is its id */
	HAKO_EVENT_GUEST_ERROR, /* the guest has broken a rule: a device stopped because of its driver, a triple fault … */
	HAKO_EVENT_WARNING, /* hako_vm_create() goes on, without something that an option asks for */
};

/**
 * Have @event called when something happens to the VM; @message says what. From the VM's threads, perhaps from several at once. Before
 * hako_vm_create().
 */
HAKO_API void hako_vm_set_event(struct hako_vm *vm,
				void (*event)(void *opaque, enum hako_event event,
					      const char *message),
				void *opaque);

/**
 * A descriptor that polls readable while there is an event for hako_vm_next_event(); the VM's, not to be read or closed. Events are kept from the
 * first such call on, the last 64 of them (of HAKO_EVENT_CONSOLE one for each console). The descriptor, or -ENOMEM, -EMFILE …
 */
HAKO_API int hako_vm_event_fd(struct hako_vm *vm, struct hako_error *err);

/** Take the oldest event; up to @size bytes of its message, with a zero at the end, go to @message. -EAGAIN: there is none. Never waits. From callbacks too. */
HAKO_API int hako_vm_next_event(struct hako_vm *vm, enum hako_event *event, char *message,
				size_t size);

/* --- life ------------------------------------------------------------------------------------ */

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

/* --- consoles: backends "program" (--console program, --console virtio:program, --chardev program,id=ID) --- */

/** One of them. It is the VM's and ends with it. */
struct hako_console;

/**
 * The console whose chardev is @id: "console0" for the first --console, and so on. After hako_vm_create(). -ENODEV if there is
 * none, -EINVAL if its backend is not "program".
 */
HAKO_API int hako_vm_console(struct hako_vm *vm, const char *id, struct hako_console **console,
			     struct hako_error *err);

/**
 * Read what the guest has written, at most @size bytes, and wait up to @timeout_ms for the first of them. How many there are; 0: nothing, and the
 * VM has ended; -ETIMEDOUT. From callbacks too, without waiting.
 */
HAKO_API ssize_t hako_console_read(struct hako_console *console, void *buf, size_t size,
				   int timeout_ms, struct hako_error *err);

/**
 * Write to the guest, which need not have taken it yet when this returns: 64 KiB may be on their way, and for more it waits. -ETIMEDOUT, -ESHUTDOWN (the
 * VM has ended): a part may have been written, as the message says. From callbacks too, without waiting.
 */
HAKO_API int hako_console_write(struct hako_console *console, const void *buf, size_t len,
				int timeout_ms, struct hako_error *err);

#define HAKO_EXPECT_REGEX 1u /* the pattern is a POSIX extended regular expression */

/**
 * Read up to the end of the first place where @pattern is. A regular expression is looked for in each line by itself, without the line's
 * end, as soon as that has come so far; "$" needs the whole line. Lines of more than 64 KiB are cut.
 * *@before (unless NULL) becomes what came before the match, *@match (unless NULL) the match itself: texts with a zero at the end, which the caller
 * frees with free(). -ETIMEDOUT; -ESHUTDOWN: the VM has ended without it; -EINVAL: no such expression, or an empty pattern. Then nothing has been read, *@match is
 * NULL, and *@before is all there is to read. Not from callbacks.
 */
HAKO_API int hako_console_expect(struct hako_console *console, const char *pattern,
				 unsigned int flags, int timeout_ms, char **before, char **match,
				 struct hako_error *err);

/**
 * All that the guest has ever written, whether it has been read or not, and a zero behind it: the caller frees it with free(). *@len (unless
 * NULL) becomes its length. NULL: no memory. The newest 64 MiB are kept, or the backend's option "limit". From callbacks too.
 */
HAKO_API char *hako_console_transcript(struct hako_console *console, size_t *len);

/* --- memory, and devices of the program's -------------------------------------------------------- */

/**
 * Read or write @len bytes of guest RAM at the physical address @gpa, while the guest may do so, too. -EFAULT: not all of it is RAM, and nothing was
 * copied; -EINVAL before hako_vm_create(). From callbacks too.
 */
HAKO_API int hako_vm_read_memory(struct hako_vm *vm, uint64_t gpa, void *buf, size_t len,
				 struct hako_error *err);
HAKO_API int hako_vm_write_memory(struct hako_vm *vm, uint64_t gpa, const void *buf, size_t len,
				  struct hako_error *err);

enum hako_space {
	HAKO_PORTS,
	HAKO_MMIO,
};

/** Registers that the program serves. */
struct hako_region {
	size_t size; /* sizeof(struct hako_region) */
	enum hako_space space;
	uint64_t base, length;
	/*
	 * An access of @bytes (1, 2, 4 or 8), as the guest made it, within the region. In a vCPU's thread, which waits for it; one at a time for each
	 * region. NULL: reads give all ones, writes are lost.
	 */
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned int bytes);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned int bytes);
	void *opaque;
};

/**
 * Add registers, until the VM's end. @region is copied. After hako_vm_create(), at any time. -EEXIST if there is RAM or a device there; -EINVAL if it is
 * empty, or beyond the last port or address.
 */
HAKO_API int hako_vm_add_region(struct hako_vm *vm, const struct hako_region *region,
				struct hako_error *err);

/**
 * Send a message-signalled interrupt, as a PCI function would by a write of @data to @address (0xfee00000 and so on). After
 * hako_vm_create(). -ENODEV if no local APIC took it. From callbacks too.
 */
HAKO_API int hako_vm_send_msi(struct hako_vm *vm, uint64_t address, uint32_t data,
			      struct hako_error *err);

/* --- the balloon (--balloon) ------------------------------------------------------------------ */

/** What is known of a VM's balloon. */
struct hako_balloon_info {
	size_t size;		 /* sizeof(struct hako_balloon_info), set by the caller */
	uint64_t target, actual; /* bytes of RAM that the guest is to keep, and that it has */
	uint64_t
		reported; /* bytes that it has reported to be free, and lost, so far; each time they were */
	/*
	 * The guest's statistics: how many milliseconds ago it sent them, -1: never. Then bytes, faults and allocations; UINT64_MAX: not known. The option
	 * guest-stats-polling-interval says how often they come.
	 */
	int64_t stats_age_ms;
	uint64_t swap_in, swap_out, major_faults, minor_faults, free_memory, total_memory,
		available_memory, disk_caches, hugetlb_allocations, hugetlb_failures;
};

/**
 * Ask the guest to do with @bytes of its RAM, and to give the rest back; it does so as fast and as far as it can. It stays so through resets. -ENODEV: there is no balloon;
 * -ERANGE: 0, or more than it has; -EINVAL before hako_vm_create().
 */
HAKO_API int hako_vm_balloon(struct hako_vm *vm, uint64_t bytes, struct hako_error *err);

/** How far that has come, and the guest's statistics. Errors as above. */
HAKO_API int hako_vm_balloon_info(struct hako_vm *vm, struct hako_balloon_info *info,
				  struct hako_error *err);

/* --- disks of the program's ---------------------------------------------------------------------- */

enum hako_disk_op {
	HAKO_DISK_READ,
	HAKO_DISK_WRITE,
	HAKO_DISK_FLUSH,
	HAKO_DISK_DISCARD,
	HAKO_DISK_WRITE_ZEROES,
};

/** A request. The library's, and may grow at its end; constant, until hako_disk_done(). */
struct hako_disk_request {
	enum hako_disk_op op;
	uint64_t offset, bytes; /* within the disk, bytes; 0 for a flush */
	const struct iovec *
		iov; /* where to read to or write from: @bytes in all; guest memory, most of the time */
	int niov;
};

#define HAKO_DISK_SERVE 1 /* a result: have it done in the disk's memory */

struct hako_disk {
	size_t size;	     /* sizeof(struct hako_disk) */
	const char *options; /* of the node, such as "read-only=on,discard=unmap"; or NULL */
	uint64_t length;     /* bytes, a multiple of 512 */
	/* The contents, @length bytes, the caller's, as long as the VM is there; or NULL, if @request does without. */
	void *memory;
	/*
	 * A request has come, in the thread of the disk's loop (or of hako_vm_create(), for a format on top of it). hako_disk_done() is to be called for it
	 * once, from here or later from any thread. NULL: all are served from @memory.
	 */
	void (*request)(void *opaque, struct hako_disk_request *req);
	void *opaque;
};

/**
 * Add a disk node called @id, for a device's drive=ID ("virtio-blk,drive=ID") or another node's file=ID. @disk is copied. Before hako_vm_create(), and before the
 * options of nodes that stand on it. -EINVAL for a
 * wrong length or name.
 */
HAKO_API int hako_vm_add_disk(struct hako_vm *vm, const char *id, const struct hako_disk *disk,
			      struct hako_error *err);

/**
 * Complete a request, in @delay_ms milliseconds from now: @result is 0, a negative errno that the guest gets as an I/O error, or HAKO_DISK_SERVE. @req
 * must not be used any more. A VM can be paused or destroyed only when there is no request that waits for this. From callbacks too.
 */
HAKO_API void hako_disk_done(struct hako_disk_request *req, int result, unsigned int delay_ms);

/**
 * Change the length of disk node @id, while guests use it or not, to @length bytes, a multiple of 512: an image file or what a format makes of it grows or shrinks, and
 * the guest is told. -EINVAL, -ENOENT, -EROFS, -ENOTSUP (a disk of the program's, a qcow2 image with snapshots that would shrink), or what the file says. After
 * hako_vm_create(); not from callbacks.
 */
HAKO_API int hako_vm_resize_disk(struct hako_vm *vm, const char *id, uint64_t length,
				 struct hako_error *err);

/* --- networks of the program's: backends "program" (--net program, --netdev program,id=ID) ----------- */

/** One of them. It is the VM's and ends with it. */
struct hako_nic;

/** The network whose netdev is @id: "net0" for the first --net, and so on. After hako_vm_create(). -ENODEV, -EINVAL as hako_vm_console(). */
HAKO_API int hako_vm_nic(struct hako_vm *vm, const char *id, struct hako_nic **nic,
			 struct hako_error *err);

/**
 * Send an Ethernet frame (without its checksum, 14 to 65550 bytes) to the guest. It waits in a queue of 1024 until the guest takes
 * it. -ETIMEDOUT: the queue is full; -ESHUTDOWN: the VM has ended; -EMSGSIZE. From callbacks too, without waiting.
 */
HAKO_API int hako_nic_send(struct hako_nic *nic, const void *frame, size_t len, int timeout_ms,
			   struct hako_error *err);

/**
 * Take the next frame that the guest has sent: its length; what is beyond @size is lost. The guest waits when 1024 have not been taken. 0: the VM has ended, and there is none;
 * -ETIMEDOUT. From callbacks too, without waiting.
 */
HAKO_API ssize_t hako_nic_receive(struct hako_nic *nic, void *frame, size_t size, int timeout_ms,
				  struct hako_error *err);

/* --------------------------------------------------------------------------------------------- */

/** The library's version, such as "0.1.0". */
HAKO_API const char *hako_version(void);

#ifdef __cplusplus
}
#endif

#endif
