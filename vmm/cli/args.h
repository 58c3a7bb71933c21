/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Arguments as qemu-img and qemu-io take them: -f FMT, -fFMT, --format FMT, --format=FMT, -pq for -p -q, options behind operands.
 * A command states them in an option table whose names are "f", "f|format" or "format".
 */
#ifndef VMM_CLI_ARGS_H
#define VMM_CLI_ARGS_H

#include "vmm/option.h"

/**
 * Set @obj's fields to the defaults and then from @argv[1..argc-1]; the operands are gathered, in order, behind argv[0]. A "-" followed by
 * a digit is an operand (a negative number). Returns the number of operands, or a negative errno. args_free() in any case.
 */
int args_parse(const struct option *table, void *obj, int argc, char **argv,
	       struct hako_error *err);
void args_free(const struct option *table, void *obj);

/** Two lines for each option; and the same as roff, for a manual page. */
void args_help(const struct option *table);
void args_man(const struct option *table);
/** A text as roff. */
void args_man_text(const char *text);

/** Text in words: white space separates, "" and '' quote, in place. At most @max - 1 words and a NULL. The number, or -E2BIG. */
int args_split(char *text, char **words, int max);

#endif
