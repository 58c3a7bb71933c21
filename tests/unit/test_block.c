/* SPDX-License-Identifier: GPL-2.0-only */
/* Raw disk nodes, on both loop engines, through the page cache and past it. */
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/unit/block_test.h"

#define IMAGE_SIZE (1024 * 1024)

/* --- opening ----------------------------------------------------------------------------------- */

static void refused(const char *options, int code, const char *text)
{
	struct block_node *node;
	struct hako_error err;

	ck_assert_int_eq(new_node("bad", options, &node, &err), code);
	ck_assert_msg(strstr(err.message, text) != NULL, "%s", err.message);
	ck_assert_ptr_null(object_find(vm, CLASS_BLOCKDEV, "bad"));
}

START_TEST(bad_files_are_refused)
{
	char options[512], fifo[300];

	set_up(_i);
	refused("/nonexistent/disk.img", -ENOENT, "/nonexistent/disk.img: No such file");
	refused(image_dir, -EISDIR, "is a directory");
	snprintf(options, sizeof(options), "%s,read-only=on", image_dir);
	refused(options, -EISDIR, "is a directory");
	refused("/dev/null", -EINVAL, "neither a file nor a block device");
	snprintf(fifo, sizeof(fifo), "%s/fifo", image_dir);
	ck_assert_int_eq(mkfifo(fifo, 0600), 0);
	snprintf(options, sizeof(options), "%s,read-only=on", fifo);
	refused(options, -EINVAL, "neither a file nor a block device");
	unlink(fifo);
	make_image(4096);
	snprintf(options, sizeof(options), "%s,force-share=on", image);
	refused(options, -EINVAL, "read-only=on");
	snprintf(options, sizeof(options), "%s,discard=maybe", image);
	refused(options, -EINVAL, "discard");
	refused("read-only=on", -EINVAL, "filename");
	tear_down();
}
END_TEST

static int open_as_nobody(void)
{
	struct block_node *node;
	struct hako_error err;
	char options[512];

	if (seteuid(65534) < 0)
		return 1;
	if (new_node("a", image, &node, &err) != -EACCES || !strstr(err.message, "read-only=on"))
		return 2;
	snprintf(options, sizeof(options), "%s,auto-read-only=on", image);
	if (new_node("b", options, &node, &err) != 0 || !node->read_only)
		return 3;
	snprintf(options, sizeof(options), "%s,read-only=on", image);
	if (new_node("c", options, &node, &err) != 0 || !node->read_only)
		return 4;
	return 0;
}

START_TEST(file_without_write_permission)
{
	set_up(_i);
	make_image(4096);
	ck_assert_int_eq(chmod(image_dir, 0755), 0);
	ck_assert_int_eq(chmod(image, 0444), 0);
	/* Only root can become nobody; everybody else is as good as nobody. */
	if (geteuid() == 0) {
		ck_assert_int_eq(open_as_nobody(), 0);
		ck_assert_int_eq(seteuid(0), 0);
	}
	tear_down();
}
END_TEST

START_TEST(size_is_rounded_up)
{
	char buf[1024], want[1024];
	struct block_node *node;
	struct stat st;
	int fd;

	set_up(_i);
	make_image(700);
	memset(want, 0, sizeof(want));
	memset(want, 'x', 700);
	fd = open(image, O_WRONLY);
	ck_assert_int_eq(write_all(fd, want, 700), 0);
	close(fd);
	node = open_image(_i, "");
	ck_assert_uint_eq(node->length, 1024);
	memset(buf, 0xee, sizeof(buf));
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 0, buf, 1024), 0);
	ck_assert_mem_eq(buf, want, 1024);
	/* A write to the last sector makes it a whole one. */
	memset(buf, 'y', 512);
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 512, buf, 512), 0);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 512, buf + 512, 512), 0);
	ck_assert_mem_eq(buf, buf + 512, 512);
	ck_assert_int_eq(stat(image, &st), 0);
	ck_assert_int_eq(st.st_size, 1024);
	close_image(node);
	tear_down();
}
END_TEST

START_TEST(bad_requests_are_refused)
{
	struct block_node *node;
	char buf[1024];

	set_up(_i);
	make_image(8192);
	node = open_image(_i, "");
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 8192, buf, 512), -EINVAL);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 7680, buf, 1024), -EINVAL);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, UINT64_MAX - 511, buf, 1024), -EINVAL);
	ck_assert_int_eq(run_req(node, BLOCK_DISCARD, 0, 0, 16384, NULL, 0), -EINVAL);
	ck_assert_int_eq(run_req(node, BLOCK_WRITE_ZEROES, 0, 4096, UINT64_MAX - 511, NULL, 0),
			 -EINVAL);
	ck_assert_int_eq(run_req(node, BLOCK_READ, 0, 4096, 0, NULL, 0), 0);
	close_image(node);
	node = open_image(_i, ",read-only=on");
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 512), -EROFS);
	ck_assert_int_eq(run_req(node, BLOCK_DISCARD, 0, 0, 512, NULL, 0), -EROFS);
	ck_assert_int_eq(run_req(node, BLOCK_WRITE_ZEROES, 0, 0, 512, NULL, 0), -EROFS);
	ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 0, buf, 512), 0);
	close_image(node);
	tear_down();
}
END_TEST

/* --- data -------------------------------------------------------------------------------------- */

static unsigned int seed;

static unsigned int rnd(unsigned int n)
{
	return rand_r(&seed) % n;
}

/* Cut @bytes at @buf into random pieces; @unit is the smallest. */
static int cut(struct iovec *iov, int max, uint8_t *buf, size_t bytes, unsigned int unit)
{
	int n = 0;

	while (bytes) {
		size_t len = (1 + rnd(8)) * unit;

		if (len > bytes || n == max - 1)
			len = bytes;
		iov[n++] = (struct iovec){buf, len};
		buf += len;
		bytes -= len;
	}
	return n;
}

/* Random requests of every kind, against a copy in memory. */
static void random_requests(struct block_node *node, uint8_t *model, size_t size, int rounds)
{
	uint8_t *buf = aligned_alloc(4096, 256 * 1024);
	struct iovec iov[64];

	for (int i = 0; i < rounds; i++) {
		uint64_t offset = rnd(size / 512) * 512ull;
		size_t bytes = (1 + rnd(128)) * 512;
		unsigned int unit = rnd(3) ? 512 : 100, skew = rnd(4) ? 0 : 1 + rnd(600);
		uint32_t flags = rnd(4) ? 0 : BLOCK_FUA;
		uint8_t *at = buf + skew;
		int n, kind = rnd(8);

		bytes = MIN(bytes, size - offset);
		n = cut(iov, ARRAY_SIZE(iov), at, bytes, unit);
		if (kind < 3) {
			for (size_t b = 0; b < bytes; b++)
				at[b] = i + b / 97;
			ck_assert_int_eq(run_req(node, BLOCK_WRITE, flags, offset, bytes, iov, n),
					 0);
			memcpy(model + offset, at, bytes);
		} else if (kind < 6) {
			memset(at, 0xa5, bytes);
			ck_assert_int_eq(run_req(node, BLOCK_READ, 0, offset, bytes, iov, n), 0);
			ck_assert_mem_eq(at, model + offset, bytes);
		} else if (kind < 7) {
			flags |= rnd(2) ? BLOCK_UNMAP : 0;
			ck_assert_int_eq(
				run_req(node, BLOCK_WRITE_ZEROES, flags, offset, bytes, NULL, 0),
				0);
			memset(model + offset, 0, bytes);
		} else {
			ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
		}
	}
	free(buf);
}

static void random_test(int i, const char *options)
{
	uint8_t *model = calloc(1, IMAGE_SIZE), *back = malloc(IMAGE_SIZE);
	struct block_node *node;

	seed = 4711 + i;
	make_image(IMAGE_SIZE);
	node = open_image(i, options);
	ck_assert_uint_eq(node->length, IMAGE_SIZE);
	random_requests(node, model, IMAGE_SIZE, 200);
	close_image(node);
	read_back(image, back, IMAGE_SIZE);
	ck_assert_mem_eq(back, model, IMAGE_SIZE);
	free(model);
	free(back);
}

START_TEST(random_requests_file)
{
	set_up(_i);
	random_test(_i, "");
	random_test(_i, ",discard=unmap,cache.no-flush=on");
	tear_down();
}
END_TEST

/* tmpfs can punch holes but not zero ranges. */
START_TEST(random_requests_without_zero_range)
{
	set_up(_i & 1);
	unlink(image);
	rmdir(image_dir);
	strcpy(image_dir, "/dev/shm/hako-test-XXXXXX");
	if (mkdtemp(image_dir)) {
		snprintf(image, sizeof(image), "%s/image", image_dir);
		random_test(_i & 1, "");
		random_test(_i & 1, ",discard=unmap");
	}
	tear_down();
}
END_TEST

/* A loop device with sectors of @block_size bytes; -1 if this is not possible here. It goes away with the last close. */
static int loop_device(char *path, size_t len, unsigned int block_size)
{
	int ctl = open("/dev/loop-control", O_RDWR), backing = open(image, O_RDWR), fd = -1;
	struct loop_config config = {
		.fd = backing,
		.block_size = block_size,
		.info = {.lo_flags = LO_FLAGS_AUTOCLEAR},
	};

	for (int try = 0; ctl >= 0 && backing >= 0 && try < 10; try++) {
		int n = ioctl(ctl, LOOP_CTL_GET_FREE);

		snprintf(path, len, "/dev/loop%d", n);
		fd = n < 0 ? -1 : open(path, O_RDWR);
		if (fd < 0 || ioctl(fd, LOOP_CONFIGURE, &config) == 0)
			break;
		close(fd);
		fd = -1;
	}
	close(ctl);
	close(backing);
	return fd;
}

START_TEST(random_requests_block_device)
{
	uint8_t *model = calloc(1, IMAGE_SIZE), *back = malloc(IMAGE_SIZE);
	static const unsigned int sizes[] = {512, 4096};
	struct block_node *node;
	char path[64];
	int fd;

	set_up(_i);
	for (int s = 0; s < 2; s++) {
		make_image(IMAGE_SIZE);
		fd = loop_device(path, sizeof(path), sizes[s]);
		if (fd < 0)
			break;
		node = must_open(path,
				 (_i & 2) ? ",cache.direct=on,discard=unmap" : ",discard=unmap");
		ck_assert_int_eq(block_attach(node, loop, NULL), 0);
		ck_assert_uint_eq(node->length, IMAGE_SIZE);
		ck_assert_uint_eq(node->logical_block_size, sizes[s]);
		ck_assert_uint_eq(node->request_align, (_i & 2) ? sizes[s] : 512);
		memset(model, 0, IMAGE_SIZE);
		seed = _i;
		random_requests(node, model, IMAGE_SIZE, 200);
		ck_assert_int_eq(run_req(node, BLOCK_DISCARD, 0, 512, 16384, NULL, 0), 0);
		ck_assert_int_eq(run_buf(node, BLOCK_READ, 0, back, 512), 0);
		ck_assert_mem_eq(back, model, 512);
		memset(model + 512, 0, 16384);
		ck_assert_int_eq(run_req(node, BLOCK_WRITE_ZEROES, 0, 512, 16384, NULL, 0), 0);
		ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
		/* A format finds out that there is no room for more. */
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, IMAGE_SIZE, back, 512), -EINVAL);
		ck_assert_int_eq(block_use_node(node, vm, BLOCK_USE_WRITE | BLOCK_USE_RESIZE, NULL),
				 0);
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, IMAGE_SIZE, back, 512), -ENOSPC);
		block_unuse(node, vm);
		close_image(node);
		read_back(path, back, IMAGE_SIZE);
		ck_assert_mem_eq(back, model, IMAGE_SIZE);
		close(fd);
	}
	tear_down();
	free(model);
	free(back);
}
END_TEST

/* More pieces than a system call takes (IOV_MAX is 1024). */
START_TEST(many_pieces)
{
	enum {
		N = 2500
	};
	uint8_t *buf = aligned_alloc(4096, N * 1024), *back = malloc(N * 512);
	struct iovec *iov = calloc(N, sizeof(*iov));
	struct block_node *node;
	uint8_t want[512];

	set_up(_i);
	make_image(4 * MiB);
	node = open_image(_i, "");
	for (int i = 0; i < N; i++) {
		iov[i] = (struct iovec){buf + i * 1024, 512};
		memset(iov[i].iov_base, i, 512);
	}
	ck_assert_int_eq(run_req(node, BLOCK_WRITE, 0, 512, N * 512, iov, N), 0);
	memset(buf, 0, N * 1024);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 512, back, N * 512), 0);
	ck_assert_int_eq(run_req(node, BLOCK_READ, 0, 512, N * 512, iov, N), 0);
	for (int i = 0; i < N; i++) {
		memset(want, i, 512);
		ck_assert_mem_eq(back + i * 512, want, 512);
		ck_assert_mem_eq(buf + i * 1024, want, 512);
	}
	close_image(node);
	tear_down();
	free(iov);
	free(buf);
	free(back);
}
END_TEST

/* Requests at once that share blocks and pages: no one's bytes are lost, and the flush after them has nothing to complain of. */
#define NEIGHBOURS	 200
#define NEIGHBOURS_BYTES (NEIGHBOURS * 700)

static struct test_req neighbour[NEIGHBOURS];
static struct iovec neighbour_iov[NEIGHBOURS];

static void submit_neighbours(void *arg)
{
	for (int i = 0; i < NEIGHBOURS; i++)
		req_submit(&neighbour[i]);
}

static void run_neighbours(void)
{
	for (int i = 0; i < NEIGHBOURS; i++)
		sem_init(&neighbour[i].done, 0, 0);
	loop_call(loop, submit_neighbours, NULL);
	for (int i = 0; i < NEIGHBOURS; i++) {
		while (sem_wait(&neighbour[i].done) < 0)
			;
		ck_assert_int_eq(neighbour[i].res, 0);
		sem_destroy(&neighbour[i].done);
	}
}

static void write_neighbours(struct block_node *node, uint8_t *data, size_t size)
{
	size_t at = 0;

	for (int i = 0; i < NEIGHBOURS; i++) {
		/* Whole blocks where it is one's turn to begin at a border. */
		size_t len = at % 512 == 0 && i % 3 ? 512
			     : i % 4 == 3	    ? 512 - at % 512
						    : 1 + rand() % 900;

		len = i == NEIGHBOURS - 1 ? size - at : len;
		neighbour_iov[i] = (struct iovec){data + at, len};
		neighbour[i] = (struct test_req){
			.req = {.op = BLOCK_WRITE,
				.offset = at,
				.bytes = len,
				.iov = &neighbour_iov[i],
				.niov = 1,
				.done = req_done,
				.loop = loop},
			.node = node,
		};
		at += len;
	}
	run_neighbours();
}

START_TEST(neighbours_keep_their_bytes)
{
	const size_t size = ALIGN_UP(NEIGHBOURS_BYTES, 4096) + 512;
	uint8_t *data = aligned_alloc(4096, ALIGN_UP(size, 4096)), *got = malloc(size);
	struct block_node *node;
	struct stat st;

	set_up(_i);
	make_image(size);
	node = open_image(_i, "");
	for (int turn = 0; turn < 10; turn++) {
		for (size_t i = 0; i < size; i++)
			data[i] = rand();
		write_neighbours(node, data, size);
		ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
		read_back(image, got, size);
		ck_assert_int_eq(memcmp(got, data, size), 0);
		memset(got, 0, size);
		ck_assert_int_eq(run_buf(node, BLOCK_READ, 1, got + 1, size - 1), 0);
		ck_assert_int_eq(memcmp(got + 1, data + 1, size - 1), 0);
	}
	ck_assert_int_eq(stat(image, &st), 0);
	ck_assert_int_eq(st.st_size, size);
	close_image(node);
	free(data);
	free(got);
	tear_down();
}
END_TEST

/* Whole blocks and parts of the same ones are written at once, with the same data: none of it becomes what it was before. */
START_TEST(parts_keep_to_themselves)
{
	enum {
		PARTS = 32,
		SIZE = PARTS * 4096
	};
	static const struct {
		enum block_op op;
		uint8_t value;
	} kinds[] = {{BLOCK_WRITE, 0xa5}, {BLOCK_WRITE_ZEROES, 0}};
	uint8_t *data = aligned_alloc(4096, SIZE), *got = malloc(SIZE);
	struct iovec whole = {data, SIZE};
	struct block_node *node;

	set_up(_i);
	make_image(SIZE);
	node = open_image(_i, "");
	for (int turn = 0; turn < 200; turn++) {
		int kind = turn & 1;

		memset(data, kinds[kind].value, SIZE);
		for (int i = 0; i < NEIGHBOURS; i++) {
			bool all = i % 20 == 10;
			uint64_t at = i % PARTS * 4096 + 100;

			neighbour_iov[i] = (struct iovec){data + at, 1000};
			neighbour[i] = (struct test_req){
				.req = {.op = all ? kinds[kind].op : BLOCK_WRITE,
					.offset = all ? 0 : at,
					.bytes = all ? SIZE : 1000,
					.iov = all ? &whole : &neighbour_iov[i],
					.niov = 1,
					.done = req_done,
					.loop = loop},
				.node = node,
			};
		}
		run_neighbours();
		read_back(image, got, SIZE);
		ck_assert_int_eq(memcmp(got, data, SIZE), 0);
	}
	close_image(node);
	free(data);
	free(got);
	tear_down();
}
END_TEST

/* A file that ends within a block: a write to a part of that block does not lengthen it, whatever O_DIRECT has to write. */
START_TEST(end_within_a_block)
{
	uint8_t data[10], got[1000];
	struct block_node *node;
	struct stat st;

	set_up(_i);
	make_image(sizeof(got));
	node = open_image(_i, "");
	memset(data, 0x5a, sizeof(data));
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 980, data, sizeof(data)), 0);
	ck_assert_int_eq(stat(image, &st), 0);
	ck_assert_int_eq(st.st_size, sizeof(got));
	read_back(image, got, sizeof(got));
	ck_assert_int_eq(memcmp(got + 980, data, sizeof(data)), 0);
	ck_assert_int_eq(got[979] | got[990], 0);
	close_image(node);
	tear_down();
}
END_TEST

START_TEST(discard_frees_space)
{
	static const char *const options[] = {"", ",discard=unmap"};
	uint8_t *buf = malloc(IMAGE_SIZE);
	struct block_node *node;
	struct stat st;

	set_up(_i);
	for (int unmap = 0; unmap < 2; unmap++) {
		make_image(IMAGE_SIZE);
		node = open_image(_i, options[unmap]);
		ck_assert_int_eq(node->can_discard, unmap);
		memset(buf, 1, IMAGE_SIZE);
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, IMAGE_SIZE), 0);
		ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
		ck_assert_int_eq(run_req(node, BLOCK_DISCARD, 0, 0, IMAGE_SIZE, NULL, 0), 0);
		ck_assert_int_eq(stat(image, &st), 0);
		ck_assert_int_eq(st.st_blocks == 0, unmap);
		ck_assert_int_eq(st.st_size, IMAGE_SIZE);
		close_image(node);
	}
	tear_down();
	free(buf);
}
END_TEST

/* --- users and locks --------------------------------------------------------------------------- */

/* Open @options as node @id and use it so; the node stays only if that went well. */
static int open_and_use(const char *id, const char *options, unsigned int use,
			struct hako_error *err)
{
	struct block_node *node;
	char text[512];
	int ret;

	snprintf(text, sizeof(text), "%s%s", image, options);
	ck_assert_msg(new_node(id, text, &node, err) == 0, "%s", err->message);
	ret = block_use(vm, id, vm, use, &node, err);
	if (ret < 0)
		object_destroy(object_find(vm, CLASS_BLOCKDEV, id));
	return ret;
}

static void release(const char *id)
{
	struct object *obj = object_find(vm, CLASS_BLOCKDEV, id);

	block_unuse(container_of(obj, struct block_node, obj), vm);
	object_destroy(obj);
}

START_TEST(users_agree)
{
	const unsigned int share = BLOCK_USE_WRITE | BLOCK_USE_SHARE_WRITE;
	struct block_node *node;
	struct hako_error err;
	int a, b;

	set_up(_i);
	make_image(4096);
	ck_assert_int_eq(block_use(vm, "disk", vm, 0, &node, &err), -ENOENT);
	node = must_open(image, ",read-only=on");
	ck_assert_int_eq(block_use(vm, "disk", vm, BLOCK_USE_WRITE, &node, &err), -EROFS);
	ck_assert_int_eq(block_use(vm, "disk", &a, 0, &node, &err), 0);
	ck_assert_int_eq(block_use(vm, "disk", &b, 0, &node, &err), 0);
	block_unuse(node, &a);
	block_unuse(node, &b);
	object_destroy(&node->obj);

	node = must_open(image, "");
	ck_assert_int_eq(block_use(vm, "disk", &a, BLOCK_USE_WRITE, &node, &err), 0);
	ck_assert_int_eq(block_use(vm, "disk", &b, 0, &node, &err), -EBUSY);
	ck_assert_int_eq(block_use(vm, "disk", &b, share, &node, &err), -EBUSY);
	ck_assert_int_eq(block_use(vm, "disk", &a, share, &node, &err), 0);
	ck_assert_int_eq(block_use(vm, "disk", &b, 0, &node, &err), -EBUSY);
	ck_assert_int_eq(block_use(vm, "disk", &b, share, &node, &err), 0);
	ck_assert_int_eq(block_use(vm, "disk", &a, BLOCK_USE_WRITE, &node, &err), -EBUSY);
	block_unuse(node, &b);
	ck_assert_int_eq(block_use(vm, "disk", &a, BLOCK_USE_WRITE, &node, &err), 0);
	block_unuse(node, &a);
	tear_down();
}
END_TEST

START_TEST(two_writers_are_kept_apart)
{
	const unsigned int share = BLOCK_USE_WRITE | BLOCK_USE_SHARE_WRITE;
	struct hako_error err;

	set_up(_i);
	make_image(4096);
	ck_assert_int_eq(open_and_use("a", "", BLOCK_USE_WRITE, &err), 0);
	ck_assert_int_eq(open_and_use("b", "", BLOCK_USE_WRITE, &err), -EBUSY);
	ck_assert_msg(strstr(err.message, image) && strstr(err.message, "another program"), "%s",
		      err.message);
	ck_assert_int_eq(open_and_use("b", "", share, &err), -EBUSY);
	ck_assert_int_eq(open_and_use("b", ",read-only=on", 0, &err), -EBUSY);
	ck_assert_int_eq(open_and_use("b", ",read-only=on,force-share=on", 0, &err), 0);
	release("b");
	ck_assert_int_eq(open_and_use("b", ",locking=off", BLOCK_USE_WRITE, &err), 0);
	release("b");
	release("a");
	ck_assert_int_eq(open_and_use("a", "", share, &err), 0);
	ck_assert_int_eq(open_and_use("b", ",locking=on", share, &err), 0);
	ck_assert_int_eq(open_and_use("c", "", BLOCK_USE_WRITE, &err), -EBUSY);
	release("b");
	release("a");
	ck_assert_int_eq(open_and_use("a", ",read-only=on", 0, &err), 0);
	ck_assert_int_eq(open_and_use("b", ",read-only=on", 0, &err), 0);
	ck_assert_int_eq(open_and_use("c", "", share, &err), -EBUSY);
	release("b");
	release("a");
	tear_down();
}
END_TEST

static int shell(const char *fmt, const char *path)
{
	char command[512];
	int status;

	snprintf(command, sizeof(command), fmt, path);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

START_TEST(qemu_sees_our_locks)
{
	const char *write = "qemu-io -f raw -c 'write 0 512' %s >/dev/null 2>&1";
	const char *read = "qemu-io -r -f raw -c 'read 0 512' %s >/dev/null 2>&1";
	struct hako_error err;

	set_up(_i);
	make_image(4096);
	if (shell(write, image) == 0) { /* else there is no qemu-io */
		ck_assert_int_eq(open_and_use("a", "", BLOCK_USE_WRITE, &err), 0);
		ck_assert_int_ne(shell(write, image), 0);
		release("a");
		ck_assert_int_eq(open_and_use("a", ",read-only=on", 0, &err), 0);
		ck_assert_int_ne(shell(write, image), 0);
		ck_assert_int_eq(shell(read, image), 0);
		release("a");
		ck_assert_int_eq(shell(write, image), 0);
	}
	tear_down();
}
END_TEST

START_TEST(we_see_qemu_s_locks)
{
	struct hako_error err;
	char command[2048];
	FILE *qemu;

	set_up(_i);
	make_image(4096);
	if (shell("qemu-io -f raw -c 'write 0 512' %s >/dev/null 2>&1", image) == 0) {
		/* It holds the image until its input ends. */
		snprintf(
			command, sizeof(command),
			"mkfifo %s.in && { qemu-io -f raw %s < %s.in > /dev/null & } ; exec 3> %s.in; "
			"echo 'read 0 512' >&3; read x; exec 3>&-; wait; rm %s.in",
			image, image, image, image, image);
		qemu = popen(command, "w");
		ck_assert_ptr_nonnull(qemu);
		for (int i = 0; i < 500; i++) {
			if (open_and_use("a", "", BLOCK_USE_WRITE, &err) == -EBUSY)
				break;
			release("a");
			usleep(10000);
		}
		ck_assert_int_eq(open_and_use("a", "", BLOCK_USE_WRITE, &err), -EBUSY);
		ck_assert_int_eq(open_and_use("a", ",read-only=on", 0, &err), -EBUSY);
		fputs("\n", qemu);
		pclose(qemu);
		ck_assert_int_eq(open_and_use("a", "", BLOCK_USE_WRITE, &err), 0);
		release("a");
	}
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const all[] = {
		size_is_rounded_up,	      bad_requests_are_refused,
		random_requests_file,	      many_pieces,
		random_requests_block_device, discard_frees_space,
		neighbours_keep_their_bytes,  parts_keep_to_themselves,
		end_within_a_block,
	};
	const TTest *const engines_only[] = {
		bad_files_are_refused,
		file_without_write_permission,
		random_requests_without_zero_range,
		users_agree,
		two_writers_are_kept_apart,
		qemu_sees_our_locks,
		we_see_qemu_s_locks,
	};
	TCase *tc = tcase_create("engines, page cache, O_DIRECT");

	tcase_set_timeout(tc, 60);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		tcase_add_loop_test(tc, all[i], 0, 4);
	return run_tests("block", engines_only, ARRAY_SIZE(engines_only), tc);
}
