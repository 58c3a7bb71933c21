/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-blk when something goes wrong, or changes: error policies and what waits for a resume, a new size, queues on several loops. */
#include "devices/block/block_co.h"
#include "virtio_blk_rig.h"

/* The same image behind a filter with these rules. */
static void start_faulty(int i, const char *rules, const char *options)
{
	struct hako_error err;
	char text[600];

	open_disk(i, "");
	snprintf(text, sizeof(text), "blkdebug,image=disk,id=faulty%s", rules);
	add_node(text);
	snprintf(text, sizeof(text), "drive=faulty,iothread=io0%s", options);
	ck_assert_msg(vdrv_device(&drv, "virtio-blk-device", text, &err) == 0, "%s", err.message);
	ck_assert(vdrv_negotiate(&drv, 0));
	vdrv_queue(&drv, &q, 0, QSIZE);
	vdrv_go(&drv);
}

#define ENOSPC_ONCE ",inject-error.0.iotype=write,inject-error.0.once=on,inject-error.0.errno=28"
#define EIO_ONCE    ",inject-error.0.once=on"

static int write_one(void)
{
	struct vdrv_buf data = vdrv_buf(&drv, 512);

	memset(mem(data), 0x77, 512);
	return simple(VIRTIO_BLK_T_OUT, 5, data, true);
}

static int read_one(void)
{
	return simple(VIRTIO_BLK_T_IN, 5, vdrv_buf(&drv, 512), false);
}

START_TEST(reported_or_ignored)
{
	start_faulty(_i, ENOSPC_ONCE, ",werror=report");
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_OK);
	stop_disk();
	start_faulty(_i, ENOSPC_ONCE, ",werror=ignore");
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_OK);
	stop_disk();
	start_faulty(_i, EIO_ONCE, "");
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_IOERR); /* enospc: it was something else */
	stop_disk();
	start_faulty(_i, EIO_ONCE, ",werror=stop");
	ck_assert_int_eq(read_one(), VIRTIO_BLK_S_IOERR);
	stop_disk();
	start_faulty(_i, EIO_ONCE, ",rerror=ignore");
	ck_assert_int_eq(read_one(), VIRTIO_BLK_S_OK);
	stop_disk();
}
END_TEST

/* In a packed ring nothing can wait: other chains are written over it when they are used. */
START_TEST(reported_if_packed)
{
	vdrv_packed = true;
	start_faulty(_i, ENOSPC_ONCE, ",werror=stop");
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(write_one(), VIRTIO_BLK_S_OK);
	ck_assert_uint_eq(drv.vdev->vq[0].nparked, 0);
	stop_disk();
}
END_TEST

/* Post a request without waiting; its status. */
static uint8_t *post(uint32_t type, uint64_t sector, struct vdrv_buf data)
{
	struct vdrv_buf bufs[3] = {header(type, sector), data, vdrv_buf(&drv, 1)};
	bool write = type == VIRTIO_BLK_T_OUT;
	uint8_t *status = mem(bufs[2]);

	*status = 0xee;
	vdrv_add(&q, bufs, write ? 2 : 1, bufs + (write ? 2 : 1), write ? 1 : 2);
	vdrv_kick(&q);
	return status;
}

static bool nothing_in_flight(void)
{
	return READ_ONCE(drv.vdev->vq[0].inflight) == 0;
}

/* All but the failed ones come back; these when the device goes on, and only then. */
START_TEST(stopped_and_tried_again)
{
	static const char *const options[] = {"", ",werror=stop", ",werror=enospc"};
	uint8_t *status[8];
	uint32_t id, len;
	uint64_t word;

	for (size_t o = 0; o < ARRAY_SIZE(options); o++) {
		start_faulty(_i,
			     ENOSPC_ONCE ",inject-error.1.sector=12,inject-error.1.errno=28,"
					 "inject-error.1.once=on",
			     options[o]);
		for (int k = 0; k < 8; k++) {
			struct vdrv_buf data = vdrv_buf(&drv, 512);

			memset(mem(data), 0x10 + k, 512);
			status[k] = post(VIRTIO_BLK_T_OUT, 10 + k, data);
		}
		for (int k = 0; k < 6; k++) {
			ck_assert(vdrv_wait(&q, &id, &len));
		}
		ck_assert_int_eq(*status[0], 0xee);
		ck_assert_int_eq(*status[2], 0xee);
		ck_assert_int_eq(*status[1], VIRTIO_BLK_S_OK);
		ck_assert_uint_eq(drv.vdev->vq[0].nparked, 2);
		ck_assert(nothing_in_flight());
		virtio_device_pause(drv.obj);
		ck_assert_int_eq(*status[0], 0xee);
		ck_assert_uint_eq(drv.vdev->vq[0].nparked, 2);
		virtio_device_resume(drv.obj);
		for (int k = 0; k < 2; k++)
			ck_assert(vdrv_wait(&q, &id, &len));
		for (int k = 0; k < 8; k++) {
			ck_assert_int_eq(*status[k], VIRTIO_BLK_S_OK);
			ck_assert_int_eq(pread(image_fd, &word, 8, (10 + k) * 512), 8);
			ck_assert_uint_eq(word, 0x0101010101010101ull * (0x10 + k));
		}
		ck_assert_uint_eq(drv.vdev->vq[0].nparked, 0);
		stop_disk();
	}
}
END_TEST

/* What waits is forgotten when the driver resets, and goes into a snapshot else. */
START_TEST(reset_or_saved_while_waiting)
{
	struct state_buf buf = {0}, load;
	struct vdrv_buf data;
	struct hako_error err;
	uint8_t *status;
	uint32_t id, len;

	start_faulty(_i, ",inject-error.0.errno=28", "");
	data = vdrv_buf(&drv, 512);
	post(VIRTIO_BLK_T_OUT, 3, data);
	for (int k = 0; k < 10000 && READ_ONCE(drv.vdev->vq[0].nparked) != 1; k++)
		usleep(1000);
	ck_assert_uint_eq(drv.vdev->vq[0].nparked, 1);
	vdrv_write(&drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(drv.vdev->vq[0].nparked, 0);
	stop_disk();

	start_faulty(_i, ENOSPC_ONCE, "");
	data = vdrv_buf(&drv, 512);
	memset(mem(data), 0x42, 512);
	status = post(VIRTIO_BLK_T_OUT, 3, data);
	for (int k = 0; k < 10000 && READ_ONCE(drv.vdev->vq[0].nparked) != 1; k++)
		usleep(1000);
	virtio_device_pause(drv.obj);
	ck_assert_int_eq(state_save(&buf, drv.obj->class->state, drv.obj, &err), 0);
	drv.obj->class->reset(drv.obj);
	ck_assert_uint_eq(drv.vdev->vq[0].nparked, 0);
	load = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_msg(state_load(&load, drv.obj->class->state, drv.obj, &err) == 0, "%s",
		      err.message);
	ck_assert_uint_eq(drv.vdev->vq[0].nparked, 1);
	virtio_device_resume(drv.obj);
	ck_assert(vdrv_wait(&q, &id, &len));
	ck_assert_int_eq(*status, VIRTIO_BLK_S_OK);
	state_buf_free(&buf);
	stop_disk();
}
END_TEST

/* A driver that changes a chain that waits: it is checked as a new one. */
START_TEST(changed_while_waiting)
{
	start_faulty(_i, ENOSPC_ONCE, "");
	post(VIRTIO_BLK_T_OUT, 3, vdrv_buf(&drv, 512));
	for (int k = 0; k < 10000 && READ_ONCE(drv.vdev->vq[0].nparked) != 1; k++)
		usleep(1000);
	virtio_device_pause(drv.obj);
	for (int k = 0; k < QSIZE; k++)
		q.desc[k].addr = htole64(UINT64_MAX - 100);
	virtio_device_resume(drv.obj);
	for (int k = 0; k < 10000 && !vdrv_needs_reset(&drv); k++)
		usleep(1000);
	ck_assert(vdrv_needs_reset(&drv));
	stop_disk();
}
END_TEST

/* --- size -------------------------------------------------------------------------------------- */

START_TEST(resized_while_used)
{
	struct vdrv_buf data;
	struct hako_error err;
	uint32_t generation;

	start_disk(_i, "", "", 0);
	data = vdrv_buf(&drv, 512);
	generation = vdrv_read(&drv, VIRTIO_MMIO_CONFIG_GENERATION);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, SECTORS, data, false), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 0);
	ck_assert_msg(block_resize_live(drv.vm, "disk", 2 * IMAGE_SIZE, &err) == 0, "%s",
		      err.message);
	ck_assert_int_ne(vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 2, 0);
	ck_assert_uint_ne(vdrv_read(&drv, VIRTIO_MMIO_CONFIG_GENERATION), generation);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_CAPACITY, 4), 2 * SECTORS);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, SECTORS, data, false), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, 2 * SECTORS - 1, data, true), VIRTIO_BLK_S_OK);
	ck_assert_int_eq(lseek(image_fd, 0, SEEK_END), 2 * IMAGE_SIZE);
	ck_assert_int_eq(block_resize_live(drv.vm, "disk", IMAGE_SIZE, &err), 0);
	ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, SECTORS, data, false), VIRTIO_BLK_S_IOERR);
	ck_assert_int_eq(block_resize_live(drv.vm, "disk", 1000, &err), -EINVAL);
	ck_assert_int_eq(block_resize_live(drv.vm, "disk", 0, &err), -EINVAL);
	ck_assert_int_eq(block_resize_live(drv.vm, "disc", 4096, &err), -ENOENT);
	stop_disk();

	open_disk(_i, ",read-only=on");
	ck_assert_int_eq(block_resize_live(drv.vm, "disk", 4096, &err), -EROFS);
	stop_disk();
	/* Before a driver is there, and a filter in between. */
	open_disk(_i, "");
	add_node("blkdebug,image=disk,id=top");
	ck_assert_int_eq(vdrv_device(&drv, "virtio-blk-device", "drive=top", &err), 0);
	ck_assert_int_eq(block_resize_live(drv.vm, "top", 2 * IMAGE_SIZE, &err), 0);
	ck_assert_uint_eq(vdrv_config(&drv, CONFIG_CAPACITY, 4), 2 * SECTORS);
	stop_disk();
}
END_TEST

/* A format does so in a coroutine, among its requests. */
START_TEST(format_resized_while_used)
{
	char path[] = "/var/tmp/hako-test-XXXXXX", text[200];
	struct vdrv_buf data;
	struct hako_error err;
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	close(fd);
	snprintf(text, sizeof(text), "qemu-img create -q -f qcow2 %s 4M", path);
	if (system(text) == 0) { /* else there is no qemu-img */
		vdrv_new(&drv, RAM);
		drv.vm->loop_engine = engines[_i];
		snprintf(text, sizeof(text), "qcow2,file.filename=%s,node-name=disk", path);
		add_node(text);
		ck_assert_msg(add_device("", &err) == 0, "%s", err.message);
		ck_assert(vdrv_negotiate(&drv, 0));
		vdrv_queue(&drv, &q, 0, QSIZE);
		vdrv_go(&drv);
		data = vdrv_buf(&drv, 512);
		for (int k = 1; k <= 20; k++) {
			uint64_t last = (4 + k) * 2048 - 1;

			ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, last, data, true),
					 VIRTIO_BLK_S_IOERR);
			ck_assert_msg(block_resize_live(drv.vm, "disk", (4 + k) * MiB, &err) == 0,
				      "%s", err.message);
			memset(mem(data), k, 512);
			ck_assert_int_eq(simple(VIRTIO_BLK_T_OUT, last, data, true),
					 VIRTIO_BLK_S_OK);
			memset(mem(data), 0, 512);
			ck_assert_int_eq(simple(VIRTIO_BLK_T_IN, last, data, false),
					 VIRTIO_BLK_S_OK);
			ck_assert_int_eq(*(uint8_t *)mem(data), k);
		}
		vdrv_close(&drv);
		snprintf(text, sizeof(text), "qemu-img check -q %s", path);
		ck_assert_int_eq(system(text), 0);
	}
	unlink(path);
}
END_TEST

/* No space for a format's clusters, at each of the first writes to its file in turn: what failed is done later, and nothing is lost. */
START_TEST(format_without_space)
{
	char path[] = "/var/tmp/hako-test-XXXXXX", text[1200];
	struct vdrv_buf data;
	struct hako_error err;
	uint8_t *status;
	uint32_t id, len;
	int fd = mkstemp(path), waited = 0, images = 0;

	ck_assert_int_ge(fd, 0);
	close(fd);
	for (int nth = 0; nth < 5; nth++) {
		snprintf(text, sizeof(text), "qemu-img create -q -f qcow2 %s 4M", path);
		if (system(text) != 0)
			break; /* there is no qemu-img */
		vdrv_new(&drv, RAM);
		drv.vm->loop_engine = engines[_i];
		snprintf(text, sizeof(text),
			 "qcow2,node-name=disk,file.driver=blkdebug,file.image.driver=file,"
			 "file.image.filename=%s,file.inject-error.0.event=pwritev,"
			 "file.inject-error.0.state=%d,file.inject-error.0.errno=28,"
			 "file.inject-error.0.once=on",
			 path, nth + 1);
		for (int k = 1; k <= nth; k++)
			snprintf(text + strlen(text), sizeof(text) - strlen(text),
				 ",file.set-state.%d.event=pwritev,file.set-state.%d.state=%d,"
				 "file.set-state.%d.new_state=%d",
				 k - 1, k - 1, k, k - 1, k + 1);
		add_node(text);
		ck_assert_msg(add_device("", &err) == 0, "%s", err.message);
		ck_assert(vdrv_negotiate(&drv, F_FLUSH));
		vdrv_queue(&drv, &q, 0, QSIZE);
		vdrv_go(&drv);
		data = vdrv_buf(&drv, 4096);
		memset(mem(data), 0x66, 4096);
		for (int k = 0; k < 3; k++) {
			status = post(k == 2 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT, k * 512,
				      data);
			for (int w = 0; w < 10000 && *status == 0xee &&
					READ_ONCE(drv.vdev->vq[0].nparked) == 0;
			     w++)
				usleep(1000);
			if (*status == 0xee) {
				waited++;
				virtio_device_pause(drv.obj);
				virtio_device_resume(drv.obj);
			}
			ck_assert(vdrv_wait(&q, &id, &len));
			ck_assert_int_eq(*status, VIRTIO_BLK_S_OK);
		}
		vdrv_close(&drv);
		images++;
		snprintf(
			text, sizeof(text),
			"qemu-img check -q %s && qemu-io -c 'read -P 0x66 0 4k' -c 'read -P 0x66 256k 4k' %s "
			"| grep -c 'read 4096' | grep -q 2",
			path, path);
		ck_assert_msg(system(text) == 0, "write %d", nth);
	}
	ck_assert_int_eq(waited, images);
	unlink(path);
}
END_TEST

/* --- queues and loops -------------------------------------------------------------------------- */

static const char mapping[] =
#ifdef WITH_JSON
	"{\"drive\": \"disk\", \"num-queues\": 4, \"iothread-vq-mapping\": ["
	"{\"iothread\": \"a\", \"vqs\": [0, 3]}, {\"iothread\": \"b\", \"vqs\": [2, 1]}]}";
#else
	"drive=disk,num-queues=4,iothread-vq-mapping.0.iothread=a,"
	"iothread-vq-mapping.0.vqs=0,iothread-vq-mapping.0.vqs=3,"
	"iothread-vq-mapping.1.iothread=b,iothread-vq-mapping.1.vqs=2,"
	"iothread-vq-mapping.1.vqs=1";
#endif

START_TEST(queues_on_several_loops)
{
	struct vdrv_queue qs[4];
	struct vdrv_buf bufs[4][3];
	struct hako_error err;
	struct loop *a, *b;
	uint32_t id, len;

	open_disk(_i, "");
	ck_assert_msg(vdrv_device(&drv, "virtio-blk-device", mapping, &err) == 0, "%s",
		      err.message);
	ck_assert_int_eq(vm_iothread(drv.vm, "a", &a, &err), 0);
	ck_assert_int_eq(vm_iothread(drv.vm, "b", &b, &err), 0);
	ck_assert(drv.vdev->vq[0].loop == a && drv.vdev->vq[1].loop == b &&
		  drv.vdev->vq[2].loop == b && drv.vdev->vq[3].loop == a);
	ck_assert(vdrv_negotiate(&drv, BIT64(VIRTIO_BLK_F_MQ)));
	for (int k = 0; k < 4; k++)
		vdrv_queue(&drv, &qs[k], k, QSIZE);
	vdrv_go(&drv);
	for (int round = 0; round < 100; round++) {
		uint64_t heap = drv.heap;

		for (int k = 0; k < 4; k++) {
			bufs[k][0] = header(VIRTIO_BLK_T_IN, round * 4 + k);
			bufs[k][1] = vdrv_buf(&drv, 512);
			bufs[k][2] = vdrv_buf(&drv, 1);
			vdrv_add(&qs[k], bufs[k], 1, bufs[k] + 1, 2);
			vdrv_kick(&qs[k]);
		}
		for (int k = 0; k < 4; k++) {
			ck_assert(vdrv_wait(&qs[k], &id, &len));
			ck_assert_uint_eq(first_word(mem(bufs[k][1])), round * 4 + k);
		}
		drv.heap = heap;
	}
	stop_disk();
}
END_TEST

START_TEST(mappings)
{
	static const struct {
		const char *options, *text;
	} bad[] = {
		{",iothread-vq-mapping.0.iothread=a,iothread=b", "exclude each other"},
		{",iothread-vq-mapping.0.vqs=0", "iothread=… is missing"},
		{",iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs=2", "queues 0 to 1"},
		{",iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs=0,"
		 "iothread-vq-mapping.0.vqs=0",
		 "mapped already"},
		{",iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs=1",
		 "queue 0 is missing"},
		{",iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.0.vqs=1,"
		 "iothread-vq-mapping.1.iothread=b",
		 "all elements have vqs, or none"},
		{",iothread-vq-mapping=a", "options of its own"},
	};
	struct hako_error err;
	struct loop *a, *b;
	char text[300];

	open_disk(_i, "");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		snprintf(text, sizeof(text), "drive=disk,num-queues=2%s", bad[i].options);
		ck_assert_int_lt(vdrv_device(&drv, "virtio-blk-device", text, &err), 0);
		ck_assert_msg(strstr(err.message, bad[i].text) != NULL, "%s", err.message);
	}
	ck_assert_msg(
		vdrv_device(&drv, "virtio-blk-device",
			    "drive=disk,num-queues=3,"
			    "iothread-vq-mapping.0.iothread=a,iothread-vq-mapping.1.iothread=b",
			    &err) == 0,
		"%s", err.message);
	ck_assert_int_eq(vm_iothread(drv.vm, "a", &a, &err), 0);
	ck_assert_int_eq(vm_iothread(drv.vm, "b", &b, &err), 0);
	ck_assert(drv.vdev->vq[0].loop == a && drv.vdev->vq[1].loop == b &&
		  drv.vdev->vq[2].loop == a);
	stop_disk();
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		reported_or_ignored,	   reported_if_packed,
		stopped_and_tried_again,   reset_or_saved_while_waiting,
		changed_while_waiting,	   resized_while_used,
		format_resized_while_used, format_without_space,
		queues_on_several_loops,   mappings,
	};

	return run_tests("virtio-blk errors", tests, ARRAY_SIZE(tests), NULL);
}
