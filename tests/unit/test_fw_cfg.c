/* SPDX-License-Identifier: GPL-2.0-only */
/* fw_cfg against its specification: keys, the directory, DMA, and drivers that ask for nonsense. */
#include <arpa/inet.h>
#include <fcntl.h>

#include "device_test.h"
#include "devices/platform/fw_cfg.h"

#define SELECT 0x510
#define DATA   0x511
#define DMA    0x514

static struct object *obj;

static void setup(void)
{
	setup_vm();
	obj = make(CLASS_DEVICE, "fw_cfg_io", "");
	ck_assert_ptr_nonnull(vm->fw_cfg);
}

static void fetch(uint16_t key, void *buf, size_t len)
{
	out(SELECT, key, 2);
	for (size_t i = 0; i < len; i++)
		((uint8_t *)buf)[i] = inb(DATA);
}

/* The directory's entry of that name: its size, or -1; its key in *@key. */
static int64_t find_file(const char *name, uint16_t *key)
{
	uint8_t entry[64];
	uint32_t count;

	fetch(0x19, &count, 4);
	count = ntohl(count);
	ck_assert_uint_le(count, 1000);
	for (uint32_t i = 0; i < count; i++) {
		for (int b = 0; b < 64; b++)
			entry[b] = inb(DATA);
		ck_assert_uint_eq(entry[63], 0);
		if (strcmp((char *)entry + 8, name))
			continue;
		*key = entry[4] << 8 | entry[5];
		return entry[0] << 24 | entry[1] << 16 | entry[2] << 8 | entry[3];
	}
	return -1;
}

START_TEST(signature)
{
	uint32_t id;
	char sig[8] = {};

	fetch(0, sig, 4);
	ck_assert_str_eq(sig, "QEMU");
	fetch(1, &id, 4);
	ck_assert_uint_eq(id, 3); /* ports and DMA */
	/* "QEMU CFG" in big-endian, read in halves and by bytes. */
	ck_assert_uint_eq(in(DMA, 4), ntohl(0x51454d55));
	ck_assert_uint_eq(in(DMA + 4, 4), ntohl(0x20434647));
	ck_assert_uint_eq(inb(DMA), 'Q');
	ck_assert_uint_eq(inb(DMA + 7), 'G');
}
END_TEST

START_TEST(numbered_items)
{
	uint8_t buf[16];

	ck_assert_int_eq(fw_cfg_add_u16(vm->fw_cfg, 0x05, 0x1234), 0);
	ck_assert_int_eq(fw_cfg_add_u32(vm->fw_cfg, 0x08, 0x12345678), 0);
	ck_assert_int_eq(fw_cfg_add_u64(vm->fw_cfg, 0x03, 0x123456789abcdef0ull), 0);
	fetch(0x05, buf, 2);
	ck_assert_mem_eq(buf, "\x34\x12", 2);
	fetch(0x08, buf, 4);
	ck_assert_mem_eq(buf, "\x78\x56\x34\x12", 4);
	/* Past its end an item is zeroes; selecting starts anew. */
	memset(buf, 0xff, sizeof(buf));
	fetch(0x03, buf, 10);
	ck_assert_mem_eq(buf, "\xf0\xde\xbc\x9a\x78\x56\x34\x12\0\0", 10);
	fetch(0x03, buf, 1);
	ck_assert_uint_eq(buf[0], 0xf0);
	/* Keys that there are not. */
	fetch(0x1234, buf, 4);
	ck_assert_mem_eq(buf, "\0\0\0\0", 4);
	fetch(0x8003, buf, 4);
	ck_assert_mem_eq(buf, "\0\0\0\0", 4);
	fetch(0xffff, buf, 4);
	ck_assert_mem_eq(buf, "\0\0\0\0", 4);
	ck_assert_int_eq(fw_cfg_add_u16(vm->fw_cfg, 0x00, 1), -EINVAL);
	ck_assert_int_eq(fw_cfg_add_u16(vm->fw_cfg, 0x19, 1), -EINVAL);
	ck_assert_int_eq(fw_cfg_add_u16(vm->fw_cfg, 0x20, 1), -EINVAL);
}
END_TEST

START_TEST(files)
{
	char name[64], buf[64];
	uint16_t key, again;

	ck_assert_int_eq(find_file("etc/acpi/tables", &key), -1);
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, "etc/acpi/tables", "hello", 5), 0);
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, "empty", NULL, 0), 0);
	ck_assert_int_eq(find_file("etc/acpi/tables", &key), 5);
	ck_assert_uint_ge(key, 0x20);
	fetch(key, buf, 6);
	ck_assert_mem_eq(buf, "hello\0", 6);
	ck_assert_int_eq(find_file("empty", &again), 0);
	/* Replaced: the same key. */
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, "etc/acpi/tables", "good-bye", 8), 0);
	ck_assert_int_eq(find_file("etc/acpi/tables", &again), 8);
	ck_assert_uint_eq(key, again);
	fetch(key, buf, 8);
	ck_assert_mem_eq(buf, "good-bye", 8);
	/* Names: 55 characters and a zero. */
	memset(name, 'n', sizeof(name));
	name[56] = '\0';
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, name, "", 0), -EINVAL);
	name[55] = '\0';
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, name, "1", 1), 0);
	ck_assert_int_eq(find_file(name, &key), 1);
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, "", "", 0), -EINVAL);
	ck_assert_int_eq(fw_cfg_add_file(vm->fw_cfg, "big", "", FW_CFG_MAX_ITEM + 1), -EFBIG);
	ck_assert_int_eq(find_file("big", &key), -1);
	for (int i = 0, ret = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		ret = fw_cfg_add_file(vm->fw_cfg, name, name, strlen(name));
		if (ret) {
			ck_assert_int_eq(ret, -ENOSPC);
			ck_assert_int_gt(i, 16);
			snprintf(name, sizeof(name), "many/%d", i - 1);
			ck_assert_int_eq(find_file(name, &key), strlen(name));
			fetch(key, buf, strlen(name));
			ck_assert_mem_eq(buf, name, strlen(name));
			return;
		}
	}
	ck_abort_msg("files without end");
}
END_TEST

/* An item that gets shorter while the guest reads it. */
START_TEST(replaced_while_read)
{
	uint16_t key;

	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	find_file("f", &key);
	out(SELECT, key, 2);
	for (int i = 0; i < 8; i++)
		ck_assert_uint_eq(inb(DATA), '0' + i);
	fw_cfg_add_file(vm->fw_cfg, "f", "abc", 3);
	ck_assert_uint_eq(inb(DATA), 0);
	ck_assert_uint_eq(inb(DATA), 0);
}
END_TEST

static uint32_t dma(uint32_t control, uint32_t len, uint64_t address)
{
	struct {
		uint32_t control, length;
		uint64_t address;
	} access = {htonl(control), htonl(len), htobe64(address)};

	ck_assert_int_eq(memory_write(&vm->mem, 0x1000, &access, sizeof(access)), 0);
	out(DMA, htonl(0), 4);
	out(DMA + 4, htonl(0x1000), 4);
	ck_assert_int_eq(memory_read(&vm->mem, 0x1000, &access, sizeof(access)), 0);
	return ntohl(access.control);
}

START_TEST(dma_read)
{
	uint8_t buf[16];
	uint16_t key;

	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	find_file("f", &key);
	memset(memory_ptr(&vm->mem, 0x2000, 32), 0xee, 32);
	/* Select and read part of it, skip some, read over the end. */
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x08 | 0x02, 4, 0x2000), 0);
	memory_read(&vm->mem, 0x2000, buf, 5);
	ck_assert_mem_eq(buf, "0123\xee", 5);
	ck_assert_uint_eq(dma(0x04, 3, 0), 0);
	ck_assert_uint_eq(inb(DATA), '7');
	ck_assert_uint_eq(dma(0x02, 6, 0x2010), 0);
	memory_read(&vm->mem, 0x2010, buf, 7);
	ck_assert_mem_eq(buf, "89\0\0\0\0\xee", 7);
	/* Select only. */
	ck_assert_uint_eq(dma(0x00 << 16 | 0x08, 0, 0), 0);
	ck_assert_uint_eq(inb(DATA), 'Q');
	/* Nothing can be written. */
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x08 | 0x10, 4, 0x2000), 1);
	fetch(key, buf, 4);
	ck_assert_mem_eq(buf, "0123", 4);
}
END_TEST

START_TEST(dma_nonsense)
{
	uint16_t key;

	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	find_file("f", &key);
	/* Outside of RAM, across its end, wrapping, far too long. */
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0a, 4, 1ull << 40) & 1, 1);
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0a, 10, MiB - 5) & 1, 1);
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0a, 10, ~0ull - 4) & 1, 1);
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0a, 0xffffffff, 0x2000) & 1, 1);
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0c, 0xffffffff, 0), 0);
	ck_assert_uint_eq(inb(DATA), 0);
	ck_assert_uint_eq(dma(0x02, 0xffffffff, ~0ull) & 1, 1);
	/* A descriptor that is not in RAM. */
	out(DMA, htonl(0xffffffff), 4);
	out(DMA + 4, htonl(0xfffffff8), 4);
	out(DMA + 4, htonl(MiB - 8), 4);
	/* The high half is used once. */
	ck_assert_uint_eq(dma((uint32_t)key << 16 | 0x0a, 10, 0x3000), 0);
}
END_TEST

START_TEST(options)
{
	char path[] = "/var/tmp/hako-fwcfg-XXXXXX", text[128], buf[32];
	int fd = mkstemp(path);
	uint16_t key;

	ck_assert_int_eq(write(fd, "contents", 8), 8);
	snprintf(text, sizeof(text), "name=opt/a,file=%s", path);
	ck_assert_int_eq(fw_cfg_add_option(vm->fw_cfg, text, &err), 0);
	ck_assert_int_eq(fw_cfg_add_option(vm->fw_cfg, "opt/b,string=te,,xt", &err), 0);
	ck_assert_int_eq(find_file("opt/a", &key), 8);
	fetch(key, buf, 8);
	ck_assert_mem_eq(buf, "contents", 8);
	ck_assert_int_eq(find_file("opt/b", &key), 5);
	fetch(key, buf, 5);
	ck_assert_mem_eq(buf, "te,xt", 5);
	close(fd);
	unlink(path);
	static const char *const bad[] = {
		"",
		"string=x",
		"opt/c",
		"opt/c,file=/a,string=b",
		"opt/c,strin=b",
		"opt/c,file=/var/tmp",
	};
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_int_eq(fw_cfg_add_option(vm->fw_cfg, bad[i], &err), -EINVAL);
	ck_assert_int_eq(fw_cfg_add_option(vm->fw_cfg, "opt/c,file=/no/such", &err), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.message, "/no/such"));
	ck_assert_int_eq(find_file("opt/c", &key), -1);
}
END_TEST

START_TEST(state)
{
	uint16_t key;

	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	find_file("f", &key);
	out(SELECT, key, 2);
	inb(DATA);
	inb(DATA);
	state_round_trip(obj);
	ck_assert_uint_eq(inb(DATA), '2');
	obj->class->reset(obj);
	ck_assert_uint_eq(inb(DATA), 'Q');
}
END_TEST

static void poke(void)
{
	for (int i = 0; i < 10; i++)
		inb(DATA);
	dma(0x02, 100, 0x4000);
}

START_TEST(bad_states)
{
	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	state_mutations(obj, 4, 3000, poke);
}
END_TEST

START_TEST(random_accesses)
{
	unsigned int seed = 510;
	uint32_t id;

	fw_cfg_add_file(vm->fw_cfg, "f", "0123456789", 10);
	for (int i = 0; i < 200000; i++) {
		uint16_t port = SELECT + rand_r(&seed) % 12;
		unsigned int size = 1u << rand_r(&seed) % 4;
		uint64_t value = (uint64_t)rand_r(&seed) << 32 | rand_r(&seed);
		uint32_t access[4];

		if (i % 16 == 0) {
			for (int j = 0; j < 4; j++)
				access[j] = rand_r(&seed) % 4 ? htonl(rand_r(&seed) % 0x2000)
							      : rand_r(&seed);
			memory_write(&vm->mem, (rand_r(&seed) % 16) * 8, access, sizeof(access));
		}
		if (rand_r(&seed) % 3 == 0)
			value = size == 4 ? htonl(rand_r(&seed) % 128) : value % 0x40;
		if (rand_r(&seed) % 2)
			out(port, value, size);
		else
			in(port, size);
	}
	fetch(1, &id, 4);
	ck_assert_uint_eq(id, 3);
}
END_TEST

int main(void)
{
	const TTest *const tests[] = {
		signature,    numbered_items, files, replaced_while_read, dma_read,
		dma_nonsense, options,	      state, bad_states,	  random_accesses,
	};

	return run_suite("fw_cfg", setup, teardown_vm, tests, ARRAY_SIZE(tests)) != 0;
}
