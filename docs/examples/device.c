/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device that is written in the test: it adds the numbers that are written to its first register, and sends an interrupt when the sum is more
 * than a hundred.
 *
 *   cc -o device device.c $(pkg-config --cflags --libs hako)
 *   ./device guest.elf
 */
#include <err.h>
#include <hako.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE 0xd0000000 /* free on this board */

enum {
	ADD = 0,     /* write: a number */
	SUM = 4,     /* read */
	ADDRESS = 8, /* of the message, and its data */
	DATA = 12,
};

struct adder {
	struct hako_vm *vm;
	uint32_t sum, address, data;
};

static struct hako_error error;

static void must(int result)
{
	if (result < 0)
		errx(1, "%s", error.message);
}

/* In the thread of the vCPU that touches the register; one at a time. */
static uint64_t adder_read(void *opaque, uint64_t offset, unsigned int bytes)
{
	struct adder *a = opaque;

	return offset == SUM ? a->sum : 0;
}

static void adder_write(void *opaque, uint64_t offset, uint64_t value, unsigned int bytes)
{
	struct adder *a = opaque;

	if (offset == ADDRESS)
		a->address = value;
	if (offset == DATA)
		a->data = value;
	if (offset != ADD)
		return;
	a->sum += value;
	if (a->sum > 100 && a->address)
		hako_vm_send_msi(a->vm, a->address, a->data, NULL);
}

static char *tell(struct hako_console *console, const char *command)
{
	char *answer;

	must(hako_console_write(console, command, strlen(command), 1000, &error));
	must(hako_console_expect(console, "\r\n> ", 0, 10000, &answer, NULL, &error));
	printf("%.*s: %s\n", (int)strcspn(command, "\n"), command, answer);
	return answer;
}

int main(int argc, char **argv)
{
	struct adder adder = {0};
	struct hako_region region = {
		.size = sizeof(region),
		.space = HAKO_MMIO,
		.base = BASE,
		.length = 16,
		.read = adder_read,
		.write = adder_write,
		.opaque = &adder,
	};
	struct hako_console *console;
	char *sum, *message, *rest;
	uint32_t word = 0;

	if (argc != 2)
		errx(2, "usage: device guest.elf");
	must(hako_vm_new(&adder.vm, &error));
	must(hako_vm_configure(adder.vm,
			       "--machine micro --memory 64M --console program --append test=talk",
			       &error));
	must(hako_vm_set(adder.vm, "kernel", argv[1], &error));
	must(hako_vm_create(adder.vm, &error));
	must(hako_vm_add_region(adder.vm, &region, &error));
	must(hako_vm_console(adder.vm, "console0", &console, &error));
	must(hako_vm_start(adder.vm, &error));
	must(hako_console_expect(console, "> ", 0, 10000, NULL, NULL, &error));

	free(tell(console, "write d0000000 1e\n"));
	free(tell(console, "write d0000000 1e\n"));
	sum = tell(console, "read d0000004\n");

	/* The guest says which message it waits for; here somebody else writes the last number. */
	must(hako_console_write(console, "msi\n", 4, 1000, &error));
	must(hako_console_expect(console, "address [0-9a-f]+ data [0-9a-f]+$", HAKO_EXPECT_REGEX,
				 10000, NULL, &message, &error));
	printf("it waits for: %s\n", message);
	adder_write(&adder, ADDRESS, strtoul(message + 8, &rest, 16), 4);
	adder_write(&adder, DATA, strtoul(rest + 6, NULL, 16), 4);
	adder_write(&adder, ADD, 41, 4);
	must(hako_console_expect(console, "interrupt", 0, 10000, NULL, NULL, &error));
	must(hako_console_expect(console, "> ", 0, 10000, NULL, NULL, &error));

	/* Its memory can be read and written as well. */
	must(hako_vm_write_memory(adder.vm, 0x3000000, "hako", 4, &error));
	free(tell(console, "read 3000000\n"));
	free(tell(console, "write 3000000 2a\n"));
	must(hako_vm_read_memory(adder.vm, 0x3000000, &word, 4, &error));
	hako_vm_destroy(adder.vm);
	return strcmp(sum, "3c") || word != 42;
}
