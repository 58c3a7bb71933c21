/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locks on image files, which keep two writers off one image. They are open file description locks on the bytes that QEMU
 * locks, so that each sees the other's: byte 100 + n says "I do n", byte 200 + n "others must not do n".
 */
#ifndef DEVICES_BLOCK_IMAGE_LOCK_H
#define DEVICES_BLOCK_IMAGE_LOCK_H

#include "vmm/error.h"
#include "vmm/util.h"

#define IMAGE_LOCK_READ	  BIT(0) /* and needs it to be consistent */
#define IMAGE_LOCK_WRITE  BIT(1)
#define IMAGE_LOCK_RESIZE BIT(3)

/**
 * Lock @fd: the caller does what is in @does, and others must not do what is in @forbids (IMAGE_LOCK_*). -EBUSY if others do so or
 * forbid it; another negative errno if the file system has no locks. The locks end with image_unlock() or the last close. Locking
 * again changes to the new sets; after a failure the locks are those of both.
 */
int image_lock(int fd, unsigned int does, unsigned int forbids, struct hako_error *err);
/** Give up locks that are not in these sets. */
void image_lock_reduce(int fd, unsigned int does, unsigned int forbids);
void image_unlock(int fd);

#endif
