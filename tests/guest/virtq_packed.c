/* SPDX-License-Identifier: GPL-2.0-only */
/* The driver's side of packed rings (virtio 1.2, section 2.8). */
#include "virtio.h"

void packed_init(struct virtq *q, bool irq)
{
	q->ring = (struct packed_desc *)q->desc;
	q->driver_event = (u32 *)q->avail;
	q->device_event = (u32 *)q->used;
	q->next.wrap = q->kicked.wrap = q->next_used.wrap = true;
	*q->driver_event = (irq ? EVENT_ENABLE : EVENT_DISABLE) << 16;
}

static void advance(const struct virtq *q, struct packed_place *p, u16 n)
{
	p->at += n;
	if (p->at >= q->size) {
		p->at -= q->size;
		p->wrap = !p->wrap;
	}
}

/* The next descriptor. The flags of the first one since the last kick are held back (2.8.6). */
static void put(struct virtq *q, u64 addr, u32 len, u16 id, u16 flags)
{
	struct packed_desc *d = &q->ring[q->next.at];

	flags |= q->next.wrap ? DESC_F_AVAIL : DESC_F_USED;
	d->addr = addr;
	d->len = len;
	d->id = id;
	if (q->next.at == q->kicked.at && q->next.wrap == q->kicked.wrap)
		q->first_flags = flags;
	else
		d->flags = flags;
	advance(q, &q->next, 1);
}

bool packed_add(struct virtq *q, const struct virtio_buf *buf, u32 out, u32 in, void *token)
{
	u32 n = out + in, need = q->indirect && n > 1 && n <= INDIRECT_PER ? 1 : n;
	struct packed_desc *t;
	u16 id;

	if (need > q->num_free)
		return false;
	while (q->count[q->next_id])
		q->next_id = (q->next_id + 1) % q->size;
	id = q->next_id;
	t = (struct packed_desc *)q->indirect + id * INDIRECT_PER;
	for (u32 i = 0; i < n; i++) {
		u16 write = i < out ? 0 : DESC_F_WRITE;

		if (need < n)
			t[i] = (struct packed_desc){(u64)buf[i].p, buf[i].len, 0, write};
		else
			put(q, (u64)buf[i].p, buf[i].len, id,
			    write | (i + 1 < n ? DESC_F_NEXT : 0));
	}
	if (need < n)
		put(q, (u64)t, 16 * n, id, DESC_F_INDIRECT);
	q->num_free -= need;
	q->token[id] = token;
	q->count[id] = need;
	q->avail_idx++;
	return true;
}

/* Offsets from the start of the present lap, the lap before being below 0. */
static u16 in_lap(const struct virtq *q, u16 at, bool wrap)
{
	return wrap == q->next.wrap ? at : at - q->size;
}

bool packed_kick(struct virtq *q)
{
	struct packed_place old = q->kicked;
	u16 event, added;
	u32 wish;

	if (old.at == q->next.at && old.wrap == q->next.wrap)
		return false;
	barrier();
	*(volatile u16 *)&q->ring[old.at].flags = q->first_flags;
	mfence();
	q->kicked = q->next;
	wish = *q->device_event;
	if ((wish >> 16 & 3) != EVENT_DESC)
		return (wish >> 16 & 3) != EVENT_DISABLE;
	event = in_lap(q, wish & 0x7fff, wish >> 15 & 1);
	added = q->next.at - in_lap(q, old.at, old.wrap);
	return (u16)(q->next.at - event - 1) < added;
}

void *packed_get(struct virtq *q, u32 *len)
{
	const struct packed_desc *d = &q->ring[q->next_used.at];
	u16 id = d->id;

	if (id >= q->size || !q->count[id]) {
		check(false, "used descriptor %u has id %u, which is not in flight",
		      q->next_used.at, id);
		leave(1);
	}
	if (len)
		*len = d->len;
	q->num_free += q->count[id];
	advance(q, &q->next_used, q->count[id]);
	q->count[id] = 0;
	q->used_idx++;
	return q->token[id];
}
