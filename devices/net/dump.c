/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Object "filter-dump", as QEMU's: writes the frames of a network into a file that tcpdump and Wireshark read (pcap, the format of libpcap 2.4). It
 * stands in the place of the network's operations, so that a network without one pays nothing.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "devices/net/net.h"
#include "vmm/iov.h"
#include "vmm/vm.h"

#define FRAME_MAX 70000

/* The file starts with one of these, each frame with a record; in the host's byte order. */
struct pcap_header {
	uint32_t magic;
	uint16_t major, minor;
	uint32_t zone, precision, maxlen, link;
};
#define PCAP_MAGIC    0xa1b2c3d4
#define PCAP_ETHERNET 1

struct pcap_record {
	uint32_t sec, usec, stored, len;
};

enum dump_queue {
	DUMP_ALL,
	DUMP_RX, /* what the network gets: from the guest */
	DUMP_TX, /* what the network sends: to the guest */
};

static const char *const queue_names[] = {"all", "rx", "tx", NULL};

struct net_dump {
	struct object obj;
	char *netdev_id, *file;
	uint32_t maxlen;
	int queue;

	struct netdev *net;
	const struct netdev_ops *ops; /* the network's own */
	struct netdev_ops with;	      /* the same with us in between */
	int fd;
	pthread_mutex_t lock; /* a leaf: queues of several loops; guards what follows */
	bool failed;	      /* the file takes no more */
	uint8_t record[sizeof(struct pcap_record) + FRAME_MAX];
};

/* --- frames -------------------------------------------------------------------------------------- */

/* A frame of @total bytes with its header. Under lock. */
static void dump_write(struct net_dump *d, const struct iovec *iov, int niov, size_t total)
{
	struct pcap_record r = {.len = total - NET_HDR_LEN};
	struct timespec now;
	ssize_t n;

	if (d->failed)
		return;
	clock_gettime(CLOCK_REALTIME, &now);
	r.sec = now.tv_sec;
	r.usec = now.tv_nsec / 1000;
	r.stored = MIN(r.len, d->maxlen);
	r.stored = MIN(r.stored, FRAME_MAX);
	memcpy(d->record, &r, sizeof(r));
	iov_read(iov, niov, NET_HDR_LEN, d->record + sizeof(r), r.stored);
	n = write(d->fd, d->record, sizeof(r) + r.stored);
	if (n == (ssize_t)(sizeof(r) + r.stored))
		return;
	d->failed = true;
	vm_log(d->obj.vm, "filter-dump %s: file=%s: %s; nothing more is written there",
	       d->obj.id ?: "", d->file, n < 0 ? strerror(errno) : "no space left");
}

static void dump_frame(struct net_dump *d, const struct iovec *iov, int niov, size_t total)
{
	if (total <= NET_HDR_LEN)
		return;
	pthread_mutex_lock(&d->lock);
	dump_write(d, iov, niov, total);
	pthread_mutex_unlock(&d->lock);
}

static ssize_t dump_recv(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct net_dump *d = net->dump;
	ssize_t n = d->ops->recv(net, queue, iov, niov);

	if (n > 0)
		dump_frame(d, iov, niov, n);
	return n;
}

static ssize_t dump_send(struct netdev *net, unsigned int queue, const struct iovec *iov, int niov)
{
	struct net_dump *d = net->dump;
	ssize_t n = d->ops->send(net, queue, iov, niov);
	size_t total = 0;

	/* It comes again then. */
	if (n == -EAGAIN)
		return n;
	for (int i = 0; i < niov; i++)
		total += iov[i].iov_len;
	dump_frame(d, iov, niov, total);
	return n;
}

/* --- class --------------------------------------------------------------------------------------- */

static int dump_find_network(struct net_dump *d, struct hako_error *err)
{
	struct netdev *net = (struct netdev *)object_find(d->obj.vm, CLASS_NETDEV, d->netdev_id);

	if (!net)
		return error_set(err, -ENOENT, "netdev=%s: there is no network of that id",
				 d->netdev_id);
	if (net->dump)
		return error_set(err, -EBUSY, "netdev=%s: %s writes it to a file already",
				 d->netdev_id, net->dump->obj.id ?: "another filter-dump");
	if (net->vhost_fd || net->vhost_user)
		return error_set(err, -EOPNOTSUPP,
				 "netdev=%s: vhost moves its packets past this program (for a tap, "
				 "vhost=off does without)",
				 d->netdev_id);
	d->net = net;
	return 0;
}

static int dump_open_file(struct net_dump *d, struct hako_error *err)
{
	const struct pcap_header h = {
		.magic = PCAP_MAGIC,
		.major = 2,
		.minor = 4,
		.maxlen = MIN(d->maxlen, FRAME_MAX),
		.link = PCAP_ETHERNET,
	};
	ssize_t n;

	d->fd = open(d->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (d->fd < 0)
		return error_errno(err, -errno, "file=%s", d->file);
	n = write(d->fd, &h, sizeof(h));
	if (n == sizeof(h))
		return 0;
	n = n < 0 ? -errno : -ENOSPC;
	close(d->fd);
	return error_errno(err, n, "file=%s", d->file);
}

static int dump_create(struct object *obj, struct hako_error *err)
{
	struct net_dump *d = (struct net_dump *)obj;
	int ret = dump_find_network(d, err) ?: dump_open_file(d, err);

	if (ret)
		return ret;
	pthread_mutex_init(&d->lock, NULL);
	d->ops = d->net->ops;
	d->with = *d->ops;
	if (d->queue != DUMP_RX)
		d->with.recv = dump_recv;
	if (d->queue != DUMP_TX) {
		d->with.send = dump_send;
		d->with.send_packets = NULL;
	}
	d->net->dump = d;
	d->net->ops = &d->with;
	return 0;
}

static void dump_destroy(struct object *obj)
{
	struct net_dump *d = (struct net_dump *)obj;

	d->net->ops = d->ops;
	d->net->dump = NULL;
	close(d->fd);
	pthread_mutex_destroy(&d->lock);
}

static const struct option dump_options[] = {
	OPT_STRING_REQUIRED("netdev", struct net_dump, netdev_id, "id of the network"),
	OPT_STRING_REQUIRED("file", struct net_dump, file, "pcap file to write"),
	OPT_UINT("maxlen", struct net_dump, maxlen, "65536", 1, UINT32_MAX,
		 "bytes of a frame that are kept"),
	OPT_ENUM("queue", struct net_dump, queue, "all", queue_names,
		 "which way: rx, what the guest sends; tx, what it gets"),
	OPT_END,
};

static const struct class dump_class = {
	.name = "filter-dump",
	.help = "writes the frames of a network to a pcap file",
	.kind = CLASS_OBJECT,
	.late = true,
	.size = sizeof(struct net_dump),
	.options = dump_options,
	.create = dump_create,
	.destroy = dump_destroy,
};
HAKO_CLASS(dump_class);
