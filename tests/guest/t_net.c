/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-net: DHCP (or `ip=A.B.C.D gw=A.B.C.D`), ARP, ICMP echo of the gateway, and UDP echo at port
 * `udp=N` of the gateway, if the runner has a server there.
 */
#include "net.h"
#include "tests.h"

static struct net net;

static u32 param_ip(const char *name)
{
	const char *p = param(name);
	u32 ip = 0, byte = 0;

	for (; p && *p && *p != ' '; p++) {
		if (*p == '.') {
			ip = ip << 8 | byte;
			byte = 0;
		} else {
			byte = byte * 10 + *p - '0';
		}
	}
	return ip << 8 | byte;
}

static void ping_send(u32 seq, u32 len)
{
	u8 *f = net_tx_frame(&net, net.gw_mac, 0x0800), *p;

	if (!check(f, "no room to send"))
		return;
	p = net_ip(&net, f, net.gw, PROTO_ICMP, 8 + len);
	memset(p, 0, 8);
	p[0] = 8;
	put16(p + 4, 0x6861);
	put16(p + 6, seq);
	for (u32 i = 0; i < len; i++)
		p[8 + i] = i * 7 + seq;
	put16(p + 2, net_checksum(p, 8 + len));
	net_tx_add(&net, f, ETH_HDR + IP_HDR + 8 + len);
}

/* An echo reply: checksum and contents right? Returns its sequence number, -1 if it is something else. */
static int ping_reply(const u8 *f, u32 len)
{
	const u8 *p = f + ETH_HDR + IP_HDR;
	u32 n, seq;

	if (len < ETH_HDR + IP_HDR + 8 || get16(f + 12) != 0x0800 || f[23] != PROTO_ICMP || p[0] ||
	    get16(p + 4) != 0x6861)
		return -1;
	n = get16(f + ETH_HDR + 2) - IP_HDR;
	if (!check(ETH_HDR + IP_HDR + n <= len, "an IP packet longer than its frame"))
		return -1;
	check_eq(net_checksum(p, n), 0);
	seq = get16(p + 6);
	for (u32 i = 8; i < n; i++)
		if (!check(p[i] == (u8)((i - 8) * 7 + seq), "echo %u differs at %u", seq, i))
			break;
	return seq;
}

static void test_ping(u32 total, u32 window, u32 len)
{
	u32 sent = 0, got = 0, n;
	u64 t = rdtsc();
	u8 *f;

	while (got < total && us_since(t) < 20000000) {
		for (; sent < total && sent - got < window; sent++)
			ping_send(sent, len);
		net_tx_kick(&net);
		f = net_rx(&net, &n, 2000);
		if (!f)
			break;
		got += ping_reply(f, n) >= 0;
		net_rx_done(&net, f);
		net_tx_clean(&net);
	}
	check(got == total, "%u of %u echos of %u bytes came back", got, total, len);
	print("net: %u pings of %u bytes in %lu us\n", total, len, us_since(t));
}

static void test_udp(u16 port, u32 total, u32 len)
{
	u32 got = 0, n;

	for (u32 seq = 0; seq < total; seq++) {
		u8 *f = net_tx_frame(&net, net.gw_mac, 0x0800);
		u8 *p = net_udp(&net, f, net.gw, 4000 + seq % 3, port, len);

		for (u32 i = 0; i < len; i++)
			p[i] = i * 3 + seq;
		net_tx_add(&net, f, ETH_HDR + IP_HDR + UDP_HDR + len);
		net_tx_kick(&net);
		while ((f = net_rx(&net, &n, 2000))) {
			bool mine = get16(f + 12) == 0x0800 && f[23] == PROTO_UDP &&
				    get16(f + 34) == port && n >= ETH_HDR + IP_HDR + UDP_HDR + len;

			p = f + ETH_HDR + IP_HDR + UDP_HDR;
			for (u32 i = 0; mine && i < len; i++)
				mine = check(p[i] == (u8)(i * 3 + seq), "datagram %u differs", seq);
			net_rx_done(&net, f);
			got += mine;
			if (mine)
				break;
		}
		net_tx_clean(&net);
	}
	check(got == total, "%u of %u datagrams of %u bytes came back", got, total, len);
}

static bool net_up(bool irq)
{
	if (!net_open(&net, param_u64("nic", 0), irq))
		return false;
	if (param("ip")) {
		net.ip = param_ip("ip");
		net.gw = param_ip("gw");
	} else if (!net_dhcp(&net)) {
		return false;
	}
	return net_arp(&net);
}

void test_net(void)
{
	bool irq = param_u64("irq", 0), ping = param_u64("ping", 1);
	u8 *m = net.mac, *g = net.gw_mac;

	tsc_calibrate();
	if (!net_up(irq))
		return;
	print("net: %s, %02x:%02x:%02x:%02x:%02x:%02x %08x, gateway %02x:%02x:%02x:%02x:%02x:%02x %08x\n",
	      net.dev.mmio ? "mmio" : "pci", m[0], m[1], m[2], m[3], m[4], m[5], net.ip, g[0], g[1],
	      g[2], g[3], g[4], g[5], net.gw);
	if (net.dev.features & NET_F_STATUS)
		check(virtio_cfg16(&net.dev, 6) & 1, "link is down");
	if (ping) {
		test_ping(16, 1, 56);
		test_ping(300, 16, 1000);
		test_ping(100, 8, 1472);
	}
	if (param("udp"))
		test_udp(param_u64("udp", 0), 50, 700);
	check(!irq || irqs(net.rx.vector), "no interrupt was taken");
	/* Reset with buffers in the device's hands, and again. */
	virtio_reset(&net.dev);
	if (net_up(irq) && ping)
		test_ping(16, 4, 200);
	virtio_reset(&net.dev);
}

/* The answer to a frame for us, in a frame of its own: its length, 0 if there is none. */
static u32 peer_answer(const u8 *f, u32 len, u8 *r)
{
	u8 *a = r + ETH_HDR;

	memcpy(a, f + ETH_HDR, len - ETH_HDR);
	if (get16(f + 12) == 0x0806 && get16(a + 6) == 1 && get32(a + 24) == net.ip) {
		put16(a + 6, 2);
		memcpy(a + 18, f + ETH_HDR + 8, 10);
		memcpy(a + 8, net.mac, 6);
		put32(a + 14, net.ip);
		return len;
	}
	if (get16(f + 12) != 0x0800 || get32(a + 16) != net.ip)
		return 0;
	/* Checksums stay what they are when things change places. */
	memcpy(a + 12, f + ETH_HDR + 16, 4);
	memcpy(a + 16, f + ETH_HDR + 12, 4);
	if (a[9] == PROTO_UDP) {
		memcpy(a + IP_HDR, f + ETH_HDR + IP_HDR + 2, 2);
		memcpy(a + IP_HDR + 2, f + ETH_HDR + IP_HDR, 2);
		return len;
	}
	if (a[9] != PROTO_ICMP || a[IP_HDR] != 8)
		return 0;
	a[IP_HDR] = 0;
	put16(a + IP_HDR + 2, 0);
	put16(a + IP_HDR + 2, net_checksum(a + IP_HDR, get16(a + 2) - IP_HDR));
	return len;
}

/* Whom another guest talks to: answers ARP, ICMP and UDP echo at `ip=A.B.C.D` until nobody has said anything for a minute. */
void test_net_peer(void)
{
	u32 n;
	u8 *f;

	tsc_calibrate();
	if (!net_open(&net, param_u64("nic", 0), param_u64("irq", 0)))
		return;
	net.ip = param_ip("ip");
	while ((f = net_rx(&net, &n, 60000))) {
		u8 *r = n >= 60 && n <= NET_FRAME ? net_tx_frame(&net, f + 6, get16(f + 12)) : NULL;

		n = r ? peer_answer(f, n, r) : 0;
		net_rx_done(&net, f);
		if (n) {
			net_tx_add(&net, r, n);
			net_tx_kick(&net);
		}
		net_tx_clean(&net);
	}
}

/* Frames a second: `dir=tx` to the gateway, `dir=rx` what comes, for `secs`, of `bs` bytes. */
void test_netbench(void)
{
	u64 secs = param_u64("secs", 2), t, end, frames, bytes = 0;
	u32 len = param_u64("bs", 60), n;
	bool rx = param_is("dir", "rx");

	tsc_calibrate();
	if (!net_up(false))
		return;
	len = MIN(len < 60 ? 60 : len, NET_FRAME);
	net.sent = net.received = 0;
	net.tx.kicks = net.rx.kicks = 0;
	t = rdtsc();
	end = t + secs * tsc_hz;
	while (rdtsc() < end) {
		u8 *f;

		while ((f = net_rx(&net, &n, 0))) {
			bytes += rx ? n : 0;
			net_rx_done(&net, f);
		}
		if (rx)
			continue;
		net_tx_clean(&net);
		while ((f = net_tx_frame(&net, net.gw_mac, 0x0800))) {
			net_udp(&net, f, net.gw, 4000, 9, len - ETH_HDR - IP_HDR - UDP_HDR);
			net_tx_add(&net, f, len);
			bytes += len;
		}
		net_tx_kick(&net);
	}
	t = rdtsc() - t;
	frames = rx ? net.received : net.sent;
	check(frames, "nothing was moved");
	print("RESULT netbench transport=%s dir=%s bs=%u frames=%lu bytes=%lu cycles=%lu tsc_khz=%lu "
	      "kicks=%lu pps=%lu\n",
	      net.dev.mmio ? "mmio" : "pci", rx ? "rx" : "tx", len, frames, bytes, t, tsc_hz / 1000,
	      rx ? net.rx.kicks : net.tx.kicks, frames * 1000 / (t / (tsc_hz / 1000)));
	virtio_reset(&net.dev);
}
