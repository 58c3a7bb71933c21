/* SPDX-License-Identifier: GPL-2.0-only */
/* The event loop: packets that are read and written at once. */
#include <sys/inotify.h>
#include <sys/socket.h>

#include "tests/unit/loop_test.h"

#define PACKETS 150 /* more than a ring takes at a time */

struct test_packets {
	enum loop_io_op op;
	int fd;
	unsigned int n;
	struct loop_packet packet[PACKETS];
	struct iovec iov[PACKETS][2];
	uint8_t data[PACKETS][16];
	struct loop_io *beside; /* or NULL */
};

static int beside_done, beside_res;

static void done_beside(struct loop_io *io, int res)
{
	beside_res = res;
	bump(&beside_done);
}

static void move_packets(void *arg)
{
	struct test_packets *t = arg;

	if (t->beside)
		loop_io_submit(loop, t->beside);
	for (unsigned int i = 0; i < t->n; i++) {
		t->iov[i][0] = (struct iovec){t->data[i], i % 2 ? 16 : 5};
		t->iov[i][1] = (struct iovec){t->data[i] + 5, 11};
		t->packet[i] = (struct loop_packet){t->iov[i], i % 2 ? 1 : 2, 1234};
	}
	loop_io_packets(loop, t->op, t->fd, t->packet, t->n);
}

START_TEST(packets_in_order)
{
	static struct test_packets w, r;
	int fd[2], file = temp_file();
	char byte = 'x';
	struct iovec iov = {&byte, 1};
	struct loop_io beside = {
		.op = LOOP_IO_WRITE,
		.fd = file,
		.fixed = -1,
		.iov = &iov,
		.niov = 1,
		.done = done_beside,
	};

	loop = new_loop(_i);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, fd), 0);
	w = (struct test_packets){.op = LOOP_IO_WRITE, .fd = fd[0], .n = 100, .beside = &beside};
	r = (struct test_packets){.op = LOOP_IO_READ, .fd = fd[1], .n = PACKETS};
	for (int round = 0; round < 30; round++) {
		int want = beside_done + 1;

		w.n = 1 + round * 7 % 100;
		for (unsigned int i = 0; i < w.n; i++)
			memset(w.data[i], round + i, 16);
		loop_call(loop, move_packets, &w);
		loop_call(loop, move_packets, &r);
		for (unsigned int i = 0; i < w.n; i++) {
			ck_assert_int_eq(w.packet[i].res, 16);
			ck_assert_int_eq(r.packet[i].res, 16);
			ck_assert_mem_eq(r.data[i], w.data[i], 16);
		}
		for (unsigned int i = w.n; i < r.n; i++)
			ck_assert_int_eq(r.packet[i].res, -EAGAIN);
		ck_assert(wait_for(&beside_done, want));
		ck_assert_int_eq(beside_res, 1);
	}
	/* Until there is no more room; then what has not gone. */
	w.n = PACKETS;
	w.beside = NULL;
	for (int calls = 0; w.packet[PACKETS - 1].res != -EAGAIN; calls++) {
		loop_call(loop, move_packets, &w);
		ck_assert_int_lt(calls, 100);
	}
	for (unsigned int i = 1; i < PACKETS; i++)
		ck_assert(w.packet[i].res == -EAGAIN || w.packet[i - 1].res == 16);
	w.fd = r.fd = 1 << 20;
	loop_call(loop, move_packets, &w);
	loop_call(loop, move_packets, &r);
	for (unsigned int i = 0; i < PACKETS; i++) {
		ck_assert_int_eq(w.packet[i].res, -EBADF);
		ck_assert_int_eq(r.packet[i].res, -EBADF);
	}
	loop_free(loop);
}
END_TEST

/* A descriptor of which the kernel can not say whether it would wait is read in the usual way. */
START_TEST(packets_without_nowait)
{
	static struct test_packets r;
	const char *dir = getenv("TMPDIR") ?: "/var/tmp";
	int fd = inotify_init1(IN_NONBLOCK);

	loop = new_loop(_i);
	ck_assert_int_ge(inotify_add_watch(fd, dir, IN_CREATE | IN_DELETE), 0);
	r = (struct test_packets){.op = LOOP_IO_READ, .fd = fd, .n = 3};
	loop_call(loop, move_packets, &r);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(r.packet[i].res, -EAGAIN);
	close(temp_file());
	loop_call(loop, move_packets, &r);
	/* The event, with its name, is more than there is room for. */
	ck_assert_int_eq(r.packet[0].res, -EINVAL);
	loop_free(loop);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {packets_in_order, packets_without_nowait};

	return run_tests("loop packets", tests, ARRAY_SIZE(tests), NULL);
}
