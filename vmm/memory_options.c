/* SPDX-License-Identifier: GPL-2.0-only */
/* What --memory says besides the size: what backs guest RAM, and whether it is there from the start. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "memory.h"
#include "vm.h"

#define CHUNK		  (64 * MiB) /* that a thread prepares at a time */
#define THREADS_AUTO	  8u
#define OLD_POPULATE_STEP 4096

/* A number in the host's files about huge pages of this size; -1: there is none. */
static long read_count(uint64_t page, const char *name)
{
	char path[96];
	long n = -1;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%llukB/%s",
		 (unsigned long long)(page / KiB), name);
	f = fopen(path, "re");
	if (f && fscanf(f, "%ld", &n) != 1)
		n = -1;
	if (f)
		fclose(f);
	return n;
}

int memory_huge_error(int code, uint64_t size, uint64_t page, struct hako_error *err)
{
	const unsigned long long mib = page / MiB, kib = page / KiB;
	long all = read_count(page, "nr_hugepages"), unused = read_count(page, "free_hugepages");
	long reserved = read_count(page, "resv_hugepages"), need = size / page;

	if (all < 0)
		return error_set(err, -ENOTSUP, "this host has no huge pages of %llu MiB", mib);
	unused -= MAX(reserved, 0);
	error_set(err, code, "%ld huge pages of %llu MiB are needed, %ld are free", need, mib,
		  MAX(unused, 0));
	if (unused >= need)
		return error_hint(err, "mmap: %s", strerrordesc_np(-code));
	return error_hint(
		err, "as root: echo %ld >/sys/kernel/mm/hugepages/hugepages-%llukB/nr_hugepages",
		all + need - MAX(unused, 0), kib);
}

int memory_advise(const struct memory_options *o, const struct ram_region *r,
		  struct hako_error *err)
{
	/* Hints: kernels without them do without. */
	if (!o->huge)
		madvise(r->hva, r->size, o->no_thp ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
	if (!o->dump)
		madvise(r->hva, r->size, MADV_DONTDUMP);
	if (o->merge && madvise(r->hva, r->size, MADV_MERGEABLE))
		return error_set(err, -ENOTSUP, "merge=on: this kernel does not merge pages (KSM)");
	return 0;
}

/* --- prealloc ---------------------------------------------------------------------------------- */

struct prealloc {
	const struct memory *mem;
	uint64_t next; /* atomic: of all RAM, one region behind the other */
	int error;     /* atomic: of the first that failed */
};

static int populate(uint8_t *p, uint64_t len, bool huge)
{
	if (!madvise(p, len, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL || huge)
		return -errno;
	/* Before Linux 5.14. Nobody else writes there yet. */
	for (uint64_t i = 0; i < len; i += OLD_POPULATE_STEP)
		*(volatile uint8_t *)(p + i) = 0;
	return 0;
}

static void *prealloc_main(void *arg)
{
	struct prealloc *a = arg;

	while (!__atomic_load_n(&a->error, __ATOMIC_RELAXED)) {
		uint64_t at = __atomic_fetch_add(&a->next, CHUNK, __ATOMIC_RELAXED), len = CHUNK;
		int r;

		if (at >= a->mem->ram_size)
			break;
		/* A chunk may reach over the end of a region. */
		for (unsigned int i = 0; i < a->mem->nregions && len; i++) {
			const struct ram_region *g = &a->mem->region[i];
			uint64_t n;

			if (at >= g->size) {
				at -= g->size;
				continue;
			}
			n = MIN(len, g->size - at);
			r = populate(g->hva + at, n, a->mem->options.huge);
			if (r)
				__atomic_store_n(&a->error, r, __ATOMIC_RELAXED);
			at = 0;
			len -= n;
		}
	}
	return NULL;
}

static int prealloc(struct memory *mem, struct hako_error *err)
{
	struct prealloc a = {.mem = mem};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t n = mem->options.threads ?: MIN((uint32_t)MAX(cpus, 1), THREADS_AUTO);
	pthread_t *threads;
	uint32_t started = 0;

	n = MIN(n, (mem->ram_size + CHUNK - 1) / CHUNK);
	threads = calloc(n, sizeof(*threads));
	for (; threads && started + 1 < n; started++)
		if (thread_create(&threads[started], 128 * KiB, prealloc_main, &a) < 0)
			break;
	prealloc_main(&a); /* this thread, too */
	while (started)
		pthread_join(threads[--started], NULL);
	free(threads);
	return a.error ? error_errno(err, a.error, "prealloc=on: %llu MiB",
				     (unsigned long long)(mem->ram_size / MiB))
		       : 0;
}

/* --- lock -------------------------------------------------------------------------------------- */

static int lock(struct memory *mem, struct hako_error *err)
{
	for (unsigned int i = 0; i < mem->nregions; i++) {
		struct rlimit limit = {0};
		int code;

		if (!mlock(mem->region[i].hva, mem->region[i].size))
			continue;
		code = -errno;
		error_errno(err, code, "lock=on: %llu MiB",
			    (unsigned long long)(mem->region[i].size / MiB));
		getrlimit(RLIMIT_MEMLOCK, &limit);
		if (limit.rlim_cur < mem->ram_size)
			error_hint(err, "the limit is %llu KiB, \"ulimit -l\" raises it",
				   (unsigned long long)(limit.rlim_cur / KiB));
		return code;
	}
	return 0;
}

int memory_prepare(struct vm *vm, struct hako_error *err)
{
	struct memory *mem = &vm->mem;
	int r = 0;

	if (mem->options.prealloc)
		r = prealloc(mem, err);
	if (!r && mem->options.lock)
		r = lock(mem, err);
	return r;
}
