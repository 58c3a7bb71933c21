/* SPDX-License-Identifier: GPL-2.0-only */
/* Data that lies in several buffers. */
#ifndef VMM_IOV_H
#define VMM_IOV_H

#include <stddef.h>
#include <sys/uio.h>

/* Copying between buffers and memory of our own: from byte @offset on; bytes copied. */
size_t iov_read(const struct iovec *iov, unsigned int n, size_t offset, void *buf, size_t len);
size_t iov_write(const struct iovec *iov, unsigned int n, size_t offset, const void *buf,
		 size_t len);
/** Cut @skip bytes off the front of *@iov (changes its elements); returns the elements left, *@iov moves on. */
unsigned int iov_skip(struct iovec **iov, unsigned int n, size_t skip);

#endif
