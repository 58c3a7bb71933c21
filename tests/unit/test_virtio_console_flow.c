/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-serial, much data both ways at once. The driver here does what Linux's does and no more: it rings a doorbell only if the device has asked for one, and
 * sleeps until an edge of the interrupt comes, so that one that gets lost is noticed.
 */
#include <linux/virtio_console.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtq_driver.h"
#include "suite.h"

#define MULTIPORT BIT64(VIRTIO_CONSOLE_F_MULTIPORT)
#define PORT	  1
#define RX	  4 /* of PORT */
#define TX	  5
#define TOTAL	  (24 * MiB) /* each way */
#define PAGE	  4096
#define SLEEP_MS  10000 /* so long nothing happens in no run that goes well */

static struct vdrv drv;
static struct vdrv_queue ctx, rx, tx;
static struct vdrv_buf rx_buf[VDRV_QSIZE], tx_buf[VDRV_QSIZE];
static int peer, edges;
static uint16_t size;

/* Byte @i of what is sent. */
static uint8_t pattern(uint64_t i)
{
	return (i * 0x9e3779b97f4a7c15ull) >> 56;
}

static void check_pattern(const uint8_t *p, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != pattern(at + i))
			ck_abort_msg("byte %llu is wrong", (unsigned long long)(at + i));
}

static void fill_pattern(uint8_t *p, uint64_t at, size_t len)
{
	for (size_t i = 0; i < len; i++)
		p[i] = pattern(at + i);
}

/* --- the host ---------------------------------------------------------------------------------- */

/* What a socket takes at once is of any length; now and then nobody has time for it. */
static size_t piece(unsigned int *seed)
{
	if (rand_r(seed) % 64 == 0)
		usleep(rand_r(seed) % 2000);
	return 1 + rand_r(seed) % 60000;
}

static void *host_writes(void *arg)
{
	unsigned int seed = *(unsigned int *)arg;
	static uint8_t buf[65536];

	for (uint64_t done = 0; done < TOTAL;) {
		size_t max = piece(&seed), len = MIN(max, TOTAL - done);
		ssize_t n;

		fill_pattern(buf, done, len);
		n = send(peer, buf, len, MSG_NOSIGNAL);
		if (n <= 0)
			return NULL; /* the driver has given up */
		done += n;
	}
	return NULL;
}

static void *host_reads(void *arg)
{
	unsigned int seed = *(unsigned int *)arg ^ 0x5555;
	static uint8_t buf[65536];

	for (uint64_t done = 0; done < TOTAL;) {
		ssize_t n = recv(peer, buf, piece(&seed), 0);

		if (n <= 0)
			return NULL;
		check_pattern(buf, done, n);
		done += n;
	}
	return NULL;
}

/* --- the driver -------------------------------------------------------------------------------- */

static void set_pin(void *opaque, uint32_t pin, bool level)
{
	if (level)
		eventfd_write(edges, 1);
}

static const struct irq_chip chip = {.set_pin = set_pin};

/* 2.7.13.4.1 */
static void notify(struct vdrv_queue *q, uint16_t old)
{
	const void *event = &q->used->ring[q->size];

	if (vring_need_event(READ_ONCE(*(const uint16_t *)event), q->avail_idx, old))
		vdrv_kick(q);
}

/* 2.7.14: the event asks for an interrupt for the next one, and is visible before that is looked for. */
static bool take(struct vdrv_queue *q, uint32_t *id, uint32_t *len)
{
	if (!vdrv_take(q, id, len))
		return false;
	WRITE_ONCE(q->avail->ring[q->size], q->last_used);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return true;
}

static void sleep_until_edge(uint64_t in, uint64_t out)
{
	struct pollfd p = {.fd = edges, .events = POLLIN};
	eventfd_t n;
	uint32_t isr;

	if (poll(&p, 1, SLEEP_MS) != 1)
		ck_abort_msg(
			"no interrupt comes: %llu bytes in, %llu out, used %u/%u %u/%u, isr %x",
			(unsigned long long)in, (unsigned long long)out, vdrv_used_idx(&rx),
			rx.last_used, vdrv_used_idx(&tx), tx.last_used,
			vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS));
	eventfd_read(edges, &n);
	isr = vdrv_read(&drv, VIRTIO_MMIO_INTERRUPT_STATUS);
	vdrv_write(&drv, VIRTIO_MMIO_INTERRUPT_ACK, isr);
}

static void begin(void)
{
	struct virtio_console_control ready = {0xffffffff, VIRTIO_CONSOLE_DEVICE_READY, 1},
				      open = {PORT, VIRTIO_CONSOLE_PORT_OPEN, 1};
	struct vdrv_buf b = vdrv_buf(&drv, sizeof(ready));

	ck_assert(vdrv_negotiate(&drv, MULTIPORT | BIT64(VIRTIO_RING_F_EVENT_IDX)));
	vdrv_queue(&drv, &ctx, 3, 16);
	vdrv_queue(&drv, &rx, RX, size);
	vdrv_queue(&drv, &tx, TX, size);
	vdrv_go(&drv);
	for (uint16_t i = 0; i < size; i++) {
		rx_buf[i] = vdrv_buf(&drv, PAGE);
		tx_buf[i] = vdrv_buf(&drv, 8 * PAGE);
		vdrv_add(&rx, NULL, 0, &rx_buf[i], 1);
	}
	notify(&rx, 0);
	memcpy(vdrv_ptr(&drv, b.gpa, b.len), &ready, sizeof(ready));
	vdrv_add(&ctx, &b, 1, NULL, 0);
	vdrv_kick(&ctx);
	ck_assert(vdrv_wait(&ctx, NULL, NULL));
	memcpy(vdrv_ptr(&drv, b.gpa, b.len), &open, sizeof(open));
	vdrv_add(&ctx, &b, 1, NULL, 0);
	vdrv_kick(&ctx);
	ck_assert(vdrv_wait(&ctx, NULL, NULL));
}

/* One buffer of input; false: there is none. */
static bool read_one(uint64_t *in)
{
	uint32_t id, len;
	uint16_t old = rx.avail_idx;

	if (!take(&rx, &id, &len))
		return false;
	check_pattern(vdrv_ptr(&drv, rx.first[id].gpa, PAGE), *in, len);
	*in += len;
	vdrv_add(&rx, NULL, 0, &rx.first[id], 1);
	notify(&rx, old);
	return true;
}

/* One buffer of output; false: the ring is full. */
static bool write_one(uint64_t *out, unsigned int *seed)
{
	uint32_t max = 1 + rand_r(seed) % (8u * PAGE);
	uint16_t old = tx.avail_idx;
	struct vdrv_buf b = tx_buf[old % size];

	while (take(&tx, NULL, NULL))
		;
	if ((uint16_t)(tx.avail_idx - tx.last_used) >= size)
		return false;
	b.len = MIN(max, TOTAL - *out);
	fill_pattern(vdrv_ptr(&drv, b.gpa, b.len), *out, b.len);
	vdrv_add(&tx, &b, 1, NULL, 0);
	notify(&tx, old);
	*out += b.len;
	return true;
}

/* A process that reads and writes whatever can be; it sleeps when there is neither. */
static void carry(unsigned int seed)
{
	uint64_t in = 0, out = 0;

	while (in < TOTAL || out < TOTAL) {
		bool busy = false;

		for (unsigned int n = rand_r(&seed) % 200; n && read_one(&in); n--)
			busy = true;
		for (unsigned int n = rand_r(&seed) % 200;
		     n && out < TOTAL && write_one(&out, &seed); n--)
			busy = true;
		if (busy || read_one(&in) || (out < TOTAL && write_one(&out, &seed)))
			continue;
		if (in < TOTAL || out < TOTAL)
			sleep_until_edge(in, out);
	}
	ck_assert_uint_eq(in, TOTAL);
}

static void run(enum loop_engine engine, uint16_t queue_size, unsigned int seed)
{
	const char *names[] = {"socket", "virtio-serial-device", "virtserialport"};
	pthread_t writer, reader;
	struct hako_error err;
	char options[64];
	int sv[2], small = 8192;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	peer = sv[1];
	setsockopt(sv[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	setsockopt(sv[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	edges = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	size = queue_size;
	vdrv_engine = engine;
	vdrv_new(&drv, 32 * MiB);
	irq_use_chip(drv.vm, &chip, NULL);
	snprintf(options, sizeof(options), "id=c0,fd=%d", sv[0]);
	for (int i = 0; i < 3; i++) {
		const char *text[] = {options, "id=vs,max_ports=4", "chardev=c0,nr=1"};
		struct keyvals kv = {};
		struct object *obj;

		if (i == 1) {
			ck_assert_int_eq(vdrv_device(&drv, names[i], text[i], &err), 0);
			continue;
		}
		ck_assert_int_eq(keyvals_parse(&kv, text[i], NULL, &err), 0);
		ck_assert_msg(object_new(drv.vm,
					 class_find(i ? CLASS_DEVICE : CLASS_CHARDEV, names[i]),
					 &kv, &obj, &err) == 0,
			      "%s", err.message);
		keyvals_free(&kv);
	}
	begin();
	pthread_create(&writer, NULL, host_writes, &seed);
	pthread_create(&reader, NULL, host_reads, &seed);
	carry(seed);
	pthread_join(writer, NULL);
	pthread_join(reader, NULL);
	vdrv_close(&drv);
	close(peer);
	close(edges);
}

START_TEST(both_ways)
{
	/* The queue's largest size, and one with which both sides wait for each other all the time. */
	run(_i & 1 ? LOOP_THREADS : LOOP_IO_URING, _i & 2 ? 2 : 128, 7 + _i);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio-serial, flow");
	TCase *tc = tcase_create("flow");

	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, both_ways, 0, 4);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
