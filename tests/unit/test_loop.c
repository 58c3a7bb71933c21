/* SPDX-License-Identifier: GPL-2.0-only */
/* The event loop: its thread, messages, watches. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/unit/loop_test.h"

/* --- the thread -------------------------------------------------------------------------------- */

START_TEST(thread_has_name_and_no_signals)
{
	char path[64], line[256] = "", blocked[64] = "";
	bool found = false;
	DIR *dir = opendir("/proc/self/task");
	struct dirent *de;
	FILE *f;

	loop = new_loop(_i);
	rewinddir(dir);
	while (!found && (de = readdir(dir)) != NULL) {
		snprintf(path, sizeof(path), "/proc/self/task/%.16s/status", de->d_name);
		f = fopen(path, "r");
		if (!f)
			continue;
		while (fgets(line, sizeof(line), f)) {
			if (!strcmp(line, "Name:\ttest-loop\n"))
				found = true;
			if (found && sscanf(line, "SigBlk: %63s", blocked) == 1)
				break;
		}
		fclose(f);
	}
	closedir(dir);
	ck_assert(found);
	/* All but SIGKILL, SIGSTOP and the two that glibc keeps for itself. */
	ck_assert_str_eq(blocked, "fffffffe7ffbfeff");
	ck_assert(!loop_is_current(loop));
	loop_free(loop);
}
END_TEST

START_TEST(auto_takes_io_uring)
{
	struct hako_error err;

	ck_assert_int_eq(loop_new(&loop, "auto", LOOP_AUTO, &err), 0);
	ck_assert_int_eq(loop_engine(loop), LOOP_IO_URING);
	loop_free(loop);
}
END_TEST

/* In a process of its own: let io_uring_setup fail with @code. */
static int refuse_io_uring(int code)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {ARRAY_SIZE(filter), filter};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog) ? -errno : 0;
}

static int try_refused(int code)
{
	struct hako_error err;
	struct loop *l;

	if (refuse_io_uring(code) < 0)
		return 1;
	if (loop_new(&l, "x", LOOP_IO_URING, &err) != -code || !strstr(err.message, "io_uring"))
		return 2;
	if (loop_new(&l, "x", LOOP_AUTO, &err) != 0)
		return 3;
	if (loop_engine(l) != LOOP_THREADS)
		return 4;
	loop_free(l);
	return 0;
}

START_TEST(auto_falls_back)
{
	static const int codes[] = {EPERM, ENOSYS};
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(try_refused(codes[_i]));
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
}
END_TEST

/* --- messages ---------------------------------------------------------------------------------- */

#define POSTERS 4
#define POSTS	1000

struct numbered {
	struct loop_msg msg;
	int thread, number;
};

static struct numbered numbered[POSTERS][POSTS];
static int last_number[POSTERS], received, disorder;

static void numbered_fn(struct loop_msg *msg)
{
	struct numbered *n = container_of(msg, struct numbered, msg);

	if (!loop_is_current(loop) || n->number != last_number[n->thread])
		bump(&disorder);
	last_number[n->thread]++;
	bump(&received);
}

static void *poster(void *arg)
{
	struct numbered *n = arg;

	for (int i = 0; i < POSTS; i++)
		loop_post(loop, &n[i].msg);
	return NULL;
}

START_TEST(messages_arrive_in_order)
{
	pthread_t threads[POSTERS];

	loop = new_loop(_i);
	for (int t = 0; t < POSTERS; t++) {
		for (int i = 0; i < POSTS; i++)
			numbered[t][i] = (struct numbered){{.fn = numbered_fn}, t, i};
		pthread_create(&threads[t], NULL, poster, numbered[t]);
	}
	for (int t = 0; t < POSTERS; t++)
		pthread_join(threads[t], NULL);
	ck_assert(wait_for(&received, POSTERS * POSTS));
	ck_assert_int_eq(disorder, 0);
	loop_free(loop);
}
END_TEST

static int calls, gate;

static void count_msg(struct loop_msg *msg)
{
	bump(&calls);
}

static void wait_gate(struct loop_msg *msg)
{
	while (!__atomic_load_n(&gate, __ATOMIC_ACQUIRE))
		usleep(100);
}

static void repost_fn(struct loop_msg *msg)
{
	bump(&calls);
	if (calls < 100)
		loop_post(loop, msg);
}

START_TEST(message_posted_twice_comes_once)
{
	struct loop_msg hold = {.fn = wait_gate}, msg = {.fn = count_msg};
	struct loop_msg again = {.fn = repost_fn};

	loop = new_loop(_i);
	loop_post(loop, &hold);
	for (int i = 0; i < 10; i++)
		loop_post(loop, &msg);
	__atomic_store_n(&gate, 1, __ATOMIC_RELEASE);
	ck_assert(wait_for(&calls, 1));
	usleep(20000);
	ck_assert_int_eq(calls, 1);
	loop_post(loop, &msg);
	ck_assert(wait_for(&calls, 2));
	/* From its own callback, and freed only when all have come. */
	loop_post(loop, &again);
	ck_assert(wait_for(&calls, 100));
	loop_free(loop);
}
END_TEST

static void call_fn(void *arg)
{
	int *n = arg;

	ck_assert(loop_is_current(loop));
	if ((*n)++ == 0)
		loop_call(loop, call_fn, n);
}

static void *caller(void *arg)
{
	int *sum = arg;

	for (int i = 0; i < 500; i++) {
		int n = 1;

		loop_call(loop, call_fn, &n);
		*sum += n;
	}
	return NULL;
}

START_TEST(call_waits_for_its_end)
{
	pthread_t threads[3];
	int sum[3] = {0}, n = 0;

	loop = new_loop(_i);
	loop_call(loop, call_fn, &n);
	ck_assert_int_eq(n, 2);
	for (int i = 0; i < 3; i++)
		pthread_create(&threads[i], NULL, caller, &sum[i]);
	for (int i = 0; i < 3; i++) {
		pthread_join(threads[i], NULL);
		ck_assert_int_eq(sum[i], 1000);
	}
	loop_free(loop);
}
END_TEST

/* Two loops that post to each other: each is asleep when the other's message comes. */
static struct loop *peers[2];
static struct loop_msg ball;
static int volleys;

static void hit(struct loop_msg *msg)
{
	bump(&volleys);
	if (volleys < 1000)
		loop_post(peers[volleys % 2], msg);
}

START_TEST(loops_post_to_each_other)
{
	peers[0] = new_loop(_i);
	peers[1] = new_loop(_i);
	ball.fn = hit;
	loop_post(peers[0], &ball);
	ck_assert(wait_for(&volleys, 1000));
	loop_free(peers[0]);
	loop_free(peers[1]);
}
END_TEST

/* --- descriptors ------------------------------------------------------------------------------- */

static struct loop_watch *watch;
static int fired, last_revents;

static void watch_count(struct loop_watch *w, uint32_t revents)
{
	last_revents = revents;
	bump(&fired);
}

static void do_start(void *arg)
{
	struct hako_error err;
	struct loop_watch *w = arg;

	ck_assert_msg(loop_watch_start(loop, w, &err) == 0, "%s", err.message);
}

static void do_stop(void *arg)
{
	loop_watch_stop(arg);
}

static void do_suspend(void *arg)
{
	loop_watch_set(arg, 0);
}

static void do_resume(void *arg)
{
	loop_watch_set(arg, POLLIN);
}

static struct loop_watch *new_watch(int fd, uint32_t events, bool edge,
				    void (*fn)(struct loop_watch *, uint32_t))
{
	struct loop_watch *w = calloc(1, sizeof(*w));

	w->fd = fd;
	w->events = events;
	w->edge = edge;
	w->fn = fn;
	loop_call(loop, do_start, w);
	return w;
}

static void put(int fd)
{
	uint64_t one = 1;

	ck_assert_int_eq(write(fd, &one, sizeof(one)), sizeof(one));
}

static void read_one(struct loop_watch *w, uint32_t revents)
{
	uint64_t v;

	last_revents = revents;
	if (read(w->fd, &v, sizeof(v)) == sizeof(v))
		bump(&fired);
}

START_TEST(level_watch)
{
	int fds[2], before;

	loop = new_loop(_i);
	ck_assert_int_eq(pipe2(fds, O_NONBLOCK | O_CLOEXEC), 0);
	watch = new_watch(fds[0], POLLIN, false, read_one);
	for (int i = 1; i <= 100; i++) {
		put(fds[1]);
		ck_assert(wait_for(&fired, i));
		ck_assert_int_eq(last_revents, POLLIN);
	}
	/* Three at once, one read at a time. */
	for (int i = 0; i < 3; i++)
		put(fds[1]);
	ck_assert(wait_for(&fired, 103));
	usleep(10000);
	ck_assert_int_eq(fired, 103);

	loop_call(loop, do_suspend, watch);
	put(fds[1]);
	usleep(20000);
	ck_assert_int_eq(fired, 103);
	loop_call(loop, do_resume, watch);
	ck_assert(wait_for(&fired, 104));
	/* Suspended and resumed in quick succession. */
	for (int i = 0; i < 50; i++) {
		loop_call(loop, do_suspend, watch);
		loop_call(loop, do_resume, watch);
	}
	put(fds[1]);
	ck_assert(wait_for(&fired, 105));

	loop_call(loop, do_stop, watch);
	before = fired;
	put(fds[1]);
	usleep(20000);
	ck_assert_int_eq(fired, before);
	free(watch);
	loop_free(loop);
}
END_TEST

static int in_calls, out_calls;

static void in_out(struct loop_watch *w, uint32_t revents)
{
	uint64_t v;

	if (revents & POLLOUT) {
		bump(&out_calls);
		loop_watch_set(w, POLLIN);
	}
	if (revents & POLLIN && read(w->fd, &v, sizeof(v)) == sizeof(v)) {
		bump(&in_calls);
		loop_watch_set(w, POLLIN | POLLOUT);
	}
}

START_TEST(level_watch_changes_events)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	loop = new_loop(_i);
	watch = new_watch(fd, POLLIN, false, in_out);
	for (int i = 1; i <= 100; i++) {
		put(fd);
		ck_assert(wait_for(&in_calls, i));
		ck_assert(wait_for(&out_calls, i));
	}
	loop_call(loop, do_stop, watch);
	free(watch);
	close(fd);
	loop_free(loop);
}
END_TEST

START_TEST(level_watch_sees_hangup)
{
	int fds[2];

	loop = new_loop(_i);
	ck_assert_int_eq(pipe2(fds, O_NONBLOCK), 0);
	watch = new_watch(fds[0], POLLIN, false, watch_count);
	close(fds[1]);
	for (int i = 0; i < 1000 && !__atomic_load_n(&fired, __ATOMIC_ACQUIRE); i++)
		usleep(1000);
	ck_assert_int_gt(fired, 0);
	ck_assert_int_eq(last_revents & POLLHUP, POLLHUP);
	/* Suspended means silence, whatever the descriptor has to report. */
	loop_call(loop, do_suspend, watch);
	fired = 0;
	usleep(20000);
	ck_assert_int_eq(fired, 0);
	loop_call(loop, do_stop, watch);
	free(watch);
	loop_free(loop);
}
END_TEST

START_TEST(edge_watch)
{
	int fd = eventfd(0, EFD_NONBLOCK), before;
	uint64_t v;

	loop = new_loop(_i);
	watch = new_watch(fd, POLLIN, true, watch_count);
	for (int i = 1; i <= 100; i++) {
		put(fd);
		ck_assert(wait_for(&fired, i));
	}
	usleep(10000);
	ck_assert_int_eq(fired, 100);
	ck_assert_int_eq(read(fd, &v, sizeof(v)), sizeof(v)); /* nobody else has */
	ck_assert_uint_eq(v, 100);
	put(fd);
	ck_assert(wait_for(&fired, 101));
	/* What comes while it is suspended is not lost. */
	loop_call(loop, do_suspend, watch);
	put(fd);
	usleep(10000);
	ck_assert_int_eq(fired, 101);
	loop_call(loop, do_resume, watch);
	for (int i = 0; i < 1000 && __atomic_load_n(&fired, __ATOMIC_ACQUIRE) == 101; i++)
		usleep(1000);
	ck_assert_int_gt(fired, 101);
	usleep(10000);
	before = fired;
	put(fd);
	ck_assert(wait_for(&fired, before + 1));
	loop_call(loop, do_stop, watch);
	free(watch);
	put(fd);
	usleep(10000);
	ck_assert_int_eq(fired, before + 1);
	close(fd);
	loop_free(loop);
}
END_TEST

/* Every watch stops and frees itself and its neighbour, whose event is in the same batch. */
#define NEIGHBOURS 64
static struct loop_watch *neighbours[NEIGHBOURS];
static int stopped_calls;

static void stop_both(struct loop_watch *w, uint32_t revents)
{
	int self = (int)(intptr_t)w->opaque, other = self ^ 1;

	bump(&fired);
	loop_watch_stop(w);
	free(w);
	neighbours[self] = NULL;
	if (neighbours[other]) {
		loop_watch_stop(neighbours[other]);
		memset(neighbours[other], 0xee, sizeof(struct loop_watch));
		free(neighbours[other]);
		neighbours[other] = NULL;
		bump(&stopped_calls);
	}
}

static void start_neighbours(void *arg)
{
	bool edge = arg != NULL;
	struct hako_error err;

	for (int i = 0; i < NEIGHBOURS; i++) {
		struct loop_watch *w = calloc(1, sizeof(*w));

		*w = (struct loop_watch){
			.fd = eventfd(1, EFD_NONBLOCK),
			.events = POLLIN,
			.edge = edge,
			.fn = stop_both,
			.opaque = (void *)(intptr_t)i,
		};
		neighbours[i] = w;
		ck_assert_int_eq(loop_watch_start(loop, w, &err), 0);
	}
}

START_TEST(watch_freed_with_events_under_way)
{
	loop = new_loop(_i);
	loop_call(loop, start_neighbours, NULL);
	ck_assert(wait_for(&stopped_calls, NEIGHBOURS / 2));
	usleep(10000);
	ck_assert_int_eq(fired, NEIGHBOURS / 2);
	loop_call(loop, start_neighbours, loop);
	ck_assert(wait_for(&stopped_calls, NEIGHBOURS));
	usleep(10000);
	ck_assert_int_eq(fired, NEIGHBOURS);
	loop_free(loop);
}
END_TEST

static int ringing;

static void *ringer(void *arg)
{
	while (__atomic_load_n(&ringing, __ATOMIC_ACQUIRE))
		put(*(int *)arg);
	return NULL;
}

/* A doorbell that rings all the time while it is watched, stopped, freed, watched again. */
START_TEST(edge_watch_stopped_while_ringing)
{
	int fd = eventfd(0, EFD_NONBLOCK), before;
	pthread_t thread;

	loop = new_loop(_i);
	ringing = 1;
	pthread_create(&thread, NULL, ringer, &fd);
	for (int i = 0; i < 300; i++) {
		watch = new_watch(fd, POLLIN, true, watch_count);
		if (i % 3 == 0)
			usleep(100);
		loop_call(loop, do_stop, watch);
		before = fired;
		memset(watch, 0xee, sizeof(*watch));
		free(watch);
		if (i % 7 == 0)
			usleep(100);
		ck_assert_int_eq(fired, before);
	}
	ringing = 0;
	pthread_join(thread, NULL);
	loop_free(loop);
	close(fd);
}
END_TEST

START_TEST(stopped_watch_lets_go_of_its_file)
{
	int fds[2];

	loop = new_loop(_i);
	signal(SIGPIPE, SIG_IGN);
	for (int i = 0; i < 50; i++) {
		ck_assert_int_eq(pipe2(fds, O_NONBLOCK), 0);
		watch = new_watch(fds[0], POLLIN, i % 2, watch_count);
		loop_call(loop, do_stop, watch);
		free(watch);
		close(fds[0]);
		/* Nobody reads any more, if the kernel keeps no reference. */
		ck_assert_int_eq(write(fds[1], "x", 1), -1);
		ck_assert_int_eq(errno, EPIPE);
		close(fds[1]);
	}
	loop_free(loop);
}
END_TEST

START_TEST(freed_loop_lets_go_of_files)
{
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	loop = new_loop(_i);
	ck_assert_int_eq(pipe2(fds, O_NONBLOCK), 0);
	watch = new_watch(fds[0], POLLIN, false, watch_count);
	loop_free(loop);
	ck_assert_ptr_null(watch->loop);
	free(watch);
	close(fds[0]);
	ck_assert_int_eq(write(fds[1], "x", 1), -1);
	ck_assert_int_eq(errno, EPIPE);
}
END_TEST

START_TEST(same_descriptor_twice)
{
	int fd = eventfd(0, EFD_NONBLOCK);
	struct loop_watch *w2;

	loop = new_loop(_i);
	watch = new_watch(fd, POLLIN, true, watch_count);
	w2 = new_watch(fd, POLLIN, true, watch_count);
	put(fd);
	ck_assert(wait_for(&fired, 2));
	loop_call(loop, do_stop, watch);
	put(fd);
	ck_assert(wait_for(&fired, 3));
	loop_call(loop, do_stop, w2);
	free(watch);
	free(w2);
	loop_free(loop);
}
END_TEST

static void count_to_ten(struct loop_watch *w, uint32_t revents)
{
	last_revents = revents;
	bump(&fired);
	if (fired == 10)
		loop_watch_set(w, 0);
}

START_TEST(file_is_always_ready)
{
	int fds[2] = {open("/dev/null", O_RDWR), temp_file()};

	loop = new_loop(_i);
	for (int i = 0; i < 2; i++) {
		fired = 0;
		watch = new_watch(fds[i], POLLIN, false, count_to_ten);
		ck_assert(wait_for(&fired, 10));
		usleep(10000);
		ck_assert_int_eq(fired, 10);
		ck_assert_int_eq(last_revents, POLLIN);
		loop_call(loop, do_stop, watch);
		free(watch);
	}
	loop_free(loop);
}
END_TEST

static void start_bad(void *arg)
{
	struct hako_error err;
	struct loop_watch w = {.fd = -1, .events = POLLIN, .fn = watch_count};

	ck_assert_int_eq(loop_watch_start(loop, &w, &err), -EBADF);
	ck_assert_ptr_null(w.loop);
	loop_watch_stop(&w);
}

START_TEST(bad_descriptor)
{
	loop = new_loop(_i);
	loop_call(loop, start_bad, NULL);
	loop_free(loop);
}
END_TEST

START_TEST(loops_come_and_go)
{
	int n = 0;

	for (int i = 0; i < 100; i++) {
		n = 1;
		loop = new_loop(_i);
		if (i % 2)
			loop_call(loop, call_fn, &n);
		loop_free(loop);
	}
	loop_free(NULL);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		thread_has_name_and_no_signals,
		messages_arrive_in_order,
		message_posted_twice_comes_once,
		call_waits_for_its_end,
		loops_post_to_each_other,
		level_watch,
		level_watch_changes_events,
		level_watch_sees_hangup,
		edge_watch,
		watch_freed_with_events_under_way,
		edge_watch_stopped_while_ringing,
		stopped_watch_lets_go_of_its_file,
		freed_loop_lets_go_of_files,
		same_descriptor_twice,
		file_is_always_ready,
		bad_descriptor,
		loops_come_and_go,
	};
	TCase *choice = tcase_create("choice of engine");

	tcase_add_test(choice, auto_takes_io_uring);
	tcase_add_loop_test(choice, auto_falls_back, 0, 2);
	return run_tests("loop", tests, ARRAY_SIZE(tests), choice);
}
