# SPDX-License-Identifier: GPL-2.0-only
"""What a tile's image holds for its services to serve: the same everywhere, so that who loads them knows it."""
import base64
import functools
import random

PAGES = {**{f'{i}.html': 4 << 10 for i in range(60)}, **{f'{i}.jpg': 64 << 10 for i in range(20)}, **{f'{i}.bin': 512 << 10 for i in range(4)}}
MAIL_USERS, MAIL_MESSAGES = 20, 30
JOB_SIZE = 256 << 10


@functools.lru_cache(maxsize=256)
def content(name, size):
    """The same bytes for a name everywhere, and not compressible."""
    return random.Random(name).randbytes(size)


def job_text():
    """What the batch job compresses: words."""
    r = random.Random('job')
    words = [''.join(r.choices('abcdefghijklmnopqrstuvwxyz', k=r.randint(2, 10))) for _ in range(3000)]
    return ' '.join(r.choices(words, k=JOB_SIZE // 4)).encode()[:JOB_SIZE]


def mail_user(number):
    """A user's name."""
    return f'user{number}'


def message(user, number):
    """A message of 2 to 20 KiB, with lines as the file has them."""
    text = base64.encodebytes(content(f'mail {user} {number}', random.Random(number).randrange(1500, 15000)))
    return b'From: a@tile\nTo: %s@tile\nSubject: message %d\nDate: Mon, 1 Jan 2024 00:00:00 +0000\n\n' % (mail_user(user).encode(), number) + text
