/* SPDX-License-Identifier: GPL-2.0-only */
/* test=evil-ring dev=...: rings and descriptors that lie, on every queue of the target. */
#include "blk.h"
#include "evil.h"
#include "tests.h"

#define N DESC_F_NEXT
#define W DESC_F_WRITE
#define I DESC_F_INDIRECT

static struct evil e;

/* Addresses that are no RAM, or not all of what is said to be there. */
static u64 bad_address(u32 i)
{
	const u64 bad[] = {
		1ull << 40,  ~0ull,	 ~0ull - 4095, 0x8000000000000000,
		ram_end - 1, ram_end,	 0xb0000000,   0xd0000000,
		0xfeb00000,  0xfec00000, 0xfee00000,   0xfffffffffffff000,
		0xffffffff,  0xa0000,
	};

	return i < ARRAY_SIZE(bad) ? bad[i] : 0;
}

/* A chain that begins like a request of the target's; the devil is in what the attacks change. */
static void good_chain(void)
{
	struct {
		u32 type, reserved;
		u64 sector;
	} *hdr = (void *)e.data;

	memset(e.data, 0, 4096);
	hdr->type = BLK_T_IN;
	evil_desc(&e, 0, (u64)e.data, 16, N, 1);
	evil_desc(&e, 1, (u64)e.data + 4096, 4096, N | W, 2);
	evil_desc(&e, 2, (u64)e.data + 8192, 1, W, 0);
}

static void offer(u16 head)
{
	evil_offer(&e, &head, 1);
	evil_wait(&e);
}

/* Queues differ in which way data goes: a chain of one direction reaches further in some. */
static void direction(u32 how)
{
	for (u32 i = 0; i < 3; i++) {
		if (how == 1)
			e.desc[i].flags |= W;
		else if (how == 2)
			e.desc[i].flags &= ~W;
	}
}

static void attack_addresses(u32 variant)
{
	u32 which = variant % 3, how = variant / 3 % 3, bad = variant / 9;

	good_chain();
	e.desc[which].addr = bad_address(bad);
	direction(how);
	offer(0);
}

static void attack_lengths(u32 variant)
{
	static const u32 len[] = {0,   1,	   7,	       15,	   17,
				  511, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffff000};
	u32 which = variant % 3, how = variant / 3 % 3;

	good_chain();
	e.desc[which].len = len[variant / 9];
	direction(how);
	offer(0);
}

static void attack_chains(u32 variant)
{
	static const struct {
		u16 flags[3], next[3], head;
	} c[] = {
		{{N, N | W, W}, {0, 2, 0}, 0},	    /* to itself */
		{{N, N | W, W | N}, {1, 2, 0}, 0},  /* round */
		{{N, N | W, W | N}, {1, 2, 1}, 0},  /* round, not through the head */
		{{N, N | W, W | N}, {1, 2, 2}, 0},  /* the last to itself */
		{{N, N | W, W}, {64, 2, 0}, 0},	    /* out of the table */
		{{N, N | W, W}, {0xffff, 2, 0}, 0}, /* far out of it */
		{{N, N | W, W}, {1, 0x8000, 0}, 0},
		{{N, N | W, W}, {1, 2, 0}, 64}, /* head out of the table */
		{{N, N | W, W}, {1, 2, 0}, 0xffff},
		{{N, N | W, W}, {1, 2, 0}, 0x8000},
		{{N | W, N, W}, {1, 2, 0}, 0}, /* read after write */
		{{N | W, N | W, 0}, {1, 2, 0}, 0},
		{{0, 0, 0}, {0, 0, 0}, 0}, /* a header and nothing else */
		{{W, 0, 0}, {0, 0, 0}, 0},
		{{N, W, 0}, {1, 0, 0}, 0}, /* no status */
		{{N, 0, 0}, {2, 0, W}, 0},
		{{0xffff, N | W, W}, {1, 2, 0}, 0},			  /* all flags */
		{{0xfff8 | N, 0xfff8 | N | W, 0xfff8 | W}, {1, 2, 0}, 0}, /* reserved ones */
	};

	good_chain();
	for (u32 i = 0; i < 3; i++) {
		e.desc[i].flags = c[variant].flags[i];
		e.desc[i].next = c[variant].next[i];
	}
	offer(c[variant].head);
}

/* The table is at data + 16384; descriptor 0 points to it. */
static void indirect(u64 table, u32 len, u16 flags)
{
	struct packed_desc *t = (struct packed_desc *)(e.data + 16384);

	good_chain();
	memcpy(t, e.desc, 48);
	for (u32 i = 0; e.ring && i < 3; i++)
		t[i].flags = e.desc[i].flags;
	evil_desc(&e, 0, table, len, flags, 1);
}

static void attack_indirect(u32 variant)
{
	struct vring_desc *t = (struct vring_desc *)(e.data + 16384);
	u64 at = (u64)t;

	indirect(at, 48, I);
	switch (variant) {
	case 0: /* indirect in indirect, to itself */
		t[1] = (struct vring_desc){at, 48, I, 0};
		break;
	case 1:
		t[0] = (struct vring_desc){at, 48, I | N, 1};
		break;
	case 2: /* both flags */
		indirect(at, 48, I | N);
		break;
	case 3:
		indirect(at, 48, I | W);
		break;
	case 4: /* lengths */
		indirect(at, 0, I);
		break;
	case 5:
		indirect(at, 15, I);
		break;
	case 6:
		indirect(at, 47, I);
		break;
	case 7:
		indirect(at, 0xfffffff0, I);
		break;
	case 8:
		indirect(at, 0xffffffff, I);
		break;
	case 9: /* loops and ways out */
		t[2].flags |= N;
		t[2].next = 0;
		break;
	case 10:
		t[1].next = 3;
		break;
	case 11:
		t[1].next = 0xffff;
		break;
	case 12: /* the ring's own table, and the rings themselves */
		indirect((u64)e.desc, 16 * e.size, I);
		break;
	case 13:
		indirect((u64)e.used, 48, I);
		break;
	case 14: /* unaligned */
		indirect(at + 1, 48, I);
		break;
	case 15: /* 65536 entries, all of them linked */
		indirect(at, 32768, I);
		for (u32 i = 0; i < 2048; i++)
			t[i] = (struct vring_desc){(u64)e.data, 1, i < 2047 ? N : W, i + 1};
		break;
	default:
		indirect(bad_address(variant - 16), 48, I);
	}
	offer(0);
}

static void attack_avail(u32 variant)
{
	static const u16 jump[] = {0x8000, 0xffff, EVIL_QUEUE_SIZE + 1, 2 * EVIL_QUEUE_SIZE,
				   0x7fff, 300};

	good_chain();
	*(volatile u16 *)&e.avail->idx += jump[variant];
	virtio_notify(&e.dev, e.queue);
	evil_wait(&e);
	/* And on from there, as if nothing had been. */
	offer(0);
}

/* The same head many times in flight, and a ring full of it. */
static void attack_same_head(u32 variant)
{
	u16 heads[EVIL_QUEUE_SIZE] = {0};

	good_chain();
	direction(variant);
	evil_offer(&e, heads, e.size);
	evil_wait(&e);
}

/* The whole table is one chain of small pieces. */
static void attack_long_chain(u32 variant)
{
	for (u32 i = 0; i < e.size; i++)
		evil_desc(&e, i, (u64)e.data + i, 1 + (variant & 2 ? 1021 : 0),
			  (i + 1 < e.size ? N : 0) | (variant & 1 && i ? W : 0), i + 1);
	offer(0);
}

/* Rings that change under the device: this CPU writes nonsense while it reads. */
static void attack_race(u32 variant)
{
	u64 t = rdtsc();
	u16 head = 0;

	rnd_seed(variant + 1);
	while (us_since(t) < 20000) {
		volatile u32 *table = (volatile u32 *)e.desc;

		good_chain();
		if (e.ring) {
			if (e.next.at > e.size - 3)
				e.next = (struct packed_place){0, !e.next.wrap};
			table = (volatile u32 *)&e.ring[e.next.at];
			evil_offer(&e, &head, 1);
		} else {
			*(volatile u16 *)&e.avail->idx += 1;
			virtio_notify(&e.dev, e.queue);
		}
		for (u32 i = 0; i < 200; i++)
			table[rnd() % 12] = rnd() & (i & 1 ? 3 : 0xffffffff);
	}
}

/* Random descriptors, addresses mostly in RAM that nothing needs. */
static void attack_random(u32 variant)
{
	u16 heads[4];

	rnd_seed(variant * 77 + 5);
	for (u32 i = 0; i < e.size; i++)
		evil_desc(&e, i,
			  rnd() & 7 ? (u64)e.data + rnd() % EVIL_DATA : (u64)rnd() << (rnd() & 32),
			  rnd() & 3 ? rnd() % 4096 : rnd(), rnd() & 7,
			  rnd() % (e.size + (rnd() & 1)));
	for (u32 i = 0; i < EVIL_DATA; i += 4)
		*(u32 *)(e.data + i) = rnd() & (i & 4 ? 0xf : 0xffffffff);
	for (u32 i = 0; i < 4; i++)
		heads[i] = rnd() % e.size;
	/* No write may go where RAM is that the guest uses: only what was drawn above is named. */
	for (u32 i = 0; i < e.size; i++)
		if (e.desc[i].addr < ram_end &&
		    e.desc[i].addr + e.desc[i].len > (u64)e.data + EVIL_DATA)
			e.desc[i].len = 64;
	for (u32 i = 0; i < e.size; i++)
		if (e.desc[i].addr < (u64)e.data)
			e.desc[i].addr += 1ull << 40;
	evil_offer(&e, heads, 4);
	evil_wait(&e);
}

/* What only a packed ring can have. */
static void attack_packed(u32 variant)
{
	good_chain();
	if (!e.ring)
		return;
	for (u32 i = 0; i < e.size; i++) {
		u16 wrap = i & 1 && variant & 1 ? DESC_F_USED : DESC_F_AVAIL;

		e.ring[i] = (struct packed_desc){(u64)e.data + i, 1 + i % 7, 0xffff - i, wrap};
		if (variant & 2) /* one chain, round and round */
			e.ring[i].flags |= N;
		if (variant & 4)
			e.ring[i].flags |= W;
		if (variant & 8) /* a table, in the middle or at the end of a chain */
			e.ring[i].flags |= i & 1 ? I : N;
	}
	/* The wishes are nonsense too. */
	*(volatile u32 *)e.avail = variant * 0x3fff7fff;
	*(volatile u32 *)e.used = ~0u;
	virtio_notify(&e.dev, e.queue);
	evil_wait(&e);
	/* All of it available again before it has been used. */
	for (u32 i = 0; i < e.size; i++)
		*(volatile u16 *)&e.ring[i].flags ^= DESC_F_AVAIL | DESC_F_USED;
	virtio_notify(&e.dev, e.queue);
	evil_wait(&e);
}

static const struct {
	const char *name;
	void (*attack)(u32 variant);
	u32 variants;
	u64 features;
} attacks[] = {
	{"addresses", attack_addresses, 14 * 9, VIRTIO_F_EVENT_IDX},
	{"lengths", attack_lengths, 10 * 9, 0},
	{"chains", attack_chains, 18, VIRTIO_F_INDIRECT_DESC},
	{"indirect", attack_indirect, 16 + 14, VIRTIO_F_INDIRECT_DESC},
	{"indirect not negotiated", attack_indirect, 2, 0},
	{"avail", attack_avail, 6, VIRTIO_F_EVENT_IDX},
	{"same head", attack_same_head, 3, 0},
	{"long chain", attack_long_chain, 4, 0},
	{"race", attack_race, 4, VIRTIO_F_INDIRECT_DESC},
	{"random", attack_random, 64, VIRTIO_F_INDIRECT_DESC},
	{"packed", attack_packed, 16, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX},
};

void test_evil_ring(void)
{
	char name[64];

	if (!evil_init(&e))
		return;
	e.name = name;
	for (u32 q = 0; q < MIN(e.nqueues, EVIL_QUEUES); q++) {
		for (u32 a = 0; a < ARRAY_SIZE(attacks); a++) {
			for (u32 v = 0; v < attacks[a].variants; v++) {
				u64 mark = alloc_mark();

				format(name, sizeof(name), "queue %u, %s %u", q, attacks[a].name,
				       v);
				e.queue = q;
				if (!evil_start(&e, attacks[a].features))
					return;
				attacks[a].attack(v);
				if (!evil_survived(&e))
					return;
				alloc_release(mark);
			}
		}
	}
	evil_done(&e);
}
