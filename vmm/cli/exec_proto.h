/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What hako exec and process 1 of its guest (guest/init.c) say to each other. Four virtio ports of the guest: control, and the command's
 * input, output and errors as they are. Numbers are little-endian.
 */
#ifndef VMM_CLI_EXEC_PROTO_H
#define VMM_CLI_EXEC_PROTO_H

#include <stdint.h>

/* Numbers of the ports. */
enum exec_port {
	EXEC_PORT_CONTROL = 1,
	EXEC_PORT_IN,
	EXEC_PORT_OUT,
	EXEC_PORT_ERR,
	EXEC_PORTS = 4,
};

#define EXEC_JOB_MAX   (4u << 20) /* Linux has 2 MiB for arguments and environment */
/* Mount tags are this and a number: 0 is the root, the others the directories that may be written. */
#define EXEC_TAG       "hako"
#define EXEC_PORT_NAME "hako-control"
#define EXEC_DISK      "hako-root" /* the serial number of the disk that is the root, if one is */

/* First to the guest. Behind it, each ended by a NUL: the current directory, the paths of shares 1 to nshares, the arguments, the environment. */
struct exec_job {
	uint32_t size;	   /* of all of it */
	uint32_t terminal; /* bit n: the command's descriptor n is a terminal */
	uint16_t rows, columns;
	uint32_t nshares, argc, envc;
	uint32_t root_disk; /* a boolean: the root is no share but a disk */
};

/* Then to the guest, at any time. */
enum exec_event_type {
	EXEC_SIGNAL = 1, /* a: the signal's number */
	EXEC_RESIZE,	 /* a rows, b columns */
};

struct exec_event {
	uint32_t type;
	uint16_t a, b;
};

/* From the guest. */
enum exec_report_type {
	EXEC_STARTED = 1, /* the command runs */
	EXEC_EXITED,	  /* value: the exit status as a shell has it */
	EXEC_REFUSED,	  /* the command, or the current directory, in text: value is the errno */
	EXEC_FAILED,	  /* something else, in text: value is the errno */
};

/* All but EXEC_STARTED are the last: all that the command has written has been sent before, so much of it. */
struct exec_report {
	uint32_t type, value;
	uint64_t out_bytes, err_bytes;
	char text[104]; /* ends with a NUL */
};

#endif
