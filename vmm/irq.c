/* SPDX-License-Identifier: GPL-2.0-only */
#include "irq.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "vm.h"

#define ROUTES_STEP    64
#define EXT_DEST       0xfe0u
#define EXT_DEST_SHIFT 5

static void add_pin_route(struct kvm_irq_routing *routing, uint32_t gsi, uint32_t chip,
			  uint32_t pin)
{
	struct kvm_irq_routing_entry *e = &routing->entries[routing->nr++];

	*e = (struct kvm_irq_routing_entry){.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP};
	e->u.irqchip.irqchip = chip;
	e->u.irqchip.pin = pin;
}

/* ISA interrupts reach the PIC and the IOAPIC; the PIT's goes to IOAPIC pin 2, as on every PC. */
int irq_use_kvm(struct vm *vm, bool pit, struct hako_error *err)
{
	struct kvm_irq_routing *routing = vm->irq.routing;

	for (uint32_t i = 0; i < IRQ_PINS; i++) {
		if (i < 8 && i != 2)
			add_pin_route(routing, i, KVM_IRQCHIP_PIC_MASTER, i);
		else if (i >= 8 && i < 16)
			add_pin_route(routing, i, KVM_IRQCHIP_PIC_SLAVE, i - 8);
		if (i == 0)
			add_pin_route(routing, i, KVM_IRQCHIP_IOAPIC, 2);
		else if (i != 2)
			add_pin_route(routing, i, KVM_IRQCHIP_IOAPIC, i);
	}
	if (pit && ioctl(vm->fd, KVM_SET_GSI_ROUTING, routing) < 0)
		return error_errno(err, -errno, "KVM: interrupt routes");
	return 0;
}

void irq_use_chip(struct vm *vm, const struct irq_chip *chip, void *opaque)
{
	pthread_mutex_lock(&vm->irq.lock);
	vm->irq.chip = chip;
	vm->irq.chip_opaque = opaque;
	pthread_mutex_unlock(&vm->irq.lock);
}

int irq_init(struct vm *vm, struct hako_error *err)
{
	struct irq *irq = &vm->irq;

	irq->vm = vm;
	pthread_mutex_init(&irq->lock, NULL);
	/* Zeroed: each route is said once, and so are the fields that KVM wants to be 0. */
	irq->routing = calloc(1, sizeof(*irq->routing) + (2 * IRQ_PINS + ROUTES_STEP) *
								 sizeof(irq->routing->entries[0]));
	return irq->routing ? 0 : error_errno(err, -ENOMEM, "interrupt routes");
}

void irq_free(struct vm *vm)
{
	if (!vm->irq.vm)
		return;
	free(vm->irq.routing);
	pthread_mutex_destroy(&vm->irq.lock);
	vm->irq = (struct irq){0};
}

/* --- pins ------------------------------------------------------------------------------------ */

static void set_pin(struct vm *vm, uint32_t gsi, bool level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level};

	if (vm->irq.chip)
		vm->irq.chip->set_pin(vm->irq.chip_opaque, gsi, level);
	else if (vm->fd >= 0)
		ioctl(vm->fd, KVM_IRQ_LINE, &l);
}

void irq_line_init(struct irq_line *line, struct vm *vm, uint32_t gsi)
{
	*line = (struct irq_line){gsi < IRQ_PINS ? vm : NULL, gsi, false};
}

void irq_line_set(struct irq_line *line, bool level)
{
	struct irq *irq;

	if (!line->vm)
		return;
	irq = &line->vm->irq;
	pthread_mutex_lock(&irq->lock);
	if (line->level != level) {
		uint16_t *n = &irq->asserted[line->gsi];

		line->level = level;
		if (level ? (*n)++ == 0 : --*n == 0)
			set_pin(line->vm, line->gsi, level);
	}
	pthread_mutex_unlock(&irq->lock);
}

void irq_line_pulse(struct irq_line *line)
{
	irq_line_set(line, true);
	irq_line_set(line, false);
}

/* --- messages -------------------------------------------------------------------------------- */

int msi_init(struct msi *msi, struct vm *vm, struct hako_error *err)
{
	*msi = (struct msi){.vm = vm};
	msi->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return msi->fd < 0 ? error_errno(err, -errno, "eventfd for an interrupt") : 0;
}

static int irqfd(struct msi *msi, bool assign)
{
	struct kvm_irqfd arg = {
		.fd = msi->fd,
		.gsi = msi->gsi,
		.flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return ioctl(msi->vm->fd, KVM_IRQFD, &arg) < 0 ? -errno : 0;
}

static uint32_t gsi_alloc(struct irq *irq)
{
	/* A pin may have two routes, which count too. */
	for (uint32_t i = 0; i < IRQ_GSI_MAX - 2 * IRQ_PINS; i++)
		if (!(irq->msi_map[i / 64] & BIT64(i % 64))) {
			irq->msi_map[i / 64] |= BIT64(i % 64);
			return IRQ_PINS + i;
		}
	return 0;
}

static void gsi_free(struct irq *irq, uint32_t gsi)
{
	uint32_t i = gsi - IRQ_PINS;

	irq->msi_map[i / 64] &= ~BIT64(i % 64);
}

static struct kvm_irq_routing_entry *find_route(struct irq *irq, uint32_t gsi)
{
	for (uint32_t i = 0; i < irq->routing->nr; i++)
		if (irq->routing->entries[i].gsi == gsi)
			return &irq->routing->entries[i];
	return NULL;
}

static int grow_routing(struct irq *irq)
{
	uint32_t n = irq->routing->nr;
	struct kvm_irq_routing *p;

	if (n < 2 * IRQ_PINS || n % ROUTES_STEP)
		return 0;
	p = realloc(irq->routing,
		    sizeof(*p) + (n + 2 * ROUTES_STEP) * sizeof(irq->routing->entries[0]));
	if (!p)
		return -ENOMEM;
	irq->routing = p;
	return 0;
}

/* In KVM_CAP_X2APIC_API's format, in which the upper half of the address holds bits 31:8 of the destination. */
static uint64_t kvm_address(const struct irq *irq, uint64_t address)
{
	uint64_t ext = irq->ext_dest ? address & EXT_DEST : 0;

	return (address ^ ext) | ext >> EXT_DEST_SHIFT << (32 + 8);
}

/* Under irq->lock. KVM takes all routes or none: one that it refuses must not stay among them. */
static int set_route(struct vm *vm, uint32_t gsi, uint64_t address, uint32_t data)
{
	struct irq *irq = &vm->irq;
	struct kvm_irq_routing_entry *e = find_route(irq, gsi), old;
	bool is_new = !e;
	int r = is_new ? grow_routing(irq) : 0;

	if (r)
		return r;
	address = kvm_address(irq, address);
	if (is_new)
		e = &irq->routing->entries[irq->routing->nr++];
	old = *e;
	*e = (struct kvm_irq_routing_entry){.gsi = gsi, .type = KVM_IRQ_ROUTING_MSI};
	e->u.msi.address_lo = address;
	e->u.msi.address_hi = address >> 32;
	e->u.msi.data = data;
	if (ioctl(vm->fd, KVM_SET_GSI_ROUTING, irq->routing) < 0) {
		r = -errno;
		if (is_new)
			irq->routing->nr--;
		else
			*e = old;
	}
	return r;
}

/* Under irq->lock. KVM learns of it with the next change. */
static void drop_route(struct irq *irq, uint32_t gsi)
{
	struct kvm_irq_routing_entry *e = find_route(irq, gsi);

	if (e)
		*e = irq->routing->entries[--irq->routing->nr];
}

static int route(struct msi *msi, uint64_t address, uint32_t data)
{
	struct irq *irq = &msi->vm->irq;
	bool is_new = !msi->gsi;
	int r;

	if (!is_new && msi->address == address && msi->data == data)
		return 0;
	pthread_mutex_lock(&irq->lock);
	if (is_new)
		msi->gsi = gsi_alloc(irq);
	r = msi->gsi ? set_route(msi->vm, msi->gsi, address, data) : -ENOSPC;
	if (!r) {
		msi->address = address;
		msi->data = data;
	} else if (is_new && msi->gsi) {
		gsi_free(irq, msi->gsi);
		msi->gsi = 0;
	}
	pthread_mutex_unlock(&irq->lock);
	return r;
}

static void disarm(struct msi *msi)
{
	if (msi->armed)
		irqfd(msi, false);
	msi->armed = false;
}

int msi_update(struct msi *msi, uint64_t address, uint32_t data, bool masked,
	       struct hako_error *err)
{
	int r;

	if (msi->vm->fd < 0)
		return 0;
	if (masked) {
		disarm(msi);
		return 0;
	}
	r = route(msi, address, data);
	if (!r && !msi->armed)
		r = irqfd(msi, true);
	if (r)
		return error_errno(err, r, "KVM: interrupt message to 0x%llx",
				   (unsigned long long)address);
	msi->armed = true;
	return 0;
}

void msi_free(struct msi *msi)
{
	struct irq *irq;

	if (!msi->vm)
		return;
	irq = &msi->vm->irq;
	disarm(msi);
	if (msi->gsi) {
		pthread_mutex_lock(&irq->lock);
		drop_route(irq, msi->gsi);
		gsi_free(irq, msi->gsi);
		pthread_mutex_unlock(&irq->lock);
	}
	if (msi->fd >= 0)
		close(msi->fd);
	*msi = (struct msi){.fd = -1};
}

bool msi_pending(const struct msi *msi)
{
	eventfd_t count;

	/* Unless it is armed nobody else reads it. */
	if (msi->armed || eventfd_read(msi->fd, &count))
		return false;
	eventfd_write(msi->fd, count);
	return true;
}

void msi_raise(struct msi *msi)
{
	eventfd_write(msi->fd, 1);
}

void msi_clear(struct msi *msi)
{
	eventfd_t count;

	eventfd_read(msi->fd, &count);
}

/* --- the board's interrupt controller -------------------------------------------------------- */

bool irq_send(struct vm *vm, uint64_t address, uint32_t data)
{
	uint64_t to = kvm_address(&vm->irq, address);
	struct kvm_msi msg = {
		.address_lo = to,
		.address_hi = to >> 32,
		.data = data,
	};

	return vm->fd < 0 || ioctl(vm->fd, KVM_SIGNAL_MSI, &msg) > 0;
}

/* KVM leaves the guest at the end of what a route of one of the first IRQ_PINS GSIs brings, if that is level-triggered. */
int irq_watch_pin(struct vm *vm, uint32_t pin, uint64_t address, uint32_t data)
{
	const struct kvm_irq_routing_entry *e = find_route(&vm->irq, pin);
	uint64_t to = kvm_address(&vm->irq, address);

	if (vm->fd < 0 || (e && e->u.msi.address_lo == (uint32_t)to &&
			   e->u.msi.address_hi == to >> 32 && e->u.msi.data == data))
		return 0;
	return set_route(vm, pin, address, data);
}

void irq_unwatch_pin(struct vm *vm, uint32_t pin)
{
	drop_route(&vm->irq, pin);
	if (vm->fd >= 0)
		ioctl(vm->fd, KVM_SET_GSI_ROUTING, vm->irq.routing);
}

void irq_eoi(struct vm *vm, uint8_t vector)
{
	struct irq *irq = &vm->irq;

	pthread_mutex_lock(&irq->lock);
	if (irq->chip)
		irq->chip->eoi(irq->chip_opaque, vector);
	pthread_mutex_unlock(&irq->lock);
}
