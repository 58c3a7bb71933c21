/* SPDX-License-Identifier: GPL-2.0-only */
/* The layers of confinement. */
#ifndef VMM_SANDBOX_IMPL_H
#define VMM_SANDBOX_IMPL_H

#include "sandbox.h"

#define SANDBOX_PATHS 128
#define SANDBOX_LOOPS 64

struct sandbox_path {
	int fd;
	enum sandbox_thread kind;
	enum sandbox_access access;
};

struct sock_filter;
struct sandbox_program {
	struct sock_filter *insn;
	unsigned short n;
};

struct sandbox {
	enum sandbox_mode mode;
	unsigned int needs;
	bool keep_ownership;
	struct sandbox_path path[SANDBOX_PATHS];
	unsigned int npaths;
	struct loop *loop[SANDBOX_LOOPS];
	unsigned int nloops;
	void (*log)(void *opaque, const char *line);
	void *log_opaque;

	bool seccomp;
	struct sandbox_program program[SANDBOX_THREADS];
	int landlock; /* its ABI, 0: without */
	int net_fd;   /* of the network namespace to enter, or -1 */
};

/** "sandbox: …" */
void sandbox_log(struct sandbox *sb, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* --- sandbox_seccomp.c: libseccomp makes the programs out of sandbox_rules.c's tables ----------- */

int seccomp_build(struct sandbox *sb, struct hako_error *err);
int seccomp_enter(const struct sandbox *sb, enum sandbox_thread kind);
/** NULL, or why there is none. */
const char *seccomp_missing(void);

/* --- sandbox_rules.c ---------------------------------------------------------------------------- */

enum sandbox_check {
	CHECK_NONE,
	CHECK_NO_EXEC, /* argument 2 has no PROT_EXEC */
	CHECK_IOCTL,   /* argument 1 is in sandbox_ioctls */
	CHECK_FCNTL,   /* argument 1 is in sandbox_fcntls */
	CHECK_URING,   /* argument 1 is in sandbox_urings */
	CHECK_NAME,    /* argument 0 is PR_SET_NAME */
	CHECK_THREAD,  /* argument 0 are the flags of a thread, no namespaces */
	CHECK_INET,    /* argument 0 is AF_INET or AF_INET6, and no raw socket */
	CHECK_STREAM,  /* argument 0 is AF_UNIX, AF_INET or AF_INET6, and a stream */
	CHECK_LOCAL,   /* argument 0 is AF_UNIX, and a stream */
	CHECK_SELF,    /* argument 0 is the process */
};

struct sandbox_rule {
	const char *name;
	int number;
	unsigned int threads, needs;
	enum sandbox_check check;
};
extern const struct sandbox_rule sandbox_rules[]; /* ends with a NULL name */

/* Values that an argument may have. */
struct sandbox_value {
	const char *name;
	uint32_t value;
	unsigned int threads, needs;
};
extern const struct sandbox_value sandbox_ioctls[], sandbox_fcntls[], sandbox_urings[];

/* Not allowed, but tried by the C library, which does without: an error even where others end the process. */
struct sandbox_refusal {
	const char *name;
	int number, code;
};
extern const struct sandbox_refusal sandbox_refusals[];

/* --- sandbox_landlock.c -------------------------------------------------------------------------- */

/** The kernel's version of it; 0 if there is none. */
int landlock_abi(void);
int landlock_enter(const struct sandbox *sb, enum sandbox_thread kind);

/* --- sandbox_privileges.c ------------------------------------------------------------------------ */

int privileges_drop(const struct sandbox *sb, enum sandbox_thread kind);
/** A network namespace of its own, if the VM needs no other. In the thread that calls sandbox_ready(). */
void namespace_net(struct sandbox *sb);
/** Enter it, in another thread. */
int namespace_enter(const struct sandbox *sb);
/** What sandbox_namespaces() came to, for the log; NULL if it was not called. */
const char *namespaces_report(void);
/** NULL, or why none can be made. */
const char *namespaces_missing(void);

#endif
