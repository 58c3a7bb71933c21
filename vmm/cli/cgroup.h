/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * --cgroup: the control group that the process is in, its limits (cgroup v2), and groups below it for vCPU threads and for all others. What was made for the VM is removed
 * when it ends.
 */
#ifndef VMM_CLI_CGROUP_H
#define VMM_CLI_CGROUP_H

#include "vmm/error.h"

struct cgroup;

/**
 * Go where "PATH[,cpu.max=…]" says. Makes the last directory of PATH if it is not there, and then a process that removes it, even if this one is killed. Before anything
 * is opened, while the process has one thread. After a failure everything is as it was, but for limits of a group that was there before. The caller owns *@cg.
 */
int cgroup_enter(const char *text, struct cgroup **cg, struct hako_error *err);

/** All threads are there: each into the group for it, if such are asked for. Not confined yet, and in the root directory of before. */
int cgroup_place_threads(const struct cgroup *cg, struct hako_error *err);

/** The VM has ended: leave what was made, have it removed, wait for that, and free @cg (which may be NULL). */
void cgroup_leave(struct cgroup *cg);

#endif
