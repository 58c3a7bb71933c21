/* SPDX-License-Identifier: GPL-2.0-only */
/* Guest memory, and devices of the program that holds the VM: registers and messages. */
#include <stdlib.h>

#include "vmm/vm.h"

static struct vm *to_vm(struct hako_vm *vm)
{
	return (struct vm *)vm;
}

/* --- memory ------------------------------------------------------------------------------------ */

/* Without vm->lock: whoever holds that may wait for the callback that we come from. The map is constant once the VM is created. */
static int check_range(const struct vm *vm, uint64_t gpa, uint64_t len, int r,
		       struct hako_error *err)
{
	if (!vm->mem.nregions)
		return error_set(err, -EINVAL, "the VM has not been created");
	return r ? error_set(err, r, "0x%llx, %llu bytes: not all of it is RAM",
			     (unsigned long long)gpa, (unsigned long long)len)
		 : 0;
}

int hako_vm_read_memory(struct hako_vm *handle, uint64_t gpa, void *buf, size_t len,
			struct hako_error *err)
{
	struct vm *vm = to_vm(handle);

	return check_range(vm, gpa, len, memory_read(&vm->mem, gpa, buf, len), err);
}

int hako_vm_write_memory(struct hako_vm *handle, uint64_t gpa, const void *buf, size_t len,
			 struct hako_error *err)
{
	struct vm *vm = to_vm(handle);

	return check_range(vm, gpa, len, memory_write(&vm->mem, gpa, buf, len), err);
}

/* --- registers --------------------------------------------------------------------------------- */

struct program_region {
	struct object obj;
	struct hako_region region;
	pthread_mutex_t lock;
};

static uint64_t region_read(void *opaque, uint64_t offset, unsigned int size)
{
	const struct hako_region *r = opaque;

	return r->read ? r->read(r->opaque, offset, size) : UINT64_MAX;
}

static void region_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	const struct hako_region *r = opaque;

	if (r->write)
		r->write(r->opaque, offset, value, size);
}

static const struct io_ops region_ops = {region_read, region_write};

static struct bus *bus_of(struct program_region *p)
{
	return p->region.space == HAKO_PORTS ? &p->obj.vm->pio : &p->obj.vm->mmio;
}

static int region_create(struct object *obj, struct hako_error *err)
{
	struct program_region *p = container_of(obj, struct program_region, obj);

	pthread_mutex_init(&p->lock, NULL);
	return 0;
}

static void region_destroy(struct object *obj)
{
	struct program_region *p = container_of(obj, struct program_region, obj);

	if (p->region.length)
		bus_remove(bus_of(p), p->region.base, &p->region);
	pthread_mutex_destroy(&p->lock);
}

static const struct class region_class = {
	.name = "program-region",
	.help = "registers that are served by the program which holds the VM",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct program_region),
	.internal = true,
	.create = region_create,
	.destroy = region_destroy,
};
HAKO_CLASS(region_class);

/* What KVM has as RAM never comes to us. */
static bool hits_ram(const struct memory *mem, const struct hako_region *r)
{
	for (unsigned int i = 0; r->space == HAKO_MMIO && i < mem->nregions; i++)
		if (mem->region[i].gpa < r->base + r->length &&
		    r->base < mem->region[i].gpa + mem->region[i].size)
			return true;
	return false;
}

static int check_region(const struct vm *vm, const struct hako_region *r, struct hako_error *err)
{
	uint64_t end = r->space == HAKO_PORTS ? 0x10000 : UINT64_MAX;

	if (r->size < sizeof(*r))
		return error_set(err, -EINVAL, "struct hako_region: size is not set");
	if (vm->state == VM_NEW || vm->state == VM_ENDED)
		return error_set(err, -EINVAL, "regions are added once the VM is created");
	if (r->space != HAKO_PORTS && r->space != HAKO_MMIO)
		return error_set(err, -EINVAL, "region: neither ports nor MMIO");
	if (!r->length || r->base >= end || r->length > end - r->base)
		return error_set(err, -EINVAL, "region at 0x%llx: empty, or too long",
				 (unsigned long long)r->base);
	if (hits_ram(&vm->mem, r))
		return error_set(err, -EEXIST, "region at 0x%llx: there is RAM",
				 (unsigned long long)r->base);
	return 0;
}

static int add_region(struct vm *vm, const struct hako_region *region, struct hako_error *err)
{
	struct program_region *p;
	struct object *obj;
	struct io_region io = {
		.name = "the program's region",
		.base = region->base,
		.size = region->length,
		.ops = &region_ops,
	};
	int r = check_region(vm, region, err);

	if (!r)
		r = object_new(vm, &region_class, NULL, &obj, err);
	if (r)
		return r;
	p = container_of(obj, struct program_region, obj);
	p->region = *region;
	io.opaque = &p->region;
	io.lock = &p->lock;
	r = bus_add(bus_of(p), &io, err);
	if (r) {
		p->region.length = 0; /* it is not there */
		object_destroy(obj);
	}
	return r;
}

int hako_vm_add_region(struct hako_vm *handle, const struct hako_region *region,
		       struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	int r;

	pthread_mutex_lock(&vm->lock);
	r = add_region(vm, region, err);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* --- messages ---------------------------------------------------------------------------------- */

int hako_vm_send_msi(struct hako_vm *handle, uint64_t address, uint32_t data,
		     struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	bool taken;

	if (!vm->mem.nregions)
		return error_set(err, -EINVAL, "the VM has not been created");
	pthread_mutex_lock(&vm->irq.lock);
	taken = irq_send(vm, address, data);
	pthread_mutex_unlock(&vm->irq.lock);
	return taken ? 0
		     : error_set(err, -ENODEV, "MSI 0x%x to 0x%llx: no local APIC took it", data,
				 (unsigned long long)address);
}
