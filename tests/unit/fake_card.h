/* SPDX-License-Identifier: GPL-2.0-only */
/* For tests of networks: a VM without KVM, a network, and what a card does with it. */
#ifndef TESTS_FAKE_CARD_H
#define TESTS_FAKE_CARD_H

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "devices/net/net.h"
#include "vmm/vm.h"

#define CARD_HDR   12
#define CARD_FRAME 70000

struct card_frame {
	struct card_frame *next;
	uint8_t hdr[CARD_HDR];
	size_t len;
	uint8_t data[];
};

struct card {
	struct vm *vm;
	enum loop_engine engine;
	struct loop *loop;
	struct netdev *net;
	bool stalled; /* stalled: readable() calls are left unanswered */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct card_frame *frames, **tail;
	unsigned int nframes;
	unsigned int writables; /* atomic: calls of writable() */
};

/* In the loop: take all that there is. */
static inline void card_drain(struct card *c)
{
	uint8_t *buf = malloc(CARD_HDR + CARD_FRAME);

	for (;;) {
		/* In three pieces, the header cut in two. */
		struct iovec iov[3] = {
			{buf, 5}, {buf + 5, 20}, {buf + 25, CARD_HDR + CARD_FRAME - 25}};
		ssize_t n = c->net->ops->recv(c->net, 0, iov, 3);
		struct card_frame *f;

		if (n == -EMSGSIZE)
			continue;
		if (n < 0)
			break;
		ck_assert_int_ge(n, CARD_HDR);
		f = malloc(sizeof(*f) + n - CARD_HDR);
		f->next = NULL;
		f->len = n - CARD_HDR;
		memcpy(f->hdr, buf, CARD_HDR);
		memcpy(f->data, buf + CARD_HDR, f->len);
		pthread_mutex_lock(&c->lock);
		*c->tail = f;
		c->tail = &f->next;
		c->nframes++;
		pthread_cond_signal(&c->cond);
		pthread_mutex_unlock(&c->lock);
	}
	free(buf);
}

static void card_readable(void *client, unsigned int queue)
{
	struct card *c = client;

	ck_assert(loop_is_current(c->loop));
	if (!c->stalled)
		card_drain(c);
}

static void card_writable(void *client, unsigned int queue)
{
	struct card *c = client;

	__atomic_add_fetch(&c->writables, 1, __ATOMIC_RELAXED);
}

static void card_link(void *client, bool up)
{
}

static const struct net_client_ops card_client = {card_readable, card_writable, card_link};

static inline int card_netdev(struct vm *vm, const char *cls, const char *options,
			      struct object **obj, struct hako_error *err)
{
	const struct class *k = class_find(CLASS_NETDEV, cls);
	struct keyvals kv = {0};
	int ret;

	ck_assert_ptr_nonnull(k);
	ret = keyvals_parse(&kv, options, NULL, err);
	if (!ret)
		ret = object_new(vm, k, &kv, obj, err);
	keyvals_free(&kv);
	return ret;
}

static void card_start_in_loop(void *arg)
{
	struct card *c = arg;

	ck_assert_int_eq(c->net->ops->start(c->net, 0, c->loop, NULL), 0);
	if (!c->stalled) {
		c->net->ops->recv_enable(c->net, 0, true);
		card_drain(c);
	}
}

static void card_resume_in_loop(void *arg)
{
	struct card *c = arg;

	c->stalled = false;
	c->net->ops->recv_enable(c->net, 0, true);
	card_drain(c);
}

static inline void card_pause_in_loop(void *arg)
{
	struct card *c = arg;

	c->net->ops->recv_enable(c->net, 0, false);
}

static void card_stop_in_loop(void *arg)
{
	struct card *c = arg;

	c->net->ops->stop(c->net, 0);
}

static inline void card_open(struct card *c, const char *cls, const char *options)
{
	struct hako_error err = {0};
	struct object *obj = NULL;

	c->tail = &c->frames;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	ck_assert_int_eq(vm_new_plain(&c->vm, 1 << 20, &err), 0);
	ck_assert_msg(!loop_new(&c->loop, "card", c->engine, &err), "%s", err.message);
	ck_assert_msg(!card_netdev(c->vm, cls, options, &obj, &err), "%s", err.message);
	c->net = (struct netdev *)obj;
	c->net->client = c;
	c->net->client_ops = &card_client;
	loop_call(c->loop, card_start_in_loop, c);
}

/* Make the card read again that was opened with .stalled. */
static inline void card_go(struct card *c)
{
	loop_call(c->loop, card_resume_in_loop, c);
}

static inline void card_close(struct card *c)
{
	loop_call(c->loop, card_stop_in_loop, c);
	loop_free(c->loop);
	vm_free_plain(c->vm);
	while (c->frames) {
		struct card_frame *f = c->frames;

		c->frames = f->next;
		free(f);
	}
}

struct card_send {
	struct card *card;
	const void *frame;
	size_t len;
	ssize_t ret;
};

static void card_send_in_loop(void *arg)
{
	static uint8_t hdr[CARD_HDR];
	struct card_send *s = arg;
	size_t cut = s->len / 3;
	struct iovec iov[3] = {{hdr, CARD_HDR},
			       {(void *)s->frame, cut},
			       {(uint8_t *)s->frame + cut, s->len - cut}};

	s->ret = s->card->net->ops->send(s->card->net, 0, iov, 3);
}

static inline ssize_t card_send(struct card *c, const void *frame, size_t len)
{
	struct card_send s = {c, frame, len, 0};

	loop_call(c->loop, card_send_in_loop, &s);
	return s.ret;
}

/* The next frame, or NULL when @ms have gone by. The caller frees it. */
static inline struct card_frame *card_next(struct card *c, unsigned int ms)
{
	struct card_frame *f;
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += ms / 1000;
	ts.tv_nsec += ms % 1000 * 1000000l;
	if (ts.tv_nsec >= 1000000000l) {
		ts.tv_sec++;
		ts.tv_nsec -= 1000000000l;
	}
	pthread_mutex_lock(&c->lock);
	while (!c->frames && pthread_cond_timedwait(&c->cond, &c->lock, &ts) != ETIMEDOUT)
		;
	f = c->frames;
	if (f) {
		c->frames = f->next;
		if (!c->frames)
			c->tail = &c->frames;
		c->nframes--;
	}
	pthread_mutex_unlock(&c->lock);
	return f;
}

static inline bool all_are(const uint8_t *p, size_t len, uint8_t fill)
{
	for (size_t i = 0; i < len; i++)
		if (p[i] != fill)
			return false;
	return true;
}

/* The card gets a frame of @len bytes @fill, whose header asks for nothing. */
static inline void expect_frame(struct card *c, size_t len, uint8_t fill)
{
	struct card_frame *f = card_next(c, 5000);

	ck_assert_msg(f, "no frame");
	ck_assert_uint_eq(f->len, len);
	ck_assert(all_are(f->data, len, fill));
	ck_assert_uint_eq(f->hdr[0] | f->hdr[1], 0);
	ck_assert_uint_eq(f->hdr[10], 1); /* num_buffers */
	free(f);
}

#endif
