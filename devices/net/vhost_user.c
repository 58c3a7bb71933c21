/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Network "vhost-user": a process of the host serves the card's queues itself (DPDK, Open vSwitch, VPP …), in guest memory that it shares. Here is
 * the connection's life: it comes from a socket chardev, is lost, comes again. While there is none, the guest sees its link down. What is said
 * over it for the queues is virtio/vhost_user.c's.
 *
 * The connection and the card's queues have a loop of their own, since it waits for the back end's answers.
 */
#include <fcntl.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "devices/char/char.h"
#include "devices/net/net.h"
#include "devices/vhost/user.h"
#include "vmm/vm.h"

struct vhost_user_net {
	struct netdev netdev;
	/* Options. */
	char *chardev_id, *path;
	bool server, force;
	uint32_t reconnect, nqueues;

	struct chardev *chr;
	struct object *own_chr; /* made for path= */
	struct vhost_user vu;
	struct loop_watch watch;
	int new_fd; /* atomic: a connection on its way from the chardev's loop to ours; -1: none */
	struct loop_msg arrived, lost_msg;
	/* Whoever makes the network waits for its first back end. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool met;
	int code;
	struct hako_error why;
};

/* --- packets: there are none here -------------------------------------------------------------- */

static int vu_start(struct netdev *net, unsigned int queue, struct loop *loop,
		    struct hako_error *err)
{
	(void)net;
	(void)queue;
	(void)loop;
	return error_set(err, -ENOTCONN, "no back end");
}

static int vu_start_vhost(struct netdev *net, unsigned int queue, struct hako_error *err)
{
	(void)net;
	(void)queue;
	(void)err;
	return 0;
}

static void vu_stop(struct netdev *net, unsigned int queue)
{
	(void)net;
	(void)queue;
}

static int vu_set_offloads(struct netdev *net, const struct net_offloads *offloads)
{
	(void)net;
	(void)offloads;
	return 0; /* they are features, which the back end learns */
}

static void reset(void *arg)
{
	struct vhost_user_net *n = arg;

	if (vhost_user_has(&n->vu, VHOST_USER_PROTOCOL_F_RESET_DEVICE))
		vhost_user_send(&n->vu, VHOST_USER_RESET_DEVICE);
	if (vhost_user_has(&n->vu, VHOST_USER_PROTOCOL_F_STATUS))
		vhost_user_set(&n->vu, VHOST_USER_SET_STATUS, 0);
	vhost_user_forget(&n->vu);
	n->vu.configured = false;
}

static void vu_reset(struct netdev *net)
{
	loop_call(net->loop, reset, net);
}

static const struct netdev_ops vu_ops = {
	.start = vu_start,
	.start_vhost = vu_start_vhost,
	.stop = vu_stop,
	.reset = vu_reset,
	.set_offloads = vu_set_offloads,
};

/* --- connections, in our loop ------------------------------------------------------------------ */

static void lost(struct vhost_user *vu, const char *why)
{
	struct vhost_user_net *n = container_of(vu, struct vhost_user_net, vu);

	vm_log(n->netdev.obj.vm, "%s: vhost-user: %s", n->netdev.obj.id, why);
	loop_post(n->netdev.loop, &n->lost_msg);
}

static void hang_up(struct vhost_user_net *n)
{
	loop_watch_stop(&n->watch);
	vhost_user_close(&n->vu);
	chardev_hangup(n->chr);
}

static void lost_fn(struct loop_msg *msg)
{
	struct vhost_user_net *n = container_of(msg, struct vhost_user_net, lost_msg);

	if (!n->vu.failed)
		return;
	n->netdev.away = true;
	netdev_tell_link(&n->netdev);
	hang_up(n);
}

static void ready(struct loop_watch *watch, uint32_t revents)
{
	struct vhost_user_net *n = watch->opaque;

	(void)revents;
	vhost_user_check(&n->vu);
}

static int check_back_end(struct vhost_user_net *n, struct hako_error *err)
{
	if (n->vu.queues < n->nqueues)
		return error_set(err, -EINVAL, "queues=%u: the back end has %llu", n->nqueues,
				 (unsigned long long)n->vu.queues);
	return 0;
}

/* What the card is made from. */
static void learn(struct vhost_user_net *n)
{
	struct netdev *net = &n->netdev;
	uint8_t mtu[2];

	net->vhost_features = n->vu.features;
	if ((n->vu.features & BIT64(VIRTIO_NET_F_MTU)) &&
	    vhost_user_has(&n->vu, VHOST_USER_PROTOCOL_F_CONFIG) &&
	    !vhost_user_get_config(&n->vu, offsetof(struct virtio_net_config, mtu), mtu, 2) &&
	    get_le16(mtu) >= 68)
		net->mtu = get_le16(mtu);
}

static int adopt(struct vhost_user_net *n, int fd, struct hako_error *err)
{
	int ret = vhost_user_open(&n->vu, fd, err) ?: check_back_end(n, err);

	if (ret)
		return ret;
	n->watch = (struct loop_watch){.fd = fd, .events = POLLIN, .fn = ready, .opaque = n};
	return loop_watch_start(n->netdev.loop, &n->watch, err);
}

static void meet(struct vhost_user_net *n, int code, const struct hako_error *why)
{
	pthread_mutex_lock(&n->lock);
	n->met = true;
	n->code = code;
	n->why = *why;
	pthread_cond_signal(&n->cond);
	pthread_mutex_unlock(&n->lock);
}

static void arrived_fn(struct loop_msg *msg)
{
	struct vhost_user_net *n = container_of(msg, struct vhost_user_net, arrived);
	int fd = __atomic_exchange_n(&n->new_fd, -1, __ATOMIC_ACQ_REL), ret;
	bool first = !n->met;
	struct hako_error err = {0};

	if (fd < 0)
		return;
	ret = adopt(n, fd, &err);
	if (ret) {
		if (!first)
			vm_log(n->netdev.obj.vm, "%s: vhost-user: %s", n->netdev.obj.id,
			       err.message);
		hang_up(n);
	} else {
		if (first)
			learn(n);
		n->netdev.away = false;
		netdev_tell_link(&n->netdev);
	}
	if (first)
		meet(n, ret, &err);
}

/* In the chardev's loop. */
static void got_socket(void *client, int fd)
{
	struct vhost_user_net *n = client;
	int old = __atomic_exchange_n(&n->new_fd, fd, __ATOMIC_ACQ_REL);

	if (old >= 0)
		close(old);
	loop_post(n->netdev.loop, &n->arrived);
}

static const struct chardev_client_ops chardev_client = {
	.socket = got_socket,
};

/* --- class ------------------------------------------------------------------------------------- */

/* path=: a chardev of our own. */
static int make_chardev(struct vhost_user_net *n, struct hako_error *err)
{
	const struct class *cls = class_find(CLASS_CHARDEV, "socket");
	struct object *obj = &n->netdev.obj;
	char *id = str_printf("%s.socket", obj->id);
	struct keyvals kv = {0};
	char text[16];
	int ret;

	snprintf(text, sizeof(text), "%u", n->reconnect);
	ret = id ? keyvals_add(&kv, "id", id) : -ENOMEM;
	if (!ret)
		ret = keyvals_add(&kv, "path", n->path);
	if (!ret)
		ret = keyvals_add(&kv, "server", n->server ? "on" : "off");
	if (!ret && !n->server)
		ret = keyvals_add(&kv, "reconnect", text);
	if (ret)
		error_errno(err, ret, "options");
	else
		ret = object_new(obj->vm, cls, &kv, &n->own_chr, err);
	keyvals_free(&kv);
	free(id);
	return ret;
}

static int take_chardev(struct vhost_user_net *n, struct hako_error *err)
{
	int ret = 0;

	if (!n->netdev.obj.id)
		return error_set(err, -EINVAL, "id=… is missing");
	if (!n->chardev_id == !n->path)
		return error_set(err, -EINVAL, "one of chardev and path is needed");
	if (n->chardev_id && (n->server || n->reconnect))
		return error_set(err, -EINVAL, "%s is an option of the chardev",
				 n->server ? "server" : "reconnect");
	if (n->server && n->reconnect)
		return error_set(err, -EINVAL,
				 "reconnect: there is nothing to connect to with server=on");
	if (n->path)
		ret = make_chardev(n, err);
	return ret
		       ?: chardev_take(n->netdev.obj.vm,
				       n->own_chr ? n->own_chr->id : n->chardev_id, &chardev_client,
				       n, &n->chr, err);
}

/* The card can not be made before it is known what the back end can do. */
static int wait_for_back_end(struct vhost_user_net *n, struct hako_error *err)
{
	pthread_mutex_lock(&n->lock);
	while (!n->met)
		pthread_cond_wait(&n->cond, &n->lock);
	pthread_mutex_unlock(&n->lock);
	if (n->code)
		error_set(err, n->code, "%s=%s: %s", n->path ? "path" : "chardev",
			  n->path ?: n->chardev_id, n->why.message);
	return n->code;
}

static void close_all(void *arg)
{
	struct vhost_user_net *n = arg;

	loop_watch_stop(&n->watch);
	vhost_user_close(&n->vu);
	vhost_user_forget(&n->vu);
	if (n->new_fd >= 0)
		close(n->new_fd);
	n->new_fd = -1;
}

static void vu_destroy(struct object *obj)
{
	struct vhost_user_net *n = (struct vhost_user_net *)obj;

	if (n->chr) {
		/* Nothing new comes; who waits for this connection's end may have the next one. */
		chardev_release(n->chr);
		loop_call(n->netdev.loop, close_all, n);
		chardev_hangup(n->chr);
	}
	if (n->own_chr)
		object_destroy(n->own_chr);
	if (n->netdev.loop)
		loop_free(n->netdev.loop);
	pthread_mutex_destroy(&n->lock);
	pthread_cond_destroy(&n->cond);
}

static int vu_create(struct object *obj, struct hako_error *err)
{
	struct vhost_user_net *n = (struct vhost_user_net *)obj;
	struct netdev *net = &n->netdev;
	int ret;

	net->ops = &vu_ops;
	net->queues = n->nqueues;
	net->vnet_hdr = true;
	net->offloads = (struct net_offloads){true, true, true, true, true, true};
	net->vhost_user = &n->vu;
	net->vhost_required = true;
	net->away = true;
	n->new_fd = -1;
	n->arrived.fn = arrived_fn;
	n->lost_msg.fn = lost_fn;
	vhost_user_init(&n->vu, lost);
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->cond, NULL);
	ret = memory_share(obj->vm, err);
	if (!ret)
		ret = loop_new(&net->loop, "hako-vhost-user", obj->vm->loop_engine, err);
	if (!ret)
		ret = take_chardev(n, err);
	if (!ret)
		ret = wait_for_back_end(n, err);
	if (ret)
		vu_destroy(obj);
	return ret;
}

static const struct option vu_options[] = {
	OPT_STRING("chardev", struct vhost_user_net, chardev_id, NULL,
		   "id of the socket chardev that leads to the back end"),
	OPT_STRING("path", struct vhost_user_net, path, NULL,
		   "instead of a chardev: the Unix socket"),
	OPT_BOOL("server", struct vhost_user_net, server, "off",
		 "path: listen for the back end; otherwise connect to it"),
	OPT_UINT("reconnect", struct vhost_user_net, reconnect, "0", 0, 86400,
		 "path: seconds after which a lost connection is tried again; 0: it is not"),
	OPT_UINT("queues", struct vhost_user_net, nqueues, "1", 1, NETDEV_MAX_QUEUES,
		 "queue pairs"),
	OPT_BOOL("vhostforce", struct vhost_user_net, force, "on",
		 "accepted: there is no other way"),
	OPT_END,
};

static int vu_confine(struct object *obj, struct sandbox *sb, struct hako_error *err)
{
	struct netdev *net = &((struct vhost_user_net *)obj)->netdev;
	int ret = sandbox_add_loop(sb, net->loop);

	return ret ? error_errno(err, ret, "its loop") : 0;
}

static const struct class vu_class = {
	.name = "vhost-user",
	.help = "a process of the host that serves the queues, such as DPDK or Open vSwitch",
	.kind = CLASS_NETDEV,
	.size = sizeof(struct vhost_user_net),
	.options = vu_options,
	.create = vu_create,
	.destroy = vu_destroy,
	.needs = SANDBOX_SOCKET | SANDBOX_SENDING,
	.confine = vu_confine,
};
HAKO_CLASS(vu_class);
