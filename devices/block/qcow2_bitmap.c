/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: persistent bitmaps that follow writes. They are in memory while the image is written to, and the file says so; at the end they are written to
 * new clusters, with a new directory, which one write of the header makes count.
 */
#include <stdlib.h>

#include "qcow2_bitmap.h"

#define MAX_MEMORY (1 * GiB)

int bitmap_usable(const struct qcow2_bitmap *b, struct hako_error *err)
{
	uint32_t known = QCOW2_BITMAP_IN_USE | QCOW2_BITMAP_AUTO | QCOW2_BITMAP_EXTRA_COMPATIBLE;

	if (b->e.flags & QCOW2_BITMAP_IN_USE)
		return error_set(
			err, -EINVAL,
			"bitmap '%s' was not stored properly and cannot be used; remove it",
			b->e.name);
	if (b->e.type != QCOW2_BITMAP_TYPE_DIRTY || (b->e.flags & ~known) ||
	    (b->e.extra_size && !(b->e.flags & QCOW2_BITMAP_EXTRA_COMPATIBLE)) ||
	    b->e.granularity_bits < 9 || b->e.granularity_bits > 31)
		return error_set(err, -EINVAL,
				 "bitmap '%s' is of a kind that is not known and cannot be used",
				 b->e.name);
	return 0;
}

uint64_t bitmap_bytes(uint64_t size, unsigned int granularity_bits)
{
	uint64_t bits = (size >> granularity_bits) + !!(size & (BIT64(granularity_bits) - 1));

	return (bits + 7) / 8;
}

void bitmap_set(struct qcow2_bitmap *b, uint64_t size, uint64_t offset, uint64_t bytes)
{
	uint64_t first = offset >> b->e.granularity_bits, last;

	if (!bytes || offset >= size)
		return;
	last = (offset + MIN(bytes, size - offset) - 1) >> b->e.granularity_bits;
	b->changed = true;
	while (first <= last && first & 7) {
		b->bits[first / 8] |= BIT(first % 8);
		first++;
	}
	if (first < last) {
		memset(b->bits + first / 8, 0xff, (last - first) / 8);
		first = ALIGN_DOWN(last, 8ull) > first ? ALIGN_DOWN(last, 8ull) : first;
	}
	for (; first <= last; first++)
		b->bits[first / 8] |= BIT(first % 8);
}

/* Before a write is answered: in the home loop. */
static void dirty(struct qcow2 *q, uint64_t offset, uint64_t bytes)
{
	struct qcow2_bitmaps *bs = q->bitmaps;

	for (uint32_t i = 0; i < bs->n; i++)
		if (bitmap_enabled(&bs->list[i]))
			bitmap_set(&bs->list[i], q->size, offset, bytes);
}

void bitmaps_hook(struct qcow2 *q)
{
	struct qcow2_bitmaps *bs = q->bitmaps;

	q->dirty = NULL;
	for (uint32_t i = 0; bs && i < bs->n; i++)
		if (bitmap_enabled(&bs->list[i]))
			q->dirty = dirty;
}

/* --- reading ------------------------------------------------------------------------------------- */

/* The table in host byte order. */
static int read_table(struct qcow2 *q, const struct qcow2_bitmap_entry *e, uint64_t **table)
{
	int ret;

	if (e->table_offset & (q->cluster_size - 1) ||
	    e->table_size > QCOW2_MAX_BITMAP_BYTES / q->cluster_size)
		return -EINVAL;
	*table = malloc(e->table_size * 8ull + 1);
	ret = *table ? qcow2_read_meta(q, e->table_offset, *table, e->table_size * 8ull) : -ENOMEM;
	for (uint32_t i = 0; i < e->table_size && ret == 0; i++) {
		uint64_t v = (*table)[i] = be64toh((*table)[i]);
		uint64_t offset = v & QCOW2_BITMAP_ENTRY_OFFSET;

		if ((v & QCOW2_BITMAP_ENTRY_RESERVED) || (offset & (q->cluster_size - 1)) ||
		    (offset && (v & QCOW2_BITMAP_ENTRY_ONES)))
			ret = -EINVAL;
	}
	if (ret < 0)
		free(*table);
	return ret;
}

static int read_bits(struct qcow2 *q, struct qcow2_bitmap *b)
{
	uint64_t cs = q->cluster_size, *table;
	int ret = read_table(q, &b->e, &table);

	if (ret < 0)
		return ret;
	for (uint32_t i = 0; i < b->e.table_size && ret == 0; i++) {
		uint64_t n = MIN(cs, b->bytes - i * cs);

		if (table[i] & QCOW2_BITMAP_ENTRY_OFFSET)
			ret = qcow2_read_meta(q, table[i], b->bits + i * cs, n);
		else if (table[i])
			memset(b->bits + i * cs, 0xff, n);
	}
	free(table);
	return ret;
}

int bitmap_load(struct qcow2 *q, struct qcow2_bitmap *b, struct hako_error *err)
{
	uint64_t bytes = bitmap_bytes(q->size, b->e.granularity_bits);
	struct qcow2_bitmaps *bs = q->bitmaps;
	uint64_t total = bs ? bs->total : 0;
	int ret = bitmap_usable(b, err);

	if (ret < 0 || b->bits)
		return ret;
	if (bytes > QCOW2_MAX_BITMAP_BYTES || total + bytes > MAX_MEMORY)
		return error_set(err, -EFBIG, "bitmap '%s' needs too much memory: %llu bytes",
				 b->e.name, (unsigned long long)bytes);
	if (b->dir_pos != BITMAP_NOT_IN_FILE &&
	    b->e.table_size != (bytes + q->cluster_size - 1) >> q->cluster_bits)
		return error_set(
			err, -EINVAL,
			"bitmap '%s' has a table of %u entries, which does not fit the disk",
			b->e.name, b->e.table_size);
	b->bits = calloc(1, bytes + 1);
	b->bytes = bytes;
	ret = b->bits ? 0 : -ENOMEM;
	if (ret == 0 && b->dir_pos != BITMAP_NOT_IN_FILE)
		ret = read_bits(q, b);
	if (ret < 0) {
		free(b->bits);
		b->bits = NULL;
		return error_errno(err, ret, "bitmap '%s'", b->e.name);
	}
	if (bs)
		bs->total += bytes;
	return 0;
}

/* --- start --------------------------------------------------------------------------------------- */

static void free_bitmaps(struct qcow2 *q)
{
	struct qcow2_bitmaps *bs = q->bitmaps;

	q->bitmaps = NULL;
	q->dirty = NULL;
	if (!bs)
		return;
	for (uint32_t i = 0; i < bs->n; i++) {
		free(bs->list[i].e.name);
		free(bs->list[i].e.extra);
		free(bs->list[i].bits);
	}
	free(bs->list);
	free(bs->dir);
	free(bs->gone);
	free(bs);
}

struct qcow2_bitmaps *bitmaps_get(struct qcow2 *q)
{
	if (!q->bitmaps)
		q->bitmaps = calloc(1, sizeof(struct qcow2_bitmaps));
	return q->bitmaps;
}

/* Where the entries are in the directory. */
static void find_positions(struct qcow2_bitmaps *bs)
{
	uint64_t pos = 0;

	for (uint32_t i = 0; i < bs->n; i++) {
		struct qcow2_bitmap_header h;

		memcpy(&h, bs->dir + pos, sizeof(h));
		bs->list[i].dir_pos = pos;
		pos = ALIGN_UP(pos + sizeof(h) + be32toh(h.extra_size) + be16toh(h.name_size),
			       8ull);
	}
}

static int load_directory(struct qcow2 *q, const struct qcow2_bitmaps_ext *ext,
			  struct hako_error *err)
{
	struct qcow2_bitmap_entry *list;
	struct qcow2_bitmaps *bs;
	uint32_t n;
	int ret = qcow2_bitmaps_load(q, &list, &n, err);

	if (ret < 0)
		return ret;
	bs = bitmaps_get(q);
	if (bs) {
		bs->list = calloc(n, sizeof(*bs->list));
		bs->dir = malloc(ext->directory_size);
	}
	if (!bs || !bs->list || !bs->dir) {
		qcow2_bitmaps_list_free(list, n);
		return error_errno(err, -ENOMEM, "the bitmap directory");
	}
	for (uint32_t i = 0; i < n; i++)
		bs->list[i].e = list[i];
	free(list);
	bs->n = n;
	bs->dir_offset = ext->directory_offset;
	bs->dir_size = ext->directory_size;
	ret = qcow2_read_meta(q, bs->dir_offset, bs->dir, bs->dir_size);
	if (ret < 0)
		return error_errno(err, ret, "the bitmap directory");
	find_positions(bs);
	return 0;
}

static void set_flag_in_dir(struct qcow2_bitmaps *bs, const struct qcow2_bitmap *b, bool in_use)
{
	struct qcow2_bitmap_header *h = (void *)(bs->dir + b->dir_pos);
	uint32_t flags = b->e.flags | (in_use ? QCOW2_BITMAP_IN_USE : 0);

	h->flags = htobe32(flags);
}

static int write_dir_in_place(struct qcow2 *q)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	int ret = block_pwrite(q->node.file, bs->dir_offset, bs->dir, bs->dir_size, 0);

	return ret < 0 ? ret : block_flush(q->node.file);
}

int bitmaps_mark(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	bool any = false;
	int ret;

	for (uint32_t i = 0; i < bs->n; i++) {
		struct qcow2_bitmap *b = &bs->list[i];

		if (b->bits && b->dir_pos != BITMAP_NOT_IN_FILE) {
			set_flag_in_dir(bs, b, true);
			any = true;
		}
	}
	ret = any ? write_dir_in_place(q) : 0;
	return ret < 0 ? error_errno(err, ret, "marking bitmaps as in use") : 0;
}

int qcow2_bitmaps_start(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps_ext ext;
	struct qcow2_bitmaps *bs;
	bool valid;
	int ret;

	if (q->bitmaps || !qcow2_bitmaps_ext(q, &ext, &valid) || !valid)
		return 0;
	ret = load_directory(q, &ext, err);
	bs = q->bitmaps;
	for (uint32_t i = 0; ret == 0 && i < bs->n; i++)
		if ((bs->list[i].e.flags & QCOW2_BITMAP_AUTO) && !bitmap_usable(&bs->list[i], NULL))
			ret = bitmap_load(q, &bs->list[i], err);
	if (ret == 0)
		ret = bitmaps_mark(q, err);
	if (ret < 0)
		free_bitmaps(q);
	else
		bitmaps_hook(q);
	return ret;
}

/* --- stop ---------------------------------------------------------------------------------------- */

static bool all_are(const uint8_t *p, uint64_t n, uint8_t value)
{
	return !n || (p[0] == value && !memcmp(p, p + 1, n - 1));
}

/* The chunk of the bitmap that table entry @i stands for. */
static int store_chunk(struct qcow2 *q, const struct qcow2_bitmap *b, uint32_t i, uint8_t *buf,
		       uint64_t *entry)
{
	uint64_t cs = q->cluster_size, n = MIN(cs, b->bytes - i * cs), one = 1, offset;
	const uint8_t *p = b->bits + i * cs;
	int ret;

	*entry = 0;
	if (all_are(p, n, 0))
		return 0;
	*entry = QCOW2_BITMAP_ENTRY_ONES;
	if (n == cs && all_are(p, n, 0xff))
		return 0;
	ret = qcow2_alloc(q, &one, 1, &offset);
	if (ret < 0)
		return ret;
	*entry = offset;
	memcpy(buf, p, n);
	memset(buf + n, 0, cs - n);
	return block_pwrite(q->node.file, offset, buf, cs, 0);
}

static uint64_t clusters_of(const struct qcow2 *q, uint64_t bytes)
{
	return (bytes + q->cluster_size - 1) >> q->cluster_bits;
}

int bitmap_forget(struct qcow2 *q, const struct qcow2_bitmap *b)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	struct qcow2_bitmap_entry *gone;

	if (b->dir_pos == BITMAP_NOT_IN_FILE)
		return 0;
	gone = realloc(bs->gone, (bs->ngone + 1) * sizeof(*gone));
	if (!gone)
		return -ENOMEM;
	bs->gone = gone;
	gone[bs->ngone++] = b->e; /* its place in the file counts, not its name */
	return 0;
}

static int store_bits(struct qcow2 *q, struct qcow2_bitmap *b)
{
	uint32_t n = clusters_of(q, b->bytes);
	uint64_t clusters = clusters_of(q, n * 8ull), offset = 0;
	uint64_t *table = calloc(1, (clusters << q->cluster_bits) + 1);
	uint8_t *buf = malloc(q->cluster_size);
	int ret = table && buf ? bitmap_forget(q, b) : -ENOMEM;

	for (uint32_t i = 0; i < n && ret == 0; i++) {
		ret = store_chunk(q, b, i, buf, &table[i]);
		table[i] = htobe64(table[i]);
	}
	if (ret == 0 && n)
		ret = qcow2_alloc(q, &clusters, clusters, &offset);
	if (ret == 0 && n)
		ret = block_pwrite(q->node.file, offset, table, clusters << q->cluster_bits, 0);
	free(table);
	free(buf);
	if (ret < 0)
		return ret;
	b->e.table_offset = offset;
	b->e.table_size = n;
	return 0;
}

static void put_entry(uint8_t *p, const struct qcow2_bitmap_entry *e)
{
	struct qcow2_bitmap_header h = {
		.table_offset = htobe64(e->table_offset),
		.table_size = htobe32(e->table_size),
		.flags = htobe32(e->flags),
		.type = e->type,
		.granularity_bits = e->granularity_bits,
		.name_size = htobe16(strlen(e->name)),
		.extra_size = htobe32(e->extra_size),
	};

	memcpy(p, &h, sizeof(h));
	if (e->extra_size)
		memcpy(p + sizeof(h), e->extra, e->extra_size);
	memcpy(p + sizeof(h) + e->extra_size, e->name, strlen(e->name));
}

static uint64_t entry_size(const struct qcow2_bitmap_entry *e)
{
	return ALIGN_UP(sizeof(struct qcow2_bitmap_header) + e->extra_size + strlen(e->name), 8ull);
}

/* The new directory, which the header does not name yet. */
static int write_dir(struct qcow2 *q, uint64_t *offset, uint64_t *size)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	uint64_t clusters, pos = 0;
	uint8_t *buf;
	int ret;

	*size = *offset = 0;
	for (uint32_t i = 0; i < bs->n; i++)
		*size += entry_size(&bs->list[i].e);
	if (!bs->n)
		return 0;
	if (*size > QCOW2_MAX_BITMAP_DIRECTORY)
		return -EFBIG;
	clusters = clusters_of(q, *size);
	buf = calloc(1, clusters << q->cluster_bits);
	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < bs->n; i++) {
		put_entry(buf + pos, &bs->list[i].e);
		pos += entry_size(&bs->list[i].e);
	}
	ret = qcow2_alloc(q, &clusters, clusters, offset);
	if (ret == 0)
		ret = block_pwrite(q->node.file, *offset, buf, clusters << q->cluster_bits, 0);
	free(buf);
	return ret;
}

static int switch_dir(struct qcow2 *q, uint64_t offset, uint64_t size, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	struct qcow2_bitmaps_ext ext = {
		.nb_bitmaps = htobe32(bs->n),
		.directory_size = htobe64(size),
		.directory_offset = htobe64(offset),
	};
	int ret = qcow2_set_ext(q, QCOW2_EXT_BITMAPS, bs->n ? &ext : NULL, sizeof(ext));

	if (ret < 0)
		return error_errno(err, ret, "the header");
	q->autoclear &= ~QCOW2_AUTOCLEAR_BITMAPS;
	if (bs->n)
		q->autoclear |= QCOW2_AUTOCLEAR_BITMAPS;
	return qcow2_write_header(q, err);
}

static void free_old(struct qcow2 *q, const struct qcow2_bitmap_entry *e)
{
	uint64_t *table;

	if (read_table(q, e, &table) < 0)
		return; /* leaked */
	for (uint32_t i = 0; i < e->table_size; i++)
		if (table[i] & QCOW2_BITMAP_ENTRY_OFFSET)
			qcow2_unref(q, table[i], 1, true);
	free(table);
	if (e->table_size)
		qcow2_unref(q, e->table_offset, clusters_of(q, e->table_size * 8ull), true);
}

static int store(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	uint64_t offset, size;
	int ret = 0;

	for (uint32_t i = 0; i < bs->n && ret == 0; i++)
		if (bs->list[i].bits && bs->list[i].changed)
			ret = store_bits(q, &bs->list[i]);
	if (ret == 0)
		ret = write_dir(q, &offset, &size);
	if (ret == 0)
		ret = qcow2_commit_all(q);
	if (ret < 0)
		return error_errno(err, ret, "storing bitmaps");
	ret = switch_dir(q, offset, size, err);
	if (ret < 0)
		return ret;
	if (size)
		qcow2_meta_add(q, offset, size, QCOW2_META_BITMAPS);
	for (uint32_t i = 0; i < bs->ngone; i++)
		free_old(q, &bs->gone[i]);
	if (bs->dir_size)
		qcow2_unref(q, bs->dir_offset, clusters_of(q, bs->dir_size), true);
	ret = qcow2_commit_all(q);
	return ret < 0 ? error_errno(err, ret, "storing bitmaps") : 0;
}

int qcow2_bitmaps_stop(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	bool changed, marked = false;
	int ret = 0;

	if (!bs)
		return 0;
	q->dirty = NULL;
	changed = bs->dir_changed;
	for (uint32_t i = 0; i < bs->n; i++) {
		changed |= bs->list[i].bits && bs->list[i].changed;
		if (bs->list[i].bits && bs->list[i].dir_pos != BITMAP_NOT_IN_FILE) {
			set_flag_in_dir(bs, &bs->list[i], false);
			marked = true;
		}
	}
	if (changed)
		ret = store(q, err);
	else if (marked)
		ret = write_dir_in_place(q);
	if (!changed && ret < 0)
		error_errno(err, ret, "storing bitmaps");
	free_bitmaps(q);
	return ret;
}

/* --- another size of the disk -------------------------------------------------------------------- */

int qcow2_bitmaps_can_resize(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;
	int ret = 0;

	for (uint32_t i = 0; bs && i < bs->n && ret == 0; i++) {
		ret = bitmap_load(q, &bs->list[i], err);
		if (ret == -EINVAL)
			ret = -ENOTSUP;
	}
	return bs && ret == 0 ? bitmaps_mark(q, err) : ret;
}

int qcow2_bitmaps_resize(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_bitmaps *bs = q->bitmaps;

	for (uint32_t i = 0; bs && i < bs->n; i++) {
		struct qcow2_bitmap *b = &bs->list[i];
		uint64_t bytes = bitmap_bytes(q->size, b->e.granularity_bits), bits;
		uint8_t *more = bytes > QCOW2_MAX_BITMAP_BYTES ? NULL : realloc(b->bits, bytes + 1);

		if (!more)
			return error_errno(err, -ENOMEM, "bitmap '%s'", b->e.name);
		if (bytes > b->bytes)
			memset(more + b->bytes, 0, bytes - b->bytes);
		bits = (q->size >> b->e.granularity_bits) +
		       !!(q->size & (BIT64(b->e.granularity_bits) - 1));
		if (bits & 7)
			more[bytes - 1] &= BIT(bits & 7) - 1;
		bs->total += bytes - b->bytes;
		b->bits = more;
		b->bytes = bytes;
		b->changed = true;
	}
	return 0;
}
