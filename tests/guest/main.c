/* SPDX-License-Identifier: GPL-2.0-only */
/* The command line, the table of tests, the way out. */
#include "acpi.h"
#include "tests.h"

#define MULTIBOOT 0x2badb002

extern u32 boot_magic, boot_info;
void main(u32 cpu);

u32 failures;
static bool skipped;
static char cmdline[1024];

/* clang-format off */
static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{"hello", test_hello},
	{"lspci", test_lspci},
	{"cpuid", test_cpuid_dump},
	{"apic", test_apic},
	{"ioapic", test_ioapic},
	{"uart", test_uart},
	{"rtc", test_rtc},
	{"i8042", test_i8042},
	{"fwcfg", test_fwcfg},
	{"acpi", test_acpi},
	{"pci", test_pci},
	{"pvpanic", test_pvpanic},
	{"blk", test_blk},
	{"blkbench", test_blkbench},
	{"blk-kill", test_blk_kill},
	{"net", test_net},
	{"net-peer", test_net_peer},
	{"netbench", test_netbench},
	{"rng", test_rng},
	{"idle", test_idle},
	{"console", test_console},
	{"smp", test_smp},
	{"reset", test_reset},
	{"poweroff", test_poweroff},
	{"talk", test_talk},
	{"evil-ring", test_evil_ring},
	{"evil-transport", test_evil_transport},
	{"evil-fwcfg", test_evil_fwcfg},
	{"evil-mmio", test_evil_mmio},
	{"evil-ports", test_evil_ports},
	{"evil-pci", test_evil_pci},
};
/* clang-format on */

const char *param(const char *name)
{
	u32 n = strlen(name);

	for (const char *p = cmdline; *p; p++)
		if ((p == cmdline || p[-1] == ' ') && !strncmp(p, name, n) && p[n] == '=')
			return p + n + 1;
	return NULL;
}

bool param_is(const char *name, const char *value)
{
	const char *p = param(name);
	u32 n = strlen(value);

	return p && !strncmp(p, value, n) && (p[n] == ' ' || !p[n]);
}

u64 param_u64(const char *name, u64 otherwise)
{
	const char *p = param(name);
	u32 base = 10;
	u64 v = 0;

	if (!p)
		return otherwise;
	if (p[0] == '0' && p[1] == 'x') {
		base = 16;
		p += 2;
	}
	for (;; p++) {
		u32 d = *p >= '0' && *p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10;

		if (d >= base)
			return v;
		v = v * base + d;
	}
}

void leave(u32 code)
{
	flush();
	outl(0xf4, code);
	/* No such device: nothing more can be said. */
	for (;;)
		pause();
}

bool check_at(bool ok, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	if (ok)
		return true;
	failures++;
	print("%s:%d: ", file, line);
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
	return false;
}

void skip(const char *fmt, ...)
{
	va_list ap;

	skipped = true;
	print("SKIP ");
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	print("\n");
}

void absent(const char *what)
{
	if (param_u64("need", 0))
		check(false, "no %s", what);
	else
		skip("no %s", what);
}

/* struct hvm_memmap_table_entry: the RAM that this program is in. */
static void pvh_memory(const u64 *e, u32 n)
{
	for (; n && n < 128; n--, e += 3)
		if ((u32)e[2] == 1 && e[0] <= 1 << 20 && e[0] + e[1] > 1 << 20)
			ram_end = e[0] + e[1];
}

/* Multiboot 1 information (3.3), or PVH's struct hvm_start_info. */
static void boot_parameters(void)
{
	const u8 *info = (const u8 *)(u64)boot_info;
	const char *s = NULL;

	if (boot_magic == MULTIBOOT) {
		if (*(const u32 *)info & 1)
			ram_end = (1 << 20) + *(const u32 *)(info + 8) * 1024ull;
		if (*(const u32 *)info & 4)
			s = (const char *)(u64) * (const u32 *)(info + 16);
	} else if (*(const u32 *)info == 0x336ec578) {
		s = (const char *)*(const u64 *)(info + 24);
		acpi_rsdp_hint = *(const u64 *)(info + 32);
		if (*(const u32 *)(info + 4) >= 1)
			pvh_memory((const void *)*(const u64 *)(info + 40),
				   *(const u32 *)(info + 48));
	}
	ram_end = MIN(ram_end, RAM_LIMIT);
	for (u32 i = 0; s && s[i] && i < sizeof(cmdline) - 1; i++)
		cmdline[i] = s[i];
}

void test_hello(void)
{
	tsc_calibrate();
	print("hello: %s, by %s, RAM to %#lx, %s, TSC %lu kHz by %s\n", cmdline,
	      boot_magic == MULTIBOOT ? "Multiboot" : "PVH", ram_end, apic_x2 ? "x2APIC" : "xAPIC",
	      tsc_hz / 1000, tsc_source);
	if (param("boot"))
		check_eq(boot_magic == MULTIBOOT, param_is("boot", "multiboot"));
	if (param("ram"))
		check(ram_end <= param_u64("ram", 0) && ram_end > param_u64("ram", 0) - (1 << 20),
		      "RAM ends at %#lx", ram_end);
	/* All of it is there, and is not something else. */
	for (u64 a = 32 << 20; a < ram_end; a += 1 << 20)
		*(volatile u64 *)a = a * 3;
	for (u64 a = 32 << 20; a < ram_end; a += 1 << 20)
		check_eq(*(volatile u64 *)a, a * 3);
}

void main(u32 cpu)
{
	const char *name;

	boot_parameters();
	name = param("test");
	cpu_init(0);
	if (!name)
		name = "hello";
	for (u32 i = 0; i < ARRAY_SIZE(tests); i++) {
		u32 n = strlen(tests[i].name);

		if (strncmp(name, tests[i].name, n) || (name[n] && name[n] != ' '))
			continue;
		tests[i].run();
		if (failures)
			print("FAIL %s: %u checks\n", tests[i].name, failures);
		else if (!skipped)
			print("PASS %s\n", tests[i].name);
		leave(failures ? 1 : 0);
	}
	print("FAIL no such test: %s\n", name);
	leave(1);
}
