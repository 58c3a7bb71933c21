/* SPDX-License-Identifier: GPL-2.0-only */
/* A virtio-net driver (virtio 1.2, 5.1) and as much of IPv4 as the tests need. Addresses in host order. */
#ifndef NET_H
#define NET_H

#include "virtio.h"

#define NET_F_MAC    (1ull << 5)
#define NET_F_STATUS (1ull << 16)
#define NET_F_MQ     (1ull << 22)

#define NET_FRAME  1514
#define NET_HDR	   12 /* struct virtio_net_hdr */
#define NET_BUF	   2048
#define NET_RX	   128
#define ETH_HDR	   14
#define IP_HDR	   20
#define UDP_HDR	   8
#define PROTO_ICMP 1
#define PROTO_UDP  17

struct net {
	struct virtio_dev dev;
	struct virtq rx, tx;
	u8 mac[6], gw_mac[6];
	u32 ip, gw;
	u8 *rx_mem, *tx_mem;
	u32 tx_next;
	u64 received, sent;
};

bool net_open(struct net *n, u32 nth, bool irq);
/* A frame buffer to fill in; its Ethernet header is made. NULL: all are in flight. */
u8 *net_tx_frame(struct net *n, const u8 *dst, u16 type);
/* Add the frame of `len` bytes to the queue; net_tx_kick() sends it. */
void net_tx_add(struct net *n, u8 *frame, u32 len);
void net_tx_kick(struct net *n);
/* Take back what has been sent. */
void net_tx_clean(struct net *n);
/* The next frame that came within ms, NULL: none; it is the caller's until net_rx_done(). */
u8 *net_rx(struct net *n, u32 *len, u32 ms);
void net_rx_done(struct net *n, u8 *frame);

u16 net_checksum(const u8 *p, u32 len);
/* IPv4 and UDP headers in a frame; returns where the payload goes. */
u8 *net_ip(struct net *n, u8 *frame, u32 dst, u8 proto, u32 len);
u8 *net_udp(struct net *n, u8 *frame, u32 dst, u16 sport, u16 dport, u32 len);
bool net_arp(struct net *n);
bool net_dhcp(struct net *n);

static inline void put16(u8 *p, u16 v)
{
	p[0] = v >> 8;
	p[1] = v;
}
static inline void put32(u8 *p, u32 v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}
static inline u16 get16(const u8 *p)
{
	return p[0] << 8 | p[1];
}
static inline u32 get32(const u8 *p)
{
	return (u32)get16(p) << 16 | get16(p + 2);
}

#endif
