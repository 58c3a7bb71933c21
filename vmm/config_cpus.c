/* SPDX-License-Identifier: GPL-2.0-only */
/* --cpus: how many, and in which sockets, dies and cores; --overcommit: what they keep while they are idle. */
#include <errno.h>

#include "config.h"

#define CPUS_MAX 4096 /* a host's KVM has a limit of its own */

struct cpus_options {
	uint32_t cpus, maxcpus;
	struct config_topology t;
};

#define T struct cpus_options
static const struct option cpus_options[] = {
	OPT_UINT("cpus", T, cpus, NULL, 1, CPUS_MAX, "how many run"),
	OPT_UINT("maxcpus", T, maxcpus, NULL, 1, CPUS_MAX, "how many there are places for"),
	OPT_UINT("sockets", T, t.sockets, NULL, 1, CPUS_MAX, "sockets"),
	OPT_UINT("dies", T, t.dies, "1", 1, CPUS_MAX, "dies of a socket"),
	OPT_UINT("cores", T, t.cores, NULL, 1, CPUS_MAX, "cores of a die"),
	OPT_UINT("threads", T, t.threads, NULL, 1, CPUS_MAX, "threads of a core"),
	OPT_END,
};
#undef T

/* QEMU since 6.2 fills up cores before sockets, and both before threads. */
static void complete(struct cpus_options *o)
{
	struct config_topology *t = &o->t;
	uint64_t all = o->maxcpus ?: o->cpus;

	if (!all) {
		t->sockets = t->sockets ?: 1;
		t->cores = t->cores ?: 1;
		t->threads = t->threads ?: 1;
	} else if (!t->cores) {
		t->sockets = t->sockets ?: 1;
		t->threads = t->threads ?: 1;
		t->cores = all / ((uint64_t)t->sockets * t->dies * t->threads);
	} else if (!t->sockets) {
		t->threads = t->threads ?: 1;
		t->sockets = all / ((uint64_t)t->dies * t->cores * t->threads);
	} else if (!t->threads) {
		t->threads = all / ((uint64_t)t->sockets * t->dies * t->cores);
	}
}

static int check(struct cpus_options *o, const char *text, struct hako_error *err)
{
	const struct config_topology *t = &o->t;
	unsigned __int128 places = (unsigned __int128)t->sockets * t->dies * t->cores * t->threads;

	if (!o->maxcpus)
		o->maxcpus = o->cpus ?: (uint32_t)(places > CPUS_MAX ? CPUS_MAX + 1 : places);
	if (!o->cpus)
		o->cpus = o->maxcpus;
	if (o->maxcpus > CPUS_MAX)
		return error_set(err, -ERANGE, "--cpus %s: more than %d", text, CPUS_MAX);
	if (places != o->maxcpus)
		return error_set(err, -EINVAL,
				 "--cpus %s: %u sockets of %u dies of %u cores of %u threads are "
				 "not %u CPUs",
				 text, t->sockets, t->dies, t->cores, t->threads, o->maxcpus);
	if (o->cpus > o->maxcpus)
		return error_set(err, -EINVAL, "--cpus %s: %u are more than maxcpus=%u", text,
				 o->cpus, o->maxcpus);
	return 0;
}

int config_parse_cpus(const char *text, uint32_t *ncpus, struct config_topology *topology,
		      struct hako_error *err)
{
	struct cpus_options o = {0};
	struct keyvals kv = {0};
	int r;

	if (!*text)
		return error_set(err, -EINVAL, "--cpus: how many?");
	r = keyvals_parse(&kv, text, "cpus", err);
	if (!r)
		r = options_defaults(cpus_options, &o, err);
	if (!r)
		r = options_apply(cpus_options, &o, &kv, true, err);
	keyvals_free(&kv);
	if (r) {
		error_prefix(err, "--cpus %s", text);
		return r;
	}
	complete(&o);
	r = check(&o, text, err);
	*ncpus = o.cpus;
	*topology = o.t;
	return r;
}

#define T struct config_overcommit
static const struct option overcommit_options[] = {
	OPT_BOOL("cpu-pm", T, cpu_pm, "off",
		 "idle vCPUs keep their CPU, and save its power themselves"),
	OPT_UINT("halt-poll", T, halt_poll, "0xffffffff", 0, 0,
		 "ns to look for a wake-up before an idle vCPU's thread sleeps"),
	OPT_END,
};
#undef T

int config_parse_overcommit(const char *text, struct config_overcommit *oc, struct hako_error *err)
{
	struct keyvals kv = {0};
	int r = keyvals_parse(&kv, text, NULL, err);

	if (!r)
		r = options_defaults(overcommit_options, oc, err);
	if (!r)
		r = options_apply(overcommit_options, oc, &kv, true, err);
	keyvals_free(&kv);
	if (!r && oc->halt_poll != CONFIG_HALT_POLL_HOST && oc->halt_poll > 1000000000)
		r = error_set(err, -ERANGE, "halt-poll=%u: more than a second", oc->halt_poll);
	if (!r && oc->cpu_pm && oc->halt_poll != CONFIG_HALT_POLL_HOST)
		r = error_set(err, -EINVAL,
			      "halt-poll: with cpu-pm=on an idle vCPU never gets there");
	return r ? error_prefix(err, "--overcommit %s", text), r : 0;
}
