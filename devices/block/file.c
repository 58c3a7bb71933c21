/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Image files and block devices as they are ("raw"). A request is one I/O of the loop, straight from and to the guest's buffers; more
 * only if the kernel cuts it short.
 */
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>

#include "file.h"

#define WRITE_HERE_BYTES (64 * KiB)

/* Source of zeroes where the file system has no better way. Nobody writes here; not const, to take no room in the program. */
#define ZERO_BYTES  (64 * KiB)
#define ZERO_IOVECS 16
#define ZERO_IOVEC                 \
	{                          \
		zeroes, ZERO_BYTES \
	}
#define ZERO_IOVEC_4 ZERO_IOVEC, ZERO_IOVEC, ZERO_IOVEC, ZERO_IOVEC

static uint8_t zeroes[ZERO_BYTES] __attribute__((aligned(4096)));
static const struct iovec zero_iov[ZERO_IOVECS] = {
	ZERO_IOVEC_4,
	ZERO_IOVEC_4,
	ZERO_IOVEC_4,
	ZERO_IOVEC_4,
};

static struct file_node *node_of(struct block_req *req)
{
	return container_of(req->node, struct file_node, node);
}

/* --- completion -------------------------------------------------------------------------------- */

struct file_loop *file_find_loop(struct file_node *f, const struct loop *loop)
{
	unsigned int n = __atomic_load_n(&f->nloops, __ATOMIC_ACQUIRE);

	for (unsigned int i = 0; i < n; i++)
		if (__atomic_load_n(&f->loops[i].loop, __ATOMIC_ACQUIRE) == loop)
			return &f->loops[i];
	return NULL;
}

/* What the request itself will write anyway is written once, to see. */
static int probe_write(struct file_node *f, const struct loop_io *io)
{
	ssize_t n = pwritev2(f->fd, io->iov, io->niov, (off_t)io->offset, RWF_NOWAIT);
	int writes = n < 0 && errno == EOPNOTSUPP ? FILE_WRITES_BLIND : FILE_WRITES_TELL;

	__atomic_store_n(&f->writes, writes, __ATOMIC_RELAXED);
	return writes;
}

/* loop_io.here. Larger writes are worth a thread; those that are to be durable wait for certain. */
static bool write_here(struct file_node *f, const struct block_req *req)
{
	const struct loop_io *io = &req->io;
	int writes;

	if (io->op != LOOP_IO_WRITE || io->flags || req->bytes > WRITE_HERE_BYTES ||
	    f->node.opts.direct)
		return false;
	writes = READ_ONCE(f->writes);
	if (unlikely(writes == FILE_WRITES_UNKNOWN))
		writes = probe_write(f, io);
	return writes == FILE_WRITES_BLIND;
}

static void io_submit(struct block_req *req)
{
	req->io.here = write_here(node_of(req), req);
	loop_io_submit(req->loop, &req->io);
}

/* All of a read or write is done, or it failed. */
static void complete(struct block_req *req, int res)
{
	if (req->op != BLOCK_READ) {
		file_write_end(node_of(req), req);
		if (res == 0)
			file_grown(node_of(req), req->offset + req->bytes);
	}
	req->done(req, res);
}

static void plain_done(struct loop_io *io, int res)
{
	struct block_req *req = container_of(io, struct block_req, io);

	req->done(req, MIN(res, 0));
}

static void sync_submit(struct block_req *req)
{
	req->io.op = LOOP_IO_FDATASYNC;
	req->io.done = plain_done;
	io_submit(req);
}

/* The last step of zeroes and discards, which may have to be durable (BLOCK_FUA). Not from within submit. */
static void durable_done(struct block_req *req, int res)
{
	file_write_end(node_of(req), req);
	if (res == 0)
		file_grown(node_of(req), req->offset + req->bytes);
	if (res == 0 && (req->flags & BLOCK_FUA) && !node_of(req)->node.opts.no_flush)
		sync_submit(req);
	else
		req->done(req, res);
}

/* --- read and write ---------------------------------------------------------------------------- */

bool file_takes_direct(const struct file_node *f, uint64_t offset, const struct iovec *iov,
		       int niov)
{
	const struct block_node *node = &f->node;
	uintptr_t bits = offset & (node->request_align - 1);

	for (int i = 0; i < niov; i++) {
		bits |= (uintptr_t)iov[i].iov_base & (node->memory_align - 1);
		bits |= iov[i].iov_len & (node->request_align - 1);
	}
	return !bits;
}

static void read_work(struct loop_work *work)
{
	struct loop_io *io = container_of(work, struct loop_io, work);
	struct block_req *req = container_of(io, struct block_req, io);

	req->res = file_bounce(node_of(req), false, io->offset, io->iov, io->niov);
}

static void read_done(struct loop_work *work)
{
	struct block_req *req = container_of(container_of(work, struct loop_io, work),
					     struct block_req, io);

	req->done(req, req->res);
}

/* O_DIRECT does not take it. */
static void rw_bounce(struct block_req *req)
{
	if (req->op == BLOCK_READ) {
		req->io.work.fn = read_work;
		req->io.work.done = read_done;
		loop_work_submit(req->loop, &req->io.work);
	} else {
		file_write_end(node_of(req), req);
		file_write_apart(node_of(req), req);
	}
}

static void rw_submit(struct block_req *req)
{
	struct file_node *f = node_of(req);
	struct loop_io *io = &req->io;

	if (req->iov1.iov_len) {
		io->iov = &req->iov1;
		io->niov = 1;
	} else {
		io->iov = req->iov + req->iov_index;
		io->niov = MIN(req->niov - req->iov_index, IOV_MAX);
	}
	io->offset = req->offset + req->completed;
	if (f->node.opts.direct && !file_takes_direct(f, io->offset, io->iov, io->niov))
		rw_bounce(req);
	else
		io_submit(req);
}

/* @bytes more are done: move on in the buffers. */
static void rw_advance(struct block_req *req, size_t bytes)
{
	req->completed += bytes;
	if (req->iov1.iov_len) {
		req->iov1.iov_base = (char *)req->iov1.iov_base + bytes;
		req->iov1.iov_len -= bytes;
		if (!req->iov1.iov_len)
			req->iov_index++;
		return;
	}
	while (req->iov_index < req->niov && bytes >= req->iov[req->iov_index].iov_len)
		bytes -= req->iov[req->iov_index++].iov_len;
	if (bytes) {
		req->iov1 = req->iov[req->iov_index];
		req->iov1.iov_base = (char *)req->iov1.iov_base + bytes;
		req->iov1.iov_len -= bytes;
	}
}

/* What lies beyond the end of the file reads as zeroes. */
static void zero_rest(struct block_req *req)
{
	if (req->iov1.iov_len) {
		memset(req->iov1.iov_base, 0, req->iov1.iov_len);
		req->iov_index++;
	}
	for (; req->iov_index < req->niov; req->iov_index++)
		memset(req->iov[req->iov_index].iov_base, 0, req->iov[req->iov_index].iov_len);
}

static void rw_done(struct loop_io *io, int res)
{
	struct block_req *req = container_of(io, struct block_req, io);

	if (likely(res > 0 && res == req->bytes - req->completed)) {
		complete(req, 0);
	} else if (res > 0 && res < req->bytes - req->completed) {
		rw_advance(req, res);
		rw_submit(req);
	} else if (res == 0 && req->op == BLOCK_READ) {
		zero_rest(req);
		req->done(req, 0);
	} else {
		complete(req, res < 0 ? res : -EIO);
	}
}

static void rw_start(struct block_req *req, enum loop_io_op op, uint32_t flags)
{
	req->io.op = op;
	req->io.flags = flags;
	req->io.done = rw_done;
	req->completed = 0;
	req->iov_index = 0;
	req->iov1.iov_len = 0;
	rw_submit(req);
}

/* --- zeroes and discard ------------------------------------------------------------------------ */

/* Write the next piece of zeroes by hand. With O_DIRECT they are whole blocks (file_write_begin()). */
static void zero_submit(struct block_req *req)
{
	struct loop_io *io = &req->io;
	uint64_t left = req->bytes - req->completed;

	io->offset = req->offset + req->completed;
	if (left >= ZERO_BYTES) {
		io->iov = zero_iov;
		io->niov = MIN(left / ZERO_BYTES, (uint64_t)ZERO_IOVECS);
	} else {
		req->iov1 = (struct iovec){zeroes, left};
		io->iov = &req->iov1;
		io->niov = 1;
	}
	io_submit(req);
}

static void zero_done(struct loop_io *io, int res)
{
	struct block_req *req = container_of(io, struct block_req, io);

	if (res > 0)
		req->completed += MIN((uint64_t)res, req->bytes - req->completed);
	if (res <= 0)
		durable_done(req, res < 0 ? res : -EIO);
	else if (req->completed == req->bytes)
		durable_done(req, 0);
	else
		zero_submit(req);
}

static void zero_by_hand(struct block_req *req)
{
	if (req->flags & BLOCK_NO_FALLBACK) {
		file_write_end(node_of(req), req);
		block_done_later(req, -EOPNOTSUPP);
		return;
	}
	req->io.op = LOOP_IO_WRITE;
	req->io.flags = 0;
	req->io.done = zero_done;
	req->completed = 0;
	zero_submit(req);
}

static bool is_unsupported(int res)
{
	return res == -EOPNOTSUPP || res == -ENOTTY || res == -ENOSYS || res == -ENODEV;
}

/* fallocate's mode for zeroes; 0: they have to be written. What lies beyond the end has to lengthen the file. */
int file_zero_mode(const struct file_node *f, const struct block_req *req)
{
	bool inside = req->offset + req->bytes <= READ_ONCE(f->node.length);
	int keep = inside ? FALLOC_FL_KEEP_SIZE : 0;

	if (inside && (req->flags & BLOCK_UNMAP) && f->node.opts.discard == BLOCK_DISCARD_UNMAP &&
	    !READ_ONCE(f->no_punch))
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return READ_ONCE(f->no_zero_range) ? 0 : FALLOC_FL_ZERO_RANGE | keep;
}

/* fallocate refused with @res: is there something else to be tried? */
bool file_zero_retry(struct file_node *f, int mode, int res)
{
	if (!is_unsupported(res))
		return false;
	if (mode & FALLOC_FL_PUNCH_HOLE)
		WRITE_ONCE(f->no_punch, true);
	else
		WRITE_ONCE(f->no_zero_range, true);
	return true;
}

static void fallocate_submit(struct block_req *req, uint32_t mode, uint64_t offset, uint64_t len)
{
	req->io.op = LOOP_IO_FALLOCATE;
	req->io.flags = mode;
	req->io.offset = offset;
	req->io.len = len;
	io_submit(req);
}

static void zero_range_done(struct loop_io *io, int res);

static void zeroes_start(struct block_req *req)
{
	struct file_node *f = node_of(req);
	int mode = file_zero_mode(f, req);

	req->io.done = zero_range_done;
	if (mode)
		fallocate_submit(req, mode, req->offset, req->bytes);
	else
		zero_by_hand(req);
}

static void zero_range_done(struct loop_io *io, int res)
{
	struct block_req *req = container_of(io, struct block_req, io);
	struct file_node *f = node_of(req);

	if (file_zero_retry(f, io->flags, res)) {
		zeroes_start(req);
	} else if (res == -EINVAL) {
		/* A block device whose logical blocks are larger than this request's borders. */
		zero_by_hand(req);
	} else {
		durable_done(req, res);
	}
}

static void discard_done(struct loop_io *io, int res)
{
	struct block_req *req = container_of(io, struct block_req, io);

	if (is_unsupported(res)) {
		WRITE_ONCE(node_of(req)->no_discard, true);
		res = 0;
	}
	durable_done(req, res);
}

/* A discard is advice: what can not be done is left undone. False: all of it. */
bool file_discard_range(const struct file_node *f, const struct block_req *req, uint64_t *start,
			uint64_t *len)
{
	uint64_t align = f->is_block ? f->node.logical_block_size : 512;
	uint64_t end = ALIGN_DOWN(req->offset + req->bytes, align);

	*start = ALIGN_UP(req->offset, align);
	*len = end - *start;
	return f->node.opts.discard == BLOCK_DISCARD_UNMAP && !READ_ONCE(f->no_discard) &&
	       *start < end;
}

static void discard_start(struct block_req *req)
{
	struct file_node *f = node_of(req);
	uint64_t start, len;

	if (!file_discard_range(f, req, &start, &len)) {
		file_write_end(f, req);
		block_done_later(req, 0);
		return;
	}
	req->io.done = discard_done;
	fallocate_submit(req, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start, len);
}

/* --- the node ---------------------------------------------------------------------------------- */

/* A write has ended at @end: the file may be longer than it was. */
void file_grown(struct file_node *f, uint64_t end)
{
	uint64_t length = READ_ONCE(f->node.length);

	end = ALIGN_UP(end, 512);
	if (likely(end <= length))
		return;
	pthread_mutex_lock(&f->length_lock);
	if (end > f->node.length)
		block_set_length(&f->node, end);
	pthread_mutex_unlock(&f->length_lock);
}

int file_check_request(const struct file_node *f, const struct block_req *req)
{
	bool lengthens = req->op == BLOCK_WRITE || req->op == BLOCK_WRITE_ZEROES;
	uint64_t limit = READ_ONCE(f->node.length);

	if (f->node.read_only && req->op != BLOCK_READ)
		return -EROFS;
	if (f->can_grow && lengthens)
		limit = INT64_MAX & ~511ull;
	if (req->offset > limit || req->bytes > limit - req->offset)
		return f->is_full && lengthens ? -ENOSPC : -EINVAL;
	return 0;
}

static void file_submit(struct block_node *node, struct block_req *req)
{
	struct file_node *f = container_of(node, struct file_node, node);
	struct file_loop *fl = file_find_loop(f, req->loop);
	int ret;

	req->node = node;
	req->io.fd = f->fd;
	req->io.fixed = fl ? fl->fixed : -1;
	if (req->op == BLOCK_FLUSH) {
		if (f->node.opts.no_flush || node->read_only)
			block_done_later(req, 0);
		else
			sync_submit(req);
		return;
	}
	ret = file_check_request(f, req);
	if (ret < 0 || !req->bytes) {
		block_done_later(req, ret);
		return;
	}
	if (req->op != BLOCK_READ && !file_write_begin(f, req, fl)) {
		file_write_apart(f, req);
		return;
	}
	switch (req->op) {
	case BLOCK_READ:
		rw_start(req, LOOP_IO_READ, 0);
		break;
	case BLOCK_WRITE:
		rw_start(req, LOOP_IO_WRITE,
			 (req->flags & BLOCK_FUA) && !f->node.opts.no_flush ? RWF_DSYNC : 0);
		break;
	case BLOCK_DISCARD:
		discard_start(req);
		break;
	case BLOCK_WRITE_ZEROES:
		zeroes_start(req);
		break;
	case BLOCK_FLUSH:
		break;
	}
}

struct registration {
	struct file_node *f;
	struct file_loop *fl;
};

static void register_files(void *arg)
{
	struct registration *r = arg;

	r->fl->fixed = loop_file_register(r->fl->loop, r->f->fd);
}

static void unregister_files(void *arg)
{
	struct registration *r = arg;

	loop_file_unregister(r->fl->loop, r->fl->fixed);
}

void file_register_all(struct file_node *f, bool on)
{
	for (unsigned int i = 0; i < f->nloops; i++) {
		struct registration r = {.f = f, .fl = &f->loops[i]};

		if (r.fl->loop)
			loop_call(r.fl->loop, on ? register_files : unregister_files, &r);
	}
}

/* With f->lock held. */
static struct file_loop *free_entry(struct file_node *f)
{
	for (unsigned int i = 0; i < FILE_MAX_LOOPS; i++)
		if (!f->loops[i].loop)
			return &f->loops[i];
	return NULL;
}

static int file_attach(struct block_node *node, struct loop *loop, struct hako_error *err)
{
	struct registration r = {.f = container_of(node, struct file_node, node)};

	pthread_mutex_lock(&r.f->lock);
	r.fl = file_find_loop(r.f, loop);
	if (r.fl) {
		r.fl->refs++;
	} else if ((r.fl = free_entry(r.f)) != NULL) {
		/* Without an entry it works as well, only slower. */
		unsigned int n = (unsigned int)(r.fl - r.f->loops) + 1;

		r.fl->fixed = -1;
		r.fl->refs = 1;
		__atomic_store_n(&r.fl->loop, loop, __ATOMIC_RELEASE);
		loop_call(loop, register_files, &r);
		__atomic_store_n(&r.f->nloops, MAX(r.f->nloops, n), __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&r.f->lock);
	return 0;
}

static void file_detach(struct block_node *node, struct loop *loop)
{
	struct registration r = {.f = container_of(node, struct file_node, node)};

	pthread_mutex_lock(&r.f->lock);
	r.fl = file_find_loop(r.f, loop);
	if (r.fl && !--r.fl->refs) {
		loop_call(loop, unregister_files, &r);
		__atomic_store_n(&r.fl->loop, NULL, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&r.f->lock);
}

static const struct block_ops file_ops = {
	.submit = file_submit,
	.sync = file_sync,
	.use = file_use,
	.unuse = file_unuse,
	.attach = file_attach,
	.detach = file_detach,
	.reopen = file_reopen,
	.status = file_status,
	.resize = file_resize,
};

static int file_create(struct object *obj, struct hako_error *err)
{
	struct file_node *f = container_of(obj, struct file_node, node.obj);
	int ret = block_node_init(&f->node, &file_ops, err);

	if (ret == 0)
		ret = file_open(f, err);
	if (ret < 0)
		return ret;
	pthread_mutex_init(&f->lock, NULL);
	pthread_mutex_init(&f->apart_lock, NULL);
	pthread_mutex_init(&f->waiting_lock, NULL);
	pthread_mutex_init(&f->length_lock, NULL);
	return 0;
}

static void file_destroy(struct object *obj)
{
	struct file_node *f = container_of(obj, struct file_node, node.obj);

	pthread_mutex_destroy(&f->lock);
	pthread_mutex_destroy(&f->apart_lock);
	pthread_mutex_destroy(&f->waiting_lock);
	pthread_mutex_destroy(&f->length_lock);
	file_close(f);
	block_node_free(&f->node);
}

/* --- the classes ------------------------------------------------------------------------------- */

static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};

static const struct option file_options[] = {
	OPT_STRING_REQUIRED("filename", struct file_node, filename,
			    "the image file or block device"),
	OPT_ONOFFAUTO("locking", struct file_node, locking, "auto",
		      "keep other programs from writing to the image; auto: where the file "
		      "system can"),
	OPT_ENUM("aio", struct file_node, aio, "io_uring", aio_names,
		 "accepted for compatibility: the event loop decides how I/O is done"),
	OPT_END,
};

static const struct class file_class = {
	.name = "file",
	.help = "an image file (or block device) as it is",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct file_node),
	.options = file_options,
	.bus_options = block_node_options,
	.create = file_create,
	.destroy = file_destroy,
	.needs = SANDBOX_DISK,
};
HAKO_CLASS(file_class);

static const struct class host_device_class = {
	.name = "host_device",
	.help = "a block device of the host as it is",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct file_node),
	.options = file_options,
	.bus_options = block_node_options,
	.create = file_create,
	.destroy = file_destroy,
	.needs = SANDBOX_DISK,
};
HAKO_CLASS(host_device_class);
