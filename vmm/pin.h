/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef VMM_PIN_H
#define VMM_PIN_H

#include "error.h"

struct vm;

/** Put the VM's threads on the CPUs, and into the scheduling classes, that --pin and --sched say. All of them are there, and not confined yet. */
int pin_threads(struct vm *vm, struct hako_error *err);

#endif
