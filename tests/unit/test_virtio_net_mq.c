/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio network card with several queue pairs: how many run, in which loops, and what becomes of the others; and its link. */
#include "virtio/net.h"
#include "virtio_net_rig.h"

#define MQ_FEATURES (F(CTRL_VQ) | F(MQ) | F(MRG_RXBUF))
#define MQ_CTRL	    8 /* behind four pairs */

static const char *const cards[] = {"netdev=n", "netdev=n,iothread=a:b", "netdev=n,iothread=a"};

static int set_pairs(struct rig *r, unsigned int n)
{
	return command_on(r, MQ_CTRL, 4, 0, (uint8_t[]){n, n >> 8}, 2);
}

static unsigned int running(struct rig *r)
{
	unsigned int set = 0;

	for (int i = 0; i < NET_PAIRS; i++)
		set |= __atomic_load_n(&r->net->loop[i], __ATOMIC_ACQUIRE) ? BIT(i) : 0;
	return set;
}

static void open_mq(struct rig *r, const char *card)
{
	rig_open(r, "id=n,queues=4", card);
	bring_up_queues(r, MQ_FEATURES, 64, MAX_QUEUES);
}

/* One packet each way over a pair. */
static void exchange(struct rig *r, unsigned int pair, unsigned int seed)
{
	uint64_t gpa = vdrv_alloc(&r->drv, 400);
	unsigned int rx = 2 * pair, tx = rx + 1;
	struct packet *p;
	uint32_t head, len;

	fill(ram(r, gpa), HDR + 200, seed);
	add(r, tx, (struct buf[]){{gpa, HDR + 200, false}}, 1);
	kick(r, tx);
	p = sent(r);
	ck_assert_ptr_nonnull(p);
	ck_assert_uint_eq(r->net->sent_on, pair);
	ck_assert_mem_eq(p->data, ram(r, gpa), HDR + 200);
	free(p);
	ck_assert(used(r, tx, &head, &len, 5000));
	add_rx_to(r, pair, 1, 400);
	inject_to(r, pair, NULL, 100 + pair, seed);
	ck_assert(used(r, rx, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 100 + pair);
}

START_TEST(offered)
{
	struct rig r;

	rig_open(&r, "id=n,queues=4", "netdev=n");
	ck_assert(vdrv_features(&r.drv) & F(MQ));
	ck_assert_uint_eq(config8(&r, 8) | config8(&r, 9) << 8, 4);
	rig_close(&r);
	rig_open(&r, "id=n,queues=4", _i ? "netdev=n,mq=off" : "netdev=n,ctrl_vq=off");
	ck_assert(!(vdrv_features(&r.drv) & F(MQ)));
	ck_assert_uint_eq(config8(&r, 8), 1);
	rig_close(&r);
}
END_TEST

START_TEST(pairs)
{
	struct rig r;

	open_mq(&r, cards[_i]);
	ck_assert_uint_eq(running(&r), 1);
	for (unsigned int round = 0; round < 10; round++) {
		unsigned int n = 1 + (round * 7 + 3) % NET_PAIRS;

		ck_assert_int_eq(set_pairs(&r, n), VIRTIO_NET_OK);
		ck_assert_uint_eq(running(&r), BIT(n) - 1);
		for (unsigned int i = 0; i < n; i++)
			exchange(&r, i, round * 10 + i);
		for (unsigned int i = 1; i < n; i++)
			ck_assert(r.net->loop[i] == r.net->loop[0] || (_i == 1 && i % 2));
	}
	ck_assert_int_eq(set_pairs(&r, 2), VIRTIO_NET_OK);
	ck_assert(_i != 1 || r.net->loop[1] != r.net->loop[0]);
	ck_assert(_i == 0 || r.net->loop[0] != r.drv.vm->io_loop);
	ck_assert_int_eq(set_pairs(&r, 0), VIRTIO_NET_ERR);
	ck_assert_int_eq(set_pairs(&r, 5), VIRTIO_NET_ERR);
	ck_assert_int_eq(set_pairs(&r, 0x8000), VIRTIO_NET_ERR);
	ck_assert_int_eq(command_on(&r, MQ_CTRL, 4, 0, (uint8_t[]){1}, 1), VIRTIO_NET_ERR);
	ck_assert_uint_eq(running(&r), 3);
	/* a reset leaves one */
	bring_up_queues(&r, MQ_FEATURES, 64, MAX_QUEUES);
	ck_assert_uint_eq(running(&r), 1);
	vdrv_write(&r.drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(running(&r), 0);
	rig_close(&r);
}
END_TEST

/* What lies in the rings of a pair before it is used is found when it is; what is there when it is left stays. */
START_TEST(filled_before)
{
	uint32_t head, len;
	uint64_t gpa;
	struct packet *p;
	struct rig r;

	open_mq(&r, cards[_i]);
	gpa = vdrv_alloc(&r.drv, 400);
	add_rx_to(&r, 3, 3, 400);
	add(&r, 7, (struct buf[]){{gpa, HDR + 60, false}}, 1);
	kick(&r, 7);
	ck_assert(!used(&r, 7, &head, &len, 10));
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(set_pairs(&r, 4), VIRTIO_NET_OK);
		if (!i) {
			p = sent(&r);
			ck_assert_ptr_nonnull(p);
			free(p);
			ck_assert(used(&r, 7, &head, &len, 5000));
		}
		inject_to(&r, 3, NULL, 100, 1);
		ck_assert(used(&r, RX + 6, &head, &len, 5000));
		ck_assert_int_eq(set_pairs(&r, 1), VIRTIO_NET_OK);
		ck_assert(!used(&r, RX + 6, &head, &len, 5));
	}
	rig_close(&r);
}
END_TEST

/* 5.1.2: for a driver that knows only one pair the control queue is number 2. */
START_TEST(without_mq)
{
	struct rig r;

	rig_open(&r, "id=n,queues=4", cards[_i]);
	for (int i = 0; i < 2; i++) {
		bring_up(&r, F(CTRL_VQ) | F(CTRL_RX), 64);
		ck_assert_int_eq(command(&r, 0, 0, (uint8_t[]){1}, 1), VIRTIO_NET_OK);
		ck_assert_int_eq(command(&r, 4, 0, (uint8_t[]){2, 0}, 2), VIRTIO_NET_ERR);
		ck_assert_uint_eq(running(&r), 1);
		exchange(&r, 0, i);
		/* and in between one that knows more */
		bring_up_queues(&r, MQ_FEATURES, 64, MAX_QUEUES);
		ck_assert_int_eq(set_pairs(&r, 3), VIRTIO_NET_OK);
		exchange(&r, 2, i);
	}
	rig_close(&r);
}
END_TEST

START_TEST(pause_resume)
{
	struct rig r;

	open_mq(&r, cards[_i]);
	for (unsigned int i = 0; i < 8; i++) {
		ck_assert_int_eq(set_pairs(&r, 1 + i % 4), VIRTIO_NET_OK);
		r.card->class->pause(r.card);
		r.card->class->resume(r.card);
		for (unsigned int k = 0; k <= i % 4; k++)
			exchange(&r, k, i);
	}
	rig_close(&r);
}
END_TEST

/* Commands race with resets and pauses: none may hang, whatever becomes of the answer. */
START_TEST(races)
{
	struct rig r;

	open_mq(&r, cards[_i]);
	for (unsigned int i = 0; i < 100; i++) {
		uint64_t gpa = vdrv_alloc(&r.drv, 64);
		struct buf b[2] = {{gpa, 4, false}, {gpa + 8, 1, true}};

		memcpy(ram(&r, gpa), (uint8_t[]){4, 0, 1 + i % 4, 0}, 4);
		add(&r, MQ_CTRL, b, 2);
		kick(&r, MQ_CTRL);
		if (i % 3 == 0)
			usleep(i * 3);
		if (i % 2) {
			r.card->class->pause(r.card);
			r.card->class->resume(r.card);
		} else {
			bring_up_queues(&r, MQ_FEATURES, 64, MAX_QUEUES);
		}
	}
	ck_assert(!vdrv_needs_reset(&r.drv));
	bring_up_queues(&r, MQ_FEATURES, 64, MAX_QUEUES);
	ck_assert_int_eq(set_pairs(&r, 4), VIRTIO_NET_OK);
	exchange(&r, 3, 1);
	rig_close(&r);
}
END_TEST

/* The host cannot: the driver is told, and the pairs that there are go on. */
START_TEST(host_fails)
{
	struct rig r;

	open_mq(&r, cards[_i]);
	r.net->fail = true;
	ck_assert_int_eq(set_pairs(&r, 4), VIRTIO_NET_ERR);
	exchange(&r, 0, 1);
	r.net->fail = false;
	ck_assert_int_eq(set_pairs(&r, 1), VIRTIO_NET_OK);
	ck_assert_int_eq(set_pairs(&r, 4), VIRTIO_NET_OK);
	exchange(&r, 3, 1);
	rig_close(&r);
}
END_TEST

static bool link_is_up(struct rig *r)
{
	return config8(r, 6) & VIRTIO_NET_S_LINK_UP;
}

/* The cable is pulled out and put in again, by the name of either side. */
START_TEST(link_changes)
{
	struct hako_error err = {0};
	uint32_t head, len;
	struct rig r;

	open_mq(&r, _i ? "netdev=n,id=card,iothread=a:b" : "netdev=n,id=card");
	ck_assert_int_eq(set_pairs(&r, 3), VIRTIO_NET_OK);
	for (unsigned int i = 0; i < 6; i++) {
		const char *id = i % 2 ? "card" : "n";
		uint32_t generation = vdrv_read(&r.drv, VIRTIO_MMIO_CONFIG_GENERATION);
		uint64_t gpa = vdrv_alloc(&r.drv, 100);

		vdrv_write(&r.drv, VIRTIO_MMIO_INTERRUPT_ACK, 3);
		ck_assert_int_eq(netdev_set_link(r.drv.vm, id, false, &err), 0);
		ck_assert(!link_is_up(&r) && r.net->no_carrier);
		ck_assert_uint_ne(vdrv_read(&r.drv, VIRTIO_MMIO_CONFIG_GENERATION), generation);
		ck_assert(vdrv_read(&r.drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 2);
		VDRV_UNTIL(!running(&r));
		/* lost, but done with */
		for (int k = 0; k < (i == 3 ? 2 : 3); k++) {
			add(&r, 2 * k + 1, (struct buf[]){{gpa, HDR + 60, false}}, 1);
			kick(&r, 2 * k + 1);
			ck_assert(used(&r, 2 * k + 1, &head, &len, 5000));
		}
		ck_assert_uint_eq(r.net->out.n, 0);
		if (i == 2)
			ck_assert_int_eq(set_pairs(&r, 2), VIRTIO_NET_OK);
		if (i == 3)
			ck_assert_int_eq(set_pairs(&r, 3), VIRTIO_NET_OK);
		if (i == 4) {
			bring_up_queues(&r, MQ_FEATURES, 64, MAX_QUEUES);
			ck_assert_uint_eq(running(&r), 0);
			ck_assert(!link_is_up(&r));
			ck_assert_int_eq(set_pairs(&r, 3), VIRTIO_NET_OK);
		}
		r.card->class->pause(r.card);
		r.card->class->resume(r.card);
		ck_assert_int_eq(netdev_set_link(r.drv.vm, id, true, &err), 0);
		ck_assert_int_eq(netdev_set_link(r.drv.vm, id, true, &err), 0);
		ck_assert(link_is_up(&r) && !r.net->no_carrier);
		VDRV_UNTIL(running(&r) == (i == 2 ? 3 : 7));
		exchange(&r, 0, i);
		exchange(&r, i == 2 ? 1 : 2, i);
	}
	ck_assert_int_eq(netdev_set_link(r.drv.vm, "nix", true, &err), -ENODEV);
	ck_assert_ptr_nonnull(strstr(err.message, "nix"));
	rig_close(&r);
}
END_TEST

START_TEST(link_saved)
{
	struct hako_error err = {0};
	struct state_buf buf = {0};
	struct rig a, r;

	open_mq(&a, "netdev=n");
	ck_assert_int_eq(netdev_set_link(a.drv.vm, "n", false, &err), 0);
	a.card->class->pause(a.card);
	ck_assert_int_eq(state_save(&buf, a.card->class->state, a.card, &err), 0);
	rig_open(&r, "id=n,queues=4", "netdev=n");
	memcpy(ram(&r, 0), ram(&a, 0), RAM);
	r.card->class->pause(r.card);
	ck_assert_int_eq(state_load(&buf, r.card->class->state, r.card, &err), 0);
	r.card->class->resume(r.card);
	ck_assert(!link_is_up(&r) && r.net->no_carrier && !running(&r));
	ck_assert_int_eq(netdev_set_link(r.drv.vm, "n", true, &err), 0);
	VDRV_UNTIL(running(&r) == 1);
	rig_close(&r);
	rig_close(&a);
	state_buf_free(&buf);
}
END_TEST

START_TEST(save_and_load)
{
	struct hako_error err = {0};
	struct state_buf buf = {0};
	struct virtio_net *net;
	struct rig a, r;
	uint16_t bad;

	open_mq(&a, "netdev=n");
	ck_assert_int_eq(set_pairs(&a, 3), VIRTIO_NET_OK);
	a.card->class->pause(a.card);
	ck_assert_msg(!state_save(&buf, a.card->class->state, a.card, &err), "%s", err.message);
	rig_open(&r, "id=n,queues=4", "netdev=n,iothread=a:b");
	memcpy(ram(&r, 0), ram(&a, 0), RAM);
	r.card->class->pause(r.card);
	ck_assert_msg(!state_load(&buf, r.card->class->state, r.card, &err), "%s", err.message);
	r.card->class->resume(r.card);
	ck_assert_uint_eq(running(&r), 7);
	rig_close(&r);
	/* more pairs than there are */
	net = (struct virtio_net *)a.card;
	for (bad = 0; bad < 6; bad += 5) {
		net->pairs = bad;
		buf.len = buf.pos = 0;
		ck_assert_int_eq(state_save(&buf, a.card->class->state, a.card, &err), 0);
		rig_open(&r, "id=n,queues=4", "netdev=n");
		memcpy(ram(&r, 0), ram(&a, 0), RAM);
		r.card->class->pause(r.card);
		ck_assert_int_lt(state_load(&buf, r.card->class->state, r.card, &err), 0);
		ck_assert_ptr_nonnull(strstr(err.message, "queue pairs"));
		r.card->class->reset(r.card);
		rig_close(&r);
	}
	net->pairs = 3;
	rig_close(&a);
	state_buf_free(&buf);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_net_mq");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(t, offered, 0, 2);
	tcase_add_loop_test(t, pairs, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, filled_before, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, without_mq, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, pause_resume, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, races, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, host_fails, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, link_changes, 0, 2);
	tcase_add_test(t, link_saved);
	tcase_add_test(t, save_and_load);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
