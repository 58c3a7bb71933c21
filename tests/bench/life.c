/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * VMs in turn in one process, by libhako: life MACHINE KERNEL COUNT. The guest leaves at once. The milliseconds of each are printed,
 * from hako_vm_new() to the end of hako_vm_destroy(); then, after "grown", how many KiB of memory, descriptors and threads there are more than
 * after the first tenth.
 */
#include <dirent.h>
#include <err.h>
#include <hako.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static struct hako_error error;

static void must(int result)
{
	if (result < 0)
		errx(2, "%s", error.message);
}

static void live(const char *machine, const char *kernel)
{
	struct hako_exit_info info;
	struct hako_vm *vm;

	must(hako_vm_new(&vm, &error));
	must(hako_vm_set(vm, "machine", machine, &error));
	must(hako_vm_set(vm, "memory", "128M", &error));
	must(hako_vm_set(vm, "kernel", kernel, &error));
	must(hako_vm_set(vm, "device", "isa-debug-exit,iobase=0xf4,iosize=4", &error));
	must(hako_vm_create(vm, &error));
	must(hako_vm_start(vm, &error));
	must(hako_vm_wait(vm, 10000, &info, &error));
	hako_vm_destroy(vm);
	if (info.reason != HAKO_EXIT_DEBUG || info.status != 1)
		errx(2, "the guest ended otherwise: %s", info.message);
}

static double milliseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec * 1e-6;
}

static long entries(const char *directory)
{
	DIR *dir = opendir(directory);
	long n = 0;

	while (dir && readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static void measure(long have[3])
{
	long size;
	FILE *f = fopen("/proc/self/statm", "r");

	if (!f || fscanf(f, "%ld %ld", &size, &have[0]) != 2)
		err(2, "/proc/self/statm");
	fclose(f);
	have[0] *= sysconf(_SC_PAGESIZE) / 1024;
	have[1] = entries("/proc/self/fd");
	have[2] = entries("/proc/self/task");
}

int main(int argc, char **argv)
{
	long early[3] = {0}, late[3];
	int count;

	if (argc != 4)
		errx(2, "usage: life MACHINE KERNEL COUNT");
	count = atoi(argv[3]);
	for (int i = 0; i < count; i++) {
		double start = milliseconds();

		live(argv[1], argv[2]);
		printf("%.3f\n", milliseconds() - start);
		if (i == count / 10)
			measure(early);
	}
	measure(late);
	printf("grown %ld %ld %ld\n", late[0] - early[0], late[1] - early[1], late[2] - early[2]);
	return 0;
}
