/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The paths that every request takes, without what the kernel does for it: paths queue|packed COUNT, paths raw|qcow2 read|write IMAGE COUNT.
 * tests/bench/paths.py runs it in callgrind, which counts instructions within the functions called measured_...; memory that is
 * allocated there is counted here, and printed.
 */
#include <stdio.h>

#include "devices/block/block.h"
#include "tests/unit/virtq_driver.h"

/* The driver's side is written for libcheck, whose tests these are none of. */
void _mark_point(const char *file, int line)
{
}

void _ck_assert_failed(const char *file, int line, const char *expr, const char *msg, ...)
{
	fprintf(stderr, "paths: %s:%d: %s\n", file, line, expr);
	exit(1);
}

#define BATCH	32
#define REQUEST 4096

static bool measuring;
static unsigned long allocations;

/* --- allocations: the linker has malloc() and its like called by these names (-Wl,--wrap) ----------- */

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
int __real_posix_memalign(void **p, size_t align, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
int __wrap_posix_memalign(void **p, size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
	allocations += measuring;
	return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
	allocations += measuring;
	return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
	allocations += measuring;
	return __real_realloc(p, size);
}

int __wrap_posix_memalign(void **p, size_t align, size_t size)
{
	allocations += measuring;
	return __real_posix_memalign(p, align, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
	allocations += measuring;
	return __real_aligned_alloc(align, size);
}

/* valgrind holds its lock in io_uring_enter(2), and nothing else would run; here nothing is submitted. */
struct io_uring;
struct io_uring_params;
int __wrap_io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
				      struct io_uring_params *p);

int __wrap_io_uring_queue_init_params(unsigned int entries, struct io_uring *ring,
				      struct io_uring_params *p)
{
	return -ENOSYS;
}

/* --- queues: a device that does nothing with what it gets ----------------------------------------- */

#define QSIZE 128

struct idle {
	struct virtio_device vdev;
};

static struct virtq_chain chains[BATCH + 1];

/* As a disk does: all there are, until the queue says that there are no more. */
static __attribute__((noinline)) unsigned int measured_pop(struct virtqueue *vq)
{
	struct iovec iov[16];
	unsigned int n = 0;

	while (n <= BATCH && virtq_pop(vq, &chains[n], iov, ARRAY_SIZE(iov)) == 1)
		n++;
	return n;
}

static __attribute__((noinline)) void measured_push(struct virtqueue *vq, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		virtq_push(vq, chains[i].head, REQUEST + 1);
	virtq_flush(vq);
}

static void idle_handle(struct virtqueue *vq)
{
	unsigned int n;

	measuring = true;
	n = measured_pop(vq);
	measured_push(vq, n);
	measuring = false;
}

static const struct virtio_ops idle_ops = {
	.name = "bench-idle",
	.device_id = 63,
	.handle = idle_handle,
};

static int idle_create(struct object *obj, struct hako_error *err)
{
	struct virtio_device *vdev = (struct virtio_device *)obj;

	return virtio_device_init(vdev, &idle_ops, 1, QSIZE, err)
		       ?: virtio_device_attach(vdev, err);
}

static void idle_destroy(struct object *obj)
{
	virtio_device_free((struct virtio_device *)obj);
}

static const struct option idle_options[] = {OPT_END};
static const struct state_field idle_fields[] = {
	STATE_FIELD_STRUCT(struct idle, vdev, &virtio_device_state),
	STATE_END,
};
static const struct state_table idle_state = {"bench-idle", 1, 1, idle_fields, NULL, NULL};

VIRTIO_CLASS(idle, "bench-idle", "does nothing", struct idle, idle_options, &idle_state,
	     idle_create, idle_destroy);

static void queue(bool packed, unsigned long count)
{
	struct vdrv_buf out, in[2];
	struct vdrv_queue q;
	struct vdrv drv;

	vdrv_packed = packed;
	vdrv_open(&drv, 16 * MiB, "bench-idle-device", NULL);
	ck_assert(vdrv_negotiate(&drv, BIT64(VIRTIO_RING_F_EVENT_IDX)));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
	vdrv_settle(&drv);
	out = vdrv_buf(&drv, 16);
	in[0] = vdrv_buf(&drv, REQUEST);
	in[1] = vdrv_buf(&drv, 1);
	for (unsigned long done = 0; done < count; done += BATCH) {
		for (int i = 0; i < BATCH; i++)
			vdrv_add(&q, &out, 1, in, 2);
		vdrv_kick(&q);
		for (int i = 0; i < BATCH; i++)
			ck_assert(vdrv_wait(&q, NULL, NULL));
		vdrv_settle(&drv);
	}
	vdrv_close(&drv);
}

/* --- disks: on a file that answers at once, or when it is told to --------------------------------- */

struct held_file {
	struct block_node node;
	char *path;
	int fd;
};

static bool hold;
static struct block_req *held[BATCH];
static unsigned int nheld;

static int file_sync(struct block_node *node, struct block_req *req)
{
	int fd = container_of(node, struct held_file, node)->fd;
	ssize_t n = req->op == BLOCK_READ    ? preadv(fd, req->iov, req->niov, req->offset)
		    : req->op == BLOCK_WRITE ? pwritev(fd, req->iov, req->niov, req->offset)
					     : (ssize_t)req->bytes;

	return n == (ssize_t)req->bytes ? 0 : -EIO;
}

static void file_submit(struct block_node *node, struct block_req *req)
{
	if (!hold) {
		block_done_later(req, file_sync(node, req));
		return;
	}
	ck_assert_uint_lt(nheld, BATCH);
	held[nheld++] = req;
}

static const struct block_ops file_ops = {.submit = file_submit, .sync = file_sync};

static int file_create(struct object *obj, struct hako_error *err)
{
	struct held_file *f = container_of(obj, struct held_file, node.obj);
	int ret = block_node_init(&f->node, &file_ops, err);

	f->fd = open(f->path, O_RDWR | O_CLOEXEC);
	ck_assert_int_ge(f->fd, 0);
	f->node.length = ALIGN_DOWN(lseek(f->fd, 0, SEEK_END), 512);
	f->node.writeback = true;
	return ret;
}

static void file_destroy(struct object *obj)
{
	struct held_file *f = container_of(obj, struct held_file, node.obj);

	close(f->fd);
	block_node_free(&f->node);
}

static const struct option file_options[] = {
	OPT_STRING("path", struct held_file, path, NULL, "the file"),
	OPT_END,
};

static const struct class file_class = {
	.name = "bench-file",
	.help = "a file that waits",
	.kind = CLASS_BLOCKDEV,
	.size = sizeof(struct held_file),
	.options = file_options,
	.bus_options = block_node_options,
	.create = file_create,
	.destroy = file_destroy,
};
HAKO_CLASS(file_class);

static struct disk {
	struct loop *loop;
	struct block_node *node;
	enum block_op op;
	unsigned long count;
	struct block_req reqs[BATCH];
	struct iovec iov;
	uint64_t next;
	int completed;
} disk;

static void disk_done(struct block_req *req, int res)
{
	ck_assert_int_eq(res, 0);
	__atomic_add_fetch(&disk.completed, 1, __ATOMIC_RELEASE);
}

static __attribute__((noinline)) void measured_submit(void)
{
	for (unsigned int i = 0; i < BATCH; i++)
		block_submit(disk.node, &disk.reqs[i]);
}

static __attribute__((noinline)) void measured_complete(void)
{
	for (unsigned int i = 0; i < BATCH; i++)
		held[i]->done(held[i], 0);
}

static void prepare(struct block_req *req, uint64_t offset)
{
	*req = (struct block_req){
		.op = disk.op,
		.offset = offset,
		.bytes = REQUEST,
		.iov = &disk.iov,
		.niov = 1,
		.done = disk_done,
		.loop = disk.loop,
	};
}

/* One request, which may have to read tables first. */
static void warm(void *arg)
{
	prepare(&disk.reqs[0], *(uint64_t *)arg);
	block_submit(disk.node, &disk.reqs[0]);
}

static void run_disk(void *arg)
{
	hold = true;
	for (unsigned long done = 0; done < disk.count; done += BATCH) {
		for (unsigned int i = 0; i < BATCH; i++) {
			/* Anywhere, but the same in every run (the constants are Knuth's). */
			disk.next = disk.next * 6364136223846793005u + 1442695040888963407u;
			prepare(&disk.reqs[i],
				(disk.next >> 16) % (disk.node->length / REQUEST) * REQUEST);
		}
		nheld = 0;
		measuring = true;
		measured_submit();
		/* Nothing may have left the path, for a coroutine or a thread. */
		ck_assert_uint_eq(nheld, BATCH);
		measured_complete();
		measuring = false;
	}
	hold = false;
}

static void on_disk(const char *format, bool write, const char *path, unsigned long count)
{
	struct keyvals kv = {0};
	struct hako_error err;
	char options[512];
	struct vm *vm;
	int done = 0;

	snprintf(options, sizeof(options), "file.driver=bench-file,file.path=%s", path);
	disk.op = write ? BLOCK_WRITE : BLOCK_READ;
	disk.count = count;
	disk.iov = (struct iovec){aligned_alloc(REQUEST, REQUEST), REQUEST};
	ck_assert_int_eq(vm_new_plain(&vm, 2 * MiB, &err), 0);
	ck_assert_int_eq(loop_new(&disk.loop, "paths", LOOP_AUTO, &err), 0);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_msg(block_open(vm, NULL, format, &kv, NULL, &disk.node, &err) == 0, "%s",
		      err.message);
	keyvals_free(&kv);
	ck_assert_msg(block_use_node(disk.node, vm, write ? BLOCK_USE_WRITE : 0, &err) == 0, "%s",
		      err.message);
	ck_assert_int_eq(block_attach(disk.node, disk.loop, &err), 0);
	for (uint64_t at = 0; at < disk.node->length; at += 64 * KiB) {
		loop_call(disk.loop, warm, &at);
		done++;
		while (__atomic_load_n(&disk.completed, __ATOMIC_ACQUIRE) < done)
			usleep(10);
	}
	loop_call(disk.loop, run_disk, NULL);
	ck_assert_int_eq(disk.completed - done, count);
	block_detach(disk.node, disk.loop);
	block_unuse(disk.node, vm);
	loop_free(disk.loop);
	vm_free_plain(vm);
	free(disk.iov.iov_base);
}

int main(int argc, char **argv)
{
	if (argc == 3)
		queue(!strcmp(argv[1], "packed"), strtoul(argv[2], NULL, 0));
	else if (argc == 5)
		on_disk(argv[1], !strcmp(argv[2], "write"), argv[3], strtoul(argv[4], NULL, 0));
	else
		return 2;
	printf("allocations %lu\n", allocations);
	return 0;
}
