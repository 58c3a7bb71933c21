/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: where metadata is. Images can be damaged, or made by somebody who means harm, such that a guest's cluster is also a table; each
 * write looks here first. The set is filled when the image is first used for writing.
 */
#include <stdlib.h>

#include "qcow2.h"

#define FIRST_SIZE 64
#define MAX_SIZE   (1u << 24) /* 128 MiB; a full L1 table of the smallest clusters fits */

static uint64_t *slot(const struct qcow2_meta_set *set, uint64_t cluster)
{
	uint64_t i = (cluster + 1) * 0x9e3779b97f4a7c15ull >> 20;

	for (;; i++) {
		uint64_t *s = &set->clusters[i & (set->n - 1)];

		if (!*s || *s >> 4 == cluster + 1)
			return s;
	}
}

/* Room for what is there and as much again. */
static int resize(struct qcow2_meta_set *set)
{
	struct qcow2_meta_set new = {.n = FIRST_SIZE};
	uint64_t live = 0;

	for (uint64_t i = 0; i < set->n; i++)
		live += (set->clusters[i] & 15) != 0;
	while (new.n < 4 * live)
		new.n *= 2;
	if (new.n > MAX_SIZE)
		return -E2BIG;
	new.clusters = calloc(new.n, sizeof(uint64_t));
	if (!new.clusters)
		return -ENOMEM;
	for (uint64_t i = 0; i < set->n; i++) {
		uint64_t v = set->clusters[i];

		if (!(v & 15))
			continue;
		*slot(&new, (v >> 4) - 1) = v;
		new.used++;
	}
	free(set->clusters);
	*set = new;
	return 0;
}

static int add_cluster(struct qcow2_meta_set *set, uint64_t cluster, enum qcow2_meta kind)
{
	uint64_t *s;
	int ret;

	if (2 * (set->used + 1) > set->n) {
		ret = resize(set);
		if (ret < 0)
			return ret;
	}
	s = slot(set, cluster);
	if (*s & 15)
		return -EEXIST;
	if (!*s)
		set->used++;
	*s = (cluster + 1) << 4 | kind;
	return 0;
}

int qcow2_meta_add(struct qcow2 *q, uint64_t offset, uint64_t bytes, enum qcow2_meta kind)
{
	int ret = 0;

	if (!bytes || !q->meta.n)
		return 0;
	for (uint64_t c = offset >> q->cluster_bits;
	     c <= (offset + bytes - 1) >> q->cluster_bits && ret == 0; c++)
		ret = add_cluster(&q->meta, c, kind);
	return ret;
}

void qcow2_meta_remove(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	if (!bytes || !q->meta.n)
		return;
	for (uint64_t c = offset >> q->cluster_bits; c <= (offset + bytes - 1) >> q->cluster_bits;
	     c++)
		*slot(&q->meta, c) &= ~15ull;
}

enum qcow2_meta qcow2_meta_find(const struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	uint64_t last = (offset + bytes - 1) >> q->cluster_bits;

	if (!bytes || !q->meta.n)
		return QCOW2_META_NONE;
	for (uint64_t c = offset >> q->cluster_bits; c <= last; c++) {
		enum qcow2_meta kind = *slot(&q->meta, c) & 15;

		if (unlikely(kind))
			return kind;
	}
	return QCOW2_META_NONE;
}

const char *qcow2_meta_name(enum qcow2_meta kind)
{
	static const char *const names[] = {
		[QCOW2_META_NONE] = "nothing",
		[QCOW2_META_HEADER] = "the header",
		[QCOW2_META_L1] = "the L1 table",
		[QCOW2_META_L2] = "an L2 table",
		[QCOW2_META_REFTABLE] = "the refcount table",
		[QCOW2_META_REFBLOCK] = "a refcount block",
		[QCOW2_META_SNAPSHOTS] = "the snapshot table",
		[QCOW2_META_INACTIVE_L1] = "a snapshot's L1 table",
		[QCOW2_META_BITMAPS] = "the bitmap directory",
	};

	return names[kind];
}

/* --- all there is ------------------------------------------------------------------------------ */

static int add(struct qcow2 *q, uint64_t offset, uint64_t bytes, enum qcow2_meta kind,
	       struct hako_error *err)
{
	int ret;

	if (!bytes)
		return 0;
	if (offset & (q->cluster_size - 1) || offset >= QCOW2_MAX_OFFSET ||
	    bytes > QCOW2_MAX_OFFSET)
		return error_set(err, -EIO, "%s is at offset %llu, which can not be",
				 qcow2_meta_name(kind), (unsigned long long)offset);
	ret = qcow2_meta_add(q, offset, bytes, kind);
	if (ret == -EEXIST)
		return error_set(err, -EIO, "%s at offset %llu overlaps %s", qcow2_meta_name(kind),
				 (unsigned long long)offset,
				 qcow2_meta_name(qcow2_meta_find(q, offset, bytes)));
	return ret < 0 ? error_errno(err, ret, "list of metadata") : 0;
}

static int add_snapshots(struct qcow2 *q, struct hako_error *err)
{
	uint64_t pos = q->snapshots_offset;
	int ret = 0;

	for (uint32_t i = 0; i < q->nb_snapshots && ret == 0; i++) {
		struct qcow2_snapshot_header h;

		ret = qcow2_read_meta(q, pos, &h, sizeof(h));
		if (ret < 0)
			return error_errno(err, ret, "reading the snapshot table");
		pos += sizeof(h) + (uint64_t)be32toh(h.extra_size) + be16toh(h.id_size) +
		       be16toh(h.name_size);
		pos = ALIGN_UP(pos, 8ull);
		if (pos - q->snapshots_offset > QCOW2_MAX_SNAPSHOT_BYTES)
			return error_set(err, -EIO, "the snapshot table is too large");
		ret = add(q, be64toh(h.l1_table_offset), be32toh(h.l1_size) * 8ull,
			  QCOW2_META_INACTIVE_L1, err);
	}
	if (ret == 0)
		ret = add(q, q->snapshots_offset, pos - q->snapshots_offset, QCOW2_META_SNAPSHOTS,
			  err);
	return ret;
}

static int add_bitmaps(struct qcow2 *q, struct hako_error *err)
{
	const struct qcow2_ext *ext = qcow2_find_ext(q, QCOW2_EXT_BITMAPS);
	struct qcow2_bitmaps_ext b;

	if (!ext || ext->length < sizeof(b) || !(q->autoclear & QCOW2_AUTOCLEAR_BITMAPS))
		return 0;
	memcpy(&b, ext->data, sizeof(b));
	return add(q, be64toh(b.directory_offset), be64toh(b.directory_size), QCOW2_META_BITMAPS,
		   err);
}

static int add_tables(struct qcow2 *q, struct hako_error *err)
{
	int ret = add(q, 0, q->cluster_size, QCOW2_META_HEADER, err);

	if (ret == 0)
		ret = add(q, q->l1_offset, q->l1_size * 8ull, QCOW2_META_L1, err);
	if (ret == 0)
		ret = add(q, q->reftable_offset, (uint64_t)q->reftable_clusters << q->cluster_bits,
			  QCOW2_META_REFTABLE, err);
	for (uint32_t i = 0; i < q->reftable_size && ret == 0; i++)
		if (q->reftable[i])
			ret = add(q, q->reftable[i], q->cluster_size, QCOW2_META_REFBLOCK, err);
	for (uint32_t i = 0; i < q->l1_size && ret == 0; i++)
		if (q->l1[i] & QCOW2_L1_OFFSET)
			ret = add(q, q->l1[i] & QCOW2_L1_OFFSET, q->cluster_size, QCOW2_META_L2,
				  err);
	return ret;
}

int qcow2_meta_build(struct qcow2 *q, struct hako_error *err)
{
	int ret;

	qcow2_meta_free(q);
	ret = resize(&q->meta);
	if (ret < 0)
		return error_errno(err, ret, "list of metadata");
	ret = add_tables(q, err);
	if (ret == 0)
		ret = add_snapshots(q, err);
	if (ret == 0)
		ret = add_bitmaps(q, err);
	return ret;
}

void qcow2_meta_free(struct qcow2 *q)
{
	free(q->meta.clusters);
	q->meta = (struct qcow2_meta_set){0};
}
