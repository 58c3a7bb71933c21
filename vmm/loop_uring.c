/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The io_uring engine. One io_uring_enter(2) a turn submits everything and waits. A level-triggered watch is a poll request
 * that is armed again after its callback, in the submission that has to be made anyway; an edge-triggered one is a multishot
 * poll.
 */
#include <fcntl.h>
#include <limits.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "loop_impl.h"

#define URING_SQ_ENTRIES 64
#define URING_CQ_ENTRIES 1024 /* what does not fit waits in the kernel (IORING_FEAT_NODROP) */
#define URING_FILES	 64

/*
 * Requests that are handed over in one turn. Those that are served from the page cache are done when io_uring_enter(2) returns: with more
 * at a time the guest waits longer for the first, with fewer there are more entries and interrupts. A device begins with the first while
 * the rest is on its way.
 */
#define URING_BATCH_CACHED 8
#define URING_BATCH	   16

/*
 * With many requests at a device, some are done at a time: a wait is for several of them, if that does not take much longer than for one, and
 * a loop that looks for the first gives the others a moment. That saves entries.
 */
#define URING_MANY	  16
#define URING_MIN_WAIT_US 50
#define URING_PATIENCE_NS 3000
#define URING_LONG_NS	  (60 * NSEC_PER_SEC)

/*
 * A wake-up without an event, such as a change of a terminal's modes, ends a poll with EINVAL on some kernels (seen with 6.18): it
 * is armed again, but not for ever.
 */
#define POLL_VAIN_MAX 1000

/* What a completion belongs to: the low bits of user_data. */
#define TAG_MASK   3ull
#define TAG_IO	   0ull
#define TAG_SLOT   1ull
#define TAG_NONE   2ull
#define TAG_PACKET 3ull /* above: struct uring's npackets, and which one of them */

/* io_uring_getevents_arg, and a flag, as Linux 6.12 has them; headers may be older. */
struct enter_arg {
	uint64_t sigmask;
	uint32_t sigmask_sz;
	uint32_t min_wait_usec;
	uint64_t ts;
};
#define FEAT_MIN_TIMEOUT (1u << 15)

struct uring {
	struct io_uring ring;
	struct list changed; /* slots whose watch or state changed */
	bool files_tried;
	uint64_t files_used; /* bitmap of URING_FILES; 0 also if there is no table */
	bool files;
	bool min_wait;	      /* FEAT_MIN_TIMEOUT */
	uint64_t waits_since; /* when kernel_waits() was first seen since the last entry; or 0 */
	unsigned int batch;   /* of requests in one turn */
	uint32_t npackets;    /* calls of uring_packets() */
	bool stale;	      /* the kernel's flags were of no use when it was entered last */
	struct loop_aio aio;
};

/* --- set-up ------------------------------------------------------------------------------------ */

static const struct io_uring_restriction restrictions[] = {
#define SQE(OP)                                                   \
	{                                                         \
		.opcode = IORING_RESTRICTION_SQE_OP, .sqe_op = OP \
	}
#define REGISTER(OP)                                                        \
	{                                                                   \
		.opcode = IORING_RESTRICTION_REGISTER_OP, .register_op = OP \
	}
	SQE(IORING_OP_READ),
	SQE(IORING_OP_WRITE),
	SQE(IORING_OP_READV),
	SQE(IORING_OP_WRITEV),
	SQE(IORING_OP_FSYNC),
	SQE(IORING_OP_FALLOCATE),
	SQE(IORING_OP_POLL_ADD),
	SQE(IORING_OP_ASYNC_CANCEL),
	REGISTER(IORING_REGISTER_FILES2),
	REGISTER(IORING_REGISTER_FILES_UPDATE),
	REGISTER(IORING_UNREGISTER_FILES),
	REGISTER(IORING_REGISTER_RING_FDS),
	REGISTER(IORING_UNREGISTER_RING_FDS),
	{.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
	 .sqe_flags = IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS},
#undef SQE
#undef REGISTER
};

/*
 * What the ring is asked to do is not seen by seccomp. So it can do, from its first request on, only what this file asks for: whoever has
 * got hold of the process opens and connects nothing by it.
 */
static int uring_restrict(struct io_uring *ring)
{
	/* Not by liburing, whose version 2.3 does not export its functions for these. */
	if (syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_RESTRICTIONS,
		    restrictions, ARRAY_SIZE(restrictions)) < 0 ||
	    syscall(SYS_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0) <
		    0)
		return -errno;
	return 0;
}

static int uring_setup(struct uring *u)
{
	/* Newest first: 6.1, 5.19, 5.18. */
	static const unsigned int flags[] = {
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_SUBMIT_ALL | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		IORING_SETUP_SUBMIT_ALL,
	};
	const unsigned int needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
	struct io_uring *ring = &u->ring;
	int ret = -EINVAL;

	for (unsigned int i = 0; i < ARRAY_SIZE(flags) && ret == -EINVAL; i++) {
		struct io_uring_params p = {
			.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP |
				 IORING_SETUP_R_DISABLED,
			.cq_entries = URING_CQ_ENTRIES,
		};

		ret = io_uring_queue_init_params(URING_SQ_ENTRIES, ring, &p);
		u->min_wait = p.features & FEAT_MIN_TIMEOUT;
		if (ret == 0 && (p.features & needed) != needed) {
			io_uring_queue_exit(ring);
			ret = -EINVAL;
		}
	}
	if (ret == 0 && (ret = uring_restrict(ring)) < 0)
		io_uring_queue_exit(ring);
	return ret == -EINVAL ? -ENOSYS : ret;
}

static int uring_init(struct loop *loop, struct hako_error *err)
{
	struct uring *u = calloc(1, sizeof(*u));
	int ret;

	if (!u)
		return error_errno(err, -ENOMEM, "io_uring");
	ret = uring_setup(u);
	if (ret < 0) {
		free(u);
		error_errno(err, ret, "io_uring");
		if (ret == -ENOSYS)
			error_hint(err, "it needs Linux 5.18");
		else if (ret == -EPERM)
			error_hint(err,
				   "see /proc/sys/kernel/io_uring_disabled, or the container's "
				   "seccomp policy");
		return ret;
	}
	/* Slot n of the ring is SQE n, for good. */
	for (unsigned int i = 0; i < u->ring.sq.ring_entries; i++)
		u->ring.sq.array[i] = i;
	/* Saves the look-up of the descriptor at each entry; nothing is lost if it is refused. */
	(void)io_uring_register_ring_fd(&u->ring);
	list_init(&u->changed);
	u->batch = URING_BATCH_CACHED;
	loop->engine = u;
	return 0;
}

static void uring_free(struct loop *loop)
{
	struct uring *u = loop->engine;

	/* The kernel tears a ring down some time after its end; files are to be let go now. */
	if (u->files)
		io_uring_unregister_files(&u->ring);
	io_uring_queue_exit(&u->ring);
	loop_aio_free(&u->aio);
	free(u);
	loop->engine = NULL;
}

/* --- entering the kernel ----------------------------------------------------------------------- */

/* Has the kernel something that it shows only to who enters? */
static bool kernel_waits(const struct uring *u)
{
	return READ_ONCE(*u->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

/* Show the kernel what is in the submission queue: how much that is. */
static unsigned int uring_show(struct uring *u)
{
	struct io_uring_sq *sq = &u->ring.sq;

	if (sq->sqe_head != sq->sqe_tail) {
		sq->sqe_head = sq->sqe_tail;
		__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	}
	return sq->sqe_tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

static unsigned int uring_registered(const struct uring *u)
{
	return u->ring.enter_ring_fd != u->ring.ring_fd ? IORING_ENTER_REGISTERED_RING : 0;
}

/*
 * liburing's functions for this may enter more than once, or not fetch completions when there is nothing to wait for; here it is
 * one entry that does both.
 */
static int uring_enter(struct uring *u, uint64_t timeout, unsigned int ngiven)
{
	struct __kernel_timespec ts;
	unsigned int wait_for = timeout ? 1 : 0;
	struct enter_arg arg = {0};
	unsigned int flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
	unsigned int to_submit = uring_show(u);
	int ret;

	if (!to_submit && !timeout && !kernel_waits(u))
		return 0;
	if (timeout && ngiven >= URING_MANY && u->min_wait) {
		wait_for = ngiven / 2;
		arg.min_wait_usec = URING_MIN_WAIT_US;
		/* Without an end to the whole wait the kernel would not go on for the first after that. */
		timeout = MIN(timeout, URING_LONG_NS);
	}
	if (timeout && timeout != LOOP_NO_TIMEOUT) {
		ts.tv_sec = timeout / NSEC_PER_SEC;
		ts.tv_nsec = timeout % NSEC_PER_SEC;
		arg.ts = (uintptr_t)&ts;
	}
	flags |= uring_registered(u);
	ret = io_uring_enter2(u->ring.enter_ring_fd, to_submit, wait_for, flags, (sigset_t *)&arg,
			      sizeof(arg));
	/*
	 * Who adds work for us sets the flag after that, maybe when we have done the work already: then it stays for nothing, and to go
	 * by it would be to enter over and over again.
	 */
	u->waits_since = 0;
	if (to_submit >= URING_BATCH_CACHED && !timeout)
		u->batch = io_uring_cq_ready(&u->ring) >= to_submit / 2 ? URING_BATCH_CACHED
									: URING_BATCH;
	u->stale = kernel_waits(u) && !io_uring_cq_ready(&u->ring);
	return ret;
}

/* NULL if the kernel takes no more at the moment: try again in the next turn. */
static struct io_uring_sqe *uring_sqe(struct uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (unlikely(!sqe)) {
		uring_enter(u, 0, 0);
		sqe = io_uring_get_sqe(&u->ring);
	}
	return sqe;
}

/* The flush functions: 0, or -EAGAIN if something is left for the next turn. */
static int flush_slot(struct uring *u, struct loop_slot *slot)
{
	uint32_t events = slot->watch && !slot->failed ? slot->watch->events : 0;
	struct io_uring_sqe *sqe;

	if (slot->armed ? slot->cancelling || slot->mask == events : !events)
		return 0;
	sqe = uring_sqe(u);
	if (!sqe)
		return -EAGAIN;
	if (slot->armed) {
		/* Unlike IORING_OP_POLL_REMOVE this works also while the poll is firing. */
		io_uring_prep_cancel64(sqe, (uintptr_t)slot | TAG_SLOT, 0);
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
		sqe->user_data = TAG_NONE;
		slot->cancelling = true;
		return 0;
	}
	if (slot->watch->edge)
		io_uring_prep_poll_multishot(sqe, slot->fd, events);
	else
		io_uring_prep_poll_add(sqe, slot->fd, events);
	sqe->user_data = (uintptr_t)slot | TAG_SLOT;
	slot->armed = true;
	slot->mask = events;
	return 0;
}

static int flush_slots(struct uring *u)
{
	struct loop_slot *slot, *tmp;

	list_for_each_safe(slot, tmp, &u->changed, changed) {
		int ret = flush_slot(u, slot);

		if (ret < 0)
			return ret;
		list_del(&slot->changed);
	}
	return 0;
}

static void prep_io(struct io_uring_sqe *sqe, const struct loop_io *io)
{
	int fd = io->fixed >= 0 ? io->fixed : io->fd;
	const struct iovec *iov = io->iov;

	switch (io->op) {
	case LOOP_IO_READ:
		if (io->niov == 1 && iov->iov_len <= INT32_MAX)
			io_uring_prep_read(sqe, fd, iov->iov_base, iov->iov_len, io->offset);
		else
			io_uring_prep_readv2(sqe, fd, iov, io->niov, io->offset, io->flags);
		sqe->rw_flags = io->flags;
		break;
	case LOOP_IO_WRITE:
		if (io->niov == 1 && iov->iov_len <= INT32_MAX)
			io_uring_prep_write(sqe, fd, iov->iov_base, iov->iov_len, io->offset);
		else
			io_uring_prep_writev2(sqe, fd, iov, io->niov, io->offset, io->flags);
		sqe->rw_flags = io->flags;
		break;
	case LOOP_IO_FDATASYNC:
		io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC);
		break;
	case LOOP_IO_FALLOCATE:
		io_uring_prep_fallocate(sqe, fd, io->flags, io->offset, io->len);
		break;
	}
	if (io->fixed >= 0)
		sqe->flags |= IOSQE_FIXED_FILE;
	sqe->user_data = (uintptr_t)io | TAG_IO;
}

static int flush_io(struct loop *loop, struct uring *u)
{
	for (unsigned int n = 0; loop->io; n++) {
		struct loop_io *io = loop->io;
		bool here = n < u->batch && io->here && loop_aio_add(&u->aio, io);
		struct io_uring_sqe *sqe = n < u->batch && !here ? uring_sqe(u) : NULL;

		if (!sqe && !here)
			return -EAGAIN;
		loop->io = io->next;
		if (here)
			continue;
		loop->ngiven++;
		prep_io(sqe, io);
	}
	loop->io_tail = &loop->io;
	return 0;
}

static void uring_wait(struct loop *loop, uint64_t timeout)
{
	struct uring *u = loop->engine;

	if (flush_slots(u) < 0 || flush_io(loop, u) < 0 || u->aio.n || u->aio.done)
		timeout = 0;
	/* Errors: EINTR, ETIME; EBUSY and EAGAIN, if the kernel is short of memory. What is left goes with the next turn. */
	uring_enter(u, timeout, loop->ngiven);
	if (u->aio.n && !u->aio.done)
		loop_aio_submit(&u->aio);
}

/* --- packets ----------------------------------------------------------------------------------- */

#define PACKET_NO_RESULT INT_MIN

static void prep_packet(struct io_uring_sqe *sqe, enum loop_io_op op, int fd,
			const struct loop_packet *p)
{
	const struct iovec *iov = p->iov;

	if (p->niov == 1 && op == LOOP_IO_READ)
		io_uring_prep_read(sqe, fd, iov->iov_base, MIN(iov->iov_len, INT32_MAX), 0);
	else if (p->niov == 1)
		io_uring_prep_write(sqe, fd, iov->iov_base, MIN(iov->iov_len, INT32_MAX), 0);
	else if (op == LOOP_IO_READ)
		io_uring_prep_readv(sqe, fd, iov, p->niov, 0);
	else
		io_uring_prep_writev(sqe, fd, iov, p->niov, 0);
	/* What would have to wait is not kept by the kernel until it can be done: its memory is the caller's. */
	sqe->rw_flags = RWF_NOWAIT;
}

/* Have the kernel do what is in the submission queue, of which the last @n are packets: how many of them it has not taken, if it is short of memory. */
static unsigned int submit_packets(struct uring *u, unsigned int n)
{
	struct io_uring_sq *sq = &u->ring.sq;
	unsigned int left;
	int ret;

	while ((left = uring_show(u))) {
		ret = io_uring_enter2(u->ring.enter_ring_fd, left, 0, uring_registered(u), NULL, 0);
		if (ret <= 0 && ret != -EINTR)
			break;
	}
	left = MIN(left, n);
	sq->sqe_head = sq->sqe_tail -= left;
	__atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
	return left;
}

/* Find the results behind @from in the completion queue, where others may be before and between them: how many. */
static unsigned int find_packets(struct uring *u, uint32_t from, struct loop_packet *packet,
				 unsigned int n)
{
	struct io_uring_cq *cq = &u->ring.cq;
	uint32_t tail = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);
	unsigned int found = 0;

	for (uint32_t at = from; at != tail; at++) {
		struct io_uring_cqe *cqe = &cq->cqes[at & cq->ring_mask];
		uint64_t data = cqe->user_data;

		if ((data & TAG_MASK) != TAG_PACKET || data >> 32 != u->npackets)
			continue;
		data = (uint32_t)data >> 2;
		if (data < n)
			packet[data].res = cqe->res;
		cqe->user_data = TAG_NONE;
		found++;
	}
	/* There were no others. */
	if (*cq->khead == from && from + found == tail)
		io_uring_cq_advance(&u->ring, found);
	return found;
}

/* An error is a completion that the kernel shows only to who looks for it, and 20 at a time (Linux 6.13). */
static void collect_packets(struct uring *u, uint32_t from, struct loop_packet *packet,
			    unsigned int n)
{
	unsigned int found = find_packets(u, from, packet, n);

	for (int tries = 0; found < n && tries < URING_SQ_ENTRIES / 16; tries++) {
		from = __atomic_load_n(u->ring.cq.ktail, __ATOMIC_ACQUIRE);
		io_uring_enter2(u->ring.enter_ring_fd, 0, 0,
				IORING_ENTER_GETEVENTS | uring_registered(u), NULL, 0);
		found += find_packets(u, from, packet, n);
	}
}

/*
 * They are done when io_uring_enter(2) returns, so that nothing of them remains in the rings, and no other completion is looked at in between.
 */
static unsigned int uring_packets(struct loop *loop, enum loop_io_op op, int fd,
				  struct loop_packet *packet, unsigned int n)
{
	struct uring *u = loop->engine;
	struct io_uring_cq *cq = &u->ring.cq;
	unsigned int done = 0, given;
	uint32_t from;

	while (done < n) {
		/* Completions for which there is no room would not be seen. */
		if (io_uring_cq_ready(&u->ring) > URING_CQ_ENTRIES / 2 ||
		    (READ_ONCE(*u->ring.sq.kflags) & IORING_SQ_CQ_OVERFLOW))
			return done;
		u->npackets++;
		for (given = 0; done + given < n; given++) {
			struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

			if (!sqe)
				break;
			prep_packet(sqe, op, fd, &packet[done + given]);
			sqe->user_data = (uint64_t)u->npackets << 32 | given << 2 | TAG_PACKET;
			packet[done + given].res = PACKET_NO_RESULT;
		}
		from = __atomic_load_n(cq->ktail, __ATOMIC_ACQUIRE);
		given -= submit_packets(u, given);
		if (!given)
			return done;
		collect_packets(u, from, packet + done, given);
		for (; given; given--, done++) {
			if (packet[done].res == -EOPNOTSUPP)
				return done;
			if (packet[done].res == PACKET_NO_RESULT)
				packet[done].res = -ECANCELED;
		}
	}
	return done;
}

/* --- completions ------------------------------------------------------------------------------- */

static bool uring_pending(struct loop *loop)
{
	struct uring *u = loop->engine;

	uint64_t now;

	if (io_uring_cq_ready(&u->ring) || u->aio.done)
		return true;
	if (!kernel_waits(u) || u->stale)
		return false;
	if (loop->ngiven < URING_MANY)
		return true;
	now = clock_now();
	if (!u->waits_since)
		u->waits_since = now;
	return now - u->waits_since >= URING_PATIENCE_NS;
}

static void slot_changed(struct uring *u, struct loop_slot *slot)
{
	if (list_empty(&slot->changed))
		list_add_tail(&slot->changed, &u->changed);
}

static void slot_complete(struct uring *u, struct loop_slot *slot, int res, uint32_t flags)
{
	if (!(flags & IORING_CQE_F_MORE))
		slot->armed = slot->cancelling = false;
	if (!slot->watch) {
		if (!slot->armed)
			loop_slot_free(slot);
		return;
	}
	if (res > 0) {
		slot->vain = 0;
	} else if (res == -EINVAL && slot->vain < POLL_VAIN_MAX) {
		slot->vain++;
	} else if (res < 0 && res != -ECANCELED) {
		slot->failed = true;
		res = res == -EBADF ? POLLNVAL : POLLERR;
	}
	if (res > 0 && !loop_slot_fire(slot, res))
		return;
	if (!slot->armed)
		slot_changed(u, slot);
}

static void uring_dispatch(struct loop *loop)
{
	struct uring *u = loop->engine;
	struct io_uring_cq *cq = &u->ring.cq;
	unsigned int n = io_uring_cq_ready(&u->ring);

	while (n--) {
		const struct io_uring_cqe *cqe = &cq->cqes[*cq->khead & cq->ring_mask];
		uint64_t data = cqe->user_data;
		uint32_t flags = cqe->flags;
		int res = cqe->res;

		io_uring_cq_advance(&u->ring, 1);
		switch (data & TAG_MASK) {
		case TAG_IO:
			loop->ngiven--;
			loop_io_done((struct loop_io *)(uintptr_t)data, res);
			break;
		case TAG_SLOT:
			slot_complete(u, (struct loop_slot *)(uintptr_t)(data & ~TAG_MASK), res,
				      flags);
			break;
		}
	}
	if (u->aio.done)
		loop_aio_dispatch(loop, &u->aio);
}

/* --- watches and files ------------------------------------------------------------------------- */

static int uring_watch_start(struct loop *loop, struct loop_slot *slot, struct hako_error *err)
{
	slot_changed(loop->engine, slot);
	return 0;
}

static void uring_watch_set(struct loop *loop, struct loop_slot *slot)
{
	/*
	 * A level-triggered poll that is armed in vain may stay: if it fires nobody is told, and it is not armed again. (Queues are
	 * suspended and resumed often.) An edge must not get lost that way.
	 */
	if (slot->armed && !slot->watch->events && !slot->watch->edge)
		return;
	slot_changed(loop->engine, slot);
}

static void uring_watch_stop(struct loop *loop, struct loop_slot *slot)
{
	if (slot->armed)
		slot_changed(loop->engine, slot);
	else if (!slot->busy)
		loop_slot_free(slot);
}

static int uring_file_register(struct loop *loop, int fd)
{
	struct uring *u = loop->engine;
	int index;

	if (!u->files_tried) {
		u->files_tried = true;
		u->files = io_uring_register_files_sparse(&u->ring, URING_FILES) == 0;
	}
	if (!u->files || u->files_used == UINT64_MAX)
		return -1;
	index = __builtin_ctzll(~u->files_used);
	if (io_uring_register_files_update(&u->ring, index, &fd, 1) != 1)
		return -1;
	u->files_used |= BIT64(index);
	return index;
}

static void uring_file_unregister(struct loop *loop, int index)
{
	struct uring *u = loop->engine;
	int none = -1;

	io_uring_register_files_update(&u->ring, index, &none, 1);
	u->files_used &= ~BIT64(index);
}

const struct loop_ops loop_uring_ops = {
	.engine = LOOP_IO_URING,
	.init = uring_init,
	.free = uring_free,
	.wait = uring_wait,
	.pending = uring_pending,
	.dispatch = uring_dispatch,
	.watch_start = uring_watch_start,
	.watch_set = uring_watch_set,
	.watch_stop = uring_watch_stop,
	.packets = uring_packets,
	.file_register = uring_file_register,
	.file_unregister = uring_file_unregister,
};
