/* SPDX-License-Identifier: GPL-2.0-only */
/* The keyboard controller, as much of it as operating systems ask for. */
#include "guest.h"
#include "tests.h"

#define DATA	0x60
#define COMMAND 0x64

/* Status bit 1: the controller has not taken the last byte yet. */
static void send(u16 port, u8 v)
{
	for (u32 i = 0; i < 1000 && inb(COMMAND) & 2; i++)
		;
	outb(port, v);
}

/* The next byte of the controller, -1: none. */
static int receive(void)
{
	for (u32 i = 0; i < 1000; i++)
		if (inb(COMMAND) & 1)
			return inb(DATA);
	return -1;
}

void test_i8042(void)
{
	u8 command;
	int r;

	if (inb(COMMAND) == 0xff) {
		absent("i8042");
		return;
	}
	for (u32 i = 0; i < 32 && inb(COMMAND) & 1; i++)
		inb(DATA);
	check_eq(inb(COMMAND) & 1, 0);
	send(COMMAND, 0xaa); /* self test */
	check_eq(receive(), 0x55);
	send(COMMAND, 0xab); /* keyboard interface */
	check_eq(receive(), 0x00);
	send(COMMAND, 0x20); /* command byte */
	r = receive();
	check(r >= 0, "no command byte");
	command = r;
	send(COMMAND, 0x60);
	send(DATA, command & ~3);
	send(COMMAND, 0x20);
	check_eq(receive(), command & ~3);
	send(COMMAND, 0x60);
	send(DATA, command);
	send(COMMAND, 0xd0); /* output port: the reset line is not pulled */
	r = receive();
	check(r >= 0 && (r & 1), "output port %#x", r);
	send(COMMAND, 0xad);
	send(COMMAND, 0xae);
	check_eq(inb(COMMAND) & 1, 0);
	/* A command that does not exist, and data that nobody asked for: the next one works. */
	send(COMMAND, 0x99);
	send(COMMAND, 0xaa);
	for (r = 0; r >= 0 && r != 0x55;)
		r = receive();
	check_eq(r, 0x55);
}
