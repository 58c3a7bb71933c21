/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of sockets, as the networks "stream" and "dgram" are given them: QEMU's "addr.type=…,addr.host=…" and so on. */
#ifndef DEVICES_NET_ADDRESS_H
#define DEVICES_NET_ADDRESS_H

#include <sys/socket.h>

#include "vmm/option.h"

enum net_address_type {
	NET_ADDRESS_NONE,
	NET_ADDRESS_INET,
	NET_ADDRESS_UNIX,
	NET_ADDRESS_FD,
};

extern const char *const net_address_types[];

/* The options. */
struct net_address {
	int type; /* enum net_address_type */
	char *host, *port, *path, *fd;
	bool numeric, keep_alive, abstract, tight;
	int ipv4, ipv6; /* enum option_onoffauto */
};

/* Table entries for the field F of T, whose options' names begin with P. */
#define NET_ADDRESS_OPTIONS(P, T, F)                                                              \
	OPT_ENUM(P ".type", T, F.type, "none", net_address_types, "kind of address"),             \
		OPT_STRING(P ".host", T, F.host, NULL, "inet: name or address"),                  \
		OPT_STRING(P ".port", T, F.port, NULL, "inet: number or service"),                \
		OPT_BOOL(P ".numeric", T, F.numeric, "off", "inet: look up no names"),            \
		OPT_ONOFFAUTO(P ".ipv4", T, F.ipv4, "auto", "inet: IPv4 addresses will do"),      \
		OPT_ONOFFAUTO(P ".ipv6", T, F.ipv6, "auto", "inet: IPv6 addresses will do"),      \
		OPT_STRING(P ".path", T, F.path, NULL, "unix: file, or name if abstract"),        \
		OPT_BOOL(P ".abstract", T, F.abstract, "off", "unix: a name that is no file"),    \
		OPT_BOOL(P ".tight", T, F.tight, "on", "unix: an abstract name without padding"), \
		OPT_STRING(P ".str", T, F.fd, NULL, "fd: number of a socket that is open already")

/* What the kernel takes. */
struct net_sockaddr {
	union {
		struct sockaddr sa;
		struct sockaddr_storage storage;
	};
	socklen_t len;
};

#define NET_ADDRESSES 8 /* of one name; more are not tried */

/**
 * Is what its type needs there, and nothing else? @name is that of the options ("addr"), for the error. -EINVAL. NET_ADDRESS_NONE is
 * an error if @required.
 */
int net_address_check(const struct net_address *a, const char *name, bool required,
		      struct hako_error *err);

/**
 * The addresses that @a (not of type fd) stands for, to be tried in order: how many, or a negative errno. @passive: those to listen at,
 * for which no host means all of them.
 */
int net_address_resolve(const struct net_address *a, const char *name, int socktype, bool passive,
			struct net_sockaddr out[NET_ADDRESSES], struct hako_error *err);

/** The socket of type fd, which has to be of @socktype (SOCK_STREAM …): ours from now on, non-blocking. */
int net_address_take_fd(const struct net_address *a, const char *name, int socktype,
			struct hako_error *err);

/** "@name.path=…: what the errno says": always returns @code. */
int net_address_error(const struct net_address *a, const char *name, int code,
		      struct hako_error *err);

/** A socket of that type at @sa, bound. An abandoned Unix socket's file is removed first. The descriptor or a negative errno. */
int net_address_bind(const struct net_sockaddr *sa, int socktype);

/** Is it the name of a file, to be removed at the end? */
bool net_address_is_file(const struct net_address *a);

#endif
