/* SPDX-License-Identifier: GPL-2.0-only */
#include "virtio/vhost_net.h"

#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "devices/net/net.h"
#include "devices/vhost/user.h"

/* What vhost-net does differently if the driver has accepted it. All else of the card's is between driver and network. */
#define VHOST_NET_MASK                                                    \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) | \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_NET_F_MRG_RXBUF))

static int net_run(struct vhost_queue *q, bool on)
{
	struct vhost_net *n = container_of(q->dev, struct vhost_net, dev);
	struct vhost_vring_file file = {q->index, on ? n->backend_fd : VHOST_FILE_UNBIND};

	return ioctl(q->dev->fd, VHOST_NET_SET_BACKEND, &file) < 0 ? -errno : 0;
}

static void net_failed(struct vhost_queue *q)
{
	loop_post(q->vq->loop, container_of(q->dev, struct vhost_net, dev)->failed);
}

static const struct vhost_ops net_ops = {
	.call = vhost_ioctl,
	.run = net_run,
	.failed = net_failed,
};

int vhost_net_new(struct vhost_net **vhost, struct netdev *backend, unsigned int pair,
		  struct virtqueue *rx, struct virtqueue *tx, struct loop_msg *failed,
		  struct hako_error *err)
{
	struct vhost_net *n;
	int ret;

	*vhost = NULL;
	if (rx->vdev->opt.packed && !backend->vhost_user)
		return error_set(err, -EOPNOTSUPP, "vhost-net knows no packed rings");
	n = calloc(1, sizeof(*n));
	if (!n)
		return error_errno(err, -ENOMEM, "vhost");
	n->failed = failed;
	n->dev = (struct vhost_dev){
		.ops = &net_ops,
		.vdev = rx->vdev,
		.fd = -1,
		.queue = n->queue,
		.nqueues = ARRAY_SIZE(n->queue),
	};
	n->pair = pair;
	n->npairs = backend->queues;
	n->user = backend->vhost_user;
	if (n->user) {
		/* All of the card's features are the back end's affair. */
		n->dev.ops = &vhost_user_net_ops;
		n->dev.features = n->dev.mask = backend->vhost_features;
		n->dev.extra = backend->vhost_features & BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
		ret = 0;
	} else {
		n->dev.fd = backend->vhost_fd[pair];
		n->dev.mask = VHOST_NET_MASK;
		n->dev.extra = backend->vnet_hdr ? 0 : BIT64(VHOST_NET_F_VIRTIO_NET_HDR);
		ret = vhost_open(&n->dev, VHOST_NET_MASK, err);
	}
	if (!ret)
		ret = vhost_queue_init(&n->dev, 0, rx, err);
	if (!ret)
		ret = vhost_queue_init(&n->dev, 1, tx, err);
	if (ret)
		vhost_net_free(n);
	else
		*vhost = n;
	return ret;
}

void vhost_net_free(struct vhost_net *n)
{
	if (!n)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(n->queue); i++)
		vhost_queue_free(&n->queue[i]);
	free(n);
}

void vhost_net_start(struct vhost_net *n, int backend_fd)
{
	n->backend_fd = backend_fd;
	for (size_t i = 0; i < ARRAY_SIZE(n->queue); i++)
		virtq_set_server(n->queue[i].vq, &n->queue[i].server);
}

void vhost_net_stop(struct vhost_net *n)
{
	for (size_t i = 0; i < ARRAY_SIZE(n->queue); i++)
		virtq_set_server(n->queue[i].vq, NULL);
}
