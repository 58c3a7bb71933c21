/* SPDX-License-Identifier: GPL-2.0-only */
/* The network card served by the kernel's vhost-net, where there is one (in the lab), over a tap of the test's own. */
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/socket.h>

#include "virtio/net.h"
#include "virtio_net_rig.h"

#define TEST_TYPE 0x88b5 /* IEEE 802: for local experiments */

struct real_rig {
	struct rig r;
	int socket; /* on the tap: the host's end */
};

static int packet_socket(const char *name)
{
	struct sockaddr_ll sa = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(TEST_TYPE),
				 .sll_ifindex = if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(TEST_TYPE));
	struct timeval limit = {.tv_sec = 5};

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static void real_open(struct real_rig *v, const char *options)
{
	struct hako_error err = {0};
	struct keyvals kv = {0};

	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
	memset(v, 0, sizeof(*v));
	vdrv_new(&v->r.drv, RAM);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_msg(!object_new(v->r.drv.vm, class_find(CLASS_NETDEV, "tap"), &kv, NULL, &err),
		      "%s", err.message);
	keyvals_free(&kv);
	ck_assert_msg(!vdrv_device(&v->r.drv, "virtio-net-device", "netdev=n", &err), "%s",
		      err.message);
	v->r.card = v->r.drv.obj;
	v->socket = packet_socket("hk0");
	bring_up_queues(&v->r, F(CTRL_VQ) | F(MRG_RXBUF), 64, 3);
	ck_assert(((struct virtio_net *)v->r.card)->pair[0].by_vhost);
	ck_assert(v->r.drv.vdev->vq[RX].served && v->r.drv.vdev->vq[TX].served);
}

static void real_close(struct real_rig *v)
{
	rig_close(&v->r);
	close(v->socket);
}

static void make_frame(uint8_t *f, size_t len, uint32_t seed)
{
	fill(f, len, seed);
	memset(f, 0xff, 6);
	memset(f + 6, 0x02, 6);
	f[12] = TEST_TYPE >> 8;
	f[13] = TEST_TYPE & 0xff;
}

/* A frame each way; the buffer that was received into. */
static uint64_t real_exchange(struct real_rig *v, uint32_t seed)
{
	struct rig *r = &v->r;
	uint64_t gpa = vdrv_alloc(&r->drv, 400);
	uint8_t frame[200], got[2000];
	uint32_t head, len;

	make_frame(frame, sizeof(frame), seed);
	memcpy(ram(r, gpa + HDR), frame, sizeof(frame));
	add(r, TX, (struct buf[]){{gpa, HDR, false}, {gpa + HDR, sizeof(frame), false}}, 2);
	kick(r, TX);
	ck_assert(used(r, TX, &head, &len, 5000));
	ck_assert_int_eq(recv(v->socket, got, sizeof(got), 0), sizeof(frame));
	ck_assert_mem_eq(got, frame, sizeof(frame));
	/* The kernel speaks on new interfaces of its own accord. */
	for (;;) {
		gpa = vdrv_alloc(&r->drv, 4096);
		add(r, RX, (struct buf[]){{gpa, 2048, true}}, 1);
		kick(r, RX);
		if (used(r, RX, &head, &len, 10)) {
			gpa = r->q[RX].desc[head].addr;
			if (len == HDR + sizeof(frame) &&
			    !memcmp(ram(r, gpa + HDR), frame, sizeof(frame)))
				return gpa;
			continue;
		}
		ck_assert_int_eq(send(v->socket, frame, sizeof(frame), 0), sizeof(frame));
	}
}

START_TEST(handover)
{
	struct virtqueue *vq;
	struct real_rig v;

	real_open(&v, _i ? "id=n,ifname=hk0,vhost=on,vnet_hdr=off" : "id=n,ifname=hk0,vhost=on");
	vq = v.r.drv.vdev->vq;
	for (unsigned int i = 0; i < 20; i++) {
		vdrv_write(&v.r.drv, VIRTIO_MMIO_INTERRUPT_ACK, 3);
		real_exchange(&v, i);
		VDRV_UNTIL(vdrv_read(&v.r.drv, VIRTIO_MMIO_INTERRUPT_STATUS) & 1);
		v.r.card->class->pause(v.r.card);
		ck_assert(!vq[RX].served && !vq[TX].served);
		ck_assert_uint_eq(vq[TX].last_avail, v.r.q[TX].avail_idx);
		ck_assert_uint_eq(vq[TX].used_idx, v.r.q[TX].used->idx);
		ck_assert_uint_eq(vq[RX].used_idx, v.r.q[RX].used->idx);
		ck_assert_uint_eq(vq[RX].last_avail, vq[RX].used_idx);
		v.r.card->class->resume(v.r.card);
		ck_assert(vq[RX].served && vq[TX].served);
		if (i == 10) {
			bring_up_queues(&v.r, F(CTRL_VQ) | F(MRG_RXBUF), 64, 3);
			ck_assert(vq[RX].served && vq[TX].served);
		}
	}
	real_close(&v);
}
END_TEST

START_TEST(bad_chain)
{
	struct real_rig v;

	real_open(&v, "id=n,ifname=hk0,vhost=on");
	real_exchange(&v, 1);
	add(&v.r, TX, (struct buf[]){{RAM + 4096, 400, false}}, 1);
	kick(&v.r, TX);
	ck_assert(broken(&v.r));
	VDRV_UNTIL(!v.r.drv.vdev->vq[RX].served && !v.r.drv.vdev->vq[TX].served);
	bring_up_queues(&v.r, F(CTRL_VQ) | F(MRG_RXBUF), 64, 3);
	real_exchange(&v, 2);
	real_close(&v);
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

START_TEST(dirty_log)
{
	static uint8_t bitmap[RAM / 4096 / 8];
	struct virtio_net *net;
	struct log_call c;
	struct real_rig v;
	uint64_t gpa;

	real_open(&v, "id=n,ifname=hk0,vhost=on");
	net = (struct virtio_net *)v.r.card;
	for (int i = 0; i < 3; i++) {
		c = (struct log_call){&net->pair[0].vhost->dev, bitmap, -1};
		memset(bitmap, 0, sizeof(bitmap));
		loop_call(net->pair[0].loop, log_in_loop, &c);
		ck_assert_int_eq(c.ret, 0);
		gpa = real_exchange(&v, i);
		ck_assert(bitmap[gpa / 4096 / 8] & BIT(gpa / 4096 % 8));
		ck_assert(bitmap[v.r.q[RX].used_gpa / 4096 / 8] &
			  BIT(v.r.q[RX].used_gpa / 4096 % 8));
		if (i == 1) {
			v.r.card->class->pause(v.r.card);
			v.r.card->class->resume(v.r.card);
		}
		c.bitmap = NULL;
		loop_call(net->pair[0].loop, log_in_loop, &c);
		ck_assert_int_eq(c.ret, 0);
		memset(bitmap, 0, sizeof(bitmap));
		real_exchange(&v, i);
		for (size_t k = 0; k < sizeof(bitmap); k++)
			ck_assert_uint_eq(bitmap[k], 0);
	}
	real_close(&v);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhost_kernel");
	TCase *t = tcase_create("all");
	SRunner *sr;
	int failed;

	if (access("/dev/vhost-net", R_OK | W_OK) || access("/dev/net/tun", R_OK | W_OK) ||
	    geteuid()) {
		printf("skip unit/vhost_kernel needs root, /dev/vhost-net and /dev/net/tun\n");
		fflush(stdout);
	} else {
		tcase_add_loop_test(t, handover, 0, 2);
		tcase_add_test(t, bad_chain);
		tcase_add_test(t, dirty_log);
	}
	tcase_set_timeout(t, 120);
	suite_add_tcase(s, t);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
