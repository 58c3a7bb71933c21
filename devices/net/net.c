/* SPDX-License-Identifier: GPL-2.0-only */
#include "devices/net/net.h"

#include "vmm/vm.h"

static bool has_id(const struct object *obj, const char *id)
{
	return obj && obj->id && !strcmp(obj->id, id);
}

/* Run @fn where it comes between no callbacks. */
static void in_loop(struct netdev *net, void (*fn)(void *arg), void *arg)
{
	if (net->loop)
		loop_call(net->loop, fn, arg);
	else
		fn(arg);
}

struct attach {
	struct netdev *net;
	struct object *card;
	const struct net_client_ops *ops;
	void *client;
};

static void attach(void *arg)
{
	struct attach *a = arg;

	a->net->card = a->card;
	a->net->client_ops = a->ops;
	a->net->client = a->client;
	if (a->net->away && a->client)
		a->ops->link(a->client, false);
}

void netdev_attach(struct netdev *net, struct object *card, const struct net_client_ops *ops,
		   void *client)
{
	struct attach a = {net, card, ops, client};

	in_loop(net, attach, &a);
}

void netdev_detach(struct netdev *net)
{
	struct attach a = {.net = net};

	in_loop(net, attach, &a);
}

static void tell_link(void *arg)
{
	struct netdev *net = arg;

	if (net->client)
		net->client_ops->link(net->client, !net->link_down && !net->away);
}

void netdev_tell_link(struct netdev *net)
{
	tell_link(net);
}

int netdev_set_link(struct vm *vm, const char *id, bool up, struct hako_error *err)
{
	struct netdev *net = NULL;
	struct object *obj;

	list_for_each(obj, &vm->objects[CLASS_NETDEV], link) {
		struct netdev *n = (struct netdev *)obj;

		if (has_id(obj, id) || has_id(n->card, id)) {
			net = n;
			break;
		}
	}
	if (!net)
		return error_set(err, -ENODEV, "%s: there is no network or card of that id", id);
	if (net->link_down == !up)
		return 0;
	net->link_down = !up;
	if (net->ops->set_link)
		net->ops->set_link(net, up);
	in_loop(net, tell_link, net);
	return 0;
}

int netdev_no_offloads(struct netdev *net, const struct net_offloads *o)
{
	return o->csum || o->tso4 || o->tso6 || o->ecn || o->ufo || o->uso ? -EOPNOTSUPP : 0;
}
