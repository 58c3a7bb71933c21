/* SPDX-License-Identifier: GPL-2.0-only */
/* seccomp: libseccomp makes a program for each kind of thread out of the tables; threads of one kind share it. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dl.h"
#include "sandbox_impl.h"

#ifdef WITH_SECCOMP
#include <seccomp.h>

struct seccomp_api {
	__typeof__(seccomp_init) *seccomp_init;
	__typeof__(seccomp_release) *seccomp_release;
	__typeof__(seccomp_attr_set) *seccomp_attr_set;
	__typeof__(seccomp_rule_add_array) *seccomp_rule_add_array;
	__typeof__(seccomp_export_bpf) *seccomp_export_bpf;
};

static const struct dl_symbol symbols[] = {
	DL_SYMBOL(struct seccomp_api, seccomp_init),
	DL_SYMBOL(struct seccomp_api, seccomp_release),
	DL_SYMBOL(struct seccomp_api, seccomp_attr_set),
	DL_SYMBOL(struct seccomp_api, seccomp_rule_add_array),
	DL_SYMBOL(struct seccomp_api, seccomp_export_bpf),
	{NULL, 0},
};

static int load(struct seccomp_api *api, struct hako_error *err)
{
	return dl_load("libseccomp.so.2", symbols, api, "--sandbox", err);
}

/* --- programs ----------------------------------------------------------------------------------- */

struct build {
	const struct seccomp_api *api;
	scmp_filter_ctx ctx;
	unsigned int thread, needs; /* bits */
	int ret;		    /* the first error */
};

/* Allow @number if all of @cmp, @n of them. The kernel looks at the lower halves of these arguments only, and so do we. */
static void allow(struct build *b, int number, unsigned int n, const struct scmp_arg_cmp *cmp)
{
	int ret = b->api->seccomp_rule_add_array(b->ctx, SCMP_ACT_ALLOW, number, n, cmp);

	/* Two needs may allow the same. */
	if (ret && ret != -EEXIST && !b->ret)
		b->ret = ret;
}

static struct scmp_arg_cmp low(unsigned int arg, uint32_t mask, uint32_t value)
{
	return (struct scmp_arg_cmp){arg, SCMP_CMP_MASKED_EQ, mask, value};
}

static bool concerns(const struct build *b, unsigned int threads, unsigned int needs)
{
	return (threads & b->thread) && (!needs || (needs & b->needs));
}

static void allow_values(struct build *b, int number, const struct sandbox_value *table)
{
	for (; table->name; table++) {
		struct scmp_arg_cmp cmp = low(1, UINT32_MAX, table->value);

		if (concerns(b, table->threads, table->needs))
			allow(b, number, 1, &cmp);
	}
}

static void allow_sockets(struct build *b, enum sandbox_check check)
{
	static const uint32_t families[] = {AF_INET, AF_INET6, AF_UNIX};
	const uint32_t type = ~(SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct scmp_arg_cmp cmp[] = {low(0, UINT32_MAX, families[i]),
					     low(1, type, SOCK_STREAM)};

		if (check == (families[i] == AF_UNIX ? CHECK_INET : CHECK_LOCAL))
			continue;
		allow(b, SYS_socket, 2, cmp);
		cmp[1] = low(1, type, SOCK_DGRAM); /* ICMP too, where the kernel lets users ping */
		if (check == CHECK_INET)
			allow(b, SYS_socket, 2, cmp);
	}
}

/* glibc's for threads, no more and no less. */
#define THREAD_FLAGS                                                                        \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND | CLONE_THREAD | \
	 CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID)

static void allow_rule(struct build *b, const struct sandbox_rule *r)
{
	struct scmp_arg_cmp cmp = {0};

	switch (r->check) {
	case CHECK_NONE:
		allow(b, r->number, 0, NULL);
		return;
	case CHECK_IOCTL:
		allow_values(b, r->number, sandbox_ioctls);
		return;
	case CHECK_FCNTL:
		allow_values(b, r->number, sandbox_fcntls);
		return;
	case CHECK_URING:
		allow_values(b, r->number, sandbox_urings);
		return;
	case CHECK_INET:
	case CHECK_STREAM:
	case CHECK_LOCAL:
		allow_sockets(b, r->check);
		return;
	case CHECK_NO_EXEC:
		cmp = low(2, PROT_EXEC, 0);
		break;
	case CHECK_NAME:
		cmp = low(0, UINT32_MAX, PR_SET_NAME);
		break;
	case CHECK_THREAD:
		cmp = low(0, UINT32_MAX, THREAD_FLAGS);
		break;
	case CHECK_SELF:
		cmp = low(0, UINT32_MAX, getpid());
		break;
	}
	allow(b, r->number, 1, &cmp);
}

static bool is_allowed(const struct build *b, int number)
{
	for (const struct sandbox_rule *r = sandbox_rules; r->name; r++)
		if (r->number == number && concerns(b, r->threads, r->needs))
			return true;
	return false;
}

static void add_rules(struct build *b)
{
	for (const struct sandbox_rule *r = sandbox_rules; r->name; r++)
		if (concerns(b, r->threads, r->needs))
			allow_rule(b, r);
	for (const struct sandbox_refusal *r = sandbox_refusals; r->name; r++) {
		int ret = 0;

		if (!is_allowed(b, r->number))
			ret = b->api->seccomp_rule_add_array(b->ctx, SCMP_ACT_ERRNO(r->code),
							     r->number, 0, NULL);
		/* EACCES: it is what happens to all that is not allowed. */
		if (ret && ret != -EACCES && !b->ret)
			b->ret = ret;
	}
}

/* libseccomp writes it to a file. */
static int export(struct build *b, struct sandbox_program *program)
{
	int fd = memfd_create("seccomp", MFD_CLOEXEC), ret;
	struct stat st;

	if (fd < 0)
		return -errno;
	ret = b->api->seccomp_export_bpf(b->ctx, fd);
	if (!ret && fstat(fd, &st) < 0)
		ret = -errno;
	if (!ret && !(program->insn = malloc(st.st_size)))
		ret = -ENOMEM;
	if (!ret) {
		program->n = st.st_size / sizeof(*program->insn);
		ret = pread_all(fd, program->insn, st.st_size, 0);
	}
	close(fd);
	return ret;
}

static int build_one(struct sandbox *sb, const struct seccomp_api *api, enum sandbox_thread kind)
{
	struct build b = {.api = api, .thread = BIT(kind), .needs = sb->needs};

	b.ctx = api->seccomp_init(sb->mode == SANDBOX_STRICT ? SCMP_ACT_KILL_PROCESS
							     : SCMP_ACT_ERRNO(EPERM));
	if (!b.ctx)
		return -ENOMEM;
	/* A tree: the way to each rule is short. */
	b.ret = api->seccomp_attr_set(b.ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	add_rules(&b);
	if (!b.ret)
		b.ret = export(&b, &sb->program[kind]);
	api->seccomp_release(b.ctx);
	return b.ret;
}

int seccomp_build(struct sandbox *sb, struct hako_error *err)
{
	struct seccomp_api api;
	int ret = load(&api, err);

	if (ret)
		return ret;
	for (int kind = 0; kind < SANDBOX_THREADS && !ret; kind++)
		ret = build_one(sb, &api, kind);
	if (ret)
		return error_errno(err, ret, "libseccomp");
	sb->seccomp = true;
	return 0;
}
#else
static int load(void *api, struct hako_error *err)
{
	return error_set(err, -ENOTSUP, "this hako was built without seccomp");
}

int seccomp_build(struct sandbox *sb, struct hako_error *err)
{
	return load(NULL, err);
}
#endif

int seccomp_enter(const struct sandbox *sb, enum sandbox_thread kind)
{
	const struct sandbox_program *p = &sb->program[kind];
	struct sock_fprog prog = {p->n, p->insn};

	/*
	 * SPEC_ALLOW: vCPU threads run the guest, which chooses for itself whether to speculate around stores; by default a filter on kernels
	 * before 5.16 chooses for it, and makes it slow.
	 */
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW,
		       &prog) < 0
		       ? -errno
		       : 0;
}

const char *seccomp_missing(void)
{
	static __thread struct hako_error err;
	uint32_t action = SECCOMP_RET_KILL_PROCESS;
#ifdef WITH_SECCOMP
	struct seccomp_api api;
#else
	int api;
#endif

	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0)
		return "the kernel has no seccomp filters (CONFIG_SECCOMP_FILTER)";
	return load(&api, &err) ? err.message : NULL;
}
