/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: requests as they come, and reading. A request whose place is known and in one piece is passed on to the node below at once;
 * every other is served by a coroutine.
 */
#include <stdlib.h>

#include "qcow2.h"

#define FEW_IOVECS 16

/* --- the fast path ----------------------------------------------------------------------------- */

static void passed_done(struct block_req *req, int res)
{
	uintptr_t v = (uintptr_t)block_passed_opaque(req);

	block_passed(req);
	qcow2_leave((struct qcow2 *)(v & ~(uintptr_t)1), v & 1);
	req->done(req, res);
}

static void pass_to_data(struct qcow2 *q, struct block_req *req, uint64_t host)
{
	uintptr_t v = (uintptr_t)q | qcow2_enter(q);

	block_event(q->node.file,
		    req->op == BLOCK_READ ? BLOCK_EVENT_READ_AIO : BLOCK_EVENT_WRITE_AIO);
	block_pass_hook(q->data, req, host, passed_done, (void *)v);
}

static void iov_zero(const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++)
		memset(iov[i].iov_base, 0, iov[i].iov_len);
}

/* Nothing of it is in this image. */
static bool read_below(struct qcow2 *q, struct block_req *req)
{
	struct block_node *backing = q->node.backing;
	uint64_t length = backing ? READ_ONCE(backing->length) : 0;

	if (req->offset >= length) {
		iov_zero(req->iov, req->niov);
		block_done_later(req, 0);
		return true;
	}
	if (req->bytes > length - req->offset)
		return false;
	block_pass(backing, req);
	return true;
}

/*
 * Is all of the request in one cluster of the file, by an entry of the usual kind? Nearly all are, of a guest that reads and writes pages.
 * False: qcow2_map() knows more.
 */
static inline bool map_plain(const struct qcow2 *q, const struct qcow2_table *t,
			     const struct block_req *req, uint64_t *host, bool *writable)
{
	uint64_t entry = qcow2_l2_entry(q, t, qcow2_l2_index(q, req->offset)),
		 start = entry & QCOW2_L2_OFFSET, skip = req->offset & (q->cluster_size - 1),
		 end = skip + req->bytes;

	*host = start + skip;
	*writable = entry & QCOW2_COPIED;
	/* The last cluster of the file may not all be there. */
	return !(entry & q->not_plain) && start && end <= q->cluster_size &&
	       start + end <= READ_ONCE(q->data->length);
}

static bool read_mapped(struct qcow2 *q, const struct qcow2_table *t, struct block_req *req)
{
	struct qcow2_map map;

	if (qcow2_map(q, t, req->offset, req->bytes, &map) < 0 || map.bytes < req->bytes)
		return false;
	switch (map.type) {
	case QCOW2_NORMAL:
		if (map.host + map.bytes > READ_ONCE(q->data->length))
			return false;
		pass_to_data(q, req, map.host);
		return true;
	case QCOW2_UNALLOCATED:
		return read_below(q, req);
	case QCOW2_ZEROES:
		iov_zero(req->iov, req->niov);
		block_done_later(req, 0);
		return true;
	default:
		return false;
	}
}

static bool read_unmapped(struct qcow2 *q, struct block_req *req)
{
	unsigned int l1_shift = q->cluster_bits + q->l2_bits;
	uint64_t index = req->offset >> l1_shift;

	return !q->l1[index] && index == (req->offset + req->bytes - 1) >> l1_shift &&
	       read_below(q, req);
}

static bool fast_read(struct qcow2 *q, struct block_req *req)
{
	struct qcow2_table *t = qcow2_cache_find(&q->l2, req->offset >> q->slice_shift);
	uint64_t host;
	bool writable;

	if (!t)
		return read_unmapped(q, req);
	t->used = true;
	if (unlikely(!map_plain(q, t, req, &host, &writable)))
		return read_mapped(q, t, req);
	pass_to_data(q, req, host);
	return true;
}

static bool map_writable(const struct qcow2 *q, const struct qcow2_table *t,
			 const struct block_req *req, uint64_t *host)
{
	struct qcow2_map map;

	if (qcow2_map(q, t, req->offset, req->bytes, &map) < 0 || map.bytes < req->bytes ||
	    map.type != QCOW2_NORMAL)
		return false;
	*host = map.host;
	return map.writable;
}

static bool fast_write(struct qcow2 *q, struct block_req *req)
{
	struct qcow2_table *t = qcow2_cache_find(&q->l2, req->offset >> q->slice_shift);
	bool writable;
	uint64_t host;

	if (!t || q->corrupt)
		return false;
	/* What is durable needs a mapping that is. */
	if ((req->flags & BLOCK_FUA) && (q->lock.locked || qcow2_is_dirty(q)))
		return false;
	if (req->flags & BLOCK_COMPRESSED)
		return false;
	t->used = true;
	if (unlikely(!map_plain(q, t, req, &host, &writable)))
		writable = map_writable(q, t, req, &host);
	if (!writable || (q->data == q->node.file && qcow2_meta_find(q, host, req->bytes)))
		return false;
	if (q->dirty)
		q->dirty(q, req->offset, req->bytes);
	pass_to_data(q, req, host);
	return true;
}

static inline bool fast_path(struct qcow2 *q, struct block_req *req)
{
	if (q->frozen || !block_can_hook(req))
		return false;
	switch (req->op) {
	case BLOCK_READ:
		return fast_read(q, req);
	case BLOCK_WRITE:
		return fast_write(q, req);
	case BLOCK_FLUSH:
		if (q->lock.locked || qcow2_is_dirty(q) || q->data != q->node.file)
			return false;
		block_pass(q->node.file, req);
		return true;
	default:
		return false;
	}
}

/* --- the slow path ----------------------------------------------------------------------------- */

static int serve(struct qcow2 *q, struct block_req *req)
{
	bool unmap = req->flags & BLOCK_UNMAP;
	int ret;

	switch (req->op) {
	case BLOCK_READ:
		return qcow2_co_read(q, req->offset, req->bytes, req->iov, req->niov);
	case BLOCK_WRITE:
		if (req->flags & BLOCK_COMPRESSED)
			ret = qcow2_co_write_compressed(q, req->offset, req->bytes, req->iov,
							req->niov);
		else
			ret = qcow2_co_write(q, req->offset, req->bytes, req->iov, req->niov);
		break;
	case BLOCK_WRITE_ZEROES:
		ret = qcow2_co_zero(q, req->offset, req->bytes, unmap);
		break;
	case BLOCK_DISCARD:
		ret = qcow2_co_discard(q, req->offset, req->bytes);
		break;
	case BLOCK_FLUSH:
		return qcow2_co_flush(q);
	default:
		return -EINVAL;
	}
	if (ret == 0 && (req->flags & BLOCK_FUA))
		ret = qcow2_co_flush(q);
	return ret;
}

static void slow_path(void *arg)
{
	struct block_req *req = arg;

	block_done_later(req, serve(qcow2_of(req->node), req));
}

static int check_request(const struct qcow2 *q, const struct block_req *req)
{
	uint64_t length = READ_ONCE(q->node.length);

	if (req->op == BLOCK_FLUSH)
		return 0;
	if (req->offset > length || req->bytes > length - req->offset)
		return -EINVAL;
	if (req->op != BLOCK_READ && !q->writing)
		return -EROFS;
	return 0;
}

static void submit_home(struct qcow2 *q, struct block_req *req)
{
	int ret = check_request(q, req);

	if (unlikely(ret < 0 || (!req->bytes && req->op != BLOCK_FLUSH))) {
		block_done_later(req, ret);
		return;
	}
	if (likely(fast_path(q, req)))
		return;
	req->node = &q->node;
	if (co_start(q->home, slow_path, req) < 0)
		block_done_later(req, -ENOMEM);
}

int qcow2_sync(struct block_node *node, struct block_req *req)
{
	struct qcow2 *q = qcow2_of(node);
	int ret = check_request(q, req);

	return ret < 0 || (!req->bytes && req->op != BLOCK_FLUSH) ? ret : serve(q, req);
}

/* --- from other loops -------------------------------------------------------------------------- */

/* The answer is back where the request came from. */
static void remote_back(struct loop_msg *msg)
{
	struct block_req *req = container_of(msg, struct block_req, msg);

	req->done(req, req->res);
}

static void remote_done(struct block_req *req, int res)
{
	struct loop *loop = block_passed_opaque(req);

	block_passed(req);
	req->loop = loop;
	req->res = res;
	req->msg.fn = remote_back;
	loop_post(loop, &req->msg);
}

static void remote_arrived(struct loop_msg *msg)
{
	struct block_req *req = container_of(msg, struct block_req, msg);

	submit_home(qcow2_of(req->node), req);
}

/* It is served at home, as one of the home loop's. */
static void submit_remote(struct qcow2 *q, struct block_req *req)
{
	struct loop *home = READ_ONCE(q->home);
	struct block_req *hooked = home ? block_hookable(req) : NULL;

	if (!hooked) {
		block_done_later(req, home ? -ENOMEM : -ENXIO);
		return;
	}
	block_hook(hooked, hooked->offset, remote_done, hooked->loop);
	hooked->loop = home;
	hooked->node = &q->node;
	hooked->msg.fn = remote_arrived;
	hooked->msg.posted = false;
	loop_post(home, &hooked->msg);
}

void qcow2_submit(struct block_node *node, struct block_req *req)
{
	struct qcow2 *q = qcow2_of(node);

	if (likely(req->loop == q->home))
		submit_home(q, req);
	else
		submit_remote(q, req);
}

/* --- reading ----------------------------------------------------------------------------------- */

int qcow2_iov_part(const struct iovec *iov, int niov, uint64_t skip, uint64_t bytes,
		   struct iovec *out)
{
	int n = 0;

	for (int i = 0; i < niov && bytes; i++) {
		uint64_t len = iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len = MIN(len - skip, bytes);
		out[n].iov_base = (char *)iov[i].iov_base + skip;
		out[n++].iov_len = len;
		skip = 0;
		bytes -= len;
	}
	return n;
}

/* From a node below, which may be NULL or end before: zeroes from there on. @iov is changed. */
static int read_node(struct block_node *node, uint64_t offset, uint64_t bytes, struct iovec *iov,
		     int niov)
{
	uint64_t length = node ? READ_ONCE(node->length) : 0, have, skip;

	have = skip = offset < length ? MIN(bytes, length - offset) : 0;
	for (int i = 0; i < niov && have < bytes; i++) {
		uint64_t n = MIN(skip, (uint64_t)iov[i].iov_len);

		memset((char *)iov[i].iov_base + n, 0, iov[i].iov_len - n);
		skip -= n;
	}
	if (have < bytes)
		niov = qcow2_iov_part(iov, niov, 0, have, iov);
	return have ? block_preadv(node, offset, have, iov, niov) : 0;
}

/* A piece that is mapped alike; @iov is ours. */
static int read_piece(struct qcow2 *q, uint64_t offset, const struct qcow2_map *map,
		      struct iovec *iov, int niov)
{
	unsigned int phase;
	int ret;

	switch (map->type) {
	case QCOW2_UNALLOCATED:
		block_event(q->node.file, BLOCK_EVENT_READ_BACKING_AIO);
		return read_node(q->node.backing, offset, map->bytes, iov, niov);
	case QCOW2_NORMAL:
		phase = qcow2_enter(q);
		block_event(q->node.file, BLOCK_EVENT_READ_AIO);
		ret = read_node(q->data, map->host, map->bytes, iov, niov);
		qcow2_leave(q, phase);
		return ret;
	case QCOW2_PACKED:
		return qcow2_read_packed(q, map->entry, offset & (q->cluster_size - 1), map->bytes,
					 iov, niov);
	default:
		iov_zero(iov, niov);
		return 0;
	}
}

int qcow2_map_at(struct qcow2 *q, uint64_t offset, uint64_t bytes, struct qcow2_map *map)
{
	struct qcow2_table *t = qcow2_cache_find(&q->l2, offset >> q->slice_shift);
	uint64_t l2_bytes = 1ull << (q->cluster_bits + q->l2_bits);
	int ret = 0;

	if (!t) {
		ret = qcow2_l2_preload(q, offset);
		t = qcow2_cache_find(&q->l2, offset >> q->slice_shift);
	}
	if (ret == 0 && (!t || q->frozen)) {
		co_lock(&q->lock);
		ret = qcow2_l2_get(q, offset, &t);
		if (ret == 0 && t)
			qcow2_table_put(t); /* nobody else comes to run until we wait */
		co_unlock(&q->lock);
	}
	if (ret < 0)
		return ret;
	if (!t) {
		*map = (struct qcow2_map){.type = QCOW2_UNALLOCATED};
		map->bytes = MIN(bytes, l2_bytes - (offset & (l2_bytes - 1)));
		return 0;
	}
	t->used = true;
	ret = qcow2_map(q, t, offset, bytes, map);
	return ret < 0 ? qcow2_map_corrupt(q, offset, map) : 0;
}

int qcow2_co_read(struct qcow2 *q, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		  int niov)
{
	struct iovec few[FEW_IOVECS],
		*part = niov <= FEW_IOVECS ? few : malloc(niov * sizeof(*part));
	struct qcow2_map map;
	int ret = part ? 0 : -ENOMEM;

	for (uint64_t pos = 0; pos < bytes && ret == 0; pos += map.bytes) {
		ret = qcow2_map_at(q, offset + pos, bytes - pos, &map);
		if (ret == 0)
			ret = read_piece(q, offset + pos, &map, part,
					 qcow2_iov_part(iov, niov, pos, map.bytes, part));
	}
	if (part != few)
		free(part);
	return ret;
}

int qcow2_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st)
{
	struct qcow2 *q = qcow2_of(node);
	struct block_node *backing = node->backing;
	struct qcow2_map map;
	int ret = qcow2_map_at(q, offset, bytes, &map);

	if (ret < 0)
		return ret;
	st->bytes = map.bytes;
	switch (map.type) {
	case QCOW2_UNALLOCATED:
		if (!backing || offset >= READ_ONCE(backing->length))
			st->flags = BLOCK_STATUS_ZERO;
		else
			st->bytes = MIN(st->bytes, READ_ONCE(backing->length) - offset);
		break;
	case QCOW2_ZEROES:
		st->flags = BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED;
		if (map.has_host)
			st->flags |= BLOCK_STATUS_OFFSET;
		break;
	case QCOW2_NORMAL:
		st->flags = BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET;
		break;
	case QCOW2_PACKED:
		st->flags = BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_COMPRESSED;
		break;
	}
	if (st->flags & BLOCK_STATUS_OFFSET) {
		st->offset = map.host;
		st->node = q->data;
	}
	return 0;
}

/* --- standstill -------------------------------------------------------------------------------- */

void qcow2_freeze(struct qcow2 *q)
{
	unsigned int old;

	q->frozen++;
	co_lock(&q->lock);
	qcow2_wait_inflight(q, 0, UINT64_MAX);
	qcow2_wait_grown(q);
	old = q->phase;
	q->phase ^= 1;
	while (q->passed[old])
		co_queue_wait(&q->phase_ended);
}

void qcow2_thaw(struct qcow2 *q)
{
	q->frozen--;
	co_unlock(&q->lock);
}
