/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef VMM_CLI_IMG_INFO_H
#define VMM_CLI_IMG_INFO_H

#include "devices/block/qcow2_manage.h"
#include "img.h"

/** The snapshots as a table, and as a member of an object; nothing if there are none. */
void img_print_snapshots(const struct qcow2_snapshot *list, uint32_t n);
void img_json_snapshots(struct img_json *j, const struct qcow2_snapshot *list, uint32_t n);

/** What QEMU calls "format specific information". */
void img_info_specific(struct img_json *j, struct qcow2 *q);

#endif
