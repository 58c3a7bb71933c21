/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A network card whose cable ends in this program: it takes the guest's frames, and sends it some.
 *
 *   cc -o packets packets.c $(pkg-config --cflags --libs hako)
 *   ./packets guest.elf
 */
#include <err.h>
#include <hako.h>
#include <stdio.h>
#include <string.h>

static struct hako_error error;

static void must(int result)
{
	if (result < 0)
		errx(1, "%s", error.message);
}

static void tell(struct hako_console *console, const char *command, const char *answer)
{
	must(hako_console_write(console, command, strlen(command), 1000, &error));
	must(hako_console_expect(console, answer, 0, 10000, NULL, NULL, &error));
}

int main(int argc, char **argv)
{
	/* For everybody, from a card that is nobody's, of a type for experiments. */
	unsigned char frame[1514] = "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x88\xb5";
	unsigned char back[1514];
	struct hako_console *console;
	struct hako_nic *nic;
	struct hako_vm *vm;
	ssize_t len;

	if (argc != 2)
		errx(2, "usage: packets guest.elf");
	must(hako_vm_new(&vm, &error));
	must(hako_vm_configure(
		vm,
		"{\"machine\": \"micro\", \"memory\": 64, \"console\": \"program\", "
		"\"net\": \"program,mac=52:54:00:12:34:56\", \"append\": \"test=talk\"}",
		&error));
	must(hako_vm_set(vm, "kernel", argv[1], &error));
	must(hako_vm_create(vm, &error));
	must(hako_vm_console(vm, "console0", &console, &error));
	must(hako_vm_nic(vm, "net0", &nic, &error));
	must(hako_vm_start(vm, &error));
	must(hako_console_expect(console, "> ", 0, 10000, NULL, NULL, &error));

	tell(console, "net-send 3\n", "done");
	for (int i = 0; i < 3; i++) {
		len = hako_nic_receive(nic, back, sizeof(back), 10000, &error);
		must(len);
		printf("from the guest: %d bytes, number %d\n", (int)len, back[17]);
		if (back[17] != i || memcmp(back + 6, "\x52\x54\0\x12\x34\x56", 6))
			errx(1, "not the frame that was expected");
	}

	tell(console, "net-echo 100\n", "ready");
	for (int i = 0; i < 100; i++) {
		size_t size = 60 + i * 14;

		memset(frame + 14, i, size - 14);
		must(hako_nic_send(nic, frame, size, 1000, &error));
		len = hako_nic_receive(nic, back, sizeof(back), 10000, &error);
		must(len);
		if (len != (ssize_t)size || memcmp(back + 14, frame + 14, size - 14))
			errx(1, "frame %d came back as something else", i);
	}
	printf("100 frames came back\n");
	hako_vm_destroy(vm);
	return 0;
}
