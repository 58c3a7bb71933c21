/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Disk nodes: what a disk device reads and writes. Nodes stand on each other: a format or filter on the node "file" below it, an
 * overlay also on its "backing" node. A node serves requests of any loop that is attached to it; a request is served in the loop that
 * submits it. block_co.h has the same for coroutines, and for code that may block.
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

#define BLOCK_MAX_PASSED 4

/*
 * A request: the caller's memory, untouched by him until @done. Devices keep offset and bytes multiples of 512; nodes accept any from
 * each other.
 */
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
	/* Nodes that passed it on and have to do something at the end (block_pass()). */
	struct {
		void (*done)(struct block_req *req, int res);
		uint64_t offset;
		void *opaque;
	} passed[BLOCK_MAX_PASSED];
	unsigned int npassed;
	void *opaque; /* the submitter's */
};

/* What a user of a node does, and what it lets others do meanwhile, in this process or another. */
#define BLOCK_USE_WRITE	      1u
#define BLOCK_USE_SHARE_WRITE 2u
#define BLOCK_USE_RESIZE      4u /* it may write beyond the end, which lengthens the node (formats do) */

/* What is at a place of a node. */
#define BLOCK_STATUS_DATA	1u /* reads come from this node's own data */
#define BLOCK_STATUS_ZERO	2u /* reads as zeroes */
#define BLOCK_STATUS_ALLOCATED	4u /* this node decides, not the backing node */
#define BLOCK_STATUS_OFFSET	8u /* @offset is where it is in @node */
#define BLOCK_STATUS_COMPRESSED 16u

struct block_status {
	unsigned int flags;	 /* BLOCK_STATUS_* */
	uint64_t bytes;		 /* so far it is alike, at least; more than 0 */
	uint64_t offset;	 /* BLOCK_STATUS_OFFSET */
	struct block_node *node; /* BLOCK_STATUS_OFFSET */
};

enum block_prealloc {
	BLOCK_PREALLOC_OFF,
	BLOCK_PREALLOC_METADATA,
	BLOCK_PREALLOC_FALLOC,
	BLOCK_PREALLOC_FULL,
};

struct block_ops {
	void (*submit)(struct block_node *node, struct block_req *req);
	/*
	 * The same in the caller's thread, blocking: @req's op, flags, offset, bytes, iov and niov count; the result is done's. For opening and
	 * closing; while no request is in flight. NULL: cannot (formats need not, only what formats stand on).
	 */
	int (*sync)(struct block_node *node, struct block_req *req);
	/*
	 * Somebody will use the node as @use (BLOCK_USE_*) says, and does so no more. -EBUSY if another process's use forbids that,
	 * -EROFS for writing to a node that is read-only. Nodes pass it on to the nodes they stand on.
	 */
	int (*use)(struct block_node *node, unsigned int use, struct hako_error *err);
	void (*unuse)(struct block_node *node);
	/* A loop will submit requests; it does so any more. Called in no particular thread, while the loop sends none. */
	int (*attach)(struct block_node *node, struct loop *loop, struct hako_error *err);
	void (*detach)(struct block_node *node, struct loop *loop);
	/*
	 * In a coroutine, or blocking where nothing is in flight; NULL: not possible, or no more is known than that all is data.
	 * status: of @bytes bytes at @offset, which are within the node; st->bytes may go beyond, but not beyond the end of the node.
	 */
	int (*status)(struct block_node *node, uint64_t offset, uint64_t bytes,
		      struct block_status *st);
	int (*resize)(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		      struct hako_error *err);
};

/* First member of every node. */
struct block_node {
	struct object obj;
	const struct block_ops *ops;
	struct block_node *file, *backing; /* on which it stands, or NULL */
	uint64_t length;		   /* bytes, a multiple of 512; atomic */
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
	req->npassed = 0;
	node->ops->submit(node, req);
}

/*
 * For nodes: have @node serve, as it is, the request that came to submit. block_pass_hook() if that is elsewhere on @node, or if there is
 * something left to do at the end: @done is called once, and calls block_passed() before it goes on. Only if block_can_hook(); if not, a
 * request of the node's own is needed.
 */
static inline void block_pass(struct block_node *node, struct block_req *req)
{
	node->ops->submit(node, req);
}

static inline bool block_can_hook(const struct block_req *req)
{
	return req->npassed < BLOCK_MAX_PASSED;
}

static inline void block_pass_hook(struct block_node *node, struct block_req *req, uint64_t offset,
				   void (*done)(struct block_req *req, int res), void *opaque)
{
	unsigned int i = req->npassed++;

	req->passed[i].done = req->done;
	req->passed[i].offset = req->offset;
	req->passed[i].opaque = opaque;
	req->done = done;
	req->offset = offset;
	block_pass(node, req);
}

static inline void *block_passed_opaque(const struct block_req *req)
{
	return req->passed[req->npassed - 1].opaque;
}

/** Undo block_pass_hook(): done and offset are as they were. The caller may submit @req again, or end it with req->done(). */
static inline void block_passed(struct block_req *req)
{
	unsigned int i = --req->npassed;

	req->done = req->passed[i].done;
	req->offset = req->passed[i].offset;
}

/** Complete @req, at the end of the turn: for nodes that have the result when it is submitted. */
void block_done_later(struct block_req *req, int res);

/**
 * Plug the VM's node @id into @user, an object or node, as BLOCK_USE_* in @use say. Each node has one user. -ENOENT, -EBUSY, -EROFS;
 * the message does not name the option. While devices are created.
 */
int block_use(struct vm *vm, const char *id, const void *user, unsigned int use,
	      struct block_node **node, struct hako_error *err);
/** Pull it out again. Nothing of it is in flight. */
void block_unuse(struct block_node *node);

#endif
