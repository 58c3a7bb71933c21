/* SPDX-License-Identifier: GPL-2.0-only */
/* Files that are no kernel for this machine, by name. */
#include "boot_internal.h"

struct foreign {
	uint16_t offset, len;
	const char *magic;
	const char *what;
};

static const struct foreign foreign[] = {
	{0x38, 4, "ARM\x64", "is an aarch64 kernel, not an x86 one"},
	{0x38, 4, "RSC\x05", "is a RISC-V kernel, not an x86 one"},
	{4, 4, "zimg", "is a compressed EFI kernel of another architecture"},
	{0x24, 4, "\x18\x28\x6f\x01", "is a 32-bit ARM kernel, not an x86 one"},
	{0, 4, "\x27\x05\x19\x56", "is a U-Boot image, not a kernel"},
	{0, 8, "ANDROID!", "is an Android boot image, not a kernel"},
	{0, 4, "\xd0\x0d\xfe\xed", "is a device tree or FIT image, not a kernel"},
	{0, 4, "QFI\xfb", "is a qcow2 disk image, not a kernel"},
	{0, 6, "070701", "is a cpio archive, as an initrd is, not a kernel"},
	{0, 6, "070702", "is a cpio archive, as an initrd is, not a kernel"},
	{0, 8, "!<arch>\n", "is an archive or Debian package, not a kernel"},
	{0, 4, "\xed\xab\xee\xdb", "is an RPM package, not a kernel"},
	{0, 3, "BZh", "is compressed with bzip2, which hako does not unpack"},
	{0, 2, "#!", "is a script, not a kernel"},
};

/* MS-DOS header with the offset of a PE header at 0x3c. */
static bool is_pe(const uint8_t *head, size_t len)
{
	uint32_t off;

	if (len < 0x40 || memcmp(head, "MZ", 2))
		return false;
	off = get_le32(head + 0x3c);
	return off <= len - 4 && !memcmp(head + off, "PE\0\0", 4);
}

int boot_foreign(const struct boot_kernel *k, const uint8_t *head, size_t len,
		 struct hako_error *err)
{
	const char *path = k->img.path;

	for (size_t i = 0; i < ARRAY_SIZE(foreign); i++) {
		const struct foreign *f = &foreign[i];

		if (f->offset + f->len <= len && !memcmp(head + f->offset, f->magic, f->len))
			return error_set(err, -ENOEXEC, "%s: %s", path, f->what);
	}
	if (is_pe(head, len))
		return error_set(err, -ENOEXEC,
				 "%s: is an EFI program without a Linux boot header, which needs "
				 "firmware to start",
				 path);
	if (len >= 0x200 && get_le16(head + 0x1fe) == 0xaa55)
		return error_set(err, -ENOEXEC, "%s: is a boot sector or disk image, not a kernel",
				 path);
	return error_set(err, -ENOEXEC,
			 "%s: is not a kernel: neither bzImage, ELF, Multiboot nor one of these "
			 "compressed",
			 path);
}
