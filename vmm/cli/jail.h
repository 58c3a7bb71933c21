/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a jailer does: hako starts as root, goes where it is to live, opens what the VM needs, and then is a user who owns nothing, in a
 * directory where nothing is. For managers that start a VM for each of their customers.
 */
#ifndef VMM_CLI_JAIL_H
#define VMM_CLI_JAIL_H

#include "vmm/option.h"

struct jail_config {
	char *user, *chroot, *netns, *cgroup, *seclabel; /* options; NULL: not given */
};

#define JAIL_OPTIONS(T, F)                                                                    \
	OPT_STRING("user", T, F.user, NULL,                                                   \
		   "NAME[:GROUP] or UID[:GID]: be that user once all is open"),               \
		OPT_STRING("chroot", T, F.chroot, NULL,                                       \
			   "have this directory as root once all is open"),                   \
		OPT_STRING("netns", T, F.netns, NULL,                                         \
			   "a network namespace, as a file or ip-netns's name, for all that " \
			   "is opened"),                                                      \
		OPT_STRING("cgroup", T, F.cgroup, NULL,                                       \
			   "a control group to be in from the start: its directory, or its "  \
			   "name below /sys/fs/cgroup"),                                      \
		OPT_STRING("seclabel", T, F.seclabel, NULL,                                   \
			   "SELinux's context or AppArmor's profile for the process")

/** The label, if one is asked for: does not return if the process had another, but executes the program anew. Before anything is opened. */
int jail_label(const struct jail_config *jail, struct hako_error *err);
/** Into the control group and the network namespace. Before anything is opened, while the process has one thread. */
int jail_begin(const struct jail_config *jail, struct hako_error *err);
/** All is open: change the root directory and the user, of all threads. Before they are confined. */
int jail_end(const struct jail_config *jail, struct hako_error *err);

#endif
