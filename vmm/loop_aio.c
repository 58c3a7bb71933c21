/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes into the page cache, in the loop's own thread. Most file systems can not say beforehand whether such a write will wait, so io_uring hands
 * each to a thread of its own, which costs several times what the write does. io_submit(2), the older interface, just performs
 * them, many with one system call; their results are in memory that it shares with us.
 *
 * io_submit(2)'s context takes the kernel a grace period to end, 20 to 40 ms, so there is none before many writes were made.
 *
 * The price is that the loop waits when a write does. When that has taken long more than once, all go by io_uring for a while.
 */
#include <linux/aio_abi.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop_impl.h"

#define AIO_WORTH    4096 /* writes in which as much is saved */
#define AIO_LONG_NS  (NSEC_PER_SEC / 33)
#define AIO_WATCH_NS (10 * NSEC_PER_SEC)
#define AIO_PAUSE_NS (10 * NSEC_PER_SEC)

/* What the kernel maps at the context's address, with its events behind. */
struct aio_ring {
	uint32_t id, nr, head, tail, magic, compat_features, incompat_features, header_length;
	struct io_event events[];
};
#define AIO_RING_MAGIC 0xa10a10a1

static bool open_context(struct loop_aio *a)
{
	const struct aio_ring *r;

	a->tried = true;
	/* Refused without CONFIG_AIO, or beyond fs.aio-max-nr. */
	if (syscall(SYS_io_setup, LOOP_AIO_BATCH, &a->context) < 0)
		return false;
	r = (const struct aio_ring *)a->context;
	if (r->magic != AIO_RING_MAGIC || r->incompat_features ||
	    r->header_length != sizeof(struct aio_ring))
		loop_aio_free(a);
	return a->context;
}

void loop_aio_free(struct loop_aio *a)
{
	if (a->context)
		syscall(SYS_io_destroy, a->context);
	a->context = 0;
}

bool loop_aio_add(struct loop_aio *a, struct loop_io *io)
{
	if (!a->context && (a->tried || ++a->asked < AIO_WORTH || !open_context(a)))
		return false;
	if (a->n == LOOP_AIO_BATCH || (a->not_before && clock_now() < a->not_before))
		return false;
	a->not_before = 0;
	a->ios[a->n++] = io;
	return true;
}

static void prep(struct iocb *cb, struct loop_io *io)
{
	*cb = (struct iocb){
		.aio_data = (uintptr_t)io,
		.aio_lio_opcode = IOCB_CMD_PWRITEV,
		.aio_fildes = io->fd,
		.aio_buf = (uintptr_t)io->iov,
		.aio_nbytes = io->niov,
		.aio_offset = (int64_t)io->offset,
		.aio_rw_flags = (int)io->flags,
	};
}

static void keep(struct loop_aio *a, struct loop_io *io, int res)
{
	io->res = res;
	io->next = NULL;
	*a->done_tail = io;
	a->done_tail = &io->next;
}

/* What has been performed. How many. */
static unsigned int reap(struct loop_aio *a)
{
	struct aio_ring *r = (struct aio_ring *)a->context;
	uint32_t head = r->head, tail = __atomic_load_n(&r->tail, __ATOMIC_ACQUIRE);
	unsigned int n = 0;

	for (; head != tail; n++) {
		const struct io_event *e = &r->events[head];

		keep(a, (struct loop_io *)(uintptr_t)e->data, (int)e->res);
		head = (head + 1) % r->nr;
	}
	__atomic_store_n(&r->head, head, __ATOMIC_RELEASE);
	return n;
}

/* A file system that begins writes and ends them later, though it was asked for no such thing. */
static void wait_for(struct loop_aio *a, unsigned int n)
{
	struct io_event e;

	while (n) {
		long got = syscall(SYS_io_getevents, a->context, 1, 1, &e, NULL);

		if (got < 0 && errno != EINTR)
			return;
		if (got > 0) {
			keep(a, (struct loop_io *)(uintptr_t)e.data, (int)e.res);
			n--;
		}
	}
}

/* How often this thread has waited for something else than a CPU. */
static long sleeps(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) < 0 ? 0 : usage.ru_nvcsw;
}

static void perform(struct loop_aio *a)
{
	struct iocb cbs[LOOP_AIO_BATCH], *list[LOOP_AIO_BATCH];
	unsigned int n = a->n, given, reaped;
	long ret;

	a->n = 0;
	a->done_tail = &a->done;
	for (unsigned int i = 0; i < n; i++) {
		prep(&cbs[i], a->ios[i]);
		list[i] = &cbs[i];
	}
	ret = syscall(SYS_io_submit, a->context, n, list);
	given = ret < 0 ? 0 : (unsigned int)ret;
	reaped = reap(a);
	if (unlikely(reaped < given))
		wait_for(a, given - reaped);
	for (unsigned int i = given; i < n; i++)
		keep(a, a->ios[i], -EAGAIN);
}

void loop_aio_submit(struct loop_aio *a)
{
	uint64_t begin = clock_now(), end;
	bool watched = begin < a->watch_until;
	long slept = watched ? sleeps() : 0;

	perform(a);
	end = clock_now();
	if (end - begin <= AIO_LONG_NS)
		return;
	/* On a busy machine it may just not have had a CPU. To look after that costs, so it is not done before there is a cause. */
	a->watch_until = end + AIO_WATCH_NS;
	if (watched && sleeps() != slept)
		a->not_before = end + AIO_PAUSE_NS;
}

void loop_aio_dispatch(struct loop *loop, struct loop_aio *a)
{
	struct loop_io *io, *next;

	for (io = a->done, a->done = NULL; io; io = next) {
		next = io->next;
		if (likely(io->res != -EAGAIN)) {
			loop_io_done(io, io->res);
			continue;
		}
		/* The kernel did not take it. */
		io->here = false;
		loop->inflight--;
		loop_io_submit(loop, io);
	}
}
