/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtio device: what all device types and both transports share (virtio 1.2, sections 2 and 3).
 *
 * Who runs what: the transport's registers are handled by vCPU threads, under the device's register lock. A queue belongs to one loop; its
 * doorbell, ring and requests are touched by that loop's thread only. Starting and stopping a queue are loop_call()s from the
 * register handlers, hence a loop never takes the register lock.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <pthread.h>
#include <sys/uio.h>

#include "vmm/iov.h"
#include "vmm/irq.h"
#include "vmm/loop.h"
#include "vmm/memory.h"
#include "vmm/object.h"

#define VIRTIO_QUEUE_MAX_SIZE 1024 /* largest size of a queue that is offered */
#define VIRTIO_MAX_QUEUES     64
#define VIRTIO_MAX_SEGMENTS   1024 /* in one chain, indirect ones included */

#define VIRTIO_MMIO_SIZE 0x200 /* of a window: registers, then 256 bytes of configuration space */

struct virtio_device;
struct virtqueue;
struct vring_desc;
struct vring_avail;
struct vring_used;
struct vring_packed_desc;
struct virtio_pci;
struct virtio_mmio;

/* What virtq_push() has to know of a chain. Its id is the driver's, any 16 bits. */
struct virtq_head {
	uint16_t id;
	uint16_t ndesc; /* packed rings: its descriptors in the ring */
};

/* One request: a chain of buffers, checked, as host addresses. */
struct virtq_chain {
	struct virtq_head head;
	uint16_t nout, nin;	  /* readable ones come first in iov, then the writable ones */
	uint32_t out_len, in_len; /* bytes; a chain of more than 4 GiB - 1 is an error */
};

struct virtq_server;

/* Who serves a queue in the place of its loop: the host's kernel (vhost). All in the loop's thread. */
struct virtq_server_ops {
	/* Serve from last_avail and used_idx on; doorbells come to kick_fd. After a failure the loop serves the queue. -ENOTCONN needs no line in the log. */
	int (*start)(struct virtq_server *server, struct virtqueue *vq, struct hako_error *err);
	/* Nothing is in flight afterwards, and last_avail and used_idx say how far it came. */
	void (*stop)(struct virtq_server *server, struct virtqueue *vq);
	/* vq->notify_fd has changed: raise interrupts there from now on, and one now, since the old one may have gone nowhere. */
	void (*reroute)(struct virtq_server *server, struct virtqueue *vq);
};

struct virtq_server {
	const struct virtq_server_ops *ops;
};

struct virtqueue {
	struct virtio_device *vdev;
	uint16_t index;
	struct loop *loop; /* set by the device type at create */
	bool polled; /* likewise: all buffers are taken at once, so that the loop may look for them before it sleeps */

	/* Set by the driver through the transport, while not enabled. Saved. */
	uint16_t size, max_size; /* max_size 0: there is no such queue */
	uint8_t enabled;	 /* a boolean, but a loaded one may hold anything */
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t msix_vector; /* VIRTIO_MSI_NO_VECTOR: none */

	/*
	 * The ring's state, saved: as nothing is in flight at that time, two indices are all. In packed rings they are offsets, with the wrap
	 * counters in bit 15.
	 */
	uint16_t last_avail, used_idx;
	uint16_t nparked; /* chains of virtq_park() */

	/* Derived while running (loop thread). */
	bool running;
	bool live; /* it runs, is not to stop, and its loop serves it */
	bool packed, event_idx;
	bool kick_disabled; /* virtq_disable_kick() */
	bool starting;	    /* ops->handle is called since the queue starts to run */
	bool kick_armed;    /* polled: the driver has been asked for a doorbell */
	uint8_t draining;   /* enum virtq_drain; atomic */
	bool served;	    /* by vq->server; atomic */
	bool signalled_valid;
	uint16_t signalled_used; /* used_idx as last published */
	uint16_t avail_shadow;	 /* split: avail_idx as last read */
	uint16_t first_flags;	 /* packed: of the descriptor at signalled_used, once published */
	uint16_t budget;	 /* chains that this turn may still take */
	uint32_t inflight;	 /* never more than size */
	/* Host addresses, checked for the ring's whole size. */
	union {
		struct vring_desc *desc;
		struct vring_packed_desc *packed_desc;
	};
	union {
		struct vring_avail *avail;
		uint32_t *driver_event;
	};
	union {
		struct vring_used *used;
		uint32_t *device_event;
	};
	int kick_fd;   /* eventfd, ioeventfd's end; -1 until the device is started */
	int notify_fd; /* atomic; irqfd of its vector; -1: the transport's slow way */
	struct loop_watch kick;
	struct loop_poller poller;
	struct loop_defer notify_defer;
	struct loop_msg again;
	struct loop_msg attend; /* served: notify_fd has changed, or the device is broken */
	struct virtq_server *server;
	void *opaque; /* the device type's */
};

struct virtio_ops {
	const char *name;
	uint16_t device_id; /* VIRTIO_ID_* */
	uint32_t pci_class; /* class code, subclass, interface: 0x010000 */
	size_t config_size;
	unsigned int needs; /* enum sandbox_need */
	/* Device-specific feature bits that are offered; called once, after create. */
	uint64_t (*features)(struct virtio_device *vdev);
	/* The driver has set FEATURES_OK; false refuses. vCPU thread. */
	bool (*accept_features)(struct virtio_device *vdev, uint64_t features);
	/* Configuration space, offset+len within config_size. vCPU threads under the register lock. */
	void (*config_read)(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len);
	void (*config_write)(struct virtio_device *vdev, uint32_t offset, const void *buf,
			     uint32_t len);
	/*
	 * DRIVER_OK has been set, the rings are known but do not run yet; and: back to before that, the queues have stopped. vCPU thread
	 * or whoever resumes or resets the VM. A failure breaks the device. Pausing the VM calls neither.
	 */
	int (*start)(struct virtio_device *vdev);
	void (*stop)(struct virtio_device *vdev);
	/*
	 * Queue @vq has (perhaps) new buffers: take all there are, until virtq_pop() gives 0. Its loop's thread. Also called once when the
	 * queue starts to run (DRIVER_OK, resume), to set going what does not depend on doorbells.
	 */
	void (*handle)(struct virtqueue *vq);
	/* Stop taking requests of @vq and complete those in flight, as far as they are not idle buffers. Loop thread. It must arrange
	 * that virtq_stopped(vq) is called once nothing is in flight; NULL: the queue is done when vq->inflight is 0. */
	void (*drain)(struct virtqueue *vq);
	/* The driver has reset this one queue, which does not run any more: forget what was of it. vCPU thread. May be NULL. */
	void (*queue_reset)(struct virtqueue *vq);
	/* Without drain: the queue is to be drained, so let what is in flight not wait for anything but I/O. Loop thread. May be NULL. */
	void (*hurry)(struct virtqueue *vq);
	/* As class.confine, for what depends on the options. May be NULL. */
	int (*confine)(struct virtio_device *vdev, struct sandbox *sb, struct hako_error *err);
};

struct virtio_transport_ops {
	/* Raise the used-buffer interrupt of @vq where it has no notify_fd; and the configuration-change interrupt. Any thread. */
	void (*notify_queue)(struct virtio_device *vdev, struct virtqueue *vq);
	void (*notify_config)(struct virtio_device *vdev);
	/*
	 * Have the guest's doorbells ring the kick_fd of the enabled queues, from now on or no more. Under the register lock. Where KVM
	 * refuses, a doorbell comes as a register write, and works nevertheless.
	 */
	void (*doorbells)(struct virtio_device *vdev, bool on);
	/* The driver has reset the device: the transport's registers too. Under the register lock. */
	void (*reset)(struct virtio_device *vdev);
	/* All of the device's state has been loaded; check and derive. */
	int (*loaded)(struct virtio_device *vdev, struct hako_error *err);
};

/* First member of every virtio device. */
struct virtio_device {
	struct object obj;
	const struct virtio_ops *ops;
	pthread_mutex_t lock; /* the register lock */
	uint64_t host_features, guest_features;
	uint8_t status;		   /* atomic: a loop sets NEEDS_RESET */
	uint8_t isr;		   /* atomic */
	uint8_t config_generation; /* atomic */
	uint32_t nqueues;
	struct virtqueue *vq; /* array */
	bool started;	      /* between ops->start and ops->stop */
	bool paused;
	bool no_dma; /* the driver has taken the device off the bus; as paused, while the VM runs */
	bool broken; /* atomic; NEEDS_RESET has been set: rings are not looked at until a reset */
	const struct virtio_transport_ops *transport_ops;
	struct virtio_pci *pci; /* one of the two; the counts are for the state table */
	struct virtio_mmio *mmio;
	uint32_t npci, nmmio;

	/* Queues that have yet to stop, and whoever waits for them. */
	pthread_mutex_t stop_lock;
	pthread_cond_t stop_cond;
	uint32_t stopping;

	/* The transports' options (class.bus_options). */
	struct {
		char *addr, *bus;
		uint32_t vectors;
		int disable_legacy;
		bool disable_modern, event_idx, indirect_desc, iommu_platform, packed, queue_reset;
	} opt;
};

extern const struct option virtio_pci_options[], virtio_mmio_options[];

/* --- for device types ---------------------------------------------------------------------------- */

/**
 * First thing in a device type's create: allocate @nqueues queues of @queue_size (a power of 2), all on the VM's io_loop at first. If create
 * fails later on, virtio_device_free() undoes this.
 */
int virtio_device_init(struct virtio_device *vdev, const struct virtio_ops *ops, uint16_t nqueues,
		       uint16_t queue_size, struct hako_error *err);
/** Last thing in create: features, and attach to the transport of the object's class (obj.class->bus). */
int virtio_device_attach(struct virtio_device *vdev, struct hako_error *err);
/**
 * First thing in destroy: stop (ops->stop is called if the device was started), detach, free queues. The loops of queues that run must still
 * be there; those of a paused device need not.
 */
void virtio_device_free(struct virtio_device *vdev);
/**
 * class.reset, .pause and .resume of every virtio device. Loading virtio_device_state leaves the device paused: virtio_device_resume()
 * then starts it as the loaded status says.
 */
void virtio_device_reset(struct object *obj);
void virtio_device_pause(struct object *obj);
void virtio_device_resume(struct object *obj);
/** And .confine: makes what prepare_queue() otherwise would, in a thread that may not. */
int virtio_device_confine(struct object *obj, struct sandbox *sb, struct hako_error *err);
/** First entry of a device type's table: STATE_FIELD_STRUCT(struct virtio_TYPE, vdev, &virtio_device_state). */
extern const struct state_table virtio_device_state;

/** Something in configuration space has changed: generation count, interrupt. Any thread. */
void virtio_config_changed(struct virtio_device *vdev);
/** The driver broke the rules: NEEDS_RESET, rings are left alone. A line in the log. Any thread. */
void virtio_broken(struct virtio_device *vdev, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/** The same, but it is not the driver's fault. */
void virtio_failed(struct virtio_device *vdev, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

static inline bool virtio_has_feature(const struct virtio_device *vdev, unsigned int bit)
{
	return vdev->guest_features & (1ull << bit);
}

/* --- queues, loop thread ------------------------------------------------------------------------- */

/**
 * Take the next chain: its buffers go to iov[0 .. nout+nin), of which there is room for @max (a longer chain breaks the device). 1: got
 * one; 0: none; -EPROTO: the driver broke the rules, virtio_broken() has been called (then stop). Counts as in flight until virtq_push()
 * or virtq_unpop(); never more than vq->size are.
 *
 * Before it gives 0 it asks for a doorbell (unless virtq_disable_kick() has been called) and looks again: nothing is missed. It also gives 0
 * when the queue is being drained, and when the guest feeds it faster than it empties: then ops->handle is called again by itself.
 */
int virtq_pop(struct virtqueue *vq, struct virtq_chain *chain, struct iovec *iov, unsigned int max);
/** Put the last popped chain back; of several the last one first. */
void virtq_unpop(struct virtqueue *vq, const struct virtq_chain *chain);
/**
 * For chains that can not be completed until the VM has been paused and resumed: park one in flight, which stops counting as such, so that
 * the queue can be drained; the device type keeps (and saves) its head.id. Take it again when vq->starting, as virtq_pop() does, not
 * trusting what was read the first time. Split rings only: in a packed one other chains that are used are written over it.
 */
void virtq_park(struct virtqueue *vq);
int virtq_unpark(struct virtqueue *vq, uint16_t head, struct virtq_chain *chain, struct iovec *iov,
		 unsigned int max);
/** Is there something to pop? */
bool virtq_more(struct virtqueue *vq);
/** Return a chain with @len bytes written. The driver sees it at virtq_flush(). */
void virtq_push(struct virtqueue *vq, struct virtq_head head, uint32_t len);
/**
 * Publish what was pushed and notify the driver if it asked for it. virtq_push() queues a flush for the end of the loop's turn, so that calling
 * this by hand is needed only to be earlier.
 */
void virtq_flush(struct virtqueue *vq);
/**
 * Ask the driver for doorbells, or not (EVENT_IDX or flags). On enabling: true if there are buffers to pop, then look again. Needed only by
 * who polls, or leaves buffers in the ring until he has something to put there: see virtq_pop().
 */
void virtq_disable_kick(struct virtqueue *vq);
bool virtq_enable_kick(struct virtqueue *vq);
/**
 * Have @server serve the queue whenever it runs, at once if it does; NULL: its loop does so again. Loop thread, or anybody while it does not run.
 * Buffers in hand have been put back before.
 */
void virtq_set_server(struct virtqueue *vq, struct virtq_server *server);
/** For ops->drain: nothing of the queue is in flight any more. */
void virtq_stopped(struct virtqueue *vq);

/* --- for transports ------------------------------------------------------------------------------ */

/** The driver writes device_status. Under the register lock. Does resets, FEATURES_OK's refusal, start. */
void virtio_set_status(struct virtio_device *vdev, uint8_t status);
uint8_t virtio_get_status(struct virtio_device *vdev);
/** The driver writes queue_enable (or QueueReady) 1: check addresses and size; false and broken if they are bad. */
bool virtio_queue_enable(struct virtqueue *vq);
/** QueueReady 0: stop, as reset of the one queue. */
void virtio_queue_disable(struct virtqueue *vq);
/** queue_reset (or QueueReset) 1 (2.6.1), if that has been negotiated and the queue is enabled. */
void virtio_queue_reset(struct virtqueue *vq);
/** May the device access memory? When this returns with @on false it does not any more. Not under the register lock. */
void virtio_set_dma(struct virtio_device *vdev, bool on);
/** A doorbell that came as a register write. */
void virtio_queue_kick(struct virtio_device *vdev, uint16_t index);
/** Feature words, as both transports show them in 32-bit pieces. The driver's are frozen by FEATURES_OK. */
uint32_t virtio_get_features(uint64_t features, uint32_t select);
void virtio_set_features(struct virtio_device *vdev, uint32_t select, uint32_t value);
/** Configuration space; @offset and @size are checked, what is outside reads as 0. */
uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned int size);
void virtio_config_write(struct virtio_device *vdev, uint64_t offset, uint64_t value,
			 unsigned int size);
int virtio_pci_attach(struct virtio_device *vdev, struct hako_error *err);
int virtio_mmio_attach(struct virtio_device *vdev, struct hako_error *err);
void virtio_pci_detach(struct virtio_device *vdev);
/** Make the interrupts of all vectors, which a confined thread could not. */
void virtio_pci_confine(struct virtio_device *vdev);
void virtio_mmio_detach(struct virtio_device *vdev);

/* --- classes ------------------------------------------------------------------------------------- */

/*
 * A device type registers two classes: NAME-pci and NAME-device (MMIO), as QEMU names them. On the command line NAME stands for the one
 * that the board has (vm_device_class()).
 */
#define VIRTIO_CLASS(SYM, NAME, HELP, TYPE, OPTIONS, STATE, CREATE, DESTROY)                    \
	VIRTIO_CLASS_ON(SYM##_pci_class, BUS_VIRTIO_PCI, virtio_pci_options, NAME "-pci",       \
			HELP " (PCI)", TYPE, OPTIONS, STATE, CREATE, DESTROY);                  \
	VIRTIO_CLASS_ON(SYM##_mmio_class, BUS_VIRTIO_MMIO, virtio_mmio_options, NAME "-device", \
			HELP " (MMIO)", TYPE, OPTIONS, STATE, CREATE, DESTROY)

/* One of the two. */
#define VIRTIO_CLASS_ON(SYM, BUS, BUS_OPTIONS, NAME, HELP, TYPE, OPTIONS, STATE, CREATE, DESTROY) \
	static const struct class SYM = {                                                         \
		.name = NAME,                                                                     \
		.help = HELP,                                                                     \
		.kind = CLASS_DEVICE,                                                             \
		.bus = BUS,                                                                       \
		.bus_options = BUS_OPTIONS,                                                       \
		.size = sizeof(TYPE),                                                             \
		.options = OPTIONS,                                                               \
		.state = STATE,                                                                   \
		.create = CREATE,                                                                 \
		.destroy = DESTROY,                                                               \
		.reset = virtio_device_reset,                                                     \
		.pause = virtio_device_pause,                                                     \
		.resume = virtio_device_resume,                                                   \
		.confine = virtio_device_confine,                                                 \
	};                                                                                        \
	HAKO_CLASS(SYM)

#endif
