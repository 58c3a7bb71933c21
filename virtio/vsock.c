/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-vsock (virtio 1.2, section 5.10): stream sockets between guest and host without a network. The host's ends are Unix sockets, by
 * Firecracker's convention: vsock_conn.c.
 *
 * A chain is taken, filled or read, and returned at once, so nothing is ever in flight. What is sent to the guest waits in the connections and
 * in a table of replies for receive buffers; while that table is full, nothing is taken that might need a reply (5.10.6.1.2: no deadlock, since
 * the driver has to fill the receive queue whatever becomes of what it sends).
 */
#include "virtio/vsock.h"

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>

#include "vmm/iov.h"
#include "vmm/vm.h"

#define QUEUE_SIZE 128
#define RX	   0
#define TX	   1
#define EVENT	   2
#define QUEUES	   3

#define HEADER	 sizeof(struct virtio_vsock_hdr)
#define SEGMENTS 64

static struct virtio_vsock *to_vsock(struct virtio_device *vdev)
{
	return container_of(vdev, struct virtio_vsock, vdev);
}

/* --- to the guest ------------------------------------------------------------------------------ */

static void put_header(const struct iovec *iov, unsigned int n, const struct vsock_header *h)
{
	struct virtio_vsock_hdr raw = {
		.src_cid = htole64(h->src_cid),
		.dst_cid = htole64(h->dst_cid),
		.src_port = htole32(h->src_port),
		.dst_port = htole32(h->dst_port),
		.len = htole32(h->len),
		.type = htole16(h->type),
		.op = htole16(h->op),
		.flags = htole32(h->flags),
		.buf_alloc = htole32(h->buf_alloc),
		.fwd_cnt = htole32(h->fwd_cnt),
	};

	iov_write(iov, n, 0, &raw, sizeof(raw));
}

static void fill(struct virtio_vsock *v)
{
	struct virtqueue *vq = &v->vdev.vq[RX];
	struct iovec iov[SEGMENTS], rest[SEGMENTS], *data;
	struct virtq_chain chain;
	struct vsock_header h;
	unsigned int n;

	while (vsock_has_next(v) && virtq_pop(vq, &chain, iov, SEGMENTS) == 1) {
		if (chain.in_len <= HEADER) {
			virtq_unpop(vq, &chain);
			virtio_broken(vq->vdev, "a receive buffer of %u bytes", chain.in_len);
			return;
		}
		memcpy(rest, iov + chain.nout, chain.nin * sizeof(*iov));
		data = rest;
		n = iov_skip(&data, chain.nin, HEADER);
		if (!vsock_next(v, &h, data, n, chain.in_len - HEADER)) {
			virtq_unpop(vq, &chain);
			return;
		}
		put_header(iov + chain.nout, chain.nin, &h);
		virtq_push(vq, chain.head, HEADER + h.len);
	}
}

/* --- from the guest ---------------------------------------------------------------------------- */

static void get_header(const struct iovec *iov, unsigned int n, struct vsock_header *h)
{
	struct virtio_vsock_hdr raw;

	iov_read(iov, n, 0, &raw, sizeof(raw));
	*h = (struct vsock_header){
		.src_cid = le64toh(raw.src_cid),
		.dst_cid = le64toh(raw.dst_cid),
		.src_port = le32toh(raw.src_port),
		.dst_port = le32toh(raw.dst_port),
		.len = le32toh(raw.len),
		.type = le16toh(raw.type),
		.op = le16toh(raw.op),
		.flags = le32toh(raw.flags),
		.buf_alloc = le32toh(raw.buf_alloc),
		.fwd_cnt = le32toh(raw.fwd_cnt),
	};
}

/* False: no more for now. */
static bool take_one(struct virtio_vsock *v)
{
	struct virtqueue *vq = &v->vdev.vq[TX];
	struct iovec iov[SEGMENTS], *data = iov;
	struct virtq_chain chain;
	struct vsock_header h;
	unsigned int n;

	if (virtq_pop(vq, &chain, iov, SEGMENTS) != 1)
		return false;
	if (chain.out_len < HEADER) {
		virtq_unpop(vq, &chain);
		virtio_broken(vq->vdev, "a packet of %u bytes", chain.out_len);
		return false;
	}
	get_header(iov, chain.nout, &h);
	n = iov_skip(&data, chain.nout, HEADER);
	if (h.len > chain.out_len - HEADER) {
		virtq_unpop(vq, &chain);
		virtio_broken(vq->vdev, "a packet of %u bytes in %u", h.len, chain.out_len);
		return false;
	}
	vsock_receive(v, &h, data, n);
	virtq_push(vq, chain.head, 0);
	return true;
}

/* True: replies have to go first. */
static bool take_all(struct virtio_vsock *v)
{
	while (v->nreplies < VSOCK_REPLIES)
		if (!take_one(v))
			return false;
	return true;
}

/* Receive buffers make room for replies, and that for packets. */
static void serve(struct virtio_vsock *v)
{
	do {
		fill(v);
		if (v->nreplies == VSOCK_REPLIES)
			return;
	} while (take_all(v));
	fill(v);
}

void vsock_wake(struct virtio_vsock *v)
{
	serve(v);
}

/* --- events ------------------------------------------------------------------------------------ */

static void tell_reset(struct virtio_vsock *v)
{
	struct virtqueue *vq = &v->vdev.vq[EVENT];
	const uint32_t id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	struct iovec iov[SEGMENTS];
	struct virtq_chain chain;

	if (!v->reset_event || virtq_pop(vq, &chain, iov, SEGMENTS) != 1)
		return;
	if (chain.in_len < sizeof(id)) {
		virtq_unpop(vq, &chain);
		virtio_broken(vq->vdev, "an event buffer of %u bytes", chain.in_len);
		return;
	}
	iov_write(iov + chain.nout, chain.nin, 0, &id, sizeof(id));
	virtq_push(vq, chain.head, sizeof(id));
	v->reset_event = false;
}

/* --- the device -------------------------------------------------------------------------------- */

static void vsock_handle(struct virtqueue *vq)
{
	struct virtio_vsock *v = to_vsock(vq->vdev);

	if (vq->index == EVENT)
		tell_reset(v);
	else
		serve(v);
}

static void vsock_config_read(struct virtio_device *vdev, uint32_t offset, void *buf, uint32_t len)
{
	uint8_t config[8];

	put_le64(config, to_vsock(vdev)->guest_cid);
	memcpy(buf, config + offset, len);
}

static void stop_in_loop(void *arg)
{
	vsock_close_all(arg);
}

static void vsock_stop(struct virtio_device *vdev)
{
	struct virtio_vsock *v = to_vsock(vdev);

	loop_call(v->loop, stop_in_loop, v);
	v->reset_event = false;
}

static int vsock_confine(struct virtio_device *vdev, struct sandbox *sb, struct hako_error *err)
{
	struct virtio_vsock *v = to_vsock(vdev);
	int ret = sandbox_allow_removal(sb, v->path);

	return ret ? error_errno(err, ret, "path=%s: its directory", v->path) : 0;
}

static const struct virtio_ops vsock_ops = {
	.name = "virtio-vsock",
	.device_id = VIRTIO_ID_VSOCK,
	.pci_class = 0x078000, /* as QEMU's vhost-vsock */
	.config_size = sizeof(struct virtio_vsock_config),
	.needs = SANDBOX_SOCKET | SANDBOX_LOCAL,
	.config_read = vsock_config_read,
	.stop = vsock_stop,
	.handle = vsock_handle,
	.confine = vsock_confine,
};

struct start {
	struct virtio_vsock *v;
	struct hako_error *err;
	int ret;
};

static void start_in_loop(void *arg)
{
	struct start *s = arg;

	s->ret = vsock_accept_start(s->v, s->err);
}

static void end_in_loop(void *arg)
{
	struct virtio_vsock *v = arg;

	loop_watch_stop(&v->listen);
	loop_timer_cancel(&v->timer);
	vsock_close_all(v);
}

static void vsock_destroy(struct object *obj)
{
	struct virtio_vsock *v = container_of(obj, struct virtio_vsock, vdev.obj);

	virtio_device_free(&v->vdev);
	loop_call(v->loop, end_in_loop, v);
	vsock_unlisten(v);
}

static int vsock_create(struct object *obj, struct hako_error *err)
{
	struct virtio_vsock *v = container_of(obj, struct virtio_vsock, vdev.obj);
	struct start s = {.v = v, .err = err};
	int ret;

	v->loop = obj->vm->io_loop;
	list_init(&v->asked);
	list_init(&v->pending);
	for (int i = 0; i < VSOCK_HASH; i++)
		list_init(&v->hash[i]);
	v->next_port = BIT(30); /* Firecracker's first */
	ret = vsock_listen(v, err);
	if (ret)
		return ret;
	ret = virtio_device_init(&v->vdev, &vsock_ops, QUEUES, QUEUE_SIZE, err);
	if (ret) {
		vsock_unlisten(v);
		return ret;
	}
	loop_call(v->loop, start_in_loop, &s);
	ret = s.ret ?: virtio_device_attach(&v->vdev, err);
	if (ret)
		vsock_destroy(obj);
	return ret;
}

static const struct option vsock_options[] = {
	OPT_UINT("guest-cid", struct virtio_vsock, guest_cid, "3", 3, UINT32_MAX - 1,
		 "the guest's address"),
	OPT_STRING_REQUIRED(
		"path", struct virtio_vsock, path,
		"Unix socket for connections to the guest; those of the guest to port P go to PATH_P"),
	OPT_END,
};

/* Connections are files that are open here, so they are not saved: the guest is told. */
static int vsock_loaded(void *obj, uint16_t version, struct hako_error *err)
{
	struct virtio_vsock *v = obj;

	v->reset_event = virtio_get_status(&v->vdev) & VIRTIO_CONFIG_S_DRIVER_OK;
	return 0;
}

static const struct state_field vsock_fields[] = {
	STATE_FIELD_STRUCT(struct virtio_vsock, vdev, &virtio_device_state),
	STATE_END,
};

static const struct state_table vsock_state = {
	.name = "virtio-vsock",
	.version = 1,
	.min_version = 1,
	.fields = vsock_fields,
	.post_load = vsock_loaded,
};

VIRTIO_CLASS(virtio_vsock, "virtio-vsock",
	     "sockets between guest and host, as Unix sockets of the host", struct virtio_vsock,
	     vsock_options, &vsock_state, vsock_create, vsock_destroy);
