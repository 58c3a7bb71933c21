/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections of virtio-vsock, and the host's Unix sockets behind them, by Firecracker's convention: a guest that connects to port P of the host
 * reaches the socket PATH_P. A program of the host connects to PATH, writes "CONNECT P\n", and reads "OK N\n" when the guest has accepted at its
 * port P; N is the port that was chosen for the host's end. What follows are the connection's bytes.
 *
 * Both directions are bounded by credit (5.10.6.3). Of the guest's data nothing is kept but what the host's socket does not take at once, and
 * never more than VSOCK_BUFFER, which is what the guest is told. The host's data goes from the socket to the guest's buffers.
 *
 * Here nothing is sent: a connection that has something for the guest says what by flags (enum), and gets in a list. What calls in from the guest
 * or a socket may end the connection, which stays in that list until its RST has gone, with no descriptor any more.
 */
#include <linux/virtio_vsock.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "devices/net/address.h"
#include "virtio/vsock.h"
#include "vmm/vm.h"

#define BACKLOG		64
#define ACCEPT_RETRY_NS NSEC_PER_SEC
#define COMMAND_MAX	32 /* of "CONNECT P\n" */

enum conn_state {
	ASKED,	   /* accepted from the host, which has not said a port yet */
	REQUESTED, /* the guest has been asked, and has not answered */
	ESTABLISHED,
	LINGERING, /* the guest is done with it; the host has not taken all of what it sent */
	DEAD,	   /* only its RST is left to be sent */
};

/* What there is for the guest. */
enum send {
	SEND_RST = 1 << 0,
	SEND_REQUEST = 1 << 1,
	SEND_RESPONSE = 1 << 2,
	SEND_DATA = 1 << 3, /* the socket has some, or its end */
	SEND_SHUTDOWN = 1 << 4,
	SEND_CREDIT = 1 << 5,
	SEND_CREDIT_REQUEST = 1 << 6,
};

struct vsock_conn {
	struct virtio_vsock *v;
	struct list link, pending;
	enum conn_state state;
	uint32_t guest_port, host_port;
	uint16_t type;
	unsigned int send;
	struct loop_watch watch; /* its fd is the socket, or -1 */
	bool hup, eof;		 /* the host's program is gone; it sends no more */
	uint32_t guest_shut;	 /* VIRTIO_VSOCK_SHUTDOWN_*: what the guest has done with */
	uint32_t host_shut;	 /* and what it has been told of the host */

	/* Credit: all counts are modulo 2^32. To the guest: */
	uint32_t peer_alloc, peer_fwd, sent;
	bool credit_asked;
	/* From the guest: */
	uint32_t received, forwarded, told;
	uint8_t *buf; /* VSOCK_BUFFER bytes, made when needed first */
	uint32_t buf_at, buf_len;

	char command[COMMAND_MAX];
	unsigned int ncommand;
};

static struct list *bucket(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port)
{
	return &v->hash[(guest_port ^ host_port * 31) % VSOCK_HASH];
}

static struct vsock_conn *find(struct virtio_vsock *v, uint32_t guest_port, uint32_t host_port)
{
	struct vsock_conn *c;

	list_for_each(c, bucket(v, guest_port, host_port), link)
		if (c->guest_port == guest_port && c->host_port == host_port)
			return c;
	return NULL;
}

/* --- life -------------------------------------------------------------------------------------- */

static void conn_event(struct loop_watch *watch, uint32_t revents);

static void listen_more(struct virtio_vsock *v)
{
	if (v->listen.loop)
		loop_watch_set(&v->listen, v->nconns < VSOCK_CONNECTIONS ? POLLIN : 0);
}

/* Takes @fd, also if it fails. */
static struct vsock_conn *conn_new(struct virtio_vsock *v, int fd, enum conn_state state)
{
	struct vsock_conn *c = v->nconns < VSOCK_CONNECTIONS ? calloc(1, sizeof(*c)) : NULL;
	struct hako_error err;

	if (!c) {
		close(fd);
		return NULL;
	}
	c->v = v;
	c->state = state;
	c->type = VIRTIO_VSOCK_TYPE_STREAM;
	c->watch = (struct loop_watch){.fd = fd, .events = POLLIN, .fn = conn_event, .opaque = c};
	list_init(&c->link);
	list_init(&c->pending);
	if (loop_watch_start(v->loop, &c->watch, &err)) {
		close(fd);
		free(c);
		return NULL;
	}
	v->nconns++;
	listen_more(v);
	return c;
}

static void close_socket(struct vsock_conn *c)
{
	if (c->watch.fd < 0)
		return;
	loop_watch_stop(&c->watch);
	close(c->watch.fd);
	c->watch.fd = -1;
	free(c->buf);
	c->buf = NULL;
	c->buf_len = 0;
}

static void conn_free(struct vsock_conn *c)
{
	struct virtio_vsock *v = c->v;

	close_socket(c);
	list_del(&c->link);
	list_del(&c->pending);
	free(c);
	v->nconns--;
	listen_more(v);
}

static void want(struct vsock_conn *c, unsigned int send)
{
	c->send |= send;
	if (list_empty(&c->pending))
		list_add_tail(&c->pending, &c->v->pending);
}

/* End it, and tell the guest. */
static void conn_reset(struct vsock_conn *c)
{
	close_socket(c);
	c->state = DEAD;
	c->send = 0;
	want(c, SEND_RST);
}

void vsock_close_all(struct virtio_vsock *v)
{
	struct vsock_conn *c, *next;

	list_for_each_safe(c, next, &v->asked, link)
		conn_free(c);
	for (int i = 0; i < VSOCK_HASH; i++)
		list_for_each_safe(c, next, &v->hash[i], link)
			conn_free(c);
	v->nreplies = 0;
}

/* --- credit ------------------------------------------------------------------------------------ */

/* Bytes that the guest has room for. */
static uint32_t peer_room(const struct vsock_conn *c)
{
	uint32_t under_way = c->sent - c->peer_fwd;

	return under_way < c->peer_alloc ? c->peer_alloc - under_way : 0;
}

/* A packet may have been overtaken by a later one: a count that goes back, or beyond what was sent, says nothing. */
static void take_credit(struct vsock_conn *c, const struct vsock_header *h)
{
	c->peer_alloc = h->buf_alloc;
	if (c->sent - h->fwd_cnt <= c->sent - c->peer_fwd)
		c->peer_fwd = h->fwd_cnt;
	if (peer_room(c))
		c->credit_asked = false;
}

/* Have the guest told before it stops for want of room. */
static void offer_credit(struct vsock_conn *c)
{
	uint32_t seen = VSOCK_BUFFER - (c->received - c->told);

	if (c->told != c->forwarded && seen < VSOCK_BUFFER / 2)
		want(c, SEND_CREDIT);
}

/* --- the socket -------------------------------------------------------------------------------- */

/* What is there to wait for? */
static void update_watch(struct vsock_conn *c)
{
	uint32_t events = c->buf_len ? POLLOUT : 0;

	if (c->watch.fd < 0)
		return;
	if (c->state == ASKED)
		events = POLLIN;
	else if (c->state == ESTABLISHED && !c->eof && !(c->send & SEND_DATA) &&
		 !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) && peer_room(c))
		events |= POLLIN;
	/* That the other end is gone is said as long as it is so. */
	if (!events && !c->hup)
		events = POLLHUP;
	if (events != c->watch.events)
		loop_watch_set(&c->watch, events);
}

/* The host's side is told what the guest has done with, once it has got all that came before. */
static void pass_shutdown(struct vsock_conn *c, uint32_t news)
{
	if (c->buf_len || c->state != ESTABLISHED)
		return;
	if (c->guest_shut == (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND))
		conn_reset(c);
	else if (news & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->watch.fd, SHUT_WR);
}

/* Bytes that the socket takes; -1: it is broken. */
static ssize_t push(struct vsock_conn *c, const void *data, size_t len)
{
	ssize_t n = send(c->watch.fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n >= 0 || (errno != EAGAIN && errno != EINTR))
		return n;
	return 0;
}

/* False: it can not be. */
static bool keep(struct vsock_conn *c, const uint8_t *data, size_t len)
{
	if (!c->buf)
		c->buf = malloc(VSOCK_BUFFER);
	if (!c->buf || len > VSOCK_BUFFER - c->buf_len)
		return false;
	for (size_t done = 0; done < len;) {
		uint32_t at = (c->buf_at + c->buf_len) % VSOCK_BUFFER;
		size_t n = MIN(len - done, (size_t)VSOCK_BUFFER - at);

		memcpy(c->buf + at, data + done, n);
		c->buf_len += n;
		done += n;
	}
	return true;
}

static void flush(struct vsock_conn *c)
{
	while (c->buf_len) {
		uint32_t len = MIN(c->buf_len, VSOCK_BUFFER - c->buf_at);
		ssize_t n = push(c, c->buf + c->buf_at, len);

		if (n < 0 && c->state == LINGERING)
			c->buf_len = 0;
		else if (n < 0)
			conn_reset(c);
		if (n < 0)
			return;
		c->buf_at = (c->buf_at + n) % VSOCK_BUFFER;
		c->buf_len -= n;
		c->forwarded += n;
		if (n < len)
			break;
	}
	if (c->state == ESTABLISHED)
		offer_credit(c);
	pass_shutdown(c, c->guest_shut);
}

/* The guest's data, which is within its credit. */
static void forward(struct vsock_conn *c, const struct iovec *iov, unsigned int n, uint32_t len)
{
	bool over = false;

	c->received += len;
	for (unsigned int i = 0; i < n && len && !over; i++) {
		uint32_t part = MIN(iov[i].iov_len, len);
		ssize_t done = c->buf_len ? 0 : push(c, iov[i].iov_base, part);

		over = done < 0 ||
		       (done < part && !keep(c, (uint8_t *)iov[i].iov_base + done, part - done));
		c->forwarded += MAX(done, 0);
		len -= part;
	}
	if (over)
		conn_reset(c);
	else
		offer_credit(c);
}

/* The guest has accepted. */
static void answer_host(struct vsock_conn *c)
{
	char text[24];
	int len = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	c->state = ESTABLISHED;
	if (push(c, text, len) != len) /* nothing else is in that socket */
		conn_reset(c);
}

/* --- what a program of the host asks for ------------------------------------------------------- */

static bool parse_command(const struct vsock_conn *c, uint32_t *port)
{
	char text[COMMAND_MAX + 1];
	uint64_t n;

	memcpy(text, c->command, c->ncommand);
	text[c->ncommand] = 0;
	if (strncmp(text, "CONNECT ", 8) != 0 || text[8] < '0' || text[8] > '9')
		return false;
	text[c->ncommand - 1] = 0;
	if (parse_uint(text + 8, &n) || n > UINT32_MAX)
		return false;
	*port = n;
	return true;
}

static uint32_t new_port(struct virtio_vsock *v, uint32_t guest_port)
{
	uint32_t port;

	do {
		port = v->next_port++;
		if (v->next_port == UINT32_MAX)
			v->next_port = BIT(30);
	} while (find(v, guest_port, port));
	return port;
}

/* Read up to the end of the line and not beyond it. False: it is over. */
static bool read_command(struct vsock_conn *c)
{
	char *to = c->command + c->ncommand, *end;
	ssize_t n = recv(c->watch.fd, to, COMMAND_MAX - c->ncommand, MSG_DONTWAIT | MSG_PEEK);
	uint32_t port;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return true;
	if (n <= 0)
		return false;
	end = memchr(to, '\n', n);
	n = recv(c->watch.fd, to, end ? end + 1 - to : n, MSG_DONTWAIT);
	if (n > 0)
		c->ncommand += n;
	if (!end && n > 0 && c->ncommand < COMMAND_MAX)
		return true;
	if (!end || n <= 0 || !parse_command(c, &port))
		return false;
	c->guest_port = port;
	c->host_port = new_port(c->v, port);
	c->state = REQUESTED;
	list_del(&c->link);
	list_add_tail(&c->link, bucket(c->v, c->guest_port, c->host_port));
	want(c, SEND_REQUEST);
	return true;
}

static void gone(struct vsock_conn *c)
{
	c->hup = true;
	if (c->state == REQUESTED) {
		conn_reset(c);
	} else if (c->eof) {
		c->host_shut = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
		want(c, SEND_SHUTDOWN);
	}
}

static void conn_event(struct loop_watch *watch, uint32_t revents)
{
	struct vsock_conn *c = watch->opaque;
	struct virtio_vsock *v = c->v;

	if (c->state == ASKED && !read_command(c)) {
		conn_free(c);
		return;
	}
	/* The guest has heard nothing of it yet. */
	if (c->state == REQUESTED && (c->send & SEND_REQUEST) && (revents & POLLHUP)) {
		conn_free(c);
		return;
	}
	if (c->state == ESTABLISHED && (revents & POLLIN) && !c->eof)
		want(c, SEND_DATA);
	if (c->buf_len && (revents & (POLLOUT | POLLHUP | POLLERR)))
		flush(c);
	if ((revents & (POLLHUP | POLLERR)) && !c->hup)
		gone(c);
	if (c->state == LINGERING && !c->buf_len) {
		conn_free(c);
		return;
	}
	update_watch(c);
	vsock_wake(v);
}

/* --- listening --------------------------------------------------------------------------------- */

static void accept_one(struct loop_watch *watch, uint32_t revents)
{
	struct virtio_vsock *v = watch->opaque;
	int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct vsock_conn *c;

	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
			loop_watch_set(watch, 0);
			loop_timer_set(v->loop, &v->timer, clock_now() + ACCEPT_RETRY_NS);
		}
		return;
	}
	c = conn_new(v, fd, ASKED);
	if (c)
		list_add_tail(&c->link, &v->asked);
}

static void accept_again(struct loop_timer *timer)
{
	listen_more(container_of(timer, struct virtio_vsock, timer));
}

static void unix_address(struct net_sockaddr *sa, const char *path, const char *more)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&sa->storage;

	*sa = (struct net_sockaddr){.len = sizeof(*sun)};
	sun->sun_family = AF_UNIX;
	snprintf(sun->sun_path, sizeof(sun->sun_path), "%s%s", path, more);
}

int vsock_listen(struct virtio_vsock *v, struct hako_error *err)
{
	const size_t max = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295");
	struct net_sockaddr sa;
	int ret;

	if (!*v->path || strlen(v->path) > max)
		return error_set(
			err, *v->path ? -ENAMETOOLONG : -EINVAL,
			"path=%s: 1 to %zu characters are possible, as \"_PORT\" comes behind it",
			v->path, max);
	unix_address(&sa, v->path, "");
	v->listen_fd = net_address_bind(&sa, SOCK_STREAM);
	if (v->listen_fd < 0)
		return error_errno(err, v->listen_fd, "path=%s", v->path);
	if (!listen(v->listen_fd, BACKLOG))
		return 0;
	ret = error_errno(err, -errno, "path=%s", v->path);
	vsock_unlisten(v);
	return ret;
}

int vsock_accept_start(struct virtio_vsock *v, struct hako_error *err)
{
	v->timer.fn = accept_again;
	v->listen = (struct loop_watch){
		.fd = v->listen_fd, .events = POLLIN, .fn = accept_one, .opaque = v};
	return loop_watch_start(v->loop, &v->listen, err);
}

void vsock_unlisten(struct virtio_vsock *v)
{
	close(v->listen_fd);
	unlink(v->path);
}

/* The socket behind the host's port @port; -1: nobody is there. */
static int connect_port(const struct virtio_vsock *v, uint32_t port)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct net_sockaddr sa;
	char text[16];

	if (fd < 0)
		return -1;
	snprintf(text, sizeof(text), "_%u", port);
	unix_address(&sa, v->path, text);
	/* A backlog that is full is EAGAIN. */
	if (connect(fd, &sa.sa, sa.len) == 0)
		return fd;
	close(fd);
	return -1;
}

/* --- from the guest ---------------------------------------------------------------------------- */

/* RST for a packet that belongs to no connection (5.10.6.4). */
static void reply_reset(struct virtio_vsock *v, const struct vsock_header *h)
{
	unsigned int at = (v->first_reply + v->nreplies) % VSOCK_REPLIES;

	if (h->op == VIRTIO_VSOCK_OP_RST || v->nreplies == VSOCK_REPLIES)
		return;
	v->reply[at] = (struct vsock_header){
		.src_cid = h->dst_cid,
		.dst_cid = v->guest_cid,
		.src_port = h->dst_port,
		.dst_port = h->src_port,
		.type = h->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
	v->nreplies++;
}

static void request(struct virtio_vsock *v, const struct vsock_header *h)
{
	int fd = v->nconns < VSOCK_CONNECTIONS ? connect_port(v, h->dst_port) : -1;
	struct vsock_conn *c = fd >= 0 ? conn_new(v, fd, ESTABLISHED) : NULL;

	if (!c) {
		reply_reset(v, h);
		return;
	}
	c->guest_port = h->src_port;
	c->host_port = h->dst_port;
	list_add_tail(&c->link, bucket(v, c->guest_port, c->host_port));
	take_credit(c, h);
	want(c, SEND_RESPONSE);
	update_watch(c);
}

static void established(struct vsock_conn *c, const struct vsock_header *h, const struct iovec *iov,
			unsigned int n)
{
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RW:
		if ((c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) ||
		    h->len > VSOCK_BUFFER - (c->received - c->forwarded))
			conn_reset(c);
		else
			forward(c, iov, n, h->len);
		break;
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		c->guest_shut |= h->flags &
				 (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
		if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
			c->send &= ~SEND_DATA;
			shutdown(c->watch.fd, SHUT_RD);
		}
		pass_shutdown(c, h->flags);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		want(c, SEND_CREDIT);
		break;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		break;
	default:
		conn_reset(c);
	}
}

/* Linux's driver waits 8 seconds for us to take note of a close(), then it resets. */
static void linger(struct vsock_conn *c)
{
	c->state = LINGERING;
	c->send = 0;
	list_del(&c->pending);
	list_del(&c->link);
	list_add_tail(&c->link, &c->v->asked);
	update_watch(c);
}

void vsock_receive(struct virtio_vsock *v, const struct vsock_header *h, const struct iovec *iov,
		   unsigned int n)
{
	struct vsock_conn *c = NULL;

	/* No other sender than the guest itself is possible. */
	if (h->src_cid != v->guest_cid)
		return;
	if (h->dst_cid == VSOCK_HOST && h->type == VIRTIO_VSOCK_TYPE_STREAM)
		c = find(v, h->src_port, h->dst_port);
	if (!c) {
		if (h->dst_cid == VSOCK_HOST && h->type == VIRTIO_VSOCK_TYPE_STREAM &&
		    h->op == VIRTIO_VSOCK_OP_REQUEST)
			request(v, h);
		else
			reply_reset(v, h);
		return;
	}
	if (h->op == VIRTIO_VSOCK_OP_RST) {
		if (c->buf_len)
			linger(c);
		else
			conn_free(c);
		return;
	}
	if (c->state == DEAD)
		return;
	take_credit(c, h);
	if (c->state == ESTABLISHED)
		established(c, h, iov, n);
	else if (h->op == VIRTIO_VSOCK_OP_RESPONSE)
		answer_host(c);
	else
		conn_reset(c);
	update_watch(c);
}

/* --- to the guest ------------------------------------------------------------------------------ */

/* The socket has ended: for sending only, or altogether? */
static void end_of_data(struct vsock_conn *c)
{
	struct pollfd p = {.fd = c->watch.fd, .events = POLLIN};

	c->eof = true;
	if (poll(&p, 1, 0) > 0 && (p.revents & POLLHUP))
		c->hup = true;
	c->host_shut = VIRTIO_VSOCK_SHUTDOWN_SEND | (c->hup ? VIRTIO_VSOCK_SHUTDOWN_RCV : 0);
	c->send |= SEND_SHUTDOWN;
}

/* Fill the guest's buffers: bytes; 0: there are none now. */
static uint32_t read_socket(struct vsock_conn *c, const struct iovec *iov, unsigned int n,
			    uint32_t room)
{
	uint32_t done = 0;

	for (unsigned int i = 0; i < n && done < room; i++) {
		size_t part = MIN(iov[i].iov_len, (size_t)room - done);
		ssize_t r;

		if (!part)
			continue;
		r = recv(c->watch.fd, iov[i].iov_base, part, MSG_DONTWAIT);
		if (r < 0 && errno != EAGAIN && errno != EINTR && !done) {
			conn_reset(c);
			return 0;
		}
		/* What comes behind what is here is looked at in its turn. */
		if (r == 0 && !done)
			end_of_data(c);
		if (r <= 0 && !done)
			c->send &= ~SEND_DATA;
		if (r <= 0)
			break;
		done += r;
		if ((size_t)r < part)
			break;
	}
	return done;
}

static uint16_t next_op(struct vsock_conn *c, const struct iovec *iov, unsigned int n, size_t room,
			uint32_t *len)
{
	static const struct {
		unsigned int send;
		uint16_t op;
	} ops[] = {
		{SEND_RST, VIRTIO_VSOCK_OP_RST},
		{SEND_REQUEST, VIRTIO_VSOCK_OP_REQUEST},
		{SEND_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE},
		{SEND_DATA, VIRTIO_VSOCK_OP_RW},
		{SEND_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN},
		{SEND_CREDIT_REQUEST, VIRTIO_VSOCK_OP_CREDIT_REQUEST},
		{SEND_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE},
	};

	*len = 0;
	for (size_t i = 0; i < ARRAY_SIZE(ops); i++) {
		if (!(c->send & ops[i].send))
			continue;
		if (ops[i].send != SEND_DATA) {
			c->send &= ~ops[i].send;
			return ops[i].op;
		}
		*len = read_socket(c, iov, n, MIN(room, peer_room(c)));
		if (*len)
			return VIRTIO_VSOCK_OP_RW;
		if (c->state == DEAD)
			return next_op(c, iov, n, room, len);
	}
	return VIRTIO_VSOCK_OP_INVALID;
}

/* One packet of @c, which goes to the end of the list if it has more. */
static bool next_of(struct vsock_conn *c, struct vsock_header *h, const struct iovec *iov,
		    unsigned int n, size_t room)
{
	uint32_t len;
	uint16_t op;

	if ((c->send & SEND_DATA) && !peer_room(c)) {
		c->send &= ~SEND_DATA;
		if (!c->credit_asked)
			c->send |= SEND_CREDIT_REQUEST;
		c->credit_asked = true;
	}
	op = next_op(c, iov, n, room, &len);
	list_del(&c->pending);
	if (op != VIRTIO_VSOCK_OP_INVALID) {
		c->sent += len;
		c->told = c->forwarded;
		c->send &= ~SEND_CREDIT;
		*h = (struct vsock_header){
			.src_cid = VSOCK_HOST,
			.dst_cid = c->v->guest_cid,
			.src_port = c->host_port,
			.dst_port = c->guest_port,
			.len = len,
			.type = c->type,
			.op = op,
			.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->host_shut : 0,
			.buf_alloc = VSOCK_BUFFER,
			.fwd_cnt = c->forwarded,
		};
	}
	if (op == VIRTIO_VSOCK_OP_RST) {
		conn_free(c);
		return true;
	}
	if (c->send)
		want(c, 0);
	update_watch(c);
	return op != VIRTIO_VSOCK_OP_INVALID;
}

bool vsock_next(struct virtio_vsock *v, struct vsock_header *h, const struct iovec *iov,
		unsigned int n, size_t room)
{
	if (v->nreplies) {
		*h = v->reply[v->first_reply];
		v->first_reply = (v->first_reply + 1) % VSOCK_REPLIES;
		v->nreplies--;
		return true;
	}
	while (!list_empty(&v->pending))
		if (next_of(list_entry(v->pending.next, struct vsock_conn, pending), h, iov, n,
			    room))
			return true;
	return false;
}
