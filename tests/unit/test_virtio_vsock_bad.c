/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-vsock served by the program: what a driver may do wrong, and too much of everything. */
#include "vsock_rig.h"

/* --- what is wrong ----------------------------------------------------------------------------- */

START_TEST(wrong_packets)
{
	struct packet p, answer;
	int fd;

	post(16);
	fd = from_guest();
	/* Another sender, which cannot be. */
	p = packet(50, 1000, RST);
	p.src_cid = CID + 1;
	send_out(make(&p, NULL, 0));
	expect_nothing();
	/* Nobody has that address. */
	p = packet(50, 1000, REQUEST);
	p.dst_cid = 9;
	send_out(make(&p, NULL, 0));
	answer = expect(RST);
	ck_assert_uint_eq(answer.src_cid, 9);
	/* Kinds of sockets that there are not: the connection of the same ports is another. */
	p = packet(50, 1000, REQUEST);
	p.type = 0x1234;
	send_out(make(&p, NULL, 0));
	answer = expect(RST);
	ck_assert_uint_eq(answer.type, 0x1234);
	/* No connection, and no answer to RST. */
	data(51, 1000, "x", 1);
	expect(RST);
	tell(51, 1000, RST);
	tell(51, 1000, 99);
	expect(RST);
	expect_nothing();
	data(50, 1000, "alive", 5);
	host_expect(fd, "alive");
	close(fd);
}
END_TEST

/* Each ends the connection. */
START_TEST(wrong_in_connection)
{
	static const uint16_t ops[] = {REQUEST, RESPONSE, 0, 8, 0xffff};
	int fd;

	post(16);
	fd = from_guest();
	if (_i < (int)ARRAY_SIZE(ops)) {
		tell(50, 1000, ops[_i]);
	} else {
		shut(50, 1000, SHUT_SEND);
		data(50, 1000, "x", 1);
	}
	expect(RST);
	host_expect_end(fd);
	close(fd);
}
END_TEST

START_TEST(wrong_answer)
{
	struct packet p;
	int fd;

	post(16);
	fd = host_connect("CONNECT 77\n");
	p = expect(REQUEST);
	tell(77, p.src_port, RW);
	expect(RST);
	host_expect_end(fd);
	close(fd);
}
END_TEST

START_TEST(broken_chains)
{
	struct vdrv_buf small = vdrv_buf(&drv, HEADER - 1), bare = vdrv_buf(&drv, HEADER);
	struct packet p = packet(50, 1000, RW);
	int fd;

	switch (_i) {
	case 0:
		vdrv_add(&tx, &small, 1, NULL, 0);
		vdrv_kick(&tx);
		break;
	case 1: /* more than there is */
		p.len = 5;
		small = make(&p, "1234", 4);
		vdrv_add(&tx, &small, 1, NULL, 0);
		vdrv_kick(&tx);
		break;
	case 2:
		p.len = UINT32_MAX;
		small = make(&p, "1234", 4);
		vdrv_add(&tx, &small, 1, NULL, 0);
		vdrv_kick(&tx);
		break;
	case 3: /* no room for data */
		vdrv_add(&rx, NULL, 0, &bare, 1);
		small = make(&p, NULL, 0);
		vdrv_add(&tx, &small, 1, NULL, 0);
		vdrv_kick(&tx);
		break;
	}
	VDRV_UNTIL(vdrv_needs_reset(&drv));
	begin();
	post(16);
	fd = from_guest();
	data(50, 1000, "alive", 5);
	host_expect(fd, "alive");
	close(fd);
}
END_TEST

/* Replies wait for buffers in a table that is bounded, and nothing is lost. */
START_TEST(many_replies)
{
	struct packet p;

	for (uint32_t i = 0; i < QSIZE; i++) {
		struct vdrv_buf out;

		p = packet(100 + i, 5, RW);
		out = make(&p, NULL, 0);
		vdrv_add(&tx, &out, 1, NULL, 0);
	}
	vdrv_kick(&tx);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&tx), VSOCK_REPLIES);
	post(8);
	for (uint32_t i = 0; i < QSIZE; i++) {
		p = expect(RST);
		ck_assert_uint_eq(p.dst_port, 100 + i);
	}
	expect_nothing();
	ck_assert_uint_eq(vdrv_used_idx(&tx), QSIZE);
}
END_TEST

START_TEST(many_connections)
{
	int listener = host_listen("_1000"), fd[VSOCK_CONNECTIONS], waiting, other;
	struct packet p;

	post(16);
	for (uint32_t i = 0; i < VSOCK_CONNECTIONS; i++) {
		uint64_t heap = drv.heap;

		tell(2000 + i, 1000, REQUEST);
		expect(RESPONSE);
		fd[i] = host_accept(listener);
		drv.heap = heap;
	}
	tell(50, 1000, REQUEST);
	expect(RST);
	/* The host's wait until there is room. */
	waiting = host_connect("CONNECT 5\n");
	other = host_connect("CONNECT 6\n");
	expect_nothing();
	tell(2000 + 17, 1000, RST);
	host_expect_end(fd[17]);
	p = expect(REQUEST);
	ck_assert_uint_eq(p.dst_port, 5);
	expect_nothing();
	tell(5, p.src_port, RESPONSE);
	host_expect(waiting, "OK 1073741824\n");
	for (uint32_t i = 0; i < VSOCK_CONNECTIONS; i++)
		close(fd[i]);
	close(waiting);
	close(other);
	close(listener);
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, wrong_packets);
	tcase_add_loop_test(tc, wrong_in_connection, 0, 6);
	tcase_add_test(tc, wrong_answer);
	tcase_add_loop_test(tc, broken_chains, 0, 4);
	tcase_add_test(tc, many_replies);
	tcase_add_test(tc, many_connections);
}

int main(void)
{
	Suite *s = suite_create("virtio-vsock, bad drivers");

	vdrv_cases(s, add, setup, teardown);
	return run_suite(s);
}
