/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any file as a kernel: bzImage, ELF, Multiboot, and what packs them. Loading it may fail, but writes nowhere but to RAM that E820 says is
 * free, and takes no more memory than the guest has and the file is long.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "arch/x86/boot.h"
#include "vmm/memory.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM    (16 * MiB)
#define HOLE   (6 * MiB) /* reserved, of a MiB */
#define CANARY 0xc5

static struct memory mem;
static struct e820 map;
static int fd;
static char path[32];

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (memory_init_plain(&mem, RAM, NULL) || e820_add(&map, 0, RAM, 1) ||
	    e820_add(&map, BOOT_EBDA_GPA, 0x100000 - BOOT_EBDA_GPA, 2) ||
	    e820_add(&map, HOLE, MiB, 2))
		abort();
	fd = memfd_create("kernel", MFD_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return 0;
}

static void check_canary(uint64_t gpa, uint64_t len)
{
	const uint8_t *p = memory_ptr(&mem, gpa, len);

	if (p[0] != CANARY || memcmp(p, p + 1, len - 1) != 0)
		abort();
}

/* The last byte says how it is to be unpacked, and whether there is an initrd. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t how = size ? data[size - 1] : 0;
	struct boot_config config = {
		.kernel = path,
		.initrd = how & 4 ? path : NULL,
		.append = "console=ttyS0",
		.decompress = how % 3,
	};
	struct boot_source *src;
	struct boot_entry entry;
	struct hako_error err;

	if (ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	if (boot_open(&config, &src, &err))
		return 0;
	memset(memory_ptr(&mem, HOLE, MiB), CANARY, MiB);
	memset(memory_ptr(&mem, BOOT_EBDA_GPA, 0x40000), CANARY, 0x40000);
	for (int i = 0; i < 2; i++) /* a reset loads it anew */
		if (boot_install(src, &mem, &map, BOOT_RSDP_GPA, &entry, &err))
			break;
	check_canary(HOLE, MiB);
	check_canary(BOOT_EBDA_GPA, 0x40000);
	boot_close(src);
	return 0;
}
