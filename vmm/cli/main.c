/* SPDX-License-Identifier: GPL-2.0-only */
#include <stdio.h>

#include "cli.h"

const struct cli_command cli_commands[] = {
	{"run", "[IMAGE] [--OPTION VALUE]...", "run a virtual machine", cli_run},
	{"img", "COMMAND [OPTION]... IMAGE...", "create, examine, convert disk images", cli_img},
	{"io", "[OPTION]... [IMAGE]", "read and write disk images by commands", cli_io},
	{"exec", "[--OPTION VALUE]... [--] COMMAND...",
	 "run a command in a guest over the host's own files", cli_exec},
	{"test", "[--OPTION VALUE]... FILE...", "run kernels that test something, with TAP output",
	 cli_test},
	{"doctor", "", "check what this host offers, and what could be better", cli_doctor},
	{"bench", "[NAME | OPTION]...", "measure speed and size, beside other programs", cli_bench},
	{"help", "[COMMAND | CLASS-KIND [CLASS]]", "explain commands, devices and their options",
	 cli_help},
	{"completion", "[bash]", "print a completion script for the shell", cli_completion},
	{NULL},
};

int cli_fail(const struct hako_error *err)
{
	fprintf(stderr, "hako: %s\n", err->message);
	return 1;
}

static int unknown_command(const char *name)
{
	const char *names[ARRAY_SIZE(cli_commands)];
	const char *nearest;
	size_t n = 0;

	for (; cli_commands[n].name; n++)
		names[n] = cli_commands[n].name;
	names[n] = NULL;
	nearest = str_nearest(name, names);
	if (nearest)
		fprintf(stderr, "hako: %s: no such command (did you mean %s?)\n", name, nearest);
	else
		fprintf(stderr, "hako: %s: no such command (see \"hako help\")\n", name);
	return 1;
}

/* Linked to one of QEMU's names, it takes that program's arguments. */
static const struct cli_command *called_as(const char *path)
{
	static const struct cli_command names[] = {
		{.name = "qemu-img", .run = cli_img},
		{.name = "qemu-io", .run = cli_io},
	};
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(name, names[i].name))
			return &names[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct cli_command *as = argc ? called_as(argv[0]) : NULL;

	if (as)
		return as->run(argc, argv);
	if (argc < 2) {
		cli_help(1, argv);
		return 1;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "version")) {
		printf("hako %s\n", hako_version());
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return cli_help(1, argv);
	for (const struct cli_command *c = cli_commands; c->name; c++)
		if (!strcmp(argv[1], c->name))
			return c->run(argc - 1, argv + 1);
	return unknown_command(argv[1]);
}
