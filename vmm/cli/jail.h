/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a jailer does: hako starts as root, goes where it is to live, opens what the VM needs, and then is a user who owns nothing, in a
 * directory where nothing is. For managers that start a VM for each of their customers.
 */
#ifndef VMM_CLI_JAIL_H
#define VMM_CLI_JAIL_H

#include "cgroup.h"
#include "vmm/option.h"

struct jail_config {
	char *user, *chroot, *netns, *cgroup, *seclabel; /* options; NULL: not given */
	struct cgroup *group;				 /* from jail_begin() to jail_leave() */
};

#define JAIL_OPTIONS(T, F)                                                                         \
	OPT_STRING("user", T, F.user, NULL,                                                        \
		   "NAME[:GROUP] or UID[:GID]: be that user once all is open"),                    \
		OPT_STRING("chroot", T, F.chroot, NULL,                                            \
			   "have this directory as root once all is open"),                        \
		OPT_STRING("netns", T, F.netns, NULL,                                              \
			   "a network namespace, as a file or ip-netns's name, for all that "      \
			   "is opened"),                                                           \
		OPT_STRING("cgroup", T, F.cgroup, NULL,                                            \
			   "PATH|NAME|./NAME[,cpu.max=...][,option=...]: a control group for all " \
			   "of it, its limits; made and removed if it is not there"),              \
		OPT_STRING("seclabel", T, F.seclabel, NULL,                                        \
			   "SELinux's context or AppArmor's profile for the process")

/** The label, if one is asked for: does not return if the process had another, but executes the program anew. Before anything is opened. */
int jail_label(const struct jail_config *jail, struct hako_error *err);
/** Into the control group and the network namespace. Before anything is opened, while the process has one thread. jail_leave() is called in any case. */
int jail_begin(struct jail_config *jail, struct hako_error *err);
/** All is open: place threads in their control groups, change the root directory and the user, of all threads. Before they are confined. */
int jail_end(const struct jail_config *jail, struct hako_error *err);
/** The VM has ended: out of the control group, which is removed if it was made. */
void jail_leave(struct jail_config *jail);

#endif
