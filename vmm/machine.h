/* SPDX-License-Identifier: GPL-2.0-only */
/* Boards: what the core and the devices ask of them. */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "object.h"

struct vm;
struct vcpu;

struct machine_ops {
	/* Lay out guest RAM of @ram_size bytes and attach it to KVM, make the interrupt controllers. Before the vCPUs. */
	int (*init)(struct vm *vm, uint64_t ram_size, struct hako_error *err);
	/* Make the devices that are soldered on. Before the user's. */
	int (*devices)(struct vm *vm, struct hako_error *err);
	/*
	 * All objects exist and are reset: load the kernel, write tables, set the vCPUs' registers. At creation (@fresh: memory is
	 * zero, no vCPU has run) and after each reset.
	 */
	int (*boot)(struct vm *vm, bool fresh, struct hako_error *err);
	/* State of the board outside objects (interrupt controllers) to power-on. */
	int (*reset)(struct vm *vm, struct hako_error *err);
	/* A free virtio-mmio window and its GSI; -ENOSPC. NULL: the board has none. */
	int (*mmio_slot)(struct vm *vm, uint64_t *base, uint32_t *gsi, struct hako_error *err);
	/* Press the power button. -EOPNOTSUPP if the board has none. */
	int (*powerdown)(struct vm *vm);
};

/* First member of every board. class.ops is its struct machine_ops. */
struct machine {
	struct object obj;
};

static inline const struct machine_ops *machine_ops(const struct machine *m)
{
	return m->obj.class->ops;
}

#endif
