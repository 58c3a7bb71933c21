/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Requests that O_DIRECT can not take as they are: borders within the device's blocks, buffers it can not reach. They go through
 * aligned memory, past the page cache like all others: a file that is written both ways at once loses data.
 */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"
#include "vmm/iov.h"

#define BOUNCE_BYTES (1 * MiB)

/* All of @buf from the file, zeroes beyond its end. How many bytes the file had, or a negative errno. */
static ssize_t read_blocks(const struct file_node *f, uint8_t *buf, size_t len, uint64_t offset)
{
	size_t got = 0;
	ssize_t n;

	while (got < len) {
		n = pread(f->fd, buf + got, len - got, (off_t)(offset + got));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		got += n;
		if (n == 0 || n & (f->node.request_align - 1))
			break;
	}
	memset(buf + got, 0, len - got);
	return (ssize_t)got;
}

static ssize_t write_blocks(const struct file_node *f, const uint8_t *buf, size_t len,
			    uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(f->fd, buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0 || n & (f->node.request_align - 1))
			return -EIO;
		done += n;
	}
	return 0;
}

/* A file that does not end with a block has been given the rest of it; whoever takes its size for a disk's wants it back. */
static int cut_rest(const struct file_node *f, uint64_t old_size, uint64_t end)
{
	struct stat st;

	if (f->is_block || f->can_grow || fstat(f->fd, &st) < 0 ||
	    (uint64_t)st.st_size <= MAX(old_size, end))
		return 0;
	return ftruncate(f->fd, (off_t)MAX(old_size, end)) < 0 ? -errno : 0;
}

/* No other write may be under way (file_write_apart()). @buf: blocks from @start on, of which @len bytes at @offset are to become the data of @iov at @skip. */
static ssize_t write_piece(struct file_node *f, uint8_t *buf, uint64_t start, size_t size,
			   uint64_t offset, size_t len, const struct iovec *iov, int niov,
			   uint64_t skip)
{
	size_t align = f->node.request_align, last = size - align;
	struct stat st = {0};
	ssize_t ret = 0;

	if (!f->is_block && fstat(f->fd, &st) < 0)
		ret = -errno;
	if (ret == 0 && offset != start)
		ret = read_blocks(f, buf, align, start);
	if (ret >= 0 && offset + len != start + size && (last || offset == start))
		ret = read_blocks(f, buf + last, align, start + last);
	if (ret >= 0) {
		iov_read(iov, niov, skip, buf + (offset - start), len);
		ret = write_blocks(f, buf, size, start);
	}
	if (ret == 0)
		ret = cut_rest(f, st.st_size, offset + len);
	return ret < 0 ? ret : (ssize_t)len;
}

static ssize_t read_piece(struct file_node *f, uint8_t *buf, uint64_t start, size_t size,
			  uint64_t offset, size_t len, const struct iovec *iov, int niov,
			  uint64_t skip)
{
	ssize_t n = read_blocks(f, buf, size, start);

	if (n < 0)
		return n;
	iov_write(iov, niov, skip, buf + (offset - start), len);
	return (ssize_t)len;
}

int file_bounce(struct file_node *f, bool write, uint64_t offset, const struct iovec *iov, int niov)
{
	uint64_t align = f->node.request_align, bytes = 0, done = 0;
	size_t room;
	uint8_t *buf;
	ssize_t n = 0;

	for (int i = 0; i < niov; i++)
		bytes += iov[i].iov_len;
	room = MIN(ALIGN_UP(offset + bytes, align) - ALIGN_DOWN(offset, align), BOUNCE_BYTES);
	buf = aligned_alloc(MAX(PAGE_SIZE, (uint64_t)f->node.memory_align),
			    ALIGN_UP(room, PAGE_SIZE));
	if (!buf)
		return -ENOMEM;
	while (done < bytes && n >= 0) {
		uint64_t at = offset + done, start = ALIGN_DOWN(at, align);
		size_t len = MIN(bytes - done, room - (at - start));
		size_t size = ALIGN_UP(at + len, align) - start;

		n = write ? write_piece(f, buf, start, size, at, len, iov, niov, done)
			  : read_piece(f, buf, start, size, at, len, iov, niov, done);
		done += MAX(n, 0);
	}
	free(buf);
	return n < 0 ? (int)n : 0;
}

/* --- writes of parts of blocks keep the others waiting ----------------------------------------- */

static bool is_ragged(const struct file_node *f, const struct block_req *req)
{
	return req->op != BLOCK_DISCARD && (req->offset | req->bytes) & (f->node.request_align - 1);
}

static void apart_work(struct loop_work *work)
{
	struct block_req *req = container_of(container_of(work, struct loop_io, work),
					     struct block_req, io);
	struct file_node *f = container_of(req->node, struct file_node, node);

	pthread_mutex_lock(&f->apart_lock);
	req->res = file_sync(req->node, req);
	pthread_mutex_unlock(&f->apart_lock);
}

static void apart_done(struct loop_work *work)
{
	struct block_req *req = container_of(container_of(work, struct loop_io, work),
					     struct block_req, io);
	struct file_node *f = container_of(req->node, struct file_node, node);

	if (is_ragged(f, req))
		__atomic_sub_fetch(&f->nragged, 1, __ATOMIC_SEQ_CST);
	req->done(req, req->res);
}

static void apart_start(struct block_req *req)
{
	req->io.work.fn = apart_work;
	req->io.work.done = apart_done;
	loop_work_submit(req->loop, &req->io.work);
}

static void ragged_start(struct loop_msg *msg)
{
	apart_start(container_of(msg, struct block_req, msg));
}

/*
 * Let those that wait go, if no write is under way that knows nothing of them. That a loop begins one while the counts are added up is
 * no matter: it sees nragged.
 */
static void start_ragged(struct file_node *f)
{
	unsigned int n = __atomic_load_n(&f->nloops, __ATOMIC_SEQ_CST);
	struct block_req *req, *next;

	for (unsigned int i = 0; i < n; i++)
		if (__atomic_load_n(&f->loops[i].nwrites, __ATOMIC_SEQ_CST))
			return;
	if (__atomic_load_n(&f->nwrites, __ATOMIC_SEQ_CST))
		return;
	pthread_mutex_lock(&f->waiting_lock);
	req = f->ragged;
	f->ragged = NULL;
	pthread_mutex_unlock(&f->waiting_lock);
	for (; req; req = next) {
		next = req->next;
		req->msg.fn = ragged_start;
		req->msg.posted = false;
		loop_post(req->loop, &req->msg);
	}
}

bool file_write_begin(struct file_node *f, struct block_req *req, struct file_loop *fl)
{
	req->counted_in = NULL;
	if (!f->node.opts.direct)
		return true;
	if (is_ragged(f, req))
		return false;
	req->counted_in = fl ? &fl->nwrites : &f->nwrites;
	__atomic_add_fetch(req->counted_in, 1, __ATOMIC_SEQ_CST);
	if (likely(!__atomic_load_n(&f->nragged, __ATOMIC_SEQ_CST)))
		return true;
	file_write_end(f, req);
	return false;
}

void file_write_end(struct file_node *f, struct block_req *req)
{
	if (!req->counted_in)
		return;
	__atomic_sub_fetch(req->counted_in, 1, __ATOMIC_SEQ_CST);
	req->counted_in = NULL;
	if (unlikely(__atomic_load_n(&f->nragged, __ATOMIC_SEQ_CST)))
		start_ragged(f);
}

void file_write_apart(struct file_node *f, struct block_req *req)
{
	if (!is_ragged(f, req)) {
		apart_start(req);
		return;
	}
	__atomic_add_fetch(&f->nragged, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&f->waiting_lock);
	req->next = f->ragged;
	f->ragged = req;
	pthread_mutex_unlock(&f->waiting_lock);
	start_ragged(f);
}
