/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hako test: guests that test something, several at once, and what becomes of them as TAP (testanything.org, version 13). Each has a process, which is
 * confined once the guest is loaded, so that none knows of the others.
 */
#include "test.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/config.h"

#define TAIL_LINES 20 /* of the console of a guest that failed */
#define GRACE	   10 /* seconds that a process may take beside the guest's time */

#define T struct test_config
const struct option cli_test_options[] = {
	OPT_UINT("jobs", T, jobs, "0", 0, 1024, "guests at once; 0: as many as there are CPUs"),
	OPT_UINT("timeout", T, timeout, "90", 1, 1000000, "seconds that a guest may take"),
	OPT_UINT("success", T, success, "0", 0, 127,
		 "what a guest that has passed writes to isa-debug-exit"),
	OPT_ENUM("sandbox", T, sandbox, "on", sandbox_mode_names,
		 "confine each guest's process before it runs, as hako run does"),
	OPT_BOOL("verbose", T, verbose, "off",
		 "the consoles of all guests, not only of failed ones"),
	OPT_BOOL("help", T, help, "off", "show these options"),
	OPT_END,
};
#undef T

struct tests {
	struct test_config config;
	struct test_guest *guest;
	size_t n, next, printed, running;
	size_t failed;
};

/* --- arguments --------------------------------------------------------------------------------- */

static int keep_option(struct tests *t, const char *name, const char *value, struct hako_error *err)
{
	struct test_config *c = &t->config;
	struct test_option *list = realloc(c->option, (c->noptions + 1) * sizeof(*list));

	if (!list)
		return error_errno(err, -ENOMEM, "--%s", name);
	c->option = list;
	list[c->noptions].value = value;
	list[c->noptions].name = strdup(name);
	if (!list[c->noptions].name)
		return error_errno(err, -ENOMEM, "--%s", name);
	c->noptions++;
	c->have_exit |= !strcmp(name, "device") && !strncmp(value, "isa-debug-exit", 14);
	return 0;
}

static int set(void *opaque, const char *name, const char *value, struct hako_error *err)
{
	static const char *const taken[] = {"kernel", "console", "no-reboot"};
	const struct option *own = cli_find_option(cli_test_options, name);
	struct tests *t = opaque;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		if (!strcmp(name, taken[i]))
			return error_set(err, -EINVAL, "--%s: test sets it by itself", name);
	if (own) {
		r = option_set(own, &t->config, value, err);
		return r ? error_prefix(err, "--%s", name), r : 0;
	}
	return keep_option(t, name, value, err);
}

static int parse(struct tests *t, int argc, char **argv, struct hako_error *err)
{
	bool only_files = false;

	t->guest = calloc(argc, sizeof(*t->guest));
	if (!t->guest)
		return error_errno(err, -ENOMEM, "test");
	for (int i = 1, n; i < argc; i += n) {
		n = 1;
		if (only_files || argv[i][0] != '-' || !argv[i][1])
			t->guest[t->n++].file = argv[i];
		else if (!strcmp(argv[i], "--"))
			only_files = true;
		else if (strncmp(argv[i], "--", 2))
			n = error_set(err, -EINVAL,
				      "%s: options start with two dashes (see \"hako help test\")",
				      argv[i]);
		else
			n = config_parse_arg(cli_test_options, argc - i, argv + i, set, t, err);
		if (n < 0)
			return n;
	}
	if (!t->config.help && !t->n)
		return error_set(err, -EINVAL, "test: a file is missing");
	return 0;
}

/* --- output ------------------------------------------------------------------------------------ */

/* The last lines of the console, as comments. */
static void print_console(const struct test_report *r, bool all)
{
	const char *p = r->tail, *end = p + MIN(r->tail_len, (uint32_t)TEST_TAIL), *eol, *at = end;

	for (int lines = 0; !all && at > p; at--)
		if (at[-1] == '\n' && at != end && ++lines == TAIL_LINES)
			break;
	for (p = all ? p : at; p < end; p = eol + 1) {
		eol = memchr(p, '\n', end - p) ?: end;
		printf("# | ");
		for (; p < eol; p++)
			if ((uint8_t)*p >= ' ' || *p == '\t')
				putchar((uint8_t)*p);
		putchar('\n');
	}
}

/* It stays one comment, whatever it says. */
static void print_why(const struct test_report *r)
{
	printf("# ");
	for (size_t i = 0; i < sizeof(r->why) && r->why[i]; i++)
		putchar((uint8_t)r->why[i] < ' ' ? ' ' : r->why[i]);
	putchar('\n');
}

/* A number sign in a name would begin a directive. */
static void print_name(const char *name)
{
	for (; *name; name++)
		putchar(*name == '#' || *name == '\n' ? '_' : *name);
}

static void print_guest(struct tests *t, size_t i)
{
	const struct test_report *r = t->guest[i].report;
	bool failed = r->outcome != TEST_PASSED && r->outcome != TEST_SKIPPED;

	printf("%sok %zu - ", failed ? "not " : "", i + 1);
	print_name(t->guest[i].file);
	printf("%s\n", r->outcome == TEST_SKIPPED ? " # SKIP" : "");
	if (failed)
		print_why(r);
	if (failed || t->config.verbose)
		print_console(r, t->config.verbose);
	t->failed += failed;
}

/* In their order, whichever ended first. */
static void print_done(struct tests *t)
{
	while (t->printed < t->n && t->guest[t->printed].done)
		print_guest(t, t->printed++);
	fflush(stdout);
}

/* --- running ----------------------------------------------------------------------------------- */

static int start(struct tests *t, struct test_guest *g)
{
	pid_t parent = getpid();
	int ret;

	g->report->outcome = TEST_FAILED;
	g->deadline = clock_now() + (t->config.timeout + GRACE) * NSEC_PER_SEC;
	/* Whose report is not its own, a process shall not reach. */
	madvise(g->report, sizeof(*g->report), MADV_DOFORK);
	g->pid = fork();
	ret = g->pid < 0 ? -errno : 0;
	if (g->pid)
		madvise(g->report, sizeof(*g->report), MADV_DONTFORK);
	if (ret)
		return ret;
	if (!g->pid) {
		/* Not to outlive the program. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			test_guest_run(g->file, &t->config, g->report);
		_exit(0);
	}
	g->pidfd = syscall(SYS_pidfd_open, g->pid, 0);
	if (g->pidfd < 0) {
		ret = -errno;
		kill(g->pid, SIGKILL);
		waitpid(g->pid, NULL, 0);
		return ret;
	}
	t->running++;
	return 0;
}

static void start_some(struct tests *t, size_t jobs)
{
	while (t->next < t->n && t->running < jobs) {
		struct test_guest *g = &t->guest[t->next++];
		int ret = start(t, g);

		if (!ret)
			continue;
		snprintf(g->report->why, sizeof(g->report->why), "no process for it: %s",
			 strerror(-ret));
		g->report->outcome = TEST_FAILED;
		g->done = true;
	}
}

static void end(struct tests *t, struct test_guest *g)
{
	struct test_report *r = g->report;
	int status;

	waitpid(g->pid, &status, 0);
	close(g->pidfd);
	g->pidfd = -1;
	g->done = true;
	t->running--;
	if (WIFEXITED(status) && !WEXITSTATUS(status))
		return;
	r->outcome = TEST_FAILED;
	snprintf(r->why, sizeof(r->why), "its process ended by %s %d",
		 WIFSIGNALED(status) ? "signal" : "status",
		 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* Until one that runs has ended, or should have. */
static void wait_for_some(struct tests *t, struct pollfd *fds)
{
	uint64_t now = clock_now(), first = now + 3600 * NSEC_PER_SEC;
	struct test_guest *g;
	nfds_t n = 0;

	for (g = t->guest; g < t->guest + t->next; g++)
		if (g->pidfd >= 0) {
			fds[n++] = (struct pollfd){.fd = g->pidfd, .events = POLLIN};
			first = MIN(first, g->deadline);
		}
	if (!n)
		return;
	poll(fds, n, first > now ? (first - now) / 1000000 + 1 : 0);
	now = clock_now();
	for (g = t->guest; g < t->guest + t->next; g++) {
		struct pollfd p = {.fd = g->pidfd, .events = POLLIN};

		if (g->pidfd >= 0 && now >= g->deadline)
			kill(g->pid, SIGKILL);
		if (g->pidfd >= 0 && poll(&p, 1, 0) == 1)
			end(t, g);
	}
}

/* Each a mapping of its own: mremap() reaches all of one. */
static int make_reports(struct tests *t)
{
	for (struct test_guest *g = t->guest; g < t->guest + t->n; g++) {
		void *p = mmap(NULL, sizeof(*g->report), PROT_READ | PROT_WRITE,
			       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED)
			return -errno;
		g->report = p;
		g->pidfd = -1;
		if (madvise(p, sizeof(*g->report), MADV_DONTFORK))
			return -errno;
	}
	return 0;
}

static int run_all(struct tests *t, struct hako_error *err)
{
	size_t jobs = t->config.jobs ?: (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
	struct pollfd *fds;
	int r;

	jobs = MIN(jobs, t->n);
	fds = calloc(jobs, sizeof(*fds));
	r = fds ? make_reports(t) : -ENOMEM;
	if (r) {
		free(fds);
		return error_errno(err, r, "test");
	}
	printf("TAP version 13\n1..%zu\n", t->n);
	while (t->printed < t->n) {
		/* What is buffered would be every process's. */
		fflush(stdout);
		start_some(t, jobs);
		wait_for_some(t, fds);
		print_done(t);
	}
	free(fds);
	return 0;
}

static void tests_free(struct tests *t)
{
	for (size_t i = 0; i < t->config.noptions; i++)
		free(t->config.option[i].name);
	free(t->config.option);
	for (size_t i = 0; i < t->n; i++)
		if (t->guest[i].report)
			munmap(t->guest[i].report, sizeof(*t->guest[i].report));
	free(t->guest);
	options_free(cli_test_options, &t->config);
}

int cli_test(int argc, char **argv)
{
	struct tests t = {0};
	struct hako_error err;
	int r, status = 0;

	r = options_defaults(cli_test_options, &t.config, &err);
	if (!r)
		r = parse(&t, argc, argv, &err);
	if (r) {
		status = cli_fail(&err);
	} else if (t.config.help) {
		status = cli_help(2, (char *[]){argv[0], (char *)"test", NULL});
	} else {
		r = run_all(&t, &err);
		status = r ? cli_fail(&err) : t.failed ? 1 : 0;
	}
	tests_free(&t);
	return status;
}
