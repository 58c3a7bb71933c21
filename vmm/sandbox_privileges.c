/* SPDX-License-Identifier: GPL-2.0-only */
/* Capabilities and namespaces. */
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox_impl.h"

/* --- capabilities ------------------------------------------------------------------------------ */

/* Of the thread: not the C library's business, which would have all threads do the same. */
static int set_capabilities(uint64_t keep)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &head, data) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		uint32_t some = keep >> (32 * i);

		data[i].effective &= some;
		data[i].permitted &= some;
		data[i].inheritable = 0;
	}
	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

int privileges_drop(const struct sandbox *sb, enum sandbox_thread kind)
{
	static const uint64_t ownership = BIT64(CAP_CHOWN) | BIT64(CAP_DAC_OVERRIDE) |
					  BIT64(CAP_DAC_READ_SEARCH) | BIT64(CAP_FOWNER) |
					  BIT64(CAP_FSETID);
	bool keep = sb->keep_ownership && kind == SANDBOX_WORKER;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return set_capabilities(keep ? ownership : 0);
}

/* --- namespaces -------------------------------------------------------------------------------- */

static char report[256];

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), ret;

	if (fd < 0)
		return -errno;
	ret = write_all(fd, text, strlen(text));
	close(fd);
	return ret;
}

/* Users and groups stay who they are. */
static int new_users(int namespaces)
{
	const unsigned int uid = geteuid(), gid = getegid();
	char map[64];
	int ret;

	if (unshare(CLONE_NEWUSER | namespaces) < 0)
		return -errno;
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	ret = write_file("/proc/self/uid_map", map);
	if (!ret)
		ret = write_file("/proc/self/setgroups", "deny");
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	return ret ?: write_file("/proc/self/gid_map", map);
}

void sandbox_namespaces(void)
{
	const int namespaces = CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS;
	int ret;

	if (unshare(namespaces) == 0) {
		snprintf(report, sizeof(report), "mounts, IPC, host name");
		return;
	}
	ret = new_users(namespaces);
	if (ret)
		snprintf(report, sizeof(report), "left out, as they are refused: %s",
			 strerrordesc_np(-ret));
	else
		snprintf(report, sizeof(report), "users, mounts, IPC, host name");
}

const char *namespaces_report(void)
{
	return *report ? report : NULL;
}

const char *namespaces_missing(void)
{
	char line[16] = "";
	FILE *f;

	if (geteuid() == 0)
		return access("/proc/self/ns/user", F_OK) ? "the kernel has none" : NULL;
	f = fopen("/proc/sys/user/max_user_namespaces", "re");
	if (!f || !fgets(line, sizeof(line), f))
		snprintf(line, sizeof(line), "0");
	if (f)
		fclose(f);
	return strcmp(line, "0\n") && strcmp(line, "0")
		       ? NULL
		       : "this user can make none (user.max_user_namespaces is 0)";
}

void namespace_net(struct sandbox *sb)
{
	char path[48];

	sb->net_fd = -1;
	if (sb->needs & (SANDBOX_INET | SANDBOX_RECONNECT)) {
		sandbox_log(sb, "network namespace: left out, as the VM makes connections");
		return;
	}
	if (unshare(CLONE_NEWNET) < 0) {
		sandbox_log(sb, "network namespace: left out, as it is refused: %s",
			    strerrordesc_np(errno));
		return;
	}
	snprintf(path, sizeof(path), "/proc/self/task/%d/ns/net", (int)gettid());
	sb->net_fd = open(path, O_RDONLY | O_CLOEXEC);
	sandbox_log(sb, "network namespace: an empty one");
}

int namespace_enter(const struct sandbox *sb)
{
	return sb->net_fd >= 0 && setns(sb->net_fd, CLONE_NEWNET) < 0 ? -errno : 0;
}
