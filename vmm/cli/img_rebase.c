/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img rebase and commit: data between an overlay and what it stands on. */
#include "devices/block/rebase.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "devices/block/qcow2_manage.h"
#include "img_create.h"

/* --- rebase ------------------------------------------------------------------------------------- */

struct rebase_args {
	char *format, *cache, *source_cache, *backing, *backing_format;
	char **object;
	bool image_opts, force_share, progress, quiet, unsafe;
	struct img_progress shown;
	struct block_node *top, *new;
	struct hako_error err;
};

#define T struct rebase_args
static const struct option rebase_options[] = {
	OPT_STRING("b|backing", T, backing, NULL,
		   "the new backing file, as it shall stand in the image; empty: none"),
	OPT_STRING("F|backing-format", T, backing_format, NULL, "its format"),
	OPT_BOOL("u|backing-unsafe", T, unsafe, "off",
		 "change the name only: the new one has the same contents"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_CACHE(T, "writeback"),
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
	img_progress_set(opaque, done, total);
}

static int rebase(void *arg)
{
	struct rebase_args *a = arg;
	const struct block_job job = {.progress = progress, .opaque = &a->shown};
	bool none = !a->backing || !*a->backing;
	int r = 0;

	if (!a->unsafe)
		r = block_rebase(a->top, a->top->backing, a->new, &job, &a->err);
	if (!r)
		r = block_flush(a->top);
	if (r)
		return r;
	if (!qcow2_is_node(a->top))
		r = error_set(&a->err, -EOPNOTSUPP, "Operation not supported");
	else if (!none && !a->backing_format)
		r = error_set(&a->err, -EINVAL, "backing format must be specified");
	else
		r = qcow2_change_backing(a->top, none ? NULL : a->backing,
					 none ? NULL : a->backing_format, &a->err);
	if (!r)
		return 0;
	return error_prefix(&a->err, "Could not change the backing file to '%s'", a->backing ?: "");
}

static int open_new(struct img *img, struct rebase_args *a)
{
	struct img_open open = {
		.format = a->backing_format,
		.cache = a->source_cache,
		.force_share = a->force_share,
	};
	char *path = block_path_combine(block_filename(a->top), a->backing);
	struct hako_error err;
	int r;

	if (!path)
		return img_error(img, "not enough memory");
	open.name = path;
	r = img_open(img, &open, &a->new, &err);
	free(path);
	if (!r)
		return 0;
	error_prefix(&err, "Could not open new backing file '%s'", a->backing);
	return img_fail(img, &err);
}

static int run_rebase(struct img *img)
{
	struct rebase_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.cache = a->cache,
		.image_opts = a->image_opts,
		.write = true,
		.no_backing = a->unsafe,
	};
	struct hako_error err;
	int r;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	if (!a->unsafe && !a->backing)
		return img_usage(img, "Must specify backing file (-b) or use unsafe mode (-u)");
	open.name = img->argv[0];
	img_progress_start(&a->shown, a->progress);
	if (img_open(img, &open, &a->top, &err))
		return img_fail(img, &err);
	if (!a->unsafe && *a->backing && open_new(img, a))
		return 1;
	r = img_run(img, rebase, a);
	img_progress_end(&a->shown, !r);
	return r ? img_fail(img, &a->err) : 0;
}

const struct img_command img_rebase = {
	.name = "rebase",
	.arguments = "FILENAME",
	.help = "give an overlay another backing file; it shows the same afterwards",
	.options = rebase_options,
	.args_size = sizeof(struct rebase_args),
	.run = run_rebase,
};

/* --- commit ------------------------------------------------------------------------------------- */

struct commit_args {
	char *format, *cache, *base_name;
	char **object;
	bool image_opts, progress, quiet, keep;
	uint64_t rate;
	struct img_progress shown;
	struct block_node *top, *base;
	struct hako_error err;
};

#define T struct commit_args
static const struct option commit_options[] = {
	OPT_STRING("b|base", T, base_name, NULL,
		   "write to this image of the chain, instead of the next one; implies -d"),
	OPT_BOOL("d|drop", T, keep, "off", "do not empty the overlay afterwards"),
	OPT_SIZE("r|rate-limit", T, rate, "0", 0, 0, "accepted: there is no limit"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_CACHE(T, "writeback"),
	IMG_OPT_PROGRESS(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static bool same_file(const char *a, const char *b)
{
	struct stat sa, sb;

	return !strcmp(a, b) ||
	       (!stat(a, &sa) && !stat(b, &sb) && sa.st_dev == sb.st_dev && sa.st_ino == sb.st_ino);
}

/* The node with the base's name, as the image above has it or as a path; @above: that image. NULL: it is not there. */
static struct block_node *find_base(const struct commit_args *a, struct block_node **above)
{
	for (struct block_node *n = a->top; n->backing; n = n->backing) {
		const char *name = block_filename(n->backing);

		*above = n;
		if (!a->base_name)
			return n->backing;
		if (qcow2_is_node(n) && qcow2_of(n)->backing_name &&
		    !strcmp(qcow2_of(n)->backing_name, a->base_name))
			return n->backing;
		if (name && same_file(name, a->base_name))
			return n->backing;
	}
	return NULL;
}

static int commit(void *arg)
{
	struct commit_args *a = arg;
	const struct block_job job = {.progress = progress, .opaque = &a->shown};
	int r = block_commit(a->top, a->base, &job, &a->err);

	if (r)
		return r;
	r = block_flush(a->base);
	if (r)
		return error_errno(&a->err, r, "writing the last of it");
	if (!a->keep && !a->base_name && qcow2_is_node(a->top))
		r = qcow2_make_empty(a->top, &a->err);
	return r;
}

static int run_commit(struct img *img)
{
	struct commit_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.cache = a->cache,
		.image_opts = a->image_opts,
		.write = true,
	};
	struct block_node *above = NULL;
	struct hako_error err;
	int r;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	open.name = img->argv[0];
	img_progress_start(&a->shown, a->progress);
	if (img_open(img, &open, &a->top, &err))
		return img_fail(img, &err);
	if (!a->top->backing)
		return img_error(img, "Image does not have a backing file");
	a->base = find_base(a, &above);
	if (!a->base)
		return img_error(img, "Did not find '%s' in the backing chain of '%s'",
				 a->base_name, open.name);
	r = block_reopen(a->base, false, &err);
	if (!r)
		r = block_use_node(a->base, above, BLOCK_USE_WRITE | BLOCK_USE_RESIZE, &err);
	if (r) {
		error_prefix(&err, "Could not write to '%s'", block_filename(a->base) ?: "");
		return img_fail(img, &err);
	}
	r = img_run(img, commit, a);
	img_progress_end(&a->shown, !r);
	if (r)
		return img_fail(img, &a->err);
	if (!a->quiet)
		printf("Image committed.\n");
	return 0;
}

const struct img_command img_commit = {
	.name = "commit",
	.arguments = "FILENAME",
	.help = "write an overlay's contents to its backing file",
	.options = commit_options,
	.args_size = sizeof(struct commit_args),
	.run = run_commit,
};
