/* SPDX-License-Identifier: GPL-2.0-only */
#include "aml.h"

#include <ctype.h>
#include <stdlib.h>

#define AML_MAX_SIZE (16u << 20) /* more than any table; keeps package lengths in 28 bits */

enum {
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_METHOD = 0x14,
	OP_EXT = 0x5b,
	OP_IF = 0xa0,
	OP_ELSE = 0xa1,
	EXT_REGION = 0x80,
	EXT_FIELD = 0x81,
	EXT_DEVICE = 0x82,
	PREFIX_DUAL = 0x2e,
	PREFIX_MULTI = 0x2f,
};

static void fail(struct aml *a, int error)
{
	if (!a->error)
		a->error = error;
}

/* Room for @len bytes at @pos; what is behind moves. NULL once something went wrong. */
static uint8_t *insert(struct aml *a, size_t pos, size_t len)
{
	if (len > AML_MAX_SIZE - a->len) {
		fail(a, -EINVAL);
		return NULL;
	}
	if (a->error)
		return NULL;
	if (a->len + len > a->size) {
		size_t size = MAX(2 * a->size, a->len + len + 4096);
		uint8_t *data = realloc(a->data, size);

		if (!data) {
			fail(a, -ENOMEM);
			return NULL;
		}
		a->data = data;
		a->size = size;
	}
	memmove(a->data + pos + len, a->data + pos, a->len - pos);
	a->len += len;
	return a->data + pos;
}

void aml_free(struct aml *a)
{
	free(a->data);
	*a = (struct aml){0};
}

int aml_finish(const struct aml *a)
{
	return a->error ? a->error : a->depth ? -EINVAL : 0;
}

void aml_bytes(struct aml *a, const void *data, size_t len)
{
	uint8_t *p = insert(a, a->len, len);

	if (p)
		memcpy(p, data, len);
}

void aml_byte(struct aml *a, uint8_t byte)
{
	aml_bytes(a, &byte, 1);
}

void aml_op(struct aml *a, enum aml_opcode op)
{
	aml_byte(a, op);
}

/* --- constants ------------------------------------------------------------------------------- */

/* The form with a prefix, 20.2.3; -1: no prefix, a constant opcode. */
static size_t encode_integer(uint8_t buf[9], uint64_t value)
{
	static const uint8_t prefix[] = {OP_BYTE, OP_WORD, OP_DWORD, OP_QWORD};
	unsigned int i = value <= UINT8_MAX    ? 0
			 : value <= UINT16_MAX ? 1
			 : value <= UINT32_MAX ? 2
					       : 3;

	if (value <= 1 || value == UINT64_MAX) {
		buf[0] = value == UINT64_MAX ? AML_ONES : value;
		return 1;
	}
	value = htole64(value);
	buf[0] = prefix[i];
	memcpy(buf + 1, &value, 1u << i);
	return 1 + (1u << i);
}

void aml_integer(struct aml *a, uint64_t value)
{
	uint8_t buf[9];

	aml_bytes(a, buf, encode_integer(buf, value));
}

void aml_string(struct aml *a, const char *text)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, text, strlen(text) + 1);
}

static unsigned int hex(char c)
{
	return isdigit((unsigned char)c) ? c - '0' : (tolower((unsigned char)c) - 'a' + 10) & 15;
}

/* 19.3.4: three letters of 5 bits, four hexadecimal digits, big-endian. */
void aml_eisaid(struct aml *a, const char *id)
{
	uint8_t buf[5] = {OP_DWORD};

	if (strlen(id) != 7) {
		fail(a, -EINVAL);
		return;
	}
	buf[1] = (id[0] - 0x40) << 2 | (id[1] - 0x40) >> 3;
	buf[2] = (id[1] - 0x40) << 5 | (id[2] - 0x40);
	buf[3] = hex(id[3]) << 4 | hex(id[4]);
	buf[4] = hex(id[5]) << 4 | hex(id[6]);
	aml_bytes(a, buf, sizeof(buf));
}

/* 19.6.142: the first three groups are little-endian. */
void aml_uuid(struct aml *a, const char *uuid)
{
	static const uint8_t at[16] = {6, 4, 2, 0, 11, 9, 16, 14, 19, 21, 24, 26, 28, 30, 32, 34};
	uint8_t buf[4 + 16] = {OP_BUFFER, 3 + 16, OP_BYTE, 16};

	if (strlen(uuid) != 36) {
		fail(a, -EINVAL);
		return;
	}
	for (unsigned int i = 0; i < 16; i++)
		buf[4 + i] = hex(uuid[at[i]]) << 4 | hex(uuid[at[i] + 1]);
	aml_bytes(a, buf, sizeof(buf));
}

/* --- names ----------------------------------------------------------------------------------- */

static bool is_segment(const char *s, size_t len)
{
	if (!len || len > 4 || isdigit((unsigned char)s[0]))
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isupper((unsigned char)s[i]) && !isdigit((unsigned char)s[i]) && s[i] != '_')
			return false;
	}
	return true;
}

static void segment(struct aml *a, const char *s, size_t len)
{
	char seg[4] = {'_', '_', '_', '_'};

	if (!is_segment(s, len)) {
		fail(a, -EINVAL);
		return;
	}
	memcpy(seg, s, len);
	aml_bytes(a, seg, sizeof(seg));
}

void aml_path(struct aml *a, const char *path)
{
	unsigned int n = 1;

	for (; *path == '\\' || *path == '^'; path++)
		aml_byte(a, *path);
	if (!*path) {
		aml_byte(a, 0);
		return;
	}
	for (const char *p = path; *p; p++)
		n += *p == '.';
	if (n == 2) {
		aml_byte(a, PREFIX_DUAL);
	} else if (n > 2) {
		aml_byte(a, PREFIX_MULTI);
		aml_byte(a, n);
	}
	for (; n; n--) {
		size_t len = strcspn(path, ".");

		segment(a, path, len);
		path += len + 1;
	}
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_path(a, name);
}

void aml_name_integer(struct aml *a, const char *name, uint64_t value)
{
	aml_name(a, name);
	aml_integer(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
	aml_name(a, name);
	aml_string(a, text);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

/* --- what has a length ----------------------------------------------------------------------- */

static void open_length(struct aml *a, bool template)
{
	if (a->depth == AML_MAX_DEPTH) {
		fail(a, -EINVAL);
		return;
	}
	a->open[a->depth++] = (struct aml_open){a->len, template};
}

/* PkgLength, 20.2.4: counts itself; bits 6 and 7 of the first byte say how many follow. */
static size_t encode_length(uint8_t buf[4], size_t len)
{
	if (len + 1 < 1u << 6) {
		buf[0] = len + 1;
		return 1;
	}
	for (size_t n = 1; n < 4; n++) {
		size_t total = len + 1 + n;

		if (total >= 1u << (4 + 8 * n))
			continue;
		buf[0] = n << 6 | (total & 15);
		for (size_t i = 0; i < n; i++)
			buf[1 + i] = total >> (4 + 8 * i);
		return 1 + n;
	}
	return 0;
}

void aml_close(struct aml *a)
{
	uint8_t buf[9], *p;
	struct aml_open *o;
	size_t n;

	if (!a->depth) {
		fail(a, -EINVAL);
		return;
	}
	o = &a->open[a->depth - 1];
	if (o->template) {
		/* The end tag with a checksum of 0, which stands for one that fits, 6.4.2.9. */
		aml_bytes(a, "\x79", 2);
		n = encode_integer(buf, a->len - o->pos);
		p = insert(a, o->pos, n);
		if (p)
			memcpy(p, buf, n);
	}
	n = encode_length(buf, a->len - o->pos);
	p = insert(a, o->pos, n);
	if (p)
		memcpy(p, buf, n);
	a->depth--;
}

void aml_open_scope(struct aml *a, const char *path)
{
	aml_byte(a, OP_SCOPE);
	open_length(a, false);
	aml_path(a, path);
}

void aml_open_device(struct aml *a, const char *name)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_DEVICE);
	open_length(a, false);
	aml_path(a, name);
}

void aml_open_method(struct aml *a, const char *name, unsigned int args, bool serialized)
{
	aml_byte(a, OP_METHOD);
	open_length(a, false);
	aml_path(a, name);
	aml_byte(a, (args & 7) | serialized << 3);
}

void aml_open_package(struct aml *a, uint8_t elements)
{
	aml_byte(a, OP_PACKAGE);
	open_length(a, false);
	aml_byte(a, elements);
}

void aml_open_if(struct aml *a)
{
	aml_byte(a, OP_IF);
	open_length(a, false);
}

void aml_open_else(struct aml *a)
{
	aml_byte(a, OP_ELSE);
	open_length(a, false);
}

void aml_open_resources(struct aml *a)
{
	aml_byte(a, OP_BUFFER);
	open_length(a, true);
}

void aml_open_field(struct aml *a, const char *region, enum aml_access access,
		    enum aml_update update)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_FIELD);
	open_length(a, false);
	aml_path(a, region);
	aml_byte(a, access | update << 5);
}

void aml_field(struct aml *a, const char *name, unsigned int bits)
{
	uint8_t buf[4];
	size_t n;

	if (name)
		segment(a, name, strlen(name));
	else
		aml_byte(a, 0);
	/* A field's width is encoded as a length that does not count itself. */
	if (bits < 1u << 6) {
		aml_byte(a, bits);
		return;
	}
	for (n = 1; n < 3 && bits >= 1u << (4 + 8 * n); n++)
		;
	buf[0] = n << 6 | (bits & 15);
	for (size_t i = 0; i < n; i++)
		buf[1 + i] = bits >> (4 + 8 * i);
	aml_bytes(a, buf, 1 + n);
}

void aml_region(struct aml *a, const char *name, enum aml_region_space space, uint64_t base,
		uint64_t len)
{
	aml_byte(a, OP_EXT);
	aml_byte(a, EXT_REGION);
	aml_path(a, name);
	aml_byte(a, space);
	aml_integer(a, base);
	aml_integer(a, len);
}

void aml_dword_field_of_arg(struct aml *a, unsigned int arg, uint64_t offset, const char *name)
{
	aml_op(a, AML_CREATE_DWORD_FIELD);
	aml_arg(a, arg);
	aml_integer(a, offset);
	aml_path(a, name);
}

/* --- resource descriptors, 6.4 --------------------------------------------------------------- */

enum {
	RES_IRQ_NO_FLAGS = 0x22,
	RES_IO = 0x47,
	RES_MEMORY32_FIXED = 0x86,
	RES_DWORD = 0x87,
	RES_WORD = 0x88,
	RES_INTERRUPT = 0x89,
	RES_QWORD = 0x8a,
};

enum {
	SPACE_MEMORY,
	SPACE_IO,
	SPACE_BUS
};

#define GENERAL_CONSUMER    0x01
#define GENERAL_FIXED	    0x0c /* minimum and maximum are */
#define MEMORY_READ_WRITE   0x01
#define MEMORY_PREFETCHABLE 0x06
#define IO_ENTIRE_RANGE	    0x03

void aml_res_io(struct aml *a, uint16_t base, uint8_t align, uint8_t len)
{
	uint8_t buf[8] = {RES_IO, 1 /* decodes 16 bits */};

	put_le16(buf + 2, base);
	put_le16(buf + 4, base);
	buf[6] = align;
	buf[7] = len;
	aml_bytes(a, buf, sizeof(buf));
}

void aml_res_isa_irq(struct aml *a, unsigned int irq)
{
	uint8_t buf[3] = {RES_IRQ_NO_FLAGS};

	put_le16(buf + 1, BIT(irq));
	aml_bytes(a, buf, sizeof(buf));
}

void aml_res_interrupt(struct aml *a, uint32_t gsi, bool edge)
{
	uint8_t buf[9] = {RES_INTERRUPT, 6, 0, GENERAL_CONSUMER | edge << 1, 1};

	put_le32(buf + 5, gsi);
	aml_bytes(a, buf, sizeof(buf));
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len)
{
	uint8_t buf[12] = {RES_MEMORY32_FIXED, 9, 0, MEMORY_READ_WRITE};

	put_le32(buf + 4, base);
	put_le32(buf + 8, len);
	aml_bytes(a, buf, sizeof(buf));
}

/* A word, double word or quad word address space descriptor, 6.4.3.5. */
static void address_space(struct aml *a, uint8_t tag, unsigned int space, unsigned int general,
			  unsigned int specific, uint64_t first, uint64_t last)
{
	unsigned int width = tag == RES_WORD ? 2 : tag == RES_DWORD ? 4 : 8;
	const uint64_t field[5] = {0, first, last, 0, last - first + 1};
	uint8_t buf[6 + 5 * 8] = {tag};

	put_le16(buf + 1, 3 + 5 * width);
	buf[3] = space;
	buf[4] = general | GENERAL_FIXED;
	buf[5] = specific;
	for (unsigned int i = 0; i < 5; i++) {
		uint64_t value = htole64(field[i]);

		memcpy(buf + 6 + i * width, &value, width);
	}
	aml_bytes(a, buf, 6 + 5 * width);
}

void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, RES_WORD, SPACE_BUS, 0, 0, first, last);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	address_space(a, RES_WORD, SPACE_IO, 0, IO_ENTIRE_RANGE, first, last);
}

void aml_res_memory32_window(struct aml *a, uint32_t first, uint32_t last)
{
	address_space(a, RES_DWORD, SPACE_MEMORY, 0, MEMORY_READ_WRITE, first, last);
}

void aml_res_memory64_window(struct aml *a, uint64_t first, uint64_t last, bool prefetchable)
{
	address_space(a, RES_QWORD, SPACE_MEMORY, 0,
		      MEMORY_READ_WRITE | (prefetchable ? MEMORY_PREFETCHABLE : 0), first, last);
}

void aml_res_memory64(struct aml *a, uint64_t base, uint64_t len)
{
	address_space(a, RES_QWORD, SPACE_MEMORY, GENERAL_CONSUMER, MEMORY_READ_WRITE, base,
		      base + len - 1);
}
