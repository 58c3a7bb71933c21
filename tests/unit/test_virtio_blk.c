/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-blk, as virtio 1.2 (5.2) has it, on both loop engines; and drivers that send nonsense. */
#include "devices/block/block_co.h"
#include "virtio_blk_rig.h"

/* --- what the device says of itself ------------------------------------------------------------ */

START_TEST(configuration)
{
	struct hako_error err;
	uint64_t f;

	open_disk(_i, ",discard=unmap");
	ck_assert_int_eq(add_device(",num-queues=4,queue-size=128,logical_block_size=1024,"
				    "physical_block_size=4096",
				    &err),
			 0);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_DEVICE_ID), 2);
	f = vdrv_features(&drv);
	ck_assert_uint_eq(f & 0xffffff, BIT64(2) /* SEG_MAX */ | BIT64(6) /* BLK_SIZE */ |
						BIT64(9) /* FLUSH */ | BIT64(10) /* TOPOLOGY */ |
						BIT64(11) /* CONFIG_WCE */ | BIT64(12) /* MQ */ |
						BIT64(13) /* DISCARD */ |
						BIT64(14) /* WRITE_ZEROES */);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_CAPACITY, 4), SECTORS);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_CAPACITY + 4, 4), 0);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_SEG_MAX, 4), 126);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_BLK_SIZE, 4), 1024);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_PHYSICAL_EXP, 1), 2);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_NUM_QUEUES, 2), 4);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_MAX_DISCARD + 4, 4), 1);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_MAX_DISCARD + 8, 4), 2);
	ck_assert_uint_ge(vdrv_config(&drv, CONFIG_MAX_ZEROES, 4), SECTORS);
	stop_disk();
}
END_TEST

START_TEST(features_follow_options)
{
	struct hako_error err;

	open_disk(_i, ",read-only=on");
	ck_assert_int_eq(add_device("", &err), 0);
	ck_assert_uint_eq(vdrv_features(&drv) & 0xffffff,
			  BIT64(2) | BIT64(5) /* RO */ | BIT64(6) | BIT64(10));
	stop_disk();

	open_disk(_i, ""); /* discard=ignore */
	ck_assert_int_eq(add_device(",write-zeroes=off", &err), 0);
	ck_assert_uint_eq(vdrv_features(&drv) & (F_TRIM | F_ZEROES), 0);
	stop_disk();
}
END_TEST

START_TEST(bad_options)
{
	static const struct {
		const char *options, *text;
	} bad[] = {
		{",logical_block_size=700", "logical_block_size=700"},
		{",logical_block_size=256", "logical_block_size"},
		{",logical_block_size=4096,physical_block_size=512", "physical_block_size=512"},
		{",queue-size=100", "100"},
		{",num-queues=0", "num-queues"},
		{",num-queues=65", "num-queues"},
		{",write-cache=perhaps", "write-cache"},
		{",seriel=x", "serial"},
		{",drive=nodisk", "nodisk"},
	};
	struct hako_error err;

	open_disk(_i, "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_int_lt(add_device(bad[i].options, &err), 0);
		ck_assert_msg(strstr(err.message, bad[i].text) != NULL, "%s", err.message);
	}
	/* None of these has kept the disk. */
	ck_assert_msg(add_device("", &err) == 0, "%s", err.message);
	ck_assert_int_eq(add_device("", &err), -EBUSY);
	stop_disk();
}
END_TEST

/* --- requests ---------------------------------------------------------------------------------- */

START_TEST(read_and_write)
{
	struct vdrv_buf data;
	uint64_t word;

	start_disk(_i, "", "", F_FLUSH);
	data = vdrv_buf(&drv, 4096);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 17, data, false), VIRTIO_BLK_S_OK);
	for (int s = 0; s < 8; s++)
		ck_assert_uint_eq(first_word((char *)mem(data) + s * 512), 17 + s);
	memset(mem(data), 0x5a, 4096);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, SECTORS - 8, data, true), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_FLUSH, 0, (struct vdrv_buf){0}, false),
			 VIRTIO_BLK_S_OK);
	ck_assert_int_eq(pread(image_fd, &word, 8, IMAGE_SIZE - 8), 8);
	ck_assert_uint_eq(word, 0x5a5a5a5a5a5a5a5a);
	ck_assert_int_eq(pread(image_fd, &word, 8, IMAGE_SIZE - 4096 - 512), 8);
	ck_assert_uint_eq(word, SECTORS - 9);
	/* Nothing at all is no error. */
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 0, (struct vdrv_buf){0}, false), VIRTIO_BLK_S_OK);
	stop_disk();
}
END_TEST

START_TEST(used_length_covers_what_was_written)
{
	struct vdrv_buf bufs[3];
	uint32_t len;

	start_disk(_i, "", "", 0);
	bufs[0] = header(VIRTIO_BLK_T_IN, 0);
	bufs[1] = vdrv_buf(&drv, 1024);
	bufs[2] = vdrv_buf(&drv, 1);
	vdrv_add(&q, bufs, 1, bufs + 1, 2);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 1025);
	bufs[0] = header(VIRTIO_BLK_T_OUT, 0);
	vdrv_add(&q, bufs, 2, bufs + 2, 1);
	vdrv_kick(&q);
	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 1);
	stop_disk();
}
END_TEST

START_TEST(serial_number)
{
	static const char *const options[] = {",serial=abc", ",serial=12345678901234567890123", ""};
	static const char *const want[] = {"abc", "12345678901234567890", ""};
	char expected[20];

	for (int i = 0; i < 3; i++) {
		struct vdrv_buf data;

		start_disk(_i, "", options[i], 0);
		data = vdrv_buf(&drv, 20);
		memset(mem(data), 0xee, 20);
		memset(expected, 0, 20);
		memcpy(expected, want[i], strlen(want[i]));
		ck_assert_int_eq(simple(VIRTIO_BLK_T_GET_ID, 0, data, false), VIRTIO_BLK_S_OK);
		ck_assert_mem_eq(mem(data), expected, 20);
		stop_disk();
	}
}
END_TEST

START_TEST(discard_and_write_zeroes)
{
	uint64_t word;

	start_disk(_i, ",discard=unmap", "", F_TRIM | F_ZEROES | F_FLUSH);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(0, 128, 0), true), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(pread(image_fd, &word, 8, 128 * 512), 8);
	ck_assert_uint_eq(word, 128);
	for (uint32_t unmap = 0; unmap < 2; unmap++) {
		uint64_t first = 1000 + 100 * unmap;

		ck_assert_int_eq(
			simple(VIRTIO_BLK_T_WRITE_ZEROES, 0, range(first, 50, unmap), true),
			VIRTIO_BLK_S_OK);
		for (uint64_t s = first - 1; s <= first + 50; s++) {
			ck_assert_int_eq(pread(image_fd, &word, 8, s * 512), 8);
			ck_assert_uint_eq(word, s < first || s >= first + 50 ? s : 0);
		}
	}
	stop_disk();
}
END_TEST

/* 2.7.4: the borders between descriptors mean nothing. */
START_TEST(any_framing)
{
	struct vdrv_buf hdr, data, out[40], in[40], tail;
	unsigned int n;

	start_disk(_i, "", "", 0);
	data = vdrv_buf(&drv, 2048);
	/* The header byte by byte; data in odd pieces; the status behind the data in the last of them. */
	hdr = header(VIRTIO_BLK_T_IN, 100);
	for (n = 0; n < 16; n++)
		out[n] = (struct vdrv_buf){hdr.gpa + n, 1};
	tail = vdrv_buf(&drv, 1024 + 1);
	in[0] = (struct vdrv_buf){data.gpa, 7};
	in[1] = (struct vdrv_buf){data.gpa + 7, 1000};
	in[2] = (struct vdrv_buf){data.gpa + 1007, 17};
	in[3] = tail;
	ck_assert_int_eq(run(out, 16, in, 4), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(first_word(mem(data)), 100);
	ck_assert_uint_eq(first_word((char *)mem(data) + 512), 101);
	ck_assert_uint_eq(first_word(mem(tail)), 102);
	ck_assert_uint_eq(first_word((char *)mem(tail) + 512), 103);

	/* Header and data in one descriptor, then the rest in small ones. */
	hdr = vdrv_buf(&drv, 16 + 512);
	put_le32(mem(hdr), VIRTIO_BLK_T_OUT);
	put_le64((char *)mem(hdr) + 8, 200);
	memset((char *)mem(hdr) + 16, 'a', 512);
	memset(mem(data), 'b', 512);
	out[0] = hdr;
	for (n = 0; n < 32; n++)
		out[1 + n] = (struct vdrv_buf){data.gpa + n * 16, 16};
	in[0] = vdrv_buf(&drv, 1);
	ck_assert_int_eq(run(out, 33, in, 1), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(pread(image_fd, mem(data), 1024, 200 * 512), 1024);
	for (n = 0; n < 1024; n++)
		ck_assert_int_eq(((char *)mem(data))[n], n < 512 ? 'a' : 'b');
	stop_disk();
}
END_TEST

/* --- nonsense ---------------------------------------------------------------------------------- */

START_TEST(bad_ranges)
{
	static const struct {
		uint64_t sector;
		uint32_t len;
	} bad[] = {
		{SECTORS, 512},	   {SECTORS - 1, 1024},
		{UINT64_MAX, 512}, {UINT64_MAX / 512, 512},
		{1ull << 55, 512}, {0, 511},
		{0, 513},	   {0, 1},
	};
	struct vdrv_buf data;

	start_disk(_i, "", "", F_FLUSH);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		data = vdrv_buf(&drv, bad[i].len);
		ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, bad[i].sector, data, false),
				 VIRTIO_BLK_S_IOERR);
		ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, bad[i].sector, data, true),
				 VIRTIO_BLK_S_IOERR);
	}
	/* It goes on. */
	data = vdrv_buf(&drv, 512);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 5, data, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(first_word(mem(data)), 5);
	ck_assert(!vdrv_needs_reset(&drv));
	stop_disk();
}
END_TEST

START_TEST(larger_logical_blocks)
{
	struct vdrv_buf data;

	start_disk(_i, "", ",logical_block_size=4096", F_ZEROES);
	data = vdrv_buf(&drv, 4096);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 8, data, false), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 9, data, false), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_WRITE_ZEROES, 0, range(8, 9, 0), true),
			 VIRTIO_BLK_S_IOERR);
	data = vdrv_buf(&drv, 512);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 8, data, false), VIRTIO_BLK_S_IOERR);
	stop_disk();
}
END_TEST

START_TEST(bad_ranges_to_discard)
{
	struct vdrv_buf two;

	start_disk(_i, ",discard=unmap", "", F_TRIM);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(0, 8, 1), true),
			 VIRTIO_BLK_S_UNSUPP);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(SECTORS, 1, 0), true),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(UINT64_MAX, 2, 0), true),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(0, UINT32_MAX, 0), true),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, vdrv_buf(&drv, 15), true),
			 VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, (struct vdrv_buf){0}, true),
			 VIRTIO_BLK_S_IOERR);
	two = range(0, 8, 0);
	range(8, 8, 0);
	two.len = 80; /* more than max_discard_seg */
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, two, true), VIRTIO_BLK_S_IOERR);
	/* Not negotiated. */
	ck_assert_int_eq(simple(VIRTIO_BLK_T_WRITE_ZEROES, 0, range(0, 8, 0), true),
			 VIRTIO_BLK_S_UNSUPP);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_DISCARD, 0, range(0, 0, 0), true), VIRTIO_BLK_S_OK);
	stop_disk();
}
END_TEST

START_TEST(bad_requests)
{
	struct vdrv_buf data, hdr, status;

	start_disk(_i, "", "", 0);
	data = vdrv_buf(&drv, 512);
	ck_assert_int_eq(simple(77, 0, data, false), VIRTIO_BLK_S_UNSUPP);
	ck_assert_int_eq(simple(0xffffffff, 0, data, true), VIRTIO_BLK_S_UNSUPP);
	hdr = header(VIRTIO_BLK_T_IN, 0);
	hdr.len = 15;
	status = vdrv_buf(&drv, 1);
	ck_assert_int_eq(run(&hdr, 1, &status, 1), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(run(NULL, 0, &status, 1), VIRTIO_BLK_S_IOERR);
	ck_assert(!vdrv_needs_reset(&drv));
	/* Nowhere to put a status. */
	hdr = header(VIRTIO_BLK_T_IN, 0);
	vdrv_add(&q, &hdr, 1, NULL, 0);
	vdrv_kick(&q);
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	/* A reset makes all well. */
	ck_assert(vdrv_negotiate(&drv, 0));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 3, data, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(first_word(mem(data)), 3);
	stop_disk();
}
END_TEST

START_TEST(read_only_disk)
{
	struct vdrv_buf data;
	uint64_t word;

	start_disk(_i, ",read-only=on", "", 0);
	data = vdrv_buf(&drv, 512);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, 4, data, true), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_WRITE_ZEROES, 0, range(4, 1, 0), true),
			 VIRTIO_BLK_S_UNSUPP);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_FLUSH, 0, (struct vdrv_buf){0}, false),
			 VIRTIO_BLK_S_OK);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 4, data, false), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(pread(image_fd, &word, 8, 4 * 512), 8);
	ck_assert_uint_eq(word, 4);
	stop_disk();
}
END_TEST

/* An image that has become shorter behind our back; reading where it was gives zeroes, not a hang. */
START_TEST(image_is_cut_short)
{
	struct vdrv_buf data;

	start_disk(_i, "", "", 0);
	ck_assert_int_eq(ftruncate(image_fd, 1024), 0);
	data = vdrv_buf(&drv, 2048);
	memset(mem(data), 0xee, 2048);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, 1, data, false), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(first_word(mem(data)), 1);
	for (int i = 512; i < 2048; i++)
		ck_assert_uint_eq(((uint8_t *)mem(data))[i], 0);
	stop_disk();
}
END_TEST

/* --- write cache ------------------------------------------------------------------------------- */

static void set_wce(uint8_t value)
{
	ck_assert(bus_write(&drv.mmio, drv.base + VIRTIO_MMIO_CONFIG + CONFIG_WRITEBACK, value, 1));
}

START_TEST(write_cache)
{
	struct vdrv_buf data;

	start_disk(_i, "", "", F_FLUSH | F_WCE);
	data = vdrv_buf(&drv, 512);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 1);
	set_wce(0);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 0);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, 4, data, true), VIRTIO_BLK_S_OK);
	set_wce(0xff);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 1);
	set_wce(0);
	/* Back to the default by a reset; not to be changed by who has not negotiated it. */
	ck_assert(vdrv_negotiate(&drv, F_FLUSH));
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 1);
	set_wce(0);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 1);
	/* Nothing else can be written. */
	ck_assert(bus_write(&drv.mmio, drv.base + VIRTIO_MMIO_CONFIG + CONFIG_CAPACITY, 1, 4));
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_CAPACITY, 4), SECTORS);
	stop_disk();

	start_disk(_i, "", ",write-cache=off", F_FLUSH | F_WCE);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_WRITEBACK, 1), 0);
	stop_disk();
}
END_TEST

/* A node that remembers what it was asked for last. */
struct watch {
	struct block_node node;
	uint32_t flags;
};

static void watch_submit(struct block_node *node, struct block_req *req)
{
	container_of(node, struct watch, node)->flags = req->flags;
	block_done_later(req, 0);
}

static const struct block_ops watch_ops = {.submit = watch_submit};

static int watch_create(struct object *obj, struct hako_error *err)
{
	struct block_node *node = container_of(obj, struct block_node, obj);
	int ret = block_node_init(node, &watch_ops, err);

	node->length = IMAGE_SIZE;
	node->writeback = node->can_write_zeroes = true;
	return ret;
}

static void watch_destroy(struct object *obj)
{
	block_node_free(container_of(obj, struct block_node, obj));
}

static const struct class watch_class = {
	.name = "watch",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct watch),
	.bus_options = block_node_options,
	.create = watch_create,
	.destroy = watch_destroy,
};
HAKO_CLASS(watch_class);

/* 5.2.6.2: which writes have to be on the medium when they are complete? */
START_TEST(durability)
{
	static const struct {
		const char *options;
		uint64_t features;
		bool durable;
	} cases[] = {
		{"", 0, true}, /* can not flush */
		{"", F_FLUSH, false},
		{"", F_WCE, false},
		{"", F_FLUSH | F_WCE, false},
		{",write-cache=on", 0, true},
		{",write-cache=on", F_FLUSH, false},
		{",write-cache=off", 0, true},
		{",write-cache=off", F_FLUSH, true},
		{",write-cache=off", F_WCE, true},
		{",write-cache=off", F_FLUSH | F_WCE, true},
	};
	struct hako_error err;
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vdrv_buf data;
		struct watch *watch;

		vdrv_new(&drv, RAM);
		drv.vm->loop_engine = engines[_i];
		add_node("watch,id=disk");
		watch = (struct watch *)object_find(drv.vm, CLASS_BLOCKDEV, "disk");
		snprintf(text, sizeof(text), "drive=disk%s", cases[i].options);
		ck_assert_msg(vdrv_device(&drv, "virtio-blk-device", text, &err) == 0, "%s",
			      err.message);
		ck_assert(vdrv_negotiate(&drv, cases[i].features));
		vdrv_queue(&drv, &q, 0, QSIZE);
		vdrv_go(&drv);
		data = vdrv_buf(&drv, 512);
		ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, 1, data, true), VIRTIO_BLK_S_OK);
		ck_assert_msg(watch->flags == (cases[i].durable ? BLOCK_FUA : 0), "case %zu", i);
		if (cases[i].features & F_WCE) {
			set_wce(cases[i].durable);
			ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, 1, data, true), VIRTIO_BLK_S_OK);
			ck_assert_msg(watch->flags == (cases[i].durable ? 0 : BLOCK_FUA),
				      "case %zu, switched", i);
		}
		vdrv_close(&drv);
	}
}
END_TEST

/* --- load -------------------------------------------------------------------------------------- */

static unsigned int seed;

struct slot {
	struct vdrv_buf hdr, data, status;
	uint64_t sector;
	uint32_t sectors;
	bool write, busy;
};

/* Keep @slots requests in flight, against a model, until @total are done. Sectors of different slots do not overlap. */
static void hammer(unsigned int slots, int total)
{
	struct slot s[QSIZE / 4] = {0};
	unsigned int owner[QSIZE]; /* the slot, by head */
	uint8_t *model = malloc(IMAGE_SIZE);
	uint64_t share = SECTORS / slots;
	int submitted = 0, done = 0;

	ck_assert_int_eq(pread(image_fd, model, IMAGE_SIZE, 0), IMAGE_SIZE);
	for (unsigned int i = 0; i < slots; i++) {
		s[i].hdr = vdrv_buf(&drv, 16);
		s[i].data = vdrv_buf(&drv, 32 * 512);
		s[i].status = vdrv_buf(&drv, 1);
	}
	while (done < total) {
		uint32_t id;

		for (unsigned int i = 0; i < slots && submitted < total; i++) {
			struct vdrv_buf data = s[i].data;
			struct vdrv_buf bufs[4];

			if (s[i].busy)
				continue;
			s[i].write = rand_r(&seed) % 2;
			s[i].sectors = 1 + rand_r(&seed) % 32;
			s[i].sector = i * share + rand_r(&seed) % (share - 32);
			data.len = s[i].sectors * 512;
			put_le32(mem(s[i].hdr), s[i].write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN);
			put_le64((char *)mem(s[i].hdr) + 8, s[i].sector);
			memset(mem(data), submitted, data.len);
			*(uint8_t *)mem(s[i].status) = 0xee;
			/* Four descriptors each, and no two requests with the same ones. */
			bufs[0] = s[i].hdr;
			bufs[1] = (struct vdrv_buf){data.gpa, 256};
			bufs[2] = (struct vdrv_buf){data.gpa + 256, data.len - 256};
			bufs[3] = s[i].status;
			q.next_desc = i * 4;
			owner[vdrv_add(&q, bufs, s[i].write ? 3 : 1, bufs + (s[i].write ? 3 : 1),
				       s[i].write ? 1 : 3)] = i;
			s[i].busy = true;
			submitted++;
			if (rand_r(&seed) % 3 == 0)
				vdrv_kick(&q);
		}
		vdrv_kick(&q);
		ck_assert(vdrv_wait(&q, &id, NULL));
		do {
			struct slot *t = &s[owner[id]];
			uint8_t *at = model + t->sector * 512;

			ck_assert(t->busy);
			ck_assert_uint_eq(*(uint8_t *)mem(t->status), VIRTIO_BLK_S_OK);
			if (t->write)
				memcpy(at, mem(t->data), t->sectors * 512);
			else
				ck_assert_mem_eq(mem(t->data), at, t->sectors * 512);
			t->busy = false;
			done++;
		} while (vdrv_take(&q, &id, NULL));
	}
	free(model);
}

START_TEST(many_in_flight)
{
	start_disk(_i, "", "", BIT64(VIRTIO_RING_F_EVENT_IDX));
	seed = 42;
	hammer(QSIZE / 4, 4000);
	stop_disk();
	/* Past the page cache. */
	start_disk(_i, ",cache.direct=on", "", 0);
	hammer(QSIZE / 4, 1000);
	stop_disk();
}
END_TEST

START_TEST(large_requests)
{
	struct vdrv_buf bufs[QSIZE], data;
	unsigned int n = QSIZE - 2;

	start_disk(_i, "", "", 0);
	data = vdrv_buf(&drv, n * 4096);
	for (int round = 0; round < 3; round++) {
		bufs[0] = header(VIRTIO_BLK_T_IN, 8 * round);
		for (unsigned int i = 0; i < n; i++)
			bufs[1 + i] = (struct vdrv_buf){data.gpa + i * 4096, 4096};
		bufs[n + 1] = vdrv_buf(&drv, 1);
		ck_assert_int_eq(run(bufs, 1, bufs + 1, n + 1), VIRTIO_BLK_S_OK);
		for (unsigned int i = 0; i < n * 8; i++)
			ck_assert_uint_eq(first_word((char *)mem(data) + i * 512), 8 * round + i);
	}
	stop_disk();
}
END_TEST

START_TEST(queues_in_turn)
{
	struct hako_error err;
	struct vdrv_queue queues[4];
	struct vdrv_buf data;

	open_disk(_i, "");
	ck_assert_int_eq(add_device(",num-queues=4", &err), 0);
	ck_assert(vdrv_negotiate(&drv, BIT64(VIRTIO_BLK_F_MQ)));
	for (int i = 0; i < 4; i++)
		vdrv_queue(&drv, &queues[i], i, 16);
	vdrv_go(&drv);
	data = vdrv_buf(&drv, 512);
	for (int i = 0; i < 40; i++) {
		q = queues[i % 4];
		ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, i, data, false), VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(first_word(mem(data)), i);
		queues[i % 4] = q;
	}
	stop_disk();
}
END_TEST

/* Reset, and pause and resume, with requests under way. */
START_TEST(interrupted)
{
	struct vdrv_buf bufs[3];

	start_disk(_i, "", "", F_FLUSH);
	for (int round = 0; round < 50; round++) {
		uint64_t heap = drv.heap;

		bufs[1] = vdrv_buf(&drv, 4096);
		bufs[2] = vdrv_buf(&drv, 1);
		for (int i = 0; i < 16; i++) {
			bufs[0] = header(VIRTIO_BLK_T_IN, 8 * i);
			vdrv_add(&q, bufs, 1, bufs + 1, 2);
		}
		vdrv_kick(&q);
		if (round % 2) {
			virtio_device_pause(drv.obj);
			ck_assert_uint_eq(drv.vdev->vq[0].inflight, 0);
			virtio_device_resume(drv.obj);
			for (int i = 0; i < 16; i++)
				ck_assert(vdrv_wait(&q, NULL, NULL));
		} else {
			ck_assert(vdrv_negotiate(&drv, F_FLUSH));
			vdrv_queue(&drv, &q, 0, QSIZE);
			vdrv_go(&drv);
			heap = drv.heap;
		}
		drv.heap = heap;
	}
	seed = 1;
	hammer(8, 500);
	stop_disk();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		configuration,
		features_follow_options,
		bad_options,
		read_and_write,
		used_length_covers_what_was_written,
		serial_number,
		discard_and_write_zeroes,
		any_framing,
		bad_ranges,
		larger_logical_blocks,
		bad_ranges_to_discard,
		bad_requests,
		read_only_disk,
		image_is_cut_short,
		write_cache,
		durability,
		many_in_flight,
		large_requests,
		queues_in_turn,
		interrupted,
	};

	TCase *packed = tcase_create("packed rings");

	tcase_add_checked_fixture(packed, vdrv_setup_packed, NULL);
	tcase_set_timeout(packed, 30);
	for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
		tcase_add_loop_test(packed, tests[i], 0, ARRAY_SIZE(engines));
	return run_tests("virtio-blk", tests, ARRAY_SIZE(tests), packed);
}
