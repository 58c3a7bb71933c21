/* SPDX-License-Identifier: GPL-2.0-only */
/* Between the files of hako exec. */
#ifndef VMM_CLI_EXEC_H
#define VMM_CLI_EXEC_H

#include <stddef.h>
#include <stdint.h>

#include "cli.h"
#include "exec_proto.h"

/* Exit statuses beside the command's own, as env(1) and others have them. */
enum {
	EXEC_STATUS_FAILED = 125,
	EXEC_STATUS_NOT_EXECUTABLE = 126,
	EXEC_STATUS_NOT_FOUND = 127,
};

/* Process 1 of the guests, in exec_init.c. */
extern const uint8_t exec_init[];
extern const uint64_t exec_init_size;

/* A kernel and what belongs to it. */
struct exec_kernel {
	char *image;   /* bzImage or ELF */
	char *release; /* as uname -r has it */
	char *modules; /* the directory with modules.builtin in it, or NULL if there is none */
};

/** Find the kernel that @name means: an image, a Debian package, or, for NULL, the newest in /boot. exec_kernel_free() frees it in any case. */
int exec_kernel_find(struct exec_kernel *kernel, const char *name, struct hako_error *err);
void exec_kernel_free(struct exec_kernel *kernel);

/** Where things are kept between runs, made if need be. The caller frees it. */
int exec_cache_dir(char **path, struct hako_error *err);

/** An initramfs with process 1 and the modules @names (NULL-terminated; of "?NAME" the kernel need have none) for that kernel: its path, which the caller frees, also after an error. */
int exec_initramfs(const struct exec_kernel *kernel, const char *const *names, char **path,
		   struct hako_error *err);

/* What is to be run. */
struct exec_command {
	char **argv;  /* NULL-terminated */
	char **share; /* NULL-terminated: absolute paths of directories that may be written */
	char *cwd;
	bool root_disk; /* the root is a disk's file system */
};

/* The host's ends of the guest's ports, and of its serial console. */
struct exec_lines {
	int control, in, out, err, console;
};

/**
 * Talk to the guest of the VM, which has been created but not started, until the command or the VM has ended. The exit status. @sandbox: the
 * program is confined before the guest runs. @verbose: the guest's console comes to standard error. Closes @lines.
 */
int exec_talk(struct hako_vm *vm, struct exec_lines *lines, const struct exec_command *command,
	      enum sandbox_mode sandbox, bool verbose);

#endif
