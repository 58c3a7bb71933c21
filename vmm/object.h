/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Objects and classes. Whatever can be configured is an object of a class: a board, a device, a disk node, the host side of
 * a network card or a console. A class registers itself with HAKO_CLASS() in its own file; the core knows none by name.
 */
#ifndef VMM_OBJECT_H
#define VMM_OBJECT_H

#include "option.h"
#include "sandbox.h"
#include "state.h"

struct vm;
struct object;

enum class_kind {
	CLASS_MACHINE,	/* boards */
	CLASS_DEVICE,	/* what the guest sees */
	CLASS_BLOCKDEV, /* disk nodes, as QEMU's -blockdev */
	CLASS_NETDEV,	/* host sides of network cards, as QEMU's -netdev */
	CLASS_CHARDEV,	/* host sides of consoles, as QEMU's -chardev */
	CLASS_FSDEV,	/* shared directories, as QEMU's -fsdev */
	CLASS_OBJECT,	/* what these share, as QEMU's -object */
	CLASS_KINDS,
};

enum device_bus {
	BUS_NONE,	 /* backends, boards */
	BUS_SYSTEM,	 /* at fixed ports or addresses */
	BUS_PCI,	 /* a PCI function: the object starts with struct pci_device */
	BUS_VIRTIO_PCI,	 /* a virtio device over PCI: the object starts with struct virtio_device */
	BUS_VIRTIO_MMIO, /* the same over MMIO */
};

struct class
{
	const char *name;  /* QEMU's name, where it has one */
	const char *alias; /* a second name, or NULL */
	const char *help;  /* one line */
	enum class_kind kind;
	enum device_bus bus;
	size_t size;   /* of the object, which starts with struct object */
	bool internal; /* made by boards only, not by the user */
	bool late;     /* of CLASS_OBJECT: made after the networks and devices, not before them */
	const struct option *options;	  /* NULL: none */
	const struct option *bus_options; /* of all of a bus, of all disk nodes; or NULL */
	const struct state_table *state;  /* NULL: nothing survives */
	const void *ops;		  /* the kind's operations: struct chardev_ops … */

	/* The options are set; open, allocate, register. On failure nothing is left behind: destroy is not called. */
	int (*create)(struct object *obj, struct hako_error *err);
	/* Undo create. vCPUs and loops do not run any more, or the object has been quiesced and unplugged. */
	void (*destroy)(struct object *obj);
	/* To the state after power-on. vCPUs are paused, loops drained. */
	void (*reset)(struct object *obj);
	/* Pause: when it returns nothing of this object is in flight. vCPUs are paused. Any thread that is not a loop. */
	void (*pause)(struct object *obj);
	void (*resume)(struct object *obj);
	/* What it needs when threads are confined (sandbox.h): bits of enum sandbox_need. */
	unsigned int needs;
	/* The same, where it depends on the options; and the last chance to open and load things. Not running. NULL: nothing. */
	int (*confine)(struct object *obj, struct sandbox *sb, struct hako_error *err);
};

/* First member of every object. */
struct object {
	const struct class *class;
	char *id; /* unique in its kind; NULL if the user gave none */
	struct vm *vm;
	struct list link; /* in vm->objects[kind], in order of creation */
};

/* Registration: a pointer in a section of constants; the linker makes the array. */
#define HAKO_CLASS(sym)                            \
	static const struct class *const sym##_ptr \
		__attribute__((used, section("hako_classes"))) = &(sym)

extern const struct class *const __start_hako_classes[] __attribute__((visibility("hidden")));
extern const struct class *const __stop_hako_classes[] __attribute__((visibility("hidden")));

#define class_for_each(pos)                                                                    \
	for (const struct class *const *pos = __start_hako_classes; pos < __stop_hako_classes; \
	     pos++)

/** The class of that name or alias, or NULL. */
const struct class *class_find(enum class_kind kind, const char *name);

/** As class_find(), with an error that names the nearest. */
int class_get(enum class_kind kind, const char *name, const struct class **cls,
	      struct hako_error *err);

/**
 * Make an object: allocate, defaults, @kv (takes "id" and all of the class's options; what is left over is an error), create,
 * add to the VM's list. @obj may be NULL if the caller needs no pointer. The VM owns it.
 */
int object_new(struct vm *vm, const struct class *cls, struct keyvals *kv, struct object **obj,
	       struct hako_error *err);

/** Destroy and free one object. */
void object_destroy(struct object *obj);

/** The value of a number option of @obj, 0 if its class has no such option. */
uint64_t object_get_uint(const struct object *obj, const char *option);

/** The VM's object of that kind and id, or NULL. */
struct object *object_find(struct vm *vm, enum class_kind kind, const char *id);

#endif
