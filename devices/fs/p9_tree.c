/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L: making, naming and removing files. */
#include <fcntl.h>
#include <sys/sysmacros.h>

#include "p9_impl.h"

/* Ends a request that gives a qid. */
static int answer_qid(struct p9_call *c, struct p9_fid *fid, int ret, const struct stat *st)
{
	p9_fid_put(c->s, fid);
	if (!ret)
		p9_put_qid(c, st);
	return ret;
}

/* dfid[4] name[s] mode[4] gid[4] */
int p9_mkdir(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct fs_owner owner;
	struct p9_fid *dir;
	struct stat st;
	uint32_t mode;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir);

	if (ret)
		return ret;
	p9_get_name(c, name);
	mode = p9_get32(c);
	owner = (struct fs_owner){dir->uid, p9_get32(c)};
	ret = c->bad ? -EINVAL : fs_mkdir(c->fs, dir->node, name, mode, &owner, &st);
	return answer_qid(c, dir, ret, &st);
}

/* dfid[4] name[s] symtgt[s] gid[4] */
int p9_symlink(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1], target[4096];
	struct fs_owner owner;
	struct p9_fid *dir;
	struct stat st;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir);

	if (ret)
		return ret;
	p9_get_name(c, name);
	p9_get_string(c, target, sizeof(target));
	owner = (struct fs_owner){dir->uid, p9_get32(c)};
	ret = c->bad ? -EINVAL : fs_symlink(c->fs, dir->node, name, target, &owner, &st);
	return answer_qid(c, dir, ret, &st);
}

/* dfid[4] name[s] mode[4] major[4] minor[4] gid[4] */
int p9_mknod(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct fs_owner owner;
	uint32_t mode, major, minor;
	struct p9_fid *dir;
	struct stat st;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir);

	if (ret)
		return ret;
	p9_get_name(c, name);
	mode = p9_get32(c);
	major = p9_get32(c);
	minor = p9_get32(c);
	owner = (struct fs_owner){dir->uid, p9_get32(c)};
	ret = c->bad ? -EINVAL
		     : fs_mknod(c->fs, dir->node, name, mode, makedev(major, minor), &owner, &st);
	return answer_qid(c, dir, ret, &st);
}

/* dfid[4] fid[4] name[s] */
int p9_link(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct p9_fid *dir, *fid;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir);

	if (ret)
		return ret;
	ret = p9_get_fid(c, P9_FID_FILE, &fid);
	if (!ret) {
		p9_get_name(c, name);
		ret = c->bad ? -EINVAL : fs_link(c->fs, fid->node, dir->node, name);
		p9_fid_put(c->s, fid);
	}
	p9_fid_put(c->s, dir);
	return ret;
}

/* olddirfid[4] oldname[s] newdirfid[4] newname[s] */
int p9_renameat(struct p9_call *c)
{
	char from[P9_NAME_MAX + 1], to[P9_NAME_MAX + 1];
	struct p9_fid *from_dir, *to_dir;
	int ret = p9_get_fid(c, P9_FID_FILE, &from_dir);

	if (ret)
		return ret;
	p9_get_name(c, from);
	ret = p9_get_fid(c, P9_FID_FILE, &to_dir);
	if (!ret) {
		p9_get_name(c, to);
		ret = c->bad ? -EINVAL : fs_rename(c->fs, from_dir->node, from, to_dir->node, to);
		p9_fid_put(c->s, to_dir);
	}
	p9_fid_put(c->s, from_dir);
	return ret;
}

/* dirfd[4] name[s] flags[4] */
int p9_unlinkat(struct p9_call *c)
{
	char name[P9_NAME_MAX + 1];
	struct p9_fid *dir;
	uint32_t flags;
	int ret = p9_get_fid(c, P9_FID_FILE, &dir);

	if (ret)
		return ret;
	p9_get_name(c, name);
	flags = p9_get32(c);
	if (c->bad || (flags & ~AT_REMOVEDIR))
		ret = -EINVAL;
	else
		ret = fs_unlink(c->fs, dir->node, name, flags & AT_REMOVEDIR);
	p9_fid_put(c->s, dir);
	return ret;
}
