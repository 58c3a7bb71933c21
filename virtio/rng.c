/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-rng (virtio 1.2, section 5.4): the host's random numbers. The smallest device type, hence also the example of one: an options
 * table, a state table, virtio_ops, create and destroy; one queue, which lives on one loop.
 */
#include <linux/virtio_ids.h>
#include <sys/random.h>

#include "virtio.h"
#include "vmm/vm.h"

#define RNG_QUEUE_SIZE	 64
#define RNG_MAX_SEGMENTS 64
/* A request gets so much at most, and the driver comes again: nobody else on this loop waits for long. */
#define RNG_MAX_REQUEST	 4096

struct virtio_rng {
	struct virtio_device vdev;
	char *rng;
	uint64_t max_bytes;
	uint32_t period_ms;

	/* The queue's loop's: how much may be given out until the period is over. Resets and pauses change nothing about it. */
	uint64_t quota, period_end;
	struct loop_timer timer;
};

static struct virtio_rng *to_rng(struct virtqueue *vq)
{
	return container_of(vq->vdev, struct virtio_rng, vdev);
}

/* Fill the buffers with @len bytes; how many there are. */
static size_t fill(const struct iovec *iov, unsigned int n, size_t len)
{
	size_t done = 0;

	for (unsigned int i = 0; i < n && done < len; i++) {
		ssize_t r = getrandom(iov[i].iov_base, MIN(iov[i].iov_len, len - done), 0);

		if (r <= 0)
			break;
		done += r;
	}
	return done;
}

/* How much may be given out now? */
static uint64_t quota(struct virtio_rng *rng)
{
	uint64_t now;

	if (!rng->max_bytes)
		return UINT64_MAX;
	now = clock_now();
	if (now >= rng->period_end) {
		rng->quota = rng->max_bytes;
		rng->period_end = now + rng->period_ms * 1000000ull;
	}
	return rng->quota;
}

static void rng_handle(struct virtqueue *vq)
{
	struct virtio_rng *rng = to_rng(vq);
	struct iovec iov[RNG_MAX_SEGMENTS];
	struct virtq_chain chain;
	uint64_t left;

	while ((left = quota(rng)) > 0 && virtq_pop(vq, &chain, iov, RNG_MAX_SEGMENTS) == 1) {
		size_t len = MIN(MIN(chain.in_len, RNG_MAX_REQUEST), left);

		len = fill(iov + chain.nout, chain.nin, len);
		virtq_push(vq, chain.head, len);
		rng->quota -= len;
	}
	/* Without a quota left the requests stay in the ring. */
	if (!left)
		loop_timer_set(vq->loop, &rng->timer, rng->period_end);
}

static void rng_period_over(struct loop_timer *timer)
{
	rng_handle(&container_of(timer, struct virtio_rng, timer)->vdev.vq[0]);
}

static void rng_drain(struct virtqueue *vq)
{
	loop_timer_cancel(&to_rng(vq)->timer);
	virtq_stopped(vq);
}

static const struct virtio_ops rng_ops = {
	.name = "virtio-rng",
	.device_id = VIRTIO_ID_RNG,
	.pci_class = 0x00ff00, /* as QEMU's: other */
	.needs = SANDBOX_RANDOM,
	.handle = rng_handle,
	.drain = rng_drain,
};

static int rng_create(struct object *obj, struct hako_error *err)
{
	struct virtio_rng *rng = container_of(obj, struct virtio_rng, vdev.obj);
	int r = virtio_device_init(&rng->vdev, &rng_ops, 1, RNG_QUEUE_SIZE, err);

	if (r)
		return r;
	rng->timer.fn = rng_period_over;
	r = virtio_device_attach(&rng->vdev, err);
	if (r)
		virtio_device_free(&rng->vdev);
	return r;
}

static void rng_destroy(struct object *obj)
{
	virtio_device_free(container_of(obj, struct virtio_device, obj));
}

static const struct option rng_options[] = {
	OPT_STRING("rng", struct virtio_rng, rng, NULL,
		   "id of the source; there is one only, the host kernel's"),
	OPT_SIZE("max-bytes", struct virtio_rng, max_bytes, "0", 0, 0,
		 "bytes that the guest may draw in each period, 0: any number"),
	OPT_UINT("period", struct virtio_rng, period_ms, "65536", 1, UINT32_MAX,
		 "length of the period in milliseconds"),
	OPT_END,
};

static const struct state_field rng_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_rng, vdev, &virtio_device_state),
	STATE_END,
};

static const struct state_table rng_state = {
	.name = "virtio-rng",
	.version = 1,
	.min_version = 1,
	.fields = rng_fields,
};

VIRTIO_CLASS(virtio_rng, "virtio-rng", "random numbers from the host", struct virtio_rng,
	     rng_options, &rng_state, rng_create, rng_destroy);
