/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * fw_cfg on ports 0x510 (selector), 0x511 (data) and 0x514 (DMA address). All of it is specified in QEMU's docs/specs/fw_cfg: the selector and
 * numbered items are little-endian, the file directory and the DMA interface big-endian.
 */
#include "devices/platform/fw_cfg.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/vm.h"

#define PORT_SELECT 0x510
#define PORT_DATA   1 /* offset */
#define PORT_DMA    4 /* offset of the address's high half */
#define NITEMS	    (FW_CFG_FILE_FIRST + FW_CFG_MAX_FILES)

struct item {
	uint8_t *data;
	uint32_t len;
};

struct fw_cfg {
	struct object obj;
	pthread_mutex_t lock;
	struct item item[NITEMS];
	char *name[FW_CFG_MAX_FILES];
	uint32_t nfiles;
	/* State. */
	uint16_t key;
	uint32_t offset; /* never beyond the item's end */
	uint64_t dma_addr;
};

static const struct item *selected(const struct fw_cfg *fw)
{
	static const struct item none;
	uint16_t key = fw->key & FW_CFG_ENTRY_MASK;

	/* Items of the architecture have a number space of their own; there are none. */
	if ((fw->key & FW_CFG_ARCH_LOCAL) || key >= NITEMS)
		return &none;
	return &fw->item[key];
}

static void select_item(struct fw_cfg *fw, uint16_t key)
{
	fw->key = key;
	fw->offset = 0;
}

static uint8_t read_byte(struct fw_cfg *fw)
{
	const struct item *item = selected(fw);

	return fw->offset < item->len ? item->data[fw->offset++] : 0;
}

/* --- DMA --------------------------------------------------------------------------------------- */

/* @len zero bytes to the guest, behind an item's end. */
static int dma_zeroes(struct fw_cfg *fw, uint64_t addr, uint32_t len)
{
	static const uint8_t zeroes[4096];

	while (len) {
		uint32_t n = MIN(len, sizeof(zeroes));

		if (memory_write(&fw->obj.vm->mem, addr, zeroes, n))
			return -EFAULT;
		addr += n;
		len -= n;
	}
	return 0;
}

static int dma_transfer(struct fw_cfg *fw, uint32_t control, uint64_t addr, uint32_t len)
{
	const struct item *item = selected(fw);
	uint32_t n = MIN(len, item->len - fw->offset);
	int ret = 0;

	if (control & FW_CFG_DMA_CTL_READ) {
		if (n)
			ret = memory_write(&fw->obj.vm->mem, addr, item->data + fw->offset, n);
		if (!ret)
			ret = dma_zeroes(fw, addr + n, len - n);
	} else if (control & FW_CFG_DMA_CTL_WRITE) {
		return -EROFS; /* there is no item that the guest may write */
	} else if (!(control & FW_CFG_DMA_CTL_SKIP)) {
		return 0;
	}
	fw->offset += n;
	return ret;
}

static void dma_run(struct fw_cfg *fw, uint64_t addr)
{
	struct memory *mem = &fw->obj.vm->mem;
	struct fw_cfg_dma_access access;
	uint32_t control, result;

	if (memory_read(mem, addr, &access, sizeof(access))) {
		vm_guest_error(fw->obj.vm, "fw_cfg: DMA descriptor at 0x%llx is not in RAM",
			       (unsigned long long)addr);
		return;
	}
	control = be32toh(access.control);
	if (control & FW_CFG_DMA_CTL_SELECT)
		select_item(fw, control >> 16);
	result = dma_transfer(fw, control, be64toh(access.address), be32toh(access.length))
			 ? FW_CFG_DMA_CTL_ERROR
			 : 0;
	result = htobe32(result);
	memory_write(mem, addr, &result, sizeof(result));
}

/* --- ports ------------------------------------------------------------------------------------- */

static uint64_t select_read(void *opaque, uint64_t offset, unsigned int size)
{
	if (size != 1 || offset != PORT_DATA)
		return 0;
	return read_byte(opaque);
}

static void select_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	/* Writes to the data port are from old times and do nothing. */
	if (size == 2 && offset == 0)
		select_item(opaque, value);
}

static const struct io_ops select_ops = {
	.read = select_read,
	.write = select_write,
};

static uint64_t dma_read(void *opaque, uint64_t offset, unsigned int size)
{
	uint64_t be = htobe64(FW_CFG_DMA_SIGNATURE), value = 0;

	memcpy(&value, (const uint8_t *)&be + offset, size);
	return value;
}

static void dma_write(void *opaque, uint64_t offset, uint64_t value, unsigned int size)
{
	struct fw_cfg *fw = opaque;
	uint64_t addr;

	if (size == 8) {
		addr = be64toh(value);
	} else if (size == 4 && offset == 0) {
		fw->dma_addr = (uint64_t)be32toh(value) << 32;
		return;
	} else if (size == 4 && offset == 4) {
		addr = fw->dma_addr | be32toh(value);
	} else {
		return;
	}
	fw->dma_addr = 0;
	dma_run(fw, addr);
}

static const struct io_ops dma_ops = {
	.read = dma_read,
	.write = dma_write,
};

/* --- contents ---------------------------------------------------------------------------------- */

/* Under the lock. */
static int set_item(struct fw_cfg *fw, uint16_t key, const void *data, size_t len)
{
	struct item *item = &fw->item[key];
	uint8_t *copy;

	if (len > FW_CFG_MAX_ITEM)
		return -EFBIG;
	copy = malloc(len ?: 1);
	if (!copy)
		return -ENOMEM;
	if (len)
		memcpy(copy, data, len);
	free(item->data);
	item->data = copy;
	item->len = len;
	/* The guest may be reading it just now. */
	if (selected(fw) == item)
		fw->offset = MIN(fw->offset, item->len);
	return 0;
}

int fw_cfg_add_bytes(struct fw_cfg *fw, uint16_t key, const void *data, size_t len)
{
	int ret;

	if (key >= FW_CFG_FILE_FIRST || key == FW_CFG_FILE_DIR || key <= FW_CFG_ID)
		return -EINVAL;
	pthread_mutex_lock(&fw->lock);
	ret = set_item(fw, key, data, len);
	pthread_mutex_unlock(&fw->lock);
	return ret;
}

int fw_cfg_add_u16(struct fw_cfg *fw, uint16_t key, uint16_t value)
{
	value = htole16(value);
	return fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

int fw_cfg_add_u32(struct fw_cfg *fw, uint16_t key, uint32_t value)
{
	value = htole32(value);
	return fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

int fw_cfg_add_u64(struct fw_cfg *fw, uint16_t key, uint64_t value)
{
	value = htole64(value);
	return fw_cfg_add_bytes(fw, key, &value, sizeof(value));
}

/* Write the directory anew from names and items. Under the lock. */
static int update_directory(struct fw_cfg *fw)
{
	struct {
		uint32_t count;
		struct fw_cfg_file file[FW_CFG_MAX_FILES];
	} dir = {.count = htobe32(fw->nfiles)};

	for (uint32_t i = 0; i < fw->nfiles; i++) {
		dir.file[i].size = htobe32(fw->item[FW_CFG_FILE_FIRST + i].len);
		dir.file[i].select = htobe16(FW_CFG_FILE_FIRST + i);
		strcpy(dir.file[i].name, fw->name[i]);
	}
	return set_item(fw, FW_CFG_FILE_DIR, &dir,
			sizeof(dir.count) + fw->nfiles * sizeof(dir.file[0]));
}

/* Under the lock. */
static int add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
	uint32_t i = 0;
	char *copy;
	int ret;

	while (i < fw->nfiles && strcmp(fw->name[i], name))
		i++;
	if (i == FW_CFG_MAX_FILES)
		return -ENOSPC;
	if (i == fw->nfiles) {
		copy = strdup(name);
		if (!copy)
			return -ENOMEM;
		ret = set_item(fw, FW_CFG_FILE_FIRST + i, data, len);
		if (ret) {
			free(copy);
			return ret;
		}
		fw->name[fw->nfiles++] = copy;
	} else {
		ret = set_item(fw, FW_CFG_FILE_FIRST + i, data, len);
		if (ret)
			return ret;
	}
	return update_directory(fw);
}

int fw_cfg_add_file(struct fw_cfg *fw, const char *name, const void *data, size_t len)
{
	int ret;

	if (!*name || strlen(name) >= FW_CFG_MAX_FILE_PATH)
		return -EINVAL;
	pthread_mutex_lock(&fw->lock);
	ret = add_file(fw, name, data, len);
	pthread_mutex_unlock(&fw->lock);
	return ret;
}

static int add_host_file(struct fw_cfg *fw, const char *name, const char *path,
			 struct hako_error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	uint8_t *data = NULL;
	struct stat st;
	int ret;

	if (fd < 0)
		return error_errno(err, -errno, "%s", path);
	if (fstat(fd, &st) < 0) {
		ret = error_errno(err, -errno, "%s", path);
	} else if (!S_ISREG(st.st_mode)) {
		ret = error_set(err, -EINVAL, "%s: not a regular file", path);
	} else if (st.st_size > (off_t)FW_CFG_MAX_ITEM) {
		ret = error_set(err, -EFBIG, "%s: larger than %llu MiB", path,
				FW_CFG_MAX_ITEM / MiB);
	} else {
		data = malloc(st.st_size ?: 1);
		ret = data ? pread_all(fd, data, st.st_size, 0) : -ENOMEM;
		if (!ret)
			ret = fw_cfg_add_file(fw, name, data, st.st_size);
		if (ret)
			error_errno(err, ret, "%s", path);
	}
	free(data);
	close(fd);
	return ret;
}

static int add_keys(struct fw_cfg *fw, struct keyvals *kv, struct hako_error *err)
{
	const char *name = keyvals_take(kv, "name");
	const char *path = keyvals_take(kv, "file");
	const char *string = keyvals_take(kv, "string");
	int ret;

	for (size_t i = 0; i < kv->n; i++)
		if (!kv->v[i].used)
			return error_set(err, -EINVAL,
					 "%s: no such option; there are name, file and string",
					 kv->v[i].key);
	if (!name || !*name)
		return error_set(err, -EINVAL, "name is missing");
	if (strlen(name) >= FW_CFG_MAX_FILE_PATH)
		return error_set(err, -EINVAL, "name=%s: longer than %d characters", name,
				 FW_CFG_MAX_FILE_PATH - 1);
	if (!path == !string)
		return error_set(err, -EINVAL, "name=%s: either file or string is needed", name);
	if (path) {
		ret = add_host_file(fw, name, path, err);
		return ret ? error_prefix(err, "name=%s,file", name), ret : 0;
	}
	ret = fw_cfg_add_file(fw, name, string, strlen(string));
	return ret ? error_errno(err, ret, "name=%s", name) : 0;
}

int fw_cfg_add_option(struct fw_cfg *fw, const char *text, struct hako_error *err)
{
	struct keyvals kv = {};
	int ret = keyvals_parse(&kv, text, "name", err);

	if (!ret)
		ret = add_keys(fw, &kv, err);
	keyvals_free(&kv);
	return ret;
}

/* --- the object -------------------------------------------------------------------------------- */

static void fw_cfg_free(struct fw_cfg *fw)
{
	for (size_t i = 0; i < NITEMS; i++)
		free(fw->item[i].data);
	for (uint32_t i = 0; i < fw->nfiles; i++)
		free(fw->name[i]);
	pthread_mutex_destroy(&fw->lock);
}

static int own_items(struct fw_cfg *fw)
{
	uint32_t id = htole32(FW_CFG_VERSION | FW_CFG_VERSION_DMA);

	return set_item(fw, FW_CFG_SIGNATURE, "QEMU", 4) ?:
	       set_item(fw, FW_CFG_ID, &id, sizeof(id)) ?:
	       update_directory(fw);
}

static int fw_cfg_create(struct object *obj, struct hako_error *err)
{
	struct fw_cfg *fw = container_of(obj, struct fw_cfg, obj);
	struct bus *pio = &obj->vm->pio;
	struct io_region ports = {
		.name = "fw_cfg",
		.base = PORT_SELECT,
		.size = 2,
		.ops = &select_ops,
		.opaque = fw,
		.lock = &fw->lock,
	};
	struct io_region dma = ports;
	int ret;

	dma.name = "fw_cfg-dma";
	dma.base = PORT_SELECT + PORT_DMA;
	dma.size = 8;
	dma.ops = &dma_ops;
	if (obj->vm->fw_cfg)
		return error_set(err, -EEXIST, "there is one already");
	pthread_mutex_init(&fw->lock, NULL);
	ret = own_items(fw);
	if (ret) {
		error_errno(err, ret, "items");
		goto out;
	}
	ret = bus_add(pio, &ports, err);
	if (ret)
		goto out;
	ret = bus_add(pio, &dma, err);
	if (ret) {
		bus_remove(pio, ports.base, fw);
		goto out;
	}
	obj->vm->fw_cfg = fw;
	return 0;
out:
	fw_cfg_free(fw);
	return ret;
}

static void fw_cfg_destroy(struct object *obj)
{
	struct fw_cfg *fw = container_of(obj, struct fw_cfg, obj);

	bus_remove(&obj->vm->pio, PORT_SELECT, fw);
	bus_remove(&obj->vm->pio, PORT_SELECT + PORT_DMA, fw);
	obj->vm->fw_cfg = NULL;
	fw_cfg_free(fw);
}

static void fw_cfg_reset(struct object *obj)
{
	struct fw_cfg *fw = container_of(obj, struct fw_cfg, obj);

	pthread_mutex_lock(&fw->lock);
	select_item(fw, FW_CFG_SIGNATURE);
	fw->dma_addr = 0;
	pthread_mutex_unlock(&fw->lock);
}

static int fw_cfg_post_load(void *obj, uint16_t version, struct hako_error *err)
{
	struct fw_cfg *fw = obj;

	fw->offset = MIN(fw->offset, selected(fw)->len);
	return 0;
}

static const struct state_field fw_cfg_fields[] = {
	STATE_FIELD_UINT(struct fw_cfg, key),
	STATE_FIELD_UINT(struct fw_cfg, offset),
	STATE_FIELD_UINT(struct fw_cfg, dma_addr),
	STATE_END,
};

static const struct state_table fw_cfg_state = {
	.name = "fw_cfg_io",
	.version = 1,
	.min_version = 1,
	.fields = fw_cfg_fields,
	.post_load = fw_cfg_post_load,
};

static const struct class fw_cfg_class = {
	.name = "fw_cfg_io",
	.help = "data for firmware and kernel",
	.kind = CLASS_DEVICE,
	.bus = BUS_SYSTEM,
	.size = sizeof(struct fw_cfg),
	.internal = true,
	.state = &fw_cfg_state,
	.create = fw_cfg_create,
	.destroy = fw_cfg_destroy,
	.reset = fw_cfg_reset,
};
HAKO_CLASS(fw_cfg_class);
