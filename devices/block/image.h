/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Making disk images: what `hako img create`, `convert` and `measure` stand on. Functions block, and may be called in any thread but a
 * loop's. Options are given as text, as after qemu-img's -o, and described by tables.
 */
#ifndef DEVICES_BLOCK_IMAGE_H
#define DEVICES_BLOCK_IMAGE_H

#include "block.h"

/* Sizes in bytes that an image takes in its file. */
struct image_measure {
	uint64_t required;	  /* with the data there is now */
	uint64_t fully_allocated; /* once all of it has been written */
	uint64_t bitmaps;	  /* more, to keep the source's persistent bitmaps */
};

struct image_format {
	const char *name, *help;
	const struct option *create_options;
	size_t create_size;		    /* of the struct that they fill */
	const struct option *amend_options; /* NULL: nothing can be amended */
	/* Make the file; @options is filled and its size not 0. What was there before is lost, once nothing can be wrong with the options. */
	int (*create)(const char *filename, const void *options, struct hako_error *err);
	/* Are they what create would take? And what would it need for @data bytes of data, whole clusters? */
	int (*measure)(const void *options, uint64_t data, struct image_measure *m,
		       struct hako_error *err);
	/* Unit of allocation in bytes: what measure's @data is counted in. */
	uint64_t (*cluster_size)(const void *options);
};

/** The format @name, NULL if images of it can not be made. */
const struct image_format *image_format_find(const char *name);
/** All there are, by number from 0; NULL at the end. */
const struct image_format *image_format_at(unsigned int i);

/**
 * Fill options from defaults and @kv into fresh memory, which image_options_free() frees. An unknown option is an error, and so is "size" that is
 * missing; it is rounded up to 512.
 */
int image_options_new(const struct image_format *fmt, struct keyvals *kv, void **options,
		      struct hako_error *err);
void image_options_free(const struct image_format *fmt, void *options);

/** Create the image @filename with the options in @kv. */
int image_create(const struct image_format *fmt, const char *filename, struct keyvals *kv,
		 struct hako_error *err);

extern const char *const image_prealloc_names[]; /* enum block_prealloc */

/* --- for formats ----------------------------------------------------------------------------- */

/** Open @filename to write a new image: made if it is not there, locked, emptied. A descriptor or a negative errno. */
int image_create_file(const char *filename, bool nocow, struct hako_error *err);
/** Lengthen the file to @end; what is between @start and @end exists as @prealloc (OFF, FALLOC or FULL) says. */
int image_preallocate(int fd, const char *filename, uint64_t start, uint64_t end,
		      enum block_prealloc prealloc, struct hako_error *err);
/** Zeroes from @start to @end, and written at that. */
int image_write_zeroes(int fd, uint64_t start, uint64_t end);

extern const struct image_format image_raw, image_qcow2;

#endif
