/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Host directories that guests mount. The guest is hostile: it gets no farther than the directory.
 *
 * Every file is reached by one name at a time, relative to the descriptor of a directory that was reached in the same way, and no symbolic
 * link is ever followed here (the guest's client reads links and walks by itself). So there is no path that a rename could redirect.
 * What is not a regular file or a directory is never opened, and files of the kernel (/proc, /sys) cannot be reached below a share.
 *
 * All functions are for any thread, several at once; they block. They return 0 (or what is said) or a negative errno.
 */
#ifndef DEVICES_FS_FS_H
#define DEVICES_FS_FS_H

#include <sys/stat.h>

#include "vmm/object.h"

enum fs_security {
	FS_SECURITY_NONE,	 /* files that the host's user makes may keep his ownership */
	FS_SECURITY_PASSTHROUGH, /* owners are the guest's, or the request fails */
};

enum fs_multidevs {
	FS_MULTIDEVS_REMAP,
	FS_MULTIDEVS_FORBID,
};

/* A shared directory. Constant but for nfds. */
struct fsdev {
	struct object obj;
	/* Options. */
	char *path;
	int security_model, multidevs;
	bool readonly;

	int root_fd;
	dev_t root_dev;
	ino_t root_ino;
	uint32_t max_fds; /* that guests may have us keep open */
	uint32_t nfds;	  /* atomic */
};

/* A file of the share, by a descriptor that is good for naming it only (O_PATH). */
struct fs_node {
	uint32_t refs; /* atomic */
	int fd;
	dev_t dev;
	mode_t type; /* S_IFMT */
	bool barred; /* a file system of the kernel is mounted there: nothing in it can be had */
};

/* Who makes a file, for the file's owner. */
struct fs_owner {
	uint32_t uid, gid;
};

/** The fsdev of that id for a device's option: an error if there is none. */
int fs_find(struct vm *vm, const char *id, struct fsdev **fs, struct hako_error *err);

/** The directory itself; @st may be NULL. As with all that give a node, fs_node_put() ends it. */
int fs_root(struct fsdev *fs, struct fs_node **node, struct stat *st);
/** @name in @dir: one component, or "..", which in the root is the root. */
int fs_lookup(struct fsdev *fs, const struct fs_node *dir, const char *name, struct fs_node **node,
	      struct stat *st);
void fs_node_get(struct fs_node *node);
void fs_node_put(struct fsdev *fs, struct fs_node *node);

/** Open a regular file or directory: a descriptor, which fs_close() ends. @flags: access mode, O_TRUNC, O_SYNC, O_DSYNC, O_DIRECTORY. */
int fs_open(struct fsdev *fs, const struct fs_node *node, int flags);
/** Make (unless it is there and O_EXCL is not in @flags) and open a regular file. A descriptor. */
int fs_create(struct fsdev *fs, const struct fs_node *dir, const char *name, int flags, mode_t mode,
	      const struct fs_owner *owner, struct fs_node **node, struct stat *st);
void fs_close(struct fsdev *fs, int fd);

int fs_mkdir(struct fsdev *fs, const struct fs_node *dir, const char *name, mode_t mode,
	     const struct fs_owner *owner, struct stat *st);
int fs_symlink(struct fsdev *fs, const struct fs_node *dir, const char *name, const char *target,
	       const struct fs_owner *owner, struct stat *st);
/** Of device nodes only overlayfs's whiteouts (character device 0, 0) can be made. */
int fs_mknod(struct fsdev *fs, const struct fs_node *dir, const char *name, mode_t mode, dev_t rdev,
	     const struct fs_owner *owner, struct stat *st);
int fs_link(struct fsdev *fs, const struct fs_node *node, const struct fs_node *dir,
	    const char *name);
int fs_rename(struct fsdev *fs, const struct fs_node *from_dir, const char *from,
	      const struct fs_node *to_dir, const char *to);
/** @dir_only: rmdir, else unlink. */
int fs_unlink(struct fsdev *fs, const struct fs_node *dir, const char *name, bool dir_only);

int fs_stat(const struct fs_node *node, struct stat *st);
int fs_chmod(const struct fs_node *node, mode_t mode);
int fs_chown(struct fsdev *fs, const struct fs_node *node, uint32_t uid, uint32_t gid);
/** @fd: of the file opened for writing, or -1. */
int fs_truncate(const struct fs_node *node, int fd, uint64_t size);
int fs_utimens(const struct fs_node *node, const struct timespec times[2]);

#define FS_XATTR_MAX 65536 /* Linux's XATTR_SIZE_MAX and XATTR_LIST_MAX */
/** The value of attribute @name, or with an empty name the list of names, in memory that the caller frees. Its length. */
int fs_getxattr(const struct fs_node *node, const char *name, uint8_t **value);
/** Without a @value remove it. */
int fs_setxattr(const struct fs_node *node, const char *name, const void *value, size_t len,
		int flags);

/** A number for the file that is unique in the share: the inode's, mixed with the device's where that is another than the root's. */
uint64_t fs_file_id(const struct fsdev *fs, dev_t dev, ino_t ino);

#endif
