/* SPDX-License-Identifier: GPL-2.0-only */
/* vhost-user: network cards whose queues a back end serves; with honest back ends, with such as lie, and such as die. */
#include "devices/char/char.h"
#include "suite.h"
#include "vhost_peer.h"
#include "virtio/net.h"
#include "virtio_net_rig.h"

#define PAIRS	 2
#define MQ_CTRL	 (2 * PAIRS)
#define FEATURES (F(CTRL_VQ) | F(MQ) | F(MRG_RXBUF) | F(STATUS))
static bool is_get(uint32_t request)
{
	return !strncmp(vhost_user_name(request), "GET_", 4);
}

/* --- cards ------------------------------------------------------------------------------------- */

struct user_rig {
	struct rig r;
	struct peer p;
	struct vhost_user *vu;
};

static int new_object(struct vm *vm, enum class_kind kind, const char *class, const char *text,
		      struct hako_error *err)
{
	const struct class *cls = class_find(kind, class);
	struct keyvals kv = {0};
	int ret;

	ck_assert_ptr_nonnull(cls);
	ck_assert_int_eq(keyvals_parse(&kv, text, NULL, err), 0);
	ret = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return ret;
}

static int make_network(struct user_rig *u, const char *more, struct hako_error *err)
{
	char text[300];

	snprintf(text, sizeof(text), "id=n,path=%s,%s", u->p.addr.sun_path, more);
	return new_object(u->r.drv.vm, CLASS_NETDEV, "vhost-user", text, err);
}

static void prepare(struct user_rig *u)
{
	memset(u, 0, sizeof(*u));
	vdrv_new(&u->r.drv, RAM);
	peer_init(&u->p);
}

static void open_card(struct user_rig *u, const char *card)
{
	struct hako_error err = {0};

	ck_assert_msg(!vdrv_device(&u->r.drv, "virtio-net-device", card, &err), "%s", err.message);
	u->r.card = u->r.drv.obj;
	u->vu = ((struct virtio_net *)u->r.card)->backend->vhost_user;
	u->vu->timeout_ms = 300;
}

static void up(struct user_rig *u)
{
	bring_up_queues(&u->r, FEATURES, 64, 2 * PAIRS + 1);
}

static void user_rig_open(struct user_rig *u, const char *net)
{
	struct hako_error err = {0};

	if (!u->p.connects)
		peer_start(&u->p);
	ck_assert_msg(!make_network(u, net, &err), "%s", err.message);
	open_card(u, "netdev=n");
	up(u);
}

static void user_rig_close(struct user_rig *u)
{
	rig_close(&u->r);
	peer_stop(&u->p);
}

static bool link_up(struct user_rig *u)
{
	return vdrv_config(&u->r.drv, 6, 2) & VIRTIO_NET_S_LINK_UP;
}

/* A packet there and back. */
static void exchange(struct user_rig *u, unsigned int pair, uint32_t seed)
{
	struct rig *r = &u->r;
	uint64_t tx = vdrv_alloc(&r->drv, 400), rx = vdrv_alloc(&r->drv, 400);
	uint32_t head, len;

	memset(ram(r, tx), 0, HDR);
	fill(ram(r, tx) + HDR, 200, seed);
	add(r, 2 * pair, (struct buf[]){{rx, 400, true}}, 1);
	kick(r, 2 * pair);
	add(r, 2 * pair + 1, (struct buf[]){{tx, HDR, false}, {tx + HDR, 200, false}}, 2);
	kick(r, 2 * pair + 1);
	ck_assert(used(r, 2 * pair + 1, &head, &len, 5000));
	ck_assert(used(r, 2 * pair, &head, &len, 5000));
	ck_assert_uint_eq(len, HDR + 200);
	ck_assert_mem_eq(ram(r, rx) + HDR, ram(r, tx) + HDR, 200);
}

/* What the driver sends while nobody is there is lost, and comes back. */
static void send_into_nowhere(struct user_rig *u)
{
	uint64_t gpa = vdrv_alloc(&u->r.drv, 800);
	uint32_t head, len;

	add(&u->r, TX, (struct buf[]){{gpa + 400, HDR + 60, false}}, 1);
	kick(&u->r, TX);
	ck_assert(used(&u->r, TX, &head, &len, 5000));
}

static int set_pairs(struct user_rig *u, unsigned int n)
{
	return command_on(&u->r, MQ_CTRL, 4, 0, (uint8_t[]){n, 0}, 2);
}

static const char *const kinds[] = {"queues=2", "queues=2,server=on"};

START_TEST(served)
{
	struct user_rig u;

	prepare(&u);
	u.p.connects = _i;
	if (_i)
		peer_start(&u.p);
	user_rig_open(&u, kinds[_i]);
	ck_assert(link_up(&u));
	for (int i = 0; i < 50; i++) {
		vdrv_write(&u.r.drv, VIRTIO_MMIO_INTERRUPT_ACK, 3);
		exchange(&u, 0, i);
		VDRV_UNTIL(vdrv_read(&u.r.drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 1);
	}
	ck_assert_uint_eq(u.p.got_features, BIT64(VIRTIO_F_VERSION_1) | F(MRG_RXBUF) | F(MQ) |
						    BIT64(VHOST_USER_F_PROTOCOL_FEATURES));
	ck_assert_uint_eq(u.p.status, 15);
	/* The driver begins anew, and so does the back end. */
	vdrv_write(&u.r.drv, VIRTIO_MMIO_STATUS, 0);
	ck_assert_uint_eq(u.p.status, 0);
	ck_assert_uint_eq(u.p.seen[VHOST_USER_RESET_DEVICE], 1);
	up(&u);
	exchange(&u, 0, 1);
	ck_assert_uint_eq(u.p.seen[VHOST_USER_GET_INFLIGHT_FD], 2);
	user_rig_close(&u);
}
END_TEST

/* What the card offers is what the back end has; and MTU goes both ways. */
START_TEST(offers)
{
	struct hako_error err;
	struct user_rig u;
	uint64_t f;

	prepare(&u);
	u.p.mtu = _i ? 1400 : 0;
	peer_start(&u.p);
	ck_assert_int_eq(make_network(&u, "queues=2", &err), 0);
	open_card(&u, _i ? "netdev=n" : "netdev=n,host_mtu=9000");
	f = u.r.drv.vdev->host_features;
	ck_assert(f & F(CSUM) && !(f & (F(GUEST_CSUM) | F(GUEST_TSO4) | F(HOST_TSO4))));
	ck_assert(f & F(CTRL_VQ) && f & F(MQ) && f & F(MTU) && !(f & F(CTRL_GUEST_OFFLOADS)));
	ck_assert(f & BIT64(VIRTIO_RING_F_EVENT_IDX));
	bring_up_queues(&u.r, FEATURES | F(MTU), 64, 2 * PAIRS + 1);
	exchange(&u, 0, 1);
	ck_assert_uint_eq(u.p.got_mtu, _i ? 1400 : 9000);
	user_rig_close(&u);
}
END_TEST

START_TEST(pairs)
{
	struct user_rig u;

	prepare(&u);
	if (_i)
		u.p.protocol &= ~BIT64(VHOST_USER_PROTOCOL_F_REPLY_ACK) &
				~BIT64(VHOST_USER_PROTOCOL_F_STATUS);
	user_rig_open(&u, "queues=2");
	for (int i = 0; i < 10; i++) {
		ck_assert_int_eq(set_pairs(&u, 2), VIRTIO_NET_OK);
		exchange(&u, 0, i);
		exchange(&u, 1, i);
		ck_assert_int_eq(set_pairs(&u, 1), VIRTIO_NET_OK);
		exchange(&u, 0, i);
	}
	/* what is the same for all is told once */
	ck_assert_uint_eq(u.p.seen[VHOST_USER_SET_MEM_TABLE], 1);
	ck_assert_uint_eq(u.p.seen[VHOST_USER_SET_FEATURES], 1);
	user_rig_close(&u);
}
END_TEST

START_TEST(pause_resume)
{
	struct user_rig u;

	prepare(&u);
	user_rig_open(&u, "queues=2");
	ck_assert_int_eq(set_pairs(&u, 2), VIRTIO_NET_OK);
	for (unsigned int i = 0; i < 20; i++) {
		struct virtqueue *vq = u.r.drv.vdev->vq;
		unsigned int done;
		uint64_t gpa;
		uint32_t head, len;

		exchange(&u, 0, i);
		exchange(&u, 1, i);
		u.r.card->class->pause(u.r.card);
		done = u.p.packets;
		for (int q = 0; q < 4; q++) {
			ck_assert_uint_eq(vq[q].last_avail, u.r.q[q].avail_idx);
			ck_assert_uint_eq(vq[q].used_idx, u.r.q[q].used->idx);
		}
		/* what comes meanwhile is found afterwards */
		gpa = vdrv_alloc(&u.r.drv, 800);
		add(&u.r, RX, (struct buf[]){{gpa, 400, true}}, 1);
		add(&u.r, TX, (struct buf[]){{gpa + 400, HDR + 60, false}}, 1);
		kick(&u.r, TX);
		ck_assert(!used(&u.r, TX, &head, &len, 5));
		ck_assert_uint_eq(u.p.packets, done);
		u.r.card->class->resume(u.r.card);
		ck_assert(used(&u.r, TX, &head, &len, 5000));
		ck_assert(used(&u.r, RX, &head, &len, 5000));
	}
	ck_assert_uint_eq(u.p.seen[VHOST_USER_GET_INFLIGHT_FD], 1);
	user_rig_close(&u);
}
END_TEST

/* --- back ends that go ------------------------------------------------------------------------- */

/* It dies with buffers in hand; its successor finds them. */
START_TEST(killed)
{
	struct user_rig u;

	prepare(&u);
	u.p.connects = _i;
	if (_i)
		peer_start(&u.p);
	user_rig_open(&u, _i ? kinds[1] : "queues=2,reconnect=1");
	ck_assert_int_eq(set_pairs(&u, 2), VIRTIO_NET_OK);
	for (unsigned int i = 0; i < 3; i++) {
		unsigned int inflight = u.p.inflight_came;

		exchange(&u, 0, i);
		exchange(&u, 1, i);
		peer_stop(&u.p);
		VDRV_UNTIL(!link_up(&u));
		send_into_nowhere(&u);
		if (i == 1) {
			u.r.card->class->pause(u.r.card);
			u.r.card->class->resume(u.r.card);
		}
		if (i == 2)
			up(&u);
		peer_start(&u.p);
		VDRV_UNTIL(link_up(&u));
		if (i < 2)
			ck_assert_int_eq(set_pairs(&u, 2), VIRTIO_NET_OK);
		exchange(&u, 0, i);
		ck_assert_uint_gt(u.p.inflight_came, inflight);
		/* only a reset makes what was in flight of no interest */
		ck_assert_uint_eq(u.p.seen[VHOST_USER_GET_INFLIGHT_FD], i == 2 ? 2 : 1);
	}
	ck_assert(!vdrv_needs_reset(&u.r.drv));
	user_rig_close(&u);
}
END_TEST

/* It goes and comes again while packets are on their way: none that was not used is forgotten. */
START_TEST(hangs_up)
{
	struct user_rig u;
	uint32_t head, len;

	prepare(&u);
	u.p.connects = true;
	peer_start(&u.p);
	user_rig_open(&u, kinds[1]);
	for (unsigned int i = 0; i < 60; i++) {
		uint64_t gpa = vdrv_alloc(&u.r.drv, 800);

		add(&u.r, RX, (struct buf[]){{gpa, 400, true}}, 1);
		add(&u.r, TX, (struct buf[]){{gpa + 400, HDR + 60, false}}, 1);
		kick(&u.r, TX);
		if (i % 3 == 0)
			usleep(i * 20);
		peer_hang_up(&u.p);
		ck_assert(used(&u.r, TX, &head, &len, 5000));
		if (i % 4 == 0)
			up(&u);
		else
			used(&u.r, RX, &head, &len, 1);
	}
	ck_assert(!vdrv_needs_reset(&u.r.drv));
	usleep(20000);
	VDRV_UNTIL(link_up(&u));
	up(&u);
	exchange(&u, 0, 1);
	user_rig_close(&u);
}
END_TEST

static const uint32_t starts[] = {
	VHOST_USER_SET_STATUS,	     VHOST_USER_GET_STATUS,	 VHOST_USER_SET_FEATURES,
	VHOST_USER_SET_MEM_TABLE,    VHOST_USER_GET_INFLIGHT_FD, VHOST_USER_SET_INFLIGHT_FD,
	VHOST_USER_SET_VRING_NUM,    VHOST_USER_SET_VRING_BASE,	 VHOST_USER_SET_VRING_ADDR,
	VHOST_USER_SET_VRING_CALL,   VHOST_USER_SET_VRING_ERR,	 VHOST_USER_SET_VRING_KICK,
	VHOST_USER_SET_VRING_ENABLE,
};

/* Each step of a start goes wrong, in the one or the other queue: the link goes down, and comes up with the next connection. */
START_TEST(start_fails)
{
	static const enum peer_lie how[] = {PEER_CLOSES, PEER_SILENT, PEER_REFUSES, PEER_HUGE};

	for (size_t k = 0; k < 2 * ARRAY_SIZE(how); k++) {
		struct hako_error err;
		struct user_rig u;

		if (how[k / 2] == PEER_REFUSES && is_get(starts[_i]))
			continue;
		prepare(&u);
		u.p.connects = true;
		peer_start(&u.p);
		ck_assert_int_eq(make_network(&u, kinds[1], &err), 0);
		open_card(&u, "netdev=n");
		u.vu->timeout_ms = 50;
		u.p.lie_to = starts[_i];
		u.p.lie_after = k % 2;
		__atomic_store_n(&u.p.lie, how[k / 2], __ATOMIC_RELEASE);
		bring_up_queues(&u.r, FEATURES, 64, 2 * PAIRS + 1);
		VDRV_UNTIL(link_up(&u) && u.vu->running == 2);
		exchange(&u, 0, k);
		ck_assert(!vdrv_needs_reset(&u.r.drv));
		user_rig_close(&u);
	}
}
END_TEST

/* It does not let go of a ring: a pause takes as long as the deadline says, and the ring goes on with the next one. */
START_TEST(stop_fails)
{
	static const enum peer_lie how[] = {PEER_CLOSES, PEER_SILENT, PEER_VALUE, PEER_SHORT};
	struct user_rig u;
	uint64_t begin;

	prepare(&u);
	u.p.connects = true;
	peer_start(&u.p);
	user_rig_open(&u, kinds[1]);
	exchange(&u, 0, 1);
	u.p.lie_to = VHOST_USER_GET_VRING_BASE;
	u.p.lie_after = _i % 2;
	__atomic_store_n(&u.p.lie, how[_i / 2], __ATOMIC_RELEASE);
	begin = clock_now();
	u.r.card->class->pause(u.r.card);
	ck_assert_uint_lt(clock_now() - begin, 600 * 1000000ull);
	ck_assert_uint_eq(u.r.drv.vdev->vq[0].last_avail, u.r.q[0].used->idx);
	u.r.card->class->resume(u.r.card);
	VDRV_UNTIL(link_up(&u));
	exchange(&u, 0, 2);
	user_rig_close(&u);
}
END_TEST

/* The successor can do less than the guest uses, or has fewer queues: the guest stays without a link. */
START_TEST(lesser_successor)
{
	struct user_rig u;

	prepare(&u);
	u.p.connects = true;
	peer_start(&u.p);
	user_rig_open(&u, kinds[1]);
	exchange(&u, 0, 1);
	peer_stop(&u.p);
	if (_i)
		u.p.queues = 1;
	else
		u.p.features &= ~F(MRG_RXBUF);
	u.p.connections = 0;
	peer_start(&u.p);
	VDRV_UNTIL(u.p.connections >= 3);
	peer_stop(&u.p);
	VDRV_UNTIL(!link_up(&u));
	u.p.features = PEER_FEATURES;
	u.p.queues = PAIRS;
	peer_start(&u.p);
	VDRV_UNTIL(link_up(&u));
	exchange(&u, 0, 2);
	user_rig_close(&u);
}
END_TEST

/* The user's cable and the back end's presence: a link needs both. */
START_TEST(link_changes)
{
	struct hako_error err;
	struct user_rig u;

	prepare(&u);
	u.p.connects = true;
	peer_start(&u.p);
	user_rig_open(&u, kinds[1]);
	for (int i = 0; i < 5; i++) {
		ck_assert_int_eq(netdev_set_link(u.r.drv.vm, "n", false, &err), 0);
		ck_assert(!link_up(&u));
		send_into_nowhere(&u);
		peer_hang_up(&u.p);
		usleep(3000);
		ck_assert(!link_up(&u));
		ck_assert_int_eq(netdev_set_link(u.r.drv.vm, "n", true, &err), 0);
		VDRV_UNTIL(link_up(&u));
		VDRV_UNTIL(u.vu->running == 2);
		exchange(&u, 0, i);
	}
	user_rig_close(&u);
}
END_TEST

/* --- what can not be made ---------------------------------------------------------------------- */

static const struct {
	const char *net, *card, *why;
	uint64_t without; /* of the peer's features */
	enum peer_lie lie;
} refused[] = {
	{"queues=9", NULL, "queues=9: the back end has 4", 0, 0},
	{"chardev=c", NULL, "one of chardev and path is needed", 0, 0},
	{"server=on,reconnect=1", NULL, "nothing to connect to", 0, 0},
	{"queues=1", NULL, "legacy drivers only", BIT64(VIRTIO_F_VERSION_1), 0},
	{"queues=1", NULL, "the reply to GET_FEATURES has 4294967295 bytes", 0, PEER_HUGE},
	{"queues=1", NULL, "the back end is gone", 0, PEER_CLOSES},
	{"queues=1", "netdev=n,packed=on", "the back end knows no packed rings", 0, 0},
	{"queues=1", "netdev=n,rss=on", "rss=on does not go with vhost", 0, 0},
	{"queues=1", "netdev=n,iothread=a", "iothread=a: this network's queues", 0, 0},
};

START_TEST(refuses)
{
	struct hako_error err = {0};
	struct user_rig u;
	int ret;

	prepare(&u);
	u.p.features &= ~refused[_i].without;
	u.p.lie = refused[_i].lie;
	u.p.lie_to = VHOST_USER_GET_FEATURES;
	peer_start(&u.p);
	ret = make_network(&u, refused[_i].net, &err);
	if (refused[_i].card) {
		ck_assert_msg(!ret, "%s", err.message);
		ret = vdrv_device(&u.r.drv, "virtio-net-device", refused[_i].card, &err);
	}
	ck_assert_int_lt(ret, 0);
	ck_assert_msg(strstr(err.message, refused[_i].why), "%s", err.message);
	user_rig_close(&u);
}
END_TEST

/* chardev=: a socket of the user's; nothing else will do. */
START_TEST(by_chardev)
{
	struct hako_error err = {0};
	struct user_rig u;
	char text[200];

	prepare(&u);
	peer_start(&u.p);
	snprintf(text, sizeof(text), "id=c,path=%s", u.p.addr.sun_path);
	ck_assert_int_eq(new_object(u.r.drv.vm, CLASS_CHARDEV, "socket", text, &err), 0);
	ck_assert_int_eq(new_object(u.r.drv.vm, CLASS_CHARDEV, "null", "id=z", &err), 0);
	ck_assert_int_lt(new_object(u.r.drv.vm, CLASS_NETDEV, "vhost-user", "id=n,chardev=z", &err),
			 0);
	ck_assert_msg(strstr(err.message, "chardev=z: a socket is needed"), "%s", err.message);
	ck_assert_msg(!new_object(u.r.drv.vm, CLASS_NETDEV, "vhost-user",
				  "id=n,chardev=c,queues=2,vhostforce=on", &err),
		      "%s", err.message);
	open_card(&u, "netdev=n");
	up(&u);
	exchange(&u, 0, 1);
	/* without reconnect= it stays away */
	peer_hang_up(&u.p);
	VDRV_UNTIL(!link_up(&u));
	send_into_nowhere(&u);
	user_rig_close(&u);
}
END_TEST

/* It hangs up before anybody talks to it. */
START_TEST(gone_at_once)
{
	struct hako_error err = {0};
	struct user_rig u;
	struct chardev *chr;
	char text[200];

	prepare(&u);
	peer_start(&u.p);
	snprintf(text, sizeof(text), "id=c,path=%s", u.p.addr.sun_path);
	ck_assert_int_eq(new_object(u.r.drv.vm, CLASS_CHARDEV, "socket", text, &err), 0);
	chr = (struct chardev *)object_find(u.r.drv.vm, CLASS_CHARDEV, "c");
	VDRV_UNTIL(u.p.connections);
	peer_hang_up(&u.p);
	VDRV_UNTIL(!READ_ONCE(chr->open));
	ck_assert_int_lt(new_object(u.r.drv.vm, CLASS_NETDEV, "vhost-user", "id=n,chardev=c", &err),
			 0);
	ck_assert_msg(strstr(err.message, "chardev=c: the other end has hung up"), "%s",
		      err.message);
	user_rig_close(&u);
}
END_TEST

START_TEST(too_late)
{
	struct hako_error err = {0};
	struct user_rig u;

	prepare(&u);
	peer_start(&u.p);
	u.r.drv.vm->state = VM_RUNNING;
	ck_assert_int_eq(make_network(&u, "queues=1", &err), -EBUSY);
	ck_assert_msg(strstr(err.message, "guest memory is private"), "%s", err.message);
	user_rig_close(&u);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhost_user");
	TCase *t = tcase_create("cards");

	tcase_add_loop_test(t, served, 0, ARRAY_SIZE(kinds));
	tcase_add_loop_test(t, offers, 0, 2);
	tcase_add_loop_test(t, pairs, 0, 2);
	tcase_add_test(t, pause_resume);
	tcase_add_loop_test(t, killed, 0, 2);
	tcase_add_test(t, hangs_up);
	tcase_add_loop_test(t, start_fails, 0, ARRAY_SIZE(starts));
	tcase_add_loop_test(t, stop_fails, 0, 8);
	tcase_add_loop_test(t, lesser_successor, 0, 2);
	tcase_add_test(t, link_changes);
	tcase_add_loop_test(t, refuses, 0, ARRAY_SIZE(refused));
	tcase_add_test(t, by_chardev);
	tcase_add_test(t, gone_at_once);
	tcase_add_test(t, too_late);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return run_suite(s);
}
