/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What queue.c asks of a layout of rings, split (virtio 1.2, section 2.7) or packed (2.8), and what the two layouts share. All of it
 * runs in the thread of the queue's loop.
 *
 * The rings lie in guest RAM, where a driver may change them at any moment: each field is read once, into a local, then checked, then
 * used. What only the device writes is kept in struct virtqueue and never read back.
 */
#ifndef VIRTIO_QUEUE_RING_H
#define VIRTIO_QUEUE_RING_H

#include <linux/virtio_ring.h>

#include "queue.h"
#include "vmm/vm.h"

/** Where the next chain is taken and returned, of a queue that has just been enabled. */
void split_rewind(struct virtqueue *vq);
void packed_rewind(struct virtqueue *vq);
/** Check size, addresses and indices, derive host addresses; NULL or what is wrong. */
const char *split_map(struct virtqueue *vq);
const char *packed_map(struct virtqueue *vq);
/** virtq_pop() and so on of a queue that runs. */
int split_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max);
int packed_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov,
	       unsigned int max);
void split_unpop(struct virtqueue *vq, const struct virtq_chain *chain);
void packed_unpop(struct virtqueue *vq, const struct virtq_chain *chain);
int split_unpark(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain, struct iovec *iov,
		 unsigned int max);
/** Is there a chain to take? More than 0, 0, or -EPROTO. */
int split_look(struct virtqueue *vq);
int packed_look(struct virtqueue *vq);
/** Have the driver ring the doorbell for the next chain, visibly before what follows; or not any more. */
void split_arm(struct virtqueue *vq);
void packed_arm(struct virtqueue *vq);
void split_disarm(struct virtqueue *vq);
void packed_disarm(struct virtqueue *vq);
/** Write what virtq_push() returns; the driver sees it when it is published. Is an interrupt wanted then? */
static inline void split_push(struct virtqueue *vq, struct virtq_head head, uint32_t len)
{
	struct vring_used_elem *e = &vq->used->ring[vq->used_idx & (vq->size - 1)];

	e->id = htole32(head.id);
	e->len = htole32(len);
	vq->used_idx++;
}
void packed_push(struct virtqueue *vq, struct virtq_head head, uint32_t len);
bool split_publish(struct virtqueue *vq);
bool packed_publish(struct virtqueue *vq);

/* How the walk of a chain stands. */
struct walk {
	struct virtqueue *vq;
	struct virtq_chain *chain;
	struct iovec *iov;
	unsigned int max, n;
	uint64_t out_len, in_len;
};

/* One buffer of a chain: NULL, or what is wrong. */
static inline const char *walk_buffer(struct walk *w, uint64_t addr, uint32_t len, bool write)
{
	struct iovec *iov;
	void *p;

	if (unlikely(w->n >= w->max))
		return "too many buffers";
	if (unlikely(!len))
		return "empty buffer";
	p = memory_ptr(&w->vq->vdev->obj.vm->mem, addr, len);
	if (unlikely(!p))
		return "buffer outside of RAM";
	iov = &w->iov[w->n++];
	iov->iov_base = p;
	iov->iov_len = len;
	if (write) {
		w->in_len += len;
		w->chain->nin++;
	} else {
		if (unlikely(w->chain->nin))
			return "readable buffer behind a writable one";
		w->out_len += len;
		w->chain->nout++;
	}
	return NULL;
}

/* An indirect table of @len bytes: that of a good size in *@table, or what is wrong. */
static inline const char *walk_table(const struct walk *w, uint64_t addr, uint32_t len,
				     const void **table)
{
	if (!virtio_has_feature(w->vq->vdev, VIRTIO_RING_F_INDIRECT_DESC))
		return "indirect table, which was not negotiated";
	if (!len || len % sizeof(struct vring_desc))
		return "indirect table of a bad size";
	*table = memory_ptr(&w->vq->vdev->obj.vm->mem, addr, len);
	return *table ? NULL : "indirect table outside of RAM";
}

/* The chain has been walked: 1, and it is in flight; or -EPROTO, as something is wrong with it. */
static inline int walk_end(const struct walk *w, const char *why, uint16_t at)
{
	struct virtqueue *vq = w->vq;

	if (likely(!why) && unlikely(w->out_len > UINT32_MAX || w->in_len > UINT32_MAX))
		why = "more than 4 GiB";
	if (unlikely(why)) {
		virtio_broken(vq->vdev, "queue %u: chain at %u: %s", vq->index, at, why);
		return -EPROTO;
	}
	w->chain->out_len = w->out_len;
	w->chain->in_len = w->in_len;
	vq->inflight++;
	return 1;
}

/* The ring is empty: ask for a doorbell? */
static inline bool virtq_wants_kick(const struct virtqueue *vq)
{
	return !vq->kick_disabled && !vq->polled;
}

/* May this turn take one more chain? If not, the queue is handled again. */
static inline bool virtq_in_budget(struct virtqueue *vq)
{
	if (likely(vq->budget))
		return true;
	loop_post(vq->loop, &vq->again);
	return false;
}

#endif
