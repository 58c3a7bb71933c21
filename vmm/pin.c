/* SPDX-License-Identifier: GPL-2.0-only */
/* --pin and --sched: on which of the host's CPUs the threads of a VM run, and how they are scheduled. */
#include "pin.h"

#include <sched.h>
#include <stdlib.h>

#include "config.h"
#include "vcpu.h"
#include "vm_internal.h"

#define CPUS_MAX 8192 /* Linux has no more */

/* What is done to each thread that a name stands for. */
struct action {
	int (*apply)(pthread_t thread, const void *arg);
	const void *arg;
};

/* "2", "0-3", several with ':' between. */
static int parse_cpus(const char *text, cpu_set_t *set, struct hako_error *err)
{
	const char *p = text;

	CPU_ZERO_S(CPU_ALLOC_SIZE(CPUS_MAX), set);
	do {
		unsigned long first, last;
		char *end;

		first = last = *p >= '0' && *p <= '9' ? strtoul(p, &end, 10) : CPUS_MAX;
		if (first < CPUS_MAX && *end == '-' && end[1] >= '0' && end[1] <= '9')
			last = strtoul(end + 1, &end, 10);
		if (first >= CPUS_MAX || last >= CPUS_MAX || last < first || (*end && *end != ':'))
			return error_set(err, -EINVAL,
					 "%s: not CPUs such as 2, 0-3 or 0:2 (less than %d)", text,
					 CPUS_MAX);
		for (; first <= last; first++)
			CPU_SET_S(first, CPU_ALLOC_SIZE(CPUS_MAX), set);
		p = *end ? end + 1 : end;
	} while (*p);
	return 0;
}

static int set_affinity(pthread_t thread, const void *arg)
{
	return pthread_setaffinity_np(thread, CPU_ALLOC_SIZE(CPUS_MAX), arg);
}

struct policy {
	int policy;
	struct sched_param param;
};

static int set_policy(pthread_t thread, const void *arg)
{
	const struct policy *p = arg;

	return pthread_setschedparam(thread, p->policy, &p->param);
}

/* "fifo:10", "rr:10", "batch", "idle", "other". */
static int parse_policy(const char *text, struct policy *p, struct hako_error *err)
{
	static const struct {
		const char *name;
		int policy;
		bool priority;
	} policies[] = {
		{"fifo", SCHED_FIFO, true},    {"rr", SCHED_RR, true},
		{"batch", SCHED_BATCH, false}, {"idle", SCHED_IDLE, false},
		{"other", SCHED_OTHER, false},
	};
	size_t len = strcspn(text, ":");
	uint64_t priority = 0;

	for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
		if (strlen(policies[i].name) != len || strncmp(text, policies[i].name, len))
			continue;
		if (policies[i].priority != (text[len] == ':'))
			break;
		if (text[len] &&
		    (parse_uint(text + len + 1, &priority) || !priority || priority > 99))
			return error_set(err, -ERANGE, "%s: priorities are 1 to 99", text);
		p->policy = policies[i].policy;
		p->param = (struct sched_param){.sched_priority = priority};
		return 0;
	}
	return error_set(err, -EINVAL, "%s: not fifo:PRIORITY, rr:PRIORITY, batch, idle or other",
			 text);
}

static int unknown_thread(struct vm *vm, const char *name, struct hako_error *err)
{
	const char *names[] = {"io", "vcpus", "vcpu0", NULL};
	const char *nearest = str_nearest(name, names);
	uint64_t index;

	if (!strncmp(name, "vcpu", 4) && !parse_uint(name + 4, &index))
		return error_set(err, -EINVAL, "%s: the last vCPU is vcpu%u", name, vm->nvcpus - 1);
	return error_set(err, -EINVAL,
			 "%s: no such thread%s%s%s; there are vcpus, vcpu0 and so on, io, and "
			 "the names of --iothread",
			 name, nearest ? " (did you mean " : "", nearest ?: "",
			 nearest ? "?)" : "");
}

/* 0, or the error of the first that fails. */
static int for_threads(struct vm *vm, const char *name, const struct action *a, bool *found)
{
	struct loop *loop = !strcmp(name, "io") ? vm->io_loop : vm_find_iothread(vm, name);
	bool all = !strcmp(name, "vcpus");
	uint64_t index = UINT64_MAX;
	int r = 0;

	*found = true;
	if (loop)
		return a->apply(loop_thread(loop), a->arg);
	if (!all &&
	    (strncmp(name, "vcpu", 4) || parse_uint(name + 4, &index) || index >= vm->nvcpus))
		*found = false;
	for (uint32_t i = 0; i < vm->nvcpus && !r; i++)
		if (all || i == index)
			r = a->apply(vm->vcpu[i].thread, a->arg);
	return r;
}

static int apply(struct vm *vm, const char *name, const struct action *a, struct hako_error *err)
{
	bool found;
	int r = for_threads(vm, name, a, &found);

	if (!found)
		return unknown_thread(vm, name, err);
	return r ? error_errno(err, -r, "%s", name) : 0;
}

/* The kernel leaves out CPUs that are not there, and is content with the others. */
static int check_cpus(const cpu_set_t *wanted, const char *text, struct hako_error *err)
{
	const size_t size = CPU_ALLOC_SIZE(CPUS_MAX);
	cpu_set_t *before = CPU_ALLOC(CPUS_MAX), *got = CPU_ALLOC(CPUS_MAX);
	int r = before && got ? 0 : error_errno(err, -ENOMEM, "CPUs");

	if (!r && !sched_getaffinity(0, size, before)) {
		CPU_ZERO_S(size, got);
		if (!sched_setaffinity(0, size, wanted)) {
			sched_getaffinity(0, size, got);
			sched_setaffinity(0, size, before);
		}
		for (int i = 0; i < CPUS_MAX && !r; i++)
			if (CPU_ISSET_S(i, size, wanted) && !CPU_ISSET_S(i, size, got))
				r = error_set(err, -ENODEV,
					      "%s: CPU %d is not there, or not for this process",
					      text, i);
	}
	CPU_FREE(before);
	CPU_FREE(got);
	return r;
}

static int pin(struct vm *vm, const char *name, const char *text, struct hako_error *err)
{
	cpu_set_t *set = CPU_ALLOC(CPUS_MAX);
	int r = set ? parse_cpus(text, set, err) : error_errno(err, -ENOMEM, "CPUs");

	if (!r)
		r = check_cpus(set, text, err);
	if (!r)
		r = apply(vm, name, &(struct action){set_affinity, set}, err);
	CPU_FREE(set);
	return r;
}

static int schedule(struct vm *vm, const char *name, const char *text, struct hako_error *err)
{
	struct policy policy;
	int r = parse_policy(text, &policy, err);

	if (!r)
		r = apply(vm, name, &(struct action){set_policy, &policy}, err);
	if (r == -EPERM)
		error_hint(err, "real-time priorities need CAP_SYS_NICE or a limit, \"ulimit -r\"");
	return r;
}

static int for_list(struct vm *vm, char **list, const char *option,
		    int (*fn)(struct vm *, const char *, const char *, struct hako_error *),
		    struct hako_error *err)
{
	int r = 0;

	for (; list && *list && !r; list++) {
		struct keyvals kv = {0};

		r = keyvals_parse(&kv, *list, NULL, err);
		for (size_t i = 0; i < kv.n && !r; i++)
			r = fn(vm, kv.v[i].key, kv.v[i].value, err);
		keyvals_free(&kv);
		if (r)
			error_prefix(err, "--%s %s", option, *list);
	}
	return r;
}

int pin_threads(struct vm *vm, struct hako_error *err)
{
	int r = for_list(vm, vm->config->pin, "pin", pin, err);

	return r ?: for_list(vm, vm->config->sched, "sched", schedule, err);
}
