/* SPDX-License-Identifier: GPL-2.0-only */
/* A driver for virtio 1.2 devices, modern only, over PCI and MMIO; with packed rings if `packed=1` is on the command line. */
#ifndef VIRTIO_H
#define VIRTIO_H

#include "guest.h"
#include "pci.h"

#define VIRTIO_NET     1
#define VIRTIO_BLK     2
#define VIRTIO_CONSOLE 3
#define VIRTIO_RNG     4

#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX     (1ull << 29)
#define VIRTIO_F_VERSION_1     (1ull << 32)
#define VIRTIO_F_RING_PACKED   (1ull << 34)

#define STATUS_ACKNOWLEDGE 1
#define STATUS_DRIVER	   2
#define STATUS_DRIVER_OK   4
#define STATUS_FEATURES_OK 8
#define STATUS_NEEDS_RESET 64
#define STATUS_FAILED	   128

#define DESC_F_NEXT	1
#define DESC_F_WRITE	2
#define DESC_F_INDIRECT 4
#define DESC_F_AVAIL	(1u << 7) /* in packed rings */
#define DESC_F_USED	(1u << 15)

#define EVENT_ENABLE  0
#define EVENT_DISABLE 1
#define EVENT_DESC    2

/* virtio-mmio registers (4.2.2) */
#define MMIO_BASE		 0xfeb00000u
#define MMIO_STRIDE		 0x200u
#define MMIO_MAX		 32
#define MMIO_MAGIC		 0x000
#define MMIO_VERSION		 0x004
#define MMIO_DEVICE_ID		 0x008
#define MMIO_VENDOR_ID		 0x00c
#define MMIO_DEVICE_FEATURES	 0x010
#define MMIO_DEVICE_FEATURES_SEL 0x014
#define MMIO_DRIVER_FEATURES	 0x020
#define MMIO_DRIVER_FEATURES_SEL 0x024
#define MMIO_QUEUE_SEL		 0x030
#define MMIO_QUEUE_NUM_MAX	 0x034
#define MMIO_QUEUE_NUM		 0x038
#define MMIO_QUEUE_READY	 0x044
#define MMIO_QUEUE_NOTIFY	 0x050
#define MMIO_INTERRUPT_STATUS	 0x060
#define MMIO_INTERRUPT_ACK	 0x064
#define MMIO_STATUS		 0x070
#define MMIO_QUEUE_DESC		 0x080
#define MMIO_QUEUE_DRIVER	 0x090
#define MMIO_QUEUE_DEVICE	 0x0a0
#define MMIO_CONFIG_GENERATION	 0x0fc
#define MMIO_CONFIG		 0x100

/* struct virtio_pci_common_cfg (4.1.4.3) */
#define COMMON_DEVICE_FEATURE_SEL 0x00
#define COMMON_DEVICE_FEATURE	  0x04
#define COMMON_DRIVER_FEATURE_SEL 0x08
#define COMMON_DRIVER_FEATURE	  0x0c
#define COMMON_MSIX_CONFIG	  0x10
#define COMMON_NUM_QUEUES	  0x12
#define COMMON_STATUS		  0x14
#define COMMON_CONFIG_GENERATION  0x15
#define COMMON_QUEUE_SELECT	  0x16
#define COMMON_QUEUE_SIZE	  0x18
#define COMMON_QUEUE_MSIX	  0x1a
#define COMMON_QUEUE_ENABLE	  0x1c
#define COMMON_QUEUE_NOTIFY_OFF	  0x1e
#define COMMON_QUEUE_DESC	  0x20
#define COMMON_QUEUE_DRIVER	  0x28
#define COMMON_QUEUE_DEVICE	  0x30

struct vring_desc {
	u64 addr;
	u32 len;
	u16 flags, next;
};
struct vring_avail {
	u16 flags, idx, ring[];
};
struct vring_used_elem {
	u32 id, len;
};
struct vring_used {
	u16 flags, idx;
	struct vring_used_elem ring[];
};

struct packed_desc {
	u64 addr;
	u32 len;
	u16 id, flags;
};

/* A place in a packed ring: an offset, and the wrap counter as in bit 15 of event structures. */
struct packed_place {
	u16 at;
	bool wrap;
};

struct virtio_dev {
	u32 type;
	u64 mmio; /* registers, 0: a PCI function */
	struct pci_dev *pci;
	u64 common, isr, notify, config;
	u32 notify_multiplier, config_len;
	u64 features; /* negotiated */
	u32 vector;   /* MMIO: of all queues, 0: none yet */
};

#define VIRTQ_MAX 256
struct virtq {
	struct virtio_dev *dev;
	u16 index, size;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_desc *indirect; /* INDIRECT_PER for each head */
	u64 doorbell;
	u16 free, num_free;	   /* list of free descriptors */
	u16 avail_idx, kicked_idx; /* of the next request; up to where the device has been told */
	u16 used_idx;		   /* next to take */
	u32 vector;		   /* 0: polled */
	bool event_idx;
	u64 kicks;
	void *token[VIRTQ_MAX];
	u16 count[VIRTQ_MAX]; /* descriptors of the chain at that head, or with that id */
	/* Packed rings: virtq_packed.c */
	bool packed;
	struct packed_desc *ring;
	volatile u32 *driver_event, *device_event;
	struct packed_place next, kicked, next_used;
	u16 first_flags; /* of the descriptor at kicked, once it is shown */
	u16 next_id;
};
#define INDIRECT_PER 8

struct virtio_buf {
	const void *p;
	u32 len;
};

/*
 * The n-th device of that type by `transport=pci|mmio` on the command line (none: PCI first); false if
 * there is none. For a PCI function, memory decoding and bus mastering are switched on.
 */
bool virtio_find(struct virtio_dev *d, u32 type, u32 n);
/* virtio_find(), or say why the test is skipped. */
bool virtio_need(struct virtio_dev *d, u32 type, u32 n);
void virtio_reset(struct virtio_dev *d);
u8 virtio_status(struct virtio_dev *d);
void virtio_set_status(struct virtio_dev *d, u8 status);
u64 virtio_offered(struct virtio_dev *d);
void virtio_set_features(struct virtio_dev *d, u64 features);
/* Reset, then up to FEATURES_OK with those of `wanted` that are offered (VERSION_1 always). */
bool virtio_begin(struct virtio_dev *d, u64 wanted);
void virtio_driver_ok(struct virtio_dev *d);
u16 virtio_queue_max(struct virtio_dev *d, u16 index);
/* Rings for queue `index`; size is lowered to what the device can. With interrupts if irq. */
bool virtq_init(struct virtq *q, struct virtio_dev *d, u16 index, u16 size, bool irq);
/* Tell the device of rings at any address; for virtq_init() and for those who lie. */
void virtio_queue_set(struct virtio_dev *d, u16 index, u16 size, u64 desc, u64 avail, u64 used,
		      u16 msix, bool enable);
u64 virtio_doorbell(struct virtio_dev *d, u16 index);
void virtio_notify(struct virtio_dev *d, u16 index);

u8 virtio_cfg8(struct virtio_dev *d, u32 off);
u16 virtio_cfg16(struct virtio_dev *d, u32 off);
u32 virtio_cfg32(struct virtio_dev *d, u32 off);
u64 virtio_cfg64(struct virtio_dev *d, u32 off);

/* A request of `out` buffers for the device to read, then `in` for it to write; false: no room. */
bool virtq_add(struct virtq *q, const struct virtio_buf *buf, u32 out, u32 in, void *token);
/* Show what was added, and ring the doorbell if the device wants it. */
void virtq_kick(struct virtq *q);
/* Take a completed request; NULL: none. */
void *virtq_get(struct virtq *q, u32 *len);
static inline bool virtq_more(struct virtq *q)
{
	u16 flags;

	if (!q->packed)
		return *(volatile u16 *)&q->used->idx != q->used_idx;
	flags = *(volatile u16 *)&q->ring[q->next_used.at].flags;
	return (flags & (DESC_F_AVAIL | DESC_F_USED)) ==
	       (q->next_used.wrap ? DESC_F_AVAIL | DESC_F_USED : 0);
}
/* Have an interrupt raised for the next completion. Then look with virtq_more() once more. */
void virtq_want_interrupt(struct virtq *q);
/* The same with packed rings. */
void packed_init(struct virtq *q, bool irq);
bool packed_add(struct virtq *q, const struct virtio_buf *buf, u32 out, u32 in, void *token);
bool packed_kick(struct virtq *q); /* has the doorbell to be rung? */
void *packed_get(struct virtq *q, u32 *len);
/* Until there is a completion: polling, or asleep if the queue has a vector. False after ms. */
bool virtq_wait(struct virtq *q, u32 ms);

#endif
