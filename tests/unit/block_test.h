/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of disk nodes have in common: a VM to own them, an image file, and requests that are waited for. */
#ifndef TESTS_UNIT_BLOCK_TEST_H
#define TESTS_UNIT_BLOCK_TEST_H

#include <fcntl.h>
#include <semaphore.h>

#include "devices/block/block.h"
#include "tests/unit/loop_test.h"
#include "vmm/vm.h"

static struct vm *vm;
static char image[256], image_dir[200];

/* _i: bit 0 is the engine, bit 1 O_DIRECT. */

static inline void set_up(int i)
{
	const char *dir = getenv("TMPDIR");
	struct hako_error err;

	ck_assert_msg(vm_new_plain(&vm, 2 * MiB, &err) == 0, "%s", err.message);
	loop = new_loop(i & 1);
	snprintf(image_dir, sizeof(image_dir), "%s/hako-test-XXXXXX", dir ? dir : "/var/tmp");
	ck_assert_ptr_nonnull(mkdtemp(image_dir));
	snprintf(image, sizeof(image), "%s/image", image_dir);
}

static inline void tear_down(void)
{
	vm_free_plain(vm);
	loop_free(loop);
	unlink(image);
	rmdir(image_dir);
}

static inline void make_image(size_t size)
{
	int fd = open(image, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

/* A node with options as of --blockdev; it is a file node if they name no driver. */
static inline int new_node(const char *id, const char *options, struct block_node **node,
			   struct hako_error *err)
{
	const struct class *cls;
	struct keyvals kv = {0};
	struct object *obj;
	const char *driver;
	int ret;

	ck_assert_msg(keyvals_parse(&kv, options, "filename", err) == 0, "%s", err->message);
	driver = keyvals_take(&kv, "driver");
	cls = class_find(CLASS_BLOCKDEV, driver ? driver : "file");
	ck_assert_ptr_nonnull(cls);
	if (id)
		keyvals_add(&kv, "id", id);
	ret = object_new(vm, cls, &kv, &obj, err);
	keyvals_free(&kv);
	if (ret == 0)
		*node = container_of(obj, struct block_node, obj);
	return ret;
}

static inline struct block_node *must_open(const char *path, const char *options)
{
	struct block_node *node;
	struct hako_error err;
	char text[512];

	snprintf(text, sizeof(text), "%s%s", path, options);
	ck_assert_msg(new_node("disk", text, &node, &err) == 0, "%s", err.message);
	return node;
}

/* Attached to the loop, too. */
static inline struct block_node *open_image(int i, const char *options)
{
	struct block_node *node;
	char text[256];

	snprintf(text, sizeof(text), "%s%s", i & 2 ? ",cache.direct=on" : "", options);
	node = must_open(image, text);
	ck_assert_int_eq(block_attach(node, loop, NULL), 0);
	return node;
}

static inline void close_image(struct block_node *node)
{
	block_detach(node, loop);
	object_destroy(&node->obj);
}

struct test_req {
	struct block_req req;
	struct block_node *node;
	bool submitting;
	int res;
	sem_t done;
};

static inline void req_done(struct block_req *req, int res)
{
	struct test_req *t = container_of(req, struct test_req, req);

	ck_assert(loop_is_current(loop));
	ck_assert(!t->submitting);
	t->res = res;
	sem_post(&t->done);
}

static inline void req_submit(void *arg)
{
	struct test_req *t = arg;

	t->submitting = true;
	block_submit(t->node, &t->req);
	t->submitting = false;
}

static inline int run_req(struct block_node *node, enum block_op op, uint32_t flags,
			  uint64_t offset, uint64_t bytes, const struct iovec *iov, int niov)
{
	struct test_req t = {
		.req = {.op = op,
			.flags = flags,
			.offset = offset,
			.bytes = bytes,
			.iov = iov,
			.niov = niov,
			.done = req_done,
			.loop = loop},
		.node = node,
	};

	sem_init(&t.done, 0, 0);
	loop_call(loop, req_submit, &t);
	while (sem_wait(&t.done) < 0)
		;
	sem_destroy(&t.done);
	return t.res;
}

static inline int run_buf(struct block_node *node, enum block_op op, uint64_t offset, void *buf,
			  size_t len)
{
	struct iovec iov = {buf, len};

	return run_req(node, op, 0, offset, len, &iov, 1);
}

static inline void read_back(const char *path, void *buf, size_t len)
{
	int fd = open(path, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread_all(fd, buf, len, 0), 0);
	close(fd);
}

#endif
