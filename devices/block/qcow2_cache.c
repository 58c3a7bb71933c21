/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: slices of L2 tables and refcount blocks in memory, and the order in which changes reach the file. */
#include <stdlib.h>

#include "qcow2.h"

#define FIRST_BUCKET_BITS 4

/* --- tables ------------------------------------------------------------------------------------ */

static struct qcow2_table **bucket(const struct qcow2_cache *c, uint64_t key)
{
	return &c->buckets[key * 0x9e3779b97f4a7c15ull >> (64 - c->bucket_bits)];
}

int qcow2_cache_init(struct qcow2_cache *c, unsigned int bits, uint64_t max_bytes)
{
	c->bits = bits;
	c->max = MAX(MIN(max_bytes >> bits, (uint64_t)1 << 30), 4ull);
	c->bucket_bits = FIRST_BUCKET_BITS;
	c->buckets = calloc(1 << FIRST_BUCKET_BITS, sizeof(*c->buckets));
	list_init(&c->tables);
	list_init(&c->dirty);
	return c->buckets ? 0 : -ENOMEM;
}

struct qcow2_table *qcow2_cache_find(struct qcow2_cache *c, uint64_t key)
{
	struct qcow2_table *t = *bucket(c, key);

	while (t && t->key != key)
		t = t->next;
	return t;
}

static void remove_table(struct qcow2_cache *c, struct qcow2_table *t)
{
	struct qcow2_table **p = bucket(c, t->key);

	while (*p != t)
		p = &(*p)->next;
	*p = t->next;
	list_del(&t->link);
	c->ntables--;
	if (t->dirty) {
		list_del(&t->dirty_link);
		c->ndirty--;
	}
	free(t->data);
	free(t);
}

void qcow2_cache_drop(struct qcow2_cache *c)
{
	while (c->buckets && !list_empty(&c->tables))
		remove_table(c, list_entry(c->tables.next, struct qcow2_table, link));
}

void qcow2_cache_free(struct qcow2_cache *c)
{
	qcow2_cache_drop(c);
	free(c->buckets);
	c->buckets = NULL;
}

/* More buckets, if there is memory for them. */
static void grow_buckets(struct qcow2_cache *c)
{
	struct qcow2_table **buckets = calloc(2ull << c->bucket_bits, sizeof(*buckets)), *t;

	if (!buckets)
		return;
	free(c->buckets);
	c->buckets = buckets;
	c->bucket_bits++;
	list_for_each(t, &c->tables, link) {
		struct qcow2_table **p = bucket(c, t->key);

		t->next = *p;
		*p = t;
	}
}

static struct qcow2_table *new_table(const struct qcow2_cache *c, uint64_t key, uint64_t offset)
{
	size_t size = 1ull << c->bits;
	struct qcow2_table *t = calloc(1, sizeof(*t));

	if (t)
		t->data = aligned_alloc(MIN(size, (size_t)PAGE_SIZE), size);
	if (!t || !t->data) {
		free(t);
		return NULL;
	}
	t->key = key;
	t->offset = offset;
	return t;
}

static void add_table(struct qcow2_cache *c, struct qcow2_table *t)
{
	struct qcow2_table **p;

	if (c->ntables >> c->bucket_bits)
		grow_buckets(c);
	p = bucket(c, t->key);
	t->next = *p;
	*p = t;
	list_add_tail(&t->link, &c->tables);
	c->ntables++;
}

/* Second chance: who has been used since the last visit may stay. */
static bool evict_one(struct qcow2_cache *c)
{
	for (unsigned int left = 2 * c->ntables; left; left--) {
		struct qcow2_table *t = list_entry(c->tables.next, struct qcow2_table, link);

		if (!t->pins && !t->dirty && !t->used) {
			remove_table(c, t);
			return true;
		}
		t->used = false;
		list_del(&t->link);
		list_add_tail(&t->link, &c->tables);
	}
	return false;
}

static int make_room(struct qcow2 *q, struct qcow2_cache *c)
{
	int ret;

	if (c->ntables < c->max)
		return 0;
	/* All at once and rarely: each commit flushes the file. */
	if (!q->committing && (c->ndirty > c->max / 4 * 3 || !evict_one(c))) {
		ret = qcow2_commit(q);
		if (ret < 0)
			return ret;
	}
	while (c->ntables >= c->max && evict_one(c))
		;
	return 0;
}

static int load(struct qcow2 *q, const struct qcow2_cache *c, uint64_t offset, void *data)
{
	block_event(q->node.file, c == &q->l2 ? BLOCK_EVENT_L2_LOAD : BLOCK_EVENT_REFBLOCK_LOAD);
	return qcow2_read_meta(q, offset, data, 1ull << c->bits);
}

int qcow2_cache_get(struct qcow2 *q, struct qcow2_cache *c, uint64_t key, uint64_t offset,
		    bool fresh, struct qcow2_table **table)
{
	size_t size = 1ull << c->bits;
	struct qcow2_table *t = qcow2_cache_find(c, key), *other;
	int ret = 0;

	if (t) {
		t->used = true;
		t->pins++;
		*table = t;
		return 0;
	}
	ret = make_room(q, c);
	if (ret < 0)
		return ret;
	t = new_table(c, key, offset);
	if (!t)
		return -ENOMEM;
	if (fresh)
		memset(t->data, 0, size);
	else
		ret = load(q, c, offset, t->data);
	if (ret < 0) {
		free(t->data);
		free(t);
		return ret;
	}
	/* Only now: the fast path takes what it finds. It may have come without the lock meanwhile (qcow2_cache_preload()). */
	other = qcow2_cache_find(c, key);
	if (other) {
		free(t->data);
		free(t);
		t = other;
	} else {
		add_table(c, t);
	}
	t->pins++;
	t->used = true;
	if (fresh)
		qcow2_table_dirty(q, c, t);
	*table = t;
	return 0;
}

int qcow2_cache_preload(struct qcow2 *q, struct qcow2_cache *c, uint64_t key, uint64_t offset)
{
	struct qcow2_table *t = new_table(c, key, offset);
	uint64_t changes = q->changes;
	int ret = t ? load(q, c, offset, t->data) : -ENOMEM;

	if (!t)
		return ret;
	if (ret < 0 || q->changes != changes || q->frozen || qcow2_cache_find(c, key) ||
	    (c->ntables >= c->max && !evict_one(c))) {
		free(t->data);
		free(t);
		return ret;
	}
	add_table(c, t);
	t->used = true;
	return 0;
}

void qcow2_table_dirty(struct qcow2 *q, struct qcow2_cache *c, struct qcow2_table *t)
{
	q->changes++;
	if (t->dirty)
		return;
	t->dirty = true;
	list_add_tail(&t->dirty_link, &c->dirty);
	c->ndirty++;
}

static void clean(struct qcow2_cache *c)
{
	struct qcow2_table *t, *next;

	list_for_each_safe(t, next, &c->dirty, dirty_link) {
		t->dirty = false;
		list_del(&t->dirty_link);
	}
	c->ndirty = 0;
}

void qcow2_cache_expire(struct qcow2_cache *c)
{
	struct qcow2_table *t, *next;

	list_for_each_safe(t, next, &c->tables, link) {
		if (!t->pins && !t->dirty && !t->used)
			remove_table(c, t);
		else
			t->used = false;
	}
}

/* --- to the file ------------------------------------------------------------------------------- */

int qcow2_read_meta(struct qcow2 *q, uint64_t offset, void *buf, uint64_t bytes)
{
	uint64_t length = READ_ONCE(q->node.file->length);
	uint64_t have = offset < length ? MIN(bytes, length - offset) : 0;

	/* What has been allocated and never written is not there yet: zeroes. */
	memset((char *)buf + have, 0, bytes - have);
	return have ? block_pread(q->node.file, offset, buf, have) : 0;
}

static int write_tables(struct qcow2 *q, struct qcow2_cache *c, enum block_event event)
{
	struct qcow2_table *t;
	int ret = 0;

	list_for_each(t, &c->dirty, dirty_link) {
		block_event(q->node.file, event);
		ret = block_pwrite(q->node.file, t->offset, t->data, 1ull << c->bits, 0);
		if (ret < 0)
			break;
	}
	return ret;
}

/* The parts of a table of 64-bit entries that @dirty says, as they are to be in the file. */
static int write_entries(struct qcow2 *q, const uint64_t *table, uint32_t size, uint64_t offset,
			 const uint8_t *dirty)
{
	uint64_t buf[QCOW2_DIRTY_ENTRIES];
	int ret = 0;

	for (uint64_t i = 0; i < size && ret == 0; i += QCOW2_DIRTY_ENTRIES) {
		uint64_t n = MIN(size - i, (uint64_t)QCOW2_DIRTY_ENTRIES),
			 part = i / QCOW2_DIRTY_ENTRIES;

		if (dirty && !(dirty[part / 8] & BIT(part % 8)))
			continue;
		for (uint64_t j = 0; j < n; j++)
			buf[j] = htobe64(table[i + j]);
		ret = block_pwrite(q->node.file, offset + i * 8, buf, n * 8, 0);
	}
	return ret;
}

static void clean_entries(uint8_t *dirty, uint32_t size)
{
	memset(dirty, 0, qcow2_dirty_bytes(size));
}

int qcow2_flush_nodes(struct qcow2 *q)
{
	int ret = 0;

	if (q->data != q->node.file)
		ret = block_flush(q->data);
	return ret < 0 ? ret : block_flush(q->node.file);
}

/* The table has a new place: all of it, then the header that points there. */
static int move_reftable(struct qcow2 *q)
{
	struct {
		uint64_t offset;
		uint32_t clusters;
	} __attribute__((packed)) be = {
		htobe64(q->new_reftable_offset),
		htobe32(q->new_reftable_clusters),
	};
	int ret;

	block_event(q->node.file, BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE);
	ret = write_entries(q, q->reftable, q->reftable_size, q->new_reftable_offset, NULL);
	if (ret == 0)
		ret = block_flush(q->node.file);
	block_event(q->node.file, BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE);
	if (ret == 0)
		ret = block_pwrite(q->node.file,
				   offsetof(struct qcow2_header, refcount_table_offset), &be,
				   sizeof(be), 0);
	if (ret == 0)
		ret = block_flush(q->node.file);
	if (ret < 0)
		return ret;
	qcow2_unref(q, q->reftable_offset, q->reftable_clusters, true);
	q->reftable_offset = q->new_reftable_offset;
	q->reftable_clusters = q->new_reftable_clusters;
	q->new_reftable_offset = 0;
	return 0;
}

static int commit_refcounts(struct qcow2 *q)
{
	int ret = qcow2_place_reftable(q);

	if (ret == 0)
		ret = write_tables(q, &q->refblocks, BLOCK_EVENT_REFBLOCK_UPDATE_PART);
	if (ret < 0 || !(q->any_reftable_dirty || q->new_reftable_offset))
		return ret;
	ret = block_flush(q->node.file);
	if (ret < 0)
		return ret;
	if (q->new_reftable_offset)
		return move_reftable(q);
	block_event(q->node.file, BLOCK_EVENT_REFTABLE_UPDATE);
	return write_entries(q, q->reftable, q->reftable_size, q->reftable_offset,
			     q->reftable_dirty);
}

static int commit_mappings(struct qcow2 *q)
{
	int ret;

	if (!q->l2.ndirty && !q->any_l1_dirty)
		return 0;
	/* Guest data and refcounts are stable before anything points there. */
	ret = qcow2_flush_nodes(q);
	if (ret == 0 && q->lazy)
		ret = qcow2_set_incompatible(q, QCOW2_INCOMPAT_DIRTY, 0);
	if (ret == 0)
		ret = write_tables(q, &q->l2, BLOCK_EVENT_L2_UPDATE);
	if (ret < 0 || !q->any_l1_dirty)
		return ret;
	ret = block_flush(q->node.file);
	block_event(q->node.file, BLOCK_EVENT_L1_UPDATE);
	if (ret == 0)
		ret = write_entries(q, q->l1, q->l1_size, q->l1_offset, q->l1_dirty);
	return ret;
}

bool qcow2_is_dirty(const struct qcow2 *q)
{
	return q->l2.ndirty || q->any_l1_dirty || q->nfrees ||
	       (!q->lazy &&
		(q->refblocks.ndirty || q->any_reftable_dirty || q->new_reftable_offset));
}

/* Requests that use mappings of before the commit come to their end. */
static void wait_for_passed(struct qcow2 *q)
{
	unsigned int old = q->phase;

	q->phase ^= 1;
	while (q->passed[old])
		co_queue_wait(&q->phase_ended);
}

static int commit_tables(struct qcow2 *q, bool refcounts)
{
	int ret = 0;

	if (refcounts)
		ret = commit_refcounts(q);
	if (ret == 0)
		ret = commit_mappings(q);
	if (ret == 0)
		ret = qcow2_flush_nodes(q);
	if (ret < 0)
		return ret; /* all of it once more: who knows what a failed flush has lost */
	clean(&q->l2);
	clean_entries(q->l1_dirty, q->l1_size);
	q->any_l1_dirty = false;
	if (refcounts) {
		clean(&q->refblocks);
		clean_entries(q->reftable_dirty, q->reftable_size);
		q->any_reftable_dirty = false;
	}
	if (q->nfrees) {
		wait_for_passed(q);
		qcow2_apply_frees(q);
	}
	return 0;
}

static int commit(struct qcow2 *q, bool refcounts)
{
	int ret;

	if (q->corrupt)
		return -EIO;
	/* It allocates too, for which the cache may have to grow for a while instead of calling here again. */
	q->committing = true;
	ret = commit_tables(q, refcounts);
	q->committing = false;
	return ret;
}

int qcow2_commit(struct qcow2 *q)
{
	return commit(q, !q->lazy);
}

int qcow2_commit_all(struct qcow2 *q)
{
	int ret = commit(q, true);

	/* What that has freed. */
	if (ret == 0 && (q->refblocks.ndirty || q->any_reftable_dirty))
		ret = commit(q, true);
	if (ret == 0 && (q->incompatible & QCOW2_INCOMPAT_DIRTY) && q->lazy)
		ret = qcow2_set_incompatible(q, 0, QCOW2_INCOMPAT_DIRTY);
	return ret;
}
