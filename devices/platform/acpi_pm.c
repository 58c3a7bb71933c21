/* SPDX-License-Identifier: GPL-2.0-only */
#include "acpi_pm.h"

#include "vmm/vm.h"

#define TMR_STS	   BIT(0)
#define GBL_STS	   BIT(5)
#define PWRBTN_STS BIT(8)
#define PM1_EVENTS (TMR_STS | GBL_STS | PWRBTN_STS | BIT(10)) /* the last one: RTC */
#define PM1_STS	   (PM1_EVENTS | BIT(4) | BIT(11) | BIT(14) | BIT(15))

#define SCI_EN	      BIT(0)
#define GBL_RLS	      BIT(2)  /* write-only */
#define SLP_EN	      BIT(13) /* write-only */
#define PM1_CNT	      (SCI_EN | BIT(1) | SLP_TYP_MASK)
#define SLP_TYP_SHIFT 10
#define SLP_TYP_MASK  (7u << SLP_TYP_SHIFT)

#define SMI_STS	    0x34
/*
 * "SMI on APMC writes is on": firmware takes it as a sign that system management mode is set up already, and leaves it alone,
 * which is right, as there is none.
 */
#define SMI_EN_APMC BIT(5)

/* --- the timer (ACPI 6.4, 4.8.2.1) ------------------------------------------------------------- */

static uint64_t ticks_of(uint64_t ns)
{
	return (unsigned __int128)ns * ACPI_PM_TMR_HZ / NSEC_PER_SEC;
}

static uint64_t ticks_now(const struct acpi_pm *pm)
{
	return pm->stopped ? pm->ticks : pm->ticks + ticks_of(clock_now() - pm->epoch);
}

static void set_ticks(struct acpi_pm *pm, uint64_t ticks)
{
	pm->ticks = ticks;
	pm->epoch = clock_now();
	pm->carry = ticks;
}

/* TMR_STS is set when the timer's highest bit changes. */
static unsigned int half_shift(const struct acpi_pm *pm)
{
	return pm->tmr32 ? 31 : 23;
}

static void update_tmr_sts(struct acpi_pm *pm)
{
	uint64_t now = ticks_now(pm);

	if (now >> half_shift(pm) != pm->carry >> half_shift(pm))
		pm->pm1_sts |= TMR_STS;
	pm->carry = now;
}

/* Sleep until the next change of the highest bit, if anybody wants an interrupt from it. */
static void set_overflow_timer(struct acpi_pm *pm)
{
	uint64_t now = ticks_now(pm), half = BIT64(half_shift(pm)), left;

	if (!(pm->pm1_en & TMR_STS) || (pm->pm1_sts & TMR_STS) || pm->stopped) {
		loop_timer_cancel(&pm->overflow);
		return;
	}
	left = half - (now & (half - 1));
	loop_timer_set(pm->vm->io_loop, &pm->overflow,
		       clock_now() + left * NSEC_PER_SEC / ACPI_PM_TMR_HZ + 1000);
}

static void rearm(struct loop_msg *msg)
{
	struct acpi_pm *pm = container_of(msg, struct acpi_pm, rearm);

	pthread_mutex_lock(&pm->lock);
	set_overflow_timer(pm);
	pthread_mutex_unlock(&pm->lock);
}

static void update_timer(struct acpi_pm *pm)
{
	pm->timer_used |= pm->pm1_en & TMR_STS;
	if (pm->timer_used && !pm->stopped)
		loop_post(pm->vm->io_loop, &pm->rearm);
}

/* --- SCI ------------------------------------------------------------------------------------- */

static void update_sci(struct acpi_pm *pm)
{
	bool level = (pm->pm1_sts & pm->pm1_en & PM1_EVENTS) || (pm->gpe_sts & pm->gpe_en);

	irq_line_set(&pm->sci, level && (pm->pm1_cnt & SCI_EN));
}

static void overflow(struct loop_timer *timer)
{
	struct acpi_pm *pm = timer->opaque;

	pthread_mutex_lock(&pm->lock);
	update_tmr_sts(pm);
	update_sci(pm);
	set_overflow_timer(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_power_button(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->pm1_sts |= PWRBTN_STS;
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_gpe(struct acpi_pm *pm, unsigned int gpe)
{
	pthread_mutex_lock(&pm->lock);
	pm->gpe_sts |= BIT64(gpe % 64);
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_enable(struct acpi_pm *pm, bool on)
{
	pthread_mutex_lock(&pm->lock);
	if (on || pm->sci_en_fixed)
		pm->pm1_cnt |= SCI_EN;
	else
		pm->pm1_cnt &= ~SCI_EN;
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_set_sci(struct acpi_pm *pm, uint32_t gsi)
{
	pthread_mutex_lock(&pm->lock);
	if (pm->sci.gsi != gsi) {
		irq_line_set(&pm->sci, false);
		irq_line_init(&pm->sci, pm->vm, gsi);
		update_sci(pm);
	}
	pthread_mutex_unlock(&pm->lock);
}

/* --- registers ------------------------------------------------------------------------------- */

/* The doubleword at @offset. */
static uint32_t read_dword(struct acpi_pm *pm, uint32_t offset)
{
	switch (offset) {
	case ACPI_PM1_EVT:
		update_tmr_sts(pm);
		return pm->pm1_sts | (uint32_t)pm->pm1_en << 16;
	case ACPI_PM1_CNT:
		return pm->pm1_cnt;
	case ACPI_PM_TMR:
		return pm->tmr32 ? ticks_now(pm) : ticks_now(pm) & 0xffffff;
	case ACPI_PM_GPE0:
		return pm->gpe_sts;
	case ACPI_PM_GPE0 + 4:
		return pm->gpe_sts >> 32;
	case ACPI_PM_GPE0 + 8:
		return pm->gpe_en;
	case ACPI_PM_GPE0 + 12:
		return pm->gpe_en >> 32;
	case ACPI_PM_SMI_EN:
		return pm->smi_en;
	default:
		return 0;
	}
}

static void sleep_state(struct acpi_pm *pm, unsigned int slp_typ)
{
	switch (slp_typ) {
	case ACPI_PM_SLP_TYP_S5:
	case 2: /* S4 as QEMU numbers it, then S4 and S5 as the chip does */
	case 6:
	case 7:
		vm_request(pm->vm, VM_REQUEST_POWEROFF, 0);
		break;
	default:
		vm_guest_error(pm->vm, "ACPI: the guest asks for sleep type %u, which there is not",
			       slp_typ);
	}
}

/* @mask: bits of the doubleword that are written. */
static void write_pm1_evt(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
	uint16_t en_mask = mask >> 16;

	update_tmr_sts(pm);
	pm->pm1_sts &= ~(value & mask & PM1_STS);
	pm->pm1_en = (pm->pm1_en & ~en_mask) | (value >> 16 & en_mask & PM1_EVENTS);
	update_timer(pm);
}

static void write_pm1_cnt(struct acpi_pm *pm, uint32_t value, uint32_t mask)
{
	pm->pm1_cnt = (pm->pm1_cnt & ~mask) | (value & mask & PM1_CNT);
	if (pm->sci_en_fixed)
		pm->pm1_cnt |= SCI_EN;
	if (value & mask & SLP_EN)
		sleep_state(pm, (pm->pm1_cnt & SLP_TYP_MASK) >> SLP_TYP_SHIFT);
}

static uint64_t set_half(uint64_t old, unsigned int shift, uint32_t value, uint32_t mask)
{
	return (old & ~((uint64_t)mask << shift)) | (uint64_t)(value & mask) << shift;
}

static void write_dword(struct acpi_pm *pm, uint32_t offset, uint32_t value, uint32_t mask)
{
	switch (offset) {
	case ACPI_PM1_EVT:
		write_pm1_evt(pm, value, mask);
		break;
	case ACPI_PM1_CNT:
		write_pm1_cnt(pm, value, mask);
		break;
	case ACPI_PM_GPE0:
	case ACPI_PM_GPE0 + 4:
		pm->gpe_sts &= ~((uint64_t)(value & mask) << (8 * (offset - ACPI_PM_GPE0)));
		break;
	case ACPI_PM_GPE0 + 8:
	case ACPI_PM_GPE0 + 12:
		pm->gpe_en = set_half(pm->gpe_en, 8 * (offset - ACPI_PM_GPE0 - 8), value, mask);
		break;
	case ACPI_PM_SMI_EN:
		pm->smi_en = (pm->smi_en & ~mask) | (value & mask);
		break;
	}
	update_sci(pm);
}

static uint64_t pm_read(void *opaque, uint64_t offset, unsigned int size)
{
	unsigned int shift = 8 * (offset & 3);
	uint64_t value = read_dword(opaque, offset & ~3u);

	if (8 * size > 32 - shift)
		value |= (uint64_t)read_dword(opaque, (offset & ~3u) + 4) << 32;
	return value >> shift;
}

static void pm_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	while (size) {
		unsigned int at = offset & 3, n = MIN(size, 4 - at);
		uint32_t mask = n == 4 ? UINT32_MAX : ((1u << (8 * n)) - 1) << (8 * at);

		write_dword(opaque, offset & ~3u, (uint32_t)value << (8 * at), mask);
		offset += n;
		size -= n;
		value = n == 4 ? value >> 32 : value >> (8 * n);
	}
}

const struct io_ops acpi_pm_ops = {pm_read, pm_write};

/* --- life ------------------------------------------------------------------------------------ */

void acpi_pm_init(struct acpi_pm *pm, struct vm *vm, uint32_t sci_gsi)
{
	pm->vm = vm;
	pthread_mutex_init(&pm->lock, NULL);
	irq_line_init(&pm->sci, vm, sci_gsi);
	pm->overflow.fn = overflow;
	pm->overflow.opaque = pm;
	pm->rearm.fn = rearm;
	set_ticks(pm, 0);
}

static void cancel_call(void *arg)
{
	loop_timer_cancel(&((struct acpi_pm *)arg)->overflow);
}

/* A call, not a message, so that nothing is under way afterwards. */
static void cancel_overflow(struct acpi_pm *pm)
{
	if (pm->timer_used)
		loop_call(pm->vm->io_loop, cancel_call, pm);
}

void acpi_pm_free(struct acpi_pm *pm)
{
	cancel_overflow(pm);
	irq_line_set(&pm->sci, false);
	pthread_mutex_destroy(&pm->lock);
}

void acpi_pm_reset(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	pm->pm1_sts = pm->pm1_en = 0;
	pm->pm1_cnt = pm->sci_en_fixed ? SCI_EN : 0;
	pm->gpe_sts = pm->gpe_en = 0;
	pm->smi_en = SMI_EN_APMC;
	set_ticks(pm, 0);
	update_timer(pm);
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
}

void acpi_pm_pause(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	if (!pm->stopped) {
		update_tmr_sts(pm);
		pm->ticks = pm->carry;
		pm->stopped = true;
	}
	pthread_mutex_unlock(&pm->lock);
	cancel_overflow(pm);
}

void acpi_pm_resume(struct acpi_pm *pm)
{
	pthread_mutex_lock(&pm->lock);
	if (pm->stopped) {
		pm->stopped = false;
		set_ticks(pm, pm->ticks);
		update_timer(pm);
	}
	pthread_mutex_unlock(&pm->lock);
}

static int pm_pre_save(void *obj, struct hako_error *err)
{
	struct acpi_pm *pm = obj;

	pthread_mutex_lock(&pm->lock);
	update_tmr_sts(pm);
	set_ticks(pm, pm->carry);
	pthread_mutex_unlock(&pm->lock);
	return 0;
}

static int pm_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct acpi_pm *pm = obj;

	pthread_mutex_lock(&pm->lock);
	pm->pm1_sts &= PM1_STS;
	pm->pm1_en &= PM1_EVENTS;
	pm->pm1_cnt &= PM1_CNT;
	if (pm->sci_en_fixed)
		pm->pm1_cnt |= SCI_EN;
	set_ticks(pm, pm->ticks & UINT32_MAX);
	update_timer(pm);
	update_sci(pm);
	pthread_mutex_unlock(&pm->lock);
	return 0;
}

static const struct state_field pm_fields[] = {
	STATE_FIELD_UINT(struct acpi_pm, pm1_sts), STATE_FIELD_UINT(struct acpi_pm, pm1_en),
	STATE_FIELD_UINT(struct acpi_pm, pm1_cnt), STATE_FIELD_UINT(struct acpi_pm, gpe_sts),
	STATE_FIELD_UINT(struct acpi_pm, gpe_en),  STATE_FIELD_UINT(struct acpi_pm, smi_en),
	STATE_FIELD_UINT(struct acpi_pm, ticks),   STATE_END,
};

const struct state_table acpi_pm_state = {
	.name = "acpi-pm",
	.version = 1,
	.min_version = 1,
	.fields = pm_fields,
	.pre_save = pm_pre_save,
	.post_load = pm_post_load,
};
