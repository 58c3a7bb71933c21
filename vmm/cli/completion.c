/* SPDX-License-Identifier: GPL-2.0-only */
/* hako completion: a script for the shell, written out of the tables. */
#include <stdio.h>

#include "cli.h"
#include "vmm/config.h"
#include "vmm/object.h"

static void print_option_names(const struct option *table, const char *format)
{
	for (; table && table->name; table++)
		printf(format, table->name);
}

static void print_classes(enum class_kind kind, const char *list)
{
	printf("_hako_%s='", list);
	class_for_each(pos) {
		if ((*pos)->kind == kind && !(*pos)->internal)
			printf("%s ", (*pos)->name);
	}
	printf("'\n");
}

static const char *const kinds[CLASS_KINDS] = {
	[CLASS_MACHINE] = "machine", [CLASS_DEVICE] = "device",	  [CLASS_BLOCKDEV] = "blockdev",
	[CLASS_NETDEV] = "netdev",   [CLASS_CHARDEV] = "chardev", [CLASS_FSDEV] = "fsdev",
	[CLASS_OBJECT] = "object",
};

/* The names that a class goes by, as patterns: of "virtio-rng-pci" also "virtio-rng". */
static void print_class_names(const struct class *cls)
{
	const char *kind = kinds[cls->kind];
	size_t len = strlen(cls->name);

	printf("\t%s:%s", kind, cls->name);
	if (cls->alias)
		printf("|%s:%s", kind, cls->alias);
	if (len > 4 && !strcmp(cls->name + len - 4, "-pci"))
		printf("|%s:%.*s", kind, (int)len - 4, cls->name);
	printf(")");
}

/* For "--device CLASS,": the options of each class. */
static void print_class_options(void)
{
	printf("_hako_class_options() {\n\tcase $1:$2 in\n");
	class_for_each(pos) {
		if ((*pos)->internal)
			continue;
		print_class_names(*pos);
		printf(" echo 'id= ");
		print_option_names((*pos)->bus_options, "%s= ");
		print_option_names((*pos)->options, "%s= ");
		printf("' ;;\n");
	}
	printf("\tesac\n}\n");
}

static const char script[] =
	"_hako() {\n"
	"\tlocal cur=$2 prev=$3 head options\n"
	"\tCOMPREPLY=()\n"
	"\tif [ \"$COMP_CWORD\" = 1 ]; then\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$_hako_commands\" -- \"$cur\")\n"
	"\t\treturn\n"
	"\tfi\n"
	"\tcase $prev in\n"
	"\t--device|--blockdev|--netdev|--chardev|--fsdev|--machine|device|blockdev|netdev|chardev|fsdev|machine)\n"
	"\t\thead=${cur%,*}\n"
	"\t\tif [ \"$head\" != \"$cur\" ]; then\n"
	"\t\t\toptions=$(_hako_class_options \"${prev#--}\" \"${cur%%,*}\")\n"
	"\t\t\tmapfile -t COMPREPLY < <(compgen -P \"$head,\" -W \"$options\" -- \"${cur##*,}\")\n"
	"\t\t\tcompopt -o nospace\n"
	"\t\telse\n"
	"\t\t\toptions=_hako_${prev#--}\n"
	"\t\t\tmapfile -t COMPREPLY < <(compgen -W \"${!options}\" -- \"$cur\")\n"
	"\t\tfi ;;\n"
	"\thelp)\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"$_hako_commands machine device blockdev netdev "
	"chardev fsdev\" -- \"$cur\") ;;\n"
	"\t--kernel|--initrd|--disk|--pidfile|--log|--root|--rw)\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
	"\t--net)\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W \"none $_hako_netdev\" -- \"$cur\") ;;\n"
	"\t--console)\n"
	"\t\tmapfile -t COMPREPLY < <(compgen -W 'stdio pty null none file: unix: virtio:stdio' -- \"$cur\") ;;\n"
	"\t*)\n"
	"\t\tcase $cur in\n"
	"\t\t-*) mapfile -t COMPREPLY < <(compgen -W \"$_hako_run_options\" -- \"$cur\") ;;\n"
	"\t\t*) mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") ;;\n"
	"\t\tesac\n"
	"\tesac\n"
	"}\n"
	"complete -F _hako hako\n";

int cli_completion(int argc, char **argv)
{
	if (argc > 1 && strcmp(argv[1], "bash")) {
		fprintf(stderr, "hako: completion %s: there is one for bash only\n", argv[1]);
		return 1;
	}
	printf("# bash completion for hako; made by \"hako completion bash\"\n_hako_commands='");
	for (const struct cli_command *c = cli_commands; c->name; c++)
		printf("%s ", c->name);
	printf("'\n_hako_run_options='");
	print_option_names(vm_config_options, "--%s ");
	print_option_names(cli_run_options, "--%s ");
	print_option_names(cli_exec_options, "--%s ");
	print_option_names(cli_test_options, "--%s ");
	printf("'\n");
	for (int i = 0; i < CLASS_KINDS; i++)
		print_classes(i, kinds[i]);
	print_class_options();
	fputs(script, stdout);
	return 0;
}
