/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Many VMs in a process, in turn and at once, used from several threads: nothing is left of them, and they do not know of each other. The same
 * program is run with ThreadSanitizer and under valgrind (tests/embed), with fewer VMs: HAKO_TEST_VMS.
 */
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>

#include "lib_test.h"
#include "suite.h"

#define LENGTH 65536

static unsigned int vms(unsigned int otherwise)
{
	const char *n = getenv("HAKO_TEST_VMS");

	return n ? (unsigned int)atoi(n) : otherwise;
}

static unsigned int entries(const char *directory)
{
	DIR *dir = opendir(directory);
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* All that the program can give a VM. */
struct whole {
	struct hako_vm *vm;
	struct hako_console *console;
	struct hako_nic *nic;
	char memory[LENGTH];
	uint32_t reg;
};

static void request(void *opaque, struct hako_disk_request *req)
{
	hako_disk_done(req, HAKO_DISK_SERVE, 1);
}

static uint64_t reg_read(void *opaque, uint64_t offset, unsigned int bytes)
{
	return *(uint32_t *)opaque;
}

static void reg_write(void *opaque, uint64_t offset, uint64_t value, unsigned int bytes)
{
	*(uint32_t *)opaque = value;
}

static struct whole *whole_new(const char *machine)
{
	struct whole *w = calloc(1, sizeof(*w));
	struct hako_disk disk = {
		.size = sizeof(disk),
		.length = LENGTH,
		.memory = w->memory,
		.request = request,
	};
	struct hako_region region = {
		.size = sizeof(region),
		.space = HAKO_PORTS,
		.base = 0x5000,
		.length = 4,
		.read = reg_read,
		.write = reg_write,
		.opaque = &w->reg,
	};

	w->vm = talk_new(machine, "--net program --device virtio-blk,drive=d "
				  "--device isa-debug-exit,iobase=0xf4,iosize=4");
	ok(hako_vm_add_disk(w->vm, "d", &disk, &err));
	ok(hako_vm_event_fd(w->vm, &err));
	w->console = talk_start(w->vm);
	ok(hako_vm_nic(w->vm, "net0", &w->nic, &err));
	ok(hako_vm_add_region(w->vm, &region, &err));
	return w;
}

static void whole_use(struct whole *w, uint32_t mark)
{
	uint8_t frame[1514];
	char line[64], want[64];
	uint32_t word;

	snprintf(line, sizeof(line), "out 5000 %x 4", mark);
	tell(w->console, line, "done");
	ck_assert_uint_eq(w->reg, mark);
	snprintf(line, sizeof(line), "disk-write 3 %x", mark);
	tell(w->console, line, "done");
	snprintf(want, sizeof(want), "%08x", mark);
	tell(w->console, "disk-read 3", want);
	tell(w->console, "net-send 1", "done");
	ck_assert_int_eq(hako_nic_receive(w->nic, frame, sizeof(frame), WAIT, &err), 100);
	ok(hako_vm_pause(w->vm, &err));
	ok(hako_vm_write_memory(w->vm, 0x3000000, &mark, 4, &err));
	ok(hako_vm_start(w->vm, &err));
	snprintf(want, sizeof(want), "%x", mark);
	tell(w->console, "read 3000000", want);
	ok(hako_vm_read_memory(w->vm, 0x3000000, &word, 4, &err));
	ck_assert_uint_eq(word, mark);
}

static void whole_end(struct whole *w, bool by_guest)
{
	struct hako_exit_info info;

	if (by_guest) {
		say(w->console, "exit 7");
		ok(hako_vm_wait(w->vm, WAIT, &info, &err));
		ck_assert_int_eq(info.reason, HAKO_EXIT_DEBUG);
		ck_assert_int_eq(info.status, 15);
	}
	hako_vm_destroy(w->vm);
	free(w);
}

static const char *const machines[] = {"micro", "q35"};

static void one(unsigned int i)
{
	struct whole *w = whole_new(machines[i % 2]);

	whole_use(w, 0x1000 + i);
	whole_end(w, i & 2);
}

START_TEST(in_turn)
{
	unsigned int n = vms(100), files, threads;
	size_t heap = 0;

	one(0);
	one(1);
	files = entries("/proc/self/fd");
	threads = entries("/proc/self/task");
	for (unsigned int i = 0; i < n; i++) {
		one(i);
		ck_assert_uint_eq(entries("/proc/self/fd"), files);
		ck_assert_uint_eq(entries("/proc/self/task"), threads);
		if (i == n / 2)
			heap = mallinfo2().uordblks;
	}
	/* Where it can be seen: with sanitizers it is theirs to look. */
	ck_assert_uint_le(mallinfo2().uordblks, heap + 4096);
}
END_TEST

static void *use_one(void *opaque)
{
	unsigned int i = (uintptr_t)opaque;

	one(i);
	one(i + 1);
	return NULL;
}

/* A thread for each, which makes it, uses it, ends it, and does so again. */
START_TEST(at_once)
{
	unsigned int n = vms(16), files = entries("/proc/self/fd");
	pthread_t thread[16];

	n = n > 16 ? 16 : n;
	for (unsigned int i = 0; i < n; i++)
		ck_assert_int_eq(pthread_create(&thread[i], NULL, use_one, (void *)(uintptr_t)i),
				 0);
	for (unsigned int i = 0; i < n; i++)
		pthread_join(thread[i], NULL);
	ck_assert_uint_eq(entries("/proc/self/fd"), files);
}
END_TEST

struct shared {
	struct whole *w;
	unsigned int rounds;
};

static void *pause_often(void *opaque)
{
	struct shared *s = opaque;

	for (unsigned int i = 0; i < s->rounds; i++) {
		hako_vm_pause(s->w->vm, NULL);
		hako_vm_get(s->w->vm, "status");
		hako_vm_start(s->w->vm, NULL);
	}
	return NULL;
}

static void *look_often(void *opaque)
{
	struct shared *s = opaque;
	enum hako_event event;
	char buf[64];

	for (unsigned int i = 0; i < s->rounds; i++) {
		hako_vm_read_memory(s->w->vm, 0x3000000, buf, sizeof(buf), NULL);
		hako_vm_next_event(s->w->vm, &event, buf, sizeof(buf));
		free(hako_console_transcript(s->w->console, NULL));
		hako_nic_receive(s->w->nic, buf, sizeof(buf), 0, NULL);
	}
	return NULL;
}

/* One VM, used by several threads, of which one ends it while the others wait. */
START_TEST(from_any_thread)
{
	struct shared s = {.w = whole_new(machines[_i]), .rounds = vms(100)};
	pthread_t thread[3];

	ck_assert_int_eq(pthread_create(&thread[0], NULL, pause_often, &s), 0);
	ck_assert_int_eq(pthread_create(&thread[1], NULL, look_often, &s), 0);
	ck_assert_int_eq(pthread_create(&thread[2], NULL, look_often, &s), 0);
	for (unsigned int i = 0; i < s.rounds; i++) {
		tell(s.w->console, "disk-read 1", "00000000");
		tell(s.w->console, "echo x", "x");
	}
	ok(hako_vm_stop(s.w->vm, &err));
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	ck_assert_int_eq(hako_console_expect(s.w->console, "y", 0, -1, NULL, NULL, &err),
			 -ESHUTDOWN);
	whole_end(s.w, false);
}
END_TEST

static void *wait_end(void *opaque)
{
	struct shared *s = opaque;
	char c;

	ck_assert_int_eq(hako_console_read(s->w->console, &c, 1, -1, NULL), 0);
	return NULL;
}

START_TEST(the_end_wakes)
{
	struct shared s = {.w = whole_new(machines[_i])};
	pthread_t thread;

	ck_assert_int_eq(pthread_create(&thread, NULL, wait_end, &s), 0);
	usleep(20000);
	ok(hako_vm_stop(s.w->vm, &err));
	pthread_join(thread, NULL);
	whole_end(s.w, false);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lib_many");
	TCase *tc = tcase_create("vms");

	if (!lib_test_possible("lib_many"))
		return 0;
	tcase_set_timeout(tc, 280);
	tcase_add_test(tc, in_turn);
	tcase_add_test(tc, at_once);
	tcase_add_loop_test(tc, from_any_thread, 0, 2);
	tcase_add_loop_test(tc, the_end_wakes, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
