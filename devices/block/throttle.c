/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * "throttle": a filter that keeps requests below a rate, by itself or as one of a group that shares it. Leaky buckets, as QEMU's: a rate, a
 * higher rate for bursts, and how long these may last. A request is counted when it comes; if that is too early it waits in its own
 * loop, for as long as the buckets need to leak.
 */
#include <pthread.h>
#include <stdlib.h>

#include "block_co.h"
#include "vmm/vm.h"

enum {
	TOTAL,
	READS,
	WRITES,
	DIRECTIONS
};

/* A bucket's options; rates per second. */
struct limit {
	uint64_t avg, max, length; /* length: seconds at max */
};

struct limits {
	struct limit bps[DIRECTIONS], iops[DIRECTIONS];
	uint64_t iops_size; /* a larger request counts as several */
};

struct level {
	double level, burst;
};

/* What a group shares; of loops in several threads. */
struct shaper {
	struct limits limits;
	pthread_mutex_t lock;
	uint64_t leaked; /* up to this time */
	struct level bps[DIRECTIONS], iops[DIRECTIONS];
};

struct throttle_group {
	struct object obj;
	struct shaper shaper;
};

struct throttle {
	struct block_node node;
	struct option_tree file;
	char *group, *group_alias;
	struct limits limits;

	struct shaper own, *shaper;
	pthread_mutex_t lock;
	struct list waiting; /* struct waiter */
};

struct waiter {
	struct list link;
	struct loop_timer timer;
	struct throttle *t;
	struct block_req *req;
};

/* --- buckets ----------------------------------------------------------------------------------- */

static void leak(const struct limit *l, struct level *v, double seconds)
{
	v->level = MAX(v->level - l->avg * seconds, 0.0);
	v->burst = MAX(v->burst - l->max * seconds, 0.0);
}

/* Seconds until the bucket has room. */
static double wait_for(const struct limit *l, const struct level *v)
{
	double wait = 0;

	if (!l->avg)
		return 0;
	/* A bucket holds a tenth of a second's worth. */
	if (!l->max)
		return MAX(v->level - l->avg / 10.0, 0.0) / l->avg;
	wait = MAX(v->level - (double)l->max * l->length, 0.0) / l->avg;
	if (l->length > 1)
		wait = MAX(wait, (v->burst - l->max / 10.0) / l->max);
	return wait;
}

static void fill(const struct limit *l, struct level *v, double units)
{
	if (!l->avg)
		return;
	v->level += units;
	v->burst += units;
}

/* Count the request: how long it has to wait, in nanoseconds. */
static uint64_t count(struct shaper *s, const struct block_req *req)
{
	const struct limits *l = &s->limits;
	int dirs[] = {TOTAL, req->op == BLOCK_READ ? READS : WRITES};
	double wait = 0, ops = 1, seconds;
	uint64_t now;

	if (l->iops_size && req->bytes > l->iops_size)
		ops = (double)req->bytes / l->iops_size;
	pthread_mutex_lock(&s->lock);
	now = clock_now();
	seconds = (double)(now - s->leaked) / NSEC_PER_SEC;
	s->leaked = now;
	for (int i = 0; i < DIRECTIONS; i++) {
		leak(&l->bps[i], &s->bps[i], seconds);
		leak(&l->iops[i], &s->iops[i], seconds);
	}
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++) {
		wait = MAX(wait, wait_for(&l->bps[dirs[i]], &s->bps[dirs[i]]));
		wait = MAX(wait, wait_for(&l->iops[dirs[i]], &s->iops[dirs[i]]));
		fill(&l->bps[dirs[i]], &s->bps[dirs[i]], req->bytes);
		fill(&l->iops[dirs[i]], &s->iops[dirs[i]], ops);
	}
	pthread_mutex_unlock(&s->lock);
	return wait * NSEC_PER_SEC;
}

/* --- requests ---------------------------------------------------------------------------------- */

static void go_on(struct waiter *w)
{
	struct block_node *file = w->t->node.file;
	struct block_req *req = w->req;

	free(w);
	block_pass(file, req);
}

static void time_has_come(struct loop_timer *timer)
{
	struct waiter *w = container_of(timer, struct waiter, timer);

	pthread_mutex_lock(&w->t->lock);
	list_del(&w->link);
	pthread_mutex_unlock(&w->t->lock);
	go_on(w);
}

static void throttle_submit(struct block_node *node, struct block_req *req)
{
	struct throttle *t = container_of(node, struct throttle, node);
	uint64_t wait = req->op == BLOCK_FLUSH ? 0 : count(t->shaper, req);
	struct waiter *w = wait ? calloc(1, sizeof(*w)) : NULL;

	if (!w) {
		block_pass(node->file, req);
		return;
	}
	w->t = t;
	w->req = req;
	w->timer.fn = time_has_come;
	pthread_mutex_lock(&t->lock);
	list_add_tail(&w->link, &t->waiting);
	pthread_mutex_unlock(&t->lock);
	loop_timer_set(req->loop, &w->timer, clock_now() + wait);
}

/* They stay counted, so that pausing again and again gains nothing. */
static void throttle_hurry(struct block_node *node, struct loop *loop)
{
	struct throttle *t = container_of(node, struct throttle, node);
	struct waiter *w, *tmp;
	struct list mine;

	list_init(&mine);
	pthread_mutex_lock(&t->lock);
	list_for_each_safe(w, tmp, &t->waiting, link) {
		if (w->req->loop == loop) {
			list_del(&w->link);
			list_add_tail(&w->link, &mine);
		}
	}
	pthread_mutex_unlock(&t->lock);
	list_for_each_safe(w, tmp, &mine, link) {
		list_del(&w->link);
		loop_timer_cancel(&w->timer);
		go_on(w);
	}
}

static const struct block_ops throttle_ops = {
	.submit = throttle_submit,
	.hurry = throttle_hurry,
	.status = block_filter_status,
	.resize = block_filter_resize,
	.follow = block_filter_follow,
};

/* --- limits ------------------------------------------------------------------------------------ */

static const char *const directions[] = {"total", "read", "write"};

static bool any_limit(const struct limits *l)
{
	for (int i = 0; i < DIRECTIONS; i++)
		if (l->bps[i].avg || l->iops[i].avg)
			return true;
	return false;
}

static int check_limit(const struct limit *l, const char *what, int i, struct hako_error *err)
{
	if (l->max && !l->avg)
		return error_set(err, -EINVAL, "%s-%s-max needs %s-%s", what, directions[i], what,
				 directions[i]);
	if (l->max && l->max < l->avg)
		return error_set(err, -EINVAL, "%s-%s-max is less than %s-%s", what, directions[i],
				 what, directions[i]);
	if (l->length > 1 && !l->max)
		return error_set(err, -EINVAL, "%s-%s-max-length needs %s-%s-max", what,
				 directions[i], what, directions[i]);
	return 0;
}

static int check_limits(const struct limits *l, struct hako_error *err)
{
	const struct limit *const all[] = {l->bps, l->iops};
	static const char *const names[] = {"bps", "iops"};
	bool any_iops = false;
	int ret = 0;

	for (size_t k = 0; k < ARRAY_SIZE(all) && ret == 0; k++) {
		const struct limit *of = all[k];

		if (of[TOTAL].avg && (of[READS].avg || of[WRITES].avg))
			return error_set(err, -EINVAL,
					 "%s-total and %s-read or %s-write exclude each other",
					 names[k], names[k], names[k]);
		for (int i = 0; i < DIRECTIONS && ret == 0; i++) {
			ret = check_limit(&of[i], names[k], i, err);
			any_iops |= k == 1 && of[i].avg;
		}
	}
	if (ret == 0 && l->iops_size && !any_iops)
		return error_set(err, -EINVAL, "iops-size needs an iops limit");
	return ret;
}

static void shaper_init(struct shaper *s)
{
	pthread_mutex_init(&s->lock, NULL);
	s->leaked = clock_now();
}

#define RATE_MAX 1000000000000000ull /* as QEMU's */
#define LIMIT(PREFIX, T, F, HELP)                                                          \
	OPT_SIZE(PREFIX, T, F.avg, "0", 0, RATE_MAX, HELP),                                \
		OPT_SIZE(PREFIX "-max", T, F.max, "0", 0, RATE_MAX, "the same in bursts"), \
		OPT_UINT(PREFIX "-max-length", T, F.length, "1", 1, 1000000,               \
			 "how long a burst may last, in seconds")
#define LIMITS(PREFIX, T, F)                                                                      \
	LIMIT(PREFIX "bps-total", T, F.bps[TOTAL], "bytes per second"),                           \
		LIMIT(PREFIX "bps-read", T, F.bps[READS], "bytes per second that are read"),      \
		LIMIT(PREFIX "bps-write", T, F.bps[WRITES], "bytes per second that are written"), \
		LIMIT(PREFIX "iops-total", T, F.iops[TOTAL], "requests per second"),              \
		LIMIT(PREFIX "iops-read", T, F.iops[READS], "reads per second"),                  \
		LIMIT(PREFIX "iops-write", T, F.iops[WRITES], "writes per second"),               \
		OPT_SIZE(PREFIX "iops-size", T, F.iops_size, "0", 0, RATE_MAX,                    \
			 "bytes of one request; a larger one counts as several")

/* --- groups ------------------------------------------------------------------------------------ */

static int group_create(struct object *obj, struct hako_error *err)
{
	struct throttle_group *g = container_of(obj, struct throttle_group, obj);
	int ret = check_limits(&g->shaper.limits, err);

	if (ret == 0)
		shaper_init(&g->shaper);
	return ret;
}

static void group_destroy(struct object *obj)
{
	pthread_mutex_destroy(&container_of(obj, struct throttle_group, obj)->shaper.lock);
}

/* In JSON "limits": {…}; on the command line x-…, as QEMU. */
static const struct option group_options[] = {
	LIMITS("limits.", struct throttle_group, shaper.limits),
	LIMITS("x-", struct throttle_group, shaper.limits),
	OPT_END,
};

static const struct class group_class = {
	.name = "throttle-group",
	.help = "limits that several disks share",
	.kind = CLASS_OBJECT,
	.size = sizeof(struct throttle_group),
	.options = group_options,
	.create = group_create,
	.destroy = group_destroy,
};
HAKO_CLASS(group_class);

/* throttling.group: made by the first disk that names it; the last one that has limits decides. */
static int join_by_name(struct throttle *t, struct hako_error *err)
{
	struct vm *vm = t->node.obj.vm;
	struct object *obj = object_find(vm, CLASS_OBJECT, t->group_alias);
	struct keyvals kv = {0};
	int ret = 0;

	if (!obj) {
		ret = keyvals_add(&kv, "id", t->group_alias);
		ret = ret < 0 ? error_errno(err, ret, "throttling.group")
			      : object_new(vm, &group_class, &kv, &obj, err);
		keyvals_free(&kv);
	} else if (obj->class != &group_class) {
		ret = error_set(err, -EINVAL, "%s is no throttle-group", t->group_alias);
	}
	if (ret < 0)
		return ret;
	t->shaper = &container_of(obj, struct throttle_group, obj)->shaper;
	pthread_mutex_lock(&t->shaper->lock);
	if (any_limit(&t->limits))
		t->shaper->limits = t->limits;
	pthread_mutex_unlock(&t->shaper->lock);
	return 0;
}

static int find_shaper(struct throttle *t, struct hako_error *err)
{
	struct object *obj;

	if (t->group && (t->group_alias || any_limit(&t->limits)))
		return error_set(err, -EINVAL,
				 "throttle-group and throttling.… exclude each other");
	if (t->group_alias)
		return join_by_name(t, err);
	if (!t->group) {
		t->own.limits = t->limits;
		t->shaper = &t->own;
		return 0;
	}
	obj = object_find(t->node.obj.vm, CLASS_OBJECT, t->group);
	if (!obj || obj->class != &group_class)
		return error_set(err, -ENOENT, "throttle-group=%s: there is no such group",
				 t->group);
	t->shaper = &container_of(obj, struct throttle_group, obj)->shaper;
	return 0;
}

/* --- the node ---------------------------------------------------------------------------------- */

static void throttle_free(struct throttle *t)
{
	pthread_mutex_destroy(&t->lock);
	pthread_mutex_destroy(&t->own.lock);
	block_node_free(&t->node);
}

static int throttle_create(struct object *obj, struct hako_error *err)
{
	struct throttle *t = container_of(obj, struct throttle, node.obj);
	struct block_node *node = &t->node;
	int ret = block_node_init(node, &throttle_ops, err);

	pthread_mutex_init(&t->lock, NULL);
	shaper_init(&t->own);
	list_init(&t->waiting);
	if (ret == 0)
		ret = check_limits(&t->limits, err);
	if (ret == 0)
		ret = find_shaper(t, err);
	if (ret == 0)
		ret = block_open_child(node, "file", &t->file, BLOCK_ROLE_FILTER, &node->file, err);
	if (ret < 0) {
		throttle_free(t);
		return ret;
	}
	block_take_limits(node, node->file);
	node->length = node->file->length;
	return 0;
}

static void throttle_destroy(struct object *obj)
{
	throttle_free(container_of(obj, struct throttle, node.obj));
}

static const struct option throttle_options[] = {
	OPT_NODE("file", struct throttle, file, "the node that is kept below the rate"),
	OPT_STRING("throttle-group", struct throttle, group, NULL,
		   "id of the throttle-group that it belongs to"),
	OPT_STRING("throttling.group", struct throttle, group_alias, NULL,
		   "likewise; the group is made if there is none"),
	LIMITS("throttling.", struct throttle, limits),
	OPT_END,
};

static const struct class throttle_class = {
	.name = "throttle",
	.help = "a filter that keeps requests below a rate",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct throttle),
	.options = throttle_options,
	.bus_options = block_node_options,
	.create = throttle_create,
	.destroy = throttle_destroy,
};
HAKO_CLASS(throttle_class);
