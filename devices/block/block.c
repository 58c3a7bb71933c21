/* SPDX-License-Identifier: GPL-2.0-only */
/* Disk nodes: what all of them share. */
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

int block_use(struct vm *vm, const char *id, const void *user, unsigned int use,
	      struct block_node **out, struct hako_error *err)
{
	struct object *obj = object_find(vm, CLASS_BLOCKDEV, id);
	struct block_node *node;
	int ret;

	if (!obj)
		return error_set(err, -ENOENT, "there is no disk node '%s'", id);
	node = container_of(obj, struct block_node, obj);
	if (node->user)
		return error_set(err, -EBUSY, "disk node '%s' is in use already", id);
	if ((use & BLOCK_USE_WRITE) && node->read_only)
		return error_set(err, -EROFS, "disk node '%s' is read-only", id);
	ret = node->ops->use(node, use, err);
	if (ret < 0)
		return ret;
	node->user = user;
	*out = node;
	return 0;
}

void block_unuse(struct block_node *node)
{
	node->ops->unuse(node);
	node->user = NULL;
}
