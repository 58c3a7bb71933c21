/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "user", as a guest and as the host see it. Formats are those of RFC 791, 793, 826, 2131 and 2132. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fake_card.h"

static const enum loop_engine engines[] = {LOOP_AUTO, LOOP_THREADS};

static const uint8_t guest_mac[6] = {0x52, 0x54, 0x00, 0x12, 0x34, 0x56};
static const uint8_t router_mac[6] = {0x52, 0x55, 0x0a, 0x00, 0x02, 0x02};
static const uint8_t guest_ip[4] = {10, 0, 2, 15};
static const uint8_t router_ip[4] = {10, 0, 2, 2};

static void put16(uint8_t *p, unsigned int v)
{
	p[0] = v >> 8;
	p[1] = v;
}

static unsigned int get16(const uint8_t *p)
{
	return p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v & 0xffff);
}

/* RFC 1071, over what has been summed before. */
static uint32_t sum16(const uint8_t *p, size_t len, uint32_t sum)
{
	for (size_t i = 0; i < len; i++)
		sum += i % 2 ? p[i] : p[i] << 8;
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static void ether(uint8_t *f, const uint8_t *dst, unsigned int type)
{
	memcpy(f, dst, 6);
	memcpy(f + 6, guest_mac, 6);
	put16(f + 12, type);
}

static void ip_header(uint8_t *ip, unsigned int proto, const uint8_t *src, const uint8_t *dst,
		      size_t payload)
{
	memset(ip, 0, 20);
	ip[0] = 0x45;
	put16(ip + 2, 20 + payload);
	ip[8] = 64;
	ip[9] = proto;
	memcpy(ip + 12, src, 4);
	memcpy(ip + 16, dst, 4);
	put16(ip + 10, fold(sum16(ip, 20, 0)));
}

/* The next frame for which @type (and for IP @proto) fit. */
static struct card_frame *next_of(struct card *c, unsigned int type, int proto)
{
	for (;;) {
		struct card_frame *f = card_next(c, 5000);

		ck_assert_msg(f, "no frame of type 0x%04x", type);
		ck_assert_uint_ge(f->len, 14);
		ck_assert_uint_eq(f->hdr[0] | f->hdr[1], 0); /* no flags, no GSO */
		ck_assert_uint_eq(f->hdr[10], 1);	     /* num_buffers */
		if (get16(f->data + 12) == type && (proto < 0 || f->data[14 + 9] == proto))
			return f;
		free(f);
	}
}

/* --- DHCP and ARP ------------------------------------------------------------------------------ */

static const uint8_t *dhcp_option(const struct card_frame *f, uint8_t code)
{
	for (size_t i = 14 + 20 + 8 + 240; i + 1 < f->len && f->data[i] != 255;) {
		if (!f->data[i]) {
			i++;
			continue;
		}
		if (f->data[i] == code)
			return f->data + i + 1;
		i += 2 + f->data[i + 1];
	}
	return NULL;
}

static struct card_frame *dhcp_exchange(struct card *c)
{
	static const uint8_t ones[6] = {255, 255, 255, 255, 255, 255}, zeroes[4];
	static const uint8_t options[] = {99, 130, 83, 99, 53, 1, 1, 55, 5, 1, 3, 6, 12, 15, 255};
	uint8_t f[14 + 20 + 8 + 300] = {0}, *dhcp = f + 14 + 20 + 8;
	struct card_frame *r;

	ether(f, ones, 0x0800);
	ip_header(f + 14, 17, zeroes, ones, 8 + 300);
	put16(f + 34, 68);
	put16(f + 36, 67);
	put16(f + 38, 8 + 300);
	dhcp[0] = 1;
	dhcp[1] = 1;
	dhcp[2] = 6;
	put32(dhcp + 4, 0x12345678);
	memcpy(dhcp + 28, guest_mac, 6);
	memcpy(dhcp + 236, options, sizeof(options));
	ck_assert_int_eq(card_send(c, f, sizeof(f)), sizeof(f) + CARD_HDR);
	r = next_of(c, 0x0800, 17);
	dhcp = r->data + 14 + 20 + 8;
	ck_assert_uint_eq(get16(r->data + 34), 67);
	ck_assert_uint_eq(dhcp[0], 2);
	ck_assert_uint_eq(get32(dhcp + 4), 0x12345678);
	ck_assert_ptr_nonnull(dhcp_option(r, 53));
	ck_assert_uint_eq(dhcp_option(r, 53)[1], 2); /* DHCPOFFER */
	return r;
}

static void check_address(const struct card_frame *f, uint8_t option, const char *addr)
{
	const uint8_t *o = dhcp_option(f, option);
	struct in_addr in;

	ck_assert_int_eq(inet_pton(AF_INET, addr, &in), 1);
	ck_assert_msg(o && o[0] >= 4, "no option %d", option);
	ck_assert_msg(!memcmp(o + 1, &in, 4), "option %d: %d.%d.%d.%d, not %s", option, o[1], o[2],
		      o[3], o[4], addr);
}

START_TEST(dhcp_defaults)
{
	struct card c = {.engine = engines[_i]};
	struct card_frame *f;

	card_open(&c, "user", "");
	f = dhcp_exchange(&c);
	ck_assert_mem_eq(f->data + 14 + 20 + 8 + 16, guest_ip, 4);
	check_address(f, 1, "255.255.255.0");
	check_address(f, 3, "10.0.2.2");
	check_address(f, 6, "10.0.2.3");
	check_address(f, 54, "10.0.2.2");
	ck_assert_ptr_null(dhcp_option(f, 12));
	free(f);
	card_close(&c);
}
END_TEST

START_TEST(dhcp_options)
{
	static const uint8_t first[4] = {192, 168, 77, 100};
	struct card c = {.engine = engines[_i]};
	struct card_frame *f;

	card_open(&c, "user",
		  "net=192.168.77.0/255.255.255.128,host=192.168.77.1,dns=192.168.77.5,"
		  "dhcpstart=192.168.77.100,hostname=box,domainname=example.org");
	f = dhcp_exchange(&c);
	ck_assert_mem_eq(f->data + 14 + 20 + 8 + 16, first, 4);
	check_address(f, 1, "255.255.255.128");
	check_address(f, 3, "192.168.77.1");
	check_address(f, 6, "192.168.77.5");
	ck_assert_mem_eq(dhcp_option(f, 12), "\3box", 4);
	ck_assert_mem_eq(dhcp_option(f, 15), "\13example.org", 12);
	free(f);
	card_close(&c);
}
END_TEST

static void arp_request(uint8_t f[42], const uint8_t *target)
{
	static const uint8_t ones[6] = {255, 255, 255, 255, 255, 255};
	static const uint8_t head[8] = {0, 1, 8, 0, 6, 4, 0, 1};

	memset(f, 0, 42);
	ether(f, ones, 0x0806);
	memcpy(f + 14, head, 8);
	memcpy(f + 22, guest_mac, 6);
	memcpy(f + 28, guest_ip, 4);
	memcpy(f + 38, target, 4);
}

START_TEST(arp)
{
	struct card c = {.engine = engines[_i]};
	struct card_frame *r;
	uint8_t f[42];

	card_open(&c, "user", "");
	arp_request(f, router_ip);
	ck_assert_int_eq(card_send(&c, f, sizeof(f)), sizeof(f) + CARD_HDR);
	r = next_of(&c, 0x0806, -1);
	ck_assert_mem_eq(r->data, guest_mac, 6);
	ck_assert_uint_eq(get16(r->data + 20), 2);
	ck_assert_mem_eq(r->data + 22, router_mac, 6);
	ck_assert_mem_eq(r->data + 28, router_ip, 4);
	free(r);
	card_close(&c);
}
END_TEST

/* --- TCP both ways ----------------------------------------------------------------------------- */

struct tcp {
	struct card *c;
	uint16_t sport, dport;
	uint8_t peer[4];
	uint32_t seq, ack;
};

enum {
	FIN = 1,
	SYN = 2,
	RST = 4,
	PSH = 8,
	ACK = 16,
	URG = 32
};

static void tcp_send(struct tcp *t, uint8_t flags, const void *data, size_t len)
{
	uint8_t f[14 + 40 + 1460], *tcp = f + 34, pseudo[12] = {0};

	ether(f, router_mac, 0x0800);
	ip_header(f + 14, 6, guest_ip, t->peer, 20 + len);
	memset(tcp, 0, 20);
	put16(tcp, t->sport);
	put16(tcp + 2, t->dport);
	put32(tcp + 4, t->seq);
	put32(tcp + 8, flags & ACK ? t->ack : 0);
	tcp[12] = 0x50;
	tcp[13] = flags;
	put16(tcp + 14, 65535);
	if (len)
		memcpy(tcp + 20, data, len);
	memcpy(pseudo, guest_ip, 4);
	memcpy(pseudo + 4, t->peer, 4);
	pseudo[9] = 6;
	put16(pseudo + 10, 20 + len);
	put16(tcp + 16, fold(sum16(tcp, 20 + len, sum16(pseudo, 12, 0))));
	ck_assert_int_eq(card_send(t->c, f, 54 + len), 54 + len + CARD_HDR);
	t->seq += len + !!(flags & (SYN | FIN));
}

/* The next segment that has all of @flags; its payload goes to @data. */
static size_t tcp_recv(struct tcp *t, uint8_t flags, bool payload, char *data)
{
	for (;;) {
		struct card_frame *f = next_of(t->c, 0x0800, 6);
		const uint8_t *ip = f->data + 14, *tcp = ip + (ip[0] & 15) * 4;
		size_t hdr = (ip[0] & 15) * 4 + (tcp[12] >> 4) * 4, len = get16(ip + 2) - hdr;

		ck_assert_uint_le(get16(ip + 2) + 14u, f->len);
		ck_assert_uint_eq(fold(sum16(ip, (ip[0] & 15) * 4, 0)), 0);
		ck_assert(!(tcp[13] & URG)); /* nobody here sends urgent data */
		if ((tcp[13] & flags) == flags && (len || !payload)) {
			t->dport = get16(tcp);
			t->sport = get16(tcp + 2);
			memcpy(t->peer, ip + 12, 4);
			t->ack = get32(tcp + 4) + len + !!(tcp[13] & (SYN | FIN));
			if (data)
				memcpy(data, ip + hdr, len);
			free(f);
			return len;
		}
		free(f);
	}
}

static int listener(uint16_t *port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	ck_assert_int_eq(listen(fd, 4), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	*port = ntohs(sa.sin_port);
	return fd;
}

static uint16_t free_port(void)
{
	uint16_t port;

	close(listener(&port));
	return port;
}

static int dial(uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
				 .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Tell the router our address, as every guest does sooner or later. */
static void announce(struct card *c)
{
	uint8_t f[42];

	arp_request(f, router_ip);
	card_send(c, f, sizeof(f));
	free(next_of(c, 0x0806, -1));
}

/* Send and receive something over an established connection whose host end is @fd. */
static void talk(struct tcp *t, int fd)
{
	char buf[1500];
	size_t n;

	ck_assert_int_eq(write(fd, "ping", 4), 4);
	n = tcp_recv(t, ACK, true, buf);
	ck_assert_uint_eq(n, 4);
	ck_assert_mem_eq(buf, "ping", 4);
	tcp_send(t, ACK | PSH, "pong!", 5);
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), 0), 5);
	ck_assert_mem_eq(buf, "pong!", 5);
	shutdown(fd, SHUT_WR);
	tcp_recv(t, FIN, false, NULL);
	tcp_send(t, ACK | FIN, NULL, 0);
	ck_assert_int_eq(recv(fd, buf, sizeof(buf), 0), 0);
	close(fd);
}

START_TEST(hostfwd)
{
	uint16_t port = free_port();
	struct card c = {.engine = engines[_i]};
	struct tcp t = {.c = &c, .seq = 1000};
	char options[100];
	int fd;

	snprintf(options, sizeof(options), "hostfwd=tcp:127.0.0.1:%u-:7", port);
	card_open(&c, "user", options);
	announce(&c);
	fd = dial(port);
	tcp_recv(&t, SYN, false, NULL);
	ck_assert_uint_eq(t.sport, 7);
	ck_assert_mem_eq(t.peer, router_ip, 4);
	tcp_send(&t, SYN | ACK, NULL, 0);
	tcp_recv(&t, ACK, false, NULL);
	talk(&t, fd);
	card_close(&c);
}
END_TEST

START_TEST(guest_connects)
{
	struct card c = {.engine = engines[_i]};
	struct tcp t = {.c = &c, .sport = 40000, .peer = {10, 0, 2, 2}, .seq = 77};
	uint16_t port;
	int l = listener(&port), fd;

	card_open(&c, "user", "");
	announce(&c);
	t.dport = port;
	tcp_send(&t, SYN, NULL, 0);
	tcp_recv(&t, SYN | ACK, false, NULL);
	tcp_send(&t, ACK, NULL, 0);
	fd = accept(l, NULL, NULL);
	ck_assert_int_ge(fd, 0);
	talk(&t, fd);
	close(l);
	card_close(&c);
}
END_TEST

/* Each connection to an address of the guest's network is one to a Unix socket of the host; also where all else is forbidden. */
START_TEST(guestfwd_unix)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	struct card c = {.engine = engines[_i]};
	int l = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char options[160];

	snprintf(sun.sun_path, sizeof(sun.sun_path), "/tmp/hako-test-fwd.%d", getpid());
	ck_assert_int_eq(bind(l, (struct sockaddr *)&sun, sizeof(sun)), 0);
	ck_assert_int_eq(listen(l, 4), 0);
	snprintf(options, sizeof(options), "restrict=on,guestfwd=tcp:10.0.2.100:80-unix:%s",
		 sun.sun_path);
	card_open(&c, "user", options);
	announce(&c);
	for (uint16_t i = 0; i < 3; i++) {
		struct tcp t = {.c = &c,
				.sport = 40000 + i,
				.dport = 80,
				.peer = {10, 0, 2, 100},
				.seq = 77};
		int fd;

		tcp_send(&t, SYN, NULL, 0);
		tcp_recv(&t, SYN | ACK, false, NULL);
		tcp_send(&t, ACK, NULL, 0);
		fd = accept(l, NULL, NULL);
		ck_assert_int_ge(fd, 0);
		talk(&t, fd);
	}
	close(l);
	unlink(sun.sun_path);
	card_close(&c);
}
END_TEST

/* ... or to a program. */
START_TEST(guestfwd_command)
{
	struct card c = {.engine = engines[_i]};
	struct tcp t = {.c = &c, .sport = 40000, .dport = 80, .peer = {10, 0, 2, 100}, .seq = 77};
	char buf[1500];

	card_open(&c, "user", "restrict=on,guestfwd=tcp:10.0.2.100:80-cmd:tr a-z A-Z");
	announce(&c);
	tcp_send(&t, SYN, NULL, 0);
	tcp_recv(&t, SYN | ACK, false, NULL);
	tcp_send(&t, ACK, NULL, 0);
	tcp_send(&t, ACK | PSH, "hello", 5);
	tcp_send(&t, ACK | FIN, NULL, 0);
	ck_assert_uint_eq(tcp_recv(&t, ACK, true, buf), 5);
	ck_assert_mem_eq(buf, "HELLO", 5);
	card_close(&c);
}
END_TEST

START_TEST(restricted)
{
	struct card c = {.engine = engines[_i]};
	struct tcp t = {.c = &c, .sport = 40000, .peer = {10, 0, 2, 2}, .seq = 77};
	struct card_frame *f;
	uint16_t port;
	int l = listener(&port);

	card_open(&c, "user", "restrict=on");
	announce(&c);
	t.dport = port;
	tcp_send(&t, SYN, NULL, 0);
	f = card_next(&c, 300);
	ck_assert(!f || f->data[14 + 20 + 13] & RST);
	free(f);
	close(l);
	card_close(&c);
}
END_TEST

/* --- pauses and overload ----------------------------------------------------------------------- */

START_TEST(paused)
{
	uint16_t port = free_port();
	struct card c = {.engine = engines[_i]};
	struct card_frame *f;
	char options[100];
	int fd;

	snprintf(options, sizeof(options), "hostfwd=:127.0.0.1:%u-10.0.2.15:7", port);
	card_open(&c, "user", options);
	announce(&c);
	c.net->obj.class->pause(&c.net->obj);
	while ((f = card_next(&c, 0)))
		free(f);
	fd = dial(port);
	ck_assert_ptr_null(card_next(&c, 200));
	c.net->obj.class->resume(&c.net->obj);
	free(next_of(&c, 0x0800, 6));
	close(fd);
	card_close(&c);
}
END_TEST

/* Answers that nobody takes are kept up to a bound, and the rest is lost. */
START_TEST(bounded)
{
	struct card c = {.engine = engines[_i], .stalled = true};
	unsigned int n = 0;
	struct card_frame *r;
	uint8_t f[42];

	card_open(&c, "user", "");
	arp_request(f, router_ip);
	for (int i = 0; i < 20000; i++)
		card_send(&c, f, sizeof(f));
	card_go(&c);
	while ((r = card_next(&c, 100))) {
		ck_assert_uint_ge(r->len, 42);
		ck_assert_uint_eq(get16(r->data + 20), 2);
		free(r);
		n++;
	}
	ck_assert_uint_gt(n, 100);
	ck_assert_uint_lt(n, 19999);
	/* and it works as before */
	announce(&c);
	card_close(&c);
}
END_TEST

START_TEST(restart)
{
	struct card c = {.engine = engines[_i]};

	card_open(&c, "user", "");
	for (int i = 0; i < 20; i++) {
		announce(&c);
		loop_call(c.loop, card_stop_in_loop, &c);
		loop_call(c.loop, card_start_in_loop, &c);
	}
	card_close(&c);
}
END_TEST

START_TEST(odd_frames)
{
	static uint8_t big[70000];
	struct card c = {.engine = engines[_i]};
	uint32_t rnd = 1;
	uint8_t f[300];

	card_open(&c, "user", "");
	ck_assert_int_eq(card_send(&c, big, sizeof(big)), -EMSGSIZE);
	ck_assert_int_eq(card_send(&c, big, 0), -EINVAL);
	for (unsigned int i = 0; i < 20000; i++) {
		static const uint16_t types[] = {0x0800, 0x0806, 0x86dd, 0x88f8};
		size_t len = 1 + i % sizeof(f);

		for (size_t k = 0; k < sizeof(f); k++) {
			rnd = rnd * 1664525 + 1013904223;
			f[k] = rnd >> 24;
		}
		memcpy(f, router_mac, 6);
		put16(f + 12, types[i % 4]);
		if (types[i % 4] == 0x0800) {
			f[14] = 0x45;
			f[23] = i % 3 ? 0x11
				      : 1; /* neither TCP nor real addresses: nothing leaves */
			memcpy(f + 30, router_ip, 4);
			put16(f + 36, 67);
		}
		card_send(&c, f, len);
	}
	announce(&c);
	card_close(&c);
}
END_TEST

/* --- errors ------------------------------------------------------------------------------------ */

static int try_user(const char *options, struct hako_error *err)
{
	struct object *obj;
	struct vm *vm;
	int ret;

	ck_assert_int_eq(vm_new_plain(&vm, 1 << 20, err), 0);
	ret = card_netdev(vm, "user", options, &obj, err);
	vm_free_plain(vm);
	return ret;
}

START_TEST(port_in_use)
{
	struct hako_error err;
	char options[100], number[8];
	uint16_t port;
	int l = listener(&port);

	snprintf(options, sizeof(options), "hostfwd=tcp:127.0.0.1:%u-:22", port);
	snprintf(number, sizeof(number), "%u", port);
	ck_assert_int_eq(try_user(options, &err), -EADDRINUSE);
	ck_assert_ptr_nonnull(strstr(err.message, options));
	ck_assert_ptr_nonnull(strstr(strstr(err.message, options) + strlen(options), number));
	close(l);
	/* the same port once the other is gone */
	ck_assert_msg(!try_user(options, &err), "%s", err.message);
}
END_TEST

#define X10  "xxxxxxxxxx"
#define X40  X10 X10 X10 X10
#define X256 X40 X40 X40 X40 X40 X40 X10 "xxxxxx"

static const struct {
	const char *options, *names;
} bad[] = {
	{"net=10.0.2", "net="},
	{"net=10.0.2.0/3", "net="},
	{"net=10.0.2.0/33", "net="},
	{"net=10.0.2.0/255.0.255.0", "net="},
	{"net=10.0.2.0/30", "net="},
	{"host=10.0.3.2", "host="},
	{"host=router", "host="},
	{"dns=11.0.0.1", "dns="},
	{"host=10.0.2.3", "dns"},
	{"dhcpstart=10.0.2.2", "dhcpstart"},
	{"dhcpstart=10.0.4.9", "dhcpstart="},
	{"ipv4=off,ipv6=off", "ipv4=off"},
	{"ipv6-net=fec0", "ipv6-net="},
	{"ipv6-net=fec0::/129", "ipv6-net="},
	{"ipv6-host=fec1::2", "ipv6-host="},
	{"tftp=/nonexistent/dir", "tftp="},
	{"tftp=/dev/null", "tftp="},
	{"hostfwd=2222", "hostfwd="},
	{"hostfwd=sctp::2222-:22", "hostfwd="},
	{"hostfwd=tcp::99999-:22", "99999"},
	{"hostfwd=tcp::2222-:0", "hostfwd="},
	{"hostfwd=tcp:300.1.1.1:2222-:22", "300.1.1.1"},
	{"hostfwd=tcp::2222-:22x", "22x"},
	{"hostfwd=tcp:192.0.2.1:2222-:22", "hostfwd="}, /* no address of this host */
	{"guestfwd=tcp:10.0.2.100:80", "guestfwd="},
	{"guestfwd=tcp:10.0.2.100:80-unix:", "guestfwd="},
	{"guestfwd=tcp:10.0.2.100:80-tcp:127.0.0.1:1", "guestfwd="},
	{"guestfwd=tcp:10.0.2.100:80-unix:/" X40 X40 X40, "107 characters"},
	{"guestfwd=udp:10.0.2.100:80-cmd:true", "guestfwd="},
	{"guestfwd=tcp:10.9.2.100:80-cmd:true", "guestfwd="},
	{"restrict=perhaps", "restrict"},
	{"hostname=" X40, "hostname="},
	{"hostname=", "hostname="},
	{"domainname=", "domainname="},
	{"domainname=" X256, "domainname="},
	{"tftp-server-name=" X256, "tftp-server-name="},
	{"bootfile=" X40 X40 X40 X40, "bootfile="},
	{"hostport=1", "hostport"},
};

START_TEST(bad_options)
{
	struct hako_error err = {0};

	ck_assert_int_lt(try_user(bad[_i].options, &err), 0);
	ck_assert_msg(strstr(err.message, bad[_i].names), "%s: \"%s\"", bad[_i].options,
		      err.message);
	ck_assert_ptr_null(strchr(err.message, '\n'));
}
END_TEST

static const char *const good[] = {
	"net=10.0.0.0",
	"net=172.16.0.0",
	"ipv4=on",
	"ipv6=on",
	"ipv6=off",
	"dnssearch=a.example,dnssearch=b.example",
	"bootfile=pxe.0,tftp=/tmp",
	"guestfwd=tcp:10.0.2.100:80-cmd:true",
};

START_TEST(good_options)
{
	struct hako_error err = {0};

	ck_assert_msg(!try_user(good[_i], &err), "%s: %s", good[_i], err.message);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("user_net");
	TCase *t = tcase_create("guest"), *e = tcase_create("errors");
	SRunner *sr;
	int failed;

	if (!class_find(CLASS_NETDEV, "user")) {
		printf("user_net: skipped: built without libslirp\n");
		return 0;
	}
	tcase_add_loop_test(t, dhcp_defaults, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, dhcp_options, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, arp, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, hostfwd, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, guest_connects, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, guestfwd_unix, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, guestfwd_command, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, restricted, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, paused, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, bounded, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, restart, 0, ARRAY_SIZE(engines));
	tcase_add_loop_test(t, odd_frames, 0, ARRAY_SIZE(engines));
	tcase_set_timeout(t, 60);
	tcase_add_test(e, port_in_use);
	tcase_add_loop_test(e, bad_options, 0, ARRAY_SIZE(bad));
	tcase_add_loop_test(e, good_options, 0, ARRAY_SIZE(good));
	suite_add_tcase(s, t);
	suite_add_tcase(s, e);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
