/* SPDX-License-Identifier: GPL-2.0-only */
#include "vm.h"

#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "balloon.h"
#include "config.h"
#include "devices/char/char.h"
#include "events.h"
#include "kvm.h"
#include "machine.h"
#include "numa.h"
#include "pin.h"
#include "vcpu.h"
#include "vm_internal.h"

/* The public handle is the VM itself. */
static struct vm *to_vm(struct hako_vm *vm)
{
	return (struct vm *)vm;
}

const char *hako_version(void)
{
	return HAKO_VERSION;
}

int hako_vm_new(struct hako_vm **out, struct hako_error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm || !(vm->config = calloc(1, sizeof(*vm->config)))) {
		free(vm);
		return error_errno(err, -ENOMEM, "VM");
	}
	r = vm_init_common(vm, err);
	if (!r)
		r = vm_events_new(vm, err);
	if (!r)
		r = vm_control_new(vm, err);
	if (!r)
		r = options_defaults(vm_config_options, vm->config, err);
	if (r) {
		hako_vm_destroy((struct hako_vm *)vm);
		return r;
	}
	*out = (struct hako_vm *)vm;
	return 0;
}

int hako_vm_set(struct hako_vm *handle, const char *option, const char *value,
		struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	struct keyvals kv = {0};
	int r = keyvals_add(&kv, option, value);

	if (r)
		return error_errno(err, r, "--%s", option);
	pthread_mutex_lock(&vm->lock);
	if (vm->state != VM_NEW)
		r = error_set(err, -EBUSY, "--%s: the VM has been created already", option);
	else if ((r = options_apply(vm_config_options, vm->config, &kv, true, err)))
		error_prefix(err, "--%s", option);
	pthread_mutex_unlock(&vm->lock);
	keyvals_free(&kv);
	return r;
}

void hako_vm_set_event(struct hako_vm *vm,
		       void (*event)(void *opaque, enum hako_event event, const char *message),
		       void *opaque)
{
	vm_events_set_callback(to_vm(vm), event, opaque);
}

void hako_vm_set_log(struct hako_vm *vm, void (*log)(void *opaque, const char *line), void *opaque)
{
	vm_control_set_log(to_vm(vm), log, opaque);
}

/* --- creation -------------------------------------------------------------------------------- */

static int create_kvm(struct vm *vm, struct hako_error *err)
{
	int r = kvm_open(&vm->kvm, vm->config->kvm, err);

	if (r)
		return r;
	if (vm->config->ncpus > vm->kvm->max_vcpus)
		return error_set(err, -ERANGE, "--cpus %u: this host's KVM allows at most %u",
				 vm->config->ncpus, vm->kvm->max_vcpus);
	do {
		vm->fd = ioctl(vm->kvm->fd, KVM_CREATE_VM, 0);
	} while (vm->fd < 0 && errno == EINTR);
	if (vm->fd < 0)
		return error_errno(err, -errno, "%s: creating a VM", vm->config->kvm);
	return 0;
}

static int create_machine(struct vm *vm, struct hako_error *err)
{
	const char *text = vm->config->machine;
	struct keyvals kv = {0};
	const struct class *cls;
	struct object *obj;
	const char *type;
	int r;

	r = keyvals_parse(&kv, text, "type", err);
	type = r ? NULL : keyvals_take(&kv, "type");
	if (!r)
		r = type ? class_get(CLASS_MACHINE, type, &cls, err)
			 : error_set(err, -EINVAL, "type=… is missing");
	if (!r)
		r = object_new(vm, cls, &kv, &obj, err);
	keyvals_free(&kv);
	if (r) {
		error_prefix(err, "--machine %s", text);
		return r;
	}
	vm->machine = (struct machine *)obj;
	return 0;
}

static void reset_objects(struct vm *vm)
{
	for (int kind = 0; kind < CLASS_KINDS; kind++) {
		struct object *obj;

		list_for_each(obj, &vm->objects[kind], link)
			if (obj->class->reset)
				obj->class->reset(obj);
	}
}

static int create_all(struct vm *vm, struct hako_error *err)
{
	const struct machine_ops *ops;
	int r;

	r = config_finish(vm->config, err);
	if (!r)
		r = create_kvm(vm, err);
	if (!r)
		r = create_machine(vm, err);
	if (r)
		return r;
	ops = machine_ops(vm->machine);
	vm->mem.options = vm->config->mem;
	r = irq_init(vm, err);
	if (!r)
		r = ops->init(vm, vm->config->ram_size, err);
	if (!r)
		r = vcpus_new(vm, vm->config->ncpus, err);
	if (!r)
		r = vm_control_start(vm, err);
	if (!r)
		r = loop_new(&vm->io_loop, "hako-io", vm->loop_engine, err);
	if (!r && ops->devices)
		r = ops->devices(vm, err);
	if (!r)
		r = config_create_objects(vm, err);
	if (!r)
		r = vcpus_ready(vm, err);
	if (!r)
		r = pin_threads(vm, err);
	if (!r && vm->config->nodes)
		r = numa_bind(vm->config->nodes, &vm->mem, err);
	if (!r && (r = memory_prepare(vm, err)))
		error_prefix(err, "--memory %s", vm->config->memory);
	if (r)
		return r;
	reset_objects(vm);
	return ops->boot(vm, true, err);
}

int hako_vm_create(struct hako_vm *handle, struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	struct hako_error why = {0};
	int r;

	err = err ?: &why;
	pthread_mutex_lock(&vm->lock);
	if (vm->state != VM_NEW) {
		r = error_set(err, -EBUSY, "the VM has been created already");
	} else {
		vm->loop_engine = vm->config->loop;
		if (vm->config->name)
			vm->name = strdup(vm->config->name);
		r = create_all(vm, err);
		if (r)
			vm_control_end(vm, HAKO_EXIT_ERROR, 1, err->message);
		else
			vm->state = VM_CREATED;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* --- running --------------------------------------------------------------------------------- */

/* Devices before what they use, and of one kind the later before the earlier: what stands on another was made after it. */
static void pause_objects(struct vm *vm)
{
	static const enum class_kind order[] = {CLASS_MACHINE, CLASS_DEVICE, CLASS_NETDEV,
						CLASS_BLOCKDEV, CLASS_CHARDEV};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		struct list *head = &vm->objects[order[i]];

		for (struct list *l = head->prev; l != head; l = l->prev) {
			struct object *obj = list_entry(l, struct object, link);

			if (obj->class->pause)
				obj->class->pause(obj);
		}
	}
}

static void resume_objects(struct vm *vm)
{
	static const enum class_kind order[] = {CLASS_CHARDEV, CLASS_BLOCKDEV, CLASS_NETDEV,
						CLASS_DEVICE, CLASS_MACHINE};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		struct object *obj;

		list_for_each(obj, &vm->objects[order[i]], link)
			if (obj->class->resume)
				obj->class->resume(obj);
	}
}

void vm_pause_locked(struct vm *vm)
{
	vcpus_pause(vm);
	pause_objects(vm);
	vm->state = VM_PAUSED;
}

void vm_resume_locked(struct vm *vm)
{
	vm_control_forget_error(vm);
	resume_objects(vm);
	vm->state = VM_RUNNING;
	vcpus_resume(vm);
	vm_control_touch(vm);
}

int vm_reset_locked(struct vm *vm, struct hako_error *err)
{
	const struct machine_ops *ops = machine_ops(vm->machine);
	int r;

	reset_objects(vm);
	r = ops->reset(vm, err);
	if (!r)
		r = ops->boot(vm, false, err);
	if (r)
		error_prefix(err, "reset");
	return r;
}

static int not_there(struct vm *vm, struct hako_error *err)
{
	return vm->state == VM_ENDED ? error_set(err, -ESHUTDOWN, "the VM has ended")
				     : error_set(err, -EINVAL, "the VM has not been created");
}

static bool alive(const struct vm *vm)
{
	return vm->state != VM_NEW && vm->state != VM_ENDED;
}

int hako_vm_start(struct hako_vm *handle, struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	if (!alive(vm))
		r = not_there(vm, err);
	else if (vm->state != VM_RUNNING)
		vm_resume_locked(vm);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hako_vm_pause(struct hako_vm *handle, struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	if (!alive(vm))
		r = not_there(vm, err);
	else if (vm->state == VM_RUNNING)
		vm_pause_locked(vm);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static int request(struct vm *vm, enum vm_request_kind kind, struct hako_error *err)
{
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	if (!alive(vm)) {
		r = not_there(vm, err);
	} else {
		vm_control_take(vm); /* what the guest asked for before must not be in the way */
		vm_request(vm, kind, 0);
		vm_control_take(vm);
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hako_vm_reset(struct hako_vm *vm, struct hako_error *err)
{
	return request(to_vm(vm), VM_REQUEST_RESET, err);
}

int hako_vm_stop(struct hako_vm *vm, struct hako_error *err)
{
	return request(to_vm(vm), VM_REQUEST_STOP, err);
}

int hako_vm_powerdown(struct hako_vm *handle, struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	const struct machine_ops *ops;
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	ops = vm->machine ? machine_ops(vm->machine) : NULL;
	if (!alive(vm))
		r = not_there(vm, err);
	else if (!ops->powerdown || ops->powerdown(vm))
		r = error_set(err, -EOPNOTSUPP, "this board has no power button");
	pthread_mutex_unlock(&vm->lock);
	return r;
}

static int balloon(struct vm *vm, struct hako_error *err)
{
	if (!alive(vm))
		return not_there(vm, err);
	return vm->balloon ? 0 : error_set(err, -ENODEV, "the VM has no balloon (--balloon)");
}

int hako_vm_balloon(struct hako_vm *handle, uint64_t bytes, struct hako_error *err)
{
	struct vm *vm = to_vm(handle);
	int r;

	pthread_mutex_lock(&vm->lock);
	r = balloon(vm, err);
	if (!r && (!bytes || bytes > vm->mem.ram_size))
		r = error_set(err, -ERANGE, "%llu bytes: the guest has %llu",
			      (unsigned long long)bytes, (unsigned long long)vm->mem.ram_size);
	if (!r)
		vm->balloon->ops->set(vm->balloon, bytes);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hako_vm_balloon_info(struct hako_vm *handle, struct hako_balloon_info *info,
			 struct hako_error *err)
{
	struct hako_balloon_info all = {.size = info->size};
	struct vm *vm = to_vm(handle);
	int r;

	pthread_mutex_lock(&vm->lock);
	r = balloon(vm, err);
	if (!r) {
		vm->balloon->ops->query(vm->balloon, &all);
		memcpy(info, &all, MIN(info->size, sizeof(all)));
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hako_vm_wait(struct hako_vm *handle, int timeout_ms, struct hako_exit_info *info,
		 struct hako_error *err)
{
	int r = vm_control_wait(to_vm(handle), timeout_ms, info);

	return r ? error_set(err, r, "the VM still runs") : 0;
}

int hako_vm_end_fd(struct hako_vm *vm)
{
	return vm_control_end_fd(to_vm(vm));
}

static const char *chardev_get(const struct chardev *chr, const char *property)
{
	if (!strcmp(property, "console"))
		return chr->path;
	if (!strcmp(property, "terminal") && chr->terminal)
		return chr->terminal == CHARDEV_TERMINAL_RAW ? "raw" : "signals";
	return NULL;
}

/* QEMU's RunState. */
static const char *status(const struct vm *vm)
{
	switch (vm->state) {
	case VM_NEW:
	case VM_CREATED:
		return "prelaunch";
	case VM_RUNNING:
		return vcpus_holding((struct vm *)vm) ? "debug" : "running";
	case VM_PAUSED:
		return vm->io_error ? "io-error" : "paused";
	case VM_ENDED:
		break;
	}
	return "shutdown";
}

const char *hako_vm_get(struct hako_vm *handle, const char *property)
{
	struct vm *vm = to_vm(handle);
	const char *value = NULL;
	struct object *obj;

	pthread_mutex_lock(&vm->lock);
	if (!strcmp(property, "status"))
		value = status(vm);
	list_for_each(obj, &vm->objects[CLASS_CHARDEV], link) {
		if (value)
			break;
		value = chardev_get(container_of(obj, struct chardev, obj), property);
		if (value)
			break;
	}
	pthread_mutex_unlock(&vm->lock);
	return value;
}

void hako_vm_destroy(struct hako_vm *handle)
{
	struct vm *vm = to_vm(handle);

	if (!vm)
		return;
	pthread_mutex_lock(&vm->lock);
	if (vm->state == VM_RUNNING)
		vm_pause_locked(vm);
	vm->state = VM_ENDED;
	pthread_mutex_unlock(&vm->lock);
	if (vm->control)
		vm_control_stop(vm);
	vm_destroy_objects(vm);
	vm->machine = NULL;
	vm_free_loops(vm);
	vcpus_free(vm);
	vm_free_common(vm);
	vm_control_free(vm);
	vm_events_free(vm);
	vm_free_program_disks(vm);
	if (vm->fd >= 0)
		close(vm->fd);
	kvm_close(vm->kvm);
	numa_free(vm->config->nodes);
	config_free_rtc(&vm->config->rtc_options);
	options_free(vm_config_options, vm->config);
	free(vm->config);
	free(vm);
}

/* --- for devices ----------------------------------------------------------------------------- */

int vm_ioeventfd(struct vm *vm, bool pio, uint64_t addr, unsigned int size, const uint64_t *match,
		 int fd, bool assign, struct hako_error *err)
{
	struct kvm_ioeventfd arg = {
		.addr = addr,
		.len = size,
		.fd = fd,
		.datamatch = match ? *match : 0,
		.flags = (pio ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (assign ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	if (vm->fd < 0)
		return 0;
	if (ioctl(vm->fd, KVM_IOEVENTFD, &arg) < 0)
		return error_errno(err, -errno, "KVM: doorbell at 0x%llx",
				   (unsigned long long)addr);
	return 0;
}
