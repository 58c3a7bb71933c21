/* SPDX-License-Identifier: GPL-2.0-only */
/* Options written as a JSON object, as QEMU's -device '{"driver": …}' and QMP's arguments. */
#include "option.h"

#ifdef WITH_JSON

#include <json-c/json.h>
#include <stdlib.h>

#include "dl.h"

struct json_lib {
	__typeof__(json_tokener_new) *json_tokener_new;
	__typeof__(json_tokener_parse_ex) *json_tokener_parse_ex;
	__typeof__(json_tokener_get_error) *json_tokener_get_error;
	__typeof__(json_tokener_get_parse_end) *json_tokener_get_parse_end;
	__typeof__(json_tokener_free) *json_tokener_free;
	__typeof__(json_tokener_error_desc) *json_tokener_error_desc;
	__typeof__(json_object_get_type) *json_object_get_type;
	__typeof__(json_object_get_string) *json_object_get_string;
	__typeof__(json_object_get_string_len) *json_object_get_string_len;
	__typeof__(json_object_array_length) *json_object_array_length;
	__typeof__(json_object_array_get_idx) *json_object_array_get_idx;
	__typeof__(json_object_get_object) *json_object_get_object;
	__typeof__(json_object_put) *json_object_put;
	__typeof__(json_object_iter_begin) *json_object_iter_begin;
	__typeof__(json_object_iter_end) *json_object_iter_end;
	__typeof__(json_object_iter_equal) *json_object_iter_equal;
	__typeof__(json_object_iter_next) *json_object_iter_next;
	__typeof__(json_object_iter_peek_name) *json_object_iter_peek_name;
	__typeof__(json_object_iter_peek_value) *json_object_iter_peek_value;
};

#define SYM(F) DL_SYMBOL(struct json_lib, F)
static const struct dl_symbol json_symbols[] = {
	SYM(json_tokener_new),
	SYM(json_tokener_parse_ex),
	SYM(json_tokener_get_error),
	SYM(json_tokener_get_parse_end),
	SYM(json_tokener_free),
	SYM(json_tokener_error_desc),
	SYM(json_object_get_type),
	SYM(json_object_get_string),
	SYM(json_object_get_string_len),
	SYM(json_object_array_length),
	SYM(json_object_array_get_idx),
	SYM(json_object_get_object),
	SYM(json_object_put),
	SYM(json_object_iter_begin),
	SYM(json_object_iter_end),
	SYM(json_object_iter_equal),
	SYM(json_object_iter_next),
	SYM(json_object_iter_peek_name),
	SYM(json_object_iter_peek_value),
	{NULL},
};

static int flatten(const struct json_lib *lib, struct keyvals *kv, const char *name,
		   struct json_object *value, struct hako_error *err);

static int flatten_object(const struct json_lib *lib, struct keyvals *kv, const char *prefix,
			  struct json_object *object, struct hako_error *err)
{
	struct json_object_iterator it = lib->json_object_iter_begin(object);
	struct json_object_iterator end = lib->json_object_iter_end(object);

	for (; !lib->json_object_iter_equal(&it, &end); lib->json_object_iter_next(&it)) {
		const char *key = lib->json_object_iter_peek_name(&it);
		char *name = *prefix ? str_printf("%s.%s", prefix, key) : strdup(key);
		int r;

		if (!name)
			return error_errno(err, -ENOMEM, "options");
		r = flatten(lib, kv, name, lib->json_object_iter_peek_value(&it), err);
		free(name);
		if (r)
			return r;
	}
	return 0;
}

static int flatten_item(const struct json_lib *lib, struct keyvals *kv, const char *list, size_t n,
			struct json_object *value, struct hako_error *err)
{
	char *name;
	int r;

	if (lib->json_object_get_type(value) != json_type_object)
		return flatten(lib, kv, list, value, err);
	name = str_printf("%s.%zu", list, n);
	if (!name)
		return error_errno(err, -ENOMEM, "options");
	r = flatten_object(lib, kv, name, value, err);
	free(name);
	return r;
}

static int flatten(const struct json_lib *lib, struct keyvals *kv, const char *name,
		   struct json_object *value, struct hako_error *err)
{
	const char *text;
	int r;

	switch (lib->json_object_get_type(value)) {
	case json_type_object:
		return flatten_object(lib, kv, name, value, err);
	case json_type_array:
		for (size_t i = 0; i < lib->json_object_array_length(value); i++) {
			r = flatten_item(lib, kv, name, i, lib->json_object_array_get_idx(value, i),
					 err);
			if (r)
				return r;
		}
		return 0;
	case json_type_null:
		if (keyvals_add(kv, name, ""))
			return error_errno(err, -ENOMEM, "options");
		kv->v[kv->n - 1].null = true;
		return 0;
	default:
		break;
	}
	text = lib->json_object_get_string(value);
	if (lib->json_object_get_type(value) == json_type_string &&
	    strlen(text) != (size_t)lib->json_object_get_string_len(value))
		return error_set(err, -EINVAL, "%s: a text with a zero byte", name);
	r = keyvals_add(kv, name, text);
	return r ? error_errno(err, r, "%s", name) : 0;
}

/* All of @text as one value, which the caller puts; NULL with an error. */
static struct json_object *parse(const struct json_lib *lib, const char *text,
				 struct hako_error *err)
{
	struct json_tokener *tok = lib->json_tokener_new();
	struct json_object *value;
	size_t end;

	if (!tok) {
		error_errno(err, -ENOMEM, "options");
		return NULL;
	}
	value = lib->json_tokener_parse_ex(tok, text, strlen(text));
	end = lib->json_tokener_get_parse_end(tok);
	if (!value) {
		enum json_tokener_error why = lib->json_tokener_get_error(tok);

		error_set(err, -EINVAL, "bad JSON at byte %zu: %s", end,
			  why == json_tokener_continue ? "it is not complete"
						       : lib->json_tokener_error_desc(why));
	} else {
		end += strspn(text + end, " \t\r\n");
		if (text[end]) {
			error_set(err, -EINVAL, "bad JSON at byte %zu: \"%s\" behind the object",
				  end, text + end);
			lib->json_object_put(value);
			value = NULL;
		}
	}
	lib->json_tokener_free(tok);
	return value;
}

/* What is an object stays one, as text. */
static int add_value(const struct json_lib *lib, struct keyvals *kv, const char *key,
		     struct json_object *value, struct hako_error *err)
{
	int r;

	if (lib->json_object_get_type(value) != json_type_object)
		return flatten(lib, kv, key, value, err);
	r = keyvals_add(kv, key, lib->json_object_get_string(value));
	return r ? error_errno(err, r, "%s", key) : 0;
}

static int add_values(const struct json_lib *lib, struct keyvals *kv, struct json_object *object,
		      struct hako_error *err)
{
	struct json_object_iterator it = lib->json_object_iter_begin(object);
	struct json_object_iterator end = lib->json_object_iter_end(object);
	int r = 0;

	for (; !r && !lib->json_object_iter_equal(&it, &end); lib->json_object_iter_next(&it)) {
		const char *key = lib->json_object_iter_peek_name(&it);
		struct json_object *value = lib->json_object_iter_peek_value(&it);

		if (lib->json_object_get_type(value) != json_type_array) {
			r = add_value(lib, kv, key, value, err);
			continue;
		}
		for (size_t i = 0; !r && i < lib->json_object_array_length(value); i++)
			r = add_value(lib, kv, key, lib->json_object_array_get_idx(value, i), err);
	}
	return r;
}

static int parse_object(struct keyvals *kv, const char *text, bool flat, struct hako_error *err)
{
	struct json_object *object;
	struct json_lib lib;
	int r;

	r = dl_load("libjson-c.so.5", json_symbols, &lib, "options in JSON", err);
	if (r)
		return r;
	object = parse(&lib, text, err);
	if (!object)
		return -EINVAL;
	if (lib.json_object_get_type(object) != json_type_object)
		r = error_set(err, -EINVAL, "bad JSON: not an object");
	else
		r = flat ? flatten_object(&lib, kv, "", object, err)
			 : add_values(&lib, kv, object, err);
	lib.json_object_put(object);
	return r;
}

#else

static int parse_object(struct keyvals *kv, const char *text, bool flat, struct hako_error *err)
{
	return error_set(err, -EOPNOTSUPP, "options in JSON: hako was built without json-c");
}

#endif

int keyvals_parse_json(struct keyvals *kv, const char *text, struct hako_error *err)
{
	return parse_object(kv, text, true, err);
}

int keyvals_parse_json_values(struct keyvals *kv, const char *text, struct hako_error *err)
{
	return parse_object(kv, text, false, err);
}
