/* SPDX-License-Identifier: GPL-2.0-only */
/* Opening and closing of the images that hako img and hako io work on. */
#include "img_image.h"

#include <stdio.h>
#include <stdlib.h>

#include "vmm/vm.h"

/* --- cache modes -------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	bool direct, no_flush, writethrough;
} cache_modes[] = {
	{"writeback", false, false, false}, {"writethrough", false, false, true},
	{"none", true, false, false},	    {"off", true, false, false},
	{"directsync", true, false, true},  {"unsafe", false, true, false},
};

int image_cache_mode(const char *name, bool *direct, bool *no_flush, bool *writethrough,
		     struct hako_error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(cache_modes); i++) {
		if (strcmp(cache_modes[i].name, name))
			continue;
		*direct = cache_modes[i].direct;
		*no_flush = cache_modes[i].no_flush;
		*writethrough = cache_modes[i].writethrough;
		return 0;
	}
	return error_set(err, -EINVAL, "Invalid cache option: %s", name);
}

/* --- opening ------------------------------------------------------------------------------------ */

static int add_bool(struct keyvals *kv, const char *key)
{
	return keyvals_get(kv, key) ? 0 : keyvals_add(kv, key, "on");
}

static int open_options(const struct image_open *o, struct keyvals *kv, struct hako_error *err)
{
	bool direct = false, no_flush = false, writethrough = false;
	int r;

	if (o->options) {
		r = keyvals_parse(kv, o->options, NULL, err);
		if (r)
			return error_prefix(err, "%s", o->options);
	}
	r = image_cache_mode(o->cache ? o->cache : "writeback", &direct, &no_flush, &writethrough,
			     err);
	if (r)
		return r;
	if (direct)
		r = add_bool(kv, "cache.direct");
	if (!r && no_flush)
		r = add_bool(kv, "cache.no-flush");
	if (!r && !o->write)
		r = add_bool(kv, "read-only");
	if (!r && o->force_share)
		r = add_bool(kv, "force-share");
	if (!r && o->unmap && !keyvals_get(kv, "discard"))
		r = keyvals_add(kv, "discard", "unmap");
	return r ? error_errno(err, r, "options") : 0;
}

static bool class_has_option(const struct class *cls, const char *name)
{
	for (const struct option *o = cls->options; o && o->name; o++)
		if (!strcmp(o->name, name))
			return true;
	return false;
}

/* The class that will be opened, as far as it can be told; NULL if not. */
static const struct class *find_class(const struct image_open *o, const struct keyvals *kv)
{
	const char *name = o->format ? o->format : keyvals_get(kv, "driver");
	const struct class *cls = NULL;
	struct block_node *node;

	if (name)
		return class_find(CLASS_BLOCKDEV, name);
	if (!o->name)
		return NULL;
	struct keyvals as_file = {0};

	if (!keyvals_add(&as_file, "read-only", "on") &&
	    !keyvals_add(&as_file, "force-share", "on") &&
	    !block_open(o->vm, o->name, "file", &as_file, NULL, &node, NULL)) {
		if (block_probe(node, &cls, NULL))
			cls = NULL;
		object_destroy(&node->obj);
	}
	keyvals_free(&as_file);
	return cls;
}

static int check_all_used(const struct keyvals *kv, struct hako_error *err)
{
	for (size_t i = 0; i < kv->n; i++)
		if (!kv->v[i].used && strcmp(kv->v[i].key, "driver"))
			return error_set(err, -EINVAL, "%s: no such option", kv->v[i].key);
	return 0;
}

int image_open(const struct image_open *o, struct block_node **out, struct hako_error *err)
{
	unsigned int use = o->write ? BLOCK_USE_WRITE | BLOCK_USE_RESIZE : 0;
	struct keyvals kv = {0};
	struct block_node *node;
	int r = open_options(o, &kv, err);

	if (!r && o->no_backing) {
		const struct class *cls = find_class(o, &kv);

		if (cls && class_has_option(cls, "backing") && keyvals_add(&kv, "backing", ""))
			r = error_errno(err, -ENOMEM, "options");
	}
	if (!r)
		r = block_open(o->vm, o->name, o->format, &kv, NULL, &node, err);
	if (!r) {
		r = check_all_used(&kv, err);
		if (!r)
			r = block_use_node(node, o->vm, use, err);
		if (r)
			object_destroy(&node->obj);
	}
	keyvals_free(&kv);
	if (r)
		return r;
	r = block_attach(node, o->vm->io_loop, err);
	if (r)
		block_unuse(node, o->vm);
	else
		*out = node;
	return r;
}

int image_set_writable(struct vm *vm, struct block_node *node, bool write, struct hako_error *err)
{
	int r = 0;

	if (write)
		r = block_reopen(node, false, err);
	if (!r)
		r = block_use_node(node, vm, write ? BLOCK_USE_WRITE | BLOCK_USE_RESIZE : 0, err);
	if (!r && !write)
		r = block_reopen(node, true, err);
	return r;
}

void image_close(struct vm *vm, struct block_node *node)
{
	block_detach(node, vm->io_loop);
	block_unuse(node, vm);
}

/* --- hako img's ------------------------------------------------------------------------------- */

static int need_vm(struct img *img, struct hako_error *err)
{
	int r = img->vm ? 0 : vm_new_plain(&img->vm, 0, err);

	if (!r)
		img->loop = img->vm->io_loop;
	return r;
}

int img_open(struct img *img, const struct img_open *open, struct block_node **node,
	     struct hako_error *err)
{
	int r = need_vm(img, err);
	struct image_open o = {
		.vm = img->vm,
		.name = open->image_opts ? NULL : open->name,
		.options = open->image_opts ? open->name : NULL,
		.format = open->format,
		.cache = open->cache,
		.write = open->write,
		.force_share = open->force_share,
		.no_backing = open->no_backing,
		.unmap = open->write,
	};

	if (r)
		return r;
	if (img->nopen == IMG_MAX_OPEN)
		return error_set(err, -EMFILE, "more than %d images", IMG_MAX_OPEN);
	r = image_open(&o, node, err);
	if (r) {
		error_prefix(err, "Could not open '%s'", open->name);
		return r;
	}
	img->open[img->nopen++] = *node;
	return 0;
}

/* Of "driver=qcow2,file.filename=x" what is the file's: "filename=x". */
static char *file_options(const char *options, struct hako_error *err)
{
	struct keyvals kv = {0};
	char *text = NULL, *more;

	if (keyvals_parse(&kv, options, NULL, err)) {
		keyvals_free(&kv);
		return NULL;
	}
	for (size_t i = 0; i < kv.n; i++) {
		if (strncmp(kv.v[i].key, "file.", 5))
			continue;
		more = str_printf("%s%s%s=%s", text ? text : "", text ? "," : "", kv.v[i].key + 5,
				  kv.v[i].value);
		free(text);
		text = more;
	}
	keyvals_free(&kv);
	if (!text)
		error_set(err, -EINVAL, "%s: file.filename=… is missing", options);
	return text;
}

int img_open_file(struct img *img, const struct img_open *open, struct block_node **file,
		  const char **format, struct hako_error *err)
{
	const struct class *cls = open->format ? class_find(CLASS_BLOCKDEV, open->format) : NULL;
	struct img_open below = *open;
	char *options = NULL;
	int r;

	if (open->format && !cls)
		return error_set(err, -EINVAL, "Could not open '%s': Unknown driver '%s'",
				 open->name, open->format);
	below.format = open->image_opts ? NULL : "file";
	if (open->image_opts) {
		below.name = options = file_options(open->name, err);
		if (!options)
			return -EINVAL;
	}
	r = img_open(img, &below, file, err);
	free(options);
	if (!r && !cls) {
		r = block_probe(*file, &cls, err);
		if (r)
			error_prefix(err, "Could not open '%s'", open->name);
	}
	if (!r)
		*format = cls->name;
	return r;
}

void img_close(struct img *img, struct block_node *node)
{
	for (unsigned int i = 0; i < img->nopen; i++) {
		if (img->open[i] != node)
			continue;
		img->open[i] = img->open[--img->nopen];
		image_close(img->vm, node);
		return;
	}
}

void img_close_all(struct img *img)
{
	while (img->nopen)
		img_close(img, img->open[img->nopen - 1]);
	if (img->vm)
		vm_free_plain(img->vm);
	img->vm = NULL;
}

int img_run(struct img *img, int (*fn)(void *arg), void *arg)
{
	return co_run(img->loop, fn, arg);
}

const char *img_format_name(const struct block_node *node)
{
	const char *name = node->obj.class->name;

	/* A file as it is: one node does for QEMU's two. */
	return strcmp(name, "file") ? name : "raw";
}
