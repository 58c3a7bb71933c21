/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The floor of starting a VM: the ioctls that any VMM for KVM makes, and nothing else. A VM with an
 * in-kernel irqchip, 128 MiB and one vCPU, which leaves with its first instructions, at once. With
 * the argument "split" of the irqchip only the local APICs are in the kernel. With a number behind it so many
 * VMs in turn, each of which is ended; the milliseconds of each are printed.
 *
 * With the argument "exits" and a program's file the floor of leaving the guest: the program (tests/guest/exits.S) runs in such a VM, its
 * accesses are answered at once, and its doorbell is an event that nobody waits for. The frequency of the TSC in kHz is
 * printed, and the numbers that the guest wrote to port 0xe9.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RAM_SIZE (128u << 20)
#define ENTRY	 0x100000
#define EXIT	 0xf4
#define CONSOLE	 0xe9
#define DEVICE	 0xfeb00000

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

static void protected_mode(int vcpu, uint32_t entry)
{
	struct kvm_segment flat = {.limit = 0xffffffff, .g = 1, .db = 1, .s = 1, .present = 1};
	struct kvm_sregs s;
	struct kvm_regs r = {.rip = entry, .rflags = 2};

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

struct machine {
	int kvm, vm, vcpu, run_size;
	struct kvm_run *run;
	uint8_t *ram;
};

static void make_machine(struct machine *m, int split)
{
	struct kvm_userspace_memory_region region = {.memory_size = RAM_SIZE};

	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m->kvm < 0)
		err(2, "/dev/kvm");
	m->vm = number_ioctl(m->kvm, KVM_CREATE_VM, 0, "KVM_CREATE_VM");
	make_irqchip(m->vm, split);
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->ram == MAP_FAILED)
		err(2, "mmap");
	region.userspace_addr = (uintptr_t)m->ram;
	kvm_ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region, "KVM_SET_USER_MEMORY_REGION");
	m->vcpu = number_ioctl(m->vm, KVM_CREATE_VCPU, 0, "KVM_CREATE_VCPU");
	m->run_size = number_ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0, "KVM_GET_VCPU_MMAP_SIZE");
	m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	if (m->run == MAP_FAILED)
		err(2, "mmap of the vCPU");
}

static void end_machine(struct machine *m)
{
	munmap(m->run, m->run_size);
	close(m->vcpu);
	close(m->vm);
	close(m->kvm);
	munmap(m->ram, RAM_SIZE);
}

/* The guest's status, as isa-debug-exit has it: (value << 1) | 1. */
static int exit_status(const struct kvm_run *run)
{
	if (run->exit_reason != KVM_EXIT_IO || run->io.port != EXIT)
		errx(2, "the guest left with exit reason %u", run->exit_reason);
	return *(uint32_t *)((char *)run + run->io.data_offset) << 1 | 1;
}

static int live(int split)
{
	struct machine m;
	int status;

	make_machine(&m, split);
	memcpy(m.ram + ENTRY, code, sizeof(code));
	protected_mode(m.vcpu, ENTRY);
	number_ioctl(m.vcpu, KVM_RUN, 0, "KVM_RUN");
	status = exit_status(m.run);
	end_machine(&m);
	return status;
}

/* Put an ELF file of 32 bits where it is to be: its entry. The file is ours. */
static uint32_t load(const struct machine *m, const char *path)
{
	static uint8_t file[65536];
	const Elf32_Ehdr *header = (void *)file;
	FILE *f = fopen(path, "r");

	if (!f || fread(file, 1, sizeof(file), f) < sizeof(*header) ||
	    memcmp(file, ELFMAG, SELFMAG))
		errx(2, "%s: no program for a guest", path);
	fclose(f);
	for (int i = 0; i < header->e_phnum; i++) {
		const Elf32_Phdr *p = (void *)(file + header->e_phoff + i * sizeof(*p));

		if (p->p_type == PT_LOAD)
			memcpy(m->ram + p->p_paddr, file + p->p_offset, p->p_filesz);
	}
	return header->e_entry;
}

/* A register of a virtio-mmio device that has started. */
static uint32_t device_register(uint64_t address)
{
	switch (address - DEVICE) {
	case 0x008: /* DeviceID: entropy */
		return 4;
	case 0x070: /* Status: as the guest wrote it last */
		return 15;
	}
	return 0;
}

static int exits(const char *path)
{
	struct kvm_ioeventfd doorbell = {.addr = DEVICE + 0x050, .len = 4};
	uint8_t said[24];
	uint64_t cycles[3];
	size_t length = 0;
	struct machine m;

	make_machine(&m, 1);
	doorbell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	doorbell.flags = KVM_IOEVENTFD_FLAG_DATAMATCH;
	kvm_ioctl(m.vm, KVM_IOEVENTFD, &doorbell, "KVM_IOEVENTFD");
	protected_mode(m.vcpu, load(&m, path));
	for (;;) {
		struct kvm_run *run = m.run;
		uint8_t *data;

		number_ioctl(m.vcpu, KVM_RUN, 0, "KVM_RUN");
		data = (uint8_t *)run + run->io.data_offset;
		if (run->exit_reason == KVM_EXIT_MMIO) {
			uint32_t value = device_register(run->mmio.phys_addr);

			if (!run->mmio.is_write)
				memcpy(run->mmio.data, &value, sizeof(value));
		} else if (run->exit_reason != KVM_EXIT_IO || run->io.port != CONSOLE) {
			break;
		} else if (run->io.direction == KVM_EXIT_IO_IN) {
			*data = CONSOLE;
		} else if (length < sizeof(said)) {
			said[length++] = *data;
		}
	}
	memcpy(cycles, said, sizeof(said));
	printf("%d %" PRIu64 " %" PRIu64 " %" PRIu64 "\n",
	       number_ioctl(m.vcpu, KVM_GET_TSC_KHZ, 0, "KVM_GET_TSC_KHZ"), cycles[0], cycles[1],
	       cycles[2]);
	return exit_status(m.run);
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

	if (argc == 3 && !strcmp(argv[1], "exits"))
		return exits(argv[2]);
	for (int i = 0; i < count; i++) {
		double start = milliseconds();

		live(split);
		printf("%.3f\n", milliseconds() - start);
	}
	return count ? 0 : live(split);
}
