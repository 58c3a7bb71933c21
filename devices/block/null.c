/* SPDX-License-Identifier: GPL-2.0-only */
/* "null-co": a disk that forgets what is written to it. What is left of a benchmark is the way there. */
#include "block_co.h"

struct null_node {
	struct block_node node;
	uint64_t size;
	bool read_zeroes;
};

static int null_sync(struct block_node *node, struct block_req *req)
{
	const struct null_node *n = container_of(node, struct null_node, node);

	if (req->op != BLOCK_FLUSH &&
	    (req->offset > node->length || req->bytes > node->length - req->offset))
		return -EINVAL;
	for (int i = 0; i < req->niov && req->op == BLOCK_READ && n->read_zeroes; i++)
		memset(req->iov[i].iov_base, 0, req->iov[i].iov_len);
	return 0;
}

static void null_submit(struct block_node *node, struct block_req *req)
{
	block_done_later(req, null_sync(node, req));
}

static const struct block_ops null_ops = {
	.submit = null_submit,
	.sync = null_sync,
};

static int null_create(struct object *obj, struct hako_error *err)
{
	struct null_node *n = container_of(obj, struct null_node, node.obj);
	int ret = block_node_init(&n->node, &null_ops, err);

	n->node.length = ALIGN_UP(n->size, 512);
	n->node.can_discard = n->node.opts.discard == BLOCK_DISCARD_UNMAP && !n->node.read_only;
	n->node.can_write_zeroes = n->node.writeback = !n->node.read_only;
	return ret;
}

static void null_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct option null_options[] = {
	OPT_SIZE("size", struct null_node, size, "1G", 0, INT64_MAX, "the disk's size"),
	OPT_BOOL("read-zeroes", struct null_node, read_zeroes, "on",
		 "reads give zeroes; off: they leave the guest's memory as it is"),
	OPT_END,
};

static const struct class null_class = {
	.name = "null-co",
	.help = "a disk that forgets what is written, for benchmarks",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct null_node),
	.options = null_options,
	.bus_options = block_node_options,
	.create = null_create,
	.destroy = null_destroy,
};
HAKO_CLASS(null_class);
