/* SPDX-License-Identifier: GPL-2.0-only */
/* hako io: qemu-io's commands. Commands run in the main thread; the image's requests in the loop's. */
#ifndef VMM_CLI_IO_H
#define VMM_CLI_IO_H

#include <pthread.h>

#include "img_image.h"

#define IO_MAX_BYTES  2147483136ull /* of one request, as in QEMU */
#define IO_MAX_WORDS  64
#define IO_MISALIGN   16
#define IO_FILL	      0xcd /* what write writes if nobody says otherwise */
#define IO_FILL_FRESH 0xab /* in a buffer before it is read into */

struct io_async;

struct io {
	const char *program; /* in front of messages: "hako io" or "qemu-io" */
	struct vm *vm;
	struct block_node *node; /* NULL: no file is open */
	bool misalign, quit;
	bool writethrough; /* each write is stable when it has ended */
	/* aio_read and aio_write */
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	unsigned int in_flight;
	struct io_async *done, **last_done; /* completed, not yet reported */
};

struct io_command {
	const char *name, *alias, *arguments, *help;
	const char *more; /* extended help, or NULL */
	int min, max;	  /* number of arguments; max -1: any */
	bool no_file;	  /* needs no open file */
	/* @argv[0] is the command. Returns 0, or a negative errno for the exit status. */
	int (*run)(struct io *io, int argc, char **argv);
};

extern const struct io_command io_rw_commands[], io_commands[]; /* end with a NULL name */

/** Print the command's line of usage. Returns -EINVAL. */
int io_usage(const struct io_command *c);
/** The command of that name, or NULL. */
const struct io_command *io_find(const char *name);

/** "PROGRAM: MESSAGE" on stderr. Returns @err's code or -EINVAL. */
int io_fail(const struct io *io, int code, const struct hako_error *err);
/** Open: arguments as of the command. */
int io_open(struct io *io, const struct image_open *open, struct hako_error *err);
void io_close(struct io *io);

/** A number of bytes with its suffix. A failure has been printed. */
int io_parse_number(const char *text, uint64_t *value);
/** The byte of -P. A failure has been printed. */
int io_parse_pattern(const char *text, uint8_t *pattern);

/** Report the asynchronous requests that have completed; with @all, wait for those that have not. */
void io_reap(struct io *io, bool all);

/** "1.5 MiB"; the caller's buffer. */
const char *io_size_str(double value, char buf[64]);
/** The two lines, or the one, that tell what was done in @ns nanoseconds. */
void io_report(const char *what, uint64_t ns, uint64_t offset, uint64_t count, uint64_t total,
	       unsigned int ops, bool machine);

#endif
