/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What if somebody runs code of his own in the program? Each kind of thread of a confined VM tries what an intruder would, and each of these
 * attempts has to be refused. The results are printed as a table. A thread is reached by what it calls back: a port's handler (vCPU), a loop's
 * message, a pool's work, an event (the control thread).
 */
#include <check.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <liburing.h>
#include <netinet/in.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "suite.h"
#include "vmm/bus.h"
#include "vmm/loop_impl.h"
#include "vmm/vm.h"

#define PORT  0xf4
#define GUEST "build/guest/exit.elf"

/* --- attempts: 0 if they come off, else errno ---------------------------------------------------- */

static int result(long ret)
{
	return ret < 0 ? errno : 0;
}

static int open_passwd(void)
{
	return result(syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY));
}

static int open_by_old_call(void)
{
	return result(syscall(SYS_open, "/etc/passwd", O_RDONLY));
}

static int write_outside(void)
{
	return result(
		syscall(SYS_openat, AT_FDCWD, "/tmp/hako-was-here", O_WRONLY | O_CREAT, 0600));
}

static int connect_out(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (fd < 0)
		return errno;
	/* That nobody listens is no refusal of ours. */
	return connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != ECONNREFUSED ? errno
											    : 0;
}

static int unix_socket(void)
{
	return result(socket(AF_UNIX, SOCK_DGRAM, 0));
}

static int raw_socket(void)
{
	return result(socket(AF_PACKET, SOCK_RAW, 0));
}

static int execute(void)
{
	static char *const argv[] = {(char *)"/bin/true", NULL};

	return result(syscall(SYS_execve, argv[0], argv, NULL));
}

static int fork_process(void)
{
	long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return result(pid);
}

static int trace_parent(void)
{
	return result(syscall(SYS_ptrace, PTRACE_SEIZE, getppid(), NULL, NULL));
}

static int kill_parent(void)
{
	return result(syscall(SYS_kill, 1, 0));
}

static int signal_other(void)
{
	return result(syscall(SYS_tgkill, 1, 1, 0));
}

static int mount_something(void)
{
	return result(mount("none", "/tmp", "tmpfs", 0, NULL));
}

static int new_namespace(void)
{
	return result(syscall(SYS_unshare, CLONE_NEWNS));
}

static int executable_memory(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int make_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? errno : result(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int new_uring(void)
{
	struct io_uring_params p = {0};

	return result(syscall(SYS_io_uring_setup, 4, &p));
}

static int new_vm_ioctl(void)
{
	return result(syscall(SYS_ioctl, 0, 0xae01 /* KVM_CREATE_VM */, 0));
}

static int type_at_terminal(void)
{
	return result(syscall(SYS_ioctl, 0, 0x5412 /* TIOCSTI */, "x"));
}

static int load_bpf(void)
{
	return result(syscall(SYS_bpf, 0, NULL, 0));
}

static int keys(void)
{
	return result(syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, -3, 0));
}

static int raise_limit(void)
{
	struct rlimit rl = {1 << 20, 1 << 20};

	return result(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, &rl, NULL));
}

static int become_root(void)
{
	return result(syscall(SYS_setuid, 0));
}

static int user_fault(void)
{
	return result(syscall(SYS_userfaultfd, 0));
}

static struct io_uring *ring; /* the loop's */

/* seccomp sees nothing of what is asked for in a ring. */
static int uring_open(void)
{
	struct io_uring_sqe *sqe;
	struct io_uring_cq *cq = &ring->cq;

	if (syscall(SYS_io_uring_enter, ring->ring_fd, 0, 0, 0, NULL, 0) < 0)
		return errno;
	sqe = io_uring_get_sqe(ring);
	io_uring_prep_openat(sqe, AT_FDCWD, "/etc/passwd", O_RDONLY, 0);
	sqe->user_data = 2; /* nobody's, to the loop */
	ring->sq.sqe_head = ring->sq.sqe_tail;
	__atomic_store_n(ring->sq.ktail, ring->sq.sqe_tail, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring->ring_fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return errno;
	for (unsigned int at = *cq->khead; at != __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE); at++)
		if (cq->cqes[at & cq->ring_mask].user_data == 2)
			return -MIN(cq->cqes[at & cq->ring_mask].res, 0);
	return ENOMSG;
}

static const struct {
	const char *name;
	int (*fn)(void);
	unsigned int beside; /* needs with which it is allowed, and has to come off in a loop */
} attempts[] = {
	{"open /etc/passwd", open_passwd},
	{"the same, by open(2)", open_by_old_call},
	{"write outside", write_outside},
	{"connect to a socket", connect_out, SANDBOX_INET},
	{"a Unix socket", unix_socket},
	{"a raw socket", raw_socket},
	{"execve", execute},
	{"fork", fork_process},
	{"ptrace", trace_parent},
	{"kill", kill_parent},
	{"tgkill another process", signal_other},
	{"mount", mount_something},
	{"unshare", new_namespace},
	{"executable memory", executable_memory},
	{"memory made executable", make_executable},
	{"io_uring_setup", new_uring},
	{"io_uring: openat", uring_open},
	{"ioctl: a new VM", new_vm_ioctl},
	{"ioctl: TIOCSTI", type_at_terminal},
	{"bpf", load_bpf},
	{"keyctl", keys},
	{"prlimit", raise_limit},
	{"setuid", become_root},
	{"userfaultfd", user_fault},
};
#define N ARRAY_SIZE(attempts)

enum {
	VCPU,
	LOOP,
	WORKER,
	CONTROL,
	MAIN,
	PLACES
};
static const char *const places[PLACES] = {"vCPU", "loop", "worker", "control", "main"};

/* What came of it: errno by attempt and place, in memory that outlives a process. */
static int (*table)[PLACES];

static void try_all(int place)
{
	for (size_t i = 0; i < N; i++)
		table[i][place] = attempts[i].fn();
}

/* --- in each kind of thread ------------------------------------------------------------------------ */

static struct hako_error err;
static sem_t reached;

static void port_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	static bool once;

	if (once)
		return;
	once = true;
	try_all(VCPU);
	sem_post(&reached);
}

static const struct io_ops port_ops = {.write = port_write};

static void in_loop(void *arg)
{
	try_all(LOOP);
}

static void in_worker(struct loop_work *work)
{
	try_all(WORKER);
}

static void worker_done(struct loop_work *work)
{
	sem_post(&reached);
}

static struct loop_work work = {.fn = in_worker, .done = worker_done};

static void submit_work(void *arg)
{
	loop_work_submit(arg, &work);
}

static void on_event(void *opaque, enum hako_event event, const char *message)
{
	try_all(CONTROL);
	sem_post(&reached);
}

static void log_line(void *opaque, const char *line)
{
	printf("  %s\n", line);
}

static void print_table(const char *what)
{
	printf("%s\n%-24s", what, "");
	for (int p = 0; p < PLACES; p++)
		printf("%-9s", places[p]);
	for (size_t i = 0; i < N; i++) {
		printf("\n%-24s", attempts[i].name);
		for (int p = 0; p < PLACES; p++)
			printf("%-9s", table[i][p] ? strerrorname_np(table[i][p]) : "DONE");
	}
	printf("\n");
	fflush(stdout);
}

/* In a process of its own, which has no other way to tell. */
static void must(int ret)
{
	if (!ret)
		return;
	printf("%s\n", err.message);
	fflush(stdout);
	_exit(1);
}

static struct hako_vm *make_vm(const char *disk, const char *net)
{
	struct hako_vm *vm;
	struct io_region region = {.name = "what if", .base = PORT, .size = 4, .ops = &port_ops};

	must(hako_vm_new(&vm, &err));
	hako_vm_set_log(vm, log_line, NULL);
	hako_vm_set_event(vm, on_event, NULL);
	must(hako_vm_set(vm, "machine", "micro", &err));
	must(hako_vm_set(vm, "memory", "32M", &err));
	must(hako_vm_set(vm, "kernel", GUEST, &err));
	if (disk)
		must(hako_vm_set(vm, "disk", disk, &err));
	if (net)
		must(hako_vm_set(vm, "net", net, &err));
	must(hako_vm_create(vm, &err));
	must(bus_add(&((struct vm *)vm)->pio, &region, &err));
	return vm;
}

/* Confine a VM, and try all in all its threads. */
static void what_if(const char *disk, const char *net)
{
	struct hako_vm *handle = make_vm(disk, net);
	struct vm *vm = (struct vm *)handle;

	sem_init(&reached, 0, 0);
	ring = vm->io_loop->engine; /* its first member */
	must(hako_vm_confine(handle, "on", &err));
	must(hako_vm_start(handle, &err));
	sem_wait(&reached);
	loop_call(vm->io_loop, in_loop, NULL);
	loop_call(vm->io_loop, submit_work, vm->io_loop);
	sem_wait(&reached);
	vm_pause_for_error(vm, "what if");
	sem_wait(&reached);
	try_all(MAIN);
	hako_vm_destroy(handle);
}

static void run_what_if(const char *disk, const char *net)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		what_if(disk, net);
		fflush(stdout);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && !WEXITSTATUS(status), "ended with 0x%x", status);
}

static char disk[128];

static void setup(void)
{
	int fd;

	table = mmap(NULL, N * sizeof(*table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		     -1, 0);
	ck_assert_ptr_ne(table, MAP_FAILED);
	snprintf(disk, sizeof(disk), "/tmp/hako-sandbox-%d.img", getpid());
	fd = open(disk, O_RDWR | O_CREAT | O_TRUNC, 0600);
	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	close(fd);
}

static void teardown(void)
{
	unlink(disk);
	unlink("/tmp/hako-was-here");
}

static bool may_come_off(size_t i, int place, const char *net)
{
	return net && place == LOOP && attempts[i].beside == SANDBOX_INET;
}

/* By the sandbox, and not for another reason. */
static bool refused(int code)
{
	return code == EPERM || code == EACCES;
}

static void check_table(const char *net)
{
	for (size_t i = 0; i < N; i++)
		for (int p = 0; p < PLACES; p++)
			ck_assert_msg(may_come_off(i, p, net) ? !table[i][p] : refused(table[i][p]),
				      "%s in thread %s: %s", attempts[i].name, places[p],
				      table[i][p] ? strerrorname_np(table[i][p]) : "came off");
	ck_assert_int_ne(access("/tmp/hako-was-here", F_OK), 0);
}

START_TEST(everything_is_refused)
{
	run_what_if(disk, NULL);
	print_table("with a disk");
	check_table(NULL);
}
END_TEST

START_TEST(a_network_may_connect)
{
#ifdef WITH_SLIRP
	run_what_if(disk, "user");
	print_table("with a disk and a network of kind \"user\"");
	check_table("user");
#else
	printf("skip sandbox/a_network_may_connect built without libslirp\n");
#endif
}
END_TEST

static char share[64], shared_file[80];
static int *shared_result;

static void in_share(struct loop_work *w)
{
	int fd = open(shared_file, O_CREAT | O_RDWR, 0600), old;

	(void)w;
	shared_result[0] = fd < 0 ? errno : 0;
	shared_result[1] = fd >= 0 && write(fd, "x", 1) == 1 && !ftruncate(fd, 0) ? 0 : errno;
	shared_result[2] = result(chmod(shared_file, 0640));
	old = open_passwd();
	shared_result[3] = refused(old) ? 0 : EINVAL;
	old = write_outside();
	shared_result[4] = refused(old) ? 0 : EINVAL;
	shared_result[5] = result(unlinkat(AT_FDCWD, shared_file, 0));
}

/* A shared directory can be used by workers, and it alone. */
START_TEST(a_share_is_all_there_is)
{
	int status;
	pid_t pid;

	snprintf(share, sizeof(share), "/tmp/hako-share-%d", getpid());
	snprintf(shared_file, sizeof(shared_file), "%s/file", share);
	ck_assert_int_eq(mkdir(share, 0700), 0);
	shared_result = table[0];
	memset(table, 0xff, N * sizeof(*table));
	pid = fork();
	if (!pid) {
		struct hako_vm *vm;

		must(hako_vm_new(&vm, &err));
		must(hako_vm_set(vm, "machine", "micro", &err));
		must(hako_vm_set(vm, "memory", "32M", &err));
		must(hako_vm_set(vm, "kernel", GUEST, &err));
		snprintf(disk, sizeof(disk), "local,id=s,path=%s", share);
		must(hako_vm_set(vm, "fsdev", disk, &err));
		must(hako_vm_create(vm, &err));
		sem_init(&reached, 0, 0);
		must(hako_vm_confine(vm, "on", &err));
		work.fn = in_share;
		loop_call(((struct vm *)vm)->io_loop, submit_work, ((struct vm *)vm)->io_loop);
		sem_wait(&reached);
		hako_vm_destroy(vm);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
	unlink(shared_file);
	rmdir(share);
	for (int i = 0; i < 6; i++)
		ck_assert_msg(!shared_result[i], "step %d: %s", i, strerror(shared_result[i]));
}
END_TEST

/* The attempts themselves are good: outside of the sandbox most come off. */
START_TEST(without_it_they_come_off)
{
	static const char *const sure[] = {
		"open /etc/passwd",	 "write outside", "connect to a socket",
		"a Unix socket",	 "fork",	  "executable memory",
		"memory made executable"};
	size_t n = 0;

	/* Not those that change the test itself. */
	for (size_t i = 0; i < N; i++)
		for (size_t k = 0; k < ARRAY_SIZE(sure); k++)
			if (!strcmp(attempts[i].name, sure[k]) && attempts[i].fn() == 0)
				n++;
	ck_assert_uint_eq(n, ARRAY_SIZE(sure));
}
END_TEST

START_TEST(strict_ends_the_process)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct hako_vm *vm = make_vm(NULL, NULL);

		must(hako_vm_confine(vm, "strict", &err));
		syscall(SYS_execve, "/bin/true", NULL, NULL);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSYS);
}
END_TEST

START_TEST(bad_uses)
{
	struct hako_vm *vm;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_confine(vm, "on", &err), -EINVAL);
	ck_assert_int_eq(hako_vm_confine(vm, "off", &err), -EINVAL);
	hako_vm_destroy(vm);
}
END_TEST

/* The promise of the documents. */
START_TEST(few_calls)
{
	unsigned int n[SANDBOX_THREADS] = {0};
	struct sandbox_line line;
	size_t i;

	for (i = 0; sandbox_line(i, &line) && strcmp(line.name, "KVM_RUN"); i++)
		for (int kind = 0; kind < SANDBOX_THREADS; kind++)
			n[kind] += !line.needs && (line.threads & BIT(kind));
	ck_assert_uint_gt(i, 20);
#ifndef HAVE_ASAN
	ck_assert_uint_le(n[SANDBOX_VCPU], 12);
	ck_assert_uint_le(n[SANDBOX_LOOP], 25);
#endif
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("sandbox");
	TCase *tc = tcase_create("what if");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, everything_is_refused);
	tcase_add_test(tc, a_network_may_connect);
	tcase_add_test(tc, a_share_is_all_there_is);
	tcase_add_test(tc, without_it_they_come_off);
	tcase_add_test(tc, strict_ends_the_process);
	suite_add_tcase(s, tc);
	tc = tcase_create("rules");
	tcase_add_test(tc, bad_uses);
	tcase_add_test(tc, few_calls);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
