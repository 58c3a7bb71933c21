/* SPDX-License-Identifier: GPL-2.0-only */
/* hako exec: run a command in a guest over the host's own files. */
#include "exec.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/config.h"

#define MODULES_MAX 64

/* What a user who says nothing gets. */
#define MACHINE "micro"
#define MEMORY	"1G"
#define CMDLINE "console=ttyS0 quiet panic=-1"

struct exec_config {
	char *kernel, *root, *append, *machine, *memory;
	char **rw, **module;
	int sandbox;
	bool verbose, help;
};

#define T struct exec_config
const struct option cli_exec_options[] = {
	OPT_STRING("kernel", T, kernel, NULL,
		   "image or Debian package; default: the newest /boot/vmlinuz-*"),
	OPT_STRING("root", T, root, "/",
		   "the guest's files: a directory, or a disk image; what it writes there is lost"),
	OPT_LIST("rw", T, rw, "DIR: a directory where what the guest writes stays"),
	OPT_LIST("module", T, module, "NAME: a kernel module to load before the command"),
	OPT_STRING("append", T, append, NULL, "more for the kernel's command line"),
	OPT_STRING("machine", T, machine, MACHINE, "board: q35, micro"),
	OPT_STRING("memory", T, memory, MEMORY, "guest memory; a plain number counts MiB"),
	OPT_ENUM("sandbox", T, sandbox, "on", sandbox_mode_names,
		 "confine the program before the guest runs, as hako run does"),
	OPT_BOOL("verbose", T, verbose, "off", "the guest's console goes to standard error"),
	OPT_BOOL("help", T, help, "off", "show these options"),
	OPT_END,
};
#undef T

struct exec {
	struct exec_config config;
	struct hako_vm *vm;
	struct exec_kernel kernel;
	char *initramfs;
	struct exec_command command;
	struct exec_lines lines;
};

/* --- arguments --------------------------------------------------------------------------------- */

static int set(void *opaque, const char *name, const char *value, struct hako_error *err)
{
	static const char *const taken[] = {"initrd", "console", "no-reboot"};
	struct exec *e = opaque;
	const struct option *own = cli_find_option(cli_exec_options, name);
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(taken); i++)
		if (!strcmp(name, taken[i]))
			return error_set(err, -EINVAL, "--%s: exec sets it by itself", name);
	if (!own)
		return hako_vm_set(e->vm, name, value, err);
	r = option_set(own, &e->config, value, err);
	return r ? error_prefix(err, "--%s", name), r : 0;
}

/* The options, up to "--" or the first word that is none. */
static int parse(struct exec *e, int argc, char **argv, struct hako_error *err)
{
	int i = 1, n;

	while (i < argc && argv[i][0] == '-' && strcmp(argv[i], "--")) {
		if (strncmp(argv[i], "--", 2))
			return error_set(err, -EINVAL,
					 "%s: options start with two dashes (see \"hako help "
					 "exec\")",
					 argv[i]);
		n = config_parse_arg(cli_exec_options, argc - i, argv + i, set, e, err);
		if (n < 0)
			return n;
		i += n;
	}
	if (i < argc && !strcmp(argv[i], "--"))
		i++;
	e->command.argv = argv + i;
	if (!e->config.help && i == argc)
		return error_set(err, -EINVAL, "exec: a command is missing");
	return 0;
}

/* --- the VM ------------------------------------------------------------------------------------ */

/* Set an option whose value is made of a format. */
static int __attribute__((format(printf, 4, 5)))
setf(struct exec *e, struct hako_error *err, const char *option, const char *fmt, ...)
{
	char text[4608];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (n >= (int)sizeof(text))
		return error_errno(err, -ENAMETOOLONG, "--%s", option);
	return hako_vm_set(e->vm, option, text, err);
}

/* A comma in a value is written twice. */
static void double_commas(const char *path, char text[4200])
{
	size_t n = 0;

	for (; *path && n < 4198; path++) {
		text[n++] = *path;
		if (*path == ',')
			text[n++] = ',';
	}
	text[n] = 0;
}

static int share(struct exec *e, unsigned int n, const char *path, bool readonly,
		 struct hako_error *err)
{
	char text[4200], tag[16];
	int r;

	double_commas(path, text);
	snprintf(tag, sizeof(tag), EXEC_TAG "%u", n);
	r = setf(e, err, "fsdev", "local,id=%s,path=%s,readonly=%s", tag, text,
		 readonly ? "on" : "off");
	return r ?: setf(e, err, "device", "virtio-9p,fsdev=%s,mount_tag=%s", tag, tag);
}

/* The root is a disk image with a file system. */
static int root_image(struct exec *e, const char *path, struct hako_error *err)
{
	char text[4200];

	if (e->config.rw)
		return error_set(err, -EINVAL, "--rw %s: --root %s is no directory",
				 e->config.rw[0], e->config.root);
	e->command.share = calloc(1, sizeof(char *));
	e->command.cwd = strdup("/");
	if (!e->command.share || !e->command.cwd)
		return error_errno(err, -ENOMEM, "--root");
	double_commas(path, text);
	return setf(e, err, "disk", "%s,read-only=on,serial=" EXEC_DISK, text);
}

/* Share the directories; those that may be written as the guest finds them below its root. */
static int share_all(struct exec *e, struct hako_error *err)
{
	char *root = realpath(e->config.root, NULL), *path;
	size_t n = root && strcmp(root, "/") ? strlen(root) : 0, count = 0;
	int r;

	if (!root)
		return error_errno(err, -errno, "--root %s", e->config.root);
	if (e->command.root_disk) {
		r = root_image(e, root, err);
		free(root);
		return r;
	}
	while (e->config.rw && e->config.rw[count])
		count++;
	e->command.share = calloc(count + 1, sizeof(char *));
	r = e->command.share ? share(e, 0, root, true, err) : error_errno(err, -ENOMEM, "--rw");
	for (size_t i = 0; i < count && !r; i++) {
		path = realpath(e->config.rw[i], NULL);
		if (!path)
			r = error_errno(err, -errno, "--rw %s", e->config.rw[i]);
		else if (strncmp(path, root, n) || (path[n] && path[n] != '/'))
			r = error_set(err, -EINVAL, "--rw %s: not below the root %s",
				      e->config.rw[i], root);
		else
			r = share(e, i + 1, path, false, err);
		e->command.share[i] = path && !r ? strdup(path[n] ? path + n : "/") : NULL;
		if (!r && !e->command.share[i])
			r = error_errno(err, -ENOMEM, "--rw");
		free(path);
	}
	/* The current directory, if the guest has it; else its root. */
	path = getcwd(NULL, 0);
	if (path && !strncmp(path, root, n) && (!path[n] || path[n] == '/'))
		e->command.cwd = strdup(path[n] ? path + n : "/");
	else
		e->command.cwd = strdup("/");
	free(path);
	free(root);
	return r ?: e->command.cwd ? r : error_errno(err, -ENOMEM, "directory");
}

/* A chardev on one end of a new socket pair; the other is *@line. */
static int add_line(struct exec *e, const char *id, int *line, struct hako_error *err)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0)
		return error_errno(err, -errno, "sockets");
	*line = fds[0];
	return setf(e, err, "chardev", "socket,id=%s,fd=%d", id, fds[1]);
}

static int add_lines(struct exec *e, struct hako_error *err)
{
	const struct {
		const char *id;
		int *line;
		enum exec_port nr;
	} ports[] = {
		{EXEC_PORT_NAME, &e->lines.control, EXEC_PORT_CONTROL},
		{"hako-in", &e->lines.in, EXEC_PORT_IN},
		{"hako-out", &e->lines.out, EXEC_PORT_OUT},
		{"hako-err", &e->lines.err, EXEC_PORT_ERR},
	};
	int r = add_line(e, "hako-console", &e->lines.console, err);

	if (!r)
		r = setf(e, err, "device", "isa-serial,chardev=hako-console");
	if (!r)
		r = setf(e, err, "device", "virtio-serial,max_ports=%d", EXEC_PORTS + 1);
	for (size_t i = 0; i < ARRAY_SIZE(ports) && !r; i++) {
		r = add_line(e, ports[i].id, ports[i].line, err);
		if (!r)
			r = setf(e, err, "device", "virtserialport,chardev=%s,nr=%d,name=%s",
				 ports[i].id, ports[i].nr, ports[i].id);
	}
	return r;
}

static int make_initramfs(struct exec *e, struct hako_error *err)
{
	static const char *const shares[] = {"9p", "9pnet_virtio", NULL};
	/* What ext4 asks for at run time only. Other file systems come by --module. */
	static const char *const disks[] = {"virtio_blk", "?crc32c_generic", "?ext4", NULL};
	const char *names[MODULES_MAX + 8] = {NULL};
	size_t n = 0;

	for (const char *const *m = e->command.root_disk ? disks : shares; *m; m++)
		names[n++] = *m;
	names[n++] = "overlay";
	names[n++] = "virtio_console";
	names[n++] = strncmp(e->config.machine, "micro", 5) ? "virtio_pci" : "virtio_mmio";
	for (char **m = e->config.module; m && *m; m++) {
		if (n >= MODULES_MAX)
			return error_set(err, -E2BIG, "--module %s: too many", *m);
		names[n++] = *m;
	}
	return exec_initramfs(&e->kernel, names, &e->initramfs, err);
}

static int make_vm(struct exec *e, struct hako_error *err)
{
	struct exec_config *c = &e->config;
	int r = exec_kernel_find(&e->kernel, c->kernel, err);
	struct stat st;

	e->command.root_disk = !stat(c->root, &st) && !S_ISDIR(st.st_mode);
	if (!r)
		r = make_initramfs(e, err);
	if (!r)
		r = hako_vm_set(e->vm, "kernel", e->kernel.image, err);
	if (!r)
		r = hako_vm_set(e->vm, "initrd", e->initramfs, err);
	if (!r)
		r = setf(e, err, "append", CMDLINE "%s%s", c->append ? " " : "", c->append ?: "");
	if (!r)
		r = hako_vm_set(e->vm, "machine", c->machine, err);
	if (!r)
		r = hako_vm_set(e->vm, "memory", c->memory, err);
	if (!r)
		r = hako_vm_set(e->vm, "no-reboot", "on", err);
	if (!r)
		r = share_all(e, err);
	if (!r)
		r = add_lines(e, err);
	return r ?: hako_vm_create(e->vm, err);
}

/* Each file that the guest knows is a descriptor here. */
static void raise_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) < 0)
		return;
	rl.rlim_cur = rl.rlim_max;
	setrlimit(RLIMIT_NOFILE, &rl);
}

static void exec_free(struct exec *e)
{
	const int lines[] = {e->lines.control, e->lines.in, e->lines.out, e->lines.err,
			     e->lines.console};

	hako_vm_destroy(e->vm);
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++)
		if (lines[i] >= 0)
			close(lines[i]);
	for (char **p = e->command.share; p && *p; p++)
		free(*p);
	free(e->command.share);
	free(e->command.cwd);
	free(e->initramfs);
	exec_kernel_free(&e->kernel);
	options_free(cli_exec_options, &e->config);
}

int cli_exec(int argc, char **argv)
{
	struct exec e = {.lines = {-1, -1, -1, -1, -1}};
	struct hako_error err;
	int status = EXEC_STATUS_FAILED, r;

	r = hako_vm_new(&e.vm, &err);
	if (!r)
		r = options_defaults(cli_exec_options, &e.config, &err);
	if (!r)
		r = parse(&e, argc, argv, &err);
	if (!r && e.config.help) {
		status = cli_help(2, (char *[]){argv[0], (char *)"exec", NULL});
	} else if (!r) {
		raise_limit();
		if (e.config.sandbox == SANDBOX_STRICT)
			sandbox_namespaces();
		r = make_vm(&e, &err);
		if (!r)
			status = exec_talk(e.vm, &e.lines, &e.command, e.config.sandbox,
					   e.config.verbose);
	}
	if (r)
		cli_fail(&err);
	exec_free(&e);
	return status;
}
