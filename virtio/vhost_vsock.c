/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-vsock served by the host's kernel, vhost-vsock: programs of the host reach the guest by AF_VSOCK and the guest's CID, which is unique on the
 * host. The kernel has the queues for packets, and starts and stops both at once. The event queue is there for a migration, which the kernel
 * knows nothing of (virtio 1.2, section 5.10.6.7).
 */
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtio/vhost.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define VHOST_VSOCK_DEVICE "/dev/vhost-vsock"

#define QUEUE_SIZE 128
#define SERVED	   2 /* rx, tx */
#define EVENT	   2
#define QUEUES	   3
#define SEGMENTS   64

#define NEEDED                                                            \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX))

struct vhost_vsock {
	struct virtio_device vdev;
	/* Options. */
	uint64_t guest_cid;
	char *vhostfd;
	int seqpacket;

	struct vhost_dev dev;
	struct vhost_queue queue[SERVED];
	bool reset_event;
};

static struct vhost_vsock *to_vsock(struct virtio_device *vdev)
{
	return container_of(vdev, struct vhost_vsock, vdev);
}

/* The kernel looks at both rings when it is told to run. */
static int run(struct vhost_queue *q, bool on)
{
	int value = on;

	/* The last one to start, the first one to stop. */
	if (q->dev->running + 1 != SERVED)
		return 0;
	return ioctl(q->dev->fd, VHOST_VSOCK_SET_RUNNING, &value) < 0 ? -errno : 0;
}

static void failed(struct vhost_queue *q)
{
	virtio_failed(q->vq->vdev, "the host's kernel does not serve queue %u", q->vq->index);
}

static const struct vhost_ops vhost_ops = {
	.call = vhost_ioctl,
	.run = run,
	.failed = failed,
};

static uint64_t vsock_features(struct virtio_device *vdev)
{
	struct vhost_vsock *v = to_vsock(vdev);

	return v->seqpacket == ONOFFAUTO_OFF ? 0
					     : v->dev.features & BIT64(VIRTIO_VSOCK_F_SEQPACKET);
}

static void vsock_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	uint8_t config[8];

	put_le64(config, to_vsock(vdev)->guest_cid);
	memcpy(buf, config + offset, len);
}

/* Of the packets' queues only those come here that the kernel does not serve. */
static void vsock_handle(struct virtqueue *vq)
{
	struct vhost_vsock *v = to_vsock(vq->vdev);
	const uint32_t id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	struct iovec iov[SEGMENTS];
	struct virtq_chain chain;

	if (vq->index != EVENT || !v->reset_event || virtq_pop(vq, &chain, iov, SEGMENTS) != 1)
		return;
	if (chain.in_len < sizeof(id)) {
		virtq_unpop(vq, &chain);
		virtio_broken(vq->vdev, "an event buffer of %u bytes", chain.in_len);
		return;
	}
	iov_write(iov + chain.nout, chain.nin, 0, &id, sizeof(id));
	virtq_push(vq, chain.head, sizeof(id));
	v->reset_event = false;
}

static const struct virtio_ops vsock_ops = {
	.name = "vhost-vsock",
	.device_id = VIRTIO_ID_VSOCK,
	.pci_class = 0x078000, /* as QEMU's */
	.config_size = sizeof(struct virtio_vsock_config),
	.needs = SANDBOX_VHOST,
	.features = vsock_features,
	.config_read = vsock_config_read,
	.handle = vsock_handle,
};

static void vsock_free(struct vhost_vsock *v)
{
	for (int i = 0; i < SERVED; i++)
		vhost_queue_free(&v->queue[i]);
	if (v->dev.fd >= 0)
		close(v->dev.fd);
}

static void vsock_destroy(struct object *obj)
{
	struct vhost_vsock *v = container_of(obj, struct vhost_vsock, vdev.obj);

	virtio_device_free(&v->vdev);
	vsock_free(v);
}

static int open_vhost(struct vhost_vsock *v, struct hako_error *err)
{
	uint64_t n;
	int fd;

	if (!v->vhostfd) {
		fd = open(VHOST_VSOCK_DEVICE, O_RDWR | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		fd = error_errno(err, -errno, VHOST_VSOCK_DEVICE);
		error_hint(err, fd == -ENOENT ? "modprobe vhost_vsock, or path=" : "or path=");
		return fd;
	}
	if (parse_uint(v->vhostfd, &n) || n > INT32_MAX)
		return error_set(err, -EINVAL, "vhostfd=%s: a number expected", v->vhostfd);
	if (fcntl(n, F_SETFD, FD_CLOEXEC) < 0)
		return error_errno(err, -errno, "vhostfd=%s", v->vhostfd);
	return n;
}

static int set_up(struct vhost_vsock *v, struct hako_error *err)
{
	int ret = vhost_open(&v->dev, NEEDED, err);

	if (!ret && v->seqpacket == ONOFFAUTO_ON && !vsock_features(&v->vdev))
		ret = error_set(err, -EOPNOTSUPP, "seqpacket=on: the host's kernel has none");
	if (!ret && ioctl(v->dev.fd, VHOST_VSOCK_SET_GUEST_CID, &v->guest_cid) < 0) {
		ret = error_errno(err, -errno, "guest-cid=%llu", (unsigned long long)v->guest_cid);
		if (ret == -EADDRINUSE)
			error_hint(err, "another guest of this host has it");
	}
	for (int i = 0; i < SERVED && !ret; i++)
		ret = vhost_queue_init(&v->dev, i, &v->vdev.vq[i], err);
	for (int i = 0; i < SERVED && !ret; i++)
		virtq_set_server(&v->vdev.vq[i], &v->queue[i].server);
	return ret;
}

static int vsock_create(struct object *obj, struct hako_error *err)
{
	struct vhost_vsock *v = container_of(obj, struct vhost_vsock, vdev.obj);
	int ret;

	if (v->vdev.opt.packed)
		return error_set(err, -EOPNOTSUPP, "vhost-vsock knows no packed rings");
	v->dev = (struct vhost_dev){
		.ops = &vhost_ops,
		.vdev = &v->vdev,
		.mask = NEEDED | BIT64(VIRTIO_VSOCK_F_SEQPACKET),
		.queue = v->queue,
		.nqueues = SERVED,
	};
	v->dev.fd = open_vhost(v, err);
	if (v->dev.fd < 0)
		return v->dev.fd;
	ret = virtio_device_init(&v->vdev, &vsock_ops, QUEUES, QUEUE_SIZE, err);
	if (!ret)
		ret = set_up(v, err);
	if (!ret)
		ret = virtio_device_attach(&v->vdev, err);
	if (ret) {
		virtio_device_free(&v->vdev);
		vsock_free(v);
	}
	return ret;
}

static const struct option vsock_options[] = {
	OPT_UINT("guest-cid", struct vhost_vsock, guest_cid, "3", 3, UINT32_MAX - 1,
		 "the guest's address, unique on the host"),
	OPT_STRING("vhostfd", struct vhost_vsock, vhostfd, NULL,
		   "/dev/vhost-vsock, open already, as a number"),
	OPT_ONOFFAUTO("seqpacket", struct vhost_vsock, seqpacket, "auto",
		      "sockets that keep the bounds of messages"),
	OPT_END,
};

/* Connections are the kernel's, so they are not saved: the guest is told. */
static int vsock_loaded(void *obj, uint16_t version, struct hako_error *err)
{
	struct vhost_vsock *v = obj;

	v->reset_event = virtio_get_status(&v->vdev) & VIRTIO_CONFIG_S_DRIVER_OK;
	return 0;
}

static const struct state_field vsock_fields[] = {
	STATE_FIELD_STRUCT(struct vhost_vsock, vdev, &virtio_device_state),
	STATE_END,
};

static const struct state_table vsock_state = {
	.name = "vhost-vsock",
	.version = 1,
	.min_version = 1,
	.fields = vsock_fields,
	.post_load = vsock_loaded,
};

VIRTIO_CLASS(vhost_vsock, "vhost-vsock",
	     "sockets between guest and host, served by the host's kernel", struct vhost_vsock,
	     vsock_options, &vsock_state, vsock_create, vsock_destroy);
