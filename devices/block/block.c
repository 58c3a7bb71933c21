/* SPDX-License-Identifier: GPL-2.0-only */
/* Disk nodes: what all of them share. */
#include <stdlib.h>

#include "block.h"
#include "vmm/vm.h"

static void deferred_done(struct loop_defer *defer)
{
	struct block_req *req = container_of(defer, struct block_req, defer);

	req->done(req, req->res);
}

void block_done_later(struct block_req *req, int res)
{
	req->res = res;
	req->defer.fn = deferred_done;
	req->defer.queued = false;
	loop_defer(req->loop, &req->defer);
}

/* --- more hooks than a request has ------------------------------------------------------------- */

struct carrier {
	struct block_req req;
	struct block_req *upper;
};

static void carrier_done(struct block_req *req, int res)
{
	struct carrier *c = container_of(req, struct carrier, req);
	struct block_req *upper = c->upper;

	free(c);
	upper->done(upper, res);
}

static struct block_req *carry(struct block_req *req)
{
	struct carrier *c = malloc(sizeof(*c));

	if (!c)
		return NULL;
	c->upper = req;
	c->req.op = req->op;
	c->req.flags = req->flags;
	c->req.offset = req->offset;
	c->req.bytes = req->bytes;
	c->req.iov = req->iov;
	c->req.niov = req->niov;
	c->req.done = carrier_done;
	c->req.loop = req->loop;
	c->req.npassed = 0;
	return &c->req;
}

struct block_req *block_hookable(struct block_req *req)
{
	return block_can_hook(req) ? req : carry(req);
}

/* --- writes that are looked at ----------------------------------------------------------------- */

static bool iov_is_zero(const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++)
		if (!mem_is_zero(iov[i].iov_base, iov[i].iov_len))
			return false;
	return true;
}

/* The first sector in a copy, since the guest may change his while it is written; behind it, his other buffers. */
struct guarded {
	uint8_t sector[BLOCK_PROBE_BYTES];
	const struct iovec *old_iov;
	int old_niov;
	struct iovec iov[];
};

static void guarded_done(struct block_req *req, int res)
{
	struct guarded *g = block_passed_opaque(req);

	block_passed(req);
	req->iov = g->old_iov;
	req->niov = g->old_niov;
	free(g);
	req->done(req, res);
}

static struct guarded *guard(struct block_req *req)
{
	struct guarded *g = malloc(sizeof(*g) + (req->niov + 1) * sizeof(g->iov[0]));
	size_t done = 0;
	int n = 1;

	if (!g)
		return NULL;
	g->old_iov = req->iov;
	g->old_niov = req->niov;
	g->iov[0] = (struct iovec){g->sector, sizeof(g->sector)};
	for (int i = 0; i < req->niov; i++) {
		const struct iovec *v = &req->iov[i];
		size_t len = MIN(v->iov_len, sizeof(g->sector) - done);

		memcpy(g->sector + done, v->iov_base, len);
		done += len;
		if (v->iov_len > len)
			g->iov[n++] = (struct iovec){(char *)v->iov_base + len, v->iov_len - len};
	}
	req->iov = g->iov;
	req->niov = n;
	return g;
}

/* Each request of a device is of whole sectors, so that nothing is put together of parts. */
static void write_first_sector(struct block_node *node, struct block_req *req)
{
	struct block_req *hooked = block_hookable(req);
	struct guarded *g = hooked ? guard(hooked) : NULL;

	if (!g) {
		block_done_later(hooked ? hooked : req, -ENOMEM);
	} else if (block_looks_raw(g->sector, sizeof(g->sector))) {
		block_hook(hooked, hooked->offset, guarded_done, g);
		node->ops->submit(node, hooked);
	} else {
		hooked->iov = g->old_iov;
		hooked->niov = g->old_niov;
		free(g);
		vm_log(node->obj.vm,
		       "%s: refused to make the raw image look like one of another format "
		       "(format=raw allows it)",
		       node->obj.id);
		block_done_later(hooked, -EPERM);
	}
}

void block_submit_checked(struct block_node *node, struct block_req *req)
{
	if (node->opts.detect_zeroes && iov_is_zero(req->iov, req->niov)) {
		req->op = BLOCK_WRITE_ZEROES;
		if (node->opts.detect_zeroes == BLOCK_DETECT_UNMAP)
			req->flags |= BLOCK_UNMAP;
	} else if (node->probed && !req->offset && req->bytes >= BLOCK_PROBE_BYTES) {
		write_first_sector(node, req);
		return;
	}
	node->ops->submit(node, req);
}
