/* SPDX-License-Identifier: GPL-2.0-only */
/* Image files: requests that block, for opening and closing; where the holes are; changes of size. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

/* --- requests in the caller's thread ----------------------------------------------------------- */

static int rw_piece(struct file_node *f, bool write, uint64_t offset, uint8_t *buf, size_t len)
{
	const struct iovec iov = {buf, len};

	if (f->node.opts.direct && !file_takes_direct(f, offset, &iov, 1))
		return file_bounce(f, write, offset, &iov, 1);
	while (len) {
		ssize_t n = write ? pwrite(f->fd, buf, len, offset)
				  : pread(f->fd, buf, len, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 && write)
			return -EIO;
		if (n == 0) { /* beyond the end */
			memset(buf, 0, len);
			return 0;
		}
		buf += n;
		offset += n;
		len -= n;
		if (len && f->node.opts.direct)
			return rw_piece(f, write, offset, buf,
					len); /* what is left need not be aligned */
	}
	return 0;
}

static int rw_sync(struct file_node *f, const struct block_req *req)
{
	uint64_t offset = req->offset;
	bool write = req->op == BLOCK_WRITE;
	int ret = 0;

	if (f->node.opts.direct && !file_takes_direct(f, offset, req->iov, req->niov))
		return file_bounce(f, write, offset, req->iov, req->niov);
	for (int i = 0; i < req->niov && ret == 0; i++) {
		ret = rw_piece(f, write, offset, req->iov[i].iov_base, req->iov[i].iov_len);
		offset += req->iov[i].iov_len;
	}
	return ret;
}

static int write_zeroes(struct file_node *f, uint64_t offset, uint64_t bytes)
{
	const size_t size = MIN(bytes, 256 * KiB);
	void *buf = aligned_alloc(PAGE_SIZE, ALIGN_UP(size, PAGE_SIZE));
	int ret = buf ? 0 : -ENOMEM;

	if (buf)
		memset(buf, 0, size);
	while (bytes && ret == 0) {
		size_t n = MIN(bytes, size);

		ret = rw_piece(f, true, offset, buf, n);
		offset += n;
		bytes -= n;
	}
	free(buf);
	return ret;
}

static int zero_sync(struct file_node *f, const struct block_req *req)
{
	int mode, ret;

	do {
		mode = file_zero_mode(f, req);
		ret = mode && fallocate(f->fd, mode, req->offset, req->bytes) < 0 ? -errno : 0;
	} while (ret < 0 && file_zero_retry(f, mode, ret));
	if (mode && ret != -EINVAL)
		return ret;
	return req->flags & BLOCK_NO_FALLBACK ? -EOPNOTSUPP
					      : write_zeroes(f, req->offset, req->bytes);
}

static int discard_sync(struct file_node *f, const struct block_req *req)
{
	uint64_t start, len;

	if (file_discard_range(f, req, &start, &len) &&
	    fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, len) < 0 &&
	    errno != EOPNOTSUPP && errno != ENODEV && errno != ENOSYS && errno != ENOTTY)
		return -errno;
	return 0;
}

int file_sync(struct block_node *node, struct block_req *req)
{
	struct file_node *f = container_of(node, struct file_node, node);
	bool stable = req->op == BLOCK_FLUSH || (req->flags & BLOCK_FUA);
	int ret = req->op == BLOCK_FLUSH ? 0 : file_check_request(f, req);

	if (ret < 0)
		return ret;
	switch (req->op) {
	case BLOCK_READ:
		return rw_sync(f, req);
	case BLOCK_WRITE:
		ret = rw_sync(f, req);
		break;
	case BLOCK_WRITE_ZEROES:
		ret = zero_sync(f, req);
		break;
	case BLOCK_DISCARD:
		ret = discard_sync(f, req);
		break;
	case BLOCK_FLUSH:
		break;
	}
	if (ret == 0 && req->op != BLOCK_FLUSH)
		file_grown(f, req->offset + req->bytes);
	if (ret == 0 && stable && !node->opts.no_flush && !node->read_only && fdatasync(f->fd) < 0)
		ret = -errno;
	return ret;
}

/* --- holes ------------------------------------------------------------------------------------- */

int file_status(struct block_node *node, uint64_t offset, uint64_t bytes, struct block_status *st)
{
	struct file_node *f = container_of(node, struct file_node, node);
	uint64_t length = READ_ONCE(node->length), end = length;
	off_t data = lseek(f->fd, offset, SEEK_DATA), hole;
	bool is_data = true;

	if (data < 0 && errno == ENXIO) {
		is_data = false; /* up to the end */
	} else if (data > (off_t)offset) {
		is_data = false;
		end = data;
	} else if (data >= 0) {
		hole = lseek(f->fd, offset, SEEK_HOLE);
		if (hole > (off_t)offset)
			end = ALIGN_UP((uint64_t)hole,
				       512); /* the file's end may be within a sector */
	} /* else the file has no holes, or none that it knows of */
	*st = (struct block_status){
		.flags = BLOCK_STATUS_ALLOCATED | BLOCK_STATUS_OFFSET |
			 (is_data ? BLOCK_STATUS_DATA : BLOCK_STATUS_ZERO),
		.bytes = MIN(end, length) - offset,
		.offset = offset,
		.node = node,
	};
	return 0;
}

/* --- size -------------------------------------------------------------------------------------- */

static void set_length(struct file_node *f, uint64_t length)
{
	pthread_mutex_lock(&f->length_lock);
	block_set_length(&f->node, length);
	pthread_mutex_unlock(&f->length_lock);
}

/* A block device has the size it has; but it may have changed. */
static int resize_device(struct file_node *f, uint64_t length, struct hako_error *err)
{
	uint64_t now;
	int ret = file_find_length(f, &now, err);

	if (ret < 0)
		return ret;
	if (length > now)
		return error_set(err, -ENOSPC, "%s: the block device has %llu bytes only",
				 f->filename, (unsigned long long)now);
	set_length(f, now);
	return 0;
}

static int preallocate(struct file_node *f, uint64_t from, uint64_t to,
		       enum block_prealloc prealloc)
{
	int ret = 0;

	if (from >= to)
		return 0;
	if (prealloc == BLOCK_PREALLOC_FALLOC && fallocate(f->fd, 0, from, to - from) < 0)
		ret = -errno;
	if (prealloc == BLOCK_PREALLOC_FULL)
		ret = write_zeroes(f, from, to - from);
	if (ret == 0 && prealloc == BLOCK_PREALLOC_FULL && fsync(f->fd) < 0)
		ret = -errno;
	return ret;
}

int file_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
		struct hako_error *err)
{
	struct file_node *f = container_of(node, struct file_node, node);
	uint64_t old;
	int ret;

	if (node->read_only)
		return error_set(err, -EROFS, "%s is open for reading only", f->filename);
	if (prealloc == BLOCK_PREALLOC_METADATA)
		return error_set(err, -EOPNOTSUPP, "a raw image has no metadata to preallocate");
	if (length > INT64_MAX - 511)
		return error_set(err, -EFBIG, "%s: %llu bytes are too many", f->filename,
				 (unsigned long long)length);
	if (f->is_block)
		return resize_device(f, length, err);
	ret = file_find_length(f, &old, err);
	if (ret < 0)
		return ret;
	if (ftruncate(f->fd, length) < 0)
		return error_errno(err, -errno, "%s: changing the size", f->filename);
	ret = preallocate(f, old, length, prealloc);
	if (ret < 0) {
		error_errno(err, ret, "%s: preallocating", f->filename);
		if (ftruncate(f->fd, old) < 0)
			error_hint(err, "and it keeps its new size");
		return ret;
	}
	set_length(f, ALIGN_UP(length, 512ull));
	return 0;
}
