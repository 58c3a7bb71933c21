/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img create; and the creation of convert's and dd's target. */
#include <stdio.h>
#include <stdlib.h>

#include "img.h"
#include "img_create.h"

struct create_args {
	char *format, *backing, *backing_format;
	char **options, **object;
	bool quiet, unsafe;
};

#define T struct create_args
static const struct option create_options[] = {
	OPT_STRING("f|format", T, format, "raw", "the image's format"),
	OPT_STRING("b|backing", T, backing, NULL, "the image is an overlay of this one"),
	OPT_STRING("F|backing-format", T, backing_format, NULL, "its format"),
	OPT_LIST("o|options", T, options, "options of the format; \"help\" lists them"),
	OPT_BOOL("u|backing-unsafe", T, unsafe, "off", "do not open the backing file"),
	IMG_OPT_QUIET(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

static const char *type_name(const struct option *o)
{
	switch (o->type) {
	case OPTION_BOOL:
	case OPTION_ONOFFAUTO:
		return "bool (on/off)";
	case OPTION_SIZE:
		return "size";
	case OPTION_UINT:
		return "num";
	default:
		return "str";
	}
}

int img_options_help(const struct option *table)
{
	printf("Supported options:\n");
	for (; table && table->name; table++) {
		char left[64];

		snprintf(left, sizeof(left), "%s=<%s>", table->name, type_name(table));
		printf("  %-22s - %s\n", left, table->help);
	}
	return 0;
}

bool img_wants_options_help(const struct keyvals *kv)
{
	return keyvals_get(kv, "help") || keyvals_get(kv, "?");
}

int img_parse_options(const struct img *img, char *const *list, struct keyvals *kv)
{
	char *text = img_join(list);
	struct hako_error err;
	int r = text ? keyvals_parse(kv, text, NULL, &err) : 0;

	if (r)
		img_error(img, "Invalid options for file format: -o %s: %s", text, err.message);
	free(text);
	return r;
}

int img_parse_size(const struct img *img, const char *text, uint64_t *size)
{
	int r = parse_size(text, 1, size);

	if (r == 0 && *size <= INT64_MAX)
		return 0;
	if (r == -EINVAL)
		return img_error(img, "Invalid image size '%s': such as 4096, 512k, 1.5G, 2T",
				 text);
	return img_error(img, "Image size '%s' must be less than 8 EiB!", text);
}

/* What QEMU prints although nobody gave it. */
static bool always_shown(const char *name)
{
	static const char *const names[] = {"cluster_size", "extended_l2", "compression_type",
					    "lazy_refcounts", "refcount_bits"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i]))
			return true;
	return false;
}

/* Values with a space or a comma are put in quotes, as QEMU does it. */
static void print_value(const char *value)
{
	if (!value[strcspn(value, " ,'\"")]) {
		fputs(value, stdout);
		return;
	}
	for (; *value; value++) {
		if (*value == ',')
			putchar(',');
		putchar(*value);
	}
}

/* Before it was rounded. */
static char *size_as_given(const struct keyvals *kv)
{
	const char *text = keyvals_get(kv, "size");
	uint64_t size;

	if (!text || parse_size(text, 1, &size))
		return NULL;
	return str_printf("%llu", (unsigned long long)size);
}

static void print_options(const char *filename, const struct image_format *fmt, const void *options,
			  const struct keyvals *kv)
{
	printf("Formatting '%s', fmt=%s", filename, fmt->name);
	for (const struct option *o = fmt->create_options; o->name; o++) {
		char *value = NULL;

		if (!strcmp(o->name, "size"))
			value = size_as_given(kv);
		else if (keyvals_get(kv, o->name) || always_shown(o->name))
			value = option_get(o, options);
		if (!value)
			continue;
		printf(" %s=", o->name);
		print_value(value);
		free(value);
	}
	putchar('\n');
}

/* The overlay's size is the backing's, unless it is given; and the backing has to be there. */
static int look_at_backing(struct img *img, const char *filename, struct keyvals *kv, bool unsafe,
			   struct hako_error *err)
{
	const char *backing = keyvals_get(kv, "backing_file");
	const char *format = keyvals_get(kv, "backing_fmt");
	struct block_node *node;
	char size[24];
	int r;

	if (!backing || !*backing || (unsafe && keyvals_get(kv, "size")))
		return 0;
	if (!strcmp(backing, filename))
		return error_set(
			err, -EINVAL,
			"Error: Trying to create an image with the same filename as the backing file");
	struct img_open open = {.format = format, .force_share = true};
	char *path = block_path_combine(filename, backing);

	if (!path)
		return error_errno(err, -ENOMEM, "%s", backing);
	open.name = path;
	r = img_open(img, &open, &node, err);
	free(path);
	if (r)
		return error_prefix(err, "Could not open backing image");
	if (!format)
		r = error_set(
			err, -EINVAL,
			"Backing file specified without backing format (detected format of %s)",
			img_format_name(node));
	snprintf(size, sizeof(size), "%llu", (unsigned long long)node->length);
	img_close(img, node);
	if (!r && !keyvals_get(kv, "size") && keyvals_add(kv, "size", size))
		r = error_errno(err, -ENOMEM, "size");
	return r;
}

static bool has_option(const struct image_format *fmt, const char *name)
{
	for (const struct option *o = fmt->create_options; o->name; o++)
		if (!strcmp(o->name, name))
			return true;
	return false;
}

int img_create_image(struct img *img, const struct image_format *fmt, const char *filename,
		     struct keyvals *kv, bool quiet, bool unsafe, struct hako_error *err)
{
	void *options = NULL;
	int r;

	if (keyvals_get(kv, "backing_file") && !has_option(fmt, "backing_file"))
		return error_set(err, -EINVAL,
				 "%s: Backing file not supported for file format '%s'", filename,
				 fmt->name);
	r = look_at_backing(img, filename, kv, unsafe, err);
	if (!r)
		r = image_options_new(fmt, kv, &options, err);
	if (r)
		return error_prefix(err, "%s", filename);
	if (!quiet)
		print_options(filename, fmt, options, kv);
	r = fmt->create(filename, options, err);
	image_options_free(fmt, options);
	return r;
}

static int add(struct keyvals *kv, const char *key, const char *value)
{
	return value ? keyvals_add(kv, key, value) : 0;
}

static int create(struct img *img, const struct create_args *a, const struct image_format *fmt,
		  struct keyvals *kv)
{
	struct hako_error err;
	uint64_t size;
	char text[24];

	if (img->argc > 1) {
		if (img_parse_size(img, img->argv[1], &size))
			return 1;
		snprintf(text, sizeof(text), "%llu", (unsigned long long)size);
		if (add(kv, "size", text))
			return img_error(img, "not enough memory");
	}
	if (add(kv, "backing_file", a->backing) || add(kv, "backing_fmt", a->backing_format))
		return img_error(img, "not enough memory");
	if (img_create_image(img, fmt, img->argv[0], kv, a->quiet, a->unsafe, &err))
		return img_fail(img, &err);
	return 0;
}

static int run(struct img *img)
{
	const struct create_args *a = img->args;
	const struct image_format *fmt = image_format_find(a->format);
	struct keyvals kv = {0};
	int status;

	if (img_check_objects(img, a->object) || img_parse_options(img, a->options, &kv))
		status = 1;
	else if (!fmt)
		status = img_error(img, "Unknown file format '%s'", a->format);
	else if (img_wants_options_help(&kv))
		status = img_options_help(fmt->create_options);
	else if (img->argc < 1)
		status = img_usage(img, "Expecting image file name");
	else if (img->argc > 2)
		status = img_usage(img, "Unexpected argument: %s", img->argv[2]);
	else
		status = create(img, a, fmt, &kv);
	keyvals_free(&kv);
	return status;
}

const struct img_command img_create = {
	.name = "create",
	.arguments = "FILENAME [SIZE]",
	.help = "make a new image",
	.options = create_options,
	.args_size = sizeof(struct create_args),
	.run = run,
};
