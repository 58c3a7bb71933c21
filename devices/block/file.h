/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The node that reads and writes an image file or a block device. file_open.c opens and locks it, file.c serves its requests, file_slow.c
 * does what is rare or blocks.
 */
#ifndef DEVICES_BLOCK_FILE_H
#define DEVICES_BLOCK_FILE_H

#include <pthread.h>

#include "block.h"

#define FILE_MAX_LOOPS 64

/* A loop that submits requests, and the file's index there (loop_file_register()). */
struct file_loop {
	struct loop *loop; /* atomic; NULL: free */
	unsigned int refs;
	int fixed;
	unsigned int
		nwrites; /* atomic: with O_DIRECT, writes under way that file_write_begin() has let pass */
};

/* Writes into the page cache: can the file system say whether one will wait? */
enum file_writes {
	FILE_WRITES_UNKNOWN,
	FILE_WRITES_TELL,
	FILE_WRITES_BLIND,
};

struct file_node {
	struct block_node node;

	/* Options. */
	char *filename;
	int locking; /* enum option_onoffauto */
	int aio;     /* accepted, see file.c */

	int fd;
	uint64_t dev, ino; /* which file it is */
	bool is_block, can_grow;
	bool is_full;		    /* a block device, used by somebody who would lengthen a file */
	unsigned int does, forbids; /* IMAGE_LOCK_* that it has */
	char writes;		    /* atomic: enum file_writes */
	bool no_discard, no_punch, no_zero_range; /* atomic: found to be unsupported */
	pthread_mutex_t lock;			  /* for changes of loops */
	pthread_mutex_t apart_lock;		  /* file_write_apart(): one write at a time */
	pthread_mutex_t length_lock;		  /* for changes of node.length */
	struct file_loop loops[FILE_MAX_LOOPS];
	unsigned int nloops;	  /* atomic: entries that have ever been in use */
	unsigned int nwrites;	  /* atomic: those of loops without an entry */
	unsigned int nragged;	  /* atomic: writes of parts of blocks, waiting or under way */
	struct block_req *ragged; /* those that wait for all others to end; waiting_lock */
	pthread_mutex_t waiting_lock;
};

/** Open the file that the options name, and find out its size and alignments. On failure nothing stays open. */
int file_open(struct file_node *f, struct hako_error *err);
void file_close(struct file_node *f);
/** The size of file or device as it is now, in bytes. */
int file_find_length(struct file_node *f, uint64_t *length, struct hako_error *err);

/** block_ops.use, unuse, reopen. */
int file_use(struct block_node *node, unsigned int use, struct hako_error *err);
void file_unuse(struct block_node *node);
int file_reopen(struct block_node *node, bool read_only, struct hako_error *err);

/**
 * file_bounce.c: with O_DIRECT, what file_takes_direct() says no to. Blocks. 0: all bytes of @iov, or a negative errno; reads beyond
 * the end give zeroes.
 */
int file_bounce(struct file_node *f, bool write, uint64_t offset, const struct iovec *iov,
		int niov);

/**
 * The same file: with O_DIRECT, a write of a part of a block reads the block first; nothing else may write to it until it is written
 * again. True: @req, which changes the file, may start at once and calls file_write_end() when it ends. False: it has to go by
 * file_write_apart(), which performs it, blocking in a thread of the pool, and completes it. In the request's loop, whose entry is @fl, or NULL.
 */
bool file_write_begin(struct file_node *f, struct block_req *req, struct file_loop *fl);
void file_write_end(struct file_node *f, struct block_req *req);
void file_write_apart(struct file_node *f, struct block_req *req);

/** file_slow.c: block_ops.sync, status, resize. */
int file_sync(struct block_node *node, struct block_req *req);
int file_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st);
int file_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		struct hako_error *err);

/** file.c, for those: can O_DIRECT take these buffers at this place? */
bool file_takes_direct(const struct file_node *f, uint64_t offset, const struct iovec *iov,
		       int niov);
int file_check_request(const struct file_node *f, const struct block_req *req);
/** The entry of @loop, or NULL. */
struct file_loop *file_find_loop(struct file_node *f, const struct loop *loop);
int file_zero_mode(const struct file_node *f, const struct block_req *req);
bool file_zero_retry(struct file_node *f, int mode, int res);
bool file_discard_range(const struct file_node *f, const struct block_req *req, uint64_t *start,
			uint64_t *len);
void file_grown(struct file_node *f, uint64_t end);
/** Have all attached loops know the descriptors, or forget them. */
void file_register_all(struct file_node *f, bool on);

#endif
