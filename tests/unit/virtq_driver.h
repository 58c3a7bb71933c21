/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The driver's side of virtio, for tests of devices without a guest: a board with MMIO slots, the registers by bus accesses, and rings,
 * split or packed, in the RAM of a VM without KVM. Written from virtio 1.2, not from the device's code.
 *
 *   struct vdrv drv;
 *   struct vdrv_queue q;
 *
 *   vdrv_open(&drv, 16 * MiB, "virtio-rng-device", "max-bytes=100");
 *   vdrv_negotiate(&drv, features);           VERSION_1 goes without saying
 *   vdrv_queue(&drv, &q, 0, 64);
 *   vdrv_go(&drv);
 *   head = vdrv_add(&q, NULL, 0, &buf, 1);    descriptors, and a place in the available ring
 *   vdrv_kick(&q);
 *   vdrv_wait(&q, &id, &len);                 5 seconds at most
 *   vdrv_close(&drv);
 */
#ifndef TESTS_UNIT_VIRTQ_DRIVER_H
#define TESTS_UNIT_VIRTQ_DRIVER_H

#include <check.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "virtio/virtio.h"
#include "vmm/machine.h"
#include "vmm/vm.h"

#define VDRV_MMIO_BASE 0xfeb00000ull
#define VDRV_HEAP      0x10000ull /* rings and buffers are taken from here on */
#define VDRV_QSIZE     1024
#define VDRV_PACKED    BIT64(VIRTIO_F_RING_PACKED)

struct vdrv_board {
	struct machine machine;
	unsigned int slots;
};

struct vdrv {
	struct vm *vm;
	struct vdrv_board board;
	struct bus_reader mmio;
	uint64_t base; /* of the device's registers */
	struct object *obj;
	struct virtio_device *vdev;
	uint64_t heap;
	bool event_idx, packed;
};

struct vdrv_buf {
	uint64_t gpa;
	uint32_t len;
};

struct vdrv_queue {
	struct vdrv *drv;
	uint16_t index, size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t next_desc, avail_idx, last_used; /* the indices also of packed rings: how many */
	struct vdrv_buf first[VDRV_QSIZE];	  /* of the chain with that id */
	/* Packed */
	struct vring_packed_desc *ring;
	struct vring_packed_desc_event *driver_event, *device_event;
	uint16_t next, next_used; /* in the ring */
	bool wrap, used_wrap;	  /* the wrap counters */
	uint16_t ndesc[VDRV_QSIZE],
		id; /* of the chain with that id, 0: it is free; the next one to try */
};

/* --- board and device -------------------------------------------------------------------------- */

static inline int vdrv_mmio_slot(struct vm *vm, uint64_t *base, uint32_t *gsi,
				 struct hako_error *err)
{
	struct vdrv_board *board = (struct vdrv_board *)vm->machine;

	*base = VDRV_MMIO_BASE + board->slots * VIRTIO_MMIO_SIZE;
	*gsi = 5 + board->slots++;
	return 0;
}

static const struct machine_ops vdrv_machine_ops = {.mmio_slot = vdrv_mmio_slot};
static const struct class vdrv_machine_class = {
	.name = "vdrv",
	.kind = CLASS_MACHINE,
	.ops = &vdrv_machine_ops,
};

/* What the VMs' loops run on; a test of both sets it before vdrv_open(). */
static enum loop_engine vdrv_engine;

static inline void vdrv_set_engine(struct vm *vm)
{
	struct hako_error err;

	if (vdrv_engine == LOOP_AUTO)
		return;
	vm->loop_engine = vdrv_engine;
	loop_free(vm->io_loop);
	ck_assert_msg(loop_new(&vm->io_loop, "hako-io", vdrv_engine, &err) == 0, "%s", err.message);
}

/* Test devices with packed rings: a fixture sets it. */
static bool vdrv_packed;

static inline void vdrv_setup_packed(void)
{
	vdrv_packed = true;
}

/** A VM with a board, but no device yet: for those who make several, or need backends first. */
static inline void vdrv_new(struct vdrv *drv, uint64_t ram_size)
{
	struct hako_error err;

	*drv = (struct vdrv){.heap = VDRV_HEAP, .base = VDRV_MMIO_BASE, .packed = vdrv_packed};
	ck_assert_msg(vm_new_plain(&drv->vm, ram_size, &err) == 0, "%s", err.message);
	vdrv_set_engine(drv->vm);
	drv->board.machine.obj.class = &vdrv_machine_class;
	drv->board.machine.obj.vm = drv->vm;
	drv->vm->machine = &drv->board.machine;
	bus_reader_init(&drv->mmio, &drv->vm->mmio);
}

/** Add a device; @options as on the command line, or NULL. 0 or the error. */
static inline int vdrv_device(struct vdrv *drv, const char *class, const char *options,
			      struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	int r = 0;

	drv->base = VDRV_MMIO_BASE + drv->board.slots * VIRTIO_MMIO_SIZE;
	if (options)
		r = keyvals_parse(&kv, options, NULL, err);
	if (!r)
		r = class_get(CLASS_DEVICE, class, &cls, err);
	if (!r && vdrv_packed && cls->bus == BUS_VIRTIO_MMIO)
		r = keyvals_parse(&kv, "packed=on", NULL, err);
	if (!r)
		r = object_new(drv->vm, cls, &kv, &drv->obj, err);
	keyvals_free(&kv);
	drv->vdev = r ? NULL : (struct virtio_device *)drv->obj;
	return r;
}

static inline void vdrv_open(struct vdrv *drv, uint64_t ram_size, const char *class,
			     const char *options)
{
	struct hako_error err;

	vdrv_new(drv, ram_size);
	ck_assert_msg(vdrv_device(drv, class, options, &err) == 0, "%s", err.message);
}

static inline void vdrv_close(struct vdrv *drv)
{
	bus_reader_free(&drv->mmio);
	drv->vm->machine = NULL;
	if (drv->vm->fd >= 0)
		close(drv->vm->fd);
	drv->vm->fd = -1;
	vm_free_plain(drv->vm);
}

/* --- registers --------------------------------------------------------------------------------- */

static inline uint32_t vdrv_read(struct vdrv *drv, uint32_t reg)
{
	uint64_t v;

	ck_assert(bus_read(&drv->mmio, drv->base + reg, &v, 4));
	return v;
}

static inline void vdrv_write(struct vdrv *drv, uint32_t reg, uint32_t value)
{
	ck_assert(bus_write(&drv->mmio, drv->base + reg, value, 4));
}

static inline uint64_t vdrv_config(struct vdrv *drv, uint32_t offset, unsigned int size)
{
	uint64_t v;

	ck_assert(bus_read(&drv->mmio, drv->base + VIRTIO_MMIO_CONFIG + offset, &v, size));
	return v;
}

static inline uint64_t vdrv_features(struct vdrv *drv)
{
	uint64_t features;

	vdrv_write(drv, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
	features = (uint64_t)vdrv_read(drv, VIRTIO_MMIO_DEVICE_FEATURES) << 32;
	vdrv_write(drv, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
	return features | vdrv_read(drv, VIRTIO_MMIO_DEVICE_FEATURES);
}

/** Reset, ACKNOWLEDGE, DRIVER, features, FEATURES_OK (3.1.1); does the device agree? */
static inline bool vdrv_negotiate(struct vdrv *drv, uint64_t features)
{
	features |= BIT64(VIRTIO_F_VERSION_1) | (vdrv_packed ? VDRV_PACKED : 0);
	drv->event_idx = features & BIT64(VIRTIO_RING_F_EVENT_IDX);
	drv->packed = features & VDRV_PACKED;
	vdrv_write(drv, VIRTIO_MMIO_STATUS, 0);
	vdrv_write(drv, VIRTIO_MMIO_STATUS, 1);
	vdrv_write(drv, VIRTIO_MMIO_STATUS, 3);
	vdrv_write(drv, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
	vdrv_write(drv, VIRTIO_MMIO_DRIVER_FEATURES, features);
	vdrv_write(drv, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
	vdrv_write(drv, VIRTIO_MMIO_DRIVER_FEATURES, features >> 32);
	vdrv_write(drv, VIRTIO_MMIO_STATUS, 3 | 8);
	return vdrv_read(drv, VIRTIO_MMIO_STATUS) & 8;
}

static inline void vdrv_go(struct vdrv *drv)
{
	vdrv_write(drv, VIRTIO_MMIO_STATUS, 1 | 2 | 4 | 8);
}

static inline bool vdrv_needs_reset(struct vdrv *drv)
{
	return vdrv_read(drv, VIRTIO_MMIO_STATUS) & 0x40;
}

/* --- memory ------------------------------------------------------------------------------------ */

static inline void *vdrv_ptr(struct vdrv *drv, uint64_t gpa, uint64_t len)
{
	void *p = memory_ptr(&drv->vm->mem, gpa, len);

	ck_assert_ptr_nonnull(p);
	return p;
}

static inline uint64_t vdrv_alloc(struct vdrv *drv, uint64_t len)
{
	uint64_t gpa = drv->heap;

	drv->heap += ALIGN_UP(len, 64);
	memset(vdrv_ptr(drv, gpa, len), 0, len);
	return gpa;
}

static inline struct vdrv_buf vdrv_buf(struct vdrv *drv, uint32_t len)
{
	return (struct vdrv_buf){vdrv_alloc(drv, len), len};
}

/* --- rings ------------------------------------------------------------------------------------- */

/** Find the rings in @drv's memory. */
static inline void vdrv_rings_at(struct vdrv *drv, struct vdrv_queue *q)
{
	q->drv = drv;
	q->desc = vdrv_ptr(drv, q->desc_gpa, 16 * (q->size + 1));
	q->avail = vdrv_ptr(drv, q->avail_gpa, 6 + 2 * q->size);
	q->used = vdrv_ptr(drv, q->used_gpa, 6 + 8 * q->size);
	q->ring = (void *)q->desc;
	q->driver_event = (void *)q->avail;
	q->device_event = (void *)q->used;
}

/** Lay out rings, for whatever transport. */
static inline void vdrv_rings(struct vdrv *drv, struct vdrv_queue *q, uint16_t index, uint16_t size)
{
	ck_assert_uint_le(size, VDRV_QSIZE);
	*q = (struct vdrv_queue){.index = index, .size = size, .wrap = true, .used_wrap = true};
	q->desc_gpa = vdrv_alloc(drv, 16 * (size + 1)); /* and one behind the last, as bait */
	q->avail_gpa = vdrv_alloc(drv, 6 + 2 * size);
	q->used_gpa = vdrv_alloc(drv, 6 + 8 * size);
	vdrv_rings_at(drv, q);
}

/** Tell the device of the rings; does QueueReady stick? */
static inline bool vdrv_queue_enable(struct vdrv_queue *q)
{
	struct vdrv *drv = q->drv;

	vdrv_write(drv, VIRTIO_MMIO_QUEUE_SEL, q->index);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_NUM, q->size);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_DESC_LOW, q->desc_gpa);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_DESC_HIGH, q->desc_gpa >> 32);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_AVAIL_LOW, q->avail_gpa);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, q->avail_gpa >> 32);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_USED_LOW, q->used_gpa);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_USED_HIGH, q->used_gpa >> 32);
	vdrv_write(drv, VIRTIO_MMIO_QUEUE_READY, 1);
	return vdrv_read(drv, VIRTIO_MMIO_QUEUE_READY) == 1;
}

static inline void vdrv_queue(struct vdrv *drv, struct vdrv_queue *q, uint16_t index, uint16_t size)
{
	vdrv_rings(drv, q, index, size);
	ck_assert(vdrv_queue_enable(q));
}

static inline void vdrv_desc(struct vdrv_queue *q, uint16_t i, uint64_t addr, uint32_t len,
			     uint16_t flags, uint16_t next)
{
	q->desc[i] = (struct vring_desc){addr, len, flags, next};
}

/** Make the chain that starts at @head available. */
static inline void vdrv_post(struct vdrv_queue *q, uint16_t head)
{
	q->avail->ring[q->avail_idx % q->size] = head;
	q->avail_idx++;
	__atomic_store_n(&q->avail->idx, q->avail_idx, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/** Packed: the flags of a descriptor that is made available in this lap (2.8.1). */
static inline uint16_t vdrv_avail_flags(const struct vdrv_queue *q)
{
	return 1 << (q->wrap ? VRING_PACKED_DESC_F_AVAIL : VRING_PACKED_DESC_F_USED);
}

/** Packed: the next descriptor; the first of a chain with @flags 0 at first, then as returned. */
static inline uint16_t vdrv_packed_desc(struct vdrv_queue *q, uint64_t addr, uint32_t len,
					uint16_t id, uint16_t flags, bool first)
{
	flags |= vdrv_avail_flags(q);
	q->ring[q->next] = (struct vring_packed_desc){addr, len, id,
						      first ? q->ring[q->next].flags : flags};
	if (++q->next == q->size) {
		q->next = 0;
		q->wrap = !q->wrap;
	}
	return flags;
}

/** Packed: the chain whose first descriptor is at @at becomes available. */
static inline void vdrv_packed_post(struct vdrv_queue *q, uint16_t at, uint16_t flags)
{
	__atomic_store_n(&q->ring[at].flags, flags, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->avail_idx++;
}

/* An id for a chain of @n descriptors. */
static inline uint16_t vdrv_packed_id(struct vdrv_queue *q, uint16_t n)
{
	for (unsigned int i = 0; i < q->size && q->ndesc[q->id]; i++)
		q->id = (q->id + 1) % q->size;
	ck_assert_uint_eq(q->ndesc[q->id], 0);
	q->ndesc[q->id] = n;
	return q->id;
}

/** A chain of readable and writable buffers, from the next descriptors in turn. Its head, or id. */
static inline uint16_t vdrv_add(struct vdrv_queue *q, const struct vdrv_buf *out, unsigned int nout,
				const struct vdrv_buf *in, unsigned int nin)
{
	unsigned int n = nout + nin;
	bool packed = q->drv->packed;
	uint16_t head = packed ? vdrv_packed_id(q, n) : q->next_desc % q->size;
	uint16_t at = q->next, at_flags = 0;

	q->first[head] = nout ? *out : *in;
	for (unsigned int k = 0; k < n; k++) {
		const struct vdrv_buf *b = k < nout ? &out[k] : &in[k - nout];
		uint16_t flags = (k < nout ? 0 : VRING_DESC_F_WRITE) |
				 (k + 1 < n ? VRING_DESC_F_NEXT : 0);

		if (packed) {
			flags = vdrv_packed_desc(q, b->gpa, b->len, head, flags, !k);
			at_flags = k ? at_flags : flags;
		} else {
			uint16_t i = q->next_desc++ % q->size;

			vdrv_desc(q, i, b->gpa, b->len, flags, (i + 1) % q->size);
		}
	}
	if (packed)
		vdrv_packed_post(q, at, at_flags);
	else
		vdrv_post(q, head);
	return head;
}

static inline void vdrv_kick(struct vdrv_queue *q)
{
	vdrv_write(q->drv, VIRTIO_MMIO_QUEUE_NOTIFY, q->index);
}

/** Packed: has the descriptor @at been used in the lap @wrap? */
static inline bool vdrv_packed_used(const struct vdrv_queue *q, uint16_t at, bool wrap)
{
	uint16_t flags = __atomic_load_n(&q->ring[at].flags, __ATOMIC_ACQUIRE);

	return !!(flags & 1 << VRING_PACKED_DESC_F_USED) == wrap &&
	       !!(flags & 1 << VRING_PACKED_DESC_F_AVAIL) == wrap;
}

/** How many chains have been used. */
static inline uint16_t vdrv_used_idx(const struct vdrv_queue *q)
{
	uint16_t n = q->last_used, at = q->next_used;
	bool wrap = q->used_wrap;

	if (!q->drv->packed)
		return __atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
	for (; vdrv_packed_used(q, at, wrap); n++) {
		at += q->ndesc[q->ring[at].id % q->size];
		wrap ^= at >= q->size;
		at -= at >= q->size ? q->size : 0;
		if (at == q->next_used)
			return n + 1;
	}
	return n;
}

/*
 * With a VM of KVM behind the bus accesses, to see whether a doorbell is registered: KVM takes no second one at the same place.
 * False if there is no KVM here.
 */
static inline bool vdrv_kvm(struct vdrv *drv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);

	if (kvm < 0)
		return false;
	drv->vm->fd = ioctl(kvm, KVM_CREATE_VM, 0);
	close(kvm);
	return drv->vm->fd >= 0;
}

static inline bool vdrv_doorbell(struct vdrv *drv, uint64_t addr, unsigned int size,
				 const uint64_t *match)
{
	int fd = eventfd(0, EFD_CLOEXEC), r;
	struct hako_error err;

	r = vm_ioeventfd(drv->vm, false, addr, size, match, fd, true, &err);
	if (!r)
		ck_assert_int_eq(vm_ioeventfd(drv->vm, false, addr, size, match, fd, false, &err),
				 0);
	else
		ck_assert_int_eq(r, -EEXIST);
	close(fd);
	return r;
}

static inline bool vdrv_packed_take(struct vdrv_queue *q, uint32_t *id, uint32_t *len)
{
	const struct vring_packed_desc *d = &q->ring[q->next_used];

	if (!vdrv_packed_used(q, q->next_used, q->used_wrap))
		return false;
	ck_assert_uint_lt(d->id, q->size);
	ck_assert_uint_gt(q->ndesc[d->id], 0);
	ck_assert_int_eq(!!(d->flags & VRING_DESC_F_WRITE), !!d->len);
	*id = d->id;
	*len = d->len;
	q->next_used += q->ndesc[d->id];
	q->ndesc[d->id] = 0;
	if (q->next_used >= q->size) {
		q->next_used -= q->size;
		q->used_wrap = !q->used_wrap;
	}
	return true;
}

static inline bool vdrv_split_take(struct vdrv_queue *q, uint32_t *id, uint32_t *len)
{
	const vring_used_elem_t *e = &q->used->ring[q->last_used % q->size];

	if (vdrv_used_idx(q) == q->last_used)
		return false;
	*id = e->id;
	*len = e->len;
	return true;
}

/** Has anything been used? Then take it. */
static inline bool vdrv_take(struct vdrv_queue *q, uint32_t *id, uint32_t *len)
{
	uint32_t i, n;

	if (!(q->drv->packed ? vdrv_packed_take(q, &i, &n) : vdrv_split_take(q, &i, &n)))
		return false;
	if (id)
		*id = i;
	if (len)
		*len = n;
	q->last_used++;
	return true;
}

/** The same, but wait for it. */
static inline bool vdrv_wait(struct vdrv_queue *q, uint32_t *id, uint32_t *len)
{
	for (int i = 0; i < 50000; i++) {
		if (vdrv_take(q, id, len))
			return true;
		usleep(100);
	}
	return false;
}

/** The tests that @add adds, with split and with packed rings. @setup and @teardown may be NULL. */
static inline void vdrv_cases(Suite *s, void (*add)(TCase *tc), SFun setup, SFun teardown)
{
	for (int packed = 0; packed < 2; packed++) {
		TCase *tc = tcase_create(packed ? "packed" : "split");

		if (packed)
			tcase_add_checked_fixture(tc, vdrv_setup_packed, NULL);
		if (setup)
			tcase_add_checked_fixture(tc, setup, teardown);
		tcase_set_timeout(tc, 60);
		add(tc);
		suite_add_tcase(s, tc);
	}
}

/** Wait until @cond holds, 5 seconds at most; then it has to. */
#define VDRV_UNTIL(cond)                                      \
	do {                                                  \
		for (int n_ = 0; n_ < 50000 && !(cond); n_++) \
			usleep(100);                          \
		ck_assert(cond);                              \
	} while (0)

/** Let the loop finish its turn and one more. */
static inline void vdrv_settle(struct vdrv *drv)
{
	for (int i = 0; i < 3; i++)
		loop_call(drv->vm->io_loop, NULL, NULL);
}

#endif
