/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img, also called as qemu-img: finds the sub-command, and what all of them share. */
#include "img.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli.h"
#include "vmm/object.h"

const struct img_command *const img_commands[] = {
	&img_amend,   &img_bench,  &img_bitmap,	  &img_check, &img_commit, &img_compare,
	&img_convert, &img_create, &img_dd,	  &img_info,  &img_map,	   &img_measure,
	&img_rebase,  &img_resize, &img_snapshot, NULL,
};

const char *const img_output_names[] = {"human", "json", NULL};

/* --- messages ------------------------------------------------------------------------------------- */

int img_fail(const struct img *img, const struct hako_error *err)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", img->program, err->message);
	return 1;
}

static void message(const struct img *img, const char *kind, const char *fmt, va_list ap)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s", img->program, kind);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
}

int img_error(const struct img *img, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(img, "", fmt, ap);
	va_end(ap);
	return 1;
}

void img_warn(const struct img *img, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(img, "warning: ", fmt, ap);
	va_end(ap);
}

int img_usage(const struct img *img, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	message(img, "", fmt, ap);
	va_end(ap);
	fprintf(stderr, "Try '%s %s --help' for more information\n", img->program,
		img->command ? img->command->name : "");
	return 1;
}

/* --- options ---------------------------------------------------------------------------------- */

int img_check_objects(const struct img *img, char *const *objects)
{
	if (!objects || !objects[0])
		return 0;
	return img_error(
		img, "--object %s: objects have no use here: encrypted images are not supported",
		objects[0]);
}

char *img_join(char *const *list)
{
	size_t len = 0;
	char *text, *p;

	for (int i = 0; list && list[i]; i++)
		len += strlen(list[i]) + 1;
	text = len ? malloc(len) : NULL;
	if (!text)
		return NULL;
	p = text;
	for (int i = 0; list[i]; i++) {
		size_t n = strlen(list[i]);

		if (i)
			*p++ = ',';
		memcpy(p, list[i], n);
		p += n;
	}
	*p = 0;
	return text;
}

/* --- help ----------------------------------------------------------------------------------------- */

static int help_all(const struct img *img)
{
	printf("%s %s: creates, examines, converts disk images; takes qemu-img's arguments\n\n",
	       img->program, hako_version());
	for (int i = 0; img_commands[i]; i++)
		printf("  %-10s %s\n", img_commands[i]->name, img_commands[i]->help);
	printf("\n\"%s COMMAND --help\" lists the options of one.\n\nSupported formats:",
	       img->program);
	class_for_each(pos)
		if ((*pos)->kind == CLASS_BLOCKDEV && !(*pos)->internal)
			printf(" %s", (*pos)->name);
	putchar('\n');
	return 0;
}

static int help_command(const struct img *img)
{
	const struct img_command *c = img->command;

	printf("%s %s [OPTION]... %s\n\n%s.\n\n", img->program, c->name, c->arguments, c->help);
	args_help(c->options);
	return 0;
}

void cli_img_man(void)
{
	printf(".SH COMMANDS\n");
	for (int i = 0; img_commands[i]; i++) {
		const struct img_command *c = img_commands[i];

		printf(".SS %s \\fR[\\fIOPTION\\fR]... ", c->name);
		args_man_text(c->arguments);
		putchar('\n');
		args_man_text(c->help);
		printf(".\n");
		args_man(c->options);
	}
}

/* Asked for as an option, not as another one's value: that cannot be told apart before parsing, and is told apart by nobody who asks. */
static bool wants_help(int argc, char **argv)
{
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++)
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
			return true;
	return false;
}

/* --- the program ---------------------------------------------------------------------------------- */

static int run_command(struct img *img, int argc, char **argv)
{
	const struct img_command *c = img->command;
	struct hako_error err;
	int n, status;

	img->args = calloc(1, c->args_size);
	img->given = calloc(argc + 1, sizeof(*img->given));
	if (!img->args || !img->given) {
		free(img->args);
		return img_error(img, "not enough memory");
	}
	memcpy(img->given, argv, argc * sizeof(*argv));
	n = args_parse(c->options, img->args, argc, argv, &err);
	if (n < 0) {
		status = img_usage(img, "%s", err.message);
	} else {
		img->argc = n;
		img->argv = argv + 1;
		status = c->run(img);
	}
	img_close_all(img);
	args_free(c->options, img->args);
	free(img->args);
	free(img->given);
	return status;
}

static int unknown_command(const struct img *img, const char *name)
{
	const char *names[32];
	const char *nearest;
	size_t n = 0;

	for (; img_commands[n]; n++)
		names[n] = img_commands[n]->name;
	names[n] = NULL;
	nearest = str_nearest(name, names);
	if (nearest)
		return img_usage(img, "Command not found: %s (did you mean %s?)", name, nearest);
	return img_usage(img, "Command not found: %s", name);
}

int cli_img(int argc, char **argv)
{
	struct img img = {.program = strstr(argv[0], "qemu-img") ? "qemu-img" : "hako img"};

	if (argc < 2)
		return img_usage(&img, "Not enough arguments");
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("%s version %s\n", img.program, hako_version());
		return 0;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help"))
		return help_all(&img);
	for (int i = 0; img_commands[i]; i++)
		if (!strcmp(argv[1], img_commands[i]->name))
			img.command = img_commands[i];
	if (!img.command)
		return unknown_command(&img, argv[1]);
	if (wants_help(argc - 1, argv + 1))
		return help_command(&img);
	return run_command(&img, argc - 1, argv + 1);
}
