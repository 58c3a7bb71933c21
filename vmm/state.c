/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The stream of one table: name (u8 length, bytes), version (u16), number of fields (u16); for each field its name, its
 * length in bytes (u32) and its contents. Numbers are written with the size they have in the struct. A struct's contents are a table's
 * stream again; an array behind a pointer is a count (u32) and so many tables' streams.
 */
#include "state.h"

#include <stdlib.h>

#define STATE_PTR_MAX 65536 /* elements behind a pointer: a bound for hostile streams */
#define STATE_DEPTH   8

void state_buf_free(struct state_buf *buf)
{
	if (buf->cap)
		free(buf->data);
	*buf = (struct state_buf){0};
}

static int put(struct state_buf *buf, const void *data, size_t len)
{
	if (buf->cap - buf->len < len) {
		size_t cap = MAX(buf->cap * 2, buf->len + len + 256);
		uint8_t *p = realloc(buf->data, cap);

		if (!p)
			return -ENOMEM;
		buf->data = p;
		buf->cap = cap;
	}
	memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return 0;
}

static int put_name(struct state_buf *buf, const char *name)
{
	uint8_t len = strlen(name);

	return put(buf, &len, 1) ?: put(buf, name, len);
}

static int save_field(struct state_buf *buf, const struct state_field *f, void *obj,
		      struct hako_error *err)
{
	uint8_t *field = (uint8_t *)obj + f->offset;
	uint32_t count = f->count;
	int r = 0;

	switch (f->type) {
	case STATE_UINT: /* hako's hosts are little-endian, as is the stream */
	case STATE_BYTES:
		return put(buf, field, f->size * f->count);
	case STATE_PTR:
		memcpy(&count, (uint8_t *)obj + f->count, 4);
		field = *(uint8_t **)field;
		r = put(buf, &count, 4);
		break;
	case STATE_STRUCT:
		break;
	}
	for (uint32_t i = 0; !r && i < count; i++)
		r = state_save(buf, f->table, field + i * f->size, err);
	return r;
}

static int save_named_field(struct state_buf *buf, const struct state_field *f, void *obj,
			    struct hako_error *err)
{
	uint32_t len = 0;
	size_t at;
	int r;

	r = put_name(buf, f->name);
	at = buf->len;
	if (!r)
		r = put(buf, &len, 4);
	if (!r)
		r = save_field(buf, f, obj, err);
	if (r)
		return r;
	len = buf->len - at - 4;
	memcpy(buf->data + at, &len, 4);
	return 0;
}

int state_save(struct state_buf *buf, const struct state_table *table, void *obj,
	       struct hako_error *err)
{
	uint16_t n = 0;
	int r = 0;

	if (table->pre_save)
		r = table->pre_save(obj, err);
	if (r)
		return error_prefix(err, "%s", table->name), r;
	for (const struct state_field *f = table->fields; f->name; f++)
		n++;
	r = put_name(buf, table->name) ?: put(buf, &table->version, 2) ?: put(buf, &n, 2);
	for (const struct state_field *f = table->fields; !r && f->name; f++)
		r = save_named_field(buf, f, obj, err);
	return r == -ENOMEM ? error_errno(err, r, "%s", table->name) : r;
}

/* --- loading --------------------------------------------------------------------------------- */

static int get(struct state_buf *buf, void *data, size_t len)
{
	if (buf->len - buf->pos < len)
		return -EBADMSG;
	memcpy(data, buf->data + buf->pos, len);
	buf->pos += len;
	return 0;
}

static int get_name(struct state_buf *buf, char name[256])
{
	uint8_t len;
	int r = get(buf, &len, 1);

	if (!r)
		r = get(buf, name, len);
	if (!r)
		name[len] = 0;
	return r;
}

static int load_table(struct state_buf *buf, const struct state_table *table, void *obj, int depth,
		      struct hako_error *err);

static int load_field(struct state_buf *buf, const struct state_field *f, void *obj, int depth,
		      struct hako_error *err)
{
	uint8_t *field = (uint8_t *)obj + f->offset;
	uint32_t count = f->count, have;
	int r = 0;

	switch (f->type) {
	case STATE_UINT:
	case STATE_BYTES:
		if (buf->len - buf->pos != f->size * f->count)
			return error_set(err, -EBADMSG, "%s: %zu bytes, not %zu", f->name,
					 buf->len - buf->pos, f->size * f->count);
		return get(buf, field, f->size * f->count);
	case STATE_PTR:
		if (get(buf, &count, 4) || count > STATE_PTR_MAX)
			return error_set(err, -EBADMSG, "%s: bad count", f->name);
		memcpy(&have, (uint8_t *)obj + f->count, 4);
		if (have != count)
			return error_set(err, -EBADMSG, "%s: %u elements, this one has %u", f->name,
					 count, have);
		field = *(uint8_t **)field;
		break;
	case STATE_STRUCT:
		break;
	}
	for (uint32_t i = 0; !r && i < count; i++)
		r = load_table(buf, f->table, field + i * f->size, depth + 1, err);
	return r;
}

static int load_named_field(struct state_buf *buf, const struct state_table *table, void *obj,
			    int depth, struct hako_error *err)
{
	const struct state_field *f = table->fields;
	struct state_buf inner;
	char name[256];
	uint32_t len;
	int r;

	if (get_name(buf, name) || get(buf, &len, 4) || buf->len - buf->pos < len)
		return error_set(err, -EBADMSG, "truncated at byte %zu", buf->pos);
	while (f->name && strcmp(f->name, name))
		f++;
	if (!f->name)
		return error_set(err, -EBADMSG, "%s: no such field", name);
	inner = (struct state_buf){buf->data, buf->pos + len, 0, buf->pos};
	r = load_field(&inner, f, obj, depth, err);
	if (!r && inner.pos != inner.len)
		r = error_set(err, -EBADMSG, "%s: bytes left over", name);
	buf->pos += len;
	return r;
}

static int load_table(struct state_buf *buf, const struct state_table *table, void *obj, int depth,
		      struct hako_error *err)
{
	uint16_t version, n;
	char name[256];
	int r = 0;

	if (depth > STATE_DEPTH || get_name(buf, name) || get(buf, &version, 2) || get(buf, &n, 2))
		return error_set(err, -EBADMSG, "%s: truncated at byte %zu", table->name, buf->pos);
	if (strcmp(name, table->name))
		return error_set(err, -EBADMSG, "%s: state of \"%s\" instead", table->name, name);
	if (version < table->min_version || version > table->version)
		return error_set(err, -EBADMSG, "%s: version %u, understood are %u to %u", name,
				 version, table->min_version, table->version);
	for (; !r && n; n--)
		r = load_named_field(buf, table, obj, depth, err);
	if (!r && table->post_load)
		r = table->post_load(obj, version, err);
	if (r)
		error_prefix(err, "%s", table->name);
	return r;
}

int state_load(struct state_buf *buf, const struct state_table *table, void *obj,
	       struct hako_error *err)
{
	return load_table(buf, table, obj, 0, err);
}
