/* SPDX-License-Identifier: GPL-2.0-only */
#include "block_co.h"
#include "vmm/vm.h"

struct co_req {
	struct block_req req;
	struct co *co;
	int res;
};

static void co_req_done(struct block_req *req, int res)
{
	struct co_req *r = container_of(req, struct co_req, req);

	r->res = res;
	co_wake(r->co);
}

static int submit(struct block_node *node, struct co_req *r);

struct submission {
	struct block_node *node;
	struct co_req *r;
};

static int submit_co(void *arg)
{
	struct submission *s = arg;

	return submit(s->node, s->r);
}

/* A node that does not block: have the VM's loop do it. */
static int in_loop(struct block_node *node, struct co_req *r)
{
	struct submission s = {node, r};
	struct loop *loop = node->obj.vm->io_loop;

	return loop_is_current(loop) ? -EDEADLK : co_run(loop, submit_co, &s);
}

/* @req's op, flags, offset, bytes, iov and niov are set. */
static int submit(struct block_node *node, struct co_req *r)
{
	r->co = co_self();
	if (!r->co)
		return node->ops->sync ? node->ops->sync(node, &r->req) : in_loop(node, r);
	r->req.loop = co_loop();
	r->req.done = co_req_done;
	block_submit(node, &r->req);
	co_wait(); /* done is never called from within submit */
	return r->res;
}

int block_preadv(struct block_node *node, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		 int niov)
{
	struct co_req r;

	r.req.op = BLOCK_READ;
	r.req.flags = 0;
	r.req.offset = offset;
	r.req.bytes = bytes;
	r.req.iov = iov;
	r.req.niov = niov;
	return submit(node, &r);
}

int block_pwritev(struct block_node *node, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		  int niov, uint32_t flags)
{
	struct co_req r;

	r.req.op = BLOCK_WRITE;
	r.req.flags = flags;
	r.req.offset = offset;
	r.req.bytes = bytes;
	r.req.iov = iov;
	r.req.niov = niov;
	return submit(node, &r);
}

int block_pread(struct block_node *node, uint64_t offset, void *buf, size_t bytes)
{
	const struct iovec iov = {buf, bytes};

	return block_preadv(node, offset, bytes, &iov, 1);
}

int block_pwrite(struct block_node *node, uint64_t offset, const void *buf, size_t bytes,
		 uint32_t flags)
{
	const struct iovec iov = {(void *)buf, bytes};

	return block_pwritev(node, offset, bytes, &iov, 1, flags);
}

static int without_data(struct block_node *node, enum block_op op, uint64_t offset, uint64_t bytes,
			uint32_t flags)
{
	struct co_req r;

	r.req.op = op;
	r.req.flags = flags;
	r.req.offset = offset;
	r.req.bytes = bytes;
	r.req.iov = NULL;
	r.req.niov = 0;
	return submit(node, &r);
}

int block_pzero(struct block_node *node, uint64_t offset, uint64_t bytes, uint32_t flags)
{
	return without_data(node, BLOCK_WRITE_ZEROES, offset, bytes, flags);
}

int block_pdiscard(struct block_node *node, uint64_t offset, uint64_t bytes)
{
	return without_data(node, BLOCK_DISCARD, offset, bytes, 0);
}

int block_flush(struct block_node *node)
{
	return without_data(node, BLOCK_FLUSH, 0, 0, 0);
}

int block_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st)
{
	uint64_t length = READ_ONCE(node->length);

	*st = (struct block_status){0};
	if (offset >= length)
		return 0;
	bytes = MIN(bytes, length - offset);
	if (node->ops->status)
		return node->ops->status(node, offset, bytes, st);
	*st = (struct block_status){
		.flags = BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET,
		.bytes = bytes,
		.offset = offset,
		.node = node,
	};
	return 0;
}

int block_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		 struct hako_error *err)
{
	const struct block_class *class = node->obj.class->ops;
	int ret;

	if (!node->ops->resize)
		return error_set(err, -EOPNOTSUPP, "%s nodes have a fixed size",
				 node->obj.class->name);
	ret = node->ops->resize(node, length, prealloc, err);
	/* Files and filters have said so themselves. */
	if (ret == 0 && class && class->is_format)
		block_set_length(node, READ_ONCE(node->length));
	return ret;
}

int block_filter_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_status *st)
{
	return block_status(node->file, offset, bytes, st);
}

int block_filter_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
			struct hako_error *err)
{
	return block_resize(node->file, length, prealloc, err);
}

void block_filter_follow(struct block_node *node)
{
	block_set_length(node, READ_ONCE(node->file->length));
}
