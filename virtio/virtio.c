/* SPDX-License-Identifier: GPL-2.0-only */
/* The virtio device: status, features, starting and stopping (virtio 1.2, sections 2.1, 2.2 and 3.1). */
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_ring.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "queue.h"
#include "transport.h"
#include "vmm/vm.h"

int virtio_device_init(struct virtio_device *vdev, const struct virtio_ops *ops, uint16_t nqueues,
		       uint16_t queue_size, struct hako_error *err)
{
	if (!nqueues || nqueues > VIRTIO_MAX_QUEUES)
		return error_set(err, -EINVAL, "%u queues: 1 to %u are possible", nqueues,
				 VIRTIO_MAX_QUEUES);
	if (!IS_POWER_OF_2(queue_size) || queue_size > VIRTIO_QUEUE_MAX_SIZE)
		return error_set(err, -EINVAL, "queue size %u: must be a power of 2, at most %u",
				 queue_size, VIRTIO_QUEUE_MAX_SIZE);
	vdev->vq = calloc(nqueues, sizeof(*vdev->vq));
	if (!vdev->vq)
		return error_errno(err, -ENOMEM, "queues");
	vdev->ops = ops;
	vdev->nqueues = nqueues;
	for (uint16_t i = 0; i < nqueues; i++)
		virtq_init(&vdev->vq[i], vdev, i, queue_size);
	pthread_mutex_init(&vdev->lock, NULL);
	pthread_mutex_init(&vdev->stop_lock, NULL);
	pthread_cond_init(&vdev->stop_cond, NULL);
	return 0;
}

int virtio_device_attach(struct virtio_device *vdev, struct hako_error *err)
{
	vdev->host_features = BIT64(VIRTIO_F_VERSION_1);
	if (vdev->opt.event_idx)
		vdev->host_features |= BIT64(VIRTIO_RING_F_EVENT_IDX);
	if (vdev->opt.indirect_desc)
		vdev->host_features |= BIT64(VIRTIO_RING_F_INDIRECT_DESC);
	if (vdev->opt.packed)
		vdev->host_features |= BIT64(VIRTIO_F_RING_PACKED);
	if (vdev->opt.queue_reset)
		vdev->host_features |= BIT64(VIRTIO_F_RING_RESET);
	if (vdev->ops->features)
		vdev->host_features |= vdev->ops->features(vdev);
	if (vdev->obj.class->bus == BUS_VIRTIO_PCI)
		return virtio_pci_attach(vdev, err);
	return virtio_mmio_attach(vdev, err);
}

/* --- starting and stopping ------------------------------------------------------------------- */

/* Something to do with all queues of a loop that are to be started, or stopped, in one call into it. */
struct loop_job {
	struct virtio_device *vdev;
	struct loop *loop;
	bool start;
};

static bool job_concerns(const struct virtqueue *vq, bool start)
{
	return start ? vq->enabled && !vq->running : vq->running;
}

static void loop_job(void *arg)
{
	struct loop_job *job = arg;

	for (uint32_t i = 0; i < job->vdev->nqueues; i++) {
		struct virtqueue *vq = &job->vdev->vq[i];

		if (vq->loop != job->loop || !job_concerns(vq, job->start))
			continue;
		if (job->start)
			virtq_start(vq);
		else
			virtq_drain(vq);
	}
}

static void for_each_loop(struct virtio_device *vdev, bool start)
{
	struct loop_job job = {.vdev = vdev, .start = start};
	struct loop *done[VIRTIO_MAX_QUEUES];
	unsigned int n = 0, k;

	for (uint32_t i = 0; i < vdev->nqueues; i++) {
		struct virtqueue *vq = &vdev->vq[i];

		for (k = 0; k < n && done[k] != vq->loop; k++)
			;
		if (k < n || !job_concerns(vq, start))
			continue;
		done[n++] = job.loop = vq->loop;
		loop_call(job.loop, loop_job, &job);
	}
}

static void wait_stopped(struct virtio_device *vdev)
{
	pthread_mutex_lock(&vdev->stop_lock);
	while (vdev->stopping)
		pthread_cond_wait(&vdev->stop_cond, &vdev->stop_lock);
	pthread_mutex_unlock(&vdev->stop_lock);
}

static void stop_queues(struct virtio_device *vdev)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < vdev->nqueues; i++)
		n += vdev->vq[i].running;
	if (!n)
		return;
	vdev->stopping = n; /* before the loops know of it */
	for_each_loop(vdev, false);
	wait_stopped(vdev);
}

/* Let all queues run that may. */
static void start_queues(struct virtio_device *vdev)
{
	if (vdev->started && !vdev->paused && !vdev->no_dma && !READ_ONCE(vdev->broken))
		for_each_loop(vdev, true);
}

static int make_doorbell(struct virtqueue *vq)
{
	if (vq->kick_fd < 0)
		vq->kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return vq->kick_fd < 0 ? -errno : 0;
}

/* What a queue needs to run, once the driver has enabled it. */
static bool prepare_queue(struct virtqueue *vq)
{
	const char *why = virtq_map(vq);

	if (!why && make_doorbell(vq))
		why = strerror(errno);
	if (why)
		virtio_broken(vq->vdev, "queue %u: %s", vq->index, why);
	return !why;
}

static void start(struct virtio_device *vdev)
{
	if (vdev->started || READ_ONCE(vdev->broken))
		return;
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		if (vdev->vq[i].enabled && !prepare_queue(&vdev->vq[i]))
			return;
	if (vdev->ops->start && vdev->ops->start(vdev)) {
		virtio_broken(vdev, "can not start");
		return;
	}
	vdev->transport_ops->doorbells(vdev, true);
	vdev->started = true;
	start_queues(vdev);
}

static void stop(struct virtio_device *vdev)
{
	if (!vdev->started)
		return;
	stop_queues(vdev);
	if (vdev->obj.vm->state != VM_ENDED) /* else KVM forgets them all at once */
		vdev->transport_ops->doorbells(vdev, false);
	vdev->started = false;
	if (vdev->ops->stop)
		vdev->ops->stop(vdev);
}

/* 2.4 */
static void reset(struct virtio_device *vdev)
{
	stop(vdev);
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		virtq_reset(&vdev->vq[i]);
	vdev->guest_features = 0;
	vdev->transport_ops->reset(vdev);
	WRITE_ONCE(vdev->broken, false);
	__atomic_store_n(&vdev->status, 0, __ATOMIC_SEQ_CST);
}

void virtio_device_free(struct virtio_device *vdev)
{
	if (!vdev->vq)
		return;
	if (vdev->transport_ops) {
		pthread_mutex_lock(&vdev->lock);
		stop(vdev);
		pthread_mutex_unlock(&vdev->lock);
	}
	if (vdev->pci)
		virtio_pci_detach(vdev);
	if (vdev->mmio)
		virtio_mmio_detach(vdev);
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		if (vdev->vq[i].kick_fd >= 0)
			close(vdev->vq[i].kick_fd);
	free(vdev->vq);
	vdev->vq = NULL;
	pthread_mutex_destroy(&vdev->lock);
	pthread_mutex_destroy(&vdev->stop_lock);
	pthread_cond_destroy(&vdev->stop_cond);
}

void virtio_device_reset(struct object *obj)
{
	struct virtio_device *vdev = container_of(obj, struct virtio_device, obj);

	pthread_mutex_lock(&vdev->lock);
	reset(vdev);
	pthread_mutex_unlock(&vdev->lock);
	if (vdev->pci)
		virtio_pci_reset_function(vdev);
}

void virtio_device_pause(struct object *obj)
{
	struct virtio_device *vdev = container_of(obj, struct virtio_device, obj);

	pthread_mutex_lock(&vdev->lock);
	vdev->paused = true;
	stop_queues(vdev);
	pthread_mutex_unlock(&vdev->lock);
}

void virtio_device_resume(struct object *obj)
{
	struct virtio_device *vdev = container_of(obj, struct virtio_device, obj);

	pthread_mutex_lock(&vdev->lock);
	vdev->paused = false;
	if (vdev->started)
		start_queues(vdev);
	else if (virtio_get_status(vdev) & VIRTIO_CONFIG_S_DRIVER_OK)
		start(vdev);
	pthread_mutex_unlock(&vdev->lock);
}

int virtio_device_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct virtio_device *vdev = container_of(obj, struct virtio_device, obj);
	int ret = 0;

	for (uint32_t i = 0; i < vdev->nqueues && !ret; i++)
		ret = make_doorbell(&vdev->vq[i]);
	if (vdev->pci)
		virtio_pci_confine(vdev);
	sandbox_need(sb, vdev->ops->needs);
	if (ret)
		return error_errno(err, ret, "eventfd for a queue");
	return vdev->ops->confine ? vdev->ops->confine(vdev, sb, err) : 0;
}

void virtio_set_dma(struct virtio_device *vdev, bool on)
{
	pthread_mutex_lock(&vdev->lock);
	vdev->no_dma = !on;
	if (on)
		start_queues(vdev);
	else
		stop_queues(vdev);
	pthread_mutex_unlock(&vdev->lock);
}

/* --- status ---------------------------------------------------------------------------------- */

uint8_t virtio_get_status(struct virtio_device *vdev)
{
	return __atomic_load_n(&vdev->status, __ATOMIC_SEQ_CST);
}

static uint8_t add_status(struct virtio_device *vdev, uint8_t bits)
{
	return __atomic_or_fetch(&vdev->status, bits, __ATOMIC_SEQ_CST);
}

/* 3.1.1, step 5: what the driver wants must have been offered, and it must not be a legacy driver. */
static bool features_ok(struct virtio_device *vdev)
{
	uint64_t features = vdev->guest_features;

	if (features & ~vdev->host_features || !(features & BIT64(VIRTIO_F_VERSION_1)))
		return false;
	return !vdev->ops->accept_features || vdev->ops->accept_features(vdev, features);
}

void virtio_set_status(struct virtio_device *vdev, uint8_t status)
{
	uint8_t old = virtio_get_status(vdev), add;

	if (!status) {
		reset(vdev);
		return;
	}
	/* 2.1.1: the driver clears no bit but by a reset; NEEDS_RESET is the device's. */
	add = status & ~old & ~VIRTIO_CONFIG_S_NEEDS_RESET;
	if ((add & VIRTIO_CONFIG_S_FEATURES_OK) && !features_ok(vdev))
		add &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if ((add & VIRTIO_CONFIG_S_DRIVER_OK) && !((old | add) & VIRTIO_CONFIG_S_FEATURES_OK)) {
		virtio_broken(vdev, "DRIVER_OK without FEATURES_OK");
		add &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	}
	add_status(vdev, add);
	if (add & VIRTIO_CONFIG_S_DRIVER_OK)
		start(vdev);
}

static void need_reset(struct virtio_device *vdev, const char *culprit, const char *fmt, va_list ap)
{
	const char *name = vdev->obj.id ?: vdev->ops->name;
	char why[160];

	if (__atomic_exchange_n(&vdev->broken, true, __ATOMIC_SEQ_CST))
		return;
	vsnprintf(why, sizeof(why), fmt, ap);
	vm_guest_error(vdev->obj.vm, "%s: stopped%s: %s", name, culprit, why);
	for (uint32_t i = 0; i < vdev->nqueues; i++)
		virtq_abandon(&vdev->vq[i]);
	/* 2.1.2 */
	if (add_status(vdev, VIRTIO_CONFIG_S_NEEDS_RESET) & VIRTIO_CONFIG_S_DRIVER_OK)
		vdev->transport_ops->notify_config(vdev);
}

void virtio_broken(struct virtio_device *vdev, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	need_reset(vdev, ", as the guest's driver broke the rules", fmt, ap);
	va_end(ap);
}

void virtio_failed(struct virtio_device *vdev, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	need_reset(vdev, " until its driver resets it", fmt, ap);
	va_end(ap);
}

void virtio_config_changed(struct virtio_device *vdev)
{
	__atomic_add_fetch(&vdev->config_generation, 1, __ATOMIC_SEQ_CST);
	if (virtio_get_status(vdev) & VIRTIO_CONFIG_S_DRIVER_OK)
		vdev->transport_ops->notify_config(vdev);
}

/* --- what transports ask for ----------------------------------------------------------------- */

uint32_t virtio_get_features(uint64_t features, uint32_t select)
{
	return select < 2 ? features >> (32 * select) : 0;
}

void virtio_set_features(struct virtio_device *vdev, uint32_t select, uint32_t value)
{
	if (select >= 2 || (virtio_get_status(vdev) & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	vdev->guest_features &= ~((uint64_t)UINT32_MAX << (32 * select));
	vdev->guest_features |= (uint64_t)value << (32 * select);
}

uint64_t virtio_config_read(struct virtio_device *vdev, uint64_t offset, unsigned int size)
{
	size_t have = vdev->ops->config_size;
	uint8_t buf[8] = {0};

	if (offset < have && vdev->ops->config_read)
		vdev->ops->config_read(vdev, offset, buf, MIN(size, have - offset));
	return get_le64(buf);
}

void virtio_config_write(struct virtio_device *vdev, uint64_t offset, uint64_t value,
			 unsigned int size)
{
	uint8_t buf[8];

	put_le64(buf, value);
	if (offset + size <= vdev->ops->config_size && vdev->ops->config_write)
		vdev->ops->config_write(vdev, offset, buf, size);
}

bool virtio_queue_enable(struct virtqueue *vq)
{
	struct virtio_device *vdev = vq->vdev;
	const char *why;

	if (vq->enabled)
		return true;
	virtq_rewind(vq);
	why = virtq_map(vq);
	if (why) {
		virtio_broken(vdev, "queue %u: %s", vq->index, why);
		return false;
	}
	vq->enabled = true;
	if (!vdev->started || READ_ONCE(vdev->broken) || !prepare_queue(vq))
		return true;
	vdev->transport_ops->doorbells(vdev, true);
	start_queues(vdev);
	return true;
}

static void drain_one(void *arg)
{
	virtq_drain(arg);
}

void virtio_queue_disable(struct virtqueue *vq)
{
	uint16_t vector = vq->msix_vector;
	int fd = vq->notify_fd;

	if (vq->running) {
		vq->vdev->stopping = 1;
		loop_call(vq->loop, drain_one, vq);
		wait_stopped(vq->vdev);
	}
	virtq_reset(vq);
	vq->msix_vector = vector;
	WRITE_ONCE(vq->notify_fd, fd);
	if (vq->vdev->ops->queue_reset)
		vq->vdev->ops->queue_reset(vq);
}

void virtio_queue_reset(struct virtqueue *vq)
{
	if (vq->enabled && virtio_has_feature(vq->vdev, VIRTIO_F_RING_RESET))
		virtio_queue_disable(vq);
}

void virtio_queue_kick(struct virtio_device *vdev, uint16_t index)
{
	if (index < vdev->nqueues && vdev->vq[index].enabled && vdev->vq[index].kick_fd >= 0)
		eventfd_write(vdev->vq[index].kick_fd, 1);
}

/* --- state ----------------------------------------------------------------------------------- */

static const struct state_field virtqueue_fields[] = {
	STATE_FIELD_UINT(struct virtqueue, size),
	STATE_FIELD_UINT(struct virtqueue, enabled),
	STATE_FIELD_UINT(struct virtqueue, desc_gpa),
	STATE_FIELD_UINT(struct virtqueue, avail_gpa),
	STATE_FIELD_UINT(struct virtqueue, used_gpa),
	STATE_FIELD_UINT(struct virtqueue, msix_vector),
	STATE_FIELD_UINT(struct virtqueue, last_avail),
	STATE_FIELD_UINT(struct virtqueue, used_idx),
	STATE_FIELD_UINT(struct virtqueue, nparked),
	STATE_END,
};

static int virtqueue_loaded(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtqueue *vq = obj;
	const char *why = NULL;

	if (vq->enabled)
		why = virtq_map(vq);
	else if (vq->size > vq->max_size)
		why = "bad size";
	return why ? error_set(err, -EBADMSG, "%s", why) : 0;
}

static const struct state_table virtqueue_state = {
	.name = "virtqueue",
	.version = 1,
	.min_version = 1,
	.fields = virtqueue_fields,
	.post_load = virtqueue_loaded,
};

static const struct state_field virtio_device_fields[] = {
	STATE_FIELD_UINT(struct virtio_device, guest_features),
	STATE_FIELD_UINT(struct virtio_device, status),
	STATE_FIELD_UINT(struct virtio_device, isr),
	STATE_FIELD_UINT(struct virtio_device, config_generation),
	STATE_FIELD_PTR(struct virtio_device, vq, nqueues, &virtqueue_state),
	STATE_FIELD_PTR(struct virtio_device, pci, npci, &virtio_pci_state),
	STATE_FIELD_PTR(struct virtio_device, mmio, nmmio, &virtio_mmio_state),
	STATE_END,
};

static int virtio_device_loaded(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtio_device *vdev = obj;
	uint8_t status = vdev->status;

	if ((status & VIRTIO_CONFIG_S_FEATURES_OK) && !features_ok(vdev))
		return error_set(err, -EBADMSG, "features %#llx, this one has %#llx",
				 (unsigned long long)vdev->guest_features,
				 (unsigned long long)vdev->host_features);
	if ((status & VIRTIO_CONFIG_S_DRIVER_OK) && !(status & VIRTIO_CONFIG_S_FEATURES_OK))
		return error_set(err, -EBADMSG, "bad status %#x", status);
	vdev->broken = status & VIRTIO_CONFIG_S_NEEDS_RESET;
	vdev->paused = true;
	return vdev->transport_ops->loaded(vdev, err);
}

const struct state_table virtio_device_state = {
	.name = "virtio",
	.version = 1,
	.min_version = 1,
	.fields = virtio_device_fields,
	.post_load = virtio_device_loaded,
};
