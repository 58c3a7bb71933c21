/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-blk (virtio 1.2, section 5.2). A request goes from the ring to the disk node as it is: the node's buffers are the guest's, less
 * the header in front and the status byte behind, wherever the driver has put the borders between descriptors.
 */
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "devices/block/block.h"
#include "mapping.h"
#include "virtio.h"
#include "vmm/vm.h"

#define INLINE_IOVECS 8 /* larger requests take a chunk of iovecs */
#define CONFIG_SIZE   (offsetof(struct virtio_blk_config, unused1) + 3)

struct blk_queue;

struct blk_req {
	struct block_req block;
	struct blk_queue *q;
	struct blk_req *next; /* free ones */
	uint8_t *status;
	struct iovec *chunk; /* or NULL */
	uint32_t in_len;
	struct virtq_head head;
	struct iovec iov[INLINE_IOVECS];
};

/*
 * Memory of a queue's requests, between start and stop; the queue's loop's. What has been used last is used first, and what has never
 * been used is never touched, so that a queue takes the memory that its depth needs.
 */
struct blk_queue {
	struct virtio_blk *blk;
	struct virtqueue *vq;
	struct iovec *scratch; /* VIRTIO_MAX_SEGMENTS */
	struct blk_req *reqs, *free_reqs;
	unsigned int fresh_reqs;	    /* index of the first that has never been used */
	struct iovec *chunks, *free_chunks; /* of seg_max each; a free one points to the next */
	unsigned int fresh_chunks;
};

/* The ids of the chains that wait for the VM to be resumed (virtq_park()), vq->nparked of them. Saved. */
struct blk_parked {
	uint16_t heads[VIRTIO_QUEUE_MAX_SIZE];
};

/* What to do with a request that failed: QEMU's BlockdevOnError. */
enum blk_on_error {
	ON_ERROR_AUTO, /* report; for writes, enospc */
	ON_ERROR_REPORT,
	ON_ERROR_IGNORE,
	ON_ERROR_STOP,
	ON_ERROR_ENOSPC, /* stop if there is no space, else report */
};

struct virtio_blk {
	struct virtio_device vdev;

	/* Options. */
	char *drive, *serial, *iothread;
	uint32_t logical_block_size, physical_block_size;
	uint16_t num_queues, queue_size;
	int write_cache;    /* enum option_onoffauto */
	int rerror, werror; /* enum blk_on_error */
	struct option_tree mapping;
	bool discard, write_zeroes, share_rw;

	struct block_node *node;
	struct virtio_blk_config config;
	uint64_t capacity; /* in sectors of 512 bytes; atomic: the node may be resized */
	uint32_t seg_max;
	uint8_t wce; /* atomic: config.wce. Saved. */
	struct blk_queue *queues;
	struct blk_parked *parked; /* for each queue */
};

static struct virtio_blk *to_blk(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_blk, vdev);
}

/* --- memory of requests ------------------------------------------------------------------------ */

/* There is one for each chain that can be in flight. */
static struct blk_req *req_get(struct blk_queue *q)
{
	struct blk_req *req = q->free_reqs;

	if (req) {
		q->free_reqs = req->next;
	} else {
		req = &q->reqs[q->fresh_reqs++];
		req->q = q;
	}
	req->chunk = NULL;
	return req;
}

static struct iovec *chunk_get(struct blk_queue *q)
{
	struct iovec *chunk = q->free_chunks;
	size_t size = q->blk->seg_max;

	if (chunk) {
		q->free_chunks = chunk->iov_base;
		return chunk;
	}
	if (!q->chunks)
		q->chunks = malloc(q->vq->max_size * size * sizeof(*chunk));
	return q->chunks ? q->chunks + q->fresh_chunks++ * size : NULL;
}

static void req_put(struct blk_req *req)
{
	struct blk_queue *q = req->q;

	if (req->chunk) {
		req->chunk->iov_base = q->free_chunks;
		q->free_chunks = req->chunk;
	}
	req->next = q->free_reqs;
	q->free_reqs = req;
}

static void queue_free(struct blk_queue *q)
{
	free(q->scratch);
	free(q->reqs);
	free(q->chunks);
	*q = (struct blk_queue){0};
}

static int queue_alloc(struct blk_queue *q, struct virtio_blk *blk, struct virtqueue *vq)
{
	*q = (struct blk_queue){
		.blk = blk,
		.vq = vq,
		.scratch = malloc(VIRTIO_MAX_SEGMENTS * sizeof(*q->scratch)),
		.reqs = malloc(vq->max_size * sizeof(*q->reqs)),
	};
	return q->scratch && q->reqs ? 0 : -ENOMEM;
}

/* --- completion -------------------------------------------------------------------------------- */

static void req_finish(struct blk_req *req, uint8_t status)
{
	*req->status = status;
	virtq_push(req->q->vq, req->head, req->in_len);
	req_put(req);
}

static enum blk_on_error on_error(const struct virtio_blk *blk, enum block_op op, int res)
{
	enum blk_on_error action = op == BLOCK_READ ? blk->rerror : blk->werror;

	if (action == ON_ERROR_AUTO)
		action = op == BLOCK_READ ? ON_ERROR_REPORT : ON_ERROR_ENOSPC;
	if (action == ON_ERROR_ENOSPC)
		action = res == -ENOSPC ? ON_ERROR_STOP : ON_ERROR_REPORT;
	/* virtq_park() is for split rings. */
	if (action == ON_ERROR_STOP && virtio_has_feature(&blk->vdev, VIRTIO_F_RING_PACKED))
		action = ON_ERROR_REPORT;
	return action;
}

static void failed(struct blk_req *req, int res)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "write of zeroes"};
	const struct block_req *b = &req->block;
	struct virtio_blk *blk = req->q->blk;
	struct virtqueue *vq = req->q->vq;
	const char *name = blk->vdev.obj.id ?: blk->drive;

	switch (on_error(blk, b->op, res)) {
	case ON_ERROR_IGNORE:
		req_finish(req, VIRTIO_BLK_S_OK);
		break;
	case ON_ERROR_STOP:
		vm_pause_for_error(blk->vdev.obj.vm, "%s: %s of %llu bytes at %llu: %s", name,
				   names[b->op], (unsigned long long)b->bytes,
				   (unsigned long long)b->offset, strerror(-res));
		blk->parked[vq->index].heads[vq->nparked] = req->head.id;
		req_put(req);
		virtq_park(vq);
		break;
	default:
		vm_log(blk->vdev.obj.vm, "%s: %s of %llu bytes at %llu: %s", name, names[b->op],
		       (unsigned long long)b->bytes, (unsigned long long)b->offset, strerror(-res));
		req_finish(req, res == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
	}
}

static void block_done(struct block_req *block, int res)
{
	struct blk_req *req = container_of(block, struct blk_req, block);

	if (likely(!res))
		req_finish(req, VIRTIO_BLK_S_OK);
	else
		failed(req, res);
}

/* --- requests ---------------------------------------------------------------------------------- */

/*
 * 5.2.6.2: what is not to be cached must be on the medium when the request is complete. A driver that can not switch the cache has what the
 * user says; one that can not flush has none.
 */
static uint32_t durability(struct virtio_blk *blk)
{
	bool can_cache = virtio_has_feature(&blk->vdev, VIRTIO_BLK_F_FLUSH) ||
			 virtio_has_feature(&blk->vdev, VIRTIO_BLK_F_CONFIG_WCE);

	return can_cache && READ_ONCE(blk->wce) ? 0 : BLOCK_FUA;
}

static bool range_ok(const struct virtio_blk *blk, uint64_t sector, uint64_t sectors)
{
	uint64_t mask = blk->logical_block_size / 512 - 1, capacity = READ_ONCE(blk->capacity);

	return sector <= capacity && sectors <= capacity - sector && !((sector | sectors) & mask);
}

static void submit(struct blk_req *req, enum block_op op, uint32_t flags, uint64_t offset,
		   uint64_t bytes)
{
	struct block_req *b = &req->block;

	b->op = op;
	b->flags = flags;
	b->offset = offset;
	b->bytes = bytes;
	b->done = block_done;
	b->loop = req->q->vq->loop;
	block_submit(req->q->blk->node, b);
}

/* @iov: the data, in the queue's scratch memory. */
static void read_write(struct blk_req *req, bool write, uint64_t sector, uint64_t bytes,
		       const struct iovec *iov, unsigned int n)
{
	struct virtio_blk *blk = req->q->blk;
	struct iovec *copy = req->iov;

	if (bytes % 512 || !range_ok(blk, sector, bytes / 512) || n > blk->seg_max ||
	    (write && blk->node->read_only)) {
		req_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (n > INLINE_IOVECS)
		copy = req->chunk = chunk_get(req->q);
	if (!copy) {
		req_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	memcpy(copy, iov, n * sizeof(*iov));
	req->block.iov = copy;
	req->block.niov = n;
	submit(req, write ? BLOCK_WRITE : BLOCK_READ, write ? durability(blk) : 0, sector * 512,
	       bytes);
}

/* 5.2.6: one range, since max_discard_seg and max_write_zeroes_seg are 1. */
static void discard_or_zero(struct blk_req *req, bool zero, const struct iovec *iov, unsigned int n,
			    size_t len)
{
	struct virtio_blk *blk = req->q->blk;
	unsigned int feature = zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD;
	uint32_t allowed = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0, flags, sectors;
	struct virtio_blk_discard_write_zeroes range = {0};
	uint8_t status = VIRTIO_BLK_S_IOERR;
	uint64_t sector;

	iov_read(iov, n, 0, &range, sizeof(range));
	sector = le64toh(range.sector);
	sectors = le32toh(range.num_sectors);
	flags = le32toh(range.flags);
	if (!virtio_has_feature(&blk->vdev, feature) || (flags & ~allowed))
		status = VIRTIO_BLK_S_UNSUPP;
	else if (len == sizeof(range) && range_ok(blk, sector, sectors) &&
		 sectors <= blk->node->max_discard_bytes / 512 && !blk->node->read_only)
		status = VIRTIO_BLK_S_OK;
	if (status != VIRTIO_BLK_S_OK) {
		req_finish(req, status);
		return;
	}
	submit(req, zero ? BLOCK_WRITE_ZEROES : BLOCK_DISCARD,
	       zero ? durability(blk) | (flags ? BLOCK_UNMAP : 0) : 0, sector * 512,
	       sectors * 512ull);
}

static void get_id(struct blk_req *req, const struct iovec *iov, unsigned int n)
{
	char id[VIRTIO_BLK_ID_BYTES] = "";
	const char *serial = req->q->blk->serial;

	if (serial)
		memcpy(id, serial, MIN(strlen(serial), sizeof(id)));
	iov_write(iov, n, 0, id, sizeof(id));
	req_finish(req, VIRTIO_BLK_S_OK);
}

/* 5.2.6: header, data and status may be cut into descriptors in any way (2.7.4), except that the device writes only what is writable. */
static void request(struct blk_queue *q, const struct virtq_chain *chain)
{
	struct iovec *iov = q->scratch, *out = iov, *in = iov + chain->nout, *last;
	struct virtio_blk_outhdr hdr = {0};
	unsigned int nout, nin = chain->nin;
	struct blk_req *req;

	if (!chain->in_len) {
		virtio_broken(&q->blk->vdev, "request without a status byte");
		virtq_push(q->vq, chain->head, 0);
		return;
	}
	req = req_get(q);
	req->head = chain->head;
	req->in_len = chain->in_len;
	last = &in[nin - 1];
	last->iov_len--;
	req->status = (uint8_t *)last->iov_base + last->iov_len;
	nin -= !last->iov_len;
	if (iov_read(out, chain->nout, 0, &hdr, sizeof(hdr)) < sizeof(hdr)) {
		req_finish(req, VIRTIO_BLK_S_IOERR);
		return;
	}
	nout = iov_skip(&out, chain->nout, sizeof(hdr));

	switch (le32toh(hdr.type)) {
	case VIRTIO_BLK_T_IN:
		read_write(req, false, le64toh(hdr.sector), chain->in_len - 1, in, nin);
		break;
	case VIRTIO_BLK_T_OUT:
		read_write(req, true, le64toh(hdr.sector), chain->out_len - sizeof(hdr), out, nout);
		break;
	case VIRTIO_BLK_T_FLUSH:
		submit(req, BLOCK_FLUSH, 0, 0, 0);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(req, in, nin);
		break;
	case VIRTIO_BLK_T_DISCARD:
		discard_or_zero(req, false, out, nout, chain->out_len - sizeof(hdr));
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		discard_or_zero(req, true, out, nout, chain->out_len - sizeof(hdr));
		break;
	default:
		req_finish(req, VIRTIO_BLK_S_UNSUPP);
	}
}

/* The VM goes on: once more what failed before. */
static void retry(struct blk_queue *q)
{
	const struct blk_parked *parked = &q->blk->parked[q->vq->index];
	struct virtq_chain chain;

	/* None is parked anew before this has come to its end. */
	for (unsigned int i = 0, n = q->vq->nparked; i < n; i++)
		if (virtq_unpark(q->vq, parked->heads[i], &chain, q->scratch,
				 VIRTIO_MAX_SEGMENTS) == 1)
			request(q, &chain);
}

static void blk_hurry(struct virtqueue *vq)
{
	block_hurry(to_blk(vq->vdev)->node, vq->loop);
}

static void blk_handle(struct virtqueue *vq)
{
	struct blk_queue *q = vq->opaque;
	struct virtq_chain chain;

	if (unlikely(vq->nparked) && vq->starting)
		retry(q);
	while (virtq_pop(vq, &chain, q->scratch, VIRTIO_MAX_SEGMENTS) == 1)
		request(q, &chain);
}

/* --- the device -------------------------------------------------------------------------------- */

static uint64_t blk_features(struct virtio_device *vdev)
{
	const struct virtio_blk *blk = to_blk(vdev);
	uint64_t f = BIT64(VIRTIO_BLK_F_SEG_MAX) | BIT64(VIRTIO_BLK_F_BLK_SIZE) |
		     BIT64(VIRTIO_BLK_F_TOPOLOGY);

	if (vdev->nqueues > 1)
		f |= BIT64(VIRTIO_BLK_F_MQ);
	if (blk->node->read_only)
		return f | BIT64(VIRTIO_BLK_F_RO);
	f |= BIT64(VIRTIO_BLK_F_FLUSH) | BIT64(VIRTIO_BLK_F_CONFIG_WCE);
	if (blk->discard && blk->node->can_discard)
		f |= BIT64(VIRTIO_BLK_F_DISCARD);
	if (blk->write_zeroes && blk->node->can_write_zeroes)
		f |= BIT64(VIRTIO_BLK_F_WRITE_ZEROES);
	return f;
}

static bool initial_wce(const struct virtio_blk *blk)
{
	return blk->write_cache == ONOFFAUTO_ON ||
	       (blk->write_cache == ONOFFAUTO_AUTO && blk->node->writeback);
}

static bool blk_accept_features(struct virtio_device *vdev, uint64_t features)
{
	struct virtio_blk *blk = to_blk(vdev);

	/* A new driver, hence the value after reset. */
	WRITE_ONCE(blk->wce, initial_wce(blk));
	return true;
}

static void blk_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	struct virtio_blk *blk = to_blk(vdev);

	blk->config.wce = READ_ONCE(blk->wce);
	memcpy(buf, (uint8_t *)&blk->config + offset, len);
}

static void blk_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     uint32_t len)
{
	const uint32_t wce = offsetof(struct virtio_blk_config, wce);

	if (virtio_has_feature(vdev, VIRTIO_BLK_F_CONFIG_WCE) && offset <= wce &&
	    offset + len > wce)
		WRITE_ONCE(to_blk(vdev)->wce, ((const uint8_t *)buf)[wce - offset] & 1);
}

static void blk_stop(struct virtio_device *vdev)
{
	struct virtio_blk *blk = to_blk(vdev);

	for (uint32_t i = 0; i < vdev->nqueues; i++) {
		if (blk->queues[i].blk)
			block_detach(blk->node, vdev->vq[i].loop);
		queue_free(&blk->queues[i]);
	}
}

static int blk_start(struct virtio_device *vdev)
{
	struct virtio_blk *blk = to_blk(vdev);
	int ret = 0;

	for (uint32_t i = 0; i < vdev->nqueues && ret == 0; i++) {
		struct blk_queue *q = &blk->queues[i];

		ret = queue_alloc(q, blk, &vdev->vq[i]);
		if (ret == 0)
			ret = block_attach(blk->node, vdev->vq[i].loop, NULL);
		if (ret < 0)
			queue_free(q);
		vdev->vq[i].opaque = q;
	}
	if (ret < 0)
		blk_stop(vdev);
	return ret;
}

static const struct virtio_ops blk_ops = {
	.name = "virtio-blk",
	.device_id = VIRTIO_ID_BLOCK,
	.pci_class = 0x010000, /* as QEMU's: SCSI storage */
	.config_size = CONFIG_SIZE,
	.features = blk_features,
	.accept_features = blk_accept_features,
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.start = blk_start,
	.stop = blk_stop,
	.handle = blk_handle,
	.hurry = blk_hurry,
};

static void find_capacity(struct virtio_blk *blk)
{
	uint64_t length = READ_ONCE(blk->node->length);

	WRITE_ONCE(blk->capacity, ALIGN_DOWN(length, (uint64_t)blk->logical_block_size) / 512);
	WRITE_ONCE(blk->config.capacity, htole64(blk->capacity));
}

/* 5.2.6: a change of capacity is a change of configuration. */
static void blk_resized(const void *user)
{
	struct virtio_blk *blk = (void *)user;

	find_capacity(blk);
	virtio_config_changed(&blk->vdev);
}

/* 5.2.4; all of it is constant but capacity and wce. No limit on the size of a segment (SIZE_MAX): there is none. */
static void make_config(struct virtio_blk *blk)
{
	struct virtio_blk_config *c = &blk->config;
	const struct block_node *node = blk->node;
	uint32_t max_sectors = node->max_discard_bytes / 512;

	find_capacity(blk);
	blk->seg_max = blk->queue_size - 2;
	c->seg_max = htole32(blk->seg_max);
	c->blk_size = htole32(blk->logical_block_size);
	c->physical_block_exp = __builtin_ctz(blk->physical_block_size) -
				__builtin_ctz(blk->logical_block_size);
	c->min_io_size = htole16(MIN(blk->physical_block_size / blk->logical_block_size, 0xffffu));
	c->num_queues = htole16(blk->num_queues);
	c->max_discard_sectors = c->max_write_zeroes_sectors =
		htole32(ALIGN_DOWN(max_sectors, blk->logical_block_size / 512));
	c->max_discard_seg = c->max_write_zeroes_seg = htole32(1);
	c->discard_sector_alignment = htole32(blk->logical_block_size / 512);
	c->write_zeroes_may_unmap = 1;
	blk->wce = initial_wce(blk);
}

static int check_block_sizes(struct virtio_blk *blk, struct hako_error *err)
{
	if (!blk->physical_block_size)
		blk->physical_block_size = MAX(blk->node->physical_block_size,
					       blk->logical_block_size);
	if (!IS_POWER_OF_2(blk->logical_block_size))
		return error_set(err, -EINVAL, "logical_block_size=%u: must be a power of 2",
				 blk->logical_block_size);
	if (!IS_POWER_OF_2(blk->physical_block_size) ||
	    blk->physical_block_size < blk->logical_block_size)
		return error_set(err, -EINVAL,
				 "physical_block_size=%u: must be a power of 2 and not less than "
				 "logical_block_size=%u",
				 blk->physical_block_size, blk->logical_block_size);
	return 0;
}

/* Everything but the node, which has been plugged in. */
static int blk_init(struct virtio_blk *blk, struct hako_error *err)
{
	struct virtio_device *vdev = &blk->vdev;
	int ret = check_block_sizes(blk, err);

	if (ret < 0)
		return ret;
	if (!blk->node->length)
		return error_set(err, -EINVAL, "drive=%s: the disk is empty (0 bytes)", blk->drive);
	ret = virtio_device_init(vdev, &blk_ops, blk->num_queues, blk->queue_size, err);
	if (ret < 0)
		return ret;
	make_config(blk);
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		vdev->vq[i].polled = true;
	blk->queues = calloc(vdev->nqueues, sizeof(*blk->queues));
	blk->parked = calloc(vdev->nqueues, sizeof(*blk->parked));
	if (!blk->queues || !blk->parked)
		ret = error_errno(err, -ENOMEM, "queues");
	if (ret == 0)
		ret = virtio_map_queues(vdev, blk->iothread, &blk->mapping, err);
	if (ret == 0)
		ret = virtio_device_attach(vdev, err);
	if (ret < 0) {
		virtio_device_free(vdev);
		free(blk->queues);
		free(blk->parked);
	}
	return ret;
}

static int blk_create(struct object *obj, struct hako_error *err)
{
	struct virtio_blk *blk = container_of(obj, struct virtio_blk, vdev.obj);
	unsigned int use = blk->share_rw ? BLOCK_USE_SHARE_WRITE : 0;
	struct object *node = object_find(obj->vm, CLASS_BLOCKDEV, blk->drive);
	int ret;

	if (node && !container_of(node, struct block_node, obj)->read_only)
		use |= BLOCK_USE_WRITE;
	ret = block_use(obj->vm, blk->drive, blk, use, &blk->node, err);
	if (ret < 0)
		return ret;
	ret = blk_init(blk, err);
	if (ret == 0)
		block_on_resize(blk->node, blk, blk_resized);
	else
		block_unuse(blk->node, blk);
	return ret;
}

static void blk_destroy(struct object *obj)
{
	struct virtio_blk *blk = container_of(obj, struct virtio_blk, vdev.obj);

	block_on_resize(blk->node, blk, NULL);
	virtio_device_free(&blk->vdev);
	block_unuse(blk->node, blk);
	free(blk->queues);
	free(blk->parked);
}

static const char *const rerror_names[] = {"auto", "report", "ignore", "stop", NULL};
static const char *const werror_names[] = {"auto", "report", "ignore", "stop", "enospc", NULL};

static const struct option blk_options[] = {
	OPT_STRING_REQUIRED("drive", struct virtio_blk, drive, "id of the disk node"),
	OPT_STRING("serial", struct virtio_blk, serial, NULL,
		   "serial number, of which the guest sees 20 characters"),
	OPT_UINT("logical_block_size", struct virtio_blk, logical_block_size, "512", 512, 32768,
		 "sector size that the guest sees"),
	OPT_UINT("physical_block_size", struct virtio_blk, physical_block_size, "0", 0, 2097152,
		 "size of the disk's own blocks, a hint to the guest; 0: the image's"),
	OPT_UINT("num-queues", struct virtio_blk, num_queues, "1", 1, VIRTIO_MAX_QUEUES,
		 "number of request queues"),
	OPT_UINT("queue-size", struct virtio_blk, queue_size, "256", 4, VIRTIO_QUEUE_MAX_SIZE,
		 "requests that a queue holds, a power of 2"),
	OPT_ONOFFAUTO("write-cache", struct virtio_blk, write_cache, "auto",
		      "off: every write is on the medium when it completes"),
	OPT_ENUM("rerror", struct virtio_blk, rerror, "auto", rerror_names,
		 "when a read fails: tell the guest (auto), say nothing, or pause the VM and try "
		 "again when it goes on (packed rings: tell the guest)"),
	OPT_ENUM("werror", struct virtio_blk, werror, "auto", werror_names,
		 "likewise for writes; enospc (auto): stop if there is no space, else report"),
	OPT_TREE("iothread-vq-mapping", struct virtio_blk, mapping,
		 "a list: iothread, vqs (may be repeated; none: by turns): which iothread serves "
		 "which queues"),
	OPT_BOOL("discard", struct virtio_blk, discard, "on", "let the guest discard sectors"),
	OPT_BOOL("write-zeroes", struct virtio_blk, write_zeroes, "on",
		 "let the guest zero sectors without sending zeroes"),
	OPT_STRING("iothread", struct virtio_blk, iothread, NULL,
		   "id of the iothread that serves the queues"),
	OPT_BOOL("share-rw", struct virtio_blk, share_rw, "off",
		 "let others write to the image at the same time"),
	OPT_END,
};

static const struct state_field blk_parked_fields[] = {
	STATE_FIELD_ARRAY(struct blk_parked, heads),
	STATE_END,
};

static const struct state_table blk_parked_state = {
	.name = "virtio-blk-parked",
	.version = 1,
	.min_version = 1,
	.fields = blk_parked_fields,
};

static int blk_loaded(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtio_blk *blk = obj;

	for (uint32_t i = 0; i < blk->vdev.nqueues; i++)
		if (blk->vdev.vq[i].nparked > blk->vdev.vq[i].max_size)
			return error_set(err, -EBADMSG, "queue %u: %u chains wait", i,
					 blk->vdev.vq[i].nparked);
	return 0;
}

static const struct state_field blk_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_blk, vdev, &virtio_device_state),
	STATE_FIELD_UINT(struct virtio_blk, wce),
	STATE_FIELD_PTR(struct virtio_blk, parked, vdev.nqueues, &blk_parked_state),
	STATE_END,
};

static const struct state_table blk_state = {
	.name = "virtio-blk",
	.version = 1,
	.min_version = 1,
	.fields = blk_fields,
	.post_load = blk_loaded,
};

VIRTIO_CLASS(virtio_blk, "virtio-blk", "disk", struct virtio_blk, blk_options, &blk_state,
	     blk_create, blk_destroy);
