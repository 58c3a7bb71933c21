/* SPDX-License-Identifier: GPL-2.0-only */
/* Network "user": its options, and what they say. */
#ifndef DEVICES_NET_USER_H
#define DEVICES_NET_USER_H

#include <netinet/in.h>

#include "vmm/option.h"

struct user_options {
	int ipv4, ipv6; /* enum option_onoffauto */
	char *net, *host, *dhcpstart, *dns;
	char *ipv6_net, *ipv6_host, *ipv6_dns;
	bool restricted;
	char *hostname, *domainname, **dnssearch;
	char *tftp, *tftp_server_name, *bootfile;
	char **hostfwd, **guestfwd;
};

/* The guest's network, in network byte order. */
struct user_addresses {
	bool ipv4, ipv6;
	struct in_addr net, mask, host, dhcpstart, dns;
	struct in6_addr net6, host6, dns6;
	uint8_t prefix6;
};

struct user_hostfwd {
	bool udp;
	struct in_addr host, guest; /* 0: all of the host's; the first that DHCP gives */
	uint16_t host_port, guest_port;
};

/* Where a connection of the guest's leads: to a program of its own, or to a Unix socket. Point into the option's text. */
struct user_guestfwd {
	struct in_addr addr;
	uint16_t port;
	const char *command, *path; /* one of them is NULL */
};

/** All addresses from the options, with defaults. -EINVAL with an error that names the option. */
int user_addresses(const struct user_options *opt, struct user_addresses *a,
		   struct hako_error *err);

/** Do the names fit where DHCP tells them? -EINVAL with an error that names the option. */
int user_check_names(const struct user_options *opt, struct hako_error *err);

/** "tcp|udp:[hostaddr]:hostport-[guestaddr]:guestport"; no protocol means tcp. -EINVAL. */
int user_parse_hostfwd(const char *text, struct user_hostfwd *fwd, struct hako_error *err);

/** "tcp:addr:port-cmd:command" or "tcp:addr:port-unix:path". -EINVAL. */
int user_parse_guestfwd(const char *text, struct user_guestfwd *fwd, struct hako_error *err);

#endif
