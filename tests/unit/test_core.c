/* SPDX-License-Identifier: GPL-2.0-only */
/* Guest memory, buses, state tables, CPUID. */
#include <check.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "arch/x86/cpu.h"
#include "vmm/dl.h"
#include "vmm/vm.h"

static struct hako_error err;

/* --- guest memory ------------------------------------------------------------------------------ */

START_TEST(memory_bounds)
{
	uint8_t buf[16];
	struct memory mem;

	ck_assert_int_eq(memory_init_plain(&mem, 2 * MiB, &err), 0);
	ck_assert_ptr_nonnull(memory_ptr(&mem, 0, 1));
	ck_assert_ptr_nonnull(memory_ptr(&mem, 0, 2 * MiB));
	ck_assert_ptr_null(memory_ptr(&mem, 0, 2 * MiB + 1));
	ck_assert_ptr_null(memory_ptr(&mem, 0, 0));
	ck_assert_ptr_nonnull(memory_ptr(&mem, 2 * MiB - 1, 1));
	ck_assert_ptr_null(memory_ptr(&mem, 2 * MiB - 1, 2));
	ck_assert_ptr_null(memory_ptr(&mem, 2 * MiB, 1));
	ck_assert_ptr_null(memory_ptr(&mem, UINT64_MAX, 1));
	ck_assert_ptr_null(memory_ptr(&mem, UINT64_MAX, 2));
	ck_assert_ptr_null(memory_ptr(&mem, 1, UINT64_MAX));
	ck_assert_int_eq(memory_read(&mem, 2 * MiB - 8, buf, 8), 0);
	ck_assert_int_eq(memory_read(&mem, 2 * MiB - 8, buf, 9), -EFAULT);
	ck_assert_int_eq(memory_write(&mem, UINT64_MAX - 3, buf, 8), -EFAULT);
	memory_free(&mem);
}
END_TEST

START_TEST(memory_is_touched)
{
	struct memory mem;
	uint8_t *p, here[2];

	ck_assert_int_eq(memory_init_plain(&mem, 8 * MiB, &err), 0);
	p = memory_ptr(&mem, 0, 8 * MiB);
	madvise(p, 8 * MiB, MADV_NOHUGEPAGE);
	p[2 * MiB - 1] = 'x';
	ck_assert_uint_eq(memory_touch(&mem, MiB, 8 * MiB), MiB);
	ck_assert_uint_eq(memory_touch(&mem, 4 * MiB, PAGE_SIZE), PAGE_SIZE);
	ck_assert_uint_eq(memory_touch(&mem, 8 * MiB, PAGE_SIZE), 0);
	ck_assert_uint_eq(memory_touch(&mem, UINT64_MAX, 1), 0);
	ck_assert_int_eq(mincore(p + MiB, 2 * PAGE_SIZE, here), 0);
	ck_assert(here[0] & here[1] & 1);
	ck_assert_int_eq(mincore(p + 4 * MiB, 2 * PAGE_SIZE, here), 0);
	ck_assert_int_eq(here[0] & 1, 1);
	ck_assert_int_eq(here[1] & 1, 0);
	ck_assert_uint_eq(p[2 * MiB - 1], 'x');
	ck_assert_uint_eq(p[MiB], 0);
	memory_free(&mem);
}
END_TEST

START_TEST(memory_regions)
{
	struct vm *vm;
	uint64_t v = 0x1122334455667788, w = 0;

	ck_assert_int_eq(vm_new_plain(&vm, MiB, &err), 0);
	ck_assert_int_eq(memory_add_ram(vm, MiB, MiB, &err), 0);
	ck_assert_int_eq(memory_add_ram(vm, 4ull << 30, MiB, &err), 0);
	ck_assert_uint_eq(vm->mem.ram_size, 3 * MiB);
	/* A pointer never crosses regions; a copy does where they touch. */
	ck_assert_ptr_null(memory_ptr(&vm->mem, MiB - 4, 8));
	ck_assert_int_eq(memory_write(&vm->mem, MiB - 4, &v, 8), 0);
	ck_assert_int_eq(memory_read(&vm->mem, MiB - 4, &w, 8), 0);
	ck_assert_uint_eq(v, w);
	ck_assert_int_eq(memory_read(&vm->mem, 2 * MiB - 4, &w, 8), -EFAULT);
	ck_assert_ptr_nonnull(memory_ptr(&vm->mem, 4ull << 30, MiB));
	vm_free_plain(vm);
}
END_TEST

/* --- buses ------------------------------------------------------------------------------------- */

static uint64_t last_write;

static uint64_t bus_test_read(void *opaque, uint64_t offset, unsigned int size)
{
	return (uintptr_t)opaque << 8 | offset | 0xffffff0000000000;
}

static void bus_test_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	last_write = (uintptr_t)opaque << 56 | offset << 48 | value;
}

static const struct io_ops bus_test_ops = {bus_test_read, bus_test_write};

static struct io_region region(uint64_t base, uint64_t size, uintptr_t id, int priority)
{
	return (struct io_region){
		.name = "test",
		.base = base,
		.size = size,
		.ops = &bus_test_ops,
		.opaque = (void *)id,
		.priority = priority,
	};
}

static struct bus bus;
static struct bus_reader reader;

static void bus_setup(void)
{
	ck_assert_int_eq(bus_init(&bus, "test"), 0);
	bus_reader_init(&reader, &bus);
}

static void bus_teardown(void)
{
	bus_reader_free(&reader);
	bus_free(&bus);
}

static int add(uint64_t base, uint64_t size, uintptr_t id, int priority)
{
	struct io_region r = region(base, size, id, priority);

	return bus_add(&bus, &r, &err);
}

static uint64_t get(uint64_t addr, unsigned int size)
{
	uint64_t v;

	bus_read(&reader, addr, &v, size);
	return v;
}

START_TEST(bus_dispatch)
{
	uint64_t v;

	ck_assert_int_eq(add(0x100, 8, 1, 0), 0);
	ck_assert_int_eq(add(0x108, 8, 2, 0), 0);
	ck_assert_uint_eq(get(0x103, 1), 0x03);
	ck_assert_uint_eq(get(0x103, 2), 0x0103);
	ck_assert_uint_eq(get(0x108, 2), 0x0200);
	ck_assert(!bus_read(&reader, 0xff, &v, 1));
	ck_assert_uint_eq(v, 0xff);
	ck_assert(!bus_read(&reader, 0x110, &v, 4));
	ck_assert_uint_eq(v, 0xffffffff);
	/* An access over an edge hits neither. */
	ck_assert(!bus_read(&reader, 0x107, &v, 2));
	ck_assert(!bus_write(&reader, 0x10f, 0, 2));
	ck_assert(bus_write(&reader, 0x10a, 0x112233, 2));
	ck_assert_uint_eq(last_write, 0x0202000000002233);
}
END_TEST

START_TEST(bus_refuses)
{
	ck_assert_int_eq(add(0x100, 8, 1, 0), 0);
	ck_assert_int_eq(add(0x107, 8, 2, 0), -EEXIST);
	ck_assert_int_eq(add(0xf9, 8, 2, 0), -EEXIST);
	ck_assert_int_eq(add(0x102, 2, 2, 0), -EEXIST);
	ck_assert_int_eq(add(0x80, 0x1000, 2, 0), -EEXIST);
	ck_assert_int_eq(add(0x100, 0, 2, 0), -EINVAL);
	ck_assert_int_eq(add(UINT64_MAX - 6, 8, 2, 0), -EINVAL);
	ck_assert_int_eq(add(UINT64_MAX - 7, 8, 2, 0), 0);
	ck_assert_uint_eq(get(UINT64_MAX, 1), 0x07);
}
END_TEST

START_TEST(bus_priority)
{
	ck_assert_int_eq(add(0x100, 0x100, 1, 0), 0);
	ck_assert_int_eq(add(0x140, 0x10, 2, 1), 0);
	ck_assert_uint_eq(get(0x13f, 2), 0xffff); /* over the edge */
	ck_assert_uint_eq(get(0x13e, 2), 0x013e & 0xffff);
	ck_assert_uint_eq(get(0x140, 2), 0x0200);
	ck_assert_uint_eq(get(0x150, 2), 0x0150);
	bus_remove(&bus, 0x140, (void *)2);
	ck_assert_uint_eq(get(0x140, 2), 0x0140);
}
END_TEST

START_TEST(bus_moves)
{
	struct io_region r = region(0x200, 8, 1, 0);

	ck_assert_int_eq(add(0x100, 8, 1, 0), 0);
	ck_assert_int_eq(bus_move(&bus, 0x100, &r, &err), 0);
	ck_assert_uint_eq(get(0x100, 1), 0xff);
	ck_assert_uint_eq(get(0x203, 1), 0x03);
	/* A move to where another is leaves it where it was. */
	ck_assert_int_eq(add(0x300, 8, 2, 0), 0);
	r.base = 0x304;
	ck_assert_int_eq(bus_move(&bus, 0x200, &r, &err), -EEXIST);
	ck_assert_uint_eq(get(0x203, 1), 0x03);
}
END_TEST

static bool stop;
static uint64_t wrong;

static void *bus_reader_thread(void *arg)
{
	struct bus_reader mine;

	bus_reader_init(&mine, &bus);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uint64_t v;

		if (!bus_read(&mine, 0x100, &v, 2) || v != 0x0100)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	}
	bus_reader_free(&mine);
	return NULL;
}

START_TEST(bus_changes_under_readers)
{
	pthread_t t[2];

	ck_assert_int_eq(add(0x100, 8, 1, 0), 0);
	for (int i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, bus_reader_thread, NULL);
	for (int i = 0; i < 3000; i++) {
		ck_assert_int_eq(add(0x1000, 8, 2, 0), 0);
		bus_remove(&bus, 0x1000, (void *)2);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	ck_assert_uint_eq(wrong, 0);
}
END_TEST

/* --- state tables ------------------------------------------------------------------------------ */

struct inner {
	uint16_t a;
	bool b;
};

struct outer {
	uint8_t u8;
	uint64_t u64;
	uint32_t array[3];
	uint8_t bytes[5];
	struct inner one;
	uint32_t count;
	struct inner *many;
	int loads;
};

static int inner_post_load(void *obj, uint16_t version, struct hako_error *e)
{
	struct inner *i = obj;

	return i->a == 666 ? error_set(e, -EINVAL, "an evil number") : 0;
}

static const struct state_field inner_fields[] = {
	STATE_FIELD_UINT(struct inner, a),
	STATE_FIELD_UINT(struct inner, b),
	STATE_END,
};
static const struct state_table inner_table = {
	.name = "inner",
	.version = 1,
	.min_version = 1,
	.fields = inner_fields,
	.post_load = inner_post_load,
};
static const struct state_field outer_fields[] = {
	STATE_FIELD_UINT(struct outer, u8),
	STATE_FIELD_UINT(struct outer, u64),
	STATE_FIELD_ARRAY(struct outer, array),
	STATE_FIELD_BYTES(struct outer, bytes),
	STATE_FIELD_STRUCT(struct outer, one, &inner_table),
	STATE_FIELD_PTR(struct outer, many, count, &inner_table),
	STATE_END,
};
static const struct state_table outer_table = {
	.name = "outer",
	.version = 2,
	.min_version = 1,
	.fields = outer_fields,
};
static const struct state_field newer_fields[] = {
	STATE_FIELD_UINT(struct outer, u8),
	STATE_END,
};
static const struct state_table newer_table = {
	.name = "outer",
	.version = 3,
	.min_version = 3,
	.fields = newer_fields,
};

static struct inner many[2];

static struct outer example(void)
{
	many[0] = (struct inner){3, true};
	many[1] = (struct inner){4, false};
	return (struct outer){
		.u8 = 1,
		.u64 = 0x0123456789abcdef,
		.array = {7, 8, 9},
		.bytes = "abcd",
		.one = {5, true},
		.count = 2,
		.many = many,
	};
}

START_TEST(state_round_trip)
{
	struct outer a = example(), b = {.count = 2};
	struct state_buf buf = {0}, load;
	struct inner copies[2] = {{0}};

	ck_assert_int_eq(state_save(&buf, &outer_table, &a, &err), 0);
	load = (struct state_buf){.data = buf.data, .len = buf.len};
	b.many = copies;
	ck_assert_int_eq(state_load(&load, &outer_table, &b, &err), 0);
	ck_assert_uint_eq(load.pos, buf.len);
	ck_assert_uint_eq(b.u64, a.u64);
	ck_assert_mem_eq(b.array, a.array, sizeof(a.array));
	ck_assert_str_eq((char *)b.bytes, "abcd");
	ck_assert_uint_eq(b.one.a, 5);
	ck_assert_uint_eq(copies[1].a, 4);
	ck_assert(copies[0].b);
	state_buf_free(&buf);
}
END_TEST

START_TEST(state_refuses)
{
	struct outer a = example(), b = {.count = 1, .many = many};
	struct state_buf buf = {0}, load;

	ck_assert_int_eq(state_save(&buf, &outer_table, &a, &err), 0);
	load = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&load, &outer_table, &b, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.message, "2 elements, this one has 1"));
	load.pos = 0;
	ck_assert_int_eq(state_load(&load, &newer_table, &b, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.message, "version 2"));
	load.pos = 0;
	ck_assert_int_eq(state_load(&load, &inner_table, &b, &err), -EBADMSG);
	ck_assert_ptr_nonnull(strstr(err.message, "state of \"outer\" instead"));
	state_buf_free(&buf);

	a.one.a = 666;
	ck_assert_int_eq(state_save(&buf, &outer_table, &a, &err), 0);
	load = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&load, &outer_table, &a, &err), -EINVAL);
	ck_assert_str_eq(err.message, "outer: inner: an evil number");
	state_buf_free(&buf);
}
END_TEST

/* Whatever is done to the stream, loading ends, within the buffer. */
START_TEST(state_hostile)
{
	struct outer a = example(), b;
	struct state_buf buf = {0}, load;
	unsigned int seed = 1;

	ck_assert_int_eq(state_save(&buf, &outer_table, &a, &err), 0);
	for (size_t len = 0; len < buf.len; len++) {
		uint8_t *copy = malloc(len ? len : 1);

		memcpy(copy, buf.data, len);
		load = (struct state_buf){.data = copy, .len = len};
		b = example();
		ck_assert_int_ne(state_load(&load, &outer_table, &b, &err), 0);
		free(copy);
	}
	for (int i = 0; i < 20000; i++) {
		uint8_t *copy = malloc(buf.len);

		memcpy(copy, buf.data, buf.len);
		for (int n = rand_r(&seed) % 4; n >= 0; n--)
			copy[rand_r(&seed) % buf.len] = rand_r(&seed);
		load = (struct state_buf){.data = copy, .len = buf.len};
		b = example();
		state_load(&load, &outer_table, &b, &err);
		ck_assert_ptr_eq(b.many, many);
		free(copy);
	}
	state_buf_free(&buf);
}
END_TEST

/* --- CPUID ------------------------------------------------------------------------------------- */

static struct kvm_cpuid2 *make_cpuid(bool amd)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	struct kvm_cpuid_entry2 e[] = {
		{.function = 0, .eax = 0xd, .ebx = amd ? 0x68747541 : 0x756e6547},
		{.function = 1, .ecx = 0, .edx = 0x078bfbff},
		{.function = 4, .index = 0, .eax = 0x1c004121, .flags = 1},
		{.function = 4, .index = 3, .eax = 0x1c03c163, .flags = 1},
		{.function = 0xb, .index = 0, .flags = 1},
		{.function = 0x80000000, .eax = 0x80000008},
		{.function = 0x80000001},
		{.function = 0x80000008, .eax = 0x3030},
		{.function = 0x8000001e},
	};

	memcpy(c->entries, e, sizeof(e));
	c->nent = ARRAY_SIZE(e);
	return c;
}

static const struct kvm_cpuid_entry2 *leaf(const struct kvm_cpuid2 *c, uint32_t f, uint32_t i)
{
	for (uint32_t k = 0; k < c->nent; k++)
		if (c->entries[k].function == f && c->entries[k].index == i)
			return &c->entries[k];
	ck_abort_msg("no leaf %x.%u", f, i);
	return NULL;
}

START_TEST(cpuid_topology)
{
	struct kvm_cpuid2 *c = make_cpuid(false);

	cpuid_for_vcpu(c, 3, &(struct cpuid_config){{1, 1, 6, 1}, .extended = true});
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx >> 24, 3);		/* initial APIC ID */
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx >> 16 & 0xff, 8);	/* addressable IDs */
	ck_assert(leaf(c, 1, 0)->edx & BIT(28));		/* HTT */
	ck_assert_uint_eq(leaf(c, 4, 0)->eax >> 14 & 0xfff, 0); /* L1: one thread */
	ck_assert_uint_eq(leaf(c, 4, 3)->eax >> 14 & 0xfff, 7); /* L3: six of them, eight IDs */
	ck_assert_uint_eq(leaf(c, 0xb, 0)->eax, 0);		/* a thread is a core */
	ck_assert_uint_eq(leaf(c, 0xb, 0)->ecx, 0x100);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->eax, 3); /* a core in its package: 3 bits */
	ck_assert_uint_eq(leaf(c, 0xb, 1)->ebx, 6);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->ecx, 0x201);
	ck_assert_uint_eq(leaf(c, 0xb, 2)->ecx, 2);
	ck_assert_uint_eq(leaf(c, 0xb, 2)->edx, 3);
	free(c);
	/* More than 8 bits of ID. */
	c = make_cpuid(false);
	cpuid_for_vcpu(c, 0x12b, &(struct cpuid_config){{1, 1, 300, 1}});
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx >> 24, 0x2b);
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx >> 16 & 0xff, 255);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->eax, 9);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->ebx, 300);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->edx, 0x12b);
	free(c);
}
END_TEST

START_TEST(cpuid_amd)
{
	struct kvm_cpuid2 *c = make_cpuid(true);

	cpuid_for_vcpu(c, 1, &(struct cpuid_config){{1, 1, 2, 1}});
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0x1001); /* ApicIdSize 1, NC 1 */
	ck_assert(leaf(c, 0x80000001, 0)->ecx & BIT(1));	/* CmpLegacy */
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->eax, 1);	/* extended APIC ID */
	free(c);
	c = make_cpuid(true);
	cpuid_for_vcpu(c, 0, &(struct cpuid_config){{1, 1, 1, 1}});
	ck_assert(!(leaf(c, 1, 0)->edx & BIT(28)));
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0);
	free(c);
}
END_TEST

START_TEST(cpuid_dies_and_threads)
{
	const struct config_topology t = {2, 2, 3, 2};
	struct kvm_cpuid2 *c = make_cpuid(false);
	uint32_t id = cpu_apic_id(&t, 23); /* the last of all */

	ck_assert_uint_eq(cpu_apic_id(&t, 0), 0);
	ck_assert_uint_eq(cpu_apic_id(&t, 1), 1);   /* thread */
	ck_assert_uint_eq(cpu_apic_id(&t, 2), 2);   /* core */
	ck_assert_uint_eq(cpu_apic_id(&t, 6), 8);   /* die: three cores take two bits */
	ck_assert_uint_eq(cpu_apic_id(&t, 12), 16); /* socket */
	ck_assert_uint_eq(id, 0x1d);
	cpuid_for_vcpu(c, id, &(struct cpuid_config){t, .extended = true});
	ck_assert_uint_eq(leaf(c, 0, 0)->eax, 0x1f);
	ck_assert_uint_eq(leaf(c, 1, 0)->ebx >> 16 & 0xff, 16);
	ck_assert_uint_eq(leaf(c, 4, 0)->eax >> 14 & 0xfff, 1); /* L1: two threads */
	ck_assert_uint_eq(leaf(c, 4, 3)->eax >> 14 & 0xfff, 7); /* L3: the die */
	ck_assert_uint_eq(leaf(c, 4, 3)->eax >> 26, 7);		/* cores of a socket */
	ck_assert_uint_eq(leaf(c, 0xb, 0)->eax, 1);
	ck_assert_uint_eq(leaf(c, 0xb, 0)->ebx, 2);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->eax, 4);
	ck_assert_uint_eq(leaf(c, 0xb, 1)->ebx, 12);
	ck_assert_uint_eq(leaf(c, 0xb, 2)->ecx, 2);
	ck_assert_uint_eq(leaf(c, 0x1f, 1)->eax, 3);
	ck_assert_uint_eq(leaf(c, 0x1f, 1)->ebx, 6);
	ck_assert_uint_eq(leaf(c, 0x1f, 2)->eax, 4);
	ck_assert_uint_eq(leaf(c, 0x1f, 2)->ebx, 12);
	ck_assert_uint_eq(leaf(c, 0x1f, 2)->ecx, 0x502);
	ck_assert_uint_eq(leaf(c, 0x1f, 3)->ecx, 3);
	ck_assert_uint_eq(leaf(c, 0x1f, 3)->edx, id);
	free(c);
	c = make_cpuid(true);
	cpuid_for_vcpu(c, id, &(struct cpuid_config){t, .extended = true});
	ck_assert_uint_eq(leaf(c, 0x80000008, 0)->ecx, 0x400b);
	ck_assert_uint_eq(leaf(c, 0x80000000, 0)->eax, 0x8000001e);
	ck_assert_uint_eq(leaf(c, 0x80000001, 0)->ecx, 1 << 22 | 1 << 1); /* TOPOEXT, CmpLegacy */
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->eax, id);
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->ebx, 0x102); /* core 2 of the die, two threads */
	ck_assert_uint_eq(leaf(c, 0x8000001e, 0)->ecx, 0x103); /* node 3, two of a socket */
	free(c);
}
END_TEST

static const struct {
	const char *text;
	uint32_t n;
	struct config_topology t;
	const char *error; /* part of it */
} cpus_case[] = {
	/* As QEMU's -smp. */
	{"1", 1, {1, 1, 1, 1}},
	{"6", 6, {1, 1, 6, 1}},
	{"cpus=6", 6, {1, 1, 6, 1}},
	{"8,sockets=2", 8, {2, 1, 4, 1}},
	{"8,threads=2", 8, {1, 1, 4, 2}},
	{"8,cores=2", 8, {4, 1, 2, 1}},
	{"8,cores=2,sockets=2", 8, {2, 1, 2, 2}},
	{"8,dies=2", 8, {1, 2, 4, 1}},
	{"3,maxcpus=8,sockets=2", 3, {2, 1, 4, 1}},
	{"sockets=2,cores=3", 6, {2, 1, 3, 1}},
	{"4096", 4096, {1, 1, 4096, 1}},
	{"0", .error = "cpus"},
	{"two", .error = "not a number"},
	{"5000", .error = "4096"},
	{"8,sockets=3", .error = "3 sockets of 1 dies of 2 cores of 1 threads are not 8"},
	{"8,cores=16", .error = "0 sockets"},
	{"9,maxcpus=8", .error = "more than maxcpus=8"},
	{"sockets=4096,dies=4096,cores=4096,threads=4096", .error = "more than 4096"},
	{"8,socket=2", .error = "sockets"},
	{"", .error = "--cpus"},
};

START_TEST(cpus_option)
{
	struct config_topology t;
	uint32_t n;
	int r = config_parse_cpus(cpus_case[_i].text, &n, &t, &err);

	if (cpus_case[_i].error) {
		ck_assert_int_lt(r, 0);
		ck_assert_msg(strstr(err.message, cpus_case[_i].error), "%s", err.message);
		return;
	}
	ck_assert_msg(!r, "%s", err.message);
	ck_assert_uint_eq(n, cpus_case[_i].n);
	ck_assert_mem_eq(&t, &cpus_case[_i].t, sizeof(t));
}
END_TEST

/* KVM's word counts, and of that the guest's own limit, where there is one. */
START_TEST(cpuid_addresses)
{
	struct kvm_cpuid2 *c = make_cpuid(true);
	struct kvm_cpuid_entry2 *e = &c->entries[7];

	ck_assert_uint_eq(e->function, 0x80000008);
	e->eax = 0x3028;
	ck_assert_uint_eq(cpuid_address_limit(c), 1ull << 40);
	e->eax = 0x303934;
	ck_assert_uint_eq(cpuid_address_limit(c), 1ull << 48);
	e->eax = 0x343024;
	ck_assert_uint_eq(cpuid_address_limit(c), 1ull << 36);
	e->eax = 0xff;
	ck_assert_uint_eq(cpuid_address_limit(c), 1ull << 36);
	e->function = 0x80000009;
	ck_assert_uint_eq(cpuid_address_limit(c), 1ull << 36);
	free(c);
}
END_TEST

/* --- libraries --------------------------------------------------------------------------------- */

struct functions {
	size_t (*strlen)(const char *s);
	void (*missing)(void);
};

START_TEST(dl_says_why)
{
	const struct dl_symbol both[] = {
		DL_SYMBOL(struct functions, strlen),
		DL_SYMBOL(struct functions, missing),
		{NULL},
	};
	const struct dl_symbol one[] = {DL_SYMBOL(struct functions, strlen), {NULL}};
	struct functions f;

	ck_assert_int_eq(dl_load("libc.so.6", one, &f, "texts", &err), 0);
	ck_assert_uint_eq(f.strlen("abc"), 3);
	ck_assert_int_eq(dl_load("libc.so.6", both, &f, "texts", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "no missing"));
	ck_assert_int_eq(dl_load("libnowhere.so.1", one, &f, "texts", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "libnowhere.so.1 is needed for texts"));
	ck_assert_ptr_nonnull(strstr(err.message, "No such file"));
	/* It is there, but no library. */
	ck_assert_int_eq(dl_load("/proc/self/status", one, &f, "texts", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "/proc/self/status is needed for texts"));
	ck_assert_ptr_null(strstr(err.message, "installed"));
}
END_TEST

static TCase *tcase(Suite *s, const char *name)
{
	TCase *tc = tcase_create(name);

	suite_add_tcase(s, tc);
	return tc;
}

int main(void)
{
	Suite *s = suite_create("core");
	TCase *tc;
	SRunner *sr;
	int failed;

	tc = tcase(s, "memory");
	tcase_add_test(tc, memory_bounds);
	tcase_add_test(tc, memory_is_touched);
	tcase_add_test(tc, memory_regions);
	tc = tcase(s, "bus");
	tcase_add_checked_fixture(tc, bus_setup, bus_teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, bus_dispatch);
	tcase_add_test(tc, bus_refuses);
	tcase_add_test(tc, bus_priority);
	tcase_add_test(tc, bus_moves);
	tcase_add_test(tc, bus_changes_under_readers);
	tc = tcase(s, "state");
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, state_round_trip);
	tcase_add_test(tc, state_refuses);
	tcase_add_test(tc, state_hostile);
	tc = tcase(s, "cpuid");
	tcase_add_test(tc, cpuid_topology);
	tcase_add_test(tc, cpuid_amd);
	tcase_add_test(tc, cpuid_dies_and_threads);
	tcase_add_loop_test(tc, cpus_option, 0, ARRAY_SIZE(cpus_case));
	tcase_add_test(tc, cpuid_addresses);
	tc = tcase(s, "libraries");
	tcase_add_test(tc, dl_says_why);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
