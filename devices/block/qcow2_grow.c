/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2: the file is lengthened ahead of the guest's writes, a good piece at a time. A write that lengthens a file is slow: file systems do
 * one after the other, and with O_DIRECT wait for each. What is left over is cut off at the end; if that is not reached, the file is longer
 * than it has to be, which does no harm.
 */
#include "qcow2.h"

#define MIN_STEP (4 * MiB)
#define MAX_STEP (64 * MiB)

static uint64_t step(const struct qcow2 *q, uint64_t length)
{
	return ALIGN_UP(MIN(MAX(length / 8, MIN_STEP), MAX_STEP), q->cluster_size);
}

static void grow(void *arg)
{
	struct qcow2 *q = arg;
	uint64_t length = READ_ONCE(q->node.file->length), bytes = step(q, length);

	/* If the file has no such thing, or there is no room for so much, writes lengthen it as they come. */
	if (block_pzero(q->node.file, q->grow_from, bytes, BLOCK_NO_FALLBACK) < 0)
		q->no_growth = true;
	q->growing = false;
	co_queue_wake_all(&q->grown);
}

void qcow2_wait_grown(struct qcow2 *q)
{
	while (q->growing)
		co_queue_wait(&q->grown);
}

void qcow2_grow(struct qcow2 *q, uint64_t end)
{
	uint64_t length = READ_ONCE(q->node.file->length);

	if (!co_self() || q->data != q->node.file)
		return;
	if (!q->growing && !q->no_growth && end + step(q, length) / 2 > length) {
		/* Behind all that may be under way to the file. */
		q->grow_from = ALIGN_UP(MAX(length, q->high_water), q->cluster_size);
		q->growing = true;
		if (co_start(co_loop(), grow, q) < 0)
			q->growing = false;
	}
	if (q->growing && end > q->grow_from)
		qcow2_wait_grown(q);
}

void qcow2_trim(struct qcow2 *q)
{
	uint64_t end = MAX(q->old_length, q->high_water);

	if (q->data == q->node.file && READ_ONCE(q->node.file->length) > end)
		block_resize(q->node.file, end, BLOCK_PREALLOC_OFF, NULL);
}
