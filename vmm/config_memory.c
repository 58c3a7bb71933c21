/* SPDX-License-Identifier: GPL-2.0-only */
/* --memory: how much, and of what kind. */
#include "config.h"

enum {
	HUGE_OFF,
	HUGE_ON,
	HUGE_2M,
	HUGE_1G
};
static const char *const huge_names[] = {"off", "on", "2M", "1G", NULL};

struct words {
	char *size;
	int huge;
	bool share, prealloc, lock, merge, dump, thp;
	uint32_t threads;
};

#define T struct words
static const struct option memory_options[] = {
	OPT_STRING("size", T, size, NULL, "how much; a plain number counts MiB"),
	OPT_ENUM("hugepages", T, huge, "off", huge_names, "of reserved huge pages; on: of 2M"),
	OPT_BOOL("share", T, share, "off", "other processes may map it"),
	OPT_BOOL("prealloc", T, prealloc, "off", "have all of it from the start"),
	OPT_UINT("threads", T, threads, "0", 0, 256, "that do so; 0: as many as there are CPUs"),
	OPT_BOOL("lock", T, lock, "off", "never swapped out"),
	OPT_BOOL("merge", T, merge, "off", "equal pages of several guests are one (KSM)"),
	OPT_BOOL("dump", T, dump, "off", "part of core dumps"),
	OPT_BOOL("thp", T, thp, "on", "transparent huge pages"),
	OPT_END,
};
#undef T

static int check_size(const char *text, uint64_t *size, struct hako_error *err)
{
	int r = text ? parse_size(text, MiB, size) : -EINVAL;

	if (r == -EINVAL)
		return error_set(err, r, "not a size such as 512M or 4G");
	if (r)
		return error_set(err, r, "out of range");
	if (*size < 1 * MiB)
		return error_set(err, -ERANGE, "a guest needs at least 1M");
	if (*size % PAGE_SIZE)
		return error_set(err, -EINVAL, "not a multiple of 4 KiB");
	return 0;
}

static int convert(const struct words *w, uint64_t size, struct memory_options *mem,
		   struct hako_error *err)
{
	*mem = (struct memory_options){
		.huge = w->huge == HUGE_1G ? GiB
			: w->huge	   ? 2 * MiB
					   : 0,
		.no_thp = !w->thp,
		.share = w->share,
		.merge = w->merge,
		.dump = w->dump,
		.prealloc = w->prealloc,
		.lock = w->lock,
		.threads = w->threads,
	};
	if (mem->huge && size % mem->huge)
		return error_set(err, -EINVAL, "not a multiple of %s",
				 w->huge == HUGE_1G ? "1G" : "2M");
	if (mem->merge && (mem->huge || mem->share))
		return error_set(err, -EINVAL, "merge=on is for private memory without hugepages");
	if (mem->threads && !mem->prealloc)
		return error_set(err, -EINVAL, "threads=%u needs prealloc=on", mem->threads);
	return 0;
}

int config_parse_memory(const char *text, uint64_t *size, struct memory_options *mem,
			struct hako_error *err)
{
	struct words w = {0};
	struct keyvals kv = {0};
	int r = keyvals_parse(&kv, text, "size", err);

	if (!r)
		r = options_defaults(memory_options, &w, err);
	if (!r)
		r = options_apply(memory_options, &w, &kv, true, err);
	if (!r)
		r = check_size(w.size, size, err);
	if (!r)
		r = convert(&w, *size, mem, err);
	keyvals_free(&kv);
	options_free(memory_options, &w);
	return r ? error_prefix(err, "--memory %s", text), r : 0;
}
