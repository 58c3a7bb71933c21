/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The virtio network card's hash of received packets (virtio 1.2, section 5.1.6.4.3): Toeplitz over addresses and ports. It chooses
 * the receive queue (RSS) and is told to the driver (hash report).
 */
#include <linux/virtio_net.h>

#include "virtio/net.h"

#define ETH_IPV4 0x0800
#define ETH_VLAN 0x8100
#define ETH_IPV6 0x86dd
#define IP_TCP	 6
#define IP_UDP	 17

/* As much of a packet as is looked at, and what has been found. */
struct parse {
	const uint8_t *p;
	size_t len, at;
	uint8_t input[36]; /* of the hash */
	size_t addresses;  /* bytes of them; the ports follow */
	uint8_t protocol;
	bool ports;
};

static uint16_t be16_at(const struct parse *s, size_t at)
{
	return at + 2 <= s->len ? s->p[at] << 8 | s->p[at + 1] : 0;
}

static bool take_addresses(struct parse *s, size_t at, size_t n)
{
	if (at + n > s->len)
		return false;
	memcpy(s->input, s->p + at, n);
	s->addresses = n;
	return true;
}

static bool parse_ipv4(struct parse *s)
{
	size_t ihl;

	if (s->at + 20 > s->len || s->p[s->at] >> 4 != 4)
		return false;
	ihl = (s->p[s->at] & 15) * 4;
	s->protocol = s->p[s->at + 9];
	/* A fragment has no ports, even if it is the first: all of them go one way. */
	s->ports = !(be16_at(s, s->at + 6) & 0x3fff);
	if (ihl < 20 || !take_addresses(s, s->at + 12, 8))
		return false;
	s->at += ihl;
	return true;
}

static bool is_extension(uint8_t protocol)
{
	return protocol == 0 || protocol == 43 ||
	       protocol == 60; /* hop by hop, routing, destination */
}

static bool parse_ipv6(struct parse *s)
{
	if (s->at + 40 > s->len || s->p[s->at] >> 4 != 6 || !take_addresses(s, s->at + 8, 32))
		return false;
	s->protocol = s->p[s->at + 6];
	s->at += 40;
	s->ports = true;
	while (is_extension(s->protocol) && s->at + 8 <= s->len) {
		s->protocol = s->p[s->at];
		s->at += 8 + s->p[s->at + 1] * 8;
	}
	return true;
}

/* Microsoft's hash: for each bit of the input that is set, the 32 bits of the key that begin there. */
static uint32_t toeplitz(const uint8_t *key, const uint8_t *input, size_t n)
{
	uint32_t hash = 0, window = (uint32_t)key[0] << 24 | key[1] << 16 | key[2] << 8 | key[3];

	for (size_t i = 0; i < n; i++) {
		for (int bit = 7; bit >= 0; bit--) {
			if (input[i] & BIT(bit))
				hash ^= window;
			window = window << 1 | (key[i + 4] >> bit & 1);
		}
	}
	return hash;
}

/* Types in force, and what they are reported as. Ports before addresses. */
static const struct {
	uint8_t addresses, protocol, report; /* protocol 0: any, and no ports */
	uint32_t type;
} kinds[] = {
	{8, IP_TCP, VIRTIO_NET_HASH_REPORT_TCPv4, VIRTIO_NET_RSS_HASH_TYPE_TCPv4},
	{8, IP_UDP, VIRTIO_NET_HASH_REPORT_UDPv4, VIRTIO_NET_RSS_HASH_TYPE_UDPv4},
	{8, 0, VIRTIO_NET_HASH_REPORT_IPv4, VIRTIO_NET_RSS_HASH_TYPE_IPv4},
	{32, IP_TCP, VIRTIO_NET_HASH_REPORT_TCPv6, VIRTIO_NET_RSS_HASH_TYPE_TCPv6},
	{32, IP_UDP, VIRTIO_NET_HASH_REPORT_UDPv6, VIRTIO_NET_RSS_HASH_TYPE_UDPv6},
	{32, 0, VIRTIO_NET_HASH_REPORT_IPv6, VIRTIO_NET_RSS_HASH_TYPE_IPv6},
};

uint16_t net_rss_hash(const struct net_rss *rss, const uint8_t *frame, size_t len, uint32_t *hash)
{
	struct parse s = {.p = frame, .len = len, .at = 14};
	uint16_t type = be16_at(&s, 12);

	*hash = 0;
	if (type == ETH_VLAN) {
		type = be16_at(&s, 16);
		s.at = 18;
	}
	if (!(type == ETH_IPV4 && parse_ipv4(&s)) && !(type == ETH_IPV6 && parse_ipv6(&s)))
		return VIRTIO_NET_HASH_REPORT_NONE;
	s.ports &= s.at + 4 <= s.len;
	if (s.ports)
		memcpy(s.input + s.addresses, s.p + s.at, 4);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		bool ports = kinds[i].protocol;

		if (kinds[i].addresses != s.addresses || !(rss->types & kinds[i].type) ||
		    (ports && (!s.ports || kinds[i].protocol != s.protocol)))
			continue;
		*hash = toeplitz(rss->key, s.input, s.addresses + (ports ? 4 : 0));
		return kinds[i].report;
	}
	return VIRTIO_NET_HASH_REPORT_NONE;
}

uint16_t net_rss_queue(const struct net_rss *rss, uint16_t report, uint32_t hash)
{
	return report ? rss->table[hash & rss->mask] : rss->unclassified;
}

/* --- state ------------------------------------------------------------------------------------- */

bool net_rss_valid(const struct net_rss *rss, uint16_t pairs)
{
	if (rss->types & ~NET_RSS_TYPES || rss->mask >= NET_RSS_TABLE ||
	    (rss->mask & (rss->mask + 1)) || rss->unclassified >= pairs)
		return false;
	for (uint32_t i = 0; i <= rss->mask; i++)
		if (rss->table[i] >= pairs)
			return false;
	return true;
}

static const struct state_field rss_fields[] = {
	STATE_FIELD_UINT(struct net_rss, on),
	STATE_FIELD_UINT(struct net_rss, types),
	STATE_FIELD_UINT(struct net_rss, mask),
	STATE_FIELD_UINT(struct net_rss, unclassified),
	STATE_FIELD_ARRAY(struct net_rss, table),
	STATE_FIELD_BYTES(struct net_rss, key),
	STATE_END,
};

const struct state_table net_rss_state = {
	.name = "virtio-net-rss",
	.version = 1,
	.min_version = 1,
	.fields = rss_fields,
};
