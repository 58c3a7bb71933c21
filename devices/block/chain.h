/* SPDX-License-Identifier: GPL-2.0-only */
/* What a node and the backing nodes below it show together. In a coroutine, or blocking where nothing is in flight. */
#ifndef DEVICES_BLOCK_CHAIN_H
#define DEVICES_BLOCK_CHAIN_H

#include "block_co.h"

/**
 * Of the nodes from @top down to @base (which is not asked; NULL: all), which decides on the bytes at @offset, and how? st->flags has
 * BLOCK_STATUS_ALLOCATED unless none of them does; what no node of a whole chain decides on, and what a backing node is too short for, reads
 * as zeroes (BLOCK_STATUS_ZERO). st->bytes
 * is at most @bytes; 0 at the end of @top. @depth: how far below @top the node is that decides; may be NULL.
 */
int block_chain_status(struct block_node *top, const struct block_node *base, uint64_t offset,
		       uint64_t bytes, struct block_status *st, unsigned int *depth);

#endif
