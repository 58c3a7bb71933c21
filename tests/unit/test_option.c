/* SPDX-License-Identifier: GPL-2.0-only */
#include <check.h>
#include <stdlib.h>

#include "vmm/error.h"
#include "vmm/option.h"

struct thing {
	bool flag;
	int tri, choice;
	uint16_t port;
	uint64_t size;
	char *text;
	uint8_t mac[6];
	char **list;
};

static const char *const choices[] = {"red", "green", "blue", NULL};

#define T struct thing
static const struct option table[] = {
	OPT_BOOL("flag", T, flag, "on", "a flag"),
	OPT_ONOFFAUTO("tri", T, tri, "auto", "on, off or auto"),
	OPT_ENUM("choice", T, choice, "green", choices, "a colour"),
	OPT_UINT("port", T, port, "7", 1, 9000, "a port"),
	OPT_SIZE("size", T, size, "4K", 512, 0, "a size"),
	OPT_STRING("text", T, text, NULL, "a text"),
	OPT_MAC("mac", T, mac, "an address"),
	OPT_LIST("list", T, list, "several"),
	OPT_END,
};

static const struct option strict_table[] = {
	OPT_STRING_REQUIRED("text", T, text, "the text"),
	OPT_END,
};
#undef T

static struct thing thing;
static struct hako_error err;

static int apply(const struct option *opts, const char *text, const char *implied)
{
	struct keyvals kv = {0};
	int r;

	options_free(table, &thing);
	memset(&thing, 0, sizeof(thing));
	memset(&err, 0, sizeof(err));
	r = options_defaults(opts, &thing, &err);
	if (!r)
		r = keyvals_parse(&kv, text, implied, &err);
	if (!r)
		r = options_apply(opts, &thing, &kv, true, &err);
	keyvals_free(&kv);
	return r;
}

static void teardown(void)
{
	options_free(table, &thing);
}

START_TEST(defaults)
{
	ck_assert_int_eq(apply(table, "", NULL), 0);
	ck_assert(thing.flag);
	ck_assert_int_eq(thing.tri, ONOFFAUTO_AUTO);
	ck_assert_int_eq(thing.choice, 1);
	ck_assert_uint_eq(thing.port, 7);
	ck_assert_uint_eq(thing.size, 4096);
	ck_assert_ptr_null(thing.text);
	ck_assert_ptr_null(thing.list);
}
END_TEST

START_TEST(values)
{
	ck_assert_int_eq(apply(table,
			       "flag=no,tri=off,choice=BLUE,port=0x1f90,size=1.5G,text=a=b,,c,"
			       "mac=52:54:00:12:34:Ff,list=x,list=y",
			       NULL),
			 0);
	ck_assert(!thing.flag);
	ck_assert_int_eq(thing.tri, ONOFFAUTO_OFF);
	ck_assert_int_eq(thing.choice, 2);
	ck_assert_uint_eq(thing.port, 8080);
	ck_assert_uint_eq(thing.size, 3ull << 29);
	ck_assert_str_eq(thing.text, "a=b,c");
	ck_assert_mem_eq(thing.mac, "\x52\x54\0\x12\x34\xff", 6);
	ck_assert_str_eq(thing.list[0], "x");
	ck_assert_str_eq(thing.list[1], "y");
	ck_assert_ptr_null(thing.list[2]);
}
END_TEST

START_TEST(implied_key_and_bare_flag)
{
	ck_assert_int_eq(apply(table, "hello,flag", "text"), 0);
	ck_assert_str_eq(thing.text, "hello");
	ck_assert(thing.flag);
	ck_assert_int_eq(apply(table, "hello", NULL), -EINVAL);
}
END_TEST

START_TEST(last_value_counts)
{
	ck_assert_int_eq(apply(table, "text=a,text=b", NULL), 0);
	ck_assert_str_eq(thing.text, "b");
}
END_TEST

#ifdef WITH_JSON
START_TEST(json)
{
	ck_assert_int_eq(apply(table,
			       "{\"text\": \"a,b\", \"port\": 80, \"flag\": false, "
			       "\"list\": [\"x\", \"y\"]}",
			       NULL),
			 0);
	ck_assert_str_eq(thing.text, "a,b");
	ck_assert_uint_eq(thing.port, 80);
	ck_assert(!thing.flag);
	ck_assert_str_eq(thing.list[1], "y");
	ck_assert_int_eq(apply(table, "{\"text\": }", NULL), -EINVAL);
	ck_assert_int_eq(apply(table, "{\"text\": null}", NULL), -EINVAL);
	ck_assert_int_eq(apply(table, "{\"text\": {\"x\": 1}}", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "text.x: no such option"));
	ck_assert_int_eq(apply(table, "{\"text\": \"a\"} \t\n", NULL), 0);
	ck_assert_str_eq(thing.text, "a");
	ck_assert_int_eq(apply(table, "{\"text\": \"a\"} x", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "byte 14: \"x\""));
	ck_assert_int_eq(apply(table, "{\"text\": \"a\"}{\"text\": \"b\"}", NULL), -EINVAL);
	ck_assert_int_eq(apply(table, "{\"text\": \"a\\u0000b\"}", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "text: "));
	ck_assert_int_eq(apply(table, "{\"text\": zap}", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "at byte 9: "));
	ck_assert_int_eq(apply(table, "{\"text\": \"a\"", NULL), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.message, "byte 12: it is not complete"));
	/* The tokener takes comments, and has read one up to the byte behind the text. */
	char *comment = strdup("{\"text\": \"a\"}//////");

	ck_assert_int_eq(apply(table, comment, NULL), -EINVAL);
	free(comment);
}
END_TEST
#endif

static const struct {
	const char *text, *says;
	int code;
} bad[] = {
	{"colour=red", "no such option", -EINVAL},
	{"chioce=red", "did you mean choice?", -EINVAL},
	{"choice=reed", "did you mean red?", -EINVAL},
	{"choice=violet", "red, green, blue", -EINVAL},
	{"flag=perhaps", "on, off", -EINVAL},
	{"tri=maybe", "auto, on, off", -EINVAL},
	{"port=0", "1 to 9000", -ERANGE},
	{"port=9001", "1 to 9000", -ERANGE},
	{"port=-1", "not a number", -EINVAL},
	{"port=80x", "not a number", -EINVAL},
	{"port=", "not a number", -EINVAL},
	{"port=99999999999999999999999", "out of range", -ERANGE},
	{"size=511", "out of range", -ERANGE},
	{"size=4Q", "not a size", -EINVAL},
	{"size=99999999E", "out of range", -ERANGE},
	{"mac=52:54:00:12:34", "not a MAC", -EINVAL},
	{"mac=52:54:00:12:34:5g", "not a MAC", -EINVAL},
	{"mac=52:54:00:12:34:-6", "not a MAC", -EINVAL},
	{"mac= 2:54:00:12:34:56", "not a MAC", -EINVAL},
	{"mac=53:54:00:12:34:56", "multicast", -EINVAL},
	{"=x", "without a name", -EINVAL},
	{"text=a,,,port=7", "no such option", 0},
	{",port=7", "without a name", -EINVAL},
};

START_TEST(refused)
{
	int r = apply(table, bad[_i].text, NULL);

	if (!bad[_i].code) { /* "a,," is a comma in the value, then the next option */
		ck_assert_int_eq(r, 0);
		ck_assert_str_eq(thing.text, "a,");
		return;
	}
	ck_assert_int_eq(r, bad[_i].code);
	ck_assert_int_eq(err.code, bad[_i].code);
	ck_assert_msg(strstr(err.message, bad[_i].says), "%s", err.message);
}
END_TEST

START_TEST(required)
{
	ck_assert_int_eq(apply(strict_table, "", NULL), -EINVAL);
	ck_assert_str_eq(err.message, "text=… is missing (the text)");
	ck_assert_int_eq(apply(strict_table, "text=x", NULL), 0);
}
END_TEST

START_TEST(round_trip)
{
	ck_assert_int_eq(apply(table,
			       "flag=off,tri=on,choice=red,port=80,size=1M,text=x,"
			       "mac=52:54:00:12:34:56",
			       NULL),
			 0);
	for (const struct option *o = table; o->name; o++) {
		char *before = option_get(o, &thing), *after;

		if (o->type == OPTION_LIST)
			continue;
		ck_assert_int_eq(option_set(o, &thing, before, &err), 0);
		after = option_get(o, &thing);
		ck_assert_str_eq(before, after);
		free(before);
		free(after);
	}
}
END_TEST

static const struct {
	const char *text;
	uint64_t unit, bytes;
	int r;
} sizes[] = {
	{"0", 1, 0, 0},
	{"512", MiB, 512 * MiB, 0},
	{"512b", MiB, 512, 0},
	{"4k", 1, 4096, 0},
	{"4KiB", 1, 4096, 0},
	{"4KB", 1, 4096, 0},
	{"0x10", 1, 16, 0},
	{"0x10M", 1, 16 * MiB, 0},
	{"0.5G", 1, 512 * MiB, 0},
	{"1.25k", 1, 1280, 0},
	{"16E", 1, 0, -ERANGE},
	{"15E", 1, 15ull << 60, 0},
	{"18446744073709551615", 1, UINT64_MAX, 0},
	{"18446744073709551616", 1, 0, -ERANGE},
	{"", 1, 0, -EINVAL},
	{" 1", 1, 0, -EINVAL},
	{"+1", 1, 0, -EINVAL},
	{"1.5.5k", 1, 0, -EINVAL},
	{"1kk", 1, 0, -EINVAL},
};

START_TEST(size)
{
	uint64_t bytes = 0;

	ck_assert_int_eq(parse_size(sizes[_i].text, sizes[_i].unit, &bytes), sizes[_i].r);
	if (!sizes[_i].r)
		ck_assert_uint_eq(bytes, sizes[_i].bytes);
}
END_TEST

START_TEST(nearest)
{
	static const char *const names[] = {"kernel", "initrd", "append", NULL};

	ck_assert_str_eq(str_nearest("kernle", names), "kernel");
	ck_assert_str_eq(str_nearest("intrd", names), "initrd");
	ck_assert_ptr_null(str_nearest("memory", names));
	ck_assert_ptr_null(str_nearest("", names));
}
END_TEST

START_TEST(errors)
{
	struct hako_error e;
	static char name[5000];
	char deep[64];

	ck_assert_int_eq(error_set(&e, -EINVAL, "at %d", 5), -EINVAL);
	ck_assert_str_eq(e.message, "at 5");
	ck_assert_int_eq(error_errno(&e, -ENOENT, "a\nb"), -ENOENT);
	ck_assert_str_eq(e.message, "a?b: No such file or directory");
	ck_assert_int_eq(error_prefix(&e, "--disk %s", "x"), -ENOENT);
	ck_assert_str_eq(e.message, "--disk x: a?b: No such file or directory");
	ck_assert_int_eq(error_hint(&e, "try %s", "y"), -ENOENT);
	ck_assert_str_eq(e.message, "--disk x: a?b: No such file or directory (try y)");
	memset(deep, 'x', sizeof(deep) - 1);
	deep[63] = 0;
	for (int i = 0; i < 100; i++) {
		error_prefix(&e, "%s", deep);
		error_hint(&e, "%s", deep);
	}
	ck_assert_uint_lt(strnlen(e.message, sizeof(e.message)), sizeof(e.message));
	/* However long the name is, the option and the cause are there. */
	memset(name, 'x', sizeof(name) - 1);
	error_errno(&e, -ENOENT, "%s", name);
	error_prefix(&e, "--disk %s", name);
	ck_assert_uint_eq(strlen(e.message), sizeof(e.message) - 1);
	ck_assert_int_eq(strncmp(e.message, "--disk xxx", 10), 0);
	ck_assert_ptr_nonnull(strstr(e.message, "xxx: No such file or directory"));
	error_set(&e, -EINVAL, "--memory %s: not a size", name);
	ck_assert_int_eq(strncmp(e.message, "--memory xxx", 12), 0);
	ck_assert_ptr_nonnull(strstr(e.message, "xxx: not a size"));
	ck_assert_int_eq(error_set(NULL, -EIO, "x"), -EIO);
	ck_assert_int_eq(error_errno(NULL, -EIO, "x"), -EIO);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("option");
	TCase *tc = tcase_create("option");
	SRunner *sr;
	int failed;

	tcase_add_checked_fixture(tc, NULL, teardown);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, values);
	tcase_add_test(tc, implied_key_and_bare_flag);
	tcase_add_test(tc, last_value_counts);
#ifdef WITH_JSON
	tcase_add_test(tc, json);
#endif
	tcase_add_loop_test(tc, refused, 0, ARRAY_SIZE(bad));
	tcase_add_test(tc, required);
	tcase_add_test(tc, round_trip);
	tcase_add_loop_test(tc, size, 0, ARRAY_SIZE(sizes));
	tcase_add_test(tc, nearest);
	tcase_add_test(tc, errors);
	suite_add_tcase(s, tc);
	sr = srunner_create(s);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
