/* SPDX-License-Identifier: GPL-2.0-only */
/* Virtio over MMIO (virtio 1.2, section 4.2): registers of version 2, one interrupt. */
#include <linux/virtio_mmio.h>
#include <stdlib.h>

#include "transport.h"
#include "vmm/machine.h"
#include "vmm/vm.h"

#define MMIO_QUEUE_RESET 0x0c0 /* reads as 0: a reset is done when the write is */

#define MMIO_MAGIC   0x74726976 /* "virt" */
#define MMIO_VERSION 2
#define MMIO_VENDOR  0x4f4b4148 /* "HAKO" */

const struct option virtio_mmio_options[] = {
	OPT_BOOL("event_idx", struct virtio_device, opt.event_idx, "on",
		 "let driver and device say when they want to be notified"),
	OPT_BOOL("indirect_desc", struct virtio_device, opt.indirect_desc, "on",
		 "let requests have descriptor tables of their own"),
	OPT_BOOL("packed", struct virtio_device, opt.packed, "off", "offer packed rings"),
	OPT_BOOL("queue_reset", struct virtio_device, opt.queue_reset, "on",
		 "let the driver reset single queues"),
	OPT_BOOL("iommu_platform", struct virtio_device, opt.iommu_platform, "off",
		 "DMA behind an IOMMU (only off)"),
	OPT_END,
};

/* --- interrupts ------------------------------------------------------------------------------ */

/*
 * The boards' tables say that the pin is edge-triggered: an end of an interrupt that nobody wants to know of needs no exit. So every bit that
 * comes is an edge, since the driver acknowledges the bits that it saw and does not look again. The pin is high as long as there are
 * any, for those who take it as level-triggered.
 */
static void change_isr(struct virtio_mmio *m, uint8_t set, uint8_t clear)
{
	struct virtio_device *vdev = m->vdev;
	uint8_t old, isr;

	pthread_mutex_lock(&m->irq_lock);
	old = vdev->isr;
	isr = (old | set) & ~clear;
	WRITE_ONCE(vdev->isr, isr);
	if (isr & ~old)
		irq_line_set(&m->irq, false);
	irq_line_set(&m->irq, isr);
	pthread_mutex_unlock(&m->irq_lock);
}

static void mmio_notify_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
	change_isr(vdev->mmio, VIRTIO_MMIO_INT_VRING, 0);
}

static void mmio_notify_config(struct virtio_device *vdev)
{
	change_isr(vdev->mmio, VIRTIO_MMIO_INT_CONFIG, 0);
}

/* --- registers ------------------------------------------------------------------------------- */

static uint32_t queue_read(struct virtio_mmio *m, uint64_t offset)
{
	struct virtqueue *vq = virtio_queue_at(m->vdev, m->queue_sel);

	if (!vq)
		return 0;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM_MAX:
		return vq->max_size;
	case VIRTIO_MMIO_QUEUE_READY:
		return vq->enabled;
	}
	return 0;
}

static uint32_t register_read(struct virtio_mmio *m, uint64_t offset)
{
	struct virtio_device *vdev = m->vdev;

	switch (offset) {
	case VIRTIO_MMIO_MAGIC_VALUE:
		return MMIO_MAGIC;
	case VIRTIO_MMIO_VERSION:
		return MMIO_VERSION;
	case VIRTIO_MMIO_DEVICE_ID:
		return vdev->ops->device_id;
	case VIRTIO_MMIO_VENDOR_ID:
		return MMIO_VENDOR;
	case VIRTIO_MMIO_DEVICE_FEATURES:
		return virtio_get_features(vdev->host_features, m->device_features_sel);
	case VIRTIO_MMIO_INTERRUPT_STATUS:
		return READ_ONCE(vdev->isr);
	case VIRTIO_MMIO_STATUS:
		return virtio_get_status(vdev);
	case VIRTIO_MMIO_CONFIG_GENERATION:
		return __atomic_load_n(&vdev->config_generation, __ATOMIC_SEQ_CST);
	case VIRTIO_MMIO_SHM_LEN_LOW: /* 4.2.2: all ones where there is no such region */
	case VIRTIO_MMIO_SHM_LEN_HIGH:
	case VIRTIO_MMIO_SHM_BASE_LOW:
	case VIRTIO_MMIO_SHM_BASE_HIGH:
		return UINT32_MAX;
	}
	return queue_read(m, offset);
}

static uint64_t mmio_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio_mmio *m = opaque;

	if (offset >= VIRTIO_MMIO_CONFIG)
		return virtio_config_read(m->vdev, offset - VIRTIO_MMIO_CONFIG, size);
	/* 4.2.2.2: no other accesses but of 32 bits, aligned */
	return size == 4 && offset % 4 == 0 ? register_read(m, offset) : 0;
}

static void queue_write(struct virtio_mmio *m, uint64_t offset, uint32_t value)
{
	struct virtqueue *vq = virtio_queue_at(m->vdev, m->queue_sel);

	if (!vq)
		return;
	if (offset == VIRTIO_MMIO_QUEUE_READY) {
		if (value & 1)
			virtio_queue_enable(vq);
		else if (vq->enabled)
			virtio_queue_disable(vq);
		return;
	}
	if (offset == MMIO_QUEUE_RESET) {
		if (value == 1)
			virtio_queue_reset(vq);
		return;
	}
	if (vq->enabled) /* 4.2.2.2: not while QueueReady is set */
		return;
	switch (offset) {
	case VIRTIO_MMIO_QUEUE_NUM: /* judged when the queue is enabled */
		vq->size = MIN(value, UINT16_MAX);
		break;
	case VIRTIO_MMIO_QUEUE_DESC_LOW:
	case VIRTIO_MMIO_QUEUE_DESC_HIGH:
		virtio_set_half(&vq->desc_gpa, offset == VIRTIO_MMIO_QUEUE_DESC_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_AVAIL_LOW:
	case VIRTIO_MMIO_QUEUE_AVAIL_HIGH:
		virtio_set_half(&vq->avail_gpa, offset == VIRTIO_MMIO_QUEUE_AVAIL_HIGH, value);
		break;
	case VIRTIO_MMIO_QUEUE_USED_LOW:
	case VIRTIO_MMIO_QUEUE_USED_HIGH:
		virtio_set_half(&vq->used_gpa, offset == VIRTIO_MMIO_QUEUE_USED_HIGH, value);
		break;
	}
}

static void mmio_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct virtio_mmio *m = opaque;
	struct virtio_device *vdev = m->vdev;

	if (offset >= VIRTIO_MMIO_CONFIG) {
		virtio_config_write(vdev, offset - VIRTIO_MMIO_CONFIG, value, size);
		return;
	}
	if (size != 4 || offset % 4)
		return;
	switch (offset) {
	case VIRTIO_MMIO_DEVICE_FEATURES_SEL:
		m->device_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES_SEL:
		m->driver_features_sel = value;
		break;
	case VIRTIO_MMIO_DRIVER_FEATURES:
		virtio_set_features(vdev, m->driver_features_sel, value);
		break;
	case VIRTIO_MMIO_QUEUE_SEL:
		m->queue_sel = value;
		break;
	case VIRTIO_MMIO_QUEUE_NOTIFY:
		virtio_queue_kick(vdev, MIN(value, UINT16_MAX));
		break;
	case VIRTIO_MMIO_INTERRUPT_ACK:
		change_isr(m, 0, value);
		break;
	case VIRTIO_MMIO_STATUS:
		virtio_set_status(vdev, value);
		break;
	default:
		queue_write(m, offset, value);
	}
}

static const struct io_ops mmio_io_ops = {.read = mmio_read, .write = mmio_write};

/* --- life ------------------------------------------------------------------------------------ */

static void mmio_doorbells(struct virtio_device *vdev, bool on)
{
	struct virtio_mmio *m = vdev->mmio;
	struct hako_error err;

	for (uint64_t i = 0; i < vdev->nqueues; i++) {
		struct virtqueue *vq = &vdev->vq[i];

		if (!(m->doorbells_set & BIT64(i)) != on || (on && !vq->enabled))
			continue;
		if (!vm_ioeventfd(vdev->obj.vm, false, m->base + VIRTIO_MMIO_QUEUE_NOTIFY, 4, &i,
				  vq->kick_fd, on, &err))
			m->doorbells_set ^= BIT64(i);
		else
			vm_log(vdev->obj.vm, "%s: %s", vdev->ops->name, err.message);
	}
}

static void mmio_reset(struct virtio_device *vdev)
{
	struct virtio_mmio *m = vdev->mmio;

	m->device_features_sel = m->driver_features_sel = m->queue_sel = 0;
	change_isr(m, 0, 0xff);
}

static int mmio_loaded(struct virtio_device *vdev, struct hako_error *err)
{
	change_isr(vdev->mmio, 0, 0); /* the line follows */
	return 0;
}

static const struct virtio_transport_ops mmio_transport_ops = {
	.notify_queue = mmio_notify_queue,
	.notify_config = mmio_notify_config,
	.doorbells = mmio_doorbells,
	.reset = mmio_reset,
	.loaded = mmio_loaded,
};

int virtio_mmio_attach(struct virtio_device *vdev, struct hako_error *err)
{
	struct vm *vm = vdev->obj.vm;
	const struct machine_ops *board = vm->machine ? machine_ops(vm->machine) : NULL;
	struct io_region region = {
		.name = vdev->ops->name,
		.size = VIRTIO_MMIO_SIZE,
		.ops = &mmio_io_ops,
		.lock = &vdev->lock,
	};
	struct virtio_mmio *m;
	uint32_t gsi;
	int r;

	if (vdev->opt.iommu_platform)
		return error_set(err, -EINVAL, "iommu_platform=on: not supported");
	if (vdev->ops->config_size > VIRTIO_MMIO_SIZE - VIRTIO_MMIO_CONFIG)
		return error_set(err, -E2BIG, "configuration space too large for MMIO");
	if (!board || !board->mmio_slot)
		return error_set(err, -ENODEV,
				 "this machine has no virtio-mmio; use the -pci device");
	m = calloc(1, sizeof(*m));
	if (!m)
		return error_errno(err, -ENOMEM, "virtio-mmio");
	r = board->mmio_slot(vm, &m->base, &gsi, err);
	if (!r) {
		m->vdev = vdev;
		region.base = m->base;
		region.opaque = m;
		r = bus_add(&vm->mmio, &region, err);
	}
	if (r) {
		free(m);
		return r;
	}
	irq_line_init(&m->irq, vm, gsi);
	pthread_mutex_init(&m->irq_lock, NULL);
	vdev->mmio = m;
	vdev->nmmio = 1;
	vdev->transport_ops = &mmio_transport_ops;
	return 0;
}

void virtio_mmio_detach(struct virtio_device *vdev)
{
	struct virtio_mmio *m = vdev->mmio;

	bus_remove(&vdev->obj.vm->mmio, m->base, m);
	irq_line_set(&m->irq, false);
	pthread_mutex_destroy(&m->irq_lock);
	free(m);
	vdev->mmio = NULL;
	vdev->nmmio = 0;
}

static const struct state_field virtio_mmio_fields[] = {
	STATE_FIELD_UINT(struct virtio_mmio, device_features_sel),
	STATE_FIELD_UINT(struct virtio_mmio, driver_features_sel),
	STATE_FIELD_UINT(struct virtio_mmio, queue_sel),
	STATE_END,
};

const struct state_table virtio_mmio_state = {
	.name = "virtio-mmio",
	.version = 1,
	.min_version = 1,
	.fields = virtio_mmio_fields,
};
