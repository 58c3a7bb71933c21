/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vhost-net for tests where the kernel has none: it takes the ioctls of its descriptors, and a thread works on split rings as linux/vhost.h
 * and virtio 1.2 describe them. Its backends are datagram sockets that carry packets with virtio's header. It can be told to fail.
 *
 * The test's own ioctl() comes before libc's, so the header belongs into one file of a program only.
 */
#ifndef TESTS_UNIT_FAKE_VHOST_H
#define TESTS_UNIT_FAKE_VHOST_H

#include <check.h>
#include <errno.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "vmm/util.h"

#define FAKE_VHOSTS 4
#define FAKE_FEATURES                                                                              \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_INDIRECT_DESC) |                          \
	 BIT64(VIRTIO_RING_F_EVENT_IDX) | BIT64(VIRTIO_NET_F_MRG_RXBUF) | BIT64(VHOST_F_LOG_ALL) | \
	 BIT64(VHOST_NET_F_VIRTIO_NET_HDR))

struct fake_ring {
	unsigned int num;
	uint16_t last_avail;
	struct vhost_vring_addr addr;
	int kick, call, err, backend; /* -1: none; backend is not ours, the others are copies */
	unsigned int started;
};

struct fake_vhost {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock;
	int wake;
	bool quit, owned;
	uint64_t has, features, log_base;
	struct vhost_memory_region region[16];
	unsigned int nregions, packets;
	struct fake_ring ring[2];
	/* The @fail_after-th call of @fail from now on fails; once only. */
	unsigned long fail;
	unsigned int fail_after;
};

static struct fake_vhost fake_vhosts[FAKE_VHOSTS];

static void *fake_ptr(struct fake_vhost *v, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < v->nregions; i++) {
		const struct vhost_memory_region *r = &v->region[i];

		if (gpa >= r->guest_phys_addr && gpa - r->guest_phys_addr + len <= r->memory_size)
			return (void *)(uintptr_t)(r->userspace_addr + gpa - r->guest_phys_addr);
	}
	return NULL;
}

/* Take a chain of direct descriptors; 0: none, -1: it is bad. */
static int fake_pop(struct fake_vhost *v, struct fake_ring *r, struct iovec *iov, uint16_t *head)
{
	struct vring_desc *desc = (void *)(uintptr_t)r->addr.desc_user_addr;
	struct vring_avail *avail = (void *)(uintptr_t)r->addr.avail_user_addr;
	uint16_t i;
	int n = 0;

	if (__atomic_load_n(&avail->idx, __ATOMIC_ACQUIRE) == r->last_avail)
		return 0;
	*head = i = avail->ring[r->last_avail % r->num];
	for (; n < 8; i = desc[i].next) {
		if (i >= r->num)
			return -1;
		iov[n].iov_len = desc[i].len;
		iov[n].iov_base = fake_ptr(v, desc[i].addr, desc[i].len);
		if (!iov[n++].iov_base)
			return -1;
		if (!(desc[i].flags & VRING_DESC_F_NEXT))
			break;
	}
	return n;
}

static void fake_used(struct fake_vhost *v, struct fake_ring *r, uint16_t head, uint32_t len)
{
	struct vring_used *used = (void *)(uintptr_t)r->addr.used_user_addr;
	uint16_t idx = used->idx;

	used->ring[idx % r->num].id = head;
	used->ring[idx % r->num].len = len;
	__atomic_store_n(&used->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
	r->last_avail++;
	v->packets++;
	if (r->call >= 0)
		eventfd_write(r->call, 1);
}

static void fake_work(struct fake_vhost *v, unsigned int index)
{
	struct fake_ring *r = &v->ring[index];
	struct iovec iov[8];
	uint16_t head;
	int n;

	while (r->backend >= 0 && (n = fake_pop(v, r, iov, &head))) {
		ssize_t len;

		if (n < 0) {
			if (r->err >= 0)
				eventfd_write(r->err, 1);
			return;
		}
		len = index ? writev(r->backend, iov, n) : readv(r->backend, iov, n);
		if (len < 0)
			return;
		if (!index)
			put_le16((uint8_t *)iov[0].iov_base + 10, 1);
		fake_used(v, r, head, index ? 0 : len);
	}
}

static void *fake_thread(void *arg)
{
	struct fake_vhost *v = arg;

	for (;;) {
		struct pollfd p[4] = {{v->wake, POLLIN, 0}};
		eventfd_t count;

		pthread_mutex_lock(&v->lock);
		if (v->quit)
			break;
		fake_work(v, 0);
		fake_work(v, 1);
		p[1] = (struct pollfd){v->ring[0].backend >= 0 ? v->ring[0].kick : -1, POLLIN, 0};
		p[2] = (struct pollfd){v->ring[1].backend >= 0 ? v->ring[1].kick : -1, POLLIN, 0};
		p[3] = (struct pollfd){v->ring[0].backend, POLLIN, 0};
		pthread_mutex_unlock(&v->lock);
		/* A packet that finds no buffer would have us spin. */
		poll(p, 4, 1000);
		if (p[3].revents)
			usleep(500);
		for (int i = 0; i < 3; i++)
			if (p[i].revents & POLLIN)
				eventfd_read(p[i].fd, &count);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

static inline struct fake_vhost *fake_vhost_new(void)
{
	struct fake_vhost *v = fake_vhosts;

	while (v->fd)
		ck_assert(++v < fake_vhosts + FAKE_VHOSTS);
	*v = (struct fake_vhost){.has = FAKE_FEATURES};
	for (int i = 0; i < 2; i++)
		v->ring[i].kick = v->ring[i].call = v->ring[i].err = v->ring[i].backend = -1;
	pthread_mutex_init(&v->lock, NULL);
	v->wake = eventfd(0, EFD_NONBLOCK);
	v->fd = memfd_create("fake-vhost", MFD_CLOEXEC);
	ck_assert_int_eq(pthread_create(&v->thread, NULL, fake_thread, v), 0);
	return v;
}

static inline void fake_vhost_free(struct fake_vhost *v)
{
	pthread_mutex_lock(&v->lock);
	v->quit = true;
	pthread_mutex_unlock(&v->lock);
	eventfd_write(v->wake, 1);
	pthread_join(v->thread, NULL);
	for (int i = 0; i < 2; i++) {
		/* Whoever is gone must not have left anything running. */
		ck_assert_int_eq(v->ring[i].backend, -1);
		ck_assert_int_eq(v->ring[i].kick, -1);
		ck_assert_int_eq(v->ring[i].call, -1);
		ck_assert_int_eq(v->ring[i].err, -1);
	}
	close(v->wake);
	close(v->fd);
	v->fd = 0;
}

static int fake_set_fd(int *slot, int fd)
{
	if (*slot >= 0)
		close(*slot);
	*slot = fd >= 0 ? dup(fd) : -1;
	return 0;
}

static int fake_set_memory(struct fake_vhost *v, const struct vhost_memory *m)
{
	if (m->nregions > 16)
		return -E2BIG;
	memcpy(v->region, m->regions, m->nregions * sizeof(m->regions[0]));
	v->nregions = m->nregions;
	return 0;
}

static int fake_set_backend(struct fake_vhost *v, struct fake_ring *r, int fd)
{
	if (fd >= 0 && (!v->features || !v->nregions || !r->num || r->kick < 0))
		return -EFAULT;
	r->backend = fd;
	r->started += fd >= 0;
	return 0;
}

static int fake_device_call(struct fake_vhost *v, unsigned long request, void *arg)
{
	uint64_t u64;

	switch (request) {
	case VHOST_SET_OWNER:
		if (v->owned)
			return -EBUSY;
		v->owned = true;
		return 0;
	case VHOST_GET_FEATURES:
		memcpy(arg, &v->has, 8);
		return 0;
	case VHOST_SET_FEATURES:
		memcpy(&u64, arg, 8);
		if (u64 & ~v->has)
			return -EOPNOTSUPP;
		v->features = u64;
		return 0;
	case VHOST_SET_LOG_BASE:
		memcpy(&v->log_base, arg, 8);
		return 0;
	case VHOST_SET_MEM_TABLE:
		return fake_set_memory(v, arg);
	}
	return 1;
}

static int fake_ring_call(struct fake_vhost *v, unsigned long request, void *arg)
{
	struct vhost_vring_state *state = arg;
	struct vhost_vring_file *file = arg;
	struct fake_ring *r;

	if (*(unsigned int *)arg > 1)
		return -ENOBUFS;
	r = &v->ring[*(unsigned int *)arg];
	switch (request) {
	case VHOST_SET_VRING_NUM:
		r->num = state->num;
		return r->backend >= 0 ? -EBUSY : 0;
	case VHOST_SET_VRING_BASE:
		r->last_avail = state->num;
		return r->backend >= 0 ? -EBUSY : 0;
	case VHOST_GET_VRING_BASE:
		state->num = r->last_avail;
		return 0;
	case VHOST_SET_VRING_ADDR:
		memcpy(&r->addr, arg, sizeof(r->addr));
		return 0;
	case VHOST_SET_VRING_KICK:
		return fake_set_fd(&r->kick, file->fd);
	case VHOST_SET_VRING_CALL:
		return fake_set_fd(&r->call, file->fd);
	case VHOST_SET_VRING_ERR:
		return fake_set_fd(&r->err, file->fd);
	case VHOST_NET_SET_BACKEND:
		return fake_set_backend(v, r, file->fd);
	}
	return -ENOTTY;
}

static int fake_call(struct fake_vhost *v, unsigned long request, void *arg)
{
	int ret;

	pthread_mutex_lock(&v->lock);
	if (v->fail == request && !v->fail_after--) {
		v->fail = 0;
		ret = -EIO;
	} else if (request != VHOST_SET_OWNER && !v->owned) {
		ret = -EPERM;
	} else {
		ret = fake_device_call(v, request, arg);
		if (ret > 0)
			ret = fake_ring_call(v, request, arg);
	}
	pthread_mutex_unlock(&v->lock);
	eventfd_write(v->wake, 1);
	if (ret >= 0)
		return ret;
	errno = -ret;
	return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
	struct fake_vhost *v;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	for (v = fake_vhosts; v < fake_vhosts + FAKE_VHOSTS; v++)
		if (v->fd && v->fd == fd)
			return fake_call(v, request, arg);
	return syscall(SYS_ioctl, fd, request, arg);
}

#endif
