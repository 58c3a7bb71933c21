/* SPDX-License-Identifier: GPL-2.0-only */
/* QCOW2: the node, from its options to its end. */
#include <stdlib.h>

#include "qcow2_manage.h"
#include "vmm/vm.h"

#define SWAP(a, b)                      \
	do {                            \
		__typeof__(a) t_ = (a); \
		(a) = (b);              \
		(b) = t_;               \
	} while (0)

#define SLICE_BITS     12 /* of both caches: what is read at once */
#define L2_CACHE_MAX   (128 * MiB)
#define L2_CACHE_MIN   (256 * KiB)
#define REFCOUNT_CACHE (256 * KiB)
#define MAX_LENGTH     (BIT64(63) - 1)

static const struct block_ops qcow2_ops;

bool qcow2_is_node(const struct block_node *node)
{
	return node->ops == &qcow2_ops;
}

/* --- opening ----------------------------------------------------------------------------------- */

static unsigned int log2_of(uint64_t v)
{
	return 63 - __builtin_clzll(v);
}

static int find_geometry(struct qcow2 *q, struct hako_error *err)
{
	uint64_t entry = q->opt.l2_entry_size;
	unsigned int slice = MIN(q->cluster_bits, SLICE_BITS);

	if (entry && (!IS_POWER_OF_2(entry) || entry < 512 || entry > q->cluster_size))
		return error_set(
			err, -EINVAL,
			"l2-cache-entry-size: %llu is not a power of two between 512 and the cluster size",
			(unsigned long long)entry);
	if (q->size > MAX_LENGTH)
		return error_set(err, -EFBIG, "a disk of %llu bytes is too large",
				 (unsigned long long)q->size);
	q->l2_entry_shift = qcow2_is_extended(q) ? 4 : 3;
	q->l2_bits = q->cluster_bits - q->l2_entry_shift;
	q->subcluster_bits = q->cluster_bits -
			     (qcow2_is_extended(q) ? log2_of(QCOW2_SUBCLUSTERS) : 0);
	q->l2.bits = entry ? log2_of(entry) : slice;
	q->slice_shift = q->cluster_bits + q->l2.bits - q->l2_entry_shift;
	q->refblocks.bits = slice;
	q->refblock_bits = q->cluster_bits + 3 - q->refcount_order;
	q->refslice_shift = slice + 3 - q->refcount_order;
	q->refcount_max = q->refcount_order == 6 ? UINT64_MAX : BIT64(1u << q->refcount_order) - 1;
	q->not_plain = ~(QCOW2_COPIED | (QCOW2_L2_OFFSET & ~(q->cluster_size - 1)));
	if (qcow2_is_extended(q) || qcow2_has_data_file(q))
		q->not_plain = UINT64_MAX; /* a bitmap, or rules of its own */
	return 0;
}

/* As in QEMU: cache-size is for both; what one of them does not say is left for the other. */
static int init_caches(struct qcow2 *q, struct hako_error *err)
{
	uint64_t cover = ((q->size >> q->cluster_bits) + 1) << q->l2_entry_shift,
		 l2 = q->opt.l2_cache_size;
	uint64_t refcounts = q->opt.refcount_cache_size, both = q->opt.cache_size;
	int ret;

	if (both && l2 + refcounts > both)
		return error_set(err, -EINVAL,
				 "l2-cache-size and refcount-cache-size are more than cache-size");
	if (both && !l2)
		l2 = MIN(cover, both - (refcounts ?: MIN(REFCOUNT_CACHE, both / 4)));
	if (both && !refcounts)
		refcounts = both - l2;
	if (!l2)
		l2 = MAX(MIN(cover, L2_CACHE_MAX), L2_CACHE_MIN);
	ret = qcow2_cache_init(&q->l2, q->l2.bits, l2);
	if (ret == 0)
		ret = qcow2_cache_init(&q->refblocks, q->refblocks.bits,
				       refcounts ?: REFCOUNT_CACHE);
	return ret < 0 ? error_errno(err, ret, "caches") : 0;
}

static int check_snapshots(const struct qcow2 *q, struct hako_error *err)
{
	if (q->nb_snapshots > QCOW2_MAX_SNAPSHOTS)
		return error_set(err, -EFBIG, "%u snapshots: at most %u are supported",
				 q->nb_snapshots, QCOW2_MAX_SNAPSHOTS);
	if (q->nb_snapshots &&
	    (q->snapshots_offset & (q->cluster_size - 1) || !q->snapshots_offset ||
	     q->snapshots_offset >= READ_ONCE(q->node.file->length)))
		return error_set(err, -EINVAL,
				 "the snapshot table is at offset %llu, which can not be",
				 (unsigned long long)q->snapshots_offset);
	return 0;
}

static int open_image(struct qcow2 *q, struct hako_error *err)
{
	int ret = qcow2_read_header(q, err);

	if (ret == 0)
		ret = find_geometry(q, err);
	if (ret == 0)
		ret = check_snapshots(q, err);
	if (ret == 0)
		ret = qcow2_load_l1(q, err);
	if (ret == 0)
		ret = qcow2_load_reftable(q, err);
	if (ret == 0)
		ret = init_caches(q, err);
	if (ret == 0 && (q->incompatible & QCOW2_INCOMPAT_CORRUPT))
		q->corrupt = true;
	return ret;
}

/* --- the nodes below --------------------------------------------------------------------------- */

static int open_data_file(struct qcow2 *q, struct hako_error *err)
{
	struct block_node *node = &q->node;
	bool given = q->opt.data_file.id || q->opt.data_file.kv.n;

	q->data = node->file;
	if (!qcow2_has_data_file(q))
		return given ? error_set(err, -EINVAL, "data-file: the image has its data inside")
			     : 0;
	if (!given && !q->data_file_name)
		return error_set(
			err, -EINVAL,
			"the image has its data in another file, and does not name it: data-file=… is missing");
	if (block_open_named_child(node, "data-file", &q->opt.data_file, BLOCK_ROLE_FILE,
				   q->data_file_name, "file", &node->data, err) < 0)
		return -EINVAL;
	q->data = node->data;
	return 0;
}

/* Which loops it would be that stand on themselves, the opening of nodes sees. */
static int open_below(struct qcow2 *q, struct hako_error *err)
{
	struct block_node *node = &q->node;
	int ret = open_data_file(q, err);

	if (ret == 0)
		ret = block_open_named_child(node, "backing", &q->opt.backing, BLOCK_ROLE_BACKING,
					     q->backing_name, q->backing_format, &node->backing,
					     err);
	return ret;
}

static void set_limits(struct qcow2 *q)
{
	struct block_node *node = &q->node;

	block_take_limits(node, q->data);
	node->read_only |= node->file->read_only;
	node->length = ALIGN_UP(q->size, 512ull);
	node->can_write_zeroes = node->writeback = !node->read_only;
	node->can_discard &= !node->read_only;
}

static void close_image(struct qcow2 *q)
{
	qcow2_cache_free(&q->l2);
	qcow2_cache_free(&q->refblocks);
	qcow2_meta_free(q);
	qcow2_codec_free(q);
	qcow2_free_header(q);
	free(q->l1);
	free(q->l1_dirty);
	free(q->reftable);
	free(q->reftable_dirty);
	free(q->frees);
	block_node_free(&q->node);
}

static int qcow2_create(struct object *obj, struct hako_error *err)
{
	struct qcow2 *q = container_of(obj, struct qcow2, node.obj);
	struct block_node *node = &q->node;
	int ret = block_node_init(node, &qcow2_ops, err);

	list_init(&q->inflight);
	list_init(&q->loads);
	list_init(&q->l2.tables);
	list_init(&q->refblocks.tables);
	if (ret == 0)
		ret = block_open_child(node, "file", &q->opt.file, BLOCK_ROLE_FILE, &node->file,
				       err);
	if (ret == 0) {
		ret = open_image(q, err);
		if (ret < 0 && block_filename(node))
			error_prefix(err, "%s", block_filename(node));
	}
	if (ret == 0)
		ret = open_below(q, err);
	if (ret < 0)
		close_image(q);
	else
		set_limits(q);
	return ret;
}

/* What was not flushed goes to the file now; the image is consistent if that fails. */
static void finish_writing(struct qcow2 *q)
{
	struct hako_error err;

	if (!q->writing)
		return;
	if (qcow2_bitmaps_stop(q, &err) < 0)
		vm_log(q->node.obj.vm, "%s: %s", q->node.obj.id ?: "qcow2", err.message);
	if (qcow2_commit_all(q) < 0)
		vm_log(q->node.obj.vm, "%s: the image could not be closed as it should be",
		       q->node.obj.id ?: "qcow2");
	qcow2_trim(q);
	q->writing = false;
}

static void qcow2_destroy(struct object *obj)
{
	struct qcow2 *q = container_of(obj, struct qcow2, node.obj);

	finish_writing(q);
	close_image(q);
}

/* --- use --------------------------------------------------------------------------------------- */

static bool wants_lazy(const struct qcow2 *q)
{
	if (q->version < 3 || q->opt.lazy_refcounts == ONOFFAUTO_OFF)
		return false;
	return q->opt.lazy_refcounts == ONOFFAUTO_ON ||
	       (q->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS);
}

/* The tables once more; if that fails, those there are remain, which are good enough for reading. */
static int reload_tables(struct qcow2 *q, struct hako_error *err)
{
	uint64_t *l1 = q->l1, *reftable = q->reftable;
	uint8_t *l1_dirty = q->l1_dirty, *reftable_dirty = q->reftable_dirty;
	uint32_t l1_size = q->l1_size, reftable_size = q->reftable_size;
	int ret;

	qcow2_free_header(q);
	ret = qcow2_read_header(q, err);
	q->l1 = q->reftable = NULL;
	q->l1_dirty = q->reftable_dirty = NULL;
	if (ret == 0)
		ret = qcow2_load_reftable(q, err);
	if (ret == 0)
		ret = qcow2_load_l1(q, err);
	if (ret < 0) {
		SWAP(q->l1, l1);
		SWAP(q->l1_dirty, l1_dirty);
		SWAP(q->reftable, reftable);
		SWAP(q->reftable_dirty, reftable_dirty);
		q->l1_size = l1_size;
		q->reftable_size = reftable_size;
	}
	free(l1);
	free(l1_dirty);
	free(reftable);
	free(reftable_dirty);
	return ret;
}

/* The refcounts may be wrong, of lazy refcounts or of a change that was interrupted: make them right, and start anew. */
static int repair(struct qcow2 *q, struct hako_error *err)
{
	struct qcow2_check check = {.fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS};
	int ret = qcow2_check(q->node.file, &check, err);

	if (ret < 0)
		return ret;
	if (check.corruptions || check.check_errors) {
		error_set(err, -EROFS, "%llu errors are left after a repair",
			  (unsigned long long)(check.corruptions + check.check_errors));
		return error_hint(err, "read-only=on reads it as it is");
	}
	qcow2_cache_drop(&q->l2);
	qcow2_cache_drop(&q->refblocks);
	return reload_tables(q, err);
}

static int begin_writing(struct qcow2 *q, struct hako_error *err)
{
	struct hako_error overlap;
	int ret;

	if (q->incompatible & QCOW2_INCOMPAT_CORRUPT) {
		error_set(err, -EROFS, "the image is marked corrupt");
		return error_hint(
			err,
			"'hako img check -r all' may repair it; read-only=on reads it as it is");
	}
	ret = q->incompatible & QCOW2_INCOMPAT_DIRTY ? repair(q, err) : 0;
	if (ret < 0)
		return error_prefix(err, "the image was not closed properly");
	q->lazy = wants_lazy(q);
	q->high_water = qcow2_file_clusters(q) << q->cluster_bits;
	q->old_length = READ_ONCE(q->node.file->length);
	q->writing = true;
	ret = q->opt.overlap_check ? qcow2_meta_build(q, &overlap) : 0;
	if (ret == -EIO)
		qcow2_corrupt(q, "%s", overlap.message);
	else if (ret < 0)
		return error_set(err, ret, "%s", overlap.message);
	if (!q->corrupt)
		ret = qcow2_bitmaps_start(q, err);
	q->writing = ret == 0 || q->corrupt;
	return q->corrupt ? 0 : ret;
}

static int qcow2_use(struct block_node *node, unsigned int use, struct hako_error *err)
{
	struct qcow2 *q = qcow2_of(node);

	if (!(use & BLOCK_USE_WRITE))
		finish_writing(q);
	return (use & BLOCK_USE_WRITE) && !q->writing ? begin_writing(q, err) : 0;
}

static void qcow2_unuse(struct block_node *node)
{
	finish_writing(qcow2_of(node));
}

/* --- loops ------------------------------------------------------------------------------------- */

static void clean(struct loop_timer *timer)
{
	struct qcow2 *q = container_of(timer, struct qcow2, clean_timer);

	if (!q->lock.locked) {
		qcow2_cache_expire(&q->l2);
		qcow2_cache_expire(&q->refblocks);
	}
	loop_timer_set(q->home, timer, clock_now() + q->opt.clean_interval * NSEC_PER_SEC);
}

static void at_home(void *arg)
{
	struct qcow2 *q = arg;

	q->clean_timer.fn = clean;
	if (q->opt.clean_interval)
		loop_timer_set(q->home, &q->clean_timer,
			       clock_now() + q->opt.clean_interval * NSEC_PER_SEC);
}

static int leave_home(void *arg)
{
	struct qcow2 *q = arg;

	loop_timer_cancel(&q->clean_timer);
	qcow2_wait_grown(q);
	return 0;
}

/* The loop that comes first serves all; it must be able to do so until the last has gone. */
static int keep_below(struct qcow2 *q, struct loop *loop, struct hako_error *err)
{
	struct block_node *const below[] = {q->node.file, q->node.data, q->node.backing};
	int ret = 0;

	for (size_t i = 0; i < ARRAY_SIZE(below) && ret == 0; i++) {
		if (!below[i])
			continue;
		ret = block_attach(below[i], loop, err);
		while (ret < 0 && i-- > 0)
			if (below[i])
				block_detach(below[i], loop);
		if (ret < 0)
			break;
	}
	return ret;
}

static void release_below(struct qcow2 *q, struct loop *loop)
{
	struct block_node *const below[] = {q->node.file, q->node.data, q->node.backing};

	for (size_t i = 0; i < ARRAY_SIZE(below); i++)
		if (below[i])
			block_detach(below[i], loop);
}

static int qcow2_attach(struct block_node *node, struct loop *loop, struct hako_error *err)
{
	struct qcow2 *q = qcow2_of(node);
	int ret;

	if (!q->home) {
		ret = keep_below(q, loop, err);
		if (ret < 0)
			return ret;
		WRITE_ONCE(q->home, loop);
		loop_call(loop, at_home, q);
	}
	q->attached++;
	return 0;
}

static void qcow2_detach(struct block_node *node, struct loop *loop)
{
	struct qcow2 *q = qcow2_of(node);
	struct loop *home = q->home;

	if (--q->attached)
		return;
	co_run(home, leave_home, q);
	WRITE_ONCE(q->home, NULL);
	release_below(q, home);
}

/* --- the class --------------------------------------------------------------------------------- */

static const struct block_ops qcow2_ops = {
	.submit = qcow2_submit,
	.sync = qcow2_sync,
	.use = qcow2_use,
	.unuse = qcow2_unuse,
	.attach = qcow2_attach,
	.detach = qcow2_detach,
	.status = qcow2_status,
	.resize = qcow2_resize,
};

static const char *const overlap_names[] = {"none", "constant", "cached", "all", NULL};

#define OPT(F) opt.F

static const struct option qcow2_options[] = {
	OPT_NODE("file", struct qcow2, OPT(file), "the node that holds the image"),
	OPT_NODE("backing", struct qcow2, OPT(backing),
		 "the node with what this image does not have; default: what the image names"),
	OPT_NODE("data-file", struct qcow2, OPT(data_file),
		 "the node with the data, if the image keeps it outside; likewise"),
	OPT_ONOFFAUTO("lazy-refcounts", struct qcow2, OPT(lazy_refcounts), "auto",
		      "write refcounts at the end only; auto: as the image says"),
	OPT_BOOL("pass-discard-request", struct qcow2, OPT(discard_request), "on",
		 "the guest's discards reach the file"),
	OPT_BOOL("pass-discard-snapshot", struct qcow2, OPT(discard_snapshot), "on",
		 "so does the space of snapshots that are deleted"),
	OPT_BOOL("pass-discard-other", struct qcow2, OPT(discard_other), "off",
		 "so does other space that becomes free"),
	OPT_ENUM("overlap-check", struct qcow2, OPT(overlap_check), "cached", overlap_names,
		 "keep guest data off the image's own tables: none, or all that are known"),
	OPT_SIZE("cache-size", struct qcow2, OPT(cache_size), NULL, 0, 0,
		 "bytes for both caches together"),
	OPT_SIZE("l2-cache-size", struct qcow2, OPT(l2_cache_size), NULL, 0, 0,
		 "bytes for tables of where data is; default: for all of the disk, up to 128M"),
	OPT_SIZE("l2-cache-entry-size", struct qcow2, OPT(l2_entry_size), NULL, 0, 2 * MiB,
		 "bytes of these tables that are read at once; default 4K"),
	OPT_SIZE("refcount-cache-size", struct qcow2, OPT(refcount_cache_size), NULL, 0, 0,
		 "bytes for tables of what is in use; default 256K"),
	OPT_UINT("cache-clean-interval", struct qcow2, OPT(clean_interval), "600", 0, UINT32_MAX,
		 "seconds after which tables that were not used are let go; 0: never"),
	OPT_END,
};

static int qcow2_probe(const uint8_t *buf, size_t len)
{
	uint32_t magic, version;

	if (len < 8)
		return 0;
	memcpy(&magic, buf, 4);
	memcpy(&version, buf + 4, 4);
	return be32toh(magic) == QCOW2_MAGIC && be32toh(version) >= 2 ? 100 : 0;
}

static const struct block_class qcow2_block_class = {
	.is_format = true,
	.probe = qcow2_probe,
};

static const struct class qcow2_class = {
	.name = "qcow2",
	.help = "QCOW2 image",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct qcow2),
	.options = qcow2_options,
	.bus_options = block_node_options,
	.ops = &qcow2_block_class,
	.create = qcow2_create,
	.destroy = qcow2_destroy,
	.confine = qcow2_confine,
};
HAKO_CLASS(qcow2_class);
