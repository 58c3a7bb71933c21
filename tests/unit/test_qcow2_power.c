/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2 images after power has failed. A node below the image notes all that it does to its file. Then the file is made as it may be after a
 * cut at any moment: what a flush has covered is there, of the rest some is, in part. qemu-img must find no corruption, at worst leaks,
 * and each sector must hold what the guest's last flush covered, or something that was written later.
 */
#include "tests/unit/qcow2_test.h"

#define DISK	(2 * MiB)
#define SECTORS (DISK / 512)
#define BATCHES 24
#define CUTS	12

static uint64_t rng;

static unsigned int rnd(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

/* --- the recorder ------------------------------------------------------------------------------ */

/* What happened to the file, or what the guest did, in order of beginning; @end is the moment when it was complete. */
struct event {
	enum block_op op;
	uint32_t flags;
	bool guest;
	uint64_t begin, end; /* moments; end 0: not yet */
	uint64_t offset, bytes;
	uint8_t *data; /* of the file's writes */
	uint64_t seq;  /* of the guest's: see stamp() */
};

static struct event *events;
static unsigned int nevents, max_events;
static uint64_t moment;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned int begin_event(const struct block_req *req, bool guest, uint64_t seq)
{
	struct event *e;
	unsigned int i;

	pthread_mutex_lock(&lock);
	if (nevents == max_events) {
		max_events = max_events ? 2 * max_events : 256;
		events = realloc(events, max_events * sizeof(*events));
	}
	i = nevents++;
	e = &events[i];
	*e = (struct event){req->op,	 req->flags, guest, ++moment, 0,
			    req->offset, req->bytes, NULL,  seq};
	if (!guest && req->op == BLOCK_WRITE) {
		uint8_t *p = e->data = malloc(req->bytes);

		for (int j = 0; j < req->niov; p += req->iov[j++].iov_len)
			memcpy(p, req->iov[j].iov_base, req->iov[j].iov_len);
	}
	pthread_mutex_unlock(&lock);
	return i;
}

static void end_event(unsigned int i)
{
	pthread_mutex_lock(&lock);
	events[i].end = ++moment;
	pthread_mutex_unlock(&lock);
}

struct recorder {
	struct block_node node;
	struct option_tree file;
};

static void recorder_done(struct block_req *req, int res)
{
	unsigned int i = (uintptr_t)block_passed_opaque(req);

	block_passed(req);
	end_event(i);
	req->done(req, res);
}

static void recorder_submit(struct block_node *node, struct block_req *req)
{
	uintptr_t i;

	if (req->op == BLOCK_READ) {
		block_pass(node->file, req);
		return;
	}
	i = begin_event(req, false, 0);
	block_pass_hook(node->file, req, req->offset, recorder_done, (void *)i);
}

static int recorder_sync(struct block_node *node, struct block_req *req)
{
	unsigned int i;
	int ret;

	if (req->op == BLOCK_READ)
		return node->file->ops->sync(node->file, req);
	i = begin_event(req, false, 0);
	ret = node->file->ops->sync(node->file, req);
	end_event(i);
	return ret;
}

static int recorder_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
			   struct hako_error *err)
{
	return block_resize(node->file, length, prealloc, err);
}

static void recorder_follow(struct block_node *node)
{
	WRITE_ONCE(node->length, READ_ONCE(node->file->length));
}

static const struct block_ops recorder_ops = {
	.submit = recorder_submit,
	.sync = recorder_sync,
	.resize = recorder_resize,
	.follow = recorder_follow,
};

static int recorder_create(struct object *obj, struct hako_error *err)
{
	struct recorder *r = container_of(obj, struct recorder, node.obj);
	int ret = block_node_init(&r->node, &recorder_ops, err);

	if (ret == 0)
		ret = block_open_child(&r->node, "file", &r->file, BLOCK_ROLE_FILE, &r->node.file,
				       err);
	if (ret < 0) {
		block_node_free(&r->node);
		return ret;
	}
	r->node.length = r->node.file->length;
	block_take_limits(&r->node, r->node.file);
	return 0;
}

static void recorder_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct option recorder_options[] = {
	OPT_NODE("file", struct recorder, file, "what is noted"),
	OPT_END,
};

static const struct class recorder_class = {
	.name = "test-recorder",
	.help = "notes what is done to the node below",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct recorder),
	.options = recorder_options,
	.bus_options = block_node_options,
	.create = recorder_create,
	.destroy = recorder_destroy,
};
HAKO_CLASS(recorder_class);

/* --- the guest --------------------------------------------------------------------------------- */

struct kind {
	const char *create;
	const char *prepare; /* shell commands, or NULL */
	const char *after;
	const char *check;
};

#define CHECK "qemu-img check cut >log 2>&1; s=$?; head -c 500 log; [ $s = 0 ] || [ $s = 3 ]"
#define REPAIR \
	"qemu-img check -r all cut >log 2>&1; s=$?; head -c 500 log; [ $s = 0 ] || [ $s = 3 ]"
#define BASE "qemu-img create -q -f raw base 1M; qemu-io -f raw -c 'write -P 0xb0 0 700k' base"

static const struct kind kinds[] = {
	{"", NULL, NULL, CHECK},
	{"-o cluster_size=512", NULL, NULL, CHECK},
	{"-o cluster_size=1k,refcount_bits=64", NULL, NULL, CHECK},
	{"-o cluster_size=4k -b base -F raw", BASE, NULL, CHECK},
	{"-o cluster_size=16k,extended_l2=on -b base -F raw", BASE, NULL, CHECK},
	{"-o cluster_size=2k", NULL,
	 "qemu-io -c 'write -P 0xc0 0 1500k' disk; qemu-img snapshot -c s disk", CHECK},
	{"-o cluster_size=1k,lazy_refcounts=on", NULL, NULL, REPAIR},
};

/* What a sector may hold: its history, oldest first. The first entry is what the image held at the start. */
struct version {
	uint64_t seq;
	bool zero, anything; /* a discard may leave anything that was there, or zeroes */
	unsigned int event;
};

struct sector {
	struct version *v;
	unsigned int n;
};

static struct sector *sectors;
static uint8_t *first_contents;
static uint64_t last_seq;

static void stamp(uint8_t *buf, uint64_t sector, uint64_t seq)
{
	for (int i = 0; i < 512; i += 16) {
		memcpy(buf + i, &sector, 8);
		memcpy(buf + i + 8, &seq, 8);
	}
}

static void note(uint64_t sector, struct version v)
{
	struct sector *s = &sectors[sector];

	s->v = realloc(s->v, (s->n + 1) * sizeof(v));
	s->v[s->n++] = v;
}

struct guest_req {
	struct test_req t;
	uint8_t *buf;
	unsigned int event;
};

static void guest_done(struct block_req *req, int res)
{
	struct guest_req *g = container_of(req, struct guest_req, t.req);

	ck_assert_int_eq(res, 0);
	end_event(g->event);
	sem_post(g->t.done);
}

static void prepare_request(struct guest_req *g, uint8_t *busy)
{
	static const enum block_op ops[] = {BLOCK_WRITE, BLOCK_WRITE,	     BLOCK_WRITE,
					    BLOCK_WRITE, BLOCK_WRITE_ZEROES, BLOCK_DISCARD,
					    BLOCK_FLUSH};
	struct block_req *req = &g->t.req;
	uint64_t first = rnd(SECTORS), n = 1 + rnd(rnd(3) ? 24 : 600);

	req->op = ops[rnd(ARRAY_SIZE(ops))];
	n = MIN(n, SECTORS - first);
	for (uint64_t i = first; i < first + n; i++)
		if (busy[i])
			req->op = BLOCK_FLUSH;
	if (req->op == BLOCK_FLUSH) {
		req->offset = req->bytes = 0;
		return;
	}
	memset(busy + first, 1, n);
	req->offset = first * 512;
	req->bytes = n * 512;
	if (req->op == BLOCK_WRITE && !rnd(10))
		req->flags = BLOCK_FUA;
	if (req->op == BLOCK_WRITE_ZEROES && rnd(2))
		req->flags = BLOCK_UNMAP;
	g->buf = malloc(req->bytes);
	g->t.iov[0] = (struct iovec){g->buf, req->bytes};
	req->iov = g->t.iov;
	req->niov = 1;
}

struct guest_batch {
	struct guest_req *reqs;
	unsigned int n;
};

static void submit_guest(void *arg)
{
	struct guest_batch *b = arg;

	for (unsigned int i = 0; i < b->n; i++) {
		struct guest_req *g = &b->reqs[i];
		struct block_req *req = &g->t.req;
		uint64_t seq = ++last_seq;

		g->event = begin_event(req, true, seq);
		for (uint64_t s = 0; s < req->bytes / 512; s++) {
			uint64_t sector = req->offset / 512 + s;

			stamp(g->buf + s * 512, sector, seq);
			note(sector, (struct version){seq, req->op == BLOCK_WRITE_ZEROES,
						      req->op == BLOCK_DISCARD, g->event});
		}
		req->done = guest_done;
		req->loop = loop;
		block_submit(disk, req);
	}
}

static void guest_batch(void)
{
	struct guest_req reqs[MAX_BATCH] = {0};
	struct guest_batch b = {reqs, 1 + rnd(MAX_BATCH)};
	uint8_t *busy = calloc(1, SECTORS);
	sem_t done;

	sem_init(&done, 0, 0);
	for (unsigned int i = 0; i < b.n; i++) {
		prepare_request(&reqs[i], busy);
		reqs[i].t.done = &done;
	}
	loop_call(loop, submit_guest, &b);
	for (unsigned int i = 0; i < b.n; i++)
		while (sem_wait(&done) < 0)
			;
	sem_destroy(&done);
	for (unsigned int i = 0; i < b.n; i++)
		free(reqs[i].buf);
	free(busy);
}

/* --- cuts -------------------------------------------------------------------------------------- */

/* Was @e complete before a flush began (the file's, or the guest's) that itself was complete at @cut? A write through counts as flushed. */
static bool is_covered(const struct event *e, uint64_t cut)
{
	if (!e->end || e->end > cut)
		return false;
	if (e->op == BLOCK_WRITE && (e->flags & BLOCK_FUA))
		return true;
	for (unsigned int i = 0; i < nevents && events[i].begin < cut; i++) {
		const struct event *f = &events[i];

		if (f->op == BLOCK_FLUSH && f->guest == e->guest && f->begin > e->end && f->end &&
		    f->end <= cut)
			return true;
	}
	return false;
}

static void put_part(int fd, const struct event *e, uint64_t from, uint64_t bytes)
{
	static const uint8_t zeroes[4096];

	if (e->op == BLOCK_WRITE) {
		ck_assert_int_eq(pwrite(fd, e->data + from, bytes, e->offset + from), bytes);
		return;
	}
	for (uint64_t n; bytes; bytes -= n, from += n) {
		n = MIN(bytes, sizeof(zeroes));
		ck_assert_int_eq(pwrite(fd, zeroes, n, e->offset + from), n);
	}
}

/* Of what no flush covers, none, all or some sectors may have reached the medium. */
static void put_event(int fd, const struct event *e, uint64_t cut)
{
	unsigned int how = is_covered(e, cut) ? 2 : rnd(4);

	if (e->op == BLOCK_WRITE_ZEROES && e->bytes >= MiB)
		return; /* the file grows; there is nothing */
	if (e->op == BLOCK_DISCARD && how != 2)
		return;
	if (how == 2) {
		put_part(fd, e, 0, e->bytes);
		return;
	}
	for (uint64_t at = 0, n; how == 3 && at < e->bytes; at += n) {
		n = MIN(512 - ((e->offset + at) & 511), e->bytes - at);
		if (rnd(2))
			put_part(fd, e, at, n);
	}
}

static bool may_be(const struct version *v, uint64_t sector, const uint8_t *data)
{
	uint8_t want[512] = {0};

	if (v->seq && !v->zero)
		stamp(want, sector, v->seq);
	else if (!v->seq)
		memcpy(want, first_contents + sector * 512, 512);
	return !memcmp(want, data, 512);
}

static void check_sector(uint64_t sector, const uint8_t *data, uint64_t cut)
{
	static const uint8_t zeroes[512];
	const struct sector *s = &sectors[sector];
	const struct version start = {0};
	unsigned int oldest = 0;
	bool old = false;

	for (unsigned int i = 0; i < s->n; i++)
		if (is_covered(&events[s->v[i].event], cut) && !s->v[i].anything) {
			oldest = i;
			old = true;
		}
	if (!old && may_be(&start, sector, data))
		return;
	for (unsigned int i = oldest; i < s->n && events[s->v[i].event].begin < cut; i++)
		if (may_be(&s->v[i], sector, data) ||
		    (s->v[i].anything && !memcmp(data, zeroes, 512)))
			return;
	ck_abort_msg(
		"cut at %llu: sector %llu holds what it should not: %02x %02x… seq %llu, not %llu or later",
		(unsigned long long)cut, (unsigned long long)sector, data[0], data[1],
		*(unsigned long long *)(data + 8), old ? (unsigned long long)s->v[oldest].seq : 0);
}

static void check_cut(const struct kind *k, uint64_t cut)
{
	uint8_t *data = malloc(DISK);
	int fd;

	must_sh("cp --sparse=always start cut");
	fd = open("cut", O_RDWR);
	for (unsigned int i = 0; i < nevents && events[i].begin < cut; i++)
		if (!events[i].guest && events[i].op != BLOCK_FLUSH)
			put_event(fd, &events[i], cut);
	close(fd);
	must_sh("%s", k->check);
	must_sh("qemu-img convert -O raw cut contents");
	fd = open("contents", O_RDONLY);
	ck_assert_int_eq(pread_all(fd, data, DISK, 0), 0);
	close(fd);
	for (uint64_t s = 0; s < SECTORS; s++)
		check_sector(s, data + s * 512, cut);
	free(data);
}

/* _i: the engine, and twice the kind. */
START_TEST(power_fails)
{
	const struct kind *k = &kinds[_i / 2];
	int fd;

	set_up(_i % 2);
	rng = 0x9e3779b97f4a7c15ull + _i;
	if (k->prepare)
		must_sh("%s", k->prepare);
	must_sh("qemu-img create -q -f qcow2 %s disk %llu", k->create, DISK);
	if (k->after)
		must_sh("%s", k->after);
	must_sh("cp disk start; qemu-img convert -O raw disk contents");
	first_contents = malloc(DISK);
	fd = open("contents", O_RDONLY);
	ck_assert_int_eq(pread_all(fd, first_contents, DISK, 0), 0);
	close(fd);
	sectors = calloc(SECTORS, sizeof(*sectors));
	ck_assert_msg(
		try_open(
			NULL,
			"driver=qcow2,file.driver=test-recorder,file.file.driver=file,file.file.filename=disk",
			&disk) == 0,
		"%s", error.message);
	ck_assert_msg(block_use_node(disk, vm, BLOCK_USE_WRITE, &error) == 0, "%s", error.message);
	ck_assert_int_eq(block_attach(disk, loop, &error), 0);
	for (int i = 0; i < BATCHES; i++)
		guest_batch();
	close_node(disk);
	for (int i = 0; i < CUTS; i++)
		check_cut(k, i == CUTS - 1 ? moment + 1 : 1 + rnd(moment));
	tear_down();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("power");
	Suite *s = suite_create("qcow2 power");
	SRunner *sr;
	int failures;

	tcase_set_timeout(t, 120);
	tcase_add_loop_test(t, power_fails, 0, 2 * ARRAY_SIZE(kinds));
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
