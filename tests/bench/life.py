# SPDX-License-Identifier: GPL-2.0-only
"""VMs in turn in one process: made, run until the guest leaves with its first instructions, and ended, beside the bare ioctls."""
import os
import subprocess

from measure import Failure, Spec, metrics, rotated

MANY = 1000
GROWN = f'after {MANY} VMs, more than after {MANY // 10}'
METRICS = (
    Spec('life.time', 'a VM\'s life in one process', 'ms', limit='bare ioctls', promises=(('bare ioctls', '<=', 1.3),), digits=2),
    Spec('life.memory', f'memory {GROWN}', 'KiB', promises=((None, '<=', 256),), digits=0, steady=True),
    Spec('life.descriptors', f'descriptors {GROWN}', 'of them', promises=((None, '<=', 0),), digits=0, steady=True),
    Spec('life.threads', f'threads {GROWN}', 'of them', promises=((None, '<=', 0),), digits=0, steady=True),
)


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
    found = metrics(METRICS)
    rounds = 3 if a.quick else 9
    for i in range(rounds):
        progress.say(f'life: round {i + 1} of {rounds}')
        for name in rotated(who, i):
            for value in lives(who[name] + ['40'])[0]:
                found['life.time'].add(name, value)
    progress.say(f'life: {MANY} in a row')
    for what, value in zip(('memory', 'descriptors', 'threads'), lives(who['hako'] + [str(MANY)])[1]):
        found[f'life.{what}'].add('hako', value)
    return found
