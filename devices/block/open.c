/* SPDX-License-Identifier: GPL-2.0-only */
/* From a name and some options to an image's nodes, and what format an image has. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "block_co.h"
#include "vmm/vm.h"

/* --- formats ----------------------------------------------------------------------------------- */

/* Images that are something, but nothing that a node here can read. */
static const struct {
	const char *name;
	unsigned int offset, len;
	const char *magic;
} foreign[] = {
	{"QCOW version 1", 0, 8, "QFI\xfb\0\0\0\1"},
	{"QED", 0, 4, "QED"},
	{"VMDK", 0, 4, "KDMV"},
	{"VMDK", 0, 4, "COWD"},
	{"VMDK", 0, 21, "# Disk DescriptorFile"},
	{"VHDX", 0, 8, "vhdxfile"},
	{"VHD (vpc)", 0, 8, "conectix"},
	{"VDI", 64, 4, "\x7f\x10\xda\xbe"},
	{"LUKS", 0, 6, "LUKS\xba\xbe"},
	{"Parallels", 0, 16, "WithoutFreeSpace"},
	{"Parallels", 0, 16, "WithouFreSpacExt"},
	{"Bochs", 0, 22, "Bochs Virtual HD Image"},
};

static const struct class *probe_classes(const uint8_t *buf, size_t len)
{
	const struct class *best = class_find(CLASS_BLOCKDEV, "raw");
	int best_score = 0;

	class_for_each(pos) {
		const struct block_class *c = (*pos)->ops;
		int score = (*pos)->kind == CLASS_BLOCKDEV && c && c->probe ? c->probe(buf, len)
									    : 0;

		if (score > best_score) {
			best_score = score;
			best = *pos;
		}
	}
	return best;
}

static const char *foreign_format(const uint8_t *buf, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
		if (foreign[i].offset + foreign[i].len <= len &&
		    !memcmp(buf + foreign[i].offset, foreign[i].magic, foreign[i].len))
			return foreign[i].name;
	return NULL;
}

bool block_looks_raw(const uint8_t *buf, size_t len)
{
	return !foreign_format(buf, len) && !strcmp(probe_classes(buf, len)->name, "raw");
}

int block_probe(struct block_node *node, const struct class **format, struct hako_error *err)
{
	size_t len = MIN(READ_ONCE(node->length), (uint64_t)BLOCK_PROBE_BYTES);
	uint8_t buf[BLOCK_PROBE_BYTES];
	const char *name;
	int ret = block_pread(node, 0, buf, len);

	if (ret < 0)
		return error_errno(err, ret, "reading the first sector, to know the format");
	*format = probe_classes(buf, len);
	name = strcmp((*format)->name, "raw") ? NULL : foreign_format(buf, len);
	if (!name)
		return 0;
	error_set(err, -ENOTSUP, "%s images can not be used", name);
	error_hint(err, "format=raw takes the file as it is");
	return -ENOTSUP;
}

/* --- names ------------------------------------------------------------------------------------- */

/* As QEMU: letters and a colon before the first slash. The protocol's length, 0: a plain name. */
static size_t protocol_of(const char *name)
{
	size_t n = strcspn(name, ":/");

	return name[n] == ':' ? n : 0;
}

char *block_path_combine(const char *base, const char *name)
{
	const char *slash = base ? strrchr(base, '/') : NULL;

	if (*name == '/' || protocol_of(name) || !slash)
		return strdup(name);
	return str_printf("%.*s/%s", (int)(slash - base), base, name);
}

/* --- opening ----------------------------------------------------------------------------------- */

/* What an image is opened with, made of its name and its options. */
struct opening {
	struct vm *vm;
	struct keyvals kv;
	const char *driver; /* or NULL */
	const struct class *class;
	bool probed;
};

static bool starts_with(const char *text, const char *prefix)
{
	return !strncmp(text, prefix, strlen(prefix));
}

/* Put all of @from that nobody has taken into @o, to be given back by mark_taken(). */
static int collect(struct opening *o, const struct keyvals *from)
{
	for (size_t i = 0; from && i < from->n; i++) {
		const struct keyval *v = &from->v[i];

		if (v->used)
			continue;
		if (keyvals_add(&o->kv, v->key, v->value))
			return -ENOMEM;
		o->kv.v[o->kv.n - 1].null = v->null;
	}
	return 0;
}

/* Without a driver "filename" names the file of a node whose format is to be guessed. */
static int name_file(struct opening *o)
{
	for (size_t i = 0; i < o->kv.n; i++) {
		char *key;

		if (strcmp(o->kv.v[i].key, "filename"))
			continue;
		key = strdup("file.filename");
		if (!key)
			return -ENOMEM;
		free(o->kv.v[i].key);
		o->kv.v[i].key = key;
	}
	return 0;
}

static int parse_name(struct opening *o, const char *filename, struct hako_error *err)
{
	size_t protocol = protocol_of(filename);

	if (starts_with(filename, "json:"))
		return keyvals_parse_json(&o->kv, filename + 5, err);
	if (starts_with(filename, "file:"))
		filename += 5;
	else if (protocol)
		return error_set(err, -EINVAL,
				 "%s: no such protocol: %.*s (./ in front makes it a file's name)",
				 filename, (int)protocol, filename);
	if (!*filename)
		return error_set(err, -EINVAL, "the file's name is empty");
	return keyvals_add(&o->kv, "file.filename", filename) ? error_errno(err, -ENOMEM, "options")
							      : 0;
}

/* All "file.KEY" of @o as "KEY" to @to. */
static int file_keyvals(const struct opening *o, struct keyvals *to)
{
	for (size_t i = 0; i < o->kv.n; i++)
		if (starts_with(o->kv.v[i].key, "file.") &&
		    keyvals_add(to, o->kv.v[i].key + 5, o->kv.v[i].value))
			return -ENOMEM;
	return 0;
}

/* Open the file by itself, for a look at its first sector. */
static int probe_made(struct opening *o, struct hako_error *err)
{
	struct keyvals kv = {0};
	struct block_node *node;
	int ret = file_keyvals(o, &kv);

	if (ret == 0 && !kv.n)
		ret = error_set(err, -EINVAL, "neither a file's name nor a driver is given");
	else if (ret < 0 || (ret = keyvals_add(&kv, "read-only", "on")) < 0)
		error_errno(err, ret, "options");
	if (ret == 0)
		ret = block_open(o->vm, NULL, keyvals_get(&kv, "driver") ? NULL : "file", &kv, NULL,
				 &node, err);
	if (ret == 0) {
		ret = block_probe(node, &o->class, err);
		if (ret < 0 && block_filename(node))
			error_prefix(err, "%s", block_filename(node));
		object_destroy(&node->obj);
	}
	keyvals_free(&kv);
	return ret;
}

static int find_class(struct opening *o, struct hako_error *err)
{
	const char *id = keyvals_get(&o->kv, "file");
	struct object *obj;
	int ret;

	if (o->driver)
		return class_get(CLASS_BLOCKDEV, o->driver, &o->class, err);
	o->probed = true;
	if (!id)
		return probe_made(o, err);
	obj = object_find(o->vm, CLASS_BLOCKDEV, id);
	if (!obj)
		return error_set(err, -ENOENT, "file=%s: there is no such disk node", id);
	ret = block_probe(container_of(obj, struct block_node, obj), &o->class, err);
	return ret < 0 ? (error_prefix(err, "file=%s", id), ret) : 0;
}

/* An image file as it is needs no node of its own above the file's. */
static void choose_fast_path(struct opening *o)
{
	const char *driver = keyvals_get(&o->kv, "file.driver");

	if (strcmp(o->class->name, "raw") || keyvals_get(&o->kv, "file") ||
	    keyvals_get(&o->kv, "offset") || keyvals_get(&o->kv, "size"))
		return;
	if (!driver || !strcmp(driver, "file") || !strcmp(driver, "host_device"))
		o->class = class_find(CLASS_BLOCKDEV, driver ? driver : "file");
}

static bool is_known(const struct class *cls, const char *key)
{
	return option_find(cls->options, key) || option_find(cls->bus_options, key);
}

/* The name under which @o's node takes the option @key; NULL: it does not. @buf may be used. */
static const char *key_for(const struct opening *o, const char *key, char *buf, size_t size)
{
	if (is_known(o->class, key))
		return key;
	if (starts_with(key, "file.") && is_known(o->class, key + 5))
		return key + 5;
	if (option_find(o->class->options, "file") &&
	    option_find(class_find(CLASS_BLOCKDEV, "file")->options, key)) {
		snprintf(buf, size, "file.%s", key);
		return buf;
	}
	return NULL;
}

static int make_node(struct opening *o, const char *id, struct block_node **out,
		     struct hako_error *err)
{
	struct keyvals kv = {0};
	struct object *obj;
	char buf[64];
	int ret;

	if (id)
		snprintf(buf, sizeof(buf), "%s", id);
	else
		snprintf(buf, sizeof(buf), "#block%u", o->vm->block_ids++);
	ret = keyvals_add(&kv, "id", buf);
	for (size_t i = 0; i < o->kv.n && ret == 0; i++) {
		const char *key = key_for(o, o->kv.v[i].key, buf, sizeof(buf));

		if (!key)
			continue;
		ret = keyvals_add(&kv, key, o->kv.v[i].value);
		if (ret == 0)
			kv.v[kv.n - 1].null = o->kv.v[i].null;
	}
	if (ret < 0)
		error_errno(err, ret, "options");
	else
		ret = object_new(o->vm, o->class, &kv, &obj, err);
	keyvals_free(&kv);
	if (ret < 0)
		return ret;
	*out = container_of(obj, struct block_node, obj);
	(*out)->implicit = true;
	(*out)->probed = o->probed && !o->class->ops; /* file or raw */
	(*out)->check_writes |= (*out)->probed;
	return 0;
}

static void mark_taken(const struct opening *o, struct keyvals *options)
{
	char buf[64];

	for (size_t i = 0; options && i < options->n; i++)
		if (!strcmp(options->v[i].key, "driver") ||
		    !strcmp(options->v[i].key, "file.driver") ||
		    key_for(o, options->v[i].key, buf, sizeof(buf)))
			options->v[i].used = true;
}

/* throttling.…, as with QEMU's -drive: a throttle on top of *@node, which takes over its place. */
static int add_throttle(struct vm *vm, struct keyvals *options, const char *id,
			struct block_node **node, struct hako_error *err)
{
	struct opening o = {.vm = vm, .class = class_find(CLASS_BLOCKDEV, "throttle")};
	struct block_node *below = *node;
	int ret = keyvals_add(&o.kv, "file", below->obj.id);

	for (size_t i = 0; i < options->n && ret == 0; i++) {
		if (!starts_with(options->v[i].key, "throttling.") ||
		    !is_known(o.class, options->v[i].key))
			continue;
		options->v[i].used = true;
		ret = keyvals_add(&o.kv, options->v[i].key, options->v[i].value);
	}
	if (ret == 0 && below->read_only)
		ret = keyvals_add(&o.kv, "read-only", "on");
	if (ret == 0 && below->can_discard)
		ret = keyvals_add(&o.kv, "discard", "unmap");
	if (ret < 0)
		error_errno(err, ret, "options");
	else
		ret = make_node(&o, id, node, err);
	keyvals_free(&o.kv);
	if (ret < 0)
		object_destroy(&below->obj);
	return ret;
}

static bool is_throttled(const struct keyvals *options)
{
	for (size_t i = 0; options && i < options->n; i++)
		if (!options->v[i].used && starts_with(options->v[i].key, "throttling."))
			return true;
	return false;
}

int block_open(struct vm *vm, const char *filename, const char *format, struct keyvals *options,
	       const char *id, struct block_node **node, struct hako_error *err)
{
	struct opening o = {.vm = vm};
	const char *name = options ? keyvals_take(options, "node-name") : NULL;
	bool throttled = false;
	int ret = filename ? parse_name(&o, filename, err) : 0;

	if (ret == 0 && (ret = collect(&o, options)) < 0)
		error_errno(err, ret, "options");
	o.driver = format ? format : keyvals_get(&o.kv, "driver");
	if (ret == 0 && !o.driver && (ret = name_file(&o)) < 0)
		error_errno(err, ret, "options");
	if (ret == 0)
		ret = find_class(&o, err);
	if (ret == 0) {
		choose_fast_path(&o);
		throttled = strcmp(o.class->name, "throttle") && is_throttled(options);
		id = name ? name : id;
		ret = make_node(&o, throttled ? NULL : id, node, err);
	}
	if (ret == 0)
		mark_taken(&o, options);
	keyvals_free(&o.kv);
	if (ret == 0 && throttled)
		ret = add_throttle(vm, options, id, node, err);
	return ret;
}
