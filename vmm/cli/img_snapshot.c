/* SPDX-License-Identifier: GPL-2.0-only */
/* hako img snapshot */
#include <stdio.h>
#include <time.h>

#include "img_info.h"

struct snapshot_args {
	char *format, *apply, *create, *delete;
	char **object;
	bool image_opts, force_share, quiet, list;
	struct block_node *node;
	struct hako_error err;
};

#define T struct snapshot_args
static const struct option snapshot_options[] = {
	OPT_BOOL("l|list", T, list, "off", "list the snapshots"),
	OPT_STRING("c|create", T, create, NULL, "make one of this name"),
	OPT_STRING("a|apply", T, apply, NULL, "make the disk what it was then; name or number"),
	OPT_STRING("d|delete", T, delete, NULL, "delete the one of this name"),
	IMG_OPT_FORMAT(T),
	IMG_OPT_QUIET(T),
	IMG_OPT_FORCE_SHARE(T),
	IMG_OPT_IMAGE_OPTS(T),
	IMG_OPT_OBJECT(T),
	OPT_END,
};
#undef T

void img_print_snapshots(const struct qcow2_snapshot *list, uint32_t n)
{
	if (!n)
		return;
	printf("Snapshot list:\n%-10s%-17s%8s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK", "ICOUNT");
	for (; n--; list++) {
		uint64_t ms = list->vm_clock_nsec / 1000000;
		char size[32], date[32] = "", clock[32], icount[24] = "";
		time_t t = list->date_sec;
		struct tm tm;

		if (localtime_r(&t, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		snprintf(clock, sizeof(clock), "%02u:%02u:%02u.%03u", (unsigned int)(ms / 3600000),
			 (unsigned int)(ms / 60000 % 60), (unsigned int)(ms / 1000 % 60),
			 (unsigned int)(ms % 1000));
		if (list->icount != UINT64_MAX)
			snprintf(icount, sizeof(icount), "%llu", (unsigned long long)list->icount);
		printf("%-9s %-16s %8s%20s%13s%11s\n", list->id, list->name,
		       img_size_str(list->vm_state_size, size), date, clock, icount);
	}
}

void img_json_snapshots(struct img_json *j, const struct qcow2_snapshot *list, uint32_t n)
{
	if (!n)
		return;
	img_json_open(j, "snapshots", '[');
	for (; n--; list++) {
		img_json_open(j, NULL, '{');
		if (list->icount != UINT64_MAX)
			img_json_uint(j, "icount", list->icount);
		img_json_uint(j, "vm-clock-nsec", list->vm_clock_nsec % NSEC_PER_SEC);
		img_json_str(j, "name", list->name);
		img_json_uint(j, "date-sec", list->date_sec);
		img_json_uint(j, "date-nsec", list->date_nsec);
		img_json_uint(j, "vm-clock-sec", list->vm_clock_nsec / NSEC_PER_SEC);
		img_json_str(j, "id", list->id);
		img_json_uint(j, "vm-state-size", list->vm_state_size);
		img_json_close(j, '}');
	}
	img_json_close(j, ']');
}

static int do_list(struct snapshot_args *a)
{
	struct qcow2_snapshot *list;
	uint32_t n;
	int r = qcow2_is_node(a->node) ? qcow2_snapshot_list(a->node, &list, &n, &a->err) : 0;

	if (r || !qcow2_is_node(a->node))
		return r;
	img_print_snapshots(list, n);
	qcow2_snapshots_free(list, n);
	return 0;
}

/* By its name only, as QEMU does it. The library looks for numbers first, and one may be another's name. */
static int delete_named(struct snapshot_args *a)
{
	struct qcow2_snapshot *list;
	uint32_t n;
	int r = qcow2_snapshot_list(a->node, &list, &n, &a->err);

	if (r)
		return r;
	r = error_set(&a->err, -ENOENT, "snapshot not found");
	for (uint32_t i = 0; i < n && r == -ENOENT; i++)
		if (!strcmp(list[i].name, a->delete))
			r = qcow2_snapshot_delete(a->node, list[i].id, &a->err);
	qcow2_snapshots_free(list, n);
	return r;
}

static int work(void *arg)
{
	struct snapshot_args *a = arg;
	const char *what, *name;
	int r;

	if (a->create) {
		what = "create";
		name = a->create;
		r = qcow2_snapshot_create(a->node, name, &a->err);
	} else if (a->apply) {
		what = "apply";
		name = a->apply;
		r = qcow2_snapshot_apply(a->node, name, &a->err);
	} else if (a->delete) {
		what = "delete";
		name = a->delete;
		r = delete_named(a);
	} else {
		return do_list(a);
	}
	return r ? error_prefix(&a->err, "Could not %s snapshot '%s'", what, name) : 0;
}

static int run(struct img *img)
{
	struct snapshot_args *a = img->args;
	struct img_open open = {
		.format = a->format,
		.image_opts = a->image_opts,
		.force_share = a->force_share,
		.write = a->create || a->apply || a->delete,
	};
	struct hako_error err;

	if (img_check_objects(img, a->object))
		return 1;
	if (a->list + !!a->create + !!a->apply + !!a->delete > 1)
		return img_usage(img, "Cannot mix '-l', '-a', '-c', '-d'");
	if (img->argc != 1)
		return img_usage(img, "Expecting one image file name");
	open.name = img->argv[0];
	if (img_open(img, &open, &a->node, &err))
		return img_fail(img, &err);
	if (!a->list && !open.write)
		return 0;
	return img_run(img, work, a) ? img_fail(img, &a->err) : 0;
}

const struct img_command img_snapshot = {
	.name = "snapshot",
	.arguments = "FILENAME",
	.help = "snapshots within an image",
	.options = snapshot_options,
	.args_size = sizeof(struct snapshot_args),
	.run = run,
};
