/* SPDX-License-Identifier: GPL-2.0-only */
/* isa-debugcon: a port that writes each byte to a character backend; the debug port of SeaBIOS, OVMF and many kernels. */
#include <time.h>

#include "devices/char/char.h"
#include "vmm/vm.h"

#define FULL_TRIES   50
#define FULL_WAIT_NS 2000000

struct debugcon {
	struct object obj;
	uint32_t iobase, readback;
	char *chardev;
	struct char_port port;
};

static uint64_t debugcon_read(void *opaque, uint64_t offset, unsigned int size)
{
	return ((struct debugcon *)opaque)->readback;
}

static void drain(void *arg)
{
	char_port_drain(arg);
}

/*
 * The port has no way to say that it is busy, so the guest waits here, but not for ever: whoever reads the backend may have stopped.
 */
static void put(struct debugcon *d, uint8_t byte)
{
	for (unsigned int i = 0; i < FULL_TRIES; i++) {
		const struct timespec wait = {.tv_nsec = FULL_WAIT_NS};

		if (char_port_put(&d->port, byte))
			return;
		loop_call(d->port.loop, drain, &d->port);
		if (char_port_put(&d->port, byte))
			return;
		nanosleep(&wait, NULL);
	}
}

static void debugcon_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	for (unsigned int i = 0; i < size; i++)
		put(opaque, value >> (8 * i));
}

static const struct io_ops debugcon_ops = {debugcon_read, debugcon_write};

static void changed(void *opaque)
{
}

static int debugcon_create(struct object *obj, struct hako_error *err)
{
	struct debugcon *d = (struct debugcon *)obj;
	const struct io_region region = {
		.name = "isa-debugcon",
		.base = d->iobase,
		.size = 1,
		.ops = &debugcon_ops,
		.opaque = d,
	};
	int r = char_port_init(&d->port, obj->vm, d->chardev, changed, d, err);

	if (r)
		return r;
	r = bus_add(&obj->vm->pio, &region, err);
	if (r)
		char_port_free(&d->port);
	return r;
}

static void debugcon_destroy(struct object *obj)
{
	struct debugcon *d = (struct debugcon *)obj;

	bus_remove(&obj->vm->pio, d->iobase, d);
	char_port_free(&d->port);
}

static void debugcon_pause(struct object *obj)
{
	char_port_pause(&((struct debugcon *)obj)->port);
}

static void debugcon_resume(struct object *obj)
{
	char_port_resume(&((struct debugcon *)obj)->port);
}

static const struct state_field debugcon_fields[] = {
	STATE_FIELD_STRUCT(struct debugcon, port, &char_port_state),
	STATE_END,
};

static const struct state_table debugcon_state = {
	.name = "isa-debugcon",
	.version = 1,
	.min_version = 1,
	.fields = debugcon_fields,
};

static const struct option debugcon_options[] = {
	OPT_UINT("iobase", struct debugcon, iobase, "0xe9", 0, 0xffff, "port"),
	OPT_UINT("readback", struct debugcon, readback, "0xe9", 0, UINT32_MAX,
		 "what reading the port gives"),
	OPT_STRING("chardev", struct debugcon, chardev, NULL, "id of the character backend"),
	OPT_END,
};

static const struct class debugcon_class = {
	.name = "isa-debugcon",
	.help = "port that writes to a character backend",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct debugcon),
	.options = debugcon_options,
	.state = &debugcon_state,
	.create = debugcon_create,
	.destroy = debugcon_destroy,
	.pause = debugcon_pause,
	.resume = debugcon_resume,
};
HAKO_CLASS(debugcon_class);
