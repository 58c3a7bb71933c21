/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Libraries that are loaded when a VM needs them, so that one that does not starts without them. Functions are called
 * through pointers of the header's own types:
 *
 *   static const struct dl_symbol symbols[] = { DL_SYMBOL(struct zlib, inflate), …, { NULL } };
 */
#ifndef VMM_DL_H
#define VMM_DL_H

#include "error.h"
#include "util.h"

struct dl_symbol {
	const char *name;
	size_t offset; /* of the function pointer in the table that dl_load() fills */
};

#define DL_SYMBOL(T, F)            \
	{                          \
#F, offsetof(T, F) \
	}

/** Load @soname and fill @table. @purpose completes the sentence "… is needed for". The handle stays open for the process's life. -ENOENT. */
int dl_load(const char *soname, const struct dl_symbol *symbols, void *table, const char *purpose,
	    struct hako_error *err);

#endif
