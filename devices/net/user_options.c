/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "user": what its options say. */
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/un.h>

#include "devices/net/user.h"

/* The mask of a network that is given without one: its class, or the whole of a private range (RFC 1918). */
static uint32_t default_mask(uint32_t addr)
{
	if (!(addr & 0x80000000))
		return 0xff000000;
	if ((addr & 0xfff00000) == 0xac100000)
		return 0xfff00000;
	if ((addr & 0xc0000000) == 0x80000000 || (addr & 0xffff0000) == 0xc0a80000)
		return 0xffff0000;
	return 0xffffff00;
}

static int parse_net(const char *text, uint32_t *net, uint32_t *mask)
{
	const char *slash = strchr(text, '/');
	char addr[INET_ADDRSTRLEN];
	struct in_addr in;
	uint64_t bits;

	if (snprintf(addr, sizeof(addr), "%.*s", slash ? (int)(slash - text) : 64, text) >=
		    (int)sizeof(addr) ||
	    inet_pton(AF_INET, addr, &in) != 1)
		return -EINVAL;
	*net = ntohl(in.s_addr);
	if (!slash) {
		*mask = default_mask(*net);
	} else if (inet_pton(AF_INET, slash + 1, &in) == 1) {
		*mask = ntohl(in.s_addr);
		if (~*mask & (~*mask + 1)) /* not ones and then zeroes */
			return -EINVAL;
	} else {
		if (parse_uint(slash + 1, &bits) || bits < 4 || bits > 32)
			return -EINVAL;
		*mask = 0xffffffffu << (32 - bits);
	}
	*net &= *mask;
	return 0;
}

static int host_in_net(const struct user_addresses *a, const char *option, const char *text,
		       uint32_t def, struct in_addr *addr, struct hako_error *err)
{
	uint32_t net = ntohl(a->net.s_addr), mask = ntohl(a->mask.s_addr);

	addr->s_addr = htonl(net | (def & ~mask));
	if (!text)
		return 0;
	if (inet_pton(AF_INET, text, addr) != 1)
		return error_set(err, -EINVAL, "%s=%s: not an IPv4 address", option, text);
	if ((ntohl(addr->s_addr) & mask) != net) {
		char name[INET_ADDRSTRLEN];

		inet_ntop(AF_INET, &a->net, name, sizeof(name));
		return error_set(err, -EINVAL, "%s=%s: not in the network %s/%d", option, text,
				 name, __builtin_popcount(mask));
	}
	return 0;
}

static int addresses4(const struct user_options *opt, struct user_addresses *a,
		      struct hako_error *err)
{
	uint32_t net, mask;
	int ret;

	if (parse_net(opt->net, &net, &mask))
		return error_set(err, -EINVAL, "net=%s: not a network such as 10.0.2.0/24",
				 opt->net);
	if (~mask <= 0x0f && !(opt->host && opt->dhcpstart && opt->dns))
		return error_set(err, -EINVAL,
				 "net=%s: too small for the default addresses (set host, "
				 "dhcpstart and dns)",
				 opt->net);
	a->net.s_addr = htonl(net);
	a->mask.s_addr = htonl(mask);
	ret = host_in_net(a, "host", opt->host, 0x0202, &a->host, err);
	if (!ret)
		ret = host_in_net(a, "dns", opt->dns, 0x0203, &a->dns, err);
	if (!ret)
		ret = host_in_net(a, "dhcpstart", opt->dhcpstart, 0x020f, &a->dhcpstart, err);
	if (ret)
		return ret;
	if (a->host.s_addr == a->dns.s_addr)
		return error_set(err, -EINVAL, "host and dns have the same address");
	if (a->dhcpstart.s_addr == a->host.s_addr || a->dhcpstart.s_addr == a->dns.s_addr)
		return error_set(err, -EINVAL, "dhcpstart has the address of host or dns");
	return 0;
}

static int host_in_net6(const struct user_addresses *a, const char *option, const char *text,
			uint8_t def, struct in6_addr *addr, struct hako_error *err)
{
	*addr = a->net6;
	addr->s6_addr[15] |= def;
	if (!text)
		return 0;
	if (inet_pton(AF_INET6, text, addr) != 1)
		return error_set(err, -EINVAL, "%s=%s: not an IPv6 address", option, text);
	for (unsigned int i = 0; i < a->prefix6; i++) {
		uint8_t bit = 0x80 >> (i % 8);

		if ((addr->s6_addr[i / 8] ^ a->net6.s6_addr[i / 8]) & bit)
			return error_set(err, -EINVAL, "%s=%s: not in the network of ipv6-net",
					 option, text);
	}
	return 0;
}

static int addresses6(const struct user_options *opt, struct user_addresses *a,
		      struct hako_error *err)
{
	const char *slash = strchr(opt->ipv6_net, '/');
	char addr[INET6_ADDRSTRLEN];
	uint64_t bits = 64;
	int ret;

	if (snprintf(addr, sizeof(addr), "%.*s", slash ? (int)(slash - opt->ipv6_net) : 64,
		     opt->ipv6_net) >= (int)sizeof(addr) ||
	    inet_pton(AF_INET6, addr, &a->net6) != 1 ||
	    (slash && (parse_uint(slash + 1, &bits) || bits > 126)))
		return error_set(err, -EINVAL, "ipv6-net=%s: not a network such as fec0::/64",
				 opt->ipv6_net);
	a->prefix6 = bits;
	ret = host_in_net6(a, "ipv6-host", opt->ipv6_host, 2, &a->host6, err);
	return ret ? ret : host_in_net6(a, "ipv6-dns", opt->ipv6_dns, 3, &a->dns6, err);
}

/* DHCP counts an option's bytes in one byte, and has 128 for a file's name (RFC 2131, 2132); libslirp keeps 32 of a host name. */
int user_check_names(const struct user_options *opt, struct hako_error *err)
{
	const struct {
		const char *option, *value;
		size_t max;
	} names[] = {
		{"hostname", opt->hostname, 32},
		{"domainname", opt->domainname, 255},
		{"tftp-server-name", opt->tftp_server_name, 255},
		{"bootfile", opt->bootfile, 127},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		size_t len = names[i].value ? strlen(names[i].value) : 1;

		if (!len || len > names[i].max)
			return error_set(err, -EINVAL, "%s=%s: 1 to %zu characters are possible",
					 names[i].option, names[i].value, names[i].max);
	}
	return 0;
}

int user_addresses(const struct user_options *opt, struct user_addresses *a, struct hako_error *err)
{
	int ret = 0;

	memset(a, 0, sizeof(*a));
	/* One that is asked for by name without a word about the other means this one alone. */
	a->ipv4 = opt->ipv4 == ONOFFAUTO_ON ||
		  (opt->ipv4 == ONOFFAUTO_AUTO && opt->ipv6 != ONOFFAUTO_ON);
	a->ipv6 = opt->ipv6 == ONOFFAUTO_ON ||
		  (opt->ipv6 == ONOFFAUTO_AUTO && opt->ipv4 != ONOFFAUTO_ON);
	if (!a->ipv4 && !a->ipv6)
		return error_set(err, -EINVAL, "ipv4=off and ipv6=off leave no network");
	if (a->ipv4)
		ret = addresses4(opt, a, err);
	if (!ret && a->ipv6)
		ret = addresses6(opt, a, err);
	return ret;
}

/* Cut the next field, up to @end, out of *@text. */
static int next_field(const char **text, char end, char *field, size_t size)
{
	const char *p = strchr(*text, end);

	if (!p || (size_t)(p - *text) >= size)
		return -EINVAL;
	memcpy(field, *text, p - *text);
	field[p - *text] = 0;
	*text = p + 1;
	return 0;
}

static int parse_port(const char *text, bool zero, uint16_t *port)
{
	uint64_t v;

	if (parse_uint(text, &v) || v > 65535 || (!v && !zero))
		return -EINVAL;
	*port = v;
	return 0;
}

int user_parse_hostfwd(const char *text, struct user_hostfwd *fwd, struct hako_error *err)
{
	const char *p = text;
	char field[INET_ADDRSTRLEN];

	memset(fwd, 0, sizeof(*fwd));
	if (next_field(&p, ':', field, sizeof(field)))
		goto syntax;
	fwd->udp = !strcmp(field, "udp");
	if (!fwd->udp && field[0] && strcmp(field, "tcp"))
		return error_set(err, -EINVAL, "hostfwd=%s: the protocol is tcp or udp", text);
	if (next_field(&p, ':', field, sizeof(field)))
		goto syntax;
	if (field[0] && inet_pton(AF_INET, field, &fwd->host) != 1)
		return error_set(err, -EINVAL, "hostfwd=%s: \"%s\" is not an IPv4 address", text,
				 field);
	if (next_field(&p, '-', field, sizeof(field)))
		goto syntax;
	if (parse_port(field, true, &fwd->host_port))
		return error_set(err, -EINVAL, "hostfwd=%s: \"%s\" is not a port", text, field);
	if (next_field(&p, ':', field, sizeof(field)))
		goto syntax;
	if (field[0] && inet_pton(AF_INET, field, &fwd->guest) != 1)
		return error_set(err, -EINVAL, "hostfwd=%s: \"%s\" is not an IPv4 address", text,
				 field);
	if (parse_port(p, false, &fwd->guest_port))
		return error_set(err, -EINVAL, "hostfwd=%s: \"%s\" is not a port", text, p);
	return 0;
syntax:
	return error_set(err, -EINVAL,
			 "hostfwd=%s: write tcp|udp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT",
			 text);
}

int user_parse_guestfwd(const char *text, struct user_guestfwd *fwd, struct hako_error *err)
{
	const char *p = text;
	char field[INET_ADDRSTRLEN];

	memset(fwd, 0, sizeof(*fwd));
	if (next_field(&p, ':', field, sizeof(field)) || (field[0] && strcmp(field, "tcp")) ||
	    next_field(&p, ':', field, sizeof(field)) ||
	    inet_pton(AF_INET, field, &fwd->addr) != 1 ||
	    next_field(&p, '-', field, sizeof(field)) || parse_port(field, false, &fwd->port))
		goto syntax;
	if (!strncmp(p, "cmd:", 4) && p[4]) {
		fwd->command = p + 4;
		return 0;
	}
	if (strncmp(p, "unix:", 5) || !p[5])
		goto syntax;
	fwd->path = p + 5;
	if (strlen(fwd->path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
		return error_set(err, -ENAMETOOLONG,
				 "guestfwd=%s: a path has %zu characters at most", text,
				 sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	return 0;
syntax:
	return error_set(err, -EINVAL,
			 "guestfwd=%s: write tcp:ADDR:PORT-cmd:COMMAND or tcp:ADDR:PORT-unix:PATH",
			 text);
}
