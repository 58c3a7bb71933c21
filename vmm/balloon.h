/* SPDX-License-Identifier: GPL-2.0-only */
/* What hako.h asks of the balloon that a VM may have. */
#ifndef VMM_BALLOON_H
#define VMM_BALLOON_H

#include "hako.h"

struct vm_balloon;

/* Under vm->lock, in any state of the VM. */
struct vm_balloon_ops {
	/* The guest is to keep @bytes of its memory, no more than there are. */
	void (*set)(struct vm_balloon *balloon, uint64_t bytes);
	/* Fill all but @info->size; @info is zeroed. */
	void (*query)(struct vm_balloon *balloon, struct hako_balloon_info *info);
};

struct vm_balloon {
	const struct vm_balloon_ops *ops;
};

#endif
