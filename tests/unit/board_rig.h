/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A whole board without KVM: a VM as the command line makes it, whose vCPU performs a list of accesses instead of running a guest. They go the
 * way of a guest's, through KVM_RUN's exits, so that pauses, resets and requests are those of real VMs. The program that includes this is
 * linked with --wrap=ioctl (Makefile, BOARD_RIGS).
 *
 *   static const struct board_op ops[] = {BOARD_OUT(0x70, 0x0a, 1), BOARD_IN(0x71, 1)};
 *
 *   board_open("q35");
 *   board_play(ops, ARRAY_SIZE(ops));
 *   board_close();
 */
#ifndef TESTS_UNIT_BOARD_RIG_H
#define TESTS_UNIT_BOARD_RIG_H

#include <elf.h>
#include <errno.h>
#include <linux/kvm.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "virtio/transport.h"
#include "vmm/hako.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

#define BOARD_RAM   (4 * MiB)
#define BOARD_DISK  (1 * MiB)
#define BOARD_CARDS 8

enum board_op_kind {
	BOARD_OP_OUT,
	BOARD_OP_IN,
	BOARD_OP_STORE,
	BOARD_OP_LOAD,
	BOARD_OP_RAM,	/* the guest writes to its memory */
	BOARD_OP_WAIT,	/* until the loop has done what it was told of, if that is soon */
	BOARD_OP_FRAME, /* comes from the network */
	BOARD_OP_TYPE,	/* is typed at the console */
};

struct board_op {
	enum board_op_kind kind;
	unsigned int size; /* bytes */
	uint64_t addr, value;
	const void *data;
	uint64_t *result; /* of a read, unless NULL */
};

#define BOARD_OUT(PORT, VALUE, SIZE)                                             \
	{                                                                        \
		.kind = BOARD_OP_OUT, .addr = PORT, .value = VALUE, .size = SIZE \
	}
#define BOARD_IN(PORT, SIZE)                                     \
	{                                                        \
		.kind = BOARD_OP_IN, .addr = PORT, .size = SIZE, \
	}
#define BOARD_STORE(ADDR, VALUE, SIZE)                                             \
	{                                                                          \
		.kind = BOARD_OP_STORE, .addr = ADDR, .value = VALUE, .size = SIZE \
	}
#define BOARD_LOAD(ADDR, SIZE)                                     \
	{                                                          \
		.kind = BOARD_OP_LOAD, .addr = ADDR, .size = SIZE, \
	}
#define BOARD_RAM_WRITE(ADDR, DATA, SIZE)                                       \
	{                                                                       \
		.kind = BOARD_OP_RAM, .addr = ADDR, .data = DATA, .size = SIZE, \
	}
#define BOARD_WAIT                    \
	{                             \
		.kind = BOARD_OP_WAIT \
	}
#define BOARD_FRAME(DATA, SIZE)                                     \
	{                                                           \
		.kind = BOARD_OP_FRAME, .data = DATA, .size = SIZE, \
	}
#define BOARD_TYPE(DATA, SIZE)                                     \
	{                                                          \
		.kind = BOARD_OP_TYPE, .data = DATA, .size = SIZE, \
	}

struct board_rig {
	struct vm *vm;
	int disk, network, console, vsock; /* the host's ends */
	struct virtio_device *card[BOARD_CARDS];
	uint64_t base[BOARD_CARDS]; /* of their registers, after a reset */
	unsigned int ncards;
	char share[256];

	pthread_mutex_t lock;
	pthread_cond_t changed;
	const struct board_op *op;
	size_t n, at;
	bool done;
};

/* One at a time: KVM's descriptors do not say whose they are. */
static struct board_rig rig = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

#define BOARD_CHECK(X)                                                          \
	do {                                                                    \
		if (!(X)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #X); \
			abort();                                                \
		}                                                               \
	} while (0)

/* --- what KVM would do ------------------------------------------------------------------------ */

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

/* The VM's threads block all signals; those of their own mistakes are to be reported. */
static void board_unblock(void)
{
	static __thread bool done;
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
	sigset_t set;

	if (done)
		return;
	done = true;
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* In the loop. What is asked of disks and directories; receive buffers stay. */
static void board_count(void *arg)
{
	unsigned int *busy = arg;

	board_unblock();
	*busy = 0;
	for (unsigned int i = 0; i < rig.ncards; i++)
		for (unsigned int q = 0; q < rig.card[i]->nqueues; q++)
			*busy += rig.card[i]->vq[q].inflight;
}

/* Doorbells are descriptors that the loop polls: its next turn sees them, and one more what was put off. The rest may be with its threads. */
static void board_wait(struct vm *vm)
{
	unsigned int busy;

	for (int i = 0; i < 3; i++)
		loop_call(vm->io_loop, board_count, &busy);
	for (int i = 0; busy && i < 10; i++) {
		usleep(50);
		loop_call(vm->io_loop, board_count, &busy);
	}
}

/* Who connects to the host's port is accepted, given a word, and left alone with it. */
static void board_accept(void)
{
	int fd;

	while ((fd = accept4(rig.vsock, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		(void)!send(fd, "word", 4, MSG_NOSIGNAL);
		close(fd);
	}
}

/* In the vCPU's thread. True: KVM_RUN returns. */
static bool board_step(struct vcpu *v, const struct board_op *op)
{
	struct kvm_run *run = v->run;
	bool port = op->kind == BOARD_OP_IN || op->kind == BOARD_OP_OUT;
	bool out = op->kind == BOARD_OP_OUT || op->kind == BOARD_OP_STORE;
	void *ram;

	switch (op->kind) {
	case BOARD_OP_OUT:
	case BOARD_OP_IN:
	case BOARD_OP_STORE:
	case BOARD_OP_LOAD:
		if (port) {
			run->exit_reason = KVM_EXIT_IO;
			run->io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
			run->io.port = op->addr;
			run->io.size = op->size;
			run->io.count = 1;
			run->io.data_offset = 4096;
			memcpy((uint8_t *)run + 4096, &op->value, 8);
		} else {
			run->exit_reason = KVM_EXIT_MMIO;
			run->mmio.is_write = out;
			run->mmio.phys_addr = op->addr;
			run->mmio.len = op->size;
			memcpy(run->mmio.data, &op->value, 8);
		}
		return true;
	case BOARD_OP_RAM:
		ram = memory_ptr(&v->vm->mem, op->addr, op->size);
		if (ram)
			memcpy(ram, op->data, op->size);
		break;
	case BOARD_OP_WAIT:
		board_wait(v->vm);
		board_accept();
		break;
	case BOARD_OP_FRAME:
		(void)!send(rig.network, op->data, op->size, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case BOARD_OP_TYPE:
		(void)!send(rig.console, op->data, op->size, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	}
	return false;
}

static void board_take_result(struct vcpu *v, const struct board_op *op)
{
	if (!op->result)
		return;
	*op->result = 0;
	memcpy(op->result, op->kind == BOARD_OP_IN ? (uint8_t *)v->run + 4096 : v->run->mmio.data,
	       op->size);
}

static int board_run(struct vcpu *v)
{
	char lost[4096];

	if (rig.at && rig.at <= rig.n)
		board_take_result(v, &rig.op[rig.at - 1]);
	/* What the guest sends is looked at by nobody. */
	while (recv(rig.network, lost, sizeof(lost), MSG_DONTWAIT) > 0 ||
	       recv(rig.console, lost, sizeof(lost), MSG_DONTWAIT) > 0)
		;
	while (!v->run->immediate_exit && !__atomic_load_n(&v->must_stop, __ATOMIC_ACQUIRE)) {
		struct pollfd kick = {.fd = -1, .events = POLLIN};
		sigset_t set;

		if (rig.at < rig.n) {
			if (board_step(v, &rig.op[rig.at++]))
				return 0;
			continue;
		}
		pthread_mutex_lock(&rig.lock);
		rig.done = true;
		pthread_cond_broadcast(&rig.changed);
		pthread_mutex_unlock(&rig.lock);
		sigemptyset(&set);
		sigaddset(&set, SIGRTMIN + 1);
		kick.fd = signalfd(-1, &set, SFD_CLOEXEC);
		poll(&kick, 1, -1);
		close(kick.fd);
		break;
	}
	errno = EINTR;
	return -1;
}

/* Success, and zeroes, will do for most of it. */
static int board_kvm(int fd, unsigned long request, void *arg)
{
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CHECK_EXTENSION:
	case KVM_SIGNAL_MSI:
		return 1;
	case KVM_GET_VCPU_MMAP_SIZE:
		return 3 * 4096;
	case KVM_CREATE_VM:
	case KVM_CREATE_VCPU:
		fd = memfd_create("kvm", MFD_CLOEXEC);
		return fd < 0 || ftruncate(fd, 3 * 4096) ? -1 : fd;
	case KVM_GET_SUPPORTED_CPUID:
		((struct kvm_cpuid2 *)arg)->nent = 0;
		return 0;
	case KVM_GET_MSR_INDEX_LIST:
		((struct kvm_msr_list *)arg)->nmsrs = 0;
		return 0;
	case KVM_GET_MSRS:
	case KVM_SET_MSRS:
		return ((struct kvm_msrs *)arg)->nmsrs;
	case KVM_SET_SIGNAL_MASK: /* the first thing that a vCPU's thread asks for */
		board_unblock();
		return 0;
	case KVM_RUN:
		return board_run(&rig.vm->vcpu[0]);
	default:
		return 0;
	}
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	return _IOC_TYPE(request) == KVMIO ? board_kvm(fd, request, arg)
					   : __real_ioctl(fd, request, arg);
}

/* --- the VM ----------------------------------------------------------------------------------- */

/* An ELF file with a PVH note: what is loaded there is not run. */
static int board_kernel(void)
{
	static const struct {
		Elf32_Ehdr e;
		Elf32_Phdr p[2];
		uint32_t note[5];
		uint32_t code;
	} image = {
		.e = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		      .e_type = ET_EXEC,
		      .e_machine = EM_386,
		      .e_version = EV_CURRENT,
		      .e_phoff = sizeof(Elf32_Ehdr),
		      .e_ehsize = sizeof(Elf32_Ehdr),
		      .e_phentsize = sizeof(Elf32_Phdr),
		      .e_phnum = 2},
		.p = {{.p_type = PT_LOAD,
		       .p_offset = 136,
		       .p_paddr = 0x100000,
		       .p_filesz = 4,
		       .p_memsz = 4},
		      {.p_type = PT_NOTE, .p_offset = 116, .p_filesz = 20, .p_align = 4}},
		.note = {4, 4, 18, 'X' | 'e' << 8 | 'n' << 16, 0x100000},
		.code = 0xf4,
	};
	int fd = memfd_create("kernel", MFD_CLOEXEC);

	BOARD_CHECK(fd >= 0 && write(fd, &image, sizeof(image)) == sizeof(image));
	return fd;
}

static void board_set(struct hako_vm *vm, const char *option, const char *value)
{
	struct hako_error err;

	if (hako_vm_set(vm, option, value, &err)) {
		fprintf(stderr, "--%s %s: %s\n", option, value, err.message);
		abort();
	}
}

static void board_find_cards(void)
{
	struct virtio_device *vdev;
	struct object *obj;

	rig.ncards = 0;
	list_for_each(obj, &rig.vm->objects[CLASS_DEVICE], link) {
		if (strncmp(obj->class->name, "virtio-", 7) != 0)
			continue;
		vdev = (struct virtio_device *)obj;
		BOARD_CHECK(rig.ncards < BOARD_CARDS);
		rig.card[rig.ncards] = vdev;
		rig.base[rig.ncards] = vdev->mmio ? vdev->mmio->base : vdev->pci->bar_addr;
		rig.ncards++;
	}
}

static void board_start(void)
{
	struct hako_error err;

	if (hako_vm_start((struct hako_vm *)rig.vm, &err)) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
}

/* A socket in the shared directory. */
static int board_listen(const char *name)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	BOARD_CHECK(snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", rig.share, name) <
		    (int)sizeof(sun.sun_path));
	BOARD_CHECK(fd >= 0 && !bind(fd, (struct sockaddr *)&sun, sizeof(sun)) && !listen(fd, 64));
	return fd;
}

/* Machine @machine with one virtio device of each type, and all that a board has besides. */
static inline void board_open(const char *machine)
{
	int kernel = board_kernel(), net[2], console[2];
	struct hako_error err;
	struct hako_vm *vm;
	char text[512];

	BOARD_CHECK(hako_vm_new(&vm, &err) == 0);
	memset(rig.card, 0, sizeof(rig.card));
	rig.vm = (struct vm *)vm;
	rig.op = NULL;
	rig.n = rig.at = 0;
	snprintf(rig.share, sizeof(rig.share), "%s/hako-board-XXXXXX", getenv("TMPDIR") ?: "/tmp");
	BOARD_CHECK(mkdtemp(rig.share));
	rig.disk = memfd_create("disk", MFD_CLOEXEC);
	BOARD_CHECK(rig.disk >= 0 && !ftruncate(rig.disk, BOARD_DISK));
	BOARD_CHECK(!socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, net));
	BOARD_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, console));
	rig.network = net[1];
	rig.console = console[1];

	board_set(vm, "kvm", "/dev/null");
	board_set(vm, "machine", machine);
	board_set(vm, "memory", "4M");
	board_set(vm, "panic", "none");
	snprintf(text, sizeof(text), "/proc/self/fd/%d", kernel);
	board_set(vm, "kernel", text);
	snprintf(text, sizeof(text),
		 "file,node-name=disk,discard=unmap,detect-zeroes=unmap,filename=/proc/self/fd/%d",
		 rig.disk);
	board_set(vm, "blockdev", text);
	board_set(vm, "device", "virtio-blk,drive=disk,num-queues=2,packed=on");
	snprintf(text, sizeof(text), "dgram,id=net,local.type=fd,local.str=%d", net[0]);
	board_set(vm, "netdev", text);
	board_set(vm, "device", "virtio-net,netdev=net,packed=on");
	snprintf(text, sizeof(text), "socket,id=console,fd=%d", console[0]);
	board_set(vm, "chardev", text);
	for (int i = 0; i < 3; i++) {
		snprintf(text, sizeof(text), "null,id=null%d", i);
		board_set(vm, "chardev", text);
	}
	board_set(vm, "device", "virtio-serial,packed=on");
	board_set(vm, "device", "virtconsole,chardev=console");
	board_set(vm, "device", "virtserialport,chardev=null0,name=port");
	board_set(vm, "device", "isa-serial,chardev=null1");
	board_set(vm, "device", "isa-debugcon,chardev=null2");
	board_set(vm, "device", "pvpanic");
	board_set(vm, "device", "virtio-rng,packed=on");
	board_set(vm, "balloon",
		  "2M,deflate-on-oom=on,free-page-reporting=on,free-page-hint=on,"
		  "guest-stats-polling-interval=1,packed=on");
	snprintf(text, sizeof(text), "local,id=share,readonly=on,path=%s", rig.share);
	board_set(vm, "fsdev", text);
	board_set(vm, "device", "virtio-9p,fsdev=share,mount_tag=share,packed=on");
	/* Somebody is at port 1000 of the host. */
	snprintf(text, sizeof(text), "4,backend=unix,packed=on,path=%s/vsock", rig.share);
	board_set(vm, "vsock", text);
	rig.vsock = board_listen("vsock_1000");
	if (!strcmp(machine, "q35")) {
		board_set(vm, "device", "pcie-root-port,id=port");
		board_set(vm, "device", "virtio-rng,bus=port");
	}
	if (hako_vm_create(vm, &err)) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	close(kernel);
	board_find_cards();
}

static void board_remove_share(void)
{
	static const char *const names[] = {"vsock", "vsock_1000"};
	char path[300];

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", rig.share, names[i]);
		unlink(path);
	}
	rmdir(rig.share);
}

static inline void board_close(void)
{
	hako_vm_destroy((struct hako_vm *)rig.vm);
	close(rig.disk);
	close(rig.network);
	close(rig.console);
	close(rig.vsock);
	board_remove_share();
	rig.vm = NULL;
}

static bool board_runs(void)
{
	return !strcmp(hako_vm_get((struct hako_vm *)rig.vm, "status"), "running");
}

/* From a reset on. Returns when all has been done or nothing more can be, false if the VM has ended. */
static inline bool board_play(const struct board_op *ops, size_t n)
{
	struct hako_vm *vm = (struct hako_vm *)rig.vm;
	struct hako_error err;

	BOARD_CHECK(!hako_vm_pause(vm, &err));
	memset(memory_ptr(&rig.vm->mem, 0, BOARD_RAM), 0, BOARD_RAM);
	BOARD_CHECK(!ftruncate(rig.disk, 0) && !ftruncate(rig.disk, BOARD_DISK));
	if (hako_vm_reset(vm, &err)) {
		fprintf(stderr, "%s\n", err.message);
		abort();
	}
	pthread_mutex_lock(&rig.lock);
	rig.op = ops;
	rig.n = n;
	rig.at = 0;
	rig.done = false;
	pthread_mutex_unlock(&rig.lock);
	board_start();
	for (;;) {
		struct timespec t;
		bool done;

		clock_gettime(CLOCK_REALTIME, &t);
		t.tv_nsec += 5000000;
		if (t.tv_nsec >= 1000000000) {
			t.tv_sec++;
			t.tv_nsec -= 1000000000;
		}
		pthread_mutex_lock(&rig.lock);
		if (!rig.done)
			pthread_cond_timedwait(&rig.changed, &rig.lock, &t);
		done = rig.done;
		pthread_mutex_unlock(&rig.lock);
		if (done || !board_runs())
			break;
	}
	return strcmp(hako_vm_get(vm, "status"), "shutdown") != 0;
}

/* --- a driver of virtio ------------------------------------------------------------------------- */

/* A list of accesses that is being made. What does not fit is left out. */
struct board_ops {
	struct board_op op[4096];
	size_t n;
	uint8_t data[65536]; /* what they write to RAM */
	size_t used;
};

static inline void board_add(struct board_ops *ops, struct board_op op)
{
	if (ops->n < ARRAY_SIZE(ops->op))
		ops->op[ops->n++] = op;
}

static inline void board_add_ram(struct board_ops *ops, uint64_t gpa, const void *data, size_t size)
{
	if (size > sizeof(ops->data) - ops->used)
		return;
	memcpy(ops->data + ops->used, data, size);
	board_add(ops, (struct board_op)BOARD_RAM_WRITE(gpa, ops->data + ops->used, size));
	ops->used += size;
}

/* Of queue @q of card @card: descriptors, driver's and device's area, a page each. */
#define BOARD_RING(CARD, Q) (0x200000ull + ((CARD)*8 + ((Q)&7)) * 0x3000)
#define BOARD_RING_SIZE	    16

struct board_queue {
	uint16_t next_desc, head,
		idx; /* head: of the chain that is being made; idx: of the available ring */
	bool packed;
};

static struct board_queue board_queue[BOARD_CARDS][8];

/* A register of both transports: virtio 1.2, 4.2.2 and 4.1.4.3. */
static inline void board_register(struct board_ops *ops, unsigned int card, uint32_t mmio,
				  uint32_t pci, unsigned int pci_size, uint32_t value)
{
	bool is_mmio = rig.card[card]->mmio;

	board_add(ops, (struct board_op)BOARD_STORE(rig.base[card] + (is_mmio ? mmio : pci), value,
						    is_mmio ? 4 : pci_size));
}

/* From the reset to DRIVER_OK, with @features of those that are offered; queues up to @queues. */
static inline void board_add_setup(struct board_ops *ops, unsigned int card, uint64_t features,
				   unsigned int queues)
{
	const struct virtio_device *vdev = rig.card[card];

	features = (features & vdev->host_features) | BIT64(32);
	if (vdev->pci) {
		/* Bus master, memory. */
		const struct pci_device *pdev = &vdev->pci->pci, *bridge = pdev->bus->bridge;
		uint32_t bus = bridge ? bridge->config[PCI_SECONDARY_BUS] : 0;
		uint32_t at = 0x80000000u | bus << 16 | pdev->devfn << 8;

		board_add(ops, (struct board_op)BOARD_OUT(0xcf8, at | 4, 4));
		board_add(ops, (struct board_op)BOARD_OUT(0xcfc, 7, 2));
	}
	board_register(ops, card, 0x70, 20, 1, 0);
	board_register(ops, card, 0x70, 20, 1, 3);
	for (unsigned int i = 0; i < 2; i++) {
		board_register(ops, card, 0x24, 8, 4, i);
		board_register(ops, card, 0x20, 12, 4, features >> 32 * i);
	}
	board_register(ops, card, 0x70, 20, 1, 11);
	for (unsigned int q = 0; q < MIN(queues, vdev->nqueues) && q < 8; q++) {
		uint64_t ring = BOARD_RING(card, q);

		board_queue[card][q] = (struct board_queue){.packed = features >> 34 & 1};
		board_register(ops, card, 0x30, 22, 2, q);
		board_register(ops, card, 0x38, 24, 2, BOARD_RING_SIZE);
		board_register(ops, card, 0x80, 32, 4, ring);
		board_register(ops, card, 0x84, 36, 4, 0);
		board_register(ops, card, 0x90, 40, 4, ring + 0x1000);
		board_register(ops, card, 0x94, 44, 4, 0);
		board_register(ops, card, 0xa0, 48, 4, ring + 0x2000);
		board_register(ops, card, 0xa4, 52, 4, 0);
		board_register(ops, card, 0x44, 28, 2, 1);
	}
	board_register(ops, card, 0x70, 20, 1, 15);
}

static inline void board_add_kick(struct board_ops *ops, unsigned int card, uint16_t q)
{
	board_register(ops, card, 0x50, 0x3000 + 4 * q, 2, q);
}

/* One descriptor of a chain; @more: another one follows. The chain counts when its last is added. */
static inline void board_add_desc(struct board_ops *ops, unsigned int card, uint16_t q,
				  uint64_t gpa, uint32_t len, uint16_t flags, bool more)
{
	struct board_queue *bq = &board_queue[card][q & 7];
	uint64_t ring = BOARD_RING(card, q);
	unsigned int at = bq->next_desc % BOARD_RING_SIZE;

	flags = (flags & ~VRING_DESC_F_NEXT) | (more ? VRING_DESC_F_NEXT : 0);
	if (bq->packed) {
		bool wrap = !(bq->next_desc / BOARD_RING_SIZE & 1);
		struct vring_packed_desc d = {gpa, len, at, flags | (wrap ? 1 << 7 : 1 << 15)};

		board_add_ram(ops, ring + 16 * at, &d, sizeof(d));
		bq->next_desc++;
		return;
	}
	struct vring_desc d = {gpa, len, flags, (at + 1) % BOARD_RING_SIZE};

	board_add_ram(ops, ring + 16 * at, &d, sizeof(d));
	bq->next_desc++;
	if (!more) {
		bq->idx++;
		board_add_ram(ops, ring + 0x1000 + 4 + 2 * ((bq->idx - 1) % BOARD_RING_SIZE),
			      &bq->head, 2);
		board_add_ram(ops, ring + 0x1000 + 2, &bq->idx, 2);
		bq->head = bq->next_desc % BOARD_RING_SIZE;
	}
}

#endif
