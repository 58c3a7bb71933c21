# SPDX-License-Identifier: GPL-2.0-only
"""
A hundred VMs at a time, each with a disk, a network card and a console: how long until all have started, when they are begun one after the
other without waiting, and what they take then. Their guest (tests/guest/t_idle.c) sleeps, but for a timer of 10 Hz, about what an idle Linux has.
"""
import contextlib
import os
import re
import select
import shutil
import subprocess
import time

import memory
from measure import Failure, Spec, metrics, present, rotated

COUNT = 100
HZ = 10
LIMIT = 180  # s
METRICS = (
    Spec('density.started', f'VMs that start in a second, {COUNT} at a time', 'of them', better='higher', promises=(('QEMU microvm', '>=', 2),)),
    Spec('density.started.cpu', 'CPU time for each to start', 'ms'),
    Spec('density.memory', f'memory of {COUNT} idle VMs beyond guest RAM, PSS', 'MiB', promises=((None, '<=', 150),), steady=True),
    Spec('density.idle.cpu', f'CPU time of {COUNT} idle VMs, timers of {HZ} Hz', 'ms/s', promises=(('QEMU microvm', '<=', 1),)),
    Spec('density.idle.calls', f'system calls of {COUNT} idle VMs', 'calls/s', digits=0, promises=((None, '<=', 120),), steady=True),
)


def commands(a):
    """Whom to compare."""
    who = memory.commands(a, 'user', None, f'idle hz={HZ}')
    for name, command in who.items():
        # The guest's text goes into the pipe that all have as standard output.
        command += ['--chardev', 'stdio,id=text', '--device', 'isa-debugcon,iobase=0xe9,chardev=text'] if name.startswith('hako') else \
            ['-chardev', 'stdio,id=text,signal=off', '-device', 'isa-debugcon,iobase=0xe9,chardev=text']
    return {name: who[name] for name in ('hako', 'hako q35', 'QEMU microvm')}  # QEMU's q35 starts firmware, which takes seconds where KVM emulates it


def wait_for_all(said, processes):
    """Until as many guests have said a line, "up" if nothing is wrong. They do so a byte at a time, each between the others'."""
    text, end = b'', time.monotonic() + LIMIT
    while text.count(b'\n') < len(processes):
        if not select.select([said], [], [], max(end - time.monotonic(), 0))[0]:
            raise Failure(f'{text.count(10)} of {len(processes)} VMs have started after {LIMIT} s')
        text += os.read(said, 65536)
    if text.strip(b'up\n') or any(p.poll() is not None for p in processes):
        raise Failure(f'{" ".join(processes[0].args)}: {text.decode(errors="replace")[-500:]}')


@contextlib.contextmanager
def crowd(command):
    """COUNT VMs of a kind: their processes, and the seconds until the last was up."""
    quiet, nobody = os.pipe()  # what they have as standard input: it never says anything
    said, say = os.pipe()
    processes = []
    try:
        begin = time.perf_counter()
        for _ in range(COUNT):
            processes.append(subprocess.Popen(command, stdin=quiet, stdout=say, stderr=say))  # pylint: disable=consider-using-with
        os.close(say)
        say = None
        wait_for_all(said, processes)
        yield processes, time.perf_counter() - begin
    finally:
        for p in processes:
            p.kill()
        for p in processes:
            p.wait()
        for fd in filter(None, (quiet, nobody, said, say)):
            os.close(fd)


def cpu_time(processes):
    """Seconds of CPU time of all their threads until now."""
    total = 0
    for p in processes:
        for task in os.listdir(f'/proc/{p.pid}/task'):
            with open(f'/proc/{p.pid}/task/{task}/schedstat', encoding='ascii') as f:
                total += int(f.read().split()[0])
    return total / 1e9


def calls(processes, seconds):
    """Their system calls in a second, or None if nothing here can count them."""
    if not shutil.which('perf'):
        return None
    p = subprocess.run(['perf', 'stat', '-x,', '-e', 'raw_syscalls:sys_enter', '-p', ','.join(str(p.pid) for p in processes), '--',
                        'sleep', str(seconds)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    found = re.search(r'^(\d+),', p.stderr, re.M)
    return int(found[1]) / seconds if found else None


def run(a, progress):
    """The metrics."""
    found = metrics(METRICS)
    who = present(commands(a))
    rounds, seconds = (1, 3) if a.quick else (3, 10)
    for i in range(rounds):
        for name in rotated(who, i):
            progress.say(f'density: round {i + 1} of {rounds}, {name}')
            with crowd(who[name]) as (processes, taken):
                found['density.started'].add(name, COUNT / taken)
                before = cpu_time(processes)
                found['density.started.cpu'].add(name, before * 1e3 / COUNT)
                time.sleep(1)
                begin, before = time.perf_counter(), cpu_time(processes)
                time.sleep(seconds)
                used = cpu_time(processes) - before
                found['density.idle.cpu'].add(name, used * 1e3 / (time.perf_counter() - begin))
                found['density.memory'].add(name, sum(memory.beyond(p.pid, memory.SHARED_OUT) for p in processes) / 1024)
                value = calls(processes, seconds)
                if value is not None:
                    found['density.idle.calls'].add(name, value)
    return found
