/* SPDX-License-Identifier: GPL-2.0-only */
/* MSI-X (PCI 3.0, 6.8.2). */
#include "pci_internal.h"

#include <stdlib.h>

#include "vmm/vm.h"

#define MSIX_CAP_LEN	 12
#define MSIX_ENTRY_SIZE	 16u
#define MSIX_MAX_VECTORS 2048

#define WORD_CONTROL 3

/* Pass what the registers say about a vector on to KVM. Under pdev->lock. */
static void update_vector(struct pci_device *pdev, uint32_t v)
{
	struct msix *msix = &pdev->msix;
	const uint32_t *word = msix->entry[v].word;
	bool masked = !msix->enabled || msix->masked ||
		      (word[WORD_CONTROL] & PCI_MSIX_ENTRY_CTRL_MASKBIT);
	struct hako_error err;

	if (msix->msi[v].fd < 0)
		return;
	if (msi_update(&msix->msi[v], (uint64_t)word[1] << 32 | word[0], word[2], masked, &err))
		vm_log(pdev->bus->vm, "PCI function %02x.%x: MSI-X vector %u: %s",
		       PCI_SLOT_OF(pdev->devfn), PCI_FUNC_OF(pdev->devfn), v, err.message);
}

static void update_all(struct pci_device *pdev)
{
	for (uint32_t v = 0; v < pdev->msix.nvectors; v++)
		update_vector(pdev, v);
}

/* --- the BAR with table and PBA -------------------------------------------------------------- */

/* Both run under pdev->lock, which is the region's. */
static uint8_t table_byte(const struct msix *msix, uint64_t offset)
{
	uint32_t v = offset / MSIX_ENTRY_SIZE;
	unsigned int at = offset % MSIX_ENTRY_SIZE;

	if (v < msix->nvectors)
		return msix->entry[v].word[at / 4] >> (8 * (at % 4));
	return 0;
}

static uint8_t pba_byte(const struct msix *msix, uint64_t offset)
{
	uint8_t byte = 0;

	for (unsigned int bit = 0; bit < 8; bit++) {
		uint64_t v = offset * 8 + bit;

		if (v < msix->nvectors && msix->msi[v].fd >= 0 && msi_pending(&msix->msi[v]))
			byte |= 1 << bit;
	}
	return byte;
}

static uint64_t msix_bar_read(void *opaque, uint64_t offset, unsigned int size)
{
	struct pci_device *pdev = opaque;
	const struct msix *msix = &pdev->msix;
	uint64_t value = 0;

	for (unsigned int i = 0; i < size; i++) {
		uint64_t o = offset + i;
		uint64_t byte = o < msix->pba_offset ? table_byte(msix, o)
						     : pba_byte(msix, o - msix->pba_offset);

		value |= byte << (8 * i);
	}
	return value;
}

static void msix_bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct pci_device *pdev = opaque;
	struct msix *msix = &pdev->msix;

	/* Only whole, aligned words may be written (6.8.2). */
	if (size < 4 || offset % size)
		return;
	for (; size >= 4; size -= 4, offset += 4, value >>= 32) {
		uint32_t v = offset / MSIX_ENTRY_SIZE;
		unsigned int word = offset % MSIX_ENTRY_SIZE / 4;

		if (v >= msix->nvectors)
			return;
		msix->entry[v].word[word] = word == WORD_CONTROL
						    ? value & PCI_MSIX_ENTRY_CTRL_MASKBIT
					    : word == 0 ? value & ~3u
							: value;
		update_vector(pdev, v);
	}
}

static const struct io_ops msix_bar_ops = {msix_bar_read, msix_bar_write};

/* --- for devices ----------------------------------------------------------------------------- */

static int msix_alloc(struct msix *msix, uint16_t n, struct hako_error *err)
{
	msix->entry = calloc(n, sizeof(*msix->entry));
	msix->msi = calloc(n, sizeof(*msix->msi));
	if (!msix->entry || !msix->msi)
		return error_errno(err, -ENOMEM, "%u MSI-X vectors", n);
	for (uint32_t v = 0; v < n; v++) {
		msix->entry[v].word[WORD_CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT;
		msix->msi[v].fd = -1;
	}
	msix->nvectors = n;
	return 0;
}

static uint64_t power_of_2(uint64_t at_least)
{
	uint64_t size = PAGE_SIZE;

	while (size < at_least)
		size *= 2;
	return size;
}

/* QEMU's layout: the table in the first half of at least a page, the PBA behind it. */
int pci_add_msix(struct pci_device *pdev, unsigned int index, uint16_t nvectors,
		 struct hako_error *err)
{
	struct io_region region = {
		.name = "MSI-X table",
		.ops = &msix_bar_ops,
		.opaque = pdev,
		.lock = &pdev->lock,
	};
	struct msix *msix = &pdev->msix;
	uint32_t pba = MAX(PAGE_SIZE / 2, nvectors * MSIX_ENTRY_SIZE);
	int cap, r;

	if (!nvectors || nvectors > MSIX_MAX_VECTORS || msix->nvectors)
		return error_set(err, -EINVAL, "%u MSI-X vectors: 1 to %u are possible", nvectors,
				 MSIX_MAX_VECTORS);
	r = msix_alloc(msix, nvectors, err);
	if (!r) {
		msix->pba_offset = pba;
		r = pci_add_bar(pdev, index, power_of_2(pba + ALIGN_UP(nvectors, 64) / 8), false,
				false, false, &region);
		cap = r ?: pci_add_capability(pdev, PCI_CAP_ID_MSIX, MSIX_CAP_LEN);
		if (cap < 0)
			r = error_errno(err, cap, "MSI-X in BAR %u", index);
	}
	if (r) {
		msix_free(pdev);
		return r;
	}
	msix->bar = index;
	msix->cap = cap;
	put_le16(pdev->config + cap + PCI_MSIX_FLAGS, nvectors - 1);
	put_le16(pdev->wmask + cap + PCI_MSIX_FLAGS,
		 PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	put_le32(pdev->config + cap + PCI_MSIX_TABLE, index);
	put_le32(pdev->config + cap + PCI_MSIX_PBA, pba | index);
	return 0;
}

void msix_free(struct pci_device *pdev)
{
	struct msix *msix = &pdev->msix;

	for (uint32_t v = 0; v < msix->nvectors; v++)
		if (msix->msi[v].fd >= 0)
			msi_free(&msix->msi[v]);
	free(msix->entry);
	free(msix->msi);
	*msix = (struct msix){0};
}

bool msix_enabled(const struct pci_device *pdev)
{
	return __atomic_load_n(&pdev->msix.enabled, __ATOMIC_RELAXED);
}

/* The vector's MSI with its eventfd, or NULL. Under pdev->lock. */
static struct msi *get_msi(struct pci_device *pdev, uint16_t vector)
{
	struct hako_error err;
	struct msi *msi;

	if (vector >= pdev->msix.nvectors)
		return NULL;
	msi = &pdev->msix.msi[vector];
	if (msi->fd >= 0)
		return msi;
	if (msi_init(msi, pdev->bus->vm, &err)) {
		vm_log(pdev->bus->vm, "MSI-X vector %u: %s", vector, err.message);
		msi->fd = -1;
		return NULL;
	}
	update_vector(pdev, vector);
	return msi;
}

int msix_fd(struct pci_device *pdev, uint16_t vector)
{
	struct msi *msi;
	int fd;

	pthread_mutex_lock(&pdev->lock);
	msi = get_msi(pdev, vector);
	fd = msi ? msi->fd : -1;
	pthread_mutex_unlock(&pdev->lock);
	return fd;
}

void msix_raise(struct pci_device *pdev, uint16_t vector)
{
	struct msi *msi;

	pthread_mutex_lock(&pdev->lock);
	msi = get_msi(pdev, vector);
	if (msi)
		msi_raise(msi);
	pthread_mutex_unlock(&pdev->lock);
}

/* --- registers and state --------------------------------------------------------------------- */

static void read_flags(struct pci_device *pdev)
{
	uint16_t flags = get_le16(pdev->config + pdev->msix.cap + PCI_MSIX_FLAGS);

	pdev->msix.masked = flags & PCI_MSIX_FLAGS_MASKALL;
	__atomic_store_n(&pdev->msix.enabled, flags & PCI_MSIX_FLAGS_ENABLE, __ATOMIC_RELAXED);
}

static void clear_all(struct msix *msix)
{
	for (uint32_t v = 0; v < msix->nvectors; v++)
		if (msix->msi[v].fd >= 0)
			msi_clear(&msix->msi[v]);
}

void msix_config_written(struct pci_device *pdev)
{
	bool was;

	pthread_mutex_lock(&pdev->lock);
	was = pdev->msix.enabled;
	read_flags(pdev);
	if (pdev->msix.enabled && !was)
		clear_all(&pdev->msix); /* what was raised before was for INTx */
	update_all(pdev);
	pthread_mutex_unlock(&pdev->lock);
	pci_update_intx(pdev);
}

void msix_reset(struct pci_device *pdev)
{
	struct msix *msix = &pdev->msix;

	pthread_mutex_lock(&pdev->lock);
	for (uint32_t v = 0; v < msix->nvectors; v++)
		msix->entry[v] =
			(struct msix_entry){.word[WORD_CONTROL] = PCI_MSIX_ENTRY_CTRL_MASKBIT};
	if (msix->nvectors)
		read_flags(pdev);
	update_all(pdev);
	clear_all(msix);
	pthread_mutex_unlock(&pdev->lock);
}

void msix_save(struct pci_device *pdev)
{
	struct msix *msix = &pdev->msix;

	pthread_mutex_lock(&pdev->lock);
	for (uint32_t v = 0; v < msix->nvectors; v++)
		msix->entry[v].pending = msix->msi[v].fd >= 0 && msi_pending(&msix->msi[v]);
	pthread_mutex_unlock(&pdev->lock);
}

void msix_load(struct pci_device *pdev)
{
	struct msix *msix = &pdev->msix;

	if (!msix->nvectors)
		return;
	pthread_mutex_lock(&pdev->lock);
	read_flags(pdev);
	for (uint32_t v = 0; v < msix->nvectors; v++) {
		msix->entry[v].word[0] &= ~3u;
		msix->entry[v].word[WORD_CONTROL] &= PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
	update_all(pdev);
	clear_all(msix);
	for (uint32_t v = 0; v < msix->nvectors; v++) {
		struct msi *msi = msix->entry[v].pending ? get_msi(pdev, v) : NULL;

		if (msi)
			msi_raise(msi);
	}
	pthread_mutex_unlock(&pdev->lock);
}

static const struct state_field entry_fields[] = {
	STATE_FIELD_ARRAY(struct msix_entry, word),
	STATE_FIELD_UINT(struct msix_entry, pending),
	STATE_END,
};

const struct state_table msix_entry_state = {
	.name = "msix-entry",
	.version = 1,
	.min_version = 1,
	.fields = entry_fields,
};
