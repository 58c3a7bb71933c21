/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Boot a guest, talk with it on its console, wait for its end.
 *
 *   cc -o boot_expect boot_expect.c $(pkg-config --cflags --libs hako)
 *   ./boot_expect guest.elf
 *
 * guest.elf is hako's own test guest (make guests). Another kernel has other words: with Linux one would wait for "login:".
 */
#include <err.h>
#include <hako.h>
#include <stdio.h>
#include <stdlib.h>

static struct hako_error error;

/* Calls return a negative number if they fail, and say why. */
static void must(int result)
{
	if (result < 0)
		errx(1, "%s", error.message);
}

int main(int argc, char **argv)
{
	struct hako_console *console;
	struct hako_exit_info info;
	struct hako_vm *vm;
	char *answer;

	if (argc != 2)
		errx(2, "usage: boot_expect guest.elf");
	must(hako_vm_new(&vm, &error));
	must(hako_vm_configure(
		vm,
		"--machine micro --memory 64M --console program --device isa-debug-exit,iobase=0xf4,iosize=4 "
		"--append test=talk",
		&error));
	must(hako_vm_set(vm, "kernel", argv[1], &error));
	must(hako_vm_create(vm, &error));
	must(hako_vm_console(vm, "console0", &console, &error));
	must(hako_vm_start(vm, &error));

	must(hako_console_expect(console, "ready\r\n> ", 0, 10000, NULL, NULL, &error));
	must(hako_console_write(console, "echo hello\n", 11, 1000, &error));
	must(hako_console_expect(console, "^> ", HAKO_EXPECT_REGEX, 10000, &answer, NULL, &error));
	printf("the guest says: %s", answer);
	free(answer);

	/* Here the guest ends the VM; hako_vm_powerdown() would ask it to. */
	must(hako_console_write(console, "exit 0\n", 7, 1000, &error));
	must(hako_vm_wait(vm, 10000, &info, &error));
	printf("it has ended: %s, status %d\n", info.message, info.status);
	hako_vm_destroy(vm);
	return info.status == 1 ? 0 : 1;
}
