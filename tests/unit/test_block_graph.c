/* SPDX-License-Identifier: GPL-2.0-only */
/* Nodes on nodes: how they are made, named, used, guessed; and what formats need of the file below them. */
#include <stdarg.h>
#include <sys/stat.h>

#include "devices/block/block_co.h"
#include "tests/unit/block_test.h"

static struct hako_error err;

static struct block_node *find(const char *id)
{
	struct object *obj = object_find(vm, CLASS_BLOCKDEV, id);

	return obj ? container_of(obj, struct block_node, obj) : NULL;
}

static unsigned int count_nodes(void)
{
	struct object *obj;
	unsigned int n = 0;

	list_for_each(obj, &vm->objects[CLASS_BLOCKDEV], link)
		n++;
	return n;
}

static struct block_node *must_make(const char *id, const char *fmt, ...)
{
	struct block_node *node;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ck_assert_msg(new_node(id, text, &node, &err) == 0, "%s: %s", text, err.message);
	return node;
}

static void refused(int code, const char *say, const char *fmt, ...)
{
	unsigned int nodes = count_nodes();
	struct block_node *node;
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	ck_assert_int_eq(new_node("bad", text, &node, &err), code);
	ck_assert_msg(strstr(err.message, say) != NULL, "%s: %s", text, err.message);
	ck_assert_uint_eq(count_nodes(), nodes);
}

static void put(uint64_t offset, const void *buf, size_t len)
{
	int fd = open(image, O_WRONLY);

	ck_assert_int_eq(pwrite(fd, buf, len, offset), len);
	close(fd);
}

/* --- making ------------------------------------------------------------------------------------ */

START_TEST(nested_options)
{
	struct block_node *raw, *file;

	set_up(_i);
	make_image(8192);
	raw = must_make("top",
			"driver=raw,file.driver=file,file.filename=%s,cache.no-flush=on,"
			"read-only=on,offset=4K,size=512",
			image);
	file = raw->file;
	ck_assert_ptr_nonnull(file);
	ck_assert_str_eq(file->obj.class->name, "file");
	ck_assert_uint_eq(raw->length, 512);
	ck_assert(file->opts.no_flush && file->read_only && raw->read_only);
	ck_assert(file->opts.discard == BLOCK_DISCARD_UNMAP);
	ck_assert_str_eq(block_filename(raw), image);
	ck_assert_ptr_eq(find(file->obj.id), file);
	ck_assert_int_eq(count_nodes(), 2);
	object_destroy(&raw->obj); /* what was made for it goes with it */
	ck_assert_int_eq(count_nodes(), 0);
	tear_down();
}
END_TEST

START_TEST(references)
{
	struct block_node *file, *raw;

	set_up(_i);
	make_image(8192);
	file = must_make("f", "%s", image);
	raw = must_make("r", "driver=raw,file=f");
	ck_assert_ptr_eq(raw->file, file);
	object_destroy(&raw->obj);
	ck_assert_ptr_eq(find("f"), file);
	ck_assert_uint_eq(file->nusers, 0);
	refused(-ENOENT, "file=g: there is no such", "driver=raw,file=g");
	refused(-EINVAL, "exclude each other", "driver=raw,file=f,file.filename=x");
	refused(-EINVAL, "exclude each other", "driver=raw,file.filename=x,file=f");
	refused(-EINVAL, "file=", "driver=raw");
	refused(-EINVAL, "did you mean filename", "driver=raw,file.filenam=x,file.filename=%s",
		image);
	refused(-ENOENT, "/nonexistent: No such file", "driver=raw,file.filename=/nonexistent");
	refused(-ENODEV, "did you mean file", "driver=raw,file.driver=fil,file.filename=x");
	refused(-EINVAL, "multiples of 512", "driver=raw,file=f,offset=100");
	refused(-EINVAL, "beyond the end", "driver=raw,file=f,offset=1M");
	refused(-EINVAL, "more than the image has", "driver=raw,file=f,offset=4k,size=8k");
	refused(-EINVAL, "not a block device", "driver=host_device,filename=%s", image);
	ck_assert_uint_eq(file->nusers, 0);
	tear_down();
}
END_TEST

#ifdef WITH_JSON
static int open_image_as(const char *name, const char *format, const char *options,
			 struct block_node **node);

START_TEST(json)
{
	struct block_node *raw, *node;
	char name[1000];

	set_up(_i);
	make_image(8192);
	raw = must_make(
		NULL,
		"{\"driver\": \"raw\", \"node-name\": \"j\", \"file\": {\"driver\": \"file\","
		" \"filename\": \"%s\", \"cache\": {\"direct\": true}}}",
		image);
	ck_assert_ptr_eq(find("j"), raw);
	ck_assert(raw->file->opts.direct && !raw->opts.direct);
	ck_assert_uint_eq(raw->length, 8192);
	refused(-EINVAL, "null is no value", "{\"filename\": null}");
	refused(-EINVAL, "file=", "{\"driver\": \"raw\", \"file\": null}");
	snprintf(name, sizeof(name),
		 "json:{\"driver\": \"raw\", \"offset\": 512, "
		 "\"file\": {\"driver\": \"file\", \"filename\": \"%s\"}}",
		 image);
	ck_assert_int_eq(open_image_as(name, NULL, "read-only=on", &node), 0);
	ck_assert(node->read_only && node->file->read_only);
	tear_down();
}
END_TEST
#endif

/* The node of a format's file is the format's alone; one of a filter can be shared as the filter's users do. */
START_TEST(use_is_passed_down)
{
	struct block_node *raw, *node;
	int other;

	set_up(_i);
	make_image(8192);
	must_make("f", "%s", image);
	raw = must_make("r", "driver=raw,file=f,offset=4096");
	ck_assert_int_eq(block_use(vm, "f", &other, BLOCK_USE_WRITE, &node, &err), -EBUSY);
	ck_assert_int_eq(block_use_node(raw, vm, BLOCK_USE_WRITE, &err), 0);
	ck_assert_int_eq(block_use(vm, "f", &other, 0, &node, &err), -EBUSY);
	/* So is another program, or another node of the same file. */
	must_make("g", "%s", image);
	ck_assert_int_eq(block_use(vm, "g", &other, 0, &node, &err), -EBUSY);
	block_unuse(raw, vm);
	ck_assert_int_eq(block_use(vm, "g", &other, 0, &node, &err), 0);
	ck_assert_int_eq(block_use_node(raw, vm, BLOCK_USE_WRITE, &err), -EBUSY);
	block_unuse(node, &other);
	ck_assert_int_eq(block_use_node(raw, vm, BLOCK_USE_WRITE, &err), 0);
	tear_down();
}
END_TEST

/* --- opening by name --------------------------------------------------------------------------- */

static int open_image_as(const char *name, const char *format, const char *options,
			 struct block_node **node)
{
	struct keyvals kv = {0};
	int ret;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ret = block_open(vm, name, format, &kv, NULL, node, &err);
	for (size_t i = 0; i < kv.n && ret == 0; i++)
		ck_assert_msg(kv.v[i].used == !strstr(kv.v[i].key, "other"), "%s", kv.v[i].key);
	keyvals_free(&kv);
	return ret;
}

START_TEST(open_by_name)
{
	struct block_node *node;
	char name[1000];

	set_up(_i);
	make_image(8192);
	ck_assert_int_eq(open_image_as(image, "raw", "read-only=on,other=3,locking=off", &node), 0);
	ck_assert_str_eq(node->obj.class->name, "file"); /* nothing in between */
	ck_assert(node->read_only && !node->probed);
	ck_assert_int_eq(block_use_node(node, vm, 0, &err), 0);
	block_unuse(node, vm);
	ck_assert_int_eq(count_nodes(), 0);

	ck_assert_int_eq(
		open_image_as(image, "raw", "offset=512,aio=native,file.locking=off", &node), 0);
	ck_assert_str_eq(node->obj.class->name, "raw");
	ck_assert_uint_eq(node->length, 7680);
	object_destroy(&node->obj);
	ck_assert_int_eq(count_nodes(), 0);

	snprintf(name, sizeof(name), "file:%s", image);
	ck_assert_int_eq(open_image_as(name, NULL, "node-name=hello", &node), 0);
	ck_assert_ptr_eq(find("hello"), node);
	ck_assert(node->probed);

	ck_assert_int_eq(open_image_as("nbd://host/x", NULL, "", &node), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "no such protocol: nbd"));
	ck_assert_int_eq(open_image_as(NULL, NULL, "", &node), -EINVAL);
	ck_assert_int_eq(open_image_as(NULL, NULL, "file=zap", &node), -ENOENT);
	ck_assert_int_eq(open_image_as(NULL, NULL, "file=hello", &node), 0);
	ck_assert_str_eq(node->obj.class->name, "raw");
	ck_assert_int_eq(open_image_as("", "raw", "", &node), -EINVAL);
	ck_assert_int_eq(open_image_as(image_dir, NULL, "", &node), -EISDIR);
	tear_down();
}
END_TEST

START_TEST(foreign_formats_are_named)
{
	static const struct {
		const char *magic, *name;
		unsigned int offset;
	} formats[] = {
		{"KDMV", "VMDK", 0},	     {"vhdxfile", "VHDX", 0},
		{"conectix", "VHD", 0},	     {"\x7f\x10\xda\xbe", "VDI", 64},
		{"LUKS\xba\xbe", "LUKS", 0}, {"QED", "QED", 0},
	};
	struct block_node *node;

	set_up(_i);
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		make_image(8192);
		put(formats[i].offset, formats[i].magic, strlen(formats[i].magic) + !i);
		ck_assert_int_eq(open_image_as(image, NULL, "", &node), -ENOTSUP);
		ck_assert_msg(strstr(err.message, formats[i].name) && strstr(err.message, image) &&
				      strstr(err.message, "format=raw"),
			      "%s", err.message);
		ck_assert_int_eq(open_image_as(image, "raw", "", &node), 0);
		object_destroy(&node->obj);
		ck_assert_int_eq(count_nodes(), 0);
	}
	tear_down();
}
END_TEST

/* A guest whose raw image was only guessed to be raw must not make it anything else. */
START_TEST(guessed_raw_stays_raw)
{
	static uint8_t buf[2048] __attribute__((aligned(4096))), back[2048];
	struct iovec iov[] = {{buf, 3}, {buf + 3, 600}, {buf + 603, 2048 - 603}};
	struct block_node *node;

	set_up(_i);
	make_image(8192);
	for (int guess = 0; guess < 2; guess++) {
		ck_assert_int_eq(open_image_as(image, guess ? NULL : "raw", "", &node), 0);
		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = i * 7 + guess;
		ck_assert_int_eq(run_req(node, BLOCK_WRITE, 0, 0, sizeof(buf), iov, 3), 0);
		read_back(image, back, sizeof(back));
		ck_assert_mem_eq(buf, back, sizeof(buf));
		memcpy(buf, "LUKS\xba\xbe", 6);
		ck_assert_int_eq(run_req(node, BLOCK_WRITE, 0, 512, sizeof(buf), iov, 3), 0);
		ck_assert_int_eq(run_req(node, BLOCK_WRITE, 0, 0, sizeof(buf), iov, 3),
				 guess ? -EPERM : 0);
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 512), guess ? -EPERM : 0);
		read_back(image, back, sizeof(back));
		ck_assert_int_eq(!memcmp(back, buf, 6), !guess);
		object_destroy(&node->obj);
		memset(buf, 0, sizeof(buf));
		put(0, buf, sizeof(buf));
	}
	tear_down();
}
END_TEST

START_TEST(image_in_its_own_chain)
{
	struct block_node outer = {0}, *node;

	/* An overlay in the making, whose backing file is itself. */
	set_up(_i);
	make_image(8192);
	outer.file = must_make("f", "%s", image);
	vm->block_opening = &outer;
	ck_assert_int_eq(open_image_as(image, "raw", "", &node), -ELOOP);
	ck_assert_ptr_nonnull(strstr(err.message, "stands on itself"));
	vm->block_opening = NULL;
	tear_down();
}
END_TEST

START_TEST(paths)
{
	static const char *const t[][3] = {
		{"/a/b.img", "c", "/a/c"},	   {"b.img", "c", "c"},
		{"x/b.img", "../c", "x/../c"},	   {"x/b.img", "/c", "/c"},
		{"x/b.img", "json:{}", "json:{}"}, {"x/b", "./a:b", "x/./a:b"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		char *p = block_path_combine(t[i][0], t[i][1]);

		ck_assert_str_eq(p, t[i][2]);
		free(p);
	}
}
END_TEST

/* --- what formats need of a file --------------------------------------------------------------- */

/* The same once blocking and once in a coroutine. */
static struct block_node *format_file;

static int grow_and_look(void *arg)
{
	uint8_t *buf = arg, *back = buf + 8192;
	struct block_status st;

	/* An empty file grows, at any place. */
	for (int i = 0; i < 8192; i++)
		buf[i] = i * 13 + i / 256;
	ck_assert_int_eq(block_pwrite(format_file, 100, buf, 1000, 0), 0);
	ck_assert_uint_eq(format_file->length, 1536);
	ck_assert_int_eq(block_pwrite(format_file, 1 * MiB, buf, 4096, BLOCK_FUA), 0);
	ck_assert_uint_eq(format_file->length, 1 * MiB + 4096);
	ck_assert_int_eq(block_pread(format_file, 90, back, 1100), 0);
	ck_assert_mem_eq(back + 10, buf, 1000);
	ck_assert(mem_is_zero(back, 10) && mem_is_zero(back + 1010, 90));
	ck_assert_int_eq(block_pzero(format_file, 101, 7, 0), 0);
	memset(buf + 1, 0, 7);
	ck_assert_int_eq(block_pread(format_file, 100, back, 1000), 0);
	ck_assert_mem_eq(back, buf, 1000);
	ck_assert_int_eq(block_pread(format_file, 1 * MiB + 4000, back, 97), -EINVAL);
	/* Zeroes lengthen, too. */
	ck_assert_int_eq(block_pzero(format_file, 2 * MiB, 64 * KiB, 0), 0);
	ck_assert_uint_eq(format_file->length, 2 * MiB + 64 * KiB);
	ck_assert_int_eq(block_pzero(format_file, 3 * MiB, 64 * KiB, BLOCK_UNMAP), 0);
	ck_assert_uint_eq(format_file->length, 3 * MiB + 64 * KiB);
	ck_assert_int_eq(block_pread(format_file, 3 * MiB, back, 8192), 0);
	ck_assert(mem_is_zero(back, 8192));
	ck_assert_int_eq(block_flush(format_file), 0);
	/* Holes. */
	ck_assert_int_eq(block_status(format_file, 200, 10000, &st), 0);
	ck_assert_uint_eq(st.flags,
			  BLOCK_STATUS_DATA | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET);
	ck_assert_uint_eq(st.offset, 200);
	ck_assert_uint_ge(st.bytes, 900);
	ck_assert_int_eq(block_status(format_file, 512 * KiB, 512, &st), 0);
	ck_assert_uint_eq(st.flags,
			  BLOCK_STATUS_ZERO | BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET);
	ck_assert_uint_eq(st.bytes, 512 * KiB);
	/* Size. */
	ck_assert_int_eq(block_resize(format_file, 1000, BLOCK_PREALLOC_OFF, &err), 0);
	ck_assert_uint_eq(format_file->length, 1024);
	ck_assert_int_eq(block_resize(format_file, 256 * KiB, BLOCK_PREALLOC_FULL, &err), 0);
	ck_assert_int_eq(block_status(format_file, 1024, 512, &st), 0);
	ck_assert_uint_eq(st.bytes, 255 * KiB);
	ck_assert(st.flags & BLOCK_STATUS_DATA);
	ck_assert_int_eq(block_resize(format_file, 512 * KiB, BLOCK_PREALLOC_METADATA, &err),
			 -EOPNOTSUPP);
	ck_assert_int_eq(block_resize(format_file, UINT64_MAX, BLOCK_PREALLOC_OFF, &err), -EFBIG);
	ck_assert_int_eq(block_resize(format_file, 0, BLOCK_PREALLOC_OFF, &err), 0);
	return 0;
}

START_TEST(a_file_for_a_format)
{
	uint8_t *buf = aligned_alloc(4096, 16384);
	struct stat st;

	set_up(_i);
	make_image(0);
	format_file = open_image(_i, ",discard=unmap");
	ck_assert_uint_eq(format_file->length, 0);
	/* Only who says so may lengthen it. */
	ck_assert_int_eq(block_use_node(format_file, vm, BLOCK_USE_WRITE, &err), 0);
	ck_assert_int_eq(block_pwrite(format_file, 0, buf, 512, 0), -EINVAL);
	ck_assert_int_eq(run_buf(format_file, BLOCK_WRITE, 0, buf, 512), -EINVAL);
	ck_assert_int_eq(block_use_node(format_file, vm, BLOCK_USE_WRITE | BLOCK_USE_RESIZE, &err),
			 0);
	ck_assert_int_eq(grow_and_look(buf), 0);
	ck_assert_int_eq(stat(image, &st), 0);
	ck_assert_int_eq(st.st_size, 0);
	ck_assert_int_eq(co_run(loop, grow_and_look, buf), 0);
	ck_assert_int_eq(
		run_req(format_file, BLOCK_WRITE_ZEROES, 0, INT64_MAX - 511, 1024, NULL, 0),
		-EINVAL);
	block_unuse(format_file, vm);
	close_image(format_file);
	free(buf);
	tear_down();
}
END_TEST

START_TEST(reopen_for_writing)
{
	static uint8_t buf[4096] __attribute__((aligned(4096)));
	struct block_node *node;

	set_up(_i);
	make_image(8192);
	node = open_image(_i, ",read-only=on");
	ck_assert_int_eq(block_use_node(node, vm, 0, &err), 0);
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 4096), -EROFS);
	ck_assert_int_eq(block_use_node(node, vm, BLOCK_USE_WRITE, &err), -EROFS);
	ck_assert_int_eq(block_reopen(node, false, &err), 0);
	ck_assert_int_eq(block_use_node(node, vm, BLOCK_USE_WRITE, &err), 0);
	memset(buf, 7, sizeof(buf));
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 4096), 0);
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 1, buf, 512), 0);
	ck_assert_int_eq(block_reopen(node, true, &err), -EBUSY);
	ck_assert_int_eq(block_use_node(node, vm, 0, &err), 0);
	ck_assert_int_eq(block_reopen(node, true, &err), 0);
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 4096), -EROFS);
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 0, buf, 4096), 0);
	ck_assert_int_eq(buf[0], 7);
	block_unuse(node, vm);
	close_image(node);
	tear_down();
}
END_TEST

/* --- requests through nodes -------------------------------------------------------------------- */

START_TEST(parts_of_a_disk)
{
	static uint8_t buf[4096], back[16384];
	struct block_node *node;
	char id[16], lower[16];

	set_up(_i);
	make_image(16384);
	/* More of them on each other than a request has room for. */
	must_make("n0", "%s", image);
	for (int i = 1; i <= 12; i++) {
		snprintf(id, sizeof(id), "n%d", i);
		snprintf(lower, sizeof(lower), "n%d", i - 1);
		node = must_make(id, "driver=raw,file=%s,offset=512%s", lower,
				 i == 12 ? ",size=4096" : "");
	}
	ck_assert_int_eq(block_attach(node, loop, &err), 0);
	memset(buf, 0x55, sizeof(buf));
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 4096), 0);
	read_back(image, back, sizeof(back));
	ck_assert_mem_eq(back + 12 * 512, buf, 4096);
	ck_assert(mem_is_zero(back, 12 * 512) &&
		  mem_is_zero(back + 12 * 512 + 4096, 16384 - 4096 - 12 * 512));
	ck_assert_int_eq(run_buf(node, BLOCK_READ, 512, back, 1024), 0);
	ck_assert_mem_eq(back, buf, 1024);
	ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 4096, buf, 512), -EINVAL);
	ck_assert_int_eq(run_req(node, BLOCK_WRITE_ZEROES, 0, 0, 8192, NULL, 0), -EINVAL);
	ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
	ck_assert_int_eq(block_pread(node, 0, back, 4096),
			 0); /* raw has no blocking call of its own */
	ck_assert_mem_eq(back, buf, 4096);
	block_detach(node, loop);
	tear_down();
}
END_TEST

START_TEST(zeroes_are_detected)
{
	static const char *const modes[] = {"off", "on", "unmap"};
	uint8_t *buf = aligned_alloc(4096, 65536);
	struct block_node *node;
	char options[64];
	struct stat st;

	set_up(_i);
	for (int i = 0; i < 3; i++) {
		make_image(128 * KiB);
		snprintf(options, sizeof(options), ",discard=unmap,detect-zeroes=%s", modes[i]);
		node = open_image(_i, options);
		memset(buf, 1, 65536);
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 65536), 0);
		memset(buf, 0, 65536);
		buf[65535] = 1;
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 65536), 0);
		ck_assert_int_eq(run_req(node, BLOCK_FLUSH, 0, 0, 0, NULL, 0), 0);
		ck_assert_int_eq(stat(image, &st), 0);
		ck_assert_int_eq(st.st_blocks, 128);
		buf[65535] = 0;
		ck_assert_int_eq(run_buf(node, BLOCK_WRITE, 0, buf, 65536), 0);
		memset(buf, 2, 65536);
		ck_assert_int_eq(run_buf(node, BLOCK_READ, 0, buf, 65536), 0);
		ck_assert(mem_is_zero(buf, 65536));
		ck_assert_int_eq(stat(image, &st), 0);
		ck_assert_int_eq(st.st_blocks, i == 2 ? 0 : 128);
		close_image(node);
	}
	free(buf);
	tear_down();
}
END_TEST

int main(void)
{
	const TTest *const all[] = {a_file_for_a_format, zeroes_are_detected, reopen_for_writing};
	const TTest *const engines_only[] = {
#ifdef WITH_JSON
		json,
#endif
		nested_options,
		references,
		use_is_passed_down,
		open_by_name,
		foreign_formats_are_named,
		guessed_raw_stays_raw,
		image_in_its_own_chain,
		paths,
		parts_of_a_disk,
	};
	TCase *tc = tcase_create("engines, page cache, O_DIRECT");

	tcase_set_timeout(tc, 60);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		tcase_add_loop_test(tc, all[i], 0, 4);
	return run_tests("block graph", engines_only, ARRAY_SIZE(engines_only), tc);
}
