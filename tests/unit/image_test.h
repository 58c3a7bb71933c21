/* SPDX-License-Identifier: GPL-2.0-only */
/* Images for tests, in a directory of their own, which is the current one; Debian's qemu-img and qemu-io as the judges. */
#ifndef TESTS_IMAGE_TEST_H
#define TESTS_IMAGE_TEST_H

#include <check.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/block/image.h"

static char image_dir[200];

static inline void enter_image_dir(void)
{
	const char *dir = getenv("TMPDIR");

	/* In memory: qemu-img flushes a lot. */
	if (!dir)
		dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/var/tmp";
	snprintf(image_dir, sizeof(image_dir), "%s/hako-test-XXXXXX", dir);
	ck_assert_ptr_nonnull(mkdtemp(image_dir));
	ck_assert_int_eq(chdir(image_dir), 0);
}

static inline void leave_image_dir(void)
{
	char cmd[300];

	ck_assert_int_eq(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", image_dir);
	ck_assert_int_eq(system(cmd), 0);
}

/* Run a shell command, its output in "out"; the exit status. */
static inline int __attribute__((format(printf, 1, 2))) sh(const char *fmt, ...)
{
	char cmd[2048], all[2200];
	va_list ap;
	int status;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	snprintf(all, sizeof(all), "{ %s\n} >out 2>&1 </dev/null", cmd);
	status = system(all);
	ck_assert_msg(WIFEXITED(status), "%s: killed", cmd);
	return WEXITSTATUS(status);
}

/* What the last command said; valid until the next call. */
static inline const char *sh_output(void)
{
	static char text[64 * 1024];
	int fd = open("out", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	close(fd);
	text[n > 0 ? n : 0] = 0;
	return text;
}

#define must_sh(...)                                                              \
	do {                                                                      \
		int status_ = sh(__VA_ARGS__);                                    \
		ck_assert_msg(status_ == 0, "exit %d: %s", status_, sh_output()); \
	} while (0)

static inline int create(const char *format, const char *filename, const char *options,
			 struct hako_error *err)
{
	struct keyvals kv = {0};
	int ret;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, err), 0);
	ret = image_create(image_format_find(format), filename, &kv, err);
	keyvals_free(&kv);
	return ret;
}

static inline void must_create(const char *format, const char *filename, const char *options)
{
	struct hako_error err;

	ck_assert_msg(create(format, filename, options, &err) == 0, "%s: %s", options, err.message);
}

#endif
