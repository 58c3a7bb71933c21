/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2 images of every kind, made by qemu-img, used at random and judged by qemu-img. */
#include "tests/unit/qcow2_test.h"

#define DISK	(4 * MiB)
#define ROUNDS	60
#define SECTORS (DISK / 512)

struct kind {
	const char *create;  /* options of qemu-img create; %s is not there */
	const char *prepare; /* shell commands before and after that, or NULL */
	const char *fill;
	const char *open; /* options */
	bool v2;
};

/* base.raw has a pattern in its first 2.5 MiB and is shorter than the disk. */
#define MAKE_BASE                                 \
	"qemu-img create -q -f raw base.raw 3M; " \
	"qemu-io -f raw -c 'write -P 0xb0 0 2560k' base.raw"
#define FILL "qemu-io -c 'write -P 0x11 100k 700k' -c 'write -P 0x12 2M 64k' disk"

static const struct kind kinds[] = {
	{"", NULL, FILL, ""},
	{"-o cluster_size=512", NULL, FILL, ""},
	{"-o cluster_size=4k,refcount_bits=1", NULL, FILL, ""},
	{"-o cluster_size=1k,refcount_bits=64", NULL, FILL, ""},
	{"-o cluster_size=2M,refcount_bits=8", NULL, FILL, ""},
	{"-o cluster_size=512,refcount_bits=2", NULL, NULL,
	 "l2-cache-size=2K,refcount-cache-size=2K"},
	{"-o compat=0.10", NULL, FILL, "", true},
	{"-o lazy_refcounts=on", NULL, FILL, ""},
	{"-o extended_l2=on,cluster_size=16k", NULL, FILL, ""},
	{"-o extended_l2=on,cluster_size=128k", MAKE_BASE, FILL, ""},
	{"-o preallocation=metadata", NULL, NULL, ""},
	{"-o preallocation=full,cluster_size=8k", NULL, FILL, ""},
	{"-o data_file=disk.data", NULL, FILL, ""},
	{"-o data_file=disk.data,data_file_raw=on", NULL, FILL, ""},
	{"-o cluster_size=32k -b base.raw -F raw", MAKE_BASE, FILL, ""},
	{"-o compat=0.10 -b base.raw -F raw", MAKE_BASE, FILL, "", true},
	{"-b mid -F qcow2",
	 MAKE_BASE
	 "; qemu-img create -q -f qcow2 -o cluster_size=4k -b base.raw -F raw mid 3584k;"
	 "qemu-io -c 'write -P 0x31 1M 300k' -c 'write -z 2M 100k' -c 'write -P 0x32 3M 512k' mid",
	 NULL, ""},
	{"-o cluster_size=16k", NULL, FILL "; qemu-img snapshot -c s1 disk; " FILL, ""},
	{"-o extended_l2=on,cluster_size=32k -b base.raw -F raw", MAKE_BASE,
	 FILL "; qemu-img snapshot -c s1 disk", ""},
};

/* Pseudo-random numbers, the same in each run. */
static uint64_t rng;

static unsigned int rnd(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static uint8_t *model;

static void load_model(void)
{
	int fd;

	must_sh("qemu-img convert -O raw disk model");
	fd = open("model", O_RDONLY);
	model = malloc(DISK);
	ck_assert_int_eq(pread_all(fd, model, DISK, 0), 0);
	close(fd);
}

static void make_disk(const struct kind *k)
{
	if (k->prepare)
		must_sh("%s", k->prepare);
	must_sh("qemu-img create -q -f qcow2 %s disk %llu", k->create, DISK);
	if (k->fill)
		must_sh("%s", k->fill);
	load_model();
}

/* The range of one request of a batch, apart from those of the others, all together in @busy. */
static bool choose_range(uint64_t *offset, uint64_t *bytes, uint8_t *busy)
{
	unsigned int n = 1 + rnd(rnd(4) ? 16 : 2000), first = rnd(SECTORS);

	n = MIN(n, (unsigned int)SECTORS - first);
	for (unsigned int i = first; i < first + n; i++)
		if (busy[i])
			return false;
	memset(busy + first, 1, n);
	*offset = first * 512ull;
	*bytes = n * 512ull;
	return true;
}

static void buffers(struct test_req *t, uint8_t *buf)
{
	uint64_t first = t->req.bytes > 1024 ? 512 : t->req.bytes / 2;

	t->iov[0] = (struct iovec){buf, first};
	t->iov[1] = (struct iovec){buf + first, t->req.bytes - first};
	t->req.iov = t->iov;
	t->req.niov = 2;
}

static void choose_request(struct test_req *t, uint8_t *buf, bool v2)
{
	static const enum block_op ops[] = {BLOCK_READ, BLOCK_WRITE, BLOCK_WRITE,
					    BLOCK_WRITE_ZEROES, BLOCK_DISCARD};
	struct block_req *req = &t->req;

	req->op = ops[rnd(5)];
	if (req->op == BLOCK_DISCARD && v2)
		req->op = BLOCK_WRITE; /* what comes of it depends */
	req->flags = 0;
	if (req->op == BLOCK_WRITE && !rnd(8))
		req->flags = BLOCK_FUA;
	if (req->op == BLOCK_WRITE_ZEROES && rnd(2))
		req->flags = BLOCK_UNMAP;
	memset(buf, req->op == BLOCK_READ ? 0xee : 1 + rnd(250), req->bytes);
	buffers(t, buf);
}

static void check_read(const struct block_req *req, const uint8_t *buf)
{
	const uint8_t *want = model + req->offset;
	uint64_t i = 0;

	if (!memcmp(buf, want, req->bytes))
		return;
	while (buf[i] == want[i])
		i++;
	ck_abort_msg("at %llu: %02x, not %02x", (unsigned long long)(req->offset + i), buf[i],
		     want[i]);
}

/* What the disk must hold afterwards; discards leave what cannot be known, so that is read. */
static void apply(struct test_req *t, uint8_t *buf)
{
	struct block_req *req = &t->req;

	ck_assert_msg(t->res == 0, "op %d at %llu, %llu bytes: %s", req->op,
		      (unsigned long long)req->offset, (unsigned long long)req->bytes,
		      strerror(-t->res));
	switch (req->op) {
	case BLOCK_READ:
		check_read(req, buf);
		break;
	case BLOCK_WRITE:
		memcpy(model + req->offset, buf, req->bytes);
		break;
	case BLOCK_WRITE_ZEROES:
		memset(model + req->offset, 0, req->bytes);
		break;
	case BLOCK_DISCARD:
		ck_assert_int_eq(
			run(disk, BLOCK_READ, 0, req->offset, model + req->offset, req->bytes), 0);
		break;
	default:
		break;
	}
}

static void one_batch(bool v2)
{
	static uint8_t *buf[MAX_BATCH];
	struct test_req reqs[MAX_BATCH] = {0};
	uint8_t *busy = calloc(1, SECTORS);
	unsigned int n = 0;

	for (unsigned int i = 0, want = 1 + rnd(MAX_BATCH); i < want; i++) {
		struct block_req *req = &reqs[n].req;

		if (!choose_range(&req->offset, &req->bytes, busy))
			continue;
		buf[n] = malloc(req->bytes);
		choose_request(&reqs[n], buf[n], v2);
		n++;
	}
	run_batch(disk, reqs, n);
	for (unsigned int i = 0; i < n; i++) {
		apply(&reqs[i], buf[i]);
		free(buf[i]);
	}
	free(busy);
}

static void compare(void)
{
	int fd = open("model", O_WRONLY | O_TRUNC | O_CREAT, 0600);

	ck_assert_int_eq(write_all(fd, model, DISK), 0);
	close(fd);
	must_sh("qemu-img check disk");
	must_sh("qemu-img compare -f raw -F qcow2 model disk");
}

/* _i: the engine, and twice the kind. */
START_TEST(at_random)
{
	const struct kind *k = &kinds[_i / 2];

	set_up(_i % 2);
	rng = 88172645463325252ull + _i;
	make_disk(k);
	for (int part = 0; part < 2; part++) {
		disk = open_node("disk", k->open, BLOCK_USE_WRITE);
		for (int i = 0; i < ROUNDS; i++) {
			one_batch(k->v2);
			if (!rnd(10))
				ck_assert_int_eq(flush(disk), 0);
		}
		close_node(disk);
		compare();
	}
	free(model);
	tear_down();
}
END_TEST

int main(void)
{
	TCase *t = tcase_create("images");
	Suite *s = suite_create("qcow2");
	SRunner *sr;
	int failures;

	tcase_set_timeout(t, 60);
	tcase_add_loop_test(t, at_random, 0, 2 * ARRAY_SIZE(kinds));
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures != 0;
}
