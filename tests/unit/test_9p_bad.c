/* SPDX-License-Identifier: GPL-2.0-only */
/* 9P2000.L from hostile clients: the way out of the share, what is not for them, nonsense, too much. */
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/p9_test.h"

static void setup(void)
{
	setup_vm();
	make_base();
	p9_begin("");
}

static void teardown(void)
{
	p9_end();
	teardown_vm();
	remove_base();
}

/* --- the way out ------------------------------------------------------------------------------- */

START_TEST(names_lead_nowhere)
{
	static const char *const bad[] = {"",	 ".", "..",	 "../secret", "/etc",
					  "a/b", "/", "d/../..", "./f",	      "d/"};
	struct stat st;

	ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 0, "d", 0755, getegid()), 0);
	put_file("share/f", "");
	ck_assert_int_eq(p9_walk(0, 1, "f"), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const char *b = bad[i];

		if (strcmp(b, ".."))
			ck_assert_int_eq(p9_walk(0, 9, b), EINVAL);
		ck_assert_int_eq(p9_create(9, b, O_RDWR, 0644), EINVAL);
		ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 0, b, 0755, 0), EINVAL);
		ck_assert_int_eq(p9(P9_TSYMLINK, "dssd", 0, b, "f", 0), EINVAL);
		ck_assert_int_eq(p9(P9_TMKNOD, "dsdddd", 0, b, S_IFREG, 0, 0, 0), EINVAL);
		ck_assert_int_eq(p9(P9_TLINK, "dds", 0, 1, b), EINVAL);
		ck_assert_int_eq(p9(P9_TRENAMEAT, "dsds", 0, b, 0, "g"), EINVAL);
		ck_assert_int_eq(p9(P9_TRENAMEAT, "dsds", 0, "f", 0, b), EINVAL);
		ck_assert_int_eq(p9(P9_TUNLINKAT, "dsd", 0, b, 0), EINVAL);
	}
	/* A NUL would cut the name; and a name may be too long. */
	ck_assert_int_eq(p9(P9_TWALK, "ddwwS", 0, 9, 1, 3, "f\0g", 3), EINVAL);
	ck_assert_int_eq(p9(P9_TWALK, "ddwwS", 0, 9, 1, 256, base, 256), EINVAL);
	/* The parent of the root is the root. */
	ck_assert_int_eq(lstat(at("share"), &st), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddwssss", 0, 9, 4, "d", "..", "..", ".."), 0);
	ck_assert_uint_eq(get_le16(BODY), 4);
	for (int i = 1; i < 4; i++)
		ck_assert_uint_eq(get_le64(BODY + 2 + 13 * i + 5), st.st_ino);
}
END_TEST

START_TEST(links_are_not_followed)
{
	ck_assert_int_eq(symlink("..", at("share/up")), 0);
	ck_assert_int_eq(symlink("../secret", at("share/out")), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddwss", 0, 1, 2, "up", "secret"), 0);
	ck_assert_uint_eq(get_le16(BODY), 1);
	ck_assert_uint_eq(BODY[2], 0x02);
	ck_assert_int_eq(p9_open(1, "out", O_RDONLY), ELOOP);
	ck_assert_int_eq(p9_open(1, "out", O_RDWR | O_TRUNC), ELOOP);
	ck_assert_int_eq(p9_create(1, "out", O_RDWR, 0644), ELOOP);
	ck_assert_int_eq(p9_create(1, "out", O_RDWR | O_EXCL, 0644), EEXIST);
	ck_assert_int_eq(p9_walk(0, 1, "out"), 0);
	/* mode, size */
	ck_assert_int_eq(p9(P9_TSETATTR, "dddddqqqqq", 1, 1, 0, 0, 0, 0ull, 0ull, 0ull, 0ull, 0ull),
			 EOPNOTSUPP);
	ck_assert_int_eq(p9(P9_TSETATTR, "dddddqqqqq", 1, 8, 0, 0, 0, 0ull, 0ull, 0ull, 0ull, 0ull),
			 EINVAL);
	ck_assert_int_eq(p9(P9_TMKDIR, "dsdd", 1, "x", 0755, 0), ENOTDIR);
}
END_TEST

START_TEST(moved_away_by_the_host)
{
	ck_assert_int_eq(mkdir(at("share/d"), 0755), 0);
	ck_assert_int_eq(mkdir(at("share/d/e"), 0755), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddwss", 0, 1, 2, "d", "e"), 0);
	ck_assert_int_eq(rename(at("share/d"), at("moved")), 0);
	ck_assert_int_eq(p9_walk(1, 2, ".."), EXDEV);
}
END_TEST

static int racing = 1;

/* "x" is now a directory with a file "secret", now a link to the directory outside. */
static void *race(void *arg)
{
	while (__atomic_load_n(&racing, __ATOMIC_RELAXED)) {
		rename(at("share/link"), at("share/x"));
		if (symlink("..", at("share/link")) < 0 && errno != EEXIST)
			abort();
		unlink(at("share/x"));
		rename(at("share/dir"), at("share/x"));
		rename(at("share/x"), at("share/dir"));
	}
	return NULL;
}

START_TEST(rename_races)
{
	uint64_t inside = 0;
	pthread_t thread;
	struct stat st;

	ck_assert_int_eq(mkdir(at("share/dir"), 0755), 0);
	put_file("share/dir/secret", "public");
	ck_assert_int_eq(lstat(at("share/dir/secret"), &st), 0);
	ck_assert_int_eq(symlink("..", at("share/link")), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, race, NULL), 0);
	for (int i = 0; i < 20000; i++) {
		if (p9(P9_TWALK, "ddwss", 0, 1, 2, "x", "secret") || get_le16(BODY) < 2)
			continue;
		inside++;
		ck_assert_uint_eq(get_le64(BODY + 2 + 13 + 5), st.st_ino);
		ck_assert_int_eq(p9(P9_TWALK, "ddw", 1, 2, 0), 0);
		ck_assert_int_eq(p9_clunk(2), 0);
		ck_assert_int_eq(p9_clunk(1), 0);
		if (p9(P9_TWALK, "ddwss", 0, 3, 2, "x", "..") || get_le16(BODY) < 2)
			continue;
		lstat(at("share"), &st);
		ck_assert_uint_eq(get_le64(BODY + 2 + 13 + 5), st.st_ino);
		lstat(at("share/dir/secret"), &st);
		ck_assert_int_eq(p9_clunk(3), 0);
		break;
	}
	__atomic_store_n(&racing, 0, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}
END_TEST

START_TEST(special_files)
{
	ck_assert_int_eq(mkfifo(at("share/pipe"), 0666), 0);
	ck_assert_int_eq(p9_open(1, "pipe", O_RDONLY), ENXIO); /* and does not wait for a writer */
	ck_assert_int_eq(p9_open(1, "pipe", O_WRONLY), ENXIO);
	ck_assert_int_eq(p9_create(1, "pipe", O_RDWR, 0644), ENXIO);
	/* The host's /proc would hand over other processes, our own first. */
	p9_end();
	fs = (struct fsdev *)make(CLASS_FSDEV, "local", "id=slash,path=/");
	ck_assert_int_eq(p9_session_new(&session, fs), 0);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", MSIZE, "9P2000.L"), 0);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "", 0), 0);
	ck_assert_int_eq(p9_walk(0, 1, "proc"), 0);
	ck_assert_int_eq(p9_walk(1, 2, "self"), EACCES);
	ck_assert_int_eq(p9(P9_TLOPEN, "dd", 1, O_RDONLY), EACCES);
	ck_assert_int_eq(p9(P9_TWALK, "ddwss", 0, 2, 2, "proc", "version"), 0);
	ck_assert_uint_eq(get_le16(BODY), 1);
	ck_assert_int_eq(p9(P9_TWALK, "ddwsss", 0, 2, 3, "dev", "null", "x"), 0);
	ck_assert_int_eq(p9(P9_TWALK, "ddwss", 0, 2, 2, "dev", "null"), 0);
	ck_assert_int_eq(p9(P9_TLOPEN, "dd", 2, O_RDONLY), ENXIO);
	p9_end();
	p9_begin(",multidevs=forbid");
}
END_TEST

START_TEST(mounts_can_be_forbidden)
{
	p9_end();
	fs = (struct fsdev *)make(CLASS_FSDEV, "local", "id=slash,path=/,multidevs=forbid");
	ck_assert_int_eq(p9_session_new(&session, fs), 0);
	ck_assert_int_eq(p9(P9_TVERSION, "ds", MSIZE, "9P2000.L"), 0);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", 0, NOFID, "", "", 0), 0);
	ck_assert_int_eq(p9_walk(0, 1, "proc"), EXDEV);
	ck_assert_int_eq(p9_walk(0, 1, "etc"), 0);
	p9_end();
	p9_begin("");
}
END_TEST

/* --- too much ---------------------------------------------------------------------------------- */

START_TEST(descriptors_have_a_limit)
{
	uint32_t i;

	fs->max_fds = 100;
	for (i = 1; i < 200; i++)
		if (p9_walk(0, i, ".."))
			break;
	ck_assert_uint_eq(i, 100);
	ck_assert_int_eq(p9_walk(0, i, ".."), EMFILE);
	ck_assert_int_eq(p9(P9_TLOPEN, "dd", 1, O_RDONLY), EMFILE);
	ck_assert_int_eq(p9_create(i, "f", O_RDWR, 0644), EMFILE);
	ck_assert_int_eq(p9(P9_TATTACH, "ddssd", i, NOFID, "", "", 0), EMFILE);
	ck_assert_int_eq(p9_clunk(2), 0);
	ck_assert_int_eq(p9(P9_TLOPEN, "dd", 1, O_RDONLY), 0);
	/* Clones share a descriptor; the table of fids has a limit of its own. */
	for (i = 1000; i < 50000; i++)
		ck_assert_int_eq(p9(P9_TWALK, "ddw", 0, i, 0), 0);
	ck_assert_uint_eq(fs->nfds, 100);
}
END_TEST

/* --- nonsense ---------------------------------------------------------------------------------- */

START_TEST(bad_messages)
{
	static const char zeroes[17000];
	static struct p9_msg m, r;
	struct iovec iov[2] = {{m.data, sizeof(m.data)}, {r.data, sizeof(r.data)}};
	struct p9_request req = {iov, iov + 1, 1, 1, sizeof(m.data), sizeof(r.data)};
	struct p9_header h;

	p9_build(&m, P9_TGETATTR, 1, "dq", 0, 0ull);
	for (uint32_t size = 0; size < 7; size++) {
		put_le32(m.data, size);
		ck_assert_ptr_nonnull(p9_header(&req, &h));
	}
	put_le32(m.data, sizeof(m.data) + 1);
	ck_assert_ptr_nonnull(p9_header(&req, &h));
	put_le32(m.data, 19);
	ck_assert_ptr_null(p9_header(&req, &h));
	req.in_len = iov[1].iov_len = 10;
	ck_assert_ptr_nonnull(p9_header(&req, &h));
	/* Room for an error, but not for the answer. */
	req.in_len = iov[1].iov_len = 20;
	ck_assert_ptr_null(p9_header(&req, &h));
	ck_assert_uint_eq(p9_serve(session, &req, &h), 11);
	ck_assert_uint_eq(get_le32(r.data + 7), EMSGSIZE);
	req.nout = 0;
	ck_assert_ptr_nonnull(p9_header(&req, &h));
	req.nout = 1;
	/* Cut off at each place: an error, and nothing happens. */
	for (uint32_t cut = 7; cut < 22; cut++) {
		p9_build(&m, P9_TMKDIR, 1, "dsdd", 0, "d", 0755, getegid());
		ck_assert_uint_eq(m.len, 22);
		m.len = cut;
		put_le32(m.data, cut);
		p9_exchange(&m, &r);
		ck_assert_uint_eq(r.data[4], 7);
		ck_assert(!exists("share/d"));
	}
	/* Longer than agreed on, and longer than any but a write can be. */
	ck_assert_int_eq(p9(P9_TVERSION, "ds", 16384, "9P2000.L"), 0);
	ck_assert_int_eq(p9(P9_TSTATFS, "dS", 0, zeroes, 9000), ENAMETOOLONG);
	ck_assert_int_eq(p9(P9_TSTATFS, "dS", 0, zeroes, 17000), EMSGSIZE);
}
END_TEST

static const uint8_t types[] = {
	P9_TSTATFS,   P9_TLOPEN,   P9_TLCREATE, P9_TSYMLINK,   P9_TMKNOD,	P9_TRENAME,
	P9_TREADLINK, P9_TGETATTR, P9_TSETATTR, P9_TXATTRWALK, P9_TXATTRCREATE, P9_TREADDIR,
	P9_TFSYNC,    P9_TLOCK,	   P9_TGETLOCK, P9_TLINK,      P9_TMKDIR,	P9_TRENAMEAT,
	P9_TUNLINKAT, P9_TATTACH,  P9_TFLUSH,	P9_TWALK,      P9_TREAD,	P9_TWRITE,
	P9_TCLUNK,    P9_TREMOVE,  P9_TWALK,	P9_TLCREATE,   P9_TMKDIR,	P9_TXATTRWALK,
};

static uint32_t some_number(unsigned int *seed)
{
	switch (rand_r(seed) % 6) {
	case 0:
		return rand_r(seed) % 100000;
	case 1:
		return -1u - rand_r(seed) % 3;
	default:
		return rand_r(seed) % 12; /* fids there are */
	}
}

/* A message of fields that could be right, in a random order. */
static void random_message(struct p9_msg *m, unsigned int *seed)
{
	static const char *const names[] = {"a", "b",	   "c", "..", "../secret",
					    "",	 "user.x", "/", "."};
	uint8_t type = types[rand_r(seed) % sizeof(types)], *p = m->data + 7;
	unsigned int n = rand_r(seed) % 7;

	put_le32(p, some_number(seed));
	p += 4;
	if (rand_r(seed) % 2) {
		put_le32(p, some_number(seed));
		p += 4;
	}
	if (type == P9_TWALK) {
		put_le16(p, n);
		p += 2;
	}
	for (unsigned int i = 0; i < n; i++) {
		const char *name = names[rand_r(seed) % ARRAY_SIZE(names)];

		if (rand_r(seed) % 2 || type == P9_TWALK) {
			put_le16(p, strlen(name) + (rand_r(seed) % 50 ? 0 : 9));
			memcpy(p + 2, name, strlen(name));
			p += 2 + strlen(name);
		} else {
			put_le32(p, some_number(seed));
			p += 4;
		}
	}
	for (unsigned int i = rand_r(seed) % 8; i; i--) {
		put_le32(p, rand_r(seed) % 3 ? 0 : some_number(seed));
		p += 4;
	}
	m->len = p - m->data;
	put_le32(m->data, m->len);
	m->data[4] = type;
	put_le16(m->data + 5, rand_r(seed));
}

/* Check's assertions are for one thread. */
static int malformed;
static int succeeded[256]; /* by type */

/* Something that makes sense, so that there is something to play with. */
static void sensible_message(struct p9_msg *m, unsigned int *seed)
{
	static const char *const names[] = {"a", "b", "c"};
	uint32_t a = rand_r(seed) % 12, b = rand_r(seed) % 12, flags = rand_r(seed) % 3;
	const char *name = names[rand_r(seed) % 3], *other = names[rand_r(seed) % 3];

	switch (rand_r(seed) % 13) {
	case 0:
		p9_build(m, P9_TATTACH, 1, "ddssd", a, NOFID, "", "", 0);
		break;
	case 1:
		p9_build(m, P9_TWALK, 1, "ddws", a, b, 1, name);
		break;
	case 2:
		p9_build(m, P9_TLOPEN, 1, "dd", a, flags);
		break;
	case 3:
		p9_build(m, P9_TLCREATE, 1, "dsddd", a, name, flags, 0777, 0);
		break;
	case 4:
		p9_build(m, P9_TMKDIR, 1, "dsdd", a, name, 0777, 0);
		break;
	case 5:
		p9_build(m, P9_TSYMLINK, 1, "dssd", a, name, "../secret", 0);
		break;
	case 6:
		p9_build(m, P9_TMKNOD, 1, "dsdddd", a, name, S_IFIFO | 0777, 0, 0, 0);
		break;
	case 7:
		p9_build(m, P9_TRENAMEAT, 1, "dsds", a, name, b, other);
		break;
	case 8:
		p9_build(m, P9_TUNLINKAT, 1, "dsd", a, name, 0);
		break;
	case 9:
		p9_build(m, P9_TLINK, 1, "dds", a, b, name);
		break;
	case 10:
		p9_build(m, P9_TXATTRCREATE, 1, "dsqd", a, "user.x", (uint64_t)flags, 0);
		break;
	case 11:
		p9_build(m, P9_TREADLINK, 1, "d", a);
		break;
	default:
		p9_build(m, flags ? P9_TREAD : P9_TREADDIR, 1, "dqd", a, 0ull, 500);
	}
}

static void *fuzz(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	struct p9_msg *m = calloc(2, sizeof(*m)), *r = m + 1;

	for (int i = 0; i < 20000; i++) {
		if (rand_r(&seed) % 2)
			random_message(m, &seed);
		else
			sensible_message(m, &seed);
		if (!p9_try(m, r))
			__atomic_add_fetch(&malformed, 1, __ATOMIC_RELAXED);
		else if (r->data[4] != P9_RLERROR)
			__atomic_add_fetch(&succeeded[m->data[4]], 1, __ATOMIC_RELAXED);
	}
	free(m);
	return NULL;
}

/* Several clients' worth of it at once, on the same fids. Sizes of files are bounded by what they can say. */
START_TEST(random_messages)
{
	static const uint8_t sure[] = {P9_TATTACH, P9_TWALK,	P9_TLOPEN,    P9_TLCREATE,
				       P9_TMKDIR,  P9_TREADDIR, P9_TUNLINKAT, P9_TGETATTR};
	const struct rlimit limit = {1 << 20, RLIM_INFINITY};
	pthread_t threads[3];

	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &limit);
	for (uintptr_t i = 0; i < ARRAY_SIZE(threads); i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, fuzz, (void *)(i + 1)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(malformed, 0);
	/* They were not all refused at the door. */
	for (size_t i = 0; i < sizeof(sure); i++)
		ck_assert_msg(succeeded[sure[i]] > 0, "type %d", sure[i]);
	ck_assert_str_eq(file_text("secret"), "secret");
}
END_TEST

int main(void)
{
	Suite *s = suite_create("9p bad");
	TCase *tc = tcase_create("hostile");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 120);
	tcase_add_test(tc, names_lead_nowhere);
	tcase_add_test(tc, links_are_not_followed);
	tcase_add_test(tc, moved_away_by_the_host);
	tcase_add_test(tc, rename_races);
	tcase_add_test(tc, special_files);
	tcase_add_test(tc, mounts_can_be_forbidden);
	tcase_add_test(tc, descriptors_have_a_limit);
	tcase_add_test(tc, bad_messages);
	tcase_add_test(tc, random_messages);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_ENV);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed ? 1 : 0;
}
