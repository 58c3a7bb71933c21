/* SPDX-License-Identifier: GPL-2.0-only */
/* The map of physical memory that firmware would report by INT 15h, AX=E820h. */
#include "boot.h"

#define RAM 1u

/*
 * While ranges are cut and before touching ones are joined: each may be cut in two by the new
 * one, or the new one by each.
 */
struct scratch {
	struct e820_entry entry[2 * E820_MAX + 2];
	unsigned int n;
};

static void put(struct scratch *s, uint64_t start, uint64_t end, uint32_t type)
{
	if (start < end)
		s->entry[s->n++] = (struct e820_entry){start, end - start, type};
}

static bool overlaps(const struct e820_entry *e, uint64_t start, uint64_t end)
{
	return e->addr < end && start < e->addr + e->size;
}

/* What is RAM gives way to everything else. */
static int insert(struct scratch *s, const struct e820 *map, uint64_t start, uint64_t end,
		  uint32_t type)
{
	uint64_t rest = start;

	for (unsigned int i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];
		uint64_t e_end = e->addr + e->size;

		if (!overlaps(e, start, end) || e->type == type) {
			put(s, e->addr, e_end, e->type);
		} else if (e->type == RAM) {
			put(s, e->addr, MIN(start, e_end), RAM);
			put(s, MAX(end, e->addr), e_end, RAM);
		} else if (type == RAM) {
			put(s, e->addr, e_end, e->type);
			put(s, rest, MIN(e->addr, end), RAM);
			rest = MAX(rest, e_end);
		} else {
			return -EINVAL;
		}
	}
	put(s, rest, end, type);
	return 0;
}

static void sort(struct scratch *s)
{
	for (unsigned int i = 1; i < s->n; i++) {
		struct e820_entry e = s->entry[i];
		unsigned int j = i;

		for (; j && s->entry[j - 1].addr > e.addr; j--)
			s->entry[j] = s->entry[j - 1];
		s->entry[j] = e;
	}
}

/* Join ranges of one type that overlap or touch. */
static void join(struct scratch *s)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < s->n; i++) {
		struct e820_entry *last = n ? &s->entry[n - 1] : NULL, *e = &s->entry[i];

		if (last && last->type == e->type && e->addr <= last->addr + last->size)
			last->size = MAX(last->addr + last->size, e->addr + e->size) - last->addr;
		else
			s->entry[n++] = *e;
	}
	s->n = n;
}

int e820_add(struct e820 *map, uint64_t addr, uint64_t size, uint32_t type)
{
	struct scratch s = {.n = 0};
	int ret;

	if (!size || !type || addr > UINT64_MAX - size || map->n > E820_MAX)
		return -EINVAL;
	ret = insert(&s, map, addr, addr + size, type);
	if (ret)
		return ret;
	sort(&s);
	join(&s);
	if (s.n > E820_MAX)
		return -ENOSPC;
	memcpy(map->entry, s.entry, s.n * sizeof(s.entry[0]));
	map->n = s.n;
	return 0;
}
