/* SPDX-License-Identifier: GPL-2.0-only */
#include "jail.h"

#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int enter_netns(const char *name, struct hako_error *err)
{
	char path[4096];
	int fd, r = 0;

	/* Where ip-netns(8) keeps those that have names. */
	if (snprintf(path, sizeof(path), "%s%s", strchr(name, '/') ? "" : "/run/netns/", name) >=
	    (int)sizeof(path))
		return error_errno(err, -ENAMETOOLONG, "--netns %s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "--netns %s: %s", name, path);
	if (setns(fd, CLONE_NEWNET) < 0) {
		r = -errno;
		error_errno(err, r, "--netns %s", name);
		if (r == -EINVAL)
			error_set(err, r, "--netns %s: %s is no network namespace", name, path);
		else if (r == -EPERM)
			error_hint(err, "that needs CAP_SYS_ADMIN");
	}
	close(fd);
	return r;
}

int jail_begin(struct jail_config *jail, struct hako_error *err)
{
	int r = jail->cgroup ? cgroup_enter(jail->cgroup, &jail->group, err) : 0;

	if (!r && jail->netns)
		r = enter_netns(jail->netns, err);
	return r;
}

/* --- the user ---------------------------------------------------------------------------------- */

struct user {
	uid_t uid;
	gid_t gid;
	const char *name; /* whose further groups are to be had, or NULL */
};

static bool is_id(const char *text, uint64_t *id)
{
	return !parse_uint(text, id) && *id < UINT32_MAX; /* all ones: none */
}

static int find_group(const char *name, gid_t *gid)
{
	const struct group *gr = getgrnam(name);
	uint64_t id;

	if (gr)
		*gid = gr->gr_gid;
	else if (is_id(name, &id))
		*gid = id;
	else
		return -ENOENT;
	return 0;
}

static int find_user(const char *text, struct user *user, struct hako_error *err)
{
	const char *colon = strchr(text, ':');
	char *name = colon ? strndup(text, colon - text) : strdup(text);
	const struct passwd *pw;
	uint64_t id;
	int r = 0;

	if (!name)
		return error_errno(err, -ENOMEM, "--user %s", text);
	pw = getpwnam(name);
	if (!pw && is_id(name, &id))
		pw = getpwuid(id);
	if (pw)
		*user = (struct user){pw->pw_uid, pw->pw_gid, colon ? NULL : pw->pw_name};
	else if (is_id(name, &id) && colon)
		*user = (struct user){.uid = id};
	else if (is_id(name, &id))
		r = error_set(err, -EINVAL, "--user %s: no such user; a group is needed: %s:GID",
			      text, name);
	else
		r = error_set(err, -EINVAL, "--user %s: no such user: %s", text, name);
	if (!r && colon && find_group(colon + 1, &user->gid))
		r = error_set(err, -EINVAL, "--user %s: no such group: %s", text, colon + 1);
	free(name);
	return r;
}

static int change_user(const struct user *user, const char *text, struct hako_error *err)
{
	int r = 0;

	if (user->name ? initgroups(user->name, user->gid) : setgroups(0, NULL))
		r = -errno;
	if (!r && (setresgid(user->gid, user->gid, user->gid) ||
		   setresuid(user->uid, user->uid, user->uid)))
		r = -errno;
	/* It must not come back. */
	if (!r && user->uid && setuid(0) == 0)
		r = -EPERM;
	if (!r)
		return 0;
	error_errno(err, r, "--user %s", text);
	if (r == -EPERM)
		error_hint(err, "only root can become another user");
	return r;
}

int jail_end(const struct jail_config *jail, struct hako_error *err)
{
	struct user user = {0};
	int r = cgroup_place_threads(jail->group, err);

	/* Names are looked up in the host's files. */
	if (!r && jail->user && (r = find_user(jail->user, &user, err)))
		return r;
	if (!r && jail->chroot && (chroot(jail->chroot) || chdir("/"))) {
		r = -errno;
		error_errno(err, r, "--chroot %s", jail->chroot);
		if (r == -EPERM)
			error_hint(err, "that needs CAP_SYS_CHROOT");
		return r;
	}
	if (!r && jail->user)
		r = change_user(&user, jail->user, err);
	return r;
}

void jail_leave(struct jail_config *jail)
{
	cgroup_leave(jail->group);
	jail->group = NULL;
}
