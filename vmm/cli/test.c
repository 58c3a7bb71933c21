/* SPDX-License-Identifier: GPL-2.0-only */
/* hako test: guests that test something, several at once, and what becomes of them as TAP (testanything.org, version 13). */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/config.h"

#define TAIL_LINES 20 /* of the console of a guest that failed */

#define T struct test_config
const struct option cli_test_options[] = {
	OPT_UINT("jobs", T, jobs, "0", 0, 1024, "guests at once; 0: as many as there are CPUs"),
	OPT_UINT("timeout", T, timeout, "90", 1, 1000000, "seconds that a guest may take"),
	OPT_UINT("success", T, success, "0", 0, 127,
		 "what a guest that has passed writes to isa-debug-exit"),
	OPT_BOOL("verbose", T, verbose, "off",
		 "the consoles of all guests, not only of failed ones"),
	OPT_BOOL("help", T, help, "off", "show these options"),
	OPT_END,
};
#undef T

struct tests {
	struct test_config config;
	struct test_guest *guest;
	size_t n, next, printed;
	size_t failed;
	pthread_mutex_t lock; /* guards next, printed, failed, done of guests, and the output */
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
static void print_console(const struct test_guest *g, bool all)
{
	const char *p = g->tail, *end = p + g->tail_len, *eol, *at = end;

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

/* A number sign in a name would begin a directive. */
static void print_name(const char *name)
{
	for (; *name; name++)
		putchar(*name == '#' || *name == '\n' ? '_' : *name);
}

static void print_guest(struct tests *t, size_t i)
{
	const struct test_guest *g = &t->guest[i];

	printf("%sok %zu - ", g->outcome == TEST_FAILED ? "not " : "", i + 1);
	print_name(g->file);
	printf("%s\n", g->outcome == TEST_SKIPPED ? " # SKIP" : "");
	if (g->outcome == TEST_FAILED)
		printf("# %s\n", g->why);
	if (g->outcome == TEST_FAILED || t->config.verbose)
		print_console(g, t->config.verbose);
	t->failed += g->outcome == TEST_FAILED;
}

/* In their order, whichever ended first. */
static void print_done(struct tests *t)
{
	while (t->printed < t->n && t->guest[t->printed].done)
		print_guest(t, t->printed++);
	fflush(stdout);
}

/* --- running ----------------------------------------------------------------------------------- */

static void *worker(void *arg)
{
	struct tests *t = arg;
	size_t i;

	pthread_mutex_lock(&t->lock);
	while (t->next < t->n) {
		i = t->next++;
		pthread_mutex_unlock(&t->lock);
		test_guest_run(&t->guest[i], &t->config);
		pthread_mutex_lock(&t->lock);
		t->guest[i].done = true;
		print_done(t);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static void run_all(struct tests *t)
{
	size_t jobs = t->config.jobs ?: (uint32_t)sysconf(_SC_NPROCESSORS_ONLN), threads = 0;
	pthread_t *thread;

	jobs = MIN(jobs, t->n);
	thread = calloc(jobs, sizeof(*thread));
	printf("TAP version 13\n1..%zu\n", t->n);
	fflush(stdout);
	/* This thread is one of them. */
	while (thread && threads + 1 < jobs && !pthread_create(&thread[threads], NULL, worker, t))
		threads++;
	worker(t);
	while (threads)
		pthread_join(thread[--threads], NULL);
	free(thread);
}

static void tests_free(struct tests *t)
{
	for (size_t i = 0; i < t->config.noptions; i++)
		free(t->config.option[i].name);
	free(t->config.option);
	free(t->guest);
	options_free(cli_test_options, &t->config);
	pthread_mutex_destroy(&t->lock);
}

int cli_test(int argc, char **argv)
{
	struct tests t = {.lock = PTHREAD_MUTEX_INITIALIZER};
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
		run_all(&t);
		status = t.failed ? 1 : 0;
	}
	tests_free(&t);
	return status;
}
