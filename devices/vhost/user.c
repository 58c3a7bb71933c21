/* SPDX-License-Identifier: GPL-2.0-only */
#include "devices/vhost/user.h"

#include <fcntl.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define VERSION	   1u
#define VERSIONS   3u /* mask */
#define REPLY	   BIT(2)
#define NEED_REPLY BIT(3)
#define MAX_FDS	   8

#define PROTOCOL_WANTED                                                                            \
	(BIT64(VHOST_USER_PROTOCOL_F_MQ) | BIT64(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                \
	 BIT64(VHOST_USER_PROTOCOL_F_NET_MTU) | BIT64(VHOST_USER_PROTOCOL_F_CONFIG) |              \
	 BIT64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | BIT64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) | \
	 BIT64(VHOST_USER_PROTOCOL_F_STATUS))

struct header {
	uint32_t request, flags, size;
};

struct memory_table {
	uint32_t nregions, padding;
	struct {
		uint64_t gpa, size, user, mmap_offset;
	} region[VHOST_USER_MAX_REGIONS];
};

struct config_space {
	uint32_t offset, size, flags;
	uint8_t data[VHOST_USER_MAX_CONFIG];
};

struct inflight_area {
	uint64_t mmap_size, mmap_offset;
	uint16_t nqueues, queue_size;
} __attribute__((packed));

/* One message to the back end, and what has to come back. */
struct exchange {
	enum vhost_user_request request;
	const void *out;
	uint32_t out_len, in_len; /* in_len 0: no reply of its own */
	const int *fds;
	unsigned int nfds;
	void *in;
	int *in_fd; /* NULL: a descriptor may not come; else it may, or -1 */
};

const char *vhost_user_name(enum vhost_user_request request)
{
	static const char *const names[] = {
		[VHOST_USER_GET_FEATURES] = "GET_FEATURES",
		[VHOST_USER_SET_FEATURES] = "SET_FEATURES",
		[VHOST_USER_SET_OWNER] = "SET_OWNER",
		[VHOST_USER_SET_MEM_TABLE] = "SET_MEM_TABLE",
		[VHOST_USER_SET_VRING_NUM] = "SET_VRING_NUM",
		[VHOST_USER_SET_VRING_ADDR] = "SET_VRING_ADDR",
		[VHOST_USER_SET_VRING_BASE] = "SET_VRING_BASE",
		[VHOST_USER_GET_VRING_BASE] = "GET_VRING_BASE",
		[VHOST_USER_SET_VRING_KICK] = "SET_VRING_KICK",
		[VHOST_USER_SET_VRING_CALL] = "SET_VRING_CALL",
		[VHOST_USER_SET_VRING_ERR] = "SET_VRING_ERR",
		[VHOST_USER_GET_PROTOCOL_FEATURES] = "GET_PROTOCOL_FEATURES",
		[VHOST_USER_SET_PROTOCOL_FEATURES] = "SET_PROTOCOL_FEATURES",
		[VHOST_USER_GET_QUEUE_NUM] = "GET_QUEUE_NUM",
		[VHOST_USER_SET_VRING_ENABLE] = "SET_VRING_ENABLE",
		[VHOST_USER_NET_SET_MTU] = "NET_SET_MTU",
		[VHOST_USER_GET_CONFIG] = "GET_CONFIG",
		[VHOST_USER_GET_INFLIGHT_FD] = "GET_INFLIGHT_FD",
		[VHOST_USER_SET_INFLIGHT_FD] = "SET_INFLIGHT_FD",
		[VHOST_USER_RESET_DEVICE] = "RESET_DEVICE",
		[VHOST_USER_SET_STATUS] = "SET_STATUS",
		[VHOST_USER_GET_STATUS] = "GET_STATUS",
	};

	return request < ARRAY_SIZE(names) && names[request] ? names[request] : "?";
}

/* --- one message ------------------------------------------------------------------------------- */

static int wait_for(int fd, short events, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now = clock_now();
	int n;

	if (now >= deadline)
		return -ETIMEDOUT;
	n = poll(&p, 1, (deadline - now) / 1000000 + 1);
	if (n < 0 && errno != EINTR)
		return -errno;
	return 0;
}

/* The descriptors go with the first byte. */
static int send_all(int fd, struct iovec *iov, const int *fds, unsigned int nfds, uint64_t deadline)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control = {0};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	int ret = 0;

	if (nfds) {
		struct cmsghdr *c;

		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	while ((iov[0].iov_len || iov[1].iov_len) && !ret) {
		ssize_t n = sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0) {
			if (errno == EAGAIN)
				ret = wait_for(fd, POLLOUT, deadline);
			else if (errno != EINTR)
				ret = -errno;
			continue;
		}
		msg.msg_control = NULL;
		msg.msg_controllen = 0;
		for (int i = 0; i < 2; i++) {
			size_t part = MIN((size_t)n, iov[i].iov_len);

			iov[i].iov_base = (char *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			n -= part;
		}
	}
	return ret;
}

/* Keep the first descriptor that comes, close the others. How many came. */
static unsigned int take_fds(struct msghdr *msg, int *kept)
{
	unsigned int n = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		const unsigned char *data = CMSG_DATA(c);

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = 0; at + sizeof(int) <= c->cmsg_len - CMSG_LEN(0);
		     at += sizeof(int)) {
			int fd;

			memcpy(&fd, data + at, sizeof(fd));
			n++;
			if (*kept < 0)
				*kept = fd;
			else
				close(fd);
		}
	}
	return n;
}

/* Exactly @len bytes. *@nfds counts descriptors, of which the first is kept in *@in_fd. */
static int receive(int fd, void *buf, size_t len, int *in_fd, unsigned int *nfds, uint64_t deadline)
{
	union {
		struct cmsghdr align;
		char buf[CMSG_SPACE(MAX_FDS * sizeof(int))];
	} control;
	int ret;

	while (len) {
		struct iovec iov = {buf, len};
		struct msghdr msg = {
			.msg_iov = &iov,
			.msg_iovlen = 1,
			.msg_control = control.buf,
			.msg_controllen = sizeof(control.buf),
		};
		ssize_t n = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

		if (n > 0) {
			*nfds += take_fds(&msg, in_fd);
			if (msg.msg_flags & MSG_CTRUNC)
				*nfds = MAX_FDS + 1;
			buf = (char *)buf + n;
			len -= n;
			continue;
		}
		if (!n)
			return -ECONNRESET;
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		ret = wait_for(fd, POLLIN, deadline);
		if (ret)
			return ret;
	}
	return 0;
}

static int transport_error(int code, enum vhost_user_request request, const struct vhost_user *vu,
			   struct hako_error *err)
{
	switch (code) {
	case -ETIMEDOUT:
		return error_set(err, code, "no answer to %s within %u ms",
				 vhost_user_name(request), vu->timeout_ms);
	case -ECONNRESET:
	case -EPIPE:
		return error_set(err, code, "the back end is gone");
	default:
		return error_errno(err, code, "%s", vhost_user_name(request));
	}
}

static int check_reply(const struct header *h, const struct exchange *x, uint32_t want,
		       struct hako_error *err)
{
	const char *name = vhost_user_name(x->request);

	if (h->request != x->request)
		return error_set(err, -EPROTO, "the reply to %s is one to request %u", name,
				 h->request);
	if ((h->flags & ~NEED_REPLY) != (VERSION | REPLY))
		return error_set(err, -EPROTO, "the reply to %s has flags %#x", name, h->flags);
	/* For a configuration space nothing is an answer: no. */
	if (h->size != want && (h->size || x->request != VHOST_USER_GET_CONFIG))
		return error_set(err, -EPROTO, "the reply to %s has %u bytes, not %u", name,
				 h->size, want);
	return 0;
}

static int get_reply(struct vhost_user *vu, const struct exchange *x, uint64_t deadline,
		     struct hako_error *err)
{
	uint64_t ack = 0;
	void *in = x->in_len ? x->in : &ack;
	uint32_t len = x->in_len ? x->in_len : sizeof(ack);
	unsigned int nfds = 0;
	struct header h;
	int fd = -1, ret;

	ret = receive(vu->fd, &h, sizeof(h), &fd, &nfds, deadline);
	if (ret)
		transport_error(ret, x->request, vu, err);
	else
		ret = check_reply(&h, x, len, err);
	if (!ret && h.size && (ret = receive(vu->fd, in, len, &fd, &nfds, deadline)))
		transport_error(ret, x->request, vu, err);
	if (!ret && nfds > (x->in_fd != NULL))
		ret = error_set(err, -EPROTO, "the reply to %s comes with descriptors",
				vhost_user_name(x->request));
	if (!ret && ack)
		ret = error_set(err, -EREMOTEIO, "%s has been refused",
				vhost_user_name(x->request));
	if (!ret && x->in_fd)
		*x->in_fd = fd;
	else if (fd >= 0)
		close(fd);
	return ret;
}

static int try_exchange(struct vhost_user *vu, const struct exchange *x, struct hako_error *err)
{
	uint64_t deadline = clock_now() + vu->timeout_ms * 1000000ull;
	bool ack = !x->in_len && vhost_user_has(vu, VHOST_USER_PROTOCOL_F_REPLY_ACK);
	struct header h = {x->request, VERSION | (ack ? NEED_REPLY : 0), x->out_len};
	struct iovec iov[2] = {{&h, sizeof(h)}, {x->out ? (void *)x->out : &h, x->out_len}};
	int ret = send_all(vu->fd, iov, x->fds, x->nfds, deadline);

	if (ret)
		return transport_error(ret, x->request, vu, err);
	return ack || x->in_len ? get_reply(vu, x, deadline, err) : 0;
}

static int fail(struct vhost_user *vu, int code, const char *why)
{
	vu->failed = true;
	if (vu->lost)
		vu->lost(vu, why);
	return code;
}

static int exchange(struct vhost_user *vu, const struct exchange *x)
{
	struct hako_error err;
	int ret;

	if (!vhost_user_connected(vu))
		return -ENOTCONN;
	ret = try_exchange(vu, x, &err);
	return ret ? fail(vu, ret, err.message) : 0;
}

int vhost_user_reject(struct vhost_user *vu, const char *fmt, ...)
{
	char why[160];
	va_list ap;

	if (!vhost_user_connected(vu))
		return -ENOTCONN;
	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return fail(vu, -EPROTO, why);
}

/* --- messages ---------------------------------------------------------------------------------- */

int vhost_user_send(struct vhost_user *vu, enum vhost_user_request request)
{
	return exchange(vu, &(struct exchange){.request = request});
}

int vhost_user_set(struct vhost_user *vu, enum vhost_user_request request, uint64_t value)
{
	return exchange(vu, &(struct exchange){
				    .request = request, .out = &value, .out_len = sizeof(value)});
}

int vhost_user_get(struct vhost_user *vu, enum vhost_user_request request, uint64_t *value)
{
	return exchange(
		vu, &(struct exchange){.request = request, .in = value, .in_len = sizeof(*value)});
}

int vhost_user_set_ring(struct vhost_user *vu, enum vhost_user_request request, uint32_t index,
			uint32_t num)
{
	struct vhost_vring_state state = {index, num};

	return exchange(vu, &(struct exchange){
				    .request = request, .out = &state, .out_len = sizeof(state)});
}

int vhost_user_get_base(struct vhost_user *vu, uint32_t index, uint32_t *num)
{
	struct vhost_vring_state out = {index, 0}, in;
	int ret = exchange(vu, &(struct exchange){.request = VHOST_USER_GET_VRING_BASE,
						  .out = &out,
						  .out_len = sizeof(out),
						  .in = &in,
						  .in_len = sizeof(in)});

	if (!ret && in.index != index)
		ret = vhost_user_reject(vu,
					"the reply to GET_VRING_BASE of ring %u is one of ring %u",
					index, in.index);
	*num = ret ? 0 : in.num;
	return ret;
}

int vhost_user_set_addr(struct vhost_user *vu, const struct vhost_vring_addr *addr)
{
	return exchange(vu, &(struct exchange){.request = VHOST_USER_SET_VRING_ADDR,
					       .out = addr,
					       .out_len = sizeof(*addr)});
}

int vhost_user_set_ring_fd(struct vhost_user *vu, enum vhost_user_request request, uint32_t index,
			   int fd)
{
	uint64_t value = index;

	return exchange(vu, &(struct exchange){.request = request,
					       .out = &value,
					       .out_len = sizeof(value),
					       .fds = &fd,
					       .nfds = 1});
}

int vhost_user_set_memory(struct vhost_user *vu, const struct memory *mem)
{
	struct memory_table table = {.nregions = mem->nregions};
	struct exchange x = {.request = VHOST_USER_SET_MEM_TABLE, .out = &table};
	int fds[VHOST_USER_MAX_REGIONS];
	uint64_t features;
	int ret;

	if (mem->nregions > VHOST_USER_MAX_REGIONS)
		return vhost_user_reject(vu, "%u memory regions, the protocol has %u",
					 mem->nregions, VHOST_USER_MAX_REGIONS);
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct ram_region *r = &mem->region[i];

		table.region[i].gpa = r->gpa;
		table.region[i].size = r->size;
		table.region[i].user = (uintptr_t)r->hva;
		fds[i] = r->fd;
	}
	x.out_len = offsetof(struct memory_table, region) + mem->nregions * sizeof(table.region[0]);
	x.fds = fds;
	x.nfds = mem->nregions;
	ret = exchange(vu, &x);
	/* Without acknowledgements, an answer to something else says that the table has been read. */
	if (!ret && !vhost_user_has(vu, VHOST_USER_PROTOCOL_F_REPLY_ACK))
		ret = vhost_user_get(vu, VHOST_USER_GET_FEATURES, &features);
	return ret;
}

int vhost_user_get_config(struct vhost_user *vu, uint32_t offset, void *buf, uint32_t len)
{
	struct config_space out = {.offset = offset, .size = len}, in = {0};
	uint32_t total = offsetof(struct config_space, data) + len;
	int ret;

	if (len > VHOST_USER_MAX_CONFIG)
		return -EINVAL;
	ret = exchange(vu, &(struct exchange){.request = VHOST_USER_GET_CONFIG,
					      .out = &out,
					      .out_len = total,
					      .in = &in,
					      .in_len = total});
	if (!ret && !in.size)
		return -EIO;
	if (!ret && (in.offset != offset || in.size != len))
		ret = vhost_user_reject(vu, "the reply to GET_CONFIG is one of %u bytes at %u",
					in.size, in.offset);
	if (!ret)
		memcpy(buf, in.data, len);
	return ret;
}

/* --- inflight ---------------------------------------------------------------------------------- */

void vhost_user_forget(struct vhost_user *vu)
{
	if (vu->inflight.fd >= 0)
		close(vu->inflight.fd);
	vu->inflight = (struct vhost_user_inflight){.fd = -1};
}

/* The area is never looked into here: it is the back ends' own. */
static int get_inflight(struct vhost_user *vu, uint16_t nqueues, uint16_t queue_size)
{
	struct inflight_area out = {.nqueues = nqueues, .queue_size = queue_size}, in = {0};
	int fd = -1;
	int ret = exchange(vu, &(struct exchange){.request = VHOST_USER_GET_INFLIGHT_FD,
						  .out = &out,
						  .out_len = sizeof(out),
						  .in = &in,
						  .in_len = sizeof(in),
						  .in_fd = &fd});

	if (ret)
		return ret;
	if (!in.mmap_size || fd < 0) {
		if (fd >= 0)
			close(fd);
		return in.mmap_size ? vhost_user_reject(
					      vu, "the reply to GET_INFLIGHT_FD lacks a descriptor")
				    : 0; /* it wants to note nothing */
	}
	vu->inflight = (struct vhost_user_inflight){
		.mmap_size = in.mmap_size,
		.mmap_offset = in.mmap_offset,
		.nqueues = nqueues,
		.queue_size = queue_size,
		.fd = fd,
	};
	return 0;
}

int vhost_user_share_inflight(struct vhost_user *vu, uint16_t nqueues, uint16_t queue_size)
{
	struct vhost_user_inflight *f = &vu->inflight;
	struct inflight_area area;
	int ret = 0;

	if (f->fd >= 0 && (f->nqueues != nqueues || f->queue_size != queue_size))
		vhost_user_forget(vu);
	if (f->fd < 0)
		ret = get_inflight(vu, nqueues, queue_size);
	if (ret || f->fd < 0)
		return ret;
	area = (struct inflight_area){f->mmap_size, f->mmap_offset, f->nqueues, f->queue_size};
	return exchange(vu, &(struct exchange){.request = VHOST_USER_SET_INFLIGHT_FD,
					       .out = &area,
					       .out_len = sizeof(area),
					       .fds = &f->fd,
					       .nfds = 1});
}

/* --- connection -------------------------------------------------------------------------------- */

void vhost_user_init(struct vhost_user *vu, void (*lost)(struct vhost_user *vu, const char *why))
{
	*vu = (struct vhost_user){
		.fd = -1,
		.timeout_ms = VHOST_USER_TIMEOUT_MS,
		.inflight.fd = -1,
		.lost = lost,
	};
}

static int try_u64(struct vhost_user *vu, enum vhost_user_request request, const uint64_t *out,
		   uint64_t *in, struct hako_error *err)
{
	struct exchange x = {
		.request = request,
		.out = out,
		.out_len = out ? sizeof(*out) : 0,
		.in = in,
		.in_len = in ? sizeof(*in) : 0,
	};

	return try_exchange(vu, &x, err);
}

static int negotiate(struct vhost_user *vu, struct hako_error *err)
{
	uint64_t protocol = 0;
	int ret = try_u64(vu, VHOST_USER_GET_FEATURES, NULL, &vu->features, err);

	if (!ret && !(vu->features & BIT64(VIRTIO_F_VERSION_1)))
		ret = error_set(err, -EOPNOTSUPP, "the back end is for legacy drivers only");
	if (!ret && (vu->features & BIT64(VHOST_USER_F_PROTOCOL_FEATURES))) {
		ret = try_u64(vu, VHOST_USER_GET_PROTOCOL_FEATURES, NULL, &protocol, err);
		protocol &= PROTOCOL_WANTED;
		if (!ret)
			ret = try_u64(vu, VHOST_USER_SET_PROTOCOL_FEATURES, &protocol, NULL, err);
		vu->protocol = protocol;
	}
	vu->queues = 1;
	if (!ret && vhost_user_has(vu, VHOST_USER_PROTOCOL_F_MQ))
		ret = try_u64(vu, VHOST_USER_GET_QUEUE_NUM, NULL, &vu->queues, err);
	return ret ?: try_u64(vu, VHOST_USER_SET_OWNER, NULL, NULL, err);
}

int vhost_user_open(struct vhost_user *vu, int fd, struct hako_error *err)
{
	int domain = 0, ret = 0;
	socklen_t len = sizeof(domain);

	vhost_user_close(vu);
	vu->fd = fd;
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_UNIX)
		ret = error_set(err, -ENOTSOCK, "a Unix socket is needed");
	if (!ret)
		ret = negotiate(vu, err);
	if (ret)
		vhost_user_close(vu);
	return ret;
}

void vhost_user_close(struct vhost_user *vu)
{
	if (vu->fd >= 0)
		close(vu->fd);
	vu->fd = -1;
	vu->failed = vu->configured = false;
	vu->running = 0;
	vu->features = vu->protocol = vu->queues = 0;
}

void vhost_user_check(struct vhost_user *vu)
{
	char byte;
	ssize_t n;

	if (!vhost_user_connected(vu))
		return;
	n = recv(vu->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		vhost_user_reject(vu, "the back end has sent something unasked");
	else if (!n || (errno != EAGAIN && errno != EINTR))
		fail(vu, -ECONNRESET, "the back end is gone");
}
