/* SPDX-License-Identifier: GPL-2.0-only */
/* --cgroup. The names are those of the kernel's Documentation/admin-guide/cgroup-v2.rst. */
#include "cgroup.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "vmm/option.h"

#define NAME_ROOM     64    /* for a file's name behind a directory's */
#define REMOVE_TRIES  1000  /* until a process that was killed has gone */
#define REMOVE_WAIT   10000 /* µs */
#define FILE_TRIES    50
#define FILE_WAIT     10000   /* µs */
#define CPU_MAX_LEAST 1000    /* µs; kernel/sched/core.c: min_cfs_quota_period */
#define PERIOD_MOST   1000000 /* µs; max_cfs_quota_period */

/* What a group's file of limits is to hold. */
struct limits {
	uint32_t cpu_weight; /* 0: not given */
	char *cpu_max, *memory_max;
	char **io_max;
};

struct words {
	char *path;
	struct limits vm, vcpus, emulation;
	bool threads;
};

#define T struct words
static const struct option cgroup_options[] = {
	OPT_STRING_REQUIRED("path", T, path, "the group"),
	OPT_UINT("cpu.weight", T, vm.cpu_weight, NULL, 1, 10000, "its part, beside others' 100"),
	OPT_STRING("cpu.max", T, vm.cpu_max, NULL, "\"MAX PERIOD\", microseconds"),
	OPT_STRING("memory.max", T, vm.memory_max, NULL, "a size, or max"),
	OPT_LIST("io.max", T, vm.io_max, "\"MAJOR:MINOR rbps=N wbps=N riops=N wiops=N\""),
	OPT_BOOL("threads", T, threads, "off", "groups vcpus and emulation below it"),
	OPT_UINT("vcpus.cpu.weight", T, vcpus.cpu_weight, NULL, 1, 10000, "of vCPU threads"),
	OPT_STRING("vcpus.cpu.max", T, vcpus.cpu_max, NULL, "the same"),
	OPT_UINT("emulation.cpu.weight", T, emulation.cpu_weight, NULL, 1, 10000, "of the others"),
	OPT_STRING("emulation.cpu.max", T, emulation.cpu_max, NULL, "the same"),
	OPT_END,
};
#undef T

/* A directory, and what has been done there. */
struct group {
	char dir[PATH_MAX - NAME_ROOM];
	bool made;
};

enum {
	VM,
	VCPUS,
	EMULATION,
	GROUPS
};

struct cgroup {
	struct group group[GROUPS]; /* the two below have no directory unless they are asked for */
	char parent[PATH_MAX - NAME_ROOM]; /* of the VM's group */
	char before[PATH_MAX -
		    NAME_ROOM];	 /* the group that the process came from; empty: not known */
	char enabled[NAME_ROOM]; /* " -cpu -memory": takes back what was enabled in the parent */
	int ended,
		removed; /* pipes of the process that removes: ours to close, and its; -1: there is none */
};

/* --- files ------------------------------------------------------------------------------------- */

static int write_file(const char *dir, const char *file, const char *value)
{
	char path[PATH_MAX];
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write_all(fd, value, strlen(value));
	close(fd);
	return r;
}

static bool has_controller(const char *dir, const char *name)
{
	char path[PATH_MAX], word[32];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.controllers", dir);
	f = fopen(path, "re");
	while (f && !found && fscanf(f, "%31s", word) == 1)
		found = !strcmp(word, name);
	if (f)
		fclose(f);
	return found;
}

static bool is_cgroup2(const char *dir)
{
	struct statfs fs;

	return !statfs(dir, &fs) && fs.f_type == CGROUP2_SUPER_MAGIC;
}

/* Where systemd mounts cgroup v2; the second if most controllers are v1's. */
static const char *cgroup2_root(void)
{
	return is_cgroup2("/sys/fs/cgroup") ? "/sys/fs/cgroup" : "/sys/fs/cgroup/unified";
}

/* The process's own group of cgroup v2. */
static int own_group(char *dir, size_t size)
{
	char line[PATH_MAX];
	FILE *f = fopen("/proc/self/cgroup", "re");
	int r = -ENOENT;

	while (f && r == -ENOENT && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = 0;
		/* A group outside of the cgroup namespace is shown as one above its root. */
		if (strncmp(line, "0::/", 4) || !strncmp(line + 3, "/..", 3))
			continue;
		r = snprintf(dir, size, "%s%s", cgroup2_root(), line[4] ? line + 3 : "") < (int)size
			    ? 0
			    : -ENAMETOOLONG;
	}
	if (f)
		fclose(f);
	return r;
}

/* --- the way back ------------------------------------------------------------------------------ */

static bool made_any(const struct cgroup *cg)
{
	return cg->group[VM].made || cg->group[VCPUS].made || cg->group[EMULATION].made;
}

/*
 * Into the group of before. A group with controllers for those below has no processes (the "no internal process" rule): so if it came from the parent, which was
 * its own then, and there is no other group, what it has enabled there is disabled.
 */
static int move_back(const struct cgroup *cg, const char *pid)
{
	int r = *cg->before ? write_file(cg->before, "cgroup.procs", pid) : -ENOENT;
	struct stat st;

	if (r == -EBUSY && *cg->enabled && !strcmp(cg->before, cg->parent) &&
	    !stat(cg->parent, &st) && st.st_nlink == 3 && /* ".", its name, and one below */
	    !write_file(cg->parent, "cgroup.subtree_control", cg->enabled))
		r = write_file(cg->before, "cgroup.procs", pid);
	return r;
}

static int remove_groups(const struct cgroup *cg)
{
	for (int i = GROUPS - 1; i >= 0; i--)
		if (cg->group[i].made && rmdir(cg->group[i].dir) && errno != ENOENT)
			return -errno;
	return 0;
}

/* The process that removes. It has nothing of the VM's, and lives until that has ended, in whatever way. */
static void remove_at_end(const struct cgroup *cg, pid_t vm, int ended, int removed)
{
	sigset_t all;
	char pid[16];

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setsid();
	prctl(PR_SET_NAME, "hako-cgroup");
	if (chdir("/") || dup2(ended, 3) < 0 || dup2(removed, 4) < 0)
		_exit(1);
	close_range(0, 2, 0);
	close_range(5, ~0u, 0);
	/* Where memory is counted and may run out is no good place for it. */
	if (*cg->before)
		write_file(cg->before, "cgroup.procs", "0");
	while (read(3, pid, 1) < 0 && errno == EINTR)
		;
	snprintf(pid, sizeof(pid), "%d", vm);
	move_back(cg, "0");
	/* Its number is its own as long as it is the parent. If it can not be moved it has to end first. */
	if (getppid() == vm && move_back(cg, pid))
		close(4);
	for (int i = 0; i < REMOVE_TRIES && remove_groups(cg) == -EBUSY; i++)
		usleep(REMOVE_WAIT);
	_exit(0);
}

static int start_remover(struct cgroup *cg, struct hako_error *err)
{
	int ended[2] = {-1, -1}, removed[2] = {-1, -1}, r = 0;
	pid_t vm = getpid(), child = -1;

	if (pipe2(ended, O_CLOEXEC) || pipe2(removed, O_CLOEXEC) || (child = fork()) < 0)
		r = error_errno(err, -errno, "a process to remove it");
	if (!child) {
		/* Above what it makes of them. */
		int in = fcntl(ended[0], F_DUPFD, 5), out = fcntl(removed[1], F_DUPFD, 5);

		remove_at_end(cg, vm, in, out);
	}
	if (ended[0] >= 0)
		close(ended[0]);
	if (removed[1] >= 0)
		close(removed[1]);
	if (r) {
		if (ended[1] >= 0)
			close(ended[1]);
		return r;
	}
	cg->ended = ended[1];
	cg->removed = removed[0];
	return 0;
}

void cgroup_leave(struct cgroup *cg)
{
	char c;

	if (!cg)
		return;
	if (cg->ended >= 0) {
		close(cg->ended);
		while (read(cg->removed, &c, 1) < 0 && errno == EINTR)
			;
		close(cg->removed);
	} else if (made_any(cg)) {
		move_back(cg, "0");
		remove_groups(cg);
	}
	free(cg);
}

/* --- limits ------------------------------------------------------------------------------------ */

/* Have @g the controller, which its parent has to enable. */
static int need_controller(struct cgroup *cg, struct group *g, const char *parent,
			   const char *controller, struct hako_error *err)
{
	char word[24];
	int r;

	if (has_controller(g->dir, controller))
		return 0;
	if (!has_controller(parent, controller))
		return error_set(err, -ENOTSUP, "%s/cgroup.controllers: no controller \"%s\" there",
				 parent, controller);
	if (!g->made) {
		error_set(err, -ENOTSUP,
			  "%s/cgroup.controllers: \"%s\" is not enabled for this group", g->dir,
			  controller);
		return error_hint(err, "echo +%s >%s/cgroup.subtree_control", controller, parent);
	}
	snprintf(word, sizeof(word), "+%s", controller);
	r = write_file(parent, "cgroup.subtree_control", word);
	if (r) {
		error_errno(err, r, "%s/cgroup.subtree_control: %s", parent, word);
		return r == -EBUSY ? error_hint(err, "there are processes in that group") : r;
	}
	if (g == &cg->group[VM])
		snprintf(cg->enabled + strlen(cg->enabled),
			 sizeof(cg->enabled) - strlen(cg->enabled), " -%s", controller);
	return 0;
}

static int set_limit(struct cgroup *cg, int which, const char *file, const char *value,
		     struct hako_error *err)
{
	struct group *g = &cg->group[which];
	char controller[16];
	int r;

	snprintf(controller, sizeof(controller), "%.*s", (int)strcspn(file, "."), file);
	r = need_controller(cg, &cg->group[VM], cg->parent, controller, err);
	if (!r && which != VM)
		r = need_controller(cg, g, cg->group[VM].dir, controller, err);
	if (r)
		return r;
	/* The kernel names a controller a moment before its files are there, if somebody else has just enabled it. */
	for (int i = 0; (r = write_file(g->dir, file, value)) == -ENOENT && i < FILE_TRIES; i++)
		usleep(FILE_WAIT);
	return r ? error_errno(err, r, "%s/%s: \"%s\"", g->dir, file, value) : 0;
}

static int set_limits(struct cgroup *cg, int which, const struct limits *l, struct hako_error *err)
{
	uint64_t bytes;
	char text[24];
	int r = 0;

	if (l->cpu_weight) {
		snprintf(text, sizeof(text), "%u", l->cpu_weight);
		r = set_limit(cg, which, "cpu.weight", text, err);
	}
	if (!r && l->cpu_max)
		r = set_limit(cg, which, "cpu.max", l->cpu_max, err);
	if (!r && l->memory_max) {
		if (!parse_size(l->memory_max, 1, &bytes))
			snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
		else
			snprintf(text, sizeof(text), "max");
		r = set_limit(cg, which, "memory.max", text, err);
	}
	for (char **io = l->io_max; io && *io && !r; io++)
		r = set_limit(cg, which, "io.max", *io, err);
	return r;
}

static int check_cpu_max(const char *name, const char *text, struct hako_error *err)
{
	char quota[24] = "", period[24] = "100000", more;
	uint64_t us;
	int n = text ? sscanf(text, "%23s %23s %c", quota, period, &more) : 1;

	if (!text)
		return 0;
	if (n < 1 || n > 2 ||
	    (strcmp(quota, "max") && (parse_uint(quota, &us) || us < CPU_MAX_LEAST)) ||
	    parse_uint(period, &us) || us < CPU_MAX_LEAST || us > PERIOD_MOST)
		return error_set(
			err, -EINVAL,
			"%s=%s: not \"MAX PERIOD\" such as \"50000 100000\": microseconds, or max; "
			"from %d on, the period to %d",
			name, text, CPU_MAX_LEAST, PERIOD_MOST);
	return 0;
}

/* What can be said before anything is done. What else there is of io.max, the kernel knows. */
static int check(const struct words *w, struct hako_error *err)
{
	const char *memory = w->vm.memory_max;
	uint64_t bytes;
	int r = check_cpu_max("cpu.max", w->vm.cpu_max, err)
			?: check_cpu_max("vcpus.cpu.max", w->vcpus.cpu_max, err)
			?: check_cpu_max("emulation.cpu.max", w->emulation.cpu_max, err);

	if (!r && memory && strcmp(memory, "max") && (parse_size(memory, 1, &bytes) || !bytes))
		r = error_set(err, -EINVAL, "memory.max=%s: not a size such as 512M, or max",
			      memory);
	for (char **io = w->vm.io_max; io && *io && !r; io++) {
		unsigned int major, minor;
		char word[16];

		if (sscanf(*io, "%u:%u %15[a-z]=", &major, &minor, word) != 3)
			r = error_set(
				err, -EINVAL,
				"io.max=%s: not \"MAJOR:MINOR rbps=N wbps=N riops=N wiops=N\"",
				*io);
	}
	return r;
}

/* --- groups ------------------------------------------------------------------------------------ */

static int resolve(struct cgroup *cg, const char *path, struct hako_error *err)
{
	char *dir = cg->group[VM].dir, *slash;
	size_t size = sizeof(cg->group[VM].dir), len;
	int n, r;

	if (own_group(cg->before, sizeof(cg->before)))
		*cg->before = 0;
	if (!strncmp(path, "./", 2)) {
		if (!*cg->before)
			return error_set(err, -ENOENT,
					 "/proc/self/cgroup: no group of cgroup v2 to be below");
		n = snprintf(dir, size, "%s/%s", cg->before, path + 2);
	} else {
		n = snprintf(dir, size, "%s%s", *path == '/' ? "" : "/sys/fs/cgroup/", path);
	}
	/* With room for the names of those below. */
	if (n + NAME_ROOM >= (int)size)
		return error_errno(err, -ENAMETOOLONG, "its directory");
	for (len = strlen(dir); len > 1 && dir[len - 1] == '/';)
		dir[--len] = 0;
	memcpy(cg->parent, dir, len + 1);
	slash = strrchr(cg->parent, '/');
	slash[slash == cg->parent] = 0;
	r = access(dir, F_OK) ? -errno : 0;
	return r && r != -ENOENT ? error_errno(err, r, "%s", dir) : 0;
}

static int make(struct group *g, struct hako_error *err)
{
	int r;

	if (!mkdir(g->dir, 0755)) {
		g->made = true;
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	r = error_errno(err, -errno, "%s", g->dir);
	if (r == -EACCES || r == -EROFS)
		error_hint(err, "./NAME makes one below hako's own group, if that is delegated: "
				"systemd-run --user --scope -p Delegate=yes hako ...");
	return r;
}

static int make_group(struct cgroup *cg, bool v2, struct hako_error *err)
{
	struct group *g = &cg->group[VM];
	bool there = !access(g->dir, F_OK);
	const char *where = there ? g->dir : cg->parent;

	if (access(where, F_OK))
		return error_errno(err, -errno, "%s", where);
	/* One of cgroup v1 can be entered, and that is all. */
	if ((v2 || !there) && !is_cgroup2(where))
		return error_set(err, -ENOTSUP, "%s: not a directory of cgroup v2", where);
	return there ? 0 : make(g, err);
}

static int enter(const struct cgroup *cg, struct hako_error *err)
{
	const char *dir = cg->group[VM].dir;
	char pid[16];
	int r;

	snprintf(pid, sizeof(pid), "%d", getpid());
	r = write_file(dir, "cgroup.procs", pid);
	if (!r)
		return 0;
	error_errno(err, r, "%s/cgroup.procs", dir);
	if (r == -EBUSY)
		error_hint(err, "it has controllers enabled for groups below it");
	else if (r == -EOPNOTSUPP)
		error_hint(err, "its cgroup.type is \"threaded\", or below such a group");
	return r;
}

/* Threaded ones: the memory of a process is counted in one place, its CPU time where each thread is. */
static int make_threaded(struct cgroup *cg, const struct words *w, struct hako_error *err)
{
	static const char *const names[GROUPS] = {NULL, "vcpus", "emulation"};
	int r = 0;

	for (int i = VCPUS; i < GROUPS && !r; i++) {
		struct group *g = &cg->group[i];
		size_t len = strlen(cg->group[VM].dir);

		memcpy(g->dir, cg->group[VM].dir, len);
		snprintf(g->dir + len, sizeof(g->dir) - len, "/%s", names[i]);
		r = make(g, err);
		if (r)
			break;
		r = write_file(g->dir, "cgroup.type", "threaded");
		if (r)
			error_errno(err, r, "%s/cgroup.type: threaded", g->dir);
		else
			r = set_limits(cg, i, i == VCPUS ? &w->vcpus : &w->emulation, err);
	}
	return r;
}

static bool given(const struct limits *l)
{
	return l->cpu_weight || l->cpu_max || l->memory_max || l->io_max;
}

static int begin(struct cgroup *cg, const struct words *w, struct hako_error *err)
{
	bool threaded = w->threads || given(&w->vcpus) || given(&w->emulation);
	int r = check(w, err) ?: resolve(cg, w->path, err);

	if (!r)
		r = make_group(cg, threaded || given(&w->vm), err);
	if (!r)
		r = enter(cg, err);
	if (!r)
		r = set_limits(cg, VM, &w->vm, err);
	if (!r && threaded)
		r = make_threaded(cg, w, err);
	/* Not earlier: a process in the parent would keep it from enabling controllers. */
	if (!r && made_any(cg))
		r = start_remover(cg, err);
	return r;
}

int cgroup_enter(const char *text, struct cgroup **cg, struct hako_error *err)
{
	struct words w = {0};
	struct keyvals kv = {0};
	int r = keyvals_parse(&kv, text, "path", err);

	*cg = calloc(1, sizeof(**cg));
	if (!r && !*cg)
		r = error_errno(err, -ENOMEM, "groups");
	if (*cg)
		(*cg)->ended = (*cg)->removed = -1;
	if (!r)
		r = options_defaults(cgroup_options, &w, err);
	if (!r)
		r = options_apply(cgroup_options, &w, &kv, true, err);
	if (!r)
		r = begin(*cg, &w, err);
	keyvals_free(&kv);
	options_free(cgroup_options, &w);
	if (!r)
		return 0;
	cgroup_leave(*cg);
	*cg = NULL;
	return error_prefix(err, "--cgroup %s", text), r;
}

static int place(const struct cgroup *cg, const char *tid, struct hako_error *err)
{
	char path[64], name[16] = "";
	const char *dir;
	FILE *f;
	int r;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/comm", tid);
	f = fopen(path, "re");
	if (f && !fgets(name, sizeof(name), f))
		*name = 0;
	if (f)
		fclose(f);
	dir = cg->group[strncmp(name, "hako-vcpu", 9) ? EMULATION : VCPUS].dir;
	r = write_file(dir, "cgroup.threads", tid);
	/* A thread of a pool may have ended. */
	return r && r != -ESRCH ? error_errno(err, r, "--cgroup: %s/cgroup.threads", dir) : 0;
}

int cgroup_place_threads(const struct cgroup *cg, struct hako_error *err)
{
	int r = 0;

	if (!cg || !*cg->group[VCPUS].dir)
		return 0;
	/* Twice: one that a thread has made before it was moved itself. Later ones are born where they belong. */
	for (int i = 0; i < 2 && !r; i++) {
		DIR *d = opendir("/proc/self/task");
		const struct dirent *e;

		if (!d)
			return error_errno(err, -errno, "--cgroup: /proc/self/task");
		while (!r && (e = readdir(d)))
			if (*e->d_name != '.')
				r = place(cg, e->d_name, err);
		closedir(d);
	}
	return r;
}
