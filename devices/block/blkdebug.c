/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * "blkdebug": a filter that injects errors and delays, for tests. Rules become active by events, which formats report of what they are about
 * to do (block_event()); those of event "none" are active from the start. An event that has rules replaces the active ones.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "block_co.h"
#include "vmm/vm.h"

static const char *const event_names[] = {
	[BLOCK_EVENT_NONE] = "none",
	[BLOCK_EVENT_L1_UPDATE] = "l1_update",
	[BLOCK_EVENT_L1_GROW_ALLOC_TABLE] = "l1_grow_alloc_table",
	[BLOCK_EVENT_L1_GROW_WRITE_TABLE] = "l1_grow_write_table",
	[BLOCK_EVENT_L1_GROW_ACTIVATE_TABLE] = "l1_grow_activate_table",
	[BLOCK_EVENT_L1_SHRINK_WRITE_TABLE] = "l1_shrink_write_table",
	[BLOCK_EVENT_L1_SHRINK_FREE_L2_CLUSTERS] = "l1_shrink_free_l2_clusters",
	[BLOCK_EVENT_L2_LOAD] = "l2_load",
	[BLOCK_EVENT_L2_UPDATE] = "l2_update",
	[BLOCK_EVENT_L2_UPDATE_COMPRESSED] = "l2_update_compressed",
	[BLOCK_EVENT_L2_ALLOC_COW_READ] = "l2_alloc_cow_read",
	[BLOCK_EVENT_L2_ALLOC_WRITE] = "l2_alloc_write",
	[BLOCK_EVENT_READ_AIO] = "read_aio",
	[BLOCK_EVENT_READ_BACKING_AIO] = "read_backing_aio",
	[BLOCK_EVENT_READ_COMPRESSED] = "read_compressed",
	[BLOCK_EVENT_WRITE_AIO] = "write_aio",
	[BLOCK_EVENT_WRITE_COMPRESSED] = "write_compressed",
	[BLOCK_EVENT_COW_READ] = "cow_read",
	[BLOCK_EVENT_COW_WRITE] = "cow_write",
	[BLOCK_EVENT_REFTABLE_LOAD] = "reftable_load",
	[BLOCK_EVENT_REFTABLE_GROW] = "reftable_grow",
	[BLOCK_EVENT_REFTABLE_UPDATE] = "reftable_update",
	[BLOCK_EVENT_REFBLOCK_LOAD] = "refblock_load",
	[BLOCK_EVENT_REFBLOCK_UPDATE] = "refblock_update",
	[BLOCK_EVENT_REFBLOCK_UPDATE_PART] = "refblock_update_part",
	[BLOCK_EVENT_REFBLOCK_ALLOC] = "refblock_alloc",
	[BLOCK_EVENT_REFBLOCK_ALLOC_HOOKUP] = "refblock_alloc_hookup",
	[BLOCK_EVENT_REFBLOCK_ALLOC_WRITE] = "refblock_alloc_write",
	[BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_BLOCKS] = "refblock_alloc_write_blocks",
	[BLOCK_EVENT_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc_write_table",
	[BLOCK_EVENT_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc_switch_table",
	[BLOCK_EVENT_CLUSTER_ALLOC] = "cluster_alloc",
	[BLOCK_EVENT_CLUSTER_ALLOC_BYTES] = "cluster_alloc_bytes",
	[BLOCK_EVENT_CLUSTER_ALLOC_SPACE] = "cluster_alloc_space",
	[BLOCK_EVENT_CLUSTER_FREE] = "cluster_free",
	[BLOCK_EVENT_EMPTY_IMAGE_PREPARE] = "empty_image_prepare",
	[BLOCK_EVENT_FLUSH_TO_OS] = "flush_to_os",
	[BLOCK_EVENT_FLUSH_TO_DISK] = "flush_to_disk",
	[BLOCK_EVENT_PWRITEV] = "pwritev",
	[BLOCK_EVENT_PWRITEV_ZERO] = "pwritev_zero",
	[BLOCK_EVENT_PWRITEV_DONE] = "pwritev_done",
	NULL,
};

/* As enum block_op; then what is no request. */
enum {
	IO_BLOCK_STATUS = BLOCK_WRITE_ZEROES + 1,
	IO_ALL
};
static const char *const iotype_names[] = {
	[BLOCK_READ] = "read",
	[BLOCK_WRITE] = "write",
	[BLOCK_FLUSH] = "flush",
	[BLOCK_DISCARD] = "discard",
	[BLOCK_WRITE_ZEROES] = "write-zeroes",
	[IO_BLOCK_STATUS] = "block-status",
	[IO_ALL] = "all",
	NULL,
};

enum rule_kind {
	RULE_ERROR,
	RULE_DELAY,
	RULE_STATE,
	RULE_KINDS
};

struct rule {
	enum rule_kind kind;
	int event, iotype;
	uint32_t state, new_state, error;
	uint64_t sector, ns;
	bool once, immediately;
	bool active;
	struct rule *next;
};

struct blkdebug {
	struct block_node node;
	struct option_tree image, trees[RULE_KINDS];

	pthread_mutex_t lock; /* for what follows; requests may come from several loops */
	struct rule *rules;
	uint32_t state;
};

static struct blkdebug *to_debug(struct block_node *node)
{
	return container_of(node, struct blkdebug, node);
}

/* --- rules ------------------------------------------------------------------------------------- */

static void debug_event(struct block_node *node, enum block_event event)
{
	struct blkdebug *d = to_debug(node);
	uint32_t state, new_state;
	bool replaced = false;

	pthread_mutex_lock(&d->lock);
	state = new_state = d->state;
	for (struct rule *r = d->rules; r; r = r->next) {
		if (r->event != (int)event || (r->state && r->state != state))
			continue;
		if (r->kind == RULE_STATE) {
			new_state = r->new_state;
			continue;
		}
		for (struct rule *other = d->rules; other && !replaced; other = other->next)
			other->active = false;
		replaced = true;
		r->active = true;
	}
	d->state = new_state;
	pthread_mutex_unlock(&d->lock);
}

static void take_out(struct blkdebug *d, struct rule *r)
{
	struct rule **p = &d->rules;

	while (*p != r)
		p = &(*p)->next;
	*p = r->next;
	free(r);
}

static bool concerns(const struct rule *r, int iotype, uint64_t offset, uint64_t bytes)
{
	uint64_t at = r->sector * 512;

	if (!r->active || (r->iotype == IO_ALL ? iotype == IO_BLOCK_STATUS : r->iotype != iotype))
		return false;
	return r->sector == UINT64_MAX || (at >= offset && at - offset < bytes);
}

/* What is to happen to this I/O: an error (negative, or 0), and a delay. */
static int check(struct blkdebug *d, int iotype, uint64_t offset, uint64_t bytes, uint64_t *delay)
{
	struct rule *hit[RULE_KINDS] = {0};
	int error = 0;

	*delay = 0;
	pthread_mutex_lock(&d->lock);
	for (struct rule *r = d->rules; r; r = r->next)
		if (!hit[r->kind] && concerns(r, iotype, offset, bytes))
			hit[r->kind] = r;
	if (hit[RULE_ERROR])
		error = -(int)hit[RULE_ERROR]->error;
	if (hit[RULE_DELAY])
		*delay = hit[RULE_DELAY]->ns;
	for (int i = 0; i < RULE_KINDS; i++)
		if (hit[i] && hit[i]->once)
			take_out(d, hit[i]);
	pthread_mutex_unlock(&d->lock);
	return error;
}

/* --- requests ---------------------------------------------------------------------------------- */

struct delayed {
	struct loop_timer timer;
	struct blkdebug *d;
	struct block_req *req;
	int error;
};

static void go_on(struct blkdebug *d, struct block_req *req, int error)
{
	if (error)
		block_done_later(req, error);
	else
		block_pass(d->node.file, req);
}

static void delay_over(struct loop_timer *timer)
{
	struct delayed *w = container_of(timer, struct delayed, timer);
	struct delayed copy = *w;

	free(w);
	go_on(copy.d, copy.req, copy.error);
}

static void debug_submit(struct block_node *node, struct block_req *req)
{
	static const enum block_event events[] = {
		[BLOCK_WRITE] = BLOCK_EVENT_PWRITEV,
		[BLOCK_WRITE_ZEROES] = BLOCK_EVENT_PWRITEV_ZERO,
		[BLOCK_FLUSH] = BLOCK_EVENT_FLUSH_TO_DISK,
	};
	struct blkdebug *d = to_debug(node);
	struct delayed *w;
	uint64_t delay;
	int error;

	if (req->op < ARRAY_SIZE(events) && events[req->op])
		debug_event(node, events[req->op]);
	error = check(d, req->op, req->offset, req->bytes, &delay);
	w = delay ? calloc(1, sizeof(*w)) : NULL;
	if (!w) {
		go_on(d, req, error);
		return;
	}
	w->timer.fn = delay_over;
	w->d = d;
	w->req = req;
	w->error = error;
	loop_timer_set(req->loop, &w->timer, clock_now() + delay);
}

static int debug_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			struct block_status *st)
{
	uint64_t delay;
	int ret = check(to_debug(node), IO_BLOCK_STATUS, offset, bytes, &delay);

	return ret < 0 ? ret : block_status(node->file, offset, bytes, st);
}

static const struct block_ops debug_ops = {
	.submit = debug_submit,
	.event = debug_event,
	.status = debug_status,
	.resize = block_filter_resize,
	.follow = block_filter_follow,
};

/* --- making one -------------------------------------------------------------------------------- */

#define T struct rule
#define COMMON                                                                          \
	OPT_ENUM("event", T, event, "none", event_names, "what makes the rule active"), \
		OPT_UINT("state", T, state, "0", 0, UINT32_MAX, "only in this state; 0: in any")
#define MATCH                                                                         \
	OPT_ENUM("iotype", T, iotype, "all", iotype_names, "the requests concerned"), \
		OPT_UINT("sector", T, sector, "18446744073709551615", 0, UINT64_MAX,  \
			 "only requests that touch this sector"),                     \
		OPT_BOOL("once", T, once, "off", "only the first request")
static const struct option error_options[] = {
	COMMON,
	MATCH,
	OPT_UINT("errno", T, error, "5", 1, 4095, "the error's number"),
	OPT_BOOL("immediately", T, immediately, "off", "accepted for compatibility"),
	OPT_END,
};
static const struct option delay_options[] = {
	COMMON,
	MATCH,
	OPT_UINT("ns", T, ns, "1000000", 1, 3600 * NSEC_PER_SEC, "how long, in nanoseconds"),
	OPT_END,
};
static const struct option state_options[] = {
	COMMON,
	OPT_UINT("new_state", T, new_state, "0", 0, UINT32_MAX, "the state then"),
	OPT_END,
};
#undef T

static const struct option *const rule_options[] = {
	[RULE_ERROR] = error_options,
	[RULE_DELAY] = delay_options,
	[RULE_STATE] = state_options,
};
static const char *const rule_names[] = {
	[RULE_ERROR] = "inject-error",
	[RULE_DELAY] = "inject-delay",
	[RULE_STATE] = "set-state",
};

struct adding {
	struct blkdebug *d;
	enum rule_kind kind;
};

static int add_rule(void *opaque, struct keyvals *kv, struct hako_error *err)
{
	const struct adding *a = opaque;
	struct rule *r = calloc(1, sizeof(*r)), **last = &a->d->rules;
	int ret;

	if (!r)
		return error_errno(err, -ENOMEM, "rule");
	r->kind = a->kind;
	ret = options_defaults(rule_options[r->kind], r, err);
	if (ret == 0)
		ret = options_apply(rule_options[r->kind], r, kv, true, err);
	if (ret < 0) {
		free(r);
		return ret;
	}
	while (*last)
		last = &(*last)->next;
	*last = r;
	return 0;
}

static void free_rules(struct blkdebug *d)
{
	while (d->rules)
		take_out(d, d->rules);
	pthread_mutex_destroy(&d->lock);
	block_node_free(&d->node);
}

static int debug_create(struct object *obj, struct hako_error *err)
{
	struct blkdebug *d = container_of(obj, struct blkdebug, node.obj);
	struct block_node *node = &d->node;
	int ret = block_node_init(node, &debug_ops, err);

	pthread_mutex_init(&d->lock, NULL);
	d->state = 1; /* as QEMU's */
	for (int i = 0; i < RULE_KINDS && ret == 0; i++) {
		struct adding a = {d, i};

		ret = option_tree_items(&d->trees[i], rule_names[i], add_rule, &a, err);
	}
	if (ret == 0)
		ret = block_open_child(node, "image", &d->image, BLOCK_ROLE_FILTER, &node->file,
				       err);
	if (ret < 0) {
		free_rules(d);
		return ret;
	}
	block_take_limits(node, node->file);
	node->length = node->file->length;
	debug_event(node, BLOCK_EVENT_NONE);
	return 0;
}

static void debug_destroy(struct object *obj)
{
	free_rules(container_of(obj, struct blkdebug, node.obj));
}

#define T struct blkdebug
static const struct option debug_options[] = {
	OPT_NODE("image", T, image, "the node that is tampered with"),
	OPT_TREE("inject-error", T, trees[RULE_ERROR],
		 "a list: event, state, iotype, sector, once, errno"),
	OPT_TREE("inject-delay", T, trees[RULE_DELAY],
		 "a list: event, state, iotype, sector, once, ns"),
	OPT_TREE("set-state", T, trees[RULE_STATE], "a list: event, state, new_state"),
	OPT_END,
};
#undef T

static const struct class debug_class = {
	.name = "blkdebug",
	.help = "a filter that injects errors and delays, for tests",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct blkdebug),
	.options = debug_options,
	.bus_options = block_node_options,
	.create = debug_create,
	.destroy = debug_destroy,
};
HAKO_CLASS(debug_class);
