/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Option tables: each configurable thing states its options once, in a table beside its code. Parsing of
 * command lines and JSON, help texts, introspection and shell completion all read that table.
 */
#ifndef VMM_OPTION_H
#define VMM_OPTION_H

#include "error.h"
#include "util.h"

enum option_type {
	OPTION_BOOL,	  /* bool: on|off (also yes|no, true|false) */
	OPTION_ONOFFAUTO, /* int: enum option_onoffauto */
	OPTION_UINT,	  /* unsigned of option.size bytes, within min and max */
	OPTION_SIZE,	  /* uint64_t bytes: 4096, 512M, 1.5G, 0x1000 */
	OPTION_STRING,	  /* char *, owned by the object, NULL when not given */
	OPTION_ENUM,	  /* int, index into option.values */
	OPTION_MAC,	  /* uint8_t[6] */
	OPTION_LIST, /* char **: strings, NULL-terminated; the option may be given several times */
	OPTION_NODE, /* struct option_tree: a disk node's id, or "NAME.key=value": the options of one that is made for it */
	OPTION_TREE, /* struct option_tree: "NAME.key=value" only */
};

enum option_onoffauto {
	ONOFFAUTO_AUTO,
	ONOFFAUTO_ON,
	ONOFFAUTO_OFF
};

struct option {
	const char *name;
	enum option_type type;
	size_t offset;		   /* of the field in the object */
	size_t size;		   /* of the field */
	const char *def;	   /* default, as text; NULL: zero */
	uint64_t min, max;	   /* OPTION_UINT and OPTION_SIZE; max 0: no limit */
	const char *const *values; /* OPTION_ENUM: NULL-terminated names */
	bool required;
	const char *help; /* one line */
};

#define OPTION_FIELD(T, F) offsetof(T, F), sizeof(((T *)0)->F)
/* Table entries. T: type of the object, F: its field. */
#define OPT_BOOL(N, T, F, DEF, HELP)                                             \
	{                                                                        \
		N, OPTION_BOOL, OPTION_FIELD(T, F), DEF, 0, 0, NULL, false, HELP \
	}
#define OPT_ONOFFAUTO(N, T, F, DEF, HELP)                                             \
	{                                                                             \
		N, OPTION_ONOFFAUTO, OPTION_FIELD(T, F), DEF, 0, 0, NULL, false, HELP \
	}
#define OPT_UINT(N, T, F, DEF, MINV, MAXV, HELP)                                       \
	{                                                                              \
		N, OPTION_UINT, OPTION_FIELD(T, F), DEF, MINV, MAXV, NULL, false, HELP \
	}
#define OPT_SIZE(N, T, F, DEF, MINV, MAXV, HELP)                                       \
	{                                                                              \
		N, OPTION_SIZE, OPTION_FIELD(T, F), DEF, MINV, MAXV, NULL, false, HELP \
	}
#define OPT_STRING(N, T, F, DEF, HELP)                                             \
	{                                                                          \
		N, OPTION_STRING, OPTION_FIELD(T, F), DEF, 0, 0, NULL, false, HELP \
	}
#define OPT_STRING_REQUIRED(N, T, F, HELP)                                         \
	{                                                                          \
		N, OPTION_STRING, OPTION_FIELD(T, F), NULL, 0, 0, NULL, true, HELP \
	}
#define OPT_ENUM(N, T, F, DEF, VALUES, HELP)                                       \
	{                                                                          \
		N, OPTION_ENUM, OPTION_FIELD(T, F), DEF, 0, 0, VALUES, false, HELP \
	}
#define OPT_MAC(N, T, F, HELP)                                                   \
	{                                                                        \
		N, OPTION_MAC, OPTION_FIELD(T, F), NULL, 0, 0, NULL, false, HELP \
	}
#define OPT_LIST(N, T, F, HELP)                                                   \
	{                                                                         \
		N, OPTION_LIST, OPTION_FIELD(T, F), NULL, 0, 0, NULL, false, HELP \
	}
#define OPT_NODE(N, T, F, HELP)                                                   \
	{                                                                         \
		N, OPTION_NODE, OPTION_FIELD(T, F), NULL, 0, 0, NULL, false, HELP \
	}
#define OPT_TREE(N, T, F, HELP)                                                   \
	{                                                                         \
		N, OPTION_TREE, OPTION_FIELD(T, F), NULL, 0, 0, NULL, false, HELP \
	}
#define OPT_END              \
	{                    \
		.name = NULL \
	}

/* Parsed but not yet understood: "a=1,b=2" or a JSON object as keys and values, in order. */
struct keyval {
	char *key;
	char *value;
	bool used; /* taken by somebody; what nobody takes is an error */
	bool null; /* JSON's null; the value is empty */
};

struct keyvals {
	struct keyval *v;
	size_t n;
};

/* The field of OPTION_NODE and OPTION_TREE, owned by the object. */
struct option_tree {
	char *id;	   /* NULL: not given; empty: there shall be none */
	struct keyvals kv; /* without the option's own name and dot */
};

/**
 * Parse QEMU's form: comma-separated key=value, ",," for a comma in a value, "key" alone for key=on. If the first item has
 * no '=', it is the value of @implied_key (unless that is NULL). A text that starts with '{' is a JSON object: nested
 * objects become keys "outer.inner", lists repeated keys, lists of objects "list.0.key". On failure @kv holds what was read so far; free it in any case.
 */
int keyvals_parse(struct keyvals *kv, const char *text, const char *implied_key,
		  struct hako_error *err);
int keyvals_parse_json(struct keyvals *kv, const char *text, struct hako_error *err);
/** The same but for nested objects, which stay the values they are, as texts of JSON. */
int keyvals_parse_json_values(struct keyvals *kv, const char *text, struct hako_error *err);
int keyvals_add(struct keyvals *kv, const char *key, const char *value);
/** The last value of @key, marked used; NULL if there is none. */
const char *keyvals_take(struct keyvals *kv, const char *key);
/** The last value of @key, without marking it. */
const char *keyvals_get(const struct keyvals *kv, const char *key);
void keyvals_free(struct keyvals *kv);

/** Set all fields of @obj to the table's defaults. */
int options_defaults(const struct option *table, void *obj, struct hako_error *err);

/**
 * Set from @kv all options that the table knows, and mark them used. With @strict an unused key afterwards is an error
 * that names the nearest option there is, and so is a required option that is missing.
 */
int options_apply(const struct option *table, void *obj, struct keyvals *kv, bool strict,
		  struct hako_error *err);

/** Is each key that nobody took "id" or in one of the @ntables (which may be NULL)? If not, the error names the nearest. */
int options_check_known(const struct option *const *tables, size_t ntables,
			const struct keyvals *kv, struct hako_error *err);

/** The option of @table that @key is for ("file.filename" is for the node option "file"), or NULL. */
const struct option *option_find(const struct option *table, const char *key);

/** Set one option from its text. */
int option_set(const struct option *opt, void *obj, const char *value, struct hako_error *err);

/** The value as text, the form option_set() reads; the caller frees it. NULL: not set. */
char *option_get(const struct option *opt, const void *obj);

/** Free the strings and lists that the options own. */
void options_free(const struct option *table, void *obj);

/**
 * For an OPTION_TREE called @name that is a list of objects, "NAME.0.key=value": @item for each, in order, until it fails. What it does not
 * take is an error, and so is a number that is left out.
 */
int option_tree_items(const struct option_tree *tree, const char *name,
		      int (*item)(void *opaque, struct keyvals *kv, struct hako_error *err),
		      void *opaque, struct hako_error *err);

/** "512M", "1.5G", "0x1000"; a plain number counts in units of @unit bytes. -EINVAL or -ERANGE. */
int parse_size(const char *text, uint64_t unit, uint64_t *bytes);
/** A decimal, 0x or 0 number with nothing behind it. */
int parse_uint(const char *text, uint64_t *value);

#endif
