/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: changes of what was chosen when the image was made. They are made in the file, without a node of the format: first what takes long, while
 * the mark "dirty" says that refcounts are not right, and in the end one write of the header.
 */
#include <stdlib.h>

#include "qcow2_check.h"

static const char *const compat_names[] = {"", "v2", "0.10", "v3", "1.1", NULL};

const struct option qcow2_amend_options[] = {
	OPT_STRING("backing_file", struct qcow2_amend, backing_file, NULL,
		   "image to read what this one does not have; empty: none"),
	OPT_STRING("backing_fmt", struct qcow2_amend, backing_fmt, NULL,
		   "format of the backing file"),
	OPT_ENUM("compat", struct qcow2_amend, compat, NULL, compat_names,
		 "version of the format: v3 (1.1) or v2 (0.10)"),
	OPT_STRING("data_file", struct qcow2_amend, data_file, NULL,
		   "another name of the external data file"),
	OPT_ONOFFAUTO("data_file_raw", struct qcow2_amend, data_file_raw, "auto",
		      "off: the data file need not be readable as a raw image any more"),
	OPT_ONOFFAUTO("lazy_refcounts", struct qcow2_amend, lazy_refcounts, "auto",
		      "put off updates of refcounts"),
	OPT_UINT("refcount_bits", struct qcow2_amend, refcount_bits, NULL, 0, UINT32_MAX,
		 "width of a refcount: 1, 2, 4 … 64"),
	OPT_SIZE("size", struct qcow2_amend, size, NULL, 0, 0, "size of the virtual disk"),
	OPT_END,
};

static unsigned int version_of(int compat)
{
	return !compat ? 0 : compat < 3 ? 2 : 3;
}

/* --- version 2 has no clusters of zeroes --------------------------------------------------------- */

/* Clusters that are really zero, for all that were only marked so. */
struct zero_clusters {
	uint64_t offset, used; /* references to the last one */
	uint64_t max_refs;
	bool backing;
	uint8_t *zeroes;
};

static int take_zero_cluster(struct qcow2 *q, struct zero_clusters *z, uint64_t *entry)
{
	uint64_t length = READ_ONCE(q->node.file->length);
	int ret = 0;

	if (!z->backing) {
		*entry = 0;
		return 0;
	}
	if (!z->offset || z->used == z->max_refs) {
		z->offset = ALIGN_UP(length, q->cluster_size);
		z->used = 0;
		ret = block_pwrite(q->node.file, z->offset, z->zeroes, q->cluster_size, 0);
	}
	z->used++;
	*entry = z->offset;
	return ret;
}

static int expand_table(struct qcow2 *q, uint64_t offset, struct zero_clusters *z, uint64_t *l2)
{
	bool dirty = false;
	int ret = qcow2_read_meta(q, offset, l2, q->cluster_size);

	for (uint64_t i = 0; i < q->cluster_size / 8 && ret == 0; i++) {
		uint64_t entry = be64toh(l2[i]);

		if ((entry & QCOW2_COMPRESSED) || !(entry & QCOW2_ZERO))
			continue;
		ret = take_zero_cluster(q, z, &entry);
		l2[i] = htobe64(entry);
		dirty = true;
	}
	/* What it points to is stable first. */
	if (ret == 0 && dirty && z->backing)
		ret = block_flush(q->node.file);
	return ret < 0 || !dirty ? ret : block_pwrite(q->node.file, offset, l2, q->cluster_size, 0);
}

static int expand_l1(struct qcow2 *q, uint64_t offset, uint32_t n, struct zero_clusters *z)
{
	uint64_t *l1 = malloc(8ull * n + 1), *l2 = malloc(q->cluster_size);
	int ret = l1 && l2 ? qcow2_read_meta(q, offset, l1, 8ull * n) : -ENOMEM;

	for (uint32_t i = 0; i < n && ret == 0; i++)
		if (be64toh(l1[i]) & QCOW2_L1_OFFSET)
			ret = expand_table(q, be64toh(l1[i]) & QCOW2_L1_OFFSET, z, l2);
	free(l1);
	free(l2);
	return ret;
}

static int expand_zeroes(struct qcow2 *q, struct hako_error *err)
{
	struct zero_clusters z = {.max_refs = 30000, .backing = q->backing_name};
	struct qcow2_snapshot *list;
	int ret = qcow2_snapshots_load(q, &list, err);

	if (ret < 0)
		return ret;
	z.zeroes = calloc(1, q->cluster_size);
	ret = z.zeroes ? expand_l1(q, q->l1_offset, q->l1_size, &z) : -ENOMEM;
	for (uint32_t i = 0; i < q->nb_snapshots && ret == 0; i++)
		ret = expand_l1(q, list[i].l1_offset, list[i].l1_size, &z);
	qcow2_snapshots_free(list, q->nb_snapshots);
	free(z.zeroes);
	return ret < 0 ? error_errno(err, ret, "writing zeroes") : 0;
}

/* --- versions ------------------------------------------------------------------------------------ */

static int can_downgrade(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_snapshot *list;
	const char *what = NULL;
	int ret;

	if (qcow2_has_data_file(q))
		what = "an external data file";
	else if (qcow2_is_extended(q))
		what = "extended L2 entries";
	else if (q->compression)
		what = "compression other than zlib";
	else if (q->refcount_order != 4)
		what = "refcounts of another width than 16 bits";
	else if (qcow2_find_ext(q, QCOW2_EXT_BITMAPS))
		what = "bitmaps";
	if (what)
		return error_set(err, -ENOTSUP, "compat=v2 is not possible with %s", what);
	ret = qcow2_snapshots_load(q, &list, err);
	for (uint32_t i = 0; ret == 0 && i < q->nb_snapshots; i++)
		if (list[i].disk_size != q->size || list[i].vm_state_size > UINT32_MAX)
			ret = error_set(err, -ENOTSUP,
					"compat=v2 is not possible with snapshot '%s'",
					list[i].name);
	if (ret == 0 || list)
		qcow2_snapshots_free(list, q->nb_snapshots);
	return ret;
}

static int repair(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_check check = {.fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS};
	int ret = qcow2_check(q->node.file, &check, err);

	if (ret == 0 && (check.corruptions || check.check_errors))
		ret = error_set(err, -EIO, "the image is damaged, repair it first");
	if (ret < 0)
		return ret;
	qcow2_free_header(q);
	return qcow2_read_header(q, err);
}

static int downgrade(struct qcow2 *q, struct hako_error *err)
{
	int ret = can_downgrade(q, err);

	if (ret < 0)
		return ret;
	ret = qcow2_set_incompatible(q, QCOW2_INCOMPAT_DIRTY, 0);
	if (ret < 0)
		return error_errno(err, ret, "marking the image");
	ret = expand_zeroes(q, err);
	if (ret == 0)
		ret = repair(q, err);
	if (ret < 0)
		return ret;
	q->version = 2;
	q->incompatible = q->compatible = q->autoclear = 0;
	qcow2_set_ext(q, QCOW2_EXT_FEATURE_NAMES, NULL, 0);
	return 0;
}

static int upgrade(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_snapshot *list;
	int ret = qcow2_snapshots_load(q, &list, err);

	for (uint32_t i = 0; ret == 0 && i < q->nb_snapshots; i++)
		if (list[i].extra_size < 16)
			ret = error_set(err, -ENOTSUP,
					"compat=v3 is not possible with snapshot '%s', which does "
					"not tell the disk's size",
					list[i].name);
	if (list)
		qcow2_snapshots_free(list, q->nb_snapshots);
	if (ret == 0) {
		q->version = 3;
		q->header_length = sizeof(struct qcow2_header);
	}
	return ret;
}

/* --- the rest ------------------------------------------------------------------------------------ */

static int replace_string(char **field, const char *text)
{
	char *copy = text && *text ? strdup(text) : NULL;

	if (text && *text && !copy)
		return -ENOMEM;
	free(*field);
	*field = copy;
	return 0;
}

static int set_backing(struct qcow2 *q, const char *name, const char *format,
		       struct hako_error *err)
{
	if (*name && strlen(name) > QCOW2_MAX_BACKING_NAME)
		return error_set(err, -EINVAL, "the backing file's name is longer than %u bytes",
				 QCOW2_MAX_BACKING_NAME);
	if (*name && (q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW))
		return error_set(err, -EINVAL,
				 "an image with a raw data file can not have a backing file");
	if (format && *format && !*name)
		return error_set(err, -EINVAL, "backing_fmt needs backing_file");
	if (replace_string(&q->backing_name, name) < 0 ||
	    replace_string(&q->backing_format, format) < 0)
		return error_errno(err, -ENOMEM, "the backing file's name");
	return 0;
}

int qcow2_change_backing(struct block_node *node, const char *name, const char *format,
			 struct hako_error *err)
{
	struct qcow2 *q;
	int ret;

	if (!qcow2_is_node(node))
		return error_set(err, -ENOTSUP, "a %s image can not have a backing file",
				 node->obj.class->name);
	q = qcow2_of(node);
	if (node->read_only)
		return error_set(err, -EROFS, "the image is open for reading only");
	qcow2_freeze(q);
	ret = qcow2_commit_all(q);
	if (ret < 0)
		error_errno(err, ret, "writing what has not been written yet");
	if (ret == 0)
		ret = set_backing(q, name ?: "", format, err);
	if (ret == 0)
		ret = qcow2_write_header(q, err);
	qcow2_thaw(q);
	return ret;
}

static int check_options(const struct qcow2 *q, const struct qcow2_amend *o, struct hako_error *err)
{
	unsigned int version = version_of(o->compat) ?: q->version;

	if (o->refcount_bits > 64 || (o->refcount_bits && !IS_POWER_OF_2(o->refcount_bits)))
		return error_set(err, -EINVAL, "refcount_bits: must be a power of two up to 64");
	if (version == 2 && o->refcount_bits && o->refcount_bits != 16)
		return error_set(err, -EINVAL, "a refcount_bits other than 16 needs compat=v3");
	if (version == 2 && o->lazy_refcounts == ONOFFAUTO_ON)
		return error_set(err, -EINVAL, "lazy_refcounts=on needs compat=v3");
	if (o->data_file && !qcow2_has_data_file(q))
		return error_set(
			err, -EINVAL,
			"data_file: the image has no external data file, and can get none");
	if (o->data_file_raw == ONOFFAUTO_ON && !(q->autoclear & QCOW2_AUTOCLEAR_DATA_FILE_RAW))
		return error_set(err, -EINVAL,
				 "data_file_raw=on is possible only when the image is made");
	if (o->backing_fmt && !o->backing_file && !q->backing_name)
		return error_set(err, -EINVAL, "backing_fmt needs backing_file");
	return 0;
}

/* Fields that only the header has. */
static int set_fields(struct qcow2 *q, const struct qcow2_amend *o, struct hako_error *err)
{
	int ret = 0;

	if (o->backing_file || o->backing_fmt) {
		char *name = strdup(o->backing_file ?: q->backing_name);

		if (!name)
			return error_errno(err, -ENOMEM, "the backing file's name");
		ret = set_backing(q, name, *name ? o->backing_fmt ?: q->backing_format : NULL, err);
		free(name);
	}
	if (ret == 0 && o->data_file && replace_string(&q->data_file_name, o->data_file) < 0)
		ret = error_errno(err, -ENOMEM, "the data file's name");
	if (o->data_file_raw == ONOFFAUTO_OFF)
		q->autoclear &= ~QCOW2_AUTOCLEAR_DATA_FILE_RAW;
	if (o->lazy_refcounts == ONOFFAUTO_ON)
		q->compatible |= QCOW2_COMPAT_LAZY_REFCOUNTS;
	if (o->lazy_refcounts == ONOFFAUTO_OFF)
		q->compatible &= ~QCOW2_COMPAT_LAZY_REFCOUNTS;
	return ret;
}

static int amend(struct qcow2 *q, const struct qcow2_amend *o, struct hako_error *err)
{
	unsigned int version = version_of(o->compat);
	int ret = check_options(q, o, err);

	if (ret == 0 && (q->incompatible & QCOW2_INCOMPAT_CORRUPT))
		ret = error_set(err, -EIO, "the image is damaged, repair it first");
	if (ret == 0 && (q->incompatible & QCOW2_INCOMPAT_DIRTY))
		ret = repair(q, err);
	if (ret == 0 && version == 3 && q->version == 2) {
		ret = upgrade(q, err);
		if (ret == 0 && o->refcount_bits && o->refcount_bits != 16)
			ret = qcow2_write_header(q, err);
	}
	if (ret == 0 && o->refcount_bits && o->refcount_bits != 1u << q->refcount_order) {
		ret = qcow2_change_refcount_order(q->node.file, __builtin_ctz(o->refcount_bits),
						  err);
		qcow2_free_header(q);
		if (ret == 0)
			ret = qcow2_read_header(q, err);
	}
	if (ret == 0 && version == 2 && q->version == 3)
		ret = downgrade(q, err);
	if (ret == 0)
		ret = set_fields(q, o, err);
	return ret < 0 ? ret : qcow2_write_header(q, err);
}

int qcow2_amend(struct block_node *file, const struct qcow2_amend *options, struct hako_error *err)
{
	struct qcow2 *q = calloc(1, sizeof(*q));
	int ret;

	if (!q)
		return error_errno(err, -ENOMEM, "amend");
	q->node.file = file;
	ret = qcow2_read_header(q, err);
	if (ret == 0)
		ret = amend(q, options, err);
	qcow2_free_header(q);
	free(q);
	return ret;
}
