/* SPDX-License-Identifier: GPL-2.0-only */
/* GDB's remote protocol by hand: what GDB itself would not send, and the guest's life with it. tests/guest and tests/lab have GDB. */
#include <check.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "suite.h"
#include "tiny_guest.h"
#include "vmm/gdb/packet.h"
#include "vmm/vm.h"

static struct hako_error err;
static struct hako_vm *vm;
static char path[64];
static int kernel_fd, sock = -1;

static void start(const char *cpus, const char *stop)
{
	char kernel[64], gdb[128];

	kernel_fd = memfd_create("kernel", MFD_CLOEXEC);
	ck_assert_int_eq(write(kernel_fd, &guest, sizeof(guest)), sizeof(guest));
	snprintf(kernel, sizeof(kernel), "/proc/self/fd/%d", kernel_fd);
	snprintf(path, sizeof(path), "/tmp/hako-gdb-%d", getpid());
	snprintf(gdb, sizeof(gdb), "unix:%s%s", path, stop);
	ck_assert_int_eq(hako_vm_new(&vm, &err), 0);
	hako_vm_set(vm, "machine", "micro", &err);
	hako_vm_set(vm, "memory", "16M", &err);
	hako_vm_set(vm, "cpus", cpus, &err);
	hako_vm_set(vm, "kernel", kernel, &err);
	ck_assert_int_eq(hako_vm_set(vm, "gdb", gdb, &err), 0);
	ck_assert_msg(!hako_vm_create(vm, &err), "%s", err.message);
	ck_assert_msg(!hako_vm_start(vm, &err), "%s", err.message);
}

static void hang_up(void)
{
	if (sock >= 0)
		close(sock);
	sock = -1;
}

static void end(void)
{
	hang_up();
	hako_vm_destroy(vm);
	close(kernel_fd);
	ck_assert_int_ne(access(path, F_OK), 0);
}

static uint32_t counter(void)
{
	return READ_ONCE(*(uint32_t *)memory_ptr(&((struct vm *)vm)->mem, COUNTER, 4));
}

/* Up to ten seconds: other tests may have the CPUs. */
static void runs(void)
{
	uint32_t was = counter();

	for (int i = 0; i < 10000 && counter() == was; i++)
		usleep(1000);
	ck_assert_uint_ne(counter(), was);
}

static void stands(void)
{
	uint32_t was = counter();

	usleep(20000);
	ck_assert_uint_eq(counter(), was);
}

static void dial(void)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};

	memcpy(sun.sun_path, path, strlen(path) + 1);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(sock, (struct sockaddr *)&sun, sizeof(sun)), 0);
}

static void put(const char *bytes, size_t len)
{
	ck_assert_int_eq(send(sock, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static int get_byte(void)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	uint8_t c;

	ck_assert_msg(poll(&p, 1, 10000) == 1, "no answer");
	return read(sock, &c, 1) == 1 ? c : -1;
}

/* The next packet's data. */
static const char *get(void)
{
	static char data[GDB_FRAME_MAX];
	size_t n = 0;
	int c;

	while ((c = get_byte()) != '$')
		ck_assert_msg(c == '+', "%d instead of a packet", c);
	while ((c = get_byte()) != '#') {
		ck_assert(c >= 0 && n < sizeof(data) - 1);
		data[n++] = c;
	}
	get_byte();
	get_byte();
	data[n] = '\0';
	put("+", 1);
	return data;
}

static const char *ask(const char *text)
{
	static char frame[GDB_FRAME_MAX];

	put(frame, gdb_frame(frame, text, strlen(text)));
	return get();
}

#define ck_answer(text, answer) ck_assert_str_eq(ask(text), answer)

START_TEST(stops_and_goes_on)
{
	char expected[16];
	uint32_t was;

	start("1", "");
	runs();
	dial();
	ck_assert(strstr(ask("qSupported:hwbreak+;swbreak+"), "qXfer:features:read+"));
	runs(); /* only "?" stops it */
	ck_answer("g", "E10");
	ck_answer("?", "T05thread:1;");
	stands();
	ck_assert_str_eq(hako_vm_get(vm, "status"), "debug");
	ck_answer("Z1,100006,1", "OK");
	ck_answer("vCont;c", "T05hwbreak:;thread:1;");
	ck_answer("p10", "0600100000000000");
	was = counter();
	ck_answer("z1,100006,1", "OK");
	ck_answer("vCont;s:1;c", "T05thread:1;");
	ck_assert_uint_eq(counter(), was + 1);
	was++;
	snprintf(expected, sizeof(expected), "%02x%02x%02x%02x", was & 255, was >> 8 & 255,
		 was >> 16 & 255, was >> 24);
	ck_answer("m200000,4", expected);
	ck_answer("M200000,4:78563412", "OK");
	ck_assert_uint_eq(counter(), 0x12345678);
	ck_answer("P10=0600100000000000", "OK"); /* over the jump */
	ck_answer("s", "T05thread:1;");
	ck_assert_uint_eq(counter(), 0x12345679);
	ck_answer("D", "OK");
	runs();
	end();
}
END_TEST

START_TEST(holds_at_the_start)
{
	start("2", ",stop=on");
	stands();
	dial();
	ck_answer("?", "T05thread:1;");
	ck_answer("p10", "0000100000000000");
	ck_answer("qfThreadInfo", "m1,2");
	ck_answer("T2", "OK");
	ck_answer("T3", "E03");
	/* The second waits to be started: only a Ctrl-C stops that. */
	put("$vCont;c:2#14", 13);
	usleep(20000);
	ck_assert_uint_eq(counter(), 0);
	put("\3", 1);
	ck_assert_str_eq(get(), "T02thread:1;");
	/* The connection's end lets the guest go, as a new one's stops it. */
	hang_up();
	runs();
	dial();
	ck_answer("?", "T05thread:1;");
	stands();
	/* Its end, while the guest runs. */
	put("$c#63", 5);
	runs();
	hako_vm_stop(vm, NULL);
	end();
}
END_TEST

/* Breakpoints are gone when the debugger is, also one in the middle of a packet, and the guest's code is as it was. */
START_TEST(leaves_nothing)
{
	uint8_t code;

	start("1", "");
	dial();
	ck_answer("?", "T05thread:1;");
	ck_answer("Z0,10000c,1", "OK"); /* the jump */
	ck_answer("Z1,100006,1", "OK");
	ck_answer("m10000c,2", "ccf8");
	put("$m1000", 6);
	hang_up();
	runs();
	ck_assert_int_eq(hako_vm_read_memory(vm, 0x10000c, &code, 1, &err), 0);
	ck_assert_uint_eq(code, 0xeb);
	end();
}
END_TEST

START_TEST(says_why_not)
{
	static const struct {
		const char *packet, *answer;
	} t[] = {
		{"m200000", "E16"},
		{"m200000,", "E16"},
		{"m200000,4,", "E16"},
		{"mfffffffffffffffff,4", "E16"},
		{"mffffffff00000000,4", "E0e"},
		{"m1000000,4", "E0e"}, /* behind RAM */
		{"M200000,4:00", "E16"},
		{"M200000,1:0g", "E16"},
		{"Mffffffff,1:00", "E0e"},
		{"X200000,2:a", "E16"},
		{"X200000,ffffffffffffffff:a", "E16"},
		{"p", "E16"},
		{"pffff", "E16"},
		{"pfffffffffffffff", "E16"},
		{"P10=00", "E16"},
		{"P", "E16"},
		{"G00", "E16"},
		{"Z0,200000,2", "E16"},
		{"Z2,200001,4", "E16"},
		{"Z2,200000,10", "E16"},
		{"Z0,1000000,1", "E0e"},
		{"Z1,200000", "E16"},
		{"Z", ""},
		{"Z3,200000,4", ""},
		{"z1,300000,1", "E02"},
		{"vCont", "E16"},
		{"vCont;", "E16"},
		{"vCont;x", "E16"},
		{"vCont;c:7", "E16"},
		{"vCont;s:", "E16"},
		{"vCont;C", "E16"},
		{"Hg7", "E16"},
		{"H", "E16"},
		{"T", "E03"},
		{"qRcmd,4", "E16"},
		{"qRcmd,xx", "E16"},
		{"qThreadExtraInfo,", "E16"},
		{"qXfer:features:read:other.xml:0,10", "E00"},
		{"qXfer:features:read:target.xml:", "E00"},
		{"qXfer:features:read:target.xml:ffffffff,10", "l"},
		{"Qqemu.PhyMemMode:2", "E16"},
		{"Qqemu.PhyMemMode:1", "OK"},
		{"qqemu.PhyMemMode", "1"},
		{"vMustReplyEmpty", ""},
		{"", ""},
		{"!", ""},
	};

	start("1", "");
	dial();
	ck_answer("?", "T05thread:1;");
	for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
		const char *answer = ask(t[i].packet);

		ck_assert_msg(!strcmp(answer, t[i].answer), "%s: %s, not %s", t[i].packet, answer,
			      t[i].answer);
	}
	for (unsigned int i = 0; i < 5; i++) {
		char packet[32];

		snprintf(packet, sizeof(packet), "Z2,20%x000,8", i);
		ck_assert_str_eq(ask(packet), i < 4 ? "OK" : "E1c");
	}
	stands();
	end();
}
END_TEST

START_TEST(bad_frames)
{
	char *big = malloc(1 << 20);

	memset(big, 'm', 1 << 20);
	start("1", "");
	dial();
	put("$?#00", 5);
	ck_assert_int_eq(get_byte(), '-');
	put("$?#xx", 5);
	ck_assert_int_eq(get_byte(), '-');
	put("#?$abc$?#3f", 11); /* noise; a packet that was cut off */
	ck_assert_int_eq(get_byte(), '+');
	ck_assert_str_eq(get(), "T05thread:1;");
	put("-", 1);
	ck_assert_str_eq(get(), "T05thread:1;");
	put("$", 1);
	put(big, 1 << 20);
	put("#00", 3); /* 0x6d << 20 */
	ck_assert_str_eq(get(), "E07");
	/* Who asks much and listens to nothing is not listened to either. */
	for (int i = 0; i < 20000; i++)
		if (send(sock, "$m100000,2000#7c", 16, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			i = 20000;
	hang_up();
	runs();
	dial();
	ck_answer("?", "T05thread:1;");
	end();
	free(big);
}
END_TEST

/* A reset while the guest is held: it stands at its beginning. */
START_TEST(reset_while_held)
{
	start("1", "");
	runs();
	dial();
	ck_answer("?", "T05thread:1;");
	ck_assert_int_eq(hako_vm_reset(vm, &err), 0);
	ck_answer("p10", "0000100000000000");
	ck_assert_int_eq(hako_vm_pause(vm, &err), 0);
	ck_answer("D", "OK");
	stands();
	ck_assert_int_eq(hako_vm_start(vm, &err), 0);
	runs();
	end();
}
END_TEST

static Suite *create_suite(void)
{
	Suite *s = suite_create("gdb");
	TCase *tc = tcase_create("vm");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, stops_and_goes_on);
	tcase_add_test(tc, holds_at_the_start);
	tcase_add_test(tc, leaves_nothing);
	tcase_add_test(tc, says_why_not);
	tcase_add_test(tc, bad_frames);
	tcase_add_test(tc, reset_while_held);
	suite_add_tcase(s, tc);
	return s;
}

int main(void)
{
	return run_suite(create_suite());
}
