/* SPDX-License-Identifier: GPL-2.0-only */
#include "memory.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vm.h"

#define HUGE_PAGE (2 * MiB)

/* Copy chunk by chunk over regions that touch. */
static int memory_copy(const struct memory *mem, uint64_t gpa, uint8_t *buf, uint64_t len,
		       bool write)
{
	while (len) {
		const struct ram_region *r = mem->region, *end = r + mem->nregions;
		uint64_t n;

		while (r < end && gpa - r->gpa >= r->size)
			r++;
		if (r == end)
			return -EFAULT;
		n = MIN(len, r->size - (gpa - r->gpa));
		if (write)
			memcpy(r->hva + (gpa - r->gpa), buf, n);
		else
			memcpy(buf, r->hva + (gpa - r->gpa), n);
		gpa += n;
		buf += n;
		len -= n;
	}
	return 0;
}

int memory_read(const struct memory *mem, uint64_t gpa, void *buf, uint64_t len)
{
	return memory_copy(mem, gpa, buf, len, false);
}

int memory_write(const struct memory *mem, uint64_t gpa, const void *buf, uint64_t len)
{
	return memory_copy(mem, gpa, (uint8_t *)buf, len, true);
}

/*
 * Fresh zeroed memory, aligned to @align so that huge pages of host and guest coincide. NORESERVE, as the guest may never
 * touch it.
 */
static uint8_t *map_aligned(uint64_t size, uint64_t align)
{
	uint8_t *p, *aligned;

	if (size + align < size)
		return NULL;
	p = mmap(NULL, size + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return NULL;
	aligned = (uint8_t *)ALIGN_UP((uintptr_t)p, align);
	if (aligned != p)
		munmap(p, aligned - p);
	munmap(aligned + size, p + align - aligned);
	if (mprotect(aligned, size, PROT_READ | PROT_WRITE)) {
		munmap(aligned, size);
		return NULL;
	}
	return aligned;
}

/* Over @p: without MAP_NORESERVE, so that there is no SIGBUS later. */
static int map_huge(uint8_t *p, uint64_t size, uint64_t page)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB |
		    (int)__builtin_ctzll(page) << MAP_HUGE_SHIFT;

	return mmap(p, size, PROT_READ | PROT_WRITE, flags, -1, 0) == MAP_FAILED ? -errno : 0;
}

static int share_region(const struct memory_options *o, struct ram_region *r);

static int back_region(const struct memory_options *o, struct ram_region *r, struct hako_error *err)
{
	int ret = 0;

	if (o->share)
		ret = share_region(o, r);
	else if (o->huge)
		ret = map_huge(r->hva, r->size, o->huge);
	if (ret && o->huge)
		return memory_huge_error(ret, r->size, o->huge, err);
	if (ret)
		return error_errno(err, ret, "shared guest memory");
	return memory_advise(o, r, err);
}

static int map_region(struct memory *mem, uint64_t gpa, uint64_t size, struct ram_region **region,
		      struct hako_error *err)
{
	struct ram_region *r = &mem->region[mem->nregions];
	int ret;

	if (mem->nregions == MEMORY_MAX_REGIONS)
		return error_set(err, -ENOSPC, "too many memory regions");
	*r = (struct ram_region){.gpa = gpa, .size = size, .slot = mem->nregions, .fd = -1};
	r->hva = map_aligned(size, MAX(HUGE_PAGE, mem->options.huge));
	if (!r->hva)
		return error_errno(err, -errno ?: -ENOMEM, "%llu MiB of guest memory",
				   (unsigned long long)(size / MiB));
	ret = back_region(&mem->options, r, err);
	if (ret) {
		munmap(r->hva, size);
		if (r->fd >= 0)
			close(r->fd);
		return ret;
	}
	mem->nregions++;
	mem->ram_size += size;
	*region = r;
	return 0;
}

static void unmap_last(struct memory *mem)
{
	struct ram_region *r = &mem->region[--mem->nregions];

	munmap(r->hva, r->size);
	if (r->fd >= 0)
		close(r->fd);
	mem->ram_size -= r->size;
}

int memory_add_ram(struct vm *vm, uint64_t gpa, uint64_t size, struct hako_error *err)
{
	struct ram_region *r;

	return map_region(&vm->mem, gpa, size, &r, err);
}

/* Sealed: else whoever has the descriptor could cut the file off, and have us meet SIGBUS. */
static int share_region(const struct memory_options *o, struct ram_region *r)
{
	const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	const unsigned int huge = o->huge ? MFD_HUGETLB | (unsigned int)__builtin_ctzll(o->huge)
								  << MAP_HUGE_SHIFT
					  : 0;
	int fd = memfd_create("guest-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING | huge), ret;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, r->size) || fcntl(fd, F_ADD_SEALS, seals) ||
	    mmap(r->hva, r->size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED | (huge ? 0 : MAP_NORESERVE), fd, 0) == MAP_FAILED) {
		ret = -errno;
		close(fd);
		return ret;
	}
	r->fd = fd;
	return 0;
}

int memory_share(struct vm *vm, struct hako_error *err)
{
	int ret = 0;

	for (unsigned int i = 0; i < vm->mem.nregions && !ret; i++) {
		struct ram_region *r = &vm->mem.region[i];

		if (r->fd >= 0)
			continue;
		if (vm->state != VM_NEW)
			return error_set(
				err, -EBUSY,
				"guest memory is private: name a network of this kind when "
				"the VM is made");
		if (vm->mem.options.merge)
			return error_set(err, -EINVAL,
					 "--memory merge=on is for private memory only");
		ret = share_region(&vm->mem.options, r);
		if (!ret)
			ret = memory_advise(&vm->mem.options, r, err);
	}
	return ret ? error_errno(err, ret, "shared guest memory") : 0;
}

int memory_attach(struct vm *vm, struct hako_error *err)
{
	for (unsigned int i = 0; i < vm->mem.nregions && vm->fd >= 0; i++) {
		const struct ram_region *r = &vm->mem.region[i];
		struct kvm_userspace_memory_region region = {
			.slot = r->slot,
			.guest_phys_addr = r->gpa,
			.memory_size = r->size,
			.userspace_addr = (uintptr_t)r->hva,
		};

		if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
			return error_errno(err, -errno, "KVM: %llu MiB of guest memory at 0x%llx",
					   (unsigned long long)(r->size / MiB),
					   (unsigned long long)r->gpa);
	}
	return 0;
}

uint64_t memory_touch(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	uint64_t n = MIN(len, ALIGN_DOWN(gpa, HUGE_PAGE) + HUGE_PAGE - gpa);
	void *p = memory_ptr(mem, gpa, n);

	if (!p)
		return 0;
	/* Linux 5.14. An older one has the guest wait for its pages. */
	madvise(p, n, MADV_POPULATE_WRITE);
	return n;
}

/* The whole pages in [@off, @off + @len) of @r; they are within it. */
static void discard(const struct ram_region *r, uint64_t off, uint64_t len)
{
	uint64_t from = ALIGN_UP(off, PAGE_SIZE), to = ALIGN_DOWN(off + len, PAGE_SIZE);

	/* Of a file, MADV_DONTNEED would only forget where its pages are. */
	if (from < to)
		madvise(r->hva + from, to - from, r->fd >= 0 ? MADV_REMOVE : MADV_DONTNEED);
}

uint64_t memory_discard(const struct memory *mem, uint64_t gpa, uint64_t len)
{
	uint64_t ram = 0;

	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct ram_region *r = &mem->region[i];
		uint64_t from = MAX(gpa, r->gpa), to = MIN(gpa + len, r->gpa + r->size);

		if (from >= to)
			continue;
		if (memory_discards(mem))
			discard(r, from - r->gpa, to - from);
		ram += to - from;
	}
	return ram;
}

void memory_discard_ptr(const struct memory *mem, void *p, uint64_t len)
{
	if (!memory_discards(mem))
		return;
	for (unsigned int i = 0; i < mem->nregions; i++) {
		const struct ram_region *r = &mem->region[i];
		uint64_t off = (uint8_t *)p - r->hva;

		if (off < r->size && len <= r->size - off)
			discard(r, off, len);
	}
}

int memory_init_plain(struct memory *mem, uint64_t size, struct hako_error *err)
{
	struct ram_region *r;

	*mem = (struct memory){0};
	return map_region(mem, 0, size, &r, err);
}

void memory_free(struct memory *mem)
{
	while (mem->nregions)
		unmap_last(mem);
}
