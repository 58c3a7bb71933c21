/* SPDX-License-Identifier: GPL-2.0-only */
/* QEMU's firmware configuration device, at ports 0x510 to 0x51b. */
#ifndef FWCFG_H
#define FWCFG_H

#include "guest.h"

#define FWCFG_ERROR  1
#define FWCFG_READ   2
#define FWCFG_SKIP   4
#define FWCFG_SELECT 8
#define FWCFG_WRITE  16

/* All big-endian. */
struct fwcfg_dma {
	u32 control, length;
	u64 address;
};
struct fwcfg_file {
	u32 size;
	u16 select, reserved;
	char name[56];
};

bool fwcfg_present(void);
void fwcfg_read(u16 key, void *p, u32 len);
/* What control reads when it is done: 0, or FWCFG_ERROR. */
u32 fwcfg_dma(u32 control, void *p, u32 len);
/* Write the address of a command, whatever it is. */
void fwcfg_dma_raw(u64 addr);

#endif
