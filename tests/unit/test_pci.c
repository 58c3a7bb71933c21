/* SPDX-License-Identifier: GPL-2.0-only */
/* PCI functions: configuration space, BARs, MSI-X, INTx, state, as PCI 3.0 and PCI Express say. */
#include <poll.h>

#include "pci_test.h"

/* --- configuration accesses -------------------------------------------------------------------- */

START_TEST(config_ways_agree)
{
	struct toy *toy = toy_new(root, PCI_DEVFN(3, 0));

	toy_bar(toy, 0, 0x1000, false, false);
	ck_assert_uint_eq(cfg(toy, 0, 4), 0x56781234);
	ck_assert_uint_eq(cfg(toy, 8, 4), 0x01080203);
	for (unsigned int reg = 0; reg < 256; reg++) {
		for (unsigned int size = 1; size <= 4; size *= 2) {
			if (reg % size)
				continue;
			outp(0xcf8, 0x80000000 | 3 << 11 | (reg & 0xfc), 4);
			ck_assert_uint_eq(inp(0xcfc + (reg & 3), size), cfg(toy, reg, size));
		}
	}
	ck_assert_uint_eq(inp(0xcf8, 4), 0x80000000 | 3 << 11 | 0xfc);
	outp(0xcf8, 0x80000000 | 3 << 11 | 0x3c, 4);
	outp(0xcfc, 0xab, 1);
	ck_assert_uint_eq(cfg(toy, 0x3c, 4), 0x000000ab);
	/* disabled, absent functions, the address port by bytes */
	outp(0xcf8, 3 << 11, 4);
	ck_assert_uint_eq(inp(0xcfc, 4), 0xffffffff);
	outp(0xcfc, 0xffffffff, 4);
	outp(0xcfb, 0x80, 1);
	ck_assert_uint_eq(inp(0xcf8, 4), 3 << 11);
	outp(0xcf8, 0xffffffff, 4);
	ck_assert_uint_eq(inp(0xcf8, 4), 0x80fffffc);
	ck_assert_uint_eq(inp(0xcfc, 4), 0xffffffff);
	ck_assert_uint_eq(rd(ECAM + (4 << 15), 4), 0xffffffff);
	ck_assert_uint_eq(rd(ECAM + (1 << 20), 2), 0xffff);
	/* 8 bytes, unaligned, beyond conventional space, across functions */
	ck_assert_uint_eq(rd(ecam(toy, 0), 8), cfg(toy, 4, 4) * (1ull << 32) | 0x56781234);
	ck_assert_uint_eq(cfg(toy, 1, 4), 0x00567812 | (cfg(toy, 4, 1) << 24));
	ck_assert_uint_eq(cfg(toy, 0x100, 4), 0xffffffff);
	ck_assert_uint_eq(rd(ecam(toy, 0xffc), 8), UINT64_MAX);
	wr(ecam(toy, 0xffe), 0, 4);
	ck_assert_uint_eq(rd(ecam(toy, 0xff), 4), 0xffffff00);
}
END_TEST

START_TEST(read_only_bits_stay)
{
	struct toy *toy = toy_new(root, 8);

	for (unsigned int reg = 0; reg < 256; reg += 4)
		cfg_set(toy, reg, 0xffffffff, 4);
	ck_assert_uint_eq(cfg(toy, PCI_VENDOR_ID, 4), 0x56781234);
	ck_assert_uint_eq(cfg(toy, PCI_CLASS_REVISION, 4), 0x01080203);
	ck_assert_uint_eq(cfg(toy, PCI_HEADER_TYPE, 1), 0);
	ck_assert_uint_eq(cfg(toy, PCI_COMMAND, 2),
			  PCI_COMMAND_IO | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
				  PCI_COMMAND_PARITY | PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	ck_assert_uint_eq(cfg(toy, PCI_STATUS, 2), 0);
	ck_assert_uint_eq(cfg(toy, PCI_BASE_ADDRESS_0, 4), 0);
	ck_assert_uint_eq(cfg(toy, PCI_CAPABILITY_LIST, 1), 0);
	ck_assert_uint_eq(cfg(toy, PCI_INTERRUPT_LINE, 2), 0x00ff);
}
END_TEST

START_TEST(slots)
{
	struct toy other = {.pdev.obj = {.class = &toy_class, .vm = vm}};
	struct pci_bus *bus;
	int devfn;

	toy_new(root, PCI_DEVFN(0, 0));
	toy_new(root, PCI_DEVFN(1, 3));
	ck_assert_int_eq(toy_new(root, -1)->pdev.devfn, PCI_DEVFN(2, 0));
	ck_assert_int_eq(pci_device_init(&other.pdev, root, PCI_DEVFN(2, 0), 1, 2, 3, 4, &err),
			 -EBUSY);
	ck_assert_int_eq(pci_device_init(&other.pdev, root, 256, 1, 2, 3, 4, &err), -EINVAL);
	ck_assert_uint_eq(cfg(toys[2], PCI_HEADER_TYPE, 1), 0);
	toy_new(root, PCI_DEVFN(2, 7));
	ck_assert_uint_eq(cfg(toys[2], PCI_HEADER_TYPE, 1), 0x80);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, NULL, &bus, &devfn, &err), 0);
	ck_assert(bus == root && devfn == -1);
	ck_assert_int_eq(pci_parse_addr(vm, "pcie.0", "1f.7", &bus, &devfn, &err), 0);
	ck_assert_int_eq(devfn, 255);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "0x5", &bus, &devfn, &err), 0);
	ck_assert_int_eq(devfn, PCI_DEVFN(5, 0));
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "20", &bus, &devfn, &err), -EINVAL);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "5.8", &bus, &devfn, &err), -EINVAL);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "5.", &bus, &devfn, &err), -EINVAL);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "", &bus, &devfn, &err), -EINVAL);
	ck_assert_int_eq(pci_parse_addr(vm, NULL, "5x", &bus, &devfn, &err), -EINVAL);
	ck_assert_int_eq(pci_parse_addr(vm, "rp9", "0", &bus, &devfn, &err), -ENODEV);
}
END_TEST

/* --- BARs -------------------------------------------------------------------------------------- */

START_TEST(bar_sizing)
{
	struct toy *toy = toy_new(root, 8);
	const struct io_region region = {.name = "toy", .ops = &toy_ops, .opaque = toy};

	toy_bar(toy, 0, 0x4000, false, false);
	toy_bar(toy, 1, 64, true, false);
	toy_bar(toy, 2, 1ull << 33, false, true);
	ck_assert_int_eq(pci_add_bar(&toy->pdev, 3, 4096, false, false, false, &region), -EBUSY);
	ck_assert_int_eq(pci_add_bar(&toy->pdev, 4, 4097, false, false, false, &region), -EINVAL);
	ck_assert_int_eq(pci_add_bar(&toy->pdev, 5, 4096, false, true, false, &region), -EINVAL);
	ck_assert_int_eq(pci_add_bar(&toy->pdev, 4, 4096, true, false, false, &region), -EINVAL);
	for (unsigned int i = 0; i < 6; i++)
		cfg_set(toy, 0x10 + 4 * i, 0xffffffff, 4);
	ck_assert_uint_eq(cfg(toy, 0x10, 4), 0xffffc000);
	ck_assert_uint_eq(cfg(toy, 0x14, 4), 0xffffffc1);
	ck_assert_uint_eq(cfg(toy, 0x18, 4), 0x0000000c);
	ck_assert_uint_eq(cfg(toy, 0x1c, 4), 0xfffffffe);
	ck_assert_uint_eq(cfg(toy, 0x20, 4), 0);
	ck_assert_uint_eq(cfg(toy, 0x24, 4), 0);
	cfg_set(toy, PCI_COMMAND, 3, 2);
	for (unsigned int i = 0; i < 4; i++)
		ck_assert(toy->pdev.bar[i].addr == PCI_BAR_UNMAPPED);
	ck_assert_uint_eq(toy->moves, 0);
}
END_TEST

START_TEST(bar_moves)
{
	struct toy *toy = toy_new(root, 8);

	toy_bar(toy, 0, 0x1000, false, false);
	toy_bar(toy, 1, 16, true, false);
	toy_bar(toy, 2, 0x1000, false, true);
	cfg_set(toy, 0x10, 0xc0000000, 4);
	cfg_set(toy, 0x14, 0xc000, 4);
	cfg_set(toy, 0x1c, 0x20, 4);
	ck_assert_uint_eq(rd(0xc0000010, 4), 0xffffffff);
	cfg_set(toy, PCI_COMMAND, PCI_COMMAND_MEMORY, 2);
	ck_assert_uint_eq(rd(0xc0000010, 4), 0x01010111);
	ck_assert_uint_eq(inp(0xc004, 1), 0xff);
	ck_assert_uint_eq(rd(0x2000000008ull, 8), 0x0101010101010109ull);
	ck_assert_uint_eq(toy->moves, 1);
	cfg_set(toy, PCI_COMMAND, PCI_COMMAND_IO, 2);
	ck_assert_uint_eq(rd(0xc0000010, 4), 0xffffffff);
	ck_assert_uint_eq(inp(0xc004, 1), 5);
	cfg_set(toy, PCI_COMMAND, 3, 2);
	cfg_set(toy, 0x10, 0xd0000000, 4);
	ck_assert_uint_eq(rd(0xc0000000, 4), 0xffffffff);
	ck_assert_uint_eq(rd(0xd0000000, 4), 0x01010101);
	ck_assert_uint_eq(toy->pdev.bar[0].addr, 0xd0000000);
	wr(0xd0000ffc, 77, 4);
	ck_assert_uint_eq(toy->last_offset, 0xffc);
	ck_assert_uint_eq(toy->last_value, 77);
	wr(0xd0000ffe, 77, 4); /* half of it is nothing */
	ck_assert_uint_eq(toy->writes, 1);
	/* the port space has 64 KiB, addresses 0 and the top of 32 bits are no places */
	cfg_set(toy, 0x14, 0x1c000, 4);
	ck_assert(toy->pdev.bar[1].addr == PCI_BAR_UNMAPPED);
	cfg_set(toy, 0x10, 0, 4);
	ck_assert(toy->pdev.bar[0].addr == PCI_BAR_UNMAPPED);
	cfg_set(toy, 0x10, 0xffffffff, 4);
	ck_assert(toy->pdev.bar[0].addr == PCI_BAR_UNMAPPED);
	cfg_set(toy, 0x18, 0xffffffff, 4);
	cfg_set(toy, 0x1c, 0xffffffff, 4);
	ck_assert(toy->pdev.bar[2].addr == PCI_BAR_UNMAPPED);
	/* over the local APIC, the IOAPIC and RAM: what KVM does not take for itself comes here */
	cfg_set(toy, 0x10, 0xfee00000, 4);
	ck_assert_uint_eq(toy->pdev.bar[0].addr, 0xfee00000);
	cfg_set(toy, 0x10, 0x1000, 4);
	ck_assert_uint_eq(toy->pdev.bar[0].addr, 0x1000);
	pci_device_reset(&toy->pdev);
	ck_assert_uint_eq(cfg(toy, 0x10, 4), 0);
	ck_assert_uint_eq(cfg(toy, PCI_COMMAND, 2), 0);
	ck_assert_uint_eq(rd(0x1000, 4), 0xffffffff);
}
END_TEST

START_TEST(bar_overlap)
{
	struct toy *a = toy_new(root, 8), *b = toy_new(root, 16);

	toy_bar(a, 0, 0x1000, false, false);
	toy_bar(b, 0, 0x2000, false, false);
	cfg_set(a, PCI_COMMAND, 2, 2);
	cfg_set(b, PCI_COMMAND, 2, 2);
	cfg_set(a, 0x10, 0xc0001000, 4);
	cfg_set(b, 0x10, 0xc0000000, 4);
	ck_assert(b->pdev.bar[0].addr == PCI_BAR_UNMAPPED);
	ck_assert_uint_eq(rd(0xc0000000, 4), 0xffffffff);
	ck_assert_uint_eq(rd(0xc0001000, 1), 1);
	/* once the other is gone there is room */
	cfg_set(a, 0x10, 0xc0004000, 4);
	ck_assert_uint_eq(rd(0xc0000000, 1), 2);
	ck_assert_uint_eq(rd(0xc0001000, 1), 2);
	/* moved onto the other: neither here nor there, until it turns off */
	cfg_set(b, 0x10, 0xc0004000, 4);
	ck_assert_uint_eq(rd(0xc0000000, 1), 0xff);
	ck_assert_uint_eq(rd(0xc0004000, 1), 1);
	cfg_set(a, PCI_COMMAND, 0, 2);
	ck_assert_uint_eq(rd(0xc0004000, 1), 2);
	/* over ECAM: that wins */
	cfg_set(b, 0x10, ECAM, 4);
	ck_assert_uint_eq(cfg(b, 0, 2), 0x1234);
}
END_TEST

/* --- capabilities, MSI-X, INTx ----------------------------------------------------------------- */

START_TEST(capabilities)
{
	struct toy *toy = toy_new(root, 8);
	unsigned int at, seen = 0;
	int a, b;

	ck_assert_int_eq(pci_add_ext_capability(&toy->pdev, 1, 1, 16), -ENOSPC);
	ck_assert_int_gt(pci_add_capability(&toy->pdev, PCI_CAP_ID_VNDR, 5), 0);
	ck_assert_int_gt(pci_add_express(&toy->pdev, PCI_EXP_TYPE_ENDPOINT), 0);
	ck_assert_uint_eq(cfg(toy, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	for (at = cfg(toy, PCI_CAPABILITY_LIST, 1); at; at = cfg(toy, at + 1, 1)) {
		ck_assert_uint_eq(at % 4, 0);
		seen |= 1 << (cfg(toy, at, 1) == PCI_CAP_ID_EXP);
		if (cfg(toy, at, 1) == PCI_CAP_ID_EXP)
			ck_assert_uint_eq(cfg(toy, at + PCI_EXP_FLAGS, 2),
					  2 | PCI_EXP_TYPE_RC_END << 4);
	}
	ck_assert_uint_eq(seen, 3);
	ck_assert_int_eq(pci_add_capability(&toy->pdev, 9, 255), -ENOSPC);
	ck_assert_uint_eq(cfg(toy, 0x100, 4), 0);
	a = pci_add_ext_capability(&toy->pdev, PCI_EXT_CAP_ID_ERR, 2, 0x48);
	b = pci_add_ext_capability(&toy->pdev, PCI_EXT_CAP_ID_DSN, 1, 12);
	ck_assert_int_eq(a, 0x100);
	ck_assert_uint_eq(cfg(toy, a, 4), (unsigned int)b << 20 | 0x20001);
	ck_assert_uint_eq(cfg(toy, b, 4), 0x10003);
	ck_assert_int_eq(pci_add_ext_capability(&toy->pdev, 3, 1, 0xf00), -ENOSPC);
}
END_TEST

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

START_TEST(msix)
{
	struct toy *toy = toy_new(root, 8);
	const uint64_t bar = 0xc0000000;
	unsigned int cap, pba;

	ck_assert_int_eq(pci_add_msix(&toy->pdev, 1, 0, &err), -EINVAL);
	ck_assert_int_eq(pci_add_msix(&toy->pdev, 1, 2049, &err), -EINVAL);
	ck_assert_int_eq(pci_add_msix(&toy->pdev, 1, 70, &err), 0);
	cap = toy->pdev.msix.cap;
	ck_assert_uint_eq(cfg(toy, cap, 1), PCI_CAP_ID_MSIX);
	ck_assert_uint_eq(cfg(toy, cap + 2, 2), 69);
	ck_assert_uint_eq(cfg(toy, cap + 4, 4), 1);
	pba = cfg(toy, cap + 8, 4) & ~7;
	ck_assert_uint_ge(pba, 70 * 16);
	cfg_set(toy, 0x14, bar, 4);
	cfg_set(toy, PCI_COMMAND, 6, 2);
	/* all masked after reset */
	for (unsigned int v = 0; v < 70; v++)
		ck_assert_uint_eq(rd(bar + 16 * v + 8, 8), 1ull << 32);
	wr(bar + 16 * 69, 0xfee01007fee01007, 8);
	wr(bar + 16 * 69 + 8, 0x4041, 4);
	ck_assert_uint_eq(rd(bar + 16 * 69, 8), 0xfee01007fee01004);
	ck_assert_uint_eq(rd(bar + 16 * 69 + 9, 1), 0x40);
	wr(bar + 16 * 69 + 12, 0xfffffffe, 4);
	ck_assert_uint_eq(rd(bar + 16 * 69 + 12, 4), 0);
	/* neither small nor crooked writes, nor ones behind the table */
	wr(bar + 16 * 69 + 8, 0xff, 1);
	wr(bar + 16 * 69 + 6, 0xffffffff, 4);
	wr(bar + 16 * 70, 0xffffffff, 4);
	wr(bar + pba, 0xffffffff, 4);
	ck_assert_uint_eq(rd(bar + 16 * 69 + 8, 4), 0x4041);
	ck_assert_uint_eq(rd(bar + 16 * 70, 4), 0);
	ck_assert_uint_eq(rd(bar + pba, 8), 0);
	/* no descriptor before it is asked for */
	ck_assert_int_eq(toy->pdev.msix.msi[69].fd, -1);
	ck_assert_int_eq(msix_fd(&toy->pdev, 70), -1);
	ck_assert_int_eq(msix_fd(&toy->pdev, 0xffff), -1);
	msix_raise(&toy->pdev, 70);
	ck_assert(!msix_enabled(&toy->pdev));
	cfg_set(toy, cap + 2, PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL, 2);
	ck_assert(msix_enabled(&toy->pdev));
	ck_assert_uint_eq(cfg(toy, cap + 2, 2), 0xc000 | 69);
	/* what is raised while masked is pending */
	msix_raise(&toy->pdev, 69);
	ck_assert(readable(msix_fd(&toy->pdev, 69)));
	ck_assert_uint_eq(rd(bar + pba + 8, 8), 1 << 5);
	ck_assert_uint_eq(rd(bar + pba + 8, 1), 1 << 5);
	ck_assert_uint_eq(rd(bar + pba, 8), 0);
	pci_device_reset(&toy->pdev);
	ck_assert(!readable(msix_fd(&toy->pdev, 69)));
	ck_assert(!msix_enabled(&toy->pdev));
	cfg_set(toy, 0x14, bar, 4);
	cfg_set(toy, PCI_COMMAND, 6, 2);
	ck_assert_uint_eq(rd(bar + 16 * 69, 8), 0);
	ck_assert_uint_eq(rd(bar + 16 * 69 + 12, 4), 1);
}
END_TEST

START_TEST(msix_layout)
{
	for (unsigned int n = 1; n <= 2048; n = n * 3 + 1) {
		struct toy *toy = toy_new(root, -1);
		unsigned int cap, pba;

		ck_assert_int_eq(pci_add_msix(&toy->pdev, 0, n, &err), 0);
		cap = toy->pdev.msix.cap;
		pba = cfg(toy, cap + 8, 4);
		ck_assert_uint_eq(pba % 8, 0);
		ck_assert_uint_ge(pba, 16 * n);
		ck_assert_uint_ge(toy->pdev.bar[0].size, pba + (n + 63) / 64 * 8);
		ck_assert_uint_eq((cfg(toy, cap + 2, 2) & PCI_MSIX_FLAGS_QSIZE) + 1, n);
	}
}
END_TEST

START_TEST(intx)
{
	struct toy *toy = toy_new(root, PCI_DEVFN(2, 0)), *other = toy_new(root, PCI_DEVFN(10, 0));

	toy->pdev.config[PCI_INTERRUPT_PIN] = 2;
	other->pdev.config[PCI_INTERRUPT_PIN] = 2;
	pci_set_intx(&toy->pdev, true);
	ck_assert_uint_eq(vm->irq.asserted[16 + 3], 1);
	ck_assert_uint_eq(cfg(toy, PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	pci_set_intx(&other->pdev, true);
	ck_assert_uint_eq(vm->irq.asserted[16 + 3], 2);
	cfg_set(toy, PCI_COMMAND, PCI_COMMAND_INTX_DISABLE, 2);
	ck_assert_uint_eq(vm->irq.asserted[16 + 3], 1);
	ck_assert_uint_eq(cfg(toy, PCI_STATUS, 2), PCI_STATUS_INTERRUPT);
	cfg_set(toy, PCI_COMMAND, 0, 2);
	ck_assert_uint_eq(vm->irq.asserted[16 + 3], 2);
	pci_set_intx(&other->pdev, false);
	pci_device_reset(&toy->pdev);
	ck_assert_uint_eq(vm->irq.asserted[16 + 3], 0);
	ck_assert_uint_eq(cfg(toy, PCI_STATUS, 2), 0);
}
END_TEST

/* --- state, nonsense --------------------------------------------------------------- */

START_TEST(state)
{
	struct toy *toy = toy_new(root, 8);
	struct state_buf buf = {0}, in;
	const uint64_t bar = 0xc0000000;

	toy_bar(toy, 0, 0x1000, false, true);
	ck_assert_int_eq(pci_add_msix(&toy->pdev, 2, 4, &err), 0);
	cfg_set(toy, 0x10, 0xd0000000, 4);
	cfg_set(toy, 0x18, bar, 4);
	cfg_set(toy, PCI_COMMAND, 6, 2);
	cfg_set(toy, toy->pdev.msix.cap + 2, PCI_MSIX_FLAGS_ENABLE, 2);
	wr(bar + 16, 0xfee00000, 8);
	wr(bar + 24, 0x51, 8);
	msix_raise(&toy->pdev, 2);
	ck_assert_int_eq(state_save(&buf, &pci_device_state, &toy->pdev, &err), 0);
	pci_device_reset(&toy->pdev);
	ck_assert_uint_eq(rd(0xd0000000, 1), 0xff);
	in = (struct state_buf){.data = buf.data, .len = buf.len};
	ck_assert_int_eq(state_load(&in, &pci_device_state, &toy->pdev, &err), 0);
	ck_assert_uint_eq(rd(0xd0000000, 1), 1);
	ck_assert_uint_eq(rd(bar + 24, 8), 0x51);
	ck_assert_uint_eq(rd(bar + 0x800, 8), 1 << 2);
	ck_assert(msix_enabled(&toy->pdev));
	ck_assert_uint_eq(cfg(toy, PCI_COMMAND, 2), 6);
	/* a forged identity is refused, and every other forged byte does no harm */
	for (size_t i = 0; i < buf.len; i++) {
		uint8_t was = buf.data[i];

		buf.data[i] ^= 0xff;
		in = (struct state_buf){.data = buf.data, .len = buf.len};
		state_load(&in, &pci_device_state, &toy->pdev, &err);
		buf.data[i] = was;
		ck_assert_uint_eq(cfg(toy, 0, 4), 0x56781234);
	}
	for (size_t len = 0; len < buf.len; len += 7) {
		in = (struct state_buf){.data = buf.data, .len = len};
		ck_assert_int_ne(state_load(&in, &pci_device_state, &toy->pdev, &err), 0);
	}
	state_buf_free(&buf);
}
END_TEST

START_TEST(nonsense)
{
	static const unsigned int sizes[] = {1, 2, 4, 8};
	struct toy *toy;

	srand(_i);
	port_new("id=rp1");
	for (unsigned int i = 0; i < 4; i++) {
		toy = i == 3 ? toy_behind("rp1", 0) : toy_new(root, -1);
		toy_bar(toy, 0, 0x1000 << i, false, i & 1);
		toy_bar(toy, 4, 16 << i, true, false);
		pci_add_express(&toy->pdev, PCI_EXP_TYPE_ENDPOINT);
		ck_assert_int_eq(pci_add_msix(&toy->pdev, 2, 1 + 50 * i, &err), 0);
	}
	ck_assert_int_eq(pci_assign(root, &err), 0);
	for (unsigned int n = 0; n < 20000; n++) {
		unsigned int size = sizes[rand() & 3];
		uint64_t v = rand() & 1 ? rand() * 0x9e3779b97f4a7c15ull : (rand() & 7) - 1ull;

		toy = toys[rand() & 3];
		switch (rand() & 7) {
		case 0:
			outp(0xcf8, 0x80000000 | toy->pdev.devfn << 8 | (rand() & 0xfc), 4);
			outp(0xcf8 + (rand() & 7), v, MIN(size, 4));
			break;
		case 1:
			inp(0xcf8 + (rand() & 7), MIN(size, 4));
			break;
		case 2:
			wr(ecam(toy, rand() & 0xff), v, size);
			break;
		case 3:
			wr(ecam(toy, rand() & 0xfff), v, size);
			break;
		case 4:
			rd(ecam(toy, rand() & 0xfff), size);
			break;
		case 5:
			wr(ecam(toy, PCI_COMMAND), v | 3, 2);
			bus_cfg_set(0, 0, rand() % 0x40, v, size);
			bus_cfg_set(rand() & 1, 0, rand() & 0xff, v, size);
			break;
		default:
			if (toy->pdev.bar[2].addr == PCI_BAR_UNMAPPED)
				break;
			wr(toy->pdev.bar[2].addr + rand() % toy->pdev.bar[2].size, v, size);
			rd(toy->pdev.bar[2].addr + rand() % toy->pdev.bar[2].size, size);
			msix_raise(&toy->pdev, rand() & 0xff);
		}
	}
	for (unsigned int i = 0; i < 4; i++) {
		pci_device_reset(&toys[i]->pdev);
		ck_assert_uint_eq(get_le32(toys[i]->pdev.config), 0x56781234);
		ck_assert_uint_eq(get_le16(toys[i]->pdev.config + PCI_COMMAND), 0);
	}
	ck_assert_int_eq(pci_assign(root, &err), 0);
	ck_assert_uint_eq(bus_cfg(1, 0, 0, 4), 0x56781234);
}
END_TEST

/* Two vCPUs and a loop at once: one moves and masks, one uses, one raises. */
struct crowd {
	struct toy *toy;
	bool stop;
};

static void *crowd_user(void *arg)
{
	struct crowd *c = arg;
	struct bus_reader reader;
	unsigned int seed = 1;

	bus_reader_init(&reader, &vm->mmio);
	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		uint64_t v, at = 0xc0000000 + (rand_r(&seed) & 0x1ffc);

		bus_read(&reader, at, &v, 4);
		bus_write(&reader, at, rand_r(&seed), 4);
	}
	bus_reader_free(&reader);
	return NULL;
}

static void *crowd_raiser(void *arg)
{
	struct crowd *c = arg;
	unsigned int seed = 2;

	while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
		msix_raise(&c->toy->pdev, rand_r(&seed) & 3);
		msix_fd(&c->toy->pdev, rand_r(&seed) & 7);
		pci_set_intx(&c->toy->pdev, rand_r(&seed) & 1);
	}
	return NULL;
}

START_TEST(crowd)
{
	struct crowd c = {.toy = toy_new(root, 8)};
	pthread_t user, raiser;

	ck_assert_int_eq(pci_add_msix(&c.toy->pdev, 0, 8, &err), 0);
	toy_bar(c.toy, 1, 0x1000, false, false);
	pthread_create(&user, NULL, crowd_user, &c);
	pthread_create(&raiser, NULL, crowd_raiser, &c);
	for (unsigned int i = 0; i < 5000; i++) {
		cfg_set(c.toy, 0x10, 0xc0000000 + (i & 1) * 0x1000, 4);
		cfg_set(c.toy, 0x14, 0xc0001000 - (i & 1) * 0x1000, 4);
		cfg_set(c.toy, PCI_COMMAND, i & 0x406, 2);
		cfg_set(c.toy, c.toy->pdev.msix.cap + 2, i << 12, 2);
		if (i % 64 == 0)
			pci_device_reset(&c.toy->pdev);
	}
	__atomic_store_n(&c.stop, true, __ATOMIC_RELAXED);
	pthread_join(user, NULL);
	pthread_join(raiser, NULL);
	pci_set_intx(&c.toy->pdev, false);
	for (unsigned int i = 0; i < IRQ_PINS; i++)
		ck_assert_uint_eq(vm->irq.asserted[i], 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci");
	TCase *tc = tcase_create("functions");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, config_ways_agree);
	tcase_add_test(tc, read_only_bits_stay);
	tcase_add_test(tc, slots);
	tcase_add_test(tc, bar_sizing);
	tcase_add_test(tc, bar_moves);
	tcase_add_test(tc, bar_overlap);
	tcase_add_test(tc, capabilities);
	tcase_add_test(tc, msix);
	tcase_add_test(tc, msix_layout);
	tcase_add_test(tc, intx);
	tcase_add_test(tc, state);
	tcase_add_loop_test(tc, nonsense, 0, 10);
	tcase_add_test(tc, crowd);
	tcase_set_timeout(tc, 60);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
