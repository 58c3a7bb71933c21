/* SPDX-License-Identifier: GPL-2.0-only */
/* Reading and writing descriptors without ever blocking the loop. */
#include "devices/char/fd.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Where poll(2) has to be asked before each piece: a pipe that is writable takes PIPE_BUF (4096) bytes; a
 * terminal that is writable has room for some hundred.
 */
#define POLL_PIECE 128
#define READ_PIECE 4096

static size_t room(struct char_fd *cf)
{
	return cf->room ? cf->room(cf) : chardev_can_receive(cf->chr);
}

static bool ready_now(int fd, short events)
{
	struct pollfd p = {.fd = fd, .events = events};

	return poll(&p, 1, 0) == 1;
}

static void close_input(struct char_fd *cf, int code)
{
	loop_watch_stop(&cf->in);
	close(cf->in_fd);
	cf->in_fd = -1;
	if (cf->closed)
		cf->closed(cf, false, code);
}

static void close_output(struct char_fd *cf, int code)
{
	loop_watch_stop(&cf->out);
	close(cf->out_fd);
	cf->out_fd = -1;
	if (cf->closed)
		cf->closed(cf, true, code);
}

/* Read one piece of at most @max bytes and pass it on; false: nothing there now, or the end. */
static bool read_piece(struct char_fd *cf, size_t max)
{
	uint8_t buf[READ_PIECE];
	ssize_t n;

	max = MIN(max, sizeof(buf));
	if (cf->in_kind == CHAR_FD_POLL && !ready_now(cf->in_fd, POLLIN))
		return false;
	if (cf->in_kind == CHAR_FD_SOCKET)
		n = recv(cf->in_fd, buf, max, MSG_DONTWAIT);
	else
		n = read(cf->in_fd, buf, max);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		close_input(cf, n ? -errno : 0);
		return false;
	}
	if (cf->input)
		cf->input(cf, buf, n);
	else
		chardev_receive(cf->chr, buf, n);
	return true;
}

static uint32_t idle_events(const struct char_fd *cf)
{
	return cf->fleeting ? POLLRDHUP : 0;
}

/* Nothing is read until the guest takes input again. What the other end has left behind when it went is input, and comes before its end. */
static void suspend(struct char_fd *cf)
{
	bool gone = cf->fleeting && ready_now(cf->in_fd, POLLRDHUP);
	int unread;

	if (gone && ioctl(cf->in_fd, FIONREAD, &unread) == 0 && !unread)
		close_input(cf, 0);
	else
		loop_watch_set(&cf->in, gone ? 0 : idle_events(cf));
}

static void in_ready(struct loop_watch *watch, uint32_t revents)
{
	struct char_fd *cf = watch->opaque;
	size_t max = room(cf);

	/* Input may end here, or have been stopped by the client. */
	if (max && !read_piece(cf, max))
		return;
	if (cf->in_fd >= 0 && !room(cf))
		suspend(cf);
}

/* Regular files can not be waited for: piece by piece, and others have their turn in between. */
static void in_again(struct loop_msg *msg)
{
	struct char_fd *cf = container_of(msg, struct char_fd, again);
	size_t max;

	if (cf->stopped || cf->in_fd < 0)
		return;
	max = room(cf);
	if (max && read_piece(cf, max))
		loop_post(cf->loop, msg);
}

void char_fd_accept(struct char_fd *cf)
{
	if (cf->stopped || cf->in_fd < 0)
		return;
	if (cf->in_kind == CHAR_FD_PLAIN)
		loop_post(cf->loop, &cf->again);
	else if (cf->in.loop && !(cf->in.events & POLLIN) && room(cf))
		loop_watch_set(&cf->in, POLLIN);
}

static void out_ready(struct loop_watch *watch, uint32_t revents)
{
	struct char_fd *cf = watch->opaque;

	/* Nobody will ever read it: what is written from now on is lost. */
	if (revents & (POLLERR | POLLHUP | POLLNVAL))
		close_output(cf, -EPIPE);
	else
		loop_watch_set(watch, 0);
	chardev_writable(cf->chr);
}

/* Wait until out_fd takes bytes again; if that can not be, give it up. */
static void wait_writable(struct char_fd *cf)
{
	struct hako_error err;
	int ret;

	if (cf->out.loop) {
		loop_watch_set(&cf->out, POLLOUT);
		return;
	}
	cf->out.fd = cf->out_fd;
	cf->out.events = POLLOUT;
	cf->out.fn = out_ready;
	cf->out.opaque = cf;
	ret = loop_watch_start(cf->loop, &cf->out, &err);
	if (ret)
		close_output(cf, ret);
}

size_t char_fd_write(struct char_fd *cf, const uint8_t *buf, size_t len)
{
	size_t done = 0;

	while (done < len && cf->out_fd >= 0) {
		size_t piece = len - done;
		ssize_t n;

		if (cf->out_kind == CHAR_FD_POLL) {
			piece = MIN(piece, POLL_PIECE);
			if (!ready_now(cf->out_fd, POLLOUT)) {
				wait_writable(cf);
				break;
			}
		}
		if (cf->out_kind == CHAR_FD_SOCKET)
			n = send(cf->out_fd, buf + done, piece, MSG_DONTWAIT | MSG_NOSIGNAL);
		else
			n = write(cf->out_fd, buf + done, piece);
		if (n >= 0) {
			done += n;
		} else if (errno == EAGAIN) {
			wait_writable(cf);
			break;
		} else if (errno != EINTR) {
			close_output(cf, -errno);
		}
	}
	return cf->out_fd >= 0 ? done : len;
}

int char_fd_share(int fd, bool output, enum char_fd_kind *kind)
{
	char path[32];
	struct stat st;
	int own;

	if (fstat(fd, &st) < 0)
		return -errno;
	own = -1;
	if (S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && isatty(fd))) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
		own = open(path,
			   (output ? O_WRONLY : O_RDONLY) | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
		*kind = own >= 0 ? CHAR_FD_NONBLOCK : CHAR_FD_POLL;
	} else if (S_ISSOCK(st.st_mode)) {
		*kind = CHAR_FD_SOCKET;
	} else {
		*kind = S_ISREG(st.st_mode) ? CHAR_FD_PLAIN : CHAR_FD_POLL;
	}
	if (own < 0)
		own = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return own < 0 ? -errno : own;
}

enum char_fd_kind char_fd_own(int fd)
{
	struct stat st;
	int flags;

	if (fstat(fd, &st) < 0)
		return CHAR_FD_POLL;
	if (S_ISREG(st.st_mode))
		return CHAR_FD_PLAIN;
	if (S_ISSOCK(st.st_mode))
		return CHAR_FD_SOCKET;
	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return CHAR_FD_POLL;
	return CHAR_FD_NONBLOCK;
}

void char_fd_init(struct char_fd *cf, struct chardev *chr, struct loop *loop)
{
	memset(cf, 0, sizeof(*cf));
	cf->chr = chr;
	cf->loop = loop;
	cf->in_fd = cf->out_fd = -1;
	cf->again.fn = in_again;
}

int char_fd_start(struct char_fd *cf, struct hako_error *err)
{
	int ret;

	cf->stopped = false;
	if (cf->in_fd < 0)
		return 0;
	if (cf->in_kind == CHAR_FD_PLAIN) {
		char_fd_accept(cf);
		return 0;
	}
	cf->in.fd = cf->in_fd;
	cf->in.events = room(cf) ? POLLIN : idle_events(cf);
	cf->in.fn = in_ready;
	cf->in.opaque = cf;
	ret = loop_watch_start(cf->loop, &cf->in, err);
	if (ret == -EPERM) {
		/* epoll refuses what is always ready, such as /dev/null. */
		cf->in_kind = CHAR_FD_PLAIN;
		char_fd_accept(cf);
		ret = 0;
	}
	return ret;
}

void char_fd_stop(struct char_fd *cf)
{
	cf->stopped = true;
	loop_watch_stop(&cf->in);
	loop_watch_stop(&cf->out);
	if (cf->in_fd >= 0)
		close(cf->in_fd);
	if (cf->out_fd >= 0)
		close(cf->out_fd);
	cf->in_fd = cf->out_fd = -1;
}
