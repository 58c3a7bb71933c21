/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtqueues, the device's side: running, stopping, notifications. The rings themselves are in queue_split.c and queue_packed.c. All of it
 * runs in the thread of the queue's loop.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "queue_ring.h"

/* --- taking ---------------------------------------------------------------------------------- */

static inline bool dead(const struct virtqueue *vq)
{
	return !vq->live || READ_ONCE(vq->vdev->broken);
}

static int look(struct virtqueue *vq)
{
	return likely(!vq->packed) ? split_look(vq) : packed_look(vq);
}

/* Ask for a doorbell for the next chain, then look whether it has come before the driver could know. */
static int arm_and_look(struct virtqueue *vq)
{
	if (likely(!vq->packed))
		split_arm(vq);
	else
		packed_arm(vq);
	return look(vq);
}

int virtq_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max)
{
	if (unlikely(dead(vq)))
		return 0;
	return likely(!vq->packed) ? split_pop(vq, chain, iov, max)
				   : packed_pop(vq, chain, iov, max);
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
	return dead(vq) ? 0 : split_unpark(vq, head, chain, iov, max);
}

void virtq_unpop(struct virtqueue *vq, const struct virtq_chain *chain)
{
	if (likely(!vq->packed))
		split_unpop(vq, chain);
	else
		packed_unpop(vq, chain);
	vq->inflight--;
	vq->budget++;
	virtq_check_drained(vq);
}

bool virtq_more(struct virtqueue *vq)
{
	return !dead(vq) && look(vq) > 0;
}

void virtq_disable_kick(struct virtqueue *vq)
{
	if (vq->kick_disabled)
		return;
	vq->kick_disabled = true;
	if (dead(vq))
		return;
	if (likely(!vq->packed))
		split_disarm(vq);
	else
		packed_disarm(vq);
}

bool virtq_enable_kick(struct virtqueue *vq)
{
	vq->kick_disabled = false;
	return !dead(vq) && arm_and_look(vq) > 0;
}

/* --- returning ------------------------------------------------------------------------------- */

void virtq_push(struct virtqueue *vq, struct virtq_head head, uint32_t len)
{
	vq->inflight--;
	if (likely(!READ_ONCE(vq->vdev->broken))) {
		if (likely(!vq->packed))
			split_push(vq, head, len);
		else
			packed_push(vq, head, len);
		if (!vq->notify_defer.queued)
			loop_defer(vq->loop, &vq->notify_defer);
	}
	virtq_check_drained(vq);
}

void virtq_flush(struct virtqueue *vq)
{
	int fd;

	if (vq->used_idx == vq->signalled_used || READ_ONCE(vq->vdev->broken))
		return;
	if (!(likely(!vq->packed) ? split_publish(vq) : packed_publish(vq)))
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

static void update_live(struct virtqueue *vq)
{
	vq->live = vq->running && !vq->draining && !vq->served;
}

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
	update_live(vq);
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
	int ret;

	if (!vq->server || READ_ONCE(vq->vdev->broken))
		return false;
	ret = vq->server->ops->start(vq->server, vq, &err);
	if (ret) {
		if (ret != -ENOTCONN)
			vm_log(vq->vdev->obj.vm, "%s: queue %u: %s", vq->vdev->ops->name, vq->index,
			       err.message);
		return false;
	}
	WRITE_ONCE(vq->served, true);
	update_live(vq);
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
	update_live(vq);
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
	vq->packed = virtio_has_feature(vq->vdev, VIRTIO_F_RING_PACKED);
	return vq->packed ? packed_map(vq) : split_map(vq);
}

void virtq_rewind(struct virtqueue *vq)
{
	if (virtio_has_feature(vq->vdev, VIRTIO_F_RING_PACKED))
		packed_rewind(vq);
	else
		split_rewind(vq);
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
	update_live(vq);
	vq->event_idx = virtio_has_feature(vq->vdev, VIRTIO_RING_F_EVENT_IDX);
	if (!start_server(vq))
		listen(vq);
}

void virtq_set_server(struct virtqueue *vq, struct virtq_server *server)
{
	bool serves = vq->running && !vq->draining;

	stop_server(vq);
	if (serves) {
		stop_listening(vq);
		virtq_flush(
			vq); /* what this turn has returned: the server starts from the used ring in memory */
	}
	WRITE_ONCE(vq->server, server);
	if (serves && !start_server(vq))
		listen(vq);
}

void virtq_drain(struct virtqueue *vq)
{
	stop_listening(vq);
	stop_server(vq);
	WRITE_ONCE(vq->draining, DRAINING);
	update_live(vq);
	if (vq->vdev->ops->drain)
		vq->vdev->ops->drain(vq);
	else if (vq->vdev->ops->hurry)
		vq->vdev->ops->hurry(vq);
	virtq_check_drained(vq);
}
