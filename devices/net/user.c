/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network "user": a small network of its own, with DHCP, DNS and a router that turns the guest's connections into the host
 * user's own sockets (libslirp). It needs no privileges.
 *
 * All of libslirp runs in the loop of the card's queue. Each socket of it is one watch; the sockets' states are told to
 * libslirp once at the end of a turn in which something has happened, so that nothing runs while nothing happens.
 */
#include <arpa/inet.h>
#include <slirp/libslirp.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "devices/net/net.h"
#include "devices/net/user.h"
#include "vmm/dl.h"
#include "vmm/vm.h"

#define FRAME_MAX	 (65536 + 18) /* with Ethernet header and a VLAN tag */
#define FRAMES_CAP	 (256 * KiB)  /* of frames that the card has not taken yet */
#define FRAMES_HIGH	 (FRAMES_CAP / 2)
#define SLIRP_NO_TIMEOUT UINT32_MAX

struct slirp_api {
	__typeof__(slirp_new) *slirp_new;
	__typeof__(slirp_cleanup) *slirp_cleanup;
	__typeof__(slirp_pollfds_fill) *slirp_pollfds_fill;
	__typeof__(slirp_pollfds_poll) *slirp_pollfds_poll;
	__typeof__(slirp_input) *slirp_input;
	__typeof__(slirp_add_hostfwd) *slirp_add_hostfwd;
	__typeof__(slirp_add_exec) *slirp_add_exec;
	__typeof__(slirp_add_unix) *slirp_add_unix;
};

static const struct dl_symbol slirp_symbols[] = {
	DL_SYMBOL(struct slirp_api, slirp_new),
	DL_SYMBOL(struct slirp_api, slirp_cleanup),
	DL_SYMBOL(struct slirp_api, slirp_pollfds_fill),
	DL_SYMBOL(struct slirp_api, slirp_pollfds_poll),
	DL_SYMBOL(struct slirp_api, slirp_input),
	DL_SYMBOL(struct slirp_api, slirp_add_hostfwd),
	DL_SYMBOL(struct slirp_api, slirp_add_exec),
	DL_SYMBOL(struct slirp_api, slirp_add_unix),
	{NULL, 0},
};

/*
 * Frames toward the guest: records of a 32-bit length and the frame, in a circle of bytes. A record never wraps;
 * a length of 0 sends the reader back to the start.
 */
struct frames {
	uint8_t *data;
	uint32_t head, tail; /* read at head, write at tail; equal: empty */
};

/* A socket of libslirp's that has been polled. */
struct user_poll {
	struct loop_watch watch;
	struct user_net *net;
	struct list link;
	uint32_t wanted; /* poll events of the last round */
	uint32_t ready;	 /* those that have come since */
	uint32_t round;	 /* the last one that wanted it */
};

struct user_timer {
	struct loop_timer timer;
	struct user_net *net;
	struct list link;
	SlirpTimerCb cb;
	void *cb_opaque;
	uint64_t deadline; /* 0: not set */
};

struct user_net {
	struct netdev netdev;
	struct user_options opt;
	struct slirp_api api;
	Slirp *slirp;

	struct loop *loop; /* while started */
	struct list polls;
	struct user_poll **by_fd;
	size_t nfds;
	uint32_t round;
	struct list timers;
	struct loop_timer timer; /* libslirp's own time-out */
	struct loop_defer defer; /* user_turn() */
	bool poll_due;		 /* sockets or time have moved since the last round */
	bool recv_on, blocked, paused;
	struct frames frames;
	uint8_t *tx; /* one frame of the guest's, out of its reach */
};

/* --- frames toward the guest ------------------------------------------------------------------- */

static uint32_t frames_used(const struct frames *f)
{
	return f->tail >= f->head ? f->tail - f->head : FRAMES_CAP - f->head + f->tail;
}

static bool frames_put(struct frames *f, const void *frame, uint32_t len)
{
	uint32_t need = 4 + ALIGN_UP(len, 4u);

	if (f->tail >= f->head) {
		if (f->head == f->tail)
			f->head = f->tail = 0; /* start where the cache is warm */
		if (FRAMES_CAP - f->tail < need + 4) {
			if (f->head <= need)
				return false;
			memset(f->data + f->tail, 0, 4);
			f->tail = 0;
		}
	} else if (f->head - f->tail <= need) {
		return false;
	}
	memcpy(f->data + f->tail, &len, 4);
	memcpy(f->data + f->tail + 4, frame, len);
	f->tail += need;
	return true;
}

/* The oldest frame, or NULL. */
static const uint8_t *frames_first(struct frames *f, uint32_t *len)
{
	if (f->head == f->tail)
		return NULL;
	memcpy(len, f->data + f->head, 4);
	if (!*len) {
		f->head = 0;
		memcpy(len, f->data, 4);
	}
	return f->data + f->head + 4;
}

static void frames_drop_first(struct frames *f, uint32_t len)
{
	f->head += 4 + ALIGN_UP(len, 4u);
}

/* --- libslirp's callbacks ---------------------------------------------------------------------- */

/* Have user_turn() called at the end of the loop's turn. */
static void user_touch(struct user_net *u)
{
	if (u->loop)
		loop_defer(u->loop, &u->defer);
}

static ssize_t user_send_packet(const void *buf, size_t len, void *opaque)
{
	struct user_net *u = opaque;

	/* A frame for which there is no room is lost, as on a wire; TCP sends it again. */
	if (u->loop && len && len <= FRAME_MAX)
		frames_put(&u->frames, buf, len);
	user_touch(u);
	return len;
}

static void user_guest_error(const char *msg, void *opaque)
{
	struct user_net *u = opaque;

	vm_log(u->netdev.obj.vm, "netdev %s: %s", u->netdev.obj.id ? u->netdev.obj.id : "user",
	       msg);
}

static int64_t user_clock(void *opaque)
{
	return clock_now();
}

static void user_timer_fire(struct loop_timer *timer)
{
	struct user_timer *t = container_of(timer, struct user_timer, timer);
	struct user_net *u = t->net;

	t->deadline = 0;
	t->cb(t->cb_opaque);
	user_touch(u);
}

static void *user_timer_new(SlirpTimerCb cb, void *cb_opaque, void *opaque)
{
	struct user_net *u = opaque;
	struct user_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->net = u;
	t->cb = cb;
	t->cb_opaque = cb_opaque;
	t->timer.fn = user_timer_fire;
	list_add_tail(&t->link, &u->timers);
	return t;
}

static void user_timer_free(void *timer, void *opaque)
{
	struct user_net *u = opaque;
	struct user_timer *t = timer;

	if (!t)
		return;
	if (u->loop)
		loop_timer_cancel(&t->timer);
	list_del(&t->link);
	free(t);
}

static void user_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
	struct user_net *u = opaque;
	struct user_timer *t = timer;

	if (!t)
		return;
	t->deadline = expire_ms > 0 ? (uint64_t)expire_ms * 1000000 : 1;
	if (u->loop)
		loop_timer_set(u->loop, &t->timer, t->deadline);
}

static void user_register_fd(int fd, void *opaque)
{
	/* A watch is made when the socket is first polled. */
}

static void user_poll_free(struct user_poll *p)
{
	loop_watch_stop(&p->watch);
	p->net->by_fd[p->watch.fd] = NULL;
	list_del(&p->link);
	free(p);
}

static void user_unregister_fd(int fd, void *opaque)
{
	struct user_net *u = opaque;

	if (fd >= 0 && (size_t)fd < u->nfds && u->by_fd[fd])
		user_poll_free(u->by_fd[fd]);
}

static void user_notify(void *opaque)
{
	struct user_net *u = opaque;

	u->poll_due = true;
	user_touch(u);
}

static const SlirpCb user_callbacks = {
	.send_packet = user_send_packet,
	.guest_error = user_guest_error,
	.clock_get_ns = user_clock,
	.timer_new = user_timer_new,
	.timer_free = user_timer_free,
	.timer_mod = user_timer_mod,
	.register_poll_fd = user_register_fd,
	.unregister_poll_fd = user_unregister_fd,
	.notify = user_notify,
};

/* --- sockets ----------------------------------------------------------------------------------- */

static void user_poll_ready(struct loop_watch *watch, uint32_t revents)
{
	struct user_poll *p = watch->opaque;
	struct user_net *u = p->net;

	/* Events that are not wanted any more stay armed until they come, which most never do. */
	if (!p->wanted || !(revents & (p->wanted | POLLERR | POLLHUP | POLLNVAL))) {
		loop_watch_set(watch, p->wanted);
		return;
	}
	p->ready |= revents;
	u->poll_due = true;
	user_touch(u);
}

static struct user_poll *user_poll_new(struct user_net *u, int fd, uint32_t events)
{
	struct user_poll *p;

	if ((size_t)fd >= u->nfds) {
		size_t n = ALIGN_UP((size_t)fd + 1, (size_t)64);
		struct user_poll **v = realloc(u->by_fd, n * sizeof(*v));

		if (!v)
			return NULL;
		memset(v + u->nfds, 0, (n - u->nfds) * sizeof(*v));
		u->by_fd = v;
		u->nfds = n;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->net = u;
	p->watch.fd = fd;
	p->watch.events = events;
	p->watch.fn = user_poll_ready;
	p->watch.opaque = p;
	if (loop_watch_start(u->loop, &p->watch, NULL)) {
		free(p);
		return NULL;
	}
	list_add_tail(&p->link, &u->polls);
	u->by_fd[fd] = p;
	return p;
}

/*
 * SLIRP_POLL_PRI is not passed on: libslirp's sockets have urgent data in line, so nothing is lost without it, while io_uring
 * reports POLLPRI whenever TCP data come, and libslirp would take a byte of them for urgent.
 */
static int user_add_poll(int fd, int events, void *opaque)
{
	struct user_net *u = opaque;
	uint32_t wanted = 0;
	struct user_poll *p;

	if (fd < 0)
		return -1;
	if (events & SLIRP_POLL_IN)
		wanted |= POLLIN;
	if (events & SLIRP_POLL_OUT)
		wanted |= POLLOUT;
	p = (size_t)fd < u->nfds ? u->by_fd[fd] : NULL;
	if (!p)
		p = user_poll_new(u, fd, wanted);
	else if (wanted & ~p->watch.events)
		loop_watch_set(&p->watch, wanted);
	if (!p)
		return -1;
	p->wanted = wanted;
	p->round = u->round;
	return fd;
}

static int user_get_revents(int idx, void *opaque)
{
	struct user_net *u = opaque;
	struct user_poll *p = idx >= 0 && (size_t)idx < u->nfds ? u->by_fd[idx] : NULL;
	int events = 0;

	if (!p)
		return 0;
	if (p->ready & POLLIN)
		events |= SLIRP_POLL_IN;
	if (p->ready & POLLOUT)
		events |= SLIRP_POLL_OUT;
	if (p->ready & (POLLERR | POLLNVAL))
		events |= SLIRP_POLL_ERR;
	if (p->ready & POLLHUP)
		events |= SLIRP_POLL_HUP;
	return events;
}

/* Ask libslirp what it waits for now. */
static void user_fill(struct user_net *u)
{
	uint32_t timeout = SLIRP_NO_TIMEOUT;
	struct user_poll *p;

	u->round++;
	u->api.slirp_pollfds_fill(u->slirp, &timeout, user_add_poll, u);
	list_for_each(p, &u->polls, link) {
		p->ready = 0;
		if (p->round != u->round)
			p->wanted = 0;
	}
	if (timeout == SLIRP_NO_TIMEOUT)
		loop_timer_cancel(&u->timer);
	else
		loop_timer_set(u->loop, &u->timer, clock_now() + timeout * 1000000ull);
}

/* The end of a turn in which something has happened. */
static void user_turn(struct loop_defer *defer)
{
	struct user_net *u = container_of(defer, struct user_net, defer);

	if (!u->loop || u->paused)
		return;
	/*
	 * When the guest does not take its frames, its peers have to wait: sockets are not read, and the watches
	 * are put to sleep as they fire. user_recv() goes on.
	 */
	u->blocked = frames_used(&u->frames) > FRAMES_HIGH;
	if (u->blocked) {
		struct user_poll *p;

		loop_timer_cancel(&u->timer);
		list_for_each(p, &u->polls, link)
			p->wanted = 0;
	} else {
		if (u->poll_due)
			u->api.slirp_pollfds_poll(u->slirp, 0, user_get_revents, u);
		u->poll_due = false;
		user_fill(u);
	}
	if (u->recv_on && u->frames.head != u->frames.tail && u->netdev.client_ops)
		u->netdev.client_ops->readable(u->netdev.client, 0);
}

static void user_timeout(struct loop_timer *timer)
{
	struct user_net *u = container_of(timer, struct user_net, timer);

	u->poll_due = true;
	user_touch(u);
}

/* --- the card's side --------------------------------------------------------------------------- */

/* Let sockets and timers be seen, or not. */
static void user_run(struct user_net *u)
{
	struct user_timer *t;

	if (!u->loop || u->paused)
		return;
	list_for_each(t, &u->timers, link) {
		if (t->deadline)
			loop_timer_set(u->loop, &t->timer, t->deadline);
	}
	user_notify(u);
}

static void user_halt(struct user_net *u)
{
	struct user_poll *p, *tmp;
	struct user_timer *t;

	list_for_each_safe(p, tmp, &u->polls, link)
		user_poll_free(p);
	list_for_each(t, &u->timers, link)
		loop_timer_cancel(&t->timer);
	loop_timer_cancel(&u->timer);
}

static int user_start(struct netdev *net, unsigned int queue, struct loop *loop,
		      struct hako_error *err)
{
	struct user_net *u = container_of(net, struct user_net, netdev);

	u->loop = loop;
	u->recv_on = false;
	u->frames.head = u->frames.tail = 0;
	user_run(u);
	return 0;
}

static void user_stop(struct netdev *net, unsigned int queue)
{
	struct user_net *u = container_of(net, struct user_net, netdev);

	user_halt(u);
	u->loop = NULL;
}

static void user_recv_enable(struct netdev *net, unsigned int queue, bool on)
{
	struct user_net *u = container_of(net, struct user_net, netdev);

	u->recv_on = on;
}

static ssize_t user_recv(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	static const uint8_t hdr[NET_HDR_LEN] = {[10] = 1}; /* num_buffers */
	struct user_net *u = container_of(net, struct user_net, netdev);
	const uint8_t *frame;
	size_t done = 0, total;
	uint32_t len;

	frame = frames_first(&u->frames, &len);
	if (!frame)
		return -EAGAIN;
	total = NET_HDR_LEN + len;
	for (int i = 0; i < niov && done < total; i++) {
		size_t n = MIN(iov[i].iov_len, total - done);
		size_t h = done < NET_HDR_LEN ? MIN(n, NET_HDR_LEN - done) : 0;

		if (h)
			memcpy(iov[i].iov_base, hdr + done, h);
		if (n > h)
			memcpy((uint8_t *)iov[i].iov_base + h, frame + done + h - NET_HDR_LEN,
			       n - h);
		done += n;
	}
	frames_drop_first(&u->frames, len);
	if (u->blocked && frames_used(&u->frames) <= FRAMES_HIGH / 2) {
		u->blocked = false;
		user_notify(u);
	}
	return done < total ? -EMSGSIZE : (ssize_t)total;
}

static ssize_t user_send(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct user_net *u = container_of(net, struct user_net, netdev);
	size_t skip = NET_HDR_LEN, len = 0, total = 0;

	for (int i = 0; i < niov; i++) {
		size_t n = iov[i].iov_len, s = MIN(skip, n);

		total += n;
		skip -= s;
		n -= s;
		if (n > FRAME_MAX - len)
			return -EMSGSIZE;
		if (n)
			memcpy(u->tx + len, (const uint8_t *)iov[i].iov_base + s, n);
		len += n;
	}
	if (skip || !len)
		return -EINVAL;
	u->api.slirp_input(u->slirp, u->tx, len);
	user_touch(u);
	return total;
}

static const struct netdev_ops user_ops = {
	.start = user_start,
	.stop = user_stop,
	.recv_enable = user_recv_enable,
	.recv = user_recv,
	.send = user_send,
	.set_offloads = netdev_no_offloads,
};

/* --- class ------------------------------------------------------------------------------------- */

static const struct option user_options[] = {
	OPT_ONOFFAUTO("ipv4", struct user_net, opt.ipv4, "auto", "IPv4 in the guest's network"),
	OPT_ONOFFAUTO("ipv6", struct user_net, opt.ipv6, "auto", "IPv6 in the guest's network"),
	OPT_STRING("net", struct user_net, opt.net, "10.0.2.0/24",
		   "the guest's network, as ADDRESS[/PREFIX]"),
	OPT_STRING("host", struct user_net, opt.host, NULL,
		   "the router's address (default: the network's .2)"),
	OPT_STRING("dhcpstart", struct user_net, opt.dhcpstart, NULL,
		   "first address that DHCP gives (.15)"),
	OPT_STRING("dns", struct user_net, opt.dns, NULL, "address of the DNS forwarder (.3)"),
	OPT_STRING("ipv6-net", struct user_net, opt.ipv6_net, "fec0::/64",
		   "the IPv6 network, as PREFIX[/LENGTH]"),
	OPT_STRING("ipv6-host", struct user_net, opt.ipv6_host, NULL,
		   "the router's IPv6 address (::2)"),
	OPT_STRING("ipv6-dns", struct user_net, opt.ipv6_dns, NULL,
		   "IPv6 address of the DNS forwarder (::3)"),
	OPT_BOOL("restrict", struct user_net, opt.restricted, "off",
		 "nothing but the forwarded ports"),
	OPT_STRING("hostname", struct user_net, opt.hostname, NULL,
		   "host name that DHCP tells the guest"),
	OPT_STRING("domainname", struct user_net, opt.domainname, NULL,
		   "domain name that DHCP tells the guest"),
	OPT_LIST("dnssearch", struct user_net, opt.dnssearch,
		 "domain that DHCP gives for the search list"),
	OPT_STRING("tftp", struct user_net, opt.tftp, NULL,
		   "directory that a TFTP server offers the guest"),
	OPT_STRING("tftp-server-name", struct user_net, opt.tftp_server_name, NULL,
		   "name of the TFTP server that DHCP tells the guest"),
	OPT_STRING("bootfile", struct user_net, opt.bootfile, NULL,
		   "file that DHCP tells the guest to boot"),
	OPT_LIST("hostfwd", struct user_net, opt.hostfwd,
		 "port of the host that leads into the guest, as "
		 "tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT"),
	OPT_LIST(
		"guestfwd", struct user_net, opt.guestfwd,
		"address in the guest's network that leads to a program of the host (a new one for "
		"each connection) or to a Unix socket, as tcp:ADDR:PORT-cmd:COMMAND or "
		"tcp:ADDR:PORT-unix:PATH"),
	OPT_END,
};

static int user_add_hostfwd(struct user_net *u, const char *text, struct hako_error *err)
{
	struct user_hostfwd f;
	int ret = user_parse_hostfwd(text, &f, err);

	if (ret)
		return ret;
	if (u->api.slirp_add_hostfwd(u->slirp, f.udp, f.host, f.host_port, f.guest, f.guest_port) <
	    0) {
		ret = errno ? -errno : -EINVAL;
		return error_errno(err, ret, "hostfwd=%s: %s port %u of the host", text,
				   f.udp ? "UDP" : "TCP", f.host_port);
	}
	return 0;
}

static int user_add_guestfwd(struct user_net *u, const char *text, struct hako_error *err)
{
	struct user_guestfwd f;
	int ret = user_parse_guestfwd(text, &f, err);

	if (ret)
		return ret;
	ret = f.command ? u->api.slirp_add_exec(u->slirp, f.command, &f.addr, f.port)
			: u->api.slirp_add_unix(u->slirp, f.path, &f.addr, f.port);
	if (ret < 0)
		ret = error_set(err, -EINVAL,
				"guestfwd=%s: the address is not in the guest's network, or taken",
				text);
	return ret;
}

static int user_forward(struct user_net *u, char **list,
			int (*add)(struct user_net *u, const char *text, struct hako_error *err),
			struct hako_error *err)
{
	int ret = 0;

	for (; list && *list && !ret; list++)
		ret = add(u, *list, err);
	return ret;
}

static int user_open(struct user_net *u, struct hako_error *err)
{
	SlirpConfig cfg = {.version = SLIRP_CONFIG_VERSION_MIN};
	struct user_addresses a;
	struct stat st;
	int ret;

	ret = user_addresses(&u->opt, &a, err) ?: user_check_names(&u->opt, err);
	if (ret)
		return ret;
	if (u->opt.tftp && stat(u->opt.tftp, &st))
		return error_errno(err, -errno, "tftp=%s", u->opt.tftp);
	if (u->opt.tftp && !S_ISDIR(st.st_mode))
		return error_errno(err, -ENOTDIR, "tftp=%s", u->opt.tftp);
	ret = dl_load("libslirp.so.0", slirp_symbols, &u->api, "networks of kind \"user\"", err);
	if (ret)
		return ret;
	cfg.restricted = u->opt.restricted;
	cfg.in_enabled = a.ipv4;
	cfg.vnetwork = a.net;
	cfg.vnetmask = a.mask;
	cfg.vhost = a.host;
	cfg.vdhcp_start = a.dhcpstart;
	cfg.vnameserver = a.dns;
	cfg.in6_enabled = a.ipv6;
	cfg.vprefix_addr6 = a.net6;
	cfg.vprefix_len = a.prefix6;
	cfg.vhost6 = a.host6;
	cfg.vnameserver6 = a.dns6;
	cfg.vhostname = u->opt.hostname;
	cfg.vdomainname = u->opt.domainname;
	cfg.vdnssearch = (const char **)u->opt.dnssearch;
	cfg.tftp_path = u->opt.tftp;
	cfg.tftp_server_name = u->opt.tftp_server_name;
	cfg.bootfile = u->opt.bootfile;
	u->slirp = u->api.slirp_new(&cfg, &user_callbacks, u);
	if (!u->slirp)
		return error_set(err, -EINVAL, "libslirp refuses this network");
	ret = user_forward(u, u->opt.hostfwd, user_add_hostfwd, err);
	return ret ?: user_forward(u, u->opt.guestfwd, user_add_guestfwd, err);
}

static void user_destroy(struct object *obj)
{
	struct user_net *u = (struct user_net *)obj;

	if (u->slirp)
		u->api.slirp_cleanup(u->slirp);
	free(u->by_fd);
	free(u->frames.data);
	free(u->tx);
}

static void user_pause_in_loop(void *arg)
{
	struct user_net *u = arg;

	u->paused = true;
	user_halt(u);
}

static void user_pause(struct object *obj)
{
	struct user_net *u = (struct user_net *)obj;

	if (u->loop)
		loop_call(u->loop, user_pause_in_loop, u);
	u->paused = true;
}

static void user_resume_in_loop(void *arg)
{
	struct user_net *u = arg;

	u->paused = false;
	user_run(u);
}

static void user_resume(struct object *obj)
{
	struct user_net *u = (struct user_net *)obj;

	if (u->loop)
		loop_call(u->loop, user_resume_in_loop, u);
	else
		u->paused = false;
}

static int user_create(struct object *obj, struct hako_error *err)
{
	struct user_net *u = (struct user_net *)obj;
	int ret;

	list_init(&u->polls);
	list_init(&u->timers);
	u->timer.fn = user_timeout;
	u->defer.fn = user_turn;
	u->netdev.ops = &user_ops;
	u->netdev.queues = 1;
	u->frames.data = malloc(FRAMES_CAP);
	u->tx = malloc(FRAME_MAX);
	if (!u->frames.data || !u->tx)
		ret = error_errno(err, -ENOMEM, "frame buffers");
	else
		ret = user_open(u, err);
	if (ret)
		user_destroy(obj);
	return ret;
}

/* libslirp reads the addresses of the host's name servers again and again. */
static int user_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct user_net *u = (struct user_net *)obj;
	int ret;

	for (char **f = u->opt.guestfwd; f && *f; f++) {
		struct user_guestfwd fwd;

		ret = user_parse_guestfwd(*f, &fwd, err);
		if (!ret && fwd.command)
			ret = error_set(err, -EPERM,
					"guestfwd=%s: a confined program can not run commands "
					"(--sandbox off lets it)",
					*f);
		if (ret)
			return ret;
		sandbox_need(sb, SANDBOX_RECONNECT);
	}
	ret = sandbox_allow_path(sb, SANDBOX_LOOP, "/etc/resolv.conf", -1, SANDBOX_READ);
	if (!ret && u->opt.tftp)
		ret = sandbox_allow_path(sb, SANDBOX_LOOP, u->opt.tftp, -1, SANDBOX_READ);
	return ret ? error_errno(err, ret, "files that are served") : 0;
}

static const struct class user_class = {
	.name = "user",
	.help = "network with DHCP, DNS and address translation that needs no privileges",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct user_net),
	.options = user_options,
	.create = user_create,
	.destroy = user_destroy,
	.pause = user_pause,
	.resume = user_resume,
	.needs = SANDBOX_INET | SANDBOX_FILES,
	.confine = user_confine,
};
HAKO_CLASS(user_class);
