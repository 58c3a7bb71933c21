/* SPDX-License-Identifier: GPL-2.0-only */
/* pvpanic: a port on which a guest's kernel tells of its panic (QEMU's docs/specs/pvpanic). The DSDT shows it as QEMU0001. */
#include <linux/types.h>
#include <misc/pvpanic.h>

#include "fw_cfg.h"
#include "vmm/vm.h"

#define PVPANIC_EVENTS (PVPANIC_PANICKED | PVPANIC_CRASH_LOADED)

struct pvpanic {
	struct object obj;
	uint32_t ioport;
	uint8_t events;
};

static uint64_t pvpanic_read(void *opaque, uint64_t offset, unsigned int size)
{
	return ((struct pvpanic *)opaque)->events;
}

/* A panic ends the VM or pauses it, as the user wants; a crash kernel that was loaded goes on by itself. */
static void pvpanic_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pvpanic *p = opaque;
	uint8_t event = value & p->events;

	if (value & ~(uint64_t)PVPANIC_EVENTS)
		vm_guest_error(p->obj.vm, "pvpanic: unknown event bits 0x%02x", (uint8_t)value);
	if (event & PVPANIC_PANICKED)
		vm_request(p->obj.vm, VM_REQUEST_PANIC, event);
	else if (event & PVPANIC_CRASH_LOADED)
		vm_log(p->obj.vm, "pvpanic: the guest panicked and starts its crash kernel");
}

static const struct io_ops pvpanic_ops = {pvpanic_read, pvpanic_write};

static int pvpanic_create(struct object *obj, struct hako_error *err)
{
	struct pvpanic *p = (struct pvpanic *)obj;
	const struct io_region region = {
		.name = "pvpanic",
		.base = p->ioport,
		.size = 1,
		.ops = &pvpanic_ops,
		.opaque = p,
	};
	const uint16_t port = htole16(p->ioport); /* for firmware */

	int r = bus_add(&obj->vm->pio, &region, err);

	if (r || !obj->vm->fw_cfg)
		return r;
	r = fw_cfg_add_file(obj->vm->fw_cfg, "etc/pvpanic-port", &port, sizeof(port));
	if (r) {
		bus_remove(&obj->vm->pio, p->ioport, p);
		return error_errno(err, r, "etc/pvpanic-port");
	}
	return 0;
}

static void pvpanic_destroy(struct object *obj)
{
	bus_remove(&obj->vm->pio, ((struct pvpanic *)obj)->ioport, obj);
}

static const struct option pvpanic_options[] = {
	OPT_UINT("ioport", struct pvpanic, ioport, "0x505", 0, 0xffff, "port"),
	OPT_UINT("events", struct pvpanic, events, "3", 0, 3,
		 "events that the guest is told of: 1 panicked, 2 crash kernel loaded"),
	OPT_END,
};

static const struct class pvpanic_class = {
	.name = "pvpanic",
	.help = "port on which the guest tells of a panic",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct pvpanic),
	.options = pvpanic_options,
	.create = pvpanic_create,
	.destroy = pvpanic_destroy,
};
HAKO_CLASS(pvpanic_class);
