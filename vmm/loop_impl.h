/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Between the loop and its engines. A turn of a loop is: callbacks for what the kernel reported; messages; timers; deferred calls;
 * then the engine hands over all that was asked for in the meantime, and sleeps. Callbacks only change lists, never the
 * engine's rings.
 */
#ifndef VMM_LOOP_IMPL_H
#define VMM_LOOP_IMPL_H

#include <pthread.h>

#include "loop.h"

#define LOOP_MAX_SIGNALS 64 /* in one turn; more are written at once */
#define LOOP_NO_TIMEOUT	 UINT64_MAX

/*
 * The engine's side of a watch. It outlives the watch until the kernel has let go of it, since events may be on their way when a
 * watch is stopped.
 */
struct loop_slot {
	struct loop_watch *watch; /* NULL: stopped, waits to be freed */
	struct list link;	  /* in loop->slots */
	struct list changed;	  /* in the engine's list of slots that it has to look at */
	int fd;
	uint32_t mask;	 /* the kernel waits for these */
	bool armed;	 /* the kernel has it */
	bool cancelling; /* and has been told to give it back */
	bool busy;	 /* its callback runs */
	bool failed;	 /* the kernel refuses this descriptor */
	uint16_t vain;	 /* polls in turn that ended without an event */
	bool own_fd;	 /* fd is a duplicate */
	bool always;	 /* cannot be polled, hence is always ready */
};

struct loop_call_msg;
struct co;

/* Threads for what blocks; there are none before the first work. */
struct loop_pool {
	pthread_mutex_t lock;
	pthread_cond_t work, gone;
	struct loop_work *head, **tail; /* waiting */
	unsigned int queued, threads, idle;
	bool stop;
	/* In a confined VM: a thread that makes the others, as the loop's may not. It has what they have. */
	pthread_t keeper;
	bool kept;
	unsigned int wanted; /* threads that it is to make */
	pthread_cond_t want;
};

struct loop_ops {
	enum loop_engine engine;
	/* First and last thing in the loop's thread. */
	int (*init)(struct loop *loop, struct hako_error *err);
	void (*free)(struct loop *loop);
	/* Hand over changed watches and I/O; then sleep until an event or for @timeout ns. */
	void (*wait)(struct loop *loop, uint64_t timeout);
	/* Is there something to dispatch, or to be had by a wait that does not sleep? No system call. */
	bool (*pending)(struct loop *loop);
	/* Call back for what the kernel reported. */
	void (*dispatch)(struct loop *loop);
	int (*watch_start)(struct loop *loop, struct loop_slot *slot, struct hako_error *err);
	void (*watch_set)(struct loop *loop, struct loop_slot *slot);
	/* slot->watch is NULL already. Frees the slot, now or later. */
	void (*watch_stop)(struct loop *loop, struct loop_slot *slot);
	/* loop_io_packets(): how many, the first ones, are dealt with. NULL: this engine is no faster than one by one. */
	unsigned int (*packets)(struct loop *loop, enum loop_io_op op, int fd,
				struct loop_packet *packet, unsigned int n);
	int (*file_register)(struct loop *loop, int fd);
	void (*file_unregister)(struct loop *loop, int index);
};

#define LOOP_AIO_BATCH 16

/* loop_aio.c: writes into the page cache, for engines. All zeroes at first. */
struct loop_aio {
	unsigned long context; /* 0: there is none */
	bool tried;
	unsigned int asked;		     /* so many times, without a context */
	struct loop_io *ios[LOOP_AIO_BATCH]; /* for loop_aio_submit() */
	unsigned int n;
	struct loop_io *done, **done_tail; /* for loop_aio_dispatch() */
	uint64_t not_before;		   /* 0: now */
	uint64_t watch_until;		   /* see loop_aio_submit() */
};

struct loop {
	const struct loop_ops *ops;
	void *engine;
	pthread_t thread;
	char name[16];

	struct loop_timer *timers;
	struct loop_defer *defer, **defer_tail;
	struct loop_io *io, **io_tail; /* not yet given to the kernel */
	unsigned int inflight;	       /* I/O of both kinds: waiting and with the kernel */
	unsigned int ngiven;	       /* of these, with the kernel; io_uring's */
	struct loop_call_msg *called;  /* to be told at the end of this turn */
	int signals[LOOP_MAX_SIGNALS];
	unsigned int nsignals;
	struct list slots, pollers;
	uint64_t poll_ns; /* how long to look before the next sleep; adapts itself */
	uint64_t poll_max_ns;
	struct loop_pool pool;
	struct co *co_kept; /* stacks for the next coroutines */
	unsigned int co_nkept;
	bool stop;
	struct loop_watch wake_watch;
	int wake_fd;

	/* Shared with other threads. */
	struct loop_msg *posted __attribute__((aligned(64))); /* atomic; newest first */
	bool sleeping;					      /* atomic: or about to */
};

extern const struct loop_ops loop_uring_ops;
extern const struct loop_ops loop_threads_ops;

/** Get the loop out of its sleep. Any thread. What it shall find then has been written before. */
void loop_wake(struct loop *loop);
void loop_slot_free(struct loop_slot *slot);
/**
 * Call the watch of @slot back (there is one), if it still wants to. If the callback stopped it and the kernel has given it back, the
 * slot is freed, and false the result.
 */
bool loop_slot_fire(struct loop_slot *slot, uint32_t revents);
/** Before anything else is done with it, and when no thread can have work any more. */
int loop_pool_init(struct loop_pool *pool);
void loop_pool_free(struct loop_pool *pool);
/** Start the pool's keeper, confined. Any thread. */
int loop_pool_keep(struct loop_pool *pool, struct sandbox *sb, struct hako_error *err);
/** Have work->fn called in a thread, and work->msg posted then. */
void loop_pool_add(struct loop *loop, struct loop_work *work);
/** One request is done. */
void loop_io_done(struct loop_io *io, int res);
/** @io, which is a write with @here set, will be performed by loop_aio_submit(). False: not now. */
bool loop_aio_add(struct loop_aio *a, struct loop_io *io);
/** Perform them; waits if they do. loop_aio_dispatch() has been called since the last time. */
void loop_aio_submit(struct loop_aio *a);
/** Call back for what has been performed. */
void loop_aio_dispatch(struct loop *loop, struct loop_aio *a);
void loop_aio_free(struct loop_aio *a);
/** Write 1 to an eventfd. */
void loop_signal_now(int fd);

/** The earliest deadline, LOOP_NO_TIMEOUT if there is none. */
uint64_t loop_timers_next(const struct loop *loop);
/** Call what is due at @now. */
void loop_timers_run(struct loop *loop, uint64_t now);

#endif
