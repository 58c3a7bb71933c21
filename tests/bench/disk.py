# SPDX-License-Identifier: GPL-2.0-only
"""
4 KiB random reads at depth 32 of a raw image, by the driver of the bare-metal guest (tests/guest/t_blk.c, polling),
from the page cache and past it (O_DIRECT); and fio with its io_uring engine on the same file.
"""
import json
import os
import re
import resource
import shutil
import subprocess
import tempfile

import start
from measure import PROGRAMS, Failure, Spec, hako_base, metrics, present, qemu_base, rotated

DEPTH = 32
HOW = {'cached': 1.3, 'direct': 1}  # and what is promised in terms of QEMU
METRICS = tuple(spec for how, factor in HOW.items() for spec in (
    *(Spec(f'disk.{how}.{board}', f'4 KiB random reads, depth {DEPTH}, {how}, {board}', 'thousand/s', better='higher', limit='fio',
           promises=((peer, '>=', factor),) + ((('fio', '>=', 0.85),) if how == 'direct' else ()))
      for board, peer in (('micro', 'QEMU microvm'), ('q35', 'QEMU q35'))),
    Spec(f'disk.{how}.cpu', f'CPU time per request of VMM and guest, {how}', 'us', limit='fio', digits=2),
    Spec(f'disk.{how}.calls', f'system calls per request but KVM_RUN, {how}', 'calls', digits=3, steady=how == 'cached',
         promises=((None, '<=', 0.2),) if how == 'cached' else ()),
))


def hako(a, board, direct, seconds, text, extra=''):
    """hako's command line."""
    cache = 'none' if direct else 'writeback'
    bus = 'pci' if board == 'q35' else 'mmio'
    return hako_base(a.hako, board) + [
        '--kernel', os.path.join(a.build, 'guest', 'guest.elf'), '--net', 'none', '--console', 'none',
        '--append', f'test=blkbench secs={seconds} depth={DEPTH} transport={bus}{extra}',
        '--chardev', f'file,id=text,path={text}', '--device', 'isa-debugcon,iobase=0xe9,chardev=text',
        '--iothread', 'io0', '--disk', f'{a.disk},format=raw,cache={cache},iothread=io0']


def qemu(a, board, direct, seconds, text, extra=''):
    """QEMU's."""
    cache = 'none' if direct else 'writeback'
    bus, transport = ('pci', 'pci') if board == 'q35' else ('device', 'mmio')
    return qemu_base(board) + [
        '-kernel', os.path.join(a.build, 'guest', 'guest.elf'),
        '-append', f'test=blkbench secs={seconds} depth={DEPTH} transport={transport}{extra}',
        '-chardev', f'file,id=text,path={text}', '-device', 'isa-debugcon,iobase=0xe9,chardev=text',
        '-object', 'iothread,id=io0',
        '-drive', f'file={a.disk},format=raw,if=none,id=d0,cache={cache},aio=io_uring',
        '-device', f'virtio-blk-{bus},drive=d0,iothread=io0']


def guest_result(command, text):
    """Run a guest: the numbers that it printed, and the seconds of CPU time that all took."""
    if os.path.exists(text):
        os.unlink(text)
    before = cpu_time()
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    used = cpu_time() - before
    said = ''
    if os.path.exists(text):
        with open(text, encoding='utf-8', errors='replace') as f:
            said = f.read()
    found = re.search(r'^RESULT (.*)$', said, re.M)
    if not found:
        raise Failure(f'{" ".join(command)}: {p.stderr.strip()} {said.strip()}')
    return {'cpu': used, **dict(re.findall(r'(\w+)=(\d+)\b', found.group(1)))}


def cpu_time():
    """Seconds of CPU time of all programs that have ended here."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def all_requests(result, seconds):
    """How many requests (or frames) a guest made: it warms up for a tenth of a second that it does not count."""
    return int(result['requests' if 'requests' in result else 'frames']) * (seconds + 0.1) / seconds


def fio(a, direct, seconds):
    """fio's requests per second, and CPU time in us for each."""
    command = [PROGRAMS['fio'], '--name=x', f'--filename={a.disk}', '--rw=randread', '--bs=4k', f'--iodepth={DEPTH}',
               '--ioengine=io_uring', f'--direct={int(direct)}', '--time_based', f'--runtime={seconds}',
               '--ramp_time=100ms', '--readonly', '--thread', '--invalidate=0', '--output-format=json']
    p = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                       text=True, check=False)
    if p.returncode:
        raise Failure(f'fio: {p.stderr.strip()}')
    job = json.loads(p.stdout[p.stdout.index('{'):])['jobs'][0]
    return job['read']['iops'], (job['usr_cpu'] + job['sys_cpu']) / 100 * 1e6 / job['read']['iops']


def counted(command, text):
    """System calls of all threads but KVM_RUN, or None if nothing here can count them; and the numbers that the guest printed."""
    with tempfile.NamedTemporaryFile(mode='r', prefix='hako-bench-') as counts:
        if not shutil.which('perf'):
            return None, {}
        r = guest_result(['perf', 'stat', '-x,', '-o', counts.name, '-e', 'raw_syscalls:sys_enter,'
                          'syscalls:sys_enter_ioctl', '--', *command], text)
        n = [int(line.split(',')[0]) for line in counts.read().splitlines()
             if re.match(r'\d+,', line)]
    return n[0] - n[1] if len(n) == 2 else None, r


def calls_per_request(command, text, seconds):
    """System calls for each request, or None."""
    calls, r = counted(command, text)
    return None if calls is None else calls / all_requests(r, seconds)


def warm(path):
    """Bring what is not there of the image into the page cache, in single pages: large ones slow writes down (images.py)."""
    with open(path, 'rb', buffering=0) as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        while f.read(1 << 20):
            pass


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    seconds = 1 if a.quick else 2
    rounds = 2 if a.quick else 5
    with tempfile.TemporaryDirectory(prefix='hako-bench-') as scratch:
        text = os.path.join(scratch, 'text')
        for how in HOW:
            direct = how == 'direct'
            guests = present({
                'hako': ('micro', hako(a, 'micro', direct, seconds, text), 'hako'),
                'QEMU microvm': ('micro', qemu(a, 'microvm', direct, seconds, text), 'QEMU microvm'),
                'hako q35': ('q35', hako(a, 'q35', direct, seconds, text), 'hako'),
                'QEMU q35': ('q35', qemu(a, 'q35', direct, seconds, text), 'QEMU q35'),
            })
            before = start.cpu_before(a, guests)
            for i in range(rounds):
                if not direct:
                    warm(a.disk)
                for name in rotated(present([*guests, 'fio']), i):
                    progress.say(f'random reads, {how}: round {i + 1} of {rounds}, {name}')
                    if name == 'fio':
                        rate, cpu = fio(a, direct, seconds)
                        found[f'disk.{how}.micro'].add('fio', rate / 1e3)
                        found[f'disk.{how}.q35'].add('fio', rate / 1e3)
                        found[f'disk.{how}.cpu'].add('fio', cpu)
                        continue
                    board, command, column = guests[name]
                    r = guest_result(command, text)
                    found[f'disk.{how}.{board}'].add(column, int(r['iops']) / 1e3)
                    found[f'disk.{how}.cpu'].add(name, (r['cpu'] - before[name]) * 1e6 / all_requests(r, seconds))
            for name, (_, command, _) in guests.items():
                progress.say(f'random reads, {how}: system calls of {name}')
                value = calls_per_request(command, text, seconds)
                if value is not None:
                    found[f'disk.{how}.calls'].add(name, value)
    return found
