/* SPDX-License-Identifier: GPL-2.0-only */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>

#include "util.h"

/* Newlines would break the promise of one line: a file name may hold anything. */
static void one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ')
			*text = '?';
}

int error_set(struct hako_error *err, int code, const char *fmt, ...)
{
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	one_line(err->message);
	return code;
}

int error_errno(struct hako_error *err, int code, const char *fmt, ...)
{
	char why[128];
	size_t len;
	va_list ap;

	if (!err)
		return code;
	err->code = code;
	va_start(ap, fmt);
	vsnprintf(err->message, sizeof(err->message), fmt, ap);
	va_end(ap);
	len = strlen(err->message);
	snprintf(err->message + len, sizeof(err->message) - len, ": %s",
		 strerror_r(-code, why, sizeof(why)));
	one_line(err->message);
	return code;
}

int error_prefix(struct hako_error *err, const char *fmt, ...)
{
	char text[sizeof(err->message)];
	size_t len;
	va_list ap;

	if (!err)
		return -EINVAL;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	len = strlen(text);
	if (len > sizeof(text) - 3)
		len = sizeof(text) - 3;
	memcpy(text + len, ": ", 2);
	len += 2;
	snprintf(text + len, sizeof(text) - len, "%.*s", (int)(sizeof(text) - len - 1),
		 err->message);
	memcpy(err->message, text, sizeof(text));
	one_line(err->message);
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
