/* SPDX-License-Identifier: GPL-2.0-only */
/* What virtio-serial (console.c) and its ports (console_port.c) share. All of it is touched in the VM's io_loop only, unless noted. */
#ifndef VIRTIO_CONSOLE_H
#define VIRTIO_CONSOLE_H

#include "devices/char/char.h"
#include "virtio.h"

#define CONSOLE_MAX_PORTS (VIRTIO_MAX_QUEUES / 2 - 1) /* two queues each, and two for control */

struct console_port {
	struct object obj;
	/* Options. Constant. */
	char *bus, *chardev, *name;
	uint32_t nr;

	bool is_console;
	struct virtio_serial *serial;
	struct chardev *chr; /* NULL: output is lost, input never comes */
	bool host_open;	     /* somebody is at the other end */
};

struct virtio_serial {
	struct virtio_device vdev;
	uint32_t max_ports; /* option */

	struct console_port *port[CONSOLE_MAX_PORTS];
	struct loop_msg again; /* ports that have more to send than one turn allows */
	uint32_t again_ports;

	/* State. */
	uint8_t guest_ready;		       /* the driver takes control messages */
	uint8_t guest_open[CONSOLE_MAX_PORTS]; /* somebody in the guest has the port open */
	uint8_t pending[CONSOLE_MAX_PORTS];    /* control messages that wait for a buffer */
	uint32_t sent[CONSOLE_MAX_PORTS]; /* how much of the next chain the backend has already */
};

/** Is @obj a virtio-serial device? Any thread. */
struct virtio_serial *virtio_serial_of(struct object *obj);

/** Plug a port in at port->nr, which is free; and pull it out again. */
void virtio_serial_plug(struct virtio_serial *s, struct console_port *port);
void virtio_serial_unplug(struct virtio_serial *s, struct console_port *port);

/** The backend takes output again. */
void virtio_serial_writable(struct console_port *port);
/** How much input does the guest take, and here it is. */
size_t virtio_serial_can_receive(struct console_port *port);
void virtio_serial_receive(struct console_port *port, const uint8_t *buf, size_t len);
/** port->host_open has changed. */
void virtio_serial_host_open(struct console_port *port);

#endif
