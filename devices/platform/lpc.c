/* SPDX-License-Identifier: GPL-2.0-only */
/* Intel 82801IB (ICH9) LPC interface bridge; its datasheet's chapter 13. */
#include "lpc.h"

#include "acpi_pm.h"
#include "vmm/vm.h"

#define PMBASE	      0x40
#define PMBASE_MASK   0xff80
#define ACPI_CNTL     0x44
#define ACPI_CNTL_EN  0x80
#define ACPI_CNTL_SCI 0x07
#define GPIO_BASE     0x48
#define GPIO_CNTL     0x4c
#define PIRQA_ROUT    0x60
#define PIRQE_ROUT    0x68
#define PIRQ_ROUT_OFF 0x80
#define LPC_IO_DEC    0x80 /* to 0x93: decode ranges */
#define GEN_PMCON     0xa0
#define BIOS_CNTL     0xdc
#define RCBA	      0xf0
#define RCBA_MASK     0xffffc001u

#define RST_CNT_SYS_RST	 BIT(1)
#define RST_CNT_RST_CPU	 BIT(2)
#define RST_CNT_FULL_RST BIT(3)

struct lpc {
	struct pci_device pdev;
	struct acpi_pm pm;
	/* Options. */
	uint32_t pmbase;
	bool acpi_mode;

	uint8_t apm[2], rst_cnt;
	uint64_t pm_mapped; /* where the ACPI registers are; 0: nowhere */
};

uint32_t lpc_intx_gsi(struct pci_bus *root, uint8_t slot, uint8_t pin)
{
	if (slot < 25 || slot == 30)
		return 20 + ((slot == 30 ? pin : slot + pin) & 3);
	return 16 + (pin & 3);
}

/* --- ACPI registers -------------------------------------------------------------------------- */

/* ACPI_CNTL's SCI_IRQ_SEL (13.1.9); reserved values are taken for 9. */
static uint32_t sci_gsi(uint8_t acpi_cntl)
{
	static const uint8_t gsi[8] = {9, 10, 11, 9, 20, 21, 9, 9};

	return gsi[acpi_cntl & ACPI_CNTL_SCI];
}

static void update_pm(struct lpc *lpc)
{
	struct vm *vm = lpc->pdev.obj.vm;
	const uint8_t *c = lpc->pdev.config;
	uint64_t base = c[ACPI_CNTL] & ACPI_CNTL_EN ? get_le16(c + PMBASE) & PMBASE_MASK : 0;
	struct io_region region = {
		.name = "ACPI registers",
		.base = base,
		.size = ACPI_PM_SIZE,
		.ops = &acpi_pm_ops,
		.opaque = &lpc->pm,
		.lock = &lpc->pm.lock,
	};
	struct hako_error err;

	if (base != lpc->pm_mapped) {
		if (lpc->pm_mapped)
			bus_remove(&vm->pio, lpc->pm_mapped, &lpc->pm);
		lpc->pm_mapped = base;
		if (base && bus_add(&vm->pio, &region, &err)) {
			vm_log(vm, "ACPI registers not mapped: %s", err.message);
			lpc->pm_mapped = 0;
		}
	}
	acpi_pm_set_sci(&lpc->pm, sci_gsi(c[ACPI_CNTL]));
}

static void lpc_config_written(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	if (offset < ACPI_CNTL + 1 && offset + len > PMBASE)
		update_pm((struct lpc *)pdev);
}

void lpc_power_button(struct object *obj)
{
	acpi_pm_power_button(&((struct lpc *)obj)->pm);
}

/* --- ports: APM, reset ------------------------------------------------------------------------- */

static uint64_t apm_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct lpc *lpc = opaque;

	if (size == 2)
		return READ_ONCE(lpc->apm[0]) | READ_ONCE(lpc->apm[1]) << 8;
	return READ_ONCE(lpc->apm[offset & 1]);
}

static void apm_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct lpc *lpc = opaque;

	for (unsigned int i = 0; i < size && offset + i < 2; i++)
		WRITE_ONCE(lpc->apm[offset + i], value >> (8 * i));
	if (offset)
		return;
	if ((uint8_t)value == LPC_APM_ENABLE || (uint8_t)value == LPC_APM_DISABLE)
		acpi_pm_enable(&lpc->pm, (uint8_t)value == LPC_APM_ENABLE);
}

static const struct io_ops apm_ops = {apm_read, apm_write};

static uint64_t rst_cnt_read(void *opaque, uint64_t offset, unsigned int size)
{
	return READ_ONCE(((struct lpc *)opaque)->rst_cnt);
}

/* 13.7.5: the reset happens when RST_CPU goes from 0 to 1; it is never seen as 1. */
static void rst_cnt_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct lpc *lpc = opaque;

	if (value & RST_CNT_RST_CPU)
		vm_request(lpc->pdev.obj.vm, VM_REQUEST_RESET, 0);
	else
		WRITE_ONCE(lpc->rst_cnt, value & (RST_CNT_SYS_RST | RST_CNT_FULL_RST));
}

static const struct io_ops rst_cnt_ops = {rst_cnt_read, rst_cnt_write};

/* --- life ------------------------------------------------------------------------------------ */

static void init_config(struct pci_device *pdev)
{
	uint8_t *w = pdev->wmask;

	pdev->config[PCI_HEADER_TYPE] = PCI_HEADER_MULTIFUNCTION;
	pdev->config[PMBASE] = PCI_BASE_ADDRESS_SPACE_IO;
	put_le16(w + PMBASE, PMBASE_MASK);
	w[ACPI_CNTL] = ACPI_CNTL_EN | ACPI_CNTL_SCI;
	put_le16(w + GPIO_BASE, 0xff80);
	w[GPIO_CNTL] = 0x10;
	memset(w + PIRQA_ROUT, 0x8f, 4);
	memset(w + PIRQE_ROUT, 0x8f, 4);
	memset(w + LPC_IO_DEC, 0xff, 0x14);
	memset(w + GEN_PMCON, 0xff, 4);
	w[BIOS_CNTL] = 0x03;
	put_le32(w + RCBA, RCBA_MASK);
}

static void lpc_reset(struct object *obj)
{
	struct lpc *lpc = (struct lpc *)obj;
	uint8_t *c = lpc->pdev.config;

	pci_device_reset(&lpc->pdev);
	memset(c + PIRQA_ROUT, PIRQ_ROUT_OFF, 4);
	memset(c + PIRQE_ROUT, PIRQ_ROUT_OFF, 4);
	put_le16(c + PMBASE, (lpc->pmbase & PMBASE_MASK) | PCI_BASE_ADDRESS_SPACE_IO);
	c[ACPI_CNTL] = lpc->pmbase ? ACPI_CNTL_EN : 0;
	lpc->apm[0] = lpc->apm[1] = 0;
	lpc->rst_cnt = 0;
	acpi_pm_reset(&lpc->pm);
	update_pm(lpc);
}

static int lpc_create(struct object *obj, struct hako_error *err)
{
	struct lpc *lpc = (struct lpc *)obj;
	struct vm *vm = obj->vm;
	const struct io_region apm = {
		.name = "APM ports",
		.base = LPC_APM_CNT,
		.size = 2,
		.ops = &apm_ops,
		.opaque = lpc,
	};
	int r;

	if (!vm->pci)
		return error_set(err, -ENODEV, "this board has no PCI bus");
	r = pci_device_init(&lpc->pdev, vm->pci, PCI_DEVFN(0x1f, 0), PCI_VENDOR_INTEL, 0x2918,
			    PCI_CLASS_ISA_BRIDGE, 2, err);
	if (r)
		return r;
	r = bus_add(&vm->pio, &apm, err);
	if (r) {
		pci_device_free(&lpc->pdev);
		return r;
	}
	init_config(&lpc->pdev);
	lpc->pdev.config_written = lpc_config_written;
	acpi_pm_init(&lpc->pm, vm, LPC_SCI_GSI);
	lpc->pm.sci_en_fixed = lpc->acpi_mode;
	lpc->pm.tmr32 = false;
	vm->pci->reset_port_opaque = lpc;
	vm->pci->reset_port = &rst_cnt_ops;
	lpc_reset(obj);
	return 0;
}

static void lpc_destroy(struct object *obj)
{
	struct lpc *lpc = (struct lpc *)obj;

	obj->vm->pci->reset_port = NULL;
	bus_remove(&obj->vm->pio, LPC_APM_CNT, lpc);
	if (lpc->pm_mapped)
		bus_remove(&obj->vm->pio, lpc->pm_mapped, &lpc->pm);
	acpi_pm_free(&lpc->pm);
	pci_device_free(&lpc->pdev);
}

static void lpc_pause(struct object *obj)
{
	acpi_pm_pause(&((struct lpc *)obj)->pm);
}

static void lpc_resume(struct object *obj)
{
	acpi_pm_resume(&((struct lpc *)obj)->pm);
}

static int lpc_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct lpc *lpc = obj;

	lpc->rst_cnt &= RST_CNT_SYS_RST | RST_CNT_FULL_RST;
	update_pm(lpc);
	return 0;
}

static const struct state_field lpc_fields[] = {
	STATE_FIELD_STRUCT(struct lpc, pdev, &pci_device_state),
	STATE_FIELD_STRUCT(struct lpc, pm, &acpi_pm_state),
	STATE_FIELD_ARRAY(struct lpc, apm),
	STATE_FIELD_UINT(struct lpc, rst_cnt),
	STATE_END,
};

static const struct state_table lpc_state = {
	.name = "ICH9-LPC",
	.version = 1,
	.min_version = 1,
	.fields = lpc_fields,
	.post_load = lpc_post_load,
};

static const struct option lpc_options[] = {
	OPT_UINT("x-pmbase", struct lpc, pmbase, "0", 0, PMBASE_MASK,
		 "port of the ACPI registers after reset; 0: firmware sets it"),
	OPT_BOOL("x-acpi-mode", struct lpc, acpi_mode, "off",
		 "be in ACPI mode from reset on and stay there (no SMI_CMD)"),
	OPT_END,
};

static const struct class lpc_class = {
	.name = "ICH9-LPC",
	.help = "ICH9 LPC bridge with ACPI registers and reset port",
	.kind = CLASS_DEVICE,
	.bus = BUS_PCI,
	.size = sizeof(struct lpc),
	.internal = true,
	.options = lpc_options,
	.state = &lpc_state,
	.create = lpc_create,
	.destroy = lpc_destroy,
	.reset = lpc_reset,
	.pause = lpc_pause,
	.resume = lpc_resume,
};
HAKO_CLASS(lpc_class);
