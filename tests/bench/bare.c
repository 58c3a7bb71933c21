/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The floor of starting a VM: the ioctls that any VMM for KVM makes, and nothing else. A VM with an
 * in-kernel irqchip, 128 MiB and one vCPU, which leaves with its first instructions, at once. With
 * the argument "split" of the irqchip only the local APICs are in the kernel. With a number behind it so many
 * VMs in turn, each of which is ended; the milliseconds of each are printed.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RAM_SIZE (128u << 20)
#define ENTRY	 0x100000
#define EXIT	 0xf4

/* xor %eax, %eax; mov $0xf4, %dx; out %eax, %dx; hlt */
static const uint8_t code[] = {0x31, 0xc0, 0x66, 0xba, EXIT, 0x00, 0xef, 0xf4};

static int kvm_ioctl(int fd, unsigned long request, void *arg, const char *name)
{
	int r = ioctl(fd, request, arg);

	if (r < 0)
		err(2, "%s", name);
	return r;
}

static int number_ioctl(int fd, unsigned long request, unsigned long arg, const char *name)
{
	return kvm_ioctl(fd, request, (void *)arg, name);
}

static void protected_mode(int vcpu)
{
	struct kvm_segment flat = {.limit = 0xffffffff, .g = 1, .db = 1, .s = 1, .present = 1};
	struct kvm_sregs s;
	struct kvm_regs r = {.rip = ENTRY, .rflags = 2};

	kvm_ioctl(vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	s.cs = s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cs.type = 11;
	s.cs.selector = 8;
	s.ds.type = s.es.type = s.fs.type = s.gs.type = s.ss.type = 3;
	s.ds.selector = s.es.selector = s.fs.selector = s.gs.selector = s.ss.selector = 16;
	s.cr0 |= 1;
	kvm_ioctl(vcpu, KVM_SET_SREGS, &s, "KVM_SET_SREGS");
	kvm_ioctl(vcpu, KVM_SET_REGS, &r, "KVM_SET_REGS");
}

static void make_irqchip(int vm, int split)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

	if (split)
		kvm_ioctl(vm, KVM_ENABLE_CAP, &cap, "KVM_ENABLE_CAP");
	else
		number_ioctl(vm, KVM_CREATE_IRQCHIP, 0, "KVM_CREATE_IRQCHIP");
}

/* The guest's status, as isa-debug-exit has it: (value << 1) | 1. */
static int live(int split)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE};
	struct kvm_run *run;
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, vcpu, run_size, status;
	uint8_t *ram;

	if (kvm < 0)
		err(2, "/dev/kvm");
	vm = number_ioctl(kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	make_irqchip(vm, split);
	ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram == MAP_FAILED)
		err(2, "mmap");
	region.userspace_addr = (uintptr_t)ram;
	kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	memcpy(ram + ENTRY, code, sizeof(code));
	vcpu = number_ioctl(vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	run_size = number_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
	run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED)
		err(2, "mmap of the vCPU");
	protected_mode(vcpu);
	number_ioctl(vcpu, KVM_RUN, 0, "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != EXIT)
		errx(2, "the guest left with exit reason %u", run->exit_reason);
	status = *(uint32_t *)((char *)run + run->io.data_offset) << 1 | 1;
	munmap(run, run_size);
	close(vcpu);
	close(vm);
	close(kvm);
	munmap(ram, RAM_SIZE);
	return status;
}

static double milliseconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e3 + ts.tv_nsec * 1e-6;
}

int main(int argc, char **argv)
{
	int split = argc > 1 && !strcmp(argv[1], "split");
	int count = argc > 2 ? atoi(argv[2]) : 0;

	for (int i = 0; i < count; i++) {
		double start = milliseconds();

		live(split);
		printf("%.3f\n", milliseconds() - start);
	}
	return count ? 0 : live(split);
}
