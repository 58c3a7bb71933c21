/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Event loops: one thread each, which owns the queues, disks and connections that were given to it. On io_uring; where that is
 * refused, on epoll with a pool of threads for disk I/O. Callbacks run in the loop's thread, one at a time.
 *
 * Unless noted, functions may be called in the loop's thread only. loop_post() and loop_call() are the way in from others.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <pthread.h>

#include <poll.h>
#include <sys/uio.h>

#include "error.h"
#include "util.h"

struct loop;
struct sandbox;

enum loop_engine {
	LOOP_AUTO,
	LOOP_IO_URING,
	LOOP_THREADS
};

/**
 * Make a loop and start its thread, named @name (15 characters count). With LOOP_AUTO io_uring is taken if the kernel
 * allows it. -ENOSYS or -EPERM if LOOP_IO_URING is asked for and refused. Any thread.
 */
int loop_new(struct loop **loop, const char *name, enum loop_engine engine, struct hako_error *err);
/** Stop the thread once all I/O has completed, and free. Not from the loop's own thread. */
void loop_free(struct loop *loop);
/** Its thread, for as long as the loop lives. */
pthread_t loop_thread(const struct loop *loop);
enum loop_engine loop_engine(const struct loop *loop);
/** Is this the loop's own thread? Any thread. */
bool loop_is_current(const struct loop *loop);

/**
 * Confine the loop's thread (sandbox.h). If the VM has work that blocks, a thread is made first that may make those of the pool. From another
 * thread, which is not confined yet.
 */
int loop_confine(struct loop *loop, struct sandbox *sb, struct hako_error *err);

/* --- messages ---------------------------------------------------------------------------------- */

/* A message: the caller's memory, which must live until @fn is called; @fn may free or post it again. */
struct loop_msg {
	struct loop_msg *next;
	void (*fn)(struct loop_msg *msg);
	bool posted; /* the loop's */
};

/**
 * Have @msg->fn called in the loop's thread, in order of posting. Any thread, the loop's own too. Posting a message that is
 * already under way does nothing (and needs no system call), so that a doorbell can be rung freely.
 */
void loop_post(struct loop *loop, struct loop_msg *msg);

/**
 * Run @fn(@arg) in the loop's thread and wait for it, and for the end of that turn: what @fn deferred and signalled is done, and a
 * descriptor that it stopped watching is no longer held by the kernel. From any thread; from the loop's own it is a plain call. Without @fn it
 * waits for what was posted before.
 */
void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg);

/* --- descriptors ------------------------------------------------------------------------------- */

/*
 * Watch a descriptor. @fn gets the poll events that are there. Level-triggered, unless @edge: then a call after each
 * wake-up of the descriptor (several may come as one), and nobody has to read an eventfd to silence it. A call too many
 * is possible, also with an event that is not there (io_uring passes on what the descriptor's waker claims). POLLERR and POLLHUP are reported unasked, unless suspended.
 */
struct loop_watch {
	struct loop *loop;
	int fd;
	uint32_t events; /* POLLIN, POLLOUT, POLLRDHUP; 0: suspended */
	bool edge;
	void (*fn)(struct loop_watch *watch, uint32_t revents);
	void *opaque;
	/* the loop's */
	struct list link;
	void *impl;
};

/** Start: fd, events, edge, fn and opaque are set. */
int loop_watch_start(struct loop *loop, struct loop_watch *watch, struct hako_error *err);
/** Change the events awaited. */
void loop_watch_set(struct loop_watch *watch, uint32_t events);
/** Stop; @fn is not called any more and @watch may be freed at once. Stopping a stopped watch (loop NULL) does nothing. */
void loop_watch_stop(struct loop_watch *watch);

/* --- polling ----------------------------------------------------------------------------------- */

/*
 * Something in memory that tells of work: a ring that a guest fills. If its last sleeps were short, the loop looks there for some
 * microseconds before the next, and whoever fills the ring has no need to wake it meanwhile.
 */
struct loop_poller {
	/* Do what work there is. False: there was none. */
	bool (*poll)(struct loop_poller *poller);
	/* The loop is about to sleep: ask to be woken from now on, if that has not been done; then as poll. */
	bool (*arm)(struct loop_poller *poller);
	/* the loop's */
	struct list link;
};

/** poll and arm are set. */
void loop_poller_start(struct loop *loop, struct loop_poller *poller);
void loop_poller_stop(struct loop_poller *poller);

/* --- timers ------------------------------------------------------------------------------------ */

struct loop_timer {
	void (*fn)(struct loop_timer *timer);
	void *opaque;
	/* the loop's; a pairing heap, so that setting a timer can not fail */
	struct loop *loop; /* NULL: not set */
	uint64_t deadline;
	struct loop_timer *child, *next, *prev;
};

/** Call timer->fn once at @deadline (clock_now()'s nanoseconds); replaces an earlier setting. */
void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline);
void loop_timer_cancel(struct loop_timer *timer);

/* --- work that blocks --------------------------------------------------------------------------- */

/* Something that only a blocking system call can do. The caller's memory, until @done. */
struct loop_work {
	void (*fn)(
		struct loop_work *
			work); /* in a thread of the loop's pool; several run at once, in no order */
	void (*done)(
		struct loop_work *work); /* in the loop's thread; may free or submit it again */
	/* the loop's */
	struct loop_msg msg;
	struct loop_work *next;
	struct loop *loop;
};

/** Have it done. Never fails; @done is never called from within. */
void loop_work_submit(struct loop *loop, struct loop_work *work);

/* --- disk I/O ---------------------------------------------------------------------------------- */

enum loop_io_op {
	LOOP_IO_READ,  /* preadv2 at offset into iov */
	LOOP_IO_WRITE, /* pwritev2; @flags may be RWF_DSYNC */
	LOOP_IO_FDATASYNC,
	LOOP_IO_FALLOCATE, /* @flags is fallocate's mode, @len its length */
};

/* One request. The caller's memory, untouched by him until @done. */
struct loop_io {
	enum loop_io_op op;
	int fd;
	int fixed; /* index from loop_file_register(), or -1 */
	uint32_t flags;
	uint64_t offset, len;
	const struct iovec *iov;
	int niov;
	/*
	 * WRITE: it only goes into the page cache, but the file system can not say whether that will wait. The loop may perform it in its own
	 * thread, which is faster by far while it does not wait.
	 */
	bool here;
	/* @res: bytes (may be short) or 0, or a negative errno. */
	void (*done)(struct loop_io *io, int res);
	/* the loop's */
	struct loop_io *next;
	struct loop *loop;
	struct loop_work work;
	int res;
};

/**
 * Queue; it is given to the kernel with all others of this turn in one system call. Never fails; if there is no room,
 * it waits in a list. @done is never called from within loop_io_submit().
 */
void loop_io_submit(struct loop *loop, struct loop_io *io);

/* A packet, say: bytes that are read or written as one. */
struct loop_packet {
	const struct iovec *iov;
	int niov;
	ssize_t res; /* bytes, or a negative errno */
};

/**
 * Read (LOOP_IO_READ) or write (LOOP_IO_WRITE) @n packets, in order and before it returns, as readv(2) and writev(2) of a descriptor with
 * O_NONBLOCK do, but with few system calls. Sets @res of each: -EAGAIN where it would have to wait. A later one may succeed nevertheless.
 */
void loop_io_packets(struct loop *loop, enum loop_io_op op, int fd, struct loop_packet *packet,
		     unsigned int n);

/** Register a file for faster access in this loop. An index, or -1 if the engine has no such thing; then use -1. */
int loop_file_register(struct loop *loop, int fd);
void loop_file_unregister(struct loop *loop, int index);

/** Write 1 to the eventfd @fd (an irqfd) at the end of this turn, once however often it was asked for. */
void loop_signal(struct loop *loop, int fd);

/** Call @fn once when this turn's callbacks are done, before the loop sleeps (to batch notifications). */
struct loop_defer {
	struct loop_defer *next;
	void (*fn)(struct loop_defer *defer);
	bool queued;
};
void loop_defer(struct loop *loop, struct loop_defer *defer);

#endif
