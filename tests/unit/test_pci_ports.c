/* SPDX-License-Identifier: GPL-2.0-only */
/* PCI buses: root ports, what they forward, and how addresses are given out. */
#include <stdio.h>

#include "pci_test.h"

/* --- root ports --------------------------------------------------------------------------------- */

START_TEST(root_port)
{
	struct pci_device *rp =
		port_new("id=rp1,addr=2,chassis=3,port=0x10,slot=5,multifunction=on");
	struct toy other = {.pdev.obj = {.class = &toy_class, .vm = vm}};
	unsigned int exp = 0, devfn = PCI_DEVFN(2, 0);
	struct toy *toy;

	ck_assert_int_eq(rp->devfn, (int)devfn);
	ck_assert_uint_eq(bus_cfg(0, devfn, 0, 4), 0x000c1b36);
	ck_assert_uint_eq(bus_cfg(0, devfn, 8, 4), 0x06040000);
	ck_assert_uint_eq(bus_cfg(0, devfn, PCI_HEADER_TYPE, 1), 0x81);
	for (unsigned int at = bus_cfg(0, devfn, PCI_CAPABILITY_LIST, 1); at;
	     at = bus_cfg(0, devfn, at + 1, 1))
		if (bus_cfg(0, devfn, at, 1) == PCI_CAP_ID_EXP)
			exp = at;
	/* version 2, root port, with a slot: number 5, empty; port number 16 */
	ck_assert_uint_eq(bus_cfg(0, devfn, exp + 2, 2), 0x0142);
	ck_assert_uint_eq(bus_cfg(0, devfn, exp + PCI_EXP_SLTCAP, 4) >> 19, 5);
	ck_assert_uint_eq(bus_cfg(0, devfn, exp + PCI_EXP_LNKCAP, 4) >> 24, 0x10);
	ck_assert_uint_eq(bus_cfg(0, devfn, exp + PCI_EXP_SLTSTA, 2), 0);
	toy = toy_behind("rp1", 0);
	ck_assert_uint_eq(bus_cfg(0, devfn, exp + PCI_EXP_SLTSTA, 2), PCI_EXP_SLTSTA_PDS);
	ck_assert(bus_cfg(0, devfn, exp + PCI_EXP_LNKSTA, 2) & PCI_EXP_LNKSTA_DLLLA);
	ck_assert_int_eq(pci_device_init(&other.pdev, rp->secondary, -1, 1, 2, 3, 4, &err),
			 -ENOSPC);
	ck_assert_int_eq(
		pci_device_init(&other.pdev, rp->secondary, PCI_DEVFN(1, 0), 1, 2, 3, 4, &err),
		-EINVAL);
	/* an endpoint with a link */
	ck_assert_int_gt(pci_add_express(&toy->pdev, PCI_EXP_TYPE_ENDPOINT), 0);
	ck_assert_uint_eq(toy->pdev.config[0x42] >> 4, PCI_EXP_TYPE_ENDPOINT);

	/* bus numbers: before they are set nothing is behind, not even as bus 0 */
	ck_assert_uint_eq(bus_cfg(1, 0, 0, 4), 0xffffffff);
	bus_cfg_set(0, devfn, PCI_PRIMARY_BUS, 0x00050300, 4);
	ck_assert_uint_eq(bus_cfg(3, 0, 0, 4), 0x56781234);
	ck_assert_uint_eq(bus_cfg(4, 0, 0, 4), 0xffffffff);
	ck_assert_uint_eq(bus_cfg(3, 8, 0, 4), 0xffffffff);
	outp(0xcf8, 0x80030008, 4);
	ck_assert_uint_eq(inp(0xcfc, 4), 0x01080203);
	bus_cfg_set(0, devfn, PCI_PRIMARY_BUS, 0x00020300, 4); /* subordinate below secondary */
	ck_assert_uint_eq(bus_cfg(3, 0, 0, 4), 0xffffffff);
}
END_TEST

START_TEST(windows)
{
	const unsigned int devfn = PCI_DEVFN(2, 0);
	struct toy *toy;

	port_new("id=rp1,addr=2");
	toy = toy_behind("rp1", 0);
	toy_bar(toy, 0, 0x1000, false, false);
	toy_bar(toy, 1, 64, true, false);
	toy_bar(toy, 2, 0x1000, false, true);
	bus_cfg_set(0, devfn, PCI_PRIMARY_BUS, 0x010100, 4);
	bus_cfg_set(1, 0, 0x10, 0xc0100000, 4);
	bus_cfg_set(1, 0, 0x14, 0xd000, 4);
	bus_cfg_set(1, 0, 0x18, 0x00200000, 4);
	bus_cfg_set(1, 0, 0x1c, 0x80, 4);
	bus_cfg_set(1, 0, PCI_COMMAND, 3, 2);
	ck_assert_uint_eq(rd(0xc0100000, 1), 0xff);
	bus_cfg_set(0, devfn, PCI_MEMORY_BASE, 0xc010c010, 4);
	ck_assert_uint_eq(rd(0xc0100000, 1), 0xff);
	bus_cfg_set(0, devfn, PCI_COMMAND, 2, 2);
	ck_assert_uint_eq(rd(0xc0100000, 1), toy->id);
	ck_assert_uint_eq(inp(0xd000, 1), 0xff);
	bus_cfg_set(0, devfn, PCI_IO_BASE, 0xd0d0, 2);
	ck_assert_uint_eq(bus_cfg(0, devfn, PCI_IO_BASE, 2), 0xd0d0);
	bus_cfg_set(0, devfn, PCI_COMMAND, 3, 2);
	ck_assert_uint_eq(inp(0xd000, 1), toy->id);
	ck_assert(toy->pdev.bar[2].addr == PCI_BAR_UNMAPPED);
	bus_cfg_set(0, devfn, PCI_PREF_MEMORY_BASE, 0x00200020, 4);
	ck_assert_uint_eq(bus_cfg(0, devfn, PCI_PREF_MEMORY_BASE, 4), 0x00210021);
	bus_cfg_set(0, devfn, PCI_PREF_BASE_UPPER32, 0x80, 4);
	bus_cfg_set(0, devfn, PCI_PREF_LIMIT_UPPER32, 0x80, 4);
	ck_assert_uint_eq(toy->pdev.bar[2].addr, 0x8000200000ull);
	ck_assert_uint_eq(rd(0x8000200000ull, 1), toy->id);
	/* half out of the window is out */
	bus_cfg_set(0, devfn, PCI_MEMORY_BASE, 0xc020c020, 4);
	ck_assert_uint_eq(rd(0xc0100000, 1), 0xff);
	bus_cfg_set(0, devfn, PCI_MEMORY_BASE, 0xc020c000, 4);
	ck_assert_uint_eq(rd(0xc0100000, 1), toy->id);
	/* secondary bus reset */
	ck_assert_uint_eq(toy->resets, 0);
	bus_cfg_set(0, devfn, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_BUS_RESET, 2);
	ck_assert_uint_eq(toy->resets, 1);
	bus_cfg_set(0, devfn, PCI_BRIDGE_CONTROL, PCI_BRIDGE_CTL_BUS_RESET, 2);
	ck_assert_uint_eq(toy->resets, 1);
	bus_cfg_set(0, devfn, PCI_BRIDGE_CONTROL, 0, 2);
	bus_cfg_set(0, devfn, PCI_BRIDGE_CONTROL, 0x40, 1);
	ck_assert_uint_eq(toy->resets, 2);
	ck_assert_uint_eq(bus_cfg(1, 0, PCI_COMMAND, 2), 0);
	ck_assert_uint_eq(rd(0xc0100000, 1), 0xff);
}
END_TEST

START_TEST(assign_behind_ports)
{
	struct pci_device *rp[3];
	char options[32];

	for (unsigned int i = 0; i < 3; i++) {
		struct toy *toy;

		snprintf(options, sizeof(options), "id=rp%u,addr=2.%u", i, i);
		rp[i] = port_new(options);
		if (i == 1)
			continue; /* an empty slot */
		snprintf(options, sizeof(options), "rp%u", i);
		for (unsigned int f = 0; f < 2; f++) {
			toy = toy_behind(options, f);
			toy->pdev.config[PCI_INTERRUPT_PIN] = 1 + f;
			toy_bar(toy, 0, 0x2000 << i, false, false);
			toy_bar(toy, 1, 128, true, false);
			toy_bar(toy, 2, 0x400000 << f, false, true);
		}
	}
	ck_assert_int_eq(pci_assign(root, &err), 0);
	for (unsigned int i = 0; i < ntoys; i++) {
		const struct pci_device *pdev = &toys[i]->pdev;
		uint8_t bus = i < 2 ? 1 : 3;

		ck_assert_uint_eq(bus_cfg(bus, pdev->devfn, 0, 4), 0x56781234);
		for (unsigned int b = 0; b < 3; b++) {
			uint64_t addr = pdev->bar[b].addr;

			ck_assert(addr != PCI_BAR_UNMAPPED);
			ck_assert_uint_eq(b == 1 ? inp(addr, 1) : rd(addr, 1), toys[i]->id);
		}
		/* slot 0 behind a port: the pin is the port's own slot's, turned by nothing */
		ck_assert_uint_eq(pdev->config[PCI_INTERRUPT_LINE],
				  toy_gsi(root, 2, pdev->config[PCI_INTERRUPT_PIN] - 1));
	}
	ck_assert_uint_eq(bus_cfg(0, PCI_DEVFN(2, 0), PCI_HEADER_TYPE, 1), 0x81);
	ck_assert_uint_eq(bus_cfg(0, PCI_DEVFN(2, 1), PCI_PRIMARY_BUS, 4) & 0xffffff, 0x020200);
	/* no window where nothing is behind */
	ck_assert_uint_gt(bus_cfg(0, PCI_DEVFN(2, 1), PCI_MEMORY_BASE, 2),
			  bus_cfg(0, PCI_DEVFN(2, 1), PCI_MEMORY_LIMIT, 2));
	ck_assert_uint_gt(bus_cfg(0, PCI_DEVFN(2, 1), PCI_IO_BASE, 1),
			  bus_cfg(0, PCI_DEVFN(2, 1), PCI_IO_LIMIT, 1));
	/* a port's state brings back what is mapped behind it */
	struct state_buf buf = {0}, in;
	uint64_t addr = toys[0]->pdev.bar[0].addr;

	ck_assert_int_eq(state_save(&buf, rp[0]->obj.class->state, rp[0], &err), 0);
	rp[0]->obj.class->reset(&rp[0]->obj);
	ck_assert_uint_eq(rd(addr, 1), 0xff);
	in = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&in, rp[0]->obj.class->state, rp[0], &err), 0);
	ck_assert_uint_eq(rd(addr, 1), toys[0]->id);
	state_buf_free(&buf);
}
END_TEST

START_TEST(assign)
{
	static const uint64_t sizes[] = {0x1000, 0x100000, 0x4000, 0x10000, 0x2000};
	uint64_t a, b;

	for (unsigned int i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct toy *toy = toy_new(root, -1);

		toy_bar(toy, 0, sizes[i], false, false);
		toy_bar(toy, 1, 64, true, false);
		toy_bar(toy, 2, sizes[i], false, true);
		toy->pdev.config[PCI_INTERRUPT_PIN] = 1;
	}
	toy_bar(toys[0], 4, 1ull << 32, false, true);
	for (int again = 0; again < 2; again++) {
		ck_assert_int_eq(pci_assign(root, &err), 0);
		for (unsigned int i = 0; i < ntoys; i++) {
			struct toy *toy = toys[i];

			a = cfg(toy, 0x10, 4);
			b = cfg(toy, 0x18, 4) & ~0xfu;
			ck_assert_uint_ge(a, root->mmio32_base);
			ck_assert_uint_lt(a + sizes[i], root->mmio32_base + root->mmio32_size);
			ck_assert_uint_eq(a % sizes[i], 0);
			ck_assert_uint_eq(rd(a, 1), toy->id);
			ck_assert_uint_eq(rd(b + sizes[i] - 4, 1),
					  (uint8_t)(toy->id + sizes[i] - 4));
			ck_assert_uint_eq(inp(cfg(toy, 0x14, 4) & ~3u, 1), toy->id);
			ck_assert_uint_eq(cfg(toy, PCI_INTERRUPT_LINE, 1),
					  toy_gsi(root, PCI_SLOT_OF(toy->pdev.devfn), 0));
			ck_assert_uint_eq(cfg(toy, PCI_COMMAND, 2), 3);
		}
		ck_assert_uint_ge(cfg(toys[0], 0x24, 4), root->mmio64_base >> 32);
	}
	root->mmio32_size = 0x80000;
	ck_assert_int_eq(pci_assign(root, &err), -ENOSPC);
	ck_assert_ptr_nonnull(strstr(err.message, "memory"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci-ports");
	TCase *tc = tcase_create("buses");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, root_port);
	tcase_add_test(tc, windows);
	tcase_add_test(tc, assign);
	tcase_add_test(tc, assign_behind_ports);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
