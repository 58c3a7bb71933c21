/* SPDX-License-Identifier: GPL-2.0-only */
#include "coroutine.h"

#include <semaphore.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "loop_impl.h"

#ifdef HAVE_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define STACK_SIZE (512 * KiB)
#else
#define STACK_SIZE (128 * KiB) /* only what is touched takes memory */
#endif
#define KEPT_STACKS 32 /* for each loop */

struct co {
	struct loop *loop;
	void (*fn)(void *arg);
	void *arg;
	struct co *caller; /* who goes on when this one waits; NULL: the loop */
	struct co *next;   /* in a queue, or among those kept */
	struct loop_defer wake;
	struct loop_timer timer;
	bool ended;
	void *stack; /* a page of nothing and STACK_SIZE; this struct lives at the upper end */
#ifdef __x86_64__
	void *sp, *caller_sp;
#else
	ucontext_t ctx, caller_ctx;
#endif
#ifdef HAVE_ASAN
	void *fake_stack, *caller_fake_stack;
	const void *caller_bottom;
	size_t caller_size;
#endif
};

static __thread struct co *current;

/* --- switching --------------------------------------------------------------------------------- */

#ifdef HAVE_ASAN
static void leave_caller(struct co *co)
{
	__sanitizer_start_switch_fiber(&co->caller_fake_stack, (char *)co->stack + PAGE_SIZE,
				       STACK_SIZE);
}

static void back_in_caller(struct co *co)
{
	__sanitizer_finish_switch_fiber(co->caller_fake_stack, NULL, NULL);
}

static void leave_co(struct co *co)
{
	__sanitizer_start_switch_fiber(co->ended ? NULL : &co->fake_stack, co->caller_bottom,
				       co->caller_size);
}

static void arrived_in_co(struct co *co)
{
	__sanitizer_finish_switch_fiber(co->fake_stack, &co->caller_bottom, &co->caller_size);
}
#else
static void leave_caller(struct co *co)
{
}

static void back_in_caller(struct co *co)
{
}

static void leave_co(struct co *co)
{
}

static void arrived_in_co(struct co *co)
{
}
#endif

static void enter(void);

#ifdef __x86_64__
/*
 * Save what the System V ABI has a function keep, MXCSR and the x87 control word included; take the other stack; the same in reverse. A shadow
 * stack (CET) does not follow: the Makefile says so to the linker.
 */
void co_switch_stacks(void **save, void *sp) __attribute__((visibility("hidden")));

__asm__(".text\n"
	".type co_switch_stacks, @function\n"
	".hidden co_switch_stacks\n"
	".globl co_switch_stacks\n"
	"co_switch_stacks:\n"
	"	.cfi_startproc\n"
	"	endbr64\n"
	"	push %rbp\n"
	"	push %rbx\n"
	"	push %r12\n"
	"	push %r13\n"
	"	push %r14\n"
	"	push %r15\n"
	"	sub $8, %rsp\n"
	"	stmxcsr (%rsp)\n"
	"	fnstcw 4(%rsp)\n"
	"	mov %rsp, (%rdi)\n"
	"	mov %rsi, %rsp\n"
	"	ldmxcsr (%rsp)\n"
	"	fldcw 4(%rsp)\n"
	"	add $8, %rsp\n"
	"	pop %r15\n"
	"	pop %r14\n"
	"	pop %r13\n"
	"	pop %r12\n"
	"	pop %rbx\n"
	"	pop %rbp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size co_switch_stacks, . - co_switch_stacks\n");

static void prepare(struct co *co)
{
	/* As co_switch_stacks() leaves a stack; above the return address, a call's alignment. */
	uint64_t *sp = (uint64_t *)ALIGN_DOWN((uintptr_t)co, 64);
	uint32_t mxcsr;
	uint16_t cw;

	__asm__ volatile("stmxcsr %0; fnstcw %1" : "=m"(mxcsr), "=m"(cw));
	*--sp = 0;
	*--sp = (uintptr_t)enter;
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	*--sp = mxcsr | (uint64_t)cw << 32;
	co->sp = sp;
}

static void switch_to(struct co *co)
{
	co_switch_stacks(&co->caller_sp, co->sp);
}

static void switch_back(struct co *co)
{
	co_switch_stacks(&co->sp, co->caller_sp);
}
#else
static void prepare(struct co *co)
{
	getcontext(&co->ctx);
	co->ctx.uc_stack.ss_sp = (char *)co->stack + PAGE_SIZE;
	co->ctx.uc_stack.ss_size = ALIGN_DOWN((uintptr_t)co, 64) - (uintptr_t)co->stack - PAGE_SIZE;
	co->ctx.uc_link = NULL;
	makecontext(&co->ctx, enter, 0);
}

static void switch_to(struct co *co)
{
	swapcontext(&co->caller_ctx, &co->ctx);
}

static void switch_back(struct co *co)
{
	swapcontext(&co->ctx, &co->caller_ctx);
}
#endif

static void leave(struct co *co)
{
	current = co->caller;
	leave_co(co);
	switch_back(co);
	arrived_in_co(co);
}

/* The bottom of each stack. */
static void enter(void)
{
	struct co *co = current;

	arrived_in_co(co);
	co->fn(co->arg);
	co->ended = true;
	leave(co);
}

static void put(struct co *co);

/* Run @co until it waits or ends. */
static void resume(struct co *co)
{
	co->caller = current;
	current = co;
	leave_caller(co);
	switch_to(co);
	back_in_caller(co);
	if (co->ended)
		put(co);
}

/* --- stacks ------------------------------------------------------------------------------------ */

static struct co *get(struct loop *loop)
{
	struct co *co = loop->co_kept;
	char *stack;

	if (co) {
		loop->co_kept = co->next;
		loop->co_nkept--;
		stack = co->stack;
	} else {
		/* A page in front stays out of reach, for those who run over the end. */
		stack = mmap(NULL, PAGE_SIZE + STACK_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
		if (stack == MAP_FAILED)
			return NULL;
		mprotect(stack, PAGE_SIZE, PROT_NONE);
	}
#ifdef HAVE_ASAN
	__asan_unpoison_memory_region(stack + PAGE_SIZE, STACK_SIZE); /* enter() never returned */
#endif
	co = (struct co *)(stack + PAGE_SIZE + STACK_SIZE - ALIGN_UP(sizeof(*co), 64));
	*co = (struct co){.loop = loop, .stack = stack};
	return co;
}

static void put(struct co *co)
{
	struct loop *loop = co->loop;

	if (loop->co_nkept == KEPT_STACKS) {
		munmap(co->stack, PAGE_SIZE + STACK_SIZE);
		return;
	}
	co->next = loop->co_kept;
	loop->co_kept = co;
	loop->co_nkept++;
}

void co_free_stacks(struct loop *loop)
{
	while (loop->co_kept) {
		struct co *co = loop->co_kept;

		loop->co_kept = co->next;
		munmap(co->stack, PAGE_SIZE + STACK_SIZE);
	}
	loop->co_nkept = 0;
}

/* --- life -------------------------------------------------------------------------------------- */

int co_start(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	struct co *co = get(loop);

	if (!co)
		return -ENOMEM;
	co->fn = fn;
	co->arg = arg;
	prepare(co);
	resume(co);
	return 0;
}

struct co *co_self(void)
{
	return current;
}

struct loop *co_loop(void)
{
	return current->loop;
}

void co_wait(void)
{
	leave(current);
}

static void wake_deferred(struct loop_defer *defer)
{
	resume(container_of(defer, struct co, wake));
}

void co_wake(struct co *co)
{
	if (!current) {
		resume(co);
		return;
	}
	co->wake.fn = wake_deferred;
	loop_defer(co->loop, &co->wake);
}

static void timer_fired(struct loop_timer *timer)
{
	co_wake(container_of(timer, struct co, timer));
}

void co_sleep(uint64_t ns)
{
	struct co *co = current;

	co->timer.fn = timer_fired;
	loop_timer_set(co->loop, &co->timer, clock_now() + ns);
	co_wait();
}

struct run {
	struct loop *loop;
	int (*fn)(void *arg);
	void *arg;
	int res;
	sem_t ended;
};

static void run_co(void *arg)
{
	struct run *r = arg;

	r->res = r->fn(r->arg);
	sem_post(&r->ended);
}

static void run_start(void *arg)
{
	struct run *r = arg;

	if (co_start(r->loop, run_co, r)) {
		r->res = -ENOMEM;
		sem_post(&r->ended);
	}
}

int co_run(struct loop *loop, int (*fn)(void *arg), void *arg)
{
	struct run r = {.loop = loop, .fn = fn, .arg = arg};

	sem_init(&r.ended, 0, 0);
	loop_call(loop, run_start, &r);
	while (sem_wait(&r.ended) < 0)
		; /* a signal */
	sem_destroy(&r.ended);
	return r.res;
}

/* --- waiting for each other -------------------------------------------------------------------- */

void co_queue_wait(struct co_queue *q)
{
	struct co *co = current;

	co->next = NULL;
	if (!q->first)
		q->last = &q->first;
	*q->last = co;
	q->last = &co->next;
	co_wait();
}

bool co_queue_wake(struct co_queue *q)
{
	struct co *co = q->first;

	if (!co)
		return false;
	q->first = co->next;
	co_wake(co);
	return true;
}

void co_queue_wake_all(struct co_queue *q)
{
	/* Those who come back to wait again are not woken again. */
	struct co_queue all = *q;

	q->first = NULL;
	for (struct co *co = all.first, *next; co; co = next) {
		next = co->next;
		co_wake(co);
	}
}

void co_lock(struct co_mutex *m)
{
	if (m->locked)
		co_queue_wait(&m->waiting); /* it is handed over */
	m->locked = true;
}

void co_unlock(struct co_mutex *m)
{
	if (!co_queue_wake(&m->waiting))
		m->locked = false;
}
