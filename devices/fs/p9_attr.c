/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L: attributes of files. */
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "p9_impl.h"
#include "vmm/iov.h"

#define GETATTR_BASIC 0x7ffull

/* Tsetattr's valid. */
#define SET_MODE      BIT(0)
#define SET_UID	      BIT(1)
#define SET_GID	      BIT(2)
#define SET_SIZE      BIT(3)
#define SET_ATIME     BIT(4)
#define SET_MTIME     BIT(5)
#define SET_CTIME     BIT(6)
#define SET_ATIME_SET BIT(7) /* to a given time, not to now */
#define SET_MTIME_SET BIT(8)

/* --- stat -------------------------------------------------------------------------------------- */

/* What programs take for the best size of their reads and writes: a whole message. */
static uint64_t best_size(const struct p9_call *c, const struct stat *st)
{
	uint64_t block = MAX(st->st_blksize, 1), most = c->s->msize - 24;

	return S_ISREG(st->st_mode) && most > block ? most - most % block : block;
}

static void put_time(struct p9_call *c, const struct timespec *t)
{
	p9_put64(c, t->tv_sec);
	p9_put64(c, t->tv_nsec);
}

/* fid[4] request_mask[8] */
int p9_getattr(struct p9_call *c)
{
	struct p9_fid *fid;
	struct stat st;
	int ret = p9_fid_find(c->s, p9_get32(c), &fid);

	if (ret)
		return ret;
	ret = fid->node ? fs_stat(fid->node, &st) : -EBADF;
	p9_fid_put(c->s, fid);
	if (ret)
		return ret;
	p9_put64(c, GETATTR_BASIC);
	p9_put_qid(c, &st);
	p9_put32(c, st.st_mode);
	p9_put32(c, st.st_uid);
	p9_put32(c, st.st_gid);
	p9_put64(c, st.st_nlink);
	p9_put64(c, st.st_rdev);
	p9_put64(c, st.st_size);
	p9_put64(c, best_size(c, &st));
	p9_put64(c, st.st_blocks);
	put_time(c, &st.st_atim);
	put_time(c, &st.st_mtim);
	put_time(c, &st.st_ctim);
	for (int i = 0; i < 4; i++) /* time of birth, generation, version */
		p9_put64(c, 0);
	return 0;
}

static struct timespec new_time(struct p9_call *c, uint32_t valid, uint32_t bit, uint32_t given)
{
	int64_t sec = p9_get64(c);
	uint64_t nsec = p9_get64(c);

	if (!(valid & bit))
		return (struct timespec){0, UTIME_OMIT};
	if (!(valid & given))
		return (struct timespec){0, UTIME_NOW};
	if (nsec >= NSEC_PER_SEC)
		c->bad = true;
	return (struct timespec){sec, nsec};
}

/* The owner first: setting it clears the mode's set-ID bits. */
static int set_all(struct p9_call *c, struct p9_fid *fid, uint32_t valid, uint32_t mode,
		   uint32_t uid, uint32_t gid, uint64_t size, const struct timespec times[2])
{
	const struct fs_node *node = fid->node;
	int ret = 0;

	if (valid & (SET_UID | SET_GID) || valid == SET_CTIME)
		ret = fs_chown(c->fs, node, valid & SET_UID ? uid : -1u,
			       valid & SET_GID ? gid : -1u);
	if (!ret && (valid & SET_MODE))
		ret = fs_chmod(node, mode);
	if (!ret && (valid & SET_SIZE))
		ret = fs_truncate(node, fid->writable ? p9_fid_fd(fid) : -1, size);
	if (!ret && (valid & (SET_ATIME | SET_MTIME)))
		ret = fs_utimens(node, times);
	return ret;
}

/* fid[4] valid[4] mode[4] uid[4] gid[4] size[8] atime[8+8] mtime[8+8] */
int p9_setattr(struct p9_call *c)
{
	uint32_t valid, mode, uid, gid;
	struct timespec times[2];
	struct p9_fid *fid;
	uint64_t size;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	valid = p9_get32(c);
	mode = p9_get32(c);
	uid = p9_get32(c);
	gid = p9_get32(c);
	size = p9_get64(c);
	times[0] = new_time(c, valid, SET_ATIME, SET_ATIME_SET);
	times[1] = new_time(c, valid, SET_MTIME, SET_MTIME_SET);
	ret = c->bad ? -EINVAL : set_all(c, fid, valid, mode, uid, gid, size, times);
	p9_fid_put(c->s, fid);
	return ret;
}

/* fid[4] */
int p9_statfs(struct p9_call *c)
{
	struct p9_fid *fid;
	struct statfs sf;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	ret = fstatfs(fid->node->fd, &sf) < 0 ? -errno : 0;
	p9_fid_put(c->s, fid);
	if (ret)
		return ret;
	p9_put32(c, V9FS_MAGIC);
	p9_put32(c, sf.f_bsize);
	p9_put64(c, sf.f_blocks);
	p9_put64(c, sf.f_bfree);
	p9_put64(c, sf.f_bavail);
	p9_put64(c, sf.f_files);
	p9_put64(c, sf.f_ffree);
	p9_put64(c, (uint32_t)sf.f_fsid.__val[0] | (uint64_t)sf.f_fsid.__val[1] << 32);
	p9_put32(c, MIN(sf.f_namelen, P9_NAME_MAX));
	return 0;
}

/* fid[4] */
int p9_readlink(struct p9_call *c)
{
	char target[4096];
	struct p9_fid *fid;
	ssize_t n;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	n = S_ISLNK(fid->node->type) ? readlinkat(fid->node->fd, "", target, sizeof(target)) : -1;
	ret = n < 0 ? (S_ISLNK(fid->node->type) ? -errno : -EINVAL) : 0;
	p9_fid_put(c->s, fid);
	if (!ret)
		p9_put_string(c, target, n);
	return ret;
}

/* --- extended attributes ----------------------------------------------------------------------- */

/* fid[4] newfid[4] name[s]: the new fid is there to be read from; without a name it is the list of names */
int p9_xattrwalk(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct p9_fid *fid, *new = NULL;
	uint64_t size = 0;
	uint32_t num;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	num = p9_get32(c);
	p9_get_string(c, name, sizeof(name));
	ret = c->bad ? -EINVAL : p9_fid_new(c->s, P9_FID_XATTR_READ, num, fid->uid, NULL, &new);
	if (!ret)
		ret = fs_getxattr(fid->node, name, &new->xattr->value);
	if (ret >= 0 && new) {
		size = new->xattr->len = ret;
		ret = p9_fid_publish(c->s, new, NULL);
	}
	if (ret < 0)
		p9_fid_put(c->s, new);
	p9_fid_put(c->s, fid);
	if (ret < 0)
		return ret;
	p9_put64(c, size);
	return 0;
}

/* fid[4] name[s] attr_size[8] flags[4]: from now on the fid is there to be written to */
int p9_xattrcreate(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct p9_fid *fid, *new = NULL;
	uint64_t size;
	uint32_t flags;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	p9_get_string(c, name, sizeof(name));
	size = p9_get64(c);
	flags = p9_get32(c);
	if (c->bad || !*name)
		ret = -EINVAL;
	else if (size > FS_XATTR_MAX)
		ret = -E2BIG;
	fs_node_get(fid->node);
	if (!ret)
		ret = p9_fid_new(c->s, P9_FID_XATTR_WRITE, fid->num, fid->uid, fid->node, &new);
	if (ret)
		fs_node_put(c->fs, fid->node);
	if (!ret) {
		memcpy(new->xattr->name, name, sizeof(name));
		new->xattr->len = size;
		new->xattr->flags = flags;
		new->xattr->value = size ? calloc(1, size) : NULL;
		ret = size && !new->xattr->value ? -ENOMEM : p9_fid_publish(c->s, new, fid);
		if (ret)
			p9_fid_put(c->s, new);
	}
	p9_fid_put(c->s, fid);
	return ret;
}

int p9_xattr_read(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count)
{
	uint32_t len = fid->xattr->len, n = offset < len ? MIN(count, len - offset) : 0;

	p9_put32(c, n);
	if (n)
		iov_write(c->req->in, c->req->nin, c->rlen, fid->xattr->value + offset, n);
	c->data = n;
	return 0;
}

int p9_xattr_write(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count)
{
	int ret = 0;

	pthread_mutex_lock(&fid->lock);
	if (offset != fid->xattr->written || count > fid->xattr->len - fid->xattr->written) {
		ret = -ENOSPC;
	} else if (count) { /* of an empty value there is no memory */
		iov_read(c->req->out, c->req->nout, 23, fid->xattr->value + offset, count);
		fid->xattr->written += count;
	}
	pthread_mutex_unlock(&fid->lock);
	if (!ret)
		p9_put32(c, count);
	return ret;
}

int p9_xattr_finish(struct p9_fid *fid)
{
	int ret;

	if (fid->kind != P9_FID_XATTR_WRITE)
		return 0;
	pthread_mutex_lock(&fid->lock);
	if (fid->xattr->written != fid->xattr->len)
		ret = -EINVAL; /* not all of it has come */
	else
		ret = fs_setxattr(fid->node, fid->xattr->name, fid->xattr->value, fid->xattr->len,
				  fid->xattr->flags);
	pthread_mutex_unlock(&fid->lock);
	return ret;
}
