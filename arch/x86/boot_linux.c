/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Linux's boot protocol (Documentation/arch/x86/boot.rst).
 *
 * The payload of a bzImage is a vmlinux. Its unpacking is most of what such a kernel does before
 * its own start, so it is done here, at the host's speed, and the kernel is entered where its
 * unpacker would have jumped to. It is unpacked right to where its first segment belongs, as the
 * unpacker does; only what is elsewhere is moved. Not done then is the unpacker's choice of a
 * random address for the kernel's text; its memory areas are still randomized (KASLR_FLAG).
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "boot_internal.h"

#define SETUP_OFFSET	0x1f1u
#define HDRS_MAGIC	0x53726448u
#define BOOT_FLAG	0xaa55u
#define ENTRY_64	0x200u
#define TYPE_UNDEFINED	0xffu
#define VID_MODE_NORMAL 0xffffu
#define INITRD_MAX_OLD	0x37ffffffu /* before protocol 2.03 */
#define RNG_SEED_SIZE	32u

/*
 * Where the first segment lies in every vmlinux: the linker aligns to 2 MiB. Anything else works
 * too, with one more copy.
 */
#define VMLINUX_OFFSET 0x200000u

bool boot_bzimage_is(const uint8_t *head, size_t len)
{
	return len >= 0x206 && get_le16(head + 0x1fe) == BOOT_FLAG &&
	       get_le32(head + 0x202) == HDRS_MAGIC;
}

/* Fields that the kernel's version of the protocol does not have yet may hold anything. */
static void clear_newer(struct setup_header *h)
{
	if (h->version < 0x0208)
		h->payload_offset = h->payload_length = 0;
	if (h->version < 0x0209)
		h->setup_data = 0;
	if (h->version < 0x020a) {
		h->pref_address = 0;
		h->init_size = 0;
		h->min_alignment = 0;
	}
	if (h->version < 0x020c)
		h->xloadflags = 0;
	if (!h->initrd_addr_max)
		h->initrd_addr_max = INITRD_MAX_OLD;
}

static int check_protocol(const struct boot_kernel *k, const struct setup_header *h,
			  struct hako_error *err)
{
	if (h->version < 0x0206)
		return error_set(
			err, -ENOEXEC,
			"%s: is a kernel of boot protocol %u.%02u, at least 2.06 is needed",
			k->img.path, h->version >> 8, h->version & 0xff);
	if (!(h->loadflags & LOADED_HIGH))
		return error_set(err, -ENOEXEC,
				 "%s: is a zImage, which only real-mode firmware can start; a "
				 "bzImage is needed",
				 k->img.path);
	return 0;
}

int boot_bzimage_parse(struct boot_kernel *k, const uint8_t *head, size_t len,
		       struct hako_error *err)
{
	struct setup_header *h = &k->bz.hdr;
	/* 3.: the header ends where the jump at 0x200 goes. */
	size_t end = 0x202 + head[0x201];
	uint64_t want;
	int ret;

	memset(h, 0, sizeof(*h));
	end = MIN(MIN(end, len), SETUP_OFFSET + sizeof(*h));
	memcpy(h, head + SETUP_OFFSET, end - SETUP_OFFSET);
	ret = check_protocol(k, h, err);
	if (ret)
		return ret;
	clear_newer(h);
	k->bz.pm_offset = ((h->setup_sects ? h->setup_sects : 4) + 1) * 512;
	k->bz.pm_size = (uint64_t)h->syssize * 16;
	if (!h->syssize)
		return error_set(err, -ENOEXEC, "%s: its header says that the kernel is empty",
				 k->img.path);
	want = k->bz.pm_offset + k->bz.pm_size;
	/* The size is rounded up; the file need not be. */
	if (k->img.size < want - 15)
		return error_set(err, -ENODATA,
				 "%s: is truncated: its header says %llu bytes, the file has %llu",
				 k->img.path, (unsigned long long)want,
				 (unsigned long long)k->img.size);
	k->bz.pm_size = MIN(k->bz.pm_size, k->img.size - k->bz.pm_offset);
	if (h->payload_offset > k->bz.pm_size ||
	    h->payload_length > k->bz.pm_size - h->payload_offset)
		return error_set(err, -ENOEXEC,
				 "%s: its header says that %u bytes at %u are the payload, the "
				 "kernel has %llu",
				 k->img.path, h->payload_length, h->payload_offset,
				 (unsigned long long)k->bz.pm_size);
	return 0;
}

static int no_room(const struct boot_install *in, const struct boot_kernel *k, uint64_t start,
		   uint64_t len, struct hako_error *err)
{
	return error_set(err, -ENOMEM,
			 "%s: needs memory from 0x%llx to 0x%llx, where the guest's %llu MiB do "
			 "not reach",
			 k->img.path, (unsigned long long)start,
			 (unsigned long long)(start + len - 1),
			 (unsigned long long)(in->mem->ram_size / MiB));
}

/* --- unpacked by the guest -------------------------------------------------------------------- */

static int load_packed(struct boot_install *in, struct boot_kernel *k, struct hako_error *err)
{
	struct setup_header *h = &k->bz.hdr;
	uint64_t start = BOOT_KERNEL_MIN, len = MAX(k->bz.pm_size, h->init_size);
	void *p;

	if (h->relocatable_kernel && h->pref_address > start)
		start = h->pref_address;
	p = start <= UINT32_MAX ? boot_kernel_ptr(in, start, len) : NULL;
	if (!p)
		return no_room(in, k, start, len, err);
	in->kernel_end = start + len;
	h->code32_start = start;
	if (h->xloadflags & XLF_KERNEL_64) {
		in->entry->mode = BOOT_MODE_LONG;
		in->entry->rip = start + ENTRY_64;
	} else {
		in->entry->mode = BOOT_MODE_PROTECTED;
		in->entry->rip = start;
	}
	return boot_image_read(&k->img, k->bz.pm_offset, p, k->bz.pm_size, err);
}

/* --- unpacked here ---------------------------------------------------------------------------- */

static bool overlap(uint64_t a, uint64_t a_len, uint64_t b, uint64_t b_len)
{
	return a < b + b_len && b < a + a_len;
}

/*
 * Would moving segment @i, to its place from @base, where the file is, overwrite one not yet
 * moved?
 */
static bool clobbers(const struct boot_elf *elf, unsigned int i, uint64_t base)
{
	for (unsigned int j = i + 1; j < elf->nsegments; j++) {
		if (overlap(elf->segment[i].paddr, elf->segment[i].filesz,
			    base + elf->segment[j].offset, elf->segment[j].filesz))
			return true;
	}
	return false;
}

/*
 * Move the segments of the ELF file at @base, in guest RAM, to their places. What a segment has
 * beyond the file's part is not zeroed, since the kernel's own unpacker does not either: the
 * kernel clears its BSS.
 */
static int spread(struct boot_install *in, const struct boot_elf *elf, const struct boot_image *img,
		  uint64_t base, struct hako_error *err)
{
	struct boot_image copy = *img;
	void *all;
	int ret;

	for (unsigned int i = 0; i < elf->nsegments; i++) {
		if (clobbers(elf, i, base))
			goto by_copy;
	}
	for (unsigned int i = 0; i < elf->nsegments; i++) {
		const struct boot_segment *s = &elf->segment[i];
		uint8_t *p = boot_kernel_ptr(in, s->paddr, s->memsz);

		if (p != img->data + s->offset)
			memmove(p, img->data + s->offset, s->filesz);
	}
	return 0;
by_copy:
	all = mmap(NULL, img->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (all == MAP_FAILED)
		return error_set(err, -ENOMEM, "%s: out of memory", img->path);
	copy.data = memcpy(all, img->data, img->size);
	ret = boot_elf_load(in, &copy, elf, err);
	munmap(all, img->size);
	return ret;
}

static int unpack_payload(struct boot_kernel *k, void *out, size_t room, size_t *got,
			  struct hako_error *err)
{
	const struct setup_header *h = &k->bz.hdr;
	const uint8_t *payload;
	uint8_t *file;
	int ret;

	ret = boot_image_copy(&k->img, &file, err);
	if (ret)
		return ret;
	payload = file + k->bz.pm_offset + h->payload_offset;
	ret = unpack(unpack_detect(payload, h->payload_length), payload, h->payload_length, out,
		     room, got, err);
	munmap(file, k->img.size);
	return ret ? error_prefix(err, "%s", k->img.path) : 0;
}

/* -EOPNOTSUPP if this is something for the kernel's own unpacker. */
static int load_unpacked(struct boot_install *in, struct boot_kernel *k, struct hako_error *err)
{
	const struct setup_header *h = &k->bz.hdr;
	struct boot_image vmlinux = {.path = k->img.path, .fd = -1};
	uint64_t base = h->pref_address, room = h->init_size;
	size_t got;
	int ret;

	if (!h->payload_length || !room || !(h->xloadflags & XLF_KERNEL_64) || k->img.data)
		return error_set(err, -EOPNOTSUPP,
				 "%s: has no payload that can be unpacked on the host",
				 k->img.path);
	if (!boot_kernel_ptr(in, base, room))
		return no_room(in, k, base, room, err);
	if (boot_kernel_ptr(in, base - VMLINUX_OFFSET, room + VMLINUX_OFFSET)) {
		base -= VMLINUX_OFFSET;
		room += VMLINUX_OFFSET;
	}
	vmlinux.data = boot_kernel_ptr(in, base, room);
	ret = unpack_payload(k, (void *)vmlinux.data, room, &got, err);
	if (ret)
		return ret;
	vmlinux.size = got;
	if (!boot_elf_is(vmlinux.data, got))
		return error_set(err, -EOPNOTSUPP, "%s: its payload is not an ELF file",
				 k->img.path);
	ret = boot_elf_parse(&vmlinux, &k->elf, err);
	if (!ret)
		ret = boot_elf_check(in, &vmlinux, &k->elf, err);
	if (!ret)
		ret = spread(in, &k->elf, &vmlinux, base, err);
	if (ret)
		return ret;
	in->kernel_end = MAX(in->kernel_end, base + room);
	in->entry->mode = BOOT_MODE_LONG;
	in->entry->rip = k->elf.entry;
	return 0;
}

int boot_bzimage_load(struct boot_install *in, struct boot_kernel *k, struct hako_error *err)
{
	int ret = -EOPNOTSUPP;

	if (in->decompress != BOOT_DECOMPRESS_GUEST)
		ret = load_unpacked(in, k, err);
	if (ret != -EOPNOTSUPP || in->decompress == BOOT_DECOMPRESS_HOST)
		return ret;
	return load_packed(in, k, err);
}

/* --- boot_params ------------------------------------------------------------------------------ */

static bool has_word(const char *cmdline, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = cmdline; (p = strstr(p, word)); p += len) {
		if ((p == cmdline || p[-1] == ' ') && (!p[len] || p[len] == ' '))
			return true;
	}
	return false;
}

/* Linux 6.0 and later take a seed for their random numbers here, and wipe it out. */
static uint64_t write_seed(struct boot_install *in)
{
	const struct setup_data head = {.type = SETUP_RNG_SEED, .len = RNG_SEED_SIZE};
	uint8_t seed[RNG_SEED_SIZE];

	if (getrandom(seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed) ||
	    memory_write(in->mem, BOOT_SETUP_DATA_GPA, &head, sizeof(head)) ||
	    memory_write(in->mem, BOOT_SETUP_DATA_GPA + sizeof(head), seed, sizeof(seed)))
		return 0;
	return BOOT_SETUP_DATA_GPA;
}

static void fill_header(const struct boot_install *in, const struct setup_header *hdr,
			struct boot_params *bp)
{
	struct setup_header *h = &bp->hdr;

	if (hdr) {
		*h = *hdr;
	} else {
		h->boot_flag = BOOT_FLAG;
		h->header = HDRS_MAGIC;
		h->version = 0x020f;
		h->loadflags = LOADED_HIGH;
		h->kernel_alignment = 0x1000000;
		h->cmdline_size = BOOT_CMDLINE_MAX - 1;
	}
	h->type_of_loader = TYPE_UNDEFINED;
	h->vid_mode = VID_MODE_NORMAL;
	h->cmd_line_ptr = BOOT_CMDLINE_GPA;
	h->ramdisk_image = in->initrd_gpa;
	h->ramdisk_size = in->initrd_size;
	bp->ext_ramdisk_image = in->initrd_gpa >> 32;
	bp->ext_ramdisk_size = in->initrd_size >> 32;
	if (in->entry->mode == BOOT_MODE_LONG && !has_word(in->cmdline, "nokaslr"))
		h->loadflags |= KASLR_FLAG;
}

int boot_linux_params(struct boot_install *in, const struct setup_header *hdr,
		      struct hako_error *err)
{
	struct boot_params *bp = memory_ptr(in->mem, BOOT_ZERO_PAGE_GPA, sizeof(*bp));

	_Static_assert(E820_MAX <= E820_MAX_ENTRIES_ZEROPAGE, "the map fits the zero page");
	_Static_assert(sizeof(*bp) == PAGE_SIZE, "boot_params is a page");
	if (!bp)
		return error_set(err, -ENOMEM, "no memory for boot_params");
	memset(bp, 0, sizeof(*bp));
	fill_header(in, hdr, bp);
	bp->hdr.setup_data = write_seed(in);
	bp->acpi_rsdp_addr = in->rsdp;
	bp->e820_entries = in->map->n;
	for (unsigned int i = 0; i < in->map->n; i++) {
		bp->e820_table[i].addr = in->map->entry[i].addr;
		bp->e820_table[i].size = in->map->entry[i].size;
		bp->e820_table[i].type = in->map->entry[i].type;
	}
	in->entry->rsi = BOOT_ZERO_PAGE_GPA;
	return 0;
}
