/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any bytes as what a debugger says to a VM of two vCPUs, for which this program stands in: they stop when they are to, now and then by
 * themselves, and have whatever registers were written last. No answer may be larger than there is room for, and a debugger that has gone
 * leaves no breakpoints.
 *
 * The first byte: 0, the rest comes as it is; else it is lines, of which each becomes a packet with the right sum.
 */
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "arch/x86/debug.h"
#include "vmm/gdb/session.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

#define RAM  (1 * MiB)
#define VCPU 1000000 /* its descriptor, and those of the next ones */
#define CPUS 2

static struct vm *vm;
static struct vcpu vcpu[CPUS];
static struct kvm_regs regs[CPUS];
static struct kvm_sregs sregs[CPUS];
static struct kvm_xsave xsave[CPUS];

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	unsigned int n = fd - VCPU;
	struct kvm_translation *t;
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (n >= CPUS)
		return __real_ioctl(fd, request, arg);
	switch (request) {
	case KVM_GET_REGS:
		memcpy(arg, &regs[n], sizeof(regs[n]));
		break;
	case KVM_SET_REGS:
		memcpy(&regs[n], arg, sizeof(regs[n]));
		break;
	case KVM_GET_SREGS:
		memcpy(arg, &sregs[n], sizeof(sregs[n]));
		break;
	case KVM_SET_SREGS:
		memcpy(&sregs[n], arg, sizeof(sregs[n]));
		break;
	case KVM_GET_XSAVE:
		memcpy(arg, &xsave[n], sizeof(xsave[n]));
		break;
	case KVM_SET_XSAVE:
		memcpy(&xsave[n], arg, sizeof(xsave[n]));
		break;
	case KVM_TRANSLATE:
		t = arg;
		t->valid = !(t->linear_address >> 47 & 1);
		t->physical_address = t->linear_address & ~(1ull << 46);
		break;
	case KVM_GET_MP_STATE:
		((struct kvm_mp_state *)arg)->mp_state = n;
		break;
	case KVM_SET_GUEST_DEBUG:
		break;
	default:
		abort();
	}
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (vm_new_plain(&vm, RAM, NULL) < 0)
		abort();
	vm->debug = debug_new(vm);
	vm->vcpu = vcpu;
	vm->nvcpus = CPUS;
	for (unsigned int i = 0; i < CPUS; i++) {
		vcpu[i].vm = vm;
		vcpu[i].index = i;
		vcpu[i].fd = VCPU + i;
	}
	return 0;
}

/* What would come by message and from the vCPUs. */
static void world(struct gdb_session *s, unsigned int count)
{
	if (s->out_len > sizeof(s->out) / 2)
		abort();
	s->out_len = 0;
	if (s->stopped || !(s->waiting || s->leaving))
		return;
	vcpu[count % CPUS].debug.stop = count % (VCPU_STOP_ACCESS + 1);
	gdb_session_held(s);
	s->out_len = 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char frame[GDB_FRAME_MAX];
	struct gdb_session *s = calloc(1, sizeof(*s));
	unsigned int count = 0;

	if (!s || gdb_session_init(s, vm))
		abort();
	vm->request = 0;
	gdb_session_open(s);
	for (size_t i = 1, n; i < size; i += n + 1) {
		const uint8_t *end = memchr(data + i, '\n', size - i);
		const char *bytes = (const char *)data + i;
		size_t len = n = end ? (size_t)(end - data) - i : size - i;

		if (*data) {
			len = gdb_frame(frame, bytes, MIN(len, (size_t)GDB_PACKET_MAX));
			bytes = frame;
		}
		for (size_t k = 0; k < len; k++) {
			gdb_session_take(s, bytes[k]);
			world(s, count++);
		}
	}
	gdb_session_close(s);
	if (!s->stopped)
		gdb_session_held(s);
	if (vm->debug->nsoft && !s->attached)
		abort();
	debug_remove_all(vm);
	gdb_session_end(s);
	gdb_session_free(s);
	free(s);
	return 0;
}
