/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Several VMs at once, watched by one thread: each has a descriptor that polls readable when something happens to it.
 *
 *   cc -o many many.c $(pkg-config --cflags --libs hako)
 *   ./many guest.elf
 */
#include <err.h>
#include <hako.h>
#include <poll.h>
#include <stdio.h>

#define VMS 8

static struct hako_error error;

static void must(int result)
{
	if (result < 0)
		errx(1, "%s", error.message);
}

static struct hako_vm *start(const char *kernel, struct pollfd *p)
{
	struct hako_vm *vm;

	must(hako_vm_new(&vm, &error));
	must(hako_vm_configure(vm,
			       "--machine micro --memory 32M --console program --append test=hello "
			       "--device isa-debug-exit,iobase=0xf4,iosize=4",
			       &error));
	must(hako_vm_set(vm, "kernel", kernel, &error));
	p->fd = hako_vm_event_fd(vm, &error);
	p->events = POLLIN;
	must(p->fd);
	must(hako_vm_create(vm, &error));
	must(hako_vm_start(vm, &error));
	return vm;
}

/* False when it has ended. */
static int look(struct hako_vm *vm, int n)
{
	struct hako_exit_info info;
	enum hako_event event;
	char message[256];

	while (hako_vm_next_event(vm, &event, message, sizeof(message)) == 0) {
		if (event != HAKO_EVENT_SHUTDOWN)
			continue;
		must(hako_vm_wait(vm, 0, &info, &error));
		printf("VM %d: %s, status %d\n", n, info.message, info.status);
		return 0;
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct hako_vm *vm[VMS];
	struct pollfd p[VMS];
	int left = VMS;

	if (argc != 2)
		errx(2, "usage: many guest.elf");
	for (int i = 0; i < VMS; i++)
		vm[i] = start(argv[1], &p[i]);
	while (left && poll(p, VMS, 60000) > 0) {
		for (int i = 0; i < VMS; i++) {
			if (!p[i].revents || look(vm[i], i))
				continue;
			hako_vm_destroy(vm[i]);
			p[i].fd = -1; /* poll() takes no notice of it */
			left--;
		}
	}
	return left != 0;
}
