/* SPDX-License-Identifier: GPL-2.0-only */
/* Unpacking what gzip, xz, lz4 and zstd packed, whole, cut and damaged. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/x86/boot.h"

static const struct {
	enum unpack_format format;
	const char *tool, *command;
	bool built;
} packers[] = {
#ifdef WITH_ZLIB
	{UNPACK_GZIP, "gzip", "gzip -1 -n -c", true},
#else
	{UNPACK_GZIP, "gzip", "gzip -1 -n -c", false},
#endif
#ifdef WITH_LZMA
	{UNPACK_XZ, "xz", "xz --check=crc32 --x86 --lzma2=preset=0,dict=32MiB -c", true},
#else
	{UNPACK_XZ, "xz", "xz --check=crc32 --x86 --lzma2=preset=0,dict=32MiB -c", false},
#endif
#ifdef WITH_LZ4
	{UNPACK_LZ4, "lz4", "lz4 -l -1 -c", true},
	{UNPACK_LZ4, "lz4", "lz4 -1 -c", true},
#else
	{UNPACK_LZ4, "lz4", "lz4 -l -1 -c", false},
	{UNPACK_LZ4, "lz4", "lz4 -1 -c", false},
#endif
#ifdef WITH_ZSTD
	{UNPACK_ZSTD, "zstd", "zstd -3 -q -c", true},
#else
	{UNPACK_ZSTD, "zstd", "zstd -3 -q -c", false},
#endif
};

/* Text that packs well but not to nothing. */
static uint8_t *make_data(size_t len)
{
	uint8_t *p = malloc(len + 1);
	uint32_t seed = len;

	ck_assert_ptr_nonnull(p);
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		p[i] = i > 64 && seed >> 28 ? p[i - 64] : seed >> 16;
	}
	return p;
}

/* Pack by the tool; NULL if this packer cannot be tested, with a reason. The caller frees. */
static uint8_t *pack(int n, const uint8_t *data, size_t len, size_t *packed_len)
{
	int in = memfd_create("in", 0), out = memfd_create("out", 0);
	char command[256];
	struct stat st;
	uint8_t *p;

	snprintf(command, sizeof(command), "command -v %s >/dev/null", packers[n].tool);
	if (!packers[n].built || system(command)) {
		fprintf(stderr, "skipped: %s is %s\n", packers[n].tool,
			packers[n].built ? "not installed" : "left out of this build");
		close(in);
		close(out);
		return NULL;
	}
	ck_assert_int_eq(write(in, data, len), len);
	lseek(in, 0, SEEK_SET);
	snprintf(command, sizeof(command), "%s <&%d >&%d", packers[n].command, in, out);
	ck_assert_int_eq(system(command), 0);
	ck_assert_int_eq(fstat(out, &st), 0);
	*packed_len = st.st_size;
	p = malloc(st.st_size + 4);
	ck_assert_ptr_nonnull(p);
	ck_assert_int_eq(pread(out, p, st.st_size, 0), st.st_size);
	close(in);
	close(out);
	return p;
}

/* One block of lz4's is 8 MiB. */
static const size_t sizes[] = {1, 4096, 1000000, 8 << 20, (8 << 20) + 5};

START_TEST(test_round_trip)
{
	struct hako_error err = {0};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *data = make_data(sizes[i]), *out = malloc(sizes[i]);
		size_t len, got = 0;
		uint8_t *packed = pack(_i, data, sizes[i], &len);

		if (packed) {
			ck_assert_int_eq(unpack_detect(packed, len), packers[_i].format);
			/* Linux's build appends the size. */
			put_le32(packed + len, sizes[i]);
			for (int extra = 0; extra <= 4; extra += 4) {
				int ret = unpack(packers[_i].format, packed, len + extra, out,
						 sizes[i], &got, &err);

				ck_assert_msg(ret == 0, "%s", err.message);
				ck_assert_uint_eq(got, sizes[i]);
				ck_assert(!memcmp(data, out, got));
			}
		}
		free(packed);
		free(data);
		free(out);
	}
}
END_TEST

START_TEST(test_no_room)
{
	struct hako_error err = {0};

	for (size_t i = 1; i < ARRAY_SIZE(sizes); i++) {
		uint8_t *data = make_data(sizes[i]), *out = malloc(sizes[i] - 1);
		size_t len, got = 0;
		uint8_t *packed = pack(_i, data, sizes[i], &len);

		if (packed) {
			ck_assert_int_eq(unpack(packers[_i].format, packed, len, out, sizes[i] - 1,
						&got, &err),
					 -EBADMSG);
			ck_assert_ptr_nonnull(strstr(err.message, "more than"));
		}
		free(packed);
		free(data);
		free(out);
	}
}
END_TEST

START_TEST(test_truncated)
{
	size_t size = 200000, len, got;
	uint8_t *data = make_data(size), *out = malloc(size);
	uint8_t *packed = pack(_i, data, size, &len);
	struct hako_error err = {0};

	for (size_t cut = 0; packed && cut < len - 8; cut += 1 + len / 300) {
		/* In memory of its own, so that reading on is seen. */
		uint8_t *copy = malloc(cut + 1);
		int ret;

		memcpy(copy, packed, cut);
		copy = realloc(copy, cut ? cut : 1);
		ret = unpack(packers[_i].format, copy, cut, out, size, &got, &err);
		ck_assert_msg(ret == -EBADMSG, "%zu of %zu bytes: %d", cut, len, ret);
		ck_assert_uint_eq(got, 0);
		free(copy);
	}
	free(packed);
	free(data);
	free(out);
}
END_TEST

/* Whatever the damage: an error, or something of at most the size there is room for. */
START_TEST(test_damaged)
{
	size_t size = 30000, len, got;
	uint8_t *data = make_data(size), *out = malloc(size);
	uint8_t *packed = pack(_i, data, size, &len);
	struct hako_error err;

	for (int seed = 0; packed && seed < 300; seed++) {
		uint8_t *copy = malloc(len);

		memcpy(copy, packed, len);
		srand(seed);
		for (int n = 1 + rand() % 4; n; n--)
			copy[4 + rand() % (seed & 1 ? 28 : len - 4)] = rand();
		if (!unpack(packers[_i].format, copy, len, out, size, &got, &err))
			ck_assert_uint_le(got, size);
		free(copy);
	}
	free(packed);
	free(data);
	free(out);
}
END_TEST

START_TEST(test_detect)
{
	ck_assert_int_eq(unpack_detect("\x1f\x8b\x08\x00", 4), UNPACK_GZIP);
	ck_assert_int_eq(unpack_detect("\xfd"
				       "7zXZ\0\0",
				       7),
			 UNPACK_XZ);
	ck_assert_int_eq(unpack_detect("\x02\x21\x4c\x18", 4), UNPACK_LZ4);
	ck_assert_int_eq(unpack_detect("\x04\x22\x4d\x18", 4), UNPACK_LZ4);
	ck_assert_int_eq(unpack_detect("\x28\xb5\x2f\xfd", 4), UNPACK_ZSTD);
	ck_assert_int_eq(unpack_detect("\x7f"
				       "ELF",
				       4),
			 UNPACK_NONE);
	ck_assert_int_eq(unpack_detect("BZh9", 4), UNPACK_UNKNOWN);
	ck_assert_int_eq(unpack_detect("\x1f\x8b", 2), UNPACK_UNKNOWN);
	ck_assert_int_eq(unpack_detect("", 0), UNPACK_UNKNOWN);
}
END_TEST

START_TEST(test_left_out)
{
	struct hako_error err;
	uint8_t out[16];
	size_t got;

	ck_assert_int_eq(unpack(UNPACK_UNKNOWN, "BZh9", 4, out, sizeof(out), &got, &err),
			 -EOPNOTSUPP);
#ifndef WITH_LZMA
	ck_assert_int_eq(unpack(UNPACK_XZ,
				"\xfd"
				"7zXZ\0\0",
				7, out, sizeof(out), &got, &err),
			 -EOPNOTSUPP);
	ck_assert_str_eq(err.message, "hako was built without lzma, which a kernel that is "
				      "compressed with xz needs");
#endif
}
END_TEST

int main(void)
{
	Suite *s = suite_create("unpack");
	TCase *tc = tcase_create("formats");
	SRunner *sr = srunner_create(s);
	int failed;

	suite_add_tcase(s, tc);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, test_detect);
	tcase_add_test(tc, test_left_out);
	tcase_add_loop_test(tc, test_round_trip, 0, ARRAY_SIZE(packers));
	tcase_add_loop_test(tc, test_no_room, 0, ARRAY_SIZE(packers));
	tcase_add_loop_test(tc, test_truncated, 0, ARRAY_SIZE(packers));
	tcase_add_loop_test(tc, test_damaged, 0, ARRAY_SIZE(packers));
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
