/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of QCOW2 have in common: an open disk, requests that are waited for, and what the disk should hold. */
#ifndef TESTS_UNIT_QCOW2_TEST_H
#define TESTS_UNIT_QCOW2_TEST_H

#include <semaphore.h>

#include "devices/block/block_co.h"
#include "devices/block/qcow2.h"
#include "tests/unit/image_test.h"
#include "tests/unit/loop_test.h"
#include "vmm/vm.h"

#define MAX_BATCH 16

static struct vm *vm;
static struct block_node *disk __attribute__((unused));
static struct hako_error error;

static inline void set_up(int engine)
{
	ck_assert_msg(vm_new_plain(&vm, 2 * MiB, &error) == 0, "%s", error.message);
	loop = new_loop(engine);
	enter_image_dir();
}

static inline void tear_down(void)
{
	vm_free_plain(vm);
	loop_free(loop);
	leave_image_dir();
}

static inline int try_open(const char *filename, const char *options, struct block_node **node)
{
	struct keyvals kv = {0};
	int ret;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &error), 0);
	ret = block_open(vm, filename, NULL, &kv, NULL, node, &error);
	keyvals_free(&kv);
	return ret;
}

static inline struct block_node *open_node(const char *filename, const char *options,
					   unsigned int use)
{
	struct block_node *node;

	ck_assert_msg(try_open(filename, options, &node) == 0, "%s", error.message);
	ck_assert_msg(block_use_node(node, vm, use, &error) == 0, "%s", error.message);
	ck_assert_int_eq(block_attach(node, loop, &error), 0);
	return node;
}

static inline void close_node(struct block_node *node)
{
	block_detach(node, loop);
	block_unuse(node, vm);
}

/* --- requests ---------------------------------------------------------------------------------- */

struct test_req {
	struct block_req req;
	struct iovec iov[4];
	bool submitting;
	int res;
	sem_t *done;
};

static inline void test_done(struct block_req *req, int res)
{
	struct test_req *t = container_of(req, struct test_req, req);

	ck_assert(loop_is_current(req->loop));
	ck_assert(!t->submitting);
	t->res = res;
	sem_post(t->done);
}

struct batch {
	struct block_node *node;
	struct test_req *reqs;
	unsigned int n;
};

static inline void batch_submit(void *arg)
{
	struct batch *b = arg;

	for (unsigned int i = 0; i < b->n; i++) {
		b->reqs[i].submitting = true;
		block_submit(b->node, &b->reqs[i].req);
		b->reqs[i].submitting = false;
	}
}

/* Submit all in one turn and wait for them. op, flags, offset, bytes, iov and niov are set; the results are in res. */
static inline void run_batch_in(struct loop *l, struct block_node *node, struct test_req *reqs,
				unsigned int n)
{
	struct batch b = {node, reqs, n};
	sem_t done;

	sem_init(&done, 0, 0);
	for (unsigned int i = 0; i < n; i++) {
		reqs[i].req.done = test_done;
		reqs[i].req.loop = l;
		reqs[i].done = &done;
	}
	loop_call(l, batch_submit, &b);
	for (unsigned int i = 0; i < n; i++)
		while (sem_wait(&done) < 0)
			;
	sem_destroy(&done);
}

static inline void run_batch(struct block_node *node, struct test_req *reqs, unsigned int n)
{
	run_batch_in(loop, node, reqs, n);
}

static inline int run(struct block_node *node, enum block_op op, uint32_t flags, uint64_t offset,
		      void *buf, uint64_t bytes)
{
	struct test_req t = {.req = {.op = op, .flags = flags, .offset = offset, .bytes = bytes}};

	t.iov[0] = (struct iovec){buf, bytes};
	t.req.iov = t.iov;
	t.req.niov = 1;
	run_batch(node, &t, 1);
	return t.res;
}

static inline void fill(struct block_node *node, uint64_t offset, uint64_t bytes, int pattern)
{
	uint8_t *buf = malloc(bytes);

	memset(buf, pattern, bytes);
	ck_assert_int_eq(run(node, BLOCK_WRITE, 0, offset, buf, bytes), 0);
	free(buf);
}

/* The first byte that is not @pattern, or @bytes. */
static inline uint64_t differs(struct block_node *node, uint64_t offset, uint64_t bytes,
			       int pattern)
{
	uint8_t *buf = malloc(bytes);
	uint64_t i;

	memset(buf, ~pattern, bytes);
	ck_assert_int_eq(run(node, BLOCK_READ, 0, offset, buf, bytes), 0);
	for (i = 0; i < bytes && buf[i] == (uint8_t)pattern; i++)
		;
	free(buf);
	return i;
}

#define must_read(NODE, OFFSET, BYTES, PATTERN) \
	ck_assert_uint_eq(differs(NODE, OFFSET, BYTES, PATTERN), BYTES)

static inline int flush(struct block_node *node)
{
	return run(node, BLOCK_FLUSH, 0, 0, NULL, 0);
}

#endif
