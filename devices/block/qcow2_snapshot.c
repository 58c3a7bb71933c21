/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: internal snapshots. The snapshot table and the active L1 table are never changed in place: a new one is written, and one write to the
 * header makes it count.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "qcow2_manage.h"

/* NULL: it is none. */
static struct qcow2 *need_qcow2(struct block_node *node, struct hako_error *err)
{
	if (qcow2_is_node(node))
		return qcow2_of(node);
	error_set(err, -ENOTSUP, "a %s image can not have internal snapshots",
		  node->obj.class->name);
	return NULL;
}

int qcow2_snapshot_find(const struct qcow2_snapshot *list, uint32_t n, const char *id_or_name)
{
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(list[i].id, id_or_name))
			return i;
	for (uint32_t i = 0; i < n; i++)
		if (!strcmp(list[i].name, id_or_name))
			return i;
	return -ENOENT;
}

/* --- the table ----------------------------------------------------------------------------------- */

static uint32_t extra_size(const struct qcow2_snapshot *s)
{
	return MAX(s->extra_size, (uint32_t)sizeof(struct qcow2_snapshot_extra));
}

static uint64_t entry_size(const struct qcow2_snapshot *s)
{
	return ALIGN_UP(sizeof(struct qcow2_snapshot_header) + extra_size(s) + strlen(s->id) +
				strlen(s->name),
			8ull);
}

/* @p is zeroed. */
static void put_entry(uint8_t *p, const struct qcow2_snapshot *s)
{
	struct qcow2_snapshot_header h = {
		.l1_table_offset = htobe64(s->l1_offset),
		.l1_size = htobe32(s->l1_size),
		.id_size = htobe16(strlen(s->id)),
		.name_size = htobe16(strlen(s->name)),
		.date_sec = htobe32(s->date_sec),
		.date_nsec = htobe32(s->date_nsec),
		.vm_clock_nsec = htobe64(s->vm_clock_nsec),
		.vm_state_size = htobe32(s->vm_state_size),
		.extra_size = htobe32(extra_size(s)),
	};
	struct qcow2_snapshot_extra extra = {
		.vm_state_size = htobe64(s->vm_state_size),
		.disk_size = htobe64(s->disk_size),
		.icount = htobe64(s->icount),
	};

	memcpy(p, &h, sizeof(h));
	p += sizeof(h);
	if (s->extra_size)
		memcpy(p, s->extra, s->extra_size);
	memcpy(p, &extra, sizeof(extra));
	p += extra_size(s);
	memcpy(p, s->id, strlen(s->id));
	memcpy(p + strlen(s->id), s->name, strlen(s->name));
}

static uint64_t table_size(const struct qcow2_snapshot *list, uint32_t n)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += entry_size(&list[i]);
	return bytes;
}

/* The header names a table of @n entries at @offset. */
static int switch_table(struct qcow2 *q, uint32_t n, uint64_t offset)
{
	struct {
		uint32_t n;
		uint64_t offset;
	} __attribute__((packed)) be = {htobe32(n), htobe64(offset)};
	int ret = qcow2_commit_all(q);

	if (ret == 0)
		ret = block_pwrite(q->node.file, offsetof(struct qcow2_header, nb_snapshots), &be,
				   sizeof(be), 0);
	if (ret == 0)
		ret = block_flush(q->node.file);
	return ret;
}

/* Replace the table that holds @old by one with @list. */
static int write_table(struct qcow2 *q, const struct qcow2_snapshot *list, uint32_t n,
		       uint64_t old_bytes)
{
	uint64_t bytes = table_size(list, n), pos = 0, offset = 0;
	uint64_t clusters = (bytes + q->cluster_size - 1) >> q->cluster_bits;
	uint64_t old = (old_bytes + q->cluster_size - 1) >> q->cluster_bits;
	uint8_t *buf = calloc(1, (clusters << q->cluster_bits) + 1);
	int ret = buf ? 0 : -ENOMEM;

	if (bytes > QCOW2_MAX_SNAPSHOT_BYTES)
		ret = -EFBIG;
	for (uint32_t i = 0; i < n && ret == 0; i++) {
		put_entry(buf + pos, &list[i]);
		pos += entry_size(&list[i]);
	}
	if (ret == 0 && n)
		ret = qcow2_alloc(q, &clusters, clusters, &offset);
	if (ret == 0 && n) {
		ret = block_pwrite(q->node.file, offset, buf, clusters << q->cluster_bits, 0);
		if (ret == 0)
			ret = switch_table(q, n, offset);
		if (ret < 0)
			qcow2_unref(q, offset, clusters, false);
	} else if (ret == 0) {
		ret = switch_table(q, 0, 0);
	}
	free(buf);
	if (ret < 0)
		return ret;
	if (old)
		qcow2_unref(q, q->snapshots_offset, old, true);
	if (n)
		qcow2_meta_add(q, offset, bytes, QCOW2_META_SNAPSHOTS);
	q->nb_snapshots = n;
	q->snapshots_offset = offset;
	return 0;
}

/* The size that the table has in the file. */
static uint64_t size_in_file(const struct qcow2_snapshot *list, uint32_t n)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++)
		bytes += ALIGN_UP(sizeof(struct qcow2_snapshot_header) + list[i].extra_size +
					  strlen(list[i].id) + strlen(list[i].name),
				  8ull);
	return bytes;
}

/* --- create -------------------------------------------------------------------------------------- */

static void free_id(const struct qcow2_snapshot *list, uint32_t n, char *id, size_t size)
{
	uint64_t max = 0;

	for (uint32_t i = 0; i < n; i++) {
		uint64_t v = strtoull(list[i].id, NULL, 10);

		if (v < UINT64_MAX)
			max = MAX(max, v);
	}
	snprintf(id, size, "%llu", (unsigned long long)max + 1);
}

static int create(struct qcow2 *q, struct qcow2_snapshot *list, const char *name,
		  struct hako_error *err)
{
	struct qcow2_snapshot *s = &list[q->nb_snapshots];
	struct timespec now;
	char id[24];
	int ret;

	free_id(list, q->nb_snapshots, id, sizeof(id));
	clock_gettime(CLOCK_REALTIME, &now);
	*s = (struct qcow2_snapshot){
		.l1_size = q->l1_size,
		.date_sec = now.tv_sec,
		.date_nsec = now.tv_nsec,
		.disk_size = q->size,
		.icount = UINT64_MAX,
		.id = id,
		.name = (char *)name,
	};
	ret = qcow2_tree_ref(q, q->l1, q->l1_size);
	if (ret == -ERANGE)
		return error_set(err, ret,
				 "the refcounts, of %u bits, are too small for one more snapshot",
				 1u << q->refcount_order);
	if (ret < 0)
		return error_errno(err, ret, "counting references");
	ret = qcow2_write_l1(q, q->l1, q->l1_size, QCOW2_COPIED, &s->l1_offset);
	if (ret == 0)
		ret = write_table(q, list, q->nb_snapshots + 1,
				  size_in_file(list, q->nb_snapshots));
	if (ret < 0) {
		if (s->l1_offset)
			qcow2_unref(q, s->l1_offset,
				    ((uint64_t)s->l1_size * 8 + q->cluster_size - 1) >>
					    q->cluster_bits,
				    false);
		qcow2_tree_unref(q, q->l1, q->l1_size);
		return error_errno(err, ret, "writing the snapshot table");
	}
	qcow2_meta_add(q, s->l1_offset, (uint64_t)s->l1_size * 8, QCOW2_META_INACTIVE_L1);
	return 0;
}

int qcow2_snapshot_create(struct block_node *node, const char *name, struct hako_error *err)
{
	struct qcow2_snapshot *list, *more;
	struct qcow2 *q = need_qcow2(node, err);
	int ret;

	if (!q)
		return -ENOTSUP;
	if (strlen(name) > UINT16_MAX)
		return error_set(err, -EINVAL, "the snapshot's name is too long");
	if (q->nb_snapshots >= QCOW2_MAX_SNAPSHOTS)
		return error_set(err, -EFBIG, "the image has %u snapshots, as many as can be",
				 q->nb_snapshots);
	ret = qcow2_tree_begin(q, err);
	if (ret < 0)
		return ret;
	ret = qcow2_snapshots_load(q, &list, err);
	if (ret == 0) {
		uint32_t n = q->nb_snapshots;

		more = realloc(list, (n + 1) * sizeof(*list));
		if (more)
			list = more;
		ret = more ? create(q, list, name, err) : error_errno(err, -ENOMEM, "snapshot");
		qcow2_snapshots_free(list, n);
	}
	return qcow2_tree_end(q, ret, err);
}

/* --- delete and apply ---------------------------------------------------------------------------- */

static int load_l1(struct qcow2 *q, const struct qcow2_snapshot *s, uint32_t min, uint64_t **l1,
		   struct hako_error *err)
{
	uint32_t n = MAX(s->l1_size, min);
	int ret;

	if ((uint64_t)n * 8 > QCOW2_MAX_L1_BYTES || s->l1_offset & (q->cluster_size - 1))
		return error_set(err, -EIO,
				 "snapshot '%s': the L1 table is at 0x%llx, with %u entries",
				 s->name, (unsigned long long)s->l1_offset, s->l1_size);
	*l1 = calloc(n + 1, 8);
	if (!*l1)
		return error_errno(err, -ENOMEM, "L1 table");
	ret = qcow2_read_meta(q, s->l1_offset, *l1, (uint64_t)s->l1_size * 8);
	if (ret < 0) {
		free(*l1);
		return error_errno(err, ret, "snapshot '%s': reading the L1 table", s->name);
	}
	for (uint32_t i = 0; i < s->l1_size; i++)
		(*l1)[i] = be64toh((*l1)[i]);
	return 0;
}

static int delete (struct qcow2 *q, struct qcow2_snapshot *list, uint32_t i, struct hako_error *err)
{
	uint64_t bytes = size_in_file(list, q->nb_snapshots), *l1;
	struct qcow2_snapshot gone = list[i];
	uint64_t clusters = ((uint64_t)gone.l1_size * 8 + q->cluster_size - 1) >> q->cluster_bits;
	uint32_t n = q->nb_snapshots;
	int ret = load_l1(q, &gone, 0, &l1, err);

	if (ret < 0)
		return ret;
	memmove(&list[i], &list[i + 1], (n - i - 1) * sizeof(*list));
	list[n - 1] = gone; /* to be freed with the others */
	ret = write_table(q, list, n - 1, bytes);
	if (ret == 0)
		ret = qcow2_tree_unref(q, l1, gone.l1_size);
	if (ret == 0)
		qcow2_unref(q, gone.l1_offset, clusters, true);
	free(l1);
	return ret < 0 ? error_errno(err, ret, "removing the snapshot") : 0;
}

static int apply(struct qcow2 *q, const struct qcow2_snapshot *s, struct hako_error *err)
{
	uint32_t n = MAX(s->l1_size, qcow2_l1_entries(q, s->disk_size)), old_n = q->l1_size;
	uint64_t *l1, *old = malloc((size_t)old_n * 8 + 1), offset;
	int ret = old ? load_l1(q, s, n, &l1, err) : error_errno(err, -ENOMEM, "L1 table");

	if (ret < 0) {
		free(old);
		return ret;
	}
	memcpy(old, q->l1, (size_t)old_n * 8);
	ret = qcow2_tree_ref(q, l1, n);
	if (ret == 0) {
		ret = qcow2_write_l1(q, l1, n, QCOW2_COPIED, &offset);
		for (uint32_t i = 0; i < n; i++)
			l1[i] &= ~QCOW2_COPIED;
		if (ret == 0)
			ret = qcow2_switch_l1(q, l1, n, offset, s->disk_size);
		if (ret < 0)
			qcow2_tree_unref(q, l1, n);
	}
	if (ret == 0)
		ret = qcow2_tree_unref(q, old, old_n);
	if (q->l1 != l1)
		free(l1);
	free(old);
	if (ret == -ERANGE)
		return error_set(err, ret, "the refcounts, of %u bits, are too small",
				 1u << q->refcount_order);
	return ret < 0 ? error_errno(err, ret, "applying the snapshot") : 0;
}

/* For bitmaps all of the disk has changed. */
static int apply_with_bitmaps(struct qcow2 *q, const struct qcow2_snapshot *s,
			      struct hako_error *err)
{
	bool resized = s->disk_size != q->size;
	int ret = resized ? qcow2_bitmaps_can_resize(q, err) : 0;

	if (ret == 0)
		ret = apply(q, s, err);
	if (ret == 0 && resized)
		ret = qcow2_bitmaps_resize(q, err);
	if (ret == 0 && q->dirty)
		q->dirty(q, 0, q->size);
	return ret;
}

static int with_snapshot(struct block_node *node, const char *id_or_name, bool is_delete,
			 struct hako_error *err)
{
	struct qcow2_snapshot *list;
	struct qcow2 *q = need_qcow2(node, err);
	int ret = q ? qcow2_tree_begin(q, err) : -ENOTSUP, i;

	if (ret < 0)
		return ret;
	ret = qcow2_snapshots_load(q, &list, err);
	if (ret == 0) {
		uint32_t n = q->nb_snapshots;

		i = qcow2_snapshot_find(list, n, id_or_name);
		if (i < 0)
			ret = error_set(err, -ENOENT, "there is no snapshot '%s'", id_or_name);
		else if (is_delete)
			ret = delete (q, list, i, err);
		else
			ret = apply_with_bitmaps(q, &list[i], err);
		qcow2_snapshots_free(list, n);
	}
	return qcow2_tree_end(q, ret, err);
}

int qcow2_snapshot_delete(struct block_node *node, const char *id_or_name, struct hako_error *err)
{
	return with_snapshot(node, id_or_name, true, err);
}

int qcow2_snapshot_apply(struct block_node *node, const char *id_or_name, struct hako_error *err)
{
	return with_snapshot(node, id_or_name, false, err);
}

/* --- list and read ------------------------------------------------------------------------------- */

int qcow2_snapshot_list(struct block_node *node, struct qcow2_snapshot **list, uint32_t *n,
			struct hako_error *err)
{
	struct qcow2 *q = need_qcow2(node, err);
	int ret = q ? qcow2_snapshots_load(q, list, err) : -ENOTSUP;

	*n = 0;
	if (ret == 0)
		*n = q->nb_snapshots;
	else
		*list = NULL;
	return ret;
}

int qcow2_snapshot_show(struct block_node *node, const char *id_or_name, struct hako_error *err)
{
	struct qcow2_snapshot *list;
	uint32_t n, entries;
	struct qcow2 *q = NULL;
	uint64_t *l1;
	int i, ret = qcow2_snapshot_list(node, &list, &n, err);

	if (ret < 0)
		return ret;
	q = qcow2_of(node);
	i = qcow2_snapshot_find(list, n, id_or_name);
	if (i < 0)
		ret = error_set(err, -ENOENT, "there is no snapshot '%s'", id_or_name);
	else if (!node->read_only)
		ret = error_set(err, -EINVAL,
				"a snapshot can be read only if the image is read-only");
	if (ret == 0) {
		entries = MAX(list[i].l1_size, qcow2_l1_entries(q, list[i].disk_size));
		ret = load_l1(q, &list[i], entries, &l1, err);
	}
	if (ret == 0) {
		free(q->l1);
		q->l1 = l1;
		q->l1_size = entries;
		q->size = list[i].disk_size;
		WRITE_ONCE(node->length, ALIGN_UP(q->size, 512ull));
		qcow2_cache_drop(&q->l2);
	}
	qcow2_snapshots_free(list, n);
	return ret;
}
