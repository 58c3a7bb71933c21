/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Confinement: when all is opened and before the guest's first instruction, each thread of a VM gives up what it will not need. What that is
 * depends on the kind of the thread, and on what the VM's objects say that they need later (class.sandbox, class.confine).
 *
 * sandbox_new(); what is needed, by one thread; sandbox_ready(); then sandbox_enter() in each thread. Threads made by a confined one
 * are confined like it from their first instruction on.
 */
#ifndef VMM_SANDBOX_H
#define VMM_SANDBOX_H

#include "error.h"
#include "util.h"

enum sandbox_mode {
	SANDBOX_OFF,
	SANDBOX_ON,	/* system calls that are not allowed fail with EPERM */
	SANDBOX_STRICT, /* they end the process; and namespaces */
};
extern const char *const sandbox_mode_names[]; /* for option tables */

/* Kinds of threads. */
enum sandbox_thread {
	SANDBOX_VCPU,
	SANDBOX_LOOP,
	SANDBOX_WORKER, /* of a loop's pool, and the one that makes them */
	SANDBOX_MAIN,	/* the thread that holds the VM, and the control thread */
	SANDBOX_THREADS,
};

/* What an object may need after the start: bits. */
enum sandbox_need {
	SANDBOX_DISK = 1 << 0,	    /* files and block devices that are open */
	SANDBOX_SHARE = 1 << 1,	    /* directories of the host */
	SANDBOX_INET = 1 << 2,	    /* sockets of the Internet, made at any time */
	SANDBOX_SOCKET = 1 << 3,    /* sockets that are open, and connections to them */
	SANDBOX_RECONNECT = 1 << 4, /* new connections to the outside */
	SANDBOX_TAP = 1 << 5,
	SANDBOX_VHOST = 1 << 6,
	SANDBOX_TERMINAL = 1 << 7, /* terminals that are open */
	SANDBOX_RANDOM = 1 << 8,
	SANDBOX_EPOLL = 1 << 9,	 /* loops without io_uring */
	SANDBOX_FILES = 1 << 10, /* files that are opened at any time, for reading */
	SANDBOX_SENDING =
		1 << 11, /* messages with addresses or descriptors over sockets that are open */
	SANDBOX_DEBUG = 1 << 12, /* a debugger: registers and breakpoints */
	SANDBOX_LOCAL = 1 << 13, /* connections to Unix sockets, made at any time */
};
#define SANDBOX_NEEDS 14

/* Below a path that is given to sandbox_allow_path(). */
enum sandbox_access {
	SANDBOX_READ,
	SANDBOX_WRITE,	/* all that a shared directory's users do */
	SANDBOX_REMOVE, /* files in this very directory */
};

struct sandbox;
struct loop;

/**
 * The process's own namespaces, as far as they can be had before anything is opened: mounts, IPC, host name, and without privileges that
 * of users. While the process has a single thread. What was left out and why is remembered for the reports of sandbox_ready().
 */
void sandbox_namespaces(void);

/** @log: told once for each layer, from sandbox_ready() on; may be NULL. */
int sandbox_new(struct sandbox **sb, enum sandbox_mode mode,
		void (*log)(void *opaque, const char *line), void *opaque, struct hako_error *err);
/** No thread is about to enter any more. NULL is allowed. */
void sandbox_free(struct sandbox *sb);

void sandbox_need(struct sandbox *sb, unsigned int needs);
/** Threads of @kind may use what is at (and below) @path, or at the descriptor @fd if @path is NULL. 0 if there is no such path. */
int sandbox_allow_path(struct sandbox *sb, enum sandbox_thread kind, const char *path, int fd,
		       enum sandbox_access access);
/** The main thread will remove the file @path. */
int sandbox_allow_removal(struct sandbox *sb, const char *path);
/** A loop that an object has for itself: it is confined with the VM's. */
int sandbox_add_loop(struct sandbox *sb, struct loop *loop);
/** Workers keep those of root's capabilities that make it the owner of all files. */
void sandbox_keep_ownership(struct sandbox *sb);
unsigned int sandbox_needs(const struct sandbox *sb);

/** loop_confine() for those of sandbox_add_loop(). */
int sandbox_confine_loops(struct sandbox *sb, struct hako_error *err);

/** All needs are known. */
int sandbox_ready(struct sandbox *sb, struct hako_error *err);
/** Confine the calling thread, for good. */
int sandbox_enter(struct sandbox *sb, enum sandbox_thread kind, struct hako_error *err);

/** For `hako doctor`: call @layer for each layer with what the kernel has of it. @why: NULL if it is there, else why it is not. */
void sandbox_probe(void (*layer)(void *opaque, const char *name, const char *text, const char *why),
		   void *opaque);

/* For the documents: one line of the tables. */
struct sandbox_line {
	const char *name;     /* of the system call, or "ioctl NAME" */
	unsigned int threads; /* bits of enum sandbox_thread */
	unsigned int needs;   /* bits, any of which allows it; 0: always */
	const char *only;     /* the condition on its arguments, or NULL */
};
/** The line number @i, false behind the last. */
bool sandbox_line(size_t i, struct sandbox_line *line);
extern const char *const sandbox_thread_names[SANDBOX_THREADS];
extern const char *const sandbox_need_names[SANDBOX_NEEDS];

#endif
