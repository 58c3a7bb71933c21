/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Entry, page tables, descriptor tables and the little that has to run at CPL 0.
 *
 * Some hosts run only CPL 3 natively and emulate everything else, slowly. So the guest itself runs at
 * CPL 3 with IOPL 3 on identity-mapped pages; CPL 0 is left to interrupt stubs, and to functions
 * called through at_cpl0().
 */
#include "layout.h"

	.section .boot, "ax"
	.code32
	.align	4
	.long	0x1badb002		/* Multiboot 1, 3.1.1 */
	.long	3			/* page aligned modules, memory information */
	.long	-(0x1badb002 + 3)

	.globl	_start
_start:
	cld
	movl	%eax, boot_magic	/* 0x2badb002 by Multiboot; PVH leaves it undefined */
	movl	%ebx, boot_info
	xorl	%ebp, %ebp		/* CPU index */
	movl	$cpu_stacks + STACK_SIZE, %esp

	/* Here with paging off, %ebp = CPU index, %esp = top of this CPU's CPL 0 stack. */
enter_long:
	lgdt	gdtr
	movl	%cr4, %eax
	orl	$CR4_BITS, %eax
	movl	%eax, %cr4
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	$0xc0000080, %ecx	/* EFER */
	rdmsr
	orl	$0x100, %eax		/* LME */
	wrmsr
	movl	%cr0, %eax
	andl	$0x9ffffffb, %eax	/* CD, NW and EM off */
	orl	$0x80000002, %eax	/* PG, MP */
	movl	%eax, %cr0
	ljmp	$SEL_KCODE, $1f

	.code64
1:	movl	$SEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	lidt	idtr
	/* This CPU's TSS, and its descriptor in the GDT. */
	imull	$TSS_SIZE, %ebp, %edi
	addl	$cpu_tss, %edi
	movq	%rsp, 4(%rdi)		/* RSP0 */
	movl	$io_bitmap, %eax	/* all zero, shared by all: every port is allowed */
	subl	%edi, %eax
	movw	%ax, 102(%rdi)
	movl	%ebp, %ecx
	shll	$4, %ecx
	addl	$8192, %eax
	movw	%ax, gdt + SEL_TSS(%rcx)
	movw	%di, gdt + SEL_TSS + 2(%rcx)
	shrl	$16, %edi
	movl	%edi, gdt + SEL_TSS + 4(%rcx) /* bases are below 16 MiB */
	movb	$0x89, gdt + SEL_TSS + 5(%rcx)
	leal	SEL_TSS(%rcx), %eax
	ltr	%ax
	/* To CPL 3: user_stacks are the second half of the same array. */
	leaq	USER_STACK_OFFSET - 8(%rsp), %rdx
	pushq	$SEL_UDATA
	pushq	%rdx
	pushq	$0x3002			/* IOPL 3, interrupts off until cpu_init() is through */
	pushq	$SEL_UCODE
	pushq	$main
	testl	%ebp, %ebp
	jz	2f
	movq	$ap_main, (%rsp)
2:	movl	%ebp, %edi
	xorl	%ebp, %ebp
	iretq

/*
 * A started CPU begins here in real mode, at AP_START, to where smp.c copies this. Addresses are
 * relative to the copy, whose segment is CS.
 */
	.code16
	.globl	ap_start, ap_start_end
ap_start:
	cli
	cld
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	ap_gdtr - ap_start
	movl	$0x11, %eax		/* PE, ET */
	movl	%eax, %cr0
	ljmpl	$SEL_CODE32, $ap_start32
	.align	4
ap_gdtr:
	.word	GDT_SIZE - 1
	.long	gdt
ap_start_end:

	.code32
ap_start32:
	movl	$SEL_DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$1, %ebp
	lock xaddl %ebp, ap_next
	cmpl	$MAX_CPUS, %ebp
	jae	3f
	leal	1(%ebp), %esp
	imull	$STACK_SIZE, %esp
	addl	$cpu_stacks, %esp
	jmp	enter_long
3:	hlt
	jmp	3b

	.code64
	.text
/* u64 at_cpl0(u64 (*fn)(u64, u64), u64 a, u64 b): fn has to be short, it may be emulated. */
	.globl	at_cpl0
at_cpl0:
	movq	%rdi, %rax
	movq	%rsi, %rdi
	movq	%rdx, %rsi
gate:	GATE
	ret

/* What the gate's exception leads to: rip, cs, rflags, rsp, ss are on the stack. */
	.globl	gate_entry
gate_entry:
	cmpq	$gate, (%rsp)
	jne	1f
	addq	$GATE_LENGTH, (%rsp)
	call	*%rax
	iretq
1:	pushq	$0
	pushq	$GATE_VECTOR
	jmp	fault_common

	.globl	k_rdmsr, k_wrmsr, k_cpuid, k_wait, k_nop, k_irq_on, k_irq_off, k_lidt0
k_rdmsr:
	movl	%edi, %ecx
	rdmsr
	shlq	$32, %rdx
	orq	%rdx, %rax
	ret
k_wrmsr:
	movl	%edi, %ecx
	movq	%rsi, %rax
	movq	%rsi, %rdx
	shrq	$32, %rdx
	wrmsr
	ret
/* Leaf and subleaf in %rdi's halves, results to %rsi. */
k_cpuid:
	pushq	%rbx
	movl	%edi, %eax
	movq	%rdi, %rcx
	shrq	$32, %rcx
	cpuid
	movl	%eax, (%rsi)
	movl	%ebx, 4(%rsi)
	movl	%ecx, 8(%rsi)
	movl	%edx, 12(%rsi)
	popq	%rbx
	ret
/* Sleep until an interrupt, unless the counter at %rdi is already past %esi. */
k_wait:
	cmpl	%esi, (%rdi)
	jne	1f
	sti
	hlt
	cli
1:	ret
k_nop:
	ret
/* Interrupts on or off at CPL 3: in the flags that the gate returns to. */
k_irq_on:
	orl	$0x200, 24(%rsp)
	ret
k_irq_off:
	andl	$~0x200, 24(%rsp)
	ret
/* Without an IDT the next exception is a triple fault. */
k_lidt0:
	lidt	idtr0
	ud2

/*
 * Interrupts count in irq_count[]; a vector with an address in irq_ack[] acknowledges its
 * virtio-mmio device there, one with a port in irq_port[] reads that when its irq_stay[] has come down to 0.
 */
irq_common:
	pushq	%rcx
	pushq	%rdx
	movl	24(%rsp), %ecx	/* the vector */
	movl	irq_ack(, %rcx, 4), %edx
	testl	%edx, %edx
	jz	1f
	movl	0x60(%rdx), %eax	/* InterruptStatus */
	movl	%eax, 0x64(%rdx)	/* InterruptACK */
1:	movzwl	irq_port(, %rcx, 2), %edx
	testl	%edx, %edx
	jz	4f
	decl	irq_stay(, %rcx, 4)
	jnz	4f
	inb	%dx, %al
4:	movl	%esp, %eax		/* the stack tells the CPU */
	subl	$cpu_stacks, %eax
	shrl	$STACK_SHIFT, %eax
	movw	%ax, irq_cpu(, %rcx, 2)
	lock incl irq_count(, %rcx, 4)
	xorl	%eax, %eax
	cmpl	%eax, apic_x2
	je	2f
	xorl	%edx, %edx
	movl	$0x80b, %ecx		/* x2APIC EOI */
	wrmsr
	jmp	3f
2:	movl	$0xfee000b0, %ecx
	movl	%eax, (%rcx)
3:	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$8, %rsp
	iretq

fault_common:
	popq	%rdi			/* vector */
	popq	%rsi			/* error code */
	movq	(%rsp), %rdx		/* rip */
	movq	%cr2, %rcx
	call	fault
1:	hlt
	jmp	1b

	.globl	idt_stubs
	.align	16
idt_stubs:
	.set	n, 0
	.rept	256
	.align	16
	.if n >= 32
	pushq	$n
	pushq	%rax
	jmp	irq_common
	.else
	.if !(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30)
	pushq	$0
	.endif
	pushq	$n
	jmp	fault_common
	.endif
	.set	n, n + 1
	.endr

	.data
	.align	16
	.globl	gdt
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* SEL_CODE32 */
	.quad	0x00cf93000000ffff	/* SEL_DATA */
	.quad	0x00af9b000000ffff	/* SEL_KCODE */
	.quad	0
	.quad	0x00cff3000000ffff	/* SEL_UDATA */
	.quad	0x00affb000000ffff	/* SEL_UCODE */
	.quad	0
	.fill	MAX_CPUS * 2, 8, 0
gdtr:
	.word	GDT_SIZE - 1
	.long	gdt, 0
	.align	8
idtr:
	.word	256 * 16 - 1
	.quad	idt
	.align	8
idtr0:
	.word	0
	.quad	0
	.globl	ap_next, boot_magic, boot_info
	.align	4
ap_next:
	.long	1
boot_magic:
	.long	0
boot_info:
	.long	0

/* 4 GiB by 2 MiB pages; what lies above RAM_LIMIT is taken for MMIO and uncached. */
	.align	4096
	.globl	pml4, pdpt
pml4:
	.quad	pdpt + PTE_USER
	.fill	511, 8, 0
pdpt:
	.quad	pd + PTE_USER, pd + 0x1000 + PTE_USER, pd + 0x2000 + PTE_USER, pd + 0x3000 + PTE_USER
	.fill	508, 8, 0
pd:
	.set	a, 0
	.rept	2048
	.if a < RAM_LIMIT
	.quad	a + PTE_USER + PTE_LARGE
	.else
	.quad	a + PTE_USER + PTE_LARGE + PTE_UC
	.endif
	.set	a, a + 0x200000
	.endr

	.bss
	.align	4096
	.globl	idt
idt:	.skip	256 * 16
cpu_stacks:
	.skip	2 * MAX_CPUS * STACK_SIZE
cpu_tss:
	.skip	MAX_CPUS * TSS_SIZE
io_bitmap:
	.skip	8192 + 1

#ifndef NO_PVH
	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
#endif
	.section .note.GNU-stack, "", @progbits
