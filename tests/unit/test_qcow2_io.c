/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2 nodes under requests that meet: overlapping, from several loops, with errors below; compressed clusters; what is done without I/O. */
#include <fcntl.h>

#include "tests/unit/qcow2_test.h"

/* --- requests that overlap --------------------------------------------------------------------- */

#define OVERLAPS 16

/* All write the same cluster at once, sector by sector or as a whole: each sector must be of one of them. */
START_TEST(overlapping_writes)
{
	static uint8_t bufs[OVERLAPS][65536], result[65536];
	struct test_req reqs[OVERLAPS] = {0};

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1M");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	for (int round = 0; round < 20; round++) {
		uint64_t offset = (round % 16) * 65536;

		for (int i = 0; i < OVERLAPS; i++) {
			uint64_t skip = i % 3 ? i * 512 : 0;

			memset(bufs[i], i + 1, sizeof(bufs[i]));
			reqs[i].iov[0] = (struct iovec){bufs[i], i % 3 ? 8192 : 65536};
			reqs[i].req = (struct block_req){.op = i % 5 == 4 ? BLOCK_DISCARD
									  : BLOCK_WRITE,
							 .offset = offset + skip,
							 .bytes = reqs[i].iov[0].iov_len,
							 .iov = reqs[i].iov,
							 .niov = 1};
		}
		run_batch(disk, reqs, OVERLAPS);
		for (int i = 0; i < OVERLAPS; i++)
			ck_assert_int_eq(reqs[i].res, 0);
		ck_assert_int_eq(run(disk, BLOCK_READ, 0, offset, result, sizeof(result)), 0);
		for (int s = 0; s < 128; s++)
			for (int j = 1; j < 512; j++)
				if (result[s * 512 + j] != result[s * 512])
					ck_abort_msg("sector %d is torn", s);
	}
	close_node(disk);
	must_sh("qemu-img check disk");
	tear_down();
}
END_TEST

/* Writes to all clusters, and discards of all of them, over and over; flushes let freed clusters be used again. */
START_TEST(clusters_come_and_go)
{
	static uint8_t buf[16][4096];
	struct test_req reqs[16] = {0};

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 -o cluster_size=4k disk 64k");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	for (int round = 0; round < 50; round++) {
		for (int i = 0; i < 16; i++) {
			memset(buf[i], 1 + (round + i) % 200, 4096);
			reqs[i].iov[0] = (struct iovec){buf[i], 4096};
			reqs[i].req = (struct block_req){.op = (round + i) % 3 ? BLOCK_WRITE
									       : BLOCK_DISCARD,
							 .offset = i * 4096,
							 .bytes = 4096,
							 .iov = reqs[i].iov,
							 .niov = 1};
			if (i == 7)
				reqs[i].req = (struct block_req){.op = BLOCK_FLUSH};
		}
		run_batch(disk, reqs, 16);
		for (int i = 0; i < 16; i++) {
			ck_assert_int_eq(reqs[i].res, 0);
			if (i != 7)
				must_read(disk, i * 4096, 4096,
					  (round + i) % 3 ? 1 + (round + i) % 200 : 0);
		}
	}
	close_node(disk);
	must_sh("qemu-img check disk");
	/* Freed clusters were used again. */
	must_sh("test $(stat -c %%s disk) -lt 300000");
	tear_down();
}
END_TEST

/* --- several loops ----------------------------------------------------------------------------- */

static void *other_loop(void *arg)
{
	static uint8_t buf[4096];
	struct loop *other = arg;
	struct test_req t = {0};

	for (uint64_t i = 0; i < 200; i++) {
		memset(buf, 0x40 + i % 16, sizeof(buf));
		t.iov[0] = (struct iovec){buf, sizeof(buf)};
		t.req = (struct block_req){.op = i % 2 ? BLOCK_READ : BLOCK_WRITE,
					   .offset = MiB + i / 2 * 40960,
					   .bytes = sizeof(buf),
					   .iov = t.iov,
					   .niov = 1};
		run_batch_in(other, disk, &t, 1);
		ck_assert_int_eq(t.res, 0);
		ck_assert_uint_eq(buf[100], 0x40 + (i & ~1) % 16);
	}
	return NULL;
}

START_TEST(two_loops)
{
	struct loop *other;
	pthread_t thread;

	set_up(_i);
	other = new_loop(_i);
	must_sh("qemu-img create -q -f qcow2 disk 16M");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	ck_assert_int_eq(block_attach(disk, other, &error), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, other_loop, other), 0);
	for (int i = 0; i < 100; i++) {
		fill(disk, i * 4096, 4096, i + 1);
		must_read(disk, i * 4096, 4096, i + 1);
	}
	pthread_join(thread, NULL);
	/* The home loop goes first, and the other can go on. */
	block_detach(disk, loop);
	other_loop(other);
	block_detach(disk, other);
	block_unuse(disk, vm);
	loop_free(other);
	must_sh("qemu-img check disk; qemu-io -c 'read -P 5 16k 4k' disk");
	tear_down();
}
END_TEST

/* --- compressed clusters ----------------------------------------------------------------------- */

static const char *const compression[] = {"zlib",
					  "zstd",
					  "zlib,cluster_size=512",
					  "zstd,cluster_size=2M",
					  "zlib,cluster_size=16k,extended_l2=on",
					  "zlib,compat=0.10"};

/* _i: the engine, and twice the kind. */
START_TEST(compressed)
{
	const char *o = compression[_i / 2];
	const char *type = strstr(o, "compat") ? "" : "compression_type=";
	uint8_t *buf = malloc(4 * MiB);

	set_up(_i % 2);
	if (strstr(o, "compat"))
		o = "compat=0.10";
	/* What qemu-img has compressed reads right… */
	must_sh("qemu-img create -q -f raw plain 4M; qemu-io -f raw -c 'write -P 0x21 0 1M' -c 'write -P 0x22 1500k 700k' plain;"
		"dd if=/dev/urandom of=plain bs=64k seek=40 count=2 conv=notrunc;"
		"qemu-img convert -c -O qcow2 -o %s%s plain disk",
		type, o);
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	must_read(disk, 0, MiB, 0x21);
	must_read(disk, MiB, 476 * KiB, 0);
	must_read(disk, 1500 * KiB + 512, 512, 0x22);
	/* …and can be overwritten in part, as a whole, with zeroes. */
	fill(disk, 100 * KiB + 512, 1024, 0x33);
	fill(disk, 1500 * KiB, 600 * KiB, 0x34);
	ck_assert_int_eq(run(disk, BLOCK_WRITE_ZEROES, BLOCK_UNMAP, 500 * KiB, NULL, 200 * KiB), 0);
	must_read(disk, 100 * KiB, 512, 0x21);
	must_read(disk, 100 * KiB + 512, 1024, 0x33);
	must_read(disk, 101 * KiB + 512, 512, 0x21);
	close_node(disk);
	must_sh("qemu-img check disk; qemu-io -f raw -c 'write -P 0x33 102912 1024' -c 'write -P 0x34 1500k 600k'"
		" -c 'write -z 500k 200k' plain; qemu-img compare -f raw -F qcow2 plain disk");
	/* What is compressed here, qemu-img reads. */
	must_sh("rm disk; qemu-img create -q -f qcow2 -o %s%s disk 4M", type, o);
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	ck_assert_int_eq(pread_all(open("plain", O_RDONLY), buf, 4 * MiB, 0), 0);
	ck_assert_int_eq(run(disk, BLOCK_WRITE, BLOCK_COMPRESSED, 0, buf, 4 * MiB), 0);
	must_read(disk, 100 * KiB + 512, 1024, 0x33);
	ck_assert_int_eq(run(disk, BLOCK_WRITE, BLOCK_COMPRESSED, 512, buf, 512),
			 -EINVAL + (strstr(o, "=512") ? EINVAL : 0));
	if (strstr(o, "=512"))
		ck_assert_int_eq(run(disk, BLOCK_WRITE, BLOCK_COMPRESSED, 512, buf + 512, 512), 0);
	close_node(disk);
	must_sh("qemu-img check disk; qemu-img compare -f raw -F qcow2 plain disk; qemu-img check disk | grep -q ', [1-9][0-9.]*%% compressed'");
	free(buf);
	tear_down();
}
END_TEST

START_TEST(damaged_compression)
{
	static uint8_t buf[4096];

	set_up(_i);
	must_sh("qemu-img create -q -f raw plain 1M; qemu-io -f raw -c 'write -P 0x21 0 1M' plain;"
		"qemu-img convert -c -O qcow2 plain disk;"
		"printf '\\377\\377\\377\\377\\377\\377\\377\\377' | dd of=disk bs=1 seek=327680 conv=notrunc");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	ck_assert_int_eq(run(disk, BLOCK_READ, 0, 0, buf, sizeof(buf)), -EIO);
	must_read(disk, 512 * KiB, 64 * KiB, 0x21);
	fill(disk, 0, 64 * KiB, 0x22);
	must_read(disk, 0, 64 * KiB, 0x22);
	close_node(disk);
	tear_down();
}
END_TEST

/* --- space ------------------------------------------------------------------------------------- */

static uint64_t blocks_of(const char *filename)
{
	struct stat st;

	ck_assert_int_eq(stat(filename, &st), 0);
	return st.st_blocks * 512ull;
}

START_TEST(discard_gives_back)
{
	struct block_status st;
	uint64_t before;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 64M");
	disk = open_node("disk", "discard=unmap", BLOCK_USE_WRITE);
	ck_assert(disk->can_discard);
	fill(disk, 0, 16 * MiB, 1);
	ck_assert_int_eq(flush(disk), 0);
	before = blocks_of("disk");
	ck_assert_uint_ge(before, 16 * MiB);
	ck_assert_int_eq(run(disk, BLOCK_DISCARD, 0, 100, NULL, 8 * MiB), 0);
	ck_assert_int_eq(flush(disk), 0);
	ck_assert_uint_le(blocks_of("disk"), before - 7 * MiB);
	must_read(disk, 64 * KiB, MiB, 0);
	must_read(disk, 512, 512, 1);
	close_node(disk);
	must_sh("qemu-img check disk");
	disk = open_node("disk", "", 0);
	ck_assert_int_eq(block_status(disk, 64 * KiB, 64 * MiB - 64 * KiB, &st), 0);
	ck_assert_uint_eq(st.flags, BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED);
	ck_assert_uint_eq(st.bytes, 8 * MiB - 64 * KiB);
	ck_assert_int_eq(block_status(disk, 9 * MiB, MiB, &st), 0);
	ck_assert_uint_eq(st.flags,
			  BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET);
	ck_assert_int_eq(block_status(disk, 32 * MiB, MiB, &st), 0);
	ck_assert_uint_eq(st.flags, BLOCK_STATUS_ZERO);
	close_node(disk);
	tear_down();
}
END_TEST

/* A large image costs what is touched. */
START_TEST(large_images)
{
	struct qcow2 *q;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1T; qemu-img create -q -f qcow2 -o cluster_size=2M large 1000T");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	q = qcow2_of(disk);
	ck_assert_uint_eq(q->l2.ntables, 0);
	fill(disk, 1024 * GiB - 4096, 4096, 7);
	must_read(disk, 1024 * GiB - 8192, 4096, 0);
	must_read(disk, 1024 * GiB - 4096, 4096, 7);
	ck_assert_uint_le(q->l2.ntables, 1);
	ck_assert_uint_eq(q->l2.max, 128 * MiB >> q->l2.bits);
	close_node(disk);
	must_sh("qemu-img check disk");
	disk = open_node("large", "", BLOCK_USE_WRITE);
	fill(disk, 1000 * 1024 * GiB - 4096, 4096, 7);
	must_read(disk, 1000 * 1024 * GiB - 4096, 4096, 7);
	close_node(disk);
	must_sh("qemu-img check large");
	tear_down();
}
END_TEST

/* The refcount table of the smallest clusters has to grow and move. */
START_TEST(refcount_table_grows)
{
	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 disk 16M");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	for (int i = 0; i < 16; i++) {
		fill(disk, i * MiB, MiB, i + 1);
		if (i == 7)
			ck_assert_int_eq(flush(disk), 0);
	}
	close_node(disk);
	must_sh("qemu-img check disk");
	disk = open_node("disk", "", 0);
	for (int i = 0; i < 16; i++)
		must_read(disk, i * MiB, MiB, i + 1);
	close_node(disk);
	tear_down();
}
END_TEST

/* Each read takes a while: those of slices that are not in the cache go on at once. */
START_TEST(cold_slices)
{
	static const char options[] =
		"driver=qcow2,file.driver=blkdebug,file.image.driver=file,file.image.filename=disk,"
		"file.inject-delay.0.iotype=read,file.inject-delay.0.ns=400000000";
	struct test_req reqs[MAX_BATCH] = {0};
	uint8_t *bufs = malloc(MAX_BATCH * 512);
	uint64_t begin;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1G");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	for (int i = 0; i < MAX_BATCH; i++)
		fill(disk, i * 32 * MiB, 512, i + 1);
	close_node(disk);
	disk = open_node(NULL, options, 0);
	ck_assert_uint_eq(qcow2_of(disk)->l2.ntables, 0);
	for (int i = 0; i < MAX_BATCH; i++) {
		/* Two of each slice. */
		reqs[i].iov[0] = (struct iovec){bufs + i * 512, 512};
		reqs[i].req = (struct block_req){
			.op = BLOCK_READ,
			.offset = i / 2 * 32 * MiB,
			.bytes = 512,
			.iov = reqs[i].iov,
			.niov = 1,
		};
	}
	begin = clock_now();
	run_batch(disk, reqs, MAX_BATCH);
	/* A table and the data; one after the other it would be 3600 ms. */
	ck_assert_uint_lt(clock_now() - begin, 2400000000);
	for (int i = 0; i < MAX_BATCH; i++) {
		ck_assert_int_eq(reqs[i].res, 0);
		for (int j = 0; j < 512; j++)
			ck_assert_uint_eq(bufs[i * 512 + j], i / 2 + 1);
	}
	ck_assert_uint_eq(qcow2_of(disk)->l2.ntables, MAX_BATCH / 2);
	close_node(disk);
	free(bufs);
	tear_down();
}
END_TEST

/* The cache has so many slices at most; and none any more when nobody has read for two intervals. */
START_TEST(cache_is_bounded_and_cleaned)
{
	unsigned int *ntables;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1G");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	for (int i = 0; i < 8; i++)
		fill(disk, i * 32 * MiB, 512, i + 1);
	close_node(disk);
	disk = open_node("disk", "l2-cache-size=16K,cache-clean-interval=1", 0);
	ntables = &qcow2_of(disk)->l2.ntables;
	for (int i = 0; i < 8; i++) {
		must_read(disk, i * 32 * MiB, 512, i + 1);
		ck_assert_uint_le(READ_ONCE(*ntables), 4);
	}
	ck_assert_uint_gt(READ_ONCE(*ntables), 0);
	for (int i = 0; i < 1000 && READ_ONCE(*ntables); i++)
		usleep(10000);
	ck_assert_uint_eq(READ_ONCE(*ntables), 0);
	must_read(disk, 7 * 32 * MiB, 512, 8);
	close_node(disk);
	tear_down();
}
END_TEST

/* By default it can hold the mapping of the whole image, up to 128 MiB of it; and takes none before it is needed. */
START_TEST(cache_covers_the_image)
{
	static const struct {
		const char *options, *size;
		uint64_t least, most;
	} images[] = {
		{"", "1M", 256 * KiB, 256 * KiB},
		{"", "16G", 2 * MiB, 2 * MiB + 8 * KiB},
		{"", "1T", 128 * MiB, 128 * MiB},
		{"", "8T", 128 * MiB, 128 * MiB},
		{"-o cluster_size=2M", "8T", 32 * MiB, 32 * MiB + 8 * KiB},
		{"-o extended_l2=on", "16G", 4 * MiB, 4 * MiB + 8 * KiB},
	};
	struct qcow2_cache *l2;
	uint64_t bytes;

	set_up(_i);
	for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
		must_sh("qemu-img create -q -f qcow2 %s disk %s", images[i].options,
			images[i].size);
		disk = open_node("disk", "", 0);
		l2 = &qcow2_of(disk)->l2;
		bytes = (uint64_t)l2->max << l2->bits;
		ck_assert_uint_ge(bytes, images[i].least);
		ck_assert_uint_le(bytes, images[i].most);
		ck_assert_uint_eq(l2->ntables, 0);
		close_node(disk);
	}
	tear_down();
}
END_TEST

/* The number of flushes in a log of blklogwrites. */
static unsigned int logged_flushes(void)
{
	struct {
		uint64_t magic, version, count;
		uint8_t rest[488];
	} super;
	uint64_t entry[64];
	unsigned int n = 0;
	int fd = open("log", O_RDONLY);
	off_t at = 512;

	ck_assert_int_eq(pread(fd, &super, sizeof(super), 0), sizeof(super));
	for (uint64_t i = 0; i < super.count; i++) {
		ck_assert_int_eq(pread(fd, entry, 512, at), 512);
		n += entry[2] & 1;
		at += 512 + (off_t)(entry[2] & 4 ? 0 : entry[1] * 512);
	}
	close(fd);
	return n;
}

START_TEST(flushes_at_once)
{
	static const char options[] =
		"driver=qcow2,file.driver=blklogwrites,file.file.driver=file,file.file.filename=disk,"
		"file.log.filename=log";
	struct test_req reqs[MAX_BATCH] = {0};
	unsigned int alone, before;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1G; truncate -s 0 log");
	disk = open_node(NULL, options, BLOCK_USE_WRITE);
	fill(disk, 0, 512, 1);
	before = logged_flushes();
	ck_assert_int_eq(flush(disk), 0);
	alone = logged_flushes() - before;
	ck_assert_uint_gt(alone, 1);
	fill(disk, 64 * KiB, 512, 2);
	for (int i = 0; i < MAX_BATCH; i++)
		reqs[i].req = (struct block_req){.op = BLOCK_FLUSH};
	before = logged_flushes();
	run_batch(disk, reqs, MAX_BATCH);
	for (int i = 0; i < MAX_BATCH; i++)
		ck_assert_int_eq(reqs[i].res, 0);
	/* The first one, and one for all that came behind it. */
	ck_assert_uint_le(logged_flushes() - before, alone + 1);
	close_node(disk);
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		overlapping_writes,
		clusters_come_and_go,
		two_loops,
		damaged_compression,
		discard_gives_back,
		large_images,
		refcount_table_grows,
		cold_slices,
		flushes_at_once,
		cache_is_bounded_and_cleaned,
		cache_covers_the_image,
	};
	TCase *more = tcase_create("compressed");

	tcase_set_timeout(more, 60);
	tcase_add_loop_test(more, compressed, 0, 2 * ARRAY_SIZE(compression));
	return run_tests("qcow2 io", tests, ARRAY_SIZE(tests), more);
}
