/* SPDX-License-Identifier: GPL-2.0-only */
#include "iov.h"

#include "util.h"

static size_t iov_copy(const struct iovec *iov, unsigned int n, size_t offset, uint8_t *buf,
		       size_t len, bool to_iov)
{
	size_t done = 0;

	for (unsigned int i = 0; i < n && done < len; i++) {
		size_t part;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		part = MIN(iov[i].iov_len - offset, len - done);
		if (to_iov)
			memcpy((uint8_t *)iov[i].iov_base + offset, buf + done, part);
		else
			memcpy(buf + done, (uint8_t *)iov[i].iov_base + offset, part);
		done += part;
		offset = 0;
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned int n, size_t offset, void *buf, size_t len)
{
	return iov_copy(iov, n, offset, buf, len, false);
}

size_t iov_write(const struct iovec *iov, unsigned int n, size_t offset, const void *buf,
		 size_t len)
{
	return iov_copy(iov, n, offset, (uint8_t *)(uintptr_t)buf, len, true);
}

unsigned int iov_skip(struct iovec **iov, unsigned int n, size_t skip)
{
	while (n && skip >= (*iov)->iov_len) {
		skip -= (*iov)->iov_len;
		(*iov)++;
		n--;
	}
	if (n) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + skip;
		(*iov)->iov_len -= skip;
	}
	return n;
}
