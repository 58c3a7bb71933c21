/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card: hashes of received packets, as Microsoft's published examples have them, in the header and as the choice of a queue. */
#include <arpa/inet.h>

#include "virtio/net.h"
#include "virtio_net_rig.h"

#define RSS_FEATURES (F(CTRL_VQ) | F(RSS) | F(MQ) | F(MRG_RXBUF))
#define RSS_CTRL     8

static const uint8_t key[NET_RSS_KEY] = {
	0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
	0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
	0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
};

/* "Verifying the RSS hash calculation" */
static const struct {
	const char *src, *dst;
	uint16_t sport, dport;
	uint32_t plain, ports;
} examples[] = {
	{"66.9.149.187", "161.142.100.80", 2794, 1766, 0x323e8fc2, 0x51ccc178},
	{"199.92.111.2", "65.69.140.83", 14230, 4739, 0xd718262a, 0xc626b0ea},
	{"24.19.198.95", "12.22.207.184", 12898, 38024, 0xd2d0a5de, 0x5c2b394a},
	{"38.27.205.30", "209.142.163.6", 48228, 2217, 0x82989176, 0xafc7327f},
	{"153.39.163.191", "202.188.127.2", 44251, 1303, 0x5d1809c5, 0x10e828a2},
	{"3ffe:2501:200:1fff::7", "3ffe:2501:200:3::1", 2794, 1766, 0x2cc18cd5, 0x40207d3d},
	{"3ffe:501:8::260:97ff:fe40:efab", "ff02::1", 14230, 4739, 0x0f0c461c, 0xdde51bbf},
	{"3ffe:1900:4545:3:200:f8ff:fe21:67cf", "fe80::200:f8ff:fe21:67cf", 44251, 38024,
	 0x4b61e985, 0x02d1feef},
};

enum {
	VLAN = 1,
	UDP = 2,
	FRAGMENT = 4,
	OPTIONS = 8, /* of IPv4; or an extension header of IPv6 */
};

static void be16(uint8_t *p, uint16_t v)
{
	p[0] = v >> 8;
	p[1] = v;
}

/* An example as a frame of 128 bytes; where its ports are. */
static size_t make(uint8_t *f, unsigned int i, unsigned int how)
{
	bool v6 = strchr(examples[i].src, ':');
	uint8_t protocol = how & UDP ? 17 : 6;
	size_t at = 12;

	memset(f, 0, 128);
	memset(f, 0xff, 6);
	if (how & VLAN) {
		be16(f + at, 0x8100);
		be16(f + at + 2, 7);
		at += 4;
	}
	be16(f + at, v6 ? 0x86dd : 0x0800);
	at += 2;
	if (v6) {
		f[at] = 0x60;
		f[at + 6] = how & OPTIONS ? 60 : how & FRAGMENT ? 44 : protocol;
		ck_assert_int_eq(inet_pton(AF_INET6, examples[i].src, f + at + 8), 1);
		ck_assert_int_eq(inet_pton(AF_INET6, examples[i].dst, f + at + 24), 1);
		at += 40;
		if (how & OPTIONS) {
			f[at] = protocol;
			f[at + 1] = 1;
			at += 16;
		}
	} else {
		f[at] = 0x40 | (how & OPTIONS ? 7 : 5);
		f[at + 6] = how & FRAGMENT ? 0x20 : 0x40;
		f[at + 9] = protocol;
		ck_assert_int_eq(inet_pton(AF_INET, examples[i].src, f + at + 12), 1);
		ck_assert_int_eq(inet_pton(AF_INET, examples[i].dst, f + at + 16), 1);
		at += how & OPTIONS ? 28 : 20;
	}
	be16(f + at, examples[i].sport);
	be16(f + at + 2, examples[i].dport);
	return at;
}

START_TEST(hashes)
{
	struct net_rss rss = {.types = NET_RSS_TYPES};
	bool v6 = strchr(examples[_i].src, ':');
	uint8_t f[128];
	uint32_t hash;
	size_t at;

	memcpy(rss.key, key, sizeof(key));
	for (unsigned int how = 0; how < 16; how++) {
		unsigned int report;

		at = make(f, _i, how);
		/* A fragment header behind others is not looked for. */
		if (v6 && (how & (FRAGMENT | OPTIONS)) == (FRAGMENT | OPTIONS))
			continue;
		rss.types = NET_RSS_TYPES;
		report = net_rss_hash(&rss, f, sizeof(f), &hash);
		if (how & FRAGMENT) {
			ck_assert_uint_eq(report, v6 ? 4 : 1);
			ck_assert_uint_eq(hash, examples[_i].plain);
			continue;
		}
		ck_assert_uint_eq(report, (v6 ? 5 : 2) + (how & UDP ? 1 : 0));
		ck_assert_uint_eq(hash, examples[_i].ports);
		/* what is not wanted is not hashed, and what is cut off not with its ports */
		ck_assert_uint_eq(net_rss_hash(&rss, f, at + 3, &hash), v6 ? 4 : 1);
		ck_assert_uint_eq(hash, examples[_i].plain);
		rss.types = v6 ? 8 : 1;
		ck_assert_uint_eq(net_rss_hash(&rss, f, sizeof(f), &hash), v6 ? 4 : 1);
		ck_assert_uint_eq(hash, examples[_i].plain);
		rss.types = v6 ? 7 : 0x38;
		ck_assert_uint_eq(net_rss_hash(&rss, f, sizeof(f), &hash), 0);
		for (size_t n = 0; n < at; n++)
			net_rss_hash(&rss, f, n, &hash); /* the sanitizers watch */
	}
}
END_TEST

/* Every byte of a header in all its values: nothing is read that is not there. */
START_TEST(hostile_frames)
{
	struct net_rss rss = {.types = NET_RSS_TYPES};
	uint32_t hash;

	for (unsigned int i = 0; i < ARRAY_SIZE(examples); i += 5) {
		for (size_t at = 12; at < 80; at++) {
			for (unsigned int v = 0; v < 256; v++) {
				size_t len = 60 + v % 40;
				uint8_t *f = malloc(len), all[128];

				make(all, i, v & (VLAN | OPTIONS));
				all[at] = v;
				memcpy(f, all, len);
				net_rss_hash(&rss, f, len, &hash);
				free(f);
			}
		}
	}
}
END_TEST

/* struct virtio_net_rss_config with a table of 8 for @queues. Its length. */
static size_t config(uint8_t *p, const uint16_t table[8], uint16_t unclassified, uint16_t max_tx)
{
	put_le32(p, NET_RSS_TYPES);
	put_le16(p + 4, 7);
	put_le16(p + 6, unclassified);
	for (int i = 0; i < 8; i++)
		put_le16(p + 8 + 2 * i, table[i]);
	put_le16(p + 24, max_tx);
	p[26] = sizeof(key);
	memcpy(p + 27, key, sizeof(key));
	return 27 + sizeof(key);
}

static int set_rss(struct rig *r, const uint8_t *p, size_t len)
{
	return command_on(r, RSS_CTRL, 4, 1, p, len);
}

static void inject_frame(struct rig *r, const uint8_t *f, size_t len)
{
	struct call c = {r, malloc(sizeof(struct packet) + HDR + len), 0};

	c.p->len = HDR + len;
	memset(c.p->data, 0, HDR);
	memcpy(c.p->data + HDR, f, len);
	loop_call(r->net->loop[0], inject_in_loop, &c);
}

/* Through the card, all of whose packets come in by the first queue. */
START_TEST(chooses_queue)
{
	static const uint16_t table[8] = {0, 1, 2, 3, 3, 2, 1, 0};
	uint64_t f = RSS_FEATURES | (_i & 1 ? F(HASH_REPORT) : 0);
	uint32_t head, len, hdr = _i & 1 ? 20 : 12;
	uint8_t p[100], frame[128];
	struct rig r;

	if (_i & 2)
		f &= ~F(MRG_RXBUF);
	rig_open(&r, "id=n,queues=4", "netdev=n,rss=on,hash=on");
	ck_assert_uint_eq(vdrv_features(&r.drv) & (F(RSS) | F(HASH_REPORT)),
			  F(RSS) | F(HASH_REPORT));
	ck_assert_uint_eq(config8(&r, 17), 40);
	ck_assert_uint_eq(config8(&r, 18), 128);
	ck_assert_uint_eq(config8(&r, 20), 0x3f);
	bring_up_queues(&r, f, 64, MAX_QUEUES);
	for (unsigned int q = 0; q < 4; q++)
		add_rx_to(&r, q, 40, 400);
	ck_assert_int_eq(set_rss(&r, p, config(p, table, 2, 4)), VIRTIO_NET_OK);
	for (unsigned int i = 0; i < ARRAY_SIZE(examples); i++) {
		unsigned int q = table[examples[i].ports & 7];
		const uint8_t *got;

		make(frame, i, 0);
		inject_frame(&r, frame, sizeof(frame));
		ck_assert(used(&r, 2 * q, &head, &len, 5000));
		ck_assert_uint_eq(len, hdr + sizeof(frame));
		got = ram(&r, r.q[2 * q].desc[head].addr);
		ck_assert_uint_eq(get_le16(got + 10), 1);
		if (hdr == 20) {
			ck_assert_uint_eq(get_le32(got + 12), examples[i].ports);
			ck_assert_uint_eq(get_le16(got + 16), i < 5 ? 2 : 5);
		}
		ck_assert_mem_eq(got + hdr, frame, sizeof(frame));
		add_rx_to(&r, q, 1, 400);
	}
	/* no IP at all */
	memset(frame, 0x11, sizeof(frame));
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(used(&r, 4, &head, &len, 5000));
	/* VQ_PAIRS_SET ends it */
	ck_assert_int_eq(command_on(&r, RSS_CTRL, 4, 0, (uint8_t[]){4, 0}, 2), VIRTIO_NET_OK);
	make(frame, 0, 0);
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(used(&r, 0, &head, &len, 5000));
	rig_close(&r);
}
END_TEST

/* A queue that has no buffers, or is not used: the packet is lost, the others go on. */
START_TEST(no_room)
{
	static const uint16_t to_third[8] = {2, 2, 2, 2, 2, 2, 2, 2};
	uint8_t p[100], frame[128];
	uint32_t head, len;
	struct rig r;

	rig_open(&r, "id=n,queues=4", "netdev=n,rss=on");
	bring_up_queues(&r, RSS_FEATURES, 64, MAX_QUEUES);
	add_rx_to(&r, 0, 10, 400);
	ck_assert_int_eq(set_rss(&r, p, config(p, to_third, 0, 1)), VIRTIO_NET_OK);
	ck_assert_ptr_nonnull(r.net->loop[2]);
	make(frame, 0, 0);
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(!used(&r, 4, &head, &len, 20));
	add_rx_to(&r, 2, 3, 50); /* in three pieces */
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(used(&r, 4, &head, &len, 5000));
	ck_assert_uint_eq(len, 50);
	ck_assert_uint_eq(get_le16(ram(&r, r.q[4].desc[head].addr) + 10), 3);
	memset(frame, 0x11, sizeof(frame));
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(used(&r, 0, &head, &len, 5000));
	rig_close(&r);
}
END_TEST

START_TEST(transmit_with_hash)
{
	uint32_t head, len;
	struct packet *p;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n,hash=on");
	bring_up(&r, F(CTRL_VQ) | F(HASH_REPORT), 64);
	gpa = vdrv_alloc(&r.drv, 400);
	for (unsigned int i = 0; i < 40; i++) {
		struct buf one[] = {{gpa, 220, false}};
		struct buf odd[] = {
			{gpa, 7, false}, {gpa + 7, 6 + i, false}, {gpa + 13 + i, 207 - i, false}};

		fill(ram(&r, gpa), 220, i);
		add(&r, TX, i % 2 ? odd : one, i % 2 ? 3 : 1);
		kick(&r, TX);
		p = sent(&r);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq(p->len, 212);
		ck_assert_mem_eq(p->data, ram(&r, gpa), 12);
		ck_assert_mem_eq(p->data + 12, ram(&r, gpa) + 20, 200);
		free(p);
		ck_assert(used(&r, TX, &head, &len, 5000));
	}
	/* nothing behind the header is nothing; half a header is a broken driver */
	add(&r, TX, (struct buf[]){{gpa, 20, false}}, 1);
	kick(&r, TX);
	ck_assert(used(&r, TX, &head, &len, 5000));
	ck_assert_uint_eq(r.net->out.n, 0);
	add(&r, TX, (struct buf[]){{gpa, 16, false}}, 1);
	kick(&r, TX);
	ck_assert(broken(&r));
	rig_close(&r);
}
END_TEST

/* The hash alone, and what it is of; small buffers, of which the ring runs dry. */
START_TEST(reports)
{
	uint8_t p[100] = {0}, frame[128];
	uint32_t head, len;
	const uint8_t *got;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n,hash=on");
	bring_up(&r, F(CTRL_VQ) | F(HASH_REPORT) | F(MRG_RXBUF), 64);
	make(frame, 0, 0);
	put_le32(p, 1); /* IPv4 */
	p[12] = sizeof(key);
	memcpy(p + 13, key, sizeof(key));
	for (int i = 0; i < 2; i++) {
		add_rx(&r, 1, 400);
		inject_frame(&r, frame, sizeof(frame));
		ck_assert(used(&r, RX, &head, &len, 5000));
		got = ram(&r, r.q[RX].desc[head].addr);
		ck_assert_uint_eq(get_le32(got + 12), i ? examples[0].plain : 0);
		ck_assert_uint_eq(get_le16(got + 16), i);
		ck_assert_int_eq(command_on(&r, CTRL, 4, 2, p, 13 + sizeof(key)), VIRTIO_NET_OK);
	}
	/* what does not fit waits for more buffers */
	add_rx(&r, 2, 30);
	inject_frame(&r, frame, sizeof(frame));
	ck_assert(!used(&r, RX, &head, &len, 10));
	add_rx(&r, 4, 30);
	for (int i = 0; i < 5; i++) {
		ck_assert(used(&r, RX, &head, &len, 5000));
		got = ram(&r, r.q[RX].desc[head].addr);
		ck_assert_uint_eq(len, i < 4 ? 30 : 28);
		if (!i)
			ck_assert_uint_eq(get_le32(got + 12), examples[0].plain);
		ck_assert_mem_eq(got + (i ? 0 : 20), frame + (i ? i * 30 - 20 : 0), i ? len : 10);
	}
	rig_close(&r);
}
END_TEST

START_TEST(bad_configurations)
{
	static const uint16_t table[8] = {0, 1, 2, 3, 3, 2, 1, 0}, beyond[8] = {0, 4};
	struct hako_error err = {0};
	uint8_t p[400] = {0};
	struct rig r;
	size_t n;

	rig_open(&r, "id=n,queues=4", "netdev=n,rss=on,hash=on");
	bring_up_queues(&r, RSS_FEATURES, 64, MAX_QUEUES);
	n = config(p, table, 0, 4);
	for (size_t len = 0; len < n; len++)
		ck_assert_int_eq(set_rss(&r, p, len), VIRTIO_NET_ERR);
	ck_assert_int_eq(set_rss(&r, p, config(p, beyond, 0, 4)), VIRTIO_NET_ERR);
	ck_assert_int_eq(set_rss(&r, p, config(p, table, 4, 4)), VIRTIO_NET_ERR);
	ck_assert_int_eq(set_rss(&r, p, config(p, table, 0, 5)), VIRTIO_NET_ERR);
	config(p, table, 0, 4);
	p[3] = 1; /* unknown hash type */
	ck_assert_int_eq(set_rss(&r, p, n), VIRTIO_NET_ERR);
	config(p, table, 0, 4);
	p[26] = 41; /* key */
	ck_assert_int_eq(set_rss(&r, p, n + 1), VIRTIO_NET_ERR);
	memset(p, 0, sizeof(p));
	put_le16(p + 4, 5); /* not a mask */
	ck_assert_int_eq(set_rss(&r, p, 100), VIRTIO_NET_ERR);
	put_le16(p + 4, 255); /* longer than offered */
	ck_assert_int_eq(set_rss(&r, p, 400), VIRTIO_NET_ERR);
	/* not negotiated */
	ck_assert_int_eq(command_on(&r, RSS_CTRL, 4, 2, p, 60), VIRTIO_NET_ERR);
	ck_assert_ptr_null(r.net->loop[1]);
	rig_close(&r);
	rig_open(&r, "id=n,queues=4", "netdev=n");
	ck_assert(!(vdrv_features(&r.drv) & (F(RSS) | F(HASH_REPORT))));
	make_net(r.drv.vm, "id=m,queues=4");
	ck_assert_int_eq(
		vdrv_device(&r.drv, "virtio-net-device", "netdev=m,rss=on,iothread=a:b", &err),
		-EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "iothread=a:b"));
	rig_close(&r);
}
END_TEST

START_TEST(saved)
{
	static const uint16_t table[8] = {3, 3, 3, 3, 3, 3, 3, 3};
	struct hako_error err = {0};
	struct state_buf buf = {0};
	struct virtio_net *net;
	struct rig a, r;
	uint8_t p[100];

	rig_open(&a, "id=n,queues=4", "netdev=n,rss=on");
	bring_up_queues(&a, RSS_FEATURES, 64, MAX_QUEUES);
	ck_assert_int_eq(set_rss(&a, p, config(p, table, 2, 1)), VIRTIO_NET_OK);
	a.card->class->pause(a.card);
	net = (struct virtio_net *)a.card;
	for (int i = 0; i < 2; i++) {
		buf.len = buf.pos = 0;
		ck_assert_int_eq(state_save(&buf, a.card->class->state, a.card, &err), 0);
		rig_open(&r, "id=n,queues=4", "netdev=n,rss=on");
		memcpy(ram(&r, 0), ram(&a, 0), RAM);
		r.card->class->pause(r.card);
		if (i) {
			ck_assert_int_lt(state_load(&buf, r.card->class->state, r.card, &err), 0);
			ck_assert_ptr_nonnull(strstr(err.message, "RSS"));
			r.card->class->reset(r.card);
		} else {
			ck_assert_int_eq(state_load(&buf, r.card->class->state, r.card, &err), 0);
			ck_assert_mem_eq(&((struct virtio_net *)r.card)->rss, &net->rss,
					 sizeof(net->rss));
		}
		rig_close(&r);
		net->rss.table[5] = 4;
	}
	state_buf_free(&buf);
	rig_close(&a);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_net_rss");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(t, hashes, 0, ARRAY_SIZE(examples));
	tcase_add_test(t, hostile_frames);
	tcase_add_loop_test(t, chooses_queue, 0, 4);
	tcase_add_test(t, no_room);
	tcase_add_test(t, transmit_with_hash);
	tcase_add_test(t, reports);
	tcase_add_test(t, bad_configurations);
	tcase_add_test(t, saved);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
