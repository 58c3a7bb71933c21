/* SPDX-License-Identifier: GPL-2.0-only */
/* A client of 9P2000.L for tests, written from the protocol's description, and a directory to share. */
#ifndef TESTS_UNIT_P9_TEST_H
#define TESTS_UNIT_P9_TEST_H

#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "devices/fs/p9.h"
#include "tests/unit/device_test.h"

#define MSIZE 65536
#define NOFID UINT32_MAX

static char base[256]; /* base/share is shared; base/secret is outside */
static struct fsdev *fs;
static struct p9_session *session;

struct p9_msg {
	uint8_t data[MSIZE];
	uint32_t len;
};

/* b, w, d, q: numbers of 1, 2, 4, 8 bytes; s: a string; S: bytes and their count, without one in front. */
static inline void p9_vbuild(struct p9_msg *m, uint8_t type, uint16_t tag, const char *fmt,
			     va_list ap)
{
	uint8_t *p = m->data + 7;

	for (; *fmt; fmt++) {
		const char *text;
		size_t n;

		switch (*fmt) {
		case 'b':
			*p++ = va_arg(ap, int);
			break;
		case 'w':
			put_le16(p, va_arg(ap, int));
			p += 2;
			break;
		case 'd':
			put_le32(p, va_arg(ap, uint32_t));
			p += 4;
			break;
		case 'q':
			put_le64(p, va_arg(ap, uint64_t));
			p += 8;
			break;
		case 's':
			text = va_arg(ap, const char *);
			put_le16(p, strlen(text));
			memcpy(p + 2, text, strlen(text));
			p += 2 + strlen(text);
			break;
		case 'S':
			text = va_arg(ap, const char *);
			n = va_arg(ap, uint32_t);
			memcpy(p, text, n);
			p += n;
		}
	}
	m->len = p - m->data;
	put_le32(m->data, m->len);
	m->data[4] = type;
	put_le16(m->data + 5, tag);
}

static inline void p9_build(struct p9_msg *m, uint8_t type, uint16_t tag, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	p9_vbuild(m, type, tag, fmt, ap);
	va_end(ap);
}

/* Serve @m in buffers that are split in odd places; the answer is in @r. Any thread. Is it well-formed? */
static inline bool p9_try(struct p9_msg *m, struct p9_msg *r)
{
	struct iovec iov[4] = {
		{m->data, MIN(m->len, 9)},
		{m->data + MIN(m->len, 9), m->len - MIN(m->len, 9)},
		{r->data, 13},
		{r->data + 13, sizeof(r->data) - 13},
	};
	struct p9_request req = {iov, iov + 2, 2, 2, m->len, sizeof(r->data)};
	struct p9_header h;

	memset(r->data, 0xee, 64);
	if (p9_header(&req, &h))
		return false;
	r->len = p9_serve(session, &req, &h);
	return r->len >= 7 && r->len <= sizeof(r->data) && get_le32(r->data) == r->len &&
	       get_le16(r->data + 5) == get_le16(m->data + 5) &&
	       (r->data[4] == m->data[4] + 1 || (r->data[4] == 7 && r->len == 11));
}

static inline void p9_exchange(struct p9_msg *m, struct p9_msg *r)
{
	ck_assert(p9_try(m, r));
}

/* One request; 0, or the errno of Rlerror. */
static struct p9_msg reply;
static inline int p9(uint8_t type, const char *fmt, ...)
{
	static struct p9_msg m;
	va_list ap;

	va_start(ap, fmt);
	p9_vbuild(&m, type, 1, fmt, ap);
	va_end(ap);
	p9_exchange(&m, &reply);
	return reply.data[4] == 7 ? (int)get_le32(reply.data + 7) : 0;
}

#define BODY (reply.data + 7)

/* --- what is often asked for --- */

/* Walk one name. */
static inline int p9_walk(uint32_t fid, uint32_t newfid, const char *name)
{
	return p9(P9_TWALK, "ddws", fid, newfid, 1, name);
}

static inline int p9_clunk(uint32_t fid)
{
	return p9(P9_TCLUNK, "d", fid);
}

/* Walk to @name below the root and open it as @fid. */
static inline int p9_open(uint32_t fid, const char *name, uint32_t flags)
{
	int ret = p9_walk(0, fid, name);

	if (!ret) {
		ret = p9(P9_TLOPEN, "dd", fid, flags);
		if (ret)
			ck_assert_int_eq(p9_clunk(fid), 0);
	}
	return ret;
}

static inline int p9_create(uint32_t fid, const char *name, uint32_t flags, uint32_t mode)
{
	int ret = p9(P9_TWALK, "ddw", 0, fid, 0);

	ck_assert_int_eq(ret, 0);
	ret = p9(P9_TLCREATE, "dsddd", fid, name, flags, mode, getegid());
	if (ret)
		ck_assert_int_eq(p9_clunk(fid), 0);
	return ret;
}

static inline int p9_write_text(uint32_t fid, uint64_t offset, const char *text)
{
	return p9(P9_TWRITE, "dqdS", fid, offset, strlen(text), text, strlen(text));
}

/* --- the directory --- */

static inline const char *at(const char *path)
{
	static char text[4][512];
	static int turn;
	char *p = text[turn++ % 4];

	snprintf(p, 512, "%s/%s", base, path);
	return p;
}

static inline void put_file(const char *path, const char *text)
{
	int fd = open(at(path), O_WRONLY | O_CREAT | O_TRUNC, 0644);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static inline const char *file_text(const char *path)
{
	static char text[256];
	int fd = open(at(path), O_RDONLY);
	ssize_t n;

	ck_assert_int_ge(fd, 0);
	n = read(fd, text, sizeof(text) - 1);
	ck_assert_int_ge(n, 0);
	text[n] = 0;
	close(fd);
	return text;
}

static inline bool exists(const char *path)
{
	struct stat st;

	return lstat(at(path), &st) == 0;
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline void make_base(void)
{
	const char *dir = getenv("TMPDIR");

	snprintf(base, sizeof(base), "%s/hako-9p-XXXXXX", dir ? dir : "/var/tmp");
	ck_assert_ptr_nonnull(mkdtemp(base));
	ck_assert_int_eq(mkdir(at("share"), 0755), 0);
	put_file("secret", "secret");
}

static inline void remove_base(void)
{
	ck_assert_str_eq(file_text("secret"), "secret");
	nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A client with fid 0 at the root. */
static inline void p9_begin(const char *options)
{
	char text[512];

	snprintf(text, sizeof(text), "id=fs,path=%s/share%s", base, options);
	fs = (struct fsdev *)make(CLASS_FSDEV, "local", text);
	ck_assert_int_eq(p9_session_new(&session, fs), 0);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", MSIZE, "9P2000.L"), 0);
	ck_assert_uint_eq(get_le32(BODY), MSIZE);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "", geteuid()), 0);
	ck_assert_uint_eq(BODY[0], 0x80);
}

static inline void p9_end(void)
{
	p9_session_free(session);
	ck_assert_uint_eq(fs->nfds, 0);
	object_destroy(&fs->obj);
}

#endif
