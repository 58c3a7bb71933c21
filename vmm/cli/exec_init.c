/* SPDX-License-Identifier: GPL-2.0-only */
/* The program that is process 1 in hako exec's guests (guest/init.c), as bytes. */
#include "exec.h"

__asm__(".section .rodata\n"
	".globl exec_init, exec_init_size\n"
	".hidden exec_init, exec_init_size\n"
	"exec_init: .incbin \"" EXEC_INIT "\"\n"
	"1: .balign 8\n"
	"exec_init_size: .quad 1b - exec_init\n"
	".previous\n");
