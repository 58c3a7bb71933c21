/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any bytes as what a vhost-user back end says, through negotiation, the start and the stop of a ring. None of it may crash or hang, leave a descriptor
 * open, or be reported more than once.
 *
 * The first two bytes of the input say where in the others descriptors come along, the third one how many.
 */
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "devices/vhost/user.h"
#include "vmm/vm.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_SIZE 20000 /* less than a socket holds */

static struct vm *vm;
static unsigned int reports;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	if (vm_new_plain(&vm, 1 * MiB, NULL) < 0 || memory_share(vm, NULL) < 0)
		abort();
	return 0;
}

static void lost(struct vhost_user *vu, const char *why)
{
	if (reports++ || !*why)
		abort();
}

static void say(int fd, const uint8_t *data, size_t size, unsigned int nfds)
{
	char control[CMSG_SPACE(4 * sizeof(int))] = {0};
	struct iovec iov = {(void *)data, size};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

	if (nfds) {
		struct cmsghdr *c;
		int fds[4] = {fd, fd, fd, fd};

		msg.msg_control = control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, nfds * sizeof(int));
	}
	if (size && sendmsg(fd, &msg, MSG_NOSIGNAL) != (ssize_t)size)
		abort();
}

static int talk(struct vhost_user *vu)
{
	struct vhost_vring_addr addr = {0};
	uint8_t config[8];
	uint64_t u64;
	uint32_t num;

	return vhost_user_set(vu, VHOST_USER_SET_FEATURES, 1)
		       ?: vhost_user_get(vu, VHOST_USER_GET_STATUS, &u64)
		       ?: vhost_user_set_memory(vu, &vm->mem)
		       ?: vhost_user_get_config(vu, 10, config, sizeof(config))
		       ?: vhost_user_share_inflight(vu, 2, 64)
		       ?: vhost_user_set_ring(vu, VHOST_USER_SET_VRING_NUM, 1, 64)
		       ?: vhost_user_set_addr(vu, &addr)
		       ?: vhost_user_set_ring_fd(vu, VHOST_USER_SET_VRING_KICK, 1, vu->fd)
		       ?: vhost_user_get_base(vu, 1, &num);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int pair[2], probe = dup(0);
	struct vhost_user vu;
	size_t at;

	close(probe);
	if (size < 3 || size > MAX_SIZE)
		return 0;
	at = MIN(get_le16(data), size - 3);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
		abort();
	say(pair[1], data + 3, at, 0);
	say(pair[1], data + 3 + at, size - 3 - at, data[2] % 5);
	shutdown(pair[1], SHUT_WR);
	reports = 0;
	vhost_user_init(&vu, lost);
	vu.timeout_ms = 20;
	if (!vhost_user_open(&vu, pair[0], NULL)) {
		int ret = talk(&vu);

		/* -EIO: it has no configuration space, which is no reason to end. */
		if (ret && ret != -EIO && vhost_user_connected(&vu))
			abort();
		vhost_user_check(&vu);
		/* There is nothing more to come, so it has ended by now. */
		if (vhost_user_connected(&vu) || reports != 1 || talk(&vu) != -ENOTCONN)
			abort();
	}
	vhost_user_close(&vu);
	vhost_user_forget(&vu);
	close(pair[1]);
	if (dup(0) != probe)
		abort();
	close(probe);
	return 0;
}
