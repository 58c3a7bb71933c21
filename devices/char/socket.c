/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chardev socket: a Unix or TCP socket, that listens (server=on) or connects. One connection at a time; others wait in the listener's
 * queue. What is written while nobody is connected is lost.
 */
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/char/fd.h"
#include "vmm/vm.h"

/* How long a first connection may take. */
#define CONNECT_TIMEOUT_MS 30000
/* After an accept() for which there were no descriptors. */
#define ACCEPT_RETRY_NS	   NSEC_PER_SEC

struct address {
	struct sockaddr_storage sa;
	socklen_t len;
};

struct char_socket {
	struct chardev chr;
	/* Options. */
	char *path, *host, *port, *fd;
	bool server, wait, nodelay;
	uint32_t reconnect;

	struct address addr;
	bool unlink; /* the path is of our making */
	int listen_fd, connect_fd;
	struct loop *loop;
	struct loop_watch listen, connecting;
	struct loop_timer timer;
	struct loop_msg close_msg;
	struct char_fd cf;
};

static struct char_socket *to_socket(struct chardev *chr)
{
	return container_of(chr, struct char_socket, chr);
}

/* --- connections, in the loop ------------------------------------------------------------------ */

static void retry_later(struct char_socket *s)
{
	if (s->server)
		loop_timer_set(s->loop, &s->timer, clock_now() + ACCEPT_RETRY_NS);
	else if (s->reconnect)
		loop_timer_set(s->loop, &s->timer, clock_now() + s->reconnect * NSEC_PER_SEC);
}

/* Serve @fd, which is connected. */
static void connected(struct char_socket *s, int fd)
{
	struct char_fd *cf = &s->cf;
	struct hako_error err;
	int one = 1;

	if (s->nodelay && s->addr.sa.ss_family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (s->chr.client_ops && s->chr.client_ops->socket) {
		chardev_set_open(&s->chr, true);
		s->chr.client_ops->socket(s->chr.client, fd);
		return;
	}
	cf->in_fd = fd;
	cf->out_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	cf->in_kind = cf->out_kind = CHAR_FD_SOCKET;
	if (cf->out_fd < 0 || char_fd_start(cf, &err)) {
		char_fd_stop(cf);
		retry_later(s);
		return;
	}
	chardev_set_open(&s->chr, true);
	chardev_writable(&s->chr);
}

static void listen_ready(struct loop_watch *watch, uint32_t revents)
{
	struct char_socket *s = watch->opaque;
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			loop_watch_set(watch, 0);
			retry_later(s);
		}
		return;
	}
	loop_watch_set(watch, 0);
	connected(s, fd);
}

static void connect_ready(struct loop_watch *watch, uint32_t revents)
{
	struct char_socket *s = watch->opaque;
	socklen_t len = sizeof(int);
	int code = 0, fd = s->connect_fd;

	loop_watch_stop(watch);
	s->connect_fd = -1;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code) {
		close(fd);
		retry_later(s);
		return;
	}
	connected(s, fd);
}

/* A socket that connects to the address: *@done if it has done so at once. */
static int connect_begin(const struct char_socket *s, bool *done)
{
	int fd = socket(s->addr.sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int ret;

	if (fd < 0)
		return -errno;
	*done = connect(fd, (const struct sockaddr *)&s->addr.sa, s->addr.len) == 0;
	if (*done || errno == EINPROGRESS)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}

static void timer_fn(struct loop_timer *timer)
{
	struct char_socket *s = container_of(timer, struct char_socket, timer);
	struct hako_error err;
	bool done;
	int fd;

	if (s->chr.open)
		return;
	if (s->server) {
		loop_watch_set(&s->listen, POLLIN);
		return;
	}
	fd = connect_begin(s, &done);
	if (fd < 0) {
		retry_later(s);
		return;
	}
	if (done) {
		connected(s, fd);
		return;
	}
	s->connect_fd = s->connecting.fd = fd;
	s->connecting.events = POLLOUT;
	s->connecting.fn = connect_ready;
	s->connecting.opaque = s;
	if (loop_watch_start(s->loop, &s->connecting, &err)) {
		close(fd);
		s->connect_fd = -1;
		retry_later(s);
	}
}

static void socket_closed(struct char_fd *cf, bool output, int code)
{
	/* Not here: the caller still uses what is closed then. */
	loop_post(cf->loop, &container_of(cf, struct char_socket, cf)->close_msg);
}

static void close_msg_fn(struct loop_msg *msg)
{
	struct char_socket *s = container_of(msg, struct char_socket, close_msg);

	if (!s->chr.open)
		return;
	char_fd_stop(&s->cf);
	chardev_set_open(&s->chr, false);
	chardev_writable(&s->chr);
	if (s->server)
		loop_watch_set(&s->listen, POLLIN);
	else
		retry_later(s);
}

static size_t socket_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	return chr->open ? char_fd_write(&to_socket(chr)->cf, buf, len) : len;
}

static void socket_accept(struct chardev *chr)
{
	char_fd_accept(&to_socket(chr)->cf);
}

/* Nothing has been read yet: without a client nothing can be. */
static int socket_give(struct chardev *chr)
{
	struct char_socket *s = to_socket(chr);
	int fd;

	if (!chr->open)
		return s->server || s->reconnect ? 0 : -ENOTCONN;
	fd = fcntl(s->cf.in_fd, F_DUPFD_CLOEXEC, 3);
	char_fd_stop(&s->cf);
	if (fd >= 0)
		chr->client_ops->socket(chr->client, fd);
	else
		loop_post(s->loop, &s->close_msg);
	return 0;
}

static void socket_hangup(struct chardev *chr)
{
	struct char_socket *s = to_socket(chr);

	loop_post(s->loop, &s->close_msg);
}

static const struct chardev_ops socket_ops = {
	.write = socket_write,
	.accept_input = socket_accept,
	.give_socket = socket_give,
	.hangup = socket_hangup,
};

/* --- creation ---------------------------------------------------------------------------------- */

static int unix_address(struct char_socket *s, struct hako_error *err)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&s->addr.sa;
	size_t len = strlen(s->path);

	if (len >= sizeof(sun->sun_path))
		return error_set(err, -ENAMETOOLONG, "path=%s: longer than %zu characters", s->path,
				 sizeof(sun->sun_path) - 1);
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, s->path, len + 1);
	s->addr.len = sizeof(*sun);
	return 0;
}

/* The error that @what of our address has met. */
static int address_error(const struct char_socket *s, int code, struct hako_error *err)
{
	if (s->path)
		return error_errno(err, code, "path=%s", s->path);
	return error_errno(err, code, "host=%s,port=%s", s->host ?: "", s->port);
}

/* A Unix socket's file that nobody listens on is left from a process that was killed: out of the way with it. */
static bool remove_stale(const struct char_socket *s)
{
	struct stat st;
	bool stale;
	int fd;

	if (!s->path || lstat(s->path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)&s->addr.sa, s->addr.len) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return stale && unlink(s->path) == 0;
}

static int listen_at(struct char_socket *s)
{
	const struct sockaddr *sa = (const struct sockaddr *)&s->addr.sa;
	int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, ret;

	if (fd < 0)
		return -errno;
	if (!s->path)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret = bind(fd, sa, s->addr.len);
	if (ret < 0 && errno == EADDRINUSE && remove_stale(s))
		ret = bind(fd, sa, s->addr.len);
	if (ret < 0) {
		ret = -errno;
		close(fd);
		return ret;
	}
	s->unlink = s->path;
	if (listen(fd, 1) < 0) {
		ret = -errno;
		close(fd);
		if (s->unlink)
			unlink(s->path);
		return ret;
	}
	return fd;
}

/* Connect and wait for it. */
static int connect_to(struct char_socket *s)
{
	struct pollfd p = {.events = POLLOUT};
	socklen_t len = sizeof(int);
	int code = 0, n;
	bool done;

	p.fd = connect_begin(s, &done);
	if (p.fd < 0 || done)
		return p.fd;
	n = poll(&p, 1, CONNECT_TIMEOUT_MS);
	if (n < 0)
		code = errno;
	else if (n == 0)
		code = ETIMEDOUT;
	else if (getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0)
		code = errno;
	if (!code)
		return p.fd;
	close(p.fd);
	return -code;
}

/* Listen on or connect to the first of the host's addresses where that works. The descriptor. */
static int open_tcp(struct char_socket *s, struct hako_error *err)
{
	struct addrinfo hints = {
		.ai_socktype = SOCK_STREAM,
		.ai_flags = s->server ? AI_PASSIVE : 0,
	};
	struct addrinfo *list, *ai;
	int ret;

	ret = getaddrinfo(s->host && *s->host ? s->host : NULL, s->port, &hints, &list);
	if (ret)
		return error_set(err, -EINVAL, "host=%s,port=%s: %s", s->host ?: "", s->port,
				 gai_strerror(ret));
	ret = -EADDRNOTAVAIL;
	for (ai = list; ai && ret < 0; ai = ai->ai_next) {
		memcpy(&s->addr.sa, ai->ai_addr, ai->ai_addrlen);
		s->addr.len = ai->ai_addrlen;
		ret = s->server ? listen_at(s) : connect_to(s);
	}
	freeaddrinfo(list);
	return ret < 0 ? address_error(s, ret, err) : ret;
}

static int open_unix(struct char_socket *s, struct hako_error *err)
{
	int ret = unix_address(s, err);

	if (ret)
		return ret;
	ret = s->server ? listen_at(s) : connect_to(s);
	return ret < 0 ? address_error(s, ret, err) : ret;
}

/* A descriptor that whoever started us has opened. It is ours from now on. */
static int open_fd(struct char_socket *s, struct hako_error *err)
{
	socklen_t len = sizeof(int);
	int listening = 0;
	uint64_t n;

	if (parse_uint(s->fd, &n) || n > INT32_MAX)
		return error_set(err, -EINVAL, "fd=%s: a number expected", s->fd);
	if (getsockopt(n, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
		return error_errno(err, -errno, "fd=%s", s->fd);
	if (!listening == s->server)
		return error_set(err, -EINVAL, "fd=%s: the socket is %slistening", s->fd,
				 listening ? "" : "not ");
	s->addr.len = sizeof(s->addr.sa);
	if (getsockname(n, (struct sockaddr *)&s->addr.sa, &s->addr.len) < 0 ||
	    fcntl(n, F_SETFD, FD_CLOEXEC) < 0 ||
	    fcntl(n, F_SETFL, fcntl(n, F_GETFL) | O_NONBLOCK) < 0)
		return error_errno(err, -errno, "fd=%s", s->fd);
	return n;
}

/* Port 0 lets the kernel choose: say in the option which one it is. */
static void note_port(struct char_socket *s)
{
	struct address a = {.len = sizeof(a.sa)};
	uint16_t port;
	char *text;

	if (!s->port || getsockname(s->listen_fd, (struct sockaddr *)&a.sa, &a.len) < 0)
		return;
	if (a.sa.ss_family == AF_INET)
		port = ((struct sockaddr_in *)&a.sa)->sin_port;
	else
		port = ((struct sockaddr_in6 *)&a.sa)->sin6_port;
	text = str_printf("%u", be16toh(port));
	if (!text)
		return;
	free(s->port);
	s->port = text;
}

/* wait=on: the VM is not made before somebody is there. */
static int wait_for_client(struct char_socket *s, struct hako_error *err)
{
	struct pollfd p = {.fd = s->listen_fd, .events = POLLIN};
	int fd;

	do {
		if (poll(&p, 1, -1) < 0)
			return error_errno(err, -errno, "waiting for a connection");
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	} while (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED));
	return fd < 0 ? error_errno(err, -errno, "accepting a connection") : fd;
}

struct start {
	struct char_socket *s;
	int fd; /* a connection that is there already, or -1 */
	struct hako_error *err;
	int ret;
};

static void start(void *arg)
{
	struct start *st = arg;
	struct char_socket *s = st->s;

	if (s->server) {
		s->listen.fd = s->listen_fd;
		s->listen.events = st->fd < 0 ? POLLIN : 0;
		s->listen.fn = listen_ready;
		s->listen.opaque = s;
		st->ret = loop_watch_start(s->loop, &s->listen, st->err);
		if (st->ret)
			return;
	}
	if (st->fd >= 0)
		connected(s, st->fd);
	else
		retry_later(s);
}

static void stop(void *arg)
{
	struct char_socket *s = arg;

	s->chr.open = false;
	loop_watch_stop(&s->listen);
	loop_watch_stop(&s->connecting);
	loop_timer_cancel(&s->timer);
	char_fd_stop(&s->cf);
	if (s->connect_fd >= 0)
		close(s->connect_fd);
	s->connect_fd = -1;
}

static void close_listener(struct char_socket *s)
{
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->unlink)
		unlink(s->path);
}

static int check_options(const struct char_socket *s, struct hako_error *err)
{
	if (!!s->path + !!s->fd + (s->host || s->port) != 1)
		return error_set(err, -EINVAL, "one of path, port and fd is needed");
	if (s->host && !s->port)
		return error_set(err, -EINVAL, "port is missing");
	if (s->reconnect && (s->server || s->fd))
		return error_set(err, -EINVAL, "reconnect: there is nothing to connect to with %s",
				 s->server ? "server=on" : "fd");
	return 0;
}

static int socket_create(struct object *obj, struct hako_error *err)
{
	struct char_socket *s = container_of(obj, struct char_socket, chr.obj);
	struct start st = {s, -1, err, 0};
	int fd = check_options(s, err);

	if (fd)
		return fd;
	s->chr.ops = &socket_ops;
	s->loop = obj->vm->io_loop;
	s->listen_fd = s->connect_fd = -1;
	s->timer.fn = timer_fn;
	s->close_msg.fn = close_msg_fn;
	char_fd_init(&s->cf, &s->chr, s->loop);
	s->cf.closed = socket_closed;
	s->cf.fleeting = true;
	fd = s->fd ? open_fd(s, err) : s->path ? open_unix(s, err) : open_tcp(s, err);
	/* A server that is not there yet may come. */
	if (fd < 0 && (s->server || !s->reconnect || !s->addr.len))
		return fd;
	if (s->server) {
		s->listen_fd = fd;
		note_port(s);
		st.fd = s->wait ? wait_for_client(s, err) : -1;
		if (s->wait && st.fd < 0) {
			close_listener(s);
			return st.fd;
		}
	} else {
		st.fd = MAX(fd, -1);
	}
	loop_call(s->loop, start, &st);
	if (st.ret) {
		if (st.fd >= 0)
			close(st.fd);
		close_listener(s);
	}
	return st.ret;
}

static void socket_destroy(struct object *obj)
{
	struct char_socket *s = container_of(obj, struct char_socket, chr.obj);

	loop_call(s->loop, stop, s);
	/* A message that was under way when it stopped. */
	loop_call(s->loop, stop, s);
	close_listener(s);
}

static const struct option socket_options[] = {
	OPT_STRING("path", struct char_socket, path, NULL, "Unix socket"),
	OPT_STRING("host", struct char_socket, host, NULL, "TCP: name or address"),
	OPT_STRING("port", struct char_socket, port, NULL,
		   "TCP: number or service; 0 with server=on: any that is free"),
	OPT_STRING(
		"fd", struct char_socket, fd, NULL,
		"socket that is open already, as a number: listening with server=on, else connected"),
	OPT_BOOL("server", struct char_socket, server, "off", "listen; otherwise connect"),
	OPT_BOOL("wait", struct char_socket, wait, "on",
		 "server=on: wait for a connection before the VM is made"),
	OPT_BOOL("nodelay", struct char_socket, nodelay, "on", "TCP: send small pieces at once"),
	OPT_UINT("reconnect", struct char_socket, reconnect, "0", 0, 86400,
		 "seconds after which a lost connection is tried again; 0: it is not"),
	OPT_END,
};

static int socket_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct char_socket *s = to_socket(container_of(obj, struct chardev, obj));
	int ret;

	if (s->reconnect)
		sandbox_need(sb, SANDBOX_RECONNECT);
	ret = s->unlink ? sandbox_allow_removal(sb, s->path) : 0;
	return ret ? error_errno(err, ret, "path=%s: its directory", s->path) : 0;
}

static const struct class socket_class = {
	.name = "socket",
	.help = "a Unix or TCP socket",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct char_socket),
	.options = socket_options,
	.ops = &socket_ops,
	.create = socket_create,
	.destroy = socket_destroy,
	.needs = SANDBOX_SOCKET,
	.confine = socket_confine,
};
HAKO_CLASS(socket_class);
