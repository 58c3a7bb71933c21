/* SPDX-License-Identifier: GPL-2.0-only */
#include "net.h"

static const u8 broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static void rx_add(struct net *n, u8 *buf)
{
	struct virtio_buf b = {buf, NET_BUF};

	virtq_add(&n->rx, &b, 0, 1, buf);
}

bool net_open(struct net *n, u32 nth, bool irq)
{
	memset(n, 0, sizeof(*n));
	if (!virtio_need(&n->dev, VIRTIO_NET, nth) ||
	    !virtio_begin(&n->dev,
			  NET_F_MAC | NET_F_STATUS | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX) ||
	    !virtq_init(&n->rx, &n->dev, 0, NET_RX, irq) ||
	    !virtq_init(&n->tx, &n->dev, 1, NET_RX, false))
		return false;
	virtio_driver_ok(&n->dev);
	for (u32 i = 0; i < 6; i++)
		n->mac[i] = n->dev.features & NET_F_MAC ? virtio_cfg8(&n->dev, i) : i * 2 + 2;
	n->rx_mem = alloc(n->rx.size * NET_BUF, 4096);
	n->tx_mem = alloc(n->tx.size * NET_BUF, 4096);
	for (u32 i = 0; i < n->rx.size; i++)
		rx_add(n, n->rx_mem + i * NET_BUF);
	virtq_kick(&n->rx);
	return true;
}

void net_tx_clean(struct net *n)
{
	while (virtq_get(&n->tx, NULL))
		n->sent++;
}

/* Buffers go round; as completions of one queue of net come in order, the next is the oldest. */
u8 *net_tx_frame(struct net *n, const u8 *dst, u16 type)
{
	u8 *f = n->tx_mem + n->tx_next * NET_BUF + NET_HDR;

	if (!n->tx.num_free)
		return NULL;
	n->tx_next = (n->tx_next + 1) % n->tx.size;
	memset(f - NET_HDR, 0, NET_HDR + 64);
	memcpy(f, dst, 6);
	memcpy(f + 6, n->mac, 6);
	put16(f + 12, type);
	return f;
}

void net_tx_add(struct net *n, u8 *frame, u32 len)
{
	struct virtio_buf b = {frame - NET_HDR, NET_HDR + MIN(len, NET_FRAME)};

	if (len < 60)
		b.len = NET_HDR + 60;
	virtq_add(&n->tx, &b, 1, 0, frame);
}

void net_tx_kick(struct net *n)
{
	virtq_kick(&n->tx);
}

u8 *net_rx(struct net *n, u32 *len, u32 ms)
{
	u32 used = 0;
	u8 *b;

	if (!virtq_wait(&n->rx, ms))
		return NULL;
	b = virtq_get(&n->rx, &used);
	n->received++;
	if (!check(used >= NET_HDR + ETH_HDR && used <= NET_BUF, "received %u bytes", used)) {
		net_rx_done(n, b + NET_HDR);
		return NULL;
	}
	*len = used - NET_HDR;
	return b + NET_HDR;
}

void net_rx_done(struct net *n, u8 *frame)
{
	rx_add(n, frame - NET_HDR);
	/* Not one by one: a device that runs dry asks for it. */
	if ((u16)(n->rx.avail_idx - n->rx.kicked_idx) >= 16 || !virtq_more(&n->rx))
		virtq_kick(&n->rx);
}

static u32 sum16(const u8 *p, u32 len, u32 sum)
{
	for (; len > 1; len -= 2, p += 2)
		sum += get16(p);
	if (len)
		sum += *p << 8;
	return sum;
}

u16 net_checksum(const u8 *p, u32 len)
{
	u32 sum = sum16(p, len, 0);

	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

u8 *net_ip(struct net *n, u8 *frame, u32 dst, u8 proto, u32 len)
{
	static u16 id;
	u8 *ip = frame + ETH_HDR;

	memset(ip, 0, IP_HDR);
	ip[0] = 0x45;
	put16(ip + 2, IP_HDR + len);
	put16(ip + 4, ++id);
	ip[8] = 64;
	ip[9] = proto;
	put32(ip + 12, n->ip);
	put32(ip + 16, dst);
	put16(ip + 10, net_checksum(ip, IP_HDR));
	return ip + IP_HDR;
}

/* Without a checksum, which UDP over IPv4 allows. */
u8 *net_udp(struct net *n, u8 *frame, u32 dst, u16 sport, u16 dport, u32 len)
{
	u8 *u = net_ip(n, frame, dst, PROTO_UDP, UDP_HDR + len);

	put16(u, sport);
	put16(u + 2, dport);
	put16(u + 4, UDP_HDR + len);
	put16(u + 6, 0);
	return u + UDP_HDR;
}

/* RFC 826 */
bool net_arp(struct net *n)
{
	for (u32 try = 0; try < 5; try++) {
		u8 *f = net_tx_frame(n, broadcast, 0x0806), *a = f + ETH_HDR;
		u32 len;

		put16(a, 1);
		put16(a + 2, 0x0800);
		a[4] = 6;
		a[5] = 4;
		put16(a + 6, 1);
		memcpy(a + 8, n->mac, 6);
		put32(a + 14, n->ip);
		put32(a + 24, n->gw);
		net_tx_add(n, f, ETH_HDR + 28);
		net_tx_kick(n);
		while ((f = net_rx(n, &len, 500))) {
			a = f + ETH_HDR;
			if (get16(f + 12) == 0x0806 && get16(a + 6) == 2 &&
			    get32(a + 14) == n->gw) {
				memcpy(n->gw_mac, a + 8, 6);
				net_rx_done(n, f);
				net_tx_clean(n);
				return true;
			}
			net_rx_done(n, f);
		}
	}
	return check(false, "no answer to ARP");
}

/* RFC 2131: DHCPDISCOVER, and what is offered. */
static void dhcp_discover(struct net *n, u32 xid)
{
	u8 *f = net_tx_frame(n, broadcast, 0x0800), *d;

	n->ip = 0;
	d = net_udp(n, f, 0xffffffff, 68, 67, 300);
	memset(d, 0, 300);
	d[0] = d[1] = 1;
	d[2] = 6;
	put32(d + 4, xid);
	put16(d + 10, 0x8000);
	memcpy(d + 28, n->mac, 6);
	put32(d + 236, 0x63825363);
	d[240] = 53;
	d[241] = 1;
	d[242] = 1;
	d[243] = 255;
	net_tx_add(n, f, ETH_HDR + IP_HDR + UDP_HDR + 300);
	net_tx_kick(n);
}

bool net_dhcp(struct net *n)
{
	u32 xid = rdtsc(), len;
	u8 *f;

	for (u32 try = 0; try < 5; try++) {
		dhcp_discover(n, ++xid);
		while ((f = net_rx(n, &len, 1000))) {
			u8 *d = f + ETH_HDR + IP_HDR + UDP_HDR, *o = d + 240;
			bool offer = len > ETH_HDR + IP_HDR + UDP_HDR + 240 && f[23] == PROTO_UDP &&
				     get16(f + 36) == 68 && d[0] == 2 && get32(d + 4) == xid;

			for (; offer && o + 6 <= f + len && *o != 255; o += *o ? 2 + o[1] : 1)
				if (*o == 3)
					n->gw = get32(o + 2);
			if (offer)
				n->ip = get32(d + 16);
			net_rx_done(n, f);
			net_tx_clean(n);
			if (offer)
				return true;
		}
	}
	return check(false, "no answer to DHCP");
}
