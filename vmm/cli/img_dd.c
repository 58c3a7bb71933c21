/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img dd */
#include <stdio.h>
#include <stdlib.h>

#include "img_create.h"

struct dd_args {
	char *format, *out_format;
	char **object;
	bool image_opts, force_share;
	/* operands */
	const char *in, *out;
	uint64_t bs, count, skip;
	bool have_count;
	/* work */
	struct block_node *source, *target;
	uint64_t start, bytes; /* of the source */
	struct hako_error err;
};

#define T struct dd_args
static const struct option dd_options[] = {
	IMG_OPT_FORMAT(T),
	OPT_STRING("O|target-format", T, out_format, "raw", "format of the target"),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static int parse_number(const struct img *img, const char *name, const char *text, uint64_t *value)
{
	if (parse_size(text, 1, value) || *value > INT64_MAX)
		return img_error(img, "invalid number: '%s'", text);
	if (!strcmp(name, "bs") && (!*value || *value > INT32_MAX))
		return img_error(img, "invalid block size: '%s'", text);
	return 0;
}

static int parse_operand(const struct img *img, struct dd_args *a, char *text)
{
	char *value = strchr(text, '=');

	if (!value)
		return img_error(img, "unrecognized operand %s", text);
	*value++ = 0;
	if (!strcmp(text, "if")) {
		a->in = value;
	} else if (!strcmp(text, "of")) {
		a->out = value;
	} else if (!strcmp(text, "bs")) {
		return parse_number(img, text, value, &a->bs);
	} else if (!strcmp(text, "skip")) {
		return parse_number(img, text, value, &a->skip);
	} else if (!strcmp(text, "count")) {
		a->have_count = true;
		return parse_number(img, text, value, &a->count);
	} else {
		return img_error(img, "unrecognized operand %s", text);
	}
	return 0;
}

/* Each block is read and written, whatever is in it. */
static int copy(void *arg)
{
	struct dd_args *a = arg;
	/* Blocks do not show in the result; large pieces are faster. */
	uint64_t piece = MIN(MAX(a->bs, MiB / a->bs * a->bs), 16 * MiB), n;
	void *buf = aligned_alloc(PAGE_SIZE, ALIGN_UP(piece, PAGE_SIZE));
	int r = 0;

	if (!buf)
		return error_errno(&a->err, -ENOMEM, "making a buffer");
	for (uint64_t done = 0; done < a->bytes && !r; done += n) {
		n = MIN(a->bytes - done, piece);
		r = block_pread(a->source, a->start + done, buf, n);
		if (r) {
			error_errno(&a->err, r, "error while reading from input image file");
			break;
		}
		r = block_pwrite(a->target, done, buf, n, 0);
		if (r)
			error_errno(&a->err, r, "error while writing to output image file");
	}
	free(buf);
	return r;
}

/* What is copied, from the source's size and the operands. */
static void find_range(struct dd_args *a)
{
	uint64_t length = a->source->length, skip, count;

	if (__builtin_mul_overflow(a->skip, a->bs, &skip))
		skip = UINT64_MAX;
	a->start = MIN(skip, length);
	a->bytes = length - a->start;
	/* As dd and QEMU have it: the count is of blocks, and does not go beyond the end. */
	if (a->have_count && !__builtin_mul_overflow(a->count, a->bs, &count))
		a->bytes = MIN(a->bytes, count);
}

static int make_target(struct img *img, struct dd_args *a)
{
	const struct image_format *fmt = image_format_find(a->out_format);
	struct img_open open = {.name = a->out, .format = a->out_format, .write = true};
	struct keyvals kv = {0};
	struct hako_error err;
	char size[24];
	int status = 0;

	if (!fmt)
		return img_error(img, "Unknown file format '%s'", a->out_format);
	snprintf(size, sizeof(size), "%llu", (unsigned long long)a->bytes);
	if (keyvals_add(&kv, "size", size))
		return img_error(img, "not enough memory");
	if (img_create_image(img, fmt, a->out, &kv, true, false, &err) ||
	    img_open(img, &open, &a->target, &err))
		status = img_fail(img, &err);
	keyvals_free(&kv);
	return status;
}

static int run(struct img *img)
{
	struct dd_args *a = img->args;
	struct img_open open = {.image_opts = a->image_opts, .force_share = a->force_share};
	struct hako_error err;

	a->bs = 512;
	if (img_check_objects(img, a->object))
		return 1;
	for (int i = 0; i < img->argc; i++)
		if (parse_operand(img, a, img->argv[i]))
			return 1;
	if (!a->in || !a->out)
		return img_error(img, "Must specify both input and output file names");
	open.name = a->in;
	open.format = a->format;
	if (img_open(img, &open, &a->source, &err))
		return img_fail(img, &err);
	find_range(a);
	if (a->skip && !a->bytes && (!a->have_count || a->count))
		img_error(img, "%s: cannot skip to specified offset", a->in);
	if (make_target(img, a))
		return 1;
	return a->bytes && img_run(img, copy, a) ? img_fail(img, &a->err) : 0;
}

const struct img_command img_dd = {
	.name = "dd",
	.arguments = "[bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILENAME of=FILENAME",
	.help = "copy a part of an image to a new one",
	.options = dd_options,
	.args_size = sizeof(struct dd_args),
	.run = run,
};
