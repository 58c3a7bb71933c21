/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img info */
#include "img_info.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "img_create.h"

#define MAX_CHAIN 256

struct info_args {
	char *format;
	char **object;
	bool image_opts, force_share, chain;
	int output;
};

#define T struct info_args
static const struct option info_options[] = {
	IMG_OPT_FORMAT(T),
	IMG_OPT_OUTPUT(T),
	OPT_BOOL("backing-chain", T, chain, "off", "and of all images below it"),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

/* What it takes on the host's disk: the file's blocks, and the external data file's. */
static uint64_t allocated_bytes(const struct block_node *node)
{
	const char *name = block_filename(node);
	uint64_t bytes = 0;
	struct stat st;

	if (name && !stat(name, &st))
		bytes = 512ull * st.st_blocks;
	if (node->data && node->data != node->file)
		bytes += allocated_bytes(node->data);
	return bytes;
}

static bool is_dirty(const struct block_node *node)
{
	return qcow2_is_node(node) &&
	       (qcow2_of((struct block_node *)node)->incompatible & QCOW2_INCOMPAT_DIRTY);
}

/* The backing file's name as this program would open it; the caller frees it. */
static char *full_backing_name(const char *filename, const char *backing)
{
	if (!strncmp(backing, "json:", 5))
		return strdup(backing);
	return block_path_combine(filename, backing);
}

/* --- qcow2 -------------------------------------------------------------------------------------- */

static void print_bitmaps(struct img_json *j, struct qcow2 *q)
{
	static const struct {
		uint32_t flag;
		const char *name;
	} names[] = {{QCOW2_BITMAP_IN_USE, "in-use"}, {QCOW2_BITMAP_AUTO, "auto"}};
	struct qcow2_bitmap_entry *list;
	uint32_t n;

	if (qcow2_bitmap_list(&q->node, &list, &n, NULL))
		return;
	if (n)
		img_json_open(j, "bitmaps", '[');
	for (uint32_t i = 0; i < n; i++) {
		img_json_open(j, NULL, '{');
		img_json_open(j, "flags", '[');
		for (size_t k = 0; k < ARRAY_SIZE(names); k++)
			if (list[i].flags & names[k].flag)
				img_json_str(j, NULL, names[k].name);
		img_json_close(j, ']');
		img_json_str(j, "name", list[i].name);
		img_json_uint(j, "granularity", 1ull << list[i].granularity_bits);
		img_json_close(j, '}');
	}
	if (n)
		img_json_close(j, ']');
	qcow2_bitmaps_list_free(list, n);
}

void img_info_specific(struct img_json *j, struct qcow2 *q)
{
	bool v3 = q->version >= 3;

	img_json_str(j, "compat", v3 ? "1.1" : "0.10");
	img_json_str(j, "compression-type",
		     q->compression == QCOW2_COMPRESSION_ZSTD ? "zstd" : "zlib");
	if (v3)
		img_json_bool(j, "lazy-refcounts", q->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
	if (v3)
		print_bitmaps(j, q);
	img_json_uint(j, "refcount-bits", 1u << q->refcount_order);
	if (!v3)
		return;
	if (qcow2_has_data_file(q)) {
		if (q->data_file_name)
			img_json_str(j, "data-file", q->data_file_name);
		img_json_bool(j, "data-file-raw", q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW);
	}
	img_json_bool(j, "corrupt", q->incompatible & QCOW2_INCOMPAT_CORRUPT);
	img_json_bool(j, "extended-l2", qcow2_is_extended(q));
}

/* --- output ------------------------------------------------------------------------------------- */

static void print_human(const char *name, struct block_node *node)
{
	struct qcow2 *q = qcow2_is_node(node) ? qcow2_of(node) : NULL;
	struct qcow2_snapshot *list;
	char size[32], actual[32];
	uint32_t n;

	printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n", name,
	       img_format_name(node), img_size_str(node->length, size),
	       (unsigned long long)node->length, img_size_str(allocated_bytes(node), actual));
	if (!q)
		return;
	printf("cluster_size: %llu\n", (unsigned long long)q->cluster_size);
	if (is_dirty(node))
		printf("cleanly shut down: no\n");
	if (q->backing_name) {
		char *full = full_backing_name(block_filename(node) ?: name, q->backing_name);

		printf("backing file: %s", q->backing_name);
		if (full && strcmp(full, q->backing_name))
			printf(" (actual path: %s)", full);
		putchar('\n');
		free(full);
	}
	if (q->backing_format)
		printf("backing file format: %s\n", q->backing_format);
	if (!qcow2_snapshot_list(node, &list, &n, NULL)) {
		img_print_snapshots(list, n);
		qcow2_snapshots_free(list, n);
	}
	printf("Format specific information:\n");
	img_info_specific(&(struct img_json){.human = true, .level = 1}, q);
}

static void print_json(struct img_json *j, const char *name, struct block_node *node)
{
	struct qcow2_snapshot *list;
	uint32_t n;
	struct qcow2 *q = qcow2_is_node(node) ? qcow2_of(node) : NULL;

	img_json_open(j, NULL, '{');
	if (q && !qcow2_snapshot_list(node, &list, &n, NULL)) {
		img_json_snapshots(j, list, n);
		qcow2_snapshots_free(list, n);
	}
	img_json_uint(j, "virtual-size", node->length);
	img_json_str(j, "filename", name);
	if (q)
		img_json_uint(j, "cluster-size", q->cluster_size);
	img_json_str(j, "format", img_format_name(node));
	img_json_uint(j, "actual-size", allocated_bytes(node));
	if (q) {
		img_json_open(j, "format-specific", '{');
		img_json_str(j, "type", "qcow2");
		img_json_open(j, "data", '{');
		img_info_specific(j, q);
		img_json_close(j, '}');
		img_json_close(j, '}');
	}
	if (q && q->backing_name) {
		char *full = full_backing_name(block_filename(node) ?: name, q->backing_name);

		img_json_str(j, "full-backing-filename", full ?: q->backing_name);
		img_json_str(j, "backing-filename", q->backing_name);
		free(full);
	}
	if (q && q->backing_format)
		img_json_str(j, "backing-filename-format", q->backing_format);
	img_json_bool(j, "dirty-flag", is_dirty(node));
	img_json_close(j, '}');
}

/* --- the chain ---------------------------------------------------------------------------------- */

struct chain {
	bool json, list;
	struct block_node *nodes[MAX_CHAIN];
	char *names[MAX_CHAIN];
	unsigned int n;
};

static bool in_chain(const struct chain *c, const char *name)
{
	for (unsigned int i = 0; i < c->n; i++)
		if (!strcmp(c->names[i], name))
			return true;
	return false;
}

/* Open the image and, if it is asked for, those below, each by itself, so that one that is missing does not hide the rest. */
static int open_chain(struct img *img, const struct info_args *a, struct chain *c,
		      struct hako_error *err)
{
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
		.no_backing = true,
	};
	char *name = strdup(img->argv[0]), *format = NULL;
	int r = 0;

	while (name && !r) {
		struct block_node *node;
		const struct qcow2 *q;

		if (c->n == MAX_CHAIN || in_chain(c, name)) {
			r = error_set(err, -ELOOP, "Backing file '%s' creates an infinite loop.",
				      name);
			break;
		}
		open.name = name;
		open.format = c->n ? format : a->format;
		r = img_open(img, &open, &node, err);
		if (r)
			break;
		c->nodes[c->n] = node;
		if (open.image_opts && block_filename(node)) {
			free(name);
			name = strdup(block_filename(node));
			if (!name) {
				r = error_errno(err, -ENOMEM, "%s", open.name);
				break;
			}
		}
		c->names[c->n++] = name;
		name = NULL;
		open.image_opts = false;
		q = qcow2_is_node(node) ? qcow2_of(node) : NULL;
		if (!a->chain || !q || !q->backing_name)
			break;
		format = q->backing_format;
		name = full_backing_name(block_filename(node) ?: "", q->backing_name);
	}
	free(name);
	return r;
}

/* In a coroutine: snapshots and bitmaps are read from the image. */
static int print_chain(void *arg)
{
	struct chain *c = arg;
	struct img_json j = {0};

	if (c->json && c->list)
		img_json_open(&j, NULL, '[');
	for (unsigned int i = 0; i < c->n; i++) {
		if (c->json) {
			print_json(&j, c->names[i], c->nodes[i]);
			continue;
		}
		if (i)
			putchar('\n');
		print_human(c->names[i], c->nodes[i]);
	}
	if (c->json && c->list)
		img_json_close(&j, ']');
	return 0;
}

static int run(struct img *img)
{
	const struct info_args *a = img->args;
	struct chain c = {.json = a->output == IMG_JSON, .list = a->chain};
	struct hako_error err;
	int r;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	r = open_chain(img, a, &c, &err);
	r = r ? img_fail(img, &err) : img_run(img, print_chain, &c);
	for (unsigned int i = 0; i < c.n; i++)
		free(c.names[i]);
	return r;
}

const struct img_command img_info = {
	.name = "info",
	.arguments = "FILENAME",
	.help = "what an image is",
	.options = info_options,
	.args_size = sizeof(struct info_args),
	.run = run,
};
