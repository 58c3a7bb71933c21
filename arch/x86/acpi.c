/* SPDX-License-Identifier: GPL-2.0-only */
/* ACPI 6.5, chapter 5: the tables with fixed fields. */
#include "acpi.h"

#include <stdlib.h>

#include "aml.h"
#include "vmm/numa.h"

#define OEM_ID	   "HAKO  "
#define CREATOR_ID "HAKO"
#define RSDP_SIZE  36
#define ACPI_ROOM  (BOOT_RESET_VECTOR_GPA - BOOT_RSDP_GPA) /* RSDP and tables, below 1 MiB */
#define TABLES_GPA (BOOT_RSDP_GPA + 64)
#define MAX_MMIO   256
#define E820_ACPI  3

struct header {
	char signature[4];
	uint32_t length;
	uint8_t revision, checksum;
	char oem_id[6], oem_table_id[8];
	uint32_t oem_revision;
	char creator_id[4];
	uint32_t creator_revision;
} __attribute__((packed));

/* Generic Address Structure, 5.2.3.2 */
struct gas {
	uint8_t space, bit_width, bit_offset, access_size;
	uint64_t address;
} __attribute__((packed));

enum {
	GAS_MEMORY,
	GAS_IO
};

/* 5.2.9 */
struct fadt {
	struct header header;
	uint32_t firmware_ctrl, dsdt;
	uint8_t reserved0, preferred_pm_profile;
	uint16_t sci_int;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios_req, pstate_cnt;
	uint32_t pm1a_evt_blk, pm1b_evt_blk, pm1a_cnt_blk, pm1b_cnt_blk, pm2_cnt_blk, pm_tmr_blk;
	uint32_t gpe0_blk, gpe1_blk;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_blk_len, gpe1_blk_len;
	uint8_t gpe1_base, cst_cnt;
	uint16_t p_lvl2_lat, p_lvl3_lat, flush_size, flush_stride;
	uint8_t duty_offset, duty_width, day_alrm, mon_alrm, century;
	uint16_t iapc_boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct gas reset_reg;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor_version;
	uint64_t x_firmware_ctrl, x_dsdt;
	struct gas x_pm1a_evt_blk, x_pm1b_evt_blk, x_pm1a_cnt_blk, x_pm1b_cnt_blk, x_pm2_cnt_blk;
	struct gas x_pm_tmr_blk, x_gpe0_blk, x_gpe1_blk;
	struct gas sleep_control_reg, sleep_status_reg;
	char hypervisor_vendor[8];
} __attribute__((packed));

#define FADT_WBINVD	   BIT(0)
#define FADT_PROC_C1	   BIT(2)
#define FADT_PWR_BUTTON	   BIT(4) /* is not in the PM1 registers */
#define FADT_SLP_BUTTON	   BIT(5)
#define FADT_FIX_RTC	   BIT(6) /* its wake status is not in the PM1 registers */
#define FADT_RESET_REG_SUP BIT(10)
#define FADT_HW_REDUCED	   BIT(20)

#define IAPC_LEGACY_DEVICES BIT(0)
#define IAPC_8042	    BIT(1)
#define IAPC_NO_VGA	    BIT(2)
#define IAPC_NO_CMOS_RTC    BIT(5)

/* 5.2.10 */
struct facs {
	char signature[4];
	uint32_t length, hardware_signature, firmware_waking_vector, global_lock, flags;
	uint64_t x_firmware_waking_vector;
	uint8_t version, reserved[31];
} __attribute__((packed));

/* Everything under construction; tables are appended to one buffer, whose start will be at @gpa. */
struct builder {
	const struct acpi_config *config;
	uint64_t gpa;
	struct aml out;
	size_t table;	  /* offset of the one being written */
	uint64_t xsdt[8]; /* addresses for the XSDT */
	unsigned int n;
};

static void copy_padded(char *to, size_t size, const char *text)
{
	memset(to, ' ', size);
	memcpy(to, text, MIN(strlen(text), size));
}

static uint8_t checksum(const uint8_t *p, size_t len)
{
	uint8_t sum = 0;

	while (len--)
		sum += *p++;
	return -sum;
}

/* Begin a table of @size bytes so far, 16-byte aligned; NULL without memory. */
static void *table_begin(struct builder *b, const char *signature, uint8_t revision, size_t size)
{
	struct header h = {.revision = revision, .oem_revision = htole32(1)};

	while (b->out.len % 16 && !b->out.error)
		aml_byte(&b->out, 0);
	b->table = b->out.len;
	memcpy(h.signature, signature, 4);
	copy_padded(h.oem_id, sizeof(h.oem_id), OEM_ID);
	copy_padded(h.oem_table_id, sizeof(h.oem_table_id), b->config->oem_table_id);
	memcpy(h.creator_id, CREATOR_ID, 4);
	h.creator_revision = htole32(1);
	aml_bytes(&b->out, &h, sizeof(h));
	for (size_t i = sizeof(h); i < size; i++)
		aml_byte(&b->out, 0);
	return b->out.error ? NULL : b->out.data + b->table;
}

/* Set length and checksum, and return the table's address. */
static uint64_t table_end(struct builder *b)
{
	struct header *h;
	size_t len = b->out.len - b->table;

	if (b->out.error)
		return 0;
	h = (struct header *)(b->out.data + b->table);
	h->length = htole32(len);
	h->checksum = checksum((uint8_t *)h, len);
	return b->gpa + b->table;
}

static void list(struct builder *b, uint64_t gpa)
{
	b->xsdt[b->n++] = gpa;
}

/* --- FADT ------------------------------------------------------------------------------------ */

static struct gas gas(unsigned int space, unsigned int bits, uint64_t address)
{
	/* Access sizes: 1 byte, 2 word, 3 double word. */
	return (struct gas){
		.space = space,
		.bit_width = bits,
		.access_size = bits == 8    ? 1
			       : bits == 16 ? 2
					    : 3,
		.address = htole64(address),
	};
}

static void fixed_hardware(struct fadt *f, const struct acpi_config *c)
{
	f->sci_int = htole16(c->sci);
	f->pm1a_evt_blk = htole32(c->pm1_evt);
	f->pm1_evt_len = 4;
	f->x_pm1a_evt_blk = gas(GAS_IO, 32, c->pm1_evt);
	f->x_pm1a_evt_blk.access_size = 2; /* status and enable are two 16-bit registers */
	f->pm1a_cnt_blk = htole32(c->pm1_cnt);
	f->pm1_cnt_len = 2;
	f->x_pm1a_cnt_blk = gas(GAS_IO, 16, c->pm1_cnt);
	if (c->pm_timer) {
		f->pm_tmr_blk = htole32(c->pm_timer);
		f->pm_tmr_len = 4;
		f->x_pm_tmr_blk = gas(GAS_IO, 32, c->pm_timer);
	}
	if (c->gpe0) {
		f->gpe0_blk = htole32(c->gpe0);
		f->gpe0_blk_len = c->gpe0_len;
		f->x_gpe0_blk = gas(GAS_IO, c->gpe0_len * 8, c->gpe0);
		f->x_gpe0_blk.access_size = 1;
	}
}

static uint32_t fadt_flags(const struct acpi_config *c)
{
	uint32_t flags = FADT_WBINVD | FADT_PROC_C1 | FADT_SLP_BUTTON | FADT_FIX_RTC;

	if (c->hw_reduced)
		flags |= FADT_HW_REDUCED;
	if (c->hw_reduced || !c->power_button)
		flags |= FADT_PWR_BUTTON;
	if (c->reset_port || c->reset_address)
		flags |= FADT_RESET_REG_SUP;
	return flags;
}

static uint16_t boot_arch(const struct acpi_config *c)
{
	uint16_t flags = IAPC_NO_VGA;

	if (c->com[0].port || c->com[1].port || c->com[2].port || c->com[3].port || c->has_rtc)
		flags |= IAPC_LEGACY_DEVICES;
	if (c->has_i8042)
		flags |= IAPC_8042;
	if (!c->has_rtc)
		flags |= IAPC_NO_CMOS_RTC;
	return flags;
}

static void build_fadt(struct builder *b, uint64_t facs, uint64_t dsdt)
{
	const struct acpi_config *c = b->config;
	struct fadt *f = table_begin(b, "FACP", 6, sizeof(*f));

	if (!f)
		return;
	f->minor_version = 4; /* of ACPI 6.4, the last that changed nothing for x86 */
	f->firmware_ctrl = htole32(facs);
	f->dsdt = htole32(dsdt);
	f->x_dsdt = htole64(dsdt);
	/* C2 and C3 do not exist: latencies beyond 100 and 1000 µs say so. */
	f->p_lvl2_lat = htole16(0xfff);
	f->p_lvl3_lat = htole16(0xfff);
	if (c->has_rtc)
		f->century = 0x32;
	f->iapc_boot_arch = htole16(boot_arch(c));
	f->flags = htole32(fadt_flags(c));
	if (c->reset_port)
		f->reset_reg = gas(GAS_IO, 8, c->reset_port);
	else if (c->reset_address)
		f->reset_reg = gas(GAS_MEMORY, 8, c->reset_address);
	f->reset_value = c->reset_value;
	if (c->hw_reduced) {
		f->sleep_control_reg = gas(GAS_MEMORY, 8, c->sleep_control);
		f->sleep_status_reg = gas(GAS_MEMORY, 8, c->sleep_status);
	} else {
		fixed_hardware(f, c);
	}
	memcpy(f->hypervisor_vendor, "HAKO", 4);
	list(b, table_end(b));
}

/* --- MADT, 5.2.12 ---------------------------------------------------------------------------- */

#define MADT_PCAT_COMPAT  1
#define INTI_LEVEL_HIGH	  0x000d
#define APIC_ID_MAX	  254 /* of the 8-bit form; 255 is the broadcast */
#define LAPIC_ENABLED	  1
#define ALL_PROCESSORS	  0xff
#define ALL_PROCESSORS_X2 0xffffffffu
#define NMI_LINT	  1

static void local_apic(struct builder *b, uint32_t uid, uint32_t apic_id)
{
	uint8_t e[16] = {0};

	if (apic_id <= APIC_ID_MAX && uid <= UINT8_MAX) {
		e[0] = 0; /* Processor Local APIC */
		e[1] = 8;
		e[2] = uid;
		e[3] = apic_id;
		put_le32(e + 4, LAPIC_ENABLED);
	} else {
		e[0] = 9; /* Processor Local x2APIC */
		e[1] = 16;
		put_le32(e + 4, apic_id);
		put_le32(e + 8, LAPIC_ENABLED);
		put_le32(e + 12, uid);
	}
	aml_bytes(&b->out, e, e[1]);
}

static void source_override(struct builder *b, uint8_t isa_irq, uint32_t gsi, uint16_t flags)
{
	uint8_t e[10] = {2, sizeof(e), 0, isa_irq};

	put_le32(e + 4, gsi);
	put_le16(e + 8, flags);
	aml_bytes(&b->out, e, sizeof(e));
}

static void build_madt(struct builder *b)
{
	const struct acpi_config *c = b->config;
	uint8_t *m = table_begin(b, "APIC", 5, sizeof(struct header) + 8);
	uint8_t ioapic[12] = {1, sizeof(ioapic)};
	uint8_t nmi[6] = {4, sizeof(nmi), ALL_PROCESSORS, 0, 0, NMI_LINT};
	uint8_t x2_nmi[12] = {0x0a, sizeof(x2_nmi)};
	bool x2 = false;

	if (!m)
		return;
	put_le32(m + sizeof(struct header), c->lapic_base);
	put_le32(m + sizeof(struct header) + 4, c->has_pic ? MADT_PCAT_COMPAT : 0);
	for (uint32_t i = 0; i < c->ncpus; i++) {
		x2 |= c->apic_id[i] > APIC_ID_MAX || i > UINT8_MAX;
		local_apic(b, i, c->apic_id[i]);
	}
	put_le32(ioapic + 4, c->ioapic_base);
	aml_bytes(&b->out, ioapic, sizeof(ioapic));
	if (c->has_pit)
		source_override(b, 0, 2, 0);
	if (c->sci && c->sci < 16)
		source_override(b, c->sci, c->sci, INTI_LEVEL_HIGH);
	aml_bytes(&b->out, nmi, sizeof(nmi));
	if (x2) {
		put_le32(x2_nmi + 4, ALL_PROCESSORS_X2);
		x2_nmi[8] = NMI_LINT;
		aml_bytes(&b->out, x2_nmi, sizeof(x2_nmi));
	}
	list(b, table_end(b));
}

/* --- SRAT, 5.2.16, and SLIT, 5.2.17 ------------------------------------------------------------ */

#define AFFINITY_ENABLED 1

static void cpu_affinity(struct builder *b, uint32_t uid, uint32_t apic_id, uint32_t node)
{
	uint8_t e[24] = {0};

	/* The same form as in the MADT. */
	if (apic_id <= APIC_ID_MAX && uid <= UINT8_MAX) {
		e[0] = 0; /* Processor Local APIC/SAPIC Affinity */
		e[1] = 16;
		e[2] = node; /* fits: NUMA_MAX_NODES */
		e[3] = apic_id;
		put_le32(e + 4, AFFINITY_ENABLED);
	} else {
		e[0] = 2; /* Processor Local x2APIC Affinity */
		e[1] = 24;
		put_le32(e + 4, node);
		put_le32(e + 8, apic_id);
		put_le32(e + 12, AFFINITY_ENABLED);
	}
	aml_bytes(&b->out, e, e[1]);
}

static void memory_affinity(struct builder *b, uint64_t base, uint64_t size, uint32_t node)
{
	uint8_t e[40] = {1, sizeof(e)};

	put_le32(e + 2, node);
	put_le64(e + 8, base);
	put_le64(e + 16, size);
	put_le32(e + 28, AFFINITY_ENABLED);
	aml_bytes(&b->out, e, sizeof(e));
}

static void build_srat(struct builder *b)
{
	const struct acpi_config *c = b->config;
	uint8_t *s = table_begin(b, "SRAT", 3, sizeof(struct header) + 12);
	uint64_t at = 0;

	if (!s)
		return;
	put_le32(s + sizeof(struct header), 1); /* reserved, but 1 */
	for (uint32_t i = 0; i < c->ncpus; i++)
		cpu_affinity(b, i, c->apic_id[i], c->numa->cpu_node[i]);
	/* A node may have RAM on both sides of the hole. */
	for (uint32_t i = 0; i < c->numa->nnodes; i++) {
		uint64_t end = at + c->numa->node[i].memory;
		uint64_t low = MIN(end, c->low_ram), high = MAX(at, c->low_ram);

		if (at < low)
			memory_affinity(b, at, low - at, i);
		if (high < end)
			memory_affinity(b, 4 * GiB + (high - c->low_ram), end - high, i);
		at = end;
	}
	list(b, table_end(b));
}

static void build_slit(struct builder *b)
{
	const struct numa *n = b->config->numa;
	uint8_t *s;

	if (!n->has_distances)
		return;
	s = table_begin(b, "SLIT", 1, sizeof(struct header) + 8);
	if (!s)
		return;
	put_le64(s + sizeof(struct header), n->nnodes);
	for (uint32_t i = 0; i < n->nnodes; i++)
		aml_bytes(&b->out, n->distance[i], n->nnodes);
	list(b, table_end(b));
}

/* --- the others ------------------------------------------------------------------------------ */

/* PCI Firmware Specification 3.2, 4.1.2 */
static void build_mcfg(struct builder *b)
{
	const struct acpi_window *ecam = &b->config->ecam;
	uint8_t *m;

	if (!ecam->size)
		return;
	m = table_begin(b, "MCFG", 1, sizeof(struct header) + 8 + 16);
	if (!m)
		return;
	m += sizeof(struct header) + 8;
	put_le64(m, ecam->base);
	m[11] = MIN(ecam->size / MiB, 256) - 1; /* last bus; segment 0, first bus 0 */
	list(b, table_end(b));
}

static uint64_t build_facs(struct builder *b)
{
	struct facs facs = {.length = htole32(sizeof(facs)), .version = 2};

	if (b->config->hw_reduced)
		return 0;
	memcpy(facs.signature, "FACS", 4);
	aml_bytes(&b->out, &facs, sizeof(facs)); /* first of all, hence aligned to 64 bytes */
	return b->gpa;
}

static uint64_t build_dsdt(struct builder *b)
{
	table_begin(b, "DSDT", 2, sizeof(struct header));
	acpi_dsdt(&b->out, b->config);
	return table_end(b);
}

static void build_rsdp(struct builder *b, uint64_t xsdt, uint8_t rsdp[RSDP_SIZE])
{
	memset(rsdp, 0, RSDP_SIZE);
	memcpy(rsdp, "RSD PTR ", 8);
	copy_padded((char *)rsdp + 9, 6, OEM_ID);
	rsdp[15] = 2; /* revision: there is an XSDT */
	put_le32(rsdp + 20, RSDP_SIZE);
	put_le64(rsdp + 24, xsdt);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, RSDP_SIZE);
}

static bool config_ok(const struct acpi_config *c)
{
	if (c->nmmio > MAX_MMIO || !c->ncpus || (c->ecam.size && !c->intx_gsi))
		return false;
	if (c->ecam.size && (c->ecam.size < MiB || c->ecam.size > 256 * MiB))
		return false;
	return c->hw_reduced ? c->sleep_control && c->sleep_status : c->pm1_evt && c->pm1_cnt;
}

int acpi_build(const struct acpi_config *config, uint64_t gpa, struct acpi_tables *tables,
	       struct hako_error *err)
{
	struct builder b = {.config = config, .gpa = gpa};
	uint64_t facs, dsdt, xsdt;
	int ret;

	*tables = (struct acpi_tables){.data = NULL};
	if (!config_ok(config))
		return error_set(err, -EINVAL, "the board's ACPI description is incomplete");
	facs = build_facs(&b);
	dsdt = build_dsdt(&b);
	build_fadt(&b, facs, dsdt);
	build_madt(&b);
	build_mcfg(&b);
	if (config->numa) {
		build_srat(&b);
		build_slit(&b);
	}
	table_begin(&b, "XSDT", 1, sizeof(struct header));
	for (unsigned int i = 0; i < b.n; i++) {
		uint64_t entry = htole64(b.xsdt[i]);

		aml_bytes(&b.out, &entry, sizeof(entry));
	}
	xsdt = table_end(&b);
	ret = aml_finish(&b.out);
	if (ret) {
		aml_free(&b.out);
		return error_errno(err, ret, "ACPI tables");
	}
	build_rsdp(&b, xsdt, tables->rsdp);
	tables->data = b.out.data;
	tables->len = b.out.len;
	return 0;
}

void acpi_free(struct acpi_tables *tables)
{
	free(tables->data);
	tables->data = NULL;
}

/* The end of the highest RAM below 4 GiB that holds @len bytes. */
static uint64_t place_high(const struct e820 *map, uint64_t len)
{
	for (unsigned int i = map->n; i--;) {
		const struct e820_entry *e = &map->entry[i];

		if (e->type == 1 && e->addr >= MiB && e->addr < 4 * GiB && e->size >= len)
			return ALIGN_DOWN(MIN(e->addr + e->size, 4 * GiB) - len, PAGE_SIZE);
	}
	return 0;
}

static int install_high(const struct acpi_config *config, struct acpi_tables *tables,
			struct e820 *map, uint64_t *gpa, struct hako_error *err)
{
	uint64_t len = ALIGN_UP(tables->len, PAGE_SIZE);
	int ret;

	acpi_free(tables);
	*gpa = place_high(map, len);
	if (!*gpa)
		return error_set(err, -ENOMEM, "no memory for %llu KiB of ACPI tables",
				 (unsigned long long)(len / KiB));
	ret = e820_add(map, *gpa, len, E820_ACPI);
	if (ret)
		return error_errno(err, ret, "memory map for ACPI tables");
	return acpi_build(config, *gpa, tables, err);
}

int acpi_install(const struct acpi_config *config, struct memory *mem, struct e820 *map,
		 uint64_t *rsdp, struct hako_error *err)
{
	struct acpi_tables tables;
	uint64_t gpa = TABLES_GPA;
	int ret = acpi_build(config, gpa, &tables, err);

	if (!ret && tables.len > ACPI_ROOM - (TABLES_GPA - BOOT_RSDP_GPA))
		ret = install_high(config, &tables, map, &gpa, err);
	if (ret)
		return ret;
	if (memory_write(mem, BOOT_RSDP_GPA, tables.rsdp, sizeof(tables.rsdp)) ||
	    memory_write(mem, gpa, tables.data, tables.len))
		ret = error_set(err, -ENOMEM, "no memory for ACPI tables at 0x%llx",
				(unsigned long long)gpa);
	acpi_free(&tables);
	*rsdp = BOOT_RSDP_GPA;
	return ret;
}
