/* SPDX-License-Identifier: GPL-2.0-only */
/* How disk nodes stand on each other: who uses whom for what, and what is passed down. */
#include <stdlib.h>

#include "block_co.h"
#include "vmm/vm.h"

static const char *const discard_names[] = {"ignore", "unmap", "off", "on", NULL};
static const char *const detect_names[] = {"off", "on", "unmap", NULL};

#define T struct block_node
const struct option block_node_options[] = {
	OPT_BOOL("read-only", T, opts.read_only, "off", "open for reading only"),
	OPT_BOOL("auto-read-only", T, opts.auto_read_only, "off",
		 "open for reading only if writing is refused"),
	OPT_BOOL("cache.direct", T, opts.direct, "off", "go past the host's page cache (O_DIRECT)"),
	OPT_BOOL("cache.no-flush", T, opts.no_flush, "off",
		 "ignore the guest's flushes: fast, unsafe"),
	OPT_ENUM("discard", T, opts.discard, "ignore", discard_names,
		 "what to do with the guest's discards; off is ignore, on is unmap"),
	OPT_ENUM("detect-zeroes", T, opts.detect_zeroes, "off", detect_names,
		 "make writes of zeroes cheap; unmap: free the space, with discard=unmap"),
	OPT_BOOL("force-share", T, opts.force_share, "off",
		 "with read-only=on: read even if others write"),
	OPT_END,
};
#undef T

static const struct block_class *class_of(const struct block_node *node)
{
	static const struct block_class filter = {0};

	return node->obj.class->ops ? node->obj.class->ops : &filter;
}

static const char *name_of(const struct block_node *node)
{
	return node->obj.id ? node->obj.id : node->obj.class->name;
}

int block_node_init(struct block_node *node, const struct block_ops *ops, struct hako_error *err)
{
	node->ops = ops;
	node->opts.discard &= BLOCK_DISCARD_UNMAP;
	node->read_only = node->opts.read_only;
	node->check_writes = node->opts.detect_zeroes != BLOCK_DETECT_OFF;
	node->request_align = node->logical_block_size = node->physical_block_size = 512;
	node->memory_align = 1;
	node->max_discard_bytes =
		1u << 30; /* larger ones are split by the guest; the kernel takes any size */
	node->opener = node->obj.vm->block_opening;
	if (node->opts.force_share && !node->opts.read_only)
		return error_set(err, -EINVAL, "force-share=on needs read-only=on");
	return 0;
}

void block_node_free(struct block_node *node)
{
	struct block_node **const below[] = {&node->backing, &node->data, &node->file};

	for (size_t i = 0; i < ARRAY_SIZE(below); i++) {
		if (*below[i])
			block_unuse(*below[i], node);
		*below[i] = NULL;
	}
	free(node->users);
	node->users = NULL;
	node->nusers = 0;
}

void block_take_limits(struct block_node *node, const struct block_node *below)
{
	node->request_align = below->request_align;
	node->memory_align = below->memory_align;
	node->logical_block_size = below->logical_block_size;
	node->physical_block_size = below->physical_block_size;
	node->max_discard_bytes = below->max_discard_bytes;
	node->read_only |= below->read_only;
	node->can_discard = !node->read_only && node->opts.discard == BLOCK_DISCARD_UNMAP;
	node->can_write_zeroes = !node->read_only;
	node->writeback = !node->read_only;
}

void block_set_length(struct block_node *node, uint64_t length)
{
	WRITE_ONCE(node->length, length);
	for (unsigned int i = 0; i < node->nusers; i++) {
		struct block_node *above = (void *)node->users[i].user;

		if (node->users[i].is_node && above->file == node && above->ops->follow)
			above->ops->follow(above);
		if (node->users[i].resized)
			node->users[i].resized(node->users[i].user);
	}
}

const char *block_filename(const struct block_node *node)
{
	while (node && !node->filename)
		node = node->file;
	return node ? node->filename : NULL;
}

/* --- users ------------------------------------------------------------------------------------- */

static struct block_user *find_user(struct block_node *node, const void *user)
{
	for (unsigned int i = 0; i < node->nusers; i++)
		if (node->users[i].user == user)
			return &node->users[i];
	return NULL;
}

static struct block_user *add_user(struct block_node *node, const void *user)
{
	struct block_user *users = realloc(node->users, (node->nusers + 1) * sizeof(*users));

	if (!users)
		return NULL;
	node->users = users;
	users[node->nusers] = (struct block_user){.user = user, .idle = true};
	return &users[node->nusers++];
}

static void remove_user(struct block_node *node, const struct block_user *u)
{
	size_t i = u - node->users;

	memmove(&node->users[i], &node->users[i + 1], (--node->nusers - i) * sizeof(*node->users));
}

/* What all users together do and allow. False: none does anything. */
static bool combined_use(const struct block_node *node, unsigned int *use)
{
	bool any = false;

	*use = BLOCK_USE_SHARE_WRITE;
	for (unsigned int i = 0; i < node->nusers; i++) {
		const struct block_user *u = &node->users[i];

		if (u->idle)
			continue;
		any = true;
		*use |= u->use & (BLOCK_USE_WRITE | BLOCK_USE_RESIZE);
		if (!(u->use & BLOCK_USE_SHARE_WRITE))
			*use &= ~BLOCK_USE_SHARE_WRITE;
	}
	return any;
}

static bool in_conflict(unsigned int a, unsigned int b)
{
	const unsigned int writes = BLOCK_USE_WRITE | BLOCK_USE_RESIZE;

	return ((a & writes) && !(b & BLOCK_USE_SHARE_WRITE)) ||
	       ((b & writes) && !(a & BLOCK_USE_SHARE_WRITE));
}

static int update(struct block_node *node, struct hako_error *err);

/* Change what @node does with @below, where it is a user already. */
static int change_use(struct block_node *below, const void *user, unsigned int use, bool idle,
		      struct hako_error *err)
{
	struct block_user *u = find_user(below, user), old = *u;
	int ret = 0;

	if (u->idle == idle && (idle || u->use == use))
		return 0;
	for (unsigned int i = 0; i < below->nusers && !idle; i++) {
		const struct block_user *other = &below->users[i];

		if (other != u && !other->idle && in_conflict(use, other->use))
			return error_set(err, -EBUSY, "disk node '%s' is in use already",
					 name_of(below));
	}
	if (!idle && (use & BLOCK_USE_WRITE) && below->read_only)
		return error_set(err, -EROFS, "disk node '%s' is read-only", name_of(below));
	u->use = use;
	u->idle = idle;
	ret = update(below, err);
	if (ret < 0) {
		*find_user(below, user) = old;
		update(below, NULL);
	}
	return ret;
}

/* Pass on to what is below how @node is used. A format says itself what it does with its backing node. */
static int update_below(struct block_node *node, bool used, unsigned int use,
			struct hako_error *err)
{
	struct block_node *const below[] = {node->file, node->data};
	bool idle = !used;
	int ret = 0;

	if (class_of(node)->is_format) {
		use = used && (use & BLOCK_USE_WRITE) ? BLOCK_USE_WRITE | BLOCK_USE_RESIZE : 0;
		idle = false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(below) && ret == 0; i++)
		if (below[i])
			ret = change_use(below[i], node, use, idle, err);
	return ret;
}

/* The users have changed. */
static int update(struct block_node *node, struct hako_error *err)
{
	unsigned int use;
	bool used = combined_use(node, &use);
	int ret = 0;

	if (used && (!node->in_use || (use & BLOCK_USE_WRITE)))
		ret = update_below(node, used, use, err);
	if (ret == 0 && used && node->ops->use)
		ret = node->ops->use(node, use, err);
	if (ret == 0 && !used && node->in_use && node->ops->unuse)
		node->ops->unuse(node);
	if (ret == 0) {
		node->in_use = used;
		ret = update_below(node, used, use, err);
	}
	return ret;
}

int block_use_node(struct block_node *node, const void *user, unsigned int use,
		   struct hako_error *err)
{
	struct block_user *u = find_user(node, user);
	bool is_new = !u;
	int ret;

	if (is_new)
		u = add_user(node, user);
	if (!u)
		return error_errno(err, -ENOMEM, "disk node '%s'", name_of(node));
	ret = change_use(node, user, use, false, err);
	if (ret < 0 && is_new)
		remove_user(node, find_user(node, user));
	return ret;
}

int block_use(struct vm *vm, const char *id, const void *user, unsigned int use,
	      struct block_node **out, struct hako_error *err)
{
	struct object *obj = object_find(vm, CLASS_BLOCKDEV, id);
	int ret;

	if (!obj)
		return error_set(err, -ENOENT, "there is no disk node '%s'", id);
	ret = block_use_node(container_of(obj, struct block_node, obj), user, use, err);
	if (ret == 0)
		*out = container_of(obj, struct block_node, obj);
	return ret;
}

void block_unuse(struct block_node *node, const void *user)
{
	struct block_user *u = find_user(node, user);

	if (!u)
		return;
	remove_user(node, u);
	update(node, NULL);
	if (node->implicit && !node->nusers)
		object_destroy(&node->obj);
}

void block_on_resize(struct block_node *node, const void *user, void (*resized)(const void *user))
{
	find_user(node, user)->resized = resized;
}

struct resizing {
	struct block_node *node;
	uint64_t length;
	struct hako_error *err;
};

static int resize_co(void *arg)
{
	struct resizing *r = arg;

	return block_resize(r->node, r->length, BLOCK_PREALLOC_OFF, r->err);
}

int block_resize_live(struct vm *vm, const char *id, uint64_t length, struct hako_error *err)
{
	struct object *obj = object_find(vm, CLASS_BLOCKDEV, id);
	struct resizing r = {.length = length, .err = err};
	int ret;

	if (!obj)
		return error_set(err, -ENOENT, "there is no disk node '%s'", id);
	r.node = container_of(obj, struct block_node, obj);
	if (r.node->read_only)
		return error_set(err, -EROFS, "disk node '%s' is read-only", id);
	if (!length || length % 512)
		return error_set(err, -EINVAL, "%llu bytes are not a whole number of sectors",
				 (unsigned long long)length);
	/* Where the node's other work is done; and so that it may wait for that. */
	ret = r.node->home ? co_run(r.node->home, resize_co, &r) : resize_co(&r);
	return ret < 0 ? (error_prefix(err, "disk node '%s'", id), ret) : 0;
}

/* --- loops ------------------------------------------------------------------------------------- */

int block_attach(struct block_node *node, struct loop *loop, struct hako_error *err)
{
	struct block_node *const below[] = {node->file, node->data, node->backing};
	size_t n = 0;
	int ret = 0;

	for (; n < ARRAY_SIZE(below) && ret == 0; n++)
		if (below[n])
			ret = block_attach(below[n], loop, err);
	if (ret == 0 && node->ops->attach)
		ret = node->ops->attach(node, loop, err);
	else if (ret < 0)
		n--; /* that one is not attached */
	if (ret == 0 && !node->nattached++)
		node->home = loop;
	while (ret < 0 && n-- > 0)
		if (below[n])
			block_detach(below[n], loop);
	return ret;
}

void block_detach(struct block_node *node, struct loop *loop)
{
	struct block_node *const below[] = {node->file, node->data, node->backing};

	if (node->ops->detach)
		node->ops->detach(node, loop);
	if (!--node->nattached)
		node->home = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		if (below[i])
			block_detach(below[i], loop);
}

void block_hurry(struct block_node *node, struct loop *loop)
{
	struct block_node *const below[] = {node->file, node->data, node->backing};

	if (node->ops->hurry)
		node->ops->hurry(node, loop);
	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		if (below[i])
			block_hurry(below[i], loop);
}

/* --- for reading or writing -------------------------------------------------------------------- */

static int reopen_one(struct block_node *node, bool read_only, struct hako_error *err)
{
	int ret = 0;

	node->read_only = read_only;
	if (node->ops->reopen)
		ret = node->ops->reopen(node, read_only, err);
	if (ret < 0)
		node->read_only = !read_only;
	else
		node->can_write_zeroes = node->writeback = !read_only;
	return ret;
}

int block_reopen(struct block_node *node, bool read_only, struct hako_error *err)
{
	struct block_node *const below[] = {node->file, node->data};
	bool changed[ARRAY_SIZE(below)] = {0};
	unsigned int use;
	int ret = 0;

	if (node->read_only == read_only)
		return 0;
	if (read_only && combined_use(node, &use) && (use & BLOCK_USE_WRITE))
		return error_set(err, -EBUSY, "disk node '%s' is used for writing", name_of(node));
	for (size_t i = 0; i < ARRAY_SIZE(below) && ret == 0; i++) {
		if (!below[i] || below[i]->read_only == read_only)
			continue;
		ret = block_reopen(below[i], read_only, err);
		changed[i] = ret == 0;
	}
	if (ret == 0)
		ret = reopen_one(node, read_only, err);
	for (size_t i = 0; i < ARRAY_SIZE(below) && ret < 0; i++)
		if (changed[i])
			block_reopen(below[i], !read_only, NULL);
	return ret;
}

/* --- making what is below ---------------------------------------------------------------------- */

static int adopt(struct block_node *node, const char *name, struct block_node *child,
		 enum block_role role, struct block_node **place, struct hako_error *err)
{
	int ret = 0;

	if (find_user(child, node))
		return error_set(err, -EINVAL, "%s: node '%s' is below this one already", name,
				 name_of(child));
	if (!add_user(child, node))
		return error_errno(err, -ENOMEM, "%s", name);
	find_user(child, node)->is_node = true;
	if (role != BLOCK_ROLE_FILTER)
		ret = change_use(child, node, 0, false, err);
	if (ret < 0) {
		block_unuse(child, node);
		return error_prefix(err, "%s", name), ret;
	}
	*place = child;
	return 0;
}

static int add_default(struct keyvals *kv, const char *key, const char *value)
{
	return keyvals_get(kv, key) ? 0 : keyvals_add(kv, key, value);
}

static const char *on_off(bool on)
{
	return on ? "on" : "off";
}

/* As QEMU has it: what a node that is made for another inherits. */
static int inherit(struct keyvals *kv, const struct block_options *from, enum block_role role)
{
	bool backing = role == BLOCK_ROLE_BACKING;
	int ret = add_default(kv, "cache.direct", on_off(from->direct));

	if (ret == 0)
		ret = add_default(kv, "cache.no-flush", on_off(from->no_flush));
	if (ret == 0)
		ret = add_default(kv, "force-share", on_off(from->force_share));
	if (ret == 0)
		ret = add_default(kv, "read-only", on_off(backing || from->read_only));
	if (ret == 0 && !backing)
		ret = add_default(kv, "auto-read-only", on_off(from->auto_read_only));
	if (ret == 0 && !backing)
		ret = add_default(kv, "discard",
				  role == BLOCK_ROLE_FILE ? "unmap" : discard_names[from->discard]);
	return ret;
}

static int check_taken(const struct keyvals *kv, const struct block_node *child,
		       struct hako_error *err)
{
	const struct option *const tables[] = {child->obj.class->options, block_node_options};

	return options_check_known(tables, ARRAY_SIZE(tables), kv, err);
}

static int open_made(struct block_node *node, const char *name, struct keyvals *kv,
		     enum block_role role, const char *filename, const char *format,
		     struct block_node **place, struct hako_error *err)
{
	struct vm *vm = node->obj.vm;
	struct block_node *opener = vm->block_opening, *child;
	int ret = inherit(kv, &node->opts, role);

	if (ret < 0)
		return error_errno(err, ret, "%s", name);
	if (role == BLOCK_ROLE_FILE && !format && !keyvals_get(kv, "driver"))
		format = "file";
	vm->block_opening = node;
	ret = block_open(vm, filename, format, kv, NULL, &child, err);
	vm->block_opening = opener;
	if (ret == 0)
		ret = check_taken(kv, child, err);
	else
		child = NULL;
	if (ret < 0) {
		if (child)
			object_destroy(&child->obj);
		return error_prefix(err, "%s", name), ret;
	}
	return adopt(node, name, child, role, place, err);
}

static int copy_keyvals(struct keyvals *to, const struct keyvals *from)
{
	int ret = 0;

	for (size_t i = 0; i < from->n && ret == 0; i++)
		ret = keyvals_add(to, from->v[i].key, from->v[i].value);
	return ret;
}

int block_open_named_child(struct block_node *node, const char *name,
			   const struct option_tree *tree, enum block_role role,
			   const char *filename, const char *format, struct block_node **place,
			   struct hako_error *err)
{
	struct keyvals kv = {0};
	struct object *obj;
	char *path;
	int ret;

	if (tree && tree->id && *tree->id) {
		obj = object_find(node->obj.vm, CLASS_BLOCKDEV, tree->id);
		if (!obj)
			return error_set(err, -ENOENT, "%s=%s: there is no such disk node", name,
					 tree->id);
		return adopt(node, name, container_of(obj, struct block_node, obj), role, place,
			     err);
	}
	if ((tree && tree->id) || (!filename && (!tree || !tree->kv.n)))
		return role == BLOCK_ROLE_BACKING
			       ? 0
			       : error_set(err, -EINVAL, "%s=… is missing", name);
	ret = tree ? copy_keyvals(&kv, &tree->kv) : 0;
	if (ret < 0)
		error_errno(err, ret, "%s", name);
	else if (keyvals_get(&kv, "driver") || keyvals_get(&kv, "filename") ||
		 keyvals_get(&kv, "file.filename") || keyvals_get(&kv, "file"))
		ret = open_made(node, name, &kv, role, NULL, NULL, place, err);
	else if (!filename || role != BLOCK_ROLE_BACKING)
		ret = open_made(node, name, &kv, role, filename, format, place, err);
	else if ((path = block_path_combine(block_filename(node), filename)) != NULL) {
		ret = open_made(node, name, &kv, role, path, format, place, err);
		free(path);
	} else {
		ret = error_errno(err, -ENOMEM, "%s", name);
	}
	keyvals_free(&kv);
	return ret;
}

int block_open_child(struct block_node *node, const char *name, const struct option_tree *tree,
		     enum block_role role, struct block_node **place, struct hako_error *err)
{
	return block_open_named_child(node, name, tree, role, NULL, NULL, place, err);
}
