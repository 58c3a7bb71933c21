/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img bench: requests of one kind, so many at a time, on the loop as a guest's would be. */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "img.h"

#define MAX_DEPTH 65536

struct bench_args {
	char *format, *cache;
	char **object;
	bool image_opts, force_share, quiet, write, native, no_drain;
	unsigned int count, depth, pattern, flush_interval, buffer;
	int aio;
	uint64_t offset, step;
};

static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};

#define T struct bench_args
static const struct option bench_options[] = {
	OPT_UINT("c|count", T, count, "75000", 0, INT32_MAX, "number of requests"),
	OPT_UINT("d|depth", T, depth, "64", 1, MAX_DEPTH, "so many at a time"),
	OPT_SIZE("s|buffer-size", T, buffer, "4096", 1, 1 << 30, "bytes of a request"),
	OPT_SIZE("S|step-size", T, step, "0", 0, INT64_MAX,
		 "from one request's place to the next's; 0: its size"),
	OPT_SIZE("o|offset", T, offset, "0", 0, INT64_MAX, "place of the first"),
	OPT_BOOL("w|write", T, write, "off", "write"),
	OPT_UINT("pattern", T, pattern, "0", 0, 255, "the byte that is written"),
	OPT_UINT("flush-interval", T, flush_interval, "0", 0, INT32_MAX,
		 "flush after so many writes"),
	OPT_BOOL("no-drain", T, no_drain, "off", "flush while writes are under way"),
	OPT_ENUM("i|aio", T, aio, "io_uring", aio_names,
		 "accepted for compatibility: the event loop decides how I/O is done"),
	OPT_BOOL("n|native", T, native, "off", "accepted for compatibility"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_CACHE(T, "writeback"),
	OPT_BOOL("q|quiet", T, quiet, "off", "accepted: the result is printed all the same"),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

struct bench;

struct slot {
	struct block_req req;
	struct iovec iov;
	struct bench *b;
	struct slot *next; /* free */
};

struct bench {
	const struct bench_args *a;
	struct loop *loop;
	struct block_node *node;
	struct slot *slots, *free;
	struct block_req flush;
	uint64_t offset, step;
	unsigned int left; /* to be submitted */
	unsigned int in_flight;
	unsigned int until_flush; /* writes until the next one is due */
	bool flush_due, flushing;
	int res;
	sem_t ended;
};

static void go_on(struct bench *b);

static void request_done(struct block_req *req, int res)
{
	struct slot *s = container_of(req, struct slot, req);
	struct bench *b = s->b;

	if (res < 0 && b->res == 0)
		b->res = res;
	s->next = b->free;
	b->free = s;
	b->in_flight--;
	go_on(b);
}

static void flush_done(struct block_req *req, int res)
{
	struct bench *b = req->opaque;

	if (res < 0 && b->res == 0)
		b->res = res;
	b->flushing = false;
	b->in_flight--;
	go_on(b);
}

static void submit_flush(struct bench *b)
{
	b->flush_due = false;
	b->flushing = true;
	b->in_flight++;
	b->flush = (struct block_req){
		.op = BLOCK_FLUSH, .done = flush_done, .loop = b->loop, .opaque = b};
	block_submit(b->node, &b->flush);
}

static void submit_request(struct bench *b)
{
	uint64_t length = b->node->length, bytes = b->a->buffer;
	struct slot *s = b->free;
	struct block_req *req = &s->req;

	b->free = s->next;
	req->op = b->a->write ? BLOCK_WRITE : BLOCK_READ;
	req->flags = 0;
	req->offset = b->offset;
	req->bytes = bytes;
	req->iov = &s->iov;
	req->niov = 1;
	req->done = request_done;
	req->loop = b->loop;
	b->left--;
	b->in_flight++;
	b->offset += b->step;
	b->offset %= length;
	if (bytes > length - b->offset)
		b->offset = 0;
	if (b->a->flush_interval && !--b->until_flush) {
		b->flush_due = true;
		b->until_flush = b->a->flush_interval;
	}
	block_submit(b->node, req);
}

/* Submit what may be submitted now. */
static void go_on(struct bench *b)
{
	while (b->res == 0) {
		if (b->flush_due) {
			/* One flush at a time; all before it have ended, unless the user does not care. */
			if (b->flushing || (b->in_flight && !b->a->no_drain))
				return;
			submit_flush(b);
			if (!b->a->no_drain)
				return;
			continue;
		}
		if ((b->flushing && !b->a->no_drain) || !b->left || !b->free)
			break;
		submit_request(b);
	}
	if (!b->in_flight)
		sem_post(&b->ended);
}

static void begin(void *arg)
{
	go_on(arg);
}

static uint8_t *make_slots(struct bench *b)
{
	size_t each = ALIGN_UP((size_t)b->a->buffer, PAGE_SIZE), bytes = each * b->a->depth;
	uint8_t *mem;

	b->slots = calloc(b->a->depth, sizeof(*b->slots));
	if (!b->slots)
		return NULL;
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (mem == MAP_FAILED)
		return NULL;
	/* Pages are there before the clock starts. */
	memset(mem, b->a->write ? b->a->pattern : 0, bytes);
	for (unsigned int i = 0; i < b->a->depth; i++) {
		struct slot *s = &b->slots[i];

		s->b = b;
		s->iov = (struct iovec){mem + i * each, b->a->buffer};
		s->next = b->free;
		b->free = s;
	}
	return mem;
}

static int measure(struct img *img, struct bench *b)
{
	const struct bench_args *a = b->a;
	uint8_t *mem = make_slots(b);
	uint64_t start;

	if (!mem) {
		free(b->slots);
		return img_error(img, "not enough memory for %u requests of %u bytes", a->depth,
				 a->buffer);
	}
	printf("Sending %u %s requests, %u bytes each, %u in parallel (starting at offset %llu, "
	       "step size %llu)\n",
	       a->count, a->write ? "write" : "read", a->buffer, a->depth,
	       (unsigned long long)a->offset, (unsigned long long)b->step);
	if (a->flush_interval)
		printf("Sending flush every %u requests\n", a->flush_interval);
	fflush(stdout);
	sem_init(&b->ended, 0, 0);
	start = clock_now();
	loop_call(b->loop, begin, b);
	while (sem_wait(&b->ended) < 0)
		; /* a signal */
	start = clock_now() - start;
	sem_destroy(&b->ended);
	munmap(mem, ALIGN_UP((size_t)a->buffer, PAGE_SIZE) * a->depth);
	free(b->slots);
	if (b->res < 0)
		return img_error(img, "Failed request: %s", strerror(-b->res));
	printf("Run completed in %3.3f seconds.\n", (double)start / NSEC_PER_SEC);
	return 0;
}

static int run(struct img *img)
{
	const struct bench_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.cache = a->cache,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
		.write = a->write,
	};
	struct bench b = {
		.a = a,
		.offset = a->offset,
		.left = a->count,
		.until_flush = a->flush_interval,
		.step = a->step ? a->step : a->buffer,
	};
	struct hako_error err;

	if (img_check_objects(img, a->object))
		return 1;
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	if (!a->write && a->flush_interval)
		return img_error(img, "--flush-interval is only available in write tests");
	if (a->flush_interval && a->flush_interval < a->depth)
		return img_error(img, "Flush interval can't be smaller than depth");
	open.name = img->argv[0];
	if (img_open(img, &open, &b.node, &err))
		return img_fail(img, &err);
	if (b.node->length < a->buffer || a->offset > b.node->length - a->buffer)
		return img_error(img, "%s ends before the first request does", open.name);
	b.loop = img->loop;
	return measure(img, &b);
}

const struct img_command img_bench = {
	.name = "bench",
	.arguments = "FILENAME",
	.help = "how fast an image is read or written",
	.options = bench_options,
	.args_size = sizeof(struct bench_args),
	.run = run,
};
