/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Guest memory. Everybody who reaches it gives an address and a length; both are checked here against the map, once, and a
 * host pointer comes back that is good for that length as long as the VM lives. What lies there may change under the reader at
 * any time, since the guest runs: copy, check the copy, use the copy.
 */
#ifndef VMM_MEMORY_H
#define VMM_MEMORY_H

#include "error.h"
#include "util.h"

struct vm;

/* RAM that is contiguous in the guest and in the host. */
struct ram_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	uint32_t slot; /* KVM memory slot */
	int fd;	       /* memfd that backs it from offset 0; -1: private. See memory_share() */
};

#define MEMORY_MAX_REGIONS 16

/* What backs RAM. Zeroes: private anonymous memory with transparent huge pages, as it is touched. */
struct memory_options {
	uint64_t huge; /* bytes of a reserved huge page; 0: none */
	bool no_thp;   /* no transparent huge pages */
	bool share;    /* other processes may map it, from the start */
	bool merge;    /* equal pages of guests become one (KSM) */
	bool dump;     /* part of this process's core dumps */
	bool prealloc, lock;
	uint32_t threads; /* that prealloc; 0: as many as there are CPUs, within reason */
};

struct memory {
	struct ram_region
		region[MEMORY_MAX_REGIONS]; /* ascending; constant once the VM is created */
	unsigned int nregions;
	uint64_t ram_size;
	struct memory_options options; /* before memory_add_ram() */
};

/**
 * The @len bytes of RAM at @gpa, or NULL if they are not all RAM of one region, or @len is 0.
 * Any thread. No lock.
 */
static inline void *memory_ptr(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct ram_region *r = &mem->region[i];
		uint64_t off = gpa - r->gpa;

		if (off < r->size && len <= r->size - off && len)
			return r->hva + off;
	}
	return NULL;
}

/** Copy out of and into guest RAM; -EFAULT if not all of it is RAM. May cross regions that touch. */
int memory_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len);
int memory_write(const struct memory *mem, uint64_t gpa, const void *buf, uint64_t len);

/**
 * Add RAM at @gpa, backed as mem->options say. @gpa and @size are multiples of 4096, and of the huge pages' size. Before
 * memory_attach().
 */
int memory_add_ram(struct vm *vm, uint64_t gpa, uint64_t size, struct hako_error *err);

/**
 * Have other processes be able to map all RAM, by the regions' descriptors (vhost-user). Its contents are lost, so it is possible as long as the VM is
 * being made; -EBUSY later, unless it is shared already.
 */
int memory_share(struct vm *vm, struct hako_error *err);

/** Give all RAM to KVM, if vm->fd is open. Sleeps for some ms, since KVM waits for its readers. Before the vCPUs run. */
int memory_attach(struct vm *vm, struct hako_error *err);

/** Do what is to be done before the guest runs, once memory stays what it is: prealloc and lock. */
int memory_prepare(struct vm *vm, struct hako_error *err);

/* memory_options.c, for memory.c: what goes with each mapping; why there are no huge pages. */
int memory_advise(const struct memory_options *o, const struct ram_region *r,
		  struct hako_error *err);
int memory_huge_error(int code, uint64_t size, uint64_t page, struct hako_error *err);

/**
 * The guest does not use the @len bytes from @gpa on (memory_discard_ptr(): from the host's address @p on), and will not miss what is there: give the
 * host back the whole pages in them, which read as zeroes afterwards. What is no RAM is left out. memory_discard() returns how many bytes of them are RAM. @gpa +
 * @len does not overflow. Any thread.
 */
uint64_t memory_discard(const struct memory *mem, uint64_t gpa, uint64_t len);
void memory_discard_ptr(const struct memory *mem, void *p, uint64_t len);

/** Would memory_discard() give anything back? What is reserved (hugepages=) or locked belongs to the VM for its whole life. */
static inline bool memory_discards(const struct memory *mem)
{
	return !mem->options.huge && !mem->options.lock;
}

/** Have host pages behind up to 2 MiB from @gpa on: how many bytes were looked after, 0 if there is no RAM. Their contents stay. Any thread. */
uint64_t memory_touch(const struct memory *mem, uint64_t gpa, uint64_t len);

/** Make a memory without a VM behind it (unit tests, fuzzers): one region at 0. */
int memory_init_plain(struct memory *mem, uint64_t size, struct hako_error *err);
void memory_free(struct memory *mem);

#endif
