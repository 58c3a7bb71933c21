/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ACPI tables: structure by the specification's numbers, what iasl (acpica-tools) says of them,
 * and golden copies in tests/unit/golden/BOARD/, which hold what a released board version says.
 * To write these anew: HAKO_GOLDEN=write build/unit/test_acpi
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86/acpi.h"
#include "arch/x86/aml.h"
#include "arch/x86/board.h"
#include "devices/pci/pci.h"
#include "vmm/numa.h"

#define GOLDEN_DIR "tests/unit/golden"

/* --- two boards, one of each kind ------------------------------------------------------------- */

static const uint32_t two_cpus[] = {0, 1};

/* ICH9: PIRQ E to H rotate over slots up to 24, A to D serve the chipset's own. */
static uint32_t q35_gsi(const struct acpi_config *c, uint8_t slot, uint8_t pin)
{
	if (slot < 25)
		return 20 + ((slot + pin) & 3);
	return 16 + pin;
}

static const struct acpi_config q35 = {
	.oem_table_id = "Q35-1.0",
	.apic_id = two_cpus,
	.ncpus = 2,
	.lapic_base = 0xfee00000,
	.ioapic_base = 0xfec00000,
	.has_pic = true,
	.has_pit = true,
	.sci = 9,
	.power_button = true,
	.pm1_evt = 0x600,
	.pm1_cnt = 0x604,
	.pm_timer = 0x608,
	.gpe0 = 0x620,
	.gpe0_len = 16,
	.reset_port = 0xcf9,
	.reset_value = 6,
	.ecam = {0xb0000000, 256 * MiB},
	.pci_io = {{0, 0xcf8}, {0xd00, 0xf300}},
	.pci_mem32 = {0xc0000000, 0x3ec00000},
	.pci_mem64 = {0x800000000, 0x800000000},
	.intx_gsi = q35_gsi,
	.com = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}},
	.has_rtc = true,
	.has_i8042 = true,
	.fw_cfg_port = 0x510,
	.pvpanic_port = 0x505,
};

static const struct acpi_mmio two_windows[] = {
	{0xfeb00000, 0x200, 16},
	{0xfeb00200, 0x200, 17},
};

static const struct acpi_config micro = {
	.oem_table_id = "MICRO1.0",
	.apic_id = two_cpus,
	.ncpus = 2,
	.lapic_base = 0xfee00000,
	.ioapic_base = 0xfec00000,
	.has_pic = true,
	.hw_reduced = true,
	.power_button = true,
	.sleep_control = 0xfea00200,
	.sleep_status = 0xfea00201,
	.ged_base = 0xfea00000,
	.ged_gsi = 9,
	.s5_type = 5,
	.reset_address = 0xfea00202,
	.reset_value = 0x42,
	.mmio = two_windows,
	.nmmio = 2,
	.com = {{0x3f8, 4}},
};

/* --- finding tables as a guest does ----------------------------------------------------------- */

#define GPA 0xe0040ull

static struct acpi_tables tables;

static void build(const struct acpi_config *c)
{
	struct hako_error err;
	int ret = acpi_build(c, GPA, &tables, &err);

	ck_assert_msg(ret == 0, "%s", ret ? err.message : "");
}

static unsigned int sum(const uint8_t *p, size_t len)
{
	unsigned int s = 0;

	while (len--)
		s += *p++;
	return s & 0xff;
}

static const uint8_t *at(uint64_t gpa, size_t len)
{
	ck_assert_uint_ge(gpa, GPA);
	ck_assert_uint_le(gpa + len, GPA + tables.len);
	return tables.data + (gpa - GPA);
}

/* A table with a standard header: its length lies within the data and its checksum is right. */
static const uint8_t *checked(uint64_t gpa, const char *signature)
{
	const uint8_t *t = at(gpa, 36);

	ck_assert_mem_eq(t, signature, 4);
	at(gpa, get_le32(t + 4));
	ck_assert_uint_eq(sum(t, get_le32(t + 4)), 0);
	ck_assert_mem_eq(t + 10, "HAKO  ", 6);
	return t;
}

/* The table of that signature in the XSDT, or NULL. */
static const uint8_t *find(const char *signature)
{
	const uint8_t *xsdt = checked(get_le64(tables.rsdp + 24), "XSDT");

	for (uint32_t off = 36; off < get_le32(xsdt + 4); off += 8) {
		uint64_t gpa = get_le64(xsdt + off);

		if (!memcmp(at(gpa, 4), signature, 4))
			return checked(gpa, signature);
	}
	return NULL;
}

static const uint8_t *dsdt(void)
{
	return checked(get_le64(find("FACP") + 140), "DSDT");
}

/* The @n-th MADT entry of @type, or NULL. */
static const uint8_t *madt_entry(unsigned int type, unsigned int n)
{
	const uint8_t *m = find("APIC"), *end = m + get_le32(m + 4);

	for (m += 44; m < end; m += m[1]) {
		ck_assert_uint_ge(m[1], 2);
		ck_assert(m + m[1] <= end);
		if (m[0] == type && !n--)
			return m;
	}
	return NULL;
}

/* --- tests ------------------------------------------------------------------------------------ */

START_TEST(test_rsdp)
{
	build(&q35);
	ck_assert_mem_eq(tables.rsdp, "RSD PTR ", 8);
	ck_assert_uint_eq(sum(tables.rsdp, 20), 0);
	ck_assert_uint_eq(sum(tables.rsdp, 36), 0);
	ck_assert_uint_eq(tables.rsdp[15], 2);
	ck_assert_uint_eq(get_le32(tables.rsdp + 20), 36);
	acpi_free(&tables);
}
END_TEST

/* Offsets: ACPI 6.5, table 5.9. */
START_TEST(test_fadt_q35)
{
	const uint8_t *f, *facs;

	build(&q35);
	f = find("FACP");
	ck_assert_uint_eq(get_le32(f + 4), 276);
	ck_assert_uint_eq(f[8], 6);
	facs = at(get_le32(f + 36), 64);
	ck_assert_mem_eq(facs, "FACS", 4);
	ck_assert_uint_eq(get_le32(facs + 4), 64);
	ck_assert_uint_eq(get_le32(f + 36) % 64, 0);
	ck_assert_uint_eq(get_le32(f + 40), get_le64(f + 140));
	ck_assert_uint_eq(get_le16(f + 46), 9);	     /* SCI_INT */
	ck_assert_uint_eq(get_le32(f + 48), 0);	     /* SMI_CMD: always in ACPI mode */
	ck_assert_uint_eq(get_le32(f + 56), 0x600);  /* PM1a_EVT_BLK */
	ck_assert_uint_eq(get_le32(f + 64), 0x604);  /* PM1a_CNT_BLK */
	ck_assert_uint_eq(get_le32(f + 76), 0x608);  /* PM_TMR_BLK */
	ck_assert_uint_eq(get_le32(f + 80), 0x620);  /* GPE0_BLK */
	ck_assert_uint_eq(f[88], 4);		     /* PM1_EVT_LEN */
	ck_assert_uint_eq(f[89], 2);		     /* PM1_CNT_LEN */
	ck_assert_uint_eq(f[91], 4);		     /* PM_TMR_LEN */
	ck_assert_uint_eq(f[92], 16);		     /* GPE0_BLK_LEN */
	ck_assert_uint_eq(get_le16(f + 109), 0x7);   /* legacy devices, 8042, no VGA */
	ck_assert_uint_eq(get_le32(f + 112), 0x465); /* WBINVD, C1, no sleep button, RTC, reset */
	ck_assert_uint_eq(f[116], 1);		     /* RESET_REG: I/O … */
	ck_assert_uint_eq(f[117], 8);		     /* … of 8 bits … */
	ck_assert_uint_eq(get_le64(f + 120), 0xcf9); /* … at 0xcf9 … */
	ck_assert_uint_eq(f[128], 6);		     /* … with 6 */
	ck_assert_uint_eq(get_le64(f + 148 + 4), 0x600); /* X_PM1a_EVT_BLK */
	ck_assert_uint_eq(f[149], 32);
	ck_assert_uint_eq(get_le64(f + 172 + 4), 0x604); /* X_PM1a_CNT_BLK */
	ck_assert_uint_eq(f[173], 16);
	ck_assert_uint_eq(get_le64(f + 208 + 4), 0x608); /* X_PM_TMR_BLK */
	ck_assert_uint_eq(f[209], 32);
	ck_assert_uint_eq(get_le64(f + 220 + 4), 0x620); /* X_GPE0_BLK */
	ck_assert_uint_eq(f[221], 128);
	acpi_free(&tables);
}
END_TEST

START_TEST(test_fadt_micro)
{
	const uint8_t *f;

	build(&micro);
	f = find("FACP");
	ck_assert_uint_eq(get_le32(f + 36), 0); /* no FACS */
	ck_assert_uint_eq(get_le32(f + 56), 0);
	ck_assert_uint_eq(get_le32(f + 64), 0);
	ck_assert_uint_eq(get_le16(f + 109), 0x25);
	/* HW_REDUCED_ACPI, RESET_REG_SUP, and the power button is no fixed one */
	ck_assert_uint_eq(get_le32(f + 112) & 0x100410, 0x100410);
	ck_assert_uint_eq(f[116], 0);
	ck_assert_uint_eq(get_le64(f + 120), 0xfea00202);
	ck_assert_uint_eq(f[128], 0x42);
	ck_assert_uint_eq(get_le64(f + 244 + 4), 0xfea00200); /* SLEEP_CONTROL_REG */
	ck_assert_uint_eq(get_le64(f + 256 + 4), 0xfea00201); /* SLEEP_STATUS_REG */
	ck_assert_ptr_null(find("MCFG"));
	acpi_free(&tables);
}
END_TEST

/* Table 5.19 and following. */
START_TEST(test_madt)
{
	static const uint32_t ids[] = {0, 1, 4, 254, 255, 256, 70000};
	struct acpi_config c = q35;
	const uint8_t *m, *e;

	c.apic_id = ids;
	c.ncpus = ARRAY_SIZE(ids);
	build(&c);
	m = find("APIC");
	ck_assert_uint_eq(get_le32(m + 36), 0xfee00000);
	ck_assert_uint_eq(get_le32(m + 40), 1); /* PCAT_COMPAT */
	for (unsigned int i = 0; i < 4; i++) {
		e = madt_entry(0, i);
		ck_assert_ptr_nonnull(e);
		ck_assert_uint_eq(e[1], 8);
		ck_assert_uint_eq(e[2], i);
		ck_assert_uint_eq(e[3], ids[i]);
		ck_assert_uint_eq(get_le32(e + 4), 1);
	}
	ck_assert_ptr_null(madt_entry(0, 4));
	for (unsigned int i = 0; i < 3; i++) {
		e = madt_entry(9, i);
		ck_assert_ptr_nonnull(e);
		ck_assert_uint_eq(e[1], 16);
		ck_assert_uint_eq(get_le32(e + 4), ids[4 + i]);
		ck_assert_uint_eq(get_le32(e + 8), 1);
		ck_assert_uint_eq(get_le32(e + 12), 4 + i);
	}
	ck_assert_ptr_null(madt_entry(9, 3));
	e = madt_entry(1, 0);
	ck_assert_uint_eq(get_le32(e + 4), 0xfec00000);
	ck_assert_uint_eq(get_le32(e + 8), 0);
	e = madt_entry(2, 0); /* IRQ 0 is GSI 2 */
	ck_assert_uint_eq(e[3], 0);
	ck_assert_uint_eq(get_le32(e + 4), 2);
	ck_assert_uint_eq(get_le16(e + 8), 0);
	e = madt_entry(2, 1); /* the SCI: level, active high */
	ck_assert_uint_eq(e[3], 9);
	ck_assert_uint_eq(get_le32(e + 4), 9);
	ck_assert_uint_eq(get_le16(e + 8), 0x0d);
	ck_assert_ptr_null(madt_entry(2, 2));
	e = madt_entry(4, 0); /* NMI on LINT1 of all */
	ck_assert_uint_eq(e[2], 0xff);
	ck_assert_uint_eq(e[5], 1);
	e = madt_entry(10, 0);
	ck_assert_uint_eq(get_le32(e + 4), 0xffffffff);
	ck_assert_uint_eq(e[8], 1);
	acpi_free(&tables);
}
END_TEST

START_TEST(test_mcfg)
{
	const uint8_t *m;

	build(&q35);
	m = find("MCFG");
	ck_assert_uint_eq(get_le32(m + 4), 60);
	ck_assert_uint_eq(get_le64(m + 44), 0xb0000000);
	ck_assert_uint_eq(get_le16(m + 52), 0);
	ck_assert_uint_eq(m[54], 0);
	ck_assert_uint_eq(m[55], 255);
	acpi_free(&tables);
}
END_TEST

/* Nodes of which one has RAM on both sides of the hole, and one no CPU; CPUs in the MADT's forms. */
static uint32_t numa_cpus[] = {0, 1, 1, 0};
static const uint32_t numa_ids[] = {0, 2, 254, 300};
static struct numa numa = {
	.nnodes = 3,
	.node = {{.memory = GiB}, {.memory = 3 * GiB}, {.memory = GiB}},
	.cpu_node = numa_cpus,
	.has_distances = true,
	.distance = {{10, 21, 40}, {21, 10, 255}, {40, 255, 10}},
};

static void add_numa(struct acpi_config *c)
{
	c->apic_id = numa_ids;
	c->ncpus = ARRAY_SIZE(numa_ids);
	c->numa = &numa;
	c->low_ram = 2 * GiB;
}

static void check_cpu_affinity(const uint8_t *e, unsigned int i)
{
	bool x2 = numa_ids[i] > 254;

	ck_assert_uint_eq(e[0], x2 ? 2 : 0);
	ck_assert_uint_eq(e[1], x2 ? 24 : 16);
	ck_assert_uint_eq(x2 ? get_le32(e + 4) : e[2], numa_cpus[i]);
	ck_assert_uint_eq(x2 ? get_le32(e + 8) : e[3], numa_ids[i]);
	ck_assert_uint_eq(get_le32(x2 ? e + 12 : e + 4), 1);
}

/* Tables 5.50 and following. */
START_TEST(test_srat)
{
	static const uint64_t want[][3] = {
		{0, GiB, 0}, {GiB, GiB, 1}, {4 * GiB, 2 * GiB, 1}, {6 * GiB, GiB, 2}};
	struct acpi_config c = _i ? micro : q35;
	const uint8_t *s, *e;

	build(&c);
	ck_assert_ptr_null(find("SRAT"));
	ck_assert_ptr_null(find("SLIT"));
	acpi_free(&tables);
	add_numa(&c);
	build(&c);
	s = find("SRAT");
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(s[8], 3);
	ck_assert_uint_eq(get_le32(s + 36), 1);
	e = s + 48;
	for (unsigned int i = 0; i < ARRAY_SIZE(numa_ids); i++, e += e[1])
		check_cpu_affinity(e, i);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++, e += e[1]) {
		ck_assert_uint_eq(e[0], 1);
		ck_assert_uint_eq(e[1], 40);
		ck_assert_uint_eq(get_le32(e + 2), want[i][2]);
		ck_assert_uint_eq(get_le64(e + 8), want[i][0]);
		ck_assert_uint_eq(get_le64(e + 16), want[i][1]);
		ck_assert_uint_eq(get_le32(e + 28), 1);
	}
	ck_assert_ptr_eq(e, s + get_le32(s + 4));
	acpi_free(&tables);
}
END_TEST

START_TEST(test_slit)
{
	static const uint8_t want[] = {10, 21, 40, 21, 10, 255, 40, 255, 10};
	struct acpi_config c = q35;
	const uint8_t *s;

	add_numa(&c);
	build(&c);
	s = find("SLIT");
	ck_assert_ptr_nonnull(s);
	ck_assert_uint_eq(get_le32(s + 4), 36 + 8 + 9);
	ck_assert_uint_eq(get_le64(s + 36), 3);
	ck_assert_mem_eq(s + 44, want, sizeof(want));
	acpi_free(&tables);
	numa.has_distances = false;
	build(&c);
	ck_assert_ptr_null(find("SLIT"));
	acpi_free(&tables);
}
END_TEST

/* Lengths on both sides of each size that PkgLength's forms have, 20.2.4. */
START_TEST(test_package_length)
{
	static const struct {
		size_t content;
		uint8_t want[4];
		size_t n;
	} cases[] = {
		{0, {0x01}, 1},
		{62, {0x3f}, 1},
		{63, {0x41, 0x04}, 2},
		{0xffd, {0x4f, 0xff}, 2},
		{0xffe, {0x81, 0x00, 0x01}, 3},
		{0xffffc, {0x8f, 0xff, 0xff}, 3},
		{0xffffd, {0xc1, 0x00, 0x00, 0x01}, 4},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct aml a = {0};

		aml_open_if(&a);
		for (size_t j = 0; j < cases[i].content; j++)
			aml_op(&a, AML_ONE);
		aml_close(&a);
		ck_assert_int_eq(aml_finish(&a), 0);
		ck_assert_uint_eq(a.len, 1 + cases[i].n + cases[i].content);
		ck_assert_mem_eq(a.data + 1, cases[i].want, cases[i].n);
		aml_free(&a);
	}
}
END_TEST

START_TEST(test_aml_terms)
{
	static const uint8_t want[] = {
		0x08, '_',  'H',  'I', 'D',  0x0c, 0x41, 0xd0, 0x0a, 0x08, /* EISAID("PNP0A08") */
		0x00, 0x01, 0x0a, 2,   0x0b, 0x00, 0x01, 0x0c, 0,    0,	   1,	 0, /* constants */
		0x0e, 0,    0,	  0,   0,    1,	   0,	 0,    0,    0xff, '\\', 0x2e,
		'_',  'S',  'B',  '_', 'P',  'C',  'I',	 '0', /* \_SB.PCI0 */
		'\\', 0x2f, 3,	  'A', '_',  '_',  '_',	 'B',  '_',  '_',  '_',	 'C',
		'_',  '_',  '_',  '^', 'X',  'Y',  '_',	 '_',  '\\', 0, /* ^XY and \ */
	};
	struct aml a = {0};

	aml_name_eisaid(&a, "_HID", "PNP0A08");
	aml_integer(&a, 0);
	aml_integer(&a, 1);
	aml_integer(&a, 2);
	aml_integer(&a, 0x100);
	aml_integer(&a, 0x10000);
	aml_integer(&a, 0x100000000);
	aml_integer(&a, UINT64_MAX);
	aml_path(&a, "\\_SB.PCI0");
	aml_path(&a, "\\A.B.C");
	aml_path(&a, "^XY");
	aml_path(&a, "\\");
	ck_assert_int_eq(aml_finish(&a), 0);
	ck_assert_uint_eq(a.len, sizeof(want));
	ck_assert_mem_eq(a.data, want, sizeof(want));
	aml_free(&a);
}
END_TEST

START_TEST(test_aml_misuse)
{
	static const char *const bad[] = {"", "TOOLONG", "low", "1ST", "A..B", "A."};
	struct aml a = {0};

	for (size_t i = 1; i < ARRAY_SIZE(bad); i++) {
		aml_path(&a, bad[i]);
		ck_assert_msg(aml_finish(&a) == -EINVAL, "%s", bad[i]);
		aml_free(&a);
	}
	aml_close(&a);
	ck_assert_int_eq(aml_finish(&a), -EINVAL);
	aml_free(&a);
	aml_open_if(&a);
	ck_assert_int_eq(aml_finish(&a), -EINVAL);
	aml_free(&a);
	for (unsigned int i = 0; i < AML_MAX_DEPTH + 1; i++)
		aml_open_if(&a);
	for (unsigned int i = 0; i < AML_MAX_DEPTH + 1; i++)
		aml_close(&a);
	ck_assert_int_eq(aml_finish(&a), -EINVAL);
	aml_free(&a);
}
END_TEST

START_TEST(test_incomplete)
{
	struct acpi_config c = q35;
	struct hako_error err;

	c.ncpus = 0;
	ck_assert_int_eq(acpi_build(&c, GPA, &tables, &err), -EINVAL);
	c = q35;
	c.intx_gsi = NULL;
	ck_assert_int_eq(acpi_build(&c, GPA, &tables, &err), -EINVAL);
	c = micro;
	c.sleep_control = 0;
	ck_assert_int_eq(acpi_build(&c, GPA, &tables, &err), -EINVAL);
}
END_TEST

/*
 * In guest RAM: found by a scan below 1 MiB; with very many CPUs the tables are elsewhere, and
 * reserved.
 */
START_TEST(test_install)
{
	static uint32_t ids[20000];
	struct acpi_config c = micro;
	struct memory mem;
	struct e820 map = {0};
	struct hako_error err;
	uint64_t rsdp = 0, xsdt;

	ck_assert_int_eq(memory_init_plain(&mem, 16 * MiB, &err), 0);
	ck_assert_int_eq(e820_add(&map, 0, 16 * MiB, 1), 0);
	ck_assert_int_eq(e820_add(&map, 0x9fc00, 0x60400, 2), 0);
	ck_assert_int_eq(acpi_install(&c, &mem, &map, &rsdp, &err), 0);
	ck_assert_uint_eq(rsdp, 0xe0000);
	ck_assert_mem_eq(memory_ptr(&mem, rsdp, 8), "RSD PTR ", 8);
	xsdt = get_le64((uint8_t *)memory_ptr(&mem, rsdp, 36) + 24);
	ck_assert_mem_eq(memory_ptr(&mem, xsdt, 4), "XSDT", 4);
	ck_assert_uint_lt(xsdt, MiB);
	ck_assert_uint_eq(map.n, 3);

	for (unsigned int i = 0; i < ARRAY_SIZE(ids); i++)
		ids[i] = i;
	c.apic_id = ids;
	c.ncpus = ARRAY_SIZE(ids);
	ck_assert_int_eq(acpi_install(&c, &mem, &map, &rsdp, &err), 0);
	ck_assert_uint_eq(rsdp, 0xe0000);
	xsdt = get_le64((uint8_t *)memory_ptr(&mem, rsdp, 36) + 24);
	ck_assert_mem_eq(memory_ptr(&mem, xsdt, 4), "XSDT", 4);
	ck_assert_uint_eq(map.n, 4);
	ck_assert_uint_eq(map.entry[3].type, 3);
	ck_assert_uint_ge(xsdt, map.entry[3].addr);
	ck_assert_uint_lt(xsdt, map.entry[3].addr + map.entry[3].size);
	ck_assert_uint_eq(map.entry[3].addr + map.entry[3].size, 16 * MiB);
	memory_free(&mem);
}
END_TEST

/* --- golden copies and iasl ------------------------------------------------------------------- */

/*
 * The boards as they are: two vCPUs, COM1, a few devices, 2 GiB below the hole and 2 GiB above
 * it.
 */
static void describe_board(int n, struct acpi_config *c)
{
	static struct acpi_mmio mmio[3];
	static struct pci_bus root = {
		.root = &root,
		.mmio32_base = 0xc0000000,
		.mmio32_size = 0x3ec00000,
		.mmio64_base = 0x180000000,
		.mmio64_size = 0x1000000000,
	};

	list_init(&root.devices);
	if (n == 1)
		micro_describe(c, mmio, ARRAY_SIZE(mmio));
	else
		q35_describe(c, &root, n == 0, n == 0);
	c->apic_id = two_cpus;
	c->ncpus = ARRAY_SIZE(two_cpus);
	c->lapic_base = BOARD_LAPIC_BASE;
	c->ioapic_base = BOARD_IOAPIC_BASE;
	c->com[0] = (struct acpi_com){0x3f8, 4};
	c->pvpanic_port = 0x505;
}

static const char *const boards[] = {"q35-1.0", "micro-1.0", "q35-1.0-split"};
static const char *const signatures[] = {"DSDT", "FACP", "APIC", "MCFG", "SRAT", "SLIT"};

static const uint8_t *by_signature(const char *signature)
{
	return strcmp(signature, "DSDT") ? find(signature) : dsdt();
}

static void write_file(const char *path, const void *data, size_t len)
{
	FILE *f = fopen(path, "w");

	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	ck_assert_uint_eq(fwrite(data, 1, len, f), len);
	ck_assert_int_eq(fclose(f), 0);
}

static void compare_golden(const char *path, const uint8_t *table)
{
	static uint8_t buf[1 << 20];
	size_t len = get_le32(table + 4);
	FILE *f = fopen(path, "r");

	ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
	ck_assert_msg(fread(buf, 1, sizeof(buf), f) == len && !memcmp(buf, table, len),
		      "%s: the table has changed; a released board's must not "
		      "(compare with iasl -d)",
		      path);
	fclose(f);
}

START_TEST(test_golden)
{
	struct acpi_config c;
	const char *mode = getenv("HAKO_GOLDEN");
	char path[256];

	describe_board(_i, &c);
	build(&c);
	for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
		const uint8_t *t = by_signature(signatures[i]);

		if (!t)
			continue;
		snprintf(path, sizeof(path), GOLDEN_DIR "/%s/%s.aml", boards[_i], signatures[i]);
		if (mode && !strcmp(mode, "write"))
			write_file(path, t, get_le32(t + 4));
		else
			compare_golden(path, t);
	}
	acpi_free(&tables);
}
END_TEST

/*
 * Disassemble each table and compile it again: no error, warning or remark, and the same bytes
 * behind the header, into which iasl writes its own name.
 */
START_TEST(test_iasl)
{
	static const char script[] =
		"cd \"$1\" && iasl -d $2.aml >log 2>&1 && iasl -oa -p again $2.dsl >log 2>&1 && "
		"grep -q '0 Errors, 0 Warnings, 0 Remarks' log && cmp -i 36 $2.aml again.aml";
	struct acpi_config c;
	char dir[] = "/tmp/hako-test-acpi-XXXXXX", path[300], command[1024];

	if (system("command -v iasl >/dev/null") != 0) {
		fprintf(stderr, "test_iasl: skipped: iasl (acpica-tools) is not installed\n");
		return;
	}
	describe_board(_i % 3, &c);
	if (_i >= 3)
		add_numa(&c);
	build(&c);
	ck_assert_ptr_nonnull(mkdtemp(dir));
	for (size_t i = 0; i < ARRAY_SIZE(signatures); i++) {
		const uint8_t *t = by_signature(signatures[i]);
		int ret;

		if (!t)
			continue;
		snprintf(path, sizeof(path), "%s/%s.aml", dir, signatures[i]);
		write_file(path, t, get_le32(t + 4));
		snprintf(command, sizeof(command), "set -- %s %s; %s", dir, signatures[i], script);
		ret = system(command);
		if (ret) {
			snprintf(command, sizeof(command), "cat %s/log >&2", dir);
			ck_assert_int_ge(system(command), 0);
		}
		ck_assert_msg(ret == 0, "iasl complains about %s of %s", signatures[i],
			      boards[_i % 3]);
	}
	snprintf(command, sizeof(command), "rm -r %s", dir);
	ck_assert_int_eq(system(command), 0);
	acpi_free(&tables);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("acpi");
	TCase *tc = tcase_create("tables");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_add_test(tc, test_rsdp);
	tcase_add_test(tc, test_fadt_q35);
	tcase_add_test(tc, test_fadt_micro);
	tcase_add_test(tc, test_madt);
	tcase_add_test(tc, test_mcfg);
	tcase_add_test(tc, test_package_length);
	tcase_add_test(tc, test_aml_terms);
	tcase_add_test(tc, test_aml_misuse);
	tcase_add_test(tc, test_incomplete);
	tcase_add_test(tc, test_install);
	tcase_add_loop_test(tc, test_golden, 0, ARRAY_SIZE(boards));
	tcase_add_loop_test(tc, test_srat, 0, 2);
	tcase_add_test(tc, test_slit);
	tcase_add_loop_test(tc, test_iasl, 0, 2 * ARRAY_SIZE(boards)); /* with NUMA, too */
	tcase_set_timeout(tc, 60);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
