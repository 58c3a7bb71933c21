# SPDX-License-Identifier: GPL-2.0-only
"""VMs in turn in one process: made, run until the guest leaves with its first instructions, and ended, beside the bare ioctls."""
import os
import subprocess

from measure import Failure, Metric, rotated

MANY = 1000


def lives(command):
    """What a program prints: the times, and how it has grown."""
    out = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    lines = out.stdout.split('\n')[:-1]
    if out.returncode or not lines:
        raise Failure(f'exit status {out.returncode}: {" ".join(command)}')
    grown = [int(x) for x in lines.pop().split()[1:]] if lines[-1].startswith('grown') else None
    return [float(x) for x in lines], grown


def run(a, progress):
    """The metrics."""
    bare, life = (os.path.join(a.build, 'bench', x) for x in ('bare', 'life'))
    kernel = os.path.join(a.build, 'guest', 'exit.elf')
    who = {
        'bare ioctls': [bare, 'all'],
        'bare, split': [bare, 'split'],
        'hako': [life, 'micro', kernel],
        'hako q35': [life, 'q35', kernel],
    }
    time = Metric('a VM\'s life in one process', 'ms', promises=[('bare ioctls', '<=', 1.3)], digits=2)
    rounds = 3 if a.quick else 9
    for i in range(rounds):
        progress.say(f'life: round {i + 1} of {rounds}')
        for name in rotated(who, i):
            for value in lives(who[name] + ['40'])[0]:
                time.add(name, value)
    progress.say(f'life: {MANY} in a row')
    metrics = [time]
    grown = lives(who['hako'] + [str(MANY)])[1]
    for what, unit, value in zip(('memory', 'descriptors', 'threads'), ('KiB', '', ''), grown):
        m = Metric(f'{what} after {MANY} VMs, more than after {MANY // 10}', unit or 'of them', promises=[(None, '<=', 256 if unit else 0)],
                   digits=0)
        m.add('hako', value)
        metrics.append(m)
    return metrics
