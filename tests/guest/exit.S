/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The smallest guest: it leaves through isa-debug-exit with its first instructions, so that what is
 * left is the VMM's own start and end. Boots by Multiboot 1 and by PVH.
 */
	.section .boot, "ax"
	.code32
	.align	4
	.long	0x1badb002		/* Multiboot 1, 3.1.1 */
	.long	0
	.long	-0x1badb002
	.globl	_start
_start:
	xorl	%eax, %eax
	movw	$0xf4, %dx
	outl	%eax, %dx
1:	hlt
	jmp	1b

	.section .note.pvh, "a", @note
	.balign	4
	.long	4, 4, 18		/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz	"Xen"
	.long	_start
