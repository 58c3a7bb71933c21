/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Timers of a loop: a pairing heap through the timers themselves. Setting is O(1), taking out O(log n) amortised, and neither
 * allocates.
 */
#include "loop_impl.h"

/* @prev of a first child is its parent, of another child its left neighbour; the root has none. */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
	if (!a)
		return b;
	if (!b)
		return a;
	if (b->deadline < a->deadline) {
		struct loop_timer *t = a;

		a = b;
		b = t;
	}
	b->prev = a;
	b->next = a->child;
	if (b->next)
		b->next->prev = b;
	a->child = b;
	return a;
}

/* Make one heap of a list of siblings: pair them from the left, then meld the pairs from the right. */
static struct loop_timer *merge_pairs(struct loop_timer *first)
{
	struct loop_timer *pairs = NULL, *root = NULL;

	while (first) {
		struct loop_timer *a = first, *b = a->next, *pair;

		first = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		pair = meld(a, b);
		pair->next = pairs;
		pairs = pair;
	}
	while (pairs) {
		struct loop_timer *pair = pairs;

		pairs = pair->next;
		pair->next = NULL;
		root = meld(root, pair);
	}
	return root;
}

static void heap_remove(struct loop *loop, struct loop_timer *timer)
{
	struct loop_timer *rest = merge_pairs(timer->child);

	if (loop->timers == timer) {
		loop->timers = rest;
	} else {
		if (timer->prev->child == timer)
			timer->prev->child = timer->next;
		else
			timer->prev->next = timer->next;
		if (timer->next)
			timer->next->prev = timer->prev;
		loop->timers = meld(loop->timers, rest);
	}
	timer->child = timer->next = timer->prev = NULL;
	timer->loop = NULL;
}

void loop_timer_set(struct loop *loop, struct loop_timer *timer, uint64_t deadline)
{
	loop_timer_cancel(timer);
	timer->loop = loop;
	timer->deadline = deadline;
	timer->child = timer->next = timer->prev = NULL;
	loop->timers = meld(loop->timers, timer);
}

void loop_timer_cancel(struct loop_timer *timer)
{
	if (timer->loop)
		heap_remove(timer->loop, timer);
}

uint64_t loop_timers_next(const struct loop *loop)
{
	return loop->timers ? loop->timers->deadline : LOOP_NO_TIMEOUT;
}

void loop_timers_run(struct loop *loop, uint64_t now)
{
	/* Bounded, since a timer may set itself to a time gone by, for ever. */
	for (int i = 0; i < 64 && loop->timers && loop->timers->deadline <= now; i++) {
		struct loop_timer *timer = loop->timers;

		heap_remove(loop, timer);
		timer->fn(timer);
	}
}
