/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img measure */
#include <stdio.h>
#include <stdlib.h>

#include "devices/block/chain.h"
#include "devices/block/qcow2_manage.h"
#include "img_create.h"

struct measure_args {
	char *format, *out_format, *snapshot, *size;
	char **object, **options;
	bool image_opts, force_share;
	int output;
	struct block_node *node;
	uint64_t cluster, data, bitmaps;
	struct hako_error err;
};

#define T struct measure_args
static const struct option measure_options[] = {
	IMG_OPT_FORMAT(T),
	OPT_STRING("O|target-format", T, out_format, "raw",
		   "format of the image that would be made"),
	OPT_LIST("o|options", T, options, "its options; \"help\" lists them"),
	OPT_STRING("s|size", T, size, NULL, "its size, instead of an image's"),
	OPT_STRING("l|snapshot", T, snapshot, NULL,
		   "not the image as it is now, but its snapshot of that name or number"),
	IMG_OPT_OUTPUT(T),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

/* How much of the target's clusters the image's data takes. */
static int count_data(struct measure_args *a)
{
	uint64_t length = a->node->length, next;

	for (uint64_t offset = 0; offset < length; offset = next) {
		struct block_status st;
		int r = block_chain_status(a->node, NULL, offset, length - offset, &st, NULL);

		if (r)
			return error_errno(&a->err, r, "block status at byte %llu",
					   (unsigned long long)offset);
		next = offset + st.bytes;
		if (st.flags & BLOCK_STATUS_ZERO)
			continue;
		next = MIN(ALIGN_UP(next, a->cluster), length);
		a->data += ALIGN_UP(next, a->cluster) - ALIGN_DOWN(offset, a->cluster);
	}
	return 0;
}

static int look(void *arg)
{
	struct measure_args *a = arg;
	int r = 0;

	if (a->snapshot)
		r = qcow2_snapshot_show(a->node, a->snapshot, &a->err);
	if (!r)
		r = count_data(a);
	if (!r && qcow2_is_node(a->node) && a->cluster > 1)
		r = qcow2_bitmap_measure(a->node, a->cluster, &a->bitmaps, &a->err);
	return r;
}

static void print(const struct measure_args *a, const struct image_measure *m, bool bitmaps)
{
	struct img_json j = {0};

	if (a->output == IMG_HUMAN) {
		printf("required size: %llu\nfully allocated size: %llu\n",
		       (unsigned long long)m->required, (unsigned long long)m->fully_allocated);
		if (bitmaps)
			printf("bitmaps size: %llu\n", (unsigned long long)a->bitmaps);
		return;
	}
	img_json_open(&j, NULL, '{');
	if (bitmaps)
		img_json_uint(&j, "bitmaps", a->bitmaps);
	img_json_uint(&j, "required", m->required);
	img_json_uint(&j, "fully-allocated", m->fully_allocated);
	img_json_close(&j, '}');
}

static int measure(struct img *img, struct measure_args *a, const struct image_format *fmt,
		   struct keyvals *kv)
{
	struct image_measure m = {0};
	struct hako_error err;
	const char *compat;
	void *options = NULL;
	uint64_t size = a->node ? a->node->length : 0;
	char text[24];
	int r;

	if (a->size && img_parse_size(img, a->size, &size))
		return 1;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
	r = keyvals_add(kv, "size", text) ? error_errno(&err, -ENOMEM, "size") : 0;
	if (!r)
		r = image_options_new(fmt, kv, &options, &err);
	if (!r && a->node) {
		a->cluster = fmt->cluster_size ? fmt->cluster_size(options) : 1;
		if (img_run(img, look, a)) {
			image_options_free(fmt, options);
			return img_fail(img, &a->err);
		}
	}
	if (!r)
		r = fmt->measure(options, a->data, &m, &err);
	image_options_free(fmt, options);
	if (r)
		return img_fail(img, &err);
	/* They are told of, even if there are none, where both can have them. */
	compat = keyvals_get(kv, "compat");
	print(a, &m,
	      a->node && qcow2_is_node(a->node) && qcow2_of(a->node)->version >= 3 &&
		      !strcmp(fmt->name, "qcow2") &&
		      (!compat || (strcmp(compat, "0.10") && strcmp(compat, "v2"))));
	return 0;
}

static int run(struct img *img)
{
	struct measure_args *a = img->args;
	const struct image_format *fmt = image_format_find(a->out_format);
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
	};
	struct keyvals kv = {0};
	struct hako_error err;
	int status;

	if (img_check_objects(img, a->object) || img_parse_options(img, a->options, &kv)) {
		status = 1;
	} else if (!fmt) {
		status = img_error(img, "Unknown file format '%s'", a->out_format);
	} else if (img_wants_options_help(&kv)) {
		status = img_options_help(fmt->create_options);
	} else if (a->size && img->argc) {
		status = img_error(img, "--size N cannot be used together with a filename.");
	} else if (!a->size && img->argc != 1) {
		status = img_error(img, "Either --size N or one filename must be specified.");
	} else if (a->size && (a->snapshot || a->format || a->image_opts)) {
		status = img_error(
			img, "--image-opts, -f, and -l can only be used with a filename argument.");
	} else {
		open.name = img->argc ? img->argv[0] : NULL;
		if (open.name && img_open(img, &open, &a->node, &err))
			status = img_fail(img, &err);
		else
			status = measure(img, a, fmt, &kv);
	}
	keyvals_free(&kv);
	return status;
}

const struct img_command img_measure = {
	.name = "measure",
	.arguments = "--size SIZE | FILENAME",
	.help = "how much space would an image take if it were converted, or made?",
	.options = measure_options,
	.args_size = sizeof(struct measure_args),
	.run = run,
};
