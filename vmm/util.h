/* SPDX-License-Identifier: GPL-2.0-only */
/* Small things that every file needs. */
#ifndef VMM_UTIL_H
#define VMM_UTIL_H

#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ARRAY_SIZE(a)	      (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)	      ((a) < (b) ? (a) : (b))
#define MAX(a, b)	      ((a) > (b) ? (a) : (b))
#define ALIGN_UP(x, a)	      (((x) + ((a)-1)) & ~((a)-1))
#define ALIGN_DOWN(x, a)      ((x) & ~((a)-1))
#define IS_POWER_OF_2(x)      ((x) != 0 && ((x) & ((x)-1)) == 0)
#define BIT(n)		      (1u << (n))
#define BIT64(n)	      (1ull << (n))
#define KiB		      (1024ull)
#define MiB		      (1024ull * KiB)
#define GiB		      (1024ull * MiB)
#define container_of(p, t, m) ((t *)((char *)(p)-offsetof(t, m)))
#define PAGE_SIZE	      4096ull
#define NSEC_PER_SEC	      1000000000ull

/* Built with AddressSanitizer, of gcc or of clang. */
#if defined(__SANITIZE_ADDRESS__)
#define HAVE_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAVE_ASAN
#endif
#endif

#define likely(x)	 __builtin_expect(!!(x), 1)
#define unlikely(x)	 __builtin_expect(!!(x), 0)
#define READ_ONCE(x)	 __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

/* Intrusive doubly linked list; the head is an empty link. */
struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *head)
{
	head->next = head->prev = head;
}

static inline bool list_empty(const struct list *head)
{
	return head->next == head;
}

/** Add @item behind all others. */
static inline void list_add_tail(struct list *item, struct list *head)
{
	item->prev = head->prev;
	item->next = head;
	head->prev->next = item;
	head->prev = item;
}

/** Take @item out; it is a list of its own afterwards, so that removing it again does no harm. */
static inline void list_del(struct list *item)
{
	item->prev->next = item->next;
	item->next->prev = item->prev;
	list_init(item);
}

#define list_entry(p, t, m) container_of(p, t, m)
#define list_for_each(pos, head, m)                                                  \
	for (pos = list_entry((head)->next, __typeof__(*pos), m); &pos->m != (head); \
	     pos = list_entry(pos->m.next, __typeof__(*pos), m))
#define list_for_each_safe(pos, tmp, head, m)                     \
	for (pos = list_entry((head)->next, __typeof__(*pos), m), \
	    tmp = list_entry(pos->m.next, __typeof__(*pos), m);   \
	     &pos->m != (head); pos = tmp, tmp = list_entry(tmp->m.next, __typeof__(*pos), m))

/* Unaligned little-endian access, for tables and registers. */
static inline uint16_t get_le16(const void *p)
{
	uint16_t v;

	memcpy(&v, p, 2);
	return le16toh(v);
}

static inline uint32_t get_le32(const void *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return le32toh(v);
}

static inline uint64_t get_le64(const void *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return le64toh(v);
}

static inline void put_le16(void *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, 2);
}

static inline void put_le32(void *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, 4);
}

static inline void put_le64(void *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, 8);
}

/** Monotonic time in nanoseconds. */
uint64_t clock_now(void);

/** Start a thread with all signals blocked: they are for the threads that the program knows of. @stack: bytes, 0 for the least. */
int thread_create(pthread_t *thread, size_t stack, void *(*fn)(void *), void *arg);

/** A printf into fresh memory; NULL if there is none. The caller frees it. */
char *str_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/**
 * Of the NULL-terminated @names the one nearest to @word, or NULL if none is near enough to have been
 * meant (a third of the letters may differ).
 */
const char *str_nearest(const char *word, const char *const *names);

/** Are all @len bytes zero? */
static inline bool mem_is_zero(const void *p, size_t len)
{
	const uint8_t *b = p;
	size_t head = MIN(len, 16u);

	for (size_t i = 0; i < head; i++)
		if (b[i])
			return false;
	return len == head || !memcmp(b, b + 16, len - 16);
}

/** write(2) all of @len bytes of @buf to @fd; 0 or a negative errno. */
int write_all(int fd, const void *buf, size_t len);

/** pread(2) exactly @len bytes; 0, a negative errno, or -ENODATA if the file ends before. */
int pread_all(int fd, void *buf, size_t len, uint64_t offset);

#endif
