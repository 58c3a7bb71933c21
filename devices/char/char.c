/* SPDX-License-Identifier: GPL-2.0-only */
/* Character backends: who uses which, and the command line's short forms. */
#include "devices/char/char.h"

#include <stdlib.h>

#include "vmm/vm.h"

size_t chardev_can_receive(struct chardev *chr)
{
	return chr->client_ops ? chr->client_ops->can_receive(chr->client) : 0;
}

void chardev_receive(struct chardev *chr, const uint8_t *buf, size_t len)
{
	if (chr->client_ops && len)
		chr->client_ops->receive(chr->client, buf, len);
}

void chardev_writable(struct chardev *chr)
{
	if (chr->client_ops && chr->client_ops->writable)
		chr->client_ops->writable(chr->client);
}

void chardev_set_open(struct chardev *chr, bool open)
{
	if (chr->open == open)
		return;
	chr->open = open;
	if (chr->client_ops && chr->client_ops->connected)
		chr->client_ops->connected(chr->client, open);
}

struct take {
	struct chardev *chr;
	const struct chardev_client_ops *ops;
	void *client;
	int ret;
};

static void release(void *arg)
{
	struct chardev *chr = arg;

	chr->client_ops = NULL;
	chr->client = NULL;
}

static void take(void *arg)
{
	struct take *t = arg;
	struct chardev *chr = t->chr;

	if (chr->client_ops) {
		t->ret = -EBUSY;
		return;
	}
	if (t->ops->socket && !chr->ops->give_socket) {
		t->ret = -ENOTSOCK;
		return;
	}
	chr->client = t->client;
	chr->client_ops = t->ops;
	if (t->ops->socket) {
		t->ret = chr->ops->give_socket(chr);
		if (t->ret)
			release(chr);
		return;
	}
	if (chr->open && t->ops->connected)
		t->ops->connected(t->client, true);
	if (chr->ops->accept_input)
		chr->ops->accept_input(chr);
}

int chardev_take(struct vm *vm, const char *id, const struct chardev_client_ops *ops, void *client,
		 struct chardev **chr, struct hako_error *err)
{
	struct object *obj = object_find(vm, CLASS_CHARDEV, id);
	struct take t = {.ops = ops, .client = client};

	if (!obj)
		return error_set(err, -ENODEV, "chardev=%s: there is no chardev of that id", id);
	t.chr = container_of(obj, struct chardev, obj);
	/* Before the first callback comes, which may want to write. */
	*chr = t.chr;
	loop_call(vm->io_loop, take, &t);
	if (!t.ret)
		return 0;
	*chr = NULL;
	return error_set(err, t.ret, "chardev=%s: %s", id,
			 t.ret == -EBUSY      ? "another device uses it"
			 : t.ret == -ENOTSOCK ? "a socket is needed"
					      : "the other end has hung up");
}

void chardev_hangup(struct chardev *chr)
{
	chr->ops->hangup(chr);
}

void chardev_release(struct chardev *chr)
{
	if (chr)
		loop_call(chr->obj.vm->io_loop, release, chr);
}

/* "PATH,key=value…", where a comma in PATH is doubled: the path in fresh memory, *@rest behind it. */
static char *cut_path(const char *text, const char **rest)
{
	char *path = malloc(strlen(text) + 1);
	size_t n = 0;

	if (!path)
		return NULL;
	while (*text && !(text[0] == ',' && text[1] != ',')) {
		if (*text == ',')
			text++;
		path[n++] = *text++;
	}
	path[n] = '\0';
	*rest = *text == ',' ? text + 1 : text;
	return path;
}

static int socket_keys(struct keyvals *kv, const char *text, bool tcp, struct hako_error *err)
{
	const char *rest;
	char *addr = cut_path(text, &rest);
	char *port = NULL, *host = addr;
	int ret;

	if (!addr)
		return error_errno(err, -ENOMEM, "chardev");
	if (tcp) {
		port = strrchr(addr, ':');
		if (!port || !port[1]) {
			ret = error_set(err, -EINVAL, "'%s': HOST:PORT expected", addr);
			goto out;
		}
		*port++ = '\0';
		/* An IPv6 address stands in brackets. */
		if (host[0] == '[' && host[1] && host[strlen(host) - 1] == ']') {
			host[strlen(host) - 1] = '\0';
			host++;
		}
	} else if (!*addr) {
		ret = error_set(err, -EINVAL, "the socket's path is missing");
		goto out;
	}
	ret = *rest ? keyvals_parse(kv, rest, NULL, err) : 0;
	if (ret)
		goto out;
	if (tcp)
		ret = keyvals_add(kv, "host", host) ?: keyvals_add(kv, "port", port);
	else
		ret = keyvals_add(kv, "path", addr);
	if (ret)
		error_errno(err, ret, "chardev");
out:
	free(addr);
	return ret;
}

static const char *after(const char *text, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(text, prefix, len) ? NULL : text + len;
}

static int text_keys(struct keyvals *kv, const char *text, const char **class,
		     struct hako_error *err)
{
	static const char *const plain[] = {"stdio", "pty", "null", "program"};
	const char *rest;

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++) {
		rest = after(text, plain[i]);
		if (!rest || (*rest && *rest != ','))
			continue;
		*class = plain[i];
		/* The last of a kind counts: what the text says comes behind. */
		if (!strcmp(plain[i], "stdio") && keyvals_add(kv, "signal", "off"))
			return error_errno(err, -ENOMEM, "chardev");
		return *rest ? keyvals_parse(kv, rest + 1, NULL, err) : 0;
	}
	*class = "null";
	if (!strcmp(text, "none"))
		return 0;
	*class = "file";
	rest = after(text, "file:");
	if (rest)
		return keyvals_add(kv, "path", rest);
	*class = "socket";
	rest = after(text, "unix:");
	if (rest)
		return socket_keys(kv, rest, false, err);
	rest = after(text, "tcp:");
	if (rest)
		return socket_keys(kv, rest, true, err);
	return error_set(err, -EINVAL,
			 "'%s' is not one of stdio, pty, null, none, file:PATH, unix:PATH, "
			 "tcp:HOST:PORT",
			 text);
}

int chardev_new_from_text(struct vm *vm, const char *id, const char *text, struct hako_error *err)
{
	const struct class *cls;
	struct keyvals kv = {};
	const char *name;
	int ret;

	ret = text_keys(&kv, text, &name, err);
	if (!ret)
		ret = class_get(CLASS_CHARDEV, name, &cls, err);
	if (!ret) {
		ret = keyvals_add(&kv, "id", id);
		if (ret)
			error_errno(err, ret, "chardev");
	}
	if (!ret)
		ret = object_new(vm, cls, &kv, NULL, err);
	keyvals_free(&kv);
	return ret;
}
