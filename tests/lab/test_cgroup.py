# SPDX-License-Identifier: GPL-2.0-only
"""Control groups (cgroup v2): the host's kernel keeps a guest within its limits, and nothing is left of them."""
import os
import re
import subprocess
import time

import guest

ROOT = '/sys/fs/cgroup'


def read(path):
    with open(path, encoding='ascii') as f:
        return f.read()


def stat(path, word):
    """The number behind a word."""
    return int(re.search(rf'^{word} (\d+)$', read(path), re.M).group(1))


def gone(path):
    """The process that removes it may need a moment."""
    end = time.monotonic() + 20
    while os.path.exists(path) and time.monotonic() < end:
        time.sleep(0.1)
    return not os.path.exists(path)


def mounted(lab):
    if lab.vmm != 'hako':
        raise guest.Skip(f'{lab.vmm} has no such option')
    if not os.path.exists(ROOT + '/cgroup.procs'):
        subprocess.run(['mount', '-t', 'cgroup2', 'none', ROOT], stderr=subprocess.DEVNULL, check=False)  # another test may be faster
    if 'memory' not in read(ROOT + '/cgroup.controllers').split() or os.geteuid():
        raise guest.Skip(f'no memory controller in {ROOT}, or not root')


def spec_with(lab, cgroup):
    return guest.Spec(lab.pieces.paths['kernel-cloud'], lab.pieces.paths['initrd-cloud'], 'micro', memory=512, steps=['shell'], options=['--cgroup', cgroup])


def share(g, file, seconds=10):
    """Of a CPU, what a busy guest gets, as the group counts it."""
    os.write(g.keys, b'while :; do :; done &\n')
    time.sleep(1)
    before, start = stat(file, 'usage_usec'), time.monotonic()
    time.sleep(seconds)
    return (stat(file, 'usage_usec') - before) / 1e6 / (time.monotonic() - start)


def limits(lab):
    """cpu.max of all, then of vCPUs alone."""
    mounted(lab)
    base = f'{ROOT}/hako-{os.getpid()}'
    for name, options, below in (('cpu-max', 'cpu.max=40000 100000,cpu.weight=50,memory.max=400M', ''),
                                 ('vcpus-cpu-max', 'vcpus.cpu.max=40000 100000,emulation.cpu.weight=200', '/vcpus')):
        path = f'{base}-{name}'
        with lab.start(spec_with(lab, f'{path},{options}')) as g:
            g.expect('@@ shell')
            got, throttled = share(g, path + below + '/cpu.stat'), stat(path + below + '/cpu.stat', 'nr_throttled')
            lab.lines.append(f'# {lab.name}: {got:.2f} of a CPU, {throttled} times throttled')
            lab.ok(f'{name}.share', 0.2 < got < 0.5 and throttled > 20, f'{got:.2f} of a CPU, {throttled} times')
            if below:
                threads = {w: {read(f'/proc/{g.process.pid}/task/{t}/comm').strip() for t in read(f'{path}/{w}/cgroup.threads').split()}
                           for w in ('vcpus', 'emulation')}
                lab.ok('threads', 'hako-vcpu0' in threads['vcpus'] and threads['emulation'] >= {'hako-io', 'hako-control'} and
                       not any('vcpu' in t for t in threads['emulation']), f'{threads}')
            else:
                values = [read(f'{path}/{f}').strip() for f in ('cpu.max', 'cpu.weight', 'memory.max')]
                lab.ok('values', values == ['40000 100000', '50', str(400 << 20)], f'{values}')
        lab.ok(f'{name}.removed', gone(path), f'{path} is there')


def memory(lab):
    """A guest that touches more than memory.max ends, and the group with it."""
    mounted(lab)
    path = f'{ROOT}/hako-{os.getpid()}-memory'
    with lab.start(spec_with(lab, f'{path},memory.max=160M')) as g:
        g.expect('@@ shell')
        lab.ok('before', stat(path + '/memory.events', 'oom_kill') == 0)
        os.write(g.keys, b'mount -t tmpfs -o size=300m t /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=290\n')
        lab.ok('killed', g.process.wait(120) == -9, f'status {g.process.returncode}')
    lab.ok('removed', gone(path), f'{path} is there')


TESTS = [('cgroup-limits', limits), ('cgroup-memory', memory)]
