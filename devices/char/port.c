/* SPDX-License-Identifier: GPL-2.0-only */
/* struct char_port: a line between vCPU threads and a backend in the loop. */
#include "devices/char/char.h"

#include "vmm/vm.h"

/*
 * The first byte after a silence goes out at once. Then the line is looked at again after this time only, so that a guest that prints
 * byte by byte costs one wake-up and one write(2) for many bytes.
 */
#define OUT_INTERVAL_NS 1000000ull

/* Write until all is written or the backend takes no more; true if anything was. */
static bool flush(struct char_port *port, bool *blocked)
{
	bool any = false;

	*blocked = false;
	for (;;) {
		uint32_t head, len;
		size_t n;

		pthread_mutex_lock(&port->lock);
		head = port->out_head;
		len = MIN(port->out_len, CHAR_PORT_SIZE - head);
		pthread_mutex_unlock(&port->lock);
		if (!len)
			return any;
		/* Only the loop takes bytes out: these stay where they are without the lock. */
		n = port->chr->ops->write(port->chr, port->out + head, len);
		if (n) {
			any = true;
			pthread_mutex_lock(&port->lock);
			port->out_head = (head + n) % CHAR_PORT_SIZE;
			port->out_len -= n;
			pthread_mutex_unlock(&port->lock);
		}
		if (n < len) {
			*blocked = true;
			return any;
		}
	}
}

static void out_run(struct char_port *port)
{
	bool any, blocked, tell, again;

	if (port->paused)
		return;
	any = flush(port, &blocked);
	pthread_mutex_lock(&port->lock);
	/* If it is blocked, writable() comes; if nothing was there, the next byte posts the message. */
	again = !blocked && (any || port->out_len);
	port->out_armed = blocked || again;
	tell = port->out_stalled && port->out_len <= CHAR_PORT_SIZE / 2;
	if (tell)
		port->out_stalled = false;
	pthread_mutex_unlock(&port->lock);
	if (again)
		loop_timer_set(port->loop, &port->out_timer, clock_now() + OUT_INTERVAL_NS);
	if (tell)
		port->changed(port->opaque);
}

static void out_msg(struct loop_msg *msg)
{
	out_run(container_of(msg, struct char_port, out_msg));
}

static void out_timer(struct loop_timer *timer)
{
	out_run(container_of(timer, struct char_port, out_timer));
}

static void in_msg(struct loop_msg *msg)
{
	struct char_port *port = container_of(msg, struct char_port, in_msg);

	if (!port->paused && port->chr->ops->accept_input)
		port->chr->ops->accept_input(port->chr);
}

static size_t port_can_receive(void *client)
{
	struct char_port *port = client;
	size_t room;

	pthread_mutex_lock(&port->lock);
	room = port->paused ? 0 : CHAR_PORT_SIZE - port->in_len;
	if (!room)
		port->in_stalled = true;
	pthread_mutex_unlock(&port->lock);
	return room;
}

static void port_receive(void *client, const uint8_t *buf, size_t len)
{
	struct char_port *port = client;

	pthread_mutex_lock(&port->lock);
	for (size_t i = 0; i < len && port->in_len < CHAR_PORT_SIZE; i++)
		port->in[(port->in_head + port->in_len++) % CHAR_PORT_SIZE] = buf[i];
	pthread_mutex_unlock(&port->lock);
	port->changed(port->opaque);
}

static void port_writable(void *client)
{
	out_run(client);
}

static const struct chardev_client_ops port_client_ops = {
	.can_receive = port_can_receive,
	.receive = port_receive,
	.writable = port_writable,
};

int char_port_init(struct char_port *port, struct vm *vm, const char *chardev_id,
		   void (*changed)(void *opaque), void *opaque, struct hako_error *err)
{
	int ret;

	memset(port, 0, sizeof(*port));
	port->loop = vm->io_loop;
	port->changed = changed;
	port->opaque = opaque;
	port->out_msg.fn = out_msg;
	port->in_msg.fn = in_msg;
	port->out_timer.fn = out_timer;
	pthread_mutex_init(&port->lock, NULL);
	if (!chardev_id)
		return 0;
	ret = chardev_take(vm, chardev_id, &port_client_ops, port, &port->chr, err);
	if (ret)
		pthread_mutex_destroy(&port->lock);
	return ret;
}

void char_port_drain(struct char_port *port)
{
	bool blocked;

	if (port->chr && !port->paused)
		flush(port, &blocked);
}

static void pause_call(void *arg)
{
	struct char_port *port = arg;

	char_port_drain(port);
	port->paused = true;
	loop_timer_cancel(&port->out_timer);
}

void char_port_pause(struct char_port *port)
{
	if (port->chr)
		loop_call(port->loop, pause_call, port);
}

static void resume_call(void *arg)
{
	struct char_port *port = arg;

	port->paused = false;
	out_run(port);
	if (port->chr->ops->accept_input)
		port->chr->ops->accept_input(port->chr);
	/* It may have been stalled by buffers that a snapshot has brought. */
	port->changed(port->opaque);
}

void char_port_resume(struct char_port *port)
{
	if (port->chr)
		loop_call(port->loop, resume_call, port);
}

void char_port_free(struct char_port *port)
{
	/* Messages that were posted before this call have run when it returns, and nobody posts more. */
	char_port_pause(port);
	chardev_release(port->chr);
	port->chr = NULL;
	pthread_mutex_destroy(&port->lock);
}

bool char_port_put(struct char_port *port, uint8_t byte)
{
	bool post;

	if (!port->chr)
		return true;
	pthread_mutex_lock(&port->lock);
	if (port->out_len == CHAR_PORT_SIZE) {
		port->out_stalled = true;
		pthread_mutex_unlock(&port->lock);
		return false;
	}
	port->out[(port->out_head + port->out_len++) % CHAR_PORT_SIZE] = byte;
	post = !port->out_armed || port->out_len == CHAR_PORT_SIZE / 2;
	port->out_armed = true;
	pthread_mutex_unlock(&port->lock);
	if (post)
		loop_post(port->loop, &port->out_msg);
	return true;
}

bool char_port_full(struct char_port *port)
{
	bool full;

	pthread_mutex_lock(&port->lock);
	full = port->out_len == CHAR_PORT_SIZE;
	pthread_mutex_unlock(&port->lock);
	return full;
}

int char_port_get(struct char_port *port)
{
	bool post = false;
	int byte = -1;

	pthread_mutex_lock(&port->lock);
	if (port->in_len) {
		byte = port->in[port->in_head];
		port->in_head = (port->in_head + 1) % CHAR_PORT_SIZE;
		port->in_len--;
		post = port->in_stalled && port->in_len <= CHAR_PORT_SIZE / 2;
		if (post)
			port->in_stalled = false;
	}
	pthread_mutex_unlock(&port->lock);
	if (post)
		loop_post(port->loop, &port->in_msg);
	return byte;
}

bool char_port_has_input(struct char_port *port)
{
	bool has;

	pthread_mutex_lock(&port->lock);
	has = port->in_len > 0;
	pthread_mutex_unlock(&port->lock);
	return has;
}

static int port_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct char_port *port = obj;

	if (port->out_head >= CHAR_PORT_SIZE || port->out_len > CHAR_PORT_SIZE ||
	    port->in_head >= CHAR_PORT_SIZE || port->in_len > CHAR_PORT_SIZE) {
		port->out_head = port->out_len = port->in_head = port->in_len = 0;
		return error_set(err, -EINVAL, "character buffers: bad positions");
	}
	if (!port->chr) /* output goes nowhere here */
		port->out_len = 0;
	return 0;
}

static const struct state_field port_fields[] = {
	STATE_FIELD_BYTES(struct char_port, out),
	STATE_FIELD_UINT(struct char_port, out_head),
	STATE_FIELD_UINT(struct char_port, out_len),
	STATE_FIELD_BYTES(struct char_port, in),
	STATE_FIELD_UINT(struct char_port, in_head),
	STATE_FIELD_UINT(struct char_port, in_len),
	STATE_END,
};

const struct state_table char_port_state = {
	.name = "char-port",
	.version = 1,
	.min_version = 1,
	.fields = port_fields,
	.post_load = port_post_load,
};
