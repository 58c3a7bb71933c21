/* SPDX-License-Identifier: GPL-2.0-only */
/* hako help: all of it comes out of the tables of options and classes. */
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86/cpu_model.h"
#include "args.h"
#include "cli.h"
#include "vmm/config.h"
#include "vmm/object.h"

static const struct {
	const char *name, *title;
} kinds[CLASS_KINDS] = {
	[CLASS_MACHINE] = {"machine", "Boards, for --machine"},
	[CLASS_DEVICE] = {"device", "Devices, for --device"},
	[CLASS_BLOCKDEV] = {"blockdev", "Disk nodes, for --blockdev and --disk"},
	[CLASS_NETDEV] = {"netdev", "Networks, for --netdev and --net"},
	[CLASS_CHARDEV] = {"chardev", "Character backends, for --chardev and --console"},
	[CLASS_FSDEV] = {"fsdev", "Shared directories, for --fsdev"},
	[CLASS_OBJECT] = {"object", "What others share, for --object"},
};

#define LEFT_WIDTH 28

static void print_type(const struct option *o, char *buf, size_t size)
{
	size_t len = 0;

	switch (o->type) {
	case OPTION_BOOL:
		snprintf(buf, size, "on|off");
		break;
	case OPTION_ONOFFAUTO:
		snprintf(buf, size, "auto|on|off");
		break;
	case OPTION_UINT:
		snprintf(buf, size, "NUMBER");
		break;
	case OPTION_SIZE:
		snprintf(buf, size, "SIZE");
		break;
	case OPTION_MAC:
		snprintf(buf, size, "MAC");
		break;
	case OPTION_NODE:
		snprintf(buf, size, "NODE");
		break;
	case OPTION_TREE:
	case OPTION_STRING:
	case OPTION_LIST:
		snprintf(buf, size, "TEXT");
		break;
	case OPTION_ENUM:
		for (int i = 0; o->values[i] && len < size; i++)
			len += snprintf(buf + len, size - len, "%s%s", i ? "|" : "", o->values[i]);
	}
}

/* What stands around the type: on the command line a switch takes a value behind = only. */
static const char *before_type(const struct option *o, const char *dashes)
{
	return !*dashes ? "=" : o->type == OPTION_BOOL ? "[=" : " ";
}

static const char *after_type(const struct option *o, const char *dashes)
{
	return *dashes && o->type == OPTION_BOOL ? "]" : "";
}

/* Behind the help. Where that has a word about the default, the value only stands for it. */
static void print_remarks(const struct option *o)
{
	if (o->required)
		printf(" (required)");
	else if (o->def && *o->def && strcmp(o->def, "off") && !strstr(o->help, "default"))
		printf(" (default %s)", o->def);
	if (o->type == OPTION_LIST)
		printf(" (may be repeated)");
}

void cli_print_options(const struct option *table, const char *dashes)
{
	for (; table && table->name; table++) {
		char left[80], type[48];

		print_type(table, type, sizeof(type));
		snprintf(left, sizeof(left), "%s%s%s%s%s", dashes, table->name,
			 before_type(table, dashes), type, after_type(table, dashes));
		if (strlen(left) > LEFT_WIDTH)
			printf("  %s\n  %-*s %s", left, LEFT_WIDTH, "", table->help);
		else
			printf("  %-*s %s", LEFT_WIDTH, left, table->help);
		print_remarks(table);
		putchar('\n');
	}
}

static int help_kind(enum class_kind kind)
{
	printf("%s:\n\n", kinds[kind].title);
	class_for_each(pos) {
		if ((*pos)->kind == kind && !(*pos)->internal)
			printf("  %-24s %s\n", (*pos)->name, (*pos)->help);
	}
	printf("\n\"hako help %s NAME\" lists the options of one.\n", kinds[kind].name);
	return 0;
}

static int help_class(enum class_kind kind, const char *name)
{
	static const char *const suffixes[] = {"-pci", "-device"};
	const struct class *cls = class_find(kind, name);
	struct hako_error err;

	for (size_t i = 0; !cls && i < ARRAY_SIZE(suffixes); i++) {
		char full[64];

		snprintf(full, sizeof(full), "%.50s%s", name, suffixes[i]);
		cls = class_find(kind, full);
	}
	if (!cls && class_get(kind, name, &cls, &err))
		return cli_fail(&err);
	printf("%s: %s\n\nOptions:\n\n", cls->name, cls->help);
	printf("  %-*s %s\n", LEFT_WIDTH, "id=TEXT", "name, unique among its kind");
	cli_print_options(cls->bus_options, "");
	cli_print_options(cls->options, "");
	return 0;
}

static int help_run(void)
{
	printf("hako run [IMAGE] [--OPTION VALUE]...\n\n"
	       "Run a virtual machine until it powers off. IMAGE is its first disk. On a terminal,\n"
	       "Ctrl-a x ends it, Ctrl-a h lists the other keys. Without --net it has a user-mode\n"
	       "network, without --console its serial line is on standard input and output.\n\n"
	       "Options:\n\n");
	cli_print_options(vm_config_options, "--");
	cli_print_options(cli_run_options, "--");
	printf("\nExit status: 0 when the guest powered off (or reset itself, with --no-reboot),\n"
	       "1 after an error, another if the guest wrote it to isa-debug-exit.\n");
	return 0;
}

static int help_exec(void)
{
	printf("hako exec [--OPTION VALUE]... [--] COMMAND...\n\n"
	       "Run a command in a guest over the host's own files, in the current directory, with this\n"
	       "environment, input, output and terminal. What the guest writes is lost, but for the\n"
	       "directories that --rw names. The command is root there, with the rights of the user here.\n"
	       "On a terminal, Ctrl-] typed three times ends the guest.\n\n"
	       "Options (and those of \"hako run\", but for initrd, console and no-reboot):\n\n");
	cli_print_options(cli_exec_options, "--");
	printf("\nExit status: the command's; 128 and a signal's number if that ended it; 125 after an\n"
	       "error of hako or its guest, 126 if the command cannot be executed, 127 if there is none.\n");
	return 0;
}

static int help_test(void)
{
	printf("hako test [--OPTION VALUE]... FILE...\n\n"
	       "Boot each FILE, a kernel, in a virtual machine of its own, several at once, and print TAP.\n"
	       "A guest has passed if it writes 0 to isa-debug-exit (port 0xf4; 77: it is skipped), or, if it\n"
	       "ends in another way, by what its serial console says: TAP (the kernel's KUnit), or lines that\n"
	       "begin with PASS, FAIL and SKIP.\n\n"
	       "Options (and those of \"hako run\", but for kernel, console and no-reboot):\n\n");
	cli_print_options(cli_test_options, "--");
	printf("\nExit status: 0 if no guest failed, else 1.\n");
	return 0;
}

/* What measures has its own words. */
static int help_bench(void)
{
	char name[] = "bench", help[] = "--help";
	char *argv[] = {name, help, NULL};

	return cli_bench(2, argv);
}

static int help_all(void)
{
	printf("hako %s: a virtual machine monitor for KVM\n\nCommands:\n\n", hako_version());
	for (const struct cli_command *c = cli_commands; c->name; c++)
		printf("  hako %-10s %-32s %s\n", c->name, c->arguments, c->help);
	printf("\nhako help KIND lists the classes of a kind, hako help KIND CLASS its options:\n\n");
	for (int i = 0; i < CLASS_KINDS; i++)
		printf("  hako help %-12s %s\n", kinds[i].name, kinds[i].title);
	printf("\nhako help cpu lists CPU models and flags, hako help cpu MODEL the flags of one.\n");
	printf("hako help sandbox lists what --sandbox allows.\n");
	return 0;
}

/* --- the manual pages -------------------------------------------------------------------------- */

static void man_options(const struct option *table, const char *dashes)
{
	for (; table && table->name; table++) {
		char type[48];

		print_type(table, type, sizeof(type));
		printf(".TP\n.BI \"");
		args_man_text(dashes);
		args_man_text(table->name);
		printf("%s\" \"", before_type(table, dashes));
		args_man_text(type);
		printf("\" \"%s\"\n", after_type(table, dashes));
		args_man_text(table->help);
		print_remarks(table);
		printf(".\n");
	}
}

static int help_man(const char *page)
{
	if (page && !strcmp(page, "hako-img")) {
		cli_img_man();
		return 0;
	}
	if (page && !strcmp(page, "hako-io")) {
		cli_io_man();
		return 0;
	}
	printf(".SH OPTIONS OF HAKO RUN\n");
	man_options(vm_config_options, "--");
	man_options(cli_run_options, "--");
	printf(".SH OPTIONS OF \\-\\-CPU\nBehind the model's name; so are +FLAG, \\-FLAG and FLAG=on|off. Models and flags have QEMU's names;\n"
	       ".B hako help cpu\nlists them,\n.B hako help cpu\n.I MODEL\nthe flags of one.\n");
	man_options(cpu_model_options, "");
	printf(".SH OPTIONS OF HAKO EXEC\nThose of\n.B hako run\nbut for initrd, console and no\\-reboot, and:\n");
	man_options(cli_exec_options, "--");
	printf(".SH OPTIONS OF HAKO TEST\nThose of\n.B hako run\nbut for kernel, console and no\\-reboot, and:\n");
	man_options(cli_test_options, "--");
	for (int kind = 0; kind < CLASS_KINDS; kind++) {
		printf(".SH CLASSES: %s\n%s.\n", kinds[kind].name, kinds[kind].title);
		class_for_each(pos) {
			const struct class *c = *pos;

			if (c->kind != kind || c->internal)
				continue;
			printf(".SS %s\n", c->name);
			args_man_text(c->help);
			printf(".\n");
			man_options(c->bus_options, "");
			man_options(c->options, "");
		}
	}
	return 0;
}

int cli_help(int argc, char **argv)
{
	const char *topic = argc > 1 ? argv[1] : NULL;

	if (!topic)
		return help_all();
	if (!strcmp(topic, "run"))
		return help_run();
	if (!strcmp(topic, "exec"))
		return help_exec();
	if (!strcmp(topic, "test"))
		return help_test();
	if (!strcmp(topic, "bench"))
		return help_bench();
	if (!strcmp(topic, "cpu"))
		return cli_help_cpu(argc > 2 ? argv[2] : NULL);
	if (!strcmp(topic, "sandbox"))
		return cli_help_sandbox();
	if (!strcmp(topic, "man"))
		return help_man(argc > 2 ? argv[2] : NULL);
	for (int i = 0; i < CLASS_KINDS; i++)
		if (!strcmp(topic, kinds[i].name))
			return argc > 2 ? help_class(i, argv[2]) : help_kind(i);
	for (const struct cli_command *c = cli_commands; c->name; c++) {
		if (!strcmp(topic, c->name)) {
			printf("hako %s%s%s\n\n%s.\n", c->name, *c->arguments ? " " : "",
			       c->arguments, c->help);
			return 0;
		}
	}
	fprintf(stderr, "hako: help %s: no such topic (see \"hako help\")\n", topic);
	return 1;
}
