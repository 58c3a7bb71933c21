/* SPDX-License-Identifier: GPL-2.0-only */
/* "raw": a disk as it is, or a part of it, on any other node. Whole image files do without: they are a "file" node alone. */
#include "block_co.h"
#include "vmm/vm.h"

struct raw {
	struct block_node node;
	struct option_tree file;
	uint64_t offset, size;
};

static struct raw *to_raw(struct block_node *node)
{
	return container_of(node, struct raw, node);
}

static void raw_done(struct block_req *req, int res)
{
	block_passed(req);
	req->done(req, res);
}

static void raw_submit(struct block_node *node, struct block_req *req)
{
	uint64_t length = READ_ONCE(node->length), offset = to_raw(node)->offset;
	struct block_req *hooked;

	/* Without a size of its own its end is the lower node's affair, which may grow. */
	if (!to_raw(node)->size)
		length = INT64_MAX - offset;
	if (req->op == BLOCK_FLUSH) {
		block_pass(node->file, req);
	} else if (req->offset > length || req->bytes > length - req->offset) {
		block_done_later(req, -EINVAL);
	} else if (!offset) {
		block_pass(node->file, req);
	} else {
		hooked = block_hookable(req);
		if (hooked)
			block_pass_hook(node->file, hooked, hooked->offset + offset, raw_done,
					NULL);
		else
			block_done_later(req, -ENOMEM);
	}
}

static int raw_status(struct block_node *node, uint64_t offset, uint64_t bytes,
		      struct block_status *st)
{
	return block_status(node->file, offset + to_raw(node)->offset, bytes, st);
}

static int raw_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		      struct hako_error *err)
{
	struct raw *raw = to_raw(node);

	if (raw->size)
		return error_set(err, -EOPNOTSUPP, "the size is fixed by size=%llu",
				 (unsigned long long)raw->size);
	if (length > INT64_MAX - raw->offset)
		return error_set(err, -EFBIG, "%llu bytes are too many",
				 (unsigned long long)length);
	return block_resize(node->file, length + raw->offset, prealloc, err);
}

static void raw_follow(struct block_node *node)
{
	uint64_t length = READ_ONCE(node->file->length), offset = to_raw(node)->offset;

	if (!to_raw(node)->size)
		block_set_length(node, length > offset ? length - offset : 0);
}

static const struct block_ops raw_ops = {
	.submit = raw_submit,
	.status = raw_status,
	.resize = raw_resize,
	.follow = raw_follow,
};

static int find_part(struct raw *raw, struct hako_error *err)
{
	uint64_t length = raw->node.file->length;

	if ((raw->offset | raw->size) & 511)
		return error_set(err, -EINVAL, "offset and size must be multiples of 512");
	if (raw->offset > length)
		return error_set(err, -EINVAL, "offset=%llu is beyond the end of the image, %llu",
				 (unsigned long long)raw->offset, (unsigned long long)length);
	if (raw->size > length - raw->offset)
		return error_set(err, -EINVAL,
				 "size=%llu is more than the image has behind the offset, %llu",
				 (unsigned long long)raw->size,
				 (unsigned long long)(length - raw->offset));
	raw->node.length = raw->size ? raw->size : length - raw->offset;
	return 0;
}

static int raw_create(struct object *obj, struct hako_error *err)
{
	struct raw *raw = container_of(obj, struct raw, node.obj);
	struct block_node *node = &raw->node;
	int ret = block_node_init(node, &raw_ops, err);

	if (ret == 0)
		ret = block_open_child(node, "file", &raw->file, BLOCK_ROLE_FILE, &node->file, err);
	if (ret == 0)
		ret = find_part(raw, err);
	if (ret < 0)
		block_node_free(node);
	else
		block_take_limits(node, node->file);
	return ret;
}

static void raw_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct option raw_options[] = {
	OPT_NODE("file", struct raw, file, "the node that holds the disk"),
	OPT_SIZE("offset", struct raw, offset, "0", 0, INT64_MAX, "where in it the disk begins"),
	OPT_SIZE("size", struct raw, size, "0", 0, INT64_MAX,
		 "the disk's size; 0: up to the node's end"),
	OPT_END,
};

static const struct class raw_class = {
	.name = "raw",
	.help = "a disk as it is, or a part of it",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct raw),
	.options = raw_options,
	.bus_options = block_node_options,
	.create = raw_create,
	.destroy = raw_destroy,
};
HAKO_CLASS(raw_class);
