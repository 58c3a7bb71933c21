/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-balloon (virtio 1.2, section 5.5): memory that the guest gives back. Pages that its driver puts into the balloon, or reports as
 * free, are taken from this process; when the guest touches them again, it gets fresh ones. All that is asked of the host are hints, so a
 * driver that names wrong pages spoils its own guest's memory only.
 */
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "mapping.h"
#include "virtio.h"
#include "vmm/balloon.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 128
#define PFN_SIZE   (1ull << VIRTIO_BALLOON_PFN_SHIFT)
/* What a turn of the loop may do: so many page numbers, or bytes of reported pages. The rest is for the next one. */
#define TURN_PFNS  512
#define TURN_BYTES (32 * MiB)

/* 5.5.2. Drivers of Linux before 6.11 number only the queues they use, hence roles: see role(). */
enum {
	INFLATE,
	DEFLATE,
	STATS,
	HINT,
	REPORT,
	QUEUES,
};

/* A queue of pages that are given back, and how far its chain has come. */
struct pages {
	struct virtqueue *vq;
	bool busy; /* there is a chain */
	struct virtq_chain chain;
	struct iovec iov[QUEUE_SIZE];
	uint64_t done;		/* bytes of the chain */
	struct loop_timer more; /* for the next turn */
};

struct virtio_balloon {
	struct virtio_device vdev;
	struct vm_balloon balloon;
	uint64_t size;
	char *iothread;
	bool deflate_on_oom, reporting, hint, poison;
	uint32_t interval; /* seconds, 0: never */

	/* Of configuration space, saved: pages of 4 KiB, the driver's pattern of free pages. Atomic. */
	uint32_t num_pages, actual, poison_val;

	struct pages pages[QUEUES];
	uint64_t reported; /* bytes; atomic */
	bool told;	   /* of a page that is not RAM, since the driver's start */

	/* The driver's buffer of statistics: it is returned to ask for new ones. The loop's. */
	bool have_stats;
	struct virtq_chain stats_chain;
	struct loop_timer stats_timer;
	/* Atomic. */
	uint64_t stat[VIRTIO_BALLOON_S_NR];
	uint64_t stats_time; /* clock_now()'s; 0: none */
};

static struct virtio_balloon *to_balloon(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_balloon, vdev);
}

static bool has_feature(const struct virtio_balloon *b, unsigned int bit)
{
	return virtio_has_feature(&b->vdev, bit);
}

static unsigned int role(const struct virtqueue *vq)
{
	if (vq->index == HINT && !virtio_has_feature(vq->vdev, VIRTIO_BALLOON_F_FREE_PAGE_HINT))
		return REPORT;
	return vq->index;
}

/* --- pages ------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

/* Some of the chain's page numbers. Sorted, since what lies side by side is given back with one system call. */
static void inflate(struct virtio_balloon *b, struct pages *p)
{
	const struct memory *mem = &b->vdev.obj.vm->mem;
	uint32_t pfn[TURN_PFNS];
	size_t n = iov_read(p->iov, p->chain.nout, p->done, pfn, sizeof(pfn)) / sizeof(*pfn), end;
	uint64_t ram = 0, all = 0;

	for (size_t i = 0; i < n; i++)
		pfn[i] = get_le32(&pfn[i]);
	qsort(pfn, n, sizeof(*pfn), compare);
	for (size_t i = 0; i < n; i = end) {
		uint64_t len;

		for (end = i + 1; end < n && pfn[end] - pfn[end - 1] <= 1; end++)
			;
		len = (pfn[end - 1] - pfn[i] + 1ull) * PFN_SIZE;
		ram += memory_discard(mem, pfn[i] * PFN_SIZE, len);
		all += len;
	}
	if (ram < all && !b->told) {
		b->told = true;
		vm_guest_error(b->vdev.obj.vm, "%s: pages that are not RAM are left alone",
			       b->vdev.obj.id ?: b->vdev.ops->name);
	}
	/* What is left over at the end is no page number. */
	p->done = n < TURN_PFNS ? p->chain.out_len : p->done + sizeof(pfn);
}

/* Some of the pages that are the chain's buffers (5.5.6.7). What they hold must stay if free pages have a pattern. */
static void report(struct virtio_balloon *b, struct pages *p)
{
	const struct iovec *iov = p->iov + p->chain.nout;
	uint64_t left = TURN_BYTES, skip = p->done;

	if (has_feature(b, VIRTIO_BALLOON_F_PAGE_POISON) && READ_ONCE(b->poison_val)) {
		p->done = p->chain.in_len;
		return;
	}
	for (unsigned int i = 0; i < p->chain.nin && left; i++) {
		uint64_t n = iov[i].iov_len;

		if (skip >= n) {
			skip -= n;
			continue;
		}
		n = MIN(n - skip, left);
		memory_discard_ptr(&b->vdev.obj.vm->mem, (uint8_t *)iov[i].iov_base + skip, n);
		skip = 0;
		left -= n;
		p->done += n;
		__atomic_add_fetch(&b->reported, n, __ATOMIC_RELAXED);
	}
}

/* One turn's share of the queue's pages. */
static void work(struct virtio_balloon *b, struct pages *p)
{
	unsigned int what = role(p->vq);
	uint64_t all;

	if (!p->busy) {
		if (virtq_pop(p->vq, &p->chain, p->iov, ARRAY_SIZE(p->iov)) != 1)
			return;
		p->busy = true;
		p->done = 0;
	}
	/* Deflating asks for nothing: the host has a page when the guest touches it. Hints are for migration. */
	all = what == INFLATE ? p->chain.out_len : what == REPORT ? p->chain.in_len : 0;
	if (what == REPORT && !has_feature(b, VIRTIO_BALLOON_F_REPORTING))
		all = 0;
	if (p->done < all && what == INFLATE)
		inflate(b, p);
	else if (p->done < all)
		report(b, p);
	if (p->done >= all) {
		p->busy = false;
		virtq_push(p->vq, p->chain.head, 0);
	}
	loop_timer_set(p->vq->loop, &p->more, clock_now());
}

static void work_more(struct loop_timer *timer)
{
	struct pages *p = container_of(timer, struct pages, more);

	work(to_balloon(p->vq->vdev), p);
}

/* --- statistics (5.5.6.3) ---------------------------------------------------------------------- */

static void forget_stats(struct virtio_balloon *b)
{
	for (unsigned int i = 0; i < VIRTIO_BALLOON_S_NR; i++)
		WRITE_ONCE(b->stat[i], UINT64_MAX);
	WRITE_ONCE(b->stats_time, 0);
}

static void take_stats(struct virtio_balloon *b, const struct iovec *iov, unsigned int n)
{
	struct virtio_balloon_stat s;

	forget_stats(b);
	/* Of tags that are not known here, there may be as many again. */
	for (unsigned int i = 0; i < 2 * VIRTIO_BALLOON_S_NR; i++) {
		uint16_t tag;

		if (iov_read(iov, n, i * sizeof(s), &s, sizeof(s)) != sizeof(s))
			break;
		tag = get_le16(&s.tag);
		if (tag < VIRTIO_BALLOON_S_NR)
			WRITE_ONCE(b->stat[tag], get_le64(&s.val));
	}
	WRITE_ONCE(b->stats_time, clock_now());
}

static void handle_stats(struct virtio_balloon *b, struct virtqueue *vq)
{
	struct iovec iov[QUEUE_SIZE];
	struct virtq_chain chain;

	while (virtq_pop(vq, &chain, iov, ARRAY_SIZE(iov)) == 1) {
		/* There is to be one only; of several the last counts. */
		if (b->have_stats)
			virtq_push(vq, b->stats_chain.head, 0);
		b->have_stats = true;
		b->stats_chain = chain;
		take_stats(b, iov, chain.nout);
		if (b->interval)
			loop_timer_set(vq->loop, &b->stats_timer,
				       clock_now() + b->interval * 1000000000ull);
	}
}

static void want_stats(struct loop_timer *timer)
{
	struct virtio_balloon *b = container_of(timer, struct virtio_balloon, stats_timer);

	b->have_stats = false;
	virtq_push(&b->vdev.vq[STATS], b->stats_chain.head, 0);
}

/* --- the device -------------------------------------------------------------------------------- */

static void balloon_handle(struct virtqueue *vq)
{
	struct virtio_balloon *b = to_balloon(vq->vdev);

	if (vq->index == STATS)
		handle_stats(b, vq);
	else if (!b->pages[vq->index].busy)
		work(b, &b->pages[vq->index]);
}

/* What is in hand goes back to the ring, and is begun anew afterwards. */
static void balloon_drain(struct virtqueue *vq)
{
	struct virtio_balloon *b = to_balloon(vq->vdev);
	struct pages *p = &b->pages[vq->index];

	if (vq->index == STATS) {
		loop_timer_cancel(&b->stats_timer);
		if (b->have_stats)
			virtq_unpop(vq, &b->stats_chain);
		b->have_stats = false;
	} else {
		loop_timer_cancel(&p->more);
		if (p->busy)
			virtq_unpop(vq, &p->chain);
		p->busy = false;
	}
	virtq_stopped(vq);
}

static uint64_t balloon_features(struct virtio_device *vdev)
{
	const struct virtio_balloon *b = to_balloon(vdev);

	return BIT64(VIRTIO_BALLOON_F_STATS_VQ) |
	       (b->deflate_on_oom ? BIT64(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) : 0) |
	       (b->hint ? BIT64(VIRTIO_BALLOON_F_FREE_PAGE_HINT) : 0) |
	       (b->poison ? BIT64(VIRTIO_BALLOON_F_PAGE_POISON) : 0) |
	       (b->reporting ? BIT64(VIRTIO_BALLOON_F_REPORTING) : 0);
}

static void get_config(const struct virtio_balloon *b, struct virtio_balloon_config *config)
{
	put_le32(&config->num_pages, READ_ONCE(b->num_pages));
	put_le32(&config->actual, READ_ONCE(b->actual));
	put_le32(&config->free_page_hint_cmd_id, VIRTIO_BALLOON_CMD_ID_STOP);
	put_le32(&config->poison_val, READ_ONCE(b->poison_val));
}

static void balloon_config_read(struct virtio_device *vdev, uint32_t offset, void *buf,
				uint32_t len)
{
	struct virtio_balloon_config config;

	get_config(to_balloon(vdev), &config);
	memcpy(buf, (uint8_t *)&config + offset, len);
}

static void balloon_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
				 uint32_t len)
{
	struct virtio_balloon *b = to_balloon(vdev);
	struct virtio_balloon_config config;

	get_config(b, &config);
	memcpy((uint8_t *)&config + offset, buf, len);
	WRITE_ONCE(b->actual, get_le32(&config.actual));
	WRITE_ONCE(b->poison_val, get_le32(&config.poison_val));
}

/* The driver's reset: it has the pages again. How many the host wants stays. */
static void balloon_stop(struct virtio_device *vdev)
{
	struct virtio_balloon *b = to_balloon(vdev);

	WRITE_ONCE(b->actual, 0);
	WRITE_ONCE(b->poison_val, 0);
	b->told = false;
	forget_stats(b);
}

static const struct virtio_ops balloon_ops = {
	.name = "virtio-balloon",
	.device_id = VIRTIO_ID_BALLOON,
	.pci_class = 0x00ff00, /* as QEMU's: other */
	.config_size = sizeof(struct virtio_balloon_config),
	.features = balloon_features,
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.stop = balloon_stop,
	.handle = balloon_handle,
	.drain = balloon_drain,
};

/* --- the VM's side ----------------------------------------------------------------------------- */

/* Pages of 4 KiB that the guest is to do without, if it keeps @bytes. */
static uint32_t pages_less(const struct virtio_balloon *b, uint64_t bytes)
{
	uint64_t ram = b->vdev.obj.vm->mem.ram_size;

	return MIN((ram - MIN(bytes, ram)) / PFN_SIZE, UINT32_MAX);
}

static uint64_t bytes_left(const struct virtio_balloon *b, uint32_t pages)
{
	uint64_t ram = b->vdev.obj.vm->mem.ram_size;

	return ram - MIN(pages * PFN_SIZE, ram);
}

static void balloon_set(struct vm_balloon *balloon, uint64_t bytes)
{
	struct virtio_balloon *b = container_of(balloon, struct virtio_balloon, balloon);

	WRITE_ONCE(b->num_pages, pages_less(b, bytes));
	virtio_config_changed(&b->vdev);
}

static void balloon_query(struct vm_balloon *balloon, struct hako_balloon_info *info)
{
	struct virtio_balloon *b = container_of(balloon, struct virtio_balloon, balloon);
	uint64_t *const stat[VIRTIO_BALLOON_S_NR] = {
		[VIRTIO_BALLOON_S_SWAP_IN] = &info->swap_in,
		[VIRTIO_BALLOON_S_SWAP_OUT] = &info->swap_out,
		[VIRTIO_BALLOON_S_MAJFLT] = &info->major_faults,
		[VIRTIO_BALLOON_S_MINFLT] = &info->minor_faults,
		[VIRTIO_BALLOON_S_MEMFREE] = &info->free_memory,
		[VIRTIO_BALLOON_S_MEMTOT] = &info->total_memory,
		[VIRTIO_BALLOON_S_AVAIL] = &info->available_memory,
		[VIRTIO_BALLOON_S_CACHES] = &info->disk_caches,
		[VIRTIO_BALLOON_S_HTLB_PGALLOC] = &info->hugetlb_allocations,
		[VIRTIO_BALLOON_S_HTLB_PGFAIL] = &info->hugetlb_failures,
	};
	uint64_t time = READ_ONCE(b->stats_time);

	info->target = bytes_left(b, READ_ONCE(b->num_pages));
	info->actual = bytes_left(b, READ_ONCE(b->actual));
	info->reported = READ_ONCE(b->reported);
	info->stats_age_ms = time ? (int64_t)((clock_now() - time) / 1000000) : -1;
	for (unsigned int i = 0; i < VIRTIO_BALLOON_S_NR; i++)
		*stat[i] = READ_ONCE(b->stat[i]);
}

static const struct vm_balloon_ops vm_balloon_ops = {
	.set = balloon_set,
	.query = balloon_query,
};

static int balloon_init(struct virtio_balloon *b, struct hako_error *err)
{
	struct vm *vm = b->vdev.obj.vm;
	int r;

	if (vm->balloon)
		return error_set(err, -EEXIST, "there is a balloon already");
	if (b->size > vm->mem.ram_size)
		return error_set(err, -ERANGE, "size=%llu: there are %llu bytes of memory",
				 (unsigned long long)b->size, (unsigned long long)vm->mem.ram_size);
	r = virtio_device_init(&b->vdev, &balloon_ops, QUEUES, QUEUE_SIZE, err);
	if (r)
		return r;
	b->num_pages = b->size ? pages_less(b, b->size) : 0;
	b->stats_timer.fn = want_stats;
	forget_stats(b);
	for (unsigned int i = 0; i < QUEUES; i++) {
		b->pages[i].vq = &b->vdev.vq[i];
		b->pages[i].more.fn = work_more;
	}
	return 0;
}

static int balloon_create(struct object *obj, struct hako_error *err)
{
	struct virtio_balloon *b = container_of(obj, struct virtio_balloon, vdev.obj);
	int r = balloon_init(b, err);

	if (r)
		return r;
	r = virtio_map_queues(&b->vdev, b->iothread, &(struct option_tree){0}, err);
	if (!r)
		r = virtio_device_attach(&b->vdev, err);
	if (r) {
		virtio_device_free(&b->vdev);
		return r;
	}
	b->balloon.ops = &vm_balloon_ops;
	obj->vm->balloon = &b->balloon;
	if (!memory_discards(&obj->vm->mem))
		vm_warn(obj->vm,
			"%s: memory that is reserved (hugepages=) or locked (lock=on) is "
			"not given back to the host",
			obj->id ?: balloon_ops.name);
	return 0;
}

static void balloon_destroy(struct object *obj)
{
	obj->vm->balloon = NULL;
	virtio_device_free(container_of(obj, struct virtio_device, obj));
}

static const struct option balloon_options[] = {
	OPT_SIZE("size", struct virtio_balloon, size, "0", 0, 0,
		 "bytes that the guest keeps at first, 0: all"),
	OPT_BOOL("deflate-on-oom", struct virtio_balloon, deflate_on_oom, "off",
		 "the guest may take pages back rather than kill processes"),
	OPT_BOOL("free-page-reporting", struct virtio_balloon, reporting, "off",
		 "the guest tells of free pages, which the host gets back"),
	OPT_BOOL("free-page-hint", struct virtio_balloon, hint, "off",
		 "the guest could tell a migration of free pages; nothing asks it to yet"),
	OPT_BOOL("page-poison", struct virtio_balloon, poison, "on",
		 "the guest may tell of a pattern that free pages are to keep"),
	OPT_UINT("guest-stats-polling-interval", struct virtio_balloon, interval, "0", 0, 86400,
		 "seconds between the guest's statistics, 0: only those at its start"),
	OPT_STRING("iothread", struct virtio_balloon, iothread, NULL,
		   "id of the iothread that serves the queues"),
	OPT_END,
};

static const struct state_field balloon_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_balloon, vdev, &virtio_device_state),
	STATE_FIELD_UINT(struct virtio_balloon, num_pages),
	STATE_FIELD_UINT(struct virtio_balloon, actual),
	STATE_FIELD_UINT(struct virtio_balloon, poison_val),
	STATE_END,
};

static const struct state_table balloon_state = {
	.name = "virtio-balloon",
	.version = 1,
	.min_version = 1,
	.fields = balloon_fields,
};

VIRTIO_CLASS(virtio_balloon, "virtio-balloon", "a balloon: memory that the guest gives back",
	     struct virtio_balloon, balloon_options, &balloon_state, balloon_create,
	     balloon_destroy);
