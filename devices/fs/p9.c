/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L: messages in and out, the session, and walking. */
#include "p9.h"

#include <stdlib.h>

#include "p9_impl.h"
#include "vmm/iov.h"

/* Qid types. */
#define QID_DIR	    0x80
#define QID_SYMLINK 0x02

#define TWRITE_HEADER 23u /* header, fid[4], offset[8], count[4] */

/* --- reading the message ----------------------------------------------------------------------- */

static const uint8_t *take(struct p9_call *c, uint32_t n)
{
	const uint8_t *p = c->body + c->pos;

	if (c->bad || n > c->len - c->pos) {
		c->bad = true;
		return NULL;
	}
	c->pos += n;
	return p;
}

uint8_t p9_get8(struct p9_call *c)
{
	const uint8_t *p = take(c, 1);

	return p ? *p : 0;
}

uint32_t p9_get32(struct p9_call *c)
{
	const uint8_t *p = take(c, 4);

	return p ? get_le32(p) : 0;
}

uint64_t p9_get64(struct p9_call *c)
{
	const uint8_t *p = take(c, 8);

	return p ? get_le64(p) : 0;
}

static uint16_t get16(struct p9_call *c)
{
	const uint8_t *p = take(c, 2);

	return p ? get_le16(p) : 0;
}

void p9_get_string(struct p9_call *c, char *buf, size_t size)
{
	uint16_t len = get16(c);
	const uint8_t *p = take(c, len);

	*buf = 0;
	if (!p)
		return;
	if (len >= size || memchr(p, 0, len)) {
		c->bad = true;
		return;
	}
	memcpy(buf, p, len);
	buf[len] = 0;
}

void p9_get_name(struct p9_call *c, char name[P9_NAME_MAX + 1])
{
	p9_get_string(c, name, P9_NAME_MAX + 1);
	if (!*name || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		c->bad = true;
}

/* --- writing the answer ------------------------------------------------------------------------ */

static uint8_t *room(struct p9_call *c, uint32_t n)
{
	uint8_t *p = c->reply + c->rlen;

	c->rlen += n;
	return p;
}

void p9_put8(struct p9_call *c, uint8_t v)
{
	*room(c, 1) = v;
}

void p9_put16(struct p9_call *c, uint16_t v)
{
	put_le16(room(c, 2), v);
}

void p9_put32(struct p9_call *c, uint32_t v)
{
	put_le32(room(c, 4), v);
}

void p9_put64(struct p9_call *c, uint64_t v)
{
	put_le64(room(c, 8), v);
}

void p9_put_string(struct p9_call *c, const char *text, size_t len)
{
	p9_put16(c, len);
	memcpy(room(c, len), text, len);
}

void p9_qid_encode(uint8_t *p, uint8_t type, uint32_t version, uint64_t path)
{
	*p = type;
	put_le32(p + 1, version);
	put_le64(p + 5, path);
}

uint8_t p9_qid_type(mode_t mode)
{
	return S_ISDIR(mode) ? QID_DIR : S_ISLNK(mode) ? QID_SYMLINK : 0;
}

void p9_put_qid(struct p9_call *c, const struct stat *st)
{
	uint32_t version = st->st_mtim.tv_sec ^ st->st_mtim.tv_nsec ^ (uint32_t)st->st_size << 8;

	p9_qid_encode(room(c, 13), p9_qid_type(st->st_mode), version,
		      fs_file_id(c->fs, st->st_dev, st->st_ino));
}

uint32_t p9_data_room(const struct p9_call *c)
{
	uint32_t max = MIN(c->s->msize, c->req->in_len);

	return max > c->rlen ? max - c->rlen : 0;
}

/* --- the session ------------------------------------------------------------------------------- */

int p9_session_new(struct p9_session **out, struct fsdev *fs)
{
	struct p9_session *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->fs = fs;
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

void p9_session_reset(struct p9_session *s)
{
	p9_fid_clear(s);
	s->msize = 0;
}

void p9_session_free(struct p9_session *s)
{
	if (!s)
		return;
	p9_session_reset(s);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

bool p9_session_in_use(struct p9_session *s)
{
	return s->msize;
}

/* msize[4] version[s] */
static int version(struct p9_call *c)
{
	uint32_t msize = p9_get32(c);
	char name[32];
	bool known;

	p9_get_string(c, name, sizeof(name));
	if (c->bad || msize < P9_MSIZE_MIN)
		return -EINVAL;
	known = !strcmp(name, "9P2000.L");
	p9_session_reset(c->s);
	if (known)
		c->s->msize = MIN(msize, P9_MSIZE_MAX);
	p9_put32(c, MIN(msize, P9_MSIZE_MAX));
	p9_put_string(c, known ? name : "unknown", strlen(known ? name : "unknown"));
	return 0;
}

/* fid[4] afid[4] uname[s] aname[s] n_uname[4] */
static int attach(struct p9_call *c)
{
	uint32_t num = p9_get32(c), afid = p9_get32(c), uid;
	char uname[P9_NAME_MAX + 1], aname[P9_NAME_MAX + 1];
	struct p9_fid *fid = NULL;
	struct fs_node *node;
	struct stat st;
	int ret;

	p9_get_string(c, uname, sizeof(uname));
	p9_get_string(c, aname, sizeof(aname));
	uid = p9_get32(c);
	if (c->bad || afid != P9_NOFID)
		return -EINVAL;
	/* There is one tree. */
	if (*aname && strcmp(aname, "/"))
		return -ENOENT;
	ret = fs_root(c->fs, &node, &st);
	if (ret)
		return ret;
	ret = p9_fid_new(c->s, P9_FID_FILE, num, uid, node, &fid);
	if (ret) {
		fs_node_put(c->fs, node);
		return ret;
	}
	ret = p9_fid_publish(c->s, fid, NULL);
	if (ret) {
		p9_fid_put(c->s, fid);
		return ret;
	}
	p9_put_qid(c, &st);
	return 0;
}

static int auth(struct p9_call *c)
{
	return -EOPNOTSUPP; /* none is needed */
}

/* The flushed request has been answered, see p9_serve(). */
static int flush(struct p9_call *c)
{
	return 0;
}

/* fid[4] */
static int clunk(struct p9_call *c)
{
	struct p9_fid *fid;
	uint32_t num = p9_get32(c);
	int ret = c->bad ? -EINVAL : p9_fid_take(c->s, num, &fid);

	if (ret)
		return ret;
	ret = p9_xattr_finish(fid);
	p9_fid_put(c->s, fid);
	return ret;
}

/* fid[4]: as ever with this message, the fid is gone also if it fails. Clients of 9P2000.L use Tunlinkat. */
static int remove_fid(struct p9_call *c)
{
	struct p9_fid *fid;
	int ret = p9_fid_take(c->s, p9_get32(c), &fid);

	if (ret)
		return ret;
	p9_fid_put(c->s, fid);
	return -EOPNOTSUPP;
}

/* Clients use Trenameat, if Trename is answered so. */
static int rename_fid(struct p9_call *c)
{
	return -EOPNOTSUPP;
}

/* --- walking ----------------------------------------------------------------------------------- */

/* As many of the @n names as there are, from *@node on, which is replaced. Writes their qids. */
static int walk_names(struct p9_call *c, uint16_t n, struct fs_node **node, uint16_t *done)
{
	char name[P9_NAME_MAX + 1];

	for (*done = 0; *done < n; ++*done) {
		struct fs_node *next;
		struct stat st;
		int ret;

		p9_get_string(c, name, sizeof(name));
		if (c->bad || !*name || strchr(name, '/') || !strcmp(name, "."))
			return -EINVAL;
		ret = fs_lookup(c->fs, *node, name, &next, &st);
		if (ret)
			return ret;
		fs_node_put(c->fs, *node);
		*node = next;
		p9_put_qid(c, &st);
	}
	return 0;
}

/* Make @node known as @num, which is @fid's or free. */
static int walk_finish(struct p9_call *c, struct p9_fid *fid, uint32_t num, struct fs_node *node)
{
	struct p9_fid *new;
	int ret = p9_fid_new(c->s, P9_FID_FILE, num, fid->uid, node, &new);

	if (ret) {
		fs_node_put(c->fs, node);
		return ret;
	}
	ret = p9_fid_publish(c->s, new, num == fid->num ? fid : NULL);
	if (ret)
		p9_fid_put(c->s, new);
	return ret;
}

/* fid[4] newfid[4] nwname[2] nwname*(wname[s]) */
static int walk(struct p9_call *c)
{
	struct fs_node *node;
	struct p9_fid *fid;
	uint32_t num, at;
	uint16_t n, done;
	int ret = p9_get_fid(c, P9_FID_FILE, &fid);

	if (ret)
		return ret;
	num = p9_get32(c);
	n = get16(c);
	at = c->rlen;
	p9_put16(c, 0);
	node = fid->node;
	fs_node_get(node);
	ret = c->bad || n > P9_WALK_MAX ? -EINVAL : walk_names(c, n, &node, &done);
	if (!ret) {
		ret = walk_finish(c, fid, num, node);
	} else {
		fs_node_put(c->fs, node);
		/* Some names were found: that is told, and the new fid is not made. */
		if (!c->bad && n <= P9_WALK_MAX && done)
			ret = 0;
	}
	if (!ret)
		put_le16(c->reply + at, done);
	p9_fid_put(c->s, fid);
	return ret;
}

/* --- serving ----------------------------------------------------------------------------------- */

static const struct {
	int (*fn)(struct p9_call *c);
	bool writes; /* refused where the share is read-only */
} requests[256] = {
	[P9_TSTATFS] = {p9_statfs},
	[P9_TLOPEN] = {p9_lopen},
	[P9_TLCREATE] = {p9_lcreate, true},
	[P9_TSYMLINK] = {p9_symlink, true},
	[P9_TMKNOD] = {p9_mknod, true},
	[P9_TRENAME] = {rename_fid, true},
	[P9_TREADLINK] = {p9_readlink},
	[P9_TGETATTR] = {p9_getattr},
	[P9_TSETATTR] = {p9_setattr, true},
	[P9_TXATTRWALK] = {p9_xattrwalk},
	[P9_TXATTRCREATE] = {p9_xattrcreate, true},
	[P9_TREADDIR] = {p9_readdir},
	[P9_TFSYNC] = {p9_fsync},
	[P9_TLOCK] = {p9_lock},
	[P9_TGETLOCK] = {p9_getlock},
	[P9_TLINK] = {p9_link, true},
	[P9_TMKDIR] = {p9_mkdir, true},
	[P9_TRENAMEAT] = {p9_renameat, true},
	[P9_TUNLINKAT] = {p9_unlinkat, true},
	[P9_TVERSION] = {version},
	[P9_TAUTH] = {auth},
	[P9_TATTACH] = {attach},
	[P9_TFLUSH] = {flush},
	[P9_TWALK] = {walk},
	[P9_TREAD] = {p9_read},
	[P9_TWRITE] = {p9_write, true},
	[P9_TCLUNK] = {clunk},
	[P9_TREMOVE] = {remove_fid},
};

const char *p9_header(const struct p9_request *req, struct p9_header *h)
{
	uint8_t raw[P9_HEADER];

	if (iov_read(req->out, req->nout, 0, raw, sizeof(raw)) < sizeof(raw))
		return "a message without a header";
	h->size = get_le32(raw);
	h->type = raw[4];
	h->tag = get_le16(raw + 5);
	if (h->size < P9_HEADER || h->size > req->out_len)
		return "a message whose size is not that of its buffers";
	if (req->in_len < P9_HEADER + 4)
		return "no room for an answer";
	return NULL;
}

static int serve_body(struct p9_call *c, uint8_t type)
{
	if (!requests[type].fn)
		return -EOPNOTSUPP;
	if (!c->s->msize && type != P9_TVERSION && type != P9_TFLUSH)
		return -EPROTO;
	if (c->s->msize && c->size > c->s->msize)
		return -EMSGSIZE;
	/* A name or target of this length is none. */
	if (type != P9_TWRITE && c->size - P9_HEADER > P9_BODY_MAX)
		return -ENAMETOOLONG;
	if (requests[type].writes && c->fs->readonly)
		return -EROFS;
	return requests[type].fn(c);
}

uint32_t p9_serve(struct p9_session *s, const struct p9_request *req, const struct p9_header *h)
{
	uint32_t max = h->type == P9_TWRITE ? TWRITE_HEADER - P9_HEADER : P9_BODY_MAX;
	uint8_t body[P9_BODY_MAX], type = h->type + 1;
	struct p9_call c = {
		.s = s,
		.fs = s->fs,
		.req = req,
		.size = h->size,
		.body = body,
		.rlen = P9_HEADER,
	};
	int ret;

	/* Copied once, and never read again: the guest may change it meanwhile. */
	c.len = iov_read(req->out, req->nout, P9_HEADER, body, MIN(h->size - P9_HEADER, max));
	ret = serve_body(&c, h->type);
	if (!ret && c.rlen + c.data > req->in_len)
		ret = -EMSGSIZE;
	if (ret) {
		type = P9_RLERROR;
		c.rlen = P9_HEADER;
		c.data = 0;
		p9_put32(&c, -ret);
	}
	put_le32(c.reply, c.rlen + c.data);
	c.reply[4] = type;
	put_le16(c.reply + 5, h->tag);
	iov_write(req->in, req->nin, 0, c.reply, c.rlen);
	return c.rlen + c.data;
}
