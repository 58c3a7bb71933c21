/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhost-user, the front end's side: one connection to a process that serves virtqueues (QEMU's docs/interop/vhost-user.rst is the specification).
 * It knows messages and nothing of devices; who uses it says what to send when.
 *
 * A connection belongs to one thread, and its functions block that thread until the back end has answered, for at most timeout_ms each. So it has to be a
 * thread that nobody else waits for.
 *
 * The back end is trusted with the guest's memory and with nothing else. Every reply is checked: request, flags, length, descriptors, value. One that is
 * wrong, late or missing ends the connection: the first such error is reported by lost(), and from then on every call gives -ENOTCONN.
 */
#ifndef DEVICES_VHOST_USER_H
#define DEVICES_VHOST_USER_H

#include <linux/vhost_types.h>

#include "vmm/error.h"
#include "vmm/memory.h"

#define VHOST_USER_TIMEOUT_MS  5000
#define VHOST_USER_MAX_REGIONS 8   /* of a memory table */
#define VHOST_USER_MAX_RINGS   256 /* the index of a ring is 8 bits */
#define VHOST_USER_MAX_CONFIG  256

enum vhost_user_request {
	VHOST_USER_GET_FEATURES = 1,
	VHOST_USER_SET_FEATURES,
	VHOST_USER_SET_OWNER,
	VHOST_USER_RESET_OWNER,
	VHOST_USER_SET_MEM_TABLE,
	VHOST_USER_SET_LOG_BASE,
	VHOST_USER_SET_LOG_FD,
	VHOST_USER_SET_VRING_NUM,
	VHOST_USER_SET_VRING_ADDR,
	VHOST_USER_SET_VRING_BASE,
	VHOST_USER_GET_VRING_BASE,
	VHOST_USER_SET_VRING_KICK,
	VHOST_USER_SET_VRING_CALL,
	VHOST_USER_SET_VRING_ERR,
	VHOST_USER_GET_PROTOCOL_FEATURES,
	VHOST_USER_SET_PROTOCOL_FEATURES,
	VHOST_USER_GET_QUEUE_NUM,
	VHOST_USER_SET_VRING_ENABLE,
	VHOST_USER_NET_SET_MTU = 20,
	VHOST_USER_GET_CONFIG = 24,
	VHOST_USER_GET_INFLIGHT_FD = 31,
	VHOST_USER_SET_INFLIGHT_FD,
	VHOST_USER_RESET_DEVICE = 34,
	VHOST_USER_SET_STATUS = 39,
	VHOST_USER_GET_STATUS,
};

#define VHOST_USER_F_PROTOCOL_FEATURES 30 /* of the device's features */

enum vhost_user_protocol_feature {
	VHOST_USER_PROTOCOL_F_MQ = 0,
	VHOST_USER_PROTOCOL_F_REPLY_ACK = 3,
	VHOST_USER_PROTOCOL_F_NET_MTU = 4,
	VHOST_USER_PROTOCOL_F_CONFIG = 9,
	VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD = 12,
	VHOST_USER_PROTOCOL_F_RESET_DEVICE = 13,
	VHOST_USER_PROTOCOL_F_STATUS = 16,
};

/* Where a back end notes which requests it has in hand. Its successor gets it after a crash. */
struct vhost_user_inflight {
	uint64_t mmap_size, mmap_offset;
	uint16_t nqueues, queue_size;
	int fd; /* -1: none. Owned */
};

struct vhost_user {
	int fd;		   /* -1: not connected. Owned */
	bool failed;	   /* lost() has been called; vhost_user_close() is still to come */
	uint64_t features; /* that the back end has */
	uint64_t protocol; /* protocol features that both have */
	uint64_t
		queues; /* that it has at most; counted as the device counts them (networks: pairs) */
	unsigned int timeout_ms;
	struct vhost_user_inflight inflight; /* outlives the connection */
	/* The connection is of no use any more, and why. Called from within a call: note it, and close later. */
	void (*lost)(struct vhost_user *vu, const char *why);
	/* For the user of the rings: */
	unsigned int running; /* that the back end serves */
	bool configured;      /* it knows the features and memory */
};

/** Not connected. lost() may be NULL. */
void vhost_user_init(struct vhost_user *vu, void (*lost)(struct vhost_user *vu, const char *why));
/**
 * Talk over @fd, a Unix socket, which is taken in any case: features, protocol features, number of queues, ownership. On failure
 * it is closed; lost() is not called.
 */
int vhost_user_open(struct vhost_user *vu, int fd, struct hako_error *err);
/** Hang up. What is in flight stays known. Closing what is closed does no harm. */
void vhost_user_close(struct vhost_user *vu);
/** Forget what was in flight: the device has been reset. */
void vhost_user_forget(struct vhost_user *vu);
/** Data or an end that came unasked: calls lost() if there is such. */
void vhost_user_check(struct vhost_user *vu);

static inline bool vhost_user_connected(const struct vhost_user *vu)
{
	return vu->fd >= 0 && !vu->failed;
}

static inline bool vhost_user_has(const struct vhost_user *vu, unsigned int protocol_feature)
{
	return vu->protocol & BIT64(protocol_feature);
}

/* All return 0, -ENOTCONN, or the error that has ended the connection. */

/** A request without payload (RESET_DEVICE). */
int vhost_user_send(struct vhost_user *vu, enum vhost_user_request request);
/** Requests with a u64: SET_FEATURES, SET_STATUS, NET_SET_MTU. */
int vhost_user_set(struct vhost_user *vu, enum vhost_user_request request, uint64_t value);
/** GET_FEATURES, GET_STATUS. */
int vhost_user_get(struct vhost_user *vu, enum vhost_user_request request, uint64_t *value);
/** SET_VRING_NUM, _BASE, _ENABLE. */
int vhost_user_set_ring(struct vhost_user *vu, enum vhost_user_request request, uint32_t index,
			uint32_t num);
/** Stop a ring: GET_VRING_BASE. */
int vhost_user_get_base(struct vhost_user *vu, uint32_t index, uint32_t *num);
int vhost_user_set_addr(struct vhost_user *vu, const struct vhost_vring_addr *addr);
/** SET_VRING_KICK, _CALL, _ERR; the descriptor stays the caller's. */
int vhost_user_set_ring_fd(struct vhost_user *vu, enum vhost_user_request request, uint32_t index,
			   int fd);
/** All of guest memory, which is shared (memory_share()). */
int vhost_user_set_memory(struct vhost_user *vu, const struct memory *mem);
/** @len bytes of the device's configuration space, from @offset on; with PROTOCOL_F_CONFIG. -EIO: the back end has none to give. */
int vhost_user_get_config(struct vhost_user *vu, uint32_t offset, void *buf, uint32_t len);
/** Have the back end know what its predecessor had in flight, or get a place for that; with PROTOCOL_F_INFLIGHT_SHMFD. */
int vhost_user_share_inflight(struct vhost_user *vu, uint16_t nqueues, uint16_t queue_size);

/** What the back end has said can not be true, or is of no use: end the connection, for the reason given. */
int vhost_user_reject(struct vhost_user *vu, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/** "SET_FEATURES" and so on, for messages. */
const char *vhost_user_name(enum vhost_user_request request);

#endif
