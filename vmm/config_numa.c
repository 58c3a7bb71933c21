/* SPDX-License-Identifier: GPL-2.0-only */
/* --numa: which vCPUs and how much memory are in a node, how far nodes are from each other. */
#include <stdio.h>
#include <stdlib.h>

#include "memory.h"
#include "numa.h"
#include "option.h"

#define NO_NODE UINT32_MAX

static const char *const policy_names[] = {"default", "preferred", "bind", "interleave", NULL};

struct node_words {
	uint32_t nodeid;
	char **cpus, **host_nodes;
	char *memory, *mem, *dist;
	int policy;
};

#define T struct node_words
static const struct option node_options[] = {
	OPT_UINT("nodeid", T, nodeid, "0xffffffff", 0, 0, "its number; the next one"),
	OPT_LIST("cpus", T, cpus, "its vCPUs, such as 0-3; may be repeated"),
	OPT_STRING("memory", T, memory, NULL, "its memory; a plain number counts MiB"),
	OPT_STRING("mem", T, mem, NULL, "the same"),
	OPT_LIST("host-nodes", T, host_nodes, "nodes of the host for its memory, such as 0-1"),
	OPT_ENUM("policy", T, policy, "default", policy_names, "how these are used"),
	OPT_STRING("dist", T, dist, NULL, "distances to nodes 0, 1 and so on, such as 10:20"),
	OPT_END,
};
#undef T

struct dist_words {
	uint32_t src, dst, val;
};

#define T struct dist_words
static const struct option dist_options[] = {
	OPT_UINT("src", T, src, NULL, 0, 0, "from this node"),
	OPT_UINT("dst", T, dst, NULL, 0, 0, "to this one"),
	OPT_UINT("val", T, val, NULL, 0, 0, "10 is local, 255 out of reach"),
	OPT_END,
};
#undef T

struct parse {
	struct numa *numa;
	uint32_t ncpus;
	uint64_t ram_size, page;
	bool lazy_huge; /* reserved huge pages that are taken as they are touched */
	bool given[NUMA_MAX_NODES];
	uint32_t with_memory;
	bool stated[NUMA_MAX_NODES][NUMA_MAX_NODES]; /* distances */
};

/* "3" or "0-3", up to @max. */
static int parse_range(const char *text, uint64_t max, uint64_t *first, uint64_t *last)
{
	char number[24];
	const char *dash = strchr(text, '-');
	size_t len = dash ? (size_t)(dash - text) : strlen(text);

	if (len >= sizeof(number))
		return -EINVAL;
	memcpy(number, text, len);
	number[len] = 0;
	if (parse_uint(number, first) || parse_uint(dash ? dash + 1 : number, last))
		return -EINVAL;
	return *first > *last || *last > max ? -ERANGE : 0;
}

static int take_cpus(struct parse *p, uint32_t id, const char *text, struct hako_error *err)
{
	uint64_t first, last;
	int r = parse_range(text, p->ncpus - 1, &first, &last);

	if (r)
		return error_set(err, r, "cpus=%s: %s; there are the vCPUs 0 to %u", text,
				 r == -EINVAL ? "not a range such as 0-3" : "out of range",
				 p->ncpus - 1);
	for (uint64_t i = first; i <= last; i++) {
		uint32_t other = p->numa->cpu_node[i];

		if (other != NO_NODE)
			return error_set(err, -EINVAL, "cpus=%s: vCPU %llu is in node %u already",
					 text, (unsigned long long)i, other);
		p->numa->cpu_node[i] = id;
	}
	return 0;
}

static int take_host_nodes(struct numa_node *node, const char *text, struct hako_error *err)
{
	uint64_t first, last;
	int r = parse_range(text, NUMA_HOST_NODES - 1, &first, &last);

	if (r)
		return error_set(err, r, "host-nodes=%s: %s", text,
				 r == -EINVAL ? "not a range such as 0-1" : "out of range");
	for (uint64_t i = first; i <= last; i++)
		node->host[i / 64] |= BIT64(i % 64);
	return 0;
}

static int take_memory(struct parse *p, struct numa_node *node, const struct node_words *w,
		       struct hako_error *err)
{
	const char *text = w->memory ?: w->mem;
	int r;

	if (w->memory && w->mem)
		return error_set(err, -EINVAL, "memory and mem exclude each other");
	if (!text)
		return 0;
	r = parse_size(text, MiB, &node->memory);
	if (r)
		return error_set(err, r, "memory=%s: %s", text,
				 r == -EINVAL ? "not a size such as 512M" : "out of range");
	if (node->memory % p->page)
		return error_set(err, -EINVAL, "memory=%s: not a multiple of %llu KiB", text,
				 (unsigned long long)(p->page / KiB));
	p->with_memory++;
	return 0;
}

static int set_distance(struct parse *p, uint64_t src, uint64_t dst, uint64_t val,
			struct hako_error *err)
{
	struct numa *n = p->numa;

	if (src >= NUMA_MAX_NODES || dst >= NUMA_MAX_NODES)
		return error_set(err, -ERANGE, "there are at most %d nodes", NUMA_MAX_NODES);
	if (val < NUMA_LOCAL || val > NUMA_UNREACHABLE || (src == dst) != (val == NUMA_LOCAL))
		return error_set(
			err, -EINVAL,
			"distance %llu from node %llu to %llu: %d is a node's own, and only "
			"that; up to %d",
			(unsigned long long)val, (unsigned long long)src, (unsigned long long)dst,
			NUMA_LOCAL, NUMA_UNREACHABLE);
	n->distance[src][dst] = val;
	p->stated[src][dst] = true;
	n->has_distances = true;
	return 0;
}

/* "10:20:20" */
static int take_distances(struct parse *p, uint32_t id, const char *text, struct hako_error *err)
{
	char *copy = strdup(text), *save = NULL;
	uint64_t to = 0, val;
	int r = copy ? 0 : error_errno(err, -ENOMEM, "dist");

	for (char *word = r ? NULL : strtok_r(copy, ":", &save); word && !r;
	     word = strtok_r(NULL, ":", &save)) {
		r = parse_uint(word, &val);
		if (r)
			error_set(err, r, "dist=%s: not numbers such as 10:20", text);
		else if ((r = set_distance(p, id, to++, val, err)))
			error_prefix(err, "dist=%s", text);
	}
	free(copy);
	return r;
}

static int make_node(struct parse *p, const struct node_words *w, struct hako_error *err)
{
	uint32_t id = w->nodeid == UINT32_MAX ? p->numa->nnodes : w->nodeid;
	struct numa_node *node;
	bool hosts = false;
	int r = 0;

	if (id >= NUMA_MAX_NODES)
		return error_set(err, -ERANGE, "node %u: there are at most %d", id, NUMA_MAX_NODES);
	if (p->given[id])
		return error_set(err, -EEXIST, "node %u is there twice", id);
	p->given[id] = true;
	p->numa->nnodes = MAX(p->numa->nnodes, id + 1);
	node = &p->numa->node[id];
	node->policy = w->policy;
	for (char **c = w->cpus; c && *c && !r; c++)
		r = take_cpus(p, id, *c, err);
	for (char **h = w->host_nodes; h && *h && !r; h++) {
		r = take_host_nodes(node, *h, err);
		hosts = true;
	}
	if (!r)
		r = take_memory(p, node, w, err);
	if (!r && w->dist)
		r = take_distances(p, id, w->dist, err);
	if (!r && hosts != (node->policy != NUMA_DEFAULT))
		r = error_set(err, -EINVAL,
			      hosts ? "host-nodes needs policy=bind, preferred or interleave"
				    : "policy=%s needs host-nodes",
			      policy_names[node->policy]);
	/* They are reserved, but of no node: the guest would end where a node has none left. */
	if (!r && node->policy == NUMA_BIND && p->lazy_huge)
		r = error_set(err, -EINVAL, "policy=bind with hugepages= needs prealloc=on");
	return r;
}

static int parse_node(struct parse *p, struct keyvals *kv, struct hako_error *err)
{
	struct node_words w = {0};
	int r = options_defaults(node_options, &w, err);

	if (!r)
		r = options_apply(node_options, &w, kv, true, err);
	if (!r)
		r = make_node(p, &w, err);
	options_free(node_options, &w);
	return r;
}

static int parse_dist(struct parse *p, struct keyvals *kv, struct hako_error *err)
{
	struct dist_words w = {UINT32_MAX, UINT32_MAX, UINT32_MAX};
	int r = options_apply(dist_options, &w, kv, true, err);

	if (!r && (w.src == UINT32_MAX || w.dst == UINT32_MAX || w.val == UINT32_MAX))
		r = error_set(err, -EINVAL, "src, dst and val are needed");
	return r ?: set_distance(p, w.src, w.dst, w.val, err);
}

static int parse_one(struct parse *p, const char *text, struct hako_error *err)
{
	struct keyvals kv = {0};
	int r = keyvals_parse(&kv, text, "type", err);
	const char *type = r ? NULL : keyvals_take(&kv, "type");

	if (!r && type && !strcmp(type, "node"))
		r = parse_node(p, &kv, err);
	else if (!r && type && !strcmp(type, "dist"))
		r = parse_dist(p, &kv, err);
	else if (!r)
		r = error_set(err, -EINVAL, "node,… or dist,… is needed");
	keyvals_free(&kv);
	return r ? error_prefix(err, "--numa %s", text), r : 0;
}

/* --- what all of them say together --------------------------------------------------------------- */

static int check_cpus(const struct parse *p, struct hako_error *err)
{
	for (uint32_t i = 0; i < p->ncpus; i++)
		if (p->numa->cpu_node[i] == NO_NODE)
			return error_set(err, -EINVAL, "--numa: vCPU %u is in no node (cpus=)", i);
	return 0;
}

/* Where no node says how much it has, all have the same. */
static int check_memory(struct parse *p, struct hako_error *err)
{
	struct numa *n = p->numa;
	uint64_t sum = 0, share = ALIGN_DOWN(p->ram_size / n->nnodes, MAX(p->page, MiB));

	for (uint32_t i = 0; i < n->nnodes; i++) {
		uint64_t *memory = &n->node[i].memory;

		if (!p->with_memory)
			*memory = i + 1 < n->nnodes ? share : p->ram_size - sum;
		if (*memory > p->ram_size - sum)
			return error_set(
				err, -EINVAL,
				"--numa: nodes 0 to %u have more than the %llu MiB of --memory", i,
				(unsigned long long)(p->ram_size / MiB));
		sum += *memory;
	}
	if (sum != p->ram_size)
		return error_set(err, -EINVAL,
				 "--numa: the nodes have %llu MiB of memory, --memory has %llu",
				 (unsigned long long)(sum / MiB),
				 (unsigned long long)(p->ram_size / MiB));
	return 0;
}

/* One direction is as good as both. */
static int check_distances(struct parse *p, struct hako_error *err)
{
	struct numa *n = p->numa;

	for (uint32_t i = 0; i < NUMA_MAX_NODES; i++) {
		for (uint32_t k = 0; k < NUMA_MAX_NODES; k++) {
			if (p->stated[i][k] && (i >= n->nnodes || k >= n->nnodes))
				return error_set(err, -EINVAL,
						 "--numa: there is no node %u to have a distance",
						 MAX(i, k));
			if (p->stated[i][k] && p->stated[k][i] &&
			    n->distance[i][k] != n->distance[k][i])
				return error_set(
					err, -EINVAL,
					"--numa: from node %u to %u it is %u, and back %u: distances "
					"must be symmetric",
					i, k, n->distance[i][k], n->distance[k][i]);
			if (p->stated[i][k])
				n->distance[k][i] = n->distance[i][k];
			else if (!p->stated[k][i])
				n->distance[i][k] = i == k ? NUMA_LOCAL : NUMA_REMOTE;
		}
	}
	return 0;
}

int numa_parse(char *const *list, uint32_t ncpus, uint64_t ram_size,
	       const struct memory_options *mem, struct numa **numa, struct hako_error *err)
{
	struct parse *p = calloc(1, sizeof(*p));
	struct numa *n = calloc(1, sizeof(*n));
	int r = 0;

	if (n)
		n->cpu_node = malloc(ncpus * sizeof(*n->cpu_node));
	if (!p || !n || !n->cpu_node) {
		free(p);
		numa_free(n);
		return error_errno(err, -ENOMEM, "--numa");
	}
	*p = (struct parse){
		.numa = n,
		.ncpus = ncpus,
		.ram_size = ram_size,
		.page = mem->huge ?: PAGE_SIZE,
		.lazy_huge = mem->huge && !mem->prealloc,
	};
	for (uint32_t i = 0; i < ncpus; i++)
		n->cpu_node[i] = NO_NODE;
	for (; *list && !r; list++)
		r = parse_one(p, *list, err);
	for (uint32_t i = 0; i < n->nnodes && !r; i++)
		if (!p->given[i])
			r = error_set(err, -EINVAL, "--numa: node %u is missing", i);
	if (!r && !n->nnodes)
		r = error_set(err, -EINVAL, "--numa: there is no node");
	if (!r)
		r = check_cpus(p, err);
	if (!r)
		r = check_memory(p, err);
	if (!r)
		r = check_distances(p, err);
	free(p);
	if (r)
		numa_free(n);
	else
		*numa = n;
	return r;
}
