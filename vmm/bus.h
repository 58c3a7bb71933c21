/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * I/O dispatch: one bus for ports, one for memory-mapped registers. Look-ups take no lock: the regions are an immutable sorted
 * array that changes replace as a whole; a reader announces which array it uses, and an array is freed when nobody does.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include <pthread.h>

#include "error.h"
#include "util.h"

/*
 * Access by a vCPU. @size is 1, 2, 4 or 8; @offset + @size never exceeds the region. Accesses arrive as the guest made
 * them, of any alignment. A value read has its upper bytes cut off by the bus.
 */
struct io_ops {
	uint64_t (*read)(void *opaque, uint64_t offset, unsigned int size);
	void (*write)(void *opaque, uint64_t offset, uint64_t value, unsigned int size);
};

struct io_region {
	const char *name; /* for logs; constant as long as the region is there */
	uint64_t base, size;
	const struct io_ops *ops;
	void *opaque;
	pthread_mutex_t *lock; /* taken around each access, unless NULL */
	int priority; /* of two that overlap the higher one answers; equal ones may not overlap */
};

struct bus_map;

struct bus {
	const char *name;
	struct bus_map *map;  /* current; atomically replaced */
	pthread_mutex_t lock; /* for changes */
	struct list retired;  /* arrays that some reader may still use */
	struct list readers;
};

/* Who accesses the bus: each vCPU has one for each bus, and so has a test. One thread at a time. */
struct bus_reader {
	struct bus *bus;
	struct bus_map *in_use;
	struct list link;
};

int bus_init(struct bus *bus, const char *name);
void bus_free(struct bus *bus);
void bus_reader_init(struct bus_reader *reader, struct bus *bus);
void bus_reader_free(struct bus_reader *reader);

/** Add a copy of @region. -EEXIST if it overlaps one of the same priority, -EINVAL if it is empty or wraps. Any thread. */
int bus_add(struct bus *bus, const struct io_region *region, struct hako_error *err);
/**
 * Remove the regions of @opaque that start at @base. From a handler of that very region this is allowed: the
 * handler's access is the last. It does not wait for other vCPUs' accesses under way, so @opaque must live until the
 * VM is next paused.
 */
void bus_remove(struct bus *bus, uint64_t base, void *opaque);
/** Both at once: to move a BAR. No access finds neither. */
int bus_move(struct bus *bus, uint64_t old_base, const struct io_region *region,
	     struct hako_error *err);

/**
 * One access. Reads of nothing give all ones and writes to nothing are lost, as on a PC; false then.
 * An access that only partly hits a region is taken to hit nothing.
 */
bool bus_read(struct bus_reader *reader, uint64_t addr, uint64_t *value, unsigned int size);
bool bus_write(struct bus_reader *reader, uint64_t addr, uint64_t value, unsigned int size);

#endif
