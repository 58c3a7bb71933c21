/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card: features, packets both ways. Through its MMIO registers and rings in plain memory. */
#include "virtio/net.h"
#include "virtio_net_rig.h"

/* --- features ---------------------------------------------------------------------------------- */

START_TEST(features)
{
	const uint64_t offloads = F(CSUM) | F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_TSO6) |
				  F(GUEST_ECN) | F(GUEST_UFO) | F(HOST_TSO4) | F(HOST_TSO6) |
				  F(HOST_ECN) | F(HOST_UFO) | F(CTRL_GUEST_OFFLOADS) |
				  F(GUEST_USO4) | F(GUEST_USO6) | F(HOST_USO);
	const uint64_t always = F(MAC) | F(STATUS) | F(MRG_RXBUF) | F(CTRL_VQ) | F(CTRL_RX) |
				F(CTRL_VLAN) | F(CTRL_RX_EXTRA) | F(CTRL_MAC_ADDR) |
				F(GUEST_ANNOUNCE);
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	ck_assert_uint_eq(vdrv_features(&r.drv) & (always | offloads | F(MTU) | F(MQ)),
			  always | offloads);
	rig_close(&r);
	rig_open(&r, "id=n,offloads=off", "netdev=n,host_mtu=9000");
	ck_assert_uint_eq(vdrv_features(&r.drv) & (always | offloads | F(MTU)), always | F(MTU));
	ck_assert_uint_eq(config8(&r, 10) | config8(&r, 11) << 8, 9000);
	rig_close(&r);
	rig_open(&r, "id=n", "netdev=n,csum=off,guest_csum=off,ctrl_vq=off,mrg_rxbuf=off");
	ck_assert_uint_eq(vdrv_features(&r.drv) & (always | offloads), F(MAC) | F(STATUS));
	rig_close(&r);
	rig_open(&r, "id=n", "netdev=n,gso=off");
	ck_assert_uint_eq(vdrv_features(&r.drv) & offloads,
			  offloads & ~(F(HOST_TSO4) | F(HOST_TSO6) | F(HOST_ECN) | F(HOST_UFO) |
				       F(HOST_USO)));
	rig_close(&r);
}
END_TEST

START_TEST(negotiation)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	/* 5.1.3.1 */
	ck_assert(!vdrv_negotiate(&r.drv, F(GUEST_TSO4)));
	ck_assert(!vdrv_negotiate(&r.drv, F(HOST_TSO6)));
	ck_assert(!vdrv_negotiate(&r.drv, F(CTRL_RX)));
	ck_assert(!vdrv_negotiate(&r.drv, F(MQ)));
	ck_assert(vdrv_negotiate(&r.drv, F(GUEST_CSUM) | F(GUEST_TSO4)));
	bring_up(&r, F(CSUM) | F(GUEST_CSUM) | F(GUEST_TSO4) | F(GUEST_ECN), 64);
	ck_assert(r.net->set.csum && r.net->set.tso4 && r.net->set.ecn);
	ck_assert(!r.net->set.tso6 && !r.net->set.ufo);
	bring_up(&r, F(GUEST_CSUM) | F(GUEST_USO4) | F(GUEST_USO6) | F(GUEST_UFO), 64);
	ck_assert(r.net->set.csum && r.net->set.uso && r.net->set.ufo && !r.net->set.tso4);
	bring_up(&r, F(GUEST_CSUM) | F(GUEST_USO4), 64); /* a network does both or none */
	ck_assert(r.net->set.csum && !r.net->set.uso);
	ck_assert(!vdrv_negotiate(&r.drv, F(GUEST_USO4)));
	ck_assert(!vdrv_negotiate(&r.drv, F(HOST_USO)));
	bring_up(&r, 0, 64);
	ck_assert(!r.net->set.csum && !r.net->set.tso4);
	rig_close(&r);
}
END_TEST

START_TEST(addresses)
{
	static const uint8_t first[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
	struct hako_error err = {0};
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	for (int i = 0; i < 6; i++)
		ck_assert_uint_eq(config8(&r, i), first[i]);
	ck_assert_uint_eq(config8(&r, 6), VIRTIO_NET_S_LINK_UP);
	make_net(r.drv.vm, "id=m");
	ck_assert_int_eq(vdrv_device(&r.drv, "virtio-net-device", "netdev=m", &err), 0);
	ck_assert_uint_eq(config8(&r, 5), 0x57);
	make_net(r.drv.vm, "id=o");
	ck_assert_int_eq(
		vdrv_device(&r.drv, "virtio-net-device", "netdev=o,mac=02:00:00:00:00:99", &err),
		0);
	ck_assert_uint_eq(config8(&r, 0), 2);
	ck_assert_uint_eq(config8(&r, 5), 0x99);
	/* one network, one card */
	ck_assert_int_eq(vdrv_device(&r.drv, "virtio-net-device", "netdev=o", &err), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.message, "netdev=o"));
	ck_assert_int_eq(vdrv_device(&r.drv, "virtio-net-device", "netdev=nix", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "netdev=nix"));
	rig_close(&r);
}
END_TEST

/* --- transmit ---------------------------------------------------------------------------------- */

START_TEST(transmit)
{
	uint64_t gpa;
	uint32_t head;
	uint32_t len;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(CSUM), 64);
	gpa = vdrv_alloc(&r.drv, 8192);
	for (unsigned int i = 0; i < 500; i++) {
		size_t n = 14 + i * 37 % 3000;
		struct buf one[] = {{gpa, HDR + n, false}};
		struct buf two[] = {{gpa, HDR, false}, {gpa + HDR, n, false}};
		struct buf odd[] = {{gpa, 5, false},
				    {gpa + 5, 10, false},
				    {gpa + 15, HDR + n - 15, false},
				    {gpa + 7000, 100, true}};
		struct packet *p;

		fill(ram(&r, gpa), HDR + n, i);
		if (i % 3 == 0)
			add(&r, TX, one, 1);
		else if (i % 3 == 1)
			add(&r, TX, two, 2);
		else
			add(&r, TX, odd, 4);
		kick(&r, TX);
		p = sent(&r);
		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq(p->len, HDR + n);
		ck_assert_mem_eq(p->data, ram(&r, gpa), HDR + n);
		free(p);
		ck_assert(used(&r, TX, &head, &len, 5000));
		ck_assert_uint_eq(len, 0);
	}
	rig_close(&r);
}
END_TEST

START_TEST(transmit_odd)
{
	struct packet *p;
	uint32_t head;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 70000);
	/* nothing behind the header; more than any network carries; then a good one */
	add(&r, TX, (struct buf[]){{gpa, HDR, false}}, 1);
	add(&r, TX, (struct buf[]){{gpa, HDR + 65535 + 19, false}}, 1);
	fill(ram(&r, gpa), 60 + HDR, 5);
	add(&r, TX, (struct buf[]){{gpa, HDR + 60, false}}, 1);
	kick(&r, TX);
	p = sent(&r);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(p->len, HDR + 60);
	free(p);
	for (int i = 0; i < 3; i++)
		ck_assert(used(&r, TX, &head, NULL, 5000));
	/* less than a header: the driver is broken, and so is the device until it is reset */
	add(&r, TX, (struct buf[]){{gpa, HDR - 1, false}}, 1);
	kick(&r, TX);
	ck_assert(broken(&r));
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 100);
	add(&r, TX, (struct buf[]){{gpa, 100, true}}, 1);
	kick(&r, TX);
	ck_assert(broken(&r));
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 100);
	add(&r, TX, (struct buf[]){{gpa, 100, false}}, 1);
	kick(&r, TX);
	p = sent(&r);
	ck_assert_ptr_nonnull(p);
	free(p);
	rig_close(&r);
}
END_TEST

START_TEST(transmit_blocked)
{
	uint32_t head;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 64 * 100);
	r.net->block = true;
	for (int i = 0; i < 30; i++) {
		memset(ram(&r, gpa + i * 100), i, 100);
		add(&r, TX, (struct buf[]){{gpa + i * 100, 100, false}}, 1);
		kick(&r, TX);
	}
	ck_assert(!used(&r, TX, &head, NULL, 100));
	loop_call(r.drv.vm->io_loop, writable_in_loop, r.net);
	for (int i = 0; i < 30; i++) {
		struct packet *p = sent(&r);

		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq(p->data[50], i);
		free(p);
		ck_assert(used(&r, TX, &head, NULL, 5000));
	}
	/* blocked, and reset */
	r.net->block = true;
	add(&r, TX, (struct buf[]){{gpa, 100, false}}, 1);
	kick(&r, TX);
	usleep(20000);
	r.net->block = false;
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 100);
	add(&r, TX, (struct buf[]){{gpa, 100, false}}, 1);
	kick(&r, TX);
	ck_assert(used(&r, TX, &head, NULL, 5000));
	rig_close(&r);
}
END_TEST

static const char *const ways[] = {"id=n", "id=n,together=on"};

static void add_numbered(struct rig *r, uint64_t gpa, int n)
{
	for (int i = 0; i < n; i++) {
		memset(ram(r, gpa + i * 100), i, 100);
		add(r, TX, (struct buf[]){{gpa + i * 100, 100, false}}, 1);
	}
}

static void expect_numbered(struct rig *r, int from, int to)
{
	for (int i = from; i < to; i++) {
		struct packet *p = sent(r);

		ck_assert_ptr_nonnull(p);
		ck_assert_uint_eq(p->len, 100);
		ck_assert_uint_eq(p->data[50], i);
		free(p);
	}
}

/* Many at once: all of them, in order, with one doorbell; and as far as the network takes them. */
START_TEST(transmit_many)
{
	unsigned int rounds = 20;
	uint32_t head;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, ways[_i], "netdev=n");
	bring_up_queues(&r, 0, 256, CTRL);
	gpa = vdrv_alloc(&r.drv, 250 * 100);
	while (rounds--) {
		add_numbered(&r, gpa, 250);
		kick(&r, TX);
		expect_numbered(&r, 0, 250);
		for (int i = 0; i < 250; i++)
			ck_assert(used(&r, TX, &head, NULL, 5000));
	}
	if (_i)
		ck_assert_uint_le(r.net->calls, 20 * 250 / 8);
	r.net->limited = true;
	r.net->room = 37;
	add_numbered(&r, gpa, 100);
	kick(&r, TX);
	expect_numbered(&r, 0, 37);
	for (int i = 0; i < 37; i++)
		ck_assert(used(&r, TX, &head, NULL, 5000));
	ck_assert(!used(&r, TX, &head, NULL, 50));
	r.net->limited = false;
	loop_call(r.drv.vm->io_loop, writable_in_loop, r.net);
	expect_numbered(&r, 37, 100);
	for (int i = 37; i < 100; i++)
		ck_assert(used(&r, TX, &head, NULL, 5000));
	/* it stops while some wait, and the driver takes everything back */
	r.net->limited = true;
	r.net->room = 3;
	add_numbered(&r, gpa, 100);
	kick(&r, TX);
	expect_numbered(&r, 0, 3);
	r.net->limited = false;
	bring_up_queues(&r, 0, 256, CTRL);
	gpa = vdrv_alloc(&r.drv, 100 * 100);
	add_numbered(&r, gpa, 100);
	kick(&r, TX);
	expect_numbered(&r, 0, 100);
	rig_close(&r);
}
END_TEST

/* One that the network refuses before one that it takes is lost: none overtakes another, and none waits for ever. */
START_TEST(transmit_refused)
{
	uint32_t head;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, ways[1], "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 20 * 100);
	r.net->refuse = true;
	add_numbered(&r, gpa, 20);
	kick(&r, TX);
	expect_numbered(&r, 0, 1);
	expect_numbered(&r, 2, 20);
	for (int i = 0; i < 20; i++)
		ck_assert(used(&r, TX, &head, NULL, 5000));
	rig_close(&r);
}
END_TEST

/* What is wrong with one packet does not concern those before it. */
START_TEST(transmit_many_odd)
{
	uint32_t head;
	uint64_t gpa;
	struct rig r;

	rig_open(&r, ways[_i], "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 70000);
	add_numbered(&r, gpa, 5);
	add(&r, TX, (struct buf[]){{gpa, HDR, false}}, 1);
	add(&r, TX, (struct buf[]){{gpa, HDR + 65535 + 19, false}}, 1);
	add(&r, TX, (struct buf[]){{gpa + 500, 100, false}}, 1);
	memset(ram(&r, gpa + 500), 5, 100);
	kick(&r, TX);
	expect_numbered(&r, 0, 6);
	for (int i = 0; i < 8; i++)
		ck_assert(used(&r, TX, &head, NULL, 5000));
	add_numbered(&r, gpa, 5);
	add(&r, TX, (struct buf[]){{gpa, HDR - 1, false}}, 1);
	kick(&r, TX);
	expect_numbered(&r, 0, 5);
	ck_assert(broken(&r));
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 3 * 100);
	add_numbered(&r, gpa, 3);
	kick(&r, TX);
	expect_numbered(&r, 0, 3);
	rig_close(&r);
}
END_TEST

/* --- receive ----------------------------------------------------------------------------------- */

START_TEST(receive_mergeable)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(MRG_RXBUF) | (_i ? F(GUEST_CSUM) | F(GUEST_TSO4) : 0), 64);
	add_rx(&r, 60, 1526);
	for (unsigned int i = 0; i < 300; i++) {
		size_t len = 60 + i * 97 % 5000;
		unsigned int n = (HDR + len + 1525) / 1526;

		if (r.drv.heap > RAM - 16 * KiB)
			r.drv.heap = 2 * MiB;
		inject(&r, NULL, len, i);
		expect(&r, NULL, len, i, n);
		add_rx(&r, n, 1526);
	}
	rig_close(&r);
}
END_TEST

START_TEST(receive_single)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, 0, 64);
	add_rx(&r, 10, 1526);
	inject(&r, NULL, 1514, 1);
	expect(&r, NULL, 1514, 1, 1);
	/* exactly full, and one byte too long: lost */
	inject(&r, NULL, 1526 - HDR, 2);
	inject(&r, NULL, 1527 - HDR, 3);
	inject(&r, NULL, 30000, 4);
	inject(&r, NULL, 60, 5);
	expect(&r, NULL, 1526 - HDR, 2, 1);
	expect(&r, NULL, 60, 5, 1);
	rig_close(&r);
}
END_TEST

/* A header over several small buffers. */
START_TEST(receive_split)
{
	struct rig r;
	uint32_t head;
	uint32_t len;
	uint64_t gpa;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 4096);
	for (int i = 0; i < 3; i++)
		add(&r, RX,
		    (struct buf[]){{gpa, 3, true}, {gpa + 3, 10, true}, {gpa + 13, 1000, true}}, 3);
	kick(&r, RX);
	inject(&r, NULL, 800, 9);
	ck_assert(used(&r, RX, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 800);
	ck_assert_uint_eq(get_le16(ram(&r, gpa + 10)), 1);
	fill(ram(&r, gpa + 2048), 800, 9);
	ck_assert_mem_eq(ram(&r, gpa + HDR), ram(&r, gpa + 2048), 800);
	rig_close(&r);
}
END_TEST

/* Without buffers packets stay where they are. */
START_TEST(receive_waits)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(MRG_RXBUF), 64);
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 20; i++)
			inject(&r, NULL, 500, i);
		ck_assert_uint_eq(r.net->in[0].n, 20);
		add_rx(&r, 7, 600);
		for (int i = 0; i < 7; i++)
			expect(&r, NULL, 500, i, 1);
		add_rx(&r, 13, 600);
		for (int i = 7; i < 20; i++)
			expect(&r, NULL, 500, i, 1);
	}
	rig_close(&r);
}
END_TEST

/* A large packet for which the buffers do not suffice waits for more, and none of it is lost. */
START_TEST(receive_spilled)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(MRG_RXBUF) | (_i ? F(GUEST_CSUM) | F(GUEST_TSO4) : 0), 64);
	for (int round = 0; round < 3; round++) {
		add_rx(&r, 20, 1526);
		inject(&r, NULL, 60000, 7);
		inject(&r, NULL, 100, 8);
		for (int i = 0; i < 4; i++) {
			usleep(1000);
			add_rx(&r, 5, 1526);
		}
		expect(&r, NULL, 60000, 7, 40);
		add_rx(&r, 1, 1526);
		expect(&r, NULL, 100, 8, 1);
	}
	rig_close(&r);
}
END_TEST

/* One for which the whole ring does not suffice is lost, and only that one. */
START_TEST(receive_hopeless)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(MRG_RXBUF) | F(GUEST_CSUM) | F(GUEST_TSO4), 32);
	add_rx(&r, 30, 1526);
	inject(&r, NULL, 60000, 7);
	inject(&r, NULL, 100, 8);
	add_rx(&r, 2, 1526);
	expect(&r, NULL, 100, 8, 1);
	rig_close(&r);
}
END_TEST

START_TEST(receive_broken)
{
	uint64_t gpa;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, 0, 64);
	gpa = vdrv_alloc(&r.drv, 4096);
	if (_i == 0) /* without room for the header */
		add(&r, RX, (struct buf[]){{gpa, HDR - 1, true}}, 1);
	else if (_i == 1) /* read-only */
		add(&r, RX, (struct buf[]){{gpa, 2000, false}}, 1);
	else
		add(&r, RX, (struct buf[]){{gpa, 12, false}, {gpa + 12, 2000, true}}, 2);
	kick(&r, RX);
	ck_assert(broken(&r));
	inject(&r, NULL, 60, 1);
	bring_up(&r, 0, 64);
	add_rx(&r, 3, 1526);
	expect(&r, NULL, 60, 1, 1);
	rig_close(&r);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, features);
	tcase_add_test(tc, negotiation);
	tcase_add_test(tc, addresses);
	tcase_add_test(tc, transmit);
	tcase_add_test(tc, transmit_odd);
	tcase_add_test(tc, transmit_blocked);
	tcase_add_loop_test(tc, transmit_many, 0, ARRAY_SIZE(ways));
	tcase_add_test(tc, transmit_refused);
	tcase_add_loop_test(tc, transmit_many_odd, 0, ARRAY_SIZE(ways));
	tcase_add_loop_test(tc, receive_mergeable, 0, 2);
	tcase_add_test(tc, receive_single);
	tcase_add_test(tc, receive_split);
	tcase_add_test(tc, receive_waits);
	tcase_add_loop_test(tc, receive_spilled, 0, 2);
	tcase_add_test(tc, receive_hopeless);
	tcase_add_loop_test(tc, receive_broken, 0, 3);
}

int main(void)
{
	Suite *s = suite_create("virtio_net");
	SRunner *sr = srunner_create(s);
	int failed;

	vdrv_cases(s, add_tests, NULL, NULL);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
