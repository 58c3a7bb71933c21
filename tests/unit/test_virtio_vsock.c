/* SPDX-License-Identifier: GPL-2.0-only */
/* virtio-vsock served by the program: connections, credit, and their life. */
#include "vsock_rig.h"

static struct hako_error err;

/* --- connections ------------------------------------------------------------------------------- */

START_TEST(guest_connects)
{
	struct packet p;
	int fd;

	post(16);
	ck_assert_uint_eq(vdrv_config(&drv, 0, 8), CID);
	fd = from_guest();
	data(50, 1000, "hello host", 10);
	host_expect(fd, "hello host");
	host_write(fd, "hello guest", 11);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 11);
	ck_assert_mem_eq(p.data, "hello guest", 11);
	ck_assert_uint_eq(p.fwd_cnt, 10);
	close(fd);
}
END_TEST

START_TEST(nobody_listens)
{
	struct packet p;

	post(4);
	tell(50, 1001, REQUEST);
	p = expect(RST);
	ck_assert_uint_eq(p.src_port, 1001);
	ck_assert_uint_eq(p.dst_port, 50);
	expect_nothing();
}
END_TEST

START_TEST(host_connects)
{
	struct packet p, second;
	int fd, other;

	post(16);
	/* In two pieces, and with more behind it than the line. */
	fd = host_connect("CONN");
	usleep(10000);
	host_write(fd, "ECT 1234\nfirst", 14);
	p = expect(REQUEST);
	ck_assert_uint_eq(p.dst_port, 1234);
	ck_assert_uint_eq(p.src_port, 1 << 30);
	ck_assert_uint_eq(p.src_cid, 2);
	expect_nothing();
	tell(1234, p.src_port, RESPONSE);
	host_expect(fd, "OK 1073741824\n");
	second = expect(RW);
	ck_assert_mem_eq(second.data, "first", 5);
	/* Another to the same port has a port of its own; and the guest refuses it. */
	other = host_connect("CONNECT 1234\n");
	second = expect(REQUEST);
	ck_assert_uint_ne(second.src_port, p.src_port);
	tell(1234, second.src_port, RST);
	host_expect_end(other);
	data(1234, p.src_port, "still there", 11);
	host_expect(fd, "still there");
	close(other);
	/* One that does not wait for the answer. */
	other = host_connect("CONNECT 4294967295\n");
	second = expect(REQUEST);
	ck_assert_uint_eq(second.dst_port, UINT32_MAX);
	close(other);
	expect(RST);
	close(fd);
}
END_TEST

START_TEST(bad_commands)
{
	static const char *const commands[] = {
		"CONNECT\n",
		"CONNECT x\n",
		"CONNECT 4294967296\n",
		"connect 5\n",
		"\n",
		"CONNECT -1\n",
		"CONNECT 5 6\n",
		"CONNECT  5\n",
		"CONNECT 18446744073709551617\n",
		"CONNECT 5                         \n",
	};

	post(4);
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
		int fd = host_connect(commands[i]);
		char c;

		/* What is left unread makes it a reset. */
		ck_assert_int_le(recv(fd, &c, 1, 0), 0);
		ck_assert_int_ne(errno, EAGAIN);
		close(fd);
	}
	close(host_connect("CONNECT 5"));
	expect_nothing();
	ck_assert_uint_eq(((struct virtio_vsock *)drv.obj)->nconns, 0);
}
END_TEST

START_TEST(halves)
{
	struct packet p;
	int fd;

	post(16);
	fd = from_guest();
	/* The guest sends no more, but listens. */
	data(50, 1000, "bye", 3);
	shut(50, 1000, SHUT_SEND);
	host_expect(fd, "bye");
	host_expect_end(fd);
	host_write(fd, "yes", 3);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 3);
	/* When the host does not either, nothing is left to be done. */
	shutdown(fd, SHUT_WR);
	p = expect(SHUTDOWN);
	ck_assert_uint_eq(p.flags, SHUT_SEND | SHUT_RCV);
	close(fd);
	shut(50, 1000, SHUT_SEND | SHUT_RCV);
	expect(RST);
	tell(50, 1000, CREDIT_UPDATE);
	expect(RST);
}
END_TEST

START_TEST(host_sends_no_more)
{
	struct packet p;
	int fd;

	post(16);
	fd = from_guest();
	host_write(fd, "bye", 3);
	shutdown(fd, SHUT_WR);
	expect(RW);
	p = expect(SHUTDOWN);
	ck_assert_uint_eq(p.flags, SHUT_SEND);
	data(50, 1000, "yes", 3);
	host_expect(fd, "yes");
	expect_nothing();
	close(fd);
	p = expect(SHUTDOWN);
	ck_assert_uint_eq(p.flags, SHUT_SEND | SHUT_RCV);
	expect_nothing();
}
END_TEST

START_TEST(guest_reads_no_more)
{
	int fd;

	post(16);
	fd = from_guest();
	shut(50, 1000, SHUT_RCV);
	vdrv_settle(&drv);
	ck_assert_int_eq(send(fd, "x", 1, MSG_NOSIGNAL), -1);
	data(50, 1000, "still sends", 11);
	host_expect(fd, "still sends");
	shut(50, 1000, SHUT_SEND);
	expect(RST);
	host_expect_end(fd);
	close(fd);
}
END_TEST

START_TEST(host_closes_behind_data)
{
	struct packet p;
	int fd;

	post(16);
	fd = from_guest();
	host_write(fd, "last words", 10);
	close(fd);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 10);
	p = expect(SHUTDOWN);
	ck_assert_uint_eq(p.flags, SHUT_SEND | SHUT_RCV);
	data(50, 1000, "too late", 8);
	expect(RST);
}
END_TEST

/* --- credit ------------------------------------------------------------------------------------ */

static uint8_t pattern(uint64_t i)
{
	return (i * 0x9e3779b97f4a7c15ull) >> 56;
}

/* Send @len bytes of the pattern from @at on. */
static void send_pattern(uint64_t at, uint32_t len)
{
	static uint8_t buf[65536];

	while (len) {
		uint32_t part = MIN(len, sizeof(buf));

		for (uint32_t i = 0; i < part; i++)
			buf[i] = pattern(at + i);
		data(50, 1000, buf, part);
		at += part;
		len -= part;
	}
}

static void read_pattern(int fd, uint64_t at, uint32_t len)
{
	static uint8_t buf[65536];

	while (len) {
		ssize_t n = recv(fd, buf, MIN(len, sizeof(buf)), 0);

		ck_assert_int_gt(n, 0);
		for (ssize_t i = 0; i < n; i++)
			ck_assert_uint_eq(buf[i], pattern(at + i));
		at += n;
		len -= n;
	}
}

/* How much the host's side has taken, by the latest packet: some come unasked. */
static uint32_t taken(void)
{
	struct packet p = {0};

	tell(50, 1000, CREDIT_REQUEST);
	vdrv_settle(&drv);
	while (take(&p, true))
		ck_assert_uint_eq(p.op, CREDIT_UPDATE);
	ck_assert_uint_eq(p.op, CREDIT_UPDATE);
	return p.fwd_cnt;
}

/* Nobody reads at the host: the socket takes some, then the device keeps what it has promised to, and no byte more. */
START_TEST(the_guests_credit)
{
	uint32_t total, sent = 0;
	int fd;

	post(16);
	fd = from_guest();
	while (sent - taken() < VSOCK_BUFFER) {
		uint32_t room = VSOCK_BUFFER - (sent - taken());

		send_pattern(sent, room);
		sent += room;
	}
	total = sent;
	read_pattern(fd, 0, total);
	VDRV_UNTIL(taken() == total);
	/* The count goes on beyond the buffer's end. */
	send_pattern(total, VSOCK_BUFFER);
	read_pattern(fd, total, VSOCK_BUFFER);
	total += VSOCK_BUFFER;
	VDRV_UNTIL(taken() == total);
	for (sent = total; sent - taken() < VSOCK_BUFFER;) {
		uint32_t room = VSOCK_BUFFER - (sent - taken());

		send_pattern(sent, room);
		sent += room;
	}
	data(50, 1000, "x", 1);
	expect(RST);
	close(fd);
}
END_TEST

START_TEST(room_is_offered)
{
	uint32_t sent = 0;
	struct packet p;
	int fd;

	post(16);
	fd = from_guest();
	while (sent - taken() < VSOCK_BUFFER) {
		uint32_t room = VSOCK_BUFFER - (sent - taken());

		send_pattern(sent, room);
		sent += room;
	}
	/* Without being asked. */
	read_pattern(fd, 0, sent);
	do {
		p = expect(CREDIT_UPDATE);
	} while (sent - p.fwd_cnt > VSOCK_BUFFER / 2);
	close(fd);
}
END_TEST

START_TEST(the_hosts_credit)
{
	uint8_t sent[1000], got[1000];
	struct packet p;
	uint32_t n = 0;
	int fd;

	post(16);
	alloc = 300;
	fd = from_guest();
	for (int i = 0; i < 1000; i++)
		sent[i] = pattern(i);
	host_write(fd, sent, sizeof(sent));
	for (;;) {
		p = next();
		if (p.op == CREDIT_REQUEST)
			break;
		ck_assert_uint_eq(p.op, RW);
		ck_assert_uint_le(n + p.len, 300);
		memcpy(got + n, p.data, p.len);
		n += p.len;
	}
	ck_assert_uint_eq(n, 300);
	expect_nothing();
	/* A count that goes backwards, or has been nowhere near, changes nothing. */
	forwarded = 301;
	tell(50, 1000, CREDIT_UPDATE);
	forwarded = -1;
	tell(50, 1000, CREDIT_UPDATE);
	expect_nothing();
	forwarded = 100;
	tell(50, 1000, CREDIT_UPDATE);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 100);
	memcpy(got + n, p.data, p.len);
	n += p.len;
	expect(CREDIT_REQUEST);
	forwarded = 50;
	tell(50, 1000, CREDIT_UPDATE);
	expect_nothing();
	forwarded = 400;
	alloc = 10000;
	tell(50, 1000, CREDIT_UPDATE);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 600);
	memcpy(got + n, p.data, p.len);
	ck_assert_mem_eq(got, sent, 1000);
	/* An older packet comes later, and one tells of more than was sent: neither changes what is known to be under way, 600 bytes. */
	alloc = 1000;
	forwarded = 100;
	tell(50, 1000, CREDIT_UPDATE);
	host_write(fd, sent, 100);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 100);
	host_write(fd, sent, 200);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 200);
	forwarded = 1301;
	tell(50, 1000, CREDIT_UPDATE);
	host_write(fd, sent, 50);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 50);
	/* The room gets smaller than what is under way. */
	alloc = 10;
	tell(50, 1000, CREDIT_UPDATE);
	host_write(fd, "x", 1);
	expect_nothing();
	close(fd);
}
END_TEST

START_TEST(lingers)
{
	uint32_t sent = 0;
	int fd;

	post(16);
	fd = from_guest();
	while (sent - taken() < VSOCK_BUFFER) {
		uint32_t room = VSOCK_BUFFER - (sent - taken());

		send_pattern(sent, room);
		sent += room;
	}
	/* The guest closes, and loses patience. */
	shut(50, 1000, SHUT_SEND | SHUT_RCV);
	vdrv_settle(&drv);
	tell(50, 1000, RST);
	read_pattern(fd, 0, sent);
	host_expect_end(fd);
	close(fd);
	VDRV_UNTIL(!((struct virtio_vsock *)drv.obj)->nconns);
}
END_TEST

/* --- life -------------------------------------------------------------------------------------- */

START_TEST(driver_resets)
{
	int fd, asked;

	post(16);
	fd = from_guest();
	asked = host_connect("CONNECT 5\n");
	expect(REQUEST);
	begin();
	host_expect_end(fd);
	ck_assert_int_le(recv(asked, &(char){0}, 1, 0), 0);
	ck_assert_uint_eq(((struct virtio_vsock *)drv.obj)->nconns, 0);
	post(16);
	expect_nothing();
	close(fd);
	close(asked);
}
END_TEST

START_TEST(pause_and_resume)
{
	struct packet p;
	int fd;

	post(16);
	fd = from_guest();
	drv.obj->class->pause(drv.obj);
	host_write(fd, "meanwhile", 9);
	usleep(20000);
	ck_assert(!take(&p, false));
	drv.obj->class->resume(drv.obj);
	p = expect(RW);
	ck_assert_uint_eq(p.len, 9);
	data(50, 1000, "back", 4);
	host_expect(fd, "back");
	close(fd);
}
END_TEST

/* Connections are not saved, and the guest is told so. */
START_TEST(state)
{
	const struct state_table *table = drv.obj->class->state;
	struct vdrv_buf in = vdrv_buf(&drv, 4);
	struct state_buf saved = {0}, load;
	uint32_t len;
	int fd;

	post(16);
	fd = from_guest();
	memset(vdrv_ptr(&drv, in.gpa, 4), 0xee, 4);
	vdrv_add(&events, NULL, 0, &in, 1);
	vdrv_kick(&events);
	vdrv_settle(&drv);
	drv.obj->class->pause(drv.obj);
	ck_assert_int_eq(state_save(&saved, table, drv.obj, &err), 0);
	ck_assert_uint_eq(vdrv_used_idx(&events), 0);
	drv.obj->class->reset(drv.obj);
	host_expect_end(fd);
	load = (struct state_buf){.data = saved.data, .len = saved.len};
	ck_assert_msg(state_load(&load, table, drv.obj, &err) == 0, "%s", err.message);
	drv.obj->class->resume(drv.obj);
	ck_assert(vdrv_wait(&events, NULL, &len));
	ck_assert_uint_eq(len, 4);
	ck_assert_uint_eq(get_le32(vdrv_ptr(&drv, in.gpa, 4)), 0);
	close(fd);
	data(50, 1000, "old", 3);
	expect(RST);
	/* Once. */
	vdrv_add(&events, NULL, 0, &in, 1);
	vdrv_kick(&events);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&events), 1);
	state_buf_free(&saved);
}
END_TEST

START_TEST(paths)
{
	char long_path[128], options[200];

	ck_assert_int_lt(vdrv_device(&drv, "virtio-vsock-device", "path=/nowhere/at/all", &err), 0);
	ck_assert_ptr_nonnull(strstr(err.message, "path=/nowhere/at/all: No such file"));
	memset(long_path, 'a', sizeof(long_path));
	long_path[97] = 0;
	snprintf(options, sizeof(options), "path=%s", long_path);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-vsock-device", options, &err), -ENAMETOOLONG);
	snprintf(options, sizeof(options), "path=%s", path);
	/* It is in use. */
	ck_assert_int_eq(vdrv_device(&drv, "virtio-vsock-device", options, &err), -EADDRINUSE);
	ck_assert_int_eq(vdrv_device(&drv, "virtio-vsock-device", "guest-cid=2,path=x", &err),
			 -ERANGE);
	drv.obj = NULL;
}
END_TEST

static void add(TCase *tc)
{
	tcase_add_test(tc, guest_connects);
	tcase_add_test(tc, nobody_listens);
	tcase_add_test(tc, host_connects);
	tcase_add_test(tc, bad_commands);
	tcase_add_test(tc, halves);
	tcase_add_test(tc, host_sends_no_more);
	tcase_add_test(tc, guest_reads_no_more);
	tcase_add_test(tc, host_closes_behind_data);
	tcase_add_test(tc, the_guests_credit);
	tcase_add_test(tc, room_is_offered);
	tcase_add_test(tc, the_hosts_credit);
	tcase_add_test(tc, lingers);
	tcase_add_test(tc, driver_resets);
	tcase_add_test(tc, pause_and_resume);
	tcase_add_test(tc, state);
	tcase_add_test(tc, paths);
}

int main(void)
{
	Suite *s = suite_create("virtio-vsock");

	vdrv_cases(s, add, setup, teardown);
	return run_suite(s);
}
