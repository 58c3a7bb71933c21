/* SPDX-License-Identifier: GPL-2.0-only */
/* Virtio over PCI by virtio 1.2, section 4.1. */
#include "virtio_pci_rig.h"

static void msix_on(bool on)
{
	uint8_t cap = find_cap(PCI_CAP_ID_MSIX, 0);

	cfg_set(cap + 2, on ? 0x8000 : 0, 2);
}

static unsigned int line(void)
{
	return drv.vm->irq.asserted[GSI];
}

/* --- what it is ---------------------------------------------------------------------------------- */

START_TEST(test_identity)
{
	uint8_t at;

	ck_assert_uint_eq(cfg(PCI_VENDOR_ID, 2), 0x1af4);
	ck_assert_uint_eq(cfg(PCI_DEVICE_ID, 2), 0x1040 + ECHO_ID);
	ck_assert_uint_ge(cfg(PCI_REVISION_ID, 1), 1);
	ck_assert_uint_eq(cfg(PCI_CLASS_REVISION, 4) >> 8, ECHO_CLASS);
	ck_assert_uint_eq(cfg(PCI_SUBSYSTEM_VENDOR_ID, 2), 0x1af4);
	ck_assert_uint_ge(cfg(PCI_SUBSYSTEM_ID, 2), 0x40);
	ck_assert_uint_eq(cfg(PCI_INTERRUPT_PIN, 1), 1);
	/* BAR 4: 64 bits, prefetchable, of 16 KiB */
	ck_assert_uint_eq(cfg(PCI_BASE_ADDRESS_4, 4) & 15, 12);
	ck_assert_uint_eq(notify_multiplier, 4);
	for (at = 0; (at = find_cap(PCI_CAP_ID_VNDR, at));)
		if (cfg(at + 3, 1) <= 4) {
			ck_assert_uint_eq(cfg(at + 4, 1), 4);
			ck_assert_uint_eq(cfg(at + 8, 4) % 4, 0);
			ck_assert_uint_le(cfg(at + 8, 4) + cfg(at + 12, 4), 0x4000);
		}
	/* A vector for each queue and one for changes, in BAR 1 */
	at = find_cap(PCI_CAP_ID_MSIX, 0);
	ck_assert_uint_eq((cfg(at + 2, 2) & 0x7ff) + 1, ECHO_QUEUES + 1);
	ck_assert_uint_eq(cfg(at + 4, 4) & 7, 1);
}
END_TEST

/* 4.1.4.3 */
START_TEST(test_common)
{
	wr(common + 0, 0, 4);
	ck_assert_uint_eq(rd(common + 4, 4), BIT(ECHO_FEATURE) | BIT(28) | BIT(29));
	wr(common + 0, 1, 4);
	ck_assert_uint_eq(rd(common + 4, 4), 1 | BIT(40 - 32)); /* VERSION_1, RING_RESET */
	wr(common + 0, 2, 4);
	ck_assert_uint_eq(rd(common + 4, 4), 0);
	ck_assert_uint_eq(rd(common + 0, 4), 2);
	ck_assert_uint_eq(rd(common + 18, 2), ECHO_QUEUES);
	ck_assert_uint_eq(rd(common + 16, 2), 0xffff);
	wr(common + 22, 1, 2);
	ck_assert_uint_eq(rd(common + 22, 2), 1);
	ck_assert_uint_eq(rd(common + 24, 2), ECHO_QSIZE);
	ck_assert_uint_eq(rd(common + 26, 2), 0xffff);
	ck_assert_uint_eq(rd(common + 28, 2), 0);
	wr(common + 32, 0x12345670, 4);
	wr(common + 36, 0x9abcdef0, 4);
	ck_assert_uint_eq(rd(common + 32, 4), 0x12345670);
	ck_assert_uint_eq(rd(common + 36, 4), 0x9abcdef0);
	ck_assert_uint_eq(echo->vdev.vq[1].desc_gpa, 0x9abcdef012345670);
	wr(common + 22, 2, 2); /* a queue that is not there: size 0 */
	ck_assert_uint_eq(rd(common + 24, 2), 0);
	wr(common + 28, 1, 2);
	ck_assert_uint_eq(rd(common + 28, 2), 0);
	/* Other widths than a field's have no effect. */
	wr(common + 20, 3, 4);
	wr(common + 20, 3, 2);
	ck_assert_uint_eq(rd(common + 20, 1), 0);
	ck_assert_uint_eq(rd(config, 4), 0x13121110);
	ck_assert_uint_eq(rd(config + 8, 8), 0x1b1a1918);
	wr(config + 8, 0xaa, 1);
	ck_assert_uint_eq(rd(config + 8, 1), 0xaa);
}
END_TEST

START_TEST(test_works)
{
	struct vdrv_queue second;

	ck_assert(!negotiate(BIT64(3)));
	ready(BIT64(28) | BIT64(29));
	for (int i = 0; i < 20; i++)
		check_works(&q);
	wr(common + 20, 0, 1);
	ck_assert_uint_eq(rd(common + 20, 1), 0);
	ck_assert(negotiate(0));
	drv.heap = VDRV_HEAP;
	vdrv_rings(&drv, &q, 0, 64);
	vdrv_rings(&drv, &second, 1, 2);
	queue_enable(&q);
	queue_enable(&second);
	wr(common + 20, 15, 1);
	check_works(&q);
	check_works(&second);
	ck_assert(echo->on_its_loop);
	/* Bad doorbells */
	wr(notify + 2 * 4, 2, 2);
	wr(notify + 0xffc, 0, 4);
	wr(notify + 1, 0, 1);
	check_works(&q);
}
END_TEST

/* A request is there, but nobody looks. */
static void check_ignored(void)
{
	send_one(&q);
	kick(&q);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&q), q.last_used);
}

static void check_answer(void)
{
	uint32_t len;

	ck_assert(vdrv_wait(&q, NULL, &len));
	ck_assert_uint_eq(len, 4);
}

/*
 * A function that is no bus master must not touch memory (PCI 3.0, 6.2.2), which may be another kernel's by now: Linux turns it off before
 * kexec.
 */
START_TEST(test_bus_master)
{
	ready(BIT64(29));
	check_works(&q);
	bus_master(false);
	ck_assert_uint_eq(rd(common + 20, 1), 15);
	check_ignored();
	virtio_device_pause(drv.obj);
	virtio_device_resume(drv.obj);
	vdrv_settle(&drv);
	ck_assert_uint_eq(vdrv_used_idx(&q), q.last_used);
	bus_master(true);
	check_answer();
	check_works(&q);
	/* Also while paused, and before the driver is ready. */
	virtio_device_pause(drv.obj);
	bus_master(false);
	bus_master(true);
	bus_master(false);
	virtio_device_resume(drv.obj);
	check_ignored();
	bus_master(true);
	check_answer();
	bus_master(false);
	ready(0);
	check_ignored();
	bus_master(true);
	check_answer();
	/* A reset turns it off. */
	virtio_device_reset(drv.obj);
	assign();
	bus_master(false);
	ready(0);
	check_ignored();
	bus_master(true);
	check_answer();
}
END_TEST

/* --- interrupts ---------------------------------------------------------------------------------- */

START_TEST(test_intx)
{
	ready(0);
	check_works(&q);
	VDRV_UNTIL(line() == 1);
	ck_assert_uint_eq(rd(isr_reg, 1), 1);
	ck_assert_uint_eq(line(), 0);
	ck_assert_uint_eq(rd(isr_reg, 1), 0);
	virtio_config_changed(&echo->vdev);
	ck_assert_uint_eq(line(), 1);
	check_works(&q);
	vdrv_settle(&drv);
	ck_assert_uint_eq(rd(isr_reg, 1), 3);
	ck_assert_uint_eq(line(), 0);
	/* Interrupt Disable */
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) | PCI_COMMAND_INTX_DISABLE, 2);
	check_works(&q);
	vdrv_settle(&drv);
	ck_assert_uint_eq(line(), 0);
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) & ~PCI_COMMAND_INTX_DISABLE, 2);
	ck_assert_uint_eq(line(), 1);
	/* A reset lowers the line. */
	wr(common + 20, 0, 1);
	ck_assert_uint_eq(line(), 0);
}
END_TEST

START_TEST(test_msix)
{
	ready(0);
	msix_on(true);
	wr(common + 16, 0, 2);
	ck_assert_uint_eq(rd(common + 16, 2), 0);
	wr(common + 22, 0, 2);
	wr(common + 26, 1, 2);
	ck_assert_uint_eq(rd(common + 26, 2), 1);
	check_works(&q);
	ck_assert(vector_raised(1));
	ck_assert(vector_quiet(0));
	ck_assert_int_eq(echo->vdev.vq[0].notify_fd, vector_fd(1)); /* the fast way */
	virtio_config_changed(&echo->vdev);
	ck_assert(vector_raised(0));
	/* Another vector while the queue runs */
	wr(common + 26, 2, 2);
	check_works(&q);
	ck_assert(vector_raised(2));
	ck_assert(vector_quiet(1));
	/* None: silence, and no INTx either */
	wr(common + 26, 0xffff, 2);
	check_works(&q);
	ck_assert(vector_quiet(0) && vector_quiet(1) && vector_quiet(2));
	ck_assert_uint_eq(line(), 0);
	ck_assert_uint_eq(rd(isr_reg, 1), 0);
	/* One that is not there reads back as none (4.1.5.1.2.1). */
	wr(common + 26, 3, 2);
	ck_assert_uint_eq(rd(common + 26, 2), 0xffff);
	wr(common + 16, 3, 2);
	ck_assert_uint_eq(rd(common + 16, 2), 0xffff);
	/* Vectors set while MSI-X is off count once it is on. */
	msix_on(false);
	wr(common + 26, 0, 2);
	ck_assert_int_eq(echo->vdev.vq[0].notify_fd, -1);
	check_works(&q);
	VDRV_UNTIL(line() == 1);
	ck_assert_uint_eq(rd(isr_reg, 1), 1);
	ck_assert(vector_quiet(0));
	msix_on(true);
	ck_assert_int_eq(echo->vdev.vq[0].notify_fd, vector_fd(0));
	check_works(&q);
	ck_assert(vector_raised(0));
	/* 4.1.5.1.2: a reset disconnects all. */
	wr(common + 20, 0, 1);
	ck_assert_uint_eq(rd(common + 26, 2), 0xffff);
}
END_TEST

/* Vectors move from one eventfd to the other all the time, while the queue's loop uses them. */
static void *vectors_thread(void *arg)
{
	struct bus_reader mmio;

	bus_reader_init(&mmio, &drv.vm->mmio);
	for (int i = 0; !__atomic_load_n((bool *)arg, __ATOMIC_RELAXED); i++) {
		bus_write(&mmio, common + 26, i % 4, 2);
		if (i % 16 == 0)
			msix_on(i % 32);
	}
	bus_reader_free(&mmio);
	return NULL;
}

START_TEST(test_vectors_race)
{
	pthread_t thread;
	bool stop = false;

	ready(0);
	msix_on(true);
	wr(common + 22, 0, 2);
	pthread_create(&thread, NULL, vectors_thread, &stop);
	for (int i = 0; i < 2000; i++) {
		drv.heap = VDRV_HEAP + 4096;
		send_one(&q);
		wr(notify, 0, 2);
		ck_assert(vdrv_wait(&q, NULL, NULL));
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}
END_TEST

/* --- configuration space ------------------------------------------------------------------------- */

static void window(uint32_t offset, uint32_t len)
{
	cfg_set(pci_cfg + 4, 4, 1);
	cfg_set(pci_cfg + 8, offset, 4);
	cfg_set(pci_cfg + 12, len, 4);
}

/* 4.1.4.9 */
START_TEST(test_pci_cfg)
{
	uint64_t base = bar(4);

	window(config - base, 4);
	ck_assert_uint_eq(cfg(pci_cfg + 16, 4), 0x13121110);
	window(config - base + 2, 2);
	ck_assert_uint_eq(cfg(pci_cfg + 16, 2), 0x1312);
	window(common - base + 20, 1);
	cfg_set(pci_cfg + 16, 3, 1);
	ck_assert_uint_eq(rd(common + 20, 1), 3);
	ck_assert_uint_eq(cfg(pci_cfg + 16, 1), 3);
	ready(0);
	send_one(&q);
	window(notify - base, 2);
	cfg_set(pci_cfg + 16, 0, 2);
	ck_assert(vdrv_wait(&q, NULL, NULL));
	/* A device reset through it, which waits for the queue */
	window(common - base + 20, 1);
	cfg_set(pci_cfg + 16, 0, 1);
	ck_assert_uint_eq(rd(common + 20, 1), 0);
	/* Nonsense */
	window(0x4000, 4);
	cfg_set(pci_cfg + 16, 0xff, 4);
	cfg(pci_cfg + 16, 4);
	window(0xfffffffc, 4);
	cfg(pci_cfg + 16, 4);
	window(2, 4);
	cfg(pci_cfg + 16, 4);
	window(0, 3);
	cfg(pci_cfg + 16, 4);
	window(common - base + 20, 1);
	cfg_set(pci_cfg + 4, 1, 1);
	cfg_set(pci_cfg + 16, 3, 1);
	ck_assert_uint_eq(rd(common + 20, 1), 0);
}
END_TEST

/* Doorbells and registers follow the BAR. */
START_TEST(test_bar_moves)
{
	uint64_t old = bar(4), v;

	ready(0);
	check_works(&q);
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) & ~PCI_COMMAND_MEMORY, 2);
	ck_assert(!bus_read(&drv.mmio, old, &v, 4));
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) | PCI_COMMAND_MEMORY, 2);
	check_works(&q);
	cfg_set(PCI_BASE_ADDRESS_4, 0xd0000000, 4);
	cfg_set(PCI_BASE_ADDRESS_5, 0, 4);
	ck_assert_uint_ne(bar(4), old);
	ck_assert(!bus_read(&drv.mmio, old, &v, 4));
	find_registers();
	ck_assert_uint_eq(rd(common + 20, 1), 15);
	check_works(&q);
}
END_TEST

/* And so does KVM's knowledge of them. */
START_TEST(test_doorbells)
{
	uint64_t old = notify;

	if (!vdrv_kvm(&drv))
		return;
	ck_assert(!vdrv_doorbell(&drv, notify, 0, NULL));
	ready(0);
	ck_assert(vdrv_doorbell(&drv, notify, 0, NULL));
	ck_assert(!vdrv_doorbell(&drv, notify + 4, 0, NULL)); /* not enabled */
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) & ~PCI_COMMAND_MEMORY, 2);
	ck_assert(!vdrv_doorbell(&drv, notify, 0, NULL));
	cfg_set(PCI_BASE_ADDRESS_4, 0xd0000000, 4);
	cfg_set(PCI_BASE_ADDRESS_5, 0, 4);
	cfg_set(PCI_COMMAND, cfg(PCI_COMMAND, 2) | PCI_COMMAND_MEMORY, 2);
	find_registers();
	ck_assert_uint_ne(notify, old);
	ck_assert(!vdrv_doorbell(&drv, old, 0, NULL));
	ck_assert(vdrv_doorbell(&drv, notify, 0, NULL));
	check_works(&q); /* also if it comes as a write */
	wr(common + 20, 0, 1);
	ck_assert(!vdrv_doorbell(&drv, notify, 0, NULL));
}
END_TEST

/* --- options, life ------------------------------------------------------------------------------- */

START_TEST(test_options)
{
	static const char *const bad[] = {
		"addr=20",    "addr=05",	   "addr=5.8",
		"addr=x",     "bus=nope",	   "vectors=2049",
		"vectors=-1", "disable-modern=on", "disable-legacy=off",
		"colour=red",
	};
	struct hako_error err;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		ck_assert_msg(vdrv_device(&drv, "echo-pci", bad[i], &err) < 0, "%s", bad[i]);
		ck_assert_uint_gt(strlen(err.message), 0);
	}
	ck_assert_int_eq(vdrv_device(&drv, "echo-pci",
				     "addr=0x6.3,bus=pcie.0,disable-legacy=on,disable-modern=off,"
				     "vectors=0,event_idx=off",
				     &err),
			 0);
	ck_assert_uint_eq(pci_config_read(root, 0, PCI_DEVFN(6, 3), 0, 2), 0x1af4);
	ck_assert_uint_eq(pci_config_read(root, 0, PCI_DEVFN(6, 3), PCI_BASE_ADDRESS_1, 4), 0);
}
END_TEST

START_TEST(test_no_msix)
{
	teardown();
	open_pci("addr=5,vectors=0");
	ck_assert_uint_eq(find_cap(PCI_CAP_ID_MSIX, 0), 0);
	ready(0);
	wr(common + 22, 0, 2);
	wr(common + 26, 0, 2);
	ck_assert_uint_eq(rd(common + 26, 2), 0xffff);
	check_works(&q);
	VDRV_UNTIL(line() == 1);
}
END_TEST

START_TEST(test_reset)
{
	ready(0);
	msix_on(true);
	wr(common + 22, 0, 2);
	wr(common + 26, 1, 2);
	check_works(&q);
	virtio_device_pause(drv.obj);
	virtio_device_reset(drv.obj);
	virtio_device_resume(drv.obj);
	ck_assert_uint_eq(cfg(PCI_COMMAND, 2), 0);
	ck_assert_uint_eq(bar(4), 0);
	assign();
	ck_assert_uint_eq(rd(common + 20, 1), 0);
	ck_assert_uint_eq(rd(common + 26, 2), 0xffff);
	ready(0);
	check_works(&q);
	VDRV_UNTIL(line() == 1); /* MSI-X is off again */
}
END_TEST

START_TEST(test_save_load)
{
	struct state_buf state = {0};
	struct hako_error err;
	uint16_t avail_idx, last_used;
	uint64_t heap;
	void *copy = malloc(RAM);

	ready(BIT64(29));
	msix_on(true);
	wr(common + 16, 2, 2);
	wr(common + 22, 0, 2);
	wr(common + 26, 1, 2);
	for (int i = 0; i < 3; i++)
		check_works(&q);
	virtio_device_pause(drv.obj);
	send_one(&q);
	ck_assert_int_eq(state_save(&state, &echo_state, echo, &err), 0);
	memcpy(copy, vdrv_ptr(&drv, 0, RAM), RAM);
	avail_idx = q.avail_idx;
	last_used = q.last_used;
	heap = drv.heap;
	teardown();
	open_pci("addr=05");
	memcpy(vdrv_ptr(&drv, 0, RAM), copy, RAM);
	free(copy);
	virtio_device_reset(drv.obj);
	state = (struct state_buf){.data = state.data, .len = state.len};
	ck_assert_msg(state_load(&state, &echo_state, echo, &err) == 0, "%s", err.message);
	free(state.data);
	find_registers();
	ck_assert_uint_eq(rd(common + 20, 1), 15);
	ck_assert_uint_eq(rd(common + 16, 2), 2);
	vdrv_rings_at(&drv, &q);
	ck_assert_uint_eq(q.avail->idx, avail_idx);
	ck_assert_uint_eq(q.last_used, last_used);
	drv.heap = heap;
	ck_assert_int_eq(echo->vdev.vq[0].notify_fd, vector_fd(1));
	virtio_device_resume(drv.obj);
	ck_assert(vdrv_wait(&q, NULL, NULL));
	ck_assert(vector_raised(1));
	check_works(&q);
}
END_TEST

/* --- packed rings, and resets of single queues --------------------------------------------------- */

/* 4.1.4.3, 2.6.1; with split and with packed rings. */
START_TEST(test_queue_reset)
{
	teardown();
	open_pci("addr=05,packed=on");
	ready(BIT64(29) | BIT64(VIRTIO_F_RING_RESET) | (_i ? VDRV_PACKED : 0));
	msix_on(true);
	wr(common + 22, 0, 2);
	wr(common + 26, 1, 2);
	for (int n = 0; n < 20; n++) {
		check_works(&q);
		ck_assert_int_eq(echo->vdev.vq[0].packed, _i);
		if (n % 7 != 6)
			continue;
		wr(common + 22, 0, 2);
		wr(common + 58, 0, 2); /* not 1 */
		ck_assert_uint_eq(rd(common + 28, 2), 1);
		wr(common + 58, 1, 2);
		ck_assert_uint_eq(rd(common + 58, 2), 0);
		ck_assert_uint_eq(rd(common + 28, 2), 0);
		ck_assert_uint_eq(rd(common + 24, 2), ECHO_QSIZE);
		ck_assert_uint_eq(rd(common + 20, 1), 15);
		vdrv_rings(&drv, &q, 0, 16);
		queue_enable(&q);
		while (!vector_quiet(1))
			vector_raised(1);
		check_works(&q);
		ck_assert(vector_raised(1));
	}
}
END_TEST

START_TEST(test_queue_reset_off)
{
	ready(0);
	wr(common + 22, 0, 2);
	wr(common + 58, 1, 2);
	ck_assert_uint_eq(rd(common + 28, 2), 1);
	check_works(&q);
}
END_TEST

/* --- fuzz ---------------------------------------------------------------------------------------- */

/* Registers and configuration space, with all that hangs on them: BARs that move, vectors, windows. */
START_TEST(test_fuzz)
{
	static const unsigned int sizes[] = {1, 2, 4, 4, 8};
	uint64_t seed = 0x853c49e6748fea9b + _i, v;

	for (int i = 0; i < 20000; i++) {
		uint32_t r = echo_random(&seed);
		unsigned int size = sizes[r % ARRAY_SIZE(sizes)];
		uint32_t value = echo_random(&seed) >> (echo_random(&seed) % 32);
		uint64_t addr = bar(4) + echo_random(&seed) % 0x1000 % 64 + (r & 0x3000);

		if (value & 1)
			addr &= ~(uint64_t)(size - 1);
		switch (echo_random(&seed) % 16) {
		case 0:
			virtio_device_pause(drv.obj);
			virtio_device_reset(drv.obj);
			virtio_device_resume(drv.obj);
			assign();
			ready(value % 2 ? BIT64(28) | BIT64(29) : 0);
			check_works(&q);
			break;
		case 1:
			cfg_set(r % 256 & ~3, value, 4);
			break;
		case 2:
			cfg_set(pci_cfg + 4 + r % 16, value, 1);
			break;
		case 3:
			cfg(pci_cfg + 16, 1 << r % 3);
			break;
		case 4:
			msix_on(value & 1);
			break;
		case 5:
			bus_read(&drv.mmio, addr, &v, size);
			break;
		case 6:
			((uint8_t *)vdrv_ptr(&drv, VDRV_HEAP, 4096))[r % 1024] = value;
			break;
		default:
			bus_write(&drv.mmio, addr, value, size);
		}
	}
	virtio_device_pause(drv.obj);
	virtio_device_reset(drv.obj);
	virtio_device_resume(drv.obj);
	ck_assert_uint_eq(line(), 0);
	assign();
	ready(0);
	check_works(&q);
	ck_assert(echo->on_its_loop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio-pci");
	TCase *tc = tcase_create("all");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, test_identity);
	tcase_add_test(tc, test_common);
	tcase_add_test(tc, test_works);
	tcase_add_test(tc, test_bus_master);
	tcase_add_test(tc, test_intx);
	tcase_add_test(tc, test_msix);
	tcase_add_test(tc, test_vectors_race);
	tcase_add_test(tc, test_pci_cfg);
	tcase_add_test(tc, test_bar_moves);
	tcase_add_test(tc, test_doorbells);
	tcase_add_test(tc, test_options);
	tcase_add_test(tc, test_no_msix);
	tcase_add_test(tc, test_reset);
	tcase_add_test(tc, test_save_load);
	tcase_add_loop_test(tc, test_queue_reset, 0, 2);
	tcase_add_test(tc, test_queue_reset_off);
	tcase_add_loop_test(tc, test_fuzz, 0, 3);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
