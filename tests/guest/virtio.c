/* SPDX-License-Identifier: GPL-2.0-only */
#include "virtio.h"
#include "acpi.h"

/* --- transports -------------------------------------------------------------------------------- */

static bool find_mmio(struct virtio_dev *d, u32 type, u32 n)
{
	for (u32 i = 0; i < MMIO_MAX; i++) {
		u64 base = MMIO_BASE + i * MMIO_STRIDE;

		if (mmio_r32(base + MMIO_MAGIC) != 0x74726976)
			return false;
		if (mmio_r32(base + MMIO_DEVICE_ID) != type || n--)
			continue;
		if (mmio_r32(base + MMIO_VERSION) != 2) {
			print("virtio-mmio at %#lx is not version 2\n", base);
			return false;
		}
		d->mmio = base;
		d->config = base + MMIO_CONFIG;
		d->config_len = MMIO_STRIDE - MMIO_CONFIG;
		return true;
	}
	return false;
}

/* Vendor capabilities (4.1.4): the first of each kind whose BAR is a memory BAR counts. */
static bool pci_layout(struct virtio_dev *d)
{
	struct pci_dev *p = d->pci;

	for (u32 c = pci_cap(p, 9, 0); c; c = pci_cap(p, 9, c)) {
		u32 kind = pci_read(p, c + 3, 1), bar = pci_read(p, c + 4, 1);
		u64 at;

		if (bar > 5 || !p->bar[bar].size || p->bar[bar].io)
			continue;
		at = p->bar[bar].addr + pci_read(p, c + 8, 4);
		if (kind == 1 && !d->common)
			d->common = at;
		if (kind == 2 && !d->notify) {
			d->notify = at;
			d->notify_multiplier = pci_read(p, c + 16, 4);
		}
		if (kind == 3 && !d->isr)
			d->isr = at;
		if (kind == 4 && !d->config) {
			d->config = at;
			d->config_len = pci_read(p, c + 12, 4);
		}
	}
	return d->common && d->notify && d->isr;
}

static bool find_pci(struct virtio_dev *d, u32 type, u32 n)
{
	/* Transitional devices have IDs of their own (5, 4.1.2.1). */
	static const u16 transitional[] = {0, 0x1000, 0x1001, 0x1003, 0x1005};

	pci_init();
	for (u32 i = 0; i < pci_count; i++) {
		struct pci_dev *p = &pci_devs[i];

		if (p->vendor != 0x1af4 ||
		    (p->device != 0x1040 + type &&
		     !(type < ARRAY_SIZE(transitional) && p->device == transitional[type])) ||
		    n--)
			continue;
		d->pci = p;
		pci_write(p, 0x04, 2, pci_read(p, 0x04, 2) | 6);
		return pci_layout(d);
	}
	return false;
}

bool virtio_find(struct virtio_dev *d, u32 type, u32 n)
{
	memset(d, 0, sizeof(*d));
	d->type = type;
	if (!param_is("transport", "mmio") && find_pci(d, type, n))
		return true;
	memset(d, 0, sizeof(*d));
	d->type = type;
	return !param_is("transport", "pci") && find_mmio(d, type, n);
}

bool virtio_need(struct virtio_dev *d, u32 type, u32 n)
{
	if (virtio_find(d, type, n))
		return true;
	/* Who names a transport knows that the device is there. */
	if (param("transport"))
		check(false, "no virtio device of type %u, number %u", type, n);
	else
		skip("no virtio device of type %u", type);
	return false;
}

u8 virtio_status(struct virtio_dev *d)
{
	return d->mmio ? mmio_r32(d->mmio + MMIO_STATUS) : mmio_r8(d->common + COMMON_STATUS);
}

void virtio_set_status(struct virtio_dev *d, u8 status)
{
	if (d->mmio)
		mmio_w32(d->mmio + MMIO_STATUS, status);
	else
		mmio_w8(d->common + COMMON_STATUS, status);
}

void virtio_reset(struct virtio_dev *d)
{
	u64 t = rdtsc();

	virtio_set_status(d, 0);
	while (virtio_status(d))
		if (us_since(t) > 5000000) {
			check(false, "device does not finish its reset");
			return;
		}
}

u64 virtio_offered(struct virtio_dev *d)
{
	u64 f = 0;

	for (u32 i = 0; i < 2; i++) {
		if (d->mmio) {
			mmio_w32(d->mmio + MMIO_DEVICE_FEATURES_SEL, i);
			f |= (u64)mmio_r32(d->mmio + MMIO_DEVICE_FEATURES) << 32 * i;
		} else {
			mmio_w32(d->common + COMMON_DEVICE_FEATURE_SEL, i);
			f |= (u64)mmio_r32(d->common + COMMON_DEVICE_FEATURE) << 32 * i;
		}
	}
	return f;
}

void virtio_set_features(struct virtio_dev *d, u64 features)
{
	for (u32 i = 0; i < 2; i++) {
		if (d->mmio) {
			mmio_w32(d->mmio + MMIO_DRIVER_FEATURES_SEL, i);
			mmio_w32(d->mmio + MMIO_DRIVER_FEATURES, features >> 32 * i);
		} else {
			mmio_w32(d->common + COMMON_DRIVER_FEATURE_SEL, i);
			mmio_w32(d->common + COMMON_DRIVER_FEATURE, features >> 32 * i);
		}
	}
	d->features = features;
}

bool virtio_begin(struct virtio_dev *d, u64 wanted)
{
	u64 offered;

	virtio_reset(d);
	virtio_set_status(d, STATUS_ACKNOWLEDGE);
	virtio_set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
	offered = virtio_offered(d);
	if (!check(offered & VIRTIO_F_VERSION_1, "VERSION_1 not offered: %#lx", offered))
		return false;
	if (param_u64("packed", 0)) {
		wanted |= VIRTIO_F_RING_PACKED;
		check(offered & VIRTIO_F_RING_PACKED, "no packed rings: %#lx", offered);
	}
	virtio_set_features(d, (offered & wanted) | VIRTIO_F_VERSION_1);
	virtio_set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
	return check(virtio_status(d) & STATUS_FEATURES_OK, "features %#lx of %#lx refused",
		     d->features, offered);
}

void virtio_driver_ok(struct virtio_dev *d)
{
	virtio_set_status(d, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK |
				     STATUS_DRIVER_OK);
}

u16 virtio_queue_max(struct virtio_dev *d, u16 index)
{
	if (d->mmio) {
		mmio_w32(d->mmio + MMIO_QUEUE_SEL, index);
		return mmio_r32(d->mmio + MMIO_QUEUE_NUM_MAX);
	}
	mmio_w16(d->common + COMMON_QUEUE_SELECT, index);
	return mmio_r16(d->common + COMMON_QUEUE_SIZE);
}

static void write_addr(u64 reg, u64 v)
{
	mmio_w32(reg, v);
	mmio_w32(reg + 4, v >> 32);
}

void virtio_queue_set(struct virtio_dev *d, u16 index, u16 size, u64 desc, u64 avail, u64 used,
		      u16 msix, bool enable)
{
	if (d->mmio) {
		mmio_w32(d->mmio + MMIO_QUEUE_SEL, index);
		mmio_w32(d->mmio + MMIO_QUEUE_NUM, size);
		write_addr(d->mmio + MMIO_QUEUE_DESC, desc);
		write_addr(d->mmio + MMIO_QUEUE_DRIVER, avail);
		write_addr(d->mmio + MMIO_QUEUE_DEVICE, used);
		mmio_w32(d->mmio + MMIO_QUEUE_READY, enable);
		return;
	}
	mmio_w16(d->common + COMMON_QUEUE_SELECT, index);
	mmio_w16(d->common + COMMON_QUEUE_SIZE, size);
	mmio_w16(d->common + COMMON_QUEUE_MSIX, msix);
	write_addr(d->common + COMMON_QUEUE_DESC, desc);
	write_addr(d->common + COMMON_QUEUE_DRIVER, avail);
	write_addr(d->common + COMMON_QUEUE_DEVICE, used);
	if (enable)
		mmio_w16(d->common + COMMON_QUEUE_ENABLE, 1);
}

u64 virtio_doorbell(struct virtio_dev *d, u16 index)
{
	if (d->mmio)
		return d->mmio + MMIO_QUEUE_NOTIFY;
	mmio_w16(d->common + COMMON_QUEUE_SELECT, index);
	return d->notify + mmio_r16(d->common + COMMON_QUEUE_NOTIFY_OFF) * d->notify_multiplier;
}

/* MMIO: 32 bits with the queue's number; PCI: 16 bits at the queue's own address (4.1.4.4). */
static inline void ring_doorbell(struct virtio_dev *d, u64 doorbell, u16 index)
{
	if (d->mmio)
		mmio_w32(doorbell, index);
	else
		mmio_w16(doorbell, index);
}

void virtio_notify(struct virtio_dev *d, u16 index)
{
	ring_doorbell(d, virtio_doorbell(d, index), index);
}

u8 virtio_cfg8(struct virtio_dev *d, u32 off)
{
	return mmio_r8(d->config + off);
}

u16 virtio_cfg16(struct virtio_dev *d, u32 off)
{
	return mmio_r16(d->config + off);
}

u32 virtio_cfg32(struct virtio_dev *d, u32 off)
{
	return mmio_r32(d->config + off);
}

u64 virtio_cfg64(struct virtio_dev *d, u32 off)
{
	return virtio_cfg32(d, off) | (u64)virtio_cfg32(d, off + 4) << 32;
}

/* --- interrupts -------------------------------------------------------------------------------- */

/*
 * One vector for the MMIO device, which acknowledges it. Its pin is what ACPI says; without ACPI,
 * every pin that could be it.
 */
static void mmio_irq_init(struct virtio_dev *d)
{
	bool level = true;
	s64 gsi;

	if (d->vector)
		return;
	d->vector = vector_alloc();
	irq_ack[d->vector] = d->mmio;
	gsi = acpi_mmio_irq(d->mmio, &level);
	if (gsi >= 0) {
		ioapic_route(gsi, d->vector, level ? IOAPIC_LEVEL : 0);
		return;
	}
	for (u32 pin = 5; pin < 24; pin++)
		if (pin != 8 && pin != 9)
			ioapic_route(pin, d->vector, IOAPIC_LEVEL);
}

/* --- queues ------------------------------------------------------------------------------------ */

bool virtq_init(struct virtq *q, struct virtio_dev *d, u16 index, u16 size, bool irq)
{
	u16 max = virtio_queue_max(d, index), msix = 0xffff;

	if (!check(max, "queue %u does not exist", index))
		return false;
	memset(q, 0, sizeof(*q));
	size = MIN(size, MIN(max, VIRTQ_MAX));
	q->dev = d;
	q->index = index;
	q->size = q->num_free = size;
	q->desc = alloc(16 * size, 16);
	q->avail = alloc(6 + 2 * size, 4);
	q->used = alloc(6 + 8 * size, 64);
	if (d->features & VIRTIO_F_INDIRECT_DESC)
		q->indirect = alloc(16 * INDIRECT_PER * size, 16);
	q->event_idx = d->features & VIRTIO_F_EVENT_IDX;
	q->packed = d->features & VIRTIO_F_RING_PACKED;
	for (u32 i = 0; i < size && !q->packed; i++)
		q->desc[i].next = i + 1;
	if (irq && d->mmio) {
		mmio_irq_init(d);
		q->vector = d->vector;
	} else if (irq) {
		q->vector = vector_alloc();
		/* Vector 0 of the table is the configuration's; a queue beyond the table shares the last. */
		msix = MIN(index + 1, d->pci->msix_vectors - 1);
		pci_msix_route(d->pci, msix, q->vector);
	}
	virtio_queue_set(d, index, size, (u64)q->desc, (u64)q->avail, (u64)q->used, msix, true);
	if (irq && !d->mmio)
		check_eq(mmio_r16(d->common + COMMON_QUEUE_MSIX), msix);
	q->doorbell = virtio_doorbell(d, index);
	if (q->packed) {
		packed_init(q, irq);
		return true;
	}
	if (!irq)
		q->avail->flags = 1; /* NO_INTERRUPT; with EVENT_IDX an event far away does it */
	if (q->event_idx && !irq) {
		q->avail->flags = 0;
		q->avail->ring[size] = 0x8000;
	}
	return true;
}

bool virtq_add(struct virtq *q, const struct virtio_buf *buf, u32 out, u32 in, void *token)
{
	u32 n = out + in;
	bool indirect = q->indirect && n > 1 && n <= INDIRECT_PER;
	u32 need = indirect ? 1 : n;
	u16 head = q->free, at = head;
	struct vring_desc *t;

	if (q->packed)
		return packed_add(q, buf, out, in, token);
	if (need > q->num_free)
		return false;
	if (indirect) {
		t = q->indirect + head * INDIRECT_PER;
		for (u32 i = 0; i < n; i++)
			t[i] = (struct vring_desc){
				.addr = (u64)buf[i].p,
				.len = buf[i].len,
				.flags = (i < out ? 0 : DESC_F_WRITE) |
					 (i + 1 < n ? DESC_F_NEXT : 0),
				.next = i + 1,
			};
		q->desc[head].addr = (u64)t;
		q->desc[head].len = 16 * n;
		q->desc[head].flags = DESC_F_INDIRECT;
		at = q->desc[head].next;
	} else {
		for (u32 i = 0; i < n; i++) {
			t = &q->desc[at];
			t->addr = (u64)buf[i].p;
			t->len = buf[i].len;
			t->flags = (i < out ? 0 : DESC_F_WRITE) | (i + 1 < n ? DESC_F_NEXT : 0);
			at = t->next;
		}
	}
	q->free = at;
	q->num_free -= need;
	q->token[head] = token;
	q->count[head] = need;
	q->avail->ring[q->avail_idx++ & (q->size - 1)] = head;
	return true;
}

void virtq_kick(struct virtq *q)
{
	u16 event, added = q->avail_idx - q->kicked_idx;
	bool kick;

	barrier();
	if (!q->packed) {
		*(volatile u16 *)&q->avail->idx = q->avail_idx;
		mfence();
	}
	if (q->packed) {
		kick = packed_kick(q);
	} else if (q->event_idx) {
		event = *(volatile u16 *)&q->used->ring[q->size];
		/* vring_need_event (2.7.7.2) */
		kick = (u16)(q->avail_idx - event - 1) < added;
	} else {
		kick = added && !(*(volatile u16 *)&q->used->flags & 1);
	}
	q->kicked_idx = q->avail_idx;
	if (!kick)
		return;
	q->kicks++;
	ring_doorbell(q->dev, q->doorbell, q->index);
}

void *virtq_get(struct virtq *q, u32 *len)
{
	struct vring_used_elem *e;
	u16 head, last;

	if (!virtq_more(q))
		return NULL;
	barrier();
	if (q->packed)
		return packed_get(q, len);
	e = &q->used->ring[q->used_idx & (q->size - 1)];
	head = e->id;
	if (len)
		*len = e->len;
	q->used_idx++;
	if (e->id >= q->size || !q->count[head]) {
		check(false, "used ring holds head %u, which is not in flight", e->id);
		leave(1);
	}
	last = head;
	for (u32 i = 1; i < q->count[head]; i++)
		last = q->desc[last].next;
	q->desc[last].next = q->free;
	q->free = head;
	q->num_free += q->count[head];
	q->count[head] = 0;
	if (q->event_idx && !q->vector)
		q->avail->ring[q->size] = q->used_idx + 0x8000;
	return q->token[head];
}

void virtq_want_interrupt(struct virtq *q)
{
	if (!q->event_idx)
		return;
	if (q->packed)
		*q->driver_event = EVENT_DESC << 16 | q->next_used.wrap << 15 | q->next_used.at;
	else
		*(volatile u16 *)&q->avail->ring[q->size] = q->used_idx;
	mfence();
}

bool virtq_wait(struct virtq *q, u32 ms)
{
	u64 t = rdtsc();

	while (!virtq_more(q)) {
		u32 seen;

		if (us_since(t) > ms * 1000ull)
			return false;
		if (!q->vector) {
			pause();
			continue;
		}
		seen = irqs(q->vector);
		virtq_want_interrupt(q);
		if (!virtq_more(q))
			irq_wait_ms(q->vector, seen, ms);
	}
	return true;
}
