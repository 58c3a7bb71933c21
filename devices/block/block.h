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
#define BLOCK_COMPRESSED \
	4u /* a write of whole clusters (or up to the end) that a format may store compressed */
#define BLOCK_NO_FALLBACK 8u /* of WRITE_ZEROES: -EOPNOTSUPP rather than writing them */

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
	struct loop_msg msg;	 /* to send it to another loop */
	struct iovec iov1;	 /* rest of a buffer after a short transfer */
	int iov_index;		 /* first buffer that is not complete */
	int res;
	uint64_t completed;
	unsigned int *counted_in; /* file_write_begin() */
	struct block_req *next;	  /* in a list of those that wait */
	/* Nodes that passed it on and have to do something at the end (block_pass()). */
	struct {
		void (*done)(struct block_req *req, int res);
		uint64_t offset;
		void *opaque;
	} passed[BLOCK_MAX_PASSED];
	unsigned int npassed;
	void *opaque; /* the submitter's */
};

/*
 * What a user of a node does besides reading, and what it lets others do meanwhile, in this process or another. Without SHARE_WRITE
 * nobody else may write or resize.
 */
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

/* What a format is about to do with its file, for blkdebug; QEMU's names. The filter itself notices FLUSH_TO_DISK and PWRITEV… */
enum block_event {
	BLOCK_EVENT_NONE,
	BLOCK_EVENT_L1_UPDATE,
	BLOCK_EVENT_L1_GROW_ALLOC_TABLE,
	BLOCK_EVENT_L1_GROW_WRITE_TABLE,
	BLOCK_EVENT_L1_GROW_ACTIVATE_TABLE,
	BLOCK_EVENT_L1_SHRINK_WRITE_TABLE,
	BLOCK_EVENT_L1_SHRINK_FREE_L2_CLUSTERS,
	BLOCK_EVENT_L2_LOAD,
	BLOCK_EVENT_L2_UPDATE,
	BLOCK_EVENT_L2_UPDATE_COMPRESSED,
	BLOCK_EVENT_L2_ALLOC_COW_READ,
	BLOCK_EVENT_L2_ALLOC_WRITE,
	BLOCK_EVENT_READ_AIO,
	BLOCK_EVENT_READ_BACKING_AIO,
	BLOCK_EVENT_READ_COMPRESSED,
	BLOCK_EVENT_WRITE_AIO,
	BLOCK_EVENT_WRITE_COMPRESSED,
	BLOCK_EVENT_COW_READ,
	BLOCK_EVENT_COW_WRITE,
	BLOCK_EVENT_REFTABLE_LOAD,
	BLOCK_EVENT_REFTABLE_GROW,
	BLOCK_EVENT_REFTABLE_UPDATE,
	BLOCK_EVENT_REFBLOCK_LOAD,
	BLOCK_EVENT_REFBLOCK_UPDATE,
	BLOCK_EVENT_REFBLOCK_UPDATE_PART,
	BLOCK_EVENT_REFBLOCK_ALLOC,
	BLOCK_EVENT_REFBLOCK_ALLOC_HOOKUP,
	BLOCK_EVENT_REFBLOCK_ALLOC_WRITE,
	BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS,
	BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE,
	BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE,
	BLOCK_EVENT_CLUSTER_ALLOC,
	BLOCK_EVENT_CLUSTER_ALLOC_BYTES,
	BLOCK_EVENT_CLUSTER_ALLOC_SPACE,
	BLOCK_EVENT_CLUSTER_FREE,
	BLOCK_EVENT_EMPTY_IMAGE_PREPARE,
	BLOCK_EVENT_FLUSH_TO_OS,
	BLOCK_EVENT_FLUSH_TO_DISK,
	BLOCK_EVENT_PWRITEV,
	BLOCK_EVENT_PWRITEV_ZERO,
	BLOCK_EVENT_PWRITEV_DONE,
};

struct block_ops {
	void (*submit)(struct block_node *node, struct block_req *req);
	/*
	 * The same in the caller's thread, blocking: @req's op, flags, offset, bytes, iov and niov count; the result is done's. For opening and
	 * closing; while no request is in flight. NULL: cannot (formats need not, only what formats stand on).
	 */
	int (*sync)(struct block_node *node, struct block_req *req);
	/*
	 * The node will be used as @use says (BLOCK_USE_*, of all its users together); called again when that changes. The nodes below have
	 * been asked before, and agreed. -EBUSY if another process's use forbids it. unuse: nobody uses it any more; the nodes below still
	 * can be used in it. While no request is in flight. NULL: nothing to do.
	 */
	int (*use)(struct block_node *node, unsigned int use, struct hako_error *err);
	void (*unuse)(struct block_node *node);
	/*
	 * A loop will submit requests; it does so no more. In no particular thread, while the loop sends none; the nodes below are attached
	 * before, and detached afterwards. NULL: nothing to do.
	 */
	int (*attach)(struct block_node *node, struct loop *loop, struct hako_error *err);
	void (*detach)(struct block_node *node, struct loop *loop);
	/*
	 * Let it be written to from now on, or no more; node->read_only is set by the caller, and the nodes below (not the backing node)
	 * have done so before. NULL: nothing to do.
	 */
	int (*reopen)(struct block_node *node, bool read_only, struct hako_error *err);
	/*
	 * In a coroutine, or blocking where nothing is in flight; NULL: not possible, or no more is known than that all is data.
	 * status: of @bytes bytes at @offset, which are within the node; st->bytes may go beyond, but not beyond the end of the node.
	 */
	int (*status)(struct block_node *node, uint64_t offset, uint64_t bytes,
		      struct block_status *st);
	int (*resize)(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		      struct hako_error *err);
	/* The node in file has another length. Any thread. */
	void (*follow)(struct block_node *node);
	/* Go on at once with what waits on purpose, of requests of this loop. In its thread. NULL: nothing does. */
	void (*hurry)(struct block_node *node, struct loop *loop);
	/* block_event(); NULL: nobody cares. */
	void (*event)(struct block_node *node, enum block_event event);
};

/* Of a class of nodes: its class.ops. */
struct block_class {
	/*
	 * It holds a disk within the node "file", and changes that node in ways of its own. Else it hands requests on (a filter), or stands
	 * on nothing.
	 */
	bool is_format;
	/* Are the first @len bytes of an image this format's? 0: no; up to 100: how sure that is. NULL: it is never guessed. */
	int (*probe)(const uint8_t *buf, size_t len);
};

#define BLOCK_PROBE_BYTES 512

enum block_discard {
	BLOCK_DISCARD_IGNORE,
	BLOCK_DISCARD_UNMAP
};

enum block_detect_zeroes {
	BLOCK_DETECT_OFF,
	BLOCK_DETECT_ON,
	BLOCK_DETECT_UNMAP
};

/* The options that all nodes have; a class has block_node_options as its bus_options. */
struct block_options {
	bool read_only, auto_read_only, direct, no_flush, force_share;
	int discard, detect_zeroes;
};
extern const struct option block_node_options[];

struct block_user {
	const void *user;
	unsigned int use; /* BLOCK_USE_* */
	bool idle;	  /* holds the place, claims nothing yet */
	bool is_node;	  /* @user is a node, on which this one is file, data or backing */
	void (*resized)(const void *user);
};

/* First member of every node. */
struct block_node {
	struct object obj;
	const struct block_ops *ops;
	/* On which it stands, or NULL; data: where a format has the disk's contents, if that is not in file. */
	struct block_node *file, *backing, *data;
	uint64_t length; /* bytes, a multiple of 512; atomic */
	/* Requests go fastest if offset and length are multiples of request_align and buffers of memory_align; none has to. */
	uint32_t request_align, memory_align;
	uint32_t logical_block_size, physical_block_size;
	uint32_t max_discard_bytes; /* in one discard or write-zeroes request */
	bool read_only;
	bool can_discard, can_write_zeroes; /* the device may offer it to the guest */
	bool writeback;			    /* a flush is needed for durability */
	bool probed; /* "raw" was guessed: the guest must not make it look like another format */
	bool check_writes; /* opts.detect_zeroes or probed */
	bool implicit;	   /* made for its user, goes with him */
	struct block_options opts;
	const char *filename;	   /* of an image file, in the options; NULL: of node file */
	struct block_node *opener; /* which was being made when this one was made for it, or NULL */
	struct block_user *users;
	unsigned int nusers;
	bool in_use;	   /* ops->use has been called */
	struct loop *home; /* the first loop that was attached, or NULL */
	unsigned int nattached;
};

/* A write to a node with opts.detect_zeroes or probed. */
void block_submit_checked(struct block_node *node, struct block_req *req);

/*
 * For nodes: have @node serve, as it is, the request that came to submit. block_pass_hook() if that is elsewhere on @node, or if there is
 * something left to do at the end: @done is called once, and calls block_passed() before it goes on. Only if block_can_hook(); if not, a
 * request of the node's own is needed.
 */
static inline void block_pass(struct block_node *node, struct block_req *req)
{
	if (unlikely(node->check_writes) && req->op == BLOCK_WRITE)
		block_submit_checked(node, req);
	else
		node->ops->submit(node, req);
}

static inline void block_submit(struct block_node *node, struct block_req *req)
{
	req->npassed = 0;
	block_pass(node, req);
}

static inline bool block_can_hook(const struct block_req *req)
{
	return req->npassed < BLOCK_MAX_PASSED;
}

static inline void block_hook(struct block_req *req, uint64_t offset,
			      void (*done)(struct block_req *req, int res), void *opaque)
{
	unsigned int i = req->npassed++;

	req->passed[i].done = req->done;
	req->passed[i].offset = req->offset;
	req->passed[i].opaque = opaque;
	req->done = done;
	req->offset = offset;
}

static inline void block_pass_hook(struct block_node *node, struct block_req *req, uint64_t offset,
				   void (*done)(struct block_req *req, int res), void *opaque)
{
	block_hook(req, offset, done, opaque);
	block_pass(node, req);
}

static inline void *block_passed_opaque(const struct block_req *req)
{
	return req->passed[req->npassed - 1].opaque;
}

/** @req if it can be hooked, else a new request for the same that can, and completes @req at its end; NULL: no memory. */
struct block_req *block_hookable(struct block_req *req);

/** Undo block_pass_hook(): done and offset are as they were. The caller may submit @req again, or end it with req->done(). */
static inline void block_passed(struct block_req *req)
{
	unsigned int i = --req->npassed;

	req->done = req->passed[i].done;
	req->offset = req->passed[i].offset;
}

/** A format is about to do this with its node @file. */
static inline void block_event(struct block_node *file, enum block_event event)
{
	if (unlikely(file->ops->event != NULL))
		file->ops->event(file, event);
}

/** Complete @req, at the end of the turn: for nodes that have the result when it is submitted. */
void block_done_later(struct block_req *req, int res);

/* --- nodes that stand on nodes: devices/block/graph.c ------------------------------------------ */

/** First thing in a class's create: what all nodes have. */
int block_node_init(struct block_node *node, const struct block_ops *ops, struct hako_error *err);
/** Last thing in destroy, and in create if it fails: let go of the nodes below, which end if they were made for this one. */
void block_node_free(struct block_node *node);

enum block_role {
	BLOCK_ROLE_FILE, /* holds a format's data: read as it is, and nobody else may write */
	BLOCK_ROLE_FILTER, /* is what a filter filters; options without a driver: its format is guessed */
	BLOCK_ROLE_BACKING, /* for reading; nobody may write; the format is guessed too */
};

/**
 * In create: the node that @tree, the option @name, refers to, or one made of its options, which inherits the common ones. It is
 * put at *@place, which is &node->file, &node->backing or &node->data (NULL: -EINVAL, since something has to be there).
 * *@place stays NULL if the option is not given or empty and @role is BACKING.
 */
int block_open_child(struct block_node *node, const char *name, const struct option_tree *tree,
		     enum block_role role, struct block_node **place, struct hako_error *err);

/**
 * The same where the image names the file: @filename, "json:{…}" or "file:…"; of @format (NULL: guessed). A backing file's name is relative to the
 * image's own directory, another one's to the process's, as QEMU has it. What is in @tree goes before. -ELOOP if an image stands on itself.
 */
int block_open_named_child(struct block_node *node, const char *name,
			   const struct option_tree *tree, enum block_role role,
			   const char *filename, const char *format, struct block_node **place,
			   struct hako_error *err);

/** The node has grown or been resized to @length: it and the filters on it say so from now on. */
void block_set_length(struct block_node *node, uint64_t length);

/** What of a node is as on the node below it: alignments, block sizes, abilities, read_only. */
void block_take_limits(struct block_node *node, const struct block_node *below);

/** The file at the bottom of the node's files, for messages and relative names; NULL if there is none. */
const char *block_filename(const struct block_node *node);

/** @name as seen from the image @base: absolute, or relative to its directory. The caller frees it; NULL: no memory. */
char *block_path_combine(const char *base, const char *name);

/* --- opening and using ------------------------------------------------------------------------- */

/**
 * Open an image with what stands below it. @options (may be NULL): those of its nodes, such as "read-only", "driver" or
 * "file.driver"; taken ones are marked used. @filename may be NULL if the options say enough; it may be "json:{…}". @format: a driver's name; NULL:
 * the options' driver, or guessed from the contents. @id: the node's name, NULL: one is made up. The node ends with its last user
 * (block_unuse()), or by object_destroy() if it got none. Not in a loop's thread unless in a coroutine.
 */
int block_open(struct vm *vm, const char *filename, const char *format, struct keyvals *options,
	       const char *id, struct block_node **node, struct hako_error *err);

/** Do these bytes at an image's start make it no format's, known or only known of? */
bool block_looks_raw(const uint8_t *buf, size_t len);

/** The format of what can be read from @node: a class, never NULL ("raw"). -ENOTSUP for one that is known but not served. */
int block_probe(struct block_node *node, const struct class **format, struct hako_error *err);

/**
 * Plug the VM's node @id into @user, an object or node, as BLOCK_USE_* in @use say. -ENOENT, -EROFS; -EBUSY if another user, here or in
 * another process, forbids it. The message does not name the option. Not while the node's requests are in flight.
 */
int block_use(struct vm *vm, const char *id, const void *user, unsigned int use,
	      struct block_node **node, struct hako_error *err);
/** The same with the node at hand. Again with the same @user changes his use. */
int block_use_node(struct block_node *node, const void *user, unsigned int use,
		   struct hako_error *err);
/** Pull it out again. Nothing of it is in flight. A node that was made for this user ends. */
void block_unuse(struct block_node *node, const void *user);

/** Have @resized called when the node's length has changed. Any thread. */
void block_on_resize(struct block_node *node, const void *user, void (*resized)(const void *user));

/**
 * Change the length of the VM's node @id while it is used, as QMP's block_resize; its users are told. Any thread but a loop's; callers are serialised.
 */
int block_resize_live(struct vm *vm, const char *id, uint64_t length, struct hako_error *err);

/** @loop will submit requests to the node, which pass through all below; it does so no more. As block_ops.attach. */
int block_attach(struct block_node *node, struct loop *loop, struct hako_error *err);
void block_detach(struct block_node *node, struct loop *loop);

/** Have nothing that @loop submitted wait on purpose (for its turn in a throttle): the VM is to be paused. In the loop's thread. */
void block_hurry(struct block_node *node, struct loop *loop);

/**
 * Make a node that was opened for reading writable, or the reverse; with what is below, but not the backing node. Its users say afterwards
 * that they write, and before that they do no more (else -EBUSY). Nothing is in flight.
 */
int block_reopen(struct block_node *node, bool read_only, struct hako_error *err);

#endif
