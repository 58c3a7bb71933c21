/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-serial (virtio 1.2, section 5.3): the queues and the control messages. A port's data goes straight between guest
 * buffers and its backend; nothing is kept here: what a backend does not take stays in the ring, and input that the guest
 * has no buffers for stays with the backend.
 */
#include "console.h"

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "vmm/vm.h"

#define QUEUE_SIZE   128
#define MAX_SEGMENTS QUEUE_SIZE
#define CONTROL_RX   2
#define CONTROL_TX   3
/* So much a port sends in one turn of the loop, at most: others have theirs in between. */
#define TURN_BYTES   65536u

/* Control messages that wait for the driver's buffers, in the order in which they are sent. */
enum {
	PENDING_REMOVE = BIT(0),
	PENDING_ADD = BIT(1),
	PENDING_CONSOLE = BIT(2),
	PENDING_NAME = BIT(3),
	PENDING_OPEN = BIT(4),
	PENDING_ALL = BIT(5) - 1,
};

static const uint8_t pending_event[] = {
	VIRTIO_CONSOLE_PORT_REMOVE, VIRTIO_CONSOLE_PORT_ADD,  VIRTIO_CONSOLE_CONSOLE_PORT,
	VIRTIO_CONSOLE_PORT_NAME,   VIRTIO_CONSOLE_PORT_OPEN,
};

static struct virtio_serial *to_serial(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_serial, vdev);
}

static bool multiport(const struct virtio_serial *s)
{
	return virtio_has_feature(&s->vdev, VIRTIO_CONSOLE_F_MULTIPORT);
}

/* 5.3.2: queues 0 and 1 are port 0's, 2 and 3 for control, 4 and 5 port 1's, and so on. */
static struct virtqueue *rx_queue(struct virtio_serial *s, uint32_t nr)
{
	return &s->vdev.vq[nr ? 2 * nr + 2 : 0];
}

static struct virtqueue *tx_queue(struct virtio_serial *s, uint32_t nr)
{
	return rx_queue(s, nr) + 1;
}

static uint32_t port_of_queue(const struct virtqueue *vq)
{
	return vq->index < 2 ? 0 : (vq->index - 2) / 2;
}

/* --- output: guest to host --------------------------------------------------------------------- */

/* Give the chain's bytes from @offset on to the backend; how many it has taken, @max at most. */
static size_t write_chain(struct console_port *port, struct iovec *iov, unsigned int n,
			  size_t offset, size_t max)
{
	size_t done = 0;

	n = iov_skip(&iov, n, offset);
	for (unsigned int i = 0; i < n && done < max; i++) {
		size_t len = MIN(iov[i].iov_len, max - done);
		size_t taken = port->chr->ops->write(port->chr, iov[i].iov_base, len);

		done += taken;
		if (taken < len)
			break;
	}
	return done;
}

static void handle_tx(struct virtio_serial *s, uint32_t nr)
{
	struct virtqueue *vq = tx_queue(s, nr);
	struct console_port *port = s->port[nr];
	struct iovec iov[MAX_SEGMENTS];
	struct virtq_chain chain;
	size_t left = TURN_BYTES;

	while (virtq_pop(vq, &chain, iov, MAX_SEGMENTS) == 1) {
		/* The driver may have changed the chain since: it only fools itself. */
		uint32_t offset = MIN(s->sent[nr], chain.out_len);
		size_t rest = chain.out_len - offset, max = MIN(rest, left), n;

		if (!port || !port->chr) {
			s->sent[nr] = 0;
			virtq_push(vq, chain.head, 0);
			continue;
		}
		n = write_chain(port, iov, chain.nout, offset, max);
		left -= n;
		if (n == rest) {
			s->sent[nr] = 0;
			virtq_push(vq, chain.head, 0);
			continue;
		}
		s->sent[nr] = offset + n;
		virtq_unpop(vq, &chain);
		/* The turn is over; otherwise the backend is full, and writable() comes. */
		if (n == max) {
			s->again_ports |= BIT(nr);
			loop_post(vq->loop, &s->again);
		}
		return;
	}
}

static void again(struct loop_msg *msg)
{
	struct virtio_serial *s = container_of(msg, struct virtio_serial, again);
	uint32_t ports = s->again_ports;

	s->again_ports = 0;
	for (uint32_t nr = 0; nr < s->max_ports; nr++)
		if (ports & BIT(nr))
			handle_tx(s, nr);
}

void virtio_serial_writable(struct console_port *port)
{
	if (port->serial)
		handle_tx(port->serial, port->nr);
}

/* --- input: host to guest ---------------------------------------------------------------------- */

/* The next chain with room; those without are given back. */
static bool pop_rx(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov)
{
	while (virtq_pop(vq, chain, iov, MAX_SEGMENTS) == 1) {
		if (chain->in_len)
			return true;
		virtq_push(vq, chain->head, 0);
	}
	return false;
}

size_t virtio_serial_can_receive(struct console_port *port)
{
	struct virtio_serial *s = port->serial;
	struct iovec iov[MAX_SEGMENTS];
	struct virtq_chain chain;

	if (!s || !s->guest_open[port->nr] || !pop_rx(rx_queue(s, port->nr), &chain, iov))
		return 0;
	virtq_unpop(rx_queue(s, port->nr), &chain);
	return chain.in_len;
}

void virtio_serial_receive(struct console_port *port, const uint8_t *buf, size_t len)
{
	struct virtqueue *vq = rx_queue(port->serial, port->nr);
	struct iovec iov[MAX_SEGMENTS];
	struct virtq_chain chain;

	while (len && pop_rx(vq, &chain, iov)) {
		size_t n = iov_write(iov + chain.nout, chain.nin, 0, buf, len);

		virtq_push(vq, chain.head, n);
		buf += n;
		len -= n;
	}
}

static void accept_input(struct virtio_serial *s, uint32_t nr)
{
	struct console_port *port = s->port[nr];

	if (port && port->chr && port->chr->ops->accept_input)
		port->chr->ops->accept_input(port->chr);
}

/* --- control messages (5.3.6.2) ---------------------------------------------------------------- */

/* One message into the driver's next control buffer; false: there is none. */
static bool send_control(struct virtio_serial *s, uint32_t nr, unsigned int bit)
{
	struct virtqueue *vq = &s->vdev.vq[CONTROL_RX];
	struct console_port *port = s->port[nr];
	uint16_t event = pending_event[bit], value = 1;
	struct virtio_console_control msg = {htole32(nr), htole16(event), 0};
	struct iovec iov[MAX_SEGMENTS];
	struct virtq_chain chain;
	size_t n;

	if (!pop_rx(vq, &chain, iov))
		return false;
	if (event == VIRTIO_CONSOLE_PORT_OPEN)
		value = port && port->host_open;
	msg.value = htole16(value);
	n = iov_write(iov + chain.nout, chain.nin, 0, &msg, sizeof(msg));
	if (event == VIRTIO_CONSOLE_PORT_NAME && port && port->name)
		n += iov_write(iov + chain.nout, chain.nin, n, port->name, strlen(port->name));
	virtq_push(vq, chain.head, n);
	return true;
}

static void send_pending(struct virtio_serial *s)
{
	if (!s->guest_ready || !multiport(s))
		return;
	for (uint32_t nr = 0; nr < s->max_ports; nr++)
		for (unsigned int bit = 0; s->pending[nr] >> bit; bit++) {
			if (!(s->pending[nr] & BIT(bit)))
				continue;
			if (!send_control(s, nr, bit))
				return;
			s->pending[nr] &= ~BIT(bit);
		}
}

static void device_ready(struct virtio_serial *s, bool ready)
{
	s->guest_ready = ready;
	for (uint32_t nr = 0; nr < s->max_ports; nr++) {
		s->guest_open[nr] = false;
		s->pending[nr] = ready && s->port[nr] ? PENDING_ADD : 0;
	}
}

static void port_ready(struct virtio_serial *s, struct console_port *port)
{
	if (port->is_console)
		s->pending[port->nr] |= PENDING_CONSOLE;
	if (port->name)
		s->pending[port->nr] |= PENDING_NAME;
	if (port->host_open)
		s->pending[port->nr] |= PENDING_OPEN;
}

static void receive_control(struct virtio_serial *s, const struct virtio_console_control *msg)
{
	uint32_t id = le32toh(msg->id);
	uint16_t event = le16toh(msg->event);
	bool value = msg->value;

	if (event == VIRTIO_CONSOLE_DEVICE_READY) {
		device_ready(s, value);
		return;
	}
	if (id >= s->max_ports || !s->port[id])
		return;
	if (event == VIRTIO_CONSOLE_PORT_READY && value) {
		port_ready(s, s->port[id]);
	} else if (event == VIRTIO_CONSOLE_PORT_OPEN) {
		s->guest_open[id] = value;
		if (value)
			accept_input(s, id);
	}
}

static void handle_control(struct virtio_serial *s)
{
	struct virtqueue *vq = &s->vdev.vq[CONTROL_TX];
	struct virtio_console_control msg;
	struct iovec iov[MAX_SEGMENTS];
	struct virtq_chain chain;

	while (virtq_pop(vq, &chain, iov, MAX_SEGMENTS) == 1) {
		size_t n = iov_read(iov, chain.nout, 0, &msg, sizeof(msg));

		if (n == sizeof(msg) && multiport(s))
			receive_control(s, &msg);
		virtq_push(vq, chain.head, 0);
	}
	send_pending(s);
}

void virtio_serial_host_open(struct console_port *port)
{
	struct virtio_serial *s = port->serial;

	if (!s || !s->guest_ready)
		return;
	s->pending[port->nr] |= PENDING_OPEN;
	send_pending(s);
}

/* --- ports come and go ------------------------------------------------------------------------- */

void virtio_serial_plug(struct virtio_serial *s, struct console_port *port)
{
	s->port[port->nr] = port;
	port->serial = s;
	if (s->guest_ready)
		s->pending[port->nr] |= PENDING_ADD;
	send_pending(s);
}

void virtio_serial_unplug(struct virtio_serial *s, struct console_port *port)
{
	uint32_t nr = port->nr;

	s->port[nr] = NULL;
	port->serial = NULL;
	s->guest_open[nr] = false;
	s->sent[nr] = 0;
	s->pending[nr] = s->guest_ready ? PENDING_REMOVE : 0;
	send_pending(s);
}

/* --- the device -------------------------------------------------------------------------------- */

static void serial_handle(struct virtqueue *vq)
{
	struct virtio_serial *s = to_serial(vq->vdev);

	if (vq->index == CONTROL_RX)
		send_pending(s);
	else if (vq->index == CONTROL_TX)
		handle_control(s);
	else if (vq->index & 1)
		handle_tx(s, port_of_queue(vq));
	else
		accept_input(s, port_of_queue(vq));
}

static uint64_t serial_features(struct virtio_device *vdev)
{
	return BIT64(VIRTIO_CONSOLE_F_MULTIPORT);
}

static void serial_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	struct virtio_console_config config = {
		.max_nr_ports = htole32(to_serial(vdev)->max_ports),
	};

	memcpy(buf, (const uint8_t *)&config + offset, len);
}

static void start_call(void *arg)
{
	struct virtio_serial *s = arg;

	/* Without MULTIPORT the driver can not say that it has opened its only port. */
	if (!multiport(s))
		s->guest_open[0] = true;
}

static int serial_start(struct virtio_device *vdev)
{
	loop_call(vdev->obj.vm->io_loop, start_call, to_serial(vdev));
	return 0;
}

static void stop_call(void *arg)
{
	struct virtio_serial *s = arg;

	device_ready(s, false);
	s->again_ports = 0;
	memset(s->sent, 0, sizeof(s->sent));
}

static void serial_stop(struct virtio_device *vdev)
{
	loop_call(vdev->obj.vm->io_loop, stop_call, to_serial(vdev));
}

/* The chain that was sent in part is gone. */
static void reset_call(void *arg)
{
	struct virtqueue *vq = arg;
	struct virtio_serial *s = to_serial(vq->vdev);

	s->again_ports &= ~BIT(port_of_queue(vq));
	s->sent[port_of_queue(vq)] = 0;
}

static void serial_queue_reset(struct virtqueue *vq)
{
	if ((vq->index & 1) && vq->index != CONTROL_TX)
		loop_call(vq->loop, reset_call, vq);
}

static const struct virtio_ops serial_ops = {
	.name = "virtio-serial",
	.device_id = VIRTIO_ID_CONSOLE,
	.pci_class = 0x078000,
	.config_size = sizeof(struct virtio_console_config),
	.features = serial_features,
	.config_read = serial_config_read,
	.start = serial_start,
	.stop = serial_stop,
	.handle = serial_handle,
	.queue_reset = serial_queue_reset,
};

static int serial_create(struct object *obj, struct hako_error *err)
{
	struct virtio_serial *s = container_of(obj, struct virtio_serial, vdev.obj);
	int ret = virtio_device_init(&s->vdev, &serial_ops, 2 * s->max_ports + 2, QUEUE_SIZE, err);

	if (ret)
		return ret;
	s->again.fn = again;
	ret = virtio_device_attach(&s->vdev, err);
	if (ret)
		virtio_device_free(&s->vdev);
	return ret;
}

static void orphan_ports(void *arg)
{
	struct virtio_serial *s = arg;

	for (uint32_t nr = 0; nr < s->max_ports; nr++)
		if (s->port[nr])
			s->port[nr]->serial = NULL;
}

static void serial_destroy(struct object *obj)
{
	struct virtio_serial *s = container_of(obj, struct virtio_serial, vdev.obj);

	/* Ports are usually gone before. */
	loop_call(obj->vm->io_loop, orphan_ports, s);
	virtio_device_free(&s->vdev);
	/* A message that was under way has run then. */
	loop_call(obj->vm->io_loop, orphan_ports, s);
}

static int serial_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtio_serial *s = obj;

	s->guest_ready = !!s->guest_ready;
	for (uint32_t nr = 0; nr < CONSOLE_MAX_PORTS; nr++) {
		s->guest_open[nr] = !!s->guest_open[nr];
		s->pending[nr] &= PENDING_ALL;
		/* The other end may have come or gone in the meantime. */
		if (s->guest_ready && nr < s->max_ports && s->port[nr])
			s->pending[nr] |= PENDING_OPEN;
	}
	return 0;
}

static const struct state_field serial_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_serial, vdev, &virtio_device_state),
	STATE_FIELD_UINT(struct virtio_serial, guest_ready),
	STATE_FIELD_BYTES(struct virtio_serial, guest_open),
	STATE_FIELD_BYTES(struct virtio_serial, pending),
	STATE_FIELD_ARRAY(struct virtio_serial, sent),
	STATE_END,
};

static const struct state_table serial_state = {
	.name = "virtio-serial",
	.version = 1,
	.min_version = 1,
	.fields = serial_fields,
	.post_load = serial_post_load,
};

static const struct option serial_options[] = {
	OPT_UINT("max_ports", struct virtio_serial, max_ports, "31", 1, CONSOLE_MAX_PORTS,
		 "ports that it has room for"),
	OPT_END,
};

VIRTIO_CLASS(virtio_serial, "virtio-serial", "consoles and ports", struct virtio_serial,
	     serial_options, &serial_state, serial_create, serial_destroy);

struct virtio_serial *virtio_serial_of(struct object *obj)
{
	if (obj->class != &virtio_serial_pci_class && obj->class != &virtio_serial_mmio_class)
		return NULL;
	return container_of(obj, struct virtio_serial, vdev.obj);
}
