/* SPDX-License-Identifier: GPL-2.0-only */
#include "acpi.h"

u64 acpi_rsdp_hint;

u8 acpi_sum(const u8 *p, u32 n)
{
	u8 sum = 0;

	while (n--)
		sum += *p++;
	return sum;
}

static u8 *rsdp_scan(u64 from, u64 to)
{
	for (u64 a = from; a + 36 <= to; a += 16)
		if (*(u64 *)a == 0x2052545020445352 && !acpi_sum((u8 *)a, 20)) /* "RSD PTR " */
			return (u8 *)a;
	return NULL;
}

u8 *acpi_rsdp(void)
{
	static u8 *rsdp;
	u64 ebda = (u64)mmio_r16(0x40e) << 4;

	if (!rsdp && acpi_rsdp_hint)
		rsdp = (u8 *)acpi_rsdp_hint;
	if (!rsdp && ebda >= 0x400 && ebda < 0xa0000)
		rsdp = rsdp_scan(ebda, ebda + 0x400);
	if (!rsdp)
		rsdp = rsdp_scan(0xe0000, 0x100000);
	return rsdp;
}

static bool table_is(const u8 *t, const char *signature)
{
	return t && !memcmp(t, signature, 4);
}

u8 *acpi_table(const char signature[4])
{
	u8 *rsdp = acpi_rsdp(), *root;
	u32 entry, n;
	bool xsdt;

	if (!rsdp)
		return NULL;
	xsdt = rsdp[15] >= 2 && *(u64 *)(rsdp + 24);
	root = xsdt ? (u8 *)*(u64 *)(rsdp + 24) : (u8 *)(u64) * (u32 *)(rsdp + 16);
	if (table_is(root, signature))
		return root;
	entry = xsdt ? 8 : 4;
	n = (*(u32 *)(root + 4) - 36) / entry;
	for (u32 i = 0; i < n && i < 64; i++) {
		u8 *p = root + 36 + i * entry;
		u8 *t = xsdt ? (u8 *)*(u64 *)p : (u8 *)(u64) * (u32 *)p;

		if (table_is(t, signature))
			return t;
		/* The DSDT hangs off the FADT: DSDT at 40, X_DSDT at 140. */
		if (table_is(t, "FACP") && !strncmp(signature, "DSDT", 4))
			return *(u32 *)(t + 4) >= 148 && *(u64 *)(t + 140)
				       ? (u8 *)*(u64 *)(t + 140)
				       : (u8 *)(u64) * (u32 *)(t + 40);
	}
	return NULL;
}

/* Memory32Fixed (6.4.3.4) with that base, then the first Extended Interrupt (6.4.3.6). */
s64 acpi_mmio_irq(u32 base, bool *level)
{
	u8 *t = acpi_table("DSDT"), *end;

	if (!t)
		return -1;
	end = t + *(u32 *)(t + 4);
	for (u8 *p = t + 36; p + 24 < end; p++) {
		if (p[0] != 0x86 || p[1] != 9 || p[2] || *(u32 *)(p + 4) != base)
			continue;
		for (u8 *q = p + 12; q < p + 24 && q + 9 <= end; q++)
			if (q[0] == 0x89 && !q[2] && q[4] == 1) {
				*level = !(q[3] & 2);
				return *(u32 *)(q + 5);
			}
	}
	return -1;
}

/* Name(\_S5 or _S5_, Package(){SLP_TYPa, ...}): NameOp, name, PackageOp, PkgLength, count, integer. */
int acpi_s5(void)
{
	u8 *t = acpi_table("DSDT"), *end;

	if (!t)
		return -1;
	end = t + *(u32 *)(t + 4);
	for (u8 *p = t + 36; p + 8 < end; p++) {
		u8 *q = p + 4;

		if (memcmp(p, "_S5_", 4) || (p[-1] != 8 && !(p[-1] == '\\' && p[-2] == 8)))
			continue;
		if (*q++ != 0x12)
			continue;
		q += 1 + (*q >> 6) + 1;
		return *q == 0x0a ? q[1] : *q;
	}
	return -1;
}
