/* SPDX-License-Identifier: GPL-2.0-only */
/* hako doctor: what this host offers to virtual machines, and what to do about what is missing. */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "vmm/kvm.h"
#include "vmm/loop.h"
#include "vmm/sandbox.h"

struct doctor {
	unsigned int missing, advised;
};

static void ok(const char *what, const char *text)
{
	printf("  ok       %-14s %s\n", what, text);
}

/* Something hako does without. */
static void advise(struct doctor *d, const char *what, const char *text, const char *remedy)
{
	d->advised++;
	printf("  advice   %-14s %s\n%26s-> %s\n", what, text, "", remedy);
}

/* Something hako cannot do without. */
static void missing(struct doctor *d, const char *what, const char *text, const char *remedy)
{
	d->missing++;
	printf("  MISSING  %-14s %s\n", what, text);
	if (remedy)
		printf("%26s-> %s\n", "", remedy);
}

static bool read_line(const char *path, char *buf, size_t size)
{
	FILE *f = fopen(path, "re");
	bool got = f && fgets(buf, size, f);

	if (f)
		fclose(f);
	if (got)
		buf[strcspn(buf, "\n")] = 0;
	return got;
}

static bool cpu_flag(const char *flag)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char *line = NULL;
	bool found = false;
	size_t size = 0;

	while (f && !found && getline(&line, &size, f) > 0) {
		char *save, *word;

		if (strncmp(line, "flags", 5))
			continue;
		for (word = strtok_r(line, " \t\n", &save); word && !found;
		     word = strtok_r(NULL, " \t\n", &save))
			found = !strcmp(word, flag);
		break;
	}
	free(line);
	if (f)
		fclose(f);
	return found;
}

static const char *kvm_kind(void)
{
	if (!access("/sys/module/kvm_intel", F_OK))
		return "Intel VMX (kvm_intel)";
	if (!access("/sys/module/kvm_amd", F_OK))
		return "AMD SVM (kvm_amd)";
	if (!access("/sys/module/kvm_pvm", F_OK))
		return "page-table isolation (kvm_pvm): kernels not built for it are emulated, slowly";
	return "of unknown kind";
}

static void check_kvm(struct doctor *d)
{
	struct hako_error err;
	struct kvm *kvm;
	char text[256];

	if (kvm_open(&kvm, "/dev/kvm", &err)) {
		missing(d, "KVM", err.message,
			cpu_flag("vmx") || cpu_flag("svm")
				? NULL
				: "this CPU shows no virtualization (vmx, svm): enable it in the "
				  "firmware, or in the hypervisor this machine runs on");
		return;
	}
	ok("KVM", kvm_kind());
	snprintf(text, sizeof(text), "up to %u in one VM, %u recommended", kvm->max_vcpus,
		 kvm->recommended_vcpus);
	ok("vCPUs", text);
	for (const struct kvm_cap_info *c = kvm_cap_table; c->name; c++) {
		if (c->required || kvm->cap[c->id])
			continue;
		snprintf(text, sizeof(text), "%s is missing: no %s", c->name, c->purpose);
		advise(d, "KVM", text, "a newer kernel has it");
	}
	kvm_close(kvm);
	if (cpu_flag("hypervisor"))
		ok("nesting", "this host is a virtual machine itself: guests run, but slower");
}

static void check_device(struct doctor *d, const char *what, const char *path, const char *use,
			 const char *remedy)
{
	char text[160];
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		snprintf(text, sizeof(text), "%s: %s", path, use);
		ok(what, text);
		return;
	}
	snprintf(text, sizeof(text), "%s: %s; without it no %s", path, strerrordesc_np(errno), use);
	advise(d, what, text, remedy);
}

static void check_huge_pages(struct doctor *d)
{
	char thp[128] = "", line[128], text[256];
	unsigned long total = 0, available = 0;
	FILE *f = fopen("/proc/meminfo", "re");

	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "HugePages_Total: %lu", &total);
		sscanf(line, "HugePages_Free: %lu", &available);
	}
	if (f)
		fclose(f);
	if (!read_line("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp)))
		advise(d, "huge pages", "this kernel has no transparent huge pages",
		       "CONFIG_TRANSPARENT_HUGEPAGE makes guests faster");
	else if (strstr(thp, "[never]"))
		advise(d, "huge pages", "transparent huge pages are off",
		       "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled");
	else
		ok("huge pages", thp);
	snprintf(text, sizeof(text), "%lu reserved, %lu free", total, available);
	ok("hugetlbfs", text);
}

static void check_io_uring(struct doctor *d)
{
	struct hako_error err;
	struct loop *loop;

	if (!loop_new(&loop, "hako-doctor", LOOP_IO_URING, &err)) {
		loop_free(loop);
		ok("io_uring", "used for disks and doorbells");
		return;
	}
	advise(d, "io_uring", err.message,
	       "sysctl kernel.io_uring_disabled=0, or allow it in the container; meanwhile hako uses "
	       "epoll and threads");
}

static void check_limit(struct doctor *d, const char *what, int resource, rlim_t enough,
			const char *remedy)
{
	struct rlimit rl;
	char text[96];

	getrlimit(resource, &rl);
	if (rl.rlim_cur >= enough) {
		snprintf(text, sizeof(text), rl.rlim_cur == RLIM_INFINITY ? "unlimited" : "%llu",
			 (unsigned long long)rl.rlim_cur);
		ok(what, text);
		return;
	}
	snprintf(text, sizeof(text), "%llu is little for large VMs",
		 (unsigned long long)rl.rlim_cur);
	advise(d, what, text, remedy);
}

static void check_libraries(struct doctor *d)
{
	static const struct {
		const char *soname, *use, *package;
	} libs[] = {
		{"libslirp.so.0", "network without privileges", "libslirp0"},
		{"libjson-c.so.5", "options in JSON", "libjson-c5"},
		{"libz.so.1", "gzip'ed kernels", "zlib1g"},
		{"liblzma.so.5", "xz'ed kernels", "liblzma5"},
		{"liblz4.so.1", "lz4'ed kernels", "liblz4-1"},
		{"libzstd.so.1", "zstd'ed kernels", "libzstd1"},
		{"libseccomp.so.2", "confinement by system calls", "libseccomp2"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(libs); i++) {
		void *handle = dlopen(libs[i].soname, RTLD_LAZY | RTLD_LOCAL);
		char text[256], remedy[64];

		if (handle) {
			dlclose(handle);
			ok(libs[i].soname, libs[i].use);
			continue;
		}
		snprintf(text, sizeof(text), "no %s: %s", libs[i].use, dlerror());
		snprintf(remedy, sizeof(remedy), "install %s (as Debian calls it)",
			 libs[i].package);
		advise(d, libs[i].soname, text, remedy);
	}
}

static void check_layer(void *opaque, const char *name, const char *text, const char *why)
{
	if (why)
		advise(opaque, name, why, "meanwhile --sandbox leaves this layer out");
	else
		ok(name, text);
}

int cli_doctor(int argc, char **argv)
{
	struct doctor d = {0};

	if (argc > 1) {
		fprintf(stderr, "hako: doctor %s: doctor takes no arguments\n", argv[1]);
		return 1;
	}
	printf("hako %s on this host:\n\n", hako_version());
	check_kvm(&d);
	check_device(&d, "tap", "/dev/net/tun", "tap networks",
		     "modprobe tun; run as root or let an "
		     "administrator make the tap for you");
	check_device(&d, "vhost-net", "/dev/vhost-net", "networks served by the kernel",
		     "modprobe vhost_net; add your user to the device's group");
	check_io_uring(&d);
	check_huge_pages(&d);
	check_limit(&d, "open files", RLIMIT_NOFILE, 1024, "ulimit -n 65536");
	check_limit(&d, "locked memory", RLIMIT_MEMLOCK, 8 * MiB, "ulimit -l unlimited");
	check_libraries(&d);
	sandbox_probe(check_layer, &d);
	printf("\n");
	if (d.missing)
		printf("hako cannot run virtual machines here.\n");
	else if (d.advised)
		printf("hako can run virtual machines here; %u thing%s could be better.\n",
		       d.advised, d.advised == 1 ? "" : "s");
	else
		printf("hako can run virtual machines here, and nothing is missing.\n");
	return d.missing ? 1 : 0;
}
