/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A disk in this program's memory, whose requests pass by here: they are recorded, and one fails, and another is slow.
 *
 *   cc -o fault_injection fault_injection.c $(pkg-config --cflags --libs hako)
 *   ./fault_injection guest.elf
 */
#include <err.h>
#include <errno.h>
#include <hako.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BAD_SECTOR  7
#define SLOW_SECTOR 9

static struct hako_error error;

static void must(int result)
{
	if (result < 0)
		errx(1, "%s", error.message);
}

/* In the thread of the disk, so the program's own threads must not use the same data without a lock. */
static void request(void *opaque, struct hako_disk_request *req)
{
	static const char *const names[] = {"read", "write", "flush", "discard", "zeroes"};

	printf("disk: %s of %u bytes at %u\n", names[req->op], (unsigned int)req->bytes,
	       (unsigned int)req->offset);
	if (req->op == HAKO_DISK_READ && req->offset == BAD_SECTOR * 512)
		hako_disk_done(req, -EIO, 0);
	else
		hako_disk_done(req, HAKO_DISK_SERVE, req->offset == SLOW_SECTOR * 512 ? 200 : 0);
}

/* Have the guest do it; its answer goes to @answer. */
static void tell(struct hako_console *console, const char *command, const char *want)
{
	char *answer;

	must(hako_console_write(console, command, strlen(command), 1000, &error));
	must(hako_console_expect(console, "\r\n> ", 0, 10000, &answer, NULL, &error));
	printf("%.*s: %s\n", (int)strcspn(command, "\n"), command, answer);
	if (strcmp(answer, want))
		errx(1, "not \"%s\"", want);
	free(answer);
}

int main(int argc, char **argv)
{
	static char contents[1 << 20];
	struct hako_disk disk = {
		.size = sizeof(disk),
		.length = sizeof(contents),
		.memory = contents,
		.request = request,
	};
	struct hako_console *console;
	struct hako_vm *vm;

	if (argc != 2)
		errx(2, "usage: fault_injection guest.elf");
	setvbuf(stdout, NULL, _IOLBF, 0);
	memcpy(contents + 3 * 512, "\x78\x56\x34\x12", 4);
	must(hako_vm_new(&vm, &error));
	must(hako_vm_add_disk(vm, "d", &disk, &error));
	must(hako_vm_configure(
		vm,
		"--machine micro --memory 64M --console program --device virtio-blk,drive=d "
		"--append test=talk",
		&error));
	must(hako_vm_set(vm, "kernel", argv[1], &error));
	must(hako_vm_create(vm, &error));
	must(hako_vm_console(vm, "console0", &console, &error));
	must(hako_vm_start(vm, &error));
	must(hako_console_expect(console, "> ", 0, 10000, NULL, NULL, &error));

	tell(console, "disk-read 3\n", "12345678");
	tell(console, "disk-read 7\n", "error 1");
	tell(console, "disk-write 9 cafe\n", "done");
	tell(console, "disk-read 9\n", "0000cafe");
	hako_vm_destroy(vm);
	return memcmp(contents + 9 * 512, "\xfe\xca", 2) != 0;
}
