/* SPDX-License-Identifier: GPL-2.0-only */
/* The tests, by the names that `test=` selects them with. */
#ifndef TESTS_H
#define TESTS_H

void test_hello(void);
void test_lspci(void);
void test_cpuid_dump(void);
void test_apic(void);
void test_ioapic(void);
void test_uart(void);
void test_rtc(void);
void test_i8042(void);
void test_fwcfg(void);
void test_acpi(void);
void test_pci(void);
void test_pvpanic(void);
void test_blk(void);
void test_blkbench(void);
void test_blk_kill(void);
void test_net(void);
void test_net_peer(void);
void test_netbench(void);
void test_rng(void);
void test_idle(void);
void test_console(void);
void test_smp(void);
void test_reset(void);
void test_poweroff(void);
void test_talk(void);
void test_evil_ring(void);
void test_evil_transport(void);
void test_evil_fwcfg(void);
void test_evil_mmio(void);
void test_evil_ports(void);
void test_evil_pci(void);

#endif
