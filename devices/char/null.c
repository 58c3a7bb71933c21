/* SPDX-License-Identifier: GPL-2.0-only */
/* chardev null: output is lost, input never comes. */
#include "devices/char/char.h"

static size_t null_write(struct chardev *chr, const uint8_t *buf, size_t len)
{
	return len;
}

static const struct chardev_ops null_ops = {
	.write = null_write,
};

static int null_create(struct object *obj, struct hako_error *err)
{
	struct chardev *chr = container_of(obj, struct chardev, obj);

	chr->ops = &null_ops;
	chr->open = true;
	return 0;
}

static const struct class null_class = {
	.name = "null",
	.help = "output is lost, input never comes",
	.kind = CLASS_CHARDEV,
	.size = sizeof(struct chardev),
	.ops = &null_ops,
	.create = null_create,
};
HAKO_CLASS(null_class);
