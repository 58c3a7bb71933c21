/* SPDX-License-Identifier: GPL-2.0-only */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "util.h"

/* Newlines would break the promise of one line: a file name may hold anything. */
static void one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ')
			*text = '?';
}

/* What is too long loses its middle: the option is at the start, the cause at the end. */
static void put(struct hako_error *err, const char *text, size_t len)
{
	const size_t size = sizeof(err->message), head = size / 2, tail = size - head - 4;

	if (len < size) {
		memcpy(err->message, text, len + 1);
	} else {
		memcpy(err->message, text, head);
		memcpy(err->message + head, "...", 3);
		memcpy(err->message + head + 3, text + len - tail, tail + 1);
	}
	one_line(err->message);
}

static void put_format(struct hako_error *err, const char *fmt, va_list ap)
{
	va_list again;
	char *text;
	int len;

	va_copy(again, ap);
	len = vsnprintf(err->message, sizeof(err->message), fmt, ap);
	if (len >= (int)sizeof(err->message) && vasprintf(&text, fmt, again) >= 0) {
		put(err, text, len);
		free(text);
	}
	va_end(again);
	one_line(err->message);
}

static void put_both(struct hako_error *err, const char *first, const char *second)
{
	char text[2 * sizeof(err->message) + 2];
	int len = snprintf(text, sizeof(text), "%s: %s", first, second);

	put(err, text, len);
}

int error_set(struct hako_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	put_format(err, fmt, ap);
	va_end(ap);
	return code;
}

int error_errno(struct hako_error *err, int code, const char *fmt, ...)
{
	char why[128];
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	put_format(err, fmt, ap);
	va_end(ap);
	put_both(err, err->message, strerror_r(-code, why, sizeof(why)));
	return code;
}

int error_prefix(struct hako_error *err, const char *fmt, ...)
{
	struct hako_error prefix;
	va_list ap;

	if (!err)
		return -EINVAL;
	va_start(ap, fmt);
	put_format(&prefix, fmt, ap);
	va_end(ap);
	put_both(err, prefix.message, err->message);
	return err->code;
}

int error_hint(struct hako_error *err, const char *fmt, ...)
{
	size_t len;
	va_list ap;

	if (!err)
		return -EINVAL;
	len = strlen(err->message);
	if (len + 4 >= sizeof(err->message))
		return err->code;
	memcpy(err->message + len, " (", 3);
	len += 2;
	va_start(ap, fmt);
	vsnprintf(err->message + len, sizeof(err->message) - len - 1, fmt, ap);
	va_end(ap);
	one_line(err->message);
	strcat(err->message, ")");
	return err->code;
}
