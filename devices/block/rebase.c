/* SPDX-License-Identifier: GPL-2.0-only */
#include "rebase.h"

#include <stdlib.h>

#include "chain.h"

#define PIECE	(1 * MiB)
#define COMPARE 4096u /* bytes that are copied together */

/* What @node shows, NULL or beyond its end zeroes. */
static int read_or_zero(struct block_node *node, uint64_t offset, void *buf, uint64_t bytes)
{
	uint64_t length = node ? READ_ONCE(node->length) : 0;
	uint64_t have = offset < length ? MIN(bytes, length - offset) : 0;

	memset((char *)buf + have, 0, bytes - have);
	return have ? block_pread(node, offset, buf, have) : 0;
}

/* Does all of it read as zeroes, for all that is known without reading? */
static int is_known_zero(struct block_node *node, uint64_t offset, uint64_t bytes, bool *zero)
{
	uint64_t length = node ? READ_ONCE(node->length) : 0;
	struct block_status st;
	int ret;

	*zero = true;
	while (*zero && bytes && offset < length) {
		ret = block_chain_status(node, NULL, offset, MIN(bytes, length - offset), &st,
					 NULL);
		if (ret < 0)
			return ret;
		*zero = st.bytes && (st.flags & BLOCK_STATUS_ZERO);
		offset += MIN(st.bytes, bytes);
		bytes -= MIN(st.bytes, bytes);
	}
	return 0;
}

/* Write to @top where @is differs from what it @was. */
static int write_differences(struct block_node *top, uint64_t offset, const uint8_t *was,
			     const uint8_t *is, uint64_t bytes)
{
	int ret = 0;

	for (uint64_t start = 0, end; start < bytes && ret == 0; start = end) {
		bool differs = memcmp(was + start, is + start, MIN(COMPARE, bytes - start));

		end = start;
		do
			end += MIN(COMPARE, bytes - end);
		while (end < bytes &&
		       differs == !!memcmp(was + end, is + end, MIN(COMPARE, bytes - end)));
		if (differs)
			ret = block_pwrite(top, offset + start, was + start, end - start, 0);
	}
	return ret;
}

static int rebase_piece(struct block_node *top, struct block_node *old, struct block_node *new,
			uint64_t offset, uint64_t bytes, uint8_t *buf)
{
	bool old_zero, new_zero = false;
	int ret = is_known_zero(old, offset, bytes, &old_zero);

	if (ret == 0)
		ret = is_known_zero(new, offset, bytes, &new_zero);
	if (ret < 0 || (old_zero && new_zero))
		return ret;
	ret = read_or_zero(old, offset, buf, bytes);
	if (ret == 0)
		ret = read_or_zero(new, offset, buf + PIECE, bytes);
	return ret < 0 ? ret : write_differences(top, offset, buf, buf + PIECE, bytes);
}

static void report(const struct block_job *job, uint64_t done, uint64_t total)
{
	if (job && job->progress)
		job->progress(job->opaque, done, total);
}

int block_rebase(struct block_node *top, struct block_node *old, struct block_node *new,
		 const struct block_job *job, struct hako_error *err)
{
	uint64_t length = READ_ONCE(top->length), offset = 0;
	uint8_t *buf = malloc(2 * PIECE);
	struct block_status st;
	int ret = buf ? 0 : -ENOMEM;

	while (ret == 0 && offset < length) {
		ret = block_status(top, offset, MIN(PIECE, length - offset), &st);
		st.bytes = MIN(st.bytes, MIN(PIECE, length - offset));
		if (ret == 0 && !(st.flags & BLOCK_STATUS_ALLOCATED))
			ret = rebase_piece(top, old, new, offset, st.bytes, buf);
		if (ret == 0)
			offset += st.bytes;
		report(job, offset, length);
	}
	free(buf);
	if (ret == 0)
		ret = block_flush(top);
	return ret < 0 ? error_errno(err, ret, "rebasing at offset %llu",
				     (unsigned long long)offset)
		       : 0;
}

static int commit_piece(struct block_node *top, struct block_node *base, uint64_t offset,
			const struct block_status *st, uint8_t *buf)
{
	int ret;

	if (!(st->flags & BLOCK_STATUS_ALLOCATED))
		return 0;
	if (st->flags & BLOCK_STATUS_ZERO)
		return block_pzero(base, offset, st->bytes, BLOCK_UNMAP);
	ret = block_pread(top, offset, buf, st->bytes);
	return ret < 0 ? ret : block_pwrite(base, offset, buf, st->bytes, 0);
}

int block_commit(struct block_node *top, struct block_node *base, const struct block_job *job,
		 struct hako_error *err)
{
	uint64_t length = READ_ONCE(top->length), offset = 0;
	uint8_t *buf = malloc(PIECE);
	struct block_status st;
	int ret = buf ? 0 : error_errno(err, -ENOMEM, "commit");

	if (ret == 0 && READ_ONCE(base->length) < length) {
		ret = block_resize(base, length, BLOCK_PREALLOC_OFF, err);
		if (ret < 0)
			error_prefix(err, "lengthening the backing file");
	}
	if (ret < 0) {
		free(buf);
		return ret;
	}
	while (ret == 0 && offset < length) {
		ret = block_chain_status(top, base, offset, MIN(PIECE, length - offset), &st, NULL);
		st.bytes = MIN(st.bytes, MIN(PIECE, length - offset));
		if (ret == 0)
			ret = commit_piece(top, base, offset, &st, buf);
		if (ret == 0)
			offset += st.bytes;
		report(job, offset, length);
	}
	free(buf);
	if (ret == 0)
		ret = block_flush(base);
	return ret < 0 ? error_errno(err, ret, "committing at offset %llu",
				     (unsigned long long)offset)
		       : 0;
}
