/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: refcounts, and what follows from them: which clusters are free. */
#include <stdlib.h>

#include "qcow2.h"

#define FIRST_FREES 64
#define MAX_FREES   65536

/* --- entries ----------------------------------------------------------------------------------- */

/* Refcount @i of a slice; entries of less than a byte start at the least significant bit. */
static uint64_t get(const struct qcow2 *q, const struct qcow2_table *t, uint64_t i)
{
	unsigned int bits = 1u << q->refcount_order;
	const uint8_t *p = t->data + ((i << q->refcount_order) >> 3);
	uint16_t v16;
	uint32_t v32;
	uint64_t v64;

	switch (q->refcount_order) {
	case 3:
		return *p;
	case 4:
		memcpy(&v16, p, 2);
		return be16toh(v16);
	case 5:
		memcpy(&v32, p, 4);
		return be32toh(v32);
	case 6:
		memcpy(&v64, p, 8);
		return be64toh(v64);
	default:
		return *p >> ((i << q->refcount_order) & 7) & (BIT(bits) - 1);
	}
}

static void set(struct qcow2 *q, struct qcow2_table *t, uint64_t i, uint64_t v)
{
	unsigned int bits = 1u << q->refcount_order, shift;
	uint8_t *p = t->data + ((i << q->refcount_order) >> 3);
	uint16_t v16 = htobe16(v);
	uint32_t v32 = htobe32(v);
	uint64_t v64 = htobe64(v);

	switch (q->refcount_order) {
	case 3:
		*p = v;
		break;
	case 4:
		memcpy(p, &v16, 2);
		break;
	case 5:
		memcpy(p, &v32, 4);
		break;
	case 6:
		memcpy(p, &v64, 8);
		break;
	default:
		shift = (i << q->refcount_order) & 7;
		*p = (*p & ~((BIT(bits) - 1) << shift)) | v << shift;
	}
	qcow2_table_dirty(q, &q->refblocks, t);
}

static uint64_t slice_mask(const struct qcow2 *q)
{
	return (1ull << q->refslice_shift) - 1;
}

/* --- blocks ------------------------------------------------------------------------------------ */

int qcow2_load_reftable(struct qcow2 *q, struct hako_error *err)
{
	uint64_t bytes = (uint64_t)q->reftable_clusters << q->cluster_bits;
	int ret = qcow2_check_table(q, "the refcount table", q->reftable_offset, bytes,
				    QCOW2_MAX_REFTABLE_BYTES, err);

	if (ret < 0)
		return ret;
	if (!bytes)
		return error_set(err, -EINVAL, "the image has no refcount table");
	q->reftable_size = bytes / 8;
	q->reftable = malloc(bytes);
	q->reftable_dirty = calloc(1, qcow2_dirty_bytes(q->reftable_size));
	if (!q->reftable || !q->reftable_dirty)
		return error_errno(err, -ENOMEM, "the refcount table");
	ret = qcow2_read_meta(q, q->reftable_offset, q->reftable, bytes);
	if (ret < 0)
		return error_errno(err, ret, "reading the refcount table at offset %llu",
				   (unsigned long long)q->reftable_offset);
	for (uint32_t i = 0; i < q->reftable_size; i++)
		q->reftable[i] = be64toh(q->reftable[i]);
	return 0;
}

static void set_reftable(struct qcow2 *q, uint64_t i, uint64_t offset)
{
	uint64_t part = i / QCOW2_DIRTY_ENTRIES;

	q->reftable[i] = offset;
	q->reftable_dirty[part / 8] |= BIT(part % 8);
	q->any_reftable_dirty = true;
}

/* A place in the file for a table that has grown; the commit writes it there. */
int qcow2_place_reftable(struct qcow2 *q)
{
	uint64_t n = q->new_reftable_offset ? q->new_reftable_clusters : q->reftable_clusters,
		 offset;
	uint64_t need = (uint64_t)q->reftable_size * 8 >> q->cluster_bits;
	int ret;

	if (need <= n)
		return 0;
	n = need;
	ret = qcow2_alloc(q, &n, n, &offset);
	if (ret == 0)
		ret = qcow2_meta_add(q, offset, n << q->cluster_bits, QCOW2_META_REFTABLE);
	if (ret < 0)
		return ret;
	if (q->new_reftable_offset)
		qcow2_unref(q, q->new_reftable_offset, q->new_reftable_clusters, false);
	q->new_reftable_offset = offset;
	q->new_reftable_clusters = n;
	return qcow2_place_reftable(q); /* that may have made it grow */
}

/* Make the table in memory reach @block. */
static int grow_reftable(struct qcow2 *q, uint64_t block)
{
	uint64_t old = q->reftable_size, entries = MAX(block + 1, old + old / 2);
	uint64_t *table;
	uint8_t *dirty;

	entries = MIN(ALIGN_UP(entries, q->cluster_size / 8), QCOW2_MAX_REFTABLE_BYTES / 8);
	if (block >= entries)
		return -EFBIG;
	table = realloc(q->reftable, entries * 8);
	if (!table)
		return -ENOMEM;
	q->reftable = table;
	dirty = realloc(q->reftable_dirty, qcow2_dirty_bytes(entries));
	if (!dirty)
		return -ENOMEM;
	q->reftable_dirty = dirty;
	memset(table + old, 0, (entries - old) * 8);
	memset(dirty + qcow2_dirty_bytes(old), 0,
	       qcow2_dirty_bytes(entries) - qcow2_dirty_bytes(old));
	q->reftable_size = entries;
	return qcow2_place_reftable(q);
}

/* What is at @offset now is zeroes for whoever reads it: a table of which parts only are written. */
int qcow2_zero_table(struct qcow2 *q, uint64_t offset)
{
	uint64_t length = READ_ONCE(q->node.file->length);

	if (offset >= length)
		return 0;
	return block_pzero(q->node.file, offset, MIN(q->cluster_size, length - offset), 0);
}

/* The block for the @block-th range of clusters. It is the first of them itself, which is free since none of them is counted. */
static int new_block(struct qcow2 *q, uint64_t block)
{
	uint64_t cluster = block << q->refblock_bits, offset = cluster << q->cluster_bits;
	struct qcow2_table *t;
	int ret;

	if (cluster >= QCOW2_MAX_OFFSET >> q->cluster_bits)
		return -EFBIG;
	if (block >= q->reftable_size) {
		ret = grow_reftable(q, block);
		if (ret < 0)
			return ret;
		if (q->reftable[block])
			return 0; /* the table's own place needed it */
	}
	ret = qcow2_meta_add(q, offset, q->cluster_size, QCOW2_META_REFBLOCK);
	if (ret == -EEXIST)
		return qcow2_corrupt(q, "%s at offset %llu has no refcount",
				     qcow2_meta_name(qcow2_meta_find(q, offset, 1)),
				     (unsigned long long)offset);
	if (ret == 0 && offset < q->high_water)
		ret = qcow2_zero_table(q, offset);
	if (ret == 0)
		ret = qcow2_cache_get(q, &q->refblocks, cluster >> q->refslice_shift, offset, true,
				      &t);
	if (ret < 0) {
		qcow2_meta_remove(q, offset, q->cluster_size);
		return ret;
	}
	set(q, t, 0, 1);
	qcow2_table_put(t);
	q->high_water = MAX(q->high_water, offset + q->cluster_size);
	qcow2_grow(q, offset + q->cluster_size);
	set_reftable(q, block, offset);
	return 0;
}

/* The slice that counts @cluster, pinned; NULL in @out: there is none. */
static int get_slice(struct qcow2 *q, uint64_t cluster, bool make, struct qcow2_table **out)
{
	uint64_t block = cluster >> q->refblock_bits, in_block, offset;
	struct qcow2_table *t = qcow2_cache_find(&q->refblocks, cluster >> q->refslice_shift);
	int ret;

	if (t) {
		t->used = true;
		t->pins++;
		*out = t;
		return 0;
	}
	*out = NULL;
	if (block >= q->reftable_size || !q->reftable[block]) {
		if (!make)
			return 0;
		ret = new_block(q, block);
		if (ret < 0)
			return ret;
	}
	offset = q->reftable[block];
	if (offset & (q->cluster_size - 1) || offset >= qcow2_file_clusters(q) << q->cluster_bits) {
		/* A new one is in the cache until it is in the file. */
		if (offset & (q->cluster_size - 1) ||
		    offset != block << (q->refblock_bits + q->cluster_bits))
			return qcow2_corrupt(
				q, "refcount table entry %llu: 0x%llx is no place for a block",
				(unsigned long long)block, (unsigned long long)offset);
	}
	in_block = cluster & ((1ull << q->refblock_bits) - 1);
	offset += in_block >> q->refslice_shift << q->refblocks.bits;
	return qcow2_cache_get(q, &q->refblocks, cluster >> q->refslice_shift, offset, false, out);
}

/* --- refcounts --------------------------------------------------------------------------------- */

uint64_t qcow2_file_clusters(struct qcow2 *q)
{
	return (READ_ONCE(q->node.file->length) + q->cluster_size - 1) >> q->cluster_bits;
}

int qcow2_get_refcount(struct qcow2 *q, uint64_t offset, uint64_t *refcount)
{
	uint64_t cluster = offset >> q->cluster_bits;
	struct qcow2_table *t;
	int ret = get_slice(q, cluster, false, &t);

	*refcount = 0;
	if (ret < 0 || !t)
		return ret;
	*refcount = get(q, t, cluster & slice_mask(q));
	qcow2_table_put(t);
	return 0;
}

int qcow2_set_refcount(struct qcow2 *q, uint64_t offset, uint64_t refcount)
{
	uint64_t cluster = offset >> q->cluster_bits;
	struct qcow2_table *t;
	int ret = get_slice(q, cluster, true, &t);

	if (ret < 0)
		return ret;
	if (refcount > q->refcount_max)
		ret = -ERANGE;
	else if (get(q, t, cluster & slice_mask(q)) != refcount)
		set(q, t, cluster & slice_mask(q), refcount);
	if (ret == 0 && !refcount)
		q->free_hint = MIN(q->free_hint, cluster);
	qcow2_table_put(t);
	return ret;
}

int qcow2_ref(struct qcow2 *q, uint64_t offset, uint64_t n)
{
	uint64_t refcount;
	int ret = 0;

	for (uint64_t i = 0; i < n && ret == 0; i++) {
		ret = qcow2_get_refcount(q, offset + (i << q->cluster_bits), &refcount);
		if (ret == 0 && refcount >= q->refcount_max)
			ret = -ERANGE;
	}
	for (uint64_t i = 0; i < n && ret == 0; i++) {
		ret = qcow2_get_refcount(q, offset + (i << q->cluster_bits), &refcount);
		if (ret == 0)
			ret = qcow2_set_refcount(q, offset + (i << q->cluster_bits), refcount + 1);
	}
	return ret;
}

/* --- freeing ----------------------------------------------------------------------------------- */

void qcow2_unref(struct qcow2 *q, uint64_t offset, uint64_t n, bool discard)
{
	uint64_t cluster = offset >> q->cluster_bits;
	struct qcow2_free *last = q->nfrees ? &q->frees[q->nfrees - 1] : NULL, *frees;

	if (last && last->cluster + last->n == cluster && last->discard == discard) {
		last->n += n;
		return;
	}
	if (q->nfrees == q->max_frees) {
		size_t max = q->max_frees ? 2 * q->max_frees : FIRST_FREES;

		frees = max > MAX_FREES ? NULL : realloc(q->frees, max * sizeof(*frees));
		if (!frees)
			return; /* leaked */
		q->frees = frees;
		q->max_frees = max;
	}
	q->frees[q->nfrees++] = (struct qcow2_free){cluster, n, discard};
}

bool qcow2_many_frees(const struct qcow2 *q)
{
	return q->nfrees >= MAX_FREES / 16;
}

/* @cluster is free. */
static void released(struct qcow2 *q, uint64_t cluster)
{
	uint64_t offset = cluster << q->cluster_bits;

	q->free_hint = MIN(q->free_hint, cluster);
	if (q->compressed_offset >> q->cluster_bits == cluster)
		q->compressed_offset = 0;
	qcow2_meta_remove(q, offset, 1);
	qcow2_unpacked_drop(q);
}

static int unref_one(struct qcow2 *q, uint64_t cluster, bool *is_free)
{
	struct qcow2_table *t;
	uint64_t refcount;
	int ret = get_slice(q, cluster, false, &t);

	*is_free = false;
	if (ret < 0)
		return ret;
	refcount = t ? get(q, t, cluster & slice_mask(q)) : 0;
	if (refcount)
		set(q, t, cluster & slice_mask(q), refcount - 1);
	if (t)
		qcow2_table_put(t);
	if (!refcount)
		return qcow2_corrupt(q,
				     "the cluster at offset %llu is in use, and its refcount is 0",
				     (unsigned long long)(cluster << q->cluster_bits));
	*is_free = refcount == 1;
	if (*is_free)
		released(q, cluster);
	return 0;
}

/* Give clusters that are free back to the file system; that is advice only. */
static void discard(struct qcow2 *q, uint64_t cluster, uint64_t n)
{
	uint64_t offset = cluster << q->cluster_bits, length = READ_ONCE(q->node.file->length);

	if (n && offset < length)
		block_pdiscard(q->node.file, offset, MIN(n << q->cluster_bits, length - offset));
}

int qcow2_apply_frees(struct qcow2 *q)
{
	size_t n = q->nfrees;
	int ret = 0;

	for (size_t i = 0; i < n; i++) {
		const struct qcow2_free f = q->frees[i];
		uint64_t run = 0;

		for (uint64_t j = 0; j < f.n; j++) {
			bool is_free = false;

			if (ret == 0)
				ret = unref_one(q, f.cluster + j, &is_free);
			if (is_free && f.discard) {
				run++;
				continue;
			}
			discard(q, f.cluster + j - run, run);
			run = 0;
		}
		discard(q, f.cluster + f.n - run, run);
	}
	/* What follows an error is leaked. */
	memmove(q->frees, q->frees + n, (q->nfrees - n) * sizeof(*q->frees));
	q->nfrees -= n;
	return ret;
}

/* --- allocating -------------------------------------------------------------------------------- */

/* Does the run of free clusters that starts at @cluster reach @want? Its length, up to that, in @n; 0: @cluster is in use. */
static int free_run(struct qcow2 *q, uint64_t cluster, uint64_t want, uint64_t *n)
{
	uint64_t mask = slice_mask(q);
	struct qcow2_table *t;
	int ret;

	for (*n = 0; *n < want;) {
		uint64_t i = (cluster + *n) & mask;

		ret = get_slice(q, cluster + *n, true, &t);
		if (ret < 0)
			return *n ? 0 : ret;
		while (i <= mask && *n < want && !get(q, t, i)) {
			i++;
			(*n)++;
		}
		qcow2_table_put(t);
		if (i <= mask)
			break;
	}
	return 0;
}

/* The first cluster from @cluster on that is free. */
static int next_free(struct qcow2 *q, uint64_t *cluster)
{
	uint64_t mask = slice_mask(q), end = QCOW2_MAX_OFFSET >> q->cluster_bits;
	struct qcow2_table *t;
	int ret;

	for (;;) {
		uint64_t i = *cluster & mask;

		if (*cluster >= end)
			return -EFBIG;
		ret = get_slice(q, *cluster, true, &t);
		if (ret < 0)
			return ret;
		while (i <= mask && get(q, t, i))
			i++;
		qcow2_table_put(t);
		*cluster = (*cluster & ~mask) + i;
		if (i <= mask)
			return 0;
	}
}

static int take(struct qcow2 *q, uint64_t cluster, uint64_t n)
{
	enum qcow2_meta kind = qcow2_meta_find(q, cluster << q->cluster_bits, n << q->cluster_bits);
	int ret = 0;

	if (kind)
		return qcow2_corrupt(
			q, "%s is where the refcounts say that %llu bytes at offset %llu are free",
			qcow2_meta_name(kind), (unsigned long long)(n << q->cluster_bits),
			(unsigned long long)(cluster << q->cluster_bits));
	q->taken++;
	for (uint64_t i = 0; i < n && ret == 0; i++)
		ret = qcow2_set_refcount(q, (cluster + i) << q->cluster_bits, 1);
	return ret;
}

/* Make @k blocks in memory, for the ranges from @block on, which have none: they are the first clusters of these ranges together. */
static int new_blocks(struct qcow2 *q, uint64_t block, uint64_t k)
{
	uint64_t cluster = block << q->refblock_bits,
		 slices = 1ull << (q->refblock_bits - q->refslice_shift);
	int ret = 0;

	for (uint64_t i = 0; i < k && ret == 0; i++) {
		uint64_t offset = (cluster + i) << q->cluster_bits;
		uint64_t key = (cluster + (i << q->refblock_bits)) >> q->refslice_shift;

		ret = qcow2_meta_add(q, offset, q->cluster_size, QCOW2_META_REFBLOCK);
		for (uint64_t j = 0; j < slices && ret == 0; j++) {
			struct qcow2_table *t;

			ret = qcow2_cache_get(q, &q->refblocks, key + j,
					      offset + (j << q->refblocks.bits), true, &t);
			if (ret == 0)
				qcow2_table_put(t);
		}
		if (ret == 0)
			set_reftable(q, block + i, offset);
	}
	for (uint64_t i = 0; i < k && ret == 0; i++)
		ret = qcow2_set_refcount(q, (cluster + i) << q->cluster_bits, 1);
	return ret;
}

/*
 * More clusters in a row than a refcount block counts. Blocks are the first of the clusters that they count, so there never is such a row but behind
 * all ranges that have blocks, with the blocks for all of it in front.
 */
static int alloc_large(struct qcow2 *q, uint64_t n, uint64_t *offset)
{
	uint64_t block, k = 0, before, cluster;
	int ret;

	do {
		before = k;
		k = (n + k + (1ull << q->refblock_bits) - 1) >> q->refblock_bits;
	} while (k != before);
	for (;;) {
		for (block = q->reftable_size; block && !q->reftable[block - 1]; block--)
			;
		if (block + k <= q->reftable_size)
			break;
		ret = grow_reftable(q, block + k - 1);
		if (ret < 0)
			return ret;
	}
	cluster = (block << q->refblock_bits) + k;
	if (cluster + n > QCOW2_MAX_OFFSET >> q->cluster_bits)
		return -EFBIG;
	ret = new_blocks(q, block, k);
	if (ret == 0)
		ret = take(q, cluster, n);
	*offset = cluster << q->cluster_bits;
	q->high_water = MAX(q->high_water, (cluster + n) << q->cluster_bits);
	return ret;
}

int qcow2_alloc(struct qcow2 *q, uint64_t *n, uint64_t min, uint64_t *offset)
{
	uint64_t cluster = q->free_hint, run = 0, taken;
	bool first = true;
	int ret;

	if (q->corrupt)
		return -EIO;
	if (min >= 1ull << q->refblock_bits)
		return alloc_large(q, *n, offset);
	for (;; cluster += run) {
		ret = next_free(q, &cluster);
		if (ret < 0)
			return ret;
		if (first)
			q->free_hint = cluster;
		first = false;
		taken = q->taken;
		ret = free_run(q, cluster, *n, &run);
		if (ret < 0)
			return ret;
		/* Looking may need a larger refcount table, which may have been put there. */
		if (taken != q->taken)
			run = 0;
		else if (run >= min)
			break;
	}
	if (cluster + run > QCOW2_MAX_OFFSET >> q->cluster_bits)
		return -EFBIG;
	ret = take(q, cluster, run);
	if (ret < 0)
		return ret;
	if (q->free_hint == cluster)
		q->free_hint += run;
	q->high_water = MAX(q->high_water, (cluster + run) << q->cluster_bits);
	qcow2_grow(q, (cluster + run) << q->cluster_bits);
	*n = run;
	*offset = cluster << q->cluster_bits;
	return 0;
}

int qcow2_alloc_compressed(struct qcow2 *q, uint64_t bytes, uint64_t *offset)
{
	uint64_t used = q->compressed_offset & (q->cluster_size - 1), n = 1, next;
	bool fits = used && used + bytes <= q->cluster_size;
	int ret = 0;

	/* Another reference to the cluster that is not full, if it can take one. */
	if (used)
		ret = qcow2_ref(q, q->compressed_offset - used, 1);
	if (ret == -ERANGE) {
		q->compressed_offset = 0;
		return qcow2_alloc_compressed(q, bytes, offset);
	}
	if (ret < 0)
		return ret;
	if (fits) {
		*offset = q->compressed_offset;
	} else {
		ret = qcow2_alloc(q, &n, 1, &next);
		if (used && (ret < 0 || next != q->compressed_offset - used + q->cluster_size)) {
			qcow2_unref(q, q->compressed_offset - used, 1, false);
			used = 0;
		}
		if (ret < 0)
			return ret;
		*offset = used ? q->compressed_offset : next;
	}
	q->compressed_offset = *offset + bytes;
	if (!(q->compressed_offset & (q->cluster_size - 1)))
		q->compressed_offset = 0;
	return 0;
}
