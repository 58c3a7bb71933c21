/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every test program of the guest uses: types, port and MMIO access, text, parameters, time,
 * interrupts. All of it runs at CPL 3 unless it says otherwise.
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define barrier()     __asm__ volatile("" ::: "memory")
#define mfence()      __asm__ volatile("mfence" ::: "memory")
#define pause()	      __asm__ volatile("pause" ::: "memory")

/* Ports. */
static inline void outb(u16 port, u8 v)
{
	__asm__ volatile("outb %0, %1" ::"a"(v), "Nd"(port) : "memory");
}
static inline void outw(u16 port, u16 v)
{
	__asm__ volatile("outw %0, %1" ::"a"(v), "Nd"(port) : "memory");
}
static inline void outl(u16 port, u32 v)
{
	__asm__ volatile("outl %0, %1" ::"a"(v), "Nd"(port) : "memory");
}
static inline u8 inb(u16 port)
{
	u8 v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline u16 inw(u16 port)
{
	u16 v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}
static inline u32 inl(u16 port)
{
	u32 v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* MMIO: plain moves only, which is what an instruction emulator certainly has. */
static inline u8 mmio_r8(u64 a)
{
	u8 v;

	__asm__ volatile("movb (%1), %0" : "=q"(v) : "r"(a) : "memory");
	return v;
}
static inline u16 mmio_r16(u64 a)
{
	u16 v;

	__asm__ volatile("movw (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}
static inline u32 mmio_r32(u64 a)
{
	u32 v;

	__asm__ volatile("movl (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}
static inline u64 mmio_r64(u64 a)
{
	u64 v;

	__asm__ volatile("movq (%1), %0" : "=r"(v) : "r"(a) : "memory");
	return v;
}
static inline void mmio_w8(u64 a, u8 v)
{
	__asm__ volatile("movb %0, (%1)" ::"q"(v), "r"(a) : "memory");
}
static inline void mmio_w16(u64 a, u16 v)
{
	__asm__ volatile("movw %0, (%1)" ::"r"(v), "r"(a) : "memory");
}
static inline void mmio_w32(u64 a, u32 v)
{
	__asm__ volatile("movl %0, (%1)" ::"r"(v), "r"(a) : "memory");
}
static inline void mmio_w64(u64 a, u64 v)
{
	__asm__ volatile("movq %0, (%1)" ::"r"(v), "r"(a) : "memory");
}

static inline u64 rdtsc(void)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi)::"memory");
	return (u64)hi << 32 | lo;
}
/* lib.c */
void *memset(void *d, int c, size_t n);
void *memcpy(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
u32 rnd(void);
void rnd_seed(u64 seed);
/* Zeroed memory; align is a power of 2. */
void *alloc(size_t size, size_t align);
/* All that was allocated since the mark is free again: only when no device knows of it any more. */
u64 alloc_mark(void);
void alloc_release(u64 mark);
/* Up to where RAM below 4 GiB reaches, as the boot loader said. */
extern u64 ram_end;

/* %d %u %x %s %c %p, with l or ll, a width and a leading 0. */
void print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void format(char *buf, size_t size, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void flush(void);
void vprint(const char *fmt, va_list ap);

/* main.c: the command line is words `name=value`. */
const char *param(const char *name); /* the value, up to a blank; NULL if it is not there */
bool param_is(const char *name, const char *value);
u64 param_u64(const char *name, u64 otherwise);
/* Leave by isa-debug-exit: 0 is the process' status 1, a pass. */
void leave(u32 code) __attribute__((noreturn));
/* A check that fails is printed and counted, and the test goes on. */
extern u32 failures;
bool check_at(bool ok, const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
#define check(ok, ...) check_at(ok, __FILE__, __LINE__, __VA_ARGS__)
#define check_eq(a, b)                                                    \
	do {                                                              \
		u64 a_ = (a), b_ = (b);                                   \
		check(a_ == b_, "%s is %#lx, expected %#lx", #a, a_, b_); \
	} while (0)
/* Why a test cannot be run here; the test returns at once after it. */
void skip(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The device is not there: a failure if the command line says `need=1`, else the test is skipped. */
void absent(const char *what);

/* start.S: functions for at_cpl0(). */
typedef u64 cpl0_fn(u64 a, u64 b);
u64 at_cpl0(cpl0_fn *fn, u64 a, u64 b);
cpl0_fn k_rdmsr, k_wrmsr, k_cpuid, k_wait, k_nop, k_irq_on, k_irq_off, k_lidt0;

/* cpu.c */
extern u32 irq_count[256]; /* interrupts taken, by vector */
extern u16 irq_cpu[256];   /* index of the CPU that took the last one */
extern u32 irq_ack[256];   /* virtio-mmio registers to acknowledge the vector at, 0: none */
extern u16 irq_port[256];  /* a port to read at the irq_stay[]th interrupt from now on, 0: none */
extern u32 irq_stay[256];
extern u32 apic_x2;
extern u64 tsc_hz;
extern u64 apic_base0; /* IA32_APIC_BASE as the first CPU found it */
extern const char *tsc_source;
void cpu_init(u32 cpu);
static inline u64 rdmsr(u32 msr)
{
	return at_cpl0(k_rdmsr, msr, 0);
}
static inline void wrmsr(u32 msr, u64 v)
{
	at_cpl0(k_wrmsr, msr, v);
}
/* At CPL 0: where that is emulated, CPL 3 sees the host's. eax, ebx, ecx, edx. */
static inline void cpuid(u32 leaf, u32 sub, u32 r[4])
{
	at_cpl0(k_cpuid, (u64)sub << 32 | leaf, (u64)r);
}
static inline u32 irqs(u32 vector)
{
	return *(volatile u32 *)&irq_count[vector];
}
/* Sleep until vector's count is not `seen` any more. */
static inline void irq_wait(u32 vector, u32 seen)
{
	while (irqs(vector) == seen)
		at_cpl0(k_wait, (u64)&irq_count[vector], seen);
}
/* As irq_wait(), but awake, and gives up after ms: false. */
bool irq_wait_ms(u32 vector, u32 seen, u32 ms);
void tsc_calibrate(void);
void delay_us(u64 us);
static inline u64 us_since(u64 t)
{
	return (rdtsc() - t) / (tsc_hz / 1000000);
}
/* A vector of one's own, >= 0x40. */
u32 vector_alloc(void);
u32 lapic_read(u32 reg); /* reg: xAPIC offset, such as 0x20 */
void lapic_write(u32 reg, u32 v);
void lapic_ipi(u32 apic_id, u32 low);
u32 lapic_id(void);
u32 ioapic_read(u64 base, u32 reg);
void ioapic_write(u64 base, u32 reg, u32 v);
/* Route a GSI to a vector on this CPU; false if no I/O APIC has it. */
#define IOAPIC_BASE	  0xfec00000ul
#define IOAPIC_LEVEL	  (1 << 15)
#define IOAPIC_ACTIVE_LOW (1 << 13)
#define IOAPIC_MASKED	  (1 << 16)
bool ioapic_route(u32 gsi, u32 vector, u32 flags);
/* Make 2 MiB pages for MMIO above 4 GiB. */
void map_mmio(u64 addr, u64 size);

#endif
