/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A vhost-user back end for tests, in a thread: it listens at a Unix socket (or connects to one), serves split rings as the protocol's and virtio 1.2's texts
 * say, and sends each packet of a pair back to it. It can be told to lie, once, in its reply to a given request.
 */
#ifndef TESTS_UNIT_VHOST_PEER_H
#define TESTS_UNIT_VHOST_PEER_H

#include <check.h>
#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/vhost/user.h"

#define PEER_RINGS 8
#define PEER_FEATURES                                                                  \
	(BIT64(VIRTIO_F_VERSION_1) | BIT64(VIRTIO_RING_F_EVENT_IDX) |                  \
	 BIT64(VIRTIO_RING_F_INDIRECT_DESC) | BIT64(VIRTIO_NET_F_MRG_RXBUF) |          \
	 BIT64(VIRTIO_NET_F_CSUM) | BIT64(VIRTIO_NET_F_MTU) | BIT64(VIRTIO_NET_F_MQ) | \
	 BIT64(VHOST_USER_F_PROTOCOL_FEATURES))
/* With some that the front end does not know. */
#define PEER_PROTOCOL (BIT64(32) - 1)

enum peer_lie {
	PEER_HONEST,
	PEER_CLOSES,
	PEER_SILENT,
	PEER_HALF,    /* of the header */
	PEER_REQUEST, /* a reply to something else */
	PEER_VERSION,
	PEER_NO_REPLY_FLAG,
	PEER_EMPTY,
	PEER_SHORT,
	PEER_LONG,
	PEER_HUGE,    /* 4 GiB - 1, it says */
	PEER_FDS,     /* three descriptors */
	PEER_REFUSES, /* an acknowledgement that is none */
	PEER_VALUE,   /* the payload is all ones */
	PEER_LIES,
};

struct peer_msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct vhost_vring_addr addr;
		uint8_t bytes[512];
	};
} __attribute__((packed));

struct peer_ring {
	uint32_t num;
	uint16_t next; /* of the available ring */
	bool enabled;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick, call, err;
};

struct peer_region {
	uint64_t gpa, size, user, offset;
	uint8_t *map;
};

struct peer {
	struct sockaddr_un addr;
	bool connects; /* else it listens */
	uint64_t features, protocol, queues;
	uint16_t mtu;	   /* in its configuration space */
	enum peer_lie lie; /* in the reply to lie_to, after lie_after of them; atomic */
	uint32_t lie_to;
	unsigned int lie_after;
	/* What it has seen. */
	uint64_t got_features, got_protocol, status;
	unsigned int seen[64], connections, packets, inflight_came;
	uint16_t got_mtu;
	struct peer_ring ring[PEER_RINGS];
	struct peer_region region[8];
	unsigned int nregions;
	int listener, fd, wake, inflight;
	bool quit, hang_up; /* atomic */
	pthread_t thread;
	pthread_mutex_t lock; /* of the rings */
};

static inline void peer_close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* --- rings ------------------------------------------------------------------------------------- */

static inline void *peer_ptr(struct peer *p, uint64_t addr, uint64_t len, bool user)
{
	for (unsigned int i = 0; i < p->nregions; i++) {
		uint64_t off = addr - (user ? p->region[i].user : p->region[i].gpa);

		if (off < p->region[i].size && len <= p->region[i].size - off)
			return p->region[i].map + off;
	}
	return NULL;
}

/* The next chain, of direct descriptors. */
static inline int peer_pop(struct peer *p, struct peer_ring *r, struct iovec *iov, uint16_t *head)
{
	int n = 0;

	if (__atomic_load_n(&r->avail->idx, __ATOMIC_ACQUIRE) == r->next)
		return 0;
	*head = r->avail->ring[r->next % r->num];
	for (uint16_t i = *head; n < 8 && i < r->num; i = r->desc[i].next) {
		iov[n].iov_len = r->desc[i].len;
		iov[n].iov_base = peer_ptr(p, r->desc[i].addr, r->desc[i].len, false);
		if (!iov[n].iov_base)
			return -1;
		n++;
		if (!(r->desc[i].flags & VRING_DESC_F_NEXT))
			return n;
	}
	return -1;
}

static inline void peer_push(struct peer_ring *r, uint16_t head, uint32_t len)
{
	uint16_t idx = r->used->idx;

	r->next++;
	r->used->ring[idx % r->num].id = head;
	r->used->ring[idx % r->num].len = len;
	__atomic_store_n(&r->used->idx, (uint16_t)(idx + 1), __ATOMIC_RELEASE);
	if (r->call >= 0)
		eventfd_write(r->call, 1);
}

static inline bool peer_runs(const struct peer *p, const struct peer_ring *r)
{
	return r->kick >= 0 && r->used && r->num &&
	       (r->enabled || !(p->got_features & BIT64(VHOST_USER_F_PROTOCOL_FEATURES)));
}

/* Echo; packets that find no buffer wait. */
static inline void peer_work(struct peer *p, unsigned int pair)
{
	struct peer_ring *rx = &p->ring[2 * pair], *tx = rx + 1;
	struct iovec in[8], out[8];
	uint8_t packet[4096];
	uint16_t rx_head = 0, tx_head = 0;

	while (peer_runs(p, rx) && peer_runs(p, tx)) {
		int nout = peer_pop(p, tx, out, &tx_head), nin = peer_pop(p, rx, in, &rx_head);
		size_t len = 0, done = 0;

		if (nout < 0 && tx->err >= 0)
			eventfd_write(tx->err, 1);
		if (nout <= 0 || nin <= 0)
			return;
		for (int i = 0; i < nout; len += out[i++].iov_len)
			memcpy(packet + len, out[i].iov_base, out[i].iov_len);
		packet[10] = 1;
		packet[11] = 0;
		for (int i = 0; i < nin && done < len; i++) {
			size_t n = MIN(in[i].iov_len, len - done);

			memcpy(in[i].iov_base, packet + done, n);
			done += n;
		}
		peer_push(tx, tx_head, 0);
		peer_push(rx, rx_head, done);
		p->packets++;
	}
}

/* --- messages ---------------------------------------------------------------------------------- */

static inline void peer_forget(struct peer *p)
{
	for (unsigned int i = 0; i < p->nregions; i++)
		munmap(p->region[i].map, p->region[i].size);
	p->nregions = 0;
	for (int i = 0; i < PEER_RINGS; i++) {
		struct peer_ring *r = &p->ring[i];

		peer_close_fd(&r->kick);
		peer_close_fd(&r->call);
		peer_close_fd(&r->err);
		*r = (struct peer_ring){.kick = -1, .call = -1, .err = -1};
	}
	peer_close_fd(&p->inflight);
	peer_close_fd(&p->fd);
}

static inline void peer_set_memory(struct peer *p, const struct peer_msg *m, int *fds)
{
	uint32_t n;

	for (unsigned int i = 0; i < p->nregions; i++)
		munmap(p->region[i].map, p->region[i].size);
	memcpy(&n, m->bytes, 4);
	ck_assert_uint_le(n, 8);
	ck_assert_uint_eq(m->size, 8 + 32 * n);
	for (uint32_t i = 0; i < n; i++) {
		struct peer_region *r = &p->region[i];

		memcpy(r, m->bytes + 8 + 32 * i, 32);
		r->map = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], r->offset);
		ck_assert_ptr_ne(r->map, MAP_FAILED);
		/* It may not be cut off under the front end's feet. */
		ck_assert_int_lt(ftruncate(fds[i], 4096), 0);
	}
	p->nregions = n;
}

static inline void peer_set_fd(struct peer *p, const struct peer_msg *m, int *fd)
{
	struct peer_ring *r = &p->ring[m->u64 & 0xff];
	int *slot = m->request == VHOST_USER_SET_VRING_KICK   ? &r->kick
		    : m->request == VHOST_USER_SET_VRING_CALL ? &r->call
							      : &r->err;

	ck_assert_uint_lt(m->u64, PEER_RINGS);
	peer_close_fd(slot);
	*slot = *fd;
	*fd = -1;
}

static inline void peer_set_addr(struct peer *p, const struct peer_msg *m)
{
	struct peer_ring *r = &p->ring[m->addr.index];

	r->desc = peer_ptr(p, m->addr.desc_user_addr, 1, true);
	r->avail = peer_ptr(p, m->addr.avail_user_addr, 1, true);
	r->used = peer_ptr(p, m->addr.used_user_addr, 1, true);
	ck_assert(r->desc && r->avail && r->used);
}

static inline void peer_set_ring(struct peer *p, const struct peer_msg *m)
{
	struct peer_ring *r = &p->ring[m->state.index];

	ck_assert_uint_lt(m->state.index, PEER_RINGS);
	if (m->request == VHOST_USER_SET_VRING_NUM)
		r->num = m->state.num;
	else if (m->request == VHOST_USER_SET_VRING_BASE)
		r->next = m->state.num;
	else
		r->enabled = m->state.num;
}

/* Requests with a reply of their own: its length, 0 for others. */
static inline uint32_t peer_get(struct peer *p, struct peer_msg *m, int *reply_fd)
{
	uint32_t offset, len;
	uint64_t size = 4096;

	switch (m->request) {
	case VHOST_USER_GET_FEATURES:
		return m->u64 = p->features, 8;
	case VHOST_USER_GET_PROTOCOL_FEATURES:
		return m->u64 = p->protocol, 8;
	case VHOST_USER_GET_QUEUE_NUM:
		return m->u64 = p->queues, 8;
	case VHOST_USER_GET_STATUS:
		return m->u64 = p->status, 8;
	case VHOST_USER_GET_VRING_BASE:
		m->state.num = p->ring[m->state.index].next;
		p->ring[m->state.index].enabled = false;
		peer_close_fd(&p->ring[m->state.index].kick);
		return 8;
	case VHOST_USER_GET_CONFIG:
		memcpy(&offset, m->bytes, 4);
		memcpy(&len, m->bytes + 4, 4);
		ck_assert(offset == 10 && len == 2 && m->size == 14);
		put_le16(m->bytes + 12, p->mtu);
		return 14;
	case VHOST_USER_GET_INFLIGHT_FD:
		memcpy(m->bytes, &size, 8);
		*reply_fd = memfd_create("inflight", MFD_CLOEXEC);
		return m->size;
	}
	return 0;
}

static inline void peer_set(struct peer *p, const struct peer_msg *m, int *fds)
{
	switch (m->request) {
	case VHOST_USER_SET_FEATURES:
		ck_assert_uint_eq(m->u64 & ~p->features, 0);
		p->got_features = m->u64;
		break;
	case VHOST_USER_SET_PROTOCOL_FEATURES:
		p->got_protocol = m->u64;
		break;
	case VHOST_USER_SET_STATUS:
		p->status = m->u64;
		break;
	case VHOST_USER_NET_SET_MTU:
		p->got_mtu = m->u64;
		break;
	case VHOST_USER_SET_MEM_TABLE:
		peer_set_memory(p, m, fds);
		break;
	case VHOST_USER_SET_VRING_NUM:
	case VHOST_USER_SET_VRING_BASE:
	case VHOST_USER_SET_VRING_ENABLE:
		peer_set_ring(p, m);
		break;
	case VHOST_USER_SET_VRING_ADDR:
		peer_set_addr(p, m);
		break;
	case VHOST_USER_SET_VRING_KICK:
	case VHOST_USER_SET_VRING_CALL:
	case VHOST_USER_SET_VRING_ERR:
		peer_set_fd(p, m, fds);
		break;
	case VHOST_USER_SET_INFLIGHT_FD:
		ck_assert_int_ge(fds[0], 0);
		p->inflight_came++;
		peer_close_fd(&p->inflight);
		p->inflight = fds[0];
		fds[0] = -1;
		break;
	}
}

/* Send @len bytes with the descriptors. */
static inline void peer_send(struct peer *p, const void *buf, size_t len, const int *fds, int nfds)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = {0};
	struct iovec iov = {(void *)buf, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	sendmsg(p->fd, &msg, MSG_NOSIGNAL);
}

/* False: hang up. */
static inline bool peer_reply(struct peer *p, struct peer_msg *m, uint32_t len, int fd)
{
	int fds[3] = {fd >= 0 ? fd : p->wake, p->wake, p->wake};
	enum peer_lie lie = PEER_HONEST;
	unsigned int nfds = fd >= 0;

	if (p->lie && p->lie_to == m->request && !p->lie_after--) {
		lie = p->lie;
		__atomic_store_n(&p->lie, PEER_HONEST, __ATOMIC_RELEASE);
	}
	m->flags = 5;
	m->size = len;
	switch (lie) {
	case PEER_CLOSES:
		return false;
	case PEER_SILENT:
		return true;
	case PEER_HALF:
		peer_send(p, m, 6, NULL, 0);
		return true;
	case PEER_REQUEST:
		m->request ^= 1;
		break;
	case PEER_VERSION:
		m->flags = 6;
		break;
	case PEER_NO_REPLY_FLAG:
		m->flags = 1;
		break;
	case PEER_EMPTY:
		m->size = 0;
		break;
	case PEER_SHORT:
		m->size--;
		break;
	case PEER_LONG:
		m->size++;
		break;
	case PEER_HUGE:
		m->size = UINT32_MAX;
		break;
	case PEER_FDS:
		nfds = 3;
		break;
	case PEER_REFUSES:
		m->u64 = 1;
		break;
	case PEER_VALUE:
		memset(m->bytes, 0xff, len);
		break;
	default:
		break;
	}
	peer_send(p, m, 12 + MIN(m->size, 400u), fds, nfds);
	return true;
}

/* One message; false at the connection's end. */
static inline bool peer_message(struct peer *p)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(8 * sizeof(int))];
	} control;
	struct peer_msg m;
	struct iovec iov = {&m, 12};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	int fds[8] = {-1, -1, -1, -1, -1, -1, -1, -1}, reply_fd = -1;
	struct cmsghdr *c;
	uint32_t len;
	bool go_on = true;

	if (recvmsg(p->fd, &msg, MSG_CMSG_CLOEXEC) != 12)
		return false;
	ck_assert_uint_eq(m.flags & ~8u, 1);
	ck_assert_uint_le(m.size, sizeof(m.bytes));
	c = CMSG_FIRSTHDR(&msg);
	if (c)
		memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
	if (m.size && recv(p->fd, m.bytes, m.size, MSG_WAITALL) != (ssize_t)m.size)
		return false;
	ck_assert_uint_lt(m.request, 64);
	pthread_mutex_lock(&p->lock);
	p->seen[m.request]++;
	len = peer_get(p, &m, &reply_fd);
	if (!len)
		peer_set(p, &m, fds);
	pthread_mutex_unlock(&p->lock);
	if (!len && (m.flags & 8)) {
		m.u64 = 0;
		len = 8;
	}
	if (len)
		go_on = peer_reply(p, &m, len, reply_fd);
	for (int i = 0; i < 8; i++)
		peer_close_fd(&fds[i]);
	peer_close_fd(&reply_fd);
	return go_on;
}

/* --- its life ---------------------------------------------------------------------------------- */

static inline void peer_serve(struct peer *p)
{
	bool go_on = true;

	p->connections++;
	while (go_on && !__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE) &&
	       !__atomic_exchange_n(&p->hang_up, false, __ATOMIC_ACQ_REL)) {
		struct pollfd fds[2 + PEER_RINGS] = {{p->fd, POLLIN, 0}, {p->wake, POLLIN, 0}};
		eventfd_t count;

		pthread_mutex_lock(&p->lock);
		for (int i = 0; i < PEER_RINGS; i++)
			fds[2 + i] = (struct pollfd){p->ring[i].kick, POLLIN, 0};
		for (int i = 0; i < PEER_RINGS / 2; i++)
			peer_work(p, i);
		pthread_mutex_unlock(&p->lock);
		poll(fds, ARRAY_SIZE(fds), -1);
		for (size_t i = 1; i < ARRAY_SIZE(fds); i++)
			if (fds[i].revents & POLLIN)
				eventfd_read(fds[i].fd, &count);
		if (fds[0].revents)
			go_on = peer_message(p);
	}
	pthread_mutex_lock(&p->lock);
	peer_forget(p);
	pthread_mutex_unlock(&p->lock);
}

static inline void peer_get_connection(struct peer *p)
{
	struct pollfd fds[2] = {{p->listener, POLLIN, 0}, {p->wake, POLLIN, 0}};
	eventfd_t count;

	if (p->connects) {
		p->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (!connect(p->fd, (struct sockaddr *)&p->addr, sizeof(p->addr)))
			return;
		peer_close_fd(&p->fd);
		usleep(2000);
		return;
	}
	poll(fds, 2, -1);
	eventfd_read(p->wake, &count);
	if (fds[0].revents)
		p->fd = accept(p->listener, NULL, NULL);
}

static inline void *peer_thread(void *arg)
{
	struct peer *p = arg;

	while (!__atomic_load_n(&p->quit, __ATOMIC_ACQUIRE)) {
		if (p->fd < 0)
			peer_get_connection(p);
		if (p->fd >= 0)
			peer_serve(p);
	}
	return NULL;
}

/* Honest, and not running yet. */
static inline void peer_init(struct peer *p)
{
	static unsigned int n;

	memset(p, 0, sizeof(*p));
	p->addr.sun_family = AF_UNIX;
	snprintf(p->addr.sun_path, sizeof(p->addr.sun_path), "/tmp/hako-peer-%d-%u", getpid(), n++);
	p->features = PEER_FEATURES;
	p->protocol = PEER_PROTOCOL;
	p->queues = PEER_RINGS / 2;
	p->fd = p->listener = p->wake = p->inflight = -1;
	for (int i = 0; i < PEER_RINGS; i++)
		p->ring[i].kick = p->ring[i].call = p->ring[i].err = -1;
	pthread_mutex_init(&p->lock, NULL);
}

static inline void peer_start(struct peer *p)
{
	p->quit = false;
	p->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (!p->connects && p->fd < 0) {
		p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		ck_assert_int_eq(bind(p->listener, (struct sockaddr *)&p->addr, sizeof(p->addr)),
				 0);
		ck_assert_int_eq(listen(p->listener, 1), 0);
	}
	ck_assert_int_eq(pthread_create(&p->thread, NULL, peer_thread, p), 0);
}

/* As a crash does: nobody is told anything. */
static inline void peer_stop(struct peer *p)
{
	__atomic_store_n(&p->quit, true, __ATOMIC_RELEASE);
	eventfd_write(p->wake, 1);
	pthread_join(p->thread, NULL);
	peer_forget(p);
	peer_close_fd(&p->wake);
	peer_close_fd(&p->listener);
	if (!p->connects)
		unlink(p->addr.sun_path);
}

static inline void peer_hang_up(struct peer *p)
{
	__atomic_store_n(&p->hang_up, true, __ATOMIC_RELEASE);
	eventfd_write(p->wake, 1);
}

#endif
