/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hako exec: the initramfs. It holds process 1, the modules that are needed to reach the host's files, and the list of these in the order to
 * load them. It is kept in the cache; beside it is a list of the files it was made of, as they were then.
 */
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86/boot.h"
#include "exec.h"

#define MODULE_MAX (64 * MiB) /* unpacked */
#define DEPTH_MAX  32	      /* of modules' dependencies */

/* A growing run of bytes. */
struct bytes {
	uint8_t *p;
	size_t len, cap;
	bool failed; /* no memory */
};

struct build {
	const struct exec_kernel *kernel;
	struct bytes cpio, list,
		sources; /* list: of modules, to load; sources: the files and their state */
	struct bytes builtin,
		names; /* modules.builtin; paths of all modules, each ended by a NUL */
	unsigned int ino, depth;
};

static void add(struct bytes *b, const void *data, size_t len)
{
	if (b->len + len > b->cap) {
		size_t cap = MAX(2 * b->cap, b->len + len + 4096);
		uint8_t *p = realloc(b->p, cap);

		if (!p) {
			b->failed = true;
			return;
		}
		b->p = p;
		b->cap = cap;
	}
	if (len)
		memcpy(b->p + b->len, data, len);
	b->len += len;
}

static void add_text(struct bytes *b, const char *text)
{
	add(b, text, strlen(text));
}

/* --- files and the archive --------------------------------------------------------------------- */

/* One line of the list that tells whether a file is still the same. */
static void describe(struct bytes *b, const char *path)
{
	struct stat st = {0};
	char text[128];

	if (stat(path, &st) < 0)
		st.st_ino = 0;
	snprintf(text, sizeof(text), "%llx %llx %llx %llx ", (unsigned long long)st.st_ino,
		 (unsigned long long)st.st_size, (unsigned long long)st.st_mtim.tv_sec,
		 (unsigned long long)st.st_mtim.tv_nsec);
	add_text(b, text);
	add_text(b, path);
	add_text(b, "\n");
}

static int read_file(const char *path, struct bytes *b, struct hako_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), ret = 0;
	char buf[65536];
	ssize_t n = 0;

	if (fd < 0)
		return error_errno(err, -errno, "%s", path);
	while (!b->failed && (n = read(fd, buf, sizeof(buf))) > 0)
		add(b, buf, n);
	if (n < 0 || b->failed)
		ret = error_errno(err, b->failed ? -ENOMEM : -errno, "%s", path);
	close(fd);
	return ret;
}

/* One entry in the "new ASCII" format (Linux's Documentation/driver-api/early-userspace/buffer-format.rst). */
static void cpio_entry(struct build *b, const char *name, uint32_t mode, const void *data,
		       size_t len, unsigned int major, unsigned int minor)
{
	static const char zeroes[4];
	char head[128];

	snprintf(head, sizeof(head), "070701%08X%08X%08X%08X%08X%08X%08zX%08X%08X%08X%08X%08zX%08X",
		 ++b->ino, mode, 0, 0, 1, 0, len, 0, 0, major, minor, strlen(name) + 1, 0);
	add_text(&b->cpio, head);
	add(&b->cpio, name, strlen(name) + 1);
	add(&b->cpio, zeroes, -b->cpio.len & 3);
	add(&b->cpio, data, len);
	add(&b->cpio, zeroes, -b->cpio.len & 3);
}

/* --- modules ----------------------------------------------------------------------------------- */

/* Does the file @path hold the module @name? '-' and '_' are the same in modules' names. */
static bool is_module(const char *path, const char *name)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	size_t n = strlen(name);

	for (size_t i = 0; i < n; i++)
		if ((base[i] == '-' ? '_' : base[i]) != (name[i] == '-' ? '_' : name[i]))
			return false;
	return !strncmp(base + n, ".ko", 3) && (!base[n + 3] || base[n + 3] == '.');
}

static bool is_builtin(const struct build *b, const char *name)
{
	for (const char *line = (const char *)b->builtin.p; *line; line++) {
		const char *end = strchrnul(line, '\n');
		char path[512];

		snprintf(path, sizeof(path), "%.*s", (int)(end - line), line);
		if (is_module(path, name))
			return true;
		line = end;
		if (!*line)
			break;
	}
	return false;
}

static const char *module_path(const struct build *b, const char *name)
{
	for (size_t i = 0; i < b->names.len; i += strlen((char *)b->names.p + i) + 1)
		if (is_module((char *)b->names.p + i, name))
			return (char *)b->names.p + i;
	return NULL;
}

/* Those of a directory and below, into names. */
static int scan(struct build *b, const char *dir, struct hako_error *err)
{
	char *const dirs[] = {(char *)dir, NULL};
	FTS *fts = fts_open(dirs, FTS_LOGICAL | FTS_NOCHDIR, NULL);
	FTSENT *e;

	if (!fts)
		return error_errno(err, -errno, "%s", dir);
	while ((e = fts_read(fts)) != NULL)
		if (e->fts_info == FTS_F && strstr(e->fts_name, ".ko"))
			add(&b->names, e->fts_path, e->fts_pathlen + 1);
		else if (e->fts_info == FTS_D && e->fts_level == 1 &&
			 (!strcmp(e->fts_name, "build") || !strcmp(e->fts_name, "source")))
			fts_set(fts, e, FTS_SKIP);
	fts_close(fts);
	return 0;
}

/* What is packed is unpacked here: few kernels can do so while they load it. */
static int unpack_module(const char *path, struct bytes *b, struct hako_error *err)
{
	const char *suffix = strrchr(path, '.');
	size_t got;
	void *out;
	int ret;

	if (!strcmp(suffix, ".ko"))
		return 0;
	out = mmap(NULL, MODULE_MAX, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (out == MAP_FAILED)
		return error_errno(err, -errno, "%s", path);
	ret = unpack(unpack_detect(b->p, b->len), b->p, b->len, out, MODULE_MAX, &got, err);
	if (ret) {
		error_prefix(err, "%s", path);
	} else {
		b->len = 0;
		add(b, out, got);
	}
	munmap(out, MODULE_MAX);
	return ret;
}

static int add_module(struct build *b, const char *name, const char *needed_by,
		      struct hako_error *err);

/* "depends=a,b" in the section .modinfo. */
static int add_depends(struct build *b, const struct bytes *module, const char *name,
		       struct hako_error *err)
{
	static const char key[] = "\0depends=";
	const uint8_t *at = memmem(module->p, module->len, key, sizeof(key) - 1);
	const char *p, *end = (const char *)module->p + module->len;
	int ret = 0;

	if (!at)
		return 0;
	for (p = (const char *)at + sizeof(key) - 1; p < end && *p && !ret;) {
		char other[64];
		size_t n = 0;

		while (p < end && *p && *p != ',' && n < sizeof(other) - 1)
			other[n++] = *p++;
		other[n] = 0;
		if (n)
			ret = add_module(b, other, name, err);
		p += p < end && *p == ',';
	}
	return ret;
}

static int add_module(struct build *b, const char *name, const char *needed_by,
		      struct hako_error *err)
{
	struct bytes module = {0};
	const char *path;
	char inside[80];
	int ret;

	if (is_builtin(b, name))
		return 0;
	if (b->depth > DEPTH_MAX)
		return error_set(err, -ELOOP, "%s: modules that need each other", name);
	snprintf(inside, sizeof(inside), "/lib/%.64s.ko\n", name);
	/* Listed already? The list is short. */
	if (b->list.len && memmem(b->list.p, b->list.len, inside, strlen(inside)))
		return 0;
	path = module_path(b, name);
	if (!path)
		return error_set(err, -ENOENT, "%s: no module %s, which %s needs",
				 b->kernel->modules, name, needed_by);
	ret = read_file(path, &module, err);
	if (!ret)
		ret = unpack_module(path, &module, err);
	b->depth++;
	if (!ret)
		ret = add_depends(b, &module, name, err);
	b->depth--;
	if (!ret) {
		describe(&b->sources, path);
		add_text(&b->list, inside);
		inside[strlen(inside) - 1] = 0;
		cpio_entry(b, inside + 1, S_IFREG | 0644, module.p, module.len, 0, 0);
	}
	free(module.p);
	return ret;
}

/* --- the whole --------------------------------------------------------------------------------- */

static int add_modules(struct build *b, const char *const *names, struct hako_error *err)
{
	char *builtin;
	int ret;

	if (!b->kernel->modules) {
		/* Perhaps all is built in. If not, the guest says what is missing. */
		return 0;
	}
	builtin = str_printf("%s/modules.builtin", b->kernel->modules);
	if (!builtin)
		return error_errno(err, -ENOMEM, "modules");
	describe(&b->sources, builtin);
	ret = read_file(builtin, &b->builtin, err);
	add(&b->builtin, "", 1);
	if (!ret)
		ret = scan(b, b->kernel->modules, err);
	for (; *names && !ret; names++)
		if (**names != '?')
			ret = add_module(b, *names, "hako exec", err);
		else if (module_path(b, *names + 1))
			ret = add_module(b, *names + 1, "hako exec", err);
	free(builtin);
	return ret;
}

static int build(struct build *b, const char *const *names, struct hako_error *err)
{
	static const char *const dirs[] = {"dev", "proc", "sys", "root", "lower", "rw", "lib"};
	int ret;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		cpio_entry(b, dirs[i], S_IFDIR | 0755, NULL, 0, 0, 0);
	cpio_entry(b, "dev/console", S_IFCHR | 0600, NULL, 0, 5, 1);
	cpio_entry(b, "init", S_IFREG | 0755, exec_init, exec_init_size, 0, 0);
	ret = add_modules(b, names, err);
	if (ret)
		return ret;
	cpio_entry(b, "modules", S_IFREG | 0644, b->list.p, b->list.len, 0, 0);
	cpio_entry(b, "TRAILER!!!", 0, NULL, 0, 0, 0);
	if (b->cpio.failed || b->list.failed || b->sources.failed || b->names.failed)
		return error_errno(err, -ENOMEM, "initramfs");
	return 0;
}

/* Are the files of the list as they were? */
static bool unchanged(const char *list)
{
	struct bytes was = {0}, is = {0};
	struct hako_error ignored;
	char *line, *save, *copy;
	bool same;

	if (read_file(list, &was, &ignored)) {
		free(was.p);
		return false;
	}
	add(&was, "", 1);
	copy = was.p ? strdup((char *)was.p) : NULL;
	for (line = copy ? strtok_r(copy, "\n", &save) : NULL; line;
	     line = strtok_r(NULL, "\n", &save)) {
		const char *path = strchr(line, '/');

		describe(&is, path ?: line);
	}
	add(&is, "", 1);
	same = copy && !is.failed && is.len == was.len && !memcmp(is.p, was.p, is.len);
	free(copy);
	free(was.p);
	free(is.p);
	return same;
}

/* A file of that content, complete or not there. */
static int write_file(const char *path, const struct bytes *b, struct hako_error *err)
{
	char *tmp = str_printf("%s.XXXXXX", path);
	int fd = tmp ? mkstemp(tmp) : -1, ret;

	if (fd < 0) {
		ret = error_errno(err, tmp ? -errno : -ENOMEM, "%s", path);
		free(tmp);
		return ret;
	}
	ret = write_all(fd, b->p, b->len);
	close(fd);
	if (!ret && rename(tmp, path) < 0)
		ret = -errno;
	if (ret) {
		unlink(tmp);
		error_errno(err, ret, "%s", path);
	}
	free(tmp);
	return ret;
}

/* FNV-1a: of what decides about the content, but for the state of the files. */
static uint64_t key_of(const struct exec_kernel *k, const char *const *names)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (size_t i = 0; i < exec_init_size; i++)
		h = (h ^ exec_init[i]) * 0x100000001b3ull;
	for (const char *p = k->modules ?: ""; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
	for (; *names; names++) {
		h *= 0x100000001b3ull;
		for (const char *p = *names; *p; p++)
			h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
	}
	return h;
}

int exec_initramfs(const struct exec_kernel *kernel, const char *const *names, char **path,
		   struct hako_error *err)
{
	struct build b = {.kernel = kernel};
	char *dir = NULL, *list = NULL;
	int ret = exec_cache_dir(&dir, err);

	*path = NULL;
	if (ret)
		return ret;
	*path = str_printf("%s/initramfs-%016llx.cpio", dir,
			   (unsigned long long)key_of(kernel, names));
	list = *path ? str_printf("%s.list", *path) : NULL;
	free(dir);
	if (!list) {
		ret = error_errno(err, -ENOMEM, "initramfs");
	} else if (access(*path, R_OK) || !unchanged(list)) {
		ret = build(&b, names, err);
		/* The list last: it vouches for the archive. */
		if (!ret)
			ret = write_file(*path, &b.cpio, err);
		if (!ret)
			ret = write_file(list, &b.sources, err);
	}
	free(b.cpio.p);
	free(b.list.p);
	free(b.sources.p);
	free(b.builtin.p);
	free(b.names.p);
	free(list);
	return ret;
}
