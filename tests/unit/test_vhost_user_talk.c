/* SPDX-License-Identifier: GPL-2.0-only */
/* vhost-user, the messages: honest answers, and every kind of wrong one to every request. */
#include <dirent.h>

#include "vhost_peer.h"
#include "suite.h"
#include "vmm/vm.h"

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

int main(void)
{
	Suite *s = suite_create("vhost_user_talk");
	TCase *t = tcase_create("protocol");

	tcase_add_loop_test(t, negotiates, 0, 2);
	tcase_add_loop_test(t, lies, 0, ARRAY_SIZE(asked));
	tcase_add_loop_test(t, unasked, 0, 2);
	tcase_add_test(t, no_config);
	tcase_set_timeout(t, 60);
	suite_add_tcase(s, t);
	return run_suite(s);
}
