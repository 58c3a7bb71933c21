/* SPDX-License-Identifier: GPL-2.0-only */
#include <fcntl.h>

#include "image_lock.h"

#define BYTE_DOES    100
#define BYTE_FORBIDS 200
#define NBITS	     4

static int lock_byte(int fd, short type, off_t start, off_t len)
{
	struct flock fl = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = len,
	};

	return fcntl(fd, F_OFD_SETLK, &fl) < 0 ? -errno : 0;
}

/* Would an exclusive lock meet somebody? 1, 0, or a negative errno. */
static int is_locked(int fd, off_t start)
{
	struct flock fl = {
		.l_type = F_WRLCK,
		.l_whence = SEEK_SET,
		.l_start = start,
		.l_len = 1,
	};

	if (fcntl(fd, F_OFD_GETLK, &fl) < 0)
		return -errno;
	return fl.l_type != F_UNLCK;
}

/* Say first, then look: of two that come at once at least one sees the other. */
static int announce(int fd, unsigned int does, unsigned int forbids)
{
	int ret = 0;

	for (int i = 0; i < NBITS && ret == 0; i++) {
		if (does & BIT(i))
			ret = lock_byte(fd, F_RDLCK, BYTE_DOES + i, 1);
		if (ret == 0 && (forbids & BIT(i)))
			ret = lock_byte(fd, F_RDLCK, BYTE_FORBIDS + i, 1);
	}
	return ret;
}

static int check(int fd, unsigned int does, unsigned int forbids, struct hako_error *err)
{
	static const char *const forbidden[NBITS] = {
		"another program uses this image and lets nobody read it",
		"another program uses this image and lets nobody write to it",
		"another program uses this image",
		"another program uses this image and lets nobody change its size",
	};
	static const char *const done[NBITS] = {
		"another program reads this image",
		"another program writes to this image",
		"another program uses this image",
		"another program may change this image's size",
	};
	int ret;

	for (int i = 0; i < NBITS; i++) {
		ret = does & BIT(i) ? is_locked(fd, BYTE_FORBIDS + i) : 0;
		if (ret > 0)
			return error_set(err, -EBUSY, "%s", forbidden[i]);
		if (ret == 0 && (forbids & BIT(i))) {
			ret = is_locked(fd, BYTE_DOES + i);
			if (ret > 0)
				return error_set(err, -EBUSY, "%s", done[i]);
		}
		if (ret < 0)
			return error_errno(err, ret, "locking");
	}
	return 0;
}

int image_lock(int fd, unsigned int does, unsigned int forbids, struct hako_error *err)
{
	int ret = announce(fd, does, forbids);

	if (ret < 0)
		error_errno(err, ret, "locking");
	else
		ret = check(fd, does, forbids, err);
	if (ret == 0)
		image_lock_reduce(fd, does, forbids);
	return ret;
}

void image_lock_reduce(int fd, unsigned int does, unsigned int forbids)
{
	for (int i = 0; i < NBITS; i++) {
		if (!(does & BIT(i)))
			lock_byte(fd, F_UNLCK, BYTE_DOES + i, 1);
		if (!(forbids & BIT(i)))
			lock_byte(fd, F_UNLCK, BYTE_FORBIDS + i, 1);
	}
}

void image_unlock(int fd)
{
	lock_byte(fd, F_UNLCK, BYTE_DOES, BYTE_FORBIDS + NBITS - BYTE_DOES);
}
