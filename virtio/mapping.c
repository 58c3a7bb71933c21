/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdlib.h>

#include "mapping.h"
#include "vmm/vm.h"

struct mapping {
	struct virtio_device *vdev;
	struct loop *loops[VIRTIO_MAX_QUEUES];
	unsigned int n, with_vqs;
};

/* One element of the list. */
struct item {
	char *iothread, **vqs;
};

static const struct option item_options[] = {
	OPT_STRING_REQUIRED("iothread", struct item, iothread, "the iothread's id"),
	OPT_LIST("vqs", struct item, vqs, "a queue's number"),
	OPT_END,
};

static int map_one(struct virtio_device *vdev, const char *text, struct loop *loop,
		   struct hako_error *err)
{
	uint64_t n;

	if (parse_uint(text, &n) < 0 || n >= vdev->nqueues)
		return error_set(err, -EINVAL, "vqs=%s: there are the queues 0 to %u", text,
				 vdev->nqueues - 1);
	if (vdev->vq[n].loop)
		return error_set(err, -EINVAL, "vqs=%s: the queue is mapped already", text);
	vdev->vq[n].loop = loop;
	return 0;
}

static int take_item(void *opaque, struct keyvals *kv, struct hako_error *err)
{
	struct mapping *m = opaque;
	struct item item = {0};
	struct loop *loop;
	int ret;

	if (m->n == ARRAY_SIZE(m->loops))
		return error_set(err, -EINVAL, "more than %u iothreads", m->n);
	ret = options_apply(item_options, &item, kv, true, err);
	if (ret == 0)
		ret = vm_iothread(m->vdev->obj.vm, item.iothread, &loop, err);
	if (ret == 0) {
		m->loops[m->n++] = loop;
		m->with_vqs += item.vqs != NULL;
	}
	for (char **v = item.vqs; v && *v && ret == 0; v++)
		ret = map_one(m->vdev, *v, loop, err);
	options_free(item_options, &item);
	return ret;
}

static int map_by_list(struct virtio_device *vdev, const struct option_tree *tree,
		       struct hako_error *err)
{
	static const char name[] = "iothread-vq-mapping";
	struct mapping m = {.vdev = vdev};
	int ret;

	for (uint32_t i = 0; i < vdev->nqueues; i++)
		vdev->vq[i].loop = NULL;
	ret = option_tree_items(tree, name, take_item, &m, err);
	if (ret < 0)
		return ret;
	if (m.with_vqs && m.with_vqs < m.n)
		return error_set(err, -EINVAL, "%s: all elements have vqs, or none", name);
	for (uint32_t i = 0; i < vdev->nqueues; i++) {
		if (m.with_vqs && !vdev->vq[i].loop)
			return error_set(err, -EINVAL, "%s: queue %u is missing", name, i);
		if (!m.with_vqs)
			vdev->vq[i].loop = m.loops[i % m.n];
	}
	return 0;
}

int virtio_map_queues(struct virtio_device *vdev, const char *iothread,
		      const struct option_tree *mapping, struct hako_error *err)
{
	struct loop *loop;
	int ret;

	if (mapping->kv.n && iothread)
		return error_set(err, -EINVAL,
				 "iothread and iothread-vq-mapping exclude each other");
	if (mapping->kv.n)
		return map_by_list(vdev, mapping, err);
	ret = vm_iothread(vdev->obj.vm, iothread, &loop, err);
	for (uint32_t i = 0; i < vdev->nqueues && ret == 0; i++)
		vdev->vq[i].loop = loop;
	return ret;
}
