/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests to disk nodes as plain calls. In a coroutine the call waits and the loop goes on; outside of any it blocks, for opening and
 * closing (block_ops.sync; a node without has them carried out in the VM's loop, hence not from there). All return 0 or a negative errno: all of it is done, or it failed.
 */
#ifndef DEVICES_BLOCK_BLOCK_CO_H
#define DEVICES_BLOCK_BLOCK_CO_H

#include "block.h"
#include "vmm/coroutine.h"

int block_pread(struct block_node *node, uint64_t offset, void *buf, size_t bytes);
int block_pwrite(struct block_node *node, uint64_t offset, const void *buf, size_t bytes,
		 uint32_t flags);
int block_preadv(struct block_node *node, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		 int niov);
int block_pwritev(struct block_node *node, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		  int niov, uint32_t flags);
int block_pzero(struct block_node *node, uint64_t offset, uint64_t bytes, uint32_t flags);
int block_pdiscard(struct block_node *node, uint64_t offset, uint64_t bytes);
int block_flush(struct block_node *node);

/** block_ops.status; a node that has none is all data. @bytes is cut at the end of the node, 0 there. */
int block_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st);
/** block_ops.resize; -EOPNOTSUPP if the node has none. */
int block_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		 struct hako_error *err);

/** block_ops of filters: as the node in file. */
int block_filter_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_status *st);
int block_filter_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
			struct hako_error *err);
void block_filter_follow(struct block_node *node);

#endif
