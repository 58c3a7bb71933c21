/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writes AML (ACPI 6.5, chapter 20) and resource templates (6.4) front to back into a growing
 * buffer. Things with a length are opened and closed; closing puts the length in. Terms are
 * written as they stand in AML, operator first: aml_op(a, AML_AND), then its operands and its
 * target.
 *
 * Nothing here fails before aml_finish(): a buffer without memory swallows what is written to it.
 */
#ifndef ARCH_X86_AML_H
#define ARCH_X86_AML_H

#include "vmm/util.h"

#define AML_MAX_DEPTH 16

struct aml {
	uint8_t *data;
	size_t len, size;
	int error; /* negative errno of the first thing that went wrong */
	unsigned int depth;
	struct aml_open {
		size_t pos;    /* where the length goes */
		bool template; /* a resource template: a buffer with its size and an end tag */
	} open[AML_MAX_DEPTH];
};

/* 20.2.5, as far as they are used. */
enum aml_opcode {
	AML_ZERO = 0x00,
	AML_ONE = 0x01,
	AML_LOCAL0 = 0x60,
	AML_ARG0 = 0x68,
	AML_STORE = 0x70,
	AML_ADD = 0x72,
	AML_AND = 0x7b,
	AML_OR = 0x7d,
	AML_NOTIFY = 0x86,
	AML_CREATE_DWORD_FIELD = 0x8a,
	AML_LNOT = 0x92,
	AML_LEQUAL = 0x93,
	AML_RETURN = 0xa4,
	AML_ONES = 0xff,
};

enum aml_region_space {
	AML_SYSTEM_MEMORY,
	AML_SYSTEM_IO,
	AML_PCI_CONFIG
};

/* Access width of a field in AccessType's terms, 20.2.5.2. */
enum aml_access {
	AML_ANY_ACCESS,
	AML_BYTE_ACCESS,
	AML_WORD_ACCESS,
	AML_DWORD_ACCESS
};

enum aml_update {
	AML_PRESERVE,
	AML_WRITE_ONES,
	AML_WRITE_ZEROS
};

/** Give up all memory; @a may be used anew. */
void aml_free(struct aml *a);
/** 0, -ENOMEM, or -EINVAL if something was misused: a bad name, not closed, too deep, too long. */
int aml_finish(const struct aml *a);

void aml_bytes(struct aml *a, const void *data, size_t len);
void aml_byte(struct aml *a, uint8_t byte);
void aml_op(struct aml *a, enum aml_opcode op);
static inline void aml_local(struct aml *a, unsigned int n)
{
	aml_byte(a, AML_LOCAL0 + n);
}
static inline void aml_arg(struct aml *a, unsigned int n)
{
	aml_byte(a, AML_ARG0 + n);
}
/** The shortest form of a constant. */
void aml_integer(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
/** "PNP0A08" as the integer that EISAID() makes of it. */
void aml_eisaid(struct aml *a, const char *id);
/** A buffer with the 16 bytes that ToUUID() makes of "33db4d5b-1ff7-401c-9657-7441c03dd766". */
void aml_uuid(struct aml *a, const char *uuid);
/** A path: "\\_SB.PCI0", "^LPC", "COM1". Segments of up to 4 characters. */
void aml_path(struct aml *a, const char *path);

/** Name(@name, …): the value follows. */
void aml_name(struct aml *a, const char *name);
void aml_name_integer(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *text);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* To be closed with aml_close(). */
void aml_open_scope(struct aml *a, const char *path);
void aml_open_device(struct aml *a, const char *name);
void aml_open_method(struct aml *a, const char *name, unsigned int args, bool serialized);
void aml_open_package(struct aml *a, uint8_t elements);
/** The predicate follows, then what is to be done. */
void aml_open_if(struct aml *a);
/** Directly behind the closed If. */
void aml_open_else(struct aml *a);
/** The value of a _CRS: resource descriptors follow. */
void aml_open_resources(struct aml *a);
void aml_open_field(struct aml *a, const char *region, enum aml_access access,
		    enum aml_update update);
/** Within a field: @name of @bits bits; NULL: bits without a name. */
void aml_field(struct aml *a, const char *name, unsigned int bits);
void aml_close(struct aml *a);

void aml_region(struct aml *a, const char *name, enum aml_region_space space, uint64_t base,
		uint64_t len);
/** CreateDWordField(Arg@arg, @offset, @name) */
void aml_dword_field_of_arg(struct aml *a, unsigned int arg, uint64_t offset, const char *name);

/* --- resource descriptors -------------------------------------------------------------------- */

void aml_res_io(struct aml *a, uint16_t base, uint8_t align, uint8_t len);
/** An ISA interrupt: edge triggered, active high, not shared. */
void aml_res_isa_irq(struct aml *a, unsigned int irq);
/** A GSI, active high, not shared. */
void aml_res_interrupt(struct aml *a, uint32_t gsi, bool edge);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len);
/* Windows that a bridge passes on (ResourceProducer). */
void aml_res_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory32_window(struct aml *a, uint32_t first, uint32_t last);
void aml_res_memory64_window(struct aml *a, uint64_t first, uint64_t last, bool prefetchable);
/** Memory that the device itself decodes, anywhere. */
void aml_res_memory64(struct aml *a, uint64_t base, uint64_t len);

#endif
