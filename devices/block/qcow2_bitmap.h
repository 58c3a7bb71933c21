/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2's persistent bitmaps while the image is written to: in memory, and marked "in use" in the file. */
#ifndef DEVICES_BLOCK_QCOW2_BITMAP_H
#define DEVICES_BLOCK_QCOW2_BITMAP_H

#include "qcow2_manage.h"

#define BITMAP_NOT_IN_FILE UINT64_MAX

struct qcow2_bitmap {
	struct qcow2_bitmap_entry
		e;	  /* table_offset and table_size as in the file; IN_USE: it was lost */
	uint64_t dir_pos; /* of its entry in the directory of the file, or BITMAP_NOT_IN_FILE */
	uint8_t *bits;	  /* NULL: not in memory; the file is right */
	uint64_t bytes;	  /* of bits */
	bool changed;	  /* bits are not as in the file */
};

struct qcow2_bitmaps {
	struct qcow2_bitmap *list;
	uint32_t n;
	uint64_t total; /* bytes in memory */
	/* The directory as it is in the file. */
	uint8_t *dir;
	uint64_t dir_offset, dir_size;
	bool dir_changed; /* the list is not as in the file */
	/* Clusters of the file that nobody needs once the new directory counts. */
	struct qcow2_bitmap_entry *gone;
	uint32_t ngone;
};

/** May it be read and changed? -EINVAL with a message that says why not. */
int bitmap_usable(const struct qcow2_bitmap *b, struct hako_error *err);
static inline bool bitmap_enabled(const struct qcow2_bitmap *b)
{
	return (b->e.flags & QCOW2_BITMAP_AUTO) && b->bits;
}
/** Bytes of the bitmap of a disk of @size bytes. */
uint64_t bitmap_bytes(uint64_t size, unsigned int granularity_bits);
/** Have its bits in memory. */
int bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct hako_error *err);
void bitmap_set(struct qcow2_bitmap *b, uint64_t size, uint64_t offset, uint64_t bytes);
/** What is in the file of it will not be needed any more once the list is stored. */
int bitmap_forget(struct qcow2 *q, const struct qcow2_bitmap *b);
/** Mark those that are in memory as "in use" in the file. */
int bitmaps_mark(struct qcow2 *q, struct hako_error *err);
/** What the node has; made if it has none. NULL: no memory. */
struct qcow2_bitmaps *bitmaps_get(struct qcow2 *q);
/** Look anew whether there are any that follow writes. */
void bitmaps_hook(struct qcow2 *q);

#endif
