/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: images that are damaged or meant to do harm, and files that fail. */
#include "tests/unit/qcow2_test.h"

static uint64_t rng = 88172645463325252ull;

static unsigned int rnd(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static void patch(uint64_t offset, const void *bytes, size_t len)
{
	int fd = open("disk", O_WRONLY);

	ck_assert_int_eq(pwrite(fd, bytes, len, offset), len);
	close(fd);
}

static void patch_be64(uint64_t offset, uint64_t v)
{
	v = htobe64(v);
	patch(offset, &v, 8);
}

static uint64_t peek_be64(uint64_t offset)
{
	uint64_t v;
	int fd = open("disk", O_RDONLY);

	ck_assert_int_eq(pread(fd, &v, 8, offset), 8);
	close(fd);
	return be64toh(v);
}

/* --- headers ----------------------------------------------------------------------------------- */

struct bad {
	const char *create;
	unsigned int offset;
	uint64_t value; /* big-endian, of @len bytes */
	unsigned int len;
	int code;
	const char *say;
};

static const struct bad bad[] = {
	{"", 4, 4, 4, -ENOTSUP, "version 4"},
	{"", 4, 1, 4, -ENOTSUP, "QCOW version 1"},
	{"", 8, 1 << 20, 8, -EINVAL, "offset 1048576"},
	{"", 8, 50, 8, -EINVAL, "offset 50"},
	{"-b base -F raw", 16, 1024, 4, -EINVAL, "1024 bytes long"},
	{"", 20, 8, 4, -EINVAL, "2^8"},
	{"", 20, 22, 4, -EINVAL, "2^22"},
	{"", 20, 0xffffffff, 4, -EINVAL, "2^4294967295"},
	{"", 24, 1ull << 63, 8, -EFBIG, "9223372036854775808"},
	{"", 24, 1ull << 40, 8, -EINVAL, "L1 table has"},
	{"", 32, 1, 4, -ENOTSUP, "AES"},
	{"", 32, 2, 4, -ENOTSUP, "LUKS"},
	{"", 32, 3, 4, -ENOTSUP, "encryption method 3"},
	{"", 36, 0xffffffff, 4, -EFBIG, "L1 table is 34359738360 bytes"},
	{"", 40, 0x10001, 8, -EINVAL, "offset 65537"},
	{"", 40, 1ull << 62, 8, -EINVAL, "offset 4611686018427387904"},
	{"", 40, 0, 8, -EINVAL, "offset 0"},
	{"", 48, 0x1ffff, 8, -EINVAL, "offset 131071"},
	{"", 48, 1ull << 50, 8, -EINVAL, "refcount table at offset 1125899906842624"},
	{"", 56, 0, 4, -EINVAL, "no refcount table"},
	{"", 56, 0x7fffffff, 4, -EFBIG, "refcount table is"},
	{"", 60, 65537, 4, -EFBIG, "65537 snapshots"},
	{"", 60, 1, 4, -EINVAL, "snapshot table is at offset 0"},
	{"", 72, 1ull << 5 | 1ull << 63, 8, -ENOTSUP, "bit 5, bit 63"},
	{"", 96, 7, 4, -EINVAL, "2^7"},
	{"", 100, 96, 4, -EINVAL, "96 bytes"},
	{"", 100, 0x20000, 4, -EINVAL, "131072 bytes"},
	{"", 104, 1, 1, -EINVAL, "compression type 1"},
	{"", 104, 9, 1, -ENOTSUP, "compression type 9"},
	{"", 116, 0xffffff, 4, -EINVAL, "16777215 bytes long"},
	{"-o data_file=data", 72, 0, 8, -EINVAL, NULL},
};

/* _i: the case. */
START_TEST(bad_header)
{
	const struct bad *b = &bad[_i];
	uint64_t be = htobe64(b->value);
	struct block_node *node;

	set_up(_i % 2);
	must_sh("qemu-img create -q -f raw base 1M; qemu-img create -q -f qcow2 %s disk 1M",
		b->create);
	patch(b->offset, (char *)&be + 8 - b->len, b->len);
	if (!b->say) {
		/* Data inside where an image has a data file's name: no harm is done. */
		ck_assert_int_eq(try_open("disk", "", &node), 0);
		object_destroy(&node->obj);
	} else {
		ck_assert_int_eq(try_open("disk", "", &node), b->code);
		ck_assert_msg(strstr(error.message, b->say) != NULL, "%s", error.message);
	}
	tear_down();
}
END_TEST

/* The name of a feature that is not known is in the image. */
START_TEST(unknown_feature_by_name)
{
	struct block_node *node;
	struct qcow2_feature_name name = {QCOW2_FEATURE_INCOMPATIBLE, 42, "time\ntravel"};

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 disk 1M");
	patch_be64(72, 1ull << 42 | 1ull << 43);
	patch(112 + 8, &name, sizeof(name));
	ck_assert_int_eq(try_open("disk", "", &node), -ENOTSUP);
	ck_assert_msg(strstr(error.message, "time?travel, bit 43") != NULL, "%s", error.message);
	tear_down();
}
END_TEST

START_TEST(truncated)
{
	struct block_node *node;

	set_up(_i);
	for (int length = 512; length < 196608; length += 16384 + 512) {
		must_sh("rm -f disk; qemu-img create -q -f qcow2 disk 1M; truncate -s %d disk",
			length);
		ck_assert_int_eq(try_open("disk", "", &node), -EINVAL);
		ck_assert_msg(strstr(error.message, "offset") != NULL, "%s", error.message);
	}
	tear_down();
}
END_TEST

START_TEST(backing_loop)
{
	struct block_node *node;

	set_up(_i);
	must_sh("qemu-img create -q -f qcow2 a 1M; qemu-img create -q -f qcow2 -b a -F qcow2 b;"
		"qemu-img create -q -f qcow2 -b b -F qcow2 disk; qemu-img rebase -u -f qcow2 -b disk -F qcow2 a");
	ck_assert_int_eq(try_open("disk", "", &node), -ELOOP);
	must_sh("qemu-img rebase -u -f qcow2 -b a -F qcow2 a");
	ck_assert_int_eq(try_open("a", "", &node), -ELOOP);
	tear_down();
}
END_TEST

/* --- tables ------------------------------------------------------------------------------------ */

#define L1  0x30000 /* where qemu-img puts them, with one cluster written */
#define L2  0x40000
#define REF 0x20000

static void make_written(void)
{
	must_sh("rm -f disk; qemu-img create -q -f qcow2 disk 64M; qemu-io -c 'write -P 1 0 128k' disk");
	ck_assert_uint_eq(peek_be64(L1) & QCOW2_L1_OFFSET, L2);
}

/* Reading the first cluster fails, or writing does; nothing of the image but the mark changes. */
static void must_be_corrupt(bool reads)
{
	static uint8_t buf[65536];

	must_sh("cp disk before");
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	ck_assert_int_eq(run(disk, BLOCK_READ, 0, 0, buf, sizeof(buf)), reads ? 0 : -EIO);
	ck_assert_int_eq(run(disk, BLOCK_WRITE, 0, 0, buf, sizeof(buf)), -EIO);
	ck_assert_int_eq(run(disk, BLOCK_WRITE, 0, 1 * MiB, buf, 4096), -EIO);
	ck_assert(qcow2_of(disk)->corrupt);
	close_node(disk);
	ck_assert_uint_eq(peek_be64(72), QCOW2_INCOMPAT_CORRUPT);
	patch_be64(72, 0);
	must_sh("cmp disk before");
	patch_be64(72, QCOW2_INCOMPAT_CORRUPT);
	ck_assert_int_eq(try_open("disk", "", &disk), 0);
	ck_assert_int_eq(block_use_node(disk, vm, BLOCK_USE_WRITE, &error), -EROFS);
	object_destroy(&disk->obj);
}

START_TEST(bad_tables)
{
	static const uint64_t l1_entries[] = {
		1ull << 63 | L2 | 0x200, /* not a cluster's start */
		1ull << 63 | 1ull << 40, /* beyond the end */
		1ull << 62 | L2,	 /* reserved bits */
		1ull << 63 | L2 | 1,
	};
	static const uint64_t l2_entries[] = {
		1ull << 63 | 0x50200, 1ull << 63 | 1ull << 40, 1ull << 63 | 1ull << 56 | 0x50000,
		1ull << 63 | 0x50002, 1ull << 62 | 1ull << 50,
	};
	static const uint64_t on_metadata[] = {0x10000, REF, L1, L2};

	set_up(_i);
	for (size_t i = 0; i < ARRAY_SIZE(l1_entries); i++) {
		make_written();
		patch_be64(L1, l1_entries[i]);
		must_be_corrupt(false);
	}
	for (size_t i = 0; i < ARRAY_SIZE(l2_entries); i++) {
		make_written();
		patch_be64(L2, l2_entries[i]);
		must_be_corrupt(false);
	}
	for (size_t i = 0; i < ARRAY_SIZE(on_metadata); i++) {
		make_written();
		patch_be64(L2, 1ull << 63 | on_metadata[i]);
		must_be_corrupt(true);
	}
	/* The L2 table is also the refcount table; two entries share a table. */
	make_written();
	patch_be64(L1, 1ull << 63 | 0x10000);
	must_be_corrupt(true);
	must_sh("rm -f disk; qemu-img create -q -f qcow2 disk 1G; qemu-io -c 'write -P 1 0 128k' disk");
	patch_be64(L1 + 8, 1ull << 63 | L2);
	must_be_corrupt(true);
	tear_down();
}
END_TEST

/* The refcounts claim that what is in use is free. */
START_TEST(bad_refcounts)
{
	static uint8_t buf[65536];

	set_up(_i);
	for (uint64_t cluster = 0; cluster < 5; cluster++) {
		make_written();
		patch(REF + cluster * 2, "\0\0", 2);
		disk = open_node("disk", "", BLOCK_USE_WRITE);
		ck_assert_int_eq(run(disk, BLOCK_WRITE, 0, MiB, buf, sizeof(buf)), -EIO);
		ck_assert(qcow2_of(disk)->corrupt);
		must_read(disk, 0, 128 * KiB, 1);
		close_node(disk);
	}
	/* A refcount block that is none. */
	make_written();
	patch_be64(0x10000, 0x20200);
	disk = open_node("disk", "", BLOCK_USE_WRITE);
	ck_assert_int_eq(run(disk, BLOCK_WRITE, 0, MiB, buf, sizeof(buf)), -EIO);
	must_read(disk, 0, 128 * KiB, 1);
	close_node(disk);
	tear_down();
}
END_TEST

/* Bytes of valid images changed at random: whatever happens, nothing breaks. */
START_TEST(random_damage)
{
	static const char *const kinds[] = {
		"",
		"-o cluster_size=512",
		"-o extended_l2=on",
		"-o refcount_bits=1",
		"-o data_file=data",
	};
	static uint8_t buf[256 * 1024];
	struct block_node *node;

	set_up(_i);
	for (int n = 0; n < 150; n++) {
		if (n % 30 == 0)
			must_sh("rm -f valid data; qemu-img create -q -f qcow2 %s valid 2M; qemu-io -c 'write -P 1 0 300k'"
				" -c 'write -z 1M 64k' valid",
				kinds[n / 30]);
		must_sh("cp valid disk");
		for (int i = rnd(4); i >= 0; i--) {
			uint8_t byte = rnd(3) ? rnd(256) : 0xff * rnd(2);
			unsigned int where = rnd(4);

			patch(where == 0   ? rnd(120)
			      : where == 1 ? n < 60 && n >= 30 ? rnd(8192)
							       : 0x10000 * (1 + rnd(4)) + rnd(16)
					   : rnd(n < 60 && n >= 30 ? 8192 : 0x50000),
			      &byte, 1);
		}
		if (try_open("disk", "", &node) < 0)
			continue;
		if (block_use_node(node, vm, BLOCK_USE_WRITE, &error) < 0) {
			object_destroy(&node->obj);
			continue;
		}
		ck_assert_int_eq(block_attach(node, loop, &error), 0);
		for (int i = 0; i < 12 && node->length; i++) {
			uint64_t bytes = MIN((uint64_t)(1 + rnd(512)) * 512, node->length);
			uint64_t offset = rnd(MIN(node->length - bytes, 4 * MiB) / 512 + 1) *
					  512ull;

			run(node,
			    (enum block_op[]){BLOCK_READ, BLOCK_WRITE, BLOCK_DISCARD,
					      BLOCK_WRITE_ZEROES, BLOCK_FLUSH}[rnd(5)],
			    0, offset, buf, bytes);
		}
		close_node(node);
	}
	tear_down();
}
END_TEST

/* --- files that fail --------------------------------------------------------------------------- */

struct faulty {
	struct block_node node;
	struct option_tree file;
};

static bool faults;

static bool fails(const struct block_req *req)
{
	return faults && rnd(req->op == BLOCK_READ ? 60 : 8) == 0;
}

static void faulty_submit(struct block_node *node, struct block_req *req)
{
	if (fails(req))
		block_done_later(req, rnd(2) ? -EIO : -ENOSPC);
	else
		block_pass(node->file, req);
}

static int faulty_sync(struct block_node *node, struct block_req *req)
{
	return fails(req) ? -EIO : node->file->ops->sync(node->file, req);
}

static int faulty_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
			 struct hako_error *err)
{
	return block_resize(node->file, length, prealloc, err);
}

static void faulty_follow(struct block_node *node)
{
	WRITE_ONCE(node->length, READ_ONCE(node->file->length));
}

static const struct block_ops faulty_ops = {
	.submit = faulty_submit,
	.sync = faulty_sync,
	.resize = faulty_resize,
	.follow = faulty_follow,
};

static int faulty_create(struct object *obj, struct hako_error *err)
{
	struct faulty *f = container_of(obj, struct faulty, node.obj);
	int ret = block_node_init(&f->node, &faulty_ops, err);

	if (ret == 0)
		ret = block_open_child(&f->node, "file", &f->file, BLOCK_ROLE_FILE, &f->node.file,
				       err);
	if (ret < 0) {
		block_node_free(&f->node);
		return ret;
	}
	f->node.length = f->node.file->length;
	block_take_limits(&f->node, f->node.file);
	return 0;
}

static void faulty_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct option faulty_options[] = {
	OPT_NODE("file", struct faulty, file, "what is below"),
	OPT_END,
};

static const struct class faulty_class = {
	.name = "test-faulty",
	.help = "fails at times",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct faulty),
	.options = faulty_options,
	.bus_options = block_node_options,
	.create = faulty_create,
	.destroy = faulty_destroy,
};
HAKO_CLASS(faulty_class);

#define FAULT_DISK    (2 * MiB)
#define FAULT_SECTORS (FAULT_DISK / 512)
#define PATTERNS      256

/* Which patterns each sector may hold: the last write that worked, and those that did not since. */
static uint8_t allowed[FAULT_SECTORS][PATTERNS / 8];

static void allow(uint64_t offset, uint64_t bytes, int pattern, bool only)
{
	for (uint64_t s = offset / 512; s < (offset + bytes) / 512; s++) {
		if (only)
			memset(allowed[s], 0, sizeof(allowed[s]));
		allowed[s][pattern / 8] |= BIT(pattern % 8);
	}
}

static void check_allowed(const uint8_t *buf, uint64_t offset, uint64_t bytes)
{
	for (uint64_t i = 0; i < bytes; i++) {
		uint8_t v = buf[i];

		if (!(allowed[(offset + i) / 512][v / 8] & BIT(v % 8)))
			ck_abort_msg("at %llu: %02x", (unsigned long long)(offset + i), v);
	}
}

static void faulty_request(int round)
{
	static uint8_t buf[FAULT_DISK];
	uint64_t n = 1 + rnd(rnd(3) ? 16 : 1000), first = rnd(FAULT_SECTORS), offset = first * 512,
		 bytes;
	int pattern = 1 + round % 255, ret;

	bytes = MIN(n, FAULT_SECTORS - first) * 512;
	memset(buf, pattern, bytes);
	switch (rnd(8)) {
	case 0:
		if (run(disk, BLOCK_READ, 0, offset, buf, bytes) == 0)
			check_allowed(buf, offset, bytes);
		break;
	case 1:
		flush(disk);
		break;
	case 2:
		ret = run(disk, BLOCK_WRITE_ZEROES, rnd(2) ? BLOCK_UNMAP : 0, offset, NULL, bytes);
		allow(offset, bytes, 0, ret == 0);
		break;
	case 3:
		run(disk, BLOCK_DISCARD, 0, offset, NULL, bytes);
		allow(offset, bytes, 0, false);
		break;
	default:
		ret = run(disk, BLOCK_WRITE, rnd(8) ? 0 : BLOCK_FUA, offset, buf, bytes);
		allow(offset, bytes, pattern, ret == 0);
	}
}

static const char *const fault_kinds[] = {
	"cluster_size=64k",
	"cluster_size=512",
	"cluster_size=1k,refcount_bits=64",
	"cluster_size=16k,extended_l2=on",
	"lazy_refcounts=on,cluster_size=4k",
};

/* _i: the engine, and twice the kind. */
START_TEST(faults_lose_nothing)
{
	static uint8_t buf[FAULT_DISK];

	set_up(_i % 2);
	must_sh("qemu-img create -q -f qcow2 -o %s disk 2M", fault_kinds[_i / 2]);
	allow(0, FAULT_DISK, 0, true);
	for (int part = 0; part < 4; part++) {
		ck_assert_msg(try_open(NULL,
				       "driver=qcow2,l2-cache-size=16K,file.driver=test-faulty,"
				       "file.file.driver=file,file.file.filename=disk",
				       &disk) == 0,
			      "%s", error.message);
		ck_assert_int_eq(block_use_node(disk, vm, BLOCK_USE_WRITE, &error), 0);
		ck_assert_int_eq(block_attach(disk, loop, &error), 0);
		faults = true;
		for (int i = 0; i < 120; i++)
			faulty_request(part * 120 + i);
		faults = false;
		ck_assert(!qcow2_of(disk)->corrupt);
		ck_assert_int_eq(run(disk, BLOCK_READ, 0, 0, buf, FAULT_DISK), 0);
		check_allowed(buf, 0, FAULT_DISK);
		close_node(disk);
		must_sh("qemu-img check disk; s=$?; [ $s = 0 ] || [ $s = 3 ]");
		must_sh("qemu-img convert -O raw disk contents");
		ck_assert_int_eq(pread_all(open("contents", O_RDONLY), buf, FAULT_DISK, 0), 0);
		check_allowed(buf, 0, FAULT_DISK);
	}
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		unknown_feature_by_name, truncated,	backing_loop, bad_tables,
		bad_refcounts,		 random_damage,
	};
	TCase *more = tcase_create("many");

	tcase_set_timeout(more, 60);
	tcase_add_loop_test(more, bad_header, 0, ARRAY_SIZE(bad));
	tcase_add_loop_test(more, faults_lose_nothing, 0, 2 * ARRAY_SIZE(fault_kinds));
	return run_tests("qcow2 bad", tests, ARRAY_SIZE(tests), more);
}
