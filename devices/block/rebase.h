/* SPDX-License-Identifier: GPL-2.0-only */
/* Moving data between an overlay and what it stands on. In a coroutine, or blocking where nothing is in flight. */
#ifndef DEVICES_BLOCK_REBASE_H
#define DEVICES_BLOCK_REBASE_H

#include "block_co.h"

struct block_job {
	/* Called now and then; may be NULL. */
	void (*progress)(void *opaque, uint64_t done, uint64_t total);
	void *opaque;
};

/**
 * Give @top (for writing) all in which its backing node @old differs from @new, so that it shows the same on @new; either may be NULL, which is a disk of
 * zeroes. The name of the backing file is the caller's business: qcow2_change_backing().
 */
int block_rebase(struct block_node *top, struct block_node *old, struct block_node *new,
		 const struct block_job *job, struct hako_error *err);

/**
 * Write to @base (in use for writing by the node above it: block_reopen(), block_use_node()), which is somewhere below @top, what @top and the nodes between have, so that @base shows what @top shows. It grows if it
 * is too short. What @top has is not dropped: qcow2_make_empty().
 */
int block_commit(struct block_node *top, struct block_node *base, const struct block_job *job,
		 struct hako_error *err);

#endif
