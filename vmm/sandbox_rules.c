/* SPDX-License-Identifier: GPL-2.0-only */
/* What each kind of thread may ask the kernel for. docs/threat-model.md shows these tables (`hako help sandbox`). */
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include "sandbox_impl.h"

#define V   BIT(SANDBOX_VCPU)
#define L   BIT(SANDBOX_LOOP)
#define W   BIT(SANDBOX_WORKER)
#define M   BIT(SANDBOX_MAIN)
#define ALL (V | L | W | M)

const char *const sandbox_thread_names[SANDBOX_THREADS] = {"vCPU", "loop", "worker", "main"};
const char *const sandbox_need_names[SANDBOX_NEEDS] = {
	"disk",	    "share",  "internet", "socket", "reconnect", "tap",	  "vhost",
	"terminal", "random", "epoll",	  "files",  "sending",	 "debug", "local",
};

#define CALL(NAME, THREADS, NEEDS, CHECK)                \
	{                                                \
#NAME, SYS_##NAME, THREADS, NEEDS, CHECK \
	}

const struct sandbox_rule sandbox_rules[] = {
	/* memory and threads: malloc, locks, the thread's end */
	CALL(futex, ALL, 0, CHECK_NONE),
	CALL(mmap, ALL, 0, CHECK_NO_EXEC),
	CALL(mprotect, ALL, 0, CHECK_NO_EXEC),
	CALL(munmap, ALL, 0, CHECK_NONE),
	CALL(madvise, L | W | M, 0, CHECK_NONE),
	CALL(mremap, L | W | M, 0, CHECK_NONE),
	CALL(brk, L | W | M, 0, CHECK_NONE),
	CALL(rt_sigprocmask, ALL, 0, CHECK_NONE),
	CALL(clock_gettime, ALL, 0, CHECK_NONE), /* where the vDSO can not tell the time */
	CALL(exit, ALL, 0, CHECK_NONE),
	CALL(getpid, V | L | M, 0, CHECK_NONE),
	CALL(tgkill, V | L | M, 0, CHECK_SELF), /* kicks vCPUs */
	CALL(restart_syscall, L | W | M, 0, CHECK_NONE),
	/* the guest, interrupts, eventfds */
	CALL(ioctl, ALL, 0, CHECK_IOCTL),
	CALL(write, ALL, 0, CHECK_NONE),
	/* events; descriptors that are open */
	CALL(io_uring_enter, L, 0, CHECK_NONE),
	CALL(io_uring_register, L, 0, CHECK_URING),
	CALL(read, ALL, 0, CHECK_NONE),
	CALL(close, L | W | M, 0, CHECK_NONE),
	CALL(fcntl, L | W | M, 0, CHECK_FCNTL),
	CALL(poll, L | M, 0, CHECK_NONE), /* of a loop: before each piece to a pipe or terminal */
	CALL(readv, L, SANDBOX_TAP, CHECK_NONE),
	CALL(writev, L, SANDBOX_TAP, CHECK_NONE),
	CALL(getrandom, L, SANDBOX_RANDOM | SANDBOX_INET, CHECK_NONE),
	CALL(epoll_ctl, L, SANDBOX_EPOLL, CHECK_NONE),
	CALL(epoll_pwait2, L, SANDBOX_EPOLL, CHECK_NONE),
	CALL(epoll_wait, L, SANDBOX_EPOLL, CHECK_NONE),
	/* new threads: of a pool, to unpack a kernel after a reset */
	CALL(clone, W | M, 0, CHECK_THREAD),
	CALL(set_robust_list, W | M, 0, CHECK_NONE),
	CALL(rseq, W | M, 0, CHECK_NONE),
	CALL(prctl, W | M, 0, CHECK_NAME),
	/* the thread that holds the VM: it waits, loads the kernel again after a reset, tidies up */
	CALL(pread64, M, 0, CHECK_NONE),
	CALL(getrandom, M, 0, CHECK_NONE),
	CALL(gettid, M, 0, CHECK_NONE),
	CALL(getpgrp, M, 0, CHECK_NONE),
	CALL(rt_sigreturn, M, 0, CHECK_NONE),
	CALL(rt_sigaction, M, 0, CHECK_NONE),
	CALL(unlink, M, 0, CHECK_NONE), /* Landlock says which */
	CALL(newfstatat, M, 0, CHECK_NONE),
	CALL(exit_group, M, 0, CHECK_NONE),
	/* disks: what io_uring does not do */
	CALL(pread64, L | W, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(pwrite64, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(preadv, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(pwritev, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(preadv2, L | W | M, SANDBOX_DISK, CHECK_NONE),
	CALL(pwritev2, L | W | M, SANDBOX_DISK, CHECK_NONE),
	CALL(fdatasync, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(fallocate, L | W | M, SANDBOX_DISK, CHECK_NONE),
	CALL(ftruncate, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(lseek, L | W | M, SANDBOX_DISK | SANDBOX_SHARE | SANDBOX_FILES, CHECK_NONE),
	CALL(fsync, L | W | M, SANDBOX_DISK | SANDBOX_SHARE, CHECK_NONE),
	CALL(newfstatat, L | W, SANDBOX_DISK | SANDBOX_SHARE | SANDBOX_FILES, CHECK_NONE),
	CALL(io_setup, L, SANDBOX_DISK, CHECK_NONE), /* vmm/loop_aio.c; it opens nothing */
	CALL(io_submit, L, SANDBOX_DISK, CHECK_NONE),
	CALL(io_getevents, L, SANDBOX_DISK, CHECK_NONE),
	CALL(io_destroy, L, SANDBOX_DISK, CHECK_NONE),
	CALL(getrusage, L, SANDBOX_DISK, CHECK_NONE),
	/* sockets */
	CALL(recvfrom, L, SANDBOX_INET | SANDBOX_SOCKET, CHECK_NONE),
	CALL(sendto, L, SANDBOX_INET | SANDBOX_SOCKET, CHECK_NONE),
	CALL(accept4, L, SANDBOX_SOCKET, CHECK_NONE),
	CALL(getsockopt, L, SANDBOX_INET | SANDBOX_SOCKET, CHECK_NONE),
	CALL(setsockopt, L, SANDBOX_INET | SANDBOX_SOCKET, CHECK_NONE),
	CALL(shutdown, L | M, SANDBOX_INET | SANDBOX_SOCKET, CHECK_NONE),
	CALL(socket, L, SANDBOX_RECONNECT, CHECK_STREAM),
	CALL(connect, L, SANDBOX_INET | SANDBOX_RECONNECT | SANDBOX_LOCAL, CHECK_NONE),
	CALL(socket, L, SANDBOX_LOCAL, CHECK_LOCAL),
	CALL(socket, L, SANDBOX_INET, CHECK_INET),
	CALL(accept, L, SANDBOX_INET, CHECK_NONE),
	CALL(bind, L, SANDBOX_INET, CHECK_NONE),
	CALL(listen, L, SANDBOX_INET, CHECK_NONE),
	CALL(getsockname, L, SANDBOX_INET, CHECK_NONE),
	CALL(getpeername, L, SANDBOX_INET, CHECK_NONE),
	CALL(recvmsg, L, SANDBOX_INET | SANDBOX_SENDING, CHECK_NONE),
	CALL(sendmsg, L, SANDBOX_INET | SANDBOX_SENDING, CHECK_NONE),
	/* files and directories; Landlock says which */
	CALL(openat, L, SANDBOX_FILES, CHECK_NONE),
	CALL(openat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(openat2, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(fstatfs, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(getdents64, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(readlinkat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(mkdirat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(mknodat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(symlinkat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(linkat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(unlinkat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(renameat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(renameat2, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(chmod, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(fchownat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(truncate, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(utimensat, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(getxattr, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(listxattr, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(setxattr, W, SANDBOX_SHARE, CHECK_NONE),
	CALL(removexattr, W, SANDBOX_SHARE, CHECK_NONE),
#ifdef HAVE_ASAN
	/* what the sanitizers do themselves */
	CALL(madvise, V, 0, CHECK_NONE),
	CALL(sigaltstack, ALL, 0, CHECK_NONE),
	CALL(gettid, V | L | W, 0, CHECK_NONE),
	CALL(getpid, W, 0, CHECK_NONE),
	CALL(sched_yield, ALL, 0, CHECK_NONE),
	CALL(sched_getaffinity, ALL, 0, CHECK_NONE),
	CALL(readlink, ALL, 0, CHECK_NONE),
	CALL(exit_group, V | L | W, 0, CHECK_NONE),
	CALL(newfstatat, ALL, 0, CHECK_NONE),
#endif
	{NULL},
};

#define VALUE(NAME, THREADS, NEEDS)         \
	{                                   \
#NAME, NAME, THREADS, NEEDS \
	}

const struct sandbox_value sandbox_ioctls[] = {
	VALUE(KVM_RUN, V, 0),
	VALUE(KVM_GET_REGS, V | M, 0),
	VALUE(KVM_IRQ_LINE, V | L | M, 0),
	VALUE(KVM_SIGNAL_MSI, V | L | M, 0),
	VALUE(KVM_IRQFD, V | L | M, 0),
	VALUE(KVM_IOEVENTFD, V | L | M, 0),
	VALUE(KVM_SET_GSI_ROUTING, V | L | M, 0),
	/* the guest's clock over a pause */
	VALUE(KVM_GET_CLOCK, M, 0),
	VALUE(KVM_SET_CLOCK, M, 0),
	VALUE(KVM_KVMCLOCK_CTRL, M, 0),
	VALUE(KVM_GET_CLOCK, V | L, SANDBOX_DEBUG),
	VALUE(KVM_SET_CLOCK, L, SANDBOX_DEBUG),
	VALUE(KVM_KVMCLOCK_CTRL, L, SANDBOX_DEBUG),
	/* the state after a reset */
	VALUE(KVM_SET_REGS, M, 0),
	VALUE(KVM_GET_SREGS, M, 0),
	VALUE(KVM_SET_SREGS, M, 0),
	VALUE(KVM_SET_MSRS, M, 0),
	VALUE(KVM_SET_CPUID2, M, 0),
	VALUE(KVM_SET_LAPIC, M, 0),
	VALUE(KVM_SET_XCRS, M, 0),
	VALUE(KVM_SET_XSAVE, M, 0),
	VALUE(KVM_SET_DEBUGREGS, M, 0),
	VALUE(KVM_SET_MP_STATE, M, 0),
	VALUE(KVM_SET_VCPU_EVENTS, M, 0),
	VALUE(KVM_SET_IRQCHIP, M, 0),
	VALUE(KVM_SET_PIT2, M, 0),
	VALUE(KVM_GET_REGS, L, SANDBOX_DEBUG),
	VALUE(KVM_SET_REGS, L, SANDBOX_DEBUG),
	VALUE(KVM_GET_SREGS, L, SANDBOX_DEBUG),
	VALUE(KVM_SET_SREGS, L, SANDBOX_DEBUG),
	VALUE(KVM_GET_XSAVE, L, SANDBOX_DEBUG),
	VALUE(KVM_SET_XSAVE, L, SANDBOX_DEBUG),
	VALUE(KVM_GET_MP_STATE, L, SANDBOX_DEBUG),
	VALUE(KVM_TRANSLATE, L, SANDBOX_DEBUG),
	VALUE(KVM_SET_GUEST_DEBUG, V | L, SANDBOX_DEBUG),
	VALUE(KVM_GET_DEBUGREGS, V, SANDBOX_DEBUG),
	VALUE(KVM_SET_DEBUGREGS, V, SANDBOX_DEBUG),
	VALUE(FIONREAD, L, 0),
	VALUE(TUNSETOFFLOAD, V | L | M, SANDBOX_TAP),
	VALUE(TUNSETQUEUE, V | L | M, SANDBOX_TAP),
	VALUE(TUNSETCARRIER, V | L | M, SANDBOX_TAP),
	VALUE(TUNSETVNETHDRSZ, V | L | M, SANDBOX_TAP),
	VALUE(VHOST_SET_FEATURES, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_OWNER, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_MEM_TABLE, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_NUM, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_ADDR, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_BASE, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_GET_VRING_BASE, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_KICK, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_CALL, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_SET_VRING_ERR, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_NET_SET_BACKEND, V | L | M, SANDBOX_VHOST),
	VALUE(VHOST_VSOCK_SET_RUNNING, L, SANDBOX_VHOST),
	VALUE(BLKGETSIZE64, L | W | M, SANDBOX_DISK),
	VALUE(TCGETS, L | M, SANDBOX_TERMINAL),
	VALUE(TCSETS, M, SANDBOX_TERMINAL),
	VALUE(TIOCGPGRP, M, SANDBOX_TERMINAL),
	VALUE(TIOCGWINSZ, M, SANDBOX_TERMINAL),
	{NULL},
};

const struct sandbox_value sandbox_fcntls[] = {
	VALUE(F_GETFL, L | W | M, 0),
	VALUE(F_SETFL, L | W | M, 0),
	VALUE(F_SETFD, L, SANDBOX_INET),
	VALUE(F_GETFD, L, SANDBOX_INET),
	VALUE(F_DUPFD_CLOEXEC, L | W | M, 0),
	VALUE(F_OFD_SETLK, L | W | M, SANDBOX_DISK),
	VALUE(F_OFD_GETLK, L | W | M, SANDBOX_DISK),
	{NULL},
};

/* linux/io_uring.h does not go together with linux/fs.h of all versions. */
#define IORING_REGISTER_FILES_UPDATE 6
#define IORING_UNREGISTER_FILES	     3
#define IORING_REGISTER_FILES2	     13
#define IORING_UNREGISTER_RING_FDS   21

const struct sandbox_value sandbox_urings[] = {
	VALUE(IORING_REGISTER_FILES2, L, 0),
	VALUE(IORING_REGISTER_FILES_UPDATE, L, 0),
	VALUE(IORING_UNREGISTER_FILES, L, 0),
	VALUE(IORING_UNREGISTER_RING_FDS, L, 0),
	{NULL},
};

#define REFUSE(NAME, CODE)              \
	{                               \
#NAME, SYS_##NAME, CODE \
	}

const struct sandbox_refusal sandbox_refusals[] = {
	REFUSE(brk, ENOMEM),	/* malloc takes mmap then */
	REFUSE(madvise, EPERM), /* a hint */
	REFUSE(openat, EACCES), /* malloc: /proc/sys/vm/overcommit_memory */
	REFUSE(open, EACCES),
	REFUSE(sched_getaffinity, EPERM),
	REFUSE(prctl, EINVAL), /* names of mappings */
	REFUSE(getrandom, EAGAIN),
#ifdef SYS_clone3
	REFUSE(clone3, ENOSYS), /* its flags can not be seen: the C library takes clone then */
#endif
	{NULL},
};

static const char *condition(enum sandbox_check check)
{
	switch (check) {
	case CHECK_NO_EXEC:
		return "not executable";
	case CHECK_NAME:
		return "PR_SET_NAME";
	case CHECK_THREAD:
		return "threads";
	case CHECK_INET:
		return "AF_INET, AF_INET6; not raw";
	case CHECK_STREAM:
		return "AF_UNIX, AF_INET, AF_INET6; streams";
	case CHECK_LOCAL:
		return "AF_UNIX; streams";
	case CHECK_SELF:
		return "to itself";
	case CHECK_IOCTL:
	case CHECK_FCNTL:
	case CHECK_URING:
		return "those below";
	case CHECK_NONE:
		break;
	}
	return NULL;
}

static bool value_line(const struct sandbox_value *table, size_t *i, struct sandbox_line *line)
{
	for (; table->name; table++) {
		if ((*i)-- == 0) {
			*line = (struct sandbox_line){table->name, table->threads, table->needs,
						      "an argument"};
			return true;
		}
	}
	return false;
}

bool sandbox_line(size_t i, struct sandbox_line *line)
{
	for (const struct sandbox_rule *r = sandbox_rules; r->name; r++) {
		if (i-- == 0) {
			*line = (struct sandbox_line){r->name, r->threads, r->needs,
						      condition(r->check)};
			return true;
		}
	}
	return value_line(sandbox_ioctls, &i, line) || value_line(sandbox_fcntls, &i, line) ||
	       value_line(sandbox_urings, &i, line);
}
