/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-9p: a directory of the host for the guest, by 9P2000.L (devices/fs/p9.h). There is no chapter in virtio 1.2, only the device
 * number and Linux's virtio_9p.h: one queue, a message and the room for its answer in each chain.
 *
 * The loop takes messages and returns them; they are served by its pool of threads, in no order. What the protocol asks for beyond that
 * is done here: a Tflush is answered after the request that it flushes, and a Tversion is served alone.
 */
#include <linux/virtio_9p.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "devices/fs/p9.h"
#include "virtio.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 128
#define TAG_MAX	   32 /* QEMU's */

struct virtio_9p;

/* A message in hand. */
struct slot {
	struct loop_work work;
	struct virtio_9p *dev;
	struct slot *next;    /* free ones, or the next that waits for the same request as this */
	struct slot *flushes; /* Tflush messages that wait for this one */
	bool busy;
	struct virtq_head head;
	struct p9_header header;
	struct p9_request req;
	uint32_t len; /* of the answer */
	struct iovec iov[P9_SEGMENTS];
};

struct virtio_9p {
	struct virtio_device vdev;
	char *fsdev, *mount_tag;

	struct p9_session *session;
	/* The loop's. */
	struct slot *slots, *free;
	unsigned int nbusy;
	struct slot *version; /* Tversion: nothing new is taken before it has been answered */
};

static struct virtio_9p *to_9p(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_9p, vdev);
}

/* --- requests ---------------------------------------------------------------------------------- */

/* Return a message; and, behind it, those that were to flush it. */
static void answer(struct slot *slot)
{
	struct virtio_9p *dev = slot->dev;

	while (slot) {
		struct slot *flushes = slot->flushes, *last;

		virtq_push(&dev->vdev.vq[0], slot->head, slot->len);
		for (last = flushes; last; last = last->next) {
			last->len = p9_serve(dev->session, &last->req, &last->header);
			if (!last->next)
				break;
		}
		/* A flush can be flushed itself: then its own come behind it. */
		if (last)
			last->next = slot->next;
		else
			flushes = slot->next;
		slot->busy = false;
		slot->next = dev->free;
		dev->free = slot;
		dev->nbusy--;
		slot = flushes;
	}
}

static void serve(struct loop_work *work)
{
	struct slot *slot = container_of(work, struct slot, work);

	slot->len = p9_serve(slot->dev->session, &slot->req, &slot->header);
}

static void take_all(struct virtqueue *vq);

static void served(struct loop_work *work)
{
	struct slot *slot = container_of(work, struct slot, work);
	struct virtio_9p *dev = slot->dev;
	bool version = slot == dev->version, full = !dev->free;

	slot->next = NULL;
	answer(slot);
	if (version)
		dev->version = NULL;
	else if (dev->version && dev->nbusy == 1)
		loop_work_submit(dev->vdev.vq[0].loop, &dev->version->work);
	/* Whoever stopped taking before the ring was empty has not asked for a doorbell. */
	if (version || full)
		take_all(&dev->vdev.vq[0]);
}

/* Tflush: oldtag[2] */
static void flush(struct virtio_9p *dev, struct slot *slot)
{
	uint8_t raw[2] = {0};
	struct slot *old = NULL, **tail;

	iov_read(slot->req.out, slot->req.nout, P9_HEADER, raw,
		 MIN(sizeof(raw), slot->header.size - P9_HEADER));
	for (unsigned int i = 0; i < QUEUE_SIZE && !old; i++)
		if (dev->slots[i].busy && &dev->slots[i] != slot &&
		    dev->slots[i].header.tag == get_le16(raw))
			old = &dev->slots[i];
	slot->next = NULL;
	if (!old) {
		slot->len = p9_serve(dev->session, &slot->req, &slot->header);
		answer(slot);
		return;
	}
	for (tail = &old->flushes; *tail; tail = &(*tail)->next)
		;
	*tail = slot;
}

static void begin(struct virtio_9p *dev, struct slot *slot)
{
	if (slot->header.type == P9_TFLUSH) {
		flush(dev, slot);
		return;
	}
	if (slot->header.type == P9_TVERSION) {
		dev->version = slot;
		if (dev->nbusy > 1)
			return;
	}
	loop_work_submit(dev->vdev.vq[0].loop, &slot->work);
}

static void take_all(struct virtqueue *vq)
{
	struct virtio_9p *dev = to_9p(vq->vdev);
	struct virtq_chain chain;
	const char *why;

	while (!dev->version && dev->free) {
		struct slot *slot = dev->free;

		if (virtq_pop(vq, &chain, slot->iov, P9_SEGMENTS) != 1)
			return;
		slot->head = chain.head;
		slot->req = (struct p9_request){
			.out = slot->iov,
			.in = slot->iov + chain.nout,
			.nout = chain.nout,
			.nin = chain.nin,
			.out_len = chain.out_len,
			.in_len = chain.in_len,
		};
		why = p9_header(&slot->req, &slot->header);
		if (why) {
			virtq_unpop(vq, &chain);
			virtio_broken(vq->vdev, "%s", why);
			return;
		}
		dev->free = slot->next;
		slot->flushes = NULL;
		slot->busy = true;
		dev->nbusy++;
		begin(dev, slot);
	}
}

/* --- the device -------------------------------------------------------------------------------- */

static uint64_t p9_features(struct virtio_device *vdev)
{
	return BIT64(VIRTIO_9P_MOUNT_TAG);
}

static void p9_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	uint8_t config[2 + TAG_MAX] = {0};
	const char *tag = to_9p(vdev)->mount_tag;

	put_le16(config, strlen(tag));
	memcpy(config + 2, tag, strlen(tag));
	memcpy(buf, config + offset, len);
}

static void p9_stop(struct virtio_device *vdev)
{
	p9_session_reset(to_9p(vdev)->session);
}

static const struct virtio_ops p9_ops = {
	.name = "virtio-9p",
	.device_id = VIRTIO_ID_9P,
	.pci_class = 0x000200, /* as QEMU's */
	.config_size = 2 + TAG_MAX,
	.features = p9_features,
	.config_read = p9_config_read,
	.stop = p9_stop,
	.handle = take_all,
};

static int make_slots(struct virtio_9p *dev)
{
	dev->slots = calloc(QUEUE_SIZE, sizeof(*dev->slots));
	if (!dev->slots)
		return -ENOMEM;
	for (unsigned int i = QUEUE_SIZE; i-- > 0;) {
		struct slot *slot = &dev->slots[i];

		slot->dev = dev;
		slot->work.fn = serve;
		slot->work.done = served;
		slot->next = dev->free;
		dev->free = slot;
	}
	return 0;
}

static void p9_destroy(struct object *obj)
{
	struct virtio_9p *dev = container_of(obj, struct virtio_9p, vdev.obj);

	virtio_device_free(&dev->vdev);
	p9_session_free(dev->session);
	free(dev->slots);
}

static int p9_create(struct object *obj, struct hako_error *err)
{
	struct virtio_9p *dev = container_of(obj, struct virtio_9p, vdev.obj);
	struct fsdev *fs;
	size_t len = strlen(dev->mount_tag);
	int ret;

	if (!len || len > TAG_MAX)
		return error_set(err, -EINVAL, "mount_tag=%s: 1 to %d characters are possible",
				 dev->mount_tag, TAG_MAX);
	ret = fs_find(obj->vm, dev->fsdev, &fs, err);
	if (!ret)
		ret = virtio_device_init(&dev->vdev, &p9_ops, 1, QUEUE_SIZE, err);
	if (ret)
		return ret;
	ret = make_slots(dev) ?: p9_session_new(&dev->session, fs);
	if (ret)
		error_errno(err, ret, "requests");
	else
		ret = virtio_device_attach(&dev->vdev, err);
	if (ret)
		p9_destroy(obj);
	return ret;
}

static const struct option p9_options[] = {
	OPT_STRING_REQUIRED("fsdev", struct virtio_9p, fsdev, "id of the shared directory"),
	OPT_STRING_REQUIRED("mount_tag", struct virtio_9p, mount_tag,
			    "the name under which the guest mounts it"),
	OPT_END,
};

/* A client's fids are files that are open here: they cannot be saved. */
static int p9_pre_save(void *obj, struct hako_error *err)
{
	struct virtio_9p *dev = obj;

	if (p9_session_in_use(dev->session))
		return error_set(err, -EBUSY,
				 "the guest has mounted %s, which cannot be saved while it has",
				 dev->mount_tag);
	return 0;
}

static const struct state_field p9_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_9p, vdev, &virtio_device_state),
	STATE_END,
};

static const struct state_table p9_state = {
	.name = "virtio-9p",
	.version = 1,
	.min_version = 1,
	.fields = p9_fields,
	.pre_save = p9_pre_save,
};

VIRTIO_CLASS(virtio_9p, "virtio-9p", "a directory of the host", struct virtio_9p, p9_options,
	     &p9_state, p9_create, p9_destroy);
