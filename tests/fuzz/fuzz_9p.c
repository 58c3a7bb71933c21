/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any messages to a 9P server of a directory, which they may change but not leave. Each message of the input is a type, two bytes of length and
 * the body; with bit 7 of the type the size in its header is taken from the body's first bytes instead.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/fs/p9.h"
#include "vmm/vm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define SECRET "not to be had"

static struct vm *vm;
static struct p9_session *session;
static struct fsdev *fs;
static char base[128], share[160], secret[160];
static uint8_t reply[65536];

static void check(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "9p: %s\n", what);
		abort();
	}
}

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	check(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), path);
	close(fd);
}

static void populate(void)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/d", share);
	check(!mkdir(path, 0755), path);
	snprintf(path, sizeof(path), "%s/f", share);
	put(path, "some text");
	snprintf(path, sizeof(path), "%s/l", share);
	check(!symlink("../secret", path), path);
}

static int remove_all(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return remove(path);
}

static int remove_below(const char *path, const struct stat *st, int type, struct FTW *f)
{
	return f->level ? remove(path) : 0;
}

static void clean(void)
{
	nftw(base, remove_all, 32, FTW_DEPTH | FTW_PHYS);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct rlimit limit = {64 << 20, 64 << 20};
	const struct class *cls = class_find(CLASS_FSDEV, "local");
	struct keyvals kv = {0};
	struct hako_error err;
	struct object *obj = NULL;

	/* What is written far behind a file's end takes no room, and no time. */
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	snprintf(base, sizeof(base), "%s/hako-9p-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	check(mkdtemp(base), base);
	atexit(clean);
	snprintf(share, sizeof(share), "%s/share", base);
	snprintf(secret, sizeof(secret), "%s/secret", base);
	put(secret, SECRET);
	check(!mkdir(share, 0755), share);
	populate();
	check(!vm_new_plain(&vm, 0, &err), err.message);
	check(!keyvals_add(&kv, "id", "fs") && !keyvals_add(&kv, "path", share), "memory");
	check(!object_new(vm, cls, &kv, &obj, &err), err.message);
	keyvals_free(&kv);
	fs = (struct fsdev *)obj;
	check(!p9_session_new(&session, fs), "session");
	return 0;
}

static void serve(uint8_t *message, uint32_t len)
{
	/* Borders in the midst of fields. */
	struct iovec iov[4] = {
		{message, MIN(len, 9u)},
		{message + MIN(len, 9u), len - MIN(len, 9u)},
		{reply, 13},
		{reply + 13, sizeof(reply) - 13},
	};
	struct p9_request req = {iov, iov + 2, 2, 2, len, sizeof(reply)};
	struct p9_header h;
	uint32_t got;

	if (p9_header(&req, &h))
		return;
	got = p9_serve(session, &req, &h);
	check(got >= P9_HEADER && got <= sizeof(reply) && get_le32(reply) == got, "size");
	check(get_le16(reply + 5) == h.tag, "tag");
	check(reply[4] == (uint8_t)(h.type + 1) || (reply[4] == P9_RLERROR && got == 11), "type");
}

/* What lies outside is as it was. */
static void check_outside(void)
{
	char text[32] = "";
	int fd = open(secret, O_RDONLY | O_CLOEXEC), n = 0;
	DIR *dir = opendir(base);

	check(fd >= 0 && read(fd, text, sizeof(text) - 1) >= 0 && !strcmp(text, SECRET), "secret");
	close(fd);
	while (readdir(dir))
		n++;
	closedir(dir);
	check(n == 4, "files outside");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *p = data, *end = data + size;

	while (end - p >= 3) {
		uint8_t type = *p & 0x7f;
		bool lies = *p & 0x80;
		size_t len = MIN((size_t)get_le16(p + 1), (size_t)(end - p - 3));
		uint8_t *message = malloc(P9_HEADER + len);

		p += 3;
		check(message, "memory");
		put_le32(message, lies && len >= 4 ? get_le32(p) : P9_HEADER + len);
		message[4] = type;
		put_le16(message + 5, 1);
		memcpy(message + P9_HEADER, p, len);
		serve(message, P9_HEADER + len);
		free(message);
		p += len;
	}
	p9_session_reset(session);
	check_outside();
	check(!nftw(share, remove_below, 32, FTW_DEPTH | FTW_PHYS), "removing");
	populate();
	return 0;
}
