/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Disk nodes: what a disk device reads and writes. A node serves requests of any loop that is attached to it; a request is
 * served in the loop that submits it.
 */
#ifndef DEVICES_BLOCK_BLOCK_H
#define DEVICES_BLOCK_BLOCK_H

#include <sys/uio.h>

#include "vmm/loop.h"
#include "vmm/object.h"

struct block_node;

enum block_op {
	BLOCK_READ,
	BLOCK_WRITE,
	BLOCK_FLUSH,
	BLOCK_DISCARD,	    /* contents become undefined */
	BLOCK_WRITE_ZEROES, /* they become zero; BLOCK_UNMAP: may be deallocated */
};

#define BLOCK_FUA   1u
#define BLOCK_UNMAP 2u

/* A request: the caller's memory, untouched by him until @done. offset and bytes are multiples of 512. */
struct block_req {
	enum block_op op;
	uint32_t flags;
	uint64_t offset, bytes;
	const struct iovec *iov; /* READ and WRITE: exactly @bytes in all */
	int niov;
	/* 0 or a negative errno: all of it is done, or it failed. Never called from within block_submit(). */
	void (*done)(struct block_req *req, int res);
	struct loop *loop; /* in which it is submitted and done */
	/* the node's */
	struct block_node *node;
	struct loop_io io;
	struct iovec iov1;	  /* rest of a short transfer */
	struct iovec *bounce_iov; /* NULL: none */
	uint64_t completed;
	int fixed;
	void *opaque; /* the submitter's */
};

struct block_ops {
	void (*submit)(struct block_node *node, struct block_req *req);
	/* A loop will submit requests; it does so any more. Called in no particular thread, while the loop sends none. */
	int (*attach)(struct block_node *node, struct loop *loop, struct hako_error *err);
	void (*detach)(struct block_node *node, struct loop *loop);
};

/* First member of every node. */
struct block_node {
	struct object obj;
	const struct block_ops *ops;
	uint64_t length;	/* bytes, a multiple of 512 */
	uint32_t request_align; /* of offset and length of requests: 512 … 4096 */
	uint32_t memory_align;	/* of buffers */
	uint32_t logical_block_size, physical_block_size;
	uint32_t max_discard_bytes;
	bool read_only;
	bool can_discard, can_write_zeroes;
	bool writeback; /* a flush is needed for durability */
	void *user;	/* the device it is plugged into, or NULL */
};

static inline void block_submit(struct block_node *node, struct block_req *req)
{
	node->ops->submit(node, req);
}

#endif
