/* SPDX-License-Identifier: GPL-2.0-only */
/* System calls of x86-64 Linux for a program without a C library. They return what the kernel does: a negative errno after an error. */
#ifndef VMM_CLI_GUEST_SYS_H
#define VMM_CLI_GUEST_SYS_H

#include <sys/syscall.h>

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define SYS_CALL(name, a, b, c, d, e) \
	sys6(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

#define sys_open(path, flags, mode)	       SYS_CALL(open, path, flags, mode, 0, 0)
#define sys_close(fd)			       SYS_CALL(close, fd, 0, 0, 0, 0)
#define sys_read(fd, buf, len)		       SYS_CALL(read, fd, buf, len, 0, 0)
#define sys_write(fd, buf, len)		       SYS_CALL(write, fd, buf, len, 0, 0)
#define sys_poll(fds, n, ms)		       SYS_CALL(poll, fds, n, ms, 0, 0)
#define sys_ioctl(fd, req, arg)		       SYS_CALL(ioctl, fd, req, arg, 0, 0)
#define sys_dup2(from, to)		       SYS_CALL(dup2, from, to, 0, 0, 0)
#define sys_pipe2(fds, flags)		       SYS_CALL(pipe2, fds, flags, 0, 0, 0)
#define sys_fork()			       SYS_CALL(fork, 0, 0, 0, 0, 0)
#define sys_execve(path, argv, envp)	       SYS_CALL(execve, path, argv, envp, 0, 0)
#define sys_exit(status)		       SYS_CALL(exit_group, status, 0, 0, 0, 0)
#define sys_wait4(pid, status, flags)	       SYS_CALL(wait4, pid, status, flags, 0, 0)
#define sys_kill(pid, sig)		       SYS_CALL(kill, pid, sig, 0, 0, 0)
#define sys_setsid()			       SYS_CALL(setsid, 0, 0, 0, 0, 0)
#define sys_mkdir(path, mode)		       SYS_CALL(mkdir, path, mode, 0, 0, 0)
#define sys_chdir(path)			       SYS_CALL(chdir, path, 0, 0, 0, 0)
#define sys_chroot(path)		       SYS_CALL(chroot, path, 0, 0, 0, 0)
#define sys_symlink(target, path)	       SYS_CALL(symlink, target, path, 0, 0, 0)
#define sys_mount(dev, dir, type, flags, data) SYS_CALL(mount, dev, dir, type, flags, data)
#define sys_umount(dir, flags)		       SYS_CALL(umount2, dir, flags, 0, 0, 0)
#define sys_sync()			       SYS_CALL(sync, 0, 0, 0, 0, 0)
#define sys_reboot(how)			       SYS_CALL(reboot, 0xfee1dead, 0x28121969, how, 0, 0)
#define sys_finit_module(fd, args, flags)      SYS_CALL(finit_module, fd, args, flags, 0, 0)
#define sys_sethostname(name, len)	       SYS_CALL(sethostname, name, len, 0, 0, 0)
#define sys_socket(domain, type, proto)	       SYS_CALL(socket, domain, type, proto, 0, 0)
#define sys_nanosleep(ts)		       SYS_CALL(nanosleep, ts, 0, 0, 0, 0)
#define sys_mmap_anon(len)		       sys6(SYS_mmap, 0, (long)(len), 3, 0x22, -1, 0)
#define sys_sigmask(how, set)		       SYS_CALL(rt_sigprocmask, how, set, 0, 8, 0)
#define sys_signalfd(set, flags)	       SYS_CALL(signalfd4, -1, set, 8, flags, 0)

#endif
