/* SPDX-License-Identifier: GPL-2.0-only */
/* The table of a 9P client's fids. */
#include <stdlib.h>

#include "p9_impl.h"

#define BUCKETS_MIN 64

static struct p9_fid **bucket_of(const struct p9_session *s, uint32_t num)
{
	return &s->buckets[(num * 2654435761u) >> 7 & (s->nbuckets - 1)];
}

/* With the lock held: where the fid's pointer is, *that is NULL if there is none. */
static struct p9_fid **slot_of(const struct p9_session *s, uint32_t num)
{
	struct p9_fid **p = bucket_of(s, num);

	while (*p && (*p)->num != num)
		p = &(*p)->next;
	return p;
}

/* With the lock held. Without memory the table goes on as it is. */
static void grow(struct p9_session *s)
{
	uint32_t n = s->nbuckets ? s->nbuckets * 2 : BUCKETS_MIN, old = s->nbuckets;
	struct p9_fid **from = s->buckets, **to;

	if (s->nfids < old)
		return;
	to = calloc(n, sizeof(*to));
	if (!to)
		return;
	s->buckets = to;
	s->nbuckets = n;
	for (uint32_t i = 0; i < old; i++) {
		for (struct p9_fid *fid = from[i], *next; fid; fid = next) {
			struct p9_fid **p = bucket_of(s, fid->num);

			next = fid->next;
			fid->next = *p;
			*p = fid;
		}
	}
	free(from);
}

int p9_fid_new(struct p9_session *s, enum p9_fid_kind kind, uint32_t num, uint32_t uid,
	       struct fs_node *node, struct p9_fid **out)
{
	struct p9_fid *fid = calloc(1, sizeof(*fid));

	if (!fid)
		return -ENOMEM;
	*fid = (struct p9_fid){
		.num = num,
		.refs = 1,
		.kind = kind,
		.uid = uid,
		.fd = -1,
	};
	if (kind != P9_FID_FILE) {
		fid->xattr = calloc(1, sizeof(*fid->xattr));
		if (!fid->xattr) {
			free(fid);
			return -ENOMEM;
		}
		if (__atomic_add_fetch(&s->nxattrs, 1, __ATOMIC_RELAXED) > P9_XATTR_FIDS_MAX) {
			__atomic_sub_fetch(&s->nxattrs, 1, __ATOMIC_RELAXED);
			free(fid->xattr);
			free(fid);
			return -EMFILE;
		}
	}
	fid->node = node;
	pthread_mutex_init(&fid->lock, NULL);
	*out = fid;
	return 0;
}

static void fid_free(struct p9_session *s, struct p9_fid *fid)
{
	if (fid->fd >= 0)
		fs_close(s->fs, fid->fd);
	fs_node_put(s->fs, fid->node);
	if (fid->xattr) {
		__atomic_sub_fetch(&s->nxattrs, 1, __ATOMIC_RELAXED);
		free(fid->xattr->value);
		free(fid->xattr);
	}
	pthread_mutex_destroy(&fid->lock);
	free(fid);
}

void p9_fid_put(struct p9_session *s, struct p9_fid *fid)
{
	bool last;

	if (!fid)
		return;
	pthread_mutex_lock(&s->lock);
	last = --fid->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (last)
		fid_free(s, fid);
}

int p9_fid_find(struct p9_session *s, uint32_t num, struct p9_fid **fid)
{
	pthread_mutex_lock(&s->lock);
	*fid = s->nbuckets ? *slot_of(s, num) : NULL;
	if (*fid)
		(*fid)->refs++;
	pthread_mutex_unlock(&s->lock);
	return *fid ? 0 : -EBADF;
}

int p9_get_fid(struct p9_call *c, enum p9_fid_kind kind, struct p9_fid **fid)
{
	int ret = p9_fid_find(c->s, p9_get32(c), fid);

	if (ret || (*fid)->kind == kind)
		return ret;
	p9_fid_put(c->s, *fid);
	*fid = NULL;
	return -EBADF;
}

int p9_fid_publish(struct p9_session *s, struct p9_fid *fid, const struct p9_fid *old)
{
	struct p9_fid **slot, *gone = NULL;
	int ret = 0;

	if (fid->num == P9_NOFID)
		return -EINVAL;
	pthread_mutex_lock(&s->lock);
	grow(s);
	slot = s->nbuckets ? slot_of(s, fid->num) : NULL;
	if (!slot) {
		ret = -ENOMEM;
	} else if (*slot != old) {
		ret = -EINVAL;
	} else if (old) {
		gone = *slot;
		fid->next = gone->next;
		*slot = fid;
	} else if (s->nfids >= P9_FIDS_MAX) {
		ret = -EMFILE;
	} else {
		s->nfids++;
		fid->next = NULL;
		*slot = fid;
	}
	pthread_mutex_unlock(&s->lock);
	p9_fid_put(s, gone);
	return ret;
}

int p9_fid_take(struct p9_session *s, uint32_t num, struct p9_fid **fid)
{
	struct p9_fid **slot;

	*fid = NULL;
	pthread_mutex_lock(&s->lock);
	slot = s->nbuckets ? slot_of(s, num) : NULL;
	if (slot && *slot) {
		*fid = *slot;
		*slot = (*fid)->next;
		s->nfids--;
	}
	pthread_mutex_unlock(&s->lock);
	return *fid ? 0 : -EBADF;
}

void p9_fid_clear(struct p9_session *s)
{
	for (uint32_t i = 0; i < s->nbuckets; i++) {
		for (struct p9_fid *fid = s->buckets[i], *next; fid; fid = next) {
			next = fid->next;
			fid_free(s, fid);
		}
	}
	free(s->buckets);
	s->buckets = NULL;
	s->nbuckets = s->nfids = 0;
}

int p9_fid_fd(struct p9_fid *fid)
{
	int fd;

	pthread_mutex_lock(&fid->lock);
	fd = fid->fd;
	pthread_mutex_unlock(&fid->lock);
	return fd >= 0 ? fd : -EBADF;
}
