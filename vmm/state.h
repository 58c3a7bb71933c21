/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * State tables: what of an object survives into a snapshot, field by field, beside its struct. Saving, restoring,
 * migrating and forking use these tables and nothing else.
 *
 * In the stream each field carries its name and its size, so that a newer hako reads an older stream: a field that the
 * stream lacks keeps its reset value if the table says since which version it is there; a field that the table lacks is an error.
 * All numbers are little-endian.
 */
#ifndef VMM_STATE_H
#define VMM_STATE_H

#include "error.h"
#include "util.h"

enum state_type {
	STATE_UINT,   /* unsigned integer or bool of 1, 2, 4 or 8 bytes, or an array of them */
	STATE_BYTES,  /* bytes as they are */
	STATE_STRUCT, /* struct(s) within the object, with a table of their own */
	STATE_PTR, /* the field is a pointer to an array of structs, whose length is in another field */
};

struct state_table;

struct state_field {
	const char *name;
	enum state_type type;
	size_t offset;
	size_t size;	/* of one element */
	size_t count;	/* elements; STATE_PTR: offset of the uint32_t that holds the count */
	uint16_t since; /* first version of the table that has it */
	const struct state_table *table; /* STATE_STRUCT, STATE_PTR */
};

struct state_table {
	const char *name;
	uint16_t version;		  /* what is written */
	uint16_t min_version;		  /* oldest that is understood */
	const struct state_field *fields; /* ends with a NULL name */
	/* Before saving: bring the fields up to date. After loading: check them (the stream is hostile) and act on them. */
	int (*pre_save)(void *obj, struct hako_error *err);
	int (*post_load)(void *obj, uint16_t version, struct hako_error *err);
};

#define STATE_ELEM(T, F) sizeof(((T *)0)->F)
#define STATE_FIELD_UINT(T, F)                                               \
	{                                                                    \
#F, STATE_UINT, offsetof(T, F), STATE_ELEM(T, F), 1, 1, NULL \
	}
#define STATE_FIELD_ARRAY(T, F)                                         \
	{                                                               \
#F, STATE_UINT, offsetof(T, F), STATE_ELEM(T, F[0]),    \
			STATE_ELEM(T, F) / STATE_ELEM(T, F[0]), 1, NULL \
	}
#define STATE_FIELD_BYTES(T, F)                                               \
	{                                                                     \
#F, STATE_BYTES, offsetof(T, F), STATE_ELEM(T, F), 1, 1, NULL \
	}
#define STATE_FIELD_STRUCT(T, F, TABLE)                                         \
	{                                                                       \
#F, STATE_STRUCT, offsetof(T, F), STATE_ELEM(T, F), 1, 1, TABLE \
	}
#define STATE_FIELD_PTR(T, F, COUNT, TABLE)                                                       \
	{                                                                                         \
#F, STATE_PTR, offsetof(T, F), sizeof(*((T *)0)->F), offsetof(T, COUNT), 1, TABLE \
	}
#define STATE_END            \
	{                    \
		.name = NULL \
	}

/* A growing buffer to save into, or a span to load from. */
struct state_buf {
	uint8_t *data;
	size_t len, cap; /* cap 0 when loading: data is the caller's */
	size_t pos;	 /* next byte to load */
};

void state_buf_free(struct state_buf *buf);

/** Append @obj to @buf as its table says. */
int state_save(struct state_buf *buf, const struct state_table *table, void *obj,
	       struct hako_error *err);

/** Fill @obj from @buf. After a failure @obj is in an unspecified but safe state: reset it. */
int state_load(struct state_buf *buf, const struct state_table *table, void *obj,
	       struct hako_error *err);

#endif
