/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef VMM_CLI_IMG_INFO_H
#define VMM_CLI_IMG_INFO_H

#include "devices/block/qcow2.h"
#include "img.h"

/** What QEMU calls "format specific information". */
void img_info_specific(struct img_json *j, struct qcow2 *q);

#endif
