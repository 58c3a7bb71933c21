/* SPDX-License-Identifier: GPL-2.0-only */
#include "blk.h"

bool blk_open(struct blk *b, u32 nth, u32 queues, u16 size, bool irq)
{
	if (!virtio_need(&b->dev, VIRTIO_BLK, nth) ||
	    !virtio_begin(&b->dev, BLK_ALL_FEATURES & ~param_u64("nofeatures", 0)))
		return false;
	b->nqueues = 1;
	if (b->dev.features & BLK_F_MQ)
		b->nqueues = MIN(virtio_cfg16(&b->dev, 34), MIN(queues, BLK_MAX_QUEUES));
	for (u32 i = 0; i < b->nqueues; i++)
		if (!virtq_init(&b->q[i], &b->dev, i, size, irq))
			return false;
	virtio_driver_ok(&b->dev);
	b->sectors = virtio_cfg64(&b->dev, 0);
	b->one = alloc(sizeof(*b->one), 64);
	return true;
}

static bool device_writes(u32 type)
{
	return type == BLK_T_IN || type == BLK_T_GET_ID;
}

bool blk_add(struct blk *b, struct blk_req *r)
{
	bool in = device_writes(r->hdr.type);
	struct virtio_buf buf[3] = {{&r->hdr, 16}, {r->data, r->len}, {&r->status, 1}};

	r->status = 0xff;
	if (r->len)
		return virtq_add(&b->q[r->queue], buf, in ? 1 : 2, in ? 2 : 1, r);
	buf[1] = buf[2];
	return virtq_add(&b->q[r->queue], buf, 1, 1, r);
}

int blk_rw(struct blk *b, u32 queue, u32 type, u64 sector, void *data, u32 len, u32 parts)
{
	struct virtq *q = &b->q[queue];
	struct blk_req *r = b->one;
	struct virtio_buf buf[18] = {{&r->hdr, 16}};
	bool in = device_writes(type);
	u32 n = 1, used, each = len / parts, token = 0;
	void *got;

	r->hdr.type = type;
	r->hdr.sector = sector;
	r->status = 0xff;
	for (u32 i = 0; len && i < parts; i++, n++) {
		buf[n].p = (u8 *)data + i * each;
		buf[n].len = i + 1 < parts ? each : len - i * each;
	}
	buf[n].p = &r->status;
	buf[n++].len = 1;
	if (!check(virtq_add(q, buf, in ? 1 : n - 1, in ? n - 1 : 1, &token), "queue full"))
		return -1;
	virtq_kick(q);
	if (!check(virtq_wait(q, 10000), "no answer to request %u at %lu", type, sector))
		return -1;
	got = virtq_get(q, &used);
	check(got == &token, "a completion of another request");
	if (r->status == BLK_S_OK)
		check_eq(used, (in ? len : 0) + 1);
	return r->status;
}
