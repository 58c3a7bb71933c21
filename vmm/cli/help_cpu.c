/* SPDX-License-Identifier: GPL-2.0-only */
/* hako help cpu: models, flags, options of --cpu. */
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86/cpu_model.h"
#include "cli.h"

#define WIDTH 100

/* Words that follow each other, wrapped. */
static void print_word(const char *word, int *column)
{
	int len = strlen(word);

	if (*column + 1 + len > WIDTH)
		*column = 0;
	if (!*column)
		*column = printf("\n  %s", word) - 1;
	else
		*column += printf(" %s", word);
}

static void print_flags(const uint64_t bits[CPU_WORDS])
{
	int column = 0;

	for (int w = 0; w < CPU_WORDS; w++)
		for (unsigned int bit = 0; bit < 64; bit++) {
			char name[32];

			if (bits[w] & BIT64(bit) && cpu_flag_name(w, bit, name) &&
			    !(w == CPU_KVM && bit == 3)) /* kvmclock, once more */
				print_word(name, &column);
		}
	printf("\n");
}

static int help_model(const char *name)
{
	const struct cpu_model_def *def = cpu_model_find(name);
	struct cpu_model m;
	struct hako_error err;

	if (cpu_model_define(&m, name, &err)) {
		cpu_model_clear(&m);
		return cli_fail(&err);
	}
	printf("%s: %s\n\nvendor %s, family %u, model %u, stepping %u, level %#x, xlevel %#x\n",
	       def->name, m.model_id, m.vendor, m.family, m.model, m.stepping, m.level, m.xlevel);
	print_flags(m.word);
	cpu_model_clear(&m);
	return 0;
}

int cli_help_cpu(const char *name)
{
	uint64_t named[CPU_WORDS];

	if (name)
		return help_model(name);
	printf("hako run --cpu host|MODEL[,+FLAG][,-FLAG][,FLAG=on|off][,OPTION=VALUE]...\n\n"
	       "What the vCPUs are. A name without its version is version 1. The vendor is the host's, unless\n"
	       "vendor= says otherwise. Names of models and flags are QEMU's.\n\n"
	       "Models (\"hako help cpu MODEL\" lists the flags of one):\n\n"
	       "  %-26s all that this host's KVM has (default)\n  %-26s the same\n",
	       "host", "max");
	for (const struct cpu_model_def *d = cpu_model_defs; d->name; d++) {
		struct cpu_model m;

		if (!cpu_model_define(&m, d->name, NULL))
			printf("  %-26s %s%s%s\n", d->name, m.model_id, d->alias ? ", also " : "",
			       d->alias ?: "");
		cpu_model_clear(&m);
	}
	printf("\nOptions:\n\n");
	cli_print_options(cpu_model_options, "");
	printf("\nFlags:\n");
	for (int w = 0; w < CPU_WORDS; w++)
		named[w] = cpu_word_named(w);
	print_flags(named);
	return 0;
}
