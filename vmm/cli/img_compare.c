/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img compare */
#include <stdio.h>

#include "devices/block/compare.h"
#include "img.h"

struct compare_args {
	char *format, *format2, *source_cache;
	char **object;
	bool image_opts, force_share, progress, quiet, strict;
	struct img_progress shown;
	struct block_compare compare;
};

#define T struct compare_args
static const struct option compare_options[] = {
	OPT_STRING("f|a-format", T, format, NULL, "format of the first image"),
	OPT_STRING("F|b-format", T, format2, NULL, "format of the second image"),
	OPT_BOOL("s|strict", T, strict, "off", "sizes and allocation have to be the same too"),
	IMG_OPT_SOURCE_CACHE(T),
	IMG_OPT_PROGRESS(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static void progress(void *opaque, uint64_t done, uint64_t total)
{
	struct compare_args *a = opaque;

	img_progress_set(&a->shown, done, total);
}

static int compare(void *arg)
{
	struct compare_args *a = arg;

	return block_compare(&a->compare);
}

/* Print what came out, and return the exit status. */
static int judge(struct img *img, const struct compare_args *a, enum block_verdict verdict)
{
	const struct block_compare *c = &a->compare;
	unsigned long long offset = c->offset;
	const char *name = img->argv[c->which];

	switch (verdict) {
	case BLOCK_SAME:
		if (!a->quiet && c->nodes[0]->length != c->nodes[1]->length)
			printf("Warning: Image size mismatch!\n");
		if (!a->quiet)
			printf("Images are identical.\n");
		return 0;
	case BLOCK_OTHER_SIZE:
		if (!a->quiet)
			printf("Strict mode: Image size mismatch!\n");
		return 1;
	case BLOCK_OTHER_STATUS:
		if (!a->quiet)
			printf("Strict mode: Offset %llu block status mismatch!\n", offset);
		return 1;
	case BLOCK_OTHER_CONTENTS:
		if (!a->quiet && c->nodes[0]->length != c->nodes[1]->length &&
		    offset >= MIN(c->nodes[0]->length, c->nodes[1]->length))
			printf("Warning: Image size mismatch!\n");
		if (!a->quiet)
			printf("Content mismatch at offset %llu!\n", offset);
		return 1;
	case BLOCK_STATUS_FAILED:
		img_error(img, "Sector allocation test failed for %s: %s", name,
			  strerror(-c->error));
		return 3;
	case BLOCK_READ_FAILED:
		img_error(img, "Error while reading offset %llu of %s: %s", offset, name,
			  strerror(-c->error));
		return 4;
	}
	return 4;
}

static int run(struct img *img)
{
	struct compare_args *a = img->args;
	struct img_open open = {
		.cache = a->source_cache,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
	};
	enum block_verdict verdict;
	struct hako_error err;
	int status;

	if (img_check_objects(img, a->object))
		return 2;
	if (img->argc != 2)
		return img_usage(img, "Expecting two image file names");
	img_progress_start(&a->shown, a->progress);
	for (int i = 0; i < 2; i++) {
		open.name = img->argv[i];
		open.format = i ? a->format2 : a->format;
		if (img_open(img, &open, &a->compare.nodes[i], &err)) {
			img_fail(img, &err);
			return 2;
		}
	}
	a->compare.strict = a->strict;
	a->compare.progress = progress;
	a->compare.opaque = a;
	verdict = img_run(img, compare, a);
	status = judge(img, a, verdict);
	img_progress_end(&a->shown, false);
	return status;
}

const struct img_command img_compare = {
	.name = "compare",
	.arguments = "FILENAME1 FILENAME2",
	.help = "do two images have the same contents? Status 0: yes, 1: no, above: an error",
	.options = compare_options,
	.args_size = sizeof(struct compare_args),
	.run = run,
};
