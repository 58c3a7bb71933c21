/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Virtio over PCI (virtio 1.2, section 4.1), modern only. BAR 1 holds the MSI-X tables; BAR 4, of 64 bits and prefetchable, everything
 * else, laid out as QEMU does.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stdlib.h>

#include "queue.h"
#include "transport.h"
#include "vmm/vm.h"

#define PCI_VENDOR_VIRTIO    0x1af4
#define PCI_DEVICE_VIRTIO    0x1040 /* + the device type's id */
#define PCI_SUBSYSTEM_VIRTIO 0x1100 /* 4.1.2.1: at least 0x40; QEMU's */

#define BAR_MSIX      1
#define BAR_REGISTERS 4

/* Regions of BAR 4, of a page each. */
#define REGION_SIZE	  0x1000
#define REGION_COMMON	  0x0000
#define REGION_ISR	  0x1000
#define REGION_DEVICE	  0x2000
#define REGION_NOTIFY	  0x3000
#define BAR_SIZE	  0x4000
#define NOTIFY_MULTIPLIER 4

#define ISR_QUEUE  BIT(0) /* 4.1.4.5 */
#define ISR_CONFIG BIT(1)

#define VECTORS_AUTO UINT32_MAX

const struct option virtio_pci_options[] = {
	OPT_STRING("addr", struct virtio_device, opt.addr, NULL,
		   "slot, or slot.function, in hexadecimal; default: the first free one"),
	OPT_STRING("bus", struct virtio_device, opt.bus, "pcie.0",
		   "the PCI bus: pcie.0, or the id of a root port"),
	OPT_UINT("vectors", struct virtio_device, opt.vectors, "4294967295", 0, UINT32_MAX,
		 "MSI-X vectors; 0: none; default: one for each queue and one for changes"),
	OPT_ONOFFAUTO("disable-legacy", struct virtio_device, opt.disable_legacy, "auto",
		      "no legacy interface (there never is one)"),
	OPT_BOOL("disable-modern", struct virtio_device, opt.disable_modern, "off",
		 "no modern interface (only off)"),
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

static void raise_interrupt(struct virtio_pci *vp, uint16_t vector, uint8_t isr)
{
	pthread_mutex_lock(&vp->irq_lock);
	if (vp->msix_on) {
		msix_raise(&vp->pci, vector); /* no such vector: nobody listens */
	} else {
		vp->vdev->isr |= isr;
		pci_set_intx(&vp->pci, true);
	}
	pthread_mutex_unlock(&vp->irq_lock);
}

static void pci_notify_queue(struct virtio_device *vdev, struct virtqueue *vq)
{
	raise_interrupt(vdev->pci, READ_ONCE(vq->msix_vector), ISR_QUEUE);
}

static void pci_notify_config(struct virtio_device *vdev)
{
	raise_interrupt(vdev->pci, READ_ONCE(vdev->pci->config_msix_vector), ISR_CONFIG);
}

/* 4.1.4.5.1: reading clears, and lowers the line. */
static uint8_t read_isr(struct virtio_pci *vp)
{
	uint8_t isr;

	pthread_mutex_lock(&vp->irq_lock);
	isr = vp->vdev->isr;
	vp->vdev->isr = 0;
	pci_set_intx(&vp->pci, false);
	pthread_mutex_unlock(&vp->irq_lock);
	return isr;
}

/* Under irq_lock. A vector's eventfd never changes, hence a loop may use the old one a moment longer. */
static void route_queue(struct virtio_pci *vp, struct virtqueue *vq)
{
	int fd = vp->msix_on && vq->msix_vector != VIRTIO_MSI_NO_VECTOR
			 ? msix_fd(&vp->pci, vq->msix_vector)
			 : -1;

	virtq_route(vq, fd);
}

/* MSI-X may have been turned on or off. */
static void update_msix(struct virtio_pci *vp)
{
	pthread_mutex_lock(&vp->irq_lock);
	if (vp->msix_on != msix_enabled(&vp->pci)) {
		vp->msix_on = !vp->msix_on;
		for (uint32_t i = 0; i < vp->vdev->nqueues; i++)
			route_queue(vp, &vp->vdev->vq[i]);
	}
	pthread_mutex_unlock(&vp->irq_lock);
}

/* 4.1.5.1.2: what can not be had reads back as NO_VECTOR. */
static uint16_t check_vector(const struct virtio_pci *vp, uint64_t vector)
{
	return vector < vp->pci.msix.nvectors ? vector : VIRTIO_MSI_NO_VECTOR;
}

static void set_queue_vector(struct virtio_pci *vp, struct virtqueue *vq, uint64_t vector)
{
	pthread_mutex_lock(&vp->irq_lock);
	WRITE_ONCE(vq->msix_vector, check_vector(vp, vector));
	route_queue(vp, vq);
	pthread_mutex_unlock(&vp->irq_lock);
}

/* --- doorbells ------------------------------------------------------------------------------- */

/* Under doorbell_lock: make doorbells_set what it should be. */
static void update_doorbells(struct virtio_pci *vp, uint64_t wanted)
{
	uint64_t base = vp->bar_addr + REGION_NOTIFY;
	struct hako_error err;

	for (uint64_t change = wanted ^ vp->doorbells_set; change; change &= change - 1) {
		unsigned int i = __builtin_ctzll(change);

		if (!vm_ioeventfd(vp->pci.obj.vm, false, base + i * NOTIFY_MULTIPLIER, 0, NULL,
				  vp->vdev->vq[i].kick_fd, wanted & BIT64(i), &err))
			vp->doorbells_set ^= BIT64(i);
		else
			vm_log(vp->pci.obj.vm, "%s: %s", vp->vdev->ops->name, err.message);
	}
}

static void pci_doorbells(struct virtio_device *vdev, bool on)
{
	struct virtio_pci *vp = vdev->pci;

	pthread_mutex_lock(&vp->doorbell_lock);
	vp->doorbells_wanted = 0;
	for (uint32_t i = 0; on && i < vdev->nqueues; i++)
		if (vdev->vq[i].enabled)
			vp->doorbells_wanted |= BIT64(i);
	if (vp->bar_addr != PCI_BAR_UNMAPPED)
		update_doorbells(vp, vp->doorbells_wanted);
	pthread_mutex_unlock(&vp->doorbell_lock);
}

static void bars_moved(struct pci_device *pdev)
{
	struct virtio_pci *vp = container_of(pdev, struct virtio_pci, pci);
	uint64_t addr = pdev->bar[BAR_REGISTERS].addr;

	pthread_mutex_lock(&vp->doorbell_lock);
	if (addr != vp->bar_addr) {
		update_doorbells(vp, 0);
		vp->bar_addr = addr;
		if (addr != PCI_BAR_UNMAPPED)
			update_doorbells(vp, vp->doorbells_wanted);
	}
	pthread_mutex_unlock(&vp->doorbell_lock);
}

/* --- registers ------------------------------------------------------------------------------- */

static uint32_t queue_read(struct virtio_pci *vp, uint64_t offset)
{
	struct virtqueue *vq = virtio_queue_at(vp->vdev, vp->queue_select);

	if (!vq)
		return offset == VIRTIO_PCI_COMMON_Q_MSIX ? VIRTIO_MSI_NO_VECTOR : 0;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		return vq->size;
	case VIRTIO_PCI_COMMON_Q_MSIX:
		return vq->msix_vector;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return vq->enabled;
	case VIRTIO_PCI_COMMON_Q_NOFF:
		return vq->index;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
		return vq->desc_gpa;
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		return vq->desc_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
		return vq->avail_gpa;
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		return vq->avail_gpa >> 32;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
		return vq->used_gpa;
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return vq->used_gpa >> 32;
	}
	return 0;
}

static uint32_t common_read(struct virtio_pci *vp, uint64_t offset)
{
	struct virtio_device *vdev = vp->vdev;

	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		return vp->device_feature_select;
	case VIRTIO_PCI_COMMON_DF:
		return virtio_get_features(vdev->host_features, vp->device_feature_select);
	case VIRTIO_PCI_COMMON_GFSELECT:
		return vp->driver_feature_select;
	case VIRTIO_PCI_COMMON_GF:
		return virtio_get_features(vdev->guest_features, vp->driver_feature_select);
	case VIRTIO_PCI_COMMON_MSIX:
		return vp->config_msix_vector;
	case VIRTIO_PCI_COMMON_NUMQ:
		return vdev->nqueues;
	case VIRTIO_PCI_COMMON_STATUS:
		return virtio_get_status(vdev);
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return __atomic_load_n(&vdev->config_generation, __ATOMIC_SEQ_CST);
	case VIRTIO_PCI_COMMON_Q_SELECT:
		return vp->queue_select;
	}
	return queue_read(vp, offset);
}

static void queue_write(struct virtio_pci *vp, uint64_t offset, uint32_t value)
{
	struct virtqueue *vq = virtio_queue_at(vp->vdev, vp->queue_select);

	if (!vq)
		return;
	if (offset == VIRTIO_PCI_COMMON_Q_MSIX) {
		set_queue_vector(vp, vq, value);
		return;
	}
	if (offset == VIRTIO_PCI_COMMON_Q_RESET) {
		if (value == 1)
			virtio_queue_reset(vq);
		return;
	}
	if (vq->enabled) /* 4.1.4.3.2: an enabled queue does not change any more */
		return;
	switch (offset) {
	case VIRTIO_PCI_COMMON_Q_SIZE: /* judged when the queue is enabled */
		vq->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		if (value == 1)
			virtio_queue_enable(vq);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		virtio_set_half(&vq->desc_gpa, offset == VIRTIO_PCI_COMMON_Q_DESCHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		virtio_set_half(&vq->avail_gpa, offset == VIRTIO_PCI_COMMON_Q_AVAILHI, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		virtio_set_half(&vq->used_gpa, offset == VIRTIO_PCI_COMMON_Q_USEDHI, value);
		break;
	}
}

static void common_write(struct virtio_pci *vp, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_DFSELECT:
		vp->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		vp->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		virtio_set_features(vp->vdev, vp->driver_feature_select, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		WRITE_ONCE(vp->config_msix_vector, check_vector(vp, value));
		break;
	case VIRTIO_PCI_COMMON_STATUS:
		virtio_set_status(vp->vdev, value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		vp->queue_select = value;
		break;
	default:
		queue_write(vp, offset, value);
	}
}

/* 4.1.3.1: a field is accessed as a whole, one of 64 bits as two halves. 0: there is no field. */
static unsigned int common_width(uint64_t offset)
{
	switch (offset) {
	case VIRTIO_PCI_COMMON_STATUS:
	case VIRTIO_PCI_COMMON_CFGGENERATION:
		return 1;
	case VIRTIO_PCI_COMMON_MSIX:
	case VIRTIO_PCI_COMMON_NUMQ:
	case VIRTIO_PCI_COMMON_Q_SELECT:
	case VIRTIO_PCI_COMMON_Q_SIZE:
	case VIRTIO_PCI_COMMON_Q_MSIX:
	case VIRTIO_PCI_COMMON_Q_ENABLE:
	case VIRTIO_PCI_COMMON_Q_NOFF:
	case VIRTIO_PCI_COMMON_Q_RESET: /* reads as 0: a reset is done when the write is */
		return 2;
	}
	return offset % 4 == 0 && offset <= VIRTIO_PCI_COMMON_Q_USEDHI ? 4 : 0;
}

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct virtio_pci *vp = opaque;
	uint64_t at = offset % REGION_SIZE;

	switch (offset - at) {
	case REGION_COMMON:
		return size == common_width(at) ? common_read(vp, at) : 0;
	case REGION_ISR:
		return at == 0 ? read_isr(vp) : 0;
	case REGION_DEVICE:
		return virtio_config_read(vp->vdev, at, size);
	}
	return 0;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct virtio_pci *vp = opaque;
	uint64_t at = offset % REGION_SIZE;

	switch (offset - at) {
	case REGION_COMMON:
		if (size == common_width(at))
			common_write(vp, at, value);
		break;
	case REGION_DEVICE:
		virtio_config_write(vp->vdev, at, value, size);
		break;
	case REGION_NOTIFY:
		if (at % NOTIFY_MULTIPLIER == 0)
			virtio_queue_kick(vp->vdev, at / NOTIFY_MULTIPLIER);
		break;
	}
}

static const struct io_ops bar_ops = {.read = bar_read, .write = bar_write};

/* --- access by configuration space (4.1.4.9) --------------------------------------------------- */

static bool touches_data(const struct virtio_pci *vp, uint32_t offset, uint32_t len)
{
	uint32_t data = vp->cfg_cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);

	return vp->cfg_cap && offset < data + 4 && data < offset + len;
}

/* The window that the driver has set: false if there is no such thing in the BAR. */
static bool cfg_window(const struct virtio_pci *vp, uint32_t *offset, uint32_t *len)
{
	const uint8_t *cap = vp->pci.config + vp->cfg_cap;

	*offset = get_le32(cap + VIRTIO_PCI_CAP_OFFSET);
	*len = get_le32(cap + VIRTIO_PCI_CAP_LENGTH);
	return cap[VIRTIO_PCI_CAP_BAR] == BAR_REGISTERS && (*len == 1 || *len == 2 || *len == 4) &&
	       *offset < BAR_SIZE && *offset % *len == 0;
}

/* PCI 3.0, 6.2.2: only a bus master may access memory. */
static void update_dma(struct virtio_pci *vp)
{
	virtio_set_dma(vp->vdev, get_le16(vp->pci.config + PCI_COMMAND) & PCI_COMMAND_MASTER);
}

static void config_written(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	struct virtio_pci *vp = container_of(pdev, struct virtio_pci, pci);
	const uint8_t *data = pdev->config + vp->cfg_cap + sizeof(struct virtio_pci_cap);
	uint32_t to, n;

	update_msix(vp);
	if (offset < PCI_COMMAND + 2 && PCI_COMMAND < offset + len)
		update_dma(vp);
	if (!touches_data(vp, offset, len) || !cfg_window(vp, &to, &n))
		return;
	pthread_mutex_lock(&vp->vdev->lock);
	bar_write(vp, to, n == 4 ? get_le32(data) : n == 2 ? get_le16(data) : *data, n);
	pthread_mutex_unlock(&vp->vdev->lock);
}

static void config_reading(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	struct virtio_pci *vp = container_of(pdev, struct virtio_pci, pci);
	uint8_t *data = pdev->config + vp->cfg_cap + sizeof(struct virtio_pci_cap);
	uint32_t from, n;
	uint64_t value;

	if (!touches_data(vp, offset, len) || !cfg_window(vp, &from, &n))
		return;
	pthread_mutex_lock(&vp->vdev->lock);
	value = bar_read(vp, from, n);
	pthread_mutex_unlock(&vp->vdev->lock);
	for (uint32_t i = 0; i < n; i++)
		data[i] = value >> (8 * i);
}

/* --- life ------------------------------------------------------------------------------------ */

static void pci_reset(struct virtio_device *vdev)
{
	struct virtio_pci *vp = vdev->pci;

	vp->device_feature_select = vp->driver_feature_select = 0;
	vp->queue_select = 0;
	WRITE_ONCE(vp->config_msix_vector, VIRTIO_MSI_NO_VECTOR);
	read_isr(vp);
}

void virtio_pci_reset_function(struct virtio_device *vdev)
{
	pci_device_reset(&vdev->pci->pci);
	update_msix(vdev->pci);
	update_dma(vdev->pci);
}

/* Secondary Bus Reset of a port above: as far as the driver is concerned, a reset like any other. */
static void hot_reset(struct pci_device *pdev)
{
	virtio_device_reset(&container_of(pdev, struct virtio_pci, pci)->vdev->obj);
}

static int pci_loaded(struct virtio_device *vdev, struct hako_error *err)
{
	struct virtio_pci *vp = vdev->pci;

	vp->config_msix_vector = check_vector(vp, vp->config_msix_vector);
	update_msix(vp);
	update_dma(vp);
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		set_queue_vector(vp, &vdev->vq[i], vdev->vq[i].msix_vector);
	return 0;
}

static const struct virtio_transport_ops pci_transport_ops = {
	.notify_queue = pci_notify_queue,
	.notify_config = pci_notify_config,
	.doorbells = pci_doorbells,
	.reset = pci_reset,
	.loaded = pci_loaded,
};

static int add_cap(struct virtio_pci *vp, uint8_t type, uint32_t offset, uint8_t cap_len)
{
	int at = pci_add_capability(&vp->pci, PCI_CAP_ID_VNDR, cap_len);
	uint8_t *cap = vp->pci.config + at;

	if (at < 0)
		return at;
	cap[VIRTIO_PCI_CAP_LEN] = cap_len;
	cap[VIRTIO_PCI_CAP_CFG_TYPE] = type;
	if (type == VIRTIO_PCI_CAP_PCI_CFG)
		return at;
	cap[VIRTIO_PCI_CAP_BAR] = BAR_REGISTERS;
	put_le32(cap + VIRTIO_PCI_CAP_OFFSET, offset);
	put_le32(cap + VIRTIO_PCI_CAP_LENGTH, REGION_SIZE);
	return at;
}

static int add_caps(struct virtio_pci *vp)
{
	int notify, cfg, r;

	r = add_cap(vp, VIRTIO_PCI_CAP_COMMON_CFG, REGION_COMMON, sizeof(struct virtio_pci_cap));
	if (r >= 0)
		r = add_cap(vp, VIRTIO_PCI_CAP_ISR_CFG, REGION_ISR, sizeof(struct virtio_pci_cap));
	if (r >= 0)
		r = add_cap(vp, VIRTIO_PCI_CAP_DEVICE_CFG, REGION_DEVICE,
			    sizeof(struct virtio_pci_cap));
	if (r < 0)
		return r;
	notify = add_cap(vp, VIRTIO_PCI_CAP_NOTIFY_CFG, REGION_NOTIFY,
			 sizeof(struct virtio_pci_notify_cap));
	if (notify < 0)
		return notify;
	put_le32(vp->pci.config + notify + VIRTIO_PCI_NOTIFY_CAP_MULT, NOTIFY_MULTIPLIER);
	cfg = add_cap(vp, VIRTIO_PCI_CAP_PCI_CFG, 0, sizeof(struct virtio_pci_cfg_cap));
	if (cfg < 0)
		return cfg;
	vp->pci.wmask[cfg + VIRTIO_PCI_CAP_BAR] = 0xff;
	memset(vp->pci.wmask + cfg + VIRTIO_PCI_CAP_OFFSET, 0xff, 12); /* offset, length, data */
	vp->cfg_cap = cfg;
	return 0;
}

static int add_registers(struct virtio_pci *vp, struct hako_error *err)
{
	struct io_region region = {
		.name = vp->vdev->ops->name,
		.ops = &bar_ops,
		.opaque = vp,
		.lock = &vp->vdev->lock,
	};
	uint32_t vectors = vp->vdev->opt.vectors;
	int r;

	if (vectors == VECTORS_AUTO)
		vectors = vp->vdev->nqueues + 1;
	if (vectors > UINT16_MAX)
		return error_set(err, -ERANGE, "vectors=%u: too many", vectors);
	r = vectors ? pci_add_msix(&vp->pci, BAR_MSIX, vectors, err) : 0;
	if (r)
		return r;
	r = pci_add_bar(&vp->pci, BAR_REGISTERS, BAR_SIZE, false, true, true, &region)
		    ?: add_caps(vp);
	return r ? error_errno(err, r, "virtio capabilities") : 0;
}

static int add_function(struct virtio_pci *vp, struct hako_error *err)
{
	struct virtio_device *vdev = vp->vdev;
	struct pci_bus *bus;
	int devfn, r;

	r = pci_parse_addr(vdev->obj.vm, vdev->opt.bus, vdev->opt.addr, &bus, &devfn, err);
	if (!r)
		r = pci_device_init(&vp->pci, bus, devfn, PCI_VENDOR_VIRTIO,
				    PCI_DEVICE_VIRTIO + vdev->ops->device_id, vdev->ops->pci_class,
				    1, err);
	if (r)
		return r;
	put_le16(vp->pci.config + PCI_SUBSYSTEM_VENDOR_ID, PCI_VENDOR_VIRTIO);
	put_le16(vp->pci.config + PCI_SUBSYSTEM_ID, PCI_SUBSYSTEM_VIRTIO);
	vp->pci.config[PCI_INTERRUPT_PIN] = 1;
	r = add_registers(vp, err);
	/* Behind a root port everything is PCI Express; on the root bus it need not be, and QEMU's is not. */
	if (!r && bus->bridge) {
		r = pci_add_express(&vp->pci, PCI_EXP_TYPE_ENDPOINT);
		r = r < 0 ? error_errno(err, r, "PCI Express capability") : 0;
	}
	if (r)
		pci_device_free(&vp->pci);
	return r;
}

int virtio_pci_attach(struct virtio_device *vdev, struct hako_error *err)
{
	struct virtio_pci *vp;
	int r;

	if (vdev->opt.iommu_platform || vdev->opt.disable_modern)
		return error_set(err, -EINVAL, "%s=on: not supported",
				 vdev->opt.disable_modern ? "disable-modern" : "iommu_platform");
	if (vdev->opt.disable_legacy == ONOFFAUTO_OFF)
		return error_set(err, -EINVAL, "disable-legacy=off: not supported");
	vp = calloc(1, sizeof(*vp));
	if (!vp)
		return error_errno(err, -ENOMEM, "virtio-pci");
	vp->vdev = vdev;
	vp->bar_addr = PCI_BAR_UNMAPPED;
	vp->config_msix_vector = VIRTIO_MSI_NO_VECTOR;
	vp->pci.obj.class = vdev->obj.class;
	vp->pci.obj.id = vdev->obj.id;
	vp->pci.obj.vm = vdev->obj.vm;
	vp->pci.config_written = config_written;
	vp->pci.config_reading = config_reading;
	vp->pci.bars_moved = bars_moved;
	vp->pci.hot_reset = hot_reset;
	pthread_mutex_init(&vp->irq_lock, NULL);
	pthread_mutex_init(&vp->doorbell_lock, NULL);
	r = add_function(vp, err);
	if (r) {
		free(vp);
		return r;
	}
	vdev->no_dma = true;
	vdev->pci = vp;
	vdev->npci = 1;
	vdev->transport_ops = &pci_transport_ops;
	return 0;
}

void virtio_pci_confine(struct virtio_device *vdev)
{
	for (uint16_t v = 0; v < vdev->pci->pci.msix.nvectors; v++)
		msix_fd(&vdev->pci->pci, v);
}

void virtio_pci_detach(struct virtio_device *vdev)
{
	struct virtio_pci *vp = vdev->pci;

	vp->pci.bars_moved = NULL; /* the device has stopped: there are no doorbells */
	pci_device_free(&vp->pci);
	pthread_mutex_destroy(&vp->irq_lock);
	pthread_mutex_destroy(&vp->doorbell_lock);
	free(vp);
	vdev->pci = NULL;
	vdev->npci = 0;
}

static const struct state_field virtio_pci_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_pci, pci, &pci_device_state),
	STATE_FIELD_UINT(struct virtio_pci, device_feature_select),
	STATE_FIELD_UINT(struct virtio_pci, driver_feature_select),
	STATE_FIELD_UINT(struct virtio_pci, queue_select),
	STATE_FIELD_UINT(struct virtio_pci, config_msix_vector),
	STATE_END,
};

const struct state_table virtio_pci_state = {
	.name = "virtio-pci",
	.version = 1,
	.min_version = 1,
	.fields = virtio_pci_fields,
};
