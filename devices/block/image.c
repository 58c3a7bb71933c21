/* SPDX-License-Identifier: GPL-2.0-only */
/* Making image files, and the raw format. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "image_lock.h"

#define ZERO_BYTES (1 * MiB)

const char *const image_prealloc_names[] = {"off", "metadata", "falloc", "full", NULL};

static const struct image_format *const formats[] = {&image_raw, &image_qcow2};

const struct image_format *image_format_at(unsigned int i)
{
	return i < ARRAY_SIZE(formats) ? formats[i] : NULL;
}

const struct image_format *image_format_find(const char *name)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i]->name, name))
			return formats[i];
	return NULL;
}

/* --- options ----------------------------------------------------------------------------------- */

static const struct option *find_option(const struct option *table, const char *name)
{
	while (table->name && strcmp(table->name, name))
		table++;
	return table->name ? table : NULL;
}

int image_options_new(const struct image_format *fmt, struct keyvals *kv, void **options,
		      struct hako_error *err)
{
	const struct option *size = find_option(fmt->create_options, "size");
	void *o = calloc(1, fmt->create_size);
	uint64_t *bytes;
	int ret;

	if (!o)
		return error_errno(err, -ENOMEM, "options");
	bytes = (uint64_t *)((char *)o + size->offset);
	ret = options_defaults(fmt->create_options, o, err);
	if (ret == 0)
		ret = options_apply(fmt->create_options, o, kv, true, err);
	if (ret == 0 && !keyvals_get(kv, "size"))
		ret = error_set(err, -EINVAL, "the image needs a size");
	if (ret == 0 && *bytes > INT64_MAX - 511)
		ret = error_set(err, -EFBIG, "size: %llu bytes are more than an image can have",
				(unsigned long long)*bytes);
	if (ret < 0) {
		image_options_free(fmt, o);
		return ret;
	}
	*bytes = ALIGN_UP(*bytes, 512ull);
	*options = o;
	return 0;
}

void image_options_free(const struct image_format *fmt, void *options)
{
	if (options)
		options_free(fmt->create_options, options);
	free(options);
}

int image_create(const struct image_format *fmt, const char *filename, struct keyvals *kv,
		 struct hako_error *err)
{
	void *options;
	int ret = image_options_new(fmt, kv, &options, err);

	if (ret == 0) {
		ret = fmt->create(filename, options, err);
		image_options_free(fmt, options);
	}
	return ret;
}

/* --- files ------------------------------------------------------------------------------------- */

static void set_nocow(int fd)
{
	int flags;

	/* Of btrfs only, and a wish: it costs nothing elsewhere. */
	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
		flags |= FS_NOCOW_FL;
		(void)!ioctl(fd, FS_IOC_SETFLAGS, &flags);
	}
}

int image_create_file(const char *filename, bool nocow, struct hako_error *err)
{
	int fd = open(filename, O_RDWR | O_CREAT | O_CLOEXEC | O_NOCTTY, 0644);
	struct stat st;
	int ret;

	if (fd < 0)
		return error_errno(err, -errno, "%s", filename);
	if (fstat(fd, &st) < 0) {
		ret = error_errno(err, -errno, "%s", filename);
	} else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		ret = error_set(err, -EINVAL, "%s is neither a file nor a block device", filename);
	} else {
		/* Where the file system has no locks there is nothing to be seen. */
		ret = image_lock(fd, IMAGE_LOCK_WRITE, IMAGE_LOCK_READ | IMAGE_LOCK_WRITE, err);
		if (ret < 0 && ret != -EBUSY)
			ret = 0;
		if (ret < 0)
			error_prefix(err, "%s", filename);
	}
	if (ret == 0 && S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0)
		ret = error_errno(err, -errno, "%s", filename);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	if (nocow)
		set_nocow(fd);
	return fd;
}

int image_write_zeroes(int fd, uint64_t start, uint64_t end)
{
	void *zeroes = calloc(1, ZERO_BYTES);
	int ret = zeroes ? 0 : -ENOMEM;

	while (ret == 0 && start < end) {
		ssize_t n = pwrite(fd, zeroes, MIN(ZERO_BYTES, end - start), start);

		if (n > 0)
			start += n;
		else if (n == 0)
			ret = -ENOSPC;
		else if (errno != EINTR)
			ret = -errno;
	}
	free(zeroes);
	return ret;
}

static int set_length(int fd, uint64_t length)
{
	struct stat st;
	uint64_t device;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode))
		return st.st_size < length && ftruncate(fd, length) < 0 ? -errno : 0;
	if (ioctl(fd, BLKGETSIZE64, &device) < 0)
		return -errno;
	return length > device ? -ENOSPC : 0;
}

int image_preallocate(int fd, const char *filename, uint64_t start, uint64_t end,
		      enum block_prealloc prealloc, struct hako_error *err)
{
	int ret = set_length(fd, end);

	if (ret == 0 && prealloc == BLOCK_PREALLOC_FALLOC && start < end &&
	    fallocate(fd, 0, start, end - start) < 0) {
		ret = -errno;
		if (ret == -EOPNOTSUPP)
			return error_set(err, ret,
					 "%s: the file system has no preallocation=falloc",
					 filename);
	}
	if (ret == 0 && prealloc == BLOCK_PREALLOC_FULL)
		ret = image_write_zeroes(fd, start, end);
	if (ret < 0)
		return error_errno(err, ret, "%s: making room for %llu bytes", filename,
				   (unsigned long long)end);
	return 0;
}

/* --- raw --------------------------------------------------------------------------------------- */

struct raw_create {
	uint64_t size;
	int prealloc; /* enum block_prealloc */
	bool nocow;
};

static const struct option raw_create_options[] = {
	OPT_SIZE("size", struct raw_create, size, NULL, 0, 0, "size of the virtual disk"),
	OPT_ENUM("preallocation", struct raw_create, prealloc, NULL, image_prealloc_names,
		 "off, falloc or full: take the space on the host now"),
	OPT_BOOL("nocow", struct raw_create, nocow, NULL, "no copy on write, on btrfs"),
	OPT_END,
};

static int raw_create(const char *filename, const void *options, struct hako_error *err)
{
	const struct raw_create *o = options;
	int fd, ret;

	if (o->prealloc == BLOCK_PREALLOC_METADATA)
		return error_set(err, -EINVAL,
				 "preallocation=metadata: raw images have no metadata");
	fd = image_create_file(filename, o->nocow, err);
	if (fd < 0)
		return fd;
	ret = image_preallocate(fd, filename, 0, o->size, o->prealloc, err);
	close(fd);
	return ret;
}

static int raw_measure(const void *options, uint64_t data, struct image_measure *m,
		       struct hako_error *err)
{
	const struct raw_create *o = options;

	*m = (struct image_measure){.required = o->size, .fully_allocated = o->size};
	return 0;
}

static uint64_t raw_cluster_size(const void *options)
{
	return 512;
}

const struct image_format image_raw = {
	.name = "raw",
	.help = "the disk's bytes as they are",
	.create_options = raw_create_options,
	.create_size = sizeof(struct raw_create),
	.create = raw_create,
	.measure = raw_measure,
	.cluster_size = raw_cluster_size,
};
