/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How long a guest is away: COUNT accesses of each kind in a loop, between two looks at the TSC. Reads of a port and of a device's
 * register in memory go to the program and back; a doorbell that KVM makes an event of does not. The first virtio-mmio
 * device is started for that with an empty ring, so that it has nothing to do when it is told. At the end port 0xe9 gets
 * three numbers of 64 bits, the cycles of all COUNT accesses; then the guest leaves by isa-debug-exit: 0, or 1 if there is no device, or one
 * that does not start. Interrupts are off, and there is no stack.
 */
#define COUNT	    10000		/* as in tests/bench/exits.py */
#define FIRST	    0xfeb00000		/* virtio-mmio, see virtio.h */
#define STRIDE	    0x200
#define LAST	    (FIRST + 31 * STRIDE)
#define RING	    0x200000

	.section .boot, "ax"
	.code32
	.align	4
	.long	0x1badb002		/* Multiboot 1, 3.1.1 */
	.long	0
	.long	-0x1badb002

	.macro	measure result, access:vararg
	rdtsc
	movl	%eax, %edi
	movl	%edx, %ebp
	movl	$COUNT, %ecx
1:	\access
	decl	%ecx
	jnz	1b
	rdtsc
	subl	%edi, %eax
	sbbl	%ebp, %edx
	movl	%eax, \result
	movl	%edx, \result + 4
	.endm

	.globl	_start
_start:
	cli
	movl	$FIRST, %ebx
1:	movl	0x008(%ebx), %eax	/* DeviceID: 0 where there is none */
	testl	%eax, %eax
	jnz	2f
	addl	$STRIDE, %ebx
	cmpl	$LAST, %ebx
	jbe	1b
	jmp	fail
2:	movl	$setup, %esi
3:	movl	(%esi), %ecx
	movl	4(%esi), %eax
	movl	%eax, (%ebx, %ecx)
	addl	$8, %esi
	cmpl	$setup_end, %esi
	jb	3b
	movl	0x070(%ebx), %eax
	cmpl	$15, %eax
	jne	fail

	measure	results, inb $0xe9, %al
	measure	results + 8, movl (%ebx), %eax
	xorl	%esi, %esi		/* the queue's number */
	measure	results + 16, movl %esi, 0x050(%ebx)

	movl	$results, %esi
4:	movb	(%esi), %al
	outb	%al, $0xe9
	incl	%esi
	cmpl	$results_end, %esi
	jb	4b
	xorl	%eax, %eax
	jmp	leave
fail:	movl	$1, %eax
leave:	movw	$0xf4, %dx
	outl	%eax, %dx
5:	hlt
	jmp	5b

	.align	8
results:
	.fill	24, 1, 0
results_end:
/* Register and value (virtio 1.2, 4.2.2): VERSION_1, and queue 0 with nothing in it. */
setup:
	.long	0x070, 0,  0x070, 1,  0x070, 3
	.long	0x024, 1,  0x020, 1,  0x024, 0,  0x020, 0,  0x070, 11
	.long	0x030, 0,  0x038, 8
	.long	0x080, RING,	      0x084, 0
	.long	0x090, RING + 0x1000, 0x094, 0
	.long	0x0a0, RING + 0x2000, 0x0a4, 0
	.long	0x044, 1,  0x070, 15
setup_end:

	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
