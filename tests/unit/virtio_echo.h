/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device type for tests of transports: two queues that copy what is readable to what is writable, and 12 bytes of configuration
 * space, the last four of which the driver may write. Queue 1 is on an iothread of its own.
 */
#ifndef TESTS_UNIT_VIRTIO_ECHO_H
#define TESTS_UNIT_VIRTIO_ECHO_H

#include "virtio/virtio.h"
#include "vmm/vm.h"

#define ECHO_ID	     63
#define ECHO_QSIZE   64
#define ECHO_QUEUES  2
#define ECHO_CLASS   0x078000 /* PCI: other communication device */
#define ECHO_FEATURE 5

struct echo {
	struct virtio_device vdev;
	uint8_t config[12];
	unsigned int handled; /* of queue 0 */
	bool on_its_loop;     /* all calls came in the right thread */
};

static void echo_handle(struct virtqueue *vq)
{
	struct echo *echo = container_of(vq->vdev, struct echo, vdev);
	struct virtq_chain chain;
	struct iovec iov[32];
	uint8_t buf[128];

	if (!loop_is_current(vq->loop))
		echo->on_its_loop = false;
	while (virtq_pop(vq, &chain, iov, ARRAY_SIZE(iov)) == 1) {
		size_t n = iov_read(iov, chain.nout, 0, buf, sizeof(buf));

		n = iov_write(iov + chain.nout, chain.nin, 0, buf, n);
		virtq_push(vq, chain.head, n);
		if (vq->index == 0)
			echo->handled++;
	}
}

static void echo_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	struct echo *echo = container_of(vdev, struct echo, vdev);

	ck_assert_uint_le(offset + len, sizeof(echo->config));
	memcpy(buf, echo->config + offset, len);
}

static void echo_config_write(struct virtio_device *vdev, uint32_t offset, const void *buf,
			      uint32_t len)
{
	struct echo *echo = container_of(vdev, struct echo, vdev);

	ck_assert_uint_le(offset + len, sizeof(echo->config));
	if (offset >= 8)
		memcpy(echo->config + offset, buf, len);
}

static uint64_t echo_features(struct virtio_device *vdev)
{
	return BIT64(ECHO_FEATURE);
}

static const struct virtio_ops echo_ops = {
	.name = "echo",
	.device_id = ECHO_ID,
	.pci_class = ECHO_CLASS,
	.config_size = 12,
	.features = echo_features,
	.config_read = echo_config_read,
	.config_write = echo_config_write,
	.handle = echo_handle,
};

static int echo_create(struct object *obj, struct hako_error *err)
{
	struct echo *echo = container_of(obj, struct echo, vdev.obj);
	int r = virtio_device_init(&echo->vdev, &echo_ops, ECHO_QUEUES, ECHO_QSIZE, err);

	if (r)
		return r;
	echo->on_its_loop = true;
	for (int i = 0; i < 12; i++)
		echo->config[i] = 0x10 + i;
	r = vm_iothread(obj->vm, "second", &echo->vdev.vq[1].loop, err);
	if (!r)
		r = virtio_device_attach(&echo->vdev, err);
	if (r)
		virtio_device_free(&echo->vdev);
	return r;
}

static void echo_destroy(struct object *obj)
{
	virtio_device_free((struct virtio_device *)obj);
}

static const struct state_field echo_fields[] = {
	STATE_FIELD_STRUCT(struct echo, vdev, &virtio_device_state),
	STATE_FIELD_BYTES(struct echo, config),
	STATE_END,
};

static const struct state_table echo_state = {"echo", 1, 1, echo_fields, NULL, NULL};

VIRTIO_CLASS(echo, "echo", "for tests", struct echo, NULL, &echo_state, echo_create, echo_destroy);

/* Marsaglia's xorshift64: the same numbers everywhere. */
static inline uint32_t echo_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state >> 16;
}

#endif
