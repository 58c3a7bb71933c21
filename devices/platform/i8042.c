/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Keyboard controller (8042) with a PS/2 keyboard on which nobody types, and no mouse: what a driver needs to probe both in no time,
 * and the reset line. Port 0x92 ("fast reset" and A20) is a class of its own below. The A20 gate is always open.
 */
#include "vmm/vm.h"

#define PORT_DATA   0x60
#define PORT_STATUS 0x64

/* Status register. */
#define STATUS_OBF     0x01 /* output buffer full */
#define STATUS_SYS     0x04 /* self test passed */
#define STATUS_CMD     0x08 /* the last write was a command */
#define STATUS_KEYLOCK 0x10 /* not locked */

/* Command byte. */
#define CTR_KBD_INT	0x01
#define CTR_AUX_INT	0x02
#define CTR_SYS		0x04
#define CTR_KBD_DISABLE 0x10
#define CTR_AUX_DISABLE 0x20
#define CTR_TRANSLATE	0x40

#define KBD_ACK	   0xfa
#define KBD_RESEND 0xfe
#define QUEUE_SIZE 16

struct i8042 {
	struct object obj;
	pthread_mutex_t lock;
	struct irq_line irq;
	/* State. */
	uint8_t ctr, outport, status; /* status: STATUS_SYS and STATUS_CMD */
	uint8_t command;	      /* that waits for its parameter; 0: none */
	uint8_t kbd_command;	      /* the same of the keyboard */
	uint8_t scan_set;
	uint8_t data;			      /* output buffer */
	uint8_t full;			      /* bool */
	uint8_t queue[QUEUE_SIZE], head, len; /* the keyboard's answers behind it */
};

/* The next answer of the keyboard, if it may send and the output buffer is free. */
static void update(struct i8042 *k)
{
	if (!k->full && k->len && !(k->ctr & CTR_KBD_DISABLE)) {
		k->data = k->queue[k->head];
		k->head = (k->head + 1) % QUEUE_SIZE;
		k->len--;
		k->full = true;
	}
	irq_line_set(&k->irq, k->full && (k->ctr & CTR_KBD_INT));
}

/* The controller's own answers replace what is in the buffer and raise the interrupt too. */
static void answer(struct i8042 *k, uint8_t value)
{
	k->data = value;
	k->full = true;
}

static void kbd_send(struct i8042 *k, uint8_t value)
{
	if (k->len < QUEUE_SIZE)
		k->queue[(k->head + k->len++) % QUEUE_SIZE] = value;
}

/* --- the keyboard ------------------------------------------------------------------------------ */

static void kbd_reset(struct i8042 *k)
{
	k->head = k->len = 0;
	k->kbd_command = 0;
	k->scan_set = 2;
}

static void kbd_parameter(struct i8042 *k, uint8_t command, uint8_t value)
{
	kbd_send(k, KBD_ACK);
	if (command != 0xf0)
		return;
	if (!value)
		kbd_send(k, k->scan_set);
	else if (value <= 3)
		k->scan_set = value;
}

/* The identification goes through the controller's translation as a key would: 0x83 becomes 0x41. */
static void kbd_identify(struct i8042 *k)
{
	kbd_send(k, KBD_ACK);
	kbd_send(k, 0xab);
	kbd_send(k, k->ctr & CTR_TRANSLATE ? 0x41 : 0x83);
}

static void kbd_write(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->kbd_command;

	k->kbd_command = 0;
	if (command) {
		kbd_parameter(k, command, value);
		return;
	}
	switch (value) {
	case 0xff: /* reset: acknowledge, then the self test's success */
		kbd_reset(k);
		kbd_send(k, KBD_ACK);
		kbd_send(k, 0xaa);
		break;
	case 0xed: /* LEDs */
	case 0xf0: /* scan code set */
	case 0xf3: /* repeat rate */
		k->kbd_command = value;
		kbd_send(k, KBD_ACK);
		break;
	case 0xf2:
		kbd_identify(k);
		break;
	case 0xf6: /* defaults */
		k->scan_set = 2;
		kbd_send(k, KBD_ACK);
		break;
	case 0xf4: /* scan, or do not */
	case 0xf5:
		kbd_send(k, KBD_ACK);
		break;
	case 0xee: /* echo */
		kbd_send(k, 0xee);
		break;
	default:
		kbd_send(k, KBD_RESEND);
		break;
	}
}

/* --- the controller ---------------------------------------------------------------------------- */

static void reset_vm(struct i8042 *k)
{
	vm_request(k->obj.vm, VM_REQUEST_RESET, 0);
}

static void write_outport(struct i8042 *k, uint8_t value)
{
	k->outport = value;
	if (!(value & 1))
		reset_vm(k);
}

static void write_command(struct i8042 *k, uint8_t command)
{
	k->command = 0;
	switch (command) {
	case 0x20: /* read command byte */
		answer(k, k->ctr);
		break;
	case 0x60: /* write command byte, */
	case 0xd1: /* output port, */
	case 0xd2: /* keyboard's output buffer, */
	case 0xd3: /* mouse's output buffer, */
	case 0xd4: /* mouse: the parameter follows */
		k->command = command;
		break;
	case 0xa7:
		k->ctr |= CTR_AUX_DISABLE;
		break;
	case 0xa8:
		k->ctr &= ~CTR_AUX_DISABLE;
		break;
	case 0xa9: /* test the mouse's lines: clock stuck low, there is none */
		answer(k, 0x01);
		break;
	case 0xaa: /* self test */
		k->status |= STATUS_SYS;
		k->ctr |= CTR_SYS;
		answer(k, 0x55);
		break;
	case 0xab: /* test the keyboard's lines: good */
		answer(k, 0x00);
		break;
	case 0xad:
		k->ctr |= CTR_KBD_DISABLE;
		break;
	case 0xae:
		k->ctr &= ~CTR_KBD_DISABLE;
		break;
	case 0xc0: /* input port: not locked */
		answer(k, 0x80);
		break;
	case 0xd0:
		answer(k, k->outport);
		break;
	default:
		/* 0xf0 to 0xff pulse the output port's lines whose bit is 0; line 0 is the reset. */
		if (command >= 0xf0 && !(command & 1))
			reset_vm(k);
		break;
	}
}

static void write_data(struct i8042 *k, uint8_t value)
{
	uint8_t command = k->command;

	k->command = 0;
	switch (command) {
	case 0: /* for the keyboard; writing to it enables it */
		k->ctr &= ~CTR_KBD_DISABLE;
		kbd_write(k, value);
		break;
	case 0x60:
		k->ctr = value;
		k->status = (k->status & ~STATUS_SYS) | (value & CTR_SYS ? STATUS_SYS : 0);
		break;
	case 0xd1:
		write_outport(k, value);
		break;
	case 0xd2:
		answer(k, value);
		break;
	case 0xd3:
		/* A mouse's data would have the status bit that says so. Without it drivers see at once that there is none. */
		answer(k, value);
		break;
	default: /* 0xd4: nobody is there to answer */
		break;
	}
}

static uint64_t data_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct i8042 *k = opaque;
	uint8_t value = k->data; /* of an empty buffer: what was there last */

	k->full = false;
	/* Lower the line, so that the next byte is an edge. */
	irq_line_set(&k->irq, false);
	update(k);
	return value;
}

static void data_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct i8042 *k = opaque;

	k->status &= ~STATUS_CMD;
	write_data(k, value);
	update(k);
}

static uint64_t status_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct i8042 *k = opaque;

	return k->status | STATUS_KEYLOCK | (k->full ? STATUS_OBF : 0);
}

static void command_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct i8042 *k = opaque;

	k->status |= STATUS_CMD;
	write_command(k, value);
	update(k);
}

static const struct io_ops data_ops = {.read = data_read, .write = data_write};
static const struct io_ops status_ops = {.read = status_read, .write = command_write};

static void reset_registers(struct i8042 *k)
{
	k->ctr = CTR_KBD_INT | CTR_AUX_DISABLE | CTR_TRANSLATE;
	k->outport = 0x03; /* reset line high, A20 open */
	k->status = STATUS_CMD;
	k->command = k->data = 0;
	k->full = false;
	kbd_reset(k);
}

static void i8042_reset(struct object *obj)
{
	struct i8042 *k = container_of(obj, struct i8042, obj);

	pthread_mutex_lock(&k->lock);
	reset_registers(k);
	update(k);
	pthread_mutex_unlock(&k->lock);
}

static int i8042_create(struct object *obj, struct hako_error *err)
{
	struct i8042 *k = container_of(obj, struct i8042, obj);
	struct io_region data = {
		.name = "i8042-data",
		.base = PORT_DATA,
		.size = 1,
		.ops = &data_ops,
		.opaque = k,
		.lock = &k->lock,
	};
	struct io_region status = data;
	int ret;

	status.name = "i8042-status";
	status.base = PORT_STATUS;
	status.ops = &status_ops;
	pthread_mutex_init(&k->lock, NULL);
	irq_line_init(&k->irq, obj->vm, 1);
	reset_registers(k);
	ret = bus_add(&obj->vm->pio, &data, err);
	if (!ret) {
		ret = bus_add(&obj->vm->pio, &status, err);
		if (ret)
			bus_remove(&obj->vm->pio, PORT_DATA, k);
	}
	if (ret)
		pthread_mutex_destroy(&k->lock);
	return ret;
}

static void i8042_destroy(struct object *obj)
{
	struct i8042 *k = container_of(obj, struct i8042, obj);

	bus_remove(&obj->vm->pio, PORT_DATA, k);
	bus_remove(&obj->vm->pio, PORT_STATUS, k);
	irq_line_set(&k->irq, false);
	pthread_mutex_destroy(&k->lock);
}

static int i8042_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct i8042 *k = obj;

	k->status &= STATUS_SYS | STATUS_CMD;
	if (k->head >= QUEUE_SIZE || k->len > QUEUE_SIZE) {
		reset_registers(k);
		return error_set(err, -EINVAL, "i8042: bad queue positions");
	}
	update(k);
	return 0;
}

static const struct state_field i8042_fields[] = {
	STATE_FIELD_UINT(struct i8042, ctr),	     STATE_FIELD_UINT(struct i8042, outport),
	STATE_FIELD_UINT(struct i8042, status),	     STATE_FIELD_UINT(struct i8042, command),
	STATE_FIELD_UINT(struct i8042, kbd_command), STATE_FIELD_UINT(struct i8042, scan_set),
	STATE_FIELD_UINT(struct i8042, data),	     STATE_FIELD_UINT(struct i8042, full),
	STATE_FIELD_BYTES(struct i8042, queue),	     STATE_FIELD_UINT(struct i8042, head),
	STATE_FIELD_UINT(struct i8042, len),	     STATE_END,
};

static const struct state_table i8042_state = {
	.name = "i8042",
	.version = 1,
	.min_version = 1,
	.fields = i8042_fields,
	.post_load = i8042_post_load,
};

static const struct class i8042_class = {
	.name = "i8042",
	.help = "keyboard controller",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct i8042),
	.internal = true,
	.state = &i8042_state,
	.create = i8042_create,
	.destroy = i8042_destroy,
	.reset = i8042_reset,
};
HAKO_CLASS(i8042_class);

/* --- port 0x92 --------------------------------------------------------------------------------- */

#define PORT_92	   0x92
#define FAST_RESET 0x01
#define FAST_A20   0x02

struct port92 {
	struct object obj;
	pthread_mutex_t lock;
	uint8_t value;
};

static uint64_t port92_read(void *opaque, uint64_t offset, unsigned int size)
{
	return ((struct port92 *)opaque)->value;
}

static void port92_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct port92 *p = opaque;
	bool rises = value & ~p->value & FAST_RESET;

	p->value = value & (FAST_RESET | FAST_A20);
	if (rises)
		vm_request(p->obj.vm, VM_REQUEST_RESET, 0);
}

static const struct io_ops port92_ops = {.read = port92_read, .write = port92_write};

static void port92_reset(struct object *obj)
{
	container_of(obj, struct port92, obj)->value = FAST_A20;
}

static int port92_create(struct object *obj, struct hako_error *err)
{
	struct port92 *p = container_of(obj, struct port92, obj);
	struct io_region region = {
		.name = "port92",
		.base = PORT_92,
		.size = 1,
		.ops = &port92_ops,
		.opaque = p,
		.lock = &p->lock,
	};
	int ret;

	port92_reset(obj);
	pthread_mutex_init(&p->lock, NULL);
	ret = bus_add(&obj->vm->pio, &region, err);
	if (ret)
		pthread_mutex_destroy(&p->lock);
	return ret;
}

static void port92_destroy(struct object *obj)
{
	struct port92 *p = container_of(obj, struct port92, obj);

	bus_remove(&obj->vm->pio, PORT_92, p);
	pthread_mutex_destroy(&p->lock);
}

static const struct state_field port92_fields[] = {
	STATE_FIELD_UINT(struct port92, value),
	STATE_END,
};

static const struct state_table port92_state = {
	.name = "port92",
	.version = 1,
	.min_version = 1,
	.fields = port92_fields,
};

static const struct class port92_class = {
	.name = "port92",
	.help = "fast reset and A20 gate",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct port92),
	.internal = true,
	.state = &port92_state,
	.create = port92_create,
	.destroy = port92_destroy,
	.reset = port92_reset,
};
HAKO_CLASS(port92_class);
