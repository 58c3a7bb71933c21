/* SPDX-License-Identifier: GPL-2.0-only */
#include "sandbox.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "loop.h"
#include "sandbox_impl.h"

const char *const sandbox_mode_names[] = {"off", "on", "strict", NULL};

void sandbox_log(struct sandbox *sb, const char *fmt, ...)
{
	char text[400], line[420];
	va_list ap;

	if (!sb->log)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	snprintf(line, sizeof(line), "sandbox: %s", text);
	sb->log(sb->log_opaque, line);
}

int sandbox_new(struct sandbox **out, enum sandbox_mode mode,
		void (*log)(void *opaque, const char *line), void *opaque, struct hako_error *err)
{
	struct sandbox *sb = calloc(1, sizeof(*sb));

	if (!sb)
		return error_errno(err, -ENOMEM, "sandbox");
	sb->mode = mode;
	sb->log = log;
	sb->log_opaque = opaque;
	sb->net_fd = -1;
	*out = sb;
	return 0;
}

void sandbox_free(struct sandbox *sb)
{
	if (!sb)
		return;
	for (unsigned int i = 0; i < sb->npaths; i++)
		close(sb->path[i].fd);
	for (int i = 0; i < SANDBOX_THREADS; i++)
		free(sb->program[i].insn);
	if (sb->net_fd >= 0)
		close(sb->net_fd);
	free(sb);
}

void sandbox_need(struct sandbox *sb, unsigned int needs)
{
	sb->needs |= needs;
}

unsigned int sandbox_needs(const struct sandbox *sb)
{
	return sb->needs;
}

void sandbox_keep_ownership(struct sandbox *sb)
{
	sb->keep_ownership = true;
}

int sandbox_allow_path(struct sandbox *sb, enum sandbox_thread kind, const char *path, int fd,
		       enum sandbox_access access)
{
	if (sb->npaths == SANDBOX_PATHS)
		return -E2BIG;
	fd = path ? open(path, O_PATH | O_CLOEXEC) : fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	sb->path[sb->npaths++] = (struct sandbox_path){fd, kind, access};
	return 0;
}

int sandbox_allow_removal(struct sandbox *sb, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = slash ? strndup(path, slash - path + 1) : strdup(".");
	int ret = dir ? sandbox_allow_path(sb, SANDBOX_MAIN, dir, -1, SANDBOX_REMOVE) : -ENOMEM;

	free(dir);
	return ret;
}

int sandbox_add_loop(struct sandbox *sb, struct loop *loop)
{
	if (sb->nloops == SANDBOX_LOOPS)
		return -E2BIG;
	sb->loop[sb->nloops++] = loop;
	return 0;
}

int sandbox_confine_loops(struct sandbox *sb, struct hako_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < sb->nloops && !ret; i++)
		ret = loop_confine(sb->loop[i], sb, err);
	return ret;
}

static void ready_landlock(struct sandbox *sb)
{
	sb->landlock = landlock_abi();
	if (sb->landlock == 1 && (sb->needs & SANDBOX_SHARE)) {
		/* Files could not be moved from one directory to another. */
		sb->landlock = 0;
		sandbox_log(sb, "Landlock: left out, as it is too old for shared directories");
	} else if (sb->landlock) {
		sandbox_log(sb, "Landlock: version %d, %u paths", sb->landlock, sb->npaths);
	} else {
		sandbox_log(sb, "Landlock: left out, as the kernel does not have it");
	}
}

int sandbox_ready(struct sandbox *sb, struct hako_error *err)
{
	const char *missing = NULL;
	struct hako_error why;

	if (sb->mode == SANDBOX_STRICT) {
		if (namespaces_report())
			sandbox_log(sb, "namespaces: %s", namespaces_report());
		namespace_net(sb);
	}
	sandbox_log(sb, "no new privileges; capabilities: none%s",
		    sb->keep_ownership ? ", but a share's workers those of a file's owner" : "");
	ready_landlock(sb);
	if (seccomp_build(sb, &why)) {
		if (why.code != -ENOENT && why.code != -ENOTSUP)
			return error_set(err, why.code, "%s", why.message);
		missing = why.message;
	}
	if (missing)
		sandbox_log(sb, "seccomp: left out: %s", missing);
	else
		sandbox_log(sb, "seccomp: %s",
			    sb->mode == SANDBOX_STRICT ? "what is not allowed ends the process"
						       : "what is not allowed fails");
	return 0;
}

int sandbox_enter(struct sandbox *sb, enum sandbox_thread kind, struct hako_error *err)
{
	int ret = namespace_enter(sb);

	if (ret)
		return error_errno(err, ret, "--sandbox: network namespace");
	ret = privileges_drop(sb, kind);
	if (ret)
		return error_errno(err, ret, "--sandbox: dropping privileges");
	if (sb->landlock && (ret = landlock_enter(sb, kind)))
		return error_errno(err, ret, "--sandbox: Landlock");
	if (sb->seccomp && (ret = seccomp_enter(sb, kind)))
		return error_errno(err, ret, "--sandbox: seccomp");
	return 0;
}

void sandbox_probe(void (*layer)(void *opaque, const char *name, const char *text, const char *why),
		   void *opaque)
{
	int abi = landlock_abi();
	char text[64];

	layer(opaque, "seccomp", "system calls allowed by kind of thread", seccomp_missing());
	snprintf(text, sizeof(text), "version %d: files of the VM only%s", abi,
		 abi >= 4 ? ", no TCP" : "");
	layer(opaque, "Landlock", text,
	      abi ? NULL
		  : "the kernel does not have it, or does not use it (CONFIG_SECURITY_LANDLOCK, lsm=)");
	layer(opaque, "namespaces", "for --sandbox strict", namespaces_missing());
}
