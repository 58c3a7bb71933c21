/* SPDX-License-Identifier: GPL-2.0-only */
/* Disk node program: served by the program that holds the VM, from its memory or by its own function. */
#include <stdlib.h>

#include "devices/block/block_co.h"
#include "vmm/events.h"
#include "vmm/vm.h"
#include "vmm/vm_internal.h"

/* What hako_vm_add_disk() was told; in vm->program_disks. */
struct program_disk {
	struct list link;
	char *id;
	struct hako_disk disk;
};

struct disk_node {
	struct block_node node;
	const struct hako_disk *disk;
};

/* The public request is its first member. */
struct disk_request {
	struct hako_disk_request pub;
	struct disk_node *n;
	int result;
	unsigned int delay_ms;
	/* For a request of a loop, which completes it; NULL: somebody waits for @done. */
	struct block_req *req;
	struct loop_msg msg;
	struct loop_timer timer;
	bool done; /* under the events' lock */
};

/* --- in memory --------------------------------------------------------------------------------- */

static int serve(const struct disk_request *r)
{
	char *at = r->n->disk->memory ? (char *)r->n->disk->memory + r->pub.offset : NULL;

	if (!at)
		return -EIO;
	for (int i = 0; i < r->pub.niov && r->pub.op == HAKO_DISK_READ; i++) {
		memcpy(r->pub.iov[i].iov_base, at, r->pub.iov[i].iov_len);
		at += r->pub.iov[i].iov_len;
	}
	for (int i = 0; i < r->pub.niov && r->pub.op == HAKO_DISK_WRITE; i++) {
		memcpy(at, r->pub.iov[i].iov_base, r->pub.iov[i].iov_len);
		at += r->pub.iov[i].iov_len;
	}
	if (r->pub.op == HAKO_DISK_WRITE_ZEROES)
		memset(at, 0, r->pub.bytes);
	return 0;
}

static int outcome(const struct disk_request *r)
{
	return r->result == HAKO_DISK_SERVE ? serve(r) : r->result > 0 ? -EIO : r->result;
}

/* --- requests ---------------------------------------------------------------------------------- */

static void complete(struct disk_request *r)
{
	struct block_req *req = r->req;
	int res = outcome(r);

	free(r);
	req->done(req, res);
}

static void delay_over(struct loop_timer *timer)
{
	complete(container_of(timer, struct disk_request, timer));
}

/* In the request's loop. */
static void result_msg(struct loop_msg *msg)
{
	struct disk_request *r = container_of(msg, struct disk_request, msg);

	if (r->delay_ms)
		loop_timer_set(r->req->loop, &r->timer, clock_now() + r->delay_ms * 1000000ull);
	else
		complete(r);
}

void hako_disk_done(struct hako_disk_request *req, int result, unsigned int delay_ms)
{
	struct disk_request *r = container_of(req, struct disk_request, pub);
	struct vm *vm = r->n->node.obj.vm;

	r->result = result;
	r->delay_ms = delay_ms;
	if (r->req) {
		loop_post(r->req->loop, &r->msg);
		return;
	}
	events_lock(vm);
	r->done = true;
	events_wake(vm);
	events_unlock(vm);
}

static int request_init(struct disk_request *r, struct disk_node *n, const struct block_req *req)
{
	static const enum hako_disk_op ops[] = {
		[BLOCK_READ] = HAKO_DISK_READ,
		[BLOCK_WRITE] = HAKO_DISK_WRITE,
		[BLOCK_FLUSH] = HAKO_DISK_FLUSH,
		[BLOCK_DISCARD] = HAKO_DISK_DISCARD,
		[BLOCK_WRITE_ZEROES] = HAKO_DISK_WRITE_ZEROES,
	};
	bool data = req->op == BLOCK_READ || req->op == BLOCK_WRITE;

	*r = (struct disk_request){.n = n, .pub.op = ops[req->op]};
	r->msg.fn = result_msg;
	r->timer.fn = delay_over;
	if (req->op == BLOCK_FLUSH)
		return 0;
	if (req->offset > n->node.length || req->bytes > n->node.length - req->offset)
		return -EINVAL;
	r->pub.offset = req->offset;
	r->pub.bytes = req->bytes;
	r->pub.iov = data ? req->iov : NULL;
	r->pub.niov = data ? req->niov : 0;
	return 0;
}

static void disk_submit(struct block_node *node, struct block_req *req)
{
	struct disk_node *n = container_of(node, struct disk_node, node);
	struct disk_request *r = malloc(sizeof(*r));
	int res = r ? request_init(r, n, req) : -ENOMEM;

	if (res) {
		free(r);
		block_done_later(req, res);
	} else if (!n->disk->request) {
		r->result = HAKO_DISK_SERVE;
		res = outcome(r);
		free(r);
		block_done_later(req, res);
	} else {
		r->req = req;
		n->disk->request(n->disk->opaque, &r->pub);
	}
}

static int disk_sync(struct block_node *node, struct block_req *req)
{
	struct disk_node *n = container_of(node, struct disk_node, node);
	struct vm *vm = node->obj.vm;
	struct disk_request r;
	int res = request_init(&r, n, req);

	if (res)
		return res;
	r.result = HAKO_DISK_SERVE;
	if (n->disk->request) {
		n->disk->request(n->disk->opaque, &r.pub);
		events_lock(vm);
		while (!r.done)
			events_wait(vm, UINT64_MAX);
		/* The delay is spent here. */
		for (uint64_t until = clock_now() + r.delay_ms * 1000000ull; clock_now() < until;)
			events_wait(vm, until);
		events_unlock(vm);
	}
	return outcome(&r);
}

static const struct block_ops disk_ops = {
	.submit = disk_submit,
	.sync = disk_sync,
};

/* --- class ------------------------------------------------------------------------------------- */

static struct program_disk *find_disk(struct vm *vm, const char *id)
{
	struct program_disk *d;

	list_for_each(d, &vm->program_disks, link)
		if (id && !strcmp(d->id, id))
			return d;
	return NULL;
}

static int disk_create(struct object *obj, struct hako_error *err)
{
	struct disk_node *n = container_of(obj, struct disk_node, node.obj);
	struct program_disk *d = find_disk(obj->vm, obj->id);
	int r;

	if (!d)
		return error_set(err, -ENODEV,
				 "%s: the program that holds the VM has no disk of that name "
				 "(hako_vm_add_disk())",
				 obj->id ?: "without a name");
	r = block_node_init(&n->node, &disk_ops, err);
	n->disk = &d->disk;
	n->node.length = d->disk.length;
	n->node.can_discard = n->node.opts.discard == BLOCK_DISCARD_UNMAP && !n->node.read_only;
	n->node.can_write_zeroes = n->node.writeback = !n->node.read_only;
	return r;
}

static void disk_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct class disk_class = {
	.name = "program",
	.help = "the program that holds the VM, by libhako's hako_vm_add_disk()",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct disk_node),
	.bus_options = block_node_options,
	.create = disk_create,
	.destroy = disk_destroy,
};
HAKO_CLASS(disk_class);

/* --- the call ---------------------------------------------------------------------------------- */

void vm_free_program_disks(struct vm *vm)
{
	struct program_disk *d, *next;

	list_for_each_safe(d, next, &vm->program_disks, link) {
		list_del(&d->link);
		free(d->id);
		free(d);
	}
}

static int check_disk(struct vm *vm, const char *id, const struct hako_disk *disk,
		      struct hako_error *err)
{
	if (disk->size < sizeof(*disk))
		return error_set(err, -EINVAL, "disk %s: struct hako_disk: size is not set", id);
	if (!*id || id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				  "0123456789-_.")])
		return error_set(err, -EINVAL, "disk \"%s\": not letters, digits, - _ .", id);
	if (disk->length % 512 || disk->length > INT64_MAX)
		return error_set(err, -EINVAL, "disk %s: %llu bytes: not a multiple of 512", id,
				 (unsigned long long)disk->length);
	if (!disk->memory && !disk->request)
		return error_set(err, -EINVAL, "disk %s: neither memory nor a function", id);
	if (find_disk(vm, id))
		return error_set(err, -EEXIST, "disk %s: there is one already", id);
	return 0;
}

int hako_vm_add_disk(struct hako_vm *handle, const char *id, const struct hako_disk *disk,
		     struct hako_error *err)
{
	struct vm *vm = (struct vm *)handle;
	struct program_disk *d = calloc(1, sizeof(*d));
	bool more = disk->size >= sizeof(*disk) && disk->options;
	char *text = str_printf("program,node-name=%s%s%s", id, more ? "," : "",
				more ? disk->options : "");
	int r;

	if (!d || !text || !(d->id = strdup(id))) {
		r = error_errno(err, -ENOMEM, "disk %s", id);
	} else {
		pthread_mutex_lock(&vm->lock);
		r = check_disk(vm, id, disk, err);
		if (!r) {
			d->disk = *disk;
			d->disk.options = NULL;
		}
		pthread_mutex_unlock(&vm->lock);
	}
	if (!r)
		r = hako_vm_set(handle, "blockdev", text, err);
	free(text);
	if (r) {
		if (d)
			free(d->id);
		free(d);
		return r;
	}
	pthread_mutex_lock(&vm->lock);
	list_add_tail(&d->link, &vm->program_disks);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

int hako_vm_resize_disk(struct hako_vm *handle, const char *id, uint64_t length,
			struct hako_error *err)
{
	struct vm *vm = (struct vm *)handle;
	int r;

	pthread_mutex_lock(&vm->lock);
	if (vm->state == VM_NEW || vm->state == VM_ENDED)
		r = error_set(err, -EINVAL, "disk node '%s': the VM %s", id,
			      vm->state == VM_NEW ? "has not been created" : "has ended");
	else
		r = block_resize_live(vm, id, length, err);
	pthread_mutex_unlock(&vm->lock);
	return r;
}
