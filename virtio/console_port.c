/* SPDX-License-Identifier: GPL-2.0-only */
/* Ports of virtio-serial: virtconsole, which the guest has as a terminal (hvc0), and virtserialport (a file in /dev/virtio-ports). */
#include "console.h"

#include "vmm/vm.h"

#define NR_AUTO UINT32_MAX

static size_t port_can_receive(void *client)
{
	return virtio_serial_can_receive(client);
}

static void port_receive(void *client, const uint8_t *buf, size_t len)
{
	virtio_serial_receive(client, buf, len);
}

static void port_writable(void *client)
{
	virtio_serial_writable(client);
}

static void port_connected(void *client, bool open)
{
	struct console_port *port = client;

	/* A console is always there: what nobody reads is lost, as on a serial line. */
	if (port->is_console)
		return;
	port->host_open = open;
	virtio_serial_host_open(port);
}

static const struct chardev_client_ops port_client_ops = {
	.can_receive = port_can_receive,
	.receive = port_receive,
	.writable = port_writable,
	.connected = port_connected,
};

/* "bus": the id of a virtio-serial device, or as QEMU names it "ID.0". */
static bool bus_is(const struct object *obj, const char *bus)
{
	size_t len = obj->id ? strlen(obj->id) : 0;

	return len && !strncmp(bus, obj->id, len) && (!bus[len] || !strcmp(bus + len, ".0"));
}

/* The device to plug into: the named one, or the latest. */
static struct virtio_serial *find_serial(const struct console_port *port, struct hako_error *err)
{
	struct virtio_serial *found = NULL;
	struct object *obj;

	list_for_each(obj, &port->obj.vm->objects[CLASS_DEVICE], link) {
		struct virtio_serial *s = virtio_serial_of(obj);

		if (s && (!port->bus || bus_is(obj, port->bus)))
			found = s;
	}
	if (found)
		return found;
	if (port->bus)
		error_set(err, -ENODEV, "bus=%s: there is no virtio-serial of that id", port->bus);
	else
		error_set(err, -ENODEV, "a virtio-serial device is needed before it");
	return NULL;
}

/* Port 0 is for a console: drivers without MULTIPORT know no other. */
static int choose_nr(struct console_port *port, const struct virtio_serial *s,
		     struct hako_error *err)
{
	uint32_t first = port->is_console ? 0 : 1, nr = port->nr;

	if (nr == NR_AUTO) {
		for (nr = first; nr < s->max_ports && s->port[nr];)
			nr++;
		if (nr >= s->max_ports)
			return error_set(err, -ENOSPC, "nr: all %u ports are taken", s->max_ports);
	} else if (nr >= s->max_ports) {
		return error_set(err, -EINVAL, "nr=%u: the device has ports 0 to %u (max_ports)",
				 nr, s->max_ports - 1);
	} else if (nr < first) {
		return error_set(err, -EINVAL, "nr=0: is for a virtconsole");
	} else if (s->port[nr]) {
		return error_set(err, -EBUSY, "nr=%u: is taken", nr);
	}
	port->nr = nr;
	return 0;
}

struct plug {
	struct virtio_serial *s;
	struct console_port *port;
	struct hako_error *err;
	int ret;
};

static void plug(void *arg)
{
	struct plug *p = arg;

	p->ret = choose_nr(p->port, p->s, p->err);
	if (!p->ret)
		virtio_serial_plug(p->s, p->port);
}

static void unplug(void *arg)
{
	struct console_port *port = arg;

	if (port->serial)
		virtio_serial_unplug(port->serial, port);
}

static int port_create(struct console_port *port, struct hako_error *err)
{
	struct vm *vm = port->obj.vm;
	struct plug p = {find_serial(port, err), port, err, 0};
	int ret;

	if (!p.s)
		return -ENODEV;
	port->host_open = port->is_console;
	if (port->chardev) {
		ret = chardev_take(vm, port->chardev, &port_client_ops, port, &port->chr, err);
		if (ret)
			return ret;
	}
	loop_call(vm->io_loop, plug, &p);
	if (p.ret)
		chardev_release(port->chr);
	return p.ret;
}

static void port_destroy(struct object *obj)
{
	struct console_port *port = container_of(obj, struct console_port, obj);

	loop_call(obj->vm->io_loop, unplug, port);
	chardev_release(port->chr);
}

static int console_create(struct object *obj, struct hako_error *err)
{
	struct console_port *port = container_of(obj, struct console_port, obj);

	port->is_console = true;
	return port_create(port, err);
}

static int serialport_create(struct object *obj, struct hako_error *err)
{
	return port_create(container_of(obj, struct console_port, obj), err);
}

static const struct option port_options[] = {
	OPT_STRING("chardev", struct console_port, chardev, NULL, "host side, by its id"),
	OPT_STRING("name", struct console_port, name, NULL,
		   "what the guest calls it, in /dev/virtio-ports"),
	OPT_UINT("nr", struct console_port, nr, "4294967295", 0, UINT32_MAX,
		 "number of the port; default: the first that is free"),
	OPT_STRING("bus", struct console_port, bus, NULL,
		   "virtio-serial device to plug into; default: the latest"),
	OPT_END,
};

static const struct class console_class = {
	.name = "virtconsole",
	.help = "console on a virtio-serial device",
	.kind = CLASS_DEVICE,
	.size = sizeof(struct console_port),
	.options = port_options,
	.create = console_create,
	.destroy = port_destroy,
};
HAKO_CLASS(console_class);

static const struct class serialport_class = {
	.name = "virtserialport",
	.help = "port on a virtio-serial device",
	.kind = CLASS_DEVICE,
	.size = sizeof(struct console_port),
	.options = port_options,
	.create = serialport_create,
	.destroy = port_destroy,
};
HAKO_CLASS(serialport_class);
