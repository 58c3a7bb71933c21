/* SPDX-License-Identifier: GPL-2.0-only */
/* A loop's pool of threads, for what blocks. */
#include <semaphore.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "loop_impl.h"
#include "sandbox.h"

#define POOL_THREADS 16
#define POOL_IDLE_NS (5 * NSEC_PER_SEC) /* after that a thread with nothing to do ends */

#ifdef HAVE_ASAN
#define POOL_STACK (1 * MiB)
#else
#define POOL_STACK (128 * KiB)
#endif

/* Wait for work, with the lock held. NULL: the thread is to end. */
static struct loop_work *take(struct loop_pool *pool)
{
	struct loop_work *work;
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
	work = pool->head;
	pool->head = work->next;
	if (!pool->head)
		pool->tail = &pool->head;
	pool->queued--;
	return work;
}

static void *pool_main(void *arg)
{
	struct loop_pool *pool = arg;
	struct loop_work *work;

	prctl(PR_SET_NAME, "hako-work");
	pthread_mutex_lock(&pool->lock);
	while ((work = take(pool)) != NULL) {
		pthread_mutex_unlock(&pool->lock);
		work->fn(work);
		loop_post(work->loop, &work->msg);
		pthread_mutex_lock(&pool->lock);
	}
	pool->threads--;
	pthread_cond_signal(&pool->gone);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

static bool spawn(struct loop_pool *pool)
{
	pthread_t thread;

	if (thread_create(&thread, POOL_STACK, pool_main, pool) < 0)
		return false;
	pthread_detach(thread);
	return true;
}

/* One thread more, with the lock held. */
static bool grow(struct loop_pool *pool)
{
	if (pool->kept) {
		pool->wanted++;
		pthread_cond_signal(&pool->want);
	} else if (!spawn(pool)) {
		return false;
	}
	pool->threads++;
	return true;
}

/* --- in a confined VM ---------------------------------------------------------------------------- */

struct keep {
	struct loop_pool *pool;
	struct sandbox *sb;
	struct hako_error *err;
	int ret;
	sem_t done;
};

/* There is no thread to be had, with the lock held: what waits is done here. */
static void stand_in(struct loop_pool *pool)
{
	struct loop_work *work;

	pool->threads--;
	while (!pool->threads && pool->head && (work = take(pool)) != NULL) {
		pthread_mutex_unlock(&pool->lock);
		work->fn(work);
		loop_post(work->loop, &work->msg);
		pthread_mutex_lock(&pool->lock);
	}
	pthread_cond_signal(&pool->gone);
}

static void *keeper_main(void *arg)
{
	struct keep *keep = arg;
	struct loop_pool *pool = keep->pool;
	int ret;

	prctl(PR_SET_NAME, "hako-pool");
	ret = keep->ret = sandbox_enter(keep->sb, SANDBOX_WORKER, keep->err);
	sem_post(&keep->done);
	pthread_mutex_lock(&pool->lock);
	while (!ret && !pool->stop) {
		if (!pool->wanted) {
			pthread_cond_wait(&pool->want, &pool->lock);
			continue;
		}
		pool->wanted--;
		if (!spawn(pool))
			stand_in(pool);
	}
	/* What was wanted last is not made any more. */
	pool->threads -= pool->wanted;
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

int loop_pool_keep(struct loop_pool *pool, struct sandbox *sb, struct hako_error *err)
{
	struct keep keep = {.pool = pool, .sb = sb, .err = err};
	int ret;

	sem_init(&keep.done, 0, 0);
	ret = thread_create(&pool->keeper, POOL_STACK, keeper_main, &keep);
	if (ret < 0) {
		error_errno(err, ret, "thread");
	} else {
		while (sem_wait(&keep.done) < 0 && errno == EINTR)
			;
		ret = keep.ret;
		pool->kept = true; /* also if it has failed: it is joined */
	}
	sem_destroy(&keep.done);
	return ret;
}

void loop_pool_add(struct loop *loop, struct loop_work *work)
{
	struct loop_pool *pool = &loop->pool;
	bool stuck = false;

	work->loop = loop;
	work->next = NULL;
	work->msg.posted = false;
	pthread_mutex_lock(&pool->lock);
	*pool->tail = work;
	pool->tail = &work->next;
	pool->queued++;
	if (pool->queued <= pool->idle)
		pthread_cond_signal(&pool->work);
	else if (pool->threads < POOL_THREADS)
		stuck = !grow(pool) && !pool->threads;
	if (stuck) {
		pool->head = NULL;
		pool->tail = &pool->head;
		pool->queued = 0;
	}
	pthread_mutex_unlock(&pool->lock);
	/* Not a single thread to be had, hence no other work either: slow, but it goes on. */
	if (stuck) {
		work->fn(work);
		loop_post(loop, &work->msg);
	}
}

static void work_done(struct loop_msg *msg)
{
	struct loop_work *work = container_of(msg, struct loop_work, msg);

	work->loop->inflight--;
	work->done(work);
}

void loop_work_submit(struct loop *loop, struct loop_work *work)
{
	work->msg.fn = work_done;
	loop->inflight++;
	loop_pool_add(loop, work);
}

int loop_pool_init(struct loop_pool *pool)
{
	pthread_condattr_t attr;

	if (pthread_condattr_init(&attr))
		return -ENOMEM;
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, &attr);
	pthread_cond_init(&pool->gone, NULL);
	pthread_cond_init(&pool->want, NULL);
	pthread_condattr_destroy(&attr);
	pool->tail = &pool->head;
	return 0;
}

void loop_pool_free(struct loop_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	pool->stop = true;
	pthread_cond_broadcast(&pool->work);
	pthread_cond_broadcast(&pool->want);
	pthread_mutex_unlock(&pool->lock);
	if (pool->kept)
		pthread_join(pool->keeper, NULL);
	pthread_mutex_lock(&pool->lock);
	while (pool->threads)
		pthread_cond_wait(&pool->gone, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_destroy(&pool->gone);
	pthread_cond_destroy(&pool->want);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
}
