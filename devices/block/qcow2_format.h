/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * QCOW2 on disk, versions 2 and 3, as QEMU's docs/interop/qcow2.rst describes it ("the specification" in these files). All numbers are
 * big-endian.
 */
#ifndef DEVICES_BLOCK_QCOW2_FORMAT_H
#define DEVICES_BLOCK_QCOW2_FORMAT_H

#include "vmm/util.h"

#define QCOW2_MAGIC 0x514649fbu /* "QFI\xfb" */

/* The header. Version 2 ends before incompatible_features, version 3 has at least QCOW2_V3_HEADER_LENGTH bytes. */
struct qcow2_header {
	uint32_t magic;
	uint32_t version;
	uint64_t backing_file_offset;
	uint32_t backing_file_size;
	uint32_t cluster_bits;
	uint64_t size;
	uint32_t crypt_method;
	uint32_t l1_size; /* entries */
	uint64_t l1_table_offset;
	uint64_t refcount_table_offset;
	uint32_t refcount_table_clusters;
	uint32_t nb_snapshots;
	uint64_t snapshots_offset;
	/* version 3 */
	uint64_t incompatible_features;
	uint64_t compatible_features;
	uint64_t autoclear_features;
	uint32_t refcount_order;
	uint32_t header_length;
	/* if header_length says so */
	uint8_t compression_type;
	uint8_t padding[7];
} __attribute__((packed));

#define QCOW2_V2_HEADER_LENGTH	 72
#define QCOW2_V3_HEADER_LENGTH	 104
#define QCOW2_MAX_BACKING_NAME	 1023
#define QCOW2_MIN_CLUSTER_BITS	 9
#define QCOW2_MAX_CLUSTER_BITS	 21
#define QCOW2_MIN_EXTENDED_BITS	 14 /* of a cluster, with extended L2 entries */
#define QCOW2_MAX_REFCOUNT_ORDER 6

/* Limits of QEMU's, which keep the memory for hostile images bounded. */
#define QCOW2_MAX_L1_BYTES	 (32 * MiB)
#define QCOW2_MAX_REFTABLE_BYTES (8 * MiB)
#define QCOW2_MAX_SNAPSHOTS	 65536
#define QCOW2_MAX_SNAPSHOT_BYTES (64 * MiB) /* the snapshot table */
#define QCOW2_MAX_BITMAPS	 65535

#define QCOW2_CRYPT_NONE 0
#define QCOW2_CRYPT_AES	 1
#define QCOW2_CRYPT_LUKS 2

/* incompatible_features */
#define QCOW2_INCOMPAT_DIRTY	      BIT64(0)
#define QCOW2_INCOMPAT_CORRUPT	      BIT64(1)
#define QCOW2_INCOMPAT_DATA_FILE      BIT64(2)
#define QCOW2_INCOMPAT_COMPRESSION    BIT64(3)
#define QCOW2_INCOMPAT_EXTENDED_L2    BIT64(4)
#define QCOW2_INCOMPAT_KNOWN	      (BIT64(5) - 1)
/* compatible_features */
#define QCOW2_COMPAT_LAZY_REFCOUNTS   BIT64(0)
/* autoclear_features */
#define QCOW2_AUTOCLEAR_BITMAPS	      BIT64(0)
#define QCOW2_AUTOCLEAR_DATA_FILE_RAW BIT64(1)

#define QCOW2_COMPRESSION_ZLIB 0
#define QCOW2_COMPRESSION_ZSTD 1

/* Header extensions: type, length, data, padding to 8 bytes. */
struct qcow2_ext_header {
	uint32_t type;
	uint32_t length;
} __attribute__((packed));

#define QCOW2_EXT_END		 0x00000000u
#define QCOW2_EXT_BACKING_FORMAT 0xe2792acau
#define QCOW2_EXT_FEATURE_NAMES	 0x6803f857u
#define QCOW2_EXT_BITMAPS	 0x23852875u
#define QCOW2_EXT_CRYPTO	 0x0537be77u
#define QCOW2_EXT_DATA_FILE	 0x44415441u

struct qcow2_feature_name {
	uint8_t type; /* QCOW2_FEATURE_* */
	uint8_t bit;
	char name[46]; /* padded with zeroes, not terminated */
} __attribute__((packed));

#define QCOW2_FEATURE_INCOMPATIBLE 0
#define QCOW2_FEATURE_COMPATIBLE   1
#define QCOW2_FEATURE_AUTOCLEAR	   2

/* L1 entries */
#define QCOW2_L1_OFFSET	  0x00fffffffffffe00ull
#define QCOW2_L1_RESERVED 0x7f000000000001ffull

/* Refcount table entries */
#define QCOW2_REFTABLE_OFFSET	0xfffffffffffffe00ull
#define QCOW2_REFTABLE_RESERVED 0x00000000000001ffull

/* Of L1 and L2 entries: what it points to has a refcount of exactly one, so that it can be written in place. */
#define QCOW2_COPIED BIT64(63)

/* L2 entries */
#define QCOW2_COMPRESSED BIT64(62)
#define QCOW2_ZERO	 BIT64(0) /* standard clusters of version 3 without extended L2 entries */
#define QCOW2_L2_OFFSET	 0x00fffffffffffe00ull
#define QCOW2_L2_RESERVED \
	0x3f000000000001feull /* of standard clusters; with extended L2 entries also QCOW2_ZERO */

#define QCOW2_MAX_OFFSET   BIT64(56) /* L1 and L2 entries reach so far */
#define QCOW2_SUBCLUSTERS  32
#define QCOW2_SECTOR_BYTES 512 /* compressed clusters are counted in these */

/* Snapshot table entries: this, extra data, id, name, padding to 8 bytes. */
struct qcow2_snapshot_header {
	uint64_t l1_table_offset;
	uint32_t l1_size;
	uint16_t id_size;
	uint16_t name_size;
	uint32_t date_sec;
	uint32_t date_nsec;
	uint64_t vm_clock_nsec;
	uint32_t vm_state_size;
	uint32_t extra_size;
} __attribute__((packed));

struct qcow2_snapshot_extra {
	uint64_t vm_state_size;
	uint64_t disk_size;
	uint64_t icount;
} __attribute__((packed));

/* The bitmaps extension, and directory entries: this, extra data, name, padding to 8 bytes. */
struct qcow2_bitmaps_ext {
	uint32_t nb_bitmaps;
	uint32_t reserved;
	uint64_t directory_size;
	uint64_t directory_offset;
} __attribute__((packed));

struct qcow2_bitmap_header {
	uint64_t table_offset;
	uint32_t table_size; /* entries */
	uint32_t flags;
	uint8_t type;
	uint8_t granularity_bits;
	uint16_t name_size;
	uint32_t extra_size;
} __attribute__((packed));

#define QCOW2_BITMAP_IN_USE	      BIT(0)
#define QCOW2_BITMAP_AUTO	      BIT(1)
#define QCOW2_BITMAP_EXTRA_COMPATIBLE BIT(2)
#define QCOW2_BITMAP_TYPE_DIRTY	      1
#define QCOW2_BITMAP_ENTRY_ONES	      BIT64(0)
#define QCOW2_BITMAP_ENTRY_OFFSET     0x00fffffffffffe00ull
#define QCOW2_BITMAP_ENTRY_RESERVED   0xff000000000001feull

#endif
