/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: what can be done to persistent bitmaps. */
#include <stdlib.h>

#include "qcow2_bitmap.h"

#define MAX_NAME 1023u /* as in QEMU */

static struct qcow2 *need_qcow2(struct block_node *node, struct hako_error *err)
{
	if (qcow2_is_node(node))
		return qcow2_of(node);
	error_set(err, -ENOTSUP, "a %s image can not have bitmaps", node->obj.class->name);
	return NULL;
}

static struct qcow2_bitmap *find(struct qcow2_bitmaps *bs, const char *name)
{
	for (uint32_t i = 0; bs && i < bs->n; i++)
		if (!strcmp(bs->list[i].e.name, name))
			return &bs->list[i];
	return NULL;
}

static int get(struct block_node *node, const char *name, struct qcow2 **q, struct qcow2_bitmap **b,
	       struct hako_error *err)
{
	*q = need_qcow2(node, err);
	if (!*q)
		return -ENOTSUP;
	if (node->read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	*b = find((*q)->bitmaps, name);
	return *b ? 0 : error_set(err, -ENOENT, "there is no bitmap '%s'", name);
}

/* The same for one that will be changed: it is in memory then. */
static int get_loaded(struct block_node *node, const char *name, struct qcow2 **q,
		      struct qcow2_bitmap **b, struct hako_error *err)
{
	int ret = get(node, name, q, b, err);

	if (ret == 0)
		ret = bitmap_load(*q, *b, err);
	return ret < 0 ? ret : bitmaps_mark(*q, err);
}

static int check_new(struct qcow2 *q, const char *name, uint64_t granularity,
		     struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;

	if (q->version < 3)
		return error_set(err, -ENOTSUP, "a version 2 image can not have bitmaps");
	if (!*name || strlen(name) > MAX_NAME)
		return error_set(err, -EINVAL, "a bitmap's name has 1 to %u bytes", MAX_NAME);
	if (granularity < 512 || granularity > 2 * GiB || !IS_POWER_OF_2(granularity))
		return error_set(err, -EINVAL,
				 "a bitmap's granularity is a power of two between 512 and 2G");
	if (bs && bs->n >= QCOW2_MAX_BITMAPS)
		return error_set(err, -EFBIG, "the image has %u bitmaps, as many as can be", bs->n);
	if (find(bs, name))
		return error_set(err, -EEXIST, "there is a bitmap '%s' already", name);
	return 0;
}

int qcow2_bitmap_add(struct block_node *node, const char *name, uint64_t granularity,
		     struct hako_error *err)
{
	struct qcow2 *q = need_qcow2(node, err);
	struct qcow2_bitmap *list, *b;
	struct qcow2_bitmaps *bs;
	int ret;

	if (!q)
		return -ENOTSUP;
	if (node->read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	if (!granularity)
		granularity = MAX(4 * KiB, MIN(64 * KiB, q->cluster_size));
	ret = check_new(q, name, granularity, err);
	if (ret < 0)
		return ret;
	bs = bitmaps_get(q);
	list = bs ? realloc(bs->list, (bs->n + 1) * sizeof(*list)) : NULL;
	if (!list)
		return error_errno(err, -ENOMEM, "bitmap");
	bs->list = list;
	b = &list[bs->n];
	*b = (struct qcow2_bitmap){
		.e = {.flags = QCOW2_BITMAP_AUTO,
		      .type = QCOW2_BITMAP_TYPE_DIRTY,
		      .granularity_bits = __builtin_ctzll(granularity),
		      .name = strdup(name)},
		.dir_pos = BITMAP_NOT_IN_FILE,
		.changed = true,
	};
	if (!b->e.name)
		return error_errno(err, -ENOMEM, "bitmap");
	ret = bitmap_load(q, b, err);
	if (ret < 0) {
		free(b->e.name);
		return ret;
	}
	bs->n++;
	bs->dir_changed = true;
	bitmaps_hook(q);
	return 0;
}

int qcow2_bitmap_remove(struct block_node *node, const char *name, struct hako_error *err)
{
	struct qcow2_bitmaps *bs;
	struct qcow2_bitmap *b;
	struct qcow2 *q;
	int ret = get(node, name, &q, &b, err);

	if (ret == 0) {
		ret = bitmap_forget(q, b);
		if (ret < 0)
			error_errno(err, ret, "bitmap");
	}
	if (ret < 0)
		return ret;
	bs = q->bitmaps;
	bs->total -= b->bits ? b->bytes : 0;
	free(b->bits);
	free(b->e.name);
	free(b->e.extra);
	memmove(b, b + 1, (char *)&bs->list[--bs->n] - (char *)b);
	bs->dir_changed = true;
	bitmaps_hook(q);
	return 0;
}

int qcow2_bitmap_clear(struct block_node *node, const char *name, struct hako_error *err)
{
	struct qcow2_bitmap *b;
	struct qcow2 *q;
	int ret = get_loaded(node, name, &q, &b, err);

	if (ret == 0) {
		memset(b->bits, 0, b->bytes);
		b->changed = true;
	}
	return ret;
}

int qcow2_bitmap_enable(struct block_node *node, const char *name, bool enable,
			struct hako_error *err)
{
	struct qcow2_bitmap *b;
	struct qcow2 *q;
	int ret = get_loaded(node, name, &q, &b, err);

	if (ret == 0) {
		b->e.flags &= ~QCOW2_BITMAP_AUTO;
		b->e.flags |= enable ? QCOW2_BITMAP_AUTO : 0;
		((struct qcow2_bitmaps *)q->bitmaps)->dir_changed = true;
		bitmaps_hook(q);
	}
	return ret;
}

/* --- merge --------------------------------------------------------------------------------------- */

static void merge(struct qcow2_bitmap *to, const struct qcow2_bitmap *from, uint64_t size)
{
	unsigned int shift = from->e.granularity_bits;

	to->changed = true;
	if (to->e.granularity_bits == shift) {
		for (uint64_t i = 0; i < to->bytes; i++)
			to->bits[i] |= from->bits[i];
		return;
	}
	for (uint64_t i = 0; i < from->bytes; i++)
		for (unsigned int j = 0; from->bits[i] >> j; j++)
			if (from->bits[i] >> j & 1)
				bitmap_set(to, size, (i * 8 + j) << shift, BIT64(shift));
}

/* A bitmap of an image that is only read: its bits, for the caller to free. */
static int read_other(struct qcow2 *q, const char *name, struct qcow2_bitmap *b,
		      struct hako_error *err)
{
	struct qcow2_bitmap_entry *list;
	uint32_t n, i = 0;
	int ret = qcow2_bitmaps_load(q, &list, &n, err);

	if (ret < 0)
		return ret;
	while (i < n && strcmp(list[i].name, name))
		i++;
	if (i == n) {
		ret = error_set(err, -ENOENT, "there is no bitmap '%s'", name);
	} else {
		*b = (struct qcow2_bitmap){.e = list[i]};
		ret = bitmap_load(q, b, err);
	}
	qcow2_bitmaps_list_free(list, n);
	return ret;
}

int qcow2_bitmap_merge(struct block_node *node, const char *name, struct block_node *source,
		       const char *from, struct hako_error *err)
{
	struct qcow2_bitmap *to, *in_memory = NULL, other = {.bits = NULL};
	struct qcow2 *q, *s = need_qcow2(source, err);
	int ret = s ? get_loaded(node, name, &q, &to, err) : -ENOTSUP;

	if (ret < 0)
		return ret;
	if (q->size != s->size)
		return error_set(err, -EINVAL, "the disks of the two bitmaps differ in size");
	if (s->bitmaps) {
		in_memory = find(s->bitmaps, from);
		if (!in_memory)
			return error_set(err, -ENOENT, "there is no bitmap '%s'", from);
		ret = in_memory->bits ? 0 : bitmap_load(s, in_memory, err);
		if (ret == 0)
			ret = bitmaps_mark(s, err);
	} else {
		ret = read_other(s, from, &other, err);
	}
	if (ret == 0)
		merge(to, in_memory ?: &other, q->size);
	free(other.bits);
	return ret;
}

/* --- list ---------------------------------------------------------------------------------------- */

static int copy_entry(struct qcow2_bitmap_entry *to, const struct qcow2_bitmap_entry *from)
{
	*to = *from;
	to->name = strdup(from->name);
	to->extra = malloc(from->extra_size + 1);
	if (!to->name || !to->extra)
		return -ENOMEM;
	if (from->extra_size)
		memcpy(to->extra, from->extra, from->extra_size);
	return 0;
}

int qcow2_bitmap_list(struct block_node *node, struct qcow2_bitmap_entry **list, uint32_t *n,
		      struct hako_error *err)
{
	struct qcow2 *q = need_qcow2(node, err);
	struct qcow2_bitmaps *bs = q ? q->bitmaps : NULL;
	int ret = 0;

	*n = 0;
	*list = NULL;
	if (!q)
		return -ENOTSUP;
	if (!bs)
		return qcow2_bitmaps_load(q, list, n, err);
	*list = calloc(bs->n + 1, sizeof(**list));
	if (!*list)
		return error_errno(err, -ENOMEM, "bitmaps");
	for (uint32_t i = 0; i < bs->n && ret == 0; i++)
		ret = copy_entry(&(*list)[i], &bs->list[i].e);
	if (ret < 0) {
		qcow2_bitmaps_list_free(*list, bs->n);
		*list = NULL;
		return error_errno(err, ret, "bitmaps");
	}
	*n = bs->n;
	return 0;
}

int qcow2_bitmap_measure(struct block_node *node, uint64_t cluster_size, uint64_t *bytes,
			 struct hako_error *err)
{
	struct qcow2_bitmap_entry *list;
	uint64_t dir = 0;
	uint32_t n;
	int ret;

	*bytes = 0;
	if (!qcow2_is_node(node))
		return 0;
	ret = qcow2_bitmap_list(node, &list, &n, err);
	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t data = bitmap_bytes(qcow2_of(node)->size, list[i].granularity_bits & 63);
		uint64_t clusters = (data + cluster_size - 1) / cluster_size;

		if (list[i].flags & QCOW2_BITMAP_IN_USE)
			continue; /* it will not be copied */
		*bytes += clusters * cluster_size + ALIGN_UP(clusters * 8, cluster_size);
		dir += ALIGN_UP(sizeof(struct qcow2_bitmap_header) + strlen(list[i].name), 8ull);
	}
	*bytes += ALIGN_UP(dir, cluster_size);
	qcow2_bitmaps_list_free(list, n);
	return 0;
}
