/* SPDX-License-Identifier: GPL-2.0-only */
#include "chain.h"

int block_chain_status(struct block_node *top, const struct block_node *base, uint64_t offset,
		       uint64_t bytes, struct block_status *st, unsigned int *depth)
{
	uint64_t length = READ_ONCE(top->length);
	struct block_node *node = top;
	unsigned int d = 0;
	int ret;

	*st = (struct block_status){0};
	if (depth)
		*depth = 0;
	if (offset >= length)
		return 0;
	bytes = MIN(bytes, length - offset);
	for (;; node = node->backing, d++) {
		ret = block_status(node, offset, bytes, st);
		if (ret < 0)
			return ret;
		bytes = MIN(bytes, st->bytes);
		if ((st->flags & BLOCK_STATUS_ALLOCATED) || !node->backing)
			break;
		/* What would be the backing node's, but is beyond its end. */
		length = READ_ONCE(node->backing->length);
		if (offset >= length)
			break;
		if (node->backing == base)
			goto undecided;
		bytes = MIN(bytes, length - offset);
	}
	if (!(st->flags & BLOCK_STATUS_ALLOCATED))
		st->flags |= BLOCK_STATUS_ZERO;
undecided:
	st->bytes = bytes;
	if (depth)
		*depth = d;
	return 0;
}
