/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card: its control queue, pauses, saved state. */
#include "virtio_net_rig.h"

/* --- control queue ----------------------------------------------------------------------------- */

static const uint8_t own[6] = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
static const uint8_t other[6] = {0x52, 0x54, 0, 0x99, 0x99, 0x99};
static const uint8_t multi[6] = {0x01, 0, 0x5e, 1, 2, 3};
static const uint8_t bcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

/* Which of the four kinds of destination pass? */
static unsigned int passing(struct rig *r)
{
	static const uint8_t *const dst[4] = {own, other, multi, bcast};
	unsigned int set = 0;
	uint32_t head;

	for (int i = 0; i < 4; i++)
		inject(r, dst[i], 60 + i, 1);
	inject(r, own, 300, 1); /* the end */
	for (;;) {
		uint32_t len;

		if (!used(r, RX, &head, &len, 200))
			break;
		add(r, RX, (struct buf[]){{vdrv_alloc(&r->drv, 400), 400, true}}, 1);
		if (len == HDR + 300)
			break;
		set |= BIT(len - HDR - 60);
	}
	kick(r, RX);
	return set;
}

#define CTRL_FEATURES	 (F(CTRL_VQ) | F(CTRL_RX) | F(CTRL_RX_EXTRA) | F(CTRL_MAC_ADDR))
#define RX_MODE(CMD, ON) command(&r, 0, CMD, (uint8_t[]){ON}, 1)

START_TEST(modes)
{
	uint8_t table[4 + 6 + 4 + 6] = {1};
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	ck_assert_uint_eq(passing(&r), 15); /* promiscuous at first */
	ck_assert_int_eq(RX_MODE(0, 0), VIRTIO_NET_OK);
	ck_assert_uint_eq(passing(&r), 1 | 8);
	ck_assert_int_eq(RX_MODE(1, 1), VIRTIO_NET_OK); /* all multicast */
	ck_assert_uint_eq(passing(&r), 1 | 4 | 8);
	ck_assert_int_eq(RX_MODE(1, 0), VIRTIO_NET_OK);
	ck_assert_int_eq(RX_MODE(2, 1), VIRTIO_NET_OK); /* all unicast */
	ck_assert_uint_eq(passing(&r), 1 | 2 | 8);
	ck_assert_int_eq(RX_MODE(2, 0), VIRTIO_NET_OK);
	ck_assert_int_eq(RX_MODE(5, 1), VIRTIO_NET_OK); /* no broadcast */
	ck_assert_uint_eq(passing(&r), 1);
	ck_assert_int_eq(RX_MODE(5, 0), VIRTIO_NET_OK);
	/* tables: one unicast address, one multicast address */
	memcpy(table + 4, other, 6);
	table[10] = 1;
	memcpy(table + 14, multi, 6);
	ck_assert_int_eq(command(&r, 1, 0, table, sizeof(table)), VIRTIO_NET_OK);
	ck_assert_uint_eq(passing(&r), 15);
	memset(table, 0, sizeof(table));
	ck_assert_int_eq(command(&r, 1, 0, table, 8), VIRTIO_NET_OK);
	ck_assert_uint_eq(passing(&r), 1 | 8);
	/* promiscuous again after a reset */
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	ck_assert_uint_eq(passing(&r), 15);
	rig_close(&r);
}
END_TEST

START_TEST(set_mac)
{
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	ck_assert_int_eq(RX_MODE(0, 0), VIRTIO_NET_OK);
	ck_assert_int_eq(command(&r, 1, 1, other, 6), VIRTIO_NET_OK);
	for (int i = 0; i < 6; i++)
		ck_assert_uint_eq(config8(&r, i), other[i]);
	ck_assert_uint_eq(passing(&r), 2 | 8);
	vdrv_write(&r.drv, VIRTIO_MMIO_STATUS, 0);
	for (int i = 0; i < 6; i++)
		ck_assert_uint_eq(config8(&r, i), own[i]);
	rig_close(&r);
}
END_TEST

START_TEST(vlans)
{
	uint8_t frame[6];
	uint32_t head;
	uint32_t len;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES | F(CTRL_VLAN), 64);
	add_rx(&r, 30, 400);
	ck_assert_int_eq(command(&r, 2, 0, (uint8_t[]){5, 1}, 2), VIRTIO_NET_OK); /* 261 */
	ck_assert_int_eq(command(&r, 2, 0, (uint8_t[]){0, 0x10}, 2), VIRTIO_NET_ERR);
	ck_assert_int_eq(command(&r, 2, 0, (uint8_t[]){5}, 1), VIRTIO_NET_ERR);
	memcpy(frame, own, 6);
	for (int i = 0; i < 3; i++) {
		struct call c = {&r, malloc(sizeof(struct packet) + HDR + 64 + i)};

		memset(c.p->data, 0, HDR + 64);
		c.p->len = HDR + 64 + i;
		memcpy(c.p->data + HDR, own, 6);
		c.p->data[HDR + 12] = 0x81;
		c.p->data[HDR + 14] = 0xe0 | (i == 2 ? 2 : 1); /* priority 7 */
		c.p->data[HDR + 15] = i == 0 ? 4 : 5;
		loop_call(r.drv.vm->io_loop, inject_in_loop, &c);
	}
	ck_assert(used(&r, RX, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 65);
	ck_assert(!used(&r, RX, &head, &len, 50));
	ck_assert_uint_eq(passing(&r), 15); /* without a tag */
	rig_close(&r);
}
END_TEST

START_TEST(guest_offloads)
{
	const uint64_t f = F(CTRL_VQ) | F(GUEST_CSUM) | F(GUEST_TSO4) | F(CTRL_GUEST_OFFLOADS);
	uint8_t le[8];
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, f, 64);
	ck_assert(r.net->set.csum && r.net->set.tso4);
	put_le64(le, F(GUEST_CSUM));
	ck_assert_int_eq(command(&r, 5, 0, le, 8), VIRTIO_NET_OK);
	ck_assert(r.net->set.csum && !r.net->set.tso4);
	put_le64(le, F(GUEST_CSUM) | F(GUEST_TSO6)); /* not negotiated */
	ck_assert_int_eq(command(&r, 5, 0, le, 8), VIRTIO_NET_ERR);
	ck_assert(r.net->set.csum && !r.net->set.tso6);
	put_le64(le, UINT64_MAX);
	ck_assert_int_eq(command(&r, 5, 0, le, 8), VIRTIO_NET_ERR);
	rig_close(&r);
}
END_TEST

START_TEST(bad_commands)
{
	uint8_t table[200];
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	for (unsigned int class = 0; class < 256; class ++) {
		for (unsigned int cmd = 0; cmd < 256; cmd += class < 6 ? 1 : 51)
			ck_assert_int_eq(command(&r, class, cmd, NULL, 0), VIRTIO_NET_ERR);
	}
	ck_assert_int_eq(RX_MODE(0, 0), VIRTIO_NET_OK);
	memset(table, 0xff, sizeof(table)); /* 4 294 967 295 addresses */
	ck_assert_int_eq(command(&r, 1, 0, table, sizeof(table)), VIRTIO_NET_ERR);
	memset(table, 0, sizeof(table));
	table[0] = 33; /* 33 * 6 + 4 > 200 */
	ck_assert_int_eq(command(&r, 1, 0, table, sizeof(table)), VIRTIO_NET_ERR);
	table[0] = 32; /* and no second table */
	ck_assert_int_eq(command(&r, 1, 0, table, 4 + 32 * 6), VIRTIO_NET_ERR);
	table[0] = 32;
	put_le32(table + 4 + 32 * 6, 1);
	ck_assert_int_eq(command(&r, 1, 0, table, sizeof(table)), VIRTIO_NET_ERR);
	ck_assert_int_eq(command(&r, 1, 1, table, 5), VIRTIO_NET_ERR);
	ck_assert_int_eq(command(&r, 1, 1, table, 7), VIRTIO_NET_ERR);
	/* nothing of all this has changed the filter */
	ck_assert_uint_eq(passing(&r), 1 | 8);
	/* not negotiated */
	ck_assert_int_eq(command(&r, 2, 0, (uint8_t[]){5, 0}, 2), VIRTIO_NET_ERR);
	ck_assert_int_eq(command(&r, 5, 0, (uint8_t[8]){0}, 8), VIRTIO_NET_ERR);
	ck_assert_int_eq(command(&r, 3, 0, NULL, 0), VIRTIO_NET_ERR);
	rig_close(&r);
}
END_TEST

/* More addresses than are kept: all are let through rather than some lost. */
START_TEST(overflow)
{
	uint8_t table[4 + 100 * 6 + 4] = {100};
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	ck_assert_int_eq(RX_MODE(0, 0), VIRTIO_NET_OK);
	ck_assert_int_eq(command(&r, 1, 0, table, sizeof(table)), VIRTIO_NET_OK);
	ck_assert_uint_eq(passing(&r), 1 | 2 | 8);
	rig_close(&r);
}
END_TEST

START_TEST(broken_commands)
{
	uint64_t gpa;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	gpa = vdrv_alloc(&r.drv, 100);
	if (_i == 0)
		add(&r, CTRL, (struct buf[]){{gpa, 3, false}}, 1); /* no room for the answer */
	else if (_i == 1)
		add(&r, CTRL, (struct buf[]){{gpa, 1, false}, {gpa + 50, 1, true}}, 2);
	else
		add(&r, CTRL, (struct buf[]){{gpa, 1, true}}, 1);
	kick(&r, CTRL);
	ck_assert(broken(&r));
	bring_up(&r, CTRL_FEATURES, 64);
	ck_assert_int_eq(RX_MODE(0, 0), VIRTIO_NET_OK);
	rig_close(&r);
}
END_TEST

/* --- pause and reset --------------------------------------------------------------------------- */

START_TEST(pause_resume)
{
	uint32_t head;
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, F(MRG_RXBUF) | (_i ? F(GUEST_CSUM) | F(GUEST_TSO4) : 0), 64);
	add_rx(&r, 30, 400);
	for (unsigned int i = 0; i < 20; i++) {
		inject(&r, NULL, 100, i);
		expect(&r, NULL, 100, i, 1);
		add_rx(&r, 1, 400);
		r.card->class->pause(r.card);
		ck_assert(!r.net->recv_on);
		inject(&r, NULL, 200, i);
		inject(&r, NULL, 201, i);
		ck_assert(!used(&r, RX, &head, NULL, 5));
		r.card->class->resume(r.card);
		expect(&r, NULL, 200, i, 1);
		expect(&r, NULL, 201, i, 1);
		add_rx(&r, 2, 400);
	}
	rig_close(&r);
}
END_TEST

/* What has been set survives into another VM. */
START_TEST(save_and_load)
{
	struct state_buf buf = {0};
	struct hako_error err = {0};
	struct rig a, r;

	rig_open(&a, "id=n", "netdev=n");
	bring_up(&a, CTRL_FEATURES | F(GUEST_ANNOUNCE) | F(STATUS), 64);
	add_rx(&a, 30, 400);
	ck_assert_int_eq(command(&a, 0, 0, (uint8_t[]){0}, 1), VIRTIO_NET_OK);
	ck_assert_int_eq(command(&a, 1, 1, other, 6), VIRTIO_NET_OK);
	a.card->class->pause(a.card);
	ck_assert_msg(!state_save(&buf, a.card->class->state, a.card, &err), "%s", err.message);

	rig_open(&r, "id=n", "netdev=n");
	memcpy(ram(&r, 0), ram(&a, 0), RAM);
	for (int i = 0; i < QUEUES; i++) {
		r.q[i] = a.q[i];
		vdrv_rings_at(&r.drv, &r.q[i]);
	}
	r.drv.heap = a.drv.heap;
	r.card->class->pause(r.card);
	buf.pos = 0;
	ck_assert_msg(!state_load(&buf, r.card->class->state, r.card, &err), "%s", err.message);
	r.card->class->resume(r.card);
	rig_close(&a);
	state_buf_free(&buf);
	ck_assert_uint_eq(config8(&r, 5), other[5]);
	/* the driver is asked to say where it is now, and answers */
	ck_assert_uint_eq(config8(&r, 6), VIRTIO_NET_S_LINK_UP | VIRTIO_NET_S_ANNOUNCE);
	ck_assert_int_eq(command(&r, 3, 0, NULL, 0), VIRTIO_NET_OK);
	ck_assert_uint_eq(config8(&r, 6), VIRTIO_NET_S_LINK_UP);
	ck_assert_uint_eq(passing(&r), 2 | 8);
	rig_close(&r);
}
END_TEST

/* Switches in a stream that are neither off nor on mean on. */
START_TEST(load_odd_switches)
{
	static const char *const names[] = {"promisc",	    "allmulti",	     "alluni",
					    "nomulti",	    "nouni",	     "nobcast",
					    "uni_overflow", "multi_overflow"};
	struct state_buf buf = {0};
	struct hako_error err = {0};
	struct rig r;

	rig_open(&r, "id=n", "netdev=n");
	bring_up(&r, CTRL_FEATURES, 64);
	add_rx(&r, 30, 400);
	r.card->class->pause(r.card);
	ck_assert_int_eq(state_save(&buf, r.card->class->state, r.card, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		uint8_t *at = memmem(buf.data, buf.len, names[i], strlen(names[i]));

		ck_assert_ptr_nonnull(at);
		at[strlen(names[i]) + 4] = i < 1 || i > 2 ? 0 : 2; /* behind name and length */
	}
	buf.pos = 0;
	ck_assert_msg(!state_load(&buf, r.card->class->state, r.card, &err), "%s", err.message);
	state_buf_free(&buf);
	r.card->class->resume(r.card);
	ck_assert_uint_eq(passing(&r), 15);
	rig_close(&r);
}
END_TEST

static void add_tests(TCase *tc)
{
	tcase_add_test(tc, modes);
	tcase_add_test(tc, set_mac);
	tcase_add_test(tc, vlans);
	tcase_add_test(tc, guest_offloads);
	tcase_add_test(tc, bad_commands);
	tcase_add_test(tc, overflow);
	tcase_add_loop_test(tc, broken_commands, 0, 3);
	tcase_add_loop_test(tc, pause_resume, 0, 2);
	tcase_add_test(tc, save_and_load);
	tcase_add_test(tc, load_odd_switches);
}

int main(void)
{
	Suite *s = suite_create("virtio_net_ctrl");
	SRunner *sr = srunner_create(s);
	int failed;

	vdrv_cases(s, add_tests, NULL, NULL);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
