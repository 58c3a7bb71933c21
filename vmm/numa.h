/* SPDX-License-Identifier: GPL-2.0-only */
/* --numa: the guest's nodes of CPUs and memory, and where in the host their memory is. */
#ifndef VMM_NUMA_H
#define VMM_NUMA_H

#include "error.h"
#include "util.h"

struct memory;
struct memory_options;

#define NUMA_MAX_NODES	 128
#define NUMA_HOST_NODES	 1024
#define NUMA_LOCAL	 10 /* distance of a node to itself */
#define NUMA_REMOTE	 20 /* to others, unless said otherwise */
#define NUMA_UNREACHABLE 255

/* Where in the host: QEMU's HostMemPolicy. */
enum numa_policy {
	NUMA_DEFAULT,
	NUMA_PREFERRED,
	NUMA_BIND,
	NUMA_INTERLEAVE,
};

struct numa_node {
	uint64_t
		memory; /* bytes: nodes have RAM in the order of their numbers, from address 0 up */
	enum numa_policy policy;
	uint64_t host[NUMA_HOST_NODES / 64]; /* the host's nodes, bits */
};

struct numa {
	uint32_t nnodes;
	struct numa_node node[NUMA_MAX_NODES];
	uint32_t *cpu_node; /* of each vCPU */
	bool has_distances; /* some have been given */
	uint8_t distance[NUMA_MAX_NODES][NUMA_MAX_NODES];
};

/**
 * Of the values of --numa, a NULL-terminated list: nodes that hold all of @ncpus vCPUs and @ram_size bytes, which are backed as @mem says. The caller
 * frees it. Errors name the option.
 */
int numa_parse(char *const *list, uint32_t ncpus, uint64_t ram_size,
	       const struct memory_options *mem, struct numa **numa, struct hako_error *err);
/** NULL is allowed. */
void numa_free(struct numa *numa);

/** Tell the kernel where RAM is to be. Before it is touched; nothing may be mapped over it later. */
int numa_bind(const struct numa *numa, const struct memory *mem, struct hako_error *err);

#endif
