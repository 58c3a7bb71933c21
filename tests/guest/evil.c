/* SPDX-License-Identifier: GPL-2.0-only */
#include "blk.h"
#include "evil.h"
#include "net.h"

static struct blk witness; /* a second disk, open all the time */
static bool has_witness;
static struct blk blk;
static struct net net;

static const struct {
	const char *name;
	u32 type;
} types[] = {
	{"blk", VIRTIO_BLK}, {"net", VIRTIO_NET}, {"rng", VIRTIO_RNG}, {"console", VIRTIO_CONSOLE}};

bool evil_init(struct evil *e)
{
	struct virtio_dev second;

	memset(e, 0, sizeof(*e));
	tsc_calibrate();
	e->type = VIRTIO_BLK;
	for (u32 i = 0; i < ARRAY_SIZE(types); i++)
		if (param_is("dev", types[i].name))
			e->type = types[i].type;
	if (!virtio_need(&e->dev, e->type, 0))
		return false;
	for (e->nqueues = 0; e->nqueues < 64 && virtio_queue_max(&e->dev, e->nqueues);)
		e->nqueues++;
	has_witness = virtio_find(&second, VIRTIO_BLK, 1);
	if (has_witness && !blk_open(&witness, 1, 1, 16, false))
		return false;
	return evil_survived(e);
}

bool evil_start(struct evil *e, u64 features)
{
	if (!virtio_begin(&e->dev, features))
		return false;
	for (u16 i = 0; i < MIN(e->nqueues, EVIL_QUEUES); i++) {
		u16 size = MIN(virtio_queue_max(&e->dev, i), EVIL_QUEUE_SIZE);
		struct vring_desc *desc = alloc(16 * size, 4096);
		struct vring_avail *avail = alloc(6 + 2 * size, 4096);
		struct vring_used *used = alloc(6 + 8 * size, 4096);

		virtio_queue_set(&e->dev, i, size, (u64)desc, (u64)avail, (u64)used, 0xffff, true);
		if (i != e->queue)
			continue;
		e->size = size;
		e->desc = desc;
		e->avail = avail;
		e->used = used;
		e->ring = NULL;
		if (e->dev.features & VIRTIO_F_RING_PACKED) {
			e->ring = (struct packed_desc *)desc;
			e->desc = alloc(16 * size, 4096);
			e->next = (struct packed_place){0, true};
		}
	}
	e->data = alloc(EVIL_DATA, 4096);
	virtio_driver_ok(&e->dev);
	return true;
}

void evil_desc(struct evil *e, u32 i, u64 addr, u32 len, u16 flags, u16 next)
{
	e->desc[i] = (struct vring_desc){addr, len, flags, next};
}

/* The chain as it would be in the table, loops and all, as far as the ring goes. */
static void offer_packed(struct evil *e, u16 head)
{
	volatile struct packed_desc *first = &e->ring[e->next.at];
	u16 i = head, flags = 0, first_flags = 0;

	for (u32 n = 0; n < e->size && (!n || (flags & DESC_F_NEXT)); n++) {
		const struct vring_desc *s = &e->desc[i % e->size];
		volatile struct packed_desc *d = &e->ring[e->next.at];

		flags = s->flags & ~(DESC_F_AVAIL | DESC_F_USED);
		flags |= e->next.wrap ? DESC_F_AVAIL : DESC_F_USED;
		d->addr = s->addr;
		d->len = s->len;
		d->id = i;
		if (n)
			d->flags = flags;
		else
			first_flags = flags;
		i = s->next;
		if (++e->next.at == e->size)
			e->next = (struct packed_place){0, !e->next.wrap};
	}
	barrier();
	first->flags = first_flags;
}

void evil_offer(struct evil *e, const u16 *heads, u32 n)
{
	u16 idx = e->avail->idx;

	if (e->ring) {
		for (u32 i = 0; i < n; i++)
			offer_packed(e, heads[i]);
		mfence();
		virtio_notify(&e->dev, e->queue);
		return;
	}
	for (u32 i = 0; i < n; i++)
		e->avail->ring[(u16)(idx + i) % e->size] = heads[i];
	barrier();
	*(volatile u16 *)&e->avail->idx = idx + n;
	mfence();
	virtio_notify(&e->dev, e->queue);
}

void evil_wait(struct evil *e)
{
	volatile u16 *used = e->ring ? &e->ring[0].flags : &e->used->idx;
	u64 t = rdtsc();
	u16 idx = *used;

	/* It answers, or gives up, or does nothing. */
	while (us_since(t) < 1000 && *used == idx && !(virtio_status(&e->dev) & STATUS_NEEDS_RESET))
		pause();
}

static bool rng_works(void)
{
	struct virtio_dev d;
	struct virtq q;
	u8 *buf = alloc(64, 64);
	struct virtio_buf b = {buf, 64};
	u32 len = 0;

	if (!virtio_find(&d, VIRTIO_RNG, 0) || !virtio_begin(&d, 0) ||
	    !virtq_init(&q, &d, 0, 8, false))
		return false;
	virtio_driver_ok(&d);
	virtq_add(&q, &b, 0, 1, buf);
	virtq_kick(&q);
	if (!virtq_wait(&q, 5000))
		return false;
	virtq_get(&q, &len);
	virtio_reset(&d);
	return len;
}

static bool blk_works(void)
{
	u8 *buf = alloc(4096, 4096);
	bool ok = blk_open(&blk, 0, 1, 16, false) &&
		  blk_rw(&blk, 0, BLK_T_IN, 0, buf, 4096, 2) == BLK_S_OK &&
		  *(u64 *)buf == 0x6b61686f6b61686f;

	virtio_reset(&blk.dev);
	return ok;
}

static bool net_works(void)
{
	bool ok;

	if (!net_open(&net, 0, false))
		return false;
	net.ip = 0x0a00020f;
	net.gw = 0x0a000202;
	ok = net_arp(&net);
	virtio_reset(&net.dev);
	return ok;
}

/* Output is taken. */
static bool console_works(void)
{
	struct virtio_dev d;
	struct virtq rx, tx;
	struct virtio_buf b = {"alive\n", 6};
	bool ok;

	if (!virtio_find(&d, VIRTIO_CONSOLE, 0) || !virtio_begin(&d, 0) ||
	    !virtq_init(&rx, &d, 0, 8, false) || !virtq_init(&tx, &d, 1, 8, false))
		return false;
	virtio_driver_ok(&d);
	virtq_add(&tx, &b, 1, 0, &b);
	virtq_kick(&tx);
	ok = virtq_wait(&tx, 5000);
	virtio_reset(&d);
	return ok;
}

static bool works(u32 type)
{
	switch (type) {
	case VIRTIO_BLK:
		return blk_works();
	case VIRTIO_NET:
		return net_works();
	case VIRTIO_RNG:
		return rng_works();
	default:
		return console_works();
	}
}

bool evil_witness(struct evil *e)
{
	static u8 buf[512];

	if (!has_witness)
		return true;
	memset(buf, 0, sizeof(buf));
	return check(blk_rw(&witness, 0, BLK_T_IN, 5, buf, 512, 1) == BLK_S_OK &&
			     *(u64 *)buf == (5 ^ 0x6b61686f6b61686f),
		     "%s: another disk does not work any more", e->name);
}

bool evil_survived(struct evil *e)
{
	u64 mark = alloc_mark();
	bool ok = evil_witness(e);

	e->gave_up += (virtio_status(&e->dev) & STATUS_NEEDS_RESET) != 0;
	virtio_reset(&e->dev);
	ok &= check(works(e->type), "%s: the device does not work again after a reset", e->name);
	if (e->type != VIRTIO_RNG && e->attacks % 16 == 0) {
		struct virtio_dev d;

		if (virtio_find(&d, VIRTIO_RNG, 0))
			ok &= check(works(VIRTIO_RNG), "%s: the random numbers are gone", e->name);
	}
	alloc_release(mark);
	e->attacks++;
	return ok;
}

void evil_done(struct evil *e)
{
	print("evil: %u attacks, the device asked for a reset after %u\n", e->attacks, e->gave_up);
}
