/* SPDX-License-Identifier: GPL-2.0-only */
/* Network program: the other end of the cable is the program that holds the VM, by hako_nic_*(). */
#include <stdlib.h>

#include "devices/net/net.h"
#include "vmm/events.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define QUEUE	  1024
#define FRAME_MAX 65550 /* Ethernet header and 64 KiB */

struct frame {
	size_t len;
	uint8_t data[];
};

struct queue {
	struct frame *frame[QUEUE];
	unsigned int head, len;
};

struct hako_nic {
	struct netdev netdev;
	bool recv_on; /* the loop's */
	/* Under the events' lock. */
	struct queue to_guest, from_guest;
	struct loop *loop;	/* while started */
	struct loop *last_loop; /* that may still have a message */
	bool send_blocked;	/* the card waits for writable() */
	struct loop_msg msg;
};

static bool queue_put(struct queue *q, struct frame *f)
{
	if (q->len == QUEUE)
		return false;
	q->frame[(q->head + q->len++) % QUEUE] = f;
	return true;
}

static struct frame *queue_first(struct queue *q)
{
	return q->len ? q->frame[q->head] : NULL;
}

static struct frame *queue_take(struct queue *q)
{
	struct frame *f = queue_first(q);

	if (f) {
		q->head = (q->head + 1) % QUEUE;
		q->len--;
	}
	return f;
}

static void queue_free(struct queue *q)
{
	struct frame *f;

	while ((f = queue_take(q)))
		free(f);
}

static struct hako_nic *to_nic(struct netdev *net)
{
	return container_of(net, struct hako_nic, netdev);
}

static struct vm *vm_of(const struct hako_nic *n)
{
	return n->netdev.obj.vm;
}

/* --- the card's side, in its loop -------------------------------------------------------------- */

/* Have the loop look. Under the events' lock. */
static void ring(struct hako_nic *n)
{
	if (n->loop)
		loop_post(n->loop, &n->msg);
}

static void nic_msg(struct loop_msg *msg)
{
	struct hako_nic *n = container_of(msg, struct hako_nic, msg);
	struct vm *vm = vm_of(n);
	bool readable, writable;

	events_lock(vm);
	readable = n->loop && n->recv_on && n->to_guest.len;
	writable = n->loop && n->send_blocked && n->from_guest.len < QUEUE;
	if (writable)
		n->send_blocked = false;
	events_unlock(vm);
	if (readable)
		n->netdev.client_ops->readable(n->netdev.client, 0);
	if (writable)
		n->netdev.client_ops->writable(n->netdev.client, 0);
}

static int nic_start(struct netdev *net, unsigned int queue, struct loop *loop,
		     struct hako_error *err)
{
	struct hako_nic *n = to_nic(net);

	events_lock(vm_of(n));
	n->recv_on = n->send_blocked = false;
	n->loop = n->last_loop = loop;
	events_unlock(vm_of(n));
	return 0;
}

static void nic_stop(struct netdev *net, unsigned int queue)
{
	struct hako_nic *n = to_nic(net);

	events_lock(vm_of(n));
	n->loop = NULL;
	n->recv_on = n->send_blocked = false;
	events_unlock(vm_of(n));
}

static void nic_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	struct hako_nic *n = to_nic(net);

	events_lock(vm_of(n));
	n->recv_on = on;
	if (on && n->to_guest.len)
		ring(n);
	events_unlock(vm_of(n));
}

static ssize_t nic_recv(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	static const uint8_t hdr[NET_HDR_LEN] = {[10] = 1}; /* num_buffers */
	struct hako_nic *n = to_nic(net);
	struct frame *f;
	ssize_t ret;

	events_lock(vm_of(n));
	f = queue_take(&n->to_guest);
	events_wake(vm_of(n));
	events_unlock(vm_of(n));
	if (!f)
		return -EAGAIN;
	ret = NET_HDR_LEN + f->len;
	if (iov_write(iov, niov, 0, hdr, NET_HDR_LEN) < NET_HDR_LEN ||
	    iov_write(iov, niov, NET_HDR_LEN, f->data, f->len) < f->len)
		ret = -EMSGSIZE;
	free(f);
	return ret;
}

static ssize_t nic_send(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct hako_nic *n = to_nic(net);
	size_t total = 0, len;
	struct frame *f;
	bool put;

	for (int i = 0; i < niov; i++)
		total += iov[i].iov_len;
	if (total <= NET_HDR_LEN || total > NET_HDR_LEN + FRAME_MAX)
		return total <= NET_HDR_LEN ? -EINVAL : -EMSGSIZE;
	len = total - NET_HDR_LEN;
	f = malloc(sizeof(*f) + len);
	if (!f)
		return -ENOMEM;
	f->len = len;
	iov_read(iov, niov, NET_HDR_LEN, f->data, len);
	events_lock(vm_of(n));
	put = queue_put(&n->from_guest, f);
	n->send_blocked = !put;
	events_wake(vm_of(n));
	events_unlock(vm_of(n));
	if (!put)
		free(f);
	return put ? (ssize_t)total : -EAGAIN;
}

static const struct netdev_ops nic_ops = {
	.start = nic_start,
	.stop = nic_stop,
	.recv_enable = nic_recv_enable,
	.recv = nic_recv,
	.send = nic_send,
	.set_offloads = netdev_no_offloads,
};

/* --- class ------------------------------------------------------------------------------------- */

static int nic_create(struct object *obj, struct hako_error *err)
{
	struct hako_nic *n = container_of(obj, struct hako_nic, netdev.obj);

	n->msg.fn = nic_msg;
	n->netdev.ops = &nic_ops;
	n->netdev.queues = 1;
	return 0;
}

static void nic_destroy(struct object *obj)
{
	struct hako_nic *n = container_of(obj, struct hako_nic, netdev.obj);

	if (n->last_loop)
		loop_call(n->last_loop, NULL, NULL); /* behind a message that is under way */
	queue_free(&n->to_guest);
	queue_free(&n->from_guest);
}

static const struct class nic_class = {
	.name = "program",
	.help = "the program that holds the VM, by libhako's hako_nic_*()",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct hako_nic),
	.create = nic_create,
	.destroy = nic_destroy,
};
HAKO_CLASS(nic_class);

/* --- the calls --------------------------------------------------------------------------------- */

int hako_vm_nic(struct hako_vm *handle, const char *id, struct hako_nic **nic,
		struct hako_error *err)
{
	struct vm *vm = (struct vm *)handle;
	struct object *obj;

	pthread_mutex_lock(&vm->lock);
	obj = object_find(vm, CLASS_NETDEV, id);
	pthread_mutex_unlock(&vm->lock);
	if (!obj)
		return error_set(err, -ENODEV, "%s: there is no network of that id", id);
	if (obj->class != &nic_class)
		return error_set(err, -EINVAL, "%s: a network \"%s\", not \"program\"", id,
				 obj->class->name);
	*nic = container_of(obj, struct hako_nic, netdev.obj);
	return 0;
}

int hako_nic_send(struct hako_nic *n, const void *frame, size_t len, int timeout_ms,
		  struct hako_error *err)
{
	uint64_t deadline = deadline_in(timeout_ms);
	struct vm *vm = vm_of(n);
	const char *id = n->netdev.obj.id;
	struct frame *f;
	int r = 0;

	if (len < ETH_HDR || len > FRAME_MAX)
		return error_set(err, -EMSGSIZE, "%s: a frame of %zu bytes", id, len);
	f = malloc(sizeof(*f) + len);
	if (!f)
		return error_errno(err, -ENOMEM, "%s", id);
	f->len = len;
	memcpy(f->data, frame, len);
	events_lock(vm);
	while (!r && !events_ended(vm) && !queue_put(&n->to_guest, f))
		if (!events_wait(vm, deadline))
			r = error_set(err, -ETIMEDOUT, "%s: the guest takes no frames", id);
	if (!r && events_ended(vm))
		r = error_set(err, -ESHUTDOWN, "%s: the VM has ended", id);
	if (!r)
		ring(n);
	events_unlock(vm);
	if (r)
		free(f);
	return r;
}

ssize_t hako_nic_receive(struct hako_nic *n, void *buf, size_t size, int timeout_ms,
			 struct hako_error *err)
{
	uint64_t deadline = deadline_in(timeout_ms);
	struct vm *vm = vm_of(n);
	struct frame *f;
	ssize_t r = 0;

	events_lock(vm);
	while (!(f = queue_take(&n->from_guest)) && !events_ended(vm) && !r)
		if (!events_wait(vm, deadline))
			r = error_set(err, -ETIMEDOUT, "%s: the guest sends nothing",
				      n->netdev.obj.id);
	if (f && n->send_blocked)
		ring(n);
	events_unlock(vm);
	if (!f)
		return r;
	memcpy(buf, f->data, MIN(size, f->len));
	r = f->len;
	free(f);
	return r;
}
