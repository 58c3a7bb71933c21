/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A guest that has started and has nothing to do: it reads once from its disk, has its network card's buffers ready, says
 * "up" and sleeps for good, but for a timer: `hz=N`, 0 for none.
 */
#include "blk.h"
#include "net.h"
#include "tests.h"

#define LVT_TIMER      0x320
#define TIMER_INITIAL  0x380
#define TIMER_DIVIDE   0x3e0
#define TIMER_PERIODIC (1 << 17)

void test_idle(void)
{
	u32 vector = vector_alloc(), hz = param_u64("hz", 0);
	static struct blk blk;
	static struct net net;

	tsc_calibrate();
	if (!blk_open(&blk, 0, 1, 128, true) || !net_open(&net, 0, true))
		return;
	check_eq(blk_rw(&blk, 0, BLK_T_IN, 0, alloc(4096, 4096), 4096, 1), BLK_S_OK);
	if (failures)
		return;
	print("up\n");
	flush();
	if (hz) {
		lapic_write(TIMER_DIVIDE, 0x0b); /* by 1 */
		lapic_write(LVT_TIMER, vector | TIMER_PERIODIC);
		lapic_write(TIMER_INITIAL, 1000000000 / hz); /* KVM's counts nanoseconds */
	}
	for (;;)
		irq_wait(vector, irqs(vector));
}
