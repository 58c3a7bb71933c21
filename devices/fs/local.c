/* SPDX-License-Identifier: GPL-2.0-only */
/* fsdev local: a directory of the host. What it means to stay inside is told in fs.h. */
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "host.h"
#include "vmm/vm.h"

static const char *const security_names[] = {"none", "passthrough", NULL};
static const char *const multidevs_names[] = {"remap", "forbid", NULL};

int fs_find(struct vm *vm, const char *id, struct fsdev **fs, struct hako_error *err)
{
	struct object *obj = object_find(vm, CLASS_FSDEV, id);

	if (!obj)
		return error_set(err, -ENODEV, "fsdev=%s: there is no such fsdev", id);
	*fs = container_of(obj, struct fsdev, obj);
	return 0;
}

/* A guest's files must not use up the descriptors that the rest of the process needs. */
static uint32_t fd_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0 || rl.rlim_cur == RLIM_INFINITY)
		rl.rlim_cur = 1 << 20;
	return MIN(rl.rlim_cur, 1u << 20) / 4 * 3;
}

static int local_create(struct object *obj, struct hako_error *err)
{
	struct fsdev *fs = container_of(obj, struct fsdev, obj);
	struct stat st;
	int ret = 0;

	fs->root_fd = open(fs->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fs->root_fd < 0)
		return error_errno(err, -errno, "path=%s", fs->path);
	if (fstat(fs->root_fd, &st) < 0)
		ret = error_errno(err, -errno, "path=%s", fs->path);
	else if (fs_is_pseudo(fs->root_fd))
		ret = error_set(err, -EOPNOTSUPP, "path=%s: a file system of the kernel", fs->path);
	else if (access("/proc/self/fd", X_OK) < 0)
		ret = error_errno(err, -errno, "/proc/self/fd, which sharing a directory needs");
	if (ret) {
		close(fs->root_fd);
		return ret;
	}
	fs->root_dev = st.st_dev;
	fs->root_ino = st.st_ino;
	fs->max_fds = fd_limit();
	return 0;
}

static void local_destroy(struct object *obj)
{
	close(container_of(obj, struct fsdev, obj)->root_fd);
}

static int local_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct fsdev *fs = container_of(obj, struct fsdev, obj);
	int ret;

	sandbox_keep_ownership(sb);
	ret = sandbox_allow_path(sb, SANDBOX_WORKER, NULL, fs->root_fd,
				 fs->readonly ? SANDBOX_READ : SANDBOX_WRITE);
	return ret ? error_errno(err, ret, "path=%s", fs->path) : 0;
}

static const struct option local_options[] = {
	OPT_STRING_REQUIRED("path", struct fsdev, path, "the directory"),
	OPT_ENUM("security_model", struct fsdev, security_model, "none", security_names,
		 "owners of new files: passthrough: the guest's, as root; none: if possible"),
	OPT_BOOL("readonly", struct fsdev, readonly, "off", "the guest cannot change anything"),
	OPT_ENUM("multidevs", struct fsdev, multidevs, "remap", multidevs_names,
		 "other file systems mounted below: remap their inode numbers, or forbid"),
	OPT_END,
};

static const struct class local_class = {
	.name = "local",
	.help = "a directory of the host",
	.kind = CLASS_FSDEV,
	.size = sizeof(struct fsdev),
	.options = local_options,
	.create = local_create,
	.destroy = local_destroy,
	.needs = SANDBOX_SHARE,
	.confine = local_confine,
};
HAKO_CLASS(local_class);
