/* SPDX-License-Identifier: GPL-2.0-only */
/* vhost-user: the protocol, and network cards whose queues a back end serves; with honest back ends, with such as lie, and such as die. */
#include <dirent.h>

#include "vhost_peer.h"
#include "virtio/net.h"
#include "virtio_net_rig.h"

#define PAIRS	 2
#define MQ_CTRL	 (2 * PAIRS)
#define FEATURES (F(CTRL_VQ) | F(MQ) | F(MRG_RXBUF) | F(STATUS))
#define WANTED                                                                                     \
	(BIT64(VHOST_USER_PROTOCOL_F_MQ) | BIT64(VHOST_USER_PROTOCOL_F_REPLY_ACK) |                \
	 BIT64(VHOST_USER_PROTOCOL_F_NET_MTU) | BIT64(VHOST_USER_PROTOCOL_F_CONFIG) |              \
	 BIT64(VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD) | BIT64(VHOST_USER_PROTOCOL_F_RESET_DEVICE) | \
	 BIT64(VHOST_USER_PROTOCOL_F_STATUS))

static unsigned int open_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

/* --- the protocol ------------------------------------------------------------------------------ */

struct talk {
	struct vhost_user vu;
	struct peer p;
	struct memory mem;
	struct vm *vm;
	char why[200];
	int event;
};

static void talk_lost(struct vhost_user *vu, const char *why)
{
	struct talk *t = container_of(vu, struct talk, vu);

	ck_assert_str_eq(t->why, ""); /* once only */
	snprintf(t->why, sizeof(t->why), "%s", why);
}

static int talk_open(struct talk *t, struct hako_error *err)
{
	int pair[2], ret;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	ck_assert_int_eq(vm_new_plain(&t->vm, 1 * MiB, err), 0);
	ck_assert_int_eq(memory_share(t->vm, err), 0);
	t->event = eventfd(0, EFD_NONBLOCK);
	vhost_user_init(&t->vu, talk_lost);
	t->vu.timeout_ms = 60;
	t->p.fd = pair[1];
	peer_start(&t->p);
	ret = vhost_user_open(&t->vu, pair[0], err);
	t->why[0] = '\0';
	return ret;
}

static void talk_close(struct talk *t)
{
	vhost_user_close(&t->vu);
	vhost_user_forget(&t->vu);
	t->p.connects = true; /* it has no socket's file */
	peer_stop(&t->p);
	vm_free_plain(t->vm);
	close(t->event);
}

/* Everything that can be said; what the first that fails gives. */
static int talk_all(struct talk *t)
{
	struct vhost_user *vu = &t->vu;
	struct vhost_vring_addr addr = {.index = 1};
	uint8_t config[2];
	uint64_t u64;
	uint32_t num;

	addr.desc_user_addr = addr.avail_user_addr = addr.used_user_addr =
		(uintptr_t)t->vm->mem.region[0].hva;
	return vhost_user_set(vu, VHOST_USER_SET_STATUS, 3)
		       ?: vhost_user_get(vu, VHOST_USER_GET_STATUS, &u64)
		       ?: vhost_user_set(vu, VHOST_USER_SET_FEATURES, PEER_FEATURES)
		       ?: vhost_user_set_memory(vu, &t->vm->mem)
		       ?: vhost_user_set(vu, VHOST_USER_NET_SET_MTU, 1500)
		       ?: vhost_user_get_config(vu, 10, config, 2)
		       ?: vhost_user_share_inflight(vu, 2, 64)
		       ?: vhost_user_set_ring(vu, VHOST_USER_SET_VRING_NUM, 1, 64)
		       ?: vhost_user_set_ring(vu, VHOST_USER_SET_VRING_BASE, 1, 7)
		       ?: vhost_user_set_addr(vu, &addr)
		       ?: vhost_user_set_ring_fd(vu, VHOST_USER_SET_VRING_CALL, 1, t->event)
		       ?: vhost_user_set_ring_fd(vu, VHOST_USER_SET_VRING_ERR, 1, t->event)
		       ?: vhost_user_set_ring_fd(vu, VHOST_USER_SET_VRING_KICK, 1, t->event)
		       ?: vhost_user_set_ring(vu, VHOST_USER_SET_VRING_ENABLE, 1, 1)
		       ?: vhost_user_get_base(vu, 1, &num)
		       ?: vhost_user_send(vu, VHOST_USER_RESET_DEVICE);
}

START_TEST(negotiates)
{
	struct hako_error err = {0};
	struct talk t = {0};
	uint32_t num = 0;

	peer_init(&t.p);
	if (_i) /* as the first back ends were */
		t.p.features &= ~BIT64(VHOST_USER_F_PROTOCOL_FEATURES);
	ck_assert_msg(!talk_open(&t, &err), "%s", err.message);
	ck_assert_uint_eq(t.vu.features, t.p.features);
	ck_assert_uint_eq(t.vu.protocol, _i ? 0 : WANTED);
	ck_assert_uint_eq(t.vu.queues, _i ? 1 : PEER_RINGS / 2);
	if (!_i) {
		ck_assert_uint_eq(t.p.got_protocol, WANTED);
		ck_assert_int_eq(talk_all(&t), 0);
		ck_assert_uint_eq(t.p.got_mtu, 1500);
		ck_assert_uint_eq(t.p.inflight_came, 1);
		ck_assert_uint_eq(t.p.ring[1].num, 64);
		ck_assert_int_eq(vhost_user_set_ring(&t.vu, VHOST_USER_SET_VRING_BASE, 1, 9), 0);
		ck_assert_int_eq(vhost_user_get_base(&t.vu, 1, &num), 0);
		ck_assert_uint_eq(num, 9);
	} else {
		/* the answer to something else says that it has come */
		ck_assert_int_eq(vhost_user_set_memory(&t.vu, &t.vm->mem), 0);
		ck_assert_uint_eq(t.p.nregions, 1);
	}
	ck_assert_uint_eq(t.p.seen[VHOST_USER_SET_OWNER], 1);
	vhost_user_check(&t.vu);
	ck_assert_str_eq(t.why, "");
	talk_close(&t);
}
END_TEST

static const uint32_t asked[] = {
	VHOST_USER_GET_FEATURES,     VHOST_USER_GET_PROTOCOL_FEATURES,
	VHOST_USER_SET_OWNER,	     VHOST_USER_GET_QUEUE_NUM,
	VHOST_USER_SET_STATUS,	     VHOST_USER_GET_STATUS,
	VHOST_USER_SET_FEATURES,     VHOST_USER_SET_MEM_TABLE,
	VHOST_USER_NET_SET_MTU,	     VHOST_USER_GET_CONFIG,
	VHOST_USER_GET_INFLIGHT_FD,  VHOST_USER_SET_INFLIGHT_FD,
	VHOST_USER_SET_VRING_NUM,    VHOST_USER_SET_VRING_BASE,
	VHOST_USER_SET_VRING_ADDR,   VHOST_USER_SET_VRING_CALL,
	VHOST_USER_SET_VRING_ERR,    VHOST_USER_SET_VRING_KICK,
	VHOST_USER_SET_VRING_ENABLE, VHOST_USER_GET_VRING_BASE,
	VHOST_USER_RESET_DEVICE,
};

static bool is_get(uint32_t request)
{
	return !strncmp(vhost_user_name(request), "GET_", 4);
}

/* Any value is as good as another in these. */
static bool no_lie(uint32_t request, enum peer_lie lie)
{
	if (request == VHOST_USER_GET_CONFIG && lie == PEER_EMPTY)
		return true;
	if (lie == PEER_VALUE)
		return is_get(request) && request != VHOST_USER_GET_VRING_BASE &&
		       request != VHOST_USER_GET_CONFIG;
	return lie == PEER_REFUSES && is_get(request) && request != VHOST_USER_GET_VRING_BASE;
}

/* Each reply wrong in each way: one error, in time, and nothing is left. */
START_TEST(lies)
{
	uint32_t request = asked[_i];

	for (enum peer_lie lie = PEER_HONEST + 1; lie < PEER_LIES; lie++) {
		unsigned int fds = open_fds();
		struct hako_error err = {0};
		struct talk t = {0};
		uint64_t begin;
		bool opened;
		int ret;

		if (no_lie(request, lie))
			continue;
		peer_init(&t.p);
		t.p.lie = lie;
		t.p.lie_to = request;
		begin = clock_now();
		opened = !talk_open(&t, &err);
		ret = opened ? talk_all(&t) : -1;
		/* An index of 1 is what the ring has. */
		if (!(request == VHOST_USER_GET_VRING_BASE && lie == PEER_REFUSES))
			ck_assert_msg(ret < 0, "%s, lie %d", vhost_user_name(request), lie);
		ck_assert_uint_lt(clock_now() - begin, 2 * NSEC_PER_SEC);
		if (opened && ret) {
			ck_assert_str_ne(t.why, "");
			ck_assert(!vhost_user_connected(&t.vu));
			ck_assert_int_eq(talk_all(&t), -ENOTCONN);
			vhost_user_check(&t.vu);
		} else if (!opened) {
			ck_assert_str_ne(err.message, "");
			ck_assert_int_eq(t.vu.fd, -1);
		}
		talk_close(&t);
		ck_assert_uint_eq(open_fds(), fds);
	}
}
END_TEST

START_TEST(unasked)
{
	struct hako_error err;
	struct talk t = {0};

	peer_init(&t.p);
	ck_assert_int_eq(talk_open(&t, &err), 0);
	if (_i)
		ck_assert_int_eq(write(t.p.fd, "x", 1), 1);
	else
		shutdown(t.p.fd, SHUT_RDWR);
	for (int i = 0; i < 1000 && !t.why[0]; i++) {
		vhost_user_check(&t.vu);
		usleep(1000);
	}
	ck_assert_str_eq(t.why,
			 _i ? "the back end has sent something unasked" : "the back end is gone");
	talk_close(&t);
}
END_TEST

/* A back end without a configuration space may say so. */
START_TEST(no_config)
{
	struct hako_error err;
	struct talk t = {0};
	uint8_t buf[2];

	peer_init(&t.p);
	ck_assert_int_eq(talk_open(&t, &err), 0);
	t.p.lie = PEER_EMPTY;
	t.p.lie_to = VHOST_USER_GET_CONFIG;
	ck_assert_int_eq(vhost_user_get_config(&t.vu, 10, buf, 2), -EIO);
	ck_assert(vhost_user_connected(&t.vu));
	talk_close(&t);
}
END_TEST

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

static TCase *protocol_tests(void)
{
	TCase *t = tcase_create("protocol");

	tcase_add_loop_test(t, negotiates, 0, 2);
	tcase_add_loop_test(t, lies, 0, ARRAY_SIZE(asked));
	tcase_add_loop_test(t, unasked, 0, 2);
	tcase_add_test(t, no_config);
	tcase_set_timeout(t, 60);
	return t;
}

int main(void)
{
	Suite *s = suite_create("vhost_user");
	TCase *t = tcase_create("cards");
	SRunner *sr;
	int failed;

	suite_add_tcase(s, protocol_tests());
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
	tcase_add_test(t, too_late);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
