/* SPDX-License-Identifier: GPL-2.0-only */
/* Options as the command line writes them, and as JSON. */
#include <stdio.h>
#include <stdlib.h>

#include "config.h"

static const struct option *find(const struct option *table, const char *name)
{
	for (; table && table->name; table++)
		if (!strcmp(table->name, name))
			return table;
	return NULL;
}

static int unknown(const struct option *own, const char *name, struct hako_error *err)
{
	const char *names[64];
	const char *nearest;
	size_t n = 0;

	for (const struct option *o = vm_config_options; o->name && n < 50; o++)
		names[n++] = o->name;
	for (const struct option *o = own; o && o->name && n < 63; o++)
		names[n++] = o->name;
	names[n] = NULL;
	nearest = str_nearest(name, names);
	if (nearest)
		return error_set(err, -EINVAL, "--%s: no such option (did you mean --%s?)", name,
				 nearest);
	return error_set(err, -EINVAL, "--%s: no such option (see \"hako help run\")", name);
}

int config_parse_arg(const struct option *own, int argc, char **argv,
		     int (*set)(void *opaque, const char *name, const char *value,
				struct hako_error *err),
		     void *opaque, struct hako_error *err)
{
	const char *value = strchr(argv[0], '=');
	const struct option *opt;
	char name[32];
	int r, used = 1;

	snprintf(name, sizeof(name), "%.*s", value ? (int)(value - argv[0] - 2) : 30, argv[0] + 2);
	opt = find(own, name) ?: find(vm_config_options, name);
	if (!opt)
		return unknown(own, name, err);
	if (value) {
		value++;
	} else if (opt->type == OPTION_BOOL) {
		value = "on";
	} else if (argc > 1) {
		value = argv[1];
		used = 2;
	} else {
		return error_set(err, -EINVAL, "--%s: a value is missing (%s)", name, opt->help);
	}
	r = set(opaque, name, value, err);
	return r ? r : used;
}

/* --- a whole command line ---------------------------------------------------------------------- */

/* The word at *@text, as a shell has it, with its quotes gone, in place; *@text moves behind it. NULL: a quote does not end. */
static char *cut_word(char **text)
{
	char *from = *text, *word = from, *to = from, quote = 0;

	for (; *from && (quote || !strchr(" \t\r\n", *from)); from++) {
		if (quote ? *from == quote : *from == '\'' || *from == '"')
			quote = quote ? 0 : *from;
		else if (*from == '\\' && quote != '\'' && from[1])
			*to++ = *++from;
		else
			*to++ = *from;
	}
	*text = from + (*from != 0);
	*to = 0;
	return quote ? NULL : word;
}

static int set_option(void *opaque, const char *name, const char *value, struct hako_error *err)
{
	return hako_vm_set(opaque, name, value, err);
}

static int set_words(struct hako_vm *vm, char **word, int n, struct hako_error *err)
{
	for (int i = 0; i < n;) {
		int used = 1;

		if (!strncmp(word[i], "--", 2) && word[i][2])
			used = config_parse_arg(NULL, n - i, word + i, set_option, vm, err);
		else if (word[i][0] == '-')
			used = error_set(err, -EINVAL, "%s: options start with two dashes",
					 word[i]);
		else
			used = hako_vm_set(vm, "disk", word[i], err) ?: 1;
		if (used < 0)
			return used;
		i += used;
	}
	return 0;
}

static int configure_words(struct hako_vm *vm, const char *text, struct hako_error *err)
{
	char *copy = strdup(text), *at = copy;
	char **word = copy ? malloc((strlen(copy) / 2 + 1) * sizeof(*word)) : NULL;
	int n = 0, r = word ? 0 : error_errno(err, -ENOMEM, "options");

	while (!r && *(at += strspn(at, " \t\r\n"))) {
		word[n] = cut_word(&at);
		if (!word[n++])
			r = error_set(err, -EINVAL, "a quote that does not end");
	}
	if (!r)
		r = set_words(vm, word, n, err);
	free(word);
	free(copy);
	return r;
}

static int configure_json(struct hako_vm *vm, const char *text, struct hako_error *err)
{
	struct keyvals kv = {0};
	int r = keyvals_parse_json_values(&kv, text, err);

	for (size_t i = 0; i < kv.n && !r; i++)
		if (!kv.v[i].null)
			r = hako_vm_set(vm, kv.v[i].key, kv.v[i].value, err);
	keyvals_free(&kv);
	return r;
}

int hako_vm_configure(struct hako_vm *vm, const char *text, struct hako_error *err)
{
	return text[strspn(text, " \t\r\n")] == '{' ? configure_json(vm, text, err)
						    : configure_words(vm, text, err);
}
