/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: the snapshot table, read and (in memory) written. */
#include <stdlib.h>

#include "qcow2_manage.h"

#define MAX_EXTRA 1024u /* as in QEMU */

/* Reads from the table on, up to its largest size. */
struct reader {
	struct qcow2 *q;
	uint64_t offset, end;
};

static int get(struct reader *r, void *buf, size_t bytes)
{
	int ret;

	if (bytes > r->end - r->offset)
		return -EFBIG;
	ret = bytes ? block_pread(r->q->node.file, r->offset, buf, bytes) : 0;
	r->offset += bytes;
	return ret;
}

static int get_string(struct reader *r, size_t bytes, char **text)
{
	*text = malloc(bytes + 1);
	if (!*text)
		return -ENOMEM;
	(*text)[bytes] = 0;
	return get(r, *text, bytes);
}

static void take_extra(struct qcow2 *q, struct qcow2_snapshot *s)
{
	struct qcow2_snapshot_extra extra = {.icount = UINT64_MAX};

	memcpy(&extra, s->extra, MIN(s->extra_size, sizeof(extra)));
	if (s->extra_size >= offsetof(struct qcow2_snapshot_extra, disk_size))
		s->vm_state_size = be64toh(extra.vm_state_size);
	s->disk_size = q->size;
	if (s->extra_size >= offsetof(struct qcow2_snapshot_extra, icount))
		s->disk_size = be64toh(extra.disk_size);
	s->icount = UINT64_MAX;
	if (s->extra_size >= sizeof(extra))
		s->icount = be64toh(extra.icount);
}

static int get_entry(struct reader *r, struct qcow2_snapshot *s)
{
	struct qcow2_snapshot_header h;
	int ret = get(r, &h, sizeof(h));

	if (ret < 0)
		return ret;
	s->l1_offset = be64toh(h.l1_table_offset);
	s->l1_size = be32toh(h.l1_size);
	s->date_sec = be32toh(h.date_sec);
	s->date_nsec = be32toh(h.date_nsec);
	s->vm_clock_nsec = be64toh(h.vm_clock_nsec);
	s->vm_state_size = be32toh(h.vm_state_size);
	s->extra_size = be32toh(h.extra_size);
	if (s->extra_size > MAX_EXTRA)
		return -EFBIG;
	s->extra = malloc(s->extra_size + 1);
	ret = s->extra ? get(r, s->extra, s->extra_size) : -ENOMEM;
	if (ret == 0)
		ret = get_string(r, be16toh(h.id_size), &s->id);
	if (ret == 0)
		ret = get_string(r, be16toh(h.name_size), &s->name);
	if (ret == 0)
		take_extra(r->q, s);
	r->offset = ALIGN_UP(r->offset, 8ull);
	return ret;
}

int qcow2_snapshots_load(struct qcow2 *q, struct qcow2_snapshot **list, struct hako_error *err)
{
	uint64_t length = READ_ONCE(q->node.file->length);
	struct reader r = {
		.q = q,
		.offset = q->snapshots_offset,
		.end = MIN(length, q->snapshots_offset + QCOW2_MAX_SNAPSHOT_BYTES),
	};
	struct qcow2_snapshot *s;
	int ret = 0;

	*list = NULL;
	if (!q->nb_snapshots)
		return 0;
	if (q->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return error_set(err, -EFBIG, "%u snapshots: more than %u are not supported",
				 q->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
	if (r.offset & (q->cluster_size - 1) || r.offset >= length)
		return error_set(err, -EINVAL,
				 "the snapshot table at offset %llu is not aligned to clusters or "
				 "outside of the image",
				 (unsigned long long)r.offset);
	s = calloc(q->nb_snapshots, sizeof(*s));
	if (!s)
		return error_errno(err, -ENOMEM, "the snapshot table");
	for (uint32_t i = 0; i < q->nb_snapshots && ret == 0; i++) {
		ret = get_entry(&r, &s[i]);
		if (ret == -EFBIG || (ret == -EINVAL && r.offset > length))
			error_set(err, ret,
				  "entry %u of the snapshot table at offset %llu is too large, or "
				  "outside of the image",
				  i, (unsigned long long)q->snapshots_offset);
		else if (ret < 0)
			error_errno(err, ret, "entry %u of the snapshot table", i);
	}
	if (ret < 0) {
		qcow2_snapshots_free(s, q->nb_snapshots);
		return ret;
	}
	*list = s;
	return 0;
}

void qcow2_snapshots_free(struct qcow2_snapshot *list, uint32_t n)
{
	for (uint32_t i = 0; list && i < n; i++) {
		free(list[i].id);
		free(list[i].name);
		free(list[i].extra);
	}
	free(list);
}
