/* SPDX-License-Identifier: GPL-2.0-only */
/* Files of a share: opening, making, naming and removing them. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "host.h"

#define CREATE_TRIES 16 /* while somebody makes and removes the same file */

/* --- opening ----------------------------------------------------------------------------------- */

int fs_open(struct fsdev *fs, const struct fs_node *node, int flags)
{
	int fd, ret;

	if (node->barred)
		return -EACCES;
	/* Opening a FIFO or a device could wait, or do things. */
	if (!S_ISREG(node->type) && !S_ISDIR(node->type))
		return S_ISLNK(node->type) ? -ELOOP : -ENXIO;
	ret = fs_fd_take(fs);
	if (ret)
		return ret;
	fd = open(fs_path(node->fd).text, (flags & ~(O_CREAT | O_EXCL)) | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	ret = -errno;
	fs_fd_release(fs);
	return ret;
}

/* Make a regular file that is not there. A descriptor, counted. */
static int open_new(struct fsdev *fs, const struct fs_node *dir, const char *name, int flags,
		    mode_t mode)
{
	struct open_how how = {
		.flags = flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
		.mode = mode & 0777,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS,
	};
	int ret = fs_fd_take(fs), fd;

	if (ret)
		return ret;
	fd = syscall(SYS_openat2, dir->fd, name, &how, sizeof(how));
	if (fd >= 0)
		return fd;
	ret = -errno;
	fs_fd_release(fs);
	return ret;
}

/* --- owners ------------------------------------------------------------------------------------ */

/* Give what has just been made its owner and mode, which the umask has cut. Setting the owner clears the set-ID bits: it comes first. */
static int adopt(struct fsdev *fs, const struct fs_node *node, mode_t mode,
		 const struct fs_owner *owner, struct stat *st)
{
	int ret = 0;

	if (st->st_uid != owner->uid || st->st_gid != owner->gid)
		ret = fs_chown(fs, node, owner->uid, owner->gid);
	if (!ret && !S_ISLNK(node->type) && (st->st_mode & 07777) != (mode & 07777))
		ret = fs_chmod(node, mode);
	return ret ?: fs_stat(node, st);
}

static int adopt_name(struct fsdev *fs, const struct fs_node *dir, const char *name, mode_t mode,
		      const struct fs_owner *owner, struct stat *st)
{
	struct fs_node *node;
	int ret = fs_lookup(fs, dir, name, &node, st);

	if (ret)
		return ret;
	ret = adopt(fs, node, mode, owner, st);
	if (ret)
		unlinkat(dir->fd, name, S_ISDIR(node->type) ? AT_REMOVEDIR : 0);
	fs_node_put(fs, node);
	return ret;
}

/* --- making ------------------------------------------------------------------------------------ */

/* The node of @fd, which has just been made and opened. */
static int node_of_new(struct fsdev *fs, const struct fs_node *dir, int fd, struct fs_node **node,
		       struct stat *st)
{
	int ret = fs_fd_take(fs), path_fd;

	if (ret)
		return ret;
	path_fd = open(fs_path(fd).text, O_PATH | O_CLOEXEC);
	if (path_fd >= 0)
		return fs_node_new(fs, path_fd, dir->dev, node, st);
	ret = -errno;
	fs_fd_release(fs);
	return ret;
}

static int create_new(struct fsdev *fs, const struct fs_node *dir, const char *name, int flags,
		      mode_t mode, const struct fs_owner *owner, struct fs_node **node,
		      struct stat *st)
{
	int fd = open_new(fs, dir, name, flags, mode), ret;

	if (fd < 0)
		return fd;
	ret = node_of_new(fs, dir, fd, node, st);
	if (!ret) {
		ret = adopt(fs, *node, mode, owner, st);
		if (ret)
			fs_node_put(fs, *node);
	}
	if (!ret)
		return fd;
	unlinkat(dir->fd, name, 0);
	fs_close(fs, fd);
	return ret;
}

static int open_existing(struct fsdev *fs, const struct fs_node *dir, const char *name, int flags,
			 struct fs_node **node, struct stat *st)
{
	int ret = fs_lookup(fs, dir, name, node, st), fd;

	if (ret)
		return ret;
	fd = S_ISDIR((*node)->type) ? -EISDIR : fs_open(fs, *node, flags);
	if (fd < 0)
		fs_node_put(fs, *node);
	return fd;
}

int fs_create(struct fsdev *fs, const struct fs_node *dir, const char *name, int flags, mode_t mode,
	      const struct fs_owner *owner, struct fs_node **node, struct stat *st)
{
	int ret = -EACCES;

	if (dir->barred)
		return ret;
	for (int i = 0; i < CREATE_TRIES; i++) {
		ret = create_new(fs, dir, name, flags, mode, owner, node, st);
		if (ret != -EEXIST || (flags & O_EXCL))
			break;
		ret = open_existing(fs, dir, name, flags, node, st);
		if (ret != -ENOENT)
			break;
	}
	return ret;
}

int fs_mkdir(struct fsdev *fs, const struct fs_node *dir, const char *name, mode_t mode,
	     const struct fs_owner *owner, struct stat *st)
{
	if (dir->barred)
		return -EACCES;
	if (mkdirat(dir->fd, name, mode & 01777) < 0)
		return -errno;
	return adopt_name(fs, dir, name, mode, owner, st);
}

int fs_symlink(struct fsdev *fs, const struct fs_node *dir, const char *name, const char *target,
	       const struct fs_owner *owner, struct stat *st)
{
	if (dir->barred)
		return -EACCES;
	if (symlinkat(target, dir->fd, name) < 0)
		return -errno;
	return adopt_name(fs, dir, name, 0777, owner, st);
}

int fs_mknod(struct fsdev *fs, const struct fs_node *dir, const char *name, mode_t mode, dev_t rdev,
	     const struct fs_owner *owner, struct stat *st)
{
	bool whiteout = S_ISCHR(mode) && !rdev;

	if (dir->barred)
		return -EACCES;
	/* A guest's device node would be a door to the host's devices for whoever is allowed to open it there. */
	if (!S_ISREG(mode) && !S_ISFIFO(mode) && !S_ISSOCK(mode) && !whiteout)
		return -EPERM;
	if (mknodat(dir->fd, name, mode & (S_IFMT | 0777), whiteout ? makedev(0, 0) : 0) < 0)
		return -errno;
	return adopt_name(fs, dir, name, mode, owner, st);
}

/* --- naming ------------------------------------------------------------------------------------ */

int fs_link(struct fsdev *fs, const struct fs_node *node, const struct fs_node *dir,
	    const char *name)
{
	if (node->barred || dir->barred)
		return -EACCES;
	return linkat(AT_FDCWD, fs_path(node->fd).text, dir->fd, name, AT_SYMLINK_FOLLOW) < 0
		       ? -errno
		       : 0;
}

int fs_rename(struct fsdev *fs, const struct fs_node *from_dir, const char *from,
	      const struct fs_node *to_dir, const char *to)
{
	if (from_dir->barred || to_dir->barred)
		return -EACCES;
	return renameat(from_dir->fd, from, to_dir->fd, to) < 0 ? -errno : 0;
}

int fs_unlink(struct fsdev *fs, const struct fs_node *dir, const char *name, bool dir_only)
{
	if (dir->barred)
		return -EACCES;
	return unlinkat(dir->fd, name, dir_only ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}
