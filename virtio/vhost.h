/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vhost: somebody else serves virtqueues in the place of their loops, a device of the host's kernel (vhost_net.c) or another process
 * (vhost_user.c). What all kinds have in common; the kind says how its device is spoken to and set going.
 *
 * Doorbells and interrupts pass the program by: KVM writes the queue's kick_fd, which vhost waits for, and vhost writes the vector's irqfd. Only
 * where a queue has no irqfd (INTx, MMIO) the queue's loop is woken and raises the interrupt.
 *
 * When a queue stops (pause, reset), vhost tells how far it came, and the queue's state is complete again: it can be saved, or served by
 * its loop. Guest memory and features are told anew whenever a device's first queue starts.
 *
 * Features and memory are told again by each device (queue pair) of a card that starts.
 *
 * A vhost device and its queues belong to one loop. All functions but vhost_open(), vhost_queue_init() and vhost_queue_free() are called there.
 */
#ifndef VIRTIO_VHOST_H
#define VIRTIO_VHOST_H

#include "virtio/virtio.h"

struct vhost_dev;
struct vhost_queue;

struct vhost_ops {
	/* One request of Linux's vhost (VHOST_*), with what its ioctl takes: 0 or a negative errno. -ENOTCONN: nobody is there, which has been said. */
	int (*call)(struct vhost_dev *dev, unsigned long request, void *arg);
	/* Have the device work on the queue, or not: a negative errno. After "not" nothing is in flight. */
	int (*run)(struct vhost_queue *q, bool on);
	/* The queue could not be started and is served by its loop now. May be NULL. */
	void (*failed)(struct vhost_queue *q);
};

struct vhost_dev {
	const struct vhost_ops *ops;
	struct virtio_device *vdev;
	int fd;		   /* of the kernel's device; the caller's */
	uint64_t features; /* that it has */
	uint64_t mask;	   /* of virtio's features, those that it has to know of */
	uint64_t extra;	   /* of its own, that are always on */
	unsigned int running;
	struct vhost_queue *queue; /* array */
	unsigned int nqueues;
	void *log; /* see vhost_set_log() */
};

struct vhost_queue {
	struct virtq_server server;
	struct vhost_dev *dev;
	struct virtqueue *vq;
	unsigned int index; /* in the vhost device */
	int call_fd, err_fd;
	struct loop_watch call, err;
};

/**
 * Take a vhost device that nobody owns yet. ops, vdev, fd, mask, queue and nqueues are set. -EOPNOTSUPP if it lacks a feature of
 * mask that is needed by @needed.
 */
int vhost_open(struct vhost_dev *dev, uint64_t needed, struct hako_error *err);
/** Queue @index of @dev serves @vq, once virtq_set_server(vq, &q->server) has been called. */
int vhost_queue_init(struct vhost_dev *dev, unsigned int index, struct virtqueue *vq,
		     struct hako_error *err);
/** vhost_ops.call of the kernel's devices. */
int vhost_ioctl(struct vhost_dev *dev, unsigned long request, void *arg);
/** Raise the queue's interrupt. */
void vhost_interrupt(struct virtqueue *vq);
/** Freeing what was never made (zeroed) does no harm. */
void vhost_queue_free(struct vhost_queue *q);
/**
 * From now on set a bit for each 4 KiB of guest-physical memory that is written: bit n % 8 of byte n / 8 of @bitmap, which covers all of RAM up to
 * its last address, rounded up to 8 bytes. NULL: no more. For migration.
 */
int vhost_set_log(struct vhost_dev *dev, void *bitmap, struct hako_error *err);

#endif
