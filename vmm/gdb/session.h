/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What GDB says to a VM, and the answers. All of it runs in one thread, the VM's io_loop; it never waits for a vCPU: what has to wait until all
 * are held goes on in gdb_session_held().
 */
#ifndef VMM_GDB_SESSION_H
#define VMM_GDB_SESSION_H

#include "packet.h"

struct vm;
struct debug_points;

/* Enough for an answer, its acknowledgement, and one that comes unasked. */
#define GDB_OUT_MAX (2 * GDB_FRAME_MAX + 16)

struct gdb_session {
	struct vm *vm;
	char *xml; /* the target's description */

	/* The connection. */
	struct gdb_reader reader;
	char reply[GDB_PACKET_MAX + 1];
	size_t reply_len;
	char frame[GDB_FRAME_MAX]; /* the last packet, in case it has to be sent again */
	size_t frame_len;
	char out[GDB_OUT_MAX]; /* to be sent; whoever sends it takes it away */
	size_t out_len;
	bool no_ack, swbreak, hwbreak;
	bool physical; /* addresses are */

	/* The VM. */
	bool attached;	      /* a debugger has stopped it, and has not left it */
	bool stopped;	      /* all vCPUs are held */
	bool leaving;	      /* once they are, forget the breakpoints and go on */
	bool waiting;	      /* GDB waits to hear of the next stop */
	bool interrupted;     /* which will be for GDB's Ctrl-C */
	bool silent;	      /* no answer to this packet, or none yet */
	unsigned int current; /* vCPU that registers and memory are looked at through */
	int step_vcpu;	      /* of the commands c and s; -1: all */
};

/** @s is zeroed. -ENOMEM. */
int gdb_session_init(struct gdb_session *s, struct vm *vm);
void gdb_session_free(struct gdb_session *s);
/** A connection begins; it has ended. */
void gdb_session_open(struct gdb_session *s);
void gdb_session_close(struct gdb_session *s);
/** A byte from GDB. @s->out had room for GDB_FRAME_MAX + 1 bytes at least. */
void gdb_session_take(struct gdb_session *s, uint8_t byte);
/** All vCPUs are held. */
void gdb_session_held(struct gdb_session *s);
/** The VM is at its end: say so, if GDB waits. */
void gdb_session_end(struct gdb_session *s);

/* --- between session.c, query.c and memory.c --------------------------------------------------------- */

/** Add to the answer; what is too long is cut off. */
void gdb_say(struct gdb_session *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void gdb_say_bytes(struct gdb_session *s, const void *bytes, size_t len);
void gdb_say_hex(struct gdb_session *s, const void *bytes, size_t len);
/** "OK", or the error -@r. */
void gdb_say_result(struct gdb_session *s, int r);

/** Packets that begin with q, Q and v. */
void gdb_query(struct gdb_session *s, const char *p);
/** vCont's actions. */
void gdb_vcont(struct gdb_session *s, const char *p);
/** "p1.1", "1", "-1", "0": the vCPU's index, -1 for all or any; -2 if there is none. *@p moves behind it. */
int gdb_thread(struct gdb_session *s, const char **p);
/** The VM's end. */
void gdb_kill(struct gdb_session *s);
void gdb_read_memory(struct gdb_session *s, const char *p);
/** @binary: the bytes themselves, not digits. */
void gdb_write_memory(struct gdb_session *s, const char *p, bool binary);

#endif
