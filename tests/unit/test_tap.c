/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "tap", against the kernel's own interfaces, in a network namespace of the test's own. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fake_card.h"

#define TEST_TYPE 0x88b5 /* IEEE 802: for local experiments */

static const enum loop_engine engines[] = {LOOP_AUTO, LOOP_THREADS};

static void own_network(void)
{
	ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
}

static int ifreq_call(unsigned long request, const char *name, struct ifreq *ifr)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), ret;

	snprintf(ifr->ifr_name, IFNAMSIZ, "%s", name);
	ret = ioctl(fd, request, ifr);
	close(fd);
	return ret;
}

static bool is_up(const char *name)
{
	struct ifreq ifr = {0};

	ck_assert_int_eq(ifreq_call(SIOCGIFFLAGS, name, &ifr), 0);
	return ifr.ifr_flags & IFF_UP;
}

static void set_address(const char *name, const char *addr)
{
	struct ifreq ifr = {0};
	struct sockaddr_in *sa = (struct sockaddr_in *)&ifr.ifr_addr;

	sa->sin_family = AF_INET;
	ck_assert_int_eq(inet_pton(AF_INET, addr, &sa->sin_addr), 1);
	ck_assert_int_eq(ifreq_call(SIOCSIFADDR, name, &ifr), 0);
}

/* A socket that sees and sends the frames of our type on that interface. */
static int packet_socket(const char *name)
{
	struct sockaddr_ll sa = {.sll_family = AF_PACKET,
				 .sll_protocol = htons(TEST_TYPE),
				 .sll_ifindex = if_nametoindex(name)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(TEST_TYPE));

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

static void make_frame(uint8_t *f, size_t len, uint8_t seed)
{
	for (size_t i = 0; i < len; i++)
		f[i] = seed + i * 7;
	memset(f, 0xff, 6);
	memset(f + 6, 0x02, 6);
	f[12] = TEST_TYPE >> 8;
	f[13] = TEST_TYPE & 0xff;
}

/* The next frame of a type; the kernel speaks on new interfaces of its own accord. */
static struct card_frame *next_of(struct card *c, unsigned int type)
{
	for (;;) {
		struct card_frame *f = card_next(c, 5000);

		ck_assert_msg(f, "no frame of type 0x%04x", type);
		if (f->len >= 14 && f->data[12] == type >> 8 && f->data[13] == (type & 0xff))
			return f;
		free(f);
	}
}

static const char *const both[] = {"ifname=hk0", "ifname=hk0,vnet_hdr=off",
				   "ifname=hk0,script=no,downscript=no,vnet_hdr=on"};

START_TEST(both_ways)
{
	struct card c = {.engine = engines[_i % 2]};
	uint8_t out[1514], in[2000];
	int fd;

	own_network();
	card_open(&c, "tap", both[_i / 2]);
	ck_assert(is_up("hk0"));
	ck_assert_int_eq(c.net->vnet_hdr, _i / 2 != 1);
	ck_assert_int_eq(c.net->offloads.csum, _i / 2 != 1);
	fd = packet_socket("hk0");
	for (int i = 0; i < 300; i++) {
		size_t len = 60 + i * 131 % (sizeof(out) - 59);
		struct card_frame *f;

		make_frame(out, len, i);
		ck_assert_int_eq(card_send(&c, out, len), len + CARD_HDR);
		ck_assert_int_eq(recv(fd, in, sizeof(in), 0), len);
		ck_assert_mem_eq(in, out, len);
		make_frame(out, len, ~i);
		ck_assert_int_eq(send(fd, out, len, 0), len);
		f = next_of(&c, TEST_TYPE);
		ck_assert_uint_eq(f->len, len);
		ck_assert_mem_eq(f->data, out, len);
		ck_assert_uint_eq(f->hdr[0] | f->hdr[1], 0);
		free(f);
	}
	close(fd);
	card_close(&c);
	ck_assert_uint_eq(if_nametoindex("hk0"), 0);
}
END_TEST

#define MANY 100

struct many {
	struct card *c;
	struct loop_packet packet[MANY];
	struct iovec iov[MANY][2];
	uint8_t hdr[CARD_HDR], frame[MANY][1514];
};

static void send_many(void *arg)
{
	struct many *m = arg;

	m->c->net->ops->send_packets(m->c->net, 0, m->packet, MANY);
}

/* Many at a time, all in order; and none when the interface is down, or gone. */
START_TEST(together)
{
	struct card c = {.engine = engines[_i % 2]};
	static struct many m;
	struct ifreq ifr = {0};
	uint8_t in[2000];
	int fd;

	own_network();
	card_open(&c, "tap", both[_i / 2]);
	fd = packet_socket("hk0");
	m.c = &c;
	for (int i = 0; i < MANY; i++) {
		size_t len = 60 + i * 131 % (sizeof(m.frame[i]) - 59);

		make_frame(m.frame[i], len, i);
		m.iov[i][0] = (struct iovec){m.hdr, CARD_HDR};
		m.iov[i][1] = (struct iovec){m.frame[i], len};
		m.packet[i] = (struct loop_packet){m.iov[i], 2, 0};
	}
	loop_call(c.loop, send_many, &m);
	for (int i = 0; i < MANY; i++) {
		ck_assert_int_eq(m.packet[i].res, CARD_HDR + m.iov[i][1].iov_len);
		ck_assert_int_eq(recv(fd, in, sizeof(in), 0), m.iov[i][1].iov_len);
		ck_assert_mem_eq(in, m.frame[i], m.iov[i][1].iov_len);
	}
	close(fd);
	ck_assert_int_eq(ifreq_call(SIOCGIFFLAGS, "hk0", &ifr), 0);
	ifr.ifr_flags &= ~IFF_UP;
	ck_assert_int_eq(ifreq_call(SIOCSIFFLAGS, "hk0", &ifr), 0);
	loop_call(c.loop, send_many, &m);
	for (int i = 0; i < MANY; i++)
		ck_assert_int_eq(m.packet[i].res, -EIO);
	ck_assert_uint_eq(c.writables, 0);
	card_close(&c);
}
END_TEST

/* A card that has no buffers for a while misses what overflows the interface's queue, and nothing afterwards. */
START_TEST(stalled)
{
	struct card c = {.engine = engines[_i], .stalled = true};
	uint8_t out[100];
	int fd;

	own_network();
	card_open(&c, "tap", "ifname=hk0");
	fd = packet_socket("hk0");
	for (int round = 0; round < 5; round++) {
		unsigned int had = c.nframes;

		for (int i = 0; i < 50; i++) {
			make_frame(out, sizeof(out), i);
			ck_assert_int_eq(send(fd, out, sizeof(out), 0), sizeof(out));
		}
		ck_assert(!c.stalled || c.nframes == had);
		card_go(&c);
		for (int i = 0; i < 50; i++) {
			struct card_frame *f = next_of(&c, TEST_TYPE);

			ck_assert_uint_eq(f->data[20], (uint8_t)(i + 140));
			free(f);
		}
		if (round % 2)
			continue;
		c.stalled = true;
		loop_call(c.loop, card_pause_in_loop, &c);
	}
	close(fd);
	card_close(&c);
}
END_TEST

static void send_datagram(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0), on = 1;

	inet_pton(AF_INET, "10.255.255.255", &sa.sin_addr);
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof(on));
	ck_assert_int_eq(sendto(fd, "0123456789", 10, 0, (struct sockaddr *)&sa, sizeof(sa)), 10);
	close(fd);
}

/* A datagram of ours, with the sum of its UDP checksum: 0xffff if it is right (RFC 768). */
static struct card_frame *next_datagram(struct card *c, uint32_t *sum)
{
	struct card_frame *f;

	do {
		f = next_of(c, 0x0800);
	} while (f->data[23] != 17 || f->len != 14 + 20 + 8 + 10);
	*sum = 17 + 18;
	for (size_t i = 14 + 12; i < f->len; i += 2)
		*sum += f->data[i] << 8 | f->data[i + 1];
	while (*sum >> 16)
		*sum = (*sum & 0xffff) + (*sum >> 16);
	return f;
}

START_TEST(offloads)
{
	const struct net_offloads on = {.csum = true, .tso4 = true}, off = {0};
	struct card c = {.engine = engines[_i]};
	struct card_frame *f;
	uint32_t sum;

	own_network();
	card_open(&c, "tap", "ifname=hk0");
	ck_assert(c.net->offloads.csum && c.net->offloads.tso4 && c.net->offloads.tso6);
	set_address("hk0", "10.9.9.1");
	send_datagram();
	f = next_datagram(&c, &sum);
	ck_assert_uint_eq(f->hdr[0], 0);
	ck_assert_uint_eq(sum, 0xffff);
	free(f);
	ck_assert_int_eq(c.net->ops->set_offloads(c.net, &on), 0);
	send_datagram();
	f = next_datagram(&c, &sum);
	ck_assert_uint_eq(f->hdr[0], 1); /* VIRTIO_NET_HDR_F_NEEDS_CSUM */
	ck_assert_uint_eq(f->hdr[6] | f->hdr[7] << 8, 34);
	ck_assert_uint_eq(f->hdr[8] | f->hdr[9] << 8, 6);
	free(f);
	ck_assert_int_eq(c.net->ops->set_offloads(c.net, &off), 0);
	send_datagram();
	f = next_datagram(&c, &sum);
	ck_assert_uint_eq(f->hdr[0], 0);
	ck_assert_uint_eq(sum, 0xffff);
	free(f);
	card_close(&c);
}
END_TEST

static int open_tap(const char *name, short flags)
{
	struct ifreq ifr = {.ifr_flags = flags};
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ioctl(fd, TUNSETIFF, &ifr), 0);
	return fd;
}

START_TEST(passed_fd)
{
	struct card c = {0};
	struct ifreq ifr = {.ifr_flags = IFF_UP};
	struct card_frame *f;
	char options[40];
	uint8_t out[100];
	int fd, tap;

	own_network();
	tap = open_tap("hk1", IFF_TAP | IFF_NO_PI | (_i ? IFF_VNET_HDR : 0));
	ck_assert_int_eq(ifreq_call(SIOCSIFFLAGS, "hk1", &ifr), 0);
	snprintf(options, sizeof(options), "fd=%d", tap);
	card_open(&c, "tap", options);
	ck_assert_int_eq(c.net->vnet_hdr, _i);
	fd = packet_socket("hk1");
	make_frame(out, sizeof(out), 1);
	ck_assert_int_eq(send(fd, out, sizeof(out), 0), sizeof(out));
	f = next_of(&c, TEST_TYPE);
	ck_assert_uint_eq(f->len, sizeof(out));
	free(f);
	close(fd);
	card_close(&c);
}
END_TEST

static int try_tap(const char *options, struct hako_error *err)
{
	struct object *obj;
	struct vm *vm;
	int ret;

	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, err), 0);
	ret = card_netdev(vm, "tap", options, &obj, err);
	vm_free_plain(vm);
	return ret;
}

/* The second queue, in the loop. */
struct second {
	struct card *c;
	uint8_t *frame;
	size_t len;
	ssize_t ret;
};

static void second_start(void *arg)
{
	struct second *s = arg;

	s->ret = s->c->net->ops->start(s->c->net, 1, s->c->loop, NULL);
	s->c->net->ops->recv_enable(s->c->net, 1, true);
}

static void second_stop(void *arg)
{
	struct second *s = arg;

	s->c->net->ops->stop(s->c->net, 1);
}

static void second_send(void *arg)
{
	struct second *s = arg;
	uint8_t hdr[CARD_HDR] = {0};
	struct iovec iov[2] = {{hdr, sizeof(hdr)}, {s->frame, s->len}};

	s->ret = s->c->net->ops->send(s->c->net, 1, iov, 2);
}

static void second_count(void *arg)
{
	struct second *s = arg;
	struct iovec iov = {s->frame, s->len};

	s->ret = 0;
	while (s->c->net->ops->recv(s->c->net, 1, &iov, 1) > 0)
		s->ret++;
}

/* Frames from the host, which chooses a queue for each flow: what comes, over either queue. */
static unsigned int count_frames(struct card *c, struct second *s, int fd, uint8_t *out, size_t len)
{
	unsigned int before = c->nframes;

	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(send(fd, out, len, 0), len);
	usleep(20000);
	loop_call(c->loop, second_count, s);
	return c->nframes - before + s->ret;
}

START_TEST(several_queues)
{
	struct card c = {0};
	uint8_t out[100], in[2000];
	struct second s = {&c, in, sizeof(in), 0};
	int fd;

	own_network();
	card_open(&c, "tap", _i ? "ifname=hk0,queues=2,vnet_hdr=off" : "ifname=hk0,queues=2");
	ck_assert_uint_eq(c.net->queues, 2);
	fd = packet_socket("hk0");
	make_frame(out, sizeof(out), 1);
	/* Only the first one is in use: nothing gets lost in the other. */
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(send(fd, out, sizeof(out), 0), sizeof(out));
	for (int i = 0; i < 50; i++)
		free(next_of(&c, TEST_TYPE));
	for (int round = 0; round < 3; round++) {
		loop_call(c.loop, second_start, &s);
		ck_assert_int_eq(s.ret, 0);
		s.frame = out;
		s.len = sizeof(out);
		loop_call(c.loop, second_send, &s);
		ck_assert_int_eq(s.ret, CARD_HDR + sizeof(out));
		ck_assert_int_eq(recv(fd, in, sizeof(in), 0), sizeof(out));
		ck_assert_mem_eq(in, out, sizeof(out));
		s.frame = in;
		s.len = sizeof(in);
		ck_assert_uint_ge(count_frames(&c, &s, fd, out, sizeof(out)), 50);
		loop_call(c.loop, second_stop, &s);
		loop_call(c.loop, second_count, &s);
		ck_assert_uint_ge(count_frames(&c, &s, fd, out, sizeof(out)), 50);
		ck_assert_int_eq(s.ret, 0);
	}
	close(fd);
	card_close(&c);
}
END_TEST

START_TEST(passed_fds)
{
	struct hako_error err = {0};
	struct card c = {0};
	char options[40];
	int a, b, other;

	own_network();
	a = open_tap("hk1", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
	b = open_tap("hk1", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE);
	other = open_tap("hk2", IFF_TAP | IFF_NO_PI);
	snprintf(options, sizeof(options), "fds=%d:%d", a, other);
	ck_assert_int_eq(try_tap(options, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "one interface"));
	a = open_tap("hk1", IFF_TAP | IFF_NO_PI | IFF_MULTI_QUEUE); /* has been closed */
	snprintf(options, sizeof(options), "fds=%d:%d", a, b);
	card_open(&c, "tap", options);
	ck_assert_uint_eq(c.net->queues, 2);
	card_close(&c);
}
END_TEST

static bool has_carrier(const char *name)
{
	struct ifreq ifr = {0};

	ck_assert_int_eq(ifreq_call(SIOCGIFFLAGS, name, &ifr), 0);
	return ifr.ifr_flags & IFF_RUNNING;
}

START_TEST(carrier)
{
	struct card c = {0};

	own_network();
	card_open(&c, "tap", "ifname=hk0");
	for (int i = 0; i < 3; i++) {
		c.net->ops->set_link(c.net, i % 2);
		for (int n = 0; n < 500 && has_carrier("hk0") != i % 2; n++)
			usleep(10000); /* the kernel takes its time */
		ck_assert_int_eq(has_carrier("hk0"), i % 2);
	}
	card_close(&c);
}
END_TEST

START_TEST(named_by_the_kernel)
{
	struct card c = {0};

	own_network();
	card_open(&c, "tap", "");
	ck_assert_uint_ne(if_nametoindex("tap0"), 0);
	card_close(&c);
}
END_TEST

START_TEST(bridge)
{
	struct card c = {0};
	struct ifreq ifr = {0};
	char name[] = "hkbr0";
	int fd;

	own_network();
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (ioctl(fd, SIOCBRADDBR, name)) {
		printf("tap: bridge not tested: no bridges in this kernel\n");
		return;
	}
	close(fd);
	card_open(&c, "tap", "ifname=hk0,br=hkbr0");
	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", name);
	/* A port of a bridge can not become that of another. */
	ifr.ifr_ifindex = if_nametoindex("hk0");
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	ck_assert_int_eq(ioctl(fd, SIOCBRADDIF, &ifr), -1);
	ck_assert_int_eq(errno, EBUSY);
	close(fd);
	card_close(&c);
}
END_TEST

/* --- errors ------------------------------------------------------------------------------------ */

static const struct {
	const char *options;
	int ret;
	const char *names;
} bad[] = {
	{"ifname=abcdefghijklmnop", -EINVAL, "ifname=abcdefghijklmnop"},
	{"ifname=a/b", -EINVAL, "ifname="},
	{"ifname=a%s", -EINVAL, "ifname="},
	{"ifname=a:b", -EINVAL, "not a name"},
	{"ifname=a b", -EINVAL, "not a name"},
	{"ifname=.", -EINVAL, "not a name"},
	{"ifname=..", -EINVAL, "not a name"},
	{"ifname=lo", -EINVAL, "not a tap"},
	{"ifname=hk5", -EBUSY, "in use"},
	{"ifname=hk6", -EINVAL, "not a tap"}, /* a tun */
	{"ifname=hk0,script=/etc/qemu-ifup", -EINVAL, "script="},
	{"ifname=hk0,downscript=/bin/true", -EINVAL, "downscript="},
	{"ifname=hk0,br=nosuch", -ENODEV, "br=nosuch"},
	{"ifname=hk0,br=lo", -EOPNOTSUPP, "br=lo"},
	{"fd=999", -EBADF, "fd=999"},
	{"fd=x", -EINVAL, "fd=x"},
	{"fd=3:4", -EINVAL, "fds"},
	{"fd=0", -EINVAL, "not a tap"},
	{"fd=3,ifname=hk0", -EINVAL, "ifname"},
	{"fd=3,fds=3:4", -EINVAL, "exclude"},
	{"fds=", -EINVAL, "fd"},
	{"ifname=hk0,queues=0", -ERANGE, "queues"},
	{"ifname=hk0,vhostfd=x", -EINVAL, "vhostfd=x"},
	{"ifname=hk0,vhostfd=999", -EBADF, "vhostfd=999"},
	{"ifname=hk0,vhostfd=0,vhost=off", -EINVAL, "vhost=off"},
	{"ifname=hk0,vhostfd=0,vhostfds=0", -EINVAL, "exclude"},
	{"ifname=hk0,queues=2,vhostfds=0", -EINVAL, "fewer"},
	{"ifname=hk0,queues=2,vhostfds=0:0", -EINVAL, "twice"},
	{"ifname=hk0,vhostfds=0:5", -EINVAL, "more"},
	{"ifname=hk0,queues=1000", -ERANGE, "queues"},
};

START_TEST(bad_options)
{
	struct hako_error err = {0};
	int tap, tun, null, ret;

	own_network();
	null = open("/dev/null", O_RDWR);
	dup2(null, 0);
	close(null);
	tap = open_tap("hk5", IFF_TAP | IFF_NO_PI);
	tun = open_tap("hk6", IFF_TUN | IFF_NO_PI);
	ret = try_tap(bad[_i].options, &err);
	ck_assert_msg(strstr(err.message, bad[_i].names), "%s: \"%s\"", bad[_i].options,
		      err.message);
	ck_assert_ptr_null(strchr(err.message, '\n'));
	if (bad[_i].ret == -ERANGE)
		ck_assert_int_lt(ret, 0);
	else
		ck_assert_msg(ret == bad[_i].ret, "%s: %d: %s", bad[_i].options, ret, err.message);
	ck_assert_uint_eq(if_nametoindex("hk0"), 0);
	close(tap);
	close(tun);
}
END_TEST

/* Where the kernel has no vhost-net, that is an error only if it was asked for. */
START_TEST(no_vhost)
{
	struct hako_error err = {0};

	if (!access("/dev/vhost-net", F_OK))
		return;
	own_network();
	ck_assert_int_eq(try_tap("ifname=hk0,vhost=on", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "vhost=on: /dev/vhost-net"));
	ck_assert_ptr_nonnull(strstr(err.message, "modprobe"));
	ck_assert_int_eq(try_tap("ifname=hk0", &err), 0);
}
END_TEST

START_TEST(no_permission)
{
	struct __user_cap_header_struct hdr = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	struct hako_error err = {0};

	own_network();
	ck_assert_int_eq(syscall(SYS_capget, &hdr, data), 0);
	data[0].effective &= ~(1u << CAP_NET_ADMIN);
	data[0].permitted &= ~(1u << CAP_NET_ADMIN);
	ck_assert_int_eq(syscall(SYS_capset, &hdr, data), 0);
	ck_assert_int_eq(try_tap("ifname=hk0", &err), -EPERM);
	ck_assert_ptr_nonnull(strstr(err.message, "ifname=hk0"));
	ck_assert_ptr_nonnull(strstr(err.message, "CAP_NET_ADMIN"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("tap");
	TCase *t = tcase_create("packets"), *e = tcase_create("errors");
	SRunner *sr;
	int failed;

	if (geteuid() || access("/dev/net/tun", R_OK | W_OK)) {
		printf("tap: skipped: needs root and /dev/net/tun\n");
		return 0;
	}
	tcase_add_loop_test(t, both_ways, 0, 2 * ARRAY_SIZE(both));
	tcase_add_loop_test(t, together, 0, 2 * ARRAY_SIZE(both));
	tcase_add_loop_test(t, stalled, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, offloads, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, passed_fd, 0, 2);
	tcase_add_loop_test(t, several_queues, 0, 2);
	tcase_add_test(t, passed_fds);
	tcase_add_test(t, carrier);
	tcase_add_test(t, named_by_the_kernel);
	tcase_add_test(t, bridge);
	tcase_set_timeout(t, 60);
	tcase_add_loop_test(e, bad_options, 0, ARRAY_SIZE(bad));
	tcase_add_test(e, no_vhost);
	tcase_add_test(e, no_permission);
	suite_add_tcase(s, t);
	suite_add_tcase(s, e);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
