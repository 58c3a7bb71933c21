/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-blk: writes and flushes until the VMM is killed. What has been flushed is said, and tests/block/powercut, which makes the same
 * numbers of the same seed, looks whether it is there.
 */
#include "blk.h"
#include "tests.h"

#define KILL_SLOTS   16 /* writes at once, each in its own part of the disk */
#define KILL_SECTORS 64u

struct kill_range {
	u64 sector;
	u32 sectors, flags;
};

static struct blk blk;

/* The next write of slot @i. */
static void prepare(struct blk_req *r, u32 i)
{
	u64 part = blk.sectors / KILL_SLOTS;
	u32 n = 1 + rnd() % MIN(KILL_SECTORS, (u32)part / 2);
	u64 sector = part * i + rnd() % (part - n);
	u32 value = rnd() % 256;

	r->hdr.type = BLK_T_OUT;
	r->hdr.sector = sector;
	r->len = n * 512;
	if (value < 10) {
		*(struct kill_range *)r->data = (struct kill_range){sector, n, value & 1};
		r->hdr.type = BLK_T_WRITE_ZEROES;
		r->hdr.sector = 0;
		r->len = sizeof(struct kill_range);
	} else {
		memset(r->data, value, r->len);
	}
}

static bool write_all(struct blk_req *r)
{
	u64 t = rdtsc();
	u32 done = 0;

	for (u32 i = 0; i < KILL_SLOTS; i++)
		if (!check(blk_add(&blk, &r[i]), "queue full"))
			return false;
	virtq_kick(&blk.q[0]);
	while (done < KILL_SLOTS && us_since(t) < 20000000) {
		struct blk_req *q = virtq_get(&blk.q[0], NULL);

		done += q && check(q->status == BLK_S_OK, "status %u", q->status);
	}
	return check(done == KILL_SLOTS, "%u of %u requests came back", done, KILL_SLOTS);
}

void test_blk_kill(void)
{
	struct blk_req *r = alloc(sizeof(*r) * KILL_SLOTS, 64);

	tsc_calibrate();
	if (!blk_open(&blk, 0, 1, 128, false) ||
	    !check(blk.sectors >= KILL_SLOTS * 4 && (blk.dev.features & BLK_F_WRITE_ZEROES),
		   "this disk will not do"))
		return;
	for (u32 i = 0; i < KILL_SLOTS; i++) {
		r[i].queue = 0;
		r[i].data = alloc(KILL_SECTORS * 512, 4096);
	}
	rnd_seed(param_u64("seed", 1));
	for (u32 n = 1;; n++) {
		for (u32 i = 0; i < KILL_SLOTS; i++)
			prepare(&r[i], i);
		if (!write_all(r) || !check(blk_rw(&blk, 0, BLK_T_FLUSH, 0, NULL, 0, 1) == BLK_S_OK,
					    "flush %u has failed", n))
			return;
		print("flushed %u\n", n);
	}
}
