/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chardev stdio: the process's standard input and output. Terminal modes are the program's business, since they outlive the process
 * (vmm/cli/terminal.h); the escape key is handled here, since it must work when the guest does not read.
 */
#include <stdlib.h>
#include <unistd.h>

#include "devices/char/fd.h"
#include "vmm/vm.h"

#define ESCAPE_KEY 0x01 /* Ctrl-a */
#define HELD_SIZE  256	/* keys typed while the guest takes none; what is more is lost */
#define LOOK_NS	   200000000ull

struct char_stdio {
	struct chardev chr;
	bool signal;
	int escape_mode; /* enum option_onoffauto */
	struct char_fd cf;
	bool escape_enabled;
	bool escaped; /* the escape key was the last one */
	uint8_t held[HELD_SIZE];
	size_t nheld;
	struct loop_timer timer; /* look whether the terminal is ours again */
};

static const char help[] = "\r\nCtrl-a h       this help\r\n"
			   "Ctrl-a c       go on after a pause, such as for an error of a disk\r\n"
			   "Ctrl-a x       end the virtual machine\r\n"
			   "Ctrl-a a       send Ctrl-a (so does Ctrl-a twice)\r\n";

static struct char_stdio *to_stdio(struct chardev *chr)
{
	return container_of(chr, struct char_stdio, chr);
}

/* Take the escape sequences out of @buf; the bytes left. */
static size_t filter(struct char_stdio *s, uint8_t *buf, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = buf[i];

		if (!s->escaped) {
			if (c == ESCAPE_KEY)
				s->escaped = true;
			else
				buf[n++] = c;
			continue;
		}
		s->escaped = false;
		if (c == ESCAPE_KEY || c == 'a')
			buf[n++] = ESCAPE_KEY;
		else if (c == 'x')
			vm_request(s->chr.obj.vm, VM_REQUEST_STOP, 0);
		else if (c == 'c')
			vm_request(s->chr.obj.vm, VM_REQUEST_CONTINUE, 0);
		else if (c == 'h' || c == '?')
			char_fd_write(&s->cf, (const uint8_t *)help, sizeof(help) - 1);
	}
	return n;
}

static void deliver(struct char_stdio *s)
{
	size_t done = 0, n;

	while (done < s->nheld && (n = chardev_can_receive(&s->chr)) > 0) {
		n = MIN(n, s->nheld - done);
		chardev_receive(&s->chr, s->held + done, n);
		done += n;
	}
	s->nheld -= done;
	memmove(s->held, s->held + done, s->nheld);
}

/* Always some, so that the escape key is seen. */
static size_t stdio_room(struct char_fd *cf)
{
	return HELD_SIZE;
}

static void stdio_input(struct char_fd *cf, uint8_t *buf, size_t len)
{
	struct char_stdio *s = container_of(cf, struct char_stdio, cf);

	deliver(s);
	len = filter(s, buf, len);
	len = MIN(len, HELD_SIZE - s->nheld);
	memcpy(s->held + s->nheld, buf, len);
	s->nheld += len;
	deliver(s);
}

/* A job of a shell to which the terminal's keys do not belong at present? */
static bool in_background(void)
{
	pid_t foreground = tcgetpgrp(STDIN_FILENO);

	return foreground >= 0 && foreground != getpgrp();
}

/* A process in the background that takes no SIGTTIN, as loops do not, gets an error: not the end, unless the terminal has gone. */
static void stdio_closed(struct char_fd *cf, bool output, int code)
{
	struct char_stdio *s = container_of(cf, struct char_stdio, cf);

	if (!output && code == -EIO && isatty(STDIN_FILENO))
		loop_timer_set(cf->loop, &s->timer, clock_now() + LOOK_NS);
}

static void look(struct loop_timer *timer)
{
	struct char_stdio *s = container_of(timer, struct char_stdio, timer);
	struct hako_error err;

	if (in_background()) {
		loop_timer_set(s->cf.loop, timer, clock_now() + LOOK_NS);
		return;
	}
	s->cf.in_fd = char_fd_share(STDIN_FILENO, false, &s->cf.in_kind);
	char_fd_start(&s->cf, &err);
}

static size_t stdio_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	return char_fd_write(&to_stdio(chr)->cf, buf, len);
}

static void stdio_accept(struct chardev *chr)
{
	struct char_stdio *s = to_stdio(chr);

	deliver(s);
	char_fd_accept(&s->cf);
}

static const struct chardev_ops stdio_ops = {
	.write = stdio_write,
	.accept_input = stdio_accept,
};

struct start {
	struct char_stdio *s;
	struct hako_error *err;
	int ret;
};

static void start(void *arg)
{
	struct start *st = arg;

	st->s->chr.open = true;
	st->ret = char_fd_start(&st->s->cf, st->err);
}

static void stop(void *arg)
{
	struct char_stdio *s = arg;

	loop_timer_cancel(&s->timer);
	char_fd_stop(&s->cf);
}

static int stdio_create(struct object *obj, struct hako_error *err)
{
	struct char_stdio *s = container_of(obj, struct char_stdio, chr.obj);
	struct char_fd *cf = &s->cf;
	struct start st = {s, err, 0};
	struct object *other;

	list_for_each(other, &obj->vm->objects[CLASS_CHARDEV], link)
		if (other->class == obj->class)
			return error_set(err, -EBUSY, "another chardev has standard input already");
	s->chr.ops = &stdio_ops;
	s->chr.terminal = s->signal ? CHARDEV_TERMINAL_SIGNALS : CHARDEV_TERMINAL_RAW;
	char_fd_init(cf, &s->chr, obj->vm->io_loop);
	s->escape_enabled = s->escape_mode == ONOFFAUTO_AUTO ? isatty(STDIN_FILENO)
							     : s->escape_mode == ONOFFAUTO_ON;
	if (s->escape_enabled) {
		cf->room = stdio_room;
		cf->input = stdio_input;
	}
	cf->closed = stdio_closed;
	s->timer.fn = look;
	/* Either may be closed: then there is no input, or output is lost. */
	cf->in_fd = char_fd_share(STDIN_FILENO, false, &cf->in_kind);
	cf->out_fd = char_fd_share(STDOUT_FILENO, true, &cf->out_kind);
	loop_call(cf->loop, start, &st);
	if (st.ret) {
		loop_call(cf->loop, stop, s);
		return error_prefix(err, "standard input");
	}
	return 0;
}

static void stdio_destroy(struct object *obj)
{
	struct char_stdio *s = container_of(obj, struct char_stdio, chr.obj);

	loop_call(s->cf.loop, stop, s);
	/* A message that was under way when it stopped. */
	loop_call(s->cf.loop, stop, s);
}

static const struct option stdio_options[] = {
	OPT_BOOL("signal", struct char_stdio, signal, "on",
		 "keys such as Ctrl-c act on the program, not on the guest"),
	OPT_ONOFFAUTO("escape", struct char_stdio, escape_mode, "auto",
		      "Ctrl-a is an escape key; auto: if standard input is a terminal"),
	OPT_END,
};

static const struct class stdio_class = {
	.name = "stdio",
	.help = "standard input and output",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct char_stdio),
	.options = stdio_options,
	.ops = &stdio_ops,
	.create = stdio_create,
	.destroy = stdio_destroy,
	.needs = SANDBOX_TERMINAL | SANDBOX_SOCKET, /* either may be a socket */
};
HAKO_CLASS(stdio_class);
