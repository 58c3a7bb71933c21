/* SPDX-License-Identifier: GPL-2.0-only */
/* Between the files of hako test. */
#ifndef VMM_CLI_TEST_H
#define VMM_CLI_TEST_H

#include <sys/types.h>

#include "cli.h"

#define TEST_TAIL 16384 /* bytes of the console that are kept */

enum test_outcome {
	TEST_PASSED,
	TEST_SKIPPED,
	TEST_FAILED,
};

/* An option of the VM, from the command line. */
struct test_option {
	char *name;
	const char *value;
};

/* What all guests are run with. Constant while they do. */
struct test_config {
	uint32_t jobs, timeout, success;
	int sandbox; /* enum sandbox_mode */
	bool verbose, help;
	bool have_exit; /* an isa-debug-exit is among the options */
	struct test_option *option;
	size_t noptions;
};

/* What the console of a guest has said so far, by lines. */
struct test_words {
	char line[256];
	size_t len;
	uint32_t passed, failed, skipped, planned;
	bool has_plan, panicked;
};

/*
 * What became of a guest, in memory that its process shares with ours. Whoever has got hold of that process can write anything there.
 */
struct test_report {
	uint32_t outcome; /* enum test_outcome; TEST_FAILED until it is known */
	char why[1100];
	char tail[TEST_TAIL];
	uint32_t tail_len;
};

/* One guest, which has a process of its own. */
struct test_guest {
	const char *file;
	struct test_report *report;
	pid_t pid;
	int pidfd;	   /* while it runs, else -1 */
	uint64_t deadline; /* clock_now(), when its process must have ended by itself */
	bool done;
};

/** Take notice of what comes from a console. */
void test_words_add(struct test_words *w, const char *text, size_t len);
/** What the lines come to, for a guest that has ended without a status; why, if it has not passed, in @why. */
enum test_outcome test_words_judge(struct test_words *w, char *why, size_t size);

/** Run a guest to its end, or that of its time, and judge. This thread is confined with the VM, so it is for a process that does nothing else. */
void test_guest_run(const char *file, const struct test_config *config, struct test_report *report);

#endif
