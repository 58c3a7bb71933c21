/* SPDX-License-Identifier: GPL-2.0-only */
/* hako io: the commands that do not read or write. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "devices/block/image.h"
#include "img_info.h"
#include "io.h"
#include "vmm/vm.h"

/* --- open, close ---------------------------------------------------------------------------------- */

static int cmd_open(struct io *io, int argc, char **argv)
{
	struct image_open open = {.vm = io->vm, .write = true};
	const char *const unsupported = "-s and -C are not supported";
	struct hako_error err;
	int c;

	optind = 0;
	while ((c = getopt(argc, argv, "snCro:ki:t:d:U")) >= 0) {
		switch (c) {
		case 's':
		case 'C':
			error_set(&err, -EOPNOTSUPP, "%s", unsupported);
			return io_fail(io, -EOPNOTSUPP, &err);
		case 'n':
			open.cache = "none";
			break;
		case 'r':
			open.write = false;
			break;
		case 'o':
			open.options = optarg;
			break;
		case 'k':
		case 'i':
			break;
		case 't':
			open.cache = optarg;
			break;
		case 'd':
			open.unmap = strcmp(optarg, "ignore") && strcmp(optarg, "off");
			break;
		case 'U':
			open.force_share = true;
			break;
		default:
			return io_usage(io_find("open"));
		}
	}
	if (optind < argc - 1 || (optind == argc && !open.options))
		return io_usage(io_find("open"));
	if (optind == argc - 1)
		open.name = argv[optind];
	c = io_open(io, &open, &err);
	return c ? io_fail(io, c, &err) : 0;
}

static int cmd_close(struct io *io, int argc, char **argv)
{
	io_close(io);
	return 0;
}

static int cmd_reopen(struct io *io, int argc, char **argv)
{
	bool direct, no_flush, writethrough, read = false, write = false;
	struct hako_error err;
	int c, r = 0;

	optind = 0;
	while ((c = getopt(argc, argv, "c:o:rw")) >= 0 && !r) {
		switch (c) {
		case 'c':
			r = image_cache_mode(optarg, &direct, &no_flush, &writethrough, &err);
			if (!r)
				r = error_set(&err, -EOPNOTSUPP,
					      "reopen: the cache mode cannot be changed");
			break;
		case 'o':
			r = error_set(&err, -EOPNOTSUPP, "reopen: options cannot be changed");
			break;
		case 'r':
			read = true;
			break;
		case 'w':
			write = true;
			break;
		default:
			return io_usage(io_find("reopen"));
		}
	}
	if (!r && read && write)
		r = error_set(&err, -EINVAL, "Only one -r/-w option may be given");
	if (!r && optind != argc)
		return io_usage(io_find("reopen"));
	io_reap(io, true);
	if (!r && (read || write) && read != io->node->read_only)
		r = image_set_writable(io->vm, io->node, write, &err);
	return r ? io_fail(io, r, &err) : 0;
}

/* --- the whole image ------------------------------------------------------------------------------ */

static int do_flush(void *arg)
{
	return block_flush(arg);
}

static int cmd_flush(struct io *io, int argc, char **argv)
{
	int r = co_run(io->vm->io_loop, do_flush, io->node);

	return r < 0 ? io_fail(io, r, NULL) : 0;
}

struct resize {
	struct block_node *node;
	uint64_t length;
	enum block_prealloc prealloc;
	struct hako_error err;
};

static int do_resize(void *arg)
{
	struct resize *r = arg;

	return block_resize(r->node, r->length, r->prealloc, &r->err);
}

static int cmd_truncate(struct io *io, int argc, char **argv)
{
	struct resize s = {.node = io->node};
	int c, r;

	optind = 0;
	while ((c = getopt(argc, argv, "m:")) >= 0) {
		if (c != 'm')
			return io_usage(io_find("truncate"));
		for (s.prealloc = 0; image_prealloc_names[s.prealloc]; s.prealloc++)
			if (!strcmp(image_prealloc_names[s.prealloc], optarg))
				break;
		if (!image_prealloc_names[s.prealloc]) {
			error_set(&s.err, -EINVAL, "%s: no such preallocation mode", optarg);
			return io_fail(io, -EINVAL, &s.err);
		}
	}
	if (optind != argc - 1)
		return io_usage(io_find("truncate"));
	r = io_parse_number(argv[optind], &s.length);
	if (r)
		return r;
	io_reap(io, true);
	r = co_run(io->vm->io_loop, do_resize, &s);
	return r < 0 ? io_fail(io, r, &s.err) : 0;
}

static int cmd_length(struct io *io, int argc, char **argv)
{
	char size[64];

	printf("%s\n", io_size_str((double)io->node->length, size));
	return 0;
}

static int print_specific(void *arg)
{
	img_info_specific(&(struct img_json){.human = true, .level = 1}, arg);
	return 0;
}

static int cmd_info(struct io *io, int argc, char **argv)
{
	struct qcow2 *q = qcow2_is_node(io->node) ? qcow2_of(io->node) : NULL;
	uint64_t vmstate = 0;
	char cluster[64], state[64];

	/* VM state begins where the L1 table for the disk ends. */
	if (q) {
		uint64_t bytes = 1ull << (q->cluster_bits + q->l2_bits);

		vmstate = (io->node->length + bytes - 1) / bytes * bytes;
	}
	printf("format name: %s\ncluster size: %s\nvm state offset: %s\n",
	       img_format_name(io->node), io_size_str(q ? (double)q->cluster_size : 0, cluster),
	       io_size_str((double)vmstate, state));
	if (q) {
		printf("Format specific information:\n");
		co_run(io->vm->io_loop, print_specific, q);
	}
	return 0;
}

/* --- what is allocated ---------------------------------------------------------------------------- */

struct alloc {
	struct block_node *node;
	uint64_t offset, bytes, found;
	bool map;
};

static void print_extent(const struct alloc *a, uint64_t start, uint64_t bytes, bool allocated)
{
	char s1[64], s2[64];

	printf("%s (0x%llx) bytes %s at offset %s (0x%llx)\n", io_size_str((double)bytes, s1),
	       (unsigned long long)bytes, allocated ? "    allocated" : "not allocated",
	       io_size_str((double)start, s2), (unsigned long long)start);
}

static int do_alloc(void *arg)
{
	struct alloc *a = arg;
	uint64_t end = a->offset + a->bytes, start = a->offset;
	struct block_status st;
	bool before = false;
	int r;

	for (uint64_t at = a->offset; at < end; at += st.bytes) {
		bool allocated;

		r = block_status(a->node, at, end - at, &st);
		if (r < 0)
			return r;
		st.bytes = MIN(st.bytes, end - at);
		if (!st.bytes)
			break;
		allocated = st.flags & BLOCK_STATUS_ALLOCATED;
		a->found += allocated ? st.bytes : 0;
		if (a->map && at > start && allocated != before) {
			print_extent(a, start, at - start, before);
			start = at;
		}
		before = allocated;
	}
	if (a->map && end > start)
		print_extent(a, start, end - start, before);
	return 0;
}

static int cmd_alloc(struct io *io, int argc, char **argv)
{
	struct alloc a = {.node = io->node, .bytes = 512};
	uint64_t start;
	char at[64];
	int r = io_parse_number(argv[1], &a.offset);

	if (!r && argc == 3)
		r = io_parse_number(argv[2], &a.bytes);
	if (r)
		return r;
	start = a.offset;
	a.offset = MIN(a.offset, a.node->length);
	a.bytes = MIN(a.bytes, a.node->length - a.offset);
	r = co_run(io->vm->io_loop, do_alloc, &a);
	if (r < 0) {
		printf("is_allocated failed: %s\n", strerror(-r));
		return r;
	}
	printf("%llu/%llu bytes allocated at offset %s\n", (unsigned long long)a.found,
	       (unsigned long long)a.bytes, io_size_str((double)start, at));
	return 0;
}

static int cmd_map(struct io *io, int argc, char **argv)
{
	struct alloc a = {.node = io->node, .bytes = io->node->length, .map = true};
	int r = co_run(io->vm->io_loop, do_alloc, &a);

	if (r < 0)
		printf("Failed to query allocation status: %s\n", strerror(-r));
	return r;
}

/* --- others --------------------------------------------------------------------------------------- */

static int cmd_sleep(struct io *io, int argc, char **argv)
{
	uint64_t ms;
	struct timespec ts;

	if (parse_uint(argv[1], &ms) || ms > 24 * 3600 * 1000) {
		printf("%s is not a valid number\n", argv[1]);
		return -EINVAL;
	}
	ts = (struct timespec){ms / 1000, ms % 1000 * 1000000};
	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
	return 0;
}

static int cmd_sigraise(struct io *io, int argc, char **argv)
{
	uint64_t sig;

	if (io_parse_number(argv[1], &sig))
		return -EINVAL;
	if (sig > 64) {
		printf("signal argument '%s' is too large to be a valid signal number\n", argv[1]);
		return -EINVAL;
	}
	fflush(stdout);
	raise((int)sig);
	return 0;
}

static int cmd_abort(struct io *io, int argc, char **argv)
{
	const struct rlimit none = {0};

	/* The user asked for it; a core file is of no use to him. */
	setrlimit(RLIMIT_CORE, &none);
	fflush(stdout);
	signal(SIGABRT, SIG_DFL);
	raise(SIGABRT);
	return 0;
}

static int no_breakpoints(struct io *io, int argc, char **argv)
{
	fflush(stdout);
	fprintf(stderr, "%s: breakpoints are not supported\n", argv[0]);
	return -EOPNOTSUPP;
}

static int cmd_quit(struct io *io, int argc, char **argv)
{
	io->quit = true;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct io_command *const *)a)->name,
		      (*(const struct io_command *const *)b)->name);
}

static void help_all(void)
{
	const struct io_command *all[64];
	size_t n = 0;

	for (const struct io_command *c = io_rw_commands; c->name; c++)
		all[n++] = c;
	for (const struct io_command *c = io_commands; c->name; c++)
		all[n++] = c;
	qsort(all, n, sizeof(all[0]), by_name);
	for (size_t i = 0; i < n; i++)
		printf("%s %s%s-- %s\n", all[i]->name, all[i]->arguments,
		       *all[i]->arguments ? " " : "", all[i]->help);
	printf("\nUse 'help commandname' for extended help.\n");
}

static int cmd_help(struct io *io, int argc, char **argv)
{
	const struct io_command *c;

	if (argc == 1) {
		help_all();
		return 0;
	}
	c = io_find(argv[1]);
	if (!c) {
		printf("command %s not found\n", argv[1]);
		return -EINVAL;
	}
	printf("%s %s%s-- %s\n", c->name, c->arguments, *c->arguments ? " " : "", c->help);
	if (c->more)
		printf("\n%s", c->more);
	return 0;
}

const struct io_command io_commands[] = {
	{"open", "o", "[-rnkU] [-t cache] [-d discard] [-o options] [path]",
	 "open the file specified by path",
	 "-r   for reading only\n"
	 "-n   as -t none\n"
	 "-U   even if another program writes to it\n"
	 "-t   cache mode: none, writeback, writethrough, directsync, unsafe\n"
	 "-d   discards: ignore (off) or unmap (on)\n"
	 "-o   options of the disk node, such as driver=raw\n"
	 "-k, -i   accepted\n",
	 1, -1, true, cmd_open},
	{"close", "c", "", "close the current open file", NULL, 0, 0, false, cmd_close},
	{"reopen", NULL, "[(-r|-w)]", "reopens an image for reading only, or for writing", NULL, 0,
	 -1, false, cmd_reopen},
	{"flush", "f", "", "flush all in-core file state to disk", NULL, 0, 0, false, cmd_flush},
	{"truncate", "t", "[-m prealloc_mode] off",
	 "truncates the current file at the given offset", NULL, 1, 3, false, cmd_truncate},
	{"length", "l", "", "gets the length of the current file", NULL, 0, 0, false, cmd_length},
	{"info", "i", "", "prints information about the current file", NULL, 0, 0, false, cmd_info},
	{"alloc", "a", "offset [count]", "checks if offset is allocated in the file", NULL, 1, 2,
	 false, cmd_alloc},
	{"map", NULL, "", "prints the allocated areas of a file", NULL, 0, 0, false, cmd_map},
	{"sleep", NULL, "ms", "waits for the given value in milliseconds", NULL, 1, 1, true,
	 cmd_sleep},
	{"sigraise", NULL, "signal", "raises a signal", NULL, 1, 1, true, cmd_sigraise},
	{"abort", NULL, "", "simulate a program crash using abort(3)", NULL, 0, 0, true, cmd_abort},
	{"break", NULL, "event tag", "not supported", NULL, 2, 2, false, no_breakpoints},
	{"remove_break", NULL, "tag", "not supported", NULL, 1, 1, false, no_breakpoints},
	{"resume", NULL, "tag", "not supported", NULL, 1, 1, false, no_breakpoints},
	{"wait_break", NULL, "tag", "not supported", NULL, 1, 1, false, no_breakpoints},
	{"quit", "q", "", "exit the program", NULL, 0, -1, true, cmd_quit},
	{"help", "?", "[command]", "help for one or all commands", NULL, 0, 1, true, cmd_help},
	{NULL},
};
