/* SPDX-License-Identifier: GPL-2.0-only */
/* hako io, also called as qemu-io: its arguments, scripts, and what commands print. */
#include "io.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "vmm/vm.h"

struct io_args {
	char **commands, **object;
	char *format, *cache, *discard, *trace;
	bool image_opts, read_only, snapshot, nocache, copy_on_read, misalign, native, force_share;
	bool help, version;
	int aio;
};

static const char *const aio_names[] = {"threads", "native", "io_uring", NULL};

#define T struct io_args
static const struct option io_options[] = {
	OPT_LIST("c|cmd", T, commands,
		 "execute this command; else commands come from standard input"),
	OPT_STRING("f|format", T, format, NULL, "the image's format; else it is found out"),
	OPT_BOOL("r|read-only", T, read_only, "off", "open for reading only"),
	OPT_BOOL("n|nocache", T, nocache, "off", "as -t none"),
	OPT_STRING("t|cache", T, cache, "writeback",
		   "cache mode: none, writeback, writethrough, directsync, unsafe"),
	OPT_STRING("d|discard", T, discard, "unmap", "discards: ignore (off) or unmap (on)"),
	OPT_BOOL("U|force-share", T, force_share, "off",
		 "read even if another program writes to it"),
	OPT_BOOL("m|misalign", T, misalign, "off", "use buffers that are not aligned"),
	OPT_BOOL("image-opts", T, image_opts, "off", "the file's name is options of a disk node"),
	OPT_ENUM("i|aio", T, aio, "io_uring", aio_names, "accepted for compatibility"),
	OPT_BOOL("k|native-aio", T, native, "off", "accepted for compatibility"),
	OPT_BOOL("s|snapshot", T, snapshot, "off", "not supported"),
	OPT_BOOL("C|copy-on-read", T, copy_on_read, "off", "not supported"),
	OPT_STRING("T|trace", T, trace, NULL, "accepted for compatibility"),
	OPT_LIST("object", T, object, "not supported: there are no encrypted images"),
	OPT_BOOL("h|help", T, help, "off", "show this"),
	OPT_BOOL("V|version", T, version, "off", "show the version"),
	OPT_END,
};
#undef T

/* --- output ------------------------------------------------------------------------------------- */

const char *io_size_str(double value, char buf[64])
{
	static const char *const units[] = {" bytes", " KiB", " MiB", " GiB",
					    " TiB",   " PiB", " EiB"};
	size_t i = 0;
	char *zeroes;

	for (; value >= 1024 && i + 1 < ARRAY_SIZE(units); i++)
		value /= 1024;
	snprintf(buf, 48, i ? "%.3f" : "%f", value);
	zeroes = strstr(buf, ".000");
	if (zeroes)
		*zeroes = 0;
	strcat(buf, units[i]);
	return buf;
}

static void time_str(uint64_t ns, bool fixed, char buf[32])
{
	unsigned int hundredths = ns % NSEC_PER_SEC / (NSEC_PER_SEC / 100);
	uint64_t s = ns / NSEC_PER_SEC;

	if (fixed || s >= 3600)
		snprintf(buf, 32, "%u:%02u:%02u.%02u", (unsigned int)(s / 3600),
			 (unsigned int)(s / 60 % 60), (unsigned int)(s % 60), hundredths);
	else if (s >= 60)
		snprintf(buf, 32, "%02u:%02u.%02u", (unsigned int)(s / 60), (unsigned int)(s % 60),
			 hundredths);
	else
		snprintf(buf, 32, "%02u.%02u sec", (unsigned int)s, hundredths);
}

void io_report(const char *what, uint64_t ns, uint64_t offset, uint64_t count, uint64_t total,
	       unsigned int ops, bool machine)
{
	double seconds = MAX((double)ns, 1.0) / NSEC_PER_SEC;
	char time[32], bytes[64], rate[64];

	time_str(ns, machine, time);
	if (machine) {
		printf("%llu,%u,%s,%.3f,%.3f\n", (unsigned long long)total, ops, time,
		       (double)total / seconds, ops / seconds);
		return;
	}
	printf("%s %llu/%llu bytes at offset %lld\n", what, (unsigned long long)total,
	       (unsigned long long)count, (long long)offset);
	printf("%s, %u ops; %s (%s/sec and %.4f ops/sec)\n", io_size_str((double)total, bytes), ops,
	       time, io_size_str((double)total / seconds, rate), ops / seconds);
}

int io_fail(const struct io *io, int code, const struct hako_error *err)
{
	fflush(stdout);
	fprintf(stderr, "%s: %s\n", io->program, err ? err->message : strerror(-code));
	return code;
}

/* --- numbers ------------------------------------------------------------------------------------ */

int io_parse_number(const char *text, uint64_t *value)
{
	int r = parse_size(text, 1, value);

	if (r == 0 && *value > INT64_MAX)
		r = -ERANGE;
	if (r == -ERANGE)
		printf("Parsing error: argument too large -- %s\n", text);
	else if (r)
		printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n",
		       text);
	return r;
}

int io_parse_pattern(const char *text, uint8_t *pattern)
{
	uint64_t v;

	if (parse_uint(text, &v) || v > 255) {
		printf("%s is not a valid pattern byte\n", text);
		return -EINVAL;
	}
	*pattern = v;
	return 0;
}

/* --- commands ----------------------------------------------------------------------------------- */

const struct io_command *io_find(const char *name)
{
	const struct io_command *const tables[] = {io_rw_commands, io_commands};

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		for (const struct io_command *c = tables[i]; c->name; c++)
			if (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name)))
				return c;
	return NULL;
}

int io_usage(const struct io_command *c)
{
	printf("%s %s -- %s\n", c->name, c->arguments, c->help);
	return -EINVAL;
}

static int bad_count(const struct io_command *c, int n)
{
	fflush(stdout);
	fprintf(stderr, "bad argument count %d to %s, expected ", n, c->name);
	if (c->max < 0)
		fprintf(stderr, "at least %d arguments\n", c->min);
	else if (c->min == c->max)
		fprintf(stderr, "%d arguments\n", c->min);
	else
		fprintf(stderr, "between %d and %d arguments\n", c->min, c->max);
	return -EINVAL;
}

static int execute(struct io *io, const char *line)
{
	char *words[IO_MAX_WORDS], *text = strdup(line);
	int n = text ? args_split(text, words, IO_MAX_WORDS) : -ENOMEM, r;
	const struct io_command *c;

	io_reap(io, false);
	if (n <= 0) {
		if (n < 0)
			io_fail(io, n, NULL);
		free(text);
		return n;
	}
	c = io_find(words[0]);
	if (!c) {
		fflush(stdout);
		fprintf(stderr, "command \"%s\" not found\n", words[0]);
		r = -EINVAL;
	} else if (!c->no_file && !io->node) {
		fflush(stdout);
		fprintf(stderr, "no file open, try 'help open'\n");
		r = -EINVAL;
	} else if (n - 1 < c->min || (c->max >= 0 && n - 1 > c->max)) {
		r = bad_count(c, n - 1);
	} else {
		r = c->run(io, n, words);
	}
	fflush(stdout);
	free(text);
	return r;
}

static int run_script(struct io *io)
{
	size_t size = 0;
	char *line = NULL;
	int status = 0;

	while (!io->quit) {
		printf("%s> ", io->program);
		fflush(stdout);
		if (getline(&line, &size, stdin) < 0)
			break;
		if (execute(io, line) < 0)
			status = 1;
	}
	free(line);
	return status;
}

/* --- the program -------------------------------------------------------------------------------- */

int io_open(struct io *io, const struct image_open *open, struct hako_error *err)
{
	bool direct, no_flush;
	int r;

	if (io->node)
		return error_set(err, -EBUSY, "file open already, try 'help close'");
	r = image_cache_mode(open->cache ?: "writeback", &direct, &no_flush, &io->writethrough,
			     err);
	if (!r)
		r = image_open(open, &io->node, err);
	if (r)
		return error_prefix(err, "can't open device %s: Could not open '%s'",
				    open->name ?: open->options, open->name ?: open->options);
	return 0;
}

void io_close(struct io *io)
{
	if (!io->node)
		return;
	io_reap(io, true);
	image_close(io->vm, io->node);
	io->node = NULL;
}

static int help(const struct io *io)
{
	printf("%s [OPTION]... [FILE]\n\nRun commands on a disk image; they are qemu-io's.\n\n",
	       io->program);
	args_help(io_options);
	printf("\n\"%s -c help\" lists the commands.\n", io->program);
	return 0;
}

static void man_commands(const struct io_command *c)
{
	for (; c->name; c++) {
		printf(".TP\n.BI \"%s \" \"", c->name);
		args_man_text(c->arguments);
		printf("\"\n");
		args_man_text(c->help);
		printf(".\n");
		if (c->more) {
			printf(".RS\n.nf\n");
			args_man_text(c->more);
			printf(".fi\n.RE\n");
		}
	}
}

void cli_io_man(void)
{
	printf(".SH OPTIONS\n");
	args_man(io_options);
	printf(".SH COMMANDS\n");
	man_commands(io_rw_commands);
	man_commands(io_commands);
}

static int check_args(const struct io *io, const struct io_args *a, int n, struct hako_error *err)
{
	if (n > 1)
		return error_set(err, -EINVAL, "more than one file");
	if (a->snapshot)
		return error_set(err, -EOPNOTSUPP, "--snapshot is not supported");
	if (a->copy_on_read)
		return error_set(err, -EOPNOTSUPP, "--copy-on-read is not supported");
	if (a->object)
		return error_set(err, -EOPNOTSUPP,
				 "--object %s: encrypted images are not supported", a->object[0]);
	return 0;
}

static int run(struct io *io, const struct io_args *a, int n, char **operands,
	       struct hako_error *err)
{
	const char *name = n ? operands[0] : NULL;
	struct image_open open = {
		.name = a->image_opts ? NULL : name,
		.options = a->image_opts ? name : NULL,
		.format = a->format,
		.cache = a->nocache ? "none" : a->cache,
		.write = !a->read_only,
		.force_share = a->force_share,
		.unmap = strcmp(a->discard, "ignore") && strcmp(a->discard, "off"),
	};
	int status = 0, r;

	r = check_args(io, a, n, err) ?: vm_new_plain(&io->vm, 0, err);
	if (r)
		return r;
	open.vm = io->vm;
	io->misalign = a->misalign;
	r = name ? io_open(io, &open, err) : 0;
	if (r)
		return r;
	if (!a->commands)
		return run_script(io);
	for (int i = 0; a->commands[i] && !io->quit; i++)
		if (execute(io, a->commands[i]) < 0)
			status = 1;
	return status;
}

int cli_io(int argc, char **argv)
{
	struct io io = {.program = strstr(argv[0], "qemu-io") ? "qemu-io" : "hako io"};
	struct io_args a = {0};
	struct hako_error err;
	int n, status;

	io.last_done = &io.done;
	pthread_mutex_init(&io.lock, NULL);
	pthread_cond_init(&io.changed, NULL);
	n = args_parse(io_options, &a, argc, argv, &err);
	if (n < 0) {
		io_fail(&io, n, &err);
		fprintf(stderr, "Try '%s --help' for more information\n", io.program);
		status = 1;
	} else if (a.help) {
		status = help(&io);
	} else if (a.version) {
		printf("%s version %s\n", io.program, hako_version());
		status = 0;
	} else {
		status = run(&io, &a, n, argv + 1, &err);
		if (status < 0) {
			io_fail(&io, status, &err);
			status = 1;
		}
		io_close(&io);
	}
	if (io.vm)
		vm_free_plain(io.vm);
	args_free(io_options, &a);
	return status;
}
