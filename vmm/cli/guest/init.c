/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Process 1 of hako exec's guests: mounts the host's files, runs one command, carries its input, output, signals and status, and ends the
 * machine. A static program without a C library, so that it is small and starts at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

#include "../exec_proto.h"
#include "sys.h"
#include "text.h"

#define WAIT_TURNS 10000 /* of a millisecond or more, for the ports of the host */
#define DEVICES	   32	 /* of virtio, where they may be */
#define MODULES	   "/modules"
#define P9_OPTIONS "trans=virtio,version=9p2000.L,msize=512000,access=any"

/* One direction of data, with what has been read but not yet written. */
struct stream {
	int from, to; /* -1: ended; of `to`: what is read is lost */
	uint32_t at, len;
	uint64_t total; /* written */
	char buf[65536];
};

static struct {
	int control;
	int port_in, port_out, port_err;
	char *job_text;
	struct exec_job job;
	char **argv, **envp;
	const char *cwd;
	int pty; /* -1: none */
	long child;
	int sigfd;
	struct stream in, out, err;
	char event[sizeof(struct exec_event)];
	uint32_t event_len;
} g;

/* --- small things ------------------------------------------------------------------------------ */

static void sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};

	sys_nanosleep(&ts);
}

static void write_all(int fd, const void *buf, size_t len)
{
	const char *p = buf;

	while (len) {
		long n = sys_write(fd, p, len);

		if (n == -EAGAIN) {
			sleep_ms(1);
			continue;
		}
		if (n <= 0)
			return;
		p += n;
		len -= n;
	}
}

static void say(const char *text)
{
	write_all(2, text, length(text));
}

static void report(uint32_t type, uint32_t value, const char *text)
{
	struct exec_report r = {type, value, g.out.total, g.err.total, ""};

	append(r.text, r.text + sizeof(r.text), text);
	if (g.control >= 0)
		write_all(g.control, &r, sizeof(r));
}

static void __attribute__((noreturn)) power_off(void)
{
	sys_sync();
	sys_reboot(LINUX_REBOOT_CMD_POWER_OFF);
	for (;;)
		sleep_ms(1000);
}

/* What keeps the command from running. */
struct refusal {
	int32_t code;
	bool directory;
};

static void __attribute__((noreturn)) fail(long code, const char *what, const char *which)
{
	const char *text = join(what, which);

	say("hako exec: ");
	say(text);
	say("\n");
	report(EXEC_FAILED, -code, text);
	power_off();
}

/* --- coming up --------------------------------------------------------------------------------- */

static void load_modules(void)
{
	static char list[65536];
	int fd = sys_open(MODULES, O_RDONLY, 0), module;
	long n = fd < 0 ? 0 : sys_read(fd, list, sizeof(list) - 1), r;
	char *name = list;

	sys_close(fd);
	for (long i = 0; i < n; i++) {
		if (list[i] != '\n')
			continue;
		list[i] = 0;
		module = sys_open(name, O_RDONLY | O_CLOEXEC, 0);
		r = module < 0 ? module : sys_finit_module(module, "", 0);
		if (r < 0 && r != -EEXIST) {
			say("hako exec: cannot load ");
			say(name);
			say("\n");
		}
		sys_close(module);
		name = list + i + 1;
	}
}

/* Which of the virtio devices has the host's ports: its number. */
static uint32_t find_ports(void)
{
	static const char name[] = EXEC_PORT_NAME;
	char text[sizeof(name)];

	for (int turn = 0; turn < WAIT_TURNS; turn++) {
		for (uint32_t n = 0; n < DEVICES; n++) {
			char *path = join(join("/sys/class/virtio-ports/", numbered("vport", n)),
					  "p1/name");
			int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
			long len = fd < 0 ? 0 : sys_read(fd, text, sizeof(text));
			size_t i = 0;

			sys_close(fd);
			while (i < sizeof(name) - 1 && text[i] == name[i])
				i++;
			if (len >= (long)sizeof(name) - 1 && i == sizeof(name) - 1)
				return n;
		}
		sleep_ms(1);
	}
	say("hako exec: this guest has no ports of the host's\n");
	power_off();
}

/* A port of the host's, once the host is at its other end. */
static int open_port(uint32_t device, uint32_t nr)
{
	char *path = join(join("/dev/", numbered("vport", device)), numbered("p", nr));
	struct pollfd p = {.fd = -1, .events = POLLIN | POLLOUT};

	for (int turn = 0; turn < WAIT_TURNS; turn++) {
		if (p.fd < 0)
			p.fd = sys_open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC, 0);
		p.revents = 0;
		if (p.fd >= 0 && sys_poll(&p, 1, 0) >= 0 && !(p.revents & POLLHUP))
			return p.fd;
		sleep_ms(1);
	}
	say("hako exec: there is no ");
	say(path);
	say("\n");
	power_off();
}

static void read_exactly(int fd, void *buf, size_t len)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char *at = buf;

	while (len) {
		long n = sys_read(fd, at, len);

		if (n == -EAGAIN) {
			sys_poll(&p, 1, -1);
			continue;
		}
		if (n <= 0)
			power_off(); /* nobody is there any more */
		at += n;
		len -= n;
	}
}

static char *next_text(char **at)
{
	char *text = *at;

	*at += length(text) + 1;
	return text;
}

static void read_job(void)
{
	char *at;
	long room;

	read_exactly(g.control, &g.job, sizeof(g.job));
	room = sys_mmap_anon(g.job.size + (g.job.argc + g.job.envc + 2) * sizeof(char *));
	if (room <= 0)
		fail(room, "the command's arguments", "");
	g.argv = (char **)room;
	g.envp = g.argv + g.job.argc + 1;
	g.job_text = (char *)(g.envp + g.job.envc + 1);
	read_exactly(g.control, g.job_text, g.job.size - sizeof(g.job));
	at = g.job_text;
	g.cwd = next_text(&at);
	for (uint32_t i = 0; i < g.job.nshares; i++)
		next_text(&at);
	for (uint32_t i = 0; i < g.job.argc; i++)
		g.argv[i] = next_text(&at);
	for (uint32_t i = 0; i < g.job.envc; i++)
		g.envp[i] = next_text(&at);
}

/* --- the file systems -------------------------------------------------------------------------- */

static void must_mount(const char *dev, const char *dir, const char *type, unsigned long flags,
		       const char *data)
{
	long r = sys_mount(dev, dir, type, flags, data);

	if (r < 0)
		fail(r, "mounting ", dir);
}

/* Below directories that are this machine's own, such as /run, the host's are missing. */
static void make_path(char *path)
{
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		sys_mkdir(path, 0755);
		*p = '/';
	}
	sys_mkdir(path, 0755);
}

static void mount_share(uint32_t i, const char *path)
{
	must_mount(numbered(EXEC_TAG, i), path, "9p", 0, P9_OPTIONS ",cache=mmap");
}

static bool is_root(const char *path)
{
	return path[0] == '/' && !path[1];
}

static void mount_shares(void)
{
	char *at = g.job_text, *path;

	next_text(&at);
	for (uint32_t i = 1; i <= g.job.nshares; i++) {
		path = next_text(&at);
		if (is_root(path))
			continue;
		path = join("/root", path);
		make_path(path);
		mount_share(i, path);
	}
}

/* The share that is the whole root, to be written; 0: there is none. */
static uint32_t root_share(void)
{
	char *at = g.job_text;

	next_text(&at);
	for (uint32_t i = 1; i <= g.job.nshares; i++)
		if (is_root(next_text(&at)))
			return i;
	return 0;
}

/* Does the file say just @text? */
static bool says(const char *path, const char *text, size_t len)
{
	int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
	char got[32];
	long n = fd < 0 ? -1 : sys_read(fd, got, sizeof(got));
	size_t i = 0;

	sys_close(fd);
	while (i < len && got[i] == text[i])
		i++;
	return n >= (long)len && i == len;
}

/* The disk that is the root. */
static const char *find_disk(void)
{
	char name[] = "vda";

	for (int turn = 0; turn < WAIT_TURNS; turn++) {
		for (name[2] = 'a'; name[2] <= 'z'; name[2]++)
			if (says(join(join("/sys/block/", name), "/serial"), EXEC_DISK,
				 sizeof(EXEC_DISK) - 1))
				return join("/dev/", name);
		sleep_ms(1);
	}
	fail(-ENODEV, "the disk that is the root", "");
}

/* As the kernel does with root=: whatever file system of those that it has. */
static void mount_disk(void)
{
	static char list[4096];
	const char *disk = find_disk();
	int fd = sys_open("/proc/filesystems", O_RDONLY | O_CLOEXEC, 0);
	long n = sys_read(fd, list, sizeof(list) - 1), r, error = -EINVAL;
	char *line = list;

	sys_close(fd);
	for (long i = 0; i < n; i++) {
		if (list[i] != '\n')
			continue;
		list[i] = 0;
		if (line[0] == '\t') {
			r = sys_mount(disk, "/lower", line + 1, MS_RDONLY, "");
			/* A journal that would have to be played back. */
			if (r == -EROFS || r == -EACCES)
				r = sys_mount(disk, "/lower", line + 1, MS_RDONLY, "noload");
			if (!r)
				return;
			if (r != -EINVAL)
				error = r;
		}
		line = list + i + 1;
	}
	fail(error, "no file system that this kernel knows (--module) on the disk ", disk);
}

/* The host's files, or a disk's, below a tmpfs that takes what is written. */
static void mount_overlay(void)
{
	if (g.job.root_disk)
		mount_disk();
	else
		must_mount(numbered(EXEC_TAG, 0), "/lower", "9p", MS_RDONLY,
			   P9_OPTIONS ",cache=loose");
	must_mount("tmpfs", "/rw", "tmpfs", 0, "size=75%");
	sys_mkdir("/rw/upper", 0755);
	sys_mkdir("/rw/work", 0755);
	must_mount("overlay", "/root", "overlay", 0,
		   "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work");
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	int fd = sys_socket(2 /* AF_INET */, 2 /* SOCK_DGRAM */ | O_CLOEXEC, 0);

	sys_ioctl(fd, SIOCSIFFLAGS, &ifr);
	sys_close(fd);
}

/* The host's files; in them, what belongs to this machine alone. */
static void mount_root(void)
{
	static const char *const moved[] = {"/dev", "/proc", "/sys"};
	uint32_t writable = root_share();

	if (writable)
		mount_share(writable, "/root");
	else
		mount_overlay();
	for (int i = 0; i < 3; i++) {
		sys_mkdir(join("/root", moved[i]), 0755);
		must_mount(moved[i], join("/root", moved[i]), "", MS_MOVE, "");
	}
	sys_mkdir("/root/run", 0755);
	must_mount("tmpfs", "/root/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	mount_shares();
	sys_mkdir("/root/run/lock", 01777);
	sys_chdir("/root");
	must_mount(".", "/", "", MS_MOVE, "");
	sys_chroot(".");
	sys_mkdir("/dev/pts", 0755);
	sys_mkdir("/dev/shm", 01777);
	sys_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
		  "gid=5,mode=620,ptmxmode=666");
	sys_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "");
	sys_symlink("/proc/self/fd", "/dev/fd");
	sys_symlink("/proc/self/fd/0", "/dev/stdin");
	sys_symlink("/proc/self/fd/1", "/dev/stdout");
	sys_symlink("/proc/self/fd/2", "/dev/stderr");
}

/* --- the command ------------------------------------------------------------------------------- */

static const char *variable(const char *name)
{
	size_t n = length(name);

	for (char **e = g.envp; *e; e++) {
		size_t i = 0;

		while (i < n && (*e)[i] == name[i])
			i++;
		if (i == n && (*e)[n] == '=')
			return *e + n + 1;
	}
	return NULL;
}

/* As execvp(): returns the errno. */
static long execute(void)
{
	const char *path = variable("PATH"), *name = g.argv[0];
	long r, result = -ENOENT;
	char full[4096], *end = full + sizeof(full);

	for (const char *p = name; *p; p++)
		if (*p == '/')
			return sys_execve(name, g.argv, g.envp);
	for (path = path ? path : "/usr/local/bin:/usr/bin:/bin"; *path;) {
		char *to = full;

		while (*path && *path != ':' && to < end - 1)
			*to++ = *path++;
		*to = 0;
		append(append(to, end, to == full ? "./" : "/"), end, name);
		r = sys_execve(full, g.argv, g.envp);
		if (r != -ENOENT && r != -ENOTDIR)
			result = r;
		path += *path == ':';
	}
	return result;
}

static void set_size(uint16_t rows, uint16_t columns)
{
	struct winsize size = {rows, columns, 0, 0};

	if (g.pty >= 0)
		sys_ioctl(g.pty, TIOCSWINSZ, &size);
}

/* The other end of a new terminal; g.pty is ours. */
static int open_pty(void)
{
	int unlock = 0;
	long slave;

	g.pty = sys_open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK, 0);
	if (g.pty < 0)
		fail(g.pty, "a terminal", "");
	sys_ioctl(g.pty, TIOCSPTLCK, &unlock);
	slave = sys_ioctl(g.pty, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		fail(slave, "a terminal", "");
	set_size(g.job.rows, g.job.columns);
	return slave;
}

/* In the new process. */
static void __attribute__((noreturn)) child(const int fds[3], int terminal, int tell)
{
	struct refusal no = {0, false};
	uint64_t none = 0;

	sys_setsid();
	if (terminal >= 0)
		sys_ioctl(terminal, TIOCSCTTY, 0);
	for (int i = 0; i < 3; i++)
		sys_dup2(fds[i], i);
	sys_sigmask(SIG_SETMASK, &none);
	no.code = sys_chdir(g.cwd);
	no.directory = no.code;
	if (!no.code)
		no.code = execute();
	write_all(tell, &no, sizeof(no));
	sys_exit(127);
	__builtin_unreachable();
}

static void make_pipe(int fds[2])
{
	long r = sys_pipe2(fds, O_CLOEXEC);

	if (r < 0)
		fail(r, "a pipe", "");
}

static void set_nonblocking(int fd)
{
	SYS_CALL(fcntl, fd, F_SETFL, O_NONBLOCK, 0, 0);
}

/* Did the command start? */
static void await_start(int fd)
{
	struct refusal no;
	long n;

	do {
		n = sys_read(fd, &no, sizeof(no));
	} while (n == -EINTR);
	sys_close(fd);
	if (n == sizeof(no)) {
		report(EXEC_REFUSED, -no.code, no.directory ? g.cwd : g.argv[0]);
		power_off();
	}
	report(EXEC_STARTED, 0, "");
}

static void start_command(void)
{
	int p[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}}, tell[2], fds[3], terminal = -1;
	uint32_t bits = g.job.terminal;

	g.pty = -1;
	if (bits)
		terminal = open_pty();
	for (int i = 0; i < 3; i++) {
		if (!(bits & 1u << i))
			make_pipe(p[i]);
		fds[i] = bits & 1u << i ? terminal : p[i][i ? 1 : 0];
	}
	make_pipe(tell);
	g.child = sys_fork();
	if (g.child == 0)
		child(fds, terminal, tell[1]);
	if (g.child < 0)
		fail(g.child, "a process", "");
	for (int i = 0; i < 3; i++)
		if (p[i][0] >= 0)
			sys_close(fds[i]);
	sys_close(terminal);
	sys_close(tell[1]);
	g.in.from = g.port_in;
	g.in.to = bits & 1 ? g.pty : p[0][1];
	g.out.from = bits & 2 ? g.pty : p[1][0];
	g.out.to = g.port_out;
	g.err.from = bits & 4 ? -1 : p[2][0];
	g.err.to = g.port_err;
	/* A terminal speaks with one voice: where the output is one, else where the errors are. */
	if (bits && !(bits & 2) && (bits & 4))
		g.err.from = g.pty;
	for (int i = 0; i < 3; i++)
		if (p[i][0] >= 0)
			set_nonblocking(p[i][i ? 0 : 1]);
	await_start(tell[0]);
}

/* --- carrying data ----------------------------------------------------------------------------- */

/* Write what there is; false: it has to wait. */
static bool put(struct stream *s)
{
	while (s->len) {
		long n = s->to < 0 ? (long)s->len : sys_write(s->to, s->buf + s->at, s->len);

		if (n == -EAGAIN || n == -EINTR)
			return false;
		if (n < 0) { /* nobody reads it any more */
			n = s->len;
			s->to = -1;
		}
		s->at += n;
		s->len -= n;
		s->total += n;
	}
	return true;
}

/* Read once; false: there is nothing now, or never again. */
static bool get(struct stream *s)
{
	long n = sys_read(s->from, s->buf, sizeof(s->buf));

	if (n == -EAGAIN || n == -EINTR)
		return false;
	if (n <= 0) { /* of a terminal, -EIO is the end */
		s->from = -1;
		return false;
	}
	s->at = 0;
	s->len = n;
	return true;
}

/* Nobody listens any more: whoever writes is told, as he would be by a pipe of the host. */
static void hang_up(struct stream *s)
{
	if (s->from >= 0 && s->from != g.pty) {
		sys_close(s->from);
		s->from = -1;
	}
	s->to = -1;
	put(s);
}

static void carry(struct stream *s)
{
	if (put(s) && s->from >= 0 && get(s))
		put(s);
}

/* The end of input is passed on: to a pipe by closing it, to a terminal by its end-of-file key. */
static void carry_input(void)
{
	carry(&g.in);
	if (g.in.from >= 0 || g.in.len || g.in.to < 0)
		return;
	if (g.in.to == g.pty)
		sys_write(g.pty, "\4", 1);
	else
		sys_close(g.in.to);
	g.in.to = -1;
}

static void take_event(void)
{
	struct exec_event e;
	long n = sys_read(g.control, g.event + g.event_len, sizeof(g.event) - g.event_len);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0)
		power_off();
	g.event_len += n;
	if (g.event_len < sizeof(g.event))
		return;
	g.event_len = 0;
	memcpy(&e, g.event, sizeof(e));
	if (e.type == EXEC_RESIZE)
		set_size(e.a, e.b);
	else if (e.type == EXEC_SIGNAL) /* keys' signals are for all that is in the foreground */
		sys_kill(e.a == SIGINT || e.a == SIGQUIT ? -g.child : g.child, e.a);
}

/* Processes that have ended; true if the command is among them. */
static bool reap(int *status)
{
	struct signalfd_siginfo {
		char bytes[128];
	} si;
	bool ended = false;
	int word;
	long pid;

	sys_read(g.sigfd, &si, sizeof(si));
	while ((pid = sys_wait4(-1, &word, WNOHANG)) > 0) {
		if (pid != g.child)
			continue;
		ended = true;
		*status = WIFSIGNALED(word) ? 128 + WTERMSIG(word) : WEXITSTATUS(word);
	}
	return ended;
}

static void watch(struct pollfd *p, const struct stream *s)
{
	p[0] = (struct pollfd){.fd = s->len ? -1 : s->from, .events = POLLIN};
	p[1] = (struct pollfd){.fd = s->len ? s->to : -1, .events = POLLOUT};
}

static int run_command(void)
{
	struct pollfd p[8];
	int status = 0;

	for (;;) {
		watch(p, &g.in);
		watch(p + 2, &g.out);
		watch(p + 4, &g.err);
		p[6] = (struct pollfd){.fd = g.control, .events = POLLIN};
		p[7] = (struct pollfd){.fd = g.sigfd, .events = POLLIN};
		if (sys_poll(p, 8, -1) < 0)
			continue;
		if (p[0].revents || p[1].revents)
			carry_input();
		if (p[3].revents & POLLHUP)
			hang_up(&g.out);
		else if (p[2].revents || p[3].revents)
			carry(&g.out);
		if (p[5].revents & POLLHUP)
			hang_up(&g.err);
		else if (p[4].revents || p[5].revents)
			carry(&g.err);
		if (p[6].revents)
			take_event();
		if (p[7].revents && reap(&status))
			return status;
	}
}

/* What the command left in its pipes. */
static void finish(struct stream *s)
{
	struct pollfd p = {.fd = s->to, .events = POLLOUT};

	for (;;) {
		while (!put(s)) {
			p.fd = s->to;
			sys_poll(&p, 1, -1);
			if (p.revents & POLLHUP)
				hang_up(s);
		}
		if (s->from < 0 || !get(s))
			return;
	}
}

/* --- the whole --------------------------------------------------------------------------------- */

int init_main(void);

int init_main(void)
{
	uint64_t child_ended = 1ull << (SIGCHLD - 1);
	uint32_t device;
	int status;

	g.control = -1;
	sys_mount("devtmpfs", "/dev", "devtmpfs", 0, "");
	sys_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	sys_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "");
	load_modules();
	device = find_ports();
	g.control = open_port(device, EXEC_PORT_CONTROL);
	read_job();
	mount_root();
	loopback_up();
	sys_sethostname("hako", 4);
	g.port_in = open_port(device, EXEC_PORT_IN);
	g.port_out = open_port(device, EXEC_PORT_OUT);
	g.port_err = open_port(device, EXEC_PORT_ERR);
	sys_sigmask(SIG_BLOCK, &child_ended);
	g.sigfd = sys_signalfd(&child_ended, O_CLOEXEC | O_NONBLOCK);
	start_command();
	status = run_command();
	finish(&g.out);
	finish(&g.err);
	sys_sync(); /* into the directories that may be written, before anybody hears of the end */
	report(EXEC_EXITED, status, "");
	power_off();
}

__asm__(".globl _start\n"
	"_start:\n"
	"	xor %ebp, %ebp\n"
	"	and $-16, %rsp\n"
	"	call init_main\n");
