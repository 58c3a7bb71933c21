/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img: qemu-img's sub-commands. Each is a file img_NAME.c; the work itself is done in devices/block. */
#ifndef VMM_CLI_IMG_H
#define VMM_CLI_IMG_H

#include "args.h"
#include "devices/block/block_co.h"

#define IMG_MAX_OPEN 64

struct img {
	const char *program; /* in front of messages: "hako img" or "qemu-img" */
	const struct img_command *command;
	struct vm *vm;	   /* made with the first image that is opened */
	struct loop *loop; /* its */
	struct block_node *open[IMG_MAX_OPEN];
	unsigned int nopen;
	int argc; /* operands */
	char **argv;
	char **given; /* all arguments, in their order; NULL at the end */
	void *args;   /* struct of the command's options */
};

struct img_command {
	const char *name, *arguments, *help;
	const struct option *options;
	size_t args_size;
	int (*run)(struct img *img); /* returns the exit status */
};

extern const struct img_command img_amend, img_bench, img_bitmap, img_check, img_commit,
	img_compare, img_convert, img_create, img_dd, img_info, img_map, img_measure, img_rebase,
	img_resize, img_snapshot;
extern const struct img_command *const img_commands[]; /* ends with NULL */

/** "PROGRAM: MESSAGE" on stderr. Returns 1. */
int img_fail(const struct img *img, const struct hako_error *err);
/** The same with a text. */
int img_error(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** A mistake in the arguments: the text, and where help is. Returns 1. */
int img_usage(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/** Print a warning. */
void img_warn(const struct img *img, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- options that several commands have ----------------------------------------------------------- */

enum img_output {
	IMG_HUMAN,
	IMG_JSON
};
extern const char *const img_output_names[];

#define IMG_OPT_OBJECT(T) \
	OPT_LIST("object", T, object, "accepted for compatibility; secrets have no use yet")
#define IMG_OPT_IMAGE_OPTS(T)                        \
	OPT_BOOL("image-opts", T, image_opts, "off", \
		 "file names are options of a disk node: driver=qcow2,file.filename=…")
#define IMG_OPT_FORMAT(T) \
	OPT_STRING("f|format", T, format, NULL, "the image's format; else it is found out")
#define IMG_OPT_FORCE_SHARE(T)                           \
	OPT_BOOL("U|force-share", T, force_share, "off", \
		 "read even if another program writes to it")
#define IMG_OPT_OUTPUT(T)   OPT_ENUM("output", T, output, "human", img_output_names, "kind of output")
#define IMG_OPT_QUIET(T)    OPT_BOOL("q|quiet", T, quiet, "off", "print errors only")
#define IMG_OPT_PROGRESS(T) OPT_BOOL("p|progress", T, progress, "off", "show how far it is")
#define IMG_OPT_CACHE(T, DEF)                \
	OPT_STRING("t|cache", T, cache, DEF, \
		   "cache mode: none, writeback, writethrough, directsync, unsafe")
#define IMG_OPT_SOURCE_CACHE(T)                                    \
	OPT_STRING("T|source-cache", T, source_cache, "writeback", \
		   "cache mode of what is only read")

/** Refuse what --object names: there is none that hako knows. */
int img_check_objects(const struct img *img, char *const *objects);
/** The strings of an option list behind each other, with commas; NULL if there is none or no memory. The caller frees it. */
char *img_join(char *const *list);

/* --- images --------------------------------------------------------------------------------------- */

struct img_open {
	const char *name;
	const char *format; /* NULL: look */
	const char *cache;  /* NULL: writeback */
	bool image_opts, write, force_share, no_backing;
};

/** Open an image with its chain, in use by this program. It is closed by img_close() or at the end. */
int img_open(struct img *img, const struct img_open *open, struct block_node **node,
	     struct hako_error *err);
/**
 * Open the file below the format, for what works on files; @format: the name of what is in it. With image_opts it is what the options
 * "file.…" say.
 */
int img_open_file(struct img *img, const struct img_open *open, struct block_node **file,
		  const char **format, struct hako_error *err);
void img_close(struct img *img, struct block_node *node);
/** Close all that is open. */
void img_close_all(struct img *img);

/** Run @fn(@arg) in a coroutine of the loop: its result. */
int img_run(struct img *img, int (*fn)(void *arg), void *arg);

/** Its format's name. */
const char *img_format_name(const struct block_node *node);

/* --- output --------------------------------------------------------------------------------------- */

/** "1.5 GiB", in three digits. */
const char *img_size_str(uint64_t bytes, char buf[32]);

/* A JSON writer: four spaces for each level. Keys are NULL in lists. Also for people, as QEMU shows the same: without brackets. */
struct img_json {
	bool human;
	int level;
	bool first;	       /* nothing has been written on this level yet */
	unsigned int index[8]; /* human: of the next item, by level */
};

void img_json_open(struct img_json *j, const char *key, char bracket);
void img_json_close(struct img_json *j, char bracket);
void img_json_str(struct img_json *j, const char *key, const char *value);
void img_json_uint(struct img_json *j, const char *key, uint64_t value);
void img_json_bool(struct img_json *j, const char *key, bool value);
/** A string as JSON has it, in quotes. */
void img_json_quote(const char *s);

/* "    (12.34/100%)" on one line, at most some ten times a second. Without it, SIGUSR1 asks for a line. Before the loop is made. */
struct img_progress {
	bool enabled;
	uint64_t last; /* when it was printed */
	double shown;
};

void img_progress_start(struct img_progress *p, bool enabled);
void img_progress_set(struct img_progress *p, uint64_t done, uint64_t total);
void img_progress_end(struct img_progress *p, bool success);

#endif
