/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-rng and virtio-console. */
#include "virtio.h"
#include "tests.h"

void test_rng(void)
{
	struct virtio_dev d;
	struct virtq q;
	u8 *mem = alloc(4096, 4096);
	bool irq = param_u64("irq", 0);
	u32 bits = 0, got = 0, len;

	tsc_calibrate();
	if (!virtio_need(&d, VIRTIO_RNG, 0) ||
	    !virtio_begin(&d, VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX) ||
	    !virtq_init(&q, &d, 0, 8, irq))
		return;
	virtio_driver_ok(&d);
	while (got < 2048) {
		struct virtio_buf b[2] = {{mem + got, 100}, {mem + got + 100, 100}};

		virtq_add(&q, b, 0, 2, mem);
		virtq_kick(&q);
		if (!check(virtq_wait(&q, 5000), "no entropy after %u bytes", got))
			return;
		virtq_get(&q, &len);
		if (!check(len && len <= 200, "%u bytes of 200", len))
			return;
		got += len;
	}
	for (u32 i = 0; i < 2048; i++)
		for (u32 j = 0; j < 8; j++)
			bits += mem[i] >> j & 1;
	/* 16384 fair coins: 8192 expected, standard deviation 64. */
	check(bits > 8192 - 640 && bits < 8192 + 640, "%u of 16384 bits are set", bits);
	for (u32 i = 0; i < 2048 - 16; i += 16)
		check(memcmp(mem + i, mem + i + 16, 16), "bytes at %u repeat", i);
	check(!irq || irqs(q.vector), "no interrupt was taken");
	virtio_reset(&d);
}

#define CONSOLE_F_MULTIPORT (1ull << 1)
#define CONSOLE_RX	    16

/* struct virtio_console_control (5.3.6.2) */
struct control {
	u32 id;
	u16 event, value;
};
enum {
	DEVICE_READY,
	PORT_ADD,
	PORT_REMOVE,
	PORT_READY,
	CONSOLE_PORT,
	RESIZE,
	PORT_OPEN
};

static struct {
	struct virtio_dev dev;
	struct virtq rx, tx, crx, ctx;
	u8 *mem, *cmem;
} con;

static void console_send(struct virtq *q, const void *p, u32 len)
{
	struct virtio_buf b = {p, len};

	virtq_add(q, &b, 1, 0, (void *)p);
	virtq_kick(q);
	check(virtq_wait(q, 5000), "%u bytes are not taken", len);
	virtq_get(q, NULL);
}

static void console_control(u32 id, u16 event, u16 value)
{
	struct control c = {id, event, value};

	console_send(&con.ctx, &c, sizeof(c));
}

static void rx_fill(struct virtq *q, u8 *mem, u32 size)
{
	for (u32 i = 0; i < MIN(q->size, CONSOLE_RX); i++) {
		struct virtio_buf b = {mem + i * size, size};

		virtq_add(q, &b, 0, 1, mem + i * size);
	}
	virtq_kick(q);
}

/* Ports are announced, and a console is told to be one; port 0 is opened. */
static bool console_multiport(void)
{
	bool added = false, console = false;
	u64 t = rdtsc();

	console_control(0xffffffff, DEVICE_READY, 1);
	while (!(added && console) && us_since(t) < 5000000) {
		struct control *c;
		struct virtio_buf b;

		if (!virtq_wait(&con.crx, 1000))
			break;
		c = virtq_get(&con.crx, NULL);
		print("console: port %u event %u value %u\n", c->id, c->event, c->value);
		if (c->event == PORT_ADD) {
			added |= c->id == 0;
			console_control(c->id, PORT_READY, 1);
		}
		if (c->event == CONSOLE_PORT) {
			console = true;
			console_control(c->id, PORT_OPEN, 1);
		}
		b = (struct virtio_buf){c, 64};
		virtq_add(&con.crx, &b, 0, 1, c);
		virtq_kick(&con.crx);
	}
	return check(added && console, "port 0 %s", added ? "is no console" : "is not there");
}

static bool console_open(bool irq)
{
	if (!virtio_need(&con.dev, VIRTIO_CONSOLE, 0) ||
	    !virtio_begin(&con.dev,
			  VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX |
				  (param_u64("multiport", 0) ? CONSOLE_F_MULTIPORT : 0)) ||
	    !virtq_init(&con.rx, &con.dev, 0, 64, irq) ||
	    !virtq_init(&con.tx, &con.dev, 1, 64, false))
		return false;
	con.mem = alloc(CONSOLE_RX * 128, 64);
	con.cmem = alloc(CONSOLE_RX * 64, 64);
	if (con.dev.features & CONSOLE_F_MULTIPORT) {
		if (!virtq_init(&con.crx, &con.dev, 2, 64, false) ||
		    !virtq_init(&con.ctx, &con.dev, 3, 64, false))
			return false;
		virtio_driver_ok(&con.dev);
		rx_fill(&con.crx, con.cmem, 64);
		rx_fill(&con.rx, con.mem, 128);
		return console_multiport();
	}
	virtio_driver_ok(&con.dev);
	rx_fill(&con.rx, con.mem, 128);
	return true;
}

/* Says hello and sends back what it gets, in upper case, until an empty line. */
void test_console(void)
{
	static char line[128];
	u32 n = 0, total = 0, len;

	tsc_calibrate();
	if (!console_open(param_u64("irq", 0)))
		return;
	console_send(&con.tx, "virtio-console: type\n", 21);
	while (param_u64("input", 0)) {
		struct virtio_buf b;
		u8 *p;

		/* Who comes later than this has not seen it. */
		for (u32 i = 0; !total && i < 50 && !virtq_wait(&con.rx, 200); i++)
			console_send(&con.tx, "virtio-console: type\n", 21);
		if (!check(virtq_wait(&con.rx, 10000), "no input after %u bytes", total))
			break;
		p = virtq_get(&con.rx, &len);
		total += len;
		for (u32 i = 0; i < len && n < sizeof(line); i++)
			line[n++] = p[i] >= 'a' && p[i] <= 'z' ? p[i] - 32 : p[i];
		b = (struct virtio_buf){p, 128};
		virtq_add(&con.rx, &b, 0, 1, p);
		virtq_kick(&con.rx);
		if (!n || (line[n - 1] != '\n' && n < sizeof(line)))
			continue;
		console_send(&con.tx, line, n);
		if (n == 1)
			break;
		n = 0;
	}
	print("console: %u bytes in\n", total);
	check(!param_u64("irq", 0) || !total || irqs(con.rx.vector), "no interrupt was taken");
	virtio_reset(&con.dev);
}
