/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network "tap": an interface of the host, whose packets are read and written straight from and to the guest's buffers. With
 * the vnet header (IFF_VNET_HDR) checksums and segmentation are left to whoever needs them.
 */
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/net/net.h"
#include "vmm/vm.h"

#define TAP_IOV_MAX 1024 /* UIO_MAXIOV */

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

struct tap_queue {
	struct tap *tap;
	unsigned int index;
	int fd;
	struct loop *loop; /* while started */
	struct loop_watch watch;
	bool recv_on, send_blocked;
	bool attached; /* of queues behind the first */
	/* Without the vnet header: the packet's pieces behind its header. */
	struct iovec *iov;
};

struct tap {
	struct netdev netdev;
	char *ifname, *br, *script, *downscript, *fd_name, *fds;
	int vnet_hdr, vhost; /* enum option_onoffauto */
	char *vhost_fd_name, *vhost_fds;
	int vhost_fd[NETDEV_MAX_QUEUES];
	uint32_t nqueues;
	char name[IFNAMSIZ];
	struct tap_queue queue[NETDEV_MAX_QUEUES];
};

/* --- packets ----------------------------------------------------------------------------------- */

static uint32_t tap_events(const struct tap_queue *q)
{
	return (q->recv_on ? POLLIN : 0) | (q->send_blocked ? POLLOUT : 0);
}

/*
 * Edge-triggered: one call for each wake-up of the interface, so that reading until there is nothing more needs nothing to be
 * armed again. What is armed and not wanted stays armed until it comes.
 */
static void tap_ready(struct loop_watch *watch, uint32_t revents)
{
	struct tap_queue *q = watch->opaque;
	struct netdev *net = &q->tap->netdev;
	bool send_blocked = q->send_blocked;

	if (revents & ~tap_events(q) & (POLLIN | POLLOUT))
		loop_watch_set(watch, tap_events(q));
	if ((revents & POLLOUT) && send_blocked) {
		q->send_blocked = false;
		net->client_ops->writable(net->client, q->index);
	}
	if ((revents & POLLIN) && q->loop && q->recv_on)
		net->client_ops->readable(net->client, q->index);
}

static void tap_update_watch(struct tap_queue *q)
{
	if (tap_events(q) & ~q->watch.events)
		loop_watch_set(&q->watch, tap_events(q));
}

/*
 * The kernel gives packets to attached queues only. The first one stays attached: with none the interface would have no carrier, and
 * one that was made for a single queue can not do it.
 */
static int tap_attach_queue(struct tap_queue *q, bool attach)
{
	struct ifreq ifr = {.ifr_flags = attach ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE};

	if (!q->index || q->attached == attach)
		return 0;
	if (ioctl(q->fd, TUNSETQUEUE, &ifr))
		return -errno;
	q->attached = attach;
	return 0;
}

static int tap_start(struct netdev *net, unsigned int queue, struct loop *loop,
		     struct hako_error *err)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];
	int ret;

	ret = tap_attach_queue(q, true);
	if (ret)
		return error_errno(err, ret, "%s: queue", tap->name);
	q->recv_on = q->send_blocked = false;
	q->watch.fd = q->fd;
	q->watch.events = POLLIN;
	q->watch.edge = true;
	q->watch.fn = tap_ready;
	q->watch.opaque = q;
	ret = loop_watch_start(loop, &q->watch, err);
	if (ret)
		tap_attach_queue(q, false);
	else
		q->loop = loop;
	return ret;
}

static int tap_start_vhost(struct netdev *net, unsigned int queue, struct hako_error *err)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];
	int ret = tap_attach_queue(q, true);

	return ret ? error_errno(err, ret, "%s: queue", tap->name) : q->fd;
}

static void tap_stop(struct netdev *net, unsigned int queue)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];

	loop_watch_stop(&q->watch);
	q->loop = NULL;
	q->recv_on = q->send_blocked = false;
	tap_attach_queue(q, false);
}

static void tap_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];

	q->recv_on = on;
	if (q->loop)
		tap_update_watch(q);
}

/* The elements of @iov behind the first 12 bytes, in q->iov. */
static int tap_skip_header(struct tap_queue *q, const struct iovec *iov, int niov)
{
	size_t skip = NET_HDR_LEN;
	int n = 0;

	for (int i = 0; i < niov && n < TAP_IOV_MAX; i++) {
		size_t s = MIN(skip, iov[i].iov_len);

		skip -= s;
		if (iov[i].iov_len == s)
			continue;
		q->iov[n].iov_base = (uint8_t *)iov[i].iov_base + s;
		q->iov[n++].iov_len = iov[i].iov_len - s;
	}
	return skip ? 0 : n;
}

static void tap_zero_header(const struct iovec *iov, int niov)
{
	static const uint8_t hdr[NET_HDR_LEN] = {[10] = 1}; /* num_buffers */
	size_t done = 0;

	for (int i = 0; i < niov && done < NET_HDR_LEN; i++) {
		size_t n = MIN(NET_HDR_LEN - done, iov[i].iov_len);

		memcpy(iov[i].iov_base, hdr + done, n);
		done += n;
	}
}

static ssize_t tap_recv(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];
	ssize_t n;
	int k;

	if (net->vnet_hdr) {
		n = readv(q->fd, iov, MIN(niov, TAP_IOV_MAX));
		return n < 0 ? -errno : n;
	}
	k = tap_skip_header(q, iov, niov);
	if (!k)
		return -EMSGSIZE;
	n = readv(q->fd, q->iov, k);
	if (n < 0)
		return -errno;
	tap_zero_header(iov, niov);
	return NET_HDR_LEN + n;
}

/* @res of writev(2) or loop_io_packets() with @hdr bytes less. */
static ssize_t tap_sent(struct tap_queue *q, ssize_t res, ssize_t hdr)
{
	if (res >= 0)
		return hdr + res;
	if (res == -EAGAIN) {
		q->send_blocked = true;
		tap_update_watch(q);
	}
	return res;
}

static ssize_t tap_send(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];
	ssize_t n, hdr = 0;

	if (net->vnet_hdr) {
		n = writev(q->fd, iov, MIN(niov, TAP_IOV_MAX));
	} else {
		int k = tap_skip_header(q, iov, niov);

		if (!k)
			return -EINVAL;
		hdr = NET_HDR_LEN;
		n = writev(q->fd, q->iov, k);
	}
	return tap_sent(q, n < 0 ? -errno : n, hdr);
}

static void tap_send_packets(struct netdev *net, unsigned int queue, struct loop_packet *packet,
			     unsigned int n)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	struct tap_queue *q = &tap->queue[queue];

	if (!net->vnet_hdr) {
		for (unsigned int i = 0; i < n; i++)
			packet[i].res = tap_send(net, queue, packet[i].iov, packet[i].niov);
		return;
	}
	for (unsigned int i = 0; i < n; i++)
		packet[i].niov = MIN(packet[i].niov, TAP_IOV_MAX);
	loop_io_packets(q->loop, LOOP_IO_WRITE, q->fd, packet, n);
	tap_sent(q, packet[n - 1].res, 0);
}

static unsigned long tap_offload_flags(const struct net_offloads *o)
{
	unsigned long flags = 0;

	/* The kernel takes nothing without the checksum. */
	if (!o->csum)
		return 0;
	flags |= TUN_F_CSUM;
	if (o->tso4)
		flags |= TUN_F_TSO4;
	if (o->tso6)
		flags |= TUN_F_TSO6;
	if (o->ecn && (o->tso4 || o->tso6))
		flags |= TUN_F_TSO_ECN;
	if (o->ufo)
		flags |= TUN_F_UFO;
	if (o->uso)
		flags |= TUN_F_USO4 | TUN_F_USO6;
	return flags;
}

static int tap_set_offloads(struct netdev *net, const struct net_offloads *offloads)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	unsigned long flags = tap_offload_flags(offloads);

	if (!net->vnet_hdr)
		return flags ? -EOPNOTSUPP : 0;
	return ioctl(tap->queue[0].fd, TUNSETOFFLOAD, flags) ? -errno : 0;
}

/* The interface loses its carrier (Linux 5.0), so that the host, and a bridge, send nothing there. */
static void tap_set_link(struct netdev *net, bool up)
{
	struct tap *tap = container_of(net, struct tap, netdev);
	int carrier = up;

	ioctl(tap->queue[0].fd, TUNSETCARRIER, &carrier);
}

static const struct netdev_ops tap_ops = {
	.start = tap_start,
	.start_vhost = tap_start_vhost,
	.stop = tap_stop,
	.recv_enable = tap_recv_enable,
	.recv = tap_recv,
	.send = tap_send,
	.send_packets = tap_send_packets,
	.set_offloads = tap_set_offloads,
	.set_link = tap_set_link,
};

/* --- opening ----------------------------------------------------------------------------------- */

/* What went wrong with the interface, and what to do about it. */
static int tap_attach_error(const struct tap *tap, int code, struct hako_error *err)
{
	switch (code) {
	case -EPERM:
		error_set(err, code, "ifname=%s: no permission", tap->name);
		return error_hint(err,
				  "it needs CAP_NET_ADMIN, or an interface of your own: ip tuntap "
				  "add %s mode tap user $USER",
				  strchr(tap->name, '%') ? "tap0" : tap->name);
	case -EBUSY:
		return error_set(err, code, "ifname=%s: in use by another program", tap->name);
	case -EINVAL:
		return error_set(err, code,
				 "ifname=%s: there is such an interface, but it is not a tap%s",
				 tap->name, tap->nqueues > 1 ? " with multi_queue" : "");
	default:
		return error_errno(err, code, "ifname=%s", tap->name);
	}
}

static int tap_ctl_ioctl(unsigned long request, void *arg)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;

	if (fd < 0)
		return -errno;
	ret = ioctl(fd, request, arg) ? -errno : 0;
	close(fd);
	return ret;
}

/* Bring the interface up. */
static int tap_up(const struct tap *tap)
{
	struct ifreq ifr = {0};
	int ret;

	memcpy(ifr.ifr_name, tap->name, IFNAMSIZ);
	ret = tap_ctl_ioctl(SIOCGIFFLAGS, &ifr);
	if (ret || (ifr.ifr_flags & IFF_UP))
		return ret;
	ifr.ifr_flags |= IFF_UP;
	return tap_ctl_ioctl(SIOCSIFFLAGS, &ifr);
}

static int tap_join_bridge(const struct tap *tap, struct hako_error *err)
{
	struct ifreq ifr = {0};
	int ret;

	if (strlen(tap->br) >= IFNAMSIZ || !if_nametoindex(tap->br))
		return error_set(err, -ENODEV, "br=%s: there is no such bridge", tap->br);
	memcpy(ifr.ifr_name, tap->br, strlen(tap->br));
	ifr.ifr_ifindex = if_nametoindex(tap->name);
	ret = tap_ctl_ioctl(SIOCBRADDIF, &ifr);
	if (ret == -EOPNOTSUPP || ret == -EINVAL)
		return error_set(err, ret, "br=%s: not a bridge", tap->br);
	if (ret == -EPERM) {
		error_set(err, ret, "br=%s: no permission to add %s to it", tap->br, tap->name);
		return error_hint(err, "it needs CAP_NET_ADMIN");
	}
	if (ret == -EBUSY) /* as when the tap is a port of it already */
		return 0;
	return ret ? error_errno(err, ret, "br=%s", tap->br) : 0;
}

static int tap_open_queue(struct tap *tap, unsigned int index, short flags)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	memcpy(ifr.ifr_name, tap->name, IFNAMSIZ);
	if (ioctl(fd, TUNSETIFF, &ifr)) {
		ret = -errno;
		close(fd);
		return ret;
	}
	memcpy(tap->name, ifr.ifr_name, IFNAMSIZ);
	tap->queue[index].fd = fd;
	return 0;
}

static int tap_open(struct tap *tap, struct hako_error *err)
{
	const char *name = tap->ifname ? tap->ifname : "tap%d";
	const char *percent = strchr(name, '%');
	short flags = IFF_TAP | IFF_NO_PI;
	bool exists;
	int ret;

	if (strlen(name) >= IFNAMSIZ)
		return error_set(err, -EINVAL, "ifname=%s: longer than %d characters", name,
				 IFNAMSIZ - 1);
	/* What the kernel's dev_valid_name() takes. */
	if (!*name || !strcmp(name, ".") || !strcmp(name, "..") || strpbrk(name, "/: \t\n\v\f\r") ||
	    (percent && (strncmp(percent, "%d", 2) || strchr(percent + 1, '%'))))
		return error_set(err, -EINVAL, "ifname=%s: not a name for an interface", name);
	strcpy(tap->name, name);
	if (access("/dev/net/tun", F_OK)) {
		error_errno(err, -errno, "/dev/net/tun");
		return error_hint(err, "load the module with: modprobe tun");
	}
	exists = if_nametoindex(name);
	if (tap->vnet_hdr != ONOFFAUTO_OFF)
		flags |= IFF_VNET_HDR;
	if (tap->nqueues > 1)
		flags |= IFF_MULTI_QUEUE;
	ret = tap_open_queue(tap, 0, flags);
	if (ret == -EINVAL && exists && tap->nqueues == 1) {
		/* It may have been made for several queues: take one of them. */
		flags |= IFF_MULTI_QUEUE;
		ret = tap_open_queue(tap, 0, flags);
	}
	if (ret == -EACCES) {
		error_errno(err, ret, "/dev/net/tun");
		return error_hint(err, "make it accessible with: chmod 666 /dev/net/tun");
	}
	for (unsigned int i = 1; i < tap->nqueues && !ret; i++)
		ret = tap_open_queue(tap, i, flags);
	if (ret)
		return tap_attach_error(tap, ret, err);
	ret = tap_up(tap);
	if (ret && !exists)
		return error_errno(err, ret, "ifname=%s: bringing it up", tap->name);
	if (ret)
		vm_log(tap->netdev.obj.vm, "%s is down, and may not be brought up: %s", tap->name,
		       strerror(-ret));
	return 0;
}

/* One descriptor that somebody has opened for us. */
static int tap_take_fd(struct tap *tap, unsigned int index, const char *text, bool *vnet_hdr,
		       struct hako_error *err)
{
	struct ifreq ifr = {0};
	uint64_t fd;
	int flags;

	if (parse_uint(text, &fd) || fd > INT32_MAX)
		return error_set(err, -EINVAL, "fd=%s: not the number of a descriptor", text);
	for (unsigned int i = 0; i < index; i++) {
		if (tap->queue[i].fd == (int)fd)
			return error_set(err, -EINVAL, "fd=%s: named twice", text);
	}
	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return error_set(err, -EBADF, "fd=%s: not an open descriptor", text);
	if (ioctl(fd, TUNGETIFF, &ifr) || !(ifr.ifr_flags & IFF_TAP))
		return error_set(err, -EINVAL, "fd=%s: not a tap", text);
	if (!(ifr.ifr_flags & IFF_NO_PI))
		return error_set(err, -EINVAL, "fd=%s: opened without IFF_NO_PI", text);
	fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	*vnet_hdr = ifr.ifr_flags & IFF_VNET_HDR;
	memcpy(tap->name, ifr.ifr_name, IFNAMSIZ);
	tap->queue[index].fd = fd;
	return 0;
}

static int tap_take_fds(struct tap *tap, bool *vnet_hdr, struct hako_error *err)
{
	char *copy = strdup(tap->fds ? tap->fds : tap->fd_name), *save = NULL;
	char name[IFNAMSIZ] = "";
	unsigned int n = 0;
	int ret = copy ? 0 : error_errno(err, -ENOMEM, "fd");

	for (char *s = copy ? strtok_r(copy, ":", &save) : NULL; s && !ret;
	     s = strtok_r(NULL, ":", &save)) {
		bool hdr = false;

		if (n == NETDEV_MAX_QUEUES) {
			ret = error_set(err, -EINVAL, "fds=%s: more than %d", tap->fds,
					NETDEV_MAX_QUEUES);
			break;
		}
		ret = tap_take_fd(tap, n, s, &hdr, err);
		if (!ret && n && (hdr != *vnet_hdr || strcmp(name, tap->name)))
			ret = error_set(err, -EINVAL, "fds=%s: not queues of one interface",
					tap->fds);
		memcpy(name, tap->name, IFNAMSIZ);
		*vnet_hdr = hdr;
		n++;
	}
	free(copy);
	if (!ret && !n)
		ret = error_set(err, -EINVAL, "fd: no descriptor is named");
	tap->nqueues = n;
	return ret;
}

static int tap_probe_offloads(struct tap *tap, struct hako_error *err)
{
	struct net_offloads *o = &tap->netdev.offloads;
	int fd = tap->queue[0].fd, size = NET_HDR_LEN, on = 1;

	for (unsigned int i = 0; i < tap->nqueues; i++) {
		if (ioctl(tap->queue[i].fd, TUNSETVNETHDRSZ, &size))
			return error_errno(err, -errno, "%s: virtio 1.0 headers", tap->name);
		/* Little-endian hosts are so without asking. */
		if (ioctl(tap->queue[i].fd, TUNSETVNETLE, &on) && htole16(1) != 1)
			return error_errno(err, -errno, "%s: little-endian headers", tap->name);
	}
	o->csum = !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM);
	o->tso4 = o->csum && !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4);
	o->tso6 = o->csum && !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO6);
	o->ecn = o->tso4 && !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO_ECN);
	o->ufo = o->csum && !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_UFO);
	o->uso = o->csum && !ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_USO4 | TUN_F_USO6);
	ioctl(fd, TUNSETOFFLOAD, 0);
	return 0;
}

static int tap_check_options(const struct tap *tap, struct hako_error *err)
{
	bool fd = tap->fd_name || tap->fds;

	if (tap->fd_name && tap->fds)
		return error_set(err, -EINVAL, "fd and fds exclude each other");
	if (tap->fd_name && strchr(tap->fd_name, ':'))
		return error_set(err, -EINVAL, "fd=%s: one descriptor only (fds takes several)",
				 tap->fd_name);
	if (fd && (tap->ifname || tap->nqueues > 1))
		return error_set(err, -EINVAL, "fd does not go with %s",
				 tap->ifname ? "ifname" : "queues");
	if (tap->vhost_fd_name && tap->vhost_fds)
		return error_set(err, -EINVAL, "vhostfd and vhostfds exclude each other");
	if ((tap->vhost_fd_name || tap->vhost_fds) && tap->vhost == ONOFFAUTO_OFF)
		return error_set(err, -EINVAL, "vhostfd does not go with vhost=off");
	if (tap->script && *tap->script && strcmp(tap->script, "no"))
		return error_set(err, -EINVAL,
				 "script=%s: no scripts are run (set the interface up before, or "
				 "name a bridge with br)",
				 tap->script);
	if (tap->downscript && *tap->downscript && strcmp(tap->downscript, "no"))
		return error_set(err, -EINVAL, "downscript=%s: no scripts are run",
				 tap->downscript);
	return 0;
}

/* --- vhost ------------------------------------------------------------------------------------- */

static int tap_open_vhost(struct tap *tap, struct hako_error *err)
{
	int ret;

	for (unsigned int i = 0; i < tap->nqueues; i++) {
		tap->vhost_fd[i] = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
		if (tap->vhost_fd[i] >= 0)
			continue;
		ret = error_errno(err, -errno, "vhost=on: /dev/vhost-net");
		if (ret == -EACCES || ret == -EPERM)
			error_hint(err, "add your user to the device's group");
		else if (ret == -ENOENT || ret == -ENODEV || ret == -ENXIO)
			error_hint(err, "load the module with: modprobe vhost_net");
		return ret;
	}
	return 0;
}

/* Whether it is one of vhost-net shows when it is used. */
static int tap_take_vhost_fd(struct tap *tap, unsigned int index, const char *text,
			     struct hako_error *err)
{
	uint64_t fd;

	if (parse_uint(text, &fd) || fd > INT32_MAX)
		return error_set(err, -EINVAL, "vhostfd=%s: not the number of a descriptor", text);
	for (unsigned int i = 0; i < tap->nqueues; i++) {
		if (tap->vhost_fd[i] == (int)fd || tap->queue[i].fd == (int)fd)
			return error_set(err, -EINVAL, "vhostfd=%s: named twice", text);
	}
	if (fcntl(fd, F_SETFD, FD_CLOEXEC))
		return error_set(err, -EBADF, "vhostfd=%s: not an open descriptor", text);
	tap->vhost_fd[index] = fd;
	return 0;
}

static int tap_take_vhost_fds(struct tap *tap, struct hako_error *err)
{
	char *copy = strdup(tap->vhost_fds ? tap->vhost_fds : tap->vhost_fd_name), *save = NULL;
	char *s = copy ? strtok_r(copy, ":", &save) : NULL;
	int ret = copy ? 0 : error_errno(err, -ENOMEM, "vhostfd");
	unsigned int n = 0;

	for (; s && !ret && n < tap->nqueues; s = strtok_r(NULL, ":", &save))
		ret = tap_take_vhost_fd(tap, n++, s, err);
	if (!ret && (n < tap->nqueues || s))
		ret = error_set(err, -EINVAL, "vhostfds: %s descriptors than the %u queue pairs",
				s ? "more" : "fewer", tap->nqueues);
	free(copy);
	return ret;
}

static int tap_setup_vhost(struct tap *tap, struct hako_error *err)
{
	bool fds = tap->vhost_fd_name || tap->vhost_fds;
	struct hako_error why = {0};
	int ret;

	if (tap->vhost == ONOFFAUTO_OFF)
		return 0;
	ret = fds ? tap_take_vhost_fds(tap, err) : tap_open_vhost(tap, &why);
	tap->netdev.vhost_required = fds || tap->vhost == ONOFFAUTO_ON;
	if (!ret)
		tap->netdev.vhost_fd = tap->vhost_fd;
	if (ret && !fds && tap->netdev.vhost_required)
		return error_set(err, ret, "%s", why.message);
	return fds ? ret : 0;
}

/* --- class ------------------------------------------------------------------------------------- */

static const struct option tap_options[] = {
	OPT_STRING("ifname", struct tap, ifname, NULL,
		   "the interface; it is made if there is none of that name (default: tapN)"),
	OPT_STRING("fd", struct tap, fd_name, NULL, "an open descriptor of a tap instead"),
	OPT_STRING("fds", struct tap, fds, NULL, "several of them, separated by colons"),
	OPT_STRING("br", struct tap, br, NULL, "bridge that the interface joins"),
	OPT_STRING("script", struct tap, script, NULL, "accepted: no"),
	OPT_STRING("downscript", struct tap, downscript, NULL, "accepted: no"),
	OPT_UINT("queues", struct tap, nqueues, "1", 1, NETDEV_MAX_QUEUES, "queue pairs"),
	OPT_ONOFFAUTO("vnet_hdr", struct tap, vnet_hdr, "auto",
		      "leave checksums and segmentation to the host"),
	OPT_ONOFFAUTO("vhost", struct tap, vhost, "auto",
		      "packets are moved by the kernel (vhost-net); auto: if it can"),
	OPT_STRING("vhostfd", struct tap, vhost_fd_name, NULL,
		   "an open descriptor of /dev/vhost-net"),
	OPT_STRING("vhostfds", struct tap, vhost_fds, NULL,
		   "several of them, one for each queue pair, separated by colons"),
	OPT_END,
};

static void tap_destroy(struct object *obj)
{
	struct tap *tap = (struct tap *)obj;

	for (unsigned int i = 0; i < NETDEV_MAX_QUEUES; i++) {
		if (tap->vhost_fd[i] >= 0)
			close(tap->vhost_fd[i]);
		if (tap->queue[i].fd >= 0)
			close(tap->queue[i].fd);
		free(tap->queue[i].iov);
	}
}

static int tap_setup(struct tap *tap, struct hako_error *err)
{
	bool vnet_hdr = tap->vnet_hdr != ONOFFAUTO_OFF;
	int ret = tap_check_options(tap, err);

	if (ret)
		return ret;
	ret = tap->fd_name || tap->fds ? tap_take_fds(tap, &vnet_hdr, err) : tap_open(tap, err);
	if (ret)
		return ret;
	tap->netdev.vnet_hdr = vnet_hdr;
	tap->netdev.queues = tap->nqueues;
	for (unsigned int i = 0; i < tap->nqueues && !vnet_hdr; i++) {
		tap->queue[i].iov = calloc(TAP_IOV_MAX, sizeof(struct iovec));
		if (!tap->queue[i].iov)
			return error_errno(err, -ENOMEM, "%s", tap->name);
	}
	if (vnet_hdr)
		ret = tap_probe_offloads(tap, err);
	for (unsigned int i = 1; i < tap->nqueues && !ret; i++) {
		tap->queue[i].attached = true;
		ret = tap_attach_queue(&tap->queue[i], false);
		if (ret)
			error_errno(err, ret, "%s: queue %u", tap->name, i);
	}
	if (!ret && tap->br)
		ret = tap_join_bridge(tap, err);
	return ret ?: tap_setup_vhost(tap, err);
}

static int tap_create(struct object *obj, struct hako_error *err)
{
	struct tap *tap = (struct tap *)obj;
	int ret;

	tap->netdev.ops = &tap_ops;
	for (unsigned int i = 0; i < NETDEV_MAX_QUEUES; i++) {
		tap->queue[i].tap = tap;
		tap->queue[i].index = i;
		tap->queue[i].fd = -1;
		tap->vhost_fd[i] = -1;
	}
	ret = tap_setup(tap, err);
	if (ret)
		tap_destroy(obj);
	return ret;
}

static int tap_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct tap *tap = (struct tap *)obj;

	if (tap->netdev.vhost_fd)
		sandbox_need(sb, SANDBOX_VHOST);
	return 0;
}

static const struct class tap_class = {
	.name = "tap",
	.help = "interface of the host",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct tap),
	.options = tap_options,
	.create = tap_create,
	.destroy = tap_destroy,
	.needs = SANDBOX_TAP,
	.confine = tap_confine,
};
HAKO_CLASS(tap_class);
