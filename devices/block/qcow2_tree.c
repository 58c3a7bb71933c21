/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: L1 tables with all that they name, for snapshots. Works on the file, past the cache of L2 tables: everything has been committed before, and
 * the cache is dropped afterwards.
 */
#include <stdlib.h>

#include "qcow2_manage.h"

/* References to all that an L1 table names, one more or one less each. */
struct tree_refs {
	struct qcow2 *q;
	bool drop;
	uint64_t run, run_n;  /* clusters in a row that wait */
	uint64_t done, limit; /* runs that have been carried out; when to stop */
};

/* What is named has a refcount already; that of a place nobody has ever heard of need not be made. */
static int check_run(struct tree_refs *r)
{
	uint64_t refcount = 1;
	int ret = 0;

	for (uint64_t i = 0; i < r->run_n && ret == 0; i++) {
		uint64_t offset = (r->run + i) << r->q->cluster_bits;

		ret = qcow2_get_refcount(r->q, offset, &refcount);
		if (ret == 0 && !refcount)
			ret = qcow2_corrupt(
				r->q, "the cluster at offset %llu is in use, and its refcount is 0",
				(unsigned long long)offset);
	}
	return ret;
}

static int end_run(struct tree_refs *r)
{
	int ret = 0;

	if (!r->run_n || r->done == r->limit)
		return 0;
	if (!r->drop)
		ret = check_run(r);
	if (r->drop)
		qcow2_unref(r->q, r->run << r->q->cluster_bits, r->run_n, true);
	else if (ret == 0)
		ret = qcow2_ref(r->q, r->run << r->q->cluster_bits, r->run_n);
	r->done += ret == 0;
	r->run_n = 0;
	return ret;
}

static int add_clusters(struct tree_refs *r, uint64_t offset, uint64_t bytes)
{
	uint64_t first = offset >> r->q->cluster_bits;
	uint64_t n = ((offset + bytes - 1) >> r->q->cluster_bits) - first + 1;
	int ret = 0;

	if (r->run_n && first == r->run + r->run_n) {
		r->run_n += n;
		return 0;
	}
	ret = end_run(r);
	r->run = first;
	r->run_n = n;
	return ret;
}

static int add_entry(struct tree_refs *r, uint64_t entry)
{
	uint64_t offset = entry & QCOW2_L2_OFFSET, bytes = r->q->cluster_size;

	if (entry & QCOW2_COMPRESSED)
		qcow2_packed_place(r->q, entry, &offset, &bytes);
	else if (!offset)
		return 0;
	else if (offset & (bytes - 1))
		return qcow2_corrupt(r->q, "an L2 entry names offset 0x%llx, within a cluster",
				     (unsigned long long)offset);
	return add_clusters(r, offset, bytes);
}

static int read_l2(struct qcow2 *q, uint64_t offset, uint8_t *data)
{
	if (offset & (q->cluster_size - 1) || offset >= QCOW2_MAX_OFFSET)
		return qcow2_corrupt(q, "an L1 entry names offset 0x%llx, within a cluster",
				     (unsigned long long)offset);
	return qcow2_read_meta(q, offset, data, q->cluster_size);
}

static uint64_t entry_at(const uint8_t *data, uint64_t byte)
{
	uint64_t v;

	memcpy(&v, data + byte, 8);
	return be64toh(v);
}

static int walk(struct tree_refs *r, const uint64_t *l1, uint32_t n, uint8_t *data)
{
	struct qcow2 *q = r->q;
	int ret = 0;

	for (uint32_t i = 0; i < n && ret == 0 && r->done < r->limit; i++) {
		uint64_t offset = l1[i] & QCOW2_L1_OFFSET;

		if (!offset)
			continue;
		ret = read_l2(q, offset, data);
		for (uint64_t j = 0; j < q->cluster_size && ret == 0; j += 1u << q->l2_entry_shift)
			ret = add_entry(r, entry_at(data, j));
		if (ret == 0)
			ret = add_clusters(r, offset, q->cluster_size);
		if (ret == 0 && r->drop && qcow2_many_frees(q))
			ret = qcow2_commit_all(q);
	}
	return ret < 0 ? ret : end_run(r);
}

int qcow2_tree_ref(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
	struct tree_refs r = {.q = q, .limit = UINT64_MAX};
	uint8_t *data = malloc(q->cluster_size);
	int ret = data ? walk(&r, l1, n, data) : -ENOMEM;

	if (ret < 0 && data) {
		struct tree_refs undo = {.q = q, .drop = true, .limit = r.done};

		walk(&undo, l1, n, data);
	}
	free(data);
	return ret;
}

int qcow2_tree_unref(struct qcow2 *q, const uint64_t *l1, uint32_t n)
{
	struct tree_refs r = {.q = q, .drop = true, .limit = UINT64_MAX};
	uint8_t *data = malloc(q->cluster_size);
	int ret = data ? walk(&r, l1, n, data) : -ENOMEM;

	free(data);
	return ret;
}

/* --- the copied flag ----------------------------------------------------------------------------- */

/* Make it right in @entry. 1: it was not. */
static int set_copied(struct qcow2 *q, uint64_t *entry)
{
	uint64_t offset = *entry & QCOW2_L2_OFFSET, refcount;
	int ret;

	if (!offset || (*entry & QCOW2_COMPRESSED))
		return 0;
	ret = qcow2_get_refcount(q, offset, &refcount);
	if (ret < 0 || (refcount == 1) == !!(*entry & QCOW2_COPIED))
		return ret;
	*entry ^= QCOW2_COPIED;
	return 1;
}

static int copied_in_table(struct qcow2 *q, uint64_t offset, uint8_t *data)
{
	int ret = read_l2(q, offset, data);
	bool dirty = false;

	for (uint64_t j = 0; j < q->cluster_size && ret >= 0; j += 1u << q->l2_entry_shift) {
		uint64_t entry = entry_at(data, j);

		ret = set_copied(q, &entry);
		if (ret == 1) {
			entry = htobe64(entry);
			memcpy(data + j, &entry, 8);
			dirty = true;
		}
	}
	if (ret < 0 || !dirty)
		return MIN(ret, 0);
	return block_pwrite(q->node.file, offset, data, q->cluster_size, 0);
}

int qcow2_tree_copied(struct qcow2 *q)
{
	uint8_t *data = malloc(q->cluster_size);
	int ret = data ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < q->l1_size && ret >= 0; i++) {
		uint64_t entry = q->l1[i];

		if (!(entry & QCOW2_L1_OFFSET))
			continue;
		ret = set_copied(q, &entry);
		if (ret == 1)
			qcow2_set_l1(q, i, entry);
		if (ret >= 0)
			ret = copied_in_table(q, entry & QCOW2_L1_OFFSET, data);
	}
	free(data);
	return MIN(ret, 0);
}

/* --- around changes of whole trees --------------------------------------------------------------- */

/*
 * Refcounts and copied flags can not be changed as one. Version 3 has a mark for the time between: whoever opens such an image makes the
 * refcounts anew.
 */
int qcow2_tree_begin(struct qcow2 *q, struct hako_error *err)
{
	int ret;

	if (qcow2_has_data_file(q))
		return error_set(err, -ENOTSUP,
				 "an image with an external data file can not have snapshots");
	if (q->node.read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	qcow2_freeze(q);
	ret = qcow2_commit_all(q);
	if (ret == 0 && q->version > 2)
		ret = qcow2_set_incompatible(q, QCOW2_INCOMPAT_DIRTY, 0);
	if (ret < 0) {
		qcow2_thaw(q);
		return error_errno(err, ret, "writing what has not been written yet");
	}
	return 0;
}

int qcow2_tree_end(struct qcow2 *q, int ret, struct hako_error *err)
{
	int last = qcow2_commit_all(q);

	if (last == 0)
		last = qcow2_tree_copied(q);
	if (last == 0)
		last = qcow2_commit_all(q);
	if (last == 0 && q->version > 2)
		last = qcow2_set_incompatible(q, 0, QCOW2_INCOMPAT_DIRTY);
	qcow2_cache_drop(&q->l2);
	qcow2_thaw(q);
	if (ret == 0 && last < 0)
		ret = error_errno(err, last, "writing tables");
	return ret;
}

/* --- L1 tables ------------------------------------------------------------------------- */

uint64_t qcow2_l1_entries(const struct qcow2 *q, uint64_t size)
{
	unsigned int bits = q->cluster_bits + q->l2_bits;

	return (size >> bits) + !!(size & (BIT64(bits) - 1));
}

int qcow2_write_l1(struct qcow2 *q, const uint64_t *l1, uint32_t n, uint64_t clear,
		   uint64_t *offset)
{
	uint64_t clusters = ((uint64_t)n * 8 + q->cluster_size - 1) >> q->cluster_bits;
	uint64_t bytes = clusters << q->cluster_bits, *be;
	int ret;

	*offset = 0;
	if (!n)
		return 0;
	be = calloc(1, bytes);
	ret = be ? qcow2_alloc(q, &clusters, clusters, offset) : -ENOMEM;
	for (uint32_t i = 0; i < n && ret == 0; i++)
		be[i] = htobe64(l1[i] & ~clear);
	if (ret == 0) {
		ret = block_pwrite(q->node.file, *offset, be, bytes, 0);
		if (ret < 0)
			qcow2_unref(q, *offset, clusters, false);
	}
	free(be);
	return ret;
}

int qcow2_switch_l1(struct qcow2 *q, uint64_t *l1, uint32_t n, uint64_t offset, uint64_t size)
{
	struct {
		uint64_t size;
		uint32_t crypt, l1_size;
		uint64_t l1_offset;
	} __attribute__((packed)) be = {htobe64(size), 0, htobe32(n), htobe64(offset)};
	uint64_t old = ((uint64_t)q->l1_size * 8 + q->cluster_size - 1) >> q->cluster_bits;
	uint8_t *dirty = calloc(1, qcow2_dirty_bytes(n) + 1);
	int ret = dirty ? qcow2_commit_all(q) : -ENOMEM;

	if (ret == 0)
		ret = block_pwrite(q->node.file, offsetof(struct qcow2_header, size), &be,
				   sizeof(be), 0);
	if (ret == 0)
		ret = block_flush(q->node.file);
	if (ret < 0) {
		free(dirty);
		return ret;
	}
	if (offset != q->l1_offset) {
		qcow2_unref(q, q->l1_offset, old, true);
		qcow2_meta_add(q, offset, (uint64_t)n * 8, QCOW2_META_L1);
	}
	free(q->l1);
	free(q->l1_dirty);
	q->l1 = l1;
	q->l1_dirty = dirty;
	q->l1_size = n;
	q->l1_offset = offset;
	q->size = size;
	WRITE_ONCE(q->node.length, ALIGN_UP(size, 512ull));
	return 0;
}
