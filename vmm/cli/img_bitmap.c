/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img bitmap */
#include <stdio.h>

#include "devices/block/qcow2_manage.h"
#include "img.h"

struct bitmap_args {
	char *format, *source, *source_format;
	char **object, **merge;
	bool image_opts, add, remove, clear, enable, disable;
	uint64_t granularity;
	struct img *img;
	struct block_node *node, *source_node;
	struct hako_error err;
};

#define T struct bitmap_args
static const struct option bitmap_options[] = {
	OPT_BOOL("add", T, add, "off", "make it"),
	OPT_BOOL("remove", T, remove, "off", "remove it"),
	OPT_BOOL("clear", T, clear, "off", "forget what it has"),
	OPT_BOOL("enable", T, enable, "off", "let it follow writes"),
	OPT_BOOL("disable", T, disable, "off", "let it follow writes no more"),
	OPT_LIST("merge", T, merge, "set what is set in this bitmap"),
	OPT_STRING("b|source-file", T, source, NULL, "--merge: the bitmap of this image"),
	OPT_STRING("F|source-format", T, source_format, NULL, "its format"),
	OPT_SIZE("g|granularity", T, granularity, "0", 0, 1u << 31,
		 "--add: bytes that a bit stands for"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static int act(struct bitmap_args *a, const char *what, const char *from)
{
	const char *name = a->img->argv[1];
	struct block_node *source = a->source_node ?: a->node;
	int r = -EINVAL;

	if (!strcmp(what, "add"))
		r = qcow2_bitmap_add(a->node, name, a->granularity, &a->err);
	else if (!strcmp(what, "remove"))
		r = qcow2_bitmap_remove(a->node, name, &a->err);
	else if (!strcmp(what, "clear"))
		r = qcow2_bitmap_clear(a->node, name, &a->err);
	else if (!strcmp(what, "merge"))
		r = qcow2_bitmap_merge(a->node, name, source, from, &a->err);
	else
		r = qcow2_bitmap_enable(a->node, name, !strcmp(what, "enable"), &a->err);
	return r ? error_prefix(&a->err, "Operation %s on bitmap %s failed", what, name) : 0;
}

/* One after the other, in the order of the arguments. */
static int work(void *arg)
{
	static const char *const actions[] = {"add", "remove", "clear", "enable", "disable"};
	struct bitmap_args *a = arg;
	char **given = a->img->given;
	int r = 0;

	for (unsigned int merges = 0; *given && !r; given++) {
		const char *word = *given;

		if (strncmp(word, "--", 2))
			continue;
		if (!strncmp(word, "--merge", 7) && (!word[7] || word[7] == '='))
			r = act(a, "merge", a->merge[merges++]);
		for (size_t i = 0; i < ARRAY_SIZE(actions) && !r; i++)
			if (!strcmp(word + 2, actions[i]))
				r = act(a, actions[i], NULL);
	}
	return r;
}

static int check_args(struct img *img, const struct bitmap_args *a)
{
	if (!a->add && !a->remove && !a->clear && !a->enable && !a->disable && !a->merge)
		return img_error(img, "Need at least one of --add, --remove, --clear, --enable, "
				      "--disable, or --merge");
	if (img->argc != 2)
		return img_error(img, "Expecting filename and bitmap name");
	if (a->granularity && !a->add)
		return img_error(img, "granularity only supported with --add");
	if (a->source && !a->merge)
		return img_error(img, "Merge bitmap source file only supported with --merge");
	if (a->source_format && !a->source)
		return img_error(img, "-F only supported with -b");
	return 0;
}

static int run(struct img *img)
{
	struct bitmap_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.write = true,
	};
	struct hako_error err;

	a->img = img;
	if (img_check_objects(img, a->object) || check_args(img, a))
		return 1;
	open.name = img->argv[0];
	if (img_open(img, &open, &a->node, &err))
		return img_fail(img, &err);
	if (a->source) {
		open = (struct img_open){.name = a->source, .format = a->source_format};
		if (img_open(img, &open, &a->source_node, &err))
			return img_fail(img, &err);
	}
	return img_run(img, work, a) ? img_fail(img, &a->err) : 0;
}

const struct img_command img_bitmap = {
	.name = "bitmap",
	.arguments = "FILENAME BITMAP",
	.help = "persistent dirty bitmaps of an image; the actions are done in their order",
	.options = bitmap_options,
	.args_size = sizeof(struct bitmap_args),
	.run = run,
};
