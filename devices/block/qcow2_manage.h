/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What can be done to a qcow2 image beyond reading and writing it. Unless noted, functions work on an open node, for which block_use() was called with
 * BLOCK_USE_WRITE if they change something, and run in a coroutine of its home loop, or blocking while no loop is attached.
 */
#ifndef DEVICES_BLOCK_QCOW2_MANAGE_H
#define DEVICES_BLOCK_QCOW2_MANAGE_H

#include "qcow2.h"

/* --- qcow2_snapshot_table.c --------------------------------------------------------------------- */

/* An entry of the snapshot table, in host byte order. */
struct qcow2_snapshot {
	uint64_t l1_offset;
	uint32_t l1_size; /* entries */
	uint32_t date_sec, date_nsec;
	uint64_t vm_clock_nsec;
	uint64_t vm_state_size;
	uint64_t disk_size;
	uint64_t icount; /* UINT64_MAX: none */
	char *id, *name;
	uint32_t extra_size; /* with fields that are not known here */
	uint8_t *extra;	     /* as in the file */
};

/** The snapshots (q->nb_snapshots many), which qcow2_snapshots_free() frees. Needs no more of @q than its header and file. */
int qcow2_snapshots_load(struct qcow2 *q, struct qcow2_snapshot **list, struct hako_error *err);
void qcow2_snapshots_free(struct qcow2_snapshot *list, uint32_t n);

/* --- qcow2_snapshot.c --------------------------------------------------------------------------- */

/** The snapshots of a node, which qcow2_snapshots_free() frees. -ENOTSUP: it is no qcow2 image. */
int qcow2_snapshot_list(struct block_node *node, struct qcow2_snapshot **list, uint32_t *n,
			struct hako_error *err);
/** The one with that id or, if there is none, that name: its index, or -ENOENT. */
int qcow2_snapshot_find(const struct qcow2_snapshot *list, uint32_t n, const char *id_or_name);
/** Keep the disk as it is now. -ERANGE: its refcounts are too narrow. */
int qcow2_snapshot_create(struct block_node *node, const char *name, struct hako_error *err);
/** Make the disk what it was; it may get another size. Snapshots stay. -ENOENT. */
int qcow2_snapshot_apply(struct block_node *node, const char *id_or_name, struct hako_error *err);
int qcow2_snapshot_delete(struct block_node *node, const char *id_or_name, struct hako_error *err);
/** From now on reads show the snapshot, until the node is closed. It is read-only, and nothing is in flight. */
int qcow2_snapshot_show(struct block_node *node, const char *id_or_name, struct hako_error *err);

/* --- qcow2_tree.c: L1 tables with all that they name --------------------------------------------- */

/**
 * Before and after changes that concern all of a tree: nothing else happens between, and nothing is only in memory before. The end writes
 * what has changed, copied flags too, and returns @ret unless that fails. What is @err's is -ENOTSUP, -EROFS, or of writing.
 */
int qcow2_tree_begin(struct qcow2 *q, struct hako_error *err);
int qcow2_tree_end(struct qcow2 *q, int ret, struct hako_error *err);
/** One reference more to all L2 tables and clusters. On failure (-ERANGE: a refcount would not fit) none. */
int qcow2_tree_ref(struct qcow2 *q, const uint64_t *l1, uint32_t n);
/** One less. On failure the rest is leaked. */
int qcow2_tree_unref(struct qcow2 *q, const uint64_t *l1, uint32_t n);
/** Make the copied flags of the active tables what the refcounts say. */
int qcow2_tree_copied(struct qcow2 *q);
/** Entries that the L1 table of a disk of @size bytes needs. */
uint64_t qcow2_l1_entries(const struct qcow2 *q, uint64_t size);
/** Write an L1 table to a new place, 0 if it has no entries; without the bits of @clear. */
int qcow2_write_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint64_t clear,
		   uint64_t *offset);
/** Make @l1 (which the node owns from now on), as it is at @offset, the active table of a disk of @size bytes. */
int qcow2_switch_l1(struct qcow2 *q, uint64_t *l1, uint32_t n, uint64_t offset, uint64_t size);

/* --- qcow2_resize.c ------------------------------------------------------------------------------ */

/** block_ops.resize. What is beyond @length when the disk shrinks is lost. -ENOTSUP: version 2 with snapshots. */
int qcow2_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		 struct hako_error *err);

/** Drop all data, so that the backing node shows. Snapshots stay. */
int qcow2_make_empty(struct block_node *node, struct hako_error *err);

/* --- qcow2_bitmap_table.c ----------------------------------------------------------------------- */

#define QCOW2_MAX_BITMAP_DIRECTORY (64 * MiB)
#define QCOW2_MAX_BITMAP_BYTES	   (512 * MiB) /* of one bitmap's clusters */

/* An entry of the bitmap directory, in host byte order. */
struct qcow2_bitmap_entry {
	uint64_t table_offset;
	uint32_t table_size; /* entries */
	uint32_t flags;	     /* QCOW2_BITMAP_* */
	uint8_t type, granularity_bits;
	char *name;
	uint32_t extra_size;
	uint8_t *extra;
};

/** Where the bitmap directory is. False: the image has none, or (@valid false) one that a program left behind which knows no bitmaps. */
bool qcow2_bitmaps_ext(struct qcow2 *q, struct qcow2_bitmaps_ext *ext, bool *valid);
/** The bitmaps, which qcow2_bitmaps_list_free() frees; none if the directory is not valid. Needs no more of @q than its header and file. */
int qcow2_bitmaps_load(struct qcow2 *q, struct qcow2_bitmap_entry **list, uint32_t *n,
		       struct hako_error *err);
void qcow2_bitmaps_list_free(struct qcow2_bitmap_entry *list, uint32_t n);

/* --- qcow2_bitmap.c: bitmaps while the node is written to ---------------------------------------- */

/** The node will be written to: load the bitmaps that follow writes, and mark them in the file. */
int qcow2_bitmaps_start(struct qcow2 *q, struct hako_error *err);
/** It is written to no more: store them. What can not be stored remains marked as in use. Free all. */
int qcow2_bitmaps_stop(struct qcow2 *q, struct hako_error *err);
/** Can the disk get another size? -ENOTSUP: there is a bitmap that can not be changed. */
int qcow2_bitmaps_can_resize(struct qcow2 *q, struct hako_error *err);
/** It has got another size. */
int qcow2_bitmaps_resize(struct qcow2 *q, struct hako_error *err);

/* --- qcow2_bitmap_ops.c -------------------------------------------------------------------------- */

/*
 * Of a node in use for writing, but for the list, and for where a merge reads. -ENOTSUP: no qcow2 image, or version 2; -ENOENT; -EEXIST; -EINVAL: the
 * bitmap was not stored properly, and can only be removed. In the file once the node is written to no more.
 */

/** @granularity in bytes, 0: as fits the image. Enabled. */
int qcow2_bitmap_add(struct block_node *node, const char *name, uint64_t granularity,
		     struct hako_error *err);
int qcow2_bitmap_remove(struct block_node *node, const char *name, struct hako_error *err);
int qcow2_bitmap_clear(struct block_node *node, const char *name, struct hako_error *err);
/** Whether it follows writes. */
int qcow2_bitmap_enable(struct block_node *node, const char *name, bool enable,
			struct hako_error *err);
/** Set in @name whatever is set in @from of @source, which may be the same node, or one of another image with the same size. */
int qcow2_bitmap_merge(struct block_node *node, const char *name, struct block_node *source,
		       const char *from, struct hako_error *err);
/** For qcow2_bitmaps_list_free(). */
int qcow2_bitmap_list(struct block_node *node, struct qcow2_bitmap_entry **list, uint32_t *n,
		      struct hako_error *err);
/** Bytes that the bitmaps of @node take at most in an image with clusters of @cluster_size; 0 if it has none. */
int qcow2_bitmap_measure(struct block_node *node, uint64_t cluster_size, uint64_t *bytes,
			 struct hako_error *err);

/* --- qcow2_check.c ------------------------------------------------------------------------------ */

#define QCOW2_FIX_LEAKS	 1u
#define QCOW2_FIX_ERRORS 2u

struct qcow2_check {
	/* Set by the caller. */
	unsigned int fix; /* QCOW2_FIX_* */
	/* Each thing that is found, as a line; may be NULL. */
	void (*report)(void *opaque, const char *line);
	void *opaque;
	/* What was found and remains. */
	uint64_t corruptions, leaks;
	uint64_t check_errors; /* what could not be looked at */
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t image_end_offset;
	uint64_t total_clusters, allocated_clusters, fragmented_clusters, compressed_clusters;
};

/**
 * Check the image in @file, which nobody else uses, and repair it: refcounts in place or, where that does not do, as a whole new structure;
 * entries that say something false about them. A negative errno: it could not be checked at all (not even a header), or not to the end. Memory and
 * time are bounded by what the file contains, not by what it claims. Needs no node of the format above @file.
 */
int qcow2_check(struct block_node *file, struct qcow2_check *check, struct hako_error *err);

/**
 * Give refcounts another width: write all of them anew, and one write of the header makes them count. As qcow2_check(). -ERANGE: there is a
 * cluster with more references; -EIO: the image is damaged.
 */
int qcow2_change_refcount_order(struct block_node *file, unsigned int order,
				struct hako_error *err);

/* --- qcow2_amend.c ------------------------------------------------------------------------------- */

/* What `-o` of amend says; all zero: nothing. */
struct qcow2_amend {
	char *backing_file, *backing_fmt, *data_file;
	int compat;			   /* as in qcow2_amend_options */
	int data_file_raw, lazy_refcounts; /* enum option_onoffauto; AUTO: as it is */
	unsigned int refcount_bits;
	uint64_t size; /* the caller's business: block_resize() */
};
extern const struct option qcow2_amend_options[];

/** Change the image in @file, which nobody else uses. Needs no node of the format above @file. */
int qcow2_amend(struct block_node *file, const struct qcow2_amend *options, struct hako_error *err);
/** Another backing file's name (NULL or empty: none) and format (NULL: none) in the header of an open node, and nothing else. */
int qcow2_change_backing(struct block_node *node, const char *name, const char *format,
			 struct hako_error *err);

#endif
