/* SPDX-License-Identifier: GPL-2.0-only */
/* What hako img prints: sizes, JSON, progress. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "img.h"

const char *img_size_str(uint64_t bytes, char buf[32])
{
	static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
	double v = (double)bytes;
	size_t i = 0;

	/* 1000 KiB and more are shown as MiB: never more than three digits before the point. */
	for (; v >= 1000 && i + 1 < ARRAY_SIZE(units); i++)
		v /= 1024;
	snprintf(buf, 32, "%0.3g %sB", v, units[i]);
	return buf;
}

/* --- JSON ------------------------------------------------------------------------------------- */

void img_json_quote(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		unsigned char c = *s;

		switch (c) {
		case '"':
		case '\\':
			printf("\\%c", c);
			break;
		case '\n':
			printf("\\n");
			break;
		case '\t':
			printf("\\t");
			break;
		default:
			if (c < 0x20 || c == 0x7f)
				printf("\\u%04x", c);
			else
				putchar(c);
		}
	}
	putchar('"');
}

/* For people: "key: value", dashes in keys as spaces, items of lists as "[0]: value". */
static void human_item(struct img_json *j, const char *key)
{
	printf("%*s", 4 * j->level, "");
	if (!key)
		printf("[%u]", j->index[j->level & 7]++);
	for (; key && *key; key++)
		putchar(*key == '-' ? ' ' : *key);
	putchar(':');
}

static void json_item(struct img_json *j, const char *key)
{
	if (j->human) {
		human_item(j, key);
		return;
	}
	if (j->level)
		printf("%s\n%*s", j->first ? "" : ",", 4 * j->level, "");
	j->first = false;
	if (key) {
		img_json_quote(key);
		printf(": ");
	}
}

void img_json_open(struct img_json *j, const char *key, char bracket)
{
	json_item(j, key);
	j->level++;
	j->first = true;
	if (j->human)
		putchar('\n');
	else
		putchar(bracket);
	if (bracket == '[')
		j->index[j->level & 7] = 0;
}

void img_json_close(struct img_json *j, char bracket)
{
	j->level--;
	if (j->human)
		return;
	if (!j->first || bracket == '}')
		printf("\n%*s", 4 * j->level, "");
	putchar(bracket);
	j->first = false;
	if (!j->level)
		putchar('\n');
}

void img_json_str(struct img_json *j, const char *key, const char *value)
{
	json_item(j, key);
	if (j->human)
		printf(" %s\n", value);
	else
		img_json_quote(value);
}

void img_json_uint(struct img_json *j, const char *key, uint64_t value)
{
	json_item(j, key);
	printf(j->human ? " %llu\n" : "%llu", (unsigned long long)value);
}

void img_json_bool(struct img_json *j, const char *key, bool value)
{
	json_item(j, key);
	printf(j->human ? " %s\n" : "%s", value ? "true" : "false");
}

/* --- progress ------------------------------------------------------------------------------------- */

#define PROGRESS_NS (NSEC_PER_SEC / 10)

/* Blocked in all threads, and fetched when there is something to say. */
static bool progress_asked(void)
{
	struct timespec now = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	return sigtimedwait(&set, NULL, &now) == SIGUSR1;
}

static void print_progress(struct img_progress *p, double percent)
{
	p->shown = percent;
	printf("    (%3.2f/100%%)\r", percent);
	fflush(stdout);
}

void img_progress_start(struct img_progress *p, bool enabled)
{
	sigset_t set;

	*p = (struct img_progress){.enabled = enabled};
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (enabled)
		print_progress(p, 0);
}

void img_progress_set(struct img_progress *p, uint64_t done, uint64_t total)
{
	double percent = total ? 100.0 * (double)done / (double)total : 100;
	uint64_t now;

	if (progress_asked() && !p->enabled)
		fprintf(stderr, "    (%3.2f/100%%)\n", percent);
	if (!p->enabled || percent - p->shown < 0.01)
		return;
	now = clock_now();
	if (now - p->last < PROGRESS_NS && percent < 100)
		return;
	p->last = now;
	print_progress(p, percent);
}

void img_progress_end(struct img_progress *p, bool success)
{
	if (!p->enabled)
		return;
	if (success)
		print_progress(p, 100);
	putchar('\n');
	fflush(stdout);
}
