/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Packed virtqueues, the device's side (virtio 1.2, section 2.8). One ring of descriptors, in which the driver makes chains available and
 * the device writes what it has used over them, both in the order of the ring.
 *
 * A place in the ring, such as last_avail and used_idx, is an offset with the wrap counter in the topmost bit, as in the event suppression
 * structures (2.8.14). Each of these is one word of 32 bits, read and written as a whole.
 */
#include "queue_ring.h"

#define WRAP   BIT(VRING_PACKED_EVENT_F_WRAP_CTR)
#define OFFSET (WRAP - 1)

#define DESC_F_AVAIL BIT(VRING_PACKED_DESC_F_AVAIL)
#define DESC_F_USED  BIT(VRING_PACKED_DESC_F_USED)

#define EVENT(place, flags) ((uint32_t)(flags) << 16 | (place))
#define EVENT_PLACE(event)  ((uint16_t)(event))
#define EVENT_FLAGS(event)  ((event) >> 16 & 3)

/* The place @n descriptors further on or back, up to once around. */
static inline uint16_t place_add(const struct virtqueue *vq, uint16_t place, uint16_t n)
{
	uint16_t offset = (place & OFFSET) + n;

	return offset < vq->size ? place + n : (place ^ WRAP) + n - vq->size;
}

static inline uint16_t place_sub(const struct virtqueue *vq, uint16_t place, uint16_t n)
{
	return (place & OFFSET) >= n ? place - n : (place ^ WRAP) - n + vq->size;
}

void packed_rewind(struct virtqueue *vq)
{
	vq->last_avail = vq->used_idx = WRAP; /* 2.8.1: the counters are 1 at first */
}

const char *packed_map(struct virtqueue *vq)
{
	const struct memory *mem = &vq->vdev->obj.vm->mem;

	if (!vq->size || vq->size > vq->max_size) /* need not be a power of 2 (2.8.10.1) */
		return "bad size";
	if (vq->desc_gpa % 16 || vq->avail_gpa % 4 || vq->used_gpa % 4)
		return "misaligned ring";
	if ((vq->last_avail & OFFSET) >= vq->size || (vq->used_idx & OFFSET) >= vq->size)
		return "place outside of the ring";
	vq->packed_desc = memory_ptr(mem, vq->desc_gpa, 16 * (uint64_t)vq->size);
	vq->driver_event = memory_ptr(mem, vq->avail_gpa, sizeof(*vq->driver_event));
	vq->device_event = memory_ptr(mem, vq->used_gpa, sizeof(*vq->device_event));
	return vq->packed_desc && vq->driver_event && vq->device_event ? NULL
								       : "ring outside of RAM";
}

/* --- taking ---------------------------------------------------------------------------------- */

static inline void desc_read(struct vring_packed_desc *d, const struct vring_packed_desc *table,
			     uint32_t i)
{
	memcpy(d, (const char *)table + i * sizeof(*d),
	       sizeof(*d));		   /* an indirect table has no alignment */
	__asm__ volatile("" ::: "memory"); /* the copy is what is used */
	d->addr = le64toh(d->addr);
	d->len = le32toh(d->len);
	d->id = le16toh(d->id);
	d->flags = le16toh(d->flags);
}

/* 2.8.7: a table of descriptors, all of them, in which no flag counts but WRITE. */
static const char *walk_indirect(struct walk *w, const struct vring_packed_desc *ref)
{
	uint32_t n = ref->len / sizeof(struct vring_packed_desc);
	struct vring_packed_desc d;
	const void *table;
	const char *why = walk_table(w, ref->addr, ref->len, &table);

	for (uint32_t i = 0; i < n && !why; i++) {
		desc_read(&d, table, i);
		why = walk_buffer(w, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
	}
	return why;
}

/* The chain from last_avail on. Its last descriptor has the id (2.8.6). */
static const char *walk_chain(struct walk *w)
{
	const struct virtqueue *vq = w->vq;
	uint16_t i = vq->last_avail & OFFSET, n = 0;
	struct vring_packed_desc d;
	const char *why;

	if (unlikely(vq->inflight >= vq->size))
		return "more chains than the queue has";
	do {
		if (unlikely(n == vq->size))
			return "longer than the ring";
		desc_read(&d, vq->packed_desc, i);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* 2.8.19: never in a chain */
			if (unlikely(n || (d.flags & VRING_DESC_F_NEXT)))
				return "indirect table in a chain";
			why = walk_indirect(w, &d);
		} else {
			why = walk_buffer(w, d.addr, d.len, d.flags & VRING_DESC_F_WRITE);
		}
		if (unlikely(why))
			return why;
		n++;
		if (++i == vq->size)
			i = 0;
	} while (d.flags & VRING_DESC_F_NEXT);
	w->chain->head = (struct virtq_head){.id = d.id, .ndesc = n};
	return NULL;
}

/* 2.8.1: available is what the driver has marked in its present lap, and the device not yet. */
int packed_look(struct virtqueue *vq)
{
	uint16_t *at = &vq->packed_desc[vq->last_avail & OFFSET].flags;
	/* Acquire: the rest of the chain is read after the flags of its first descriptor. */
	uint16_t flags = le16toh(__atomic_load_n(at, __ATOMIC_ACQUIRE));

	return (flags & (DESC_F_AVAIL | DESC_F_USED)) ==
	       (vq->last_avail & WRAP ? DESC_F_AVAIL : DESC_F_USED);
}

void packed_arm(struct virtqueue *vq)
{
	WRITE_ONCE(*vq->device_event,
		   htole32(vq->event_idx ? EVENT(vq->last_avail, VRING_PACKED_EVENT_FLAG_DESC)
					 : EVENT(0, VRING_PACKED_EVENT_FLAG_ENABLE)));
	/* 2.8.21.3.1's mirror image: the request for a doorbell must be visible before the ring is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void packed_disarm(struct virtqueue *vq)
{
	WRITE_ONCE(*vq->device_event, htole32(EVENT(0, VRING_PACKED_EVENT_FLAG_DISABLE)));
}

int packed_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max)
{
	struct walk w = {.vq = vq, .chain = chain, .iov = iov, .max = max};
	int ret;

	if (!packed_look(vq)) {
		if (!virtq_wants_kick(vq))
			return 0;
		packed_arm(vq);
		if (!packed_look(vq))
			return 0;
	}
	if (unlikely(!virtq_in_budget(vq)))
		return 0;
	*chain = (struct virtq_chain){0};
	ret = walk_end(&w, walk_chain(&w), vq->last_avail & OFFSET);
	if (unlikely(ret < 0))
		return ret;
	if (vq->kick_armed) {
		/* As in split_pop() */
		vq->kick_armed = false;
		packed_disarm(vq);
	}
	vq->last_avail = place_add(vq, vq->last_avail, chain->head.ndesc);
	vq->budget--;
	return 1;
}

void packed_unpop(struct virtqueue *vq, const struct virtq_chain *chain)
{
	vq->last_avail = place_sub(vq, vq->last_avail, chain->head.ndesc);
}

/* --- returning ------------------------------------------------------------------------------- */

/*
 * One used descriptor for the whole chain (2.8.6). The driver looks at the next one only, hence sees none of a batch before the flags of
 * its first one are written.
 */
void packed_push(struct virtqueue *vq, struct virtq_head head, uint32_t len)
{
	struct vring_packed_desc *d = &vq->packed_desc[vq->used_idx & OFFSET];
	uint16_t flags = vq->used_idx & WRAP ? DESC_F_AVAIL | DESC_F_USED : 0;

	if (len)
		flags |= VRING_DESC_F_WRITE;
	d->id = htole16(head.id);
	d->len = htole32(len);
	if (vq->used_idx == vq->signalled_used)
		vq->first_flags = flags;
	else
		WRITE_ONCE(d->flags, htole16(flags));
	vq->used_idx = place_add(vq, vq->used_idx, head.ndesc);
}

/* The place's offset, counted from the start of used_idx's lap: what is not in it is in the lap before. */
static inline uint16_t in_lap(const struct virtqueue *vq, uint16_t place)
{
	return (place & OFFSET) - ((place ^ vq->used_idx) & WRAP ? vq->size : 0);
}

/* 2.8.10: does the driver want to hear of what was used from @old on? */
static bool wants_interrupt(struct virtqueue *vq, uint16_t old, bool valid)
{
	uint32_t event = le32toh(READ_ONCE(*vq->driver_event));

	if (EVENT_FLAGS(event) == VRING_PACKED_EVENT_FLAG_DISABLE)
		return false;
	if (EVENT_FLAGS(event) != VRING_PACKED_EVENT_FLAG_DESC || !vq->event_idx || !valid)
		return true;
	return vring_need_event(in_lap(vq, EVENT_PLACE(event)), in_lap(vq, vq->used_idx),
				in_lap(vq, old));
}

bool packed_publish(struct virtqueue *vq)
{
	uint16_t old = vq->signalled_used;
	bool valid = vq->signalled_valid;

	__atomic_store_n(&vq->packed_desc[old & OFFSET].flags, htole16(vq->first_flags),
			 __ATOMIC_RELEASE);
	vq->signalled_used = vq->used_idx;
	vq->signalled_valid = true;
	/* The flags must be visible before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return wants_interrupt(vq, old, valid);
}
