/* SPDX-License-Identifier: GPL-2.0-only */
/* A check of an image while it runs: qcow2_check.c walks the tables, qcow2_check_refs.c compares and repairs refcounts. */
#ifndef DEVICES_BLOCK_QCOW2_CHECK_H
#define DEVICES_BLOCK_QCOW2_CHECK_H

#include "qcow2_manage.h"
#include "qcow2_refmap.h"

/* A piece of a refcount block; nothing larger is read for a single refcount. */
#define CHECK_SLICE_BYTES 4096u
#define CHECK_SLICES	  1024u

#define CHECK_BAD_BLOCK 1ull

/* L2 tables by their offset, with the number of L1 entries that name them. */
struct check_l2 {
	uint64_t offset; /* 0: free slot */
	uint32_t all, active;
};

struct check {
	struct block_node *file;
	struct qcow2 *q; /* only its header counts */
	struct qcow2_check *r;
	struct hako_error *err;

	uint64_t nclusters; /* of the file */
	struct refmap refs; /* as they should be */
	struct refmap seen; /* refcount blocks with several references that have been compared */
	bool rebuild;	    /* refcounts can not be repaired in place */
	uint64_t end;	    /* clusters up to the last that is in use */

	struct check_l2 *l2; /* open addressing */
	size_t nl2, l2_slots;

	uint64_t *reftable; /* offsets of refcount blocks, or CHECK_BAD_BLOCK */
	uint64_t reftable_size;
	struct check_slice {
		uint64_t offset; /* 0: none */
		uint64_t data[CHECK_SLICE_BYTES / 8];
		bool dirty;
	} * slices; /* direct-mapped cache */
};

void check_say(struct check *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** The file's bytes; zeroes beyond its end. *@zero (may be NULL): it is known to be all zeroes, and @buf has not been filled. */
int check_read(struct check *c, uint64_t offset, void *buf, size_t bytes, bool *zero);
/** References to all clusters of this range of the file: @n more. Counts as corrupt what lies beyond its end. */
int check_count(struct check *c, uint64_t offset, uint64_t bytes, uint32_t n);

/* qcow2_check_refs.c */

/** Read the refcount table, and count the references to itself and to the refcount blocks. */
int check_reftable(struct check *c);
/** The refcount that the file has. */
int check_get_refcount(struct check *c, uint64_t cluster, uint64_t *refcount);
/** Compare with c->refs, and repair as far as that is wanted and possible in place. */
int check_compare(struct check *c, unsigned int fix);
/** Write a new refcount structure for c->refs, which does not have the old one, behind the end of the file, and let the header name it. */
int check_rebuild(struct check *c);

#endif
