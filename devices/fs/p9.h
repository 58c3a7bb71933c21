/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A server of 9P2000.L: the protocol that Linux's v9fs speaks. Messages come and go as buffers of the guest; several are served at
 * once, each in a thread that may block.
 *
 * The numbers are those of Linux's include/net/9p/9p.h; what the messages hold is told by diod's protocol.md.
 */
#ifndef DEVICES_FS_P9_H
#define DEVICES_FS_P9_H

#include <sys/uio.h>

#include "fs.h"

#define P9_MSIZE_MAX (1 * MiB) /* of a message; the client may ask for less */
#define P9_MSIZE_MIN 4096u
#define P9_HEADER    7u /* size[4] type[1] tag[2] */
#define P9_SEGMENTS \
	264 /* of a message and the room for its answer; the largest message, page by page */

/* T-messages; the answer is the next number, or Rlerror. */
enum p9_type {
	P9_RLERROR = 7,
	P9_TSTATFS = 8,
	P9_TLOPEN = 12,
	P9_TLCREATE = 14,
	P9_TSYMLINK = 16,
	P9_TMKNOD = 18,
	P9_TRENAME = 20,
	P9_TREADLINK = 22,
	P9_TGETATTR = 24,
	P9_TSETATTR = 26,
	P9_TXATTRWALK = 30,
	P9_TXATTRCREATE = 32,
	P9_TREADDIR = 40,
	P9_TFSYNC = 50,
	P9_TLOCK = 52,
	P9_TGETLOCK = 54,
	P9_TLINK = 70,
	P9_TMKDIR = 72,
	P9_TRENAMEAT = 74,
	P9_TUNLINKAT = 76,
	P9_TVERSION = 100,
	P9_TAUTH = 102,
	P9_TATTACH = 104,
	P9_TFLUSH = 108,
	P9_TWALK = 110,
	P9_TREAD = 116,
	P9_TWRITE = 118,
	P9_TCLUNK = 120,
	P9_TREMOVE = 122,
};

struct p9_session;

/* The first bytes of a message. */
struct p9_header {
	uint32_t size;
	uint8_t type;
	uint16_t tag;
};

/* A message and the room for its answer, in the guest's memory. The bytes of each follow each other over the buffers' borders. */
struct p9_request {
	const struct iovec *out, *in;
	unsigned int nout, nin;
	uint32_t out_len, in_len;
};

int p9_session_new(struct p9_session **session, struct fsdev *fs);
/** Forget all of the client: its fids, its version. No request is being served. */
void p9_session_reset(struct p9_session *s);
void p9_session_free(struct p9_session *s);
/** Does the client hold anything? Then the session cannot be saved. */
bool p9_session_in_use(struct p9_session *s);

/** Read a message's header. NULL, or what is wrong with the message or the room for its answer: it cannot be answered then. */
const char *p9_header(const struct p9_request *req, struct p9_header *header);

/**
 * Serve a message with a good header and write the answer; how long that is. Any thread. Tversion and Tflush are to come alone: the
 * former when nothing else is being served, the latter once the flushed request has been answered.
 */
uint32_t p9_serve(struct p9_session *s, const struct p9_request *req,
		  const struct p9_header *header);

#endif
