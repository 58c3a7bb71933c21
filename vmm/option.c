/* SPDX-License-Identifier: GPL-2.0-only */
#include "option.h"

#include <math.h>
#include <stdlib.h>
#include <stdio.h>

int parse_uint(const char *text, uint64_t *value)
{
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, 0);
	if (errno == ERANGE)
		return -ERANGE;
	return *end ? -EINVAL : 0;
}

/* What a suffix multiplies by; 0: no such suffix. */
static uint64_t size_suffix(const char *s, uint64_t unit)
{
	static const char letters[] = "bkmgtpe";
	const char *at;

	if (!*s)
		return unit;
	at = strchr(letters, *s | 0x20);
	if (!at || (s[1] && strcasecmp(s + 1, "b") && strcasecmp(s + 1, "ib")))
		return 0;
	return 1ull << (10 * (at - letters));
}

int parse_size(const char *text, uint64_t unit, uint64_t *bytes)
{
	uint64_t whole, mult;
	double frac = 0;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end, strncasecmp(text, "0x", 2) ? 10 : 16);
	if (errno == ERANGE)
		return -ERANGE;
	if (*end == '.') {
		double scale = 0.1;

		for (end++; *end >= '0' && *end <= '9'; end++, scale /= 10)
			frac += (*end - '0') * scale;
	}
	mult = size_suffix(end, unit);
	if (!mult)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, mult, &whole) ||
	    __builtin_add_overflow(whole, (uint64_t)(frac * mult), bytes))
		return -ERANGE;
	return 0;
}

/* --- keys and values ------------------------------------------------------------------------- */

static int keyvals_add_owned(struct keyvals *kv, char *key, char *value)
{
	struct keyval *v = NULL;

	if (key && value)
		v = realloc(kv->v, (kv->n + 1) * sizeof(*v));
	if (!v) {
		free(key);
		free(value);
		return -ENOMEM;
	}
	kv->v = v;
	v[kv->n++] = (struct keyval){.key = key, .value = value};
	return 0;
}

int keyvals_add(struct keyvals *kv, const char *key, const char *value)
{
	return keyvals_add_owned(kv, strdup(key), strdup(value));
}

const char *keyvals_get(const struct keyvals *kv, const char *key)
{
	for (size_t i = kv->n; i-- > 0;)
		if (!strcmp(kv->v[i].key, key))
			return kv->v[i].value;
	return NULL;
}

const char *keyvals_take(struct keyvals *kv, const char *key)
{
	for (size_t i = 0; i < kv->n; i++)
		if (!strcmp(kv->v[i].key, key))
			kv->v[i].used = true;
	return keyvals_get(kv, key);
}

void keyvals_free(struct keyvals *kv)
{
	for (size_t i = 0; i < kv->n; i++) {
		free(kv->v[i].key);
		free(kv->v[i].value);
	}
	free(kv->v);
	*kv = (struct keyvals){0};
}

/* One item up to a single comma, ",," standing for a comma. *@text moves behind it. */
static char *next_item(const char **text)
{
	const char *s = *text;
	char *item = malloc(strlen(s) + 1), *out = item;

	if (!item)
		return NULL;
	for (; *s; s++) {
		if (*s == ',') {
			if (s[1] != ',')
				break;
			s++;
		}
		*out++ = *s;
	}
	*out = 0;
	*text = *s ? s + 1 : s;
	return item;
}

int keyvals_parse(struct keyvals *kv, const char *text, const char *implied_key,
		  struct hako_error *err)
{
	if (*text == '{')
		return keyvals_parse_json(kv, text, err);
	for (bool first = true; *text; first = false) {
		char *item = next_item(&text), *eq;
		int r;

		if (!item)
			return error_errno(err, -ENOMEM, "options");
		eq = strchr(item, '=');
		if (!*item || eq == item) {
			free(item);
			return error_set(err, -EINVAL, "an option without a name before \"%s\"",
					 text);
		}
		if (eq) {
			*eq = 0;
			r = keyvals_add(kv, item, eq + 1);
		} else if (first && implied_key) {
			r = keyvals_add(kv, implied_key, item);
		} else {
			r = keyvals_add(kv, item, "on");
		}
		free(item);
		if (r)
			return error_errno(err, r, "options");
	}
	return 0;
}

/* --- options --------------------------------------------------------------------------------- */

static const char *const bool_names[] = {"on", "yes", "true", "off", "no", "false", NULL};
static const char *const onoffauto_names[] = {"auto", "on", "off", NULL};

static int find_name(const char *const *names, const char *value)
{
	for (int i = 0; names[i]; i++)
		if (!strcasecmp(names[i], value))
			return i;
	return -1;
}

static int bad_choice(const struct option *opt, const char *value, const char *const *names,
		      struct hako_error *err)
{
	const char *nearest = str_nearest(value, names);
	char list[400] = "";

	for (; *names; names++) {
		size_t len = strlen(list);

		snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", *names);
	}
	if (nearest)
		return error_set(err, -EINVAL,
				 "%s=%s: no such value (did you mean %s? There are: %s)", opt->name,
				 value, nearest, list);
	return error_set(err, -EINVAL, "%s=%s: no such value (there are: %s)", opt->name, value,
			 list);
}

static int set_number(const struct option *opt, void *field, const char *value,
		      struct hako_error *err)
{
	uint64_t max = opt->max, v;
	int r;

	if (!max)
		max = opt->size == 8 ? UINT64_MAX : (1ull << (8 * opt->size)) - 1;
	r = opt->type == OPTION_SIZE ? parse_size(value, 1, &v) : parse_uint(value, &v);
	if (r == -EINVAL)
		return error_set(err, r, "%s=%s: not a %s", opt->name, value,
				 opt->type == OPTION_SIZE ? "size (such as 4096, 512M, 2G)"
							  : "number");
	if (r || v < opt->min || v > max)
		return error_set(err, -ERANGE, "%s=%s: out of range, %llu to %llu", opt->name,
				 value, (unsigned long long)opt->min, (unsigned long long)max);
	v = htole64(v); /* hako runs on little-endian hosts only; this keeps the copy honest */
	memcpy(field, &v, opt->size);
	return 0;
}

static int set_mac(const struct option *opt, uint8_t *mac, const char *value,
		   struct hako_error *err)
{
	unsigned int b[6];
	char end;

	/* sscanf() alone would take spaces and signs too. */
	if (strlen(value) != 17 || strspn(value, "0123456789abcdefABCDEF:") != 17 ||
	    sscanf(value, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		   &end) != 6)
		return error_set(err, -EINVAL, "%s=%s: not a MAC address such as 52:54:00:12:34:56",
				 opt->name, value);
	if (b[0] & 1)
		return error_set(err, -EINVAL,
				 "%s=%s: a multicast address; the first byte has to be even",
				 opt->name, value);
	for (int i = 0; i < 6; i++)
		mac[i] = b[i];
	return 0;
}

static int append_list(char ***list, const char *value)
{
	size_t n = 0;
	char **v;

	while (*list && (*list)[n])
		n++;
	v = realloc(*list, (n + 2) * sizeof(*v));
	if (!v)
		return -ENOMEM;
	*list = v;
	v[n + 1] = NULL;
	v[n] = strdup(value);
	return v[n] ? 0 : -ENOMEM;
}

/* "NAME=@value" (@key is empty), or "NAME.@key=@value". */
static int set_tree(const struct option *opt, struct option_tree *tree, const char *key,
		    const char *value, struct hako_error *err)
{
	char *copy;

	if (*key) {
		if (tree->id)
			return error_set(err, -EINVAL, "%s=%s and %s.%s=%s exclude each other",
					 opt->name, tree->id, opt->name, key, value);
		return keyvals_add(&tree->kv, key, value) ? error_errno(err, -ENOMEM, "options")
							  : 0;
	}
	if (opt->type == OPTION_TREE)
		return error_set(err, -EINVAL, "%s=%s: it has options of its own, %s.…=…",
				 opt->name, value, opt->name);
	if (tree->kv.n)
		return error_set(err, -EINVAL, "%s=%s and %s.%s=%s exclude each other", opt->name,
				 value, opt->name, tree->kv.v[0].key, tree->kv.v[0].value);
	copy = strdup(value);
	if (!copy)
		return error_errno(err, -ENOMEM, "%s", opt->name);
	free(tree->id);
	tree->id = copy;
	return 0;
}

int option_set(const struct option *opt, void *obj, const char *value, struct hako_error *err)
{
	void *field = (char *)obj + opt->offset;
	char *copy;
	int i;

	switch (opt->type) {
	case OPTION_BOOL:
		i = find_name(bool_names, value);
		if (i < 0)
			return bad_choice(opt, value, (const char *const[]){"on", "off", NULL},
					  err);
		*(bool *)field = i < 3;
		return 0;
	case OPTION_ONOFFAUTO:
	case OPTION_ENUM: {
		const char *const *names = opt->type == OPTION_ENUM ? opt->values : onoffauto_names;

		i = find_name(names, value);
		if (i < 0)
			return bad_choice(opt, value, names, err);
		*(int *)field = i;
		return 0;
	}
	case OPTION_UINT:
	case OPTION_SIZE:
		return set_number(opt, field, value, err);
	case OPTION_STRING:
		copy = strdup(value);
		if (!copy)
			return error_errno(err, -ENOMEM, "%s", opt->name);
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case OPTION_MAC:
		return set_mac(opt, field, value, err);
	case OPTION_LIST:
		i = append_list(field, value);
		return i ? error_errno(err, i, "%s", opt->name) : 0;
	case OPTION_NODE:
	case OPTION_TREE:
		return set_tree(opt, field, "", value, err);
	}
	return error_set(err, -EINVAL, "%s: cannot be set", opt->name);
}

char *option_get(const struct option *opt, const void *obj)
{
	const void *field = (const char *)obj + opt->offset;
	uint64_t v = 0;

	switch (opt->type) {
	case OPTION_BOOL:
		return strdup(*(const bool *)field ? "on" : "off");
	case OPTION_ONOFFAUTO:
		return strdup(onoffauto_names[*(const int *)field]);
	case OPTION_ENUM:
		return strdup(opt->values[*(const int *)field]);
	case OPTION_UINT:
	case OPTION_SIZE:
		memcpy(&v, field, opt->size);
		return str_printf("%llu", (unsigned long long)v);
	case OPTION_STRING:
		return *(char *const *)field ? strdup(*(char *const *)field) : NULL;
	case OPTION_MAC: {
		const uint8_t *m = field;

		return str_printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4],
				  m[5]);
	}
	case OPTION_NODE: {
		const struct option_tree *tree = field;

		return tree->id ? strdup(tree->id) : NULL;
	}
	case OPTION_LIST:
	case OPTION_TREE:
		break;
	}
	return NULL;
}

int options_defaults(const struct option *table, void *obj, struct hako_error *err)
{
	for (; table && table->name; table++) {
		int r = table->def ? option_set(table, obj, table->def, err) : 0;

		if (r)
			return r;
	}
	return 0;
}

static int unknown_option(const struct option *const *tables, size_t ntables, const char *key,
			  struct hako_error *err)
{
	const char *names[128];
	const char *nearest;
	size_t n = 0;

	for (size_t i = 0; i < ntables; i++)
		for (const struct option *o = tables[i]; o && o->name; o++)
			if (n < ARRAY_SIZE(names) - 2)
				names[n++] = o->name;
	names[n++] = "id";
	names[n] = NULL;
	nearest = str_nearest(key, names);
	if (nearest)
		return error_set(err, -EINVAL, "%s: no such option (did you mean %s?)", key,
				 nearest);
	return error_set(err, -EINVAL, "%s: no such option", key);
}

/* Is @key for @opt? If so, the part after NAME and dot, or "". */
static const char *match(const struct option *opt, const char *key)
{
	size_t len = strlen(opt->name);

	if (strncmp(opt->name, key, len))
		return NULL;
	if (!key[len])
		return key + len;
	if (key[len] == '.' && (opt->type == OPTION_NODE || opt->type == OPTION_TREE))
		return key + len + 1;
	return NULL;
}

const struct option *option_find(const struct option *table, const char *key)
{
	for (const struct option *o = table; o && o->name; o++)
		if (match(o, key))
			return o;
	return NULL;
}

static bool is_known(const struct option *const *tables, size_t ntables, const char *key)
{
	for (size_t i = 0; i < ntables; i++)
		if (option_find(tables[i], key))
			return true;
	return !strcmp(key, "id");
}

int options_check_known(const struct option *const *tables, size_t ntables,
			const struct keyvals *kv, struct hako_error *err)
{
	for (size_t i = 0; i < kv->n; i++)
		if (!kv->v[i].used && !is_known(tables, ntables, kv->v[i].key))
			return unknown_option(tables, ntables, kv->v[i].key, err);
	return 0;
}

static int check_used(const struct option *table, const struct keyvals *kv, struct hako_error *err)
{
	for (size_t i = 0; i < kv->n; i++)
		if (!kv->v[i].used)
			return unknown_option(&table, 1, kv->v[i].key, err);
	return 0;
}

/* All "N.key" of @tree as "key" to @kv: how many. */
static int take_item(const struct option_tree *tree, unsigned int n, struct keyvals *kv)
{
	char prefix[16];
	int len = snprintf(prefix, sizeof(prefix), "%u.", n), found = 0;

	for (size_t i = 0; i < tree->kv.n; i++) {
		const struct keyval *v = &tree->kv.v[i];

		if (strncmp(v->key, prefix, len))
			continue;
		if (keyvals_add(kv, v->key + len, v->value))
			return -ENOMEM;
		found++;
	}
	return found;
}

int option_tree_items(const struct option_tree *tree, const char *name,
		      int (*item)(void *opaque, struct keyvals *kv, struct hako_error *err),
		      void *opaque, struct hako_error *err)
{
	size_t left = tree->kv.n;
	int ret = 0;

	for (unsigned int n = 0; left && ret == 0; n++) {
		struct keyvals kv = {0};
		int found = take_item(tree, n, &kv);

		if (found > 0) {
			left -= found;
			ret = item(opaque, &kv, err);
			if (ret == 0)
				ret = check_used(NULL, &kv, err);
			if (ret < 0)
				error_prefix(err, "%s.%u", name, n);
		} else if (found < 0) {
			ret = error_errno(err, found, "%s", name);
		} else {
			ret = error_set(err, -EINVAL, "%s is a list: %s.%u.…=… is missing", name,
					name, n);
		}
		keyvals_free(&kv);
	}
	return ret;
}

static int apply_one(const struct option *opt, void *obj, const char *key, const struct keyval *v,
		     struct hako_error *err)
{
	if (v->null && opt->type != OPTION_NODE)
		return error_set(err, -EINVAL, "%s: null is no value", v->key);
	if (*key)
		return set_tree(opt, (void *)((char *)obj + opt->offset), key, v->value, err);
	return option_set(opt, obj, v->value, err);
}

int options_apply(const struct option *table, void *obj, struct keyvals *kv, bool strict,
		  struct hako_error *err)
{
	for (const struct option *opt = table; opt && opt->name; opt++) {
		bool given = false;

		for (size_t i = 0; i < kv->n; i++) {
			struct keyval *v = &kv->v[i];
			const char *key = match(opt, v->key);
			int r;

			if (!key)
				continue;
			v->used = given = true;
			r = apply_one(opt, obj, key, v, err);
			if (r)
				return r;
		}
		if (strict && opt->required && !given)
			return error_set(err, -EINVAL, "%s=… is missing (%s)", opt->name,
					 opt->help);
	}
	return strict ? check_used(table, kv, err) : 0;
}

void options_free(const struct option *table, void *obj)
{
	for (; table && table->name; table++) {
		void *field = (char *)obj + table->offset;

		if (table->type == OPTION_STRING) {
			free(*(char **)field);
			*(char **)field = NULL;
		} else if (table->type == OPTION_LIST) {
			for (char **p = *(char ***)field; p && *p; p++)
				free(*p);
			free(*(char ***)field);
			*(char ***)field = NULL;
		} else if (table->type == OPTION_NODE || table->type == OPTION_TREE) {
			struct option_tree *tree = field;

			free(tree->id);
			tree->id = NULL;
			keyvals_free(&tree->kv);
		}
	}
}
