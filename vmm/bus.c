/* SPDX-License-Identifier: GPL-2.0-only */
#include "bus.h"

#include <stdlib.h>

/*
 * The regions as a flat array of ranges that do not overlap, ascending: priorities are resolved when the map is made, so that an access
 * is a binary search.
 */
struct bus_range {
	uint64_t base, last; /* inclusive, as a region may end at the top of the address space */
	uint32_t region;     /* index */
};

struct bus_map {
	struct list link; /* in bus->retired */
	uint32_t nregions, nranges;
	struct io_region *region;
	struct bus_range range[];
};

int bus_init(struct bus *bus, const char *name)
{
	bus->name = name;
	bus->map = calloc(1, sizeof(*bus->map));
	pthread_mutex_init(&bus->lock, NULL);
	list_init(&bus->retired);
	list_init(&bus->readers);
	return bus->map ? 0 : -ENOMEM;
}

static void map_free(struct bus_map *map)
{
	if (map)
		free(map->region);
	free(map);
}

void bus_free(struct bus *bus)
{
	struct bus_map *map, *next;

	if (!bus->name)
		return;
	list_for_each_safe(map, next, &bus->retired, link)
		map_free(map);
	map_free(bus->map);
	pthread_mutex_destroy(&bus->lock);
	bus->name = NULL;
}

void bus_reader_init(struct bus_reader *reader, struct bus *bus)
{
	reader->bus = bus;
	reader->in_use = NULL;
	pthread_mutex_lock(&bus->lock);
	list_add_tail(&reader->link, &bus->readers);
	pthread_mutex_unlock(&bus->lock);
}

void bus_reader_free(struct bus_reader *reader)
{
	if (!reader->bus)
		return;
	pthread_mutex_lock(&reader->bus->lock);
	list_del(&reader->link);
	pthread_mutex_unlock(&reader->bus->lock);
	reader->bus = NULL;
}

/* --- changes, under bus->lock ---------------------------------------------------------------- */

static int compare_u64(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int region_at(const struct io_region *region, uint32_t n, uint64_t addr)
{
	int best = -1;

	for (uint32_t i = 0; i < n; i++)
		if (addr - region[i].base < region[i].size &&
		    (best < 0 || region[i].priority > region[best].priority))
			best = i;
	return best;
}

/* Cut the address space at all edges of regions, and see who answers in each piece. Takes @region over. */
static struct bus_map *map_build(struct io_region *region, uint32_t n)
{
	uint64_t *edge = malloc((2 * n + 1) * sizeof(*edge));
	struct bus_map *map = calloc(1, sizeof(*map) + (2 * n + 1) * sizeof(map->range[0]));
	uint32_t nedges = 0;

	if (!edge || !map) {
		free(edge);
		free(map);
		return NULL;
	}
	for (uint32_t i = 0; i < n; i++) {
		edge[nedges++] = region[i].base;
		if (region[i].base + region[i].size)
			edge[nedges++] = region[i].base + region[i].size;
	}
	qsort(edge, nedges, sizeof(*edge), compare_u64);
	for (uint32_t i = 0; i < nedges; i++) {
		uint64_t last = i + 1 < nedges ? edge[i + 1] - 1 : UINT64_MAX;
		int r = last + 1 == edge[i] ? -1 : region_at(region, n, edge[i]);
		struct bus_range *prev = map->nranges ? &map->range[map->nranges - 1] : NULL;

		if (r < 0)
			continue;
		if (prev && prev->region == r && prev->last + 1 == edge[i])
			prev->last = last;
		else
			map->range[map->nranges++] = (struct bus_range){edge[i], last, r};
	}
	free(edge);
	map->region = region;
	map->nregions = n;
	return map;
}

/* Free the retired maps that no reader has announced. */
static void reclaim(struct bus *bus)
{
	struct bus_map *map, *next;

	list_for_each_safe(map, next, &bus->retired, link) {
		struct bus_reader *reader;
		bool used = false;

		list_for_each(reader, &bus->readers, link)
			used |= __atomic_load_n(&reader->in_use, __ATOMIC_SEQ_CST) == map;
		if (used)
			continue;
		list_del(&map->link);
		map_free(map);
	}
}

static int check_region(const struct io_region *region, uint32_t n, const struct io_region *new,
			struct hako_error *err)
{
	if (!new->size || new->base + (new->size - 1) < new->base)
		return error_set(err, -EINVAL, "%s: empty or wraps at 0x%llx", new->name,
				 (unsigned long long)new->base);
	for (uint32_t i = 0; i < n; i++)
		if (region[i].priority == new->priority &&
		    (new->base - region[i].base < region[i].size ||
		     region[i].base - new->base < new->size))
			return error_set(err, -EEXIST, "%s at 0x%llx overlaps %s at 0x%llx",
					 new->name, (unsigned long long)new->base, region[i].name,
					 (unsigned long long)region[i].base);
	return 0;
}

static int bus_change(struct bus *bus, uint64_t old_base, void *old_opaque,
		      const struct io_region *add, struct hako_error *err)
{
	struct bus_map *old, *map;
	struct io_region *region;
	uint32_t n = 0;
	int r = 0;

	pthread_mutex_lock(&bus->lock);
	old = bus->map;
	region = malloc((old->nregions + 1) * sizeof(*region));
	if (!region) {
		r = error_errno(err, -ENOMEM, "%s", bus->name);
		goto out;
	}
	for (uint32_t i = 0; i < old->nregions; i++)
		if (!old_opaque || old->region[i].base != old_base ||
		    old->region[i].opaque != old_opaque)
			region[n++] = old->region[i];
	if (add)
		r = check_region(region, n, add, err);
	if (!r && add)
		region[n++] = *add;
	map = r ? NULL : map_build(region, n);
	if (!map) {
		free(region);
		r = r ?: error_errno(err, -ENOMEM, "%s", bus->name);
		goto out;
	}
	__atomic_store_n(&bus->map, map, __ATOMIC_SEQ_CST);
	list_add_tail(&old->link, &bus->retired);
	reclaim(bus);
out:
	pthread_mutex_unlock(&bus->lock);
	return r;
}

int bus_add(struct bus *bus, const struct io_region *region, struct hako_error *err)
{
	return bus_change(bus, 0, NULL, region, err);
}

void bus_remove(struct bus *bus, uint64_t base, void *opaque)
{
	bus_change(bus, base, opaque, NULL, NULL);
}

int bus_move(struct bus *bus, uint64_t old_base, const struct io_region *region,
	     struct hako_error *err)
{
	return bus_change(bus, old_base, region->opaque, region, err);
}

/* --- access ---------------------------------------------------------------------------------- */

/* Announce the map before using it, and look again whether it is still the one (a hazard pointer). */
static const struct io_region *bus_enter(struct bus_reader *reader, uint64_t addr,
					 unsigned int size)
{
	struct bus_map *map;
	uint32_t lo = 0, hi;

	do {
		map = __atomic_load_n(&reader->bus->map, __ATOMIC_ACQUIRE);
		__atomic_store_n(&reader->in_use, map, __ATOMIC_SEQ_CST);
	} while (map != __atomic_load_n(&reader->bus->map, __ATOMIC_SEQ_CST));

	hi = map->nranges;
	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (map->range[mid].last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < map->nranges && map->range[lo].base <= addr &&
	    map->range[lo].last - addr >= size - 1)
		return &map->region[map->range[lo].region];
	return NULL;
}

static void bus_leave(struct bus_reader *reader)
{
	__atomic_store_n(&reader->in_use, NULL, __ATOMIC_RELEASE);
}

static uint64_t size_mask(unsigned int size)
{
	return size >= 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
}

bool bus_read(struct bus_reader *reader, uint64_t addr, uint64_t *value, unsigned int size)
{
	const struct io_region *r = bus_enter(reader, addr, size);

	*value = UINT64_MAX;
	if (r) {
		if (r->lock)
			pthread_mutex_lock(r->lock);
		*value = r->ops->read(r->opaque, addr - r->base, size);
		if (r->lock)
			pthread_mutex_unlock(r->lock);
	}
	*value &= size_mask(size);
	bus_leave(reader);
	return r;
}

bool bus_write(struct bus_reader *reader, uint64_t addr, uint64_t value, unsigned int size)
{
	const struct io_region *r = bus_enter(reader, addr, size);

	if (r) {
		if (r->lock)
			pthread_mutex_lock(r->lock);
		r->ops->write(r->opaque, addr - r->base, value & size_mask(size), size);
		if (r->lock)
			pthread_mutex_unlock(r->lock);
	}
	bus_leave(reader);
	return r;
}
