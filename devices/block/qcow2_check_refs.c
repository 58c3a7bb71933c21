/* SPDX-License-Identifier: GPL-2.0-only */
/* Checking an image: refcounts as they are in the file, against those that were counted. */
#include <stdlib.h>

#include "qcow2_check.h"

static unsigned int slice_bytes(const struct check *c)
{
	return MIN((uint64_t)CHECK_SLICE_BYTES, c->q->cluster_size);
}

static unsigned int block_bits(const struct check *c)
{
	return c->q->cluster_bits + 3 - c->q->refcount_order;
}

/* The specification's "refcount block entry": big-endian, but below a byte the first is in the lowest bits. */
static uint64_t get_entry(const void *data, unsigned int order, uint64_t i)
{
	const uint8_t *p = (const uint8_t *)data + ((i << order) >> 3);
	uint64_t v;

	switch (order) {
	case 3:
		return *p;
	case 4:
		return p[0] << 8 | p[1];
	case 5:
		return (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
	case 6:
		memcpy(&v, p, 8);
		return be64toh(v);
	default:
		return *p >> ((i << order) & 7) & ((1u << (1u << order)) - 1);
	}
}

static void set_entry(void *data, unsigned int order, uint64_t i, uint64_t value)
{
	uint8_t *p = (uint8_t *)data + ((i << order) >> 3);
	unsigned int shift = (i << order) & 7, mask;

	if (order < 3) {
		mask = ((1u << (1u << order)) - 1) << shift;
		*p = (*p & ~mask) | (value << shift & mask);
		return;
	}
	value = htobe64(value << (64 - (1u << order)));
	memcpy(p, &value, 1u << (order - 3));
}

static uint64_t max_refcount(const struct check *c)
{
	return c->q->refcount_order == 6 ? UINT64_MAX : BIT64(1u << c->q->refcount_order) - 1;
}

/* --- the refcount table -------------------------------------------------------------------------- */

/* CHECK_BAD_BLOCK if it is not fit to be used. */
static uint64_t check_block_offset(struct check *c, uint64_t i, uint64_t entry)
{
	uint64_t offset = entry & QCOW2_REFTABLE_OFFSET;
	const char *what = NULL;

	if (entry & QCOW2_REFTABLE_RESERVED)
		what = "reserved bits are set";
	else if (offset & (c->q->cluster_size - 1))
		what = "it is not aligned to clusters";
	else if (offset >> c->q->cluster_bits >= c->nclusters)
		what = "it is outside of the image";
	if (!what)
		return offset;
	check_say(c, "ERROR refcount block %llu at %#llx: %s", (unsigned long long)i,
		  (unsigned long long)entry, what);
	c->r->corruptions++;
	c->rebuild = true;
	return CHECK_BAD_BLOCK;
}

int check_reftable(struct check *c)
{
	uint64_t bytes = (uint64_t)c->q->reftable_clusters << c->q->cluster_bits;
	uint32_t n;
	bool zero;
	int ret;

	c->reftable_size = bytes / 8;
	c->reftable = malloc(bytes + 1);
	c->slices = calloc(CHECK_SLICES, sizeof(*c->slices));
	if (!c->reftable || !c->slices)
		return error_errno(c->err, -ENOMEM, "the refcount table");
	ret = check_count(c, c->q->reftable_offset, bytes, 1);
	if (ret == 0)
		ret = check_read(c, c->q->reftable_offset, c->reftable, bytes, &zero);
	if (ret < 0)
		return error_errno(c->err, ret, "the refcount table");
	if (zero)
		memset(c->reftable, 0, bytes);
	for (uint64_t i = 0; i < c->reftable_size; i++) {
		c->reftable[i] = be64toh(c->reftable[i]);
		if (c->reftable[i])
			c->reftable[i] = check_block_offset(c, i, c->reftable[i]);
		if (!c->reftable[i] || c->reftable[i] == CHECK_BAD_BLOCK)
			continue;
		ret = check_count(c, c->reftable[i], c->q->cluster_size, 1);
		if (ret < 0)
			return error_errno(c->err, ret, "the refcount blocks");
		n = refmap_get(&c->refs, c->reftable[i] >> c->q->cluster_bits);
		if (n == 1)
			continue;
		/* A block that is something else too can not be trusted, nor written to. */
		check_say(c, "ERROR refcount block %llu refcount=%u", (unsigned long long)i, n);
		c->r->corruptions++;
		c->rebuild = true;
	}
	return 0;
}

/* --- slices of refcount blocks ------------------------------------------------------------------- */

static int write_slice(struct check *c, struct check_slice *s)
{
	int ret = s->dirty ? block_pwrite(c->file, s->offset, s->data, slice_bytes(c), 0) : 0;

	s->dirty = false;
	return ret;
}

static int get_slice(struct check *c, uint64_t offset, struct check_slice **slice)
{
	struct check_slice *s = &c->slices[offset / slice_bytes(c) % CHECK_SLICES];
	int ret = 0;

	if (s->offset != offset) {
		ret = write_slice(c, s);
		s->offset = 0;
		if (ret == 0)
			ret = check_read(c, offset, s->data, slice_bytes(c), NULL);
		if (ret == 0)
			s->offset = offset;
	}
	*slice = s;
	return ret;
}

int check_get_refcount(struct check *c, uint64_t cluster, uint64_t *refcount)
{
	uint64_t i = cluster >> block_bits(c), in_block = cluster & (BIT64(block_bits(c)) - 1);
	uint64_t byte = in_block << c->q->refcount_order >> 3;
	struct check_slice *s;
	int ret;

	*refcount = 0;
	if (i >= c->reftable_size || !c->reftable[i])
		return 0;
	if (c->reftable[i] == CHECK_BAD_BLOCK)
		return -EIO;
	ret = get_slice(c, c->reftable[i] + ALIGN_DOWN(byte, (uint64_t)slice_bytes(c)), &s);
	if (ret == 0)
		*refcount = get_entry(
			s->data, c->q->refcount_order,
			in_block & (((uint64_t)slice_bytes(c) * 8 >> c->q->refcount_order) - 1));
	return ret;
}

/* --- comparing ----------------------------------------------------------------------------------- */

/* One cluster: @s and @i say where its refcount is, if it has one. */
static void compare_one(struct check *c, unsigned int fix, uint64_t cluster, uint32_t counted,
			struct check_slice *s, uint64_t i)
{
	unsigned int order = c->q->refcount_order;
	uint64_t there = s ? get_entry(s->data, order, i) : 0;
	uint64_t *fixed = NULL;

	if (there || counted)
		c->end = MAX(c->end, cluster + 1);
	if (there == counted)
		return;
	if (!s)
		c->rebuild = true;
	else if (there > counted && (fix & QCOW2_FIX_LEAKS))
		fixed = &c->r->leaks_fixed;
	else if (there < counted && (fix & QCOW2_FIX_ERRORS))
		fixed = &c->r->corruptions_fixed;
	if (counted > max_refcount(c))
		fixed = NULL;
	check_say(c, "%s cluster %llu refcount=%llu reference=%u",
		  fixed		    ? "Repairing"
		  : there < counted ? "ERROR"
				    : "Leaked",
		  (unsigned long long)cluster, (unsigned long long)there, counted);
	if (fixed) {
		set_entry(s->data, order, i, counted);
		s->dirty = true;
		(*fixed)++;
	} else if (there < counted) {
		c->r->corruptions++;
	} else {
		c->r->leaks++;
	}
}

static bool is_zero(const uint64_t *p, size_t bytes)
{
	for (size_t i = 0; i < bytes / 8; i++)
		if (p[i])
			return false;
	return true;
}

/* In order of clusters. */
struct leaves {
	struct refmap_leaf **leaf;
	size_t n, next;
};

/* The count of @cluster, which only rises from call to call. */
static uint32_t leaves_get(struct leaves *l, uint64_t cluster)
{
	while (l->next < l->n && l->leaf[l->next]->key < cluster / REFMAP_LEAF)
		l->next++;
	if (l->next == l->n || l->leaf[l->next]->key != cluster / REFMAP_LEAF)
		return 0;
	return l->leaf[l->next]->n[cluster % REFMAP_LEAF];
}

/* Is nothing counted between @start and @end? */
static bool leaves_empty(struct leaves *l, uint64_t start, uint64_t end)
{
	leaves_get(l, start);
	return l->next == l->n || l->leaf[l->next]->key * REFMAP_LEAF >= end;
}

static int compare_slice(struct check *c, unsigned int fix, struct leaves *l, uint64_t first,
			 uint64_t n, uint64_t offset)
{
	struct check_slice *s;
	int ret = get_slice(c, offset, &s);

	if (ret < 0)
		return ret;
	if (leaves_empty(l, first, first + n) && is_zero(s->data, slice_bytes(c)))
		return 0;
	for (uint64_t i = 0; i < n && first + i < c->nclusters; i++)
		compare_one(c, fix, first + i, leaves_get(l, first + i), s, i);
	return write_slice(c, s);
}

static int compare_block(struct check *c, unsigned int fix, struct leaves *l, uint64_t index)
{
	uint64_t first = index << block_bits(c), block = c->reftable[index];
	uint64_t per_slice = (uint64_t)slice_bytes(c) * 8 >> c->q->refcount_order;
	uint64_t n = BIT64(block_bits(c));
	struct block_status st;
	int ret = 0;

	if (block == CHECK_BAD_BLOCK)
		return 0;
	/* One that is there several times is compared for the first only. */
	if (refmap_get(&c->refs, block >> c->q->cluster_bits) != 1) {
		if (refmap_get(&c->seen, block >> c->q->cluster_bits))
			return 0;
		ret = refmap_add(&c->seen, block >> c->q->cluster_bits, 1);
		if (ret < 0)
			return ret;
	}
	if (leaves_empty(l, first, first + n)) {
		ret = block_status(c->file, block, c->q->cluster_size, &st);
		if (ret == 0 && (st.flags & BLOCK_STATUS_ZERO) && st.bytes >= c->q->cluster_size)
			return 0;
	}
	for (uint64_t i = 0; i < n && first + i < c->nclusters && ret >= 0; i += per_slice)
		ret = compare_slice(c, fix, l, first + i, per_slice,
				    block + (i << c->q->refcount_order >> 3));
	return ret;
}

/* What has no refcount block, from cluster @start to @end. */
static void compare_missing(struct check *c, struct leaves *l, uint64_t start, uint64_t end)
{
	leaves_get(l, start);
	for (; l->next < l->n; l->next++) {
		const struct refmap_leaf *leaf = l->leaf[l->next];

		if (leaf->key * REFMAP_LEAF >= end)
			return;
		for (unsigned int i = 0; i < REFMAP_LEAF; i++)
			compare_one(c, 0, leaf->key * REFMAP_LEAF + i, leaf->n[i], NULL, 0);
	}
}

int check_compare(struct check *c, unsigned int fix)
{
	struct leaves l = {.leaf = refmap_sorted(&c->refs), .n = c->refs.nleaves};
	unsigned int bits = block_bits(c);
	int ret = 0;

	if (!l.leaf)
		return error_errno(c->err, -ENOMEM, "comparing refcounts");
	c->end = 0;
	for (uint64_t i = 0; i < c->reftable_size && i << bits < c->nclusters && ret == 0; i++) {
		if (!c->reftable[i]) {
			compare_missing(c, &l, i << bits, (i + 1) << bits);
			continue;
		}
		ret = compare_block(c, fix, &l, i);
		if (ret < 0) {
			check_say(c, "ERROR refcount block %llu at %#llx: %s",
				  (unsigned long long)i, (unsigned long long)c->reftable[i],
				  strerror(-ret));
			c->r->check_errors++;
			c->rebuild = true;
			ret = ret == -ENOMEM ? ret : 0;
		}
	}
	compare_missing(c, &l, c->reftable_size << bits, UINT64_MAX);
	free(l.leaf);
	return ret < 0 ? error_errno(c->err, ret, "comparing refcounts") : 0;
}

/* --- a new structure ----------------------------------------------------------------------------- */

struct rebuild {
	struct leaves leaves;
	uint64_t *table; /* offsets of blocks */
	uint64_t first;	 /* cluster where the blocks start; the table is behind them */
	uint64_t nblocks, table_clusters, table_size;
};

/* Mark in r->table the blocks that are needed for clusters from @start to @end. -EFBIG. */
static int need_blocks(struct check *c, struct rebuild *r, uint64_t start, uint64_t end)
{
	uint64_t last = (end - 1) >> block_bits(c);

	if (last >= QCOW2_MAX_REFTABLE_BYTES / 8)
		return error_set(c->err, -EFBIG,
				 "the file is too long for a new refcount table: it needs an entry "
				 "%llu",
				 (unsigned long long)last);
	for (uint64_t i = start >> block_bits(c); i <= last; i++) {
		r->nblocks += !r->table[i];
		r->table[i] = 1;
		r->table_size = MAX(r->table_size, i + 1);
	}
	return 0;
}

/* The new blocks count themselves, and the table: go on until that needs no more. */
static int plan(struct check *c, struct rebuild *r)
{
	uint64_t per_leaf = REFMAP_LEAF, before;
	int ret = 0;

	r->first = c->nclusters;
	for (size_t i = 0; i < r->leaves.n && ret == 0; i++) {
		uint64_t start = r->leaves.leaf[i]->key * per_leaf;

		r->first = MAX(r->first, start + per_leaf);
		ret = need_blocks(c, r, start, start + per_leaf);
	}
	do {
		before = r->nblocks + r->table_clusters;
		r->table_clusters = (r->table_size * 8 + c->q->cluster_size - 1) >>
				    c->q->cluster_bits;
		if (ret == 0)
			ret = need_blocks(c, r, r->first, r->first + before + 2);
	} while (ret == 0 && r->nblocks + r->table_clusters > before);
	return ret;
}

static int write_block(struct check *c, struct rebuild *r, uint64_t index, uint8_t *buf)
{
	uint64_t start = index << block_bits(c), n = BIT64(block_bits(c));
	uint64_t new_end = r->first + r->nblocks + r->table_clusters;

	memset(buf, 0, c->q->cluster_size);
	/* A leaf is never in two blocks: the smallest block counts as many clusters. */
	for (; !leaves_empty(&r->leaves, start, start + n); r->leaves.next++) {
		const struct refmap_leaf *leaf = r->leaves.leaf[r->leaves.next];
		uint64_t cluster = leaf->key * REFMAP_LEAF;

		for (unsigned int i = 0; i < REFMAP_LEAF; i++) {
			if (leaf->n[i] > max_refcount(c))
				return error_set(c->err, -ERANGE,
						 "cluster %llu has %u references: refcounts of %u "
						 "bits are too small",
						 (unsigned long long)cluster + i, leaf->n[i],
						 1u << c->q->refcount_order);
			set_entry(buf, c->q->refcount_order, cluster - start + i, leaf->n[i]);
		}
	}
	for (uint64_t i = MAX(r->first, start); i < MIN(new_end, start + n); i++)
		set_entry(buf, c->q->refcount_order, i - start, 1);
	return block_pwrite(c->file, r->table[index], buf, c->q->cluster_size, 0);
}

static int write_table(struct check *c, struct rebuild *r)
{
	uint64_t bytes = r->table_clusters << c->q->cluster_bits;

	for (uint64_t i = 0; i < bytes / 8; i++)
		r->table[i] = htobe64(r->table[i]);
	return block_pwrite(c->file, (r->first + r->nblocks) << c->q->cluster_bits, r->table, bytes,
			    0);
}

/* The one write that makes it count. The header is never longer than a sector. */
static int switch_header(struct check *c, const struct rebuild *r)
{
	size_t bytes = c->q->version == 2 ? QCOW2_V2_HEADER_LENGTH : QCOW2_V3_HEADER_LENGTH;
	struct qcow2_header h;
	int ret = block_flush(c->file);

	if (ret == 0)
		ret = block_pread(c->file, 0, &h, bytes);
	h.refcount_table_offset = htobe64((r->first + r->nblocks) << c->q->cluster_bits);
	h.refcount_table_clusters = htobe32(r->table_clusters);
	h.refcount_order = htobe32(c->q->refcount_order);
	if (ret == 0)
		ret = block_pwrite(c->file, 0, &h, bytes, 0);
	if (ret == 0)
		ret = block_flush(c->file);
	if (ret == 0) {
		c->q->reftable_offset = be64toh(h.refcount_table_offset);
		c->q->reftable_clusters = r->table_clusters;
	}
	return ret;
}

static int write_all_parts(struct check *c, struct rebuild *r)
{
	uint8_t *buf = malloc(c->q->cluster_size);
	uint64_t at = r->first;
	int ret = buf ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < r->table_size && ret == 0; i++) {
		if (!r->table[i])
			continue;
		r->table[i] = at++ << c->q->cluster_bits;
		ret = write_block(c, r, i, buf);
		if (ret == -ERANGE)
			break;
	}
	free(buf);
	if (ret == -ERANGE)
		return ret;
	if (ret == 0)
		ret = write_table(c, r);
	if (ret == 0)
		ret = switch_header(c, r);
	return ret < 0 ? error_errno(c->err, ret, "writing new refcounts") : 0;
}

int check_rebuild(struct check *c)
{
	struct rebuild r = {.leaves = {.leaf = refmap_sorted(&c->refs), .n = c->refs.nleaves}};
	int ret;

	check_say(c, "Rebuilding refcount structure");
	r.table = calloc(1, QCOW2_MAX_REFTABLE_BYTES + c->q->cluster_size);
	if (!r.leaves.leaf || !r.table)
		ret = error_errno(c->err, -ENOMEM, "new refcounts");
	else
		ret = plan(c, &r);
	if (ret == 0)
		ret = write_all_parts(c, &r);
	free(r.leaves.leaf);
	free(r.table);
	return ret;
}
