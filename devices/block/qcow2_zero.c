/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: zeroes and discards, which change the mapping only where they can. */
#include <stdlib.h>

#include "qcow2.h"

#define ZERO_BYTES  (64 * KiB)
#define ZERO_IOVECS 16
#define ALL_ZEROES  0xffffffff00000000ull /* the bitmap of an extended entry */

/* --- as data ----------------------------------------------------------------------------------- */

static int write_zeroes(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t size = MIN(bytes, ZERO_BYTES), n;
	void *zeroes = calloc(1, size);
	struct iovec iov[ZERO_IOVECS], part[ZERO_IOVECS];
	int ret = zeroes ? 0 : -ENOMEM, niov;

	for (int i = 0; i < ZERO_IOVECS; i++)
		iov[i] = (struct iovec){zeroes, size};
	for (; bytes && ret == 0; bytes -= n, offset += n) {
		n = MIN(bytes, size * ZERO_IOVECS);
		niov = qcow2_iov_part(iov, ZERO_IOVECS, 0, n, part);
		ret = qcow2_co_write(q, offset, n, part, niov);
	}
	free(zeroes);
	return ret;
}

/* Less than a cluster: nothing is to be done where zeroes are read already. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	struct qcow2_map map;
	uint64_t n;
	int ret = 0;

	for (; bytes && ret == 0; bytes -= n, offset += n) {
		ret = qcow2_map_at(q, offset, bytes, &map);
		if (ret < 0)
			break;
		n = map.bytes;
		if (map.type == QCOW2_ZEROES || (map.type == QCOW2_UNALLOCATED && !q->node.backing))
			continue;
		ret = write_zeroes(q, offset, n);
	}
	return ret;
}

/* --- as mapping -------------------------------------------------------------------------------- */

/* What becomes of the clusters from @start to @end. */
struct change {
	uint64_t start, end; /* on the guest's disk; of whole subclusters */
	bool keep;	     /* clusters that can be written in place stay allocated */
};

/* Bits of the subclusters of the cluster at @cluster that are in the range. */
static uint32_t covered(const struct qcow2 *q, const struct change *c, uint64_t cluster)
{
	uint64_t from = MAX(c->start, cluster) - cluster,
		 to = MIN(c->end, cluster + q->cluster_size) - cluster;
	unsigned int first = from >> q->subcluster_bits;
	unsigned int n = (ALIGN_UP(to, 1ull << q->subcluster_bits) >> q->subcluster_bits) - first;

	return ((1ull << n) - 1) << first;
}

/* The new entry and bitmap of one cluster. False: they remain. */
static bool change_entry(const struct qcow2 *q, const struct change *c, uint64_t cluster,
			 uint64_t *entry, uint64_t *bitmap)
{
	bool compressed = *entry & QCOW2_COMPRESSED, extended = qcow2_is_extended(q);
	bool host = compressed || (*entry & (QCOW2_L2_OFFSET | QCOW2_COPIED));
	bool keep = c->keep && (*entry & QCOW2_COPIED) && !compressed;
	uint64_t old = *entry, old_bitmap = *bitmap;
	uint32_t bits = covered(q, c, cluster);

	/* Without a backing node what is not there is zeroes. */
	if (!host && !q->node.backing)
		return false;
	if (extended && bits != UINT32_MAX) {
		*bitmap = (*bitmap & ~(uint64_t)bits) | (uint64_t)bits << 32;
	} else if (extended) {
		*bitmap = ALL_ZEROES;
		*entry = keep ? *entry : 0;
	} else if (q->version < 3) {
		*entry = 0; /* discards, without a backing node */
	} else {
		*entry = (keep ? *entry : 0) | QCOW2_ZERO;
	}
	return *entry != old || *bitmap != old_bitmap;
}

/* Does the range change anything in this slice? */
static bool changes_slice(const struct qcow2 *q, const struct change *c,
			  const struct qcow2_table *t)
{
	for (uint64_t at = ALIGN_DOWN(c->start, q->cluster_size); at < c->end;
	     at += q->cluster_size) {
		unsigned int i = qcow2_l2_index(q, at);
		uint64_t entry = t ? qcow2_l2_entry(q, t, i) : 0;
		uint64_t bitmap = t && qcow2_is_extended(q) ? qcow2_l2_bitmap(q, t, i) : 0;

		if (change_entry(q, c, at, &entry, &bitmap))
			return true;
	}
	return false;
}

/* All entries are checked before one is changed. */
static int check_slice(struct qcow2 *q, const struct change *c, const struct qcow2_table *t)
{
	struct qcow2_map map;

	for (uint64_t at = c->start; t && at < c->end; at += map.bytes)
		if (qcow2_map(q, t, at, c->end - at, &map) < 0)
			return qcow2_map_corrupt(q, at, &map);
	return 0;
}

/* The data file's part: it is told what is not needed any more, or, if it is to be read as it is, gets the zeroes. */
static int change_data_file(struct qcow2 *q, const struct change *c)
{
	uint64_t end = MIN(c->end, READ_ONCE(q->data->length));
	int ret = 0;

	if (q->data == q->node.file || c->start >= end)
		return 0;
	if (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW)
		ret = block_pzero(q->data, c->start, end - c->start, c->keep ? 0 : BLOCK_UNMAP);
	else if (!c->keep && q->opt.discard_request)
		block_pdiscard(q->data, c->start, end - c->start); /* advice */
	return ret;
}

/* Change one slice. With the lock. */
static int change_slice(struct qcow2 *q, const struct change *c)
{
	struct qcow2_table *t;
	bool changes;
	int ret = qcow2_l2_get(q, c->start, &t);

	if (ret < 0)
		return ret;
	ret = check_slice(q, c, t);
	changes = ret == 0 && changes_slice(q, c, t);
	if (t)
		qcow2_table_put(t);
	if (!changes)
		return ret;
	ret = qcow2_l2_get_writable(q, c->start, &t);
	if (ret < 0)
		return ret;
	for (uint64_t at = ALIGN_DOWN(c->start, q->cluster_size); at < c->end;
	     at += q->cluster_size) {
		unsigned int i = qcow2_l2_index(q, at);
		uint64_t old = qcow2_l2_entry(q, t, i), entry = old;
		uint64_t bitmap = qcow2_is_extended(q) ? qcow2_l2_bitmap(q, t, i) : 0;

		if (!change_entry(q, c, at, &entry, &bitmap))
			continue;
		qcow2_l2_set(q, t, i, entry, bitmap);
		if (((old ^ entry) & (QCOW2_L2_OFFSET | QCOW2_COMPRESSED)) != 0)
			qcow2_unref_entry(q, old, q->opt.discard_request);
	}
	qcow2_table_put(t);
	return change_data_file(q, c);
}

/* From @start to @end, which are the borders of clusters, or of subclusters. */
static int change_range(struct qcow2 *q, uint64_t start, uint64_t end, bool keep)
{
	struct change c = {.keep = keep};
	int ret = 0;

	for (; start < end && ret == 0; start = c.end) {
		c.start = start;
		c.end = MIN(end, ((start >> q->slice_shift) + 1) << q->slice_shift);
		co_lock(&q->lock);
		qcow2_wait_inflight(q, ALIGN_DOWN(c.start, q->cluster_size),
				    ALIGN_UP(c.end, q->cluster_size));
		ret = q->corrupt ? -EIO : change_slice(q, &c);
		if (ret == 0 && qcow2_many_frees(q))
			ret = qcow2_commit(q);
		co_unlock(&q->lock);
	}
	return ret;
}

/* The last cluster counts as a whole. */
static uint64_t end_of(const struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t align)
{
	uint64_t end = offset + bytes;

	return end == READ_ONCE(q->node.length) ? ALIGN_UP(end, align) : ALIGN_DOWN(end, align);
}

/* Only part of a compressed cluster has to become zeroes: it has no subclusters, so that is data. */
static int zero_subclusters(struct qcow2 *q, uint64_t start, uint64_t end, bool keep)
{
	uint64_t cs = q->cluster_size, stop;
	struct qcow2_map map;
	int ret = 0;

	for (; start < end && ret == 0; start = stop) {
		bool whole = !(start & (cs - 1)) && end - start >= cs;

		stop = whole ? ALIGN_DOWN(end, cs) : MIN(end, ALIGN_DOWN(start, cs) + cs);
		if (whole) {
			ret = change_range(q, start, stop, keep);
			continue;
		}
		ret = qcow2_map_at(q, start, stop - start, &map);
		if (ret == 0 && map.type == QCOW2_PACKED)
			ret = write_zeroes(q, start, MIN(stop, READ_ONCE(q->node.length)) - start);
		else if (ret == 0)
			ret = change_range(q, start, stop, keep);
	}
	return ret;
}

int qcow2_co_zero(struct qcow2 *q, uint64_t offset, uint64_t bytes, bool unmap)
{
	uint64_t sub = 1ull << q->subcluster_bits, end = offset + bytes;
	uint64_t first = ALIGN_UP(offset, sub), last = end_of(q, offset, bytes, sub);
	int ret = 0;

	if (q->dirty)
		q->dirty(q, offset, bytes);
	if (q->version < 3 && (!unmap || q->node.backing))
		return write_zeroes(q, offset, bytes);
	if (first >= last)
		return zero_part(q, offset, bytes);
	if (offset < first)
		ret = zero_part(q, offset, first - offset);
	if (ret == 0)
		ret = zero_subclusters(q, first, last,
				       !unmap || (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW));
	if (ret == 0 && last < end)
		ret = zero_part(q, last, end - last);
	return ret;
}

int qcow2_co_discard(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t cs = q->cluster_size, first = ALIGN_UP(offset, cs),
		 last = end_of(q, offset, bytes, cs);

	if (q->dirty)
		q->dirty(q, offset, bytes);
	/* Discards are advice. Nothing of a backing node may come to light, and a raw data file has to agree with the mapping. */
	if ((q->version < 3 && q->node.backing) || (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW))
		return 0;
	return first < last ? change_range(q, first, last, false) : 0;
}

int qcow2_co_flush(struct qcow2 *q)
{
	uint64_t mine = ++q->flushes, begun;
	int ret = 0;

	if (!q->writing)
		return 0;
	co_lock(&q->lock);
	/* What was asked for before a commit began is done by it. */
	begun = q->flushes;
	if (q->flushed < mine) {
		block_event(q->node.file, BLOCK_EVENT_FLUSH_TO_OS);
		ret = qcow2_commit(q);
		if (ret == 0)
			q->flushed = begun;
	}
	co_unlock(&q->lock);
	return ret;
}
