/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: writing where clusters have to be allocated first, zeroes and discards. The order for one write: clusters (in memory: refcounts),
 * guest data together with what has to be copied around it, L2 entries (in memory). Until these are set, q->inflight keeps others away.
 */
#include <stdlib.h>

#include "qcow2.h"

#define SMALL_ZEROES \
	(64 * KiB) /* around a write: as part of it. Larger: have the file system make them */
#define SMALL_MIDDLE \
	(16 * KiB) /* data that is read for nothing, rather than reading twice around it */
#define FEW_IOVECS 16

/* --- who is where ------------------------------------------------------------------------------ */

static struct qcow2_inflight *find_inflight(struct qcow2 *q, uint64_t start, uint64_t end)
{
	struct qcow2_inflight *f;

	list_for_each(f, &q->inflight, link) {
		if (f->start < end && start < f->end)
			return f;
	}
	return NULL;
}

void qcow2_wait_inflight(struct qcow2 *q, uint64_t start, uint64_t end)
{
	struct qcow2_inflight *f;

	while ((f = find_inflight(q, start, end)) != NULL) {
		co_unlock(&q->lock);
		co_queue_wait(&f->waiting);
		co_lock(&q->lock);
	}
}

void qcow2_inflight_begin(struct qcow2 *q, struct qcow2_inflight *f, uint64_t start, uint64_t end)
{
	f->start = start;
	f->end = end;
	f->waiting = (struct co_queue){0};
	list_add_tail(&f->link, &q->inflight);
}

void qcow2_inflight_end(struct qcow2_inflight *f)
{
	list_del(&f->link);
	co_queue_wake_all(&f->waiting);
}

/* --- one allocating write ---------------------------------------------------------------------- */

struct alloc {
	struct qcow2 *q;
	struct qcow2_table *t;	       /* pinned */
	uint64_t offset, bytes;	       /* the guest's data */
	uint64_t start, end;	       /* clusters, on the guest's disk */
	uint64_t host;		       /* of @start */
	bool fresh;		       /* the clusters are new, not preallocated ones */
	bool zeroed;		       /* what is not written there reads as zeroes */
	uint64_t copy_start, copy_end; /* to be written altogether, so much of the clusters */
	struct qcow2_inflight inflight;
};

static uint64_t entry_at(const struct alloc *a, uint64_t offset)
{
	return qcow2_l2_entry(a->q, a->t, qcow2_l2_index(a->q, offset));
}

/* Does the cluster at @offset need a host cluster of its own? */
static int needs_cluster(struct alloc *a, uint64_t offset, bool *needs, struct qcow2_map *map)
{
	int ret = qcow2_map(a->q, a->t, offset, 1, map);

	*needs = ret == 0 && !map->writable;
	return ret < 0 ? qcow2_map_corrupt(a->q, offset, map) : 0;
}

/* How far does the write reach in clusters of the same kind? Sets the range and, unless they are to be allocated, the host's. */
static int find_range(struct alloc *a, uint64_t limit)
{
	struct qcow2 *q = a->q;
	uint64_t cs = q->cluster_size;
	struct qcow2_map map, next;
	bool needs;
	int ret;

	a->start = ALIGN_DOWN(a->offset, cs);
	limit = MIN(ALIGN_UP(limit, cs), ((a->offset >> q->slice_shift) + 1) << q->slice_shift);
	ret = needs_cluster(a, a->start, &a->fresh, &map);
	if (ret < 0)
		return ret;
	a->host = map.host;
	for (a->end = a->start + cs; a->end < limit; a->end += cs) {
		ret = needs_cluster(a, a->end, &needs, &next);
		if (ret < 0)
			return ret;
		if (needs != a->fresh || find_inflight(q, a->end, a->end + cs) ||
		    (!needs &&
		     (next.host != a->host + (a->end - a->start) || next.type != map.type)))
			break;
	}
	return 0;
}

/* Must what the cluster at @offset held be kept as a whole? Else only subclusters that the write touches are completed. */
static bool keeps_cluster(const struct alloc *a, uint64_t offset)
{
	uint64_t entry = entry_at(a, offset);

	if (!qcow2_is_extended(a->q))
		return true;
	return a->fresh && ((entry & QCOW2_COMPRESSED) || (entry & QCOW2_L2_OFFSET));
}

static void find_copies(struct alloc *a)
{
	uint64_t cs = a->q->cluster_size, sub = 1ull << a->q->subcluster_bits;
	uint64_t end = a->offset + a->bytes, last = ALIGN_DOWN(end - 1, cs);
	uint64_t disk = READ_ONCE(a->q->node.length);

	a->copy_start = keeps_cluster(a, a->start) ? a->start : ALIGN_DOWN(a->offset, sub);
	a->copy_end = keeps_cluster(a, last) ? last + cs : ALIGN_UP(end, sub);
	/* An external data file is not longer than the disk. */
	if (a->q->data != a->q->node.file && a->copy_end > disk)
		a->copy_end = MAX(end, disk);
}

static int get_clusters(struct alloc *a)
{
	struct qcow2 *q = a->q;
	uint64_t n = (a->end - a->start) >> q->cluster_bits, used = q->high_water;
	int ret;

	if (!a->fresh)
		return 0;
	if (q->data != q->node.file) {
		a->host = a->start;
		return 0;
	}
	ret = qcow2_alloc(q, &n, 1, &a->host);
	if (ret < 0)
		return ret;
	a->end = a->start + (n << q->cluster_bits);
	a->zeroed = a->host >= used;
	return 0;
}

/* Does this range of the disk read as zeroes, as far as can be said without I/O? */
static bool reads_zero(const struct alloc *a, uint64_t from, uint64_t to)
{
	struct qcow2 *q = a->q;
	struct block_node *backing = q->node.backing;
	struct qcow2_map map;

	for (; from < to; from += map.bytes) {
		if (qcow2_map(q, a->t, from, to - from, &map) < 0)
			return false;
		if (map.type == QCOW2_ZEROES)
			continue;
		if (map.type != QCOW2_UNALLOCATED || (backing && from < READ_ONCE(backing->length)))
			return false;
	}
	return true;
}

static int read_to(struct qcow2 *q, uint64_t from, uint64_t to, uint8_t *buf)
{
	const struct iovec iov = {buf, to - from};

	return from < to ? qcow2_co_read(q, from, to - from, &iov, 1) : 0;
}

/* The data with what is around it, in one write. */
static int write_around(struct alloc *a, uint8_t *head, uint8_t *tail, const struct iovec *iov,
			int niov, uint64_t skip)
{
	struct qcow2 *q = a->q;
	uint64_t end = a->offset + a->bytes, at = a->host + (a->copy_start - a->start);
	struct iovec few[FEW_IOVECS],
		*out = niov + 2 <= FEW_IOVECS ? few : malloc((niov + 2) * sizeof(*out));
	int n = 0, ret;

	if (!out)
		return -ENOMEM;
	if (a->copy_start < a->offset)
		out[n++] = (struct iovec){head, a->offset - a->copy_start};
	n += qcow2_iov_part(iov, niov, skip, a->bytes, out + n);
	if (end < a->copy_end)
		out[n++] = (struct iovec){tail, a->copy_end - end};
	block_event(q->node.file, a->copy_end - a->copy_start > a->bytes ? BLOCK_EVENT_COW_WRITE
									 : BLOCK_EVENT_WRITE_AIO);
	ret = block_pwritev(q->data, at, a->copy_end - a->copy_start, out, n, 0);
	if (out != few)
		free(out);
	return ret;
}

/* Nothing but zeroes is around the data. */
static int write_in_zeroes(struct alloc *a, const struct iovec *iov, int niov, uint64_t skip)
{
	struct qcow2 *q = a->q;
	uint64_t end = a->offset + a->bytes, around = a->copy_end - a->copy_start - a->bytes;
	uint8_t *zeroes;
	int ret = 0;

	if (!a->zeroed && around && around <= SMALL_ZEROES) {
		zeroes = calloc(1, around);
		if (!zeroes)
			return -ENOMEM;
		ret = write_around(a, zeroes, zeroes, iov, niov, skip);
		free(zeroes);
		return ret;
	}
	if (!a->zeroed && a->copy_start < a->offset)
		ret = block_pzero(q->data, a->host + (a->copy_start - a->start),
				  a->offset - a->copy_start, 0);
	if (ret == 0 && !a->zeroed && end < a->copy_end)
		ret = block_pzero(q->data, a->host + (end - a->start), a->copy_end - end, 0);
	a->copy_start = a->offset;
	a->copy_end = end;
	return ret < 0 ? ret : write_around(a, NULL, NULL, iov, niov, skip);
}

static int write_data(struct alloc *a, const struct iovec *iov, int niov, uint64_t skip)
{
	struct qcow2 *q = a->q;
	uint64_t end = a->offset + a->bytes, head = a->offset - a->copy_start,
		 tail = a->copy_end - end;
	bool in_one = head && tail && a->bytes <= SMALL_MIDDLE;
	uint64_t size = head + tail + (in_one ? a->bytes : 0);
	uint8_t *buf, *after;
	int ret;

	if (reads_zero(a, a->copy_start, a->offset) && reads_zero(a, end, a->copy_end))
		return write_in_zeroes(a, iov, niov, skip);
	buf = aligned_alloc(PAGE_SIZE, ALIGN_UP(size, PAGE_SIZE));
	if (!buf)
		return -ENOMEM;
	block_event(q->node.file, BLOCK_EVENT_COW_READ);
	after = in_one ? buf + head + a->bytes : buf + head;
	if (in_one) {
		ret = read_to(q, a->copy_start, a->copy_end, buf);
	} else {
		ret = read_to(q, a->copy_start, a->offset, buf);
		if (ret == 0)
			ret = read_to(q, end, a->copy_end, after);
	}
	if (ret == 0)
		ret = write_around(a, buf, after, iov, niov, skip);
	free(buf);
	return ret;
}

/* The subclusters of the cluster at @cluster that now are in its host cluster. */
static uint64_t new_bitmap(const struct alloc *a, uint64_t cluster, uint64_t old)
{
	const struct qcow2 *q = a->q;
	uint64_t from = MAX(a->copy_start, cluster) - cluster;
	uint64_t to = MIN(a->copy_end, cluster + q->cluster_size) - cluster, bits;
	unsigned int first = from >> q->subcluster_bits;
	unsigned int n = (ALIGN_UP(to, 1ull << q->subcluster_bits) >> q->subcluster_bits) - first;

	bits = ((1ull << n) - 1) << first;
	return (old | bits) & ~(bits << 32);
}

/* Make the data visible. */
static void link_clusters(struct alloc *a)
{
	struct qcow2 *q = a->q;

	for (uint64_t c = a->start; c < a->end; c += q->cluster_size) {
		unsigned int i = qcow2_l2_index(q, c);
		uint64_t old = qcow2_l2_entry(q, a->t, i), bitmap = 0;

		if (qcow2_is_extended(q)) {
			bitmap = old & QCOW2_COMPRESSED ? 0 : qcow2_l2_bitmap(q, a->t, i);
			bitmap = new_bitmap(a, c, bitmap);
		}
		qcow2_l2_set(q, a->t, i, (a->host + (c - a->start)) | QCOW2_COPIED, bitmap);
		if (a->fresh)
			qcow2_unref_entry(q, old, q->opt.discard_other);
	}
}

static int not_on_metadata(struct qcow2 *q, uint64_t host, uint64_t bytes)
{
	enum qcow2_meta kind = q->data == q->node.file ? qcow2_meta_find(q, host, bytes)
						       : QCOW2_META_NONE;

	if (!kind)
		return 0;
	return qcow2_corrupt(q, "guest data would overwrite %s at offset %llu",
			     qcow2_meta_name(kind), (unsigned long long)host);
}

/*
 * Write from @offset on, up to @limit, as much as fits into one allocation: how much that was in @done. The lock is held at first and
 * not in the end.
 */
static int write_allocating(struct qcow2 *q, uint64_t offset, uint64_t limit,
			    const struct iovec *iov, int niov, uint64_t skip, uint64_t *done)
{
	struct alloc a = {.q = q, .offset = offset};
	int ret = qcow2_l2_get_writable(q, offset, &a.t);

	if (ret == 0) {
		ret = find_range(&a, limit);
		if (ret == 0)
			ret = get_clusters(&a);
		if (ret == 0 && !a.fresh)
			ret = not_on_metadata(q, a.host, a.end - a.start);
		if (ret < 0)
			qcow2_table_put(a.t);
	}
	if (ret < 0) {
		co_unlock(&q->lock);
		return ret;
	}
	a.bytes = MIN(limit, a.end) - offset;
	find_copies(&a);
	qcow2_inflight_begin(q, &a.inflight, a.start, a.end);
	co_unlock(&q->lock);
	ret = write_data(&a, iov, niov, skip);
	co_lock(&q->lock);
	if (ret == 0)
		link_clusters(&a);
	else if (a.fresh && q->data == q->node.file)
		qcow2_unref(q, a.host, (a.end - a.start) >> q->cluster_bits, true);
	qcow2_table_put(a.t);
	qcow2_inflight_end(&a.inflight);
	if (qcow2_many_frees(q))
		qcow2_commit(q); /* if that fails now, the next flush says so */
	co_unlock(&q->lock);
	*done = a.bytes;
	return ret;
}

/* The same where it can be written in place. */
static int write_in_place(struct qcow2 *q, const struct qcow2_map *map, const struct iovec *iov,
			  int niov, uint64_t skip)
{
	struct iovec few[FEW_IOVECS],
		*part = niov <= FEW_IOVECS ? few : malloc(niov * sizeof(*part));
	int ret = part ? not_on_metadata(q, map->host, map->bytes) : -ENOMEM;
	unsigned int phase = qcow2_enter(q);

	co_unlock(&q->lock);
	block_event(q->node.file, BLOCK_EVENT_WRITE_AIO);
	if (ret == 0)
		ret = block_pwritev(q->data, map->host, map->bytes, part,
				    qcow2_iov_part(iov, niov, skip, map->bytes, part), 0);
	qcow2_leave(q, phase);
	if (part != few)
		free(part);
	return ret;
}

/* The map at @offset, with the lock. */
static int map_locked(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_map *map)
{
	struct qcow2_table *t;
	int ret = qcow2_l2_get(q, offset, &t);

	*map = (struct qcow2_map){.type = QCOW2_UNALLOCATED};
	if (ret < 0 || !t)
		return ret;
	ret = qcow2_map(q, t, offset, bytes, map);
	qcow2_table_put(t);
	return ret < 0 ? qcow2_map_corrupt(q, offset, map) : 0;
}

int qcow2_co_write(struct qcow2 *q, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		   int niov)
{
	uint64_t done = 0, end = offset + bytes;
	int ret = qcow2_l2_preload(q, offset);

	if (q->dirty)
		q->dirty(q, offset, bytes);
	for (uint64_t pos = 0; pos < bytes && ret == 0; pos += done) {
		uint64_t at = offset + pos, cluster = ALIGN_DOWN(at, q->cluster_size);
		struct qcow2_map map;

		co_lock(&q->lock);
		qcow2_wait_inflight(q, cluster, cluster + q->cluster_size);
		ret = q->corrupt ? -EIO : map_locked(q, at, end - at, &map);
		if (ret < 0) {
			co_unlock(&q->lock);
		} else if (map.type == QCOW2_NORMAL && map.writable) {
			done = map.bytes;
			ret = write_in_place(q, &map, iov, niov, pos);
		} else {
			ret = write_allocating(q, at, end, iov, niov, pos, &done);
		}
	}
	return ret;
}
