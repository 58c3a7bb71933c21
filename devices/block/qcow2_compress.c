/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: compressed clusters. The libraries are loaded with the first of them. */
#include <stdlib.h>
#ifdef WITH_ZLIB
#include <zlib.h>
#endif
#ifdef WITH_ZSTD
#include <zstd.h>
#endif

#include "qcow2.h"
#include "vmm/dl.h"
#include "vmm/vm.h"

#define UNPACKED     4	 /* clusters that are kept, for those who read bit by bit */
#define WINDOW_BITS  -12 /* raw deflate; what others write and expect */
#define MEMORY_LEVEL 9

struct qcow2_codec {
#ifdef WITH_ZLIB
	__typeof__(deflateInit2_) *deflateInit2_;
	__typeof__(deflate) *deflate;
	__typeof__(deflateEnd) *deflateEnd;
	__typeof__(inflateInit2_) *inflateInit2_;
	__typeof__(inflate) *inflate;
	__typeof__(inflateEnd) *inflateEnd;
#endif
#ifdef WITH_ZSTD
	__typeof__(ZSTD_compress) *ZSTD_compress;
	__typeof__(ZSTD_findFrameCompressedSize) *ZSTD_findFrameCompressedSize;
	__typeof__(ZSTD_decompress) *ZSTD_decompress;
	__typeof__(ZSTD_isError) *ZSTD_isError;
#endif
};

/* --- the libraries ----------------------------------------------------------------------------- */

#ifdef WITH_ZLIB
static const struct dl_symbol zlib_symbols[] = {
	DL_SYMBOL(struct qcow2_codec, deflateInit2_),
	DL_SYMBOL(struct qcow2_codec, deflate),
	DL_SYMBOL(struct qcow2_codec, deflateEnd),
	DL_SYMBOL(struct qcow2_codec, inflateInit2_),
	DL_SYMBOL(struct qcow2_codec, inflate),
	DL_SYMBOL(struct qcow2_codec, inflateEnd),
	{NULL},
};

static int load_zlib(struct qcow2_codec *c, struct hako_error *err)
{
	return dl_load("libz.so.1", zlib_symbols, c, "qcow2 clusters compressed with zlib", err);
}

static int64_t pack_zlib(const struct qcow2_codec *c, const void *in, void *out, uint64_t size)
{
	z_stream z = {
		.next_in = (void *)in,
		.avail_in = size,
		.next_out = out,
		.avail_out = size - 1,
	};
	int ret;

	if (c->deflateInit2_(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, WINDOW_BITS, MEMORY_LEVEL,
			     Z_DEFAULT_STRATEGY, ZLIB_VERSION, sizeof(z)) != Z_OK)
		return -ENOMEM;
	ret = c->deflate(&z, Z_FINISH);
	c->deflateEnd(&z);
	return ret == Z_STREAM_END ? (int64_t)(size - 1 - z.avail_out) : -E2BIG;
}

static int unpack_zlib(const struct qcow2_codec *c, const void *in, uint64_t bytes, void *out,
		       uint64_t size)
{
	z_stream z = {
		.next_in = (void *)in,
		.avail_in = bytes,
		.next_out = out,
		.avail_out = size,
	};
	int ret;

	if (c->inflateInit2_(&z, WINDOW_BITS, ZLIB_VERSION, sizeof(z)) != Z_OK)
		return -ENOMEM;
	ret = c->inflate(&z, Z_FINISH);
	c->inflateEnd(&z);
	/* Some writers do not end their streams; that all of the cluster came out is what counts. */
	return (ret == Z_STREAM_END || ret == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}
#else
static int load_zlib(struct qcow2_codec *c, struct hako_error *err)
{
	return error_set(err, -ENOTSUP, "this hako was built without zlib");
}

static int64_t pack_zlib(const struct qcow2_codec *c, const void *in, void *out, uint64_t size)
{
	return -ENOTSUP;
}

static int unpack_zlib(const struct qcow2_codec *c, const void *in, uint64_t bytes, void *out,
		       uint64_t size)
{
	return -ENOTSUP;
}
#endif

#ifdef WITH_ZSTD
#define ZSTD_LEVEL 3 /* the library's default */

static const struct dl_symbol zstd_symbols[] = {
	DL_SYMBOL(struct qcow2_codec, ZSTD_compress),
	DL_SYMBOL(struct qcow2_codec, ZSTD_findFrameCompressedSize),
	DL_SYMBOL(struct qcow2_codec, ZSTD_decompress),
	DL_SYMBOL(struct qcow2_codec, ZSTD_isError),
	{NULL},
};

static int load_zstd(struct qcow2_codec *c, struct hako_error *err)
{
	return dl_load("libzstd.so.1", zstd_symbols, c, "qcow2 clusters compressed with zstd", err);
}

static int64_t pack_zstd(const struct qcow2_codec *c, const void *in, void *out, uint64_t size)
{
	size_t n = c->ZSTD_compress(out, size - 1, in, size, ZSTD_LEVEL);

	return c->ZSTD_isError(n) ? -E2BIG : (int64_t)n;
}

static int unpack_zstd(const struct qcow2_codec *c, const void *in, uint64_t bytes, void *out,
		       uint64_t size)
{
	uint64_t done = 0;

	/* One frame or several; behind them is what happens to be in the last sector. */
	while (done < size) {
		size_t frame = c->ZSTD_findFrameCompressedSize(in, bytes), n;

		if (c->ZSTD_isError(frame) || !frame)
			return -EIO;
		n = c->ZSTD_decompress((char *)out + done, size - done, in, frame);
		if (c->ZSTD_isError(n) || !n)
			return -EIO;
		done += n;
		in = (const char *)in + frame;
		bytes -= frame;
	}
	return 0;
}
#else
static int load_zstd(struct qcow2_codec *c, struct hako_error *err)
{
	return error_set(err, -ENOTSUP, "this hako was built without zstd");
}

static int64_t pack_zstd(const struct qcow2_codec *c, const void *in, void *out, uint64_t size)
{
	return -ENOTSUP;
}

static int unpack_zstd(const struct qcow2_codec *c, const void *in, uint64_t bytes, void *out,
		       uint64_t size)
{
	return -ENOTSUP;
}
#endif

/* The codec; NULL: it can not be had, and the log says why. Any thread. */
static const struct qcow2_codec *get_codec(struct qcow2 *q)
{
	struct qcow2_codec *c = __atomic_load_n(&q->codec, __ATOMIC_ACQUIRE), *other = NULL;
	struct hako_error err;
	int ret;

	if (c)
		return c;
	c = calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	ret = q->compression == QCOW2_COMPRESSION_ZSTD ? load_zstd(c, &err) : load_zlib(c, &err);
	if (ret < 0) {
		vm_log(q->node.obj.vm, "%s: %s", q->node.obj.id ?: "qcow2", err.message);
		free(c);
		return NULL;
	}
	if (!__atomic_compare_exchange_n(&q->codec, &other, c, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE)) {
		free(c);
		c = other;
	}
	return c;
}

/* Without it compressed clusters can not be read, as without confinement. */
int qcow2_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	(void)get_codec(container_of(obj, struct qcow2, node.obj));
	return 0;
}

int64_t qcow2_pack(struct qcow2 *q, const void *in, void *out)
{
	const struct qcow2_codec *c = get_codec(q);

	if (!c)
		return -ENOTSUP;
	return q->compression == QCOW2_COMPRESSION_ZSTD ? pack_zstd(c, in, out, q->cluster_size)
							: pack_zlib(c, in, out, q->cluster_size);
}

int qcow2_unpack(struct qcow2 *q, const void *in, uint64_t bytes, void *out)
{
	const struct qcow2_codec *c = get_codec(q);

	if (!c)
		return -ENOTSUP;
	return q->compression == QCOW2_COMPRESSION_ZSTD
		       ? unpack_zstd(c, in, bytes, out, q->cluster_size)
		       : unpack_zlib(c, in, bytes, out, q->cluster_size);
}

/* --- reading ----------------------------------------------------------------------------------- */

/* Clusters as they were before they were compressed. */
struct qcow2_unpacked {
	unsigned int next; /* to be replaced */
	struct {
		uint64_t entry; /* 0: free */
		uint8_t *data;
	} clusters[UNPACKED];
};

void qcow2_unpacked_drop(struct qcow2 *q)
{
	if (!q->unpacked)
		return;
	for (int i = 0; i < UNPACKED; i++)
		free(q->unpacked->clusters[i].data);
	free(q->unpacked);
	q->unpacked = NULL;
}

void qcow2_codec_free(struct qcow2 *q)
{
	qcow2_unpacked_drop(q);
	free(q->codec);
	q->codec = NULL;
}

void qcow2_packed_place(const struct qcow2 *q, uint64_t entry, uint64_t *offset, uint64_t *bytes)
{
	unsigned int x = 62 - (q->cluster_bits - 8);
	uint64_t sectors = ((entry & ~(QCOW2_COMPRESSED | QCOW2_COPIED)) >> x) + 1;

	*offset = entry & (BIT64(x) - 1);
	*bytes = sectors * QCOW2_SECTOR_BYTES - (*offset & (QCOW2_SECTOR_BYTES - 1));
}

static void copy_out(const uint8_t *data, uint64_t bytes, const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov && bytes; i++) {
		uint64_t n = MIN(bytes, (uint64_t)iov[i].iov_len);

		memcpy(iov[i].iov_base, data, n);
		data += n;
		bytes -= n;
	}
}

static const uint8_t *find_unpacked(const struct qcow2 *q, uint64_t entry)
{
	for (int i = 0; q->unpacked && i < UNPACKED; i++)
		if (q->unpacked->clusters[i].entry == entry)
			return q->unpacked->clusters[i].data;
	return NULL;
}

/* Keep it, if there is memory; else it is freed. */
static void keep_unpacked(struct qcow2 *q, uint64_t entry, uint8_t *data)
{
	unsigned int i;

	if (!q->unpacked)
		q->unpacked = calloc(1, sizeof(*q->unpacked));
	if (!q->unpacked || find_unpacked(q, entry)) {
		free(data);
		return;
	}
	i = q->unpacked->next++ % UNPACKED;
	free(q->unpacked->clusters[i].data);
	q->unpacked->clusters[i].entry = entry;
	q->unpacked->clusters[i].data = data;
}

/* The compressed data as it is in the file. */
static int read_raw(struct qcow2 *q, uint64_t entry, uint8_t **out, uint64_t *bytes)
{
	uint64_t offset, length = READ_ONCE(q->node.file->length);
	int ret;

	qcow2_packed_place(q, entry, &offset, bytes);
	if (offset >= length)
		return qcow2_corrupt(
			q,
			"L2 entry 0x%llx: compressed data at offset %llu, beyond the end of the file",
			(unsigned long long)entry, (unsigned long long)offset);
	block_event(q->node.file, BLOCK_EVENT_READ_COMPRESSED);
	*out = malloc(*bytes);
	if (!*out)
		return -ENOMEM;
	ret = qcow2_read_meta(q, offset, *out, *bytes);
	if (ret < 0)
		free(*out);
	return ret;
}

int qcow2_read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, uint64_t bytes,
		      const struct iovec *iov, int niov)
{
	const uint8_t *kept = find_unpacked(q, entry);
	unsigned int phase;
	uint8_t *raw = NULL, *data;
	uint64_t size = 0;
	int ret;

	if (kept) {
		copy_out(kept + skip, bytes, iov, niov);
		return 0;
	}
	data = malloc(q->cluster_size);
	if (!data)
		return -ENOMEM;
	phase = qcow2_enter(q);
	ret = read_raw(q, entry, &raw, &size);
	if (ret == 0) {
		ret = qcow2_unpack(q, raw, size, data);
		free(raw);
		if (ret == -EIO)
			vm_log(q->node.obj.vm, "%s: damaged compressed cluster: L2 entry 0x%llx",
			       q->node.obj.id ?: "qcow2", (unsigned long long)entry);
	}
	if (ret == 0) {
		copy_out(data + skip, bytes, iov, niov);
		keep_unpacked(q, entry, data);
	} else {
		free(data);
	}
	qcow2_leave(q, phase);
	return ret;
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Room for it, and the L2 entry that says where. */
static int alloc_packed(struct qcow2 *q, uint64_t bytes, uint64_t *offset, uint64_t *entry)
{
	unsigned int x = 62 - (q->cluster_bits - 8);
	uint64_t sectors;
	int ret = qcow2_alloc_compressed(q, bytes, offset);

	if (ret < 0)
		return ret;
	sectors = (*offset + bytes - 1) / QCOW2_SECTOR_BYTES - *offset / QCOW2_SECTOR_BYTES;
	*entry = QCOW2_COMPRESSED | sectors << x | *offset;
	if (*offset + bytes > MIN(BIT64(x), QCOW2_MAX_OFFSET)) {
		qcow2_unref_entry(q, *entry, true);
		return -EFBIG;
	}
	return 0;
}

int qcow2_write_packed(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes)
{
	struct qcow2_inflight inflight;
	struct qcow2_table *t = NULL;
	uint64_t place = 0, entry = 0, old;
	unsigned int i = qcow2_l2_index(q, offset);
	int ret;

	if (qcow2_has_data_file(q) || offset & (q->cluster_size - 1) || !bytes ||
	    bytes >= q->cluster_size)
		return -EINVAL;
	if (q->dirty)
		q->dirty(q, offset, q->cluster_size);
	co_lock(&q->lock);
	qcow2_wait_inflight(q, offset, offset + q->cluster_size);
	ret = q->corrupt ? -EIO : qcow2_l2_get_writable(q, offset, &t);
	if (ret == 0) {
		ret = alloc_packed(q, bytes, &place, &entry);
		if (ret < 0)
			qcow2_table_put(t);
	}
	if (ret < 0) {
		co_unlock(&q->lock);
		return ret;
	}
	qcow2_inflight_begin(q, &inflight, offset, offset + q->cluster_size);
	co_unlock(&q->lock);
	block_event(q->node.file, BLOCK_EVENT_WRITE_COMPRESSED);
	ret = block_pwrite(q->node.file, place, data, bytes, 0);
	co_lock(&q->lock);
	old = qcow2_l2_entry(q, t, i);
	if (ret == 0)
		qcow2_l2_set(q, t, i, entry, 0);
	qcow2_unref_entry(q, ret == 0 ? old : entry, q->opt.discard_other);
	qcow2_table_put(t);
	qcow2_inflight_end(&inflight);
	co_unlock(&q->lock);
	return ret;
}

static int write_cluster(struct qcow2 *q, uint64_t offset, uint64_t bytes, const struct iovec *iov,
			 int niov, uint8_t *in, uint8_t *out)
{
	const struct iovec flat = {in, bytes};
	uint64_t at = 0;
	int64_t size;

	for (int i = 0; i < niov; at += iov[i++].iov_len)
		memcpy(in + at, iov[i].iov_base, iov[i].iov_len);
	memset(in + bytes, 0, q->cluster_size - bytes);
	size = qcow2_pack(q, in, out);
	if (size == -E2BIG)
		return qcow2_co_write(q, offset, bytes, &flat, 1);
	return size < 0 ? (int)size : qcow2_write_packed(q, offset, out, size);
}

int qcow2_co_write_compressed(struct qcow2 *q, uint64_t offset, uint64_t bytes,
			      const struct iovec *iov, int niov)
{
	uint64_t cs = q->cluster_size, n;
	uint8_t *buf = malloc(2 * cs);
	struct iovec *part = malloc(niov * sizeof(*part));
	int ret = buf && part ? 0 : -ENOMEM;

	if (ret == 0 && ((offset | bytes) & (cs - 1)) &&
	    (offset & (cs - 1) || offset + bytes != READ_ONCE(q->node.length)))
		ret = -EINVAL;
	for (uint64_t pos = 0; pos < bytes && ret == 0; pos += n) {
		n = MIN(bytes - pos, cs);
		ret = write_cluster(q, offset + pos, n, part,
				    qcow2_iov_part(iov, niov, pos, n, part), buf, buf + cs);
	}
	free(part);
	free(buf);
	return ret;
}
