# SPDX-License-Identifier: GPL-2.0-only
"""
What loads a tile's guests from outside: each workload's operations, begun at times that are drawn beforehand, the same for every
VMM, whether or not those before have ended. A response time counts from the time at which the operation
was to begin, so that what a slow guest delays is not left out; what comes back is compared with what was put in.
"""
import functools
import hashlib
import http.client
import imaplib
import json
import math
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time

from tiles_content import MAIL_MESSAGES, MAIL_USERS, PAGES, content, job_text, mail_user, message

STORE_KEYS, STORE_SIZE = 2000, 4 << 10
PATIENCE = 60  # s until an answer is given up


# --- the operations ----------------------------------------------------------------------------


class Wrong(Exception):
    """An answer that is not what it has to be."""


class Web:
    """A static file over a connection that stays."""
    workers = 8

    def __init__(self, address, port=80):
        self.http = http.client.HTTPConnection(address, port, timeout=PATIENCE)

    def get(self, path):
        """What a path has."""
        self.http.request('GET', path)
        answer = self.http.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise Wrong(f'{path}: status {answer.status}')
        return body

    def operation(self, r):
        """Small files most often."""
        ending = r.choices(('.html', '.jpg', '.bin'), (70, 27, 3))[0]
        name = r.choice([name for name in PAGES if name.endswith(ending)])
        if self.get('/' + name) != content(name, PAGES[name]):
            raise Wrong(f'{name} differs')

    def close(self):
        """The end of the connection."""
        self.http.close()


class Idle(Web):
    """A sign of life."""
    workers = 2

    def operation(self, r):
        """It takes a connection of its own."""
        if self.get('/alive') != b'alive\n':
            raise Wrong('not alive')
        self.http.close()


class Batch(Web):
    """A job for the guest's CPU."""
    workers = 2

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def result():
        """What comes out."""
        return hashlib.sha256(job_text()).hexdigest().encode()

    def operation(self, r):
        """A job from start to end."""
        if self.get('/cgi-bin/batch').split()[:1] != [self.result()]:
            raise Wrong('the job went wrong')
        self.http.close()


class Mail:
    """A session over IMAP: log in, look for the unseen, fetch three messages, store one."""
    workers = 4

    def __init__(self, address):
        self.address = address

    @staticmethod
    def ok(answer):
        """What is answered, if it is OK."""
        if answer[0] != 'OK':
            raise Wrong(f'IMAP: {answer}'[:200])
        return answer[1]

    def operation(self, r):
        """One session."""
        user = r.randrange(MAIL_USERS)
        imap = imaplib.IMAP4(self.address, 143, timeout=PATIENCE)
        try:
            self.ok(imap.login(mail_user(user), 'tile'))
            count = int(self.ok(imap.select())[0])
            if count < MAIL_MESSAGES:
                raise Wrong(f'{count} messages')
            self.ok(imap.search(None, 'UNSEEN'))
            for number in r.sample(range(MAIL_MESSAGES), 3):
                body = self.ok(imap.fetch(str(number + 1), '(BODY.PEEK[])'))[0][1]
                if body.replace(b'\r\n', b'\n') != message(user, number):
                    raise Wrong(f'message {number} differs')
            self.ok(imap.append('INBOX', None, None, message(user, r.randrange(1000, 2000))))
        finally:
            imap.logout()

    def close(self):
        """Nothing stays."""


class Store:
    """redis: values put and got; what a connection has put it has to get."""
    workers = 4

    def __init__(self, address):
        self.socket = socket.create_connection((address, 6379), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile('rb')
        self.mine = random.randrange(1 << 60)
        self.known = {}

    def call(self, *args):
        """A command in redis's protocol (RESP): its answer."""
        self.socket.sendall(b'*%d\r\n' % len(args) + b''.join(b'$%d\r\n%s\r\n' % (len(x), x) for x in args))
        line = self.file.readline()
        if line[:1] != b'$':
            return line.strip()
        size = int(line[1:])
        return None if size < 0 else self.file.read(size + 2)[:-2]

    def operation(self, r):
        """Four of five read."""
        number = r.randrange(STORE_KEYS)
        key = b'%d.%d' % (self.mine, number)
        if key in self.known and r.random() < 0.8:
            if self.call(b'GET', key) != self.known[key]:
                raise Wrong('a value differs')
            return
        value = r.randbytes(STORE_SIZE)
        if self.call(b'SET', key, value) != b'+OK':
            raise Wrong('SET')
        self.known[key] = value

    def close(self):
        """The end of the connection."""
        self.file.close()
        self.socket.close()


OPERATIONS = {'web': Web, 'mail': Mail, 'store': Store, 'batch': Batch, 'idle': Idle}


# --- the load ----------------------------------------------------------------------------------


class Load:
    """Operations of one kind at a rate, by some threads with a connection each."""

    def __init__(self, kind, where, rate, seconds, begin):
        self.kind, self.where = OPERATIONS[kind], where  # address, and a port if it is not the usual one
        r = random.Random(kind)
        self.times = [begin + (i + r.random()) / rate for i in range(int(rate * seconds))]
        self.lock, self.next = threading.Lock(), 0
        self.found = []  # when it was to begin, seconds it took, what went wrong

    def work(self, number):
        """A thread: take the next time, wait for it, operate."""
        r, connection = random.Random(f'{self.kind.__name__} {number}'), None
        while True:
            with self.lock:
                if self.next == len(self.times):
                    break
                at = self.times[self.next]
                self.next += 1
            time.sleep(max(0, at - time.monotonic()))
            wrong = None
            try:
                connection = connection or self.kind(*self.where)
                connection.operation(r)
            except (OSError, Wrong, imaplib.IMAP4.error, http.client.HTTPException, ValueError, TypeError, IndexError) as e:
                wrong = f'{type(e).__name__}: {e}'
                if connection:
                    connection.close()
                connection = None
            self.found.append((at, time.monotonic() - at, wrong))
        if connection:
            connection.close()

    def run(self):
        """All of it."""
        threads = [threading.Thread(target=self.work, args=(i,)) for i in range(self.kind.workers)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        if len(self.found) != len(self.times):
            raise Wrong('a thread has failed')
        return self.found


def pgbench(command, address, rate, end):
    """pgbench's own transactions (TPC-B like), begun at a rate, and what it writes of each: from now on, since it takes its time to connect."""
    offset = time.time() - time.monotonic()
    seconds = math.ceil(end - time.monotonic()) + 2
    with tempfile.TemporaryDirectory(prefix='hako-bench-') as folder:
        p = subprocess.run([*command, '-h', address, '-U', 'postgres', '-n', '-c', '2', '-R', str(rate), '-T', str(seconds), '-l',
                            '--log-prefix', folder + '/log', '--random-seed', '1', 'bench'],
                           stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds + 2 * PATIENCE)
        found = []
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), encoding='ascii') as f:
                for line in f:
                    _, _, took, _, second, us, *_ = line.split()
                    # With a rate the time counts from when it was to begin.
                    at = int(second) + int(us) / 1e6 - int(took) / 1e6 - offset
                    found.append((at, int(took) / 1e6, None))
    if p.returncode or not found:
        said = p.stderr.strip().splitlines() or ['']
        found.append((end - 0.1, 0, f'pgbench: exit status {p.returncode}: {said[-1]}'))
    return found


def main():
    """tiles_load.py JSON: load one guest, and print what it found as JSON."""
    a = json.loads(sys.argv[1])
    if a['kind'] == 'database':
        found = pgbench(a['pgbench'], a['address'], a['rate'], a['begin'] + a['seconds'])
    else:
        found = Load(a['kind'], [a['address'], *([a['port']] if 'port' in a else [])], a['rate'], a['seconds'], a['begin']).run()
    json.dump(found, sys.stdout)


if __name__ == '__main__':
    main()
