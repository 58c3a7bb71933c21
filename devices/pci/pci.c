/* SPDX-License-Identifier: GPL-2.0-only */
/* PCI functions: their place on a bus, capabilities, configuration accesses, INTx, reset, state. */
#include "pci_internal.h"

#include <stdlib.h>

#include "vmm/vm.h"

#define CAPS_START     0x40 /* behind the standard header */
#define EXT_CAPS_START 0x100
#define PCI_BUS_SLOTS  32

/* --- plugging -------------------------------------------------------------------------------- */

static struct pci_device *bus_function(struct pci_bus *bus, int devfn)
{
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link)
		if (pdev->devfn == devfn)
			return pdev;
	return NULL;
}

static unsigned int slot_functions(struct pci_bus *bus, int slot)
{
	struct pci_device *pdev;
	unsigned int n = 0;

	list_for_each(pdev, &bus->devices, link)
		n += PCI_SLOT_OF(pdev->devfn) == slot;
	return n;
}

/* A link has one device at its far end: PCI Express Base 4.0, 7.3.1. */
static int bus_slots(const struct pci_bus *bus)
{
	return bus->bridge ? 1 : PCI_BUS_SLOTS;
}

static int choose_devfn(struct pci_bus *bus, int devfn, struct hako_error *err)
{
	struct pci_device *other;

	if (devfn < 0) {
		for (int slot = 0; slot < bus_slots(bus); slot++)
			if (!slot_functions(bus, slot))
				return PCI_DEVFN(slot, 0);
		return error_set(err, -ENOSPC, "no free slot on %s",
				 bus->bridge ? "the root port" : "the PCI bus");
	}
	if (devfn > 255 || PCI_SLOT_OF(devfn) >= bus_slots(bus))
		return error_set(err, -EINVAL, "addr=%02x.%x: there is no such slot on this bus",
				 (unsigned int)devfn >> 3, PCI_FUNC_OF(devfn));
	other = bus_function(bus, devfn);
	if (other)
		return error_set(err, -EBUSY, "addr=%02x.%x: %s is there already",
				 PCI_SLOT_OF(devfn), PCI_FUNC_OF(devfn),
				 other->obj.id ?: other->obj.class->name);
	return devfn;
}

/* All functions of a slot say so if there are several (PCI 3.0, 6.2.1). */
static void update_multifunction(struct pci_bus *bus, int slot)
{
	bool multi = slot_functions(bus, slot) > 1;
	struct pci_device *pdev;

	list_for_each(pdev, &bus->devices, link) {
		if (PCI_SLOT_OF(pdev->devfn) != slot)
			continue;
		if (multi)
			pdev->config[PCI_HEADER_TYPE] |= PCI_HEADER_MULTIFUNCTION;
	}
}

static void tell_bridge(struct pci_bus *bus)
{
	if (bus->bridge && bus->bridge->link_changed)
		bus->bridge->link_changed(bus->bridge);
}

static void init_header(struct pci_device *pdev)
{
	put_le16(pdev->wmask + PCI_COMMAND, PCI_COMMAND_IO | PCI_COMMAND_MEMORY |
						    PCI_COMMAND_MASTER | PCI_COMMAND_PARITY |
						    PCI_COMMAND_SERR | PCI_COMMAND_INTX_DISABLE);
	put_le16(pdev->w1cmask + PCI_STATUS,
		 PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT |
			 PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR |
			 PCI_STATUS_DETECTED_PARITY);
	pdev->wmask[PCI_CACHE_LINE_SIZE] = 0xff;
	pdev->wmask[PCI_INTERRUPT_LINE] = 0xff;
}

int pci_device_init(struct pci_device *pdev, struct pci_bus *bus, int devfn, uint16_t vendor,
		    uint16_t device, uint32_t class_code, uint8_t revision, struct hako_error *err)
{
	uint8_t *c = pdev->config;

	pci_lock(bus);
	devfn = choose_devfn(bus, devfn, err);
	if (devfn < 0) {
		pci_unlock(bus);
		return devfn;
	}
	pdev->bus = bus;
	pdev->devfn = devfn;
	pdev->cap_next = CAPS_START;
	pdev->ext_cap_next = EXT_CAPS_START;
	pthread_mutex_init(&pdev->lock, NULL);
	put_le16(c + PCI_VENDOR_ID, vendor);
	put_le16(c + PCI_DEVICE_ID, device);
	put_le32(c + PCI_CLASS_REVISION, class_code << 8 | revision);
	for (unsigned int i = 0; i < PCI_MAX_BARS; i++)
		pdev->bar[i].addr = PCI_BAR_UNMAPPED;
	init_header(pdev);
	list_add_tail(&pdev->link, &bus->devices);
	update_multifunction(bus, PCI_SLOT_OF(devfn));
	tell_bridge(bus);
	pci_unlock(bus);
	return 0;
}

void pci_device_free(struct pci_device *pdev)
{
	struct pci_bus *bus = pdev->bus;

	if (!bus)
		return;
	pci_lock(bus);
	pci_unmap_bars(pdev);
	list_del(&pdev->link);
	tell_bridge(bus);
	pci_unlock(bus);
	pdev->intx_level = false;
	pci_update_intx(pdev);
	msix_free(pdev);
	pthread_mutex_destroy(&pdev->lock);
	pdev->bus = NULL;
}

static int parse_hex(const char **text, unsigned int max)
{
	unsigned int v = 0;
	const char *p = *text;

	for (; *p && strchr("0123456789abcdefABCDEF", *p); p++) {
		v = v << 4 | (*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
		if (v > max)
			return -EINVAL;
	}
	if (p == *text)
		return -EINVAL;
	*text = p;
	return v;
}

static int parse_devfn(const char *addr, struct hako_error *err)
{
	const char *p = addr;
	int slot, func = 0;

	if (p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
		p += 2;
	slot = parse_hex(&p, PCI_BUS_SLOTS - 1);
	if (slot >= 0 && *p == '.') {
		p++;
		func = parse_hex(&p, 7);
	}
	if (slot < 0 || func < 0 || *p)
		return error_set(
			err, -EINVAL,
			"addr=%s: not a PCI address (SLOT or SLOT.FUNCTION, 0 to 1f and 0 to 7, hexadecimal)",
			addr);
	return PCI_DEVFN(slot, func);
}

int pci_parse_addr(struct vm *vm, const char *bus, const char *addr, struct pci_bus **where,
		   int *devfn, struct hako_error *err)
{
	int r = -1;

	if (!vm->pci)
		return error_set(err, -ENODEV, "this board has no PCI bus");
	if (addr) {
		r = parse_devfn(addr, err);
		if (r < 0)
			return r;
	}
	*devfn = r;
	*where = vm->pci;
	if (!bus || !strcmp(bus, "pcie.0"))
		return 0;
	*where = pci_bus_find(vm->pci, bus);
	if (!*where)
		return error_set(err, -ENODEV,
				 "bus=%s: no such bus (pcie.0, or the id of a root port)", bus);
	return 0;
}

/* --- capabilities ---------------------------------------------------------------------------- */

int pci_add_capability(struct pci_device *pdev, uint8_t id, uint8_t len)
{
	unsigned int at = pdev->cap_next;

	if (len < 2 || at + len > EXT_CAPS_START)
		return -ENOSPC;
	pdev->config[at] = id;
	pdev->config[at + 1] = pdev->config[PCI_CAPABILITY_LIST];
	pdev->config[PCI_CAPABILITY_LIST] = at;
	pdev->config[PCI_STATUS] |= PCI_STATUS_CAP_LIST;
	pdev->cap_next = ALIGN_UP(at + len, 4u);
	return at;
}

int pci_add_ext_capability(struct pci_device *pdev, uint16_t id, uint8_t version, uint16_t len)
{
	unsigned int at = pdev->ext_cap_next;

	if (!pdev->express || len < 4 || at + len > PCI_CONFIG_SIZE)
		return -ENOSPC;
	put_le32(pdev->config + at, id | (version & 0xf) << 16);
	if (pdev->ext_cap_last) {
		uint8_t *last = pdev->config + pdev->ext_cap_last;

		put_le32(last, (get_le32(last) & 0xfffff) | at << 20);
	}
	pdev->ext_cap_last = at;
	pdev->ext_cap_next = ALIGN_UP(at + len, 4u);
	return at;
}

static void express_link(struct pci_device *pdev, uint8_t *cap)
{
	put_le32(cap + PCI_EXP_LNKCAP, PCI_EXP_LNKCAP_SLS_2_5GB | 1 << 4); /* x1 */
	put_le16(cap + PCI_EXP_LNKSTA, PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1);
	put_le16(pdev->wmask + (cap - pdev->config) + PCI_EXP_LNKCTL,
		 PCI_EXP_LNKCTL_CCC | PCI_EXP_LNKCTL_ES);
	put_le32(cap + PCI_EXP_LNKCAP2, PCI_EXP_LNKCAP2_SLS_2_5GB);
	put_le16(cap + PCI_EXP_LNKCTL2, PCI_EXP_LNKCTL2_TLS_2_5GT);
}

int pci_add_express(struct pci_device *pdev, uint8_t type)
{
	int at = pci_add_capability(pdev, PCI_CAP_ID_EXP, 0x3c);
	uint8_t *cap, *wmask;

	if (at < 0)
		return at;
	cap = pdev->config + at;
	wmask = pdev->wmask + at;
	pdev->express = true;
	/* An endpoint without a link above it is integrated in the root complex. */
	if (type == PCI_EXP_TYPE_ENDPOINT && !pdev->bus->bridge)
		type = PCI_EXP_TYPE_RC_END;
	put_le16(cap + PCI_EXP_FLAGS, 2 | type << 4);
	put_le32(cap + PCI_EXP_DEVCAP, PCI_EXP_DEVCAP_RBER);
	put_le16(wmask + PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE |
						 PCI_EXP_DEVCTL_FERE | PCI_EXP_DEVCTL_URRE |
						 PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_PAYLOAD |
						 PCI_EXP_DEVCTL_NOSNOOP_EN | PCI_EXP_DEVCTL_READRQ);
	put_le16(pdev->w1cmask + at + PCI_EXP_DEVSTA, PCI_EXP_DEVSTA_CED | PCI_EXP_DEVSTA_NFED |
							      PCI_EXP_DEVSTA_FED |
							      PCI_EXP_DEVSTA_URD);
	if (type != PCI_EXP_TYPE_RC_END)
		express_link(pdev, cap);
	return at;
}

/* --- INTx ------------------------------------------------------------------------------------ */

uint32_t pci_intx_gsi(const struct pci_device *pdev)
{
	uint8_t pin = pdev->config[PCI_INTERRUPT_PIN];
	const struct pci_bus *bus = pdev->bus;
	uint8_t slot = PCI_SLOT_OF(pdev->devfn);

	pin = pin ? (pin - 1) & 3 : 0;
	/* Each bridge turns the pins by the slot number (PCI-to-PCI Bridge 1.2, 9.1). */
	for (; bus->bridge; bus = bus->bridge->bus) {
		pin = (pin + slot) & 3;
		slot = PCI_SLOT_OF(bus->bridge->devfn);
	}
	return bus->intx_gsi ? bus->intx_gsi((struct pci_bus *)bus, slot, pin) : UINT32_MAX;
}

void pci_update_intx(struct pci_device *pdev)
{
	bool level;

	pthread_mutex_lock(&pdev->lock);
	level = __atomic_load_n(&pdev->intx_level, __ATOMIC_RELAXED) && !pdev->intx_disabled &&
		!pdev->msix.enabled;
	if (level && !pdev->intx.vm) {
		uint32_t gsi = pci_intx_gsi(pdev);

		if (gsi != UINT32_MAX)
			irq_line_init(&pdev->intx, pdev->bus->vm, gsi);
	}
	if (pdev->intx.vm && pdev->intx.level != level)
		irq_line_set(&pdev->intx, level);
	pthread_mutex_unlock(&pdev->lock);
}

void pci_set_intx(struct pci_device *pdev, bool level)
{
	__atomic_store_n(&pdev->intx_level, level, __ATOMIC_RELAXED);
	pci_update_intx(pdev);
}

/* --- configuration accesses ------------------------------------------------------------------ */

static bool touches(uint32_t offset, uint32_t len, uint32_t reg, uint32_t reg_len)
{
	return offset < reg + reg_len && reg < offset + len;
}

static void command_written(struct pci_device *pdev)
{
	pthread_mutex_lock(&pdev->lock);
	pdev->intx_disabled = get_le16(pdev->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE;
	pthread_mutex_unlock(&pdev->lock);
	pci_update_intx(pdev);
}

/* Registers that decide what is mapped where: command, BARs, a bridge's windows. */
static bool touches_mapping(const struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	return touches(offset, len, PCI_COMMAND, 2) ||
	       touches(offset, len, PCI_BASE_ADDRESS_0, 4 * pci_nbars(pdev)) ||
	       (pci_is_bridge(pdev) &&
		touches(offset, len, PCI_IO_BASE, PCI_CAPABILITY_LIST - PCI_IO_BASE));
}

/* How much of configuration space there is: the rest reads as ones. */
static uint32_t config_size(const struct pci_device *pdev)
{
	return pdev->express ? PCI_CONFIG_SIZE : EXT_CAPS_START;
}

static void device_write(struct pci_device *pdev, uint32_t offset, uint32_t value, uint32_t len)
{
	for (uint32_t i = 0; i < len; i++, value >>= 8) {
		uint8_t *c = &pdev->config[offset + i];
		uint8_t wmask = pdev->wmask[offset + i];

		*c = (*c & ~wmask) | (value & wmask);
		*c &= ~(value & pdev->w1cmask[offset + i]);
	}
	if (touches(offset, len, PCI_COMMAND, 2))
		command_written(pdev);
	if (pdev->msix.nvectors && touches(offset, len, pdev->msix.cap + PCI_MSIX_FLAGS, 2))
		msix_config_written(pdev);
	if (touches_mapping(pdev, offset, len))
		pci_update_bars(pdev);
	if (pdev->config_written)
		pdev->config_written(pdev, offset, len);
}

static uint32_t device_read(struct pci_device *pdev, uint32_t offset, uint32_t len)
{
	uint32_t value = 0;

	if (pdev->config_reading)
		pdev->config_reading(pdev, offset, len);
	for (uint32_t i = 0; i < len; i++) {
		uint8_t byte = pdev->config[offset + i];

		if (offset + i == PCI_STATUS &&
		    __atomic_load_n(&pdev->intx_level, __ATOMIC_RELAXED))
			byte |= PCI_STATUS_INTERRUPT;
		value |= (uint32_t)byte << (8 * i);
	}
	return value;
}

/* Bytes of an access that lie within what @pdev has. */
static uint32_t clip(const struct pci_device *pdev, uint32_t offset, unsigned int size)
{
	uint32_t end = config_size(pdev);

	return offset < end ? MIN(size, end - offset) : 0;
}

uint32_t pci_config_read(struct pci_bus *root, uint8_t bus, uint8_t devfn, uint16_t offset,
			 unsigned int size)
{
	uint32_t value = UINT32_MAX, len;
	struct pci_device *pdev;

	size = MIN(size, 4u);
	pci_lock(root);
	pdev = pci_find(root, bus, devfn);
	len = pdev ? clip(pdev, offset, size) : 0;
	if (len)
		value = device_read(pdev, offset, len) | (len < 4 ? UINT32_MAX << (8 * len) : 0);
	pci_unlock(root);
	return size < 4 ? value & ((1u << (8 * size)) - 1) : value;
}

void pci_config_write(struct pci_bus *root, uint8_t bus, uint8_t devfn, uint16_t offset,
		      uint32_t value, unsigned int size)
{
	struct pci_device *pdev;
	uint32_t len;

	size = MIN(size, 4u);
	pci_lock(root);
	pdev = pci_find(root, bus, devfn);
	len = pdev ? clip(pdev, offset, size) : 0;
	if (len)
		device_write(pdev, offset, value, len);
	pci_unlock(root);
}

/* --- reset and state ------------------------------------------------------------------------- */

void pci_device_reset(struct pci_device *pdev)
{
	pci_lock(pdev->bus);
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++)
		pdev->config[i] &= ~(pdev->wmask[i] | pdev->w1cmask[i]);
	pci_update_bars(pdev);
	msix_reset(pdev);
	__atomic_store_n(&pdev->intx_level, false, __ATOMIC_RELAXED);
	command_written(pdev);
	pci_unlock(pdev->bus);
}

static int device_pre_save(void *obj, struct hako_error *err)
{
	struct pci_device *pdev = obj;

	pci_lock(pdev->bus);
	memcpy(pdev->saved_config, pdev->config, PCI_CONFIG_SIZE);
	msix_save(pdev);
	pci_unlock(pdev->bus);
	return 0;
}

/* What the guest can not write must be what it was: else this is another device, or a forged stream. */
static int check_config(const struct pci_device *pdev, struct hako_error *err)
{
	for (unsigned int i = 0; i < PCI_CONFIG_SIZE; i++) {
		uint8_t fixed = ~(pdev->wmask[i] | pdev->w1cmask[i]);

		if ((pdev->saved_config[i] ^ pdev->config[i]) & fixed)
			return error_set(
				err, -EBADMSG,
				"PCI function %02x.%x: configuration byte 0x%x is 0x%02x in the saved state and 0x%02x here",
				PCI_SLOT_OF(pdev->devfn), PCI_FUNC_OF(pdev->devfn), i,
				pdev->saved_config[i], pdev->config[i]);
	}
	return 0;
}

static int device_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct pci_device *pdev = obj;
	int r;

	pci_lock(pdev->bus);
	r = check_config(pdev, err);
	if (!r) {
		memcpy(pdev->config, pdev->saved_config, PCI_CONFIG_SIZE);
		pdev->intx_level = !!pdev->intx_level;
		pci_update_bars(pdev);
		msix_load(pdev);
		command_written(pdev);
	}
	pci_unlock(pdev->bus);
	return r;
}

static const struct state_field pci_device_fields[] = {
	STATE_FIELD_BYTES(struct pci_device, saved_config),
	STATE_FIELD_UINT(struct pci_device, intx_level),
	STATE_FIELD_PTR(struct pci_device, msix.entry, msix.nvectors, &msix_entry_state),
	STATE_END,
};

const struct state_table pci_device_state = {
	.name = "pci-device",
	.version = 1,
	.min_version = 1,
	.fields = pci_device_fields,
	.pre_save = device_pre_save,
	.post_load = device_post_load,
};
