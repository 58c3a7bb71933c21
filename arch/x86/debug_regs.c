/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Registers as GDB wants them. Its features "core", "sse" and "segments" of i386 are fixed in names and order (GDB's manual, "i386
 * Features"); what else there is has a feature of our own, whose registers it shows by their names.
 */
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "debug.h"
#include "vmm/vcpu.h"

/* XSAVE's area (SDM volume 1, 13.4): where in it is what. KVM_GET_FPU lacks MXCSR. */
#define FCW	      0
#define FSW	      2
#define FTW	      4 /* a bit for each register that is in use */
#define FOP	      6
#define FIP	      8
#define FDP	      16
#define MXCSR	      24
#define ST(n)	      (32 + 16 * (n))
#define XMM(n)	      (160 + 16 * (n))
#define XSTATE_BV     512
#define XSTATE_FP_SSE 3

/* What KVM has of a vCPU, and x87's in GDB's form. */
struct all_regs {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	uint32_t fcw, fsw, ftw, fop, fiseg, fioff, foseg, fooff;
};

enum feature {
	CORE,
	SSE,
	SEGMENTS,
	SYSTEM,
	FEATURES
};

static const char *const feature_names[FEATURES] = {
	"org.gnu.gdb.i386.core",
	"org.gnu.gdb.i386.sse",
	"org.gnu.gdb.i386.segments",
	"org.hako.x86.system",
};

struct reg {
	const char *name, *type;
	enum feature feature;
	unsigned int place, len; /* in struct all_regs */
};

#define REG(NAME, TYPE, FEATURE, FIELD, LEN)                                \
	{                                                                   \
		NAME, TYPE, FEATURE, offsetof(struct all_regs, FIELD), LEN, \
	}
#define INT(NAME)     REG(#NAME, "int64", CORE, regs.NAME, 8)
#define SEGMENT(NAME) REG(#NAME, "int32", CORE, sregs.NAME.selector, 2)
#define XSAVED(NAME, TYPE, FEATURE, AT, LEN)                                       \
	{                                                                          \
		NAME, TYPE, FEATURE, offsetof(struct all_regs, xsave) + (AT), LEN, \
	}
#define X87(N)		      XSAVED("st" #N, "i387_ext", CORE, ST(N), 10)
#define X87_CTRL(NAME, FIELD) REG(NAME, "int", CORE, FIELD, 4)
#define SSE_REG(N)	      XSAVED("xmm" #N, "vec128", SSE, XMM(N), 16)

static const struct reg regs[] = {
	INT(rax),
	INT(rbx),
	INT(rcx),
	INT(rdx),
	INT(rsi),
	INT(rdi),
	REG("rbp", "data_ptr", CORE, regs.rbp, 8),
	REG("rsp", "data_ptr", CORE, regs.rsp, 8),
	INT(r8),
	INT(r9),
	INT(r10),
	INT(r11),
	INT(r12),
	INT(r13),
	INT(r14),
	INT(r15),
	REG("rip", "code_ptr", CORE, regs.rip, 8),
	REG("eflags", "eflags", CORE, regs.rflags, 4),
	SEGMENT(cs),
	SEGMENT(ss),
	SEGMENT(ds),
	SEGMENT(es),
	SEGMENT(fs),
	SEGMENT(gs),
	X87(0),
	X87(1),
	X87(2),
	X87(3),
	X87(4),
	X87(5),
	X87(6),
	X87(7),
	X87_CTRL("fctrl", fcw),
	X87_CTRL("fstat", fsw),
	X87_CTRL("ftag", ftw),
	X87_CTRL("fiseg", fiseg),
	X87_CTRL("fioff", fioff),
	X87_CTRL("foseg", foseg),
	X87_CTRL("fooff", fooff),
	X87_CTRL("fop", fop),
	SSE_REG(0),
	SSE_REG(1),
	SSE_REG(2),
	SSE_REG(3),
	SSE_REG(4),
	SSE_REG(5),
	SSE_REG(6),
	SSE_REG(7),
	SSE_REG(8),
	SSE_REG(9),
	SSE_REG(10),
	SSE_REG(11),
	SSE_REG(12),
	SSE_REG(13),
	SSE_REG(14),
	SSE_REG(15),
	XSAVED("mxcsr", "mxcsr", SSE, MXCSR, 4),
	REG("fs_base", "int64", SEGMENTS, sregs.fs.base, 8),
	REG("gs_base", "int64", SEGMENTS, sregs.gs.base, 8),
	REG("cr0", "int64", SYSTEM, sregs.cr0, 8),
	REG("cr2", "int64", SYSTEM, sregs.cr2, 8),
	REG("cr3", "int64", SYSTEM, sregs.cr3, 8),
	REG("cr4", "int64", SYSTEM, sregs.cr4, 8),
	REG("cr8", "int64", SYSTEM, sregs.cr8, 8),
	REG("efer", "int64", SYSTEM, sregs.efer, 8),
	REG("gdt_base", "int64", SYSTEM, sregs.gdt.base, 8),
	REG("idt_base", "int64", SYSTEM, sregs.idt.base, 8),
	REG("apic_base", "int64", SYSTEM, sregs.apic_base, 8),
};

/* GDB takes four bytes of what has two in the CPU. */
static unsigned int wire_len(const struct reg *r)
{
	return r->len == 2 ? 4 : r->len;
}

unsigned int debug_regs_len(void)
{
	unsigned int len = 0;

	for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
		len += wire_len(&regs[i]);
	return len;
}

bool debug_reg_place(unsigned int n, unsigned int *offset, unsigned int *len)
{
	if (n >= ARRAY_SIZE(regs))
		return false;
	*offset = 0;
	for (unsigned int i = 0; i < n; i++)
		*offset += wire_len(&regs[i]);
	*len = wire_len(&regs[n]);
	return true;
}

/* --- the description ------------------------------------------------------------------------------- */

struct bits {
	const char *name;
	int first, last;
};

static const struct bits eflags_bits[] = {
	{"CF", 0, 0},	 {"PF", 2, 2},	 {"AF", 4, 4},	 {"ZF", 6, 6},	 {"SF", 7, 7},
	{"TF", 8, 8},	 {"IF", 9, 9},	 {"DF", 10, 10}, {"OF", 11, 11}, {"IOPL", 12, 13},
	{"NT", 14, 14},	 {"RF", 16, 16}, {"VM", 17, 17}, {"AC", 18, 18}, {"VIF", 19, 19},
	{"VIP", 20, 20}, {"ID", 21, 21}, {NULL},
};

static const struct bits mxcsr_bits[] = {
	{"IE", 0, 0},	{"DE", 1, 1},	{"ZE", 2, 2},	{"OE", 3, 3},
	{"UE", 4, 4},	{"PE", 5, 5},	{"DAZ", 6, 6},	{"IM", 7, 7},
	{"DM", 8, 8},	{"ZM", 9, 9},	{"OM", 10, 10}, {"UM", 11, 11},
	{"PM", 12, 12}, {"RC", 13, 14}, {"FZ", 15, 15}, {NULL},
};

static void print_flags(FILE *f, const char *id, const struct bits *b)
{
	fprintf(f, "<flags id=\"%s\" size=\"4\">", id);
	for (; b->name; b++)
		fprintf(f, "<field name=\"%s\" start=\"%d\" end=\"%d\"%s/>", b->name, b->first,
			b->last, b->first == b->last ? " type=\"bool\"" : "");
	fputs("</flags>", f);
}

/* A vector register is seen as any of these. */
static void print_vector(FILE *f)
{
	static const struct {
		const char *field, *type;
		int count;
	} views[] = {
		{"v4_float", "ieee_single", 4}, {"v2_double", "ieee_double", 2},
		{"v16_int8", "int8", 16},	{"v8_int16", "int16", 8},
		{"v4_int32", "int32", 4},	{"v2_int64", "int64", 2},
	};

	for (size_t i = 0; i < ARRAY_SIZE(views); i++)
		fprintf(f, "<vector id=\"%s\" type=\"%s\" count=\"%d\"/>", views[i].field,
			views[i].type, views[i].count);
	fputs("<union id=\"vec128\">", f);
	for (size_t i = 0; i < ARRAY_SIZE(views); i++)
		fprintf(f, "<field name=\"%s\" type=\"%s\"/>", views[i].field, views[i].field);
	fputs("<field name=\"uint128\" type=\"uint128\"/></union>", f);
}

char *debug_target_xml(void)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs("<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\">"
	      "<target><architecture>i386:x86-64</architecture>",
	      f);
	for (int feature = 0; feature < FEATURES; feature++) {
		fprintf(f, "<feature name=\"%s\">", feature_names[feature]);
		if (feature == CORE)
			print_flags(f, "eflags", eflags_bits);
		if (feature == SSE) {
			print_flags(f, "mxcsr", mxcsr_bits);
			print_vector(f);
		}
		for (size_t i = 0; i < ARRAY_SIZE(regs); i++)
			if (regs[i].feature == feature)
				fprintf(f, "<reg name=\"%s\" bitsize=\"%u\" type=\"%s\"/>",
					regs[i].name, wire_len(&regs[i]) * 8, regs[i].type);
		fputs("</feature>", f);
	}
	fputs("</target>", f);
	if (fclose(f)) {
		free(text);
		return NULL;
	}
	return text;
}

/* --- values ---------------------------------------------------------------------------------------- */

/* x87's tag word: XSAVE has a bit for each register that is in use, GDB two, as FSTENV (SDM volume 1, 8.1.7). */
static uint32_t full_tags(const uint8_t *x)
{
	unsigned int top = get_le16(x + FSW) >> 11 & 7;
	uint32_t tags = 0;

	for (unsigned int i = 0; i < 8; i++) {
		const uint8_t *st = x + ST((i - top) & 7);
		uint64_t mantissa = get_le64(st);
		uint16_t exponent = get_le16(st + 8) & 0x7fff;
		uint32_t tag;

		if (!(x[FTW] & BIT(i)))
			tag = 3; /* empty */
		else if (!exponent && !mantissa)
			tag = 1; /* zero */
		else if (exponent == 0x7fff || !(mantissa >> 63))
			tag = 2; /* special */
		else
			tag = 0;
		tags |= tag << 2 * i;
	}
	return tags;
}

static uint8_t short_tags(uint32_t tags)
{
	uint8_t used = 0;

	for (unsigned int i = 0; i < 8; i++)
		if ((tags >> 2 * i & 3) != 3)
			used |= BIT(i);
	return used;
}

static int get_all(struct vcpu *v, struct all_regs *a)
{
	const uint8_t *x;

	memset(a, 0, sizeof(*a));
	x = (uint8_t *)a->xsave.region;
	if (ioctl(v->fd, KVM_GET_REGS, &a->regs) < 0 ||
	    ioctl(v->fd, KVM_GET_SREGS, &a->sregs) < 0 ||
	    ioctl(v->fd, KVM_GET_XSAVE, &a->xsave) < 0)
		return -errno;
	a->fcw = get_le16(x + FCW);
	a->fsw = get_le16(x + FSW);
	a->ftw = full_tags(x);
	a->fop = get_le16(x + FOP);
	a->fioff = get_le32(x + FIP);
	a->fiseg = get_le32(x + FIP + 4);
	a->fooff = get_le32(x + FDP);
	a->foseg = get_le32(x + FDP + 4);
	return 0;
}

/* x87's registers back from GDB's form. */
static void put_x87(struct all_regs *a, bool new_tags)
{
	uint8_t *x = (uint8_t *)a->xsave.region;

	put_le16(x + FCW, a->fcw);
	put_le16(x + FSW, a->fsw);
	if (new_tags)
		x[FTW] = short_tags(a->ftw);
	put_le16(x + FOP, a->fop);
	put_le32(x + FIP, a->fioff);
	put_le32(x + FIP + 4, a->fiseg);
	put_le32(x + FDP, a->fooff);
	put_le32(x + FDP + 4, a->foseg);
}

int debug_read_regs(struct vcpu *v, uint8_t buf[DEBUG_REGS_BYTES])
{
	struct all_regs a;
	int r = get_all(v, &a);

	for (size_t i = 0; i < ARRAY_SIZE(regs) && !r; i++) {
		memset(buf, 0, wire_len(&regs[i]));
		memcpy(buf, (uint8_t *)&a + regs[i].place, regs[i].len);
		buf += wire_len(&regs[i]);
	}
	return r;
}

/* A selector that GDB writes is the one that has been there: its hidden part is nothing that GDB knows. */
int debug_write_regs(struct vcpu *v, const uint8_t buf[DEBUG_REGS_BYTES])
{
	struct all_regs a, was;
	int r = get_all(v, &a);

	if (r)
		return r;
	was = a;
	for (size_t i = 0; i < ARRAY_SIZE(regs); i++) {
		memcpy((uint8_t *)&a + regs[i].place, buf, regs[i].len);
		buf += wire_len(&regs[i]);
	}
	put_x87(&a, a.ftw != was.ftw);
	if (memcmp(&a.sregs, &was.sregs, sizeof(a.sregs)) &&
	    ioctl(v->fd, KVM_SET_SREGS, &a.sregs) < 0)
		return -errno;
	if (memcmp(&a.regs, &was.regs, sizeof(a.regs)) && ioctl(v->fd, KVM_SET_REGS, &a.regs) < 0)
		return -errno;
	if (!memcmp(&a.xsave, &was.xsave, sizeof(a.xsave)))
		return 0;
	((uint8_t *)a.xsave.region)[XSTATE_BV] |= XSTATE_FP_SSE;
	return ioctl(v->fd, KVM_SET_XSAVE, &a.xsave) < 0 ? -errno : 0;
}

const char *debug_describe(struct vcpu *v)
{
	struct kvm_mp_state state;

	if (ioctl(v->fd, KVM_GET_MP_STATE, &state) < 0)
		return "unknown";
	switch (state.mp_state) {
	case KVM_MP_STATE_RUNNABLE:
		return "running";
	case KVM_MP_STATE_HALTED:
		return "halted";
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
		return "waits to be started";
	}
	return "unknown";
}
