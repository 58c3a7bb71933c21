/* SPDX-License-Identifier: GPL-2.0-only */
/* Power management registers: ACPI's fixed hardware (ACPI 6.4, 4.8.3), the GED, and the ports by which guests end. */
#include <check.h>
#include <stdlib.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "devices/platform/acpi_pm.h"
#include "devices/platform/ged.h"
#include "vmm/vm.h"

#define PM 0x600

static struct vm *vm;
static struct acpi_pm pm;
static struct bus_reader pio, mmio;
static struct hako_error err;

static void setup(void)
{
	struct io_region region = {
		.name = "pm",
		.base = PM,
		.size = ACPI_PM_SIZE,
		.ops = &acpi_pm_ops,
		.opaque = &pm,
		.lock = &pm.lock,
	};

	memset(&pm, 0, sizeof(pm));
	ck_assert_int_eq(vm_new_plain(&vm, 0, &err), 0);
	acpi_pm_init(&pm, vm, 9);
	acpi_pm_reset(&pm);
	ck_assert_int_eq(bus_add(&vm->pio, &region, &err), 0);
	bus_reader_init(&pio, &vm->pio);
	bus_reader_init(&mmio, &vm->mmio);
}

static void teardown(void)
{
	bus_reader_free(&pio);
	bus_reader_free(&mmio);
	acpi_pm_free(&pm);
	vm_free_plain(vm);
}

static uint32_t inp(uint16_t port, unsigned int size)
{
	uint64_t v;

	bus_read(&pio, port, &v, size);
	return v;
}

static void outp(uint16_t port, uint32_t value, unsigned int size)
{
	bus_write(&pio, port, value, size);
}

static uint32_t rd(uint64_t addr, unsigned int size)
{
	uint64_t v;

	bus_read(&mmio, addr, &v, size);
	return v;
}

static void sleep_ms(unsigned int ms)
{
	const struct timespec t = {.tv_nsec = ms * 1000000ul};

	nanosleep(&t, NULL);
}

START_TEST(timer)
{
	uint64_t t0 = clock_now(), t1, t2, ticks;
	uint32_t a, b;

	a = inp(PM + 8, 4);
	t1 = clock_now();
	sleep_ms(50);
	t2 = clock_now();
	b = inp(PM + 8, 4);
	ck_assert_uint_lt(b, 1 << 24);
	ticks = (b - a) & 0xffffff;
	/* between the shortest and the longest time that can lie between the two */
	ck_assert_uint_ge(ticks + 1, (t2 - t1) * 3579545 / 1000000000);
	ck_assert_uint_le(ticks, (clock_now() - t0) * 3579545 / 1000000000 + 1);
	outp(PM + 8, 0, 4); /* read-only */
	ck_assert_uint_ge((inp(PM + 8, 4) - a) & 0xffffff, ticks);
	/* while the VM is paused it stands still */
	acpi_pm_pause(&pm);
	a = inp(PM + 8, 4);
	sleep_ms(5);
	ck_assert_uint_eq(inp(PM + 8, 4), a);
	acpi_pm_resume(&pm);
	ck_assert_uint_lt((inp(PM + 8, 4) - a) & 0xffffff, 3579545 / 10);
}
END_TEST

START_TEST(timer_overflow)
{
	pm.tmr32 = _i;
	outp(PM + 4, 1, 2);
	pm.ticks = (_i ? 1u << 31 : 1 << 23) - 3579545 / 50 - (clock_now() - pm.epoch) / 279;
	pm.carry = pm.ticks;
	ck_assert_uint_eq(inp(PM, 2), 0);
	outp(PM + 2, 1, 2);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	for (int i = 0; i < 1000 && !READ_ONCE(vm->irq.asserted[9]); i++)
		sleep_ms(1);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	ck_assert_uint_eq(inp(PM, 2), 1);
	ck_assert_uint_ge(inp(PM + 8, 4), _i ? 1u << 31 : 1 << 23);
	outp(PM, 1, 2);
	ck_assert_uint_eq(inp(PM, 2), 0);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
}
END_TEST

START_TEST(power_button)
{
	acpi_pm_power_button(&pm);
	ck_assert_uint_eq(inp(PM, 2), 0x100);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	outp(PM + 2, 0x100, 2);
	ck_assert_uint_eq(vm->irq.asserted[9], 0); /* no SCI outside ACPI mode */
	acpi_pm_enable(&pm, true);
	ck_assert_uint_eq(inp(PM + 4, 2), 1);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	outp(PM, 0xfe, 1);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	outp(PM + 1, 0x01, 1);
	ck_assert_uint_eq(inp(PM, 4), 0x01000000);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	outp(PM, 0xffffffff, 4);
	ck_assert_uint_eq(inp(PM + 2, 2), 0x0521); /* timer, global lock, power button, RTC */
	outp(PM + 3, 0, 1);
	ck_assert_uint_eq(inp(PM + 2, 2), 0x0021);
	acpi_pm_enable(&pm, false);
	ck_assert_uint_eq(inp(PM + 4, 2), 0);
	pm.sci_en_fixed = true;
	acpi_pm_reset(&pm);
	ck_assert_uint_eq(inp(PM + 4, 4), 1);
	outp(PM + 4, 0, 1);
	ck_assert_uint_eq(inp(PM + 4, 4), 1);
}
END_TEST

START_TEST(soft_off)
{
	outp(PM + 4, 0x2000 | 1 << 10, 2); /* S1: not there */
	ck_assert_int_eq(vm->request, 0);
	ck_assert_uint_eq(inp(PM + 4, 2), 1 << 10);
	outp(PM + 4, 0x1c00, 2); /* no SLP_EN */
	ck_assert_int_eq(vm->request, 0);
	outp(PM + 4, 0x3c01, 2);
	ck_assert_int_eq(vm->request, VM_REQUEST_POWEROFF);
	ck_assert_uint_eq(inp(PM + 4, 2), 0x1c01);
	vm->request = 0;
	outp(PM + 4, 0x2000, 2); /* QEMU's S5 */
	ck_assert_int_eq(vm->request, VM_REQUEST_POWEROFF);
	vm->request = 0;
	outp(PM + 5, 0x20, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_POWEROFF);
}
END_TEST

START_TEST(gpe)
{
	acpi_pm_enable(&pm, true);
	acpi_pm_gpe(&pm, 1);
	acpi_pm_gpe(&pm, 33);
	ck_assert_uint_eq(inp(PM + 0x20, 4), 2);
	ck_assert_uint_eq(inp(PM + 0x24, 4), 2);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	outp(PM + 0x2c, 2, 1);
	ck_assert_uint_eq(inp(PM + 0x28, 4), 0);
	ck_assert_uint_eq(inp(PM + 0x2c, 4), 2);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	outp(PM + 0x20, 0xffffffff, 4);
	ck_assert_uint_eq(inp(PM + 0x20, 4), 0);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	outp(PM + 0x24, 2, 1);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	outp(PM + 0x30, 0x12345678, 4);
	outp(PM + 0x31, 0xff, 1);
	ck_assert_uint_eq(inp(PM + 0x30, 4), 0x1234ff78);
	ck_assert_uint_eq(inp(PM + 0x2e, 4), 0xff780000); /* across two registers */
	outp(PM + 0x2f, 0x55, 2);
	ck_assert_uint_eq(inp(PM + 0x2c, 4), 0x55000002);
	ck_assert_uint_eq(inp(PM + 0x30, 4), 0x1234ff00);
	ck_assert_uint_eq(inp(PM + 0x7f, 1), 0);
}
END_TEST

START_TEST(state)
{
	struct state_buf buf = {0}, in;
	uint32_t t;

	outp(PM + 4, 1, 2);
	outp(PM + 2, 0x121, 2);
	outp(PM + 0x28, 0xaa, 4);
	acpi_pm_power_button(&pm);
	sleep_ms(3);
	acpi_pm_pause(&pm);
	ck_assert_int_eq(state_save(&buf, &acpi_pm_state, &pm, &err), 0);
	t = inp(PM + 8, 4);
	acpi_pm_reset(&pm);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	in = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&in, &acpi_pm_state, &pm, &err), 0);
	ck_assert_uint_eq(inp(PM, 4), 0x01210100);
	ck_assert_uint_eq(inp(PM + 4, 2), 1);
	ck_assert_uint_eq(inp(PM + 8, 4), t);
	ck_assert_uint_eq(inp(PM + 0x28, 4), 0xaa);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	for (size_t i = 0; i < buf.len; i++) {
		buf.data[i] ^= 0xff;
		in = (struct state_buf){.data = buf.data, .len = buf.len};
		state_load(&in, &acpi_pm_state, &pm, &err);
		buf.data[i] ^= 0xff;
	}
	acpi_pm_reset(&pm);
	acpi_pm_resume(&pm);
	ck_assert_uint_eq(inp(PM + 2, 2), 0);
	state_buf_free(&buf);
}
END_TEST

START_TEST(nonsense)
{
	srand(_i);
	for (unsigned int n = 0; n < 20000; n++) {
		unsigned int size = 1 << rand() % 4;
		uint16_t port = PM + rand() % ACPI_PM_SIZE;

		if (rand() & 1)
			outp(port, rand(), size);
		else
			inp(port, size);
		if (!(rand() & 15))
			acpi_pm_gpe(&pm, rand());
	}
	acpi_pm_reset(&pm);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
}
END_TEST

/* --- the others -------------------------------------------------------------------------------- */

static struct object *make(const char *class, const char *options)
{
	struct keyvals kv = {0};
	struct object *obj;

	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_int_eq(object_new(vm, class_find(CLASS_DEVICE, class), &kv, &obj, &err), 0);
	keyvals_free(&kv);
	return obj;
}

START_TEST(ged)
{
	struct object *obj = make("acpi-ged", "");
	struct state_buf buf = {0}, in;

	ck_assert_uint_eq(rd(0xfea00000, 4), 0);
	ged_power_button(obj);
	ck_assert_uint_eq(vm->irq.asserted[9], 0); /* a pulse */
	ck_assert_int_eq(state_save(&buf, obj->class->state, obj, &err), 0);
	ck_assert_uint_eq(rd(0xfea00000, 4), 2);
	ck_assert_uint_eq(rd(0xfea00000, 4), 0);
	in = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&in, obj->class->state, obj, &err), 0);
	ck_assert_uint_eq(rd(0xfea00000, 4), 2);
	ged_power_button(obj);
	obj->class->reset(obj);
	ck_assert_uint_eq(rd(0xfea00000, 4), 0);
	state_buf_free(&buf);

	bus_write(&mmio, 0xfea00201, 0x34, 1);
	bus_write(&mmio, 0xfea00200, 5 << 2, 1);
	bus_write(&mmio, 0xfea00200, 0x20 | 3 << 2, 1);
	bus_write(&mmio, 0xfea00202, 0x41, 1);
	ck_assert_int_eq(vm->request, 0);
	ck_assert_uint_eq(rd(0xfea00200, 1), 0);
	bus_write(&mmio, 0xfea00200, 0x20 | 5 << 2, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_POWEROFF);
	vm->request = 0;
	bus_write(&mmio, 0xfea00202, 0x42, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_RESET);
	object_destroy(obj);
	ck_assert_uint_eq(rd(0xfea00200, 1), 0xff);
}
END_TEST

START_TEST(debug_exit)
{
	struct object *obj = make("isa-debug-exit", "iobase=0xf4,iosize=4");

	ck_assert_uint_eq(inp(0xf4, 4), 0);
	outp(0xf4, 0x31, 4);
	ck_assert_int_eq(vm->request, VM_REQUEST_DEBUG_EXIT);
	ck_assert_int_eq(vm->request_status, 0x63);
	vm->request = 0;
	outp(0xf6, 0, 1);
	ck_assert_int_eq(vm->request_status, 1);
	vm->request = 0;
	/* A process's status has eight bits, and is never negative. */
	outp(0xf4, 0xffffff80, 4);
	ck_assert_int_eq(vm->request_status, 1);
	vm->request = 0;
	outp(0xf4, 0xffffffff, 4);
	ck_assert_int_eq(vm->request_status, 0xff);
	vm->request = 0;
	outp(0xf8, 0, 1);
	ck_assert_int_eq(vm->request, 0);
	object_destroy(obj);
	obj = make("isa-debug-exit", "");
	outp(0x501, 4, 2);
	ck_assert_int_eq(vm->request_status, 9);
	object_destroy(obj);
}
END_TEST

START_TEST(pvpanic)
{
	struct object *obj = make("pvpanic", "");

	ck_assert_uint_eq(inp(0x505, 1), 3);
	outp(0x505, 2, 1);
	outp(0x505, 0x80, 1);
	ck_assert_int_eq(vm->request, 0);
	outp(0x505, 1, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_PANIC);
	ck_assert_int_eq(vm->request_status, 1);
	object_destroy(obj);
	vm->request = 0;
	obj = make("pvpanic", "ioport=0x506,events=2");
	ck_assert_uint_eq(inp(0x506, 1), 2);
	outp(0x506, 1, 1); /* an event that was not offered */
	ck_assert_int_eq(vm->request, 0);
	object_destroy(obj);
}
END_TEST

START_TEST(debugcon)
{
	char path[] = "/tmp/test_pm_XXXXXX", text[8192] = "", options[64];
	struct object *obj, *chr;
	struct keyvals kv = {0};
	int fd = mkstemp(path);

	ck_assert_int_ge(fd, 0);
	snprintf(options, sizeof(options), "id=log,path=%s", path);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_int_eq(object_new(vm, class_find(CLASS_CHARDEV, "file"), &kv, &chr, &err), 0);
	keyvals_free(&kv);
	obj = make("isa-debugcon", "chardev=log");
	ck_assert_uint_eq(inp(0xe9, 1), 0xe9);
	/* more than the buffer holds: nothing is lost */
	for (unsigned int i = 0; i < 8000; i++)
		outp(0xe9, 'a' + i % 26, 1);
	obj->class->pause(obj);
	ck_assert_int_eq(pread(fd, text, sizeof(text), 0), 8000);
	for (unsigned int i = 0; i < 8000; i++)
		ck_assert_int_eq(text[i], 'a' + i % 26);
	obj->class->resume(obj);
	object_destroy(obj);
	obj = make("isa-debugcon", "iobase=0x402,readback=0x12");
	ck_assert_uint_eq(inp(0x402, 1), 0x12);
	outp(0x402, 'x', 1);
	object_destroy(obj);
	object_destroy(chr);
	close(fd);
	unlink(path);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pm");
	TCase *tc = tcase_create("registers");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, timer);
	tcase_add_loop_test(tc, timer_overflow, 0, 2);
	tcase_add_test(tc, power_button);
	tcase_add_test(tc, soft_off);
	tcase_add_test(tc, gpe);
	tcase_add_test(tc, state);
	tcase_add_loop_test(tc, nonsense, 0, 5);
	tcase_add_test(tc, ged);
	tcase_add_test(tc, debug_exit);
	tcase_add_test(tc, pvpanic);
	tcase_add_test(tc, debugcon);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
