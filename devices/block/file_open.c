/* SPDX-License-Identifier: GPL-2.0-only */
/* Opening image files and block devices: types, sizes, alignments, locks. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "image_lock.h"

#define LOCK_PATIENCE_NS (NSEC_PER_SEC / 2)
#define LOCK_RETRY_US	 10000

#define MAX_DEPTH 500 /* images on each other: bounds the stack that opening and using them needs */

static int try_open(const char *path, bool read_only)
{
	/* O_NONBLOCK: to get hold of what turns out to be a FIFO or a tape. It is taken back later. */
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static bool refuses_writing(int code)
{
	return code == -EACCES || code == -EPERM || code == -EROFS;
}

static int open_file(struct file_node *f, struct hako_error *err)
{
	int fd = try_open(f->filename, f->node.opts.read_only);
	int ro;

	if (fd < 0 && !f->node.opts.read_only && refuses_writing(fd)) {
		ro = try_open(f->filename, true);
		if (ro >= 0 && f->node.opts.auto_read_only) {
			f->node.read_only = true;
			return ro;
		}
		if (ro >= 0) {
			close(ro);
			error_errno(err, fd, "%s: opening for writing", f->filename);
			return error_hint(err, "read-only=on opens it for reading only");
		}
	}
	if (fd == -EISDIR)
		return error_set(err, fd, "%s is a directory, not a disk image", f->filename);
	return fd < 0 ? error_errno(err, fd, "%s", f->filename) : fd;
}

int file_find_length(struct file_node *f, uint64_t *length, struct hako_error *err)
{
	struct stat st;
	int ret = f->is_block ? ioctl(f->fd, BLKGETSIZE64, length) : fstat(f->fd, &st);

	if (ret < 0)
		return error_errno(err, -errno, "%s: size", f->filename);
	if (!f->is_block)
		*length = st.st_size;
	return 0;
}

/* Does the image stand on itself? */
static int check_openers(struct file_node *f, struct hako_error *err)
{
	const struct block_node *file;
	unsigned int depth = 0;

	for (struct block_node *n = f->node.opener; n; n = n->opener) {
		if (++depth > MAX_DEPTH)
			return error_set(err, -ELOOP, "%s: more than %u images on each other",
					 f->filename, MAX_DEPTH);
		for (file = n->file; file && !file->filename; file = file->file)
			;
		if (!file || file->ops != f->node.ops)
			continue;
		if (container_of(file, struct file_node, node)->dev == f->dev &&
		    container_of(file, struct file_node, node)->ino == f->ino)
			return error_set(err, -ELOOP, "%s: the image stands on itself",
					 f->filename);
	}
	return 0;
}

static int find_size(struct file_node *f, struct hako_error *err)
{
	struct block_node *node = &f->node;
	unsigned int physical = 512;
	uint64_t size = 0;
	int logical = 512, ret;
	struct stat st;

	if (fstat(f->fd, &st) < 0)
		return error_errno(err, -errno, "%s", f->filename);
	if (S_ISDIR(st.st_mode))
		return error_set(err, -EISDIR, "%s is a directory, not a disk image", f->filename);
	f->is_block = S_ISBLK(st.st_mode);
	if (!f->is_block && !S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "%s is neither a file nor a block device",
				 f->filename);
	if (!f->is_block && !strcmp(node->obj.class->name, "host_device"))
		return error_set(err, -EINVAL, "%s is not a block device", f->filename);
	f->dev = f->is_block ? st.st_rdev : st.st_dev;
	f->ino = f->is_block ? 0 : st.st_ino;
	ret = file_find_length(f, &size, err);
	if (ret == 0)
		ret = check_openers(f, err);
	if (ret < 0)
		return ret;
	if (f->is_block &&
	    (ioctl(f->fd, BLKSSZGET, &logical) < 0 || ioctl(f->fd, BLKPBSZGET, &physical) < 0))
		return error_errno(err, -errno, "%s: blocks of the block device", f->filename);
	/* A file that ends within a sector is taken to go on with zeroes to the sector's end; writing there lengthens it. */
	node->length = ALIGN_UP(size, 512ull);
	node->logical_block_size = logical;
	node->physical_block_size = MAX(physical, (unsigned int)logical);
	return 0;
}

/* Ask the file itself: which length does it let us read? 0: none. */
static unsigned int probe_direct(int fd)
{
	unsigned int align;
	void *buf = aligned_alloc(PAGE_SIZE, PAGE_SIZE);

	if (!buf)
		return 0;
	for (align = 512; align <= PAGE_SIZE; align *= 2)
		if (pread(fd, buf, align, 0) >= 0 || errno != EINVAL)
			break;
	free(buf);
	return align <= PAGE_SIZE ? align : 0;
}

static int find_alignment(struct file_node *f, struct hako_error *err)
{
	struct block_node *node = &f->node;
	unsigned int offset_align = 0, mem_align = 0;

	node->request_align = 512;
	node->memory_align = 1;
	if (!f->node.opts.direct)
		return 0;
	if (fcntl(f->fd, F_SETFL, O_DIRECT) < 0)
		return error_errno(err, -errno, "%s: cache.direct=on", f->filename);
#ifdef STATX_DIOALIGN
	struct statx stx;

	if (statx(f->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
	    (stx.stx_mask & STATX_DIOALIGN)) {
		offset_align = stx.stx_dio_offset_align;
		mem_align = stx.stx_dio_mem_align;
	}
#endif
	if (!offset_align)
		offset_align = mem_align = probe_direct(f->fd);
	if (!offset_align || !IS_POWER_OF_2(offset_align) || !IS_POWER_OF_2(mem_align))
		return error_set(err, -EOPNOTSUPP,
				 "%s: cache.direct=on: the file system has no direct I/O",
				 f->filename);
	node->request_align = MAX(offset_align, 512u);
	node->memory_align = mem_align;
	return 0;
}

int file_open(struct file_node *f, struct hako_error *err)
{
	struct block_node *node = &f->node;
	int ret;

	node->filename = f->filename;
	f->fd = open_file(f, err);
	if (f->fd < 0)
		return f->fd;
	ret = find_size(f, err);
	if (ret == 0 && fcntl(f->fd, F_SETFL, 0) < 0)
		ret = error_errno(err, -errno, "%s", f->filename);
	if (ret == 0)
		ret = find_alignment(f, err);
	if (ret < 0) {
		file_close(f);
		return ret;
	}
	node->can_discard = !node->read_only && node->opts.discard == BLOCK_DISCARD_UNMAP;
	node->can_write_zeroes = !node->read_only;
	node->writeback = !node->read_only;
	return 0;
}

void file_close(struct file_node *f)
{
	close(f->fd);
	f->fd = -1;
}

/* After a program has been killed the kernel takes its ring apart, and only then lets go of its files (30 to 60 ms were seen). */
static int lock_patiently(struct file_node *f, unsigned int does, unsigned int forbids,
			  struct hako_error *err)
{
	uint64_t end = clock_now() + LOCK_PATIENCE_NS;
	int ret;

	while ((ret = image_lock(f->fd, does, forbids, err)) == -EBUSY && clock_now() < end) {
		image_lock_reduce(f->fd, f->does, f->forbids);
		usleep(LOCK_RETRY_US);
	}
	return ret;
}

static int lock(struct file_node *f, unsigned int does, unsigned int forbids,
		struct hako_error *err)
{
	int ret = lock_patiently(f, does, forbids, err);

	if (ret == 0) {
		f->does = does;
		f->forbids = forbids;
		return 0;
	}
	image_lock_reduce(f->fd, f->does, f->forbids);
	if (ret != -EBUSY && f->locking == ONOFFAUTO_AUTO)
		return 0;
	error_prefix(err, "%s", f->filename);
	if (ret == -EBUSY)
		error_hint(err, "share-rw=on on both sides allows it");
	else
		error_hint(err, "locking=off does without");
	return ret;
}

int file_use(struct block_node *node, unsigned int use, struct hako_error *err)
{
	struct file_node *f = container_of(node, struct file_node, node);
	unsigned int does = IMAGE_LOCK_READ, forbids = 0;
	int ret = 0;

	if (use & BLOCK_USE_WRITE)
		does |= IMAGE_LOCK_WRITE;
	if (use & BLOCK_USE_RESIZE)
		does |= IMAGE_LOCK_RESIZE;
	if (!(use & BLOCK_USE_SHARE_WRITE))
		forbids |= IMAGE_LOCK_WRITE | IMAGE_LOCK_RESIZE;
	if (f->locking != ONOFFAUTO_OFF && !node->opts.force_share)
		ret = lock(f, does, forbids, err);
	if (ret == 0) {
		f->can_grow = (use & BLOCK_USE_RESIZE) && !f->is_block;
		f->is_full = (use & BLOCK_USE_RESIZE) && f->is_block;
	}
	return ret;
}

void file_unuse(struct block_node *node)
{
	struct file_node *f = container_of(node, struct file_node, node);

	/* Not left to close(): the kernel may hold the file a little longer. */
	if (f->does)
		image_unlock(f->fd);
	f->does = f->forbids = 0;
	f->can_grow = f->is_full = false;
}

/* The descriptor's number stays, so that nobody has to be told but the loops. */
int file_reopen(struct block_node *node, bool read_only, struct hako_error *err)
{
	struct file_node *f = container_of(node, struct file_node, node);
	int flags = (read_only ? O_RDONLY : O_RDWR) | (node->opts.direct ? O_DIRECT : 0), fd,
	    ret = 0;
	char path[32];

	file_register_all(f, false);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		ret = error_errno(err, -errno, "%s: opening for %s", f->filename,
				  read_only ? "reading" : "writing");
	if (ret == 0 && f->does)
		ret = image_lock(fd, f->does, f->forbids, err);
	if (ret == 0 && dup3(fd, f->fd, O_CLOEXEC) < 0)
		ret = error_errno(err, -errno, "%s", f->filename);
	if (fd >= 0)
		close(fd);
	file_register_all(f, true);
	node->can_discard = !read_only && node->opts.discard == BLOCK_DISCARD_UNMAP;
	return ret;
}
