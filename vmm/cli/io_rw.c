/* SPDX-License-Identifier: GPL-2.0-only */
/* hako io: the commands that read and write. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/block/block_co.h"
#include "devices/block/copy_pack.h"
#include "io.h"
#include "vmm/vm.h"

#define MAX_IOV 1024

enum rw_kind {
	RW_READ,
	RW_WRITE,
};

/* A command and what it works with. */
struct rw {
	const struct io_command *command;
	enum rw_kind kind;
	bool vmstate, compressed, machine, fua, no_fallback, invalid, quiet, unmap, verbose, zeroes;
	bool have_pattern, have_start, have_length;
	uint8_t pattern;
	const char *source; /* -s of write */
	uint64_t verify_start, verify_bytes;
	uint64_t offset, bytes;
	uint8_t *memory, *buf; /* @buf is in @memory */
	struct iovec *iov;
	int niov;
	struct io *io;
	const char *failure; /* what an error calls it, if not by the command's name */
	int res;
};

struct io_async {
	struct io_async *next;
	struct rw rw;
	struct block_req req;
	uint64_t started, ended;
};

/* --- arguments ---------------------------------------------------------------------------------- */

static int take_option(struct rw *rw, int c)
{
	switch (c) {
	case 'a': /* of old versions */
	case 'p':
		return 0;
	case 'b':
		rw->vmstate = true;
		return 0;
	case 'c':
		rw->compressed = true;
		return 0;
	case 'C':
		rw->machine = true;
		return 0;
	case 'f':
		rw->fua = true;
		return 0;
	case 'i':
		rw->invalid = true;
		return 0;
	case 'l':
		rw->have_length = true;
		return io_parse_number(optarg, &rw->verify_bytes);
	case 'n':
		rw->no_fallback = true;
		return 0;
	case 'P':
		rw->have_pattern = true;
		return io_parse_pattern(optarg, &rw->pattern);
	case 'q':
		rw->quiet = true;
		return 0;
	case 's':
		if (rw->kind == RW_WRITE) {
			rw->source = optarg;
			return 0;
		}
		rw->have_start = true;
		return io_parse_number(optarg, &rw->verify_start);
	case 'u':
		rw->unmap = true;
		return 0;
	case 'v':
		rw->verbose = true;
		return 0;
	case 'z':
		rw->zeroes = true;
		return 0;
	}
	return io_usage(rw->command);
}

static int refuse(const char *text)
{
	printf("%s\n", text);
	return -EINVAL;
}

static int check_options(const struct rw *rw)
{
	if (rw->kind == RW_READ) {
		if ((rw->have_start || rw->have_length) && !rw->have_pattern)
			return io_usage(rw->command);
		return 0;
	}
	if (rw->vmstate && rw->zeroes)
		return refuse("-b and -z cannot be specified at the same time");
	if (rw->fua && (rw->vmstate || rw->compressed))
		return refuse("-f and -b or -c cannot be specified at the same time");
	if (rw->no_fallback && !rw->zeroes)
		return refuse("-n requires -z to be specified");
	if (rw->unmap && !rw->zeroes)
		return refuse("-u requires -z to be specified");
	if (rw->zeroes + rw->have_pattern + (rw->source != NULL) > 1)
		return refuse("Only one of -z, -P, and -s can be specified at the same time");
	return 0;
}

static int parse_options(struct rw *rw, const char *letters, int argc, char **argv)
{
	int c, r = 0;

	optind = 0; /* getopt() begins anew */
	while (!r && (c = getopt(argc, argv, letters)) >= 0)
		r = take_option(rw, c);
	return r ? r : check_options(rw);
}

static int parse_length(const struct rw *rw, const char *text, uint64_t *bytes)
{
	int r = io_parse_number(text, bytes);

	if (r)
		return r;
	if (*bytes > IO_MAX_BYTES && !rw->no_fallback) {
		printf("length cannot exceed %llu%s, given %s\n", (unsigned long long)IO_MAX_BYTES,
		       rw->kind == RW_WRITE ? " without -n" : "", text);
		return -EINVAL;
	}
	return 0;
}

/* --- buffers ------------------------------------------------------------------------------------ */

static int fill_from_file(struct rw *rw)
{
	FILE *f = fopen(rw->source, "re");
	size_t n;

	if (!f) {
		struct hako_error err;

		return io_fail(rw->io, -EINVAL,
			       (error_errno(&err, -errno, "%s", rw->source), &err));
	}
	n = fread(rw->buf, 1, rw->bytes, f);
	fclose(f);
	if (!n && rw->bytes) {
		struct hako_error err;

		return io_fail(rw->io, error_set(&err, -EINVAL, "%s: file is empty", rw->source),
			       &err);
	}
	/* As often as it fits. */
	for (size_t i = n; i < rw->bytes; i++)
		rw->buf[i] = rw->buf[i - n];
	return 0;
}

static int make_buffer(struct rw *rw)
{
	size_t extra = rw->io->misalign ? IO_MISALIGN : 0;
	uint8_t fill = rw->kind == RW_READ ? IO_FILL_FRESH : IO_FILL;

	if (rw->zeroes)
		return 0;
	rw->memory = aligned_alloc(PAGE_SIZE, ALIGN_UP(rw->bytes + extra + 1, PAGE_SIZE));
	if (!rw->memory)
		return io_fail(rw->io, -ENOMEM, NULL);
	rw->buf = rw->memory + extra;
	if (rw->kind == RW_WRITE && rw->have_pattern)
		fill = rw->pattern;
	memset(rw->buf, fill, rw->bytes);
	return rw->source ? fill_from_file(rw) : 0;
}

/* One buffer for each length. Sets bytes and iov. */
static int make_vector(struct rw *rw, int n, char **lengths)
{
	uint64_t len, at = 0;
	int r = 0;

	rw->iov = calloc(MAX(n, 1), sizeof(*rw->iov));
	if (!rw->iov)
		return io_fail(rw->io, -ENOMEM, NULL);
	for (rw->niov = 0; rw->niov < n; rw->niov++) {
		r = parse_length(rw, lengths[rw->niov], &len);
		if (r)
			return r;
		if (len > IO_MAX_BYTES - rw->bytes)
			return refuse("Argument list is too long");
		rw->iov[rw->niov].iov_len = len;
		rw->bytes += len;
	}
	r = make_buffer(rw);
	for (int i = 0; !r && i < n && rw->buf; i++) {
		rw->iov[i].iov_base = rw->buf + at;
		at += rw->iov[i].iov_len;
	}
	return r;
}

static void free_buffer(struct rw *rw)
{
	free(rw->memory);
	free(rw->iov);
}

static void dump(const struct rw *rw)
{
	for (uint64_t i = 0; i < rw->bytes; i += 16) {
		unsigned int n = MIN(rw->bytes - i, 16ull);

		printf("%08llx:  ", (unsigned long long)(rw->offset + i));
		for (unsigned int k = 0; k < n; k++)
			printf("%02x ", rw->buf[i + k]);
		putchar(' ');
		for (unsigned int k = 0; k < n; k++) {
			uint8_t c = rw->buf[i + k];

			putchar(c >= 0x20 && c < 0x7f ? c : '.');
		}
		putchar('\n');
	}
}

static int verify(const struct rw *rw)
{
	uint64_t start = rw->verify_start, bytes = rw->verify_bytes;

	if (!rw->have_length)
		bytes = rw->bytes - start;
	for (uint64_t i = 0; i < bytes; i++) {
		if (rw->buf[start + i] == rw->pattern)
			continue;
		printf("Pattern verification failed at offset %llu, %llu bytes\n",
		       (unsigned long long)(rw->offset + start), (unsigned long long)bytes);
		return -EINVAL;
	}
	return 0;
}

/* --- the requests ------------------------------------------------------------------------------- */

static int check_range(const struct rw *rw)
{
	uint64_t length = rw->io->node->length;

	return rw->offset > length || rw->bytes > length - rw->offset ? -EIO : 0;
}

static int write_compressed(struct rw *rw)
{
	struct block_node *node = rw->io->node;

	if (!qcow2_is_node(node))
		return -EOPNOTSUPP;
	return qcow2_write_compressed(qcow2_of(node), rw->offset, rw->buf, rw->bytes);
}

static uint32_t write_flags(const struct rw *rw)
{
	return (rw->fua || rw->io->writethrough ? BLOCK_FUA : 0) | (rw->unmap ? BLOCK_UNMAP : 0);
}

static int do_rw(void *arg)
{
	struct rw *rw = arg;
	struct block_node *node = rw->io->node;
	int r = check_range(rw);

	if (rw->vmstate)
		return -EOPNOTSUPP;
	if (r)
		return r;
	if (rw->kind == RW_READ)
		return block_preadv(node, rw->offset, rw->bytes, rw->iov, rw->niov);
	if (node->read_only)
		return -EROFS;
	if (rw->zeroes)
		return block_pzero(node, rw->offset, rw->bytes, write_flags(rw));
	if (rw->compressed)
		return write_compressed(rw);
	return block_pwritev(node, rw->offset, rw->bytes, rw->iov, rw->niov, write_flags(rw));
}

static int report(const struct rw *rw, uint64_t ns)
{
	int r = 0;

	if (rw->res < 0) {
		printf("%s failed: %s\n", rw->failure ?: rw->command->name, strerror(-rw->res));
		return rw->res;
	}
	if (rw->kind == RW_READ && rw->have_pattern)
		r = verify(rw);
	if (rw->quiet)
		return r;
	if (rw->verbose)
		dump(rw);
	io_report(rw->kind == RW_READ ? "read" : "wrote", ns, rw->offset, rw->bytes, rw->bytes, 1,
		  rw->machine);
	return r;
}

static int run_sync(struct rw *rw)
{
	uint64_t start = clock_now();

	rw->res = co_run(rw->io->vm->io_loop, do_rw, rw);
	return report(rw, clock_now() - start);
}

/* read and write have one length, readv and writev several. */
static int run_rw(struct io *io, enum rw_kind kind, const char *letters, bool vector, int argc,
		  char **argv)
{
	struct rw rw = {.command = io_find(argv[0]), .kind = kind, .io = io};
	int r = parse_options(&rw, letters, argc, argv), n;

	if (r)
		return r;
	n = argc - optind - 1;
	if (n < 1 || (!vector && n != 1))
		return io_usage(rw.command);
	r = io_parse_number(argv[optind], &rw.offset);
	if (!r)
		r = make_vector(&rw, n, argv + optind + 1);
	if (!r && rw.kind == RW_READ && rw.have_pattern &&
	    (rw.verify_start > rw.bytes || rw.verify_bytes > rw.bytes - rw.verify_start))
		r = refuse("pattern verification range exceeds end of read data");
	if (!r && kind == RW_WRITE && io->node->read_only)
		r = io_fail(io, -EROFS, &(struct hako_error){.message = "Block node is read-only"});
	if (!r)
		r = run_sync(&rw);
	free_buffer(&rw);
	return r;
}

static int cmd_read(struct io *io, int argc, char **argv)
{
	return run_rw(io, RW_READ, "abCl:pP:qs:v", false, argc, argv);
}

static int cmd_readv(struct io *io, int argc, char **argv)
{
	return run_rw(io, RW_READ, "CP:qv", true, argc, argv);
}

static int cmd_write(struct io *io, int argc, char **argv)
{
	return run_rw(io, RW_WRITE, "bcCfnpP:qs:uz", false, argc, argv);
}

static int cmd_writev(struct io *io, int argc, char **argv)
{
	return run_rw(io, RW_WRITE, "CfP:q", true, argc, argv);
}

/* --- asynchronous ------------------------------------------------------------------------------- */

static void async_done(struct block_req *req, int res)
{
	struct io_async *a = container_of(req, struct io_async, req);
	struct io *io = a->rw.io;

	a->ended = clock_now();
	a->rw.res = res;
	a->next = NULL;
	pthread_mutex_lock(&io->lock);
	*io->last_done = a;
	io->last_done = &a->next;
	io->in_flight--;
	pthread_cond_broadcast(&io->changed);
	pthread_mutex_unlock(&io->lock);
}

static void async_submit(void *arg)
{
	struct io_async *a = arg;
	struct rw *rw = &a->rw;
	int r = check_range(rw);

	a->req = (struct block_req){
		.op = rw->kind == RW_READ ? BLOCK_READ
		      : rw->zeroes	  ? BLOCK_WRITE_ZEROES
					  : BLOCK_WRITE,
		.flags = write_flags(rw),
		.offset = rw->offset,
		.bytes = rw->bytes,
		.iov = rw->zeroes ? NULL : rw->iov,
		.niov = rw->zeroes ? 0 : rw->niov,
		.done = async_done,
		.loop = rw->io->vm->io_loop,
	};
	if (r)
		block_done_later(&a->req, r);
	else
		block_submit(rw->io->node, &a->req);
}

void io_reap(struct io *io, bool all)
{
	struct io_async *done, *next;

	pthread_mutex_lock(&io->lock);
	while (all && io->in_flight)
		pthread_cond_wait(&io->changed, &io->lock);
	done = io->done;
	io->done = NULL;
	io->last_done = &io->done;
	pthread_mutex_unlock(&io->lock);
	for (; done; done = next) {
		next = done->next;
		report(&done->rw, done->ended - done->started);
		free_buffer(&done->rw);
		free(done);
	}
	fflush(stdout);
}

static int parse_async(struct rw *rw, const char *letters, int argc, char **argv)
{
	int r = parse_options(rw, letters, argc, argv), n;

	if (r)
		return r;
	n = argc - optind - 1;
	if (n < 1)
		return io_usage(rw->command);
	r = io_parse_number(argv[optind], &rw->offset);
	if (r)
		return r;
	if (rw->zeroes && n != 1)
		return refuse("-z supports only a single length parameter");
	return make_vector(rw, n, argv + optind + 1);
}

static int run_async(struct io *io, enum rw_kind kind, const char *letters, int argc, char **argv)
{
	struct io_async *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return io_fail(io, -ENOMEM, NULL);
	a->rw = (struct rw){.command = io_find(argv[0]), .kind = kind, .io = io};
	a->rw.failure = kind == RW_READ ? "readv" : NULL; /* as QEMU calls it */
	r = parse_async(&a->rw, letters, argc, argv);
	if (!r && kind == RW_WRITE && io->node->read_only)
		r = io_fail(io, -EROFS, &(struct hako_error){.message = "Block node is read-only"});
	if (r || a->rw.invalid) {
		/* An invalid request is one for the statistics only, of which there are none here. */
		if (!r)
			printf("injecting invalid %s request\n",
			       kind == RW_READ ? "read" : "write");
		free_buffer(&a->rw);
		free(a);
		return r;
	}
	pthread_mutex_lock(&io->lock);
	io->in_flight++;
	pthread_mutex_unlock(&io->lock);
	a->started = clock_now();
	loop_call(io->vm->io_loop, async_submit, a);
	return 0;
}

static int cmd_aio_read(struct io *io, int argc, char **argv)
{
	return run_async(io, RW_READ, "CiP:qv", argc, argv);
}

static int cmd_aio_write(struct io *io, int argc, char **argv)
{
	return run_async(io, RW_WRITE, "CfiP:quz", argc, argv);
}

static int cmd_aio_flush(struct io *io, int argc, char **argv)
{
	io_reap(io, true);
	return 0;
}

/* --- discard ------------------------------------------------------------------------------------ */

static int do_discard(void *arg)
{
	struct rw *rw = arg;
	int r = check_range(rw);

	if (!r && rw->io->node->read_only)
		r = -EROFS;
	return r ? r : block_pdiscard(rw->io->node, rw->offset, rw->bytes);
}

static int cmd_discard(struct io *io, int argc, char **argv)
{
	struct rw rw = {.command = io_find(argv[0]), .kind = RW_WRITE, .io = io};
	int r = parse_options(&rw, "Cq", argc, argv);
	uint64_t start;

	if (r)
		return r;
	if (optind != argc - 2)
		return io_usage(rw.command);
	r = io_parse_number(argv[optind], &rw.offset)
		    ?: parse_length(&rw, argv[optind + 1], &rw.bytes);
	if (r)
		return r;
	start = clock_now();
	r = co_run(io->vm->io_loop, do_discard, &rw);
	if (r < 0) {
		printf("discard failed: %s\n", strerror(-r));
		return r;
	}
	if (!rw.quiet)
		io_report("discard", clock_now() - start, rw.offset, rw.bytes, rw.bytes, 1,
			  rw.machine);
	return 0;
}

#define MORE_COMMON                                                              \
	"-C   a line for programs: bytes,operations,time,bytes/s,operations/s\n" \
	"-q   no statistics\n"
#define MORE_READ                              \
	"-P   every byte has to be this one\n" \
	"-v   show the data\n" MORE_COMMON
#define MORE_WRITE                          \
	"-P   this byte, instead of 0xcd\n" \
	"-f   the data is stable afterwards (FUA)\n" MORE_COMMON

const struct io_command io_rw_commands[] = {
	{"read", "r", "[-abCqv] [-P pattern [-s off] [-l len]] off len",
	 "reads a number of bytes at a specified offset",
	 "-b   the VM state (not supported)\n"
	 "-s   with -P: look from this byte of the data on\n"
	 "-l   with -P: look at so many bytes\n" MORE_READ,
	 2, -1, false, cmd_read},
	{"readv", "rv", "[-Cqv] [-P pattern] off len [len..]",
	 "reads a number of bytes at a specified offset",
	 "Into one buffer for each length.\n" MORE_READ, 2, -1, false, cmd_readv},
	{"write", "w", "[-bcCfnquz] [-P pattern | -s source_file] off len",
	 "writes a number of bytes at a specified offset",
	 "-b   the VM state (not supported)\n"
	 "-c   write compressed clusters\n"
	 "-s   the contents of this file, again and again\n"
	 "-z   write zeroes, without a buffer\n"
	 "-u   with -z: the space may be freed\n"
	 "-n   with -z: accepted; lengths have no limit then\n" MORE_WRITE,
	 2, -1, false, cmd_write},
	{"writev", "wv", "[-Cfq] [-P pattern] off len [len..]",
	 "writes a number of bytes at a specified offset",
	 "From one buffer for each length.\n" MORE_WRITE, 2, -1, false, cmd_writev},
	{"aio_read", NULL, "[-Ciqv] [-P pattern] off len [len..]",
	 "asynchronously reads a number of bytes",
	 "Errors do not count: it has succeeded once it is submitted.\n"
	 "-i   submit nothing\n" MORE_READ,
	 2, -1, false, cmd_aio_read},
	{"aio_write", NULL, "[-Cfiquz] [-P pattern] off len [len..]",
	 "asynchronously writes a number of bytes",
	 "Errors do not count: it has succeeded once it is submitted.\n"
	 "-i   submit nothing\n"
	 "-z   write zeroes, without a buffer\n"
	 "-u   with -z: the space may be freed\n" MORE_WRITE,
	 2, -1, false, cmd_aio_write},
	{"aio_flush", NULL, "", "completes all outstanding aio requests", NULL, 0, 0, false,
	 cmd_aio_flush},
	{"discard", "d", "[-Cq] off len", "discards a number of bytes at a specified offset",
	 MORE_COMMON, 2, -1, false, cmd_discard},
	{NULL},
};
