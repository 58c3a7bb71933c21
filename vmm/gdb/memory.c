/* SPDX-License-Identifier: GPL-2.0-only */
/* GDB's view of memory: by the linear addresses of the vCPU it looks through, or physical ones. RAM only: reading a register may do something. */
#include "arch/x86/debug.h"
#include "session.h"
#include "vmm/vcpu.h"
#include "vmm/vm.h"

/* At most @len bytes at @addr, within a page: 0 and how many. */
static int locate(struct gdb_session *s, uint64_t addr, size_t *len, uint64_t *gpa)
{
	*len = MIN(*len, PAGE_SIZE - (addr & (PAGE_SIZE - 1)));
	*gpa = addr;
	return s->physical ? 0 : debug_translate(&s->vm->vcpu[s->current], addr, gpa);
}

void gdb_read_memory(struct gdb_session *s, const char *p)
{
	uint8_t buf[PAGE_SIZE];
	uint64_t addr, len, gpa;
	int r = 0;

	if (!gdb_hex(&p, &addr) || *p++ != ',' || !gdb_hex(&p, &len) || *p)
		return gdb_say_result(s, -EINVAL);
	len = MIN(len, GDB_PACKET_MAX / 2u);
	while (len && !r) {
		size_t n = len;

		r = locate(s, addr, &n, &gpa);
		if (!r)
			r = memory_read(&s->vm->mem, gpa, buf, n);
		if (r)
			break;
		gdb_say_hex(s, buf, n);
		addr += n;
		len -= n;
	}
	/* What can be read before what can not is an answer. */
	if (r && !s->reply_len)
		gdb_say_result(s, r);
}

void gdb_write_memory(struct gdb_session *s, const char *p, bool binary)
{
	static const unsigned int digits = 2;
	uint64_t addr, len, gpa;
	size_t have;
	int r = 0;

	if (!gdb_hex(&p, &addr) || *p++ != ',' || !gdb_hex(&p, &len) || *p++ != ':')
		return gdb_say_result(s, -EINVAL);
	have = s->reader.data + s->reader.len - p;
	if (len > GDB_PACKET_MAX || have != (binary ? len : digits * len))
		return gdb_say_result(s, -EINVAL);
	if (!binary && !gdb_hex_bytes(p, (uint8_t *)s->reply, len))
		return gdb_say_result(s, -EINVAL);
	if (!binary)
		p = s->reply;
	while (len && !r) {
		size_t n = len;

		r = locate(s, addr, &n, &gpa);
		if (!r)
			r = memory_write(&s->vm->mem, gpa, p, n);
		addr += n;
		len -= n;
		p += n;
	}
	gdb_say_result(s, r);
}
