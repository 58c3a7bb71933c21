/* SPDX-License-Identifier: GPL-2.0-only */
/* Between the files of devices/fs that touch the host's. */
#ifndef DEVICES_FS_HOST_H
#define DEVICES_FS_HOST_H

#include "fs.h"

/** Is @fd on a file system that is an interface to the kernel? */
bool fs_is_pseudo(int fd);

/* The path by which a descriptor's own file is opened or changed: a link of ours, which no guest can name. */
struct fs_path {
	char text[32];
};
struct fs_path fs_path(int fd);

/** Count one descriptor, of those that guests make us keep: -EMFILE beyond the limit. */
int fs_fd_take(struct fsdev *fs);
void fs_fd_release(struct fsdev *fs);

/** A node for @fd, which is closed if that fails, and has been counted. @st: NULL, or filled. */
int fs_node_new(struct fsdev *fs, int fd, dev_t parent_dev, struct fs_node **node, struct stat *st);

#endif
