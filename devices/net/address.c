/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses of sockets, from options. */
#include "devices/net/address.h"

#include <fcntl.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

const char *const net_address_types[] = {"none", "inet", "unix", "fd", NULL};

bool net_address_is_file(const struct net_address *a)
{
	return a->type == NET_ADDRESS_UNIX && !a->abstract;
}

int net_address_check(const struct net_address *a, const char *name, bool required,
		      struct hako_error *err)
{
	const struct {
		const char *key, *value;
		enum net_address_type type;
		bool needed;
	} parts[] = {
		{"host", a->host, NET_ADDRESS_INET, false},
		{"port", a->port, NET_ADDRESS_INET, false},
		{"path", a->path, NET_ADDRESS_UNIX, true},
		{"str", a->fd, NET_ADDRESS_FD, true},
	};

	if (a->type == NET_ADDRESS_NONE && required)
		return error_set(err, -EINVAL, "%s.type is missing: inet, unix or fd", name);
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i].value && parts[i].type != a->type)
			return error_set(err, -EINVAL, "%s.%s=%s is for %s.type=%s only", name,
					 parts[i].key, parts[i].value, name,
					 net_address_types[parts[i].type]);
		if (!parts[i].value && parts[i].needed && parts[i].type == a->type)
			return error_set(err, -EINVAL, "%s.%s is missing", name, parts[i].key);
	}
	if (a->type == NET_ADDRESS_INET && a->ipv4 == ONOFFAUTO_OFF && a->ipv6 == ONOFFAUTO_OFF)
		return error_set(err, -EINVAL, "%s.ipv4=off and %s.ipv6=off leave no address", name,
				 name);
	return 0;
}

int net_address_error(const struct net_address *a, const char *name, int code,
		      struct hako_error *err)
{
	if (a->type == NET_ADDRESS_FD)
		return error_errno(err, code, "%s.str=%s", name, a->fd);
	if (a->type == NET_ADDRESS_UNIX)
		return error_errno(err, code, "%s.path=%s", name, a->path);
	return error_errno(err, code, "%s.host=%s,%s.port=%s", name, a->host ?: "", name,
			   a->port ?: "");
}

static int resolve_unix(const struct net_address *a, const char *name, struct net_sockaddr *out,
			struct hako_error *err)
{
	struct sockaddr_un *sun = (struct sockaddr_un *)&out->storage;
	size_t len = strlen(a->path), max = sizeof(sun->sun_path) - 1;

	if (!len || len > max)
		return error_set(err, len ? -ENAMETOOLONG : -EINVAL,
				 "%s.path=%s: 1 to %zu characters are possible", name, a->path,
				 max);
	memset(out, 0, sizeof(*out));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path + a->abstract, a->path, len);
	out->len = sizeof(*sun);
	if (a->abstract && a->tight)
		out->len = offsetof(struct sockaddr_un, sun_path) + 1 + len;
	return 1;
}

/* The family that ipv4= and ipv6= leave: one that is asked for by name without a word about the other means this one alone. */
static int inet_family(const struct net_address *a)
{
	if (a->ipv6 == ONOFFAUTO_OFF || (a->ipv4 == ONOFFAUTO_ON && a->ipv6 == ONOFFAUTO_AUTO))
		return AF_INET;
	if (a->ipv4 == ONOFFAUTO_OFF || (a->ipv6 == ONOFFAUTO_ON && a->ipv4 == ONOFFAUTO_AUTO))
		return AF_INET6;
	return AF_UNSPEC;
}

int net_address_resolve(const struct net_address *a, const char *name, int socktype, bool passive,
			struct net_sockaddr out[NET_ADDRESSES], struct hako_error *err)
{
	struct addrinfo hints = {
		.ai_family = inet_family(a),
		.ai_socktype = socktype,
		.ai_flags = (passive ? AI_PASSIVE : 0) |
			    (a->numeric ? AI_NUMERICHOST | AI_NUMERICSERV : 0),
	};
	struct addrinfo *list, *ai;
	int n = 0, ret;

	if (a->type == NET_ADDRESS_UNIX)
		return resolve_unix(a, name, out, err);
	if (!a->port)
		return error_set(err, -EINVAL, "%s.port is missing", name);
	ret = getaddrinfo(a->host && *a->host ? a->host : NULL, a->port, &hints, &list);
	if (ret)
		return error_set(err, -EINVAL, "%s.host=%s,%s.port=%s: %s", name, a->host ?: "",
				 name, a->port, gai_strerror(ret));
	for (ai = list; ai && n < NET_ADDRESSES; ai = ai->ai_next) {
		memset(&out[n], 0, sizeof(out[n]));
		memcpy(&out[n].storage, ai->ai_addr, ai->ai_addrlen);
		out[n++].len = ai->ai_addrlen;
	}
	freeaddrinfo(list);
	return n;
}

int net_address_take_fd(const struct net_address *a, const char *name, int socktype,
			struct hako_error *err)
{
	socklen_t len = sizeof(int);
	int type = 0, flags;
	uint64_t fd;

	if (parse_uint(a->fd, &fd) || fd > INT32_MAX)
		return error_set(err, -EINVAL, "%s.str=%s: not the number of a descriptor", name,
				 a->fd);
	flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		return error_set(err, -EBADF, "%s.str=%s: not an open descriptor", name, a->fd);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) || type != socktype)
		return error_set(err, -EINVAL, "%s.str=%s: not a %s socket", name, a->fd,
				 socktype == SOCK_STREAM ? "stream" : "datagram");
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return error_errno(err, -errno, "%s.str=%s", name, a->fd);
	return fd;
}

/* A socket's file at which nobody is, since the process that made it was killed: out of the way with it. */
static bool remove_stale(const struct net_sockaddr *sa, int socktype)
{
	const struct sockaddr_un *sun = (const struct sockaddr_un *)&sa->storage;
	struct stat st;
	bool stale;
	int fd;

	if (sa->sa.sa_family != AF_UNIX || !sun->sun_path[0] || lstat(sun->sun_path, &st) ||
	    !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, &sa->sa, sa->len) && errno == ECONNREFUSED;
	close(fd);
	return stale && !unlink(sun->sun_path);
}

int net_address_bind(const struct net_sockaddr *sa, int socktype)
{
	int fd = socket(sa->sa.sa_family, socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, ret;

	if (fd < 0)
		return -errno;
	if (sa->sa.sa_family != AF_UNIX)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	ret = bind(fd, &sa->sa, sa->len);
	if (ret && errno == EADDRINUSE && remove_stale(sa, socktype))
		ret = bind(fd, &sa->sa, sa->len);
	if (!ret)
		return fd;
	ret = -errno;
	close(fd);
	return ret;
}
