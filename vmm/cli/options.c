/* SPDX-License-Identifier: GPL-2.0-only */
/* The options that sub-commands have of their own. */
#include "cli.h"

const struct option *cli_find_option(const struct option *table, const char *name)
{
	for (; table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}
