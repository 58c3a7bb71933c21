/* SPDX-License-Identifier: GPL-2.0-only */
/* Filters: blkdebug, throttle; and null-co. */
#include <stdarg.h>

#include "devices/block/block_co.h"
#include "tests/unit/block_test.h"

static struct hako_error err;
static uint8_t buf[8192] __attribute__((aligned(4096)));

/* A filter on the image, attached to the loop. */
static struct block_node *must_make(const char *id, const char *fmt, ...)
{
	struct block_node *node;
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ck_assert_msg(new_node(id, text, &node, &err) == 0, "%s: %s", text, err.message);
	ck_assert_int_eq(block_attach(node, loop, &err), 0);
	return node;
}

static void end(struct block_node *node)
{
	block_detach(node, loop);
	object_destroy(&node->obj);
}

static void refused(const char *say, const char *text)
{
	struct block_node *node;

	ck_assert_int_lt(new_node("bad", text, &node, &err), 0);
	ck_assert_msg(strstr(err.message, say) != NULL, "%s: %s", text, err.message);
}

/* --- blkdebug ---------------------------------------------------------------------------------- */

static const char rules[] =
#ifdef WITH_JSON
	"{\"driver\": \"blkdebug\", \"image\": {\"driver\": \"file\", \"filename\": \"%s\"},"
	" \"inject-error\": [{\"iotype\": \"write\", \"sector\": 3, \"errno\": 28},"
	" {\"iotype\": \"read\", \"once\": true, \"immediately\": true},"
	" {\"iotype\": \"flush\", \"once\": true}]}";
#else
	"driver=blkdebug,image.driver=file,image.filename=%s,"
	"inject-error.0.iotype=write,inject-error.0.sector=3,inject-error.0.errno=28,"
	"inject-error.1.iotype=read,inject-error.1.once=on,inject-error.1.immediately=on,"
	"inject-error.2.iotype=flush,inject-error.2.once=on";
#endif

START_TEST(errors_are_injected)
{
	struct block_node *n;

	set_up(_i);
	make_image(1 * MiB);
	n = must_make("d", rules, image);
	ck_assert_uint_eq(n->length, 1 * MiB);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 0, buf, 1536), 0);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 1024, buf, 1024), -ENOSPC);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 1536, buf, 512), -ENOSPC);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 2048, buf, 512), 0);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), -EIO);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	ck_assert_int_eq(run_req(n, BLOCK_FLUSH, 0, 0, 0, NULL, 0), -EIO);
	ck_assert_int_eq(run_req(n, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
	ck_assert_int_eq(block_pwrite(n, 1536, buf, 100, 0), -ENOSPC); /* in no coroutine */
	end(n);
	tear_down();
}
END_TEST

START_TEST(events_and_states)
{
	struct block_status st;
	struct block_node *n;

	set_up(_i);
	make_image(1 * MiB);
	n = must_make(
		"d",
		"driver=blkdebug,image.driver=file,image.filename=%s,"
		"inject-error.0.event=l2_update,inject-error.0.errno=28,"
		"inject-error.1.event=l2_update,inject-error.1.state=7,inject-error.1.errno=16,"
		"inject-error.2.event=cluster_alloc,inject-error.2.iotype=block-status,"
		"set-state.0.event=l2_load,set-state.0.new_state=7,set-state.0.state=1",
		image);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	block_event(n, BLOCK_EVENT_L1_UPDATE);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	block_event(n, BLOCK_EVENT_L2_UPDATE);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), -ENOSPC);
	block_event(n, BLOCK_EVENT_L1_UPDATE); /* has no rules */
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), -ENOSPC);
	block_event(n, BLOCK_EVENT_CLUSTER_ALLOC);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	ck_assert_int_eq(block_status(n, 0, 512, &st), -EIO);
	block_event(n, BLOCK_EVENT_L2_LOAD);
	block_event(n, BLOCK_EVENT_L2_UPDATE);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), -ENOSPC);
	ck_assert_int_eq(block_status(n, 0, 512, &st), 0);
	ck_assert_ptr_eq(st.node, n->file);
	end(n);
	/* What a write is, the filter sees by itself. */
	n = must_make("d",
		      "driver=blkdebug,image.driver=file,image.filename=%s,"
		      "inject-error.0.event=pwritev,inject-error.0.once=on",
		      image);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 0, buf, 512), -EIO);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	end(n);
	tear_down();
}
END_TEST

START_TEST(delays_are_injected)
{
	struct block_node *n;
	uint64_t start;

	set_up(_i);
	make_image(1 * MiB);
	n = must_make(
		"d",
		"driver=blkdebug,image.driver=file,image.filename=%s,"
		"inject-delay.0.ns=30000000,inject-delay.0.iotype=read,inject-error.0.sector=1",
		image);
	start = clock_now();
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	ck_assert_uint_ge(clock_now() - start, 30000000);
	start = clock_now();
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 512, buf, 512), -EIO);
	ck_assert_uint_ge(clock_now() - start, 30000000);
	end(n);
	tear_down();
}
END_TEST

START_TEST(bad_rules)
{
	set_up(_i);
	make_image(1 * MiB);
	must_make("f", "%s", image);
	refused("inject-error.0: errno=0: out of range",
		"driver=blkdebug,image=f,inject-error.0.errno=0");
	refused("did you mean l2_update", "driver=blkdebug,image=f,inject-error.0.event=l2_updat");
	refused("inject-error.0: evnt: no such option (did you mean event?)",
		"driver=blkdebug,image=f,inject-error.0.evnt=none");
	refused("inject-error.0.…=… is missing",
		"driver=blkdebug,image=f,inject-error.1.event=none");
	refused("inject-error.0.…=… is missing", "driver=blkdebug,image=f,inject-error.event=none");
	refused("options of its own", "driver=blkdebug,image=f,inject-error=none");
	refused("image=… is missing", "driver=blkdebug");
	tear_down();
}
END_TEST

/* A filter in a format's place: the file below grows, and it with it. */
START_TEST(filters_grow)
{
	struct block_node *n, *raw;

	set_up(_i);
	make_image(0);
	n = must_make("d", "driver=blkdebug,image.driver=file,image.filename=%s", image);
	raw = must_make("r", "driver=raw,file=d");
	ck_assert_int_eq(block_use_node(raw, vm, BLOCK_USE_WRITE | BLOCK_USE_RESIZE, &err), 0);
	ck_assert_int_eq(run_buf(raw, BLOCK_WRITE, 4096, buf, 4096), 0);
	ck_assert_uint_eq(n->length, 8192);
	ck_assert_uint_eq(raw->length, 8192);
	ck_assert_int_eq(block_resize(raw, 512, BLOCK_PREALLOC_OFF, &err), 0);
	ck_assert_uint_eq(n->length, 512);
	ck_assert_uint_eq(raw->length, 512);
	block_unuse(raw, vm);
	end(raw);
	end(n);
	tear_down();
}
END_TEST

/* --- throttle ---------------------------------------------------------------------------------- */

static void make_group(const char *options)
{
	struct keyvals kv = {0};

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_msg(object_new(vm, class_find(CLASS_OBJECT, "throttle-group"), &kv, NULL, &err) ==
			      0,
		      "%s", err.message);
	keyvals_free(&kv);
}

struct many {
	struct block_node *nodes[2];
	struct block_req reqs[64];
	struct iovec iov;
	int n, done;
	uint64_t bytes;
	enum block_op op;
};

static void many_done(struct block_req *req, int res)
{
	struct many *m = req->opaque;

	ck_assert_int_eq(res, 0);
	bump(&m->done);
}

static void many_submit(void *arg)
{
	struct many *m = arg;

	for (int i = 0; i < m->n; i++) {
		m->reqs[i] = (struct block_req){.op = m->op,
						.bytes = m->bytes,
						.iov = &m->iov,
						.niov = 1,
						.done = many_done,
						.loop = loop,
						.opaque = m};
		block_submit(m->nodes[i % 2], &m->reqs[i]);
	}
}

/* @n requests at once, by turns to both nodes; nanoseconds until all are done. */
static uint64_t at_once(struct block_node *a, struct block_node *b, enum block_op op, int n,
			uint64_t bytes)
{
	struct many m = {.nodes = {a, b}, .n = n, .op = op, .bytes = bytes, .iov = {buf, bytes}};
	uint64_t start = clock_now();

	loop_call(loop, many_submit, &m);
	ck_assert(wait_for(&m.done, n));
	return clock_now() - start;
}

#define MS 1000000ull

/* Lower bounds only, since the machine may be slow: n units at a rate take so long, but for what fits into the bucket. */
START_TEST(rates)
{
	struct block_node *n, *m;

	set_up(_i);
	make_image(1 * MiB);
	must_make("f", "%s", image);
	n = must_make("a", "driver=throttle,file=f,throttling.iops-total=100");
	ck_assert_uint_ge(at_once(n, n, BLOCK_READ, 40, 512), 290 * MS); /* 10 are free */
	end(n);
	n = must_make("a", "driver=throttle,file=f,throttling.iops-read=100");
	ck_assert_uint_ge(at_once(n, n, BLOCK_READ, 20, 512), 90 * MS);
	end(n);
	n = must_make("a", "driver=throttle,file=f,throttling.bps-write=20K");
	ck_assert_uint_ge(at_once(n, n, BLOCK_WRITE, 8, 1024), 240 * MS);
	end(n);
	n = must_make("a",
		      "driver=throttle,file=f,throttling.iops-total=100,throttling.iops-size=512");
	ck_assert_uint_ge(at_once(n, n, BLOCK_READ, 5, 4096), 210 * MS);
	end(n);
	/* Bursts: all at once is allowed, and then no more. */
	n = must_make(
		"a",
		"driver=throttle,file=f,throttling.iops-total=10,throttling.iops-total-max=30");
	ck_assert_uint_ge(at_once(n, n, BLOCK_READ, 33, 512), 190 * MS);
	end(n);
	/* A group shares. */
	make_group("id=g,x-iops-total=100");
	n = must_make("a", "driver=throttle,file=f,throttle-group=g");
	m = must_make("b", "driver=throttle,file=f,throttle-group=g");
	ck_assert_uint_ge(at_once(n, m, BLOCK_READ, 40, 512), 290 * MS);
	end(n);
	end(m);
	n = must_make("a", "driver=throttle,file=f,throttling.group=h,throttling.iops-total=100");
	m = must_make("b", "driver=throttle,file=f,throttling.group=h");
	ck_assert_uint_ge(at_once(n, m, BLOCK_READ, 40, 512), 290 * MS);
	end(n);
	end(m);
	tear_down();
}
END_TEST

/* What is not limited does not wait: a thousand seconds would be noticed. */
START_TEST(no_limit_no_wait)
{
	struct block_node *n;
	struct keyvals kv = {0};

	set_up(_i);
	make_image(1 * MiB);
	must_make("f", "%s", image);
	n = must_make("a", "driver=throttle,file=f,throttling.iops-write=1");
	ck_assert_uint_lt(at_once(n, n, BLOCK_READ, 64, 512), 60000 * MS);
	for (int i = 0; i < 100; i++)
		ck_assert_int_eq(run_req(n, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
	end(n);
	n = must_make(
		"a",
		"driver=throttle,file=f,throttling.iops-total=10,throttling.iops-total-max=1000");
	ck_assert_uint_lt(at_once(n, n, BLOCK_READ, 64, 512), 60000 * MS);
	end(n);
	/* throttling.… of --disk puts the filter on top. */
	ck_assert_int_eq(
		keyvals_parse(&kv, "throttling.iops-total=100,serial=x,discard=unmap", NULL, &err),
		0);
	ck_assert_msg(block_open(vm, image, "raw", &kv, "top", &n, &err) == 0, "%s", err.message);
	ck_assert_str_eq(n->obj.class->name, "throttle");
	ck_assert_str_eq(n->obj.id, "top");
	ck_assert_str_eq(n->file->obj.class->name, "file");
	ck_assert(n->can_discard);
	ck_assert(kv.v[0].used && !kv.v[1].used && kv.v[2].used);
	keyvals_free(&kv);
	object_destroy(&n->obj);
	ck_assert_ptr_null(object_find(vm, CLASS_BLOCKDEV, "#block0"));
	tear_down();
}
END_TEST

static void hurry(void *arg)
{
	block_hurry(arg, loop);
}

START_TEST(those_who_wait_can_be_hurried)
{
	struct block_node *n, *raw;
	struct many m = {.n = 64, .op = BLOCK_READ, .bytes = 512, .iov = {buf, 512}};

	set_up(_i);
	make_image(1 * MiB);
	n = must_make("a", "driver=throttle,file.filename=%s,throttling.iops-total=1", image);
	raw = must_make("r", "driver=raw,file=a");
	m.nodes[0] = m.nodes[1] = raw;
	loop_call(loop, many_submit, &m);
	usleep(20000);
	ck_assert_int_lt(__atomic_load_n(&m.done, __ATOMIC_ACQUIRE), 3);
	loop_call(loop, hurry, raw);
	ck_assert(wait_for(&m.done, 64));
	end(raw);
	end(n);
	tear_down();
}
END_TEST

START_TEST(bad_limits)
{
	set_up(_i);
	make_image(1 * MiB);
	must_make("f", "%s", image);
	refused("exclude each other",
		"driver=throttle,file=f,throttling.iops-total=1,throttling.iops-read=1");
	refused("bps-read-max needs bps-read", "driver=throttle,file=f,throttling.bps-read-max=1");
	refused("is less than",
		"driver=throttle,file=f,throttling.bps-read-max=1,throttling.bps-read=2");
	refused("bps-read-max-length needs",
		"driver=throttle,file=f,throttling.bps-read=2,throttling.bps-read-max-length=2");
	refused("iops-size needs",
		"driver=throttle,file=f,throttling.bps-read=2,throttling.iops-size=2");
	refused("no such group", "driver=throttle,file=f,throttle-group=zap");
	refused("exclude each other",
		"driver=throttle,file=f,throttle-group=zap,throttling.bps-read=2");
	refused("did you mean throttling.bps-total",
		"driver=throttle,file=f,throttling.bps-totl=2");
	tear_down();
}
END_TEST

/* --- null-co ----------------------------------------------------------------------------------- */

START_TEST(nothing_there)
{
	struct block_node *n;

	set_up(_i);
	n = must_make("n", "driver=null-co,size=1M");
	ck_assert_uint_eq(n->length, 1 * MiB);
	memset(buf, 1, 512);
	ck_assert_int_eq(run_buf(n, BLOCK_WRITE, 0, buf, 512), 0);
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 0, buf, 512), 0);
	ck_assert(mem_is_zero(buf, 512));
	ck_assert_int_eq(run_buf(n, BLOCK_READ, 1 * MiB, buf, 512), -EINVAL);
	ck_assert_int_eq(run_req(n, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
	end(n);
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		errors_are_injected,
		events_and_states,
		delays_are_injected,
		bad_rules,
		filters_grow,
		nothing_there,
		rates,
		no_limit_no_wait,
		those_who_wait_can_be_hurried,
		bad_limits,
	};

	return run_tests("block filters", tests, ARRAY_SIZE(tests), NULL);
}
