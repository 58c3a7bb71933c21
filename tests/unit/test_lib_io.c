/* SPDX-License-Identifier: GPL-2.0-only */
/* hako.h: disks and networks of the program's. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "lib_test.h"
#include "suite.h"

static const char *const machines[] = {"micro", "q35"};

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

/* --- disks ------------------------------------------------------------------------------------- */

#define LENGTH (1 << 20)

struct record {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum hako_disk_op op[32];
	uint64_t offset[32], bytes[32];
	unsigned int n;
	int result;
	unsigned int delay_ms;
	bool keep; /* do not complete it */
	struct hako_disk_request *kept;
	char *memory; /* for those that are served here */
};

static void serve(struct record *r, struct hako_disk_request *req)
{
	char *at = r->memory + req->offset;

	for (int i = 0; i < req->niov; i++) {
		if (req->op == HAKO_DISK_READ)
			memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
		else
			memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
		at += req->iov[i].iov_len;
	}
}

static void request(void *opaque, struct hako_disk_request *req)
{
	struct record *r = opaque;
	int result;

	pthread_mutex_lock(&r->lock);
	if (r->n < 32) {
		r->op[r->n] = req->op;
		r->offset[r->n] = req->offset;
		r->bytes[r->n++] = req->bytes;
	}
	if (r->memory)
		serve(r, req);
	result = r->result;
	if (r->keep)
		r->kept = req;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	if (!r->keep)
		hako_disk_done(req, result, r->delay_ms);
}

static const struct record no_record = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.changed = PTHREAD_COND_INITIALIZER,
};

START_TEST(disk_in_memory)
{
	struct hako_vm *vm = talk_new(machines[_i], "--device virtio-blk,drive=d");
	char *memory = calloc(1, LENGTH);
	struct hako_disk disk = {.size = sizeof(disk), .length = LENGTH, .memory = memory};
	struct hako_console *c;

	memcpy(memory + 5 * 512, "\x0d\xf0\xad\xba", 4);
	ok(hako_vm_add_disk(vm, "d", &disk, &err));
	fails(hako_vm_add_disk(vm, "d", &disk, &err), -EEXIST, "disk d");
	fails(hako_vm_add_disk(vm, "a,b", &disk, &err), -EINVAL, "\"a,b\"");
	disk.length = 513;
	fails(hako_vm_add_disk(vm, "e", &disk, &err), -EINVAL, "512");
	disk.length = 512;
	disk.memory = NULL;
	fails(hako_vm_add_disk(vm, "e", &disk, &err), -EINVAL, "neither");
	disk.size = 8;
	fails(hako_vm_add_disk(vm, "e", &disk, &err), -EINVAL, "size");
	c = talk_start(vm);
	tell(c, "disk-read 5", "baadf00d");
	tell(c, "disk-write 7ff 600df00d", "done");
	tell(c, "disk-flush", "done");
	tell(c, "disk-read 7ff", "600df00d");
	tell(c, "disk-read 800", "error 1");
	ck_assert(!memcmp(memory + LENGTH - 4, "\x0d\xf0\x0d\x60", 4));
	disk.size = sizeof(disk);
	disk.memory = memory;
	fails(hako_vm_add_disk(vm, "e", &disk, &err), -EBUSY, "created");
	hako_vm_destroy(vm);
	free(memory);
}
END_TEST

START_TEST(disk_by_function)
{
	struct hako_vm *vm = talk_new(machines[_i], "--device virtio-blk,drive=d,werror=report");
	struct record r = no_record;
	struct hako_disk disk = {
		.size = sizeof(disk),
		.length = LENGTH,
		.request = request,
		.opaque = &r,
	};
	struct hako_console *c;
	double start;

	r.memory = calloc(1, LENGTH);
	ok(hako_vm_add_disk(vm, "d", &disk, &err));
	c = talk_start(vm);
	tell(c, "disk-write 3 77", "done");
	tell(c, "disk-read 3", "00000077");
	tell(c, "disk-flush", "done");
	ck_assert_uint_eq(r.n, 3);
	ck_assert_int_eq(r.op[0], HAKO_DISK_WRITE);
	ck_assert_int_eq(r.op[1], HAKO_DISK_READ);
	ck_assert_int_eq(r.op[2], HAKO_DISK_FLUSH);
	ck_assert_uint_eq(r.offset[1], 3 * 512);
	ck_assert_uint_eq(r.bytes[1], 512);
	r.result = -EIO;
	tell(c, "disk-read 3", "error 1");
	tell(c, "disk-write 3 1", "error 1");
	/* There is no memory of which the library knows. */
	r.result = HAKO_DISK_SERVE;
	tell(c, "disk-read 3", "error 1");
	r.result = 0;
	r.delay_ms = 300;
	start = seconds();
	tell(c, "disk-read 3", "00000001");
	ck_assert_double_ge(seconds() - start, 0.3);
	hako_vm_destroy(vm);
	free(r.memory);
}
END_TEST

static struct hako_disk_request *wait_kept(struct record *r)
{
	struct hako_disk_request *req;

	pthread_mutex_lock(&r->lock);
	while (!r->kept)
		pthread_cond_wait(&r->changed, &r->lock);
	req = r->kept;
	r->kept = NULL;
	pthread_mutex_unlock(&r->lock);
	return req;
}

/* Completed later, by this thread; and an error that pauses the VM, and is tried again. */
START_TEST(disk_later)
{
	struct hako_vm *vm = talk_new("micro", "--device virtio-blk,drive=d,rerror=stop");
	char *memory = calloc(1, LENGTH);
	struct record r = no_record;
	struct hako_disk disk = {
		.size = sizeof(disk),
		.length = LENGTH,
		.memory = memory,
		.request = request,
		.opaque = &r,
	};
	struct hako_console *c;

	r.keep = true;
	memory[9 * 512] = 9;
	ok(hako_vm_add_disk(vm, "d", &disk, &err));
	c = talk_start(vm);
	say(c, "disk-read 9");
	usleep(100000);
	ck_assert_int_eq(hako_console_expect(c, ">", 0, 0, NULL, NULL, &err), -ETIMEDOUT);
	hako_disk_done(wait_kept(&r), HAKO_DISK_SERVE, 0);
	hear(c, "00000009");
	say(c, "disk-read 9");
	hako_disk_done(wait_kept(&r), -EIO, 10);
	for (int i = 0; i < WAIT && strcmp(hako_vm_get(vm, "status"), "io-error"); i++)
		usleep(1000);
	ck_assert_str_eq(hako_vm_get(vm, "status"), "io-error");
	ok(hako_vm_start(vm, &err));
	hako_disk_done(wait_kept(&r), HAKO_DISK_SERVE, 0);
	hear(c, "00000009");
	hako_vm_destroy(vm);
	free(memory);
}
END_TEST

/* An image grows under a running guest and under a paused one; a program's disk does not. */
START_TEST(disk_resized)
{
	static const char *const formats[] = {"raw", "qcow2"};
	const char *format = formats[_i / 2];
	char path[] = "/var/tmp/hako-test-XXXXXX", *text;
	struct hako_disk disk = {
		.size = sizeof(disk), .length = LENGTH, .memory = calloc(1, LENGTH)};
	struct hako_vm *vm = talk_new(machines[_i % 2], NULL);
	struct hako_console *c;
	struct stat st;
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_gt(asprintf(&text, "qemu-img create -q -f %s %s 1M", format, path), 0);
	ck_assert_int_eq(system(text), 0);
	free(text);
	ck_assert_int_gt(asprintf(&text, "%s,format=%s", path, format), 0);
	ok(hako_vm_set(vm, "disk", text, &err));
	free(text);
	ok(hako_vm_add_disk(vm, "own", &disk, &err));
	fails(hako_vm_resize_disk(vm, "disk0", 2 * LENGTH, &err), -EINVAL, "not been created");
	c = talk_start(vm);
	tell(c, "disk-size", "2048");
	tell(c, "disk-write 800 7", "error 1");
	ok(hako_vm_resize_disk(vm, "disk0", 2 * LENGTH, &err));
	tell(c, "disk-size", "4096");
	tell(c, "disk-write 800 7", "done");
	tell(c, "disk-read 800", "00000007");
	tell(c, "disk-read fff", "00000000");
	ok(hako_vm_pause(vm, &err));
	ok(hako_vm_resize_disk(vm, "disk0", 3 * LENGTH, &err));
	ok(hako_vm_start(vm, &err));
	tell(c, "disk-size", "6144");
	tell(c, "disk-read 800", "00000007");
	tell(c, "disk-write 17ff 9", "done");
	fails(hako_vm_resize_disk(vm, "disk0", LENGTH + 1, &err), -EINVAL, "sectors");
	fails(hako_vm_resize_disk(vm, "disk7", LENGTH, &err), -ENOENT, "disk7");
	fails(hako_vm_resize_disk(vm, "own", 2 * LENGTH, &err), -ENOTSUP, "own");
	hako_vm_destroy(vm);
	ck_assert_int_eq(stat(path, &st), 0);
	if (_i / 2 == 0)
		ck_assert_int_eq(st.st_size, 3 * LENGTH);
	unlink(path);
	free(disk.memory);
}
END_TEST

/* A format stands on it: its header is read while the VM is created. */
START_TEST(format_on_top)
{
	struct hako_vm *vm = talk_new("micro", NULL);
	char *memory = calloc(1, LENGTH);
	struct record r = no_record;
	struct hako_disk disk = {
		.size = sizeof(disk),
		.options = "read-only=on",
		.length = LENGTH,
		.memory = memory,
		.request = request,
		.opaque = &r,
	};
	struct hako_console *c;

	r.result = HAKO_DISK_SERVE;
	r.delay_ms = 5;
	memory[4096 + 512] = 0x55;
	ok(hako_vm_add_disk(vm, "d", &disk, &err));
	ok(hako_vm_configure(vm, "--blockdev qcow2,node-name=q,file=d,read-only=on", &err));
	fails(hako_vm_create(vm, &err), -EINVAL, "qcow2");
	ck_assert_uint_gt(r.n, 0);
	ck_assert_int_eq(r.op[0], HAKO_DISK_READ);
	ck_assert_uint_eq(r.offset[0], 0);
	hako_vm_destroy(vm);
	vm = talk_new("micro", NULL);
	ok(hako_vm_add_disk(vm, "d", &disk, &err));
	ok(hako_vm_configure(
		vm,
		"--blockdev raw,node-name=r,file=d,offset=4096,size=65536,read-only=on "
		"--iothread t --device virtio-blk,drive=r,iothread=t",
		&err));
	c = talk_start(vm);
	tell(c, "disk-read 1", "00000055");
	tell(c, "disk-write 1 1", "error 1");
	hako_vm_destroy(vm);
	free(memory);
}
END_TEST

START_TEST(disk_unknown)
{
	struct hako_vm *vm = talk_new("micro", "--blockdev program,node-name=x");

	fails(hako_vm_create(vm, &err), -ENODEV, "hako_vm_add_disk");
	hako_vm_destroy(vm);
}
END_TEST

/* --- networks ---------------------------------------------------------------------------------- */

static uint32_t number(const uint8_t *frame)
{
	return frame[14] << 24 | frame[15] << 16 | frame[16] << 8 | frame[17];
}

START_TEST(frames_from_the_guest)
{
	struct hako_vm *vm = talk_new(machines[_i], "--net program,mac=52:54:00:12:34:56");
	struct hako_console *c = talk_start(vm);
	struct hako_nic *nic;
	uint8_t frame[1514];

	fails(hako_vm_nic(vm, "net1", &nic, &err), -ENODEV, "net1");
	ok(hako_vm_nic(vm, "net0", &nic, &err));
	fails(hako_nic_receive(nic, frame, sizeof(frame), 0, &err), -ETIMEDOUT, "net0");
	tell(c, "net-send 5", "done");
	for (uint32_t i = 0; i < 5; i++) {
		memset(frame, 0, sizeof(frame));
		ck_assert_int_eq(hako_nic_receive(nic, frame, i == 4 ? 18 : 1514, WAIT, &err), 100);
		ck_assert(!memcmp(frame, "\xff\xff\xff\xff\xff\xff\x52\x54\0\x12\x34\x56\x88\xb5",
				  14));
		ck_assert_uint_eq(number(frame), i);
	}
	/* More than the queue holds: none is lost, the guest waits. */
	say(c, "net-send 1000");
	usleep(200000);
	for (uint32_t i = 0; i < 4096; i++) {
		ck_assert_int_eq(hako_nic_receive(nic, frame, sizeof(frame), WAIT, &err), 100);
		ck_assert_uint_eq(number(frame), i);
	}
	hear(c, "done");
	fails(hako_nic_receive(nic, frame, sizeof(frame), 10, &err), -ETIMEDOUT, "sends nothing");
	ok(hako_vm_stop(vm, &err));
	ck_assert_int_eq(hako_nic_receive(nic, frame, sizeof(frame), -1, &err), 0);
	fails(hako_nic_send(nic, frame, 60, -1, &err), -ESHUTDOWN, "ended");
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(frames_to_the_guest)
{
	struct hako_vm *vm = talk_new(machines[_i], "--net program");
	uint8_t frame[1514] = "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x01\x88\xb5", back[1514];
	struct hako_console *c = talk_start(vm);
	struct hako_nic *nic;
	int sent;

	ok(hako_vm_nic(vm, "net0", &nic, &err));
	fails(hako_nic_send(nic, frame, 13, 0, &err), -EMSGSIZE, "13");
	fails(hako_nic_send(nic, frame, 65551, 0, &err), -EMSGSIZE, "65551");
	/* Before the guest has a driver they wait, as many as there is room for. */
	for (sent = 0; sent < 2000; sent++) {
		frame[16] = sent >> 8;
		frame[17] = sent;
		if (hako_nic_send(nic, frame, 60 + sent, 0, &err))
			break;
	}
	ck_assert_int_eq(sent, 1024);
	ck_assert_ptr_nonnull(strstr(err.message, "takes no frames"));
	say(c, "net-echo 400");
	ok(hako_console_expect(c, "ready", 0, WAIT, NULL, NULL, &err));
	for (int i = 0; i < 1024; i++) {
		ck_assert_int_eq(hako_nic_receive(nic, back, sizeof(back), WAIT, &err), 60 + i);
		ck_assert_uint_eq(number(back), i);
		ck_assert(!memcmp(back, "\x02\0\0\0\0\x01", 6));
	}
	hako_vm_destroy(vm);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib_io");
	TCase *tc = tcase_create("calls");

	if (!lib_test_possible("lib_io"))
		return 0;
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, disk_in_memory, 0, 2);
	tcase_add_loop_test(tc, disk_by_function, 0, 2);
	tcase_add_test(tc, disk_later);
	tcase_add_loop_test(tc, disk_resized, 0, 4);
	tcase_add_test(tc, format_on_top);
	tcase_add_test(tc, disk_unknown);
	tcase_add_loop_test(tc, frames_from_the_guest, 0, 2);
	tcase_add_loop_test(tc, frames_to_the_guest, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
