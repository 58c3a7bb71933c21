/* SPDX-License-Identifier: GPL-2.0-only */
#include "compare.h"

#include <stdlib.h>

#include "chain.h"

#define PIECE_BYTES (2 * MiB)
#define SECTOR	    512ull

struct compare {
	struct block_compare *c;
	uint8_t *buf[2];
	struct block_status st[2];
	bool to_end[2]; /* the status is known to hold to the end of the node */
};

static enum block_verdict failed(struct block_compare *c, enum block_verdict verdict, int which,
				 uint64_t offset, int error)
{
	c->which = which;
	c->offset = offset;
	c->error = error;
	return verdict;
}

/* What of @node is at @offset; beyond its end there are zeroes. */
static int find_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		       struct block_status *st)
{
	int ret;

	if (offset >= node->length) {
		*st = (struct block_status){.flags = BLOCK_STATUS_ZERO, .bytes = bytes};
		return 0;
	}
	ret = block_chain_status(node, NULL, offset, bytes, st, NULL);
	if (ret == 0)
		st->bytes = MIN(st->bytes, bytes);
	return ret;
}

/* The first sector at which the buffers differ; @b NULL: is not zero. @bytes: none does. */
static uint64_t find_difference(const uint8_t *a, const uint8_t *b, uint64_t bytes)
{
	if (b ? !memcmp(a, b, bytes) : mem_is_zero(a, bytes))
		return bytes;
	for (uint64_t i = 0; i < bytes; i += SECTOR) {
		size_t n = MIN(SECTOR, bytes - i);

		if (b ? memcmp(a + i, b + i, n) : !mem_is_zero(a + i, n))
			return i;
	}
	return bytes;
}

static enum block_verdict compare_contents(struct compare *s, uint64_t offset, uint64_t bytes)
{
	struct block_compare *c = s->c;
	uint64_t at;
	int ndata = 0, data[2];

	for (int i = 0; i < 2; i++) {
		int ret;

		if (s->st[i].flags & BLOCK_STATUS_ZERO)
			continue;
		ret = block_pread(c->nodes[i], offset, s->buf[i], bytes);
		if (ret < 0)
			return failed(c, BLOCK_READ_FAILED, i, offset, ret);
		data[ndata++] = i;
	}
	if (!ndata)
		return BLOCK_SAME;
	at = find_difference(s->buf[data[0]], ndata == 2 ? s->buf[data[1]] : NULL, bytes);
	if (at < bytes)
		return failed(c, BLOCK_OTHER_CONTENTS, data[0], offset + at, 0);
	return BLOCK_SAME;
}

/* As much as is alike in both, at most a piece if it has to be read. Sets *@bytes. */
static enum block_verdict compare_piece(struct compare *s, uint64_t offset, uint64_t *bytes)
{
	const unsigned int what = BLOCK_STATUS_DATA | BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED;
	struct block_compare *c = s->c;

	for (int i = 0; i < 2; i++) {
		uint64_t rest = MAX(*bytes, c->nodes[i]->length - MIN(offset, c->nodes[i]->length));
		int ret = find_status(c->nodes[i], offset, rest, &s->st[i]);

		if (ret < 0)
			return failed(c, BLOCK_STATUS_FAILED, i, offset, ret);
		s->to_end[i] = s->st[i].bytes == rest;
	}
	for (int i = 0; i < 2; i++)
		*bytes = MIN(*bytes, s->st[i].bytes);
	/* QEMU takes it for a difference, too, if one goes on to the end and the other does not. */
	if (c->strict &&
	    (((s->st[0].flags ^ s->st[1].flags) & what) || s->to_end[0] != s->to_end[1]))
		return failed(c, BLOCK_OTHER_STATUS, 0, offset, 0);
	if (s->st[0].flags & s->st[1].flags & BLOCK_STATUS_ZERO)
		return BLOCK_SAME;
	*bytes = MIN(*bytes, PIECE_BYTES);
	return compare_contents(s, offset, *bytes);
}

static enum block_verdict compare(struct compare *s)
{
	struct block_compare *c = s->c;
	uint64_t length = MAX(c->nodes[0]->length, c->nodes[1]->length), bytes;
	enum block_verdict v = BLOCK_SAME;

	if (c->strict && c->nodes[0]->length != c->nodes[1]->length)
		return BLOCK_OTHER_SIZE;
	for (uint64_t offset = 0; offset < length && v == BLOCK_SAME; offset += bytes) {
		bytes = length - offset;
		/* Not over the end of the shorter one. */
		for (int i = 0; i < 2; i++)
			if (offset < c->nodes[i]->length)
				bytes = MIN(bytes, c->nodes[i]->length - offset);
		v = compare_piece(s, offset, &bytes);
		if (c->progress)
			c->progress(c->opaque, offset + bytes, length);
	}
	return v;
}

enum block_verdict block_compare(struct block_compare *c)
{
	struct compare s = {.c = c};
	enum block_verdict v;

	for (int i = 0; i < 2; i++)
		s.buf[i] = aligned_alloc(PAGE_SIZE, PIECE_BYTES);
	if (s.buf[0] && s.buf[1])
		v = compare(&s);
	else
		v = failed(c, BLOCK_READ_FAILED, 0, 0, -ENOMEM);
	free(s.buf[0]);
	free(s.buf[1]);
	return v;
}

/* --- the map --------------------------------------------------------------------------------------- */

/* Is @b, which comes right behind it, of the same kind and place as @a? */
static bool continues(const struct block_extent *a, const struct block_extent *b)
{
	if (a->flags != b->flags || a->depth != b->depth || a->node != b->node)
		return false;
	return !(a->flags & BLOCK_STATUS_OFFSET) || a->offset + a->bytes == b->offset;
}

int block_map(struct block_node *node, uint64_t start, uint64_t bytes,
	      int (*fn)(void *opaque, const struct block_extent *extent), void *opaque)
{
	struct block_extent last = {0}, e;
	struct block_status st;
	int ret;

	if (start >= node->length)
		return 0;
	for (uint64_t end = start + MIN(bytes, node->length - start); start < end;
	     start += st.bytes) {
		ret = block_chain_status(node, NULL, start, end - start, &st, &e.depth);
		if (ret < 0)
			return ret;
		st.bytes = MIN(st.bytes, end - start);
		e.start = start;
		e.bytes = st.bytes;
		e.flags = st.flags;
		e.offset = st.offset;
		e.node = st.flags & BLOCK_STATUS_OFFSET ? st.node : NULL;
		if (last.bytes && continues(&last, &e)) {
			last.bytes += e.bytes;
			continue;
		}
		ret = last.bytes ? fn(opaque, &last) : 0;
		if (ret)
			return ret;
		last = e;
	}
	return last.bytes ? fn(opaque, &last) : 0;
}
