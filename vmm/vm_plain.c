/* SPDX-License-Identifier: GPL-2.0-only */
/* The parts of a VM that exist with and without KVM, and a VM that has only those. */
#include <stdio.h>
#include <stdlib.h>

#include "vm_internal.h"

int vm_init_common(struct vm *vm, struct hako_error *err)
{
	vm->fd = -1;
	for (int i = 0; i < CLASS_KINDS; i++)
		list_init(&vm->objects[i]);
	list_init(&vm->iothreads);
	list_init(&vm->program_disks);
	pthread_mutex_init(&vm->lock, NULL);
	if (bus_init(&vm->pio, "ports") || bus_init(&vm->mmio, "MMIO"))
		return error_errno(err, -ENOMEM, "buses");
	return 0;
}

struct vm_iothread {
	struct list link;
	char *id;
	struct loop *loop;
};

struct loop *vm_find_iothread(struct vm *vm, const char *id)
{
	struct vm_iothread *t;

	list_for_each(t, &vm->iothreads, link)
		if (!strcmp(t->id, id))
			return t->loop;
	return NULL;
}

int vm_iothread(struct vm *vm, const char *id, struct loop **loop, struct hako_error *err)
{
	struct vm_iothread *t;
	char name[16];
	int r;

	if (!id) {
		*loop = vm->io_loop;
		return 0;
	}
	*loop = vm_find_iothread(vm, id);
	if (*loop)
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t || !(t->id = strdup(id))) {
		free(t);
		return error_errno(err, -ENOMEM, "iothread %s", id);
	}
	snprintf(name, sizeof(name), "hako-%.10s", id);
	r = loop_new(&t->loop, name, vm->loop_engine, err);
	if (r) {
		free(t->id);
		free(t);
		return error_prefix(err, "iothread %s", id), r;
	}
	list_add_tail(&t->link, &vm->iothreads);
	*loop = t->loop;
	return 0;
}

int vm_confine_loops(struct vm *vm, struct sandbox *sb, struct hako_error *err)
{
	struct vm_iothread *t;
	int r = loop_confine(vm->io_loop, sb, err);

	list_for_each(t, &vm->iothreads, link)
		if (!r)
			r = loop_confine(t->loop, sb, err);
	return r;
}

static void destroy_late_objects(struct vm *vm)
{
	struct object *obj, *tmp;

	list_for_each_safe(obj, tmp, &vm->objects[CLASS_OBJECT], link)
		if (obj->class->late)
			object_destroy(obj);
}

void vm_destroy_objects(struct vm *vm)
{
	static const enum class_kind order[] = {CLASS_DEVICE,  CLASS_NETDEV, CLASS_BLOCKDEV,
						CLASS_CHARDEV, CLASS_FSDEV,  CLASS_OBJECT,
						CLASS_MACHINE};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		struct list *head = &vm->objects[order[i]];

		while (!list_empty(head))
			object_destroy(list_entry(head->prev, struct object, link));
		/* They look at what is destroyed next. */
		if (order[i] == CLASS_DEVICE)
			destroy_late_objects(vm);
	}
}

void vm_free_loops(struct vm *vm)
{
	while (!list_empty(&vm->iothreads)) {
		struct vm_iothread *t = list_entry(vm->iothreads.next, struct vm_iothread, link);

		list_del(&t->link);
		loop_free(t->loop);
		free(t->id);
		free(t);
	}
	if (vm->io_loop)
		loop_free(vm->io_loop);
	vm->io_loop = NULL;
}

void vm_free_common(struct vm *vm)
{
	bus_free(&vm->pio);
	bus_free(&vm->mmio);
	irq_free(vm);
	memory_free(&vm->mem);
	pthread_mutex_destroy(&vm->lock);
	free(vm->name);
}

int vm_new_plain(struct vm **out, uint64_t ram_size, struct hako_error *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	int r;

	if (!vm)
		return error_errno(err, -ENOMEM, "VM");
	r = vm_init_common(vm, err);
	if (!r)
		r = irq_init(vm, err);
	if (!r && ram_size)
		r = memory_init_plain(&vm->mem, ram_size, err);
	if (!r)
		r = loop_new(&vm->io_loop, "hako-io", vm->loop_engine, err);
	if (r) {
		vm_free_plain(vm);
		return r;
	}
	*out = vm;
	return 0;
}

void vm_free_plain(struct vm *vm)
{
	vm_destroy_objects(vm);
	vm_free_loops(vm);
	vm_free_common(vm);
	free(vm);
}
