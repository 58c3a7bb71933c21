/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counts of references, by cluster, for checking an image: sparse, so that memory follows what a file really contains and not how long it
 * claims to be.
 */
#ifndef DEVICES_BLOCK_QCOW2_REFMAP_H
#define DEVICES_BLOCK_QCOW2_REFMAP_H

#include "vmm/util.h"

#define REFMAP_LEAF 64

struct refmap_leaf {
	uint64_t key;		 /* first cluster / REFMAP_LEAF */
	uint32_t n[REFMAP_LEAF]; /* counts stop at UINT32_MAX */
};

/* All zero: empty. */
struct refmap {
	struct refmap_leaf **slots; /* open addressing */
	size_t nslots, nleaves;
	struct refmap_leaf *last; /* that was found */
};

/** @n more references to @cluster. -ENOMEM; -EFBIG: more than 2 GiB would be needed. */
int refmap_add(struct refmap *m, uint64_t cluster, uint32_t n);
uint32_t refmap_get(struct refmap *m, uint64_t cluster);
/** Its leaves in order; the caller frees the array of m->nleaves pointers. NULL: no memory. */
struct refmap_leaf **refmap_sorted(const struct refmap *m);
void refmap_free(struct refmap *m);

#endif
