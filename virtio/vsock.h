/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-vsock served by the program (virtio 1.2, section 5.10), between its two halves: vsock.c is the device with its queues, vsock_conn.c
 * the connections and the host's Unix sockets. All of it belongs to the VM's I/O loop.
 */
#ifndef VIRTIO_VSOCK_H
#define VIRTIO_VSOCK_H

#include <linux/virtio_vsock.h>

#include "virtio/virtio.h"

#define VSOCK_HOST	  2	      /* the host's CID */
#define VSOCK_CONNECTIONS 256	      /* at a time, those that the host is about to make included */
#define VSOCK_BUFFER	  (256 * KiB) /* of one connection, what the host's side has not taken yet */
#define VSOCK_REPLIES	  64	      /* RST packets for which there is no connection */
#define VSOCK_HASH	  64

/* A packet's header, in the host's byte order. Ports are named by whose they are. */
struct vsock_header {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
	uint16_t type, op;
};

struct virtio_vsock {
	struct virtio_device vdev;
	/* Options. */
	uint64_t guest_cid;
	char *path;

	int listen_fd;
	struct loop *loop;
	struct loop_watch listen;
	struct loop_timer timer;      /* after an accept() for which there were no descriptors */
	struct list hash[VSOCK_HASH]; /* connections whose ports are known */
	struct list
		asked; /* others: those of the host that have not said a port yet, and those that the guest has forgotten */
	struct list pending; /* those that have something for the guest */
	unsigned int nconns;
	uint32_t next_port;
	struct vsock_header reply[VSOCK_REPLIES];
	unsigned int first_reply, nreplies;
	bool reset_event; /* the guest has to be told that its connections are gone (5.10.6.7) */
};

/* --- vsock_conn.c ------------------------------------------------------------------------------ */

/** Listen at the path; -errno, and an error that names it. */
int vsock_listen(struct virtio_vsock *v, struct hako_error *err);
/** Have the loop accept connections. In the loop. */
int vsock_accept_start(struct virtio_vsock *v, struct hako_error *err);
/** Stop that and remove the socket's file. Not running. */
void vsock_unlisten(struct virtio_vsock *v);

/** A packet of the guest, whose data is in @iov. Needs room for one reply. */
void vsock_receive(struct virtio_vsock *v, const struct vsock_header *h, const struct iovec *iov,
		   unsigned int n);
/** The next packet for the guest: its header, whose len bytes are in @iov, which has room for @room. False: there is none. */
bool vsock_next(struct virtio_vsock *v, struct vsock_header *h, const struct iovec *iov,
		unsigned int n, size_t room);
/** Might there be one? */
static inline bool vsock_has_next(const struct virtio_vsock *v)
{
	return v->nreplies || !list_empty(&v->pending);
}
/** End all connections, without a word to the guest. */
void vsock_close_all(struct virtio_vsock *v);

/* --- vsock.c ----------------------------------------------------------------------------------- */

/** There is something for the guest. */
void vsock_wake(struct virtio_vsock *v);

#endif
