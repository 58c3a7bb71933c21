/* SPDX-License-Identifier: GPL-2.0-only */
/* One queue pair of a network card, served by a worker thread of the host's kernel (vhost-net) or by another process (vhost-user). */
#ifndef VIRTIO_VHOST_NET_H
#define VIRTIO_VHOST_NET_H

#include "virtio/vhost.h"

struct netdev;
struct vhost_user;

struct vhost_net {
	struct vhost_dev dev;
	/* With vhost-user: who serves all pairs of the card, and which of them this is. */
	struct vhost_user *user;
	unsigned int pair, npairs;
	uint16_t mtu;		     /* that the card tells the guest; 0: none */
	struct vhost_queue queue[2]; /* receive, transmit: vhost-net's order too */
	int backend_fd;		     /* while it runs */
	struct loop_msg
		*failed; /* posted to the queues' loop when one of them could not be started */
};

/** How a vhost-user back end is spoken to. */
extern const struct vhost_ops vhost_user_net_ops;

/** Take queue pair @pair of @backend, which serves @rx and @tx. NULL if that fails. */
int vhost_net_new(struct vhost_net **vhost, struct netdev *backend, unsigned int pair,
		  struct virtqueue *rx, struct virtqueue *tx, struct loop_msg *failed,
		  struct hako_error *err);
/** The queues do not run. NULL does no harm. */
void vhost_net_free(struct vhost_net *vhost);
/** Serve from now on, whenever the queues run; and no more. The backend has been told by start_vhost() and stop(). In the loop. */
void vhost_net_start(struct vhost_net *vhost, int backend_fd);
void vhost_net_stop(struct vhost_net *vhost);

#endif
