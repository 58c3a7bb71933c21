/* SPDX-License-Identifier: GPL-2.0-only */
#include "devices/net/net.h"

#include "vmm/vm.h"

static bool has_id(const struct object *obj, const char *id)
{
	return obj && obj->id && !strcmp(obj->id, id);
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
	if (net->client)
		net->client_ops->link(net->client, up);
	return 0;
}
