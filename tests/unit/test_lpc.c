/* SPDX-License-Identifier: GPL-2.0-only */
/* q35's chips as firmware and kernels know them: ECAM register, ACPI base, reset port, interrupt routes. */
#include <check.h>
#include <stdlib.h>

#include "devices/pci/pci.h"
#include "devices/platform/lpc.h"
#include "vmm/vm.h"

#define ECAM 0xb0000000ull
#define MCH  PCI_DEVFN(0, 0)
#define LPC  PCI_DEVFN(31, 0)

static struct vm *vm;
static struct pci_bus *root;
static struct object *mch, *lpc;
static struct bus_reader pio, mmio;
static struct hako_error err;

static void start(const char *mch_options, const char *lpc_options)
{
	struct keyvals kv = {0};

	ck_assert_int_eq(vm_new_plain(&vm, 0, &err), 0);
	ck_assert_int_eq(pci_root_new(vm, 0, &root, &err), 0);
	root->intx_gsi = lpc_intx_gsi;
	ck_assert_int_eq(keyvals_parse(&kv, mch_options, NULL, &err), 0);
	ck_assert_int_eq(object_new(vm, class_find(CLASS_DEVICE, "mch"), &kv, &mch, &err), 0);
	keyvals_free(&kv);
	kv = (struct keyvals){0};
	ck_assert_int_eq(keyvals_parse(&kv, lpc_options, NULL, &err), 0);
	ck_assert_int_eq(object_new(vm, class_find(CLASS_DEVICE, "ICH9-LPC"), &kv, &lpc, &err), 0);
	keyvals_free(&kv);
	bus_reader_init(&pio, &vm->pio);
	bus_reader_init(&mmio, &vm->mmio);
}

static void setup_firmware(void)
{
	start("", "");
}

static void setup_direct(void)
{
	start("x-ecam=0xb0000000", "x-pmbase=0x600,x-acpi-mode=on");
}

static void teardown(void)
{
	object_destroy(lpc);
	object_destroy(mch);
	bus_reader_free(&pio);
	bus_reader_free(&mmio);
	pci_root_free(root);
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

static uint32_t rd(uint64_t addr)
{
	uint64_t v;

	bus_read(&mmio, addr, &v, 4);
	return v;
}

static uint32_t cfg(uint8_t devfn, unsigned int reg, unsigned int size)
{
	return pci_config_read(root, 0, devfn, reg, size);
}

static void cfg_set(uint8_t devfn, unsigned int reg, uint32_t value, unsigned int size)
{
	pci_config_write(root, 0, devfn, reg, value, size);
}

START_TEST(identity)
{
	ck_assert_uint_eq(cfg(MCH, 0, 4), 0x29c08086);
	ck_assert_uint_eq(cfg(MCH, 8, 4) >> 8, 0x060000);
	ck_assert_uint_eq(cfg(LPC, 0, 4), 0x29188086);
	ck_assert_uint_eq(cfg(LPC, 8, 4), 0x06010002);
	ck_assert_uint_eq(cfg(LPC, PCI_HEADER_TYPE, 1), 0x80);
	ck_assert(class_find(CLASS_DEVICE, "mch")->internal);
	ck_assert(class_find(CLASS_DEVICE, "ICH9-LPC")->internal);
}
END_TEST

/* As SeaBIOS and OVMF do it: high half, then low half with the enable bit. */
START_TEST(pciexbar)
{
	ck_assert_uint_eq(rd(ECAM), 0xffffffff);
	cfg_set(MCH, 0x64, 0, 4);
	cfg_set(MCH, 0x60, ECAM | 1, 4);
	ck_assert_uint_eq(cfg(MCH, 0x60, 4), ECAM | 1);
	ck_assert_uint_eq(rd(ECAM), 0x29c08086);
	ck_assert_uint_eq(rd(ECAM + (31 << 15)), 0x29188086);
	cfg_set(MCH, 0x60, 0xe0000001, 4);
	ck_assert_uint_eq(rd(ECAM), 0xffffffff);
	ck_assert_uint_eq(rd(0xe0000000), 0x29c08086);
	/* 64 MiB: bits 27 and 26 count */
	cfg_set(MCH, 0x60, 0xec000005, 4);
	ck_assert_uint_eq(rd(0xec000000), 0x29c08086);
	ck_assert_uint_eq(rd(0xe0000000), 0xffffffff);
	/* 128 MiB: bit 26 does not */
	cfg_set(MCH, 0x60, 0xec000003, 4);
	ck_assert_uint_eq(rd(0xe8000000), 0x29c08086);
	/* above 4 GiB, through itself */
	cfg_set(MCH, 0x60, 0xe0000001, 4);
	bus_write(&mmio, 0xe0000064, 0x10, 4);
	ck_assert_uint_eq(rd(0x10e0000000), 0x29c08086);
	ck_assert_uint_eq(rd(0xe0000000), 0xffffffff);
	/* reserved length, off */
	cfg_set(MCH, 0x60, 0xe0000007, 4);
	ck_assert_uint_eq(rd(0x10e0000000), 0xffffffff);
	cfg_set(MCH, 0x60, 0xe0000000, 4);
	ck_assert_uint_eq(rd(0x10e0000000), 0xffffffff);
	mch->class->reset(mch);
	ck_assert_uint_eq(cfg(MCH, 0x64, 4), 0);
}
END_TEST

START_TEST(pam_smram)
{
	for (unsigned int reg = 0x90; reg <= 0x96; reg++) {
		ck_assert_uint_eq(cfg(MCH, reg, 1), 0);
		cfg_set(MCH, reg, 0xff, 1);
		ck_assert_uint_eq(cfg(MCH, reg, 1), reg == 0x90 ? 0x30 : 0x33);
	}
	ck_assert_uint_eq(cfg(MCH, 0x9d, 1), 0x02);
	cfg_set(MCH, 0x9d, 0x48, 1);
	ck_assert_uint_eq(cfg(MCH, 0x9d, 1), 0x4a);
	cfg_set(MCH, 0x9c, 0xff, 1); /* QEMU's F_SMBASE: no such feature */
	ck_assert_uint_eq(cfg(MCH, 0x9c, 1), 0);
	cfg_set(MCH, 0x50, 0xffff, 2); /* nor extended TSEG */
	ck_assert_uint_eq(cfg(MCH, 0x50, 2), 0xffff);
}
END_TEST

START_TEST(pmbase_by_firmware)
{
	ck_assert_uint_eq(cfg(LPC, 0x40, 4), 1);
	ck_assert_uint_eq(inp(0x608, 4), 0xffffffff);
	cfg_set(LPC, 0x40, 0x600 | 1, 4);
	ck_assert_uint_eq(inp(0x604, 2), 0xffff);
	cfg_set(LPC, 0x44, 0x80, 1);
	ck_assert_uint_eq(inp(0x604, 2), 0);
	/* SMI_CMD */
	outp(0xb2, 2, 1);
	ck_assert_uint_eq(inp(0x604, 2), 1);
	ck_assert_uint_eq(inp(0xb2, 1), 2);
	outp(0xb3, 0x55, 1);
	ck_assert_uint_eq(inp(0xb2, 2), 0x5502);
	ck_assert_uint_eq(inp(0x604, 2), 1);
	outp(0xb2, 3, 1);
	ck_assert_uint_eq(inp(0x604, 2), 0);
	/* "SMI on APMC": as if firmware had set up SMM already */
	ck_assert_uint_eq(inp(0x630, 4) & 0x20, 0x20);
	cfg_set(LPC, 0x40, 0xb000, 4);
	ck_assert_uint_eq(cfg(LPC, 0x40, 4), 0xb001);
	ck_assert_uint_eq(inp(0x604, 2), 0xffff);
	ck_assert_uint_eq(inp(0xb004, 2), 0);
	/* over the configuration ports: refused; then back */
	cfg_set(LPC, 0x40, 0xc80, 4);
	ck_assert_uint_eq(inp(0xc84, 2), 0xffff);
	cfg_set(LPC, 0x40, 0x600, 4);
	ck_assert_uint_eq(inp(0x604, 2), 0);
	lpc->class->reset(lpc);
	ck_assert_uint_eq(inp(0x604, 2), 0xffff);
	ck_assert_uint_eq(inp(0xb2, 2), 0);
}
END_TEST

START_TEST(direct_boot)
{
	for (int i = 0; i < 2; i++) {
		ck_assert_uint_eq(rd(ECAM), 0x29c08086);
		ck_assert_uint_eq(inp(0x604, 2), 1);
		outp(0x604, 0, 2);
		ck_assert_uint_eq(inp(0x604, 2), 1);
		outp(0xb2, 3, 1);
		ck_assert_uint_eq(inp(0x604, 2), 1);
		cfg_set(LPC, 0x40, 0, 4);
		cfg_set(MCH, 0x60, 0, 4);
		ck_assert_uint_eq(inp(0x604, 2), 0xffff);
		mch->class->reset(mch);
		lpc->class->reset(lpc);
	}
}
END_TEST

START_TEST(reset_port)
{
	outp(0xcf9, 0x02, 1);
	ck_assert_uint_eq(inp(0xcf9, 1), 0x02);
	ck_assert_int_eq(vm->request, 0);
	outp(0xcf9, 0xf9, 1);
	ck_assert_uint_eq(inp(0xcf9, 1), 0x08);
	ck_assert_int_eq(vm->request, 0);
	outp(0xcf8, 0x0e0e0e0e, 4); /* a doubleword is another register */
	ck_assert_int_eq(vm->request, 0);
	outp(0xcf9, 0x0e0e, 2);
	ck_assert_int_eq(vm->request, 0);
	outp(0xcf9, 0x06, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_RESET);
	ck_assert_uint_eq(inp(0xcf9, 1), 0x08);
	vm->request = 0;
	outp(0xcf9, 0x0e, 1);
	ck_assert_int_eq(vm->request, VM_REQUEST_RESET);
}
END_TEST

START_TEST(pirq)
{
	/* QEMU's q35: slots 0 to 24 turn through E to H, 25 to 31 have A to D, except 30 */
	ck_assert_uint_eq(lpc_intx_gsi(root, 0, 0), 20);
	ck_assert_uint_eq(lpc_intx_gsi(root, 1, 0), 21);
	ck_assert_uint_eq(lpc_intx_gsi(root, 3, 3), 22);
	ck_assert_uint_eq(lpc_intx_gsi(root, 24, 1), 21);
	ck_assert_uint_eq(lpc_intx_gsi(root, 25, 0), 16);
	ck_assert_uint_eq(lpc_intx_gsi(root, 30, 1), 21);
	ck_assert_uint_eq(lpc_intx_gsi(root, 31, 3), 19);
	for (unsigned int i = 0; i < 8; i++) {
		unsigned int reg = i < 4 ? 0x60 + i : 0x64 + i;

		ck_assert_uint_eq(cfg(LPC, reg, 1), 0x80);
		cfg_set(LPC, reg, 0xfa, 1);
		ck_assert_uint_eq(cfg(LPC, reg, 1), 0x8a);
	}
	cfg_set(LPC, 0xf0, 0xfed1ffff, 4);
	ck_assert_uint_eq(cfg(LPC, 0xf0, 4), 0xfed1c001);
}
END_TEST

START_TEST(sci_select)
{
	outp(0x602, 0x100, 2);
	lpc_power_button(lpc);
	ck_assert_uint_eq(inp(0x600, 2), 0x100);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	cfg_set(LPC, 0x44, 0x82, 1);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	ck_assert_uint_eq(vm->irq.asserted[11], 1);
	cfg_set(LPC, 0x44, 0x84, 1);
	ck_assert_uint_eq(vm->irq.asserted[20], 1);
	cfg_set(LPC, 0x44, 0x80, 1);
	ck_assert_uint_eq(vm->irq.asserted[20], 0);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
}
END_TEST

START_TEST(state)
{
	struct state_buf lpc_buf = {0}, mch_buf = {0}, in;

	outp(0xcf8, 0x80001234, 4);
	outp(0xcf9, 0x0a, 1);
	outp(0xb3, 0x77, 1);
	outp(0x602, 0x100, 2);
	lpc_power_button(lpc);
	cfg_set(LPC, 0x40, 0x700, 4);
	cfg_set(MCH, 0x60, 0xe0000001, 4);
	lpc->class->pause(lpc);
	ck_assert_int_eq(state_save(&lpc_buf, lpc->class->state, lpc, &err), 0);
	ck_assert_int_eq(state_save(&mch_buf, mch->class->state, mch, &err), 0);
	lpc->class->reset(lpc);
	mch->class->reset(mch);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	in = (struct state_buf){.data = lpc_buf.data, .len = lpc_buf.len};
	ck_assert_int_eq(state_load(&in, lpc->class->state, lpc, &err), 0);
	in = (struct state_buf){.data = mch_buf.data, .len = mch_buf.len};
	ck_assert_int_eq(state_load(&in, mch->class->state, mch, &err), 0);
	ck_assert_uint_eq(inp(0xcf8, 4), 0x80001234);
	ck_assert_uint_eq(inp(0xcf9, 1), 0x0a);
	ck_assert_uint_eq(inp(0xb3, 1), 0x77);
	ck_assert_uint_eq(inp(0x600, 2), 0xffff);
	ck_assert_uint_eq(inp(0x700, 2), 0x100);
	ck_assert_uint_eq(vm->irq.asserted[9], 1);
	ck_assert_uint_eq(rd(0xe0000000), 0x29c08086);
	for (size_t i = 0; i < lpc_buf.len; i++) {
		lpc_buf.data[i] ^= 0xff;
		in = (struct state_buf){.data = lpc_buf.data, .len = lpc_buf.len};
		state_load(&in, lpc->class->state, lpc, &err);
		lpc_buf.data[i] ^= 0xff;
	}
	lpc->class->reset(lpc);
	lpc->class->resume(lpc);
	ck_assert_uint_eq(vm->irq.asserted[9], 0);
	ck_assert_uint_eq(inp(0x604, 2), 1);
	state_buf_free(&lpc_buf);
	state_buf_free(&mch_buf);
}
END_TEST

START_TEST(nonsense)
{
	srand(_i);
	for (unsigned int n = 0; n < 20000; n++) {
		unsigned int size = 1 << rand() % 3;
		uint8_t devfn = rand() & 1 ? MCH : LPC;
		uint16_t port = 0x600 + rand() % 0x80;

		switch (rand() & 7) {
		case 0:
			cfg_set(devfn, rand() & 0xff, rand(), size);
			break;
		case 1:
			cfg(devfn, rand() & 0xff, size);
			break;
		case 2:
			cfg_set(devfn, devfn == LPC ? 0x40 + (rand() & 7) : 0x60 + (rand() & 7),
				rand(), size);
			break;
		case 3:
			outp(0xcf8 + (rand() & 7), rand() & ~4u, size);
			break;
		case 4:
			outp(0xb2 + (rand() & 1), rand(), size);
			break;
		case 5:
			lpc_power_button(lpc);
			break;
		case 6:
			outp(port, rand(), size);
			break;
		default:
			inp(port, size);
		}
	}
	lpc->class->reset(lpc);
	mch->class->reset(mch);
	ck_assert_uint_eq(inp(0x600, 4), 0);
	ck_assert_uint_eq(rd(ECAM), 0x29c08086);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("lpc");
	TCase *firmware = tcase_create("firmware"), *direct = tcase_create("direct");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(firmware, setup_firmware, teardown);
	tcase_add_checked_fixture(direct, setup_direct, teardown);
	tcase_add_test(firmware, identity);
	tcase_add_test(firmware, pciexbar);
	tcase_add_test(firmware, pam_smram);
	tcase_add_test(firmware, pmbase_by_firmware);
	tcase_add_test(direct, direct_boot);
	tcase_add_test(direct, reset_port);
	tcase_add_test(direct, pirq);
	tcase_add_test(direct, sci_select);
	tcase_add_test(direct, state);
	tcase_add_loop_test(direct, nonsense, 0, 5);
	suite_add_tcase(s, firmware);
	suite_add_tcase(s, direct);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
