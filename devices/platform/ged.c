/* SPDX-License-Identifier: GPL-2.0-only */
#include "ged.h"

#include "vmm/vm.h"

#define EVENT_SEL_SIZE 4
#define REGS_SIZE      3
#define SLEEP_CTL      0
#define RESET	       2

/* SLEEP_CONTROL_REG: ACPI 6.4, table 4.19. */
#define SLP_TYP(v) ((v) >> 2 & 7)
#define SLP_EN	   BIT(5)

struct ged {
	struct object obj;
	uint32_t event_sel; /* atomic */
	struct irq_line line;
};

void ged_power_button(struct object *obj)
{
	struct ged *ged = (struct ged *)obj;

	__atomic_fetch_or(&ged->event_sel, GED_EVENT_POWER, __ATOMIC_SEQ_CST);
	irq_line_pulse(&ged->line);
}

static uint64_t event_sel_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct ged *ged = opaque;

	if (offset)
		return 0;
	return __atomic_exchange_n(&ged->event_sel, 0, __ATOMIC_SEQ_CST);
}

static void event_sel_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
}

static uint64_t regs_read(void *opaque, uint64_t offset, unsigned int size)
{
	return 0;
}

static void regs_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct ged *ged = opaque;
	uint8_t byte = value;

	if (offset == SLEEP_CTL && (byte & SLP_EN)) {
		if (SLP_TYP(byte) == GED_SLP_TYP_S5)
			vm_request(ged->obj.vm, VM_REQUEST_POWEROFF, 0);
		else
			vm_guest_error(ged->obj.vm,
				       "ACPI: the guest asks for sleep type %u, which there is not",
				       SLP_TYP(byte));
	} else if (offset == RESET && byte == GED_RESET_VALUE) {
		vm_request(ged->obj.vm, VM_REQUEST_RESET, 0);
	}
}

static const struct io_ops event_sel_ops = {event_sel_read, event_sel_write};
static const struct io_ops regs_ops = {regs_read, regs_write};

static int ged_create(struct object *obj, struct hako_error *err)
{
	struct ged *ged = (struct ged *)obj;
	struct bus *mmio = &obj->vm->mmio;
	const struct io_region event_sel = {
		.name = "GED events",
		.base = GED_EVENT_SEL,
		.size = EVENT_SEL_SIZE,
		.ops = &event_sel_ops,
		.opaque = ged,
	};
	const struct io_region regs = {
		.name = "ACPI sleep and reset registers",
		.base = GED_SLEEP_CTL,
		.size = REGS_SIZE,
		.ops = &regs_ops,
		.opaque = ged,
	};
	int r = bus_add(mmio, &event_sel, err);

	if (r)
		return r;
	r = bus_add(mmio, &regs, err);
	if (r) {
		bus_remove(mmio, GED_EVENT_SEL, ged);
		return r;
	}
	irq_line_init(&ged->line, obj->vm, GED_GSI);
	return 0;
}

static void ged_destroy(struct object *obj)
{
	bus_remove(&obj->vm->mmio, GED_EVENT_SEL, obj);
	bus_remove(&obj->vm->mmio, GED_SLEEP_CTL, obj);
}

static void ged_reset(struct object *obj)
{
	((struct ged *)obj)->event_sel = 0;
}

static const struct state_field ged_fields[] = {
	STATE_FIELD_UINT(struct ged, event_sel),
	STATE_END,
};

static const struct state_table ged_state = {
	.name = "acpi-ged",
	.version = 1,
	.min_version = 1,
	.fields = ged_fields,
};

static const struct class ged_class = {
	.name = "acpi-ged",
	.help = "ACPI generic event device: power button, power-off, reset",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct ged),
	.internal = true,
	.state = &ged_state,
	.create = ged_create,
	.destroy = ged_destroy,
	.reset = ged_reset,
};
HAKO_CLASS(ged_class);
