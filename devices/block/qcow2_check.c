/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Checking an image. All references that tables make to clusters are counted, and then compared with the refcounts in the file. Each L2 table is
 * read once, however many L1 entries name it.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "qcow2_check.h"

#define CHUNK	      (64 * KiB)
#define MAX_L2_TABLES (16u << 20)
#define MAX_L1_BYTES  (16 * GiB) /* of all snapshots together */

void check_say(struct check *c, const char *fmt, ...)
{
	char line[400];
	va_list ap;

	if (!c->r->report)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	c->r->report(c->r->opaque, line);
}

static void corrupt(struct check *c, uint64_t n, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void corrupt(struct check *c, uint64_t n, const char *fmt, ...)
{
	char text[350];
	va_list ap;

	c->r->corruptions += n;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	check_say(c, "ERROR %s", text);
}

int check_read(struct check *c, uint64_t offset, void *buf, size_t bytes, bool *zero)
{
	uint64_t length = READ_ONCE(c->file->length);
	struct block_status st;
	size_t there;
	int ret;

	if (zero) {
		*zero = offset >= length;
		if (*zero)
			return 0;
		ret = block_status(c->file, offset, bytes, &st);
		if (ret < 0)
			return ret;
		*zero = (st.flags & BLOCK_STATUS_ZERO) && st.bytes >= MIN(bytes, length - offset);
		if (*zero)
			return 0;
	}
	there = offset < length ? MIN(bytes, length - offset) : 0;
	memset((char *)buf + there, 0, bytes - there);
	return there ? block_pread(c->file, offset, buf, there) : 0;
}

int check_count(struct check *c, uint64_t offset, uint64_t bytes, uint32_t n)
{
	uint64_t length = READ_ONCE(c->file->length), cs = c->q->cluster_size;
	int ret = 0;

	if (!bytes)
		return 0;
	/* The last cluster may be there in part. */
	if (offset > INT64_MAX || bytes > INT64_MAX ||
	    offset + bytes >= ALIGN_UP(length, cs) + cs || offset >= ALIGN_UP(length, cs)) {
		corrupt(c, n,
			"reference to a region beyond the end of the file: offset %#llx size %#llx",
			(unsigned long long)offset, (unsigned long long)bytes);
		return 0;
	}
	for (uint64_t i = offset / cs; i <= (offset + bytes - 1) / cs && ret == 0; i++)
		ret = refmap_add(&c->refs, i, n);
	return ret;
}

/* --- L2 tables by offset ------------------------------------------------------------------------- */

static struct check_l2 *l2_slot(struct check_l2 *slots, size_t n, uint64_t offset)
{
	size_t i = (offset * 0x9e3779b97f4a7c15ull >> 20) & (n - 1);

	while (slots[i].offset && slots[i].offset != offset)
		i = (i + 1) & (n - 1);
	return &slots[i];
}

static int l2_grow(struct check *c)
{
	size_t n = c->l2_slots ? c->l2_slots * 2 : 64;
	struct check_l2 *bigger = calloc(n, sizeof(*bigger));

	if (!bigger)
		return -ENOMEM;
	for (size_t i = 0; i < c->l2_slots; i++)
		if (c->l2[i].offset)
			*l2_slot(bigger, n, c->l2[i].offset) = c->l2[i];
	free(c->l2);
	c->l2 = bigger;
	c->l2_slots = n;
	return 0;
}

static int l2_note(struct check *c, uint64_t offset, bool active)
{
	struct check_l2 *t;
	int ret;

	if (c->nl2 >= c->l2_slots / 2) {
		ret = c->nl2 >= MAX_L2_TABLES ? -EFBIG : l2_grow(c);
		if (ret < 0)
			return ret;
	}
	t = l2_slot(c->l2, c->l2_slots, offset);
	c->nl2 += !t->offset;
	t->offset = offset;
	t->all += t->all < UINT32_MAX;
	t->active += active && t->active < UINT32_MAX;
	return 0;
}

static int compare_l2(const void *a, const void *b)
{
	uint64_t oa = ((const struct check_l2 *)a)->offset,
		 ob = ((const struct check_l2 *)b)->offset;

	return oa < ob ? -1 : oa > ob;
}

/* From a hash to a list in order of offset. */
static void l2_sort(struct check *c)
{
	size_t n = 0;

	for (size_t i = 0; i < c->l2_slots; i++)
		if (c->l2[i].offset)
			c->l2[n++] = c->l2[i];
	if (n)
		qsort(c->l2, n, sizeof(*c->l2), compare_l2);
}

/* --- L1 tables ----------------------------------------------------------------------------------- */

static int l1_entry(struct check *c, uint64_t entry, uint64_t index, bool active)
{
	uint64_t offset = entry & QCOW2_L1_OFFSET;
	int ret;

	if (!offset)
		return 0;
	if (entry & QCOW2_L1_RESERVED)
		corrupt(c, 1, "found L1 entry with reserved bits set: %#llx",
			(unsigned long long)entry);
	if (offset & (c->q->cluster_size - 1))
		corrupt(c, 1,
			"l2_offset=%#llx: table is not aligned to clusters; L1 entry %llu corrupted",
			(unsigned long long)offset, (unsigned long long)index);
	ret = check_count(c, offset, c->q->cluster_size, 1);
	return ret < 0 ? ret : l2_note(c, offset, active);
}

static int walk_l1(struct check *c, uint64_t offset, uint64_t entries, bool active)
{
	uint64_t *buf = malloc(CHUNK);
	int ret = buf ? check_count(c, offset, entries * 8, 1) : -ENOMEM;

	for (uint64_t i = 0; i < entries && ret == 0; i += CHUNK / 8) {
		uint64_t n = MIN(entries - i, CHUNK / 8);
		bool zero;

		ret = check_read(c, offset + i * 8, buf, n * 8, &zero);
		if (ret < 0) {
			check_say(c, "ERROR reading the L1 table at %#llx: %s",
				  (unsigned long long)(offset + i * 8), strerror(-ret));
			c->r->check_errors++;
			ret = 0;
			break;
		}
		for (uint64_t j = 0; j < n && ret == 0 && !zero; j++)
			ret = l1_entry(c, be64toh(buf[j]), i + j, active);
	}
	free(buf);
	return ret;
}

static int walk_snapshots(struct check *c)
{
	struct qcow2_snapshot *list;
	uint64_t end = c->q->snapshots_offset, l1_bytes = 0;
	struct hako_error err;
	int ret = qcow2_snapshots_load(c->q, &list, &err);

	if (ret < 0) {
		corrupt(c, 1, "%s", err.message);
		c->r->check_errors++;
		return ret == -ENOMEM ? ret : 0;
	}
	for (uint32_t i = 0; i < c->q->nb_snapshots && ret == 0; i++) {
		const struct qcow2_snapshot *s = &list[i];

		end = ALIGN_UP(end + sizeof(struct qcow2_snapshot_header) + s->extra_size +
				       strlen(s->id) + strlen(s->name),
			       8ull);
		if (c->q->version > 2 && s->extra_size < 16)
			corrupt(c, 1, "snapshot %s (%s): the entry has no disk size", s->id,
				s->name);
		if (s->l1_offset & (c->q->cluster_size - 1)) {
			corrupt(c, 1,
				"snapshot %s (%s) l1_offset=%#llx: L1 table is not aligned to clusters",
				s->id, s->name, (unsigned long long)s->l1_offset);
			continue;
		}
		l1_bytes += s->l1_size * 8ull;
		if (s->l1_size * 8ull > QCOW2_MAX_L1_BYTES || l1_bytes > MAX_L1_BYTES) {
			corrupt(c, 1, "snapshot %s (%s) l1_size=%#x: L1 table is too large", s->id,
				s->name, s->l1_size);
			continue;
		}
		ret = walk_l1(c, s->l1_offset, s->l1_size, false);
	}
	qcow2_snapshots_free(list, c->q->nb_snapshots);
	if (ret == 0)
		ret = check_count(c, c->q->snapshots_offset, end - c->q->snapshots_offset, 1);
	return ret;
}

/* --- L2 tables ----------------------------------------------------------------------------------- */

/* An L2 table that is looked at. */
struct l2_walk {
	struct check_l2 table;
	uint8_t *data;
	bool dirty;
	uint64_t
		next; /* where the next cluster is, unless the image is fragmented there; 0: unknown */
};

static bool is_extended(const struct check *c)
{
	return qcow2_is_extended(c->q);
}

static bool has_zero_flag(const struct check *c, uint64_t entry)
{
	return c->q->version > 2 && !is_extended(c) && (entry & QCOW2_ZERO);
}

static int packed_entry(struct check *c, struct l2_walk *w, uint64_t entry, uint64_t bitmap)
{
	unsigned int x = 62 - (c->q->cluster_bits - 8);
	uint64_t offset = entry & (BIT64(x) - 1);
	uint64_t sectors = (entry >> x & (BIT64(62 - x) - 1)) + 1;
	uint32_t n = w->table.all;

	if (qcow2_has_data_file(c->q)) {
		corrupt(c, n, "compressed cluster with data file, entry=%#llx",
			(unsigned long long)entry);
		return 0;
	}
	if (entry & QCOW2_COPIED)
		corrupt(c, n,
			"coffset=%#llx: copied flag must never be set for compressed clusters",
			(unsigned long long)offset);
	if (bitmap) {
		corrupt(c, n,
			"compressed cluster with non-zero subcluster allocation bitmap, entry=%#llx",
			(unsigned long long)entry);
		return 0;
	}
	c->r->allocated_clusters += w->table.active;
	c->r->compressed_clusters += w->table.active;
	c->r->fragmented_clusters += w->table.active; /* by their nature */
	return check_count(c, offset, sectors * 512 - (offset & 511), n);
}

/* A cluster at no cluster's boundary, without data: it can become one without a place. */
static void fix_unaligned(struct check *c, struct l2_walk *w, uint8_t *p)
{
	uint64_t entry = htobe64(is_extended(c) ? 0 : QCOW2_ZERO);
	uint64_t bitmap = htobe64(0xffffffff00000000ull);

	memcpy(p, &entry, 8);
	if (is_extended(c))
		memcpy(p + 8, &bitmap, 8);
	w->dirty = true;
}

/* True: the entry has been repaired. */
static bool check_unaligned(struct check *c, struct l2_walk *w, uint8_t *p, uint64_t entry,
			    uint64_t bitmap)
{
	bool data = is_extended(c) ? bitmap & UINT32_MAX : !has_zero_flag(c, entry);
	bool fix = !data && (c->r->fix & QCOW2_FIX_ERRORS);

	check_say(c, "%s offset=%#llx: %s cluster is not properly aligned; L2 entry corrupted",
		  fix ? "Repairing" : "ERROR", (unsigned long long)(entry & QCOW2_L2_OFFSET),
		  data ? "data" : "preallocated");
	if (!fix) {
		c->r->corruptions += w->table.all;
		return false;
	}
	c->r->corruptions_fixed += w->table.all;
	fix_unaligned(c, w, p);
	return true;
}

static int normal_entry(struct check *c, struct l2_walk *w, uint8_t *p, uint64_t entry,
			uint64_t bitmap, uint64_t guest)
{
	uint64_t offset = entry & QCOW2_L2_OFFSET;

	if (bitmap >> 32 & bitmap)
		corrupt(c, w->table.all,
			"offset=%#llx: cluster with corrupted subcluster allocation bitmap",
			(unsigned long long)offset);
	if ((offset & (c->q->cluster_size - 1)) && check_unaligned(c, w, p, entry, bitmap))
		return 0;
	c->r->allocated_clusters += w->table.active;
	if (w->next && offset != w->next)
		c->r->fragmented_clusters += w->table.active;
	w->next = offset + c->q->cluster_size;
	return qcow2_has_data_file(c->q) ? 0
					 : check_count(c, offset, c->q->cluster_size, w->table.all);
}

static int l2_entry(struct check *c, struct l2_walk *w, uint8_t *p, uint64_t guest)
{
	uint64_t entry, bitmap = 0, reserved = QCOW2_L2_RESERVED;

	memcpy(&entry, p, 8);
	entry = be64toh(entry);
	if (is_extended(c)) {
		memcpy(&bitmap, p + 8, 8);
		bitmap = be64toh(bitmap);
	}
	if (!entry && !bitmap)
		return 0;
	if (entry & QCOW2_COMPRESSED)
		return packed_entry(c, w, entry, bitmap);
	if (is_extended(c) || c->q->version < 3)
		reserved |= QCOW2_ZERO;
	if (entry & reserved)
		corrupt(c, w->table.all, "found l2 entry with reserved bits set: %#llx",
			(unsigned long long)entry);
	if ((entry & QCOW2_L2_OFFSET) || (qcow2_has_data_file(c->q) && (entry & QCOW2_COPIED)))
		return normal_entry(c, w, p, entry, bitmap, guest);
	if (bitmap & UINT32_MAX)
		corrupt(c, w->table.all,
			"unallocated cluster has non-zero subcluster allocation map");
	return 0;
}

static int walk_l2(struct check *c, struct l2_walk *w)
{
	unsigned int step = is_extended(c) ? 16 : 8;
	bool zero;
	int ret = check_read(c, w->table.offset, w->data, c->q->cluster_size, &zero);

	if (ret < 0) {
		check_say(c, "ERROR reading the L2 table at %#llx: %s",
			  (unsigned long long)w->table.offset, strerror(-ret));
		c->r->check_errors++;
		return 0;
	}
	w->dirty = false;
	w->next = 0;
	for (uint64_t i = 0; i < c->q->cluster_size && ret == 0 && !zero; i += step)
		ret = l2_entry(c, w, w->data + i, i);
	if (ret == 0 && w->dirty)
		ret = block_pwrite(c->file, w->table.offset, w->data, c->q->cluster_size, 0);
	return ret;
}

static int walk_l2_tables(struct check *c)
{
	struct l2_walk w = {.data = malloc(c->q->cluster_size)};
	int ret = w.data ? 0 : -ENOMEM;

	l2_sort(c);
	for (size_t i = 0; i < c->nl2 && ret == 0; i++) {
		w.table = c->l2[i];
		ret = walk_l2(c, &w);
	}
	free(w.data);
	return ret;
}

/* --- bitmaps ------------------------------------------------------------------------------------- */

static int walk_bitmap(struct check *c, const struct qcow2_bitmap_entry *b)
{
	uint64_t bytes = b->table_size * 8ull, *table;
	bool zero;
	int ret;

	if (b->table_offset & (c->q->cluster_size - 1) ||
	    b->table_size > QCOW2_MAX_BITMAP_BYTES / c->q->cluster_size) {
		corrupt(c, 1, "bitmap '%s': table at %#llx of %u entries", b->name,
			(unsigned long long)b->table_offset, b->table_size);
		return 0;
	}
	ret = check_count(c, b->table_offset, bytes, 1);
	if (ret < 0)
		return ret;
	table = malloc(bytes + 1);
	ret = table ? check_read(c, b->table_offset, table, bytes, &zero) : -ENOMEM;
	for (uint32_t i = 0; ret == 0 && !zero && i < b->table_size; i++) {
		uint64_t entry = be64toh(table[i]), offset = entry & QCOW2_BITMAP_ENTRY_OFFSET;

		if ((entry & QCOW2_BITMAP_ENTRY_RESERVED) || (offset & (c->q->cluster_size - 1)) ||
		    (offset && (entry & QCOW2_BITMAP_ENTRY_ONES)))
			corrupt(c, 1, "bitmap '%s': table entry %#llx", b->name,
				(unsigned long long)entry);
		else if (offset)
			ret = check_count(c, offset, c->q->cluster_size, 1);
	}
	free(table);
	return ret;
}

static int walk_bitmaps(struct check *c)
{
	struct qcow2_bitmap_entry *list;
	struct qcow2_bitmaps_ext ext;
	struct hako_error err;
	bool valid;
	uint32_t n;
	int ret;

	if (!qcow2_bitmaps_ext(c->q, &ext, &valid) || !valid)
		return 0;
	ret = qcow2_bitmaps_load(c->q, &list, &n, &err);
	if (ret < 0) {
		corrupt(c, 1, "%s", err.message);
		c->r->check_errors++;
		return ret == -ENOMEM ? ret : 0;
	}
	ret = check_count(c, ext.directory_offset, ext.directory_size, 1);
	for (uint32_t i = 0; i < n && ret == 0; i++)
		ret = walk_bitmap(c, &list[i]);
	qcow2_bitmaps_list_free(list, n);
	return ret;
}

/* --- the copied flag ----------------------------------------------------------------------------- */

/* Returns what the entry should be. */
static int check_copied(struct check *c, uint32_t n, bool table, uint64_t *entry)
{
	uint64_t offset = *entry & QCOW2_L2_OFFSET, refcount = 1;
	bool fix = c->r->fix & QCOW2_FIX_ERRORS;
	int ret = 0;

	if (table || !qcow2_has_data_file(c->q))
		ret = check_get_refcount(c, offset >> c->q->cluster_bits, &refcount);
	if (ret < 0 || (refcount == 1) == !!(*entry & QCOW2_COPIED))
		return 0;
	check_say(c, "%s OFLAG_COPIED %s cluster: entry=%llx refcount=%llu",
		  fix ? "Repairing" : "ERROR", table ? "L2" : "data", (unsigned long long)*entry,
		  (unsigned long long)refcount);
	if (!fix) {
		c->r->corruptions += n;
		return 0;
	}
	c->r->corruptions_fixed += n;
	*entry ^= QCOW2_COPIED;
	return 1;
}

/* The active tables that @w names: all their entries. */
static int copied_in_l2(struct check *c, struct l2_walk *w)
{
	unsigned int step = is_extended(c) ? 16 : 8;
	uint64_t entry;
	bool zero;

	w->dirty = false;
	if (check_read(c, w->table.offset, w->data, c->q->cluster_size, &zero) < 0 || zero)
		return 0; /* has been counted */
	for (uint64_t i = 0; i < c->q->cluster_size; i += step) {
		memcpy(&entry, w->data + i, 8);
		entry = be64toh(entry);
		if ((entry & QCOW2_COMPRESSED) ||
		    (!(entry & QCOW2_L2_OFFSET) &&
		     !(qcow2_has_data_file(c->q) && (entry & QCOW2_COPIED))))
			continue;
		if (check_copied(c, w->table.active, false, &entry)) {
			entry = htobe64(entry);
			memcpy(w->data + i, &entry, 8);
			w->dirty = true;
		}
	}
	return w->dirty ? block_pwrite(c->file, w->table.offset, w->data, c->q->cluster_size, 0)
			: 0;
}

static int copied_in_l1(struct check *c)
{
	uint64_t *l1 = malloc(CHUNK), entries = c->q->l1_size, offset = c->q->l1_offset;
	int ret = l1 ? 0 : -ENOMEM;

	for (uint64_t i = 0; i < entries && ret == 0; i += CHUNK / 8) {
		uint64_t n = MIN(entries - i, CHUNK / 8);
		bool zero, dirty = false;

		if (check_read(c, offset + i * 8, l1, n * 8, &zero) < 0 || zero)
			continue;
		for (uint64_t j = 0; j < n; j++) {
			uint64_t entry = be64toh(l1[j]);

			if ((entry & QCOW2_L1_OFFSET) && check_copied(c, 1, true, &entry)) {
				l1[j] = htobe64(entry);
				dirty = true;
			}
		}
		if (dirty)
			ret = block_pwrite(c->file, offset + i * 8, l1, n * 8, 0);
	}
	free(l1);
	return ret;
}

static int check_all_copied(struct check *c)
{
	struct l2_walk w = {.data = malloc(c->q->cluster_size)};
	int ret = w.data ? copied_in_l1(c) : -ENOMEM;

	for (size_t i = 0; i < c->nl2 && ret == 0; i++) {
		w.table = c->l2[i];
		if (w.table.active)
			ret = copied_in_l2(c, &w);
	}
	free(w.data);
	return ret < 0 ? error_errno(c->err, ret, "checking flags") : 0;
}

/* --- all of it ----------------------------------------------------------------------------------- */

static void forget(struct check *c)
{
	refmap_free(&c->refs);
	refmap_free(&c->seen);
	free(c->l2);
	free(c->reftable);
	free(c->slices);
	c->l2 = NULL;
	c->nl2 = c->l2_slots = 0;
	c->reftable = NULL;
	c->slices = NULL;
	c->rebuild = false;
}

/* Count all references, but for those to refcount structures if not @refcounts. */
static int count_all(struct check *c, bool refcounts)
{
	int ret;

	forget(c);
	c->nclusters = ALIGN_UP(READ_ONCE(c->file->length), c->q->cluster_size) >>
		       c->q->cluster_bits;
	c->r->allocated_clusters = c->r->compressed_clusters = c->r->fragmented_clusters = 0;
	ret = check_count(c, 0, c->q->cluster_size, 1);
	if (ret == 0)
		ret = walk_l1(c, c->q->l1_offset, c->q->l1_size, true);
	if (ret == 0 && c->q->nb_snapshots)
		ret = walk_snapshots(c);
	if (ret == 0)
		ret = walk_l2_tables(c);
	if (ret == 0)
		ret = walk_bitmaps(c);
	if (ret == -EFBIG)
		return error_set(c->err, ret, "the image's tables are too large to be checked");
	if (ret < 0)
		return error_errno(c->err, ret, "counting references");
	return refcounts ? check_reftable(c) : 0;
}

/* Replace the refcount structure, and start anew. What the old one has occupied is free then. */
static int rebuild(struct check *c)
{
	struct qcow2_check before = *c->r, *r = c->r;
	int ret;

	r->report = NULL; /* it has all been said */
	ret = count_all(c, false);
	r->report = before.report;
	if (ret == 0)
		ret = check_rebuild(c);
	if (ret < 0) {
		*r = before;
		return ret;
	}
	r->report = NULL;
	r->corruptions = r->leaks = 0;
	ret = count_all(c, true);
	if (ret == 0)
		ret = check_compare(c, QCOW2_FIX_LEAKS);
	r->report = before.report;
	r->leaks_fixed = before.leaks_fixed + before.leaks;
	r->corruptions_fixed = before.corruptions_fixed + before.corruptions -
			       MIN(before.corruptions, r->corruptions);
	r->check_errors = before.check_errors;
	return ret;
}

static int check_limits(const struct qcow2 *q, struct hako_error *err)
{
	uint64_t mask = q->cluster_size - 1;

	if (q->l1_size * 8ull > QCOW2_MAX_L1_BYTES)
		return error_set(err, -EFBIG, "the L1 table has %u entries: too many", q->l1_size);
	if (q->l1_offset & mask)
		return error_set(err, -EINVAL,
				 "the L1 table's offset %#llx is not aligned to clusters",
				 (unsigned long long)q->l1_offset);
	if (((uint64_t)q->reftable_clusters << q->cluster_bits) > QCOW2_MAX_REFTABLE_BYTES)
		return error_set(err, -EFBIG, "the refcount table has %u clusters: too many",
				 q->reftable_clusters);
	if (q->reftable_offset & mask)
		return error_set(err, -EINVAL,
				 "the refcount table's offset %#llx is not aligned to clusters",
				 (unsigned long long)q->reftable_offset);
	return 0;
}

/* The marks that say it needs a repair. */
static int mark_clean(struct check *c)
{
	uint64_t marks = QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT;
	int ret = block_flush(c->file);

	if (ret == 0 && (c->q->incompatible & marks) && !c->r->corruptions && !c->r->check_errors)
		ret = qcow2_set_incompatible(c->q, 0, marks);
	return ret < 0 ? error_errno(c->err, ret, "the end of the repair") : 0;
}

static void free_check(struct check *c)
{
	forget(c);
	qcow2_free_header(c->q);
	free(c->q);
}

/* Its file, result and error are set. */
static int new_check(struct check *c)
{
	int ret;

	c->q = calloc(1, sizeof(*c->q));
	if (!c->q)
		return error_errno(c->err, -ENOMEM, "checking the image");
	c->q->node.file = c->file;
	ret = qcow2_read_header(c->q, c->err);
	if (ret == 0)
		ret = check_limits(c->q, c->err);
	if (ret < 0)
		free_check(c);
	return ret;
}

static int check_once(struct check *c)
{
	int ret = count_all(c, true);

	/* Where blocks are missing there is no use in repairing the others. */
	if (ret == 0)
		ret = check_compare(c, c->rebuild ? 0 : c->r->fix);
	if (ret == 0 && c->rebuild && (c->r->fix & QCOW2_FIX_ERRORS))
		ret = rebuild(c);
	return ret < 0 ? ret : check_all_copied(c);
}

/* What remains after a repair: where tables overlap, each step may undo another. */
static int check_repaired(struct check *c)
{
	struct qcow2_check done = *c->r, *r = c->r;
	int ret;

	*r = (struct qcow2_check){
		.corruptions_fixed = done.corruptions_fixed,
		.leaks_fixed = done.leaks_fixed,
		.total_clusters = done.total_clusters,
	};
	ret = check_once(c);
	r->fix = done.fix;
	r->report = done.report;
	r->opaque = done.opaque;
	return ret;
}

static int run(struct check *c)
{
	int ret;

	c->r->total_clusters = (c->q->size >> c->q->cluster_bits) +
			       !!(c->q->size & (c->q->cluster_size - 1));
	ret = check_once(c);
	if (ret == 0 && (c->r->corruptions_fixed || c->r->leaks_fixed))
		ret = check_repaired(c);
	c->r->image_end_offset = c->end << c->q->cluster_bits;
	if (ret == 0 && c->r->fix)
		ret = mark_clean(c);
	return ret;
}

int qcow2_change_refcount_order(struct block_node *file, unsigned int order, struct hako_error *err)
{
	struct qcow2_check check = {.fix = 0};
	struct check c = {.file = file, .r = &check, .err = err};
	int ret = new_check(&c);

	if (ret < 0)
		return ret;
	ret = count_all(&c, true);
	if (ret == 0)
		ret = check_compare(&c, 0);
	if (ret == 0 && (check.corruptions || check.check_errors))
		ret = error_set(err, -EIO, "the image is damaged, repair it first");
	if (ret == 0)
		ret = count_all(&c, false);
	if (ret == 0) {
		c.q->refcount_order = order;
		ret = check_rebuild(&c);
	}
	free_check(&c);
	return ret;
}

int qcow2_check(struct block_node *file, struct qcow2_check *check, struct hako_error *err)
{
	struct check c = {.file = file, .r = check, .err = err};
	int ret;

	*check = (struct qcow2_check){
		.fix = check->fix, .report = check->report, .opaque = check->opaque};
	ret = new_check(&c);
	if (ret < 0)
		return ret;
	ret = run(&c);
	free_check(&c);
	return ret;
}
