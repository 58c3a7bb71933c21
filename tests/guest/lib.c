/* SPDX-License-Identifier: GPL-2.0-only */
/* The few functions of a C library that the guest needs, and its text output. */
#include "guest.h"

void *memset(void *d, int c, size_t n)
{
	void *r = d;

	__asm__ volatile("rep stosb" : "+D"(d), "+c"(n) : "a"(c) : "memory");
	return r;
}

void *memcpy(void *d, const void *s, size_t n)
{
	void *r = d;

	__asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(n)::"memory");
	return r;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (s[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	for (; *a && *a == *b; a++, b++)
		;
	return (u8)*a - (u8)*b;
}

int strncmp(const char *a, const char *b, size_t n)
{
	for (; n && *a && *a == *b; a++, b++, n--)
		;
	return n ? (u8)*a - (u8)*b : 0;
}

static u64 rnd_state = 0x9e3779b97f4a7c15;

void rnd_seed(u64 seed)
{
	rnd_state = seed * 0x9e3779b97f4a7c15 | 1;
}

/* xorshift64* */
u32 rnd(void)
{
	rnd_state ^= rnd_state >> 12;
	rnd_state ^= rnd_state << 25;
	rnd_state ^= rnd_state >> 27;
	return rnd_state * 0x2545f4914f6cdd1d >> 32;
}

extern char _end[];
u64 ram_end = 16 << 20;
static u64 heap;

u64 alloc_mark(void)
{
	if (!heap)
		heap = (u64)_end;
	return heap;
}

void alloc_release(u64 mark)
{
	heap = mark;
}

void *alloc(size_t size, size_t align)
{
	u64 p;

	alloc_mark();
	p = (heap + align - 1) & ~(u64)(align - 1);
	if (size > ram_end || p > ram_end - size) {
		print("out of memory: %lu bytes\n", size);
		leave(2);
	}
	heap = p + size;
	return memset((void *)p, 0, size);
}

/*
 * Text goes out by `rep outsb`, a line at a time: one exit instead of one for each character, where the
 * VMM can. A debug console is known by what it reads as.
 */
#define DEBUGCON 0xe9
#define COM1	 0x3f8

static char line[256];
static u32 line_len;
static u8 use_debugcon, use_serial;

static void serial_write(const char *s, u32 n)
{
	while (n--) {
		for (u32 i = 0; i < 100000 && !(inb(COM1 + 5) & 0x20); i++)
			pause();
		outb(COM1, *s++);
	}
}

void flush(void)
{
	if (!use_debugcon && !use_serial) {
		use_debugcon = !param_is("con", "serial") && inb(DEBUGCON) == 0xe9;
		use_serial = param_is("con", "both") || !use_debugcon;
	}
	if (use_debugcon) {
		const char *s = line;
		u64 n = line_len;

		__asm__ volatile("rep outsb" : "+S"(s), "+c"(n) : "d"(DEBUGCON) : "memory");
	}
	if (use_serial)
		serial_write(line, line_len);
	line_len = 0;
}

/* Where format() puts its text; NULL: the line goes out. */
static char *format_at, *format_end;

static void put(char c)
{
	if (format_at) {
		if (format_at < format_end)
			*format_at++ = c;
		return;
	}
	line[line_len++] = c;
	if (c == '\n' || line_len == sizeof(line))
		flush();
}

static void put_number(u64 v, bool neg, u32 base, u32 width, bool zero)
{
	char buf[24];
	u32 n = 0;

	do {
		buf[n++] = "0123456789abcdef"[v % base];
		v /= base;
	} while (v);
	if (neg && !zero)
		buf[n++] = '-';
	else if (neg)
		put('-');
	for (; n < width; width--)
		put(zero ? '0' : ' ');
	while (n)
		put(buf[--n]);
}

static void put_string(const char *s, u32 width)
{
	u32 n = strlen(s);

	while (*s)
		put(*s++);
	for (; n < width; n++)
		put(' ');
}

void vprint(const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		u32 width = 0, longs = 0;
		bool zero = false, alt = false;
		s64 v;

		if (*fmt != '%') {
			put(*fmt);
			continue;
		}
		for (fmt++; *fmt == '#' || *fmt == '0' || *fmt == '-'; fmt++) {
			alt |= *fmt == '#';
			zero |= *fmt == '0';
		}
		for (; *fmt >= '0' && *fmt <= '9'; fmt++)
			width = width * 10 + *fmt - '0';
		for (; *fmt == 'l' || *fmt == 'z'; fmt++)
			longs++;
		switch (*fmt) {
		case 'd':
			v = longs ? va_arg(ap, s64) : va_arg(ap, int);
			put_number(v < 0 ? -v : v, v < 0, 10, width, zero);
			break;
		case 'u':
			put_number(longs ? va_arg(ap, u64) : va_arg(ap, u32), false, 10, width,
				   zero);
			break;
		case 'x':
			if (alt)
				put_string("0x", 0);
			put_number(longs ? va_arg(ap, u64) : va_arg(ap, u32), false, 16, width,
				   zero);
			break;
		case 'p':
			put_string("0x", 0);
			put_number(va_arg(ap, u64), false, 16, 0, false);
			break;
		case 's':
			put_string(va_arg(ap, const char *), width);
			break;
		case 'c':
			put(va_arg(ap, int));
			break;
		default:
			put(*fmt);
		}
	}
}

void print(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
}

void format(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;

	format_at = buf;
	format_end = buf + size - 1;
	va_start(ap, fmt);
	vprint(fmt, ap);
	va_end(ap);
	*format_at = 0;
	format_at = NULL;
}
