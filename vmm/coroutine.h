/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Coroutines: code that waits, for I/O most of all, without stopping the loop that it runs in. Each belongs to one loop and runs only in
 * its thread; between two waits nothing else runs there. For the slow paths: each has a stack of its own, which is kept for the next.
 */
#ifndef VMM_COROUTINE_H
#define VMM_COROUTINE_H

#include "loop.h"

struct co;

/**
 * Run @fn(@arg) as a coroutine until it waits or ends. In the loop's thread, also from within another coroutine. -ENOMEM: @fn has not
 * been called.
 */
int co_start(struct loop *loop, void (*fn)(void *arg), void *arg);

/** Run @fn(@arg) as a coroutine of @loop and wait for its end: its result, or -ENOMEM. Any thread but a loop's. */
int co_run(struct loop *loop, int (*fn)(void *arg), void *arg);

/** The coroutine that runs here, NULL outside of any. Any thread. */
struct co *co_self(void);
/** The loop of the coroutine that runs here. */
struct loop *co_loop(void);

/** Wait until somebody calls co_wake(). In a coroutine. */
void co_wait(void);
/**
 * Have @co, which waits, go on: at once, or at the end of the turn if the caller is a coroutine himself. In the loop's thread; once for
 * each co_wait().
 */
void co_wake(struct co *co);
/** Wait for @ns nanoseconds. In a coroutine. */
void co_sleep(uint64_t ns);

/* Coroutines of one loop that wait for something; first come, first served. All zero: empty. */
struct co_queue {
	struct co *first, **last;
};

void co_queue_wait(struct co_queue *q);
/** Wake the first. False: there was none. */
bool co_queue_wake(struct co_queue *q);
void co_queue_wake_all(struct co_queue *q);

/* Mutual exclusion among coroutines of one loop, across waits. All zero: free. Outside of coroutines it must be free. */
struct co_mutex {
	bool locked;
	struct co_queue waiting;
};

void co_lock(struct co_mutex *m);
void co_unlock(struct co_mutex *m);

/** The loop's end: free the stacks that are kept. */
void co_free_stacks(struct loop *loop);

#endif
