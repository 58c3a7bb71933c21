/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A driver of virtio over PCI (virtio 1.2, section 4.1) and the device "echo" on it, for tests. The driver finds everything by the
 * capabilities, as a guest's does; rings are virtq_driver.h's.
 */
#ifndef TESTS_UNIT_VIRTIO_PCI_RIG_H
#define TESTS_UNIT_VIRTIO_PCI_RIG_H

#include <linux/virtio_pci.h>
#include <poll.h>

#include "devices/pci/pci.h"
#include "virtq_driver.h"
#include "vmm/vm_internal.h"
#include "virtio_echo.h"

#define RAM   (16 * MiB)
#define SLOT  5
#define DEVFN PCI_DEVFN(SLOT, 0)
#define GSI   (16 + SLOT)

static struct vdrv drv;
static struct vdrv_queue q;
static struct echo *echo;
static struct pci_bus *root;
static uint64_t common, isr_reg, config, notify; /* addresses */
static uint32_t notify_multiplier;
static uint16_t pci_cfg; /* the capability's offset */

static uint32_t gsi_of(struct pci_bus *bus, uint8_t slot, uint8_t pin)
{
	return 16 + ((slot + pin) & 7);
}

static uint32_t cfg(uint16_t offset, unsigned int size)
{
	return pci_config_read(root, 0, DEVFN, offset, size);
}

static inline void cfg_set(uint16_t offset, uint32_t value, unsigned int size)
{
	pci_config_write(root, 0, DEVFN, offset, value, size);
}

static uint64_t rd(uint64_t addr, unsigned int size)
{
	uint64_t v;

	ck_assert(bus_read(&drv.mmio, addr, &v, size));
	return v;
}

static inline void wr(uint64_t addr, uint64_t value, unsigned int size)
{
	ck_assert(bus_write(&drv.mmio, addr, value, size));
}

static uint64_t bar(unsigned int i)
{
	uint64_t addr = cfg(PCI_BASE_ADDRESS_0 + 4 * i, 4);

	if ((addr & 6) == PCI_BASE_ADDRESS_MEM_TYPE_64)
		addr |= (uint64_t)cfg(PCI_BASE_ADDRESS_0 + 4 * i + 4, 4) << 32;
	return addr & ~15ull;
}

static uint8_t find_cap(uint8_t id, uint8_t after)
{
	uint8_t at = after ? cfg(after + 1, 1) : cfg(PCI_CAPABILITY_LIST, 1);

	for (int i = 0; at && i < 48; i++, at = cfg(at + 1, 1))
		if (cfg(at, 1) == id)
			return at;
	return 0;
}

/* 4.1.4: of each type the first capability. */
static inline void find_registers(void)
{
	uint64_t *const found[] = {NULL, &common, &notify, &isr_reg, &config};

	common = notify = isr_reg = config = pci_cfg = 0;
	for (uint8_t at = 0; (at = find_cap(PCI_CAP_ID_VNDR, at));) {
		uint8_t type = cfg(at + 3, 1);

		ck_assert_uint_ge(cfg(at + 2, 1), 16);
		if (type == 5)
			pci_cfg = at;
		if (type == 2)
			notify_multiplier = cfg(at + 16, 4);
		if (type >= 1 && type <= 4 && !*found[type])
			*found[type] = bar(cfg(at + 4, 1)) + cfg(at + 8, 4);
	}
	ck_assert(common && notify && isr_reg && config && pci_cfg);
}

static inline void bus_master(bool on)
{
	cfg_set(PCI_COMMAND,
		(cfg(PCI_COMMAND, 2) & ~PCI_COMMAND_MASTER) | (on ? PCI_COMMAND_MASTER : 0), 2);
}

/* What firmware does, and the beginning of a driver. */
static inline void assign(void)
{
	struct hako_error err;

	ck_assert_int_eq(pci_assign(root, &err), 0);
	bus_master(true);
	find_registers();
}

static inline void open_pci(const char *options)
{
	struct hako_error err;

	vdrv_new(&drv, RAM);
	ck_assert_int_eq(pci_root_new(drv.vm, 0, &root, &err), 0);
	root->intx_gsi = gsi_of;
	root->io_base = 0xc000;
	root->io_size = 0x4000;
	root->mmio32_base = 0xc0000000;
	root->mmio32_size = 0x10000000;
	root->mmio64_base = 1ull << 40;
	root->mmio64_size = 1ull << 36;
	drv.vm->pci = root;
	ck_assert_msg(vdrv_device(&drv, "echo-pci", options, &err) == 0, "%s", err.message);
	echo = (struct echo *)drv.obj;
	assign();
}

static inline void setup(void)
{
	open_pci("addr=05");
}

static inline void teardown(void)
{
	vm_destroy_objects(drv.vm);
	pci_root_free(root);
	drv.vm->pci = NULL;
	vdrv_close(&drv);
}

/* --- the driver ---------------------------------------------------------------------------------- */

static inline bool negotiate(uint64_t features)
{
	features |= BIT64(32);
	drv.event_idx = features & BIT64(29);
	drv.packed = features & VDRV_PACKED;
	wr(common + 20, 0, 1);
	wr(common + 20, 3, 1);
	wr(common + 8, 0, 4);
	wr(common + 12, (uint32_t)features, 4);
	wr(common + 8, 1, 4);
	wr(common + 12, features >> 32, 4);
	wr(common + 20, 11, 1);
	return rd(common + 20, 1) == 11;
}

static inline void queue_enable(struct vdrv_queue *queue)
{
	wr(common + 22, queue->index, 2);
	wr(common + 24, queue->size, 2);
	wr(common + 32, (uint32_t)queue->desc_gpa, 4);
	wr(common + 36, queue->desc_gpa >> 32, 4);
	wr(common + 40, (uint32_t)queue->avail_gpa, 4);
	wr(common + 44, queue->avail_gpa >> 32, 4);
	wr(common + 48, (uint32_t)queue->used_gpa, 4);
	wr(common + 52, queue->used_gpa >> 32, 4);
	wr(common + 28, 1, 2);
}

static inline void ready(uint64_t features)
{
	drv.heap = VDRV_HEAP;
	ck_assert(negotiate(features));
	vdrv_rings(&drv, &q, 0, 8);
	queue_enable(&q);
	ck_assert_uint_eq(rd(common + 28, 2), 1);
	wr(common + 20, 15, 1);
	ck_assert_uint_eq(rd(common + 20, 1), 15);
}

static inline void kick(struct vdrv_queue *queue)
{
	wr(common + 22, queue->index, 2);
	wr(notify + rd(common + 30, 2) * notify_multiplier, queue->index, 2);
}

static inline void send_one(struct vdrv_queue *queue)
{
	struct vdrv_buf out = vdrv_buf(&drv, 4), in = vdrv_buf(&drv, 4);

	memcpy(vdrv_ptr(&drv, out.gpa, 4), "echo", 4);
	vdrv_add(queue, &out, 1, &in, 1);
}

static inline void check_works(struct vdrv_queue *queue)
{
	uint32_t len;

	send_one(queue);
	kick(queue);
	ck_assert(vdrv_wait(queue, NULL, &len));
	ck_assert_uint_eq(len, 4);
}

static inline int vector_fd(unsigned int n)
{
	return msix_fd(list_entry(root->devices.next, struct pci_device, link), n);
}

/* Is the interrupt of vector @n raised? Then take it back. */
static inline bool vector_raised(unsigned int n)
{
	struct pollfd p = {.fd = vector_fd(n), .events = POLLIN};
	uint64_t count;

	ck_assert_int_ge(p.fd, 0);
	if (poll(&p, 1, 1000) != 1)
		return false;
	ck_assert_int_eq(read(p.fd, &count, 8), 8);
	return true;
}

static inline bool vector_quiet(unsigned int n)
{
	struct pollfd p = {.fd = vector_fd(n), .events = POLLIN};

	vdrv_settle(&drv);
	return poll(&p, 1, 0) == 0;
}

#endif
