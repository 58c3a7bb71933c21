/* SPDX-License-Identifier: GPL-2.0-only */
/* isa-debug-exit: a write ends the VM, with a status of the guest's choice. For tests. */
#include "vmm/vm.h"

struct debug_exit {
	struct object obj;
	uint32_t iobase, iosize;
};

static uint64_t debug_exit_read(void *opaque, uint64_t offset, unsigned int size)
{
	return 0;
}

/* Odd, so that 0 always means that the guest powered off. Eight bits is what a process's status has. */
static void debug_exit_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct debug_exit *d = opaque;

	vm_request(d->obj.vm, VM_REQUEST_DEBUG_EXIT, (uint8_t)(value << 1 | 1));
}

static const struct io_ops debug_exit_ops = {debug_exit_read, debug_exit_write};

static int debug_exit_create(struct object *obj, struct hako_error *err)
{
	struct debug_exit *d = (struct debug_exit *)obj;
	const struct io_region region = {
		.name = "isa-debug-exit",
		.base = d->iobase,
		.size = d->iosize,
		.ops = &debug_exit_ops,
		.opaque = d,
	};

	return bus_add(&obj->vm->pio, &region, err);
}

static void debug_exit_destroy(struct object *obj)
{
	bus_remove(&obj->vm->pio, ((struct debug_exit *)obj)->iobase, obj);
}

static const struct option debug_exit_options[] = {
	OPT_UINT("iobase", struct debug_exit, iobase, "0x501", 0, 0xffff, "port"),
	OPT_UINT("iosize", struct debug_exit, iosize, "2", 1, 8, "number of ports"),
	OPT_END,
};

static const struct class debug_exit_class = {
	.name = "isa-debug-exit",
	.help = "port that ends the VM with exit status (value << 1) | 1",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct debug_exit),
	.options = debug_exit_options,
	.create = debug_exit_create,
	.destroy = debug_exit_destroy,
};
HAKO_CLASS(debug_exit_class);
