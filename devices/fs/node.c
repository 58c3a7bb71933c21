/* SPDX-License-Identifier: GPL-2.0-only */
/* Files of a share: finding them, and what they are. */
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "host.h"

#define DEPTH_MAX 4096 /* of directories, on the way up to the root */

/* --- descriptors ------------------------------------------------------------------------------- */

bool fs_is_pseudo(int fd)
{
	static const uint32_t kinds[] = {
		PROC_SUPER_MAGIC,
		SYSFS_MAGIC,
		DEBUGFS_MAGIC,
		TRACEFS_MAGIC,
		SECURITYFS_MAGIC,
		CGROUP_SUPER_MAGIC,
		CGROUP2_SUPER_MAGIC,
		BPF_FS_MAGIC,
		BINFMTFS_MAGIC,
		EFIVARFS_MAGIC,
		SELINUX_MAGIC,
		SMACK_MAGIC,
		0x62656570 /* configfs */,
	};
	struct statfs sf;

	if (fstatfs(fd, &sf) < 0)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if ((uint32_t)sf.f_type == kinds[i])
			return true;
	return false;
}

struct fs_path fs_path(int fd)
{
	struct fs_path path;

	snprintf(path.text, sizeof(path.text), "/proc/self/fd/%d", fd);
	return path;
}

int fs_fd_take(struct fsdev *fs)
{
	if (__atomic_add_fetch(&fs->nfds, 1, __ATOMIC_RELAXED) <= fs->max_fds)
		return 0;
	fs_fd_release(fs);
	return -EMFILE;
}

void fs_fd_release(struct fsdev *fs)
{
	__atomic_sub_fetch(&fs->nfds, 1, __ATOMIC_RELAXED);
}

void fs_close(struct fsdev *fs, int fd)
{
	close(fd);
	fs_fd_release(fs);
}

/* --- nodes ------------------------------------------------------------------------------------- */

int fs_node_new(struct fsdev *fs, int fd, dev_t parent_dev, struct fs_node **node, struct stat *st)
{
	struct stat own;
	int ret;

	*node = malloc(sizeof(**node));
	if (!st)
		st = &own;
	ret = *node ? 0 : -ENOMEM;
	if (!ret && fstatat(fd, "", st, AT_EMPTY_PATH) < 0)
		ret = -errno;
	if (ret) {
		free(*node);
		fs_close(fs, fd);
		return ret;
	}
	**node = (struct fs_node){
		.refs = 1,
		.fd = fd,
		.dev = st->st_dev,
		.type = st->st_mode & S_IFMT,
		.barred = st->st_dev != parent_dev && fs_is_pseudo(fd),
	};
	return 0;
}

void fs_node_get(struct fs_node *node)
{
	__atomic_add_fetch(&node->refs, 1, __ATOMIC_RELAXED);
}

void fs_node_put(struct fsdev *fs, struct fs_node *node)
{
	if (!node || __atomic_sub_fetch(&node->refs, 1, __ATOMIC_ACQ_REL))
		return;
	fs_close(fs, node->fd);
	free(node);
}

int fs_root(struct fsdev *fs, struct fs_node **node, struct stat *st)
{
	int ret = fs_fd_take(fs), fd;

	if (ret)
		return ret;
	fd = fcntl(fs->root_fd, F_DUPFD_CLOEXEC, 3);
	if (fd >= 0)
		return fs_node_new(fs, fd, fs->root_dev, node, st);
	ret = -errno;
	fs_fd_release(fs);
	return ret;
}

/* --- walking ----------------------------------------------------------------------------------- */

static bool is_root(const struct fsdev *fs, const struct stat *st)
{
	return st->st_dev == fs->root_dev && st->st_ino == fs->root_ino;
}

/* Is the directory @fd, a duplicate of which is closed here, the root or below it? */
static int check_below(const struct fsdev *fs, int fd)
{
	struct stat st, last = {0};

	fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	for (int i = 0; fd >= 0 && i < DEPTH_MAX; i++) {
		int up;

		if (fstat(fd, &st) < 0)
			break;
		if (is_root(fs, &st)) {
			close(fd);
			return 0;
		}
		/* The host's own root: it has been moved out of the share. */
		if (st.st_dev == last.st_dev && st.st_ino == last.st_ino)
			break;
		last = st;
		up = openat(fd, "..", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		close(fd);
		fd = up;
	}
	if (fd >= 0)
		close(fd);
	return -EXDEV;
}

static int open_parent(const struct fsdev *fs, const struct fs_node *dir)
{
	struct stat st;
	int fd, ret;

	if (fstatat(dir->fd, "", &st, AT_EMPTY_PATH) < 0)
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	fd = openat(dir->fd, is_root(fs, &st) ? "." : "..",
		    O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret = check_below(fs, fd);
	if (!ret)
		return fd;
	close(fd);
	return ret;
}

static int open_child(const struct fsdev *fs, const struct fs_node *dir, const char *name)
{
	struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	int fd;

	if (fs->multidevs == FS_MULTIDEVS_FORBID)
		how.resolve |= RESOLVE_NO_XDEV;
	fd = syscall(SYS_openat2, dir->fd, name, &how, sizeof(how));
	return fd < 0 ? -errno : fd;
}

int fs_lookup(struct fsdev *fs, const struct fs_node *dir, const char *name, struct fs_node **node,
	      struct stat *st)
{
	int ret, fd;

	if (dir->barred)
		return -EACCES;
	ret = fs_fd_take(fs);
	if (ret)
		return ret;
	fd = strcmp(name, "..") ? open_child(fs, dir, name) : open_parent(fs, dir);
	if (fd >= 0)
		return fs_node_new(fs, fd, dir->dev, node, st);
	fs_fd_release(fs);
	return fd;
}

/* --- attributes -------------------------------------------------------------------------------- */

int fs_stat(const struct fs_node *node, struct stat *st)
{
	return fstatat(node->fd, "", st, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

int fs_chmod(const struct fs_node *node, mode_t mode)
{
	if (node->barred)
		return -EACCES;
	if (S_ISLNK(node->type))
		return -EOPNOTSUPP;
	return chmod(fs_path(node->fd).text, mode & 07777) < 0 ? -errno : 0;
}

int fs_chown(struct fsdev *fs, const struct fs_node *node, uint32_t uid, uint32_t gid)
{
	if (node->barred)
		return -EACCES;
	if (fchownat(node->fd, "", uid, gid, AT_EMPTY_PATH) == 0)
		return 0;
	return errno == EPERM && fs->security_model == FS_SECURITY_NONE ? 0 : -errno;
}

int fs_truncate(const struct fs_node *node, int fd, uint64_t size)
{
	int ret;

	if (node->barred)
		return -EACCES;
	if (!S_ISREG(node->type))
		return S_ISDIR(node->type) ? -EISDIR : -EINVAL;
	if (size > INT64_MAX)
		return -EFBIG;
	ret = fd >= 0 ? ftruncate(fd, size) : truncate(fs_path(node->fd).text, size);
	return ret < 0 ? -errno : 0;
}

int fs_utimens(const struct fs_node *node, const struct timespec times[2])
{
	if (node->barred)
		return -EACCES;
	return utimensat(AT_FDCWD, fs_path(node->fd).text, times, 0) < 0 ? -errno : 0;
}

uint64_t fs_file_id(const struct fsdev *fs, dev_t dev, ino_t ino)
{
	uint64_t x = dev;

	if (dev == fs->root_dev)
		return ino;
	/* Two rounds of MurmurHash3's finalizer; as each is a bijection, files of one device never meet. */
	for (int i = 0; i < 2; i++) {
		x ^= x >> 33;
		x *= 0xff51afd7ed558ccdull;
		x ^= x >> 33;
		x *= 0xc4ceb9fe1a85ec53ull;
		x ^= x >> 33;
		x += i ? 0 : ino;
	}
	return x;
}

/* --- extended attributes ----------------------------------------------------------------------- */

int fs_getxattr(const struct fs_node *node, const char *name, uint8_t **value)
{
	struct fs_path path = fs_path(node->fd);
	ssize_t n;

	if (node->barred)
		return -EACCES;
	*value = malloc(FS_XATTR_MAX);
	if (!*value)
		return -ENOMEM;
	n = *name ? getxattr(path.text, name, *value, FS_XATTR_MAX)
		  : listxattr(path.text, (char *)*value, FS_XATTR_MAX);
	if (n < 0)
		n = -errno;
	if (n <= 0) {
		free(*value);
		*value = NULL;
	} else {
		uint8_t *less = realloc(*value, n);

		if (less)
			*value = less;
	}
	return n;
}

int fs_setxattr(const struct fs_node *node, const char *name, const void *value, size_t len,
		int flags)
{
	struct fs_path path = fs_path(node->fd);
	int ret;

	if (node->barred)
		return -EACCES;
	ret = value ? setxattr(path.text, name, value, len, flags) : removexattr(path.text, name);
	return ret < 0 ? -errno : 0;
}
