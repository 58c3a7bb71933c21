/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Each of the coroutines takes the next piece in turn, asks what is there, reads it if it is data, and writes what it has read: in the order of the
 * pieces, so that the target is laid out as a reader will want it, unless the caller does not mind.
 */
#include "copy.h"

#include <stdlib.h>

#include "chain.h"
#include "copy_pack.h"

#define PIECE_BYTES (2 * MiB)

enum piece_kind {
	PIECE_DATA,
	PIECE_ZERO,
	PIECE_BACKING, /* the target's backing has it */
};

struct piece {
	enum piece_kind kind;
	struct block_node *source;
	uint64_t offset;	/* in the target */
	uint64_t source_offset; /* in the source */
	uint64_t bytes;
};

struct copy {
	const struct block_copy *c;
	struct hako_error *err;
	int res;
	uint64_t length; /* of all sources */
	uint64_t align;	 /* of the pieces' ends */
	/* The last answer about a source. */
	enum piece_kind kind;
	uint64_t known; /* where in the target it ends */
	/* The next piece, taken under the lock. */
	struct co_mutex lock;
	uint64_t next;
	uint64_t written; /* in order: all before this is written */
	struct co_queue turn;
	uint64_t done, total; /* bytes of data */
	uint64_t started;     /* for the rate */
	unsigned int running;
	struct co *waiter;
	struct copy_packers *packers; /* compress */
};

/* A coroutine's memory. */
struct buffers {
	uint8_t *data;
	uint8_t *packed; /* compress: as long */
	int64_t *sizes;	 /* of the packed clusters */
};

static int fail(struct copy *s, int code, const char *what, uint64_t offset)
{
	if (s->res == 0) {
		s->res = code;
		error_errno(s->err, code, "error while %s at byte %llu", what,
			    (unsigned long long)offset);
	}
	return code;
}

/* --- what is where ----------------------------------------------------------------------------- */

/* The source that has byte @offset of the whole. */
static struct block_node *find_source(const struct block_copy *c, uint64_t *offset)
{
	unsigned int i = 0;

	while (i + 1 < c->nsources && *offset >= c->sources[i]->length)
		*offset -= c->sources[i++]->length;
	return c->sources[i];
}

/* Find out about the bytes at @offset: sets kind and known. */
static int ask(struct copy *s, uint64_t offset)
{
	const struct block_copy *c = s->c;
	uint64_t in_source = offset;
	struct block_node *source = find_source(c, &in_source);
	struct block_status st;
	int ret;

	ret = block_chain_status(source, c->base, in_source, source->length - in_source, &st, NULL);
	if (ret < 0 && c->salvage) {
		st = (struct block_status){
			.flags = BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED,
			.bytes = MIN(source->length - in_source, s->align),
		};
		ret = 0;
	}
	if (ret < 0)
		return ret;
	if (st.flags & BLOCK_STATUS_ZERO)
		s->kind = c->sparse ? PIECE_ZERO : PIECE_DATA;
	else if (c->target_has_backing && !(st.flags & BLOCK_STATUS_ALLOCATED))
		s->kind = PIECE_BACKING;
	else
		s->kind = PIECE_DATA;
	s->known = offset + st.bytes;
	return 0;
}

/* The next piece, under the lock. 1: there is one, 0: there is none any more. */
static int take_piece(struct copy *s, struct piece *p)
{
	uint64_t end;
	int ret;

	if (s->res || s->next == s->length)
		return 0;
	p->offset = p->source_offset = s->next;
	p->source = find_source(s->c, &p->source_offset);
	if (s->next >= s->known) {
		ret = ask(s, s->next);
		if (ret < 0)
			return fail(s, ret, "reading the block status", s->next);
	}
	end = MIN(s->known, p->offset + p->source->length - p->source_offset);
	p->kind = s->kind;
	/* An answer that ends within a cluster: a cluster that has some data is data as a whole, if it is written compressed. */
	if (s->c->compress && end % s->align) {
		if (p->kind != PIECE_DATA && end - p->offset > s->align) {
			end = ALIGN_DOWN(end, s->align);
		} else {
			p->kind = PIECE_DATA;
			end = ALIGN_UP(end, s->align);
		}
	}
	end = MIN(end, s->length);
	if (p->kind == PIECE_DATA)
		end = MIN(end, ALIGN_DOWN(p->offset, s->align) + MAX(PIECE_BYTES, s->align));
	p->bytes = end - p->offset;
	s->next = end;
	return 1;
}

/* How much data there is to copy, for the progress. */
static int count_data(struct copy *s)
{
	for (uint64_t offset = 0; offset < s->length; offset = s->known) {
		int ret = ask(s, offset);

		if (ret < 0)
			return fail(s, ret, "reading the block status", offset);
		if (s->kind == PIECE_DATA)
			s->total += s->known - offset;
	}
	s->known = 0;
	return 0;
}

/* --- reading ----------------------------------------------------------------------------------- */

/* A place that cannot be read as a whole: sector by sector. */
static void salvage(struct copy *s, const struct piece *p, uint8_t *buf, uint64_t bytes)
{
	for (uint64_t n, done = 0; bytes; done += n, buf += n, bytes -= n) {
		int ret;

		n = MIN(bytes, 512ull);
		ret = block_pread(p->source, p->source_offset + done, buf, n);
		if (ret == 0)
			continue;
		memset(buf, 0, n);
		if (s->c->unreadable)
			s->c->unreadable(s->c->opaque, p->offset + done, ret);
	}
}

/* A piece may reach over the end of its source into the next one. */
static int read_piece(struct copy *s, struct piece *p, uint8_t *buf)
{
	struct piece part = *p;
	int ret;

	for (uint64_t done = 0, n; done < p->bytes; done += n) {
		part.source_offset = part.offset = p->offset + done;
		part.source = find_source(s->c, &part.source_offset);
		n = MIN(p->bytes - done, part.source->length - part.source_offset);
		ret = block_pread(part.source, part.source_offset, buf + done, n);
		if (ret < 0 && s->c->salvage)
			salvage(s, &part, buf + done, n);
		else if (ret < 0)
			return fail(s, ret, "reading", part.offset);
	}
	return 0;
}

/* --- writing ----------------------------------------------------------------------------------- */

static int write_zeroes(struct copy *s, uint64_t offset, uint64_t bytes)
{
	int ret = 0;

	if (offset >= s->c->zero_from)
		return 0;
	bytes = MIN(bytes, s->c->zero_from - offset);
	ret = block_pzero(s->c->target, offset, bytes, s->c->sparse ? BLOCK_UNMAP : 0);
	return ret < 0 ? fail(s, ret, "writing zeroes", offset) : 0;
}

/*
 * How many of the @bytes at @buf are alike, data or zeroes (*@zero)? Runs of zeroes count from c->sparse bytes or a cluster on; they are cut at
 * multiples of that.
 */
static uint64_t run_length(const struct copy *s, const uint8_t *buf, uint64_t offset,
			   uint64_t bytes, bool *zero)
{
	uint64_t unit = MAX(s->c->sparse, s->c->cluster), n = MIN(bytes, unit - offset % unit);

	*zero = mem_is_zero(buf, n);
	while (n < bytes) {
		uint64_t m = MIN(bytes - n, unit);

		if (mem_is_zero(buf + n, m) != *zero)
			break;
		n += m;
	}
	return n;
}

static int write_data(struct copy *s, const struct piece *p, const uint8_t *buf)
{
	uint64_t n;
	int ret = 0;

	for (uint64_t done = 0; done < p->bytes && ret == 0; done += n) {
		uint64_t offset = p->offset + done;
		bool zero = false;

		n = p->bytes - done;
		if (s->c->sparse)
			n = run_length(s, buf + done, offset, n, &zero);
		if (zero) {
			ret = write_zeroes(s, offset, n);
			continue;
		}
		ret = block_pwrite(s->c->target, offset, buf + done, n, 0);
		if (ret < 0)
			return fail(s, ret, "writing", offset);
	}
	return ret;
}

/* One cluster of a piece, compressed unless that made it no smaller. */
static int write_cluster(struct copy *s, uint64_t offset, const uint8_t *data, uint64_t bytes,
			 const uint8_t *packed, int64_t size)
{
	int ret;

	if (size == 0)
		return write_zeroes(s, offset, bytes);
	if (size > 0)
		ret = qcow2_write_packed(qcow2_of(s->c->target), offset, packed, size);
	else if (size == -E2BIG)
		ret = block_pwrite(s->c->target, offset, data, bytes, 0);
	else
		ret = size;
	return ret < 0 ? fail(s, ret, "writing", offset) : 0;
}

static int write_packed(struct copy *s, const struct piece *p, const struct buffers *b)
{
	uint64_t size = s->c->cluster;
	int ret = 0;

	for (uint64_t done = 0; done < p->bytes && ret == 0; done += size)
		ret = write_cluster(s, p->offset + done, b->data + done, MIN(size, p->bytes - done),
				    b->packed + done, b->sizes[done / size]);
	return ret;
}

static int write_piece(struct copy *s, const struct piece *p, const struct buffers *b)
{
	switch (p->kind) {
	case PIECE_BACKING:
		return 0;
	case PIECE_ZERO:
		return write_zeroes(s, p->offset, p->bytes);
	case PIECE_DATA:
		return s->packers ? write_packed(s, p, b) : write_data(s, p, b->data);
	}
	return 0;
}

/* --- the coroutines ---------------------------------------------------------------------------- */

/* Sleep so long that no more than c->rate bytes a second are written. */
static void keep_rate(struct copy *s)
{
	uint64_t due, now;

	if (!s->c->rate)
		return;
	due = s->started + (uint64_t)((double)s->done / (double)s->c->rate * NSEC_PER_SEC);
	now = clock_now();
	if (due > now)
		co_sleep(due - now);
}

static void wait_for_turn(struct copy *s, const struct piece *p)
{
	while (!s->c->any_order && s->written != p->offset)
		co_queue_wait(&s->turn);
}

static void piece_written(struct copy *s, const struct piece *p)
{
	if (!s->c->any_order) {
		s->written = p->offset + p->bytes;
		co_queue_wake_all(&s->turn);
	}
	if (p->kind != PIECE_DATA)
		return;
	s->done += p->bytes;
	if (s->c->progress)
		s->c->progress(s->c->opaque, s->done, MAX(s->total, s->done));
}

/* Read, and compress. */
static int prepare_piece(struct copy *s, struct piece *p, const struct buffers *b)
{
	uint64_t size = s->c->cluster;
	int ret;

	if (p->kind != PIECE_DATA)
		return 0;
	ret = read_piece(s, p, b->data);
	if (ret < 0 || !s->packers)
		return ret;
	if (p->bytes % size) /* the disk's last cluster */
		memset(b->data + p->bytes, 0, size - p->bytes % size);
	copy_pack(s->packers, b->data, b->packed, b->sizes, (p->bytes + size - 1) / size,
		  s->c->sparse != 0);
	return 0;
}

static void copy_pieces(struct copy *s, const struct buffers *b)
{
	struct piece p;
	int ret;

	for (;;) {
		co_lock(&s->lock);
		ret = take_piece(s, &p);
		co_unlock(&s->lock);
		if (ret <= 0)
			return;
		ret = prepare_piece(s, &p, b);
		wait_for_turn(s, &p);
		/* After an error the others are not kept waiting, but nothing is written any more. */
		if (ret == 0 && s->res == 0)
			write_piece(s, &p, b);
		piece_written(s, &p);
		keep_rate(s);
	}
}

static bool make_buffers(const struct copy *s, struct buffers *b)
{
	size_t bytes = MAX(PIECE_BYTES, s->align);

	b->data = aligned_alloc(PAGE_SIZE, bytes);
	if (!s->packers)
		return b->data;
	b->packed = malloc(bytes);
	b->sizes = calloc(bytes / s->c->cluster, sizeof(*b->sizes));
	return b->data && b->packed && b->sizes;
}

static void run(void *arg)
{
	struct copy *s = arg;
	struct buffers b = {0};

	if (make_buffers(s, &b))
		copy_pieces(s, &b);
	else
		fail(s, -ENOMEM, "making a buffer", 0);
	free(b.data);
	free(b.packed);
	free(b.sizes);
	if (!--s->running && s->waiter)
		co_wake(s->waiter);
}

static void start(struct copy *s, unsigned int n)
{
	for (unsigned int i = 0; i < n && s->res == 0; i++) {
		int ret;

		s->running++;
		ret = co_start(co_loop(), run, s);
		if (ret < 0) {
			s->running--;
			fail(s, ret, "starting", 0);
		}
	}
	if (s->running) {
		s->waiter = co_self();
		co_wait();
	}
}

int block_copy(const struct block_copy *c, struct hako_error *err)
{
	struct copy s = {.c = c, .err = err, .started = clock_now()};
	int ret = 0;

	s.align = MAX(c->cluster, 4096ull);
	for (unsigned int i = 0; i < c->nsources; i++)
		s.length += c->sources[i]->length;
	if (c->compress && !qcow2_is_node(c->target))
		return error_set(err, -EOPNOTSUPP,
				 "%s: Compression not supported for this file format",
				 c->target->obj.class->name);
	if (c->compress)
		ret = copy_packers_new(qcow2_of(c->target), &s.packers, err);
	if (ret == 0 && c->progress)
		ret = count_data(&s);
	if (ret == 0) {
		start(&s, MAX(1u, MIN(c->parallel, BLOCK_COPY_MAX_PARALLEL)));
		ret = s.res;
	}
	copy_packers_free(s.packers);
	return ret;
}
