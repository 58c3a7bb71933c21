/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network "dgram": each frame is a datagram of a UDP or Unix socket, as QEMU's. Between two addresses, over a socket that is open already, or to
 * a multicast group, whose members then are on one wire. Frames are read and written straight to and from the guest's buffers.
 */
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/net/address.h"
#include "devices/net/net.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define IOV_LIMIT 1024 /* UIO_MAXIOV */
#define RETRY_NS  200000

struct dgram {
	struct netdev netdev;
	struct net_address local, remote;

	struct net_sockaddr to; /* len 0: the socket knows */
	int fd;
	bool unlink;
	struct loop *loop; /* while started */
	struct loop_watch watch;
	struct loop_timer timer;
	bool recv_on, send_blocked;
	struct iovec iov[IOV_LIMIT];
};

/* --- frames ------------------------------------------------------------------------------------ */

/* @iov without the header. */
static struct iovec *dgram_skip_header(struct dgram *d, const struct iovec *iov, int *niov)
{
	struct iovec *p = d->iov;

	*niov = MIN(*niov, IOV_LIMIT);
	memcpy(p, iov, *niov * sizeof(*iov));
	*niov = iov_skip(&p, *niov, NET_HDR_LEN);
	return p;
}

static ssize_t dgram_recv(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	static const uint8_t hdr[NET_HDR_LEN] = {[10] = 1}; /* num_buffers */
	struct dgram *d = container_of(net, struct dgram, netdev);
	struct msghdr msg = {0};
	int k = niov, tries = 16;
	ssize_t n;

	msg.msg_iov = dgram_skip_header(d, iov, &k);
	msg.msg_iovlen = k;
	/* That nobody was there to take what we sent (ICMP) is said here, each time once. */
	do {
		n = recvmsg(d->fd, &msg, MSG_DONTWAIT);
	} while (n < 0 && errno != EAGAIN && --tries);
	if (n < 0)
		return -EAGAIN;
	if (n < ETH_HDR || (msg.msg_flags & MSG_TRUNC))
		return -EMSGSIZE;
	iov_write(iov, niov, 0, hdr, NET_HDR_LEN);
	return NET_HDR_LEN + n;
}

/*
 * A Unix socket whose peer's queue is full does not say when there is room (poll(2) asks the peer of a connected one only), so the next
 * attempt is a matter of time.
 */
static ssize_t dgram_send(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct dgram *d = container_of(net, struct dgram, netdev);
	struct msghdr msg = {0};
	int k = niov, tries = 16;
	ssize_t n;

	msg.msg_iov = dgram_skip_header(d, iov, &k);
	msg.msg_iovlen = k;
	if (!k)
		return -EINVAL;
	if (d->to.len) {
		msg.msg_name = &d->to.storage;
		msg.msg_namelen = d->to.len;
	}
	/* As above: the error of an earlier datagram says nothing of this one. */
	do {
		n = sendmsg(d->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	} while (n < 0 && (errno == EINTR || errno == ECONNREFUSED) && --tries);
	if (n >= 0)
		return NET_HDR_LEN + n;
	if (errno != EAGAIN && errno != ENOBUFS)
		return -errno;
	d->send_blocked = true;
	loop_timer_set(d->loop, &d->timer, clock_now() + RETRY_NS);
	return -EAGAIN;
}

static void dgram_retry(struct loop_timer *timer)
{
	struct dgram *d = container_of(timer, struct dgram, timer);

	if (!d->send_blocked)
		return;
	d->send_blocked = false;
	d->netdev.client_ops->writable(d->netdev.client, 0);
}

/* Edge-triggered, as tap: the card reads until there is nothing more. What is armed and not wanted stays armed until it comes. */
static void dgram_ready(struct loop_watch *watch, uint32_t revents)
{
	struct dgram *d = watch->opaque;

	if (d->recv_on)
		d->netdev.client_ops->readable(d->netdev.client, 0);
	else
		loop_watch_set(watch, 0);
}

/* --- the card's side --------------------------------------------------------------------------- */

static int dgram_start(struct netdev *net, unsigned int queue, struct loop *loop,
		       struct hako_error *err)
{
	struct dgram *d = container_of(net, struct dgram, netdev);
	int ret;

	d->recv_on = d->send_blocked = false;
	d->watch.fd = d->fd;
	d->watch.events = POLLIN;
	d->watch.edge = true;
	d->watch.fn = dgram_ready;
	d->watch.opaque = d;
	ret = loop_watch_start(loop, &d->watch, err);
	if (!ret)
		d->loop = loop;
	return ret;
}

static void dgram_stop(struct netdev *net, unsigned int queue)
{
	struct dgram *d = container_of(net, struct dgram, netdev);

	loop_watch_stop(&d->watch);
	loop_timer_cancel(&d->timer);
	d->loop = NULL;
	d->recv_on = d->send_blocked = false;
}

static void dgram_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	struct dgram *d = container_of(net, struct dgram, netdev);

	d->recv_on = on;
	if (d->loop && on && !d->watch.events)
		loop_watch_set(&d->watch, POLLIN);
}

static const struct netdev_ops dgram_ops = {
	.start = dgram_start,
	.stop = dgram_stop,
	.recv_enable = dgram_recv_enable,
	.recv = dgram_recv,
	.send = dgram_send,
	.set_offloads = netdev_no_offloads,
};

/* --- class ------------------------------------------------------------------------------------- */

static bool is_multicast(const struct net_sockaddr *sa)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&sa->storage;

	return sa->sa.sa_family == AF_INET && IN_MULTICAST(ntohl(in->sin_addr.s_addr));
}

/* local.host: the interface (its address) by which the group is reached. */
static int multicast_interface(const struct dgram *d, struct in_addr *addr, struct hako_error *err)
{
	struct net_address a = d->local;
	struct net_sockaddr list[NET_ADDRESSES];
	int n;

	addr->s_addr = INADDR_ANY;
	if (d->local.type == NET_ADDRESS_NONE)
		return 0;
	if (d->local.type != NET_ADDRESS_INET)
		return error_set(err, -EINVAL,
				 "local.type=%s: with a multicast group only inet or fd",
				 net_address_types[d->local.type]);
	a.ipv4 = ONOFFAUTO_ON;
	a.port = a.port ?: (char *)"0";
	n = net_address_resolve(&a, "local", SOCK_DGRAM, true, list, err);
	if (n > 0)
		*addr = ((struct sockaddr_in *)&list[0].storage)->sin_addr;
	return MIN(n, 0);
}

static int multicast_join(struct dgram *d, struct hako_error *err)
{
	struct ip_mreq mreq = {0};
	int one = 1, ret = multicast_interface(d, &mreq.imr_interface, err);

	if (ret)
		return ret;
	mreq.imr_multiaddr = ((struct sockaddr_in *)&d->to.storage)->sin_addr;
	d->fd = net_address_bind(&d->to, SOCK_DGRAM);
	if (d->fd < 0)
		return net_address_error(&d->remote, "remote", d->fd, err);
	if (setsockopt(d->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &mreq, sizeof(mreq)))
		return error_errno(err, -errno, "remote.host=%s: joining the group",
				   d->remote.host);
	/* Other VMs of this host are members, too. */
	if (setsockopt(d->fd, IPPROTO_IP, IP_MULTICAST_LOOP, &one, sizeof(one)) ||
	    (mreq.imr_interface.s_addr &&
	     setsockopt(d->fd, IPPROTO_IP, IP_MULTICAST_IF, &mreq.imr_interface,
			sizeof(mreq.imr_interface))))
		return error_errno(err, -errno, "local.host=%s", d->local.host ?: "");
	return 0;
}

static int dgram_bind(struct dgram *d, struct hako_error *err)
{
	struct net_sockaddr list[NET_ADDRESSES];
	int n = net_address_resolve(&d->local, "local", SOCK_DGRAM, true, list, err);

	if (n < 0)
		return n;
	d->fd = -EADDRNOTAVAIL;
	for (int i = 0; i < n && d->fd < 0; i++) {
		/* One that can reach the remote. */
		if (list[i].sa.sa_family == d->to.sa.sa_family)
			d->fd = net_address_bind(&list[i], SOCK_DGRAM);
	}
	d->unlink = d->fd >= 0 && net_address_is_file(&d->local);
	return d->fd < 0 ? net_address_error(&d->local, "local", d->fd, err) : 0;
}

/* A socket that is open already: to the peer that it is connected to, or to the group of which it is a member. */
static int dgram_take_fd(struct dgram *d, struct hako_error *err)
{
	d->fd = net_address_take_fd(&d->local, "local", SOCK_DGRAM, err);
	return MIN(d->fd, 0);
}

static int dgram_open(struct dgram *d, struct hako_error *err)
{
	struct net_sockaddr list[NET_ADDRESSES];
	int n = 0;

	if (d->remote.type == NET_ADDRESS_FD)
		return error_set(err, -EINVAL, "remote.type=fd: only local.type may be fd");
	if (d->remote.type != NET_ADDRESS_NONE) {
		n = net_address_resolve(&d->remote, "remote", SOCK_DGRAM, false, list, err);
		if (n < 0)
			return n;
		d->to = list[0];
	}
	if (n && is_multicast(&d->to))
		return d->local.type == NET_ADDRESS_FD ? dgram_take_fd(d, err)
						       : multicast_join(d, err);
	if (d->local.type == NET_ADDRESS_NONE)
		return error_set(err, -EINVAL,
				 "local.type is missing: inet, unix or fd (without it "
				 "remote.host has to be a multicast group)");
	if (d->local.type == NET_ADDRESS_FD && n)
		return error_set(err, -EINVAL,
				 "remote.type=%s does not go with local.type=fd: that socket has "
				 "to be connected already",
				 net_address_types[d->remote.type]);
	if (d->local.type == NET_ADDRESS_FD)
		return dgram_take_fd(d, err);
	if (!n)
		return error_set(err, -EINVAL, "remote.type is missing: local.type=%s needs it",
				 net_address_types[d->local.type]);
	if (d->local.type != d->remote.type)
		return error_set(err, -EINVAL, "remote.type=%s: not the same as local.type=%s",
				 net_address_types[d->remote.type],
				 net_address_types[d->local.type]);
	return dgram_bind(d, err);
}

static void dgram_destroy(struct object *obj)
{
	struct dgram *d = (struct dgram *)obj;

	if (d->fd >= 0)
		close(d->fd);
	if (d->unlink)
		unlink(d->local.path);
}

static int dgram_create(struct object *obj, struct hako_error *err)
{
	struct dgram *d = (struct dgram *)obj;
	int ret = net_address_check(&d->local, "local", false, err)
			  ?: net_address_check(&d->remote, "remote", false, err);

	if (ret)
		return ret;
	d->fd = -1;
	d->timer.fn = dgram_retry;
	d->netdev.ops = &dgram_ops;
	d->netdev.queues = 1;
	ret = dgram_open(d, err);
	if (ret)
		dgram_destroy(obj);
	return ret;
}

static const struct option dgram_options[] = {
	NET_ADDRESS_OPTIONS("local", struct dgram, local),
	NET_ADDRESS_OPTIONS("remote", struct dgram, remote),
	OPT_END,
};

static int dgram_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct dgram *d = (struct dgram *)obj;
	int ret = d->unlink ? sandbox_allow_removal(sb, d->local.path) : 0;

	return ret ? error_errno(err, ret, "%s: its directory", d->local.path) : 0;
}

static const struct class dgram_class = {
	.name = "dgram",
	.help = "a datagram of a UDP or Unix socket for each frame, as QEMU's; also by multicast",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct dgram),
	.options = dgram_options,
	.create = dgram_create,
	.destroy = dgram_destroy,
	.needs = SANDBOX_SOCKET | SANDBOX_SENDING,
	.confine = dgram_confine,
};
HAKO_CLASS(dgram_class);
