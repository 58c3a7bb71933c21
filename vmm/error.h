/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Errors with context. The function that meets the error sets it; each caller that knows more (which
 * option, which file, which offset) puts that in front on the way up. All accept a NULL @err.
 */
#ifndef VMM_ERROR_H
#define VMM_ERROR_H

#include "hako.h"

/** Set the message. Returns @code (a negative errno), so that `return error_set(…)` reads well. */
int error_set(struct hako_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** Set the message to the text followed by ": " and strerror(-@code). Returns @code. */
int error_errno(struct hako_error *err, int code, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/** Put the text and ": " in front of the message there is. Returns the error's code. */
int error_prefix(struct hako_error *err, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/** Append a hint in brackets: "message (hint)". Returns the error's code. */
int error_hint(struct hako_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
