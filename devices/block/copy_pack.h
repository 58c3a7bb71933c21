/* SPDX-License-Identifier: GPL-2.0-only */
/* Threads that compress clusters for a loop's coroutines. */
#ifndef DEVICES_BLOCK_COPY_PACK_H
#define DEVICES_BLOCK_COPY_PACK_H

#include "qcow2.h"

struct copy_packers;

/** Start threads, one for each CPU up to 16, that compress for @q; packers_free() ends them, when nothing is in work. */
int copy_packers_new(struct qcow2 *q, struct copy_packers **packers, struct hako_error *err);
void copy_packers_free(struct copy_packers *packers);

/**
 * Compress @n clusters at @in, each to its place at @out; those that are all zero are left out. @sizes gets qcow2_pack()'s results, and 0
 * for zeroes if @skip_zero. In a coroutine, which waits.
 */
void copy_pack(struct copy_packers *packers, const uint8_t *in, uint8_t *out, int64_t *sizes,
	       unsigned int n, bool skip_zero);

/**
 * Write @bytes at @offset as compressed clusters; whole ones, but for the disk's last. Those that compression makes no smaller are written as
 * they are. In a coroutine, or blocking. -EINVAL: not whole clusters.
 */
int qcow2_write_compressed(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes);

#endif
