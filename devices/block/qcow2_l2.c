/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: from the guest's offsets to clusters of the file. */
#include <stdlib.h>

#include "qcow2.h"

/* --- L1 ---------------------------------------------------------------------------------------- */

int qcow2_load_l1(struct qcow2 *q, struct hako_error *err)
{
	unsigned int shift = q->cluster_bits + q->l2_bits;
	uint64_t need = shift < 64 ? (q->size >> shift) + ((q->size & ((1ull << shift) - 1)) != 0)
				   : 1;
	uint64_t bytes = q->l1_size * 8ull;
	int ret = qcow2_check_table(q, "the L1 table", q->l1_offset, bytes, QCOW2_MAX_L1_BYTES,
				    err);

	if (ret < 0)
		return ret;
	if (q->l1_size < need)
		return error_set(err, -EINVAL,
				 "the L1 table has %u entries, and %llu bytes need %llu",
				 q->l1_size, (unsigned long long)q->size, (unsigned long long)need);
	q->l1 = malloc(MAX(bytes, 8ull));
	q->l1_dirty = calloc(1, qcow2_dirty_bytes(q->l1_size));
	if (!q->l1 || !q->l1_dirty)
		return error_errno(err, -ENOMEM, "the L1 table");
	ret = qcow2_read_meta(q, q->l1_offset, q->l1, bytes);
	if (ret < 0)
		return error_errno(err, ret, "reading the L1 table at offset %llu",
				   (unsigned long long)q->l1_offset);
	for (uint32_t i = 0; i < q->l1_size; i++)
		q->l1[i] = be64toh(q->l1[i]);
	return 0;
}

void qcow2_set_l1(struct qcow2 *q, uint32_t index, uint64_t entry)
{
	uint32_t part = index / QCOW2_DIRTY_ENTRIES;

	q->changes++;
	q->l1[index] = entry;
	q->l1_dirty[part / 8] |= BIT(part % 8);
	q->any_l1_dirty = true;
}

/* Such an entry's table may not be in the file yet. */
static bool is_l1_dirty(const struct qcow2 *q, uint64_t index)
{
	uint64_t part = index / QCOW2_DIRTY_ENTRIES;

	return q->l1_dirty[part / 8] & BIT(part % 8);
}

/* --- L2 tables --------------------------------------------------------------------------------- */

static uint64_t l1_index(const struct qcow2 *q, uint64_t offset)
{
	return offset >> (q->cluster_bits + q->l2_bits);
}

/* Where the slice for @offset is in its table. */
static uint64_t in_table(const struct qcow2 *q, uint64_t offset)
{
	uint64_t slices = 1ull << (q->cluster_bits - q->l2.bits);

	return ((offset >> q->slice_shift) & (slices - 1)) << q->l2.bits;
}

int qcow2_l2_get(struct qcow2 *q, uint64_t offset, struct qcow2_table **table)
{
	uint64_t index = l1_index(q, offset), entry, l2;
	struct qcow2_table *t = qcow2_cache_find(&q->l2, offset >> q->slice_shift);

	if (t) {
		t->used = true;
		t->pins++;
		*table = t;
		return 0;
	}
	*table = NULL;
	if (index >= q->l1_size)
		return -EINVAL;
	entry = q->l1[index];
	l2 = entry & QCOW2_L1_OFFSET;
	if ((entry & QCOW2_L1_RESERVED) || (l2 & (q->cluster_size - 1)) ||
	    (l2 >= qcow2_file_clusters(q) << q->cluster_bits && !is_l1_dirty(q, index)))
		return qcow2_corrupt(
			q, "L1 entry %llu: 0x%llx is no place for an L2 table in this file",
			(unsigned long long)index, (unsigned long long)entry);
	if (!l2)
		return 0;
	return qcow2_cache_get(q, &q->l2, offset >> q->slice_shift, l2 + in_table(q, offset), false,
			       table);
}

/* Is there a sound table in the file, of which nothing is in memory only? */
static bool is_loadable(const struct qcow2 *q, uint64_t index)
{
	uint64_t entry = index < q->l1_size ? q->l1[index] : 0, l2 = entry & QCOW2_L1_OFFSET;

	return l2 && !(entry & QCOW2_L1_RESERVED) && !(l2 & (q->cluster_size - 1)) &&
	       l2 + q->cluster_size <= READ_ONCE(q->node.file->length) && !is_l1_dirty(q, index);
}

int qcow2_l2_preload(struct qcow2 *q, uint64_t offset)
{
	uint64_t index = l1_index(q, offset), key = offset >> q->slice_shift;
	struct qcow2_load mine = {.key = key}, *l;
	unsigned int phase;
	int ret;

	if (q->frozen || qcow2_cache_find(&q->l2, key) || !is_loadable(q, index))
		return 0;
	list_for_each(l, &q->loads, link) {
		if (l->key == key) {
			co_queue_wait(&l->waiting);
			return 0;
		}
	}
	list_add_tail(&mine.link, &q->loads);
	/* The table's cluster is not used for anything else meanwhile. */
	phase = qcow2_enter(q);
	ret = qcow2_cache_preload(q, &q->l2, key,
				  (q->l1[index] & QCOW2_L1_OFFSET) + in_table(q, offset));
	qcow2_leave(q, phase);
	list_del(&mine.link);
	co_queue_wake_all(&mine.waiting);
	return ret;
}

/* The tables that are in memory have moved with the L2 table. */
static void move_slices(struct qcow2 *q, uint64_t index, uint64_t l2)
{
	uint64_t slices = 1ull << (q->cluster_bits - q->l2.bits);

	for (uint64_t i = 0; i < slices; i++) {
		struct qcow2_table *t = qcow2_cache_find(&q->l2, index * slices + i);

		if (t)
			t->offset = l2 + (i << q->l2.bits);
	}
}

static int copy_cluster(struct qcow2 *q, uint64_t from, uint64_t to)
{
	void *buf = aligned_alloc(MIN(q->cluster_size, PAGE_SIZE), q->cluster_size);
	int ret;

	if (!buf)
		return -ENOMEM;
	ret = qcow2_read_meta(q, from, buf, q->cluster_size);
	if (ret == 0)
		ret = block_pwrite(q->node.file, to, buf, q->cluster_size, 0);
	free(buf);
	return ret;
}

/* An L2 table of this L1 entry's own: a new one, or a copy of the one that snapshots have too. */
static int make_l2(struct qcow2 *q, uint64_t index)
{
	uint64_t old = q->l1[index] & QCOW2_L1_OFFSET, used = q->high_water, n = 1, l2;
	int ret = qcow2_alloc(q, &n, 1, &l2);

	if (ret < 0)
		return ret;
	if (old)
		ret = copy_cluster(q, old, l2);
	else if (l2 < used)
		ret = qcow2_zero_table(q, l2);
	if (ret == 0)
		ret = qcow2_meta_add(q, l2, q->cluster_size, QCOW2_META_L2);
	if (ret < 0) {
		qcow2_unref(q, l2, 1, true);
		return ret;
	}
	qcow2_set_l1(q, index, l2 | QCOW2_COPIED);
	if (old) {
		move_slices(q, index, l2);
		qcow2_unref(q, old, 1, q->opt.discard_other);
	}
	return 0;
}

int qcow2_l2_get_writable(struct qcow2 *q, uint64_t offset, struct qcow2_table **table)
{
	uint64_t index = l1_index(q, offset), l2;
	bool is_new;
	int ret;

	*table = NULL;
	if (index >= q->l1_size)
		return -EINVAL;
	if ((q->l1[index] & QCOW2_COPIED) && (q->l1[index] & QCOW2_L1_OFFSET))
		return qcow2_l2_get(q, offset, table);
	/* Is the old one sound? */
	ret = qcow2_l2_get(q, offset, table);
	if (ret < 0)
		return ret;
	if (*table)
		qcow2_table_put(*table);
	is_new = !*table;
	ret = make_l2(q, index);
	if (ret < 0)
		return ret;
	l2 = q->l1[index] & QCOW2_L1_OFFSET;
	ret = qcow2_cache_get(q, &q->l2, offset >> q->slice_shift, l2 + in_table(q, offset), is_new,
			      table);
	if (ret < 0 && is_new) {
		/* Nothing of it would ever be written. */
		qcow2_set_l1(q, index, 0);
		qcow2_unref(q, l2, 1, true);
	}
	return ret;
}

void qcow2_l2_set(struct qcow2 *q, struct qcow2_table *t, unsigned int i, uint64_t entry,
		  uint64_t bitmap)
{
	uint8_t *p = t->data + ((size_t)i << q->l2_entry_shift);

	entry = htobe64(entry);
	memcpy(p, &entry, 8);
	if (qcow2_is_extended(q)) {
		bitmap = htobe64(bitmap);
		memcpy(p + 8, &bitmap, 8);
	}
	qcow2_table_dirty(q, &q->l2, t);
}

void qcow2_unref_entry(struct qcow2 *q, uint64_t entry, bool discard)
{
	uint64_t offset, bytes, first, last;

	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(q, entry, &offset, &bytes);
		first = offset >> q->cluster_bits;
		last = (offset + bytes - 1) >> q->cluster_bits;
		qcow2_unref(q, first << q->cluster_bits, last - first + 1, discard);
	} else if ((entry & QCOW2_L2_OFFSET) && !qcow2_has_data_file(q)) {
		qcow2_unref(q, entry & QCOW2_L2_OFFSET, 1, discard);
	}
}

/* --- mapping ----------------------------------------------------------------------------------- */

static int bad(struct qcow2_map *map, const char *why)
{
	map->why = why;
	return -EIO;
}

/* Check an entry, and say what its cluster's start is. */
static int map_entry(const struct qcow2 *q, uint64_t entry, uint64_t guest, struct qcow2_map *map)
{
	uint64_t host = entry & QCOW2_L2_OFFSET;
	bool data_file = qcow2_has_data_file(q),
	     has_host = host || (data_file && (entry & QCOW2_COPIED));

	map->entry = entry;
	map->host = 0;
	map->has_host = has_host;
	if (entry & QCOW2_COMPRESSED) {
		map->type = QCOW2_PACKED;
		map->has_host = map->writable = false;
		return data_file ? bad(map, "compressed, in an image with an external data file")
				 : 0;
	}
	if (entry & (qcow2_is_extended(q) || q->version < 3 ? QCOW2_L2_RESERVED | QCOW2_ZERO
							    : QCOW2_L2_RESERVED))
		return bad(map, "reserved bits are set");
	if (host & (q->cluster_size - 1))
		return bad(map, "it does not point to a cluster's start");
	if (has_host && data_file && host != guest)
		return bad(map, "in the external data file it is not where it has to be");
	map->host = host;
	map->writable = has_host && (entry & QCOW2_COPIED);
	if (entry & QCOW2_ZERO)
		map->type = QCOW2_ZEROES;
	else
		map->type = has_host ? QCOW2_NORMAL : QCOW2_UNALLOCATED;
	return 0;
}

/* Bits of a bitmap, from @first on, that are like the first: how many. */
static unsigned int run_of(uint32_t bits, unsigned int first)
{
	uint32_t v = bits >> first;

	if (v & 1)
		v = ~v;
	return MIN(v ? (unsigned int)__builtin_ctz(v) : 32u, QCOW2_SUBCLUSTERS - first);
}

/* The same for subcluster @first of an extended entry; how many more are alike in @n. */
static int map_bitmap(uint64_t bitmap, unsigned int first, struct qcow2_map *map, unsigned int *n)
{
	uint32_t allocated = bitmap, zero = bitmap >> 32;

	*n = QCOW2_SUBCLUSTERS - first;
	if (map->type == QCOW2_PACKED)
		return 0;
	if (allocated & zero)
		return bad(map, "a subcluster is allocated and zeroes");
	if (allocated && !map->has_host)
		return bad(map, "a subcluster is allocated, and the cluster is not");
	*n = MIN(run_of(allocated, first), run_of(zero, first));
	map->type = allocated >> first & 1 ? QCOW2_NORMAL
		    : zero >> first & 1	   ? QCOW2_ZEROES
					   : QCOW2_UNALLOCATED;
	return 0;
}

static int map_one(const struct qcow2 *q, const struct qcow2_table *t, uint64_t offset,
		   struct qcow2_map *map)
{
	uint64_t in_cluster = offset & (q->cluster_size - 1);
	unsigned int i = qcow2_l2_index(q, offset), n, sub;
	int ret = map_entry(q, qcow2_l2_entry(q, t, i), offset - in_cluster, map);

	if (ret < 0)
		return ret;
	map->bytes = q->cluster_size - in_cluster;
	if (qcow2_is_extended(q)) {
		sub = in_cluster >> q->subcluster_bits;
		ret = map_bitmap(qcow2_l2_bitmap(q, t, i), sub, map, &n);
		map->bytes = ((uint64_t)(sub + n) << q->subcluster_bits) - in_cluster;
	}
	if (ret == 0 && map->type == QCOW2_NORMAL && q->data == q->node.file &&
	    unlikely(map->host >= READ_ONCE(q->data->length)))
		return bad(map, "it points beyond the end of the file");
	if (map->has_host)
		map->host += in_cluster;
	return ret;
}

int qcow2_map(const struct qcow2 *q, const struct qcow2_table *t, uint64_t offset, uint64_t bytes,
	      struct qcow2_map *map)
{
	uint64_t slice_end = ((offset >> q->slice_shift) + 1) << q->slice_shift;
	struct qcow2_map more;
	int ret = map_one(q, t, offset, map);

	if (ret < 0)
		return ret;
	bytes = MIN(bytes, slice_end - offset);
	while (map->bytes < bytes && map->type != QCOW2_PACKED) {
		/* What is wrong there is found when it is that one's turn. */
		if (map_one(q, t, offset + map->bytes, &more) < 0 || more.type != map->type ||
		    more.writable != map->writable || more.has_host != map->has_host ||
		    (map->has_host && more.host != map->host + map->bytes))
			break;
		map->bytes += more.bytes;
	}
	map->bytes = MIN(map->bytes, bytes);
	return 0;
}

int qcow2_map_corrupt(struct qcow2 *q, uint64_t offset, const struct qcow2_map *map)
{
	return qcow2_corrupt(q, "L2 entry 0x%llx, for offset %llu of the disk: %s",
			     (unsigned long long)map->entry, (unsigned long long)offset, map->why);
}
