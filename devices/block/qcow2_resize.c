/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: another size for the disk. */
#include <stdlib.h>

#include "qcow2_manage.h"

#define ZERO_BYTES (1 * MiB)

/* A new table of @n entries, with those of the old one as far as they go, and a header that says @size. */
static int switch_size(struct qcow2 *q, uint32_t n, uint64_t size)
{
	uint64_t *l1 = calloc(n + 1ull, 8), offset = q->l1_offset;
	int ret = l1 ? 0 : -ENOMEM;

	if (ret == 0) {
		memcpy(l1, q->l1, 8ull * MIN(n, q->l1_size));
		if (n > q->l1_size)
			ret = qcow2_write_l1(q, l1, n, 0, &offset);
	}
	if (ret == 0) {
		ret = qcow2_switch_l1(q, l1, n, offset, size);
		if (ret < 0 && offset != q->l1_offset)
			qcow2_unref(q, offset, (8ull * n + q->cluster_size - 1) >> q->cluster_bits,
				    false);
	}
	if (ret < 0)
		free(l1);
	return ret;
}

/* --- grow ---------------------------------------------------------------------------------------- */

static int write_zeroes(struct block_node *node, uint64_t offset, uint64_t bytes)
{
	void *zeroes = calloc(1, ZERO_BYTES);
	int ret = zeroes ? 0 : -ENOMEM;

	for (; ret == 0 && bytes; offset += MIN(bytes, ZERO_BYTES), bytes -= MIN(bytes, ZERO_BYTES))
		ret = block_pwrite(node, offset, zeroes, MIN(bytes, ZERO_BYTES), 0);
	free(zeroes);
	return ret;
}

/* Have @bytes at @offset of the file that holds the data exist as @prealloc says. */
static int make_room(struct qcow2 *q, uint64_t offset, uint64_t bytes, enum block_prealloc prealloc,
		     struct hako_error *err)
{
	uint64_t length = READ_ONCE(q->data->length);
	int ret;

	if (offset + bytes > length) {
		ret = block_resize(
			q->data, offset + bytes,
			prealloc == BLOCK_PREALLOC_FALLOC ? prealloc : BLOCK_PREALLOC_OFF, err);
		if (ret < 0)
			return ret;
	}
	if (prealloc != BLOCK_PREALLOC_FULL)
		return 0;
	ret = write_zeroes(q->data, offset, bytes);
	return ret < 0 ? error_errno(err, ret, "writing zeroes") : 0;
}

/* Map @bytes at guest's @offset, which nothing is mapped at, to @host; all in one slice. */
static int map_slice(struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t host)
{
	struct qcow2_table *t;
	int ret = qcow2_l2_get_writable(q, offset, &t);
	unsigned int i = qcow2_l2_index(q, offset);

	if (ret < 0)
		return ret;
	/* Extended entries: no subcluster is allocated yet. */
	for (uint64_t done = 0; done < bytes; done += q->cluster_size, i++)
		qcow2_l2_set(q, t, i, (host + done) | QCOW2_COPIED, 0);
	qcow2_table_put(t);
	return 0;
}

static int map_run(struct qcow2 *q, uint64_t offset, uint64_t bytes, uint64_t host)
{
	int ret = 0;

	while (bytes && ret == 0) {
		uint64_t slice = (1ull << q->slice_shift) -
				 (offset & ((1ull << q->slice_shift) - 1));
		uint64_t n = MIN(bytes, slice);

		ret = map_slice(q, offset, n, host);
		offset += n;
		host += n;
		bytes -= n;
	}
	return ret;
}

/* Allocate all clusters from @start on. */
static int preallocate(struct qcow2 *q, uint64_t start, enum block_prealloc prealloc,
		       struct hako_error *err)
{
	uint64_t end = ALIGN_UP(q->size, q->cluster_size), host;
	int ret = 0;

	start = ALIGN_UP(start, q->cluster_size);
	for (uint64_t n; start < end && ret == 0; start += n << q->cluster_bits) {
		n = MIN((end - start) >> q->cluster_bits, (1 * GiB) >> q->cluster_bits);
		host = start;
		if (!qcow2_has_data_file(q))
			ret = qcow2_alloc(q, &n, 1, &host);
		if (ret < 0)
			return error_errno(err, ret, "allocating clusters");
		ret = make_room(q, host, n << q->cluster_bits, prealloc, err);
		if (ret < 0)
			return ret;
		ret = map_run(q, start, n << q->cluster_bits, host);
		if (ret < 0)
			error_errno(err, ret, "mapping clusters");
	}
	return ret;
}

/* What was beyond the end, or in the backing node only, must not show up now. */
static int zero_new(struct qcow2 *q, uint64_t old, struct hako_error *err)
{
	uint64_t end = MIN(q->size, ALIGN_UP(old, q->cluster_size));
	int ret = 0;

	if (q->node.backing)
		end = MAX(end, MIN(q->size, READ_ONCE(q->node.backing->length)));
	if (end > old)
		ret = qcow2_co_zero(q, old, end - old, true);
	return ret < 0 ? error_errno(err, ret, "zeroing what is new") : 0;
}

static int grow(struct qcow2 *q, uint64_t length, enum block_prealloc prealloc,
		struct hako_error *err)
{
	uint64_t n = MAX(qcow2_l1_entries(q, length), (uint64_t)q->l1_size), old = q->size;
	int ret;

	if (n * 8 > QCOW2_MAX_L1_BYTES)
		return error_set(err, -EFBIG,
				 "the size is too large for qcow2 with clusters of %llu bytes",
				 (unsigned long long)q->cluster_size);
	if (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW)
		prealloc = MAX(prealloc, BLOCK_PREALLOC_METADATA);
	if (q->node.backing && prealloc && !qcow2_is_extended(q))
		return error_set(err, -ENOTSUP,
				 "preallocation with a backing file needs extended L2 entries");
	if (qcow2_has_data_file(q)) {
		ret = block_resize(q->data, length, BLOCK_PREALLOC_OFF, err);
		if (ret < 0)
			return ret;
	}
	qcow2_freeze(q);
	ret = switch_size(q, n, length);
	if (ret < 0)
		error_errno(err, ret, "writing the L1 table and the header");
	if (ret == 0 && prealloc)
		ret = preallocate(q, old, prealloc, err);
	if (ret == 0)
		ret = qcow2_bitmaps_resize(q, err);
	if (ret == 0)
		ret = qcow2_commit(q);
	qcow2_thaw(q);
	return ret < 0 ? ret : zero_new(q, old, err);
}

/* --- shrink -------------------------------------------------------------------------------------- */

/* Drop the mappings from @start to the end of its L2 table. */
static int drop_in_table(struct qcow2 *q, uint64_t start)
{
	uint64_t table = 1ull << (q->cluster_bits + q->l2_bits), end = ALIGN_UP(start, table);
	struct qcow2_table *t;
	int ret = 0;

	while (start < end && ret == 0) {
		uint64_t next = MIN(end, ALIGN_UP(start + 1, 1ull << q->slice_shift));

		ret = qcow2_l2_get(q, start, &t);
		if (ret < 0 || !t)
			return ret;
		qcow2_table_put(t);
		ret = qcow2_l2_get_writable(q, start, &t);
		if (ret < 0)
			return ret;
		for (unsigned int i = qcow2_l2_index(q, start); start < next;
		     start += q->cluster_size, i++) {
			uint64_t entry = qcow2_l2_entry(q, t, i);

			if (!entry && (!qcow2_is_extended(q) || !qcow2_l2_bitmap(q, t, i)))
				continue;
			qcow2_l2_set(q, t, i, 0, 0);
			qcow2_unref_entry(q, entry, true);
		}
		qcow2_table_put(t);
		if (qcow2_many_frees(q))
			ret = qcow2_commit(q);
	}
	return ret;
}

/* Drop whole L2 tables, from L1 entry @first on. */
static int drop_tables(struct qcow2 *q, uint32_t first)
{
	uint32_t n = q->l1_size > first ? q->l1_size - first : 0;
	uint64_t *gone;
	int ret;

	if (!n)
		return 0;
	gone = malloc(8ull * n);
	if (!gone)
		return -ENOMEM;
	memcpy(gone, q->l1 + first, 8ull * n);
	for (uint32_t i = 0; i < n; i++)
		if (gone[i])
			qcow2_set_l1(q, first + i, 0);
	ret = qcow2_commit_all(q);
	qcow2_cache_drop(&q->l2);
	if (ret == 0 && !qcow2_has_data_file(q))
		ret = qcow2_tree_unref(q, gone, n);
	for (uint32_t i = 0; i < n && ret == 0 && qcow2_has_data_file(q); i++)
		if (gone[i] & QCOW2_L1_OFFSET)
			qcow2_unref(q, gone[i] & QCOW2_L1_OFFSET, 1, true);
	free(gone);
	return ret;
}

/* Cut off what is free at the file's end. */
static int cut_file(struct qcow2 *q)
{
	uint64_t n = qcow2_file_clusters(q), refcount = 0;
	int ret = 0;

	while (n && ret == 0 && !refcount) {
		ret = qcow2_get_refcount(q, (n - 1) << q->cluster_bits, &refcount);
		n -= ret == 0 && !refcount;
	}
	if (ret == 0 && n << q->cluster_bits < READ_ONCE(q->node.file->length))
		ret = block_resize(q->node.file, n << q->cluster_bits, BLOCK_PREALLOC_OFF, NULL);
	return ret == -EOPNOTSUPP ? 0 : ret;
}

static int shrink(struct qcow2 *q, uint64_t length, struct hako_error *err)
{
	int ret;

	qcow2_freeze(q);
	ret = switch_size(q, q->l1_size, length);
	if (ret == 0)
		ret = drop_tables(q, qcow2_l1_entries(q, length));
	if (ret == 0)
		ret = drop_in_table(q, ALIGN_UP(length, q->cluster_size));
	if (ret == 0)
		ret = qcow2_commit_all(q);
	if (ret == 0)
		ret = cut_file(q);
	if (ret == 0)
		ret = qcow2_bitmaps_resize(q, NULL);
	qcow2_thaw(q);
	if (ret < 0)
		return error_errno(err, ret, "shrinking");
	return qcow2_has_data_file(q) ? block_resize(q->data, length, BLOCK_PREALLOC_OFF, err) : 0;
}

int qcow2_make_empty(struct block_node *node, struct hako_error *err)
{
	struct qcow2 *q;
	int ret;

	if (!qcow2_is_node(node))
		return error_set(err, -ENOTSUP, "a %s image can not be emptied",
				 node->obj.class->name);
	q = qcow2_of(node);
	if (node->read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	qcow2_freeze(q);
	ret = qcow2_commit_all(q);
	if (ret == 0)
		ret = drop_tables(q, 0);
	if (ret == 0)
		ret = qcow2_commit_all(q);
	if (ret == 0)
		ret = cut_file(q);
	qcow2_thaw(q);
	return ret < 0 ? error_errno(err, ret, "emptying the image") : 0;
}

int qcow2_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		 struct hako_error *err)
{
	struct qcow2 *q = qcow2_of(node);
	int ret;

	if (node->read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	if (length & 511)
		return error_set(err, -EINVAL, "a size of %llu bytes is no multiple of 512",
				 (unsigned long long)length);
	if (q->version < 3 && q->nb_snapshots)
		return error_set(err, -ENOTSUP,
				 "a version 2 image with snapshots can not be resized");
	if (length == q->size)
		return 0;
	if (length < q->size && prealloc)
		return error_set(err, -EINVAL, "preallocation can not be used for shrinking");
	ret = qcow2_bitmaps_can_resize(q, err);
	if (ret == 0)
		ret = length > q->size ? grow(q, length, prealloc, err) : shrink(q, length, err);
	return ret;
}
