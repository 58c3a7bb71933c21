/* SPDX-License-Identifier: GPL-2.0-only */
/* Split virtqueues, the device's side (virtio 1.2, section 2.7). */
#include "queue_ring.h"

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

void split_rewind(struct virtqueue *vq)
{
	vq->last_avail = vq->used_idx = 0;
}

const char *split_map(struct virtqueue *vq)
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

/* --- taking ---------------------------------------------------------------------------------- */

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

/* 2.7.5.3: a table of descriptors, whose chain starts at its first entry. */
static const char *walk_indirect(struct walk *w, const struct vring_desc *ref)
{
	uint32_t n = ref->len / sizeof(struct vring_desc), i = 0;
	const void *table;
	struct vring_desc d;
	const char *why;

	if (ref->flags & VRING_DESC_F_NEXT)
		return "indirect table with a next descriptor";
	why = walk_table(w, ref->addr, ref->len, &table);
	if (why)
		return why;
	for (uint32_t steps = 0; steps < n; steps++) {
		desc_read(&d, table, i);
		if (unlikely(d.flags & VRING_DESC_F_INDIRECT))
			return "indirect table within an indirect table";
		why = walk_buffer(w, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
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

static inline __attribute__((always_inline)) const char *walk_chain(struct walk *w, uint16_t head)
{
	const struct virtqueue *vq = w->vq;
	struct vring_desc d;
	const char *why;
	uint16_t i = head;

	if (unlikely(vq->inflight >= vq->size))
		return "more chains than the queue has";
	for (uint32_t steps = 0; steps < vq->size; steps++) {
		if (unlikely(i >= vq->size))
			return "descriptor outside of the table";
		desc_read(&d, vq->desc, i);
		if (d.flags & VRING_DESC_F_INDIRECT)
			return walk_indirect(w, &d);
		why = walk_buffer(w, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
		if (unlikely(why))
			return why;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return NULL;
		i = d.next;
	}
	return "loop in the descriptor table";
}

/* Bring avail_shadow up to date. */
int split_look(struct virtqueue *vq)
{
	uint16_t n;

	if (vq->last_avail != vq->avail_shadow)
		return 1;
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

void split_arm(struct virtqueue *vq)
{
	if (vq->event_idx)
		RING_WRITE16(*avail_event(vq), vq->last_avail);
	else
		RING_WRITE16(vq->used->flags, 0);
	/* 2.7.13.4.1's mirror image: the request for a doorbell must be visible before the index is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void split_disarm(struct virtqueue *vq)
{
	/* With EVENT_IDX the event that was asked for last has passed already or will come once more. */
	if (!vq->event_idx)
		RING_WRITE16(vq->used->flags, VRING_USED_F_NO_NOTIFY);
}

/* The chain at @head: check it, its buffers, and count it as in flight. In split_pop() most of the time goes here: no call. */
static inline __attribute__((always_inline)) int take_chain(struct virtqueue *vq, uint16_t head,
							    struct virtq_chain *chain,
							    struct iovec *iov, unsigned int max)
{
	struct walk w = {.vq = vq, .chain = chain, .iov = iov, .max = max};

	*chain = (struct virtq_chain){.head = {.id = head}};
	return walk_end(&w, walk_chain(&w, head), head);
}

int split_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max)
{
	uint16_t head;
	int n;

	if (vq->last_avail == vq->avail_shadow) {
		n = split_look(vq);
		if (!n && virtq_wants_kick(vq)) {
			split_arm(vq);
			n = split_look(vq);
		}
		if (n <= 0)
			return n;
	}
	if (unlikely(!virtq_in_budget(vq)))
		return 0;
	head = RING_READ16(vq->avail->ring[vq->last_avail & (vq->size - 1)]);
	n = take_chain(vq, head, chain, iov, max);
	if (unlikely(n < 0))
		return n;
	if (vq->kick_armed) {
		/* The loop looks for the next ones, and asks for a doorbell before it sleeps (arm_ring()). */
		vq->kick_armed = false;
		split_disarm(vq);
	}
	vq->last_avail++;
	vq->budget--;
	return 1;
}

void split_unpop(struct virtqueue *vq, const struct virtq_chain *chain)
{
	(void)chain;
	vq->last_avail--;
}

int split_unpark(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain, struct iovec *iov,
		 unsigned int max)
{
	return take_chain(vq, head, chain, iov, max);
}

/* --- returning ------------------------------------------------------------------------------- */

/* 2.7.7: does the driver want to hear of the chains from signalled_used to used_idx? */
bool split_publish(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used, valid = vq->signalled_valid;

	__atomic_store_n(&vq->used->idx, htole16(vq->used_idx), __ATOMIC_RELEASE);
	vq->signalled_used = vq->used_idx;
	vq->signalled_valid = true;
	/* The index must be visible before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(RING_READ16(vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return !valid || vring_need_event(RING_READ16(*used_event(vq)), vq->used_idx, old);
}
