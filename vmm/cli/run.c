/* SPDX-License-Identifier: GPL-2.0-only */
/* hako run: from arguments to a VM, until it ends. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "terminal.h"
#include "vmm/config.h"
#include "vmm/object.h"
#include "vmm/vm.h"

#define T struct cli_run_config
const struct option cli_run_options[] = {
	OPT_STRING("pidfile", T, pidfile, NULL,
		   "write the process's number there; removed at the end"),
	OPT_STRING("log", T, log, NULL,
		   "stderr or a file: what the guest did that it should not have"),
	OPT_ENUM(
		"sandbox", T, sandbox, "on", sandbox_mode_names,
		"confine the program before the guest runs; strict: with namespaces, and what is not allowed ends it"),
	JAIL_OPTIONS(T, jail),
	OPT_BOOL("help", T, help, "off", "show these options"),
	OPT_END,
};
#undef T

struct run {
	struct cli_run_config config;
	struct hako_vm *vm;
	bool have_net, have_console, have_pidfile, help_cpu;
	FILE *log;
	sigset_t old_mask;
	int signal_fd;
};

static int set(struct run *run, const char *name, const char *value, struct hako_error *err)
{
	const struct option *own = cli_find_option(cli_run_options, name);

	if (own) {
		int r = option_set(own, &run->config, value, err);

		return r ? error_prefix(err, "--%s", name), r : 0;
	}
	if (!strcmp(name, "cpu") && !strcmp(value, "help"))
		run->help_cpu = true;
	if (!strcmp(name, "net"))
		run->have_net = true;
	if (!strcmp(name, "console"))
		run->have_console = true;
	return hako_vm_set(run->vm, name, value, err);
}

static int set_option(void *opaque, const char *name, const char *value, struct hako_error *err)
{
	return set(opaque, name, value, err);
}

static int parse(struct run *run, int argc, char **argv, struct hako_error *err)
{
	bool have_image = false;

	for (int i = 1; i < argc;) {
		int n = 1;

		if (!strncmp(argv[i], "--", 2) && argv[i][2]) {
			n = config_parse_arg(cli_run_options, argc - i, argv + i, set_option, run,
					     err);
		} else if (argv[i][0] == '-' && argv[i][1]) {
			n = error_set(err, -EINVAL,
				      "%s: options start with two dashes (see \"hako help run\")",
				      argv[i]);
		} else if (have_image) {
			n = error_set(err, -EINVAL,
				      "%s: a second image (use --disk for more disks)", argv[i]);
		} else {
			have_image = true;
			n = set(run, "disk", argv[i], err) ?: 1;
		}
		if (n < 0)
			return n;
		i += n;
	}
	return 0;
}

/* What a user who says nothing gets. */
static int set_defaults(struct run *run, struct hako_error *err)
{
	int r = 0;

	if (!run->have_console)
		r = set(run, "console", "stdio", err);
	if (!r && !run->have_net && class_find(CLASS_NETDEV, "user"))
		r = set(run, "net", "user", err);
	return r;
}

static void log_line(void *opaque, const char *line)
{
	struct run *run = opaque;

	fprintf(run->log, "hako: %s\n", line);
	fflush(run->log);
}

static void tell_event(void *opaque, enum hako_event event, const char *message)
{
	struct run *run = opaque;

	if (event == HAKO_EVENT_IO_ERROR)
		fprintf(stderr, "hako: %s: the guest waits (on a terminal, Ctrl-a c goes on)\n",
			message);
	else if (event == HAKO_EVENT_WARNING && run->log != stderr)
		fprintf(stderr, "hako: warning: %s\n", message);
}

static int open_log(struct run *run, struct hako_error *err)
{
	const char *log = run->config.log;

	if (!log)
		return 0;
	run->log = !strcmp(log, "stderr") ? stderr : fopen(log, "ae");
	if (!run->log)
		return error_errno(err, -errno, "--log %s", log);
	hako_vm_set_log(run->vm, log_line, run);
	return 0;
}

static int write_pidfile(struct run *run, struct hako_error *err)
{
	struct stat st;
	char text[16];
	int fd, r;

	if (!run->config.pidfile)
		return 0;
	/* O_NONBLOCK: a FIFO that nobody reads is an error. */
	fd = open(run->config.pidfile, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0644);
	if (fd < 0)
		return error_errno(err, -errno, "--pidfile %s", run->config.pidfile);
	run->have_pidfile = !fstat(fd, &st) && S_ISREG(st.st_mode); /* /dev/null stays */
	snprintf(text, sizeof(text), "%d\n", getpid());
	r = write_all(fd, text, strlen(text));
	close(fd);
	return r ? error_errno(err, r, "--pidfile %s", run->config.pidfile) : 0;
}

/* SIGTERM and its like are read as events: the first presses the power button, the second pulls the plug. */
static int take_signals(struct run *run, struct hako_error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, &run->old_mask);
	signal(SIGPIPE, SIG_IGN);
	run->signal_fd = signalfd(-1, &set, SFD_CLOEXEC);
	return run->signal_fd < 0 ? error_errno(err, -errno, "signals") : 0;
}

static void wait_for_end(struct run *run)
{
	struct pollfd p[2] = {
		{.fd = hako_vm_end_fd(run->vm), .events = POLLIN},
		{.fd = run->signal_fd, .events = POLLIN},
	};
	struct signalfd_siginfo si;
	unsigned int signals = 0;

	while (!(p[0].revents & POLLIN)) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (!(p[1].revents & POLLIN) || read(p[1].fd, &si, sizeof(si)) != sizeof(si))
			continue;
		if (++signals > 1 || hako_vm_powerdown(run->vm, NULL))
			hako_vm_stop(run->vm, NULL);
	}
}

/* @status: the process's. */
static int run_vm(struct run *run, int *status, struct hako_error *err)
{
	struct hako_exit_info info;
	const char *terminal;
	int r;

	hako_vm_set_event(run->vm, tell_event, run);
	r = jail_label(&run->config.jail, err);
	if (!r)
		r = open_log(run, err);
	if (!r)
		r = jail_begin(&run->config.jail, err);
	if (run->config.sandbox == SANDBOX_STRICT)
		sandbox_namespaces();
	if (!r)
		r = hako_vm_create(run->vm, err);
	/* Not before: creation may wait, for a socket's other end for instance, and signals end the program then. */
	if (!r)
		r = take_signals(run, err);
	if (!r)
		r = write_pidfile(run, err);
	if (r)
		return r;
	if (hako_vm_get(run->vm, "console"))
		fprintf(stderr, "hako: console on %s\n", hako_vm_get(run->vm, "console"));
	terminal = hako_vm_get(run->vm, "terminal");
	if (terminal)
		r = terminal_raw(!strcmp(terminal, "signals"), err);
	if (!r)
		r = jail_end(&run->config.jail, err);
	if (!r)
		r = cli_confine(run->vm, run->config.sandbox, 0,
				run->have_pidfile ? run->config.pidfile : NULL, err);
	if (!r)
		r = hako_vm_start(run->vm, err);
	if (!r)
		wait_for_end(run);
	terminal_restore();
	if (!r)
		r = hako_vm_wait(run->vm, 0, &info, err);
	if (r)
		return r;
	if (info.reason == HAKO_EXIT_ERROR || info.reason == HAKO_EXIT_PANIC)
		fprintf(stderr, "hako: %s\n", info.message);
	*status = info.status;
	return 0;
}

int cli_run(int argc, char **argv)
{
	struct run run = {.signal_fd = -1};
	struct hako_error err;
	int r, status = 0;

	if (options_defaults(cli_run_options, &run.config, &err) || hako_vm_new(&run.vm, &err))
		return cli_fail(&err);
	r = parse(&run, argc, argv, &err);
	if (!r && run.config.help) {
		status = cli_help(2, (char *[]){argv[0], (char *)"run", NULL});
	} else if (!r && run.help_cpu) {
		status = cli_help_cpu(NULL);
	} else {
		if (!r)
			r = set_defaults(&run, &err);
		if (!r)
			r = run_vm(&run, &status, &err);
		if (r)
			status = cli_fail(&err);
	}
	hako_vm_destroy(run.vm);
	jail_leave(&run.config.jail);
	if (run.have_pidfile)
		unlink(run.config.pidfile);
	if (run.log && run.log != stderr)
		fclose(run.log);
	if (run.signal_fd >= 0)
		close(run.signal_fd);
	options_free(cli_run_options, &run.config);
	return status;
}
