/* SPDX-License-Identifier: GPL-2.0-only */
#include "args.h"

#include <ctype.h>
#include <stdio.h>

static const char *long_name(const struct option *o)
{
	if (o->name[1] == '|')
		return o->name + 2;
	return o->name[1] ? o->name : NULL;
}

static char letter(const struct option *o)
{
	return !o->name[1] || o->name[1] == '|' ? o->name[0] : 0;
}

static const struct option *find_letter(const struct option *table, char c)
{
	for (; table->name; table++)
		if (letter(table) == c)
			return table;
	return NULL;
}

/* A long name, or an unambiguous beginning of one. */
static const struct option *find_long(const struct option *table, const char *name, size_t len)
{
	const struct option *found = NULL;

	for (; table->name; table++) {
		const char *l = long_name(table);

		if (!l || strncmp(l, name, len))
			continue;
		if (!l[len])
			return table;
		if (found)
			return NULL;
		found = table;
	}
	return found;
}

struct args {
	const struct option *table;
	void *obj;
	int argc, at; /* the argument that is being read */
	char **argv;
	struct hako_error *err;
};

static int parse_long(struct args *a)
{
	const char *name = a->argv[a->at] + 2, *value = strchr(name, '=');
	size_t len = value ? (size_t)(value - name) : strlen(name);
	const struct option *o = find_long(a->table, name, len);

	if (!o)
		return error_set(a->err, -EINVAL, "unrecognized option '--%.*s'", (int)len, name);
	if (o->type == OPTION_BOOL) {
		if (value)
			return error_set(a->err, -EINVAL, "option '--%s' takes no value",
					 long_name(o));
		return option_set(o, a->obj, "on", a->err);
	}
	if (!value) {
		if (a->at + 1 == a->argc)
			return error_set(a->err, -EINVAL, "missing argument for option '--%s'",
					 long_name(o));
		return option_set(o, a->obj, a->argv[++a->at], a->err);
	}
	return option_set(o, a->obj, value + 1, a->err);
}

static int parse_letters(struct args *a)
{
	int r = 0;

	for (const char *s = a->argv[a->at] + 1; *s && !r; s++) {
		const struct option *o = find_letter(a->table, *s);

		if (!o)
			return error_set(a->err, -EINVAL, "unrecognized option '-%c'", *s);
		if (o->type == OPTION_BOOL) {
			r = option_set(o, a->obj, "on", a->err);
			continue;
		}
		if (s[1])
			return option_set(o, a->obj, s + 1, a->err);
		if (a->at + 1 == a->argc)
			return error_set(a->err, -EINVAL, "missing argument for option '-%c'", *s);
		return option_set(o, a->obj, a->argv[++a->at], a->err);
	}
	return r;
}

int args_parse(const struct option *table, void *obj, int argc, char **argv, struct hako_error *err)
{
	struct args a = {table, obj, argc, 1, argv, err};
	bool operands_only = false;
	int n = 0, r;

	r = options_defaults(table, obj, err);
	for (; !r && a.at < argc; a.at++) {
		const char *s = argv[a.at];

		if (operands_only || s[0] != '-' || !s[1] || isdigit((unsigned char)s[1]))
			argv[++n] = argv[a.at];
		else if (!strcmp(s, "--"))
			operands_only = true;
		else
			r = s[1] == '-' ? parse_long(&a) : parse_letters(&a);
	}
	return r ? r : n;
}

void args_free(const struct option *table, void *obj)
{
	options_free(table, obj);
}

/* What stands behind the option's name; "" for a switch. */
static const char *value_of(const struct option *o, char buf[128])
{
	size_t len = 0;

	switch (o->type) {
	case OPTION_BOOL:
		return "";
	case OPTION_ENUM:
		for (int i = 0; o->values[i] && len < 128; i++)
			len += snprintf(buf + len, 128 - len, "%c%s", i ? '|' : ' ', o->values[i]);
		return buf;
	case OPTION_SIZE:
		return " SIZE";
	case OPTION_UINT:
		return " NUMBER";
	default:
		return " TEXT";
	}
}

static bool shows_default(const struct option *o)
{
	return o->def && o->type != OPTION_BOOL && strcmp(o->def, "0") && strlen(o->def) < 15;
}

void args_help(const struct option *table)
{
	for (; table->name; table++) {
		const char *l = long_name(table);
		char c = letter(table), buf[128];

		if (c)
			printf("  -%c%s", c, l ? ", " : "");
		else
			printf("      ");
		if (l)
			printf("--%s", l);
		printf("%s\n          %s", value_of(table, buf), table->help);
		if (shows_default(table))
			printf(" (default %s)", table->def);
		putchar('\n');
	}
}

void args_man_text(const char *text)
{
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", stdout);
		else if (*text == '-')
			fputs("\\-", stdout);
		else
			putchar(*text);
	}
}

void args_man(const struct option *table)
{
	for (; table->name; table++) {
		const char *l = long_name(table);
		char c = letter(table), buf[128];

		printf(".TP\n.BI \"");
		if (c)
			printf("\\-%c%s", c, l ? ", " : "");
		if (l) {
			printf("\\-\\-");
			args_man_text(l);
		}
		printf("\" \"");
		args_man_text(value_of(table, buf));
		printf("\"\n");
		args_man_text(table->help);
		if (shows_default(table))
			printf(" (default %s)", table->def);
		printf(".\n");
	}
}

int args_split(char *text, char **words, int max)
{
	char *out = text;
	int n = 0;

	for (;;) {
		char quote = 0;

		while (isspace((unsigned char)*text))
			text++;
		if (!*text)
			break;
		if (n == max - 1)
			return -E2BIG;
		words[n++] = out;
		for (; *text && (quote || !isspace((unsigned char)*text)); text++) {
			if (*text == quote)
				quote = 0;
			else if (!quote && (*text == '"' || *text == '\''))
				quote = *text;
			else
				*out++ = *text;
		}
		if (*text)
			text++;
		*out++ = 0;
	}
	words[n] = NULL;
	return n;
}
