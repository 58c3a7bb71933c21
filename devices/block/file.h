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
	bool no_discard, no_punch, no_zero_range; /* atomic: found to be unsupported */
	pthread_mutex_t lock;			  /* for changes of loops */
	pthread_mutex_t bounce_lock;		  /* file_bounce(): one write at a time */
	pthread_mutex_t length_lock;		  /* for changes of node.length */
	struct file_loop loops[FILE_MAX_LOOPS];
	unsigned int nloops; /* atomic: entries that have ever been in use */
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
 * file_bounce.c: with O_DIRECT, what file_takes_direct() says no to. Blocks. @flags: pwritev2()'s. All bytes of @iov, or a negative errno;
 * reads beyond the end give zeroes.
 */
int file_bounce(struct file_node *f, bool write, uint64_t offset, const struct iovec *iov, int niov,
		int flags);

/** file_slow.c: block_ops.sync, status, resize. */
int file_sync(struct block_node *node, struct block_req *req);
int file_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st);
int file_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		struct hako_error *err);

/** file.c, for those: can O_DIRECT take these buffers at this place? */
bool file_takes_direct(const struct file_node *f, uint64_t offset, const struct iovec *iov,
		       int niov);
int file_check_request(const struct file_node *f, const struct block_req *req);
int file_zero_mode(const struct file_node *f, const struct block_req *req);
bool file_zero_retry(struct file_node *f, int mode, int res);
bool file_discard_range(const struct file_node *f, const struct block_req *req, uint64_t *start,
			uint64_t *len);
void file_grown(struct file_node *f, uint64_t end);
/** Have all attached loops know the descriptors, or forget them. */
void file_register_all(struct file_node *f, bool on);

#endif
