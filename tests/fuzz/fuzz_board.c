/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any accesses to any register of a whole board, and anything in its memory, rings and networks: tests/unit/board_rig.h. The input's first byte
 * chooses the board, then each byte is an operation, followed by what it needs. With HAKO_FUZZ_PRINT set the accesses are printed as C.
 */
#include <ctype.h>

#include "tests/unit/board_rig.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const boards[] = {"micro", "q35"};
static bool print;
static struct board_ops ops;
static unsigned int buffer; /* the next one that no request has had; they come round */

#define BUFFERS 0x300000 /* of a page each */

struct input {
	const uint8_t *p, *end;
};

static uint64_t take(struct input *in, unsigned int size)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < size && in->p < in->end; i++)
		v |= (uint64_t)*in->p++ << 8 * i;
	return v;
}

/* --- where something is ------------------------------------------------------------------------- */

static const struct {
	uint16_t base, size;
} ports[] = {
	{0x3f8, 8}, {0x60, 5},	{0x70, 2}, {0x92, 1}, {0x510, 12}, {0x600, 128}, {0xcf8, 8},
	{0x505, 1}, {0x402, 1}, {0xb2, 2}, {0x20, 2}, {0xa0, 2},   {0x40, 4},	 {0x4d0, 2},
};

static const struct {
	uint64_t base;
	uint32_t size;
} windows[] = {
	{0xfec00000, 0x20},   {0xfec00040, 1},	    {0xfea00000, 0x210}, {0xb0000000, 0x8000},
	{0xb00f8000, 0x1000}, {0xb0100000, 0x1000}, {0xfee00000, 0x400},
};

static uint64_t take_port(struct input *in)
{
	unsigned int which = take(in, 1);

	if (which >= 0xf0)
		return take(in, 2);
	which %= ARRAY_SIZE(ports);
	return ports[which].base + (ports[which].size > 1 ? take(in, 1) % ports[which].size : 0);
}

static uint64_t take_address(struct input *in)
{
	unsigned int which = take(in, 1);

	if (which >= 0xf0)
		return take(in, 8);
	if (which >= 0x80)
		return rig.base[which % rig.ncards] + take(in, 2) % 0x4000;
	which %= ARRAY_SIZE(windows);
	return windows[which].base + take(in, 2) % windows[which].size;
}

/* Rings, buffers, or anywhere. */
static uint64_t take_gpa(struct input *in)
{
	unsigned int which = take(in, 1);

	if (which >= 0xf8)
		return take(in, 8);
	if (which & 1)
		return BOARD_RING(which >> 1 & 7, which >> 4 & 7) + take(in, 2) % 0x3000;
	return BUFFERS + take(in, 2) * 8;
}

/* --- operations ------------------------------------------------------------------------------------ */

/* Up to 256 bytes, as far as there are any. */
static const uint8_t *take_bytes(struct input *in, size_t *size)
{
	const uint8_t *p;

	*size = take(in, 1) + 1;
	*size = MIN(*size, (size_t)(in->end - in->p));
	p = in->p;
	in->p += *size;
	return p;
}

static void add_data(struct input *in, uint64_t gpa)
{
	size_t size;
	const uint8_t *data = take_bytes(in, &size);

	if (size)
		board_add_ram(&ops, gpa, data, size);
}

static void add_chain(struct input *in)
{
	unsigned int which = take(in, 1), card = (which & 15) % rig.ncards, q = which >> 4 & 7;
	unsigned int n = take(in, 1), count = (n & 7) + 1;

	for (unsigned int i = 0; i < count; i++) {
		unsigned int kind = take(in, 1);
		uint32_t len = kind & 8 ? take(in, 4) : take(in, 1);
		uint64_t gpa = kind & 16 ? take_gpa(in) : BUFFERS + 0x1000 * (buffer++ % 256);

		if (kind & 32)
			add_data(in, gpa);
		/* Bit 1: writable, bit 2: an indirect table. */
		board_add_desc(&ops, card, q, gpa, len, kind & 6, i + 1 < count);
	}
	if (!(n & 0x80))
		board_add_kick(&ops, card, q);
	if (!(n & 0x40))
		board_add(&ops, (struct board_op)BOARD_WAIT);
}

static void add_setup(struct input *in)
{
	unsigned int card = take(in, 1) % rig.ncards, how = take(in, 1);
	/* Without packed rings, indirect tables, event indices; or just those. */
	uint64_t without = (how & 1 ? BIT64(34) : 0) | (how & 2 ? BIT64(28) : 0) |
			   (how & 4 ? BIT64(29) : 0);

	board_add_setup(&ops, card, how & 0x80 ? take(in, 8) : ~without, how & 8 ? 1 : 8);
}

static void add_pci(struct input *in)
{
	unsigned int which = take(in, 1), size = 1 << which % 3;
	uint8_t offset = take(in, 1);

	board_add(&ops, (struct board_op)BOARD_OUT(0xcf8,
						   0x80000000u | (which & 4 ? BIT(16) : 0) |
							   (take(in, 1) << 8) | (offset & 0xfc),
						   4));
	if (which & 8)
		board_add(&ops, (struct board_op)BOARD_IN(0xcfc + (offset & 3), size));
	else
		board_add(&ops,
			  (struct board_op)BOARD_OUT(0xcfc + (offset & 3), take(in, size), size));
}

static void add_bytes(struct input *in, enum board_op_kind kind)
{
	size_t size;
	const uint8_t *data = take_bytes(in, &size);

	if (size)
		board_add(&ops, (struct board_op){.kind = kind, .data = data, .size = size});
}

static void add_one(struct input *in)
{
	unsigned int what = take(in, 1);
	/* KVM hands over memory accesses of any length up to 8. */
	unsigned int size = 1 << (what >> 4) % 3, any = (what >> 4) % 8 + 1;
	uint64_t at;

	switch (what & 15) {
	case 0:
		at = take_port(in);
		board_add(&ops, (struct board_op)BOARD_OUT(at, take(in, size), size));
		break;
	case 1:
		board_add(&ops, (struct board_op)BOARD_IN(take_port(in), size));
		break;
	case 2:
		at = take_address(in);
		board_add(&ops, (struct board_op)BOARD_STORE(at, take(in, any), any));
		break;
	case 3:
		board_add(&ops, (struct board_op)BOARD_LOAD(take_address(in), any));
		break;
	case 4:
		add_data(in, take_gpa(in));
		break;
	case 5:
		add_pci(in);
		break;
	case 6:
		add_setup(in);
		break;
	case 7:
		board_add_kick(&ops, take(in, 1) % rig.ncards, take(in, 1) & 15);
		break;
	case 8:
		board_add(&ops, (struct board_op)BOARD_WAIT);
		break;
	case 9:
		add_bytes(in, BOARD_OP_FRAME);
		break;
	case 10:
		add_bytes(in, BOARD_OP_TYPE);
		break;
	default:
		add_chain(in);
	}
}

/* --- as C --------------------------------------------------------------------------------------- */

static void print_bytes(const uint8_t *data, unsigned int size)
{
	printf("\"");
	for (unsigned int i = 0; i < size; i++)
		printf("\\x%02x", data[i]);
	printf("\", %u", size);
}

static void print_ops(const char *board)
{
	static const char *const names[] = {
		[BOARD_OP_OUT] = "OUT",	      [BOARD_OP_IN] = "IN",
		[BOARD_OP_STORE] = "STORE",   [BOARD_OP_LOAD] = "LOAD",
		[BOARD_OP_RAM] = "RAM_WRITE", [BOARD_OP_WAIT] = "WAIT",
		[BOARD_OP_FRAME] = "FRAME",   [BOARD_OP_TYPE] = "TYPE",
	};

	printf("START_TEST(found)\n{\n\tstatic const struct board_op ops[] = {\n");
	for (size_t i = 0; i < ops.n; i++) {
		const struct board_op *op = &ops.op[i];

		printf("\t\tBOARD_%s", names[op->kind]);
		if (op->kind == BOARD_OP_OUT || op->kind == BOARD_OP_STORE)
			printf("(0x%llx, 0x%llx, %u)", (unsigned long long)op->addr,
			       (unsigned long long)op->value, op->size);
		else if (op->kind == BOARD_OP_IN || op->kind == BOARD_OP_LOAD)
			printf("(0x%llx, %u)", (unsigned long long)op->addr, op->size);
		else if (op->kind != BOARD_OP_WAIT) {
			printf("(");
			if (op->kind == BOARD_OP_RAM)
				printf("0x%llx, ", (unsigned long long)op->addr);
			print_bytes(op->data, op->size);
			printf(")");
		}
		printf(",\n");
	}
	printf("\t};\n\n\tboard_open(\"%s\");\n\tboard_play(ops, ARRAY_SIZE(ops));\n"
	       "\tboard_close();\n}\nEND_TEST\n",
	       board);
	fflush(stdout);
}

static void remove_share(void)
{
	if (rig.vm)
		board_remove_share();
}

/* --- the target --------------------------------------------------------------------------------- */

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	print = getenv("HAKO_FUZZ_PRINT");
	atexit(remove_share);
	return 0;
}

/* Making a board takes longer than most inputs do, so one is kept until it ends or the other is wanted. */
static void want(const char *board)
{
	static const char *open;

	if (rig.vm && open == board)
		return;
	if (rig.vm)
		board_close();
	if (board)
		board_open(board);
	open = board;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	const char *board = boards[take(&in, 1) & 1];

	want(board);
	memset(board_queue, 0, sizeof(board_queue));
	ops.n = ops.used = buffer = 0;
	while (in.p < in.end && ops.n < ARRAY_SIZE(ops.op))
		add_one(&in);
	board_add(&ops, (struct board_op)BOARD_WAIT);
	if (print)
		print_ops(board);
	if (!board_play(ops.op, ops.n))
		want(NULL);
	return 0;
}
