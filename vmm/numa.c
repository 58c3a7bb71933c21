/* SPDX-License-Identifier: GPL-2.0-only */
/* --numa host-nodes= and policy=: guest memory on the host's nodes (mbind(2)). */
#include "numa.h"

#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"

/* What the host has: the first node that is wanted and is not there, or -1. */
static int missing_node(const struct numa_node *node)
{
	char path[64];

	for (int i = 0; i < NUMA_HOST_NODES; i++) {
		if (!(node->host[i / 64] >> i % 64 & 1))
			continue;
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d", i);
		if (access(path, F_OK))
			return i;
	}
	return -1;
}

static int bind_range(const struct numa_node *node, void *p, uint64_t len)
{
	static const int modes[] = {
		[NUMA_DEFAULT] = MPOL_DEFAULT,
		[NUMA_PREFERRED] = MPOL_PREFERRED,
		[NUMA_BIND] = MPOL_BIND,
		[NUMA_INTERLEAVE] = MPOL_INTERLEAVE,
	};

	/* The kernel takes one bit less than it is told of. */
	return syscall(SYS_mbind, p, len, modes[node->policy], node->host, NUMA_HOST_NODES + 1UL,
		       MPOL_MF_MOVE)
		       ? -errno
		       : 0;
}

/* Bytes [@from, @to) of all RAM, one region behind the other. */
static int bind_node(const struct numa_node *node, const struct memory *mem, uint64_t from,
		     uint64_t to)
{
	int ret = 0;

	for (unsigned int i = 0; i < mem->nregions && !ret; i++) {
		const struct ram_region *r = &mem->region[i];

		if (from < r->size && from < to)
			ret = bind_range(node, r->hva + from, MIN(to, r->size) - from);
		from -= MIN(from, r->size);
		to -= MIN(to, r->size);
	}
	return ret;
}

int numa_bind(const struct numa *numa, const struct memory *mem, struct hako_error *err)
{
	uint64_t at = 0;

	for (uint32_t i = 0; i < numa->nnodes; i++) {
		const struct numa_node *node = &numa->node[i];
		int ret, missing = missing_node(node);

		if (missing >= 0)
			return error_set(
				err, -ENODEV,
				"--numa: node %u: host-nodes=%d: this host has no such node", i,
				missing);
		if (node->policy != NUMA_DEFAULT) {
			ret = bind_node(node, mem, at, at + node->memory);
			if (ret)
				return error_errno(err, ret, "--numa: node %u: host-nodes", i);
		}
		at += node->memory;
	}
	return 0;
}

void numa_free(struct numa *numa)
{
	if (numa)
		free(numa->cpu_node);
	free(numa);
}
