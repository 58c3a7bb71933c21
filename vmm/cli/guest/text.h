/* SPDX-License-Identifier: GPL-2.0-only */
/* Bytes and texts for a program without a C library. It consists of one file, which includes this. */
#ifndef VMM_CLI_GUEST_TEXT_H
#define VMM_CLI_GUEST_TEXT_H

#include <stddef.h>
#include <stdint.h>

/* The compiler calls these. */
void *memset(void *p, int c, size_t n);
void *memcpy(void *to, const void *from, size_t n);

void *memset(void *p, int c, size_t n)
{
	void *at = p;

	__asm__ volatile("rep stosb" : "+D"(at), "+c"(n) : "a"(c) : "memory");
	return p;
}

void *memcpy(void *to, const void *from, size_t n)
{
	void *at = to;

	__asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(n) : : "memory");
	return to;
}

static inline size_t length(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

static inline char *append(char *to, const char *end, const char *text)
{
	while (*text && to < end - 1)
		*to++ = *text++;
	*to = 0;
	return to;
}

/* Two texts, put together in the place of the last but three of this kind. */
static inline char *join(const char *a, const char *b)
{
	static char text[4][4200];
	static int turn;
	char *p = text[turn++ & 3];

	append(append(p, p + 4200, a), p + 4200, b);
	return p;
}

/* A text and a number behind it. */
static inline char *numbered(const char *text, uint32_t n)
{
	char digits[12], *d = digits + sizeof(digits) - 1;

	*d = 0;
	do {
		*--d = '0' + n % 10;
		n /= 10;
	} while (n);
	return join(text, d);
}

#endif
