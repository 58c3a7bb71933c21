/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Split virtqueues, the device's side (virtio 1.2, section 2.7). All of it runs in the thread of the queue's loop.
 *
 * The rings lie in guest RAM, where a driver may change them at any moment: each field is read once, into a local, then checked,
 * then used. What only the device writes (used_idx) is kept here and never read back.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "queue.h"
#include "vmm/vm.h"

/* What the driver writes beside what we read: neither may be read twice nor be kept from being read. */
#define RING_READ16(x)	   le16toh(READ_ONCE(x))
#define RING_WRITE16(x, v) WRITE_ONCE(x, htole16(v))

static inline uint16_t *used_event(const struct virtqueue *vq)
{
	return &vq->avail->ring[vq->size];
}

static inline uint16_t *avail_event(const struct virtqueue *vq)
{
	return (uint16_t *)&vq->used->ring[vq->size];
}

/* --- taking ---------------------------------------------------------------------------------- */

/* How the walk of a chain stands. */
struct walk {
	struct virtqueue *vq;
	struct virtq_chain *chain;
	struct iovec *iov;
	unsigned int max, n;
	uint64_t out_len, in_len;
};

static inline void desc_read(struct vring_desc *d, const struct vring_desc *table, uint32_t i)
{
	memcpy(d, (const char *)table + i * sizeof(*d),
	       sizeof(*d));		   /* an indirect table has no alignment */
	__asm__ volatile("" ::: "memory"); /* the copy is what is used */
	d->addr = le64toh(d->addr);
	d->len = le32toh(d->len);
	d->flags = le16toh(d->flags);
	d->next = le16toh(d->next);
}

/* All of the walk's functions return NULL or what is wrong. */
static inline const char *walk_buffer(struct walk *w, const struct vring_desc *d)
{
	struct iovec *iov;
	void *p;

	if (unlikely(w->n >= w->max))
		return "too many buffers";
	if (unlikely(!d->len))
		return "empty buffer";
	p = memory_ptr(&w->vq->vdev->obj.vm->mem, d->addr, d->len);
	if (unlikely(!p))
		return "buffer outside of RAM";
	iov = &w->iov[w->n++];
	iov->iov_base = p;
	iov->iov_len = d->len;
	if (d->flags & VRING_DESC_F_WRITE) {
		w->in_len += d->len;
		w->chain->nin++;
	} else {
		if (unlikely(w->chain->nin))
			return "readable buffer behind a writable one";
		w->out_len += d->len;
		w->chain->nout++;
	}
	return NULL;
}

/* 2.7.5.3: a table of descriptors, whose chain starts at its first entry. */
static const char *walk_indirect(struct walk *w, const struct vring_desc *ref)
{
	uint32_t n = ref->len / sizeof(struct vring_desc), i = 0;
	const struct vring_desc *table;
	struct vring_desc d;
	const char *why;

	if (!virtio_has_feature(w->vq->vdev, VIRTIO_RING_F_INDIRECT_DESC))
		return "indirect table, which was not negotiated";
	if (ref->flags & VRING_DESC_F_NEXT)
		return "indirect table with a next descriptor";
	if (!n || ref->len % sizeof(struct vring_desc))
		return "indirect table of a bad size";
	table = memory_ptr(&w->vq->vdev->obj.vm->mem, ref->addr, ref->len);
	if (!table)
		return "indirect table outside of RAM";
	for (uint32_t steps = 0; steps < n; steps++) {
		desc_read(&d, table, i);
		if (unlikely(d.flags & VRING_DESC_F_INDIRECT))
			return "indirect table within an indirect table";
		why = walk_buffer(w, &d);
		if (unlikely(why))
			return why;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
		if (unlikely(i >= n))
			return "next descriptor outside of the indirect table";
	}
	return "loop in an indirect table";
}

static const char *walk_chain(struct walk *w, uint16_t head)
{
	const struct virtqueue *vq = w->vq;
	struct vring_desc d;
	const char *why;
	uint16_t i = head;

	for (uint32_t steps = 0; steps < vq->size; steps++) {
		if (unlikely(i >= vq->size))
			return "descriptor outside of the table";
		desc_read(&d, vq->desc, i);
		if (d.flags & VRING_DESC_F_INDIRECT)
			return walk_indirect(w, &d);
		why = walk_buffer(w, &d);
		if (unlikely(why))
			return why;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
	return "loop in the descriptor table";
}

/* Bring avail_shadow up to date; how many chains there are, or -EPROTO. */
static int look(struct virtqueue *vq)
{
	uint16_t n;

	/* Acquire: the entries are read after the index that covers them. */
	vq->avail_shadow = le16toh(__atomic_load_n(&vq->avail->idx, __ATOMIC_ACQUIRE));
	n = vq->avail_shadow - vq->last_avail;
	if (unlikely(n > vq->size)) {
		virtio_broken(vq->vdev, "queue %u: available index jumps from %u to %u", vq->index,
			      vq->last_avail, vq->avail_shadow);
		return -EPROTO;
	}
	return n;
}

/* Ask for a doorbell for the next chain, then look whether it has come before the driver could know. */
static int arm_and_look(struct virtqueue *vq)
{
	if (vq->event_idx)
		RING_WRITE16(*avail_event(vq), vq->last_avail);
	else
		RING_WRITE16(vq->used->flags, 0);
	/* 2.7.13.4.1's mirror image: the request for a doorbell must be visible before the index is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return look(vq);
}

static inline bool dead(const struct virtqueue *vq)
{
	return !vq->running || vq->draining || vq->served || READ_ONCE(vq->vdev->broken);
}

/* The chain at @head: check it, its buffers, and count it as in flight. */
static inline int take_chain(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain,
			     struct iovec *iov, unsigned int max)
{
	struct walk w = {.vq = vq, .chain = chain, .iov = iov, .max = max};
	const char *why;

	*chain = (struct virtq_chain){.head = head};
	why = vq->inflight < vq->size ? walk_chain(&w, head) : "more chains than the queue has";
	if (likely(!why) && unlikely(w.out_len > UINT32_MAX || w.in_len > UINT32_MAX))
		why = "more than 4 GiB";
	if (unlikely(why)) {
		virtio_broken(vq->vdev, "queue %u: chain at %u: %s", vq->index, head, why);
		return -EPROTO;
	}
	chain->out_len = w.out_len;
	chain->in_len = w.in_len;
	vq->inflight++;
	return 1;
}

int virtq_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max)
{
	uint16_t head;
	int n;

	if (unlikely(dead(vq)))
		return 0;
	if (vq->last_avail == vq->avail_shadow) {
		n = look(vq);
		if (!n && !vq->kick_disabled && !vq->polled)
			n = arm_and_look(vq);
		if (n <= 0)
			return n;
	}
	if (unlikely(!vq->budget)) {
		loop_post(vq->loop, &vq->again);
		return 0;
	}
	head = RING_READ16(vq->avail->ring[vq->last_avail & (vq->size - 1)]);
	n = take_chain(vq, head, chain, iov, max);
	if (unlikely(n < 0))
		return n;
	if (vq->kick_armed) {
		/* The loop looks for the next ones, and asks for a doorbell before it sleeps (arm_ring()). */
		vq->kick_armed = false;
		if (!vq->event_idx)
			RING_WRITE16(vq->used->flags, VRING_USED_F_NO_NOTIFY);
	}
	vq->last_avail++;
	vq->budget--;
	return 1;
}

void virtq_park(struct virtqueue *vq)
{
	vq->inflight--;
	vq->nparked++;
	virtq_check_drained(vq);
}

int virtq_unpark(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain, struct iovec *iov,
		 unsigned int max)
{
	vq->nparked--;
	return dead(vq) ? 0 : take_chain(vq, head, chain, iov, max);
}

void virtq_unpop(struct virtqueue *vq, const struct virtq_chain *chain)
{
	(void)chain;
	vq->last_avail--;
	vq->inflight--;
	vq->budget++;
	virtq_check_drained(vq);
}

bool virtq_more(struct virtqueue *vq)
{
	if (dead(vq))
		return false;
	return vq->last_avail != vq->avail_shadow || look(vq) > 0;
}

void virtq_disable_kick(struct virtqueue *vq)
{
	vq->kick_disabled = true;
	/* With EVENT_IDX the event that was asked for last has passed already or will come once more. */
	if (!dead(vq) && !vq->event_idx)
		RING_WRITE16(vq->used->flags, VRING_USED_F_NO_NOTIFY);
}

bool virtq_enable_kick(struct virtqueue *vq)
{
	vq->kick_disabled = false;
	return !dead(vq) && arm_and_look(vq) > 0;
}

/* --- returning ------------------------------------------------------------------------------- */

void virtq_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
	struct vring_used_elem *e = &vq->used->ring[vq->used_idx & (vq->size - 1)];

	vq->inflight--;
	if (likely(!READ_ONCE(vq->vdev->broken))) {
		e->id = htole32(head);
		e->len = htole32(len);
		vq->used_idx++;
		loop_defer(vq->loop, &vq->notify_defer);
	}
	virtq_check_drained(vq);
}

/* 2.7.7: does the driver want to hear of the chains from signalled_used to used_idx? */
static bool wants_interrupt(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, valid = vq->signalled_valid;

	vq->signalled_used = vq->used_idx;
	vq->signalled_valid = true;
	/* The index must be visible before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(RING_READ16(vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(RING_READ16(*used_event(vq)), vq->used_idx, old);
}

void virtq_flush(struct virtqueue *vq)
{
	int fd;

	if (vq->used_idx == vq->signalled_used || READ_ONCE(vq->vdev->broken))
		return;
	__atomic_store_n(&vq->used->idx, htole16(vq->used_idx), __ATOMIC_RELEASE);
	if (!wants_interrupt(vq))
		return;
	fd = READ_ONCE(vq->notify_fd);
	if (fd >= 0)
		loop_signal(vq->loop, fd);
	else
		vq->vdev->transport_ops->notify_queue(vq->vdev, vq);
}

/* --- running and draining -------------------------------------------------------------------- */

/*
 * A queue stops in steps, since the callback that returns its last chain must have come to its end, and its interrupt must have been
 * raised, before anybody may free or save the queue:
 *   DRAINING  nothing is taken any more; the device type completes what is in flight
 *   DRAINED   nothing is in flight
 *   FLUSHED   at the end of that turn: published; the loop raises the interrupt
 *   and then, in a later turn, it does not run any more and the waiting thread is woken.
 */
enum virtq_drain {
	RUNNING,
	DRAINING,
	DRAINED,
	FLUSHED
};

void virtq_stopped(struct virtqueue *vq)
{
	if (vq->draining != DRAINING)
		return;
	WRITE_ONCE(vq->draining, DRAINED);
	loop_defer(vq->loop, &vq->notify_defer);
}

static void deferred(struct loop_defer *defer)
{
	struct virtqueue *vq = container_of(defer, struct virtqueue, notify_defer);

	vq->budget = vq->size;
	virtq_flush(vq);
	if (vq->draining == DRAINED) {
		WRITE_ONCE(vq->draining, FLUSHED);
		loop_post(vq->loop, &vq->again);
	}
}

static void stop_done(struct virtqueue *vq)
{
	struct virtio_device *vdev = vq->vdev;

	vq->running = false;
	WRITE_ONCE(vq->draining, RUNNING);
	pthread_mutex_lock(&vdev->stop_lock);
	vdev->stopping--;
	pthread_cond_broadcast(&vdev->stop_cond);
	pthread_mutex_unlock(&vdev->stop_lock);
}

static void again(struct loop_msg *msg)
{
	struct virtqueue *vq = container_of(msg, struct virtqueue, again);

	if (vq->draining == FLUSHED) {
		stop_done(vq);
	} else if (!dead(vq)) {
		vq->budget = vq->size;
		vq->vdev->ops->handle(vq);
	}
}

static void kicked(struct loop_watch *watch, uint32_t revents)
{
	struct virtqueue *vq = container_of(watch, struct virtqueue, kick);

	(void)revents;
	if (dead(vq))
		return;
	vq->budget = vq->size;
	vq->vdev->ops->handle(vq);
}

static bool poll_ring(struct loop_poller *poller)
{
	struct virtqueue *vq = container_of(poller, struct virtqueue, poller);

	if (dead(vq) || look(vq) <= 0)
		return false;
	vq->budget = vq->size;
	vq->vdev->ops->handle(vq);
	return true;
}

static bool arm_ring(struct loop_poller *poller)
{
	struct virtqueue *vq = container_of(poller, struct virtqueue, poller);

	if (dead(vq) || vq->kick_armed)
		return false;
	vq->kick_armed = true;
	if (arm_and_look(vq) <= 0)
		return false;
	vq->budget = vq->size;
	vq->vdev->ops->handle(vq);
	return true;
}

/* --- served by others ------------------------------------------------------------------------ */

static bool start_server(struct virtqueue *vq)
{
	struct hako_error err = {0};

	if (!vq->server || READ_ONCE(vq->vdev->broken))
		return false;
	if (vq->server->ops->start(vq->server, vq, &err)) {
		vm_log(vq->vdev->obj.vm, "%s: queue %u: %s", vq->vdev->ops->name, vq->index,
		       err.message);
		return false;
	}
	WRITE_ONCE(vq->served, true);
	return true;
}

/* What has been used has been announced by whoever used it. */
static void stop_server(struct virtqueue *vq)
{
	if (!vq->served)
		return;
	vq->server->ops->stop(vq->server, vq);
	vq->signalled_used = vq->used_idx;
	vq->inflight = 0;
	WRITE_ONCE(vq->served, false);
}

static void attend(struct loop_msg *msg)
{
	struct virtqueue *vq = container_of(msg, struct virtqueue, attend);

	if (!vq->served)
		return;
	if (READ_ONCE(vq->vdev->broken))
		stop_server(vq);
	else
		vq->server->ops->reroute(vq->server, vq);
}

/* The loop is told even if the queue is not served at this moment: it may be about to be. */
void virtq_abandon(struct virtqueue *vq)
{
	if (READ_ONCE(vq->server))
		loop_post(vq->loop, &vq->attend);
}

void virtq_route(struct virtqueue *vq, int fd)
{
	WRITE_ONCE(vq->notify_fd, fd);
	virtq_abandon(vq);
}

/* --- life ------------------------------------------------------------------------------------ */

void virtq_init(struct virtqueue *vq, struct virtio_device *vdev, uint16_t index, uint16_t size)
{
	*vq = (struct virtqueue){
		.vdev = vdev,
		.index = index,
		.loop = vdev->obj.vm->io_loop,
		.max_size = size,
		.kick_fd = -1,
		.notify_defer.fn = deferred,
		.again.fn = again,
		.attend.fn = attend,
		.poller.poll = poll_ring,
		.poller.arm = arm_ring,
	};
	list_init(&vq->poller.link);
	virtq_reset(vq);
}

void virtq_reset(struct virtqueue *vq)
{
	vq->size = vq->max_size;
	vq->enabled = false;
	vq->desc_gpa = vq->avail_gpa = vq->used_gpa = 0;
	vq->msix_vector = VIRTIO_MSI_NO_VECTOR;
	WRITE_ONCE(vq->notify_fd, -1);
	vq->last_avail = vq->used_idx = vq->nparked = 0;
	vq->inflight = 0;
}

const char *virtq_map(struct virtqueue *vq)
{
	const struct memory *mem = &vq->vdev->obj.vm->mem;
	uint64_t n = vq->size;

	if (!IS_POWER_OF_2(vq->size) || vq->size > vq->max_size)
		return "bad size";
	if (vq->desc_gpa % 16 || vq->avail_gpa % 2 || vq->used_gpa % 4)
		return "misaligned ring";
	/* With the two event fields, which are there even if nobody uses them (2.7). */
	vq->desc = memory_ptr(mem, vq->desc_gpa, 16 * n);
	vq->avail = memory_ptr(mem, vq->avail_gpa, 6 + 2 * n);
	vq->used = memory_ptr(mem, vq->used_gpa, 6 + 8 * n);
	return vq->desc && vq->avail && vq->used ? NULL : "ring outside of RAM";
}

/* Have the loop serve the queue, from last_avail and used_idx on. */
static void listen(struct virtqueue *vq)
{
	struct hako_error err = {0};

	vq->avail_shadow = vq->last_avail;
	vq->signalled_used = vq->used_idx;
	vq->signalled_valid = false;
	vq->budget = vq->size;
	vq->kick = (struct loop_watch){
		.fd = vq->kick_fd,
		.events = POLLIN,
		.edge = true,
		.fn = kicked,
	};
	if (loop_watch_start(vq->loop, &vq->kick, &err)) {
		virtio_broken(vq->vdev, "queue %u: %s", vq->index, err.message);
		return;
	}
	vq->kick_armed = false;
	if (vq->polled)
		loop_poller_start(vq->loop, &vq->poller);
	else
		virtq_enable_kick(vq);
	vq->starting = true;
	if (!dead(vq))
		vq->vdev->ops->handle(vq);
	vq->starting = false;
}

static void stop_listening(struct virtqueue *vq)
{
	loop_watch_stop(&vq->kick);
	loop_poller_stop(&vq->poller);
}

void virtq_start(struct virtqueue *vq)
{
	vq->running = true;
	WRITE_ONCE(vq->draining, RUNNING);
	vq->event_idx = virtio_has_feature(vq->vdev, VIRTIO_RING_F_EVENT_IDX);
	if (!start_server(vq))
		listen(vq);
}

void virtq_set_server(struct virtqueue *vq, struct virtq_server *server)
{
	bool serves = vq->running && !vq->draining;

	stop_server(vq);
	if (serves)
		stop_listening(vq);
	WRITE_ONCE(vq->server, server);
	if (serves && !start_server(vq))
		listen(vq);
}

void virtq_drain(struct virtqueue *vq)
{
	stop_listening(vq);
	stop_server(vq);
	WRITE_ONCE(vq->draining, DRAINING);
	if (vq->vdev->ops->drain)
		vq->vdev->ops->drain(vq);
	else if (vq->vdev->ops->hurry)
		vq->vdev->ops->hurry(vq);
	virtq_check_drained(vq);
}
