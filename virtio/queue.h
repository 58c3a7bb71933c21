/* SPDX-License-Identifier: GPL-2.0-only */
/* Between virtio.c and queue.c: the life of a queue. Device types and transports use virtio.h. */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include "virtio.h"

void virtq_init(struct virtqueue *vq, struct virtio_device *vdev, uint16_t index, uint16_t size);
/** To the values after a reset. It does not run. */
void virtq_reset(struct virtqueue *vq);
/** The driver enables it: the first chain is taken and returned at the ring's start. */
void virtq_rewind(struct virtqueue *vq);
/** Check size, addresses and indices, derive the host's pointers; NULL or what is wrong. It does not run. */
const char *virtq_map(struct virtqueue *vq);

/** Loop thread: let it run; it has been mapped and has a kick_fd. */
void virtq_start(struct virtqueue *vq);
/** Loop thread: begin to stop; vdev->stopping goes down by one when it has. */
void virtq_drain(struct virtqueue *vq);

/** Raise the queue's interrupts by @fd from now on; -1: in the transport's slow way. Any thread. */
void virtq_route(struct virtqueue *vq, int fd);
/** The device is broken: whoever serves the queue has to stop. Any thread. */
void virtq_abandon(struct virtqueue *vq);

/** Nothing in flight any more? */
static inline void virtq_check_drained(struct virtqueue *vq)
{
	if (__builtin_expect(vq->draining, 0) && !vq->inflight && !vq->vdev->ops->drain)
		virtq_stopped(vq);
}

#endif
