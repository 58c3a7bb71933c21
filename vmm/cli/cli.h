/* SPDX-License-Identifier: GPL-2.0-only */
/* The program hako: sub-commands on top of libhako. Each returns the process's exit status. */
#ifndef VMM_CLI_CLI_H
#define VMM_CLI_CLI_H

#include "jail.h"
#include "vmm/option.h"
#include "vmm/sandbox.h"

int cli_run(int argc, char **argv);
int cli_exec(int argc, char **argv);
int cli_test(int argc, char **argv);
int cli_doctor(int argc, char **argv);
int cli_bench(int argc, char **argv);
int cli_help(int argc, char **argv);
int cli_completion(int argc, char **argv);
int cli_img(int argc, char **argv);
int cli_io(int argc, char **argv);
/** The reference part of their manual pages. */
void cli_img_man(void);
void cli_io_man(void);
/** What confined threads may do. */
int cli_help_sandbox(void);
/** The models and flags of --cpu, or (@name) the flags of a model. Returns the process's status. */
int cli_help_cpu(const char *name);

/** vm_confine(), unless @mode is off. */
int cli_confine(struct hako_vm *vm, enum sandbox_mode mode, unsigned int needs, const char *remove,
		struct hako_error *err);

/* A sub-command, for the dispatcher, the help and the completion. */
struct cli_command {
	const char *name, *arguments, *help;
	int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};
extern const struct cli_command cli_commands[]; /* ends with a NULL name */

/* What `hako run` has besides a VM's options. */
struct cli_run_config {
	char *image, *pidfile, *log;
	struct jail_config jail;
	int sandbox;
	bool help;
};
extern const struct option cli_run_options[];

/* What `hako exec` and `hako test` have. */
extern const struct option cli_exec_options[], cli_test_options[];

/** The option of @table with that name, or NULL. */
const struct option *cli_find_option(const struct option *table, const char *name);

/** "hako: MESSAGE" on stderr. Returns 1. */
int cli_fail(const struct hako_error *err);

/** The table's options, one a line: "  --name=VALUE  help (default …)". @dashes: "--" or "". */
void cli_print_options(const struct option *table, const char *dashes);

#endif
