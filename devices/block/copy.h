/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies the contents of nodes to another node: several pieces at a time, holes and zeroes as such. Everything runs in coroutines of one
 * loop, to which the nodes are attached.
 */
#ifndef DEVICES_BLOCK_COPY_H
#define DEVICES_BLOCK_COPY_H

#include "block_co.h"

#define BLOCK_COPY_MAX_PARALLEL 16

struct block_copy {
	struct block_node *const *sources; /* one behind the other */
	unsigned int nsources;
	/* Of the last source's chain, what this node and those below it have is not copied: the target has it as its backing. */
	const struct block_node *base;
	struct block_node *target;
	unsigned int parallel; /* pieces in work, 1 to BLOCK_COPY_MAX_PARALLEL */
	uint64_t
		sparse; /* this many zero bytes in a row are not written as data; 0: do not look, and write all zeroes */
	uint64_t
		cluster; /* the target's unit of allocation, a power of 2; compressed: its clusters */
	uint64_t
		zero_from; /* from here on the target reads as zeroes already; UINT64_MAX: nowhere */
	bool target_has_backing; /* zeroes must be written, what is not allocated must not */
	bool any_order;		 /* pieces may be written as they come */
	bool compress;		 /* write compressed clusters */
	bool salvage;		 /* what cannot be read is copied as zeroes */
	uint64_t rate;		 /* bytes a second; 0: no limit */
	/* Called in the loop after each piece; may be NULL. The total is what has to be copied, without holes. */
	void (*progress)(void *opaque, uint64_t done, uint64_t total);
	/* A place that could not be read (salvage); may be NULL. */
	void (*unreadable)(void *opaque, uint64_t offset, int error);
	void *opaque;
};

/** Copy. In a coroutine. On failure @err says where; all that was submitted has completed. */
int block_copy(const struct block_copy *copy, struct hako_error *err);

#endif
