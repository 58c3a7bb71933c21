/* SPDX-License-Identifier: GPL-2.0-only */
/* Which loops serve a device's queues. */
#ifndef VIRTIO_MAPPING_H
#define VIRTIO_MAPPING_H

#include "virtio.h"

/**
 * Give all queues of @vdev their loops: that of @iothread (NULL: the VM's), or as in @mapping, the option "iothread-vq-mapping" in QEMU's
 * form. In create.
 */
int virtio_map_queues(struct virtio_device *vdev, const char *iothread,
		      const struct option_tree *mapping, struct hako_error *err);

#endif
