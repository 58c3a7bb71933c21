/* SPDX-License-Identifier: GPL-2.0-only */
/* chardev file: output goes to a file, input comes from another one or not at all. */
#include <fcntl.h>
#include <unistd.h>

#include "devices/char/fd.h"
#include "vmm/vm.h"

struct char_file {
	struct chardev chr;
	char *path, *input_path;
	bool append;
	struct char_fd cf;
};

static struct char_file *to_file(struct chardev *chr)
{
	return container_of(chr, struct char_file, chr);
}

static size_t file_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	return char_fd_write(&to_file(chr)->cf, buf, len);
}

static void file_accept(struct chardev *chr)
{
	char_fd_accept(&to_file(chr)->cf);
}

static const struct chardev_ops file_ops = {
	.write = file_write,
	.accept_input = file_accept,
};

static void file_closed(struct char_fd *cf, bool output, int code)
{
	if (output)
		vm_log(cf->chr->obj.vm, "%s: %s; output from now on is lost",
		       container_of(cf, struct char_file, cf)->path, strerror(-code));
}

struct start {
	struct char_file *f;
	struct hako_error *err;
	int ret;
};

static void start(void *arg)
{
	struct start *st = arg;

	st->f->chr.open = true;
	st->ret = char_fd_start(&st->f->cf, st->err);
}

static void stop(void *arg)
{
	struct char_file *f = arg;

	char_fd_stop(&f->cf);
}

static int file_create(struct object *obj, struct hako_error *err)
{
	struct char_file *f = container_of(obj, struct char_file, chr.obj);
	struct char_fd *cf = &f->cf;
	struct start st = {f, err, 0};

	f->chr.ops = &file_ops;
	char_fd_init(cf, &f->chr, obj->vm->io_loop);
	cf->closed = file_closed;
	/* O_NONBLOCK: a FIFO that nobody reads is an error, not a wait. */
	cf->out_fd = open(f->path,
			  O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
				  (f->append ? O_APPEND : O_TRUNC),
			  0666);
	if (cf->out_fd < 0 && errno == ENXIO)
		return error_set(err, -ENXIO, "%s: nobody reads this FIFO, or it is a socket",
				 f->path);
	if (cf->out_fd < 0)
		return error_errno(err, -errno, "%s", f->path);
	cf->out_kind = char_fd_own(cf->out_fd);
	if (f->input_path) {
		cf->in_fd = open(f->input_path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
		if (cf->in_fd < 0) {
			error_errno(err, -errno, "%s", f->input_path);
			close(cf->out_fd);
			return err ? err->code : -EIO;
		}
		cf->in_kind = char_fd_own(cf->in_fd);
	}
	loop_call(cf->loop, start, &st);
	if (st.ret)
		loop_call(cf->loop, stop, f);
	return st.ret;
}

static void file_destroy(struct object *obj)
{
	struct char_file *f = container_of(obj, struct char_file, chr.obj);

	loop_call(f->cf.loop, stop, f);
	/* A message that was under way when it stopped. */
	loop_call(f->cf.loop, stop, f);
}

static const struct option file_options[] = {
	OPT_STRING_REQUIRED("path", struct char_file, path,
			    "file for output, made if it is not there"),
	OPT_BOOL("append", struct char_file, append, "off", "keep what is in the file"),
	OPT_STRING("input-path", struct char_file, input_path, NULL, "file that input comes from"),
	OPT_END,
};

static const struct class file_class = {
	.name = "file",
	.help = "output to a file",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct char_file),
	.options = file_options,
	.ops = &file_ops,
	.create = file_create,
	.destroy = file_destroy,
};
HAKO_CLASS(file_class);
