/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Landlock: of all files, only those below the paths that were given to sandbox_allow_path() can be opened, and these only by the kind of
 * thread they were given for. What is open already is not concerned.
 */
#include <linux/landlock.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox_impl.h"

/* What headers of older kernels lack. */
#define FS_REFER	 (1ull << 13) /* ABI 2 */
#define FS_TRUNCATE	 (1ull << 14) /* 3 */
#define FS_IOCTL_DEV	 (1ull << 15) /* 5 */
#define NET_TCP		 3ull	      /* 4: bind and connect */
#define SCOPE_ABSTRACT	 1ull	      /* 6: Unix sockets without a file */
#define FS_ABI_1	 (FS_REFER - 1)
#define FS_READ		 (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_NOT_OF_GUESTS (LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_BLOCK | FS_IOCTL_DEV)
#define FS_OF_FILES                                                   \
	(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | \
	 LANDLOCK_ACCESS_FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

struct ruleset {
	uint64_t fs, net, scoped;
};

int landlock_abi(void)
{
	long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);

	return abi < 0 ? 0 : (int)abi;
}

static uint64_t fs_rights(int abi)
{
	return FS_ABI_1 | (abi >= 2 ? FS_REFER : 0) | (abi >= 3 ? FS_TRUNCATE : 0) |
	       (abi >= 5 ? FS_IOCTL_DEV : 0);
}

static int add_path(int ruleset, const struct sandbox_path *path, uint64_t all)
{
	static const uint64_t rights[] = {
		[SANDBOX_READ] = FS_READ,
		[SANDBOX_WRITE] = ~FS_NOT_OF_GUESTS,
		[SANDBOX_REMOVE] = LANDLOCK_ACCESS_FS_REMOVE_FILE,
	};
	struct landlock_path_beneath_attr attr = {
		.allowed_access = rights[path->access] & all,
		.parent_fd = path->fd,
	};
	int ret;

	ret = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	if (ret < 0 && errno == EINVAL) {
		/* Not a directory. */
		attr.allowed_access &= FS_OF_FILES;
		ret = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &attr, 0);
	}
	return ret < 0 ? -errno : 0;
}

int landlock_enter(const struct sandbox *sb, enum sandbox_thread kind)
{
	const bool outside = sb->needs & (SANDBOX_INET | SANDBOX_RECONNECT);
	struct ruleset attr = {.fs = fs_rights(sb->landlock)};
	size_t size = sizeof(attr.fs);
	int fd, ret = 0;

	if (sb->landlock >= 4) {
		attr.net = outside ? 0 : NET_TCP;
		size = sizeof(attr.fs) + sizeof(attr.net);
	}
	if (sb->landlock >= 6) {
		attr.scoped = outside ? 0 : SCOPE_ABSTRACT;
		size = sizeof(attr);
	}
	fd = syscall(SYS_landlock_create_ruleset, &attr, size, 0);
	if (fd < 0)
		return -errno;
	for (unsigned int i = 0; i < sb->npaths && !ret; i++)
		if (sb->path[i].kind == kind)
			ret = add_path(fd, &sb->path[i], attr.fs);
	if (!ret && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		ret = -errno;
	close(fd);
	return ret;
}
