/* SPDX-License-Identifier: GPL-2.0-only */
/* hako help sandbox: the tables of confinement, as docs/threat-model.md has them. */
#include <stdio.h>

#include "cli.h"
#include "vmm/sandbox.h"

/* What the needs of @line are called, separated by commas. */
static void print_needs(const struct sandbox_line *line)
{
	const char *comma = "";

	for (int need = 0; need < SANDBOX_NEEDS; need++) {
		if (line->needs & BIT(need)) {
			printf("%s%s", comma, sandbox_need_names[need]);
			comma = ", ";
		}
	}
}

static bool is_argument(const struct sandbox_line *line)
{
	return line->only && !strcmp(line->only, "an argument");
}

static unsigned int count(enum sandbox_thread kind)
{
	struct sandbox_line line;
	unsigned int n = 0;

	for (size_t i = 0; sandbox_line(i, &line); i++)
		n += !is_argument(&line) && !line.needs && (line.threads & BIT(kind));
	return n;
}

/* Always allowed, or with a need, or as an argument. */
static void print_lines(enum sandbox_thread kind, bool arguments, bool needed)
{
	const char *comma = "";
	struct sandbox_line line;

	for (size_t i = 0; sandbox_line(i, &line); i++) {
		if (!(line.threads & BIT(kind)) || is_argument(&line) != arguments ||
		    !line.needs == needed)
			continue;
		printf("%s%s", comma, line.name);
		comma = ", ";
		if (line.only && !arguments)
			printf(" (%s)", line.only);
		if (needed) {
			printf(" [");
			print_needs(&line);
			printf("]");
		}
	}
	printf("%s\n", *comma ? "." : "none.");
}

int cli_help_sandbox(void)
{
	for (int kind = 0; kind < SANDBOX_THREADS; kind++) {
		printf("Thread %s: %u system calls\n\n", sandbox_thread_names[kind], count(kind));
		printf("- always: ");
		print_lines(kind, false, false);
		printf("- if the VM has [...]: ");
		print_lines(kind, false, true);
		printf("- arguments: ");
		print_lines(kind, true, false);
		printf("- arguments if the VM has [...]: ");
		print_lines(kind, true, true);
		printf("\n");
	}
	return 0;
}
