/* SPDX-License-Identifier: GPL-2.0-only */
#include "board.h"

#include <stdlib.h>
#include <sys/ioctl.h>

#include "cpu.h"
#include "devices/platform/fw_cfg.h"
#include "vmm/config.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"

/* Three pages that KVM needs on Intel CPUs without unrestricted guest mode, just below the firmware's place. */
#define IDENTITY_MAP_GPA 0xfffbc000ull
#define TSS_GPA		 0xfffbd000ul

_Static_assert(IOAPIC_PINS == IRQ_PINS, "a GSI is a pin");

static int vm_ioctl(struct vm *vm, unsigned long request, void *arg, const char *what,
		    struct hako_error *err)
{
	return ioctl(vm->fd, request, arg) < 0 ? error_errno(err, -errno, "KVM: %s", what) : 0;
}

void board_destroy(struct object *obj)
{
	struct board *b = container_of(obj, struct board, machine.obj);

	if (b->ioapic.ops) {
		bus_remove(&obj->vm->mmio, BOARD_IOAPIC_BASE, &b->ioapic);
		irq_use_chip(obj->vm, NULL, NULL);
	}
	boot_close(b->boot);
}

static int open_kernel(struct vm *vm, struct hako_error *err)
{
	const struct vm_config *c = vm->config;
	struct boot_config boot = {
		.kernel = c->kernel,
		.initrd = c->initrd,
		.append = c->append,
		.decompress = c->decompress,
	};

	return boot_open(&boot, &board_of(vm)->boot, err);
}

/* --- interrupt controllers ------------------------------------------------------------------- */

/* Messages, of the IOAPIC and of devices, to APIC IDs of 15 bits. */
static bool reaches_long_ids(struct vm *vm)
{
	return board_of(vm)->irqchip == BOARD_IRQCHIP_SPLIT && vm->kvm->cap[KVM_HAS_X2APIC_API];
}

/* What has to be said before the interrupt controllers are made. */
static int prepare_kvm(struct vm *vm, struct hako_error *err)
{
	struct kvm_enable_cap x2apic = {
		.cap = KVM_CAP_X2APIC_API,
		.args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK},
	};
	/* A vCPU may be stopped between its triple fault and the exit for it: so that a reset takes it back. */
	struct kvm_enable_cap triple_fault = {
		.cap = KVM_CAP_X86_TRIPLE_FAULT_EVENT,
		.args = {1},
	};
	uint64_t identity_map = IDENTITY_MAP_GPA;
	struct kvm *kvm = vm->kvm;
	int r = 0;

	if (kvm->cap[KVM_HAS_IDENTITY_MAP])
		r = vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map, "identity map", err);
	if (!r && kvm->cap[KVM_HAS_TSS_ADDR])
		r = vm_ioctl(vm, KVM_SET_TSS_ADDR, (void *)TSS_GPA, "TSS", err);
	if (!r && kvm->cap[KVM_HAS_X2APIC_API])
		r = vm_ioctl(vm, KVM_ENABLE_CAP, &x2apic, "x2APIC", err);
	if (!r && kvm->cap[KVM_HAS_TRIPLE_FAULT_EVENT])
		r = vm_ioctl(vm, KVM_ENABLE_CAP, &triple_fault, "triple faults", err);
	return r ?: cpu_setup_vm(vm, err);
}

static int make_kvm_irqchip(struct vm *vm, struct hako_error *err)
{
	struct board *b = board_of(vm);
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	int r = vm_ioctl(vm, KVM_CREATE_IRQCHIP, NULL, "interrupt controllers", err);

	b->has_pit = vm->kvm->cap[KVM_HAS_PIT2];
	if (!r && b->has_pit)
		r = vm_ioctl(vm, KVM_CREATE_PIT2, &pit, "PIT", err);
	if (!r)
		r = irq_use_kvm(vm, b->has_pit, err);
	for (uint32_t i = 0; i < ARRAY_SIZE(b->chip) && !r; i++) {
		b->chip[i].chip_id = i;
		r = vm_ioctl(vm, KVM_GET_IRQCHIP, &b->chip[i], "interrupt controllers", err);
	}
	if (!r && b->has_pit)
		r = vm_ioctl(vm, KVM_GET_PIT2, &b->pit, "PIT", err);
	return r;
}

static bool send_message(void *opaque, uint64_t address, uint32_t data)
{
	return irq_send(opaque, address, data);
}

static void watch_pin(void *opaque, uint32_t pin, uint64_t address, uint32_t data)
{
	int r = irq_watch_pin(opaque, pin, address, data);

	if (r)
		vm_log(opaque, "IOAPIC: pin %u: KVM: %s", pin, strerrordesc_np(-r));
}

static void unwatch_pin(void *opaque, uint32_t pin)
{
	irq_unwatch_pin(opaque, pin);
}

static void chip_set_pin(void *opaque, uint32_t pin, bool level)
{
	ioapic_set_pin(opaque, pin, level);
}

static void chip_eoi(void *opaque, uint8_t vector)
{
	ioapic_eoi(opaque, vector);
}

/*
 * Making KVM's own puts them on its I/O buses, for which the next memory region, or the end of the VM, waits until all CPUs of the
 * host have been elsewhere: some 10 ms. Local APICs alone are not on them.
 */
static int make_split_irqchip(struct vm *vm, struct hako_error *err)
{
	static const struct ioapic_ops ops = {send_message, watch_pin, unwatch_pin};
	static const struct irq_chip chip = {chip_set_pin, chip_eoi};
	struct board *b = board_of(vm);
	const struct io_region region = {
		.name = "IOAPIC",
		.base = BOARD_IOAPIC_BASE,
		.size = IOAPIC_SIZE,
		.ops = &ioapic_io_ops,
		.opaque = &b->ioapic,
		.lock = &vm->irq.lock,
	};
	struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IOAPIC_PINS}};
	int r;

	if (!vm->kvm->cap[KVM_HAS_SPLIT_IRQCHIP])
		return error_set(err, -ENOTSUP,
				 "%s: this kernel's KVM lacks KVM_CAP_SPLIT_IRQCHIP, which board "
				 "micro and kernel-irqchip=split need (Linux 4.4)",
				 vm->config->kvm);
	r = vm_ioctl(vm, KVM_ENABLE_CAP, &split, "local APICs", err);
	if (r)
		return r;
	vm->irq.ext_dest = reaches_long_ids(vm);
	ioapic_init(&b->ioapic, &ops, vm);
	irq_use_chip(vm, &chip, &b->ioapic);
	return bus_add(&vm->mmio, &region, err);
}

int board_reset(struct vm *vm, struct hako_error *err)
{
	struct board *b = board_of(vm);
	int r = 0;

	if (b->irqchip == BOARD_IRQCHIP_SPLIT) {
		pthread_mutex_lock(&vm->irq.lock);
		ioapic_reset(&b->ioapic);
		pthread_mutex_unlock(&vm->irq.lock);
		return 0;
	}
	for (uint32_t i = 0; i < ARRAY_SIZE(b->chip) && !r; i++)
		r = vm_ioctl(vm, KVM_SET_IRQCHIP, &b->chip[i], "interrupt controllers", err);
	if (!r && b->has_pit)
		r = vm_ioctl(vm, KVM_SET_PIT2, &b->pit, "PIT", err);
	return r;
}

/* --- RAM ------------------------------------------------------------------------------------- */

static int make_ram(struct vm *vm, struct hako_error *err)
{
	struct board *b = board_of(vm);
	int r = memory_add_ram(vm, 0, b->low_ram, err);

	if (!r && b->high_ram)
		r = memory_add_ram(vm, BOARD_HIGH_RAM, b->high_ram, err);
	return r ?: memory_attach(vm, err);
}

/* KVM's IOAPIC and its MSIs know destinations of 8 bits, of which 255 is all. */
static int check_cpus(struct vm *vm, struct hako_error *err)
{
	const struct vm_config *c = vm->config;
	uint32_t last = cpu_apic_id(&c->topology, c->ncpus - 1);
	int max_id = ioctl(vm->kvm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID);

	if (max_id > 0 && last >= (uint32_t)max_id)
		return error_set(err, -ERANGE,
				 "--cpus %s: the last APIC ID is %u, this host's KVM allows less "
				 "than %d",
				 c->cpus, last, max_id);
	if (!cpu_has_long_ids(vm))
		return 0;
	if (board_of(vm)->irqchip != BOARD_IRQCHIP_SPLIT)
		return error_set(err, -EINVAL,
				 "--cpus %s: APIC IDs up to %u; more than %u need "
				 "kernel-irqchip=split",
				 c->cpus, last, APIC_8BIT_IDS - 1);
	if (!vm->kvm->cap[KVM_HAS_X2APIC_API])
		return error_set(err, -ENOTSUP,
				 "--cpus %s: APIC IDs of more than 8 bits need a KVM with "
				 "KVM_CAP_X2APIC_API",
				 c->cpus);
	return 0;
}

/*
 * RAM before the interrupt controllers: for a change of the memory map KVM waits until nobody uses the old one, and what is on its I/O
 * buses by then makes that milliseconds.
 */
int board_init(struct vm *vm, uint64_t ram_size, uint64_t low_max, struct hako_error *err)
{
	struct board *b = board_of(vm);
	int r;

	b->low_ram = MIN(ram_size, low_max);
	b->high_ram = ram_size - b->low_ram;
	r = cpu_setup(vm, reaches_long_ids(vm), &b->address_limit, err);
	if (r)
		return r;
	if (b->high_ram > b->address_limit - BOARD_HIGH_RAM)
		return error_set(err, -ERANGE,
				 "--memory %s: more than this CPU can address (%llu GiB)",
				 vm->config->memory, (unsigned long long)(b->address_limit / GiB));
	r = check_cpus(vm, err);
	if (!r)
		r = open_kernel(vm, err);
	if (!r && (r = make_ram(vm, err)))
		error_prefix(err, "--memory %s", vm->config->memory);
	if (!r)
		r = prepare_kvm(vm, err);
	if (r)
		return r;
	return b->irqchip == BOARD_IRQCHIP_SPLIT ? make_split_irqchip(vm, err)
						 : make_kvm_irqchip(vm, err);
}

int board_e820(struct vm *vm, struct e820 *map, struct hako_error *err)
{
	struct board *b = board_of(vm);
	int r;

	r = e820_add(map, 0, b->low_ram, 1);
	if (!r && b->high_ram)
		r = e820_add(map, BOARD_HIGH_RAM, b->high_ram, 1);
	if (!r)
		r = e820_add(map, BOOT_EBDA_GPA, 0x100000 - BOOT_EBDA_GPA, 2);
	return r ? error_errno(err, r, "memory map") : 0;
}

/* --- devices and boot ------------------------------------------------------------------------ */

static int make_device(struct vm *vm, const char *text, struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	const char *name;
	int r;

	r = keyvals_parse(&kv, text, "driver", err);
	name = r ? NULL : keyvals_take(&kv, "driver");
	cls = name ? class_find(CLASS_DEVICE, name) : NULL;
	if (!r)
		r = cls ? object_new(vm, cls, &kv, NULL, err)
			: error_set(err, -ENODEV, "%s is not built in", text);
	keyvals_free(&kv);
	return r;
}

static int add_fw_cfg(struct vm *vm, struct hako_error *err)
{
	struct fw_cfg *fw = vm->fw_cfg;
	int r;

	r = fw_cfg_add_u64(fw, FW_CFG_RAM_SIZE, vm->mem.ram_size);
	if (!r)
		r = fw_cfg_add_u16(fw, FW_CFG_NB_CPUS, vm->nvcpus);
	if (!r)
		r = fw_cfg_add_u16(fw, FW_CFG_MAX_CPUS,
				   cpu_apic_id(&vm->config->topology, vm->nvcpus - 1) + 1);
	if (!r)
		r = fw_cfg_add_u16(fw, FW_CFG_NOGRAPHIC, 1);
	return r ? error_errno(err, r, "fw_cfg") : 0;
}

int board_make_devices(struct vm *vm, const char *const *devices, struct hako_error *err)
{
	int r = 0;

	for (; *devices && !r; devices++)
		r = make_device(vm, *devices, err);
	return r ?: add_fw_cfg(vm, err);
}

struct object *board_find_device(struct vm *vm, const char *class)
{
	struct object *obj;

	list_for_each(obj, &vm->objects[CLASS_DEVICE], link)
		if (!strcmp(obj->class->name, class))
			return obj;
	return NULL;
}

/* What the user added and the tables have to show. */
static void describe_user_devices(struct vm *vm, struct acpi_config *config)
{
	struct object *obj;

	list_for_each(obj, &vm->objects[CLASS_DEVICE], link) {
		if (!strcmp(obj->class->name, "pvpanic"))
			config->pvpanic_port = object_get_uint(obj, "ioport");
		else if (!strcmp(obj->class->name, "isa-serial"))
			config->com[object_get_uint(obj, "index") & 3] = (struct acpi_com){
				object_get_uint(obj, "iobase"), object_get_uint(obj, "irq")};
	}
}

int board_acpi(struct vm *vm, struct acpi_config *config, struct e820 *map, uint64_t *rsdp,
	       struct hako_error *err)
{
	uint32_t *apic_id = calloc(vm->nvcpus, sizeof(*apic_id));
	int r;

	if (!apic_id)
		return error_errno(err, -ENOMEM, "ACPI tables");
	for (uint32_t i = 0; i < vm->nvcpus; i++)
		apic_id[i] = cpu_apic_id(&vm->config->topology, i);
	config->apic_id = apic_id;
	config->ncpus = vm->nvcpus;
	config->lapic_base = BOARD_LAPIC_BASE;
	config->ioapic_base = BOARD_IOAPIC_BASE;
	config->numa = vm->config->nodes;
	config->low_ram = board_of(vm)->low_ram;
	describe_user_devices(vm, config);
	r = acpi_install(config, &vm->mem, map, rsdp, err);
	free(apic_id);
	return r;
}

int board_boot(struct vm *vm, const struct e820 *map, uint64_t rsdp, bool fresh,
	       struct hako_error *err)
{
	struct boot_entry entry;
	int r;

	r = boot_install(board_of(vm)->boot, &vm->mem, map, rsdp, &entry, err);
	for (uint32_t i = 0; i < vm->nvcpus && !r; i++)
		r = cpu_reset(&vm->vcpu[i], i == 0 ? &entry : NULL, fresh, err);
	for (size_t i = 0; i < ARRAY_SIZE(entry.soon) && fresh && !r; i++)
		vm_touch_soon(vm, entry.soon[i].gpa, entry.soon[i].len);
	return r;
}
