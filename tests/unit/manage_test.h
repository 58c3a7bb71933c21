/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of managing images have in common: nodes without a loop, and a look into files. */
#ifndef TESTS_UNIT_MANAGE_TEST_H
#define TESTS_UNIT_MANAGE_TEST_H

#include "devices/block/qcow2_manage.h"
#include "tests/unit/image_test.h"
#include "vmm/vm.h"

static struct vm *vm; /* who owns the nodes */

static inline void set_up(void)
{
	enter_image_dir();
	ck_assert_int_eq(vm_new_plain(&vm, 2 * MiB, NULL), 0);
}

static inline void tear_down(void)
{
	vm_free_plain(vm);
	leave_image_dir();
}

/* An image as a node in use; close_node() ends it. */
static inline int open_node(const char *filename, const char *format, const char *options,
			    unsigned int use, struct block_node **node, struct hako_error *err)
{
	struct keyvals kv = {0};
	int ret;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, err), 0);
	if (!(use & BLOCK_USE_WRITE))
		keyvals_add(&kv, "read-only", "on");
	ret = block_open(vm, filename, format, &kv, NULL, node, err);
	keyvals_free(&kv);
	if (ret < 0)
		return ret;
	ret = block_use_node(*node, image_dir, use, err);
	if (ret < 0)
		object_destroy(&(*node)->obj);
	return ret;
}

static inline void close_node(struct block_node *node)
{
	block_unuse(node, image_dir);
}

#define OPEN_RW (BLOCK_USE_WRITE | BLOCK_USE_RESIZE)

static inline struct block_node *must_open(const char *filename, const char *format,
					   const char *options, unsigned int use)
{
	struct block_node *node = NULL;
	struct hako_error err;

	ck_assert_msg(open_node(filename, format, options, use, &node, &err) == 0, "%s",
		      err.message);
	return node;
}

/* Write bytes into a file, a big-endian number of @size bytes. */
static inline void poke(const char *filename, uint64_t offset, uint64_t value, unsigned int size)
{
	int fd = open(filename, O_RDWR);

	value = htobe64(value << (64 - 8 * size));
	ck_assert_int_eq(pwrite(fd, &value, size, offset), size);
	close(fd);
}

static inline uint64_t peek(const char *filename, uint64_t offset, unsigned int size)
{
	int fd = open(filename, O_RDONLY);
	uint64_t value = 0;

	ck_assert_int_eq(pread(fd, &value, size, offset), size);
	close(fd);
	return be64toh(value) >> (64 - 8 * size);
}

#endif
