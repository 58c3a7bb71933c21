/* SPDX-License-Identifier: GPL-2.0-only */
/* A VM's options, as hako_vm_set() and the command line give them, before anything is made of them. */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "memory.h"
#include "option.h"

struct numa;
struct vm;

enum config_decompress {
	DECOMPRESS_AUTO,
	DECOMPRESS_HOST,
	DECOMPRESS_GUEST
};
enum config_panic {
	PANIC_EXIT,
	PANIC_PAUSE,
	PANIC_NONE
};

/* How the CPUs are arranged: counts of each in the next larger one. */
struct config_topology {
	uint32_t sockets, dies, cores, threads;
};

/* What is left to the guest though others may need it: --overcommit. */
struct config_overcommit {
	bool cpu_pm; /* vCPUs keep their CPU when they have nothing to do */
	uint32_t
		halt_poll; /* ns that KVM looks for a wake-up before a vCPU's thread sleeps; CONFIG_HALT_POLL_HOST: the host's setting */
};
#define CONFIG_HALT_POLL_HOST UINT32_MAX

/* What a clock of the guest's does while the VM is paused. */
enum rtc_clock {
	RTC_CLOCK_HOST, /* goes on, as the host's */
	RTC_CLOCK_VM,	/* stands still */
};

/* The guest's clocks: --rtc. What is for the real-time clock is its options (devices/platform/rtc.c), NULL: not given. */
struct config_rtc {
	int kvmclock; /* enum rtc_clock */
	char *base, *clock, *driftfix;
};

struct vm_config {
	char *name, *machine, *memory, *cpus, *cpu, *overcommit, *rtc;
	char *kernel, *initrd, *append;
	int decompress, panic, loop;
	bool no_reboot;
	char *kvm, *gdb;
	char *balloon, *vsock;
	char **disk, **net, **console, **device, **blockdev, **netdev, **chardev, **fsdev,
		**iothread, **pin, **sched, **object, **fw_cfg, **netdev_dump, **numa;
	/* Made of memory and cpus by config_finish(). */
	uint64_t ram_size;
	struct memory_options mem;
	uint32_t ncpus; /* at most what the topology has places for */
	struct config_topology topology;
	struct config_overcommit oc;   /* of overcommit */
	struct config_rtc rtc_options; /* of rtc */
	struct numa *nodes;	       /* of numa, NULL: there are none */
};

extern const struct option vm_config_options[];

/** Check and convert; errors name the option as the command line has it (--memory). */
int config_finish(struct vm_config *config, struct hako_error *err);

/** Of "N,sockets=,dies=,cores=,threads=,maxcpus=": what is left out follows from the rest, as QEMU's -smp has it. */
int config_parse_cpus(const char *text, uint32_t *ncpus, struct config_topology *topology,
		      struct hako_error *err);

/**
 * Have one option set with its value, from "--name=value", "--name value" or "--flag": one of @own (which may be NULL) or of a VM. How many arguments that took, or an
 * error.
 */
int config_parse_arg(const struct option *own, int argc, char **argv,
		     int (*set)(void *opaque, const char *name, const char *value,
				struct hako_error *err),
		     void *opaque, struct hako_error *err);

/** Of "SIZE,share=on,hugepages=2M,…": bytes, and what backs them. */
int config_parse_memory(const char *text, uint64_t *size, struct memory_options *mem,
			struct hako_error *err);

/** Of "cpu-pm=on,halt-poll=NS". */
int config_parse_overcommit(const char *text, struct config_overcommit *oc, struct hako_error *err);

/** Of "base=,clock=,driftfix=,kvmclock=". */
int config_parse_rtc(const char *text, struct config_rtc *rtc, struct hako_error *err);
void config_free_rtc(struct config_rtc *rtc);

/** Make the objects that --chardev, --netdev, --blockdev, --fsdev, --iothread, --object, --console, --disk, --net and --device name. */
int config_create_objects(struct vm *vm, struct hako_error *err);

#endif
