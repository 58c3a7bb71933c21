/* SPDX-License-Identifier: GPL-2.0-only */
/* Coroutines: waiting, waking, locks, stacks, under both engines of the loop. */
#include "tests/unit/loop_test.h"
#include "vmm/coroutine.h"

static int add_one(void *arg)
{
	ck_assert_ptr_nonnull(co_self());
	ck_assert_ptr_eq(co_loop(), loop);
	return *(int *)arg + 1;
}

START_TEST(test_result)
{
	int x = 41;

	loop = new_loop(_i);

	ck_assert_int_eq(co_run(loop, add_one, &x), 42);
	ck_assert_ptr_null(co_self());
	loop_free(loop);
}
END_TEST

static int sleep_a_little(void *arg)
{
	uint64_t begin = clock_now();
	double d = *(double *)arg;

	co_sleep(2000000);
	ck_assert(clock_now() - begin >= 2000000);
	return (int)(d * 2); /* a register that the switch has to keep */
}

START_TEST(test_sleep)
{
	double d = 21.0;

	loop = new_loop(_i);
	ck_assert_int_eq(co_run(loop, sleep_a_little, &d), 42);
	loop_free(loop);
}
END_TEST

/* Many at once: each takes the lock, waits inside, and finds what it left. */
#define WORKERS 100
#define ROUNDS	20

static struct co_mutex mutex;
static int holder, done, sum;
static struct co *parent;

static void worker(void *arg)
{
	int me = (int)(intptr_t)arg;
	char local[1024];

	for (int i = 0; i < ROUNDS; i++) {
		co_lock(&mutex);
		ck_assert_int_eq(holder, 0);
		holder = me;
		memset(local, me, sizeof(local));
		if (i % 5 == 0)
			co_sleep(1000);
		ck_assert_int_eq(holder, me);
		for (size_t j = 0; j < sizeof(local); j++)
			ck_assert_int_eq((uint8_t)local[j], me);
		holder = 0;
		sum++;
		co_unlock(&mutex);
	}
	if (++done == WORKERS)
		co_wake(parent);
}

static int start_workers(void *arg)
{
	parent = co_self();
	for (int i = 1; i <= WORKERS; i++)
		ck_assert_int_eq(co_start(loop, worker, (void *)(intptr_t)i), 0);
	co_wait();
	return 0;
}

START_TEST(test_mutex)
{
	loop = new_loop(_i);
	mutex = (struct co_mutex){0};
	for (int turn = 0; turn < 3; turn++) {
		holder = done = sum = 0;
		ck_assert_int_eq(co_run(loop, start_workers, NULL), 0);
		ck_assert_int_eq(sum, WORKERS * ROUNDS);
		ck_assert(!mutex.locked);
	}
	loop_free(loop);
}
END_TEST

static struct co_queue queue;
static int order[8], norder;

static void waiter(void *arg)
{
	co_queue_wait(&queue);
	order[norder++] = (int)(intptr_t)arg;
	if (norder == 8)
		co_wake(parent);
}

static int wake_all(void *arg)
{
	parent = co_self();
	for (int i = 0; i < 8; i++)
		co_start(loop, waiter, (void *)(intptr_t)i);
	ck_assert_int_eq(norder, 0);
	ck_assert(co_queue_wake(&queue));
	co_queue_wake_all(&queue);
	ck_assert(!co_queue_wake(&queue));
	ck_assert_int_eq(norder, 0); /* not before the end of the turn */
	co_wait();
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(order[i], i);
	return 0;
}

START_TEST(test_queue)
{
	loop = new_loop(_i);
	norder = 0;
	ck_assert_int_eq(co_run(loop, wake_all, NULL), 0);
	loop_free(loop);
}
END_TEST

static int recurse(void *arg)
{
	volatile char frame[4096];
	int depth = *(int *)arg;

	frame[0] = frame[4095] = (char)depth;
	if (depth == 0)
		return 0;
	depth--;
	return recurse(&depth) + 1 + frame[0] - frame[4095];
}

START_TEST(test_stack)
{
	int depth = 20;

	loop = new_loop(_i);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(co_run(loop, recurse, &depth), 20);
	loop_free(loop);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		test_result, test_sleep, test_mutex, test_queue, test_stack,
	};

	return run_tests("coroutine", tests, ARRAY_SIZE(tests), NULL);
}
