/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The control thread: it carries out what guests and devices ask for, since those who ask (a vCPU, a loop) could not wait for the
 * vCPUs and loops that have to stop first. And it keeps how the VM ended.
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "events.h"
#include "sandbox.h"
#include "vcpu.h"
#include "vm_internal.h"

#define LOG_PER_SECOND 100
#define MAX_TOUCH      4

struct vm_control {
	pthread_t thread;
	bool thread_started;
	pthread_mutex_t lock; /* a leaf */
	pthread_cond_t changed;
	bool ending;		 /* of the thread */
	bool ended;		 /* of the VM: info is valid */
	struct sandbox *confine; /* to be entered by the thread, or NULL */
	struct hako_error *confine_err;
	int confine_ret;
	struct hako_exit_info info;
	char failure[1020]; /* vm_fail()'s first message */
	char io_error[512]; /* vm_pause_for_error()'s, which has yet to be seen to; or "" */
	int end_fd;
	/* vm_touch_soon() */
	struct touch {
		uint64_t gpa, len;
	} touch[MAX_TOUCH];
	unsigned int ntouch;
	bool touching; /* the vCPUs run */

	void (*log)(void *opaque, const char *line);
	void *log_opaque;
	time_t log_second;
	unsigned int log_lines;
};

void vm_request(struct vm *vm, enum vm_request_kind kind, int status)
{
	struct vm_control *c = vm->control;
	bool override = kind == VM_REQUEST_STOP || kind == VM_REQUEST_ERROR;

	if (c)
		pthread_mutex_lock(&c->lock);
	if (!vm->request || override) {
		vm->request_status = status;
		__atomic_store_n(&vm->request, kind, __ATOMIC_SEQ_CST);
	}
	if (!c)
		return;
	/* Under the lock, so that no kick comes after the request has been carried out and the vCPUs resumed. */
	vcpus_kick(vm);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

void vm_fail(struct vm *vm, const char *fmt, ...)
{
	struct vm_control *c = vm->control;
	va_list ap;

	va_start(ap, fmt);
	if (c) {
		pthread_mutex_lock(&c->lock);
		if (!*c->failure)
			vsnprintf(c->failure, sizeof(c->failure), fmt, ap);
		pthread_mutex_unlock(&c->lock);
	}
	va_end(ap);
	vm_request(vm, VM_REQUEST_ERROR, 1);
}

void vm_pause_for_error(struct vm *vm, const char *fmt, ...)
{
	struct vm_control *c = vm->control;
	va_list ap;

	if (!c)
		return;
	va_start(ap, fmt);
	pthread_mutex_lock(&c->lock);
	if (!*c->io_error) {
		vsnprintf(c->io_error, sizeof(c->io_error), fmt, ap);
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	va_end(ap);
}

void vm_control_forget_error(struct vm *vm)
{
	struct vm_control *c = vm->control;

	vm->io_error = false;
	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	*c->io_error = 0;
	pthread_mutex_unlock(&c->lock);
}

void vm_touch_soon(struct vm *vm, uint64_t gpa, uint64_t len)
{
	struct vm_control *c = vm->control;

	pthread_mutex_lock(&c->lock);
	if (c->ntouch < MAX_TOUCH)
		c->touch[c->ntouch++] = (struct touch){gpa, len};
	pthread_mutex_unlock(&c->lock);
}

void vm_control_touch(struct vm *vm)
{
	struct vm_control *c = vm->control;

	if (!c)
		return;
	pthread_mutex_lock(&c->lock);
	c->touching = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void log_line(struct vm *vm, const char *line)
{
	struct vm_control *c = vm->control;
	time_t now = clock_now() / NSEC_PER_SEC;

	pthread_mutex_lock(&c->lock);
	if (now != c->log_second) {
		c->log_second = now;
		c->log_lines = 0;
	}
	if (c->log_lines++ < LOG_PER_SECOND)
		c->log(c->log_opaque, line);
	pthread_mutex_unlock(&c->lock);
}

void vm_log(struct vm *vm, const char *fmt, ...)
{
	struct vm_control *c = vm->control;
	char line[512];
	va_list ap;

	if (!c || !c->log)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	log_line(vm, line);
}

void vm_guest_error(struct vm *vm, const char *fmt, ...)
{
	char line[512];
	va_list ap;

	if (!vm->control)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (vm->control->log)
		log_line(vm, line);
	vm_event(vm, HAKO_EVENT_GUEST_ERROR, "%s", line);
}

void vm_warn(struct vm *vm, const char *fmt, ...)
{
	char message[1020];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	vm_log(vm, "%s", message);
	vm_event(vm, HAKO_EVENT_WARNING, "%s", message);
}

void vm_control_set_log(struct vm *vm, void (*log)(void *, const char *), void *opaque)
{
	vm->control->log = log;
	vm->control->log_opaque = opaque;
}

/* --- the end --------------------------------------------------------------------------------- */

void vm_control_end(struct vm *vm, enum hako_exit reason, int status, const char *message)
{
	struct vm_control *c = vm->control;

	vm->state = VM_ENDED;
	pthread_mutex_lock(&c->lock);
	if (!c->ended) {
		c->info.reason = reason;
		c->info.status = status;
		snprintf(c->info.message, sizeof(c->info.message), "%s", message);
		c->ended = true;
		if (c->end_fd >= 0)
			eventfd_write(c->end_fd, 1);
	}
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	vm_events_end(vm, message);
}

static void end_vm(struct vm *vm, enum hako_exit reason, int status, const char *message)
{
	if (vm->state == VM_RUNNING)
		vm_pause_locked(vm);
	vm_control_end(vm, reason, status, message);
}

static void do_reset(struct vm *vm)
{
	bool running = vm->state == VM_RUNNING;
	struct hako_error err;

	if (vm->config->no_reboot) {
		end_vm(vm, HAKO_EXIT_RESET, 0, "the guest asked for a reset");
		return;
	}
	if (running)
		vm_pause_locked(vm);
	if (vm_reset_locked(vm, &err))
		return end_vm(vm, HAKO_EXIT_ERROR, 1, err.message);
	vm_event(vm, HAKO_EVENT_RESET, "the guest starts anew");
	if (running)
		vm_resume_locked(vm);
}

static void do_panic(struct vm *vm, int events)
{
	vm_log(vm, "the guest reports a panic (event bits %d)", events);
	vm_event(vm, HAKO_EVENT_PANIC, "the guest panicked");
	switch ((enum config_panic)vm->config->panic) {
	case PANIC_EXIT:
		end_vm(vm, HAKO_EXIT_PANIC, 1, "the guest panicked");
		break;
	case PANIC_PAUSE:
		if (vm->state == VM_RUNNING)
			vm_pause_locked(vm);
		break;
	case PANIC_NONE:
		if (vm->state == VM_RUNNING)
			vcpus_resume(vm);
	}
}

static void do_io_error(struct vm *vm, const char *message)
{
	if (vm->state == VM_ENDED || vm->state == VM_NEW || vm->io_error)
		return;
	if (vm->state == VM_RUNNING)
		vm_pause_locked(vm);
	vm->io_error = true;
	vm_log(vm, "paused: %s", message);
	vm_event(vm, HAKO_EVENT_IO_ERROR, "%s", message);
}

/* Under vm->lock. */
static void carry_out(struct vm *vm, enum vm_request_kind kind, int status)
{
	if (vm->state == VM_ENDED || vm->state == VM_NEW)
		return;
	switch (kind) {
	case VM_REQUEST_RESET:
		do_reset(vm);
		break;
	case VM_REQUEST_POWEROFF:
		end_vm(vm, HAKO_EXIT_POWEROFF, 0, "the guest powered off");
		break;
	case VM_REQUEST_DEBUG_EXIT:
		end_vm(vm, HAKO_EXIT_DEBUG, status, "the guest wrote to isa-debug-exit");
		break;
	case VM_REQUEST_PANIC:
		do_panic(vm, status);
		break;
	case VM_REQUEST_STOP:
		end_vm(vm, HAKO_EXIT_STOPPED, 0, "stopped");
		break;
	case VM_REQUEST_CONTINUE:
		if (vm->state == VM_PAUSED)
			vm_resume_locked(vm);
		else if (vm->state == VM_RUNNING)
			vcpus_resume(vm);
		break;
	case VM_REQUEST_ERROR:
		end_vm(vm, HAKO_EXIT_ERROR, 1, vm->control->failure);
		break;
	}
}

void vm_control_take(struct vm *vm)
{
	struct vm_control *c = vm->control;
	char message[sizeof(c->io_error)];
	int kind, status;

	pthread_mutex_lock(&c->lock);
	memcpy(message, c->io_error, sizeof(message));
	*c->io_error = 0;
	kind = vm->request;
	status = vm->request_status;
	__atomic_store_n(&vm->request, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&c->lock);
	if (*message)
		do_io_error(vm, message);
	if (kind)
		carry_out(vm, kind, status);
}

/* A step of what vm_touch_soon() asked for, with the lock held; false: there is nothing left. */
static bool touch(struct vm *vm)
{
	struct vm_control *c = vm->control;
	struct touch *t = &c->touch[0];
	uint64_t n;

	if (!c->ntouch || !c->touching)
		return false;
	pthread_mutex_unlock(&c->lock);
	n = t->len ? memory_touch(&vm->mem, t->gpa, t->len) : 0;
	pthread_mutex_lock(&c->lock);
	t->gpa += n;
	t->len -= n;
	if (!n)
		*t = c->touch[--c->ntouch];
	return true;
}

static void *control_thread(void *arg)
{
	struct vm *vm = arg;
	struct vm_control *c = vm->control;

	pthread_setname_np(pthread_self(), "hako-control");
	pthread_mutex_lock(&c->lock);
	while (!c->ending) {
		if (c->confine) {
			c->confine_ret = sandbox_enter(c->confine, SANDBOX_MAIN, c->confine_err);
			c->confine = NULL;
			pthread_cond_broadcast(&c->changed);
		}
		if (!vm->request && !*c->io_error) {
			if (!touch(vm))
				pthread_cond_wait(&c->changed, &c->lock);
			continue;
		}
		pthread_mutex_unlock(&c->lock);
		pthread_mutex_lock(&vm->lock);
		vm_control_take(vm);
		pthread_mutex_unlock(&vm->lock);
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

int vm_control_confine(struct vm *vm, struct sandbox *sb, struct hako_error *err)
{
	struct vm_control *c = vm->control;

	pthread_mutex_lock(&c->lock);
	c->confine = sb;
	c->confine_err = err;
	pthread_cond_broadcast(&c->changed);
	while (c->confine)
		pthread_cond_wait(&c->changed, &c->lock);
	pthread_mutex_unlock(&c->lock);
	return c->confine_ret;
}

/* --- for the VM ------------------------------------------------------------------------------ */

int vm_control_wait(struct vm *vm, int timeout_ms, struct hako_exit_info *info)
{
	struct vm_control *c = vm->control;
	struct timespec until;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += timeout_ms % 1000 * 1000000l;
	if (until.tv_nsec >= (long)NSEC_PER_SEC) {
		until.tv_sec++;
		until.tv_nsec -= NSEC_PER_SEC;
	}
	pthread_mutex_lock(&c->lock);
	while (!c->ended && !r)
		r = timeout_ms < 0 ? pthread_cond_wait(&c->changed, &c->lock)
				   : pthread_cond_clockwait(&c->changed, &c->lock, CLOCK_MONOTONIC,
							    &until);
	if (c->ended && info)
		*info = c->info;
	r = c->ended ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&c->lock);
	return r;
}

int vm_control_new(struct vm *vm, struct hako_error *err)
{
	struct vm_control *c = calloc(1, sizeof(*c));

	if (!c)
		return error_errno(err, -ENOMEM, "VM");
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->changed, NULL);
	c->end_fd = -1;
	vm->control = c;
	return 0;
}

int vm_control_start(struct vm *vm, struct hako_error *err)
{
	struct vm_control *c = vm->control;
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	c->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->end_fd < 0)
		return error_errno(err, -errno, "eventfd");
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 * KiB);
	r = pthread_create(&c->thread, &attr, control_thread, vm);
	pthread_attr_destroy(&attr);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	c->thread_started = !r;
	return r ? error_errno(err, -r, "control thread") : 0;
}

int vm_control_end_fd(struct vm *vm)
{
	return vm->control->end_fd;
}

void vm_control_stop(struct vm *vm)
{
	struct vm_control *c = vm->control;

	if (!c || !c->thread_started)
		return;
	pthread_mutex_lock(&c->lock);
	c->ending = true;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->thread_started = false;
}

void vm_control_free(struct vm *vm)
{
	struct vm_control *c = vm->control;

	if (!c)
		return;
	vm_control_stop(vm);
	if (c->end_fd >= 0)
		close(c->end_fd);
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
	vm->control = NULL;
}
