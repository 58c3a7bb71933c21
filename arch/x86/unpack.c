/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Unpacking of kernels, in one go and straight to where they are wanted. The libraries are loaded
 * when a kernel needs one. Bytes behind the packed data are ignored: Linux's build appends the
 * unpacked size.
 */
#include "boot.h"
#include "vmm/dl.h"

#ifdef WITH_ZLIB
#include <zlib.h>
#endif
#ifdef WITH_ZSTD
#include <zstd.h>
#endif
#ifdef WITH_LZ4
#include <lz4.h>
#include <lz4frame.h>
#include <sched.h>
#include <stdlib.h>
#endif
#ifdef WITH_LZMA
#include <lzma.h>
#endif

#define LZ4_LEGACY_MAGIC 0x184c2102u
#define LZ4_FRAME_MAGIC	 0x184d2204u
#define LZ4_LEGACY_BLOCK (8u << 20) /* unpacked size of every block but the last */
#define LZ4_THREADS	 4
#define LZ4_STACK	 (128 * KiB)
#define ZSTD_MAGIC	 0xfd2fb528u
#define LZMA_MEMORY	 (192u << 20) /* Linux packs with a dictionary of up to 128 MiB */

/* Without any of the libraries there is nobody to call the helpers. */
#define UNUSED __attribute__((unused))

#define PURPOSE "a kernel that is compressed with "

struct job {
	const uint8_t *in;
	size_t in_len;
	uint8_t *out;
	size_t out_len;
	size_t got;
};

enum unpack_format unpack_detect(const void *data, size_t len)
{
	const uint8_t *p = data;

	if (len >= 4 && !memcmp(p,
				"\x7f"
				"ELF",
				4))
		return UNPACK_NONE;
	if (len >= 3 && !memcmp(p, "\x1f\x8b\x08", 3))
		return UNPACK_GZIP;
	if (len >= 6 && !memcmp(p,
				"\xfd"
				"7zXZ",
				6))
		return UNPACK_XZ;
	if (len >= 4 && (get_le32(p) == LZ4_LEGACY_MAGIC || get_le32(p) == LZ4_FRAME_MAGIC))
		return UNPACK_LZ4;
	if (len >= 4 && get_le32(p) == ZSTD_MAGIC)
		return UNPACK_ZSTD;
	return UNPACK_UNKNOWN;
}

static UNUSED int too_long(const struct job *job, struct hako_error *err)
{
	return error_set(err, -EBADMSG, "unpacks to more than the %zu bytes there is room for",
			 job->out_len);
}

static UNUSED int damaged(const char *format, struct hako_error *err)
{
	return error_set(err, -EBADMSG, "its %s data is damaged or truncated", format);
}

#if !defined(WITH_ZLIB) || !defined(WITH_ZSTD) || !defined(WITH_LZ4) || !defined(WITH_LZMA)
static int left_out(const char *dependency, const char *format, struct hako_error *err)
{
	return error_set(err, -EOPNOTSUPP, "hako was built without %s, which " PURPOSE "%s needs",
			 dependency, format);
}
#endif

static UNUSED int load(const char *soname, const struct dl_symbol *symbols, void *table,
		       const char *purpose, struct hako_error *err)
{
	int ret = dl_load(soname, symbols, table, purpose, err);

	if (ret == -ENOENT && err)
		err->code = -EOPNOTSUPP;
	return ret == -ENOENT ? -EOPNOTSUPP : ret;
}

#ifdef WITH_ZLIB
struct zlib {
	__typeof__(inflateInit2_) *inflateInit2_;
	__typeof__(inflate) *inflate;
	__typeof__(inflateEnd) *inflateEnd;
};

static const struct dl_symbol zlib_symbols[] = {
	DL_SYMBOL(struct zlib, inflateInit2_),
	DL_SYMBOL(struct zlib, inflate),
	DL_SYMBOL(struct zlib, inflateEnd),
	{NULL},
};

static int unpack_gzip(struct job *job, struct hako_error *err)
{
	z_stream z = {.next_in = (Bytef *)job->in, .next_out = job->out};
	size_t in_left = job->in_len, out_left = job->out_len;
	struct zlib zlib;
	int ret = load("libz.so.1", zlib_symbols, &zlib, PURPOSE "gzip", err);

	if (ret)
		return ret;
	/* 15 + 16: the largest window, a gzip header. */
	if (zlib.inflateInit2_(&z, 15 + 16, ZLIB_VERSION, sizeof(z)) != Z_OK)
		return error_set(err, -ENOMEM, "out of memory");
	do {
		/* zlib counts in 32 bits. */
		uInt in = MIN(in_left, 1u << 30), out = MIN(out_left, 1u << 30);

		z.avail_in = in;
		z.avail_out = out;
		ret = zlib.inflate(&z, in == in_left && out == out_left ? Z_FINISH : Z_NO_FLUSH);
		in_left -= in - z.avail_in;
		out_left -= out - z.avail_out;
	} while (ret == Z_OK && in_left && out_left);
	zlib.inflateEnd(&z);
	job->got = job->out_len - out_left;
	if (ret == Z_STREAM_END)
		return 0;
	return !out_left && ret != Z_DATA_ERROR ? too_long(job, err) : damaged("gzip", err);
}
#else
static int unpack_gzip(struct job *job, struct hako_error *err)
{
	return left_out("zlib", "gzip", err);
}
#endif

#ifdef WITH_LZMA
struct xz {
	__typeof__(lzma_stream_decoder) *lzma_stream_decoder;
	__typeof__(lzma_code) *lzma_code;
	__typeof__(lzma_end) *lzma_end;
};

static const struct dl_symbol xz_symbols[] = {
	DL_SYMBOL(struct xz, lzma_stream_decoder),
	DL_SYMBOL(struct xz, lzma_code),
	DL_SYMBOL(struct xz, lzma_end),
	{NULL},
};

static int unpack_xz(struct job *job, struct hako_error *err)
{
	lzma_stream s = LZMA_STREAM_INIT;
	struct xz xz;
	int ret = load("liblzma.so.5", xz_symbols, &xz, PURPOSE "xz", err);

	if (ret)
		return ret;
	if (xz.lzma_stream_decoder(&s, LZMA_MEMORY, 0) != LZMA_OK)
		return error_set(err, -ENOMEM, "out of memory");
	s.next_in = job->in;
	s.avail_in = job->in_len;
	s.next_out = job->out;
	s.avail_out = job->out_len;
	ret = xz.lzma_code(&s, LZMA_FINISH);
	xz.lzma_end(&s);
	job->got = job->out_len - s.avail_out;
	switch (ret) {
	case LZMA_STREAM_END:
		return 0;
	case LZMA_OK:
	case LZMA_BUF_ERROR:
		return s.avail_in ? too_long(job, err) : damaged("xz", err);
	case LZMA_MEM_ERROR:
		return error_set(err, -ENOMEM, "out of memory");
	case LZMA_MEMLIMIT_ERROR:
		return error_set(err, -EBADMSG, "its xz data wants more than %u MiB to be unpacked",
				 LZMA_MEMORY >> 20);
	default:
		return damaged("xz", err);
	}
}
#else
static int unpack_xz(struct job *job, struct hako_error *err)
{
	return left_out("lzma", "xz", err);
}
#endif

#ifdef WITH_LZ4
struct lz4 {
	__typeof__(LZ4_decompress_safe) *LZ4_decompress_safe;
	__typeof__(LZ4F_createDecompressionContext) *LZ4F_createDecompressionContext;
	__typeof__(LZ4F_freeDecompressionContext) *LZ4F_freeDecompressionContext;
	__typeof__(LZ4F_decompress) *LZ4F_decompress;
	__typeof__(LZ4F_isError) *LZ4F_isError;
};

static const struct dl_symbol lz4_symbols[] = {
	DL_SYMBOL(struct lz4, LZ4_decompress_safe),
	DL_SYMBOL(struct lz4, LZ4F_createDecompressionContext),
	DL_SYMBOL(struct lz4, LZ4F_freeDecompressionContext),
	DL_SYMBOL(struct lz4, LZ4F_decompress),
	DL_SYMBOL(struct lz4, LZ4F_isError),
	{NULL},
};

/*
 * The legacy form: a magic number, then blocks, each with its packed size in front; the end of the
 * file is the end. All blocks but the last unpack to the same size, hence each can be unpacked on its
 * own, by as many threads as there are CPUs.
 */
struct lz4_blocks {
	const struct lz4 *lz4;
	const struct job *job;
	size_t n, room; /* blocks there are, and may be in the array */
	struct lz4_block {
		size_t pos;
		uint32_t size;
		int got; /* bytes, or negative */
	} * block;
	size_t next; /* atomic: not yet taken by a thread */
};

static size_t lz4_room(const struct job *job, size_t i)
{
	return MIN(job->out_len - i * LZ4_LEGACY_BLOCK, LZ4_LEGACY_BLOCK);
}

static void *lz4_worker(void *arg)
{
	struct lz4_blocks *b = arg;
	const struct job *job = b->job;
	size_t i;

	while ((i = __atomic_fetch_add(&b->next, 1, __ATOMIC_RELAXED)) < b->n) {
		struct lz4_block *block = &b->block[i];

		block->got = b->lz4->LZ4_decompress_safe((const char *)job->in + block->pos,
							 (char *)job->out + i * LZ4_LEGACY_BLOCK,
							 block->size, lz4_room(job, i));
	}
	return NULL;
}

/* Find the blocks: count them, and note where they are once b->block is there. */
static int lz4_scan(struct lz4_blocks *b, struct hako_error *err)
{
	const struct job *job = b->job;
	size_t pos = 4;

	/* What is left of 4 bytes or less is the unpacked size that Linux's build appends. */
	for (b->n = 0; job->in_len - pos > 4; b->n++) {
		uint32_t size = get_le32(job->in + pos);

		pos += 4;
		if (!size || size > job->in_len - pos || size > INT32_MAX)
			return damaged("lz4", err);
		if (b->n * LZ4_LEGACY_BLOCK >= job->out_len)
			return too_long(job, err);
		/* The file may have changed since the blocks were counted. */
		if (b->block && b->n == b->room)
			return damaged("lz4", err);
		if (b->block)
			b->block[b->n] = (struct lz4_block){.pos = pos, .size = size};
		pos += size;
	}
	return b->n && (pos == job->in_len || job->in_len - pos == 4) ? 0 : damaged("lz4", err);
}

static void lz4_run(struct lz4_blocks *b)
{
	size_t want = MIN(b->n, LZ4_THREADS) - 1, n = 0;
	cpu_set_t cpus;
	pthread_t thread[LZ4_THREADS];

	if (!sched_getaffinity(0, sizeof(cpus), &cpus))
		want = MIN(want, (size_t)CPU_COUNT(&cpus) - 1);
	while (n < want && !thread_create(&thread[n], LZ4_STACK, lz4_worker, b))
		n++;
	lz4_worker(b);
	while (n)
		pthread_join(thread[--n], NULL);
}

static int lz4_result(const struct lz4_blocks *b, struct job *job, struct hako_error *err)
{
	for (size_t i = 0; i < b->n; i++) {
		int got = b->block[i].got;

		if (got < 0 && lz4_room(job, i) < LZ4_LEGACY_BLOCK)
			return too_long(job, err);
		if (got < 0 || (i + 1 < b->n && got != LZ4_LEGACY_BLOCK))
			return damaged("lz4", err);
		job->got += got;
	}
	return 0;
}

static int unpack_lz4_legacy(const struct lz4 *lz4, struct job *job, struct hako_error *err)
{
	struct lz4_blocks b = {.lz4 = lz4, .job = job};
	int ret = lz4_scan(&b, err);

	if (ret)
		return ret;
	b.room = b.n;
	b.block = calloc(b.room, sizeof(*b.block));
	if (!b.block)
		return error_set(err, -ENOMEM, "out of memory");
	ret = lz4_scan(&b, err);
	if (!ret) {
		lz4_run(&b);
		ret = lz4_result(&b, job, err);
	}
	free(b.block);
	return ret;
}

static int unpack_lz4_frame(const struct lz4 *lz4, struct job *job, struct hako_error *err)
{
	const LZ4F_decompressOptions_t options = {.stableDst = 1};
	LZ4F_dctx *ctx = NULL;
	size_t pos = 0, more, in, out;

	if (lz4->LZ4F_isError(lz4->LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
		return error_set(err, -ENOMEM, "out of memory");
	do {
		in = job->in_len - pos;
		out = job->out_len - job->got;
		more = lz4->LZ4F_decompress(ctx, job->out + job->got, &out, job->in + pos, &in,
					    &options);
		pos += in;
		job->got += out;
	} while (!lz4->LZ4F_isError(more) && more && (in || out));
	lz4->LZ4F_freeDecompressionContext(ctx);
	if (!more)
		return 0;
	return job->got == job->out_len ? too_long(job, err) : damaged("lz4", err);
}

static int unpack_lz4(struct job *job, struct hako_error *err)
{
	struct lz4 lz4;
	int ret = load("liblz4.so.1", lz4_symbols, &lz4, PURPOSE "lz4", err);

	if (ret)
		return ret;
	if (get_le32(job->in) == LZ4_FRAME_MAGIC)
		return unpack_lz4_frame(&lz4, job, err);
	return unpack_lz4_legacy(&lz4, job, err);
}
#else
static int unpack_lz4(struct job *job, struct hako_error *err)
{
	return left_out("lz4", "lz4", err);
}
#endif

#ifdef WITH_ZSTD
struct zstd {
	__typeof__(ZSTD_findFrameCompressedSize) *ZSTD_findFrameCompressedSize;
	__typeof__(ZSTD_decompress) *ZSTD_decompress;
	__typeof__(ZSTD_isError) *ZSTD_isError;
	__typeof__(ZSTD_getErrorName) *ZSTD_getErrorName;
};

static const struct dl_symbol zstd_symbols[] = {
	DL_SYMBOL(struct zstd, ZSTD_findFrameCompressedSize),
	DL_SYMBOL(struct zstd, ZSTD_decompress),
	DL_SYMBOL(struct zstd, ZSTD_isError),
	DL_SYMBOL(struct zstd, ZSTD_getErrorName),
	{NULL},
};

static int unpack_zstd(struct job *job, struct hako_error *err)
{
	struct zstd zstd;
	size_t size;
	int ret = load("libzstd.so.1", zstd_symbols, &zstd, PURPOSE "zstd", err);

	if (ret)
		return ret;
	size = zstd.ZSTD_findFrameCompressedSize(job->in, job->in_len);
	if (zstd.ZSTD_isError(size))
		return damaged("zstd", err);
	/* In one piece it needs no window besides the output. */
	job->got = zstd.ZSTD_decompress(job->out, job->out_len, job->in, size);
	if (!zstd.ZSTD_isError(job->got))
		return 0;
	if (strstr(zstd.ZSTD_getErrorName(job->got), "too small"))
		return too_long(job, err);
	return damaged("zstd", err);
}
#else
static int unpack_zstd(struct job *job, struct hako_error *err)
{
	return left_out("zstd", "zstd", err);
}
#endif

int unpack(enum unpack_format format, const void *in, size_t in_len, void *out, size_t out_len,
	   size_t *got, struct hako_error *err)
{
	struct job job = {.in = in, .in_len = in_len, .out = out, .out_len = out_len};
	int ret;

	*got = 0;
	if (unpack_detect(in, in_len) != format)
		return error_set(err, -EBADMSG, "does not begin as packed data of its format does");
	switch (format) {
	case UNPACK_GZIP:
		ret = unpack_gzip(&job, err);
		break;
	case UNPACK_XZ:
		ret = unpack_xz(&job, err);
		break;
	case UNPACK_LZ4:
		ret = unpack_lz4(&job, err);
		break;
	case UNPACK_ZSTD:
		ret = unpack_zstd(&job, err);
		break;
	default:
		return error_set(err, -EOPNOTSUPP, "is not compressed in a way that hako unpacks");
	}
	if (!ret)
		*got = job.got;
	return ret;
}
