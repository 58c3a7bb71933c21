/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A queue of pieces, each some clusters of one coroutine. Threads take single clusters from the first piece; who finishes a piece's last
 * cluster posts a message to the loop, which wakes the coroutine.
 */
#include "copy_pack.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "chain.h"

#define MAX_THREADS 16

struct piece {
	struct piece *next;
	const uint8_t *in;
	uint8_t *out;
	int64_t *sizes;
	unsigned int n, taken, done; /* clusters */
	bool skip_zero;
	struct loop *loop;
	struct loop_msg msg;
	struct co *co;
};

struct copy_packers {
	struct qcow2 *q;
	pthread_mutex_t lock; /* of all that follows, and of the pieces */
	pthread_cond_t work;
	struct piece *first, **last;
	bool ending;
	unsigned int nthreads;
	pthread_t threads[MAX_THREADS];
};

static void pack_one(const struct copy_packers *p, const struct piece *piece, unsigned int i)
{
	size_t size = p->q->cluster_size;
	const uint8_t *in = piece->in + i * size;

	if (piece->skip_zero && mem_is_zero(in, size))
		piece->sizes[i] = 0;
	else
		piece->sizes[i] = qcow2_pack(p->q, in, piece->out + i * size);
}

static void *packer(void *arg)
{
	struct copy_packers *p = arg;

	pthread_mutex_lock(&p->lock);
	for (;;) {
		struct piece *piece = p->first;
		unsigned int i;

		if (!piece && p->ending)
			break;
		if (!piece) {
			pthread_cond_wait(&p->work, &p->lock);
			continue;
		}
		i = piece->taken++;
		if (piece->taken == piece->n) {
			p->first = piece->next;
			if (!p->first)
				p->last = &p->first;
		}
		pthread_mutex_unlock(&p->lock);
		pack_one(p, piece, i);
		pthread_mutex_lock(&p->lock);
		if (++piece->done == piece->n)
			loop_post(piece->loop, &piece->msg);
	}
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

int copy_packers_new(struct qcow2 *q, struct copy_packers **out, struct hako_error *err)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	struct copy_packers *p = calloc(1, sizeof(*p));
	int ret = 0;

	if (!p)
		return error_errno(err, -ENOMEM, "compression");
	p->q = q;
	p->last = &p->first;
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->work, NULL);
	while (p->nthreads < MAX_THREADS && p->nthreads < MAX(cpus, 1) && ret == 0) {
		ret = pthread_create(&p->threads[p->nthreads], NULL, packer, p);
		p->nthreads += ret == 0;
	}
	if (!p->nthreads) {
		copy_packers_free(p);
		return error_errno(err, -ret, "threads for compression");
	}
	*out = p;
	return 0;
}

void copy_packers_free(struct copy_packers *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->ending = true;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	for (unsigned int i = 0; i < p->nthreads; i++)
		pthread_join(p->threads[i], NULL);
	pthread_cond_destroy(&p->work);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static void piece_done(struct loop_msg *msg)
{
	co_wake(container_of(msg, struct piece, msg)->co);
}

void copy_pack(struct copy_packers *p, const uint8_t *in, uint8_t *out, int64_t *sizes,
	       unsigned int n, bool skip_zero)
{
	struct piece piece = {
		.in = in,
		.out = out,
		.sizes = sizes,
		.n = n,
		.skip_zero = skip_zero,
		.loop = co_loop(),
		.msg.fn = piece_done,
		.co = co_self(),
	};

	if (!n)
		return;
	pthread_mutex_lock(&p->lock);
	*p->last = &piece;
	/* It waits here until it has been taken out. */
	/* cppcheck-suppress autoVariables */
	p->last = &piece.next;
	pthread_cond_broadcast(&p->work);
	pthread_mutex_unlock(&p->lock);
	co_wait();
}

static int write_one(struct qcow2 *q, uint64_t offset, const uint8_t *data, uint64_t bytes,
		     uint8_t *whole, uint8_t *packed)
{
	int64_t n;

	if (bytes < q->cluster_size) {
		memcpy(whole, data, bytes);
		memset(whole + bytes, 0, q->cluster_size - bytes);
	}
	n = qcow2_pack(q, bytes < q->cluster_size ? whole : data, packed);
	if (n == -E2BIG)
		return block_pwrite(&q->node, offset, data, bytes, 0);
	return n < 0 ? (int)n : qcow2_write_packed(q, offset, packed, n);
}

int qcow2_write_compressed(struct qcow2 *q, uint64_t offset, const void *data, uint64_t bytes)
{
	uint64_t size = q->cluster_size, n;
	uint8_t *buf;
	int ret = 0;

	if (offset % size || (bytes % size && offset + bytes != q->node.length))
		return -EINVAL;
	buf = malloc(2 * size);
	if (!buf)
		return -ENOMEM;
	for (uint64_t done = 0; done < bytes && ret == 0; done += n) {
		n = MIN(size, bytes - done);
		ret = write_one(q, offset + done, (const uint8_t *)data + done, n, buf, buf + size);
	}
	free(buf);
	return ret;
}
