/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhost-user for network cards: the requests of Linux's vhost as messages to the back end. One back end serves all queue pairs, so that features and
 * memory, which each pair tells, go there once.
 *
 * When the back end is gone, the place in a split ring is where the used ring ends: what it had taken and not returned is offered to the next one. In a
 * packed ring that place is known to nobody, and the card needs a reset.
 */
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "devices/vhost/user.h"
#include "virtio/vhost_net.h"
#include "vmm/vm.h"

static struct vhost_net *net_of(struct vhost_dev *dev)
{
	return container_of(dev, struct vhost_net, dev);
}

/* --- the whole device -------------------------------------------------------------------------- */

/* Section 2.1; features_ok() is the driver's side of it. */
static int set_status(struct vhost_user *vu, uint64_t status)
{
	uint64_t got = 0;
	int ret;

	if (!vhost_user_has(vu, VHOST_USER_PROTOCOL_F_STATUS))
		return 0;
	ret = vhost_user_set(vu, VHOST_USER_SET_STATUS, status);
	if (ret || !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return ret;
	ret = vhost_user_get(vu, VHOST_USER_GET_STATUS, &got);
	if (!ret && (got & status) != status)
		ret = vhost_user_reject(vu, "the back end does not take the status %#llx",
					(unsigned long long)status);
	return ret;
}

#define STATUS_DRIVER	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)
#define STATUS_FEATURES (STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK)
#define STATUS_OK	(STATUS_FEATURES | VIRTIO_CONFIG_S_DRIVER_OK)

static uint16_t largest_queue(const struct vhost_net *n)
{
	uint16_t size = 0;

	for (unsigned int i = 0; i < 2 * n->npairs && i < n->dev.vdev->nqueues; i++)
		size = MAX(size, n->dev.vdev->vq[i].size);
	return size;
}

static int set_features(struct vhost_net *n, uint64_t features)
{
	struct vhost_user *vu = n->user;
	uint64_t missing = features & ~vu->features;
	int ret;

	if (vu->configured)
		return 0;
	if (missing)
		return vhost_user_reject(vu,
					 "the back end lacks features %#llx that the guest uses",
					 (unsigned long long)missing);
	ret = set_status(vu, STATUS_DRIVER)
		      ?: vhost_user_set(vu, VHOST_USER_SET_FEATURES, features);
	if (!ret)
		ret = set_status(vu, STATUS_FEATURES);
	if (!ret && n->mtu && (features & BIT64(VIRTIO_NET_F_MTU)) &&
	    vhost_user_has(vu, VHOST_USER_PROTOCOL_F_NET_MTU))
		ret = vhost_user_set(vu, VHOST_USER_NET_SET_MTU, n->mtu);
	if (!ret && vhost_user_has(vu, VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD))
		ret = vhost_user_share_inflight(vu, 2 * n->npairs, largest_queue(n));
	vu->configured = !ret;
	return ret;
}

/* --- rings ------------------------------------------------------------------------------------- */

static const struct virtqueue *ring(const struct vhost_net *n, uint32_t index)
{
	return n->queue[index].vq;
}

static int set_base(struct vhost_net *n, const struct vhost_vring_state *s)
{
	uint32_t num = s->num;

	/* Packed: the device's place in bits 0 to 15, the used one in bits 16 to 31, which is the same as nothing is in flight. */
	if (ring(n, s->index)->packed)
		num |= num << 16;
	return vhost_user_set_ring(n->user, VHOST_USER_SET_VRING_BASE, 2 * n->pair + s->index, num);
}

static int packed_base(struct vhost_net *n, const struct virtqueue *vq, uint32_t num,
		       struct vhost_vring_state *s)
{
	uint16_t avail = num, used = num >> 16;

	if ((avail & 0x7fff) >= vq->size || (used && used != avail))
		return vhost_user_reject(n->user, "GET_VRING_BASE gave %#x for a ring of %u", num,
					 vq->size);
	s->num = avail;
	return 0;
}

/* All rings are stopped: the next start tells everything anew. */
static int stopped(struct vhost_user *vu)
{
	if (--vu->running)
		return 0;
	vu->configured = false;
	return set_status(vu, 0);
}

static int get_base(struct vhost_net *n, struct vhost_vring_state *s)
{
	struct virtqueue *vq = n->queue[s->index].vq;
	uint32_t num = 0;
	int ret = vhost_user_get_base(n->user, 2 * n->pair + s->index, &num);

	if (!ret)
		ret = stopped(n->user);
	if (vq->packed)
		return ret ?: packed_base(n, vq, num, s);
	/* Whatever it says: what is not in the used ring has not been done. */
	s->num = le16toh(__atomic_load_n(&vq->used->idx, __ATOMIC_ACQUIRE));
	if (!ret && num > UINT16_MAX)
		ret = vhost_user_reject(n->user, "GET_VRING_BASE gave %u for a ring of %u", num,
					vq->size);
	/* It may have died before it could raise the interrupt. */
	if (ret)
		vhost_interrupt(vq);
	return 0;
}

static int set_addr(struct vhost_net *n, const struct vhost_vring_addr *arg)
{
	struct vhost_vring_addr addr = *arg;

	addr.index += 2 * n->pair;
	return vhost_user_set_addr(n->user, &addr);
}

static int set_fd(struct vhost_net *n, enum vhost_user_request request,
		  const struct vhost_vring_file *f)
{
	/* A ring that is stopped needs none taken away; and a kick without descriptor would mean polling. */
	if (f->fd < 0)
		return 0;
	return vhost_user_set_ring_fd(n->user, request, 2 * n->pair + f->index, f->fd);
}

static int request(struct vhost_net *n, unsigned long what, void *arg)
{
	struct vhost_vring_state *s = arg;
	uint64_t u64;

	switch (what) {
	case VHOST_SET_FEATURES:
		memcpy(&u64, arg, sizeof(u64));
		return set_features(n, u64);
	case VHOST_SET_MEM_TABLE:
		return n->user->configured
			       ? 0
			       : vhost_user_set_memory(n->user, &n->dev.vdev->obj.vm->mem);
	case VHOST_SET_VRING_NUM:
		return vhost_user_set_ring(n->user, VHOST_USER_SET_VRING_NUM,
					   2 * n->pair + s->index, s->num);
	case VHOST_SET_VRING_BASE:
		return set_base(n, s);
	case VHOST_GET_VRING_BASE:
		return get_base(n, s);
	case VHOST_SET_VRING_ADDR:
		return set_addr(n, arg);
	case VHOST_SET_VRING_KICK:
		return set_fd(n, VHOST_USER_SET_VRING_KICK, arg);
	case VHOST_SET_VRING_CALL:
		return set_fd(n, VHOST_USER_SET_VRING_CALL, arg);
	case VHOST_SET_VRING_ERR:
		return set_fd(n, VHOST_USER_SET_VRING_ERR, arg);
	default:
		return -EOPNOTSUPP; /* no dirty log yet */
	}
}

/* lost() has said what there is to say. */
static int result(const struct vhost_user *vu, int ret)
{
	return ret && !vhost_user_connected(vu) ? -ENOTCONN : ret;
}

static int user_call(struct vhost_dev *dev, unsigned long what, void *arg)
{
	struct vhost_net *n = net_of(dev);

	return result(n->user, request(n, what, arg));
}

static int user_run(struct vhost_queue *q, bool on)
{
	struct vhost_net *n = net_of(q->dev);
	struct vhost_user *vu = n->user;
	int ret = 0;

	if (!vhost_user_connected(vu))
		return -ENOTCONN;
	if (vu->features & BIT64(VHOST_USER_F_PROTOCOL_FEATURES))
		ret = vhost_user_set_ring(vu, VHOST_USER_SET_VRING_ENABLE, 2 * n->pair + q->index,
					  on);
	/* The pair is complete. */
	if (!ret && on && q->index)
		ret = set_status(vu, STATUS_OK);
	if (!ret)
		vu->running += on;
	return result(vu, ret);
}

const struct vhost_ops vhost_user_net_ops = {
	.call = user_call,
	.run = user_run,
};
