/* SPDX-License-Identifier: GPL-2.0-only */
/* Options on the command line: a sub-command's own, and those of a VM. */
#include <stdio.h>

#include "cli.h"
#include "vmm/config.h"

const struct option *cli_find_option(const struct option *table, const char *name)
{
	for (; table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

static int unknown(const struct option *own, const char *name, struct hako_error *err)
{
	const char *names[64];
	const char *nearest;
	size_t n = 0;

	for (const struct option *o = vm_config_options; o->name && n < 50; o++)
		names[n++] = o->name;
	for (const struct option *o = own; o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;
	nearest = str_nearest(name, names);
	if (nearest)
		return error_set(err, -EINVAL, "--%s: no such option (did you mean --%s?)", name,
				 nearest);
	return error_set(err, -EINVAL, "--%s: no such option (see \"hako help run\")", name);
}

int cli_parse_option(const struct option *own, int argc, char **argv,
		     int (*set)(void *opaque, const char *name, const char *value,
				struct hako_error *err),
		     void *opaque, struct hako_error *err)
{
	const char *value = strchr(argv[0], '=');
	const struct option *opt;
	char name[32];
	int r, used = 1;

	snprintf(name, sizeof(name), "%.*s", value ? (int)(value - argv[0] - 2) : 30, argv[0] + 2);
	opt = cli_find_option(own, name) ?: cli_find_option(vm_config_options, name);
	if (!opt)
		return unknown(own, name, err);
	if (value) {
		value++;
	} else if (opt->type == OPTION_BOOL) {
		value = "on";
	} else if (argc > 1) {
		value = argv[1];
		used = 2;
	} else {
		return error_set(err, -EINVAL, "--%s: a value is missing (%s)", name, opt->help);
	}
	r = set(opaque, name, value, err);
	return r ? r : used;
}
