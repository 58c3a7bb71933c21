/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio-vsock served by the program (virtio 1.2, section 5.10), for its tests: a driver without a guest on one side, Unix sockets on the other. Numbers
 * are the specification's.
 */
#ifndef TESTS_UNIT_VSOCK_RIG_H
#define TESTS_UNIT_VSOCK_RIG_H

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "suite.h"
#include "virtio/vsock.h"
#include "virtq_driver.h"

#define RAM    (16 * MiB)
#define QSIZE  128
#define CID    7
#define HEADER 44
#define BUFFER 4096  /* the room for data in a receive buffer */
#define ROOM   65536 /* that the driver says to have */

enum {
	REQUEST = 1,
	RESPONSE,
	RST,
	SHUTDOWN,
	RW,
	CREDIT_UPDATE,
	CREDIT_REQUEST
};
enum {
	SHUT_RCV = 1,
	SHUT_SEND = 2
};

static struct vdrv drv;
static struct vdrv_queue rx, tx, events;
static char dir[64], path[96];
static uint32_t alloc, forwarded; /* what the driver says of its room */

/* --- packets ----------------------------------------------------------------------------------- */

struct packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len, flags, buf_alloc, fwd_cnt;
	uint16_t type, op;
	uint8_t data[BUFFER];
};

static inline void post(unsigned int n)
{
	while (n--) {
		struct vdrv_buf in = vdrv_buf(&drv, HEADER + BUFFER);

		vdrv_add(&rx, NULL, 0, &in, 1);
	}
	vdrv_kick(&rx);
}

/* Take what the device has sent, and give the buffer back if @again. */
static inline bool take(struct packet *p, bool again)
{
	struct vdrv_buf buf;
	uint32_t id, len;
	uint8_t *raw;

	if (!vdrv_take(&rx, &id, &len))
		return false;
	buf = rx.first[id];
	raw = vdrv_ptr(&drv, buf.gpa, buf.len);
	memset(p, 0, sizeof(*p));
	p->src_cid = get_le64(raw);
	p->dst_cid = get_le64(raw + 8);
	p->src_port = get_le32(raw + 16);
	p->dst_port = get_le32(raw + 20);
	p->len = get_le32(raw + 24);
	p->type = get_le16(raw + 28);
	p->op = get_le16(raw + 30);
	p->flags = get_le32(raw + 32);
	p->buf_alloc = get_le32(raw + 36);
	p->fwd_cnt = get_le32(raw + 40);
	ck_assert_uint_eq(len, HEADER + p->len);
	memcpy(p->data, raw + HEADER, p->len);
	ck_assert_uint_eq(p->dst_cid, CID);
	if (again) {
		vdrv_add(&rx, NULL, 0, &buf, 1);
		vdrv_kick(&rx);
	}
	return true;
}

static inline struct packet next(void)
{
	struct packet p;
	bool got = false;

	VDRV_UNTIL(got || (got = take(&p, true)));
	return p;
}

static inline struct packet expect(uint16_t op)
{
	struct packet p = next();

	ck_assert_uint_eq(p.op, op);
	return p;
}

static inline void expect_nothing(void)
{
	struct packet p;

	usleep(20000);
	vdrv_settle(&drv);
	ck_assert(!take(&p, true));
}

/* The place of the packet's header, whose data is @len bytes behind it; it is not made available yet. */
static inline struct vdrv_buf make(const struct packet *p, const void *data, uint32_t len)
{
	struct vdrv_buf out = vdrv_buf(&drv, HEADER + len);
	uint8_t *raw = vdrv_ptr(&drv, out.gpa, out.len);

	put_le64(raw, p->src_cid);
	put_le64(raw + 8, p->dst_cid);
	put_le32(raw + 16, p->src_port);
	put_le32(raw + 20, p->dst_port);
	put_le32(raw + 24, p->len);
	put_le16(raw + 28, p->type);
	put_le16(raw + 30, p->op);
	put_le32(raw + 32, p->flags);
	put_le32(raw + 36, p->buf_alloc);
	put_le32(raw + 40, p->fwd_cnt);
	if (len)
		memcpy(raw + HEADER, data, len);
	return out;
}

static inline void send_out(struct vdrv_buf out)
{
	struct vdrv_buf parts[] = {{out.gpa, HEADER}, {out.gpa + HEADER, out.len - HEADER}};

	vdrv_add(&tx, parts, out.len > HEADER ? 2 : 1, NULL, 0);
	vdrv_kick(&tx);
	ck_assert(vdrv_wait(&tx, NULL, NULL));
}

static inline struct packet packet(uint32_t src, uint32_t dst, uint16_t op)
{
	return (struct packet){.src_cid = CID,
			       .dst_cid = 2,
			       .src_port = src,
			       .dst_port = dst,
			       .type = 1,
			       .op = op,
			       .buf_alloc = alloc,
			       .fwd_cnt = forwarded};
}

static inline void tell(uint32_t src, uint32_t dst, uint16_t op)
{
	struct packet p = packet(src, dst, op);

	send_out(make(&p, NULL, 0));
}

static inline void shut(uint32_t src, uint32_t dst, uint32_t flags)
{
	struct packet p = packet(src, dst, SHUTDOWN);

	p.flags = flags;
	send_out(make(&p, NULL, 0));
}

static inline void data(uint32_t src, uint32_t dst, const void *bytes, uint32_t len)
{
	struct packet p = packet(src, dst, RW);
	uint64_t heap = drv.heap;

	p.len = len;
	send_out(make(&p, bytes, len));
	drv.heap = heap;
}

/* --- the host ---------------------------------------------------------------------------------- */

static inline int unix_socket(const char *suffix, struct sockaddr_un *sun)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct timeval limit = {.tv_sec = 5};

	ck_assert_int_ge(fd, 0);
	*sun = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(sun->sun_path, sizeof(sun->sun_path), "%s%s", path, suffix);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static inline int host_listen(const char *suffix)
{
	struct sockaddr_un sun;
	int fd = unix_socket(suffix, &sun);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	ck_assert_int_eq(listen(fd, 300), 0);
	return fd;
}

static inline int host_accept(int listener)
{
	struct timeval limit = {.tv_sec = 5};
	int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

	ck_assert_int_ge(fd, 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return fd;
}

static inline int host_connect(const char *command)
{
	struct sockaddr_un sun;
	int fd = unix_socket("", &sun);

	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	ck_assert_int_eq(write(fd, command, strlen(command)), strlen(command));
	return fd;
}

static inline void host_expect(int fd, const char *text)
{
	char buf[64] = "";

	ck_assert_int_eq(recv(fd, buf, strlen(text), MSG_WAITALL), strlen(text));
	ck_assert_str_eq(buf, text);
}

static inline void host_expect_end(int fd)
{
	char c;

	ck_assert_int_eq(recv(fd, &c, 1, 0), 0);
}

static inline void host_write(int fd, const void *bytes, size_t len)
{
	ck_assert_int_eq(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

/* --- fixtures ---------------------------------------------------------------------------------- */

static inline void begin(void)
{
	drv.heap = VDRV_HEAP;
	ck_assert(vdrv_negotiate(&drv, BIT64(VIRTIO_RING_F_EVENT_IDX)));
	vdrv_queue(&drv, &rx, 0, QSIZE);
	vdrv_queue(&drv, &tx, 1, QSIZE);
	vdrv_queue(&drv, &events, 2, 8);
	vdrv_go(&drv);
	alloc = ROOM;
	forwarded = 0;
}

static inline void setup(void)
{
	char options[160];

	snprintf(dir, sizeof(dir), "/tmp/hako-vsock-XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/v", dir);
	snprintf(options, sizeof(options), "guest-cid=%u,path=%s", CID, path);
	vdrv_open(&drv, RAM, "virtio-vsock-device", options);
	ck_assert_uint_eq(vdrv_read(&drv, VIRTIO_MMIO_DEVICE_ID), 19);
	begin();
}

static inline void teardown(void)
{
	char name[120];

	vdrv_close(&drv);
	ck_assert_int_eq(access(path, F_OK), -1);
	for (int i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s_%d", path, 1000 + i);
		unlink(name);
	}
	ck_assert_int_eq(rmdir(dir), 0);
}

/* A connection from the guest's port 50 to the host's 1000: the host's end. */
static inline int from_guest(void)
{
	int listener = host_listen("_1000"), fd;
	struct packet p;

	tell(50, 1000, REQUEST);
	p = expect(RESPONSE);
	ck_assert_uint_eq(p.src_cid, 2);
	ck_assert_uint_eq(p.src_port, 1000);
	ck_assert_uint_eq(p.dst_port, 50);
	ck_assert_uint_eq(p.type, 1);
	ck_assert_uint_eq(p.buf_alloc, VSOCK_BUFFER);
	fd = host_accept(listener);
	close(listener);
	return fd;
}

#endif
