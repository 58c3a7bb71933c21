/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The engine for where io_uring is refused: epoll for descriptors, and the loop's pool of threads for disk I/O.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "loop_impl.h"

#define EPOLL_EVENTS 64

struct threads_engine {
	struct loop *loop;
	int epfd;
	bool no_pwait2;
	int nevents;
	struct epoll_event events[EPOLL_EVENTS];
	struct list dead;     /* slots to be freed once the events at hand are through */
	unsigned int nalways; /* slots that are always ready and not suspended */
};

/* --- disk I/O ---------------------------------------------------------------------------------- */

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

/* In a thread of the pool. */
static void io_run(struct loop_work *work)
{
	struct loop_io *io = container_of(work, struct loop_io, work);

	io->res = io_perform(io);
}

static void io_finished(struct loop_msg *msg)
{
	struct loop_io *io = container_of(msg, struct loop_io, work.msg);

	loop_io_done(io, io->res);
}

static void submit_io(struct loop *loop)
{
	struct loop_io *io = loop->io, *next;

	loop->io = NULL;
	loop->io_tail = &loop->io;
	for (; io; io = next) {
		next = io->next;
		io->work.fn = io_run;
		io->work.msg.fn = io_finished;
		loop_pool_add(loop, &io->work);
	}
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

	submit_io(loop);
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
	list_for_each_safe(slot, tmp, &t->dead, changed)
		loop_slot_free(slot);
}

/* --- set-up ------------------------------------------------------------------------------------ */

static int threads_init(struct loop *loop, struct hako_error *err)
{
	struct threads_engine *t = calloc(1, sizeof(*t));

	if (!t)
		return error_errno(err, -ENOMEM, "epoll");
	t->loop = loop;
	list_init(&t->dead);
	t->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (t->epfd < 0) {
		int ret = error_errno(err, -errno, "epoll");

		free(t);
		return ret;
	}
	loop->engine = t;
	return 0;
}

static void threads_free(struct loop *loop)
{
	struct threads_engine *t = loop->engine;

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
