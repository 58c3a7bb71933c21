/* SPDX-License-Identifier: GPL-2.0-only */
/* The event loop: timers, disk I/O, signals, deferred calls, polling. */
#include <fcntl.h>
#include <sys/eventfd.h>

#include "tests/unit/loop_test.h"

/* --- timers ------------------------------------------------------------------------------------ */

#define TIMERS 2000

struct test_timer {
	struct loop_timer timer;
	uint64_t want; /* 0: must not come */
	bool came;
};

static struct test_timer timers[TIMERS];
static uint64_t timer_last;
static int timers_come, timers_wrong;

static void timer_fn(struct loop_timer *timer)
{
	struct test_timer *t = container_of(timer, struct test_timer, timer);

	if (t->came || !t->want || clock_now() < t->want || t->want < timer_last)
		bump(&timers_wrong);
	t->came = true;
	timer_last = t->want;
	bump(&timers_come);
}

static void set_timers(void *arg)
{
	uint64_t now = clock_now() + 50000000;
	int *expected = arg;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < TIMERS; i++) {
			struct test_timer *t = &timers[i];

			t->timer.fn = timer_fn;
			if (rand() % 4 == 0) {
				loop_timer_cancel(&t->timer);
				t->want = 0;
			} else {
				t->want = now + rand() % 100000000;
				loop_timer_set(loop, &t->timer, t->want);
			}
		}
	}
	for (int i = 0; i < TIMERS; i++)
		*expected += timers[i].want != 0;
}

START_TEST(timers_come_in_order)
{
	int expected = 0;

	loop = new_loop(_i);
	srand(1);
	loop_call(loop, set_timers, &expected);
	ck_assert(wait_for(&timers_come, expected));
	ck_assert_int_eq(timers_wrong, 0);
	for (int i = 0; i < TIMERS; i++)
		ck_assert_int_eq(timers[i].came, timers[i].want != 0);
	loop_free(loop);
}
END_TEST

static int ticks;
static struct loop_timer victim;

static void tick(struct loop_timer *timer)
{
	bump(&ticks);
	loop_timer_cancel(&victim);
	loop_timer_set(loop, timer, 0); /* long gone by */
}

static void set_tick(void *arg)
{
	victim.fn = tick;
	loop_timer_set(loop, arg, clock_now());
	loop_timer_set(loop, &victim, clock_now() + 1);
}

static void cancel_timer(void *arg)
{
	loop_timer_cancel(arg);
}

START_TEST(timer_in_the_past_starves_nobody)
{
	struct loop_timer timer = {.fn = tick};
	int before;

	loop = new_loop(_i);
	loop_call(loop, set_tick, &timer);
	for (int i = 0; i < 1000 && __atomic_load_n(&ticks, __ATOMIC_ACQUIRE) < 100; i++)
		usleep(1000);
	loop_call(loop, cancel_timer, &timer);
	before = ticks;
	ck_assert_int_ge(before, 100);
	usleep(10000);
	ck_assert_int_eq(ticks, before);
	ck_assert_ptr_null(victim.loop);
	loop_free(loop);
}
END_TEST

static uint64_t late_by;

static void note_late(struct loop_timer *timer)
{
	late_by = clock_now() - (uintptr_t)timer->opaque;
	bump(&ticks);
}

static void set_soon(void *arg)
{
	struct loop_timer *timer = arg;
	uint64_t when = clock_now() + 2000000;

	timer->opaque = (void *)(uintptr_t)when;
	loop_timer_set(loop, timer, when);
}

START_TEST(timer_is_punctual)
{
	struct loop_timer timer = {.fn = note_late};
	uint64_t best = UINT64_MAX;

	loop = new_loop(_i);
	for (int i = 0; i < 20; i++) {
		loop_call(loop, set_soon, &timer);
		ck_assert(wait_for(&ticks, i + 1));
		best = MIN(best, late_by);
	}
	/* The best of twenty, on a machine that does other things. */
	ck_assert_uint_lt(best, 1000000);
	loop_free(loop);
}
END_TEST

/* --- disk I/O ---------------------------------------------------------------------------------- */

struct test_io {
	struct loop_io io;
	struct iovec iov[3];
	int res;
	bool done;
};

static int io_done_count, in_submit;

static void io_done(struct loop_io *io, int res)
{
	struct test_io *t = container_of(io, struct test_io, io);

	ck_assert(loop_is_current(loop));
	ck_assert_int_eq(in_submit, 0);
	t->res = res;
	t->done = true;
	bump(&io_done_count);
}

static void submit_one(void *arg)
{
	struct test_io *t = arg;

	in_submit = 1;
	loop_io_submit(loop, &t->io);
	in_submit = 0;
}

static int run_io(struct test_io *t)
{
	int want = io_done_count + 1;

	t->io.done = io_done;
	loop_call(loop, submit_one, t);
	ck_assert(wait_for(&io_done_count, want));
	return t->res;
}

static void register_fd(void *arg)
{
	int *fd = arg;

	*fd = loop_file_register(loop, *fd);
}

static void unregister_fd(void *arg)
{
	loop_file_unregister(loop, *(int *)arg);
}

static void io_basics(int fd, int fixed)
{
	char a[1000], b[3000], back[4096];
	struct test_io w = {.io = {.op = LOOP_IO_WRITE, .fd = fd, .fixed = fixed, .offset = 100}};
	struct test_io r = {.io = {.op = LOOP_IO_READ, .fd = fd, .fixed = fixed, .offset = 100}};
	struct test_io f = {.io = {.op = LOOP_IO_FDATASYNC, .fd = fd, .fixed = fixed}};

	for (int i = 0; i < 1000; i++)
		a[i] = i % 251;
	for (int i = 0; i < 3000; i++)
		b[i] = i % 241;
	w.iov[0] = (struct iovec){a, sizeof(a)};
	w.iov[1] = (struct iovec){b, sizeof(b)};
	w.io.iov = w.iov;
	w.io.niov = 2;
	w.io.flags = RWF_DSYNC;
	ck_assert_int_eq(run_io(&w), 4000);
	ck_assert_int_eq(run_io(&f), 0);
	ck_assert_int_eq(pread(fd, back, 4096, 100), 4000);
	ck_assert_mem_eq(back, a, 1000);
	ck_assert_mem_eq(back + 1000, b, 3000);
	/* One vector; and the end of the file makes it short. */
	memset(back, 0, sizeof(back));
	r.iov[0] = (struct iovec){back, sizeof(back)};
	r.io.iov = r.iov;
	r.io.niov = 1;
	ck_assert_int_eq(run_io(&r), 4000);
	ck_assert_mem_eq(back, a, 1000);
	ck_assert_mem_eq(back + 1000, b, 3000);
	r.io.offset = 100000;
	ck_assert_int_eq(run_io(&r), 0);
	w.io.niov = 1;
	w.io.offset = 200;
	ck_assert_int_eq(run_io(&w), 1000);
	ck_assert_int_eq(pread(fd, back, 1000, 200), 1000);
	ck_assert_mem_eq(back, a, 1000);
}

START_TEST(io_reads_and_writes)
{
	int fd = temp_file(), fixed = fd;

	loop = new_loop(_i);
	io_basics(fd, -1);
	ck_assert_int_eq(ftruncate(fd, 0), 0);
	loop_call(loop, register_fd, &fixed);
	ck_assert_int_eq(fixed >= 0, engines[_i] == LOOP_IO_URING);
	io_basics(fd, fixed);
	loop_call(loop, unregister_fd, &fixed);
	loop_free(loop);
}
END_TEST

START_TEST(io_many_files_registered)
{
	int index[100];
	bool seen[100] = {false};

	loop = new_loop(_i);
	for (int round = 0; round < 2; round++) {
		memset(seen, 0, sizeof(seen));
		for (int i = 0; i < 100; i++) {
			index[i] = 1;
			loop_call(loop, register_fd, &index[i]);
			ck_assert(index[i] < 0 || !seen[index[i]]);
			if (index[i] >= 0)
				seen[index[i]] = true;
		}
		/* There is an end to it, which is said by -1. */
		ck_assert_int_eq(index[99], -1);
		ck_assert_int_eq(index[0] >= 0, engines[_i] == LOOP_IO_URING);
		for (int i = 0; i < 100; i++)
			loop_call(loop, unregister_fd, &index[i]);
	}
	loop_free(loop);
}
END_TEST

START_TEST(io_fallocate_and_errors)
{
	int fd = temp_file();
	char buf[8192];
	struct test_io f = {.io = {.op = LOOP_IO_FALLOCATE, .fd = fd, .fixed = -1}};
	struct test_io r = {.io = {.op = LOOP_IO_READ, .fixed = -1, .niov = 1}};

	loop = new_loop(_i);
	memset(buf, 0x55, sizeof(buf));
	ck_assert_int_eq(write(fd, buf, sizeof(buf)), sizeof(buf));
	f.io.flags = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	f.io.offset = 4096;
	f.io.len = 4096;
	ck_assert_int_eq(run_io(&f), 0);
	ck_assert_int_eq(pread(fd, buf, 8192, 0), 8192);
	ck_assert_int_eq(buf[4095], 0x55);
	for (int i = 4096; i < 8192; i++)
		ck_assert_int_eq(buf[i], 0);
	f.io.len = 0;
	ck_assert_int_eq(run_io(&f), -EINVAL);
	r.io.fd = 9999;
	r.iov[0] = (struct iovec){buf, sizeof(buf)};
	r.io.iov = r.iov;
	ck_assert_int_eq(run_io(&r), -EBADF);
	loop_free(loop);
}
END_TEST

/* More than the rings hold, all in one turn. */
#define MANY 5000
static struct test_io *many;
static char *many_buf;

static bool many_here;

static void submit_many(void *arg)
{
	int fd = *(int *)arg;

	for (int i = 0; i < MANY; i++) {
		struct test_io *t = &many[i];

		t->iov[0] = (struct iovec){many_buf + i * 512, 512};
		t->io = (struct loop_io){
			.op = LOOP_IO_WRITE,
			.fd = fd,
			.fixed = -1,
			.offset = i * 512,
			.iov = t->iov,
			.niov = 1,
			.here = many_here,
			.done = io_done,
		};
		loop_io_submit(loop, &t->io);
	}
}

/* Does this process have a context of io_submit(2)? */
static bool has_aio(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];
	bool found = false;

	while (f && fgets(line, sizeof(line), f))
		found |= strstr(line, "[aio]") != NULL;
	if (f)
		fclose(f);
	return found;
}

static void more_than_fits(int engine)
{
	char *back = malloc(MANY * 512);
	int fd = temp_file();

	many = calloc(MANY, sizeof(*many));
	many_buf = malloc(MANY * 512);
	for (int i = 0; i < MANY * 512; i++)
		many_buf[i] = i / 512 + i % 7;
	loop = new_loop(engine);
	loop_call(loop, submit_many, &fd);
	ck_assert(wait_for(&io_done_count, MANY));
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(many[i].res, 512);
	if (many_here && access("/proc/sys/fs/aio-nr", R_OK) == 0)
		ck_assert_int_eq(has_aio(), engines[engine] == LOOP_IO_URING);
	ck_assert_int_eq(pread(fd, back, MANY * 512, 0), MANY * 512);
	ck_assert_mem_eq(back, many_buf, MANY * 512);
	loop_free(loop);
	free(many);
	free(many_buf);
	free(back);
}

START_TEST(io_more_than_fits)
{
	more_than_fits(_i);
}
END_TEST

/* --- writes in the loop's own thread --- */

START_TEST(io_more_than_fits_here)
{
	many_here = true;
	more_than_fits(_i);
}
END_TEST

static struct test_io mixed[12];

static void submit_mixed(void *arg)
{
	for (int i = 0; i < ARRAY_SIZE(mixed); i++)
		loop_io_submit(loop, &mixed[i].io);
}

START_TEST(io_here_and_errors)
{
	static char bufs[ARRAY_SIZE(mixed)][512];
	int fd = temp_file(), read_only;
	char path[64], back[512];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	read_only = open(path, O_RDONLY);
	ck_assert_int_ge(read_only, 0);
	loop = new_loop(_i);
	/* Many, since it is not done for a few. */
	many = calloc(MANY, sizeof(*many));
	many_buf = calloc(MANY, 512);
	many_here = true;
	loop_call(loop, submit_many, &fd);
	ck_assert(wait_for(&io_done_count, MANY));
	/* Every third has no file, one is read-only, one has buffers that are not there; the others are as they are to be. */
	for (int i = 0; i < ARRAY_SIZE(mixed); i++) {
		struct test_io *t = &mixed[i];

		memset(bufs[i], i + 1, 512);
		t->iov[0] = (struct iovec){i == 4 ? (char *)16 : bufs[i], 512};
		t->io = (struct loop_io){
			.op = LOOP_IO_WRITE,
			.fd = i % 3 == 2 ? 9999
			      : i == 7	 ? read_only
					 : fd,
			.fixed = -1,
			.offset = i * 512,
			.iov = t->iov,
			.niov = 1,
			.here = i != 6,
			.done = io_done,
		};
	}
	loop_call(loop, submit_mixed, NULL);
	ck_assert(wait_for(&io_done_count, MANY + ARRAY_SIZE(mixed)));
	for (int i = 0; i < ARRAY_SIZE(mixed); i++) {
		bool wrong_file = i % 3 == 2 || i == 7;

		ck_assert_int_eq(mixed[i].res, wrong_file ? -EBADF : i == 4 ? -EFAULT : 512);
		if (mixed[i].res != 512)
			continue;
		ck_assert_int_eq(pread(fd, back, 512, i * 512), 512);
		ck_assert_mem_eq(back, bufs[i], 512);
	}
	loop_free(loop);
	close(read_only);
	free(many);
	free(many_buf);
}
END_TEST

START_TEST(free_waits_for_io)
{
	int fd = temp_file();

	many = calloc(MANY, sizeof(*many));
	many_buf = calloc(MANY, 512);
	loop = new_loop(_i);
	loop_call(loop, submit_many, &fd);
	loop_free(loop);
	ck_assert_int_eq(io_done_count, MANY);
	free(many);
	free(many_buf);
}
END_TEST

/* --- signals and deferred calls ---------------------------------------------------------------- */

#define SIGNALS 200
static int signal_fds[SIGNALS];

static void signal_all(void *arg)
{
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < SIGNALS; i++)
			loop_signal(loop, signal_fds[i]);
}

START_TEST(signals_are_written_by_the_end_of_the_turn)
{
	uint64_t v;

	loop = new_loop(_i);
	for (int i = 0; i < SIGNALS; i++)
		signal_fds[i] = eventfd(0, EFD_NONBLOCK);
	loop_call(loop, signal_all, NULL);
	for (int i = 0; i < SIGNALS; i++) {
		ck_assert_int_eq(read(signal_fds[i], &v, sizeof(v)), sizeof(v));
		ck_assert_uint_ge(v, 1);
		ck_assert_uint_le(v, 2);
		close(signal_fds[i]);
	}
	loop_free(loop);
}
END_TEST

static struct loop_defer defers[3];
static int defer_trace[16], ndefers, in_callback;

static void defer_fn(struct loop_defer *defer)
{
	ck_assert_int_eq(in_callback, 0);
	defer_trace[ndefers] = (int)(defer - defers);
	bump(&ndefers);
	if (defer == &defers[2] && ndefers == 3)
		loop_defer(loop, &defers[0]);
}

static void queue_defers(void *arg)
{
	in_callback = 1;
	for (int i = 0; i < 3; i++) {
		defers[i].fn = defer_fn;
		loop_defer(loop, &defers[i]);
		loop_defer(loop, &defers[i]);
	}
	in_callback = 0;
}

START_TEST(deferred_calls)
{
	static const int expected[] = {0, 1, 2, 0};

	loop = new_loop(_i);
	loop_call(loop, queue_defers, NULL);
	ck_assert_int_ge(ndefers, 3); /* when loop_call() returns */
	ck_assert(wait_for(&ndefers, 4));
	ck_assert_mem_eq(defer_trace, expected, sizeof(expected));
	loop_free(loop);
}
END_TEST

/* --- polling ----------------------------------------------------------------------------------- */

#define ITEMS 20000

/* A ring as a guest fills it: what is made available, whether a bell is wanted, and a bell. */
static struct {
	struct loop_poller poller;
	struct loop_watch bell;
	int made, wanted, rung, taken;
} ring;

static bool ring_poll(struct loop_poller *poller)
{
	int made = __atomic_load_n(&ring.made, __ATOMIC_SEQ_CST);

	ck_assert(loop_is_current(loop));
	if (made == ring.taken)
		return false;
	__atomic_store_n(&ring.taken, made, __ATOMIC_SEQ_CST);
	return true;
}

static bool ring_arm(struct loop_poller *poller)
{
	__atomic_store_n(&ring.wanted, 1, __ATOMIC_SEQ_CST);
	return ring_poll(poller);
}

static void ring_bell(struct loop_watch *w, uint32_t revents)
{
	ring_poll(&ring.poller);
}

static void ring_start(void *arg)
{
	struct hako_error err;

	ring.poller.poll = ring_poll;
	ring.poller.arm = ring_arm;
	ring.bell = (struct loop_watch){
		.fd = *(int *)arg, .events = POLLIN, .edge = true, .fn = ring_bell};
	ck_assert_int_eq(loop_watch_start(loop, &ring.bell, &err), 0);
	loop_poller_start(loop, &ring.poller);
}

static void ring_stop(void *arg)
{
	loop_poller_stop(&ring.poller);
	loop_watch_stop(&ring.bell);
}

static void ring_fill(int fd)
{
	uint64_t one = 1;

	__atomic_add_fetch(&ring.made, 1, __ATOMIC_SEQ_CST);
	if (__atomic_exchange_n(&ring.wanted, 0, __ATOMIC_SEQ_CST)) {
		ring.rung++;
		ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
	}
}

/* No bell gets lost between the last look and the sleep; and a busy ring does without some, on a machine with more to do too. */
START_TEST(poller_misses_nothing)
{
	int fd = eventfd(0, EFD_NONBLOCK), made;

	loop = new_loop(_i);
	loop_call(loop, ring_start, &fd);
	srand(2);
	for (int i = 0; i < ITEMS; i++) {
		ring_fill(fd);
		if (i % 64 == 0) {
			ck_assert(wait_for(&ring.taken, i + 1));
			for (volatile int wait = rand() % 20000; wait; wait--)
				;
		}
	}
	ck_assert(wait_for(&ring.taken, ITEMS));
	ck_assert_int_lt(ring.rung, ITEMS - ITEMS / 10);
	/* Stopped: it looks no more. */
	loop_call(loop, ring_stop, NULL);
	made = ring.made;
	ring.wanted = 0;
	ring_fill(fd);
	usleep(10000);
	ck_assert_int_eq(ring.taken, made);
	loop_free(loop);
	close(fd);
}
END_TEST

/* --- work that blocks -------------------------------------------------------------------------- */

#define WORKS 40

struct test_work {
	struct loop_work work;
	bool ran, again;
};

static struct test_work works[WORKS];
static int work_met, work_done_count, work_wrong;

/* The first two wait for each other: they must run at the same time. */
static void work_fn(struct loop_work *work)
{
	struct test_work *w = container_of(work, struct test_work, work);

	if (loop_is_current(loop))
		bump(&work_wrong);
	if (w < works + 2 && !w->again) {
		bump(&work_met);
		if (!wait_for(&work_met, 2))
			bump(&work_wrong);
	}
	w->ran = true;
}

static void work_done(struct loop_work *work)
{
	struct test_work *w = container_of(work, struct test_work, work);

	if (!loop_is_current(loop) || !w->ran)
		bump(&work_wrong);
	w->ran = false;
	bump(&work_done_count);
	if (!w->again) {
		w->again = true;
		loop_work_submit(loop, work);
	}
}

static void submit_works(void *arg)
{
	for (int i = 0; i < WORKS; i++) {
		works[i] = (struct test_work){.work = {.fn = work_fn, .done = work_done}};
		loop_work_submit(loop, &works[i].work);
	}
}

START_TEST(work_is_done_elsewhere)
{
	work_met = work_done_count = work_wrong = 0;
	loop = new_loop(_i);
	loop_call(loop, submit_works, NULL);
	/* Not waiting for it: the loop does not end before its work. */
	loop_free(loop);
	ck_assert_int_eq(work_done_count, 2 * WORKS);
	ck_assert_int_eq(work_wrong, 0);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		timers_come_in_order,
		timer_in_the_past_starves_nobody,
		timer_is_punctual,
		io_reads_and_writes,
		io_many_files_registered,
		io_fallocate_and_errors,
		io_more_than_fits,
		io_more_than_fits_here,
		io_here_and_errors,
		free_waits_for_io,
		signals_are_written_by_the_end_of_the_turn,
		deferred_calls,
		poller_misses_nothing,
		work_is_done_elsewhere,
	};

	return run_tests("loop I/O", tests, ARRAY_SIZE(tests), NULL);
}
