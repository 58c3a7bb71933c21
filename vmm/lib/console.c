/* SPDX-License-Identifier: GPL-2.0-only */
/* chardev program: the other end is the program that holds the VM, by hako_console_*(). */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices/char/char.h"
#include "vmm/events.h"
#include "vmm/vm.h"

#define INPUT	 65536 /* bytes on their way to the guest */
#define MAX_LINE 65536 /* of which a regular expression sees no more */
#define QUOTED	 80    /* of the last line, in messages */

struct hako_console {
	struct chardev chr;
	uint64_t limit;
	/* Under the events' lock. Places in the text are counted from its very beginning. A zero is behind it. */
	char *text;
	size_t len, cap;
	uint64_t base; /* where text[0] is */
	uint64_t at;   /* read so far */
	bool lost;     /* there was no memory */
	char *in;
	size_t in_head, in_len;
	struct loop_msg in_msg;
};

static struct hako_console *to_console(struct chardev *chr)
{
	return container_of(chr, struct hako_console, chr);
}

static uint64_t end_of(const struct hako_console *c)
{
	return c->base + c->len;
}

static const char *text_at(const struct hako_console *c, uint64_t at)
{
	return c->text + (at - c->base);
}

/* --- from the guest ---------------------------------------------------------------------------- */

static bool make_room(struct hako_console *c, size_t len)
{
	size_t cap = c->cap ?: 4096, drop;
	char *p;

	if (c->len + len > c->limit) {
		/* A quarter at once, so that not every byte moves all others. */
		drop = MIN(c->len, MAX(c->limit / 4, len));
		memmove(c->text, c->text + drop, c->len - drop);
		c->len -= drop;
		c->base += drop;
		c->at = MAX(c->at, c->base);
	}
	while (cap < c->len + len + 1)
		cap *= 2;
	if (cap == c->cap)
		return true;
	p = realloc(c->text, cap);
	if (!p)
		return false;
	c->text = p;
	c->cap = cap;
	return true;
}

static size_t console_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	struct hako_console *c = to_console(chr);
	struct vm *vm = chr->obj.vm;
	bool tell, lost;

	events_lock(vm);
	tell = c->at == end_of(c);
	lost = !make_room(c, len) && !c->lost;
	if (c->len + len < c->cap) {
		memcpy(c->text + c->len, buf, len);
		c->len += len;
		c->text[c->len] = 0;
	}
	c->lost |= lost;
	events_wake(vm);
	events_unlock(vm);
	if (lost)
		vm_log(vm, "%s: no memory for what the guest says", chr->obj.id ?: "console");
	if (tell)
		vm_event(vm, HAKO_EVENT_CONSOLE, "%s", chr->obj.id ?: "");
	return len;
}

/* --- to the guest ------------------------------------------------------------------------------ */

/* In the loop. */
static void accept_input(struct chardev *chr)
{
	struct hako_console *c = to_console(chr);
	struct vm *vm = chr->obj.vm;
	uint8_t buf[4096];
	size_t n;

	for (;;) {
		size_t room = chardev_can_receive(chr);

		events_lock(vm);
		n = MIN(MIN(room, sizeof(buf)), MIN(c->in_len, INPUT - c->in_head));
		memcpy(buf, c->in + c->in_head, n);
		c->in_head = (c->in_head + n) % INPUT;
		c->in_len -= n;
		events_wake(vm);
		events_unlock(vm);
		if (!n)
			return;
		chardev_receive(chr, buf, n);
	}
}

static void input_msg(struct loop_msg *msg)
{
	accept_input(&container_of(msg, struct hako_console, in_msg)->chr);
}

static const struct chardev_ops console_ops = {
	.write = console_write,
	.accept_input = accept_input,
};

/* --- class ------------------------------------------------------------------------------------- */

static int console_create(struct object *obj, struct hako_error *err)
{
	struct hako_console *c = container_of(obj, struct hako_console, chr.obj);

	c->in = malloc(INPUT);
	if (!c->in)
		return error_errno(err, -ENOMEM, "console");
	c->in_msg.fn = input_msg;
	c->chr.ops = &console_ops;
	c->chr.open = true;
	return 0;
}

static void console_destroy(struct object *obj)
{
	struct hako_console *c = container_of(obj, struct hako_console, chr.obj);

	loop_call(obj->vm->io_loop, NULL, NULL); /* behind a message that is under way */
	free(c->in);
	free(c->text);
}

static const struct option console_options[] = {
	OPT_SIZE("limit", struct hako_console, limit, "64M", 65536, INT64_MAX,
		 "how much of the newest text is kept"),
	OPT_END,
};

static const struct class console_class = {
	.name = "program",
	.help = "the program that holds the VM, by libhako's hako_console_*()",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct hako_console),
	.options = console_options,
	.ops = &console_ops,
	.create = console_create,
	.destroy = console_destroy,
};
HAKO_CLASS(console_class);

/* --- the calls --------------------------------------------------------------------------------- */

int hako_vm_console(struct hako_vm *handle, const char *id, struct hako_console **console,
		    struct hako_error *err)
{
	struct vm *vm = (struct vm *)handle;
	struct object *obj;

	pthread_mutex_lock(&vm->lock);
	obj = object_find(vm, CLASS_CHARDEV, id);
	pthread_mutex_unlock(&vm->lock);
	if (!obj)
		return error_set(err, -ENODEV, "%s: there is no chardev of that id", id);
	if (obj->class != &console_class)
		return error_set(err, -EINVAL, "%s: a chardev \"%s\", not \"program\"", id,
				 obj->class->name);
	*console = container_of(obj, struct hako_console, chr.obj);
	return 0;
}

static int ended(const struct hako_console *c, struct hako_error *err)
{
	return error_set(err, -ESHUTDOWN, "%s: the VM has ended", c->chr.obj.id);
}

ssize_t hako_console_read(struct hako_console *c, void *buf, size_t size, int timeout_ms,
			  struct hako_error *err)
{
	uint64_t deadline = deadline_in(timeout_ms);
	struct vm *vm = c->chr.obj.vm;
	bool over = false;
	ssize_t n;

	events_lock(vm);
	while (c->at == end_of(c) && !events_ended(vm) && !over)
		over = !events_wait(vm, deadline);
	n = MIN(size, end_of(c) - c->at);
	if (n)
		memcpy(buf, text_at(c, c->at), n);
	else if (over)
		n = error_set(err, -ETIMEDOUT, "%s: the guest says nothing", c->chr.obj.id);
	if (n > 0)
		c->at += n;
	events_unlock(vm);
	return n;
}

static size_t queue_input(struct hako_console *c, const char *buf, size_t len)
{
	size_t at = (c->in_head + c->in_len) % INPUT;
	size_t n = MIN(len, MIN(INPUT - c->in_len, INPUT - at));

	memcpy(c->in + at, buf, n);
	c->in_len += n;
	return n;
}

int hako_console_write(struct hako_console *c, const void *buf, size_t len, int timeout_ms,
		       struct hako_error *err)
{
	uint64_t deadline = deadline_in(timeout_ms);
	struct vm *vm = c->chr.obj.vm;
	size_t done = 0, n;
	int r = 0;

	events_lock(vm);
	while (done < len && !r) {
		n = queue_input(c, (const char *)buf + done, len - done);
		done += n;
		if (events_ended(vm))
			r = ended(c, err);
		else if (n)
			loop_post(vm->io_loop, &c->in_msg);
		else if (!events_wait(vm, deadline))
			r = error_set(err, -ETIMEDOUT, "%s: the guest has taken %zu bytes of %zu",
				      c->chr.obj.id, done, len);
	}
	events_unlock(vm);
	return r;
}

char *hako_console_transcript(struct hako_console *c, size_t *len)
{
	struct vm *vm = c->chr.obj.vm;
	char *copy;

	events_lock(vm);
	copy = malloc(c->len + 1);
	if (copy) {
		if (c->len)
			memcpy(copy, c->text, c->len);
		copy[c->len] = 0;
		if (len)
			*len = c->len;
	}
	events_unlock(vm);
	return copy;
}

/* --- expect ------------------------------------------------------------------------------------ */

struct search {
	const char *pattern;
	bool regex;
	regex_t re;
	uint64_t from;	     /* nothing before that can be part of a match */
	uint64_t begin, end; /* of the match */
};

static bool find_string(const struct hako_console *c, struct search *s)
{
	size_t len = strlen(s->pattern), have = end_of(c) - s->from;
	const char *p = have ? memmem(text_at(c, s->from), have, s->pattern, len) : NULL;

	if (!p) {
		s->from += have >= len ? have - len + 1 : 0;
		return false;
	}
	s->begin = c->base + (p - c->text);
	s->end = s->begin + len;
	return true;
}

/* The line at s->from, as far as it is there: its end, and where the next one begins (0: it is not complete). */
static uint64_t cut_line(const struct hako_console *c, const struct search *s, uint64_t *next)
{
	size_t have = MIN(end_of(c) - s->from, MAX_LINE);
	const char *p = have ? memchr(text_at(c, s->from), '\n', have) : NULL;
	uint64_t end = p ? c->base + (p - c->text) : s->from + have;

	*next = p ? end + 1 : have == MAX_LINE ? end : 0;
	while (p && end > s->from && *text_at(c, end - 1) == '\r')
		end--;
	return end;
}

static bool find_regex(const struct hako_console *c, struct search *s)
{
	for (;;) {
		bool bol = s->from == 0 || (s->from > c->base && *text_at(c, s->from - 1) == '\n');
		uint64_t next, end = cut_line(c, s, &next);
		regmatch_t m = {0, end - s->from};

		if (!next && !m.rm_eo)
			return false;
		if (regexec(&s->re, text_at(c, s->from), 1, &m,
			    REG_STARTEND | (bol ? 0 : REG_NOTBOL) | (next ? 0 : REG_NOTEOL)) == 0) {
			s->begin = s->from + m.rm_so;
			s->end = s->from + m.rm_eo;
			return true;
		}
		if (!next)
			return false;
		s->from = next;
	}
}

/* A match ends a wait also if it ends it at once, before there is time for more. */
static int search(struct hako_console *c, struct search *s, uint64_t deadline)
{
	struct vm *vm = c->chr.obj.vm;

	s->from = c->at;
	for (;;) {
		s->from = MAX(s->from, c->base);
		if (s->regex ? find_regex(c, s) : find_string(c, s))
			return 0;
		if (events_ended(vm))
			return -ESHUTDOWN;
		if (!events_wait(vm, deadline))
			return -ETIMEDOUT;
	}
}

static char *copy_text(const struct hako_console *c, uint64_t from, uint64_t to)
{
	char *copy = malloc(to - from + 1);

	if (!copy)
		return NULL;
	if (to > from)
		memcpy(copy, text_at(c, from), to - from);
	copy[to - from] = 0;
	return copy;
}

/* With the end of what the guest said, which is most of the time the reason. */
static int not_found(const struct hako_console *c, const char *pattern, int code,
		     struct hako_error *err)
{
	size_t end = c->len, at, n = 0;
	char line[QUOTED + 1];
	const char *what;

	while (end && (c->text[end - 1] == '\n' || c->text[end - 1] == '\r'))
		end--;
	for (at = end; at && end - at < QUOTED && c->text[at - 1] != '\n'; at--)
		;
	for (; at < end; at++)
		line[n++] = (uint8_t)c->text[at] < ' ' ? ' ' : c->text[at];
	line[n] = 0;
	what = code == -ETIMEDOUT ? "has not come in time" : "has not come, and the VM has ended";
	return error_set(err, code, "%s: \"%.200s\" %s; the last line is \"%s\"", c->chr.obj.id,
			 pattern, what, line);
}

static int compile(struct search *s, struct hako_error *err)
{
	char why[128];
	int r = regcomp(&s->re, s->pattern, REG_EXTENDED | REG_NEWLINE);

	if (!r)
		return 0;
	regerror(r, &s->re, why, sizeof(why));
	return error_set(err, -EINVAL, "\"%.200s\": %s", s->pattern, why);
}

static int expect(struct hako_console *c, struct search *s, uint64_t deadline, char **before,
		  char **match, struct hako_error *err)
{
	int r = search(c, s, deadline);

	if (before)
		*before = copy_text(c, c->at, r ? end_of(c) : s->begin);
	if (match && !r)
		*match = copy_text(c, s->begin, s->end);
	if (r)
		return not_found(c, s->pattern, r, err);
	if ((before && !*before) || (match && !*match))
		return error_errno(err, -ENOMEM, "%s", c->chr.obj.id);
	c->at = s->end;
	return 0;
}

int hako_console_expect(struct hako_console *c, const char *pattern, unsigned int flags,
			int timeout_ms, char **before, char **match, struct hako_error *err)
{
	struct search s = {.pattern = pattern, .regex = flags & HAKO_EXPECT_REGEX};
	uint64_t deadline = deadline_in(timeout_ms);
	int r;

	if (before)
		*before = NULL;
	if (match)
		*match = NULL;
	if (!*pattern || flags & ~HAKO_EXPECT_REGEX)
		return error_set(err, -EINVAL, *pattern ? "unknown flags" : "an empty pattern");
	r = s.regex ? compile(&s, err) : 0;
	if (r)
		return r;
	events_lock(c->chr.obj.vm);
	r = expect(c, &s, deadline, before, match, err);
	events_unlock(c->chr.obj.vm);
	if (s.regex)
		regfree(&s.re);
	return r;
}
