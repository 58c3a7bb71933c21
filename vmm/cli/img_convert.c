/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img convert */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "devices/block/copy.h"
#include "devices/block/qcow2_manage.h"
#include "img_create.h"
#include "img_image.h"

#define MAX_SOURCES 32

struct convert_args {
	char *format, *out_format, *cache, *source_cache, *backing, *backing_format, *snapshot;
	char **options, **object;
	bool image_opts, target_image_opts, target_is_zero, bitmaps, skip_broken_bitmaps;
	bool force_share, offload, compress, progress, quiet, no_create, any_order, salvage;
	uint64_t sparse, rate;
	unsigned int parallel;
	/* not options */
	struct img *img;
	struct img_progress shown;
	struct block_node *sources[MAX_SOURCES];
	struct block_copy copy;
	uint64_t length;
	bool new_is_zero; /* what has been created reads as zeroes */
	struct hako_error err;
};

#define NOT_GIVEN UINT64_MAX

#define T struct convert_args
static const struct option convert_options[] = {
	OPT_STRING("f|source-format", T, format, NULL,
		   "format of the sources; else it is found out"),
	OPT_STRING("O|target-format", T, out_format, NULL, "format of the target (default raw)"),
	OPT_STRING("B|backing", T, backing, NULL,
		   "the target is an overlay of this, which has the source's backing contents"),
	OPT_STRING("F|backing-format", T, backing_format, NULL, "its format"),
	OPT_LIST("o|options", T, options, "options of the target's format; \"help\" lists them"),
	OPT_STRING("l|snapshot", T, snapshot, NULL,
		   "not the source as it is now, but its snapshot of that name or number"),
	OPT_BOOL("c|compress", T, compress, "off", "compress (qcow2)"),
	OPT_SIZE("S|sparse-size", T, sparse, "18446744073709551615", 0, 0,
		 "so many zeroes make a hole; 0: write everything (4k if not given)"),
	OPT_BOOL("n|no-create", T, no_create, "off", "the target is there already"),
	OPT_BOOL("target-is-zero", T, target_is_zero, "off", "with -n: the target reads as zeroes"),
	OPT_UINT("m|parallel", T, parallel, "8", 1, 16, "pieces in work at a time"),
	OPT_BOOL("W|oob", T, any_order, "off", "write in any order"),
	OPT_SIZE("r|rate-limit", T, rate, "0", 0, 0, "at most so many bytes a second; 0: no limit"),
	OPT_BOOL("C|copy-range-offloading", T, offload, "off",
		 "accepted: copies go through memory all the same"),
	OPT_BOOL("salvage", T, salvage, "off", "go on after read errors; what is lost is zero"),
	OPT_BOOL("bitmaps", T, bitmaps, "off", "copy the source's persistent bitmaps"),
	OPT_BOOL("skip-broken-bitmaps", T, skip_broken_bitmaps, "off",
		 "with --bitmaps: but not those that are inconsistent"),
	IMG_OPT_CACHE(T, "unsafe"),
	IMG_OPT_SOURCE_CACHE(T),
	IMG_OPT_PROGRESS(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	OPT_BOOL("target-image-opts", T, target_image_opts, "off",
		 "the target's name is options of a disk node; needs -n"),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

/* --- the arguments ------------------------------------------------------------------------------ */

static int check_args(struct img *img, struct convert_args *a)
{
	if (a->target_is_zero && !a->no_create)
		return img_error(img, "--target-is-zero requires use of -n flag");
	if (a->target_image_opts && !a->no_create)
		return img_error(img, "--target-image-opts requires use of -n flag");
	if (a->target_image_opts && a->out_format)
		return img_error(img, "--target-image-opts and -O exclude each other");
	if (a->compress && a->offload)
		return img_error(img, "Cannot enable copy offloading when -c is used");
	if (a->offload && a->salvage)
		return img_error(img, "Cannot use copy offloading in salvaging mode");
	if (a->offload && a->sparse != NOT_GIVEN)
		return img_error(img, "Cannot enable copy offloading when -S is used");
	if (a->no_create && (a->options || a->backing))
		return img_error(img, "-o and -B are not possible with -n");
	if (a->skip_broken_bitmaps && !a->bitmaps)
		return img_error(img, "Use of --skip-broken-bitmaps requires --bitmaps");
	if (a->snapshot && img->argc > 2)
		return img_error(img, "No support for concatenating multiple snapshot");
	if (a->bitmaps && img->argc > 2)
		return img_error(img, "Copying bitmaps only possible with single source");
	if (a->bitmaps && (!a->out_format || strcmp(a->out_format, "qcow2")) &&
	    !a->target_image_opts)
		return img_error(img, "Format driver '%s' does not support bitmaps",
				 a->out_format ?: "raw");
	if (a->backing && img->argc > 2)
		return img_error(img, "Having a backing file for the target makes no sense when "
				      "concatenating multiple input images");
	if (a->sparse != NOT_GIVEN && a->sparse % 512)
		return img_error(img,
				 "Invalid buffer size for sparse output specified. Valid sizes "
				 "are multiples of 512 up to 2147483136.");
	if (a->sparse == NOT_GIVEN)
		a->sparse = 4096;
	/* Borders of runs are at multiples of it. */
	while (a->sparse & (a->sparse - 1))
		a->sparse &= a->sparse - 1;
	return 0;
}

/* "snapshot.id=1", "snapshot.name=x" or either as it is: a number is looked for first. */
static int show_snapshot(void *arg)
{
	struct convert_args *a = arg;
	const char *name = a->snapshot;

	if (!strncmp(name, "snapshot.id=", 12))
		name += 12;
	else if (!strncmp(name, "snapshot.name=", 14))
		name += 14;
	if (qcow2_snapshot_show(a->sources[0], name, &a->err))
		return error_prefix(&a->err, "Failed to load snapshot");
	return 0;
}

static int open_sources(struct img *img, struct convert_args *a)
{
	struct img_open open = {
		.format = a->format,
		.cache = a->source_cache,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
	};
	struct hako_error err;
	int n = img->argc - 1;

	if (n > MAX_SOURCES)
		return img_error(img, "more than %d sources", MAX_SOURCES);
	for (int i = 0; i < n; i++) {
		open.name = img->argv[i];
		if (img_open(img, &open, &a->sources[i], &err))
			return img_fail(img, &err);
		if (!a->sources[i]->length && n > 1)
			return img_error(img, "%s: is empty", open.name);
		if (a->snapshot && img_run(img, show_snapshot, a))
			return img_fail(img, &a->err);
		a->length += a->sources[i]->length;
	}
	a->copy.sources = a->sources;
	a->copy.nsources = n;
	return 0;
}

/* --- the target --------------------------------------------------------------------------------- */

static bool is_regular(const char *name)
{
	struct stat st;

	return stat(name, &st) == 0 && S_ISREG(st.st_mode);
}

static int create_target(struct img *img, struct convert_args *a, const char *name)
{
	const char *format = a->out_format ?: "raw", *prealloc;
	const struct image_format *fmt = image_format_find(format);
	struct keyvals kv = {0};
	struct hako_error err;
	char size[24];
	int status = 0;

	if (!fmt)
		return img_error(img, "Unknown file format '%s'", format);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)a->length);
	if (img_parse_options(img, a->options, &kv)) {
		keyvals_free(&kv);
		return 1;
	}
	prealloc = keyvals_get(&kv, "preallocation");
	if (a->compress && prealloc && strcmp(prealloc, "off"))
		status = img_error(img,
				   "Compression and preallocation not supported at the same time");
	else if ((!keyvals_get(&kv, "size") && keyvals_add(&kv, "size", size)) ||
		 (a->backing && keyvals_add(&kv, "backing_file", a->backing)) ||
		 (a->backing_format && keyvals_add(&kv, "backing_fmt", a->backing_format)))
		status = img_error(img, "not enough memory");
	else if (img_create_image(img, fmt, name, &kv, true, false, &err))
		status = img_error(img, "%s: error while converting %s: %s", name, format,
				   err.message);
	a->copy.target_has_backing = keyvals_get(&kv, "backing_file");
	a->new_is_zero = is_regular(name) ||
			 (!strcmp(format, "qcow2") && (!prealloc || !strcmp(prealloc, "off")));
	if (keyvals_get(&kv, "data_file") && !is_regular(keyvals_get(&kv, "data_file")))
		a->new_is_zero = false;
	keyvals_free(&kv);
	return status;
}

static int open_target(struct img *img, struct convert_args *a, const char *name)
{
	struct img_open open = {
		.name = name,
		.format = a->target_image_opts ? NULL : a->out_format ?: "raw",
		.cache = a->cache,
		.image_opts = a->target_image_opts,
		.write = true,
	};
	struct block_copy *c = &a->copy;
	struct hako_error err;

	if (img_open(img, &open, &c->target, &err))
		return img_fail(img, &err);
	if (c->target->length < a->length && a->no_create)
		return img_error(img, "output file is smaller than input file");
	if (c->target->backing)
		c->target_has_backing = true;
	if (a->target_is_zero && c->target_has_backing)
		return img_error(img,
				 "--target-is-zero cannot be used when the destination image has "
				 "a backing file");
	c->cluster = 1;
	if (qcow2_is_node(c->target)) {
		const struct qcow2 *q = qcow2_of(c->target);

		c->cluster = 1ull << (a->compress ? q->cluster_bits : q->subcluster_bits);
	}
	return 0;
}

/* --- copying ------------------------------------------------------------------------------------ */

static void progress(void *opaque, uint64_t done, uint64_t total)
{
	struct convert_args *a = opaque;

	img_progress_set(&a->shown, done, total);
}

static void unreadable(void *opaque, uint64_t offset, int error)
{
	struct convert_args *a = opaque;

	if (!a->quiet)
		img_warn(a->img, "error while reading offset %llu: %s", (unsigned long long)offset,
			 strerror(-error));
}

static int copy_bitmap(struct convert_args *a, const struct qcow2_bitmap_entry *b)
{
	struct block_node *source = a->sources[0], *target = a->copy.target;
	int r;

	if (b->flags & QCOW2_BITMAP_IN_USE) {
		if (!a->skip_broken_bitmaps)
			return error_set(
				&a->err, -EINVAL,
				"Cannot copy inconsistent bitmap '%s' (try --skip-broken-bitmaps, or "
				"delete it with bitmap --remove)",
				b->name);
		img_warn(a->img, "Skipping inconsistent bitmap '%s'", b->name);
		return 0;
	}
	r = qcow2_bitmap_add(target, b->name, 1ull << b->granularity_bits, &a->err);
	if (!r)
		r = qcow2_bitmap_merge(target, b->name, source, b->name, &a->err);
	if (!r && !(b->flags & QCOW2_BITMAP_AUTO))
		r = qcow2_bitmap_enable(target, b->name, false, &a->err);
	return r ? error_prefix(&a->err, "Failed to copy bitmap '%s'", b->name) : 0;
}

static int copy_bitmaps(void *arg)
{
	struct convert_args *a = arg;
	struct qcow2_bitmap_entry *list;
	uint32_t n;
	int r = qcow2_bitmap_list(a->sources[0], &list, &n, &a->err);

	if (r)
		return r;
	for (uint32_t i = 0; i < n && !r; i++)
		r = copy_bitmap(a, &list[i]);
	qcow2_bitmaps_list_free(list, n);
	return r;
}

static int copy(void *arg)
{
	struct convert_args *a = arg;
	int ret = block_copy(&a->copy, &a->err);

	if (ret == 0 && strcmp(a->cache, "unsafe")) {
		ret = block_flush(a->copy.target);
		if (ret < 0)
			error_errno(&a->err, ret, "error while writing the last of it");
	}
	return ret;
}

static int convert(struct img *img, struct convert_args *a)
{
	struct block_copy *c = &a->copy;
	int r;

	c->parallel = a->parallel;
	c->sparse = a->sparse;
	c->zero_from = UINT64_MAX;
	if (c->target->backing && !a->no_create)
		c->zero_from = c->target->backing->length;
	else if (!c->target_has_backing && (a->new_is_zero || a->target_is_zero))
		c->zero_from = 0;
	/* The order shows in the layout of formats only. */
	c->any_order = a->any_order || !qcow2_is_node(c->target);
	c->compress = a->compress;
	c->salvage = a->salvage;
	c->rate = a->rate;
	c->progress = progress;
	c->unreadable = unreadable;
	c->opaque = a;
	if (a->compress) {
		/* Do not give the compressor's memory back to the kernel after each cluster: a tenth of the time. */
		mallopt(M_TRIM_THRESHOLD, 256 * MiB);
		mallopt(M_MMAP_THRESHOLD, 32 * MiB);
	}
	if (c->target_has_backing)
		c->base = a->sources[0]->backing;
	r = img_run(img, copy, a);
	if (!r && a->bitmaps)
		r = img_run(img, copy_bitmaps, a);
	img_progress_end(&a->shown, r == 0);
	return r ? img_fail(img, &a->err) : 0;
}

static int run(struct img *img)
{
	struct convert_args *a = img->args;
	const char *target;
	struct keyvals kv = {0};
	bool help;

	a->img = img;
	if (img_check_objects(img, a->object) || img_parse_options(img, a->options, &kv))
		return 1;
	help = img_wants_options_help(&kv);
	keyvals_free(&kv);
	if (help) {
		const struct image_format *fmt = image_format_find(a->out_format ?: "raw");

		return fmt ? img_options_help(fmt->create_options)
			   : img_error(img, "Unknown file format '%s'", a->out_format);
	}
	if (img->argc < 2)
		return img_usage(img, "Must specify image file name");
	target = img->argv[img->argc - 1];
	img_progress_start(&a->shown, a->progress);
	if (check_args(img, a) || open_sources(img, a))
		return 1;
	if (!a->no_create && create_target(img, a, target))
		return 1;
	if (open_target(img, a, target))
		return 1;
	return convert(img, a);
}

const struct img_command img_convert = {
	.name = "convert",
	.arguments = "SOURCE... TARGET",
	.help = "copy images to an image of another format or with other options",
	.options = convert_options,
	.args_size = sizeof(struct convert_args),
	.run = run,
};
