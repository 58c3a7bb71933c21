/* SPDX-License-Identifier: GPL-2.0-only */
/* hako exec: which kernel, and where its modules are. */
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "exec.h"

#define RELEASE_MAX 128

extern char **environ;

void exec_kernel_free(struct exec_kernel *k)
{
	free(k->image);
	free(k->release);
	free(k->modules);
	*k = (struct exec_kernel){0};
}

static int no_memory(struct hako_error *err)
{
	return error_errno(err, -ENOMEM, "hako exec");
}

/* --- directories ------------------------------------------------------------------------------- */

static int make_dir(const char *path)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

int exec_cache_dir(char **path, struct hako_error *err)
{
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	char *parent;
	int ret;

	*path = NULL;
	/* Not in /tmp: what others may have put there would be booted. */
	if (base && *base == '/')
		parent = strdup(base);
	else if (home && *home == '/')
		parent = str_printf("%s/.cache", home);
	else
		return error_set(
			err, -ENOENT,
			"neither XDG_CACHE_HOME nor HOME names a directory for the initramfs");
	*path = parent ? str_printf("%s/hako", parent) : NULL;
	if (!*path) {
		free(parent);
		return no_memory(err);
	}
	ret = make_dir(parent) ?: make_dir(*path);
	if (ret) {
		error_errno(err, ret, "%s", *path);
		free(*path);
	}
	free(parent);
	return ret;
}

/* The newest of the files that @pattern matches; NULL if there is none. */
static char *newest(const char *pattern)
{
	const char *best = NULL;
	char *copy = NULL;
	glob_t g;

	if (glob(pattern, 0, NULL, &g))
		return NULL;
	for (size_t i = 0; i < g.gl_pathc; i++)
		if (!best || strverscmp(g.gl_pathv[i], best) > 0)
			best = g.gl_pathv[i];
	if (best)
		copy = strdup(best);
	globfree(&g);
	return copy;
}

/* --- Debian packages --------------------------------------------------------------------------- */

static int run_dpkg_deb(const char *package, const char *to, struct hako_error *err)
{
	char *argv[] = {(char *)"dpkg-deb", (char *)"-x", (char *)package, (char *)to, NULL};
	posix_spawn_file_actions_t quiet;
	int status, ret;
	pid_t pid;

	posix_spawn_file_actions_init(&quiet);
	posix_spawn_file_actions_addopen(&quiet, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
	ret = posix_spawnp(&pid, argv[0], &quiet, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&quiet);
	if (ret)
		return error_errno(err, -ret, "--kernel %s: dpkg-deb, which unpacks it", package);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status)
		return error_set(
			err, -EINVAL,
			"--kernel %s: dpkg-deb cannot unpack it (\"dpkg-deb -x\" says why)",
			package);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Complete in @dir, or not there. @tmp is a pattern for its name until then. */
static int unpack_into(const char *package, char *tmp, const char *dir, struct hako_error *err)
{
	int ret;

	if (!mkdtemp(tmp))
		return error_errno(err, -errno, "%s", tmp);
	ret = run_dpkg_deb(package, tmp, err);
	if (!ret && rename(tmp, dir) == 0)
		return 0;
	/* Another hako may have been faster. */
	if (!ret && access(dir, F_OK) < 0)
		ret = error_errno(err, -errno, "%s", dir);
	remove_tree(tmp);
	return ret;
}

/* Unpack it, unless that has been done, to a directory that is named after the file as it is. */
static int unpack_package(const char *package, char **dir, struct hako_error *err)
{
	char *cache = NULL, *tmp = NULL;
	struct stat st;
	int ret;

	if (stat(package, &st) < 0)
		return error_errno(err, -errno, "--kernel %s", package);
	ret = exec_cache_dir(&cache, err);
	if (ret)
		return ret;
	*dir = str_printf("%s/package-%llx-%llx-%llx", cache, (unsigned long long)st.st_ino,
			  (unsigned long long)st.st_size,
			  (unsigned long long)st.st_mtim.tv_sec * NSEC_PER_SEC +
				  st.st_mtim.tv_nsec);
	tmp = str_printf("%s/unpack-XXXXXX", cache);
	free(cache);
	if (!*dir || !tmp) {
		ret = no_memory(err);
	} else if (access(*dir, F_OK) < 0) {
		ret = unpack_into(package, tmp, *dir, err);
	}
	free(tmp);
	return ret;
}

/* --- images ------------------------------------------------------------------------------------ */

/* The release in a bzImage's header (Linux's boot protocol: kernel_version), or in an uncompressed kernel's banner. */
static void find_release(const uint8_t *p, size_t size, char release[RELEASE_MAX])
{
	static const char banner[] = "Linux version ";
	const uint8_t *at = NULL;
	size_t n;

	if (size > 0x210 && !memcmp(p + 0x202, "HdrS", 4)) {
		n = get_le16(p + 0x20e) + 0x200;
		at = n < size ? p + n : NULL;
	} else {
		at = memmem(p, size, banner, sizeof(banner) - 1);
		at = at ? at + sizeof(banner) - 1 : NULL;
	}
	for (n = 0; at && at + n < p + size && n < RELEASE_MAX - 1 && at[n] > ' ' && at[n] < 127 &&
		    at[n] != '/';
	     n++)
		release[n] = at[n];
	release[n] = 0;
}

static int read_release(struct exec_kernel *k, struct hako_error *err)
{
	int fd = open(k->image, O_RDONLY | O_CLOEXEC), ret;
	char release[RELEASE_MAX] = "";
	struct stat st;
	void *p;

	if (fd < 0)
		return error_errno(err, -errno, "--kernel %s", k->image);
	p = fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)
		    ? MAP_FAILED
		    : mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p != MAP_FAILED) {
		find_release(p, st.st_size, release);
		munmap(p, st.st_size);
	}
	close(fd);
	k->release = strdup(release);
	ret = k->release ? 0 : no_memory(err);
	if (!ret && !*release)
		ret = error_set(err, -EINVAL, "--kernel %s: not a kernel of Linux", k->image);
	return ret;
}

/* Beside the kernel, as in a package, or where the release's modules are installed. */
static int find_modules(struct exec_kernel *k, struct hako_error *err)
{
	const char *slash = strrchr(k->image, '/');
	int n = slash ? slash - k->image : 1;
	const char *dir = slash ? k->image : ".";
	char *places[] = {
		str_printf("%.*s/modules", n, dir),
		str_printf("%.*s/lib/modules/%s", n, dir, k->release),
		str_printf("%.*s/../lib/modules/%s", n, dir, k->release),
		str_printf("%.*s/../usr/lib/modules/%s", n, dir, k->release),
		str_printf("/lib/modules/%s", k->release),
	};

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		char *builtin = places[i] ? str_printf("%s/modules.builtin", places[i]) : NULL;

		if (!k->modules && builtin && !access(builtin, R_OK))
			k->modules = realpath(places[i], NULL);
		free(builtin);
		free(places[i]);
	}
	return 0;
}

static bool is_package(const char *name)
{
	size_t n = strlen(name);

	return n > 4 && !strcmp(name + n - 4, ".deb");
}

int exec_kernel_find(struct exec_kernel *k, const char *name, struct hako_error *err)
{
	char *dir = NULL, *pattern;
	int ret = 0;

	*k = (struct exec_kernel){0};
	if (name && !is_package(name)) {
		k->image = strdup(name);
	} else {
		if (name)
			ret = unpack_package(name, &dir, err);
		pattern = ret ? NULL : str_printf("%s/boot/vmlinuz-*", dir ?: "");
		k->image = pattern ? newest(pattern) : NULL;
		free(pattern);
		free(dir);
		if (!ret && !k->image)
			ret = error_set(err, -ENOENT,
					name ? "--kernel %s: there is no kernel in it"
					     : "no kernel is installed in /boot: name one with "
					       "--kernel%s",
					name ?: "");
	}
	if (!ret && !k->image)
		ret = no_memory(err);
	if (!ret)
		ret = read_release(k, err);
	return ret ?: find_modules(k, err);
}
