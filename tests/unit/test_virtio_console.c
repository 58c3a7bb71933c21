/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-serial and its ports by virtio 1.2, section 5.3: a driver of the test's own on one side, sockets and files on the other. */
#include <fcntl.h>
#include <linux/virtio_console.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtq_driver.h"

#define MULTIPORT BIT64(1)
#define CRX	  2
#define CTX	  3

static struct vdrv drv;
static struct vdrv_queue rx, tx, crx, ctx;
static struct vdrv_buf crx_buf[16];
static uint32_t crx_head[16];
static int peer[3]; /* our ends of the chardevs c0 to c2 */
static struct hako_error err;

static int make(enum class_kind kind, const char *class, const char *options, struct object **obj)
{
	const struct class *cls = class_find(kind, class);
	struct keyvals kv = {};
	int ret;

	ck_assert_ptr_nonnull(cls);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ret = object_new(drv.vm, cls, &kv, obj, &err);
	keyvals_free(&kv);
	return ret;
}

static struct object *must(const char *class, const char *options)
{
	struct object *obj;

	ck_assert_msg(make(CLASS_DEVICE, class, options, &obj) == 0, "%s", err.message);
	return obj;
}

static void setup(void)
{
	vdrv_new(&drv, 16 * MiB);
	for (int i = 0; i < 3; i++) {
		char options[64];
		int sv[2];

		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
		peer[i] = sv[1];
		snprintf(options, sizeof(options), "id=c%d,fd=%d", i, sv[0]);
		ck_assert_msg(make(CLASS_CHARDEV, "socket", options, NULL) == 0, "%s", err.message);
	}
	ck_assert_msg(vdrv_device(&drv, "virtio-serial-device", "id=vs,max_ports=4", &err) == 0,
		      "%s", err.message);
}

static void teardown(void)
{
	vdrv_close(&drv);
	for (int i = 0; i < 3; i++)
		close(peer[i]);
}

static void expect(int fd, const char *text, size_t len)
{
	char buf[4096];
	size_t n = 0;

	while (n < len) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t r;

		ck_assert_int_eq(poll(&p, 1, 5000), 1);
		r = read(fd, buf + n, MIN(sizeof(buf) - n, len - n));
		ck_assert_int_gt(r, 0);
		n += r;
	}
	ck_assert_mem_eq(buf, text, len);
}

static void expect_silence(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	vdrv_settle(&drv);
	ck_assert_int_eq(poll(&p, 1, 20), 0);
}

static void put(int fd, const char *text)
{
	ck_assert_int_eq(write(fd, text, strlen(text)), strlen(text));
}

/* One buffer of text to the host. */
static void send_buf(struct vdrv_queue *q, const void *data, uint32_t len)
{
	struct vdrv_buf b = vdrv_buf(&drv, len);

	memcpy(vdrv_ptr(&drv, b.gpa, len), data, len);
	vdrv_add(q, &b, 1, NULL, 0);
	vdrv_kick(q);
}

static void send_and_wait(struct vdrv_queue *q, const void *data, uint32_t len)
{
	uint32_t used;

	send_buf(q, data, len);
	ck_assert(vdrv_wait(q, NULL, &used));
	ck_assert_uint_eq(used, 0);
}

static struct vdrv_buf offer(struct vdrv_queue *q, uint32_t len)
{
	struct vdrv_buf b = vdrv_buf(&drv, len);

	vdrv_add(q, NULL, 0, &b, 1);
	vdrv_kick(q);
	return b;
}

static void expect_in(struct vdrv_queue *q, struct vdrv_buf b, const char *text)
{
	uint32_t len;

	ck_assert(vdrv_wait(q, NULL, &len));
	ck_assert_uint_eq(len, strlen(text));
	ck_assert_mem_eq(vdrv_ptr(&drv, b.gpa, b.len), text, len);
}

/* --- control queue ----------------------------------------------------------------------------- */

static void control(uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control msg = {id, event, value};

	send_and_wait(&ctx, &msg, sizeof(msg));
}

static void offer_control(unsigned int i)
{
	crx_head[i] = vdrv_add(&crx, NULL, 0, &crx_buf[i], 1);
	vdrv_kick(&crx);
}

/* The next message; what is behind its 8 bytes in @text. */
static struct virtio_console_control next_control(char *text)
{
	struct virtio_console_control msg;
	uint32_t id, len, i;

	ck_assert(vdrv_wait(&crx, &id, &len));
	for (i = 0; i < 16 && crx_head[i] != id; i++)
		;
	ck_assert_uint_lt(i, 16);
	ck_assert_uint_ge(len, sizeof(msg));
	ck_assert_uint_le(len, crx_buf[i].len);
	memcpy(&msg, vdrv_ptr(&drv, crx_buf[i].gpa, len), sizeof(msg));
	if (text) {
		memcpy(text, (char *)vdrv_ptr(&drv, crx_buf[i].gpa, len) + sizeof(msg),
		       len - sizeof(msg));
		text[len - sizeof(msg)] = '\0';
	}
	offer_control(i);
	return msg;
}

static void expect_control(uint32_t id, uint16_t event, uint16_t value)
{
	struct virtio_console_control msg = next_control(NULL);

	ck_assert_uint_eq(msg.id, id);
	ck_assert_uint_eq(msg.event, event);
	ck_assert_uint_eq(msg.value, value);
}

static void expect_no_control(void)
{
	vdrv_settle(&drv);
	usleep(10000);
	ck_assert_uint_eq(vdrv_used_idx(&crx), crx.last_used);
}

static void begin_simple(void)
{
	ck_assert(vdrv_negotiate(&drv, 0));
	vdrv_queue(&drv, &rx, 0, 16);
	vdrv_queue(&drv, &tx, 1, 16);
	vdrv_go(&drv);
}

static void begin_multiport(uint64_t features)
{
	ck_assert(vdrv_negotiate(&drv, MULTIPORT | features));
	vdrv_queue(&drv, &rx, 0, 16);
	vdrv_queue(&drv, &tx, 1, 16);
	vdrv_queue(&drv, &crx, CRX, 16);
	vdrv_queue(&drv, &ctx, CTX, 16);
}

static void fill_control(void)
{
	for (unsigned int i = 0; i < 16; i++) {
		crx_buf[i] = vdrv_buf(&drv, 64);
		offer_control(i);
	}
}

/* --- tests ------------------------------------------------------------------------------------- */

START_TEST(identity)
{
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_DEVICE_ID), 3);
	ck_assert(vdrv_features(&drv) & MULTIPORT);
	ck_assert_uint_eq(vdrv_config(&drv, 4, 4), 4); /* max_nr_ports */
	/* Two queues for each port and two for control. */
	for (int i = 0; i < 12; i++) {
		vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, i);
		ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_QUEUE_NUM_MAX) != 0, i < 10);
	}
}
END_TEST

/* A driver that knows of one port only. */
START_TEST(without_multiport)
{
	struct vdrv_buf a, b;

	must("virtconsole", "chardev=c0");
	put(peer[0], "early");
	begin_simple();
	send_and_wait(&tx, "hello", 5);
	expect(peer[0], "hello", 5);
	/* Input waits for buffers, and fills as many as it needs. */
	a = offer(&rx, 3);
	expect_in(&rx, a, "ear");
	a = offer(&rx, 100);
	expect_in(&rx, a, "ly");
	a = offer(&rx, 4);
	b = offer(&rx, 4);
	put(peer[0], "sixsix");
	expect_in(&rx, a, "sixs");
	expect_in(&rx, b, "ix");
	ck_assert(!vdrv_needs_reset(&drv));
}
END_TEST

START_TEST(scattered_buffers)
{
	struct vdrv_buf out[3], in[3];
	uint32_t len;

	must("virtconsole", "chardev=c0");
	begin_simple();
	for (int i = 0; i < 3; i++) {
		out[i] = vdrv_buf(&drv, 1 + i);
		memcpy(vdrv_ptr(&drv, out[i].gpa, 1 + i), "abc", 1 + i);
		in[i] = vdrv_buf(&drv, 2);
	}
	vdrv_add(&tx, out, 3, NULL, 0);
	vdrv_kick(&tx);
	expect(peer[0], "aababc", 6);
	vdrv_add(&rx, NULL, 0, in, 3);
	vdrv_kick(&rx);
	put(peer[0], "12345");
	ck_assert(vdrv_wait(&rx, NULL, &len));
	ck_assert_uint_eq(len, 5);
	ck_assert_mem_eq(vdrv_ptr(&drv, in[0].gpa, 2), "12", 2);
	ck_assert_mem_eq(vdrv_ptr(&drv, in[1].gpa, 2), "34", 2);
	ck_assert_mem_eq(vdrv_ptr(&drv, in[2].gpa, 1), "5", 1);
}
END_TEST

/* As Linux's driver does it: ready, ports, names, consoles, open. */
START_TEST(handshake)
{
	char name[64];
	struct virtio_console_control msg;

	must("virtconsole", "chardev=c0");
	must("virtserialport", "chardev=c1,name=org.qemu.guest_agent.0");
	must("virtserialport", "nr=3");
	begin_multiport(0);
	vdrv_go(&drv);
	/* The message comes before there is a buffer for the answer. */
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	fill_control();
	expect_control(0, VIRTIO_CONSOLE_PORT_ADD, 1);
	expect_control(1, VIRTIO_CONSOLE_PORT_ADD, 1);
	expect_control(3, VIRTIO_CONSOLE_PORT_ADD, 1);
	control(0, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(0, VIRTIO_CONSOLE_CONSOLE_PORT, 1);
	expect_control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	control(1, VIRTIO_CONSOLE_PORT_READY, 1);
	msg = next_control(name);
	ck_assert_uint_eq(msg.id, 1);
	ck_assert_uint_eq(msg.event, VIRTIO_CONSOLE_PORT_NAME);
	ck_assert_str_eq(name, "org.qemu.guest_agent.0");
	expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* Nobody is at the other end of port 3, and it has no name. */
	control(3, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_no_control();
	/* Input comes once the guest has opened its side. */
	put(peer[0], "typed");
	struct vdrv_buf b = offer(&rx, 16);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&rx), 0);
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_in(&rx, b, "typed");
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 0);
	put(peer[0], "later");
	b = offer(&rx, 16);
	expect_no_control();
	ck_assert_uint_eq(vdrv_used_idx(&rx), 1);
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_in(&rx, b, "later");
}
END_TEST

/* Port 1 has queues 4 and 5. */
START_TEST(second_port)
{
	struct vdrv_queue rx1, tx1;
	struct vdrv_buf b;

	must("virtconsole", "chardev=c0");
	must("virtserialport", "chardev=c1");
	begin_multiport(0);
	vdrv_queue(&drv, &rx1, 4, 16);
	vdrv_queue(&drv, &tx1, 5, 16);
	vdrv_go(&drv);
	fill_control();
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	send_and_wait(&tx1, "one", 3);
	send_and_wait(&tx, "zero", 4);
	expect(peer[1], "one", 3);
	expect(peer[0], "zero", 4);
	b = offer(&rx1, 16);
	put(peer[1], "to one");
	expect_in(&rx1, b, "to one");
	expect_silence(peer[0]);
}
END_TEST

/* The other end goes: the guest is told. */
START_TEST(host_closes)
{
	must("virtserialport", "chardev=c0");
	begin_multiport(0);
	vdrv_go(&drv);
	fill_control();
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	expect_control(1, VIRTIO_CONSOLE_PORT_ADD, 1);
	control(1, VIRTIO_CONSOLE_PORT_READY, 1);
	expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	/* The end of input is noticed when the guest reads. */
	control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
	struct vdrv_queue rx1;
	vdrv_queue(&drv, &rx1, 4, 16);
	offer(&rx1, 16);
	shutdown(peer[0], SHUT_RDWR);
	expect_control(1, VIRTIO_CONSOLE_PORT_OPEN, 0);
}
END_TEST

START_TEST(ports_come_and_go)
{
	struct object *port;

	begin_multiport(0);
	vdrv_go(&drv);
	fill_control();
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	expect_no_control();
	port = must("virtserialport", "chardev=c0,nr=2");
	expect_control(2, VIRTIO_CONSOLE_PORT_ADD, 1);
	object_destroy(port);
	expect_control(2, VIRTIO_CONSOLE_PORT_REMOVE, 1);
	must("virtserialport", "chardev=c0,nr=2"); /* the backend is free again */
	expect_control(2, VIRTIO_CONSOLE_PORT_ADD, 1);
	/* What is sent to a port that is not there is taken and lost. */
	send_and_wait(&tx, "x", 1);
}
END_TEST

/* A backend that takes nothing: the chain stays in the ring, and is finished when it can be. */
START_TEST(backpressure)
{
	uint32_t size = 2 * MiB, got = 0, used;
	struct vdrv_buf big = vdrv_buf(&drv, size), last = vdrv_buf(&drv, 4);
	uint32_t *words = vdrv_ptr(&drv, big.gpa, size);

	must("virtconsole", "chardev=c0");
	begin_simple();
	for (uint32_t i = 0; i < size / 4; i++)
		words[i] = i;
	memcpy(vdrv_ptr(&drv, last.gpa, 4), "end!", 4);
	vdrv_add(&tx, &big, 1, NULL, 0);
	vdrv_add(&tx, &last, 1, NULL, 0);
	vdrv_kick(&tx);
	vdrv_settle(&drv);
	usleep(50000);
	ck_assert(!vdrv_take(&tx, NULL, NULL));
	while (got < size) {
		struct pollfd p = {.fd = peer[0], .events = POLLIN};
		uint8_t buf[65536];
		ssize_t n;

		ck_assert_int_eq(poll(&p, 1, 5000), 1);
		n = read(peer[0], buf, MIN(sizeof(buf), size - got));
		ck_assert_int_gt(n, 0);
		ck_assert_mem_eq(buf, (uint8_t *)words + got, n);
		got += n;
	}
	expect(peer[0], "end!", 4);
	ck_assert(vdrv_wait(&tx, NULL, &used));
	ck_assert(vdrv_wait(&tx, NULL, &used));
}
END_TEST

/* Reset in the middle of a chain, the queue alone: what comes then is sent from its first byte on. */
START_TEST(queue_reset)
{
	struct vdrv_buf big = vdrv_buf(&drv, 2 * MiB);
	char buf[65536];

	must("virtconsole", "chardev=c0");
	ck_assert(vdrv_negotiate(&drv, BIT64(VIRTIO_F_RING_RESET)));
	vdrv_queue(&drv, &rx, 0, 16);
	vdrv_queue(&drv, &tx, 1, 16);
	vdrv_go(&drv);
	vdrv_add(&tx, &big, 1, NULL, 0);
	vdrv_kick(&tx);
	usleep(50000);
	vdrv_settle(&drv);
	vdrv_write(&drv, VIRTIO_MMIO_QUEUE_SEL, 1);
	vdrv_write(&drv, 0xc0, 1);
	while (recv(peer[0], buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	vdrv_queue(&drv, &tx, 1, 8);
	send_and_wait(&tx, "from here", 9);
	expect(peer[0], "from here", 9);
}
END_TEST

/* Saved in the middle of a chain, and loaded: every byte goes out once. */
START_TEST(state)
{
	uint32_t size = 1 * MiB, got = 0, id;
	struct vdrv_buf big = vdrv_buf(&drv, size);
	uint32_t *words = vdrv_ptr(&drv, big.gpa, size);
	const struct state_table *table = drv.obj->class->state;
	struct state_buf saved = {}, load;

	must("virtconsole", "chardev=c0");
	begin_multiport(0);
	vdrv_go(&drv);
	fill_control();
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	expect_control(0, VIRTIO_CONSOLE_PORT_ADD, 1);
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	for (uint32_t i = 0; i < size / 4; i++)
		words[i] = i * 3;
	vdrv_add(&tx, &big, 1, NULL, 0);
	vdrv_kick(&tx);
	vdrv_settle(&drv);
	drv.obj->class->pause(drv.obj);
	ck_assert_int_eq(state_save(&saved, table, drv.obj, &err), 0);
	put(peer[0], "input");
	drv.obj->class->reset(drv.obj);
	load = (struct state_buf){.data = saved.data, .len = saved.len};
	ck_assert_msg(state_load(&load, table, drv.obj, &err) == 0, "%s", err.message);
	state_buf_free(&saved);
	drv.obj->class->resume(drv.obj);
	while (got < size) {
		uint8_t buf[65536];
		ssize_t n = read(peer[0], buf, sizeof(buf));

		ck_assert_int_gt(n, 0);
		ck_assert_mem_eq(buf, (uint8_t *)words + got, n);
		got += n;
	}
	ck_assert(vdrv_wait(&tx, &id, NULL));
	expect_silence(peer[0]);
	/* The guest is told anew who is there. It had the port open, and has. */
	expect_control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_in(&rx, offer(&rx, 16), "input");
}
END_TEST

START_TEST(reset_forgets)
{
	struct vdrv_buf b;

	must("virtconsole", "chardev=c0");
	begin_multiport(0);
	vdrv_go(&drv);
	fill_control();
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	drv.obj->class->reset(drv.obj);
	begin_multiport(0);
	vdrv_go(&drv);
	b = offer(&rx, 16);
	put(peer[0], "x");
	vdrv_settle(&drv);
	usleep(10000);
	ck_assert_uint_eq(vdrv_used_idx(&rx), 0);
	control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
	expect_in(&rx, b, "x");
}
END_TEST

START_TEST(option_errors)
{
	static const struct {
		const char *class, *options;
		int code;
	} bad[] = {
		{"virtserialport", "nr=0", -EINVAL},	   {"virtserialport", "nr=4", -EINVAL},
		{"virtconsole", "nr=4294967294", -EINVAL}, {"virtconsole", "chardev=nope", -ENODEV},
		{"virtconsole", "chardev=c0", -EBUSY},	   {"virtconsole", "nr=0", -EBUSY},
		{"virtconsole", "bus=other.0", -ENODEV},   {"virtconsole", "bus=vs.1", -ENODEV},
	};

	must("virtconsole", "chardev=c0,bus=vs.0");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(make(CLASS_DEVICE, bad[i].class, bad[i].options, NULL),
				 bad[i].code);
	/* A failure leaves the backend free. */
	ck_assert_int_lt(make(CLASS_DEVICE, "virtserialport", "chardev=c1,nr=9", NULL), 0);
	must("virtserialport", "chardev=c1,bus=vs");
	must("virtserialport", "");
	must("virtserialport", "");
	ck_assert_int_eq(make(CLASS_DEVICE, "virtserialport", "", NULL), -ENOSPC);
	ck_assert_int_lt(vdrv_device(&drv, "virtio-serial-device", "max_ports=32", &err), 0);
	ck_assert_int_lt(vdrv_device(&drv, "virtio-serial-device", "max_ports=0", &err), 0);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-serial-device", "", &err), 0);
	ck_assert_uint_eq(vdrv_config(&drv, 4, 4), 31);
}
END_TEST

START_TEST(no_device)
{
	object_destroy(drv.obj);
	ck_assert_int_eq(make(CLASS_DEVICE, "virtconsole", "chardev=c0", NULL), -ENODEV);
}
END_TEST

/* A driver that sends nonsense: short and long messages, ports and events that there are not, chains of the wrong kind. */
START_TEST(nonsense)
{
	unsigned int seed = 53;
	struct vdrv_buf b = vdrv_buf(&drv, 64);

	must("virtconsole", "chardev=c0");
	must("virtserialport", "chardev=c1,name=n");
	begin_multiport(0);
	vdrv_go(&drv);
	for (int i = 0; i < 16; i++) {
		crx_buf[i] = vdrv_buf(&drv, 1 + rand_r(&seed) % 12);
		offer_control(i);
	}
	for (int i = 0; i < 3000; i++) {
		struct virtio_console_control msg = {rand_r(&seed) % 3 ? rand_r(&seed) % 5
								       : rand_r(&seed),
						     rand_r(&seed) % 10, rand_r(&seed) % 2};
		uint32_t id;

		b.len = rand_r(&seed) % 4 ? sizeof(msg) : 1 + rand_r(&seed) % 60;
		memcpy(vdrv_ptr(&drv, b.gpa, 64), &msg, sizeof(msg));
		if (rand_r(&seed) % 8)
			vdrv_add(&ctx, &b, 1, NULL, 0);
		else
			vdrv_add(&ctx, NULL, 0, &b, 1);
		vdrv_kick(&ctx);
		ck_assert(vdrv_wait(&ctx, NULL, NULL));
		while (vdrv_take(&crx, &id, NULL))
			for (int k = 0; k < 16; k++)
				if (crx_head[k] == id) {
					offer_control(k);
					break;
				}
		if (i % 10 == 0) {
			/* Writable buffers where readable ones belong, and the other way round. */
			b.len = 5;
			vdrv_add(&tx, NULL, 0, &b, 1);
			if ((uint16_t)(rx.avail_idx - rx.last_used) < 8)
				vdrv_add(&rx, &b, 1, NULL, 0);
			vdrv_kick(&tx);
			vdrv_kick(&rx);
			ck_assert(vdrv_wait(&tx, NULL, NULL));
			if (i % 100 == 0)
				put(peer[0], "input");
			while (vdrv_take(&rx, NULL, NULL))
				;
		}
	}
	ck_assert(!vdrv_needs_reset(&drv));
	send_and_wait(&tx, "alive", 5);
	expect(peer[0], "alive", 5);
}
END_TEST

/* Loading a state with any byte changed fails or works, and the device lives. */
START_TEST(bad_states)
{
	const struct state_table *table = drv.obj->class->state;
	struct state_buf saved = {};
	unsigned int seed = 9;

	must("virtconsole", "chardev=c0");
	begin_multiport(0);
	vdrv_go(&drv);
	control(~0u, VIRTIO_CONSOLE_DEVICE_READY, 1);
	drv.obj->class->pause(drv.obj);
	ck_assert_int_eq(state_save(&saved, table, drv.obj, &err), 0);
	for (int i = 0; i < 1500; i++) {
		uint8_t *copy = malloc(saved.len);
		struct state_buf load = {.data = copy, .len = saved.len};

		memcpy(copy, saved.data, saved.len);
		copy[rand_r(&seed) % saved.len] = rand_r(&seed);
		if (state_load(&load, table, drv.obj, &err) < 0)
			drv.obj->class->reset(drv.obj);
		drv.obj->class->resume(drv.obj);
		vdrv_settle(&drv);
		drv.obj->class->pause(drv.obj);
		drv.obj->class->reset(drv.obj);
		free(copy);
	}
	state_buf_free(&saved);
	drv.obj->class->resume(drv.obj);
	begin_simple();
	send_and_wait(&tx, "alive", 5);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, identity);
	tcase_add_test(tc, without_multiport);
	tcase_add_test(tc, scattered_buffers);
	tcase_add_test(tc, handshake);
	tcase_add_test(tc, second_port);
	tcase_add_test(tc, host_closes);
	tcase_add_test(tc, ports_come_and_go);
	tcase_add_test(tc, backpressure);
	tcase_add_test(tc, queue_reset);
	tcase_add_test(tc, state);
	tcase_add_test(tc, reset_forgets);
	tcase_add_test(tc, option_errors);
	tcase_add_test(tc, no_device);
	tcase_add_test(tc, nonsense);
	tcase_add_test(tc, bad_states);
}

int main(void)
{
	Suite *s = suite_create("virtio-console");
	SRunner *sr = srunner_create(s);
	int failed;

	vdrv_cases(s, add_tests, setup, teardown);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
