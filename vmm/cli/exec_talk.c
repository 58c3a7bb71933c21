/* SPDX-License-Identifier: GPL-2.0-only */
/* hako exec: between this process's descriptors and signals and those of the command in the guest. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exec.h"
#include "terminal.h"

#define TAIL_BYTES 16384 /* of the console, for the case that it matters */
#define TAIL_LINES 60
#define PATIENCE   3	/* signals of a kind, until the VM is ended by force */
#define ESCAPE	   0x1d /* Ctrl-] */
#define ESCAPES	   3	/* of them within a second end the VM */

extern char **environ;

/* One direction of data, with what has been read but not yet written. */
struct stream {
	int from, to; /* -1: ended */
	size_t at, len, piece;
	uint64_t total; /* read */
	char buf[65536];
};

struct talk {
	struct hako_vm *vm;
	struct exec_lines *lines;
	bool verbose;
	struct stream in, out, err;
	char *pending; /* for the control port */
	size_t pending_at, pending_len, pending_cap;
	struct exec_report report;
	size_t report_len;
	bool started, ended; /* ended: report tells how */
	bool raw;
	int signal_fd, stopped_by;
	unsigned int signals[_NSIG], escapes;
	uint64_t escape_time;
	char tail[TAIL_BYTES];
	size_t tail_len;
};

/* --- to the guest ------------------------------------------------------------------------------ */

static int send_control(struct talk *t, const void *data, size_t len)
{
	if (t->pending_len + len > t->pending_cap) {
		size_t cap = t->pending_len + len + 4096;
		char *p = realloc(t->pending, cap);

		if (!p)
			return -ENOMEM;
		t->pending = p;
		t->pending_cap = cap;
	}
	memcpy(t->pending + t->pending_len, data, len);
	t->pending_len += len;
	return 0;
}

static void send_event(struct talk *t, uint32_t type, uint16_t a, uint16_t b)
{
	const struct exec_event e = {type, a, b};

	send_control(t, &e, sizeof(e));
}

static void flush_control(struct talk *t)
{
	/* SIGPIPE is ignored; a confined thread may write, not send. */
	ssize_t n = write(t->lines->control, t->pending + t->pending_at,
			  t->pending_len - t->pending_at);

	if (n > 0)
		t->pending_at += n;
	if (t->pending_at == t->pending_len)
		t->pending_at = t->pending_len = 0;
}

static struct winsize window(void)
{
	struct winsize size = {24, 80, 0, 0};

	for (int fd = 0; fd < 3; fd++)
		if (ioctl(fd, TIOCGWINSZ, &size) == 0)
			break;
	return size;
}

static uint32_t send_texts(struct talk *t, char **texts, int *failed)
{
	uint32_t n = 0;

	for (; texts && texts[n]; n++)
		*failed |= send_control(t, texts[n], strlen(texts[n]) + 1);
	return n;
}

static int send_job(struct talk *t, const struct exec_command *c, struct hako_error *err)
{
	struct winsize size = window();
	struct exec_job job = {.rows = size.ws_row, .columns = size.ws_col};
	int failed = send_control(t, &job, sizeof(job));

	for (int fd = 0; fd < 3; fd++)
		job.terminal |= isatty(fd) ? BIT(fd) : 0;
	t->raw = job.terminal & 1;
	failed |= send_control(t, c->cwd, strlen(c->cwd) + 1);
	job.root_disk = c->root_disk;
	job.nshares = send_texts(t, c->share, &failed);
	job.argc = send_texts(t, c->argv, &failed);
	job.envc = send_texts(t, environ, &failed);
	job.size = t->pending_len;
	if (failed)
		return error_errno(err, -ENOMEM, "arguments");
	if (t->pending_len > EXEC_JOB_MAX)
		return error_errno(err, -E2BIG, "arguments and environment");
	memcpy(t->pending, &job, sizeof(job));
	return 0;
}

/* --- from the guest ---------------------------------------------------------------------------- */

static void read_control(struct talk *t)
{
	ssize_t n = read(t->lines->control, (char *)&t->report + t->report_len,
			 sizeof(t->report) - t->report_len);

	if (n <= 0)
		return;
	t->report_len += n;
	if (t->report_len < sizeof(t->report))
		return;
	t->report_len = 0;
	t->report.text[sizeof(t->report.text) - 1] = 0;
	t->started = true;
	t->ended = t->report.type != EXEC_STARTED;
}

static void read_console(struct talk *t)
{
	char buf[1024];
	ssize_t n = read(t->lines->console, buf, sizeof(buf));
	size_t drop;

	if (n <= 0)
		return;
	if (t->verbose)
		write_all(STDERR_FILENO, buf, n);
	drop = t->tail_len + n > TAIL_BYTES ? t->tail_len + n - TAIL_BYTES : 0;
	memmove(t->tail, t->tail + drop, t->tail_len - drop);
	memcpy(t->tail + t->tail_len - drop, buf, n);
	t->tail_len += n - drop;
}

/* --- data -------------------------------------------------------------------------------------- */

/* A pipe or terminal that is ready takes so much without waiting. */
static size_t piece_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) ? 65536 : 4096;
}

static void read_stream(struct stream *s)
{
	ssize_t n = read(s->from, s->buf, sizeof(s->buf));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		s->from = -1;
		return;
	}
	s->at = 0;
	s->len = n;
	s->total += n;
}

/* False: nobody reads it any more. */
static bool write_stream(struct stream *s)
{
	ssize_t n = write(s->to, s->buf + s->at, MIN(s->len, s->piece));

	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	s->at += n;
	s->len -= n;
	return true;
}

/* An output, from a socket to one of our descriptors. When that is closed the command learns it. */
static void carry_output(struct stream *s, int *line, short from, short to)
{
	if (s->len && to && !write_stream(s)) {
		s->len = 0;
		s->from = s->to = -1;
		close(*line);
		*line = -1;
	} else if (!s->len && from) {
		read_stream(s);
	}
}

/* Keys pass by here on their way; three Ctrl-] within a second are for us. */
static void look_for_escape(struct talk *t)
{
	for (size_t i = 0; i < t->in.len; i++) {
		uint64_t now = clock_now();

		if (t->in.buf[i] != ESCAPE || now - t->escape_time > NSEC_PER_SEC) {
			t->escapes = 0;
			t->escape_time = now;
		}
		if (t->in.buf[i] == ESCAPE && ++t->escapes == ESCAPES)
			hako_vm_stop(t->vm, NULL);
	}
}

static void carry_input(struct talk *t, short from, short to)
{
	struct stream *s = &t->in;

	if (s->len && to) {
		if (!write_stream(s))
			s->len = 0;
	} else if (!s->len && from) {
		read_stream(s);
		if (t->raw)
			look_for_escape(t);
	}
	/* The end of input is the end of the connection, once the guest has seen that there is one. */
	if (s->from < 0 && !s->len && t->started && t->lines->in >= 0) {
		close(t->lines->in);
		t->lines->in = s->to = -1;
	}
}

/* --- signals ----------------------------------------------------------------------------------- */

static void take_signals(struct talk *t)
{
	static const int sigs[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGWINCH};
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaddset(&set, sigs[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	t->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void pass_signal(struct talk *t)
{
	struct signalfd_siginfo si;
	struct winsize size;
	bool deadly;

	if (read(t->signal_fd, &si, sizeof(si)) != sizeof(si))
		return;
	if (si.ssi_signo == SIGWINCH) {
		size = window();
		send_event(t, EXEC_RESIZE, size.ws_row, size.ws_col);
		return;
	}
	deadly = si.ssi_signo != SIGUSR1 && si.ssi_signo != SIGUSR2;
	/* Nobody is there to take it yet, or he does not heed it. */
	if (deadly && (!t->started || ++t->signals[si.ssi_signo] >= PATIENCE)) {
		t->stopped_by = si.ssi_signo;
		hako_vm_stop(t->vm, NULL);
		return;
	}
	send_event(t, EXEC_SIGNAL, si.ssi_signo, 0);
}

/* --- the whole --------------------------------------------------------------------------------- */

static bool all_here(const struct talk *t)
{
	return t->ended && !t->out.len && !t->err.len &&
	       (t->out.from < 0 || t->out.total >= t->report.out_bytes) &&
	       (t->err.from < 0 || t->err.total >= t->report.err_bytes);
}

static void watch(struct pollfd *p, const struct stream *s)
{
	p[0] = (struct pollfd){.fd = s->len ? -1 : s->from, .events = POLLIN};
	p[1] = (struct pollfd){.fd = s->len ? s->to : -1, .events = POLLOUT};
}

/* Until the command has ended and all it wrote is here, or the VM has. */
static void talk(struct talk *t)
{
	struct pollfd p[10];

	do {
		watch(p, &t->in);
		watch(p + 2, &t->out);
		watch(p + 4, &t->err);
		p[6] = (struct pollfd){.fd = t->lines->control,
				       .events = POLLIN | (t->pending_len ? POLLOUT : 0)};
		p[7] = (struct pollfd){.fd = t->lines->console, .events = POLLIN};
		p[8] = (struct pollfd){.fd = t->signal_fd, .events = POLLIN};
		p[9] = (struct pollfd){.fd = hako_vm_end_fd(t->vm), .events = POLLIN};
		if (poll(p, ARRAY_SIZE(p), -1) < 0)
			continue;
		if (p[6].revents & POLLOUT)
			flush_control(t);
		if (p[6].revents & (POLLIN | POLLHUP))
			read_control(t);
		if (p[7].revents)
			read_console(t);
		if (p[8].revents)
			pass_signal(t);
		carry_input(t, p[0].revents, p[1].revents);
		carry_output(&t->out, &t->lines->out, p[2].revents, p[3].revents);
		carry_output(&t->err, &t->lines->err, p[4].revents, p[5].revents);
	} while (!all_here(t) && !(p[9].revents & POLLIN));
}

/* What is still on its way after the VM's end. */
static void drain(struct talk *t)
{
	struct pollfd p[3];
	int ready;

	do {
		p[0] = (struct pollfd){.fd = t->out.from, .events = POLLIN};
		p[1] = (struct pollfd){.fd = t->err.from, .events = POLLIN};
		p[2] = (struct pollfd){.fd = t->lines->console, .events = POLLIN};
		ready = poll(p, 3, 0);
		while (t->out.len && write_stream(&t->out))
			;
		while (t->err.len && write_stream(&t->err))
			;
		if (p[0].revents & POLLIN)
			read_stream(&t->out);
		if (p[1].revents & POLLIN)
			read_stream(&t->err);
		if (p[2].revents & POLLIN)
			read_console(t);
	} while (ready > 0 && ((p[0].revents | p[1].revents | p[2].revents) & POLLIN));
}

static void print_tail(const struct talk *t)
{
	size_t at = t->tail_len;

	if (t->verbose || !t->tail_len)
		return;
	for (int lines = 0; at && lines <= TAIL_LINES; at--)
		lines += t->tail[at - 1] == '\n' && at != t->tail_len;
	at += at ? 2 : 0; /* behind the last newline that was counted */
	fprintf(stderr, "hako: exec: the guest's last words:\n");
	write_all(STDERR_FILENO, t->tail + at, t->tail_len - at);
	if (t->tail[t->tail_len - 1] != '\n')
		fputc('\n', stderr);
}

static int result(struct talk *t)
{
	const struct exec_report *r = &t->report;
	struct hako_exit_info info;

	if (t->ended && r->type == EXEC_EXITED)
		return r->value;
	if (t->ended) {
		fprintf(stderr, "hako: exec: %s: %s\n", r->text, strerror(r->value));
		if (r->type == EXEC_REFUSED)
			return r->value == ENOENT ? EXEC_STATUS_NOT_FOUND
						  : EXEC_STATUS_NOT_EXECUTABLE;
		print_tail(t);
		return EXEC_STATUS_FAILED;
	}
	if (t->stopped_by) {
		/* Why did somebody lose patience? */
		if (!t->started)
			print_tail(t);
		return 128 + t->stopped_by;
	}
	if (hako_vm_wait(t->vm, 0, &info, NULL))
		return EXEC_STATUS_FAILED;
	fprintf(stderr, "hako: exec: the guest ended before the command: %s\n", info.message);
	print_tail(t);
	return EXEC_STATUS_FAILED;
}

static void stream_init(struct stream *s, int from, int to)
{
	s->from = from;
	s->to = to;
	s->piece = piece_of(to);
}

int exec_talk(struct hako_vm *vm, struct exec_lines *lines, const struct exec_command *command,
	      enum sandbox_mode sandbox, bool verbose)
{
	struct talk *t = calloc(1, sizeof(*t));
	struct hako_error err;
	int ret, status;

	if (!t)
		return error_errno(&err, -ENOMEM, "exec"), cli_fail(&err), EXEC_STATUS_FAILED;
	t->vm = vm;
	t->lines = lines;
	t->verbose = verbose;
	stream_init(&t->in, STDIN_FILENO, lines->in);
	stream_init(&t->out, lines->out, STDOUT_FILENO);
	stream_init(&t->err, lines->err, STDERR_FILENO);
	take_signals(t);
	ret = t->signal_fd < 0 ? error_errno(&err, -errno, "signals") : send_job(t, command, &err);
	if (!ret && t->raw)
		ret = terminal_raw(false, &err);
	if (!ret) /* the terminal is the program's here, and no device's */
		ret = cli_confine(vm, sandbox, SANDBOX_TERMINAL, NULL, &err);
	if (!ret)
		ret = hako_vm_start(vm, &err);
	if (!ret) {
		talk(t);
		drain(t);
	}
	terminal_restore();
	if (ret)
		cli_fail(&err);
	status = ret ? EXEC_STATUS_FAILED : result(t);
	free(t->pending);
	free(t);
	return status;
}
