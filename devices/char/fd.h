/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the backends share that read and write descriptors. Descriptors that others have open too (standard input and output) are
 * never made non-blocking, since that would change them for everybody: they are opened anew, or used so that they cannot block.
 *
 * Everything but char_fd_init() runs in the loop.
 */
#ifndef DEVICES_CHAR_FD_H
#define DEVICES_CHAR_FD_H

#include "devices/char/char.h"

/* How a descriptor is kept from blocking. */
enum char_fd_kind {
	CHAR_FD_NONBLOCK, /* O_NONBLOCK is set: it is ours alone */
	CHAR_FD_SOCKET,	  /* MSG_DONTWAIT */
	CHAR_FD_POLL,	  /* ask poll(2) before each small piece */
	CHAR_FD_PLAIN,	  /* a regular file, or a device that is always ready */
};

struct char_fd {
	struct chardev *chr;
	struct loop *loop;
	int in_fd, out_fd; /* -1: none. Owned */
	enum char_fd_kind in_kind, out_kind;
	struct loop_watch in, out;
	struct loop_msg again; /* the next piece of a plain file */
	bool stopped;
	bool fleeting; /* that the other end goes away is to be noticed even while nothing is read */
	/*
	 * How many bytes can input() take, and here they are. NULL: the client's can_receive() and receive().
	 */
	size_t (*room)(struct char_fd *cf);
	void (*input)(struct char_fd *cf, uint8_t *buf, size_t len);
	/* End of file or an error, on input or output; that direction has been closed. Or NULL. */
	void (*closed)(struct char_fd *cf, bool output, int code);
};

/** Empty: no descriptors. */
void char_fd_init(struct char_fd *cf, struct chardev *chr, struct loop *loop);

/**
 * Take part in @fd, which stays the caller's: a descriptor of our own for the same file, and how to use it.
 */
int char_fd_share(int fd, bool output, enum char_fd_kind *kind);

/** How to use @fd, which is ours alone: sets O_NONBLOCK where that has a meaning. */
enum char_fd_kind char_fd_own(int fd);

/** Start to read in_fd. */
int char_fd_start(struct char_fd *cf, struct hako_error *err);
/** Stop and close both. */
void char_fd_stop(struct char_fd *cf);
/** There may be room again. */
void char_fd_accept(struct char_fd *cf);
/** Bytes written or lost; less than @len: chardev_writable() follows. */
size_t char_fd_write(struct char_fd *cf, const uint8_t *buf, size_t len);

#endif
