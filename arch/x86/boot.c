/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Direct boot: opens the files, has the kernel loaded by its protocol's file, adds initrd,
 * command line and the tables of the first vCPU.
 *
 * Which protocol: a bzImage is Linux's own (boot_linux.c). An ELF file with a PVH note is entered
 * by PVH, be it 32 or 64 bit: whoever puts the note there wants that, Linux, FreeBSD and small
 * kernels alike. Without it a Multiboot 1 header decides, and a 64-bit ELF file with neither is a
 * vmlinux for Linux's 64-bit protocol.
 *
 * The GDT has its code segment at selector 0x10 and its data segment at 0x18, as Linux's
 * protocols want them; the code segment is a 64-bit one for BOOT_MODE_LONG and a flat 32-bit one
 * for BOOT_MODE_PROTECTED. There is a busy TSS at 0x20.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot_internal.h"

#define AHEAD_STACK	(64 * KiB)
#define BOOT_INITRD_MAX 0xffffffffull /* where nothing says less; E820 keeps it below the hole */

struct boot_source {
	enum boot_decompress decompress;
	char *kernel_path, *initrd_path, *append;
	struct boot_kernel kernel;
	struct boot_image initrd; /* fd -1: none */
};

/* --- files ------------------------------------------------------------------------------------ */

static int image_open(struct boot_image *img, const char *path, struct hako_error *err)
{
	struct stat st;
	int ret;

	img->path = path;
	img->data = NULL;
	/* O_NONBLOCK: not to hang on a FIFO. */
	img->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (img->fd < 0)
		return error_errno(err, -errno, "%s", path);
	if (fstat(img->fd, &st) < 0) {
		ret = error_errno(err, -errno, "%s", path);
	} else if (S_ISDIR(st.st_mode)) {
		ret = error_set(err, -EISDIR, "%s: is a directory", path);
	} else if (!S_ISREG(st.st_mode)) {
		ret = error_set(err, -EINVAL, "%s: is not a regular file", path);
	} else if (!st.st_size) {
		ret = error_set(err, -EINVAL, "%s: is empty", path);
	} else {
		img->size = st.st_size;
		return 0;
	}
	close(img->fd);
	img->fd = -1;
	return ret;
}

int boot_image_read(const struct boot_image *img, uint64_t off, void *buf, uint64_t len,
		    struct hako_error *err)
{
	int ret;

	if (off > img->size || len > img->size - off)
		return error_set(
			err, -ENODATA,
			"%s: is truncated: %llu bytes at offset %llu are wanted, it has %llu",
			img->path, (unsigned long long)len, (unsigned long long)off,
			(unsigned long long)img->size);
	if (img->data) {
		memcpy(buf, img->data + off, len);
		return 0;
	}
	ret = pread_all(img->fd, buf, len, off);
	if (ret == -ENODATA)
		return error_set(err, ret, "%s: has become shorter since it was opened", img->path);
	return ret ? error_errno(err, ret, "%s", img->path) : 0;
}

static int read_all(const struct boot_image *img, uint8_t **copy, struct hako_error *err)
{
	uint8_t *p = mmap(NULL, img->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int ret;

	if (p == MAP_FAILED)
		return error_errno(err, -errno, "%s", img->path);
	ret = boot_image_read(img, 0, p, img->size, err);
	if (ret)
		munmap(p, img->size);
	else
		*copy = p;
	return ret;
}

/*
 * A kernel that is to be unpacked is read while KVM makes the VM, which waits for other processors most of the time. What fails here is
 * tried again, and reported, when the kernel is wanted.
 */
struct boot_ahead {
	pthread_t thread;
	const struct boot_image *img;
	uint8_t *copy; /* NULL: failed */
};

static void *ahead_main(void *arg)
{
	struct boot_ahead *a = arg;
	struct hako_error err;

	if (read_all(a->img, &a->copy, &err))
		a->copy = NULL;
	return NULL;
}

static void ahead_start(struct boot_image *img)
{
	struct boot_ahead *a = calloc(1, sizeof(*a));

	if (!a)
		return;
	a->img = img;
	if (thread_create(&a->thread, AHEAD_STACK, ahead_main, a))
		free(a);
	else
		img->ahead = a;
}

static uint8_t *ahead_take(struct boot_image *img)
{
	struct boot_ahead *a = img->ahead;
	uint8_t *copy = NULL;

	if (a) {
		pthread_join(a->thread, NULL);
		copy = a->copy;
		free(a);
		img->ahead = NULL;
	}
	return copy;
}

int boot_image_copy(struct boot_image *img, uint8_t **copy, struct hako_error *err)
{
	*copy = ahead_take(img);
	return *copy ? 0 : read_all(img, copy, err);
}

int boot_identify(struct boot_kernel *k, struct hako_error *err)
{
	uint8_t head[BOOT_HEAD_SIZE];
	size_t len = MIN(k->img.size, sizeof(head));
	bool multiboot;
	int ret;

	ret = boot_image_read(&k->img, 0, head, len, err);
	if (ret)
		return ret;
	if (boot_bzimage_is(head, len)) {
		k->format = BOOT_FORMAT_BZIMAGE;
		return boot_bzimage_parse(k, head, len, err);
	}
	multiboot = boot_multiboot_find(k, head, len);
	if (boot_elf_is(head, len)) {
		ret = boot_elf_parse(&k->img, &k->elf, err);
		if (ret)
			return ret;
		if (k->elf.has_pvh)
			k->format = BOOT_FORMAT_ELF_PVH;
		else if (multiboot)
			k->format = BOOT_FORMAT_ELF_MULTIBOOT;
		else if (k->elf.is_64bit)
			k->format = BOOT_FORMAT_ELF_LINUX;
		else
			return error_set(err, -ENOEXEC,
					 "%s: is a 32-bit ELF file without a PVH note or a "
					 "Multiboot header",
					 k->img.path);
		return k->format == BOOT_FORMAT_ELF_MULTIBOOT ? boot_multiboot_check(k, err) : 0;
	}
	if (multiboot) {
		k->format = BOOT_FORMAT_MULTIBOOT;
		return boot_multiboot_check(k, err);
	}
	k->packed = unpack_detect(head, len);
	if (k->packed == UNPACK_NONE || k->packed == UNPACK_UNKNOWN)
		return boot_foreign(k, head, len, err);
	k->format = BOOT_FORMAT_PACKED;
	return 0;
}

static int source_open(struct boot_source *s, const struct boot_config *config,
		       struct hako_error *err)
{
	int ret;

	s->decompress = config->decompress;
	s->kernel_path = strdup(config->kernel);
	s->append = strdup(config->append ? config->append : "");
	if (!s->kernel_path || !s->append)
		return error_set(err, -ENOMEM, "out of memory");
	ret = image_open(&s->kernel.img, s->kernel_path, err);
	if (ret)
		return ret;
	ret = boot_identify(&s->kernel, err);
	if (ret)
		return ret;
	if (s->kernel.format == BOOT_FORMAT_PACKED ||
	    (s->kernel.format == BOOT_FORMAT_BZIMAGE && s->decompress != BOOT_DECOMPRESS_GUEST))
		ahead_start(&s->kernel.img);
	if (!config->initrd)
		return 0;
	s->initrd_path = strdup(config->initrd);
	if (!s->initrd_path)
		return error_set(err, -ENOMEM, "out of memory");
	return image_open(&s->initrd, s->initrd_path, err);
}

int boot_open(const struct boot_config *config, struct boot_source **src, struct hako_error *err)
{
	struct boot_source *s = calloc(1, sizeof(*s));
	int ret;

	*src = NULL;
	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	if (config->append && strlen(config->append) >= BOOT_CMDLINE_MAX) {
		free(s);
		return error_set(err, -E2BIG, "--append: %zu bytes, at most %u can be",
				 strlen(config->append), BOOT_CMDLINE_MAX - 1);
	}
	s->kernel.img.fd = s->initrd.fd = -1;
	ret = source_open(s, config, err);
	if (ret) {
		error_prefix(err, s->initrd_path ? "--initrd" : "--kernel");
		boot_close(s);
		return ret;
	}
	*src = s;
	return 0;
}

void boot_close(struct boot_source *s)
{
	uint8_t *copy;

	if (!s)
		return;
	copy = ahead_take(&s->kernel.img);
	if (copy)
		munmap(copy, s->kernel.img.size);
	if (s->kernel.img.fd >= 0)
		close(s->kernel.img.fd);
	if (s->initrd.fd >= 0)
		close(s->initrd.fd);
	free(s->kernel_path);
	free(s->initrd_path);
	free(s->append);
	free(s);
}

/* --- memory ----------------------------------------------------------------------------------- */

static bool e820_is_ram(const struct e820 *map, uint64_t gpa, uint64_t len)
{
	for (unsigned int i = 0; i < map->n; i++) {
		const struct e820_entry *e = &map->entry[i];
		uint64_t off = gpa - e->addr;

		if (e->type == 1 && gpa >= e->addr && off < e->size && len <= e->size - off)
			return true;
	}
	return false;
}

void *boot_kernel_ptr(const struct boot_install *in, uint64_t gpa, uint64_t len)
{
	if (gpa < BOOT_KERNEL_MIN || !e820_is_ram(in->map, gpa, len))
		return NULL;
	return memory_ptr(in->mem, gpa, len);
}

/*
 * As high as @max (the last address it may have) and E820 allow, out of the way of a kernel that
 * unpacks or grows.
 */
static int initrd_load(struct boot_install *in, const struct boot_image *img, uint64_t max,
		       struct hako_error *err)
{
	uint64_t floor = ALIGN_UP(MAX(in->kernel_end, BOOT_KERNEL_MIN), PAGE_SIZE), room = 0;

	for (unsigned int i = in->map->n; i--;) {
		const struct e820_entry *e = &in->map->entry[i];
		uint64_t start, end, gpa;
		void *p;

		if (e->type != 1 || e->addr > max)
			continue;
		start = MAX(floor, ALIGN_UP(e->addr, PAGE_SIZE));
		end = e->size > max - e->addr ? max + 1 : e->addr + e->size;
		if (end <= start)
			continue;
		room = MAX(room, end - start);
		if (img->size > end - start)
			continue;
		gpa = ALIGN_DOWN(end - img->size, PAGE_SIZE);
		p = gpa >= start ? memory_ptr(in->mem, gpa, img->size) : NULL;
		if (!p)
			continue;
		in->initrd_gpa = gpa;
		in->initrd_size = img->size;
		return boot_image_read(img, 0, p, img->size, err);
	}
	return error_set(
		err, -E2BIG,
		"%s: an initrd of %llu KiB does not fit: the guest has %llu MiB of memory, "
		"%llu KiB of it free where this kernel can take an initrd",
		img->path, (unsigned long long)(img->size + 1023) / 1024,
		(unsigned long long)(in->mem->ram_size / MiB), (unsigned long long)(room / 1024));
}

/*
 * Where Linux, as it starts, writes to memory for the first time: from the top of RAM down, where it keeps its page tables and
 * the 64 bytes that it has for each page, and behind itself, unless there is RAM beyond 4 GiB, which it prefers.
 */
static void tell_soon(struct boot_install *in)
{
	const uint64_t behind = 22 * MiB;
	uint64_t top = 0, len = ALIGN_UP(in->mem->ram_size / 64 + 8 * MiB, 2 * MiB);

	for (unsigned int i = 0; i < in->map->n; i++) {
		const struct e820_entry *e = &in->map->entry[i];

		if (e->type == 1)
			top = MAX(top, e->addr + e->size);
	}
	if (in->initrd_size && in->initrd_gpa + in->initrd_size > top - PAGE_SIZE)
		top = in->initrd_gpa;
	if (top < in->kernel_end + behind + len)
		return;
	in->entry->soon[0].gpa = ALIGN_DOWN(top - len, 2 * MiB);
	in->entry->soon[0].len = top - in->entry->soon[0].gpa;
	if (top > 4 * GiB)
		return;
	in->entry->soon[1].gpa = in->kernel_end;
	in->entry->soon[1].len = behind;
}

static int write_tables(struct boot_install *in, struct hako_error *err)
{
	bool is_long = in->entry->mode == BOOT_MODE_LONG;
	const uint64_t gdt[] = {
		0,
		0,
		is_long ? 0x00af9b000000ffff : 0x00cf9b000000ffff, /* code */
		0x00cf93000000ffff,				   /* data */
		0x008f8b000000ffff,				   /* TSS, busy */
	};
	uint64_t *pt;

	if (memory_write(in->mem, BOOT_GDT_GPA, gdt, sizeof(gdt)))
		goto small;
	if (!is_long)
		return 0;
	pt = memory_ptr(in->mem, BOOT_PAGE_TABLES, 6 * PAGE_SIZE);
	if (!pt)
		goto small;
	memset(pt, 0, 2 * PAGE_SIZE);
	pt[0] = htole64((BOOT_PAGE_TABLES + PAGE_SIZE) | 3); /* present, writable */
	for (unsigned int i = 0; i < 4; i++)
		pt[512 + i] = htole64((BOOT_PAGE_TABLES + (2 + i) * PAGE_SIZE) | 3);
	for (unsigned int i = 0; i < 2048; i++)
		pt[1024 + i] = htole64(i * 2 * MiB | 0x83); /* and large */
	return 0;
small:
	return error_set(err, -ENOMEM, "a kernel cannot be started without memory below 640 KiB");
}

/*
 * What a guest finds where the BIOS begins. Linux goes there to reboot when ACPI is
 * hardware-reduced and there is no EFI (native_machine_emergency_restart()): in real mode, to
 * ffff:0000. So that is a reset: by the keyboard controller, or else by a triple fault.
 */
static int write_reset_vector(struct boot_install *in, struct hako_error *err)
{
	static const uint8_t code[32] = {
		/* f000:ffe0 */
		0xb0,	     0xfe,			   /* mov $0xfe, %al */
		0xe6,	     0x64,			   /* out %al, $0x64 */
		0x2e,	     0x0f, 0x01, 0x1e, 0xf6, 0xff, /* lidt %cs:0xfff6 */
		0xcc,					   /* int3 */
		[16] = 0xea, 0xe0, 0xff, 0x00, 0xf0,	   /* f000:fff0: ljmp $0xf000, $0xffe0 */
							   /* f000:fff6: an empty IDT */
	};

	if (memory_write(in->mem, BOOT_RESET_VECTOR_GPA, code, sizeof(code)))
		return error_set(err, -ENOMEM, "a kernel cannot be started with less than 1 MiB");
	return 0;
}

static int write_cmdline(struct boot_install *in, const struct boot_kernel *k,
			 struct hako_error *err)
{
	size_t len = strlen(in->cmdline), max = BOOT_CMDLINE_MAX - 1;

	if (k->format == BOOT_FORMAT_BZIMAGE && k->bz.hdr.cmdline_size < max)
		max = k->bz.hdr.cmdline_size;
	if (len > max)
		return error_set(err, -E2BIG,
				 "kernel command line of %zu bytes, %s takes at most %zu", len,
				 k->img.path, max);
	if (memory_write(in->mem, BOOT_CMDLINE_GPA, in->cmdline, len + 1))
		return error_set(err, -ENOMEM, "no memory for the kernel command line");
	return 0;
}

/* --- installation ----------------------------------------------------------------------------- */

static int kernel_load(struct boot_install *in, struct boot_kernel *k, struct hako_error *err)
{
	switch (k->format) {
	case BOOT_FORMAT_BZIMAGE:
		return boot_bzimage_load(in, k, err);
	case BOOT_FORMAT_MULTIBOOT:
		return boot_multiboot_load(in, k, err);
	default:
		return boot_elf_load(in, &k->img, &k->elf, err);
	}
}

static int kernel_info(struct boot_install *in, const struct boot_kernel *k, struct hako_error *err)
{
	switch (k->format) {
	case BOOT_FORMAT_BZIMAGE:
		return boot_linux_params(in, &k->bz.hdr, err);
	case BOOT_FORMAT_ELF_LINUX:
		in->entry->mode = BOOT_MODE_LONG;
		in->entry->rip = k->elf.entry;
		return boot_linux_params(in, NULL, err);
	case BOOT_FORMAT_ELF_PVH:
		return boot_pvh_info(in, &k->elf, err);
	default:
		return boot_multiboot_info(in, k, err);
	}
}

static uint64_t initrd_max(const struct boot_kernel *k)
{
	if (k->format != BOOT_FORMAT_BZIMAGE)
		return BOOT_INITRD_MAX;
	/* Documentation/x86/boot.rst: then initrd_addr_max no longer binds. */
	if (k->bz.hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)
		return BOOT_INITRD_MAX;
	return k->bz.hdr.initrd_addr_max;
}

static int install(struct boot_install *in, struct boot_kernel *k, const struct boot_image *initrd,
		   struct hako_error *err)
{
	int ret = write_cmdline(in, k, err);

	if (ret)
		return error_prefix(err, "--append"), ret;
	ret = kernel_load(in, k, err);
	if (ret)
		return error_prefix(err, "--kernel"), ret;
	if (initrd->fd >= 0)
		ret = initrd_load(in, initrd, initrd_max(k), err);
	if (ret)
		return error_prefix(err, "--initrd"), ret;
	if (k->format == BOOT_FORMAT_BZIMAGE)
		tell_soon(in);
	ret = kernel_info(in, k, err);
	if (!ret)
		ret = write_reset_vector(in, err);
	return ret ? ret : write_tables(in, err);
}

/* A kernel file that is compressed whole: unpacked to memory that is given back at once. */
static int install_packed(struct boot_install *in, struct boot_kernel *packed,
			  const struct boot_image *initrd, struct hako_error *err)
{
	struct boot_kernel *k = calloc(1, sizeof(*k));
	struct boot_image *img = &packed->img;
	size_t room = in->mem->ram_size, got = 0;
	uint8_t *file = NULL;
	void *out;
	int ret;

	out = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		   -1, 0);
	if (!k || out == MAP_FAILED) {
		ret = error_set(err, -ENOMEM, "%s: out of memory", img->path);
		goto out;
	}
	ret = boot_image_copy(img, &file, err);
	if (ret)
		goto out;
	ret = unpack(packed->packed, file, img->size, out, room, &got, err);
	if (ret) {
		error_prefix(err, "%s", img->path);
		goto out;
	}
	k->img = (struct boot_image){.path = img->path, .fd = -1, .data = out, .size = got};
	ret = got ? boot_identify(k, err) : error_set(err, -EINVAL, "%s: is empty", img->path);
	if (!ret && k->format == BOOT_FORMAT_PACKED)
		ret = error_set(err, -ENOEXEC, "%s: is compressed twice", img->path);
	if (!ret)
		ret = install(in, k, initrd, err);
out:
	if (file)
		munmap(file, img->size);
	if (out != MAP_FAILED)
		munmap(out, room);
	free(k);
	return ret;
}

int boot_install(struct boot_source *src, struct memory *mem, const struct e820 *map, uint64_t rsdp,
		 struct boot_entry *entry, struct hako_error *err)
{
	struct boot_install in = {
		.mem = mem,
		.map = map,
		.rsdp = rsdp,
		.decompress = src->decompress,
		.cmdline = src->append,
		.entry = entry,
	};

	memset(entry, 0, sizeof(*entry));
	if (src->kernel.format == BOOT_FORMAT_PACKED)
		return install_packed(&in, &src->kernel, &src->initrd, err);
	return install(&in, &src->kernel, &src->initrd, err);
}
