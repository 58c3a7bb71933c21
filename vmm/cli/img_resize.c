/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img resize */
#include <stdio.h>

#include "img_create.h"

struct resize_args {
	char *format;
	char **object;
	bool image_opts, quiet, shrink;
	int prealloc;
	struct block_node *node;
	uint64_t length;
	struct hako_error err;
};

#define T struct resize_args
static const struct option resize_options[] = {
	IMG_OPT_FORMAT(T),
	OPT_ENUM("preallocation", T, prealloc, "off", image_prealloc_names,
		 "what of the added space is allocated"),
	OPT_BOOL("shrink", T, shrink, "off",
		 "the image may become smaller: what is behind is lost"),
	IMG_OPT_QUIET(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static int resize(void *arg)
{
	struct resize_args *a = arg;

	return block_resize(a->node, a->length, a->prealloc, &a->err);
}

/* "10G", "+10G", "-10G" */
static int new_length(struct img *img, const char *text, uint64_t old, uint64_t *length)
{
	char sign = *text == '+' || *text == '-' ? *text : 0;
	uint64_t size;

	if (img_parse_size(img, text + !!sign, &size))
		return 1;
	if (sign == '-') {
		if (size >= old)
			return img_error(img, "New image size must be positive");
		size = old - size;
	} else if (sign == '+' && __builtin_add_overflow(old, size, &size)) {
		size = UINT64_MAX;
	}
	if (!size)
		return img_error(img, "New image size must be positive");
	if (size > INT64_MAX - 511)
		return img_error(img, "%s: the image would be too large", text);
	*length = ALIGN_UP(size, 512ull);
	return 0;
}

static int run(struct img *img)
{
	struct resize_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.write = true,
	};
	struct hako_error err;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 2)
		return img_usage(img, "Expecting image file name and size");
	open.name = img->argv[0];
	if (img_open(img, &open, &a->node, &err))
		return img_fail(img, &err);
	if (new_length(img, img->argv[1], a->node->length, &a->length))
		return 1;
	if (a->length <= a->node->length && a->prealloc != BLOCK_PREALLOC_OFF)
		return img_error(img, "Preallocation can only be used for growing images");
	if (a->length < a->node->length && !a->shrink) {
		img_error(img, "Use the --shrink option to perform a shrink operation.");
		img_warn(img, "Shrinking an image will delete all data beyond the shrunken image's "
			      "end. Before performing such an operation, make sure there is no "
			      "important data there.");
		return 1;
	}
	if (img_run(img, resize, a))
		return img_fail(img, &a->err);
	if (!a->quiet)
		printf("Image resized.\n");
	return 0;
}

const struct img_command img_resize = {
	.name = "resize",
	.arguments = "FILENAME [+|-]SIZE",
	.help = "make an image larger or smaller",
	.options = resize_options,
	.args_size = sizeof(struct resize_args),
	.run = run,
};
