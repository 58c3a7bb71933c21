/* SPDX-License-Identifier: GPL-2.0-only */
#include "events.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define QUEUE	 64
#define MESSAGE	 256
#define MAX_WAIT (3600 * NSEC_PER_SEC) /* then look again: no time is too far away for the clock */

struct vm_events {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool ended;
	void (*fn)(void *opaque, enum hako_event event, const char *message);
	void *opaque;
	/* For hako_vm_next_event(), from the first hako_vm_event_fd() on. */
	int fd; /* eventfd, not 0 while there is an event; -1 */
	unsigned int head, len;
	struct event {
		enum hako_event event;
		char message[MESSAGE];
	} * queue;
};

static struct vm *to_vm(struct hako_vm *vm)
{
	return (struct vm *)vm;
}

int vm_events_new(struct vm *vm, struct hako_error *err)
{
	struct vm_events *e = calloc(1, sizeof(*e));

	if (!e)
		return error_errno(err, -ENOMEM, "VM");
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->changed, NULL);
	e->fd = -1;
	vm->events = e;
	return 0;
}

void vm_events_free(struct vm *vm)
{
	struct vm_events *e = vm->events;

	if (!e)
		return;
	if (e->fd >= 0)
		close(e->fd);
	pthread_mutex_destroy(&e->lock);
	pthread_cond_destroy(&e->changed);
	free(e->queue);
	free(e);
	vm->events = NULL;
}

void vm_events_set_callback(struct vm *vm,
			    void (*event)(void *opaque, enum hako_event event, const char *message),
			    void *opaque)
{
	vm->events->fn = event;
	vm->events->opaque = opaque;
}

/* --- the queue --------------------------------------------------------------------------------- */

static struct event *queued(struct vm_events *e, unsigned int i)
{
	return &e->queue[(e->head + i) % QUEUE];
}

static bool is_queued(struct vm_events *e, enum hako_event event, const char *message)
{
	for (unsigned int i = 0; i < e->len; i++)
		if (queued(e, i)->event == event && !strcmp(queued(e, i)->message, message))
			return true;
	return false;
}

/*
 * A guest may cause any number, so of data on one console there is one at a time; when the queue is full guest errors are left out, and for
 * others the oldest goes.
 */
static void enqueue(struct vm_events *e, enum hako_event event, const char *message)
{
	if (!e->queue || (event == HAKO_EVENT_CONSOLE && is_queued(e, event, message)))
		return;
	if (e->len == QUEUE) {
		if (event == HAKO_EVENT_GUEST_ERROR)
			return;
		e->head = (e->head + 1) % QUEUE;
		e->len--;
	}
	queued(e, e->len)->event = event;
	snprintf(queued(e, e->len)->message, MESSAGE, "%s", message);
	if (!e->len++)
		eventfd_write(e->fd, 1);
}

static void tell(struct vm *vm, enum hako_event event, const char *message, bool end)
{
	struct vm_events *e = vm->events;
	bool again;

	pthread_mutex_lock(&e->lock);
	again = e->ended && end;
	e->ended |= end;
	if (!again)
		enqueue(e, event, message);
	pthread_cond_broadcast(&e->changed);
	pthread_mutex_unlock(&e->lock);
	if (e->fn && !again)
		e->fn(e->opaque, event, message);
}

void vm_event(struct vm *vm, enum hako_event event, const char *fmt, ...)
{
	char message[512];
	va_list ap;

	if (!vm->events)
		return;
	va_start(ap, fmt);
	vsnprintf(message, sizeof(message), fmt, ap);
	va_end(ap);
	tell(vm, event, message, false);
}

void vm_events_end(struct vm *vm, const char *message)
{
	tell(vm, HAKO_EVENT_SHUTDOWN, message, true);
}

int hako_vm_event_fd(struct hako_vm *handle, struct hako_error *err)
{
	struct vm_events *e = to_vm(handle)->events;
	int r;

	pthread_mutex_lock(&e->lock);
	if (!e->queue)
		e->queue = calloc(QUEUE, sizeof(*e->queue));
	if (e->fd < 0 && e->queue)
		e->fd = eventfd(e->len ? 1 : 0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = !e->queue ? -ENOMEM : e->fd < 0 ? -errno : e->fd;
	pthread_mutex_unlock(&e->lock);
	return r < 0 ? error_errno(err, r, "events") : r;
}

int hako_vm_next_event(struct hako_vm *handle, enum hako_event *event, char *message, size_t size)
{
	struct vm_events *e = to_vm(handle)->events;
	eventfd_t count;
	int r = -EAGAIN;

	pthread_mutex_lock(&e->lock);
	if (e->len) {
		*event = queued(e, 0)->event;
		if (size)
			snprintf(message, size, "%s", queued(e, 0)->message);
		e->head = (e->head + 1) % QUEUE;
		if (!--e->len)
			eventfd_read(e->fd, &count);
		r = 0;
	}
	pthread_mutex_unlock(&e->lock);
	return r;
}

/* --- waiting ----------------------------------------------------------------------------------- */

void events_lock(struct vm *vm)
{
	pthread_mutex_lock(&vm->events->lock);
}

void events_unlock(struct vm *vm)
{
	pthread_mutex_unlock(&vm->events->lock);
}

void events_wake(struct vm *vm)
{
	pthread_cond_broadcast(&vm->events->changed);
}

bool events_ended(const struct vm *vm)
{
	return vm->events->ended;
}

bool events_wait(struct vm *vm, uint64_t deadline)
{
	struct vm_events *e = vm->events;
	uint64_t now = clock_now(), until;
	struct timespec ts;

	if (now >= deadline)
		return false;
	until = MIN(deadline, now + MAX_WAIT);
	ts = (struct timespec){until / NSEC_PER_SEC, until % NSEC_PER_SEC};
	pthread_cond_clockwait(&e->changed, &e->lock, CLOCK_MONOTONIC, &ts);
	return true;
}

uint64_t deadline_in(int timeout_ms)
{
	return timeout_ms < 0 ? UINT64_MAX : clock_now() + timeout_ms * 1000000ull;
}
