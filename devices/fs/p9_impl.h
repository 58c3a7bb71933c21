/* SPDX-License-Identifier: GPL-2.0-only */
/* Between the files of the 9P server. */
#ifndef DEVICES_FS_P9_IMPL_H
#define DEVICES_FS_P9_IMPL_H

#include <pthread.h>

#include "p9.h"

#define P9_BODY_MAX \
	8192 /* of a message that is not data; Twalk's 16 names and a symlink's target fit */
#define P9_REPLY_MAX	  4352 /* of an answer that is not data; a symlink's target fits */
#define P9_NAME_MAX	  255
#define P9_WALK_MAX	  16
#define P9_FIDS_MAX	  (1u << 20)
#define P9_XATTR_FIDS_MAX 256 /* each may hold FS_XATTR_MAX bytes */
#define P9_NOFID	  UINT32_MAX

/* What a fid is good for. */
enum p9_fid_kind {
	P9_FID_FILE,
	P9_FID_XATTR_READ,
	P9_FID_XATTR_WRITE, /* carried out at clunk */
};

/*
 * A client's handle. Whoever uses one holds a reference, so that a clunk at the same time does no harm. Node, owner and kind never change: where the
 * protocol has a fid become another file, another struct takes its number.
 */
struct p9_fid {
	uint32_t num, refs; /* refs: under the table's lock */
	struct p9_fid *next;
	enum p9_fid_kind kind;
	uint32_t uid;
	struct fs_node *node;

	pthread_mutex_t lock; /* guards what follows; held while a directory is read */
	int fd;		      /* -1: not opened. Set once */
	bool writable;
	uint64_t dir_pos; /* where the descriptor of a directory stands */
	struct {
		char name[P9_NAME_MAX + 1];
		uint8_t *value;
		uint32_t len, written;
		int flags;
	} * xattr;
};

struct p9_session {
	struct fsdev *fs;
	pthread_mutex_t lock; /* of the table */
	struct p9_fid **buckets;
	uint32_t nbuckets, nfids, nxattrs;
	uint32_t msize; /* 0: no version has been agreed on. Changes while nothing else is served */
};

/* A message being served. */
struct p9_call {
	struct p9_session *s;
	struct fsdev *fs;
	const struct p9_request *req;
	uint32_t size; /* of the message */
	uint8_t *body; /* behind the header, as far as it is no data */
	uint32_t len, pos;
	bool bad; /* the body is too short or holds what it may not */
	uint8_t reply[P9_REPLY_MAX];
	uint32_t rlen; /* in reply, header included */
	uint32_t data; /* bytes behind it, which are in the guest's memory already */
};

/* --- reading the message: on a fault c->bad is set, and the value is 0 or empty --- */
uint8_t p9_get8(struct p9_call *c);
uint32_t p9_get32(struct p9_call *c);
uint64_t p9_get64(struct p9_call *c);
/** A string of less than @size bytes, without a NUL in it. */
void p9_get_string(struct p9_call *c, char *buf, size_t size);
/** The name of a file in a directory: neither empty, nor ".", nor "..", no slash. */
void p9_get_name(struct p9_call *c, char name[P9_NAME_MAX + 1]);

/* --- writing the answer; what is written always fits --- */
void p9_put8(struct p9_call *c, uint8_t v);
void p9_put16(struct p9_call *c, uint16_t v);
void p9_put32(struct p9_call *c, uint32_t v);
void p9_put64(struct p9_call *c, uint64_t v);
void p9_put_string(struct p9_call *c, const char *text, size_t len);
void p9_put_qid(struct p9_call *c, const struct stat *st);
/** qid[13] of a directory's entry, for Rreaddir. */
void p9_qid_encode(uint8_t *p, uint8_t type, uint32_t version, uint64_t path);
uint8_t p9_qid_type(mode_t mode);
/** How many bytes of data fit behind what is in the answer. */
uint32_t p9_data_room(const struct p9_call *c);

/* --- fids --- */
/** The fid that the message names next, of that kind: -EBADF if there is none. p9_fid_put() gives it back. */
int p9_get_fid(struct p9_call *c, enum p9_fid_kind kind, struct p9_fid **fid);
/** The same of any kind. */
int p9_fid_find(struct p9_session *s, uint32_t num, struct p9_fid **fid);
void p9_fid_put(struct p9_session *s, struct p9_fid *fid);
/** A fid that no client knows yet. Takes over @node on success. */
int p9_fid_new(struct p9_session *s, enum p9_fid_kind kind, uint32_t num, uint32_t uid,
	       struct fs_node *node, struct p9_fid **fid);
/** Make it known by its number, in place of @old (NULL: of none: -EINVAL if the number is taken). On success the reference is the table's. */
int p9_fid_publish(struct p9_session *s, struct p9_fid *fid, const struct p9_fid *old);
/** Take the number out of the table; the table's reference is the caller's. */
int p9_fid_take(struct p9_session *s, uint32_t num, struct p9_fid **fid);
void p9_fid_clear(struct p9_session *s);
/** The descriptor of an opened fid, or -EBADF. It stays good while the fid is held. */
int p9_fid_fd(struct p9_fid *fid);

/* --- requests: 0 or a negative errno --- */
int p9_lopen(struct p9_call *c);
int p9_lcreate(struct p9_call *c);
int p9_read(struct p9_call *c);
int p9_write(struct p9_call *c);
int p9_readdir(struct p9_call *c);
int p9_fsync(struct p9_call *c);
int p9_lock(struct p9_call *c);
int p9_getlock(struct p9_call *c);
int p9_getattr(struct p9_call *c);
int p9_setattr(struct p9_call *c);
int p9_statfs(struct p9_call *c);
int p9_readlink(struct p9_call *c);
int p9_xattrwalk(struct p9_call *c);
int p9_xattrcreate(struct p9_call *c);
int p9_xattr_read(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count);
int p9_xattr_write(struct p9_call *c, struct p9_fid *fid, uint64_t offset, uint32_t count);
/** What a clunk has still to do. */
int p9_xattr_finish(struct p9_fid *fid);
int p9_mkdir(struct p9_call *c);
int p9_symlink(struct p9_call *c);
int p9_mknod(struct p9_call *c);
int p9_link(struct p9_call *c);
int p9_renameat(struct p9_call *c);
int p9_unlinkat(struct p9_call *c);

#endif
