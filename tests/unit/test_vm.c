/* SPDX-License-Identifier: GPL-2.0-only */
/* A VM's life through hako.h, with a guest of nine instructions on the real KVM. */
#include <check.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tiny_guest.h"
#include "vmm/kvm.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static char kernel[64];
static int kernel_fd;
static struct hako_error err;

/* @code: instead of the guest's own. */
static void write_kernel(const uint8_t code[16])
{
	__typeof__(guest) g;
	int fd = open(kernel, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	memcpy((void *)&g, &guest, sizeof(g));
	memcpy((void *)g.code, code, sizeof(g.code));
	ck_assert_int_eq(write(fd, &g, sizeof(g)), sizeof(g));
	close(fd);
}

static void setup(void)
{
	ck_assert_uint_eq(offsetof(__typeof__(guest), note), 116);
	ck_assert_uint_eq(offsetof(__typeof__(guest), code), 136);
	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	snprintf(kernel, sizeof(kernel), "/proc/self/fd/%d", kernel_fd);
	write_kernel(guest.code);
}

static void teardown(void)
{
	close(kernel_fd);
}

static struct hako_vm *new_vm(const char *machine, const char *cpus)
{
	struct hako_vm *vm;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "machine", machine, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "memory", "16M", &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "cpus", cpus, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "kernel", kernel, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "device", "virtio-rng", &err), 0);
	ck_assert_msg(!hako_vm_create(vm, &err), "%s", err.message);
	return vm;
}

static uint32_t peek(struct hako_vm *vm, uint64_t gpa)
{
	return READ_ONCE(*(uint32_t *)memory_ptr(&((struct vm *)vm)->mem, gpa, 4));
}

/* Up to ten seconds, since other tests may have the CPUs. */
static void wait_above(struct hako_vm *vm, uint64_t gpa, uint32_t value)
{
	for (int i = 0; i < 10000 && peek(vm, gpa) <= value; i++)
		usleep(1000);
	ck_assert_uint_gt(peek(vm, gpa), value);
}

static const char *const machines[] = {"micro", "q35"};

START_TEST(pause_is_exact)
{
	struct hako_vm *vm = new_vm(machines[_i], "2");

	ck_assert_uint_eq(peek(vm, COUNTER), 0);
	for (int i = 0; i < 10; i++) {
		uint32_t count = peek(vm, COUNTER);

		ck_assert_int_eq(hako_vm_start(vm, &err), 0);
		wait_above(vm, COUNTER, count);
		ck_assert_int_eq(hako_vm_pause(vm, &err), 0);
		count = peek(vm, COUNTER);
		usleep(5000);
		ck_assert_uint_eq(peek(vm, COUNTER), count);
	}
	ck_assert_uint_eq(peek(vm, BOOTS), 1);
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(reset_starts_anew)
{
	struct hako_vm *vm = new_vm(machines[_i], "2");

	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	for (uint32_t boots = 1; boots <= 5; boots++) {
		wait_above(vm, BOOTS, boots - 1);
		ck_assert_uint_eq(peek(vm, BOOTS), boots);
		ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	}
	/* A VM that is paused stays so over a reset. */
	ck_assert_int_eq(hako_vm_pause(vm, &err), 0);
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	{
		uint32_t count = peek(vm, COUNTER);

		usleep(5000);
		ck_assert_uint_eq(peek(vm, COUNTER), count);
	}
	hako_vm_destroy(vm);
}
END_TEST

/* A VM that could not be created has ended: whoever waits for it is told why, and does not wait for ever. */
START_TEST(failed_creation_is_an_end)
{
	struct hako_exit_info info;
	struct hako_vm *vm;
	struct pollfd p;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_wait(vm, 0, &info, &err), -ETIMEDOUT);
	ck_assert_int_eq(hako_vm_set(vm, "kernel", "/nowhere", &err), 0);
	ck_assert_int_lt(hako_vm_create(vm, _i ? &err : NULL), 0);
	ck_assert_int_eq(hako_vm_wait(vm, -1, &info, &err), 0);
	ck_assert_int_eq(info.reason, HAKO_EXIT_ERROR);
	ck_assert_int_eq(info.status, 1);
	ck_assert_ptr_nonnull(strstr(info.message, "/nowhere"));
	p = (struct pollfd){.fd = hako_vm_end_fd(vm), .events = POLLIN};
	ck_assert_int_eq(p.fd < 0 ? 1 : poll(&p, 1, 0), 1);
	hako_vm_destroy(vm);
}
END_TEST

/* Does guest RAM, and so the DSDT, hold the resources of a serial port there (ACPI 6.4, 6.4.2)? */
static bool serial_port_described(const char *device, uint16_t port, uint8_t irq)
{
	const uint8_t crs[] = {0x47, 1, port, port >> 8, port, port >> 8, 8, 8, 0x22, 1u << irq};
	struct hako_vm *vm;
	bool found;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "memory", "16M", &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "kernel", kernel, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "device", device, &err), 0);
	ck_assert_msg(!hako_vm_create(vm, &err), "%s", err.message);
	found = memmem(memory_ptr(&((struct vm *)vm)->mem, 0, 16 * MiB), 16 * MiB, crs,
		       sizeof(crs));
	hako_vm_destroy(vm);
	return found;
}

START_TEST(serial_ports_in_acpi)
{
	ck_assert(serial_port_described("isa-serial", 0x3f8, 4));
	ck_assert(serial_port_described("isa-serial,index=1", 0x2f8, 3));
	ck_assert(!serial_port_described("isa-serial,index=1", 0x3f8, 4));
	ck_assert(serial_port_described("isa-serial,iobase=0x1a0,irq=5", 0x1a0, 5));
	ck_assert(!serial_port_described("isa-serial,iobase=0x1a0", 0x3f8, 4));
}
END_TEST

static uint64_t msr(struct hako_vm *vm, unsigned long request, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msrs = {{.nmsrs = 1}, {.index = index, .data = value}};

	ck_assert_int_eq(ioctl(((struct vm *)vm)->vcpu[1].fd, request, &msrs), 1);
	return msrs.entry.data;
}

/* Memory types (SDM volume 3A, 11.11): enabled, write-back; what the guest makes of them does not outlive it. */
START_TEST(memory_types)
{
	struct hako_vm *vm = new_vm("micro", "2");

	ck_assert_uint_eq(msr(vm, KVM_GET_MSRS, 0x2ff, 0), 0x806);
	msr(vm, KVM_SET_MSRS, 0x2ff, 0xc00);
	msr(vm, KVM_SET_MSRS, 0x201, 0xfff000800);
	msr(vm, KVM_SET_MSRS, 0x26f, 0x0606060606060606);
	ck_assert_uint_eq(msr(vm, KVM_GET_MSRS, 0x2ff, 0), 0xc00);
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	ck_assert_uint_eq(msr(vm, KVM_GET_MSRS, 0x2ff, 0), 0x806);
	ck_assert_uint_eq(msr(vm, KVM_GET_MSRS, 0x201, 0), 0);
	ck_assert_uint_eq(msr(vm, KVM_GET_MSRS, 0x26f, 0), 0);
	hako_vm_destroy(vm);
}
END_TEST

/* What is pending in a vCPU does not outlive a reset either. */
START_TEST(events_are_forgotten)
{
	struct hako_vm *vm = new_vm(machines[_i], "2");
	int fd = ((struct vm *)vm)->vcpu[1].fd;
	struct kvm_vcpu_events e = {0};

	ck_assert_int_eq(ioctl(fd, KVM_GET_VCPU_EVENTS, &e), 0);
	ck_assert_uint_eq(e.flags & KVM_VCPUEVENT_VALID_NMI_PENDING,
			  KVM_VCPUEVENT_VALID_NMI_PENDING);
	e.nmi.pending = 1;
	e.nmi.masked = 1;
	if (e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		e.triple_fault.pending = 1;
	ck_assert_int_eq(ioctl(fd, KVM_SET_VCPU_EVENTS, &e), 0);
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	ck_assert_int_eq(ioctl(fd, KVM_GET_VCPU_EVENTS, &e), 0);
	ck_assert_uint_eq(e.nmi.pending, 0);
	ck_assert_uint_eq(e.nmi.masked, 0);
	ck_assert_uint_eq(e.triple_fault.pending, 0);
	if (((struct vm *)vm)->kvm->cap[KVM_HAS_TRIPLE_FAULT_EVENT])
		ck_assert_uint_ne(e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT, 0);
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(no_reboot_ends)
{
	struct hako_exit_info info;
	struct hako_vm *vm;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	hako_vm_set(vm, "kernel", kernel, &err);
	hako_vm_set(vm, "no-reboot", "on", &err);
	ck_assert_int_eq(hako_vm_create(vm, &err), 0);
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	ck_assert_int_eq(hako_vm_wait(vm, 10, &info, &err), -ETIMEDOUT);
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	ck_assert_int_eq(hako_vm_wait(vm, 10000, &info, &err), 0);
	ck_assert_int_eq(info.reason, HAKO_EXIT_RESET);
	ck_assert_int_eq(info.status, 0);
	hako_vm_destroy(vm);
}
END_TEST

static void count_event(void *opaque, enum hako_event event, const char *message)
{
	if (event == HAKO_EVENT_SHUTDOWN)
		return;
	ck_assert_int_eq(event, HAKO_EVENT_IO_ERROR);
	ck_assert_str_eq(message, "disk0: full");
	__atomic_add_fetch((int *)opaque, 1, __ATOMIC_SEQ_CST);
}

static void wait_status(struct hako_vm *vm, const char *want)
{
	for (int i = 0; i < 10000 && strcmp(hako_vm_get(vm, "status"), want); i++)
		usleep(1000);
	ck_assert_str_eq(hako_vm_get(vm, "status"), want);
}

START_TEST(errors_of_disks_pause)
{
	struct hako_vm *vm = new_vm(machines[_i], "2");
	uint32_t count;
	int events = 0;

	hako_vm_set_event(vm, count_event, &events);
	ck_assert_str_eq(hako_vm_get(vm, "status"), "prelaunch");
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(hako_vm_start(vm, &err), 0);
		ck_assert_str_eq(hako_vm_get(vm, "status"), "running");
		wait_above(vm, COUNTER, 0);
		vm_pause_for_error((struct vm *)vm, "disk0: %s", "full");
		vm_pause_for_error((struct vm *)vm, "disk0: %s", "still full");
		wait_status(vm, "io-error");
		count = peek(vm, COUNTER);
		usleep(5000);
		ck_assert_uint_eq(peek(vm, COUNTER), count);
	}
	ck_assert_int_eq(__atomic_load_n(&events, __ATOMIC_SEQ_CST), 3);
	vm_request((struct vm *)vm, VM_REQUEST_CONTINUE, 0);
	wait_above(vm, COUNTER, count);
	ck_assert_str_eq(hako_vm_get(vm, "status"), "running");
	vm_request((struct vm *)vm, VM_REQUEST_CONTINUE, 0); /* runs already */
	wait_above(vm, COUNTER, peek(vm, COUNTER));
	ck_assert_int_eq(hako_vm_pause(vm, &err), 0);
	ck_assert_str_eq(hako_vm_get(vm, "status"), "paused");
	ck_assert_int_eq(hako_vm_stop(vm, &err), 0);
	ck_assert_str_eq(hako_vm_get(vm, "status"), "shutdown");
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(stop_ends)
{
	struct hako_vm *vm = new_vm(machines[_i], "1");
	struct pollfd p = {.fd = hako_vm_end_fd(vm), .events = POLLIN};
	struct hako_exit_info info;

	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	ck_assert_int_eq(hako_vm_powerdown(vm, &err), 0); /* this guest does not listen */
	ck_assert_int_eq(poll(&p, 1, 20), 0);
	ck_assert_int_eq(hako_vm_stop(vm, &err), 0);
	ck_assert_int_eq(poll(&p, 1, 10000), 1);
	ck_assert_int_eq(hako_vm_wait(vm, 0, &info, &err), 0);
	ck_assert_int_eq(info.reason, HAKO_EXIT_STOPPED);
	ck_assert_int_eq(hako_vm_start(vm, &err), -ESHUTDOWN);
	ck_assert_int_eq(hako_vm_pause(vm, &err), -ESHUTDOWN);
	ck_assert_int_eq(hako_vm_reset(vm, &err), -ESHUTDOWN);
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(wrong_order)
{
	struct hako_vm *vm;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_start(vm, &err), -EINVAL);
	ck_assert_int_eq(hako_vm_pause(vm, &err), -EINVAL);
	ck_assert_int_eq(hako_vm_end_fd(vm), -1);
	ck_assert_int_eq(hako_vm_set(vm, "colour", "red", &err), -EINVAL);
	ck_assert_int_eq(hako_vm_create(vm, &err), -EINVAL); /* no kernel */
	ck_assert_int_eq(hako_vm_set(vm, "kernel", kernel, &err), -EBUSY);
	hako_vm_destroy(vm);
	hako_vm_destroy(NULL);
	vm = new_vm("micro", "1");
	ck_assert_int_eq(hako_vm_set(vm, "name", "x", &err), -EBUSY);
	ck_assert_int_eq(hako_vm_create(vm, &err), -EBUSY);
	hako_vm_destroy(vm);
}
END_TEST

static unsigned int pages_there(void *p, size_t len)
{
	uint8_t there[4 * MiB / PAGE_SIZE];
	unsigned int n = 0;

	ck_assert_int_eq(mincore(p, len, there), 0);
	for (size_t i = 0; i < len / PAGE_SIZE; i++)
		n += there[i] & 1;
	return n;
}

/* What the guest will touch soon is there once it runs, and not before. */
START_TEST(soon_is_touched)
{
	const uint64_t gpa = 7 * MiB, len = 4 * MiB;
	struct hako_vm *vm = new_vm(machines[0], "1");
	void *p = memory_ptr(&((struct vm *)vm)->mem, gpa, len);

	ck_assert_ptr_nonnull(p);
	vm_touch_soon((struct vm *)vm, gpa, len);
	vm_touch_soon((struct vm *)vm, UINT64_MAX, 1);
	usleep(20000);
	ck_assert_uint_eq(pages_there(p, len), 0);
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	for (int i = 0; i < 1000 && pages_there(p, len) < len / PAGE_SIZE; i++)
		usleep(10000);
	ck_assert_uint_eq(pages_there(p, len), len / PAGE_SIZE);
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(many_at_once)
{
	struct hako_vm *vm[6];

	for (int i = 0; i < 6; i++) {
		vm[i] = new_vm(machines[i % 2], "1");
		ck_assert_int_eq(hako_vm_start(vm[i], &err), 0);
	}
	for (int i = 0; i < 6; i++)
		wait_above(vm[i], COUNTER, 0);
	for (int i = 0; i < 6; i++)
		hako_vm_destroy(vm[i]);
}
END_TEST

/* However quickly a request is carried out, the vCPUs go on afterwards. */
START_TEST(panics_do_not_stop_it)
{
	static const uint8_t code[16] = {
		0xff, 0x05, 0x00, 0x00, 0x20, 0x00, /* 1: incl COUNTER */
		0x66, 0xba, 0x05, 0x05,		    /* mov $0x505, %dx */
		0xb0, 0x01,			    /* mov $1, %al: panicked */
		0xee,				    /* out %al, %dx */
		0xeb, 0xf1,			    /* jmp 1b */
	};
	struct hako_vm *vm;

	write_kernel(code);
	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	hako_vm_set(vm, "kernel", kernel, &err);
	hako_vm_set(vm, "panic", "none", &err);
	hako_vm_set(vm, "device", "pvpanic", &err);
	ck_assert_msg(!hako_vm_create(vm, &err), "%s", err.message);
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	for (uint32_t n = 0; n < 20000; n += 1000)
		wait_above(vm, COUNTER, n);
	hako_vm_destroy(vm);
}
END_TEST

/* The C library tells all threads of a new user ID by signal, and waits for each. */
START_TEST(user_id_can_change)
{
	struct hako_vm *vm = new_vm("micro", "2");

	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	wait_above(vm, COUNTER, 0);
	ck_assert_int_eq(setresuid(-1, -1, -1), 0);
	wait_above(vm, COUNTER, peek(vm, COUNTER));
	hako_vm_destroy(vm);
}
END_TEST

/* KVM refuses all routes if one is nonsense: a message that no local APIC could take. */
START_TEST(bad_message_harms_no_other)
{
	const uint64_t good = 0xfee00000, bad = 0x1fee00000;
	struct hako_vm *vm = new_vm("micro", "1");
	struct msi a, b;

	ck_assert_int_eq(msi_init(&a, (struct vm *)vm, &err), 0);
	ck_assert_int_eq(msi_init(&b, (struct vm *)vm, &err), 0);
	ck_assert_int_eq(msi_update(&b, bad, 0x31, false, &err), -EINVAL);
	ck_assert_int_eq(msi_update(&b, bad, 0x31, false, &err), -EINVAL);
	ck_assert_int_eq(msi_update(&a, good, 0x32, false, &err), 0);
	ck_assert_int_eq(msi_update(&b, good, 0x31, false, &err), 0);
	ck_assert_int_eq(msi_update(&b, bad, 0x31, false, &err), -EINVAL);
	ck_assert_int_eq(msi_update(&b, bad, 0x31, false, &err), -EINVAL);
	ck_assert_int_eq(msi_update(&a, good, 0x33, false, &err), 0);
	ck_assert_int_eq(msi_update(&b, good, 0x31, false, &err), 0);
	msi_free(&a);
	msi_free(&b);
	hako_vm_destroy(vm);
}
END_TEST

/* A guest that does nothing but reset itself, and a caller who wants other things meanwhile. */
START_TEST(resets_without_end)
{
	static const uint8_t code[16] = {
		0xff, 0x05, 0x04, 0x00, 0x20, 0x00, /* incl BOOTS */
		0xb0, 0xfe,			    /* mov $0xfe, %al */
		0xe6, 0x64,			    /* out %al, $0x64: the i8042's reset line */
		0xeb, 0xfe,			    /* 1: jmp 1b */
	};
	struct hako_exit_info info;
	struct hako_vm *vm;
	uint32_t boots;
	size_t heap;

	write_kernel(code);
	vm = new_vm(machines[_i], "2");
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	wait_above(vm, BOOTS, 20);
	heap = mallinfo2().uordblks;
	for (int i = 0; i < 20; i++) {
		wait_above(vm, BOOTS, peek(vm, BOOTS) + 5);
		ck_assert_int_eq(hako_vm_pause(vm, &err), 0);
		boots = peek(vm, BOOTS);
		usleep(2000);
		ck_assert_uint_eq(peek(vm, BOOTS), boots);
		ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
		ck_assert_int_eq(hako_vm_start(vm, &err), 0);
		ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	}
	ck_assert_uint_lt(mallinfo2().uordblks, heap + 16 * KiB);
	ck_assert_int_eq(hako_vm_stop(vm, &err), 0);
	ck_assert_int_eq(hako_vm_wait(vm, 0, &info, &err), 0);
	ck_assert_int_eq(info.reason, HAKO_EXIT_STOPPED);
	hako_vm_destroy(vm);
}
END_TEST

static int open_descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

START_TEST(nothing_is_left)
{
	int before;

	hako_vm_destroy(new_vm(machines[_i], "1")); /* what libraries keep is kept now */
	before = open_descriptors();
	for (int i = 0; i < 5; i++) {
		struct hako_vm *vm = new_vm(machines[_i], "2");

		hako_vm_start(vm, &err);
		hako_vm_destroy(vm);
	}
	ck_assert_int_eq(open_descriptors(), before);
}
END_TEST

/* What is asked of the balloon, and what it says; there is none unless it is asked for. */
START_TEST(balloon)
{
	struct hako_balloon_info info = {.size = sizeof(info)};
	struct hako_vm *vm;

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_balloon(vm, 8 * MiB, &err), -EINVAL);
	hako_vm_destroy(vm);
	vm = new_vm(machines[_i], "1");
	ck_assert_int_eq(hako_vm_balloon(vm, 8 * MiB, &err), -ENODEV);
	ck_assert_int_eq(hako_vm_balloon_info(vm, &info, &err), -ENODEV);
	hako_vm_destroy(vm);

	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "machine", machines[_i], &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "memory", "16M", &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "kernel", kernel, &err), 0);
	ck_assert_int_eq(hako_vm_set(vm, "balloon", "12", &err), 0);
	ck_assert_msg(!hako_vm_create(vm, &err), "%s", err.message);
	ck_assert_int_eq(hako_vm_balloon_info(vm, &info, &err), 0);
	ck_assert_uint_eq(info.target, 12 * MiB);
	ck_assert_uint_eq(info.actual, 16 * MiB);
	ck_assert_int_eq(info.stats_age_ms, -1);
	ck_assert_uint_eq(info.size, sizeof(info));
	ck_assert_int_eq(hako_vm_balloon(vm, 0, &err), -ERANGE);
	ck_assert_int_eq(hako_vm_balloon(vm, 16 * MiB + 1, &err), -ERANGE);
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	ck_assert_int_eq(hako_vm_balloon(vm, 4 * MiB, &err), 0);
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	/* A program that knows less of the struct gets less. */
	info.target = 0;
	info.actual = 7;
	info.size = offsetof(struct hako_balloon_info, actual);
	ck_assert_int_eq(hako_vm_balloon_info(vm, &info, &err), 0);
	ck_assert_uint_eq(info.target, 4 * MiB);
	ck_assert_uint_eq(info.actual, 7);
	ck_assert_int_eq(hako_vm_stop(vm, &err), 0);
	ck_assert_int_eq(hako_vm_balloon(vm, 8 * MiB, &err), -ESHUTDOWN);
	hako_vm_destroy(vm);
}
END_TEST

/* Creation fails at every step in turn, for want of a descriptor, and leaves nothing. */
START_TEST(fails_at_every_step)
{
	static const char *const options[][2] = {
		{"memory", "16M"},	    {"cpus", "2"},
		{"iothread", "io"},	    {"net", "user"},
		{"console", "virtio:null"}, {"console", "null"},
		{"device", "virtio-rng"},
	};
	struct rlimit limit, before;
	int n, r = -1, failed = 0;
	struct hako_vm *vm;
	char disk[96];

	snprintf(disk, sizeof(disk), "%s,read-only=on,iothread=io", kernel);
	hako_vm_destroy(new_vm(machines[_i % 2], "1"));
	getrlimit(RLIMIT_NOFILE, &before);
	n = open_descriptors();
	limit = before;
	for (limit.rlim_cur = n; r && limit.rlim_cur < 300u + n; limit.rlim_cur++) {
		ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
		for (size_t i = 0; i < ARRAY_SIZE(options); i++)
			ck_assert_int_eq(hako_vm_set(vm, options[i][0], options[i][1], &err), 0);
		hako_vm_set(vm, "machine", machines[_i % 2], &err);
		hako_vm_set(vm, "loop", _i < 2 ? "auto" : "threads", &err);
		hako_vm_set(vm, "kernel", kernel, &err);
		hako_vm_set(vm, "disk", disk, &err);
		setrlimit(RLIMIT_NOFILE, &limit);
		r = hako_vm_create(vm, &err);
		failed += r != 0;
		if (r) {
			ck_assert_int_lt(r, 0);
			ck_assert_int_eq(err.code, r);
			ck_assert_ptr_null(strchr(err.message, '\n'));
			ck_assert_int_eq(hako_vm_start(vm, NULL), -ESHUTDOWN);
		}
		hako_vm_destroy(vm);
		setrlimit(RLIMIT_NOFILE, &before);
		ck_assert_int_eq(open_descriptors(), n);
	}
	ck_assert_msg(!r, "%s", err.message);
	ck_assert_int_gt(failed, 5);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vm");
	TCase *tc = tcase_create("life");
	SRunner *sr;
	int failed;

	if (access("/dev/kvm", R_OK | W_OK)) {
		puts("skip unit/vm no access to /dev/kvm\n100%: Checks: 0");
		return 0;
	}
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, pause_is_exact, 0, 2);
	tcase_add_test(tc, serial_ports_in_acpi);
	tcase_add_loop_test(tc, balloon, 0, 2);
	tcase_add_loop_test(tc, failed_creation_is_an_end, 0, 2);
	tcase_add_loop_test(tc, reset_starts_anew, 0, 2);
	tcase_add_test(tc, memory_types);
	tcase_add_loop_test(tc, events_are_forgotten, 0, 2);
	tcase_add_test(tc, no_reboot_ends);
	tcase_add_loop_test(tc, errors_of_disks_pause, 0, 2);
	tcase_add_loop_test(tc, stop_ends, 0, 2);
	tcase_add_test(tc, wrong_order);
	tcase_add_test(tc, soon_is_touched);
	tcase_add_test(tc, many_at_once);
	tcase_add_test(tc, panics_do_not_stop_it);
	tcase_add_test(tc, user_id_can_change);
	tcase_add_test(tc, bad_message_harms_no_other);
	tcase_add_loop_test(tc, resets_without_end, 0, 2);
	tcase_add_loop_test(tc, nothing_is_left, 0, 2);
	tcase_add_loop_test(tc, fails_at_every_step, 0, 4);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
