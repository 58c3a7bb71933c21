/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-blk: what it promises, on one disk; `stamped=1` says that the runner made the disk's contents. */
#include "blk.h"
#include "tests.h"

static struct blk blk;

#define BIG (128 << 10)
static u8 *out_buf, *in_buf;

static void fill(u8 *p, u32 len, u32 seed)
{
	rnd_seed(seed);
	for (u32 i = 0; i < len; i += 4)
		*(u32 *)(p + i) = rnd();
}

/* Each sector of the runner's disk begins with its number, exclusive-or a constant. */
static void test_stamps(void)
{
	static const u64 at[] = {0, 1, 63, 1000};

	for (u32 i = 0; i < 5; i++) {
		u64 s = i < 4 ? at[i] : blk.sectors - 1;

		check_eq(blk_rw(&blk, 0, BLK_T_IN, s, in_buf, 512, 1), BLK_S_OK);
		check_eq(*(u64 *)in_buf, s ^ 0x6b61686f6b61686f);
	}
}

static void test_verify(bool read_only)
{
	static const u32 size[] = {512, 1024, 4096, 4608, 65536, BIG};
	static const u32 parts[] = {1, 2, 3, 7, 16};

	for (u32 i = 0; i < ARRAY_SIZE(size) * ARRAY_SIZE(parts); i++) {
		u32 len = size[i % ARRAY_SIZE(size)], n = parts[i / ARRAY_SIZE(size)];
		u64 sector = 2048 + i * 333;
		u32 queue = i % blk.nqueues;

		fill(out_buf, len, i + 1);
		memset(in_buf, 0xee, len);
		if (read_only) {
			check_eq(blk_rw(&blk, queue, BLK_T_OUT, sector, out_buf, len, n),
				 BLK_S_IOERR);
			return;
		}
		check_eq(blk_rw(&blk, queue, BLK_T_OUT, sector, out_buf, len, n), BLK_S_OK);
		check_eq(blk_rw(&blk, queue, BLK_T_IN, sector, in_buf, len, n), BLK_S_OK);
		check(!memcmp(in_buf, out_buf, len), "%u bytes in %u parts differ", len, n);
	}
}

static void test_errors(void)
{
	u64 end = blk.sectors;
	int s;

	check_eq(blk_rw(&blk, 0, BLK_T_IN, end, in_buf, 512, 1), BLK_S_IOERR);
	check_eq(blk_rw(&blk, 0, BLK_T_IN, end - 1, in_buf, 1024, 1), BLK_S_IOERR);
	check_eq(blk_rw(&blk, 0, BLK_T_IN, ~0ull >> 1, in_buf, 512, 1), BLK_S_IOERR);
	check_eq(blk_rw(&blk, 0, BLK_T_IN, ~0ull, in_buf, 1024, 1), BLK_S_IOERR);
	check_eq(blk_rw(&blk, 0, 0x1234, 0, in_buf, 0, 1), BLK_S_UNSUPP);
	/* Not a multiple of a sector: an error, or done as far as it goes; never silence. */
	s = blk_rw(&blk, 0, BLK_T_IN, 0, in_buf, 100, 1);
	check(s == BLK_S_IOERR || s == BLK_S_OK || s == BLK_S_UNSUPP, "status %d", s);
}

static void test_id(void)
{
	const char *want = param("serial");
	char id[24] = {0};
	u32 n = 0;

	check_eq(blk_rw(&blk, 0, BLK_T_GET_ID, 0, id, 20, 1), BLK_S_OK);
	print("id \"%s\"\n", id);
	while (want && want[n] && want[n] != ' ')
		n++;
	check(!want || (!strncmp(id, want, n) && !id[n]), "id is not %s", want);
}

struct range {
	u64 sector;
	u32 sectors, flags;
};

static void test_ranges(void)
{
	struct range r = {.sector = 4096, .sectors = 64};

	fill(out_buf, BIG, 99);
	if (blk.dev.features & BLK_F_WRITE_ZEROES) {
		check_eq(blk_rw(&blk, 0, BLK_T_OUT, 4000, out_buf, BIG, 1), BLK_S_OK);
		check_eq(blk_rw(&blk, 0, BLK_T_WRITE_ZEROES, 0, &r, 16, 1), BLK_S_OK);
		check_eq(blk_rw(&blk, 0, BLK_T_IN, 4000, in_buf, BIG, 1), BLK_S_OK);
		memset(out_buf + 96 * 512, 0, 64 * 512);
		check(!memcmp(in_buf, out_buf, BIG), "zeroes are not where they belong");
		r.sector = blk.sectors - 8;
		check_eq(blk_rw(&blk, 0, BLK_T_WRITE_ZEROES, 0, &r, 16, 1), BLK_S_IOERR);
		r.sector = 4096;
		r.flags = 1; /* unmap */
		check_eq(blk_rw(&blk, 0, BLK_T_WRITE_ZEROES, 0, &r, 16, 1), BLK_S_OK);
		r.flags = 2; /* reserved */
		check_eq(blk_rw(&blk, 0, BLK_T_WRITE_ZEROES, 0, &r, 16, 1), BLK_S_UNSUPP);
		r.flags = 0;
	}
	if (blk.dev.features & BLK_F_DISCARD) {
		check_eq(blk_rw(&blk, 0, BLK_T_DISCARD, 0, &r, 16, 1), BLK_S_OK);
		r.flags = 1; /* unmap: not for discard */
		check_eq(blk_rw(&blk, 0, BLK_T_DISCARD, 0, &r, 16, 1), BLK_S_UNSUPP);
		/* What was not named is still there. */
		check_eq(blk_rw(&blk, 0, BLK_T_IN, 4000, in_buf, BIG, 1), BLK_S_OK);
		check(!memcmp(in_buf, out_buf, 96 * 512), "discard took too much");
		check(!memcmp(in_buf + 160 * 512, out_buf + 160 * 512, BIG - 160 * 512),
		      "discard took too much behind");
	}
}

/* Many at once on all queues: writes of all slots, then reads of them in another order. */
#define SLOTS 32
static bool run_all(struct blk_req *r, u32 total, u32 type)
{
	u32 done = 0;
	u64 t = rdtsc();

	for (u32 i = 0; i < total; i++) {
		struct blk_req *q = &r[type == BLK_T_IN ? total - 1 - i : i];

		q->hdr.type = type;
		check(blk_add(&blk, q), "queue full");
		if (i % 5 == 4)
			virtq_kick(&blk.q[q->queue]);
	}
	for (u32 i = 0; i < blk.nqueues; i++)
		virtq_kick(&blk.q[i]);
	while (done < total && us_since(t) < 20000000) {
		for (u32 i = 0; i < blk.nqueues; i++) {
			struct blk_req *q;

			if (blk.q[i].vector && !virtq_wait(&blk.q[i], 100))
				continue;
			while ((q = virtq_get(&blk.q[i], NULL))) {
				check_eq(q->status, BLK_S_OK);
				check_eq(q->queue, i);
				done++;
			}
		}
	}
	return check(done == total, "%u of %u requests came back", done, total);
}

static void test_many(void)
{
	u32 total = SLOTS * blk.nqueues;
	struct blk_req *r = alloc(sizeof(*r) * total, 64);
	u8 *mem = alloc(4096 * total, 4096);

	for (u32 round = 0; round < 8; round++) {
		for (u32 i = 0; i < total; i++) {
			r[i].queue = i % blk.nqueues;
			r[i].data = mem + 4096 * i;
			r[i].len = 4096;
			r[i].hdr.sector = 16384 + ((i * 7 + round) % total) * 8;
			fill(r[i].data, 4096, round << 16 | i);
		}
		if (!run_all(r, total, BLK_T_OUT))
			return;
		memset(mem, 0, 4096 * total);
		if (!run_all(r, total, BLK_T_IN))
			return;
		for (u32 i = 0; i < total; i++) {
			fill(in_buf, 4096, round << 16 | i);
			check(!memcmp(r[i].data, in_buf, 4096), "round %u slot %u differs", round,
			      i);
		}
	}
}

void test_blk(void)
{
	bool irq = param_u64("irq", 0), ro;

	tsc_calibrate();
	if (!blk_open(&blk, param_u64("disk", 0), param_u64("queues", 4), 128, irq))
		return;
	ro = blk.dev.features & BLK_F_RO;
	out_buf = alloc(BIG, 4096);
	in_buf = alloc(BIG, 4096);
	print("blk: %s, %lu sectors, %u queues of %u, features %#lx\n",
	      blk.dev.mmio ? "mmio" : "pci", blk.sectors, blk.nqueues, blk.q[0].size,
	      blk.dev.features);
	if (param("sectors"))
		check_eq(blk.sectors, param_u64("sectors", 0));
	if (param("ro"))
		check_eq(ro, param_u64("ro", 0));
	if (param_u64("stamped", 0))
		test_stamps();
	test_id();
	test_errors();
	test_verify(ro);
	if (blk.dev.features & BLK_F_FLUSH)
		check_eq(blk_rw(&blk, 0, BLK_T_FLUSH, 0, NULL, 0, 1), BLK_S_OK);
	if (!ro) {
		test_ranges();
		test_many();
		/* For the runner to see. */
		memset(out_buf, 0, 512);
		memcpy(out_buf, "written by the guest\n", 21);
		check_eq(blk_rw(&blk, blk.nqueues - 1, BLK_T_OUT, 8, out_buf, 512, 1), BLK_S_OK);
		if (blk.dev.features & BLK_F_FLUSH)
			check_eq(blk_rw(&blk, 0, BLK_T_FLUSH, 0, NULL, 0, 1), BLK_S_OK);
	}
	for (u32 i = 0; irq && i < blk.nqueues; i++)
		check(irqs(blk.q[i].vector), "queue %u: no interrupt was taken", i);
	/* After a reset the device does nothing, and can be started again. */
	virtio_reset(&blk.dev);
	if (blk_open(&blk, param_u64("disk", 0), 1, 16, irq))
		check_eq(blk_rw(&blk, 0, BLK_T_IN, 0, in_buf, 4096, 1), BLK_S_OK);
}

/* --- benchmark ------------------------------------------------------------------------------------ */

struct bench {
	u32 type, depth, size, queues;
	bool random, irq;
	u64 blocks, next; /* of `size` bytes on the disk; the next in sequence */
	u64 requests, errors;
};

static void bench_aim(struct bench *b, struct blk_req *r)
{
	u64 n = b->random ? ((u64)rnd() * b->blocks) >> 32 : b->next++ % b->blocks;

	r->hdr.sector = n * (b->size / 512);
}

/* Everything that has come back is sent out again, then the device is told once. */
static void bench_turn(struct bench *b, struct virtq *q)
{
	struct blk_req *r;

	while ((r = virtq_get(q, NULL))) {
		b->requests++;
		b->errors += r->status != BLK_S_OK;
		bench_aim(b, r);
		blk_add(&blk, r);
	}
	if (q->avail_idx != q->kicked_idx)
		virtq_kick(q);
}

static void bench_sleep(struct virtq *q)
{
	u32 seen = irqs(q->vector);

	virtq_want_interrupt(q);
	if (!virtq_more(q))
		at_cpl0(k_wait, (u64)&irq_count[q->vector], seen);
}

static void bench_run(struct bench *b, u64 cycles)
{
	u64 t = rdtsc();

	while (rdtsc() - t < cycles) {
		for (u32 i = 0; i < b->queues; i++)
			bench_turn(b, &blk.q[i]);
		if (b->irq && b->queues == 1)
			bench_sleep(&blk.q[0]);
	}
}

void test_blkbench(void)
{
	struct bench b = {
		.depth = param_u64("depth", 32),
		.size = param_u64("bs", 4096),
		.irq = param_u64("irq", 0),
		.random = !param_is("op", "read") && !param_is("op", "write"),
		.type = param_is("op", "write") || param_is("op", "randwrite") ? BLK_T_OUT
									       : BLK_T_IN,
	};
	u64 secs = param_u64("secs", 2), t, kicks = 0, irqs_taken = 0;
	struct blk_req *r;
	u8 *mem;

	tsc_calibrate();
	if (!blk_open(&blk, param_u64("disk", 0), param_u64("queues", 1), 256, b.irq))
		return;
	b.queues = blk.nqueues;
	b.blocks = blk.sectors / (b.size / 512);
	if (!check(b.blocks && b.depth && b.size >= 512, "disk too small, or depth or bs 0"))
		return;
	r = alloc(sizeof(*r) * b.depth, 64);
	mem = alloc((u64)b.size * b.depth, 4096);
	for (u32 i = 0; i < b.depth; i++) {
		r[i].queue = i % b.queues;
		r[i].hdr.type = b.type;
		r[i].data = mem + (u64)b.size * i;
		r[i].len = b.size;
		bench_aim(&b, &r[i]);
		if (!check(blk_add(&blk, &r[i]), "the queue does not hold %u requests", b.depth))
			return;
	}
	/* A tenth of a second to warm up. */
	for (u32 i = 0; i < b.queues; i++)
		virtq_kick(&blk.q[i]);
	bench_run(&b, tsc_hz / 10);
	for (u32 i = 0; i < b.queues; i++) {
		blk.q[i].kicks = 0;
		irqs_taken -= blk.q[i].vector ? irqs(blk.q[i].vector) : 0;
	}
	b.requests = 0;
	t = rdtsc();
	bench_run(&b, tsc_hz * secs);
	t = rdtsc() - t;
	for (u32 i = 0; i < b.queues; i++) {
		kicks += blk.q[i].kicks;
		irqs_taken += blk.q[i].vector ? irqs(blk.q[i].vector) : 0;
	}
	check_eq(b.errors, 0);
	check(b.requests, "nothing came back");
	print("RESULT blkbench transport=%s op=%s%s bs=%u depth=%u queues=%u irq=%u requests=%lu "
	      "cycles=%lu tsc_khz=%lu kicks=%lu interrupts=%lu iops=%lu\n",
	      blk.dev.mmio ? "mmio" : "pci", b.random ? "rand" : "",
	      b.type == BLK_T_IN ? "read" : "write", b.size, b.depth, b.queues, b.irq, b.requests,
	      t, tsc_hz / 1000, kicks, irqs_taken, b.requests * 1000 / (t / (tsc_hz / 1000)));
	virtio_reset(&blk.dev);
}
