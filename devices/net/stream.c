/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network "stream": frames over a connection of a Unix or TCP socket, each behind its length in four bytes, big-endian. QEMU, passt
 * and others speak it. One connection at a time; while there is none, what the guest sends is lost.
 *
 * Frames of one turn of the loop are written together, and as many are read at once as there are, so that a busy network takes far less than
 * a system call a frame. What does not fit into the socket waits, and then the guest has to.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/net/address.h"
#include "devices/net/net.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define LENGTH	   4
#define FRAME_MAX  (65536 + 4096) /* QEMU's limit */
#define BUFFER	   (256 * KiB)
#define CONNECT_MS 30000	/* how long the first connection may take */
#define ACCEPT_NS  NSEC_PER_SEC /* until accept() is tried again */

/* Bytes [head, tail) of data are in use. */
struct stream_buffer {
	uint8_t *data;
	uint32_t head, tail;
};

struct stream {
	struct netdev netdev;
	struct net_address addr;
	bool server;
	uint32_t reconnect; /* seconds; 0: never */

	struct net_sockaddr at;
	int listen_fd, fd; /* -1: none */
	bool connecting;   /* fd is not connected yet */
	struct loop *loop; /* while started */
	struct loop_watch listen, watch;
	struct loop_timer timer;
	struct loop_defer flush;
	struct stream_buffer rx, tx;
	bool recv_on, send_blocked;
	bool full; /* the socket takes no more for now */
};

static void stream_connect(struct stream *s);
static void stream_watch(struct stream *s);

/* --- connections, in the loop ------------------------------------------------------------------- */

static void stream_log(struct stream *s, const char *what)
{
	vm_log(s->netdev.obj.vm, "netdev %s: %s", s->netdev.obj.id ?: "stream", what);
}

/* There is no connection: have one made, in time. */
static void stream_again(struct stream *s)
{
	if (!s->loop)
		return;
	if (s->server)
		loop_watch_set(&s->listen, POLLIN);
	else if (s->reconnect)
		loop_timer_set(s->loop, &s->timer, clock_now() + s->reconnect * NSEC_PER_SEC);
}

/* The connection is of no use any more. What was under way is lost with it, since the next begins with a new frame. */
static void stream_lose(struct stream *s, const char *why)
{
	bool blocked = s->send_blocked;

	stream_log(s, why);
	loop_watch_stop(&s->watch);
	close(s->fd);
	s->fd = -1;
	s->connecting = s->full = s->send_blocked = false;
	s->rx.head = s->rx.tail = s->tx.head = s->tx.tail = 0;
	stream_again(s);
	if (blocked && s->netdev.client_ops)
		s->netdev.client_ops->writable(s->netdev.client, 0);
}

static void stream_connected(struct stream *s, int fd)
{
	int one = 1;

	if (s->at.sa.sa_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (s->addr.keep_alive)
		setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
	s->fd = fd;
	s->connecting = false;
	if (s->loop)
		stream_watch(s);
}

static void stream_accept(struct loop_watch *watch, uint32_t revents)
{
	struct stream *s = watch->opaque;
	int fd;

	if (s->fd >= 0)
		return;
	fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd >= 0) {
		loop_watch_set(watch, 0);
		stream_connected(s, fd);
	} else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
		loop_watch_set(watch, 0);
		loop_timer_set(s->loop, &s->timer, clock_now() + ACCEPT_NS);
	}
}

static void stream_timer(struct loop_timer *timer)
{
	struct stream *s = container_of(timer, struct stream, timer);

	if (s->fd >= 0)
		return;
	if (s->server)
		loop_watch_set(&s->listen, POLLIN);
	else
		stream_connect(s);
}

/* Begin to connect: 0, 1 if it is done, or a negative errno. */
static int connect_begin(struct stream *s)
{
	int fd = socket(s->at.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), ret;

	if (fd < 0)
		return -errno;
	ret = connect(fd, &s->at.sa, s->at.len) ? -errno : 1;
	if (ret < 0 && ret != -EINPROGRESS) {
		close(fd);
		return ret;
	}
	s->fd = fd;
	s->connecting = ret < 0;
	return !s->connecting;
}

static int connect_end(const struct stream *s)
{
	socklen_t len = sizeof(int);
	int code = 0;

	if (getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &code, &len))
		return -errno;
	return -code;
}

static void stream_connect(struct stream *s)
{
	int ret = connect_begin(s);

	if (ret < 0)
		stream_again(s);
	else if (ret)
		stream_connected(s, s->fd);
	else
		stream_watch(s);
}

/* The peer has answered, or will not. */
static void stream_answered(struct stream *s)
{
	int fd = s->fd;

	loop_watch_stop(&s->watch);
	if (!connect_end(s)) {
		stream_connected(s, fd);
		return;
	}
	close(fd);
	s->fd = -1;
	s->connecting = false;
	stream_again(s);
}

/* --- sending ------------------------------------------------------------------------------------- */

static uint32_t stream_events(const struct stream *s)
{
	if (s->connecting)
		return POLLOUT;
	return (s->recv_on ? POLLIN : 0) | (s->full ? POLLOUT : 0);
}

static void stream_update_watch(struct stream *s)
{
	if (s->watch.loop && (stream_events(s) & ~s->watch.events))
		loop_watch_set(&s->watch, stream_events(s));
}

/* Write what waits, as far as the socket takes it. */
static void stream_write(struct stream *s)
{
	struct stream_buffer *b = &s->tx;

	while (b->head < b->tail) {
		ssize_t n = send(s->fd, b->data + b->head, b->tail - b->head,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n > 0) {
			b->head += n;
		} else if (errno == EAGAIN) {
			s->full = true;
			stream_update_watch(s);
			return;
		} else if (errno != EINTR) {
			stream_lose(s, "the peer has closed the connection");
			return;
		}
	}
	b->head = b->tail = 0;
	s->full = false;
}

/* The end of a turn in which frames were sent. */
static void stream_flush(struct loop_defer *defer)
{
	struct stream *s = container_of(defer, struct stream, flush);

	if (s->loop && s->fd >= 0 && !s->full)
		stream_write(s);
}

/* Room for @need bytes behind the others? */
static bool stream_room(struct stream *s, uint32_t need)
{
	struct stream_buffer *b = &s->tx;

	if (BUFFER - b->tail >= need)
		return true;
	if (!s->full)
		stream_write(s);
	if (BUFFER - (b->tail - b->head) < need)
		return false;
	memmove(b->data, b->data + b->head, b->tail - b->head);
	b->tail -= b->head;
	b->head = 0;
	return true;
}

static ssize_t stream_send(struct netdev *net, unsigned int queue, const struct iovec *iov,
			   int niov)
{
	struct stream *s = container_of(net, struct stream, netdev);
	struct stream_buffer *b = &s->tx;
	size_t total = 0, len;
	uint32_t length;

	for (int i = 0; i < niov; i++)
		total += iov[i].iov_len;
	if (total <= NET_HDR_LEN || total > NET_HDR_LEN + FRAME_MAX)
		return total <= NET_HDR_LEN ? -EINVAL : -EMSGSIZE;
	if (s->fd < 0 || s->connecting)
		return -ENOTCONN;
	len = total - NET_HDR_LEN;
	if (!stream_room(s, LENGTH + len)) {
		s->send_blocked = true;
		return -EAGAIN;
	}
	if (s->fd < 0)
		return -ENOTCONN;
	length = htobe32(len);
	memcpy(b->data + b->tail, &length, LENGTH);
	iov_read(iov, niov, NET_HDR_LEN, b->data + b->tail + LENGTH, len);
	b->tail += LENGTH + len;
	loop_defer(s->loop, &s->flush);
	return total;
}

/* --- receiving ----------------------------------------------------------------------------------- */

/* Read more: 0, or -EAGAIN if there is none or the connection is gone. */
static int stream_read(struct stream *s)
{
	struct stream_buffer *b = &s->rx;
	ssize_t n;

	memmove(b->data, b->data + b->head, b->tail - b->head);
	b->tail -= b->head;
	b->head = 0;
	do {
		n = recv(s->fd, b->data + b->tail, BUFFER - b->tail, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		b->tail += n;
		return 0;
	}
	if (n == 0 || errno != EAGAIN)
		stream_lose(s, "the peer has closed the connection");
	return -EAGAIN;
}

/*
 * The next frame: its length (its place is b->head), or -EAGAIN if it is not all there. What is less than an Ethernet header is no frame,
 * and is passed over.
 */
static ssize_t stream_first(struct stream *s)
{
	struct stream_buffer *b = &s->rx;

	while (b->tail - b->head >= LENGTH) {
		uint32_t len;

		memcpy(&len, b->data + b->head, LENGTH);
		len = be32toh(len);
		if (len > FRAME_MAX) {
			stream_lose(s, "the peer sends frames that are too long, or something else "
				       "than frames; connection closed");
			return -EAGAIN;
		}
		if (b->tail - b->head - LENGTH < len)
			return -EAGAIN;
		b->head += LENGTH;
		if (len >= ETH_HDR)
			return len;
		b->head += len;
	}
	return -EAGAIN;
}

static ssize_t stream_recv(struct netdev *net, unsigned int queue, const struct iovec *iov,
			   int niov)
{
	static const uint8_t hdr[NET_HDR_LEN] = {[10] = 1}; /* num_buffers */
	struct stream *s = container_of(net, struct stream, netdev);
	ssize_t len;
	size_t n;

	if (s->fd < 0 || s->connecting)
		return -EAGAIN;
	while ((len = stream_first(s)) < 0) {
		if (s->fd < 0 || stream_read(s))
			return -EAGAIN;
	}
	n = iov_write(iov, niov, 0, hdr, NET_HDR_LEN);
	n += iov_write(iov, niov, NET_HDR_LEN, s->rx.data + s->rx.head, len);
	s->rx.head += len;
	return n < NET_HDR_LEN + len ? -EMSGSIZE : (ssize_t)n;
}

/* Edge-triggered, as tap: the card reads until there is nothing more. What is armed and not wanted stays armed until it comes. */
static void stream_ready(struct loop_watch *watch, uint32_t revents)
{
	struct stream *s = watch->opaque;
	struct netdev *net = &s->netdev;

	if (s->connecting) {
		stream_answered(s);
		return;
	}
	if (revents & ~stream_events(s) & (POLLIN | POLLOUT))
		loop_watch_set(watch, stream_events(s));
	if (s->full && (revents & (POLLOUT | POLLERR | POLLHUP))) {
		stream_write(s);
		if (!s->full && s->send_blocked) {
			s->send_blocked = false;
			net->client_ops->writable(net->client, 0);
		}
	}
	if (s->loop && s->fd >= 0 && s->recv_on && (revents & ~POLLOUT))
		net->client_ops->readable(net->client, 0);
}

/* --- the card's side ----------------------------------------------------------------------------- */

/* Watch the connection, or the making of one. */
static void stream_watch(struct stream *s)
{
	struct hako_error err;

	s->watch.fd = s->fd;
	s->watch.events = s->connecting ? POLLOUT : POLLIN | (s->full ? POLLOUT : 0);
	s->watch.edge = true;
	s->watch.fn = stream_ready;
	s->watch.opaque = s;
	if (loop_watch_start(s->loop, &s->watch, &err))
		stream_lose(s, err.message);
}

static int stream_start(struct netdev *net, unsigned int queue, struct loop *loop,
			struct hako_error *err)
{
	struct stream *s = container_of(net, struct stream, netdev);
	int ret;

	s->loop = loop;
	s->recv_on = s->send_blocked = false;
	if (s->server) {
		s->listen.fd = s->listen_fd;
		s->listen.events = s->fd < 0 ? POLLIN : 0;
		s->listen.fn = stream_accept;
		s->listen.opaque = s;
		ret = loop_watch_start(loop, &s->listen, err);
		if (ret) {
			s->loop = NULL;
			return ret;
		}
	}
	if (s->fd >= 0)
		stream_watch(s);
	else if (s->reconnect)
		stream_connect(s);
	return 0;
}

/* The connection stays, and what has been sent of a frame stays sent: the rest follows when the card is started again. */
static void stream_stop(struct netdev *net, unsigned int queue)
{
	struct stream *s = container_of(net, struct stream, netdev);

	if (s->fd >= 0 && !s->connecting && !s->full)
		stream_write(s);
	loop_watch_stop(&s->listen);
	loop_watch_stop(&s->watch);
	loop_timer_cancel(&s->timer);
	s->loop = NULL;
	s->recv_on = s->send_blocked = false;
}

static void stream_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	struct stream *s = container_of(net, struct stream, netdev);

	s->recv_on = on;
	if (s->loop)
		stream_update_watch(s);
}

static const struct netdev_ops stream_ops = {
	.start = stream_start,
	.stop = stream_stop,
	.recv_enable = stream_recv_enable,
	.recv = stream_recv,
	.send = stream_send,
	.set_offloads = netdev_no_offloads,
};

/* --- class --------------------------------------------------------------------------------------- */

static int open_listener(struct stream *s)
{
	int fd = net_address_bind(&s->at, SOCK_STREAM), ret;

	if (fd < 0)
		return fd;
	if (!listen(fd, 1)) {
		s->listen_fd = fd;
		return 0;
	}
	ret = -errno;
	close(fd);
	return ret;
}

/* Connect, and wait for it. */
static int open_connection(struct stream *s)
{
	int ret = connect_begin(s);
	struct pollfd p = {.fd = s->fd, .events = POLLOUT};

	if (!ret) {
		int n = poll(&p, 1, CONNECT_MS);

		ret = n > 0 ? connect_end(s) : n ? -errno : -ETIMEDOUT;
	}
	if (ret >= 0) {
		stream_connected(s, s->fd);
		return 0;
	}
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
	s->connecting = false;
	return ret;
}

/* The first address at which it works. */
static int stream_open(struct stream *s, struct hako_error *err)
{
	struct net_sockaddr list[NET_ADDRESSES];
	int n = net_address_resolve(&s->addr, "addr", SOCK_STREAM, s->server, list, err);
	int ret = -EADDRNOTAVAIL;

	if (n < 0)
		return n;
	for (int i = 0; i < n && ret; i++) {
		s->at = list[i];
		ret = s->server ? open_listener(s) : open_connection(s);
	}
	/* A server that is not there yet may come. */
	if (ret && n && !s->server && s->reconnect)
		return 0;
	return ret ? net_address_error(&s->addr, "addr", ret, err) : 0;
}

static int stream_take_fd(struct stream *s, struct hako_error *err)
{
	int fd = net_address_take_fd(&s->addr, "addr", SOCK_STREAM, err), listening = 0;
	socklen_t len = sizeof(listening);

	if (fd < 0)
		return fd;
	getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len);
	if (!listening == s->server)
		return error_set(err, -EINVAL, "addr.str=%s: the socket is %slistening", s->addr.fd,
				 listening ? "" : "not ");
	s->at.len = sizeof(s->at.storage);
	if (getsockname(fd, &s->at.sa, &s->at.len))
		return error_errno(err, -errno, "addr.str=%s", s->addr.fd);
	if (s->server)
		s->listen_fd = fd;
	else
		stream_connected(s, fd);
	return 0;
}

static void stream_destroy(struct object *obj)
{
	struct stream *s = (struct stream *)obj;

	if (s->fd >= 0)
		close(s->fd);
	if (s->listen_fd >= 0) {
		close(s->listen_fd);
		if (net_address_is_file(&s->addr))
			unlink(s->addr.path);
	}
	free(s->rx.data);
	free(s->tx.data);
}

static int stream_create(struct object *obj, struct hako_error *err)
{
	struct stream *s = (struct stream *)obj;
	int ret = net_address_check(&s->addr, "addr", true, err);

	if (ret)
		return ret;
	if (s->reconnect && (s->server || s->addr.type == NET_ADDRESS_FD))
		return error_set(err, -EINVAL,
				 "reconnect=%u: there is nothing to connect to with %s",
				 s->reconnect, s->server ? "server=on" : "addr.type=fd");
	s->listen_fd = s->fd = -1;
	s->timer.fn = stream_timer;
	s->flush.fn = stream_flush;
	s->netdev.ops = &stream_ops;
	s->netdev.queues = 1;
	s->rx.data = malloc(BUFFER);
	s->tx.data = malloc(BUFFER);
	if (!s->rx.data || !s->tx.data)
		ret = error_errno(err, -ENOMEM, "frame buffers");
	else
		ret = s->addr.type == NET_ADDRESS_FD ? stream_take_fd(s, err) : stream_open(s, err);
	if (ret)
		stream_destroy(obj);
	return ret;
}

static const struct option stream_options[] = {
	NET_ADDRESS_OPTIONS("addr", struct stream, addr),
	OPT_BOOL("addr.keep-alive", struct stream, addr.keep_alive, "off",
		 "inet: notice a peer that has vanished"),
	OPT_BOOL("server", struct stream, server, "off",
		 "listen at the address; otherwise connect"),
	OPT_UINT("reconnect", struct stream, reconnect, "0", 0, 86400,
		 "seconds after which a lost connection is tried again; 0: it is not"),
	OPT_END,
};

static int stream_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct stream *s = (struct stream *)obj;
	bool is_file = s->listen_fd >= 0 && net_address_is_file(&s->addr);
	int ret = is_file ? sandbox_allow_removal(sb, s->addr.path) : 0;

	if (s->reconnect)
		sandbox_need(sb, SANDBOX_RECONNECT);
	return ret ? error_errno(err, ret, "%s: its directory", s->addr.path) : 0;
}

static const struct class stream_class = {
	.name = "stream",
	.help = "frames over a connection of a Unix or TCP socket, as QEMU's and passt's",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct stream),
	.options = stream_options,
	.create = stream_create,
	.destroy = stream_destroy,
	.needs = SANDBOX_SOCKET,
	.confine = stream_confine,
};
HAKO_CLASS(stream_class);
