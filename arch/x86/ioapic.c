/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * "Section" below means the data sheet of Intel's 82093AA (290566-001). Its pins are said to be active high or low by bit 13 of their
 * entries; here a pin is high when its device wants attention, whatever the driver believes of the wiring.
 */
#include "ioapic.h"

#define IOREGSEL 0x00
#define IOWIN	 0x10
#define EOI	 0x40 /* ICH9, 13.5.1 */

#define REG_ID		0
#define REG_VERSION	1
#define REG_ARBITRATION 2
#define REG_REDIRECTION 0x10 /* two each */

#define VERSION	 (0x20 | (IOAPIC_PINS - 1) << 16)
#define ID_MASK	 15
#define ID_SHIFT 24

/* Redirection entry, section 3.2.4 */
#define ENTRY_VECTOR	   0xffull
#define ENTRY_DELIVERY	   (7 * BIT64(8))
#define ENTRY_LOGICAL	   BIT64(11)
#define ENTRY_REMOTE_IRR   BIT64(14)
#define ENTRY_LEVEL	   BIT64(15)
#define ENTRY_MASKED	   BIT64(16)
#define ENTRY_EXT_DEST	   (0x7full << 49)
#define ENTRY_DESTINATION  (0xffull << 56)
#define ENTRY_WRITABLE_LOW (0xafffull | ENTRY_MASKED)
#define ENTRY_WRITABLE	   (ENTRY_WRITABLE_LOW | ENTRY_EXT_DEST | ENTRY_DESTINATION)

#define DELIVERY_LOWEST BIT64(8) /* fixed is 0; the others are SMI, NMI, INIT, ExtINT */

/* The message for an entry: SDM volume 3, "Message Signalled Interrupts". */
#define MSI_ADDRESS	 0xfee00000ull
#define MSI_LOGICAL	 BIT64(2)
#define MSI_DEST_SHIFT	 12
#define MSI_EXT_SHIFT	 5
#define MSI_ASSERT	 BIT(14)
#define ENTRY_DEST_SHIFT 56
#define ENTRY_EXT_SHIFT	 49

/* KVM_FEATURE_MSI_EXT_DEST_ID: bits 14:8 of the destination are in 55:49 of the entry, and in 11:5 of the address. */
static uint64_t message_address(uint64_t entry)
{
	return MSI_ADDRESS | entry >> ENTRY_DEST_SHIFT << MSI_DEST_SHIFT |
	       (entry & ENTRY_EXT_DEST) >> ENTRY_EXT_SHIFT << MSI_EXT_SHIFT |
	       (entry & ENTRY_LOGICAL ? MSI_LOGICAL : 0);
}

/* Vector, delivery mode and trigger mode have the same places in both. */
static uint32_t message_data(uint64_t entry)
{
	return (entry & (ENTRY_VECTOR | ENTRY_DELIVERY | ENTRY_LEVEL)) | MSI_ASSERT;
}

/* Section 3.2.4, bits 10:8: the other delivery modes are edge-triggered whatever bit 15 says. */
static bool is_level(uint64_t entry)
{
	return (entry & ENTRY_LEVEL) && (entry & ENTRY_DELIVERY) <= DELIVERY_LOWEST;
}

static bool send(struct ioapic *io, uint64_t entry)
{
	uint32_t data = message_data(entry);

	return io->ops->send(io->opaque, message_address(entry),
			     is_level(entry) ? data : data & ~(uint32_t)ENTRY_LEVEL);
}

/* A level-triggered pin is high, and nobody has been told so: remote IRR says that a local APIC has taken it and not yet ended it. */
static void serve_level(struct ioapic *io, uint32_t pin)
{
	uint64_t *entry = &io->redirection[pin];

	if (!is_level(*entry) || (*entry & (ENTRY_MASKED | ENTRY_REMOTE_IRR)) ||
	    !(io->level & BIT(pin)))
		return;
	if (send(io, *entry))
		*entry |= ENTRY_REMOTE_IRR;
}

/*
 * The data sheet has edges lost that come while the pin is masked. Drivers that share memory with a device (virtio) then wait for ever,
 * should Linux have masked the pin for a moment to move it to another CPU; so they come when it is unmasked, as QEMU's do.
 */
static void serve_edge(struct ioapic *io, uint32_t pin)
{
	uint64_t entry = io->redirection[pin];

	if (is_level(entry))
		io->missed &= ~BIT(pin);
	if (!(io->missed & BIT(pin)) || (entry & ENTRY_MASKED))
		return;
	io->missed &= ~BIT(pin);
	send(io, entry);
}

/*
 * A masked entry keeps its message: the driver may mask the pin between an interrupt and its end. One that is edge-triggered has
 * none, and would only cost exits at the ends of other interrupts of that vector.
 */
static void update_watch(struct ioapic *io, uint32_t pin)
{
	uint64_t entry = io->redirection[pin];

	if (!is_level(entry)) {
		if (io->watched & BIT(pin))
			io->ops->unwatch(io->opaque, pin);
		io->watched &= ~BIT(pin);
	} else if (!(entry & ENTRY_MASKED)) {
		io->watched |= BIT(pin);
		io->ops->watch(io->opaque, pin, message_address(entry), message_data(entry));
	}
}

void ioapic_init(struct ioapic *io, const struct ioapic_ops *ops, void *opaque)
{
	*io = (struct ioapic){.ops = ops, .opaque = opaque};
	ioapic_reset(io);
}

void ioapic_reset(struct ioapic *io)
{
	io->select = io->id = 0;
	io->missed = 0;
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
		io->redirection[pin] = ENTRY_MASKED;
		update_watch(io, pin);
	}
}

void ioapic_set_pin(struct ioapic *io, uint32_t pin, bool level)
{
	bool rises = level && !(io->level & BIT(pin));
	uint64_t entry = io->redirection[pin];

	io->level = level ? io->level | BIT(pin) : io->level & ~BIT(pin);
	if (is_level(entry))
		serve_level(io, pin);
	else if (rises)
		io->missed |= BIT(pin);
	serve_edge(io, pin);
}

void ioapic_eoi(struct ioapic *io, uint8_t vector)
{
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
		uint64_t *entry = &io->redirection[pin];

		if (!(*entry & ENTRY_REMOTE_IRR) || (*entry & ENTRY_VECTOR) != vector)
			continue;
		*entry &= ~ENTRY_REMOTE_IRR;
		serve_level(io, pin);
	}
}

/* --- registers ------------------------------------------------------------------------------- */

static uint32_t register_read(const struct ioapic *io)
{
	uint32_t n = io->select - REG_REDIRECTION;

	switch (io->select) {
	case REG_ID:
	case REG_ARBITRATION: /* section 3.2.3: takes the ID whenever that is written */
		return (uint32_t)io->id << ID_SHIFT;
	case REG_VERSION:
		return VERSION;
	}
	return n < 2 * IOAPIC_PINS ? io->redirection[n / 2] >> 32 * (n % 2) : 0;
}

static void redirection_write(struct ioapic *io, uint32_t pin, bool high, uint32_t value)
{
	uint64_t *entry = &io->redirection[pin];
	uint64_t mask = ENTRY_WRITABLE & (high ? ~0ull << 32 : UINT32_MAX);

	*entry = (*entry & ~mask) | ((high ? (uint64_t)value << 32 : value) & mask);
	/* What an edge-triggered entry does not have: this is how drivers end an interrupt without the EOI register. */
	if (!is_level(*entry))
		*entry &= ~ENTRY_REMOTE_IRR;
	update_watch(io, pin);
	serve_level(io, pin);
	serve_edge(io, pin);
}

static void register_write(struct ioapic *io, uint32_t value)
{
	uint32_t n = io->select - REG_REDIRECTION;

	if (io->select == REG_ID)
		io->id = value >> ID_SHIFT & ID_MASK;
	else if (n < 2 * IOAPIC_PINS)
		redirection_write(io, n / 2, n % 2, value);
}

/* Section 3.1: all registers are accessed in 32 bits. */
static uint64_t window_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct ioapic *io = opaque;

	if (size != 4)
		return 0;
	switch (offset) {
	case IOREGSEL:
		return io->select;
	case IOWIN:
		return register_read(io);
	}
	return 0;
}

static void window_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct ioapic *io = opaque;

	if (size != 4)
		return;
	switch (offset) {
	case IOREGSEL:
		io->select = value;
		break;
	case IOWIN:
		register_write(io, value);
		break;
	case EOI:
		ioapic_eoi(io, value);
		break;
	}
}

const struct io_ops ioapic_io_ops = {window_read, window_write};

/* --- state ----------------------------------------------------------------------------------- */

/*
 * Remote IRR is not believed: the end of an interrupt may have been on its way when the state was saved. A level-triggered pin that is high
 * is sent once more; a local APIC that still has the first one makes one of both.
 */
static int post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct ioapic *io = obj;

	io->id &= ID_MASK;
	for (uint32_t pin = 0; pin < IOAPIC_PINS; pin++) {
		io->redirection[pin] &= ENTRY_WRITABLE;
		update_watch(io, pin);
		serve_level(io, pin);
		serve_edge(io, pin);
	}
	return 0;
}

static const struct state_field fields[] = {
	STATE_FIELD_UINT(struct ioapic, select),
	STATE_FIELD_UINT(struct ioapic, id),
	STATE_FIELD_UINT(struct ioapic, missed),
	STATE_FIELD_ARRAY(struct ioapic, redirection),
	STATE_END,
};

const struct state_table ioapic_state = {
	.name = "ioapic",
	.version = 1,
	.min_version = 1,
	.fields = fields,
	.post_load = post_load,
};
