/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of virtio-blk have in common: an image, a driver of one queue, and requests that are waited for. */
#ifndef TESTS_UNIT_VIRTIO_BLK_RIG_H
#define TESTS_UNIT_VIRTIO_BLK_RIG_H

#include <fcntl.h>
#include <linux/virtio_blk.h>

#include "tests/unit/loop_test.h"
#include "virtq_driver.h"

#define RAM	   (16 * MiB)
#define IMAGE_SIZE (4 * MiB)
#define SECTORS	   (IMAGE_SIZE / 512)
#define QSIZE	   64

#define F_FLUSH	 BIT64(VIRTIO_BLK_F_FLUSH)
#define F_WCE	 BIT64(VIRTIO_BLK_F_CONFIG_WCE)
#define F_TRIM	 BIT64(VIRTIO_BLK_F_DISCARD)
#define F_ZEROES BIT64(VIRTIO_BLK_F_WRITE_ZEROES)

/* Offsets in configuration space, from 5.2.4. */
#define CONFIG_CAPACITY	    0
#define CONFIG_SEG_MAX	    12
#define CONFIG_BLK_SIZE	    20
#define CONFIG_PHYSICAL_EXP 24
#define CONFIG_WRITEBACK    32
#define CONFIG_NUM_QUEUES   34
#define CONFIG_MAX_DISCARD  36
#define CONFIG_MAX_ZEROES   48

static struct vdrv drv;
static struct vdrv_queue q;
static int image_fd;

/* As --blockdev. */
static inline void add_node(const char *text)
{
	struct keyvals kv = {0};
	const struct class *cls;
	struct hako_error err;

	ck_assert_msg(keyvals_parse(&kv, text, "driver", &err) == 0, "%s", err.message);
	ck_assert_int_eq(class_get(CLASS_BLOCKDEV, keyvals_take(&kv, "driver"), &cls, &err), 0);
	ck_assert_msg(object_new(drv.vm, cls, &kv, NULL, &err) == 0, "%s", err.message);
	keyvals_free(&kv);
}

/* The disk: an image whose sector n starts with the number n. */
static inline void open_disk(int i, const char *node_options)
{
	char text[256];

	vdrv_new(&drv, RAM);
	drv.vm->loop_engine = engines[i];
	image_fd = temp_file();
	ck_assert_int_eq(ftruncate(image_fd, IMAGE_SIZE), 0);
	for (uint64_t n = 0; n < SECTORS; n++)
		ck_assert_int_eq(pwrite(image_fd, &n, sizeof(n), n * 512), sizeof(n));
	snprintf(text, sizeof(text), "file,filename=/proc/self/fd/%d,id=disk%s", image_fd,
		 node_options);
	add_node(text);
}

static inline int add_device(const char *options, struct hako_error *err)
{
	char text[256];

	snprintf(text, sizeof(text), "drive=disk,iothread=io0%s", options);
	return vdrv_device(&drv, "virtio-blk-device", text, err);
}

static inline void start_disk(int i, const char *node_options, const char *options,
			      uint64_t features)
{
	struct hako_error err;

	open_disk(i, node_options);
	ck_assert_msg(add_device(options, &err) == 0, "%s", err.message);
	ck_assert(vdrv_negotiate(&drv, features));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
}

static inline void stop_disk(void)
{
	vdrv_close(&drv);
	close(image_fd);
}

static inline struct vdrv_buf header(uint32_t type, uint64_t sector)
{
	struct vdrv_buf b = vdrv_buf(&drv, 16);
	uint8_t *p = vdrv_ptr(&drv, b.gpa, b.len);

	put_le32(p, type);
	put_le64(p + 8, sector);
	return b;
}

/* Send the chain and wait; the status byte is the last writable one. */
static inline int run(const struct vdrv_buf *out, unsigned int nout, const struct vdrv_buf *in,
		      unsigned int nin)
{
	const struct vdrv_buf *last = &in[nin - 1];
	uint8_t *status = vdrv_ptr(&drv, last->gpa + last->len - 1, 1);
	uint32_t id, len, in_len = 0;
	uint16_t head;

	for (unsigned int k = 0; k < nin; k++)
		in_len += in[k].len;
	*status = 0xee;
	head = vdrv_add(&q, out, nout, in, nin);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_uint_eq(id, head);
	ck_assert_uint_le(len, in_len);
	ck_assert_uint_ge(len, 1);
	return *status;
}

/* The usual framing: header, data, status. */
static inline int simple(uint32_t type, uint64_t sector, struct vdrv_buf data, bool write)
{
	struct vdrv_buf bufs[3] = {header(type, sector), data, vdrv_buf(&drv, 1)};
	uint64_t heap = drv.heap;
	int status;

	if (!data.len)
		bufs[1] = bufs[2];
	status = run(bufs, data.len && write ? 2 : 1, bufs + (data.len && write ? 2 : 1),
		     data.len && !write ? 2 : 1);
	drv.heap = heap;
	return status;
}

static inline struct vdrv_buf range(uint64_t sector, uint32_t sectors, uint32_t flags)
{
	struct vdrv_buf b = vdrv_buf(&drv, 16);
	uint8_t *p = vdrv_ptr(&drv, b.gpa, b.len);

	put_le64(p, sector);
	put_le32(p + 8, sectors);
	put_le32(p + 12, flags);
	return b;
}

static inline uint64_t first_word(const void *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static inline void *mem(struct vdrv_buf b)
{
	return vdrv_ptr(&drv, b.gpa, b.len);
}

#endif
