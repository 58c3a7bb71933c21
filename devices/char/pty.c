/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chardev pty: a pseudo-terminal that programs such as screen or minicom open. What is written while nobody has it open is lost.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <termios.h>
#include <unistd.h>

#include "devices/char/fd.h"
#include "vmm/vm.h"

/* A master can not be waited on for somebody to open the slave: so often it is looked at. */
#define LOOK_NS 200000000ull

struct char_pty {
	struct chardev chr;
	int master;
	struct char_fd cf;
	struct loop_timer timer;
	struct loop_msg close_msg;
};

static struct char_pty *to_pty(struct chardev *chr)
{
	return container_of(chr, struct char_pty, chr);
}

/* Is somebody there, or has been, and has left something to read? */
static bool slave_used(int master)
{
	struct pollfd p = {.fd = master, .events = POLLIN};

	return poll(&p, 1, 0) >= 0 && (!(p.revents & POLLHUP) || (p.revents & POLLIN));
}

static void pty_closed(struct char_fd *cf, bool output, int code)
{
	struct char_pty *pty = container_of(cf, struct char_pty, cf);

	/* Not here: the caller still uses what is closed then. */
	loop_post(cf->loop, &pty->close_msg);
}

/* The slave is in use: give char_fd descriptors of its own. */
static void connect(struct char_pty *pty)
{
	struct char_fd *cf = &pty->cf;
	struct hako_error err;

	cf->in_fd = fcntl(pty->master, F_DUPFD_CLOEXEC, 3);
	cf->out_fd = fcntl(pty->master, F_DUPFD_CLOEXEC, 3);
	cf->in_kind = cf->out_kind = CHAR_FD_NONBLOCK;
	if (cf->in_fd < 0 || cf->out_fd < 0 || char_fd_start(cf, &err)) {
		char_fd_stop(cf);
		return;
	}
	chardev_set_open(&pty->chr, true);
	/* A client that found it closed may have kept something back. */
	chardev_writable(&pty->chr);
}

static void look(struct loop_timer *timer)
{
	struct char_pty *pty = container_of(timer, struct char_pty, timer);

	if (slave_used(pty->master))
		connect(pty);
	if (!pty->chr.open)
		loop_timer_set(pty->cf.loop, timer, clock_now() + LOOK_NS);
}

static void close_msg_fn(struct loop_msg *msg)
{
	struct char_pty *pty = container_of(msg, struct char_pty, close_msg);

	if (!pty->chr.open)
		return;
	char_fd_stop(&pty->cf);
	chardev_set_open(&pty->chr, false);
	chardev_writable(&pty->chr);
	loop_timer_set(pty->cf.loop, &pty->timer, clock_now() + LOOK_NS);
}

static size_t pty_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	return chr->open ? char_fd_write(&to_pty(chr)->cf, buf, len) : len;
}

static void pty_accept(struct chardev *chr)
{
	char_fd_accept(&to_pty(chr)->cf);
}

static const struct chardev_ops pty_ops = {
	.write = pty_write,
	.accept_input = pty_accept,
};

/* Make the pair, and the slave a plain line: no echo, no translation. */
static int open_pair(struct char_pty *pty, struct hako_error *err)
{
	char path[64];
	struct termios tio;
	int slave, ret;

	pty->master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (pty->master < 0)
		return error_errno(err, -errno, "pseudo-terminal");
	if (grantpt(pty->master) < 0 || unlockpt(pty->master) < 0) {
		ret = error_errno(err, -errno, "pseudo-terminal");
		goto out;
	}
	ret = ptsname_r(pty->master, path, sizeof(path));
	if (ret) {
		error_errno(err, -ret, "pseudo-terminal");
		ret = -ret;
		goto out;
	}
	slave = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &tio) < 0) {
		ret = error_errno(err, -errno, "%s", path);
		if (slave >= 0)
			close(slave);
		goto out;
	}
	cfmakeraw(&tio);
	tcsetattr(slave, TCSANOW, &tio);
	close(slave);
	pty->chr.path = strdup(path);
	if (pty->chr.path)
		return 0;
	ret = error_errno(err, -ENOMEM, "%s", path);
out:
	close(pty->master);
	return ret;
}

static void start(void *arg)
{
	struct char_pty *pty = arg;

	look(&pty->timer);
}

static void stop(void *arg)
{
	struct char_pty *pty = arg;

	loop_timer_cancel(&pty->timer);
	char_fd_stop(&pty->cf);
	pty->chr.open = false;
}

static int pty_create(struct object *obj, struct hako_error *err)
{
	struct char_pty *pty = container_of(obj, struct char_pty, chr.obj);
	int ret;

	ret = open_pair(pty, err);
	if (ret)
		return ret;
	pty->chr.ops = &pty_ops;
	char_fd_init(&pty->cf, &pty->chr, obj->vm->io_loop);
	pty->cf.closed = pty_closed;
	pty->cf.fleeting = true;
	pty->timer.fn = look;
	pty->close_msg.fn = close_msg_fn;
	loop_call(pty->cf.loop, start, pty);
	return 0;
}

static void pty_destroy(struct object *obj)
{
	struct char_pty *pty = container_of(obj, struct char_pty, chr.obj);

	loop_call(pty->cf.loop, stop, pty);
	/* A message that was under way when it stopped. */
	loop_call(pty->cf.loop, stop, pty);
	close(pty->master);
	free((char *)pty->chr.path);
}

static const struct class pty_class = {
	.name = "pty",
	.help = "a pseudo-terminal",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct char_pty),
	.ops = &pty_ops,
	.create = pty_create,
	.destroy = pty_destroy,
	.needs = SANDBOX_TERMINAL,
};
HAKO_CLASS(pty_class);
