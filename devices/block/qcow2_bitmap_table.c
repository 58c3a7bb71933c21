/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: the directory of persistent bitmaps, read. */
#include <stdlib.h>

#include "qcow2_manage.h"

#define MAX_NAME 1023u /* as in QEMU */

bool qcow2_bitmaps_ext(struct qcow2 *q, struct qcow2_bitmaps_ext *e, bool *valid)
{
	const struct qcow2_ext *ext = qcow2_find_ext(q, QCOW2_EXT_BITMAPS);

	*valid = false;
	if (!ext || ext->length < sizeof(*e))
		return false;
	memcpy(e, ext->data, sizeof(*e));
	e->nb_bitmaps = be32toh(e->nb_bitmaps);
	e->directory_size = be64toh(e->directory_size);
	e->directory_offset = be64toh(e->directory_offset);
	*valid = q->autoclear & QCOW2_AUTOCLEAR_BITMAPS;
	return true;
}

static int parse_entry(const uint8_t *data, uint64_t bytes, struct qcow2_bitmap_entry *b,
		       uint64_t *used)
{
	struct qcow2_bitmap_header h;
	uint64_t size = sizeof(h);
	uint32_t name;

	if (bytes < size)
		return -EINVAL;
	memcpy(&h, data, sizeof(h));
	name = be16toh(h.name_size);
	b->extra_size = be32toh(h.extra_size);
	size += (uint64_t)b->extra_size + name;
	if (!name || name > MAX_NAME || ALIGN_UP(size, 8ull) > bytes)
		return -EINVAL;
	b->table_offset = be64toh(h.table_offset);
	b->table_size = be32toh(h.table_size);
	b->flags = be32toh(h.flags);
	b->type = h.type;
	b->granularity_bits = h.granularity_bits;
	b->extra = malloc(b->extra_size + 1);
	b->name = strndup((const char *)data + sizeof(h) + b->extra_size, name);
	if (!b->extra || !b->name)
		return -ENOMEM;
	memcpy(b->extra, data + sizeof(h), b->extra_size);
	*used = ALIGN_UP(size, 8ull);
	return 0;
}

static int parse(const struct qcow2_bitmaps_ext *ext, const uint8_t *data,
		 struct qcow2_bitmap_entry *list, struct hako_error *err)
{
	uint64_t pos = 0, used = 0;
	int ret;

	for (uint32_t i = 0; i < ext->nb_bitmaps; i++, pos += used) {
		ret = parse_entry(data + pos, ext->directory_size - pos, &list[i], &used);
		if (ret < 0)
			return error_set(err, ret,
					 "entry %u of the bitmap directory, at offset %llu, is %s",
					 i, (unsigned long long)(ext->directory_offset + pos),
					 ret == -ENOMEM ? "too large for the memory" : "invalid");
	}
	return 0;
}

int qcow2_bitmaps_load(struct qcow2 *q, struct qcow2_bitmap_entry **list, uint32_t *n,
		       struct hako_error *err)
{
	uint64_t length = READ_ONCE(q->node.file->length);
	struct qcow2_bitmap_entry *b = NULL;
	struct qcow2_bitmaps_ext ext;
	uint8_t *data = NULL;
	bool valid;
	int ret;

	*list = NULL;
	*n = 0;
	if (!qcow2_bitmaps_ext(q, &ext, &valid) || !valid)
		return 0;
	if (!ext.nb_bitmaps || ext.nb_bitmaps > QCOW2_MAX_BITMAPS ||
	    ext.directory_size > QCOW2_MAX_BITMAP_DIRECTORY ||
	    ext.directory_size / sizeof(struct qcow2_bitmap_header) < ext.nb_bitmaps)
		return error_set(err, -EINVAL, "bitmap directory of %u bitmaps and %llu bytes",
				 ext.nb_bitmaps, (unsigned long long)ext.directory_size);
	if (ext.directory_offset & (q->cluster_size - 1) || ext.directory_offset > length ||
	    ext.directory_size > length - ext.directory_offset)
		return error_set(
			err, -EINVAL,
			"the bitmap directory at offset %llu is not aligned to clusters or "
			"outside of the image",
			(unsigned long long)ext.directory_offset);
	data = malloc(ext.directory_size);
	b = calloc(ext.nb_bitmaps, sizeof(*b));
	ret = data && b ? block_pread(q->node.file, ext.directory_offset, data, ext.directory_size)
			: -ENOMEM;
	if (ret < 0)
		error_errno(err, ret, "the bitmap directory");
	else
		ret = parse(&ext, data, b, err);
	free(data);
	if (ret < 0) {
		qcow2_bitmaps_list_free(b, ext.nb_bitmaps);
		return ret;
	}
	*list = b;
	*n = ext.nb_bitmaps;
	return 0;
}

void qcow2_bitmaps_list_free(struct qcow2_bitmap_entry *list, uint32_t n)
{
	for (uint32_t i = 0; list && i < n; i++) {
		free(list[i].name);
		free(list[i].extra);
	}
	free(list);
}
