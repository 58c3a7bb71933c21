/* SPDX-License-Identifier: GPL-2.0-only */
/* What GDB asks about us and the threads, which are the vCPUs; and its command "monitor". */
#include <stdio.h>

#include "arch/x86/debug.h"
#include "session.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

static const char *after(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(text, prefix, len) ? NULL : text + len;
}

static void supported(struct gdb_session *s, const char *p)
{
	s->swbreak = strstr(p, "swbreak+");
	s->hwbreak = strstr(p, "hwbreak+");
	gdb_say(s,
		"PacketSize=%x;qXfer:features:read+;QStartNoAckMode+;vContSupported+;swbreak+;"
		"hwbreak+",
		GDB_PACKET_MAX);
}

/* "target.xml:OFFSET,LENGTH" */
static void transfer(struct gdb_session *s, const char *p)
{
	uint64_t offset, len;
	size_t all = strlen(s->xml);

	p = after(p, "target.xml:");
	if (!p || !gdb_hex(&p, &offset) || *p++ != ',' || !gdb_hex(&p, &len) || *p)
		return gdb_say(s, "E00");
	offset = MIN(offset, all);
	len = MIN(len, GDB_PACKET_MAX - 1u);
	len = MIN(len, all - offset);
	gdb_say(s, offset + len < all ? "m" : "l");
	gdb_say_bytes(s, s->xml + offset, len);
}

/* All of them fit one packet: at most 1,024, of five bytes each. */
static void list_threads(struct gdb_session *s)
{
	for (unsigned int i = 0; i < s->vm->nvcpus; i++)
		gdb_say(s, "%s%x", i ? "," : "m", i + 1);
}

static void describe_thread(struct gdb_session *s, const char *p)
{
	int thread = gdb_thread(s, &p);
	char text[64];

	if (thread < 0 || *p)
		return gdb_say_result(s, -EINVAL);
	snprintf(text, sizeof(text), "vCPU %d, %s", thread,
		 s->stopped ? debug_describe(&s->vm->vcpu[thread]) : "running");
	gdb_say_hex(s, text, strlen(text));
}

static void set_physical(struct gdb_session *s, const char *p)
{
	if (strcmp(p, "0") != 0 && strcmp(p, "1") != 0)
		return gdb_say_result(s, -EINVAL);
	s->physical = *p == '1';
	gdb_say_result(s, 0);
}

/* --- monitor --------------------------------------------------------------------------------------- */

static void monitor(struct gdb_session *s, const char *hex)
{
	static const char help[] =
		"physical on|off  whether addresses of memory are physical\n"
		"reset            restart the guest; a stopped one stays so, at its beginning\n";
	char text[64] = "";
	size_t len = strlen(hex) / 2;
	const char *answer = help;

	if (len >= sizeof(text) || !gdb_hex_bytes(hex, (uint8_t *)text, len))
		return gdb_say_result(s, -EINVAL);
	if (!strcmp(text, "physical on") || !strcmp(text, "physical off")) {
		s->physical = !strcmp(text, "physical on");
		answer = s->physical ? "addresses are physical now\n"
				     : "addresses are linear now\n";
	} else if (!strcmp(text, "reset")) {
		vm_request(s->vm, VM_REQUEST_RESET, 0);
		answer = "the guest starts anew\n";
	}
	gdb_say_hex(s, answer, strlen(answer));
}

/* ------------------------------------------------------------------------------------------------- */

static void vcont(struct gdb_session *s, const char *p)
{
	if (!strcmp(p, "?"))
		gdb_say(s, "vCont;c;C;s;S");
	else if (!s->stopped)
		gdb_say_result(s, -EBUSY);
	else
		gdb_vcont(s, p);
}

static void kill_vm(struct gdb_session *s, const char *p)
{
	gdb_kill(s);
	gdb_say_result(s, 0);
}

static void no_ack(struct gdb_session *s, const char *p)
{
	s->no_ack = true;
	gdb_say_result(s, 0);
}

static void current_thread(struct gdb_session *s, const char *p)
{
	gdb_say(s, "QC%x", s->current + 1);
}

static void first_threads(struct gdb_session *s, const char *p)
{
	list_threads(s);
}

static void more_threads(struct gdb_session *s, const char *p)
{
	gdb_say(s, "l");
}

/* We have not made the guest for GDB: leaving it is to let it go on. */
static void attached(struct gdb_session *s, const char *p)
{
	gdb_say(s, "1");
}

static void get_physical(struct gdb_session *s, const char *p)
{
	gdb_say(s, "%d", s->physical);
}

void gdb_query(struct gdb_session *s, const char *p)
{
	static const struct {
		const char *prefix;
		void (*fn)(struct gdb_session *s, const char *p);
	} queries[] = {
		{"qSupported", supported},
		{"qXfer:features:read:", transfer},
		{"QStartNoAckMode", no_ack},
		{"vCont", vcont},
		{"vKill", kill_vm},
		{"qC", current_thread},
		{"qfThreadInfo", first_threads},
		{"qsThreadInfo", more_threads},
		{"qThreadExtraInfo,", describe_thread},
		{"qAttached", attached},
		{"qRcmd,", monitor},
		/* QEMU's extensions */
		{"qqemu.PhyMemMode", get_physical},
		{"Qqemu.PhyMemMode:", set_physical},
	};

	for (size_t i = 0; i < ARRAY_SIZE(queries); i++) {
		const char *rest = after(p, queries[i].prefix);

		/* "qC" alone, not qCRC. */
		if (rest && !(queries[i].fn == current_thread && *rest))
			return queries[i].fn(s, rest);
	}
}
