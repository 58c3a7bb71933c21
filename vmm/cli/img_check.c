/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img check */
#include <stdio.h>
#include <stdlib.h>

#include "devices/block/qcow2_manage.h"
#include "img.h"

enum check_status {
	CHECK_CLEAN = 0,
	CHECK_FAILED = 1,
	CHECK_CORRUPT = 2,
	CHECK_LEAKS = 3,
	CHECK_UNSUPPORTED = 63,
};

enum check_repair {
	REPAIR_NOTHING,
	REPAIR_LEAKS,
	REPAIR_ALL,
};

static const char *const repair_names[] = {"none", "leaks", "all", NULL};

struct check_args {
	char *format, *source_cache;
	char **object;
	bool image_opts, force_share, quiet;
	int output, repair;
	struct block_node *file;
	struct qcow2_check check;
	struct hako_error err;
};

#define T struct check_args
static const struct option check_options[] = {
	IMG_OPT_FORMAT(T),
	IMG_OPT_OUTPUT(T),
	OPT_ENUM("r|repair", T, repair, "none", repair_names,
		 "repair: clusters that nobody uses, or all that is wrong"),
	IMG_OPT_SOURCE_CACHE(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static void print_human(const struct check_args *a)
{
	const struct qcow2_check *c = &a->check;

	if (a->quiet)
		return;
	if (!c->corruptions && !c->leaks && !c->check_errors)
		printf("No errors were found on the image.\n");
	if (c->corruptions)
		printf("\n%llu errors were found on the image.\nData may be corrupted, or further "
		       "writes to the image may corrupt it.\n",
		       (unsigned long long)c->corruptions);
	if (c->leaks)
		printf("\n%llu leaked clusters were found on the image.\nThis means waste of disk "
		       "space, but no harm to data.\n",
		       (unsigned long long)c->leaks);
	if (c->check_errors)
		printf("\n%llu internal errors have occurred during the check.\n",
		       (unsigned long long)c->check_errors);
	if (c->total_clusters && c->allocated_clusters)
		printf("%llu/%llu = %0.2f%% allocated, %0.2f%% fragmented, %0.2f%% compressed clusters\n",
		       (unsigned long long)c->allocated_clusters,
		       (unsigned long long)c->total_clusters,
		       (double)c->allocated_clusters * 100 / (double)c->total_clusters,
		       (double)c->fragmented_clusters * 100 / (double)c->allocated_clusters,
		       (double)c->compressed_clusters * 100 / (double)c->allocated_clusters);
	if (c->image_end_offset)
		printf("Image end offset: %llu\n", (unsigned long long)c->image_end_offset);
}

static void print_json(const struct check_args *a, const char *name, const char *format)
{
	const struct qcow2_check *c = &a->check;
	const struct {
		const char *key;
		uint64_t value;
	} counts[] = {
		{"image-end-offset", c->image_end_offset},
		{"corruptions", c->corruptions},
		{"leaks", c->leaks},
		{"corruptions-fixed", c->corruptions_fixed},
		{"leaks-fixed", c->leaks_fixed},
		{"total-clusters", c->total_clusters},
		{"allocated-clusters", c->allocated_clusters},
		{"fragmented-clusters", c->fragmented_clusters},
		{"compressed-clusters", c->compressed_clusters},
	};
	struct img_json j = {0};

	img_json_open(&j, NULL, '{');
	img_json_str(&j, "filename", name);
	img_json_str(&j, "format", format);
	img_json_uint(&j, "check-errors", c->check_errors);
	for (size_t i = 0; i < ARRAY_SIZE(counts); i++)
		if (counts[i].value)
			img_json_uint(&j, counts[i].key, counts[i].value);
	img_json_close(&j, '}');
}

static void report(void *opaque, const char *line)
{
	fflush(stdout);
	fprintf(stderr, "%s\n", line);
}

static int check(void *arg)
{
	struct check_args *a = arg;

	return qcow2_check(a->file, &a->check, &a->err);
}

/* Check, and once more what has been repaired: the second time says what remains. */
static int check_image(struct img *img, struct check_args *a)
{
	static const unsigned int fixes[] = {
		[REPAIR_LEAKS] = QCOW2_FIX_LEAKS,
		[REPAIR_ALL] = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS,
	};
	uint64_t corruptions, leaks;
	int r;

	a->check = (struct qcow2_check){.fix = fixes[a->repair], .report = report};
	r = img_run(img, check, a);
	corruptions = a->check.corruptions_fixed;
	leaks = a->check.leaks_fixed;
	if (r || (!corruptions && !leaks))
		return r;
	if (a->output == IMG_HUMAN && !a->quiet)
		printf("The following inconsistencies were found and repaired:\n\n    %llu leaked "
		       "clusters\n    %llu corruptions\n\nDouble checking the fixed image now...\n",
		       (unsigned long long)leaks, (unsigned long long)corruptions);
	a->check = (struct qcow2_check){.report = report};
	r = img_run(img, check, a);
	a->check.corruptions_fixed = corruptions;
	a->check.leaks_fixed = leaks;
	return r;
}

static int run(struct img *img)
{
	struct check_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.cache = a->source_cache,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
		.write = a->repair != REPAIR_NOTHING,
	};
	struct hako_error err;
	const char *format = "";
	int r;

	if (img_check_objects(img, a->object))
		return CHECK_FAILED;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	open.name = img->argv[0];
	if (img_open_file(img, &open, &a->file, &format, &err))
		return img_fail(img, &err);
	if (strcmp(format, "qcow2")) {
		img_error(img, "This image format does not support checks");
		return CHECK_UNSUPPORTED;
	}
	r = check_image(img, a);
	if (!r && a->output == IMG_HUMAN)
		print_human(a);
	else if (!r)
		print_json(a, img->argv[0], format);
	if (r) {
		error_prefix(&a->err, "Check failed");
		return img_fail(img, &a->err);
	}
	if (a->check.check_errors)
		return img_error(img, "Check failed");
	if (a->check.corruptions)
		return CHECK_CORRUPT;
	return a->check.leaks ? CHECK_LEAKS : CHECK_CLEAN;
}

const struct img_command img_check = {
	.name = "check",
	.arguments = "FILENAME",
	.help = "is an image sound? Status 0: yes, 2: corrupt, 3: space is lost, 1: it could not be "
		"checked, 63: not of this format",
	.options = check_options,
	.args_size = sizeof(struct check_args),
	.run = run,
};
