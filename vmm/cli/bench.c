/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hako bench: measure this program beside others. What measures is tests/bench/run, a program in Python, which runs hako
 * as anybody would; here it is only found.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

/*
 * The directory that has bench/run and guest/, from the program's own: the one that is built in, and where `make install` puts
 * programs that nobody calls by hand.
 */
static const char *const places[] = {"", "/../libexec/hako"};

/* An error of its own, unlike a regression that "compare" finds, which is 1. */
#define STATUS_ERROR 2

/* Replace this process by @run, with the options that tell it where everything is, and the user's arguments. */
static int become(const char *run, const char *root, const char *self, int argc, char **argv)
{
	const char *ours[] = {run, "--build", root, "--hako", self};
	char **args = calloc(ARRAY_SIZE(ours) + argc, sizeof(*args));

	if (args) {
		memcpy(args, ours, sizeof(ours));
		memcpy(args + ARRAY_SIZE(ours), argv + 1, (argc - 1) * sizeof(*args));
		execv(run, args);
	}
	fprintf(stderr, "hako bench: %s: %m\n", run);
	free(args);
	return STATUS_ERROR;
}

int cli_bench(int argc, char **argv)
{
	char self[PATH_MAX], root[PATH_MAX + 32], run[PATH_MAX + 64];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (len < 0) {
		fprintf(stderr, "hako bench: /proc/self/exe: %m\n");
		return STATUS_ERROR;
	}
	self[len] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(root, sizeof(root), "%.*s%s", (int)(strrchr(self, '/') - self), self,
			 places[i]);
		snprintf(run, sizeof(run), "%s/bench/run", root);
		if (!access(run, X_OK))
			return become(run, root, self, argc, argv);
	}
	fprintf(stderr,
		"hako bench: %s is not there (\"make install\" installs it; in the source tree, "
		"\"make guests\" builds what it needs)\n",
		run);
	return STATUS_ERROR;
}
