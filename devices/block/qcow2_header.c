/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: the first cluster, with the header, its extensions and the backing file's name. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "qcow2.h"
#include "vmm/vm.h"

#define FIRST_READ 4096 /* enough for nearly all headers */
#define MAX_EXTS   1000

/* --- reading ----------------------------------------------------------------------------------- */

static int check_version(struct qcow2 *q, const struct qcow2_header *h, struct hako_error *err)
{
	uint32_t crypt = be32toh(h->crypt_method);

	if (be32toh(h->magic) != QCOW2_MAGIC)
		return error_set(err, -EINVAL, "not a qcow2 image: it starts with 0x%08x",
				 be32toh(h->magic));
	q->version = be32toh(h->version);
	if (q->version != 2 && q->version != 3)
		return error_set(err, -ENOTSUP, "qcow2 version %u is not supported", q->version);
	if (crypt == QCOW2_CRYPT_AES)
		return error_set(err, -ENOTSUP,
				 "the image is encrypted (AES), which is not supported");
	if (crypt == QCOW2_CRYPT_LUKS)
		return error_set(err, -ENOTSUP,
				 "the image is encrypted (LUKS), which is not supported");
	if (crypt != QCOW2_CRYPT_NONE)
		return error_set(err, -ENOTSUP, "unknown encryption method %u", crypt);
	return 0;
}

static int parse_fixed(struct qcow2 *q, const struct qcow2_header *h, struct hako_error *err)
{
	int ret = check_version(q, h, err);

	if (ret < 0)
		return ret;
	q->cluster_bits = be32toh(h->cluster_bits);
	if (q->cluster_bits < QCOW2_MIN_CLUSTER_BITS || q->cluster_bits > QCOW2_MAX_CLUSTER_BITS)
		return error_set(err, -EINVAL, "unsupported cluster size: 2^%u bytes",
				 q->cluster_bits);
	q->cluster_size = 1ull << q->cluster_bits;
	q->size = be64toh(h->size);
	q->l1_size = be32toh(h->l1_size);
	q->l1_offset = be64toh(h->l1_table_offset);
	q->reftable_offset = be64toh(h->refcount_table_offset);
	q->reftable_clusters = be32toh(h->refcount_table_clusters);
	q->nb_snapshots = be32toh(h->nb_snapshots);
	q->snapshots_offset = be64toh(h->snapshots_offset);
	q->refcount_order = 4;
	q->header_length = QCOW2_V2_HEADER_LENGTH;
	if (q->version == 2)
		return 0;
	q->incompatible = be64toh(h->incompatible_features);
	q->compatible = be64toh(h->compatible_features);
	q->autoclear = be64toh(h->autoclear_features);
	q->refcount_order = be32toh(h->refcount_order);
	q->header_length = be32toh(h->header_length);
	if (q->header_length < QCOW2_V3_HEADER_LENGTH || q->header_length > q->cluster_size)
		return error_set(err, -EINVAL,
				 "header of %u bytes, which is not between %u and a cluster",
				 q->header_length, QCOW2_V3_HEADER_LENGTH);
	if (q->header_length > offsetof(struct qcow2_header, compression_type))
		q->compression = h->compression_type;
	if (q->refcount_order > QCOW2_MAX_REFCOUNT_ORDER)
		return error_set(err, -EINVAL, "refcounts of 2^%u bits: at most 64 are possible",
				 q->refcount_order);
	return 0;
}

static int keep_unknown_header(struct qcow2 *q, const uint8_t *cluster)
{
	if (q->header_length <= sizeof(struct qcow2_header))
		return 0;
	q->unknown_header = malloc(q->header_length - sizeof(struct qcow2_header));
	if (!q->unknown_header)
		return -ENOMEM;
	memcpy(q->unknown_header, cluster + sizeof(struct qcow2_header),
	       q->header_length - sizeof(struct qcow2_header));
	return 0;
}

static char *string_of(const void *data, size_t len)
{
	return strndup(data, len);
}

static int take_ext(struct qcow2 *q, uint32_t type, const uint8_t *data, uint32_t length)
{
	char **name = type == QCOW2_EXT_BACKING_FORMAT ? &q->backing_format
		      : type == QCOW2_EXT_DATA_FILE    ? &q->data_file_name
						       : NULL;

	if (!name)
		return qcow2_set_ext(q, type, data, length);
	free(*name);
	*name = string_of(data, length);
	return *name ? 0 : -ENOMEM;
}

/* The extensions in @buf, which holds @have bytes of the cluster. -EAGAIN: it takes more. */
static int parse_exts(struct qcow2 *q, const uint8_t *buf, uint64_t have, uint64_t end,
		      struct hako_error *err)
{
	uint64_t pos = q->header_length;
	int ret;

	while (end - pos >= sizeof(struct qcow2_ext_header)) {
		struct qcow2_ext_header h;
		uint32_t type, length;

		if (pos + sizeof(h) > have)
			return -EAGAIN;
		memcpy(&h, buf + pos, sizeof(h));
		type = be32toh(h.type);
		length = be32toh(h.length);
		if (type == QCOW2_EXT_END)
			return 0;
		pos += sizeof(h);
		if (length > end - pos)
			return error_set(
				err, -EINVAL,
				"header extension 0x%08x at offset %llu is %u bytes long: too large",
				type, (unsigned long long)(pos - sizeof(h)), length);
		if (pos + length > have)
			return -EAGAIN;
		ret = q->nexts < MAX_EXTS ? take_ext(q, type, buf + pos, length) : -E2BIG;
		if (ret < 0)
			return error_errno(err, ret, "header extension 0x%08x", type);
		pos = MIN(pos + ALIGN_UP((uint64_t)length, 8ull), end);
	}
	return 0;
}

static void forget_exts(struct qcow2 *q)
{
	for (unsigned int i = 0; i < q->nexts; i++)
		free(q->exts[i].data);
	free(q->exts);
	q->exts = NULL;
	q->nexts = 0;
}

void qcow2_free_header(struct qcow2 *q)
{
	forget_exts(q);
	free(q->unknown_header);
	free(q->backing_name);
	free(q->backing_format);
	free(q->data_file_name);
	q->unknown_header = NULL;
	q->backing_name = q->backing_format = q->data_file_name = NULL;
}

/* Names of features, for those that are not known here. */
static void append_names(struct qcow2 *q, uint64_t unknown, char *text, size_t size)
{
	const struct qcow2_ext *ext = qcow2_find_ext(q, QCOW2_EXT_FEATURE_NAMES);
	size_t n = ext ? ext->length / sizeof(struct qcow2_feature_name) : 0, len = 0;

	for (unsigned int bit = 0; bit < 64 && len < size; bit++) {
		const struct qcow2_feature_name *name = NULL;

		if (!(unknown & BIT64(bit)))
			continue;
		for (size_t i = 0; i < n && !name; i++) {
			const struct qcow2_feature_name *f = (void *)(ext->data + i * sizeof(*f));

			if (f->type == QCOW2_FEATURE_INCOMPATIBLE && f->bit == bit && f->name[0])
				name = f;
		}
		if (name)
			len += snprintf(text + len, size - len, "%s%.46s", len ? ", " : "",
					name->name);
		else
			len += snprintf(text + len, size - len, "%sbit %u", len ? ", " : "", bit);
	}
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
}

static int check_features(struct qcow2 *q, struct hako_error *err)
{
	uint64_t unknown = q->incompatible & ~QCOW2_INCOMPAT_KNOWN;
	bool compression = q->incompatible & QCOW2_INCOMPAT_COMPRESSION;
	char names[512];

	if (unknown) {
		append_names(q, unknown, names, sizeof(names));
		return error_set(err, -ENOTSUP,
				 "the image needs features that are not supported: %s", names);
	}
	if (q->compression > QCOW2_COMPRESSION_ZSTD)
		return error_set(err, -ENOTSUP, "unknown compression type %u", q->compression);
	if (compression != (q->compression != QCOW2_COMPRESSION_ZLIB))
		return error_set(err, -EINVAL,
				 "compression type %u, and the feature bit says otherwise",
				 q->compression);
	if (qcow2_is_extended(q) && q->cluster_bits < QCOW2_MIN_EXTENDED_BITS)
		return error_set(err, -EINVAL,
				 "extended L2 entries with clusters of %llu bytes: too small",
				 (unsigned long long)q->cluster_size);
	if ((q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW) && !qcow2_has_data_file(q))
		return error_set(err, -EINVAL,
				 "a raw external data file, and no external data file");
	return 0;
}

static int parse_cluster(struct qcow2 *q, const uint8_t *buf, uint64_t have, struct hako_error *err)
{
	const struct qcow2_header *h = (const void *)buf;
	uint64_t name = be64toh(h->backing_file_offset);
	uint32_t name_size = be32toh(h->backing_file_size);
	int ret;

	if (name > q->cluster_size - 1 || (name && name < q->header_length))
		return error_set(
			err, -EINVAL,
			"the backing file's name is at offset %llu, not in the first cluster",
			(unsigned long long)name);
	if (name && name_size > MIN((uint64_t)QCOW2_MAX_BACKING_NAME, q->cluster_size - name))
		return error_set(err, -EINVAL, "the backing file's name is %u bytes long: too long",
				 name_size);
	if (q->header_length > have || name + name_size > have)
		return have < q->cluster_size
			       ? -EAGAIN
			       : error_set(err, -EINVAL, "the file ends within the header");
	forget_exts(q);
	ret = parse_exts(q, buf, have, name ?: q->cluster_size, err);
	if (ret < 0)
		return ret;
	if (name && name_size) {
		q->backing_name = string_of(buf + name, name_size);
		if (!q->backing_name)
			return error_errno(err, -ENOMEM, "the header");
	}
	ret = keep_unknown_header(q, buf);
	return ret < 0 ? error_errno(err, ret, "the header") : 0;
}

int qcow2_read_header(struct qcow2 *q, struct hako_error *err)
{
	uint64_t length = READ_ONCE(q->node.file->length), have = MIN(length, (uint64_t)FIRST_READ);
	uint8_t *buf = calloc(1, FIRST_READ), *more;
	int ret;

	if (!buf)
		return error_errno(err, -ENOMEM, "the header");
	ret = block_pread(q->node.file, 0, buf, have);
	if (ret < 0)
		error_errno(err, ret, "reading the header");
	else
		ret = parse_fixed(q, (const struct qcow2_header *)buf, err);
	if (ret == 0) {
		/* What lies behind the end of the file reads as zeroes. */
		have = MIN((uint64_t)FIRST_READ, q->cluster_size);
		ret = parse_cluster(q, buf, have, err);
	}
	if (ret == -EAGAIN) {
		more = realloc(buf, q->cluster_size);
		ret = more ? 0 : error_errno(err, -ENOMEM, "the header");
		if (more) {
			buf = more;
			memset(buf, 0, q->cluster_size);
			ret = block_pread(q->node.file, 0, buf, MIN(length, q->cluster_size));
			ret = ret < 0 ? error_errno(err, ret, "reading the header")
				      : parse_cluster(q, buf, q->cluster_size, err);
		}
	}
	if (ret == 0)
		ret = check_features(q, err);
	free(buf);
	return ret;
}

int qcow2_check_table(struct qcow2 *q, const char *name, uint64_t offset, uint64_t bytes,
		      uint64_t max, struct hako_error *err)
{
	uint64_t end = ALIGN_UP(READ_ONCE(q->node.file->length), q->cluster_size);

	if (bytes > max)
		return error_set(err, -EFBIG, "%s is %llu bytes long; at most %llu are supported",
				 name, (unsigned long long)bytes, (unsigned long long)max);
	if (offset & (q->cluster_size - 1))
		return error_set(err, -EINVAL,
				 "%s is at offset %llu, which is not a cluster's start", name,
				 (unsigned long long)offset);
	if (bytes && (offset >= end || bytes > end - offset))
		return error_set(err, -EINVAL,
				 "%s at offset %llu does not fit into the file of %llu bytes", name,
				 (unsigned long long)offset,
				 (unsigned long long)READ_ONCE(q->node.file->length));
	if (bytes && !offset)
		return error_set(err, -EINVAL, "%s is at offset 0, where the header is", name);
	return 0;
}

/* --- extensions -------------------------------------------------------------------------------- */

struct qcow2_ext *qcow2_find_ext(struct qcow2 *q, uint32_t type)
{
	for (unsigned int i = 0; i < q->nexts; i++)
		if (q->exts[i].type == type)
			return &q->exts[i];
	return NULL;
}

int qcow2_set_ext(struct qcow2 *q, uint32_t type, const void *data, uint32_t length)
{
	struct qcow2_ext *ext = qcow2_find_ext(q, type), *exts;
	uint8_t *copy = NULL;

	if (!data) {
		if (ext) {
			free(ext->data);
			memmove(ext, ext + 1, (char *)(q->exts + --q->nexts) - (char *)ext);
		}
		return 0;
	}
	copy = malloc(length + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, length);
	if (!ext) {
		exts = realloc(q->exts, (q->nexts + 1) * sizeof(*exts));
		if (!exts) {
			free(copy);
			return -ENOMEM;
		}
		q->exts = exts;
		ext = &exts[q->nexts++];
	} else {
		free(ext->data);
	}
	ext->type = type;
	ext->length = length;
	ext->data = copy;
	return 0;
}

/* --- writing ----------------------------------------------------------------------------------- */

/* The cluster as it grows. */
struct writer {
	uint8_t *buf;
	uint64_t pos, size;
};

static void put(struct writer *w, const void *data, uint64_t length, uint64_t align)
{
	uint64_t room = w->size - MIN(w->pos, w->size);

	if (length <= room && length)
		memcpy(w->buf + w->pos, data, length);
	w->pos = ALIGN_UP(w->pos + length, align);
}

static void put_ext(struct writer *w, uint32_t type, const void *data, uint32_t length)
{
	const struct qcow2_ext_header h = {htobe32(type), htobe32(length)};

	put(w, &h, sizeof(h), 1);
	put(w, data, length, 8);
}

static void put_header(struct qcow2 *q, struct writer *w, uint64_t name_offset, uint32_t name_size)
{
	struct qcow2_header h = {
		.magic = htobe32(QCOW2_MAGIC),
		.version = htobe32(q->version),
		.backing_file_offset = htobe64(name_offset),
		.backing_file_size = htobe32(name_size),
		.cluster_bits = htobe32(q->cluster_bits),
		.size = htobe64(q->size),
		.l1_size = htobe32(q->l1_size),
		.l1_table_offset = htobe64(q->l1_offset),
		.refcount_table_offset = htobe64(q->reftable_offset),
		.refcount_table_clusters = htobe32(q->reftable_clusters),
		.nb_snapshots = htobe32(q->nb_snapshots),
		.snapshots_offset = htobe64(q->snapshots_offset),
		.incompatible_features = htobe64(q->incompatible),
		.compatible_features = htobe64(q->compatible),
		.autoclear_features = htobe64(q->autoclear),
		.refcount_order = htobe32(q->refcount_order),
		.header_length = htobe32(q->header_length),
		.compression_type = q->compression,
	};

	memcpy(w->buf, &h, MIN(q->header_length, sizeof(h)));
	if (q->header_length > sizeof(h))
		memcpy(w->buf + sizeof(h), q->unknown_header, q->header_length - sizeof(h));
}

int qcow2_write_header(struct qcow2 *q, struct hako_error *err)
{
	struct writer w = {.size = q->cluster_size};
	uint32_t name_size = q->backing_name ? strlen(q->backing_name) : 0;
	uint64_t name_offset;
	int ret;

	if (q->version == 2)
		q->header_length = QCOW2_V2_HEADER_LENGTH;
	else if (q->header_length < QCOW2_V3_HEADER_LENGTH ||
		 (q->compression && q->header_length < sizeof(struct qcow2_header)))
		q->header_length = sizeof(struct qcow2_header);
	w.buf = calloc(1, w.size);
	if (!w.buf)
		return error_errno(err, -ENOMEM, "the header");
	w.pos = q->header_length;
	if (q->backing_format)
		put_ext(&w, QCOW2_EXT_BACKING_FORMAT, q->backing_format, strlen(q->backing_format));
	if (q->data_file_name)
		put_ext(&w, QCOW2_EXT_DATA_FILE, q->data_file_name, strlen(q->data_file_name));
	for (unsigned int i = 0; i < q->nexts; i++)
		put_ext(&w, q->exts[i].type, q->exts[i].data, q->exts[i].length);
	put_ext(&w, QCOW2_EXT_END, NULL, 0);
	name_offset = name_size ? w.pos : 0;
	put(&w, q->backing_name, name_size, 1);
	if (w.pos > w.size) {
		free(w.buf);
		return error_set(
			err, -ENOSPC,
			"the header, its extensions and the backing file's name do not fit into %llu bytes",
			(unsigned long long)w.size);
	}
	put_header(q, &w, name_offset, name_size);
	/* All of the cluster: nothing of an earlier header shall remain. */
	ret = block_pwrite(q->node.file, 0, w.buf, w.size, 0);
	if (ret == 0)
		ret = block_flush(q->node.file);
	free(w.buf);
	return ret < 0 ? error_errno(err, ret, "writing the header") : 0;
}

int qcow2_set_incompatible(struct qcow2 *q, uint64_t set, uint64_t clear)
{
	uint64_t features = (q->incompatible | set) & ~clear, be = htobe64(features);
	int ret;

	if (q->version == 2)
		return -ENOTSUP;
	if (features == q->incompatible)
		return 0;
	ret = block_pwrite(q->node.file, offsetof(struct qcow2_header, incompatible_features), &be,
			   sizeof(be), 0);
	if (ret == 0)
		ret = block_flush(q->node.file);
	if (ret == 0)
		q->incompatible = features;
	return ret;
}

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
	char why[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (q->corrupt)
		return -EIO;
	q->corrupt = true;
	vm_log(q->node.obj.vm, "%s: the image is corrupt: %s%s", q->node.obj.id ?: "qcow2", why,
	       q->writing ? "; it takes no more writes" : "");
	if (q->writing)
		qcow2_set_incompatible(q, QCOW2_INCOMPAT_CORRUPT, 0); /* as far as possible */
	return -EIO;
}
