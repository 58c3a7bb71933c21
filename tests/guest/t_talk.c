/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * test=talk: does what it is told by lines on the serial port, one answer each, then "> ". For programs that hold a VM (tests/unit,
 * docs/examples). Numbers are hexadecimal; "help" says what there is.
 */
#include "blk.h"
#include "net.h"
#include "tests.h"

#define COM1   0x3f8
#define LSR    5
#define SECTOR 512

static struct blk blk;
static struct net net;
static bool have_blk, have_net;
static u8 *sector;

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	flush();
}

static void hear(char *line, u32 size)
{
	u32 n = 0;

	for (;;) {
		u8 c;

		while (!(inb(COM1 + LSR) & 1))
			pause();
		c = inb(COM1);
		if (c == '\n')
			break;
		if (n + 1 < size && c != '\r')
			line[n++] = c;
	}
	line[n] = 0;
}

/* The next number of a line, 0 if there is none; *@p moves behind it. */
static u64 number(const char **p)
{
	u64 v = 0;

	while (**p == ' ')
		(*p)++;
	for (; **p && **p != ' '; (*p)++) {
		u32 d = **p >= '0' && **p <= '9' ? **p - '0' : (**p | 32) - 'a' + 10;

		if (d >= 16)
			break;
		v = v << 4 | d;
	}
	return v;
}

/* --- commands: what follows the name is at p ----------------------------------------------------- */

static void do_echo(const char *p)
{
	say("%s\r\n", p);
}

static void do_in(const char *p)
{
	u16 port = number(&p);
	u64 size = number(&p);

	say("%x\r\n", size == 4 ? inl(port) : size == 2 ? inw(port) : inb(port));
}

static void do_out(const char *p)
{
	u16 port = number(&p);
	u32 value = number(&p);
	u64 size = number(&p);

	if (size == 4)
		outl(port, value);
	else if (size == 2)
		outw(port, value);
	else
		outb(port, value);
	say("done\r\n");
}

static void do_read(const char *p)
{
	say("%x\r\n", mmio_r32(number(&p)));
}

static void do_write(const char *p)
{
	u64 a = number(&p);

	mmio_w32(a, number(&p));
	say("done\r\n");
}

/* Says which message it waits for. */
static void do_msi(const char *p)
{
	u32 vector = vector_alloc(), seen = irqs(vector);

	say("address %x data %x\r\n", 0xfee00000 | lapic_id() << 12, vector);
	say(irq_wait_ms(vector, seen, 10000) ? "interrupt\r\n" : "nothing\r\n");
}

static bool disk_ready(void)
{
	if (!have_blk && (have_blk = blk_open(&blk, 0, 1, 16, false)))
		sector = alloc(SECTOR, SECTOR);
	if (!have_blk)
		say("no disk\r\n");
	return have_blk;
}

static void disk(u32 type, u64 at)
{
	int status = blk_rw(&blk, 0, type, at, sector, type == BLK_T_FLUSH ? 0 : SECTOR, 1);

	if (status)
		say("error %d\r\n", status);
	else if (type == BLK_T_IN)
		say("%08x\r\n", *(u32 *)sector);
	else
		say("done\r\n");
}

static void do_disk_read(const char *p)
{
	if (disk_ready())
		disk(BLK_T_IN, number(&p));
}

static void do_disk_write(const char *p)
{
	u64 at = number(&p);

	if (!disk_ready())
		return;
	for (u32 i = 0, v = number(&p); i < SECTOR; i += 4)
		*(u32 *)(sector + i) = v;
	disk(BLK_T_OUT, at);
}

static void do_disk_flush(const char *p)
{
	if (disk_ready())
		disk(BLK_T_FLUSH, 0);
}

/* What the device says now, in sectors. */
static void do_disk_size(const char *p)
{
	if (disk_ready())
		say("%lu\r\n", virtio_cfg64(&blk.dev, 0));
}

static bool net_ready(void)
{
	if (!have_net)
		have_net = net_open(&net, 0, false);
	if (!have_net)
		say("no network\r\n");
	return have_net;
}

/* So many frames of 100 bytes, of type 88b5 (for experiments), numbered. */
static void do_net_send(const char *p)
{
	static const u8 all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	u32 count = number(&p);

	if (!net_ready())
		return;
	for (u32 i = 0; i < count; i++) {
		u8 *f;

		while (!(f = net_tx_frame(&net, all, 0x88b5)))
			net_tx_clean(&net);
		put32(f + ETH_HDR, i);
		net_tx_add(&net, f, 100);
		net_tx_kick(&net);
	}
	say("done\r\n");
}

/* Sends back so many frames. */
static void do_net_echo(const char *p)
{
	u32 count = number(&p), len;

	if (!net_ready())
		return;
	say("ready\r\n");
	for (u32 i = 0; i < count; i++) {
		u8 *in = net_rx(&net, &len, 10000), *f;

		if (!in) {
			say("only %u\r\n", i);
			return;
		}
		while (!(f = net_tx_frame(&net, in + 6, get16(in + 12))))
			net_tx_clean(&net);
		memcpy(f + ETH_HDR, in + ETH_HDR, len - ETH_HDR);
		net_tx_add(&net, f, len);
		net_tx_kick(&net);
		net_rx_done(&net, in);
	}
	say("done\r\n");
}

/* A driver that breaks the rules: DRIVER_OK without FEATURES_OK (virtio 1.2, 3.1.1). */
static void do_break(const char *p)
{
	struct virtio_dev d;

	if (!virtio_find(&d, VIRTIO_RNG, 0)) {
		say("no rng\r\n");
		return;
	}
	virtio_reset(&d);
	virtio_set_status(&d, 7);
	say("status %x\r\n", virtio_status(&d));
}

/* What KVM tells by MSR_KVM_SYSTEM_TIME_NEW (Documentation/virt/kvm/x86/msr.rst). */
struct pvclock {
	u32 version, pad0;
	u64 tsc, system_time;
	u32 mul;
	signed char shift;
	u8 flags, pad[2];
} __attribute__((packed));

#define MSR_KVM_SYSTEM_TIME_NEW 0x4b564d01

/* kvmclock's milliseconds, and its flags, of which 2 (the guest was stopped) is taken back. */
static void do_kvmclock(const char *p)
{
	static volatile struct pvclock *page;
	u64 ticks, ns;
	u32 version, r[4];
	u8 flags;

	cpuid(0x40000001, 0, r);
	if (!(r[0] & 8)) {
		say("none\r\n");
		return;
	}
	if (!page) {
		page = alloc(4096, 4096);
		wrmsr(MSR_KVM_SYSTEM_TIME_NEW, (u64)page | 1);
	}
	do {
		version = page->version;
		barrier();
		ticks = rdtsc() - page->tsc;
		ticks = page->shift < 0 ? ticks >> -page->shift : ticks << page->shift;
		ns = page->system_time + (u64)((unsigned __int128)ticks * page->mul >> 32);
		flags = page->flags;
		barrier();
	} while ((version & 1) || version != page->version);
	page->flags = flags & ~2;
	say("%lu ms, flags %x\r\n", ns / 1000000, flags);
}

static void do_panic(const char *p)
{
	outb(0x505, 1);
	say("done\r\n");
}

static void do_reset(const char *p)
{
	at_cpl0(k_lidt0, 0, 0);
}

static void do_poweroff(const char *p)
{
	test_poweroff();
}

static void do_exit(const char *p)
{
	leave(number(&p));
}

static void do_help(const char *p);

static const struct {
	const char *name, *arguments;
	void (*run)(const char *p);
} commands[] = {
	{"help", "", do_help},
	{"echo", " TEXT", do_echo},
	{"in", " PORT SIZE", do_in},
	{"out", " PORT VALUE SIZE", do_out},
	{"read", " ADDRESS", do_read},
	{"write", " ADDRESS VALUE", do_write},
	{"msi", "", do_msi},
	{"disk-read", " SECTOR", do_disk_read},
	{"disk-write", " SECTOR VALUE", do_disk_write},
	{"disk-flush", "", do_disk_flush},
	{"disk-size", "", do_disk_size},
	{"net-send", " COUNT", do_net_send},
	{"net-echo", " COUNT", do_net_echo},
	{"break", "", do_break},
	{"kvmclock", "", do_kvmclock},
	{"panic", "", do_panic},
	{"reset", "", do_reset},
	{"poweroff", "", do_poweroff},
	{"exit", " CODE", do_exit},
};

static void do_help(const char *p)
{
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++)
		say("%s%s\r\n", commands[i].name, commands[i].arguments);
}

static void obey(const char *line)
{
	for (u32 i = 0; i < ARRAY_SIZE(commands); i++) {
		u32 n = strlen(commands[i].name);

		if (strncmp(line, commands[i].name, n) || (line[n] && line[n] != ' '))
			continue;
		commands[i].run(line + n + (line[n] == ' '));
		return;
	}
	say("what?\r\n");
}

void test_talk(void)
{
	char line[256];

	tsc_calibrate();
	say("ready\r\n");
	for (;;) {
		say("> ");
		hear(line, sizeof(line));
		obey(line);
	}
}
