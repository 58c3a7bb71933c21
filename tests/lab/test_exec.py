# SPDX-License-Identifier: GPL-2.0-only
"""hako exec: a command in a guest over this machine's own files."""
import contextlib
import fcntl
import functools
import hashlib
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import tempfile
import termios
import time

import guest


def kernel(lab):
    """The kernel with 9P; unpacked, if that has been done, which saves time in emulation."""
    packed = lab.pieces.paths['kernel-amd64']
    plain = os.path.join(os.path.dirname(packed), 'vmlinux')
    return plain if os.path.exists(plain) else packed


def command(lab, *args, options=()):
    """The command line."""
    if lab.vmm != 'hako':
        raise guest.Skip(f'{lab.vmm} has no exec')
    program = os.environ.get('HAKO') or os.path.join(guest.TOP, 'build', 'hako')
    return [program, 'exec', '--kernel', kernel(lab), '--memory', '256M', *options, '--', *args]


def environment(lab):
    """The caller's, with a cache of its own."""
    return {**os.environ, 'XDG_CACHE_HOME': os.path.join(lab.pieces.scratch, lab.name)}


def run(lab, *args, options=(), data=b'', cwd=None):
    """Run to the end: a subprocess.CompletedProcess."""
    line = command(lab, *args, options=options)
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
                          env=environment(lab)) as p:
        try:
            out, err = p.communicate(data, timeout=180)
        except subprocess.TimeoutExpired:
            # The third ends the guest, or the first if nobody takes them yet; then the guest's last words are told.
            for _ in range(3):
                p.terminate()
                time.sleep(1)
            try:
                out, err = p.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                p.kill()
                out, err = p.communicate()
            err += b' (ended after 180 s)'
    lab.saw(err)
    return subprocess.CompletedProcess(line, p.returncode, out, err)


@contextlib.contextmanager
def directory():
    """A directory that a guest finds at the same place."""
    path = tempfile.mkdtemp(prefix='hako-exec.', dir='/tmp')
    try:
        yield path
    finally:
        shutil.rmtree(path)


def said(p):
    """What went wrong, on a line."""
    return f'status {p.returncode}, output {p.stdout[-300:]!r}, errors {p.stderr[-900:]!r}'


def long(test):
    """Mark a test as one for those who ask for it: few of them in emulation, where a guest takes its time."""
    test.long = True
    return test


@long
def status(lab):
    """The status of a command that fails, and of one that is not there; the cache is used again."""
    p = run(lab, 'false')
    lab.ok('false', p.returncode == 1 and not p.stdout and not p.stderr, said(p))
    folder = os.path.join(lab.pieces.scratch, lab.name, 'hako')
    before = {x: os.stat(os.path.join(folder, x)).st_ino for x in os.listdir(folder)}
    p = run(lab, 'no-such-command')
    lab.ok('not-found', p.returncode == 127 and b'no-such-command: No such file' in p.stderr, said(p))
    after = {x: os.stat(os.path.join(folder, x)).st_ino for x in os.listdir(folder)}
    lab.ok('cache', before == after and any(x.endswith('.cpio') for x in before), f'{before} {after}')


def streams(lab):
    """Binary input, output and errors apart, directory, environment, status; what it writes is not kept."""
    data = hashlib.shake_128(b'input').digest(4 << 20)
    with directory() as d:
        os.environ['HAKO_TEST'] = 'a "b" $c\n'
        p = run(lab, 'sh', '-c', 'pwd; printf "%s" "$HAKO_TEST" | sha256sum; id -u; sha256sum | tee kept; tail -c 100000 '
                '/proc/self/exe | sha256sum; echo err >&2; kill -9 1; (sleep 60 &) ; exit 7', data=data, cwd=d)
        words = p.stdout.decode().split()
        lab.ok('status', p.returncode == 7, said(p))
        lab.ok('directory', words[:1] == [d], said(p))
        lab.ok('environment', hashlib.sha256(os.environ['HAKO_TEST'].encode()).hexdigest() in words, said(p))
        lab.ok('input', hashlib.sha256(data).hexdigest() in words, said(p))
        lab.ok('errors', p.stderr == b'err\n', said(p))
        lab.ok('lost', not os.listdir(d), f'{os.listdir(d)}')


@long
def output(lab):
    """Some MiB of output come whole, and a reader that goes away ends the command."""
    with subprocess.Popen(command(lab, 'sh', '-c', 'head -c 8388608 /dev/zero; yes; echo end $? >&2'), env=environment(lab),
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
        data = p.stdout.read(8 << 20)
        lab.ok('whole', len(data) == 8 << 20 and not data.strip(b'\0'), f'{len(data)} bytes')
        p.stdout.read(10)
        p.stdout.close()
        try:
            errors = p.stderr.read()
            lab.ok('pipe', p.wait(60) == 0 and b'end 141' in errors, f'{p.returncode} {errors!r}')
        finally:
            p.kill()


@long
def signals(lab):
    """SIGINT reaches the command, which may handle it; SIGTERM ends one that does not."""
    for name, script, number, want in (
            ('interrupt', 'trap "echo got; exit 5" INT; echo ready; while :; do sleep 0.1; done', signal.SIGINT, 5),
            ('terminate', 'echo ready; exec sleep 100', signal.SIGTERM, 143)):
        with subprocess.Popen(command(lab, 'sh', '-c', script), env=environment(lab), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as p:
            try:
                line = p.stdout.readline()
                p.send_signal(number)
                out, err = p.communicate(timeout=60)
                lab.ok(name, line == b'ready\n' and p.returncode == want,
                       f'{line!r} {out!r} {err!r} status {p.returncode}')
            finally:
                p.kill()


@long
def panic(lab):
    """A kernel that panics: a status of its own, and the last words."""
    p = run(lab, 'sh', '-c', 'echo c >/proc/sysrq-trigger')
    lab.ok('status', p.returncode == 125, said(p))
    lab.ok('words', b'Kernel panic' in p.stderr, said(p))


@long
def terminal(lab):
    """On a terminal: its size, a change of it, keys."""
    args = command(lab, 'sh', '-c', 'test -t 0 -a -t 1 -a -t 2 && stty size; trap "stty size; exit 9" WINCH; '
                   'echo ready; while :; do sleep 0.1; done')
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe(args[0], args, environment(lab))
    text = b''
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('4H', 33, 77, 0, 0))
        deadline, resized = time.monotonic() + 120, False
        while time.monotonic() < deadline and select.select([fd], [], [], 120)[0]:
            try:
                data = os.read(fd, 4096)
            except OSError:
                break
            text += data
            if b'ready' in text and not resized:
                fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack('4H', 44, 99, 0, 0))
                resized = True
    finally:
        os.close(fd)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lab.ok('size', re.search(rb'33 77\r*\n', text) is not None, f'{text[-300:]!r}')
    lab.ok('resize', re.search(rb'44 99\r*\n', text) is not None and code == 9, f'{code} {text[-300:]!r}')


# Starting a process takes its time in emulation twice over: few of them.
ATTACK = '''
set -e
cd rw
mkdir d2 d3 d4 d5 d6
for i in 2 3 4 5 6; do for j in 1 2 3; do echo $i$j >d$i/f$j; done; done
mv d2 d3/in; ln d3/f1 d3/hard; rm -r d4; chmod 4711 d5/f1; truncate -s 100 d5/f2; touch -d @1000000000 d5/f3
mkfifo pipe; ln -s f1 d6/soft; rmdir nothing 2>/dev/null || echo still here
fio --verify=crc32c --thread --size=1m --bs=4k-64k --minimal --name=mapped --ioengine=mmap --rw=randwrite \\
    --name=plain --ioengine=psync --rw=randrw --fsync=16 --nrfiles=4 >/dev/null
rm -f mapped* plain*
# Out of the share: what is written through these goes to the guest's own files.
ln -s ../secret out; echo changed >out
ln -s .. up; echo changed >up/secret
mkdir swap; echo >swap/secret
(for i in 1 2 3 4 5; do mv -T swap was; ln -s .. swap; mv -T swap link; mv -T was swap; done) &
while [ -e /proc/$! ]; do echo changed >swap/secret || :; done 2>/dev/null
mknod disk b 8 0 2>/dev/null && echo a device node was made
read line <../secret
echo $line
'''


@long
def root(lab):
    """The whole root may be written, but for what is the guest's own."""
    with directory() as d:
        p = run(lab, 'sh', '-c', 'echo kept >kept; mkdir /run/lost && echo >/run/lost/x; ls -d /proc/self /sys/kernel /dev/null | wc -l',
                options=['--rw', '/'], cwd=d)
        lab.ok('status', p.returncode == 0 and p.stdout == b'3\n', said(p))
        lab.ok('kept', os.listdir(d) == ['kept'] and not os.path.exists('/run/lost'), f'{os.listdir(d)}')


@long
def share(lab):
    """A directory that may be written: work in it, verified; and nothing of the host beside it is touched."""
    with directory() as d:
        os.mkdir(os.path.join(d, 'rw'))
        with open(os.path.join(d, 'secret'), 'w', encoding='ascii') as f:
            f.write('secret\n')
        p = run(lab, 'sh', '-c', ATTACK, options=['--rw', os.path.join(d, 'rw')], cwd=d)
        lab.ok('work', p.returncode == 0 and p.stdout == b'still here\nchanged\n', said(p))
        with open(os.path.join(d, 'secret'), encoding='ascii') as f:
            lab.ok('confined', f.read() == 'secret\n', 'a file outside was changed')
        at = functools.partial(os.path.join, d, 'rw')
        with open(at('d3/in/f3'), encoding='ascii') as f:
            good = f.read() == '23\n'
        lab.ok('kept', good and os.stat(at('d3/hard')).st_nlink == 2 and not os.path.exists(at('d4')) and
               os.stat(at('d5/f1')).st_mode & 0o7777 == 0o4711 and os.stat(at('d5/f2')).st_size == 100 and
               os.stat(at('d5/f3')).st_mtime == 1000000000 and os.readlink(at('d6/soft')) == 'f1' and
               not os.path.exists(at('disk')), str(sorted(os.listdir(at('.')))))


def digest(path):
    """A file's SHA-256."""
    with open(path, 'rb') as f:
        return hashlib.file_digest(f, 'sha256').hexdigest() if hasattr(hashlib, 'file_digest') else hashlib.sha256(f.read()).hexdigest()


def image(lab):
    """A disk image as the root: its own programs, and what is written is lost."""
    path = lab.pieces.paths['root']
    before = digest(path)
    script = 'cat /srv/cgi-bin/done; echo new >/srv/new; echo more >>/srv/cgi-bin/done; cat /srv/new; mount'
    p = run(lab, '/bin/sh', '-c', script, options=['--root', path, '--sandbox', 'strict'])
    lab.ok('status', p.returncode == 0, said(p))
    lab.ok('files', p.stdout.startswith(b'#!/bin/sh\necho "$REMOTE_ADDR"') and b'\nnew\n' in p.stdout, said(p))
    lab.ok('not-shared', b' type 9p ' not in p.stdout and b'overlay on / ' in p.stdout, said(p))
    lab.ok('unchanged', digest(path) == before, 'the image was written to')
    with tempfile.NamedTemporaryFile() as f:
        f.truncate(1 << 20)
        p = run(lab, 'true', options=['--root', f.name])
        lab.ok('empty', p.returncode == 125 and b'no file system' in p.stderr, said(p))


def large(lab):
    """100 MiB of binary input and output."""
    data = hashlib.shake_128(b'large').digest(100 << 20)
    begin = time.monotonic()
    p = run(lab, 'cat', data=data)
    lab.lines.append(f'# {lab.name}: 100 MiB there and back in {time.monotonic() - begin:.0f} s')
    lab.ok('cat', p.returncode == 0 and p.stdout == data, f'{said(p)}, {len(p.stdout)} bytes')


TESTS = [('exec.status', status), ('exec.image', image), ('exec.large', large), ('exec.streams', streams), ('exec.output', output), ('exec.signals', signals),
         ('exec.panic', panic), ('exec.terminal', terminal), ('exec.share', share), ('exec.root', root)]
