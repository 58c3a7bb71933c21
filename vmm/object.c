/* SPDX-License-Identifier: GPL-2.0-only */
#include "object.h"

#include <stdio.h>
#include <stdlib.h>

#include "vm.h"

static const char *const kind_names[CLASS_KINDS] = {
	[CLASS_MACHINE] = "machine", [CLASS_DEVICE] = "device",	  [CLASS_BLOCKDEV] = "disk node",
	[CLASS_NETDEV] = "network",  [CLASS_CHARDEV] = "chardev", [CLASS_FSDEV] = "fsdev",
	[CLASS_OBJECT] = "object",
};

const struct class *class_find(enum class_kind kind, const char *name)
{
	class_for_each(pos) {
		const struct class *c = *pos;

		if (c->kind == kind &&
		    (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name))))
			return c;
	}
	return NULL;
}

/*
 * The class name that was meant by @name: names, aliases, and what stands before "-pci" or "-device", which the board completes.
 * NULL if there is none near.
 */
static const char *nearest_class(enum class_kind kind, const char *name, char buf[64])
{
	const char *names[256];
	const char *nearest;
	size_t n = 0;

	class_for_each(pos) {
		if ((*pos)->kind != kind || (*pos)->internal || n + 2 >= ARRAY_SIZE(names))
			continue;
		names[n++] = (*pos)->name;
		if ((*pos)->alias)
			names[n++] = (*pos)->alias;
	}
	names[n] = NULL;
	nearest = str_nearest(name, names);
	if (nearest || strlen(name) > 48)
		return nearest;
	snprintf(buf, 64, "%s-pci", name);
	nearest = str_nearest(buf, names);
	if (!nearest)
		return NULL;
	snprintf(buf, 64, "%s", nearest);
	if (strlen(buf) > 4 && !strcmp(buf + strlen(buf) - 4, "-pci"))
		buf[strlen(buf) - 4] = 0;
	return buf;
}

int class_get(enum class_kind kind, const char *name, const struct class **cls,
	      struct hako_error *err)
{
	const char *nearest;
	char buf[64];

	*cls = class_find(kind, name);
	if (*cls && !(*cls)->internal)
		return 0;
	nearest = nearest_class(kind, name, buf);
	if (nearest)
		return error_set(err, -ENODEV, "%s: no such %s (did you mean %s?)", name,
				 kind_names[kind], nearest);
	return error_set(err, -ENODEV, "%s: no such %s", name, kind_names[kind]);
}

struct object *object_find(struct vm *vm, enum class_kind kind, const char *id)
{
	struct object *obj;

	list_for_each(obj, &vm->objects[kind], link)
		if (obj->id && !strcmp(obj->id, id))
			return obj;
	return NULL;
}

uint64_t object_get_uint(const struct object *obj, const char *option)
{
	uint64_t value = 0;

	for (const struct option *o = obj->class->options; o && o->name; o++)
		if (!strcmp(o->name, option) && o->size <= sizeof(value))
			memcpy(&value, (const char *)obj + o->offset, o->size);
	return value;
}

static void object_free(struct object *obj)
{
	options_free(obj->class->bus_options, obj);
	options_free(obj->class->options, obj);
	free(obj->id);
	free(obj);
}

static int object_configure(struct object *obj, struct keyvals *kv, struct hako_error *err)
{
	const struct class *cls = obj->class;
	const struct option *const tables[] = {cls->bus_options, cls->options};
	const char *node_name = kv && cls->kind == CLASS_BLOCKDEV ? keyvals_take(kv, "node-name")
								  : NULL;
	const char *id = kv ? keyvals_take(kv, "id") : NULL;
	struct keyvals none = {0};
	int r;

	r = kv ? options_check_known(tables, ARRAY_SIZE(tables), kv, err) : 0;
	if (r)
		return r;
	if (!id)
		id = node_name;
	if (id) {
		if (object_find(obj->vm, cls->kind, id))
			return error_set(err, -EEXIST, "id=%s: another %s has this name", id,
					 kind_names[cls->kind]);
		obj->id = strdup(id);
		if (!obj->id)
			return error_errno(err, -ENOMEM, "%s", cls->name);
	}
	r = options_defaults(cls->bus_options, obj, err);
	if (!r)
		r = options_defaults(cls->options, obj, err);
	if (!r)
		r = options_apply(cls->bus_options, obj, kv ? kv : &none, false, err);
	if (!r)
		r = options_apply(cls->options, obj, kv ? kv : &none, true, err);
	return r;
}

int object_new(struct vm *vm, const struct class *cls, struct keyvals *kv, struct object **out,
	       struct hako_error *err)
{
	struct object *obj = calloc(1, cls->size);
	int r;

	if (!obj)
		return error_errno(err, -ENOMEM, "%s", cls->name);
	obj->class = cls;
	obj->vm = vm;
	r = object_configure(obj, kv, err);
	if (!r && cls->create)
		r = cls->create(obj, err);
	if (r) {
		object_free(obj);
		error_prefix(err, "%s", cls->name);
		return r;
	}
	list_add_tail(&obj->link, &vm->objects[cls->kind]);
	if (out)
		*out = obj;
	return 0;
}

void object_destroy(struct object *obj)
{
	list_del(&obj->link);
	if (obj->class->destroy)
		obj->class->destroy(obj);
	object_free(obj);
}
