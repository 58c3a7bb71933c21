/* SPDX-License-Identifier: GPL-2.0-only */
/* A PCI Express root port: a bridge to a bus of one slot (PCI-to-PCI Bridge 1.2; PCI Express Base 4.0, 7.5). QEMU's IDs. */
#include <stdlib.h>

#include "pci_internal.h"

#define DEVICE_ROOT_PORT 0x000c

/* Bridge Control, what a port without VGA behind it has. */
#define BRIDGE_CTL (PCI_BRIDGE_CTL_PARITY | PCI_BRIDGE_CTL_SERR | PCI_BRIDGE_CTL_BUS_RESET)

struct root_port {
	struct pci_device pdev;
	struct pci_bus secondary;
	/* Options. */
	char *bus, *addr;
	bool multifunction;
	uint8_t chassis, port;
	uint16_t slot;

	uint16_t exp; /* offset of the PCI Express capability */
	bool in_reset;
};

/* --- what is behind -------------------------------------------------------------------------- */

/* The slot's and the link's status say whether something is plugged. */
static void link_changed(struct pci_device *pdev)
{
	struct root_port *rp = (struct root_port *)pdev;
	uint8_t *cap = pdev->config + rp->exp;
	bool there = !list_empty(&rp->secondary.devices);

	put_le16(cap + PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1 |
					       (there ? PCI_EXP_LNKSTA_DLLLA : 0));
	put_le16(cap + PCI_EXP_SLTSTA, there ? PCI_EXP_SLTSTA_PDS : 0);
}

static void reset_bus(struct pci_bus *bus)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		if (pdev->hot_reset)
			pdev->hot_reset(pdev);
		else
			pci_device_reset(pdev);
	}
}

/* Secondary Bus Reset acts when it is set; what is behind stays as it is until the guest clears it and sets it again. */
static void root_port_config_written(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	struct root_port *rp = (struct root_port *)pdev;
	bool in_reset = pdev->config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_CTL_BUS_RESET;

	if (in_reset && !rp->in_reset)
		reset_bus(&rp->secondary);
	rp->in_reset = in_reset;
}

static void root_port_hot_reset(struct pci_device *pdev)
{
	struct root_port *rp = (struct root_port *)pdev;

	pci_device_reset(pdev);
	rp->in_reset = false;
	reset_bus(&rp->secondary);
}

/* --- life ------------------------------------------------------------------------------------ */

static void init_header(struct pci_device *pdev)
{
	uint8_t *c = pdev->config, *w = pdev->wmask;

	c[PCI_HEADER_TYPE] |= PCI_HEADER_TYPE_BRIDGE;
	c[PCI_INTERRUPT_PIN] = 1;
	memset(w + PCI_PRIMARY_BUS, 0xff, 3);
	w[PCI_IO_BASE] = w[PCI_IO_LIMIT] = 0xf0;
	put_le16(pdev->w1cmask + PCI_SEC_STATUS, get_le16(pdev->w1cmask + PCI_STATUS));
	put_le32(w + PCI_MEMORY_BASE, 0xfff0fff0);
	put_le32(w + PCI_PREF_MEMORY_BASE, 0xfff0fff0);
	put_le32(c + PCI_PREF_MEMORY_BASE, PCI_PREF_RANGE_TYPE_64 | PCI_PREF_RANGE_TYPE_64 << 16);
	memset(w + PCI_PREF_BASE_UPPER32, 0xff, 8);
	put_le16(w + PCI_BRIDGE_CONTROL, BRIDGE_CTL);
}

static int init_express(struct root_port *rp, struct hako_error *err)
{
	struct pci_device *pdev = &rp->pdev;
	int at = pci_add_express(pdev, PCI_EXP_TYPE_ROOT_PORT);
	uint8_t *cap = pdev->config + at;

	if (at < 0)
		return error_errno(err, at, "PCI Express capability");
	rp->exp = at;
	cap[PCI_EXP_FLAGS + 1] |= PCI_EXP_FLAGS_SLOT >> 8;
	put_le32(cap + PCI_EXP_LNKCAP, get_le32(cap + PCI_EXP_LNKCAP) | PCI_EXP_LNKCAP_DLLLARC |
					       (uint32_t)rp->port << 24);
	put_le32(cap + PCI_EXP_SLTCAP, (uint32_t)rp->slot << 19);
	put_le16(pdev->wmask + at + PCI_EXP_RTCTL, PCI_EXP_RTCTL_SECEE | PCI_EXP_RTCTL_SENFEE |
							   PCI_EXP_RTCTL_SEFEE |
							   PCI_EXP_RTCTL_PMEIE);
	put_le32(pdev->w1cmask + at + PCI_EXP_RTSTA, PCI_EXP_RTSTA_PME);
	link_changed(pdev);
	pdev->link_changed = link_changed;
	return 0;
}

static int root_port_create(struct object *obj, struct hako_error *err)
{
	struct root_port *rp = (struct root_port *)obj;
	struct pci_device *pdev = &rp->pdev;
	struct pci_bus *bus;
	int devfn, r;

	r = pci_parse_addr(obj->vm, rp->bus, rp->addr, &bus, &devfn, err);
	if (r)
		return r;
	if (bus->bridge)
		return error_set(err, -EINVAL, "bus=%s: a root port belongs on pcie.0", rp->bus);
	r = pci_device_init(pdev, bus, devfn, PCI_VENDOR_REDHAT, DEVICE_ROOT_PORT,
			    PCI_CLASS_PCI_BRIDGE, 0, err);
	if (r)
		return r;
	rp->secondary.vm = obj->vm;
	rp->secondary.bridge = pdev;
	rp->secondary.root = bus->root;
	list_init(&rp->secondary.devices);
	pdev->secondary = &rp->secondary;
	pdev->config_written = root_port_config_written;
	pdev->hot_reset = root_port_hot_reset;
	if (rp->multifunction)
		pdev->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTIFUNCTION;
	init_header(pdev);
	/* For power management events; a guest that finds no interrupt complains. */
	r = pci_add_msix(pdev, 0, 1, err) ?: init_express(rp, err);
	if (r)
		pci_device_free(pdev);
	return r;
}

static void root_port_destroy(struct object *obj)
{
	pci_device_free((struct pci_device *)obj);
}

static void root_port_reset(struct object *obj)
{
	struct root_port *rp = (struct root_port *)obj;

	pci_device_reset(&rp->pdev);
	rp->in_reset = false;
}

static int root_port_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct root_port *rp = obj;

	rp->in_reset = rp->pdev.config[PCI_BRIDGE_CONTROL] & PCI_BRIDGE_CTL_BUS_RESET;
	return 0;
}

static const struct state_field root_port_fields[] = {
	STATE_FIELD_STRUCT(struct root_port, pdev, &pci_device_state),
	STATE_END,
};

static const struct state_table root_port_state = {
	.name = "pcie-root-port",
	.version = 1,
	.min_version = 1,
	.fields = root_port_fields,
	.post_load = root_port_post_load,
};

static const struct option root_port_options[] = {
	OPT_STRING("bus", struct root_port, bus, "pcie.0", "the bus it is on (only pcie.0)"),
	OPT_STRING("addr", struct root_port, addr, NULL,
		   "slot, or slot.function, in hexadecimal; default: the first free one"),
	OPT_BOOL("multifunction", struct root_port, multifunction, "off",
		 "say that the slot has several functions (it does so by itself if it has)"),
	OPT_UINT("chassis", struct root_port, chassis, "0", 0, 0xff,
		 "number of the chassis the slot is in"),
	OPT_UINT("port", struct root_port, port, "0", 0, 0xff, "number of the port"),
	OPT_UINT("slot", struct root_port, slot, "0", 0, 0x1fff, "number of the slot"),
	OPT_END,
};

static const struct class root_port_class = {
	.name = "pcie-root-port",
	.help = "PCI Express root port, a slot for one device",
	.kind = CLASS_DEVICE,
	.bus = BUS_PCI,
	.size = sizeof(struct root_port),
	.options = root_port_options,
	.state = &root_port_state,
	.create = root_port_create,
	.destroy = root_port_destroy,
	.reset = root_port_reset,
};
HAKO_CLASS(root_port_class);
