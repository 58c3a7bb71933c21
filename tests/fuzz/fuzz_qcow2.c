/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any bytes as a qcow2 image: checked, opened, read, written to, changed as a whole, repaired. None of that may crash, hang or take much memory; and what a
 * repair says it has left is what the next check finds.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/block/qcow2_manage.h"
#include "vmm/vm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

#define MAX_STATUS 200 /* pieces that are asked for */

static struct vm *vm;
static int image_fd;
static char image_path[64];
static uint8_t buf[70000];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	image_fd = memfd_create("image", 0);
	snprintf(image_path, sizeof(image_path), "/proc/self/fd/%d", image_fd);
	if (image_fd < 0 || vm_new_plain(&vm, 2 * MiB, NULL) < 0)
		abort();
	return 0;
}

/* The image's own names are not followed: they are of files of this host. */
static struct block_node *open_image(const char *format, unsigned int use, bool data_file)
{
	struct keyvals kv = {0};
	struct block_node *node = NULL;

	keyvals_add(&kv, "read-only", use & BLOCK_USE_WRITE ? "off" : "on");
	if (!strcmp(format, "qcow2")) {
		keyvals_add(&kv, "backing", "");
		if (data_file)
			keyvals_add(&kv, "data-file.driver", "null-co");
	}
	if (block_open(vm, image_path, format, &kv, NULL, &node, NULL) == 0 &&
	    block_use_node(node, &vm, use, NULL) < 0) {
		object_destroy(&node->obj);
		node = NULL;
	}
	keyvals_free(&kv);
	return node;
}

static void close_image(struct block_node *node)
{
	block_unuse(node, &vm);
}

static int check(unsigned int fix, struct qcow2_check *c)
{
	struct block_node *file = open_image("file", fix ? BLOCK_USE_WRITE | BLOCK_USE_RESIZE : 0,
					     false);
	int ret;

	if (!file)
		return -EIO;
	*c = (struct qcow2_check){.fix = fix};
	ret = qcow2_check(file, c, NULL);
	close_image(file);
	return ret;
}

static void read_some(struct block_node *node)
{
	uint64_t length = node->length, offset = 0;
	struct block_status st;

	for (int i = 0; i < MAX_STATUS && offset < length; i++, offset += st.bytes)
		if (block_status(node, offset, length - offset, &st) < 0 || !st.bytes)
			break;
	for (offset = 0; offset < MIN(length, 2 * MiB); offset += sizeof(buf))
		block_pread(node, offset, buf, MIN(sizeof(buf), length - offset));
	if (length > sizeof(buf))
		block_pread(node, length - sizeof(buf), buf, sizeof(buf));
}

static void read_image(bool data_file)
{
	struct block_node *node = open_image("qcow2", 0, data_file);
	struct qcow2_bitmap_entry *bitmaps;
	struct qcow2_snapshot *snapshots;
	uint32_t n;

	if (!node)
		return;
	read_some(node);
	if (qcow2_bitmap_list(node, &bitmaps, &n, NULL) == 0)
		qcow2_bitmaps_list_free(bitmaps, n);
	if (qcow2_snapshot_list(node, &snapshots, &n, NULL) == 0) {
		for (uint32_t i = 0; i < MIN(n, 3u); i++)
			if (qcow2_snapshot_show(node, snapshots[i].id, NULL) == 0)
				read_some(node);
		qcow2_snapshots_free(snapshots, n);
	}
	close_image(node);
}

static void change_image(bool data_file, uint8_t what)
{
	struct block_node *node = open_image("qcow2", BLOCK_USE_WRITE | BLOCK_USE_RESIZE,
					     data_file);
	uint64_t length;

	if (!node)
		return;
	length = node->length;
	memset(buf, what, sizeof(buf));
	if (length >= 128 * KiB) {
		block_pwrite(node, 1000, buf, 60000, 0);
		block_pzero(node, 20000, 5000, BLOCK_UNMAP);
		block_pdiscard(node, 40960, 8192);
		block_pwrite(node, length - 4096, buf, 4096, 0);
	}
	if (what & 1)
		qcow2_snapshot_create(node, "fuzz", NULL);
	if (what & 2)
		qcow2_bitmap_add(node, "fuzz", 0, NULL);
	if (what & 4)
		qcow2_snapshot_apply(node, "1", NULL);
	block_pwrite(node, 0, buf, MIN(node->length, 8192ull), 0);
	if (what & 8)
		qcow2_snapshot_delete(node, "1", NULL);
	if (what & 16)
		qcow2_bitmap_merge(node, "fuzz", node, "a", NULL);
	if (what & 32)
		block_resize(node, ALIGN_UP(length / 2, 512ull), BLOCK_PREALLOC_OFF, NULL);
	if (what & 64 && length < 64 * MiB)
		block_resize(node, length + 1 * MiB, BLOCK_PREALLOC_METADATA, NULL);
	if (what & 128)
		qcow2_make_empty(node, NULL);
	block_flush(node);
	close_image(node);
}

static void set_image(const uint8_t *data, size_t size)
{
	if (ftruncate(image_fd, 0) < 0 || ftruncate(image_fd, size) < 0 ||
	    pwrite(image_fd, data, size, 0) != (ssize_t)size)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	bool data_file = size > 80 && (data[79] & QCOW2_INCOMPAT_DATA_FILE);
	struct qcow2_check c, after;

	if (size < 512)
		return 0;
	set_image(data, size);
	check(0, &c);
	read_image(data_file);
	change_image(data_file, data[size - 1]);
	set_image(data, size);
	if (check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &c) == 0 && check(0, &after) == 0 &&
	    !c.check_errors && !c.corruptions && (after.corruptions || after.leaks))
		abort(); /* it was not repaired */
	read_image(data_file);
	return 0;
}

/* Like the entries of tables: places in this file, and flags. */
static uint64_t plausible_entry(unsigned int *seed, size_t size)
{
	uint64_t entry = (uint64_t)(rand_r(seed) % (size / 512 + 2)) * 512;

	if (rand_r(seed) & 1)
		entry |= QCOW2_COPIED;
	if (!(rand_r(seed) % 8))
		entry |= QCOW2_COMPRESSED;
	if (!(rand_r(seed) % 8))
		entry |= 1;
	if (!(rand_r(seed) % 16))
		entry ^= BIT64(rand_r(seed) % 64);
	return entry;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
	uint64_t entry;
	size_t offset;

	if (size < 1024 || !(rand_r(&seed) % 3))
		return LLVMFuzzerMutate(data, size, max);
	for (int i = rand_r(&seed) % 4; i >= 0; i--) {
		entry = htobe64(plausible_entry(&seed, size));
		offset = rand_r(&seed) % 4 ? rand_r(&seed) % (size / 8) * 8
					   : rand_r(&seed) % 14 * 8;
		/* Where there is something already a change says more. */
		for (int j = 0; j < 200 && offset + 16 < size && !data[offset + 6]; j++)
			offset += 8;
		memcpy(data + offset, &entry, 8);
	}
	return size;
}
