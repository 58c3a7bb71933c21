/* SPDX-License-Identifier: GPL-2.0-only */
#include "virtio/vhost.h"

#include <linux/vhost.h>
#include <linux/virtio_ring.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vmm/vm.h"

static int call(struct vhost_dev *dev, unsigned long request, void *arg, const char *what,
		struct hako_error *err)
{
	int ret = dev->ops->call(dev, request, arg);

	return ret ? error_errno(err, ret, "vhost: %s", what) : 0;
}

int vhost_ioctl(struct vhost_dev *dev, unsigned long request, void *arg)
{
	return ioctl(dev->fd, request, arg) < 0 ? -errno : 0;
}

/* --- device ------------------------------------------------------------------------------------ */

int vhost_open(struct vhost_dev *dev, uint64_t needed, struct hako_error *err)
{
	uint64_t missing;
	int ret = call(dev, VHOST_SET_OWNER, NULL, "taking the device", err);

	if (ret == -EBUSY)
		error_hint(err, "another program or card owns it");
	if (!ret)
		ret = call(dev, VHOST_GET_FEATURES, &dev->features, "features", err);
	missing = (needed | dev->extra) & ~dev->features;
	if (!ret && missing)
		ret = error_set(err, -EOPNOTSUPP, "vhost: the back end lacks features %#llx",
				(unsigned long long)missing);
	return ret;
}

static int set_memory(struct vhost_dev *dev, struct hako_error *err)
{
	const struct memory *mem = &dev->vdev->obj.vm->mem;
	struct {
		struct vhost_memory head;
		struct vhost_memory_region region[MEMORY_MAX_REGIONS];
	} table = {.head.nregions = mem->nregions};

	for (unsigned int i = 0; i < mem->nregions; i++) {
		table.region[i].guest_phys_addr = mem->region[i].gpa;
		table.region[i].memory_size = mem->region[i].size;
		table.region[i].userspace_addr = (uintptr_t)mem->region[i].hva;
	}
	return call(dev, VHOST_SET_MEM_TABLE, &table, "guest memory", err);
}

/* The log's place goes before the feature that turns it on. */
static int set_features(struct vhost_dev *dev, struct hako_error *err)
{
	uint64_t features = (dev->vdev->guest_features & dev->mask) | dev->extra;
	uint64_t log = (uintptr_t)dev->log;
	int ret = 0;

	if (log) {
		features |= BIT64(VHOST_F_LOG_ALL);
		ret = call(dev, VHOST_SET_LOG_BASE, &log, "dirty log", err);
	}
	return ret ?: call(dev, VHOST_SET_FEATURES, &features, "features", err);
}

/* --- queues ------------------------------------------------------------------------------------ */

static int set_addresses(struct vhost_queue *q, struct hako_error *err)
{
	struct vhost_vring_addr addr = {
		.index = q->index,
		.flags = q->dev->log ? BIT(VHOST_VRING_F_LOG) : 0,
		.desc_user_addr = (uintptr_t)q->vq->desc,
		.avail_user_addr = (uintptr_t)q->vq->avail,
		.used_user_addr = (uintptr_t)q->vq->used,
		.log_guest_addr = q->vq->used_gpa,
	};

	return call(q->dev, VHOST_SET_VRING_ADDR, &addr, "ring addresses", err);
}

static int set_fd(struct vhost_queue *q, unsigned long request, int fd, const char *what,
		  struct hako_error *err)
{
	struct vhost_vring_file file = {q->index, fd};

	return call(q->dev, request, &file, what, err);
}

static int set_call(struct vhost_queue *q, struct hako_error *err)
{
	int fd = READ_ONCE(q->vq->notify_fd);

	return set_fd(q, VHOST_SET_VRING_CALL, fd >= 0 ? fd : q->call_fd, "interrupt", err);
}

static int set_ring(struct vhost_queue *q, struct hako_error *err)
{
	struct vhost_vring_state num = {q->index, q->vq->size};
	struct vhost_vring_state base = {q->index, q->vq->last_avail};
	int ret;

	ret = call(q->dev, VHOST_SET_VRING_NUM, &num, "ring size", err);
	if (!ret)
		ret = call(q->dev, VHOST_SET_VRING_BASE, &base, "ring index", err);
	if (!ret)
		ret = set_addresses(q, err);
	if (!ret)
		ret = set_call(q, err);
	if (!ret)
		ret = set_fd(q, VHOST_SET_VRING_ERR, q->err_fd, "error event", err);
	if (!ret)
		ret = set_fd(q, VHOST_SET_VRING_KICK, q->vq->kick_fd, "doorbell", err);
	return ret;
}

/* The interrupt of a queue that has no irqfd. */
static void called(struct loop_watch *watch, uint32_t revents)
{
	struct virtqueue *vq = container_of(watch, struct vhost_queue, call)->vq;

	(void)revents;
	if (vq->served)
		vq->vdev->transport_ops->notify_queue(vq->vdev, vq);
}

static void erred(struct loop_watch *watch, uint32_t revents)
{
	struct virtqueue *vq = container_of(watch, struct vhost_queue, err)->vq;
	eventfd_t count;

	(void)revents;
	if (!eventfd_read(watch->fd, &count) && vq->served)
		virtio_broken(vq->vdev, "queue %u: refused by vhost", vq->index);
}

static int watch_events(struct vhost_queue *q, struct hako_error *err)
{
	int ret;

	q->call =
		(struct loop_watch){.fd = q->call_fd, .events = POLLIN, .edge = true, .fn = called};
	q->err = (struct loop_watch){.fd = q->err_fd, .events = POLLIN, .edge = true, .fn = erred};
	ret = loop_watch_start(q->vq->loop, &q->call, err);
	return ret ?: loop_watch_start(q->vq->loop, &q->err, err);
}

/* Let go of everything: nothing rings and is rung any more. */
static void detach(struct vhost_queue *q)
{
	static const unsigned long requests[] = {VHOST_SET_VRING_KICK, VHOST_SET_VRING_CALL,
						 VHOST_SET_VRING_ERR};
	eventfd_t count;

	for (size_t i = 0; i < ARRAY_SIZE(requests); i++)
		set_fd(q, requests[i], VHOST_FILE_UNBIND, "", NULL);
	loop_watch_stop(&q->call);
	loop_watch_stop(&q->err);
	eventfd_read(q->err_fd, &count); /* what it complained of is not the next start's fault */
}

static int queue_start(struct virtq_server *server, struct virtqueue *vq, struct hako_error *err)
{
	struct vhost_queue *q = container_of(server, struct vhost_queue, server);
	struct vhost_dev *dev = q->dev;
	int ret = 0;

	if (!dev->running)
		ret = set_memory(dev, err) ?: set_features(dev, err);
	if (!ret)
		ret = watch_events(q, err);
	if (!ret)
		ret = set_ring(q, err);
	if (!ret && (ret = dev->ops->run(q, true)))
		error_errno(err, ret, "vhost: start");
	if (ret) {
		detach(q);
		if (dev->ops->failed)
			dev->ops->failed(q);
		return ret;
	}
	dev->running++;
	/* What is in the ring already has rung before. */
	eventfd_write(vq->kick_fd, 1);
	return 0;
}

static void queue_stop(struct virtq_server *server, struct virtqueue *vq)
{
	struct vhost_queue *q = container_of(server, struct vhost_queue, server);
	struct vhost_vring_state base = {.index = q->index};
	struct hako_error err = {0};
	eventfd_t count;

	q->dev->running--;
	q->dev->ops->run(q, false);
	detach(q);
	if (call(q->dev, VHOST_GET_VRING_BASE, &base, "ring index", &err)) {
		virtio_failed(vq->vdev, "queue %u: %s", vq->index, err.message);
		return;
	}
	/* What it has taken it has returned: the driver's copy of the index is right, and if the driver has changed it, it is his queue. */
	vq->last_avail = vq->used_idx = base.num;
	if (!vq->packed)
		vq->used_idx = le16toh(__atomic_load_n(&vq->used->idx, __ATOMIC_ACQUIRE));
	/* An interrupt that is still on its way. */
	if (!eventfd_read(q->call_fd, &count))
		vq->vdev->transport_ops->notify_queue(vq->vdev, vq);
}

void vhost_interrupt(struct virtqueue *vq)
{
	int fd = READ_ONCE(vq->notify_fd);

	if (fd >= 0)
		eventfd_write(fd, 1);
	else
		vq->vdev->transport_ops->notify_queue(vq->vdev, vq);
}

static void queue_reroute(struct virtq_server *server, struct virtqueue *vq)
{
	struct vhost_queue *q = container_of(server, struct vhost_queue, server);
	struct hako_error err = {0};
	int ret = set_call(q, &err);

	if (ret && ret != -ENOTCONN)
		virtio_failed(vq->vdev, "queue %u: %s", vq->index, err.message);
	else
		vhost_interrupt(vq);
}

static const struct virtq_server_ops queue_ops = {
	.start = queue_start,
	.stop = queue_stop,
	.reroute = queue_reroute,
};

int vhost_queue_init(struct vhost_dev *dev, unsigned int index, struct virtqueue *vq,
		     struct hako_error *err)
{
	struct vhost_queue *q = &dev->queue[index];

	*q = (struct vhost_queue){.server.ops = &queue_ops, .dev = dev, .vq = vq, .index = index};
	q->call_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	q->err_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (q->call_fd < 0 || q->err_fd < 0)
		return error_errno(err, -errno, "vhost: eventfd");
	return 0;
}

void vhost_queue_free(struct vhost_queue *q)
{
	if (!q->dev)
		return;
	if (q->call_fd >= 0)
		close(q->call_fd);
	if (q->err_fd >= 0)
		close(q->err_fd);
	*q = (struct vhost_queue){0};
}

/* --- dirty log --------------------------------------------------------------------------------- */

int vhost_set_log(struct vhost_dev *dev, void *bitmap, struct hako_error *err)
{
	int ret = 0;

	dev->log = bitmap;
	if (!dev->running)
		return 0; /* when it starts */
	/* Off: the rings let go of the log before it goes; on: it is there before they use it. */
	if (bitmap)
		ret = set_features(dev, err);
	for (unsigned int i = 0; i < dev->nqueues && !ret; i++)
		if (dev->queue[i].vq && dev->queue[i].vq->served)
			ret = set_addresses(&dev->queue[i], err);
	if (!bitmap && !ret)
		ret = set_features(dev, err);
	return ret;
}
