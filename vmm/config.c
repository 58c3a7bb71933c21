/* SPDX-License-Identifier: GPL-2.0-only */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/block/block.h"
#include "devices/char/char.h"
#include "devices/platform/fw_cfg.h"
#include "numa.h"
#include "vm_internal.h"

static const char *const decompress_names[] = {"auto", "host", "guest", NULL};
static const char *const panic_names[] = {"exit", "pause", "none", NULL};
static const char *const loop_names[] = {"auto", "io_uring", "threads", NULL};

#define T struct vm_config
const struct option vm_config_options[] = {
	OPT_STRING("name", T, name, NULL, "name of the VM, and of its threads' owner in logs"),
	OPT_STRING("machine", T, machine, "q35", "board: q35, micro, or a version such as q35-1.0"),
	OPT_STRING(
		"memory", T, memory, "512M",
		"SIZE[,hugepages=on|2M|1G][,prealloc=on][,option=...]: guest memory; a plain number counts MiB"),
	OPT_STRING("cpus", T, cpus, "1",
		   "N[,sockets=S,dies=D,cores=C,threads=T,maxcpus=M]: vCPUs, and how they are "
		   "arranged"),
	OPT_STRING(
		"cpu", T, cpu, "host",
		"host|MODEL[,+FLAG][,-FLAG][,option=...]: what the vCPUs are; help lists models and "
		"flags"),
	OPT_LIST(
		"numa", T, numa,
		"node,cpus=LIST,memory=SIZE[,option=...]|dist,src=N,dst=N,val=D: CPUs and memory that are "
		"near each other"),
	OPT_STRING(
		"overcommit", T, overcommit, "",
		"[cpu-pm=on][,halt-poll=NS]: leave the CPUs to idle guests, or have KVM wait for them "
		"without sleeping"),
	OPT_STRING(
		"rtc", T, rtc, "",
		"[base=utc|localtime|DATE][,clock=host|rt|vm][,driftfix=none|slew][,kvmclock=vm|host]: "
		"the guest's clocks"),
	OPT_STRING("kernel", T, kernel, NULL, "bzImage, ELF or Multiboot kernel to boot"),
	OPT_STRING("initrd", T, initrd, NULL, "initial ramdisk for the kernel"),
	OPT_STRING("append", T, append, NULL, "kernel command line"),
	OPT_ENUM("kernel-decompress", T, decompress, "auto", decompress_names,
		 "who unpacks a bzImage"),
	OPT_LIST("disk", T, disk,
		 "FILE[,option=...]: a disk, with options of its node and of virtio-blk"),
	OPT_LIST("net", T, net,
		 "user|tap|stream|dgram|vhost-user|none[,option=...]: a network card, with options "
		 "of both sides"),
	OPT_LIST(
		"console", T, console,
		"[virtio:]stdio|pty|null|none|file:PATH|unix:PATH: a serial line, or virtio console"),
	OPT_STRING("balloon", T, balloon, NULL,
		   "on|SIZE[,option=...]: the guest can give memory back; it keeps SIZE at first"),
	OPT_STRING(
		"vsock", T, vsock, NULL,
		"CID[,backend=auto|vhost|unix][,path=SOCKET][,option=...]: stream sockets between guest and "
		"host"),
	OPT_LIST("device", T, device, "CLASS[,option=...]: any device, see \"hako help device\""),
	OPT_LIST("blockdev", T, blockdev,
		 "CLASS,node-name=ID,...: a disk node for a device's drive=ID"),
	OPT_LIST("netdev", T, netdev, "CLASS,id=ID,...: a network for a device's netdev=ID"),
	OPT_LIST("netdev-dump", T, netdev_dump,
		 "FILE[,netdev=ID][,option=...]: write a network's frames to a pcap file, as "
		 "--object filter-dump"),
	OPT_LIST("chardev", T, chardev, "CLASS,id=ID,...: a character backend for a chardev=ID"),
	OPT_LIST("fsdev", T, fsdev, "CLASS,id=ID,...: a directory for a device's fsdev=ID"),
	OPT_LIST("iothread", T, iothread, "ID: a thread for disks' and cards' iothread=ID"),
	OPT_LIST(
		"pin", T, pin,
		"vcpus|vcpuN|io|IOTHREAD=CPUS,...: which of the host's CPUs a thread may use, such as 2, "
		"0-3 or 0:2"),
	OPT_LIST(
		"sched", T, sched,
		"vcpus|vcpuN|io|IOTHREAD=fifo:PRIORITY|rr:PRIORITY|batch|idle,...: how threads are "
		"scheduled"),
	OPT_LIST("object", T, object,
		 "CLASS,id=ID,...: what others share, such as a throttle-group"),
	OPT_LIST("fw_cfg", T, fw_cfg,
		 "name=NAME,file=PATH|string=TEXT: an item for the guest's fw_cfg"),
	OPT_BOOL("no-reboot", T, no_reboot, "off", "end instead of restarting the guest"),
	OPT_ENUM("panic", T, panic, "exit", panic_names,
		 "what to do when the guest reports a panic"),
	OPT_ENUM("loop", T, loop, "auto", loop_names,
		 "how I/O is done: io_uring, or epoll and threads"),
	OPT_STRING("gdb", T, gdb, NULL,
		   "tcp:[HOST]:PORT|unix:PATH[,stop=on]: a server for GDB; stop=on holds the guest "
		   "until GDB lets it go"),
	OPT_STRING("kvm", T, kvm, "/dev/kvm", "the KVM device"),
	OPT_END,
};
#undef T

int config_finish(struct vm_config *c, struct hako_error *err)
{
	int r = config_parse_memory(c->memory, &c->ram_size, &c->mem, err);

	if (!r)
		r = config_parse_cpus(c->cpus, &c->ncpus, &c->topology, err);
	if (!r)
		r = config_parse_overcommit(c->overcommit, &c->oc, err);
	if (!r)
		r = config_parse_rtc(c->rtc, &c->rtc_options, err);
	if (!r && c->numa)
		r = numa_parse(c->numa, c->ncpus, c->ram_size, &c->mem, &c->nodes, err);
	if (!r && !c->kernel && (c->initrd || c->append))
		return error_set(err, -EINVAL, "--%s needs --kernel",
				 c->initrd ? "initrd" : "append");
	if (!r && !c->kernel)
		return error_set(err, -EINVAL,
				 "--kernel FILE is missing (hako has no firmware that could boot "
				 "from a disk)");
	return r;
}

/* --- objects --------------------------------------------------------------------------------- */

int vm_device_class(struct vm *vm, const char *name, const struct class **cls,
		    struct hako_error *err)
{
	char full[64];

	*cls = class_find(CLASS_DEVICE, name);
	if (!*cls && strlen(name) < 48) {
		snprintf(full, sizeof(full), "%s-%s", name, vm->pci ? "pci" : "device");
		*cls = class_find(CLASS_DEVICE, full);
	}
	if (*cls && (*cls)->internal)
		return error_set(err, -EINVAL, "%s: part of the board, cannot be added", name);
	return *cls ? 0 : class_get(CLASS_DEVICE, name, cls, err);
}

/* "CLASS,option=…" or JSON with "driver"; @key: what JSON and long forms call the class. */
static int new_from_text(struct vm *vm, enum class_kind kind, const char *key, const char *text,
			 struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	const char *name;
	int r;

	r = keyvals_parse(&kv, text, key, err);
	name = r ? NULL : keyvals_take(&kv, key);
	if (!r && !name)
		r = error_set(err, -EINVAL, "%s=… is missing", key);
	if (!r)
		r = kind == CLASS_DEVICE ? vm_device_class(vm, name, &cls, err)
					 : class_get(kind, name, &cls, err);
	if (!r)
		r = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

static bool in_table(const struct option *table, const char *key)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, key))
			return true;
	return false;
}

/* Move to @to what @cls knows. */
static int split_keyvals(struct keyvals *from, const struct class *cls, struct keyvals *to)
{
	for (size_t i = 0; i < from->n; i++) {
		struct keyval *v = &from->v[i];

		if (v->used || !in_table(cls->options, v->key))
			continue;
		v->used = true;
		if (keyvals_add(to, v->key, v->value))
			return -ENOMEM;
	}
	return 0;
}

/* Drop what was used, so that the rest can be another object's options. */
static void drop_used(struct keyvals *kv)
{
	size_t n = 0;

	for (size_t i = 0; i < kv->n; i++) {
		if (kv->v[i].used) {
			free(kv->v[i].key);
			free(kv->v[i].value);
		} else {
			kv->v[n++] = kv->v[i];
		}
	}
	kv->n = n;
}

/*
 * The short form --net: a backend and the device in front of it from one list of options. An option goes to the backend if that
 * has one of the name, else to the device.
 */
static int new_pair(struct vm *vm, struct keyvals *kv, enum class_kind kind,
		    const char *backend_class, const char *device, const char *link, const char *id,
		    struct hako_error *err)
{
	const struct class *back, *front;
	struct keyvals back_kv = {0};
	int r;

	r = class_get(kind, backend_class, &back, err);
	if (!r)
		r = vm_device_class(vm, device, &front, err);
	if (!r) {
		const struct option *const tables[] = {back->options, front->options,
						       front->bus_options};

		r = options_check_known(tables, ARRAY_SIZE(tables), kv, err);
	}
	if (!r)
		r = split_keyvals(kv, back, &back_kv) ?: keyvals_add(&back_kv, "id", id);
	drop_used(kv);
	if (!r)
		r = object_new(vm, back, &back_kv, NULL, err);
	if (!r)
		r = keyvals_add(kv, link, id) ?: object_new(vm, front, kv, NULL, err);
	keyvals_free(&back_kv);
	return r;
}

/* cache=, as QEMU's -drive has it. */
static const char *const cache_names[] = {"writeback",	"writethrough", "none",
					  "directsync", "unsafe",	NULL};
static const struct {
	const char *key, *values[5];
} cache_modes[] = {
	{"cache.direct", {"off", "off", "on", "on", "off"}},
	{"cache.no-flush", {"off", "off", "off", "off", "on"}},
	{"write-cache", {"on", "off", "on", "off", "on"}},
};

static int translate_cache(struct keyvals *kv, struct hako_error *err)
{
	static const struct option option = {
		.name = "cache",
		.type = OPTION_ENUM,
		.values = cache_names,
	};
	const char *value = keyvals_take(kv, "cache");
	int mode, r;

	if (!value)
		return 0;
	r = option_set(&option, &mode, value, err);
	for (size_t i = 0; i < ARRAY_SIZE(cache_modes) && !r; i++)
		if (!keyvals_get(kv, cache_modes[i].key))
			r = keyvals_add(kv, cache_modes[i].key, cache_modes[i].values[mode]);
	return r;
}

/* --disk takes what QEMU's -drive calls differently from -blockdev. */
static int translate_drive(struct keyvals *kv, struct hako_error *err)
{
	for (size_t i = 0; i < kv->n; i++) {
		bool file = !strcmp(kv->v[i].key, "file");
		char *key;

		if (!file && strcmp(kv->v[i].key, "readonly"))
			continue;
		key = strdup(file ? "filename" : "read-only");
		if (!key)
			return error_errno(err, -ENOMEM, "options");
		free(kv->v[i].key);
		kv->v[i].key = key;
	}
	return translate_cache(kv, err);
}

/* An option goes to the node if that has one of the name, else to the node of its file, else to the device. */
static int new_disk(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	const struct class *file = class_find(CLASS_BLOCKDEV, "file"), *front;
	const char *format = NULL, *filename = NULL;
	struct block_node *node = NULL;
	struct keyvals kv = {0};
	char id[24];
	int r;

	snprintf(id, sizeof(id), "disk%u", n);
	r = keyvals_parse(&kv, text, "filename", err);
	if (!r)
		r = translate_drive(&kv, err);
	if (!r)
		r = vm_device_class(vm, "virtio-blk", &front, err);
	if (!r) {
		format = keyvals_take(&kv, "format");
		filename = keyvals_take(&kv, "filename");
		r = block_open(vm, filename, format, &kv, id, &node, err);
	}
	if (!r) {
		const struct option *const tables[] = {node->obj.class->options, file->options,
						       block_node_options, front->options,
						       front->bus_options};

		r = options_check_known(tables, ARRAY_SIZE(tables), &kv, err);
	}
	drop_used(&kv);
	if (!r)
		r = keyvals_add(&kv, "drive", node->obj.id)
			    ?: object_new(vm, front, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

static int new_net(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	struct keyvals kv = {0};
	const char *type = NULL;
	char id[24];
	int r;

	snprintf(id, sizeof(id), "net%u", n);
	r = keyvals_parse(&kv, text, "type", err);
	if (!r)
		type = keyvals_take(&kv, "type");
	if (!r && !type)
		r = error_set(err, -EINVAL, "type=… is missing");
#ifndef WITH_SLIRP
	if (!r && !strcmp(type, "user"))
		r = error_set(err, -EOPNOTSUPP,
			      "hako was built without libslirp, which user needs");
#endif
	if (!r && !strcmp(type, "none"))
		r = kv.n > 1 ? error_set(err, -EINVAL, "none takes no options") : 0;
	else if (!r)
		r = new_pair(vm, &kv, CLASS_NETDEV, type, "virtio-net", "netdev", id, err);
	keyvals_free(&kv);
	return r;
}

/* "virtio:…": the same backends behind a virtio console, the guest's /dev/hvc0 and so on, instead of a serial line. */
static int new_virtio_console(struct vm *vm, const char *text, const char *id,
			      struct hako_error *err)
{
	char device[64];
	int r;

	r = chardev_new_from_text(vm, id, text, err);
	if (!r)
		r = new_from_text(vm, CLASS_DEVICE, "driver", "virtio-serial,max_ports=1", err);
	snprintf(device, sizeof(device), "virtconsole,chardev=%s", id);
	if (!r)
		r = new_from_text(vm, CLASS_DEVICE, "driver", device, err);
	return r;
}

static int new_console(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	const struct class *cls = class_find(CLASS_DEVICE, "isa-serial");
	struct keyvals kv = {0};
	char id[24], index[16];
	int r;

	if (!strcmp(text, "none"))
		return 0;
	snprintf(id, sizeof(id), "console%u", n);
	snprintf(index, sizeof(index), "%u", n);
	if (!strncmp(text, "virtio:", 7))
		return new_virtio_console(vm, text + 7, id, err);
	if (!cls)
		return error_set(err, -EOPNOTSUPP, "hako was built without a serial port");
	r = chardev_new_from_text(vm, id, text, err);
	if (!r)
		r = keyvals_add(&kv, "chardev", id) ?: keyvals_add(&kv, "index", index);
	if (!r)
		r = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

static int new_iothread(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	struct loop *loop;

	return vm_iothread(vm, text, &loop, err);
}

static int new_chardev(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_from_text(vm, CLASS_CHARDEV, "backend", text, err);
}

static int new_fsdev(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_from_text(vm, CLASS_FSDEV, "fsdriver", text, err);
}

static int new_netdev(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_from_text(vm, CLASS_NETDEV, "type", text, err);
}

/* Some objects are for devices and disks, others look at what has been made. */
static int new_object_if(struct vm *vm, const char *text, bool late, struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	const char *name;
	int r = keyvals_parse(&kv, text, "qom-type", err);

	name = r ? NULL : keyvals_get(&kv, "qom-type");
	cls = name ? class_find(CLASS_OBJECT, name) : NULL;
	if (!r && late == (cls && cls->late))
		r = new_from_text(vm, CLASS_OBJECT, "qom-type", text, err);
	keyvals_free(&kv);
	return r;
}

static int new_object(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_object_if(vm, text, false, err);
}

static int new_late_object(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_object_if(vm, text, true, err);
}

/* Where there is one network only, it need not be named. */
static int new_netdev_dump(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	const struct class *cls = class_find(CLASS_OBJECT, "filter-dump");
	const struct list *nets = &vm->objects[CLASS_NETDEV];
	struct keyvals kv = {0};
	char id[24];
	int r;

	snprintf(id, sizeof(id), "dump%u", n);
	r = keyvals_parse(&kv, text, "file", err) ?: keyvals_add(&kv, "id", id);
	if (!r && !keyvals_get(&kv, "netdev")) {
		const struct object *net = container_of(nets->next, struct object, link);

		if (nets->next == nets || nets->next->next != nets)
			r = error_set(err, -EINVAL, "netdev=ID is missing: there %s",
				      nets->next == nets ? "is no network"
							 : "are several networks");
		else
			r = keyvals_add(&kv, "netdev", net->id);
	}
	if (!r)
		r = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

static int new_blockdev(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_from_text(vm, CLASS_BLOCKDEV, "driver", text, err);
}

static int new_device(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	return new_from_text(vm, CLASS_DEVICE, "driver", text, err);
}

/* "on", or how much the guest keeps, in the words of --memory; then the device's options. */
static int new_balloon(struct vm *vm, const char *text, struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	const char *size;
	uint64_t bytes = 0;
	char number[24];
	int r = keyvals_parse(&kv, text, "size", err);

	size = r ? NULL : keyvals_take(&kv, "size");
	if (size && strcmp(size, "on") != 0) {
		if (parse_size(size, MiB, &bytes) || !bytes)
			r = error_set(err, -EINVAL, "%s: not a size such as 256M", size);
		snprintf(number, sizeof(number), "%llu", (unsigned long long)bytes);
		if (!r)
			r = keyvals_add(&kv, "size", number);
	}
	drop_used(&kv);
	if (!r)
		r = vm_device_class(vm, "virtio-balloon", &cls, err);
	if (!r)
		r = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

/* By the host's kernel where it can, or by Unix sockets. */
static int vsock_class(struct vm *vm, struct keyvals *kv, const struct class **cls,
		       struct hako_error *err)
{
	static const char *const names[] = {"auto", "vhost", "unix", NULL};
	static const struct option option = {
		.name = "backend",
		.type = OPTION_ENUM,
		.values = names,
	};
	const char *value = keyvals_take(kv, "backend");
	int backend = 0, r = value ? option_set(&option, &backend, value, err) : 0;
	bool by_path = keyvals_get(kv, "path");

	if (r)
		return r;
	if (!backend)
		backend = by_path && !keyvals_get(kv, "vhostfd") &&
					  access("/dev/vhost-vsock", R_OK | W_OK)
				  ? 2
				  : 1;
	/* Of two ways auto takes one, and the path is the other's. */
	if (backend == 1 && !value)
		keyvals_take(kv, "path");
	return vm_device_class(vm, backend == 1 ? "vhost-vsock" : "virtio-vsock", cls, err);
}

static int new_vsock(struct vm *vm, const char *text, struct hako_error *err)
{
	struct keyvals kv = {0};
	const struct class *cls;
	const char *cid;
	int r = keyvals_parse(&kv, text, "cid", err);

	if (!r)
		r = vsock_class(vm, &kv, &cls, err);
	cid = r ? NULL : keyvals_take(&kv, "cid");
	if (cid)
		r = keyvals_add(&kv, "guest-cid", cid);
	drop_used(&kv);
	if (!r)
		r = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return r;
}

static int new_fw_cfg(struct vm *vm, const char *text, unsigned int n, struct hako_error *err)
{
	if (!vm->fw_cfg)
		return error_set(err, -EOPNOTSUPP, "this board has no fw_cfg");
	return fw_cfg_add_option(vm->fw_cfg, text, err);
}

static int for_list(struct vm *vm, char **list, const char *option,
		    int (*make)(struct vm *, const char *, unsigned int, struct hako_error *),
		    struct hako_error *err)
{
	for (unsigned int i = 0; list && list[i]; i++) {
		int r = make(vm, list[i], i, err);

		if (r) {
			error_prefix(err, "--%s %s", option, list[i]);
			return r;
		}
	}
	return 0;
}

int config_create_objects(struct vm *vm, struct hako_error *err)
{
	struct vm_config *c = vm->config;
	int r;

	r = for_list(vm, c->iothread, "iothread", new_iothread, err);
	if (!r)
		r = for_list(vm, c->object, "object", new_object, err);
	if (!r)
		r = for_list(vm, c->fw_cfg, "fw_cfg", new_fw_cfg, err);
	if (!r)
		r = for_list(vm, c->chardev, "chardev", new_chardev, err);
	if (!r)
		r = for_list(vm, c->netdev, "netdev", new_netdev, err);
	if (!r)
		r = for_list(vm, c->fsdev, "fsdev", new_fsdev, err);
	if (!r)
		r = for_list(vm, c->blockdev, "blockdev", new_blockdev, err);
	if (!r)
		r = for_list(vm, c->console, "console", new_console, err);
	if (!r)
		r = for_list(vm, c->disk, "disk", new_disk, err);
	if (!r)
		r = for_list(vm, c->net, "net", new_net, err);
	if (!r)
		r = for_list(vm, c->device, "device", new_device, err);
	if (!r && c->balloon && (r = new_balloon(vm, c->balloon, err)))
		error_prefix(err, "--balloon %s", c->balloon);
	if (!r && c->vsock && (r = new_vsock(vm, c->vsock, err)))
		error_prefix(err, "--vsock %s", c->vsock);
	if (!r)
		r = for_list(vm, c->object, "object", new_late_object, err);
	if (!r)
		r = for_list(vm, c->netdev_dump, "netdev-dump", new_netdev_dump, err);
	if (!r && c->gdb && (r = vm_gdb(vm, c->gdb, err)))
		error_prefix(err, "--gdb %s", c->gdb);
	return r;
}
