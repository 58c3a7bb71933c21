/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img amend */
#include <stdio.h>
#include <stdlib.h>

#include "devices/block/qcow2_manage.h"
#include "img_create.h"

struct amend_args {
	char *format, *cache;
	char **options, **object;
	bool image_opts, progress, quiet, force;
	struct img_progress shown;
	struct block_node *node; /* the file, then the image */
	struct qcow2_amend amend;
	struct hako_error err;
};

#define T struct amend_args
static const struct option amend_options[] = {
	OPT_LIST("o|options", T, options, "what the image shall be; \"help\" lists the options"),
	OPT_BOOL("force", T, force, "off", "accepted: nothing here needs it"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_CACHE(T, "writeback"),
	IMG_OPT_PROGRESS(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static int amend(void *arg)
{
	struct amend_args *a = arg;

	return qcow2_amend(a->node, &a->amend, &a->err);
}

static int resize(void *arg)
{
	struct amend_args *a = arg;

	return block_resize(a->node, ALIGN_UP(a->amend.size, 512ull), BLOCK_PREALLOC_OFF, &a->err);
}

/* What concerns the header is changed in the file; the size, in the image that is then opened. */
static int work(struct img *img, struct amend_args *a, struct img_open *open)
{
	struct hako_error err;

	if (img_run(img, amend, a))
		return img_fail(img, &a->err);
	if (!a->amend.size)
		return 0;
	img_close(img, a->node);
	if (img_open(img, open, &a->node, &err))
		return img_fail(img, &err);
	return img_run(img, resize, a) ? img_fail(img, &a->err) : 0;
}

static int run(struct img *img)
{
	struct amend_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.cache = a->cache,
		.image_opts = a->image_opts,
		.write = true,
	};
	struct keyvals kv = {0};
	struct hako_error err;
	const char *format;
	int status = 0;

	if (img_check_objects(img, a->object))
		return 1;
	if (!a->options)
		return img_usage(img, "Must specify options (-o)");
	if (img_parse_options(img, a->options, &kv)) {
		status = 1;
	} else if (img_wants_options_help(&kv)) {
		status = img_options_help(qcow2_amend_options);
	} else if (img->argc != 1) {
		status = img_usage(img, "Expecting one image file name");
	} else {
		open.name = img->argv[0];
		img_progress_start(&a->shown, a->progress);
		if (img_open_file(img, &open, &a->node, &format, &err))
			status = img_fail(img, &err);
		else if (strcmp(format, "qcow2"))
			status = img_error(img,
					   "Format driver '%s' does not support option amendment",
					   format);
		else if (options_defaults(qcow2_amend_options, &a->amend, &err) ||
			 options_apply(qcow2_amend_options, &a->amend, &kv, true, &err))
			status = img_fail(img, &err);
		else
			status = work(img, a, &open);
		img_progress_end(&a->shown, !status);
	}
	keyvals_free(&kv);
	options_free(qcow2_amend_options, &a->amend);
	return status;
}

const struct img_command img_amend = {
	.name = "amend",
	.arguments = "FILENAME",
	.help = "change options of a qcow2 image",
	.options = amend_options,
	.args_size = sizeof(struct amend_args),
	.run = run,
};
