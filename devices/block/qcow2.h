/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The QCOW2 engine, inside: what its files know of each other, and what check, snapshots, resizing and bitmaps are built on.
 *
 * Threads: all of it belongs to one loop, the node's home (the loop that was attached first); functions that take or return metadata run
 * there in a coroutine, or, while no loop is attached, blocking in any thread. They return 0 or a negative errno.
 *
 * Metadata. L1 table and refcount table are in memory; L2 tables and refcount blocks go through two caches, in slices of a power of two
 * bytes. Changes are made in memory, under q->lock, and reach the file in qcow2_commit() only, in an order that leaves the image
 * consistent wherever power fails: refcount blocks; the refcount table; [guest data is stable]; L2 tables; L1 table. Between two of
 * these that have something to write the file is flushed. What is freed keeps its refcount, and is not used again, until the commit that
 * takes the last reference out of the file has ended: only then do refcounts go down. So a crash leaks clusters at worst.
 */
#ifndef DEVICES_BLOCK_QCOW2_H
#define DEVICES_BLOCK_QCOW2_H

#include "block_co.h"
#include "qcow2_format.h"

struct qcow2;

/* --- caches of tables --------------------------------------------------------------------------- */

/* A slice of an L2 table or of a refcount block, as it is in the file (big-endian). */
struct qcow2_table {
	uint64_t
		key; /* L2: guest offset / bytes that a slice maps; refcounts: host offset / bytes that a slice counts */
	uint64_t offset; /* in the file */
	uint8_t *data;
	bool dirty;
	bool used;		  /* since the last cleaning */
	unsigned int pins;	  /* it stays; see qcow2_table_put() */
	struct qcow2_table *next; /* in its bucket */
	struct list link;	  /* cache->tables */
	struct list dirty_link;	  /* cache->dirty */
};

struct qcow2_cache {
	unsigned int bits; /* log2 of a slice's bytes */
	unsigned int ntables, ndirty, max;
	struct qcow2_table **buckets;
	unsigned int bucket_bits;
	struct list tables; /* next to be looked at for eviction first */
	struct list dirty;
};

/* --- the rest of the header --------------------------------------------------------------------- */

struct qcow2_ext {
	uint32_t type, length;
	uint8_t *data;
};

/* Clusters that are free once the next commit has ended. */
struct qcow2_free {
	uint64_t cluster, n;
	bool discard; /* give the space back to the file system */
};

/* A write that has allocated clusters which no L2 entry names yet. */
struct qcow2_inflight {
	struct list link;    /* q->inflight */
	uint64_t start, end; /* on the guest's disk; whole clusters */
	struct co_queue waiting;
};

/* A slice of an L2 table that is being read without the lock. */
struct qcow2_load {
	struct list link; /* q->loads */
	uint64_t key;
	struct co_queue waiting;
};

/* What metadata is in a cluster of the file. */
enum qcow2_meta {
	QCOW2_META_NONE,
	QCOW2_META_HEADER,
	QCOW2_META_L1,
	QCOW2_META_L2,
	QCOW2_META_REFTABLE,
	QCOW2_META_REFBLOCK,
	QCOW2_META_SNAPSHOTS,	/* the snapshot table */
	QCOW2_META_INACTIVE_L1, /* of snapshots */
	QCOW2_META_BITMAPS,	/* the bitmap directory */
};

struct qcow2_meta_set {
	uint64_t *clusters; /* open addressing: cluster + 1 << 4 | enum qcow2_meta; 0: free */
	uint64_t n, used;   /* entries, and those of them that are or were in use */
};

struct qcow2 {
	struct block_node node;

	/* Options. */
	struct qcow2_options {
		struct option_tree file, backing, data_file;
		int lazy_refcounts;    /* enum option_onoffauto */
		bool discard_request;  /* pass-discard-request */
		bool discard_snapshot; /* pass-discard-snapshot */
		bool discard_other;    /* pass-discard-other */
		bool discard_no_unref;
		int overlap_check;
		uint64_t cache_size, l2_cache_size, l2_entry_size, refcount_cache_size;
		uint64_t clean_interval; /* seconds */
	} opt;

	struct block_node *data; /* where guest data is: node.data, or node.file */
	struct loop *home;	 /* NULL: none is attached; atomic */
	unsigned int attached;	 /* loops */

	/* The header. */
	unsigned int version, cluster_bits, refcount_order, header_length;
	uint64_t cluster_size, size; /* of the virtual disk */
	uint64_t incompatible, compatible, autoclear;
	unsigned int compression;
	uint8_t *unknown_header; /* bytes of the header beyond struct qcow2_header */
	char *backing_name, *backing_format, *data_file_name; /* NULL: none */
	struct qcow2_ext *
		exts; /* in order of appearance, without the two that are above; kept as they are */
	unsigned int nexts;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;

	/* The L1 table, in host byte order; entries beyond l1_size do not exist. */
	uint64_t *l1, l1_offset;
	uint32_t l1_size;
	uint8_t *l1_dirty; /* a bit for each QCOW2_DIRTY_ENTRIES */
	bool any_l1_dirty;

	/* The refcount table, likewise. */
	uint64_t *reftable, reftable_offset;
	uint32_t reftable_size; /* entries */
	uint32_t reftable_clusters;
	/* It has grown, and goes there with the next commit; 0: it has not. reftable_offset and _clusters are as in the file. */
	uint64_t new_reftable_offset;
	uint32_t new_reftable_clusters;
	uint8_t *reftable_dirty;
	bool any_reftable_dirty;

	/* Geometry. */
	unsigned int l2_bits;	      /* log2 of the entries of an L2 table */
	unsigned int l2_entry_shift;  /* log2 of an entry's bytes: 3, or 4 when extended */
	unsigned int slice_shift;     /* log2 of the guest bytes that a slice of an L2 table maps */
	unsigned int subcluster_bits; /* = cluster_bits unless extended */
	unsigned int refblock_bits;   /* log2 of the refcounts of a block */
	unsigned int refslice_shift;  /* log2 of the refcounts of a slice */
	uint64_t refcount_max;
	uint64_t
		not_plain; /* bits of an L2 entry; without any it says by itself where a cluster's data is */

	struct co_mutex lock; /* around every change of metadata, also across waits */
	struct qcow2_cache l2, refblocks;
	struct list inflight;	   /* struct qcow2_inflight */
	struct list loads;	   /* struct qcow2_load */
	uint64_t changes;	   /* of L1 and L2 tables so far */
	uint64_t flushes, flushed; /* so many were asked for; all up to that one are done */
	bool writing;		   /* somebody uses the node for writing */
	bool corrupt;		   /* no more writes */
	bool committing;
	bool lazy; /* refcounts are written at the end */

	/* Allocation. */
	uint64_t free_hint; /* no cluster below is free */
	uint64_t taken;	    /* allocations so far */
	uint64_t
		compressed_offset; /* where the next compressed cluster goes in its cluster, 0: in a new one */
	struct qcow2_free *frees;
	size_t nfrees, max_frees;
	struct qcow2_meta_set meta;

	/* Requests that were passed on to the data node, by the phase in which they started. */
	unsigned int phase;
	uint64_t passed[2];
	struct co_queue phase_ended;
	unsigned int frozen; /* no request goes past the lock */

	/* Persistent bitmaps that follow writes: called before a write, zeroing or discard is answered. NULL: none. */
	void (*dirty)(struct qcow2 *q, uint64_t offset, uint64_t bytes);
	void *bitmaps;

	struct qcow2_codec *codec; /* qcow2_compress.c; atomic */
	struct qcow2_unpacked *unpacked;
	uint64_t old_length; /* of the file, when writing began */
	bool growing, no_growth;
	uint64_t grow_from; /* while growing: nothing is to be written from there on */
	struct co_queue grown;
	uint64_t high_water; /* what has never been in use beyond is not there, or zeroes */
	struct loop_timer clean_timer;
};

#define QCOW2_DIRTY_ENTRIES 64 /* 512 bytes, written as one */

/** Size of l1_dirty and reftable_dirty for so many entries. */
static inline size_t qcow2_dirty_bytes(uint32_t entries)
{
	return entries / QCOW2_DIRTY_ENTRIES / 8 + 1;
}

static inline struct qcow2 *qcow2_of(struct block_node *node)
{
	return container_of(node, struct qcow2, node);
}

static inline bool qcow2_is_extended(const struct qcow2 *q)
{
	return q->incompatible & QCOW2_INCOMPAT_EXTENDED_L2;
}

static inline bool qcow2_has_data_file(const struct qcow2 *q)
{
	return q->incompatible & QCOW2_INCOMPAT_DATA_FILE;
}

/** Is this an open qcow2 node? */
bool qcow2_is_node(const struct block_node *node);

/* --- qcow2_header.c ----------------------------------------------------------------------------- */

/** Read and check the header and its extensions from node.file. */
int qcow2_read_header(struct qcow2 *q, struct hako_error *err);
/**
 * Write the first cluster from the fields above, extensions and names included, and flush. What it points to is stable already.
 * -ENOSPC: it does not fit.
 */
int qcow2_write_header(struct qcow2 *q, struct hako_error *err);
/** Set or clear feature bits in the file, in place, and flush. */
int qcow2_set_incompatible(struct qcow2 *q, uint64_t set, uint64_t clear);
/** Can a table of @bytes be at @offset of the file? -EINVAL: the error names @name and the offset. */
int qcow2_check_table(struct qcow2 *q, const char *name, uint64_t offset, uint64_t bytes,
		      uint64_t max, struct hako_error *err);
/** Free what qcow2_read_header() has allocated. */
void qcow2_free_header(struct qcow2 *q);
/** The extension of that type, or NULL. */
struct qcow2_ext *qcow2_find_ext(struct qcow2 *q, uint32_t type);
/** Set an extension's data (copied), or remove it (@data NULL); qcow2_write_header() writes it. */
int qcow2_set_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t length);
/**
 * The image is found damaged: mark it so in the file, if it is open for writing, and say why in the node's next errors. -EIO. From now
 * on it takes no writes.
 */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- qcow2_cache.c ------------------------------------------------------------------------------ */

int qcow2_cache_init(struct qcow2_cache *c, unsigned int bits, uint64_t max_bytes);
/** Forget all tables; none is pinned. Dirty ones are lost. */
void qcow2_cache_drop(struct qcow2_cache *c);
void qcow2_cache_free(struct qcow2_cache *c);
/** The table, or NULL if it is not there. Never waits. */
struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t key);
/**
 * The table, pinned, read from @offset of the file if it is not there. If @fresh, it is not read but all zeroes, and dirty. May have to
 * write others (qcow2_commit()), so the lock is held.
 */
int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t key, uint64_t offset,
		    bool fresh, struct qcow2_table **table);
static inline void qcow2_table_put(struct qcow2_table *t)
{
	t->pins--;
}
/** Read a slice and put it into the cache, if nothing has changed meanwhile and there is room. Without the lock. */
int qcow2_cache_preload(struct qcow2 *q, struct qcow2_cache *c, uint64_t key, uint64_t offset);
void qcow2_table_dirty(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table *t);

/** Let go of tables that were not used since the last call. */
void qcow2_cache_expire(struct qcow2_cache *c);
/** Read metadata; what lies beyond the end of the file is zeroes. */
int qcow2_read_meta(struct qcow2 *q, uint64_t offset, void *buf, uint64_t bytes);

/**
 * Write what is dirty, in order, flush, and let go of what was freed before. The lock is held. On failure what could not be written
 * remains dirty, and what is in the file is consistent.
 */
int qcow2_commit(struct qcow2 *q);
/** At the end, or to have the refcounts right for others: also those that lazy-refcounts=on leaves for later. */
int qcow2_commit_all(struct qcow2 *q);
/** Is there anything that qcow2_commit() would write? */
bool qcow2_is_dirty(const struct qcow2 *q);
/** Flush the file, and the external data file. */
int qcow2_flush_nodes(struct qcow2 *q);

/* Around the use of a mapping for I/O that is done without the lock: what it names is not used for anything else until then. */
static inline unsigned int qcow2_enter(struct qcow2 *q)
{
	q->passed[q->phase]++;
	return q->phase;
}

static inline void qcow2_leave(struct qcow2 *q, unsigned int phase)
{
	if (!--q->passed[phase] && q->phase_ended.first)
		co_queue_wake_all(&q->phase_ended);
}

/* --- qcow2_refcount.c --------------------------------------------------------------------------- */

int qcow2_load_reftable(struct qcow2 *q, struct hako_error *err);
/** Refcount of the cluster at @offset. */
int qcow2_get_refcount(struct qcow2 *q, uint64_t offset, uint64_t *refcount);
/** Set it, whatever it was, without any order but that of commits: for repair. */
int qcow2_set_refcount(struct qcow2 *q, uint64_t offset, uint64_t refcount);
/** One reference more to each of @n clusters from @offset. -ERANGE: the refcount would not fit; then none has changed. */
int qcow2_ref(struct qcow2 *q, uint64_t offset, uint64_t n);
/** One reference less to each, after the next commit. Never fails: what can not be noted down is leaked. */
void qcow2_unref(struct qcow2 *q, uint64_t offset, uint64_t n, bool discard);
/**
 * Allocate clusters in a row, up to *@n but at least @min (1 or *@n): their offset, and in @n how many. Their refcounts are 1, their
 * contents undefined.
 */
int qcow2_alloc(struct qcow2 *q, uint64_t *n, uint64_t min, uint64_t *offset);
/** Room for @bytes of compressed data (at most a cluster), which may share clusters with others. */
int qcow2_alloc_compressed(struct qcow2 *q, uint64_t bytes, uint64_t *offset);
/** It is time for a commit. */
bool qcow2_many_frees(const struct qcow2 *q);
/* Parts of qcow2_commit(): let go of what was freed; find room for a refcount table that has grown. */
int qcow2_apply_frees(struct qcow2 *q);
int qcow2_place_reftable(struct qcow2 *q);
/** Have the cluster at @offset read as zeroes, for a table of which parts only will be written. */
int qcow2_zero_table(struct qcow2 *q, uint64_t offset);
/** Number of clusters of the file, by its length. */
uint64_t qcow2_file_clusters(struct qcow2 *q);

/* --- qcow2_grow.c ------------------------------------------------------------------------------- */

/** Clusters up to @end of the file have been allocated: have the file grow in time, and wait if they can not be written yet. */
void qcow2_grow(struct qcow2 *q, uint64_t end);
/** Wait until it does not grow. */
void qcow2_wait_grown(struct qcow2 *q);
/** Give back what was not needed. Nothing is in flight. */
void qcow2_trim(struct qcow2 *q);

/* --- qcow2_meta.c: guest data must never go where metadata is ----------------------------------- */

/** Note down all metadata that the tables in memory name. Before the first write. -EIO if they overlap. */
int qcow2_meta_build(struct qcow2 *q, struct hako_error *err);
int qcow2_meta_add(struct qcow2 *q, uint64_t offset, uint64_t bytes, enum qcow2_meta kind);
void qcow2_meta_remove(struct qcow2 *q, uint64_t offset, uint64_t bytes);
/** What is in that range of the file: the first that is not QCOW2_META_NONE. Never waits. */
enum qcow2_meta qcow2_meta_find(const struct qcow2 *q, uint64_t offset, uint64_t bytes);
/** Forget it: nothing is written any more. */
void qcow2_meta_free(struct qcow2 *q);
const char *qcow2_meta_name(enum qcow2_meta kind);

/* --- qcow2_l2.c --------------------------------------------------------------------------------- */

int qcow2_load_l1(struct qcow2 *q, struct hako_error *err);
/** Change an L1 entry; commits write it. */
void qcow2_set_l1(struct qcow2 *q, uint32_t index, uint64_t entry);
/** The slice that maps @offset of the guest's disk, pinned; NULL in @table: it has no L2 table. */
int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_table **table);
/**
 * Bring that slice into the cache without the lock, several at once. What does not come this way, though it could be read, comes by
 * qcow2_l2_get(). In a coroutine.
 */
int qcow2_l2_preload(struct qcow2 *q, uint64_t offset);
/** The same for changing it: allocates the L2 table, or copies one that snapshots share. */
int qcow2_l2_get_writable(struct qcow2 *q, uint64_t offset, struct qcow2_table **table);

/** Index of the guest's @offset in its slice. */
static inline unsigned int qcow2_l2_index(const struct qcow2 *q, uint64_t offset)
{
	return (offset >> q->cluster_bits) & ((1u << (q->slice_shift - q->cluster_bits)) - 1);
}

static inline uint64_t qcow2_l2_entry(const struct qcow2 *q, const struct qcow2_table *t,
				      unsigned int i)
{
	uint64_t v;

	memcpy(&v, t->data + ((size_t)i << q->l2_entry_shift), 8);
	return be64toh(v);
}

/** The bitmap of an extended entry. */
static inline uint64_t qcow2_l2_bitmap(const struct qcow2 *q, const struct qcow2_table *t,
				       unsigned int i)
{
	uint64_t v;

	memcpy(&v, t->data + ((size_t)i << q->l2_entry_shift) + 8, 8);
	return be64toh(v);
}

/** Change an entry (@bitmap counts if they are extended). The slice is writable, the lock held. */
void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *t, unsigned int i, uint64_t entry,
		  uint64_t bitmap);

enum qcow2_type {
	QCOW2_UNALLOCATED, /* the backing node decides; @host is where it may be written, if there is one */
	QCOW2_ZEROES, /* likewise @host */
	QCOW2_NORMAL,
	QCOW2_PACKED, /* compressed: @entry says where */
};

/* A piece of the guest's disk that is mapped alike: data is at @host and on. */
struct qcow2_map {
	enum qcow2_type type;
	bool has_host;	      /* @host is valid */
	bool writable;	      /* in place; what is not NORMAL has to be marked so then */
	uint64_t bytes;	      /* not beyond the slice */
	uint64_t host, entry; /* of the first */
	const char *why;      /* -EIO: what is wrong */
};

/** How @bytes at @offset, all in slice @t, begin. -EIO: the entry is wrong. Never waits. */
int qcow2_map(const struct qcow2 *q, const struct qcow2_table *t, uint64_t offset, uint64_t bytes,
	      struct qcow2_map *map);
/** qcow2_map() has failed: mark the image corrupt. -EIO. */
int qcow2_map_corrupt(struct qcow2 *q, uint64_t offset, const struct qcow2_map *map);

/** Drop the references of an L2 entry: data or compressed data. */
void qcow2_unref_entry(struct qcow2 *q, uint64_t entry, bool discard);

/* --- qcow2_io.c, qcow2_write.c ------------------------------------------------------------------- */

void qcow2_submit(struct block_node *node, struct block_req *req);
int qcow2_sync(struct block_node *node, struct block_req *req);
int qcow2_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st);

/* Requests on the guest's disk, in a coroutine of the home loop or blocking while no loop is attached. The range is checked. */
int qcow2_co_read(struct qcow2 *q, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		  int niov);
int qcow2_co_write(struct qcow2 *q, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		   int niov);
int qcow2_co_write_compressed(struct qcow2 *q, uint64_t offset, uint64_t bytes,
			      const struct iovec *iov, int niov);
int qcow2_co_zero(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool unmap);
int qcow2_co_discard(struct qcow2 *q, uint64_t offset, uint64_t bytes);
int qcow2_co_flush(struct qcow2 *q);

/** The part of @iov from @skip on, @bytes long, into @out (@niov entries). How many there are. */
int qcow2_iov_part(const struct iovec *iov, int niov, uint64_t skip, uint64_t bytes,
		   struct iovec *out);
/**
 * How the disk is mapped at @offset: as qcow2_map(), but it looks for the table. Waits; what the map says holds until the next wait.
 * -EIO: the image is corrupt, and marked so.
 */
int qcow2_map_at(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_map *map);
/** Wait until no write that allocates is under way in this range. With the lock, which is not held meanwhile. */
void qcow2_wait_inflight(struct qcow2 *q, uint64_t start, uint64_t end);
/** Such a write begins, ends. With the lock. */
void qcow2_inflight_begin(struct qcow2 *q, struct qcow2_inflight *f, uint64_t start, uint64_t end);
void qcow2_inflight_end(struct qcow2_inflight *f);

/**
 * Take the lock and wait until no request is past it, and none allocates: mappings may be changed at will, say for a snapshot.
 * qcow2_thaw() lets them go on.
 */
void qcow2_freeze(struct qcow2 *q);
void qcow2_thaw(struct qcow2 *q);

/* --- qcow2_compress.c --------------------------------------------------------------------------- */

/** Position and size of compressed data. */
void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes);
/**
 * Compress a cluster from @in into @out (cluster_size bytes each). The number of bytes, or -E2BIG: it does not become smaller. Any
 * thread, several at a time.
 */
struct qcow2_codec;
void qcow2_codec_free(struct qcow2 *q);
/** class.confine: loads the library, since there may be compressed clusters. */
int qcow2_confine(struct object *obj, struct sandbox *sb, struct hako_error *err);
int64_t qcow2_pack(struct qcow2 *q, const void *in, void *out);
/** The reverse, of @bytes at @in. -EIO: it is damaged. Any thread. */
int qcow2_unpack(struct qcow2 *q, const void *in, uint64_t bytes, void *out);
/** Read @bytes at @skip of the compressed cluster that @entry names. */
int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, uint64_t bytes,
		      const struct iovec *iov, int niov);
/** Clusters have become free: forget what was unpacked. */
void qcow2_unpacked_drop(struct qcow2 *q);
/** Write a cluster's compressed data, of qcow2_pack(), at @offset of the guest's disk. In a coroutine, or blocking. */
int qcow2_write_packed(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes);

#endif
