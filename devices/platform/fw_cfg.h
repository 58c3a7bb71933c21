/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fw_cfg: named and numbered pieces of data that the guest's firmware and kernel read from the VMM. The board adds what it has to say; what is
 * added under a key or name that is there replaces it, so that a board may do it anew at each reset.
 *
 * All calls may come from any thread. Data is copied. -EFBIG for more than FW_CFG_MAX_ITEM bytes, -ENOSPC if there
 * is no more room for files, -ENOMEM.
 */
#ifndef DEVICES_PLATFORM_FW_CFG_H
#define DEVICES_PLATFORM_FW_CFG_H

#include <linux/qemu_fw_cfg.h> /* keys */

#include "vmm/error.h"
#include "vmm/util.h"

struct fw_cfg; /* vm->fw_cfg */

#define FW_CFG_MAX_FILES 0x60
#define FW_CFG_MAX_ITEM	 (256ull * MiB)

/** -EINVAL for a key that is not below FW_CFG_FILE_FIRST, or is one of fw_cfg's own. */
int fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len);
int fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value);
int fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value);
int fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value);
/** -EINVAL for a name that is empty or too long. Files get their keys in order of their first adding. */
int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len);

/** "[name=]NAME,file=PATH" or "[name=]NAME,string=TEXT", as QEMU's -fw_cfg. */
int fw_cfg_add_option(struct fw_cfg *fw, const char *text, struct hako_error *err);

#endif
