/* SPDX-License-Identifier: GPL-2.0-only */
/* hako test: what guests say on their consoles about their tests, by TAP, as the kernel's KUnit, or by kvm-unit-tests' words. */
#include "test.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* Does the line begin with the word, and does that end there? */
static bool is(const char *line, const char *word)
{
	size_t n = strlen(word);

	return !strncmp(line, word, n) && !isalnum((unsigned char)line[n]) && line[n] != '_';
}

static bool has_directive(const char *line, const char *name)
{
	const char *p = strchr(line, '#');

	while (p && (*p == '#' || *p == ' '))
		p++;
	return p && !strncasecmp(p, name, strlen(name));
}

/* Behind the time that a kernel puts in front of its lines: "[    1.234567] ". */
static const char *behind_time(const char *line)
{
	const char *p = line;

	if (*p != '[')
		return line;
	p++;
	while (*p == ' ' || *p == '.' || isdigit((unsigned char)*p))
		p++;
	return p[0] == ']' && p[1] == ' ' ? p + 2 : line;
}

/* "1..N"; "1..0" is how a whole run is skipped. */
static void plan(struct test_words *w, const char *line)
{
	w->has_plan = true;
	w->planned = strtoul(line + 3, NULL, 10);
	w->skipped += !w->planned;
}

/* Indented lines are of subtests, and come together in one that is not. */
static void take_line(struct test_words *w)
{
	const char *line = behind_time(w->line);

	if (!strncmp(line, "1..", 3) && isdigit((unsigned char)line[3]))
		plan(w, line);
	else if (is(line, "Kernel panic"))
		w->panicked = true;
	else if (is(line, "not ok"))
		*(has_directive(line, "TODO") ? &w->skipped : &w->failed) += 1;
	else if (is(line, "ok"))
		*(has_directive(line, "SKIP") ? &w->skipped : &w->passed) += 1;
	else if (is(line, "FAIL"))
		w->failed++;
	else if (is(line, "PASS"))
		w->passed++;
	else if (is(line, "SKIP"))
		w->skipped++;
}

static void end_line(struct test_words *w)
{
	w->line[w->len] = 0;
	take_line(w);
	w->len = 0;
}

void test_words_add(struct test_words *w, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '\n')
			end_line(w);
		else if (text[i] != '\r' && text[i] && w->len < sizeof(w->line) - 1)
			w->line[w->len++] = text[i];
	}
}

enum test_outcome test_words_judge(struct test_words *w, char *why, size_t size)
{
	uint32_t told;

	if (w->len)
		end_line(w);
	told = w->passed + w->failed + w->skipped;
	if (w->panicked)
		snprintf(why, size, "its kernel panicked");
	else if (w->failed)
		snprintf(why, size, "%u of %u failed", w->failed, told);
	else if (w->has_plan && told < w->planned)
		snprintf(why, size, "it told of %u of %u", told, w->planned);
	else if (!told)
		snprintf(why, size, "it ended without a result");
	else if (w->passed)
		return TEST_PASSED;
	else
		return TEST_SKIPPED;
	return TEST_FAILED;
}
