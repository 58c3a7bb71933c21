/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What malicious drivers share: a target, raw rings to lie with, and the proof that the rest goes on.
 * The target is `dev=blk|net|rng|console`, its number 0; witnesses are a second disk and the random numbers.
 */
#ifndef EVIL_H
#define EVIL_H

#include "virtio.h"

struct evil {
	struct virtio_dev dev;
	u32 type, nqueues;
	u16 queue; /* the one attacked */
	u16 size;
	struct vring_desc *desc; /* packed rings: what evil_offer() takes the chains from */
	struct vring_avail *avail;
	struct vring_used *used;
	struct packed_desc *ring; /* NULL: split rings */
	struct packed_place next;
	u8 *data;	      /* 64 KiB for buffers */
	u32 attacks, gave_up; /* how many, and after how many the device asked for a reset */
	const char *name;     /* of the attack under way, for messages */
};

#define EVIL_QUEUES	4 /* so many are set up, and attacked */
#define EVIL_QUEUE_SIZE 64
#define EVIL_DATA	65536

/* Finds target and witnesses; false: skipped or failed. */
bool evil_init(struct evil *e);
/* The target from reset to DRIVER_OK with these features, with empty raw rings on all its queues. */
bool evil_start(struct evil *e, u64 features);
/* Show `n` heads of the avail ring from where it is, or their chains in the packed ring, and ring the doorbell. */
void evil_offer(struct evil *e, const u16 *heads, u32 n);
/* One descriptor. */
void evil_desc(struct evil *e, u32 i, u64 addr, u32 len, u16 flags, u16 next);
/* A moment for the device to fall into the trap. */
void evil_wait(struct evil *e);
/* Witnesses work; the target works after a reset. False, and said so, if not. */
bool evil_survived(struct evil *e);
/* Witnesses only: while the target is in ruins. */
bool evil_witness(struct evil *e);
/* Say how it went. */
void evil_done(struct evil *e);

#endif
