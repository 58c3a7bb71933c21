/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L: files that are open. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "p9_impl.h"
#include "vmm/iov.h"

#define WRITE_DATA  23u /* where the data is in Twrite */
#define COUNT_FIELD 4u	/* in front of an answer's data */
#define DIR_BATCH   16384
#define DIR_ENTRY   24u /* qid[13] offset[8] type[1] and the name's length */

/* The numbers of open(2) on x86-64 are the protocol's. */
#define OPEN_FLAGS (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC | O_DIRECTORY | O_EXCL)

/* What of the client's flags is ours to do. Appending is the client's: it says where, and caches would not go together with it. */
static int host_flags(struct p9_call *c, uint32_t flags)
{
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	if ((flags & O_ACCMODE) == O_ACCMODE)
		return -EINVAL;
	if (writes && c->fs->readonly)
		return -EROFS;
	return flags & OPEN_FLAGS;
}

/* fid[4] flags[4] */
int p9_lopen(struct p9_call *c)
{
	struct p9_fid *fid;
	struct stat st;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid), flags, fd;

	if (ret)
		return ret;
	flags = host_flags(c, p9_get32(c));
	ret = c->bad ? -EINVAL : flags < 0 ? flags : 0;
	fd = ret ? ret : fs_open(c->fs, fid->node, flags);
	ret = fd < 0 ? fd : fs_stat(fid->node, &st);
	if (!ret) {
		pthread_mutex_lock(&fid->lock);
		if (fid->fd < 0) {
			fid->fd = fd;
			fid->writable = (flags & O_ACCMODE) != O_RDONLY;
			fd = -1;
		} else {
			ret = -EINVAL; /* it is open */
		}
		pthread_mutex_unlock(&fid->lock);
	}
	if (fd >= 0)
		fs_close(c->fs, fd);
	p9_fid_put(c->s, fid);
	if (ret)
		return ret;
	p9_put_qid(c, &st);
	p9_put32(c, 0); /* iounit: what fits into a message */
	return 0;
}

/* The directory's fid becomes that of the new file. */
static int become(struct p9_call *c, struct p9_fid *dir, struct fs_node *node, int fd, int flags)
{
	struct p9_fid *new;
	int ret = p9_fid_new(c->s, P9_FID_FILE, dir->num, dir->uid, node, &new);

	if (ret) {
		fs_node_put(c->fs, node);
		fs_close(c->fs, fd);
		return ret;
	}
	new->fd = fd;
	new->writable = (flags & O_ACCMODE) != O_RDONLY;
	ret = p9_fid_publish(c->s, new, dir);
	if (ret)
		p9_fid_put(c->s, new);
	return ret;
}

/* fid[4] name[s] flags[4] mode[4] gid[4] */
int p9_lcreate(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct fs_owner owner;
	struct fs_node *node;
	struct p9_fid *dir;
	struct stat st;
	uint32_t mode;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir), flags;

	if (ret)
		return ret;
	p9_get_name(c, name);
	flags = host_flags(c, p9_get32(c));
	mode = p9_get32(c);
	owner = (struct fs_owner){dir->uid, p9_get32(c)};
	ret = c->bad ? -EINVAL : flags < 0 ? flags : 0;
	if (!ret)
		ret = fs_create(c->fs, dir->node, name, flags, mode, &owner, &node, &st);
	if (ret >= 0)
		ret = become(c, dir, node, ret, flags);
	p9_fid_put(c->s, dir);
	if (ret)
		return ret;
	p9_put_qid(c, &st);
	p9_put32(c, 0);
	return 0;
}

/* --- data -------------------------------------------------------------------------------------- */

/* The part of @from from byte @skip on that is @len bytes long, as elements of @to. */
static unsigned int slice(const struct iovec *from, unsigned int n, size_t skip, size_t len,
			  struct iovec to[P9_SEGMENTS])
{
	unsigned int k = 0;

	for (unsigned int i = 0; i < n && len && k < P9_SEGMENTS; i++) {
		size_t have = from[i].iov_len, part;

		if (skip >= have) {
			skip -= have;
			continue;
		}
		part = MIN(have - skip, len);
		to[k].iov_base = (uint8_t *)from[i].iov_base + skip;
		to[k++].iov_len = part;
		skip = 0;
		len -= part;
	}
	return k;
}

static int read_file(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count)
{
	struct iovec iov[P9_SEGMENTS];
	int fd = p9_fid_fd(fid);
	unsigned int n;
	ssize_t got;

	if (fd < 0)
		return fd;
	n = slice(c->req->in, c->req->nin, c->rlen + COUNT_FIELD, count, iov);
	do {
		got = preadv(fd, iov, n, offset);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	p9_put32(c, got);
	c->data = got;
	return 0;
}

/* fid[4] offset[8] count[4] */
int p9_read(struct p9_call *c)
{
	uint32_t num = p9_get32(c), count, have = p9_data_room(c);
	uint64_t offset = p9_get64(c);
	struct p9_fid *fid;
	int ret;

	count = p9_get32(c);
	if (c->bad || offset > INT64_MAX || have < COUNT_FIELD)
		return -EINVAL;
	ret = p9_fid_find(c->s, num, &fid);
	if (ret)
		return ret;
	count = MIN(count, have - COUNT_FIELD);
	if (fid->kind == P9_FID_XATTR_READ)
		ret = p9_xattr_read(c, fid, offset, count);
	else if (fid->kind == P9_FID_FILE)
		ret = S_ISDIR(fid->node->type) ? -EISDIR : read_file(c, fid, offset, count);
	else
		ret = -EBADF;
	p9_fid_put(c->s, fid);
	return ret;
}

static int write_file(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count)
{
	struct iovec iov[P9_SEGMENTS];
	int fd = p9_fid_fd(fid);
	unsigned int n;
	ssize_t put;

	if (fd < 0)
		return fd;
	n = slice(c->req->out, c->req->nout, WRITE_DATA, count, iov);
	do {
		put = pwritev(fd, iov, n, offset);
	} while (put < 0 && errno == EINTR);
	if (put < 0)
		return -errno;
	p9_put32(c, put);
	return 0;
}

/* fid[4] offset[8] count[4] data */
int p9_write(struct p9_call *c)
{
	uint32_t num = p9_get32(c), count;
	uint64_t offset = p9_get64(c);
	struct p9_fid *fid;
	int ret;

	count = p9_get32(c);
	if (c->bad || offset > INT64_MAX || count > c->size - WRITE_DATA)
		return -EINVAL;
	ret = p9_fid_find(c->s, num, &fid);
	if (ret)
		return ret;
	if (fid->kind == P9_FID_XATTR_WRITE)
		ret = p9_xattr_write(c, fid, offset, count);
	else
		ret = fid->kind == P9_FID_FILE ? write_file(c, fid, offset, count) : -EBADF;
	p9_fid_put(c->s, fid);
	return ret;
}

/* fid[4] datasync[4] */
int p9_fsync(struct p9_call *c)
{
	struct p9_fid *fid;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid), fd;
	uint32_t datasync;

	if (ret)
		return ret;
	datasync = p9_get32(c);
	fd = c->bad ? -EINVAL : p9_fid_fd(fid);
	ret = fd < 0 ? fd : (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
	p9_fid_put(c->s, fid);
	return ret;
}

/* --- locks ------------------------------------------------------------------------------------- */

/*
 * Locks are the guest's own affair, as with QEMU: its kernel keeps them for its processes. They are not set on the host: the protocol's
 * owners are processes, each of which may have opened a file more than once, and the host's are descriptors.
 */
static int lock_fid(struct p9_call *c)
{
	struct p9_fid *fid;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	ret = p9_fid_fd(fid);
	p9_fid_put(c->s, fid);
	return ret < 0 ? ret : 0;
}

/* fid[4] type[1] flags[4] start[8] length[8] proc_id[4] client_id[s] */
int p9_lock(struct p9_call *c)
{
	int ret = lock_fid(c);

	if (!ret)
		p9_put8(c, 0); /* success */
	return ret;
}

/* fid[4] type[1] start[8] length[8] proc_id[4] client_id[s] */
int p9_getlock(struct p9_call *c)
{
	uint64_t start, length;
	char client[P9_NAME_MAX + 1];
	uint32_t proc;
	int ret = lock_fid(c);

	if (ret)
		return ret;
	p9_get8(c);
	start = p9_get64(c);
	length = p9_get64(c);
	proc = p9_get32(c);
	p9_get_string(c, client, sizeof(client));
	if (c->bad)
		return -EINVAL;
	p9_put8(c, F_UNLCK);
	p9_put64(c, start);
	p9_put64(c, length);
	p9_put32(c, proc);
	p9_put_string(c, client, strlen(client));
	return 0;
}

/* --- directories ------------------------------------------------------------------------------- */

/* One answer to Treaddir, in the making. */
struct listing {
	struct p9_call *c;
	struct p9_fid *fid;
	uint32_t room, done; /* bytes of entries */
	uint64_t next;	     /* the offset behind the last entry */
};

static uint32_t encode(const struct listing *l, const struct dirent64 *d, size_t len, uint8_t *p)
{
	mode_t mode = DTTOIF(d->d_type);

	p9_qid_encode(p, p9_qid_type(mode), 0, fs_file_id(l->c->fs, l->fid->node->dev, d->d_ino));
	put_le64(p + 13, d->d_off);
	p[21] = d->d_type;
	put_le16(p + 22, len);
	memcpy(p + DIR_ENTRY, d->d_name, len);
	return DIR_ENTRY + len;
}

/* The entries of @buf, as many as there is room for. True: all of them. */
static bool list_batch(struct listing *l, const uint8_t *buf, size_t size)
{
	/* An entry here is at most as much longer than the host's as a short one's padding and header are. */
	uint8_t text[DIR_BATCH + DIR_BATCH / 4];
	uint32_t at = 0;
	bool all = true;

	for (size_t i = 0; i < size && all;) {
		const struct dirent64 *d = (const struct dirent64 *)(buf + i);
		size_t len = strlen(d->d_name);

		all = len <= P9_NAME_MAX && l->done + at + DIR_ENTRY + len <= l->room;
		if (!all)
			break;
		at += encode(l, d, len, text + at);
		l->next = d->d_off;
		i += d->d_reclen;
	}
	iov_write(l->c->req->in, l->c->req->nin, l->c->rlen + COUNT_FIELD + l->done, text, at);
	l->done += at;
	return all;
}

/* With the fid's lock held. */
static int list(struct listing *l, int fd, uint64_t offset)
{
	_Alignas(struct dirent64) uint8_t buf[DIR_BATCH];
	struct p9_fid *fid = l->fid;
	bool all = true;
	ssize_t n = 1;

	if (fid->dir_pos != offset && lseek(fd, offset, SEEK_SET) < 0)
		return -errno;
	fid->dir_pos = UINT64_MAX;
	l->next = offset;
	while (all && l->room - l->done > DIR_ENTRY) {
		n = getdents64(fd, buf, MIN(sizeof(buf), MAX(l->room - l->done, 512u)));
		if (n <= 0)
			break;
		all = list_batch(l, buf, n);
	}
	if (n < 0 && !l->done)
		return -errno;
	if (!all && !l->done)
		return -EINVAL; /* not even one fits */
	if (all && n >= 0)
		fid->dir_pos = l->next;
	return 0;
}

/* fid[4] offset[8] count[4] */
int p9_readdir(struct p9_call *c)
{
	struct listing l = {.c = c};
	uint64_t offset;
	uint32_t count, have = p9_data_room(c);
	int ret = p9_get_fid(c, P9_FID_FILE, &l.fid), fd;

	if (ret)
		return ret;
	offset = p9_get64(c);
	count = p9_get32(c);
	fd = p9_fid_fd(l.fid);
	if (c->bad || have < COUNT_FIELD)
		ret = -EINVAL;
	else if (fd < 0)
		ret = fd;
	else if (!S_ISDIR(l.fid->node->type))
		ret = -ENOTDIR;
	if (!ret) {
		l.room = MIN(count, have - COUNT_FIELD);
		pthread_mutex_lock(&l.fid->lock);
		ret = list(&l, fd, offset);
		pthread_mutex_unlock(&l.fid->lock);
	}
	p9_fid_put(c->s, l.fid);
	if (ret)
		return ret;
	p9_put32(c, l.done);
	c->data = l.done;
	return 0;
}
