/* SPDX-License-Identifier: GPL-2.0-only */
/* The node that reads and writes an image file or a block device. file_open.c opens it, file.c serves its requests. */
#ifndef DEVICES_BLOCK_FILE_H
#define DEVICES_BLOCK_FILE_H

#include <pthread.h>

#include "block.h"

#define FILE_MAX_LOOPS 64

/* A loop that submits requests, and the file's indexes there (loop_file_register()). */
struct file_loop {
	struct loop *loop; /* atomic; NULL: free */
	unsigned int refs;
	int fixed, fixed_buffered;
};

struct file_node {
	struct block_node node;

	/* Options. */
	char *filename;
	bool read_only, auto_read_only, direct, no_flush, force_share;
	int discard; /* enum file_discard */
	int locking; /* enum option_onoffauto */
	int aio;     /* accepted, see file_open.c */

	int fd;
	/*
	 * With O_DIRECT: the same file without, else -1. It takes requests whose buffers or borders the device can not reach directly; the
	 * kernel keeps both in step. Requests that are as they should be never see it.
	 */
	int buffered_fd;
	bool is_block, locked;
	bool no_discard, no_punch, no_zero_range; /* atomic: found to be unsupported */
	pthread_mutex_t lock;			  /* for changes of loops */
	struct file_loop loops[FILE_MAX_LOOPS];
	unsigned int nloops; /* atomic: entries that have ever been in use */
};

enum file_discard {
	FILE_DISCARD_IGNORE,
	FILE_DISCARD_UNMAP
};

/** Open the file that the options name, and find out its size and alignments. On failure nothing stays open. */
int file_open(struct file_node *f, struct hako_error *err);
void file_close(struct file_node *f);

/** block_ops.use and unuse: locks. */
int file_use(struct block_node *node, unsigned int use, struct hako_error *err);
void file_unuse(struct block_node *node);

#endif
