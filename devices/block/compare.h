/* SPDX-License-Identifier: GPL-2.0-only */
/* Looking at whole disks: do two have the same contents, and what is where? In a coroutine, or blocking where nothing is in flight. */
#ifndef DEVICES_BLOCK_COMPARE_H
#define DEVICES_BLOCK_COMPARE_H

#include "block_co.h"

enum block_verdict {
	BLOCK_SAME,
	BLOCK_OTHER_SIZE,     /* strict: the sizes differ */
	BLOCK_OTHER_STATUS,   /* strict: data, zeroes or allocation differ from @offset on */
	BLOCK_OTHER_CONTENTS, /* in the 512 bytes at @offset */
	BLOCK_STATUS_FAILED,  /* @error, of node number @which */
	BLOCK_READ_FAILED,
};

struct block_compare {
	struct block_node *nodes[2];
	bool strict; /* else what one has more than the other has to be zero */
	void (*progress)(void *opaque, uint64_t done, uint64_t total); /* or NULL */
	void *opaque;
	/* the result's */
	uint64_t offset;
	int which, error;
};

enum block_verdict block_compare(struct block_compare *c);

/* Bytes that are alike: in one node, in one piece. */
struct block_extent {
	uint64_t start, bytes;
	unsigned int flags; /* BLOCK_STATUS_* */
	unsigned int depth; /* in the chain of backing nodes */
	uint64_t offset;    /* BLOCK_STATUS_OFFSET: in */
	struct block_node *node;
};

/** Call @fn with all extents of @bytes bytes at @start, in order. Its result other than 0 ends the walk and is returned. */
int block_map(struct block_node *node, uint64_t start, uint64_t bytes,
	      int (*fn)(void *opaque, const struct block_extent *extent), void *opaque);

#endif
