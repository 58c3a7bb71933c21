/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * "blklogwrites": a filter for tests that writes down every change of the node below in the log format of Linux's dm-log-writes (its
 * documentation: admin-guide/device-mapper/log-writes.rst), so that what a power cut could have left can be put together again. A write is logged
 * when it has ended, a flush when it begins: so all that stands before a flush was there when it began. Logging blocks the loop: this is for tests.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "block_co.h"

#define LOG_MAGIC   0x6a736677736872ull
#define LOG_VERSION 1

#define LOG_FLUSH   1u
#define LOG_FUA	    2u
#define LOG_DISCARD 4u

struct log_super {
	uint64_t magic, version, nr_entries;
	uint32_t sectorsize;
} __attribute__((packed));

/* What follows it, at the next sector: the data, in nr_sectors sectors; none after a discard. */
struct log_entry {
	uint64_t sector, nr_sectors, flags, data_len;
} __attribute__((packed));

struct logwrites {
	struct block_node node;
	struct option_tree file;
	char *filename;
	int driver;
	bool append;
	uint32_t sector_size;

	int fd;
	struct loop *loop; /* the only one that may send requests; NULL: none */
	uint64_t entries, end;
};

static struct logwrites *to_log(struct block_node *node)
{
	return container_of(node, struct logwrites, node);
}

/* --- the log ------------------------------------------------------------------------------------ */

static int write_super(struct logwrites *l)
{
	struct log_super s = {
		.magic = htole64(LOG_MAGIC),
		.version = htole64(LOG_VERSION),
		.nr_entries = htole64(l->entries),
		.sectorsize = htole32(l->sector_size),
	};

	return pwrite(l->fd, &s, sizeof(s), 0) == sizeof(s) ? 0 : -EIO;
}

/* All of it, or an error. */
static int put(int fd, const void *buf, size_t bytes, uint64_t offset)
{
	while (bytes) {
		ssize_t n = pwrite(fd, buf, bytes, offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENOSPC;
		buf = (const char *)buf + n;
		bytes -= n;
		offset += n;
	}
	return 0;
}

/* Add an entry for whole sectors; @data NULL: zeroes, or with LOG_DISCARD nothing. */
static int append(struct logwrites *l, uint64_t offset, uint64_t bytes, uint64_t flags,
		  const void *data)
{
	struct log_entry e = {
		.sector = htole64(offset / l->sector_size),
		.nr_sectors = htole64(bytes / l->sector_size),
		.flags = htole64(flags),
		.data_len = htole64(bytes),
	};
	uint64_t at = l->end, next = at + l->sector_size;
	int ret = put(l->fd, &e, sizeof(e), at);

	if (ret == 0 && data)
		ret = put(l->fd, data, bytes, next);
	if (!(flags & LOG_DISCARD))
		next += bytes;
	/* Zeroes are a hole. */
	if (ret == 0 && ftruncate(l->fd, next) < 0)
		ret = -errno;
	if (ret < 0)
		return ret;
	l->end = next;
	l->entries++;
	return write_super(l);
}

/* --- requests ----------------------------------------------------------------------------------- */

/* The data of a write, and what else is in its first and last sector. */
static int log_data(struct logwrites *l, uint64_t offset, uint64_t bytes, const struct iovec *iov,
		    int niov, uint64_t flags)
{
	uint64_t start = ALIGN_DOWN(offset, l->sector_size);
	uint64_t end = ALIGN_UP(offset + bytes, (uint64_t)l->sector_size);
	uint8_t *buf = malloc(end - start), *p;
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	if (start < offset)
		ret = block_pread(l->node.file, start, buf, l->sector_size);
	if (ret == 0 && end > offset + bytes)
		ret = block_pread(l->node.file, end - l->sector_size,
				  buf + (end - start) - l->sector_size, l->sector_size);
	p = buf + (offset - start);
	for (int i = 0; i < niov; i++) {
		memcpy(p, iov[i].iov_base, iov[i].iov_len);
		p += iov[i].iov_len;
	}
	if (ret == 0)
		ret = append(l, start, end - start, flags, buf);
	free(buf);
	return ret;
}

static int do_write(struct logwrites *l, const struct block_req *req)
{
	int ret = block_pwritev(l->node.file, req->offset, req->bytes, req->iov, req->niov,
				req->flags);

	if (ret < 0)
		return ret;
	return log_data(l, req->offset, req->bytes, req->iov, req->niov,
			req->flags & BLOCK_FUA ? LOG_FUA : 0);
}

/* Zeroes or a discard, which reads as zeroes afterwards in the log. */
static int do_zero(struct logwrites *l, const struct block_req *req)
{
	const uint64_t mask = l->sector_size - 1;
	bool discard = req->op == BLOCK_DISCARD;
	int ret;

	if (discard)
		ret = block_pdiscard(l->node.file, req->offset, req->bytes);
	else
		ret = block_pzero(l->node.file, req->offset, req->bytes, req->flags);
	if (ret < 0)
		return ret;
	if ((req->offset | req->bytes) & mask) {
		void *zeroes = discard ? NULL : calloc(1, req->bytes);
		const struct iovec iov = {zeroes, req->bytes};

		/* Part of a sector may be discarded or not; here, not. */
		if (discard)
			return 0;
		ret = zeroes ? log_data(l, req->offset, req->bytes, &iov, 1, 0) : -ENOMEM;
		free(zeroes);
		return ret;
	}
	return append(l, req->offset, req->bytes, discard ? LOG_DISCARD : 0, NULL);
}

static int do_request(struct logwrites *l, const struct block_req *req)
{
	int ret;

	switch (req->op) {
	case BLOCK_READ:
		return block_preadv(l->node.file, req->offset, req->bytes, req->iov, req->niov);
	case BLOCK_WRITE:
		return do_write(l, req);
	case BLOCK_FLUSH:
		ret = append(l, 0, 0, LOG_FLUSH, NULL);
		return ret < 0 ? ret : block_flush(l->node.file);
	case BLOCK_DISCARD:
	case BLOCK_WRITE_ZEROES:
		return do_zero(l, req);
	}
	return -EINVAL;
}

static int serve(struct logwrites *l, const struct block_req *req)
{
	int ret;

	if (!req->bytes && req->op != BLOCK_FLUSH)
		return 0;
	if (l->node.read_only && req->op != BLOCK_READ && req->op != BLOCK_FLUSH)
		return -EROFS;
	ret = do_request(l, req);
	/* It may have become longer. */
	WRITE_ONCE(l->node.length, READ_ONCE(l->node.file->length));
	return ret;
}

static void run(void *arg)
{
	struct block_req *req = arg;
	struct logwrites *l = block_passed_opaque(req);
	int ret = serve(l, req);

	/* Not from within submit: it may not have waited. */
	req->npassed--;
	block_done_later(req, ret);
}

static void logwrites_submit(struct block_node *node, struct block_req *req)
{
	struct block_req *r = block_hookable(req);

	if (!r) {
		block_done_later(req, -ENOMEM);
		return;
	}
	block_hook(r, r->offset, r->done, node); /* a place to keep the node */
	if (co_start(r->loop, run, r) < 0) {
		r->npassed--;
		block_done_later(r, -ENOMEM);
	}
}

static int logwrites_sync(struct block_node *node, struct block_req *req)
{
	return serve(to_log(node), req);
}

static int logwrites_attach(struct block_node *node, struct loop *loop, struct hako_error *err)
{
	struct logwrites *l = to_log(node);

	if (l->loop && l->loop != loop)
		return error_set(err, -EBUSY, "blklogwrites serves one loop only");
	l->loop = loop;
	return 0;
}

static void logwrites_detach(struct block_node *node, struct loop *loop)
{
	to_log(node)->loop = NULL;
}

static int logwrites_status(struct block_node *node, uint64_t offset, uint64_t bytes,
			    struct block_status *st)
{
	return block_status(node->file, offset, bytes, st);
}

static int logwrites_resize(struct block_node *node, uint64_t length, enum block_prealloc prealloc,
			    struct hako_error *err)
{
	int ret = block_resize(node->file, length, prealloc, err);

	/* The log has no entry for that: what is beyond the new end comes back as it was. */
	WRITE_ONCE(node->length, READ_ONCE(node->file->length));
	return ret;
}

static const struct block_ops logwrites_ops = {
	.submit = logwrites_submit,
	.sync = logwrites_sync,
	.attach = logwrites_attach,
	.detach = logwrites_detach,
	.status = logwrites_status,
	.resize = logwrites_resize,
};

/* --- the class ---------------------------------------------------------------------------------- */

/* Go on behind the entries that a log has. */
static int find_end(struct logwrites *l, struct hako_error *err)
{
	struct log_super s;
	struct log_entry e;
	uint64_t n;

	l->end = l->sector_size;
	if (!l->append)
		return 0;
	if (pread_all(l->fd, &s, sizeof(s), 0) || le64toh(s.magic) != LOG_MAGIC ||
	    le64toh(s.version) != LOG_VERSION || le32toh(s.sectorsize) != l->sector_size)
		return error_set(err, -EINVAL, "%s: not a log with this sector size", l->filename);
	n = le64toh(s.nr_entries);
	for (; l->entries < n; l->entries++) {
		uint64_t bytes;

		if (pread_all(l->fd, &e, sizeof(e), l->end))
			return error_set(err, -EINVAL, "%s: ends before its entry %llu",
					 l->filename, (unsigned long long)l->entries);
		bytes = le64toh(e.flags) & LOG_DISCARD ? 0 : le64toh(e.data_len);
		if (__builtin_add_overflow(l->end, bytes + l->sector_size, &l->end))
			return error_set(err, -EINVAL, "%s: entry %llu is damaged", l->filename,
					 (unsigned long long)l->entries);
	}
	return 0;
}

static int open_log(struct logwrites *l, struct hako_error *err)
{
	int ret;

	if (!IS_POWER_OF_2(l->sector_size))
		return error_set(err, -EINVAL, "log-sector-size=%u is no power of 2",
				 l->sector_size);
	l->fd = open(l->filename, O_RDWR | O_CREAT | O_CLOEXEC | (l->append ? 0 : O_TRUNC), 0644);
	if (l->fd < 0)
		return error_errno(err, -errno, "%s", l->filename);
	ret = find_end(l, err);
	if (ret == 0 && write_super(l) < 0)
		ret = error_set(err, -EIO, "%s: cannot be written", l->filename);
	if (ret < 0)
		close(l->fd);
	return ret;
}

static int logwrites_create(struct object *obj, struct hako_error *err)
{
	struct logwrites *l = container_of(obj, struct logwrites, node.obj);
	struct block_node *node = &l->node;
	int ret = block_node_init(node, &logwrites_ops, err);

	if (ret == 0)
		ret = block_open_child(node, "file", &l->file, BLOCK_ROLE_FILTER, &node->file, err);
	if (ret == 0)
		ret = open_log(l, err);
	if (ret < 0) {
		block_node_free(node);
		return ret;
	}
	node->length = node->file->length;
	block_take_limits(node, node->file);
	return 0;
}

static void logwrites_destroy(struct object *obj)
{
	struct logwrites *l = container_of(obj, struct logwrites, node.obj);

	close(l->fd);
	block_node_free(&l->node);
}

static const char *const driver_names[] = {"file", NULL};

static const struct option logwrites_options[] = {
	OPT_NODE("file", struct logwrites, file, "the node whose changes are logged"),
	OPT_STRING_REQUIRED("log.filename", struct logwrites, filename, "the log's file"),
	OPT_ENUM("log.driver", struct logwrites, driver, "file", driver_names,
		 "logs are plain files"),
	OPT_BOOL("log-append", struct logwrites, append, "off", "go on with a log that is there"),
	OPT_UINT("log-sector-size", struct logwrites, sector_size, "512", 512, 65536,
		 "bytes of a sector in the log"),
	OPT_END,
};

static const struct class logwrites_class = {
	.name = "blklogwrites",
	.help = "a filter for tests that logs every change, as dm-log-writes does",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct logwrites),
	.options = logwrites_options,
	.bus_options = block_node_options,
	.create = logwrites_create,
	.destroy = logwrites_destroy,
	.needs = SANDBOX_DISK,
};
HAKO_CLASS(logwrites_class);
