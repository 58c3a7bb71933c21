/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A VM's life: create, start, pause, resume, reset, end.
 *
 * Threads of a VM:
 *   callers     of hako.h; serialised by vm->lock
 *   control     one thread that carries out what the guest asks for (reset, power-off); it owns no device, so whoever waits for it waits
 *               for nothing that could wait for him
 *   vCPUs       one each: the guest, and the registers that must answer at once
 *   loops       vm->io_loop, and one for each --iothread: all queues, disks, connections
 *
 * Lock order: vm->lock; then a device's register lock; then leaf locks (irq, bus). A register handler (under its device's lock) may
 * loop_call() into a loop; hence a loop's callback never takes the register lock of a device whose handlers do so.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include <pthread.h>

#include "bus.h"
#include "error.h"
#include "irq.h"
#include "loop.h"
#include "memory.h"
#include "object.h"

struct kvm;
struct vcpu;
struct vcpus;
struct machine;
struct pci_bus;
struct fw_cfg;
struct vm_config;
struct block_node;
struct vm_events;
struct vm_balloon;
struct debug_points;

enum vm_state {
	VM_NEW,	    /* options are being set */
	VM_CREATED, /* built, never started */
	VM_RUNNING,
	VM_PAUSED,
	VM_ENDED,
};

/* What a guest, a device or a caller can ask the control thread for. */
enum vm_request_kind {
	VM_REQUEST_RESET = 1,
	VM_REQUEST_POWEROFF,
	VM_REQUEST_DEBUG_EXIT, /* with a status */
	VM_REQUEST_PANIC,      /* with pvpanic's event bits */
	VM_REQUEST_STOP,
	VM_REQUEST_CONTINUE, /* if the VM is paused */
	VM_REQUEST_ERROR,
};

struct vm {
	char *name;
	int fd; /* of KVM; -1 in unit tests, where KVM's part is left out */
	struct kvm *kvm;
	struct memory mem;
	struct bus pio, mmio;
	struct irq irq;

	struct list objects[CLASS_KINDS];
	struct machine *machine;
	struct pci_bus *pci;	    /* root bus, or NULL on a board without */
	struct fw_cfg *fw_cfg;	    /* or NULL */
	struct vm_balloon *balloon; /* or NULL */

	struct vcpu *vcpu;   /* array */
	struct vcpus *vcpus; /* what they share */
	unsigned int nvcpus;
	uint64_t clock;	    /* ns of kvmclock when the vCPUs stopped; under their lock */
	bool clock_stopped; /* that is to be its time when they run again */

	struct loop *io_loop; /* for all that names no iothread */
	struct list iothreads;
	enum loop_engine loop_engine;

	unsigned int block_ids;		  /* names that have been made for disk nodes */
	struct block_node *block_opening; /* that waits for one that is made for it */

	struct debug_points *debug; /* a debugger's breakpoints; NULL: there is none */

	struct vm_config *config;
	struct vm_control *control;
	struct vm_events *events;
	struct list program_disks; /* vmm/lib/disk.c */
	pthread_mutex_t lock;
	enum vm_state state;
	bool io_error; /* that is why it is paused */

	int request;	    /* atomic: enum vm_request_kind that waits to be carried out; 0: none */
	int request_status; /* what came with it */
};

/**
 * Ask the control thread. Any thread; a vCPU that asks does not enter the guest again before the request has been carried out. Of several the
 * first counts, except that STOP and ERROR replace the others.
 */
void vm_request(struct vm *vm, enum vm_request_kind kind, int status);

/** A device or vCPU can not go on: the VM ends with HAKO_EXIT_ERROR and this message. Any thread. */
void vm_fail(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * A device can not go on for the moment: have the VM paused, until the user resumes it. What waits for that is tried again when the device
 * resumes. Any thread.
 */
void vm_pause_for_error(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/**
 * The guest will soon write to the @len bytes of RAM at @gpa for the first time: have host pages there, from another thread, as soon as the VM
 * runs. A hint. While the VM is created, once memory stays what it is (memory_share()).
 */
void vm_touch_soon(struct vm *vm, uint64_t gpa, uint64_t len);

/** A line for --log: what a guest did that it should not have, and the like; bounded in rate. Any thread. */
void vm_log(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** The same for what the guest did against the rules, which is an event as well (HAKO_EVENT_GUEST_ERROR). Any thread. */
void vm_guest_error(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** Something that was asked for is there in part only: the user is told, and the VM is created all the same. While it is created. */
void vm_warn(struct vm *vm, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/** The device class @name, or the one of that name that fits the board: "virtio-blk" is virtio-blk-pci where there is PCI. */
int vm_device_class(struct vm *vm, const char *name, const struct class **cls,
		    struct hako_error *err);

/** The loop of that iothread's id, made if it is not there; the VM's io_loop for NULL. While devices are created. */
int vm_iothread(struct vm *vm, const char *id, struct loop **loop, struct hako_error *err);

/** Ring @fd when the guest writes at @addr (KVM_IOEVENTFD). @size 0: any size. @match: only if this value is written (NULL: any). */
int vm_ioeventfd(struct vm *vm, bool pio, uint64_t addr, unsigned int size, const uint64_t *match,
		 int fd, bool assign, struct hako_error *err);

/** hako_vm_confine(), for the program: it has @needs of its own (enum sandbox_need), and may remove the file @remove (unless NULL). */
int vm_confine(struct vm *vm, enum sandbox_mode mode, unsigned int needs, const char *remove,
	       struct hako_error *err);

/** For unit tests: a VM with buses, memory and an I/O loop, but without KVM: interrupts and doorbells go nowhere but to the eventfds. */
int vm_new_plain(struct vm **vm, uint64_t ram_size, struct hako_error *err);
void vm_free_plain(struct vm *vm);

#endif
