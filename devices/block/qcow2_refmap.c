/* SPDX-License-Identifier: GPL-2.0-only */
#include "qcow2_refmap.h"

#include <stdlib.h>

#define MAX_LEAVES (2 * GiB / sizeof(struct refmap_leaf))

static size_t hash(uint64_t key)
{
	return (key * 0x9e3779b97f4a7c15ull) >> 20;
}

/* The leaf's place, or a free one. There is always a free one. */
static struct refmap_leaf **find_slot(const struct refmap *m, uint64_t key)
{
	size_t i = hash(key) & (m->nslots - 1);

	while (m->slots[i] && m->slots[i]->key != key)
		i = (i + 1) & (m->nslots - 1);
	return &m->slots[i];
}

static int grow(struct refmap *m)
{
	struct refmap bigger = {.nslots = m->nslots ? m->nslots * 2 : 64};

	bigger.slots = calloc(bigger.nslots, sizeof(*bigger.slots));
	if (!bigger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < m->nslots; i++)
		if (m->slots[i])
			*find_slot(&bigger, m->slots[i]->key) = m->slots[i];
	free(m->slots);
	m->slots = bigger.slots;
	m->nslots = bigger.nslots;
	return 0;
}

static struct refmap_leaf *find(struct refmap *m, uint64_t key)
{
	if (m->last && m->last->key == key)
		return m->last;
	if (!m->nslots)
		return NULL;
	m->last = *find_slot(m, key);
	return m->last;
}

int refmap_add(struct refmap *m, uint64_t cluster, uint32_t n)
{
	uint64_t key = cluster / REFMAP_LEAF;
	struct refmap_leaf *leaf = find(m, key);
	uint32_t *count;
	int ret;

	if (!leaf) {
		if (m->nleaves == MAX_LEAVES)
			return -EFBIG;
		ret = m->nleaves >= m->nslots / 2 ? grow(m) : 0;
		if (ret < 0)
			return ret;
		leaf = calloc(1, sizeof(*leaf));
		if (!leaf)
			return -ENOMEM;
		leaf->key = key;
		*find_slot(m, key) = m->last = leaf;
		m->nleaves++;
	}
	count = &leaf->n[cluster % REFMAP_LEAF];
	*count = n > UINT32_MAX - *count ? UINT32_MAX : *count + n;
	return 0;
}

uint32_t refmap_get(struct refmap *m, uint64_t cluster)
{
	const struct refmap_leaf *leaf = find(m, cluster / REFMAP_LEAF);

	return leaf ? leaf->n[cluster % REFMAP_LEAF] : 0;
}

static int compare(const void *a, const void *b)
{
	uint64_t ka = (*(struct refmap_leaf *const *)a)->key;
	uint64_t kb = (*(struct refmap_leaf *const *)b)->key;

	return ka < kb ? -1 : ka > kb;
}

struct refmap_leaf **refmap_sorted(const struct refmap *m)
{
	struct refmap_leaf **sorted = malloc(m->nleaves * sizeof(*sorted) + 1);
	size_t n = 0;

	if (!sorted)
		return NULL;
	for (size_t i = 0; i < m->nslots; i++)
		if (m->slots[i])
			sorted[n++] = m->slots[i];
	qsort(sorted, n, sizeof(*sorted), compare);
	return sorted;
}

void refmap_free(struct refmap *m)
{
	for (size_t i = 0; i < m->nslots; i++)
		free(m->slots[i]);
	free(m->slots);
	*m = (struct refmap){0};
}
