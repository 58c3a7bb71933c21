/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * New qcow2 images. All of an image's metadata follows from its options, so it is written from front to back, without an allocator:
 * header, refcount table, refcount blocks, L1 table, L2 tables, data.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "qcow2_manage.h"

struct create_options {
	uint64_t size, cluster_size;
	char *backing_file, *backing_fmt, *data_file;
	unsigned int refcount_bits;
	int compat, prealloc, compression_type;
	bool extended_l2, data_file_raw, lazy_refcounts, nocow;
	bool encryption;
	char *encrypt_format;
};

enum qcow2_compat {
	COMPAT_V3,
	COMPAT_1_1,
	COMPAT_V2,
	COMPAT_0_10
};

static const char *const compat_names[] = {"v3", "1.1", "v2", "0.10", NULL};
static const char *const compression_names[] = {"zlib", "zstd", NULL};

/* In the order in which qemu-img shows them. */
static const struct option qcow2_create_options[] = {
	OPT_BOOL("encryption", struct create_options, encryption, NULL, "not supported"),
	OPT_STRING("encrypt.format", struct create_options, encrypt_format, NULL, "not supported"),
	OPT_SIZE("cluster_size", struct create_options, cluster_size, "64k", 0, 0,
		 "unit of allocation, 512 to 2M"),
	OPT_BOOL("extended_l2", struct create_options, extended_l2, "off",
		 "clusters of 32 subclusters each, which are allocated separately"),
	OPT_ENUM("preallocation", struct create_options, prealloc, NULL, image_prealloc_names,
		 "off, metadata, falloc or full: allocate all clusters now"),
	OPT_ENUM("compression_type", struct create_options, compression_type, "zlib",
		 compression_names, "of compressed clusters"),
	OPT_SIZE("size", struct create_options, size, NULL, 0, 0, "size of the virtual disk"),
	OPT_ENUM("compat", struct create_options, compat, NULL, compat_names,
		 "version of the format: v3 (1.1) or v2 (0.10)"),
	OPT_STRING("backing_file", struct create_options, backing_file, NULL,
		   "image to read what this one does not have"),
	OPT_STRING("backing_fmt", struct create_options, backing_fmt, NULL,
		   "format of the backing file"),
	OPT_STRING("data_file", struct create_options, data_file, NULL,
		   "file for the data, this one keeping the metadata"),
	OPT_BOOL("data_file_raw", struct create_options, data_file_raw, NULL,
		 "keep the data file readable as a raw image"),
	OPT_BOOL("lazy_refcounts", struct create_options, lazy_refcounts, "off",
		 "put off updates of refcounts; after a crash the image is repaired"),
	OPT_UINT("refcount_bits", struct create_options, refcount_bits, "16", 0, UINT32_MAX,
		 "width of a refcount: 1, 2, 4 … 64"),
	OPT_BOOL("nocow", struct create_options, nocow, NULL, "no copy on write, on btrfs"),
	OPT_END,
};

static bool is_v2(const struct create_options *o)
{
	return o->compat == COMPAT_V2 || o->compat == COMPAT_0_10;
}

static int check_v2(const struct create_options *o, struct hako_error *err)
{
	const char *what = NULL;

	if (o->extended_l2)
		what = "extended_l2=on";
	else if (o->lazy_refcounts)
		what = "lazy_refcounts=on";
	else if (o->refcount_bits != 16)
		what = "a refcount_bits other than 16";
	else if (o->compression_type)
		what = "a compression_type other than zlib";
	else if (o->data_file)
		what = "data_file";
	return what ? error_set(err, -EINVAL, "%s needs compat=v3", what) : 0;
}

static int check_names(const struct create_options *o, struct hako_error *err)
{
	if (o->backing_fmt && !o->backing_file)
		return error_set(err, -EINVAL, "backing_fmt needs backing_file");
	if (o->data_file_raw && !o->data_file)
		return error_set(err, -EINVAL, "data_file_raw=on needs data_file");
	if (o->data_file_raw && o->backing_file)
		return error_set(err, -EINVAL,
				 "data_file_raw=on and backing_file exclude each other");
	if (o->backing_file && o->prealloc && !o->extended_l2)
		return error_set(err, -EINVAL,
				 "preallocation with a backing_file needs extended_l2=on");
	if (o->backing_file && strlen(o->backing_file) > QCOW2_MAX_BACKING_NAME)
		return error_set(err, -EINVAL, "backing_file: longer than %u bytes",
				 QCOW2_MAX_BACKING_NAME);
	if (o->data_file && strlen(o->data_file) > QCOW2_MAX_BACKING_NAME)
		return error_set(err, -EINVAL, "data_file: longer than %u bytes",
				 QCOW2_MAX_BACKING_NAME);
	return 0;
}

static int check_options(const struct create_options *o, struct hako_error *err)
{
	int ret;

	if (o->encryption || o->encrypt_format)
		return error_set(err, -EOPNOTSUPP, "encryption is not supported");
	if (o->cluster_size < 512 || o->cluster_size > 2 * MiB || !IS_POWER_OF_2(o->cluster_size))
		return error_set(err, -EINVAL,
				 "cluster_size: must be a power of two between 512 and 2M");
	if (o->refcount_bits > 64 || !IS_POWER_OF_2(o->refcount_bits))
		return error_set(err, -EINVAL, "refcount_bits: must be a power of two up to 64");
	if (o->extended_l2 && o->cluster_size < 16 * KiB)
		return error_set(err, -EINVAL,
				 "extended_l2=on needs a cluster_size of at least 16k");
	ret = is_v2(o) ? check_v2(o, err) : 0;
	return ret < 0 ? ret : check_names(o, err);
}

/* --- layout ------------------------------------------------------------------------------------ */

/* In clusters, but for l1_entries. */
struct layout {
	uint64_t data, l2, l1, blocks, table;
	uint64_t l1_entries, total;
	/* where they start */
	uint64_t table_at, blocks_at, l1_at, l2_at, data_at;
};

static unsigned int l2_entry_size(const struct create_options *o)
{
	return o->extended_l2 ? 16 : 8;
}

/* What it takes to count the references to @clusters clusters and to the counters themselves. */
static void count_refcounts(const struct create_options *o, uint64_t clusters, struct layout *l)
{
	uint64_t per_block = o->cluster_size * 8 / o->refcount_bits, before;

	l->blocks = l->table = 0;
	do {
		before = l->blocks + l->table;
		l->blocks = (clusters + before + per_block - 1) / per_block;
		l->table = (l->blocks * 8 + o->cluster_size - 1) / o->cluster_size;
	} while (l->blocks + l->table != before);
}

static uint64_t clusters_of(const struct create_options *o, uint64_t bytes)
{
	return bytes / o->cluster_size + !!(bytes % o->cluster_size);
}

static int make_layout(const struct create_options *o, bool allocated, struct layout *l,
		       struct hako_error *err)
{
	uint64_t data = clusters_of(o, o->size), used;

	*l = (struct layout){0};
	l->l1_entries = clusters_of(o, data * l2_entry_size(o));
	if (l->l1_entries * 8 > QCOW2_MAX_L1_BYTES)
		return error_set(err, -EFBIG,
				 "size: too large for qcow2 with this cluster_size (try a larger "
				 "one)");
	l->l1 = clusters_of(o, l->l1_entries * 8);
	if (allocated) {
		l->l2 = l->l1_entries;
		l->data = o->data_file ? 0 : data;
	}
	used = 1 + l->l1 + l->l2 + l->data;
	count_refcounts(o, used, l);
	if (l->table * o->cluster_size > QCOW2_MAX_REFTABLE_BYTES)
		return error_set(err, -EFBIG,
				 "size: too large to be preallocated with this cluster_size (try a "
				 "larger one)");
	l->total = used + l->blocks + l->table;
	l->table_at = 1;
	l->blocks_at = l->table_at + l->table;
	l->l1_at = l->blocks_at + l->blocks;
	l->l2_at = l->l1_at + l->l1;
	l->data_at = l->l2_at + l->l2;
	return 0;
}

/* --- writing ----------------------------------------------------------------------------------- */

/* Entries that go to consecutive places. */
struct writer {
	int fd;
	int error; /* the first, a negative errno */
	uint64_t offset;
	size_t fill;
	uint8_t buf[64 * KiB];
};

static void flush(struct writer *w)
{
	size_t done = 0;

	while (!w->error && done < w->fill) {
		ssize_t n = pwrite(w->fd, w->buf + done, w->fill - done, w->offset + done);

		if (n > 0)
			done += n;
		else if (n == 0)
			w->error = -ENOSPC;
		else if (errno != EINTR)
			w->error = -errno;
	}
	w->offset += w->fill;
	w->fill = 0;
}

static void put(struct writer *w, uint64_t entry)
{
	if (w->fill == sizeof(w->buf))
		flush(w);
	entry = htobe64(entry);
	memcpy(w->buf + w->fill, &entry, 8);
	w->fill += 8;
}

/* Go on at @offset, what is left out being zero: so it is in a fresh file, but not on a device. */
static void seek(struct writer *w, uint64_t offset, bool is_block)
{
	flush(w);
	if (is_block && !w->error)
		w->error = image_write_zeroes(w->fd, w->offset, offset);
	w->offset = offset;
}

/* The refcounts of all clusters are 1. */
static void put_blocks(struct writer *w, const struct create_options *o, const struct layout *l)
{
	unsigned int bits = o->refcount_bits, n;
	uint64_t left, word;

	for (left = l->total; left; left -= n) {
		n = MIN(left, bits < 8 ? 64 / bits : MAX(1u, 64 / bits));
		word = 0;
		/* Big-endian, but within a byte the first entry is the lowest. */
		for (unsigned int i = 0; i < n; i++) {
			if (bits < 8)
				word |= 1ull << (56 - i * bits / 8 * 8 + i * bits % 8);
			else
				word |= 1ull << (64 - bits - i * bits);
		}
		put(w, word);
	}
}

/* Entries of L2 tables for clusters that are there and read as what the backing file or else the data says. */
static void put_l2(struct writer *w, const struct create_options *o, const struct layout *l,
		   bool is_block)
{
	uint64_t start = o->data_file ? 0 : l->data_at * o->cluster_size;
	uint64_t flags = QCOW2_COPIED;

	/* A device may have anything there. */
	if (is_block && !is_v2(o) && !o->extended_l2 && o->prealloc == BLOCK_PREALLOC_METADATA)
		flags |= QCOW2_ZERO;
	for (uint64_t i = 0; i < clusters_of(o, o->size); i++) {
		put(w, (start + i * o->cluster_size) | flags);
		if (o->extended_l2) /* no subcluster is allocated yet */
			put(w, 0);
	}
}

static int write_tables(int fd, const char *filename, const struct create_options *o,
			const struct layout *l, bool is_block, struct hako_error *err)
{
	struct writer *w = malloc(sizeof(*w));
	uint64_t cs = o->cluster_size;
	int ret;

	if (!w)
		return error_errno(err, -ENOMEM, "%s", filename);
	w->fd = fd;
	w->error = 0;
	w->fill = 0;
	w->offset = l->table_at * cs;
	for (uint64_t i = 0; i < l->blocks; i++)
		put(w, (l->blocks_at + i) * cs);
	seek(w, l->blocks_at * cs, is_block);
	put_blocks(w, o, l);
	seek(w, l->l1_at * cs, is_block);
	for (uint64_t i = 0; i < l->l2; i++)
		put(w, ((l->l2_at + i) * cs) | QCOW2_COPIED);
	seek(w, l->l2_at * cs, is_block);
	if (l->l2)
		put_l2(w, o, l, is_block);
	seek(w, l->data_at * cs, is_block);
	ret = w->error;
	free(w);
	return ret < 0 ? error_errno(err, ret, "%s: writing tables", filename) : 0;
}

static const struct qcow2_feature_name feature_names[] = {
	{QCOW2_FEATURE_INCOMPATIBLE, 0, "dirty bit"},
	{QCOW2_FEATURE_INCOMPATIBLE, 1, "corrupt bit"},
	{QCOW2_FEATURE_INCOMPATIBLE, 2, "external data file"},
	{QCOW2_FEATURE_INCOMPATIBLE, 3, "compression type"},
	{QCOW2_FEATURE_INCOMPATIBLE, 4, "extended L2 entries"},
	{QCOW2_FEATURE_COMPATIBLE, 0, "lazy refcounts"},
	{QCOW2_FEATURE_AUTOCLEAR, 0, "bitmaps"},
	{QCOW2_FEATURE_AUTOCLEAR, 1, "raw external data"},
};

/* A header being written, with its extensions behind it. */
struct header_buf {
	uint8_t *buf;
	size_t size, fill;
	bool full;
};

static void put_bytes(struct header_buf *b, const void *data, size_t len, size_t padded)
{
	if (b->full || padded > b->size - b->fill) {
		b->full = true;
		return;
	}
	memcpy(b->buf + b->fill, data, len);
	b->fill += padded;
}

static void put_extension(struct header_buf *b, uint32_t type, const void *data, size_t len)
{
	struct qcow2_ext_header ext = {htobe32(type), htobe32(len)};

	put_bytes(b, &ext, sizeof(ext), sizeof(ext));
	put_bytes(b, data, len, ALIGN_UP(len, 8));
}

static void put_header(struct header_buf *b, const struct create_options *o, const struct layout *l)
{
	uint64_t cs = o->cluster_size, incompatible = 0;
	struct qcow2_header h = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(is_v2(o) ? 2 : 3),
		.cluster_bits = htobe32(__builtin_ctzll(cs)),
		.size = htobe64(o->size),
		.l1_size = htobe32(l->l1_entries),
		.l1_table_offset = htobe64(l->l1_at * cs),
		.refcount_table_offset = htobe64(l->table_at * cs),
		.refcount_table_clusters = htobe32(l->table),
		.refcount_order = htobe32(__builtin_ctz(o->refcount_bits)),
		.header_length = htobe32(sizeof(h)),
		.compression_type = o->compression_type,
	};

	if (o->data_file)
		incompatible |= QCOW2_INCOMPAT_DATA_FILE;
	if (o->compression_type)
		incompatible |= QCOW2_INCOMPAT_COMPRESSION;
	if (o->extended_l2)
		incompatible |= QCOW2_INCOMPAT_EXTENDED_L2;
	h.incompatible_features = htobe64(incompatible);
	h.compatible_features = htobe64(o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
	h.autoclear_features = htobe64(o->data_file_raw ? QCOW2_AUTOCLEAR_DATA_FILE_RAW : 0);
	if (is_v2(o))
		put_bytes(b, &h, QCOW2_V2_HEADER_LENGTH, QCOW2_V2_HEADER_LENGTH);
	else
		put_bytes(b, &h, sizeof(h), sizeof(h));
}

static int write_header(int fd, const char *filename, const struct create_options *o,
			const struct layout *l, struct hako_error *err)
{
	struct header_buf b = {calloc(1, o->cluster_size), o->cluster_size, 0, false};
	size_t name_len = o->backing_file ? strlen(o->backing_file) : 0;
	struct qcow2_header *h = (void *)b.buf;
	ssize_t n;

	if (!b.buf)
		return error_errno(err, -ENOMEM, "%s", filename);
	put_header(&b, o, l);
	if (o->backing_fmt)
		put_extension(&b, QCOW2_EXT_BACKING_FORMAT, o->backing_fmt, strlen(o->backing_fmt));
	if (o->data_file)
		put_extension(&b, QCOW2_EXT_DATA_FILE, o->data_file, strlen(o->data_file));
	/* For messages of programs that do not know a feature; it can be done without. */
	if (!is_v2(o) && o->cluster_size - b.fill >= 16 + sizeof(feature_names) + name_len)
		put_extension(&b, QCOW2_EXT_FEATURE_NAMES, feature_names, sizeof(feature_names));
	put_extension(&b, QCOW2_EXT_END, "", 0);
	if (name_len) {
		h->backing_file_offset = htobe64(b.fill);
		h->backing_file_size = htobe32(name_len);
		put_bytes(&b, o->backing_file, name_len, name_len);
	}
	if (b.full) {
		free(b.buf);
		return error_set(err, -EINVAL, "the names do not fit in a header of %llu bytes",
				 (unsigned long long)o->cluster_size);
	}
	n = pwrite(fd, b.buf, b.size, 0);
	free(b.buf);
	if (n != (ssize_t)o->cluster_size)
		return error_errno(err, n < 0 ? -errno : -ENOSPC, "%s: writing the header",
				   filename);
	return 0;
}

/* A descriptor, which keeps it locked. */
static int create_data_file(const struct create_options *o, struct hako_error *err)
{
	int fd = image_create_file(o->data_file, o->nocow, err);
	int ret;

	if (fd >= 0) {
		ret = image_preallocate(fd, o->data_file, 0, o->size, o->prealloc, err);
		if (ret == 0)
			return fd;
		close(fd);
	}
	return error_prefix(err, "data_file");
}

/* The header comes last: what is there before that is no image. */
static int write_image(int fd, const char *filename, const struct create_options *o,
		       const struct layout *l, struct hako_error *err)
{
	uint64_t cs = o->cluster_size;
	uint64_t end = l->data ? l->total * cs : l->l2_at * cs + l->l2 * cs;
	struct stat st;
	int ret;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "%s", filename);
	ret = write_tables(fd, filename, o, l, S_ISBLK(st.st_mode), err);
	if (ret == 0)
		ret = image_preallocate(fd, filename, l->data_at * cs, end, o->prealloc, err);
	if (ret == 0)
		ret = write_header(fd, filename, o, l, err);
	return ret;
}

static int qcow2_create(const char *filename, const void *options, struct hako_error *err)
{
	struct create_options o = *(const struct create_options *)options;
	int fd, data_fd = -1, ret;
	struct layout l;

	ret = check_options(&o, err);
	/* A raw data file has all clusters at their places, from the beginning. */
	if (o.data_file_raw && o.prealloc == BLOCK_PREALLOC_OFF)
		o.prealloc = BLOCK_PREALLOC_METADATA;
	if (ret == 0)
		ret = make_layout(&o, o.prealloc != BLOCK_PREALLOC_OFF, &l, err);
	if (ret == 0 && o.data_file)
		ret = data_fd = create_data_file(&o, err);
	if (ret < 0)
		return ret;
	ret = fd = image_create_file(filename, o.nocow, err);
	if (fd >= 0) {
		ret = write_image(fd, filename, &o, &l, err);
		close(fd);
	}
	if (data_fd >= 0)
		close(data_fd);
	return ret;
}

static int qcow2_measure(const void *options, uint64_t data, struct image_measure *m,
			 struct hako_error *err)
{
	const struct create_options *o = options;
	uint64_t whole = clusters_of(o, o->size) * o->cluster_size;
	struct create_options all = *o;
	struct layout l;
	int ret = check_options(o, err);

	all.data_file = NULL;
	if (ret == 0)
		ret = make_layout(&all, true, &l, err);
	if (ret < 0)
		return ret;
	*m = (struct image_measure){.fully_allocated = l.total * o->cluster_size};
	m->required = m->fully_allocated - whole + data;
	if (o->prealloc >= BLOCK_PREALLOC_FALLOC)
		m->required = m->fully_allocated;
	return 0;
}

static uint64_t qcow2_cluster_size(const void *options)
{
	const struct create_options *o = options;

	return o->cluster_size;
}

const struct image_format image_qcow2 = {
	.name = "qcow2",
	.help = "allocated as it is written, with backing files, snapshots and compression",
	.create_options = qcow2_create_options,
	.create_size = sizeof(struct create_options),
	.amend_options = qcow2_amend_options,
	.create = qcow2_create,
	.measure = qcow2_measure,
	.cluster_size = qcow2_cluster_size,
};
