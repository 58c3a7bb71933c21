/* SPDX-License-Identifier: GPL-2.0-only */
/* What the tests of platform devices have in common: a VM without KVM, its ports, and objects made from text. */
#ifndef TESTS_UNIT_DEVICE_TEST_H
#define TESTS_UNIT_DEVICE_TEST_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "vmm/vm.h"

static struct vm *vm;
static struct bus_reader pio;
static struct hako_error err;

static inline void setup_vm(void)
{
	ck_assert_msg(vm_new_plain(&vm, 1 * MiB, &err) == 0, "%s", err.message);
	bus_reader_init(&pio, &vm->pio);
}

static inline void teardown_vm(void)
{
	bus_reader_free(&pio);
	vm_free_plain(vm);
}

/* An object of that class with these options; fails the test if that fails. */
static inline struct object *make(enum class_kind kind, const char *class, const char *options)
{
	const struct class *cls = class_find(kind, class);
	struct keyvals kv = {};
	struct object *obj;

	ck_assert_msg(cls != NULL, "class %s", class);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ck_assert_msg(object_new(vm, cls, &kv, &obj, &err) == 0, "%s", err.message);
	keyvals_free(&kv);
	return obj;
}

/* The same where it has to fail: the error's code. */
static inline int make_fails(enum class_kind kind, const char *class, const char *options)
{
	const struct class *cls = class_find(kind, class);
	struct keyvals kv = {};
	int ret;

	ck_assert_msg(cls != NULL, "class %s", class);
	ck_assert_int_eq(keyvals_parse(&kv, options, NULL, &err), 0);
	ret = object_new(vm, cls, &kv, NULL, &err);
	keyvals_free(&kv);
	ck_assert_int_lt(ret, 0);
	return ret;
}

static inline uint64_t in(uint16_t port, unsigned int size)
{
	uint64_t value;

	bus_read(&pio, port, &value, size);
	return value;
}

static inline uint8_t inb(uint16_t port)
{
	return in(port, 1);
}

static inline void out(uint16_t port, uint64_t value, unsigned int size)
{
	bus_write(&pio, port, value, size);
}

static inline void outb(uint16_t port, uint8_t value)
{
	out(port, value, 1);
}

/* Is the interrupt line high? */
static inline bool irq_high(unsigned int gsi)
{
	bool high;

	pthread_mutex_lock(&vm->irq.lock);
	high = vm->irq.asserted[gsi] != 0;
	pthread_mutex_unlock(&vm->irq.lock);
	return high;
}

/* Wait up to ten seconds until @cond holds. */
#define WAIT_FOR(cond)                                            \
	do {                                                      \
		for (int w_ = 0; w_ < 10000 && !(cond); w_++)     \
			usleep(1000);                             \
		ck_assert_msg(cond, "waited in vain: %s", #cond); \
	} while (0)

/* Save @obj by its class's table, reset it, and load it again; then saving must give the same bytes. */
static inline void state_round_trip(struct object *obj)
{
	const struct state_table *table = obj->class->state;
	struct state_buf a = {}, b = {}, load;

	if (obj->class->pause)
		obj->class->pause(obj);
	ck_assert_int_eq(state_save(&a, table, obj, &err), 0);
	obj->class->reset(obj);
	load = (struct state_buf){.data = a.data, .len = a.len};
	ck_assert_msg(state_load(&load, table, obj, &err) == 0, "%s", err.message);
	ck_assert_int_eq(state_save(&b, table, obj, &err), 0);
	ck_assert_uint_eq(a.len, b.len);
	ck_assert_mem_eq(a.data, b.data, a.len);
	if (obj->class->resume)
		obj->class->resume(obj);
	state_buf_free(&a);
	state_buf_free(&b);
}

/* Load what is saved of @obj with single bytes changed: each must load or fail, and the device must live on. */
static inline void state_mutations(struct object *obj, unsigned int seed, int rounds,
				   void (*use)(void))
{
	const struct state_table *table = obj->class->state;
	struct state_buf a = {};

	ck_assert_int_eq(state_save(&a, table, obj, &err), 0);
	for (int i = 0; i < rounds; i++) {
		uint8_t *copy = malloc(a.len);
		struct state_buf load = {.data = copy, .len = a.len};

		memcpy(copy, a.data, a.len);
		copy[rand_r(&seed) % a.len] = rand_r(&seed);
		/* As a VM does: its loop would meet what has not been checked yet. */
		if (obj->class->pause)
			obj->class->pause(obj);
		if (state_load(&load, table, obj, &err) < 0)
			obj->class->reset(obj);
		if (obj->class->resume)
			obj->class->resume(obj);
		use();
		free(copy);
	}
	state_buf_free(&a);
}

static inline int run_suite(const char *name, void (*setup)(void), void (*teardown)(void),
			    const TTest *const *tests, size_t n)
{
	Suite *s = suite_create(name);
	TCase *tc = tcase_create(name);
	SRunner *sr = srunner_create(s);
	int failures;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tc, tests[i]);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failures = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failures;
}

#endif
