/* SPDX-License-Identifier: GPL-2.0-only */
/* The server for GDB: a session, and the chardev that it talks over. */
#include <stdlib.h>

#include "arch/x86/debug.h"
#include "devices/char/char.h"
#include "session.h"
#include "vmm/vcpu.h"
#include "vmm/vm_internal.h"

#define INPUT 4096

struct gdb {
	struct object obj;
	char *chardev_id;
	bool stop;

	struct chardev *chr;
	struct loop *loop;
	struct loop_msg held_msg;
	struct gdb_session session;
	/* Taken, but not looked at before what is to be sent has been sent: a peer that does not listen is not listened to. */
	uint8_t in[INPUT];
	size_t in_len;
};

/* --- in the loop ----------------------------------------------------------------------------------- */

static void flush(struct gdb *g)
{
	struct gdb_session *s = &g->session;
	size_t n;

	if (!s->out_len)
		return;
	n = g->chr->ops->write(g->chr, (uint8_t *)s->out, s->out_len);
	s->out_len -= n;
	memmove(s->out, s->out + n, s->out_len);
}

static void pump(struct gdb *g)
{
	size_t done = 0;

	flush(g);
	while (done < g->in_len && !g->session.out_len) {
		gdb_session_take(&g->session, g->in[done++]);
		flush(g);
	}
	g->in_len -= done;
	memmove(g->in, g->in + done, g->in_len);
}

static size_t gdb_can_receive(void *client)
{
	struct gdb *g = client;

	return sizeof(g->in) - g->in_len;
}

static void gdb_receive(void *client, const uint8_t *buf, size_t len)
{
	struct gdb *g = client;

	memcpy(g->in + g->in_len, buf, len);
	g->in_len += len;
	pump(g);
}

static void gdb_writable(void *client)
{
	struct gdb *g = client;

	pump(g);
	if (g->chr->ops->accept_input && gdb_can_receive(g))
		g->chr->ops->accept_input(g->chr);
}

static void gdb_connected(void *client, bool open)
{
	struct gdb *g = client;

	g->in_len = 0;
	if (open)
		gdb_session_open(&g->session);
	else
		gdb_session_close(&g->session);
}

static const struct chardev_client_ops client_ops = {
	.can_receive = gdb_can_receive,
	.receive = gdb_receive,
	.writable = gdb_writable,
	.connected = gdb_connected,
};

static void held_fn(struct loop_msg *msg)
{
	struct gdb *g = container_of(msg, struct gdb, held_msg);

	gdb_session_held(&g->session);
	flush(g);
}

/* In any thread, with the vCPUs' lock held. */
static void all_held(void *opaque)
{
	struct gdb *g = opaque;

	loop_post(g->loop, &g->held_msg);
}

/* --- the object ------------------------------------------------------------------------------------ */

static int gdb_create(struct object *obj, struct hako_error *err)
{
	struct gdb *g = container_of(obj, struct gdb, obj);
	struct vm *vm = obj->vm;
	int r;

	if (!g->chardev_id)
		return error_set(err, -EINVAL, "chardev=ID is missing");
	if (vm->debug)
		return error_set(err, -EBUSY, "there is a server for GDB already");
	vm->debug = debug_new(vm);
	g->loop = vm->io_loop;
	g->held_msg.fn = held_fn;
	if (!vm->debug || gdb_session_init(&g->session, vm))
		r = error_errno(err, -ENOMEM, "gdb");
	else
		r = chardev_take(vm, g->chardev_id, &client_ops, g, &g->chr, err);
	if (r) {
		gdb_session_free(&g->session);
		free(vm->debug);
		vm->debug = NULL;
		return r;
	}
	vcpus_on_hold(vm, all_held, g);
	if (g->stop)
		vcpus_hold(vm);
	return 0;
}

static void end(void *arg)
{
	struct gdb *g = arg;

	gdb_session_end(&g->session);
	flush(g);
}

static void gdb_destroy(struct object *obj)
{
	struct gdb *g = container_of(obj, struct gdb, obj);
	struct vm *vm = obj->vm;

	loop_call(g->loop, end, g);
	chardev_release(g->chr);
	vcpus_on_hold(vm, NULL, NULL);
	loop_call(g->loop, NULL, NULL); /* a message that is under way */
	gdb_session_free(&g->session);
	free(vm->debug);
	vm->debug = NULL;
}

static const struct option gdb_options[] = {
	OPT_STRING("chardev", struct gdb, chardev_id, NULL, "socket that GDB connects to"),
	OPT_BOOL("stop", struct gdb, stop, "off",
		 "hold the guest at its first instruction until GDB lets it go"),
	OPT_END,
};

static const struct class gdb_class = {
	.name = "gdb",
	.help = "server for GDB, as --gdb makes it",
	.kind = CLASS_OBJECT,
	.size = sizeof(struct gdb),
	.late = true,
	.options = gdb_options,
	.create = gdb_create,
	.destroy = gdb_destroy,
	.needs = SANDBOX_DEBUG,
};
HAKO_CLASS(gdb_class);

/* --- --gdb ----------------------------------------------------------------------------------------- */

/* Take ",stop=…" from the end of @text. */
static char *cut_stop(char *text)
{
	char *stop = strstr(text, ",stop=");

	if (!stop || strchr(stop + 1, ','))
		return NULL;
	*stop = '\0';
	return stop + 1;
}

int vm_gdb(struct vm *vm, const char *text, struct hako_error *err)
{
	bool local = !strncmp(text, "tcp::", 5);
	struct keyvals kv = {0};
	char *address, *stop;
	int r;

	if (strncmp(text, "tcp:", 4) != 0 && strncmp(text, "unix:", 5) != 0)
		return error_set(err, -EINVAL, "tcp:[HOST]:PORT or unix:PATH expected");
	/* Whoever connects owns the guest: the network is let in by name only. */
	address = local ? str_printf("tcp:127.0.0.1:%s", text + 5) : strdup(text);
	stop = address ? cut_stop(address) : NULL;
	if (address) {
		char *full = str_printf("%s,server=on,wait=off", address);

		r = full ? chardev_new_from_text(vm, "gdb", full, err) : -ENOMEM;
		free(full);
	} else {
		r = error_errno(err, -ENOMEM, "gdb");
	}
	if (!r && stop)
		r = keyvals_parse(&kv, stop, NULL, err);
	if (!r)
		r = keyvals_add(&kv, "id", "gdb") ?: keyvals_add(&kv, "chardev", "gdb");
	if (!r)
		r = object_new(vm, &gdb_class, &kv, NULL, err);
	keyvals_free(&kv);
	free(address);
	return r;
}
