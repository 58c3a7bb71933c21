/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The network card with its queues served by vhost: who serves when, what is handed over, what fails. With a vhost-net of the test's own;
 * test_vhost_kernel.c has the kernel's.
 */
#include "fake_vhost.h"
#include "virtio/net.h"
#include "virtio/queue.h"
#include "virtio_net_rig.h"

#define FEATURES (F(CTRL_VQ) | F(MQ) | F(MRG_RXBUF))
#define PAIRS	 2
#define MQ_CTRL	 (2 * PAIRS)
#define QUEUES_2 (2 * PAIRS + 1)

struct vhost_rig {
	struct rig r;
	struct fake_vhost *vhost[PAIRS];
	int fds[PAIRS], far[PAIRS], near[PAIRS]; /* far: the network's end */
};

static int start_vhost(struct netdev *net, unsigned int queue, struct hako_error *err)
{
	struct vhost_rig *v = container_of(net->vhost_fd, struct vhost_rig, fds[0]);

	return v->near[queue];
}

static void stop_either(struct netdev *net, unsigned int queue)
{
	if (((struct test_net *)net)->loop[queue])
		test_stop(net, queue);
}

static const struct netdev_ops vhost_test_ops = {
	.start = test_start,
	.start_vhost = start_vhost,
	.stop = stop_either,
	.recv_enable = test_recv_enable,
	.recv = test_recv,
	.send = test_send,
	.set_offloads = test_set_offloads,
};

/* A network that vhost can serve, without a card. */
static void prepare(struct vhost_rig *v)
{
	struct rig *r = &v->r;

	memset(v, 0, sizeof(*v));
	vdrv_new(&r->drv, RAM);
	r->net = make_net(r->drv.vm, "id=n,queues=2");
	for (int i = 0; i < PAIRS; i++) {
		int pair[2];

		v->vhost[i] = fake_vhost_new();
		v->fds[i] = v->vhost[i]->fd;
		ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair), 0);
		v->near[i] = pair[0];
		v->far[i] = pair[1];
	}
	r->net->netdev.ops = &vhost_test_ops;
	r->net->netdev.vhost_fd = v->fds;
}

static void open_card(struct vhost_rig *v, const char *card)
{
	struct hako_error err = {0};

	ck_assert_msg(!vdrv_device(&v->r.drv, "virtio-net-device", card, &err), "%s", err.message);
	v->r.card = v->r.drv.obj;
}

static void up(struct vhost_rig *v)
{
	bring_up_queues(&v->r, FEATURES, 64, QUEUES_2);
}

static void vhost_rig_open(struct vhost_rig *v, const char *card)
{
	prepare(v);
	open_card(v, card);
	up(v);
}

static void vhost_rig_close(struct vhost_rig *v)
{
	rig_close(&v->r);
	for (int i = 0; i < PAIRS; i++) {
		fake_vhost_free(v->vhost[i]);
		close(v->near[i]);
		close(v->far[i]);
	}
}

static bool by_vhost(struct vhost_rig *v, unsigned int pair)
{
	return v->vhost[pair]->ring[0].backend >= 0 && v->vhost[pair]->ring[1].backend >= 0;
}

static void from_network(struct vhost_rig *v, unsigned int pair, size_t len, uint32_t seed)
{
	uint8_t p[2000] = {0};

	fill(p + HDR, len, seed);
	ck_assert_int_eq(send(v->far[pair], p, HDR + len, 0), HDR + len);
}

/* A packet each way over vhost. */
static void exchange(struct vhost_rig *v, unsigned int pair, uint32_t seed)
{
	struct rig *r = &v->r;
	uint64_t gpa = vdrv_alloc(&r->drv, 400);
	uint8_t got[2000], want[200];
	uint32_t head, len;
	ssize_t n = -1;

	fill(ram(r, gpa) + HDR, 200, seed);
	add(r, 2 * pair + 1, (struct buf[]){{gpa, HDR, false}, {gpa + HDR, 200, false}}, 2);
	kick(r, 2 * pair + 1);
	ck_assert(used(r, 2 * pair + 1, &head, &len, 5000));
	n = recv(v->far[pair], got, sizeof(got), 0);
	ck_assert_int_eq(n, HDR + 200);
	fill(want, 200, seed);
	ck_assert_mem_eq(got + HDR, want, 200);
	gpa = vdrv_alloc(&r->drv, 400);
	add(r, 2 * pair, (struct buf[]){{gpa, 400, true}}, 1);
	kick(r, 2 * pair);
	from_network(v, pair, 100, seed);
	ck_assert(used(r, 2 * pair, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 100);
	fill(want, 100, seed);
	ck_assert_mem_eq(ram(r, gpa) + HDR, want, 100);
}

/* A packet each way over the loop. */
static void exchange_here(struct vhost_rig *v, unsigned int pair, uint32_t seed)
{
	struct rig *r = &v->r;
	uint64_t gpa = vdrv_alloc(&r->drv, 400);
	struct packet *p;
	uint32_t head, len;

	add(r, 2 * pair + 1, (struct buf[]){{gpa, HDR + 200, false}}, 1);
	kick(r, 2 * pair + 1);
	p = sent(r);
	ck_assert_ptr_nonnull(p);
	free(p);
	ck_assert(used(r, 2 * pair + 1, &head, &len, 5000));
	add_rx_to(r, pair, 1, 400);
	inject_to(r, pair, NULL, 100, seed);
	ck_assert(used(r, 2 * pair, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 100);
}

static int set_pairs(struct vhost_rig *v, unsigned int n)
{
	return command_on(&v->r, MQ_CTRL, 4, 0, (uint8_t[]){n, 0}, 2);
}

static void irq_clear(struct rig *r)
{
	vdrv_write(&r->drv, VIRTIO_MMIO_INTERRUPT_ACK,
		   vdrv_read(&r->drv, VIRTIO_MMIO_INTERRUPT_STATUS));
}

static const char *const cards[] = {"netdev=n", "netdev=n,iothread=a:b"};

START_TEST(served)
{
	struct vhost_rig v;

	vhost_rig_open(&v, cards[_i]);
	ck_assert(by_vhost(&v, 0) && !by_vhost(&v, 1));
	ck_assert_uint_eq(v.vhost[0]->features, BIT64(VIRTIO_F_VERSION_1) | F(MRG_RXBUF));
	for (int i = 0; i < 50; i++) {
		vdrv_settle(&v.r.drv);
		irq_clear(&v.r);
		exchange(&v, 0, i);
		VDRV_UNTIL(vdrv_read(&v.r.drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 1);
	}
	ck_assert_uint_eq(v.vhost[0]->packets, 100);
	ck_assert_uint_eq(v.r.net->reads, 0);
	vdrv_write(&v.r.drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert(!by_vhost(&v, 0));
	up(&v);
	exchange(&v, 0, 1);
	vhost_rig_close(&v);
}
END_TEST

START_TEST(pairs)
{
	struct vhost_rig v;

	vhost_rig_open(&v, cards[_i]);
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(set_pairs(&v, 2), VIRTIO_NET_OK);
		ck_assert(by_vhost(&v, 0) && by_vhost(&v, 1));
		exchange(&v, 0, i);
		exchange(&v, 1, i);
		ck_assert_int_eq(set_pairs(&v, 1), VIRTIO_NET_OK);
		ck_assert(by_vhost(&v, 0) && !by_vhost(&v, 1));
		exchange(&v, 0, i);
	}
	vhost_rig_close(&v);
}
END_TEST

START_TEST(pause_resume)
{
	struct vhost_rig v;

	vhost_rig_open(&v, cards[_i]);
	ck_assert_int_eq(set_pairs(&v, 2), VIRTIO_NET_OK);
	for (unsigned int i = 0; i < 20; i++) {
		struct virtqueue *vq = v.r.drv.vdev->vq;
		unsigned int done = v.vhost[0]->packets;
		uint64_t gpa = vdrv_alloc(&v.r.drv, 400);
		uint8_t got[2000];
		uint32_t head, len;

		exchange(&v, 0, i);
		exchange(&v, 1, i);
		v.r.card->class->pause(v.r.card);
		ck_assert(!by_vhost(&v, 0) && !by_vhost(&v, 1));
		ck_assert_uint_eq(vq[0].last_avail, v.r.q[0].avail_idx);
		ck_assert_uint_eq(vq[0].used_idx, v.r.q[0].used->idx);
		ck_assert_uint_eq(vq[3].used_idx, v.r.q[3].avail_idx);
		/* what comes meanwhile is found afterwards */
		add(&v.r, TX, (struct buf[]){{gpa, HDR + 60, false}}, 1);
		kick(&v.r, TX);
		ck_assert(!used(&v.r, TX, &head, &len, 5));
		ck_assert_uint_eq(v.vhost[0]->packets, done + 2);
		v.r.card->class->resume(v.r.card);
		ck_assert(used(&v.r, TX, &head, &len, 5000));
		ck_assert_int_eq(recv(v.far[0], got, sizeof(got), 0), HDR + 60);
	}
	vhost_rig_close(&v);
}
END_TEST

/* A queue that vhost has served goes on in a program without vhost. */
START_TEST(save_and_load)
{
	struct state_buf buf = {0};
	struct hako_error err = {0};
	struct vhost_rig v;
	struct rig r;

	vhost_rig_open(&v, "netdev=n");
	for (int i = 0; i < 70; i++)
		exchange(&v, 0, i);
	v.r.card->class->pause(v.r.card);
	ck_assert_msg(!state_save(&buf, v.r.card->class->state, v.r.card, &err), "%s", err.message);
	rig_open(&r, "id=n,queues=2", "netdev=n");
	memcpy(ram(&r, 0), ram(&v.r, 0), RAM);
	for (int i = 0; i < QUEUES_2; i++) {
		r.q[i] = v.r.q[i];
		vdrv_rings_at(&r.drv, &r.q[i]);
	}
	r.drv.heap = v.r.drv.heap;
	r.card->class->pause(r.card);
	ck_assert_msg(!state_load(&buf, r.card->class->state, r.card, &err), "%s", err.message);
	r.card->class->resume(r.card);
	vhost_rig_close(&v);
	state_buf_free(&buf);
	for (int i = 0; i < 5; i++) {
		uint64_t gpa = vdrv_alloc(&r.drv, 400);
		struct packet *p;
		uint32_t head, len;

		add(&r, TX, (struct buf[]){{gpa, HDR + 200, false}}, 1);
		kick(&r, TX);
		p = sent(&r);
		ck_assert_ptr_nonnull(p);
		free(p);
		ck_assert(used(&r, TX, &head, &len, 5000));
		add_rx(&r, 1, 400);
		inject(&r, NULL, 100, i);
		ck_assert(used(&r, RX, &head, &len, 5000));
	}
	rig_close(&r);
}
END_TEST

/* --- failures ---------------------------------------------------------------------------------- */

static const struct {
	unsigned long request;
	unsigned int after;
} start_failures[] = {
	{VHOST_SET_FEATURES, 0},    {VHOST_SET_MEM_TABLE, 0},  {VHOST_SET_VRING_NUM, 0},
	{VHOST_SET_VRING_NUM, 1},   {VHOST_SET_VRING_BASE, 0}, {VHOST_SET_VRING_BASE, 1},
	{VHOST_SET_VRING_ADDR, 0},  {VHOST_SET_VRING_ADDR, 1}, {VHOST_SET_VRING_CALL, 0},
	{VHOST_SET_VRING_CALL, 1},  {VHOST_SET_VRING_ERR, 0},  {VHOST_SET_VRING_ERR, 1},
	{VHOST_SET_VRING_KICK, 0},  {VHOST_SET_VRING_KICK, 1}, {VHOST_NET_SET_BACKEND, 0},
	{VHOST_NET_SET_BACKEND, 1},
};

/* Each step fails once: the loop serves the pair, until the driver begins anew. */
START_TEST(falls_back)
{
	struct vhost_rig v;

	prepare(&v);
	open_card(&v, "netdev=n");
	v.vhost[0]->fail = start_failures[_i].request;
	v.vhost[0]->fail_after = start_failures[_i].after;
	up(&v);
	vdrv_settle(&v.r.drv); /* one of the two queues may have been served for a moment */
	exchange_here(&v, 0, 1);
	ck_assert(v.vhost[0]->ring[0].backend < 0 && v.vhost[0]->ring[1].backend < 0);
	/* it may be another pair's affair */
	ck_assert_int_eq(set_pairs(&v, 2), VIRTIO_NET_OK);
	exchange(&v, 1, 1);
	exchange_here(&v, 0, 2);
	up(&v);
	exchange(&v, 0, 3);
	vhost_rig_close(&v);
}
END_TEST

/* The same at a resume, with packets on their way. */
START_TEST(falls_back_later)
{
	struct vhost_rig v;

	vhost_rig_open(&v, "netdev=n");
	exchange(&v, 0, 1);
	v.r.card->class->pause(v.r.card);
	v.vhost[0]->fail = start_failures[_i].request;
	v.vhost[0]->fail_after = start_failures[_i].after;
	v.r.card->class->resume(v.r.card);
	vdrv_settle(&v.r.drv);
	exchange_here(&v, 0, 1);
	v.r.card->class->pause(v.r.card);
	v.r.card->class->resume(v.r.card);
	exchange_here(&v, 0, 2);
	vhost_rig_close(&v);
}
END_TEST

/* What cannot be used is an error only if the user insists. */
START_TEST(unusable)
{
	struct hako_error err = {0};
	struct vhost_rig v;
	bool required = _i % 2;

	prepare(&v);
	v.r.net->netdev.vhost_required = required;
	switch (_i / 2) {
	case 0:
		v.vhost[1]->owned = true;
		break;
	case 1:
		v.vhost[0]->fail = VHOST_GET_FEATURES;
		break;
	case 2:
		v.vhost[1]->has &= ~BIT64(VIRTIO_RING_F_EVENT_IDX);
		break;
	}
	if (required) {
		ck_assert_int_lt(vdrv_device(&v.r.drv, "virtio-net-device", "netdev=n", &err), 0);
		ck_assert_ptr_nonnull(strstr(err.message, "netdev=n: vhost: "));
	} else {
		open_card(&v, "netdev=n");
		up(&v);
		ck_assert(!by_vhost(&v, 0));
		exchange_here(&v, 0, 1);
	}
	vhost_rig_close(&v);
}
END_TEST

/* vhost meets a bad chain: the device stops, as it does when the loop meets one; a reset mends it. */
START_TEST(bad_chain)
{
	struct vhost_rig v;
	uint8_t got[200];

	vhost_rig_open(&v, "netdev=n");
	exchange(&v, 0, 1);
	if (_i) {
		add(&v.r, RX, (struct buf[]){{RAM + 4096, 400, true}}, 1);
		from_network(&v, 0, 100, 1);
	} else {
		add(&v.r, TX, (struct buf[]){{RAM + 4096, 400, false}}, 1);
	}
	kick(&v.r, _i ? RX : TX);
	ck_assert(broken(&v.r));
	VDRV_UNTIL(v.vhost[0]->ring[0].backend < 0 && v.vhost[0]->ring[1].backend < 0);
	recv(v.near[0], got, sizeof(got), 0);
	up(&v);
	exchange(&v, 0, 2);
	vhost_rig_close(&v);
}
END_TEST

/* The control queue is the loop's: what is wrong there stops vhost as well. */
START_TEST(broken_elsewhere)
{
	struct vhost_rig v;

	vhost_rig_open(&v, cards[_i]);
	ck_assert_int_eq(set_pairs(&v, 2), VIRTIO_NET_OK);
	add(&v.r, MQ_CTRL, (struct buf[]){{VDRV_HEAP, 3, false}}, 1);
	kick(&v.r, MQ_CTRL);
	ck_assert(broken(&v.r));
	VDRV_UNTIL(v.vhost[0]->ring[1].backend < 0 && v.vhost[1]->ring[1].backend < 0);
	up(&v);
	exchange(&v, 0, 2);
	vhost_rig_close(&v);
}
END_TEST

START_TEST(index_lost)
{
	struct vhost_rig v;

	vhost_rig_open(&v, "netdev=n");
	v.vhost[0]->fail = VHOST_GET_VRING_BASE;
	v.r.card->class->pause(v.r.card);
	v.r.card->class->resume(v.r.card);
	ck_assert(vdrv_needs_reset(&v.r.drv));
	up(&v);
	exchange(&v, 0, 2);
	vhost_rig_close(&v);
}
END_TEST

/* --- the rest ---------------------------------------------------------------------------------- */

static bool rang(int fd)
{
	eventfd_t n;

	for (int i = 0; i < 5000; i++) {
		if (!eventfd_read(fd, &n))
			return true;
		usleep(1000);
	}
	return false;
}

/* The interrupt finds another way: into an irqfd, into another one, and back to the loop. */
START_TEST(reroute)
{
	int fd[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};
	struct virtqueue *vq;
	struct vhost_rig v;
	eventfd_t n;

	vhost_rig_open(&v, "netdev=n");
	vq = &v.r.drv.vdev->vq[TX];
	for (int i = 0; i < 2; i++) {
		virtq_route(vq, fd[i]);
		ck_assert(rang(fd[i])); /* in case one was lost meanwhile */
		exchange(&v, 0, i);
		ck_assert(rang(fd[i]));
		vdrv_settle(&v.r.drv);
		irq_clear(&v.r);
	}
	virtq_route(vq, -1);
	VDRV_UNTIL(vdrv_read(&v.r.drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 1);
	exchange(&v, 0, 3);
	ck_assert_int_lt(eventfd_read(fd[0], &n), 0);
	ck_assert_int_lt(eventfd_read(fd[1], &n), 0);
	/* not at all if nobody serves it */
	v.r.card->class->pause(v.r.card);
	virtq_route(vq, fd[0]);
	vdrv_settle(&v.r.drv);
	ck_assert_int_lt(eventfd_read(fd[0], &n), 0);
	virtq_route(vq, -1);
	vhost_rig_close(&v);
	close(fd[0]);
	close(fd[1]);
}
END_TEST

/* With the link down, what the driver sends is the loop's to lose. */
START_TEST(link_changes)
{
	struct hako_error err = {0};
	uint32_t head, len;
	struct vhost_rig v;
	uint8_t got[200];

	vhost_rig_open(&v, cards[_i]);
	for (int i = 0; i < 10; i++) {
		uint64_t gpa = vdrv_alloc(&v.r.drv, 100);

		exchange(&v, 0, i);
		ck_assert_int_eq(netdev_set_link(v.r.drv.vm, "n", false, &err), 0);
		VDRV_UNTIL(v.vhost[0]->ring[0].kick < 0 && v.vhost[0]->ring[1].kick < 0);
		add(&v.r, TX, (struct buf[]){{gpa, HDR + 60, false}}, 1);
		kick(&v.r, TX);
		ck_assert(used(&v.r, TX, &head, &len, 5000));
		ck_assert_int_lt(recv(v.far[0], got, sizeof(got), 0), 0);
		ck_assert_int_eq(netdev_set_link(v.r.drv.vm, "n", true, &err), 0);
		VDRV_UNTIL(by_vhost(&v, 0));
	}
	vhost_rig_close(&v);
}
END_TEST

struct log_call {
	struct vhost_dev *dev;
	void *bitmap;
	int ret;
};

static void log_in_loop(void *arg)
{
	struct log_call *c = arg;
	struct hako_error err;

	c->ret = vhost_set_log(c->dev, c->bitmap, &err);
}

static int set_log(struct vhost_rig *v, void *bitmap)
{
	struct virtio_net *net = (struct virtio_net *)v->r.card;
	struct log_call c = {&net->pair[0].vhost->dev, bitmap, -1};

	loop_call(net->pair[0].loop, log_in_loop, &c);
	return c.ret;
}

START_TEST(dirty_log)
{
	uint64_t bitmap[RAM / 4096 / 64];
	struct vhost_rig v;

	vhost_rig_open(&v, "netdev=n");
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(set_log(&v, bitmap), 0);
		ck_assert_uint_eq(v.vhost[0]->log_base, (uintptr_t)bitmap);
		for (int k = 0; k < 2; k++) {
			ck_assert(v.vhost[0]->features & BIT64(VHOST_F_LOG_ALL));
			for (int q = 0; q < 2; q++) {
				ck_assert(v.vhost[0]->ring[q].addr.flags & BIT(VHOST_VRING_F_LOG));
				ck_assert_uint_eq(v.vhost[0]->ring[q].addr.log_guest_addr,
						  v.r.q[q].used_gpa);
			}
			/* and after a pause */
			v.r.card->class->pause(v.r.card);
			v.r.card->class->resume(v.r.card);
			exchange(&v, 0, i);
		}
		ck_assert_int_eq(set_log(&v, NULL), 0);
		ck_assert(!(v.vhost[0]->features & BIT64(VHOST_F_LOG_ALL)));
		ck_assert(!v.vhost[0]->ring[1].addr.flags);
	}
	v.vhost[0]->fail = VHOST_SET_VRING_ADDR;
	ck_assert_int_eq(set_log(&v, bitmap), -EIO);
	ck_assert_int_eq(set_log(&v, NULL), 0);
	exchange(&v, 0, 4);
	vhost_rig_close(&v);
}
END_TEST

/* Pauses, resets and changes of the pairs while packets go: nothing may hang. */
START_TEST(races)
{
	struct vhost_rig v;

	vhost_rig_open(&v, cards[_i]);
	for (unsigned int i = 0; i < 60; i++) {
		uint64_t gpa = vdrv_alloc(&v.r.drv, 64);
		struct buf b[2] = {{gpa, 4, false}, {gpa + 8, 1, true}};

		memcpy(ram(&v.r, gpa), (uint8_t[]){4, 0, 1 + i % 2, 0}, 4);
		add(&v.r, MQ_CTRL, b, 2);
		kick(&v.r, MQ_CTRL);
		from_network(&v, 0, 100, i);
		add_rx(&v.r, 2, 400);
		if (i % 3 == 0)
			usleep(i * 3);
		if (i % 2) {
			v.r.card->class->pause(v.r.card);
			v.r.card->class->resume(v.r.card);
		} else {
			up(&v);
		}
	}
	ck_assert(!vdrv_needs_reset(&v.r.drv));
	vhost_rig_close(&v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhost_net");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_loop_test(t, served, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, pairs, 0, ARRAY_SIZE(cards));
	tcase_add_loop_test(t, pause_resume, 0, ARRAY_SIZE(cards));
	tcase_add_test(t, save_and_load);
	tcase_add_loop_test(t, falls_back, 0, ARRAY_SIZE(start_failures));
	tcase_add_loop_test(t, falls_back_later, 0, ARRAY_SIZE(start_failures));
	tcase_add_loop_test(t, unusable, 0, 6);
	tcase_add_loop_test(t, bad_chain, 0, 2);
	tcase_add_loop_test(t, broken_elsewhere, 0, ARRAY_SIZE(cards));
	tcase_add_test(t, index_lost);
	tcase_add_test(t, reroute);
	tcase_add_loop_test(t, link_changes, 0, ARRAY_SIZE(cards));
	tcase_add_test(t, dirty_log);
	tcase_add_loop_test(t, races, 0, ARRAY_SIZE(cards));
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
