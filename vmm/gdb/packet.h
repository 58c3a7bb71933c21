/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets of GDB's remote protocol (its manual, appendix E): $DATA#SUM, where } hides the byte behind it. No thread, no lock. */
#ifndef VMM_GDB_PACKET_H
#define VMM_GDB_PACKET_H

#include "vmm/util.h"

#define GDB_PACKET_MAX 16384 /* bytes of data, either way */

enum gdb_event {
	GDB_NOTHING, /* more bytes are needed */
	GDB_PACKET,  /* whole, and its sum is right: data and len */
	GDB_BAD,     /* its sum is wrong */
	GDB_TOO_LONG,
	GDB_ACK,
	GDB_NAK,
	GDB_INTERRUPT, /* Ctrl-C */
};

/* All zeroes to begin with. */
struct gdb_reader {
	enum {
		GDB_BETWEEN,
		GDB_DATA,
		GDB_ESCAPED,
		GDB_SUM1,
		GDB_SUM2
	} state;
	uint8_t sum;
	char sum_digit;
	size_t len;		       /* may exceed what there is room for */
	char data[GDB_PACKET_MAX + 1]; /* escapes resolved; a zero behind it */
};

/** What @byte completes. */
enum gdb_event gdb_reader_take(struct gdb_reader *r, uint8_t byte);

#define GDB_FRAME_MAX (2 * GDB_PACKET_MAX + 4)

/** Make a packet of at most GDB_PACKET_MAX bytes of @data: its length. */
size_t gdb_frame(char out[GDB_FRAME_MAX], const char *data, size_t len);

/** -1 if it is none. */
int gdb_hex_digit(char c);
/** A hexadecimal number of up to 64 bits at *@p, which moves behind it; false if there is none, or a larger one. */
bool gdb_hex(const char **p, uint64_t *value);
/** Exactly 2 * @len digits; false if they are not. */
bool gdb_hex_bytes(const char *text, uint8_t *bytes, size_t len);

#endif
