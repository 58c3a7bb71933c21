/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any text as the value of any option, and as JSON. What is taken is written as text again and taken once more, and then is written the same.
 * Nothing is opened or made.
 */
#include <stdlib.h>

#include "vmm/config.h"
#include "vmm/object.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct class *classes[512];
static size_t nclasses;

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	class_for_each(c)
		if ((*c)->options && nclasses < ARRAY_SIZE(classes))
			classes[nclasses++] = *c;
	return 0;
}

static void again(const struct option *table, const void *obj, size_t size)
{
	void *copy = calloc(1, size);
	struct hako_error err;

	if (!copy || options_defaults(table, copy, &err))
		abort();
	for (const struct option *o = table; o->name; o++) {
		char *text = option_get(o, obj), *back;

		/* Lists and trees are not one text. */
		if (!text || o->type == OPTION_LIST || o->type == OPTION_NODE ||
		    o->type == OPTION_TREE) {
			free(text);
			continue;
		}
		if (option_set(o, copy, text, &err))
			abort();
		back = option_get(o, copy);
		if (!back || strcmp(text, back) != 0)
			abort();
		free(back);
		free(text);
	}
	options_free(table, copy);
	free(copy);
}

static void apply(const struct option *table, size_t size, struct keyvals *kv)
{
	void *obj = calloc(1, size);
	struct hako_error err;

	if (!obj || options_defaults(table, obj, &err))
		abort();
	if (!options_apply(table, obj, kv, true, &err))
		again(table, obj, size);
	else if (!*err.message || strchr(err.message, '\n'))
		abort();
	options_free(table, obj);
	free(obj);
}

/* The first byte chooses the class; 255: the command line itself, with the second byte's option. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct keyvals kv = {0};
	struct hako_error err = {0};
	uint64_t number;
	char *text;

	if (size < 2)
		return 0;
	text = strndup((const char *)data + 2, size - 2);
	if (!text)
		abort();
	parse_size(text, data[1], &number);
	parse_uint(text, &number);
	if (data[0] == 255) {
		size_t n = 0;

		while (vm_config_options[n].name)
			n++;
		if (!keyvals_add(&kv, vm_config_options[data[1] % n].name, text))
			apply(vm_config_options, sizeof(struct vm_config), &kv);
	} else {
		const struct class *c = classes[data[0] % nclasses];

		if (!keyvals_parse(&kv, text, data[1] & 1 ? "driver" : NULL, &err))
			apply(c->options, c->size, &kv);
		else if (!*err.message)
			abort();
	}
	keyvals_free(&kv);
	free(text);
	return 0;
}
