/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The program's terminal: raw while a guest has it as its console, and as it was before in every other case - after exit(), a
 * deadly signal, and while the program is stopped. A terminal outlives the process, hence this is the program's and not the
 * library's. The escape key is the backend's (devices/char/stdio.c).
 */
#ifndef VMM_CLI_TERMINAL_H
#define VMM_CLI_TERMINAL_H

#include "vmm/error.h"

/**
 * Put standard input's terminal in raw mode: keys go to the guest one by one and without echo; with @signals Ctrl-c and
 * the like still raise signals here. 0 too if standard input is no terminal: there is nothing to do then. Started in the background, it waits
 * until it is in the foreground. Installs handlers for deadly signals that have none. Main thread.
 */
int terminal_raw(bool signals, struct hako_error *err);

/** As it was before. May be called at any time, also from signal handlers, and without terminal_raw(). */
void terminal_restore(void);

#endif
