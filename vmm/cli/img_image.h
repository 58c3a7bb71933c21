/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef VMM_CLI_IMG_IMAGE_H
#define VMM_CLI_IMG_IMAGE_H

#include "img.h"

/* Opening an image for a program that is no VM's. */
struct image_open {
	struct vm *vm;	     /* vm_new_plain()'s: the image is attached to its I/O loop */
	const char *name;    /* NULL: @options say it */
	const char *options; /* "key=value,…", or NULL */
	const char *format;  /* NULL: guessed */
	const char *cache;   /* NULL: writeback */
	bool write, force_share, no_backing;
	bool unmap; /* discards are carried out */
};

int image_open(const struct image_open *o, struct block_node **node, struct hako_error *err);
/** Let an open image be written to from now on, or no more. */
int image_set_writable(struct vm *vm, struct block_node *node, bool write, struct hako_error *err);
void image_close(struct vm *vm, struct block_node *node);

/** What QEMU's cache mode @name stands for. */
int image_cache_mode(const char *name, bool *direct, bool *no_flush, bool *writethrough,
		     struct hako_error *err);

#endif
