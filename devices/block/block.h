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
	struct loop_defer defer; /* to complete what needs no I/O */
	struct iovec iov1;	 /* rest of a buffer after a short transfer */
	int iov_index;		 /* first buffer that is not complete */
	int res;
	uint64_t completed;
	void *opaque; /* the submitter's */
};

/* What a user of a node does, and what it lets others do meanwhile, in this process or another. */
#define BLOCK_USE_WRITE	      1u
#define BLOCK_USE_SHARE_WRITE 2u

struct block_ops {
	void (*submit)(struct block_node *node, struct block_req *req);
	/*
	 * Somebody will use the node as @use (BLOCK_USE_*) says, and does so no more. -EBUSY if another process's use forbids that,
	 * -EROFS for writing to a node that is read-only. Nodes pass it on to the nodes they stand on.
	 */
	int (*use)(struct block_node *node, unsigned int use, struct hako_error *err);
	void (*unuse)(struct block_node *node);
	/* A loop will submit requests; it does so any more. Called in no particular thread, while the loop sends none. */
	int (*attach)(struct block_node *node, struct loop *loop, struct hako_error *err);
	void (*detach)(struct block_node *node, struct loop *loop);
};

/* First member of every node. */
struct block_node {
	struct object obj;
	const struct block_ops *ops;
	uint64_t length; /* bytes, a multiple of 512 */
	/* Requests go fastest if offset and length are multiples of request_align and buffers of memory_align; none has to. */
	uint32_t request_align, memory_align;
	uint32_t logical_block_size, physical_block_size;
	uint32_t max_discard_bytes; /* in one discard or write-zeroes request */
	bool read_only;
	bool can_discard, can_write_zeroes; /* the device may offer it to the guest */
	bool writeback;			    /* a flush is needed for durability */
	const void *user; /* the device or node that it is plugged into, or NULL */
};

static inline void block_submit(struct block_node *node, struct block_req *req)
{
	node->ops->submit(node, req);
}

/**
 * Plug the VM's node @id into @user, an object or node, as BLOCK_USE_* in @use say. Each node has one user. -ENOENT, -EBUSY, -EROFS;
 * the message does not name the option. While devices are created.
 */
int block_use(struct vm *vm, const char *id, const void *user, unsigned int use,
	      struct block_node **node, struct hako_error *err);
/** Pull it out again. Nothing of it is in flight. */
void block_unuse(struct block_node *node);

#endif
