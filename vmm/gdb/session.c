/* SPDX-License-Identifier: GPL-2.0-only */
#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86/debug.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

/* GDB's numbers of signals. */
#define SIGNAL_INT  2
#define SIGNAL_TRAP 5

/* --- answers --------------------------------------------------------------------------------------- */

void gdb_say_bytes(struct gdb_session *s, const void *bytes, size_t len)
{
	len = MIN(len, GDB_PACKET_MAX - s->reply_len);
	memcpy(s->reply + s->reply_len, bytes, len);
	s->reply_len += len;
}

void gdb_say(struct gdb_session *s, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	gdb_say_bytes(s, text, MIN(MAX(n, 0), (int)sizeof(text) - 1));
}

void gdb_say_hex(struct gdb_session *s, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++)
		gdb_say_bytes(s, (char[]){digits[p[i] >> 4], digits[p[i] & 15]}, 2);
}

void gdb_say_result(struct gdb_session *s, int r)
{
	if (r)
		gdb_say(s, "E%02x", -r & 0xff);
	else
		gdb_say(s, "OK");
}

static void send_bytes(struct gdb_session *s, const char *bytes, size_t len)
{
	if (len > sizeof(s->out) - s->out_len)
		return;
	memcpy(s->out + s->out_len, bytes, len);
	s->out_len += len;
}

static void send_reply(struct gdb_session *s)
{
	s->frame_len = gdb_frame(s->frame, s->reply, s->reply_len);
	s->reply_len = 0;
	s->silent = true;
	send_bytes(s, s->frame, s->frame_len);
}

/* --- stops ----------------------------------------------------------------------------------------- */

static void say_stop(struct gdb_session *s, unsigned int n, unsigned int signal)
{
	const struct vcpu_debug *d = &s->vm->vcpu[n].debug;

	gdb_say(s, "T%02x", d->stop ? SIGNAL_TRAP : signal);
	if (d->stop == VCPU_STOP_SOFTWARE && s->swbreak)
		gdb_say(s, "swbreak:;");
	else if (d->stop == VCPU_STOP_HARDWARE && s->hwbreak)
		gdb_say(s, "hwbreak:;");
	else if (d->stop == VCPU_STOP_WATCH || d->stop == VCPU_STOP_ACCESS)
		gdb_say(s, "%s:%llx;", d->stop == VCPU_STOP_WATCH ? "watch" : "awatch",
			(unsigned long long)d->addr);
	gdb_say(s, "thread:%x;", n + 1);
}

/*
 * Several vCPUs may have come to a stop. One is told of. A breakpoint will be met again, unless GDB removes it, and a step need not be told of once
 * something else was; but what a watchpoint has seen waits for its turn.
 */
static void report(struct gdb_session *s, unsigned int signal)
{
	struct vm *vm = s->vm;
	unsigned int chosen = s->current;

	for (unsigned int i = vm->nvcpus; i-- > 0;)
		if (vm->vcpu[i].debug.stop)
			chosen = i;
	say_stop(s, chosen, signal);
	vm->vcpu[chosen].debug.stop = VCPU_STOP_NONE;
	for (unsigned int i = 0; i < vm->nvcpus; i++) {
		enum vcpu_stop *stop = &vm->vcpu[i].debug.stop;

		if (*stop != VCPU_STOP_WATCH && *stop != VCPU_STOP_ACCESS)
			*stop = VCPU_STOP_NONE;
	}
	s->current = chosen;
	s->step_vcpu = -1;
	s->waiting = s->interrupted = false;
	send_reply(s);
}

static void go_on(struct gdb_session *s)
{
	for (unsigned int i = 0; i < s->vm->nvcpus; i++) {
		struct vcpu *v = &s->vm->vcpu[i];

		v->debug.run = true;
		v->debug.step = false;
		v->debug.stop = VCPU_STOP_NONE;
		debug_arm(v);
	}
	s->stopped = false;
	vcpus_release(s->vm);
}

/* As if no debugger had ever been there. */
static void leave(struct gdb_session *s)
{
	s->attached = s->leaving = false;
	debug_remove_all(s->vm);
	go_on(s);
}

void gdb_session_held(struct gdb_session *s)
{
	s->stopped = true;
	if (s->leaving && !s->waiting)
		return leave(s);
	if (s->leaving)
		debug_remove_all(s->vm);
	s->leaving = false;
	if (s->waiting)
		report(s, s->interrupted ? SIGNAL_INT : SIGNAL_TRAP);
}

/* Have GDB told once all are held. */
static void stop_all(struct gdb_session *s, bool interrupt)
{
	s->attached = s->waiting = s->silent = true;
	s->interrupted = interrupt;
	if (s->stopped)
		gdb_session_held(s);
	else
		vcpus_hold(s->vm);
}

static void detach(struct gdb_session *s)
{
	if (!s->attached)
		return;
	s->waiting = false;
	s->leaving = true;
	if (s->stopped)
		leave(s);
	else
		vcpus_hold(s->vm);
}

/* --- running --------------------------------------------------------------------------------------- */

int gdb_thread(struct gdb_session *s, const char **p)
{
	uint64_t n;

	if (!strncmp(*p, "-1", 2)) {
		*p += 2;
		return -1;
	}
	if (!gdb_hex(p, &n) || n > s->vm->nvcpus)
		return -2;
	return (int)n - 1;
}

/* debug.run and debug.step are set. */
static void resume(struct gdb_session *s)
{
	struct vm *vm = s->vm;
	int r = -EINVAL;

	for (unsigned int i = 0; i < vm->nvcpus; i++) {
		if (vm->vcpu[i].debug.stop) {
			s->waiting = true;
			return report(s, SIGNAL_TRAP);
		}
		if (vm->vcpu[i].debug.run)
			r = r == -EINVAL ? 0 : r;
	}
	for (unsigned int i = 0; i < vm->nvcpus && !r; i++)
		r = debug_arm(&vm->vcpu[i]);
	if (r) {
		gdb_say_result(s, r);
		return;
	}
	s->stopped = false;
	s->waiting = s->silent = true;
	vcpus_release(vm);
}

/* The first action that fits a vCPU counts. */
void gdb_vcont(struct gdb_session *s, const char *p)
{
	struct vm *vm = s->vm;

	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vm->vcpu[i].debug.run = vm->vcpu[i].debug.step = false;
	while (*p == ';') {
		char action = *++p;
		int thread = -1;
		uint64_t signal;

		if (!action || !strchr("cCsS", action))
			return gdb_say_result(s, -EINVAL);
		p++;
		if ((action == 'C' || action == 'S') && !gdb_hex(&p, &signal))
			return gdb_say_result(s, -EINVAL);
		if (*p == ':') {
			p++;
			thread = gdb_thread(s, &p);
		}
		if (thread < -1)
			return gdb_say_result(s, -EINVAL);
		for (unsigned int i = 0; i < vm->nvcpus; i++) {
			struct vcpu_debug *d = &vm->vcpu[i].debug;

			if (d->run || (thread >= 0 && (unsigned int)thread != i))
				continue;
			d->run = true;
			d->step = action == 's' || action == 'S';
		}
	}
	if (*p)
		return gdb_say_result(s, -EINVAL);
	resume(s);
}

/* "c", "s", with an address behind it perhaps, which GDB does not use. */
static void resume_simple(struct gdb_session *s, const char *p)
{
	for (unsigned int i = 0; i < s->vm->nvcpus; i++) {
		struct vcpu_debug *d = &s->vm->vcpu[i].debug;
		bool chosen = s->step_vcpu < 0 ? i == s->current : i == (unsigned int)s->step_vcpu;

		d->run = true;
		d->step = *p == 's' && chosen;
	}
	if (p[1])
		gdb_say_result(s, -EINVAL);
	else
		resume(s);
}

/* --- registers and breakpoints --------------------------------------------------------------------- */

static void read_regs(struct gdb_session *s, const char *p)
{
	uint8_t regs[DEBUG_REGS_BYTES];
	unsigned int offset = 0, len = debug_regs_len();
	uint64_t n;
	int r;

	if (*p == 'p') {
		p++;
		if (!gdb_hex(&p, &n) || *p || n > UINT16_MAX || !debug_reg_place(n, &offset, &len))
			return gdb_say_result(s, -EINVAL);
	}
	r = debug_read_regs(&s->vm->vcpu[s->current], regs);
	if (r)
		gdb_say_result(s, r);
	else
		gdb_say_hex(s, regs + offset, len);
}

static void write_regs(struct gdb_session *s, const char *p)
{
	struct vcpu *v = &s->vm->vcpu[s->current];
	unsigned int offset = 0, len = debug_regs_len();
	uint8_t regs[DEBUG_REGS_BYTES];
	bool one = *p++ == 'P';
	uint64_t n;
	int r;

	if (one && (!gdb_hex(&p, &n) || *p++ != '=' || n > UINT16_MAX ||
		    !debug_reg_place(n, &offset, &len)))
		return gdb_say_result(s, -EINVAL);
	r = debug_read_regs(v, regs);
	if (!r)
		r = gdb_hex_bytes(p, regs + offset, len) ? debug_write_regs(v, regs) : -EINVAL;
	gdb_say_result(s, r);
}

/* "Z0,ADDR,LEN"; conditions and commands behind that are not offered. */
static void change_point(struct gdb_session *s, const char *p)
{
	struct vcpu *v = &s->vm->vcpu[s->current];
	bool add = *p++ == 'Z';
	char kind = *p++;
	uint64_t addr, len;

	if (!kind || !strchr("0124", kind))
		return; /* unknown to us: an empty answer */
	if (*p++ != ',' || !gdb_hex(&p, &addr) || *p++ != ',' || !gdb_hex(&p, &len) || *p)
		return gdb_say_result(s, -EINVAL);
	gdb_say_result(s, add ? debug_add(v, kind - '0', addr, len)
			      : debug_remove(v, kind - '0', addr, len));
}

static void choose_thread(struct gdb_session *s, const char *p)
{
	char what = p[1];
	int thread;

	p += what ? 2 : 1;
	thread = gdb_thread(s, &p);
	if (thread < -1 || *p || (what != 'g' && what != 'c'))
		return gdb_say_result(s, -EINVAL);
	if (what == 'c')
		s->step_vcpu = thread;
	else if (thread >= 0)
		s->current = thread;
	gdb_say_result(s, 0);
}

void gdb_kill(struct gdb_session *s)
{
	vm_request(s->vm, VM_REQUEST_STOP, 0);
}

/* --- packets --------------------------------------------------------------------------------------- */

/* What the guest has to be stopped for. */
static void command_stopped(struct gdb_session *s, const char *p)
{
	switch (*p) {
	case 'g':
	case 'p':
		read_regs(s, p);
		break;
	case 'G':
	case 'P':
		write_regs(s, p);
		break;
	case 'm':
		gdb_read_memory(s, p + 1);
		break;
	case 'M':
	case 'X':
		gdb_write_memory(s, p + 1, *p == 'X');
		break;
	case 'Z':
	case 'z':
		change_point(s, p);
		break;
	case 'c':
	case 's':
		resume_simple(s, p);
		break;
	}
}

static bool thread_lives(const struct gdb_session *s, const char *p)
{
	uint64_t n;

	return gdb_hex(&p, &n) && n - 1 < s->vm->nvcpus;
}

static void command(struct gdb_session *s, const char *p)
{
	switch (*p) {
	case '?':
		stop_all(s, false);
		break;
	case 'D':
		detach(s);
		gdb_say_result(s, 0);
		break;
	case 'k':
		s->silent = true;
		gdb_kill(s);
		break;
	case 'H':
		choose_thread(s, p);
		break;
	case 'T':
		gdb_say_result(s, thread_lives(s, p + 1) ? 0 : -ESRCH);
		break;
	case 'q':
	case 'Q':
	case 'v':
		gdb_query(s, p);
		break;
	default:
		if (s->stopped)
			command_stopped(s, p);
		else
			gdb_say_result(s, -EBUSY);
	}
}

static void packet(struct gdb_session *s)
{
	s->reply_len = 0;
	s->silent = false;
	command(s, s->reader.data);
	if (!s->silent)
		send_reply(s);
}

void gdb_session_take(struct gdb_session *s, uint8_t byte)
{
	enum gdb_event event = gdb_reader_take(&s->reader, byte);

	switch (event) {
	case GDB_NOTHING:
	case GDB_ACK:
		break;
	case GDB_NAK:
		if (!s->no_ack)
			send_bytes(s, s->frame, s->frame_len);
		break;
	case GDB_INTERRUPT:
		if (s->waiting)
			stop_all(s, true);
		break;
	case GDB_BAD:
		if (!s->no_ack)
			send_bytes(s, "-", 1);
		break;
	case GDB_TOO_LONG:
	case GDB_PACKET:
		if (!s->no_ack)
			send_bytes(s, "+", 1);
		if (event == GDB_PACKET) {
			packet(s);
		} else {
			gdb_say_result(s, -E2BIG);
			send_reply(s);
		}
	}
}

/* --- the connection and the VM --------------------------------------------------------------------- */

int gdb_session_init(struct gdb_session *s, struct vm *vm)
{
	s->vm = vm;
	s->step_vcpu = -1;
	s->xml = debug_target_xml();
	return s->xml ? 0 : -ENOMEM;
}

void gdb_session_free(struct gdb_session *s)
{
	free(s->xml);
}

void gdb_session_open(struct gdb_session *s)
{
	memset(&s->reader, 0, sizeof(s->reader));
	s->reply_len = s->frame_len = s->out_len = 0;
	s->no_ack = s->swbreak = s->hwbreak = s->physical = false;
	s->current = 0;
	s->step_vcpu = -1;
}

void gdb_session_close(struct gdb_session *s)
{
	detach(s);
	s->waiting = false;
	s->out_len = 0;
}

void gdb_session_end(struct gdb_session *s)
{
	if (!s->waiting)
		return;
	s->waiting = false;
	gdb_say(s, "W00");
	send_reply(s);
}
