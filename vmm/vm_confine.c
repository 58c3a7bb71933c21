/* SPDX-License-Identifier: GPL-2.0-only */
/* hako_vm_confine(): all threads of a VM into the sandbox. */
#include <unistd.h>

#include "sandbox.h"
#include "vcpu.h"
#include "vm_internal.h"

static void log_line(void *opaque, const char *line)
{
	vm_log(opaque, "%s", line);
}

static int collect(struct vm *vm, struct sandbox *sb, struct hako_error *err)
{
	for (int kind = 0; kind < CLASS_KINDS; kind++) {
		struct object *obj;

		list_for_each(obj, &vm->objects[kind], link) {
			const struct class *cls = obj->class;
			int r = 0;

			sandbox_need(sb, cls->needs);
			if (cls->confine)
				r = cls->confine(obj, sb, err);
			if (r)
				return error_prefix(err, "%s", obj->id ?: cls->name);
		}
	}
	return 0;
}

/* The caller's thread is the last, since it makes others. */
static int enter_all(struct vm *vm, struct sandbox *sb, struct hako_error *err)
{
	struct hako_error why;
	int r, r2;

	vcpus_confine(vm, sb);
	r = vm_confine_loops(vm, sb, err) ?: sandbox_confine_loops(sb, err);
	if (!r)
		r = vm_control_confine(vm, sb, err);
	r2 = vcpus_confined(vm, &why);
	if (r2 && !r)
		r = error_set(err, r2, "%s", why.message);
	return r ?: sandbox_enter(sb, SANDBOX_MAIN, err);
}

int vm_confine(struct vm *vm, enum sandbox_mode mode, unsigned int needs, const char *remove,
	       struct hako_error *err)
{
	struct sandbox *sb = NULL;
	int r = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->state != VM_CREATED)
		r = error_set(err, -EINVAL,
			      "a VM is confined before it starts, once it is created");
	if (!r)
		r = sandbox_new(&sb, mode, log_line, vm, err);
	if (!r) {
		sandbox_need(sb, needs);
		r = collect(vm, sb, err);
	}
	if (!r && loop_engine(vm->io_loop) == LOOP_THREADS)
		sandbox_need(sb, SANDBOX_EPOLL);
	if (!r && remove && (r = sandbox_allow_removal(sb, remove)))
		error_errno(err, r, "%s", remove);
	if (!r)
		r = sandbox_ready(sb, err);
	if (!r)
		r = enter_all(vm, sb, err);
	sandbox_free(sb);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

int hako_vm_confine(struct hako_vm *vm, const char *mode, struct hako_error *err)
{
	for (int i = SANDBOX_ON; sandbox_mode_names[i]; i++)
		if (!strcmp(mode, sandbox_mode_names[i]))
			return vm_confine((struct vm *)vm, i, 0, NULL, err);
	return error_set(err, -EINVAL, "%s: a VM is confined \"on\" or \"strict\"", mode);
}
