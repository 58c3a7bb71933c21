/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Host bridge of the q35 chipset at 0:0.0 (Intel 3 Series Express Chipset datasheet, chapter 5). Firmware sets where ECAM is; PAM and SMRAM
 * are kept as it writes them, but change nothing: what they would uncover is RAM anyway.
 */
#include "pci.h"
#include "vmm/vm.h"

#define EXT_TSEG_MBYTES 0x50 /* QEMU's; storage means: not there */
#define GGC		0x52
#define PCIEXBAR	0x60
#define PCIEXBAR_EN	BIT64(0)
#define PCIEXBAR_BASE	0xfffc000000ull /* bits 39:26, of which the length takes some */
#define PCIEXBAR_LENGTH 0x6
#define PAM0		0x90
#define PAM_COUNT	7
#define SMRAM		0x9d
#define SMRAM_C_BASE	0x02
#define ESMRAMC		0x9e

struct mch {
	struct pci_device pdev;
	uint64_t ecam; /* option: where ECAM is after reset; 0: off */
	uint32_t config_address;
};

static void update_ecam(struct mch *mch)
{
	uint64_t v = get_le64(mch->pdev.config + PCIEXBAR);
	uint64_t size = 0;
	struct hako_error err;

	/* Length 0: 256 MiB, 1: 128, 2: 64 (5.1.16); 3 is reserved. */
	if ((v & PCIEXBAR_EN) && (v & PCIEXBAR_LENGTH) != PCIEXBAR_LENGTH)
		size = 256 * MiB >> ((v & PCIEXBAR_LENGTH) >> 1);
	if (pci_root_set_ecam(mch->pdev.bus, size ? v & PCIEXBAR_BASE & ~(size - 1) : 0, size,
			      &err))
		vm_log(mch->pdev.obj.vm, "ECAM not mapped: %s", err.message);
}

static void mch_config_written(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	if (offset < PCIEXBAR + 8 && offset + len > PCIEXBAR)
		update_ecam((struct mch *)pdev);
}

static void mch_reset(struct object *obj)
{
	struct mch *mch = (struct mch *)obj;
	uint8_t *c = mch->pdev.config;

	pci_device_reset(&mch->pdev);
	put_le16(c + EXT_TSEG_MBYTES, UINT16_MAX);
	put_le64(c + PCIEXBAR, mch->ecam ? mch->ecam | PCIEXBAR_EN : 0);
	c[SMRAM] = SMRAM_C_BASE;
	mch->pdev.bus->config_address = 0;
	update_ecam(mch);
}

static int mch_create(struct object *obj, struct hako_error *err)
{
	struct mch *mch = (struct mch *)obj;
	uint8_t *w = mch->pdev.wmask;
	int r;

	if (!obj->vm->pci)
		return error_set(err, -ENODEV, "this board has no PCI bus");
	if (mch->ecam & ~(PCIEXBAR_BASE & ~(256 * MiB - 1)))
		return error_set(err, -EINVAL, "x-ecam: not a multiple of 256 MiB below 1 TiB");
	r = pci_device_init(&mch->pdev, obj->vm->pci, PCI_DEVFN(0, 0), PCI_VENDOR_INTEL, 0x29c0,
			    PCI_CLASS_HOST_BRIDGE, 0, err);
	if (r)
		return r;
	put_le16(w + EXT_TSEG_MBYTES, UINT16_MAX);
	put_le16(w + GGC, 0x0372);
	put_le64(w + PCIEXBAR, PCIEXBAR_BASE | PCIEXBAR_LENGTH | PCIEXBAR_EN);
	w[PAM0] = 0x30;
	memset(w + PAM0 + 1, 0x33, PAM_COUNT - 1);
	w[SMRAM] = 0x78;
	w[ESMRAMC] = 0x87;
	mch->pdev.config_written = mch_config_written;
	mch_reset(obj);
	return 0;
}

static void mch_destroy(struct object *obj)
{
	pci_device_free(&((struct mch *)obj)->pdev);
}

static int mch_pre_save(void *obj, struct hako_error *err)
{
	struct mch *mch = obj;

	mch->config_address = mch->pdev.bus->config_address;
	return 0;
}

static int mch_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct mch *mch = obj;

	mch->pdev.bus->config_address = mch->config_address & PCI_CONFIG_ADDRESS_BITS;
	update_ecam(mch);
	return 0;
}

static const struct state_field mch_fields[] = {
	STATE_FIELD_STRUCT(struct mch, pdev, &pci_device_state),
	STATE_FIELD_UINT(struct mch, config_address),
	STATE_END,
};

static const struct state_table mch_state = {
	.name = "mch",
	.version = 1,
	.min_version = 1,
	.fields = mch_fields,
	.pre_save = mch_pre_save,
	.post_load = mch_post_load,
};

static const struct option mch_options[] = {
	OPT_UINT("x-ecam", struct mch, ecam, "0", 0, 0,
		 "address of ECAM after reset; 0: firmware sets it"),
	OPT_END,
};

static const struct class mch_class = {
	.name = "mch",
	.help = "host bridge of the q35 chipset",
	.kind = CLASS_DEVICE,
	.bus = BUS_PCI,
	.size = sizeof(struct mch),
	.internal = true,
	.options = mch_options,
	.state = &mch_state,
	.create = mch_create,
	.destroy = mch_destroy,
	.reset = mch_reset,
};
HAKO_CLASS(mch_class);
