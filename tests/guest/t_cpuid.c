/* SPDX-License-Identifier: GPL-2.0-only */
/* What CPUID says, for the runner to compare: one line for each leaf and sub-leaf that is not all zeroes, and the flags that are in an MSR. */
#include "guest.h"
#include "tests.h"

static void dump(u32 leaf, u32 sub)
{
	u32 r[4];

	cpuid(leaf, sub, r);
	if (r[0] | r[1] | r[2] | r[3])
		print("cpuid %x.%x %08x %08x %08x %08x\n", leaf, sub, r[0], r[1], r[2], r[3]);
}

/* How many sub-leaves there may be. */
static u32 subs(u32 leaf)
{
	switch (leaf) {
	case 0xd:
		return 32;
	case 4:
	case 7:
	case 0xb:
	case 0x1f:
	case 0x8000001d:
		return 6;
	default:
		return 1;
	}
}

static void dump_range(u32 first, u32 limit)
{
	u32 r[4];

	cpuid(first, 0, r);
	for (u32 leaf = first; leaf <= MIN(r[0], first + limit); leaf++)
		for (u32 sub = 0; sub < subs(leaf); sub++)
			dump(leaf, sub);
}

void test_cpuid_dump(void)
{
	u32 r[4];

	dump_range(0, 0x40);
	dump_range(0x40000000, 0x20);
	dump_range(0x80000000, 0x40);
	cpuid(7, 0, r);
	if (r[3] >> 29 & 1)
		print("msr 10a %016lx\n", rdmsr(0x10a));
}
