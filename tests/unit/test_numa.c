/* SPDX-License-Identifier: GPL-2.0-only */
/* --numa: what is understood and what is refused; and guest memory on the host's nodes, as /proc/self/numa_maps shows it. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "suite.h"
#include "vmm/memory.h"
#include "vmm/numa.h"

static struct hako_error err;

static int parse(char *const *list, uint32_t cpus, uint64_t mib, struct numa **n)
{
	static const struct memory_options plain;

	*n = NULL;
	return numa_parse(list, cpus, mib * MiB, &plain, n, &err);
}

#define LIST(...) ((char *const[]){__VA_ARGS__, NULL})
#define W(TEXT)	  ((char *)(TEXT))

START_TEST(nodes)
{
	struct numa *n;

	ck_assert_msg(parse(LIST(W("node,cpus=0-1,cpus=5,memory=1G,host-nodes=0,policy=bind"),
				 W("node,cpus=2-4,mem=512,dist=21:10:40"), W("node,memory=512M"),
				 W("dist,src=2,dst=0,val=255")),
			    6, 2048, &n) == 0,
		      "%s", err.message);
	ck_assert_uint_eq(n->nnodes, 3);
	ck_assert_uint_eq(n->node[0].memory, GiB);
	ck_assert_uint_eq(n->node[1].memory, 512 * MiB);
	ck_assert_uint_eq(n->node[2].memory, 512 * MiB);
	ck_assert_mem_eq(n->cpu_node, ((uint32_t[]){0, 0, 1, 1, 1, 0}), 24);
	ck_assert_uint_eq(n->node[0].policy, NUMA_BIND);
	ck_assert_uint_eq(n->node[0].host[0], 1);
	ck_assert_uint_eq(n->node[1].policy, NUMA_DEFAULT);
	ck_assert(n->has_distances);
	ck_assert_mem_eq(n->distance[0], ((uint8_t[]){10, 21, 255}), 3);
	ck_assert_mem_eq(n->distance[1], ((uint8_t[]){21, 10, 40}), 3);
	ck_assert_mem_eq(n->distance[2], ((uint8_t[]){255, 40, 10}), 3);
	numa_free(n);

	/* Numbers in any order; shares of memory where none is told. */
	ck_assert_int_eq(
		parse(LIST(W("node,nodeid=1,cpus=0"), W("node,nodeid=0"), W("node,nodeid=2")), 1,
		      1000, &n),
		0);
	ck_assert_uint_eq(n->cpu_node[0], 1);
	ck_assert_uint_eq(n->node[0].memory, 333 * MiB);
	ck_assert_uint_eq(n->node[1].memory, 333 * MiB);
	ck_assert_uint_eq(n->node[2].memory, 334 * MiB);
	ck_assert(!n->has_distances);
	numa_free(n);
}
END_TEST

static const struct {
	const char *list[4], *error;
} bad[] = {
	{{"node,cpus=0-1"}, "vCPU 2 is in no node"},
	{{"node,cpus=0-2", "node,cpus=2-3"}, "vCPU 2 is in node 0 already"},
	{{"node,cpus=0-4"}, "cpus=0-4: out of range; there are the vCPUs 0 to 3"},
	{{"node,cpus=3-0"}, "out of range"},
	{{"node,cpus=all"}, "not a range"},
	{{"node,cpus=0-3,nodeid=1"}, "node 0 is missing"},
	{{"node,cpus=0-3,nodeid=0", "node,nodeid=0"}, "node 0 is there twice"},
	{{"node,cpus=0-3,nodeid=128"}, "at most 128"},
	{{"node,cpus=0-3,memory=63M"}, "the nodes have 63 MiB of memory, --memory has 64"},
	{{"node,cpus=0-3,memory=60M", "node,memory=5M"}, "nodes 0 to 1 have more than the 64 MiB"},
	{{"node,cpus=0-3,memory=16E", "node,memory=16E"}, "memory=16E"},
	{{"node,cpus=0-3,memory=1.00001M"}, "not a multiple of 4 KiB"},
	{{"node,cpus=0-3,memory=64M,mem=64M"}, "exclude each other"},
	{{"node,cpus=0-3,memory=zap"}, "memory=zap: not a size"},
	{{"node,cpus=0-3,policy=bind"}, "policy=bind needs host-nodes"},
	{{"node,cpus=0-3,host-nodes=0"}, "host-nodes needs policy"},
	{{"node,cpus=0-3,host-nodes=0-1024,policy=bind"}, "host-nodes=0-1024: out of range"},
	{{"node,cpus=0-3,policy=bin"}, "did you mean bind"},
	{{"node,cpu=0-3"}, "did you mean cpus"},
	{{"nod"}, "node,… or dist,… is needed"},
	{{"dist,src=0,dst=1,val=20"}, "there is no node"},
	{{"node,cpus=0-3", "dist,src=0,dst=1,val=20"}, "there is no node 1"},
	{{"node,cpus=0-3", "node", "dist,src=0,dst=1"}, "src, dst and val"},
	{{"node,cpus=0-3", "node", "dist,src=0,dst=1,val=9"}, "distance 9"},
	{{"node,cpus=0-3", "node", "dist,src=0,dst=1,val=10"}, "distance 10"},
	{{"node,cpus=0-3", "node", "dist,src=0,dst=1,val=256"}, "distance 256"},
	{{"node,cpus=0-3", "node", "dist,src=1,dst=1,val=11"}, "distance 11"},
	{{"node,cpus=0-3", "node", "dist,src=1,dst=128,val=11"}, "at most 128"},
	{{"node,cpus=0-3,dist=10:20", "node,dist=30:10"}, "must be symmetric"},
	{{"node,cpus=0-3,dist=10:x"}, "dist=10:x: not numbers"},
};

START_TEST(refusals)
{
	struct numa *n;

	ck_assert_int_lt(parse((char *const *)bad[_i].list, 4, 64, &n), 0);
	ck_assert_ptr_null(n);
	ck_assert_msg(strstr(err.message, bad[_i].error) && !strncmp(err.message, "--numa", 6),
		      "%s", err.message);
}
END_TEST

START_TEST(huge_pages)
{
	struct memory_options mem = {.huge = 2 * MiB};
	struct numa *n = NULL;

	ck_assert_int_lt(numa_parse(LIST(W("node,cpus=0,memory=31M"), W("node,memory=33M")), 1,
				    64 * MiB, &mem, &n, &err),
			 0);
	ck_assert_ptr_nonnull(strstr(err.message, "not a multiple of 2048 KiB"));
	ck_assert_int_lt(numa_parse(LIST(W("node,cpus=0,host-nodes=0,policy=bind")), 1, 64 * MiB,
				    &mem, &n, &err),
			 0);
	ck_assert_ptr_nonnull(strstr(err.message, "prealloc=on"));
	mem.prealloc = true;
	ck_assert_int_eq(numa_parse(LIST(W("node,cpus=0,host-nodes=0,policy=bind")), 1, 64 * MiB,
				    &mem, &n, &err),
			 0);
	numa_free(n);
}
END_TEST

/* The policy that the kernel shows for an address. */
static bool shown(const void *p, const char *policy)
{
	FILE *f = fopen("/proc/self/numa_maps", "r");
	unsigned long start;
	char line[4096], what[64] = "", found[64] = "";

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%lx %63s", &start, what) == 2 && start <= (uintptr_t)p)
			strcpy(found, what);
	fclose(f);
	return !strcmp(found, policy);
}

START_TEST(binds)
{
	struct memory mem;
	struct numa *n;
	uint8_t *ram;

	if (access("/sys/devices/system/node/node0", F_OK) ||
	    access("/proc/self/numa_maps", R_OK)) {
		puts("skip unit/numa/binds this kernel has no NUMA");
		return;
	}
	ck_assert_int_eq(memory_init_plain(&mem, 64 * MiB, &err), 0);
	ram = mem.region[0].hva;
	ck_assert_int_eq(
		parse(LIST(W("node,cpus=0,memory=16M,host-nodes=0,policy=bind"),
			   W("node,memory=16M"), W("node,memory=16M,host-nodes=0,policy=preferred"),
			   W("node,memory=16M,host-nodes=0,policy=interleave")),
		      1, 64, &n),
		0);
	ck_assert_msg(numa_bind(n, &mem, &err) == 0, "%s", err.message);
	ck_assert(shown(ram, "bind:0") && shown(ram + 16 * MiB - 1, "bind:0"));
	ck_assert(shown(ram + 16 * MiB, "default"));
	ck_assert(shown(ram + 32 * MiB, "prefer:0"));
	ck_assert(shown(ram + 48 * MiB, "interleave:0"));
	numa_free(n);
	ck_assert_int_eq(parse(LIST(W("node,cpus=0,host-nodes=0,host-nodes=1000-1001,policy=bind")),
			       1, 64, &n),
			 0);
	ck_assert_int_eq(numa_bind(n, &mem, &err), -ENODEV);
	ck_assert_ptr_nonnull(
		strstr(err.message, "node 0: host-nodes=1000: this host has no such"));
	numa_free(n);
	memory_free(&mem);
}
END_TEST

/* Over two regions, of which a node has parts of both. */
START_TEST(binds_over_regions)
{
	struct memory a, b, mem;
	struct numa *n;

	if (access("/sys/devices/system/node/node0", F_OK))
		return;
	ck_assert_int_eq(memory_init_plain(&a, 16 * MiB, &err), 0);
	ck_assert_int_eq(memory_init_plain(&b, 32 * MiB, &err), 0);
	mem = (struct memory){.region = {a.region[0], b.region[0]}, .nregions = 2};
	ck_assert_int_eq(
		parse(LIST(W("node,cpus=0,memory=8M"),
			   W("node,memory=24M,host-nodes=0,policy=bind"), W("node,memory=16M")),
		      1, 48, &n),
		0);
	ck_assert_int_eq(numa_bind(n, &mem, &err), 0);
	ck_assert(shown(a.region[0].hva, "default"));
	ck_assert(shown(a.region[0].hva + 8 * MiB, "bind:0"));
	ck_assert(shown(b.region[0].hva, "bind:0"));
	ck_assert(shown(b.region[0].hva + 16 * MiB, "default"));
	numa_free(n);
	memory_free(&a);
	memory_free(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("numa");
	TCase *tc = tcase_create("numa");

	suite_add_tcase(s, tc);
	tcase_add_test(tc, nodes);
	tcase_add_loop_test(tc, refusals, 0, sizeof(bad) / sizeof(*bad));
	tcase_add_test(tc, huge_pages);
	tcase_add_test(tc, binds);
	tcase_add_test(tc, binds_over_regions);
	return run_suite(s);
}
