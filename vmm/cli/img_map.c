/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img map */
#include <stdio.h>

#include "devices/block/compare.h"
#include "img.h"

struct map_args {
	char *format;
	char **object;
	bool image_opts, force_share;
	int output;
	uint64_t start, max_length;
	struct img *img;
	struct block_node *node;
	uint64_t printed;
	bool without_offset; /* met, in human output */
};

#define T struct map_args
static const struct option map_options[] = {
	IMG_OPT_FORMAT(T),
	IMG_OPT_OUTPUT(T),
	OPT_SIZE("s|start-offset", T, start, "0", 0, INT64_MAX, "the first byte of interest"),
	OPT_SIZE("l|max-length", T, max_length, NULL, 0, INT64_MAX, "so many bytes"),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static int print_human(struct map_args *a, const struct block_extent *e)
{
	if (!(e->flags & BLOCK_STATUS_DATA) || (e->flags & BLOCK_STATUS_ZERO))
		return 0;
	if (!(e->flags & BLOCK_STATUS_OFFSET)) {
		a->without_offset = true;
		return -EINVAL;
	}
	printf("%#-16llx%#-16llx%#-16llx%s\n", (unsigned long long)e->start,
	       (unsigned long long)e->bytes, (unsigned long long)e->offset,
	       block_filename(e->node) ?: "");
	return 0;
}

static void print_json(struct map_args *a, const struct block_extent *e)
{
	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
	       "\"zero\": %s, \"data\": %s",
	       a->printed++ ? ",\n" : "", (unsigned long long)e->start,
	       (unsigned long long)e->bytes, e->depth,
	       e->flags & BLOCK_STATUS_ALLOCATED ? "true" : "false",
	       e->flags & BLOCK_STATUS_ZERO ? "true" : "false",
	       e->flags & BLOCK_STATUS_DATA ? "true" : "false");
	if (e->flags & BLOCK_STATUS_OFFSET)
		printf(", \"offset\": %llu", (unsigned long long)e->offset);
	putchar('}');
}

static int print_extent(void *opaque, const struct block_extent *e)
{
	struct map_args *a = opaque;

	if (a->output == IMG_HUMAN)
		return print_human(a, e);
	print_json(a, e);
	return 0;
}

static int map(void *arg)
{
	struct map_args *a = arg;

	return block_map(a->node, a->start, a->max_length ? a->max_length : UINT64_MAX,
			 print_extent, a);
}

static int run(struct img *img)
{
	struct map_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
	};
	struct hako_error err;
	int r;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	open.name = img->argv[0];
	if (img_open(img, &open, &a->node, &err))
		return img_fail(img, &err);
	if (a->output == IMG_HUMAN)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	else
		putchar('[');
	r = img_run(img, map, a);
	if (a->output == IMG_JSON)
		printf("]\n");
	if (a->without_offset)
		return img_error(img, "File contains external, encrypted or compressed clusters.");
	return r < 0 ? img_error(img, "Failed to read image metadata: %s", strerror(-r)) : 0;
}

const struct img_command img_map = {
	.name = "map",
	.arguments = "FILENAME",
	.help = "what is where in an image and its backing files",
	.options = map_options,
	.args_size = sizeof(struct map_args),
	.run = run,
};
