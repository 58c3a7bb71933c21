/* SPDX-License-Identifier: GPL-2.0-only */
/* The guest's clocks while its VM is paused. */
#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "lib_test.h"
#include "suite.h"

static const char *const machines[] = {"micro", "q35"};

#define PAUSE	1500 /* ms */
#define STOPPED 2    /* PVCLOCK_GUEST_STOPPED */

static uint64_t host_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ull + ts.tv_nsec / 1000000;
}

/* kvmclock's milliseconds; false: this host's KVM has none. */
static bool guest_ms(struct hako_console *c, uint64_t *ms, unsigned int *flags)
{
	unsigned long value;
	char *answer;
	bool there;

	say(c, "kvmclock");
	ok(hako_console_expect(c, "\r\n> ", 0, WAIT, &answer, NULL, &err));
	there = strcmp(answer, "none");
	if (there) {
		ck_assert_int_eq(sscanf(answer, "%lu ms, flags %x", &value, flags), 2);
		*ms = value;
	}
	free(answer);
	return there;
}

/* How much of the host's time since @since, of which at least a pause has gone by, the guest has not seen. */
static void lost(struct hako_console *c, uint64_t since, uint64_t was, int64_t least, int64_t most,
		 unsigned int stopped)
{
	uint64_t now, before = host_ms();
	unsigned int flags;
	int64_t ms;

	ck_assert(guest_ms(c, &now, &flags));
	ms = (int64_t)(before - since) - (int64_t)(now - was);
	ck_assert_int_ge(ms, least);
	ck_assert_int_le(ms, most);
	ck_assert_uint_eq(flags & STOPPED, stopped);
}

/* Twice, so that what is left of the first pause is seen. */
START_TEST(stands_still_in_a_pause)
{
	struct hako_vm *vm = talk_new(machines[_i], NULL);
	struct hako_console *c = talk_start(vm);
	unsigned int flags;
	uint64_t was, since;

	for (int i = 0; i < 2 && guest_ms(c, &was, &flags); i++) {
		since = host_ms();
		ck_assert_uint_eq(flags & STOPPED, 0);
		ok(hako_vm_pause(vm, &err));
		usleep(PAUSE * 1000);
		ok(hako_vm_start(vm, &err));
		lost(c, since, was, PAUSE - 100, PAUSE + 100, STOPPED);
	}
	hako_vm_destroy(vm);
}
END_TEST

START_TEST(goes_on_if_asked_to)
{
	struct hako_vm *vm = talk_new(machines[_i], "--rtc kvmclock=host");
	struct hako_console *c = talk_start(vm);
	unsigned int flags;
	uint64_t was, since;

	if (guest_ms(c, &was, &flags)) {
		since = host_ms();
		ok(hako_vm_pause(vm, &err));
		usleep(PAUSE * 1000);
		ok(hako_vm_start(vm, &err));
		lost(c, since, was, -WAIT, 100, 0);
	}
	hako_vm_destroy(vm);
}
END_TEST

/* A debugger that asks why the guest has stopped, and so stops it; it goes when the connection ends. */
static int hold(const char *path)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char got = 0;

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
	ck_assert_int_eq(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	ck_assert_int_eq(send(fd, "$?#3f", 5, MSG_NOSIGNAL), 5);
	while (got != '#')
		ck_assert_int_eq(read(fd, &got, 1), 1);
	return fd;
}

/* A pause that begins and ends while a debugger holds the guest, and one that he ends. */
START_TEST(stands_still_for_a_debugger)
{
	char path[64], options[128];
	struct hako_console *c;
	struct hako_vm *vm;
	unsigned int flags;
	uint64_t was, since;
	int fd;

	snprintf(path, sizeof(path), "/tmp/hako-clock-%d", getpid());
	snprintf(options, sizeof(options), "--gdb unix:%s", path);
	vm = talk_new(machines[_i], options);
	c = talk_start(vm);
	for (int i = 0; i < 2 && guest_ms(c, &was, &flags); i++) {
		since = host_ms();
		fd = hold(path);
		usleep(PAUSE / 3 * 1000);
		ok(hako_vm_pause(vm, &err));
		usleep(PAUSE / 3 * 1000);
		if (i == 0)
			ok(hako_vm_start(vm, &err));
		else
			close(fd);
		usleep(PAUSE / 3 * 1000);
		if (i == 0)
			close(fd);
		else
			ok(hako_vm_start(vm, &err));
		lost(c, since, was, PAUSE - 100, PAUSE + 300, STOPPED);
	}
	hako_vm_destroy(vm);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib_clock");
	TCase *tc = tcase_create("calls");

	if (!lib_test_possible("lib_clock"))
		return 0;
	tcase_set_timeout(tc, 120);
	tcase_add_loop_test(tc, stands_still_in_a_pause, 0, 2);
	tcase_add_loop_test(tc, goes_on_if_asked_to, 0, 2);
	tcase_add_loop_test(tc, stands_still_for_a_debugger, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
