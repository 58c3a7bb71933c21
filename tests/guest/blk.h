/* SPDX-License-Identifier: GPL-2.0-only */
/* A virtio-blk driver (virtio 1.2, 5.2). */
#ifndef BLK_H
#define BLK_H

#include "virtio.h"

#define BLK_F_SIZE_MAX	   (1ull << 1)
#define BLK_F_SEG_MAX	   (1ull << 2)
#define BLK_F_RO	   (1ull << 5)
#define BLK_F_BLK_SIZE	   (1ull << 6)
#define BLK_F_FLUSH	   (1ull << 9)
#define BLK_F_CONFIG_WCE   (1ull << 11)
#define BLK_F_MQ	   (1ull << 12)
#define BLK_F_DISCARD	   (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

#define BLK_T_IN	   0
#define BLK_T_OUT	   1
#define BLK_T_FLUSH	   4
#define BLK_T_GET_ID	   8
#define BLK_T_DISCARD	   11
#define BLK_T_WRITE_ZEROES 13

#define BLK_S_OK     0
#define BLK_S_IOERR  1
#define BLK_S_UNSUPP 2

#define BLK_MAX_QUEUES 8
#define BLK_ALL_FEATURES                                                                       \
	(BLK_F_SIZE_MAX | BLK_F_SEG_MAX | BLK_F_RO | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_MQ | \
	 BLK_F_DISCARD | BLK_F_WRITE_ZEROES | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX)

struct blk_req {
	struct {
		u32 type, reserved;
		u64 sector;
	} hdr;
	u8 *data;
	u32 len;
	u8 status;
	u8 queue;
	u64 tag; /* the caller's */
};

struct blk {
	struct virtio_dev dev;
	struct virtq q[BLK_MAX_QUEUES];
	u32 nqueues;
	u64 sectors;
	struct blk_req *one; /* for blk_rw() */
};

/* Features off the command line (`nofeatures=MASK` takes some away), queues up to the device's number. */
bool blk_open(struct blk *b, u32 nth, u32 queues, u16 size, bool irq);
/* False: the queue is full. Not shown to the device before virtq_kick(). */
bool blk_add(struct blk *b, struct blk_req *r);
/* One request and its end; returns the status, -1 if none came within 10 s. Data of `parts` buffers. */
int blk_rw(struct blk *b, u32 queue, u32 type, u64 sector, void *data, u32 len, u32 parts);

#endif
