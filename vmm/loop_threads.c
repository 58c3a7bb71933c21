/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The engine for where io_uring is refused: epoll for descriptors, and a pool of threads for disk I/O, of which there are none before
 * the first request.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop_impl.h"

#define POOL_THREADS 16
#define POOL_IDLE_NS (5 * NSEC_PER_SEC) /* after that a thread with nothing to do ends */
#define EPOLL_EVENTS 64

#ifdef __SANITIZE_ADDRESS__
#define POOL_STACK (1 * MiB)
#else
#define POOL_STACK (64 * KiB)
#endif

struct pool {
	pthread_mutex_t lock;
	pthread_cond_t work, gone;
	struct loop_io *head, **tail; /* waiting */
	unsigned int queued, threads, idle;
	bool stop;
};

struct threads_engine {
	struct loop *loop;
	int epfd;
	bool no_pwait2;
	int nevents;
	struct epoll_event events[EPOLL_EVENTS];
	struct list dead;     /* slots to be freed once the events at hand are through */
	unsigned int nalways; /* slots that are always ready and not suspended */
	struct pool pool;
};

/* --- the pool ---------------------------------------------------------------------------------- */

static int io_perform(const struct loop_io *io)
{
	ssize_t ret;

	do {
		switch (io->op) {
		case LOOP_IO_READ:
			ret = preadv2(io->fd, io->iov, io->niov, io->offset, io->flags);
			break;
		case LOOP_IO_WRITE:
			ret = pwritev2(io->fd, io->iov, io->niov, io->offset, io->flags);
			break;
		case LOOP_IO_FDATASYNC:
			ret = fdatasync(io->fd);
			break;
		case LOOP_IO_FALLOCATE:
			ret = fallocate(io->fd, io->flags, io->offset, io->len);
			break;
		default:
			return -EINVAL;
		}
	} while (ret < 0 && errno == EINTR);
	return ret < 0 ? -errno : (int)ret;
}

static void io_finished(struct loop *loop, struct loop_io *io)
{
	io->next = __atomic_load_n(&loop->finished, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&loop->finished, &io->next, io, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	loop_wake(loop);
}

/* Wait for work, with the lock held. NULL: the thread is to end. */
static struct loop_io *pool_take(struct pool *pool)
{
	struct loop_io *io;
	struct timespec until;
	int ret = 0;

	while (!pool->head) {
		if (pool->stop || ret == ETIMEDOUT)
			return NULL;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += POOL_IDLE_NS / NSEC_PER_SEC;
		pool->idle++;
		ret = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
		pool->idle--;
	}
	io = pool->head;
	pool->head = io->next;
	if (!pool->head)
		pool->tail = &pool->head;
	pool->queued--;
	return io;
}

static void *pool_main(void *arg)
{
	struct threads_engine *t = arg;
	struct pool *pool = &t->pool;
	struct loop_io *io;

	prctl(PR_SET_NAME, "hako-io");
	pthread_mutex_lock(&pool->lock);
	while ((io = pool_take(pool)) != NULL) {
		pthread_mutex_unlock(&pool->lock);
		io->res = io_perform(io);
		io_finished(t->loop, io);
		pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	pthread_cond_signal(&pool->gone);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* One thread more, with the lock held. */
static bool pool_grow(struct threads_engine *t)
{
	pthread_t thread;

	if (thread_create(&thread, POOL_STACK, pool_main, t) < 0)
		return false;
	pthread_detach(thread);
	t->pool.threads++;
	return true;
}

static void pool_submit(struct threads_engine *t, struct loop *loop)
{
	struct pool *pool = &t->pool;
	struct loop_io *io;
	unsigned int wake;
	bool stuck;

	if (!loop->io)
		return;
	pthread_mutex_lock(&pool->lock);
	*pool->tail = loop->io;
	pool->tail = loop->io_tail;
	for (io = loop->io; io; io = io->next)
		pool->queued++;
	loop->io = NULL;
	loop->io_tail = &loop->io;
	wake = MIN(pool->queued, pool->idle);
	for (unsigned int i = 0; i < wake; i++)
		pthread_cond_signal(&pool->work);
	for (unsigned int i = wake; i < pool->queued && pool->threads < POOL_THREADS; i++)
		if (!pool_grow(t))
			break;
	stuck = !pool->threads;
	pthread_mutex_unlock(&pool->lock);
	/* Not a single thread to be had: slow, but it goes on. */
	while (stuck && (io = pool->head) != NULL) {
		pool->head = io->next;
		pool->queued--;
		io->res = io_perform(io);
		io_finished(loop, io);
	}
	if (stuck)
		pool->tail = &pool->head;
}

static int pool_init(struct pool *pool)
{
	pthread_condattr_t attr;

	if (pthread_condattr_init(&attr))
		return -ENOMEM;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, &attr);
	pthread_cond_init(&pool->gone, NULL);
	pthread_condattr_destroy(&attr);
	pool->tail = &pool->head;
	return 0;
}

static void pool_free(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	while (pool->threads)
		pthread_cond_wait(&pool->gone, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_destroy(&pool->gone);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
}

/* --- watches ----------------------------------------------------------------------------------- */

static int slot_ctl(struct threads_engine *t, struct loop_slot *slot, int op)
{
	/* POLLIN and the others have the values of EPOLLIN and the others. */
	struct epoll_event ev = {
		.events = slot->watch ? slot->watch->events : 0,
		.data.ptr = slot,
	};

	if (slot->watch && slot->watch->edge)
		ev.events |= EPOLLET;
	return epoll_ctl(t->epfd, op, slot->fd, &ev) < 0 ? -errno : 0;
}

/* Bring the kernel's side in line with the watch's events. A suspended one is taken out, else it would report errors. */
static int slot_update(struct threads_engine *t, struct loop_slot *slot)
{
	bool want = slot->watch && slot->watch->events;
	int ret = 0;

	if (slot->always) {
		t->nalways += want - slot->armed;
	} else if (want) {
		ret = slot_ctl(t, slot, slot->armed ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
		if (ret == -EEXIST && !slot->own_fd) {
			/* Somebody else watches this descriptor, and epoll knows it only once. */
			int fd = fcntl(slot->fd, F_DUPFD_CLOEXEC, 3);

			if (fd < 0)
				return -errno;
			slot->fd = fd;
			slot->own_fd = true;
			ret = slot_ctl(t, slot, EPOLL_CTL_ADD);
		} else if (ret == -EPERM) {
			/* A regular file, /dev/null: never has to wait. */
			slot->always = true;
			t->nalways++;
			ret = 0;
		}
	} else if (slot->armed) {
		slot_ctl(t, slot, EPOLL_CTL_DEL);
	}
	slot->armed = want && ret == 0;
	return ret;
}

static int threads_watch_start(struct loop *loop, struct loop_slot *slot, struct hako_error *err)
{
	int ret = slot_update(loop->engine, slot);

	return ret < 0 ? error_errno(err, ret, "epoll") : 0;
}

static void threads_watch_set(struct loop *loop, struct loop_slot *slot)
{
	slot_update(loop->engine, slot);
}

static void threads_watch_stop(struct loop *loop, struct loop_slot *slot)
{
	struct threads_engine *t = loop->engine;

	slot_update(t, slot);
	if (slot->own_fd)
		close(slot->fd);
	slot->own_fd = false;
	/* The events at hand may name it still. */
	slot->armed = true;
	list_add_tail(&slot->changed, &t->dead);
}

/* --- turns ------------------------------------------------------------------------------------- */

static int epoll_sleep(struct threads_engine *t, uint64_t timeout)
{
	struct timespec ts = {timeout / NSEC_PER_SEC, timeout % NSEC_PER_SEC};
	int n = -1, ms;

	if (!t->no_pwait2) {
		n = epoll_pwait2(t->epfd, t->events, EPOLL_EVENTS,
				 timeout == LOOP_NO_TIMEOUT ? NULL : &ts, NULL);
		if (n >= 0 || (errno != ENOSYS && errno != EPERM))
			return n;
		t->no_pwait2 = true; /* before Linux 5.11, or an old seccomp policy */
	}
	ms = timeout == LOOP_NO_TIMEOUT ? -1 : (int)MIN((timeout + 999999) / 1000000, 1ull << 30);
	return epoll_wait(t->epfd, t->events, EPOLL_EVENTS, ms);
}

static void threads_wait(struct loop *loop, uint64_t timeout)
{
	struct threads_engine *t = loop->engine;

	pool_submit(t, loop);
	t->nevents = epoll_sleep(t, t->nalways ? 0 : timeout);
}

static bool threads_pending(struct loop *loop)
{
	struct threads_engine *t = loop->engine;

	return t->nevents || t->nalways;
}

static void dispatch_always(struct loop *loop, struct threads_engine *t)
{
	struct loop_slot *slot, *tmp;

	if (!t->nalways)
		return;
	/* A slot stopped meanwhile stays in the list, so that the next one is good. */
	list_for_each_safe(slot, tmp, &loop->slots, link)
		if (slot->always && slot->watch && slot->watch->events)
			loop_slot_fire(slot, POLLIN | POLLOUT);
}

static void dispatch_io(struct loop *loop)
{
	struct loop_io *io, *next, *fifo = NULL;

	if (!__atomic_load_n(&loop->finished, __ATOMIC_RELAXED))
		return;
	io = __atomic_exchange_n(&loop->finished, NULL, __ATOMIC_ACQUIRE);
	for (; io; io = next) {
		next = io->next;
		io->next = fifo;
		fifo = io;
	}
	for (io = fifo; io; io = next) {
		next = io->next;
		loop_io_done(io, io->res);
	}
}

static void threads_dispatch(struct loop *loop)
{
	struct threads_engine *t = loop->engine;
	struct loop_slot *slot, *tmp;

	for (int i = 0; i < t->nevents; i++) {
		slot = t->events[i].data.ptr;
		if (slot->watch)
			loop_slot_fire(slot, t->events[i].events & 0xffff);
	}
	t->nevents = 0;
	dispatch_always(loop, t);
	dispatch_io(loop);
	list_for_each_safe(slot, tmp, &t->dead, changed)
		loop_slot_free(slot);
}

/* --- set-up ------------------------------------------------------------------------------------ */

static int threads_init(struct loop *loop, struct hako_error *err)
{
	struct threads_engine *t = calloc(1, sizeof(*t));
	int ret;

	if (!t)
		return error_errno(err, -ENOMEM, "epoll");
	t->loop = loop;
	list_init(&t->dead);
	ret = pool_init(&t->pool);
	if (ret == 0) {
		t->epfd = epoll_create1(EPOLL_CLOEXEC);
		if (t->epfd < 0) {
			ret = -errno;
			pool_free(&t->pool);
		}
	}
	if (ret < 0) {
		free(t);
		return error_errno(err, ret, "epoll");
	}
	loop->engine = t;
	return 0;
}

static void threads_free(struct loop *loop)
{
	struct threads_engine *t = loop->engine;

	pool_free(&t->pool);
	close(t->epfd);
	free(t);
	loop->engine = NULL;
}

const struct loop_ops loop_threads_ops = {
	.engine = LOOP_THREADS,
	.init = threads_init,
	.free = threads_free,
	.wait = threads_wait,
	.pending = threads_pending,
	.dispatch = threads_dispatch,
	.watch_start = threads_watch_start,
	.watch_set = threads_watch_set,
	.watch_stop = threads_watch_stop,
};
