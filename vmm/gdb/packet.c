/* SPDX-License-Identifier: GPL-2.0-only */
#include "packet.h"

#define CTRL_C	    0x03
#define ESCAPE	    '}'
#define ESCAPE_MASK 0x20

int gdb_hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool gdb_hex(const char **p, uint64_t *value)
{
	const char *start = *p;
	int digit;

	*value = 0;
	for (; (digit = gdb_hex_digit(**p)) >= 0; (*p)++) {
		if (*value >> 60)
			return false;
		*value = *value << 4 | digit;
	}
	return *p > start;
}

bool gdb_hex_bytes(const char *text, uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++, text += 2) {
		int high = gdb_hex_digit(text[0]);
		int low = high < 0 ? -1 : gdb_hex_digit(text[1]);

		if (low < 0)
			return false;
		bytes[i] = high << 4 | low;
	}
	return !*text;
}

static void put(struct gdb_reader *r, char c)
{
	if (r->len < GDB_PACKET_MAX)
		r->data[r->len] = c;
	if (r->len <= GDB_PACKET_MAX)
		r->len++;
}

static enum gdb_event between(struct gdb_reader *r, uint8_t byte)
{
	switch (byte) {
	case '$':
		r->state = GDB_DATA;
		r->sum = 0;
		r->len = 0;
		return GDB_NOTHING;
	case '+':
		return GDB_ACK;
	case '-':
		return GDB_NAK;
	case CTRL_C:
		return GDB_INTERRUPT;
	}
	return GDB_NOTHING;
}

static enum gdb_event end(struct gdb_reader *r, char digit)
{
	int high = gdb_hex_digit(r->sum_digit), low = gdb_hex_digit(digit);

	r->state = GDB_BETWEEN;
	if (high < 0 || low < 0 || (high << 4 | low) != r->sum)
		return GDB_BAD;
	if (r->len > GDB_PACKET_MAX)
		return GDB_TOO_LONG;
	r->data[r->len] = '\0';
	return GDB_PACKET;
}

enum gdb_event gdb_reader_take(struct gdb_reader *r, uint8_t byte)
{
	switch (r->state) {
	case GDB_BETWEEN:
		return between(r, byte);
	case GDB_DATA:
		if (byte == '$') /* the one before was cut off */
			return between(r, byte);
		if (byte == '#') {
			r->state = GDB_SUM1;
			return GDB_NOTHING;
		}
		r->sum += byte;
		if (byte == ESCAPE)
			r->state = GDB_ESCAPED;
		else
			put(r, byte);
		return GDB_NOTHING;
	case GDB_ESCAPED:
		r->sum += byte;
		put(r, byte ^ ESCAPE_MASK);
		r->state = GDB_DATA;
		return GDB_NOTHING;
	case GDB_SUM1:
		r->sum_digit = byte;
		r->state = GDB_SUM2;
		return GDB_NOTHING;
	case GDB_SUM2:
		return end(r, byte);
	}
	return GDB_NOTHING;
}

size_t gdb_frame(char out[GDB_FRAME_MAX], const char *data, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t sum = 0;
	size_t n = 0;

	out[n++] = '$';
	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (c == '$' || c == '#' || c == ESCAPE || c == '*') {
			out[n++] = ESCAPE;
			sum += ESCAPE;
			c ^= ESCAPE_MASK;
		}
		out[n++] = c;
		sum += c;
	}
	out[n++] = '#';
	out[n++] = digits[sum >> 4];
	out[n++] = digits[sum & 15];
	return n;
}
