/* SPDX-License-Identifier: GPL-2.0-only */
/* Whole boards, driven register by register (board_rig.h): what fuzz/fuzz_board has found, and that the rig reaches what it is made for. */
#include <check.h>
#include <linux/virtio_blk.h>

#include "board_rig.h"
#include "suite.h"

static const char *const boards[] = {"micro", "q35"};
static struct board_ops ops;

static unsigned int find_card(const char *name)
{
	for (unsigned int i = 0; i < rig.ncards; i++)
		if (!strncmp(rig.card[i]->obj.class->name, name, strlen(name)))
			return i;
	ck_abort_msg("no %s", name);
}

static void fresh(void)
{
	memset(board_queue, 0, sizeof(board_queue));
	ops.n = ops.used = 0;
}

static const void *ram(uint64_t gpa, size_t size)
{
	const void *p = memory_ptr(&rig.vm->mem, gpa, size);

	ck_assert_ptr_nonnull(p);
	return p;
}

/* The rig's driver writes to a disk, and reads from it; each run begins with an empty one. */
static void transfer(bool packed)
{
	const struct virtio_blk_outhdr write = {.type = VIRTIO_BLK_T_OUT, .sector = 3},
				       read = {.type = VIRTIO_BLK_T_IN, .sector = 3};
	unsigned int card = find_card("virtio-blk");
	char text[512] = "written by a guest that is not there", on_disk[512];

	fresh();
	board_add_setup(&ops, card, packed ? BIT64(34) : 0, 2);
	board_add_ram(&ops, 0x300000, &write, sizeof(write));
	board_add_ram(&ops, 0x301000, text, sizeof(text));
	board_add_desc(&ops, card, 1, 0x300000, sizeof(write), 0, true);
	board_add_desc(&ops, card, 1, 0x301000, sizeof(text), 0, true);
	board_add_desc(&ops, card, 1, 0x302000, 1, VRING_DESC_F_WRITE, false);
	board_add_kick(&ops, card, 1);
	ck_assert(board_play(ops.op, ops.n));
	ck_assert_int_eq(hako_vm_pause((struct hako_vm *)rig.vm, NULL), 0);
	ck_assert_int_eq(pread(rig.disk, on_disk, 512, 3 * 512), 512);
	ck_assert_mem_eq(on_disk, text, 512);

	fresh();
	board_add_setup(&ops, card, packed ? BIT64(34) : 0, 2);
	board_add_ram(&ops, 0x300000, &read, sizeof(read));
	board_add_ram(&ops, 0x301000, text, sizeof(text));
	board_add_ram(&ops, 0x302000, "\x55", 1);
	board_add_desc(&ops, card, 0, 0x300000, sizeof(read), 0, true);
	board_add_desc(&ops, card, 0, 0x301000, 512, VRING_DESC_F_WRITE, true);
	board_add_desc(&ops, card, 0, 0x302000, 1, VRING_DESC_F_WRITE, false);
	board_add_kick(&ops, card, 0);
	ck_assert(board_play(ops.op, ops.n));
	ck_assert_int_eq(hako_vm_pause((struct hako_vm *)rig.vm, NULL), 0);
	ck_assert_uint_eq(*(const uint8_t *)ram(0x302000, 1), VIRTIO_BLK_S_OK);
	memset(text, 0, sizeof(text));
	ck_assert_mem_eq(ram(0x301000, 512), text, 512);
}

START_TEST(disk)
{
	board_open(boards[_i / 2]);
	transfer(_i % 2);
	board_close();
}
END_TEST

/* Ports and registers answer: fw_cfg's signature, the magic of virtio-mmio or the ID of the host bridge. */
START_TEST(registers)
{
	uint64_t sig[4] = {0}, magic = 0;
	struct board_op list[16] = {BOARD_OUT(0x510, 0, 2)};
	size_t n = 1;

	board_open(boards[_i]);
	for (int i = 0; i < 4; i++) {
		list[n] = (struct board_op)BOARD_IN(0x511, 1);
		list[n++].result = &sig[i];
	}
	if (_i == 0) {
		list[n] = (struct board_op)BOARD_LOAD(rig.base[0], 4);
	} else {
		list[n++] = (struct board_op)BOARD_OUT(0xcf8, 0x80000000, 4);
		list[n] = (struct board_op)BOARD_IN(0xcfc, 4);
	}
	list[n++].result = &magic;
	ck_assert(board_play(list, n));
	ck_assert_int_eq(hako_vm_pause((struct hako_vm *)rig.vm, NULL), 0);
	ck_assert_uint_eq(sig[0] | sig[1] << 8 | sig[2] << 16 | sig[3] << 24, 0x554d4551);
	ck_assert_uint_eq(magic, _i == 0 ? 0x74726976 : 0x29c08086);
	board_close();
}
END_TEST

/* The guest resets the machine in the midst of its accesses, and goes on; then it powers itself off, by ACPI. */
START_TEST(reset_and_end)
{
	uint64_t before = 0, after = 1;
	/* The serial port's scratch register, which a reset clears. */
	struct board_op reset[] = {
		BOARD_OUT(0x3ff, 0x5a, 1), BOARD_IN(0x3ff, 1), BOARD_RAM_WRITE(0x300000, "left", 4),
		BOARD_OUT(0x64, 0xfe, 1),  BOARD_IN(0x3ff, 1), BOARD_RAM_WRITE(0x300004, "over", 4),
	};
	static const struct board_op micro_end[] = {BOARD_STORE(0xfea00200, 0x34, 1)};
	static const struct board_op q35_end[] = {BOARD_OUT(0x604, 0x2000, 2)};

	reset[1].result = &before;
	reset[4].result = &after;
	board_open(boards[_i]);
	ck_assert(board_play(reset, ARRAY_SIZE(reset)));
	ck_assert_uint_eq(before, 0x5a);
	ck_assert_uint_eq(after, 0);
	ck_assert_mem_eq(ram(0x300000, 8), "leftover", 8);
	ck_assert(!board_play(_i ? q35_end : micro_end, 1));
	board_close();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("board");
	TCase *tc = tcase_create("board");

	tcase_set_timeout(tc, 60);
	tcase_add_loop_test(tc, disk, 0, 4);
	tcase_add_loop_test(tc, registers, 0, 2);
	tcase_add_loop_test(tc, reset_and_end, 0, 2);
	suite_add_tcase(s, tc);
	return run_suite(s);
}
