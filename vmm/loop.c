/* SPDX-License-Identifier: GPL-2.0-only */
/* Event loops: what both engines share. */
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "coroutine.h"
#include "loop_impl.h"
#include "sandbox.h"

/* Callbacks may have a few KiB of iovecs on the stack; AddressSanitizer's frames are larger. Only what is touched takes memory. */
#ifdef HAVE_ASAN
#define LOOP_STACK (8 * MiB)
#else
#define LOOP_STACK (256 * KiB)
#endif

#define LOOP_SLICE_NS 100000 /* the least that the scheduler takes */

/* --- messages ---------------------------------------------------------------------------------- */

void loop_signal_now(int fd)
{
	static const uint64_t one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

void loop_wake(struct loop *loop)
{
	/* Pairs with the fence in loop_sleep_time(): either the loop sees what was written, or we see that it sleeps. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (__atomic_load_n(&loop->sleeping, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&loop->sleeping, false, __ATOMIC_RELAXED))
		loop_signal_now(loop->wake_fd);
}

void loop_post(struct loop *loop, struct loop_msg *msg)
{
	if (__atomic_exchange_n(&msg->posted, true, __ATOMIC_ACQ_REL))
		return;
	msg->next = __atomic_load_n(&loop->posted, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&loop->posted, &msg->next, msg, true, __ATOMIC_RELEASE,
					    __ATOMIC_RELAXED))
		;
	loop_wake(loop);
}

static void run_messages(struct loop *loop)
{
	struct loop_msg *msg, *next, *fifo = NULL;

	if (!__atomic_load_n(&loop->posted, __ATOMIC_RELAXED))
		return;
	msg = __atomic_exchange_n(&loop->posted, NULL, __ATOMIC_ACQUIRE);
	for (; msg; msg = next) {
		next = msg->next;
		msg->next = fifo;
		fifo = msg;
	}
	for (msg = fifo; msg; msg = next) {
		next = msg->next;
		/* Cleared before the call: what is posted from now on is called again. */
		__atomic_store_n(&msg->posted, false, __ATOMIC_SEQ_CST);
		msg->fn(msg);
	}
}

struct loop_call_msg {
	struct loop_msg msg;
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	struct loop_call_msg *next;
	sem_t done;
};

static void call_run(struct loop_msg *msg)
{
	struct loop_call_msg *call = container_of(msg, struct loop_call_msg, msg);

	if (call->fn)
		call->fn(call->arg);
	call->next = call->loop->called;
	call->loop->called = call;
}

static void finish_calls(struct loop *loop)
{
	struct loop_call_msg *call, *next;

	for (call = loop->called, loop->called = NULL; call; call = next) {
		next = call->next;
		sem_post(&call->done);
	}
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct loop_call_msg call = {.msg.fn = call_run, .loop = loop, .fn = fn, .arg = arg};

	if (loop_is_current(loop)) {
		if (fn)
			fn(arg);
		return;
	}
	sem_init(&call.done, 0, 0);
	loop_post(loop, &call.msg);
	while (sem_wait(&call.done) < 0 && errno == EINTR)
		;
	sem_destroy(&call.done);
}

/* --- deferred calls and signals ---------------------------------------------------------------- */

void loop_defer(struct loop *loop, struct loop_defer *defer)
{
	if (defer->queued)
		return;
	defer->queued = true;
	defer->next = NULL;
	*loop->defer_tail = defer;
	loop->defer_tail = &defer->next;
}

static void run_defers(struct loop *loop)
{
	struct loop_defer *defer = loop->defer, *next;

	/* What these defer has its turn in the next turn. */
	loop->defer = NULL;
	loop->defer_tail = &loop->defer;
	for (; defer; defer = next) {
		next = defer->next;
		defer->queued = false;
		defer->fn(defer);
	}
}

void loop_signal(struct loop *loop, int fd)
{
	for (unsigned int i = 0; i < loop->nsignals; i++)
		if (loop->signals[i] == fd)
			return;
	if (loop->nsignals == LOOP_MAX_SIGNALS)
		loop_signal_now(fd);
	else
		loop->signals[loop->nsignals++] = fd;
}

/* --- watches ----------------------------------------------------------------------------------- */

void loop_slot_free(struct loop_slot *slot)
{
	list_del(&slot->link);
	list_del(&slot->changed);
	if (slot->own_fd)
		close(slot->fd);
	free(slot);
}

bool loop_slot_fire(struct loop_slot *slot, uint32_t revents)
{
	struct loop_watch *watch = slot->watch;

	revents &= watch->events | POLLERR | POLLHUP | POLLNVAL;
	if (!watch->events || !revents)
		return true;
	slot->busy = true;
	watch->fn(watch, revents);
	slot->busy = false;
	if (slot->watch || slot->armed)
		return true;
	loop_slot_free(slot);
	return false;
}

int loop_watch_start(struct loop *loop, struct loop_watch *watch, struct hako_error *err)
{
	struct loop_slot *slot;
	int ret;

	if (watch->fd < 0)
		return error_errno(err, -EBADF, "watch");
	slot = calloc(1, sizeof(*slot));
	if (!slot)
		return error_errno(err, -ENOMEM, "watch");
	slot->watch = watch;
	slot->fd = watch->fd;
	list_init(&slot->changed);
	watch->loop = loop;
	watch->impl = slot;
	list_add_tail(&slot->link, &loop->slots);
	ret = loop->ops->watch_start(loop, slot, err);
	if (ret < 0) {
		watch->loop = NULL;
		watch->impl = NULL;
		loop_slot_free(slot);
	}
	return ret;
}

void loop_watch_set(struct loop_watch *watch, uint32_t events)
{
	if (!watch->loop || watch->events == events)
		return;
	watch->events = events;
	watch->loop->ops->watch_set(watch->loop, watch->impl);
}

void loop_watch_stop(struct loop_watch *watch)
{
	struct loop *loop = watch->loop;
	struct loop_slot *slot = watch->impl;

	if (!loop)
		return;
	watch->loop = NULL;
	watch->impl = NULL;
	slot->watch = NULL;
	loop->ops->watch_stop(loop, slot);
}

/* --- disk I/O ---------------------------------------------------------------------------------- */

void loop_io_submit(struct loop *loop, struct loop_io *io)
{
	io->loop = loop;
	io->next = NULL;
	*loop->io_tail = io;
	loop->io_tail = &io->next;
	loop->inflight++;
}

void loop_io_done(struct loop_io *io, int res)
{
	io->loop->inflight--;
	io->done(io, res);
}

void loop_io_packets(struct loop *loop, enum loop_io_op op, int fd, struct loop_packet *packet,
		     unsigned int n)
{
	unsigned int i = n > 1 && loop->ops->packets ? loop->ops->packets(loop, op, fd, packet, n)
						     : 0;

	for (; i < n; i++) {
		struct loop_packet *p = &packet[i];

		p->res = op == LOOP_IO_READ ? readv(fd, p->iov, p->niov)
					    : writev(fd, p->iov, p->niov);
		if (p->res >= 0)
			continue;
		p->res = -errno;
		if (p->res == -EAGAIN)
			break;
	}
	for (; i < n; i++)
		packet[i].res = -EAGAIN;
}

int loop_file_register(struct loop *loop, int fd)
{
	return loop->ops->file_register ? loop->ops->file_register(loop, fd) : -1;
}

void loop_file_unregister(struct loop *loop, int index)
{
	if (index >= 0 && loop->ops->file_unregister)
		loop->ops->file_unregister(loop, index);
}

/* --- the thread -------------------------------------------------------------------------------- */

static void wake_ignore(struct loop_watch *watch, uint32_t revents)
{
}

/* --- polling ----------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define cpu_relax() __builtin_ia32_pause()
#else
#define cpu_relax() __asm__ volatile("" ::: "memory")
#endif

#define POLL_MIN_NS 4000
#define POLL_MAX_NS 32000 /* sleeps that are longer make polling not worth its while */

void loop_poller_start(struct loop *loop, struct loop_poller *poller)
{
	cpu_set_t cpus;

	/* On a single processor whoever is waited for could not run. */
	if (list_empty(&loop->pollers))
		loop->poll_max_ns = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 &&
						    CPU_COUNT(&cpus) == 1
					    ? 0
					    : POLL_MAX_NS;
	list_add_tail(&poller->link, &loop->pollers);
}

void loop_poller_stop(struct loop_poller *poller)
{
	list_del(&poller->link);
}

static bool have_messages(const struct loop *loop)
{
	return __atomic_load_n(&loop->posted, __ATOMIC_RELAXED);
}

static bool poll_once(struct loop *loop)
{
	struct loop_poller *poller;

	if (loop->io || have_messages(loop) || loop->ops->pending(loop))
		return true;
	list_for_each(poller, &loop->pollers, link)
		if (poller->poll(poller))
			return true;
	return false;
}

/* Before a sleep: is there anything to be done after all? */
static bool poll_before_sleep(struct loop *loop, uint64_t now)
{
	uint64_t end = MIN(now + loop->poll_ns, loop_timers_next(loop));
	struct loop_poller *poller;
	bool found = false;

	if (loop->poll_ns) {
		loop->ops->wait(loop, 0);
		do {
			if (poll_once(loop))
				return true;
			cpu_relax();
		} while (clock_now() < end);
	}
	list_for_each(poller, &loop->pollers, link)
		found |= poller->arm(poller);
	return found;
}

/* @waited: until there was something to do. */
static void adapt_polling(struct loop *loop, uint64_t waited)
{
	if (waited > loop->poll_max_ns)
		loop->poll_ns = 0;
	else if (waited > loop->poll_ns)
		loop->poll_ns = MIN(MAX(loop->poll_ns * 2, POLL_MIN_NS), loop->poll_max_ns);
}

/* --- turns ------------------------------------------------------------------------------------- */

/* Must this turn be followed by another at once? */
static bool is_busy(const struct loop *loop)
{
	return loop->defer || loop->called || (loop->stop && !loop->inflight);
}

/* How long to sleep at the end of this turn, in ns; @sleeping is set if at all. */
static uint64_t loop_sleep_time(struct loop *loop)
{
	uint64_t next = loop_timers_next(loop), now;

	if (is_busy(loop))
		return 0;
	if (next != LOOP_NO_TIMEOUT) {
		now = clock_now();
		if (next <= now)
			return 0;
		next -= now;
	}
	__atomic_store_n(&loop->sleeping, true, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (have_messages(loop)) {
		__atomic_store_n(&loop->sleeping, false, __ATOMIC_RELAXED);
		return 0;
	}
	return next;
}

static bool loop_idle(const struct loop *loop)
{
	return !loop->inflight && !loop->defer && !loop->called &&
	       !__atomic_load_n(&loop->posted, __ATOMIC_ACQUIRE);
}

/*
 * Before the I/O of this turn, which may take its time even to start. By write(2): a write request in the ring costs more than
 * the system call that it saves.
 */
static void write_signals(struct loop *loop)
{
	for (unsigned int i = 0; i < loop->nsignals; i++)
		loop_signal_now(loop->signals[i]);
	loop->nsignals = 0;
}

static void turn(struct loop *loop)
{
	uint64_t idle_since = 0, timeout;

	loop->ops->dispatch(loop);
	run_messages(loop);
	if (loop->timers)
		loop_timers_run(loop, clock_now());
	run_defers(loop);
	write_signals(loop);
	if (!list_empty(&loop->pollers) && !is_busy(loop)) {
		idle_since = clock_now();
		if (poll_before_sleep(loop, idle_since))
			return;
	}
	timeout = loop_sleep_time(loop);
	loop->ops->wait(loop, timeout);
	if (idle_since && timeout)
		adapt_polling(loop, clock_now() - idle_since);
	__atomic_store_n(&loop->sleeping, false, __ATOMIC_RELAXED);
	finish_calls(loop);
}

/* Let go of all that is still watched; it waits until the kernel has done so too. */
static void stop_watches(struct loop *loop)
{
	struct loop_slot *slot, *tmp;

	list_for_each_safe(slot, tmp, &loop->slots, link)
		if (slot->watch)
			loop_watch_stop(slot->watch);
	while (!list_empty(&loop->slots)) {
		loop->ops->wait(loop, 0);
		loop->ops->dispatch(loop);
	}
	while (loop->timers)
		loop_timer_cancel(loop->timers);
}

/* What loop_new() waits for. */
struct loop_start {
	struct loop *loop;
	enum loop_engine engine;
	struct hako_error *err;
	int ret;
	sem_t done;
};

static int engine_init(struct loop *loop, enum loop_engine engine, struct hako_error *err)
{
	int ret;

	if (engine != LOOP_THREADS) {
		loop->ops = &loop_uring_ops;
		ret = loop->ops->init(loop, err);
		if (ret == 0 || engine == LOOP_IO_URING)
			return ret;
	}
	loop->ops = &loop_threads_ops;
	return loop->ops->init(loop, err);
}

static int loop_enter(struct loop *loop, enum loop_engine engine, struct hako_error *err)
{
	int ret = engine_init(loop, engine, err);

	if (ret < 0)
		return ret;
	ret = loop_pool_init(&loop->pool);
	if (ret < 0)
		error_errno(err, ret, "threads");
	else
		ret = loop_watch_start(loop, &loop->wake_watch, err);
	if (ret < 0)
		loop->ops->free(loop);
	return ret;
}

/*
 * A loop works for microseconds, then waits. Next to threads that use up their time, such as vCPUs of guests that poll, the scheduler lets
 * it wait for the rest of their slice, unless it is asked for short ones (Linux 6.12; others ignore the field).
 */
static void ask_for_short_slices(void)
{
	struct { /* sched_attr, whose header does not go together with the C library's */
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr;

	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) || attr.policy != SCHED_OTHER)
		return;
	attr.runtime = LOOP_SLICE_NS;
	syscall(SYS_sched_setattr, 0, &attr, 0);
}

static void *loop_main(void *arg)
{
	struct loop_start *start = arg;
	struct loop *loop = start->loop;
	int ret;

	prctl(PR_SET_NAME, loop->name);
	/* Timers are not to be late by the 50 us that are the default. */
	prctl(PR_SET_TIMERSLACK, 1000);
	ask_for_short_slices();
	/* The ring is made here, since it is to have a single issuer: its maker. */
	start->ret = ret = loop_enter(loop, start->engine, start->err);
	sem_post(&start->done);
	if (ret < 0)
		return NULL;
	while (!loop->stop || !loop_idle(loop))
		turn(loop);
	stop_watches(loop);
	loop_pool_free(&loop->pool);
	loop->ops->free(loop);
	return NULL;
}

static int loop_start(struct loop *loop, enum loop_engine engine, struct hako_error *err)
{
	struct loop_start start = {.loop = loop, .engine = engine, .err = err};
	int ret;

	sem_init(&start.done, 0, 0);
	ret = thread_create(&loop->thread, LOOP_STACK, loop_main, &start);
	if (ret < 0) {
		error_errno(err, ret, "thread");
	} else {
		while (sem_wait(&start.done) < 0 && errno == EINTR)
			;
		ret = start.ret;
		if (ret < 0)
			pthread_join(loop->thread, NULL);
	}
	sem_destroy(&start.done);
	return ret;
}

struct enter {
	struct sandbox *sb;
	struct hako_error *err;
	int ret;
};

static void enter_sandbox(void *arg)
{
	struct enter *enter = arg;

	enter->ret = sandbox_enter(enter->sb, SANDBOX_LOOP, enter->err);
}

int loop_confine(struct loop *loop, struct sandbox *sb, struct hako_error *err)
{
	struct enter enter = {sb, err, 0};

	if (sandbox_needs(sb) & (SANDBOX_DISK | SANDBOX_SHARE))
		enter.ret = loop_pool_keep(&loop->pool, sb, err);
	if (!enter.ret)
		loop_call(loop, enter_sandbox, &enter);
	return enter.ret ? error_prefix(err, "event loop %s", loop->name) : 0;
}

int loop_new(struct loop **out, const char *name, enum loop_engine engine, struct hako_error *err)
{
	struct loop *loop = aligned_alloc(__alignof__(*loop), sizeof(*loop));
	int ret;

	if (!loop)
		return error_errno(err, -ENOMEM, "event loop %s", name);
	memset(loop, 0, sizeof(*loop));
	snprintf(loop->name, sizeof(loop->name), "%s", name);
	loop->defer_tail = &loop->defer;
	loop->io_tail = &loop->io;
	list_init(&loop->slots);
	list_init(&loop->pollers);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->wake_fd < 0) {
		ret = error_errno(err, -errno, "event loop %s: eventfd", name);
		free(loop);
		return ret;
	}
	loop->wake_watch = (struct loop_watch){
		.fd = loop->wake_fd,
		.events = POLLIN,
		.edge = true,
		.fn = wake_ignore,
	};
	ret = loop_start(loop, engine, err);
	if (ret < 0) {
		error_prefix(err, "event loop %s", name);
		close(loop->wake_fd);
		free(loop);
		return ret;
	}
	*out = loop;
	return 0;
}

static void stop_fn(struct loop_msg *msg)
{
	struct loop_call_msg *call = container_of(msg, struct loop_call_msg, msg);

	call->loop->stop = true;
}

void loop_free(struct loop *loop)
{
	struct loop_call_msg stop = {.msg.fn = stop_fn};

	if (!loop)
		return;
	stop.loop = loop;
	loop_post(loop, &stop.msg);
	pthread_join(loop->thread, NULL);
	close(loop->wake_fd);
	co_free_stacks(loop);
	free(loop);
}

pthread_t loop_thread(const struct loop *loop)
{
	return loop->thread;
}

enum loop_engine loop_engine(const struct loop *loop)
{
	return loop->ops->engine;
}

bool loop_is_current(const struct loop *loop)
{
	return pthread_equal(pthread_self(), loop->thread);
}
