/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --seclabel: a label of SELinux or a profile of AppArmor for the process. The kernel gives it at an execve(), so the program executes itself
 * once more, with the same arguments and descriptors. The environment tells the second from the first.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jail.h"

#define MARK	 "HAKO_SECLABEL" /* the process's number, behind its execve() */
#define APPARMOR "/proc/thread-self/attr/apparmor/"
#define SELINUX	 "/proc/thread-self/attr/"

/* The text of a file, with a NUL behind it; bytes, or a negative errno. */
static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n, len = 0;

	if (fd < 0)
		return -errno;
	while ((n = read(fd, text + len, size - 1 - len)) > 0)
		len += n;
	n = n < 0 ? -errno : len;
	close(fd);
	text[len] = 0;
	return n;
}

/* The label that the process has; false if the kernel labels none. */
static bool current_label(char *text, size_t size, bool *apparmor)
{
	struct stat st;

	*apparmor = read_text(APPARMOR "current", text, size) > 0;
	if (!*apparmor &&
	    (stat("/sys/fs/selinux/enforce", &st) || read_text(SELINUX "current", text, size) <= 0))
		return false;
	text[strcspn(text, "\n")] = 0;
	/* AppArmor's mode: "NAME (enforce)". */
	if (*apparmor && strstr(text, " ("))
		*strrchr(text, '(') = 0, text[strlen(text) - 1] = 0;
	return true;
}

static int set_label(const char *label, bool apparmor)
{
	const char *path = apparmor ? APPARMOR "exec" : SELINUX "exec";
	char *text;
	int fd, ret;

	if (asprintf(&text, "%s%s", apparmor ? "exec " : "", label) < 0)
		return -ENOMEM;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ret = fd < 0 ? -errno : 0;
	/* In one piece. */
	if (!ret && write(fd, text, strlen(text)) < 0)
		ret = -errno;
	if (fd >= 0)
		close(fd);
	free(text);
	return ret;
}

static int execute_again(void)
{
	static char text[1 << 21]; /* what the kernel takes at most */
	ssize_t len = read_text("/proc/self/cmdline", text, sizeof(text));
	char **argv, pid[16], *p = text;
	size_t n = 0;

	if (len < 0)
		return len;
	for (ssize_t i = 0; i < len; i++)
		n += !text[i];
	argv = calloc(n + 1, sizeof(*argv));
	if (!argv)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++, p += strlen(p) + 1)
		argv[i] = p;
	snprintf(pid, sizeof(pid), "%d", getpid());
	if (!setenv(MARK, pid, 1))
		execv("/proc/self/exe", argv);
	free(argv);
	return -errno;
}

int jail_label(const struct jail_config *jail, struct hako_error *err)
{
	const char *label = jail->seclabel, *mark = getenv(MARK);
	char now[4096];
	bool again = mark && atoi(mark) == getpid(), apparmor;
	int r;

	if (!label)
		return 0;
	unsetenv(MARK);
	if (!current_label(now, sizeof(now), &apparmor)) {
		error_set(
			err, -ENOTSUP,
			"--seclabel %s: this kernel labels no processes: neither SELinux nor AppArmor is on",
			label);
		return -ENOTSUP;
	}
	if (!strcmp(now, label))
		return 0;
	if (again)
		return error_set(err, -EACCES, "--seclabel %s: the process is %s instead", label,
				 now);
	r = set_label(label, apparmor) ?: execute_again();
	error_errno(err, r, "--seclabel %s", label);
	if (r == -ENOENT && apparmor)
		error_hint(err, "load the profile first: apparmor_parser -r FILE");
	return r;
}
